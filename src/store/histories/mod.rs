//! Random histories of a run directory, and what must be true of it whatever happened.
//!
//! One to three writers of one plan publish chunks with side tables and weights and merge parts, taking turns at file calls, while
//! one of them is killed, the power is cut, or a call fails; files rot; and the same command is given again. After each of
//! these, and at the end:
//!
//! - a cell that a writer published, or counted as done at its start, is there, whatever was killed or cut since;
//! - no row is there twice or with other numbers, and every file under a name of the store is what the name says;
//! - a writer that nothing happened to has done its work, and one that failed says so with an exit code;
//! - the last run ends in the rows, side tables and weights of an undisturbed one, and `verify` finds nothing wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use polars::prelude::{DataFrame, IdxCa, IdxSize, NamedFrom, df};
use rustix::io::Errno;

use super::fs::StoreFs;
use super::fs::broken::{Broken, Rule};
use super::fs::crashing::{Machine, Oddities, Process};
use super::fs::faulty::{Fault, Faulty};
use super::part::Extent;
use super::testing::{cell, ids, plan, row};
use super::{CellId, ChunkResult, PartName, PlanRecord, Progress, Side, SideTable, Store, StoreError, WeightTensor};
use super::{encode_weights, logical_hash};
use crate::random::{Draws, Stream};

mod compacting;
mod every_call;
mod random;

const DIR: &str = "/results/run";
const SPEC: &[u8] = b"name: test\nseeds: [0, 1]\n";
const CELLS: u64 = 6;
const CHUNK: u64 = 2;

/// What a file system says in earnest.
const ERRORS: [Errno; 8] =
    [Errno::NOSPC, Errno::IO, Errno::DQUOT, Errno::INTR, Errno::MFILE, Errno::ROFS, Errno::PERM, Errno::STALE];

/// What may be wrong with a store, to show that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    Sound,
    Without(Rule),
    BelievingNames,
    /// Parts are removed before what they were merged into is on disk.
    RemovingFirst,
}

/// Rows of a merged part, more than there are.
const ROWS: usize = 64;

/// Cells that must be there from now on.
type Ledger = Arc<Mutex<BTreeSet<CellId>>>;

fn the_plan() -> PlanRecord {
    plan(CELLS, CHUNK)
}

/// What training these cells of a chunk comes to: rows, a side table and weights.
fn result(chunk: u64, indices: &[u64]) -> ChunkResult {
    let twice = |index: &u64| [cell(*index).to_string(), cell(*index).to_string()];
    let cells: Vec<String> = indices.iter().flat_map(twice).collect();
    let norms: Vec<f64> = indices.iter().flat_map(|index| [*index as f64, 0.5]).collect();
    let features: Vec<i64> = indices.iter().flat_map(|_| [0, 1]).collect();
    let frame = df!["cell" => cells, "feature" => features, "norm" => norms].expect("columns of one length");
    let values: Vec<[f32; 2]> = indices.iter().map(|index| [*index as f32, -1.5]).collect();
    let tensor = |(index, values): (&u64, &'static [f32])| WeightTensor {
        cell: cell(*index),
        name: "w",
        shape: vec![2],
        values,
    };
    let values: Vec<&'static [f32]> =
        values.into_iter().map(|values| &*Box::leak(Box::new(values)) as &[f32]).collect();
    let tensors: Vec<WeightTensor> = indices.iter().zip(values).map(tensor).collect();
    ChunkResult {
        chunk,
        rows: indices.iter().map(|index| row(*index)).collect(),
        side: vec![SideTable { side: Side::Features, frame }],
        weights: Some(encode_weights(&tensors).expect("shapes of two")),
    }
}

