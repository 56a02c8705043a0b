//! A run directory as a run finds it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::waves::{Todo, turn};
use super::{Options, RunError, Summary, inputs};
use crate::plan::{CellId, Plan};
use crate::progress::Standing;
use crate::store::{Damage, Past, PlanRecord, Progress, Scan, Store};

/// A run directory, opened for rows of a plan, and what is in it.
pub struct Opened {
    pub store: Store,
    pub scan: Scan,
    /// Plans that were damaged.
    plans: Vec<Damage>,
    pub state: Progress,
    /// Records of cells that have failed and have no row yet.
    pub failures: BTreeMap<CellId, Vec<Value>>,
    standing: Standing,
}

impl Opened {
    /// Makes the directory if it is absent, and looks at every file that is there.
    ///
    /// # Errors
    /// The run of another experiment, unless it is to be extended; what the store refuses.
    pub fn of(plan: &Plan, record: &PlanRecord, options: &Options) -> Result<Opened, RunError> {
        let (past, hash) = (Past::of(&options.out)?, record.hash());
        let name = &plan.document.experiment.name;
        // A plan that bears this one's name is its own, even a damaged one.
        let is_own = options.extend || past.has(&hash) == Some(true);
        if let (false, Some(theirs)) = (is_own, past.other_experiment(name)) {
            let out = options.out.display();
            return Err(RunError::Input(format!(
                "{out} holds a run of `{theirs}`, and this experiment is `{name}`\n  choose another directory with --out DIR, or add to this one with --extend"
            )));
        }
        if let (false, Some(Damage { path, reason, .. })) = (is_own, past.of_nobody()) {
            let (path, out) = (path.display(), options.out.display());
            return Err(RunError::Input(format!(
                "{path} is damaged ({reason}), so nobody knows which experiment {out} holds a run of\n  if it is this one, go on with --extend; if not, choose another directory with --out DIR"
            )));
        }
        let store = Store::create_or_open(&options.out, plan.document.source.as_bytes(), record)?;
        let store = store.with_disk_wait(options.disk_wait);
        let plans = store.settle_plans(&past)?;
        let scan = store.scan()?;
        scan.refuse_conflicts(&plan.ids)?;
        store.remove_stale(&scan);
        store.tidy_checkpoints(|cell| scan.is_done(cell))?;
        inputs::keep(plan, record, &store)?;
        let state = Progress::of(record, &plan.ids, &scan)?;
        let mut failures = failures(plan, &store, &scan);
        // Those of this run are not tried again by it.
        let left_out = options.worker.iter().flat_map(|worker| worker.orders.suspects.failed().keys());
        left_out.for_each(|cell| drop(failures.remove(&plan.ids[*cell])));
        let obsolete = obsolete(plan, &scan, &state);
        // Where there are older plans these cells may be theirs.
        if obsolete > 0 && !past.has_others(&hash) {
            let dir = store.dir().display();
            tracing::warn!("{dir} holds rows of {obsolete} cells that are of no plan here: ignored");
        }
        let standing = Standing {
            cells: plan.cells.len() as u64,
            done: state.done,
            obsolete,
            edited: past.has(&hash) == Some(false),
            damaged: scan.quarantined.len() + plans.len(),
            temporary: scan.temporary.len(),
            unknown: scan.unknown.len(),
            failed_before: failures.len(),
            others: 0,
        };
        Ok(Opened { store, scan, plans, state, failures, standing })
    }

    /// What the user is told of it. `others`: writers at work.
    pub fn standing(&self, others: usize) -> Standing {
        Standing { others, ..self.standing.clone() }
    }

    /// What a run has come to before it computes anything.
    pub fn summary(&self) -> Summary {
        Summary {
            cells: self.standing.cells,
            already: self.state.done,
            parts: self.scan.parts.len(),
            quarantined: self.scan.quarantined.iter().chain(&self.plans).map(|damage| damage.path.clone()).collect(),
            ..Summary::default()
        }
    }

    /// The chunks of this shard with the cells that have to be computed, without those that are `held`. A writer that is not
    /// alone begins at a place of its own.
    pub fn todo(&self, record: &PlanRecord, shard: (u64, u64), held: &BTreeSet<usize>, alone: bool) -> VecDeque<Todo> {
        let mine = |chunk: &usize| *chunk as u64 % shard.1 == shard.0;
        let missing = |chunk: usize| {
            let cells = self.state.missing(record, chunk as u64).into_iter().map(|index| index as usize);
            (chunk, cells.filter(|cell| !held.contains(cell)).collect())
        };
        let chunks = (0..record.chunks.len()).filter(mine).map(missing);
        let mut todo: VecDeque<Todo> = chunks.filter(|(_, cells): &Todo| !cells.is_empty()).collect();
        if !alone {
            let turn = turn(self.store.writer(), todo.len());
            todo.rotate_left(turn);
        }
        todo
    }
}

/// Cells that have a row and are not of the plan.
fn obsolete(plan: &Plan, scan: &Scan, state: &Progress) -> u64 {
    let there = scan.done().len() + scan.lacking.len();
    let lacking = match scan.lacking.is_empty() {
        true => 0,
        false => plan.ids.iter().filter(|cell| scan.lacking.binary_search(cell).is_ok()).count(),
    };
    (there as u64).saturating_sub(state.done + lacking as u64)
}

/// Records of cells of the plan that have failed and have no row, the oldest first.
fn failures(plan: &Plan, store: &Store, scan: &Scan) -> BTreeMap<CellId, Vec<Value>> {
    let mut failures = store.failures();
    if failures.is_empty() {
        return failures;
    }
    let cells: BTreeSet<&CellId> = plan.ids.iter().filter(|cell| failures.contains_key(cell)).collect();
    let open: BTreeSet<CellId> = cells.into_iter().filter(|cell| !scan.is_done(cell)).copied().collect();
    failures.retain(|cell, records| {
        // Times of one form: the order of the texts is theirs.
        records.sort_by(|a, b| a["time"].as_str().cmp(&b["time"].as_str()));
        open.contains(cell)
    });
    failures
}
