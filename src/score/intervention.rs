//! Real interventions on a toy model: its own read-out of h with a latent taken out or put in.

use rayon::prelude::*;

use super::activity::Activity;
use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::pairs;
use super::vector::{Directions, dot};
use super::{Undefined, Value};
use crate::backend::ops::activation::reference as activation;
use crate::codes::Codes;
use crate::toy::{Activation, ToyKind, ToyModel};

/// Samples summed together; fixed, so that threads do not reorder the sum.
const BLOCK: usize = 256;

const NEEDS: &[Need] = &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents, Need::ToyModel];

pub const CAUSAL_FAITHFULNESS: Definition = Definition {
    name: "causal_faithfulness",
    version: 1,
    meaning: "how nearly taking a matched latent out of h does to the toy model's outputs what taking its feature out of x does",
    formula: "1 - sum ||D - D*||^2 / sum ||D*||^2 over matched pairs and samples with x_i > 0; D = f(h - z_j decoder_j) - f(h), \
              D* = f(h without x_i) - f(h), f the toy model's read-out",
    source: "defined here; interventions on latents as in Cunningham et al. 2023, arXiv 2309.08600",
    needs: NEEDS,
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "causal faithfulness",
    better: Some(Better::Higher),
};

pub const STEERING_SPECIFICITY: Definition = Definition {
    name: "steering_specificity",
    version: 1,
    meaning: "share of what adding a matched latent's direction to h does to the toy model's outputs that falls on its feature's",
    formula: "sum D_i^2 / sum ||D||^2 over matched pairs and samples with x_i = 0; D = f(h + a_i w_j) - f(h), \
              a_i = ||W_i|| mean of x_i where x_i > 0",
    source: "defined here; steering as in Templeton et al. 2024, Scaling Monosemanticity",
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "steering specificity",
    better: Some(Better::Higher),
};

/// [`CAUSAL_FAITHFULNESS`] and [`STEERING_SPECIFICITY`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interventions {
    pub causal_faithfulness: Value,
    pub steering_specificity: Value,
}

/// What an output is before its ReLU: v_o · h + b_o.
struct ReadOut {
    /// `[n_features, d_hidden]`
    v: Directions,
    b: Vec<f64>,
    relu: bool,
    /// What h is of Σ x_i W_i + c.
    hidden: Activation,
    c: Vec<f64>,
}

impl ReadOut {
    /// None for models with one output.
    fn of(model: &ToyModel) -> Option<ReadOut> {
        if model.kind == ToyKind::Quadratic {
            return None;
        }
        let (n, d) = (model.n_features, model.d_hidden);
        let own = if model.v.is_empty() { &model.w } else { &model.v };
        let v = ndarray::ArrayView2::from_shape((n, d), own).ok()?;
        let wide = |values: &[f32], length: usize| {
            let given = values.iter().map(|&value| value as f64).chain(std::iter::repeat(0.0));
            given.take(length).collect::<Vec<f64>>()
        };
        Some(ReadOut {
            v: Directions::new(v),
            b: wide(&model.b, n),
            relu: model.kind.relu_output(),
            hidden: model.kind.activation(),
            c: wide(&model.c, d),
        })
    }

    fn after(&self, before: f64) -> f64 {
        if self.relu { before.max(0.0) } else { before }
    }

    /// v_o · h of each output.
    fn along(&self, h: &[f64]) -> Vec<f64> {
        (0..self.v.n).map(|o| dot(self.v.raw(o), h)).collect()
    }

    /// h of a sample, one of whose features may be left out.
    fn hidden(&self, truth: &Directions, x: &Codes<f32>, sample: usize, without: Option<usize>) -> Vec<f64> {
        let mut h = self.c.clone();
        for (i, x) in x.entries(sample).filter(|(i, _)| Some(*i) != without) {
            h.iter_mut().zip(truth.raw(i)).for_each(|(h, w)| *h += w * x as f64);
        }
        h.iter_mut().for_each(|h| *h = activation(self.hidden, *h).0);
        h
    }
}

