//! The whole program: a plan's missing cells are trained, scored and published, chunk by chunk.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

pub mod checkpoints;
pub mod chunk;
pub mod columns;
pub mod evaluation;
pub mod given;
pub mod preflight;
pub mod probe;
pub mod questions;
pub mod record;
pub mod results;
mod samples;
pub mod snapshots;
pub mod stand_in;
pub mod tables;
pub mod training_set;
pub mod widths;

use crate::backend::{Appetite, Backend, BackendError, Watch};
use crate::figure::FigureSpec;
use crate::plan::chunk::Chunk;
use crate::plan::{AxisKind, AxisValue, Plan};
use crate::progress::Progress;
use crate::spec::activations::FOLDER;
use crate::spec::diagnostic::SpecError;
use crate::spec::node::Node;
use crate::spec::output::WeightsSection;
use crate::store::{self, Column, Kind, PlanRecord, Store, StoreError, Value};
use checkpoints::Keeper;
use chunk::{Bench, BenchError};
use columns::ScoreColumn;
use record::CellRecord;
use widths::Widths;

/// How a run is carried out; nothing here changes a row.
pub struct Options {
    pub out: PathBuf,
    /// (i, S): chunks whose number is i modulo S.
    pub shard: (u64, u64),
    /// Set by a signal: finish nothing more.
    pub stop: Arc<AtomicBool>,
    /// The directory may hold the run of another experiment.
    pub extend: bool,
    /// How long a full disk is waited for.
    pub disk_wait: Duration,
    /// How much time the training of an SAE may lose when the process is killed; none: all of it.
    pub checkpoint_every: Option<Duration>,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Cells of the plan.
    pub cells: u64,
    /// Of them, on disk when the run began.
    pub already: u64,
    /// Computed by this run.
    pub computed: u64,
    pub diverged: u64,
    pub degenerate: u64,
    /// Cells whose training did not reach the number of active latents it was led to.
    pub off_target: u64,
    /// Files set aside because they did not hash to their name.
    pub quarantined: Vec<PathBuf>,
    pub seconds: f64,
    /// True where a signal ended the run early.
    pub stopped: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Input(String),
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl From<BenchError> for RunError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Input(why) => RunError::Input(why),
            BenchError::Backend(error) => RunError::Backend(error),
        }
    }
}

impl RunError {
    pub fn exit_code(&self) -> i32 {
        match self {
            RunError::Spec(_) | RunError::Input(_) => 3,
            RunError::Store(error) => error.exit_code(),
            RunError::Unreadable(_) => 5,
            RunError::Backend(_) => 7,
        }
    }
}

/// What the store is told of a plan.
pub fn plan_record(plan: &Plan, columns: &[ScoreColumn], algorithms: &str, profile: &str) -> PlanRecord {
    let axes = plan.columns.iter().map(|c| Column::new(c.name.clone(), store_kind(c.kind))).collect();
    let values = |values: &[Node]| values.iter().map(crate::plan::canonical_text).collect::<Vec<_>>();
    let swept: Vec<_> = (plan.document.axes.iter())
        .flat_map(|axis| axis.paths.iter().map(|p| json!({ "path": p.path, "values": values(&p.values) })))
        .collect();
    PlanRecord {
        experiment: plan.document.experiment.name.clone(),
        canonical: json!({ "plan": plan.hash(), "seeds": plan.document.experiment.seeds, "axes": swept,
            "experiment": plan.canonical() }),
        axes,
        scores: columns.iter().map(ScoreColumn::column).collect(),
        cells: plan.cells.len() as u64,
        chunks: plan.chunks().iter().map(|c| (c.first as u64, c.count as u64)).collect(),
        algo_versions: [("all".to_owned(), algorithms.to_owned())].into(),
        profile: profile.to_owned(),
        kept: kept(plan),
    }
}

pub fn store_kind(kind: AxisKind) -> Kind {
    match kind {
        AxisKind::Int => Kind::Int,
        AxisKind::Float => Kind::Float,
        AxisKind::Text => Kind::Text,
    }
}

pub fn store_value(value: AxisValue) -> Value {
    match value {
        AxisValue::Null => Value::Null,
        AxisValue::Int(v) => Value::Int(v),
        AxisValue::Float(v) => Value::Float(v),
        AxisValue::Text(v) => Value::Text(v),
    }
}

/// Values of a cell's axes, in the order of the plan's columns.
pub fn axis_values(plan: &Plan, index: usize) -> Vec<Value> {
    plan.columns.iter().map(|c| store_value(plan.axis_value(c, plan.cells[index]))).collect()
}

