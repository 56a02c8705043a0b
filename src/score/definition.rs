//! What each score is: name, version, words, formula, source, axis label. `explain`, column docs and figure labels read
//! this; the definitions themselves stand beside the code that computes them.

/// One score, defined once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Definition {
    /// As written in `score:` and as the column is called. Of a vector, its base name: `norm` for `norm_0`, `norm_last`.
    pub name: &'static str,
    /// Raised when a value may change for the same arrays.
    pub version: u32,
    /// One line.
    pub meaning: &'static str,
    /// In symbols, one line.
    pub formula: &'static str,
    /// Paper or code that the definition comes from.
    pub source: &'static str,
    /// Arrays without which the score is left out.
    pub needs: &'static [Need],
    pub kind: Kind,
    /// One value, or one a feature or latent.
    pub shape: Shape,
    /// Axis label: words, symbol, unit.
    pub label: &'static str,
    /// None where neither end is better by itself.
    pub better: Option<Better>,
}

/// An array, or what else a score is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// True directions, `[n_features, d_hidden]`.
    Truth,
    /// Decoder rows, `[n_latents, d_hidden]`.
    Dictionary,
    /// True activations, `[samples, n_features]`.
    Features,
    /// Latents, `[samples, n_latents]`.
    Latents,
    /// Hidden states, `[samples, d_hidden]`.
    Hidden,
    /// Reconstructions, `[samples, d_hidden]`.
    Reconstruction,
    /// The decoder's bias.
    Bias,
    /// The hierarchy, {child: parent}.
    Parents,
    /// A trained toy model with its importances.
    ToyModel,
    /// A world and toy model that have a closed-form theory.
    Theory,
    /// A finite training set.
    TrainingSet,
    /// A toy model whose hidden layer has an activation.
    Neurons,
    /// The law of the world that features are drawn from.
    World,
    /// Sets of features that fire together or never together.
    Groups,
    /// The dictionary of another cell of the same world and seed, of another width.
    OtherWidth,
    /// An oracle and a random dictionary of the same world and seed.
    Baselines,
}

/// What kind of number (or word) one entry is; figures choose ranges and colours by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No fixed range.
    Amount,
    /// In [0, 1].
    Share,
    /// In [-1, 1].
    Cosine,
    /// A whole number, or a mean of whole numbers.
    Count,
    /// An angle.
    Degrees,
    /// One of a few words.
    Word,
}

/// How many values a score has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Scalar,
    /// A vector with one entry a feature.
    PerFeature,
    /// A vector with one entry a latent.
    PerLatent,
    /// A vector with one entry a sample of a finite training set.
    PerSample,
}

/// Which end of a score is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

/// Which entry of a vector score, or which number about its entries; those that are undefined are left out of the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// `norm_0`
    At(usize),
    /// `norm_last`
    Last,
    /// `norm_rank_5`: the fifth greatest, counted from 1.
    Rank(usize),
    /// `norm_min`
    Min,
    /// `norm_max`
    Max,
    /// `dimensionality_mean`. (`norm_mean` is a score of its own.)
    Mean,
    /// `norm_median`: of an even number of entries the mean of the middle two.
    Median,
}

impl Index {
    /// The ways to take one number from a vector, for help texts.
    pub const WAYS: [&str; 7] = ["0", "last", "rank_1", "min", "max", "mean", "median"];
}

use super::{
    absorption, absorption_gap, census, classification, composed, counts, cross, data_dimensionality, decoder,
    exact_recovery, fisher, gaps, geometry, graph, hedging, interference, intervention, leakage, magnitude, mcc,
    merging, mixing, mmcs, neurons, readout, reconstruction, sets, simulation, sparsity, splitting, toy_loss,
    uniqueness, vulnerability,
};

