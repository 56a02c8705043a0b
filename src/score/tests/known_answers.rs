//! Answers worked out by hand, on features along axes so that every cosine is known.

use ndarray::{Array2, array, concatenate, s};

use super::*;
use crate::score::{Entry, Undefined, Vector, toy_loss};
use crate::toy::ToyKind;

/// Four features along the first axes of six dimensions, norm 1.
fn axes() -> Array2<f64> {
    Array2::from_shape_fn((4, 6), |(i, k)| (i == k) as u8 as f64)
}

/// Twenty samples. Feature 0 is the parent: it fires on ten of them; its child 1 on two of those; 2 and 3 on four and
/// five others. No two but parent and child fire together.
fn activations() -> Array2<f64> {
    let mut x = Array2::zeros((20, 4));
    for sample in 0..20 {
        match sample {
            0..10 => x[[sample, 0]] = 1.0 + 0.1 * sample as f64,
            10..14 => x[[sample, 2]] = 0.5 + 0.1 * sample as f64,
            14..19 => x[[sample, 3]] = 0.3 + 0.05 * sample as f64,
            _ => {}
        }
    }
    for (sample, size) in [(3, 0.7), (8, 1.1)] {
        x[[sample, 1]] = size;
    }
    x
}

/// The true dictionary with norms 2, 0.5, 1, 4, and the codes that rebuild h.
fn perfect() -> Case {
    let norms = [2.0, 0.5, 1.0, 4.0];
    let dictionary = Array2::from_shape_fn((4, 6), |(i, k)| axes()[[i, k]] * norms[i]);
    let latents = Array2::from_shape_fn((20, 4), |(s, i)| activations()[[s, i]] / norms[i]);
    Case { parents: [(1, 0)].into(), ..Case::new(axes(), dictionary, activations(), latents) }
}

fn expect_perfect(scores: &Scores) {
    for name in [
        "mmcs",
        "mmcs_latents",
        "mcc",
        "mcc_represented",
        "recovered",
        "precision",
        "recall",
        "f1",
        "uniqueness",
        "explained_variance",
        "shrinkage",
        "magnitude_slope",
        "simulation_score",
    ] {
        assert_near(scores, name, 1.0);
    }
    for name in [
        "absorption_any",
        "absorption",
        "absorption_full",
        "absorption_gap",
        "splitting",
        "split_share",
        "missed_share",
        "merging",
        "leakage",
        "mixing",
        "dead",
        "dead_fraction",
        "fvu",
    ] {
        assert_near(scores, name, 0.0);
    }
}

#[test]
fn the_true_dictionary_with_true_codes_is_perfect() {
    let scores = perfect().scores();
    expect_perfect(&scores);
    assert_eq!(scores.matching, Some(vec![Some(0), Some(1), Some(2), Some(3)]));
    assert_eq!(scores.sets, Some(vec![vec![0], vec![1], vec![2], vec![3]]));
    // 21 activations on 20 samples.
    assert_near(&scores, "true_l0", 21.0 / 20.0);
    assert_near(&scores, "l0", 21.0 / 20.0);
    assert_eq!(scores.vector("density"), Some(&Vector::Numbers([0.5, 0.1, 0.2, 0.25].map(Some).to_vec())));
    // Decoders are orthogonal: F is diagonal.
    assert_near(&scores, "fisher_diagonality", 1.0);
}

#[test]
fn the_order_of_latents_does_not_matter() {
    let mut case = perfect();
    let order = [2, 0, 3, 1];
    case.dictionary = case.dictionary.select(ndarray::Axis(0), &order);
    case.latents = case.latents.select(ndarray::Axis(1), &order);
    let scores = case.scores();
    expect_perfect(&scores);
    assert_eq!(scores.matching, Some(vec![Some(1), Some(3), Some(0), Some(2)]));
    assert_eq!(scores.belongs_to, Some(vec![Some(2), Some(0), Some(3), Some(1)]));
}

