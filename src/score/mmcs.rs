//! Best cosine per feature and per latent. Signed: a negated latent has not found its feature.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::Cosines;
use super::survey::Survey;
use super::vector::{Directions, mean};
use super::{NOTHING_ALIVE, NOTHING_REPRESENTED, Undefined, Value};

/// A feature is recovered where a latent has at least this cosine with it.
const RECOVERED_AT: f64 = 0.9;

pub const MMCS: Definition = Definition {
    name: "mmcs",
    version: 1,
    meaning: "mean over represented features of the best signed cosine of any latent, dead ones too",
    formula: "mean over i of max over j of w_j . g_i",
    source: "Sharkey et al. 2022, Taking features out of superposition; mean over the truth as in HoagyC/sparse_coding",
    needs: &[Need::Truth, Need::Dictionary],
    kind: Kind::Cosine,
    shape: Shape::Scalar,
    label: "mean max cosine similarity (MMCS)",
    better: Some(Better::Higher),
};

/// Greatest signed cosine of any latent with a feature, for each represented feature; None without latents.
fn best_per_feature<'a>(survey: &'a Survey, represented: &'a [usize]) -> Option<impl Iterator<Item = f64> + 'a> {
    (!survey.best_of_latent.is_empty()).then(|| represented.iter().map(|&i| survey.best_of_feature[i]))
}

const NO_LATENTS: Undefined = Undefined("the dictionary has no latents");

/// [`MMCS`]
pub fn mmcs(survey: &Survey, represented: &[usize]) -> Value {
    let best = best_per_feature(survey, represented).ok_or(NO_LATENTS)?;
    mean(best).ok_or(NOTHING_REPRESENTED)
}

pub const MMCS_LARGER: Definition = Definition {
    name: "mmcs_larger",
    version: 1,
    meaning: "mean over latents, dead ones too, of the best signed cosine with any latent of the next larger dictionary",
    formula: "mean over j of max over j' of w_j . w'_j', w' the next larger dictionary of the same world, seed and settings",
    source: "Sharkey et al. 2022, Taking features out of superposition: dictionaries that agree with larger ones have found the truth",
    needs: &[Need::Dictionary, Need::OtherWidth],
    kind: Kind::Cosine,
    shape: Shape::Scalar,
    label: "MMCS with the next larger dictionary",
    better: Some(Better::Higher),
};

/// [`MMCS_LARGER`] of a dictionary `[n_latents, d_hidden]` against a larger one.
pub fn mmcs_larger(dictionary: &Directions, larger: &Directions) -> Value {
    let all: Vec<usize> = (0..dictionary.n).collect();
    mmcs(&Survey::new(&Cosines::new(dictionary, larger), &[]), &all).map_err(|_| NO_LATENTS)
}

pub const RECOVERED: Definition = Definition {
    name: "recovered",
    version: 1,
    meaning: "share of represented features for which some latent has a signed cosine of 0.9 or more",
    formula: "share of i with max over j of w_j . g_i >= 0.9",
    source: "Sharkey et al. 2022, Taking features out of superposition",
    needs: &[Need::Truth, Need::Dictionary],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "features recovered (share)",
    better: Some(Better::Higher),
};

/// [`RECOVERED`]
pub fn recovered(survey: &Survey, represented: &[usize]) -> Value {
    let best = best_per_feature(survey, represented).ok_or(NO_LATENTS)?;
    mean(best.map(|cosine| (cosine >= RECOVERED_AT) as u8 as f64)).ok_or(NOTHING_REPRESENTED)
}

pub const MMCS_LATENTS: Definition = Definition {
    name: "mmcs_latents",
    version: 1,
    meaning: "mean over alive latents of the best signed cosine with any represented feature",
    formula: "mean over alive j of max over represented i of w_j . g_i",
    source: "HoagyC/sparse_coding standard_metrics.py, mmcs_to_fixed",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents],
    kind: Kind::Cosine,
    shape: Shape::Scalar,
    label: "mean max cosine similarity of latents",
    better: Some(Better::Higher),
};

/// [`MMCS_LATENTS`]
pub fn mmcs_latents(survey: &Survey, represented: &[usize], alive: &[usize]) -> Value {
    if represented.is_empty() {
        return Err(NOTHING_REPRESENTED);
    }
    mean(alive.iter().map(|&j| survey.best_of_latent[j])).ok_or(NOTHING_ALIVE)
}
