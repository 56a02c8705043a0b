//! Which feature a latent fires with. Directions do not tell: an absorbing child latent has cosine 0.71 with parent and
//! child alike.

use rayon::prelude::*;

use super::firings::{Firings, both, f1};
use super::matching::Cosines;
use super::vector::first_greatest;

/// The represented feature that each latent belongs to, `[n_latents]`: the one of greatest F1 between "the latent fires"
/// and "the feature fires"; then of greater signed cosine; then the lower. None for a latent that is dead or fires with
/// no represented feature.
pub fn belongs_to(
    cosines: &Cosines,
    represented: &[usize],
    features: &Firings,
    latents: &Firings,
) -> Vec<Option<usize>> {
    let owner = |j: usize| {
        let (mut best, mut equal) = (0.0, vec![]);
        for &i in represented {
            let hits = both(latents.column(j), features.column(i));
            let f1 = f1(hits, latents.counts[j], features.counts[i]);
            if f1 > best {
                best = f1;
                equal.clear();
            }
            if f1 == best && best > 0.0 {
                equal.push(i);
            }
        }
        first_greatest(equal.iter().map(|&i| cosines.at(j, i))).map(|position| equal[position])
    };
    (0..latents.n).into_par_iter().map(owner).collect()
}
