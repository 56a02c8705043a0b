//! Trains autoencoders by plain f64 loops, one after the other.
//!
//! Everything is written as the definitions have it, sample by sample and latent by latent. Initial weights and hidden
//! states are the f32 values that the other backends see; what comes after is f64, until the trained weights are rounded
//! once.

use crate::backend::ops::optimizer::{ReferenceMoments, reference_step};
use crate::backend::{SaeGroup, Watch};
use crate::hidden::{HiddenBatch, HiddenSource, HiddenStream};
use crate::random::Stream;
use crate::sae::dead_latents::{ENCODER_SHARE, draw_inputs};
use crate::sae::init::start;
use crate::sae::matryoshka::{Sort, StepLevels, USAGE_DECAY};
use crate::sae::train::Guard;
use crate::sae::{
    Control, Controller, Penalty, Program, Pursuit, Rule, Sae, SaeJob, SaeOutcome, SaeTrace, SaeTrain, Weights,
    batch_topk,
};
use crate::toy::TrainingEnd;
use crate::training::{ramp_down, ramp_up};

/// Parameters in the order W_enc, b_enc, W_dec, b_dec, then those with one number a latent; matrices are `[n_latents, d]`.
pub type Tensors = Vec<Vec<f64>>;

/// An autoencoder in f64.
#[derive(Clone, Debug)]
pub struct ReferenceSae {
    /// What a step does.
    pub program: Program,
    /// Latents.
    pub n_latents: usize,
    /// Width of h.
    pub d: usize,
    /// As [`Tensors`] orders them.
    pub parameters: Tensors,
}

/// What changes from step to step.
#[derive(Clone, Debug)]
pub struct At {
    /// k of a selection.
    pub k: f64,
    /// The penalty.
    pub penalty: Penalty,
    /// Levels and weights.
    pub levels: StepLevels,
}

/// Loss, gradients and what led to them.
#[derive(Clone, Debug, Default)]
pub struct Objective {
    /// Mean over the batch of |h - ĥ|².
    pub mse: f64,
    /// As it joins the loss: weighted over levels.
    pub weighted: f64,
    /// Of the penalty on latents.
    pub penalty: f64,
    /// Of the reconstructions by dead latents and by a gate, scaled as they join the loss.
    pub auxiliary: f64,
    /// Of each parameter, before projection and clip.
    pub gradients: Tensors,
    /// `[samples, n_latents]`
    pub latents: Vec<f64>,
    /// `[samples, d]`
    pub reconstruction: Vec<f64>,
    /// h - ĥ of each level, `[levels][samples, d]`.
    pub residuals: Vec<Vec<f64>>,
    /// Least pre |decoder| that BatchTopK kept.
    pub least_kept: Option<f64>,
}

impl Objective {
    /// The loss.
    pub fn loss(&self) -> f64 {
        self.weighted + self.penalty + self.auxiliary
    }

    /// Mean number of latents with z > 0.
    pub fn l0(&self, samples: usize) -> f64 {
        self.latents.iter().filter(|&&z| z > 0.0).count() as f64 / samples as f64
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}

/// The `k` candidates of greatest key, ties to the lower one, ascending.
fn greatest(candidates: &[usize], key: impl Fn(usize) -> f64, k: usize) -> Vec<usize> {
    let mut order = candidates.to_vec();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    order
}

/// The choices of a matching pursuit for one centred sample, in order: latent and what it gets.
pub fn pursue(pursuit: Pursuit, w_enc: &[f64], w_dec: &[f64], centred: &[f64]) -> Vec<(usize, f64)> {
    let d = centred.len();
    let (mut left, mut choices) = (centred.to_vec(), Vec::<(usize, f64)>::new());
    for _ in 0..pursuit.k {
        let pre: Vec<f64> = w_enc.chunks_exact(d).map(|row| dot(row, &left)).collect();
        let best = greatest(&(0..pre.len()).collect::<Vec<_>>(), |j| pre[j], 1)[0];
        if pre[best] <= 0.0 {
            break;
        }
        let again = choices.iter().any(|(j, _)| *j == best);
        choices.push((best, pre[best]));
        add(&mut left, -pre[best], &w_dec[best * d..][..d]);
        let small = dot(&left, &left).sqrt() < pursuit.residual_threshold;
        if (again && pursuit.stop_on_duplicate) || (pursuit.residual_threshold > 0.0 && small) {
            break;
        }
    }
    choices
}

/// What one entry of one sample gives to the gradients.
struct Back {
    latent: usize,
    /// Factor of `heard` in the decoder row's gradient.
    z: f64,
    /// Derivative of the loss by what the encoder row and its input make.
    du: f64,
    /// Derivative by the encoder's bias.
    bias: f64,
}

impl ReferenceSae {
    /// `weights` in f64.
    pub fn new(weights: &Weights, program: Program) -> ReferenceSae {
        let wide = |w: &Vec<f32>| w.iter().map(|&w| w as f64).collect();
        let Weights { w_enc, b_enc, w_dec, b_dec, per_latent, .. } = weights;
        let parameters = [w_enc, b_enc, w_dec, b_dec].into_iter().chain(per_latent).map(wide).collect();
        ReferenceSae { program, n_latents: weights.n_latents, d: weights.d_hidden, parameters }
    }

