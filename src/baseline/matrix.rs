//! Products of f64 matrices for the learners of dictionaries.
//!
//! Every sum has one order: along the inner index, or within fixed blocks of samples and then over the blocks. So neither
//! threads nor instruction sets change a bit.

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::backend::simd::{self, Isa, Kernel, Simd};

/// Samples whose products are summed as one.
const BLOCK: usize = 1024;

/// What is added to the diagonal of a matrix to be inverted, over its mean entry there.
const RIDGE: f64 = 1e-10;

/// a·b of `[n, k]` and `[k, m]`.
pub fn product(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    assert_eq!(a.ncols(), b.nrows(), "inner sizes differ");
    let b = b.as_standard_layout();
    let mut out = Array2::zeros((a.nrows(), b.ncols()));
    let rows = out.as_slice_mut().expect("a fresh array").par_chunks_mut(b.ncols().max(1));
    rows.enumerate().for_each(|(s, out)| {
        for (row, &a) in b.rows().into_iter().zip(a.row(s)).filter(|(_, a)| **a != 0.0) {
            add(out, a, row.to_slice().expect("standard layout"));
        }
    });
    out
}

/// aᵀ·b of `[samples, p]` and `[samples, q]`.
pub fn over_samples(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    assert_eq!(a.nrows(), b.nrows(), "as many samples on both sides");
    let (a, b) = (a.as_standard_layout(), b.as_standard_layout());
    let firsts: Vec<usize> = (0..a.nrows()).step_by(BLOCK).collect();
    let blocks: Vec<Array2<f64>> = (firsts.into_par_iter())
        .map(|first| {
            let last = (first + BLOCK).min(a.nrows());
            let mut sum = Array2::zeros((a.ncols(), b.ncols()));
            let (a, b) = (a.slice(s![first..last, ..]), b.slice(s![first..last, ..]));
            for (a, b) in a.rows().into_iter().zip(b.rows()) {
                let b = b.to_slice().expect("standard layout");
                for (mut out, &a) in sum.rows_mut().into_iter().zip(&a).filter(|(_, a)| **a != 0.0) {
                    add(out.as_slice_mut().expect("rows of a fresh array"), a, b);
                }
            }
            sum
        })
        .collect();
    blocks.into_iter().fold(Array2::zeros((a.ncols(), b.ncols())), |sum, block| sum + block)
}

/// to += scale * from.
pub fn add(to: &mut [f64], scale: f64, from: &[f64]) {
    simd::run(Isa::best(), Add { to, scale, from });
}

struct Add<'a> {
    to: &'a mut [f64],
    scale: f64,
    from: &'a [f64],
}

impl Kernel for Add<'_> {
    type Out = ();

    /// `S` only says which instruction set the loop is compiled for. Product and sum are rounded apart.
    #[inline(always)]
    fn run<S: Simd>(self) {
        self.to.iter_mut().zip(self.from).for_each(|(to, from)| *to += self.scale * from);
    }
}

/// Σ a_k b_k in order.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// x of (a + ridge) x = b by Cholesky factors; a `[n, n]` symmetric without negative eigenvalues, b `[n, q]`.
pub fn solve(a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>) -> Array2<f64> {
    let n = a.nrows();
    let ridge = (RIDGE * a.diag().sum() / n.max(1) as f64).max(f64::MIN_POSITIVE);
    let mut factor = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let known = dot(&factor.row(i).to_vec()[..j], &factor.row(j).to_vec()[..j]);
            let rest = a[[i, j]] - known;
            // Rounding may leave a pivot of a singular matrix at 0 or below: the ridge stands for it.
            factor[[i, j]] = if i == j { (rest + ridge).max(ridge).sqrt() } else { rest / factor[[j, j]] };
        }
    }
    let mut x = b.to_owned();
    for i in 0..n {
        for j in 0..i {
            let (known, mut row) = x.multi_slice_mut((s![j, ..], s![i, ..]));
            row.scaled_add(-factor[[i, j]], &known);
        }
        x.row_mut(i).mapv_inplace(|v| v / factor[[i, i]]);
    }
    for i in (0..n).rev() {
        for j in i + 1..n {
            let (mut row, known) = x.multi_slice_mut((s![i, ..], s![j, ..]));
            row.scaled_add(-factor[[j, i]], &known);
        }
        x.row_mut(i).mapv_inplace(|v| v / factor[[i, i]]);
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn random(rows: usize, columns: usize, part: u64) -> Array2<f64> {
        let mut draws = Draws::new(5, Stream::Baseline, part);
        Array2::from_shape_simple_fn((rows, columns), || draws.normal())
    }

    /// Sums of at most 2100 products of normals: 2100 roundings of 1e-16 of sums below 500.
    #[test]
    fn products_are_those_of_the_definition() {
        for (n, k, m) in [(1, 1, 1), (7, 3, 5), (2100, 4, 9), (3, 0, 2)] {
            let (a, b) = (random(n, k, 1), random(k, m, 2));
            let found = product(a.view(), b.view());
            let turned = over_samples(a.view(), found.view());
            for ((i, j), &value) in found.indexed_iter() {
                let expected: f64 = (0..k).map(|l| a[[i, l]] * b[[l, j]]).sum();
                assert!((value - expected).abs() < 1e-12);
            }
            for ((i, j), &value) in turned.indexed_iter() {
                let expected: f64 = (0..n).map(|s| a[[s, i]] * found[[s, j]]).sum();
                assert!((value - expected).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (a, b) = (random(5000, 6, 1), random(5000, 7, 2));
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| over_samples(a.view(), b.view())));
        assert!(found[0] == found[1]);
    }

    /// The ridge moves the solution by about its share times the condition number, here below 1e3.
    #[test]
    fn a_system_is_solved_and_a_singular_one_stays_finite() {
        let (factor, x) = (random(40, 12, 3), random(12, 2, 4));
        let a = over_samples(factor.view(), factor.view());
        let found = solve(a.view(), product(a.view(), x.view()).view());
        assert!((&found - &x).iter().all(|e| e.abs() < 1e-6));
        let ones = Array2::<f64>::ones((3, 3));
        let found = solve(ones.view(), Array2::ones((3, 1)).view());
        assert!(found.iter().all(|x| x.is_finite()) && (found.sum() - 1.0).abs() < 1e-6, "{found}");
    }
}
