//! Decoder, loss and gradients along the latents that each sample keeps.
//!
//! ```text
//! e      = b_dec - h + Σ z_j w_dec_j            error, over the kept latents j
//! G      = scale e                              gradient at the reconstruction; scale = 2 / n
//! dz_j   = G · w_dec_j + penalty_j
//! dW_dec_j += z_j G     dW_enc_j += dz_j h     db_enc_j += dz_j     db_dec += G
//! ```
//!
//! The auxiliary loss (Gao et al. 2024, appendix A.2) is the same again with other latents: it starts from e, held
//! constant, and its G has no part in db_dec. Two terms are left for [`super::rows`], once a step instead of once a
//! sample: the encoder sees h - b_dec, so -db_enc_j b_dec belongs to dW_enc_j and -Σ db_enc_j w_enc_j to db_dec.
//!
//! Each sum over samples is one chain in ascending order of samples.

use super::entries::Entries;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Sums over samples, filled panel by panel.
#[derive(Clone, Debug, Default)]
pub struct GradientSums {
    /// `[n_latents][vectors]`
    pub w_enc: Vec<Lanes>,
    /// `[n_latents][vectors]`
    pub w_dec: Vec<Lanes>,
    /// `[n_latents]`
    pub b_enc: Vec<f32>,
    /// `[vectors]`
    pub b_dec: Vec<Lanes>,
    /// Σ z_j over samples, `[n_latents]`; filled where a penalty needs it.
    pub values: Vec<f32>,
}

impl GradientSums {
    /// Zeros.
    pub fn new(n_latents: usize, vectors: usize) -> GradientSums {
        GradientSums {
            w_enc: vec![Lanes::default(); n_latents * vectors],
            w_dec: vec![Lanes::default(); n_latents * vectors],
            b_enc: vec![0.0; n_latents],
            b_dec: vec![Lanes::default(); vectors],
            values: vec![0.0; n_latents],
        }
    }

    /// Back to zeros.
    pub fn clear(&mut self) {
        self.w_enc.fill(Lanes::default());
        self.w_dec.fill(Lanes::default());
        self.b_enc.fill(0.0);
        self.b_dec.fill(Lanes::default());
        self.values.fill(0.0);
    }
}

/// Latents with a second loss of their own.
#[derive(Clone, Copy)]
pub struct Auxiliary<'a> {
    /// What they keep of each sample.
    pub kept: &'a Entries,
    /// Factor of the error in its gradient.
    pub scale: f32,
}

/// One panel.
pub struct SparseStep<'a> {
    /// `[live][vectors]`
    pub h: &'a [Lanes],
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// z, what each sample keeps.
    pub kept: &'a Entries,
    /// 2 / n, n the samples of the batch.
    pub scale: f32,
    /// Derivative of the penalty by z_j, `[n_latents]`; then Σ z_j is taken too.
    pub penalty: Option<&'a [f32]>,
    /// Dead latents with the auxiliary loss.
    pub auxiliary: Option<Auxiliary<'a>>,
    /// Where the panel's sums are added.
    pub sums: &'a mut GradientSums,
}

/// Σ e² of a panel, and of its auxiliary reconstruction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SquaredErrors {
    /// Of the reconstruction.
    pub main: f64,
    /// Of the auxiliary reconstruction.
    pub auxiliary: f64,
}

impl Kernel for SparseStep<'_> {
    type Out = SquaredErrors;
    #[inline(always)]
    fn run<S: Simd>(self) -> SquaredErrors {
        match self.b_dec.len() {
            1 => self.by_blocks::<S, 1>(),
            2 => self.by_blocks::<S, 2>(),
            3 => self.by_blocks::<S, 3>(),
            _ => self.by_blocks::<S, 4>(),
        }
    }
}

