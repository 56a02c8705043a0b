//! What the other features add to the readout along a feature's direction: expected by the world's law, and measured.
//!
//! The readout along feature i is Ŵ_i · h without bias and noise, and its interference is what is there beside x_i itself,
//!
//! ```text
//! I_i = Σ_{j≠i} x_j (Ŵ_i · W_j)        mean over represented i of E I_i²
//! ```
//!
//! [`interference`](super::interference) is its geometric part, Σ (g_i · g_j)², which says what one unit of every other
//! represented feature adds by itself. The law adds how often features fire, how large they are, and which fire together.

use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Directions, dot, mean};
use super::{NO_SAMPLES, NOTHING_REPRESENTED, Undefined, Value};
use crate::codes::Codes;
use crate::data::{Group, GroupRule, Magnitude, MagnitudeSharing, Moments, World};
use crate::toy::theory::interference::independent_interference;

/// Samples summed together; fixed, so that threads do not reorder the sum.
const BLOCK: usize = 1024;

pub const INTERFERENCE_EXPECTED: Definition = Definition {
    name: "interference_expected",
    version: 1,
    meaning: "mean square of what all other features add to the readout along a represented one, exact by the world's law",
    formula: "mean over represented i of E I_i^2, I_i = sum over j != i of x_j (W^_i . W_j); for independent features \
              sum_j Var(x_j) c_j^2 + (sum_j E(x_j) c_j)^2 with c_j = W^_i . W_j",
    source: "variance of a weighted sum; Elhage et al. 2022, Toy Models of Superposition, has the part without cross terms",
    needs: &[Need::Truth, Need::World],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "expected interference E I\u{b2}",
    better: Some(Better::Lower),
};

pub const INTERFERENCE_MEASURED: Definition = Definition {
    name: "interference_measured",
    version: 1,
    meaning: "mean square of what all other features add to the readout along a represented one, on the evaluation samples",
    formula: "mean over samples and represented i of (sum over j != i of x_j (W^_i . W_j))^2",
    source: "as interference_expected",
    needs: &[Need::Truth, Need::Features, Need::World],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "measured interference I\u{b2}",
    better: Some(Better::Lower),
};

/// [`INTERFERENCE_EXPECTED`]. Null where all features of a sample share one magnitude draw and their laws are not multiples of
/// one another: no closed form is built for that.
pub fn interference_expected(world: &World, truth: &Directions, represented: &[usize]) -> Value {
    if world.is_linked() {
        return Err(Undefined(
            "no closed form for correlated features or features with parents: see interference_measured",
        ));
    }
    let law = Law::of(world).ok_or(Undefined("no closed form for shared magnitudes of different laws"))?;
    let of_feature = |&i: &usize| {
        let c: Vec<f64> = (0..truth.n).map(|j| if i == j { 0.0 } else { dot(truth.unit(i), truth.raw(j)) }).collect();
        law.square(world, &c)
    };
    mean(represented.iter().map(of_feature)).ok_or(NOTHING_REPRESENTED)
}

/// Moments of the magnitudes, as the world shares them.
enum Law {
    Independent(Vec<Moments>),
    /// y_j = scale_j y with one y of E y² = 1 for a whole sample.
    Shared {
        scale: Vec<f64>,
    },
}

impl Law {
    fn of(world: &World) -> Option<Law> {
        let moments = world.magnitude_moments();
        if world.magnitude_sharing == MagnitudeSharing::Independent {
            return Some(Law::Independent(moments));
        }
        let proportional = match &world.magnitude {
            Magnitude::Uniform { .. } | Magnitude::Symmetric(_) => true,
            Magnitude::Exponential { .. } | Magnitude::Constant(_) => true,
            Magnitude::Normal { mean, std } | Magnitude::FoldedNormal { mean, std } => {
                mean.iter().all(|m| *m == mean[0]) && std.iter().all(|s| *s == std[0])
            }
        };
        // A constant may be negative, all others are multiples of one variate by their root mean square.
        let scale = |(i, moment): (usize, &Moments)| match &world.magnitude {
            Magnitude::Constant(values) => values[i],
            _ => moment.square.sqrt(),
        };
        proportional.then(|| Law::Shared { scale: moments.iter().enumerate().map(scale).collect() })
    }

