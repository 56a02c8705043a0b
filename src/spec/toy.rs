//! The `toy` section: the model that makes hidden states.

use super::curve::Curve;
use super::kind::{Beta, Count, NonNegative, Number, Positive, Samples, Share, Steps, Width, choice, record};
use super::node::Node;

record! {
    /// A toy model, trained to reconstruct x through d_hidden dimensions.
    pub struct ToySection as "toy" {
        /// What makes h of x, and x' (or what else is computed) of h.
        model: ModelSection as ModelSection = "relu_output",
        /// Width of h.
        d_hidden: usize as Width = required "20",
        /// Weight of each feature in the loss, of a quadratic model in its target: a number, a list or a curve.
        importance: Curve as Curve = "1",
        /// Initial weights.
        init: InitSection as InitSection = "xavier",
        /// Models trained from different starts; the one of lowest loss is kept: on common fresh samples, or
        /// on the training set where that is finite.
        restarts: usize as Count = "1",
        /// How it is trained.
        train: ToyTrainSection as ToyTrainSection = "{}",
    }
}

choice! {
    /// Toy model.
    pub enum ModelSection as "model" {
        /// x' = transpose(W) W x + b.
        linear => Linear,
        /// x' = ReLU(transpose(W) W x + b).
        relu_output => ReluOutput,
        /// h = ReLU(W x), x' = ReLU(transpose(W) h + b): neurons, and so a privileged basis.
        relu_hidden => ReluHidden,
        /// |x| from ReLU(V h + b), h = ReLU(W x): computing in superposition; needs magnitudes of both signs.
        absolute_value => AbsoluteValue,
        /// x' = V h, h = activation(W E x + c), E a fixed embedding of the features (Jermyn et al. 2022).
        mlp => Mlp(MlpSection as MlpSection),
        /// One output, sum of importance_i x_i^2 from |W x|^2 + b (after Scherlis et al. 2022).
        quadratic => Quadratic,
    }
}

record! {
    /// One hidden layer on embedded features.
    pub struct MlpSection as "mlp" {
        /// Dimensions that the features are embedded in, by random unit directions that are not trained.
        d_embedding: usize as Width = "64",
        /// What a neuron makes of its input.
        activation: ActivationSection as ActivationSection = "relu",
        /// Hidden bias before the first step.
        bias: f64 as Number = "0",
        /// In the first half of the steps the hidden bias shrinks by this times the learning rate, each step.
        bias_decay: f64 as NonNegative = "0",
    }
}

choice! {
    /// Activation of a neuron.
    pub enum ActivationSection as "activation" {
        /// max(z, 0).
        relu => Relu,
        /// z times the normal distribution function at z.
        gelu => Gelu,
    }
}

choice! {
    /// Initial weights of a toy model, every weight tensor alike; biases start at 0, but the hidden bias of an mlp.
    pub enum InitSection as "init" {
        /// Normal with standard deviation sqrt(2 / (n_features + d_hidden)); first weights of an mlp: d_embedding for n_features.
        xavier => Xavier,
        /// Normal with this standard deviation.
        normal => Normal(f64 as Positive),
    }
}

record! {
    /// Training of a toy model.
    pub struct ToyTrainSection as "toy.train" {
        /// Optimiser steps.
        steps: usize as Steps = "10000",
        /// Samples per step: fresh ones, or of a finite set the next so many in an order shuffled every epoch.
        batch_size: BatchSizeSection as BatchSizeSection = "1024",
        /// Optimiser.
        optimizer: OptimizerSection as OptimizerSection = "adam",
        /// Learning rate at its peak.
        lr: f64 as Positive = "1e-3",
        /// Course of the learning rate.
        schedule: ScheduleSection as ScheduleSection = "constant",
        /// Weight decay: added to the gradient for adam and sgd, apart from it for adamw.
        weight_decay: f64 as NonNegative = "0",
        /// Scale of the loss.
        loss_scale: LossScaleSection as LossScaleSection = "mean",
    }
}

choice! {
    /// Samples per step.
    pub enum BatchSizeSection as "batch_size" {
        [number => Fixed(usize as Samples)]
        /// The whole of `data.dataset` at every step; so are numbers not below its samples.
        full => Full,
    }
}

choice! {
    /// Scale of the toy loss.
    pub enum LossScaleSection as "loss_scale" {
        /// Mean over batch and features.
        mean => Mean,
        /// The mean divided by the mean firing probability.
        per_density => PerDensity,
        /// Mean over the batch of the sum over features.
        sum => Sum,
    }
}

choice! {
    /// Optimiser, alone or with settings.
    pub enum OptimizerSection as "optimizer" {
        /// Adam (Kingma & Ba 2015).
        adam => Adam(AdamSection as AdamSection),
        /// Adam with decoupled weight decay (Loshchilov & Hutter 2019).
        adamw => AdamW(AdamSection as AdamSection),
        /// Stochastic gradient descent.
        sgd => Sgd(SgdSection as SgdSection),
    }
}

record! {
    /// Settings of Adam.
    pub struct AdamSection as "adam" {
        /// Decay of the first moment.
        beta1: f64 as Beta = "0.9",
        /// Decay of the second moment.
        beta2: f64 as Beta = "0.999",
        /// Added to the root of the second moment.
        epsilon: f64 as Positive = "1e-8",
    }
}

record! {
    /// Settings of SGD.
    pub struct SgdSection as "sgd" {
        /// Momentum; 0 is plain descent.
        momentum: f64 as Beta = "0",
    }
}

choice! {
    /// Course of the learning rate.
    pub enum ScheduleSection as "schedule" {
        /// Always the peak.
        constant => Constant,
        /// Linear from the peak to 0.
        linear => Linear,
        /// Half a cosine from the peak to 0.
        cosine => Cosine,
        /// Rises linearly over the first share of the steps, then falls to 0 as half a cosine.
        warmup_cosine => WarmupCosine(f64 as Share),
        /// [a, b]: rises over the first share a of the steps, falls to 0 over the last share b.
        warmup_stable_decay => WarmupStableDecay([f64; 2] as Shares),
    }
}

/// Two shares of the steps.
#[derive(Debug)]
pub struct Shares;

impl super::kind::Kind for Shares {
    type Out = [f64; 2];
    fn read(node: &Node, reader: &mut super::kind::Reader) -> Option<[f64; 2]> {
        match super::kind::ListOf::<Share>::read(node, reader)?[..] {
            [a, b] if a + b <= 1.0 => Some([a, b]),
            _ => reader.expected(node, "two shares [warm-up, decay] that sum to 1 at most", None),
        }
    }
    fn shape() -> super::kind::Shape {
        super::kind::Shape::Pair(Box::new(<Share as super::kind::Kind>::shape()))
    }
    fn canonical(out: &[f64; 2]) -> serde_json::Value {
        serde_json::json!(out)
    }
}
