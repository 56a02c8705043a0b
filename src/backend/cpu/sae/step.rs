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
//! A and C take any panels in any order, E any range of latents: each writes its own part of the scratch memory, every sum
//! has one order, and no phase looks at how another was cut.
//!
//! A ReLU autoencoder goes the **dense** way instead (see [`super::dense`]) while a greater share of its latents fires than
//! [`dense_above`] says, as counted in the step before; the two round differently, so this rule is part of what the
//! numbers are.

use std::ops::Range;

use super::dense::{DenseScratch, dense_above};
use super::lists::{Aim, List, Panel, Sorted, Work, choose};
use super::state::State;
use crate::backend::ops::layout::{LANES, PANEL, PackedBatch, TILES, flat, flat_mut, unpack_rows, vectors};
use crate::backend::ops::optimizer::{Step, Update};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::pursuit::{Gram, Pursue, PursuitBack, PursuitPairs};
use crate::backend::ops::rows::{FinishGradients, Refresh};
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

/// An autoencoder in training.
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
    work: Work,
    pub(super) aim: Aim,
    main: Sorted,
    gate: Sorted,
    dead: Vec<Sorted>,
    silent: Sorted,
    keys: Vec<u32>,
    gram: Gram,
    pull: Vec<f32>,
    pub(super) dense: DenseScratch,
    /// Gradients.
    pub sums: GradientSums,
}

