//! The truth by itself: which features are represented, how large, in how much superposition.
//!
//! W_i is row i of the truth as given (the column W_i of a toy model), Ŵ_i the same at unit norm.

use rayon::prelude::*;

use super::definition::{Definition, Kind, Need, Shape};
use super::tiles::dots;
use super::vector::{Directions, mean};
use super::{NOTHING_REPRESENTED, Undefined, Value};

/// A feature is represented where its norm is at least this (Elhage et al. 2022).
pub const REPRESENTED: f64 = 0.5;

/// Superposition is masked below this norm: of a feature that is not there it is large and means nothing.
const SUPERPOSITION_FLOOR: f64 = 0.1;

/// Dimensionality is 0 below this norm.
const DIMENSIONALITY_FLOOR: f64 = 0.05;

/// Features whose products with all others are computed together.
const BLOCK: usize = 64;

const TOY_MODELS: &str = "Elhage et al. 2022, Toy Models of Superposition";

/// What one feature's direction shares with the others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overlap {
    /// (Ŵ_i·W_i)²
    pub own: f64,
    /// Σ_{j≠i} (Ŵ_i·W_j)², over all j, represented or not.
    pub others: f64,
    /// Σ_{j≠i} (Ŵ_i·Ŵ_j)² over represented j.
    pub interference: f64,
    /// max_{j≠i} |Ŵ_i·Ŵ_j| over represented j; 0 if there is none.
    pub coherence: f64,
}

/// The overlap of each feature with all others, `[n_features]`: the one pass over pairs that all scores of this kind share.
pub fn overlaps(truth: &Directions) -> Vec<Overlap> {
    let of_feature = |i: usize, along: &[f64]| {
        let mut overlap = Overlap::default();
        for (j, &along) in along.iter().enumerate() {
            if i == j {
                overlap.own = along * along;
                continue;
            }
            overlap.others += along * along;
            if truth.norms[j] >= REPRESENTED {
                let cosine = along / truth.norms[j];
                overlap.interference += cosine * cosine;
                overlap.coherence = overlap.coherence.max(cosine.abs());
            }
        }
        overlap
    };
    let block = |first: usize| {
        let last = (first + BLOCK).min(truth.n);
        let mut along = vec![0.0; (last - first) * truth.n];
        dots(truth.unit_rows(first..last), truth.raw_rows(0..truth.n), truth.width, &mut along);
        along.chunks_exact(truth.n).enumerate().map(|(k, along)| of_feature(first + k, along)).collect::<Vec<_>>()
    };
    let firsts: Vec<usize> = (0..truth.n).step_by(BLOCK).collect();
    firsts.into_par_iter().map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Features of norm at least 0.5, ascending.
pub fn represented(truth: &Directions) -> Vec<usize> {
    (0..truth.n).filter(|&i| truth.norms[i] >= REPRESENTED).collect()
}

pub const N_REPRESENTED: Definition = Definition {
    name: "n_represented",
    version: 1,
    meaning: "number of features that are represented: norm of W_i at least 0.5",
    formula: "#{i : ||W_i|| >= 0.5}",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "features represented",
    better: None,
};

pub const NORM: Definition = Definition {
    name: "norm",
    version: 1,
    meaning: "length of feature i's direction",
    formula: "||W_i||",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::PerFeature,
    label: "feature norm ||W_i||",
    better: None,
};

pub const NORM_MEAN: Definition = Definition {
    name: "norm_mean",
    version: 1,
    meaning: "mean norm of represented features",
    formula: "mean of ||W_i|| over ||W_i|| >= 0.5",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "mean norm of represented features",
    better: None,
};

/// [`NORM_MEAN`] of the truth.
pub fn norm_mean(truth: &Directions, represented: &[usize]) -> Value {
    mean(represented.iter().map(|&i| truth.norms[i])).ok_or(NOTHING_REPRESENTED)
}

pub const SUPERPOSITION: Definition = Definition {
    name: "superposition",
    version: 1,
    meaning: "how much other features overlap feature i's direction; masked where norm_i < 0.1",
    formula: "sum over j != i of (W^_i . W_j)^2, W^_i at unit norm, W_j as it is",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::PerFeature,
    label: "superposition of feature i",
    better: None,
};

/// [`SUPERPOSITION`] of each feature; None where masked.
pub fn superposition(truth: &Directions, overlaps: &[Overlap]) -> Vec<Option<f64>> {
    let visible = |i: usize| (truth.norms[i] >= SUPERPOSITION_FLOOR).then_some(overlaps[i].others);
    (0..truth.n).map(visible).collect()
}

pub const DIMENSIONALITY: Definition = Definition {
    name: "dimensionality",
    version: 1,
    meaning: "share of a dimension that feature i has for itself; 0 where norm_i < 0.05",
    formula: "||W_i||^2 / sum over j of (W^_i . W_j)^2, j including i",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Share,
    shape: Shape::PerFeature,
    label: "feature dimensionality D_i",
    better: None,
};

/// [`DIMENSIONALITY`] of each feature.
pub fn dimensionality(truth: &Directions, overlaps: &[Overlap]) -> Vec<f64> {
    let of_feature = |i: usize| {
        let norm = truth.norms[i];
        if norm >= DIMENSIONALITY_FLOOR { norm * norm / (overlaps[i].own + overlaps[i].others) } else { 0.0 }
    };
    (0..truth.n).map(of_feature).collect()
}

pub const W_NORM: Definition = Definition {
    name: "w_norm",
    version: 1,
    meaning: "Frobenius norm of the matrix of directions",
    formula: "||W||_F = sqrt(sum over i of ||W_i||^2)",
    source: "Henighan et al. 2023, Superposition, Memorization, and Double Descent",
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "weight norm ||W||_F",
    better: None,
};

/// [`W_NORM`] of the truth.
pub fn w_norm(truth: &Directions) -> f64 {
    truth.norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()
}

pub const CAPACITY: Definition = Definition {
    name: "capacity",
    version: 1,
    meaning: "dimensions in use, summed over features; at most the rank of W",
    formula: "sum over i of dimensionality_i",
    source: "Scherlis et al. 2022, Polysemanticity and Capacity in Neural Networks, arXiv 2210.01892",
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "capacity (dimensions)",
    better: None,
};

pub const D_STAR: Definition = Definition {
    name: "d_star",
    version: 1,
    meaning: "dimensions per feature",
    formula: "d_hidden / ||W||_F^2",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "dimensions per feature D*",
    better: None,
};

/// [`D_STAR`] of the truth.
pub fn d_star(truth: &Directions) -> Value {
    let total: f64 = truth.norms.iter().map(|norm| norm * norm).sum();
    if total > 0.0 { Ok(truth.d_hidden as f64 / total) } else { Err(Undefined("every truth row is zero")) }
}

pub const PHASE: Definition = Definition {
    name: "phase",
    version: 1,
    meaning: "dropped, superposed or dedicated",
    formula: "dropped where norm_i < 0.5, else superposed where superposition_i > 0.25, else dedicated",
    source: TOY_MODELS,
    needs: &[Need::Truth],
    kind: Kind::Word,
    shape: Shape::PerFeature,
    label: "phase",
    better: None,
};

/// [`PHASE`] of each feature.
pub fn phase(truth: &Directions, overlaps: &[Overlap]) -> Vec<&'static str> {
    let of_feature = |i: usize| match truth.norms[i] {
        norm if norm < REPRESENTED => "dropped",
        _ if overlaps[i].others > 0.25 => "superposed",
        _ => "dedicated",
    };
    (0..truth.n).map(of_feature).collect()
}
