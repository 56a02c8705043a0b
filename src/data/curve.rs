//! Curves over features: one number for each, for firing probabilities, importances and magnitude parameters.

use super::torch::TorchCpu;
use crate::random::{Draws, Stream};

/// A rule for a number per feature, i = 0 .. n.
#[derive(Clone, Debug, PartialEq)]
pub enum Curve {
    /// The same for all.
    Constant(f64),
    /// One by one.
    List(Vec<f64>),
    /// r^i.
    Geometric(f64),
    /// min + (max - min)(r_i - r_n) / (r_1 - r_n) with r_i = i^-exponent, i = 1 .. n: an affine rescale, so not a pure
    /// power law (SAELens `firing_probabilities.py`, `zipfian`). n = 1 gives max.
    Zipf { exponent: f64, max: f64, min: f64 },
    /// Evenly spaced from max down to min; n = 1 gives max.
    Linear { max: f64, min: f64 },
    /// min + (max - min) u_i, u_i uniform on (0, 1) from stream `curve`.
    Random { max: f64, min: f64 },
    /// (i + 1)^-exponent.
    Power { exponent: f64 },
    /// `others` for all but the last, which has `value`.
    Last { value: f64, others: f64 },
    /// `others` for all but the first, which has `value`.
    First { value: f64, others: f64 },
    /// start + (end - start) i / (n - 1); n = 1 gives start (SAELens `firing_magnitudes.py`, `linear`).
    FromTo { start: f64, end: f64 },
    /// start (end / start)^(i / (n - 1)); n = 1 gives start (there, `exponential`).
    Exponential { start: f64, end: f64 },
    /// |mean + std z_i|, z_i standard normal from stream `curve` (there, `folded_normal`; the law is the same, the numbers
    /// are tegum's own).
    FoldedNormal { mean: f64, std: f64 },
    /// |mean + std z_i| in f32, z_i of [`TorchCpu`] with this seed: SAELens's own numbers.
    TorchFoldedNormal { mean: f64, std: f64, seed: u64 },
}

impl Curve {
    /// The numbers, `[n]`. A curve that draws gives the same numbers wherever it stands in an experiment; see
    /// [`Curve::values_for`].
    pub fn values(&self, n: usize, seed: u64) -> Vec<f64> {
        self.values_for(n, seed, "")
    }

    /// The numbers, `[n]`, of the curve at `field` (its dotted path in the experiment): random curves of two fields draw
    /// independent numbers.
    ///
    /// # Panics
    /// If a list has not n entries: the experiment's check has refused that.
    pub fn values_for(&self, n: usize, seed: u64, field: &str) -> Vec<f64> {
        let each = |f: &dyn Fn(f64) -> f64| (0..n).map(|i| f(i as f64)).collect::<Vec<f64>>();
        // Share of the way from the first to the last.
        let way = |i: f64| if n > 1 { i / (n - 1) as f64 } else { 0.0 };
        let mut draws = Draws::new(seed, Stream::Curve, fnv64(field));
        match *self {
            Curve::Constant(value) => vec![value; n],
            Curve::List(ref values) => {
                assert_eq!(values.len(), n, "a list has an entry for each feature");
                values.clone()
            }
            Curve::Geometric(r) => each(&|i| libm::pow(r, i)),
            Curve::Zipf { max, .. } if n == 1 => vec![max],
            Curve::Zipf { exponent, max, min } => {
                let r = |i: f64| libm::pow(i, -exponent);
                let last = r(n as f64);
                each(&|i| min + (max - min) * (r(i + 1.0) - last) / (1.0 - last))
            }
            Curve::Linear { max, min } => each(&|i| max + (min - max) * way(i)),
            Curve::Random { max, min } => (0..n).map(|_| min + (max - min) * draws.uniform()).collect(),
            Curve::Power { exponent } => each(&|i| libm::pow(i + 1.0, -exponent)),
            Curve::Last { value, others } => each(&|i| if i + 1.0 == n as f64 { value } else { others }),
            Curve::First { value, others } => each(&|i| if i == 0.0 { value } else { others }),
            Curve::FromTo { start, end } => each(&|i| start + (end - start) * way(i)),
            Curve::Exponential { start, end } => each(&|i| start * libm::pow(end / start, way(i))),
            Curve::TorchFoldedNormal { mean, std, seed } => {
                let folded = |z: f32| (mean as f32 + z * std as f32).abs() as f64;
                TorchCpu::new(seed).normals(n).into_iter().map(folded).collect()
            }
            Curve::FoldedNormal { mean, std } => (0..n).map(|_| (mean + std * draws.normal()).abs()).collect(),
        }
    }
}