/// The negated latent's best signed cosine is 0, and so is its feature's.
#[test]
fn a_negated_latent_leaves_mcc_and_ruins_mmcs() {
    let mut case = perfect();
    case.dictionary.row_mut(2).mapv_inplace(|value| -value);
    let scores = case.scores();
    assert_near(&scores, "mcc", 1.0);
    assert_near(&scores, "mcc_represented", 1.0);
    for name in ["mmcs", "mmcs_latents", "recovered"] {
        assert_near(&scores, name, 0.75);
    }
}

/// The parent's latent is silent with the child, whose decoder is f0 + f1. P(child | parent) = 2/10. On those two samples
/// the parent's part T = x0 is carried by the child's latent where z1 >= 0.4 x0: fully absorbed. One of four features
/// is concerned.
#[test]
fn an_absorbed_parent_is_absorbed_as_often_as_its_child_fires() {
    let mut case = perfect();
    case.dictionary = axes();
    case.dictionary[[1, 0]] = 1.0;
    case.latents = activations();
    for sample in [3, 8] {
        case.latents[[sample, 0]] = 0.0;
    }
    let scores = case.scores();
    assert_near(&scores, "absorption", 0.2);
    assert_near(&scores, "absorption_full", 0.2);
    assert_near(&scores, "absorption_any", 0.05);
    assert_near(&scores, "absorption_gap", 1.0);
    assert_near(&scores, "leakage", 0.5f64.sqrt());
    // The child's latent has cosine 1/sqrt(2) with both: count (1/2 + 1/2)² / (1/4 + 1/4) = 2.
    assert_near(&scores, "merging", 0.25);
    assert_near(&scores, "mmcs", (3.0 + 0.5f64.sqrt()) / 4.0);
    assert_near(&scores, "recovered", 0.75);
    assert_eq!(scores.belongs_to, Some(vec![Some(0), Some(1), Some(2), Some(3)]));
}

/// As above, but the child's decoder takes over only part. On sample 3, x0 = 1.3 and the main latent carries 0.2 x0, the
/// absorber 0.9 x0: a = min(.9, 1 - .2), a/(a + M) = .8. On sample 8 the absorber carries .3 x0, below .4: 0.
#[test]
fn partial_absorption_follows_the_fraction_s_rules() {
    let mut case = perfect();
    case.dictionary = axes();
    case.dictionary[[1, 0]] = 1.0;
    case.latents = activations();
    for (sample, main, absorber) in [(3, 0.2, 0.9), (8, 0.2, 0.3)] {
        let x = activations()[[sample, 0]];
        case.latents[[sample, 0]] = main * x;
        case.latents[[sample, 1]] = absorber * x;
    }
    let scores = case.scores();
    assert_near(&scores, "absorption", 0.8 / 10.0);
    assert_near(&scores, "absorption_full", 0.0);
    assert_near(&scores, "absorption_any", 0.8 / 40.0);
}

/// Each half fires on five of ten samples: F1 = 2·5/(5 + 10) = 2/3, both together 1. One feature of four has one latent
/// more. Recall of a half is 1/2; that of the set is whole, so nothing is missed and nothing absorbed.
#[test]
fn a_latent_split_in_halves_counts_as_one_further_latent() {
    let mut case = perfect();
    case.dictionary = concatenate![ndarray::Axis(0), axes(), axes().slice(s![..1, ..])];
    case.latents = concatenate![ndarray::Axis(1), activations(), Array2::zeros((20, 1))];
    for sample in 5..10 {
        case.latents[[sample, 4]] = case.latents[[sample, 0]];
        case.latents[[sample, 0]] = 0.0;
    }
    let scores = case.scores();
    assert_near(&scores, "splitting", 0.25);
    assert_near(&scores, "split_share", 0.25);
    assert_near(&scores, "recall", 4.0 / 5.0);
    assert_near(&scores, "precision", 1.0);
    assert_near(&scores, "f1", (2.0 / 3.0 + 3.0 + 2.0 / 3.0) / 5.0);
    assert_near(&scores, "missed_share", 0.0);
    assert_near(&scores, "absorption_any", 0.0);
    assert_eq!(scores.sets.expect("all arrays are there")[0], [0, 4]);
}

