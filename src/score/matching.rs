//! One-to-one matching of latents to features on |cosine|, and the cosines it reads.

use std::ops::Range;

use rayon::prelude::*;

use super::assignment::{self, Table};
use super::tiles::dots;
use super::vector::{Directions, TIE, dot};

/// Cosines up to this many are kept; of more, those asked for are computed again: 32 MB.
const KEPT: usize = 1 << 22;

/// Latents whose cosines with all features are looked at together: at 16,384 features 8 MB.
const BLOCK: usize = 64;

/// Signed cosine of every decoder row with every truth row.
pub struct Cosines<'a> {
    pub n_latents: usize,
    pub n_features: usize,
    values: Values<'a>,
}

enum Values<'a> {
    /// `[n_latents, n_features]`
    Kept(Vec<f64>),
    Computed {
        truth: &'a Directions,
        dictionary: &'a Directions,
    },
}

impl<'a> Cosines<'a> {
    pub fn new(truth: &'a Directions, dictionary: &'a Directions) -> Cosines<'a> {
        Cosines::keeping(truth, dictionary, KEPT)
    }

    fn keeping(truth: &'a Directions, dictionary: &'a Directions, kept: usize) -> Cosines<'a> {
        let (n_latents, n_features) = (dictionary.n, truth.n);
        let computed = Cosines { n_latents, n_features, values: Values::Computed { truth, dictionary } };
        if n_latents * n_features > kept {
            return computed;
        }
        let blocks = computed.by_latent(|_, cosines| cosines.to_vec());
        Cosines { values: Values::Kept(blocks.into_iter().flatten().collect()), ..computed }
    }

    pub fn at(&self, latent: usize, feature: usize) -> f64 {
        match &self.values {
            Values::Kept(values) => values[latent * self.n_features + feature],
            Values::Computed { truth, dictionary } => dot(dictionary.unit(latent), truth.unit(feature)),
        }
    }

    /// f of each block of latents with its cosines `[latents of the block, n_features]`, blocks over threads, in order.
    pub fn by_latent<R: Send>(&self, f: impl Fn(Range<usize>, &[f64]) -> R + Sync) -> Vec<R> {
        let block = |first: usize| {
            let latents = first..(first + BLOCK).min(self.n_latents);
            match &self.values {
                Values::Kept(values) => {
                    let range = latents.start * self.n_features..latents.end * self.n_features;
                    f(latents, &values[range])
                }
                Values::Computed { truth, dictionary } => {
                    let mut cosines = vec![0.0; latents.len() * self.n_features];
                    let rows = dictionary.unit_rows(latents.clone());
                    dots(rows, truth.unit_rows(0..truth.n), truth.width, &mut cosines);
                    f(latents, &cosines)
                }
            }
        };
        let firsts: Vec<usize> = (0..self.n_latents).step_by(BLOCK).collect();
        firsts.into_par_iter().map(block).collect()
    }

    /// Cosines of some features with all latents, `[features.len(), n_latents]`.
    pub fn of_features(&self, features: &[usize]) -> Vec<f64> {
        let mut out = vec![0.0; features.len() * self.n_latents];
        match &self.values {
            Values::Kept(values) => {
                for (out, feature) in out.chunks_exact_mut(self.n_latents.max(1)).zip(features) {
                    for (j, out) in out.iter_mut().enumerate() {
                        *out = values[j * self.n_features + feature];
                    }
                }
            }
            Values::Computed { truth, dictionary } => {
                dots(&gathered(truth, features), dictionary.unit_rows(0..dictionary.n), truth.width, &mut out);
            }
        }
        out
    }

    /// Cosines of some latents with all features, `[latents.len(), n_features]`.
    fn of_latents(&self, latents: &[usize]) -> Vec<f64> {
        let mut out = vec![0.0; latents.len() * self.n_features];
        match &self.values {
            Values::Kept(values) => {
                for (out, latent) in out.chunks_exact_mut(self.n_features.max(1)).zip(latents) {
                    out.copy_from_slice(&values[latent * self.n_features..][..self.n_features]);
                }
            }
            Values::Computed { truth, dictionary } => {
                dots(&gathered(dictionary, latents), truth.unit_rows(0..truth.n), truth.width, &mut out);
            }
        }
        out
    }
}

/// Unit rows of these numbers, with their padding.
fn gathered(directions: &Directions, rows: &[usize]) -> Vec<f64> {
    rows.iter().flat_map(|&row| directions.unit_rows(row..row + 1)).copied().collect()
}

/// The one-to-one assignment of greatest total, as pairs (feature, latent), features ascending. The smaller side is
/// used up.
///
/// What is maximised is Σ |c| + 1e-9 (1 - i/n)(1 - j/m), i and j the positions among the n `features` and m `latents`
/// that take part: among equal assignments low latents go to low features, so that any exact solver gives the same one.
pub fn assign(cosines: &Cosines, features: &[usize], latents: &[usize]) -> Vec<(usize, usize)> {
    if features.is_empty() || latents.is_empty() {
        return vec![];
    }
    let weights = Weights { cosines, features, latents, rows_are_features: features.len() <= latents.len() };
    let column_of = assignment::assign(&weights);
    let pair = |(row, column): (usize, usize)| match weights.rows_are_features {
        true => (features[row], latents[column]),
        false => (features[column], latents[row]),
    };
    let mut pairs: Vec<(usize, usize)> = column_of.into_iter().enumerate().map(pair).collect();
    pairs.sort_unstable();
    pairs
}

/// What an assignment maximises; the smaller side makes the rows.
struct Weights<'a> {
    cosines: &'a Cosines<'a>,
    features: &'a [usize],
    latents: &'a [usize],
    rows_are_features: bool,
}