impl SparseStep<'_> {
    /// Rows are `blocks` of W vectors, which live in registers.
    #[inline(always)]
    fn by_blocks<S: Simd, const W: usize>(self) -> SquaredErrors {
        let SparseStep { h, w_dec, b_dec, kept, scale, penalty, auxiliary, sums } = self;
        let width = b_dec.len();
        assert!(width.is_multiple_of(W) && h.len().is_multiple_of(width));
        let mut error = vec![Lanes::default(); width];
        let mut gradient = vec![Lanes::default(); width];
        let (mut square, mut aux_square) = (S::splat(0.0), S::splat(0.0));
        for (sample, h) in h.chunks_exact(width).enumerate() {
            for ((error, b), h) in error.iter_mut().zip(b_dec).zip(h) {
                S::store(S::sub(S::load(b), S::load(h)), error);
            }
            let entries = kept.of(sample);
            square = decode::<S, W>(entries, w_dec, scale, &mut error, &mut gradient, square);
            for (sum, g) in sums.b_dec.iter_mut().zip(&gradient) {
                S::store(S::add(S::load(sum), S::load(g)), sum);
            }
            back::<S, W>(entries, w_dec, penalty, h, &gradient, sums);
            if let Some(Auxiliary { kept, scale }) = auxiliary {
                let entries = kept.of(sample);
                aux_square = decode::<S, W>(entries, w_dec, scale, &mut error, &mut gradient, aux_square);
                back::<S, W>(entries, w_dec, None, h, &gradient, sums);
            }
        }
        SquaredErrors { main: S::fold(square) as f64, auxiliary: S::fold(aux_square) as f64 }
    }
}

/// The W vectors of row `row` that start at `block`.
#[inline(always)]
fn block<const W: usize>(rows: &[Lanes], width: usize, row: usize, block: usize) -> &[Lanes; W] {
    rows[row * width + block..][..W].try_into().expect("a slice of W vectors")
}

/// Adds the kept latents' rows to `error`, and fills `gradient`; the sum of squares is carried on.
#[inline(always)]
fn decode<S: Simd, const W: usize>(
    (latents, values): (&[u32], &[f32]),
    w_dec: &[Lanes],
    scale: f32,
    error: &mut [Lanes],
    gradient: &mut [Lanes],
    mut square: S::F,
) -> S::F {
    let width = error.len();
    for at in (0..width).step_by(W) {
        let mut sum = [S::splat(0.0); W];
        for v in 0..W {
            sum[v] = S::load(&error[at + v]);
        }
        for (&latent, &z) in latents.iter().zip(values) {
            let (row, z) = (block::<W>(w_dec, width, latent as usize, at), S::splat(z));
            for v in 0..W {
                sum[v] = S::fma(z, S::load(&row[v]), sum[v]);
            }
        }
        for v in 0..W {
            square = S::fma(sum[v], sum[v], square);
            S::store(sum[v], &mut error[at + v]);
            S::store(S::mul(sum[v], S::splat(scale)), &mut gradient[at + v]);
        }
    }
    square
}

/// From G to the sums over samples of the kept latents.
#[inline(always)]
fn back<S: Simd, const W: usize>(
    (latents, values): (&[u32], &[f32]),
    w_dec: &[Lanes],
    penalty: Option<&[f32]>,
    h: &[Lanes],
    gradient: &[Lanes],
    sums: &mut GradientSums,
) {
    let width = gradient.len();
    for (&latent, &z) in latents.iter().zip(values) {
        let latent = latent as usize;
        let mut product = S::splat(0.0);
        for at in (0..width).step_by(W) {
            let (row, g) = (block::<W>(w_dec, width, latent, at), block::<W>(gradient, width, 0, at));
            for v in 0..W {
                product = S::fma(S::load(&g[v]), S::load(&row[v]), product);
            }
        }
        let mut dz = S::fold(product);
        if let Some(penalty) = penalty {
            dz += penalty[latent];
            sums.values[latent] += z;
        }
        sums.b_enc[latent] += dz;
        let (dz, z) = (S::splat(dz), S::splat(z));
        let row = latent * width..(latent + 1) * width;
        let rows = sums.w_dec[row.clone()].iter_mut().zip(&mut sums.w_enc[row]);
        for (((dec, enc), g), h) in rows.zip(gradient).zip(h) {
            S::store(S::fma(z, S::load(g), S::load(dec)), dec);
            S::store(S::fma(dz, S::load(h), S::load(enc)), enc);
        }
    }
}
