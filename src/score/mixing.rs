//! Does a latent contain features that merely occur together with its own?

use rayon::prelude::*;

use super::activity::Activity;
use super::correlation::correlations;
use super::definition::{Better, Definition, Kind, Need, Shape};
use super::least_squares::least_squares;
use super::matching::pairs;
use super::vector::{Directions, Real, mean, square};
use super::{Undefined, Value};

/// Features correlate from this |Pearson correlation| on.
const CORRELATED: f64 = 0.1;

pub const MIXING: Definition = Definition {
    name: "mixing",
    version: 1,
    meaning: "how much of correlated features is in a matched latent's direction",
    formula: "mean over matched pairs of the norm of w_j's least-squares coefficients on the g_k with |Pearson(x_k, x_i)| >= 0.1, fitted together with g_i; 0 without such k",
    source: "after Chanin et al. 2025, Feature Hedging, arXiv 2505.11756",
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "mixing of correlated features",
    better: Some(Better::Lower),
};

/// [`MIXING`]; k over represented features, minimum-norm least squares with relative cut-off 1e-10.
pub fn mixing<T: Real>(
    truth: &Directions,
    dictionary: &Directions,
    features: &Activity<'_, T>,
    represented: &[usize],
    matching: &[Option<usize>],
) -> Value {
    let matched = pairs(matching);
    let columns: Vec<usize> = matched.iter().map(|&(i, _)| i).collect();
    let companions = correlations(features, features, &columns, |i, r| {
        represented.iter().copied().filter(|&k| k != i && r[k].abs() >= CORRELATED).collect::<Vec<usize>>()
    });
    let of_pair = |(&(i, j), companions): (&(usize, usize), &Vec<usize>)| {
        if companions.is_empty() {
            return 0.0;
        }
        let basis: Vec<&[f64]> = std::iter::once(&i).chain(companions).map(|&k| truth.unit(k)).collect();
        square(&least_squares(&basis, dictionary.unit(j))[1..]).sqrt()
    };
    let sizes: Vec<f64> = matched.par_iter().zip(&companions).map(of_pair).collect();
    mean(sizes).ok_or(Undefined("no feature is matched"))
}
