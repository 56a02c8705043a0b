//! Do latents act apart from each other?

use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::{Firings, both};
use super::vector::{Directions, dot};
use super::{NOTHING_ALIVE, Undefined, Value};

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
pub fn fisher_diagonality(dictionary: &Directions, latents: &Firings, alive: &[usize]) -> Value {
    if alive.is_empty() {
        return Err(NOTHING_ALIVE);
    }
    let entry = |j: usize, k: usize, both: usize| {
        both as f64 / latents.samples as f64 * dot(dictionary.unit(j), dictionary.unit(k))
    };
    // (F_jj², Σ_{k>j} F_jk²) of each alive latent; F is symmetric and a dead latent's row is 0.
    let row = |position: usize| {
        let j = alive[position];
        let own = entry(j, j, latents.counts[j]);
        let others = alive[position + 1..].iter().map(|&k| entry(j, k, both(latents.column(j), latents.column(k))));
        (own * own, others.map(|f| f * f).sum::<f64>())
    };
    let rows: Vec<(f64, f64)> = (0..alive.len()).into_par_iter().map(row).collect();
    let diagonal: f64 = rows.iter().map(|row| row.0).sum();
    let above: f64 = rows.iter().map(|row| row.1).sum();
    let total = diagonal + 2.0 * above;
    if total > 0.0 { Ok(diagonal / total) } else { Err(Undefined("every alive latent has a decoder row of zeros")) }
}
