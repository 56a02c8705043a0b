//! One-to-one matching of latents to features on |cosine| (Hungarian method), and the cosines it reads.

use pathfinding::matrix::Matrix;
use pathfinding::prelude::kuhn_munkres;
use rayon::prelude::*;

use super::vector::{Directions, TIE, dot};

/// Signed cosine of every decoder row with every truth row.
pub struct Cosines {
    pub n_latents: usize,
    pub n_features: usize,
    /// `[n_latents, n_features]`
    values: Vec<f64>,
}

impl Cosines {
    pub fn new(truth: &Directions, dictionary: &Directions) -> Cosines {
        let (n_latents, n_features) = (dictionary.n, truth.n);
        let mut values = vec![0.0; n_latents * n_features];
        // A matrix without columns has no chunks to fill.
        values.par_chunks_mut(n_features.max(1)).enumerate().for_each(|(j, row)| {
            for (i, value) in row.iter_mut().enumerate() {
                *value = dot(dictionary.unit(j), truth.unit(i));
            }
        });
        Cosines { n_latents, n_features, values }
    }

    pub fn at(&self, latent: usize, feature: usize) -> f64 {
        self.values[latent * self.n_features + feature]
    }

    /// Cosines of one latent with all features.
    pub fn of_latent(&self, latent: usize) -> &[f64] {
        &self.values[latent * self.n_features..(latent + 1) * self.n_features]
    }
}

/// The one-to-one assignment of greatest total, as pairs (feature, latent), features ascending. The smaller side is
/// used up.
///
/// What is maximised is Σ |c| + 1e-9 (1 - i/n)(1 - j/m), i and j the positions among the n `features` and m `latents`
/// that take part: among equal assignments low latents go to low features, so that any exact solver gives the same one.
pub fn assign(cosines: &Cosines, features: &[usize], latents: &[usize]) -> Vec<(usize, usize)> {
    let (n, m) = (features.len(), latents.len());
    if n == 0 || m == 0 {
        return vec![];
    }
    let weight = |i: usize, j: usize| {
        let early = (1.0 - i as f64 / n as f64) * (1.0 - j as f64 / m as f64);
        fixed_point(cosines.at(latents[j], features[i]).abs()) + fixed_point(TIE * early)
    };
    // The solver wants no more rows than columns.
    let mut pairs: Vec<(usize, usize)> = if n <= m {
        let (_, latent_of) = kuhn_munkres(&Matrix::from_fn(n, m, |(i, j)| weight(i, j)));
        latent_of.into_iter().enumerate().map(|(i, j)| (features[i], latents[j])).collect()
    } else {
        let (_, feature_of) = kuhn_munkres(&Matrix::from_fn(m, n, |(j, i)| weight(i, j)));
        feature_of.into_iter().enumerate().map(|(j, i)| (features[i], latents[j])).collect()
    };
    pairs.sort_unstable();
    pairs
}

/// Units of 2^-80. The solver needs weights without rounding: with floating point its slacks never quite reach 0.
///
/// An f64 at or above 2^-27 is exact here, a smaller one is cut at 8e-25, far below what two ties differ by. A weight is
/// below 2^81, so the sum over any matrix that fits a machine is far below 2^127 and cannot overflow.
fn fixed_point(x: f64) -> i128 {
    (x * (1u128 << 80) as f64) as i128
}

/// "The latent of feature i": the assignment of represented features and alive latents. `[n_features]`; None for a
/// feature that is not represented, or left over.
pub fn latent_of_feature(cosines: &Cosines, represented: &[usize], alive: &[usize]) -> Vec<Option<usize>> {
    let mut latent_of = vec![None; cosines.n_features];
    for (feature, latent) in assign(cosines, represented, alive) {
        latent_of[feature] = Some(latent);
    }
    latent_of
}

/// The matched pairs (feature, latent), features ascending.
pub fn pairs(matching: &[Option<usize>]) -> Vec<(usize, usize)> {
    matching.iter().enumerate().filter_map(|(feature, latent)| latent.map(|latent| (feature, latent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn table(n_latents: usize, n_features: usize, draws: &mut Draws) -> Cosines {
        let values = (0..n_latents * n_features).map(|_| 2.0 * draws.uniform() - 1.0).collect();
        Cosines { n_latents, n_features, values }
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
        let equal = |m, n| Cosines { n_latents: m, n_features: n, values: vec![0.5; m * n] };
        for (m, n) in [(3, 3), (3, 5), (5, 3), (64, 200), (200, 64)] {
            let (features, latents): (Vec<_>, Vec<_>) = ((0..n).collect(), (0..m).collect());
            let expected: Vec<_> = (0..m.min(n)).map(|k| (k, k)).collect();
            assert_eq!(assign(&equal(m, n), &features, &latents), expected, "{m} x {n}");
        }
    }

    #[test]
    fn only_those_that_take_part_are_matched() {
        let mut c = table(4, 4, &mut Draws::new(1, Stream::Baseline, 0));
        c.values.fill(0.1);
        for k in 0..4 {
            c.values[k * 4 + k] = 1.0;
        }
        assert_eq!(latent_of_feature(&c, &[1, 3], &[0, 3]), [None, Some(0), None, Some(3)]);
        assert_eq!(latent_of_feature(&c, &[], &[0, 3]), [None; 4]);
        assert_eq!(latent_of_feature(&c, &[1], &[]), [None; 4]);
    }
}
