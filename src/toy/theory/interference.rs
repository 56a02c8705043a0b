//! How little directions can interfere, how much random ones do, and what that adds to a readout.
//!
//! Directions g_1 .. g_n are unit vectors in d dimensions; interference of feature i is Σ_{j≠i} (g_i·g_j)².

/// Least possible greatest |g_i·g_j| of n directions in d dimensions: sqrt((n - d) / (d (n - 1))), 0 where they can be
/// orthogonal (Welch 1974, "Lower bounds on the maximum cross correlation of signals").
pub fn welch_bound(n: usize, d: usize) -> f64 {
    welch_mean_square(n, d).sqrt()
}

/// Least possible mean of (g_i·g_j)² over pairs i ≠ j: (n - d) / (d (n - 1)), 0 where they can be orthogonal. Equality holds
/// for tight frames (the same paper, for sums instead of the maximum).
pub fn welch_mean_square(n: usize, d: usize) -> f64 {
    if n > d { least_interference(n, d) / (n - 1) as f64 } else { 0.0 }
}

/// Least possible mean interference: (n - d) / d, 0 where directions can be orthogonal; what tight frames have.
pub fn least_interference(n: usize, d: usize) -> f64 {
    if n > d { (n - d) as f64 / d as f64 } else { 0.0 }
}

/// Mean interference of independent directions, uniform on the sphere: (n - 1) / d, because E (g_i·g_j)² = 1 / d.
pub fn random_interference(n: usize, d: usize) -> f64 {
    n.saturating_sub(1) as f64 / d as f64
}

/// E (Σ_j x_j g_j)² of independent x_j with these variances and means: Σ v_j g_j² + (Σ m_j g_j)².
///
/// The usual shorthand p Σ g_j² for features that are 1 with probability p leaves out what features that fire together
/// add, p² Σ_{j≠k} g_j g_k.
pub fn independent_interference(variance: &[f64], mean: &[f64], g: &[f64]) -> f64 {
    let spread: f64 = variance.iter().zip(g).map(|(v, g)| v * g * g).sum();
    let shift: f64 = mean.iter().zip(g).map(|(m, g)| m * g).sum();
    spread + shift * shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use crate::toy::theory::uniform::variance;

    /// Tabulated to three digits.
    #[test]
    fn welch_bounds_are_the_tabulated_ones() {
        for (d, n, bound) in [(2, 5, 0.612), (30, 60, 0.130), (64, 512, 0.117)] {
            assert!((welch_bound(n, d) - bound).abs() < 5e-4, "{n} in {d}: {}", welch_bound(n, d));
        }
        assert_eq!((welch_bound(4, 4), welch_bound(1, 3), welch_bound(0, 2)), (0.0, 0.0, 0.0));
    }

    /// A regular pentagon is a tight frame: its mean interference is the least there is.
    #[test]
    fn tight_frames_meet_the_bound_on_the_mean() {
        let square = |m: usize| libm::pow(libm::cos(2.0 * std::f64::consts::PI * m as f64 / 5.0), 2.0);
        let mean: f64 = (1..5).map(square).sum();
        assert!(
            (mean - least_interference(5, 2)).abs() < 1e-15 && (mean / 4.0 - welch_mean_square(5, 2)).abs() < 1e-15
        );
    }

    /// 100 directions in 64 dimensions: (g·g')² has mean 1/64 and standard deviation near √2/64, over 4950 pairs (uncorrelated)
    /// .0003; five standard errors are 10 % of the mean.
    #[test]
    fn random_directions_interfere_as_the_formula_says() {
        let mut draws = Draws::new(3, Stream::Baseline, 0);
        let (n, d) = (100, 64);
        let unit = |draws: &mut Draws| {
            let row: Vec<f64> = (0..d).map(|_| draws.normal()).collect();
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.into_iter().map(|x| x / norm).collect::<Vec<_>>()
        };
        let rows: Vec<Vec<f64>> = (0..n).map(|_| unit(&mut draws)).collect();
        let square = |i: usize, j: usize| rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum::<f64>().powi(2);
        let of_row = |i: usize| (0..n).filter(|&j| j != i).map(|j| square(i, j)).sum::<f64>();
        let mean = (0..n).map(of_row).sum::<f64>() / n as f64;
        assert!((mean / random_interference(n, d) - 1.0).abs() < 0.1, "{mean}");
    }

    /// Against all 2^3 cases of three features that are 1 with probability p: .5, -.2, .3.
    #[test]
    fn expected_interference_is_that_of_all_cases() {
        let (p, g) = (0.3, [0.5, -0.2, 0.3]);
        let mut expected = 0.0;
        for set in 0..8 {
            let fires = |j: usize| f64::from(set >> j & 1);
            let weight: f64 = (0..3).map(|j| if fires(j) > 0.0 { p } else { 1.0 - p }).product();
            expected += weight * (0..3).map(|j| fires(j) * g[j]).sum::<f64>().powi(2);
        }
        let found = independent_interference(&[p * (1.0 - p); 3], &[p; 3], &g);
        assert!((found - expected).abs() < 1e-15);
        // U[0, 1] magnitudes: v(p) Σ g² + (p/2)² (Σ g)²
        let uniform = independent_interference(&[variance(p); 3], &[p / 2.0; 3], &g);
        assert!((uniform - (variance(p) * 0.38 + 0.0225 * 0.36)).abs() < 1e-15);
    }
}
