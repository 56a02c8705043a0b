//! Trains many toy models, a thread each, those that see the same data side by side.
//!
//! Jobs of one (world, seed, batch size) see the same batches, so a thread takes several of their models (restarts
//! included) through the steps together and draws each batch once. How models are cut into such items depends on the
//! number of threads; their bits do not, because a model's step reads nothing but the batch and its own state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::backend::Watch;
use crate::backend::ops::optimizer::{Moments, Step, Update};
use crate::backend::ops::toy_step::{Scratch, Shape, ToyStep, gradient};
use crate::backend::simd::{Isa, run};
use crate::data::{Batch, Sampler, World};
use crate::random::Stream;
use crate::toy::train::{Guard, choose_restart};
use crate::toy::{ToyJob, ToyModel, ToyOutcome, ToyTrace, ToyTrain, TrainingEnd};

/// Trains every job with all its restarts, on the current rayon pool. None where `watch` said stop before the job was
/// finished. A job has at least one restart.
pub fn train(jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    train_on(Isa::available()[0], jobs, watch)
}

/// [`train`] with a given instruction set, from [`Isa::available`].
pub fn train_on(isa: Isa, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    let mut items = items(jobs, rayon::current_num_threads());
    // Longest first, so that no thread is left with a long one at the end.
    items.sort_by_key(|item| std::cmp::Reverse(item.cost(jobs)));
    let trained: Vec<_> =
        items.into_iter().par_bridge().flat_map_iter(|item| train_item(isa, jobs, &item.runs, watch)).collect();
    let mut outcomes: Vec<Vec<Option<ToyOutcome>>> = jobs.iter().map(|job| vec![None; job.restarts]).collect();
    for (run, outcome) in trained {
        outcomes[run.job][run.restart] = outcome;
    }
    let complete = outcomes.into_iter().map(|restarts| restarts.into_iter().collect::<Option<Vec<_>>>());
    let complete: Vec<_> = complete.zip(jobs).collect();
    complete.into_par_iter().map(|(restarts, job)| restarts.map(|r| choose_restart(isa, job, r))).collect()
}

/// One model to train: a restart of a job.
#[derive(Clone, Copy, Debug)]
struct Run {
    job: usize,
    restart: usize,
}

/// Models that see the same batches and are trained by one thread.
struct Item {
    runs: Vec<Run>,
}

impl Item {
    /// Multiply-adds and coins, roughly.
    fn cost(&self, jobs: &[ToyJob]) -> usize {
        let cost = |job: &ToyJob| {
            let Shape { n_features, d_hidden, .. } = job.shape();
            job.train.steps * job.train.batch_size * n_features * (5 * d_hidden + 10)
        };
        self.runs.iter().map(|run| cost(&jobs[run.job])).sum()
    }
}

/// All models in groups of common data, cut so that every thread has work and a batch still serves several.
fn items(jobs: &[ToyJob], threads: usize) -> Vec<Item> {
    /// The worlds of one (seed, batch size), each with the models that see it.
    type Worlds<'a> = Vec<(&'a Arc<World>, Vec<Run>)>;
    let mut groups: BTreeMap<(u64, usize), Worlds> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        assert!(job.restarts > 0 && job.train.batch_size > 0 && job.importance.len() == job.world.n_features);
        let worlds = groups.entry((job.seed, job.train.batch_size)).or_default();
        let same = |other: &Arc<World>| Arc::ptr_eq(other, &job.world) || **other == *job.world;
        let runs = (0..job.restarts).map(|restart| Run { job: index, restart });
        match worlds.iter_mut().find(|(world, _)| same(world)) {
            Some((_, group)) => group.extend(runs),
            None => worlds.push((&job.world, runs.collect())),
        }
    }
    let groups: Vec<Vec<Run>> = groups.into_values().flatten().map(|(_, runs)| runs).collect();
    let models: usize = groups.iter().map(Vec::len).sum();
    // Four items a thread where there are many models; where there are few, no fewer than eight models share their data
    // unless a thread would be idle.
    let most = models.div_ceil(4 * threads).max(models.div_ceil(threads).min(8)).max(1);
    let pieces = |runs: Vec<Run>| {
        let size = runs.len().div_ceil(runs.len().div_ceil(most));
        runs.chunks(size).map(|runs| Item { runs: runs.to_vec() }).collect::<Vec<_>>()
    };
    groups.into_iter().flat_map(pieces).collect()
}

/// A model on its way.
struct Trainer<'a> {
    run: Run,
    job: &'a ToyJob,
    shape: Shape,
    slopes: Vec<f32>,
    /// 1 / (what the loss is multiplied by).
    unscale: f64,
    /// Index of its shape and of its training settings among those of the item.
    scratch: usize,
    settings: usize,
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: Moments,
    guard: Guard,
    trace: Vec<ToyTrace>,
    end: Option<TrainingEnd>,
}