/// Trains what is missing and publishes it.
///
/// # Errors
/// What the store refuses, or a file the experiment names that cannot be read. Everything published before stays.
pub fn run(
    plan: &Plan,
    columns: &[ScoreColumn],
    backend: &dyn Backend,
    options: &Options,
    progress: &Progress,
) -> Result<Summary, RunError> {
    let start = Instant::now();
    let algorithms = columns::algorithms(columns);
    let record = plan_record(plan, columns, &algorithms, backend.profile());
    // What is wrong with activations is known before a folder is made; a run that goes on looks only where something is left.
    let mut given = if options.out.exists() { None } else { given::open_checked(&plan.document)? };
    let name = &plan.document.experiment.name;
    if let (false, Some(theirs)) = (options.extend, Store::holds_other(&options.out, name)?) {
        let out = options.out.display();
        return Err(RunError::Input(format!(
            "{out} holds a run of `{theirs}`, and this experiment is `{name}`\n  choose another directory with --out DIR, or add to this one with --extend"
        )));
    }
    let store = Store::create_or_open(&options.out, plan.document.source.as_bytes(), &record)?;
    let store = store.with_disk_wait(options.disk_wait);
    let scan = store.scan()?;
    store.remove_stale(&scan);
    store.tidy_checkpoints(|cell| scan.is_done(cell))?;
    keep_inputs(plan, &store)?;
    let state = store::Progress::of(&record, &plan.ids, &scan)?;
    let chunks = plan.chunks();
    let mine = |chunk: usize| chunk as u64 % options.shard.1 == options.shard.0;
    let todo: Vec<Todo> = (0..chunks.len())
        .filter(|chunk| mine(*chunk))
        .map(|chunk| (chunk, state.missing(&record, chunk as u64).iter().map(|i| *i as usize).collect()))
        .filter(|(_, missing): &Todo| !missing.is_empty())
        .collect();
    let mut summary = Summary {
        cells: plan.cells.len() as u64,
        already: state.done,
        quarantined: scan.quarantined.iter().map(|d| d.path.clone()).collect(),
        ..Summary::default()
    };
    for damage in &scan.quarantined {
        tracing::warn!("{} was set aside: {}; its cells are computed again", damage.path.display(), damage.reason);
    }
    progress.begin(todo.iter().map(|(_, cells)| cells.len() as u64).sum(), steps_of(plan, &todo));
    let watch = Stoppable { progress, stop: &options.stop };
    let trace = &plan.document.experiment.save.trace;
    if given.is_none() && !todo.is_empty() {
        given = given::open_checked(&plan.document)?;
    }
    let failure = || given.as_ref().and_then(|activations| activations.failure());
    let keep = kept_weights(plan);
    let keeper = options.checkpoint_every.map(|every| Keeper { store: &store, every });
    let activations = given.clone();
    let bench = Bench { plan, columns, backend, watch: &watch, trace, keep: &keep, given: activations, keeper };
    for wave in waves(plan, &todo, backend.appetite()) {
        let cells: Vec<usize> = wave.iter().flat_map(|(_, missing)| missing.iter().copied()).collect();
        let records = match options.stop.load(Ordering::Relaxed) {
            true => None,
            false => bench.compute(&cells).map_err(|e| failure().map_or(RunError::from(e), RunError::Unreadable))?,
        };
        let Some(records) = records else {
            summary.stopped = true;
            break;
        };
        let mut records = records.into_iter();
        for (chunk, missing) in wave {
            let records: Vec<CellRecord> = records.by_ref().take(missing.len()).collect();
            let count = |status| records.iter().filter(|r| r.status == status).count() as u64;
            summary.diverged += count(store::Status::Diverged);
            summary.degenerate += count(store::Status::Degenerate);
            summary.off_target += count(store::Status::OffTarget);
            summary.computed += records.len() as u64;
            let result = tables::chunk_result(plan, *chunk as u64, records, &algorithms, &keep)?;
            store.publish(&result)?;
            result.rows.iter().for_each(|row| store.remove_checkpoint(&row.cell));
            progress.cells_done(missing.len() as u64);
        }
    }
    progress.end();
    // Another process may have computed the rest meanwhile.
    if !summary.stopped && summary.already + summary.computed < summary.cells {
        summary.already = store::Progress::of(&record, &plan.ids, &store.scan()?)?.done - summary.computed;
    }
    summary.seconds = start.elapsed().as_secs_f64();
    if summary.computed > 0 {
        store.write_provenance(&provenance(&summary, backend, &chunks, options))?;
    }
    Ok(summary)
}