    /// The parameters, rounded once.
    pub fn weights(&self) -> Weights {
        let mut narrow = self.parameters.iter().map(|p| p.iter().map(|&p| p as f32).collect::<Vec<f32>>());
        let mut next = || narrow.next().expect("an autoencoder has at least four parameters");
        let (w_enc, b_enc, w_dec, b_dec) = (next(), next(), next(), next());
        Weights {
            n_latents: self.n_latents,
            d_hidden: self.d,
            w_enc,
            b_enc,
            w_dec,
            b_dec,
            per_latent: narrow.collect(),
        }
    }

    fn decoder(&self, latent: usize) -> &[f64] {
        &self.parameters[2][latent * self.d..][..self.d]
    }

    fn decoder_norm(&self, latent: usize) -> f64 {
        dot(self.decoder(latent), self.decoder(latent)).sqrt()
    }

    fn centred(&self, h: &[f64]) -> Vec<f64> {
        h.iter().zip(&self.parameters[3]).map(|(h, b)| h - b).collect()
    }

    /// pre of one sample, `[n_latents]`.
    fn encode(&self, h: &[f64]) -> Vec<f64> {
        let centred = self.centred(h);
        self.parameters[0].chunks_exact(self.d).zip(&self.parameters[1]).map(|(w, b)| dot(w, &centred) + b).collect()
    }

    /// exp(r_mag) u + b_mag of a gated autoencoder with π.
    fn magnitude(&self, latent: usize, pi: f64) -> f64 {
        libm::exp(self.parameters[4][latent]) * (pi - self.parameters[1][latent]) + self.parameters[5][latent]
    }

    /// z of every sample, entries in ascending order of latents but for a pursuit, whose entries are its choices.
    fn codes(&self, h: &[f64], pres: &[Vec<f64>], k: f64) -> Vec<Vec<(usize, f64)>> {
        let all: Vec<usize> = (0..self.n_latents).collect();
        if let Rule::BatchTop { .. } = self.program.rule {
            return self.codes_of_batch(pres, k);
        }
        let of = |(h, pre): (&[f64], &Vec<f64>)| -> Vec<(usize, f64)> {
            let positive = |j: &usize| pre[*j] > 0.0;
            match self.program.rule {
                Rule::Top(_) => {
                    let kept = greatest(&all, |j| pre[j] * self.decoder_norm(j), k as usize);
                    kept.into_iter().filter(positive).map(|j| (j, pre[j])).collect()
                }
                Rule::Positive | Rule::BatchTop { .. } => {
                    all.iter().copied().filter(positive).map(|j| (j, pre[j])).collect()
                }
                Rule::Jump { .. } => {
                    let open = |j: &usize| pre[*j] > self.parameters[4][*j];
                    all.iter().copied().filter(open).map(|j| (j, pre[j])).collect()
                }
                Rule::Gated { .. } => {
                    let open = |j: &usize| pre[*j] > 0.0 && self.magnitude(*j, pre[*j]) > 0.0;
                    all.iter().copied().filter(open).map(|j| (j, self.magnitude(j, pre[j]))).collect()
                }
                Rule::Pursuit(pursuit) => pursue(pursuit, &self.parameters[0], &self.parameters[2], &self.centred(h)),
            }
        };
        h.chunks_exact(self.d).zip(pres).map(of).collect()
    }

    fn codes_of_batch(&self, pres: &[Vec<f64>], k: f64) -> Vec<Vec<(usize, f64)>> {
        let m = self.n_latents;
        let key = |at: usize| pres[at / m][at % m] * self.decoder_norm(at % m);
        let candidates: Vec<usize> = (0..pres.len() * m).filter(|&at| key(at) > 0.0).collect();
        let mut codes = vec![vec![]; pres.len()];
        for at in greatest(&candidates, key, batch_topk::count(k, pres.len())) {
            codes[at / m].push((at % m, pres[at / m][at % m]));
        }
        codes
    }

