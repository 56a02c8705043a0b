//! Phases C to E in one, panel by panel, where the autoencoder is small.

use super::masked::masks_pay;
use super::{Losses, Scratch, Times, Trainee};
use crate::backend::cpu::sae::lists::{Aim, Clock, Panel};
use crate::backend::ops::fused::{Fused, FusedSums, MOST_VECTORS};
use crate::backend::ops::layout::{PANEL, PackedBatch, vectors};
use crate::backend::ops::sparse::GradientSums;
use crate::backend::simd;
use crate::sae::Rule;

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
        sums.clear();
        let GradientSums { w_enc, w_dec, b_enc, b_dec, values, through, .. } = sums;
        let mut masked = masked.prepare(self, &aim.dead[0], batch);
        let (mut square, mut auxiliary, mut fired) = (0.0, 0.0, 0);
        self.state.since_fired.iter_mut().for_each(|since| *since += 1);
        for p in 0..batch.panels() {
            work.with(|work| {
                self.select(batch, p, 0.0, aim, gram, work, &mut panels[0]);
                if let Some(masked) = &mut masked {
                    masked.choose(self, &work.pre, p, batch.live(p));
                }
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
                residual: masked.as_mut().map(|masked| masked.residual(self, live)),
                sums: FusedSums { w_enc, w_dec, b_enc, b_dec, values },
            };
            square += simd::run(self.isa, fused);
            fired += kept.len() as u64;
            for sample in 0..live {
                for &latent in kept.of(sample).0 {
                    self.state.since_fired[latent as usize] = 0;
                }
            }
            if let Some(masked) = &mut masked {
                auxiliary += masked.reconstruct(self, aim, p, live);
            }
        }
        if let Some(masked) = masked {
            masked.add_to(self, batch, w_enc, w_dec, b_enc);
        }
        through.copy_from_slice(b_enc);
        *times = Times { encode: clock.lap(), ..Times::default() };
        let mse = square / batch.samples as f64;
        let auxiliary = auxiliary / batch.samples as f64 * aim.dead_weights[0];
        (Losses { mse, reconstruction: mse, auxiliary, ..Losses::default() }, fired)
    }
}
