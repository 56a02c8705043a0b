//! Directions pushed apart by gradient descent (SAELens `orthogonalize_embeddings`).
//!
//! ```text
//! L(E) = Σ_{i≠j} (e_i·e_j)² + N Σ_i (‖e_i‖² - 1)²            each unordered pair twice
//! ∂L/∂e_i = 4 (E EᵀE)_i + 4 (N (‖e_i‖² - 1) - ‖e_i‖²) e_i
//! plain Adam, one step per pass, no normalising between steps; unit rows at the end
//! ```
//!
//! The sum over all pairs of rows is a product with the d by d matrix M = EᵀE, so that a step costs 4 N d² operations
//! instead of 4 N² d, and no N by N matrix is ever cut into pieces: exactly the same gradient. The rows are the "samples" of
//! the [layout](crate::backend::ops::layout) of a batch: M is [`Outer`], E M is [`Product`], a panel of rows at a time.
//!
//! M is symmetric: it is summed for strips of columns, and only for pairs of strips on and above the diagonal. It is summed
//! over fixed blocks of rows, and the blocks in order, so that threads change no bit.

use rayon::prelude::*;

use crate::backend::ops::layout::{PANEL, TILES, flat, flat_mut, pack_panel};
use crate::backend::ops::optimizer::{Moments, Step, Update};
use crate::backend::ops::outer::Outer;
use crate::backend::ops::product::{Product, Strided};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::training::Optimizer;

/// Settings of the descent; SAELens has 200 steps at .01 where it orthogonalises by default, SynthSAEBench-16k 100 at 3e-4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orthogonalise {
    /// Steps of Adam.
    pub steps: usize,
    /// Its learning rate.
    pub lr: f64,
}

const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/// Panels of a block of rows: the fixed pieces of every sum over rows. A strip of a block fits into a second-level cache.
const BLOCK: usize = 16;

/// Columns of a strip.
const STRIP: usize = 64;

/// Unit rows `[n, d]` after the descent from the given ones.
///
/// # Panics
/// If `rows` has not n · d numbers.
pub fn orthogonalise(rows: &[f32], d: usize, settings: &Orthogonalise) -> Vec<f32> {
    orthogonalise_on(Isa::best(), rows, d, settings)
}

/// The same with a named instruction set: the same bits.
pub fn orthogonalise_on(isa: Isa, rows: &[f32], d: usize, settings: &Orthogonalise) -> Vec<f32> {
    assert!(d > 0 && rows.len().is_multiple_of(d), "whole rows of {d} numbers");
    let n = rows.len() / d;
    let mut panels: Vec<Panel> = rows.par_chunks(PANEL * d).map(|rows| Panel::new(rows, d)).collect();
    for step in 0..settings.steps {
        let gram = gram(isa, &panels, d);
        let step = Step::new(ADAM, settings.lr, 0.0, step);
        panels.par_iter_mut().for_each(|panel| panel.advance(isa, &gram, d, n, &step));
    }
    let unit = |panel: &Panel, s: usize| {
        let row: Vec<f64> = (0..d).map(|k| flat(&panel.rows)[k * PANEL + s] as f64).collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-8);
        row.into_iter().map(move |v| (v / norm) as f32)
    };
    (0..n).flat_map(|i| unit(&panels[i / PANEL], i % PANEL)).collect()
}

/// The gradient of the loss at rows `[n, d]`, `[n, d]`: what a step of the descent is taken along.
pub fn gradient(rows: &[f32], d: usize) -> Vec<f32> {
    let isa = Isa::best();
    let mut panels: Vec<Panel> = rows.chunks(PANEL * d).map(|rows| Panel::new(rows, d)).collect();
    let gram = gram(isa, &panels, d);
    let n = rows.len() / d;
    panels.iter_mut().for_each(|panel| panel.slope(isa, &gram, d, n));
    (0..n * d).map(|at| flat(&panels[at / d / PANEL].gradient)[at % d * PANEL + at / d % PANEL]).collect()
}

/// Up to 64 rows and what Adam knows of them; rows past the last are 0 and stay 0.
struct Panel {
    /// `[d][TILES]`, rows in the lanes.
    rows: Vec<Lanes>,
    gradient: Vec<Lanes>,
    moments: Moments,
}

impl Panel {
    fn new(rows: &[f32], d: usize) -> Panel {
        let mut panel = vec![Lanes::default(); d * TILES];
        pack_panel(rows, d, 1.0, &mut panel);
        Panel { gradient: panel.clone(), moments: Moments::new(ADAM, panel.len() * 16), rows: panel }
    }

