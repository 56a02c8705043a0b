//! Random directions: what a dictionary scores that has seen nothing.

use ndarray::{Array2, ArrayD, ArrayView2};

use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::select::Keep;
use crate::backend::simd::Isa;
use crate::random::{Draws, Stream};
use crate::sae::Coder;
use crate::sae::weights::directions;

/// Independent uniform unit directions w_j, without biases. z_j = ReLU(w_j · h), on the k greatest alone where k is
/// given; ĥ = Σ z_j w_j.
#[derive(Clone, Debug)]
pub struct RandomDirections {
    decoder: Array2<f32>,
    offset: Vec<f32>,
    norm: Vec<f32>,
    keep: Keep,
}

/// `n_latents` directions of `d_hidden` numbers; the same for every k.
pub fn random(n_latents: usize, d_hidden: usize, k: Option<usize>, seed: u64) -> RandomDirections {
    let rows = directions(&mut Draws::new(seed, Stream::Baseline, 0), n_latents, d_hidden, 1.0);
    RandomDirections {
        decoder: Array2::from_shape_vec((n_latents, d_hidden), rows).expect("as many numbers as the shape says"),
        offset: vec![0.0; n_latents],
        norm: vec![1.0; n_latents],
        keep: k.map_or(Keep::Positive, Keep::Top),
    }
}

impl Coder for RandomDirections {
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
        let encoder = Encoder { w_enc: self.decoder.view(), offset: &self.offset, norm: &self.norm, keep: self.keep };
        encoder.encode(Isa::best(), h)
    }

    fn decode(&self, latents: ArrayView2<'_, f32>, _h: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.decoder.view(), &vec![0.0; self.d_hidden()])
    }

    /// `W_dec` `[n_latents, d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        vec![("W_dec", self.decoder.clone().into_dyn())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    #[test]
    fn rows_are_unit_and_follow_the_seed() {
        let found = random(40, 20, None, 3);
        for row in found.decoder().rows() {
            assert!((row.iter().map(|&w| w as f64 * w as f64).sum::<f64>() - 1.0).abs() < 1e-6);
        }
        assert_eq!(found.decoder(), random(40, 20, Some(2), 3).decoder());
        assert_ne!(found.decoder(), random(40, 20, None, 4).decoder());
    }

    #[test]
    fn latents_are_the_positive_inner_products_or_the_greatest_of_them() {
        let (all, two) = (random(40, 20, None, 3), random(40, 20, Some(2), 3));
        let h = Array2::from_shape_fn((9, 20), |(s, k)| ((s * 20 + k) * 37 % 41) as f32 / 41.0 - 0.5);
        let (z_all, z_two) = (all.encode(h.view()), two.encode(h.view()));
        for (s, h) in h.rows().into_iter().enumerate() {
            let product =
                |w: ndarray::ArrayView1<'_, f32>| w.iter().zip(&h).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
            let products: Array1<f64> = all.decoder().rows().into_iter().map(product).collect();
            let mut order: Vec<f64> = products.to_vec();
            order.sort_by(|a, b| b.total_cmp(a));
            for (j, &product) in products.iter().enumerate() {
                // Twenty products of size below 1: 20 roundings of 6e-8.
                assert!((z_all[[s, j]] as f64 - product.max(0.0)).abs() < 2e-6);
                let kept = if product >= order[1] { product.max(0.0) } else { 0.0 };
                assert!((z_two[[s, j]] as f64 - kept).abs() < 2e-6);
            }
        }
    }
}
