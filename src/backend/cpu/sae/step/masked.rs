//! The auxiliary loss of dead latents by masks.
//!
//! Where it chooses most of them for every sample, their choice is a mask and all that follows it dense: with r = h - ĥ, w_dec of the dead latents alone, and scale = 2 min(n_dead / aux_k, 1) / n,
//!
//! ```text
//! z = open pre      G = scale (Σ z_j w_dec_j - r)      dz = open (W_dec G)      dW_dec = Σ z G     dW_enc = Σ dz h
//! ```

use super::Trainee;
use crate::backend::cpu::sae::lists::Aim;
use crate::backend::ops::dead::{self, OpenTop};
use crate::backend::ops::dense::{Error, Gate};
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, TurnRows, flat, flat_mut, vectors};
use crate::backend::ops::outer::{Outer, SumSamples};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::simd::{self, Lanes};

/// Memory of the auxiliary loss by masks.
#[derive(Default)]
pub struct Masked {
    /// The dead latents, ascending.
    dead: Vec<u32>,
    /// Decoder rows of the dead latents, `[dead][vectors]`.
    w_dec: Vec<Lanes>,
    zeros: Vec<f32>,
    /// h - ĥ of a panel, `[PANEL][vectors]`.
    residual: Vec<Lanes>,
    /// The same, `[d][TILES]`.
    turned: Vec<Lanes>,
    /// `[dead][TILES]` of a panel.
    open: Vec<Lanes>,
    /// `[panels][dead][TILES]`
    z: Vec<Lanes>,
    /// `[panels][dead][TILES]`
    dz: Vec<Lanes>,
    /// `[panels][d][TILES]`
    gradient: Vec<Lanes>,
    /// Sums over samples: rows `[dead][vectors]`, then numbers `[dead]`.
    rows: Vec<Lanes>,
    numbers: Vec<f32>,
}

/// Whether masks of k of n dead latents take less time than lists: in cycles of a core with vectors of 512 bits, a latent of a
/// sample takes some 1 + d / 4 in four products, an entry some 35 + 6 vectors.
pub fn masks_pay(n: usize, k: usize, d: usize) -> bool {
    (k <= dead::MOST || n <= k) && n * (4 + d) <= 4 * k * (35 + 6 * vectors(d))
}

impl Masked {
    /// Memory of the right size for a step with these dead latents, zeros where nothing is written; none where there are none.
    pub fn prepare(&mut self, of: &Trainee, dead: &[u32], batch: &PackedBatch) -> Option<&mut Masked> {
        if dead.is_empty() {
            return None;
        }
        self.dead.clear();
        self.dead.extend_from_slice(dead);
        let (d, width, n) = (of.state.d, vectors(of.state.d), dead.len());
        self.w_dec.clear();
        for &latent in dead {
            self.w_dec.extend_from_slice(&of.state.w_dec[latent as usize * width..][..width]);
        }
        self.zeros.resize(n.max(d), 0.0);
        self.numbers.resize(n, 0.0);
        let sizes = [PANEL * width, d * TILES, n * TILES, batch.panels() * d * TILES, n * width];
        let memory = [&mut self.residual, &mut self.turned, &mut self.open, &mut self.gradient, &mut self.rows];
        for (lanes, size) in memory.into_iter().zip(sizes) {
            lanes.resize(size, Lanes::default());
        }
        for lanes in [&mut self.z, &mut self.dz] {
            lanes.resize(batch.panels() * n * TILES, Lanes::default());
        }
        Some(self)
    }

    /// Where h - ĥ of a panel of `live` samples belongs.
    pub fn residual(&mut self, of: &Trainee, live: usize) -> &mut [Lanes] {
        &mut self.residual[..live * vectors(of.state.d)]
    }

    /// Which dead latents each sample of panel `p` gets.
    pub fn choose(&mut self, of: &Trainee, pre: &[Lanes], p: usize, live: usize) {
        let Masked { dead, open, z, .. } = self;
        let piece = dead.len() * TILES;
        let z = &mut z[p * piece..][..piece];
        simd::run(of.isa, OpenTop { pre, norm: &of.norm, among: dead, k: of.program.aux_k, live, open, z });
    }

    /// z, G and dz of panel `p`; returns Σ over samples of the squared error of their reconstruction of the residual.
    pub fn reconstruct(&mut self, of: &Trainee, aim: &Aim, p: usize, live: usize) -> f64 {
        let Masked { dead, w_dec, zeros, residual, turned, open, z, dz, gradient, .. } = self;
        let (isa, d, piece) = (of.isa, of.state.d, dead.len() * TILES);
        let stride = vectors(d) * LANES;
        let (z, dz) = (&z[p * piece..][..piece], &mut dz[p * piece..][..piece]);
        let gradient = &mut gradient[p * d * TILES..][..d * TILES];
        let by_column = Strided { numbers: flat(w_dec), row_stride: 1, depth_stride: stride };
        let by_latent = Strided { numbers: flat(w_dec), row_stride: stride, depth_stride: 1 };
        simd::run(isa, TurnRows { rows: &residual[..live * vectors(d)], d, tiles: turned });
        simd::run(isa, Product { weights: by_column, start: &zeros[..d], x: z, out: gradient });
        let scale = (2.0 * aim.dead_weights[0] / aim.samples as f64) as f32;
        let square = simd::run(isa, Error { reconstruction: gradient, h: turned, scale, live });
        simd::run(isa, Product { weights: by_latent, start: &zeros[..dead.len()], x: gradient, out: dz });
        simd::run(isa, Gate { dz, z: open });
        square
    }

    /// Adds the sums over samples.
    pub fn add_to(
        &mut self,
        of: &Trainee,
        batch: &PackedBatch,
        w_enc: &mut [Lanes],
        w_dec: &mut [Lanes],
        b_enc: &mut [f32],
    ) {
        let Masked { dead, z, dz, gradient, rows, numbers, .. } = self;
        let (isa, d, width) = (of.isa, of.state.d, vectors(of.state.d));
        let (rows_a, rows_b, stride) = (dead.len(), d, width * LANES);
        let pairs = [(&*z, &*gradient, w_dec), (&*dz, &batch.tiles, w_enc)];
        for (a, b, sums) in pairs {
            simd::run(isa, Outer { a, rows_a, b, rows_b, out: flat_mut(rows), stride });
            for (&latent, row) in dead.iter().zip(rows.chunks_exact(width)) {
                let sum = flat_mut(&mut sums[latent as usize * width..][..width]);
                sum[..d].iter_mut().zip(flat(row)).for_each(|(sum, x)| *sum += x);
            }
        }
        simd::run(isa, SumSamples { x: dz, out: numbers });
        for (&latent, x) in dead.iter().zip(numbers) {
            b_enc[latent as usize] += *x;
        }
    }
}
