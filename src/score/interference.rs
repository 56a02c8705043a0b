//! How far represented features are from orthogonal.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::geometry::Overlap;
use super::vector::mean;
use super::{NOTHING_REPRESENTED, Undefined, Value};
use crate::toy::theory::interference::{least_interference, welch_bound};

pub const INTERFERENCE: Definition = Definition {
    name: "interference",
    version: 1,
    meaning: "mean over represented features of the squared cosines with all other represented ones",
    formula: "mean over i of sum over j != i of (g_i . g_j)^2, unit rows of represented features",
    source: "Elhage et al. 2022, Toy Models of Superposition",
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "interference",
    better: Some(Better::Lower),
};

/// [`INTERFERENCE`]; 0 for a single represented feature.
pub fn interference(overlaps: &[Overlap], represented: &[usize]) -> Value {
    mean(represented.iter().map(|&i| overlaps[i].interference)).ok_or(NOTHING_REPRESENTED)
}

pub const MUTUAL_COHERENCE: Definition = Definition {
    name: "mutual_coherence",
    version: 1,
    meaning: "greatest absolute cosine of two represented features",
    formula: "max over i != j of |g_i . g_j|, unit rows of represented features",
    source: "Donoho & Huo 2001, Uncertainty principles and ideal atomic decomposition",
    needs: &[Need::Truth],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "mutual coherence \u{3bc}",
    better: Some(Better::Lower),
};

/// [`MUTUAL_COHERENCE`]; needs two represented features.
pub fn mutual_coherence(overlaps: &[Overlap], represented: &[usize]) -> Value {
    if represented.len() < 2 {
        return Err(Undefined("fewer than two features are represented"));
    }
    Ok(represented.iter().map(|&i| overlaps[i].coherence).fold(0.0, f64::max))
}

pub const WELCH_GAP: Definition = Definition {
    name: "welch_gap",
    version: 1,
    meaning: "mutual coherence above the least that any so many directions can have",
    formula: "mutual_coherence - sqrt((n - d) / (d (n - 1))), n = n_represented; the bound is 0 for n <= d",
    source: "Welch 1974, Lower bounds on the maximum cross correlation of signals",
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "coherence above the Welch bound",
    better: Some(Better::Lower),
};

pub const WELCH_BOUND: Definition = Definition {
    name: "welch_bound",
    version: 1,
    meaning: "least mutual coherence that so many directions can have",
    formula: "sqrt((n - d) / (d (n - 1))), n = n_represented; 0 for n <= d",
    source: "Welch 1974, Lower bounds on the maximum cross correlation of signals",
    needs: &[Need::Truth],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "Welch bound",
    better: None,
};

pub const INTERFERENCE_BOUND: Definition = Definition {
    name: "interference_bound",
    version: 1,
    meaning: "least interference that so many directions can have; tight frames have it",
    formula: "(n - d) / d, n = n_represented; 0 for n <= d",
    source: "Welch 1974, Lower bounds on the maximum cross correlation of signals (the sum of squares)",
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "least interference",
    better: None,
};

/// [`WELCH_BOUND`].
pub fn bound(represented: &[usize], d_hidden: usize) -> Value {
    if represented.is_empty() { Err(NOTHING_REPRESENTED) } else { Ok(welch_bound(represented.len(), d_hidden)) }
}

/// [`INTERFERENCE_BOUND`].
pub fn interference_bound(represented: &[usize], d_hidden: usize) -> Value {
    if represented.is_empty() { Err(NOTHING_REPRESENTED) } else { Ok(least_interference(represented.len(), d_hidden)) }
}

/// [`WELCH_GAP`]; needs two represented features.
pub fn welch_gap(overlaps: &[Overlap], represented: &[usize], d_hidden: usize) -> Value {
    Ok(mutual_coherence(overlaps, represented)? - welch_bound(represented.len(), d_hidden))
}