/// A matched pair and what it does to outputs before their ReLU.
struct Pair {
    feature: usize,
    latent: usize,
    /// v · decoder_j, `[n_features]`.
    out: Vec<f64>,
    /// v · W_i, `[n_features]`.
    own: Vec<f64>,
    /// a_i v · w_j, `[n_features]`; none where the feature never fires.
    added: Option<Vec<f64>>,
}

/// Sums over samples: squared errors and squared effects of ablation, own and all squared effects of steering.
#[derive(Clone, Copy, Default)]
struct Sums([f64; 4]);

/// The interventions on `model`, whose directions are `truth`; `z` are the latents of the same samples as `x`.
pub fn interventions(
    model: &ToyModel,
    truth: &Directions,
    dictionary: &Directions,
    x: &Activity<'_, f32>,
    z: &Codes<f32>,
    matching: &[Option<usize>],
) -> Interventions {
    let Some(read_out) = ReadOut::of(model) else {
        let one = Err(Undefined("a quadratic model has one output for all features"));
        return Interventions { causal_faithfulness: one, steering_specificity: one };
    };
    let pair = |(feature, latent): (usize, usize)| {
        let firing = x.columns().entries(feature).filter(|(_, x)| *x > 0.0).map(|(_, x)| x as f64);
        let strength = super::vector::mean(firing).map(|mean| truth.norms[feature] * mean);
        let scaled = |by: f64| dictionary.unit(latent).iter().map(|w| by * w).collect::<Vec<f64>>();
        Pair {
            feature,
            latent,
            out: read_out.along(dictionary.raw(latent)),
            own: read_out.along(truth.raw(feature)),
            added: strength.map(|strength| read_out.along(&scaled(strength))),
        }
    };
    let pairs: Vec<Pair> = pairs(matching).into_iter().map(pair).collect();
    let codes = x.codes();
    let block = |block: usize| {
        let mut sums = Sums::default();
        for sample in block * BLOCK..codes.n_rows().min((block + 1) * BLOCK) {
            sums.add(&read_out, truth, codes, z, sample, &pairs);
        }
        sums
    };
    let blocks: Vec<Sums> = (0..codes.n_rows().div_ceil(BLOCK)).into_par_iter().map(block).collect();
    let sum = |part: usize| blocks.iter().map(|sums| sums.0[part]).sum::<f64>();
    let (error, effect, own, all) = (sum(0), sum(1), sum(2), sum(3));
    let nothing = Err(Undefined("no intervention changes the outputs"));
    Interventions {
        causal_faithfulness: if effect > 0.0 { Ok(1.0 - error / effect) } else { nothing },
        steering_specificity: if all > 0.0 { Ok(own / all) } else { nothing },
    }
}

