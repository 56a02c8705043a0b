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

use crate::codes::Codes;
use crate::toy::TrainingEnd;
use crate::training::{Optimizer, Schedule};

/// Version of what SAE training computes, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 1;

/// What an SAE or a baseline leaves behind, as far as scores need it.
pub trait Coder: Send + Sync {
    /// Width of the dictionary.
    fn n_latents(&self) -> usize;
    /// Width of h.
    fn d_hidden(&self) -> usize;
    /// As trained, not normalised: `[n_latents, d_hidden]`.
    fn decoder(&self) -> ArrayView2<'_, f32>;
    /// Latents under the inference rule of h `[samples, d_hidden]`: `[samples, n_latents]`.
    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32>;
    /// The same where the true activations x `[samples, n_features]` are at hand: only an oracle looks at them.
    fn encode_knowing(&self, h: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>) -> Array2<f32> {
        let _ = x;
        self.encode(h)
    }
    /// Whether [`Coder::encode`] cannot be asked without the true activations.
    fn needs_truth(&self) -> bool {
        false
    }
    /// Reconstruction `[samples, d_hidden]` of latents `[samples, n_latents]`.
    fn decode(&self, latents: ArrayView2<'_, f32>) -> Array2<f32>;
    /// [`Coder::encode`], by what is not 0.
    fn encode_sparse(&self, h: ArrayView2<'_, f32>) -> Codes<f32> {
        Codes::of_dense(self.encode(h).view())
    }
    /// [`Coder::decode`] of sparse latents.
    fn decode_sparse(&self, latents: &Codes<f32>) -> Array2<f32> {
        self.decode(latents.to_dense().view())
    }
    /// Every array that makes it, by name, for export.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)>;
}

/// Which architecture, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Architecture {
    /// z = ReLU(pre), L1 penalty.
    Relu {
        /// Weight of the penalty.
        l1: f64,
        /// What holds the decoder.
        decoder: DecoderRule,
    },
    /// The k greatest pre_j |decoder_j| of a sample, then ReLU.
    TopK {
        /// Latents kept of a sample, 1 to n_latents.
        k: usize,
        /// Dead latents that reconstruct the residual of a sample; 0: no such loss.
        aux_k: usize,
    },
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
    /// As they are.
    None,
    /// Inputs times sqrt(d) / mean norm of the first batches.
    MeanNorm,
}

/// How an autoencoder is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct SaeTrain {
    /// Batches.
    pub steps: usize,
    /// Samples in a batch.
    pub batch_size: usize,
    /// How gradients move weights.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub lr: f64,
    /// The learning rate's course, apart from `warmup` and `decay`.
    pub schedule: Schedule,
    /// Share of the steps over which the learning rate rises linearly from 0.
    pub warmup: f64,
    /// Share of the steps over which it falls linearly to 0 at the end.
    pub decay: f64,
    /// Greatest global gradient norm; none: not clipped.
    pub clip: Option<f64>,
    /// As the optimiser has it.
    pub weight_decay: f64,
    /// Scale of the inputs.
    pub normalise: Normalise,
    /// A latent that has not fired for more than this many steps is dead and gets the auxiliary loss.
    pub dead_after: usize,
}

/// One autoencoder to train.
#[derive(Clone, Debug)]
pub struct SaeJob {
    /// Seed of its initial weights.
    pub seed: u64,
    /// Width of the dictionary.
    pub n_latents: usize,
    /// Which kind, with its settings.
    pub architecture: Architecture,
    /// How it is trained.
    pub train: SaeTrain,
    /// Log every so many steps; 0 never.
    pub trace_every: usize,
}

/// A logged step of an SAE.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaeTrace {
    /// From 0.
    pub step: usize,
    /// Mean over the batch of the summed squared error, plus penalties.
    pub loss: f64,
    /// Mean number of latents with z > 0.
    pub l0: f64,
}

/// What training leaves behind.
pub struct SaeOutcome {
    /// Under its inference rule, for h as it is (whatever scale it was trained at).
    pub coder: Box<dyn Coder>,
    /// Finished or diverged; then the weights are those of the step where that was found.
    pub end: TrainingEnd,
    /// Logged steps.
    pub trace: Vec<SaeTrace>,
}