    /// The gradient of its rows; `gram` is M, `[d, d]`.
    fn slope(&mut self, isa: Isa, gram: &[f32], d: usize, n: usize) {
        let weights = Strided { numbers: gram, row_stride: d, depth_stride: 1 };
        run(isa, Product { weights, start: &vec![0.0; d], x: &self.rows, out: &mut self.gradient });
        run(isa, Own { rows: &self.rows, gradient: &mut self.gradient, n: n as f32 });
    }

    fn advance(&mut self, isa: Isa, gram: &[f32], d: usize, n: usize, step: &Step) {
        self.slope(isa, gram, d, n);
        let (parameters, gradient) = (flat_mut(&mut self.rows), flat(&self.gradient));
        run(isa, Update { step, scale: 1.0, parameters, gradient, moments: &mut self.moments });
    }
}

/// 4 (E M)_i + 4 (N (s - 1) - s) e_i from (E M)_i, s = ‖e_i‖², rows in the lanes.
struct Own<'a> {
    rows: &'a [Lanes],
    gradient: &'a mut [Lanes],
    n: f32,
}

impl Kernel for Own<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        for tile in 0..TILES {
            // s - 1 itself, from -1 on, so that the small difference keeps its digits.
            let mut excess = S::splat(-1.0);
            for row in self.rows[tile..].iter().step_by(TILES) {
                let e = S::load(row);
                excess = S::fma(e, e, excess);
            }
            let own = S::sub(S::mul(S::splat(self.n), excess), S::add(excess, S::splat(1.0)));
            for (row, gradient) in self.rows[tile..].iter().zip(&mut self.gradient[tile..]).step_by(TILES) {
                let slope = S::fma(own, S::load(row), S::load(gradient));
                S::store(S::mul(S::splat(4.0), slope), gradient);
            }
        }
    }
}

/// M = EᵀE, `[d, d]`.
fn gram(isa: Isa, panels: &[Panel], d: usize) -> Vec<f32> {
    let blocks: Vec<Vec<f32>> = panels.par_chunks(BLOCK).map(|block| upper(isa, block, d)).collect();
    let mut sum = vec![0.0f32; d * d];
    for block in &blocks {
        sum.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
    }
    for i in 0..d {
        for k in 0..i {
            sum[i * d + k] = sum[k * d + i];
        }
    }
    sum
}

