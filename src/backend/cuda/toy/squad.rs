//! Models of one shape and one rhythm that one launch trains.

use std::ops::Range;
use std::sync::Arc;

use super::Run;
use super::args::{BlockArgs, StepArgs, ToyArgs};
use super::layout::{Layout, matrix_stride, n_inputs};
use super::streams::Streams;
use crate::backend::cpu::toy::step_numbers;
use crate::backend::cuda::device::{Buffer, Device, DeviceError, Pointer};
use crate::backend::ops::toy_step::Shape;
use crate::toy::embedding::embedding;
use crate::toy::train::Guard;
use crate::toy::{Activation, Mlp, ToyJob, ToyKind, ToyModel, ToyOutcome, ToyTrace, TrainingEnd};

/// What the models of a squad agree in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    pub shape: Shape,
    pub steps: usize,
    pub trace_every: usize,
    pub snapshots: bool,
}

impl Rhythm {
    pub fn of(job: &ToyJob) -> Rhythm {
        let ToyJob { trace_every, snapshots, .. } = *job;
        Rhythm { shape: job.shape(), steps: job.train.steps, trace_every, snapshots }
    }
}

/// A model on its way, but for its numbers.
struct Model<'a> {
    run: Run,
    job: &'a ToyJob,
    /// 1 / (what the loss is multiplied by).
    unscale: f64,
    guard: Guard,
    trace: Vec<ToyTrace>,
    /// The end of a model that diverged, and its parameters then: it runs on unread.
    end: Option<(TrainingEnd, Vec<f32>)>,
}

/// Models and their numbers on the device, `[models, ..]` in one order.
pub struct Squad<'a> {
    device: Arc<dyn Device>,
    rhythm: Rhythm,
    layout: Layout,
    models: Vec<Model<'a>>,
    /// A job of each of the different trainings.
    settings: Vec<&'a ToyJob>,
    /// Most models of a block.
    widest: usize,
    stage: usize,
    /// How many have not diverged.
    running: usize,
    memory: Memory,
}

struct Memory {
    blocks: Buffer<BlockArgs>,
    parameters: Buffer<f32>,
    first: Buffer<f32>,
    second: Buffer<f32>,
    slopes: Buffer<f32>,
    setting_of: Buffer<u32>,
    /// `[settings, most steps of a range]`
    steps: Buffer<StepArgs>,
    batch_of: Buffer<u32>,
    losses: Buffer<f64>,
    wrong: Buffer<u32>,
    embedding: Option<Buffer<f32>>,
}

/// The members of a squad, in order of their batches.
pub struct Members<'a> {
    pub rhythm: Rhythm,
    pub layout: Layout,
    /// Runs with the index of their batches: 2 stream, or 2 stream + 1 where silent samples are left out.
    pub runs: Vec<(Run, &'a ToyJob, usize)>,
}