/// One run of the program: opens the directory, counts what is there, publishes the rest in an order of its own. Returns how
/// many cells it computed.
fn command(
    files: Arc<dyn StoreFs>,
    kind: Build,
    draws: &mut Option<Draws>,
    ledger: &Ledger,
) -> Result<usize, StoreError> {
    let plan = the_plan();
    let mut store = Store::on(files, Path::new(DIR));
    store.disk.believes_names = kind == Build::BelievingNames;
    store.disk.removes_first = kind == Build::RemovingFirst;
    let store = store.set_up(SPEC, &plan)?;
    let scan = store.scan()?;
    store.remove_stale(&scan);
    ledger.lock().expect("no writer panicked").extend(scan.done());
    let progress = Progress::of(&plan, &ids(CELLS), &scan)?;
    let mut chunks: Vec<u64> = (0..plan.chunks.len() as u64).collect();
    let mut computed = 0;
    while !chunks.is_empty() {
        let mut draw = |below: usize| draws.as_mut().map_or(below - 1, |draws| draws.below(below as u32) as usize);
        let chunk = chunks.remove(draw(chunks.len()));
        let mut missing = progress.missing(&plan, chunk);
        // Another command, at any moment of a run.
        if draw(8) == 0 {
            store.compact(ROWS)?;
        }
        // A signal: a part of the chunk is published, and no more.
        let is_stopped = missing.len() > 1 && draw(6) == 0;
        missing.truncate(if is_stopped { 1 } else { missing.len() });
        if !missing.is_empty() {
            store.publish(&result(chunk, &missing))?;
            computed += missing.len();
            ledger.lock().expect("no writer panicked").extend(missing.iter().map(|index| cell(*index)));
        }
        if is_stopped {
            break;
        }
    }
    Ok(computed)
}

/// What an undisturbed run comes to.
struct Reference {
    rows: DataFrame,
    hash: String,
    side: DataFrame,
}

/// What a run comes to to which nothing happens.
static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let machine = Machine::new(0);
    command(Arc::new(machine.process()), Build::Sound, &mut None, &Ledger::default()).expect("nothing happens");
    let store = Store::open_on(Arc::new(machine.process()), Path::new(DIR)).expect("a run");
    let rows = store.rows(&the_plan(), &ids(CELLS)).expect("rows");
    let side = store.side(Side::Features, &rows).expect("a side table");
    Reference { hash: logical_hash(&rows), rows, side }
});

/// A machine with an empty run directory.
static EMPTY_RUN: LazyLock<Machine> = LazyLock::new(|| {
    let machine = Machine::new(0);
    Store::create_or_open_on(Arc::new(machine.process()), Path::new(DIR), SPEC, &the_plan()).expect("nothing happens");
    machine
});

/// What must be true at any time. `rotten`: files that were damaged on purpose.
fn check(machine: &Machine, ledger: &Ledger, rotten: &BTreeSet<PathBuf>) -> Result<(), String> {
    for (path, bytes) in machine.files() {
        check_name(&path, &bytes, rotten)?;
    }
    let ledger = ledger.lock().expect("no writer panicked");
    // As a process sees it that comes later.
    let later = machine.copy(1, Oddities::default());
    let store = match Store::open_on(Arc::new(later.process()), Path::new(DIR)) {
        Err(StoreError::NotAStore { .. }) if ledger.is_empty() => return Ok(()),
        other => other.map_err(|error| format!("opening: {error}"))?,
    };
    let scan = store.verify().map_err(|error| format!("verify: {error}"))?;
    if let Some(damage) = scan.quarantined.iter().find(|damage| !rotten.contains(&damage.path)) {
        return Err(format!("verify: {}: {}", damage.path.display(), damage.reason));
    }
    if let Some(lost) = ledger.iter().find(|cell| !scan.is_done(cell)) {
        return Err(format!("cell {lost} was published and is not there"));
    }
    let rows = store.rows(&the_plan(), &ids(CELLS)).map_err(|error| format!("rows: {error}"))?;
    let index = rows.column("plan_index").and_then(|column| column.i64()).map_err(|error| error.to_string())?;
    let index: Vec<IdxSize> = index.into_no_null_iter().map(|index| index as IdxSize).collect();
    if index.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(format!("a row is there twice: {index:?}"));
    }
    let expected = REFERENCE.rows.take(&IdxCa::new("".into(), index)).map_err(|error| error.to_string())?;
    if rows.equals_missing(&expected) { Ok(()) } else { Err(format!("rows {rows} and not {expected}")) }
}

