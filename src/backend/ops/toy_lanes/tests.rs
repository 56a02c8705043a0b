use super::*;
use crate::backend::ops::toy_step::{Scratch as StepScratch, ToyStep, gradient};
use crate::random::{Draws, Stream};
use crate::training::Optimizer;

const KINDS: [ToyKind; 2] = [ToyKind::Linear, ToyKind::ReluOutput];
const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
const MOMENTUM: Optimizer = Optimizer::Sgd { momentum: 0.9 };

/// Fourteen models in sixteen lanes, and a batch in which a third of the features fires.
struct Case {
    shape: Shape,
    slopes: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
    inputs: Inputs,
}

fn case(kind: ToyKind, (n_features, d_hidden): (usize, usize), samples: usize) -> Case {
    let shape = Shape { kind, n_features, d_hidden };
    let mut draws = Draws::new(5, Stream::ToyInit, (1000 * samples + 10 * n_features + d_hidden) as u64);
    let mut batch = Batch { n_features, samples, lanes: vec![Lanes::default(); samples.div_ceil(16) * n_features] };
    for (s, i) in (0..samples).flat_map(|s| (0..n_features).map(move |i| (s, i))) {
        let x = if draws.below(3) == 0 { draws.uniform() as f32 } else { 0.0 };
        batch.lanes[s / 16 * n_features + i].0[s % 16] = x;
    }
    let mut normals = |len: usize| (0..len).map(|_| 0.7 * draws.normal() as f32).collect::<Vec<_>>();
    let parameters = (0..14).map(|_| normals(shape.n_parameters())).collect();
    let slope = |model: usize, i: usize| (1.0 + model as f32) * 0.9f32.powi(i as i32) / (samples * n_features) as f32;
    let slopes = (0..14).map(|model| (0..n_features).map(|i| slope(model, i)).collect()).collect();
    Case { shape, slopes, parameters, inputs: Inputs::of_batch(batch) }
}

/// One array for all models, the model fastest; lane `first + l` is that of model l.
fn interleaved(models: &[Vec<f32>], first: usize) -> Vec<f32> {
    let mut all = vec![0.0; 16 * models[0].len()];
    for (lane, model) in models.iter().enumerate() {
        model.iter().enumerate().for_each(|(at, v)| all[16 * at + first + lane] = *v);
    }
    all
}

fn bits(v: impl IntoIterator<Item = f32>) -> Vec<u32> {
    v.into_iter().map(|v| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() }).collect()
}

/// `steps` steps of every model in lanes from `first` on; `[model, n_parameters]`, and the losses before the last step.
fn in_lanes(
    isa: Isa,
    case: &Case,
    form: Form,
    optimizer: Optimizer,
    steps: usize,
    first: usize,
) -> (Vec<Vec<u32>>, Vec<f64>) {
    let (slopes, mut parameters) = (interleaved(&case.slopes, first), interleaved(&case.parameters, first));
    let (mut moments, mut scratch) = (Moments::new(optimizer, parameters.len()), Scratch::default());
    let models = LaneModels { shape: case.shape, slopes: &slopes, inputs: &case.inputs, form };
    let mut before = [0.0; 16];
    for at in 0..steps {
        before = losses(isa, models, &parameters);
        let numbers = Step::new(optimizer, 1e-2, 0.01, at);
        let (moments, parameters) = (&mut moments, &mut parameters[..]);
        step(isa, LaneStep { models, parameters, moments, numbers: &numbers }, &mut scratch);
    }
    let lane = |lane: usize| bits(parameters.iter().skip(lane).step_by(16).copied());
    let empty = (0..16).filter(|lane| !(first..first + case.slopes.len()).contains(lane));
    assert!(empty.clone().all(|l| lane(l).iter().all(|bits| *bits == 0)), "an empty lane moved");
    ((first..first + case.slopes.len()).map(lane).collect(), before[first..][..case.slopes.len()].to_vec())
}

