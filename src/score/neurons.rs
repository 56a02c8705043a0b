//! Which features sit in which neurons of a toy model with a hidden activation.
//!
//! "Feature i is in neuron j" means, by kind of model:
//!
//! ```text
//! relu_hidden      W_ji > 0.3
//! absolute_value   |W_ji V_ij| > 0.1 max over i' of |W_ji' V_i'j|, where that maximum is at least 0.001
//! mlp              r_ji > 0.001 Σ_i' r_ji', r_ji the neuron's response to x_i = 1 alone, negative ones as 0,
//!                  where some response is at least 0.001
//! ```
//!
//! A neuron is monosemantic where exactly one feature is in it; of an `mlp` where the greatest response is more than 0.999
//! of their sum. It is polysemantic where features are in it and it is not monosemantic. Rules and thresholds: Elhage et
//! al. 2022 (neurons of the privileged basis and of the absolute value, thresholds ours), Jermyn, Schiefer & Hubinger 2022.

use super::definition::{Definition, Kind, Need, Shape};
use super::{Undefined, Value};
use crate::backend::ops::activation;
use crate::toy::{Activation, ToyKind, ToyModel};

/// The features of each neuron.
#[derive(Clone, Debug, PartialEq)]
pub struct Neurons {
    n_features: usize,
    /// `[d_hidden]`, features ascending.
    features: Vec<Vec<usize>>,
    /// `[d_hidden]`
    monosemantic: Vec<bool>,
    /// `[n_features]`: the neuron in which the feature is strongest among those it is in.
    strongest: Vec<Option<usize>>,
}

const NO_NEURONS: Undefined = Undefined("the toy model has no neurons: its hidden layer has no activation");
const ALL_EMPTY: Undefined = Undefined("no feature is in any neuron");

impl Neurons {
    /// None where the hidden layer has no activation.
    pub fn new(model: &ToyModel) -> Option<Neurons> {
        if model.kind.activation() == Activation::Identity {
            return None;
        }
        let (n, d, directions) = (model.n_features, model.d_hidden, model.directions());
        let mut neurons = Neurons { n_features: n, features: vec![], monosemantic: vec![], strongest: vec![None; n] };
        let mut strength = vec![0.0; n];
        for j in 0..d {
            let column: Vec<f64> = directions.iter().skip(j).step_by(d).map(|w| *w as f64).collect();
            let (weights, floor, single) = match model.kind {
                ToyKind::AbsoluteValue => {
                    let outputs = model.v.iter().skip(j).step_by(d);
                    let weights: Vec<f64> = column.iter().zip(outputs).map(|(w, v)| (w * *v as f64).abs()).collect();
                    let most = weights.iter().copied().fold(0.0, f64::max);
                    (weights, if most >= 1e-3 { 0.1 * most } else { f64::INFINITY }, None)
                }
                ToyKind::Mlp(mlp) => {
                    let c = model.c[j] as f64;
                    let response = |w: &f64| activation::reference(mlp.activation, w + c).0.max(0.0);
                    let weights: Vec<f64> = column.iter().map(response).collect();
                    let sum: f64 = weights.iter().sum();
                    let most = weights.iter().copied().fold(0.0, f64::max);
                    let alive = most >= 1e-3;
                    (weights, if alive { 1e-3 * sum } else { f64::INFINITY }, Some(alive && most > 0.999 * sum))
                }
                _ => (column, 0.3, None),
            };
            let inside: Vec<usize> = (0..n).filter(|&i| weights[i] > floor).collect();
            for &i in &inside {
                if weights[i] > strength[i] {
                    (strength[i], neurons.strongest[i]) = (weights[i], Some(j));
                }
            }
            neurons.monosemantic.push(single.unwrap_or(inside.len() == 1));
            neurons.features.push(inside);
        }
        Some(neurons)
    }

    /// `[n_features]`: in how many neurons each feature is.
    pub fn n_neurons(&self) -> Vec<usize> {
        let mut count = vec![0; self.n_features];
        self.features.iter().flatten().for_each(|&i| count[i] += 1);
        count
    }

    /// `[n_features]`: the neuron in which each feature is strongest.
    pub fn strongest(&self) -> &[Option<usize>] {
        &self.strongest
    }

    fn polysemantic(&self) -> impl Iterator<Item = &Vec<usize>> {
        let mixed = |(features, single): &(&Vec<usize>, &bool)| !features.is_empty() && !**single;
        self.features.iter().zip(&self.monosemantic).filter(mixed).map(|(features, _)| features)
    }

    /// Distinct pairs of neurons among the features that are in exactly two.
    fn pairs(&self) -> usize {
        let count = self.n_neurons();
        let neurons_of = |i: usize| (0..self.features.len()).filter(|&j| self.features[j].contains(&i)).collect();
        let mut pairs: Vec<Vec<usize>> = (0..self.n_features).filter(|&i| count[i] == 2).map(neurons_of).collect();
        pairs.sort();
        pairs.dedup();
        pairs.len()
    }
}