impl<'a> Trainer<'a> {
    fn new(run: Run, job: &'a ToyJob, scratch: usize, settings: usize) -> Trainer<'a> {
        let ToyModel { w, b, .. } = job.initial_model(run.restart);
        let parameters = [w, b].concat();
        Trainer {
            run,
            job,
            shape: job.shape(),
            slopes: job.slopes(),
            unscale: 1.0 / job.loss_factor(),
            scratch,
            settings,
            gradient: vec![0.0; parameters.len()],
            moments: Moments::new(job.train.optimizer, parameters.len()),
            parameters,
            guard: Guard::default(),
            trace: vec![],
            end: None,
        }
    }

    fn trains(&self, step: usize) -> bool {
        step < self.job.train.steps && self.end.is_none()
    }

    fn step(&mut self, isa: Isa, step: usize, batch: &Batch, numbers: &Step, scratch: &mut Scratch) {
        let (looked_at, logged) = (Guard::looks(step, self.job.train.steps), self.job.logs(step));
        let work = ToyStep {
            shape: self.shape,
            parameters: &self.parameters,
            slopes: &self.slopes,
            batch,
            with_loss: looked_at || logged,
        };
        let loss = gradient(isa, work, scratch, &mut self.gradient).map(|loss| loss * self.unscale);
        if looked_at {
            let (w, b) = self.parameters.split_at(self.shape.n_features * self.shape.d_hidden);
            self.end = self.guard.look(step, loss, w, b);
        }
        if let (true, Some(loss)) = (logged, loss.filter(|loss| loss.is_finite())) {
            self.trace.push(ToyTrace { step, loss });
        }
        let (parameters, gradient) = (&mut self.parameters, &self.gradient);
        run(isa, Update { step: numbers, scale: 1.0, parameters, gradient, moments: &mut self.moments });
    }

    fn finish(mut self) -> ToyOutcome {
        let Shape { kind, n_features, d_hidden } = self.shape;
        let b = self.parameters.split_off(n_features * d_hidden);
        let w = self.parameters;
        let end = self.end.or_else(|| self.guard.look(self.job.train.steps, None, &w, &b));
        ToyOutcome {
            model: ToyModel { kind, n_features, d_hidden, w, b },
            restart: self.run.restart,
            end: end.unwrap_or(TrainingEnd::Finished),
            trace: self.trace,
        }
    }
}

/// Where `value` stands in `known`, after adding it if it was not there.
fn index_of<T: PartialEq>(known: &mut Vec<T>, value: T) -> usize {
    let found = known.iter().position(|k| *k == value);
    found.unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

fn train_item(isa: Isa, jobs: &[ToyJob], runs: &[Run], watch: &dyn Watch) -> Vec<(Run, Option<ToyOutcome>)> {
    let (mut shapes, mut settings): (Vec<Shape>, Vec<&ToyTrain>) = (vec![], vec![]);
    let mut trainers = vec![];
    for &run in runs {
        let job = &jobs[run.job];
        let (shape, setting) = (index_of(&mut shapes, job.shape()), index_of(&mut settings, &job.train));
        trainers.push(Trainer::new(run, job, shape, setting));
    }
    let mut scratch: Vec<Scratch> = shapes.into_iter().map(Scratch::new).collect();
    let first = &jobs[runs[0].job];
    let sampler = Sampler::new(first.world.clone(), first.seed, Stream::Train);
    let (mut batch, mut progress) = (Batch::default(), Progress::new(watch));
    let mut step = 0;
    while trainers.iter().any(|t| t.trains(step)) && !watch.stop() {
        sampler.draw(step as u32, first.train.batch_size, &mut batch);
        let numbers: Vec<Step> = settings.iter().map(|train| numbers(train, step)).collect();
        for trainer in trainers.iter_mut().filter(|t| t.trains(step)) {
            trainer.step(isa, step, &batch, &numbers[trainer.settings], &mut scratch[trainer.scratch]);
            let left = trainer.job.train.steps - step;
            progress.add(if trainer.end.is_some() { left } else { 1 });
        }
        step += 1;
    }
    progress.report();
    trainers.into_iter().map(|t| (t.run, (!t.trains(step)).then(|| t.finish()))).collect()
}

/// The optimiser's numbers at `step`; past the end of these settings' steps, where no model reads them, those of the last.
fn numbers(train: &ToyTrain, step: usize) -> Step {
    let step = step.min(train.steps.saturating_sub(1));
    let factor = if train.steps == 0 { 1.0 } else { train.schedule.factor(step, train.steps) };
    Step::new(train.optimizer, train.lr * factor, train.weight_decay, step)
}

/// Tells a [`Watch`] of finished model-steps, at most four times a second.
struct Progress<'a> {
    watch: &'a dyn Watch,
    told: Instant,
    steps: u64,
    calls: u32,
}

impl<'a> Progress<'a> {
    fn new(watch: &'a dyn Watch) -> Progress<'a> {
        Progress { watch, told: Instant::now(), steps: 0, calls: 0 }
    }

    fn add(&mut self, steps: usize) {
        self.steps += steps as u64;
        self.calls += 1;
        // The clock costs a few percent of a small model's step.
        if self.calls.is_multiple_of(16) && self.told.elapsed() >= Duration::from_millis(250) {
            self.report();
        }
    }

    fn report(&mut self) {
        if self.steps > 0 {
            self.watch.advance(self.steps);
        }
        (self.steps, self.told) = (0, Instant::now());
    }
}
