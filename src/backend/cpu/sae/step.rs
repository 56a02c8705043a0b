//! One training step of one autoencoder, in phases over the whole batch.
//!
//! ```text
//! A  select      each panel      pre = W_enc h + (b_enc - W_enc b_dec);  z = what the program keeps of pre
//! C  back        each panel      ĥ = W_decᵀ z + b_dec,  G = 2 (ĥ - h) / n,  back = W_dec G;  dpre at the kept entries
//! D  sort        batch           entries by latent, ascending samples
//! E  gradients   latent ranges   dW_dec = Σ z G,  dW_enc = Σ dpre h, ...
//! F  finish      latents         what is done once a latent: penalties on decoders, projection; the global norm
//! G  update      latents         clip, optimise, renormalise, norms and offsets for the next step
//! ```
//!
//! A and C take any panels in any order, E any range of latents: each writes its own part of the scratch memory, every sum
//! has one order, and no phase looks at how another was cut. (B, a choice among the entries of the whole batch, stands
//! between A and C for architectures that make one.)
//!
//! A ReLU autoencoder goes the **dense** way instead (see [`super::dense`]) while a greater share of its latents fires than
//! [`dense_above`] says, as counted in the step before; the two round differently, so this rule is part of what the
//! numbers are.

use std::ops::Range;

use super::dense::{DenseScratch, dense_above};
use super::state::State;
use crate::backend::ops::entries::Entries;
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, flat, flat_mut, vectors};
use crate::backend::ops::optimizer::{Step, Update};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::rows::{FinishGradients, Refresh};
use crate::backend::ops::select::{Keep, SelectPositive, SelectTop, TopScratch};
use crate::backend::ops::sparse::{
    ByLatent, GradientSums, Heard, LatentGradients, Levels, PanelEntries, Reconstruct, SampleSums,
};
use crate::backend::simd::{self, Isa, Lanes};
use crate::sae::{Penalty, Program, SaeTrain, Weights};
use crate::training::{ramp_down, ramp_up};

/// An autoencoder in training.
pub struct Trainee {
    pub(super) isa: Isa,
    pub(super) program: Program,
    pub(super) train: SaeTrain,
    /// What survives a step.
    pub state: State,
    /// |decoder_j|, `[n_latents]`; with `offset` a function of the state.
    norm: Vec<f32>,
    /// b_enc - W_enc b_dec, `[n_latents]`
    offset: Vec<f32>,
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
    panels: Vec<Panel>,
    work: Work,
    /// What entries hear: `[panels][levels][PANEL][vectors]`.
    heard: Vec<Lanes>,
    /// The same for dead latents.
    heard_dead: Vec<Lanes>,
    sorted: ByLatent,
    sorted_dead: ByLatent,
    dead: Vec<u32>,
    pub(super) penalty: Vec<f32>,
    pull: Vec<f32>,
    pub(super) dense: DenseScratch,
    /// Gradients.
    pub sums: GradientSums,
}

/// Memory of phase A, one for each thread that works on panels.
#[derive(Default)]
struct Work {
    /// `[n_latents][TILES]`
    pre: Vec<Lanes>,
    top: TopScratch,
}

/// What phases A to C make of a panel.
#[derive(Default)]
struct Panel {
    main: List,
    dead: List,
    /// `[PANEL][vectors]`
    error: Vec<Lanes>,
}

/// Entries of a panel and what comes back to them.
#[derive(Default)]
struct List {
    kept: Entries,
    /// In the places of `kept`: G · w_dec, then what the loss changes by with pre.
    dpre: Vec<f32>,
    /// Squared errors of each level.
    squares: Vec<f64>,
}

impl List {
    fn entries(&self) -> PanelEntries<'_> {
        PanelEntries { kept: &self.kept, dpre: &self.dpre }
    }
}

