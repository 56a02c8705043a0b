//! A model that steps on its own.

use super::Run;
use crate::backend::ops::optimizer::{Moments, Step, Update};
use crate::backend::ops::toy_step::{Form, Inputs, Scratch, Shape, ToyStep, gradient};
use crate::backend::simd::{Isa, run};
use crate::toy::train::Guard;
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, TrainingEnd};

/// A model on its way.
pub struct Alone<'a> {
    pub run: Run,
    job: &'a ToyJob,
    shape: Shape,
    pub form: Form,
    slopes: Vec<f32>,
    /// 1 / (what the loss is multiplied by).
    unscale: f64,
    /// Index of its shape and of its training settings among those of the item.
    pub scratch: usize,
    pub settings: usize,
    /// Filled up with zeros to whole vectors, and so are the gradient and the moments: the optimiser then has no rest,
    /// which is most of what it does for the smallest models. Nothing moves the zeros.
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: Moments,
    guard: Guard,
    trace: Vec<ToyTrace>,
    end: Option<TrainingEnd>,
}

impl<'a> Alone<'a> {
    pub fn new(run: Run, job: &'a ToyJob, scratch: usize, settings: usize) -> Alone<'a> {
        let mut parameters = job.initial_model(run.restart).parameters();
        parameters.resize(parameters.len().next_multiple_of(16), 0.0);
        Alone {
            run,
            job,
            shape: job.shape(),
            form: Form::of(job.shape(), &job.world),
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

    pub fn trains(&self, step: usize) -> bool {
        step < self.job.train.steps && self.end.is_none()
    }

    /// One step; returns how many steps this brings the model nearer to its end: all that are left if it diverged.
    pub fn step(&mut self, isa: Isa, step: usize, inputs: &Inputs, numbers: &Step, scratch: &mut Scratch) -> usize {
        let (looked_at, logged) = (Guard::looks(step, self.job.train.steps), self.job.logs(step));
        let used = self.shape.n_parameters();
        let work = ToyStep {
            shape: self.shape,
            parameters: &self.parameters[..used],
            slopes: &self.slopes,
            inputs,
            form: self.form,
            with_loss: looked_at || logged,
        };
        let loss = gradient(isa, work, scratch, &mut self.gradient[..used]).map(|loss| loss * self.unscale);
        if looked_at {
            self.end = self.guard.look(step, loss, self.shape, &self.parameters[..used]);
        }
        if let (true, Some(loss)) = (logged, loss.filter(|loss| loss.is_finite())) {
            let parameters = self.job.snapshots.then(|| self.parameters[..used].to_vec());
            self.trace.push(ToyTrace { step, loss, parameters });
        }
        let (parameters, gradient) = (&mut self.parameters, &self.gradient);
        run(isa, Update { step: numbers, scale: 1.0, parameters, gradient, moments: &mut self.moments });
        if self.end.is_some() { self.job.train.steps - step } else { 1 }
    }

    /// What it came to. A model without steps left is looked at once more.
    pub fn finish(mut self) -> ToyOutcome {
        self.parameters.truncate(self.shape.n_parameters());
        let look = |guard: &mut Guard| guard.look(self.job.train.steps, None, self.shape, &self.parameters);
        let end = self.end.or_else(|| look(&mut self.guard));
        ToyOutcome {
            model: self.job.initial_model(self.run.restart).with_parameters(&self.parameters),
            restart: self.run.restart,
            end: end.unwrap_or(TrainingEnd::Finished),
            trace: self.trace,
        }
    }
}
