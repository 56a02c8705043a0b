//! Dictionary and latents against the truth.
//!
//! One score, one file: its [`Definition`] stands beside the function that computes it, and [`SCORES`] lists them all.
//! [`evaluate`] takes the arrays there are and gives every score that they allow. What several scores need (cosines,
//! firings, the matching, which latent belongs to which feature) is worked out once, when the first of them asks.
//!
//! Words: g_i and w_j are unit rows of truth and decoder; a feature fires where x > 0, a latent where z ≠ 0; a feature is
//! represented where its row has norm at least 0.5; a latent is alive where it fires on some sample. A score with nothing
//! to average over is null with a reason, never 0 and never NaN. Multiplying a latent by s > 0 and dividing its decoder
//! row by s changes no score, nor does rotating truth, decoder, hidden states and reconstructions together.
//!
//! Everything is f64, in one order: the same arrays give the same bits for any number of threads, on any machine.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use ndarray::ArrayView2;

pub mod definition;
pub mod input;

mod absorption;
mod absorption_gap;
mod activity;
mod assignment;
mod census;
mod classification;
mod composed;
mod correlation;
mod counts;
mod cross;
mod data_dimensionality;
mod decoder;
mod exact_recovery;
mod firing_match;
mod firings;
mod fisher;
mod gaps;
mod geometry;
mod graph;
mod hedging;
mod interference;
mod intervention;
mod leakage;
mod least_squares;
mod magnitude;
mod matching;
mod mcc;
mod merging;
mod mixing;
mod mmcs;
mod neurons;
mod of_cell;
mod of_world;
mod readout;
mod reconstruction;
mod sets;
mod shared;
mod simulation;
mod sparsity;
mod splitting;
mod survey;
mod tiles;
mod toy_loss;
mod uniqueness;
mod vector;
mod vulnerability;

#[cfg(test)]
mod tests;

pub use activity::{Activations, Activity, Side};
pub use data_dimensionality::{DATA_DIMENSIONALITY, data_dimensionality};
pub use definition::{Better, Definition, Index, Kind, Need, SCORES, Shape, definition, parse_name, suggest};
pub use geometry::REPRESENTED;
pub use neurons::{Neurons, neuron_score};
pub use of_cell::{CellArrays, hedging_rate, mmcs_with_larger, of_cell};
pub use of_world::{WorldArrays, of_groups, of_world};
pub use reconstruction::{PIECE, Rebuilt};
pub use shared::Truth;
pub use toy_loss::{LOSS_WEIGHTED, ToyLoss, toy_loss};
pub use vector::Real;

use shared::{Inputs, Shared};

/// Why a score has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undefined(pub &'static str);

/// A score, or why there is none.
pub type Value = Result<f64, Undefined>;

const NO_SAMPLES: Undefined = Undefined("there are no samples");
const NOTHING_REPRESENTED: Undefined = Undefined("no feature is represented");
const OVERFLOW: Undefined = Undefined("the arrays are too large for f64 sums");
const NOTHING_ALIVE: Undefined = Undefined("no latent is alive");

/// What is scored. `T` is f32 or f64; sums are f64 in either case.
///
/// Preconditions of [`evaluate`], checked by whoever reads the arrays (and by debug assertions): rows and columns agree
/// as the shapes say, every number is finite, every child and parent is below n_features.
#[derive(Clone, Copy)]
pub struct Arrays<'a, T = f32> {
    /// `[n_features, d_hidden]`: true directions as they are, not normalised; of a toy model the columns W_i as rows.
    pub truth: TruthRows<'a, T>,
    /// `[n_latents, d_hidden]`: decoder rows as trained, not normalised.
    pub dictionary: Option<ArrayView2<'a, T>>,
    /// `[samples, n_features]`: true activations x.
    pub features: Option<Activations<'a, T>>,
    /// `[samples, n_latents]`: latents z under the inference rule.
    pub latents: Option<Activations<'a, T>>,
    /// `[samples, d_hidden]`: hidden states h given to the SAE.
    pub hidden: Option<ArrayView2<'a, T>>,
    /// `[samples, d_hidden]`: what the SAE makes of them.
    pub reconstruction: Option<ArrayView2<'a, T>>,
    /// In place of these two the sums over them, where they are not held whole.
    pub rebuilt: Option<&'a Rebuilt>,
    /// {child: parent}, features by index. An empty map is as none.
    pub parents: Option<&'a BTreeMap<usize, usize>>,
}