/// Files under names of the store are what their names say.
fn check_name(path: &Path, bytes: &[u8], rotten: &BTreeSet<PathBuf>) -> Result<(), String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let inside = path.strip_prefix(DIR).unwrap_or(path).to_string_lossy().into_owned();
    let is_sound = match PartName::parse(&name, "parquet").or_else(|| PartName::parse(&name, "safetensors")) {
        Some(part) => part.is_of(bytes),
        None if name.starts_with("spec") && name.ends_with(".yaml") => bytes == SPEC,
        None if name == "current-plan" => bytes == format!("{}\n", the_plan().hash()).as_bytes(),
        None => true,
    };
    if is_sound || inside.starts_with("quarantine") || rotten.contains(path) {
        return Ok(());
    }
    Err(format!("{} is not what its name says", path.display()))
}

/// The same command once more, with nothing happening: it must succeed, and leave what an undisturbed run leaves.
fn check_end(machine: &Machine, kind: Build, ledger: &Ledger) -> Result<(), String> {
    let last = machine.copy(2, Oddities::default());
    let run = |kind| {
        let files = files_of(&last.process(), kind, Fault::Never);
        command(files, kind, &mut None, ledger).map_err(|error| format!("the last run: {error}"))
    };
    run(kind)?;
    check(&last, ledger, &BTreeSet::new()).map_err(|why| format!("at the end: {why}"))?;
    if run(kind)? > 0 {
        return Err("a finished run computed something".into());
    }
    let store = Store::open_on(Arc::new(last.process()), Path::new(DIR)).map_err(|error| error.to_string())?;
    let rows = store.rows(&the_plan(), &ids(CELLS)).map_err(|error| error.to_string())?;
    if logical_hash(&rows) != REFERENCE.hash {
        return Err(format!("other rows than those of an undisturbed run: {rows}"));
    }
    let side = store.side(Side::Features, &rows).map_err(|error| error.to_string())?;
    if !side.equals_missing(&REFERENCE.side) {
        return Err(format!("another side table than that of an undisturbed run: {side}"));
    }
    for index in 0..CELLS {
        let weights = store.weights(cell(index)).map_err(|error| error.to_string())?;
        if weights.len() != 1 || weights[0].values != [index as f32, -1.5] {
            return Err(format!("other weights of cell {index}: {weights:?}"));
        }
    }
    match machine.files().iter().find(|(path, _)| path.starts_with(Path::new(DIR).join("conflicts"))) {
        Some((path, _)) => Err(format!("{} where nothing differs", path.display())),
        None => Ok(()),
    }
}

/// The file system of a process, with a fault or a broken rule.
fn files_of(process: &Process, kind: Build, fault: Fault) -> Arc<dyn StoreFs> {
    match kind {
        Build::Without(rule) => Arc::new(Broken::new(Arc::new(process.clone()), rule)),
        _ => Arc::new(Faulty::on(process, fault)),
    }
}

/// Runs `work` for every number below `count`, on every core; each in a pool of one thread, so that the store's own parallel
/// reading happens in one order. Returns the failures.
fn on_all_cores(count: u64, work: impl Fn(u64, &Lane) -> Result<(), String> + Sync) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for core in 0..cores {
            let (work, failures) = (&work, &failures);
            scope.spawn(move || {
                let lane = Lane::new();
                for number in (core..count).step_by(cores as usize) {
                    if let Err(why) = lane.pools[0].install(|| work(number, &lane)) {
                        failures.lock().expect("no thread panicked").push(format!("{number}: {why}"));
                    }
                }
            });
        }
    });
    failures.into_inner().expect("no thread panicked")
}

/// Threads for the writers of one history, the first for a history's own work.
struct Lane {
    pools: Vec<rayon::ThreadPool>,
}

impl Lane {
    fn new() -> Self {
        let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        Lane { pools: (0..4).map(pool).collect() }
    }
}