    /// Dead latents that reconstruct the residual of one sample.
    fn kept_dead(&self, pre: &[f64], dead: &[usize]) -> Vec<usize> {
        greatest(dead, |j| pre[j] * self.decoder_norm(j), self.program.aux_k)
    }

    /// As the program stands before the first step.
    pub fn at_start(&self) -> At {
        let levels = &self.program.levels;
        At {
            k: self.program.k_at(usize::MAX, 1).unwrap_or(0.0),
            penalty: self.program.penalty,
            levels: levels
                .as_ref()
                .map_or(StepLevels::whole(), |levels| levels.at(0, 0, self.n_latents, &vec![0.0; self.n_latents])),
        }
    }

    /// Loss and gradients on h `[samples, d]` with these dead latents: see [`ReferenceSae::objective_at`].
    pub fn objective(&self, h: &[f64], dead: &[bool], held: Option<&[Vec<f64>]>) -> Objective {
        self.objective_at(&self.at_start(), h, dead, held)
    }

    /// Loss and gradients on h `[samples, d]` with these dead latents.
    ///
    /// `held`, `[levels][samples, d]`, takes the place of the residuals h - ĥ in the auxiliary loss. Gradients treat those
    /// as constants in any case; central differences need them to be.
    pub fn objective_at(&self, at: &At, h: &[f64], dead: &[bool], held: Option<&[Vec<f64>]>) -> Objective {
        let pres: Vec<Vec<f64>> = h.chunks_exact(self.d).map(|h| self.encode(h)).collect();
        let codes = self.codes(h, &pres, at.k);
        let zeros = self.parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        let residuals = vec![vec![]; at.levels.weights.len()];
        let mut out = Objective { gradients: zeros, residuals, ..Objective::default() };
        if let Rule::BatchTop { .. } = self.program.rule {
            let keys = codes.iter().flatten().map(|&(j, z)| z * self.decoder_norm(j));
            out.least_kept = keys.min_by(f64::total_cmp);
        }
        for (s, h) in h.chunks_exact(self.d).enumerate() {
            self.sample(at, s, pres.len(), h, &pres[s], &codes[s], dead, held, &mut out);
        }
        if self.program.tied {
            let (encoder, rest) = out.gradients.split_at_mut(2);
            add(&mut rest[0], 1.0, &encoder[0]);
            encoder[0].fill(0.0);
        }
        if !self.program.has_encoder_bias() {
            out.gradients[1].fill(0.0);
        }
        if self.program.frozen_decoder {
            out.gradients[2..4].iter_mut().for_each(|gradient| gradient.fill(0.0));
        }
        out
    }

    /// Adds one sample of n.
    #[allow(clippy::too_many_arguments)] // reason: plain loops share what the batch has computed
    fn sample(
        &self,
        at: &At,
        s: usize,
        n: usize,
        h: &[f64],
        pre: &[f64],
        code: &[(usize, f64)],
        dead: &[bool],
        held: Option<&[Vec<f64>]>,
        out: &mut Objective,
    ) {
        let (m, d, n) = (self.n_latents, self.d, n as f64);
        let level_of = |j: usize| at.levels.of.get(j).map_or(0, |level| *level as usize);
        let mut latents = vec![0.0; m];
        code.iter().for_each(|&(j, z)| latents[j] += z);
        let mut reconstruction = self.parameters[3].clone();
        let mut own = vec![];
        for (level, weight) in at.levels.weights.iter().enumerate() {
            for &(j, z) in code.iter().filter(|(j, _)| level_of(*j) == level) {
                add(&mut reconstruction, z, self.decoder(j));
            }
            let residual: Vec<f64> = h.iter().zip(&reconstruction).map(|(h, r)| h - r).collect();
            out.weighted += weight * dot(&residual, &residual) / n;
            own.push(residual.iter().map(|r| -2.0 * weight * r / n).collect::<Vec<f64>>());
            out.residuals[level].extend(residual);
        }
        let levels = own.len();
        let residual = &out.residuals[levels - 1][s * d..];
        out.mse += dot(residual, residual) / n;
        let detached = self.program.levels.as_ref().is_some_and(|levels| levels.detach_inner);
        let mut heard = own;
        if !detached {
            for level in (1..levels).rev() {
                let (inner, outer) = heard.split_at_mut(level);
                add(&mut inner[level - 1], 1.0, &outer[0]);
            }
        }
        if let Rule::Pursuit(_) = self.program.rule {
            self.back_pursuit(code, h, &heard[0], &mut out.gradients);
        } else {
            add(&mut out.gradients[3], 1.0, &heard[0]);
            let heard_by = |j: usize| &heard[level_of(j)][..];
            match self.program.rule {
                Rule::Jump { .. } => self.back_jump(at, n, h, pre, code, dead, &heard_by, out),
                Rule::Gated { .. } => self.back_gated(at, n, h, pre, code, &heard_by, out),
                _ => {
                    for &(j, z) in code {
                        let (price, pull) = self.price(at, j);
                        out.penalty += price * z / n;
                        let du = dot(heard_by(j), self.decoder(j)) + price / n;
                        self.back(&Back { latent: j, z, du, bias: du }, heard_by(j), h, &mut out.gradients);
                        add(&mut out.gradients[2][j * d..][..d], pull * z / n, self.decoder(j));
                    }
                }
            }
        }
        self.back_dead(at, s, n, h, pre, dead, held, out);
        out.latents.extend(latents);
        out.reconstruction.extend(reconstruction);
    }

