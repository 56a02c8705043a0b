//! What one training step of an architecture does, as data.
//!
//! Every architecture here encodes pre = W_enc (h - b_dec) + b_enc and reconstructs ĥ = W_decᵀ z + b_dec. They differ in
//! how pre becomes z, in what is added to the squared error, and in what holds the decoder. A program says just that;
//! backends interpret it and own everything else: data, gradients, clipping, optimiser, dead latents.

use super::dead_latents::Resample;
use super::matryoshka::Levels;
use super::target_l0::Target;
use super::weights::Inference;
use crate::backend::ops::select::Keep;

/// One architecture's step.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// How pre-activations become z.
    pub rule: Rule,
    /// What is added to the squared error for each latent.
    pub penalty: Penalty,
    /// Dead latents that reconstruct the residual of each sample (Gao et al. 2024, appendix A.2); 0: no such loss.
    ///
    /// The `aux_k` (or as many as are dead) dead latents of greatest pre_j |decoder_j|, without ReLU and without b_dec,
    /// reconstruct h - ĥ, held constant. Their mean squared error, times min(n_dead / aux_k, 1), joins the loss.
    pub aux_k: usize,
    /// The dead latents of each level reconstruct what that level leaves over, each level with its own such loss.
    pub aux_by_level: bool,
    /// Nested reconstructions; none: the whole alone.
    pub levels: Option<Levels>,
    /// Decoder rows stay unit: their gradients' parts along the rows are taken out, and each step ends by dividing rows
    /// by their norms.
    pub unit_decoder: bool,
    /// The encoder is the decoder's transpose: one matrix, whose gradient is the sum of both.
    pub tied: bool,
    /// Decoder and decoder bias stay as they started.
    pub frozen_decoder: bool,
    /// Norm of the initial decoder rows.
    pub init_norm: f64,
    /// Initial threshold of each latent, where the rule has thresholds.
    pub init_threshold: f64,
    /// The penalty's coefficient is led by a wanted L0.
    pub target: Option<Target>,
    /// Share of the steps over which the penalty's coefficient rises linearly.
    pub penalty_warmup: f64,
    /// k falls linearly from `from` over the first `share` of the steps.
    pub k_anneal: Option<KAnneal>,
    /// Dead latents start anew.
    pub resample: Option<Resample>,
}

/// How pre-activations become z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// z = ReLU(pre).
    Positive,
    /// ReLU of the k latents of greatest pre_j |decoder_j| of a sample; ties to the lower latent.
    Top(usize),
    /// ReLU(pre_j) where it is among the ⌊k n⌋ greatest ReLU(pre_j) |decoder_j| of a batch of n samples; ties in (sample,
    /// latent) order.
    BatchTop {
        /// Mean latents of a sample.
        k: f64,
        /// What holds for single samples after training.
        inference: BatchInference,
    },
    /// z = pre where pre > threshold, else 0.
    Jump {
        /// Width of the window around the threshold in which it gets a gradient.
        bandwidth: f64,
        /// The window's gradient reaches pre too, not the threshold alone.
        input_gradient: bool,
        /// Weight of the loss Σ ReLU(threshold - pre) |decoder| of dead latents; 0: none.
        silent: f64,
    },
    /// z = ReLU(exp(r_mag) u + b_mag) where π = u + b_gate > 0, u = W_enc (h - b_dec); and ReLU(π) reconstructs too.
    Gated {
        /// The second reconstruction holds the decoder and its bias constant.
        hold_decoder: bool,
    },
    /// One latent after the other, each the best for what is left over.
    Pursuit(Pursuit),
}

/// What a BatchTopK autoencoder does with single samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchInference {
    /// Keeps pre_j where pre_j |decoder_j| exceeds the running threshold of training.
    Threshold,
    /// Selects over batches, as in training.
    Batch,
}

/// Matching pursuit (Mallat & Zhang 1993) as an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pursuit {
    /// Iterations, at most.
    pub k: usize,
    /// A sample is done when less than this norm is left over; 0: never for that reason.
    pub residual_threshold: f64,
    /// A sample is done when an iteration adds no new latent.
    pub stop_on_duplicate: bool,
}

/// A penalty on latents, mean over the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// No penalty.
    None,
    /// coefficient · Σ_j z_j, or coefficient · Σ_j z_j |decoder_j|, whose gradient reaches the decoder. Of a gated
    /// autoencoder ReLU(π_j) takes the place of z_j.
    L1 {
        /// Weight in the loss.
        coefficient: f64,
        /// Whether latents count times their decoder rows' norms.
        by_norm: bool,
    },
    /// coefficient · the number of latents with pre > threshold, by a straight-through estimator (Rajamanoharan et al. 2024).
    Step {
        /// Weight in the loss.
        coefficient: f64,
    },
    /// coefficient · Σ_j tanh(scale · z_j |decoder_j|) (Anthropic, January 2025 update).
    Tanh {
        /// Weight in the loss.
        coefficient: f64,
        /// Steepness.
        scale: f64,
    },
    /// coefficient · 2 / target · (L0 - target)² of each sample, by the same estimator (Gemma Scope 2).
    Quadratic {
        /// Weight in the loss.
        coefficient: f64,
        /// L0 of least loss.
        target: f64,
    },
}