/// Every score, in the order of rows and of the JSON of the `score` command.
pub const SCORES: &[Definition] = &[
    toy_loss::LOSS,
    toy_loss::LOSS_WEIGHTED,
    toy_loss::TRAIN_LOSS,
    toy_loss::TRAIN_LOSS_WEIGHTED,
    geometry::N_REPRESENTED,
    geometry::NORM_MEAN,
    geometry::D_STAR,
    geometry::W_NORM,
    toy_loss::B_NORM,
    geometry::CAPACITY,
    interference::INTERFERENCE,
    interference::MUTUAL_COHERENCE,
    interference::WELCH_GAP,
    interference::WELCH_BOUND,
    interference::INTERFERENCE_BOUND,
    readout::INTERFERENCE_EXPECTED,
    readout::INTERFERENCE_MEASURED,
    census::CENSUS_DEDICATED,
    census::CENSUS_TETRAHEDRON,
    census::CENSUS_TRIANGLE,
    census::CENSUS_DIGON,
    census::CENSUS_PENTAGON,
    census::CENSUS_ANTIPRISM,
    census::CENSUS_OTHER,
    graph::N_COMPONENTS,
    graph::LARGEST_COMPONENT,
    graph::PAIR_SHARE,
    vulnerability::VULNERABILITY,
    sets::COSINE_WITHIN,
    sets::COSINE_BETWEEN,
    sets::COHERENCE_WITHIN,
    sets::OVERLAP_BETWEEN,
    sets::COSINE_OPPOSITE,
    sets::WITHIN_MIN_DEGREES,
    sets::WITHIN_MAX_DEGREES,
    sets::BETWEEN_MIN_DEGREES,
    sets::BETWEEN_MAX_DEGREES,
    sets::OPPOSITE_MIN_DEGREES,
    sets::COLLAPSED_GROUPS,
    sets::COLLAPSED_NORM,
    sparsity::UNDERSAMPLING,
    sparsity::ACTIVE_PER_DIMENSION,
    sparsity::DONOHO_TANNER,
    gaps::GAP_MIN_DEGREES,
    gaps::GAP_MAX_DEGREES,
    neurons::N_MONOSEMANTIC,
    neurons::N_POLYSEMANTIC,
    neurons::FEATURES_PER_NEURON,
    neurons::FEATURES_IN_NEURONS,
    neurons::FEATURES_IN_TWO_NEURONS,
    neurons::FEATURES_IN_POLYSEMANTIC,
    neurons::NEURON_PAIRS,
    THEORY_MARGIN,
    THEORY_LOSS,
    THEORY_BEST,
    mmcs::MMCS,
    mmcs::MMCS_LARGER,
    mmcs::RECOVERED,
    mcc::MCC,
    uniqueness::UNIQUENESS,
    decoder::C_DEC,
    composed::MMCS_COMPOSED,
    exact_recovery::EXACT_RECOVERY,
    counts::TRUE_L0,
    counts::L0,
    counts::DEAD,
    counts::DEAD_FRACTION,
    mmcs::MMCS_LATENTS,
    mcc::MCC_REPRESENTED,
    merging::MERGING,
    decoder::CROSS_MAX,
    fisher::FISHER_DIAGONALITY,
    leakage::LEAKAGE,
    simulation::SIMULATION_SCORE,
    classification::PRECISION,
    classification::RECALL,
    classification::F1,
    classification::ACCURACY,
    RANDOM_GAP_MCC,
    ORACLE_GAP_MCC,
    RANDOM_GAP_F1,
    ORACLE_GAP_F1,
    magnitude::MAGNITUDE_SLOPE,
    splitting::SPLITTING,
    splitting::SPLIT_SHARE,
    splitting::MISSED_SHARE,
    absorption::ABSORPTION_ANY,
    mixing::MIXING,
    hedging::HEDGING,
    absorption::ABSORPTION,
    absorption::ABSORPTION_FULL,
    absorption_gap::ABSORPTION_GAP,
    reconstruction::EXPLAINED_VARIANCE,
    reconstruction::FVU,
    reconstruction::SHRINKAGE,
    intervention::CAUSAL_FAITHFULNESS,
    intervention::STEERING_SPECIFICITY,
    geometry::NORM,
    geometry::SUPERPOSITION,
    geometry::DIMENSIONALITY,
    geometry::PHASE,
    neurons::N_NEURONS,
    THEORY_PHASE,
    THEORY_CAPACITY,
    counts::DENSITY,
    data_dimensionality::DATA_DIMENSIONALITY,
    cross::CROSS,
    decoder::DECODER_PROJECTION,
    decoder::DECODER_BIAS,
];

/// Computed from closed forms by the toy module; defined here so that every column has its definition in one list.
pub const THEORY_PHASE: Definition = Definition {
    name: "theory_phase",
    version: 1,
    meaning: "phase of feature i in the solution of least closed-form loss",
    formula: "argmin over the candidate solutions of their expected loss; null where no closed form is known",
    source: "Elhage et al. 2022, Toy Models of Superposition, theory of phase changes",
    needs: &[Need::Theory],
    kind: Kind::Word,
    shape: Shape::PerFeature,
    label: "theoretical phase",
    better: None,
};

/// As [`THEORY_PHASE`]: computed by the toy module.
pub const THEORY_LOSS: Definition = Definition {
    name: "theory_loss",
    version: 1,
    meaning: "expected loss of the best solution of the theory, on the scale of loss_weighted",
    formula: "min over the candidates of E sum over i of I_i (x_i - x'_i)^2; null where no theory is known",
    source: "Elhage et al. 2022, Toy Models of Superposition; linear models: the weighted variance of what is dropped",
    needs: &[Need::Theory],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "theoretical loss",
    better: None,
};

