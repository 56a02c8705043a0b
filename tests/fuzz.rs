//! Random bytes against everything that reads what others may have written: no panic, whatever it is.
//!
//! Each target takes seeds (files of `tests/fuzz`, and what is made here), edits them at random and reads them, for
//! `TEGUM_FUZZ_SECONDS` (2 where nothing is said). The edits are numbered: a failure says which, and `TEGUM_FUZZ_FIRST` begins
//! with that number.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use polars::prelude::{DataFrame, IntoLazy, NamedFrom, Series, lit};
use tegum::plan::{Plan, Versions};
use tegum::random::{Draws, Stream};
use tegum::score::input::matrix_of;
use tegum::spec::Document;
use tegum::store::{PartName, Store};
use tegum::table::{Query, Tables, select};

use super::program::{tegum, write};

fn of_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Edits seeds and reads what comes out until time is up.
fn fuzz(target: &str, seeds: Vec<Vec<u8>>, tokens: &[&str], mut read: impl FnMut(&[u8])) {
    let mut seeds = seeds;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(target);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).map_or(vec![], |e| e.filter_map(|e| Some(e.ok()?.path())).collect());
    files.sort();
    seeds.extend(files.iter().map(|path| std::fs::read(path).expect("a seed is readable")));
    assert!(!seeds.is_empty(), "{target} needs seeds");
    for seed in &seeds {
        read(seed);
    }
    let (start, time) = (Instant::now(), Duration::from_secs(of_environment("TEGUM_FUZZ_SECONDS", 2)));
    let first = of_environment("TEGUM_FUZZ_FIRST", 0);
    let mut number = first;
    while start.elapsed() < time || number == first {
        let input = edited(&seeds, tokens, number);
        if catch_unwind(AssertUnwindSafe(|| read(&input))).is_err() {
            let shown = String::from_utf8_lossy(&input[..input.len().min(2_000)]).into_owned();
            panic!("{target}: edit {number} panics: {shown:?} ({} bytes)", input.len());
        }
        number += 1;
    }
    println!("{target}: {} edits", number - first);
}

/// The edit of a number.
fn edited(seeds: &[Vec<u8>], tokens: &[&str], number: u64) -> Vec<u8> {
    const ODD: [&[u8]; 6] = [&[0], &[0xFF; 8], &[0x80], &[0xFF, 0xFF, 0xFF, 0x7F], &[0, 0, 0, 0, 0, 0, 0, 0x80], b"-1"];
    let mut draws = Draws::new(7, Stream::Bootstrap, number);
    let mut bytes = seeds[draws.below(seeds.len() as u32) as usize].clone();
    for _ in 0..1 + draws.below(4) {
        let at = draws.below(bytes.len() as u32 + 1) as usize;
        let end = (at + draws.below(16) as usize).min(bytes.len());
        let from = draws.below(bytes.len() as u32 + 1) as usize;
        let to = (from + draws.below(32) as usize).min(bytes.len());
        match draws.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << draws.below(8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[from..to].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => drop(bytes.splice(at..end, ODD[draws.below(6) as usize].iter().copied())),
            _ if tokens.is_empty() => bytes.truncate(at),
            _ => {
                let token = tokens[draws.below(tokens.len() as u32) as usize];
                bytes.splice(at..end.min(at + 4), token.bytes());
            }
        }
    }
    bytes
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}

const BASE: &str = "name: a\ndata: {n_features: 4, firing_probability: 0.1}\ntoy: {d_hidden: 2}\n";

#[test]
fn no_text_makes_the_reader_of_experiments_panic() {
    let tokens = [
        "[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "&a ", "*a", "!t", "|", ">", "'", "\"", "#", "1e400", "null", "~",
    ];
    fuzz("spec", texts(&[BASE]), &tokens, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(error) = Document::read("x.yaml", &text) {
            assert!(!error.to_string().is_empty());
        }
    });
}

#[test]
fn no_condition_makes_exclude_panic() {
    let seeds = texts(&[
        "toy.d_hidden > 2 and not (toy.d_hidden in (3, 4) or 1.5e1 <= toy.d_hidden * 2)",
        "toy.d_hidden % 2 = 0",
    ]);
    let tokens = [
        "(",
        ")",
        " and ",
        " or ",
        "not ",
        " in ",
        "=",
        "!=",
        "<",
        ">=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "'",
        "1e308",
        "toy.d_hidden",
    ];
    fuzz("condition", seeds, &tokens, |bytes| {
        let condition = String::from_utf8_lossy(bytes).replace('\'', "''").replace(|c: char| c.is_control(), " ");
        let text = format!("{BASE}sweep: {{toy.d_hidden: [1, 2, 3]}}\nexclude: '{condition}'\n");
        if let Ok(document) = Document::read("x.yaml", &text) {
            drop(Plan::new(document, &Versions { algorithms: "a", profile: "p" }, 100));
        }
    });
}

