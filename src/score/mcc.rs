//! Mean |cosine| under one-to-one matching. Sign is ignored.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::{Cosines, pairs};
use super::vector::mean;
use super::{NOTHING_REPRESENTED, Undefined, Value};

pub const MCC: Definition = Definition {
    name: "mcc",
    version: 1,
    meaning: "mean absolute cosine under one-to-one matching of all features and all latents, dead ones too",
    formula: "mean of |w_j . g_i| over the min(n_features, n_latents) pairs of the best assignment",
    source: "SAELens synthetic/evals.py; after arXiv 2505.20254",
    needs: &[Need::Truth, Need::Dictionary],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "mean matched cosine (MCC)",
    better: Some(Better::Higher),
};

/// [`MCC`], given the assignment of all features and all latents.
pub fn mcc(cosines: &Cosines, matched: &[(usize, usize)]) -> Value {
    mean(matched.iter().map(|&(i, j)| cosines.at(j, i).abs())).ok_or(Undefined("no feature or no latent to match"))
}

pub const MCC_REPRESENTED: Definition = Definition {
    name: "mcc_represented",
    version: 1,
    meaning: "mean absolute cosine of represented features with their matched alive latents, an unmatched feature counting 0",
    formula: "sum of |w_j . g_i| over matched pairs / n_represented",
    source: "SAELens synthetic/evals.py, over represented features and alive latents",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "mean matched cosine of represented features",
    better: Some(Better::Higher),
};

/// [`MCC_REPRESENTED`]; 0 where no latent is alive.
pub fn mcc_represented(cosines: &Cosines, represented: &[usize], matching: &[Option<usize>]) -> Value {
    if represented.is_empty() {
        return Err(NOTHING_REPRESENTED);
    }
    let total: f64 = pairs(matching).into_iter().map(|(i, j)| cosines.at(j, i).abs()).sum();
    Ok(total / represented.len() as f64)
}
