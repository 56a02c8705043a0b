//! What several scores need, worked out when the first of them asks. Each is None where its arrays are missing.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use ndarray::ArrayView2;

use super::absorption::Scene;
use super::activity::{Activity, Held, Side};
use super::classification::{Classification, classification};
use super::firing_match::belongs_to;
use super::geometry::{Overlap, dimensionality, overlaps, represented};
use super::matching::{Cosines, assign};
use super::reconstruction::Rebuilt;
use super::splitting::latent_sets;
use super::survey::Survey;
use super::vector::{Directions, Real};
use super::{Arrays, TruthRows};

/// The truth with what has been worked out of it: for directions that several dictionaries are scored against.
pub struct Truth {
    pub(super) directions: Directions,
    /// Features of norm at least 0.5, ascending.
    pub(super) represented: Vec<usize>,
    overlaps: OnceLock<Vec<Overlap>>,
}

impl Truth {
    /// Of rows `[n_features, d_hidden]`.
    pub fn new<T: Real>(rows: ArrayView2<'_, T>) -> Truth {
        let directions = Directions::new(rows);
        Truth { represented: represented(&directions), directions, overlaps: OnceLock::new() }
    }

    pub(super) fn overlaps(&self) -> &[Overlap] {
        self.overlaps.get_or_init(|| overlaps(&self.directions))
    }
}

enum HeldTruth<'a> {
    Lent(&'a Truth),
    Own(Box<Truth>),
}

/// What scores are computed from, the truth and the dictionary as directions, activations by what is not 0.
pub struct Inputs<'a, T> {
    truth: HeldTruth<'a>,
    dictionary: Option<Directions>,
    features: Option<Held<'a, T>>,
    latents: Option<Held<'a, T>>,
    rebuilt: Option<Rebuilt>,
    parents: Option<&'a BTreeMap<usize, usize>>,
}

impl<'a, T: Real> Inputs<'a, T> {
    pub fn new(arrays: &Arrays<'a, T>) -> Inputs<'a, T> {
        let dense = arrays.hidden.zip(arrays.reconstruction).map(|(h, r)| Rebuilt::of(h, r));
        Inputs {
            truth: match arrays.truth {
                TruthRows::Rows(rows) => HeldTruth::Own(Box::new(Truth::new(rows))),
                TruthRows::Prepared(truth) => HeldTruth::Lent(truth),
            },
            dictionary: arrays.dictionary.map(Directions::new),
            features: arrays.features.map(|x| Held::new(x, Side::Features)),
            latents: arrays.latents.map(|z| Held::new(z, Side::Latents)),
            rebuilt: dense.or_else(|| arrays.rebuilt.cloned()),
            parents: arrays.parents.filter(|parents| !parents.is_empty()),
        }
    }
}

pub struct Shared<'a, T> {
    whole_truth: &'a Truth,
    pub truth: &'a Directions,
    /// Features of norm at least 0.5, ascending.
    pub represented: &'a [usize],
    pub dictionary: Option<&'a Directions>,
    pub features: Option<&'a Activity<'a, T>>,
    pub latents: Option<&'a Activity<'a, T>>,
    pub rebuilt: Option<&'a Rebuilt>,
    /// None where there are no pairs.
    pub parents: Option<&'a BTreeMap<usize, usize>>,
    cosines: OnceCell<Cosines<'a>>,
    survey: OnceCell<Survey>,
    alive: OnceCell<Vec<usize>>,
    pairs: OnceCell<Vec<(usize, usize)>>,
    matching: OnceCell<Vec<Option<usize>>>,
    owner: OnceCell<Vec<Option<usize>>>,
    sets: OnceCell<Vec<Vec<usize>>>,
    classification: OnceCell<Classification>,
}

