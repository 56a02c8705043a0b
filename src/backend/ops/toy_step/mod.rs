//! Loss and gradient of a toy model on one batch.
//!
//! ```text
//! for each sample:   h = Σ_i x_i W_i          z = Wᵀ h + b        r = out(z) - x
//!                    g = c r out'(z)          dh = Σ_i g_i W_i
//!                    dW_i += g_i h + x_i dh   db += g             loss += c r² / 2
//! ```
//!
//! with out = ReLU or the identity (the kinds with a hidden layer of their own: `layers`; the one with a single output:
//! `quadratic`) and c_i = 2 I_i / (samples n_features), times the loss scale: 5 n m fused
//! multiply-adds a sample. x is a [`Batch`]; parameters and gradients are flat, W `[n_features, d_hidden]` and then b
//! `[n_features]`, so that one optimiser step moves both.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name the entries of a rectangle of sums; an iterator over one of its sides hides which"
)]

mod layers;
mod quadratic;
pub mod reference;
pub mod reference_layers;
mod simd;
mod small;

pub use simd::{Scratch, gradient};

use crate::data::Batch;
use crate::toy::ToyKind;

/// What the kernels have to know of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The function that makes x' of h.
    pub kind: ToyKind,
    /// At least 1.
    pub n_features: usize,
    /// At least 1.
    pub d_hidden: usize,
}

impl Shape {
    /// The tensors that the flat parameters are made of, in order: name and length, 0 where the kind has none.
    pub fn parts(self) -> [(&'static str, usize); 4] {
        let Shape { kind, n_features: n, d_hidden: m } = self;
        let [w, c, v, b] = match kind {
            ToyKind::Linear | ToyKind::ReluOutput | ToyKind::ReluHidden => [n * m, 0, 0, n],
            ToyKind::AbsoluteValue => [n * m, 0, n * m, n],
            ToyKind::Mlp(mlp) => [mlp.d_embedding * m, m, n * m, 0],
            ToyKind::Quadratic => [n * m, 0, 0, 1],
        };
        [("w", w), ("c", c), ("v", v), ("b", b)]
    }

    /// Length of the slopes of a step.
    pub fn n_slopes(self) -> usize {
        self.n_features + usize::from(self.kind == ToyKind::Quadratic)
    }

    /// Length of the flat parameters.
    pub fn n_parameters(self) -> usize {
        self.parts().iter().map(|part| part.1).sum()
    }
}

/// One gradient, to be computed by [`gradient`].
pub struct ToyStep<'a> {
    /// The model's shape.
    pub shape: Shape,
    /// The parts of the shape in order, `[n_parameters]`.
    pub parameters: &'a [f32],
    /// c_i, `[n_slopes]`: [`ToyJob::slopes`](crate::toy::ToyJob::slopes).
    pub slopes: &'a [f32],
    /// x; lanes past its last sample count nothing.
    pub batch: &'a Batch,
    /// Whether the loss is wanted: most steps need none, and the gradient has the same bits without.
    pub with_loss: bool,
}

impl ToyStep<'_> {
    /// The kernels leave out bounds checks on the strength of these.
    fn check(&self, gradient: &[f32]) {
        let Shape { n_features, d_hidden, .. } = self.shape;
        assert!(n_features > 0 && d_hidden > 0 && self.batch.samples > 0);
        assert_eq!(self.batch.n_features, n_features);
        assert_eq!(self.batch.lanes.len(), self.batch.samples.div_ceil(16) * n_features);
        assert_eq!(self.parameters.len(), self.shape.n_parameters());
        assert_eq!(self.slopes.len(), self.shape.n_slopes());
        assert_eq!(gradient.len(), self.shape.n_parameters());
    }
}

#[cfg(test)]
mod tests {
    use super::reference::{ReferenceStep, error_bound};
    use super::*;
    use crate::backend::ops::optimizer::{Moments, ReferenceMoments, Step, Update, reference_step};
    use crate::backend::simd::{Isa, Lanes, run};
    use crate::random::{Draws, Stream};
    use crate::testing::{golden, json, npz};
    use crate::training::Optimizer;

    const SHAPES: [(usize, usize); 11] =
        [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (5, 2), (15, 3), (16, 4), (17, 3), (33, 17), (40, 30)];
    const BATCHES: [usize; 5] = [1, 15, 16, 17, 1000];
    const KINDS: [ToyKind; 2] = [ToyKind::Linear, ToyKind::ReluOutput];

