//! Decoder, loss and gradients of a small autoencoder in one go, sample by sample.
//!
//! ```text
//! e = b_dec - h + Σ z_j w_dec_j     over the kept latents j
//! G = scale e,  dz_j = G · w_dec_j + price_j
//! dW_dec_j += z_j G     dW_enc_j += dz_j h     db_enc_j += dz_j     db_dec += G
//! ```
//!
//! This is [`Reconstruct`](super::sparse::Reconstruct), the sort by latent and
//! [`LatentGradients`](super::sparse::LatentGradients) for rows that fit in registers and sums that fit in the first-level
//! cache: nothing between z and the sums is ever stored. Panels are taken in ascending order, so each sum is the same
//! chain over ascending samples, bit for bit.

use super::entries::Entries;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Vectors of a row that registers hold.
pub const MOST_VECTORS: usize = 4;

/// Where sums over samples are kept.
pub struct FusedSums<'a> {
    /// `[n_latents][vectors]`
    pub w_enc: &'a mut [Lanes],
    /// `[n_latents][vectors]`
    pub w_dec: &'a mut [Lanes],
    /// `[n_latents]`
    pub b_enc: &'a mut [f32],
    /// `[vectors]`
    pub b_dec: &'a mut [Lanes],
    /// Σ z_j, `[n_latents]`; taken where there are prices.
    pub values: &'a mut [f32],
}

/// One panel.
pub struct Fused<'a> {
    /// `[live][vectors]`, at most [`MOST_VECTORS`] of them.
    pub h: &'a [Lanes],
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// z, what each sample keeps.
    pub kept: &'a Entries,
    /// 2 / n, n the samples of the batch.
    pub scale: f32,
    /// Derivative of the penalty by z_j, `[n_latents]`.
    pub price: Option<&'a [f32]>,
    /// `[live][vectors]`: filled with h - ĥ, where there is something left to be done with it.
    pub residual: Option<&'a mut [Lanes]>,
    /// Added to.
    pub sums: FusedSums<'a>,
}

impl Kernel for Fused<'_> {
    /// Σ e² of the panel.
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        match self.b_dec.len() {
            1 => self.rows::<S, 1>(),
            2 => self.rows::<S, 2>(),
            3 => self.rows::<S, 3>(),
            4 => self.rows::<S, 4>(),
            width => panic!("{width} vectors do not fit in registers"),
        }
    }
}

impl Fused<'_> {
    #[inline(always)]
    fn rows<S: Simd, const W: usize>(self) -> f64 {
        let Fused { h, w_dec, b_dec, kept, scale, price, residual, sums } = self;
        let mut residual = residual.map(|residual| residual.as_chunks_mut::<W>().0);
        let (h, w_dec) = (h.as_chunks::<W>().0, w_dec.as_chunks::<W>().0);
        let (d_enc, d_dec) = (sums.w_enc.as_chunks_mut::<W>().0, sums.w_dec.as_chunks_mut::<W>().0);
        let (mut bias, mut sum_g) = ([S::splat(0.0); W], [S::splat(0.0); W]);
        for v in 0..W {
            bias[v] = S::load(&b_dec[v]);
            sum_g[v] = S::load(&sums.b_dec[v]);
        }
        let mut square = S::splat(0.0);
        for (sample, h) in h.iter().enumerate() {
            let (mut x, mut error) = ([S::splat(0.0); W], [S::splat(0.0); W]);
            for v in 0..W {
                x[v] = S::load(&h[v]);
                error[v] = S::sub(bias[v], x[v]);
            }
            let (latents, values) = kept.of(sample);
            for (&latent, &z) in latents.iter().zip(values) {
                let row = &w_dec[latent as usize];
                for v in 0..W {
                    error[v] = S::fma(S::splat(z), S::load(&row[v]), error[v]);
                }
            }
            if let Some(residual) = &mut residual {
                for v in 0..W {
                    S::store(S::sub(S::splat(0.0), error[v]), &mut residual[sample][v]);
                }
            }
            let mut g = [S::splat(0.0); W];
            for v in 0..W {
                square = S::fma(error[v], error[v], square);
                g[v] = S::mul(error[v], S::splat(scale));
                sum_g[v] = S::add(sum_g[v], g[v]);
            }
            for (&latent, &z) in latents.iter().zip(values) {
                let latent = latent as usize;
                let mut product = S::splat(0.0);
                for v in 0..W {
                    product = S::fma(g[v], S::load(&w_dec[latent][v]), product);
                }
                let mut dz = S::fold(product);
                if let Some(price) = price {
                    dz += price[latent];
                    sums.values[latent] += z;
                }
                sums.b_enc[latent] += dz;
                let (dec, enc) = (&mut d_dec[latent], &mut d_enc[latent]);
                for v in 0..W {
                    S::store(S::fma(S::splat(z), g[v], S::load(&dec[v])), &mut dec[v]);
                    S::store(S::fma(S::splat(dz), x[v], S::load(&enc[v])), &mut enc[v]);
                }
            }
        }
        for (g, sum) in sum_g.into_iter().zip(sums.b_dec.iter_mut()) {
            S::store(g, sum);
        }
        S::fold(square) as f64
    }
}