impl Trainee {
    /// Starts from `weights`, with nothing dead and zero moments.
    pub fn new(isa: Isa, weights: &Weights, program: Program, train: SaeTrain) -> Trainee {
        let state = State::new(weights, train.optimizer);
        let m = state.n_latents;
        let mut trainee = Trainee { isa, program, train, state, norm: vec![0.0; m], offset: vec![0.0; m] };
        trainee.refresh(false);
        trainee
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Weights {
        self.state.weights()
    }

    /// Norms and offsets; false where a weight is not a finite number.
    fn refresh(&mut self, unit: bool) -> bool {
        let State { w_enc, b_enc, w_dec, b_dec, .. } = &mut self.state;
        let refresh = Refresh { w_enc, b_enc, w_dec, b_dec, unit, norm: &mut self.norm, offset: &mut self.offset };
        simd::run(self.isa, refresh)
    }

    /// Loss and gradients (in `scratch.sums`, before projection and clip) at the present weights; takes note of what fired.
    pub fn gradients(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> Losses {
        let (m, width) = (self.state.n_latents, vectors(self.state.d));
        if scratch.sums.b_enc.len() != m || scratch.sums.b_dec.len() != width {
            scratch.sums = GradientSums::new(m, width);
        }
        self.price(batch.samples, scratch);
        let dense = self.program.keep == Keep::Positive && self.state.density > dense_above(self.state.d);
        let ([main, auxiliary], fired) =
            if dense { self.dense_step(batch, scratch) } else { self.sparse_step(batch, scratch) };
        let n = batch.samples as f64;
        self.state.density = fired as f64 / (n * m as f64);
        let values = scratch.sums.values.iter().zip(&scratch.penalty);
        Losses {
            mse: main / n,
            penalty: values.map(|(&z, &price)| z as f64 * price as f64).sum(),
            auxiliary: auxiliary / n * self.auxiliary_scale(scratch.dead.len()),
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

    pub(super) fn encode(&self, batch: &PackedBatch, panel: usize, pre: &mut [Lanes]) {
        let h = &batch.tiles[panel * self.state.d * TILES..][..self.state.d * TILES];
        let weights = self.by_latent(&self.state.w_enc);
        simd::run(self.isa, Product { weights, start: &self.offset, x: h, out: pre });
    }

    /// Row j of `[n_latents, d]` weights as row j of a product.
    pub(super) fn by_latent<'a>(&self, weights: &'a [Lanes]) -> Strided<'a> {
        Strided { numbers: flat(weights), row_stride: vectors(self.state.d) * LANES, depth_stride: 1 }
    }

    fn dense_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> ([f64; 2], u64) {
        let (square, fired) = self.dense(batch, scratch);
        ([square, 0.0], fired)
    }

    /// Squared errors of the reconstruction and of the auxiliary one, and the number of positive latents.
    fn sparse_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> ([f64; 2], u64) {
        let panels = batch.panels();
        self.list_dead(&mut scratch.dead);
        scratch.panels.resize_with(scratch.panels.len().max(panels), Panel::default);
        for p in 0..panels {
            self.select(batch, p, &scratch.dead, &mut scratch.work, &mut scratch.panels[p]);
        }
        let row = PANEL * vectors(self.state.d);
        let with_dead = !scratch.dead.is_empty();
        resize(&mut scratch.heard, panels * row);
        resize(&mut scratch.heard_dead, if with_dead { panels * row } else { 0 });
        for p in 0..panels {
            let heard = &mut scratch.heard[p * row..][..row];
            let heard_dead = if with_dead { &mut scratch.heard_dead[p * row..][..row] } else { &mut [] };
            self.back(batch, p, &scratch.penalty, scratch.dead.len(), &mut scratch.panels[p], heard, heard_dead);
        }
        let done = &scratch.panels[..panels];
        scratch.sorted.sort(self.state.n_latents, done.iter().map(|panel| panel.main.entries()));
        if with_dead {
            scratch.sorted_dead.sort(self.state.n_latents, done.iter().map(|panel| panel.dead.entries()));
        }
        let squares = |of: fn(&Panel) -> &List| done.iter().map(|panel| of(panel).squares.iter().sum::<f64>()).sum();
        let main: f64 = squares(|panel| &panel.main);
        let auxiliary: f64 = if with_dead { squares(|panel| &panel.dead) } else { 0.0 };
        let fired = done.iter().map(|panel| panel.main.kept.len() as u64).sum();
        self.latent_gradients(batch, 0..self.state.n_latents, scratch);
        scratch.sums.b_dec.fill(Lanes::default());
        let sum = &mut scratch.sums.b_dec;
        simd::run(self.isa, SampleSums { gradient: &scratch.heard, levels: 1, samples: batch.samples, sum });
        self.take_note(&scratch.sorted);
        ([main, auxiliary], fired)
    }

    /// Latents that get the auxiliary loss.
    fn list_dead(&self, dead: &mut Vec<u32>) {
        dead.clear();
        if self.program.aux_k > 0 {
            let since = self.state.since_fired.iter().enumerate();
            dead.extend(since.filter(|(_, since)| **since > self.train.dead_after).map(|(j, _)| j as u32));
        }
    }

    /// Phase A: what panel `p` keeps.
    fn select(&self, batch: &PackedBatch, p: usize, dead: &[u32], work: &mut Work, panel: &mut Panel) {
        let (isa, live, norm) = (self.isa, batch.live(p), &self.norm[..]);
        let Work { pre, top } = work;
        resize(pre, self.state.n_latents * TILES);
        self.encode(batch, p, pre);
        let kept = &mut panel.main.kept;
        match self.program.keep {
            Keep::Top(k) => {
                simd::run(isa, SelectTop { pre, norm, among: None, k, relu: true, live, scratch: top, kept });
            }
            Keep::Positive | Keep::All => simd::run(isa, SelectPositive { pre, live, kept }),
        }
        if !dead.is_empty() {
            let (among, k, kept) = (Some(dead), self.program.aux_k, &mut panel.dead.kept);
            simd::run(isa, SelectTop { pre, norm, among, k, relu: false, live, scratch: top, kept });
        }
    }

    /// Phase C: errors of panel `p`, what its entries hear, and what that makes of dpre.
    #[allow(clippy::too_many_arguments)] // reason: the parts of the scratch memory that belong to one panel
    fn back(
        &self,
        batch: &PackedBatch,
        p: usize,
        penalty: &[f32],
        n_dead: usize,
        panel: &mut Panel,
        heard: &mut [Lanes],
        heard_dead: &mut [Lanes],
    ) {
        let width = vectors(self.state.d);
        let (live, n) = (batch.live(p), batch.samples as f64);
        let Panel { main, dead, error } = panel;
        resize(error, live * width);
        let scale = (2.0 / n) as f32;
        let h = Some(&batch.rows[p * PANEL * width..][..live * width]);
        self.reconstruct(h, &[scale], main, error, heard);
        if !penalty.is_empty() {
            for sample in 0..live {
                let (latents, _) = main.kept.of(sample);
                for (&latent, dpre) in latents.iter().zip(&mut main.dpre[main.kept.range(sample)]) {
                    *dpre += penalty[latent as usize];
                }
            }
        }
        if !heard_dead.is_empty() {
            let scale = (2.0 * self.auxiliary_scale(n_dead) / n) as f32;
            self.reconstruct(None, &[scale], dead, error, heard_dead);
        }
    }

    fn reconstruct(
        &self,
        h: Option<&[Lanes]>,
        scale: &[f32],
        list: &mut List,
        error: &mut [Lanes],
        heard: &mut [Lanes],
    ) {
        let List { kept, dpre, squares } = list;
        resize(dpre, kept.slots());
        squares.clear();
        squares.resize(scale.len(), 0.0);
        let reconstruct = Reconstruct {
            h,
            w_dec: &self.state.w_dec,
            b_dec: &self.state.b_dec,
            kept,
            levels: Levels { of: None, scale, detached: false },
            error,
            gradient: heard,
            back: dpre,
            squares,
        };
        simd::run(self.isa, reconstruct);
    }

    /// Phase E: gradients of a range of latents.
    fn latent_gradients(&self, batch: &PackedBatch, latents: Range<usize>, scratch: &mut Scratch) {
        let width = vectors(self.state.d);
        let rows = latents.start * width..latents.end * width;
        let heard = |sorted, gradient, paid| Heard { sorted, gradient, levels: 1, level_of: None, paid };
        let main = heard(&scratch.sorted, &scratch.heard, !scratch.penalty.is_empty());
        let lists = [main, heard(&scratch.sorted_dead, &scratch.heard_dead, false)];
        let sums = &mut scratch.sums;
        let gradients = LatentGradients {
            lists: if scratch.dead.is_empty() { &lists[..1] } else { &lists },
            h: &batch.rows,
            w_enc: &mut sums.w_enc[rows.clone()],
            w_dec: &mut sums.w_dec[rows],
            b_enc: &mut sums.b_enc[latents.clone()],
            values: &mut sums.values[latents.clone()],
            latents,
        };
        simd::run(self.isa, gradients);
    }

    /// Which latents fired.
    fn take_note(&mut self, sorted: &ByLatent) {
        for (latent, since) in self.state.since_fired.iter_mut().enumerate() {
            *since = if sorted.of(latent).is_empty() { *since + 1 } else { 0 };
        }
    }

    /// Phase F: completes the gradients of [`Trainee::gradients`] and projects them; returns their global norm.
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
            w_enc: &self.state.w_enc,
            w_dec: &self.state.w_dec,
            b_dec: &self.state.b_dec,
            pull: decoder_pull,
            project: self.program.unit_decoder,
            sums,
        };
        simd::run(self.isa, finish).sqrt()
    }

