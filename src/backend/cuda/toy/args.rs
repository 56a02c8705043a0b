//! What kernels take, byte for byte as in `kernels/toy.cuh` and `kernels/toy_pack.cu`.

use bytemuck::{Pod, Zeroable};

use crate::backend::cuda::device::Pointer;
use crate::backend::ops::optimizer::Step;

/// Batches that models share.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BatchArgs {
    /// `[steps, tiles, n_features, 16]`: the samples that are walked; lanes past the last are 0.
    pub x: Pointer<f32>,
    /// `[steps]`: how many are walked; null where all are.
    pub counts: Pointer<u32>,
    /// Floats from a step to the next, 0 where every step has the same batch.
    pub x_stride: u64,
    /// The same for `counts`.
    pub count_stride: u32,
    /// Samples of a batch, silent ones among them.
    pub samples: u32,
}

/// Models that a block of threads trains.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockArgs {
    /// Index of their batches.
    pub batch: u32,
    /// The first.
    pub first: u32,
    /// How many, one after another.
    pub count: u32,
    pub unused: u32,
}

/// A [`Step`].
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StepArgs {
    /// 0 Adam and AdamW, 1 SGD.
    pub rule: u32,
    /// 1 - beta1, or the momentum.
    pub first: f32,
    /// 1 - beta2.
    pub second: f32,
    pub rate: f32,
    pub scale: f32,
    pub epsilon: f32,
    pub decay: f32,
    pub shrink: f32,
    /// Factor of an mlp's hidden bias after the step.
    pub hidden_bias: f32,
    pub unused: u32,
}

impl StepArgs {
    /// A step, and after it the factor of the hidden bias.
    pub fn new(step: Step, hidden_bias: f32) -> StepArgs {
        let none = StepArgs { hidden_bias, ..StepArgs::zeroed() };
        match step {
            Step::Adaptive { take: [first, second], rate, scale, epsilon, decay, shrink } => {
                StepArgs { rule: 0, first, second, rate, scale, epsilon, decay, shrink, ..none }
            }
            Step::Sgd { momentum, rate, decay } => StepArgs { rule: 1, first: momentum, rate, decay, ..none },
        }
    }
}

/// What the training kernels and those of the loss take. Models have the parameters of their shape, P of them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ToyArgs {
    pub blocks: Pointer<BlockArgs>,
    pub batches: Pointer<BatchArgs>,
    /// `[models, P]`
    pub parameters: Pointer<f32>,
    /// Moments, likewise.
    pub first: Pointer<f32>,
    pub second: Pointer<f32>,
    /// `[models, slopes]`
    pub slopes: Pointer<f32>,
    /// `[models]`: row of `steps`.
    pub settings: Pointer<u32>,
    /// `[settings, steps_stride]`
    pub steps: Pointer<StepArgs>,
    /// `[models]`: index of their batches; for the loss alone, as the next two.
    pub batch_of: Pointer<u32>,
    /// `[models]`
    pub losses: Pointer<f64>,
    /// `[models]`: the first parameter that is not finite, or `u32::MAX`.
    pub wrong: Pointer<u32>,
    pub n: u32,
    pub m: u32,
    /// Steps of the batches that are walked.
    pub from: u32,
    pub n_steps: u32,
    pub steps_stride: u32,
    /// 1 where outputs go through a ReLU.
    pub relu: u32,
    /// What of x is in shared memory at a time: tiles, or for `toy_block` and `toy_layers` samples.
    pub stage: u32,
    /// `KIND_..` and `ACTIVATION_..` of `kernels/toy.cuh`.
    pub kind: u32,
    pub activation: u32,
    /// Rows of W: n, or the dimensions of the embedding.
    pub n_inputs: u32,
    /// `[n, n_inputs]`, its rows rounded up to an odd number of float4; null where there is none.
    pub embedding: Pointer<f32>,
}

/// A stream of batches to be packed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PackOne {
    /// `[steps, tiles, n_features, 16]`
    pub x: Pointer<f32>,
    /// `[steps, words]`: bit s of word s / 32: something fires in sample s.
    pub live: Pointer<u32>,
    /// As `x`.
    pub packed: Pointer<f32>,
    /// `[steps]`
    pub counts: Pointer<u32>,
    pub x_stride: u64,
    pub live_stride: u32,
    pub samples: u32,
    pub n: u32,
    pub unused: u32,
}

/// What `toy_pack` takes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PackArgs {
    pub packs: Pointer<PackOne>,
    /// Of each stream.
    pub steps: u32,
    pub unused: u32,
}

macro_rules! plain {
    ($($name:ident: $size:literal),*) => {$(
        // SAFETY: numbers and addresses; zero is a value of each.
        unsafe impl Zeroable for $name {}
        // SAFETY: numbers and addresses without padding (the size below is the sum of theirs), and Copy.
        unsafe impl Pod for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

plain!(BatchArgs: 32, BlockArgs: 16, StepArgs: 40, ToyArgs: 136, PackOne: 56, PackArgs: 16);