impl<'a, T: Real> Shared<'a, T> {
    pub fn new(inputs: &'a Inputs<'a, T>) -> Shared<'a, T> {
        let truth = match &inputs.truth {
            HeldTruth::Lent(truth) => truth,
            HeldTruth::Own(truth) => &**truth,
        };
        Shared {
            whole_truth: truth,
            truth: &truth.directions,
            represented: &truth.represented,
            dictionary: inputs.dictionary.as_ref(),
            features: inputs.features.as_ref().map(Held::get),
            latents: inputs.latents.as_ref().map(Held::get),
            rebuilt: inputs.rebuilt.as_ref(),
            parents: inputs.parents,
            cosines: OnceCell::new(),
            survey: OnceCell::new(),
            alive: OnceCell::new(),
            pairs: OnceCell::new(),
            matching: OnceCell::new(),
            owner: OnceCell::new(),
            sets: OnceCell::new(),
            classification: OnceCell::new(),
        }
    }

    pub fn overlaps(&self) -> &'a [Overlap] {
        self.whole_truth.overlaps()
    }

    pub fn dimensionality(&self) -> Vec<f64> {
        dimensionality(self.truth, self.overlaps())
    }

    pub fn cosines(&self) -> Option<&Cosines<'a>> {
        let dictionary = self.dictionary?;
        Some(self.cosines.get_or_init(|| Cosines::new(self.truth, dictionary)))
    }

    pub fn survey(&self) -> Option<&Survey> {
        let cosines = self.cosines()?;
        Some(self.survey.get_or_init(|| Survey::new(cosines, self.represented)))
    }

    /// Latents that fire at least once, ascending.
    pub fn alive(&self) -> Option<&[usize]> {
        let firings = self.latents?.firings();
        Some(self.alive.get_or_init(|| firings.alive()))
    }

    /// The assignment of all features and all latents, as pairs (feature, latent).
    pub fn pairs(&self) -> Option<&[(usize, usize)]> {
        let cosines = self.cosines()?;
        let (features, latents) =
            ((0..cosines.n_features).collect::<Vec<_>>(), (0..cosines.n_latents).collect::<Vec<_>>());
        Some(self.pairs.get_or_init(|| assign(cosines, &features, &latents)))
    }

    /// The latent of each feature: represented features and alive latents. `[n_features]`; None for a feature that is not
    /// represented, or left over.
    pub fn matching(&self) -> Option<&Vec<Option<usize>>> {
        let (cosines, alive) = (self.cosines()?, self.alive()?);
        Some(self.matching.get_or_init(|| {
            let mut latent_of = vec![None; cosines.n_features];
            // Where all take part, the assignment may be there already.
            let all = alive.len() == cosines.n_latents && self.represented.len() == cosines.n_features;
            let pairs = match self.pairs.get().filter(|_| all) {
                Some(pairs) => pairs.clone(),
                None => assign(cosines, self.represented, alive),
            };
            pairs.into_iter().for_each(|(feature, latent)| latent_of[feature] = Some(latent));
            latent_of
        }))
    }

    pub fn belongs_to(&self) -> Option<&Vec<Option<usize>>> {
        let (cosines, features, latents) = (self.cosines()?, self.features?, self.latents?);
        Some(self.owner.get_or_init(|| belongs_to(cosines, self.represented, features, latents.firings())))
    }

    pub fn sets(&self) -> Option<&Vec<Vec<usize>>> {
        let (cosines, owner) = (self.cosines()?, self.belongs_to()?);
        let (features, latents) = (self.features?, self.latents?);
        Some(self.sets.get_or_init(|| latent_sets(cosines, owner, features.firings(), latents.firings())))
    }

    pub fn classification(&self) -> Option<&Classification> {
        let (closest, features, latents) = (&self.survey()?.closest, self.features?, self.latents?);
        Some(self.classification.get_or_init(|| classification(closest, features.firings(), latents.firings())))
    }

    pub fn scene(&self) -> Option<Scene<'_, T>> {
        Some(Scene {
            truth: self.truth,
            dictionary: self.dictionary?,
            cosines: self.cosines()?,
            features: self.features?,
            latents: self.latents?.codes(),
            owner: self.belongs_to()?,
            sets: self.sets()?,
        })
    }
}