    /// The auxiliary losses of dead latents.
    #[allow(clippy::too_many_arguments)] // reason: as above
    fn back_dead(
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
    fn back_jump<'a>(
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
    fn back_gated<'a>(
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
    fn back_pursuit(&self, choices: &[(usize, f64)], h: &[f64], heard: &[f64], gradients: &mut Tensors) {
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
    fn price(&self, at: &At, latent: usize) -> (f64, f64) {
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
    fn back(&self, entry: &Back, heard: &[f64], h: &[f64], gradients: &mut Tensors) {
        let (j, d) = (entry.latent, self.d);
        gradients[1][j] += entry.bias;
        add(&mut gradients[2][j * d..][..d], entry.z, heard);
        add(&mut gradients[0][j * d..][..d], entry.du, &self.centred(h));
        add(&mut gradients[3], -entry.du, &self.parameters[0][j * d..][..d]);
    }

    /// Takes out of each decoder row's gradient its part along the row.
    pub fn project(&self, gradients: &mut Tensors) {
        for (j, row) in gradients[2].chunks_exact_mut(self.d).enumerate() {
            let along = dot(row, self.decoder(j));
            add(row, -along, self.decoder(j));
        }
    }

    /// Projects, clips, and moves the parameters; then unit rows are made unit again, thresholds at least 0, and a tied
    /// encoder the decoder.
    pub fn update(&mut self, train: &SaeTrain, step: usize, mut gradients: Tensors, moments: &mut [ReferenceMoments]) {
        let frozen = self.program.frozen_decoder;
        if self.program.unit_decoder && !frozen {
            self.project(&mut gradients);
        }
        let norm = gradients.iter().map(|g| dot(g, g)).sum::<f64>().sqrt();
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let lr = train.lr
            * train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        for (i, ((parameters, gradient), moments)) in self.parameters.iter_mut().zip(gradients).zip(moments).enumerate()
        {
            let given = (i == 2 || i == 3) && frozen;
            let absent = (i == 0 && self.program.tied) || (i == 1 && !self.program.has_encoder_bias());
            if !given && !absent {
                let gradient: Vec<f64> = gradient.iter().map(|g| g * clip).collect();
                reference_step(train.optimizer, lr, train.weight_decay, step, parameters, &gradient, moments);
            }
        }
        if let Rule::Jump { .. } = self.program.rule {
            self.parameters[4].iter_mut().filter(|threshold| **threshold < 0.0).for_each(|threshold| *threshold = 0.0);
        }
        self.tidy();
    }

    /// Unit rows unit, the tied encoder the decoder.
    fn tidy(&mut self) {
        if self.program.unit_decoder {
            for row in self.parameters[2].chunks_exact_mut(self.d) {
                let norm = dot(row, row).sqrt();
                row.iter_mut().for_each(|w| *w /= if norm > 0.0 { norm } else { 1.0 });
            }
        }
        if self.program.tied {
            self.parameters[0] = self.parameters[2].clone();
        }
    }

    /// Zero moments of all parameters.
    pub fn moments(&self) -> Vec<ReferenceMoments> {
        self.parameters.iter().map(|p| ReferenceMoments::new(p.len())).collect()
    }

    fn broken_tensor(&self) -> Option<&'static str> {
        let broken = self.parameters.iter().position(|p| p.iter().any(|x| !x.is_finite()));
        broken.map(|i| self.program.parameter_names()[i])
    }
}

/// As [`crate::backend::cpu::sae::train`].
pub fn train(groups: &[SaeGroup], watch: &dyn Watch) -> Vec<Vec<Option<SaeOutcome>>> {
    let trained = |group: &SaeGroup| group.saes.iter().map(|job| train_one(&group.source, job, watch)).collect();
    groups.iter().map(trained).collect()
}

/// One autoencoder on its way.
struct Run<'a> {
    job: &'a SaeJob,
    stream: HiddenStream,
    scale: f64,
    sae: ReferenceSae,
    moments: Vec<ReferenceMoments>,
    since_fired: Vec<usize>,
    threshold: f64,
    controller: Controller,
    usage: Vec<f64>,
}

impl Run<'_> {
    /// Hidden states of a batch. The product is rounded to f32, as the other backends round it when they pack the batch.
    fn draw(&self, step: usize) -> Vec<f64> {
        let mut batch = HiddenBatch::default();
        self.stream.draw_hidden(step as u32, self.job.train.batch_size, &mut batch);
        batch.h.iter().map(|&h| (h * self.scale as f32) as f64).collect()
    }

