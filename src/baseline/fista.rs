//! Codes of least L1 norm by proximal gradient steps with momentum (Beck & Teboulle 2009, "A fast iterative
//! shrinkage-thresholding algorithm").
//!
//! For one sample, with rows g_i of the dictionary G and h less its bias:
//!
//! ```text
//! minimise ½ ‖h - Gᵀz‖² + λ Σ|z_i|          over all z, or over z ≥ 0
//!
//! z' = shrink(y - (G (Gᵀy - h)) / L, λ / L)    L above the greatest eigenvalue of G Gᵀ
//! t' = (1 + √(1 + 4 t²)) / 2
//! y' = z' + (t - 1)/t' (z' - z)               t = 1 and y' = z' again where momentum points uphill, (y - z')·(z' - z) > 0
//! ```
//!
//! (the restart of O'Donoghue & Candès 2015). λ goes down by continuation: it starts at a tenth of the greatest |g_i·h|, and each
//! stage starts from the codes of the one before with a tenth of its λ, down to `l1` times that product. A stage ends where a step
//! moves no code by more than a share of the greatest: 1e-4 on the way, 1e-7 in the last stage, whose codes are the answer; all
//! stages together end after `max_steps` steps. The answer differs from that of λ = 0 (basis pursuit) by λ times the inverse
//! Gram matrix of the codes' directions, which for `l1` of 1e-6 is below 1e-4 of the codes wherever that matrix is better than
//! 1e-2.
//!
//! Everything is f64, sample by sample, in one order: neither threads nor instruction sets change a bit.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::backend::simd::{self, Isa, Kernel, Simd};

/// The search and where it ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fista {
    /// λ of the last stage over the greatest |g_i·h|, in (0, 0.1).
    pub l1: f64,
    /// Steps per sample, all stages together.
    pub max_steps: usize,
    /// Codes of either sign, or non-negative ones.
    pub signed: bool,
}

/// Each stage's λ over that of the one before.
const CONTINUATION: f64 = 0.1;

/// Largest move of a code, over the greatest code, at which a stage ends: on the way, and in the last.
const STILL: [f64; 2] = [1e-4, 1e-7];

impl Fista {
    /// Codes `[samples, n_features]` of hidden states `[samples, d_hidden]`; `truth` is `[n_features, d_hidden]`, `bias`
    /// `[d_hidden]`.
    ///
    /// # Panics
    /// If the widths differ.
    pub fn encode(&self, truth: ArrayView2<'_, f32>, bias: &[f32], h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (n, d) = truth.dim();
        assert!(h.ncols() == d && bias.len() == d, "hidden states of the wrong width");
        let rows: Vec<f64> = truth.iter().map(|&g| g as f64).collect();
        let columns: Vec<f64> = truth.t().iter().map(|&g| g as f64).collect();
        let problem =
            Problem { n, d, lipschitz: greatest_eigenvalue(&rows, &columns, n, d), rows, columns, search: *self };
        let samples: Vec<Vec<f32>> = (0..h.nrows())
            .into_par_iter()
            .map(|s| {
                let target: Vec<f64> = h.row(s).iter().zip(bias).map(|(&h, &b)| h as f64 - b as f64).collect();
                simd::run(Isa::best(), Solve { problem: &problem, target: &target })
            })
            .collect();
        Array2::from_shape_vec((h.nrows(), n), samples.concat()).expect("n codes a sample")
    }
}

/// A dictionary in both layouts.
struct Problem {
    n: usize,
    d: usize,
    /// L.
    lipschitz: f64,
    /// `[n, d]`
    rows: Vec<f64>,
    /// `[d, n]`
    columns: Vec<f64>,
    search: Fista,
}

/// A bound above the greatest eigenvalue of G Gᵀ: power iteration from a vector of ones comes near it from below (its Rayleigh
/// quotient after 100 steps is short by far less than the 5 % added), and no bound is above n times the greatest squared row.
fn greatest_eigenvalue(rows: &[f64], columns: &[f64], n: usize, d: usize) -> f64 {
    let mut v: Vec<f64> = (0..d).map(|k| 1.0 + 0.01 * (k % 7) as f64).collect();
    let mut value = 0.0;
    for _ in 0..100 {
        let size = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if size == 0.0 {
            break;
        }
        v.iter_mut().for_each(|x| *x /= size);
        let mut products = vec![0.0; n];
        v.iter().zip(columns.chunks_exact(n.max(1))).for_each(|(&x, column)| add(&mut products, x, column));
        value = products.iter().map(|x| x * x).sum::<f64>();
        v.fill(0.0);
        products.iter().zip(rows.chunks_exact(d.max(1))).for_each(|(&x, row)| add(&mut v, x, row));
    }
    let largest = rows.chunks_exact(d.max(1)).map(|row| row.iter().map(|x| x * x).sum::<f64>()).fold(0.0, f64::max);
    (1.05 * value).max(largest).max(f64::MIN_POSITIVE)
}

