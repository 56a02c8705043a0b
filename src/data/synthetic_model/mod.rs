//! SAELens's `SyntheticModel` folders, read and written (`synthetic/synthetic_model.py`).
//!
//! A folder holds `synthetic_model_config.json`, `synthetic_model.safetensors` (`feature_vectors`, `bias`,
//! `firing_probabilities` after compensation, and `correlation_factor` and `correlation_diag` where features are correlated)
//! and, where features depend on each other, `hierarchy.json`. Magnitudes are not saved: they are made again from their
//! laws, folded normals with Torch's generator and a seed of their own, seed + 1 for standard deviations and seed + 2 for
//! means.
//!
//! Three things that go wrong there do not here: firing probabilities are always those that are saved, the copula's
//! thresholds follow from them (SAELens keeps those of the generated ones), and a folded normal without a seed, which would
//! be another world at every load, is refused.

mod files;
mod laws;

pub use files::{FILES, ModelError};
pub use laws::{MagnitudeLaw, ProbabilityLaw};

use super::correlation::Correlation;
use super::curve::Curve;
use super::dictionary::Dictionary;
use super::hierarchy::{Hierarchy, Node};
use super::rates::Rates;
use super::world::{Magnitude, MagnitudeSharing, World};

/// A synthetic model of SAELens: a world and its dictionary.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticModel {
    /// Directions, as they are saved, and bias; no noise.
    pub dictionary: Dictionary,
    /// `[n_features]`: what each feature's own coin shows, after compensation.
    pub firing_probability: Vec<f64>,
    /// The law that SAELens makes probabilities of again before it compensates them; none where no law of its makes these.
    pub law: Option<ProbabilityLaw>,
    /// Whether SAELens compensates the probabilities of that law for the hierarchy.
    pub compensated: bool,
    /// Mean of each feature's value where it fires.
    pub mean: MagnitudeLaw,
    /// Its standard deviation.
    pub std: MagnitudeLaw,
    /// Seed of the model, from which folded normals take theirs.
    pub seed: Option<u64>,
    /// Low rank, or none.
    pub correlation: Option<Correlation>,
    /// Trees, parents before their children.
    pub hierarchy: Option<Vec<Node>>,
}

/// Why a world is no synthetic model of SAELens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSaeLens {
    /// A law of magnitudes that SAELens does not have.
    #[error(
        "SAELens draws magnitudes from a normal, clipped at 0; this world has another law: use `normal` or `constant`"
    )]
    Magnitude,
    /// Means or standard deviations that no law of SAELens makes.
    #[error(
        "SAELens does not save the {what} of magnitudes but makes them again from a law: a constant, `from_to`, `exponential` or \
         `torch_folded_normal`; this world's follow none of them"
    )]
    Curve { what: &'static str },
    /// Drawn magnitudes whose seeds are not those of one model.
    #[error(
        "SAELens draws standard deviations with the seed of the model + 1 and means with that + 2: no model has {std:?} and {mean:?}"
    )]
    Seeds { std: Option<u64>, mean: Option<u64> },
    /// Something that SAELens has no word for.
    #[error("SAELens has no {what}")]
    Part { what: &'static str },
}

impl SyntheticModel {
    /// The model of a world whose means and standard deviations follow laws without randomness.
    ///
    /// # Errors
    /// If SAELens cannot say the world.
    pub fn of_world(world: &World, dictionary: &Dictionary) -> Result<SyntheticModel, NotSaeLens> {
        SyntheticModel::of_drawn_world(world, dictionary, [None, None])
    }

    /// The model of a world, given the curves that means and standard deviations came from, which tell a law that is drawn.
    ///
    /// # Errors
    /// If SAELens cannot say the world.
    pub fn of_drawn_world(
        world: &World,
        dictionary: &Dictionary,
        curves: [Option<&Curve>; 2],
    ) -> Result<SyntheticModel, NotSaeLens> {
        let refuse = |what| Err(NotSaeLens::Part { what });
        match world {
            World { groups, .. } if !groups.is_empty() => return refuse("groups of features"),
            World { dataset: Some(_), .. } => return refuse("finite training sets"),
            World { magnitude_sharing: MagnitudeSharing::Sample, .. } => return refuse("shared magnitudes"),
            World { correlation: Some(Correlation::Full { .. }), .. } => return refuse("saved correlation matrices"),
            _ if dictionary.noise > 0.0 => return refuse("noise on hidden states"),
            _ => {}
        }
        let n = world.n_features;
        let (mean, std) = match &world.magnitude {
            Magnitude::Constant(values) if values.iter().all(|v| *v >= 0.0) => (values.clone(), vec![0.0; n]),
            Magnitude::Normal { mean, std } => (mean.clone(), std.clone()),
            _ => return Err(NotSaeLens::Magnitude),
        };
        let drawn = curves.map(|curve| curve.and_then(MagnitudeLaw::of_drawn));
        let seeds = [0, 1].map(|at| drawn[at].as_ref().map(|(_, seed)| *seed));
        let law = |values: &[f64], at: usize, what| match &drawn[at] {
            Some((law, _)) => Ok(law.clone()),
            None => MagnitudeLaw::of_values(values).ok_or(NotSaeLens::Curve { what }),
        };
        let base = compensated_from(world);
        Ok(SyntheticModel {
            dictionary: dictionary.clone(),
            firing_probability: world.firing_probability.clone(),
            law: ProbabilityLaw::of_values(base.unwrap_or(&world.firing_probability)),
            compensated: base.is_some(),
            mean: law(&mean, 0, "means")?,
            std: law(&std, 1, "standard deviations")?,
            seed: seed_of(seeds)?,
            correlation: world.correlation.clone(),
            hierarchy: world.hierarchy.as_ref().map(|hierarchy| hierarchy.nodes.clone()),
        })
    }

