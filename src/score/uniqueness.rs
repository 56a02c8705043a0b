//! Do latents point at different features?

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::{Undefined, Value};

pub const UNIQUENESS: Definition = Definition {
    name: "uniqueness",
    version: 1,
    meaning: "number of different features that latents are closest to, over the number of latents",
    formula: "#{argmax over i of |w_j . g_i| : j} / n_latents; cosines within 1e-9 are equal, the lowest feature wins",
    source: "SAELens synthetic/evals.py",
    needs: &[Need::Truth, Need::Dictionary],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "uniqueness of latents (share)",
    better: Some(Better::Higher),
};

/// [`UNIQUENESS`] from the feature of greatest |cosine| of each latent.
pub fn uniqueness(closest: &[usize]) -> Value {
    let mut different = closest.to_vec();
    different.sort_unstable();
    different.dedup();
    if closest.is_empty() {
        return Err(Undefined("no feature or no latent"));
    }
    Ok(different.len() as f64 / closest.len() as f64)
}
