//! What must change nothing, and that a score depends on its own arrays alone.

use ndarray::{Array2, Axis};

use super::*;
use crate::score::{Definition, Need, SCORES, Vector};

/// A trained-looking case: noisy decoders in superposition, shrunken codes, false firings, a small hierarchy.
fn noisy(seed: u64) -> Case {
    let mut draws = draws(seed);
    let (n, m, d, samples) = (9 + (seed % 4) as usize, 12, 7, 300);
    let mut truth = normals(n, d, &mut draws);
    for (i, mut row) in truth.rows_mut().into_iter().enumerate() {
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.mapv_inplace(|value| value / norm * (1.1 - 0.08 * i as f64));
    }
    let mut features = sparse(samples, n, 0.2, &mut draws);
    for mut x in features.rows_mut() {
        if x[0] == 0.0 {
            (x[1], x[2]) = (0.0, 0.0);
        }
    }
    let noise = normals(m, d, &mut draws);
    let dictionary = Array2::from_shape_fn((m, d), |(j, k)| truth[[j % n, k]] + 0.15 * noise[[j, k]]);
    let false_firings = sparse(samples, m, 0.05, &mut draws);
    let latents = Array2::from_shape_fn((samples, m), |(s, j)| {
        let x = features[[s, j % n]];
        // The parent's latent is silent with its first child.
        let silenced = j == 0 && features[[s, 1]] > 0.0;
        (if silenced { 0.0 } else { (0.9 * x - 0.2).max(0.0) }) + 0.3 * false_firings[[s, j]]
    });
    Case { parents: [(1, 0), (2, 0)].into(), ..Case::new(truth, dictionary, features, latents) }
}

/// Rounding of the changed arrays is 1e-16 of entries of size 1, and no score of these cases is near a threshold: 1e-9
/// leaves 1e5 above what a few hundred operations may add up to.
fn assert_same(left: &Scores, right: &Scores, but: &[&str], why: &str) {
    assert_eq!(left.scalars.len(), right.scalars.len());
    for ((definition, a), (_, b)) in left.scalars.iter().zip(&right.scalars) {
        if !but.contains(&definition.name) {
            let same = match (a, b) {
                (Ok(a), Ok(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            assert!(same, "{why}: {} {a:?} {b:?}", definition.name);
        }
    }
}

fn assert_same_tables(left: &Scores, right: &Scores, why: &str) {
    assert_eq!(left.matching, right.matching, "{why}");
    assert_eq!(left.belongs_to, right.belongs_to, "{why}");
    assert_eq!(left.sets, right.sets, "{why}");
}

#[test]
fn a_latent_times_s_with_its_decoder_row_over_s_changes_nothing() {
    for seed in 0..20 {
        let case = noisy(seed);
        let mut scaled = case.clone();
        let mut draws = draws(1000 + seed);
        for j in 0..case.dictionary.nrows() {
            let s = 10f64.powf(4.0 * draws.uniform() - 2.0);
            scaled.dictionary.row_mut(j).mapv_inplace(|value| value / s);
            scaled.latents.column_mut(j).mapv_inplace(|value| value * s);
        }
        assert_same(&case.scores(), &scaled.scores(), &[], "scaled");
        assert_same_tables(&case.scores(), &scaled.scores(), "scaled");
    }
}

#[test]
fn turning_the_space_changes_nothing() {
    for seed in 0..20 {
        let case = noisy(seed);
        let mut draws = draws(2000 + seed);
        let d = case.truth.ncols();
        // A product of plane rotations.
        let mut turn = Array2::eye(d);
        for _ in 0..3 * d {
            let (a, b) = (draws.below(d as u32) as usize, draws.below(d as u32) as usize);
            let (sin, cos) = (7.0 * draws.uniform()).sin_cos();
            if a != b {
                let (left, right) = (turn.column(a).to_owned(), turn.column(b).to_owned());
                turn.column_mut(a).assign(&(&left * cos - &right * sin));
                turn.column_mut(b).assign(&(&left * sin + &right * cos));
            }
        }
        let mut turned = case.clone();
        for array in [&mut turned.truth, &mut turned.dictionary, &mut turned.hidden, &mut turned.reconstruction] {
            *array = array.dot(&turn);
        }
        assert_same(&case.scores(), &turned.scores(), &[], "turned");
        assert_same_tables(&case.scores(), &turned.scores(), "turned");
    }
}

#[test]
fn the_order_of_samples_and_of_latents_changes_no_score() {
    for seed in 0..20 {
        let case = noisy(seed);
        let reversed = |array: &Array2<f64>, axis: usize| {
            let mut view = array.view();
            view.invert_axis(Axis(axis));
            view.to_owned()
        };
        let mut other = case.clone();
        other.dictionary = reversed(&other.dictionary, 0);
        other.latents = reversed(&other.latents, 1);
        for array in [&mut other.features, &mut other.latents, &mut other.hidden, &mut other.reconstruction] {
            *array = reversed(array, 0);
        }
        assert_same(&case.scores(), &other.scores(), &[], "reordered");
    }
}

#[test]
fn the_same_arrays_give_the_same_bits_for_any_number_of_threads() {
    // More latents than one block of correlations.
    let mut draws = draws(7);
    let (truth, features) = (normals(90, 20, &mut draws), sparse(500, 90, 0.3, &mut draws));
    let wide = Case::new(truth.clone(), truth, features.clone(), features);
    for case in [noisy(3), wide] {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads");
            pool.install(|| case.scores())
        };
        let alone = with(1);
        for threads in [2, 3, 7] {
            assert_eq!(alone, with(threads));
        }
    }
}

#[test]
fn arrays_of_f32_score_as_the_same_numbers_in_f64_and_in_any_memory_order() {
    let case = noisy(5);
    let single = [&case.truth, &case.dictionary, &case.features, &case.latents, &case.hidden, &case.reconstruction]
        .map(|array| array.mapv(|value| value as f32));
    let double = single.clone().map(|array| array.mapv(f64::from));
    let turned = double.clone().map(|array| array.t().as_standard_layout().to_owned());
    fn arrays<'a, T>(a: [ndarray::ArrayView2<'a, T>; 6], parents: &'a BTreeMap<usize, usize>) -> Arrays<'a, T> {
        let [truth, dictionary, features, latents, hidden, reconstruction] = a;
        let (dictionary, features, latents) = (Some(dictionary), Some(features.into()), Some(latents.into()));
        let (hidden, reconstruction, parents) = (Some(hidden), Some(reconstruction), Some(parents));
        Arrays { dictionary, features, latents, hidden, reconstruction, parents, ..Arrays::of_truth(truth) }
    }
    let expected = evaluate(&arrays(double.each_ref().map(|array| array.view()), &case.parents), None);
    let from_single = evaluate(&arrays(single.each_ref().map(|array| array.view()), &case.parents), None);
    let from_turned = evaluate(&arrays(turned.each_ref().map(|array| array.t()), &case.parents), None);
    assert_eq!(expected, from_single);
    assert_eq!(expected, from_turned);
}

#[test]
fn a_score_asked_for_alone_is_the_same_and_comes_alone() {
    let case = noisy(2);
    let all = case.scores();
    for definition in SCORES {
        let one = evaluate(&case.arrays(), Some(&[definition.name]));
        let gap = definition.name.starts_with("gap_");
        assert!(one.matching.is_none() && one.belongs_to.is_none() && one.sets.is_none());
        if definition.is_vector() {
            assert_eq!(one.vector(definition.name), all.vector(definition.name));
            assert_eq!((one.scalars.len(), one.vectors.len()), (0, all.vector(definition.name).iter().count()));
        } else if gap {
            assert!(
                one.scalar(definition.name).is_some_and(|value| value.is_err()),
                "asked for where d_hidden is not 2"
            );
        } else {
            assert_eq!(one.scalar(definition.name), all.scalar(definition.name), "{}", definition.name);
            assert_eq!((one.scalars.len(), one.vectors.len()), (all.scalar(definition.name).iter().count(), 0));
        }
    }
    let tables = evaluate(&case.arrays(), Some(&["sets", "matching", "belongs_to", "norm_last", "no_such_score"]));
    assert_eq!((&tables.sets, &tables.matching), (&all.sets, &all.matching));
    assert_eq!(tables.belongs_to, all.belongs_to);
    assert_eq!((tables.scalars.len(), tables.vectors.len()), (0, 1));
    assert_eq!(tables.get("norm_last"), all.get("norm_last"));
}

/// The arrays of `case` that `needs` names.
fn only<'a>(case: &'a Case, needs: &[Need]) -> Arrays<'a, f64> {
    let all = case.arrays();
    let given = |need| needs.contains(&need);
    Arrays {
        truth: all.truth,
        dictionary: all.dictionary.filter(|_| given(Need::Dictionary)),
        features: all.features.filter(|_| given(Need::Features)),
        latents: all.latents.filter(|_| given(Need::Latents)),
        hidden: all.hidden.filter(|_| given(Need::Hidden)),
        reconstruction: all.reconstruction.filter(|_| given(Need::Reconstruction)),
        rebuilt: None,
        parents: all.parents.filter(|_| given(Need::Parents)),
    }
}

