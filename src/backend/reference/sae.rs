//! Trains autoencoders by plain f64 loops, one after the other.
//!
//! Everything is written as the definitions have it, sample by sample and latent by latent. Initial weights and hidden
//! states are the f32 values that the other backends see; what comes after is f64, until the trained weights are rounded
//! once.

use crate::backend::ops::optimizer::{ReferenceMoments, reference_step};
use crate::backend::ops::select::Keep;
use crate::backend::{SaeGroup, Watch};
use crate::hidden::{HiddenBatch, SaeSource};
use crate::random::Stream;
use crate::sae::train::Guard;
use crate::sae::{Penalty, Program, Sae, SaeJob, SaeOutcome, SaeTrace, SaeTrain, Weights};
use crate::toy::TrainingEnd;
use crate::training::{ramp_down, ramp_up};

/// Parameters in the order W_enc, b_enc, W_dec, b_dec; matrices are `[n_latents, d]`.
pub type Tensors = [Vec<f64>; 4];

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

/// Loss, gradients and what led to them.
#[derive(Clone, Debug, Default)]
pub struct Objective {
    /// Mean over the batch of |h - ĥ|².
    pub mse: f64,
    /// Of the penalty on latents.
    pub penalty: f64,
    /// Of the dead latents' reconstruction, scaled as it joins the loss.
    pub auxiliary: f64,
    /// Of each parameter, before projection and clip.
    pub gradients: Tensors,
    /// `[samples, n_latents]`
    pub latents: Vec<f64>,
    /// `[samples, d]`
    pub reconstruction: Vec<f64>,
}

impl Objective {
    /// The loss.
    pub fn loss(&self) -> f64 {
        self.mse + self.penalty + self.auxiliary
    }

