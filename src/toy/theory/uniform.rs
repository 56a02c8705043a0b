//! T3: many features alike, far more than dimensions. What a dimension gains by holding one feature, an antipodal pair of
//! them, or (with a second dimension) a triangle.
//!
//! Benefits are expected squared error saved against dropping the features, per dimension used, for unit norms and zero
//! biases; features fire with probability p and are U[0, 1] where they fire. Elhage et al. 2022, "The geometry of
//! superposition"; the error terms are those of T1 and T2.

/// The density below which an antipodal pair saves more per dimension than a feature alone: 1 / (1 - S) above 7/4.
pub const DIGON_THRESHOLD: f64 = 4.0 / 7.0;

/// Variance of a feature that is 0 with probability 1 - p, else U[0, 1]: what dropping it costs.
pub fn variance(p: f64) -> f64 {
    p / 3.0 - p * p / 4.0
}

/// One feature to a dimension: v.
pub fn dedicated_benefit(p: f64) -> f64 {
    variance(p)
}

/// Two antipodal features to a dimension: 2 v, less p²/6 for each, the mean square of the lesser of two where both fire.
pub fn digon_benefit(p: f64) -> f64 {
    2.0 * variance(p) - p * p / 3.0
}

/// Three features to two dimensions: three halves of v - p²/8 - p³/24.
pub fn triangle_benefit(p: f64) -> f64 {
    1.5 * (variance(p) - p * p / 8.0 - p * p * p / 24.0)
}

/// Dimensions per feature of the better of dedicated features and antipodal pairs: 1 at densities of at least
/// [`DIGON_THRESHOLD`], 1/2 below.
pub fn dimensions_per_feature(p: f64) -> f64 {
    if digon_benefit(p) > dedicated_benefit(p) { 0.5 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_beat_single_features_below_four_sevenths_alone() {
        let gain = |p: f64| digon_benefit(p) - dedicated_benefit(p);
        assert!(gain(DIGON_THRESHOLD).abs() < 1e-16);
        for step in 1..1000 {
            let p = step as f64 / 1000.0;
            assert_eq!(gain(p) > 0.0, p < DIGON_THRESHOLD, "{p}");
            assert_eq!(dimensions_per_feature(p), if p < DIGON_THRESHOLD { 0.5 } else { 1.0 });
        }
        assert!((1.0 / DIGON_THRESHOLD - 1.75).abs() < 1e-15);
    }

    /// Off the crossing, where all three meet, a unit triangle without bias never wins.
    #[test]
    fn a_unit_triangle_is_never_best() {
        for p in (1..=100).map(|step| step as f64 / 100.0) {
            let best = digon_benefit(p).max(dedicated_benefit(p));
            assert!(triangle_benefit(p) < best, "{p}");
        }
    }

    /// p = 1/2: v = 1/6 - 1/16 = 5/48; 2 v - 1/12 = 1/8; 1.5 (5/48 - 1/32 - 1/192) = 1.5 · 13/192.
    #[test]
    fn benefits_at_one_half_are_those_worked_out_by_hand() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
        near(dedicated_benefit(0.5), 5.0 / 48.0);
        near(digon_benefit(0.5), 1.0 / 8.0);
        near(triangle_benefit(0.5), 1.5 * 13.0 / 192.0);
    }
}
