//! One training step of one autoencoder, in phases over the whole batch.
//!
//! ```text
//! A  select      each panel      pre = W_enc h + (b_enc - W_enc b_dec);  z = what the program keeps of pre
//! B  choose      batch           BatchTopK alone: the greatest of what the panels collected
//! C  back        each panel      ĥ = W_decᵀ z + b_dec,  G = 2 (ĥ - h) / n,  back = W_dec G;  dpre at the kept entries
//! D  sort        batch           entries by latent, ascending samples
//! E  gradients   latent ranges   dW_dec = Σ z G,  dW_enc = Σ dpre h, ...
//! F  finish      latents         what is done once a latent: penalties on decoders, projection; the global norm
//! G  update      latents         clip, optimise, renormalise, norms and offsets for the next step
//! ```
//!
//! Where rows fit in registers and sums in the cache, phases C to E are one (see [`crate::backend::ops::fused`]), panel by
//! panel; which latents may be kept is first guessed where the encoder is large (see [`crate::backend::ops::screen`]).
//! Neither touches a bit. Dead latents of such a small autoencoder, where most of them are chosen, go a dense way of their
//! own (see `masked`), which rounds differently: when it is taken follows from the state.
//!
//! A and C take any panels in any order, E any range of latents: each writes its own part of the scratch memory, every sum
//! has one order, and no phase looks at how another was cut.
//!
//! A ReLU autoencoder goes the **dense** way instead (see [`super::dense`]) while a greater share of its latents fires than
//! [`dense_above`] says, as counted in the step before; the two round differently, so this rule is part of what the
//! numbers are.

mod back;
mod finish;
mod fused;
mod gradients;
mod masked;
mod select;

use self::back::Hears;
use super::blocks::{Pool, each, shared};
use super::dense::{DenseScratch, dense_above};
pub use super::lists::Times;
use super::lists::{Aim, Clock, DeadRows, Panel, Sorted, Work, choose};
use super::state::State;
use crate::backend::checkpoint::Record;
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, flat, unpack_rows, vectors};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::pursuit::Gram;
use crate::backend::ops::rows::{BLOCK, Refresh};
use crate::backend::ops::screen::{self, RoundRows, ScreenWeights};
use crate::backend::ops::sparse::GradientSums;
use crate::backend::simd::{self, Isa, Lanes};
use crate::sae::matryoshka::StepLevels;
use crate::sae::weights::Magnitudes;
use crate::sae::{Penalty, Program, Rule, SaeTrain, Weights, batch_topk};

/// Phase A of BatchTopK collects what exceeds this share of the least key of the step before, and everything where that was too
/// little.
const BAR_SHARE: f32 = 0.9;

/// Size of an encoder from which its product is screened: below, what the screen saves is less than what it adds.
const SCREENED_FROM: usize = 1 << 15;

/// An autoencoder in training.
#[derive(Clone)]
pub struct Trainee {
    pub(super) isa: Isa,
    pub(super) program: Program,
    pub(super) train: SaeTrain,
    seed: u64,
    /// What survives a step.
    pub state: State,
    /// |decoder_j|, `[n_latents]`; with all that follows a function of the state.
    pub(super) norm: Vec<f32>,
    /// b_enc - W_enc b_dec, `[n_latents]`
    offset: Vec<f32>,
    /// Of a gated autoencoder.
    magnitudes: Magnitudes,
    /// Encoder rows in bf16, where the selection is screened.
    screen: Option<ScreenWeights>,
    /// The least key that BatchTopK kept in the step before: what the next is guessed from, and no number depends on.
    least: Option<f32>,
}

/// Terms of the loss of a batch, and what fired.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Mean over the batch of |h - ĥ|².
    pub mse: f64,
    /// As it joins the loss: weighted over levels; `mse` where there is one level.
    pub reconstruction: f64,
    /// Of the penalty on latents.
    pub penalty: f64,
    /// Of the reconstructions by dead latents and by the gate, scaled as they join the loss.
    pub auxiliary: f64,
    /// Mean number of latents with z > 0.
    pub l0: f64,
}

impl Losses {
    /// The loss.
    pub fn total(&self) -> f64 {
        self.reconstruction + self.penalty + self.auxiliary
    }
}

/// Memory of a step, shared by the autoencoders that one thread trains in turn.
#[derive(Default)]
pub struct Scratch {
    pub(super) panels: Vec<Panel>,
    work: Pool<Work>,
    pub(super) aim: Aim,
    main: Sorted,
    gate: Sorted,
    dead: Vec<Sorted>,
    silent: Sorted,
    keys: Vec<u32>,
    gram: Gram,
    pull: Vec<f32>,
    /// What blocks of latents leave of db_dec: `[blocks][vectors]`.
    rests: Vec<Lanes>,
    /// Squared norms of the gradients of blocks.
    squares: Vec<f64>,
    pub(super) dense: DenseScratch,
    masked: masked::Masked,
    /// Encoder rows of dead latents, where the screen leaves them out.
    dead_rows: Vec<DeadRows>,
    /// Gradients.
    pub sums: GradientSums,
    /// Seconds that the phases of the last step took.
    pub times: Times,
}