/// The second latent hears one of ten samples that the first misses: F1 goes from 18/19 to 1, a gain of .053, above .03.
/// With 100 samples and one missed the gain is 1 - 198/199 = .005, below.
#[test]
fn a_latent_that_gains_too_little_does_not_count_as_split() {
    for (samples, expected) in [(10, 1.0), (100, 0.0)] {
        let x = Array2::ones((samples, 1));
        let mut z = Array2::zeros((samples, 2));
        for sample in 0..samples {
            z[[sample, (sample == 0) as usize]] = 1.0;
        }
        let scores = Case::new(array![[1.0]], array![[1.0], [1.0]], x, z).scores();
        assert_near(&scores, "splitting", expected);
    }
}

/// A copy points at the same feature: 4 different features for 5 latents. It gains nothing and absorbs nothing.
#[test]
fn a_duplicated_latent_costs_uniqueness_alone() {
    let mut case = perfect();
    case.dictionary = concatenate![ndarray::Axis(0), case.dictionary, case.dictionary.slice(s![..1, ..])];
    case.latents = concatenate![ndarray::Axis(1), case.latents, case.latents.slice(s![.., ..1])];
    let scores = case.scores();
    assert_near(&scores, "uniqueness", 0.8);
    for name in ["splitting", "absorption_any", "absorption", "merging"] {
        assert_near(&scores, name, 0.0);
    }
    assert_near(&scores, "f1", 1.0);
    assert_eq!(scores.belongs_to.expect("all arrays are there")[4], Some(0));
    assert_eq!(scores.matching.expect("all arrays are there")[0], Some(0), "the copy loses");
}

/// One latent w = (f2 + f3)/sqrt(2) for two features: count 2, no cosine of .9. Its features' best cosine is 1/sqrt(2).
/// mcc matches three latents. Of four represented features one is unmatched. It fires with 2 on 4 of 9 samples and
/// with 3 on 5 of 9: F1 8/13 and 10/14, so it belongs to 3 and feature 2 is missed.
#[test]
fn one_latent_for_two_features_merges_them() {
    let mut case = perfect();
    let mut dictionary = axes().slice(s![..3, ..]).to_owned();
    dictionary[[2, 3]] = 1.0;
    let x = activations();
    let latents = Array2::from_shape_fn((20, 3), |(s, j)| if j < 2 { x[[s, j]] } else { x[[s, 2]] + x[[s, 3]] });
    (case.dictionary, case.latents) = (dictionary, latents);
    let scores = case.scores();
    let half = 0.5f64.sqrt();
    assert_near(&scores, "merging", 1.0 / 3.0);
    assert_near(&scores, "mmcs", (2.0 + 2.0 * half) / 4.0);
    assert_near(&scores, "mcc", (2.0 + half) / 3.0);
    assert_near(&scores, "mcc_represented", (2.0 + half) / 4.0);
    assert_near(&scores, "missed_share", 0.25);
    assert_eq!(scores.belongs_to, Some(vec![Some(0), Some(1), Some(3)]));
    assert_eq!(scores.matching, Some(vec![Some(0), Some(1), Some(2), None]), "a tie goes to the lower feature");
    // The closest feature, a tie too, is 2: precision 4/9, recall 1.
    assert_near(&scores, "precision", (2.0 + 4.0 / 9.0) / 3.0);
    assert_near(&scores, "recall", 1.0);
    // Five of twenty samples have the latent alone.
    assert_near(&scores, "accuracy", (2.0 + 15.0 / 20.0) / 3.0);
}

/// More latents than features, two of them dead: they count 0 in precision, recall, F1, and lower `uniqueness`; one dead
/// latent is a copy of a truth row, so the features of `mmcs` are as before.
#[test]
fn dead_latents_count_as_zero_where_saelens_counts_them() {
    let mut case = perfect();
    case.dictionary = concatenate![ndarray::Axis(0), case.dictionary, array![[0.0, 3.0, 0.0, 0.0, 0.0, 0.0], [0.0; 6]]];
    case.latents = concatenate![ndarray::Axis(1), case.latents, Array2::zeros((20, 2))];
    let scores = case.scores();
    assert_near(&scores, "dead", 2.0);
    assert_near(&scores, "dead_fraction", 2.0 / 6.0);
    for name in ["precision", "recall", "f1", "uniqueness"] {
        assert_near(&scores, name, 4.0 / 6.0);
    }
    for name in ["mmcs", "mmcs_latents", "mcc", "mcc_represented", "simulation_score"] {
        assert_near(&scores, name, 1.0);
    }
    assert_eq!(scores.belongs_to.expect("all arrays are there")[4..], [None, None]);
}

