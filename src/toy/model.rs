//! The toy model, what trains it, and what comes out.

use std::borrow::Cow;
use std::sync::Arc;

use super::embedding::embedding;
use crate::backend::ops::toy_step::Shape;
use crate::data::World;
use crate::training::{Optimizer, Schedule};

/// What a toy model computes and is trained to compute. h is what an autoencoder sees; I is the importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToyKind {
    /// h = W x, x' = Wᵀ h + b (Elhage et al. 2022, "Demonstrating superposition").
    Linear,
    /// h = W x, x' = ReLU(Wᵀ h + b).
    ReluOutput,
    /// h = ReLU(W x), x' = ReLU(Wᵀ h + b) (Elhage et al. 2022, "Superposition in a privileged basis").
    ReluHidden,
    /// h = ReLU(W x), y' = ReLU(V h + b), trained on |x| (Elhage et al. 2022, "Computing in superposition").
    AbsoluteValue,
    /// h = act(W E x + c), x' = V h, E fixed (Jermyn, Schiefer & Hubinger 2022).
    Mlp(Mlp),
    /// h = W x, one output y' = ‖h‖² + b, trained on Σ_i I_i x_i² (after Scherlis et al. 2022).
    Quadratic,
}

/// What an [`Mlp`](ToyKind::Mlp) is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mlp {
    /// Dimensions that the features are embedded in.
    pub d_embedding: usize,
    /// What its neurons do.
    pub activation: Activation,
    /// Hidden bias before the first step.
    pub bias: f32,
    /// In the first half of the steps the hidden bias shrinks by this times the learning rate, each step.
    pub bias_decay: f32,
    /// Seed of the [embedding](super::embedding).
    pub seed: u64,
}

/// The numbers of a spec are finite, so equality is reflexive.
impl Eq for Mlp {}

/// From pre-activation to h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Identity,
    Relu,
    /// z Φ(z).
    Gelu,
}

impl ToyKind {
    /// What the hidden layer does. Where it is not the identity, dimensions of h are neurons.
    pub fn activation(self) -> Activation {
        match self {
            ToyKind::Linear | ToyKind::ReluOutput | ToyKind::Quadratic => Activation::Identity,
            ToyKind::ReluHidden | ToyKind::AbsoluteValue => Activation::Relu,
            ToyKind::Mlp(mlp) => mlp.activation,
        }
    }

    /// Whether outputs go through a ReLU.
    pub fn relu_output(self) -> bool {
        matches!(self, ToyKind::ReluOutput | ToyKind::ReluHidden | ToyKind::AbsoluteValue)
    }
}

/// Weights of a toy model. What a kind does not have is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct ToyModel {
    pub kind: ToyKind,
    pub n_features: usize,
    pub d_hidden: usize,
    /// `[n_features, d_hidden]`: row i is the column W_i of W, the direction of feature i. Of an `mlp`
    /// `[d_embedding, d_hidden]`, and the direction of feature i is W E_i: see [`ToyModel::directions`].
    pub w: Vec<f32>,
    /// Hidden bias, `[d_hidden]`: `mlp`.
    pub c: Vec<f32>,
    /// Output weights, `[n_features, d_hidden]`, row i those of output i: `absolute_value` and `mlp`.
    pub v: Vec<f32>,
    /// Output bias: `[n_features]`, of `quadratic` one number; `mlp` has none.
    pub b: Vec<f32>,
}

impl ToyModel {
    /// What kernels have to know of it.
    pub fn shape(&self) -> Shape {
        Shape { kind: self.kind, n_features: self.n_features, d_hidden: self.d_hidden }
    }

    /// All that is trained as one vector: the parts of its [`Shape`] in order.
    pub fn parameters(&self) -> Vec<f32> {
        [&self.w[..], &self.c, &self.v, &self.b].concat()
    }

    /// A model of this shape with these parameters.
    ///
    /// # Panics
    /// If they are not as many as the shape says.
    pub fn from_parameters(shape: Shape, parameters: &[f32]) -> ToyModel {
        let mut rest = parameters;
        let [w, c, v, b] = shape.parts().map(|(_, length)| {
            let part = rest.split_off(..length);
            part.expect("parameters are as long as their parts").to_vec()
        });
        assert!(rest.is_empty(), "parameters are no longer than their parts");
        let Shape { kind, n_features, d_hidden } = shape;
        ToyModel { kind, n_features, d_hidden, w, c, v, b }
    }

    /// A model of the shape of this one with these parameters.
    pub fn with_parameters(&self, parameters: &[f32]) -> ToyModel {
        ToyModel::from_parameters(self.shape(), parameters)
    }

    /// Directions of the features in hidden space, before the activation, `[n_features, d_hidden]`: W_i, or W E_i.
    pub fn directions(&self) -> Cow<'_, [f32]> {
        let ToyKind::Mlp(Mlp { d_embedding, seed, .. }) = self.kind else { return Cow::Borrowed(&self.w) };
        let mut directions = Vec::with_capacity(self.n_features * self.d_hidden);
        for e in embedding(self.n_features, d_embedding, seed).chunks_exact(d_embedding) {
            let along = |k: usize| {
                let column = self.w.iter().skip(k).step_by(self.d_hidden);
                e.iter().zip(column).map(|(e, w)| *e as f64 * *w as f64).sum::<f64>() as f32
            };
            directions.extend((0..self.d_hidden).map(along));
        }
        Cow::Owned(directions)
    }

    /// Every tensor there is with its shape, by the name it is exported under; of an `mlp` the fixed `embedding`
    /// `[n_features, d_embedding]` too.
    pub fn tensors(&self) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        let d = self.d_hidden;
        let all = [
            ("w", vec![self.w.len() / d, d], &self.w),
            ("c", vec![self.c.len()], &self.c),
            ("v", vec![self.v.len() / d, d], &self.v),
            ("b", vec![self.b.len()], &self.b),
        ];
        let present = all.into_iter().filter(|(_, _, values)| !values.is_empty());
        let mut tensors: Vec<_> = present.map(|(name, shape, values)| (name, shape, values.clone())).collect();
        if let ToyKind::Mlp(Mlp { d_embedding, seed, .. }) = self.kind {
            let shape = vec![self.n_features, d_embedding];
            tensors.push(("embedding", shape, embedding(self.n_features, d_embedding, seed)));
        }
        tensors
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ToyInit {
    /// Every weight tensor normal with standard deviation sqrt(2 / (its two widths)): n_features + d_hidden, of the first
    /// weights of an `mlp` d_embedding + d_hidden. Biases 0, but the hidden bias of an `mlp` as its kind says.
    Xavier,
    /// Every weight tensor normal with this standard deviation; biases as above.
    Normal(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossScale {
    /// Mean over batch and features of I_i (x_i - x'_i)².
    Mean,
    /// The same over the mean firing probability, so that Adam's epsilon does not rule sparse worlds.
    PerDensity,
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
    /// I_i, `[n_features]`; of a [`ToyKind::Quadratic`] the weights of its target.
    pub importance: Vec<f32>,
    pub init: ToyInit,
    /// Models trained from different initial weights on the same data; the one of least loss on common fresh samples stays.
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
    /// `last_loss` is the last loss that was still in order (0 if none was); `tensor` is what was not, `w`, `c`, `v`, `b` or
    /// `loss`.
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