#[test]
fn a_score_needs_the_arrays_that_its_definition_names_and_no_others() {
    let case = noisy(1);
    let all = case.scores();
    let has = |scores: &Scores, definition: &Definition| {
        scores.scalar(definition.name).is_some() || scores.vector(definition.name).is_some()
    };
    let elsewhere = |definition: &&Definition| !definition.is_of_arrays();
    for definition in SCORES.iter().filter(|definition| !elsewhere(definition)) {
        let (name, needs) = (definition.name, definition.needs);
        let scores = evaluate(&only(&case, needs), Some(&[name]));
        assert!(has(&scores, definition), "{name} with all that it needs");
        if !name.starts_with("gap_") {
            assert_eq!(scores.scalar(name), all.scalar(name), "{name} reads nothing else");
            assert_eq!(scores.vector(name), all.vector(name), "{name} reads nothing else");
        }
        for missing in needs.iter().filter(|need| **need != Need::Truth) {
            let fewer: Vec<Need> = needs.iter().copied().filter(|need| need != missing).collect();
            assert!(!has(&evaluate(&only(&case, &fewer), Some(&[name])), definition), "{name} without {missing:?}");
        }
    }
    for definition in SCORES.iter().filter(elsewhere) {
        assert!(!has(&all, definition), "{} is computed elsewhere", definition.name);
    }
}

#[test]
fn every_value_lies_in_the_range_of_its_kind() {
    use crate::score::Kind;
    for seed in 0..20 {
        let scores = noisy(seed).scores();
        for (definition, value) in &scores.scalars {
            let value = value.expect("these cases define every score");
            // A cosine of a row with itself may be off 1 by rounding.
            let fits = match definition.kind {
                Kind::Share => (-1e-12..=1.0 + 1e-12).contains(&value),
                Kind::Cosine => (-1.0 - 1e-12..=1.0 + 1e-12).contains(&value),
                Kind::Count => value >= 0.0,
                Kind::Degrees => (0.0..=360.0).contains(&value),
                Kind::Amount | Kind::Word => true,
            };
            assert!(fits, "{} is {value}", definition.name);
        }
        for (definition, vector) in &scores.vectors {
            assert_eq!(definition.kind == Kind::Word, matches!(vector, Vector::Words(_)), "{}", definition.name);
        }
    }
}
