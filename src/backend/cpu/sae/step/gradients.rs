//! Phases D and E: entries by latent, terms of the loss, gradients, and note of what fired.

use super::{Losses, Scratch, Trainee};
use crate::backend::cpu::sae::blocks::{each, latents_of_piece};
use crate::backend::cpu::sae::lists::{Aim, Panel, Sorted};
use crate::backend::ops::layout::{PackedBatch, vectors};
use crate::backend::ops::pursuit::PursuitPairs;
use crate::backend::ops::sparse::{Heard, LatentGradients, PanelEntries, SampleSums};
use crate::backend::simd;
use crate::backend::simd::Lanes;
use crate::sae::Rule;
use crate::sae::matryoshka::{Sort, USAGE_DECAY};

impl Trainee {
    /// Phase D.
    pub(super) fn sort(&self, panels: usize, scratch: &mut Scratch) {
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
    pub(super) fn losses(&self, panels: usize, all: &[Panel], aim: &Aim) -> Losses {
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
    pub(super) fn latent_gradients(&self, batch: &PackedBatch, scratch: &mut Scratch) {
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
            let (h, extra) = (batch.columns(), [extra.0, extra.1]);
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
    pub(super) fn sum_samples(&self, samples: usize, scratch: &mut Scratch) {
        let Scratch { main, gate, sums, .. } = scratch;
        let sum = &mut sums.b_dec;
        sum.fill(Lanes::default());
        simd::run(self.isa, SampleSums { gradient: &main.heard, levels: main.levels, samples, sum });
        if let Rule::Gated { hold_decoder: false } = self.program.rule {
            simd::run(self.isa, SampleSums { gradient: &gate.heard, levels: 1, samples, sum });
        }
    }

    /// Which latents fired, on how many samples and how much; returns how often any did.
    pub(super) fn take_note(&mut self, samples: usize, main: &Sorted) -> u64 {
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
}