    /// E (Σ_j c_j x_j)².
    fn square(&self, world: &World, c: &[f64]) -> f64 {
        // (variance, mean) of each unit's share in the sum: features in no group, and groups. Units are independent, or for
        // shared magnitudes independent given y, of which all is a multiple: E y² = 1 takes its place.
        let mut grouped = vec![false; c.len()];
        world.groups.iter().flat_map(|g| &g.members).for_each(|&i| grouped[i] = true);
        let single = |i: usize| {
            let p = world.firing_probability[i];
            match self {
                Law::Independent(m) => (p * m[i].square - (p * m[i].mean).powi(2), p * m[i].mean, c[i]),
                Law::Shared { scale } => (p * (1.0 - p) * scale[i].powi(2), p * scale[i], c[i]),
            }
        };
        let singles = (0..c.len()).filter(|&i| !grouped[i]).map(single);
        let groups = world.groups.iter().map(|group| {
            let (variance, mean) = self.group(group, c);
            (variance, mean, 1.0)
        });
        let units: Vec<(f64, f64, f64)> = singles.chain(groups).collect();
        let part = |f: fn(&(f64, f64, f64)) -> f64| units.iter().map(f).collect::<Vec<f64>>();
        independent_interference(&part(|u| u.0), &part(|u| u.1), &part(|u| u.2))
    }

    /// Variance and mean of Σ c_j x_j over a group.
    fn group(&self, group: &Group, c: &[f64]) -> (f64, f64) {
        let p = group.firing_probability;
        let (mut sum, mut squares, mut own) = (0.0, 0.0, 0.0);
        for &j in &group.members {
            let (mean, square) = match self {
                Law::Independent(m) => (m[j].mean, m[j].square),
                Law::Shared { scale } => (scale[j], scale[j] * scale[j]),
            };
            sum += c[j] * mean;
            squares += c[j] * c[j] * square;
            own += c[j] * c[j] * mean * mean;
        }
        let share = 1.0 / group.members.len() as f64;
        let (second, mean) = match group.rule {
            GroupRule::Together => (p * (squares - own + sum * sum), p * sum),
            GroupRule::Exclusive => (p * share * squares, p * share * sum),
        };
        (second - mean * mean, mean)
    }
}