/// A score of this file by its name; none for other names. `index` is that of a vector's entry.
pub fn neuron_score(neurons: Option<&Neurons>, definition: &Definition, feature: Option<usize>) -> Option<Value> {
    if !definition.needs.contains(&Need::Neurons) {
        return None;
    }
    let Some(neurons) = neurons else { return Some(Err(NO_NEURONS)) };
    let count = neurons.n_neurons();
    let features_with = |holds: &dyn Fn(usize) -> bool| count.iter().filter(|c| holds(**c)).count() as f64;
    let used = neurons.features.iter().filter(|features| !features.is_empty());
    Some(Ok(match definition.name {
        "n_monosemantic" => neurons.monosemantic.iter().filter(|single| **single).count() as f64,
        "n_polysemantic" => neurons.polysemantic().count() as f64,
        "features_per_neuron" => {
            let sizes: Vec<f64> = used.map(|features| features.len() as f64).collect();
            if sizes.is_empty() {
                return Some(Err(ALL_EMPTY));
            }
            sizes.iter().sum::<f64>() / sizes.len() as f64
        }
        "features_in_neurons" => features_with(&|c| c > 0),
        "features_in_two_neurons" => features_with(&|c| c == 2),
        "features_in_polysemantic" => {
            let mut inside: Vec<usize> = neurons.polysemantic().flatten().copied().collect();
            inside.sort();
            inside.dedup();
            inside.len() as f64
        }
        "neuron_pairs" => neurons.pairs() as f64,
        _ => *count.get(feature?)? as f64,
    }))
}

const PRIVILEGED: &str =
    "Elhage et al. 2022, Toy Models of Superposition, superposition in a privileged basis; mlp: Jermyn et al. 2022";

macro_rules! neuron_scores {
    ($($constant:ident $name:literal $meaning:literal $formula:literal $label:literal;)+) => {
        $(pub const $constant: Definition = Definition {
            name: $name,
            version: 1,
            meaning: $meaning,
            formula: $formula,
            source: PRIVILEGED,
            needs: &[Need::ToyModel, Need::Neurons],
            kind: Kind::Count,
            shape: Shape::Scalar,
            label: $label,
            better: None,
        };)+
    };
}

neuron_scores! {
    N_MONOSEMANTIC "n_monosemantic"
        "number of neurons with exactly one feature; of an mlp those whose greatest response to a single feature is over 0.999 of all"
        "#{j : one feature in j}; in: relu_hidden W_ji > 0.3; absolute_value |W_ji V_ij| > 0.1 of the neuron's maximum; mlp max_i r_ji > 0.999 sum_i r_ji"
        "monosemantic neurons";
    N_POLYSEMANTIC "n_polysemantic"
        "number of neurons that features are in and that are not monosemantic"
        "#{j : features in j, j not monosemantic}; in: as n_monosemantic, of an mlp r_ji > 0.001 sum_i r_ji, max_i r_ji >= 0.001"
        "polysemantic neurons";
    FEATURES_PER_NEURON "features_per_neuron"
        "mean number of features in a neuron, over neurons with any"
        "mean over j with features of #{i : i in j}; in: as n_polysemantic"
        "features per neuron";
    FEATURES_IN_NEURONS "features_in_neurons"
        "number of features that are in some neuron"
        "#{i : i in some j}; in: as n_polysemantic"
        "features in neurons";
    FEATURES_IN_TWO_NEURONS "features_in_two_neurons"
        "number of features that are in exactly two neurons"
        "#{i : #{j : i in j} = 2}; in: as n_polysemantic"
        "features in two neurons";
    FEATURES_IN_POLYSEMANTIC "features_in_polysemantic"
        "number of features that are in some polysemantic neuron"
        "#{i : i in some polysemantic j}; in: as n_polysemantic"
        "features in polysemantic neurons";
    NEURON_PAIRS "neuron_pairs"
        "number of distinct pairs of neurons among the features that are in exactly two"
        "#{{j, k} : some i is in j and k and in no other}; in: as n_polysemantic"
        "pairs of neurons in use";
}

