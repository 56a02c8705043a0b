//! From the sections of a cell to what the steps below take: a world, a toy job, an SAE job.

use std::sync::Arc;

use super::files::{Files, single};
use super::{Cell, linked, made};
use crate::data::{
    self, Dictionary, Finite, Group, GroupRule, Magnitude, MagnitudeSharing, Orthogonalise, SyntheticModel, World,
};
use crate::sae::{Normalise, SaeJob, SaeTrain};
use crate::spec::curve::Curve;
use crate::spec::data::{DataSection, GroupSection, MagnitudeSection, SharingSection, VectorsSection};
use crate::spec::sae::{NormaliseSection, SaeKind, SaeTrainSection};
use crate::spec::toy::{
    ActivationSection, BatchSizeSection, InitSection, LossScaleSection, ModelSection, OptimizerSection,
    ScheduleSection, ToySection,
};
use crate::toy::{Activation, LossScale, Mlp, ToyInit, ToyJob, ToyKind, ToyTrain};
use crate::training::{Optimizer, Schedule};

/// A curve as the data module has it.
pub fn curve(curve: &Curve) -> data::Curve {
    match curve {
        Curve::Constant(v) => data::Curve::Constant(*v),
        Curve::List(list) => data::Curve::List(list.clone()),
        Curve::Geometric(r) => data::Curve::Geometric(*r),
        Curve::Zipf(z) => data::Curve::Zipf { exponent: z.exponent, max: z.max, min: z.min },
        Curve::Linear(b) => data::Curve::Linear { max: b.max, min: b.min },
        Curve::Random(b) => data::Curve::Random { max: b.max, min: b.min },
        Curve::Power(p) => data::Curve::Power { exponent: p.exponent },
        Curve::Last(one) => data::Curve::Last { value: one.value, others: one.others },
        Curve::First(one) => data::Curve::First { value: one.value, others: one.others },
        Curve::FromTo(e) => data::Curve::FromTo { start: e.start, end: e.end },
        Curve::Exponential(e) => data::Curve::Exponential { start: e.start, end: e.end },
        Curve::FoldedNormal(s) => data::Curve::FoldedNormal { mean: s.mean, std: s.std },
        Curve::TorchFoldedNormal(s) => data::Curve::TorchFoldedNormal { mean: s.mean, std: s.std, seed: s.seed as u64 },
    }
}

/// How many features are active in a sample, nearly: the sum of the firing probabilities as written.
pub fn active(section: &DataSection) -> f64 {
    match &section.firing_probability {
        // A list of the wrong length is refused elsewhere.
        Curve::List(list) => list.iter().sum(),
        other => curve(other).values_for(section.n_features, 0, "data.firing_probability").iter().sum(),
    }
}

/// The world of a seed (random curves, correlations and trees are drawn once per seed).
///
/// # Errors
/// A matrix of correlations that cannot be read or is none, or a folder that is no synthetic model.
pub fn world(section: &DataSection, seed: u64, files: &Files) -> Result<World, String> {
    if let Some(name) = &section.synthetic_model {
        return files.model(name)?.world().map_err(|e| e.to_string());
    }
    let n = section.n_features;
    let values = |c: &Curve, field: &str| curve(c).values_for(n, seed, field);
    let firing_probability = values(&section.firing_probability, "data.firing_probability");
    let magnitude = match &section.magnitude {
        MagnitudeSection::Uniform([low, high]) => Magnitude::Uniform { low: *low, high: *high },
        MagnitudeSection::Constant(c) => Magnitude::Constant(values(c, "data.magnitude.constant")),
        MagnitudeSection::Normal(s) => Magnitude::Normal {
            mean: values(&s.mean, "data.magnitude.normal.mean"),
            std: values(&s.std, "data.magnitude.normal.std"),
        },
        MagnitudeSection::FoldedNormal(s) => Magnitude::FoldedNormal {
            mean: values(&s.mean, "data.magnitude.folded_normal.mean"),
            std: values(&s.std, "data.magnitude.folded_normal.std"),
        },
        MagnitudeSection::Exponential(c) => Magnitude::Exponential { mean: values(c, "data.magnitude.exponential") },
        MagnitudeSection::Symmetric(a) => Magnitude::Symmetric(*a),
    };
    let magnitude_sharing = match section.magnitude_sharing {
        SharingSection::Independent => MagnitudeSharing::Independent,
        SharingSection::Sample => MagnitudeSharing::Sample,
    };
    let sets = section.groups.sets(n);
    let groups = sets.iter().map(|group| Group {
        rule: match group {
            GroupSection::Together(_) => GroupRule::Together,
            GroupSection::Exclusive(_) => GroupRule::Exclusive,
        },
        members: group.members().to_vec(),
        firing_probability: firing_probability[group.members()[0]],
    });
    let groups = groups.collect();
    let correlation = linked::correlation(section, seed, files)?;
    let hierarchy = linked::hierarchy(section, seed);
    let dataset = section.dataset.as_ref().map(|d| Finite { samples: d.samples, normalise: d.normalise });
    let mut world = World {
        n_features: n,
        firing_probability,
        magnitude,
        magnitude_sharing,
        groups,
        dataset,
        correlation,
        hierarchy: None,
    };
    if let Some((hierarchy, probabilities, rates)) = hierarchy {
        world.hierarchy = Some(hierarchy);
        probabilities.into_iter().for_each(|(feature, p)| world.firing_probability[feature] = p);
        world = world.with_rates(rates);
    }
    Ok(world)
}

