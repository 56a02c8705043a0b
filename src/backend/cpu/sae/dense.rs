//! The dense way of a ReLU step: all latents of sixteen samples at once, four more products of the encoder's size.

use super::lists::Aim;
use super::step::{Scratch, Trainee};
use crate::backend::ops::dense::{Error, Gate, Relu};
use crate::backend::ops::layout::{LANES, PackedBatch, TILES, flat, flat_mut, vectors};
use crate::backend::ops::outer::{Outer, SumSamples};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::simd::{self, Lanes};

/// Memory of the dense way.
#[derive(Default)]
pub struct DenseScratch {
    /// `[panels][n_latents][TILES]`
    z: Vec<Lanes>,
    /// `[panels][n_latents][TILES]`
    pub(super) dz: Vec<Lanes>,
    /// `[panels][d][TILES]`
    gradient: Vec<Lanes>,
}

/// Share of firing latents above which a ReLU step goes the dense way.
///
/// Time of the dense way beyond the encoder for a latent of a sample, over that of the sparse way for an entry, both in
/// nanoseconds on a core of 118 GFLOP/s, fitted to d from 5 to 256: .09 at d = 5, .16 at 20, .27 at 256.
pub fn dense_above(d: usize) -> f64 {
    (0.3 + 0.07 * d as f64) / (3.0 + 4.0 * vectors(d) as f64)
}

impl Trainee {
    /// Sums over all samples; returns the squared error and the number of positive latents.
    pub(super) fn dense(&self, batch: &PackedBatch, scratch: &mut Scratch) -> (f64, u64) {
        let Scratch { dense: DenseScratch { z, dz, gradient }, aim: Aim { price, .. }, sums, .. } = scratch;
        let (isa, m, d) = (self.isa, self.state.n_latents, self.state.d);
        let stride = vectors(d) * LANES;
        for (lanes, rows) in [(&mut *z, m), (&mut *dz, m), (&mut *gradient, d)] {
            lanes.resize(lanes.len().max(batch.panels() * rows * TILES), Lanes::default());
        }
        let z = &mut z[..batch.panels() * m * TILES];
        let dz = &mut dz[..batch.panels() * m * TILES];
        let gradient = &mut gradient[..batch.panels() * d * TILES];
        price.resize(m, 0.0);
        let scale = (2.0 / batch.samples as f64) as f32;
        let (mut square, mut fired) = (0.0, 0);
        let by_column = Strided { numbers: flat(&self.state.w_dec), row_stride: 1, depth_stride: stride };
        let by_latent = self.by_latent(&self.state.w_dec);
        let panels = z.chunks_exact_mut(m * TILES).zip(dz.chunks_exact_mut(m * TILES));
        for (p, ((z, dz), g)) in panels.zip(gradient.chunks_exact_mut(d * TILES)).enumerate() {
            let live = batch.live(p);
            self.encode(batch, p, z);
            fired += simd::run(isa, Relu { pre: z, live });
            let start = &flat(&self.state.b_dec)[..d];
            simd::run(isa, Product { weights: by_column, start, x: z, out: g });
            let h = &batch.tiles[p * d * TILES..][..d * TILES];
            square += simd::run(isa, Error { reconstruction: g, h, scale, live });
            simd::run(isa, Product { weights: by_latent, start: price, x: g, out: dz });
            simd::run(isa, Gate { dz, z });
        }
        let (rows_a, rows_b) = (m, d);
        simd::run(isa, Outer { a: z, rows_a, b: gradient, rows_b, out: flat_mut(&mut sums.w_dec), stride });
        simd::run(isa, Outer { a: dz, rows_a, b: &batch.tiles, rows_b, out: flat_mut(&mut sums.w_enc), stride });
        simd::run(isa, SumSamples { x: dz, out: &mut sums.b_enc });
        sums.b_dec.fill(Lanes::default());
        simd::run(isa, SumSamples { x: gradient, out: &mut flat_mut(&mut sums.b_dec)[..d] });
        simd::run(isa, SumSamples { x: z, out: &mut sums.values });
        sums.through.copy_from_slice(&sums.b_enc);
        sums.extra.iter_mut().for_each(|extra| extra.fill(0.0));
        (square, fired)
    }
}
