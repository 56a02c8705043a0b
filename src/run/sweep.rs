//! What is missing of a plan: computed in waves, published chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::checkpoints::Keeper;
use super::chunk::{Bench, BenchError};
use super::columns::{self, ScoreColumn};
use super::harvest::Harvest;
use super::opened::Opened;
use super::provenance::Provenance;
use super::stopping::Stoppable;
use super::suspects::{Suspects, words};
use super::waves::{Todo, steps, steps_of, wave};
use super::worker::Worker;
use super::{Counts, Options, RunError, Summary, given, kept_weights};
use crate::backend::{Appetite, Backend, BackendError};
use crate::plan::chunk::Chunk;
use crate::plan::{CellId, Plan};
use crate::progress::Progress;
use crate::spec::output::WeightsSection;
use crate::store::{self, PlanRecord, Presence, Store};

/// Trains what is missing and publishes it. `record`: the plan as the store knows it, see [`super::plan_record`].
///
/// # Errors
/// What the store refuses, or a file the experiment names that cannot be read. Everything published before stays.
pub fn run(
    plan: &Plan,
    columns: &[ScoreColumn],
    record: &PlanRecord,
    backend: &dyn Backend,
    options: &Options,
    progress: &Progress,
) -> Result<Summary, RunError> {
    let start = Instant::now();
    let algorithms = columns::algorithms(columns);
    // What is wrong with activations is known before a folder is made; a run that goes on looks only where something is left.
    let mut given = if options.out.exists() { None } else { given::open_checked(&plan.document)? };
    let opened = Opened::of(plan, record, options)?;
    let store = &opened.store;
    let presence = store.announce();
    let others = store.other_writers();
    let mut course = Course::of(&opened, record, options, others == 0);
    let before = Before::of(&opened, plan, options);
    told_at_the_start(&opened, plan, progress, others, &mut course, &before.blamed);
    if given.is_none() && (!course.todo.is_empty() || !before.blamed.is_empty()) {
        given = given::open_checked(&plan.document)?;
    }
    let watch = Stoppable::new(progress, &options.stop);
    let keep = kept_weights(plan);
    let keeper = options.checkpoint_every.map(|every| Keeper { store, every });
    let trace = &plan.document.experiment.save.trace;
    let sweep = Sweep {
        plan,
        store,
        keep: &keep,
        algorithms: &algorithms,
        watch: &watch,
        bench: Bench { plan, columns, backend, watch: &watch, trace, keep: &keep, given, keeper },
        chunks: plan.chunks(),
        worker: options.worker.as_ref(),
        appetite: backend.appetite(),
        failures: &opened.failures,
    };
    let mut provenance = Provenance::new(store, &record.hash(), backend, options);
    let outcome = sweep.compute_all(&mut course, &before.blamed, &presence, &mut provenance);
    progress.end();
    let mut summary = course.summary;
    summary.failed = course.suspects.failed().iter().map(|(cell, why)| sweep.failed(*cell, why)).collect();
    provenance.end(&summary, &in_words(&outcome, summary.stopped));
    outcome?;
    // Another process may have computed the rest meanwhile.
    if !summary.stopped && summary.missing() > 0 {
        let scan = store.scan()?;
        scan.refuse_conflicts(&plan.ids)?;
        let done = store::Progress::of(record, &plan.ids, &scan)?.done;
        summary.already = done.saturating_sub(summary.counts.computed);
    }
    summary.parts = store.part_names()?.len();
    summary.seconds = start.elapsed().as_secs_f64();
    summary.add_before(&before.counts, before.seconds);
    Ok(summary)
}

/// `blamed`: what the worker before died of, which is computed like the rest.
fn told_at_the_start(
    opened: &Opened,
    plan: &Plan,
    progress: &Progress,
    others: usize,
    course: &mut Course,
    blamed: &[usize],
) {
    for damage in &opened.scan.quarantined {
        tracing::warn!("{} was set aside: {}; its cells are computed again", damage.path.display(), damage.reason);
    }
    progress.standing(&opened.standing(others));
    let is_open = |cell: &usize| !opened.scan.is_done(&plan.ids[*cell]);
    let mut suspects: Vec<usize> = course.suspects.queued().filter(is_open).chain(blamed.iter().copied()).collect();
    suspects.sort_unstable();
    let todo = course.todo.make_contiguous();
    let cells = suspects.len() + todo.iter().map(|(_, cells)| cells.len()).sum::<usize>();
    progress.begin(cells as u64, steps(plan, &suspects) + steps_of(plan, todo));
}

/// What workers before this one have left.
#[derive(Default)]
struct Before {
    /// What the last of them was computing and has no row: it died of one of these.
    blamed: Vec<usize>,
    /// What they have published, and how long they ran.
    counts: Counts,
    seconds: f64,
}