/// The fixed dictionary of a seed, if the world has one.
pub fn dictionary(section: &DataSection, seed: u64, files: &Files) -> Option<Result<Dictionary, String>> {
    let written = section.dictionary.as_ref()?;
    let (n, d) = (section.n_features, written.d_hidden);
    if let Some(name) = &section.synthetic_model {
        let fits = |model: SyntheticModel| match (model.dictionary.n_features, model.dictionary.d_hidden) {
            // The keys were put in place when the file was read, before its content was made part of ids.
            found if found == (n, d) => Ok(model.dictionary),
            found => Err(format!("{name} has changed: it holds {found:?} instead of {:?}", (n, d))),
        };
        return Some(files.model(name).and_then(fits));
    }
    let plain = match &written.vectors {
        VectorsSection::Orthogonal => Dictionary::orthogonal(n, d, seed).map_err(|e| e.to_string()),
        VectorsSection::Random => Ok(Dictionary::random(n, d, seed)),
        VectorsSection::Orthogonalised(s) => {
            Ok(made::orthogonalised(n, d, &Orthogonalise { steps: s.steps, lr: s.lr }, seed))
        }
        VectorsSection::Cosine(cosine) => Dictionary::at_cosine(n, d, *cosine, seed).map_err(|e| e.to_string()),
        VectorsSection::File(path) => files
            .matrix(path, (n, d), "[n_features, d_hidden]")
            .and_then(|rows| single(path, rows))
            .and_then(|rows| Dictionary::from_rows(n, d, &rows).map_err(|e| format!("{path}: {e}"))),
    };
    Some(plain.map(|plain| plain.with_bias(written.bias_norm, seed).with_noise(written.noise)))
}

/// Importance of each feature, `[n_features]`.
pub fn importance(section: &ToySection, n_features: usize, seed: u64) -> Vec<f64> {
    curve(&section.importance).values_for(n_features, seed, "toy.importance")
}

pub fn toy_kind(section: &ToySection, seed: u64) -> ToyKind {
    match &section.model {
        ModelSection::Linear => ToyKind::Linear,
        ModelSection::ReluOutput => ToyKind::ReluOutput,
        ModelSection::ReluHidden => ToyKind::ReluHidden,
        ModelSection::AbsoluteValue => ToyKind::AbsoluteValue,
        ModelSection::Mlp(mlp) => ToyKind::Mlp(Mlp {
            d_embedding: mlp.d_embedding,
            activation: match mlp.activation {
                ActivationSection::Relu => Activation::Relu,
                ActivationSection::Gelu => Activation::Gelu,
            },
            bias: mlp.bias as f32,
            bias_decay: mlp.bias_decay as f32,
            seed,
        }),
        ModelSection::Quadratic => ToyKind::Quadratic,
    }
}