impl<'a, T> Arrays<'a, T> {
    /// The truth alone; set the other fields as there are arrays.
    pub fn of_truth(truth: impl Into<TruthRows<'a, T>>) -> Self {
        Arrays {
            truth: truth.into(),
            dictionary: None,
            features: None,
            latents: None,
            hidden: None,
            reconstruction: None,
            rebuilt: None,
            parents: None,
        }
    }
}

/// True directions `[n_features, d_hidden]`.
#[derive(Clone, Copy)]
pub enum TruthRows<'a, T> {
    /// As they are.
    Rows(ArrayView2<'a, T>),
    /// With what has been worked out of them before.
    Prepared(&'a Truth),
}

impl<T> TruthRows<'_, T> {
    fn dim(&self) -> (usize, usize) {
        match self {
            TruthRows::Rows(rows) => rows.dim(),
            TruthRows::Prepared(truth) => (truth.directions.n, truth.directions.d_hidden),
        }
    }
}

impl<'a, T> From<ArrayView2<'a, T>> for TruthRows<'a, T> {
    fn from(rows: ArrayView2<'a, T>) -> Self {
        TruthRows::Rows(rows)
    }
}

impl<'a, T> From<&'a Truth> for TruthRows<'a, T> {
    fn from(truth: &'a Truth) -> Self {
        TruthRows::Prepared(truth)
    }
}

