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
//! Neither touches a bit.
//!
//! A and C take any panels in any order, E any range of latents: each writes its own part of the scratch memory, every sum
//! has one order, and no phase looks at how another was cut.
//!
//! A ReLU autoencoder goes the **dense** way instead (see [`super::dense`]) while a greater share of its latents fires than
//! [`dense_above`] says, as counted in the step before; the two round differently, so this rule is part of what the
//! numbers are.

use std::sync::atomic::{AtomicBool, Ordering};

use super::blocks::{Pool, each, latents_of_piece, shared};
use super::dense::{DenseScratch, dense_above};
pub use super::lists::Times;
use super::lists::{Aim, Clock, DeadRows, List, Panel, Sorted, Work, choose};
use super::state::State;
use crate::backend::checkpoint::Record;
use crate::backend::ops::fused::{Fused, FusedSums, MOST_VECTORS};
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, flat, flat_mut, unpack_rows, vectors};
use crate::backend::ops::optimizer::{Step, Update, UpdateRows};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::pursuit::{Gram, Pursue, PursuitBack, PursuitPairs};
use crate::backend::ops::rows::{BLOCK, FinishBias, FinishRows, MoveRows, Refresh};
use crate::backend::ops::screen::{self, RoundRows, ScreenBatch, ScreenProduct, ScreenWeights, SelectScreened, Wanted};
use crate::backend::ops::select::{SelectAbove, SelectOver, SelectPositive, SelectTop};
use crate::backend::ops::sparse::{
    GradientSums, Heard, LatentGradients, Levels, PanelEntries, Reconstruct, SampleSums,
};
use crate::backend::simd::{self, Isa, Lanes};
use crate::sae::matryoshka::{Sort, StepLevels, USAGE_DECAY};
use crate::sae::weights::Magnitudes;
use crate::sae::{Penalty, Program, Rule, SaeTrain, Weights, batch_topk};
use crate::training::{ramp_down, ramp_up};

