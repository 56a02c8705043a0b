//! What is done once a step for each latent's rows: the end of the gradients, and what the next step reads.
//!
//! ```text
//! FinishRows and FinishBias, from sums over samples:
//!   db_dec   = Σ_s G - Σ_j back_j w_enc_j         back_j = Σ_s dpre_j, which is db_enc_j for most architectures
//!   dW_enc_j = Σ_s dpre h - back_j b_dec
//!   dW_dec_j = Σ_s z G + pull_j w_dec_j           pull_j = l1 / n · Σ_s z_j / |w_dec_j|: the penalty's share
//!   tied:      dW_dec_j += dW_enc_j, dW_enc_j = 0
//!   frozen:    dW_dec = 0, db_dec = 0
//!   unit rows: dW_dec_j -= (dW_dec_j · w_dec_j) w_dec_j
//!   squared norm of everything
//! Refresh, after the optimiser (MoveRows: with it):
//!   unit rows: w_dec_j /= |w_dec_j|
//!   norm_j = |w_dec_j|,  offset_j = b_enc_j - w_enc_j · b_dec
//! ```
//!
//! A sum over latents is one over each [`BLOCK`] of them (that of db_dec goes on from Σ G in the first), then over blocks in
//! their order, so blocks may be worked on in any order.

use super::optimizer::UpdateRows;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Latents in a block: the fixed piece of every sum over latents.
pub const BLOCK: usize = 64;

/// Turns sums over samples into the gradients of a block of latents, in place; returns the sum of their squares.
pub struct FinishRows<'a> {
    /// `[latents][vectors]`
    pub w_enc: &'a [Lanes],
    /// `[latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// `[latents]`; none: no penalty on decoder norms.
    pub pull: Option<&'a [f32]>,
    /// Take out the part of each decoder row's gradient along the (unit) row.
    pub project: bool,
    /// One matrix is encoder and decoder.
    pub tied: bool,
    /// The decoder and its bias are not trained.
    pub frozen: bool,
    /// db_enc, `[latents]`
    pub d_bias: &'a [f32],
    /// Σ dpre, `[latents]`
    pub through: &'a [f32],
    /// `[latents][vectors]`: Σ dpre h before, dW_enc after.
    pub d_enc: &'a mut [Lanes],
    /// `[latents][vectors]`: Σ z G before, dW_dec after.
    pub d_dec: &'a mut [Lanes],
    /// `[vectors]`: this block's -Σ back_j w_enc_j is added, one latent after the other.
    pub rest: &'a mut [Lanes],
}

impl Kernel for FinishRows<'_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let FinishRows { w_enc, w_dec, b_dec, pull, project, tied, frozen, d_bias, through, d_enc, d_dec, rest } = self;
        let width = b_dec.len();
        let weights = w_enc.chunks_exact(width).zip(w_dec.chunks_exact(width));
        let gradients = d_enc.chunks_exact_mut(width).zip(d_dec.chunks_exact_mut(width));
        let mut total = 0.0;
        for (latent, ((enc, dec), (d_enc, d_dec))) in weights.zip(gradients).enumerate() {
            let (bias, back) = (d_bias[latent], through[latent]);
            let mut square = S::splat(0.0);
            for v in 0..width {
                let gradient = S::fma(S::splat(-back), S::load(&b_dec[v]), S::load(&d_enc[v]));
                square = S::fma(gradient, gradient, square);
                S::store(gradient, &mut d_enc[v]);
                let sum = S::fma(S::splat(-back), S::load(&enc[v]), S::load(&rest[v]));
                S::store(sum, &mut rest[v]);
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
        total
    }
}

/// Adds up what [`FinishRows`] left of all blocks, in their order; returns the square of the sum's norm.
pub struct FinishBias<'a> {
    /// `[blocks][vectors]`; the first block went on from Σ G, the others from 0.
    pub rests: &'a [Lanes],
    /// `[vectors]`: filled with db_dec.
    pub d_b_dec: &'a mut [Lanes],
}

impl Kernel for FinishBias<'_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let (first, others) = self.rests.split_at(self.d_b_dec.len());
        self.d_b_dec.copy_from_slice(first);
        for rest in others.chunks_exact(self.d_b_dec.len()) {
            for (sum, rest) in self.d_b_dec.iter_mut().zip(rest) {
                S::store(S::add(S::load(sum), S::load(rest)), sum);
            }
        }
        dot::<S>(self.d_b_dec, self.d_b_dec) as f64
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
    fn run<S: Simd>(mut self) -> bool {
        let mut finite = true;
        for latent in 0..self.norm.len() {
            finite &= self.row::<S>(latent);
        }
        finite
    }
}

impl Refresh<'_> {
    /// One latent; whether its weights are finite.
    #[inline(always)]
    fn row<S: Simd>(&mut self, latent: usize) -> bool {
        let width = self.b_dec.len();
        let row = latent * width..(latent + 1) * width;
        let (enc, dec) = (&self.w_enc[row.clone()], &mut self.w_dec[row]);
        let mut norm = dot::<S>(dec, dec).sqrt();
        if self.unit && norm > 0.0 {
            for row in dec.iter_mut() {
                S::store(S::div(S::load(row), S::splat(norm)), row);
            }
            norm /= norm;
        }
        let offset = self.b_enc[latent] - dot::<S>(enc, self.b_dec);
        (self.norm[latent], self.offset[latent]) = (norm, offset);
        // Any weight that is not finite makes one of the two so: products with 0 of an infinity are not numbers.
        norm.is_finite() && offset.is_finite()
    }
}

/// Moves the rows of a block of latents, and does [`Refresh`] on each while it is in the cache; b_enc and b_dec have moved
/// before. Returns whether every weight is a finite number.
pub struct MoveRows<'a> {
    /// W_enc, and whether it moves.
    pub enc: (UpdateRows<'a>, bool),
    /// W_dec, and whether it moves.
    pub dec: (UpdateRows<'a>, bool),
    /// `[latents]`
    pub b_enc: &'a [f32],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// As in [`Refresh`].
    pub unit: bool,
    /// `[latents]`
    pub norm: &'a mut [f32],
    /// `[latents]`
    pub offset: &'a mut [f32],
}

impl Kernel for MoveRows<'_> {
    type Out = bool;
    #[inline(always)]
    fn run<S: Simd>(self) -> bool {
        let MoveRows { enc: (mut enc, enc_moves), dec: (mut dec, dec_moves), b_enc, b_dec, unit, norm, offset } = self;
        let mut finite = true;
        for latent in 0..norm.len() {
            if enc_moves {
                enc.row::<S>(latent, b_dec.len());
            }
            if dec_moves {
                dec.row::<S>(latent, b_dec.len());
            }
            let (w_enc, w_dec) = (&*enc.rows, &mut *dec.rows);
            let (norm, offset) = (&mut *norm, &mut *offset);
            finite &= Refresh { w_enc, b_enc, w_dec, b_dec, unit, norm, offset }.row::<S>(latent);
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
