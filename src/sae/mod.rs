//! Sparse autoencoders: h to latents to a reconstruction. One architecture, one file.

pub mod batch_topk;
pub mod dead_latents;
pub mod gated;
#[cfg(test)]
pub(crate) mod golden;
pub mod init;
pub mod jumprelu;
pub mod matching_pursuit;
pub mod matryoshka;
pub mod normalise;
pub mod program;
pub mod relu;
pub mod restored;
pub mod target_l0;
pub mod topk;
pub mod train;
pub mod weights;

use std::sync::Arc;

use ndarray::{Array2, ArrayD, ArrayView2};

pub use dead_latents::Resample;
pub use init::{BiasInit, Init};
pub use jumprelu::{JumpRelu, Size, Sparsity};
pub use matryoshka::{Levels, Prefixes, Sort};
pub use normalise::{Inputs, Normalise};
pub use program::{BatchInference, KAnneal, Penalty, Program, Pursuit, Rule};
pub use target_l0::{Controller, Target};
pub use weights::{Inference, Sae, Weights};

use crate::backend::checkpoint::record;
use crate::codes::Codes;
use crate::toy::TrainingEnd;
use crate::training::{Optimizer, Schedule};

/// Version of what SAE training computes, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 3;

/// What an SAE or a baseline leaves behind, as far as scores need it.
pub trait Coder: Send + Sync {
    /// Width of the dictionary.
    fn n_latents(&self) -> usize;
    /// Width of h.
    fn d_hidden(&self) -> usize;
    /// As trained, not normalised: `[n_latents, d_hidden]`.
    fn decoder(&self) -> ArrayView2<'_, f32>;
    /// Latents under the inference rule of h `[samples, d_hidden]`: `[samples, n_latents]`, in units of h, so that z_j
    /// decoder_j is what latent j contributes to the reconstruction.
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
    /// Reconstruction `[samples, d_hidden]` of latents `[samples, n_latents]`. Of `h` `[samples, d_hidden]`, which they
    /// encode, it sees what normalisation of single samples has taken away.
    fn decode(&self, latents: ArrayView2<'_, f32>, h: ArrayView2<'_, f32>) -> Array2<f32>;
    /// [`Coder::encode`], by what is not 0.
    fn encode_sparse(&self, h: ArrayView2<'_, f32>) -> Codes<f32> {
        Codes::of_dense(self.encode(h).view())
    }
    /// [`Coder::decode`] of sparse latents.
    fn decode_sparse(&self, latents: &Codes<f32>, h: ArrayView2<'_, f32>) -> Array2<f32> {
        self.decode(latents.to_dense().view(), h)
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
    /// The k greatest pre_j |decoder_j| a sample on average, over the batch.
    BatchTopK {
        /// Mean latents of a sample, above 0, at most n_latents.
        k: f64,
        /// Dead latents that reconstruct the residual of a sample; 0: no such loss.
        aux_k: usize,
        /// What holds for single samples after training.
        inference: BatchInference,
    },
    /// A gate decides which latents are active, a second bias and scale how much.
    Gated {
        /// Weight of the penalty.
        l1: f64,
        /// SAELens' objective instead of the paper's.
        parity: bool,
    },
    /// A threshold of its own for each latent.
    JumpRelu(JumpRelu),
    /// Prefixes of the latents reconstruct too.
    Matryoshka {
        /// Relu, TopK or BatchTopK.
        nested: Box<Architecture>,
        /// Which prefixes, and how they count.
        levels: Levels,
        /// The dead latents of each level reconstruct what that level leaves over.
        aux_by_level: bool,
    },
    /// One latent after the other.
    MatchingPursuit {
        /// Iterations and when they end.
        pursuit: Pursuit,
        /// Rows stay unit.
        unit_decoder: bool,
    },
}

impl Architecture {
    /// What a step of it does, with no options and sizes as they are.
    pub fn program(&self) -> Program {
        self.program_at(1.0)
    }

    /// What a step of it does where one feature of the hidden states has size `unit`.
    pub fn program_at(&self, unit: f64) -> Program {
        match self {
            Architecture::Relu { l1, decoder } => relu::program(*l1, *decoder),
            Architecture::TopK { k, aux_k } => topk::program(*k, *aux_k),
            Architecture::BatchTopK { k, aux_k, inference } => batch_topk::program(*k, *aux_k, *inference),
            Architecture::Gated { l1, parity } => gated::program(*l1, *parity),
            Architecture::JumpRelu(settings) => jumprelu::program(settings, unit),
            Architecture::Matryoshka { nested, levels, aux_by_level } => {
                let levels = Some(levels.clone());
                Program { levels, aux_by_level: *aux_by_level, ..nested.program_at(unit) }
            }
            Architecture::MatchingPursuit { pursuit, unit_decoder } => {
                matching_pursuit::program(*pursuit, *unit_decoder)
            }
        }
    }
}

/// What every architecture may be given beside its own settings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The encoder is the decoder's transpose.
    pub tied: bool,
    /// Initial directions.
    pub init: Init,
    /// Norm of the initial decoder rows; none: the architecture's.
    pub init_norm: Option<f64>,
    /// Initial decoder bias.
    pub bias_init: BiasInit,
    /// Dead latents in the auxiliary loss; none: as the architecture says.
    pub aux_k: Option<usize>,
    /// Dead latents start anew.
    pub resample: Option<Resample>,
    /// The penalty's coefficient is led by a wanted L0.
    pub target: Option<Target>,
    /// The penalty's coefficient is in units of a feature's size (its square for JumpReLU): spread of h over sqrt(target L0).
    pub relative_penalty: bool,
    /// Share of the steps over which the penalty's coefficient rises.
    pub penalty_warmup: f64,
    /// k comes down from a greater one.
    pub k_anneal: Option<KAnneal>,
}

/// A decoder that is given and not trained.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenDecoder {
    /// `[n_latents, d_hidden]`
    pub w_dec: Vec<f32>,
    /// `[d_hidden]`
    pub b_dec: Vec<f32>,
}

/// What holds the decoder of a ReLU autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderRule {
    /// Unit rows; the gradient's part along each row is projected out.
    UnitNorm,
    /// Free rows; the penalty weighs each latent by its row's norm.
    NormPenalty,
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
    /// What goes beside the architecture.
    pub options: Options,
    /// How it is trained.
    pub train: SaeTrain,
    /// Decoder and decoder bias, given and not trained: for h as it is, or as it is seen where samples are normalised by
    /// themselves; the encoder starts at its unit rows.
    pub frozen_decoder: Option<Arc<FrozenDecoder>>,
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
    /// Where the penalty's coefficient is led by a wanted L0: its multiplier and the smoothed L0, after this step.
    pub control: Option<Control>,
}

/// What a controller of L0 says at a logged step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Control {
    /// Factor of the coefficient.
    pub multiplier: f64,
    /// Smoothed L0.
    pub l0_smoothed: f64,
}

record!(SaeTrace { step, loss, l0, control });
record!(Control { multiplier, l0_smoothed });

/// What training leaves behind.
pub struct SaeOutcome {
    /// Under its inference rule, for h as it is (whatever training saw of it).
    pub coder: Box<dyn Coder>,
    /// Finished or diverged; then the weights are those of the step where that was found.
    pub end: TrainingEnd,
    /// Logged steps.
    pub trace: Vec<SaeTrace>,
    /// Why a wanted L0 counts as missed; none where there is none or it was reached.
    pub missed: Option<String>,
}
