//! Worlds that learners of dictionaries are tried on.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};

use crate::data::{Dictionary, Group, GroupRule, Magnitude, MagnitudeSharing, World};
use crate::hidden::{HiddenMaker, HiddenSource, SaeSource};

fn source(dictionary: Dictionary, p: f64, groups: Vec<Group>) -> (SaeSource, Array2<f32>) {
    let (n, d) = (dictionary.n_features, dictionary.d_hidden);
    let truth = Array2::from_shape_vec((n, d), dictionary.vectors.clone()).expect("n rows of d");
    let world = World {
        n_features: n,
        firing_probability: vec![p; n],
        magnitude: Magnitude::Uniform { low: 0.5, high: 1.5 },
        magnitude_sharing: MagnitudeSharing::Independent,
        groups,
        dataset: None,
        correlation: None,
        hierarchy: None,
    };
    let maker = HiddenMaker::Dictionary(Arc::new(dictionary));
    (HiddenSource { world: Arc::new(world), seed: 5, maker }.into(), truth)
}

/// Exactly one of n orthogonal features fires in a sample.
pub fn orthogonal_alone(n: usize, d: usize) -> (SaeSource, Array2<f32>) {
    let group = Group { rule: GroupRule::Exclusive, members: (0..n).collect(), firing_probability: 1.0 };
    source(Dictionary::orthogonal(n, d, 1).expect("they fit"), 1.0, vec![group])
}

/// Features fire independently with probability p along orthogonal directions.
pub fn orthogonal(n: usize, d: usize, p: f64) -> (SaeSource, Array2<f32>) {
    source(Dictionary::orthogonal(n, d, 1).expect("they fit"), p, vec![])
}

/// Features fire independently with probability p along random directions.
pub fn superposed(n: usize, d: usize, p: f64) -> (SaeSource, Array2<f32>) {
    source(Dictionary::random(n, d, 2), p, vec![])
}

/// Mean over true directions of the greatest cosine of a row; all rows are unit.
pub fn mmcs(truth: &Array2<f32>, rows: ArrayView2<'_, f32>) -> f64 {
    let cosines = truth.dot(&rows.t());
    let best = cosines.rows().into_iter().map(|row| row.iter().fold(-1.0f32, |a, &b| a.max(b)) as f64);
    best.sum::<f64>() / truth.nrows() as f64
}
