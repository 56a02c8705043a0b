//! One training step of one autoencoder.
//!
//! ```text
//! for each panel of samples:
//!     pre    = W_enc h + (b_enc - W_enc b_dec)          dense product
//!     z      = what the program keeps of pre
//!     G      = 2 (ĥ - h) / n,  ĥ = W_decᵀ z + b_dec
//!     dz     = W_dec G + penalty, at the kept entries
//! dW_dec = Σ z G,  dW_enc = Σ dz (h - b_dec),  ...      sums over samples
//! project, clip, optimise, renormalise
//! ```
//!
//! There are two ways from z on. The **sparse** way follows the kept entries of one sample after the other. The
//! **dense** way takes all latents of sixteen samples at once: four more products of the encoder's size, at the
//! encoder's speed. TopK goes the sparse way. ReLU goes the dense way while a greater share of its latents fires than
//! [`dense_above`] says, as counted in the step before; the two round differently, so this rule is part of what the
//! numbers are.

use crate::backend::ops::dense::{Error, Gate, Relu};
use crate::backend::ops::entries::Entries;
use crate::backend::ops::layout::{LANES, PackedBatch, TILES, flat, flat_mut, pack_rows, unpack_rows, vectors};
use crate::backend::ops::optimizer::{Moments, Step, Update};
use crate::backend::ops::outer::{Outer, SumSamples};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::rows::{FinishGradients, Refresh};
use crate::backend::ops::select::{Keep, SelectPositive, SelectTop, TopScratch};
use crate::backend::ops::sparse::{Auxiliary, GradientSums, SparseStep, SquaredErrors};
use crate::backend::simd::{self, Isa, Lanes};
use crate::sae::{Penalty, Program, SaeTrain, Weights};
use crate::training::{ramp_down, ramp_up};

/// Share of firing latents above which a ReLU step goes the dense way.
///
/// Time of the dense way beyond the encoder for a latent of a sample, over that of the sparse way for an entry, both in
/// nanoseconds on a core of 118 GFLOP/s, fitted to d from 5 to 256: .09 at d = 5, .16 at 20, .27 at 256.
fn dense_above(d: usize) -> f64 {
    (0.3 + 0.07 * d as f64) / (3.0 + 4.0 * vectors(d) as f64)
}

/// An autoencoder in training.
pub struct Trainee {
    isa: Isa,
    program: Program,
    train: SaeTrain,
    n_latents: usize,
    d: usize,
    /// `[n_latents][vectors]`, padding 0.
    w_enc: Vec<Lanes>,
    b_enc: Vec<f32>,
    w_dec: Vec<Lanes>,
    /// `[vectors]`
    b_dec: Vec<Lanes>,
    /// Of w_enc, b_enc, w_dec, b_dec.
    moments: [Moments; 4],
    norm: Vec<f32>,
    offset: Vec<f32>,
    /// Steps since each latent last fired.
    since_fired: Vec<usize>,
    /// Share of latents that fired in the last step.
    density: f64,
}

/// Terms of the loss of a batch, and what fired.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean over the batch of |h - ĥ|².
    pub mse: f64,
    /// Of the penalty on latents.
    pub penalty: f64,
    /// Of the dead latents' reconstruction, scaled as it joins the loss.
    pub auxiliary: f64,
    /// Mean number of latents with z > 0.
    pub l0: f64,
}

impl Losses {
    /// The loss.
    pub fn total(&self) -> f64 {
        self.mse + self.penalty + self.auxiliary
    }
}

/// Memory of a step, shared by the autoencoders that one thread trains in turn.
#[derive(Default)]
pub struct Scratch {
    /// `[n_latents][TILES]`, or `[panels][n_latents][TILES]` on the dense way.
    pre: Vec<Lanes>,
    /// Dense way: `[panels][n_latents][TILES]` and `[panels][d][TILES]`.
    dz: Vec<Lanes>,
    gradient: Vec<Lanes>,
    top: TopScratch,
    kept: Option<Entries>,
    dead_kept: Option<Entries>,
    dead: Vec<u32>,
    penalty: Vec<f32>,
    pull: Vec<f32>,
    /// Gradients.
    pub sums: GradientSums,
}