/// 64-bit FNV-1a.
fn fnv64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/worlds.json")).expect("the fixture is JSON")
    }

    /// The fixture's own bound: 1e-12 relative. Of the curve itself a few f64 operations and one power: some 1e-15.
    fn hold(curve: &Curve, case: &Value) {
        let expected: Vec<f64> = case["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let values = curve.values(expected.len(), 0);
        for (value, expected) in values.iter().zip(&expected) {
            assert!((value - expected).abs() <= 1e-12 * expected.abs(), "{curve:?}: {value} for {expected}");
        }
    }

    #[test]
    fn closed_forms_of_firing_probabilities_equal_the_independent_implementation() {
        let golden = golden();
        let cases = golden["firing_probabilities"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let p = |name: &str| case["parameters"][name].as_f64().unwrap();
            let (max, min) = (p("max_prob"), p("min_prob"));
            let curve = match case["name"].as_str().unwrap() {
                "zipfian" => Curve::Zipf { exponent: p("exponent"), max, min },
                "linear" => Curve::Linear { max, min },
                other => panic!("{other}"),
            };
            hold(&curve, case);
        }
    }

    #[test]
    fn closed_forms_of_magnitudes_equal_the_independent_implementation() {
        let golden = golden();
        let cases = golden["firing_magnitudes"].as_array().unwrap();
        assert_eq!(cases.len(), 4);
        for case in cases {
            let p = |name: &str| case["parameters"][name].as_f64().unwrap();
            let (start, end) = (p("start"), p("end"));
            let curve = match case["name"].as_str().unwrap() {
                "linear" => Curve::FromTo { start, end },
                "exponential" => Curve::Exponential { start, end },
                other => panic!("{other}"),
            };
            hold(&curve, case);
        }
    }

    #[test]
    fn short_curves_are_what_their_formulas_say() {
        assert_eq!(Curve::Constant(0.1).values(3, 0), [0.1; 3]);
        assert_eq!(Curve::List(vec![1.0, 2.0]).values(2, 0), [1.0, 2.0]);
        assert_eq!(Curve::Geometric(0.5).values(4, 0), [1.0, 0.5, 0.25, 0.125]);
        assert_eq!(Curve::Power { exponent: 2.0 }.values(3, 0), [1.0, 0.25, 1.0 / 9.0]);
        let last = Curve::Last { value: 0.1, others: 1.0 };
        assert_eq!(last.values(3, 0), [1.0, 1.0, 0.1]);
        assert_eq!(Curve::First { value: 0.1, others: 0.5 }.values(3, 0), [0.1, 0.5, 0.5]);
        assert_eq!(last.values(1, 0), [0.1]);
        assert_eq!(Curve::Zipf { exponent: 1.0, max: 0.3, min: 0.01 }.values(0, 0), Vec::<f64>::new());
    }

    /// Mean of 1e4 uniforms on (.2, .6): standard deviation .4 / sqrt(12 e4) = .0012. |z| of 1e4 normals: mean sqrt(2/π),
    /// standard deviation .0060. 5 sigma each: false alarm below 2e-6.
    #[test]
    fn random_curves_follow_seed_and_field_and_have_their_law() {
        let curve = Curve::Random { max: 0.6, min: 0.2 };
        let values = curve.values_for(10_000, 7, "data.firing_probability");
        assert_eq!(values, curve.values_for(10_000, 7, "data.firing_probability"));
        assert_ne!(values, curve.values_for(10_000, 8, "data.firing_probability"));
        assert_ne!(values, curve.values_for(10_000, 7, "toy.importance"));
        assert!(values.iter().all(|v| (0.2..=0.6).contains(v)));
        assert!((values.iter().sum::<f64>() / 1e4 - 0.4).abs() < 0.006);
        let folded = Curve::FoldedNormal { mean: 0.0, std: 1.0 }.values(10_000, 7);
        let mean = folded.iter().sum::<f64>() / 1e4;
        assert!(folded.iter().all(|v| *v >= 0.0) && (mean - 0.797_885).abs() < 0.03, "{mean}");
    }
}