pub const N_NEURONS: Definition = Definition {
    name: "n_neurons",
    version: 1,
    meaning: "number of neurons that feature i is in",
    formula: "#{j : i in j}; in: as n_polysemantic",
    source: PRIVILEGED,
    needs: &[Need::ToyModel, Need::Neurons],
    kind: Kind::Count,
    shape: Shape::PerFeature,
    label: "neurons of feature i",
    better: None,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::SCORES;
    use crate::toy::Mlp;

    fn scores(model: &ToyModel) -> Vec<(&'static str, f64)> {
        let neurons = Neurons::new(model);
        let all = SCORES.iter().filter(|d| !d.is_vector());
        all.filter_map(|d| Some((d.name, neuron_score(neurons.as_ref(), d, None)?.unwrap()))).collect()
    }

    /// `[n_features, d_hidden]` given as one list of (neuron, feature, weight).
    fn weights(n: usize, d: usize, entries: &[(usize, usize, f32)]) -> Vec<f32> {
        let mut w = vec![0.0; n * d];
        entries.iter().for_each(|&(j, i, value)| w[i * d + j] = value);
        w
    }

    fn model(kind: ToyKind, n: usize, d: usize, w: Vec<f32>, v: Vec<f32>) -> ToyModel {
        ToyModel { kind, n_features: n, d_hidden: d, w, c: vec![], v, b: vec![0.0; n] }
    }

    /// {2} {3,4} {0} {3,5} {1}: three monosemantic neurons, two that share three features; feature 3 alone is in two.
    #[test]
    fn neurons_of_the_privileged_basis_are_counted_by_their_rule() {
        let entries = [(0, 2, 1.0), (1, 3, 0.8), (1, 4, 0.31), (2, 0, 1.0), (3, 3, 0.6), (3, 5, 0.9), (4, 1, 1.0)];
        let noise = [(0, 0, 0.29), (2, 4, -1.0)];
        let w = weights(6, 5, &[&entries[..], &noise].concat());
        let model = model(ToyKind::ReluHidden, 6, 5, w, vec![]);
        let expected = [
            ("n_monosemantic", 3.0),
            ("n_polysemantic", 2.0),
            ("features_per_neuron", 7.0 / 5.0),
            ("features_in_neurons", 6.0),
            ("features_in_two_neurons", 1.0),
            ("features_in_polysemantic", 3.0),
            ("neuron_pairs", 1.0),
        ];
        assert_eq!(scores(&model), expected);
        let neurons = Neurons::new(&model).unwrap();
        assert_eq!(neurons.n_neurons(), [1, 1, 1, 2, 1, 1]);
        assert_eq!(neurons.strongest(), [Some(2), Some(4), Some(0), Some(1), Some(1), Some(3)]);
        assert_eq!(neuron_score(Some(&neurons), &N_NEURONS, Some(3)), Some(Ok(2.0)));
    }

    #[test]
    fn neurons_of_the_absolute_value_weigh_input_times_output() {
        let w = weights(3, 4, &[(0, 0, 1.0), (0, 1, 0.2), (1, 0, -1.0), (1, 1, 0.05), (2, 2, 1e-2)]);
        let v = weights(3, 4, &[(0, 0, 1.0), (0, 1, 0.6), (1, 0, 1.0), (1, 1, 1.9), (2, 2, 1e-2)]);
        // Neuron 0: 1 and 0.12; neuron 1: 1 and 0.095; neuron 2 below the floor; neuron 3 empty.
        let neurons = Neurons::new(&model(ToyKind::AbsoluteValue, 3, 4, w, v)).unwrap();
        assert_eq!(neurons.features, [vec![0, 1], vec![0], vec![], vec![]]);
        assert_eq!(neurons.monosemantic, [false, true, false, false]);
    }

    #[test]
    fn neurons_of_an_mlp_are_counted_by_their_responses() {
        let mlp = Mlp { d_embedding: 3, activation: Activation::Relu, bias: 0.0, bias_decay: 0.0, seed: 1 };
        // As many dimensions as features: the embedding is a rotation R, and W = Rᵀ T gives directions T.
        let embedding = crate::toy::embedding::embedding(3, 3, 1);
        let t = weights(3, 3, &[(0, 0, 1.0), (0, 1, 0.2), (1, 1, 2.0), (1, 2, 1.0), (2, 0, -1.0)]);
        let product = |e: usize, j: usize| (0..3).map(|i| embedding[i * 3 + e] * t[i * 3 + j]).sum::<f32>();
        let w = (0..9).map(|at| product(at / 3, at % 3)).collect();
        let model = ToyModel {
            kind: ToyKind::Mlp(mlp),
            n_features: 3,
            d_hidden: 3,
            w,
            c: vec![-0.3, -0.5, 0.0],
            v: vec![0.0; 9],
            b: vec![],
        };
        let neurons = Neurons::new(&model).unwrap();
        // Responses: 0.7, 0, 0; 0, 1.5, 0.5; none.
        assert_eq!(neurons.features, [vec![0], vec![1, 2], vec![]]);
        assert_eq!(neurons.monosemantic, [true, false, false]);
    }

    #[test]
    fn models_without_a_hidden_activation_have_no_neurons() {
        let model = model(ToyKind::ReluOutput, 2, 2, vec![1.0; 4], vec![]);
        assert_eq!(Neurons::new(&model), None);
        assert_eq!(neuron_score(None, &N_MONOSEMANTIC, None), Some(Err(NO_NEURONS)));
        let empty = ToyModel { kind: ToyKind::ReluHidden, w: vec![0.0; 4], ..model };
        let neurons = Neurons::new(&empty);
        assert_eq!(neuron_score(neurons.as_ref(), &FEATURES_PER_NEURON, None), Some(Err(ALL_EMPTY)));
        assert_eq!(neuron_score(neurons.as_ref(), &super::super::geometry::NORM, None), None);
    }
}