    /// Rows of x as tiles, the lanes of the last tile filled up with zeros.
    fn batch(n_features: usize, samples: usize, mut x: impl FnMut(usize, usize) -> f32) -> Batch {
        let mut lanes = vec![Lanes::default(); samples.div_ceil(16) * n_features];
        for s in 0..samples {
            for i in 0..n_features {
                lanes[s / 16 * n_features + i].0[s % 16] = x(s, i);
            }
        }
        Batch { n_features, samples, lanes }
    }

    /// A model with biases of both signs and a batch in which a third of the features fires.
    struct Case {
        shape: Shape,
        parameters: Vec<f32>,
        slopes: Vec<f32>,
        batch: Batch,
    }

    fn case(kind: ToyKind, (n_features, d_hidden): (usize, usize), samples: usize) -> Case {
        let shape = Shape { kind, n_features, d_hidden };
        let mut draws = Draws::new(11, Stream::ToyInit, (n_features * 1000 + d_hidden) as u64);
        let spread = (2.0 / (n_features + d_hidden) as f64).sqrt();
        let parameters = (0..shape.n_parameters()).map(|_| (spread * draws.normal()) as f32).collect();
        let slopes = (0..n_features).map(|i| 0.9f32.powi(i as i32) * 2.0 / (samples * n_features) as f32).collect();
        let batch = batch(n_features, samples, |_, _| if draws.below(3) == 0 { draws.uniform() as f32 } else { 0.0 });
        Case { shape, parameters, slopes, batch }
    }

