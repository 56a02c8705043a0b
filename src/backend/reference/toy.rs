//! Trains toy models by plain f64 loops, one after the other.
//!
//! Initial weights and samples are the f32 values that the other backends see; everything after is f64, until the trained
//! weights are rounded once.

use crate::backend::Watch;
use crate::backend::ops::optimizer::{ReferenceMoments, reference_step};
use crate::backend::ops::toy_step::reference::ReferenceStep;
use crate::backend::simd::Isa;
use crate::data::Batch;
use crate::toy::train::{Guard, TrainData, choose_restart};
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, ToyTrain, TrainingEnd};

/// As [`crate::backend::cpu::toy::train`].
pub fn train(jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    let trained = |job: &ToyJob| {
        let restarts: Option<Vec<_>> = (0..job.restarts).map(|restart| train_one(job, restart, watch)).collect();
        Some(choose_restart(Isa::Portable, job, restarts?))
    };
    jobs.iter().map(trained).collect()
}

fn train_one(job: &ToyJob, restart: usize, watch: &dyn Watch) -> Option<ToyOutcome> {
    let ToyTrain { steps, batch_size, optimizer, lr, schedule, weight_decay, .. } = job.train;
    let shape = job.shape();
    let start = job.initial_model(restart);
    let mut parameters: Vec<f64> = start.parameters().into_iter().map(f64::from).collect();
    let mut moments = ReferenceMoments::new(parameters.len());
    let factor = job.loss_factor();
    let slopes = job.wide_slopes();
    let mut data = TrainData::new(job);
    let (mut batch, mut guard, mut trace, mut end) = (Batch::default(), Guard::default(), vec![], None);
    for step in 0..steps {
        if watch.stop() {
            return None;
        }
        data.draw(step, batch_size, &mut batch);
        let (gradient, loss) =
            ReferenceStep { shape, parameters: &parameters, slopes: &slopes, batch: &batch }.gradient();
        if Guard::looks(step, steps) {
            end = guard.look(step, Some(loss / factor), shape, &rounded(&parameters));
        }
        if job.logs(step) && loss.is_finite() {
            let parameters = job.snapshots.then(|| rounded(&parameters));
            trace.push(ToyTrace { step, loss: loss / factor, parameters });
        }
        watch.advance(if end.is_some() { steps - step } else { 1 } as u64);
        if end.is_some() {
            break;
        }
        let lr = lr * schedule.factor(step, steps);
        reference_step(optimizer, lr, weight_decay, step, &mut parameters, &gradient, &mut moments);
        if let Some((biases, factor)) = job.bias_decay(step) {
            parameters[biases].iter_mut().for_each(|c| *c *= factor);
        }
    }
    let parameters = rounded(&parameters);
    let end = end.or_else(|| guard.look(steps, None, shape, &parameters)).unwrap_or(TrainingEnd::Finished);
    Some(ToyOutcome { model: start.with_parameters(&parameters), restart, end, trace })
}

fn rounded(parameters: &[f64]) -> Vec<f32> {
    parameters.iter().map(|&v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::cpu;
    use crate::data::{Magnitude, MagnitudeSharing, World};
    use crate::toy::{Activation, LossScale, Mlp, ToyInit, ToyKind};
    use crate::training::{Optimizer, Schedule};

    struct Silent;

    impl Watch for Silent {
        fn advance(&self, _: u64) {}
    }

    /// Parameters of size at most 2 are rounded twice a step: 60 · 2 · 2 · 6e-8 = 1.4e-5 if every error had one sign.
    /// Gradients agree to about 1e-6 of their largest entry, 0.1: with SGD at 0.3 that adds 60 · 0.3 · 1e-7 = 2e-6; with
    /// Adam and an epsilon of 1e-2 a step of 1e-2 is off by 1e-5 of itself, 60 times 1e-7 in all.
    #[test]
    fn sixty_steps_of_every_kind_with_neurons_agree_with_plain_loops() {
        let world = World {
            n_features: 6,
            firing_probability: vec![0.4; 6],
            magnitude: Magnitude::Symmetric(1.0),
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let mlp = |activation| ToyKind::Mlp(Mlp { d_embedding: 4, activation, bias: -0.2, bias_decay: 0.5, seed: 5 });
        let mut jobs = vec![];
        for kind in [
            ToyKind::ReluHidden,
            ToyKind::AbsoluteValue,
            mlp(Activation::Relu),
            mlp(Activation::Gelu),
            ToyKind::Quadratic,
        ] {
            for (optimizer, lr) in [
                (Optimizer::Sgd { momentum: 0.0 }, 0.3),
                (Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 }, 1e-2),
            ] {
                jobs.push(ToyJob {
                    world: Arc::new(world.clone()),
                    seed: 5,
                    kind,
                    d_hidden: 5,
                    importance: (0..6).map(|i| 0.9f32.powi(i)).collect(),
                    init: ToyInit::Normal(0.5),
                    restarts: 2,
                    train: ToyTrain {
                        steps: 60,
                        batch_size: 50,
                        optimizer,
                        lr,
                        schedule: Schedule::Linear,
                        weight_decay: 0.0,
                        loss_scale: LossScale::Mean,
                    },
                    trace_every: 20,
                    snapshots: false,
                });
            }
        }
        let found = cpu::toy::train(&jobs, &Silent);
        for ((job, found), expected) in jobs.iter().zip(found).zip(train(&jobs, &Silent)) {
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert_eq!((found.restart, &found.end), (expected.restart, &TrainingEnd::Finished), "{:?}", job.kind);
            let start = job.initial_model(found.restart).parameters();
            let (found_weights, weights) = (found.model.parameters(), expected.model.parameters());
            for ((f, e), s) in found_weights.iter().zip(&weights).zip(&start) {
                assert!((f - e).abs() < 2e-5, "{:?} {:?}: {f} for {e} from {s}", job.kind, job.train.optimizer);
            }
            assert!(weights.iter().zip(&start).any(|(e, s)| (e - s).abs() > 0.02), "{:?} has hardly moved", job.kind);
            for (f, e) in found.trace.iter().zip(&expected.trace) {
                assert!((f.loss / e.loss - 1.0).abs() < 1e-4 && f.step == e.step, "{:?}: {f:?} {e:?}", job.kind);
            }
            assert!(found.trace.last().unwrap().loss < found.trace[0].loss, "{:?}", job.kind);
        }
    }
}