    fn at(&self, step: usize) -> At {
        let (program, steps) = (&self.sae.program, self.job.train.steps);
        At {
            k: program.k_at(step, steps).unwrap_or(0.0),
            penalty: program.penalty_at(step, steps, self.controller.multiplier),
            levels: program
                .levels
                .as_ref()
                .map_or(StepLevels::whole(), |levels| levels.at(self.job.seed, step, self.job.n_latents, &self.usage)),
        }
    }

    /// What is remembered of a step beside the weights.
    fn take_note(&mut self, step: usize, objective: &Objective) {
        let (m, n) = (self.job.n_latents, self.job.train.batch_size);
        self.threshold = batch_topk::moved_threshold(self.threshold, objective.least_kept);
        if let Some(target) = &self.sae.program.target {
            let tuning = self.sae.program.tunes_at(step, self.job.train.steps);
            self.controller.take(target, objective.l0(n), tuning);
        }
        let sort = self.sae.program.levels.as_ref().map_or(Sort::None, |levels| levels.sort);
        for j in 0..m {
            let of = || objective.latents.iter().skip(j).step_by(m);
            let fired = of().filter(|z| **z > 0.0).count();
            self.since_fired[j] = if fired > 0 { 0 } else { self.since_fired[j] + 1 };
            let norm = self.sae.decoder_norm(j);
            let now = match sort {
                Sort::None => continue,
                Sort::Frequency => fired as f64,
                Sort::Contribution => of().map(|z| z * z).sum::<f64>() * norm * norm,
            };
            self.usage[j] = USAGE_DECAY * self.usage[j] + (1.0 - USAGE_DECAY) * now / n as f64;
        }
    }

    /// See [`crate::sae::dead_latents`].
    fn resample(&mut self, step: usize) {
        let Some(resample) = self.sae.program.resample.clone() else { return };
        let latents = resample.silent(step, &self.since_fired);
        if latents.is_empty() {
            return;
        }
        let (d, batches) = (self.sae.d, resample.batches(self.job.train.batch_size));
        let (mut rows, mut losses) = (vec![], vec![]);
        let past = resample.at.partition_point(|&at| at < step);
        let dead = vec![false; self.job.n_latents];
        for batch in 0..batches {
            let h = self.draw(self.job.train.steps + past * batches + batch);
            let objective = self.sae.objective_at(&self.at(step), &h, &dead, None);
            let residuals = &objective.residuals[objective.residuals.len() - 1];
            losses.extend(residuals.chunks_exact(d).map(|r| dot(r, r)));
            rows.extend(h);
        }
        let living: Vec<usize> = (0..self.job.n_latents).filter(|j| !latents.contains(j)).collect();
        let mean = |rows: &[f64]| match living.len() {
            0 => 1.0,
            n => living.iter().map(|&j| dot(&rows[j * d..][..d], &rows[j * d..][..d]).sqrt()).sum::<f64>() / n as f64,
        };
        let encoder_norm = ENCODER_SHARE * mean(&self.sae.parameters[0]);
        let decoder_norm = if self.sae.program.unit_decoder { 1.0 } else { mean(&self.sae.parameters[2]) };
        for (&j, input) in latents.iter().zip(draw_inputs(&losses, latents.len(), self.job.seed, step)) {
            let h = &rows[input * d..][..d];
            let length = dot(h, h).sqrt();
            if length == 0.0 {
                continue;
            }
            for (tensor, norm) in [(0, encoder_norm), (2, decoder_norm)] {
                let row = &mut self.sae.parameters[tensor][j * d..][..d];
                row.iter_mut().zip(h).for_each(|(w, h)| *w = h / length * norm);
                self.moments[tensor].reset(j * d..(j + 1) * d);
            }
            self.sae.parameters[1][j] = 0.0;
            self.moments[1].reset(j..j + 1);
            self.since_fired[j] = 0;
        }
        self.sae.tidy();
    }

