//! Pearson correlation of columns, at the cost of what is not zero.

use rayon::prelude::*;

use super::activity::Activity;
use super::vector::Real;
use crate::codes::Columns;

/// Columns of one side that a thread takes together.
const BLOCK: usize = 64;

/// Where mean over spread of two columns multiply to more than this, the one-pass sum would lose digits.
const ILL_CONDITIONED: f64 = 1e3;

/// Mean and spread of each column of `[samples, columns]`.
pub struct Moments {
    mean: Vec<f64>,
    /// sqrt(Σ (a - mean)²); infinite for a constant column, which so correlates 0 with everything.
    spread: Vec<f64>,
}

impl Moments {
    pub fn new<T: Real>(samples: usize, columns: &Columns<T>) -> Moments {
        let (mut mean, mut spread) = (vec![0.0f64; columns.n_columns()], vec![f64::INFINITY; columns.n_columns()]);
        for (column, (mean, spread)) in mean.iter_mut().zip(&mut spread).enumerate() {
            let values = columns.column(column).1;
            *mean = values.iter().map(|&value| value.into()).sum::<f64>() / samples as f64;
            let silent = samples - values.len();
            let varies = match values.first() {
                Some(first) => silent > 0 || values.iter().any(|value| value != first),
                None => false,
            };
            if varies {
                let square = |value: f64| (value - *mean) * (value - *mean);
                let active: f64 = values.iter().map(|&value| square(value.into())).sum();
                *spread = (active + silent as f64 * square(0.0)).sqrt();
            }
        }
        Moments { mean, spread }
    }

    /// sqrt(n) |mean| / spread: how much greater a column is than its deviations.
    fn offset(&self, column: usize, samples: usize) -> f64 {
        (samples as f64).sqrt() * self.mean[column].abs() / self.spread[column]
    }
}

/// For each of `columns` of `a`, in order, `f(column, r)` with r its correlation with every column of `b`.
///
/// `a` and `b` have the same samples. Σ ab is gathered over entries that are not zero, sample by sample; columns far from
/// zero are done again from their deviations.
pub fn correlations<T: Real, R: Send>(
    a: &Activity<'_, T>,
    b: &Activity<'_, T>,
    columns: &[usize],
    f: impl Fn(usize, &[f64]) -> R + Sync,
) -> Vec<R> {
    let (samples, n_b) = (a.samples(), b.n());
    let (a_moments, b_moments) = (a.moments(), b.moments());
    let b_offsets: Vec<f64> = (0..n_b).map(|k| b_moments.offset(k, samples)).collect();
    let block = |columns: &[usize]| {
        let mut r = vec![0.0; n_b];
        let of_column = |&column: &usize| {
            r.fill(0.0);
            products(a, column, b, &mut r);
            let (offset, mean) = (a_moments.offset(column, samples), a_moments.mean[column]);
            for (k, r) in r.iter_mut().enumerate() {
                let covariance = if offset * b_offsets[k] > ILL_CONDITIONED {
                    deviations(a, column, b, k)
                } else {
                    *r - samples as f64 * mean * b_moments.mean[k]
                };
                *r = covariance / (a_moments.spread[column] * b_moments.spread[k]);
            }
            f(column, &r)
        };
        columns.iter().map(of_column).collect::<Vec<R>>()
    };
    columns.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Adds Σ over samples of a_column b_k to `sums`, `[b columns]`. A row of b without zeros is added whole, which the compiler
/// does several entries at a time; the order of every sum is the same.
fn products<T: Real>(a: &Activity<'_, T>, column: usize, b: &Activity<'_, T>, sums: &mut [f64]) {
    for (sample, value) in a.columns().entries(column) {
        let value: f64 = value.into();
        let (columns, values) = b.codes().row(sample);
        if columns.len() == sums.len() {
            sums.iter_mut().zip(values).for_each(|(sum, &b)| *sum += value * b.into());
        } else {
            columns.iter().zip(values).for_each(|(&k, &b)| sums[k as usize] += value * b.into());
        }
    }
}

/// Σ (a_i - mean) (b_k - mean)
fn deviations<T: Real>(a: &Activity<'_, T>, i: usize, b: &Activity<'_, T>, k: usize) -> f64 {
    let (a_mean, b_mean) = (a.moments().mean[i], b.moments().mean[k]);
    let (mut a_next, mut b_next) = (a.columns().entries(i).peekable(), b.columns().entries(k).peekable());
    let mut sum = 0.0;
    for sample in 0..a.samples() {
        let at = |entry: Option<(usize, T)>| entry.map_or(0.0, |(_, value)| value.into());
        let x = at(a_next.next_if(|entry| entry.0 == sample));
        let y = at(b_next.next_if(|entry| entry.0 == sample));
        sum += (x - a_mean) * (y - b_mean);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::activity::Side;
    use super::*;
    use crate::codes::Codes;
    use ndarray::{Array2, array};

    fn table(a: &Array2<f64>, b: &Array2<f64>) -> Vec<Vec<f64>> {
        let activity = |dense: &Array2<f64>| Activity::new(Codes::of_dense(dense.view()), Side::Latents);
        let (a, b) = (activity(a), activity(b));
        let columns: Vec<usize> = (0..a.n()).collect();
        correlations(&a, &b, &columns, |_, r| r.to_vec())
    }

    /// By hand: a = (0, 1, 2, 3), deviations (-1.5, -.5, .5, 1.5), squares 5. b = (0, 0, 0, 4): deviations (-1, -1, -1, 3),
    /// squares 12, products 6: r = 6/sqrt(60). c = -a. d constant.
    #[test]
    fn correlations_match_hand_worked_columns() {
        let a = array![[0.0], [1.0], [2.0], [3.0]];
        let b = array![[0.0, 0.0, 7.0], [0.0, -1.0, 7.0], [0.0, -2.0, 7.0], [4.0, -3.0, 7.0]];
        let r = &table(&a, &b)[0];
        assert!((r[0] - 6.0 / 60f64.sqrt()).abs() < 1e-15 && (r[1] + 1.0).abs() < 1e-15);
        assert_eq!(r[2], 0.0, "a constant column correlates 0");
    }

    /// Moving a column by 1e6 times its spread leaves its correlations; the moved column itself is rounded at 1e6 · 1.1e-16
    /// of its spread, so they hold to 1e-9.
    #[test]
    fn a_large_mean_does_not_cost_digits() {
        let a = Array2::from_shape_fn((500, 70), |(s, k)| ((s * (k + 3)) % 17) as f64 / 16.0);
        let moved = a.mapv(|value| value + 1e6);
        for (plain, far) in table(&a, &a).iter().flatten().zip(table(&moved, &moved).iter().flatten()) {
            assert!((plain - far).abs() < 1e-9, "{plain} {far}");
        }
    }
}
