//! What every backend shares in training an autoencoder: what it logs, and when it has diverged.

use super::SaeJob;
use crate::backend::checkpoint::record;
use crate::toy::TrainingEnd;

impl SaeJob {
    /// Whether the loss of `step` belongs in the trace: the first step, every `trace_every`-th and the last.
    pub fn logs(&self, step: usize) -> bool {
        self.trace_every > 0 && (step.is_multiple_of(self.trace_every) || step + 1 == self.train.steps)
    }

    /// How much work it is, in units of no meaning: for putting jobs in order.
    pub fn cost(&self) -> f64 {
        self.train.steps as f64 * self.train.batch_size as f64 * self.n_latents as f64
    }
}

/// Watches a training for divergence: a loss that is not finite, or a mean squared error that exceeds 1e6 times that of
/// the first step plus 1e3. It looks at every step; weights are looked at where they are moved.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    first: Option<f64>,
    last: f64,
}

record!(Guard { first, last });

impl Guard {
    /// The end of the training if the loss of `step`, taken before its update, is wrong.
    pub fn look(&mut self, step: usize, loss: f64, mse: f64) -> Option<TrainingEnd> {
        let first = *self.first.get_or_insert(mse);
        if loss.is_finite() && mse <= 1e6 * first + 1e3 {
            self.last = loss;
            return None;
        }
        Some(self.diverged(step, "loss"))
    }

    /// The end of a training in which `tensor` is no longer finite after `step`.
    pub fn diverged(&self, step: usize, tensor: &'static str) -> TrainingEnd {
        TrainingEnd::Diverged { step, last_loss: self.last, tensor }
    }
}
