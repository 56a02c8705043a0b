//! Independent components by FastICA (Hyvärinen 1999, "Fast and robust fixed-point algorithms for independent component
//! analysis"; symmetric orthogonalisation, contrast log cosh).
//!
//! ```text
//! y = V (h - mean), V whitening on the directions that h varies in
//! repeat   w_j ← mean of y tanh(w_j·y) - mean of (1 - tanh²(w_j·y)) w_j        for all j
//!          W ← (W Wᵀ)^(-1/2) W
//! until    no w_j turns by more than 1e-6 (1 less its cosine with what it was)
//! ```
//!
//! Latents are the components w_j·y in the scale of their direction in h, of unit norm: z_j w'_j is the j-th part of h.
//! Both signs occur, so all fire on almost every sample, as for principal components; each is turned so that its third
//! moment is not negative (features that are not negative and rare are skewed to the positive side). Components stand by
//! descending standard deviation of z. There are at most as many as dimensions, so features in superposition are out of reach.

use ndarray::{Array2, ArrayD, ArrayView2, s};
use rayon::prelude::*;

use super::matrix::{over_samples, product};
use super::pca::moments;
use super::sample::{Centre, Sample};
use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::select::Keep;
use crate::backend::simd::Isa;
use crate::hidden::SaeSource;
use crate::linalg::symmetric_eigen;
use crate::random::{Draws, Stream};
use crate::sae::Coder;

/// Directions whose variance is at most this share of the greatest hold nothing but rounding.
const LEAST_SHARE: f64 = 1e-9;

/// 1 less the cosine by which components may still turn at the end.
const STILL: f64 = 1e-6;

/// Settings of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ica {
    /// Components, at most as many as directions that h varies in: those of greatest variance are unmixed.
    pub n_latents: usize,
    /// Training samples of the fixed point; mean and whitening are those of principal components.
    pub samples: usize,
    /// Rounds at most.
    pub iterations: usize,
    /// Of the start.
    pub seed: u64,
}

/// ĥ = mean + Σ z_j w'_j.
#[derive(Clone, Debug)]
pub struct IndependentComponents {
    encoder: Array2<f32>,
    decoder: Array2<f32>,
    mean: Vec<f32>,
    /// -encoder_j · mean
    offset: Vec<f32>,
    norm: Vec<f32>,
}

impl Ica {
    /// The components of a source.
    pub fn learn(&self, source: &SaeSource) -> IndependentComponents {
        let (mean, covariance) = moments(source);
        let eigen = symmetric_eigen(covariance.view());
        let least = LEAST_SHARE * eigen.values[0];
        let n = eigen.values.iter().take(self.n_latents).filter(|&&value| value > least).count().max(1);
        let axes = eigen.vectors.slice(s![..n, ..]);
        let spread: Vec<f64> = eigen.values.iter().take(n).map(|v| v.max(0.0).sqrt()).collect();
        let mut h = Sample::draw(source, self.samples, Centre::None).wide();
        h.rows_mut().into_iter().for_each(|mut row| row.iter_mut().zip(&mean).for_each(|(h, m)| *h -= m));
        let mut y = product(h.view(), axes.t());
        for mut row in y.rows_mut() {
            row.iter_mut().zip(&spread).for_each(|(y, s)| *y /= if *s > 0.0 { *s } else { 1.0 });
        }
        let mut w = self.unmix(&y, n);
        let components = product(y.view(), w.t());
        for (j, component) in components.columns().into_iter().enumerate() {
            if component.iter().map(|z| z * z * z).sum::<f64>() < 0.0 {
                w.row_mut(j).mapv_inplace(|x| -x);
            }
        }
        parts(&w, axes, &spread, &mean)
    }

    /// The fixed point on whitened samples `[samples, n]`.
    fn unmix(&self, y: &Array2<f64>, n: usize) -> Array2<f64> {
        let mut draws = Draws::new(self.seed, Stream::Baseline, 4);
        let mut w = orthogonalised(&Array2::from_shape_simple_fn((n, n), || draws.normal()));
        for _ in 0..self.iterations {
            let mut slopes = product(y.view(), w.t());
            let numbers = slopes.as_slice_mut().expect("a fresh array");
            numbers.par_iter_mut().for_each(|x| *x = libm::tanh(*x));
            let samples = y.nrows().max(1) as f64;
            let mut next = over_samples(slopes.view(), y.view()) / samples;
            for (j, column) in slopes.columns().into_iter().enumerate() {
                let bend = column.iter().map(|g| 1.0 - g * g).sum::<f64>() / samples;
                next.row_mut(j).scaled_add(-bend, &w.row(j));
            }
            let next = orthogonalised(&next);
            let turned = next.rows().into_iter().zip(w.rows()).map(|(a, b)| 1.0 - a.dot(&b).abs()).fold(0.0, f64::max);
            w = next;
            if turned < STILL {
                break;
            }
        }
        w
    }
}

/// (W Wᵀ)^(-1/2) W: the nearest matrix of orthonormal rows.
fn orthogonalised(w: &Array2<f64>) -> Array2<f64> {
    let eigen = symmetric_eigen(product(w.view(), w.t()).view());
    let mut scaled = eigen.vectors.clone();
    let most = eigen.values[0].max(f64::MIN_POSITIVE);
    for (mut row, &value) in scaled.rows_mut().into_iter().zip(&eigen.values) {
        row.mapv_inplace(|x| x / value.max(1e-14 * most).sqrt());
    }
    product(product(eigen.vectors.t(), scaled.view()).view(), w.view())
}