/// Products of the columns of a block of rows, `[d, d]`, those on and above the diagonal.
fn upper(isa: Isa, block: &[Panel], d: usize) -> Vec<f32> {
    // [strip][panel][column][TILES]
    let strips: Vec<Vec<Lanes>> = (0..d)
        .step_by(STRIP)
        .map(|first| {
            let columns = first * TILES..(first + STRIP).min(d) * TILES;
            block.iter().flat_map(|panel| panel.rows[columns.clone()].iter().copied()).collect()
        })
        .collect();
    let mut out = vec![0.0f32; d * d];
    let width = |strip: usize| STRIP.min(d - strip * STRIP);
    for (i, a) in strips.iter().enumerate() {
        for (k, b) in strips.iter().enumerate().skip(i) {
            let (rows_a, rows_b) = (width(i), width(k));
            // From the corner of the two strips to the end of the last row, as `Outer` has it.
            let mut corner = vec![0.0f32; rows_a * rows_b];
            run(isa, Outer { a, rows_a, b, rows_b, out: &mut corner, stride: rows_b });
            for (row, corner) in corner.chunks_exact(rows_b).enumerate() {
                out[(i * STRIP + row) * d + k * STRIP..][..rows_b].copy_from_slice(corner);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dictionary;

    fn loss(e: &[f64], d: usize) -> f64 {
        let rows: Vec<&[f64]> = e.chunks_exact(d).collect();
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut loss = 0.0;
        for (i, a) in rows.iter().enumerate() {
            loss += rows.len() as f64 * (product(a, a) - 1.0).powi(2);
            loss += rows.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, b)| product(a, b).powi(2)).sum::<f64>();
        }
        loss
    }

    /// Rows of norm near 1 that are not quite unit, so that both terms of the loss take part.
    fn rows(n: usize, d: usize) -> Vec<f32> {
        let unit = Dictionary::random(n, d, 5).vectors;
        unit.iter().enumerate().map(|(at, v)| v * (0.9 + 0.05 * (at / d % 5) as f32)).collect()
    }

    /// Central differences at 1e-4 in f64 are good to h² times third derivatives, below 24 N · 1e-8 here; the gradient is
    /// summed in f32 from N + d terms, relative error some 1e-5 of its largest entry.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        for (n, d) in [(1, 1), (3, 5), (20, 7), (70, 4)] {
            let rows = rows(n, d);
            let found = gradient(&rows, d);
            let e: Vec<f64> = rows.iter().map(|&v| v as f64).collect();
            let largest = found.iter().fold(0.0f32, |a, v| a.max(v.abs())) as f64;
            for at in 0..n * d {
                let at_shifted = |by: f64| {
                    let mut e = e.clone();
                    e[at] += by;
                    loss(&e, d)
                };
                let expected = (at_shifted(1e-4) - at_shifted(-1e-4)) / 2e-4;
                let bound = 24e-8 * n as f64 + 1e-5 * largest;
                assert!((found[at] as f64 - expected).abs() < bound, "{n} x {d}, {at}: {} {expected}", found[at]);
            }
        }
    }

    /// SAELens 6.54 `orthogonalize_embeddings` from these rows, 30 steps at .01, in f64. Its own f32 path ends 2.4e-7 away;
    /// a few roundings a step of numbers near 1 may add up to 2e-6.
    #[test]
    fn thirty_steps_end_where_saelens_ends() {
        let given = [[0.6, 0.8, 0.0], [0.8, -0.6, 0.0], [0.0, 0.6, 0.8], [0.48, 0.6, 0.64], [-0.36, 0.48, 0.8]];
        let found = orthogonalise(given.as_flattened(), 3, &Orthogonalise { steps: 30, lr: 0.01 });
        for (at, (found, expected)) in found.iter().zip(SAELENS.as_flattened()).enumerate() {
            assert!((found - expected).abs() < 2e-6, "{at}: {found} {expected}");
        }
    }

    const SAELENS: [[f32; 3]; 5] = [
        [0.5524417, 0.7907951, -0.26353627],
        [0.7540399, -0.59122336, 0.2861447],
        [-0.27714442, 0.49010658, 0.82643],
        [0.6882372, 0.46029225, 0.5607679],
        [-0.5989323, 0.29135907, 0.7459155],
    ];

    /// Rows past a strip, past a panel and past a block of panels.
    #[test]
    fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
        let (n, d, settings) = (BLOCK * PANEL + 70, STRIP + 9, Orthogonalise { steps: 3, lr: 1e-3 });
        let rows = Dictionary::random(n, d, 1).vectors;
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
        let alone = pool(1).install(|| orthogonalise(&rows, d, &settings));
        assert_eq!(pool(3).install(|| orthogonalise(&rows, d, &settings)), alone);
        for isa in Isa::available() {
            assert_eq!(orthogonalise_on(isa, &rows, d, &settings), alone, "{isa:?}");
        }
        assert_ne!(alone, rows);
    }

    /// As many rows as dimensions become orthogonal; more come nearer to equal shares, with less overlap than chance has.
    #[test]
    fn rows_that_fit_become_orthogonal_and_others_overlap_less() {
        let overlap = |rows: &[f32], d: usize| {
            let e: Vec<f64> = rows.iter().map(|&v| v as f64).collect();
            loss(&e, d)
        };
        let drawn = Dictionary::random(12, 12, 2).vectors;
        let found = orthogonalise(&drawn, 12, &Orthogonalise { steps: 400, lr: 0.01 });
        assert!(overlap(&found, 12) < 1e-3 * overlap(&drawn, 12));
        // n unit rows in d dimensions overlap by n²/d - n at least (a tight frame).
        let drawn = Dictionary::random(40, 10, 2).vectors;
        let found = orthogonalise(&drawn, 10, &Orthogonalise { steps: 400, lr: 0.01 });
        let (before, after, least) = (overlap(&drawn, 10), overlap(&found, 10), 1600.0 / 10.0 - 40.0);
        assert!(after < 1.01 * least && before > 1.1 * least, "{before} {after} {least}");
    }

    #[test]
    fn no_steps_normalise_alone() {
        assert_eq!(orthogonalise(&[3.0, 4.0], 2, &Orthogonalise { steps: 0, lr: 0.1 }), [0.6, 0.8]);
        assert!(orthogonalise(&[], 2, &Orthogonalise { steps: 5, lr: 0.1 }).is_empty());
    }
}
