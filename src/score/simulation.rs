//! What an ideal one-feature explanation of a latent would score.

use super::activity::Activity;
use super::correlation::correlations;
use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Real, mean};
use super::{NOTHING_ALIVE, Undefined, Value};

pub const SIMULATION_SCORE: Definition = Definition {
    name: "simulation_score",
    version: 2,
    meaning: "mean over alive latents of the best correlation with any feature's activation",
    formula: "mean over alive j of max over all i of Pearson(z_j, x_i); a constant column correlates 0",
    source: "Bills et al. 2023, Language models can explain neurons in language models; the ideal simulator of one feature",
    needs: &[Need::Features, Need::Latents],
    kind: Kind::Cosine,
    shape: Shape::Scalar,
    label: "simulation score (correlation)",
    better: Some(Better::Higher),
};

/// [`SIMULATION_SCORE`]: signed, over all features, represented or not.
pub fn simulation_score<T: Real>(features: &Activity<'_, T>, latents: &Activity<'_, T>, alive: &[usize]) -> Value {
    if alive.is_empty() {
        return Err(NOTHING_ALIVE);
    }
    if features.n() == 0 {
        return Err(Undefined("there are no features"));
    }
    let greatest = |_: usize, r: &[f64]| r.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let best = correlations(latents, features, alive, greatest);
    mean(best).ok_or(NOTHING_ALIVE)
}
