//! Scores of one stem: a world, its toy model or dictionary, and everything trained on their hidden states.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use super::columns::{SIDE_VECTORS, ScoreColumn};
use crate::backend::ops::toy_loss::ToyLoss;
use crate::backend::simd::Isa;
use crate::data::World;
use crate::hidden::{HiddenBatch, HiddenMaker, HiddenSource};
use crate::random::Stream;
use crate::sae::Coder;
use crate::score::{self, Arrays, Entry, Index, Neurons, Scores, Vector};
use crate::store::Value;
use crate::toy::ToyModel;
use crate::toy::theory::{Theory, quadratic, theory};

/// Samples drawn at once: whole row blocks of the data law.
const PIECE: usize = 16 * 1024;

/// The evaluation samples of a stem, the same for all its cells, and what they say of the toy model.
pub struct Evaluation {
    pub world: Arc<World>,
    pub maker: HiddenMaker,
    /// True directions, `[n_features, d_hidden]`.
    truth: Array2<f32>,
    /// `[samples, n_features]`
    x: Array2<f32>,
    /// `[samples, d_hidden]`
    h: Array2<f32>,
    /// (loss, loss_weighted) of the toy model.
    losses: Option<(f64, f64)>,
    theory: Option<Theory>,
    /// Capacities of the closed form of the quadratic model.
    capacities: Option<[f64; 2]>,
    /// Which features sit in which neurons of the toy model.
    neurons: Option<Neurons>,
}

/// What a cell came to.
pub struct CellScores {
    /// One for each score column.
    pub values: Vec<Value>,
    /// Why some are null: name and reason, each reason once.
    pub undefined: Vec<(String, &'static str)>,
    pub scores: Scores,
}

impl Evaluation {
    /// Draws the samples. `importance` is that of the toy model, if there is one.
    pub fn new(source: &HiddenSource, samples: usize, toy: Option<(&ToyModel, &[f64])>) -> Evaluation {
        let (n, d) = (source.world.n_features, source.d_hidden());
        let (mut x, mut h) = (Array2::zeros((samples, n)), Array2::zeros((samples, d)));
        let stream = source.open(Stream::Evaluate);
        let weights: Vec<f32> = toy.map_or(vec![], |(_, importance)| importance.iter().map(|v| *v as f32).collect());
        let mut loss = toy.map(|(model, _)| ToyLoss::new(model, &weights));
        let mut batch = HiddenBatch::default();
        let mut first = 0;
        while first < samples {
            let count = PIECE.min(samples - first);
            stream.draw_range(0, first, count, &mut batch);
            if let Some(loss) = &mut loss {
                loss.add(Isa::best(), &batch.x);
            }
            for s in 0..count {
                let row = (0..n).map(|i| batch.x.value(s, i));
                x.row_mut(first + s).iter_mut().zip(row).for_each(|(to, v)| *to = v);
                let row = &batch.h[s * d..(s + 1) * d];
                h.row_mut(first + s).iter_mut().zip(row).for_each(|(to, v)| *to = *v);
            }
            first += count;
        }
        let theory = toy.and_then(|(model, importance)| theory(&source.world, model.kind, model.d_hidden, importance));
        let capacities = toy.and_then(|(model, importance)| {
            quadratic::theory_capacities(&source.world, model.kind, model.d_hidden, importance)
        });
        let neurons = toy.and_then(|(model, _)| Neurons::new(model));
        let losses = loss.map(ToyLoss::finish);
        let truth = Array2::from_shape_vec((n, d), source.maker.directions().into_owned());
        let truth = truth.expect("one direction of d_hidden numbers per feature");
        Evaluation {
            world: source.world.clone(),
            maker: source.maker.clone(),
            truth,
            x,
            h,
            losses,
            theory,
            capacities,
            neurons,
        }
    }

    /// True directions, `[n_features, d_hidden]`.
    pub fn truth(&self) -> ArrayView2<'_, f32> {
        self.truth.view()
    }

    /// Importance-weighted loss of the toy model: what decides between seeds.
    pub fn toy_loss(&self) -> Option<f64> {
        self.losses.map(|l| l.1)
    }

    pub fn toy(&self) -> Option<&ToyModel> {
        match &self.maker {
            HiddenMaker::Toy(model) => Some(model),
            HiddenMaker::Dictionary(_) => None,
        }
    }

    /// Scores of the stem alone, or with what `coder` makes of its hidden states.
    pub fn score(&self, coder: Option<&dyn Coder>, columns: &[ScoreColumn]) -> CellScores {
        let latents = coder.map(|c| c.encode(self.h.view()));
        let reconstruction = coder.zip(latents.as_ref()).map(|(c, z)| c.decode(z.view()));
        let arrays = Arrays {
            dictionary: coder.map(|c| c.decoder()),
            features: Some(self.x.view()),
            latents: latents.as_ref().map(|z| z.view()),
            hidden: Some(self.h.view()),
            reconstruction: reconstruction.as_ref().map(|r| r.view()),
            ..Arrays::of_truth(self.truth())
        };
        // The side table shows every feature's geometry and its matched latent.
        let mut wanted: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        wanted.extend(SIDE_VECTORS);
        wanted.push("matching");
        let scores = score::evaluate(&arrays, Some(&wanted));
        let (mut values, mut undefined) = (Vec::with_capacity(columns.len()), Vec::new());
        for column in columns {
            let (value, reason) = self.value(column, &scores);
            if let Some(reason) = reason {
                undefined.push((column.name.clone(), reason));
            }
            values.push(value);
        }
        CellScores { values, undefined, scores }
    }

