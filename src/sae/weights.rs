//! The arrays of an autoencoder, and the autoencoder they make.

use ndarray::{Array1, Array2, ArrayD, ArrayView2};

use super::Coder;
use super::program::Program;
use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::layout::pack_rows;
use crate::backend::ops::rows::Refresh;
use crate::backend::ops::select::Keep;
use crate::backend::simd::{self, Isa};
use crate::random::{Draws, Stream};

/// pre = W_enc (h - b_dec) + b_enc; ĥ = W_decᵀ z + b_dec.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Latents.
    pub n_latents: usize,
    /// Width of h.
    pub d_hidden: usize,
    /// `[n_latents, d_hidden]`
    pub w_enc: Vec<f32>,
    /// `[n_latents]`
    pub b_enc: Vec<f32>,
    /// `[n_latents, d_hidden]`
    pub w_dec: Vec<f32>,
    /// `[d_hidden]`
    pub b_dec: Vec<f32>,
}

impl Weights {
    /// Decoder rows are random directions of the program's initial norm, encoder rows equal them, biases are 0. SAEs of
    /// one seed and shape start from the same directions.
    pub fn init(seed: u64, n_latents: usize, d_hidden: usize, program: &Program) -> Weights {
        let mut draws = Draws::new(seed, Stream::SaeInit, 0);
        let w_dec = directions(&mut draws, n_latents, d_hidden, program.init_norm);
        Weights {
            n_latents,
            d_hidden,
            w_enc: w_dec.clone(),
            b_enc: vec![0.0; n_latents],
            w_dec,
            b_dec: vec![0.0; d_hidden],
        }
    }

    /// Weights that do on h what these do on `scale` h: latents stay, the reconstruction is in the scale of h.
    pub fn fold_scale(&mut self, scale: f64) {
        self.w_enc.iter_mut().for_each(|w| *w = (*w as f64 * scale) as f32);
        self.w_dec.iter_mut().chain(&mut self.b_dec).for_each(|w| *w = (*w as f64 / scale) as f32);
    }
}

/// `rows` independent uniform directions of norm `norm`, `[rows, d]`: normals over their norm.
pub fn directions(draws: &mut Draws, rows: usize, d: usize, norm: f64) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * d);
    for _ in 0..rows {
        let row: Vec<f64> = (0..d).map(|_| draws.normal()).collect();
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        out.extend(row.iter().map(|x| (x * norm / length) as f32));
    }
    out
}

/// A trained autoencoder under its inference rule.
#[derive(Clone, Debug)]
pub struct Sae {
    w_enc: Array2<f32>,
    b_enc: Array1<f32>,
    w_dec: Array2<f32>,
    b_dec: Array1<f32>,
    keep: Keep,
    /// |decoder_j|
    norm: Vec<f32>,
    /// b_enc - W_enc b_dec
    offset: Vec<f32>,
}

impl Sae {
    /// # Panics
    /// If an array of `weights` has not the length its shape says.
    pub fn new(weights: Weights, keep: Keep) -> Sae {
        let (m, d) = (weights.n_latents, weights.d_hidden);
        let (mut w_enc, mut w_dec, mut b_dec) = (vec![], vec![], vec![]);
        pack_rows(&weights.w_enc, d, 1.0, &mut w_enc);
        pack_rows(&weights.w_dec, d, 1.0, &mut w_dec);
        pack_rows(&weights.b_dec, d, 1.0, &mut b_dec);
        let (mut norm, mut offset) = (vec![0.0; m], vec![0.0; m]);
        let facts = Refresh {
            w_enc: &w_enc,
            b_enc: &weights.b_enc,
            w_dec: &mut w_dec,
            b_dec: &b_dec,
            unit: false,
            norm: &mut norm,
            offset: &mut offset,
        };
        simd::run(Isa::best(), facts);
        let matrix = |w| Array2::from_shape_vec((m, d), w).expect("the caller's shape");
        Sae {
            w_enc: matrix(weights.w_enc),
            b_enc: weights.b_enc.into(),
            w_dec: matrix(weights.w_dec),
            b_dec: weights.b_dec.into(),
            keep,
            norm,
            offset,
        }
    }
}

impl Coder for Sae {
    fn n_latents(&self) -> usize {
        self.w_dec.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.w_dec.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.w_dec.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let encoder = Encoder { w_enc: self.w_enc.view(), offset: &self.offset, norm: &self.norm, keep: self.keep };
        encoder.encode(Isa::best(), h)
    }

    fn decode(&self, latents: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.w_dec.view(), &self.b_dec.to_vec())
    }

    /// `W_enc` and `W_dec` `[n_latents, d_hidden]`, `b_enc` `[n_latents]`, `b_dec` `[d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        vec![
            ("W_enc", self.w_enc.clone().into_dyn()),
            ("b_enc", self.b_enc.clone().into_dyn()),
            ("W_dec", self.w_dec.clone().into_dyn()),
            ("b_dec", self.b_dec.clone().into_dyn()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae::golden::Golden;

    /// f32 chains of 6 and 9 products of size up to some 3: 15 * 6e-8 * 10 < 1e-5.
    #[test]
    fn inference_gives_the_golden_latents_and_reconstructions() {
        for golden in Golden::all() {
            let sae = Sae::new(golden.weights.clone(), golden.architecture.program().keep);
            let x = Array2::from_shape_vec((16, 6), golden.x.clone()).expect("16 x 6");
            let latents = sae.encode(x.view());
            let decoded = sae.decode(latents.view());
            for (found, expected) in latents.iter().zip(&golden.latents).chain(decoded.iter().zip(&golden.x_hat)) {
                assert!((*found as f64 - expected).abs() < 1e-5, "{:?}: {found} {expected}", golden.architecture);
            }
        }
    }

    #[test]
    fn initial_encoders_equal_their_decoders_whose_rows_have_the_norm_asked_for() {
        for golden in Golden::all() {
            let program = golden.architecture.program();
            let weights = Weights::init(3, 50, 7, &program);
            assert_eq!(weights.w_enc, weights.w_dec);
            assert!(weights.b_enc.iter().chain(&weights.b_dec).all(|&b| b == 0.0));
            for row in weights.w_dec.chunks_exact(7) {
                let norm = row.iter().map(|&w| w as f64 * w as f64).sum::<f64>().sqrt();
                assert!((norm / program.init_norm - 1.0).abs() < 1e-6);
            }
        }
    }

    /// The mean of 5000 independent uniform directions has expected squared length 1/5000; 16 times that is passed with
    /// probability below 1e-9 (chi-square with 7 degrees of freedom).
    #[test]
    fn initial_directions_point_everywhere() {
        let rows = directions(&mut Draws::new(1, Stream::SaeInit, 0), 5000, 7, 1.0);
        let square: f64 = (0..7).map(|k| (rows.iter().skip(k).step_by(7).sum::<f32>() as f64 / 5000.0).powi(2)).sum();
        assert!(square < 16.0 / 5000.0, "{square}");
    }

    #[test]
    fn tensors_are_named_and_shaped_for_export() {
        let golden = &Golden::all()[2];
        let sae = Sae::new(golden.weights.clone(), golden.architecture.program().keep);
        let tensors = sae.tensors();
        let shapes: Vec<_> = tensors.iter().map(|(name, array)| (*name, array.shape().to_vec())).collect();
        assert_eq!(shapes, [("W_enc", vec![9, 6]), ("b_enc", vec![9]), ("W_dec", vec![9, 6]), ("b_dec", vec![6])]);
        assert_eq!(tensors[2].1.iter().copied().collect::<Vec<_>>(), golden.weights.w_dec);
    }
}
