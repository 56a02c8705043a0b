//! Resampling of dead latents: see [`crate::sae::dead_latents`].

use super::step::{Scratch, Trainee};
use crate::backend::ops::layout::{LANES, PackedBatch, flat, flat_mut, vectors};
use crate::sae::dead_latents::{ENCODER_SHARE, draw_inputs};

/// Inputs with their losses, from which directions are drawn.
#[derive(Default)]
pub struct Candidates {
    /// `[inputs, d]`, at the scale of training.
    rows: Vec<f32>,
    /// |h - ĥ|² under the training rule.
    losses: Vec<f64>,
}

impl Trainee {
    /// Latents that are to be resampled before the next step.
    pub fn to_resample(&self) -> Vec<usize> {
        let resample = self.program.resample.as_ref();
        resample.map_or(vec![], |resample| resample.silent(self.state.step, &self.state.since_fired))
    }

    /// Adds a batch to the candidates.
    pub fn weigh(&self, batch: &PackedBatch, scratch: &mut Scratch, candidates: &mut Candidates) {
        let (d, width) = (self.state.d, vectors(self.state.d));
        self.prepare(batch.samples, scratch);
        self.forward(batch, scratch);
        let errors = scratch.panels[..batch.panels()].iter().flat_map(|panel| panel.error.chunks_exact(width));
        candidates.losses.extend(errors.map(|row| flat(row).iter().map(|&x| x as f64 * x as f64).sum::<f64>()));
        for row in flat(&batch.rows[..batch.samples * width]).chunks_exact(width * LANES) {
            candidates.rows.extend_from_slice(&row[..d]);
        }
    }

    /// Gives these latents new directions.
    pub fn resample(&mut self, latents: &[usize], candidates: &Candidates) {
        let (d, width) = (self.state.d, vectors(self.state.d));
        let row = |latent: usize| latent * width..(latent + 1) * width;
        let norm = |row: &[f32]| row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
        let living: Vec<usize> = (0..self.state.n_latents).filter(|j| !latents.contains(j)).collect();
        let mean = |norms: &dyn Fn(usize) -> f64| match living.len() {
            0 => 1.0,
            n => living.iter().map(|&j| norms(j)).sum::<f64>() / n as f64,
        };
        let encoder_norm = ENCODER_SHARE * mean(&|j| norm(flat(&self.state.w_enc[row(j)])));
        let free = mean(&|j| norm(flat(&self.state.w_dec[row(j)])));
        let decoder_norm = if self.program.unit_decoder { 1.0 } else { free };
        let drawn = draw_inputs(&candidates.losses, latents.len(), self.seed(), self.state.step);
        for (&latent, input) in latents.iter().zip(drawn) {
            let h = &candidates.rows[input * d..][..d];
            let length = norm(h);
            if length == 0.0 {
                continue;
            }
            let to = |rows: &mut [crate::backend::simd::Lanes], norm: f64| {
                flat_mut(rows).iter_mut().zip(h).for_each(|(to, h)| *to = (*h as f64 / length * norm) as f32);
            };
            to(&mut self.state.w_dec[row(latent)], decoder_norm);
            to(&mut self.state.w_enc[row(latent)], encoder_norm);
            self.state.b_enc[latent] = 0.0;
            let lanes = latent * width * LANES..(latent + 1) * width * LANES;
            for (moments, range) in self.state.moments.iter_mut().zip([lanes.clone(), latent..latent + 1, lanes]) {
                moments.reset(range);
            }
            self.state.since_fired[latent] = 0;
        }
        // New rows have their norms already, and the others are not touched.
        self.refresh(false);
    }
}