/// Two features in one dimension, opposite: each overlaps the other wholly. Welch's bound for n = 2, d = 1 is 1.
#[test]
fn an_antipodal_pair_shares_one_dimension() {
    let scores = evaluate(&Arrays::of_truth(array![[1.0], [-1.0]].view()), None);
    assert_near(&scores, "n_represented", 2.0);
    assert_near(&scores, "capacity", 1.0);
    assert_near(&scores, "d_star", 0.5);
    assert_near(&scores, "interference", 1.0);
    assert_near(&scores, "mutual_coherence", 1.0);
    assert_near(&scores, "welch_gap", 0.0);
    assert_eq!(scores.get("superposition_0"), Some(Entry::Number(Ok(1.0))));
    assert_eq!(scores.get("dimensionality_last"), Some(Entry::Number(Ok(0.5))));
    assert_eq!(scores.get("phase_1"), Some(Entry::Word("superposed")));
    assert_eq!(scores.scalar("gap_min_degrees"), None, "not two dimensions");
}

/// Five unit columns at 72 degrees. Σ_j cos²(72 j) = 5/2, so superposition 3/2 and dimensionality 2/5; coherence
/// |cos 144°|; Welch's bound sqrt((5 - 2)/(2·4)).
#[test]
fn a_pentagon_has_gaps_of_72_degrees_and_two_fifths_of_a_dimension() {
    let angle = |i: usize| (0.3 + 0.4 * i as f64 * std::f64::consts::PI).sin_cos();
    let truth = Array2::from_shape_fn((5, 2), |(i, k)| if k == 0 { angle(i).1 } else { angle(i).0 });
    let scores = evaluate(&Arrays::of_truth(truth.view()), None);
    assert_near(&scores, "capacity", 2.0);
    assert_near(&scores, "interference", 1.5);
    let coherence = (1.0 + 5f64.sqrt()) / 4.0;
    assert_near(&scores, "mutual_coherence", coherence);
    assert_near(&scores, "welch_gap", coherence - 0.375f64.sqrt());
    for name in ["gap_min_degrees", "gap_max_degrees"] {
        // Degrees are 57 times radians, rounded at 360: 5e-13.
        assert!((value(&scores, name) - 72.0).abs() < 5e-13, "{name}");
    }
    assert_eq!(scores.get("phase_0"), Some(Entry::Word("superposed")));
}

/// Columns at 10, 170 and 260 degrees: gaps 160, 90 and, across the seam, 110. A fourth, short, is not represented.
#[test]
fn gaps_go_round_the_circle_over_represented_features() {
    let column = |degrees: f64, norm: f64| [norm * degrees.to_radians().cos(), norm * degrees.to_radians().sin()];
    let truth = array![column(170.0, 1.0), column(260.0, 0.6), column(10.0, 2.0), column(50.0, 0.4)];
    let scores = evaluate(&Arrays::of_truth(truth.view()), None);
    assert!((value(&scores, "gap_min_degrees") - 90.0).abs() < 5e-13);
    assert!((value(&scores, "gap_max_degrees") - 160.0).abs() < 5e-13);
    assert_near(&scores, "norm_mean", 1.2);
}

