//! A feature's latent is silent, and another feature's latent carries its direction instead.
//!
//! Per feature i and sample with x_i > 0: proj_j = z_j decoder_j·g_i is what latent j contributes along i, T = x_i ||W_i||
//! what is there, M the part of the main latents S_i, A the part of the three strongest absorbers: latents that do not
//! belong to i, with cosine at least 0.1 and proj > 0. Fraction absorbed: 0 if M >= T or A/T < 0.4; else 1 if M <= 0;
//! else a/(a + M), a = min(A, T - M). Full absorption: every main latent is silent, and the latent of greatest proj
//! outside S_i does not belong to i, has cosine at least 0.025, proj > 0 and proj/T >= 0.4.
//!
//! With the truth known, T is x_i ||W_i|| and no probe's reading of h: interference from other features would pass for
//! absorption. Absorbers do not belong to i, rather than lie outside S_i: a second copy of the feature's own latent
//! would pass for one. A feature whose every sample is taken over has no latent at all and shows in `missed_share`.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::activity::Activity;
use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::Cosines;
use super::vector::{Directions, Real, mean};
use super::{Undefined, Value};
use crate::codes::Codes;

/// Features whose cosines with all latents are computed together.
const BLOCK: usize = 16;

/// Least cosine of an absorber.
const ABSORBER_COSINE: f64 = 0.1;
/// So many of the strongest absorbers count.
const ABSORBERS: usize = 3;
/// Least share of T that absorbers must carry.
const ABSORBED_SHARE: f64 = 0.4;
/// A main latent is silent below this.
const SILENT: f64 = 1e-8;
/// Least cosine of the latent that absorbs fully.
const FULL_COSINE: f64 = 0.025;

const FRACTION: &str = "per sample with x_i > 0: 0 if M >= T or A/T < .4; else 1 if M <= 0; else a/(a + M), a = min(A, T - M); mean over samples, then features";
const SAEBENCH: &str = "SAEBench feature_absorption_calculator.py (Karvonen et al. 2025, arXiv 2503.09532); Chanin et al. 2024, arXiv 2409.14507";

pub const ABSORPTION_ANY: Definition = Definition {
    name: "absorption_any",
    version: 1,
    meaning: "share of a feature that other features' latents carry in place of its own, over every feature with a latent",
    formula: FRACTION,
    source: SAEBENCH,
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "absorption, every feature (share)",
    better: Some(Better::Lower),
};

pub const ABSORPTION: Definition = Definition {
    name: "absorption",
    version: 1,
    meaning: "share of a parent feature that other features' latents carry in place of its own; read it with missed_share",
    formula: FRACTION,
    source: SAEBENCH,
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents, Need::Parents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "absorption of parents (share)",
    better: Some(Better::Lower),
};

pub const ABSORPTION_FULL: Definition = Definition {
    name: "absorption_full",
    version: 1,
    meaning: "share of a parent's samples on which its latents are silent and one latent of another feature carries it",
    formula: "S_i silent and the best-projecting latent outside S_i not of i, cosine >= .025, proj/T >= .4; mean over samples, then features",
    source: SAEBENCH,
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents, Need::Parents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "full absorption of parents (share)",
    better: Some(Better::Lower),
};

/// Means over the samples of one feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Absorbed {
    pub fraction: f64,
    pub full: f64,
}

/// What absorption is measured on.
pub struct Scene<'a, T> {
    pub truth: &'a Directions,
    pub dictionary: &'a Directions,
    pub cosines: &'a Cosines<'a>,
    pub features: &'a Activity<'a, T>,
    pub latents: &'a Codes<T>,
    pub owner: &'a [Option<usize>],
    pub sets: &'a [Vec<usize>],
}

/// What [`ABSORPTION_ANY`] averages over: every feature. (One that is not represented has no latent.)
pub fn every_feature(n_features: usize) -> Vec<usize> {
    (0..n_features).collect()
}

/// What [`ABSORPTION`] averages over: features with a direct child, ascending.
pub fn parents_of(parents: &BTreeMap<usize, usize>) -> Vec<usize> {
    let mut features: Vec<usize> = parents.values().copied().collect();
    features.sort_unstable();
    features.dedup();
    features
}