/// A vector score, one entry a feature or a latent.
#[derive(Clone, Debug, PartialEq)]
pub enum Vector {
    /// None where the entry is undefined.
    Numbers(Vec<Option<f64>>),
    /// Phases.
    Words(Vec<&'static str>),
}

/// One entry: of a scalar score, or of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Entry {
    Number(Value),
    Word(&'static str),
}

/// What [`evaluate`] found, in the order of [`SCORES`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Scores of one value.
    pub scalars: Vec<(&'static Definition, Value)>,
    /// Scores of one value a feature or latent.
    pub vectors: Vec<(&'static Definition, Vector)>,
    /// The matched latent of each feature, `[n_features]`.
    pub matching: Option<Vec<Option<usize>>>,
    /// The feature that each latent belongs to by its firing, `[n_latents]`.
    pub belongs_to: Option<Vec<Option<usize>>>,
    /// S_i, the latents that make up feature i, in the order of growth, `[n_features]`.
    pub sets: Option<Vec<Vec<usize>>>,
}

/// Names by which the parts of [`Scores`] that are no scores may be asked for.
pub const TABLES: [&str; 3] = ["matching", "belongs_to", "sets"];

/// Every score that the arrays allow, or those of `wanted` among them.
///
/// `wanted` holds names as [`parse_name`] reads them (`mmcs`, `norm`, `norm_0`; an entry brings its whole vector) and
/// [`TABLES`]; other names are left out without a word, so check them first. A score whose arrays are missing is left
/// out. `gap_min_degrees` and `gap_max_degrees` of a truth that is not two-dimensional are left out unless wanted, and
/// then null. Losses and theory need the toy model itself, see [`toy_loss`], and some scores the law of the world, see
/// [`of_world`].
///
/// `matching`, `belongs_to` and `sets` are given where `wanted` names them or is None.
pub fn evaluate<T: Real>(arrays: &Arrays<'_, T>, wanted: Option<&[&str]>) -> Scores {
    check(arrays);
    let inputs = Inputs::new(arrays);
    let shared = Shared::new(&inputs);
    // Names are read once: a plan of tiny models would spend most of its time on reading them for every score.
    let wanted: Option<Vec<&str>> =
        wanted.map(|names| names.iter().map(|name| parse_name(name).map_or(*name, |(found, _)| found.name)).collect());
    let mut asked = Asked { wanted, scores: Scores::default() };
    score_truth(&mut asked, &shared);
    score_directions(&mut asked, &shared);
    score_firings(&mut asked, &shared);
    score_activations(&mut asked, &shared);
    score_absorption(&mut asked, &shared);
    score_reconstruction(&mut asked, &shared);
    asked.table("matching", || shared.matching(), |scores| &mut scores.matching);
    asked.table("belongs_to", || shared.belongs_to(), |scores| &mut scores.belongs_to);
    asked.table("sets", || shared.sets(), |scores| &mut scores.sets);
    asked.in_order()
}

fn check<T: Real>(arrays: &Arrays<'_, T>) {
    let (n, d) = arrays.truth.dim();
    let of = |array: Option<ArrayView2<'_, T>>| array.map(|array| array.dim());
    let dictionary = of(arrays.dictionary);
    let (x, z) = (arrays.features.map(|x| x.dim()), arrays.latents.map(|z| z.dim()));
    let (h, r) = (of(arrays.hidden), of(arrays.reconstruction));
    debug_assert!(dictionary.is_none_or(|dim| dim.1 == d), "dictionary and truth differ in d_hidden");
    debug_assert!(x.is_none_or(|dim| dim.1 == n), "features and truth differ in n_features");
    debug_assert!(z.zip(dictionary).is_none_or(|(z, dictionary)| z.1 == dictionary.0), "latents and dictionary");
    debug_assert!(x.zip(z).is_none_or(|(x, z)| x.0 == z.0), "features and latents differ in samples");
    debug_assert!(h.zip(r).is_none_or(|(h, r)| h == r && h.1 == d), "hidden and reconstruction");
    let in_range = |parents: &BTreeMap<usize, usize>| parents.iter().all(|(&child, &parent)| child < n && parent < n);
    debug_assert!(arrays.parents.is_none_or(in_range), "parents name features that are not there");
}

/// Collects the scores that were asked for.
struct Asked<'a> {
    /// Names of scores, vectors by their base name, and of tables.
    wanted: Option<Vec<&'a str>>,
    scores: Scores,
}

impl Asked<'_> {
    fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_none_or(|names| names.contains(&name))
    }

    /// `value` is None where arrays are missing.
    fn number(&mut self, definition: &'static Definition, value: impl FnOnce() -> Option<Value>) {
        if self.wants(definition.name)
            && let Some(value) = value()
        {
            let finite = value.and_then(|value| if value.is_finite() { Ok(value) } else { Err(OVERFLOW) });
            self.scores.scalars.push((definition, finite));
        }
    }

    fn vector(&mut self, definition: &'static Definition, vector: impl FnOnce() -> Option<Vector>) {
        if self.wants(definition.name)
            && let Some(mut vector) = vector()
        {
            if let Vector::Numbers(numbers) = &mut vector {
                numbers.iter_mut().for_each(|number| *number = number.filter(|number| number.is_finite()));
            }
            self.scores.vectors.push((definition, vector));
        }
    }

    fn table<'s, V: Clone + 's>(
        &mut self,
        name: &str,
        table: impl FnOnce() -> Option<&'s Vec<V>>,
        place: impl FnOnce(&mut Scores) -> &mut Option<Vec<V>>,
    ) {
        if self.wants(name) {
            *place(&mut self.scores) = table().cloned();
        }
    }

    fn in_order(mut self) -> Scores {
        let place = |definition: &Definition| SCORES.iter().position(|other| other.name == definition.name);
        self.scores.scalars.sort_by_key(|(definition, _)| place(definition));
        self.scores.vectors.sort_by_key(|(definition, _)| place(definition));
        self.scores
    }
}

