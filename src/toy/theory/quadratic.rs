//! Closed forms of the quadratic model: Σ_i v_i x_i² from ‖W x‖² + b.
//!
//! For independent features of mean 0, odd moments 0, variance σ² and kurtosis κ = E[x⁴] / σ⁴, with the best b, the
//! expected squared error is exactly
//!
//! ```text
//! σ⁴ ( (κ - 1) Σ_i (‖W_i‖² - v_i)² + 2 Σ_{i≠j} (W_i·W_j)² )
//! ```
//!
//! because every term of the error is a product of squares or of pairs. Two features in one dimension then have one
//! minimum, with q = 2 / (κ - 1): the lesser feature gets nothing where κ ≤ 3 or its share v₂/v₁ is at most q, else
//! W₁² = (v₁ - q v₂) / (1 - q²) and W₂² = (v₂ - q v₁) / (1 - q²). After the toy of Scherlis et al. 2022, "Polysemanticity
//! and capacity in neural networks"; no superposition for a kurtosis of 3 or less (a Gaussian's) is their result.

use crate::data::{Magnitude, MagnitudeSharing, World};
use crate::toy::ToyKind;

/// Expected squared error over σ⁴, with the best b. `v` is `[n_features]`, `w` `[n_features, d_hidden]`.
pub fn loss(kurtosis: f64, v: &[f64], w: &[f64]) -> f64 {
    let d = w.len() / v.len();
    let row = |i: usize| &w[i * d..(i + 1) * d];
    let overlap = |i: usize, j: usize| row(i).iter().zip(row(j)).map(|(a, b)| a * b).sum::<f64>();
    let own: f64 = (0..v.len()).map(|i| (overlap(i, i) - v[i]).powi(2)).sum();
    let pairs: f64 = (0..v.len()).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| overlap(i, j).powi(2)).sum();
    (kurtosis - 1.0) * own + 4.0 * pairs
}

/// (W₁², W₂²) of least loss for two features in one dimension; of equal features without superposition the first.
///
/// `kurtosis` is above 1; `v` are not negative, and not both 0.
pub fn two_in_one(kurtosis: f64, v: [f64; 2]) -> [f64; 2] {
    if v[1] > v[0] {
        let [second, first] = two_in_one(kurtosis, [v[1], v[0]]);
        return [first, second];
    }
    let q = 2.0 / (kurtosis - 1.0);
    if q >= 1.0 || v[1] <= q * v[0] {
        return [v[0], 0.0];
    }
    let over = 1.0 / (1.0 - q * q);
    [(v[0] - q * v[1]) * over, (v[1] - q * v[0]) * over]
}

/// Capacities C_i of directions in one dimension with these squared lengths: C_i = W_i² / Σ_j W_j².
pub fn capacities(squares: [f64; 2]) -> [f64; 2] {
    let total = squares[0] + squares[1];
    squares.map(|square| if total > 0.0 { square / total } else { 0.0 })
}

/// E[x⁴] / E[x²]² of the features of a world, where it is one number and means and odd moments are 0: equal firing
/// probabilities p > 0, independent features, magnitudes U[-a, a]. It is 9 / (5 p).
pub fn kurtosis(world: &World) -> Option<f64> {
    let p = world.firing_probability[0];
    let covered = p > 0.0
        && world.firing_probability.iter().all(|q| *q == p)
        && matches!(world.magnitude, Magnitude::Symmetric(_))
        && world.magnitude_sharing == MagnitudeSharing::Independent
        && world.groups.is_empty()
        && world.dataset.is_none();
    covered.then(|| 9.0 / (5.0 * p))
}

