//! Principal components: the best linear reconstruction, blind to sparsity.

use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, s};

use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::layout::PackedBatch;
use crate::backend::ops::outer::{Outer, SumSamples};
use crate::backend::ops::select::Keep;
use crate::backend::simd::{self, Isa};
use crate::hidden::{HiddenBatch, SaeSource};
use crate::linalg::symmetric_eigen;
use crate::random::Stream;
use crate::sae::Coder;

/// Training samples that the covariance is taken from.
pub const SAMPLES: usize = 65_536;

/// They are drawn in batches of so many.
const BATCH: usize = 1024;

/// Components whose variance is at most this share of the greatest are left out: along them there is nothing but rounding.
const LEAST_SHARE: f64 = 1e-9;

/// ĥ = mean + Σ z_j w_j with z_j = w_j · (h - mean), w_j the directions of greatest variance, by descending variance.
///
/// Latents have either sign, so all fire on almost every sample: l0 is their number. Each w_j has its largest entry
/// positive.
#[derive(Clone, Debug)]
pub struct PrincipalComponents {
    components: Array2<f32>,
    mean: Vec<f32>,
    /// -w_j · mean
    offset: Vec<f32>,
    norm: Vec<f32>,
    variance: Vec<f64>,
}

/// The first `n_latents` principal components of h, fewer where h varies in fewer directions (so at most d_hidden), but
/// one at least.
pub fn pca(source: &SaeSource, n_latents: usize) -> PrincipalComponents {
    let (mean, covariance) = moments(source);
    let eigen = symmetric_eigen(covariance.view());
    let least = LEAST_SHARE * eigen.values[0];
    let count = eigen.values.iter().take(n_latents).filter(|&&value| value > least).count().max(1);
    let components = eigen.vectors.slice(s![..count, ..]).mapv(|x| x as f32);
    let along = |w: ArrayView1<'_, f32>| -w.iter().zip(&mean).map(|(&w, m)| w as f64 * m).sum::<f64>() as f32;
    PrincipalComponents {
        offset: components.rows().into_iter().map(along).collect(),
        norm: vec![1.0; count],
        components,
        mean: mean.iter().map(|&m| m as f32).collect(),
        variance: eigen.values.iter().take(count).copied().collect(),
    }
}

/// Mean `[d]` and covariance `[d, d]` of the first [`SAMPLES`] samples of the training stream.
///
/// Each batch is summed in f32, around the mean of the first batch so that little cancels, and batches in f64.
pub(super) fn moments(source: &SaeSource) -> (Vec<f64>, Array2<f64>) {
    let (stream, d, isa) = (source.open(Stream::Train), source.d_hidden(), Isa::best());
    let (mut drawn, mut packed) = (HiddenBatch::default(), PackedBatch::default());
    let (mut sums, mut products) = (vec![0.0f32; d], vec![0.0f32; d * d]);
    let mut centre = vec![0.0f32; d];
    let (mut total, mut total_products) = (vec![0.0f64; d], Array2::<f64>::zeros((d, d)));
    for step in 0..SAMPLES / BATCH {
        stream.draw_hidden(step as u32, BATCH, &mut drawn);
        if step == 0 {
            packed.fill(&drawn.h, d, 1.0);
            simd::run(isa, SumSamples { x: &packed.tiles, out: &mut sums });
            centre = sums.iter().map(|sum| sum / BATCH as f32).collect();
        }
        for row in drawn.h.chunks_exact_mut(d) {
            row.iter_mut().zip(&centre).for_each(|(h, c)| *h -= c);
        }
        packed.fill(&drawn.h, d, 1.0);
        let x = &packed.tiles[..];
        simd::run(isa, SumSamples { x, out: &mut sums });
        simd::run(isa, Outer { a: x, rows_a: d, b: x, rows_b: d, out: &mut products, stride: d });
        total.iter_mut().zip(&sums).for_each(|(total, &sum)| *total += sum as f64);
        total_products.iter_mut().zip(&products).for_each(|(total, &sum)| *total += sum as f64);
    }
    let n = SAMPLES as f64;
    let shift: Vec<f64> = total.iter().map(|sum| sum / n).collect();
    let covariance = Array2::from_shape_fn((d, d), |(i, j)| total_products[[i, j]] / n - shift[i] * shift[j]);
    (shift.iter().zip(&centre).map(|(shift, &c)| shift + c as f64).collect(), covariance)
}

impl PrincipalComponents {
    /// Variance of the training samples along each component, `[n_latents]`.
    pub fn variance(&self) -> &[f64] {
        &self.variance
    }
}

