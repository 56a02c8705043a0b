//! Kinds with kernels of their own against plain loops, difference quotients and an independent implementation.

use super::reference::{ReferenceStep, error_bound};
use super::*;
use crate::backend::ops::optimizer::{Moments, ReferenceMoments, Step, Update, reference_step};
use crate::backend::simd::{Lanes, run};
use crate::random::{Draws, Stream};
use crate::testing::{golden, json, npz};
use crate::toy::{Activation, Mlp};
use crate::training::Optimizer;

const SHAPES: [(usize, usize); 10] =
    [(1, 1), (2, 1), (3, 6), (5, 2), (10, 5), (15, 3), (16, 17), (17, 40), (33, 16), (100, 40)];
const BATCHES: [usize; 6] = [0, 1, 15, 16, 17, 300];

fn mlp(activation: Activation, d_embedding: usize) -> ToyKind {
    ToyKind::Mlp(Mlp { d_embedding, activation, bias: -0.5, bias_decay: 0.0, seed: 2 })
}

fn kinds() -> [ToyKind; 6] {
    [
        ToyKind::ReluHidden,
        ToyKind::AbsoluteValue,
        mlp(Activation::Relu, 3),
        mlp(Activation::Gelu, 7),
        mlp(Activation::Identity, 16),
        ToyKind::Quadratic,
    ]
}

fn batch(n_features: usize, samples: usize, mut x: impl FnMut(usize, usize) -> f32) -> Batch {
    let mut lanes = vec![Lanes::default(); samples.div_ceil(16) * n_features];
    for s in 0..samples {
        for i in 0..n_features {
            lanes[s / 16 * n_features + i].0[s % 16] = x(s, i);
        }
    }
    Batch { n_features, samples, lanes }
}

struct Case {
    shape: Shape,
    parameters: Vec<f32>,
    slopes: Vec<f32>,
    inputs: Inputs,
}

/// Parameters of both signs, x of both signs where a third fires.
fn case(kind: ToyKind, (n_features, d_hidden): (usize, usize), samples: usize) -> Case {
    let shape = Shape { kind, n_features, d_hidden };
    let mut draws = Draws::new(11, Stream::ToyInit, (n_features * 1000 + d_hidden) as u64);
    let spread = (2.0 / (n_features + d_hidden) as f64).sqrt();
    let parameters = (0..shape.n_parameters()).map(|_| (spread * draws.normal()) as f32).collect();
    let scale = if kind == ToyKind::Quadratic { 1.0 } else { 2.0 / (samples.max(1) * n_features) as f32 };
    let mut slopes: Vec<f32> = (0..n_features).map(|i| 0.9f32.powi(i as i32 % 40) * scale).collect();
    slopes.resize(shape.n_slopes(), 2.0 / samples.max(1) as f32);
    let x =
        batch(n_features, samples, |_, _| if draws.below(3) == 0 { (2.0 * draws.uniform() - 1.0) as f32 } else { 0.0 });
    Case { shape, parameters, slopes, inputs: Inputs::of_batch(x) }
}

fn found(isa: Isa, case: &Case, with_loss: bool) -> (Vec<f32>, Option<f64>) {
    let Case { shape, parameters, slopes, inputs } = case;
    let mut to = vec![f32::NAN; shape.n_parameters()];
    let step = ToyStep { shape: *shape, parameters, slopes, inputs, form: Form::Dense, with_loss };
    let loss = gradient(isa, step, &mut Scratch::new(*shape), &mut to);
    (to, loss)
}

fn wide(v: &[f32]) -> Vec<f64> {
    v.iter().map(|&v| v as f64).collect()
}

fn reference<'a>(case: &'a Case, parameters: &'a [f64], slopes: &'a [f64]) -> ReferenceStep<'a> {
    ReferenceStep { shape: case.shape, parameters, slopes, batch: &case.inputs.dense }
}

#[test]
fn kernels_stay_within_the_rounding_bound_of_plain_loops() {
    for kind in kinds() {
        for shape in SHAPES {
            for samples in BATCHES {
                let case = case(kind, shape, samples);
                let (parameters, slopes) = (wide(&case.parameters), wide(&case.slopes));
                let step = reference(&case, &parameters, &slopes);
                let (expected, expected_loss) = step.gradient();
                let (bound, loss_bound) = error_bound(&step, Form::Dense);
                let (gradient, loss) = found(Isa::best(), &case, true);
                assert_eq!(expected.len(), gradient.len());
                for (i, g) in gradient.iter().enumerate() {
                    let off = (*g as f64 - expected[i]).abs();
                    assert!(off <= bound[i], "{kind:?} {shape:?} {samples} {i}: {off} > {}", bound[i]);
                }
                let off = (loss.unwrap() - expected_loss).abs();
                assert!(off <= loss_bound, "{kind:?} {shape:?} {samples}: loss {off} > {loss_bound}");
            }
        }
    }
}

