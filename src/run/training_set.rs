//! What a trained toy model makes of its finite training set.

use ndarray::Array2;

use super::evaluation::FeatureColumn;
use crate::backend::ops::activation::Activate;
use crate::backend::ops::toy_loss::ToyLoss;
use crate::backend::simd::{Isa, run};
use crate::data::{Batch, Dataset};
use crate::hidden::HiddenSource;
use crate::score::data_dimensionality;
use crate::toy::{Activation, ToyModel};

/// The training set under a toy model.
pub struct TrainingSet {
    /// (loss, loss_weighted) over the whole set.
    pub losses: (f64, f64),
    /// D_X of each sample.
    pub data_dimensionality: Vec<Option<f64>>,
    /// h of each sample, `[samples, d_hidden]`.
    hidden: Array2<f32>,
    /// Features that fire in each sample.
    l0: Vec<usize>,
}

impl TrainingSet {
    /// The set that a toy model, which makes the hidden states of `source`, was trained on; none if it saw fresh samples.
    /// `importance` is `[n_features]`.
    pub fn of(source: &HiddenSource, model: &ToyModel, importance: &[f64]) -> Option<TrainingSet> {
        let importance: Vec<f32> = importance.iter().map(|v| *v as f32).collect();
        Some(TrainingSet::new(&Dataset::draw(&source.world, source.seed)?, model, &importance))
    }

    fn new(set: &Dataset, model: &ToyModel, importance: &[f32]) -> TrainingSet {
        let (d, isa) = (model.d_hidden, Isa::best());
        let (mut batch, mut loss) = (Batch::default(), ToyLoss::new(model, importance));
        for piece in set.pieces() {
            set.gather(piece, &mut batch);
            loss.add(isa, &batch);
        }
        let (directions, activation) = (model.directions(), model.kind.activation());
        let mut hidden = Array2::zeros((set.samples(), d));
        for (s, mut h) in hidden.rows_mut().into_iter().enumerate() {
            h.iter_mut().zip(&model.c).for_each(|(h, c)| *h = *c);
            for (i, x) in set.sample(s) {
                h.iter_mut().zip(&directions[i * d..][..d]).for_each(|(h, w)| *h = x.mul_add(*w, *h));
            }
        }
        if let (true, Some(values)) = (activation != Activation::Identity, hidden.as_slice_mut()) {
            run(isa, Activate { activation, values });
        }
        TrainingSet {
            losses: loss.finish(),
            data_dimensionality: data_dimensionality(hidden.view()),
            hidden,
            l0: (0..set.samples()).map(|s| set.sample(s).count()).collect(),
        }
    }

    /// Columns of the side table `samples`: name and one value per training sample.
    pub fn columns(&self) -> Vec<(String, FeatureColumn)> {
        let numbers = |v: Vec<f64>| FeatureColumn::Numbers(v.into_iter().map(Some).collect());
        let whole = |v: Vec<usize>| FeatureColumn::Whole(v.into_iter().map(|v| Some(v as i64)).collect());
        let h = |s: usize| self.hidden.row(s).iter().map(|h| *h as f64 * *h as f64).sum::<f64>().sqrt();
        let mut columns = vec![
            ("sample".to_owned(), whole((0..self.l0.len()).collect())),
            ("l0".to_owned(), whole(self.l0.clone())),
            ("h_norm".to_owned(), numbers((0..self.l0.len()).map(h).collect())),
            ("data_dimensionality".to_owned(), FeatureColumn::Numbers(self.data_dimensionality.clone())),
        ];
        if self.hidden.ncols() <= 3 {
            let all = self.hidden.columns().into_iter().enumerate();
            columns.extend(all.map(|(k, h)| (format!("h_{k}"), numbers(h.iter().map(|h| *h as f64).collect()))));
        }
        columns
    }
}