/// The toy model of a cell, to be trained.
pub fn toy_job(section: &ToySection, world: &Arc<World>, seed: u64, trace_every: usize) -> ToyJob {
    let train = &section.train;
    ToyJob {
        world: world.clone(),
        seed,
        kind: toy_kind(section, seed),
        d_hidden: section.d_hidden,
        importance: importance(section, world.n_features, seed).into_iter().map(|v| v as f32).collect(),
        init: match section.init {
            InitSection::Xavier => ToyInit::Xavier,
            InitSection::Normal(std) => ToyInit::Normal(std),
        },
        restarts: section.restarts,
        train: ToyTrain {
            steps: train.steps,
            batch_size: batch_size(&train.batch_size, world),
            optimizer: optimizer(&train.optimizer),
            lr: train.lr,
            schedule: schedule(&train.schedule),
            weight_decay: train.weight_decay,
            loss_scale: match train.loss_scale {
                LossScaleSection::Mean => LossScale::Mean,
                LossScaleSection::PerDensity => LossScale::PerDensity,
                LossScaleSection::Sum => LossScale::Sum,
            },
        },
        trace_every,
        snapshots: false,
    }
}

/// Samples per step: of a finite set no more than there are.
fn batch_size(section: &BatchSizeSection, world: &World) -> usize {
    let all = world.dataset.map_or(usize::MAX, |dataset| dataset.samples);
    match section {
        BatchSizeSection::Fixed(size) => all.min(*size),
        BatchSizeSection::Full => all,
    }
}

fn optimizer(section: &OptimizerSection) -> Optimizer {
    match section {
        OptimizerSection::Adam(a) => Optimizer::Adam { beta1: a.beta1, beta2: a.beta2, epsilon: a.epsilon },
        OptimizerSection::AdamW(a) => Optimizer::AdamW { beta1: a.beta1, beta2: a.beta2, epsilon: a.epsilon },
        OptimizerSection::Sgd(s) => Optimizer::Sgd { momentum: s.momentum },
    }
}

fn schedule(section: &ScheduleSection) -> Schedule {
    match section {
        ScheduleSection::Constant => Schedule::Constant,
        ScheduleSection::Linear => Schedule::Linear,
        ScheduleSection::Cosine => Schedule::Cosine,
        ScheduleSection::WarmupCosine(warmup) => Schedule::WarmupCosine { warmup: *warmup },
        ScheduleSection::WarmupStableDecay([warmup, decay]) => {
            Schedule::WarmupStableDecay { warmup: *warmup, decay: *decay }
        }
    }
}

/// The sparse autoencoder of a cell, to be trained on hidden states of this width.
pub fn sae_job(kind: &SaeKind, train: &SaeTrainSection, d_hidden: usize, seed: u64, trace_every: usize) -> SaeJob {
    let (architecture, options) = super::architecture::of(kind, train.steps, d_hidden);
    let (n_latents, train) = (kind.n_latents(), sae_train(train));
    SaeJob { seed, n_latents, architecture, options, train, frozen_decoder: None, trace_every }
}

/// How an autoencoder is trained.
pub fn sae_train(train: &SaeTrainSection) -> SaeTrain {
    SaeTrain {
        steps: train.steps,
        batch_size: train.batch_size,
        optimizer: optimizer(&train.optimizer),
        lr: train.lr,
        schedule: schedule(&train.schedule),
        warmup: train.warmup,
        decay: train.decay,
        clip: train.clip,
        weight_decay: train.weight_decay,
        normalise: match train.normalise {
            NormaliseSection::None => Normalise::None,
            NormaliseSection::MeanNorm => Normalise::MeanNorm,
            NormaliseSection::ConstantNorm => Normalise::ConstantNorm,
            NormaliseSection::LayerNorm => Normalise::LayerNorm,
        },
        dead_after: train.dead_after,
    }
}

impl Cell {
    /// Width of the hidden states.
    pub fn d_hidden(&self) -> usize {
        match (&self.toy, &self.data.dictionary) {
            (Some(toy), _) => toy.d_hidden,
            (None, Some(dictionary)) => dictionary.d_hidden,
            (None, None) => 0,
        }
    }
}
