//! Trains sparse autoencoders on the CPU.
//!
//! One thread trains one small autoencoder at a time, so that it stays in its cache; threads take different groups, or
//! different autoencoders of a large group. Large ones are trained side by side, the pieces of their steps going to whatever
//! thread is idle, and the next batch is drawn meanwhile. Autoencoders of a group with equal batch size that are with one thread share
//! each batch: it is drawn and packed once. Neither threads nor sharing touch a number, because batches come from a
//! counter and an autoencoder reads nothing but its batches.

mod blocks;
mod dense;
mod lists;
pub mod resample;
pub mod state;
pub mod step;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use self::blocks::{Pool, each};
use self::resample::Candidates;
use self::step::{Scratch, Trainee};
use crate::backend::checkpoint::{Checkpoints, Record};
use crate::backend::ops::layout::PackedBatch;
use crate::backend::simd::Isa;
use crate::backend::{SaeGroup, Watch};
use crate::hidden::{HiddenBatch, SaeSource, SaeStream};
use crate::random::Stream;
use crate::sae::init::start;
use crate::sae::train::Guard;
use crate::sae::{Control, Inputs, Normalise, Sae, SaeJob, SaeOutcome, SaeTrace};
use crate::toy::TrainingEnd;

/// How often `watch` is told and asked.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Trains the autoencoders of each group on its source, on rayon's threads; results are in the order of the jobs, none
/// where `watch` said stop before a job was finished.
pub fn train(groups: &[SaeGroup], watch: &dyn Watch) -> Vec<Vec<Option<SaeOutcome>>> {
    let passes = passes(groups, rayon::current_num_threads());
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<_>> =
        Mutex::new(groups.iter().map(|group| group.saes.iter().map(|_| None).collect()).collect::<Vec<Vec<_>>>());
    (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).for_each(|_| {
        while let Some(pass) = passes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let SaeGroup { source, saes } = &groups[pass.group];
            let jobs: Vec<&SaeJob> = pass.jobs.iter().map(|&job| &saes[job]).collect();
            let kept = watch.checkpoints().map(|checkpoints| Kept { checkpoints, pass });
            let trained = train_pass(source, &jobs, watch, kept);
            let mut results = results.lock().expect("no thread panics while it holds this");
            for (&job, outcome) in pass.jobs.iter().zip(trained) {
                results[pass.group][job] = outcome;
            }
        }
    });
    results.into_inner().expect("no thread panics while it holds this")
}

/// Jobs of one group and batch size that one thread trains.
#[derive(Clone, Debug, PartialEq)]
struct Pass {
    group: usize,
    jobs: Vec<usize>,
    cost: f64,
}

/// What there is to do, costliest first. Groups are cut where there are not enough of them for the threads; otherwise
/// pieces keep at least four jobs, so that a batch is not drawn for too few. Large autoencoders stay together: threads share
/// their steps.
fn passes(groups: &[SaeGroup], threads: usize) -> Vec<Pass> {
    let mut whole = vec![];
    for (group, SaeGroup { source, saes }) in groups.iter().enumerate() {
        let mut by_batch_size = BTreeMap::<usize, Vec<usize>>::new();
        for (i, job) in saes.iter().enumerate() {
            by_batch_size.entry(job.train.batch_size).or_default().push(i);
        }
        whole.extend(by_batch_size.into_values().map(|members| (group, source.d_hidden(), saes, members)));
    }
    let least = if whole.len() < threads { 1 } else { 4 };
    let pieces = (2 * threads).div_ceil(whole.len().max(1));
    let mut passes = vec![];
    for (group, d, saes, members) in whole {
        let large = |&i: &usize| blocks::shared(saes[i].train.batch_size, saes[i].n_latents, d);
        let least = if members.iter().all(large) { members.len() } else { least };
        let size = members.len().div_ceil(pieces).max(least);
        for members in members.chunks(size) {
            let cost = |&i: &usize| saes[i].cost();
            passes.push(Pass { group, jobs: members.to_vec(), cost: members.iter().map(cost).sum() });
        }
    }
    passes.sort_by(|a, b| b.cost.total_cmp(&a.cost));
    passes
}