fn score_truth<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    let (truth, represented) = (shared.truth, shared.represented);
    asked.number(&geometry::N_REPRESENTED, || Some(Ok(represented.len() as f64)));
    asked.number(&geometry::NORM_MEAN, || Some(geometry::norm_mean(truth, represented)));
    asked.number(&geometry::D_STAR, || Some(geometry::d_star(truth)));
    asked.number(&geometry::W_NORM, || Some(Ok(geometry::w_norm(truth))));
    asked.number(&geometry::CAPACITY, || Some(Ok(shared.dimensionality().iter().sum())));
    asked.number(&interference::INTERFERENCE, || Some(interference::interference(shared.overlaps(), represented)));
    asked.number(&interference::MUTUAL_COHERENCE, || {
        Some(interference::mutual_coherence(shared.overlaps(), represented))
    });
    asked.number(&interference::WELCH_GAP, || {
        Some(interference::welch_gap(shared.overlaps(), represented, truth.d_hidden))
    });
    if truth.d_hidden == 2 || asked.wanted.is_some() {
        asked.number(&gaps::GAP_MIN_DEGREES, || Some(gaps::gap_min(truth, represented)));
        asked.number(&gaps::GAP_MAX_DEGREES, || Some(gaps::gap_max(truth, represented)));
    }
    asked.number(&interference::WELCH_BOUND, || Some(interference::bound(represented, truth.d_hidden)));
    asked.number(&interference::INTERFERENCE_BOUND, || {
        Some(interference::interference_bound(represented, truth.d_hidden))
    });
    asked.number(&sparsity::UNDERSAMPLING, || Some(sparsity::undersampling(truth.n, truth.d_hidden)));
    score_polytopes(asked, shared);
    asked.vector(&geometry::NORM, || Some(defined(&truth.norms)));
    asked.vector(&geometry::SUPERPOSITION, || Some(Vector::Numbers(geometry::superposition(truth, shared.overlaps()))));
    asked.vector(&geometry::DIMENSIONALITY, || Some(defined(&shared.dimensionality())));
    asked.vector(&geometry::PHASE, || Some(Vector::Words(geometry::phase(truth, shared.overlaps()))));
}

/// The census, and the graph of represented features.
fn score_polytopes<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    let counted = OnceCell::new();
    let counts = || counted.get_or_init(|| census::census(&shared.dimensionality(), shared.represented));
    for (k, (_, definition)) in census::POLYTOPES.into_iter().enumerate() {
        asked.number(definition, || Some(Ok(counts().0[k] as f64)));
    }
    asked.number(&census::CENSUS_OTHER, || Some(Ok(counts().1 as f64)));
    let joined = OnceCell::new();
    let sizes = || joined.get_or_init(|| graph::components(shared.truth, shared.represented));
    asked.number(&graph::N_COMPONENTS, || Some(Ok(sizes().len() as f64)));
    asked.number(&graph::LARGEST_COMPONENT, || Some(graph::largest_component(sizes())));
    asked.number(&graph::PAIR_SHARE, || Some(graph::pair_share(sizes())));
}

fn defined(values: &[f64]) -> Vector {
    Vector::Numbers(values.iter().copied().map(Some).collect())
}

fn score_directions<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    let represented = shared.represented;
    asked.number(&mmcs::MMCS, || Some(mmcs::mmcs(shared.survey()?, represented)));
    asked.number(&mmcs::RECOVERED, || Some(mmcs::recovered(shared.survey()?, represented)));
    asked.number(&mcc::MCC, || Some(mcc::mcc(shared.cosines()?, shared.pairs()?)));
    asked.number(&uniqueness::UNIQUENESS, || Some(uniqueness::uniqueness(&shared.survey()?.closest)));
    asked.number(&mmcs::MMCS_LATENTS, || Some(mmcs::mmcs_latents(shared.survey()?, represented, shared.alive()?)));
    asked.number(&mcc::MCC_REPRESENTED, || {
        Some(mcc::mcc_represented(shared.cosines()?, represented, shared.matching()?))
    });
    asked.number(&merging::MERGING, || Some(merging::merging(shared.survey()?, represented, shared.alive()?)));
    asked.number(&leakage::LEAKAGE, || {
        let (cosines, matching) = (shared.cosines()?, shared.matching()?);
        Some(leakage::leakage(shared.truth, cosines, matching, represented, shared.parents?))
    });
    asked.number(&decoder::C_DEC, || Some(decoder::c_dec(shared.dictionary?)));
    asked.number(&decoder::CROSS_MAX, || Some(decoder::cross_max(shared.cosines()?, represented, shared.matching()?)));
    asked.vector(&cross::CROSS, || Some(Vector::Numbers(cross::cross(shared.cosines()?, shared.matching()?))));
}

