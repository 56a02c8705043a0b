//! What scores ask of all cosines together, in one look at each.

use super::matching::Cosines;
use super::merging;
use super::vector::first_greatest;

/// Greatest cosines and what else follows from a latent's cosines with all features.
pub struct Survey {
    /// Greatest signed cosine of any latent with each feature, `[n_features]`; -infinity without latents.
    pub best_of_feature: Vec<f64>,
    /// Greatest signed cosine of each latent with a represented feature, `[n_latents]`; -infinity where there is none.
    pub best_of_latent: Vec<f64>,
    /// The feature of greatest |cosine| of each latent, over all features, `[n_latents]`; empty without features.
    pub closest: Vec<usize>,
    /// Whether each latent stands for several represented features at once, `[n_latents]`.
    pub merges: Vec<bool>,
}

/// What one block of latents adds.
struct Part {
    best_of_feature: Vec<f64>,
    best_of_latent: Vec<f64>,
    closest: Vec<usize>,
    merges: Vec<bool>,
}

impl Survey {
    pub fn new(cosines: &Cosines, represented: &[usize]) -> Survey {
        let n = cosines.n_features;
        let part = |latents: std::ops::Range<usize>, values: &[f64]| {
            let (best_of_latent, closest, merges) = (vec![], vec![], vec![]);
            let mut part = Part { best_of_feature: vec![f64::NEG_INFINITY; n], best_of_latent, closest, merges };
            for of_latent in (0..latents.len()).map(|k| &values[k * n..(k + 1) * n]) {
                part.best_of_feature.iter_mut().zip(of_latent).for_each(|(best, &c)| *best = best.max(c));
                let shared = || represented.iter().map(|&i| of_latent[i]);
                part.best_of_latent.push(shared().fold(f64::NEG_INFINITY, f64::max));
                part.closest.extend(first_greatest(of_latent.iter().map(|c| c.abs())));
                part.merges.push(merging::merges(shared()));
            }
            part
        };
        let mut survey = Survey {
            best_of_feature: vec![f64::NEG_INFINITY; n],
            best_of_latent: vec![],
            closest: vec![],
            merges: vec![],
        };
        for part in cosines.by_latent(part) {
            // The greatest of some numbers does not depend on their order.
            survey.best_of_feature.iter_mut().zip(part.best_of_feature).for_each(|(best, c)| *best = best.max(c));
            survey.best_of_latent.extend(part.best_of_latent);
            survey.closest.extend(part.closest);
            survey.merges.extend(part.merges);
        }
        survey
    }
}