    /// The world, magnitudes made again.
    ///
    /// # Errors
    /// [`ModelError::Unseeded`] where they were drawn without a seed.
    pub fn world(&self) -> Result<World, ModelError> {
        let n = self.firing_probability.len();
        let values = |law: &MagnitudeLaw, more: u64| {
            law.values(n, self.seed.map(|seed| seed.wrapping_add(more))).ok_or(ModelError::Unseeded)
        };
        Ok(World {
            n_features: n,
            firing_probability: self.firing_probability.clone(),
            magnitude: Magnitude::Normal { mean: values(&self.mean, 2)?, std: values(&self.std, 1)? },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: self.correlation.clone(),
            hierarchy: self.hierarchy.as_ref().map(|nodes| Hierarchy { nodes: nodes.clone(), asked: None }),
        })
    }

    /// What will differ in SAELens although the files say all there is to say.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        if self.correlation.is_some() && self.law.is_none() {
            warnings.push(
                "SAELens computes the thresholds of correlated features from a law of firing probabilities, not from the \
                 saved ones, and none of its laws makes these: features will fire at other rates there"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// The seed of the model that draws means and standard deviations with these; none where it draws neither.
fn seed_of([mean, std]: [Option<u64>; 2]) -> Result<Option<u64>, NotSaeLens> {
    let refused = || NotSaeLens::Seeds { std, mean };
    let before = |seed: Option<u64>, more: u64| seed.map(|s| s.checked_sub(more).ok_or_else(refused)).transpose();
    match (before(mean, 2)?, before(std, 1)?) {
        (Some(of_mean), Some(of_std)) if of_mean != of_std => Err(refused()),
        (of_mean, of_std) => Ok(of_mean.or(of_std)),
    }
}

/// What the probabilities of a world were asked to be, where SAELens's compensation makes of that what they are.
fn compensated_from(world: &World) -> Option<&[f64]> {
    let asked = world.hierarchy.as_ref()?.asked.as_deref()?;
    let again = World { firing_probability: asked.to_vec(), ..world.clone() }.with_rates(Rates::FirstOrder);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * b;
    let same = again.firing_probability.iter().zip(&world.firing_probability).all(near);
    (same && asked != world.firing_probability).then_some(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::hierarchy::Trees;
    use crate::testing::{golden, json};
    use serde_json::Value;

    fn numbers(list: &Value) -> Vec<f64> {
        list.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
    }

    fn near(found: &[f64], expected: &[f64], bound: f64) {
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= bound, "{at}: {found} {expected}");
        }
    }

    /// A folder that SAELens 6.54 wrote: twenty features in six dimensions, two trees, three factors, seed 42. Probabilities
    /// are read as they stand; magnitudes are made again within 2e-6.
    #[test]
    fn a_folder_of_saelens_gives_its_world() {
        let model = SyntheticModel::load(&golden("synthetic_model")).expect("a folder of SAELens");
        let expected = json(golden("synthetic_model/expected.json"));
        near(&model.firing_probability, &numbers(&expected["probability"]), 1e-15);
        let world = model.world().expect("seeded");
        let Magnitude::Normal { mean, std } = &world.magnitude else { panic!("normal") };
        near(mean, &numbers(&expected["mean"]), 2e-6);
        near(std, &numbers(&expected["std"]), 2e-6);
        let Some(Correlation::LowRank { rank, factor, diagonal }) = &world.correlation else { panic!("low rank") };
        assert_eq!((*rank, factor.len(), diagonal.len()), (3, 60, 20));
        assert_eq!((model.dictionary.n_features, model.dictionary.d_hidden), (20, 6));
        let norm = model.dictionary.bias.iter().map(|b| *b as f64 * *b as f64).sum::<f64>().sqrt();
        assert!((norm - 0.5).abs() < 1e-6);
        assert_eq!(model.law, Some(ProbabilityLaw::Zipfian { exponent: 0.5, max: 0.4, min: 0.05 }));
        assert!(model.compensated && model.warnings().is_empty());
        // Two roots, three children each, three below each of those, as far as twenty features go.
        let nodes = model.hierarchy.as_ref().expect("trees");
        let parent = |feature: usize| {
            let node = nodes.iter().find(|node| node.feature == Some(feature)).expect("in a tree");
            node.parent.map(|parent| nodes[parent].feature.expect("a feature"))
        };
        let parents: Vec<Option<usize>> = (0..20).map(parent).collect();
        let expected =
            [vec![None; 2], (0..6).map(|i| Some(i / 3)).collect(), (0..12).map(|i| Some(2 + i / 3)).collect()];
        assert_eq!(parents, expected.concat());
        assert!(nodes.iter().enumerate().all(|(at, node)| node.parent.is_none_or(|parent| parent < at)));
        let exclusive = |node: &&Node| node.exclusive && node.scale_children;
        assert_eq!(nodes.iter().filter(exclusive).count(), (0.6f64 * 6.0) as usize);
    }

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let model = SyntheticModel::load(&golden("synthetic_model")).expect("a folder of SAELens");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = folder.path().join("below/model");
        model.write(&to).expect("a folder takes files");
        assert_eq!(SyntheticModel::load(&to).expect("it was written"), model);
    }

