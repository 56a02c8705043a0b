//! First and second moments of a world: what its features are on average where they fire.

use super::normal;
use super::world::{Magnitude, World};

/// Moments of a feature's value given that it fires.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// E y
    pub mean: f64,
    /// E y²
    pub square: f64,
}

impl World {
    /// Moments of each feature's value where it fires, `[n_features]`, by the closed form of its law.
    pub fn magnitude_moments(&self) -> Vec<Moments> {
        let all = |mean: f64, square: f64| vec![Moments { mean, square }; self.n_features];
        let each = |mean: &[f64], std: &[f64], law: fn(f64, f64) -> Moments| {
            mean.iter().zip(std).map(|(&mean, &std)| law(mean, std)).collect()
        };
        match &self.magnitude {
            Magnitude::Uniform { low, high } => all(0.5 * (low + high), (low * low + low * high + high * high) / 3.0),
            Magnitude::Constant(values) => values.iter().map(|&c| Moments { mean: c, square: c * c }).collect(),
            Magnitude::Normal { mean, std } => each(mean, std, clipped_normal),
            Magnitude::FoldedNormal { mean, std } => each(mean, std, folded_normal),
            Magnitude::Exponential { mean } => {
                mean.iter().map(|&mean| Moments { mean, square: 2.0 * mean * mean }).collect()
            }
            Magnitude::Symmetric(bound) => all(0.0, bound * bound / 3.0),
        }
    }

    /// Whether a feature's value may be below 0.
    pub fn is_signed(&self) -> bool {
        match &self.magnitude {
            Magnitude::Uniform { low, .. } => *low < 0.0,
            Magnitude::Constant(values) => values.iter().any(|value| *value < 0.0),
            Magnitude::Symmetric(_) => true,
            Magnitude::Normal { .. } | Magnitude::FoldedNormal { .. } | Magnitude::Exponential { .. } => false,
        }
    }
}

/// max(0, N(mean, std²)): E y = mean Φ + std φ, E y² = (mean² + std²) Φ + mean std φ at mean / std.
fn clipped_normal(mean: f64, std: f64) -> Moments {
    if std == 0.0 {
        let value = mean.max(0.0);
        return Moments { mean: value, square: value * value };
    }
    let (below, density) = (normal::cdf(mean / std), normal::density(mean / std));
    let square = (mean * mean + std * std) * below + mean * std * density;
    Moments { mean: mean * below + std * density, square }
}

/// |N(mean, std²)|: E y = mean (2Φ - 1) + 2 std φ at mean / std.
fn folded_normal(mean: f64, std: f64) -> Moments {
    let size = match std {
        0.0 => mean.abs(),
        _ => {
            let (below, density) = (normal::cdf(mean / std), normal::density(mean / std));
            mean * (2.0 * below - 1.0) + 2.0 * std * density
        }
    };
    Moments { mean: size, square: mean * mean + std * std }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Batch, MagnitudeSharing, Sampler};
    use crate::random::Stream;

    /// Means over 2e5 samples of two features that always fire: five standard errors, false alarm below 1e-6 for each of 28.
    #[test]
    fn moments_are_those_of_what_is_drawn() {
        let laws = [
            Magnitude::Uniform { low: 0.5, high: 2.0 },
            Magnitude::Constant(vec![0.5, -2.0]),
            Magnitude::Normal { mean: vec![0.3, -0.5], std: vec![1.0, 0.5] },
            Magnitude::Normal { mean: vec![0.3, -0.5], std: vec![0.0, 0.0] },
            Magnitude::FoldedNormal { mean: vec![0.3, 1.0], std: vec![1.0, 0.0] },
            Magnitude::Exponential { mean: vec![0.5, 2.0] },
            Magnitude::Symmetric(1.5),
        ];
        for magnitude in laws {
            let world = World {
                n_features: 2,
                firing_probability: vec![1.0; 2],
                magnitude,
                magnitude_sharing: MagnitudeSharing::Independent,
                groups: vec![],
                dataset: None,
                correlation: None,
                hierarchy: None,
            };
            let (samples, mut batch) = (200_000, Batch::default());
            Sampler::new(Arc::new(world.clone()), 4, Stream::Evaluate).draw(0, samples, &mut batch);
            for (i, expected) in world.magnitude_moments().into_iter().enumerate() {
                let values: Vec<f64> = (0..samples).map(|s| batch.value(s, i) as f64).collect();
                let moment = |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / samples as f64;
                let (mean, square, fourth) = (moment(1), moment(2), moment(4));
                let error = |variance: f64| 5.0 * (variance.max(0.0) / samples as f64).sqrt() + 1e-6;
                assert!(
                    (mean - expected.mean).abs() < error(square - mean * mean),
                    "{world:?} {i} {mean} {expected:?}"
                );
                assert!((square - expected.square).abs() < error(fourth - square * square), "{world:?} {i} {square}");
                assert!(world.is_signed() || values.iter().all(|v| *v >= 0.0));
            }
        }
    }
}
