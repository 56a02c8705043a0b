//! What stands in for an autoencoder, from its section of the file.

use ndarray::ArrayView2;

use crate::baseline::{self, Centre, Encoding, Ica, KMeans, KSvd, OnlineDictionary, Sample, SemiNmf};
use crate::hidden::{HiddenSource, SaeSource};
use crate::plan::CellMethod;
use crate::sae::Coder;
use crate::spec::baseline::{BaselineKind, CentreSection, EncoderSection, OracleSection};

/// Training samples that the one shift of an oracle's ReLU is fitted to.
const SHIFT_SAMPLES: usize = 2048;

/// The coder of a baseline on the hidden states of a world; none for what is no baseline.
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