/// As [`THEORY_PHASE`]: computed by the toy module.
pub const THEORY_BEST: Definition = Definition {
    name: "theory_best",
    version: 1,
    meaning: "name of the solution of least theoretical loss",
    formula: "argmin over the candidates of their expected loss; null where no theory is known",
    source: "Elhage et al. 2022, Toy Models of Superposition, theory of phase changes and geometry of superposition",
    needs: &[Need::Theory],
    kind: Kind::Word,
    shape: Shape::Scalar,
    label: "theoretical solution",
    better: None,
};

/// As [`THEORY_PHASE`]: computed by the toy module.
pub const THEORY_MARGIN: Definition = Definition {
    name: "theory_margin",
    version: 1,
    meaning: "second least over least closed-form loss: how far the theory is from a phase boundary",
    formula: "second / first of the sorted losses of the candidates that can be best; null where no closed form is known",
    source: "Elhage et al. 2022, Toy Models of Superposition, theory of phase changes",
    needs: &[Need::Theory],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "theory margin L\u{2082}/L\u{2081}",
    better: None,
};

/// As [`THEORY_PHASE`]: computed by the toy module.
pub const THEORY_CAPACITY: Definition = Definition {
    name: "theory_capacity",
    version: 1,
    meaning: "capacity of feature i in the solution of least loss of a quadratic model, two features in one dimension",
    formula: "W_i^2 / (W_0^2 + W_1^2); q = 2/(kurtosis - 1), W_0^2 = (v_0 - q v_1)/(1 - q^2), W_1^2 = (v_1 - q v_0)/(1 - q^2); 1 and 0 where kurtosis <= 3 or v_1 <= q v_0",
    source: "after Scherlis et al. 2022, Polysemanticity and Capacity in Neural Networks, arXiv 2210.01892",
    needs: &[Need::Theory],
    kind: Kind::Share,
    shape: Shape::PerFeature,
    label: "theoretical capacity C_i",
    better: None,
};

/// What a score needs whose place between the baselines is told.
const MCC_AND_BASELINES: &[Need] = &[Need::Truth, Need::Dictionary, Need::Baselines];
const F1_AND_BASELINES: &[Need] = &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents, Need::Baselines];

/// As [`THEORY_PHASE`]: computed from rows, where the experiment has both baselines.
pub const RANDOM_GAP_MCC: Definition = random_gap(
    "random_gap_mcc",
    "where mcc stands between random directions (0) and the truth (1) of the same world and seed",
    "(mcc - random) / (oracle - random); of several oracles or random dictionaries the mean; null where one is missing or both are equal",
    MCC_AND_BASELINES,
    "MCC between random (0) and oracle (1)",
);

/// As [`THEORY_PHASE`]: computed from rows, where the experiment has both baselines.
pub const RANDOM_GAP_F1: Definition = random_gap(
    "random_gap_f1",
    "where f1 stands between random directions (0) and the truth (1) of the same world and seed",
    "(f1 - random) / (oracle - random); of several oracles or random dictionaries the mean; null where one is missing or both are equal",
    F1_AND_BASELINES,
    "F1 between random (0) and oracle (1)",
);

/// As [`THEORY_PHASE`]: computed from rows, where the experiment has both baselines.
pub const ORACLE_GAP_MCC: Definition = oracle_gap(
    "oracle_gap_mcc",
    "what mcc lacks to the truth, as a share of the way from random directions of the same world and seed",
    "1 - random_gap_mcc",
    MCC_AND_BASELINES,
    "MCC missing to the oracle (share)",
);

/// As [`THEORY_PHASE`]: computed from rows, where the experiment has both baselines.
pub const ORACLE_GAP_F1: Definition = oracle_gap(
    "oracle_gap_f1",
    "what f1 lacks to the truth, as a share of the way from random directions of the same world and seed",
    "1 - random_gap_f1",
    F1_AND_BASELINES,
    "F1 missing to the oracle (share)",
);

const fn random_gap(
    name: &'static str,
    meaning: &'static str,
    formula: &'static str,
    needs: &'static [Need],
    label: &'static str,
) -> Definition {
    let source = "defined here, a score on the scale of its baselines";
    let (kind, shape, better) = (Kind::Amount, Shape::Scalar, Some(Better::Higher));
    Definition { name, version: 1, meaning, formula, source, needs, kind, shape, label, better }
}