fn score_firings<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    asked.number(&counts::TRUE_L0, || Some(counts::true_l0(shared.features?.codes())));
    asked.number(&sparsity::ACTIVE_PER_DIMENSION, || {
        let x = shared.features?.codes();
        Some(sparsity::active_per_dimension(x.n_entries(), x.n_rows(), shared.truth.d_hidden))
    });
    asked.number(&counts::L0, || Some(counts::l0(shared.latents?.firings())));
    asked.number(&counts::DEAD, || Some(Ok(counts::dead(shared.latents?.firings()) as f64)));
    asked.number(&counts::DEAD_FRACTION, || Some(counts::dead_fraction(shared.latents?.firings())));
    asked.vector(&counts::DENSITY, || Some(Vector::Numbers(counts::density(shared.latents?.firings()))));
    asked.number(&fisher::FISHER_DIAGONALITY, || {
        Some(fisher::fisher_diagonality(shared.dictionary?, shared.latents?, shared.alive()?))
    });
    asked.number(&classification::PRECISION, || Some(shared.classification()?.precision));
    asked.number(&classification::RECALL, || Some(shared.classification()?.recall));
    asked.number(&classification::F1, || Some(shared.classification()?.f1));
    asked.number(&classification::ACCURACY, || Some(shared.classification()?.accuracy));
    asked.number(&splitting::SPLITTING, || Some(splitting::splitting(shared.sets()?)));
    asked.number(&splitting::SPLIT_SHARE, || Some(splitting::split_share(shared.sets()?)));
    asked.number(&splitting::MISSED_SHARE, || {
        Some(splitting::missed_share(shared.sets()?, shared.represented, shared.features?.firings()))
    });
}

fn score_activations<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    let (truth, features) = (shared.truth, shared.features);
    asked.number(&magnitude::MAGNITUDE_SLOPE, || {
        let (dictionary, latents) = (shared.dictionary?, shared.latents?.codes());
        Some(magnitude::magnitude_slope(truth, dictionary, features?, latents, shared.matching()?))
    });
    asked.number(&exact_recovery::EXACT_RECOVERY, || {
        let (dictionary, latents) = (shared.dictionary?, shared.latents?.codes());
        Some(exact_recovery::exact_recovery(truth, dictionary, features?.codes(), latents, shared.matching()?))
    });
    asked.number(&simulation::SIMULATION_SCORE, || {
        Some(simulation::simulation_score(features?, shared.latents?, shared.alive()?))
    });
    asked.number(&mixing::MIXING, || {
        let (dictionary, matching) = (shared.dictionary?, shared.matching()?);
        Some(mixing::mixing(truth, dictionary, features?, shared.represented, matching))
    });
}

fn score_absorption<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    asked.number(&absorption::ABSORPTION_ANY, || {
        let all = absorption::every_feature(shared.truth.n);
        Some(absorption::absorption(&absorption::absorbed(&shared.scene()?, &all)))
    });
    let (fraction, full) = (asked.wants("absorption"), asked.wants("absorption_full"));
    let of_parents = (fraction || full).then(|| {
        let parents = absorption::parents_of(shared.parents?);
        Some(absorption::absorbed(&shared.scene()?, &parents))
    });
    if let Some(Some(absorbed)) = of_parents {
        asked.number(&absorption::ABSORPTION, || Some(absorption::absorption(&absorbed)));
        asked.number(&absorption::ABSORPTION_FULL, || Some(absorption::absorption_full(&absorbed)));
    }
    asked.number(&absorption_gap::ABSORPTION_GAP, || {
        let (features, latents) = (shared.features?.firings(), shared.latents?.firings());
        Some(absorption_gap::absorption_gap(shared.sets()?, features, latents, shared.parents?))
    });
}

