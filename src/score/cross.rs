//! What the latents of other features share with a feature.

use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::{Cosines, pairs};
use super::vector::mean;

/// Features whose cosines with all latents are computed together.
const BLOCK: usize = 64;

pub const CROSS: Definition = Definition {
    name: "cross",
    version: 1,
    meaning: "mean signed cosine of feature i with the latents matched to other features",
    formula: "mean over matched k != i of w_(latent of k) . g_i",
    source: "defined here; shows hedging and absorption by feature (Chanin et al. 2025, arXiv 2505.11756)",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents],
    kind: Kind::Cosine,
    shape: Shape::PerFeature,
    label: "cosine with the latents of other features",
    better: Some(Better::Lower),
};

/// [`CROSS`] of each feature; None where no other feature is matched.
pub fn cross(cosines: &Cosines, matching: &[Option<usize>]) -> Vec<Option<f64>> {
    let matched = pairs(matching);
    let block = |features: &[usize]| {
        let of_latents = cosines.of_features(features);
        let of_feature = |(at, &i): (usize, &usize)| {
            let own = &of_latents[at * cosines.n_latents..];
            mean(matched.iter().filter(|(k, _)| *k != i).map(|&(_, j)| own[j]))
        };
        features.iter().enumerate().map(of_feature).collect::<Vec<_>>()
    };
    let features: Vec<usize> = (0..cosines.n_features).collect();
    features.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}