impl Trainee {
    /// Starts from `weights`, with nothing dead and zero moments.
    pub fn new(isa: Isa, weights: &Weights, program: Program, train: SaeTrain) -> Trainee {
        let (m, d) = (weights.n_latents, weights.d_hidden);
        let packed = |numbers: &[f32]| {
            let mut rows = vec![];
            pack_rows(numbers, d, 1.0, &mut rows);
            rows
        };
        let row = vectors(d) * LANES;
        let moments = [m * row, m, m * row, row].map(|len| Moments::new(train.optimizer, len));
        let mut trainee = Trainee {
            isa,
            program,
            train,
            n_latents: m,
            d,
            w_enc: packed(&weights.w_enc),
            b_enc: weights.b_enc.clone(),
            w_dec: packed(&weights.w_dec),
            b_dec: packed(&weights.b_dec),
            moments,
            norm: vec![0.0; m],
            offset: vec![0.0; m],
            since_fired: vec![0; m],
            density: 1.0,
        };
        trainee.refresh(false);
        trainee
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Weights {
        Weights {
            n_latents: self.n_latents,
            d_hidden: self.d,
            w_enc: unpack_rows(&self.w_enc, self.d),
            b_enc: self.b_enc.clone(),
            w_dec: unpack_rows(&self.w_dec, self.d),
            b_dec: unpack_rows(&self.b_dec, self.d),
        }
    }

    /// Norms and offsets; false where a weight is not a finite number.
    fn refresh(&mut self, unit: bool) -> bool {
        let refresh = Refresh {
            w_enc: &self.w_enc,
            b_enc: &self.b_enc,
            w_dec: &mut self.w_dec,
            b_dec: &self.b_dec,
            unit,
            norm: &mut self.norm,
            offset: &mut self.offset,
        };
        simd::run(self.isa, refresh)
    }

    /// Loss and gradients (in `scratch.sums`, before projection and clip) at the present weights.
    pub fn gradients(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> Losses {
        let width = vectors(self.d);
        if scratch.sums.b_enc.len() != self.n_latents || scratch.sums.b_dec.len() != width {
            scratch.sums = GradientSums::new(self.n_latents, width);
        }
        scratch.sums.clear();
        self.price(batch.samples, scratch);
        let dense = self.program.keep == Keep::Positive && self.density > dense_above(self.d);
        let (squares, fired) = if dense { self.dense(batch, scratch) } else { self.sparse(batch, scratch) };
        let n = batch.samples as f64;
        self.density = fired as f64 / (n * self.n_latents as f64);
        let values = scratch.sums.values.iter().zip(&scratch.penalty);
        Losses {
            mse: squares.main / n,
            penalty: values.map(|(&z, &price)| z as f64 * price as f64).sum(),
            auxiliary: squares.auxiliary / n * self.auxiliary_scale(scratch.dead.len()),
            l0: fired as f64 / n,
        }
    }

    /// What a unit of each latent costs: the derivative of the penalty by z_j of one sample.
    fn price(&self, samples: usize, scratch: &mut Scratch) {
        scratch.penalty.clear();
        if let Penalty::L1 { coefficient, by_norm } = self.program.penalty {
            let each = coefficient / samples as f64;
            let price = |norm: &f32| (each * if by_norm { *norm as f64 } else { 1.0 }) as f32;
            scratch.penalty.extend(self.norm.iter().map(price));
        }
    }

    fn auxiliary_scale(&self, n_dead: usize) -> f64 {
        if self.program.aux_k == 0 { 0.0 } else { (n_dead as f64 / self.program.aux_k as f64).min(1.0) }
    }

    fn encode(&self, batch: &PackedBatch, panel: usize, pre: &mut [Lanes]) {
        let h = &batch.tiles[panel * self.d * TILES..][..self.d * TILES];
        simd::run(self.isa, Product { weights: self.by_latent(&self.w_enc), start: &self.offset, x: h, out: pre });
    }

    /// Row j of `[n_latents, d]` weights as row j of a product.
    fn by_latent<'a>(&self, weights: &'a [Lanes]) -> Strided<'a> {
        Strided { numbers: flat(weights), row_stride: vectors(self.d) * LANES, depth_stride: 1 }
    }

