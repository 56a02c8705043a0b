//! What is done once a step for each latent's rows: the end of the gradients, and what the next step reads.
//!
//! ```text
//! FinishGradients, from sums over samples:
//!   db_dec   = Σ_s G - Σ_j back_j w_enc_j         back_j = Σ_s dpre_j, which is db_enc_j for most architectures
//!   dW_enc_j = Σ_s dpre h - back_j b_dec
//!   dW_dec_j = Σ_s z G + pull_j w_dec_j           pull_j = l1 / n · Σ_s z_j / |w_dec_j|: the penalty's share
//!   tied:      dW_dec_j += dW_enc_j, dW_enc_j = 0
//!   frozen:    dW_dec = 0, db_dec = 0
//!   unit rows: dW_dec_j -= (dW_dec_j · w_dec_j) w_dec_j
//!   squared norm of everything
//! Refresh, after the optimiser:
//!   unit rows: w_dec_j /= |w_dec_j|
//!   norm_j = |w_dec_j|,  offset_j = b_enc_j - w_enc_j · b_dec
//! ```

use super::sparse::GradientSums;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Turns `sums` into the gradients of all four parameters, in place; returns the square of their global norm.
pub struct FinishGradients<'a> {
    /// `[n_latents][vectors]`
    pub w_enc: &'a [Lanes],
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// `[n_latents]`; none: no penalty on decoder norms.
    pub pull: Option<&'a [f32]>,
    /// Take out the part of each decoder row's gradient along the (unit) row.
    pub project: bool,
    /// One matrix is encoder and decoder.
    pub tied: bool,
    /// The decoder and its bias are not trained.
    pub frozen: bool,
    /// Sums over samples before, gradients after.
    pub sums: &'a mut GradientSums,
}

impl Kernel for FinishGradients<'_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let FinishGradients { w_enc, w_dec, b_dec, pull, project, tied, frozen, sums } = self;
        let width = b_dec.len();
        let weights = w_enc.chunks_exact(width).zip(w_dec.chunks_exact(width));
        let gradients = sums.w_enc.chunks_exact_mut(width).zip(sums.w_dec.chunks_exact_mut(width));
        let mut total = 0.0;
        for (latent, ((enc, dec), (d_enc, d_dec))) in weights.zip(gradients).enumerate() {
            let (bias, back) = (sums.b_enc[latent], sums.through[latent]);
            let mut square = S::splat(0.0);
            for v in 0..width {
                let gradient = S::fma(S::splat(-back), S::load(&b_dec[v]), S::load(&d_enc[v]));
                square = S::fma(gradient, gradient, square);
                S::store(gradient, &mut d_enc[v]);
                let rest = S::fma(S::splat(-back), S::load(&enc[v]), S::load(&sums.b_dec[v]));
                S::store(rest, &mut sums.b_dec[v]);
            }
            if tied {
                add_multiple::<S>(d_dec, 1.0, d_enc);
                d_enc.fill(Lanes::default());
                square = S::splat(0.0);
            }
            if frozen {
                d_dec.fill(Lanes::default());
            }
            if let (Some(pull), false) = (pull, frozen) {
                add_multiple::<S>(d_dec, pull[latent], dec);
            }
            if project {
                let along = dot::<S>(d_dec, dec);
                add_multiple::<S>(d_dec, -along, dec);
            }
            for d_dec in d_dec.iter() {
                square = S::fma(S::load(d_dec), S::load(d_dec), square);
            }
            total += S::fold(square) as f64 + bias as f64 * bias as f64;
        }
        if frozen {
            sums.b_dec.fill(Lanes::default());
        }
        let extra = sums.extra.iter().flatten().map(|&x| x as f64 * x as f64).sum::<f64>();
        total + dot::<S>(&sums.b_dec, &sums.b_dec) as f64 + extra
    }
}

/// Norms and offsets of the weights as they are now. Returns whether every weight is a finite number.
pub struct Refresh<'a> {
    /// `[n_latents][vectors]`
    pub w_enc: &'a [Lanes],
    /// `[n_latents]`
    pub b_enc: &'a [f32],
    /// `[n_latents][vectors]`
    pub w_dec: &'a mut [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// Divide decoder rows by their norm (a row of zeros stays).
    pub unit: bool,
    /// `[n_latents]`
    pub norm: &'a mut [f32],
    /// `[n_latents]`
    pub offset: &'a mut [f32],
}

impl Kernel for Refresh<'_> {
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self) -> bool {
        let width = self.b_dec.len();
        let mut finite = true;
        let rows = self.w_enc.chunks_exact(width).zip(self.w_dec.chunks_exact_mut(width)).zip(self.b_enc);
        for (latent, ((enc, dec), bias)) in rows.enumerate() {
            let mut norm = dot::<S>(dec, dec).sqrt();
            if self.unit && norm > 0.0 {
                for row in dec.iter_mut() {
                    S::store(S::div(S::load(row), S::splat(norm)), row);
                }
                norm /= norm;
            }
            let offset = bias - dot::<S>(enc, self.b_dec);
            // Any weight that is not finite makes one of the two so: products with 0 of an infinity are not numbers.
            finite &= norm.is_finite() && offset.is_finite();
            (self.norm[latent], self.offset[latent]) = (norm, offset);
        }
        finite
    }
}

/// Σ a b: sixteen fused chains over the vectors, then the fold.
#[inline(always)]
pub fn dot<S: Simd>(a: &[Lanes], b: &[Lanes]) -> f32 {
    let mut sum = S::splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sum = S::fma(S::load(a), S::load(b), sum);
    }
    S::fold(sum)
}

/// to += factor x.
#[inline(always)]
pub fn add_multiple<S: Simd>(to: &mut [Lanes], factor: f32, x: &[Lanes]) {
    for (to, x) in to.iter_mut().zip(x) {
        S::store(S::fma(S::splat(factor), S::load(x), S::load(to)), to);
    }
}