/// Norms 1, 0.5 (the border), 0.3, 0.09 (superposition masked), 0.04 (dimensionality 0), along their own axes.
#[test]
fn small_columns_are_dropped_masked_and_zero() {
    let norms = [1.0, 0.5, 0.3, 0.09, 0.04];
    let truth = Array2::from_shape_fn((5, 5), |(i, k)| if i == k { norms[i] } else { 0.0 });
    let scores = evaluate(&Arrays::of_truth(truth.view()), None);
    assert_near(&scores, "n_represented", 2.0);
    assert_near(&scores, "norm_mean", 0.75);
    assert_near(&scores, "capacity", 4.0);
    assert_near(&scores, "d_star", 5.0 / (1.0 + 0.25 + 0.09 + 0.0081 + 0.0016));
    let words = vec!["dedicated", "dedicated", "dropped", "dropped", "dropped"];
    assert_eq!(scores.vector("phase"), Some(&Vector::Words(words)));
    let superposition = vec![Some(0.0), Some(0.0), Some(0.0), None, None];
    assert_eq!(scores.vector("superposition"), Some(&Vector::Numbers(superposition)));
    assert!(matches!(scores.get("superposition_4"), Some(Entry::Number(Err(_)))));
    assert_eq!(scores.get("dimensionality_4"), Some(Entry::Number(Ok(0.0))));
    assert!(matches!(scores.get("norm_5"), Some(Entry::Number(Err(Undefined(_))))), "past the end");
}

/// h = (10, 0), (12, 0), rebuilt as (10, 0), (11, 0): mean squared error 1/2, variance 1, lengths 1 and 11/12.
#[test]
fn explained_variance_is_about_the_mean_however_large() {
    let mut case = perfect();
    case.hidden = array![[10.0, 0.0], [12.0, 0.0]];
    case.reconstruction = array![[10.0, 0.0], [11.0, 0.0]];
    let scores = |case: &Case| {
        let truth = array![[1.0, 0.0]];
        let (hidden, reconstruction) = (Some(case.hidden.view()), Some(case.reconstruction.view()));
        evaluate(&Arrays { hidden, reconstruction, ..Arrays::of_truth(truth.view()) }, None)
    };
    assert_near(&scores(&case), "explained_variance", 0.5);
    assert_near(&scores(&case), "fvu", 0.5);
    assert_near(&scores(&case), "shrinkage", 23.0 / 24.0);
    case.hidden = array![[3.0, 0.0], [3.0, 0.0]];
    case.reconstruction = case.hidden.clone();
    assert_near(&scores(&case), "explained_variance", 1.0);
    case.reconstruction[[0, 0]] = 2.0;
    assert_near(&scores(&case), "explained_variance", 0.0);
    case.hidden.fill(0.0);
    assert!(is_null(&scores(&case), "shrinkage"));
}

/// Codes at 0.8 of their size: the slope is 0.8, the correlation still 1, h is rebuilt at 0.8 of its length.
#[test]
fn shrunken_codes_have_a_magnitude_slope_below_one() {
    let mut case = perfect();
    case.latents.mapv_inplace(|z| 0.8 * z);
    case.reconstruction = case.latents.dot(&case.dictionary);
    let scores = case.scores();
    assert_near(&scores, "magnitude_slope", 0.8);
    assert_near(&scores, "simulation_score", 1.0);
    assert_near(&scores, "shrinkage", 0.8);
}

/// x1 fires with x0 alone: they correlate. w0 = (f0 + f1/2) / sqrt(5/4) has coefficient 1/sqrt(5) on g1; the other three
/// latents are true.
#[test]
fn a_latent_that_contains_a_correlated_feature_mixes() {
    let mut case = perfect();
    case.dictionary = axes();
    case.dictionary[[0, 1]] = 0.5;
    assert_near(&case.scores(), "mixing", 0.2f64.sqrt() / 4.0);
}

/// Two latents with cosine 0.6, each on half of the samples, together on a quarter: F = (.5, .15; .15, .5).
#[test]
fn latents_that_fire_together_and_overlap_are_off_the_diagonal() {
    let z = array![[1.0, 2.0], [3.0, 0.0], [0.0, -1.0], [0.0, 0.0]];
    let case = Case::new(array![[1.0, 0.0]], array![[2.0, 0.0], [0.3, 0.4]], array![[1.0], [1.0], [0.0], [0.0]], z);
    assert_near(&case.scores(), "fisher_diagonality", 0.5 / 0.545);
}

