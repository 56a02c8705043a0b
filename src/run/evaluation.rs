//! Scores of one stem: a world, its toy model or dictionary, and everything trained on their hidden states.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use rayon::prelude::*;

use super::columns::{SIDE_VECTORS, ScoreColumn};
use super::samples::{Coded, Samples};
use super::training_set::TrainingSet;
use crate::backend::ops::toy_loss::ToyLoss;
use crate::backend::simd::Isa;
use crate::data::law::ROW_BLOCK;
use crate::data::world::same_data;
use crate::data::{Batch, Sampler, World};
use crate::hidden::{HiddenMaker, HiddenSource};
use crate::random::Stream;
use crate::sae::Coder;
use crate::score::{
    self, Activations, Arrays, CellArrays, Entry, Index, Need, Neurons, Scores, Truth, Vector, WorldArrays,
};
use crate::store::Value;
use crate::toy::ToyModel;
use crate::toy::theory::{Theory, quadratic, theory};

/// Losses of a toy model: (loss, loss_weighted).
pub type Losses = (f64, f64);

/// A toy model and what its losses are taken on.
pub struct Judged<'a> {
    pub model: &'a ToyModel,
    /// `[n_features]`
    pub importance: &'a [f64],
    pub world: &'a Arc<World>,
    pub seed: u64,
    pub samples: usize,
}

/// Losses of each model on its evaluation samples. Models of one world, seed and number of samples are taken together, so
/// that their samples are drawn once and never lie in memory at once.
pub fn losses(models: &[Judged]) -> Vec<Losses> {
    let groups = same_data(models.iter().map(|model| ((model.seed, model.samples), model.world)));
    // Enough pieces for every thread; a piece draws its samples again.
    let most = models.len().div_ceil(2 * rayon::current_num_threads()).max(1);
    let pieces: Vec<&[usize]> = groups.iter().flat_map(|group| group.chunks(most)).collect();
    let found: Vec<(usize, Losses)> =
        pieces.into_par_iter().flat_map_iter(|piece| losses_together(models, piece)).collect();
    let mut losses = vec![(0.0, 0.0); models.len()];
    found.into_iter().for_each(|(model, of)| losses[model] = of);
    losses
}

/// Losses of models that see the same samples.
fn losses_together<'a>(models: &'a [Judged], piece: &'a [usize]) -> impl Iterator<Item = (usize, Losses)> + use<'a> {
    let Judged { world, seed, samples, .. } = models[piece[0]];
    let weights = |model: &usize| models[*model].importance.iter().map(|v| *v as f32).collect();
    let weights: Vec<Vec<f32>> = piece.iter().map(weights).collect();
    let mut losses: Vec<ToyLoss> =
        piece.iter().zip(&weights).map(|(model, weights)| ToyLoss::new(models[*model].model, weights)).collect();
    let (sampler, mut batch) = (Sampler::new(world.clone(), seed, Stream::Evaluate), Batch::default());
    // Some sixteen thousand numbers: a batch stays near while every model reads it.
    let at_once = (16 * ROW_BLOCK / world.n_features / ROW_BLOCK).max(1) * ROW_BLOCK;
    for first in (0..samples).step_by(at_once) {
        sampler.draw_range(0, first, at_once.min(samples - first), &mut batch);
        losses.iter_mut().for_each(|loss| loss.add(Isa::best(), &batch));
    }
    let found: Vec<Losses> = losses.into_iter().map(ToyLoss::finish).collect();
    piece.iter().copied().zip(found)
}

