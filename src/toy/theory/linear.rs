//! The linear model, x' = Wᵀ W x + b: principal components.
//!
//! Of uncorrelated features, the best it can do is to keep the d_hidden of greatest I_i Var(x_i), each in a dimension of its
//! own, and to put the mean of every other into its bias: the loss is what the dropped ones vary, weighted (Elhage et al.
//! 2022, "Demonstrating superposition", the linear model; Eckart & Young 1936, with the errors weighted by I_i).

use super::{Phase, Theory};
use crate::data::World;

/// I_i Var(x_i), `[n_features]`, of features that fire independently.
pub fn weighted_variances(world: &World, importance: &[f64]) -> Vec<f64> {
    let p = world.marginal_probability();
    let moments = world.magnitude_moments();
    let variance = |i: usize| p[i] * moments[i].square - (p[i] * moments[i].mean).powi(2);
    (0..world.n_features).map(|i| importance[i] * variance(i)).collect()
}

/// The candidates `largest`, which keeps the d_hidden greatest weighted variances, and `next`, which keeps the first that does
/// not fit instead of the last that does. None where everything fits, so that nothing is lost, or nothing does.
pub fn linear(weighted: &[f64], d_hidden: usize) -> Option<Theory> {
    let n = weighted.len();
    if d_hidden == 0 || d_hidden >= n {
        return None;
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| weighted[b].total_cmp(&weighted[a]).then(a.cmp(&b)));
    let (last_in, first_out) = (weighted[order[d_hidden - 1]], weighted[order[d_hidden]]);
    let least: f64 = order[d_hidden..].iter().map(|&i| weighted[i]).sum();
    let next = least + (last_in - first_out);
    // Features as good as the last that fits, or the first that does not, may change places with it.
    let phase = |&value: &f64| match value {
        _ if last_in == first_out && value == last_in => None,
        value if value >= last_in => Some(Phase::Dedicated),
        _ => Some(Phase::Dropped),
    };
    Some(Theory {
        losses: vec![("largest", least), ("next", next)],
        best: "largest",
        phases: weighted.iter().map(phase).collect(),
        margin: (least > 0.0).then(|| next / least),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Magnitude, MagnitudeSharing};

    /// 20 features of importance 0.7^i in 5 dimensions: the loss per feature at p = 1 and 0.3 as tabulated to 4 digits.
    #[test]
    fn twenty_features_in_five_dimensions_lose_what_is_tabulated() {
        let importance: Vec<f64> = (0..20).map(|i| libm::pow(0.7, i as f64)).collect();
        for (p, expected) in [(1.0, 0.002323), (0.3, 0.002161)] {
            let world = World {
                n_features: 20,
                firing_probability: vec![p; 20],
                magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
                magnitude_sharing: MagnitudeSharing::Independent,
                groups: vec![],
                dataset: None,
                correlation: None,
                hierarchy: None,
            };
            let found = linear(&weighted_variances(&world, &importance), 5).expect("15 features are dropped");
            assert!((found.loss() / 20.0 / expected - 1.0).abs() < 5e-4, "{p} {}", found.loss() / 20.0);
            for (i, phase) in found.phases.iter().enumerate() {
                assert_eq!(*phase, Some(if i < 5 { Phase::Dedicated } else { Phase::Dropped }), "{i}");
            }
        }
    }

    /// Weighted variances 4, 3, 2, 1 in two dimensions: 2 + 1 lost, or 3 + 1 if 2 is kept instead of 3.
    #[test]
    fn a_small_case_worked_out_by_hand() {
        let found = linear(&[1.0, 4.0, 2.0, 3.0], 2).expect("two features are dropped");
        assert_eq!(found.losses, vec![("largest", 3.0), ("next", 4.0)]);
        assert_eq!(found.margin, Some(4.0 / 3.0));
        let phases: Vec<_> = found.phases.iter().map(|phase| phase.map(Phase::name)).collect();
        assert_eq!(phases, [Some("dropped"), Some("dedicated"), Some("dropped"), Some("dedicated")]);
    }

    #[test]
    fn equals_at_the_edge_have_no_phase() {
        let found = linear(&[5.0, 2.0, 2.0, 2.0, 1.0], 2).expect("three features are dropped");
        assert_eq!(found.phases, vec![Some(Phase::Dedicated), None, None, None, Some(Phase::Dropped)]);
        assert_eq!(found.margin, Some(1.0));
    }

    #[test]
    fn nothing_to_drop_leaves_nothing_to_say() {
        assert_eq!(linear(&[1.0, 2.0], 2), None);
        assert_eq!(linear(&[1.0, 2.0], 3), None);
    }
}