    fn control(&self) -> Option<Control> {
        let smoothed = self.sae.program.target.and(self.controller.smoothed)?;
        Some(Control { multiplier: self.controller.multiplier, l0_smoothed: smoothed })
    }

    fn outcome(self, end: TrainingEnd, trace: Vec<SaeTrace>) -> SaeOutcome {
        let program = &self.sae.program;
        let mut weights = self.sae.weights();
        let inference = program.inference(self.threshold, self.job.train.batch_size).fold_scale(self.scale);
        weights.fold_scale(self.scale);
        weights.finish(self.job, program, &self.usage);
        let missed = program.target.and_then(|target| self.controller.missed(&target));
        SaeOutcome { coder: Box::new(Sae::new(weights, inference)), end, trace, missed }
    }
}

fn train_one(source: &HiddenSource, job: &SaeJob, watch: &dyn Watch) -> Option<SaeOutcome> {
    let train = &job.train;
    let stream = source.open(Stream::Train);
    let scale = train.normalise.scale(&stream, train.batch_size);
    let (program, weights) = start(job, source, &stream, scale);
    let sae = ReferenceSae::new(&weights, program);
    let (moments, since_fired, usage) = (sae.moments(), vec![0; job.n_latents], vec![0.0; job.n_latents]);
    let controller = Controller::default();
    let mut run = Run { job, stream, scale, sae, moments, since_fired, threshold: 0.0, controller, usage };
    let (mut guard, mut trace, mut end) = (Guard::default(), vec![], TrainingEnd::Finished);
    for step in 0..train.steps {
        if watch.stop() {
            return None;
        }
        run.resample(step);
        let h = run.draw(step);
        let dead: Vec<bool> = run.since_fired.iter().map(|&since| since > train.dead_after).collect();
        let objective = run.sae.objective_at(&run.at(step), &h, &dead, None);
        run.take_note(step, &objective);
        let diverged = guard.look(step, objective.loss(), objective.mse);
        if job.logs(step) && diverged.is_none() {
            let (loss, l0) = (objective.loss(), objective.l0(train.batch_size));
            trace.push(SaeTrace { step, loss, l0, control: run.control() });
        }
        let diverged = diverged.or_else(|| {
            run.sae.update(train, step, objective.gradients, &mut run.moments);
            run.sae.broken_tensor().map(|tensor| guard.diverged(step, tensor))
        });
        watch.advance(if diverged.is_some() { train.steps - step } else { 1 } as u64);
        if let Some(diverged) = diverged {
            end = diverged;
            break;
        }
    }
    Some(run.outcome(end, trace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use crate::sae::golden::Golden;
    use crate::sae::{
        Architecture, BatchInference, DecoderRule, JumpRelu, Levels, Prefixes, Size, Sparsity, matching_pursuit,
    };

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| x as f64).collect()
    }

    fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
        assert_eq!(found.len(), expected.len(), "{what}");
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{what}: off by {worst:e}, allowed {tolerance:e}");
    }

    /// f64 sums of at most 31 terms of size up to 40: 31 * 1.1e-16 relative, far below 1e-12.
    #[test]
    fn loss_terms_and_gradients_are_those_of_the_golden_objectives() {
        for golden in Golden::all() {
            let sae = ReferenceSae::new(&golden.weights, golden.architecture.program());
            let found = sae.objective(&wide(&golden.x), &golden.dead, None);
            let what = format!("{:?}", golden.architecture);
            let terms = [found.loss(), found.mse, found.penalty, found.auxiliary];
            let expected = [golden.loss, golden.mse, golden.penalty, golden.auxiliary];
            assert_near(
                &found.least_kept.into_iter().collect::<Vec<_>>(),
                &golden.least_kept.into_iter().collect::<Vec<_>>(),
                1e-11,
                &what,
            );
            assert_near(&terms, &expected, 1e-12 * golden.loss, &what);
            assert_near(&found.latents, &golden.latents, 1e-12 * 10.0, &what);
            assert_near(&found.reconstruction, &golden.x_hat, 1e-12 * 10.0, &what);
            let largest = golden.gradients.iter().flatten().fold(0.0, |a: f64, g| a.max(g.abs()));
            for (found, expected) in found.gradients.iter().zip(&golden.gradients) {
                assert_near(found, expected, 1e-12 * largest, &what);
            }
        }
    }