impl Coder for PrincipalComponents {
    fn n_latents(&self) -> usize {
        self.components.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.components.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.components.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (w_enc, offset, norm) = (self.components.view(), &self.offset[..], &self.norm[..]);
        Encoder { w_enc, offset, norm, keep: Keep::All }.encode(Isa::best(), h)
    }

    fn decode(&self, latents: ArrayView2<'_, f32>, _h: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.components.view(), &self.mean)
    }

    /// `W_dec` `[n_latents, d_hidden]`, `b_dec` `[d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        let mean = ArrayD::from_shape_vec(vec![self.mean.len()], self.mean.clone()).expect("one axis");
        vec![("W_dec", self.components.clone().into_dyn()), ("b_dec", mean)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dictionary::Dictionary;
    use crate::data::{Magnitude, MagnitudeSharing, World};
    use crate::hidden::{HiddenMaker, HiddenSource};
    use std::sync::Arc;

    /// Feature i fires with probability 1/2 and has the value i + 1, along axis order[i].
    fn axes(d: usize, order: &[usize], bias: f32) -> HiddenSource {
        let n = order.len();
        let world = World {
            n_features: n,
            firing_probability: vec![0.5; n],
            magnitude: Magnitude::Constant((0..n).map(|i| i as f64 + 1.0).collect()),
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let mut vectors = vec![0.0; n * d];
        order.iter().enumerate().for_each(|(i, &axis)| vectors[i * d + axis] = 1.0);
        let dictionary = Dictionary { n_features: n, d_hidden: d, vectors, bias: vec![bias; d], noise: 0.0 };
        HiddenSource { world: Arc::new(world), seed: 5, maker: HiddenMaker::Dictionary(Arc::new(dictionary)) }
    }

    /// The covariance is diagonal with (i + 1)² / 4. Of 65,536 samples a correlation is off by 1/√65536 = .004, and a
    /// variance, whose fourth moment is that of a fair coin, by far less: 5 sigma is 2 %, false alarm of ten looks below
    /// 1e-5. A direction turns by covariance over gap, at most .02 · 4 · 3 / 4 / (16/4 - 9/4) = .034.
    #[test]
    fn components_of_a_known_covariance_are_found_by_descending_variance() {
        let source = axes(6, &[3, 0, 5, 1], 2.0);
        let found = pca(&source.clone().into(), 10);
        assert_eq!(found.n_latents(), 4, "h varies in four of six directions");
        for (rank, (axis, i)) in [(1, 3), (5, 2), (0, 1), (3, 0)].into_iter().enumerate() {
            let variance = (i + 1) as f64 * (i + 1) as f64 / 4.0;
            assert!((found.variance()[rank] / variance - 1.0).abs() < 0.02, "{rank}: {}", found.variance()[rank]);
            assert!(found.decoder()[[rank, axis]] > 0.995);
        }
        assert_eq!(pca(&source.clone().into(), 2).decoder(), found.decoder().slice(s![..2, ..]));
    }

    /// All of the variance is kept, so only f32 rounding is lost: h is below 7 in size.
    #[test]
    fn all_components_reconstruct_h_from_centred_latents() {
        let source = axes(6, &[3, 0, 5, 1], 2.0);
        let (found, mut batch) = (pca(&source.clone().into(), 6), HiddenBatch::default());
        source.open(Stream::Train).draw_hidden(0, 1000, &mut batch);
        let h = Array2::from_shape_vec((1000, 6), batch.h).expect("1000 x 6");
        let latents = found.encode(h.view());
        let worst = (&found.decode(latents.view(), h.view()) - &h).iter().fold(0.0f32, |a, x| a.max(x.abs()));
        assert!(worst < 1e-5, "{worst}");
        // Standard deviation 2 over √1000: 5 sigma is .32.
        let mean = latents.column(0).sum() / 1000.0;
        assert!(mean.abs() < 0.32, "{mean}");
    }

    #[test]
    fn a_constant_h_has_one_component_and_is_its_mean() {
        let mut source = axes(3, &[0], 2.0);
        source.world = Arc::new(World { firing_probability: vec![0.0], ..(*source.world).clone() });
        let found = pca(&source.clone().into(), 3);
        assert_eq!(found.n_latents(), 1);
        assert_eq!(
            found.decode(Array2::zeros((1, 1)).view(), Array2::zeros((1, 3)).view()),
            Array2::from_elem((1, 3), 2.0)
        );
    }
}