impl<'a> Squad<'a> {
    /// Puts the models on the device as they are before the first step.
    ///
    /// # Errors
    /// No room.
    pub fn new(
        device: &Arc<dyn Device>,
        members: Members<'a>,
        streams: &Streams,
        most_steps: usize,
    ) -> Result<Squad<'a>, DeviceError> {
        let Members { rhythm, layout, runs } = members;
        let (mut parameters, mut slopes, mut setting_of) = (vec![], vec![], vec![]);
        let mut settings: Vec<&ToyJob> = vec![];
        let (mut models, mut batch_of) = (Vec::with_capacity(runs.len()), vec![]);
        for &(run, job, batch) in &runs {
            parameters.extend(job.initial_model(run.restart).parameters());
            slopes.extend(job.slopes());
            let known = settings.iter().position(|of| of.train == job.train);
            setting_of.push(known.unwrap_or(settings.len()) as u32);
            if known.is_none() {
                settings.push(job);
            }
            batch_of.push(batch as u32);
            let unscale = 1.0 / job.loss_factor();
            models.push(Model { run, job, unscale, guard: Guard::default(), trace: vec![], end: None });
        }
        let blocks = blocks(&batch_of, layout.models());
        let tiles = batch_of.iter().map(|batch| streams.tiles(*batch as usize / 2)).max().unwrap_or(0);
        let memory = Memory {
            first: Buffer::zeros(device, parameters.len())?,
            second: Buffer::zeros(device, parameters.len())?,
            parameters: Buffer::of(device, &parameters)?,
            slopes: Buffer::of(device, &slopes)?,
            setting_of: Buffer::of(device, &setting_of)?,
            steps: Buffer::undefined(device, settings.len() * most_steps)?,
            batch_of: Buffer::of(device, &batch_of)?,
            losses: Buffer::undefined(device, models.len())?,
            wrong: Buffer::undefined(device, models.len())?,
            blocks: Buffer::of(device, &blocks)?,
            embedding: padded_embedding(rhythm.shape).map(|e| Buffer::of(device, &e)).transpose()?,
        };
        let (widest, running) = (blocks.iter().map(|block| block.count).max().unwrap_or(0) as usize, models.len());
        let stage = layout.stage(tiles);
        Ok(Squad { device: device.clone(), rhythm, layout, models, settings, widest, stage, running, memory })
    }

    /// Whether there is something left to do at `step`.
    pub fn trains(&self, step: usize) -> bool {
        step < self.rhythm.steps && self.running > 0
    }

    /// The first step after `step` before which a launch has to end.
    pub fn next_look(&self, step: usize) -> usize {
        let Rhythm { steps, trace_every, .. } = self.rhythm;
        let guard = (step / 64 + 1) * 64;
        let log = step.checked_div(trace_every).map_or(usize::MAX, |logged| (logged + 1) * trace_every);
        let last = if step + 1 < steps { steps - 1 } else { steps };
        guard.min(log).min(last)
    }

    /// Steps of the drawn `range`, whose first is looked at and logged where it is time. Returns how many model-steps
    /// this brings the models nearer to their ends: all that are left of those that diverge.
    ///
    /// # Errors
    /// The device fails.
    pub fn advance(&mut self, streams: &Streams, range: Range<usize>) -> Result<u64, DeviceError> {
        let Rhythm { steps, .. } = self.rhythm;
        let numbers = |of: &ToyJob, step: usize| {
            let hidden_bias = of.bias_decay(step).map_or(1.0, |(_, factor)| factor as f32);
            StepArgs::new(step_numbers(&of.train, step), hidden_bias)
        };
        let table: Vec<StepArgs> =
            self.settings.iter().flat_map(|of| range.clone().map(move |step| numbers(of, step))).collect();
        self.memory.steps.write(0, &table)?;
        let mut args = self.args(streams, range.len());
        let ended = self.look(&args, range.start)?;
        let mut done = 0;
        if !ended.is_empty() {
            // One step more, as on the CPU, is what comes out of a model that diverged.
            args.n_steps = 1;
            self.launch(&args)?;
            args.from = 1;
            let parameters = self.memory.parameters.read()?;
            for (model, end) in ended {
                self.models[model].end = Some((end, self.of_model(&parameters, model)));
                self.running -= 1;
                done += (steps - range.start) as u64;
            }
        }
        args.n_steps = range.len() as u32 - args.from;
        if args.n_steps > 0 && self.running > 0 {
            self.launch(&args)?;
        }
        Ok(done + (self.running * range.len()) as u64)
    }

    fn args(&self, streams: &Streams, steps_stride: usize) -> ToyArgs {
        let Memory { blocks, parameters, first, second, slopes, setting_of, steps, batch_of, losses, wrong, embedding } =
            &self.memory;
        let shape = self.rhythm.shape;
        ToyArgs {
            blocks: blocks.pointer(),
            batches: streams.pointer(),
            parameters: parameters.pointer(),
            first: first.pointer(),
            second: second.pointer(),
            slopes: slopes.pointer(),
            settings: setting_of.pointer(),
            steps: steps.pointer(),
            batch_of: batch_of.pointer(),
            losses: losses.pointer(),
            wrong: wrong.pointer(),
            n: shape.n_features as u32,
            m: shape.d_hidden as u32,
            from: 0,
            n_steps: 0,
            steps_stride: steps_stride as u32,
            relu: u32::from(shape.kind.relu_output()),
            stage: self.stage as u32,
            kind: kind_code(shape.kind),
            activation: activation_code(shape.kind.activation()),
            n_inputs: n_inputs(shape) as u32,
            embedding: embedding.as_ref().map_or(Pointer::NULL, Buffer::pointer),
        }
    }

    fn launch(&self, args: &ToyArgs) -> Result<(), DeviceError> {
        let launch = self.layout.launch(self.memory.blocks.len(), self.widest, self.stage);
        self.device.launch(launch, bytemuck::bytes_of(args))
    }

    /// The part of `[models, n_parameters]` that belongs to a model.
    fn of_model(&self, parameters: &[f32], model: usize) -> Vec<f32> {
        let length = self.rhythm.shape.n_parameters();
        parameters[model * length..][..length].to_vec()
    }

    /// Losses and weights before `step`, for the guards and the traces, where it is time; returns who has diverged.
    fn look(&mut self, args: &ToyArgs, step: usize) -> Result<Vec<(usize, TrainingEnd)>, DeviceError> {
        let (looked_at, logged) = (Guard::looks(step, self.rhythm.steps), self.models[0].job.logs(step));
        if !looked_at && !logged {
            return Ok(vec![]);
        }
        let launch = self.layout.loss_launch(self.models.len());
        self.device.launch(launch, bytemuck::bytes_of(args))?;
        let (losses, wrong) = (self.memory.losses.read()?, self.memory.wrong.read()?);
        let snapshots = logged && self.rhythm.snapshots;
        let parameters = if snapshots { self.memory.parameters.read()? } else { vec![] };
        let mut ended = vec![];
        for model in 0..self.models.len() {
            let parameters = snapshots.then(|| self.of_model(&parameters, model));
            let (shape, model, index) = (self.rhythm.shape, &mut self.models[model], model);
            if model.end.is_some() {
                continue;
            }
            let loss = losses[index] * model.unscale;
            if looked_at {
                let end = model.guard.judge(step, Some(loss), tensor_at(shape, wrong[index]));
                ended.extend(end.map(|end| (index, end)));
            }
            if logged && loss.is_finite() {
                model.trace.push(ToyTrace { step, loss, parameters });
            }
        }
        Ok(ended)
    }

    /// What each came to: nothing for those that had steps left at `step`. Others are looked at once more.
    ///
    /// # Errors
    /// The device fails.
    pub fn finish(mut self, step: usize) -> Result<Vec<(Run, Option<ToyOutcome>)>, DeviceError> {
        let parameters = self.memory.parameters.read()?;
        let own: Vec<Vec<f32>> = (0..self.models.len()).map(|model| self.of_model(&parameters, model)).collect();
        let Rhythm { shape, steps, .. } = self.rhythm;
        let outcome = |(mut model, parameters): (Model, Vec<f32>)| {
            if step < steps && model.end.is_none() {
                return (model.run, None);
            }
            let (end, parameters) = model.end.unwrap_or_else(|| {
                let end = model.guard.look(steps, None, shape, &parameters);
                (end.unwrap_or(TrainingEnd::Finished), parameters)
            });
            let (restart, trace) = (model.run.restart, model.trace);
            (model.run, Some(ToyOutcome { model: ToyModel::from_parameters(shape, &parameters), restart, end, trace }))
        };
        Ok(std::mem::take(&mut self.models).into_iter().zip(own).map(outcome).collect())
    }
}