/// One autoencoder on its way.
struct Run<'a> {
    job: &'a SaeJob,
    trainee: Trainee,
    guard: Guard,
    trace: Vec<SaeTrace>,
    end: Option<TrainingEnd>,
    /// Steps of the state that was kept last.
    saved: usize,
}

impl Run<'_> {
    /// Whether `step` is its next.
    fn goes(&self, step: usize) -> bool {
        self.end.is_none() && self.trainee.state.step == step
    }

    /// One step; returns how many steps of the job are done with that.
    fn step(&mut self, step: usize, batch: &PackedBatch, scratch: &mut Scratch) -> u64 {
        let losses = self.trainee.gradients(batch, scratch);
        self.end = self.guard.look(step, losses.total(), losses.mse);
        if self.end.is_none() {
            if self.job.logs(step) {
                let controller = &self.trainee.state.controller;
                let control = self.trainee.program().target.and(controller.smoothed);
                let control = control.map(|l0_smoothed| Control { multiplier: controller.multiplier, l0_smoothed });
                self.trace.push(SaeTrace { step, loss: losses.total(), l0: losses.l0, control });
            }
            let norm = self.trainee.finish(scratch);
            if !self.trainee.update(step, norm, scratch) {
                self.end = Some(self.guard.diverged(step, self.trainee.broken_tensor()));
            } else if step + 1 == self.job.train.steps {
                self.end = Some(TrainingEnd::Finished);
                return 1;
            }
        }
        if self.end.is_some() { (self.job.train.steps - step) as u64 } else { 1 }
    }

    /// Resamples latents where the step asks for it.
    fn resample(&mut self, feed: &Feed, memory: &mut Batch, scratch: &mut Scratch) {
        let latents = self.trainee.to_resample();
        let Some(resample) = self.trainee.program().resample.clone().filter(|_| !latents.is_empty()) else { return };
        let mut candidates = Candidates::default();
        for batch in 0..resample.batches(self.job.train.batch_size) {
            // Batches past the end of training, different ones each time.
            let past = resample.at.partition_point(|&at| at < self.trainee.state.step);
            let step = self.job.train.steps + past * resample.batches(self.job.train.batch_size) + batch;
            feed.draw(step, memory);
            self.trainee.weigh(memory.of(self.job.train.normalise), scratch, &mut candidates);
        }
        self.trainee.resample(&latents, &candidates);
    }

    /// Everything that the rest of the training depends on.
    fn state(&self) -> Vec<u8> {
        let mut bytes = vec![];
        self.trainee.put(&mut bytes);
        self.guard.put(&mut bytes);
        self.trace.put(&mut bytes);
        bytes
    }

    /// Goes on from such a state; one that does not fit is a warning and leaves the run at its beginning.
    fn restore(&mut self, state: &[u8]) {
        let from = &mut &state[..];
        let mut trainee = self.trainee.clone();
        let got = trainee.get(from).then(|| (Guard::get(from), Vec::<SaeTrace>::get(from)));
        match got {
            Some((Some(guard), Some(trace))) if from.is_empty() && trainee.state.step <= self.job.train.steps => {
                self.end = (trainee.state.step == self.job.train.steps).then_some(TrainingEnd::Finished);
                (self.trainee, self.guard, self.trace) = (trainee, guard, trace);
            }
            _ => tracing::warn!("a checkpoint does not fit its training, which begins anew"),
        }
    }

    fn outcome(self, inputs: Inputs) -> Option<SaeOutcome> {
        let (state, program) = (&self.trainee.state, self.trainee.program());
        let mut weights = self.trainee.weights();
        let inference = program.inference(state.threshold, self.job.train.batch_size).fold_scale(inputs.scale);
        weights.fold_scale(inputs.scale);
        weights.finish(self.job, program, &state.usage);
        let missed = program.target.and_then(|target| state.controller.missed(&target));
        let coder = Box::new(Sae::new(weights, inference).with_inputs(inputs.normalise));
        self.end.map(|end| SaeOutcome { coder, end, trace: self.trace, missed })
    }
}

