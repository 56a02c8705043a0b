//! What is missing of a plan: computed in waves, published chunk by chunk.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::checkpoints::Keeper;
use super::chunk::Bench;
use super::columns::{self, ScoreColumn};
use super::harvest::Harvest;
use super::summary::FailedCell;
use super::suspects::{Blamed, Suspects, words};
use super::waves::{Todo, steps, steps_of, turn, wave};
use super::worker::Worker;
use super::{Options, RunError, Summary, given, keep_inputs, kept_weights, plan_record, provenance};
use crate::backend::{Appetite, Backend, Watch};
use crate::plan::chunk::Chunk;
use crate::plan::{AxisValue, Plan};
use crate::progress::{Progress, Standing};
use crate::spec::output::WeightsSection;
use crate::store::{self, Store};

/// How long trainings may go on after the wish to stop: what is nearly done is finished.
const GRACE: Duration = Duration::from_secs(2);

/// How long after the wish to stop trained cells may still be scored. Cluster managers kill after half a minute.
const SCORING: Duration = Duration::from_secs(10);

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
    let presence = store.announce();
    let others = store.other_writers();
    let suspects = options.worker.as_ref().map_or_else(Suspects::default, |worker| worker.orders.suspects.clone());
    let blamed: Vec<usize> = options.worker.iter().flat_map(|worker| worker.orders.running.indices()).collect();
    let mut course = Course {
        todo: todo(plan, options, &record, &state, &suspects, &blamed),
        suspects,
        known: scan.parts.iter().cloned().collect(),
        summary: Summary {
            cells: plan.cells.len() as u64,
            already: state.done,
            parts: scan.parts.len(),
            quarantined: scan.quarantined.iter().map(|d| d.path.clone()).collect(),
            ..Summary::default()
        },
    };
    if others > 0 {
        let turn = turn(store.writer(), course.todo.len());
        course.todo.rotate_left(turn);
    }
    for damage in &scan.quarantined {
        tracing::warn!("{} was set aside: {}; its cells are computed again", damage.path.display(), damage.reason);
    }
    progress.standing(&Standing {
        cells: course.summary.cells,
        done: state.done,
        damaged: scan.quarantined.len(),
        temporary: scan.temporary.len(),
        unknown: scan.unknown.len(),
        others,
    });
    let todo = course.todo.make_contiguous();
    progress.begin(todo.iter().map(|(_, cells)| cells.len() as u64).sum(), steps_of(plan, todo));
    let watch = Stoppable { progress, stop: &options.stop, since: OnceLock::new() };
    let trace = &plan.document.experiment.save.trace;
    if given.is_none() && (!course.todo.is_empty() || !blamed.is_empty()) {
        given = given::open_checked(&plan.document)?;
    }
    let keep = kept_weights(plan);
    let keeper = options.checkpoint_every.map(|every| Keeper { store: &store, every });
    let chunks = plan.chunks();
    let bench = Bench { plan, columns, backend, watch: &watch, trace, keep: &keep, given, keeper };
    let worker = options.worker.as_ref();
    let sweep = Sweep {
        plan,
        store: &store,
        keep: &keep,
        algorithms: &algorithms,
        watch: &watch,
        bench,
        chunks,
        worker,
        appetite: backend.appetite(),
    };
    if let Some(reason) = worker.and_then(|worker| worker.orders.reason.as_deref()) {
        let open: Vec<usize> = blamed.into_iter().filter(|cell| !scan.is_done(&plan.ids[*cell])).collect();
        sweep.blame(&mut course, &open, reason)?;
    }
    while let Some(cells) = sweep.next(&mut course)? {
        if options.stop.load(Ordering::Relaxed) {
            course.summary.stopped = true;
            break;
        }
        presence.renew();
        sweep.compute(&mut course, &cells)?;
        if course.summary.stopped {
            break;
        }
    }
    progress.end();
    let mut summary = course.summary;
    summary.failed = course.suspects.failed().iter().map(|(cell, why)| sweep.failed(*cell, why)).collect();
    // Another process may have computed the rest meanwhile.
    if !summary.stopped && summary.missing() > 0 {
        let done = store::Progress::of(&record, &plan.ids, &store.scan()?)?.done;
        summary.already = done.saturating_sub(summary.computed);
    }
    summary.parts = store.count_parts()?;
    summary.seconds = start.elapsed().as_secs_f64();
    if summary.computed > 0 {
        store.write_provenance(&provenance(&summary, backend, chunks, options))?;
    }
    Ok(summary)
}

