//! What several scores need, worked out when the first of them asks. Each is None where its arrays are missing.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::Arrays;
use super::absorption::Scene;
use super::classification::{Classification, classification};
use super::correlation::Moments;
use super::firing_match::belongs_to;
use super::firings::Firings;
use super::geometry::{Overlap, dimensionality, overlaps, represented};
use super::matching::{Cosines, latent_of_feature};
use super::splitting::latent_sets;
use super::uniqueness::closest_feature;
use super::vector::{Directions, Real, Rows};

pub struct Shared<'a, T: Clone> {
    pub truth: Directions,
    /// Features of norm at least 0.5, ascending.
    pub represented: Vec<usize>,
    pub dictionary: Option<Directions>,
    pub features: Option<Rows<'a, T>>,
    pub latents: Option<Rows<'a, T>>,
    pub hidden: Option<Rows<'a, T>>,
    pub reconstruction: Option<Rows<'a, T>>,
    /// None where there are no pairs.
    pub parents: Option<&'a BTreeMap<usize, usize>>,
    overlaps: OnceCell<Vec<Overlap>>,
    cosines: OnceCell<Cosines>,
    closest: OnceCell<Vec<usize>>,
    feature_firings: OnceCell<Firings>,
    latent_firings: OnceCell<Firings>,
    feature_moments: OnceCell<Moments>,
    alive: OnceCell<Vec<usize>>,
    matching: OnceCell<Vec<Option<usize>>>,
    owner: OnceCell<Vec<Option<usize>>>,
    sets: OnceCell<Vec<Vec<usize>>>,
    classification: OnceCell<Classification>,
}

impl<'a, T: Real> Shared<'a, T> {
    pub fn new(arrays: &Arrays<'a, T>) -> Shared<'a, T> {
        let truth = Directions::new(arrays.truth);
        Shared {
            represented: represented(&truth),
            truth,
            dictionary: arrays.dictionary.map(Directions::new),
            features: arrays.features.map(Rows::new),
            latents: arrays.latents.map(Rows::new),
            hidden: arrays.hidden.map(Rows::new),
            reconstruction: arrays.reconstruction.map(Rows::new),
            parents: arrays.parents.filter(|parents| !parents.is_empty()),
            overlaps: OnceCell::new(),
            cosines: OnceCell::new(),
            closest: OnceCell::new(),
            feature_firings: OnceCell::new(),
            latent_firings: OnceCell::new(),
            feature_moments: OnceCell::new(),
            alive: OnceCell::new(),
            matching: OnceCell::new(),
            owner: OnceCell::new(),
            sets: OnceCell::new(),
            classification: OnceCell::new(),
        }
    }

    pub fn overlaps(&self) -> &[Overlap] {
        self.overlaps.get_or_init(|| overlaps(&self.truth))
    }

    pub fn dimensionality(&self) -> Vec<f64> {
        dimensionality(&self.truth, self.overlaps())
    }

    pub fn cosines(&self) -> Option<&Cosines> {
        let dictionary = self.dictionary.as_ref()?;
        Some(self.cosines.get_or_init(|| Cosines::new(&self.truth, dictionary)))
    }

    pub fn closest(&self) -> Option<&[usize]> {
        let cosines = self.cosines()?;
        Some(self.closest.get_or_init(|| closest_feature(cosines)))
    }

    pub fn feature_firings(&self) -> Option<&Firings> {
        let features = self.features.as_ref()?;
        Some(self.feature_firings.get_or_init(|| Firings::new(features, |x| x > T::default())))
    }

    pub fn latent_firings(&self) -> Option<&Firings> {
        let latents = self.latents.as_ref()?;
        Some(self.latent_firings.get_or_init(|| Firings::new(latents, |z| z != T::default())))
    }

    pub fn feature_moments(&self) -> Option<&Moments> {
        let features = self.features.as_ref()?;
        Some(self.feature_moments.get_or_init(|| Moments::new(features)))
    }

    /// Latents that fire at least once, ascending.
    pub fn alive(&self) -> Option<&[usize]> {
        let firings = self.latent_firings()?;
        Some(self.alive.get_or_init(|| firings.alive()))
    }

    /// The latent of each feature: represented features and alive latents.
    pub fn matching(&self) -> Option<&Vec<Option<usize>>> {
        let (cosines, alive) = (self.cosines()?, self.alive()?);
        Some(self.matching.get_or_init(|| latent_of_feature(cosines, &self.represented, alive)))
    }

    pub fn belongs_to(&self) -> Option<&Vec<Option<usize>>> {
        let (cosines, features, latents) = (self.cosines()?, self.feature_firings()?, self.latent_firings()?);
        Some(self.owner.get_or_init(|| belongs_to(cosines, &self.represented, features, latents)))
    }

    pub fn sets(&self) -> Option<&Vec<Vec<usize>>> {
        let (cosines, owner) = (self.cosines()?, self.belongs_to()?);
        let (features, latents) = (self.feature_firings()?, self.latent_firings()?);
        Some(self.sets.get_or_init(|| latent_sets(cosines, owner, features, latents)))
    }

    pub fn classification(&self) -> Option<&Classification> {
        let (closest, features, latents) = (self.closest()?, self.feature_firings()?, self.latent_firings()?);
        Some(self.classification.get_or_init(|| classification(closest, features, latents)))
    }

    pub fn scene(&self) -> Option<Scene<'_, T>> {
        Some(Scene {
            truth: &self.truth,
            dictionary: self.dictionary.as_ref()?,
            cosines: self.cosines()?,
            features: self.features.as_ref()?,
            latents: self.latents.as_ref()?,
            feature_firings: self.feature_firings()?,
            owner: self.belongs_to()?,
            sets: self.sets()?,
        })
    }
}