/// Where batches come from, and how the runs of a pass see them.
struct Feed {
    stream: SaeStream,
    batch_size: usize,
    /// Each that is asked for, once.
    inputs: Vec<Inputs>,
}

/// A batch, and what is seen of it under each of [`Feed::inputs`].
struct Batch {
    drawn: HiddenBatch,
    /// Samples normalised by themselves.
    seen: Vec<f32>,
    packed: Vec<(Normalise, PackedBatch)>,
}

impl Feed {
    fn new(source: &SaeSource, jobs: &[&SaeJob]) -> Feed {
        let stream = source.open(Stream::Train);
        let batch_size = jobs[0].train.batch_size;
        let asked = Normalise::ALL.into_iter().filter(|&one| jobs.iter().any(|job| job.train.normalise == one));
        let inputs = asked.map(|normalise| normalise.inputs(&stream, batch_size)).collect();
        Feed { stream, batch_size, inputs }
    }

    /// Memory of a batch, with what a screen reads if asked for.
    fn batch(&self, screened: bool) -> Batch {
        let packed = || if screened { PackedBatch::default().with_screen() } else { PackedBatch::default() };
        let packed = self.inputs.iter().map(|inputs| (inputs.normalise, packed())).collect();
        Batch { drawn: HiddenBatch::default(), seen: vec![], packed }
    }

    fn draw(&self, step: usize, batch: &mut Batch) {
        self.stream.draw_hidden(step as u32, self.batch_size, &mut batch.drawn);
        let (h, d) = (&batch.drawn.h, batch.drawn.d_hidden);
        for (inputs, (normalise, packed)) in self.inputs.iter().zip(&mut batch.packed) {
            if normalise.by_sample() {
                batch.seen.clone_from(h);
                normalise.samples(&mut batch.seen, d);
                packed.fill(&batch.seen, d, 1.0);
            } else {
                packed.fill(h, d, inputs.scale as f32);
            }
        }
    }

    fn of(&self, normalise: Normalise) -> Inputs {
        let found = self.inputs.iter().find(|inputs| inputs.normalise == normalise);
        *found.expect("made for every job of the pass")
    }
}

impl Batch {
    fn of(&self, normalise: Normalise) -> &PackedBatch {
        let found = self.packed.iter().find(|(own, _)| *own == normalise);
        &found.expect("made for every job of the pass").1
    }
}

/// Who keeps the states of a pass.
#[derive(Clone, Copy)]
struct Kept<'a> {
    checkpoints: &'a dyn Checkpoints,
    pass: &'a Pass,
}

impl Kept<'_> {
    fn load(&self, runs: &mut [Run]) {
        for (run, &job) in runs.iter_mut().zip(&self.pass.jobs) {
            if let Some(state) = self.checkpoints.load(self.pass.group, job) {
                run.restore(&state);
            }
        }
    }

    /// Keeps the runs that are under way, and once those that have finished since; one that diverged does so again.
    fn save(&self, runs: &mut [Run]) {
        for (run, &job) in runs.iter_mut().zip(&self.pass.jobs) {
            let step = run.trainee.state.step;
            let diverged = matches!(run.end, Some(TrainingEnd::Diverged { .. }));
            if step > run.saved && !diverged {
                self.checkpoints.save(self.pass.group, job, &run.state());
                run.saved = step;
            }
        }
    }
}

/// A training that is asked to stop is kept if it has taken this long.
pub const WORTH_KEEPING: Duration = Duration::from_secs(2);