/// The chunks of this shard with the cells that have to be computed, without those that are under suspicion or left out.
fn todo(
    plan: &Plan,
    options: &Options,
    record: &store::PlanRecord,
    state: &store::Progress,
    suspects: &Suspects,
    blamed: &[usize],
) -> VecDeque<Todo> {
    let held: BTreeSet<usize> = suspects.held().chain(blamed.iter().copied()).collect();
    let mine = |chunk: &usize| *chunk as u64 % options.shard.1 == options.shard.0;
    let missing = |chunk: usize| {
        let cells = state.missing(record, chunk as u64).into_iter().map(|index| index as usize);
        (chunk, cells.filter(|cell| !held.contains(cell)).collect())
    };
    debug_assert_eq!(record.cells, plan.cells.len() as u64);
    (0..record.chunks.len()).filter(mine).map(missing).filter(|(_, cells): &Todo| !cells.is_empty()).collect()
}

/// How far a run is.
struct Course {
    todo: VecDeque<Todo>,
    suspects: Suspects,
    /// Parts whose cells are known.
    known: BTreeSet<PathBuf>,
    summary: Summary,
}

/// What a run computes with.
pub(super) struct Sweep<'a> {
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub keep: &'a WeightsSection,
    pub algorithms: &'a str,
    pub watch: &'a Stoppable<'a>,
    bench: Bench<'a>,
    chunks: &'a [Chunk],
    worker: Option<&'a Worker>,
    appetite: Appetite,
}