impl Sums {
    fn add(&mut self, f: &ReadOut, truth: &Directions, x: &Codes<f32>, z: &Codes<f32>, sample: usize, pairs: &[Pair]) {
        let h = f.hidden(truth, x, sample, None);
        let pre: Vec<f64> = f.along(&h).iter().zip(&f.b).map(|(along, b)| along + b).collect();
        let outputs: Vec<f64> = pre.iter().map(|&pre| f.after(pre)).collect();
        for pair in pairs {
            let value = x.at(sample, pair.feature);
            if value > 0.0 {
                let z = z.at(sample, pair.latent) as f64;
                // Without a hidden activation taking x_i out is linear, too.
                let without = (f.hidden != Activation::Identity)
                    .then(|| f.along(&f.hidden(truth, x, sample, Some(pair.feature))));
                for o in 0..pre.len() {
                    let wanted = match &without {
                        Some(along) => along[o] + f.b[o],
                        None => pre[o] - value as f64 * pair.own[o],
                    };
                    let wanted = f.after(wanted) - outputs[o];
                    let found = f.after(pre[o] - z * pair.out[o]) - outputs[o];
                    self.0[0] += (found - wanted) * (found - wanted);
                    self.0[1] += wanted * wanted;
                }
            } else if let (true, Some(added)) = (value == 0.0, &pair.added) {
                for o in 0..pre.len() {
                    let change = f.after(pre[o] + added[o]) - outputs[o];
                    self.0[2] += if o == pair.feature { change * change } else { 0.0 };
                    self.0[3] += change * change;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::activity::Side;
    use super::*;
    use ndarray::{Array2, arr2};

    fn of(model: &ToyModel, dictionary: &Array2<f32>, x: &Array2<f32>, z: &Array2<f32>) -> Interventions {
        let directions = model.directions().into_owned();
        let truth = Array2::from_shape_vec((model.n_features, model.d_hidden), directions).expect("a row a feature");
        let (truth, dictionary) = (Directions::new(truth.view()), Directions::new(dictionary.view()));
        let matching: Vec<Option<usize>> = (0..truth.n).map(|i| (i < dictionary.n).then_some(i)).collect();
        let (x, z) = (Activity::new(Codes::of_dense(x.view()), Side::Features), Codes::of_dense(z.view()));
        interventions(model, &truth, &dictionary, &x, &z, &matching)
    }

    fn model(kind: ToyKind, w: &[f32], d_hidden: usize, b: &[f32]) -> ToyModel {
        ToyModel { kind, n_features: b.len(), d_hidden, w: w.to_vec(), c: vec![], v: vec![], b: b.to_vec() }
    }

    #[test]
    fn the_true_dictionary_with_true_codes_does_what_the_features_do() {
        let x = arr2(&[[1.0, 0.0, 0.2], [0.0, 0.5, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]]);
        let w = [1.0, 0.1, -0.5, 0.8, -0.4, -0.9];
        for kind in [ToyKind::Linear, ToyKind::ReluOutput] {
            let dictionary = arr2(&[[1.0, 0.1], [-0.5, 0.8], [-0.4, -0.9]]);
            let found = of(&model(kind, &w, 2, &[0.1, -0.2, 0.0]), &dictionary, &x, &x);
            assert_eq!(found.causal_faithfulness, Ok(1.0), "{kind:?}");
        }
    }

    /// W = 1, identity, x = 2: outputs x. A latent of half the size: Δ = -1 against -2, so 1 - 1/4. Steering moves output 0 alone.
    #[test]
    fn a_latent_of_half_the_size_is_three_quarters_faithful() {
        let found = of(
            &model(ToyKind::Linear, &[1.0], 1, &[0.0]),
            &arr2(&[[1.0]]),
            &arr2(&[[2.0], [0.0]]),
            &arr2(&[[1.0], [0.0]]),
        );
        assert_eq!(found.causal_faithfulness, Ok(0.75));
        assert_eq!(found.steering_specificity, Ok(1.0));
    }

    /// W = (1, -1), linear: adding w_0 to h moves output 1 as far as output 0, the other way; a ReLU stops that.
    #[test]
    fn steering_an_antipodal_pair_moves_both_outputs_unless_a_relu_is_in_the_way() {
        let (x, dictionary) = (arr2(&[[1.0, 0.0], [0.0, 0.0]]), arr2(&[[1.0], [-1.0]]));
        let found = of(&model(ToyKind::Linear, &[1.0, -1.0], 1, &[0.0; 2]), &dictionary, &x, &x);
        assert_eq!(found.steering_specificity, Ok(0.5));
        let found = of(&model(ToyKind::ReluOutput, &[1.0, -1.0], 1, &[0.0; 2]), &dictionary, &x, &x);
        assert_eq!(found.steering_specificity, Ok(1.0));
    }

    /// h = ReLU(x_0 - x_1), x' = ReLU(±h): with both on, h = ReLU(1 - 2) = 0. Taking x_1 out makes h = 1, which no change along the
    /// latent's direction from h = 0 by -z · -1 = 2 meets: outputs (2, 0) against (1, 0). Taking x_0 out changes nothing,
    /// h - z_0 = -1 turns output 1 on: (0, 1). Errors 1 + 1, effects 1 + 0.
    #[test]
    fn a_hidden_activation_is_part_of_the_true_effect() {
        let model = model(ToyKind::ReluHidden, &[1.0, -1.0], 1, &[0.0; 2]);
        let x = arr2(&[[1.0, 2.0]]);
        let found = of(&model, &arr2(&[[1.0], [-1.0]]), &x, &x);
        assert_eq!(found.causal_faithfulness, Ok(1.0 - 2.0));
        assert!(found.steering_specificity.is_err(), "no sample without a feature");
    }
}