/// From unmixing in whitened space to encoder and decoder rows in that of h.
fn parts(w: &Array2<f64>, axes: ArrayView2<'_, f64>, spread: &[f64], mean: &[f64]) -> IndependentComponents {
    let scaled = |power: i32| {
        let mut scaled = w.clone();
        for mut row in scaled.rows_mut() {
            row.iter_mut().zip(spread).for_each(|(x, s)| *x *= if *s > 0.0 { s.powi(power) } else { 0.0 });
        }
        product(scaled.view(), axes)
    };
    let (encoder, decoder) = (scaled(-1), scaled(1));
    let norms: Vec<f64> = decoder.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]).then(a.cmp(&b)));
    let ordered = |rows: &Array2<f64>, factor: &dyn Fn(f64) -> f64| {
        let mut out = Array2::zeros(rows.dim());
        for (mut to, &j) in out.rows_mut().into_iter().zip(&order) {
            to.assign(&rows.row(j).mapv(|x| (x * factor(norms[j])) as f32));
        }
        out
    };
    let encoder = ordered(&encoder, &|norm| norm);
    let along = |row: ndarray::ArrayView1<'_, f32>| -row.iter().zip(mean).map(|(&w, m)| w as f64 * m).sum::<f64>();
    IndependentComponents {
        offset: encoder.rows().into_iter().map(|row| along(row) as f32).collect(),
        encoder,
        decoder: ordered(&decoder, &|norm| if norm > 0.0 { 1.0 / norm } else { 0.0 }),
        mean: mean.iter().map(|&m| m as f32).collect(),
        norm: vec![1.0; norms.len()],
    }
}

impl Coder for IndependentComponents {
    fn n_latents(&self) -> usize {
        self.decoder.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.decoder.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.decoder.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (w_enc, offset, norm) = (self.encoder.view(), &self.offset[..], &self.norm[..]);
        Encoder { w_enc, offset, norm, keep: Keep::All }.encode(Isa::best(), h)
    }

    fn decode(&self, latents: ArrayView2<'_, f32>, _h: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.decoder.view(), &self.mean)
    }

    /// `W_enc` and `W_dec` `[n_latents, d_hidden]`, `b_enc` `[n_latents]` (of h itself, not of h less `b_dec`), `b_dec`
    /// `[d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        let vector = |v: &Vec<f32>| ArrayD::from_shape_vec(vec![v.len()], v.clone()).expect("one axis");
        vec![
            ("W_enc", self.encoder.clone().into_dyn()),
            ("b_enc", vector(&self.offset)),
            ("W_dec", self.decoder.clone().into_dyn()),
            ("b_dec", vector(&self.mean)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::testing::{mmcs, orthogonal, superposed};

    const SEARCH: Ica = Ica { n_latents: 12, samples: 16_384, iterations: 200, seed: 3 };

    /// Independent sources with far from normal laws: directions are off by some 1/√(16384 · .1) = .025 each way, cosines
    /// by a few of its squares, .002; principal components of equal variances are any rotation.
    #[test]
    fn independent_features_are_unmixed_with_their_sign() {
        let (source, truth) = orthogonal(12, 16, 0.1);
        let found = SEARCH.learn(&source);
        assert_eq!(found.n_latents(), 12);
        let score = mmcs(&truth, found.decoder());
        assert!(score > 0.99, "{score}");
        let blind = mmcs(&truth, super::super::pca(&source, 12).decoder());
        assert!(blind < 0.9, "{blind}");
    }

    /// All directions that h varies in are kept, so only f32 rounding is lost: |h| is below 7.
    #[test]
    fn all_components_reconstruct_h_and_each_is_a_part_of_it() {
        let (source, _) = superposed(10, 6, 0.2);
        let found = Ica { n_latents: 6, samples: 4096, ..SEARCH }.learn(&source);
        let h = Sample::draw(&source, 500, Centre::None).h;
        let latents = found.encode(h.view());
        let error = found.decode(latents.view(), h.view()) - &h;
        assert!(error.iter().all(|e| e.abs() < 2e-5));
        for row in found.decoder().rows() {
            assert!((row.iter().map(|w| (w * w) as f64).sum::<f64>() - 1.0).abs() < 1e-5);
        }
        // Components are uncorrelated: 65536 samples whiten, 500 others see correlations of 1/√500, five times that.
        let centred = |j: usize| {
            let column = latents.column(j).mapv(f64::from);
            let mean = column.sum() / 500.0;
            column - mean
        };
        let (a, b) = (centred(0), centred(1));
        assert!((a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()).abs() < 5.0 / 500f64.sqrt());
    }

    #[test]
    fn fewer_components_are_those_of_greatest_variance_and_silence_leaves_one() {
        let (source, _) = superposed(10, 6, 0.2);
        assert_eq!(Ica { n_latents: 3, samples: 1000, ..SEARCH }.learn(&source).n_latents(), 3);
        let (silent, _) = superposed(5, 4, 0.0);
        let found = Ica { samples: 100, ..SEARCH }.learn(&silent);
        assert_eq!(found.n_latents(), 1);
        assert!(found.encode(Array2::zeros((2, 4)).view()).iter().all(|z| z.is_finite()));
    }

    #[test]
    fn rows_are_made_orthonormal() {
        let mut draws = Draws::new(1, Stream::Baseline, 0);
        let w = orthogonalised(&Array2::from_shape_simple_fn((7, 7), || draws.normal()));
        let gram = product(w.view(), w.t());
        assert!((gram - Array2::<f64>::eye(7)).iter().all(|e| e.abs() < 1e-10));
    }

    #[test]
    fn threads_change_no_bit() {
        let (source, _) = superposed(10, 6, 0.2);
        let search = Ica { n_latents: 6, samples: 3000, iterations: 5, ..SEARCH };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| search.learn(&source).decoder().to_owned()));
        assert!(found[0] == found[1]);
    }
}
