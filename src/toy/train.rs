//! What every backend shares in training a toy model: where it starts, what its loss weighs, when it has diverged, and
//! which restart stays.

use super::model::{LossScale, ToyInit, ToyJob, ToyModel, ToyOutcome, TrainingEnd};
use crate::backend::ops::toy_loss::ToyLoss;
use crate::backend::ops::toy_step::Shape;
use crate::backend::simd::Isa;
use crate::data::{Batch, Sampler};
use crate::random::{Draws, Stream};

impl ToyJob {
    pub fn shape(&self) -> Shape {
        Shape { kind: self.kind, n_features: self.world.n_features, d_hidden: self.d_hidden }
    }

    /// The model before the first step. Weights are the words of [`Stream::ToyInit`] whose part is the restart's
    /// number, in the order of `w`; so restart r starts the same in every job of one seed and shape, whatever else they
    /// differ in.
    pub fn initial_model(&self, restart: usize) -> ToyModel {
        let Shape { kind, n_features, d_hidden } = self.shape();
        let std = match self.init {
            ToyInit::Xavier => (2.0 / (n_features + d_hidden) as f64).sqrt(),
            ToyInit::Normal(std) => std,
        };
        let mut draws = Draws::new(self.seed, Stream::ToyInit, restart as u64);
        let w = (0..n_features * d_hidden).map(|_| (std * draws.normal()) as f32).collect();
        ToyModel { kind, n_features, d_hidden, w, b: vec![0.0; n_features] }
    }

    /// What the loss is multiplied by before it is differentiated: 1, or 1 over the mean firing probability (1 again where
    /// nothing ever fires).
    pub fn loss_factor(&self) -> f64 {
        match self.train.loss_scale {
            LossScale::Mean => 1.0,
            LossScale::PerDensity => {
                let p = self.world.marginal_probability();
                let mean = p.iter().sum::<f64>() / p.len() as f64;
                if mean > 0.0 { 1.0 / mean } else { 1.0 }
            }
        }
    }

    /// c_i = 2 I_i `loss_factor` / (batch_size n_features), so that dL/dx'_i = c_i (x'_i - x_i), `[n_features]`.
    ///
    /// Below 1e-20 it is 0: a curve of importance that falls so far would fill the gradient with denormal numbers, which
    /// make the same step ten times slower and move no weight.
    pub fn slopes(&self) -> Vec<f32> {
        let factor = 2.0 * self.loss_factor() / (self.train.batch_size * self.world.n_features) as f64;
        let slope = |importance: &f32| (*importance as f64 * factor) as f32;
        self.importance.iter().map(slope).map(|c| if c.abs() < 1e-20 { 0.0 } else { c }).collect()
    }

    /// Whether the loss of `step` belongs in the trace: the first step, every `trace_every`-th and the last.
    pub fn logs(&self, step: usize) -> bool {
        self.trace_every > 0 && (step.is_multiple_of(self.trace_every) || step + 1 == self.train.steps)
    }
}

/// Watches a training for divergence: a loss that is not finite or exceeds 1e6 times the loss of the first step plus 1e3,
/// or a weight that is not finite.
///
/// It looks at every 64th step, at the last, and once more at the weights that come out. When it looks depends on
/// nothing else, so the step it reports is the same everywhere.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    first: Option<f64>,
    last: f64,
}

impl Guard {
    /// Whether the loss of `step` is looked at.
    pub fn looks(step: usize, steps: usize) -> bool {
        step.is_multiple_of(64) || step + 1 == steps
    }

    /// The end of the training if something is wrong after `step` steps. `loss` is that of the next batch, without
    /// `loss_factor`; none after the last step.
    pub fn look(&mut self, step: usize, loss: Option<f64>, w: &[f32], b: &[f32]) -> Option<TrainingEnd> {
        let finite = |v: &[f32]| v.iter().all(|v| v.is_finite());
        let tensor = if !finite(w) {
            "w"
        } else if !finite(b) {
            "b"
        } else {
            let loss = loss.unwrap_or(self.last);
            let first = *self.first.get_or_insert(loss);
            if loss.is_finite() && loss <= 1e6 * first + 1e3 {
                self.last = loss;
                return None;
            }
            "loss"
        };
        Some(TrainingEnd::Diverged { step, last_loss: self.last, tensor })
    }
}

/// Samples on which restarts are compared.
const SELECT_SAMPLES: usize = 65_536;
const SELECT_BATCH: usize = 1024;

/// The restart of least importance-weighted loss on common fresh samples ([`Stream::Select`]); of equal ones the first.
/// Restarts that diverged count only where all did: then the first stays.
pub fn choose_restart(isa: Isa, job: &ToyJob, mut restarts: Vec<ToyOutcome>) -> ToyOutcome {
    assert!(!restarts.is_empty());
    let sound: Vec<usize> = (0..restarts.len()).filter(|&r| matches!(restarts[r].end, TrainingEnd::Finished)).collect();
    if sound.len() < 2 {
        return restarts.swap_remove(sound.first().copied().unwrap_or(0));
    }
    let mut losses: Vec<ToyLoss> = sound.iter().map(|&r| ToyLoss::new(&restarts[r].model, &job.importance)).collect();
    let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Select);
    let mut batch = Batch::default();
    for step in 0..SELECT_SAMPLES / SELECT_BATCH {
        sampler.draw(step as u32, SELECT_BATCH, &mut batch);
        losses.iter_mut().for_each(|loss| loss.add(isa, &batch));
    }
    let weighted = losses.into_iter().map(|loss| loss.finish().1);
    let best = weighted.zip(sound).min_by(|a, b| a.0.total_cmp(&b.0)).expect("two or more are sound").1;
    restarts.swap_remove(best)
}
