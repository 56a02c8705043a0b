//! Pearson correlation of columns, at the cost of what is not zero.

use rayon::prelude::*;

use super::vector::{Real, Rows};

/// Columns of one side that are correlated together: bounds the table of sums, and is the unit of work of a thread.
const BLOCK: usize = 64;

/// Entries that are gathered one by one cost this many times one that is added in a row.
const GATHER: usize = 4;

/// Where mean over spread of two columns multiply to more than this, the one-pass sum would lose digits.
const ILL_CONDITIONED: f64 = 1e3;

/// Mean and spread of each column of `[samples, columns]`.
pub struct Moments {
    mean: Vec<f64>,
    /// sqrt(Σ (a - mean)²); infinite for a constant column, which so correlates 0 with everything.
    spread: Vec<f64>,
}

impl Moments {
    pub fn new<T: Real>(rows: &Rows<T>) -> Moments {
        let n = rows.n_rows as f64;
        let mut mean = vec![0.0f64; rows.n_columns];
        let mut varies = vec![false; rows.n_columns];
        for row in rows.rows() {
            for ((sum, varies), (&value, &first)) in mean.iter_mut().zip(&mut varies).zip(row.iter().zip(rows.row(0))) {
                *sum += value.into();
                *varies |= value != first;
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= n);
        let mut spread = vec![0.0f64; rows.n_columns];
        for row in rows.rows() {
            for ((sum, &value), mean) in spread.iter_mut().zip(row).zip(&mean) {
                let deviation = value.into() - mean;
                *sum += deviation * deviation;
            }
        }
        let spread = spread.iter().zip(varies).map(|(sum, varies)| if varies { sum.sqrt() } else { f64::INFINITY });
        Moments { mean, spread: spread.collect() }
    }

    /// sqrt(n) |mean| / spread: how much greater a column is than its deviations.
    fn offset(&self, column: usize, samples: usize) -> f64 {
        (samples as f64).sqrt() * self.mean[column].abs() / self.spread[column]
    }
}

/// For each of `columns` of `a`, in order, `f(column, r)` with r its correlation with every column of `b`.
///
/// `a` and `b` are `[samples, columns]` with their moments. Σ ab is gathered over entries that are not zero, sample by
/// sample; columns far from zero are done again from their deviations.
pub fn correlations<T: Real, R: Send>(
    (a, a_moments): (&Rows<T>, &Moments),
    (b, b_moments): (&Rows<T>, &Moments),
    columns: &[usize],
    f: impl Fn(usize, &[f64]) -> R + Sync,
) -> Vec<R> {
    let n = a.n_rows as f64;
    let block = |columns: &[usize]| {
        let sums = products(a, b, columns);
        let mut r = vec![0.0; b.n_columns];
        let of_column = |(position, &column): (usize, &usize)| {
            for (k, r) in r.iter_mut().enumerate() {
                let ill = a_moments.offset(column, a.n_rows) * b_moments.offset(k, b.n_rows) > ILL_CONDITIONED;
                let covariance = if ill {
                    deviations(a, a_moments, column, b, b_moments, k)
                } else {
                    sums[position * b.n_columns + k] - n * a_moments.mean[column] * b_moments.mean[k]
                };
                *r = covariance / (a_moments.spread[column] * b_moments.spread[k]);
            }
            f(column, &r)
        };
        columns.iter().enumerate().map(of_column).collect::<Vec<R>>()
    };
    columns.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Σ over samples of a_column b_k, `[columns, b columns]`.
///
/// A row of b with many zeros is gathered, another one added whole, which the compiler does several entries at a time:
/// the zeros it adds change no sum, so both ways give the same bits.
fn products<T: Real>(a: &Rows<T>, b: &Rows<T>, columns: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0f64; columns.len() * b.n_columns];
    let mut active: Vec<(usize, f64)> = vec![];
    let mut whole = vec![0.0f64; b.n_columns];
    for (a_row, b_row) in a.rows().zip(b.rows()) {
        let count = b_row.iter().filter(|b| **b != T::default()).count();
        if count == 0 {
            continue;
        }
        let gather = GATHER * count < b.n_columns;
        if gather {
            active.clear();
            active.extend(b_row.iter().enumerate().filter(|(_, b)| **b != T::default()).map(|(k, &b)| (k, b.into())));
        } else {
            whole.iter_mut().zip(b_row).for_each(|(whole, &b)| *whole = b.into());
        }
        for (sums, &column) in sums.chunks_exact_mut(b.n_columns).zip(columns) {
            let value: f64 = a_row[column].into();
            if value == 0.0 {
                continue;
            }
            if gather {
                active.iter().for_each(|&(k, b)| sums[k] += value * b);
            } else {
                sums.iter_mut().zip(&whole).for_each(|(sum, b)| *sum += value * b);
            }
        }
    }
    sums
}

/// Σ (a_i - mean) (b_k - mean)
fn deviations<T: Real>(a: &Rows<T>, am: &Moments, i: usize, b: &Rows<T>, bm: &Moments, k: usize) -> f64 {
    a.rows().zip(b.rows()).map(|(a, b)| (a[i].into() - am.mean[i]) * (b[k].into() - bm.mean[k])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    fn table(a: &Array2<f64>, b: &Array2<f64>) -> Vec<Vec<f64>> {
        let (a, b) = (Rows::new(a.view()), Rows::new(b.view()));
        let columns: Vec<usize> = (0..a.n_columns).collect();
        correlations((&a, &Moments::new(&a)), (&b, &Moments::new(&b)), &columns, |_, r| r.to_vec())
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