impl Penalty {
    /// The weight in the loss; 0 where there is no penalty.
    pub fn coefficient(&self) -> f64 {
        match *self {
            Penalty::None => 0.0,
            Penalty::L1 { coefficient, .. }
            | Penalty::Step { coefficient }
            | Penalty::Tanh { coefficient, .. }
            | Penalty::Quadratic { coefficient, .. } => coefficient,
        }
    }

    /// The same penalty with another weight.
    pub fn with_coefficient(self, weight: f64) -> Penalty {
        match self {
            Penalty::None => Penalty::None,
            Penalty::L1 { by_norm, .. } => Penalty::L1 { coefficient: weight, by_norm },
            Penalty::Step { .. } => Penalty::Step { coefficient: weight },
            Penalty::Tanh { scale, .. } => Penalty::Tanh { coefficient: weight, scale },
            Penalty::Quadratic { target, .. } => Penalty::Quadratic { coefficient: weight, target },
        }
    }
}

/// k comes down from a greater one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KAnneal {
    /// k at the first step.
    pub from: f64,
    /// Share of the steps after which it is what the architecture says.
    pub share: f64,
}

impl Program {
    /// A program of `rule` alone: no penalty, free decoder rows that start with norm .1.
    pub fn plain(rule: Rule) -> Program {
        Program {
            rule,
            penalty: Penalty::None,
            aux_k: 0,
            aux_by_level: false,
            levels: None,
            unit_decoder: false,
            tied: false,
            frozen_decoder: false,
            init_norm: 0.1,
            init_threshold: 0.0,
            target: None,
            penalty_warmup: 0.0,
            k_anneal: None,
            resample: None,
        }
    }

    /// Latents kept of a sample (or on average of a batch) at `step` of `steps`; none where the rule has no k.
    pub fn k_at(&self, step: usize, steps: usize) -> Option<f64> {
        let k = match self.rule {
            Rule::Top(k) => k as f64,
            Rule::BatchTop { k, .. } => k,
            _ => return None,
        };
        let Some(KAnneal { from, share }) = self.k_anneal else { return Some(k) };
        let width = share * steps as f64;
        let done = if width > 0.0 { (step as f64 / width).min(1.0) } else { 1.0 };
        Some(from + (k - from) * done)
    }

    /// The penalty at `step` of `steps`, before any controller.
    pub fn penalty_at(&self, step: usize, steps: usize, multiplier: f64) -> Penalty {
        let rise = crate::training::ramp_up(step, steps, self.penalty_warmup);
        self.penalty.with_coefficient(self.penalty.coefficient() * rise * multiplier)
    }

    /// Whether the controller of a wanted L0 moves the coefficient at `step`: not while it still rises.
    pub fn tunes_at(&self, step: usize, steps: usize) -> bool {
        step as f64 + 1.0 >= self.penalty_warmup * steps as f64
    }

    /// Names of the parameters: encoder, its bias, decoder, its bias, then those with one number a latent.
    pub fn parameter_names(&self) -> &'static [&'static str] {
        match self.rule {
            Rule::Jump { .. } => &["W_enc", "b_enc", "W_dec", "b_dec", "threshold"],
            Rule::Gated { .. } => &["W_enc", "b_gate", "W_dec", "b_dec", "r_mag", "b_mag"],
            _ => &["W_enc", "b_enc", "W_dec", "b_dec"],
        }
    }

    /// How many numbers each latent has beside its rows and its encoder bias.
    pub fn per_latent(&self) -> usize {
        self.parameter_names().len() - 4
    }

    /// Whether the encoder has a bias that is trained.
    pub fn has_encoder_bias(&self) -> bool {
        !matches!(self.rule, Rule::Pursuit(_))
    }

    /// The rule for single samples after training in batches of `batch_size`, with the running threshold that training
    /// ended with.
    pub fn inference(&self, threshold: f64, batch_size: usize) -> Inference {
        match self.rule {
            Rule::Positive => Inference::Keep(Keep::Positive),
            Rule::Top(k) => Inference::Keep(Keep::Top(k)),
            Rule::BatchTop { inference: BatchInference::Threshold, .. } => {
                Inference::Keep(Keep::Above(threshold as f32))
            }
            Rule::BatchTop { k, inference: BatchInference::Batch } => {
                Inference::Keep(Keep::BatchTop { k, batch: batch_size })
            }
            Rule::Jump { .. } => Inference::Jump,
            Rule::Gated { .. } => Inference::Gated,
            Rule::Pursuit(pursuit) => Inference::Pursuit(pursuit),
        }
    }
}
