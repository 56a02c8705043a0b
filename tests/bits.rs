//! Numbers belong to versions: a change of any bit of any score without a new version of what makes it would put other numbers under
//! old cell ids, and a run would take rows of both for one.
//!
//! `tests/bits` holds experiments that go through every world, model and baseline; `tests/golden/bits.txt` what they come to, a line
//! each: experiment, hash of its rows, versions. `TEGUM_BLESS=1 cargo test bits` writes lines whose versions are new.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::program::tegum;

/// Experiments and the scores that are compared.
const EXPERIMENTS: [(&str, &str); 4] = [
    ("dictionaries", "mcc, f1, l0, dead, fvu, mmcs, uniqueness, shrinkage, splitting, absorption_any"),
    ("sets", "loss, train_loss, data_dimensionality_median, cosine_within"),
    ("toys", "loss, loss_weighted, dimensionality_mean, capacity, n_represented, w_norm, b_norm, norm_3"),
    ("worlds", "loss, mcc, f1, l0, true_l0, fvu, absorption_any"),
];

/// Hash of the rows in exact text, and the versions of what made them.
fn rows_of(name: &str, scores: &str) -> (String, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/bits/{name}.yaml"));
    let ran = tegum(folder.path(), &["run", &file.display().to_string(), "--out", "out", "--backend", "cpu"]);
    assert_eq!(ran.code, 0, "{name}: {}{}", ran.stdout, ran.stderr);
    let ask = |sql: &str| tegum(folder.path(), &["table", "out", "--sql", sql, "--format", "csv"]).stdout;
    let rows = ask(&format!("SELECT seed, method, status, steps_done, {scores} FROM rows ORDER BY plan_index"));
    assert!(rows.lines().count() > 2, "{name}: {rows}");
    let versions = ask("SELECT DISTINCT algo_version FROM rows");
    let versions = versions.lines().nth(1).expect("a table has a head and this one row").to_owned();
    (blake3::hash(rows.as_bytes()).to_hex()[..32].to_owned(), versions)
}

#[test]
fn no_bit_of_a_row_changes_without_a_new_version() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bits.txt");
    let text = std::fs::read_to_string(&golden).unwrap_or_default();
    let known: BTreeMap<&str, (&str, &str)> = (text.lines())
        .map(|line| line.split_once(' ').expect("a name and more"))
        .map(|(name, rest)| (name, rest.split_once(' ').expect("a hash and versions")))
        .collect();
    let bless = std::env::var_os("TEGUM_BLESS").is_some();
    let (mut written, mut wrong) = (String::new(), String::new());
    for (name, scores) in EXPERIMENTS {
        let (hash, versions) = rows_of(name, scores);
        match known.get(name) {
            Some(known) if *known == (&hash, &versions) => {}
            Some((_, same)) if *same == versions => {
                let _ = writeln!(
                    wrong,
                    "{name}: other numbers under the same versions ({versions})\n  raise `VERSION` of the module, or the version of the score in src/score/definition.rs, that gives them"
                );
            }
            _ if bless => {}
            _ => {
                let _ =
                    writeln!(wrong, "{name}: hash {hash} and versions {versions} are new: TEGUM_BLESS=1 writes them");
            }
        }
        let _ = writeln!(written, "{name} {hash} {versions}");
    }
    assert!(wrong.is_empty(), "{wrong}");
    if bless {
        std::fs::write(&golden, written).expect("the golden file can be written");
    }
}
