//! Trains toy models on finite sets, a thread each; where there are fewer models than threads, their samples are shared
//! out as well.
//!
//! A set is drawn once for all restarts of a job and kept as what is not zero. A full batch is laid out once, others
//! anew at every step, which costs what fires. A job's bits depend on the job alone: see
//! [`finite_step`](crate::backend::ops::finite_step) for the order of sums.

use rayon::prelude::*;

use super::toy::{Progress, step_numbers};
use crate::backend::Watch;
use crate::backend::ops::finite_step::{self, FiniteStep, Layout, Scratch};
use crate::backend::ops::optimizer::{Moments, Update};
use crate::backend::simd::{Isa, run};
use crate::data::{Dataset, Order};
use crate::toy::train::Guard;
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, TrainingEnd};

/// Whether a job is trained here: on a finite set, with kernels for its kind.
pub fn trains(job: &ToyJob) -> bool {
    job.world.dataset.is_some() && finite_step::covers(job.kind)
}

/// Every restart of those jobs that are [trained here](trains), as (job, restart, outcome): none where `watch` said stop
/// before it was finished.
pub fn train(isa: Isa, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<(usize, usize, Option<ToyOutcome>)> {
    let indices: Vec<usize> = (0..jobs.len()).filter(|&j| trains(&jobs[j])).collect();
    let sets: Vec<Dataset> =
        indices.par_iter().map(|&j| Dataset::draw(&jobs[j].world, jobs[j].seed).expect("a finite set")).collect();
    let mut runs: Vec<(usize, usize, usize)> =
        (indices.iter().enumerate()).flat_map(|(at, &j)| (0..jobs[j].restarts).map(move |r| (at, j, r))).collect();
    let cost =
        |job: &ToyJob| job.train.steps * (job.train.batch_size + 16) * job.world.n_features * (3 * job.d_hidden + 6);
    // Longest first, so that no thread is left with a long one at the end.
    runs.sort_by_key(|&(_, job, _)| std::cmp::Reverse(cost(&jobs[job])));
    let parallel = runs.len() < rayon::current_num_threads();
    let one = |(at, job, restart): (usize, usize, usize)| {
        (job, restart, train_one(isa, &jobs[job], restart, &sets[at], parallel, watch))
    };
    runs.into_iter().par_bridge().map(one).collect()
}

fn train_one(
    isa: Isa,
    job: &ToyJob,
    restart: usize,
    set: &Dataset,
    parallel: bool,
    watch: &dyn Watch,
) -> Option<ToyOutcome> {
    let (shape, slopes, train) = (job.shape(), job.slopes(), &job.train);
    let start = job.initial_model(restart);
    let mut parameters = start.parameters();
    let mut gradient = vec![0.0; parameters.len()];
    let mut moments = Moments::new(train.optimizer, parameters.len());
    let (mut guard, mut trace, mut end, mut progress) = (Guard::default(), vec![], None, Progress::new(watch));
    let (mut layout, mut order, mut rows) = (Layout::default(), Order::new(set.samples(), job.seed), vec![]);
    let (mut scratch, unscale) = (Scratch::default(), 1.0 / job.loss_factor());
    for step in 0..train.steps {
        if watch.stop() {
            progress.report();
            return None;
        }
        // A full batch stays as it is.
        if step == 0 || train.batch_size < set.samples() {
            order.batch(step, train.batch_size, &mut rows);
            layout.fill(set, &rows);
        }
        let (looked_at, logged) = (Guard::looks(step, train.steps), job.logs(step));
        let work = FiniteStep {
            shape,
            parameters: &parameters,
            slopes: &slopes,
            layout: &layout,
            with_loss: looked_at || logged,
            parallel,
        };
        let loss = finite_step::gradient(isa, &work, &mut scratch, &mut gradient).map(|loss| loss * unscale);
        if looked_at {
            end = guard.look(step, loss, shape, &parameters);
        }
        if let (true, Some(loss)) = (logged, loss.filter(|loss| loss.is_finite())) {
            trace.push(ToyTrace { step, loss, parameters: job.snapshots.then(|| parameters.clone()) });
        }
        let numbers = step_numbers(train, step);
        let update = Update {
            step: &numbers,
            scale: 1.0,
            parameters: &mut parameters,
            gradient: &gradient,
            moments: &mut moments,
        };
        run(isa, update);
        progress.add(if end.is_some() { train.steps - step } else { 1 });
        if end.is_some() {
            break;
        }
    }
    progress.report();
    let end = end.or_else(|| guard.look(train.steps, None, shape, &parameters)).unwrap_or(TrainingEnd::Finished);
    Some(ToyOutcome { model: start.with_parameters(&parameters), restart, end, trace })
}