/// Absorption of each of `of`; those without a latent are left out.
pub fn absorbed<T: Real>(scene: &Scene<T>, of: &[usize]) -> Vec<Absorbed> {
    let heard: Vec<usize> = of.iter().copied().filter(|&i| !scene.sets[i].is_empty()).collect();
    let block = |features: &[usize]| {
        let cosines = scene.cosines.of_features(features);
        let of_feature = |(&i, cosines)| absorbed_feature(scene, i, cosines);
        features.iter().zip(cosines.chunks_exact(scene.dictionary.n)).map(of_feature).collect::<Vec<_>>()
    };
    heard.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}

const NO_LATENTS: Undefined = Undefined("none of the features has a latent");

/// [`ABSORPTION_ANY`] or [`ABSORPTION`], by the features given.
pub fn absorption(absorbed: &[Absorbed]) -> Value {
    mean(absorbed.iter().map(|feature| feature.fraction)).ok_or(NO_LATENTS)
}

/// [`ABSORPTION_FULL`]
pub fn absorption_full(absorbed: &[Absorbed]) -> Value {
    mean(absorbed.iter().map(|feature| feature.full)).ok_or(NO_LATENTS)
}

/// A latent that fires on a sample, as one feature sees it.
#[derive(Clone, Copy)]
struct Seen {
    cosine: f64,
    /// z_j decoder_j·g_i, the decoder's norm included.
    projection: f64,
    foreign: bool,
}

/// The feature has a latent that fires with it, so it fires on at least one sample. `cosines` are those with all latents.
fn absorbed_feature<T: Real>(scene: &Scene<T>, i: usize, cosines: &[f64]) -> Absorbed {
    let pull = |latent: usize| cosines[latent] * scene.dictionary.length(latent);
    let main = &scene.sets[i];
    let (mut fraction_sum, mut full_count, mut samples) = (0.0, 0usize, 0usize);
    let mut outside: Vec<Seen> = vec![];
    for (sample, x) in scene.features.columns().entries(i).filter(|&(_, x)| x > T::default()) {
        let there = x.into() * scene.truth.norms[i];
        let mut carried = 0.0;
        let mut silent = true;
        for &latent in main {
            let z: f64 = scene.latents.at(sample, latent).into();
            carried += z * pull(latent);
            silent &= z.abs() < SILENT;
        }
        if carried < there || silent {
            let see = |(latent, z): (usize, T)| {
                let foreign = scene.owner[latent] != Some(i);
                Seen { cosine: cosines[latent], projection: z.into() * pull(latent), foreign }
            };
            outside.clear();
            outside.extend(scene.latents.entries(sample).filter(|(latent, _)| !main.contains(latent)).map(see));
        }
        if carried < there {
            fraction_sum += fraction(there, carried, strongest(&outside));
        }
        full_count += (silent && fully_absorbed(&outside, there)) as usize;
        samples += 1;
    }
    Absorbed { fraction: fraction_sum / samples as f64, full: full_count as f64 / samples as f64 }
}

/// The fraction absorbed where M < T.
fn fraction(there: f64, carried: f64, taken: f64) -> f64 {
    if taken / there < ABSORBED_SHARE {
        0.0
    } else if carried <= 0.0 {
        1.0
    } else {
        let taken = taken.min(there - carried);
        taken / (taken + carried)
    }
}

/// A: the sum of the three greatest positive projections of absorbers.
fn strongest(outside: &[Seen]) -> f64 {
    let mut top = [0.0f64; ABSORBERS];
    for seen in outside.iter().filter(|seen| seen.foreign && seen.cosine >= ABSORBER_COSINE) {
        let mut projection = seen.projection;
        // Each place keeps the greater and passes the lesser on.
        for place in &mut top {
            let (greater, lesser) = if projection > *place { (projection, *place) } else { (*place, projection) };
            (*place, projection) = (greater, lesser);
        }
    }
    top.iter().sum()
}

/// Whether the latent of greatest projection outside S_i (the lower of equal ones) takes the feature over. Latents that do
/// not fire project 0, which takes nothing over.
fn fully_absorbed(outside: &[Seen], there: f64) -> bool {
    let mut top: Option<&Seen> = None;
    for seen in outside {
        if top.is_none_or(|top| seen.projection > top.projection) {
            top = Some(seen);
        }
    }
    top.is_some_and(|seen| {
        seen.foreign && seen.projection > 0.0 && seen.cosine >= FULL_COSINE && seen.projection / there >= ABSORBED_SHARE
    })
}
