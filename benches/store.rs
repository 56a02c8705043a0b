//! What the run store costs, beside the plain file calls that it cannot be faster than.
//!
//!     cargo bench --bench store [resume|publish|share] [EXPERIMENT..]
//!
//! `resume` is what a start takes that finds 10^6 rows in 1,000 parts: the scan, which compares every byte with the names, and the
//! comparison with the plan; beside it reading and hashing the same files. `publish` is one part of 100 rows, beside writing and
//! syncing a file of that size; on most disks both are the time of their fsyncs. `share` runs experiments, by default a benchmark
//! of toy models and the phase diagram in small, and puts all that they published into a new store once more, with the scan
//! before and the collection after: what that costs over what the run cost. In a run other threads train meanwhile, so the share
//! of the CPU time is what it takes from them; the share of the wall time is what it would take if nothing else ran while it
//! waits for the disk. Directories are made in TMPDIR.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use polars::prelude::{DataFrame, ParquetReader, SerReader};
use tegum::plan::CellId;
use tegum::store::{
    ChunkResult, Column, Coverage, Kind, PartName, PlanRecord, Progress, Row, Side, SideTable, Status, Store, Value,
};

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);
    let experiments: Vec<PathBuf> = asked.iter().filter(|arg| arg.ends_with(".yaml")).map(PathBuf::from).collect();
    if wanted("resume") {
        resume(1_000, 1_000);
    }
    if wanted("publish") {
        publish(100);
    }
    if wanted("share") || !experiments.is_empty() {
        let own = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let shipped =
            vec![own("benches/experiments/toy_n20_m5.yaml"), own("experiments/check/phase_change_small.yaml")];
        for experiment in if experiments.is_empty() { shipped } else { experiments } {
            share(&experiment);
        }
    }
}

/// Two axes and eight scores.
fn plan(cells: u64, size: u64) -> PlanRecord {
    let float = |name: String| Column::new(name, Kind::Float);
    PlanRecord {
        experiment: "bench".into(),
        canonical: serde_json::json!({ "cells": cells }),
        axes: vec![float("data.firing_probability".into()), Column::new("toy.d_hidden", Kind::Int)],
        scores: (0..8).map(|n| float(format!("score_{n}"))).collect(),
        cells,
        chunks: (0..cells / size).map(|chunk| (chunk * size, size)).collect(),
        algo_versions: [("all".to_owned(), "1".to_owned())].into(),
        profile: "cpu-f32-v1".into(),
        kept: vec![],
    }
}

fn cell(index: u64) -> CellId {
    let hash = blake3::hash(&index.to_le_bytes()).to_hex();
    hash[..32].parse().expect("32 hexadecimal digits")
}

fn row(index: u64) -> Row {
    Row {
        cell: cell(index),
        plan_index: index,
        seed: index % 10,
        method: Some("topk".into()),
        status: Status::Ok,
        detail: None,
        steps_done: Some(1000),
        axes: vec![Value::Float(1.0 / (1 + index / 10) as f64), Value::Int(5)],
        scores: (0..8).map(|n| Value::Float((n as f64 + index as f64 * 0.618).fract())).collect(),
        algo_version: "toy 1".into(),
    }
}

fn rows(first: u64, count: u64) -> Vec<Row> {
    (first..first + count).map(row).collect()
}

/// Seconds of one call, the least of three.
fn least(mut f: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| time()).fold(f64::MAX, f64::min)
}

