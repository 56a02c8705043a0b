//! The `sae` and `sae_train` sections: what is trained on the hidden states.

use super::entry::EntryKind;
use super::kind::{Count, Flag, ListOf, Maybe, NonNegative, Positive, Samples, Share, Steps, Whole, Width};
use super::kind::{choice, record};
use super::toy::{OptimizerSection, ScheduleSection};

choice! {
    /// Architecture of a sparse autoencoder.
    pub enum SaeKind as "sae kind" {
        /// Latents ReLU(pre) with an L1 penalty.
        relu => Relu(ReluSection as ReluSection),
        /// The k greatest pre-activations of a sample, then ReLU.
        topk => TopK(TopKSection as TopKSection),
        /// The k greatest pre-activations a sample on average, over the batch.
        batch_topk => BatchTopK(BatchTopKSection as BatchTopKSection),
        /// A gate decides which latents are active, a bias and scale of its own how much.
        gated => Gated(GatedSection as GatedSection),
        /// Each latent has a threshold; the penalty counts active latents.
        jumprelu => JumpRelu(JumpReluSection as JumpReluSection),
        /// Prefixes of the latents reconstruct too.
        matryoshka => Matryoshka(MatryoshkaSection as MatryoshkaSection),
        /// One latent after the other, each the best for what is left over.
        matching_pursuit => MatchingPursuit(MatchingPursuitSection as MatchingPursuitSection),
    }
}