impl Before {
    /// What the last of them had published and could not say any more is said in its place; how those cells ended nobody counted.
    fn of(opened: &Opened, plan: &Plan, options: &Options) -> Before {
        let Some(worker) = &options.worker else { return Before::default() };
        let there = |cell: &usize| opened.scan.is_done(&plan.ids[*cell]);
        let (unsaid, blamed): (Vec<usize>, Vec<usize>) = worker.orders.running.indices().partition(there);
        let own = Counts { computed: unsaid.len() as u64, ..Counts::default() };
        if !unsaid.is_empty() {
            worker.done(&unsaid, &own);
        }
        let mut counts = worker.orders.counts;
        counts.add(&own);
        Before { blamed, counts, seconds: worker.orders.seconds }
    }
}

/// How computing ended, for provenance.
fn in_words(outcome: &Result<(), RunError>, stopped: bool) -> String {
    match outcome {
        Err(error) => format!("failed: {error}"),
        Ok(()) if stopped => "stopped".to_owned(),
        Ok(()) => "finished".to_owned(),
    }
}

/// How far a run is.
pub(super) struct Course {
    todo: VecDeque<Todo>,
    pub suspects: Suspects,
    /// Parts whose cells are known.
    known: BTreeSet<PathBuf>,
    summary: Summary,
}

impl Course {
    /// At the start; what the worker before knew of suspects is known.
    fn of(opened: &Opened, record: &PlanRecord, options: &Options, alone: bool) -> Course {
        let orders = options.worker.as_ref().map(|worker| &worker.orders);
        let suspects = orders.map_or_else(Suspects::default, |orders| orders.suspects.clone());
        let running = orders.iter().flat_map(|orders| orders.running.indices());
        let held = suspects.held().chain(running).collect();
        Course {
            todo: opened.todo(record, options.shard, &held, alone),
            suspects,
            known: opened.scan.parts.iter().cloned().collect(),
            summary: opened.summary(),
        }
    }
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
    /// What runs before this one have recorded of cells that failed.
    pub failures: &'a BTreeMap<CellId, Vec<Value>>,
}

impl Sweep<'_> {
    /// Computes and publishes until nothing is left or the run is to stop. `blamed`: what the worker before died of.
    fn compute_all(
        &self,
        course: &mut Course,
        blamed: &[usize],
        presence: &Presence,
        provenance: &mut Provenance,
    ) -> Result<(), RunError> {
        if let Some(death) = self.worker.and_then(|worker| worker.orders.death.as_ref()) {
            self.blame(course, blamed, death)?;
        }
        while let Some(cells) = self.next(course)? {
            if self.watch.is_asked() {
                course.summary.stopped = true;
            }
            if course.summary.stopped {
                break;
            }
            presence.renew();
            provenance.renew(&course.summary)?;
            self.compute(course, &cells)?;
        }
        Ok(())
    }

    /// The number of the chunk that a cell is in.
    pub fn chunk_of(&self, cell: usize) -> usize {
        self.chunks.partition_point(|chunk| chunk.first + chunk.count <= cell)
    }

    /// Rows of these cells are on disk.
    pub fn told_published(&self, chunk: usize, cells: &[usize], counts: &Counts) {
        self.watch.progress.cells_done(cells.len() as u64);
        self.watch.progress.published(chunk, cells.len());
        if let Some(worker) = self.worker {
            worker.done(cells, counts);
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

    /// Computes cells and publishes them. A panic, or a GPU without room, makes suspects of those that have no row then.
    fn compute(&self, course: &mut Course, cells: &[usize]) -> Result<(), RunError> {
        if let Some(worker) = self.worker {
            worker.begin(&course.suspects, cells);
        }
        let harvest = Harvest::of(self, cells);
        // What was being computed is thrown away.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.bench.compute_each(cells, &harvest)));
        let harvested = harvest.close();
        let guilty = match outcome {
            Ok(Ok(())) => None,
            Err(payload) => Some(words(&*payload)),
            // The backend has halved its batches before: one cell alone is too large.
            Ok(Err(BenchError::Backend(BackendError::NoRoom(why)))) => Some(why),
            Ok(Err(error)) => {
                let failure = self.bench.given.as_ref().and_then(|activations| activations.failure());
                return Err(failure.map_or(RunError::from(error), RunError::Unreadable));
            }
        };
        let (finished, counts) = harvested?;
        course.summary.counts.add(&counts);
        let open: Vec<usize> = cells.iter().copied().filter(|cell| !finished.contains(cell)).collect();
        match guilty {
            Some(why) => self.blame(course, &open, &why.into())?,
            None => course.summary.stopped |= !open.is_empty(),
        }
        Ok(())
    }
}
