//! Whether codes are found exactly, sample by sample.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::pairs;
use super::vector::{Directions, Real};
use super::{NO_SAMPLES, Value};
use crate::codes::Codes;

/// An activation is right where it is this near to the true one, in units of the sample's greatest.
pub const TOLERANCE: f64 = 1e-3;

pub const EXACT_RECOVERY: Definition = Definition {
    name: "exact_recovery",
    version: 1,
    meaning: "share of samples in which every feature's activation is found to 1e-3 of the sample's greatest, and nothing else",
    formula: "share of samples with |z_j ||w_j|| - x_i ||W_i||| <= 1e-3 max_i |x_i| ||W_i|| for every feature i and its \
              matched latent j (0 for those without), unmatched latents against 0",
    source: "success of a sparse recovery as in Donoho & Tanner 2009, Observed universality of phase transitions",
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "share of codes recovered exactly",
    better: Some(Better::Higher),
};

/// [`EXACT_RECOVERY`], with the latent of each feature as the matching has it.
pub fn exact_recovery<T: Real>(
    truth: &Directions,
    dictionary: &Directions,
    features: &Codes<T>,
    latents: &Codes<T>,
    matching: &[Option<usize>],
) -> Value {
    if features.n_rows() == 0 {
        return Err(NO_SAMPLES);
    }
    let mut feature_of = vec![None; dictionary.n];
    pairs(matching).into_iter().for_each(|(i, j)| feature_of[j] = Some(i));
    let recovered = |sample: usize| {
        let true_size = |(i, x): (usize, T)| x.into() * truth.norms[i];
        let found_size = |(j, z): (usize, T)| z.into() * dictionary.norms[j];
        let allowed = TOLERANCE * features.entries(sample).map(|x| true_size(x).abs()).fold(0.0, f64::max);
        // Where neither fires nothing is wrong, so features that fire and latents that fire are looked at.
        let right = |(i, x): (usize, T)| {
            let found = matching[i].map_or(0.0, |j| found_size((j, latents.at(sample, j))));
            (found - true_size((i, x))).abs() <= allowed
        };
        let called_for = |(j, z): (usize, T)| {
            let there = feature_of[j].map_or(0.0, |i| true_size((i, features.at(sample, i))));
            (found_size((j, z)) - there).abs() <= allowed
        };
        features.entries(sample).all(right) && latents.entries(sample).all(called_for)
    };
    let count = (0..features.n_rows()).filter(|&sample| recovered(sample)).count();
    Ok(count as f64 / features.n_rows() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    /// Dictionary rows twice as long as the truth's, latents half as large, in another order, and a latent more.
    #[test]
    fn a_sample_counts_where_every_activation_is_right_and_nothing_else_fires() {
        let truth = Directions::new(arr2(&[[1.0, 0.0], [0.0, 1.0]]).view());
        let dictionary = Directions::new(arr2(&[[0.0, 2.0], [2.0, 0.0], [1.0, 1.0]]).view());
        let x = arr2(&[[1.0, 0.4], [1.0, 0.4], [1.0, 0.4], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        let z = arr2(&[
            [0.2, 0.5, 0.0],       // right
            [0.2004, 0.4996, 0.0], // off by .0008 each: right
            [0.2, 0.5, 0.002],     // a latent that has no feature
            [0.0, 0.0, 0.0],       // nothing of nothing: right
            [1e-9, 0.0, 0.0],      // something of nothing
            [0.001, 0.5, 0.0],     // .002 where nothing is
        ]);
        let (x, z) = (Codes::of_dense(x.view()), Codes::of_dense(z.view()));
        let found = exact_recovery(&truth, &dictionary, &x, &z, &[Some(1), Some(0)]);
        assert_eq!(found, Ok(3.0 / 6.0));
        // A feature without a latent is right where it does not fire.
        let found = exact_recovery(&truth, &dictionary, &x, &z, &[Some(1), None]);
        assert_eq!(found, Ok(1.0 / 6.0));
    }

    #[test]
    fn no_samples_have_no_share() {
        let truth = Directions::new(arr2(&[[1.0]]).view());
        let none = ndarray::Array2::<f64>::zeros((0, 1));
        let rows = Codes::of_dense(none.view());
        assert!(exact_recovery(&truth, &truth, &rows, &rows, &[Some(0)]).is_err());
    }
}