    #[test]
    fn ten_steps_are_those_of_the_golden_objectives() {
        for golden in Golden::all() {
            for (clip, expected_threshold) in [None, Some(1.0)].into_iter().zip(golden.thresholds) {
                let mut sae = ReferenceSae::new(&golden.weights, golden.architecture.program());
                let mut moments = sae.moments();
                let mut threshold = 0.0;
                for step in 0..10 {
                    let objective = sae.objective(&wide(&golden.x), &golden.dead, None);
                    threshold = batch_topk::moved_threshold(threshold, objective.least_kept);
                    sae.update(&Golden::train(clip), step, objective.gradients, &mut moments);
                }
                for (found, expected) in sae.parameters.iter().zip(golden.after_ten(clip)) {
                    assert_near(found, &expected, 1e-11, &format!("{:?}, clip {clip:?}", golden.architecture));
                }
                assert_near(&[threshold], &[expected_threshold.unwrap_or(0.0)], 1e-11, "threshold");
            }
        }
    }

    fn levels(prefixes: Vec<usize>, average: bool) -> Levels {
        Levels { prefixes: Prefixes::Fixed(prefixes), inner: 0.5, average, detach_inner: false, sort: Sort::None }
    }

    /// Kinds without golden values, and such as share a rule with one that has them.
    fn programs() -> Vec<Program> {
        let relu = |decoder| Architecture::Relu { l1: 0.3, decoder };
        let topk = |k, aux_k| Architecture::TopK { k, aux_k };
        let matryoshka = |nested, levels, aux_by_level| {
            Architecture::Matryoshka { nested: Box::new(nested), levels, aux_by_level }.program()
        };
        let pursuit = |k, residual_threshold, stop_on_duplicate, unit| {
            matching_pursuit::program(Pursuit { k, residual_threshold, stop_on_duplicate }, unit)
        };
        let batch = |k, aux_k| Architecture::BatchTopK { k, aux_k, inference: BatchInference::Batch };
        let tied = |program| Program { tied: true, ..program };
        vec![
            relu(DecoderRule::UnitNorm).program(),
            relu(DecoderRule::NormPenalty).program(),
            topk(1, 0).program(),
            topk(3, 2).program(),
            topk(2, 8).program(),
            topk(7, 3).program(),
            batch(1.7, 3).program(),
            matryoshka(topk(3, 2), levels(vec![1, 3, 7], true), false),
            matryoshka(batch(2.4, 2), levels(vec![2, 7], false), true),
            matryoshka(relu(DecoderRule::UnitNorm), levels(vec![4, 7], false), false),
            tied(topk(3, 2).program()),
            tied(relu(DecoderRule::NormPenalty).program()),
            pursuit(1, 0.0, false, false),
            pursuit(4, 0.0, false, false),
            pursuit(6, 0.9, false, false),
            pursuit(6, 0.0, true, true),
        ]
    }

    /// Step 1e-6: the third derivative leaves 1e-12 of its size, rounding of a loss of some 10 to 1000 leaves 1e-9 to 1e-7.
    /// Where a ReLU or a selection switches within the step the difference is of the size of a term; seeds are fixed,
    /// and none does.
    #[test]
    fn gradients_are_central_differences_with_what_is_held_constant_held() {
        for (i, program) in programs().into_iter().enumerate() {
            let (m, d, n) = (7, 4, 5);
            let mut draws = Draws::new(31, Stream::SaeInit, i as u64);
            let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
            let (w_enc, b_enc, mut w_dec) = (normals(m * d), normals(m), normals(m * d));
            if let Rule::Pursuit(_) = program.rule {
                w_dec.iter_mut().for_each(|w| *w *= 0.45);
            }
            let b_enc = if program.has_encoder_bias() { b_enc } else { vec![0.0; m] };
            let w_enc = if program.tied { w_dec.clone() } else { w_enc };
            let weights =
                Weights { n_latents: m, d_hidden: d, w_enc, b_enc, w_dec, b_dec: normals(d), per_latent: vec![] };
            let h = wide(&normals(n * d));
            let what = format!("{program:?}");
            let sae = ReferenceSae::new(&weights, program);
            let dead: Vec<bool> = (0..m).map(|j| j % 2 == 1).collect();
            let base = sae.objective(&h, &dead, None);
            for tensor in 0..4 {
                if (tensor == 0 && sae.program.tied) || (tensor == 1 && !sae.program.has_encoder_bias()) {
                    assert!(base.gradients[tensor].iter().all(|&g| g == 0.0), "{what}");
                    continue;
                }
                for at in 0..sae.parameters[tensor].len() {
                    let moved = |by: f64| {
                        let mut moved = sae.clone();
                        moved.parameters[tensor][at] += by;
                        if moved.program.tied {
                            moved.parameters[0] = moved.parameters[2].clone();
                        }
                        moved.objective(&h, &dead, Some(&base.residuals)).loss()
                    };
                    let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let found = base.gradients[tensor][at];
                    let tolerance = 1e-7 * (1.0 + found.abs());
                    assert!((slope - found).abs() < tolerance, "{what}, {tensor}, {at}: {slope} {found}");
                }
            }
        }
    }

