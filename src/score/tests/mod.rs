//! The scores against golden values, hand-worked answers, invariances and awkward sizes.

mod awkward;
mod golden;
mod invariance;
mod known_answers;

use std::collections::BTreeMap;

use ndarray::Array2;

use super::{Arrays, Scores, evaluate};
use crate::random::{Draws, Stream};

/// Arrays that a test owns.
#[derive(Clone, Default)]
struct Case {
    truth: Array2<f64>,
    dictionary: Array2<f64>,
    features: Array2<f64>,
    latents: Array2<f64>,
    hidden: Array2<f64>,
    reconstruction: Array2<f64>,
    parents: BTreeMap<usize, usize>,
}

impl Case {
    /// H = X G and R = Z D are filled in.
    fn new(truth: Array2<f64>, dictionary: Array2<f64>, features: Array2<f64>, latents: Array2<f64>) -> Case {
        let (hidden, reconstruction) = (features.dot(&truth), latents.dot(&dictionary));
        Case { truth, dictionary, features, latents, hidden, reconstruction, parents: BTreeMap::new() }
    }

    fn arrays(&self) -> Arrays<'_, f64> {
        Arrays {
            dictionary: Some(self.dictionary.view()),
            features: Some(self.features.view().into()),
            latents: Some(self.latents.view().into()),
            hidden: Some(self.hidden.view()),
            reconstruction: Some(self.reconstruction.view()),
            parents: Some(&self.parents),
            ..Arrays::of_truth(self.truth.view())
        }
    }

    fn scores(&self) -> Scores {
        evaluate(&self.arrays(), None)
    }
}

fn value(scores: &Scores, name: &str) -> f64 {
    scores.scalar(name).unwrap_or_else(|| panic!("{name} was left out")).unwrap_or_else(|why| panic!("{name}: {why:?}"))
}

/// Within rounding of small cases: a few dozen operations on numbers of size 1, each off by 1.1e-16.
fn assert_near(scores: &Scores, name: &str, expected: f64) {
    let found = value(scores, name);
    assert!((found - expected).abs() < 1e-13, "{name} is {found}, expected {expected}");
}

fn is_null(scores: &Scores, name: &str) -> bool {
    scores.scalar(name).unwrap_or_else(|| panic!("{name} was left out")).is_err()
}

/// Feature i fires with probability p, with magnitude in (0.2, 1).
fn sparse(samples: usize, n: usize, p: f64, draws: &mut Draws) -> Array2<f64> {
    Array2::from_shape_simple_fn((samples, n), || {
        let (coin, size) = (draws.uniform(), draws.uniform());
        if coin < p { 0.2 + 0.8 * size } else { 0.0 }
    })
}

fn normals(rows: usize, columns: usize, draws: &mut Draws) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || draws.normal())
}

fn draws(seed: u64) -> Draws {
    Draws::new(seed, Stream::Baseline, 0)
}
