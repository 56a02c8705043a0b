//! One latent for several features.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::survey::Survey;
use super::vector::mean;
use super::{NOTHING_ALIVE, NOTHING_REPRESENTED, Value};

/// Cosines below this are no part of a merge.
const PART: f64 = 0.2;

/// So many features, effectively, make a merge.
const COUNT: f64 = 1.5;

/// A latent this close to one feature merges nothing: in a superposed world its other cosines are the truth's own.
const OWN: f64 = 0.9;

pub const MERGING: Definition = Definition {
    name: "merging",
    version: 1,
    meaning: "share of alive latents that stand for several represented features at once",
    formula: "c_i = max(0, w_j . g_i) kept where >= 0.2; count = (sum c^2)^2 / sum c^4; merges where count >= 1.5 and no c_i >= 0.9",
    source: "defined here; the count is the inverse participation ratio",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "latents that merge features (share)",
    better: Some(Better::Lower),
};

/// [`MERGING`]
pub fn merging(survey: &Survey, represented: &[usize], alive: &[usize]) -> Value {
    if represented.is_empty() {
        return Err(NOTHING_REPRESENTED);
    }
    mean(alive.iter().map(|&j| survey.merges[j] as u8 as f64)).ok_or(NOTHING_ALIVE)
}

/// Whether a latent with these cosines with represented features stands for several of them.
pub fn merges(cosines: impl Iterator<Item = f64>) -> bool {
    let (mut second, mut fourth, mut greatest) = (0.0, 0.0, 0.0f64);
    for c in cosines.filter(|&c| c >= PART) {
        second += c * c;
        fourth += c * c * c * c;
        greatest = greatest.max(c);
    }
    let count = if fourth > 0.0 { second * second / fourth } else { 0.0 };
    count >= COUNT && greatest < OWN
}