/// Copies the files that the world names beside the kept spec, where the same relative names find them again.
///
/// Activations are too large for that: where they are named relative to the experiment, its folder is written down instead.
fn keep_inputs(plan: &Plan, store: &Store) -> Result<(), RunError> {
    if let Some(section) = &plan.document.experiment.activations
        && section.files.iter().any(|file| Path::new(file).is_relative())
    {
        let fail = |error: std::io::Error| RunError::Unreadable(format!("the experiment's folder: {error}"));
        let folder = std::path::absolute(plan.document.folder().join(".")).map_err(fail)?;
        return Ok(store.keep_file(Path::new(FOLDER), folder.display().to_string().as_bytes())?);
    }
    for file in plan.document.experiment.data.files() {
        let name = Path::new(&file.name);
        let inside = name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let from = plan.document.folder().join(name);
        // An absolute name is found as it is; one that leads out of the folder is left where it is.
        if !inside || file.optional && !from.exists() {
            continue;
        }
        let fail = |error: std::io::Error| RunError::Input(format!("{}: {error}", from.display()));
        store.keep_file(name, &std::fs::read(&from).map_err(fail)?)?;
    }
    Ok(())
}

/// A chunk's number and the plan indices of its cells that have to be computed.
type Todo = (usize, Vec<usize>);

/// Chunks to compute together: large models make chunks of one stem, which alone would keep one thread busy, and tiny
/// models that could share their batches may stand in different chunks. So a wave goes on until it has work for every
/// thread and enough in all, or until what it holds in memory is too much.
fn waves<'a>(plan: &Plan, todo: &'a [Todo], appetite: Appetite) -> Vec<&'a [Todo]> {
    let (mut waves, mut first) = (Vec::new(), 0);
    let (mut stems, mut work, mut held) = (0, 0.0, 0.0);
    for (at, (_, cells)) in todo.iter().enumerate() {
        for together in cells.chunk_by(|a, b| plan.same_stem(*a, *b)) {
            let (stem, own) = plan.work(together[0]);
            work += stem + own * together.len() as f64;
            held += plan.held(together[0]) * together.len() as f64;
            stems += 1;
        }
        if stems >= appetite.models && work >= appetite.work || held >= appetite.bytes || at + 1 == todo.len() {
            waves.push(&todo[first..=at]);
            (first, stems, work, held) = (at + 1, 0, 0.0, 0.0);
        }
    }
    waves
}

/// What the experiment has kept beside its rows: see [`PlanRecord::kept`].
fn kept(plan: &Plan) -> Vec<String> {
    let save = &plan.document.experiment.save;
    let weights = match kept_weights(plan) {
        WeightsSection::All => Some("weights=all"),
        WeightsSection::Best => Some("weights=best"),
        WeightsSection::Auto | WeightsSection::None => None,
    };
    let mut kept: Vec<String> = weights.map(str::to_owned).into_iter().collect();
    kept.extend(save.features.then(|| "features".to_owned()));
    kept.extend(save.samples.then(|| "samples".to_owned()));
    let every = save.trace.every;
    kept.extend((every > 0).then(|| format!("trace={every}")));
    kept.extend(save.trace.features.then(|| format!("snapshots={every}")));
    kept.sort();
    kept
}

/// Which weights the run keeps; never [`WeightsSection::Auto`].
pub fn kept_weights(plan: &Plan) -> WeightsSection {
    let experiment = &plan.document.experiment;
    match &experiment.save.weights {
        WeightsSection::Auto if Widths::of(&plan.document).is_some() => WeightsSection::All,
        WeightsSection::Auto if experiment.figures.iter().any(FigureSpec::needs_weights) => WeightsSection::Best,
        WeightsSection::Auto => WeightsSection::None,
        written => written.clone(),
    }
}

/// Model-steps of the cells to compute, for the progress bar.
fn steps_of(plan: &Plan, todo: &[Todo]) -> u64 {
    let mut steps = 0;
    for (_, cells) in todo {
        for (n, index) in cells.iter().enumerate() {
            let [_, toy, _, method] = plan.facts(plan.cells[*index]);
            let new_stem = n == 0 || !plan.same_stem(cells[n - 1], *index);
            steps += method.steps + if new_stem { toy.steps } else { 0 };
        }
    }
    steps
}

/// Progress that also carries the wish to stop.
struct Stoppable<'a> {
    progress: &'a Progress,
    stop: &'a AtomicBool,
}

impl Watch for Stoppable<'_> {
    fn advance(&self, model_steps: u64) {
        self.progress.advance(model_steps);
    }
    fn restored(&self, model_steps: u64) {
        self.progress.restored(model_steps);
    }
    fn stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Who computed what, beside the rows and never in them.
fn provenance(summary: &Summary, backend: &dyn Backend, chunks: &[Chunk], options: &Options) -> serde_json::Value {
    json!({
        "tegum": env!("CARGO_PKG_VERSION"),
        "backend": backend.name(),
        "profile": backend.profile(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": cpu_model(),
        "threads": rayon::current_num_threads(),
        "shard": [options.shard.0, options.shard.1],
        "chunks": chunks.len(),
        "cells_computed": summary.computed,
        "seconds": summary.seconds,
        "finished": std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |t| t.as_secs()),
    })
}

/// The CPU's name, where the system tells.
pub fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
