//! Phases C to E in one, panel by panel, where the autoencoder is small.
//!
//! The auxiliary loss of dead latents, if there are some, chooses most of them for every sample. Their choice is a mask then, and all
//! that follows it dense: with r = h - ĥ, w_dec of the dead latents alone, and scale = 2 min(n_dead / aux_k, 1) / n,
//!
//! ```text
//! z = open pre      G = scale (Σ z_j w_dec_j - r)      dz = open (W_dec G)      dW_dec = Σ z G     dW_enc = Σ dz h
//! ```

use super::{Losses, Scratch, Times, Trainee};
use crate::backend::cpu::sae::lists::{Aim, Clock, Panel};
use crate::backend::ops::dead::{self, OpenTop};
use crate::backend::ops::dense::{Error, Gate};
use crate::backend::ops::fused::{Fused, FusedSums, MOST_VECTORS};
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, TurnRows, flat, flat_mut, vectors};
use crate::backend::ops::outer::{Outer, SumSamples};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::sparse::GradientSums;
use crate::backend::simd::{self, Lanes};
use crate::sae::Rule;

/// Memory of the auxiliary loss by masks.
#[derive(Default)]
pub struct Masked {
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
fn masks_pay(n: usize, k: usize, d: usize) -> bool {
    (k <= dead::MOST || n <= k) && n * (4 + d) <= 4 * k * (35 + 6 * vectors(d))
}

impl Trainee {
    /// Whether a step's sums stay in the cache and its rows in registers, and nothing but one list of entries and perhaps dead
    /// latents take part.
    pub(super) fn fuses(&self, samples: usize, aim: &Aim) -> bool {
        matches!(self.program.rule, Rule::Positive | Rule::Top(_))
            && self.program.levels.is_none()
            && self.program.has_encoder_bias()
            && aim.dead.iter().all(|dead| dead.is_empty() || masks_pay(dead.len(), self.program.aux_k, self.state.d))
            && vectors(self.state.d) <= MOST_VECTORS
            && !self.shared(samples)
    }

    /// All phases panel by panel: without dead latents the same sums as those of [`Trainee::phased_step`], bit for bit.
    pub(super) fn fused_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
        let mut clock = Clock::start();
        let Scratch { panels, work, aim, sums, gram, masked, times, .. } = scratch;
        panels.resize_with(panels.len().max(1), Panel::default);
        let GradientSums { w_enc, w_dec, b_enc, b_dec, values, through, extra } = sums;
        for rows in [&mut *w_enc, w_dec, b_dec] {
            rows.fill(Lanes::default());
        }
        let [first, second] = extra;
        for numbers in [&mut *b_enc, values, first, second] {
            numbers.fill(0.0);
        }
        let dead = &aim.dead[0][..];
        masked.prepare(self, dead, batch);
        let (mut square, mut auxiliary, mut fired) = (0.0, 0.0, 0);
        self.state.since_fired.iter_mut().for_each(|since| *since += 1);
        for p in 0..batch.panels() {
            work.with(|work| {
                self.select(batch, p, 0.0, aim, gram, work, &mut panels[0]);
                masked.choose(self, dead, &work.pre, p, batch.live(p));
            });
            let kept = &panels[0].main.kept;
            let (width, live) = (vectors(self.state.d), batch.live(p));
            let price = (!aim.price.is_empty()).then_some(&aim.price[..]);
            let fused = Fused {
                h: &batch.rows[p * PANEL * width..][..live * width],
                w_dec: &self.state.w_dec,
                b_dec: &self.state.b_dec,
                kept,
                scale: aim.scales[0],
                price,
                residual: (!dead.is_empty()).then(|| &mut masked.residual[..live * width]),
                sums: FusedSums { w_enc, w_dec, b_enc, b_dec, values },
            };
            square += simd::run(self.isa, fused);
            fired += kept.len() as u64;
            for sample in 0..live {
                for &latent in kept.of(sample).0 {
                    self.state.since_fired[latent as usize] = 0;
                }
            }
            auxiliary += masked.reconstruct(self, dead, aim, p, live);
        }
        masked.add_to(self, dead, batch, w_enc, w_dec, b_enc);
        through.copy_from_slice(b_enc);
        *times = Times { encode: clock.lap(), ..Times::default() };
        let mse = square / batch.samples as f64;
        let auxiliary = auxiliary / batch.samples as f64 * aim.dead_weights[0];
        (Losses { mse, reconstruction: mse, auxiliary, ..Losses::default() }, fired)
    }
}

impl Masked {
    /// Memory of the right size, zeros where nothing is written.
    fn prepare(&mut self, of: &Trainee, dead: &[u32], batch: &PackedBatch) {
        if dead.is_empty() {
            return;
        }
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
    }

    /// Which dead latents each sample of panel `p` gets.
    fn choose(&mut self, of: &Trainee, dead: &[u32], pre: &[Lanes], p: usize, live: usize) {
        if dead.is_empty() {
            return;
        }
        let piece = dead.len() * TILES;
        let (open, z) = (&mut self.open[..], &mut self.z[p * piece..][..piece]);
        simd::run(of.isa, OpenTop { pre, norm: &of.norm, among: dead, k: of.program.aux_k, live, open, z });
    }

    /// z, G and dz of panel `p`; returns Σ over samples of the squared error of their reconstruction of the residual.
    fn reconstruct(&mut self, of: &Trainee, dead: &[u32], aim: &Aim, p: usize, live: usize) -> f64 {
        if dead.is_empty() {
            return 0.0;
        }
        let (isa, d, piece) = (of.isa, of.state.d, dead.len() * TILES);
        let stride = vectors(d) * LANES;
        let Masked { w_dec, zeros, residual, turned, open, z, dz, gradient, .. } = self;
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
    fn add_to(
        &mut self,
        of: &Trainee,
        dead: &[u32],
        batch: &PackedBatch,
        w_enc: &mut [Lanes],
        w_dec: &mut [Lanes],
        b_enc: &mut [f32],
    ) {
        if dead.is_empty() {
            return;
        }
        let (isa, d, width) = (of.isa, of.state.d, vectors(of.state.d));
        let (rows_a, rows_b, stride) = (dead.len(), d, width * LANES);
        let Masked { z, dz, gradient, rows, numbers, .. } = self;
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
