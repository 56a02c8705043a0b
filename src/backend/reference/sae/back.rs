//! The ways back that are not the same for every kind: dead latents, jumps, gates, pursuits.

use super::{At, Back, Objective, ReferenceSae, Tensors, add, dot};
use crate::sae::{Penalty, Rule};

impl ReferenceSae {
    /// The auxiliary losses of dead latents.
    #[allow(clippy::too_many_arguments)] // reason: as above
    pub(super) fn back_dead(
        &self,
        at: &At,
        s: usize,
        n: f64,
        h: &[f64],
        pre: &[f64],
        dead: &[bool],
        held: Option<&[Vec<f64>]>,
        out: &mut Objective,
    ) {
        if self.program.aux_k == 0 {
            return;
        }
        let (d, levels) = (self.d, at.levels.weights.len());
        let lists = if self.program.aux_by_level { 0..levels } else { levels - 1..levels };
        for level in lists {
            let mine = |j: &usize| dead[*j] && (!self.program.aux_by_level || at.levels.of[*j] as usize == level);
            let list: Vec<usize> = (0..self.n_latents).filter(mine).collect();
            if list.is_empty() {
                continue;
            }
            let scale = (list.len() as f64 / self.program.aux_k as f64).min(1.0);
            let target = held.map_or(&out.residuals[level], |held| &held[level])[s * d..][..d].to_vec();
            let chosen = self.kept_dead(pre, &list);
            let mut error: Vec<f64> = target.iter().map(|t| -t).collect();
            chosen.iter().for_each(|&j| add(&mut error, pre[j], self.decoder(j)));
            out.auxiliary += scale * dot(&error, &error) / n;
            let g: Vec<f64> = error.iter().map(|e| 2.0 * scale * e / n).collect();
            for &j in &chosen {
                let du = dot(&g, self.decoder(j));
                self.back(&Back { latent: j, z: pre[j], du, bias: du }, &g, h, &mut out.gradients);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // reason: as above
    pub(super) fn back_jump<'a>(
        &self,
        at: &At,
        n: f64,
        h: &[f64],
        pre: &[f64],
        code: &[(usize, f64)],
        dead: &[bool],
        heard: &dyn Fn(usize) -> &'a [f64],
        out: &mut Objective,
    ) {
        let Rule::Jump { bandwidth, input_gradient, silent } = self.program.rule else { return };
        let (d, l0) = (self.d, code.len() as f64);
        let count = match at.penalty {
            Penalty::Step { coefficient } => {
                out.penalty += coefficient * l0 / n;
                coefficient / n
            }
            Penalty::Quadratic { coefficient, target } => {
                out.penalty += coefficient * 2.0 / target * (l0 - target) * (l0 - target) / n;
                coefficient * 4.0 / target * (l0 - target) / n
            }
            _ => 0.0,
        };
        for j in 0..self.n_latents {
            let (threshold, norm) = (self.parameters[4][j], self.decoder_norm(j));
            let z = if pre[j] > threshold { pre[j] } else { 0.0 };
            let mut dz = dot(heard(j), self.decoder(j));
            if let Penalty::Tanh { coefficient, scale } = at.penalty {
                let t = libm::tanh(scale * z * norm);
                out.penalty += coefficient * t / n;
                let slope = coefficient * (1.0 - t * t) * scale / n;
                dz += slope * norm;
                if norm > 0.0 {
                    add(&mut out.gradients[2][j * d..][..d], slope * z / norm, self.decoder(j));
                }
            }
            let inside = (pre[j] - threshold).abs() < bandwidth / 2.0;
            let through = if inside { threshold / bandwidth * dz + count / bandwidth } else { 0.0 };
            out.gradients[4][j] -= through;
            let open = if z > 0.0 { dz } else { 0.0 };
            let du = open + if input_gradient { through } else { 0.0 };
            self.back(&Back { latent: j, z, du, bias: du }, heard(j), h, &mut out.gradients);
            if silent > 0.0 && dead[j] && pre[j] < threshold {
                let gap = threshold - pre[j];
                out.penalty += silent * gap * norm / n;
                out.gradients[4][j] += silent * norm / n;
                let du = -silent * norm / n;
                self.back(&Back { latent: j, z: 0.0, du, bias: du }, heard(j), h, &mut out.gradients);
                if norm > 0.0 {
                    add(&mut out.gradients[2][j * d..][..d], silent * gap / norm / n, self.decoder(j));
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // reason: as above
    pub(super) fn back_gated<'a>(
        &self,
        at: &At,
        n: f64,
        h: &[f64],
        pi: &[f64],
        code: &[(usize, f64)],
        heard: &dyn Fn(usize) -> &'a [f64],
        out: &mut Objective,
    ) {
        let Rule::Gated { hold_decoder } = self.program.rule else { return };
        for &(j, z) in code {
            let dz = dot(heard(j), self.decoder(j));
            let factor = libm::exp(self.parameters[4][j]);
            out.gradients[4][j] += dz * factor * (pi[j] - self.parameters[1][j]);
            out.gradients[5][j] += dz;
            self.back(&Back { latent: j, z, du: dz * factor, bias: 0.0 }, heard(j), h, &mut out.gradients);
        }
        let open: Vec<usize> = (0..self.n_latents).filter(|&j| pi[j] > 0.0).collect();
        let mut error: Vec<f64> = self.parameters[3].iter().zip(h).map(|(b, h)| b - h).collect();
        open.iter().for_each(|&j| add(&mut error, pi[j], self.decoder(j)));
        out.auxiliary += dot(&error, &error) / n;
        let g: Vec<f64> = error.iter().map(|e| 2.0 * e / n).collect();
        if !hold_decoder {
            add(&mut out.gradients[3], 1.0, &g);
        }
        for &j in &open {
            let (price, pull) = self.price(at, j);
            out.penalty += price * pi[j] / n;
            let du = dot(&g, self.decoder(j)) + price / n;
            let z = if hold_decoder { 0.0 } else { pi[j] };
            self.back(&Back { latent: j, z, du, bias: du }, &g, h, &mut out.gradients);
            add(&mut out.gradients[2][j * self.d..][..self.d], pull * pi[j] / n, self.decoder(j));
        }
    }

    /// From the last choice to the first: see [`crate::sae::matching_pursuit`].
    pub(super) fn back_pursuit(&self, choices: &[(usize, f64)], h: &[f64], heard: &[f64], gradients: &mut Tensors) {
        let mut left = vec![self.centred(h)];
        for &(j, v) in choices {
            let mut next = left[left.len() - 1].clone();
            add(&mut next, -v, self.decoder(j));
            left.push(next);
        }
        let mut gamma = heard.to_vec();
        for (t, &(j, v)) in choices.iter().enumerate().rev() {
            let along = dot(&gamma, self.decoder(j));
            add(&mut gradients[2][j * self.d..][..self.d], v, &gamma);
            add(&mut gradients[2][j * self.d..][..self.d], along, &left[t]);
            add(&mut gamma, -along, self.decoder(j));
        }
        add(&mut gradients[3], 1.0, &gamma);
    }

    /// Derivative of a sample's L1 penalty by z_j, and what z_j times it gives the decoder row, over the row.
    pub(super) fn price(&self, at: &At, latent: usize) -> (f64, f64) {
        match at.penalty {
            Penalty::L1 { coefficient, by_norm: false } => (coefficient, 0.0),
            Penalty::L1 { coefficient, by_norm: true } => {
                let norm = self.decoder_norm(latent);
                (coefficient * norm, if norm > 0.0 { coefficient / norm } else { 0.0 })
            }
            _ => (0.0, 0.0),
        }
    }

    /// Adds what one entry of one sample gives.
    pub(super) fn back(&self, entry: &Back, heard: &[f64], h: &[f64], gradients: &mut Tensors) {
        let (j, d) = (entry.latent, self.d);
        gradients[1][j] += entry.bias;
        add(&mut gradients[2][j * d..][..d], entry.z, heard);
        add(&mut gradients[0][j * d..][..d], entry.du, &self.centred(h));
        add(&mut gradients[3], -entry.du, &self.parameters[0][j * d..][..d]);
    }
}