impl Weights<'_> {
    /// (1 - i/n)(1 - j/m) in units of a tie.
    fn early(&self, row: usize, column: usize) -> f64 {
        let (i, j) = if self.rows_are_features { (row, column) } else { (column, row) };
        let early = (1.0 - i as f64 / self.features.len() as f64) * (1.0 - j as f64 / self.latents.len() as f64);
        TIE * early
    }
}

impl Table for Weights<'_> {
    fn dim(&self) -> (usize, usize) {
        let (n, m) = (self.features.len(), self.latents.len());
        if self.rows_are_features { (n, m) } else { (m, n) }
    }

    fn rows(&self, rows: &[usize]) -> Vec<f64> {
        let (own, other) =
            if self.rows_are_features { (self.features, self.latents) } else { (self.latents, self.features) };
        let rows: Vec<usize> = rows.iter().map(|&row| own[row]).collect();
        let (all, width) = match self.rows_are_features {
            true => (self.cosines.of_features(&rows), self.cosines.n_latents),
            false => (self.cosines.of_latents(&rows), self.cosines.n_features),
        };
        if other.len() == width {
            return all;
        }
        all.chunks_exact(width).flat_map(|row| other.iter().map(|&column| row[column])).collect()
    }

    fn weight(&self, row: usize, column: usize, cosine: f64) -> i128 {
        fixed_point(cosine.abs()) + fixed_point(self.early(row, column))
    }

    fn size(&self, row: usize, column: usize, cosine: f64) -> f64 {
        cosine.abs() + self.early(row, column)
    }

    /// A size is rounded once, at a number below 2: off by at most 2.3e-16.
    fn weight_above(&self, size: f64) -> i128 {
        fixed_point(size) + fixed_point(1e-15)
    }
}

/// Units of 2^-80. Prices are sums and differences of weights, and their signs decide: they must not be rounded.
///
/// An f64 at or above 2^-27 is exact here, a smaller one is cut at 8e-25, far below what two ties differ by. A weight is
/// below 2^81, so the sum over any matrix that fits a machine is far below 2^127 and cannot overflow.
fn fixed_point(x: f64) -> i128 {
    (x * (1u128 << 80) as f64) as i128
}

/// The matched pairs (feature, latent), features ascending.
pub fn pairs(matching: &[Option<usize>]) -> Vec<(usize, usize)> {
    matching.iter().enumerate().filter_map(|(feature, latent)| latent.map(|latent| (feature, latent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn kept(n_latents: usize, n_features: usize, values: Vec<f64>) -> Cosines<'static> {
        Cosines { n_latents, n_features, values: Values::Kept(values) }
    }

    fn table(n_latents: usize, n_features: usize, draws: &mut Draws) -> Cosines<'static> {
        kept(n_latents, n_features, (0..n_latents * n_features).map(|_| 2.0 * draws.uniform() - 1.0).collect())
    }

    /// Greatest total |cosine| over every one-to-one assignment of rows `j..` to features not yet used.
    fn brute_force(c: &Cosines, j: usize, used: &mut Vec<bool>, left_out: usize) -> f64 {
        if j == c.n_latents {
            return 0.0;
        }
        let mut best = if left_out > 0 { brute_force(c, j + 1, used, left_out - 1) } else { f64::NEG_INFINITY };
        for i in 0..c.n_features {
            if !used[i] {
                used[i] = true;
                best = best.max(c.at(j, i).abs() + brute_force(c, j + 1, used, left_out));
                used[i] = false;
            }
        }
        best
    }

    /// The tie terms move a total by at most 1e-9 a pair; six pairs at most.
    #[test]
    fn the_assignment_is_the_best_of_all_of_them() {
        let mut draws = Draws::new(11, Stream::Baseline, 0);
        for (m, n) in [(1, 1), (1, 4), (4, 1), (2, 5), (5, 2), (3, 3), (5, 5), (6, 4), (4, 6), (6, 6)] {
            for _ in 0..20 {
                let c = table(m, n, &mut draws);
                let pairs = assign(&c, &(0..n).collect::<Vec<_>>(), &(0..m).collect::<Vec<_>>());
                assert_eq!(pairs.len(), m.min(n));
                let total: f64 = pairs.iter().map(|&(i, j)| c.at(j, i).abs()).sum();
                let best = brute_force(&c, 0, &mut vec![false; n], m.saturating_sub(n));
                assert!((total - best).abs() < 6.1e-9, "{m} x {n}: {total} {best}");
                for side in [pairs.iter().map(|p| p.0).collect::<Vec<_>>(), pairs.iter().map(|p| p.1).collect()] {
                    let mut once = side.clone();
                    once.sort_unstable();
                    once.dedup();
                    assert_eq!(once.len(), side.len(), "one to one");
                }
            }
        }
    }

    #[test]
    fn among_equal_assignments_low_latents_go_to_low_features() {
        let equal = |m, n| kept(m, n, vec![0.5; m * n]);
        for (m, n) in [(3, 3), (3, 5), (5, 3), (64, 200), (200, 64)] {
            let (features, latents): (Vec<_>, Vec<_>) = ((0..n).collect(), (0..m).collect());
            let expected: Vec<_> = (0..m.min(n)).map(|k| (k, k)).collect();
            assert_eq!(assign(&equal(m, n), &features, &latents), expected, "{m} x {n}");
        }
    }

    #[test]
    fn only_those_that_take_part_are_matched() {
        let c = kept(4, 4, (0..16).map(|k| if k % 5 == 0 { 1.0 } else { 0.1 }).collect());
        assert_eq!(assign(&c, &[1, 3], &[0, 3]), [(1, 0), (3, 3)]);
        assert_eq!(assign(&c, &[], &[0, 3]), []);
        assert_eq!(assign(&c, &[1], &[]), []);
    }
}
