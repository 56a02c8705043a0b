//! An autoencoder on its way: what the host keeps of it.

use super::super::device::DeviceError;
use super::super::rows::unpadded;
use super::QUEUED;
use super::resident::{Arena, Place, Places, TensorPlaces};
use super::view::Report;
use crate::backend::checkpoint::{Record, record};
use crate::sae::train::Guard;
use crate::sae::{Control, Controller, Inputs, Program, Sae, SaeJob, SaeOutcome, SaeTrace, Weights};
use crate::toy::TrainingEnd;

/// An autoencoder on its way.
pub struct Run<'a> {
    /// Place of its job in the group.
    pub index: usize,
    pub job: &'a SaeJob,
    pub program: Program,
    /// Steps whose reports were taken.
    pub step: usize,
    /// As the last report has it.
    controller: Controller,
    guard: Guard,
    trace: Vec<SaeTrace>,
    end: Option<TrainingEnd>,
    /// Steps of the state that was kept last.
    pub saved: usize,
}

/// Everything on the device that decides the steps to come.
struct Saved {
    step: usize,
    /// Weights and moments of each tensor, as they lie.
    tensors: Vec<Vec<Vec<f32>>>,
    /// Norms, offsets and factors: functions of the weights, but not of the same rounding once rows were made unit.
    facts: Vec<Vec<f32>>,
    since: Vec<u32>,
    usage: Vec<f64>,
    /// First mean squared error, if there is one, and threshold.
    first: Option<f64>,
    threshold: f64,
    controller: Controller,
    guard: Guard,
    trace: Vec<SaeTrace>,
}

record!(Saved { step, tensors, facts, since, usage, first, threshold, controller, guard, trace });

fn parts(tensor: &TensorPlaces) -> impl Iterator<Item = Place<f32>> {
    [Some(tensor.w), tensor.first, tensor.second].into_iter().flatten()
}

impl<'a> Run<'a> {
    /// At its beginning.
    pub fn new(index: usize, job: &'a SaeJob, program: Program) -> Run<'a> {
        Run {
            index,
            job,
            program,
            step: 0,
            controller: Controller::default(),
            guard: Guard::default(),
            trace: vec![],
            end: (job.train.steps == 0).then_some(TrainingEnd::Finished),
            saved: 0,
        }
    }

    /// Its next step, if there is one.
    pub fn next(&self) -> Option<usize> {
        self.end.is_none().then_some(self.step)
    }

    /// How many steps may be queued from `step` on before its reports must be read; none where it takes no part in them.
    pub fn can_queue(&self, step: usize) -> Option<usize> {
        let next = self.next()?;
        if next > step {
            // It takes part from its own next step on.
            return Some(next - step);
        }
        let mut steps = (self.job.train.steps - step).min(QUEUED);
        // Latents are resampled between two queues.
        if let Some(at) = self.program.resample.iter().flat_map(|it| &it.at).find(|at| **at > step) {
            steps = steps.min(at - step);
        }
        Some(steps)
    }

    /// Takes the reports of the steps from `from` on; returns how many steps of the job are done with that.
    pub fn hear(
        &mut self,
        from: usize,
        reports: &[Report],
        arena: &Arena,
        places: &Places,
    ) -> Result<u64, DeviceError> {
        let steps = self.job.train.steps;
        for (step, report) in (from..).zip(reports) {
            if report.broken > 0 {
                self.end = Some(self.guard.diverged(step - 1, self.broken_tensor(arena, places)?));
            } else {
                self.hear_one(step, report);
            }
            if self.end.is_some() {
                return Ok((steps - from) as u64);
            }
        }
        self.step = from + reports.len();
        if self.step == steps {
            let broken = arena.read(places.memory)?[0].broken > 0;
            let diverged = || Ok::<_, DeviceError>(self.guard.diverged(steps - 1, self.broken_tensor(arena, places)?));
            self.end = Some(if broken { diverged()? } else { TrainingEnd::Finished });
        }
        Ok(reports.len() as u64)
    }

    fn hear_one(&mut self, step: usize, report: &Report) {
        let l0 = report.fired as f64 / self.job.train.batch_size as f64;
        if self.program.target.is_some() {
            let Report { multiplier, smoothed, rate, .. } = *report;
            self.controller = Controller { multiplier, smoothed: Some(smoothed), rate };
        }
        let loss = report.reconstruction + report.penalty + report.auxiliary;
        self.end = self.guard.look(step, loss, report.mse);
        if self.end.is_none() && self.job.logs(step) {
            let smoothed = self.program.target.and(self.controller.smoothed);
            let control = smoothed.map(|l0_smoothed| Control { multiplier: self.controller.multiplier, l0_smoothed });
            self.trace.push(SaeTrace { step, loss, l0, control });
        }
    }

    /// The first tensor that holds something other than finite numbers.
    fn broken_tensor(&self, arena: &Arena, places: &Places) -> Result<&'static str, DeviceError> {
        for (tensor, name) in places.tensors.iter().zip(self.program.parameter_names()) {
            if arena.read(tensor.w)?.iter().any(|w| !w.is_finite()) {
                return Ok(name);
            }
        }
        Ok("weights")
    }

    /// Whether it has moved on since it was kept; one that diverged does so again.
    pub fn is_worth_saving(&self) -> bool {
        self.step > self.saved && !matches!(self.end, Some(TrainingEnd::Diverged { .. }))
    }