fn train_pass(source: &SaeSource, jobs: &[&SaeJob], watch: &dyn Watch, kept: Option<Kept>) -> Vec<Option<SaeOutcome>> {
    if watch.stop() {
        return jobs.iter().map(|_| None).collect();
    }
    let feed = Feed::new(source, jobs);
    let begin = |job: &SaeJob| {
        let (program, weights) = start(job, source, &feed.stream, feed.of(job.train.normalise));
        Trainee::new(Isa::best(), &weights, program, job.train.clone()).with_seed(job.seed)
    };
    let mut runs: Vec<Run> = (jobs.iter())
        .map(|&job| Run { job, trainee: begin(job), guard: Guard::default(), trace: vec![], end: None, saved: 0 })
        .collect();
    for run in runs.iter_mut().filter(|run| run.job.train.steps == 0) {
        run.end = Some(TrainingEnd::Finished);
    }
    if let Some(kept) = kept {
        kept.load(&mut runs);
    }
    train_runs(&feed, &mut runs, watch, kept);
    runs.into_iter()
        .map(|run| {
            let inputs = feed.of(run.job.train.normalise);
            run.outcome(inputs)
        })
        .collect()
}

/// Trains the runs of a pass to their ends, or until `watch` says stop. Runs that a checkpoint has brought further than
/// others wait for them, so that all share the batches to come.
fn train_runs(feed: &Feed, runs: &mut [Run], watch: &dyn Watch, kept: Option<Kept>) {
    watch.restored(runs.iter().map(|run| run.trainee.state.step as u64).sum());
    let done = AtomicU64::new(0);
    let screened = runs.iter().any(|run| run.trainee.is_screened());
    let shared = runs.iter().any(|run| run.trainee.shared(feed.batch_size));
    let (mut now, mut next) = (feed.batch(screened), feed.batch(screened));
    // Resampling draws batches of its own, between the step before and its own step.
    let ahead = shared && runs.iter().all(|run| run.trainee.program().resample.is_none());
    let scratch = Pool::<Scratch>::default();
    let (begun, mut reported, mut saved) = (Instant::now(), Instant::now(), Instant::now());
    let under_way = |runs: &[Run]| runs.iter().filter(|run| run.end.is_none()).map(|run| run.trainee.state.step).min();
    let mut drawn = None;
    while let Some(step) = under_way(runs) {
        for run in runs.iter_mut().filter(|run| run.goes(step)) {
            scratch.with(|scratch| run.resample(feed, &mut now, scratch));
        }
        if drawn != Some(step) {
            feed.draw(step, &mut now);
        }
        let take = |run: &mut Run| {
            let steps = scratch.with(|scratch| run.step(step, now.of(run.job.train.normalise), scratch));
            done.fetch_add(steps, Ordering::Relaxed);
        };
        let last = runs.iter().all(|run| step + 1 >= run.job.train.steps);
        if ahead && !last {
            let draw = || feed.draw(step + 1, &mut next);
            rayon::join(|| each(shared, runs.iter_mut().filter(|run| run.goes(step)), take), draw);
            std::mem::swap(&mut now, &mut next);
            drawn = Some(step + 1);
        } else {
            each(shared, runs.iter_mut().filter(|run| run.goes(step)), take);
        }
        if reported.elapsed() >= REPORT_EVERY {
            watch.advance(done.swap(0, Ordering::Relaxed));
            reported = Instant::now();
            if watch.stop() {
                if let Some(kept) = kept.filter(|_| begun.elapsed() >= WORTH_KEEPING) {
                    kept.save(runs);
                }
                break;
            }
        }
        if let Some(kept) = kept.filter(|kept| saved.elapsed() >= kept.checkpoints.every()) {
            kept.save(runs);
            saved = Instant::now();
        }
    }
    watch.advance(done.into_inner());
}

#[cfg(test)]
mod tests;
