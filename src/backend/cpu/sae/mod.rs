//! Trains sparse autoencoders on the CPU.
//!
//! One thread trains one autoencoder at a time, so that a small one stays in its cache; threads take different groups, or
//! different autoencoders of a large group. Autoencoders of a group with equal batch size that are with one thread share
//! each batch: it is drawn and packed once. Neither threads nor sharing touch a number, because batches come from a
//! counter and an autoencoder reads nothing but its batches.

mod dense;
mod lists;
pub mod resample;
pub mod state;
pub mod step;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use self::resample::Candidates;
use self::step::{Scratch, Trainee};
use crate::backend::ops::layout::PackedBatch;
use crate::backend::simd::Isa;
use crate::backend::{SaeGroup, Watch};
use crate::hidden::{HiddenBatch, HiddenSource, HiddenStream};
use crate::random::Stream;
use crate::sae::init::start;
use crate::sae::train::Guard;
use crate::sae::{Control, Normalise, Sae, SaeJob, SaeOutcome, SaeTrace};
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
            let trained = train_pass(source, &jobs, watch);
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
/// pieces keep at least four jobs, so that a batch is not drawn for too few.
fn passes(groups: &[SaeGroup], threads: usize) -> Vec<Pass> {
    let mut whole = vec![];
    for (group, SaeGroup { saes, .. }) in groups.iter().enumerate() {
        let mut by_batch_size = BTreeMap::<usize, Vec<usize>>::new();
        for (i, job) in saes.iter().enumerate() {
            by_batch_size.entry(job.train.batch_size).or_default().push(i);
        }
        whole.extend(by_batch_size.into_values().map(|members| (group, saes, members)));
    }
    let least = if whole.len() < threads { 1 } else { 4 };
    let pieces = (2 * threads).div_ceil(whole.len().max(1));
    let mut passes = vec![];
    for (group, saes, members) in whole {
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
}

impl Run<'_> {
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
    fn resample(&mut self, feed: &mut Feed, scratch: &mut Scratch) {
        let latents = self.trainee.to_resample();
        let Some(resample) = self.trainee.program().resample.clone().filter(|_| !latents.is_empty()) else { return };
        let mut candidates = Candidates::default();
        for batch in 0..resample.batches(self.job.train.batch_size) {
            // Batches past the end of training, different ones each time.
            let past = resample.at.partition_point(|&at| at < self.trainee.state.step);
            feed.draw(self.job.train.steps + past * resample.batches(self.job.train.batch_size) + batch);
            let packed = &feed.of(self.job.train.normalise).1;
            self.trainee.weigh(packed, scratch, &mut candidates);
        }
        self.trainee.resample(&latents, &candidates);
    }

    fn outcome(self, scale: f64) -> Option<SaeOutcome> {
        let (state, program) = (&self.trainee.state, self.trainee.program());
        let mut weights = self.trainee.weights();
        let inference = program.inference(state.threshold, self.job.train.batch_size).fold_scale(scale);
        weights.fold_scale(scale);
        weights.finish(self.job, program, &state.usage);
        let missed = program.target.and_then(|target| state.controller.missed(&target));
        let coder = Box::new(Sae::new(weights, inference));
        self.end.map(|end| SaeOutcome { coder, end, trace: self.trace, missed })
    }
}

/// Batches at the scales that the runs of a pass ask for.
struct Feed {
    stream: HiddenStream,
    batch_size: usize,
    drawn: HiddenBatch,
    /// Scale and packed batch, for no normalisation and for [`Normalise::MeanNorm`], where asked for.
    packed: [Option<(f64, PackedBatch)>; 2],
}

impl Feed {
    fn new(source: &HiddenSource, jobs: &[&SaeJob]) -> Feed {
        let stream = source.open(Stream::Train);
        let batch_size = jobs[0].train.batch_size;
        let packed = [Normalise::None, Normalise::MeanNorm].map(|normalise| {
            let asked = jobs.iter().any(|job| job.train.normalise == normalise);
            asked.then(|| (normalise.scale(&stream, batch_size), PackedBatch::default()))
        });
        Feed { stream, batch_size, drawn: HiddenBatch::default(), packed }
    }

    fn draw(&mut self, step: usize) {
        self.stream.draw_hidden(step as u32, self.batch_size, &mut self.drawn);
        for (scale, packed) in self.packed.iter_mut().flatten() {
            packed.fill(&self.drawn.h, self.drawn.d_hidden, *scale as f32);
        }
    }

    fn of(&self, normalise: Normalise) -> &(f64, PackedBatch) {
        let at = match normalise {
            Normalise::None => 0,
            Normalise::MeanNorm => 1,
        };
        self.packed[at].as_ref().expect("made for every job of the pass")
    }
}

fn train_pass(source: &HiddenSource, jobs: &[&SaeJob], watch: &dyn Watch) -> Vec<Option<SaeOutcome>> {
    if watch.stop() {
        return jobs.iter().map(|_| None).collect();
    }
    let (mut feed, mut scratch) = (Feed::new(source, jobs), Scratch::default());
    let begin = |job: &SaeJob| {
        let (program, weights) = start(job, source, &feed.stream, feed.of(job.train.normalise).0);
        Trainee::new(Isa::best(), &weights, program, job.train.clone()).with_seed(job.seed)
    };
    let mut runs: Vec<Run> = (jobs.iter())
        .map(|&job| Run { job, trainee: begin(job), guard: Guard::default(), trace: vec![], end: None })
        .collect();
    for run in runs.iter_mut().filter(|run| run.job.train.steps == 0) {
        run.end = Some(TrainingEnd::Finished);
    }
    let (mut reported, mut done) = (Instant::now(), 0);
    for step in 0.. {
        if runs.iter().all(|run| run.end.is_some()) {
            break;
        }
        for run in runs.iter_mut().filter(|run| run.end.is_none()) {
            run.resample(&mut feed, &mut scratch);
        }
        feed.draw(step);
        for run in runs.iter_mut().filter(|run| run.end.is_none()) {
            done += run.step(step, &feed.of(run.job.train.normalise).1, &mut scratch);
        }
        if reported.elapsed() >= REPORT_EVERY {
            watch.advance(std::mem::take(&mut done));
            reported = Instant::now();
            if watch.stop() {
                break;
            }
        }
    }
    watch.advance(done);
    runs.into_iter()
        .map(|run| {
            let scale = feed.of(run.job.train.normalise).0;
            run.outcome(scale)
        })
        .collect()
}

#[cfg(test)]
mod tests;
