//! The toy model, what trains it, and what comes out.

use std::sync::Arc;

use crate::data::World;
use crate::training::{Optimizer, Schedule};

/// x' from h = W x (Elhage et al. 2022, "Demonstrating superposition").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToyKind {
    /// x' = Wᵀ h + b.
    Linear,
    /// x' = ReLU(Wᵀ h + b).
    ReluOutput,
}

/// Weights of a toy model.
#[derive(Clone, Debug, PartialEq)]
pub struct ToyModel {
    pub kind: ToyKind,
    pub n_features: usize,
    pub d_hidden: usize,
    /// `[n_features, d_hidden]`: row i is the column W_i of W, the direction of feature i.
    pub w: Vec<f32>,
    /// `[n_features]`
    pub b: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ToyInit {
    /// Normal with standard deviation sqrt(2 / (n_features + d_hidden)); biases 0.
    Xavier,
    /// Normal with this standard deviation; biases 0.
    Normal(f64),
}

impl ToyModel {
    /// All that is trained as one vector: the parts of its [`Shape`](crate::backend::ops::toy_step::Shape) in order.
    pub fn parameters(&self) -> Vec<f32> {
        [&self.w[..], &self.b].concat()
    }

    /// A model of the shape of this one with these parameters.
    pub fn with_parameters(&self, parameters: &[f32]) -> ToyModel {
        let (w, b) = parameters.split_at(self.w.len());
        assert_eq!(b.len(), self.b.len());
        ToyModel { w: w.to_vec(), b: b.to_vec(), ..*self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossScale {
    /// Mean over batch and features of I_i (x_i - x'_i)².
    Mean,
    /// The same over the mean firing probability, so that Adam's epsilon does not rule sparse worlds.
    PerDensity,
    /// Mean over the batch of the sum over features.
    Sum,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToyTrain {
    pub steps: usize,
    pub batch_size: usize,
    pub optimizer: Optimizer,
    pub lr: f64,
    pub schedule: Schedule,
    pub weight_decay: f64,
    pub loss_scale: LossScale,
}

/// One toy model to train (with its restarts).
#[derive(Clone, Debug)]
pub struct ToyJob {
    pub world: Arc<World>,
    pub seed: u64,
    pub kind: ToyKind,
    pub d_hidden: usize,
    /// I_i, `[n_features]`
    pub importance: Vec<f32>,
    pub init: ToyInit,
    /// Models trained from different initial weights on the same data; [`choose_restart`](super::train::choose_restart) says
    /// which stays.
    pub restarts: usize,
    pub train: ToyTrain,
    /// Log the training loss every so many steps; 0 never.
    pub trace_every: usize,
    /// Whether logged steps also keep the parameters.
    pub snapshots: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TrainingEnd {
    Finished,
    /// The loss or a weight stopped being finite, or the loss exceeded its guard: noticed after `step` finished steps;
    /// `last_loss` is the last loss that was still in order (0 if none was); `tensor` is what was not, `w`, `b` or `loss`.
    Diverged {
        step: usize,
        last_loss: f64,
        tensor: &'static str,
    },
}

/// A logged step: mean training loss of that batch, importance-weighted as trained but without `loss_scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct ToyTrace {
    pub step: usize,
    pub loss: f64,
    /// The model that had this loss, where the job asks for snapshots: as [`ToyModel::parameters`].
    pub parameters: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
pub struct ToyOutcome {
    /// As it was when training ended; where it diverged, weights need not be finite.
    pub model: ToyModel,
    /// Which restart was kept, from 0.
    pub restart: usize,
    pub end: TrainingEnd,
    pub trace: Vec<ToyTrace>,
}
