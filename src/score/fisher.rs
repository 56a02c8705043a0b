//! Do latents act apart from each other?

use rayon::prelude::*;

use super::activity::Activity;
use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::Together;
use super::vector::{Directions, Real, dot};
use super::{NOTHING_ALIVE, Undefined, Value};

/// Latents that a thread takes together.
const BLOCK: usize = 64;

pub const FISHER_DIAGONALITY: Definition = Definition {
    name: "fisher_diagonality",
    version: 1,
    meaning: "share of the latents' co-firing overlap that lies on the diagonal; 1 where no two that fire together overlap",
    formula: "F_jk = E[1(z_j fires) 1(z_k fires)] w_j . w_k; sum_j F_jj^2 / sum_jk F_jk^2",
    source: "defined here; the Gauss-Newton block of the squared error in the latents, at unit activation",
    needs: &[Need::Dictionary, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "Fisher diagonality",
    better: Some(Better::Higher),
};

/// [`FISHER_DIAGONALITY`]
pub fn fisher_diagonality<T: Real>(dictionary: &Directions, latents: &Activity<'_, T>, alive: &[usize]) -> Value {
    let firings = latents.firings();
    if alive.is_empty() {
        return Err(NOTHING_ALIVE);
    }
    let entry = |j: usize, k: usize, both: usize| {
        both as f64 / firings.samples as f64 * dot(dictionary.unit(j), dictionary.unit(k))
    };
    // (F_jj², Σ_{k>j} F_jk²) of each alive latent; F is symmetric, a dead latent's row is 0, and so are pairs that never
    // fire together.
    let row = |together: &mut Together, j: usize| {
        let own = entry(j, j, firings.counts[j]);
        let others = together.with((firings, j), latents).iter().filter(|(k, _)| *k > j);
        (own * own, others.map(|&(k, both)| entry(j, k, both)).map(|f| f * f).sum::<f64>())
    };
    let block = |latents: &[usize]| {
        let mut together = Together::new(firings.n);
        latents.iter().map(|&j| row(&mut together, j)).collect::<Vec<_>>()
    };
    let rows: Vec<(f64, f64)> = alive.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect();
    let diagonal: f64 = rows.iter().map(|row| row.0).sum();
    let above: f64 = rows.iter().map(|row| row.1).sum();
    let total = diagonal + 2.0 * above;
    if total > 0.0 { Ok(diagonal / total) } else { Err(Undefined("every alive latent has a decoder row of zeros")) }
}