#[test]
fn no_question_makes_the_reader_of_sql_panic() {
    let columns = vec![
        Series::new("loss".into(), [0.5, f64::NAN, 1.0]).into(),
        Series::new("seed".into(), [1i64, 2, 3]).into(),
        Series::new("method".into(), ["topk", "relu", "topk"]).into(),
    ];
    let rows = DataFrame::new(3, columns).expect("three columns of three").lazy().with_column(lit(1).alias("one"));
    let tables = Tables::of_rows(rows.collect().expect("a literal"));
    let seeds = texts(&[
        "loss > 0.5 and method = 'topk'",
        "avg(loss) / max(seed)",
        "case when loss > 1 then 0 else 1 end",
        "method in ('a', 'b')",
    ]);
    let tokens = [
        "(", ")", " and ", "not ", " in ", "=", "<", "+", "-", "*", "/", "%", "'", "loss", "seed", "method", "null",
        "avg(", "cast(",
    ];
    fuzz("sql", seeds, &tokens, |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let question = Query { where_: Some(text.clone()), ..Query::default() };
        drop(select(&tables, &question));
        drop(select(&tables, &Query { select: vec![text], ..Query::default() }));
    });
}

/// A run of one cell.
fn small_run(folder: &Path) -> PathBuf {
    let text = BASE.replace("d_hidden: 2", "d_hidden: 2, train: {steps: 5, batch_size: 8}")
        + "evaluate: {samples: 64}\nsave: {weights: none}\n";
    let file = write(folder, "a.yaml", &text);
    let answer = tegum(folder, &["--quiet", "run", &file]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    folder.join("results/a")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn no_plan_file_makes_the_store_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = small_run(folder.path());
    let plan = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("plan-"));
    let path = files_below(&out).into_iter().find(plan).expect("a plan");
    let seed = std::fs::read(&path).expect("readable");
    std::fs::remove_file(path).expect("ours");
    fuzz(
        "plan",
        vec![seed],
        &["{", "}", "[", "]", ",", ":", "\"", "null", "1e999", "-1", "18446744073709551616"],
        |bytes| {
            let hash = blake3::hash(bytes).to_hex()[..32].to_owned();
            let path = out.join(format!("plan-{hash}.json"));
            std::fs::write(&path, bytes).expect("a temporary folder takes a file");
            std::fs::write(out.join("current-plan"), &hash).expect("a temporary folder takes a file");
            if let Ok(store) = Store::open(&out) {
                drop(store.current_plan().map(|plan| store.all_rows(&plan).map(|rows| rows.height())));
            }
            std::fs::remove_file(path).expect("ours");
        },
    );
}

#[test]
fn no_part_makes_the_store_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = small_run(folder.path());
    let part = |path: &PathBuf| path.parent().and_then(Path::parent).is_some_and(|p| p.ends_with("parts"));
    let path = files_below(&out).into_iter().find(part).expect("a part");
    let seed = std::fs::read(&path).expect("readable");
    std::fs::remove_file(&path).expect("ours");
    fuzz("part", vec![seed], &[], |bytes| {
        // Under the name of its content, so that it is not the hash that refuses it.
        let path = path.with_file_name(PartName::of(0, false, bytes).file_name("parquet"));
        std::fs::write(&path, bytes).expect("a temporary folder takes a file");
        let store = Store::open(&out).expect("the plan is sound");
        let plan = store.current_plan().expect("the plan is sound");
        drop(store.all_rows(&plan).map(|rows| rows.height()));
        let _ = std::fs::remove_file(path);
    });
}

#[test]
fn no_bytes_make_the_readers_of_matrices_panic() {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let mut tensors = (header.len() as u64).to_le_bytes().to_vec();
    tensors.extend(header.bytes());
    tensors.extend([0, 0, 128, 63].repeat(4));
    let words = ["F64", "[0]", "[2,2,2]", "18446744073709551615", "{", "}", "data_offsets", "-1", "\"a\":", ","];
    fuzz("safetensors", vec![tensors], &words, |bytes| {
        drop(matrix_of(Path::new("m.safetensors"), None, bytes));
        drop(matrix_of(Path::new("m.safetensors"), Some("a"), bytes));
    });
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }                                                         \n";
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.bytes());
    array.extend([0, 0, 128, 63].repeat(4));
    let words = ["<f8", ">f4", "|O", "True", "(", ")", "4294967296", "-1", "'shape'", "{", "}", ","];
    fuzz("npy", vec![array], &words, |bytes| drop(matrix_of(Path::new("m.npy"), None, bytes)));
}