/// The capacities of least loss for a setting, where there is a closed form: a quadratic model of two features in one
/// dimension in a world that has a [`kurtosis`]. Of equal features without superposition either may be the one that is
/// kept, so there is none.
pub fn theory_capacities(world: &World, kind: ToyKind, d_hidden: usize, importance: &[f64]) -> Option<[f64; 2]> {
    let &[first, second] = importance else { return None };
    if kind != ToyKind::Quadratic || d_hidden != 1 || first.max(second) <= 0.0 {
        return None;
    }
    let found = capacities(two_in_one(kurtosis(world)?, [first, second]));
    (first != second || found[0] == found[1]).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} {b}");
    }

    #[test]
    fn worked_values_are_reproduced() {
        let [a, b] = two_in_one(5.0, [1.0, 0.6]);
        near(a, 0.7 / 0.75);
        near(b, 0.1 / 0.75);
        near(capacities([a, b])[0], 0.875);
        let [a, b] = two_in_one(5.0, [1.0, 1.0]);
        near(a, 2.0 / 3.0);
        near(b, 2.0 / 3.0);
        assert_eq!(two_in_one(5.0, [0.6, 1.0]).map(|w| (w * 750.0).round()), [100.0, 700.0]);
        for kurtosis in [1.8, 3.0] {
            assert_eq!(two_in_one(kurtosis, [1.0, 0.9]), [1.0, 0.0]);
        }
        assert_eq!(two_in_one(5.0, [1.0, 0.5]), [1.0, 0.0]);
        assert!(two_in_one(5.0, [1.0, 0.51])[1] > 0.0);
    }

    /// No weights on a grid of step 0.02 do better than the closed form.
    #[test]
    fn nothing_on_a_grid_has_less_loss() {
        for kurtosis in [1.8, 3.5, 5.0, 12.0] {
            for v in [[1.0, 0.1], [1.0, 0.45], [1.0, 0.9], [1.0, 1.0], [0.3, 0.7]] {
                let best = two_in_one(kurtosis, v).map(f64::sqrt);
                let least = loss(kurtosis, &v, &best);
                for i in 0..60 {
                    for j in -60..60 {
                        let w = [i as f64 * 0.02, j as f64 * 0.02];
                        assert!(loss(kurtosis, &v, &w) >= least - 1e-12, "{kurtosis} {v:?} {w:?}");
                    }
                }
            }
        }
    }

    /// The expectation by summing over signs and two magnitudes: x² is 0, s or t, so that every moment is a finite sum.
    #[test]
    fn the_loss_is_the_expected_squared_error_of_the_best_bias() {
        let squares = [(0.0f64, 0.5), (1.0, 0.3), (4.0, 0.2)];
        let mean_square: f64 = squares.iter().map(|(s, p)| s * p).sum();
        let kurtosis = squares.iter().map(|(s, p)| s * s * p).sum::<f64>() / mean_square.powi(2);
        let (v, w) = ([1.0, 0.4, 0.7], [0.9, -0.1, 0.3, 0.5, -0.2, 0.8]);
        let (mut first, mut second) = (0.0, 0.0);
        for (a, pa) in squares {
            for (b, pb) in squares {
                for (c, pc) in squares {
                    for signs in 0..8 {
                        let sign = |k: u32| if signs >> k & 1 == 1 { -1.0 } else { 1.0 };
                        let x = [sign(0) * a.sqrt(), sign(1) * b.sqrt(), sign(2) * c.sqrt()];
                        let h = [0, 1].map(|k| (0..3).map(|i| x[i] * w[2 * i + k]).sum::<f64>());
                        let target: f64 = (0..3).map(|i| v[i] * x[i] * x[i]).sum();
                        let error = h[0] * h[0] + h[1] * h[1] - target;
                        first += pa * pb * pc / 8.0 * error;
                        second += pa * pb * pc / 8.0 * error * error;
                    }
                }
            }
        }
        near((second - first * first) / mean_square.powi(2), loss(kurtosis, &v, &w));
    }

    #[test]
    fn a_world_has_a_kurtosis_where_its_features_are_alike_and_symmetric() {
        let world = World {
            n_features: 2,
            firing_probability: vec![0.36; 2],
            magnitude: Magnitude::Symmetric(2.0),
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        near(kurtosis(&world).unwrap(), 5.0);
        let of = |world: &World, kind, d, importance: &[f64]| theory_capacities(world, kind, d, importance);
        near(of(&world, ToyKind::Quadratic, 1, &[1.0, 0.6]).unwrap()[1], 0.125);
        assert_eq!(of(&world, ToyKind::Quadratic, 1, &[1.0, 1.0]), Some([0.5, 0.5]));
        assert_eq!(of(&world, ToyKind::Quadratic, 2, &[1.0, 0.6]), None);
        assert_eq!(of(&world, ToyKind::ReluOutput, 1, &[1.0, 0.6]), None);
        assert_eq!(of(&world, ToyKind::Quadratic, 1, &[1.0, 0.6, 0.1]), None);
        let uneven = World { firing_probability: vec![0.3, 0.4], ..world.clone() };
        let positive = World { magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 }, ..world.clone() };
        let dense = World { firing_probability: vec![1.0; 2], ..world };
        assert_eq!([kurtosis(&uneven), kurtosis(&positive)], [None; 2]);
        assert_eq!(of(&dense, ToyKind::Quadratic, 1, &[1.0, 0.6]), Some([1.0, 0.0]));
        assert_eq!(of(&dense, ToyKind::Quadratic, 1, &[1.0, 1.0]), None, "either may be the one");
    }
}
