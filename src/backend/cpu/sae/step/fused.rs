//! Phases C to E in one, panel by panel, where the autoencoder is small.

use super::{Losses, Scratch, Times, Trainee};
use crate::backend::cpu::sae::lists::{Aim, Clock, Panel};
use crate::backend::ops::fused::{Fused, FusedSums, MOST_VECTORS};
use crate::backend::ops::layout::{PANEL, PackedBatch, vectors};
use crate::backend::ops::sparse::GradientSums;
use crate::backend::simd;
use crate::backend::simd::Lanes;
use crate::sae::Rule;

impl Trainee {
    /// Whether a step's sums stay in the cache and its rows in registers, and nothing but one list of entries takes part.
    pub(super) fn fuses(&self, samples: usize, aim: &Aim) -> bool {
        matches!(self.program.rule, Rule::Positive | Rule::Top(_))
            && self.program.levels.is_none()
            && self.program.has_encoder_bias()
            && aim.dead.iter().all(Vec::is_empty)
            && vectors(self.state.d) <= MOST_VECTORS
            && !self.shared(samples)
    }

    /// All phases panel by panel: the same sums as those of [`Trainee::sparse_step`], bit for bit.
    pub(super) fn fused_step(&mut self, batch: &PackedBatch, scratch: &mut Scratch) -> (Losses, u64) {
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
}
