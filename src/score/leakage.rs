//! Does a child's latent carry its parent's direction?

use std::collections::BTreeMap;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::Cosines;
use super::vector::{Directions, dot, mean};
use super::{Undefined, Value};

pub const LEAKAGE: Definition = Definition {
    name: "leakage",
    version: 1,
    meaning: "how much of the parent's direction is in the decoder of the child's latent, beyond what the truth has",
    formula: "mean over parent-child pairs of w_(latent of child) . g_parent - g_child . g_parent",
    source: "Chanin et al. 2024, A is for Absorption, arXiv 2409.14507",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents, Need::Parents],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "leakage of the parent into the child's latent",
    better: Some(Better::Lower),
};

/// [`LEAKAGE`] over pairs with both features represented and the child matched.
pub fn leakage(
    truth: &Directions,
    cosines: &Cosines,
    matching: &[Option<usize>],
    represented: &[usize],
    parents: &BTreeMap<usize, usize>,
) -> Value {
    let of_pair = |(&child, &parent): (&usize, &usize)| {
        let latent = matching[child].filter(|_| represented.binary_search(&parent).is_ok())?;
        Some(cosines.at(latent, parent) - dot(truth.unit(child), truth.unit(parent)))
    };
    mean(parents.iter().filter_map(of_pair)).ok_or(Undefined("no pair of a represented parent and a matched child"))
}
