//! Trains autoencoders by plain f64 loops, one after the other.
//!
//! Everything is written as the definitions have it, sample by sample and latent by latent. Initial weights and hidden
//! states are the f32 values that the other backends see; what comes after is f64, until the trained weights are rounded
//! once.

mod back;
mod training;

pub use self::training::train;
use crate::backend::ops::optimizer::{ReferenceMoments, reference_step};
use crate::sae::matryoshka::StepLevels;
use crate::sae::{Penalty, Program, Pursuit, Rule, SaeTrain, Weights, batch_topk};
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

#[cfg(test)]
mod tests;
