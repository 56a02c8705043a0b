//! Trains many toy models, those that see the same data side by side on one thread, the smallest sixteen to a vector.
//!
//! Jobs of one (world, seed, batch size) see the same batches, so a thread takes several of their models (restarts
//! included) through the steps together and draws each batch once. Models of one tiny shape go into the lanes of
//! vectors ([`lanes`]), the others step one by one ([`alone`]). How models are cut into such items depends on the number of
//! threads and on what else is trained; their bits do not, because a model's step reads nothing but the batch and its own
//! state, and both ways to step give the same bits.

use std::time::{Duration, Instant};

use rayon::prelude::*;

mod alone;
mod items;
mod lanes;

use super::finite;
use crate::backend::Watch;
use crate::backend::ops::optimizer::Step;
use crate::backend::ops::toy_lanes;
use crate::backend::ops::toy_step::{Forms, Inputs, Scratch, Shape};
use crate::backend::simd::Isa;
use crate::toy::train::{TrainData, choose_restarts};
use crate::toy::{ToyJob, ToyOutcome, ToyTrain};
use alone::Alone;
use items::{Item, Unit, items};
use lanes::Sixteen;

/// Trains every job with all its restarts, on the current rayon pool. None where `watch` said stop before the job was
/// finished. A job has at least one restart.
pub fn train(jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    train_on(Isa::best(), jobs, watch)
}

/// [`train`] with a given instruction set, from [`Isa::available`].
pub fn train_on(isa: Isa, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    let mut items = items(jobs, rayon::current_num_threads());
    // Longest first, so that no thread is left with a long one at the end.
    items.sort_by_key(|item| std::cmp::Reverse(item.cost));
    let trained: Vec<_> =
        items.into_iter().par_bridge().flat_map_iter(|item| train_item(isa, jobs, &item, watch)).collect();
    let mut outcomes: Vec<Vec<Option<ToyOutcome>>> = jobs.iter().map(|job| vec![None; job.restarts]).collect();
    for (job, restart, outcome) in finite::train(isa, jobs, watch) {
        outcomes[job][restart] = outcome;
    }
    for (run, outcome) in trained {
        outcomes[run.job][run.restart] = outcome;
    }
    let complete = outcomes.into_iter().map(|restarts| restarts.into_iter().collect::<Option<Vec<_>>>());
    choose_restarts(isa, jobs, complete.collect())
}

/// One model to train: a restart of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    job: usize,
    restart: usize,
}

/// Where `value` stands in `known`, after adding it if it was not there.
fn index_of<T: PartialEq>(known: &mut Vec<T>, value: T) -> usize {
    let found = known.iter().position(|k| *k == value);
    found.unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

/// The models of an item on their way.
#[derive(Default)]
struct Trainers<'a> {
    alone: Vec<Alone<'a>>,
    sixteens: Vec<Sixteen<'a>>,
    /// Different shapes of models on their own, and different training settings of any.
    shapes: Vec<Shape>,
    settings: Vec<&'a ToyTrain>,
}

impl<'a> Trainers<'a> {
    fn new(jobs: &'a [ToyJob], item: &Item) -> Trainers<'a> {
        let mut new = Trainers::default();
        for unit in &item.units {
            match unit {
                Unit::Alone(run) => {
                    let job = &jobs[run.job];
                    let scratch = index_of(&mut new.shapes, job.shape());
                    let settings = index_of(&mut new.settings, &job.train);
                    new.alone.push(Alone::new(*run, job, scratch, settings));
                }
                Unit::Together(runs) => {
                    let settings = index_of(&mut new.settings, &jobs[runs[0].job].train);
                    new.sixteens.push(Sixteen::new(runs, jobs, settings));
                }
            }
        }
        new
    }

    fn forms(&self) -> Forms {
        self.alone.iter().map(|t| t.form).chain(self.sixteens.iter().map(|t| t.form)).collect()
    }

    fn any_trains(&self, step: usize) -> bool {
        self.alone.iter().any(|t| t.trains(step)) || self.sixteens.iter().any(|t| t.trains(step))
    }

    fn finish(self, step: usize) -> Vec<(Run, Option<ToyOutcome>)> {
        let alone = self.alone.into_iter().map(|t| (t.run, (!t.trains(step)).then(|| t.finish())));
        alone.chain(self.sixteens.into_iter().flat_map(|t| t.finish(step))).collect()
    }
}

fn train_item(isa: Isa, jobs: &[ToyJob], item: &Item, watch: &dyn Watch) -> Vec<(Run, Option<ToyOutcome>)> {
    let mut trainers = Trainers::new(jobs, item);
    let first = &jobs[item.units[0].runs()[0].job];
    let (mut data, forms) = (TrainData::new(first), trainers.forms());
    let mut scratch: Vec<Scratch> = trainers.shapes.iter().copied().map(Scratch::new).collect();
    let mut lanes_scratch = toy_lanes::Scratch::default();
    let (mut inputs, mut progress, mut numbers) = (Inputs::default(), Progress::new(watch), vec![]);
    let mut step = 0;
    while trainers.any_trains(step) && !watch.stop() {
        data.fill(step, first.train.batch_size, forms, &mut inputs);
        numbers.clear();
        numbers.extend(trainers.settings.iter().map(|train| step_numbers(train, step)));
        let mut done = 0;
        for trainer in trainers.alone.iter_mut().filter(|t| t.trains(step)) {
            done += trainer.step(isa, step, &inputs, &numbers[trainer.settings], &mut scratch[trainer.scratch]);
        }
        for sixteen in trainers.sixteens.iter_mut().filter(|t| t.trains(step)) {
            done += sixteen.step(isa, step, &inputs, &numbers[sixteen.settings], &mut lanes_scratch);
        }
        progress.add(done);
        step += 1;
    }
    progress.report();
    trainers.finish(step)
}

/// The optimiser's numbers at `step`; past the end of these settings' steps, where no model reads them, those of the last.
pub(in crate::backend) fn step_numbers(train: &ToyTrain, step: usize) -> Step {
    let step = step.min(train.steps.saturating_sub(1));
    let factor = if train.steps == 0 { 1.0 } else { train.schedule.factor(step, train.steps) };
    Step::new(train.optimizer, train.lr * factor, train.weight_decay, step)
}

/// Tells a [`Watch`] of finished model-steps, at most four times a second.
pub(in crate::backend) struct Progress<'a> {
    watch: &'a dyn Watch,
    told: Instant,
    steps: u64,
    calls: u32,
}

impl<'a> Progress<'a> {
    pub(in crate::backend) fn new(watch: &'a dyn Watch) -> Progress<'a> {
        Progress { watch, told: Instant::now(), steps: 0, calls: 0 }
    }

    pub(in crate::backend) fn add(&mut self, steps: usize) {
        self.steps += steps as u64;
        self.calls += 1;
        // The clock costs a few percent of a small model's step.
        if self.calls.is_multiple_of(16) && self.told.elapsed() >= Duration::from_millis(250) {
            self.report();
        }
    }

    pub(in crate::backend) fn report(&mut self) {
        if self.steps > 0 {
            self.watch.advance(self.steps);
        }
        (self.steps, self.told) = (0, Instant::now());
    }
}

#[cfg(test)]
mod tests;
