//! What is missing of a plan: computed in waves, published chunk by chunk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoints::Keeper;
use super::chunk::Bench;
use super::columns::{self, ScoreColumn};
use super::record::CellRecord;
use super::widths::Widths;
use super::{Options, RunError, Summary, given, keep_inputs, plan_record, provenance, tables};
use crate::backend::{Appetite, Backend, Watch};
use crate::figure::FigureSpec;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::spec::output::WeightsSection;
use crate::store::{self, Store};

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
    let scan = store.scan()?;
    store.remove_stale(&scan);
    store.tidy_checkpoints(|cell| scan.is_done(cell))?;
    keep_inputs(plan, &options.out)?;
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
    let keep = keep(plan);
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

/// Which weights the run keeps; never [`WeightsSection::Auto`].
fn keep(plan: &Plan) -> WeightsSection {
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
