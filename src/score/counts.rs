//! How many features and latents fire.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::Firings;
use super::vector::Real;
use super::{NO_SAMPLES, Undefined, Value};
use crate::codes::Codes;

pub const TRUE_L0: Definition = Definition {
    name: "true_l0",
    version: 1,
    meaning: "mean number of features that are not 0 in a sample",
    formula: "mean over samples of #{i : x_i != 0}",
    source: "SAELens synthetic/evals.py",
    needs: &[Need::Features],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "active features (true L0)",
    better: None,
};

/// [`TRUE_L0`]. Negative activations count here, and only here.
pub fn true_l0<T: Real>(features: &Codes<T>) -> Value {
    per_sample(features.n_entries(), features.n_rows())
}

pub const L0: Definition = Definition {
    name: "l0",
    version: 1,
    meaning: "mean number of latents that fire in a sample",
    formula: "mean over samples of #{j : z_j != 0}",
    source: "SAELens synthetic/evals.py, sae_l0",
    needs: &[Need::Latents],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "active latents (L0)",
    better: None,
};

/// [`L0`]
pub fn l0(latents: &Firings) -> Value {
    per_sample(latents.counts.iter().sum(), latents.samples)
}

fn per_sample(count: usize, samples: usize) -> Value {
    if samples == 0 { Err(NO_SAMPLES) } else { Ok(count as f64 / samples as f64) }
}

pub const DEAD: Definition = Definition {
    name: "dead",
    version: 1,
    meaning: "number of latents that never fire in the samples",
    formula: "#{j : z_j = 0 in every sample}",
    source: "SAELens synthetic/evals.py, dead_latents",
    needs: &[Need::Latents],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "dead latents",
    better: Some(Better::Lower),
};

/// [`DEAD`]
pub fn dead(latents: &Firings) -> usize {
    latents.counts.iter().filter(|&&count| count == 0).count()
}

pub const DEAD_FRACTION: Definition = Definition {
    name: "dead_fraction",
    version: 1,
    meaning: "share of latents that never fire in the samples",
    formula: "dead / n_latents",
    source: "SAELens synthetic/evals.py, dead_latents",
    needs: &[Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "dead latents (share)",
    better: Some(Better::Lower),
};

/// [`DEAD_FRACTION`]
pub fn dead_fraction(latents: &Firings) -> Value {
    if latents.n == 0 { Err(Undefined("there are no latents")) } else { Ok(dead(latents) as f64 / latents.n as f64) }
}

pub const DENSITY: Definition = Definition {
    name: "density",
    version: 1,
    meaning: "share of samples on which latent j fires",
    formula: "share of samples with z_j != 0",
    source: "Bricken et al. 2023, Towards Monosemanticity",
    needs: &[Need::Latents],
    kind: Kind::Share,
    shape: Shape::PerLatent,
    label: "density of latent j",
    better: None,
};

/// [`DENSITY`] of each latent; None without samples.
pub fn density(latents: &Firings) -> Vec<Option<f64>> {
    latents.counts.iter().map(|&count| per_sample(count, latents.samples).ok()).collect()
}