    /// Everything that the rest of the training depends on; none where the last step has broken a weight, which the next will
    /// find.
    pub fn state(&self, arena: &Arena, places: &Places) -> Result<Option<Vec<u8>>, DeviceError> {
        let memory = arena.read(places.memory)?[0];
        if memory.broken > 0 {
            return Ok(None);
        }
        let read = |place: Place<f32>| arena.read(place);
        let tensor = |tensor: &TensorPlaces| parts(tensor).map(read).collect::<Result<Vec<_>, _>>();
        let saved = Saved {
            step: self.step,
            tensors: places.tensors.iter().map(tensor).collect::<Result<_, _>>()?,
            facts: [places.norm, places.offset, places.factor].into_iter().map(read).collect::<Result<_, _>>()?,
            since: arena.read(places.since)?,
            usage: arena.read(places.usage)?,
            first: (memory.has_first > 0).then_some(memory.first),
            threshold: memory.threshold,
            controller: self.controller,
            guard: self.guard.clone(),
            trace: self.trace.clone(),
        };
        let mut bytes = vec![];
        saved.put(&mut bytes);
        Ok(Some(bytes))
    }

    /// Goes on from such a state; one that does not fit is a warning and leaves the run at its beginning.
    pub fn restore(&mut self, arena: &mut Arena, places: &Places, state: &[u8]) -> Result<(), DeviceError> {
        let from = &mut &state[..];
        let saved = Saved::get(from).filter(|saved| from.is_empty() && self.fits(places, saved));
        let Some(saved) = saved else {
            tracing::warn!("a checkpoint does not fit its training, which begins anew");
            return Ok(());
        };
        for (places, tensor) in places.tensors.iter().zip(&saved.tensors) {
            parts(places).zip(tensor).try_for_each(|(place, values)| arena.write(place, values))?;
        }
        for (place, values) in [places.norm, places.offset, places.factor].into_iter().zip(&saved.facts) {
            arena.write(place, values)?;
        }
        arena.write(places.since, &saved.since)?;
        arena.write(places.usage, &saved.usage)?;
        let mut memory = arena.read(places.memory)?;
        memory[0].threshold = saved.threshold;
        memory[0].first = saved.first.unwrap_or_default();
        memory[0].has_first = saved.first.is_some() as u32;
        let Controller { multiplier, smoothed, rate } = saved.controller;
        (memory[0].multiplier, memory[0].rate) = (multiplier, rate);
        memory[0].smoothed = smoothed.unwrap_or_default();
        memory[0].has_smoothed = smoothed.is_some() as u32;
        arena.write(places.memory, &memory)?;
        self.end = (saved.step == self.job.train.steps).then_some(TrainingEnd::Finished);
        (self.step, self.controller) = (saved.step, saved.controller);
        (self.guard, self.trace) = (saved.guard, saved.trace);
        Ok(())
    }

    fn fits(&self, places: &Places, saved: &Saved) -> bool {
        let lens = |places: &TensorPlaces| parts(places).map(|place| place.len()).collect::<Vec<_>>();
        let tensors = places.tensors.iter().map(lens);
        let saved_tensors = saved.tensors.iter().map(|parts| parts.iter().map(Vec::len).collect::<Vec<_>>());
        let m = places.sizes.m;
        tensors.eq(saved_tensors)
            && saved.facts.len() == 3
            && saved.facts.iter().all(|facts| facts.len() == m)
            && (saved.since.len(), saved.usage.len()) == (m, m)
            && saved.step <= self.job.train.steps
    }

    /// What training leaves behind; none where it was stopped before its end.
    pub fn outcome(self, arena: &Arena, places: &Places, inputs: Inputs) -> Result<Option<SaeOutcome>, DeviceError> {
        let Some(end) = self.end else { return Ok(None) };
        let (program, job) = (&self.program, self.job);
        let threshold = arena.read(places.memory)?[0].threshold;
        let mut weights = weights(arena, places)?;
        let inference = program.inference(threshold, job.train.batch_size).fold_scale(inputs.scale);
        weights.fold_scale(inputs.scale);
        weights.finish(job, program, &arena.read(places.usage)?);
        let missed = program.target.and_then(|target| self.controller.missed(&target));
        let coder = Box::new(Sae::new(weights, inference).with_inputs(inputs.normalise));
        Ok(Some(SaeOutcome { coder, end, trace: self.trace, missed }))
    }
}

/// The weights as they are.
fn weights(arena: &Arena, places: &Places) -> Result<Weights, DeviceError> {
    let d = places.sizes.d;
    let read = |at: usize| arena.read(places.tensors[at].w);
    Ok(Weights {
        n_latents: places.sizes.m,
        d_hidden: d,
        w_enc: unpadded(&read(0)?, d),
        b_enc: read(1)?,
        w_dec: unpadded(&read(2)?, d),
        b_dec: unpadded(&read(3)?, d),
        per_latent: (4..places.tensors.len()).map(read).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::checkpoint::LAYOUT;

    /// Whoever changes this raises `LAYOUT`: states on disk are read by it.
    #[test]
    fn states_are_laid_out_as_their_number_says() {
        let controller = "Controller(multiplier f64, smoothed f64?, rate f64)";
        let trace = "SaeTrace(step usize, loss f64, l0 f64, control Control(multiplier f64, l0_smoothed f64)?)";
        let saved = format!(
            "Saved(step usize, tensors [[[f32]]], facts [[f32]], since [u32], usage [f64], first f64?, threshold f64, \
             controller {controller}, guard Guard(first f64?, last f64), trace [{trace}])"
        );
        assert_eq!((LAYOUT, Saved::layout()), (1, saved));
    }
}