impl Sweep<'_> {
    /// The number of the chunk that a cell is in.
    pub fn chunk_of(&self, cell: usize) -> usize {
        self.chunks.partition_point(|chunk| chunk.first + chunk.count <= cell)
    }

    /// Rows of these cells are on disk.
    pub fn told_published(&self, chunk: usize, cells: &[usize]) {
        self.watch.progress.cells_done(cells.len() as u64);
        self.watch.progress.published(chunk, cells.len());
        if let Some(worker) = self.worker {
            worker.done(cells);
        }
    }

    /// The next cells to compute together, ascending, without those that others have published meanwhile. None where
    /// nothing is left.
    fn next(&self, course: &mut Course) -> Result<Option<Vec<usize>>, RunError> {
        loop {
            if let Some(group) = course.suspects.next_group() {
                let cells = self.still_missing(course, group)?;
                if !cells.is_empty() {
                    return Ok(Some(cells));
                }
                continue;
            }
            if course.todo.is_empty() {
                return Ok(None);
            }
            let length = wave(self.plan, course.todo.make_contiguous(), self.appetite);
            let mut cells: Vec<usize> = course.todo.drain(..length).flat_map(|(_, cells)| cells).collect();
            // A writer that begins in the middle comes to the first chunk after the last.
            cells.sort_unstable();
            let cells = self.still_missing(course, cells)?;
            if !cells.is_empty() {
                return Ok(Some(cells));
            }
        }
    }

    fn still_missing(&self, course: &mut Course, cells: Vec<usize>) -> Result<Vec<usize>, RunError> {
        let chunks: BTreeSet<u64> = cells.iter().map(|cell| self.chunk_of(*cell) as u64).collect();
        let theirs = self.store.appeared(chunks.into_iter(), &mut course.known)?;
        if theirs.is_empty() {
            return Ok(cells);
        }
        let (there, missing): (Vec<usize>, Vec<usize>) =
            cells.into_iter().partition(|cell| theirs.contains(&self.plan.ids[*cell]));
        course.summary.already += there.len() as u64;
        self.watch.progress.done_by_others(there.len() as u64, steps(self.plan, &there));
        Ok(missing)
    }

    /// Computes cells and publishes them. A panic makes suspects of those that have no row then.
    fn compute(&self, course: &mut Course, cells: &[usize]) -> Result<(), RunError> {
        if let Some(worker) = self.worker {
            worker.begin(&course.suspects, cells);
        }
        let harvest = Harvest::of(self, cells);
        // What was being computed is thrown away.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.bench.compute_each(cells, &harvest)));
        let harvested = harvest.close();
        let failure = || self.bench.given.as_ref().and_then(|activations| activations.failure());
        if let Ok(Err(error)) = outcome {
            return Err(failure().map_or(RunError::from(error), RunError::Unreadable));
        }
        let (finished, counts) = harvested?;
        course.summary.add(&counts);
        let open: Vec<usize> = cells.iter().copied().filter(|cell| !finished.contains(cell)).collect();
        match outcome {
            Err(payload) => self.blame(course, &open, &words(&*payload)),
            Ok(_) => {
                course.summary.stopped |= !open.is_empty();
                Ok(())
            }
        }
    }

    /// Makes suspects of cells that were being computed when something went wrong, or records the one that it was.
    fn blame(&self, course: &mut Course, cells: &[usize], reason: &str) -> Result<(), RunError> {
        let blamed = course.suspects.blame(cells, reason, |a, b| self.plan.same_stem(a, b));
        match blamed {
            Blamed::Nobody => {}
            Blamed::Split => {
                tracing::warn!(
                    "{reason}, among {} cells: they are computed in smaller groups to find which",
                    cells.len()
                );
            }
            Blamed::Again(cell, count) => {
                tracing::warn!("{reason}, computing cell {} alone (attempt {count})", self.plan.ids[cell]);
            }
            Blamed::Failed(cell) => {
                let attempts = &course.suspects.failed()[&cell];
                let failed = self.failed(cell, attempts);
                tracing::warn!("cell {} ({}) is left out: {reason}", failed.cell, failed.what);
                self.store.record_failure(&json!({
                    "cell": failed.cell.to_string(),
                    "plan_index": cell,
                    "what": failed.what,
                    "attempts": attempts.iter().map(|reason| json!({ "reason": reason })).collect::<Vec<_>>(),
                    "tegum": env!("CARGO_PKG_VERSION"),
                    "writer": self.store.writer(),
                }))?;
            }
        }
        Ok(())
    }

    fn failed(&self, cell: usize, attempts: &[String]) -> FailedCell {
        let plan = self.plan;
        let at = plan.cells[cell];
        let values = plan.columns.iter().map(|column| (column, plan.axis_value(column, at)));
        let told = values.filter(|(_, value)| *value != AxisValue::Null);
        let mut what: Vec<String> = told.map(|(column, value)| format!("{} = {value}", column.name)).collect();
        what.push(format!("seed {}", plan.document.experiment.seeds[at.seed as usize]));
        what.extend(plan.method_name(at).map(str::to_owned));
        let reason = attempts.last().cloned().unwrap_or_default();
        FailedCell { cell: plan.ids[cell], plan_index: cell as u64, what: what.join(", "), reason }
    }
}

/// Progress that also carries the wish to stop.
pub(super) struct Stoppable<'a> {
    progress: &'a Progress,
    stop: &'a AtomicBool,
    /// When the wish was first seen.
    since: OnceLock<Instant>,
}

impl Stoppable<'_> {
    fn stopped_for(&self, time: Duration) -> bool {
        self.stop.load(Ordering::Relaxed) && self.since.get_or_init(Instant::now).elapsed() >= time
    }

    /// Whether the time for scoring what is trained is over too.
    pub fn is_over(&self) -> bool {
        self.stopped_for(SCORING)
    }
}

impl Watch for Stoppable<'_> {
    fn advance(&self, model_steps: u64) {
        self.progress.advance(model_steps);
    }
    fn restored(&self, model_steps: u64) {
        self.progress.restored(model_steps);
    }
    fn stop(&self) -> bool {
        self.stopped_for(GRACE)
    }
}
