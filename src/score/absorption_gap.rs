//! Does the parent's latent fall silent when the child is there?

use std::collections::BTreeMap;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::Firings;
use super::splitting::heard;
use super::vector::mean;
use super::{Undefined, Value};

pub const ABSORPTION_GAP: Definition = Definition {
    name: "absorption_gap",
    version: 1,
    meaning: "recall of the parent's latents while the child is off, minus while it is on; 1 where the child silences them",
    formula: "mean over parent-child pairs of P(S_parent fires | parent on, child off) - P(S_parent fires | parent on, child on)",
    source: "after Chanin et al. 2024, A is for Absorption, arXiv 2409.14507",
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents, Need::Parents],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "recall of the parent lost to the child",
    better: Some(Better::Lower),
};

/// [`ABSORPTION_GAP`] over pairs whose parent has a latent and that have samples on both sides.
pub fn absorption_gap(
    sets: &[Vec<usize>],
    features: &Firings,
    latents: &Firings,
    parents: &BTreeMap<usize, usize>,
) -> Value {
    let of_pair = |(&child, &parent): (&usize, &usize)| {
        if sets[parent].is_empty() {
            return None;
        }
        let sides = features.column(parent).iter().zip(features.column(child));
        let off: Vec<u64> = sides.clone().map(|(parent, child)| parent & !child).collect();
        let on: Vec<u64> = sides.map(|(parent, child)| parent & child).collect();
        Some(heard(&sets[parent], latents, &off)? - heard(&sets[parent], latents, &on)?)
    };
    mean(parents.iter().filter_map(of_pair))
        .ok_or(Undefined("no parent has a latent and samples with and without its child"))
}
