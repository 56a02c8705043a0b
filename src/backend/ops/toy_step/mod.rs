//! Loss and gradient of a toy model on one batch.
//!
//! ```text
//! for each sample:   h = Σ_i x_i W_i          z = Wᵀ h + b        r = out(z) - x
//!                    g = c r out'(z)          dh = Σ_i g_i W_i
//!                    dW_i += g_i h + x_i dh   db += g             loss += c r² / 2
//! ```
//!
//! with out = ReLU or the identity (kinds with a hidden layer of their own: `layers`; the one with a single output: `quadratic`)
//! and c_i = 2 I_i / (samples n_features), times the loss scale: 5 n m fused multiply-adds a sample. Parameters and gradients are flat, W `[n_features, d_hidden]` and then b `[n_features]`, so that
//! one optimiser step moves both.
//!
//! x comes in a [`Form`] that a fixed rule chooses for the shape and the world:
//! - dense: every sample goes through the tile kernels, each sum over samples being sixteen chains (sample s in lane s mod 16)
//!   in order of tiles, folded once;
//! - packed: the same over the samples in which something fires, packed in order into tiles of their own; after the fold
//!   the samples that are silent are added by their closed form ([`silent`]), if there are any. Whoever computes
//!   these sums in another layout gets the same bits by this order;
//! - events: the work follows what fires.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name the entries of a rectangle of sums; an iterator over one of its sides hides which"
)]

pub mod inputs;
mod layers;
mod quadratic;
pub mod reference;
pub mod reference_layers;
mod silent;
mod simd;
mod small;

pub use inputs::{Form, Forms, Inputs};
pub use simd::Scratch;

use crate::backend::simd::Isa;
use crate::data::Batch;
use crate::toy::ToyKind;

/// What the kernels have to know of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The function that makes x' of h.
    pub kind: ToyKind,
    /// At least 1.
    pub n_features: usize,
    /// At least 1.
    pub d_hidden: usize,
}

impl Shape {
    /// The tensors that the flat parameters are made of, in order: name and length, 0 where the kind has none.
    pub fn parts(self) -> [(&'static str, usize); 4] {
        let Shape { kind, n_features: n, d_hidden: m } = self;
        let [w, c, v, b] = match kind {
            ToyKind::Linear | ToyKind::ReluOutput | ToyKind::ReluHidden => [n * m, 0, 0, n],
            ToyKind::AbsoluteValue => [n * m, 0, n * m, n],
            ToyKind::Mlp(mlp) => [mlp.d_embedding * m, m, n * m, 0],
            ToyKind::Quadratic => [n * m, 0, 0, 1],
        };
        [("w", w), ("c", c), ("v", v), ("b", b)]
    }

    /// Length of the slopes of a step.
    pub fn n_slopes(self) -> usize {
        self.n_features + usize::from(self.kind == ToyKind::Quadratic)
    }

    /// Length of the flat parameters.
    pub fn n_parameters(self) -> usize {
        self.parts().iter().map(|part| part.1).sum()
    }
}

/// One gradient, to be computed by [`gradient`].
pub struct ToyStep<'a> {
    /// The model's shape.
    pub shape: Shape,
    /// The parts of the shape in order, `[n_parameters]`.
    pub parameters: &'a [f32],
    /// c_i, `[n_slopes]`: [`ToyJob::slopes`](crate::toy::ToyJob::slopes).
    pub slopes: &'a [f32],
    /// x, drawn at least in the form that is read; lanes past the last sample count nothing.
    pub inputs: &'a Inputs,
    /// Which form of x is read.
    pub form: Form,
    /// Whether the loss is wanted: most steps need none, and the gradient has the same bits without.
    pub with_loss: bool,
}

impl ToyStep<'_> {
    /// The kernels leave out bounds checks on the strength of these.
    fn check(&self, gradient: &[f32]) {
        let Shape { n_features, d_hidden, .. } = self.shape;
        assert!(n_features > 0 && d_hidden > 0);
        let batch = self.tiles().0;
        assert_eq!(batch.n_features, n_features);
        assert_eq!(batch.lanes.len(), batch.samples.div_ceil(16) * n_features);
        assert_eq!(self.parameters.len(), self.shape.n_parameters());
        assert_eq!(self.slopes.len(), self.shape.n_slopes());
        assert_eq!(gradient.len(), self.shape.n_parameters());
    }

    /// The tiles that are read, and how many silent samples are not among them.
    fn tiles(&self) -> (&Batch, usize) {
        match self.form {
            Form::Dense => (&self.inputs.dense, 0),
            Form::Packed | Form::Events => (&self.inputs.packed, self.inputs.silent),
        }
    }
}

/// Writes the gradient of `step` into `to` and returns the loss if the step asks for it. `scratch` must be of the
/// step's shape.
pub fn gradient(isa: Isa, step: ToyStep, scratch: &mut Scratch, to: &mut [f32]) -> Option<f64> {
    step.check(to);
    if let Some(loss) = simd::own_gradient(isa, &step, scratch, to) {
        return step.with_loss.then_some(loss);
    }
    match small::gradient(isa, &step, to) {
        Some(loss) => step.with_loss.then_some(loss),
        None => simd::blocked_gradient(isa, step, scratch, to),
    }
}

#[cfg(test)]
mod layers_tests;
#[cfg(test)]
mod tests;