    /// The parts of JumpReLU that golden values lack. With θ = 0 jumps are kinks and its tanh and dead-latent losses are
    /// functions with derivatives by all but θ; by θ, and by the count, the estimators are written out here again.
    #[test]
    fn jumprelu_modes_follow_their_definitions() {
        let (m, d, n) = (5, 3, 4);
        let mut draws = Draws::new(32, Stream::SaeInit, 0);
        let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let (w_enc, b_enc, w_dec, b_dec) = (normals(m * d), normals(m), normals(m * d), normals(d));
        let h = wide(&normals(n * d));
        let dead: Vec<bool> = (0..m).map(|j| j % 2 == 1).collect();
        let of = |sparsity, threshold: f32, bandwidth, input_gradient, silent| {
            let settings = JumpRelu {
                l0: 0.3,
                sparsity,
                bandwidth: Size::Absolute(bandwidth),
                threshold: Size::Absolute(0.0),
                init_norm: 0.1,
                input_gradient,
                silent,
            };
            let per_latent = vec![vec![threshold; m]];
            let (w_enc, b_enc, w_dec, b_dec) = (w_enc.clone(), b_enc.clone(), w_dec.clone(), b_dec.clone());
            let weights = Weights { n_latents: m, d_hidden: d, w_enc, b_enc, w_dec, b_dec, per_latent };
            ReferenceSae::new(&weights, Architecture::JumpRelu(settings).program())
        };
        let smooth = of(Sparsity::Tanh { scale: 2.0 }, 0.0, 1e-9, false, 0.4);
        let base = smooth.objective(&h, &dead, None);
        for tensor in 0..4 {
            for at in 0..smooth.parameters[tensor].len() {
                let moved = |by: f64| {
                    let mut moved = smooth.clone();
                    moved.parameters[tensor][at] += by;
                    moved.objective(&h, &dead, None).loss()
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                assert!((slope - base.gradients[tensor][at]).abs() < 1e-7, "{tensor} {at}");
            }
        }
        // The count in units of itself: step mode with coefficient c, quadratic with c 4/T (L0 - T) sample by sample.
        let target = 1.5;
        let wide_window = of(Sparsity::Quadratic { target }, 0.2, 50.0, false, 0.0);
        let found = wide_window.objective(&h, &dead, None);
        let plain = of(Sparsity::Step, 0.2, 50.0, false, 0.0).objective(&h, &dead, None);
        let l0s: Vec<f64> =
            found.latents.chunks_exact(m).map(|z| z.iter().filter(|z| **z > 0.0).count() as f64).collect();
        let penalty: f64 = l0s.iter().map(|l0| 0.3 * 2.0 / target * (l0 - target) * (l0 - target) / n as f64).sum();
        assert!((found.penalty - penalty).abs() < 1e-12);
        for j in 0..m {
            // Every pre lies in the window, so the two differ by the counts' slopes over the bandwidth.
            let slopes: f64 = l0s.iter().map(|l0| 0.3 * (4.0 / target * (l0 - target) - 1.0) / n as f64).sum();
            let difference = found.gradients[4][j] - plain.gradients[4][j];
            assert!((difference + slopes / 50.0).abs() < 1e-12, "{j}");
        }
        // With the estimate reaching pre, the encoder bias gets what the threshold loses.
        let both = of(Sparsity::Step, 0.2, 50.0, true, 0.0).objective(&h, &dead, None);
        for j in 0..m {
            assert!((both.gradients[1][j] - plain.gradients[1][j] + plain.gradients[4][j]).abs() < 1e-12, "{j}");
        }
    }
}