/// The same with lane = sample, a model at a time.
fn alone(isa: Isa, case: &Case, form: Form, optimizer: Optimizer, steps: usize) -> (Vec<Vec<u32>>, Vec<f64>) {
    let train = |(slopes, parameters): (&Vec<f32>, &Vec<f32>)| {
        let (mut parameters, mut moments) = (parameters.clone(), Moments::new(optimizer, parameters.len()));
        let (mut to, mut scratch, mut loss) = (vec![0.0; parameters.len()], StepScratch::new(case.shape), 0.0);
        for at in 0..steps {
            let Case { shape, inputs, .. } = case;
            let work = ToyStep { shape: *shape, parameters: &parameters, slopes, inputs, form, with_loss: true };
            loss = gradient(isa, work, &mut scratch, &mut to).expect("the loss was asked for");
            let step = &Step::new(optimizer, 1e-2, 0.01, at);
            let (parameters, moments) = (&mut parameters[..], &mut moments);
            run(isa, crate::backend::ops::optimizer::Update { step, scale: 1.0, parameters, gradient: &to, moments });
        }
        (bits(parameters), loss)
    };
    case.slopes.iter().zip(&case.parameters).map(train).unzip()
}

#[test]
fn a_model_has_the_same_bits_in_any_lane_and_alone() {
    for isa in Isa::available() {
        for kind in KINDS {
            for shape in SHAPES {
                for samples in [1, 15, 16, 17, 100, 160] {
                    for form in [Form::Dense, Form::Packed] {
                        for optimizer in [ADAMW, MOMENTUM] {
                            let case = case(kind, shape, samples);
                            let expected = alone(Isa::Portable, &case, form, optimizer, 3);
                            for first in [0, 2] {
                                let found = in_lanes(isa, &case, form, optimizer, 3, first);
                                assert_eq!(found, expected, "{isa:?} {kind:?} {shape:?} {samples} {form:?} {first}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_in_which_nothing_fires_moves_biases_alone_as_it_does_one_by_one() {
    for isa in Isa::available() {
        let mut case = case(ToyKind::ReluOutput, (3, 2), 40);
        case.inputs = Inputs::of_batch(Batch { n_features: 3, samples: 40, lanes: vec![Lanes::default(); 9] });
        let packed = in_lanes(isa, &case, Form::Packed, MOMENTUM, 2, 1);
        assert_eq!(packed, alone(isa, &case, Form::Packed, MOMENTUM, 2));
        let dense = in_lanes(isa, &case, Form::Dense, MOMENTUM, 2, 1);
        assert_eq!(dense, alone(isa, &case, Form::Dense, MOMENTUM, 2));
        assert_ne!(packed.0, case.parameters.iter().map(|p| bits(p.iter().copied())).collect::<Vec<_>>());
    }
}

/// Parameters that are not finite spread through padding too; the lanes beside them see nothing of it.
#[test]
fn a_model_that_is_not_finite_is_so_in_the_same_places_and_leaves_the_others_alone() {
    for isa in Isa::available() {
        for samples in [5, 16, 37] {
            for (at, bad) in [(0, f32::NAN), (4, f32::INFINITY), (7, f32::NEG_INFINITY), (7, f32::INFINITY)] {
                let sound = case(ToyKind::ReluOutput, (3, 2), samples);
                let mut case = case(ToyKind::ReluOutput, (3, 2), samples);
                case.parameters[6][at] = bad;
                for form in [Form::Dense, Form::Packed] {
                    let (found, _) = in_lanes(isa, &case, form, ADAMW, 2, 0);
                    let (expected, _) = alone(isa, &case, form, ADAMW, 2);
                    assert_eq!(found, expected, "{isa:?} {samples} {at} {bad} {form:?}");
                    let (others, _) = in_lanes(isa, &sound, form, ADAMW, 2, 0);
                    assert!((0..14).filter(|l| *l != 6).all(|l| found[l] == others[l]));
                    assert_ne!(found[6], others[6]);
                }
            }
        }
    }
}

#[test]
fn shapes_without_a_kernel_say_so() {
    let shape = |kind, n_features, d_hidden| Shape { kind, n_features, d_hidden };
    for kind in KINDS {
        assert!(SHAPES.iter().all(|&(n, m)| has_kernel(shape(kind, n, m))));
        assert!(!has_kernel(shape(kind, 20, 5)) && !has_kernel(shape(kind, 2, 2)));
    }
}
