//! What every backend shares in training an autoencoder: the scale of its inputs, what it logs, and when it has diverged.

use super::{Normalise, SaeJob};
use crate::backend::checkpoint::record;
use crate::hidden::{HiddenBatch, SaeStream};
use crate::toy::TrainingEnd;

/// Training batches whose mean norm sets the scale of the inputs under [`Normalise::MeanNorm`]: the first ones of the
/// training stream, in the size of the job's own batches.
const NORM_BATCHES: u32 = 64;

impl Normalise {
    /// The factor of the inputs: 1, or sqrt(d_hidden) over their mean norm in the first batches (1 again where all are 0).
    pub fn scale(self, stream: &SaeStream, batch_size: usize) -> f64 {
        match self {
            Normalise::None => 1.0,
            Normalise::MeanNorm => {
                let (mut batch, mut total) = (HiddenBatch::default(), 0.0);
                for step in 0..NORM_BATCHES {
                    stream.draw_hidden(step, batch_size, &mut batch);
                    total += batch.h.chunks_exact(batch.d_hidden).map(norm).sum::<f64>();
                }
                let mean = total / (NORM_BATCHES as usize * batch_size) as f64;
                if mean > 0.0 { (batch.d_hidden as f64).sqrt() / mean } else { 1.0 }
            }
        }
    }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt()
}

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
