//! The toy model's own loss.

use ndarray::ArrayView2;
use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Directions, Real, Rows, dot};
use super::{NO_SAMPLES, Value};
use crate::toy::ToyKind;

/// Samples summed together; fixed, so that threads do not reorder the sum.
const BLOCK: usize = 1024;

const TOY_MODELS: &str = "Elhage et al. 2022, Toy Models of Superposition";

pub const LOSS: Definition = Definition {
    name: "loss",
    version: 1,
    meaning: "the toy model's squared error, mean over samples and outputs, without importances",
    formula: "mean over samples and i of (x_i - x'_i)^2",
    source: TOY_MODELS,
    needs: &[Need::Features, Need::ToyModel],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "loss per feature",
    better: Some(Better::Lower),
};

pub const LOSS_WEIGHTED: Definition = Definition {
    name: "loss_weighted",
    version: 1,
    meaning: "the toy model's squared error weighted by importance, summed over outputs, mean over samples",
    formula: "mean over samples of sum over i of I_i (x_i - x'_i)^2",
    source: TOY_MODELS,
    needs: &[Need::Features, Need::ToyModel],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "importance-weighted loss",
    better: Some(Better::Lower),
};

/// [`LOSS`] and [`LOSS_WEIGHTED`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToyLoss {
    pub loss: Value,
    pub loss_weighted: Value,
}

/// The losses of a `linear` or `relu_output` model on given samples, in f64.
///
/// `w` is `[n_features, d_hidden]`, row i the column W_i; `b` and `importance` are `[n_features]`; `features` is
/// `[samples, n_features]`.
pub fn toy_loss<T: Real>(
    kind: ToyKind,
    w: ArrayView2<'_, T>,
    b: &[T],
    importance: &[T],
    features: ArrayView2<'_, T>,
) -> ToyLoss {
    let (w, x) = (Directions::new(w), Rows::new(features));
    debug_assert!(matches!(kind, ToyKind::Linear | ToyKind::ReluOutput));
    debug_assert!(b.len() == w.n && importance.len() == w.n && x.n_columns == w.n);
    if x.n_rows == 0 || w.n == 0 {
        return ToyLoss { loss: Err(NO_SAMPLES), loss_weighted: Err(NO_SAMPLES) };
    }
    let block = |block: usize| {
        let (mut plain, mut weighted, mut h) = (0.0, 0.0, vec![0.0f64; w.d_hidden]);
        for sample in block * BLOCK..x.n_rows.min((block + 1) * BLOCK) {
            let x = x.row(sample);
            h.fill(0.0);
            for (i, &x) in x.iter().enumerate().filter(|(_, x)| **x != T::default()) {
                h.iter_mut().zip(w.raw(i)).for_each(|(h, w)| *h += w * x.into());
            }
            for i in 0..w.n {
                let before = dot(w.raw(i), &h) + b[i].into();
                let output = if kind.relu_output() { before.max(0.0) } else { before };
                let error = x[i].into() - output;
                plain += error * error;
                weighted += importance[i].into() * error * error;
            }
        }
        (plain, weighted)
    };
    let blocks: Vec<(f64, f64)> = (0..x.n_rows.div_ceil(BLOCK)).into_par_iter().map(block).collect();
    let plain: f64 = blocks.iter().map(|sums| sums.0).sum();
    let weighted: f64 = blocks.iter().map(|sums| sums.1).sum();
    ToyLoss { loss: Ok(plain / (x.n_rows * w.n) as f64), loss_weighted: Ok(weighted / x.n_rows as f64) }
}
