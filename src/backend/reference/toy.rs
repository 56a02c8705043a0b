//! Trains toy models by plain f64 loops, one after the other.
//!
//! Initial weights and samples are the f32 values that the other backends see; everything after is f64, until the trained
//! weights are rounded once.

use crate::backend::Watch;
use crate::backend::ops::optimizer::{ReferenceMoments, reference_step};
use crate::backend::ops::toy_step::reference::ReferenceStep;
use crate::backend::simd::Isa;
use crate::data::{Batch, Sampler};
use crate::random::Stream;
use crate::toy::train::{Guard, choose_restart};
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
    let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Train);
    let (mut batch, mut guard, mut trace, mut end) = (Batch::default(), Guard::default(), vec![], None);
    for step in 0..steps {
        if watch.stop() {
            return None;
        }
        sampler.draw(step as u32, batch_size, &mut batch);
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
