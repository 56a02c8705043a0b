//! The loss of a toy model on given samples: what restarts are compared by and what is reported as a score.
//!
//! ```text
//! loss          = mean over samples and outputs of (x_i - x'_i)²
//! loss_weighted = mean over samples of Σ_i I_i (x_i - x'_i)²
//! ```
//!
//! with |x_i| for x_i where the model computes that. A `quadratic` model has one output, and both losses are the mean of
//! its squared error.
//!
//! In f64 from f32 weights and samples, sixteen samples side by side. Each lane is one chain over its samples in order,
//! lanes are added at the end, so batches may be cut anywhere between tiles without changing a bit. Products and
//! sums are rounded apart, which every instruction set does alike.

mod layers;
mod plain;

use crate::backend::simd::{Isa, run};
use crate::data::Batch;
use crate::toy::{ToyKind, ToyModel};

/// Squared errors so far of one model.
pub struct ToyLoss<'a> {
    model: &'a ToyModel,
    importance: &'a [f32],
    samples: usize,
    /// Σ r² and Σ I r², lane by lane.
    sums: [[f64; 16]; 2],
    layers: Option<layers::Memory<'a>>,
}

impl<'a> ToyLoss<'a> {
    /// `importance` is `[n_features]`.
    pub fn new(model: &'a ToyModel, importance: &'a [f32]) -> ToyLoss<'a> {
        assert_eq!(importance.len(), model.n_features);
        for ((_, expected), part) in model.shape().parts().into_iter().zip([&model.w, &model.c, &model.v, &model.b]) {
            assert_eq!(part.len(), expected);
        }
        let layers = match model.kind {
            ToyKind::Linear | ToyKind::ReluOutput => None,
            _ => Some(layers::Memory::new(model)),
        };
        ToyLoss { model, importance, samples: 0, sums: [[0.0; 16]; 2], layers }
    }

    /// Counts a batch. Only the last one may hold samples that are not a multiple of sixteen if the bits are not to depend
    /// on how samples are cut into batches.
    pub fn add(&mut self, isa: Isa, batch: &Batch) {
        assert_eq!(batch.n_features, self.model.n_features);
        self.samples += batch.samples;
        let ToyLoss { model, importance, layers, sums, .. } = self;
        match layers {
            None => plain::add(isa, model, importance, batch, sums),
            Some(memory) => run(isa, layers::Add { model, importance, memory, batch, sums }),
        }
    }

    /// (loss, loss_weighted) of all samples counted.
    pub fn finish(self) -> (f64, f64) {
        let [plain, weighted] = self.sums.map(|lanes| lanes.iter().sum::<f64>() / self.samples as f64);
        let outputs = if self.model.kind == ToyKind::Quadratic { 1 } else { self.model.n_features };
        (plain / outputs as f64, weighted)
    }
}

