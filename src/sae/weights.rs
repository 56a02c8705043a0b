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
    pub n_latents: usize,
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