/// The embedding of an `mlp` as kernels read it.
fn padded_embedding(shape: Shape) -> Option<Vec<f32>> {
    let ToyKind::Mlp(Mlp { d_embedding, seed, .. }) = shape.kind else { return None };
    let stride = matrix_stride(d_embedding);
    let mut padded = vec![0.0; shape.n_features * stride];
    let rows = embedding(shape.n_features, d_embedding, seed);
    for (to, from) in padded.chunks_exact_mut(stride).zip(rows.chunks_exact(d_embedding)) {
        to[..d_embedding].copy_from_slice(from);
    }
    Some(padded)
}

/// `KIND_..` of `kernels/toy.cuh`.
fn kind_code(kind: ToyKind) -> u32 {
    match kind {
        ToyKind::Linear | ToyKind::ReluOutput => 0,
        ToyKind::ReluHidden => 1,
        ToyKind::AbsoluteValue => 2,
        ToyKind::Mlp(_) => 3,
        ToyKind::Quadratic => 4,
    }
}

/// `ACTIVATION_..` of `kernels/toy.cuh`.
fn activation_code(activation: Activation) -> u32 {
    match activation {
        Activation::Identity => 0,
        Activation::Relu => 1,
        Activation::Gelu => 2,
    }
}

/// The tensor that flat parameter `index` belongs to; none for `u32::MAX`.
fn tensor_at(shape: Shape, index: u32) -> Option<&'static str> {
    let mut end = 0;
    shape.parts().into_iter().find_map(|(name, length)| {
        end += length;
        ((index as usize) < end).then_some(name)
    })
}

/// Blocks of at most `most` models that are neighbours and have one batch.
fn blocks(batch_of: &[u32], most: usize) -> Vec<BlockArgs> {
    let mut blocks = vec![];
    let mut first = 0;
    for alike in batch_of.chunk_by(|a, b| a == b) {
        for piece in alike.chunks(most) {
            blocks.push(BlockArgs { batch: piece[0], first: first as u32, count: piece.len() as u32, unused: 0 });
            first += piece.len();
        }
    }
    blocks
}

/// Bytes that a model takes on the device.
pub fn model_bytes(shape: Shape) -> usize {
    4 * (3 * shape.n_parameters() + shape.n_features) + size_of::<f64>() + 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::ToyKind;

    #[test]
    fn blocks_hold_models_of_one_batch() {
        let found = blocks(&[4, 4, 4, 5, 7, 7], 2);
        let found: Vec<_> = found.iter().map(|block| (block.batch, block.first, block.count)).collect();
        assert_eq!(found, [(4, 0, 2), (4, 2, 1), (5, 3, 1), (7, 4, 2)]);
        assert!(blocks(&[], 4).is_empty());
    }

    #[test]
    fn a_parameter_belongs_to_a_tensor() {
        let shape = Shape { kind: ToyKind::ReluOutput, n_features: 3, d_hidden: 2 };
        assert_eq!([0, 5, 6, 8].map(|at| tensor_at(shape, at)), [Some("w"), Some("w"), Some("b"), Some("b")]);
        assert_eq!(tensor_at(shape, u32::MAX), None);
    }
}