    fn found(isa: Isa, case: &Case, with_loss: bool) -> (Vec<f32>, Option<f64>) {
        let Case { shape, parameters, slopes, batch } = case;
        let mut to = vec![f32::NAN; shape.n_parameters()];
        let step = ToyStep { shape: *shape, parameters, slopes, batch, with_loss };
        let loss = gradient(isa, step, &mut Scratch::new(*shape), &mut to);
        (to, loss)
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&v| v as f64).collect()
    }

    #[test]
    fn kernels_stay_within_the_rounding_bound_of_plain_loops() {
        for isa in Isa::available() {
            for kind in KINDS {
                for shape in SHAPES {
                    for samples in BATCHES {
                        let case = case(kind, shape, samples);
                        let (gradient, loss) = found(isa, &case, true);
                        let step = ReferenceStep {
                            shape: case.shape,
                            parameters: &wide(&case.parameters),
                            slopes: &wide(&case.slopes),
                            batch: &case.batch,
                        };
                        let (expected, expected_loss) = step.gradient();
                        let (bound, loss_bound) = error_bound(&step);
                        for (i, g) in gradient.iter().enumerate() {
                            let off = (*g as f64 - expected[i]).abs();
                            assert!(off <= bound[i], "{isa:?} {kind:?} {shape:?} {samples} {i}: {off} > {}", bound[i]);
                        }
                        let off = (loss.unwrap() - expected_loss).abs();
                        assert!(off <= loss_bound, "{isa:?} {kind:?} {shape:?} {samples}: loss {off} > {loss_bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn instruction_sets_give_the_same_bits_with_the_loss_and_without() {
        for kind in KINDS {
            for shape in SHAPES {
                for samples in BATCHES {
                    let case = case(kind, shape, samples);
                    let first = found(Isa::Portable, &case, true);
                    for isa in Isa::available() {
                        assert_eq!(found(isa, &case, true), first, "{isa:?} {kind:?} {shape:?} {samples}");
                        assert_eq!(found(isa, &case, false), (first.0.clone(), None), "{isa:?} {kind:?} {shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn register_kernels_give_the_bits_of_the_blocked_kernel() {
        for isa in Isa::available() {
            for kind in KINDS {
                for shape in small::SHAPES {
                    for samples in BATCHES {
                        let case = case(kind, shape, samples);
                        let mut blocked = vec![0.0; case.shape.n_parameters()];
                        let step = ToyStep {
                            shape: case.shape,
                            parameters: &case.parameters,
                            slopes: &case.slopes,
                            batch: &case.batch,
                            with_loss: true,
                        };
                        let mut scratch = Scratch::new(case.shape);
                        let loss = simd::blocked_gradient(isa, step, &mut scratch, &mut blocked);
                        assert_eq!(found(isa, &case, true), (blocked, loss), "{isa:?} {kind:?} {shape:?} {samples}");
                    }
                }
            }
        }
    }

    /// A sample of zeros says r = out(b): the padding of the last tile must not count as such a sample.
    #[test]
    fn padding_counts_nothing_and_silent_samples_count_their_bias() {
        for isa in Isa::available() {
            for shape in [(5, 2), (7, 3)] {
                let n = shape.0;
                let mut case = case(ToyKind::ReluOutput, shape, 3);
                case.batch.lanes.fill(Lanes::default());
                for (i, b) in case.parameters[n * shape.1..].iter_mut().enumerate() {
                    *b = if i % 2 == 0 { 0.5 } else { -0.5 };
                }
                let (gradient, loss) = found(isa, &case, true);
                let mut expected_loss = 0.0;
                for i in 0..n {
                    let expected = if i % 2 == 0 { 3.0 * 0.5 * case.slopes[i] } else { 0.0 };
                    let off = (gradient[n * shape.1 + i] - expected).abs();
                    assert!(off <= 4.0 * f32::EPSILON * expected, "{i}: {off}");
                    expected_loss += 0.5 * 0.5 * expected as f64;
                }
                assert!(gradient[..n * shape.1].iter().all(|g| *g == 0.0));
                assert!((loss.unwrap() / expected_loss - 1.0).abs() < 1e-6);
            }
        }
    }

    /// The difference quotient of a piecewise quadratic of size about 1, h = 1e-5, is off by h² times a third derivative
    /// of size 1 (W enters to the fourth power) and by 2e-16 / h of rounding: 1e-9 covers both. Steps across a
    /// kink of the ReLU are left out by the seed: the test would fail there, and it does not.
    #[test]
    fn reference_gradients_are_central_differences() {
        for kind in KINDS {
            for shape in [(1, 1), (2, 1), (5, 2), (7, 4)] {
                let case = case(kind, shape, 20);
                let (parameters, slopes) = (wide(&case.parameters), wide(&case.slopes));
                let at = |parameters: &[f64]| {
                    ReferenceStep { shape: case.shape, parameters, slopes: &slopes, batch: &case.batch }.gradient()
                };
                let expected = at(&parameters).0;
                for i in 0..parameters.len() {
                    let moved = |by: f64| {
                        let mut p = parameters.clone();
                        p[i] += by;
                        at(&p).1
                    };
                    let quotient = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!(
                        (quotient - expected[i]).abs() < 1e-9,
                        "{kind:?} {shape:?} {i}: {quotient} {}",
                        expected[i]
                    );
                }
            }
        }
    }

    /// An objective of the independent implementation, its arrays turned to `[n_features, d_hidden]`.
    struct Golden {
        case: Case,
        arrays: std::collections::BTreeMap<String, ndarray::ArrayD<f64>>,
        values: serde_json::Value,
    }

    impl Golden {
        fn new(kind: ToyKind, name: &str) -> Golden {
            let arrays = npz(golden(&format!("objective_{name}.npz")));
            let values = json(golden(&format!("objective_{name}.json")));
            let (x, importance) = (&arrays["x"], &arrays["importance"]);
            let (samples, n_features) = (x.shape()[0], x.shape()[1]);
            let shape = Shape { kind, n_features, d_hidden: arrays["param.W"].shape()[0] };
            let slopes = importance.iter().map(|i| (2.0 * i / (samples * n_features) as f64) as f32).collect();
            let batch = batch(n_features, samples, |s, i| x[[s, i]] as f32);
            let case = Case { shape, parameters: vec![], slopes, batch };
            let mut new = Golden { case, arrays, values };
            new.case.parameters = new.flat("param").iter().map(|&p| p as f32).collect();
            new
        }

        /// Arrays `group.W` and `group.b` as flat parameters.
        fn flat(&self, group: &str) -> Vec<f64> {
            let w = self.arrays[&format!("{group}.W")].t();
            w.iter().chain(&self.arrays[&format!("{group}.b")]).copied().collect()
        }

        fn loss(&self, group: Option<&str>) -> f64 {
            group.map_or(&self.values["loss"], |g| &self.values[g]["loss"]).as_f64().unwrap()
        }
    }

    const GOLDEN: [(ToyKind, &str); 2] = [(ToyKind::Linear, "toy_linear"), (ToyKind::ReluOutput, "toy_relu_output")];
    const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    fn largest(v: &[f64]) -> f64 {
        v.iter().fold(0.0, |m, v| m.max(v.abs()))
    }

    /// Factor of a gradient whose norm is clipped at 1, as the fixtures have it.
    fn clip(gradient: impl Iterator<Item = f64>) -> f64 {
        (1.0 / (gradient.map(|g| g * g).sum::<f64>().sqrt() + 1e-6)).min(1.0)
    }

    /// f64 throughout except the slopes: c = 2 I / 112 is here computed in f64 from the f32 importance, as in the fixture.
    #[test]
    fn reference_reproduces_the_golden_loss_gradients_and_ten_adam_steps() {
        for (kind, name) in GOLDEN {
            let golden = Golden::new(kind, name);
            let case = &golden.case;
            let scale = 2.0 / (case.batch.samples * case.shape.n_features) as f64;
            let slopes: Vec<f64> = golden.arrays["importance"].iter().map(|i| i * scale).collect();
            let at = |parameters: &[f64]| {
                ReferenceStep { shape: case.shape, parameters, slopes: &slopes, batch: &case.batch }.gradient()
            };
            let (gradient, loss) = at(&golden.flat("param"));
            assert!((loss / golden.loss(None) - 1.0).abs() < 1e-12, "{name}: {loss}");
            let expected = golden.flat("grad");
            for (g, e) in gradient.iter().zip(&expected) {
                assert!((g - e).abs() < 1e-12 * largest(&expected), "{name}: {g} {e}");
            }
            for (group, clipped) in [("step10", false), ("step10_clip1", true)] {
                let mut parameters = golden.flat("param");
                let mut moments = ReferenceMoments::new(parameters.len());
                for step in 0..10 {
                    let mut gradient = at(&parameters).0;
                    if clipped {
                        let factor = clip(gradient.iter().copied());
                        gradient.iter_mut().for_each(|g| *g *= factor);
                    }
                    reference_step(ADAM, 1e-3, 0.0, step, &mut parameters, &gradient, &mut moments);
                }
                for (p, e) in parameters.iter().zip(golden.flat(group)) {
                    assert!((p - e).abs() < 1e-11, "{name} {group}: {p} {e}");
                }
                assert!((at(&parameters).1 / golden.loss(Some(group)) - 1.0).abs() < 1e-11, "{name} {group}");
            }
        }
    }

    /// Bounds of the fixtures for f32: loss 2e-6 relative, gradients 1e-5 of the largest entry, weights after ten steps,
    /// each rounded ten times at size 3 and moved by steps off by a few 1e-7 of 1e-3, 5e-6.
    #[test]
    fn kernels_reproduce_the_golden_loss_gradients_and_ten_adam_steps() {
        for isa in Isa::available() {
            for (kind, name) in GOLDEN {
                let mut golden = Golden::new(kind, name);
                let (gradient, loss) = found(isa, &golden.case, true);
                assert!((loss.unwrap() / golden.loss(None) - 1.0).abs() < 2e-6, "{name}: {loss:?}");
                let expected = golden.flat("grad");
                for (g, e) in gradient.iter().zip(&expected) {
                    assert!((*g as f64 - e).abs() < 1e-5 * largest(&expected), "{name}: {g} {e}");
                }
                let start = golden.case.parameters.clone();
                for (group, clipped) in [("step10", false), ("step10_clip1", true)] {
                    golden.case.parameters.clone_from(&start);
                    let mut moments = Moments::new(ADAM, start.len());
                    for step in 0..10 {
                        let gradient = found(isa, &golden.case, false).0;
                        let scale = if clipped { clip(gradient.iter().map(|&g| g as f64)) as f32 } else { 1.0 };
                        let step = Step::new(ADAM, 1e-3, 0.0, step);
                        let parameters = &mut golden.case.parameters;
                        let moments = &mut moments;
                        run(isa, Update { step: &step, scale, parameters, gradient: &gradient, moments });
                    }
                    for (p, e) in golden.case.parameters.iter().zip(golden.flat(group)) {
                        assert!((*p as f64 - e).abs() < 5e-6, "{name} {group}: {p} {e}");
                    }
                    let loss = found(isa, &golden.case, true).1.unwrap();
                    assert!((loss / golden.loss(Some(group)) - 1.0).abs() < 1e-5, "{name} {group}: {loss}");
                }
            }
        }
    }
}