/// A bound that allowed anything would test nothing: it is small beside the gradients themselves wherever no ReLU is open.
#[test]
fn rounding_bounds_are_small_beside_the_gradients() {
    for kind in [mlp(Activation::Gelu, 7), mlp(Activation::Identity, 7), ToyKind::Quadratic] {
        let case = case(kind, (17, 40), 300);
        let (parameters, slopes) = (wide(&case.parameters), wide(&case.slopes));
        let step = reference(&case, &parameters, &slopes);
        let largest = step.gradient().0.iter().fold(0.0, |m: f64, g| m.max(g.abs()));
        let bound = error_bound(&step, Form::Dense).0.into_iter().fold(0.0, f64::max);
        assert!(bound < 2e-3 * largest, "{kind:?}: {bound} beside {largest}");
    }
}

#[test]
fn instruction_sets_give_the_same_bits_with_the_loss_and_without() {
    for kind in kinds() {
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

/// The difference quotient of a piecewise polynomial of size about 1, h = 1e-5, is off by h² times a third derivative of
/// size 10 at most (W enters to the fourth power) and by 2e-16 / h of rounding: 2e-9 covers both. A kink of a ReLU
/// within h of a sample would fail here, and with these seeds none is.
#[test]
fn reference_gradients_are_central_differences() {
    for kind in kinds() {
        for shape in [(1, 1), (2, 1), (5, 2), (7, 4)] {
            let case = case(kind, shape, 20);
            let (parameters, slopes) = (wide(&case.parameters), wide(&case.slopes));
            let expected = reference(&case, &parameters, &slopes).gradient().0;
            for i in 0..parameters.len() {
                let moved = |by: f64| {
                    let mut p = parameters.clone();
                    p[i] += by;
                    reference(&case, &p, &slopes).gradient().1
                };
                let quotient = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                let off = (quotient - expected[i]).abs();
                assert!(off < 2e-9, "{kind:?} {shape:?} {i}: {quotient} {}", expected[i]);
            }
        }
    }
}

/// b alone is an error of a silent sample, of a quadratic model too: the padding of the last tile must not count as one.
#[test]
fn padding_counts_nothing_and_silent_samples_count_their_bias() {
    for isa in Isa::available() {
        let mut case = case(ToyKind::Quadratic, (5, 2), 3);
        case.inputs = Inputs::of_batch(batch(5, 3, |_, _| 0.0));
        case.parameters[10] = 0.25;
        let (gradient, loss) = found(isa, &case, true);
        // Three samples of c r = 2/3 · 1/4, and of c r² / 2.
        assert!((gradient[10] - 0.5).abs() < 1e-6 && gradient[..10].iter().all(|g| *g == 0.0), "{gradient:?}");
        assert!((loss.unwrap() - 0.0625).abs() < 1e-7);
    }
}

/// An objective of the independent implementation, its arrays turned to `[n_features, d_hidden]`.
struct Golden {
    case: Case,
    arrays: std::collections::BTreeMap<String, ndarray::ArrayD<f64>>,
    values: serde_json::Value,
    slopes: Vec<f64>,
}

impl Golden {
    fn new(kind: ToyKind) -> Golden {
        let name = if kind == ToyKind::ReluHidden { "toy_relu_hidden" } else { "toy_absolute_value" };
        let arrays = npz(golden(&format!("objective_{name}.npz")));
        let values = json(golden(&format!("objective_{name}.json")));
        let (x, importance) = (&arrays["x"], &arrays["importance"]);
        let (samples, n_features) = (x.shape()[0], x.shape()[1]);
        let scale = 2.0 / (samples * n_features) as f64;
        let slopes: Vec<f64> = importance.iter().map(|i| i * scale).collect();
        let inputs = Inputs::of_batch(batch(n_features, samples, |s, i| x[[s, i]] as f32));
        let first = if kind == ToyKind::ReluHidden { "param.W" } else { "param.W1" };
        let shape = Shape { kind, n_features, d_hidden: arrays[first].shape()[0] };
        let case = Case { shape, parameters: vec![], slopes: slopes.iter().map(|c| *c as f32).collect(), inputs };
        let mut new = Golden { case, arrays, values, slopes };
        new.case.parameters = new.flat("param").iter().map(|&p| p as f32).collect();
        new
    }

    /// Arrays of a group as flat parameters: W turned, or W1 turned and W2 as it is, and b.
    fn flat(&self, group: &str) -> Vec<f64> {
        let get = |name: &str| &self.arrays[&format!("{group}.{name}")];
        let b = get("b").iter().copied();
        if self.case.shape.kind == ToyKind::ReluHidden {
            return get("W").t().iter().copied().chain(b).collect();
        }
        get("W1").t().iter().chain(get("W2").iter()).copied().chain(b).collect()
    }

    fn loss(&self, group: Option<&str>) -> f64 {
        group.map_or(&self.values["loss"], |g| &self.values[g]["loss"]).as_f64().unwrap()
    }
}

const GOLDEN: [ToyKind; 2] = [ToyKind::ReluHidden, ToyKind::AbsoluteValue];
const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

fn largest(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// f64 throughout, as the fixtures. Their gradients are smaller than 1, so that the group that clips them at 1 has the
/// same steps.
#[test]
fn reference_reproduces_the_golden_loss_gradients_and_ten_adam_steps() {
    for kind in GOLDEN {
        let golden = Golden::new(kind);
        let at = |parameters: &[f64]| reference(&golden.case, parameters, &golden.slopes).gradient();
        let (gradient, loss) = at(&golden.flat("param"));
        assert!((loss / golden.loss(None) - 1.0).abs() < 1e-12, "{kind:?}: {loss}");
        let expected = golden.flat("grad");
        for (g, e) in gradient.iter().zip(&expected) {
            assert!((g - e).abs() < 1e-12 * largest(&expected), "{kind:?}: {g} {e}");
        }
        let (mut parameters, mut moments) = (golden.flat("param"), ReferenceMoments::new(gradient.len()));
        for step in 0..10 {
            let gradient = at(&parameters).0;
            reference_step(ADAM, 1e-3, 0.0, step, &mut parameters, &gradient, &mut moments);
        }
        for group in ["step10", "step10_clip1"] {
            for (p, e) in parameters.iter().zip(golden.flat(group)) {
                assert!((p - e).abs() < 1e-11, "{kind:?} {group}: {p} {e}");
            }
            assert!((at(&parameters).1 / golden.loss(Some(group)) - 1.0).abs() < 1e-11, "{kind:?} {group}");
        }
    }
}

/// Bounds of the fixtures for f32: loss 2e-6 relative, gradients 1e-5 of the largest entry, weights after ten steps, each
/// rounded ten times at size 3 and moved by steps off by a few 1e-7 of 1e-3, 5e-6.
#[test]
fn kernels_reproduce_the_golden_loss_gradients_and_ten_adam_steps() {
    for isa in Isa::available() {
        for kind in GOLDEN {
            let mut golden = Golden::new(kind);
            let (gradient, loss) = found(isa, &golden.case, true);
            assert!((loss.unwrap() / golden.loss(None) - 1.0).abs() < 2e-6, "{kind:?}: {loss:?}");
            let expected = golden.flat("grad");
            for (g, e) in gradient.iter().zip(&expected) {
                assert!((*g as f64 - e).abs() < 1e-5 * largest(&expected), "{kind:?}: {g} {e}");
            }
            let mut moments = Moments::new(ADAM, gradient.len());
            for step in 0..10 {
                let gradient = found(isa, &golden.case, false).0;
                let (step, parameters) = (Step::new(ADAM, 1e-3, 0.0, step), &mut golden.case.parameters);
                let moments = &mut moments;
                run(isa, Update { step: &step, scale: 1.0, parameters, gradient: &gradient, moments });
            }
            for (p, e) in golden.case.parameters.iter().zip(golden.flat("step10")) {
                assert!((*p as f64 - e).abs() < 5e-6, "{kind:?}: {p} {e}");
            }
            let loss = found(isa, &golden.case, true).1.unwrap();
            assert!((loss / golden.loss(Some("step10")) - 1.0).abs() < 1e-5, "{kind:?}: {loss}");
        }
    }
}
