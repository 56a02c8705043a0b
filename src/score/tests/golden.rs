//! Values of an independent implementation (`tests/golden`, Python in f64, from f32 arrays).

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::codes::Codes;
use crate::score::input::{Matrix, ScoreFiles, read_matrix, score_files};
use crate::score::{
    Activity, Arrays, CellArrays, SCORES, Scores, Side, Truth, evaluate, hedging_rate, of_cell, toy_loss,
};
use crate::toy::{ToyKind, ToyModel};

/// Scores that the independent implementation does not have.
const OWN: [&str; 1] = ["w_norm"];

/// Not computed from one cell's arrays.
const ELSEWHERE: [&str; 1] = ["hedging"];

/// Scores that the independent implementation does not have; their own files hold them to answers worked out by hand.
fn only_here(name: &str) -> bool {
    let others = ["n_components", "largest_component", "pair_share", "welch_bound", "interference_bound"];
    let sparse = ["undersampling", "active_per_dimension", "exact_recovery", "c_dec", "cross_max", "accuracy"];
    name.starts_with("census_") || others.contains(&name) || sparse.contains(&name)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every folder `case_*` but the one whose only score is not computed here.
fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("tests/golden is part of the source");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    cases.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
        name.starts_with("case_") && name != "case_hedging"
    });
    cases.sort();
    assert_eq!(cases.len(), 22, "every golden case is there");
    cases
}

fn expected(case: &Path) -> Json {
    let text = std::fs::read(case.join("expected.json")).expect("every case has its values");
    serde_json::from_slice(&text).expect("values are JSON")
}

fn files(case: &Path) -> ScoreFiles {
    let file = |name: &str| Some(case.join(name)).filter(|path| path.exists());
    ScoreFiles {
        truth: case.join("G.npy"),
        dictionary: file("D.npy"),
        features: file("X.npy"),
        latents: file("Z.npy"),
        hidden: file("H.npy"),
        reconstruction: file("R.npy"),
        parents: file("parents.json"),
    }
}