    /// Mean number of latents with z > 0.
    pub fn l0(&self, samples: usize) -> f64 {
        self.latents.iter().filter(|&&z| z > 0.0).count() as f64 / samples as f64
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The `k` candidates of greatest key, ties to the lower one, ascending.
fn greatest(candidates: &[usize], key: impl Fn(usize) -> f64, k: usize) -> Vec<usize> {
    let mut order = candidates.to_vec();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
    order.truncate(k);
    order.sort_unstable();
    order
}

impl ReferenceSae {
    /// These weights in f64.
    pub fn new(weights: &Weights, program: Program) -> ReferenceSae {
        let wide = |w: &[f32]| w.iter().map(|&w| w as f64).collect();
        let parameters = [wide(&weights.w_enc), wide(&weights.b_enc), wide(&weights.w_dec), wide(&weights.b_dec)];
        ReferenceSae { program, n_latents: weights.n_latents, d: weights.d_hidden, parameters }
    }

    /// The parameters, rounded once.
    pub fn weights(&self) -> Weights {
        let [w_enc, b_enc, w_dec, b_dec] = self.parameters.each_ref().map(|p| p.iter().map(|&p| p as f32).collect());
        Weights { n_latents: self.n_latents, d_hidden: self.d, w_enc, b_enc, w_dec, b_dec }
    }

    fn decoder(&self, latent: usize) -> &[f64] {
        &self.parameters[2][latent * self.d..][..self.d]
    }

    fn decoder_norm(&self, latent: usize) -> f64 {
        dot(self.decoder(latent), self.decoder(latent)).sqrt()
    }

    /// pre of one sample, `[n_latents]`.
    fn encode(&self, h: &[f64]) -> Vec<f64> {
        let [w_enc, b_enc, _, b_dec] = &self.parameters;
        let centred: Vec<f64> = h.iter().zip(b_dec).map(|(h, b)| h - b).collect();
        w_enc.chunks_exact(self.d).zip(b_enc).map(|(w, b)| dot(w, &centred) + b).collect()
    }

    /// Latents that the program keeps of one sample, all with pre > 0.
    fn kept(&self, pre: &[f64]) -> Vec<usize> {
        let all: Vec<usize> = (0..self.n_latents).collect();
        let chosen = match self.program.keep {
            Keep::Top(k) => greatest(&all, |j| pre[j] * self.decoder_norm(j), k),
            Keep::Positive | Keep::All => all,
        };
        chosen.into_iter().filter(|&j| pre[j] > 0.0).collect()
    }

    /// Dead latents that reconstruct the residual of one sample.
    fn kept_dead(&self, pre: &[f64], dead: &[bool]) -> Vec<usize> {
        let candidates: Vec<usize> = (0..self.n_latents).filter(|&j| dead[j]).collect();
        greatest(&candidates, |j| pre[j] * self.decoder_norm(j), self.program.aux_k)
    }

    /// Loss and gradients on h `[samples, d]` with these dead latents.
    ///
    /// `held`, `[samples, d]`, takes the place of the residual h - ĥ in the auxiliary loss. Gradients treat that residual
    /// as a constant in any case; central differences need it to be one.
    pub fn objective(&self, h: &[f64], dead: &[bool], held: Option<&[f64]>) -> Objective {
        let (m, d, n) = (self.n_latents, self.d, h.len() / self.d);
        let mut out =
            Objective { gradients: self.parameters.each_ref().map(|p| vec![0.0; p.len()]), ..Default::default() };
        let n_dead = dead.iter().filter(|&&dead| dead).count();
        let with_dead = self.program.aux_k > 0 && n_dead > 0;
        let aux_scale = if with_dead { (n_dead as f64 / self.program.aux_k as f64).min(1.0) } else { 0.0 };
        for (s, h) in h.chunks_exact(d).enumerate() {
            let pre = self.encode(h);
            let kept = self.kept(&pre);
            let mut latents = vec![0.0; m];
            let mut reconstruction = self.parameters[3].clone();
            for &j in &kept {
                latents[j] = pre[j];
                (0..d).for_each(|k| reconstruction[k] += pre[j] * self.decoder(j)[k]);
            }
            let residual: Vec<f64> = (0..d).map(|k| h[k] - reconstruction[k]).collect();
            out.mse += dot(&residual, &residual) / n as f64;
            let g: Vec<f64> = residual.iter().map(|r| -2.0 * r / n as f64).collect();
            (0..d).for_each(|k| out.gradients[3][k] += g[k]);
            for &j in &kept {
                let (price, pull) = self.price(j);
                out.penalty += price * pre[j] / n as f64;
                let dz = dot(&g, self.decoder(j)) + price / n as f64;
                let pulled: Vec<f64> = (0..d).map(|k| g[k] + pull * self.decoder(j)[k] / n as f64).collect();
                self.back(j, pre[j], dz, &pulled, h, &mut out.gradients);
            }
            if with_dead {
                let target = held.map_or(&residual[..], |held| &held[s * d..][..d]);
                let chosen = self.kept_dead(&pre, dead);
                let mut error: Vec<f64> = target.iter().map(|t| -t).collect();
                for &j in &chosen {
                    (0..d).for_each(|k| error[k] += pre[j] * self.decoder(j)[k]);
                }
                out.auxiliary += aux_scale * dot(&error, &error) / n as f64;
                let g: Vec<f64> = error.iter().map(|e| 2.0 * aux_scale * e / n as f64).collect();
                for &j in &chosen {
                    self.back(j, pre[j], dot(&g, self.decoder(j)), &g, h, &mut out.gradients);
                }
            }
            out.latents.extend(latents);
            out.reconstruction.extend(reconstruction);
        }
        out
    }

    /// Derivative of a sample's penalty by z_j, and what z_j times it gives the decoder row, over the row.
    fn price(&self, latent: usize) -> (f64, f64) {
        match self.program.penalty {
            Penalty::None => (0.0, 0.0),
            Penalty::L1 { coefficient, by_norm: false } => (coefficient, 0.0),
            Penalty::L1 { coefficient, by_norm: true } => {
                let norm = self.decoder_norm(latent);
                (coefficient * norm, if norm > 0.0 { coefficient / norm } else { 0.0 })
            }
        }
    }

    /// Adds what one kept latent of one sample gives: `dz` at its pre, z `g` at its decoder row.
    fn back(&self, j: usize, z: f64, dz: f64, g: &[f64], h: &[f64], gradients: &mut Tensors) {
        let d = self.d;
        let [d_w_enc, d_b_enc, d_w_dec, d_b_dec] = gradients;
        d_b_enc[j] += dz;
        for k in 0..d {
            d_w_dec[j * d + k] += z * g[k];
            d_w_enc[j * d + k] += dz * (h[k] - self.parameters[3][k]);
            d_b_dec[k] -= dz * self.parameters[0][j * d + k];
        }
    }

    /// Takes out of each decoder row's gradient its part along the row.
    pub fn project(&self, gradients: &mut Tensors) {
        for (j, row) in gradients[2].chunks_exact_mut(self.d).enumerate() {
            let along = dot(row, self.decoder(j));
            row.iter_mut().zip(self.decoder(j)).for_each(|(g, w)| *g -= along * w);
        }
    }

    /// Projects, clips, and moves the parameters; then unit rows are made unit again.
    pub fn update(
        &mut self,
        train: &SaeTrain,
        step: usize,
        mut gradients: Tensors,
        moments: &mut [ReferenceMoments; 4],
    ) {
        if self.program.unit_decoder {
            self.project(&mut gradients);
        }
        let norm = gradients.iter().map(|g| dot(g, g)).sum::<f64>().sqrt();
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let lr = train.lr
            * train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        for ((parameters, gradient), moments) in self.parameters.iter_mut().zip(gradients).zip(moments) {
            let gradient: Vec<f64> = gradient.iter().map(|g| g * clip).collect();
            reference_step(train.optimizer, lr, train.weight_decay, step, parameters, &gradient, moments);
        }
        if self.program.unit_decoder {
            for row in self.parameters[2].chunks_exact_mut(self.d) {
                let norm = dot(row, row).sqrt();
                row.iter_mut().for_each(|w| *w /= if norm > 0.0 { norm } else { 1.0 });
            }
        }
    }

    /// Zero moments of all parameters.
    pub fn moments(&self) -> [ReferenceMoments; 4] {
        self.parameters.each_ref().map(|p| ReferenceMoments::new(p.len()))
    }

    fn broken_tensor(&self) -> Option<&'static str> {
        let broken = self.parameters.iter().position(|p| p.iter().any(|x| !x.is_finite()));
        broken.map(|i| ["W_enc", "b_enc", "W_dec", "b_dec"][i])
    }
}

/// As [`crate::backend::cpu::sae::train`].
pub fn train(groups: &[SaeGroup], watch: &dyn Watch) -> Vec<Vec<Option<SaeOutcome>>> {
    let trained = |group: &SaeGroup| group.saes.iter().map(|job| train_one(&group.source, job, watch)).collect();
    groups.iter().map(trained).collect()
}

fn train_one(source: &SaeSource, job: &SaeJob, watch: &dyn Watch) -> Option<SaeOutcome> {
    let (program, train, d) = (job.architecture.program(), &job.train, source.d_hidden());
    let stream = source.open(Stream::Train);
    let scale = train.normalise.scale(&stream, train.batch_size);
    let mut sae = ReferenceSae::new(&Weights::init(job.seed, job.n_latents, d, &program), program);
    let mut moments = sae.moments();
    let mut since_fired = vec![0; job.n_latents];
    let (mut batch, mut guard) = (HiddenBatch::default(), Guard::default());
    let (mut trace, mut end) = (vec![], TrainingEnd::Finished);
    for step in 0..train.steps {
        if watch.stop() {
            return None;
        }
        stream.draw_hidden(step as u32, train.batch_size, &mut batch);
        // The product is rounded to f32, as the other backends round it when they pack the batch.
        let h: Vec<f64> = batch.h.iter().map(|&h| (h * scale as f32) as f64).collect();
        let dead: Vec<bool> = since_fired.iter().map(|&since| since > train.dead_after).collect();
        let objective = sae.objective(&h, &dead, None);
        let diverged = guard.look(step, objective.loss(), objective.mse);
        if job.logs(step) && diverged.is_none() {
            trace.push(SaeTrace { step, loss: objective.loss(), l0: objective.l0(train.batch_size) });
        }
        let diverged = diverged.or_else(|| {
            for (j, since) in since_fired.iter_mut().enumerate() {
                let fired = objective.latents.iter().skip(j).step_by(job.n_latents).any(|&z| z > 0.0);
                *since = if fired { 0 } else { *since + 1 };
            }
            sae.update(train, step, objective.gradients, &mut moments);
            sae.broken_tensor().map(|tensor| guard.diverged(step, tensor))
        });
        watch.advance(if diverged.is_some() { train.steps - step } else { 1 } as u64);
        if let Some(diverged) = diverged {
            end = diverged;
            break;
        }
    }
    let mut weights = sae.weights();
    weights.fold_scale(scale);
    Some(SaeOutcome { coder: Box::new(Sae::new(weights, program.keep)), end, trace })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use crate::sae::golden::Golden;
    use crate::sae::{Architecture, DecoderRule};

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
            for clip in [None, Some(1.0)] {
                let mut sae = ReferenceSae::new(&golden.weights, golden.architecture.program());
                let mut moments = sae.moments();
                for step in 0..10 {
                    let objective = sae.objective(&wide(&golden.x), &golden.dead, None);
                    sae.update(&Golden::train(clip), step, objective.gradients, &mut moments);
                }
                for (found, expected) in sae.parameters.iter().zip(golden.after_ten(clip)) {
                    assert_near(found, &expected, 1e-11, &format!("{:?}, clip {clip:?}", golden.architecture));
                }
            }
        }
    }

    /// Step 1e-6: the third derivative leaves 1e-12 of its size, rounding of a loss of about 10 leaves 1e-9.
    /// Where a ReLU or a selection switches within the step the difference is of the size of a term; seeds are fixed,
    /// and none does.
    #[test]
    fn gradients_are_central_differences_with_what_is_held_constant_held() {
        let relu = |decoder| Architecture::Relu { l1: 0.3, decoder };
        let topk = |k, aux_k| Architecture::TopK { k, aux_k };
        let architectures = [
            relu(DecoderRule::UnitNorm),
            relu(DecoderRule::NormPenalty),
            topk(1, 0),
            topk(3, 2),
            topk(2, 8),
            topk(7, 3),
        ];
        for (i, architecture) in architectures.into_iter().enumerate() {
            let (m, d, n) = (7, 4, 5);
            let mut draws = Draws::new(31, Stream::SaeInit, i as u64);
            let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
            let (w_enc, b_enc, w_dec) = (normals(m * d), normals(m), normals(m * d));
            let weights = Weights { n_latents: m, d_hidden: d, w_enc, b_enc, w_dec, b_dec: normals(d) };
            let (h, sae) = (wide(&normals(n * d)), ReferenceSae::new(&weights, architecture.program()));
            let dead: Vec<bool> = (0..m).map(|j| j % 2 == 1).collect();
            let base = sae.objective(&h, &dead, None);
            let residual: Vec<f64> = h.iter().zip(&base.reconstruction).map(|(h, r)| h - r).collect();
            for tensor in 0..4 {
                for at in 0..sae.parameters[tensor].len() {
                    let moved = |by: f64| {
                        let mut moved = sae.clone();
                        moved.parameters[tensor][at] += by;
                        moved.objective(&h, &dead, Some(&residual)).loss()
                    };
                    let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                    let found = base.gradients[tensor][at];
                    assert!((slope - found).abs() < 1e-7, "{architecture:?}, {tensor}, {at}: {slope} {found}");
                }
            }
        }
    }
}