/// Phase A of BatchTopK collects what exceeds this share of the running threshold, and everything where that was too little.
const BAR_SHARE: f64 = 0.8;

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
        let mut trainee = Trainee { isa, program, train, seed: 0, state, norm, offset, magnitudes, screen };
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

    /// Whether a step's sums stay in the cache and its rows in registers, and nothing but one list of entries takes part.
    fn fuses(&self, samples: usize, aim: &Aim) -> bool {
        matches!(self.program.rule, Rule::Positive | Rule::Top(_))
            && self.program.levels.is_none()
            && self.program.has_encoder_bias()
            && aim.dead.iter().all(Vec::is_empty)
            && vectors(self.state.d) <= MOST_VECTORS
            && !self.shared(samples)
    }

    /// All phases panel by panel: the same sums as those of [`Trainee::sparse_step`], bit for bit.
    fn fused_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
        let mut clock = Clock::start();
        let Scratch { panels, work, aim, sums, gram, times, .. } = scratch;
        panels.resize_with(panels.len().max(1), Panel::default);
        let GradientSums { w_enc, w_dec, b_enc, b_dec, values, through, extra } = sums;
        for rows in [&mut *w_enc, w_dec, b_dec] {
            rows.fill(Lanes::default());
        }
        let [first, second] = extra;
        for numbers in [&mut *b_enc, values, first, second] {
            numbers.fill(0.0);
        }
        let (mut square, mut fired) = (0.0, 0);
        self.state.since_fired.iter_mut().for_each(|since| *since += 1);
        for p in 0..batch.panels() {
            work.with(|work| self.select(batch, p, 0.0, aim, gram, work, &mut panels[0]));
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
                sums: FusedSums { w_enc, w_dec, b_enc, b_dec, values },
            };
            square += simd::run(self.isa, fused);
            fired += kept.len() as u64;
            for sample in 0..live {
                for &latent in kept.of(sample).0 {
                    self.state.since_fired[latent as usize] = 0;
                }
            }
        }
        through.copy_from_slice(b_enc);
        *times = Times { encode: clock.lap(), ..Times::default() };
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
        let mut bar = (BAR_SHARE * self.state.threshold) as f32;
        let mut least = None;
        loop {
            let Scratch { aim, gram, work, panels: all, dead_rows, .. } = &mut *scratch;
            each(shared, all[..panels].iter_mut().enumerate(), |(p, panel)| {
                work.with(|work| match screen {
                    Some(screen) => self.select_screened(batch, p, bar, aim, screen, dead_rows, work, panel),
                    None => self.select(batch, p, bar, aim, gram, work, panel),
                });
            });
            let Rule::BatchTop { .. } = self.program.rule else { break };
            let Scratch { aim, panels: all, keys, .. } = scratch;
            if choose(&mut all[..panels], &self.norm, aim, bar, keys, &mut least) {
                break;
            }
            bar = 0.0;
        }
        scratch.times.encode = clock.lap();
        let row = PANEL * vectors(d);
        scratch.main.make_room(panels, scratch.aim.scales.len(), row);
        scratch.gate.make_room(if self.gated() { panels } else { 0 }, 1, row);
        scratch.dead.resize_with(scratch.aim.dead.len(), Sorted::default);
        for (dead, which) in scratch.dead.iter_mut().zip(&scratch.aim.dead) {
            dead.make_room(if which.is_empty() { 0 } else { panels }, 1, row);
        }
        let Scratch { aim, panels: all, main, gate, dead, times, .. } = scratch;
        let mut of_dead: Vec<_> = dead.iter_mut().map(|dead| dead.by_panel(row)).collect();
        let heard = main.by_panel(row).zip(gate.by_panel(row));
        let work = all[..panels].iter_mut().zip(heard).enumerate();
        let work = work.map(|(p, (panel, heard))| {
            let dead: Vec<&mut [Lanes]> = of_dead.iter_mut().map(|pieces| pieces.next().unwrap_or_default()).collect();
            (p, panel, heard, dead)
        });
        each(shared, work, |(p, panel, (heard, heard_gate), heard_dead)| {
            self.back(batch, p, aim, panel, heard);
            if self.gated() {
                self.back_gate(batch, p, aim, panel, heard_gate);
            }
            for (i, heard) in heard_dead.into_iter().enumerate().filter(|(i, _)| !aim.dead[*i].is_empty()) {
                self.back_dead(i, batch.live(p), aim, panel, heard);
            }
        });
        times.back = clock.lap();
        least
    }

    fn gated(&self) -> bool {
        matches!(self.program.rule, Rule::Gated { .. })
    }

    /// Phase A: what panel `p` keeps. BatchTopK collects what exceeds `bar`.
    #[allow(clippy::too_many_arguments)] // reason: the parts of the scratch memory that a panel reads and writes
    fn select(
        &self,
        batch: &PackedBatch,
        p: usize,
        bar: f32,
        aim: &Aim,
        gram: &Gram,
        work: &mut Work,
        panel: &mut Panel,
    ) {
        let (isa, live, norm) = (self.isa, batch.live(p), &self.norm[..]);
        work.pre(self.state.n_latents);
        let Work { pre, top, row, .. } = work;
        self.encode(batch, p, pre);
        let kept = &mut panel.main.kept;
        match self.program.rule {
            Rule::Positive => simd::run(isa, SelectPositive { pre, live, kept }),
            Rule::Top(_) => {
                let k = aim.k as usize;
                simd::run(isa, SelectTop { pre, norm, among: None, k, relu: true, live, scratch: top, kept });
            }
            Rule::BatchTop { .. } => simd::run(isa, SelectAbove { pre, norm, bar, live, kept }),
            Rule::Jump { .. } => {
                simd::run(isa, SelectOver { pre, bar: &aim.window, live, kept });
                self.jump(live, panel);
                self.list_silent(pre, live, aim, panel);
            }
            Rule::Gated { .. } => {
                simd::run(isa, SelectPositive { pre, live, kept: &mut panel.gate.kept });
                self.open_gates(live, panel);
            }
            Rule::Pursuit(pursuit) => {
                let width = vectors(self.state.d);
                let h = &batch.rows[p * PANEL * width..][..live * width];
                let (w_dec, b_dec) = (&self.state.w_dec[..], &self.state.b_dec[..]);
                simd::run(isa, Pursue { pursuit, pre, gram, h, w_dec, b_dec, live, row, kept });
            }
        }
        make_room(panel, aim);
        for (dead, list) in aim.dead.iter().zip(&mut panel.dead).filter(|(dead, _)| !dead.is_empty()) {
            let (among, k, kept) = (Some(&dead[..]), self.program.aux_k, &mut list.kept);
            simd::run(isa, SelectTop { pre, norm, among, k, relu: false, live, scratch: top, kept });
        }
    }

    /// Phase A where what is kept is screened: see [`crate::backend::ops::screen`].
    #[allow(clippy::too_many_arguments)] // reason: the parts of the scratch memory that a panel reads and writes
    fn select_screened(
        &self,
        batch: &PackedBatch,
        p: usize,
        bar: f32,
        aim: &Aim,
        (weights, samples): (&ScreenWeights, &ScreenBatch),
        dead_rows: &[DeadRows],
        work: &mut Work,
        panel: &mut Panel,
    ) {
        let (isa, d, m, live) = (self.isa, self.state.d, self.state.n_latents, batch.live(p));
        let (width, half) = (vectors(d), d.div_ceil(2));
        work.pre(m);
        let Work { pre, top, screen, .. } = work;
        let (offset, norm) = (&self.offset[..], &self.norm[..]);
        let x = &samples.pairs[p * half * TILES..][..half * TILES];
        ScreenProduct { pairs: &weights.pairs, stride: 8 * width, offset, x, pre }.run();
        let wanted = match self.program.rule {
            Rule::BatchTop { .. } => Wanted::Above(bar),
            _ => Wanted::Top(aim.k as usize),
        };
        let tiles = p * TILES..(p + 1) * TILES;
        let select = SelectScreened {
            pre,
            length: &samples.length[tiles.clone()],
            lost: &samples.lost[tiles],
            margin: &weights.margin,
            h: &batch.rows[p * PANEL * width..][..live * width],
            d,
            w_enc: &self.state.w_enc,
            offset,
            norm,
            wanted,
            live,
            scratch: screen,
            kept: &mut panel.main.kept,
        };
        simd::run(isa, select);
        make_room(panel, aim);
        let lists = aim.dead.iter().zip(&mut panel.dead).zip(dead_rows).filter(|((dead, _), _)| !dead.is_empty());
        for ((dead, list), rows) in lists {
            let pre = &mut pre[..dead.len() * TILES];
            let weights = self.by_latent(&rows.w_enc);
            let x = &batch.tiles[p * d * TILES..][..d * TILES];
            simd::run(isa, Product { weights, start: &rows.offset, x, out: pre });
            let (norm, k, kept) = (&rows.norm[..], self.program.aux_k, &mut list.kept);
            simd::run(isa, SelectTop { pre, norm, among: None, k, relu: false, live, scratch: top, kept });
            kept.rename(dead);
        }
    }

    /// Rows of the dead latents side by side, where their pre is not among those of all latents.
    fn gather_dead(&self, screened: bool, scratch: &mut Scratch) {
        let Scratch { aim, dead_rows, .. } = scratch;
        dead_rows.resize_with(aim.dead.len(), DeadRows::default);
        let width = vectors(self.state.d);
        for (dead, rows) in aim.dead.iter().zip(dead_rows) {
            rows.clear();
            for &latent in dead.iter().filter(|_| screened) {
                let latent = latent as usize;
                rows.w_enc.extend_from_slice(&self.state.w_enc[latent * width..][..width]);
                rows.offset.push(self.offset[latent]);
                rows.norm.push(self.norm[latent]);
            }
        }
    }

    /// Entries are what lies above the window's lower end: z is 0 up to the threshold.
    fn jump(&self, live: usize, panel: &mut Panel) {
        for sample in 0..live {
            let (latents, values) = panel.main.kept.of_mut(sample);
            for (&latent, z) in latents.iter().zip(values) {
                if *z <= self.state.per_latent[0][latent as usize] {
                    *z = 0.0;
                }
            }
        }
    }

    /// Dead latents below their thresholds, with pre.
    fn list_silent(&self, pre: &[Lanes], live: usize, aim: &Aim, panel: &mut Panel) {
        let kept = &mut panel.silent.kept;
        kept.clear(aim.silent.len());
        for &latent in &aim.silent {
            let threshold = self.state.per_latent[0][latent as usize];
            for (sample, &pre) in flat(&pre[latent as usize * TILES..][..TILES])[..live].iter().enumerate() {
                if pre < threshold {
                    kept.push(sample, latent, pre);
                }
            }
        }
    }

    /// From the entries π > 0 to those with z > 0.
    fn open_gates(&self, live: usize, panel: &mut Panel) {
        let Panel { main, gate, .. } = panel;
        main.kept.clear(self.state.n_latents);
        for sample in 0..live {
            let (latents, values) = gate.kept.of(sample);
            for (&latent, &pi) in latents.iter().zip(values) {
                let z = self.magnitudes.z(latent as usize, pi);
                if z > 0.0 {
                    main.kept.push(sample, latent, z);
                }
            }
        }
    }

    /// Phase C: errors of panel `p`, what its entries hear, and what that makes of dpre.
    fn back(&self, batch: &PackedBatch, p: usize, aim: &Aim, panel: &mut Panel, heard: &mut [Lanes]) {
        let (live, width) = (batch.live(p), vectors(self.state.d));
        let Panel { main, error, errors, penalty, .. } = panel;
        error.resize(live * width, Lanes::default());
        let by_level = aim.dead.len() > 1;
        errors.resize(if by_level { aim.scales.len() * PANEL * width } else { 0 }, Lanes::default());
        let errors = by_level.then_some(&mut errors[..]);
        let h = Some(&batch.rows[p * PANEL * width..][..live * width]);
        let detached = self.program.levels.as_ref().is_some_and(|levels| levels.detach_inner);
        let levels = Levels { of: aim.level_of(), scale: &aim.scales, detached };
        self.reconstruct(h, levels, main, error, errors, heard);
        *penalty = 0.0;
        // The memory may come from an autoencoder whose entries had more numbers.
        main.extra.iter_mut().for_each(Vec::clear);
        match self.program.rule {
            Rule::Positive | Rule::Top(_) | Rule::BatchTop { .. } => pay(&aim.price, live, main),
            Rule::Jump { .. } => self.back_jump(live, aim, panel),
            Rule::Gated { .. } => self.back_magnitude(live, main),
            Rule::Pursuit(_) => {
                let (kept, dpre, w_dec) = (&main.kept, &mut main.dpre[..], &self.state.w_dec[..]);
                simd::run(self.isa, PursuitBack { kept, w_dec, gradient: heard, dpre, width });
            }
        }
    }

    fn reconstruct(
        &self,
        h: Option<&[Lanes]>,
        levels: Levels,
        list: &mut List,
        error: &mut [Lanes],
        errors: Option<&mut [Lanes]>,
        gradient: &mut [Lanes],
    ) {
        let List { kept, dpre: back, squares, .. } = list;
        back.resize(kept.slots(), 0.0);
        squares.clear();
        squares.resize(levels.scale.len(), 0.0);
        let (w_dec, b_dec) = (&self.state.w_dec[..], &self.state.b_dec[..]);
        let reconstruct = Reconstruct { h, w_dec, b_dec, kept, levels, error, errors, gradient, back, squares };
        simd::run(self.isa, reconstruct);
    }

    /// The way back through jumps: see [`crate::sae::jumprelu`].
    fn back_jump(&self, live: usize, aim: &Aim, panel: &mut Panel) {
        let Rule::Jump { bandwidth, input_gradient, silent } = self.program.rule else { return };
        let Some(sparsity) = aim.penalty else { return };
        let (n, width) = (aim.samples as f64, bandwidth as f32);
        let Panel { main, silent: below, penalty, .. } = panel;
        main.with_extra();
        let List { kept, dpre, extra: [thresholds, pulls], .. } = main;
        // The derivative of the sparsity loss by the count of each sample.
        let mut count = [0.0f32; PANEL];
        for (sample, count) in count.iter_mut().enumerate().take(live) {
            let l0 = kept.of(sample).1.iter().filter(|z| **z > 0.0).count() as f64;
            match sparsity {
                Penalty::Step { coefficient } => {
                    *penalty += coefficient / n * l0;
                    *count = (coefficient / n) as f32;
                }
                Penalty::Quadratic { coefficient, target } => {
                    *penalty += coefficient / n * 2.0 / target * (l0 - target) * (l0 - target);
                    *count = (coefficient / n * 4.0 / target * (l0 - target)) as f32;
                }
                _ => {}
            }
        }
        List::each(kept, live, |sample, at, latent, z| {
            let threshold = self.state.per_latent[0][latent];
            pulls[at] = 0.0;
            if let Penalty::Tanh { coefficient, scale } = sparsity {
                let (each, norm) = (coefficient / n, self.norm[latent]);
                let t = libm::tanh(scale * z as f64 * norm as f64);
                *penalty += each * t;
                let slope = (each * (1.0 - t * t) * scale) as f32;
                dpre[at] += slope * norm;
                pulls[at] = slope * z;
            }
            let inside = z - threshold < width / 2.0;
            let through = if inside { threshold / width * dpre[at] + count[sample] / width } else { 0.0 };
            thresholds[at] = -through;
            let open = if z > 0.0 { dpre[at] } else { 0.0 };
            dpre[at] = if input_gradient { open + through } else { open };
        });
        below.dpre.resize(below.kept.slots(), 0.0);
        below.with_extra();
        let each = (silent / n) as f32;
        for sample in 0..live {
            let places = below.kept.range(sample);
            let (latents, values) = below.kept.of_mut(sample);
            for ((place, &latent), value) in places.zip(latents).zip(values) {
                let (norm, gap) = (self.norm[latent as usize], self.state.per_latent[0][latent as usize] - *value);
                *penalty += each as f64 * gap as f64 * norm as f64;
                below.dpre[place] = -each * norm;
                below.extra[0][place] = each * norm;
                below.extra[1][place] = each * gap;
                // It takes no part in the reconstruction.
                *value = 0.0;
            }
        }
    }

    /// The way back through magnitudes, z > 0.
    fn back_magnitude(&self, live: usize, main: &mut List) {
        main.with_extra();
        let List { kept, dpre, extra: [r_mag, b_mag], .. } = main;
        List::each(kept, live, |_, at, latent, z| {
            // exp(r) u = z - b_mag.
            r_mag[at] = dpre[at] * (z - self.state.per_latent[1][latent]);
            b_mag[at] = dpre[at];
            dpre[at] *= self.magnitudes.factor[latent];
        });
    }

    /// Phase C for the gate's own reconstruction.
    fn back_gate(&self, batch: &PackedBatch, p: usize, aim: &Aim, panel: &mut Panel, heard: &mut [Lanes]) {
        let (live, width) = (batch.live(p), vectors(self.state.d));
        // Dead latents reconstruct what the main reconstruction leaves over, so its errors are kept.
        let mut error = std::mem::take(&mut panel.error);
        let main = error.clone();
        let h = Some(&batch.rows[p * PANEL * width..][..live * width]);
        let levels = Levels { of: None, scale: &aim.scales, detached: false };
        self.reconstruct(h, levels, &mut panel.gate, &mut error, None, heard);
        pay(&aim.price, live, &mut panel.gate);
        panel.error = main;
    }

    /// Phase C for the auxiliary loss of one list of dead latents.
    fn back_dead(&self, list: usize, live: usize, aim: &Aim, panel: &mut Panel, heard: &mut [Lanes]) {
        let width = vectors(self.state.d);
        let scale = (2.0 * aim.dead_weights[list] / aim.samples as f64) as f32;
        let mut error = match &panel.errors[..] {
            [] => panel.error.clone(),
            errors => errors[list * PANEL * width..][..live * width].to_vec(),
        };
        let levels = Levels { of: None, scale: &[scale], detached: false };
        self.reconstruct(None, levels, &mut panel.dead[list], &mut error, None, heard);
    }

    /// Phase D.
    fn sort(&self, panels: usize, scratch: &mut Scratch) {
        let m = self.state.n_latents;
        let done = &scratch.panels[..panels];
        scratch.main.by_latent.sort(m, done.iter().map(|panel| panel.main.entries()));
        if self.gated() {
            scratch.gate.by_latent.sort(m, done.iter().map(|panel| panel.gate.entries()));
        }
        for (i, dead) in scratch.dead.iter_mut().enumerate().filter(|(i, _)| !scratch.aim.dead[*i].is_empty()) {
            dead.by_latent.sort(m, done.iter().map(|panel| panel.dead[i].entries()));
        }
        if !scratch.aim.silent.is_empty() {
            scratch.silent.by_latent.sort(m, done.iter().map(|panel| panel.silent.entries()));
        }
    }

    /// Terms of the loss but for a penalty by price.
    fn losses(&self, panels: usize, all: &[Panel], aim: &Aim) -> Losses {
        let n = aim.samples as f64;
        let squares = |of: &dyn Fn(&Panel) -> f64| all[..panels].iter().map(of).sum::<f64>();
        let last = aim.scales.len() - 1;
        let mse = squares(&|panel| panel.main.squares[last]) / n;
        let weighted = |(level, weight): (usize, &f64)| weight * squares(&|panel| panel.main.squares[level]) / n;
        let mut auxiliary = if self.gated() { squares(&|panel| panel.gate.squares[0]) / n } else { 0.0 };
        for (i, weight) in aim.dead_weights.iter().enumerate().filter(|(i, _)| !aim.dead[*i].is_empty()) {
            auxiliary += squares(&|panel| panel.dead[i].squares[0]) / n * weight;
        }
        Losses {
            mse,
            reconstruction: aim.levels.weights.iter().enumerate().map(weighted).sum(),
            penalty: squares(&|panel| panel.penalty),
            auxiliary,
            l0: 0.0,
        }
    }

    /// Phase E: gradients of the latents.
    fn latent_gradients(&self, batch: &PackedBatch, scratch: &mut Scratch) {
        let width = vectors(self.state.d);
        let size = latents_of_piece(self.state.n_latents);
        let Scratch { main, gate, dead, silent, aim, sums, panels, .. } = scratch;
        let (priced, gated) = (!aim.price.is_empty(), self.gated());
        let mut lists = vec![main.as_heard(aim.level_of())];
        lists[0].paid = priced && !gated;
        lists[0].bias = !gated && self.program.has_encoder_bias();
        if let Rule::Gated { hold_decoder } = self.program.rule {
            let gate = gate.as_heard(None);
            lists.push(Heard { paid: priced, decoder: !hold_decoder, ..gate });
        }
        let some = |i: &usize| !aim.dead[*i].is_empty();
        lists.extend((0..aim.dead.len()).filter(some).map(|i| dead[i].as_heard(None)));
        if !aim.silent.is_empty() {
            // What they hear is not listened to: z is 0.
            lists.push(Heard { sorted: &silent.by_latent, ..main.as_heard(None) });
        }
        let [first, second] = &mut sums.extra;
        let rows = sums.w_enc.chunks_mut(size * width).zip(sums.w_dec.chunks_mut(size * width));
        let numbers = sums.b_enc.chunks_mut(size).zip(sums.values.chunks_mut(size)).zip(sums.through.chunks_mut(size));
        let extra = first.chunks_mut(size).zip(second.chunks_mut(size));
        let all: Vec<PanelEntries> = match self.program.rule {
            Rule::Pursuit(_) => panels[..batch.panels()].iter().map(|panel| panel.main.entries()).collect(),
            _ => vec![],
        };
        let (lists, sorted) = (&lists[..], &main.by_latent);
        each(self.shared(batch.samples), numbers.zip(extra).zip(rows).enumerate(), |(at, ((numbers, extra), rows))| {
            let (((b_enc, values), through), (w_enc, w_dec)) = (numbers, rows);
            let latents = at * size..at * size + b_enc.len();
            let (h, extra) = (&batch.rows[..], [extra.0, extra.1]);
            let own = latents.clone();
            let out = &mut *w_dec;
            simd::run(
                self.isa,
                LatentGradients { lists, h, latents: own, w_enc, w_dec: out, b_enc, values, through, extra },
            );
            if let Rule::Pursuit(_) = self.program.rule {
                let (panels, rows) = (&all[..], &self.state.w_dec[..]);
                simd::run(self.isa, PursuitPairs { sorted, panels, rows, latents, w_dec });
            }
        });
    }

    /// Phase E for the decoder's bias.
    fn sum_samples(&self, samples: usize, scratch: &mut Scratch) {
        let Scratch { main, gate, sums, .. } = scratch;
        let sum = &mut sums.b_dec;
        sum.fill(Lanes::default());
        simd::run(self.isa, SampleSums { gradient: &main.heard, levels: main.levels, samples, sum });
        if let Rule::Gated { hold_decoder: false } = self.program.rule {
            simd::run(self.isa, SampleSums { gradient: &gate.heard, levels: 1, samples, sum });
        }
    }

    /// Which latents fired, on how many samples and how much; returns how often any did.
    fn take_note(&mut self, samples: usize, main: &Sorted) -> u64 {
        let sorted = &main.by_latent;
        let sort = self.program.levels.as_ref().map_or(Sort::None, |levels| levels.sort);
        let mut total = 0;
        for latent in 0..self.state.n_latents {
            let (mut fired, mut last, mut squares) = (0u64, None, 0.0);
            for at in sorted.of(latent).filter(|&at| sorted.z[at] > 0.0) {
                // A pursuit may choose a latent twice for a sample.
                fired += (last != Some(sorted.sample[at])) as u64;
                last = Some(sorted.sample[at]);
                squares += sorted.z[at] as f64 * sorted.z[at] as f64;
            }
            total += fired;
            let since = &mut self.state.since_fired[latent];
            *since = if fired > 0 { 0 } else { *since + 1 };
            let norm = self.norm[latent] as f64;
            let now = match sort {
                Sort::None => continue,
                Sort::Frequency => fired as f64,
                Sort::Contribution => squares * norm * norm,
            };
            let usage = &mut self.state.usage[latent];
            *usage = USAGE_DECAY * *usage + (1.0 - USAGE_DECAY) * now / samples as f64;
        }
        total
    }

    /// Phase F: completes the gradients of [`Trainee::gradients`] and projects them; returns their global norm.
    pub fn finish(&self, scratch: &mut Scratch) -> f64 {
        let Scratch { pull, aim, sums, rests, squares, times, .. } = scratch;
        let mut clock = Clock::start();
        let mut decoder_pull = None;
        if let Penalty::L1 { by_norm: true, .. } = self.program.penalty {
            // price_j = l1 / n |w_dec_j|, so price_j / |w_dec_j|² · Σ z_j is l1 / n · Σ z_j / |w_dec_j|.
            pull.clear();
            let terms = aim.price.iter().zip(&sums.values).zip(&self.norm);
            pull.extend(terms.map(|((price, z), norm)| if *norm > 0.0 { price / norm * z / norm } else { 0.0 }));
            decoder_pull = Some(&pull[..]);
        }
        if let Rule::Jump { .. } = self.program.rule {
            pull.clear();
            let terms = sums.extra[1].iter().zip(&self.norm);
            pull.extend(terms.map(|(sum, norm)| if *norm > 0.0 { sum / norm } else { 0.0 }));
            sums.extra[1].fill(0.0);
            decoder_pull = Some(&pull[..]);
        }
        let (m, width, frozen) = (self.state.n_latents, vectors(self.state.d), self.program.frozen_decoder);
        rests.resize(m.div_ceil(BLOCK) * width, Lanes::default());
        squares.resize(m.div_ceil(BLOCK), 0.0);
        let GradientSums { w_enc, w_dec, b_enc, b_dec, through, extra, .. } = sums;
        let (size, sum_g) = (BLOCK * width, &b_dec[..]);
        let rows = w_enc.chunks_mut(size).zip(w_dec.chunks_mut(size));
        let out = rests.chunks_mut(width).zip(squares.iter_mut());
        each(self.shared(aim.samples), rows.zip(out).enumerate(), |(at, ((d_enc, d_dec), (rest, square)))| {
            let latents = at * BLOCK..m.min((at + 1) * BLOCK);
            let rows = latents.start * width..latents.end * width;
            if at == 0 {
                rest.copy_from_slice(sum_g);
            } else {
                rest.fill(Lanes::default());
            }
            let finish = FinishRows {
                w_enc: &self.state.w_enc[rows.clone()],
                w_dec: &self.state.w_dec[rows],
                b_dec: &self.state.b_dec,
                pull: decoder_pull.map(|pull| &pull[latents.clone()]),
                project: self.program.unit_decoder,
                tied: self.program.tied,
                frozen,
                d_bias: &b_enc[latents.clone()],
                through: &through[latents],
                d_enc,
                d_dec,
                rest,
            };
            *square = simd::run(self.isa, finish);
        });
        let mut total: f64 = squares.iter().sum();
        if frozen {
            b_dec.fill(Lanes::default());
        } else {
            total += simd::run(self.isa, FinishBias { rests, d_b_dec: b_dec });
        }
        total += extra.iter().flatten().map(|&x| x as f64 * x as f64).sum::<f64>();
        times.finish = clock.lap();
        total.sqrt()
    }

    /// Phase G: moves the weights by the finished gradients of global norm `norm`, as step `step` from 0; false where a
    /// weight stopped being finite.
    pub fn update(&mut self, step: usize, norm: f64, scratch: &mut Scratch) -> bool {
        let mut clock = Clock::start();
        let train = &self.train;
        let factor = train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let settings = Step::new(train.optimizer, train.lr * factor, train.weight_decay, step);
        let finite = self.move_weights(&settings, clip as f32, &scratch.sums);
        self.state.step = step + 1;
        let fine = self.refresh_rest() && finite;
        scratch.times.update = clock.lap();
        fine
    }

    /// The optimiser's step, with norms and offsets of the moved rows.
    fn move_weights(&mut self, step: &Step, scale: f32, sums: &GradientSums) -> bool {
        let (isa, unit) = (self.isa, self.program.unit_decoder);
        let shared = self.shared(self.train.batch_size);
        let (enc_moves, dec_moves) = (!self.program.tied, !self.program.frozen_decoder);
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, moments, .. } = &mut self.state;
        let [of_w_enc, of_b_enc, of_w_dec, of_b_dec, of_more @ ..] = &mut moments[..] else {
            unreachable!("made for four tensors and more")
        };
        let mut few = vec![];
        if self.program.has_encoder_bias() {
            few.push((&mut b_enc[..], &sums.b_enc[..], of_b_enc));
        }
        if dec_moves {
            few.push((flat_mut(b_dec), flat(&sums.b_dec), of_b_dec));
        }
        few.extend(per_latent.iter_mut().zip(&sums.extra).zip(of_more).map(|((p, g), m)| (&mut p[..], &g[..], m)));
        for (parameters, gradient, moments) in few {
            simd::run(isa, Update { step, scale, parameters, gradient, moments });
        }
        if let Rule::Jump { .. } = self.program.rule {
            // A threshold that is not a number stays one, to be found.
            per_latent[0].iter_mut().filter(|threshold| **threshold < 0.0).for_each(|threshold| *threshold = 0.0);
        }
        let size = BLOCK * b_dec.len();
        let enc = w_enc.chunks_mut(size).zip(sums.w_enc.chunks(size)).zip(of_w_enc.pieces(size * LANES));
        let dec = w_dec.chunks_mut(size).zip(sums.w_dec.chunks(size)).zip(of_w_dec.pieces(size * LANES));
        let facts = self.norm.chunks_mut(BLOCK).zip(self.offset.chunks_mut(BLOCK)).zip(b_enc.chunks(BLOCK));
        let (finite, b_dec) = (AtomicBool::new(true), &b_dec[..]);
        each(shared, enc.zip(dec).zip(facts), |((enc, dec), ((norm, offset), b_enc))| {
            let rows = |((rows, gradient), moments)| UpdateRows { step, scale, rows, gradient, moments };
            let (enc, dec) = ((rows(enc), enc_moves), (rows(dec), dec_moves));
            if !simd::run(isa, MoveRows { enc, dec, b_enc, b_dec, unit, norm, offset }) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        finite.into_inner()
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

/// Room for a panel's lists of dead latents.
fn make_room(panel: &mut Panel, aim: &Aim) {
    panel.dead.resize_with(panel.dead.len().max(aim.dead.len()), List::default);
}

/// Adds the price of a unit of each latent to what comes back.
fn pay(price: &[f32], live: usize, list: &mut List) {
    if price.is_empty() {
        return;
    }
    for sample in 0..live {
        let (latents, _) = list.kept.of(sample);
        for (&latent, dpre) in latents.iter().zip(&mut list.dpre[list.kept.range(sample)]) {
            *dpre += price[latent as usize];
        }
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod ways;