/// The evaluation samples of a stem, the same for all its cells, and what they say of the toy model.
pub struct Evaluation {
    pub world: Arc<World>,
    pub maker: HiddenMaker,
    /// True directions, `[n_features, d_hidden]`.
    truth: Array2<f32>,
    /// The same with what scores have worked out of them.
    directions: Truth,
    /// Only where a score or a coder reads them.
    samples: Option<Samples>,
    losses: Option<Losses>,
    theory: Option<Theory>,
    /// Capacities of the closed form of the quadratic model.
    capacities: Option<[f64; 2]>,
    /// Which features sit in which neurons of the toy model.
    neurons: Option<Neurons>,
    training: Option<TrainingSet>,
    /// Firing probabilities as they come out and as they were asked for, `[n_features]`, and who has a parent.
    rates: Vec<f64>,
    asked: Vec<f64>,
    parents: Option<BTreeMap<usize, usize>>,
    /// Scores of the world and its directions that are the same for all cells.
    of_world: Vec<(&'static str, score::Value)>,
}

/// Whether any of the columns is computed from arrays of samples.
pub fn reads_samples(columns: &[ScoreColumn]) -> bool {
    let reads = |column: &ScoreColumn| {
        let name = column.definition.name;
        let needs = |need: &Need| matches!(need, Need::Features | Need::Latents | Need::Hidden | Need::Reconstruction);
        !LOSSES.contains(&name) && column.definition.needs.iter().any(needs)
    };
    columns.iter().any(reads)
}

/// Whether any of the columns is a loss of the toy model.
pub fn asks_for_losses(columns: &[ScoreColumn]) -> bool {
    columns.iter().any(|column| LOSSES.contains(&column.definition.name))
}

/// Scores that [`losses`] gives.
const LOSSES: [&str; 2] = ["loss", "loss_weighted"];

/// What a cell came to.
pub struct CellScores {
    /// One for each score column.
    pub values: Vec<Value>,
    /// Why some are null: name and reason, each reason once.
    pub undefined: Vec<(String, &'static str)>,
    pub scores: Scores,
}

impl Evaluation {
    /// What is known of a stem: its toy model with its importance, if there is one, and that model's losses, if they are
    /// asked for. Draws this many samples if there are any to be read, and takes what `columns` ask of the world itself.
    pub fn new(
        source: &HiddenSource,
        samples: Option<usize>,
        toy: Option<(&ToyModel, &[f64])>,
        losses: Option<Losses>,
        columns: &[ScoreColumn],
    ) -> Evaluation {
        // Some theories are searched for numerically, so only where a column asks.
        let asks = columns.iter().any(|c| c.definition.needs.contains(&Need::Theory));
        let setting = toy.filter(|_| asks);
        let theory =
            setting.and_then(|(model, importance)| theory(&source.world, model.kind, model.d_hidden, importance));
        let capacities = setting.and_then(|(model, importance)| {
            quadratic::theory_capacities(&source.world, model.kind, model.d_hidden, importance)
        });
        let truth = Array2::from_shape_vec(
            (source.world.n_features, source.d_hidden()),
            source.maker.directions().into_owned(),
        );
        let truth = truth.expect("one direction of d_hidden numbers per feature");
        let mut evaluation = Evaluation {
            world: source.world.clone(),
            maker: source.maker.clone(),
            directions: Truth::new(truth.view()),
            truth,
            samples: samples.map(|samples| Samples::draw(source, samples)),
            losses,
            theory,
            capacities,
            neurons: toy.and_then(|(model, _)| Neurons::new(model)),
            training: None,
            rates: source.world.marginal_probability(),
            asked: source.world.asked_probability(),
            parents: source.world.hierarchy.as_ref().map(|hierarchy| hierarchy.parents()),
            of_world: vec![],
        };
        let wanted: Vec<&'static str> = columns.iter().map(|c| c.definition.name).collect();
        let arrays = WorldArrays {
            world: &evaluation.world,
            truth: evaluation.truth(),
            features: evaluation.samples.as_ref().map(|samples| samples.x().codes()),
            toy: evaluation.toy(),
        };
        evaluation.of_world = score::of_world(&arrays, &wanted);
        evaluation
    }

    /// The same with the finite set that the toy model was trained on.
    pub fn with_training_set(self, training: Option<TrainingSet>) -> Evaluation {
        Evaluation { training, ..self }
    }