fn resume(parts: u64, size: u64) {
    let plan = plan(parts * size, size);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || Store::create_or_open(folder.path(), b"name: bench\n", &plan).expect("a store");
    let store = open();
    for chunk in 0..parts {
        let result = ChunkResult { chunk, rows: rows(chunk * size, size), ..Default::default() };
        store.publish(&result).expect("publishes");
    }
    let ids: Vec<CellId> = (0..plan.cells).map(cell).collect();
    let scan = least(|| {
        let store = open();
        let scan = store.scan().expect("a scan");
        assert_eq!(Progress::of(&plan, &ids, &scan).expect("the plan's ids").done, plan.cells);
    });
    let all = least(|| assert_eq!(store.rows(&plan, &ids).expect("rows").height() as u64, plan.cells));
    let files = files_below(&folder.path().join("parts"));
    let bytes: usize = files.iter().map(|path| std::fs::read(path).expect("readable").len()).sum();
    let plain = least(|| {
        for path in &files {
            black_box(blake3::hash(&std::fs::read(path).expect("readable")));
        }
    });
    println!("{} rows in {parts} parts of {:.1} MB in all", plan.cells, bytes as f64 / 1e6);
    println!("  open, scan, compare with the plan   {scan:>7.3} s");
    println!("  all rows in order                   {all:>7.3} s");
    println!("  read and hash, one thread           {plain:>7.3} s");
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
    let entries = entries.map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn publish(size: u64) {
    const PARTS: u64 = 200;
    let plan = plan(PARTS * size, size);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::create_or_open(folder.path(), b"name: bench\n", &plan).expect("a store");
    let results: Vec<ChunkResult> =
        (0..PARTS).map(|chunk| ChunkResult { chunk, rows: rows(chunk * size, size), ..Default::default() }).collect();
    let start = Instant::now();
    for result in &results {
        store.publish(result).expect("publishes");
    }
    let published = start.elapsed().as_secs_f64() / PARTS as f64;
    let part = std::fs::read(&files_below(&folder.path().join("parts"))[0]).expect("readable");
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).expect("new");
    let start = Instant::now();
    for number in 0..PARTS {
        let (path, aside) = (plain.join(number.to_string()), plain.join("aside"));
        let mut file = std::fs::File::create(&aside).expect("a file");
        std::io::Write::write_all(&mut file, &part).and_then(|()| file.sync_all()).expect("written");
        std::fs::rename(&aside, path).expect("renamed");
        std::fs::File::open(&plain).and_then(|folder| folder.sync_all()).expect("synced");
    }
    let written = start.elapsed().as_secs_f64() / PARTS as f64;
    println!("a part of {size} rows, {} bytes", part.len());
    println!("  published                           {:>7.3} ms", published * 1e3);
    println!("  written, synced, renamed, synced    {:>7.3} ms", written * 1e3);
}

/// What a run's store calls cost, done again in a new directory on one thread, over what the run cost.
fn share(experiment: &Path) {
    // One thread, this one, so that its CPU time is that of all calls.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (out, again) = (folder.path().join("run"), folder.path().join("again"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tegum"));
    command.args(["--quiet", "run"]).arg(experiment).arg("--out").arg(&out).args(["--backend", "cpu", "--yes"]);
    let (start, before) = (Instant::now(), cpu_of_children());
    let status = command.stdout(Stdio::null()).status().expect("the program starts");
    let run = Spent { wall: start.elapsed().as_secs_f64(), cpu: cpu_of_children() - before };
    assert!(status.success(), "{}: {status}", experiment.display());
    let store = Store::open(&out).expect("a run");
    let plan = store.current_plan().expect("a plan");
    let all = store.all_rows(&plan).expect("rows");
    let ids: Vec<CellId> =
        texts(&all, "cell").into_iter().map(|id| id.expect("an id").parse().expect("an id")).collect();
    let results = results(&out, &plan, &all);
    let spec = store.spec().expect("a spec");
    let (set_up, store) = spent(|| {
        let store = Store::create_or_open(&again, &spec, &plan).expect("a store");
        store.scan().expect("a scan");
        store
    });
    let (published, ()) = spent(|| {
        for result in &results {
            store.publish(result).expect("publishes");
        }
    });
    let (end, collected) = spent(|| {
        let whole = Coverage::whole(&plan, store.part_names().expect("a list"));
        let rows = store.rows(&plan, &ids).expect("rows");
        store.collect(&plan, &rows, &whole, false).expect("collects")
    });
    assert_eq!(collected.logical_hash, tegum::store::logical_hash(&all), "the same rows");
    let whole = [&set_up, &published, &end].iter().fold(Spent::default(), |sum, own| sum.and(own));
    println!("{}: {} cells in {} parts", experiment.display(), plan.cells, results.len());
    println!("                                         wall       CPU");
    for (what, own) in [
        ("the run", &run),
        ("set up and first scan", &set_up),
        ("publish", &published),
        ("all rows, collect at the end", &end),
        ("the store, one call after another", &whole),
    ] {
        println!("  {what:<35} {:>7.3} s {:>7.3} s", own.wall, own.cpu);
    }
    println!("  share of the run {:>26.2} % {:>7.2} %", 100.0 * whole.wall / run.wall, 100.0 * whole.cpu / run.cpu);
}

/// Seconds.
#[derive(Default)]
struct Spent {
    wall: f64,
    cpu: f64,
}

impl Spent {
    fn and(&self, other: &Spent) -> Spent {
        Spent { wall: self.wall + other.wall, cpu: self.cpu + other.cpu }
    }
}