/// Two features along axes; w0 = (0.8, 0.6), w1 = (0, 1), matched 0-0, 1-1. cross_0 = w1·g0 = 0, cross_1 = w0·g1 = 0.6.
#[test]
fn cross_is_what_other_features_latents_share() {
    let z = array![[1.0, 1.0], [0.5, 0.0]];
    let case = Case::new(array![[1.0, 0.0], [0.0, 1.0]], array![[0.8, 0.6], [0.0, 1.0]], z.clone(), z);
    let scores = case.scores();
    assert_eq!(scores.vector("cross"), Some(&Vector::Numbers(vec![Some(0.0), Some(0.6)])));
}

/// Two features that fire on the same samples have equal F1 with every latent: the cosine decides.
#[test]
fn a_tie_of_firings_goes_to_the_greater_signed_cosine() {
    let x = array![[1.0, 2.0], [2.0, 1.0], [0.0, 0.0]];
    let dictionary = array![[0.0, 1.0], [1.0, -2.0], [1.0, 1.0]];
    let z = array![[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]];
    let scores = Case::new(array![[1.0, 0.0], [0.0, 1.0]], dictionary, x, z).scores();
    assert_eq!(scores.belongs_to, Some(vec![Some(1), Some(0), Some(0)]), "the last is a tie: the lower feature");
}

/// z = (0, 1, 2, 3) against x = (0, 0, 0, 4): r = 6/sqrt(5·12).
#[test]
fn the_simulation_score_is_a_correlation() {
    let (x, z) = (array![[0.0], [0.0], [0.0], [4.0]], array![[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]);
    let scores = Case::new(array![[1.0]], array![[1.0], [1.0]], x, z).scores();
    assert_near(&scores, "simulation_score", 6.0 / 60f64.sqrt());
}

/// W = (1, -1), b = 0, x = (1, 1/2): h = 1/2. ReLU output: x' = (1/2, 0), squared errors 1/4 and 1/4. Linear:
/// x' = (1/2, -1/2), errors 1/4 and 1. The second sample is 0 and rebuilt. Importance (1, 1/2).
#[test]
fn the_toy_loss_is_worked_out_by_hand() {
    let (w, x) = (array![[1.0], [-1.0]], array![[1.0, 0.5], [0.0, 0.0]]);
    let losses = |kind| {
        let found = toy_loss(kind, w.view(), &[0.0, 0.0], &[1.0, 0.5], x.view());
        (found.loss, found.loss_weighted)
    };
    assert_eq!(losses(ToyKind::ReluOutput), (Ok(0.5 / 4.0), Ok(0.375 / 2.0)));
    assert_eq!(losses(ToyKind::Linear), (Ok(1.25 / 4.0), Ok(0.75 / 2.0)));
    let none = toy_loss(ToyKind::Linear, w.view(), &[0.0, 0.0], &[1.0, 0.5], Array2::zeros((0, 2)).view());
    assert!(none.loss.is_err() && none.loss_weighted.is_err());
}

#[test]
fn order_statistics_of_a_vector_are_those_of_its_defined_entries() {
    // Norms 3, 0.05, 1, 2; superposition is masked below 0.1.
    let truth = array![[3.0, 0.0, 0.0], [0.0, 0.05, 0.0], [0.0, 0.0, 1.0], [0.0, 2.0, 0.0]];
    let scores = evaluate(&Arrays::of_truth(truth.view()), None);
    let number = |name: &str| match scores.get(name) {
        Some(Entry::Number(number)) => number.ok(),
        other => panic!("{name}: {other:?}"),
    };
    for (name, expected) in [
        ("norm_rank_1", Some(3.0)),
        ("norm_rank_3", Some(1.0)),
        ("norm_rank_4", Some(0.05)),
        ("norm_rank_5", None),
        ("norm_min", Some(0.05)),
        ("norm_max", Some(3.0)),
        ("norm_median", Some(1.5)),
        ("superposition_rank_4", None),
        ("superposition_min", Some(0.0)),
    ] {
        assert_eq!(number(name), expected, "{name}");
    }
    assert!((number("w_norm").unwrap() - 14.0025f64.sqrt()).abs() < 1e-14);
    assert!((number("dimensionality_mean").unwrap() - 3.0 / 4.0).abs() < 1e-3);
    assert_eq!(number("norm_mean"), Some(2.0), "the mean over represented features");
}