impl Trainee {
    /// Starts from `weights`, with nothing dead and zero moments.
    pub fn new(isa: Isa, weights: &Weights, program: Program, train: SaeTrain) -> Trainee {
        let state = State::new(weights, train.optimizer);
        let (norm, offset) = (vec![0.0; state.n_latents], vec![0.0; state.n_latents]);
        let screen = screened(isa, &program, &state).then(|| ScreenWeights::new(state.n_latents, state.d));
        let magnitudes = Magnitudes::default();
        let mut trainee =
            Trainee { isa, program, train, seed: 0, state, norm, offset, magnitudes, screen, least: None };
        trainee.refresh(false);
        trainee
    }

    /// With the seed that prefixes and resampled inputs are drawn by.
    pub fn with_seed(self, seed: u64) -> Trainee {
        Trainee { seed, ..self }
    }

    /// The seed of its draws.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// What a step of it does.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Weights {
        self.state.weights()
    }

    /// What follows from the weights; false where a weight is not a finite number.
    pub(super) fn refresh(&mut self, unit: bool) -> bool {
        let State { w_enc, b_enc, w_dec, b_dec, .. } = &mut self.state;
        let (norm, offset) = (&mut self.norm, &mut self.offset);
        let fine = simd::run(self.isa, Refresh { w_enc, b_enc, w_dec, b_dec, unit, norm, offset });
        self.refresh_rest() && fine
    }

    /// [`Trainee::refresh`] after norms and offsets.
    fn refresh_rest(&mut self) -> bool {
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, d, .. } = &mut self.state;
        let (norm, offset) = (&mut self.norm, &mut self.offset);
        let mut fine = true;
        if self.program.tied {
            w_enc.copy_from_slice(w_dec);
            fine &= simd::run(self.isa, Refresh { w_enc, b_enc, w_dec, b_dec, unit: false, norm, offset });
        }
        if let Rule::Gated { .. } = self.program.rule {
            self.magnitudes = Magnitudes::new(b_enc, &per_latent[0], &per_latent[1]);
        }
        if let Some(ScreenWeights { pairs, margin }) = &mut self.screen {
            let (isa, d, width) = (self.isa, *d, b_dec.len());
            let shared = shared(self.train.batch_size, norm.len(), d);
            let facts = offset.chunks(BLOCK).zip(norm.chunks(BLOCK));
            let out = pairs.chunks_mut(BLOCK * 8 * width).zip(margin.chunks_mut(BLOCK));
            each(
                shared,
                w_enc.chunks(BLOCK * width).zip(facts).zip(out),
                |((w_enc, (offset, norm)), (pairs, margin))| {
                    simd::run(isa, RoundRows { w_enc, d, offset, norm, pairs, margin });
                },
            );
        }
        fine && per_latent.iter().flatten().all(|x| x.is_finite())
    }

    /// Whether batches should come with what a screen reads.
    pub fn is_screened(&self) -> bool {
        self.screen.is_some()
    }

    /// Whether the pieces of a step go to threads.
    pub fn shared(&self, samples: usize) -> bool {
        shared(samples, self.state.n_latents, self.state.d)
    }

    /// Loss and gradients (in `scratch.sums`, before projection and clip) at the present weights; takes note of what fired.
    pub fn gradients(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> Losses {
        let m = self.state.n_latents;
        self.prepare(batch.samples, scratch);
        let nothing_dead = scratch.aim.dead.iter().all(Vec::is_empty);
        let dense = self.program.rule == Rule::Positive
            && self.program.levels.is_none()
            && nothing_dead
            && self.state.density > dense_above(self.state.d);
        let (losses, fired) = if dense {
            let mut clock = Clock::start();
            let out = self.dense_step(batch, scratch);
            scratch.times = Times { encode: clock.lap(), ..Times::default() };
            out
        } else {
            self.sparse_step(batch, scratch)
        };
        let n = batch.samples as f64;
        self.state.density = fired as f64 / (n * m as f64);
        let l0 = fired as f64 / n;
        if let Some(target) = &self.program.target {
            let tuning = self.program.tunes_at(self.state.step, self.train.steps);
            self.state.controller.take(target, l0, tuning);
        }
        let priced: f64 =
            (scratch.sums.values.iter().zip(&scratch.aim.price)).map(|(&z, &price)| z as f64 * price as f64).sum();
        Losses { penalty: losses.penalty + priced, l0, ..losses }
    }

    /// Memory of the right size, and what the step is about.
    pub(super) fn prepare(&self, samples: usize, scratch: &mut Scratch) {
        let (m, width) = (self.state.n_latents, vectors(self.state.d));
        if scratch.sums.b_enc.len() != m || scratch.sums.b_dec.len() != width {
            scratch.sums = GradientSums::new(m, width);
        }
        self.set_aim(samples, &mut scratch.aim);
    }

    /// What this step is about.
    fn set_aim(&self, samples: usize, aim: &mut Aim) {
        let (program, state, steps) = (&self.program, &self.state, self.train.steps);
        let n = samples as f64;
        aim.samples = samples;
        aim.k = program.k_at(state.step, steps).unwrap_or(0.0);
        let penalty = program.penalty_at(state.step, steps, state.controller.multiplier);
        aim.penalty = Some(penalty);
        aim.levels = match &program.levels {
            Some(levels) => levels.at(self.seed, state.step, state.n_latents, &state.usage),
            None => StepLevels::whole(),
        };
        aim.scales.clear();
        aim.scales.extend(aim.levels.weights.iter().map(|weight| (2.0 * weight / n) as f32));
        aim.price.clear();
        if let Penalty::L1 { coefficient, by_norm } = penalty {
            let each = coefficient / n;
            aim.price.extend(self.norm.iter().map(|norm| (each * if by_norm { *norm as f64 } else { 1.0 }) as f32));
        }
        aim.window.clear();
        aim.silent.clear();
        if let Rule::Jump { bandwidth, silent, .. } = program.rule {
            aim.window.extend(state.per_latent[0].iter().map(|threshold| threshold - (bandwidth / 2.0) as f32));
            if silent > 0.0 {
                aim.silent.extend(self.dead());
            }
        }
        self.list_dead(aim);
    }

    fn dead(&self) -> impl Iterator<Item = u32> + '_ {
        let since = self.state.since_fired.iter().enumerate();
        since.filter(|(_, since)| **since > self.train.dead_after).map(|(j, _)| j as u32)
    }

    /// Latents that get the auxiliary loss.
    fn list_dead(&self, aim: &mut Aim) {
        let by_level = self.program.aux_by_level && !aim.levels.of.is_empty();
        let lists = if by_level { aim.levels.weights.len() } else { 1 };
        aim.dead.resize_with(lists, Vec::new);
        aim.dead.iter_mut().for_each(Vec::clear);
        if self.program.aux_k > 0 {
            for j in self.dead() {
                aim.dead[if by_level { aim.levels.of[j as usize] as usize } else { 0 }].push(j);
            }
        }
        let weight = |dead: &Vec<u32>| (dead.len() as f64 / self.program.aux_k.max(1) as f64).min(1.0);
        aim.dead_weights = aim.dead.iter().map(weight).collect();
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

    fn dense_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
        let (square, fired) = self.dense(batch, scratch);
        for (since, &value) in self.state.since_fired.iter_mut().zip(&scratch.sums.values) {
            *since = if value > 0.0 { 0 } else { *since + 1 };
        }
        let mse = square / batch.samples as f64;
        (Losses { mse, reconstruction: mse, ..Losses::default() }, fired)
    }

    fn sparse_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
        if self.fuses(batch.samples, &scratch.aim) {
            return self.fused_step(batch, scratch);
        }
        self.phased_step(batch, scratch)
    }

    fn phased_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
        let least = self.forward(batch, scratch);
        if let Rule::BatchTop { .. } = self.program.rule {
            self.state.threshold = batch_topk::moved_threshold(self.state.threshold, least.map(f64::from));
            self.least = least;
        }
        let mut clock = Clock::start();
        self.sort(batch.panels(), scratch);
        scratch.times.sort = clock.lap();
        let losses = self.losses(batch.panels(), &scratch.panels, &scratch.aim);
        self.latent_gradients(batch, scratch);
        self.sum_samples(batch.samples, scratch);
        let fired = self.take_note(batch.samples, &scratch.main);
        scratch.times.gradients = clock.lap();
        (losses, fired)
    }

    /// Phases A to C; returns the least key that BatchTopK kept.
    pub(super) fn forward(&self, batch: &PackedBatch, scratch: &mut Scratch) -> Option<f32> {
        let panels = batch.panels();
        let (m, d) = (self.state.n_latents, self.state.d);
        if let Rule::Pursuit(_) = self.program.rule {
            let encoder = unpack_rows(&self.state.w_enc, d);
            scratch.gram.fill(self.isa, &encoder, self.by_latent(&self.state.w_dec), m, d);
        }
        scratch.panels.resize_with(scratch.panels.len().max(panels), Panel::default);
        let (shared, mut clock) = (self.shared(batch.samples), Clock::start());
        let screen = self.screen.as_ref().zip(batch.screen());
        self.gather_dead(screen.is_some(), scratch);
        let guess = BAR_SHARE * self.least.unwrap_or(0.0);
        let mut bar = guess;
        let mut least = None;
        loop {
            let Scratch { aim, gram, work, panels: all, dead_rows, .. } = &mut *scratch;
            each(shared, all[..panels].iter_mut().enumerate(), |(p, panel)| {
                work.with(|work| match screen {
                    Some(screen) => self.select_screened(batch, p, bar, aim, screen, dead_rows, work, panel),
                    None => {
                        self.select(batch, p, bar, aim, gram, work, panel);
                        self.select_dead(batch.live(p), aim, work, panel);
                    }
                });
            });
            let Rule::BatchTop { .. } = self.program.rule else { break };
            let Scratch { aim, panels: all, keys, .. } = scratch;
            if choose(&mut all[..panels], &self.norm, aim, bar, keys, &mut least) {
                break;
            }
            // Half of it first: without any bar a screen has half of all entries to compute again.
            bar = if bar > 0.25 * guess { 0.5 * bar } else { 0.0 };
        }
        scratch.times.encode = clock.lap();
        let row = PANEL * vectors(d);
        scratch.main.make_room(panels, scratch.aim.scales.len(), row);
        scratch.gate.make_room(if self.gated() { panels } else { 0 }, 1, row);
        scratch.dead.resize_with(scratch.aim.dead.len(), Sorted::default);
        for (dead, which) in scratch.dead.iter_mut().zip(&scratch.aim.dead) {
            dead.make_room(if which.is_empty() { 0 } else { panels }, 1, row);
        }
        let Scratch { aim, work, panels: all, main, gate, dead, times, .. } = scratch;
        let mut of_dead: Vec<_> = dead.iter_mut().map(|dead| dead.by_panel(row)).collect();
        let heard = main.by_panel(row).zip(gate.by_panel(row));
        let pieces = all[..panels].iter_mut().zip(heard).enumerate();
        let pieces = pieces.map(|(p, (panel, heard))| {
            let dead: Vec<&mut [Lanes]> = of_dead.iter_mut().map(|pieces| pieces.next().unwrap_or_default()).collect();
            (p, panel, heard, dead)
        });
        each(shared, pieces, |(p, panel, (heard, heard_gate), heard_dead)| {
            work.with(|Work { heard: rows, .. }| {
                self.back(batch, p, aim, panel, Hears { rows, columns: heard });
                if self.gated() {
                    self.back_gate(batch, p, aim, panel, Hears { rows, columns: heard_gate });
                }
                for (i, columns) in heard_dead.into_iter().enumerate().filter(|(i, _)| !aim.dead[*i].is_empty()) {
                    self.back_dead(i, batch.live(p), aim, panel, Hears { rows, columns });
                }
            });
        });
        times.back = clock.lap();
        least
    }

    fn gated(&self) -> bool {
        matches!(self.program.rule, Rule::Gated { .. })
    }

    /// Appends everything that decides the steps to come.
    pub fn put(&self, to: &mut Vec<u8>) {
        self.state.put(to);
        // A function of the state, but not of the same rounding once unit rows have been divided by their norms.
        self.norm.put(to);
        self.offset.put(to);
    }

    /// Goes on from what [`Trainee::put`] wrote; false, and nothing has changed, where the bytes are not from a trainee of
    /// this shape.
    pub fn get(&mut self, from: &mut &[u8]) -> bool {
        let parts = (State::get(from), Vec::<f32>::get(from), Vec::<f32>::get(from));
        let (Some(state), Some(norm), Some(offset)) = parts else { return false };
        let fits = self.state.fits(&state) && (norm.len(), offset.len()) == (self.norm.len(), self.offset.len());
        if fits {
            (self.state, self.norm, self.offset) = (state, norm, offset);
            self.refresh_rest();
        }
        fits
    }

    /// The first tensor that holds something other than finite numbers.
    pub fn broken_tensor(&self) -> &'static str {
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, .. } = &self.state;
        let tensors = [flat(w_enc), b_enc, flat(w_dec), flat(b_dec)];
        let mut tensors = tensors.into_iter().chain(per_latent.iter().map(Vec::as_slice));
        let broken = tensors.position(|tensor| tensor.iter().any(|x| !x.is_finite()));
        broken.map_or("weights", |i| self.program.parameter_names()[i])
    }
}

/// Whether the product of a selection is screened: large ones of few latents are, where the processor can.
fn screened(isa: Isa, program: &Program, state: &State) -> bool {
    let few = match program.rule {
        Rule::Top(k) => 8 * k <= state.n_latents,
        Rule::BatchTop { k, .. } => 8.0 * k <= state.n_latents as f64,
        _ => false,
    };
    few && state.n_latents * state.d >= SCREENED_FROM && screen::available(isa)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod ways;
