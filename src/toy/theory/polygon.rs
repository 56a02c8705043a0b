//! T4: regular polygons in the plane, in the limit where one feature fires at a time.
//!
//! Exactly one of c features fires, each as often, with a value U[0, 1]. k of them form a regular polygon of norm l with bias b
//! each; the others are dropped, with biases at most 0. The loss, summed over outputs, is (h_k + c - k) / (3 c), where
//!
//! ```text
//! h_k = min over l, b of 3 k [ E (x - ReLU(l² x + b))² + Σ_{m=1}^{k-1} E ReLU(l² cos(2πm/k) x + b)² ],   x ~ U[0, 1]
//! ```
//!
//! Chen et al. 2023, "Dynamical versus Bayesian phase transitions in a toy model of superposition", whose critical points
//! these are. The expectations are integrals of quadratics, so only the minimum is numerical.

use std::f64::consts::PI;

use super::exact::output_loss;
use super::minimise::minimise;

/// A regular polygon at its best norm and bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Polygon {
    /// Norm of every feature, l*.
    pub norm: f64,
    /// Bias of every feature, b*; at most 0.
    pub bias: f64,
    /// h_k.
    pub h: f64,
}

/// The best regular polygon of k features, k from 3 on.
///
/// # Panics
/// For k below 3.
pub fn polygon(k: usize) -> Polygon {
    assert!(k >= 3, "{k} features make no polygon");
    let h = |norm: f64, bias: f64| 3.0 * k as f64 * error(k, norm, bias);
    // Both enter squared, so that the bias stays at most 0 and what is searched is the whole plane.
    let at = |x: &[f64]| (x[0] * x[0], -x[1] * x[1]);
    // Triangles and squares do not interfere; larger polygons need a bias, and 0 is a saddle of -x².
    let start = if k <= 4 { [1.0, 0.0] } else { [1.05, 0.5] };
    let (x, value) = minimise(
        |x| {
            let (norm, bias) = at(x);
            h(norm, bias)
        },
        &start,
    );
    let (norm, bias) = at(&x);
    Polygon { norm, bias, h: value }
}

/// The error of all outputs, given that one feature of the polygon fires.
fn error(k: usize, norm: f64, bias: f64) -> f64 {
    let scale = norm * norm;
    let own = output_loss(0, &[scale], bias, &[1.0]);
    let along = |m: usize| scale * libm::cos(2.0 * PI * m as f64 / k as f64);
    // An output whose own feature is silent: its coefficient on itself does not matter.
    let others: f64 = (1..k).map(|m| output_loss(0, &[1.0, along(m)], bias, &[0.0, 1.0])).sum();
    own + others
}

/// The loss with k of c features in the polygon and the others dropped: (h_k + c - k) / (3 c).
///
/// # Panics
/// For k below 3 or above c.
pub fn loss(k: usize, c: usize) -> f64 {
    assert!(k <= c, "{k} of {c} features");
    (polygon(k).h + (c - k) as f64) / (3.0 * c as f64)
}

/// What a dropped feature gains by a small positive bias, 1/(2 c): 1/(4 c²). Such a bias costs b² wherever another feature
/// fires and saves b where its own does.
pub fn gain_of_a_positive_bias(c: usize) -> f64 {
    1.0 / (4.0 * (c * c) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tabulated to 2e-3 in norm and bias and 1e-5 in h (half a unit of the last digit for the losses).
    #[test]
    fn the_best_polygons_are_the_tabulated_critical_points() {
        for (k, norm, bias, h) in [(4, 1.0, 0.0, 0.0), (5, 1.1705, -0.2823, 0.23738), (6, 1.3205, -0.6182, 0.86746)] {
            let found = polygon(k);
            assert!((found.norm - norm).abs() < 2e-3 && (found.bias - bias).abs() < 2e-3, "{k} {found:?}");
            assert!((found.h - h).abs() < 1.5e-5, "{k} {found:?}");
        }
        for (k, c, expected) in [(5, 5, 0.015825), (4, 5, 0.06667), (6, 6, 0.04819), (5, 6, 0.06874)] {
            assert!((loss(k, c) - expected).abs() < 6e-6, "{k} of {c}: {}", loss(k, c));
        }
    }

    #[test]
    fn a_triangle_loses_nothing() {
        assert!(polygon(3).h.abs() < 1e-12);
    }

    /// Loss of a dropped output with bias b: ((1 - b)³ + b³)/3 on average over its own feature, else b².
    #[test]
    fn a_dropped_feature_gains_what_the_formula_says_by_its_best_bias() {
        for c in [4, 6, 10] {
            let b = 1.0 / (2.0 * c as f64);
            let output = |b: f64| {
                let own = output_loss(0, &[0.0], b, &[1.0]);
                (own + (c - 1) as f64 * output_loss(0, &[0.0], b, &[0.0])) / c as f64
            };
            assert!((output(0.0) - output(b) - gain_of_a_positive_bias(c)).abs() < 1e-15);
        }
        assert_eq!(gain_of_a_positive_bias(6), 1.0 / 144.0);
    }
}
