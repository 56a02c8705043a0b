//! Up to sixteen models of one shape and one training that step together, a vector lane each.

use super::Run;
use crate::backend::ops::optimizer::{Moments, Step};
use crate::backend::ops::toy_lanes::{LaneModels, LaneStep, Scratch, losses, step};
use crate::backend::ops::toy_step::{Form, Inputs, Shape};
use crate::backend::simd::Isa;
use crate::toy::train::Guard;
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, TrainingEnd};

/// Models on their way. All have one shape, one kind of training and one rhythm of the trace.
pub struct Sixteen<'a> {
    /// Lane l is that of the l-th.
    models: Vec<LaneModel<'a>>,
    shape: Shape,
    pub form: Form,
    /// Index of the training settings among those of the item.
    pub settings: usize,
    /// `[n_features, 16]`
    slopes: Vec<f32>,
    /// `[n_parameters, 16]`
    parameters: Vec<f32>,
    moments: Moments,
    steps: usize,
    /// How many have not ended.
    running: usize,
}

/// What one model has beside its numbers.
struct LaneModel<'a> {
    run: Run,
    job: &'a ToyJob,
    /// 1 / (what the loss is multiplied by).
    unscale: f64,
    guard: Guard,
    trace: Vec<ToyTrace>,
    /// The end of a model that diverged, and its parameters then: its lane runs on unread.
    end: Option<(TrainingEnd, Vec<f32>)>,
}

/// The numbers of one lane.
fn lane(of: &[f32], lane: usize) -> Vec<f32> {
    of.iter().skip(lane).step_by(16).copied().collect()
}

impl<'a> Sixteen<'a> {
    /// At least one run and at most sixteen, of jobs that agree in world, shape, training and rhythm of the trace.
    pub fn new(runs: &[Run], jobs: &'a [ToyJob], settings: usize) -> Sixteen<'a> {
        let first = &jobs[runs[0].job];
        let shape = first.shape();
        let mut slopes = vec![0.0; 16 * shape.n_features];
        let mut parameters = vec![0.0; 16 * shape.n_parameters()];
        let mut models = Vec::with_capacity(runs.len());
        for (lane, &run) in runs.iter().enumerate() {
            let job = &jobs[run.job];
            let put = |to: &mut [f32], from: Vec<f32>| {
                to.iter_mut().skip(lane).step_by(16).zip(from).for_each(|(to, from)| *to = from);
            };
            put(&mut slopes, job.slopes());
            put(&mut parameters, job.initial_model(run.restart).parameters());
            let unscale = 1.0 / job.loss_factor();
            models.push(LaneModel { run, job, unscale, guard: Guard::default(), trace: vec![], end: None });
        }
        let moments = Moments::new(first.train.optimizer, parameters.len());
        let form = Form::of(shape, &first.world);
        let (steps, running) = (first.train.steps, runs.len());
        Sixteen { models, shape, form, settings, slopes, parameters, moments, steps, running }
    }

    pub fn trains(&self, step: usize) -> bool {
        step < self.steps && self.running > 0
    }

    /// One step of all; returns how many model-steps this brings them nearer to their ends, as
    /// [`Alone::step`](super::alone::Alone::step).
    pub fn step(&mut self, isa: Isa, at: usize, inputs: &Inputs, numbers: &Step, scratch: &mut Scratch) -> usize {
        let looked_at = Guard::looks(at, self.steps);
        let mut ended = vec![];
        if looked_at || self.models[0].job.logs(at) {
            ended = self.look(isa, at, inputs, looked_at);
        }
        let models = LaneModels { shape: self.shape, slopes: &self.slopes, inputs, form: self.form };
        let (parameters, moments) = (&mut self.parameters, &mut self.moments);
        step(isa, LaneStep { models, parameters, moments, numbers }, scratch);
        let mut done = self.running;
        for (model, end) in ended {
            self.models[model].end = Some((end, lane(&self.parameters, model)));
            self.running -= 1;
            done += self.steps - at - 1;
        }
        done
    }

    /// Losses before a step, for the guards and the traces; returns who has diverged.
    fn look(&mut self, isa: Isa, at: usize, inputs: &Inputs, looked_at: bool) -> Vec<(usize, TrainingEnd)> {
        let models = LaneModels { shape: self.shape, slopes: &self.slopes, inputs, form: self.form };
        let losses = losses(isa, models, &self.parameters);
        let mut ended = vec![];
        for (index, model) in self.models.iter_mut().enumerate().filter(|(_, model)| model.end.is_none()) {
            let (loss, parameters) = (losses[index] * model.unscale, lane(&self.parameters, index));
            if looked_at && let Some(end) = model.guard.look(at, Some(loss), self.shape, &parameters) {
                ended.push((index, end));
            }
            if model.job.logs(at) && loss.is_finite() {
                let parameters = model.job.snapshots.then_some(parameters);
                model.trace.push(ToyTrace { step: at, loss, parameters });
            }
        }
        ended
    }

    /// What each came to: nothing for those that had steps left at `step`. Others are looked at once more.
    pub fn finish(self, step: usize) -> Vec<(Run, Option<ToyOutcome>)> {
        let (steps, shape, all) = (self.steps, self.shape, self.parameters);
        let outcome = |(index, mut model): (usize, LaneModel)| {
            if step < steps && model.end.is_none() {
                return (model.run, None);
            }
            let (end, parameters) = model.end.unwrap_or_else(|| {
                let parameters = lane(&all, index);
                let end = model.guard.look(steps, None, shape, &parameters);
                (end.unwrap_or(TrainingEnd::Finished), parameters)
            });
            let start = model.job.initial_model(model.run.restart);
            let (restart, trace) = (model.run.restart, model.trace);
            (model.run, Some(ToyOutcome { model: start.with_parameters(&parameters), restart, end, trace }))
        };
        self.models.into_iter().enumerate().map(outcome).collect()
    }
}