record! {
    /// ReLU latents with an L1 penalty (Bricken et al. 2023; Templeton et al. 2024).
    pub struct ReluSection as "relu" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Weight of the L1 penalty on the summed squared error; this or `target_l0`.
        l1: Option<f64> as Maybe<NonNegative> = "none",
        /// Mean active latents that the penalty's coefficient is led to during training; in place of `l1`.
        target_l0: Option<f64> as Maybe<Positive> = "none",
        /// Greatest relative change of the coefficient in a step; none: 3e-4, or 15 over the steps if that is more.
        target_rate: Option<f64> as Maybe<Positive> = "none",
        /// Share of that rate while L0 already moves towards the target; none: 0.2, from 100000 steps on 0.01.
        target_approach: Option<f64> as Maybe<Share> = "none",
        /// Share of target_l0 by which the smoothed L0 at the end may be off.
        target_tolerance: f64 as Share = "0.1",
        /// Share of the steps over which the coefficient rises.
        l1_warmup: f64 as Share = "0",
        /// Rule for the decoder's rows.
        decoder: DecoderSection as DecoderSection = "unit_norm",
        /// Dead latents that reconstruct the residual, at most; 0: no auxiliary loss.
        aux_k: usize as Whole = "0",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: 1 for unit rows, else 0.1.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

choice! {
    /// Rule for the decoder's rows.
    pub enum DecoderSection as "decoder" {
        /// Unit rows; the gradient along each row is projected out.
        unit_norm => UnitNorm,
        /// Free rows; each latent's penalty is weighed by its row's norm.
        norm_penalty => NormPenalty,
    }
}

record! {
    /// TopK latents (Gao et al. 2024).
    pub struct TopKSection as "topk" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Active latents per sample, at most.
        k: usize as Count = required "2",
        /// k comes down from a greater one; none: it is the same at every step.
        k_anneal: Option<KAnnealSection> as Maybe<KAnnealSection> = "none",
        /// Dead latents that reconstruct the residual, at most; none: half of d_hidden; 0: no auxiliary loss.
        aux_k: Option<usize> as Maybe<Whole> = "none",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: 0.1.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

record! {
    /// BatchTopK latents (Bussmann et al. 2024).
    pub struct BatchTopKSection as "batch_topk" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Active latents of a sample on average, over the batch; may be fractional.
        k: f64 as Positive = required "2",
        /// k comes down from a greater one; none: it is the same at every step.
        k_anneal: Option<KAnnealSection> as Maybe<KAnnealSection> = "none",
        /// What holds for single samples after training.
        inference: InferenceSection as InferenceSection = "threshold",
        /// Dead latents that reconstruct the residual, at most; none: half of d_hidden; 0: no auxiliary loss.
        aux_k: Option<usize> as Maybe<Whole> = "none",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: 0.1.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

choice! {
    /// How a BatchTopK autoencoder encodes after training.
    pub enum InferenceSection as "inference" {
        /// A latent is kept where pre times its decoder norm exceeds the running mean of the least kept in training: L0 is near k.
        threshold => Threshold,
        /// Selects over batches of the training size, as in training and as SAELens' synthetic runner evaluates: L0 is k.
        batch => Batch,
    }
}

record! {
    /// Gated latents (Rajamanoharan et al. 2024).
    pub struct GatedSection as "gated" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Weight of the L1 penalty of the gate on the summed squared error; this or `target_l0`.
        l1: Option<f64> as Maybe<NonNegative> = "none",
        /// Mean active latents that the penalty's coefficient is led to during training; in place of `l1`.
        target_l0: Option<f64> as Maybe<Positive> = "none",
        /// Greatest relative change of the coefficient in a step; none: 3e-4, or 15 over the steps if that is more.
        target_rate: Option<f64> as Maybe<Positive> = "none",
        /// Share of that rate while L0 already moves towards the target; none: 0.2, from 100000 steps on 0.01.
        target_approach: Option<f64> as Maybe<Share> = "none",
        /// Share of target_l0 by which the smoothed L0 at the end may be off.
        target_tolerance: f64 as Share = "0.1",
        /// Share of the steps over which the coefficient rises.
        l1_warmup: f64 as Share = "0",
        /// Whose objective.
        objective: GatedObjectiveSection as GatedObjectiveSection = "paper",
        /// Dead latents that reconstruct the residual, at most; 0: no auxiliary loss.
        aux_k: usize as Whole = "0",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: 1, or 0.1 for saelens.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

choice! {
    /// Objective of a gated autoencoder.
    pub enum GatedObjectiveSection as "objective" {
        /// Unit decoder rows; the gate's reconstruction holds decoder and decoder bias constant.
        paper => Paper,
        /// Free rows, the penalty weighed by their norms, nothing held constant.
        saelens => SaeLens,
    }
}

record! {
    /// JumpReLU latents (Rajamanoharan et al. 2024).
    pub struct JumpReluSection as "jumprelu" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Weight of the sparsity loss; this or `target_l0`.
        l0: Option<f64> as Maybe<NonNegative> = "none",
        /// Mean active latents that the penalty's coefficient is led to during training; in place of `l0`.
        target_l0: Option<f64> as Maybe<Positive> = "none",
        /// Greatest relative change of the coefficient in a step; none: 3e-4, or 15 over the steps if that is more.
        target_rate: Option<f64> as Maybe<Positive> = "none",
        /// Share of that rate while L0 already moves towards the target; none: 0.2, from 100000 steps on 0.01.
        target_approach: Option<f64> as Maybe<Share> = "none",
        /// Share of target_l0 by which the smoothed L0 at the end may be off.
        target_tolerance: f64 as Share = "0.1",
        /// Share of the steps over which the coefficient rises.
        l0_warmup: f64 as Share = "0",
        /// What the sparsity loss counts.
        sparsity: SparsitySection as SparsitySection = "step",
        /// Width of the window around a threshold in which it gets a gradient; none: 0.05, with target_l0 0.18 of a feature's size.
        bandwidth: Option<f64> as Maybe<Positive> = "none",
        /// Initial threshold; none: 0.01, with target_l0 0.18 of a feature's size (spread of h over the root of target_l0).
        threshold: Option<f64> as Maybe<NonNegative> = "none",
        /// The threshold's straight-through gradient reaches the encoder too.
        input_gradient: bool as Flag = "false",
        /// Weight of a loss that pulls dead latents up to their thresholds.
        dead_loss: f64 as NonNegative = "0",
        /// Dead latents that reconstruct the residual, at most; 0: no auxiliary loss.
        aux_k: usize as Whole = "0",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: 0.1, with target_l0 0.5.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

choice! {
    /// Sparsity loss of a JumpReLU autoencoder.
    pub enum SparsitySection as "sparsity" {
        /// The number of active latents.
        step => Step,
        /// The sum of tanh(scale z |decoder|).
        tanh => Tanh(TanhSection as TanhSection),
        /// 2 / target (L0 - target)^2 of each sample.
        quadratic => Quadratic(QuadraticSection as QuadraticSection),
    }
}

record! {
    /// Sparsity as a sum of hyperbolic tangents.
    pub struct TanhSection as "tanh" {
        /// Steepness.
        scale: f64 as Positive = "4",
    }
}

record! {
    /// Sparsity as a squared distance from an L0.
    pub struct QuadraticSection as "quadratic" {
        /// L0 of least loss.
        target: f64 as Positive = required "15",
    }
}

record! {
    /// Nested prefixes (Bussmann et al. 2025; Nabeshima 2024). One of `relu`, `topk` and `batch_topk` says how latents are made.
    pub struct MatryoshkaSection as "matryoshka" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Lengths of the prefixes, ascending, the last n_latents; or drawn anew for each step.
        prefixes: PrefixesSection as PrefixesSection = required "[8, 64]",
        /// Latents ReLU(pre) with an L1 penalty, counted once.
        relu: Option<NestedReluSection> as Maybe<NestedReluSection> = "none",
        /// The k greatest of a sample.
        topk: Option<NestedTopKSection> as Maybe<NestedTopKSection> = "none",
        /// The k greatest a sample on average, over the batch.
        batch_topk: Option<NestedBatchTopKSection> as Maybe<NestedBatchTopKSection> = "none",
        /// Weight of each shorter prefix; the whole has 1.
        inner: f64 as NonNegative = "1",
        /// Divide all weights by the number of prefixes.
        average: bool as Flag = "false",
        /// Each prefix holds what the one inside it reconstructs constant.
        detach_inner: bool as Flag = "false",
        /// Which latents come first.
        sort: SortSection as SortSection = "none",
        /// Dead latents that reconstruct the residual, at most; none: half of d_hidden, with relu 0; 0: no auxiliary loss.
        aux_k: Option<usize> as Maybe<Whole> = "none",
        /// Dead latents reconstruct what the prefix they first belong to leaves over, not what the whole does.
        aux_by_level: bool as Flag = "false",
        /// The encoder is the decoder's transpose.
        tied: bool as Flag = "false",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Norm of the initial decoder rows; none: as the nested kind has it.
        init_norm: Option<f64> as Maybe<Positive> = "none",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
    }
}

choice! {
    /// Lengths of prefixes.
    pub enum PrefixesSection as "prefixes" {
        [list => Fixed(Vec<usize> as ListOf<Count>)]
        /// Drawn anew for each step, short ones more often; the last is always n_latents.
        sampled => Sampled(SampledSection as SampledSection),
    }
}

record! {
    /// Prefixes drawn without repetition, P(m) in proportion to m^-power - (m + 1)^-power.
    pub struct SampledSection as "sampled" {
        /// How many, the whole counted.
        count: usize as Count = "10",
        /// Greater favours shorter ones.
        power: f64 as Positive = "0.5",
    }
}

choice! {
    /// Order of the latents, for prefixes.
    pub enum SortSection as "sort" {
        /// As they are numbered.
        none => None,
        /// By how often they fire, a running mean; the trained latents are put into that order.
        frequency => Frequency,
        /// By the mean square of what they contribute, likewise.
        contribution => Contribution,
    }
}

record! {
    /// ReLU latents of a Matryoshka autoencoder.
    pub struct NestedReluSection as "relu" {
        /// Weight of the L1 penalty on the summed squared error; this or `target_l0`.
        l1: Option<f64> as Maybe<NonNegative> = "none",
        /// Mean active latents that the penalty's coefficient is led to during training; in place of `l1`.
        target_l0: Option<f64> as Maybe<Positive> = "none",
        /// Greatest relative change of the coefficient in a step; none: 3e-4, or 15 over the steps if that is more.
        target_rate: Option<f64> as Maybe<Positive> = "none",
        /// Share of that rate while L0 already moves towards the target; none: 0.2, from 100000 steps on 0.01.
        target_approach: Option<f64> as Maybe<Share> = "none",
        /// Share of target_l0 by which the smoothed L0 at the end may be off.
        target_tolerance: f64 as Share = "0.1",
        /// Share of the steps over which the coefficient rises.
        l1_warmup: f64 as Share = "0",
        /// Rule for the decoder's rows.
        decoder: DecoderSection as DecoderSection = "norm_penalty",
    }
}

record! {
    /// TopK latents of a Matryoshka autoencoder.
    pub struct NestedTopKSection as "topk" {
        /// Active latents per sample, at most.
        k: usize as Count = required "2",
        /// k comes down from a greater one; none: it is the same at every step.
        k_anneal: Option<KAnnealSection> as Maybe<KAnnealSection> = "none",
    }
}

record! {
    /// BatchTopK latents of a Matryoshka autoencoder.
    pub struct NestedBatchTopKSection as "batch_topk" {
        /// Active latents of a sample on average, over the batch; may be fractional.
        k: f64 as Positive = required "2",
        /// k comes down from a greater one; none: it is the same at every step.
        k_anneal: Option<KAnnealSection> as Maybe<KAnnealSection> = "none",
        /// What holds for single samples after training.
        inference: InferenceSection as InferenceSection = "threshold",
    }
}

record! {
    /// Matching pursuit (Costa et al. 2025): encoder and decoder are one matrix.
    pub struct MatchingPursuitSection as "matching_pursuit" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Latents chosen one after the other, at most.
        k: usize as Count = required "2",
        /// A sample is done when less than this norm is left over; 0: never for that reason.
        residual_threshold: f64 as NonNegative = "0",
        /// A sample is done when no new latent was chosen.
        stop_on_duplicate: bool as Flag = "false",
        /// Rule for the rows.
        rows: RowsSection as RowsSection = "free",
        /// Initial directions.
        init: InitSection as InitSection = "random",
        /// Initial decoder bias.
        bias_init: BiasInitSection as BiasInitSection = "zero",
        /// Dead latents start anew at given steps; none: never.
        resample: Option<ResampleSection> as Maybe<ResampleSection> = "none",
    }
}

choice! {
    /// Rule for the rows of matching pursuit.
    pub enum RowsSection as "rows" {
        /// They start at norm 1 and are free, as SAELens has them.
        free => Free,
        /// They stay unit.
        unit_norm => UnitNorm,
    }
}

record! {
    /// k falls linearly to its value.
    pub struct KAnnealSection as "k_anneal" {
        /// k at the first step.
        from: f64 as Positive = required "8",
        /// Share of the steps after which it has its value.
        share: f64 as Share = "0.5",
    }
}

record! {
    /// Dead latents start anew at inputs of great loss (Bricken et al. 2023).
    pub struct ResampleSection as "resample" {
        /// When, in shares of the steps.
        at: Vec<f64> as ListOf<Share> = "[0.125, 0.25, 0.375, 0.5]",
        /// A latent is dead that has not fired over this share of the steps.
        window: f64 as Share = "0.0625",
        /// Inputs to draw from, rounded up to whole batches.
        inputs: usize as Samples = "8192",
    }
}

choice! {
    /// Initial directions of the latents.
    pub enum InitSection as "init" {
        /// Independent uniform directions.
        random => Random,
        /// Latent j starts at feature j: decoder rows are the true unit directions, encoder rows their transpose.
        truth => Truth(TruthSection as TruthSection),
    }
}

record! {
    /// A start at the truth.
    pub struct TruthSection as "truth" {
        /// Standard deviation of a normal added to each coordinate.
        noise: f64 as NonNegative = "0",
    }
}

choice! {
    /// Initial decoder bias.
    pub enum BiasInitSection as "bias_init" {
        /// 0.
        zero => Zero,
        /// The geometric median of hidden states.
        geometric_median => GeometricMedian,
    }
}

impl SaeKind {
    pub fn n_latents(&self) -> usize {
        match self {
            SaeKind::Relu(s) => s.n_latents,
            SaeKind::TopK(s) => s.n_latents,
            SaeKind::BatchTopK(s) => s.n_latents,
            SaeKind::Gated(s) => s.n_latents,
            SaeKind::JumpRelu(s) => s.n_latents,
            SaeKind::Matryoshka(s) => s.n_latents,
            SaeKind::MatchingPursuit(s) => s.n_latents,
        }
    }
}

record! {
    /// Training of every sparse autoencoder; an entry's own `train` overrides it key by key.
    pub struct SaeTrainSection as "sae_train" {
        /// Optimiser steps.
        steps: usize as Steps = "10000",
        /// Fresh hidden states per step.
        batch_size: usize as Samples = "1024",
        /// Optimiser.
        optimizer: OptimizerSection as OptimizerSection = "adam",
        /// Learning rate at its peak.
        lr: f64 as Positive = "3e-4",
        /// Course of the learning rate.
        schedule: ScheduleSection as ScheduleSection = "constant",
        /// Share of the steps over which the learning rate rises.
        warmup: f64 as Share = "0",
        /// Share of the steps over which it falls to 0 at the end.
        decay: f64 as Share = "0.2",
        /// Greatest norm of the whole gradient; none: not clipped.
        clip: Option<f64> as Maybe<Positive> = "1.0",
        /// Weight decay.
        weight_decay: f64 as NonNegative = "0",
        /// Scale of the inputs.
        normalise: NormaliseSection as NormaliseSection = "none",
        /// A latent that has not fired for more than this many steps is dead.
        dead_after: usize as Count = "1000",
    }
}

choice! {
    /// What an autoencoder sees of hidden states; reconstructions and scores are of hidden states as they are.
    pub enum NormaliseSection as "normalise" {
        /// As they are.
        none => None,
        /// Times sqrt(d_hidden) over their mean norm; folded into the weights after training.
        mean_norm => MeanNorm,
        /// Every sample at norm sqrt(d_hidden), `constant_norm_rescale` in SAELens.
        constant_norm => ConstantNorm,
        /// Every sample at mean 0 and standard deviation 1 over its coordinates.
        layer_norm => LayerNorm,
    }
}

impl EntryKind for SaeKind {
    const TRAINED: bool = true;
}
