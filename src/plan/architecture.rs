//! From an entry of `sae` to an architecture with its options.

use crate::sae::init::{RELATIVE_L0, RELATIVE_L1};
use crate::sae::{
    Architecture, BatchInference, BiasInit, DecoderRule, Init, JumpRelu, KAnneal, Levels, Options, Prefixes, Pursuit,
    Resample, Size, Sort, Sparsity, Target,
};
use crate::spec::sae::{
    BiasInitSection, DecoderSection, GatedObjectiveSection, InferenceSection, InitSection, JumpReluSection,
    KAnnealSection, MatryoshkaSection, PrefixesSection, ResampleSection, RowsSection, SaeKind, SortSection,
    SparsitySection,
};

/// Least rate of a controller of L0, that of SynthSAEBench's protocol.
const LEAST_RATE: f64 = 3e-4;

/// Short trainings get this much over their number of steps: the multiplier may go from one of its bounds to the other.
const RATE_OF_RUN: f64 = 15.0;

/// Trainings of fewer steps than this take the greater share of the rate on the way to the target.
const SHORT_RUN: usize = 100_000;
const APPROACH: [f64; 2] = [0.2, 0.01];

/// Short trainings look this share of their steps ahead.
const AHEAD: f64 = 0.1;

/// No controller changes a coefficient faster unless told to.
const GREATEST_RATE: f64 = 0.02;

/// Window and initial threshold of a JumpReLU whose coefficient is led, over the size of a feature, and its decoder rows'
/// initial norm: .36 of what a feature gives to pre at the start, as in SynthSAEBench's recipe.
const JUMP_SHARE: f64 = 0.18;
const JUMP_NORM: f64 = 0.5;

/// The keys that lead a coefficient to a wanted L0.
struct Led {
    coefficient: Option<f64>,
    target: Option<f64>,
    rate: Option<f64>,
    approach: Option<f64>,
    tolerance: f64,
    warmup: f64,
    /// What the coefficient starts at where it is led, in units of the data.
    start: f64,
}

impl Led {
    /// The coefficient, and what of the options speaks of it.
    fn resolve(&self, steps: usize) -> (f64, Options) {
        let rate = || (RATE_OF_RUN / steps as f64).clamp(LEAST_RATE, GREATEST_RATE);
        let (rate, tolerance) = (self.rate.unwrap_or_else(rate), self.tolerance);
        let approach = self.approach.unwrap_or(APPROACH[(steps >= SHORT_RUN) as usize]);
        let ahead = if steps < SHORT_RUN { AHEAD * steps as f64 } else { 0.0 };
        let target = self.target.map(|l0| Target { l0, rate, approach, ahead, tolerance });
        let coefficient = if target.is_some() { self.start } else { self.coefficient.unwrap_or(0.0) };
        let relative_penalty = target.is_some();
        (coefficient, Options { target, relative_penalty, penalty_warmup: self.warmup, ..Options::default() })
    }
}

/// Fills the options that a section of any kind has.
macro_rules! common {
    ($section:expr, $steps:expr, $options:expr) => {
        Options {
            tied: $section.tied,
            init_norm: $section.init_norm,
            init: init(&$section.init),
            bias_init: bias_init(&$section.bias_init),
            resample: $section.resample.as_ref().map(|r| resample(r, $steps)),
            ..$options
        }
    };
}

/// Reads the keys of a section that lead a coefficient.
macro_rules! led {
    ($section:expr, $coefficient:ident, $warmup:ident, $start:expr) => {
        Led {
            coefficient: $section.$coefficient,
            target: $section.target_l0,
            rate: $section.target_rate,
            approach: $section.target_approach,
            tolerance: $section.target_tolerance,
            warmup: $section.$warmup,
            start: $start,
        }
    };
}

/// The architecture of an entry, trained for `steps` on hidden states of width `d_hidden`.
pub fn of(kind: &SaeKind, steps: usize, d_hidden: usize) -> (Architecture, Options) {
    let half = d_hidden / 2;
    let annealed = |k: &Option<KAnnealSection>| Options { k_anneal: k.as_ref().map(anneal), ..Options::default() };
    match kind {
        SaeKind::Relu(s) => {
            let (l1, options) = led!(s, l1, l1_warmup, RELATIVE_L1).resolve(steps);
            let architecture = Architecture::Relu { l1, decoder: decoder(&s.decoder) };
            (architecture, common!(s, steps, Options { aux_k: Some(s.aux_k), ..options }))
        }
        SaeKind::TopK(s) => {
            let architecture = Architecture::TopK { k: s.k, aux_k: s.aux_k.unwrap_or(half) };
            (architecture, common!(s, steps, annealed(&s.k_anneal)))
        }
        SaeKind::BatchTopK(s) => {
            let (k, aux_k) = (s.k, s.aux_k.unwrap_or(half));
            let architecture = Architecture::BatchTopK { k, aux_k, inference: inference(&s.inference) };
            (architecture, common!(s, steps, annealed(&s.k_anneal)))
        }
        SaeKind::Gated(s) => {
            let (l1, options) = led!(s, l1, l1_warmup, RELATIVE_L1).resolve(steps);
            let parity = s.objective == GatedObjectiveSection::SaeLens;
            (Architecture::Gated { l1, parity }, common!(s, steps, Options { aux_k: Some(s.aux_k), ..options }))
        }
        SaeKind::JumpRelu(s) => {
            let (l0, options) = led!(s, l0, l0_warmup, RELATIVE_L0).resolve(steps);
            (jumprelu(s, l0), common!(s, steps, Options { aux_k: Some(s.aux_k), ..options }))
        }
        SaeKind::Matryoshka(s) => {
            let (nested, options) = nested(s, steps, half);
            let levels = levels(s);
            let architecture =
                Architecture::Matryoshka { nested: Box::new(nested), levels, aux_by_level: s.aux_by_level };
            (architecture, common!(s, steps, options))
        }
        SaeKind::MatchingPursuit(s) => {
            let pursuit =
                Pursuit { k: s.k, residual_threshold: s.residual_threshold, stop_on_duplicate: s.stop_on_duplicate };
            let options = Options {
                init: init(&s.init),
                bias_init: bias_init(&s.bias_init),
                resample: s.resample.as_ref().map(|r| resample(r, steps)),
                ..Options::default()
            };
            (Architecture::MatchingPursuit { pursuit, unit_decoder: s.rows == RowsSection::UnitNorm }, options)
        }
    }
}