    /// Entries of one sample after the other; returns squared errors and the number of positive latents.
    fn sparse(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (SquaredErrors, u64) {
        let Scratch { pre, top, kept, dead_kept, dead, penalty, sums, .. } = scratch;
        let kept = kept.get_or_insert_with(|| Entries::new(0));
        let dead_kept = dead_kept.get_or_insert_with(|| Entries::new(0));
        let (isa, m, n) = (self.isa, self.n_latents, batch.samples);
        let width = vectors(self.d);
        let dead_after = self.train.dead_after;
        dead.clear();
        if self.program.aux_k > 0 {
            dead.extend((0..m as u32).filter(|&j| self.since_fired[j as usize] > dead_after));
        }
        pre.resize(pre.len().max(m * TILES), Lanes::default());
        let pre = &mut pre[..m * TILES];
        let (mut squares, mut fired) = (SquaredErrors::default(), 0);
        self.since_fired.iter_mut().for_each(|since| *since += 1);
        for p in 0..batch.panels() {
            let live = batch.live(p);
            self.encode(batch, p, pre);
            match self.program.keep {
                Keep::Top(k) => {
                    let (norm, kept, scratch) = (&self.norm[..], &mut *kept, &mut *top);
                    simd::run(isa, SelectTop { pre, norm, among: None, k, relu: true, live, scratch, kept });
                }
                Keep::Positive | Keep::All => simd::run(isa, SelectPositive { pre, live, kept }),
            }
            fired += kept.len() as u64;
            for sample in 0..live {
                for &latent in kept.of(sample).0 {
                    self.since_fired[latent as usize] = 0;
                }
            }
            let mut auxiliary = None;
            if !dead.is_empty() {
                let (norm, kept, scratch) = (&self.norm[..], &mut *dead_kept, &mut *top);
                let (among, k) = (Some(&dead[..]), self.program.aux_k);
                simd::run(isa, SelectTop { pre, norm, among, k, relu: false, live, scratch, kept });
                let scale = (2.0 * self.auxiliary_scale(dead.len()) / n as f64) as f32;
                auxiliary = Some(Auxiliary { kept: dead_kept, scale });
            }
            let step = SparseStep {
                h: &batch.rows[p * TILES * LANES * width..][..live * width],
                w_dec: &self.w_dec,
                b_dec: &self.b_dec,
                kept,
                scale: (2.0 / n as f64) as f32,
                penalty: (!penalty.is_empty()).then_some(&penalty[..]),
                auxiliary,
                sums,
            };
            let panel = simd::run(isa, step);
            squares.main += panel.main;
            squares.auxiliary += panel.auxiliary;
        }
        (squares, fired)
    }

    /// All latents of all samples; returns squared errors and the number of positive latents.
    fn dense(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (SquaredErrors, u64) {
        let Scratch { pre: z, dz, gradient, penalty, sums, .. } = scratch;
        let (isa, m, d) = (self.isa, self.n_latents, self.d);
        let stride = vectors(d) * LANES;
        for (lanes, rows) in [(&mut *z, m), (&mut *dz, m), (&mut *gradient, d)] {
            lanes.resize(lanes.len().max(batch.panels() * rows * TILES), Lanes::default());
        }
        let z = &mut z[..batch.panels() * m * TILES];
        let dz = &mut dz[..batch.panels() * m * TILES];
        let gradient = &mut gradient[..batch.panels() * d * TILES];
        penalty.resize(m, 0.0);
        let scale = (2.0 / batch.samples as f64) as f32;
        let (mut square, mut fired) = (0.0, 0);
        let by_column = Strided { numbers: flat(&self.w_dec), row_stride: 1, depth_stride: stride };
        let by_latent = self.by_latent(&self.w_dec);
        let panels = z.chunks_exact_mut(m * TILES).zip(dz.chunks_exact_mut(m * TILES));
        for (p, ((z, dz), g)) in panels.zip(gradient.chunks_exact_mut(d * TILES)).enumerate() {
            let live = batch.live(p);
            self.encode(batch, p, z);
            fired += simd::run(isa, Relu { pre: z, live });
            let start = &flat(&self.b_dec)[..d];
            simd::run(isa, Product { weights: by_column, start, x: z, out: g });
            let h = &batch.tiles[p * d * TILES..][..d * TILES];
            square += simd::run(isa, Error { reconstruction: g, h, scale, live });
            simd::run(isa, Product { weights: by_latent, start: penalty, x: g, out: dz });
            simd::run(isa, Gate { dz, z });
        }
        let (rows_a, rows_b) = (m, d);
        simd::run(isa, Outer { a: z, rows_a, b: gradient, rows_b, out: flat_mut(&mut sums.w_dec), stride });
        simd::run(isa, Outer { a: dz, rows_a, b: &batch.tiles, rows_b, out: flat_mut(&mut sums.w_enc), stride });
        simd::run(isa, SumSamples { x: dz, out: &mut sums.b_enc });
        simd::run(isa, SumSamples { x: gradient, out: &mut flat_mut(&mut sums.b_dec)[..d] });
        simd::run(isa, SumSamples { x: z, out: &mut sums.values });
        (SquaredErrors { main: square, auxiliary: 0.0 }, fired)
    }

    /// Completes the gradients of [`Trainee::gradients`] and projects them; returns their global norm.
    pub fn finish(&self, scratch: &mut Scratch) -> f64 {
        let Scratch { pull, penalty, sums, .. } = scratch;
        let mut decoder_pull = None;
        if let Penalty::L1 { by_norm: true, .. } = self.program.penalty {
            // price_j = l1 / n |w_dec_j|, so price_j / |w_dec_j|² · Σ z_j is l1 / n · Σ z_j / |w_dec_j|.
            pull.clear();
            let terms = penalty.iter().zip(&sums.values).zip(&self.norm);
            pull.extend(terms.map(|((price, z), norm)| if *norm > 0.0 { price / norm * z / norm } else { 0.0 }));
            decoder_pull = Some(&pull[..]);
        }
        let finish = FinishGradients {
            w_enc: &self.w_enc,
            w_dec: &self.w_dec,
            b_dec: &self.b_dec,
            pull: decoder_pull,
            project: self.program.unit_decoder,
            sums,
        };
        simd::run(self.isa, finish).sqrt()
    }

    /// Moves the weights by the finished gradients of global norm `norm`, as step `step` from 0; false where a weight
    /// stopped being finite.
    pub fn update(&mut self, step: usize, norm: f64, scratch: &Scratch) -> bool {
        let train = &self.train;
        let factor = train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let settings = Step::new(train.optimizer, train.lr * factor, train.weight_decay, step);
        let parameters =
            [flat_mut(&mut self.w_enc), &mut self.b_enc, flat_mut(&mut self.w_dec), flat_mut(&mut self.b_dec)];
        let sums = &scratch.sums;
        let gradients = [flat(&sums.w_enc), &sums.b_enc, flat(&sums.w_dec), flat(&sums.b_dec)];
        for ((parameters, gradient), moments) in parameters.into_iter().zip(gradients).zip(&mut self.moments) {
            simd::run(self.isa, Update { step: &settings, scale: clip as f32, parameters, gradient, moments });
        }
        self.refresh(self.program.unit_decoder)
    }

    /// The first tensor that holds something other than finite numbers.
    pub fn broken_tensor(&self) -> &'static str {
        let tensors = [flat(&self.w_enc), &self.b_enc, flat(&self.w_dec), flat(&self.b_dec)];
        let names = ["W_enc", "b_enc", "W_dec", "b_dec"];
        let broken = tensors.iter().position(|tensor| tensor.iter().any(|x| !x.is_finite()));
        broken.map_or("weights", |i| names[i])
    }
}

#[cfg(test)]
mod tests;