/// f64 sums of at most 1e5 terms of size 1, off by at most 1e-11, and a few operations: 1e-9 (1 + |expected|). Mixing may
/// take a singular value decomposition: 1e-8.
fn assert_close(what: &str, found: &Json, expected: &Json) {
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => {
            let tolerance = if what.ends_with("mixing") { 1e-8 } else { 1e-9 };
            assert!(
                (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
                "{what}: {found}, expected {expected}"
            );
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}

#[test]
fn every_score_of_every_case_is_the_reference_s() {
    let mut compared = 0;
    for case in cases() {
        let (name, expected) = (case.display().to_string(), expected(&case));
        let found = score_files(&files(&case)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (score, expected) in expected["scores"].as_object().expect("an object") {
            assert_close(&format!("{name} {score}"), &found["scores"][score], expected);
            if matches!(score.as_str(), "n_represented" | "dead") {
                assert_eq!(&found["scores"][score], expected, "{name} {score} is a count");
            }
            if expected.is_null() {
                assert!(found["reasons"][score].is_string(), "{name}: {score} is null without a reason");
            }
            compared += 1;
        }
        for (vector, expected) in expected["vectors"].as_object().expect("an object") {
            let (found, expected) = (found["vectors"][vector].as_array(), expected.as_array().expect("a list"));
            let found = found.unwrap_or_else(|| panic!("{name}: no {vector}"));
            assert_eq!(found.len(), expected.len(), "{name} {vector}");
            for (k, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_close(&format!("{name} {vector} {k}"), found, expected);
            }
        }
        for table in ["matching", "belongs_to", "sets"] {
            assert_eq!(found.get(table), expected.get(table), "{name} {table}");
        }
        for part in ["scores", "vectors"] {
            let names = |json: &Json| json[part].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
            let mut found: Vec<String> = names(&found);
            let mut expected: Vec<String> = names(&expected);
            expected.retain(|name| !ELSEWHERE.contains(&name.as_str()));
            found.retain(|name| !OWN.contains(&name.as_str()) && !only_here(name));
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{name}: {part} that the arrays allow");
        }
    }
    assert!(compared > 700, "{compared} values compared");
}

#[test]
fn a_toy_model_s_losses_are_the_reference_s() {
    let mut kinds = vec![];
    for case in cases().into_iter().filter(|case| case.join("toy_b.npy").exists()) {
        let toy = &expected(&case)["toy"];
        let kind = match toy["model"].as_str() {
            Some("linear") => ToyKind::Linear,
            Some("relu_output") => ToyKind::ReluOutput,
            other => panic!("{other:?}"),
        };
        let Ok(Matrix::F32(w)) = read_matrix(&case.join("G.npy")) else { panic!("G is a matrix of f32") };
        let Ok(Matrix::F32(x)) = read_matrix(&case.join("X.npy")) else { panic!("X is a matrix of f32") };
        let (b, importance) = (vector(&case.join("toy_b.npy")), vector(&case.join("toy_importance.npy")));
        let found = toy_loss(kind, w.view(), &b, &importance, x.view());
        let name = case.display();
        assert_close(&format!("{name} loss"), &found.loss.expect("there are samples").into(), &toy["loss"]);
        let weighted = found.loss_weighted.expect("there are samples").into();
        assert_close(&format!("{name} loss_weighted"), &weighted, &toy["loss_weighted"]);
        assert_interventions(
            &name.to_string(),
            &case,
            toy,
            ToyModel {
                kind,
                n_features: w.nrows(),
                d_hidden: w.ncols(),
                w: w.iter().copied().collect(),
                c: vec![],
                v: vec![],
                b,
            },
        );
        kinds.push(kind);
    }
    assert!(kinds.contains(&ToyKind::Linear) && kinds.contains(&ToyKind::ReluOutput) && kinds.len() == 3);
}

/// Interventions on the toy model are the reference's.
fn assert_interventions(name: &str, case: &Path, expected: &Json, model: ToyModel) {
    let matrix = |file: &str| read_matrix(&case.join(file)).expect("a golden matrix").into_f32();
    let (truth, dictionary, x, z) = (matrix("G.npy"), matrix("D.npy"), matrix("X.npy"), matrix("Z.npy"));
    let arrays = Arrays {
        dictionary: Some(dictionary.view()),
        latents: Some(z.view().into()),
        ..Arrays::of_truth(truth.view())
    };
    let matching = evaluate(&arrays, Some(&["matching"])).matching.expect("there are latents");
    let (truth, z) = (Truth::new(truth.view()), Codes::of_dense(z.view()));
    let cell = CellArrays {
        truth: &truth,
        dictionary: dictionary.view(),
        x: &Activity::new(Codes::of_dense(x.view()), Side::Features),
        z: &z,
        matching: &matching,
        toy: Some(&model),
        groups: &[],
        silent: None,
    };
    let mut scores = Scores::default();
    of_cell(&cell, &["causal_faithfulness", "steering_specificity"], &mut scores);
    for score in ["causal_faithfulness", "steering_specificity"] {
        let found = scores.scalar(score).expect("there is a toy model").map_or(Json::Null, Into::into);
        assert_close(&format!("{name} {score}"), &found, &expected[score]);
    }
}

#[test]
fn the_hedging_rate_is_the_reference_s() {
    let case = folder().join("case_hedging");
    let matrix = |file: &str| read_matrix(&case.join(file)).expect("a golden matrix").into_f32();
    let found = hedging_rate(matrix("D_narrow.npy").view(), matrix("D_wide.npy").view());
    let found: Json = found.expect("the dictionaries are alike").into();
    assert_close("hedging", &found, &expected(&case)["scores"]["hedging"]);
}

/// A 1-d `.npy` of f32, version 1.
fn vector(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("a golden file");
    let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    bytes[start..].as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number)).collect()
}

#[test]
fn every_score_of_the_fixtures_has_a_definition() {
    for case in cases() {
        let expected = expected(&case);
        let parts = ["scores", "vectors"].map(|part| expected[part].as_object().expect("an object").clone());
        for name in parts.iter().flat_map(|part| part.keys()).filter(|name| !ELSEWHERE.contains(&name.as_str())) {
            assert!(SCORES.iter().any(|definition| definition.name == name), "{name}");
        }
    }
}
