//! Which feature a latent fires with. Directions do not tell: an absorbing child latent has cosine 0.71 with parent and
//! child alike.

use rayon::prelude::*;

use super::activity::Activity;
use super::firings::{Firings, Together, f1};
use super::matching::Cosines;
use super::vector::{Real, first_greatest};

/// Latents that a thread takes together.
const BLOCK: usize = 64;

/// The represented feature that each latent belongs to, `[n_latents]`: the one of greatest F1 between "the latent fires"
/// and "the feature fires"; then of greater signed cosine; then the lower. None for a latent that is dead or fires with
/// no represented feature.
pub fn belongs_to<T: Real>(
    cosines: &Cosines,
    represented: &[usize],
    features: &Activity<'_, T>,
    latents: &Firings,
) -> Vec<Option<usize>> {
    let mut takes_part = vec![false; features.n()];
    represented.iter().for_each(|&i| takes_part[i] = true);
    let owner = |together: &mut Together, j: usize| {
        let (mut best, mut equal) = (0.0, vec![]);
        let met = together.with((latents, j), features).iter();
        for &(i, hits) in met.filter(|(i, _)| takes_part[*i]) {
            let f1 = f1(hits, latents.counts[j], features.firings().counts[i]);
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
    let all: Vec<usize> = (0..latents.n).collect();
    let block = |latents: &[usize]| {
        let mut together = Together::new(features.n());
        latents.iter().map(|&j| owner(&mut together, j)).collect::<Vec<_>>()
    };
    all.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}