    /// Phase G: moves the weights by the finished gradients of global norm `norm`, as step `step` from 0; false where a
    /// weight stopped being finite.
    pub fn update(&mut self, step: usize, norm: f64, scratch: &Scratch) -> bool {
        let train = &self.train;
        let factor = train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let settings = Step::new(train.optimizer, train.lr * factor, train.weight_decay, step);
        let State { w_enc, b_enc, w_dec, b_dec, moments, .. } = &mut self.state;
        let parameters = [flat_mut(w_enc), b_enc, flat_mut(w_dec), flat_mut(b_dec)];
        let sums = &scratch.sums;
        let gradients = [flat(&sums.w_enc), &sums.b_enc, flat(&sums.w_dec), flat(&sums.b_dec)];
        for ((parameters, gradient), moments) in parameters.into_iter().zip(gradients).zip(moments) {
            simd::run(self.isa, Update { step: &settings, scale: clip as f32, parameters, gradient, moments });
        }
        self.state.step = step + 1;
        self.refresh(self.program.unit_decoder)
    }

    /// The first tensor that holds something other than finite numbers.
    pub fn broken_tensor(&self) -> &'static str {
        let State { w_enc, b_enc, w_dec, b_dec, .. } = &self.state;
        let tensors = [flat(w_enc), b_enc, flat(w_dec), flat(b_dec)];
        let names = ["W_enc", "b_enc", "W_dec", "b_dec"];
        let broken = tensors.iter().position(|tensor| tensor.iter().any(|x| !x.is_finite()));
        broken.map_or("weights", |i| names[i])
    }
}

/// As long as asked for; what is new is zero.
fn resize<T: Clone + Default>(memory: &mut Vec<T>, len: usize) {
    memory.resize(len, T::default());
}

#[cfg(test)]
mod tests;
