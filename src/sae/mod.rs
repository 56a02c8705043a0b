//! Sparse autoencoders: h to latents to a reconstruction. One architecture, one file.

#[cfg(test)]
pub(crate) mod golden;
pub mod program;
pub mod relu;
pub mod topk;
pub mod train;
pub mod weights;

use ndarray::{Array2, ArrayD, ArrayView2};

pub use program::{Penalty, Program};
pub use weights::{Sae, Weights};

use crate::toy::TrainingEnd;
use crate::training::{Optimizer, Schedule};

/// Version of what SAE training computes, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 1;

/// What an SAE or a baseline leaves behind, as far as scores need it.
pub trait Coder: Send + Sync {
    fn n_latents(&self) -> usize;
    fn d_hidden(&self) -> usize;
    /// As trained, not normalised: `[n_latents, d_hidden]`.
    fn decoder(&self) -> ArrayView2<'_, f32>;
    /// Latents under the inference rule of h `[samples, d_hidden]`: `[samples, n_latents]`.
    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32>;
    /// Reconstruction `[samples, d_hidden]` of latents `[samples, n_latents]`.
    fn decode(&self, latents: ArrayView2<'_, f32>) -> Array2<f32>;
    /// Every array that makes it, by name, for export.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)>;
}

/// Which architecture, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// z = ReLU(pre), L1 penalty.
    Relu { l1: f64, decoder: DecoderRule },
    /// The k greatest pre_j |decoder_j| of a sample, then ReLU.
    TopK { k: usize, aux_k: usize },
}

impl Architecture {
    /// What a step of it does.
    pub fn program(&self) -> Program {
        match *self {
            Architecture::Relu { l1, decoder } => relu::program(l1, decoder),
            Architecture::TopK { k, aux_k } => topk::program(k, aux_k),
        }
    }
}

/// What holds the decoder of a ReLU autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderRule {
    /// Unit rows; the gradient's part along each row is projected out.
    UnitNorm,
    /// Free rows; the penalty weighs each latent by its row's norm.
    NormPenalty,
}

/// Scale of the inputs an SAE sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalise {
    None,
    /// Inputs times sqrt(d) / mean norm of the first batches.
    MeanNorm,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SaeTrain {
    pub steps: usize,
    pub batch_size: usize,
    pub optimizer: Optimizer,
    pub lr: f64,
    pub schedule: Schedule,
    /// Share of the steps over which the learning rate rises linearly from 0.
    pub warmup: f64,
    /// Share of the steps over which it falls linearly to 0 at the end.
    pub decay: f64,
    /// Greatest global gradient norm; none: not clipped.
    pub clip: Option<f64>,
    pub weight_decay: f64,
    pub normalise: Normalise,
    /// A latent that has not fired for more than this many steps is dead and gets the auxiliary loss.
    pub dead_after: usize,
}

#[derive(Clone, Debug)]
pub struct SaeJob {
    pub seed: u64,
    pub n_latents: usize,
    pub architecture: Architecture,
    pub train: SaeTrain,
    /// Log every so many steps; 0 never.
    pub trace_every: usize,
}

/// A logged step of an SAE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaeTrace {
    pub step: usize,
    /// Mean over the batch of the summed squared error, plus penalties.
    pub loss: f64,
    pub l0: f64,
}

pub struct SaeOutcome {
    pub coder: Box<dyn Coder>,
    pub end: TrainingEnd,
    pub trace: Vec<SaeTrace>,
}