/// [`INTERFERENCE_MEASURED`] on samples `[samples, n_features]`.
pub fn interference_measured(x: &Codes<f32>, truth: &Directions, represented: &[usize]) -> Value {
    if represented.is_empty() {
        return Err(NOTHING_REPRESENTED);
    }
    if x.n_rows() == 0 {
        return Err(NO_SAMPLES);
    }
    let block = |block: usize| {
        let (mut sum, mut h, mut own) = (0.0, vec![0.0f64; truth.d_hidden], vec![0.0f64; truth.n]);
        for sample in block * BLOCK..x.n_rows().min((block + 1) * BLOCK) {
            h.fill(0.0);
            own.fill(0.0);
            for (j, x) in x.entries(sample) {
                h.iter_mut().zip(truth.raw(j)).for_each(|(h, w)| *h += w * x as f64);
                own[j] = x as f64;
            }
            for &i in represented {
                let others = dot(truth.unit(i), &h) - own[i] * truth.norms[i];
                sum += others * others;
            }
        }
        sum
    };
    let blocks: Vec<f64> = (0..x.n_rows().div_ceil(BLOCK)).into_par_iter().map(block).collect();
    Ok(blocks.iter().sum::<f64>() / (x.n_rows() * represented.len()) as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Batch, Dictionary, Sampler};
    use crate::random::Stream;
    use ndarray::{Array2, arr2};

    fn world(n: usize, p: f64, magnitude: Magnitude) -> World {
        World {
            n_features: n,
            firing_probability: vec![p; n],
            magnitude,
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        }
    }

    fn samples(world: &World, count: usize) -> Array2<f32> {
        let mut batch = Batch::default();
        Sampler::new(Arc::new(world.clone()), 7, Stream::Evaluate).draw(0, count, &mut batch);
        Array2::from_shape_fn((count, world.n_features), |(s, i)| batch.value(s, i))
    }

    /// Binary features: p(1 - p) Σ g² + p² (Σ g)² with two others at cosines .6 and -.8; uniform ones v Σ g² + (p/2)² (Σ g)².
    #[test]
    fn expectations_are_those_worked_out_by_hand() {
        let rows = arr2(&[[1.0, 0.0], [0.6, 0.8], [-0.8, 0.6]]);
        let truth = Directions::new(rows.view());
        let p = 0.3;
        let found = interference_expected(&world(3, p, Magnitude::Constant(vec![1.0; 3])), &truth, &[0]);
        assert!((found.unwrap() - (p * (1.0 - p) + p * p * 0.04)).abs() < 1e-15);
        let uniform = Magnitude::Uniform { low: 0.0, high: 1.0 };
        let found = interference_expected(&world(3, p, uniform), &truth, &[0]);
        assert!((found.unwrap() - (p / 3.0 - p * p / 4.0 + p * p / 4.0 * 0.04)).abs() < 1e-15);
    }

    #[test]
    fn a_sample_adds_what_its_other_features_project() {
        let truth = Directions::new(arr2(&[[2.0, 0.0], [0.6, 0.8]]).view());
        let x = arr2(&[[1.0f32, 0.5], [0.0, 1.0]]);
        // Along feature 0: .5 · .6 and .6; along feature 1: 2 · .6 and 0.
        let expected = (0.09 + 0.36 + 1.44) / 4.0;
        let found = interference_measured(&Codes::of_dense(x.view()), &truth, &[0, 1]).unwrap();
        assert!((found - expected).abs() < 1e-15);
        assert!(interference_measured(&Codes::of_dense(x.view()), &truth, &[]).is_err());
        assert!(interference_measured(&Codes::of_dense(x.slice(ndarray::s![..0, ..])), &truth, &[0]).is_err());
    }

    /// Samples of 24 features in 6 dimensions against the law. One sample scatters by at most three times the mean, 40 000 of
    /// them by 1.5 %: a bound of five such, false alarm below 1e-5 for all cases.
    #[test]
    fn measured_interference_is_the_expected_one_for_every_law() {
        let n = 24;
        let dictionary = Dictionary::random(n, 6, 2);
        let rows = Array2::from_shape_vec((n, 6), dictionary.vectors.clone()).expect("24 rows of 6");
        let truth = Directions::new(rows.view());
        let all: Vec<usize> = (0..n).collect();
        let mean: Vec<f64> = (0..n).map(|i| 0.5 + i as f64 / 24.0).collect();
        let group =
            |rule, members: std::ops::Range<usize>| Group { rule, members: members.collect(), firing_probability: 0.6 };
        let groups = vec![group(GroupRule::Together, 0..5), group(GroupRule::Exclusive, 5..16)];
        let laws = [
            Magnitude::Uniform { low: 0.0, high: 1.0 },
            Magnitude::Constant((0..n).map(|i| i as f64 / 10.0 - 1.0).collect()),
            Magnitude::Normal { mean: mean.clone(), std: vec![0.4; n] },
            Magnitude::Exponential { mean: mean.clone() },
            Magnitude::Symmetric(2.0),
        ];
        let mut shared = 0;
        for magnitude in laws {
            for magnitude_sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                for groups in [vec![], groups.clone()] {
                    let world = World { magnitude_sharing, groups, ..world(n, 0.2, magnitude.clone()) };
                    let Ok(expected) = interference_expected(&world, &truth, &all) else {
                        assert!(matches!(world.magnitude, Magnitude::Normal { .. }), "{world:?}");
                        continue;
                    };
                    let x = samples(&world, 40_000);
                    let found = interference_measured(&Codes::of_dense(x.view()), &truth, &all).unwrap();
                    assert!((found / expected - 1.0).abs() < 0.075, "{world:?}: {found} {expected}");
                    shared += usize::from(magnitude_sharing == MagnitudeSharing::Sample);
                }
            }
        }
        assert_eq!(shared, 8);
    }
}