    fn plain(n: usize) -> World {
        World {
            n_features: n,
            firing_probability: vec![0.1; n],
            magnitude: Magnitude::Constant((0..n).map(|i| 5.0 - i as f64 / (n - 1) as f64).collect()),
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        }
    }

    #[test]
    fn a_world_of_tegum_becomes_a_model_that_is_the_same_world() {
        let (world, dictionary) = (plain(7), Dictionary::random(7, 4, 1).with_bias(0.5, 1));
        let model = SyntheticModel::of_world(&world, &dictionary).expect("SAELens has all of it");
        assert_eq!(model.mean, MagnitudeLaw::Linear { start: 5.0, end: 4.0 });
        assert_eq!(
            (model.std.clone(), model.law.clone()),
            (MagnitudeLaw::Constant(0.0), Some(ProbabilityLaw::Constant(0.1)))
        );
        let folder = tempfile::tempdir().expect("a temporary folder");
        model.write(folder.path()).expect("a folder takes files");
        let read = SyntheticModel::load(folder.path()).expect("it was written");
        assert_eq!(read.dictionary, dictionary);
        // The file holds f32.
        near(&read.firing_probability, &world.firing_probability, 1e-8);
        assert!(!folder.path().join("hierarchy.json").exists());
    }

    #[test]
    fn compensated_rates_are_written_as_the_law_that_was_asked() {
        let trees = Trees {
            roots: 4,
            branching: [2, 2],
            depth: 2,
            exclusive: 1.0,
            exclusive_levels: [0, 9],
            scale_children: true,
        };
        let world = World {
            firing_probability: Curve::Zipf { exponent: 0.5, max: 0.4, min: 0.05 }.values(40, 0),
            hierarchy: Some(Hierarchy::generated(40, &trees, 0)),
            correlation: Some(Correlation::low_rank(40, 3, 0.1, 0).expect("a scale").correlation),
            ..plain(40)
        };
        let dictionary = Dictionary::random(40, 8, 1);
        let law = ProbabilityLaw::Zipfian { exponent: 0.5, max: 0.4, min: 0.05 };
        let first_order = world.clone().with_rates(Rates::FirstOrder);
        let model = SyntheticModel::of_world(&first_order, &dictionary).expect("SAELens has all of it");
        assert_eq!((model.law.as_ref(), model.compensated, model.warnings().len()), (Some(&law), true, 0));
        let as_given = world.clone().with_rates(Rates::AsGiven);
        let model = SyntheticModel::of_world(&as_given, &dictionary).expect("SAELens has all of it");
        assert_eq!((model.law.as_ref(), model.compensated), (Some(&law), false));
        let exact = world.with_rates(Rates::Exact);
        let model = SyntheticModel::of_world(&exact, &dictionary).expect("SAELens has all but the law");
        assert_eq!((model.law.clone(), model.compensated, model.warnings().len()), (None, false, 1));
    }