fn score_reconstruction<T: Real>(asked: &mut Asked, shared: &Shared<T>) {
    let explained = || shared.rebuilt.map(reconstruction::explained_variance);
    asked.number(&reconstruction::EXPLAINED_VARIANCE, explained);
    asked.number(&reconstruction::FVU, || explained().map(|value| value.map(|value| 1.0 - value)));
    asked.number(&reconstruction::SHRINKAGE, || shared.rebuilt.map(reconstruction::shrinkage));
}

impl Scores {
    /// The value of a scalar score; None where it was left out.
    pub fn scalar(&self, name: &str) -> Option<Value> {
        self.scalars.iter().find(|(definition, _)| definition.name == name).map(|(_, value)| *value)
    }

    /// A whole vector score by its base name; None where it was left out.
    pub fn vector(&self, name: &str) -> Option<&Vector> {
        self.vectors.iter().find(|(definition, _)| definition.name == name).map(|(_, vector)| vector)
    }

    /// A scalar, or the entry of a vector that `norm_0`, `norm_last` name. None where the score was left out, or for a
    /// whole vector. An index past the end is undefined.
    pub fn get(&self, name: &str) -> Option<Entry> {
        let (definition, index) = parse_name(name)?;
        let Some(index) = index else { return self.scalar(definition.name).map(Entry::Number) };
        let vector = self.vector(definition.name)?;
        let entry = match index {
            Index::At(position) => vector.entry(position),
            Index::Last => vector.len().checked_sub(1).and_then(|last| vector.entry(last)),
            statistic => return Some(Entry::Number(vector.statistic(statistic))),
        };
        Some(entry.unwrap_or(Entry::Number(Err(PAST_THE_END))))
    }
}

const NO_NUMBERS: Undefined = Undefined("words have no order statistics");
const TOO_FEW: Undefined = Undefined("there are fewer defined entries");
const NOTHING_DEFINED: Undefined = Undefined("no entry is defined");

const PAST_THE_END: Undefined = Undefined("there is no such feature or latent");

impl Vector {
    /// Number of entries.
    pub fn len(&self) -> usize {
        match self {
            Vector::Numbers(numbers) => numbers.len(),
            Vector::Words(words) => words.len(),
        }
    }

    /// Whether there are no features, or no latents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An order statistic or the mean of the entries that are defined.
    fn statistic(&self, index: Index) -> Value {
        let Vector::Numbers(numbers) = self else { return Err(NO_NUMBERS) };
        let mut sorted: Vec<f64> = numbers.iter().flatten().copied().collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let middle = sorted.len() / 2;
        let value = match index {
            Index::Rank(rank) => return sorted.get(rank - 1).copied().ok_or(TOO_FEW),
            Index::Max => sorted.first().copied(),
            Index::Min => sorted.last().copied(),
            Index::Median if sorted.len().is_multiple_of(2) => {
                sorted.get(middle).map(|lower| 0.5 * (sorted[middle - 1] + lower))
            }
            Index::Median => sorted.get(middle).copied(),
            // In the order of the entries.
            Index::Mean => vector::mean(numbers.iter().flatten().copied()),
            Index::At(_) | Index::Last => None,
        };
        value.ok_or(NOTHING_DEFINED)
    }

    fn entry(&self, position: usize) -> Option<Entry> {
        match self {
            Vector::Numbers(numbers) => numbers.get(position).map(|number| Entry::Number(number.ok_or(MASKED))),
            Vector::Words(words) => words.get(position).map(|word| Entry::Word(word)),
        }
    }
}

const MASKED: Undefined = Undefined("undefined for this feature or latent");