/// Sizes follow the data where the coefficient is led and they are not given.
fn jumprelu(s: &JumpReluSection, l0: f64) -> Architecture {
    let led = s.target_l0.is_some();
    let size = |given: Option<f64>, otherwise: f64| match given {
        Some(length) => Size::Absolute(length),
        None if led => Size::Relative(JUMP_SHARE),
        None => Size::Absolute(otherwise),
    };
    let sparsity = match &s.sparsity {
        SparsitySection::Step => Sparsity::Step,
        SparsitySection::Tanh(tanh) => Sparsity::Tanh { scale: tanh.scale },
        SparsitySection::Quadratic(quadratic) => Sparsity::Quadratic { target: quadratic.target },
    };
    Architecture::JumpRelu(JumpRelu {
        l0,
        sparsity,
        bandwidth: size(s.bandwidth, 0.05),
        threshold: size(s.threshold, 0.01),
        init_norm: if led { JUMP_NORM } else { 0.1 },
        input_gradient: s.input_gradient,
        silent: s.dead_loss,
    })
}

/// What makes the latents of a Matryoshka autoencoder. That it is one of the three was checked.
fn nested(s: &MatryoshkaSection, steps: usize, half: usize) -> (Architecture, Options) {
    if let Some(relu) = &s.relu {
        let (l1, options) = led!(relu, l1, l1_warmup, RELATIVE_L1).resolve(steps);
        let architecture = Architecture::Relu { l1, decoder: decoder(&relu.decoder) };
        return (architecture, Options { aux_k: s.aux_k, ..options });
    }
    let aux_k = s.aux_k.unwrap_or(half);
    let (architecture, k_anneal) = match (&s.topk, &s.batch_topk) {
        (Some(topk), _) => (Architecture::TopK { k: topk.k, aux_k }, &topk.k_anneal),
        (None, Some(batch)) => {
            let inference = inference(&batch.inference);
            (Architecture::BatchTopK { k: batch.k, aux_k, inference }, &batch.k_anneal)
        }
        (None, None) => unreachable!("checked: one of relu, topk and batch_topk is given"),
    };
    (architecture, Options { k_anneal: k_anneal.as_ref().map(anneal), ..Options::default() })
}

fn levels(s: &MatryoshkaSection) -> Levels {
    Levels {
        prefixes: match &s.prefixes {
            PrefixesSection::Fixed(prefixes) => Prefixes::Fixed(prefixes.clone()),
            PrefixesSection::Sampled(sampled) => Prefixes::Sampled { count: sampled.count, power: sampled.power },
        },
        inner: s.inner,
        average: s.average,
        detach_inner: s.detach_inner,
        sort: match s.sort {
            SortSection::None => Sort::None,
            SortSection::Frequency => Sort::Frequency,
            SortSection::Contribution => Sort::Contribution,
        },
    }
}

fn decoder(section: &DecoderSection) -> DecoderRule {
    match section {
        DecoderSection::UnitNorm => DecoderRule::UnitNorm,
        DecoderSection::NormPenalty => DecoderRule::NormPenalty,
    }
}

fn inference(section: &InferenceSection) -> BatchInference {
    match section {
        InferenceSection::Threshold => BatchInference::Threshold,
        InferenceSection::Batch => BatchInference::Batch,
    }
}

fn anneal(section: &KAnnealSection) -> KAnneal {
    KAnneal { from: section.from, share: section.share }
}

fn init(section: &InitSection) -> Init {
    match section {
        InitSection::Random => Init::Random,
        InitSection::Truth(truth) => Init::Truth { noise: truth.noise },
    }
}

fn bias_init(section: &BiasInitSection) -> BiasInit {
    match section {
        BiasInitSection::Zero => BiasInit::Zero,
        BiasInitSection::GeometricMedian => BiasInit::GeometricMedian,
    }
}

/// Shares of the run as steps.
fn resample(section: &ResampleSection, steps: usize) -> Resample {
    let step = |share: f64| (share * steps as f64).round() as usize;
    let mut at: Vec<usize> = section.at.iter().map(|share| step(*share)).collect();
    at.sort_unstable();
    at.dedup();
    Resample { at, window: step(section.window).max(1), inputs: section.inputs }
}