    /// The training set, if it is finite.
    pub fn training_set(&self) -> Option<&TrainingSet> {
        self.training.as_ref()
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

    /// Scores of the stem alone, or with what `coder` makes of its hidden states; a coder reads samples.
    pub fn score(&self, coder: Option<&dyn Coder>, columns: &[ScoreColumn]) -> CellScores {
        let samples = self.samples.as_ref();
        let coded = coder.map(|coder| samples.expect("samples are drawn where there is a coder").code(coder));
        let arrays = Arrays {
            dictionary: coder.map(|c| c.decoder()),
            features: samples.map(|samples| Activations::Prepared(samples.x())),
            latents: coded.as_ref().map(|coded| Activations::Sparse(&coded.latents)),
            rebuilt: coded.as_ref().map(|coded| &coded.rebuilt),
            parents: self.parents.as_ref(),
            ..Arrays::of_truth(&self.directions)
        };
        // The side table shows every feature's geometry and its matched latent.
        let mut wanted: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        wanted.extend(SIDE_VECTORS);
        wanted.push("matching");
        let mut scores = score::evaluate(&arrays, Some(&wanted));
        if let (Some(coder), Some(samples), Some(coded)) = (coder, samples, &coded) {
            self.add_scores_of_cell(coder, samples, coded, columns, &mut scores);
        }
        if let Some(training) = &self.training {
            let vector = Vector::Numbers(training.data_dimensionality.clone());
            scores.vectors.push((&score::DATA_DIMENSIONALITY, vector));
        }
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

    /// Scores that need the toy model, the sets of the world or the decoder's bias.
    fn add_scores_of_cell(
        &self,
        coder: &dyn Coder,
        samples: &Samples,
        coded: &Coded,
        columns: &[ScoreColumn],
        scores: &mut Scores,
    ) {
        let wanted: Vec<&str> = columns.iter().map(|column| column.definition.name).collect();
        let needs = |need| columns.iter().any(|column| column.definition.needs.contains(&need));
        let silent = needs(Need::Bias).then(|| samples.silent(coder));
        let matching = scores.matching.clone().unwrap_or_default();
        let arrays = CellArrays {
            truth: &self.directions,
            dictionary: coder.decoder(),
            x: samples.x(),
            z: &coded.latents,
            matching: &matching,
            toy: self.toy(),
            groups: &self.world.groups,
            silent: silent.as_ref().map(|(h, rebuilt)| (h.view(), rebuilt.view())),
        };
        score::of_cell(&arrays, &wanted, scores);
    }

    fn value(&self, column: &ScoreColumn, scores: &Scores) -> (Value, Option<&'static str>) {
        let number = |v: Option<f64>, reason| match v.map(Value::measured) {
            Some(value @ Value::Float(_)) => (value, None),
            _ => (Value::Null, Some(reason)),
        };
        match column.definition.name {
            "loss" => return number(self.losses.map(|l| l.0), "there is no toy model"),
            "loss_weighted" => return number(self.losses.map(|l| l.1), "there is no toy model"),
            "train_loss" | "train_loss_weighted" => {
                let losses = self.training.as_ref().map(|t| t.losses);
                let loss = losses.map(|l| if column.definition.name == "train_loss" { l.0 } else { l.1 });
                return number(loss, "the training samples are fresh for ever");
            }
            "b_norm" => {
                let square = |model: &ToyModel| model.b.iter().map(|b| *b as f64 * *b as f64).sum::<f64>();
                return number(self.toy().map(|model| square(model).sqrt()), "there is no toy model");
            }
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
            "theory_loss" => {
                return number(self.theory.as_ref().map(Theory::loss), "no theory is known for this world and model");
            }
            "theory_best" => {
                return match &self.theory {
                    Some(theory) => (Value::Text(theory.best.to_owned()), None),
                    None => (Value::Null, Some("no theory is known for this world and model")),
                };
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
        if let Some((_, value)) = self.of_world.iter().find(|(name, _)| *name == column.definition.name) {
            return match value {
                Ok(v) => number(Some(*v), "not finite"),
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
            ("firing_probability".to_owned(), numbers(self.rates.clone())),
        ];
        if let Some(parents) = &self.parents {
            let parent = (0..n).map(|i| parents.get(&i).map(|&parent| parent as i64)).collect();
            columns.push(("asked_probability".to_owned(), numbers(self.asked.clone())));
            columns.push(("parent".to_owned(), FeatureColumn::Whole(parent)));
        }
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
                    let words = v.iter().copied().map(Some).collect();
                    columns.push((definition.name.into(), FeatureColumn::Words(words)));
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
    Words(Vec<Option<&'static str>>),
}