/// What a call costs on this thread.
fn spent<T>(call: impl FnOnce() -> T) -> (Spent, T) {
    let cpu = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells");
        text.split(' ').next().and_then(|time| time.parse::<f64>().ok()).expect("nanoseconds") * 1e-9
    };
    let (start, before) = (Instant::now(), cpu());
    let value = call();
    (Spent { wall: start.elapsed().as_secs_f64(), cpu: cpu() - before }, value)
}

/// CPU seconds of the programs that have ended.
fn cpu_of_children() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let fields: Vec<&str> = text.rsplit(')').next().expect("a name in parentheses").split_whitespace().collect();
    // cutime and cstime, the sixteenth and seventeenth, in hundredths of a second.
    fields[13..15].iter().map(|ticks| ticks.parse::<f64>().expect("a number") / 100.0).sum()
}

/// What the run published, chunk by chunk.
fn results(out: &Path, plan: &PlanRecord, all: &DataFrame) -> Vec<ChunkResult> {
    let rows = rows_of(plan, all);
    let beside = |folder: &str, chunk: u64, extension: &str| {
        let of_chunk = |path: &PathBuf| {
            let name = PartName::parse(&path.file_name().unwrap_or_default().to_string_lossy(), extension);
            name.is_some_and(|name| name.chunk == chunk)
        };
        files_below(&out.join(folder)).into_iter().find(of_chunk)
    };
    let table = |path: PathBuf| {
        let file = std::fs::File::open(path).expect("readable");
        ParquetReader::new(file).finish().expect("a table")
    };
    let chunk = |(chunk, (first, count)): (usize, &(u64, u64))| {
        let chunk = chunk as u64;
        let own = |row: &&Row| (*first..first + count).contains(&row.plan_index);
        let side = |side: Side| Some(SideTable { side, frame: table(beside(side.name(), chunk, "parquet")?) });
        let weights = beside("weights", chunk, "safetensors").map(|path| std::fs::read(path).expect("readable"));
        let rows = rows.iter().filter(own).cloned().collect();
        ChunkResult { chunk, rows, side: Side::ALL.into_iter().filter_map(side).collect(), weights }
    };
    plan.chunks.iter().enumerate().map(chunk).collect()
}

fn texts(table: &DataFrame, name: &str) -> Vec<Option<String>> {
    let column = table.column(name).expect("a column").str().expect("text");
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

fn numbers(table: &DataFrame, name: &str) -> Vec<Option<u64>> {
    let column = table.column(name).expect("a column").i64().expect("whole numbers");
    column.iter().map(|number| number.map(|number| number as u64)).collect()
}

/// A table of rows as the store takes them.
fn rows_of(plan: &PlanRecord, all: &DataFrame) -> Vec<Row> {
    let values = |columns: &[Column], at: usize| {
        let value = |column: &Column| {
            let series = all.column(&column.name).expect("a column");
            let value = match column.kind {
                Kind::Float => series.f64().expect("floats").get(at).map(Value::Float),
                Kind::Int => series.i64().expect("whole numbers").get(at).map(Value::Int),
                Kind::Text => series.str().expect("text").get(at).map(|text| Value::Text(text.to_owned())),
                Kind::Bool => series.bool().expect("truths").get(at).map(Value::Bool),
            };
            value.unwrap_or(Value::Null)
        };
        columns.iter().map(value).collect()
    };
    let statuses = [Status::Ok, Status::Diverged, Status::Degenerate, Status::OffTarget, Status::Skipped];
    let status = |text: Option<String>| {
        let text = text.unwrap_or_default();
        statuses.into_iter().find(|status| status.as_str() == text).expect("a status")
    };
    let [ids, methods, details, words, versions] =
        ["cell", "method", "detail", "status", "algo_version"].map(|name| texts(all, name));
    let [indices, seeds, steps] = ["plan_index", "seed", "steps_done"].map(|name| numbers(all, name));
    let row = |at: usize| Row {
        cell: ids[at].as_deref().expect("an id").parse().expect("an id"),
        plan_index: indices[at].expect("an index"),
        seed: seeds[at].expect("a seed"),
        method: methods[at].clone(),
        status: status(words[at].clone()),
        detail: details[at].clone(),
        steps_done: steps[at],
        axes: values(&plan.axes, at),
        scores: values(&plan.scores, at),
        algo_version: versions[at].clone().unwrap_or_default(),
    };
    (0..all.height()).map(row).collect()
}
