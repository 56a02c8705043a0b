//! Whether codes are found exactly, sample by sample.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Directions, Real, Rows};
use super::{NO_SAMPLES, Value};

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
    features: &Rows<'_, T>,
    latents: &Rows<'_, T>,
    matching: &[Option<usize>],
) -> Value {
    if features.n_rows == 0 {
        return Err(NO_SAMPLES);
    }
    let mut taken = vec![false; dictionary.n];
    matching.iter().flatten().for_each(|&j| taken[j] = true);
    let recovered = |sample: usize| {
        let (x, z) = (features.row(sample), latents.row(sample));
        let true_size = |i: usize| x[i].into() * truth.norms[i];
        let found_size = |j: usize| z[j].into() * dictionary.norms[j];
        let allowed = TOLERANCE * (0..truth.n).map(|i| true_size(i).abs()).fold(0.0, f64::max);
        let right = |i: usize| (matching[i].map_or(0.0, found_size) - true_size(i)).abs() <= allowed;
        (0..truth.n).all(right) && (0..dictionary.n).all(|j| taken[j] || found_size(j).abs() <= allowed)
    };
    let count = (0..features.n_rows).filter(|&sample| recovered(sample)).count();
    Ok(count as f64 / features.n_rows as f64)
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
        let (x, z) = (Rows::new(x.view()), Rows::new(z.view()));
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
        let rows = Rows::new(none.view());
        assert!(exact_recovery(&truth, &truth, &rows, &rows, &[Some(0)]).is_err());
    }
}
