//! What stands in for an autoencoder, from its section of the file.

use std::sync::Arc;

use ndarray::ArrayView2;

use crate::baseline::{self, Centre, Encoding, Ica, KMeans, KSvd, OnlineDictionary, Sample, SemiNmf};
use crate::hidden::{HiddenSource, SaeSource};
use crate::plan::{CellMethod, resolve};
use crate::sae::init::geometric_median;
use crate::sae::{Architecture, Coder, DecoderRule, FrozenDecoder, Options, SaeJob};
use crate::spec::baseline::{
    BaselineKind, CentreSection, EncoderSection, OracleSection, RandomEncoderSection, RandomSection,
};

/// Training samples that the bias of a held random decoder is the geometric median of.
const MEDIAN_SAMPLES: usize = 8192;

/// Training samples that the one shift of an oracle's ReLU is fitted to.
const SHIFT_SAMPLES: usize = 2048;

/// The coder of a baseline on the hidden states of a world, products for random directions; none for what is no baseline.
pub fn stand_in(method: &CellMethod, source: &HiddenSource, seed: u64) -> Option<Box<dyn Coder>> {
    let CellMethod::Baseline(kind) = method else { return None };
    Some(match kind {
        BaselineKind::Oracle(section) => Box::new(oracle(section, source)),
        kind => learned(kind, &source.clone().into(), source.world.n_features, seed)?,
    })
}

/// A baseline that learns from hidden states alone, or from nothing; `width` is that of a dictionary that no section sets. None
/// for the oracle, which needs a truth.
pub fn learned(kind: &BaselineKind, source: &SaeSource, width: usize, seed: u64) -> Option<Box<dyn Coder>> {
    let d = source.d_hidden();
    Some(match kind {
        BaselineKind::Random(s) => Box::new(baseline::random(s.n_latents.unwrap_or(width), d, s.k, seed)),
        BaselineKind::Pca(s) => Box::new(baseline::pca(source, s.n_latents.unwrap_or(d).min(d))),
        BaselineKind::Ica(s) => {
            let n_latents = s.n_latents.unwrap_or(d).min(d);
            Box::new(Ica { n_latents, samples: s.samples, iterations: s.iterations, seed }.learn(source))
        }
        BaselineKind::Nmf(s) => {
            let (n_latents, centre) = (s.n_latents.unwrap_or(width), centre(&s.centre));
            let (samples, iterations) = (s.samples, s.iterations);
            Box::new(SemiNmf { n_latents, k: s.k, samples, iterations, centre, seed }.learn(source))
        }
        BaselineKind::KMeans(s) => {
            let (n_latents, centre) = (s.n_latents.unwrap_or(width), centre(&s.centre));
            let (samples, iterations) = (s.samples, s.iterations);
            Box::new(KMeans { n_latents, k: s.k.min(n_latents), samples, iterations, centre, seed }.learn(source))
        }
        BaselineKind::KSvd(s) => {
            let (n_latents, centre) = (s.n_latents.unwrap_or(width), centre(&s.centre));
            let (samples, iterations) = (s.samples, s.iterations);
            Box::new(KSvd { n_latents, k: s.k, samples, iterations, centre, seed }.learn(source))
        }
        BaselineKind::Online(s) => {
            let (n_latents, centre) = (s.n_latents.unwrap_or(width), centre(&s.centre));
            let (samples, iterations, batch_size) = (s.samples, s.iterations, s.batch_size);
            let (k, l1) = (s.k, s.l1);
            let search = OnlineDictionary { n_latents, k, samples, iterations, batch_size, l1, centre, seed };
            Box::new(search.learn(source))
        }
        BaselineKind::Oracle(_) => return None,
    })
}

/// The autoencoder to train for a cell: its own, or the encoder of random directions that are held.
pub fn job(method: &CellMethod, source: &SaeSource, width: usize, seed: u64, trace_every: usize) -> Option<SaeJob> {
    match method {
        CellMethod::Sae(kind, train) => Some(resolve::sae_job(kind, train, source.d_hidden(), seed, trace_every)),
        CellMethod::Baseline(BaselineKind::Random(section)) => random_job(section, source, width, seed, trace_every),
        CellMethod::Baseline(_) | CellMethod::None => None,
    }
}

/// Steps of the training of a cell's method, if it is trained.
pub fn steps(method: &CellMethod) -> Option<usize> {
    match method {
        CellMethod::Sae(_, train) => Some(train.steps),
        CellMethod::Baseline(kind) => kind.training().map(|train| train.steps),
        CellMethod::None => None,
    }
}

fn random_job(
    section: &RandomSection,
    source: &SaeSource,
    width: usize,
    seed: u64,
    trace_every: usize,
) -> Option<SaeJob> {
    let RandomEncoderSection::Trained(train) = &section.encoder else { return None };
    let (n_latents, d) = (section.n_latents.unwrap_or(width), source.d_hidden());
    let train = resolve::sae_train(train);
    let mut sample = Sample::draw(source, MEDIAN_SAMPLES, Centre::None);
    if train.normalise.by_sample() {
        train.normalise.samples(sample.h.as_slice_mut().expect("standard layout"), d);
    }
    let median = geometric_median(sample.wide().as_slice().expect("standard layout"), d);
    let frozen = FrozenDecoder {
        w_dec: baseline::random(n_latents, d, section.k, seed).decoder().iter().copied().collect(),
        b_dec: median.into_iter().map(|m| m as f32).collect(),
    };
    Some(SaeJob {
        seed,
        n_latents,
        architecture: match section.k {
            Some(k) => Architecture::TopK { k, aux_k: 0 },
            None => Architecture::Relu { l1: section.l1, decoder: DecoderRule::UnitNorm },
        },
        options: Options::default(),
        train,
        frozen_decoder: Some(Arc::new(frozen)),
        trace_every,
    })
}

fn centre(section: &CentreSection) -> Centre {
    match section {
        CentreSection::None => Centre::None,
        CentreSection::Mean => Centre::Mean,
    }
}

/// The true dictionary under the encoder of choice.
fn oracle(section: &OracleSection, source: &HiddenSource) -> baseline::Encoded {
    let shape = (source.world.n_features, source.d_hidden());
    let directions = source.maker.directions();
    let truth = ArrayView2::from_shape(shape, &directions);
    let truth = truth.expect("one direction of d_hidden numbers per feature");
    let bias = source.maker.bias_or_zero();
    let encoding = match &section.encoder {
        EncoderSection::Relu => {
            let sample = Sample::draw(&source.clone().into(), SHIFT_SAMPLES, Centre::None);
            Encoding::Relu { shift: baseline::relu_shift(truth, &bias, sample.h.view()) }
        }
        EncoderSection::LeastSquares => Encoding::LeastSquares,
        EncoderSection::TopK => Encoding::TopK { k: section.k.expect("checked: topk has a k") },
        EncoderSection::Omp => Encoding::Omp { k: section.k.expect("checked: omp has a k") },
        EncoderSection::Fista(f) => {
            let (l1, max_steps) = (f.l1, f.max_steps);
            Encoding::Fista(baseline::Fista { l1, max_steps, signed: source.world.is_signed() })
        }
    };
    baseline::encoded(truth, &bias, encoding)
}
