//! Sums and rows in f64, in one order everywhere.
//!
//! Sums over a row have eight lanes and one fold, so that the compiler may use vectors and every machine still gives the
//! same bits: multiply and add are separate, never fused, and no library picks a kernel by the CPU.

use std::borrow::Cow;
use std::ops::Range;

use ndarray::ArrayView2;

use super::tiles::padded;

/// Norms are clamped here in every cosine, on both sides, as SAELens does.
pub const NORM_FLOOR: f64 = 1e-8;

/// Cosines closer than this are equal; the lowest index then wins.
pub const TIE: f64 = 1e-9;

/// A number of the arrays that are scored: f32 or f64.
pub trait Real: Copy + Default + PartialOrd + Into<f64> + Send + Sync {}

impl Real for f32 {}
impl Real for f64 {}

const LANES: usize = 8;

/// Σ f(a_k, b_k) over two rows of one length.
#[inline(always)]
fn fold_rows<T: Real>(a: &[T], b: &[T], f: impl Fn(f64, f64) -> f64) -> f64 {
    debug_assert_eq!(a.len(), b.len());
    let mut lanes = [0.0f64; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for k in 0..LANES {
            lanes[k] += f(x[k].into(), y[k].into());
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(rest) {
        *lane += f(x.into(), y.into());
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    fold_rows(a, b, |x, y| x * y)
}

pub fn square<T: Real>(a: &[T]) -> f64 {
    fold_rows(a, a, |x, y| x * y)
}

pub fn squared_distance<T: Real>(a: &[T], b: &[T]) -> f64 {
    fold_rows(a, b, |x, y| (x - y) * (x - y))
}

/// Plain mean in the given order; None of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

/// Lowest position whose value is within [`TIE`] of the greatest; None of nothing.
pub fn first_greatest(values: impl Iterator<Item = f64> + Clone) -> Option<usize> {
    let greatest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    values.into_iter().position(|value| value >= greatest - TIE)
}

/// A matrix whose rows can be borrowed: `[n_rows, n_columns]`, row after row. Copied only where the view is not laid out so.
pub struct Rows<'a, T: Clone> {
    pub n_rows: usize,
    pub n_columns: usize,
    values: Cow<'a, [T]>,
}

impl<'a, T: Real> Rows<'a, T> {
    pub fn new(view: ArrayView2<'a, T>) -> Rows<'a, T> {
        let (n_rows, n_columns) = view.dim();
        let values = match view.to_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(view.iter().copied().collect()),
        };
        Rows { n_rows, n_columns, values }
    }

    pub fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.n_columns..(row + 1) * self.n_columns]
    }
}

/// Rows as directions in d_hidden dimensions: truth or decoder, with their norms. 16 bytes a number.
pub struct Directions {
    pub n: usize,
    pub d_hidden: usize,
    /// Length of a row in memory: d_hidden and zeros behind it, as [`tiles`](super::tiles) wants them.
    pub width: usize,
    raw: Vec<f64>,
    unit: Vec<f64>,
    /// Euclidean norm of each row, `[n]`.
    pub norms: Vec<f64>,
}

impl Directions {
    pub fn new<T: Real>(view: ArrayView2<'_, T>) -> Directions {
        let (n, d_hidden) = view.dim();
        let width = padded(d_hidden.max(1));
        let (mut raw, mut unit) = (vec![0.0f64; n * width], vec![0.0f64; n * width]);
        let mut norms = Vec::with_capacity(n);
        for (i, row) in view.rows().into_iter().enumerate() {
            let raw = &mut raw[i * width..][..d_hidden];
            raw.iter_mut().zip(row).for_each(|(to, &value)| *to = value.into());
            let norm = square(raw).sqrt();
            let length = norm.max(NORM_FLOOR);
            unit[i * width..][..d_hidden].iter_mut().zip(raw).for_each(|(to, value)| *to = *value / length);
            norms.push(norm);
        }
        Directions { n, d_hidden, width, raw, unit, norms }
    }

    /// Row i as given.
    pub fn raw(&self, i: usize) -> &[f64] {
        &self.raw[i * self.width..][..self.d_hidden]
    }

    /// Row i over max(norm, 1e-8): a row of zeros stays zero.
    pub fn unit(&self, i: usize) -> &[f64] {
        &self.unit[i * self.width..][..self.d_hidden]
    }

    /// Rows as given, with their padding.
    pub fn raw_rows(&self, rows: Range<usize>) -> &[f64] {
        &self.raw[rows.start * self.width..rows.end * self.width]
    }

    /// Unit rows, with their padding.
    pub fn unit_rows(&self, rows: Range<usize>) -> &[f64] {
        &self.unit[rows.start * self.width..rows.end * self.width]
    }

    /// The number that a row was divided by to make it unit.
    pub fn length(&self, i: usize) -> f64 {
        self.norms[i].max(NORM_FLOOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    /// Whole numbers below 2^53 add without rounding, so every length must give the exact sum.
    #[test]
    fn a_row_sum_is_right_at_every_length_around_the_lanes() {
        for length in [0, 1, 7, 8, 9, 15, 16, 17, 40] {
            let a: Vec<f64> = (0..length).map(|k| k as f64 + 1.0).collect();
            let expected: f64 = (1..=length).map(|k| (k * k) as f64).sum();
            assert_eq!(dot(&a, &a), expected, "{length}");
            assert_eq!(square(&a), expected, "{length}");
            assert_eq!(squared_distance(&a, &vec![0.0; length]), expected, "{length}");
        }
    }

    #[test]
    fn a_view_in_column_order_has_the_same_rows() {
        let plain = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let turned = array![[1.0f32, 4.0], [2.0, 5.0], [3.0, 6.0]];
        let rows = Rows::new(turned.t());
        assert_eq!((rows.n_rows, rows.n_columns), (2, 3));
        assert!((0..2).all(|row| rows.row(row) == Rows::new(plain.view()).row(row)));
    }

    #[test]
    fn nearly_equal_values_go_to_the_lowest_position() {
        assert_eq!(first_greatest([0.5, 0.7, 0.7 + 5e-10].into_iter()), Some(1));
        assert_eq!(first_greatest([0.5, 0.7, 0.7 + 5e-9].into_iter()), Some(2));
        assert_eq!(first_greatest(std::iter::empty()), None);
    }

    #[test]
    fn a_row_of_zeros_has_norm_zero_and_stays_zero() {
        let rows = Directions::new(array![[0.0f32, 0.0], [3.0, 4.0]].view());
        assert_eq!(rows.norms, [0.0, 5.0]);
        assert_eq!(rows.unit(0), [0.0, 0.0]);
        assert_eq!(rows.unit(1), [0.6, 0.8]);
    }
}
