//! Sizes at which there is little or nothing to average over.

use ndarray::{Array2, array};

use super::*;
use crate::score::{Definition, Kind, Need, SCORES, Vector, evaluate};

/// Null always has its reason, and a number is a number.
fn assert_sound(scores: &Scores) {
    for (definition, value) in &scores.scalars {
        match value {
            Ok(value) => assert!(value.is_finite(), "{}", definition.name),
            Err(why) => assert!(!why.0.is_empty(), "{}", definition.name),
        }
    }
    for (definition, vector) in &scores.vectors {
        if let Vector::Numbers(numbers) = vector {
            assert!(numbers.iter().flatten().all(|number| number.is_finite()), "{}", definition.name);
        }
    }
}

fn case(samples: usize, n: usize, m: usize, d: usize) -> Case {
    let mut draws = draws((samples * 1000 + n * 100 + m * 10 + d) as u64);
    let (truth, dictionary) = (normals(n, d, &mut draws), normals(m, d, &mut draws));
    let (features, latents) = (sparse(samples, n, 0.4, &mut draws), sparse(samples, m, 0.4, &mut draws));
    Case {
        parents: (1..n).map(|child| (child, child - 1)).collect(),
        ..Case::new(truth, dictionary, features, latents)
    }
}

#[test]
fn every_small_size_gives_a_number_or_a_reason() {
    for samples in [0, 1, 2, 63, 64, 65] {
        for n in [0, 1, 2, 9] {
            for m in [0, 1, 2, 9] {
                for d in [1, 2, 7, 8, 9] {
                    let scores = case(samples, n, m, d).scores();
                    assert_sound(&scores);
                    // Gaps need two dimensions; a single feature has no parent.
                    let expected = |definition: &&Definition| {
                        (d == 2 || definition.kind != Kind::Degrees)
                            && (n >= 2 || !definition.needs.contains(&Need::Parents))
                            && definition.is_of_arrays()
                    };
                    let expected: Vec<_> = SCORES.iter().filter(expected).map(|definition| definition.name).collect();
                    let scalars = scores.scalars.iter().map(|(definition, _)| definition.name);
                    let found = scalars.chain(scores.vectors.iter().map(|(definition, _)| definition.name));
                    assert!(found.eq(expected), "{samples} {n} {m} {d}");
                }
            }
        }
    }
}

#[test]
fn without_samples_nothing_is_averaged_and_every_latent_is_dead() {
    let scores = case(0, 4, 5, 6).scores();
    for name in [
        "true_l0",
        "l0",
        "explained_variance",
        "fvu",
        "shrinkage",
        "simulation_score",
        "magnitude_slope",
        "splitting",
        "missed_share",
        "absorption_any",
        "mixing",
        "mmcs_latents",
        "fisher_diagonality",
        "merging",
    ] {
        assert!(is_null(&scores, name), "{name}");
    }
    assert_eq!(value(&scores, "dead"), 5.0);
    assert_eq!(value(&scores, "mcc_represented"), 0.0);
    assert_eq!(value(&scores, "f1"), 0.0);
    assert_eq!(scores.vector("density"), Some(&Vector::Numbers(vec![None; 5])));
    assert!(value(&scores, "mcc") > 0.0, "directions need no samples");
}

#[test]
fn one_feature_and_one_latent_have_no_pairs() {
    let x = array![[1.0], [0.0], [2.0]];
    let scores = Case::new(array![[1.0, 0.0]], array![[3.0, 0.0]], x.clone(), x).scores();
    for name in ["mmcs", "mcc", "f1", "uniqueness", "simulation_score", "fisher_diagonality", "capacity"] {
        assert_near(&scores, name, 1.0);
    }
    assert_near(&scores, "interference", 0.0);
    assert_near(&scores, "mixing", 0.0);
    for name in ["mutual_coherence", "welch_gap", "gap_min_degrees", "gap_max_degrees"] {
        assert!(is_null(&scores, name), "{name}");
    }
    assert_eq!(scores.vector("cross"), Some(&Vector::Numbers(vec![None])));
}

#[test]
fn where_nothing_is_represented_only_saelens_scores_remain() {
    let mut case = case(50, 4, 5, 6);
    case.truth.mapv_inplace(|value| 0.01 * value);
    let scores = case.scores();
    for name in [
        "norm_mean",
        "interference",
        "mutual_coherence",
        "mmcs",
        "recovered",
        "mmcs_latents",
        "mcc_represented",
        "merging",
        "leakage",
        "magnitude_slope",
        "splitting",
        "split_share",
        "missed_share",
        "absorption_any",
        "absorption",
        "absorption_full",
        "absorption_gap",
        "mixing",
    ] {
        assert!(is_null(&scores, name), "{name}");
    }
    assert_eq!(value(&scores, "n_represented"), 0.0);
    for name in ["mcc", "f1", "uniqueness", "simulation_score", "l0"] {
        assert!(value(&scores, name) > 0.0, "{name}");
    }
}

#[test]
fn a_silent_dictionary_and_rows_of_zeros_are_no_trouble() {
    let mut silent = case(50, 4, 5, 6);
    silent.latents.fill(0.0);
    let scores = silent.scores();
    assert_sound(&scores);
    assert_eq!(value(&scores, "dead_fraction"), 1.0);
    assert_eq!(value(&scores, "missed_share"), 1.0);
    assert!(is_null(&scores, "mmcs_latents") && is_null(&scores, "absorption_any"));

    let mut zeros = case(50, 4, 5, 6);
    zeros.dictionary.fill(0.0);
    let scores = zeros.scores();
    assert_sound(&scores);
    assert_eq!(value(&scores, "mmcs"), 0.0);
    assert!(is_null(&scores, "fisher_diagonality"));

    let nothing = evaluate(&Arrays::of_truth(Array2::<f32>::zeros((3, 2)).view()), None);
    assert_sound(&nothing);
    assert!(is_null(&nothing, "d_star"));
    assert_eq!(value(&nothing, "capacity"), 0.0);
}

#[test]
fn numbers_too_large_for_f64_sums_are_null_not_infinite() {
    let truth = array![[1e200, 0.0], [1e200, 1e200]];
    let scores = evaluate(&Arrays::of_truth(truth.view()), None);
    assert_sound(&scores);
    assert!(is_null(&scores, "capacity"));
    // The largest f32 are far from that.
    let single = truth.mapv(|value| if value > 0.0 { f32::MAX } else { 0.0 });
    assert!(value(&evaluate(&Arrays::of_truth(single.view()), None), "capacity") > 0.0);
}

#[test]
fn a_negative_activation_counts_in_true_l0_and_is_not_a_firing() {
    let x = array![[-1.0], [1.0], [0.0], [-2.0]];
    let z = array![[0.0], [1.0], [0.0], [0.0]];
    let scores = Case::new(array![[1.0]], array![[1.0]], x, z).scores();
    assert_near(&scores, "true_l0", 0.75);
    assert_near(&scores, "recall", 1.0);
}