/// to += scale * from.
#[inline(always)]
fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

/// The search for one sample's codes.
struct Solve<'a> {
    problem: &'a Problem,
    target: &'a [f64],
}

impl Kernel for Solve<'_> {
    type Out = Vec<f32>;

    /// `S` only says which instruction set these loops are compiled for: it has no f64. Products and sums are rounded apart,
    /// which every set does alike.
    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let Solve { problem, target } = self;
        let Problem { n, d, lipschitz, rows, columns, search } = problem;
        let (n, d) = (*n, *d);
        let (mut z, mut y, mut gradient, mut residual) = (vec![0.0; n], vec![0.0; n], vec![0.0; n], vec![0.0; d]);
        target.iter().zip(columns.chunks_exact(n.max(1))).for_each(|(&h, column)| add(&mut gradient, h, column));
        let greatest = gradient.iter().fold(0.0, |most: f64, &g| most.max(if search.signed { g.abs() } else { g }));
        if greatest == 0.0 {
            return vec![0.0; n];
        }
        let (mut lambda, last) = (greatest, search.l1 * greatest);
        let mut left = search.max_steps;
        while lambda > last && left > 0 {
            lambda = (CONTINUATION * lambda).max(last);
            let still = STILL[usize::from(lambda <= last)];
            let (mut t, threshold) = (1.0f64, lambda / lipschitz);
            y.copy_from_slice(&z);
            while left > 0 {
                left -= 1;
                residual.iter_mut().zip(target).for_each(|(r, h)| *r = -h);
                for (&code, row) in y.iter().zip(rows.chunks_exact(d)).filter(|(code, _)| **code != 0.0) {
                    add(&mut residual, code, row);
                }
                gradient.fill(0.0);
                residual.iter().zip(columns.chunks_exact(n)).for_each(|(&r, column)| add(&mut gradient, r, column));
                let next_t = 0.5 * (1.0 + (1.0 + 4.0 * t * t).sqrt());
                let momentum = (t - 1.0) / next_t;
                let (mut uphill, mut moved, mut size) = (0.0, 0.0f64, 0.0f64);
                for ((z, y), g) in z.iter_mut().zip(&mut y).zip(&gradient) {
                    let to = *y - g / lipschitz;
                    let shrunk = if to > threshold {
                        to - threshold
                    } else if search.signed && to < -threshold {
                        to + threshold
                    } else {
                        0.0
                    };
                    let step = shrunk - *z;
                    uphill += (*y - shrunk) * step;
                    moved = moved.max(step.abs());
                    size = size.max(shrunk.abs());
                    *z = shrunk;
                    *y = shrunk + momentum * step;
                }
                t = next_t;
                if uphill > 0.0 {
                    t = 1.0;
                    y.copy_from_slice(&z);
                }
                if moved <= still * size {
                    break;
                }
            }
        }
        z.iter().map(|&z| z as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dictionary;
    use crate::random::{Draws, Stream};
    use ndarray::arr2;

    const SEARCH: Fista = Fista { l1: 1e-6, max_steps: 20_000, signed: false };

    fn random(n: usize, d: usize) -> Array2<f32> {
        let dictionary = Dictionary::random(n, d, 3);
        Array2::from_shape_vec((n, d), dictionary.vectors).expect("n rows of d")
    }

    /// Exactly k codes of size .5 to 1.5 a sample, of either sign if asked.
    fn codes(samples: usize, n: usize, k: usize, signed: bool) -> Array2<f32> {
        let mut draws = Draws::new(8, Stream::Baseline, 0);
        let mut x = Array2::zeros((samples, n));
        for mut row in x.rows_mut() {
            let mut fired = 0;
            while fired < k {
                let i = draws.below(n as u32) as usize;
                let size = 0.5 + draws.uniform() as f32;
                let sign = if signed && draws.uniform() < 0.5 { -1.0 } else { 1.0 };
                if row[i] == 0.0 {
                    row[i] = sign * size;
                    fired += 1;
                }
            }
        }
        x
    }

    fn worst(found: &Array2<f32>, expected: &Array2<f32>) -> f32 {
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Half of what the Donoho-Tanner limits allow at δ = 1/2: .28 · 40 and .19 · 40.
    #[test]
    fn sparse_codes_come_back_from_random_directions() {
        let truth = random(80, 40);
        let bias: Vec<f32> = (0..40).map(|k| k as f32 / 40.0).collect();
        for (k, signed) in [(1, false), (11, false), (7, true)] {
            let x = codes(20, 80, k, signed);
            let h = x.dot(&truth) + ndarray::ArrayView1::from(&bias);
            let found = Fista { signed, ..SEARCH }.encode(truth.view(), &bias, h.view());
            assert!(worst(&found, &x) < 1e-3, "{k} {signed} {}", worst(&found, &x));
        }
    }

    /// One direction: the least of ½ (h - z)² + λ z with λ = l1 h is z = (1 - l1) h; negative h gives 0, or the same mirrored.
    #[test]
    fn a_single_direction_is_shrunk_by_the_penalty_alone() {
        let (truth, h) = (arr2(&[[1.0]]), arr2(&[[2.0], [-3.0], [0.0]]));
        let search = Fista { l1: 0.05, ..SEARCH };
        assert!(worst(&search.encode(truth.view(), &[0.0], h.view()), &arr2(&[[1.9], [0.0], [0.0]])) < 1e-6);
        let signed = Fista { signed: true, ..search };
        assert!(worst(&signed.encode(truth.view(), &[0.0], h.view()), &arr2(&[[1.9], [-2.85], [0.0]])) < 1e-6);
    }

    /// At a minimum products with what is left are λ on codes that fire and at most λ elsewhere.
    #[test]
    fn what_comes_out_satisfies_the_conditions_of_a_minimum() {
        let truth = random(30, 12);
        let x = codes(10, 30, 9, false);
        let h = x.dot(&truth);
        let search = Fista { l1: 0.01, ..SEARCH };
        let found = search.encode(truth.view(), &[0.0; 12], h.view());
        let products = (&h - &found.dot(&truth)).dot(&truth.t());
        let first = h.dot(&truth.t());
        for s in 0..10 {
            let greatest = first.row(s).iter().copied().fold(0.0, f32::max);
            let lambda = 0.01 * greatest;
            for (&z, &product) in found.row(s).iter().zip(products.row(s)) {
                // Codes still move by 1e-7, products by less than 30 such; f32 adds 1e-6 of the greatest.
                let off = if z > 0.0 { (product - lambda).abs() } else { product - lambda };
                assert!(off < 1e-5 * greatest, "{z} {product} {lambda}");
            }
        }
    }

    #[test]
    fn too_few_steps_end_the_search_early() {
        let truth = random(80, 40);
        let x = codes(5, 80, 10, false);
        let h = x.dot(&truth);
        let few = Fista { max_steps: 3, ..SEARCH }.encode(truth.view(), &[0.0; 40], h.view());
        assert!(worst(&few, &x) > 1e-2);
        let none = Fista { max_steps: 0, ..SEARCH }.encode(truth.view(), &[0.0; 40], h.view());
        assert!(none.iter().all(|z| *z == 0.0));
    }

    #[test]
    fn threads_change_no_bit() {
        let truth = random(40, 10);
        let h = codes(50, 40, 4, false).dot(&truth);
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| SEARCH.encode(truth.view(), &[0.0; 10], h.view())));
        assert!(found[0] == found[1]);
    }

    /// A 2 by 2 dictionary with eigenvalues 1 ± .6, rows at cosine .6.
    #[test]
    fn the_step_is_safe() {
        let rows = [1.0, 0.0, 0.6, 0.8];
        let columns = [1.0, 0.6, 0.0, 0.8];
        let found = greatest_eigenvalue(&rows, &columns, 2, 2);
        assert!((1.6..1.7).contains(&found), "{found}");
        assert!(greatest_eigenvalue(&[0.0; 4], &[0.0; 4], 2, 2) > 0.0);
    }
}