    fn value(&self, column: &ScoreColumn, scores: &Scores) -> (Value, Option<&'static str>) {
        let number = |v: Option<f64>, reason| match v.map(Value::measured) {
            Some(value @ Value::Float(_)) => (value, None),
            _ => (Value::Null, Some(reason)),
        };
        match column.definition.name {
            "loss" => return number(self.losses.map(|l| l.0), "there is no toy model"),
            "loss_weighted" => return number(self.losses.map(|l| l.1), "there is no toy model"),
            "theory_margin" => {
                let margin = self.theory.as_ref().and_then(|t| t.margin);
                return number(margin, "no closed form is known for this world and model");
            }
            "theory_capacity" => {
                let at = match column.index {
                    Some(Index::At(i)) => i,
                    _ => 1,
                };
                let capacity = self.capacities.and_then(|c| c.get(at).copied());
                return number(capacity, "no closed form is known for this world and model");
            }
            "theory_phase" => {
                let phases = self.theory.as_ref().map(|t| &t.phases[..]).unwrap_or(&[]);
                let at = match column.index {
                    Some(Index::At(i)) => phases.get(i),
                    _ => phases.last(),
                };
                return match at.copied().flatten() {
                    Some(phase) => (Value::Text(phase.name().to_owned()), None),
                    None => (Value::Null, Some("the closed form does not say")),
                };
            }
            _ => {}
        }
        let feature = match column.index {
            Some(Index::At(i)) => Some(i),
            _ => self.world.n_features.checked_sub(1),
        };
        if let Some(score) = score::neuron_score(self.neurons.as_ref(), column.definition, feature) {
            return match score {
                Ok(v) => number(Some(v), "not finite"),
                Err(undefined) => (Value::Null, Some(undefined.0)),
            };
        }
        match scores.get(&column.name) {
            Some(Entry::Number(Ok(v))) => number(Some(v), "not finite"),
            Some(Entry::Number(Err(undefined))) => (Value::Null, Some(undefined.0)),
            Some(Entry::Word(word)) => (Value::Text(word.to_owned()), None),
            None => (Value::Null, Some("there is no such entry")),
        }
    }

    /// Columns of the side table `features`: name and one value per feature.
    pub fn feature_columns(&self, cell: &CellScores, importance: Option<&[f64]>) -> Vec<(String, FeatureColumn)> {
        let n = self.world.n_features;
        let numbers = |v: Vec<f64>| FeatureColumn::Numbers(v.into_iter().map(Some).collect());
        let mut columns = vec![
            ("feature".to_owned(), FeatureColumn::Whole((0..n).map(|i| Some(i as i64)).collect())),
            ("firing_probability".to_owned(), numbers(self.world.marginal_probability())),
        ];
        if let Some(importance) = importance {
            columns.push(("importance".into(), numbers(importance.to_vec())));
        }
        for (definition, vector) in &cell.scores.vectors {
            let of_features = definition.shape == score::Shape::PerFeature;
            match vector {
                Vector::Numbers(v) if of_features => {
                    columns.push((definition.name.into(), FeatureColumn::Numbers(v.clone())));
                }
                Vector::Words(v) if of_features => {
                    columns.push((definition.name.into(), FeatureColumn::Words(v.clone())));
                }
                _ => {}
            }
        }
        if let Some(model) = self.toy().filter(|model| model.b.len() == n) {
            columns.push(("bias".into(), numbers(model.b.iter().map(|v| *v as f64).collect())));
        }
        if let Some(neurons) = &self.neurons {
            let whole = |v: usize| v as i64;
            let counts = neurons.n_neurons().into_iter().map(|c| Some(whole(c))).collect();
            let strongest = neurons.strongest().iter().map(|j| j.map(whole)).collect();
            columns.push(("n_neurons".into(), FeatureColumn::Whole(counts)));
            columns.push(("neuron".into(), FeatureColumn::Whole(strongest)));
        }
        if let Some(matching) = &cell.scores.matching {
            let latents = matching.iter().map(|m| m.map(|j| j as i64)).collect();
            columns.push(("latent".into(), FeatureColumn::Whole(latents)));
        }
        let d = self.maker.d_hidden();
        if d <= 3 {
            for k in 0..d {
                let w = self.truth.column(k).iter().map(|v| *v as f64).collect();
                columns.push((format!("w_{k}"), numbers(w)));
            }
        }
        columns
    }
}

/// A column of the side table `features`.
#[derive(Clone, Debug, PartialEq)]
pub enum FeatureColumn {
    Numbers(Vec<Option<f64>>),
    Whole(Vec<Option<i64>>),
    Words(Vec<&'static str>),
}