const fn oracle_gap(
    name: &'static str,
    meaning: &'static str,
    formula: &'static str,
    needs: &'static [Need],
    label: &'static str,
) -> Definition {
    Definition { better: Some(Better::Lower), ..random_gap(name, meaning, formula, needs, label) }
}

/// Scores that rows have only where `score:` names them: they answer special questions, or cost more than the others.
const ON_REQUEST: [&[&Definition]; 8] = [
    &[
        &census::CENSUS_DEDICATED,
        &census::CENSUS_TETRAHEDRON,
        &census::CENSUS_TRIANGLE,
        &census::CENSUS_DIGON,
        &census::CENSUS_PENTAGON,
        &census::CENSUS_ANTIPRISM,
        &census::CENSUS_OTHER,
    ],
    &[&graph::N_COMPONENTS, &graph::LARGEST_COMPONENT, &graph::PAIR_SHARE],
    &[
        &interference::WELCH_BOUND,
        &interference::INTERFERENCE_BOUND,
        &readout::INTERFERENCE_EXPECTED,
        &readout::INTERFERENCE_MEASURED,
    ],
    &[&sparsity::UNDERSAMPLING, &sparsity::ACTIVE_PER_DIMENSION, &sparsity::DONOHO_TANNER],
    &[&vulnerability::VULNERABILITY, &exact_recovery::EXACT_RECOVERY, &classification::ACCURACY],
    &[&intervention::CAUSAL_FAITHFULNESS, &intervention::STEERING_SPECIFICITY],
    &[&decoder::C_DEC, &decoder::CROSS_MAX, &composed::MMCS_COMPOSED],
    sets::SETS,
];

impl Definition {
    /// Whether [`evaluate`](super::evaluate) computes it, from arrays alone.
    pub fn is_of_arrays(&self) -> bool {
        !self
            .needs
            .iter()
            .any(|need| matches!(need, Need::ToyModel | Need::Theory | Need::World | Need::Groups | Need::Bias))
            && !self.is_across_cells()
    }

    /// Whether it compares cells: computed when rows are read, never stored with one of them.
    pub fn is_across_cells(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::OtherWidth | Need::Baselines))
    }

    /// Whether rows have it only where `score:` names it.
    pub fn is_on_request(&self) -> bool {
        let special = self.needs.contains(&Need::Theory) || self.is_across_cells();
        special || ON_REQUEST.iter().any(|some| some.iter().any(|d| d.name == self.name))
    }

    /// Whether it has an entry for each feature or latent.
    pub fn is_vector(&self) -> bool {
        self.shape != Shape::Scalar
    }
}

/// The definition of exactly this name, without index.
pub fn definition(name: &str) -> Option<&'static Definition> {
    SCORES.iter().find(|definition| definition.name == name)
}

/// Reads a name of `score:`: `mmcs`, a whole vector `norm` or `norm_i` (`density_j`), an entry `norm_0`, `norm_last`, or of
/// a vector of numbers an order statistic `norm_rank_5`, `norm_min`, `norm_max`, `norm_mean`, `norm_median`.
///
/// None for an unknown name, for an index on a scalar, and for an index not in plain decimal form (`norm_01`).
pub fn parse_name(name: &str) -> Option<(&'static Definition, Option<Index>)> {
    if let Some(found) = definition(name) {
        return Some((found, None));
    }
    let (base, suffix) = name.rsplit_once('_')?;
    if let Some(base) = name.strip_suffix(suffix).and_then(|rest| rest.strip_suffix("_rank_")) {
        let found = definition(base).filter(|definition| definition.is_vector() && definition.kind != Kind::Word)?;
        return plain_number(suffix).filter(|rank| *rank > 0).map(|rank| (found, Some(Index::Rank(rank))));
    }
    let found = definition(base).filter(|definition| definition.is_vector())?;
    match (suffix, found.shape) {
        ("last", _) => Some((found, Some(Index::Last))),
        ("min" | "max" | "mean" | "median", _) if found.kind == Kind::Word => None,
        ("min", _) => Some((found, Some(Index::Min))),
        ("max", _) => Some((found, Some(Index::Max))),
        ("mean", _) => Some((found, Some(Index::Mean))),
        ("median", _) => Some((found, Some(Index::Median))),
        ("i", Shape::PerFeature) | ("j", Shape::PerLatent) => Some((found, None)),
        _ => plain_number(suffix).map(|index| (found, Some(Index::At(index)))),
    }
}

