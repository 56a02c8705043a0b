//! A latent as a detector of the feature that it points at.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::firings::{Firings, both, f1};
use super::{Undefined, Value};

const SAELENS: &str = "SAELens synthetic/evals.py, classification";
const NEEDS: &[Need] = &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents];

pub const PRECISION: Definition = Definition {
    name: "precision",
    version: 1,
    meaning: "when a latent fires, how often the feature it points at is there; mean over all latents, dead ones 0",
    formula: "mean over j of tp / (tp + fp), feature of j = argmax |w_j . g_i|; 0 where undefined",
    source: SAELENS,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "precision",
    better: Some(Better::Higher),
};

pub const RECALL: Definition = Definition {
    name: "recall",
    version: 1,
    meaning: "when a feature is there, how often the latent pointing at it fires; mean over all latents, dead ones 0",
    formula: "mean over j of tp / (tp + fn), feature of j = argmax |w_j . g_i|; 0 where undefined",
    source: SAELENS,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "recall",
    better: Some(Better::Higher),
};

pub const F1: Definition = Definition {
    name: "f1",
    version: 1,
    meaning: "agreement of each latent's firing with that of the feature it points at; mean over all latents, dead ones 0",
    formula: "mean over j of 2 tp / (2 tp + fp + fn), feature of j = argmax |w_j . g_i|; 0 where undefined",
    source: SAELENS,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "F1",
    better: Some(Better::Higher),
};

pub const ACCURACY: Definition = Definition {
    name: "accuracy",
    version: 1,
    meaning: "share of samples on which a latent and the feature it points at both fire or both do not; mean over all latents",
    formula: "mean over j of (tp + tn) / samples, feature of j = argmax |w_j . g_i|",
    source: SAELENS,
    needs: NEEDS,
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "accuracy",
    better: Some(Better::Higher),
};

/// [`PRECISION`], [`RECALL`], [`F1`] and [`ACCURACY`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification {
    pub precision: Value,
    pub recall: Value,
    pub f1: Value,
    pub accuracy: Value,
}

/// `closest`: the feature that each latent points at, `[n_latents]`.
pub fn classification(closest: &[usize], features: &Firings, latents: &Firings) -> Classification {
    if closest.is_empty() {
        let nothing = Err(Undefined("no feature or no latent"));
        return Classification { precision: nothing, recall: nothing, f1: nothing, accuracy: nothing };
    }
    let (mut precision, mut recall, mut f1_sum, mut accuracy) = (0.0, 0.0, 0.0, 0.0);
    for (j, &i) in closest.iter().enumerate() {
        let hits = both(latents, j, features, i);
        precision += share(hits, latents.counts[j]);
        recall += share(hits, features.counts[i]);
        f1_sum += f1(hits, latents.counts[j], features.counts[i]);
        let apart = latents.counts[j] + features.counts[i] - 2 * hits;
        accuracy += share(features.samples - apart, features.samples);
    }
    let n = closest.len() as f64;
    Classification {
        precision: Ok(precision / n),
        recall: Ok(recall / n),
        f1: Ok(f1_sum / n),
        accuracy: Ok(accuracy / n),
    }
}

fn share(hits: usize, of: usize) -> f64 {
    if of == 0 { 0.0 } else { hits as f64 / of as f64 }
}
