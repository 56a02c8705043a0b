//! Whole trainings: draws, what dies and starts anew, controllers.

use super::{At, Objective, ReferenceSae, dot};
use crate::backend::ops::optimizer::ReferenceMoments;
use crate::backend::{SaeGroup, Watch};
use crate::hidden::{HiddenBatch, SaeSource, SaeStream};
use crate::random::Stream;
use crate::sae::dead_latents::{ENCODER_SHARE, draw_inputs};
use crate::sae::init::start;
use crate::sae::matryoshka::{Sort, StepLevels, USAGE_DECAY};
use crate::sae::train::Guard;
use crate::sae::{Control, Controller, Inputs, Sae, SaeJob, SaeOutcome, SaeTrace, batch_topk};
use crate::toy::TrainingEnd;

/// As [`crate::backend::cpu::sae::train`].
pub fn train(groups: &[SaeGroup], watch: &dyn Watch) -> Vec<Vec<Option<SaeOutcome>>> {
    let trained = |group: &SaeGroup| group.saes.iter().map(|job| train_one(&group.source, job, watch)).collect();
    groups.iter().map(trained).collect()
}

/// One autoencoder on its way.
struct Run<'a> {
    job: &'a SaeJob,
    stream: SaeStream,
    inputs: Inputs,
    sae: ReferenceSae,
    moments: Vec<ReferenceMoments>,
    since_fired: Vec<usize>,
    threshold: f64,
    controller: Controller,
    usage: Vec<f64>,
}

impl Run<'_> {
    /// Hidden states of a batch, as training sees them.
    fn draw(&self, step: usize) -> Vec<f64> {
        let mut batch = HiddenBatch::default();
        self.stream.draw_hidden(step as u32, self.job.train.batch_size, &mut batch);
        self.inputs.see(&batch.h, batch.d_hidden).into_iter().map(f64::from).collect()
    }

    fn at(&self, step: usize) -> At {
        let (program, steps) = (&self.sae.program, self.job.train.steps);
        At {
            k: program.k_at(step, steps).unwrap_or(0.0),
            penalty: program.penalty_at(step, steps, self.controller.multiplier),
            levels: program
                .levels
                .as_ref()
                .map_or(StepLevels::whole(), |levels| levels.at(self.job.seed, step, self.job.n_latents, &self.usage)),
        }
    }

    /// What is remembered of a step beside the weights.
    fn take_note(&mut self, step: usize, objective: &Objective) {
        let (m, n) = (self.job.n_latents, self.job.train.batch_size);
        self.threshold = batch_topk::moved_threshold(self.threshold, objective.least_kept);
        if let Some(target) = &self.sae.program.target {
            let tuning = self.sae.program.tunes_at(step, self.job.train.steps);
            self.controller.take(target, objective.l0(n), tuning);
        }
        let sort = self.sae.program.levels.as_ref().map_or(Sort::None, |levels| levels.sort);
        for j in 0..m {
            let of = || objective.latents.iter().skip(j).step_by(m);
            let fired = of().filter(|z| **z > 0.0).count();
            self.since_fired[j] = if fired > 0 { 0 } else { self.since_fired[j] + 1 };
            let norm = self.sae.decoder_norm(j);
            let now = match sort {
                Sort::None => continue,
                Sort::Frequency => fired as f64,
                Sort::Contribution => of().map(|z| z * z).sum::<f64>() * norm * norm,
            };
            self.usage[j] = USAGE_DECAY * self.usage[j] + (1.0 - USAGE_DECAY) * now / n as f64;
        }
    }

    /// See [`crate::sae::dead_latents`].
    fn resample(&mut self, step: usize) {
        let Some(resample) = self.sae.program.resample.clone() else { return };
        let latents = resample.silent(step, &self.since_fired);
        if latents.is_empty() {
            return;
        }
        let (d, batches) = (self.sae.d, resample.batches(self.job.train.batch_size));
        let (mut rows, mut losses) = (vec![], vec![]);
        let past = resample.at.partition_point(|&at| at < step);
        let dead = vec![false; self.job.n_latents];
        for batch in 0..batches {
            let h = self.draw(self.job.train.steps + past * batches + batch);
            let objective = self.sae.objective_at(&self.at(step), &h, &dead, None);
            let residuals = &objective.residuals[objective.residuals.len() - 1];
            losses.extend(residuals.chunks_exact(d).map(|r| dot(r, r)));
            rows.extend(h);
        }
        let living: Vec<usize> = (0..self.job.n_latents).filter(|j| !latents.contains(j)).collect();
        let mean = |rows: &[f64]| match living.len() {
            0 => 1.0,
            n => living.iter().map(|&j| dot(&rows[j * d..][..d], &rows[j * d..][..d]).sqrt()).sum::<f64>() / n as f64,
        };
        let encoder_norm = ENCODER_SHARE * mean(&self.sae.parameters[0]);
        let decoder_norm = if self.sae.program.unit_decoder { 1.0 } else { mean(&self.sae.parameters[2]) };
        for (&j, input) in latents.iter().zip(draw_inputs(&losses, latents.len(), self.job.seed, step)) {
            let h = &rows[input * d..][..d];
            let length = dot(h, h).sqrt();
            if length == 0.0 {
                continue;
            }
            for (tensor, norm) in [(0, encoder_norm), (2, decoder_norm)] {
                let row = &mut self.sae.parameters[tensor][j * d..][..d];
                row.iter_mut().zip(h).for_each(|(w, h)| *w = h / length * norm);
                self.moments[tensor].reset(j * d..(j + 1) * d);
            }
            self.sae.parameters[1][j] = 0.0;
            self.moments[1].reset(j..j + 1);
            self.since_fired[j] = 0;
        }
        self.sae.tidy();
    }

    fn control(&self) -> Option<Control> {
        let smoothed = self.sae.program.target.and(self.controller.smoothed)?;
        Some(Control { multiplier: self.controller.multiplier, l0_smoothed: smoothed })
    }

    fn outcome(self, end: TrainingEnd, trace: Vec<SaeTrace>) -> SaeOutcome {
        let program = &self.sae.program;
        let mut weights = self.sae.weights();
        let inference = program.inference(self.threshold, self.job.train.batch_size).fold_scale(self.inputs.scale);
        weights.fold_scale(self.inputs.scale);
        weights.finish(self.job, program, &self.usage);
        let missed = program.target.and_then(|target| self.controller.missed(&target));
        let sae = Sae::new(weights, inference).with_inputs(self.inputs.normalise);
        SaeOutcome { coder: Box::new(sae), end, trace, missed }
    }
}

