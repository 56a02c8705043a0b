//! Phase C: errors of a panel, what its entries hear, and what that makes of dpre.

use super::Trainee;
use crate::backend::cpu::sae::lists::{Aim, List, Panel};
use crate::backend::ops::layout::{PANEL, PackedBatch, to_columns, vectors};
use crate::backend::ops::pursuit::PursuitBack;
use crate::backend::ops::sparse::{Levels, Reconstruct};
use crate::backend::simd;
use crate::backend::simd::Lanes;
use crate::sae::{Penalty, Rule};

/// Where what the entries of a panel hear goes.
pub(super) struct Hears<'a> {
    /// Memory for it by rows, `[levels][PANEL][vectors]`.
    pub rows: &'a mut Vec<Lanes>,
    /// `[levels]` of column blocks.
    pub columns: &'a mut [Lanes],
}

impl Trainee {
    /// Phase C: errors of panel `p`, what its entries hear, and what that makes of dpre.
    pub(super) fn back(&self, batch: &PackedBatch, p: usize, aim: &Aim, panel: &mut Panel, heard: Hears) {
        let (live, width) = (batch.live(p), vectors(self.state.d));
        let Panel { main, error, errors, penalty, .. } = panel;
        error.resize(live * width, Lanes::default());
        let by_level = aim.dead.len() > 1;
        errors.resize(if by_level { aim.scales.len() * PANEL * width } else { 0 }, Lanes::default());
        let errors = by_level.then_some(&mut errors[..]);
        let h = Some(&batch.rows[p * PANEL * width..][..live * width]);
        let detached = self.program.levels.as_ref().is_some_and(|levels| levels.detach_inner);
        let levels = Levels { of: aim.level_of(), scale: &aim.scales, detached };
        let Hears { rows, columns } = heard;
        self.reconstruct(h, levels, main, error, errors, Hears { rows, columns });
        *penalty = 0.0;
        // The memory may come from an autoencoder whose entries had more numbers.
        main.extra.iter_mut().for_each(Vec::clear);
        match self.program.rule {
            Rule::Positive | Rule::Top(_) | Rule::BatchTop { .. } => pay(&aim.price, live, main),
            Rule::Jump { .. } => self.back_jump(live, aim, panel),
            Rule::Gated { .. } => self.back_magnitude(live, main),
            Rule::Pursuit(_) => {
                let (kept, dpre, w_dec) = (&main.kept, &mut main.dpre[..], &self.state.w_dec[..]);
                simd::run(self.isa, PursuitBack { kept, w_dec, gradient: rows, dpre, width });
            }
        }
    }

    pub(super) fn reconstruct(
        &self,
        h: Option<&[Lanes]>,
        levels: Levels,
        list: &mut List,
        error: &mut [Lanes],
        errors: Option<&mut [Lanes]>,
        heard: Hears,
    ) {
        let List { kept, dpre: back, squares, .. } = list;
        back.resize(kept.slots(), 0.0);
        squares.clear();
        squares.resize(levels.scale.len(), 0.0);
        let (w_dec, b_dec) = (&self.state.w_dec[..], &self.state.b_dec[..]);
        let (width, live) = (b_dec.len(), error.len());
        heard.rows.resize(levels.scale.len() * PANEL * width, Lanes::default());
        let gradient = &mut heard.rows[..];
        let reconstruct = Reconstruct { h, w_dec, b_dec, kept, levels, error, errors, gradient, back, squares };
        simd::run(self.isa, reconstruct);
        let panel = PANEL * width;
        for (rows, columns) in gradient.chunks(panel).zip(heard.columns.chunks_mut(panel)) {
            to_columns(&rows[..live], width, columns);
        }
    }

    /// The way back through jumps: see [`crate::sae::jumprelu`].
    pub(super) fn back_jump(&self, live: usize, aim: &Aim, panel: &mut Panel) {
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
    pub(super) fn back_magnitude(&self, live: usize, main: &mut List) {
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
    pub(super) fn back_gate(&self, batch: &PackedBatch, p: usize, aim: &Aim, panel: &mut Panel, heard: Hears) {
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
    pub(super) fn back_dead(&self, list: usize, live: usize, aim: &Aim, panel: &mut Panel, heard: Hears) {
        let width = vectors(self.state.d);
        let scale = (2.0 * aim.dead_weights[list] / aim.samples as f64) as f32;
        let mut error = match &panel.errors[..] {
            [] => panel.error.clone(),
            errors => errors[list * PANEL * width..][..live * width].to_vec(),
        };
        let levels = Levels { of: None, scale: &[scale], detached: false };
        self.reconstruct(None, levels, &mut panel.dead[list], &mut error, None, heard);
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