/// (loss, loss_weighted) of `model` on all samples of `batches`.
pub fn toy_losses<'b>(
    isa: Isa,
    model: &ToyModel,
    importance: &[f32],
    batches: impl IntoIterator<Item = &'b Batch>,
) -> (f64, f64) {
    let mut loss = ToyLoss::new(model, importance);
    batches.into_iter().for_each(|batch| loss.add(isa, batch));
    loss.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::toy_step::Shape;
    use crate::backend::ops::toy_step::reference::ReferenceStep;
    use crate::backend::simd::Lanes;
    use crate::random::{Draws, Stream};
    use crate::toy::{Activation, Mlp};

    fn model(kind: ToyKind, n_features: usize, d_hidden: usize) -> (ToyModel, Vec<f32>) {
        let mut draws = Draws::new(2, Stream::ToyInit, 0);
        let mut normals = |len| (0..len).map(|_| draws.normal() as f32 * 0.5).collect::<Vec<_>>();
        let shape = Shape { kind, n_features, d_hidden };
        let importance = (0..n_features).map(|i| 0.8f32.powi(i as i32)).collect();
        (ToyModel::from_parameters(shape, &normals(shape.n_parameters())), importance)
    }

    fn batch(n_features: usize, samples: usize) -> Batch {
        let mut draws = Draws::new(3, Stream::Evaluate, 0);
        let mut lanes = vec![Lanes::default(); samples.div_ceil(16) * n_features];
        for s in 0..samples {
            for i in 0..n_features {
                lanes[s / 16 * n_features + i].0[s % 16] =
                    if draws.below(2) == 0 { draws.uniform() as f32 } else { 0.0 };
            }
        }
        Batch { n_features, samples, lanes }
    }

    /// Sums of at most 37 · 21 positive terms in another order: each order is off by at most 800 · 1.1e-16 of the sum.
    #[test]
    fn losses_agree_with_plain_loops_and_padding_counts_nothing() {
        for isa in Isa::available() {
            for kind in [ToyKind::Linear, ToyKind::ReluOutput] {
                for (n, m) in [(1, 1), (2, 1), (7, 3), (21, 17)] {
                    for samples in [1, 16, 37] {
                        let ((model, importance), batch) = (model(kind, n, m), batch(n, samples));
                        let (mut plain, mut weighted) = (0.0, 0.0);
                        for s in 0..samples {
                            for (j, importance) in importance.iter().enumerate() {
                                let overlap = |i: usize| {
                                    (0..m).map(|k| model.w[i * m + k] as f64 * model.w[j * m + k] as f64).sum::<f64>()
                                };
                                let z = model.b[j] as f64
                                    + (0..n).map(|i| batch.value(s, i) as f64 * overlap(i)).sum::<f64>();
                                let out = if kind.relu_output() { z.max(0.0) } else { z };
                                let square = (batch.value(s, j) as f64 - out).powi(2);
                                plain += square / (samples * n) as f64;
                                weighted += *importance as f64 * square / samples as f64;
                            }
                        }
                        let found = toy_losses(isa, &model, &importance, [&batch]);
                        assert!((found.0 - plain).abs() <= 1e-12 * plain, "{isa:?} {kind:?} {n} {m} {samples}");
                        assert!((found.1 - weighted).abs() <= 1e-12 * weighted, "{isa:?} {kind:?} {n} {m} {samples}");
                    }
                }
            }
        }
    }

    /// Half the sum of slopes r² of the reference step, with slopes that make it each of the two means. The hidden sums
    /// of an mlp go through directions rounded to f32: 1e-6 covers what that makes of a loss of size 1.
    #[test]
    fn losses_of_other_kinds_are_those_that_are_trained() {
        let mlp = |activation| Mlp { d_embedding: 5, activation, bias: 0.0, bias_decay: 0.0, seed: 3 };
        for kind in [
            ToyKind::ReluHidden,
            ToyKind::AbsoluteValue,
            ToyKind::Mlp(mlp(Activation::Relu)),
            ToyKind::Mlp(mlp(Activation::Gelu)),
            ToyKind::Quadratic,
        ] {
            for (n, m, samples) in [(1, 1, 1), (3, 6, 16), (9, 4, 37)] {
                let ((model, importance), mut batch) = (model(kind, n, m), batch(n, samples));
                batch.lanes.iter_mut().step_by(2).for_each(|lanes| lanes.0 = lanes.0.map(|x| -x));
                let one_output = kind == ToyKind::Quadratic;
                let weights = importance.iter().map(|i| *i as f64);
                let mean = |slopes: Vec<f64>| {
                    let parameters: Vec<f64> = model.parameters().into_iter().map(f64::from).collect();
                    let step =
                        ReferenceStep { shape: model.shape(), parameters: &parameters, slopes: &slopes, batch: &batch };
                    step.gradient().1
                };
                let c = 2.0 / samples as f64;
                let (plain, weighted) = if one_output {
                    let slopes: Vec<f64> = weights.chain([c]).collect();
                    (mean(slopes.clone()), mean(slopes))
                } else {
                    (mean(vec![c / n as f64; n]), mean(weights.map(|i| i * c).collect()))
                };
                let found = toy_losses(Isa::best(), &model, &importance, [&batch]);
                assert!((found.0 - plain).abs() <= 1e-6 * (1.0 + plain), "{kind:?} {n} {m}: {found:?} {plain}");
                assert!(
                    (found.1 - weighted).abs() <= 1e-6 * (1.0 + weighted),
                    "{kind:?} {n} {m}: {found:?} {weighted}"
                );
            }
        }
    }

    #[test]
    fn bits_depend_neither_on_the_instruction_set_nor_on_how_samples_are_cut() {
        let ((model, importance), whole) = (model(ToyKind::ReluOutput, 9, 4), batch(9, 100));
        let part = |tiles: std::ops::Range<usize>, samples| Batch {
            n_features: 9,
            samples,
            lanes: whole.lanes[tiles.start * 9..tiles.end * 9].to_vec(),
        };
        let expected = toy_losses(Isa::Portable, &model, &importance, [&whole]);
        for isa in Isa::available() {
            assert_eq!(toy_losses(isa, &model, &importance, [&whole]), expected);
            assert_eq!(toy_losses(isa, &model, &importance, [&part(0..3, 48), &part(3..7, 52)]), expected);
        }
    }

    #[test]
    fn a_model_that_copies_its_input_has_no_loss() {
        let model = ToyModel {
            kind: ToyKind::ReluOutput,
            n_features: 2,
            d_hidden: 2,
            w: vec![1.0, 0.0, 0.0, 1.0],
            c: vec![],
            v: vec![],
            b: vec![0.0; 2],
        };
        assert_eq!(toy_losses(Isa::available()[0], &model, &[1.0, 1.0], [&batch(2, 50)]), (0.0, 0.0));
    }
}
