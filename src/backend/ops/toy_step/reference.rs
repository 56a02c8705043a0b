//! Plain loops in f64: what every kernel is held to.

#[cfg(test)]
use super::Form;
#[cfg(test)]
use super::reference_layers::Bounded;
use super::{Shape, reference_layers};
use crate::data::Batch;
use crate::toy::ToyKind;

/// A [`super::ToyStep`] in f64.
pub struct ReferenceStep<'a> {
    pub shape: Shape,
    pub parameters: &'a [f64],
    pub slopes: &'a [f64],
    pub batch: &'a Batch,
}

impl ReferenceStep<'_> {
    /// Gradient of the parameters, and the loss, sample after sample.
    pub fn gradient(&self) -> (Vec<f64>, f64) {
        let Shape { kind, n_features, d_hidden } = self.shape;
        if !matches!(kind, ToyKind::Linear | ToyKind::ReluOutput) {
            return reference_layers::gradient(self.shape, self.parameters, self.slopes, self.batch);
        }
        let (w, b) = self.parameters.split_at(n_features * d_hidden);
        let (mut gradient, mut loss) = (vec![0.0; self.parameters.len()], 0.0);
        let (dw, db) = gradient.split_at_mut(n_features * d_hidden);
        for sample in 0..self.batch.samples {
            let x = |i| self.batch.value(sample, i) as f64;
            let h: Vec<f64> =
                (0..d_hidden).map(|k| (0..n_features).map(|i| x(i) * w[i * d_hidden + k]).sum()).collect();
            let mut dh = vec![0.0; d_hidden];
            for j in 0..n_features {
                let z = b[j] + (0..d_hidden).map(|k| w[j * d_hidden + k] * h[k]).sum::<f64>();
                let (out, derivative) =
                    if kind == ToyKind::Linear { (z, 1.0) } else { (z.max(0.0), if z > 0.0 { 1.0 } else { 0.0 }) };
                let r = out - x(j);
                loss += 0.5 * self.slopes[j] * r * r;
                let g = self.slopes[j] * r * derivative;
                db[j] += g;
                for k in 0..d_hidden {
                    dh[k] += g * w[j * d_hidden + k];
                    dw[j * d_hidden + k] += g * h[k];
                }
            }
            for i in 0..n_features {
                for k in 0..d_hidden {
                    dw[i * d_hidden + k] += x(i) * dh[k];
                }
            }
        }
        (gradient, loss)
    }
}

/// How far f32 kernels may be from [`ReferenceStep::gradient`]: for each gradient entry, and for the loss.
///
/// A quantity computed through a chain of q roundings, from terms of either sign, is off by at most q u / (1 - q u) times
/// the same chain over absolute values, u = 2^-24 (Higham 2002, section 3.1). The chains: h has n_features
/// multiply-adds, z d_hidden more, r and g three more, dh n_features more; dW takes two a tile, four folds and two for silent
/// samples, and so does db at most; where events are added one by one it takes two a sample instead. A ReLU whose z lies within its error of 0 may fall on either side; its whole term is added.
#[cfg(test)]
pub fn error_bound(step: &ReferenceStep, form: Form) -> (Vec<f64>, f64) {
    let Shape { kind, n_features, d_hidden } = step.shape;
    if !matches!(kind, ToyKind::Linear | ToyKind::ReluOutput) {
        let ReferenceStep { parameters, slopes, batch, .. } = step;
        let (bounded, loss) = reference_layers::gradient::<Bounded>(step.shape, parameters, slopes, batch);
        return (bounded.into_iter().map(|g| g.error).collect(), loss.error);
    }
    let (w, b) = step.parameters.split_at(n_features * d_hidden);
    let gamma = |roundings: usize| {
        let u = roundings as f64 * 2f64.powi(-24);
        u / (1.0 - u)
    };
    let samples = step.batch.samples;
    let sums = if form == Form::Events { 2 * samples } else { 2 * samples.div_ceil(16) } + 6;
    let chain = gamma(2 * n_features + d_hidden + 3 + sums + 4);
    let (mut bound, mut loss_bound) = (vec![0.0; step.parameters.len()], 0.0);
    let (dw, db) = bound.split_at_mut(n_features * d_hidden);
    for sample in 0..step.batch.samples {
        let x = |i| (step.batch.value(sample, i) as f64).abs();
        let through = |i, k| step.batch.value(sample, i) as f64 * w[i * d_hidden + k];
        let signed: Vec<f64> = (0..d_hidden).map(|k| (0..n_features).map(|i| through(i, k)).sum()).collect();
        let h: Vec<f64> =
            (0..d_hidden).map(|k| (0..n_features).map(|i| x(i) * w[i * d_hidden + k].abs()).sum()).collect();
        let mut dh = vec![0.0; d_hidden];
        for j in 0..n_features {
            let row = &w[j * d_hidden..][..d_hidden];
            let size = b[j].abs() + (0..d_hidden).map(|k| row[k].abs() * h[k]).sum::<f64>();
            let z = b[j] + (0..d_hidden).map(|k| row[k] * signed[k]).sum::<f64>();
            let open = z.abs() <= gamma(n_features + d_hidden) * size;
            let share = if kind == ToyKind::ReluOutput && open { 1.0 } else { chain };
            let r = size + x(j);
            // c r² / 2 has r's error twice, and the sum over features; the sum over tiles is in f64.
            loss_bound += 0.5 * step.slopes[j] * r * r * gamma(2 * (n_features + d_hidden + 2) + n_features + 8);
            let g = step.slopes[j] * r * share;
            db[j] += g;
            for k in 0..d_hidden {
                dh[k] += g * row[k].abs();
                dw[j * d_hidden + k] += g * h[k];
            }
        }
        for i in 0..n_features {
            for k in 0..d_hidden {
                dw[i * d_hidden + k] += x(i) * dh[k];
            }
        }
    }
    (bound, loss_bound)
}
