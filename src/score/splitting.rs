//! Several latents for one feature.

use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::{Firings, f1};
use super::matching::Cosines;
use super::vector::{first_greatest, mean};
use super::{Undefined, Value};

/// A latent must raise the F1 of its feature's set by more than this.
const GAIN: f64 = 0.03;

const SAEBENCH: &str = "after SAEBench k_sparse_probing.py (Karvonen et al. 2025, arXiv 2503.09532), with the known truth in place of probes";
const NEEDS: &[Need] = &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents];

pub const SPLITTING: Definition = Definition {
    name: "splitting",
    version: 1,
    meaning: "mean number of further latents that a feature is split over",
    formula: "mean of |S_i| - 1 over features with S_i not empty; S_i grows from the latents that belong to i while F1 of 'any fires' gains > 0.03",
    source: SAEBENCH,
    needs: NEEDS,
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "further latents per feature (splitting)",
    better: Some(Better::Lower),
};

pub const SPLIT_SHARE: Definition = Definition {
    name: "split_share",
    version: 1,
    meaning: "share of features that are split over several latents, among those with a latent",
    formula: "share of |S_i| > 1 over features with S_i not empty",
    source: SAEBENCH,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "features split (share)",
    better: Some(Better::Lower),
};

pub const MISSED_SHARE: Definition = Definition {
    name: "missed_share",
    version: 1,
    meaning: "share of represented features that fire at all to which no latent belongs",
    formula: "share of S_i empty over represented features with x_i > 0 in some sample",
    source: SAEBENCH,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "features without a latent (share)",
    better: Some(Better::Lower),
};

/// S_i of each feature, `[n_features]`, in the order of growth.
///
/// It starts with the latent of greatest F1 among those that belong to i, then takes the one that raises the F1 of "any
/// of them fires" most while the gain is above 0.03. Equal F1: greater signed cosine, then the lower latent.
pub fn latent_sets(
    cosines: &Cosines,
    owner: &[Option<usize>],
    features: &Firings,
    latents: &Firings,
) -> Vec<Vec<usize>> {
    let mut candidates = vec![vec![]; features.n];
    for (j, owner) in owner.iter().enumerate() {
        if let Some(i) = owner {
            candidates[*i].push(j);
        }
    }
    candidates.into_par_iter().enumerate().map(|(i, left)| grow(i, left, cosines, features, latents)).collect()
}

fn grow(i: usize, mut left: Vec<usize>, cosines: &Cosines, features: &Firings, latents: &Firings) -> Vec<usize> {
    if left.is_empty() {
        return vec![];
    }
    let truth = Samples::of(features.samples, features.samples_of(i));
    let (mut set, mut any, mut current) = (vec![], Samples::of(features.samples, &[]), 0.0);
    let (mut any_fires, mut any_hits) = (0, 0);
    // How many samples and hits a latent adds to those of the set.
    let added = |any: &Samples, j: usize| {
        let new = latents.samples_of(j).iter().filter(|sample| !any.has(**sample));
        new.fold((0, 0), |(fires, hits), &sample| (fires + 1, hits + truth.has(sample) as usize))
    };
    while !left.is_empty() {
        let with = |j: usize| {
            let (fires, hits) = added(&any, j);
            f1(any_hits + hits, any_fires + fires, features.counts[i])
        };
        let scores: Vec<f64> = left.iter().map(|&j| with(j)).collect();
        let best = scores.iter().copied().fold(0.0, f64::max);
        if !set.is_empty() && best - current <= GAIN {
            break;
        }
        let equal: Vec<usize> = (0..left.len()).filter(|&position| scores[position] == best).collect();
        // `equal` holds the position of the greatest score, so there is a first one.
        let Some(first) = first_greatest(equal.iter().map(|&position| cosines.at(left[position], i))) else { break };
        let latent = left.remove(equal[first]);
        let (fires, hits) = added(&any, latent);
        (any_fires, any_hits) = (any_fires + fires, any_hits + hits);
        any.add(latents.samples_of(latent));
        set.push(latent);
        current = best;
    }
    set
}

const NO_SETS: Undefined = Undefined("no latent belongs to any feature");

fn sizes(sets: &[Vec<usize>]) -> impl Iterator<Item = usize> {
    sets.iter().map(Vec::len).filter(|&size| size > 0)
}

/// [`SPLITTING`]
pub fn splitting(sets: &[Vec<usize>]) -> Value {
    mean(sizes(sets).map(|size| (size - 1) as f64)).ok_or(NO_SETS)
}

/// [`SPLIT_SHARE`]
pub fn split_share(sets: &[Vec<usize>]) -> Value {
    mean(sizes(sets).map(|size| (size > 1) as u8 as f64)).ok_or(NO_SETS)
}

/// [`MISSED_SHARE`]
pub fn missed_share(sets: &[Vec<usize>], represented: &[usize], features: &Firings) -> Value {
    let fire = represented.iter().filter(|&&i| features.counts[i] > 0);
    mean(fire.map(|&i| sets[i].is_empty() as u8 as f64)).ok_or(Undefined("no represented feature fires"))
}

/// A set of samples as bits.
pub struct Samples(Vec<u64>);

impl Samples {
    pub fn of(samples: usize, listed: &[u32]) -> Samples {
        let mut set = Samples(vec![0; samples.div_ceil(64)]);
        set.add(listed);
        set
    }

    pub fn add(&mut self, listed: &[u32]) {
        listed.iter().for_each(|&sample| self.0[sample as usize / 64] |= 1 << (sample % 64));
    }

    pub fn has(&self, sample: u32) -> bool {
        self.0[sample as usize / 64] >> (sample % 64) & 1 == 1
    }
}