impl Trainee {
    /// Starts from `weights`, with nothing dead and zero moments.
    pub fn new(isa: Isa, weights: &Weights, program: Program, train: SaeTrain) -> Trainee {
        let state = State::new(weights, train.optimizer);
        let (norm, offset) = (vec![0.0; state.n_latents], vec![0.0; state.n_latents]);
        let mut trainee =
            Trainee { isa, program, train, seed: 0, state, norm, offset, magnitudes: Magnitudes::default() };
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
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, .. } = &mut self.state;
        let (norm, offset) = (&mut self.norm, &mut self.offset);
        let mut fine = simd::run(self.isa, Refresh { w_enc, b_enc, w_dec, b_dec, unit, norm, offset });
        if self.program.tied {
            w_enc.copy_from_slice(w_dec);
            fine &= simd::run(self.isa, Refresh { w_enc, b_enc, w_dec, b_dec, unit: false, norm, offset });
        }
        if let Rule::Gated { .. } = self.program.rule {
            self.magnitudes = Magnitudes::new(b_enc, &per_latent[0], &per_latent[1]);
        }
        fine && per_latent.iter().flatten().all(|x| x.is_finite())
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
        let (losses, fired) = if dense { self.dense_step(batch, scratch) } else { self.sparse_step(batch, scratch) };
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
        let least = self.forward(batch, scratch);
        if let Rule::BatchTop { .. } = self.program.rule {
            self.state.threshold = batch_topk::moved_threshold(self.state.threshold, least.map(f64::from));
        }
        self.sort(batch.panels(), scratch);
        let losses = self.losses(batch.panels(), &scratch.panels, &scratch.aim);
        self.latent_gradients(batch, 0..self.state.n_latents, scratch);
        self.sum_samples(batch.samples, scratch);
        let fired = self.take_note(batch.samples, &scratch.main);
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
        let mut bar = (BAR_SHARE * self.state.threshold) as f32;
        let mut least = None;
        loop {
            for p in 0..panels {
                let Scratch { aim, gram, work, panels, .. } = scratch;
                self.select(batch, p, bar, aim, gram, work, &mut panels[p]);
            }
            let Rule::BatchTop { .. } = self.program.rule else { break };
            let Scratch { aim, panels: all, keys, .. } = scratch;
            if choose(&mut all[..panels], &self.norm, aim, bar, keys, &mut least) {
                break;
            }
            bar = 0.0;
        }
        let row = PANEL * vectors(d);
        scratch.main.make_room(panels, scratch.aim.scales.len(), row);
        scratch.gate.make_room(if self.gated() { panels } else { 0 }, 1, row);
        scratch.dead.resize_with(scratch.aim.dead.len(), Sorted::default);
        for (dead, which) in scratch.dead.iter_mut().zip(&scratch.aim.dead) {
            dead.make_room(if which.is_empty() { 0 } else { panels }, 1, row);
        }
        for p in 0..panels {
            let Scratch { aim, panels, main, gate, dead, .. } = scratch;
            let panel = &mut panels[p];
            self.back(batch, p, aim, panel, main.of_panel(p, row));
            if self.gated() {
                self.back_gate(batch, p, aim, panel, gate.of_panel(p, row));
            }
            for (i, dead) in dead.iter_mut().enumerate().filter(|(i, _)| !aim.dead[*i].is_empty()) {
                self.back_dead(i, batch.live(p), aim, panel, dead.of_panel(p, row));
            }
        }
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
        let Work { pre, top, row } = work;
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
        panel.dead.resize_with(panel.dead.len().max(aim.dead.len()), List::default);
        for (dead, list) in aim.dead.iter().zip(&mut panel.dead).filter(|(dead, _)| !dead.is_empty()) {
            let (among, k, kept) = (Some(&dead[..]), self.program.aux_k, &mut list.kept);
            simd::run(isa, SelectTop { pre, norm, among, k, relu: false, live, scratch: top, kept });
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

    /// Phase E: gradients of a range of latents.
    fn latent_gradients(&self, batch: &PackedBatch, latents: Range<usize>, scratch: &mut Scratch) {
        let width = vectors(self.state.d);
        let rows = latents.start * width..latents.end * width;
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
        let gradients = LatentGradients {
            lists: &lists,
            h: &batch.rows,
            w_enc: &mut sums.w_enc[rows.clone()],
            w_dec: &mut sums.w_dec[rows.clone()],
            b_enc: &mut sums.b_enc[latents.clone()],
            values: &mut sums.values[latents.clone()],
            through: &mut sums.through[latents.clone()],
            extra: [&mut first[latents.clone()], &mut second[latents.clone()]],
            latents: latents.clone(),
        };
        simd::run(self.isa, gradients);
        if let Rule::Pursuit(_) = self.program.rule {
            let panels: Vec<PanelEntries> = panels[..batch.panels()].iter().map(|panel| panel.main.entries()).collect();
            let (sorted, w_dec) = (&main.by_latent, &mut sums.w_dec[rows]);
            let pairs = PursuitPairs { sorted, panels: &panels, rows: &self.state.w_dec, latents, w_dec };
            simd::run(self.isa, pairs);
        }
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
        let Scratch { pull, aim, sums, .. } = scratch;
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
        let finish = FinishGradients {
            w_enc: &self.state.w_enc,
            w_dec: &self.state.w_dec,
            b_dec: &self.state.b_dec,
            pull: decoder_pull,
            project: self.program.unit_decoder,
            tied: self.program.tied,
            frozen: self.program.frozen_decoder,
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
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, moments, .. } = &mut self.state;
        let parameters = [flat_mut(w_enc), b_enc, flat_mut(w_dec), flat_mut(b_dec)];
        let parameters = parameters.into_iter().chain(per_latent.iter_mut().map(Vec::as_mut_slice));
        let sums = &scratch.sums;
        let gradients = [flat(&sums.w_enc), &sums.b_enc, flat(&sums.w_dec), flat(&sums.b_dec)];
        let gradients = gradients.into_iter().chain(sums.extra.iter().map(Vec::as_slice));
        let trained = [!self.program.tied, self.program.has_encoder_bias()];
        let trained = trained.into_iter().chain([!self.program.frozen_decoder; 2]).chain([true; 2]);
        for (((parameters, gradient), moments), trained) in parameters.zip(gradients).zip(moments).zip(trained) {
            if trained {
                simd::run(self.isa, Update { step: &settings, scale: clip as f32, parameters, gradient, moments });
            }
        }
        if let Rule::Jump { .. } = self.program.rule {
            // A threshold that is not a number stays one, to be found.
            per_latent[0].iter_mut().filter(|threshold| **threshold < 0.0).for_each(|threshold| *threshold = 0.0);
        }
        self.state.step = step + 1;
        self.refresh(self.program.unit_decoder)
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