fn train_one(source: &SaeSource, job: &SaeJob, watch: &dyn Watch) -> Option<SaeOutcome> {
    let train = &job.train;
    let stream = source.open(Stream::Train);
    let inputs = train.normalise.inputs(&stream, train.batch_size);
    let (program, weights) = start(job, source, &stream, inputs);
    let sae = ReferenceSae::new(&weights, program);
    let (moments, since_fired, usage) = (sae.moments(), vec![0; job.n_latents], vec![0.0; job.n_latents]);
    let controller = Controller::default();
    let mut run = Run { job, stream, inputs, sae, moments, since_fired, threshold: 0.0, controller, usage };
    let (mut guard, mut trace, mut end) = (Guard::default(), vec![], TrainingEnd::Finished);
    for step in 0..train.steps {
        if watch.stop() {
            return None;
        }
        run.resample(step);
        let h = run.draw(step);
        let dead: Vec<bool> = run.since_fired.iter().map(|&since| since > train.dead_after).collect();
        let objective = run.sae.objective_at(&run.at(step), &h, &dead, None);
        run.take_note(step, &objective);
        let diverged = guard.look(step, objective.loss(), objective.mse);
        if job.logs(step) && diverged.is_none() {
            let (loss, l0) = (objective.loss(), objective.l0(train.batch_size));
            trace.push(SaeTrace { step, loss, l0, control: run.control() });
        }
        let diverged = diverged.or_else(|| {
            run.sae.update(train, step, objective.gradients, &mut run.moments);
            run.sae.broken_tensor().map(|tensor| guard.diverged(step, tensor))
        });
        watch.advance(if diverged.is_some() { train.steps - step } else { 1 } as u64);
        if let Some(diverged) = diverged {
            end = diverged;
            break;
        }
    }
    Some(run.outcome(end, trace))
}