    /// The standard deviations of SynthSAEBench's model of seed 42 are drawn with seed 43; the first are known.
    #[test]
    fn standard_deviations_of_torch_are_written_as_their_law_and_seed() {
        let std = Curve::TorchFoldedNormal { mean: 0.5, std: 0.5, seed: 43 };
        let known = [0.491698, 0.266603, 1.545449, 0.807451, 0.218952, 0.292874, 0.150046, 0.449402];
        near(&std.values(16384, 0)[..8], &known, 2e-6);
        let own = vec![5.0; 40];
        let world = World { magnitude: Magnitude::Normal { mean: own, std: std.values(40, 7) }, ..plain(40) };
        let dictionary = Dictionary::random(40, 8, 1);
        assert_eq!(
            SyntheticModel::of_world(&world, &dictionary).unwrap_err(),
            NotSaeLens::Curve { what: "standard deviations" }
        );
        let of = |curves| SyntheticModel::of_drawn_world(&world, &dictionary, curves);
        let model = of([None, Some(&std)]).expect("SAELens has the law");
        assert_eq!(model.seed, Some(42));
        assert_eq!(model.world().expect("seeded").magnitude, world.magnitude);
        let mean = |seed| Curve::TorchFoldedNormal { mean: 0.0, std: 1.0, seed };
        let [fits, same, negative] = [44, 43, 1].map(mean);
        assert_eq!(of([Some(&fits), Some(&std)]).expect("one model").seed, Some(42));
        for (seed, curve) in [(43, &same), (1, &negative)] {
            let refused = NotSaeLens::Seeds { std: Some(43), mean: Some(seed) };
            assert_eq!(of([Some(curve), Some(&std)]).unwrap_err(), refused);
        }
    }

    #[test]
    fn worlds_that_saelens_cannot_say_are_refused() {
        let dictionary = Dictionary::random(3, 4, 1);
        let refused = |change: &dyn Fn(&mut World)| {
            let mut world = plain(3);
            change(&mut world);
            SyntheticModel::of_world(&world, &dictionary).unwrap_err()
        };
        assert_eq!(refused(&|w| w.magnitude = Magnitude::Symmetric(1.0)), NotSaeLens::Magnitude);
        assert_eq!(refused(&|w| w.magnitude = Magnitude::Constant(vec![1.0, -1.0, 1.0])), NotSaeLens::Magnitude);
        assert_eq!(
            refused(&|w| w.magnitude = Magnitude::Constant(vec![1.0, 5.0, 2.0])),
            NotSaeLens::Curve { what: "means" }
        );
        let full = Correlation::from_pairs(3, 0.1, &[]).expect("positive");
        assert_eq!(
            refused(&|w| w.correlation = Some(full.clone())),
            NotSaeLens::Part { what: "saved correlation matrices" }
        );
        let noisy = dictionary.clone().with_noise(0.1);
        assert!(SyntheticModel::of_world(&plain(3), &noisy).is_err());
    }

    #[test]
    fn bad_folders_are_refused_with_their_reason() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let load = || SyntheticModel::load(folder.path()).unwrap_err().to_string();
        assert!(load().contains("synthetic_model_config.json"), "{}", load());
        let model = SyntheticModel::load(&golden("synthetic_model")).expect("a folder of SAELens");
        model.write(folder.path()).expect("a folder takes files");
        let config = folder.path().join("synthetic_model_config.json");
        let text = std::fs::read_to_string(&config).expect("it was written");
        let change = |from: &str, to: &str| {
            assert!(text.contains(from), "{from} in {text}");
            std::fs::write(&config, text.replace(from, to)).expect("it is ours");
        };
        change("\"num_features\": 20", "\"num_features\": 21");
        assert!(load().contains("feature_vectors has shape [20, 6], expected [21, 6]"), "{}", load());
        change("\"folded_normal\"", "\"my_own\"");
        assert!(load().contains("my_own"), "{}", load());
        change("\"seed\": 42", "\"seed\": null");
        let unseeded = SyntheticModel::load(folder.path()).expect("all but magnitudes is there");
        assert!(matches!(unseeded.world(), Err(ModelError::Unseeded)));
        std::fs::write(&config, &text).expect("it is ours");
        let trees = folder.path().join("hierarchy.json");
        std::fs::write(&trees, r#"{"roots": [{"feature_index": 1, "children": [{"feature_index": 1}]}]}"#)
            .expect("ours");
        assert!(load().contains("feature 1 stands twice"), "{}", load());
        std::fs::write(&trees, r#"{"roots": [{"feature_index": 20}]}"#).expect("ours");
        assert!(load().contains("feature 20"), "{}", load());
        std::fs::remove_file(&trees).expect("ours");
        std::fs::write(folder.path().join("synthetic_model.safetensors"), b"no").expect("ours");
        assert!(load().contains("synthetic_model.safetensors"), "{}", load());
    }
}
