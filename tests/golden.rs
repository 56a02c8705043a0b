//! `tegum score` against an independent implementation, on every case.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::program::tegum;

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the golden arrays are there")
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("case_")) && p.join("G.npy").is_file()
        })
        .collect();
    found.sort();
    found
}

/// The program prints f64 exactly; the arrays are f32 and summed in f64, so both agree far below this.
const TOLERANCE: f64 = 1e-5;

/// Not computed from these arrays.
const ELSEWHERE: [&str; 3] = ["causal_faithfulness", "steering_specificity", "hedging"];

fn agree(name: &str, got: &Value, expected: &Value) {
    match (got, expected) {
        (Value::Number(got), Value::Number(expected)) => {
            let (got, expected) = (got.as_f64().expect("f64"), expected.as_f64().expect("f64"));
            assert!((got - expected).abs() <= TOLERANCE * (1.0 + expected.abs()), "{name}: {got} for {expected}");
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{name}");
            got.iter().zip(expected).enumerate().for_each(|(i, (g, e))| agree(&format!("{name}[{i}]"), g, e));
        }
        _ => assert_eq!(got, expected, "{name}"),
    }
}

#[test]
fn score_agrees_with_the_independent_implementation_on_every_case() {
    let cases = cases();
    assert!(cases.len() >= 20, "{}", cases.len());
    for case in cases {
        let name = case.file_name().expect("a folder").to_string_lossy().into_owned();
        let mut arguments = vec!["score"];
        for (flag, file) in [
            ("--truth", "G.npy"),
            ("--dictionary", "D.npy"),
            ("--features", "X.npy"),
            ("--latents", "Z.npy"),
            ("--hidden", "H.npy"),
            ("--reconstruction", "R.npy"),
            ("--parents", "parents.json"),
        ] {
            if case.join(file).is_file() {
                arguments.extend([flag, file]);
            }
        }
        let answer = tegum(&case, &arguments);
        assert_eq!(answer.code, 0, "{name}: {}", answer.stderr);
        let got: Value = serde_json::from_str(&answer.stdout).expect("JSON");
        let expected = std::fs::read_to_string(case.join("expected.json")).expect("expected values");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        for part in ["scores", "vectors"] {
            for (score, value) in expected[part].as_object().expect("values by name") {
                if !ELSEWHERE.contains(&score.as_str()) {
                    agree(&format!("{name} {score}"), &got[part][score], value);
                }
            }
        }
        for table in ["matching", "belongs_to", "sets"] {
            if let Some(found) = got.get(table) {
                agree(&format!("{name} {table}"), found, &expected[table]);
            }
        }
    }
}
