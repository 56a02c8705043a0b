//! Does the parent's latent fall silent when the child is there?

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::Firings;
use super::splitting::Samples;
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
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    parents.iter().for_each(|(&child, &parent)| children.entry(parent).or_default().push(child));
    let children: Vec<(usize, Vec<usize>)> = children.into_iter().filter(|(i, _)| !sets[*i].is_empty()).collect();
    let of_parent = |(parent, children): &(usize, Vec<usize>)| {
        let mut any = Samples::of(latents.samples, &[]);
        sets[*parent].iter().for_each(|&j| any.add(latents.samples_of(j)));
        let gap = |&child: &usize| {
            let on = Samples::of(features.samples, features.samples_of(child));
            // [child off, child on]: samples, and those on which the parent's latents are heard.
            let (mut samples, mut heard) = ([0usize; 2], [0usize; 2]);
            for &sample in features.samples_of(*parent) {
                let side = on.has(sample) as usize;
                samples[side] += 1;
                heard[side] += any.has(sample) as usize;
            }
            let recall = |side: usize| (samples[side] > 0).then(|| heard[side] as f64 / samples[side] as f64);
            Some((child, recall(0)? - recall(1)?))
        };
        children.iter().filter_map(gap).collect::<Vec<_>>()
    };
    let mut gaps: Vec<(usize, f64)> = children.par_iter().map(of_parent).collect::<Vec<_>>().concat();
    gaps.sort_unstable_by_key(|(child, _)| *child);
    mean(gaps.into_iter().map(|(_, gap)| gap))
        .ok_or(Undefined("no parent has a latent and samples with and without its child"))
}