fn plain_number(text: &str) -> Option<usize> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// The score that an unknown name most likely means, or None where nothing is near.
///
/// Near is at most a third of the letters changed (Damerau-Levenshtein). An index is kept: `nrom_3` gives `norm_3`.
pub fn suggest(name: &str) -> Option<String> {
    let indexed = name.rsplit_once('_').filter(|(_, suffix)| *suffix == "last" || plain_number(suffix).is_some());
    let whole = nearest(name, |_| true).map(|(distance, found)| (distance, found.to_string()));
    let entry = indexed.and_then(|(base, suffix)| {
        nearest(base, Definition::is_vector).map(|(distance, found)| (distance, format!("{found}_{suffix}")))
    });
    // The shorter distance wins; at equal distance the whole name.
    match (whole, entry) {
        (Some(whole), Some(entry)) => Some(if entry.0 < whole.0 { entry.1 } else { whole.1 }),
        (whole, entry) => whole.or(entry).map(|(_, found)| found),
    }
}

fn nearest(name: &str, admits: impl Fn(&Definition) -> bool) -> Option<(usize, &'static str)> {
    let lower = name.to_lowercase().replace('-', "_");
    SCORES
        .iter()
        .filter(|definition| admits(definition))
        .map(|definition| (strsim::damerau_levenshtein(&lower, definition.name), definition.name))
        .filter(|(distance, found)| *distance <= (found.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_definition_is_complete() {
        for (k, a) in SCORES.iter().enumerate() {
            assert!(SCORES[..k].iter().all(|b| b.name != a.name), "{} twice", a.name);
            assert!(a.version >= 1);
            for text in [a.name, a.meaning, a.formula, a.source, a.label] {
                assert!(!text.trim().is_empty(), "{} lacks a text", a.name);
            }
            assert!(!a.meaning.contains('\n'), "{}: the meaning is one line", a.name);
            assert!(!a.needs.is_empty(), "{} needs nothing", a.name);
            assert!(a.needs.windows(2).all(|pair| pair[0] < pair[1]), "{}: needs in order, once each", a.name);
        }
    }

    #[test]
    fn an_entry_of_a_vector_is_addressed_by_its_index_or_by_last() {
        let read = |name| parse_name(name).map(|(found, index)| (found.name, index));
        assert_eq!(read("mmcs"), Some(("mmcs", None)));
        assert_eq!(read("norm_mean"), Some(("norm_mean", None)));
        assert_eq!(read("norm"), Some(("norm", None)));
        assert_eq!(read("norm_i"), Some(("norm", None)));
        assert_eq!(read("density_j"), Some(("density", None)));
        assert_eq!(read("norm_0"), Some(("norm", Some(Index::At(0)))));
        assert_eq!(read("theory_phase_12"), Some(("theory_phase", Some(Index::At(12)))));
        assert_eq!(read("norm_last"), Some(("norm", Some(Index::Last))));
    }

    #[test]
    fn order_statistics_of_vectors_of_numbers_have_names() {
        let read = |name| parse_name(name).map(|(found, index)| (found.name, index));
        assert_eq!(read("dimensionality_rank_5"), Some(("dimensionality", Some(Index::Rank(5)))));
        assert_eq!(read("data_dimensionality_median"), Some(("data_dimensionality", Some(Index::Median))));
        assert_eq!(read("norm_min"), Some(("norm", Some(Index::Min))));
        assert_eq!(read("norm_max"), Some(("norm", Some(Index::Max))));
        assert_eq!(read("dimensionality_mean"), Some(("dimensionality", Some(Index::Mean))));
        // A score of its own comes first: the mean over represented features.
        assert_eq!(read("norm_mean"), Some(("norm_mean", None)));
        for name in
            ["norm_rank_0", "norm_rank_", "norm_rank", "phase_rank_1", "phase_median", "mmcs_rank_1", "mmcs_min"]
        {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_no_score_is_not_parsed() {
        for name in [
            "",
            "_",
            "mmsc",
            "mmcs_0",
            "mcc_last",
            "norm_",
            "norm_01",
            "norm_-1",
            "norm_+1",
            "norm_1e3",
            "norm_j",
            "norm_0_1",
            "norm_99999999999999999999999",
            "Norm_0",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_misspelt_score_gets_the_nearest_name() {
        assert_eq!(suggest("mmsc").as_deref(), Some("mmcs"));
        assert_eq!(suggest("absorbtion").as_deref(), Some("absorption"));
        assert_eq!(suggest("Dead-Fraction").as_deref(), Some("dead_fraction"));
        assert_eq!(suggest("nrom_3").as_deref(), Some("norm_3"));
        assert_eq!(suggest("superpositon_last").as_deref(), Some("superposition_last"));
        assert_eq!(suggest("temperature"), None);
    }
}
