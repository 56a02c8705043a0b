//! How close directions lie to each other: cosines of every pair of a dictionary (SAELens `synthetic/stats.py`).
//!
//! For each row the greatest |cosine| with another row and percentiles of them, then means over rows; and the mean of
//! |cosine| over all pairs. All pairs of 16384 rows are 2 GB of numbers, so they are made a panel of rows at a time.

use rayon::prelude::*;

use crate::backend::ops::layout::{PANEL, TILES, flat, pack_panel};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::simd::{Isa, Lanes, run};

/// Statistics over the pairs of different rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Superposition {
    /// `[n]`: greatest |cosine| of each row with another.
    pub max_each: Vec<f64>,
    /// Mean over rows of the greatest |cosine| with another.
    pub mean_max: f64,
    /// `[percentile]`: mean over rows of that percentile of the |cosine| with another, by linear interpolation.
    pub percentiles: Vec<f64>,
    /// Mean |cosine| over all pairs.
    pub mean: f64,
}

/// What one row has with the others.
struct OfRow {
    max: f64,
    percentiles: Vec<f64>,
    sum: f64,
}

/// Statistics of rows `[n, d]`, which need not be unit; `percentiles` in [0, 100], SAELens gives 95 and 99. None for fewer
/// than two rows. Products are sums of d terms in f32.
pub fn superposition(rows: &[f32], d: usize, percentiles: &[f64]) -> Option<Superposition> {
    let n = rows.len() / d.max(1);
    if n < 2 {
        return None;
    }
    let unit: Vec<f32> = rows.chunks_exact(d).flat_map(unit).collect();
    let of_rows: Vec<OfRow> = (0..n.div_ceil(PANEL))
        .into_par_iter()
        .flat_map_iter(|panel| of_panel(&unit, d, panel * PANEL, percentiles))
        .collect();
    let mean = |of: &dyn Fn(&OfRow) -> f64| of_rows.iter().map(of).sum::<f64>() / n as f64;
    Some(Superposition {
        mean_max: mean(&|row| row.max),
        percentiles: (0..percentiles.len()).map(|at| mean(&|row| row.percentiles[at])).collect(),
        mean: mean(&|row| row.sum / (n - 1) as f64),
        max_each: of_rows.into_iter().map(|row| row.max).collect(),
    })
}

fn unit(row: &[f32]) -> impl Iterator<Item = f32> {
    let norm = row.iter().map(|&v| v as f64 * v as f64).sum::<f64>().sqrt().max(1e-8);
    row.iter().map(move |&v| (v as f64 / norm) as f32)
}

/// The rows from `first` on that make a panel.
fn of_panel(unit: &[f32], d: usize, first: usize, percentiles: &[f64]) -> Vec<OfRow> {
    let n = unit.len() / d;
    let live = PANEL.min(n - first);
    let mut x = vec![Lanes::default(); d * TILES];
    pack_panel(&unit[first * d..(first + live) * d], d, 1.0, &mut x);
    let mut out = vec![Lanes::default(); n * TILES];
    let weights = Strided { numbers: unit, row_stride: d, depth_stride: 1 };
    run(Isa::best(), Product { weights, start: &vec![0.0; n], x: &x, out: &mut out });
    let cosines = flat(&out);
    let mut others = vec![0.0f32; n - 1];
    let of_row = |s: usize| {
        let rows = (0..n).filter(|&j| j != first + s);
        others.iter_mut().zip(rows).for_each(|(to, j)| *to = cosines[j * PANEL + s].abs());
        let sum = others.iter().map(|&c| c as f64).sum();
        let max = others.iter().fold(0.0f32, |a, &c| a.max(c)) as f64;
        OfRow { max, sum, percentiles: percentiles.iter().map(|&p| percentile(&mut others, p)).collect() }
    };
    (0..live).map(of_row).collect()
}

/// The percentile between the two nearest ranks (NumPy and Torch call it linear); reorders the numbers.
fn percentile(numbers: &mut [f32], p: f64) -> f64 {
    let at = (p / 100.0).clamp(0.0, 1.0) * (numbers.len() - 1) as f64;
    let low = at.floor() as usize;
    let (_, &mut value, above) = numbers.select_nth_unstable_by(low, f32::total_cmp);
    let next = above.iter().fold(f32::INFINITY, |a, &c| a.min(c));
    if next == f32::INFINITY { value as f64 } else { value as f64 + (at - at.floor()) * (next as f64 - value as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dictionary;

    /// By hand: rows at 0°, 60° and 90°, one of them not unit: |cosines| 1/2, 0 and √3/2. Medians of two numbers are means.
    #[test]
    fn three_directions_have_the_cosines_worked_out_by_hand() {
        let root = 0.75f64.sqrt();
        let rows = [2.0, 0.0, 0.5, root as f32, 0.0, -1.0];
        let found = superposition(&rows, 2, &[0.0, 50.0, 100.0]).unwrap();
        // Rounding of f32 alone.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        near(found.mean_max, (0.5 + root + root) / 3.0);
        near(found.mean, (0.5 + root) / 3.0);
        near(found.percentiles[0], 0.5 / 3.0);
        near(found.percentiles[1], (0.25 + (0.5 + root) / 2.0 + root / 2.0) / 3.0);
        assert_eq!(found.percentiles[2], found.mean_max);
        found.max_each.iter().zip([0.5, root, root]).for_each(|(a, b)| near(*a, b));
        assert_eq!(superposition(&[1.0, 0.0], 2, &[95.0]), None);
        assert_eq!(superposition(&[], 2, &[95.0]), None);
    }

    /// Against plain loops and sorting in f64, over more than one panel: cosines differ by sums of 30 products in f32.
    #[test]
    fn panels_of_rows_give_what_plain_loops_give() {
        let (n, d) = (PANEL + 37, 30);
        let rows = Dictionary::random(n, d, 8).vectors;
        let found = superposition(&rows, d, &[95.0, 99.0]).unwrap();
        let row = |i: usize| rows[i * d..][..d].iter().map(|&v| v as f64);
        let (mut max, mut p95, mut p99, mut mean) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..n {
            let cosine = |j: usize| row(i).zip(row(j)).map(|(a, b)| a * b).sum::<f64>().abs();
            let mut others: Vec<f64> = (0..n).filter(|&j| j != i).map(cosine).collect();
            others.sort_by(f64::total_cmp);
            let at = |p: f64| {
                let at = p * (n - 2) as f64;
                let (low, part) = (at as usize, at % 1.0);
                others[low] * (1.0 - part) + others[low + 1] * part
            };
            (max, p95, p99) = (max + others[n - 2], p95 + at(0.95), p99 + at(0.99));
            mean += others.iter().sum::<f64>() / (n - 1) as f64;
        }
        let found = [found.mean_max, found.percentiles[0], found.percentiles[1], found.mean];
        for (found, expected) in found.into_iter().zip([max, p95, p99, mean]) {
            assert!((found - expected / n as f64).abs() < 1e-6, "{found} {expected}");
        }
    }
}
