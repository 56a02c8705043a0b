//! Records as they are finished, published chunk by chunk: a row is on disk as soon as its chunk is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chunk::Sink;
use super::record::CellRecord;
use super::sweep::Sweep;
use super::{Counts, RunError, tables};
use crate::store::Status;

/// What is known of a group of cells that is being computed.
#[derive(Default)]
struct State {
    /// Cells of each chunk that are still to come.
    expected: BTreeMap<usize, usize>,
    /// Records of chunks that lack others.
    waiting: BTreeMap<usize, Vec<CellRecord>>,
    finished: BTreeSet<usize>,
    counts: Counts,
    /// The first failure to publish: nothing more is published then.
    failure: Option<RunError>,
}

/// Takes the records of one group of cells.
pub struct Harvest<'a, 'b> {
    sweep: &'a Sweep<'b>,
    state: Mutex<State>,
}

impl<'a, 'b> Harvest<'a, 'b> {
    /// For cells with these plan indices.
    pub fn of(sweep: &'a Sweep<'b>, cells: &[usize]) -> Harvest<'a, 'b> {
        let mut state = State::default();
        for cell in cells {
            *state.expected.entry(sweep.chunk_of(*cell)).or_default() += 1;
        }
        Harvest { sweep, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Where a thread panicked while it held this, the counts are still those of whole steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what is there of chunks that are not whole, as partial parts. Returns the cells that are published and what
    /// they came to.
    ///
    /// # Errors
    /// What the store refused, now or before.
    pub fn close(self) -> Result<(BTreeSet<usize>, Counts), RunError> {
        let waiting = std::mem::take(&mut self.state().waiting);
        waiting.into_iter().for_each(|(chunk, records)| self.publish(chunk, records));
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failure {
            Some(failure) => Err(failure),
            None => Ok((state.finished, state.counts)),
        }
    }

    fn publish(&self, chunk: usize, mut records: Vec<CellRecord>) {
        if self.state().failure.is_some() {
            return;
        }
        // The bytes of a part do not depend on which stem was scored first.
        records.sort_by_key(|record| record.index);
        let cells: Vec<usize> = records.iter().map(|record| record.index).collect();
        let count = |status| records.iter().filter(|r| r.status == status).count() as u64;
        let counts = Counts {
            computed: records.len() as u64,
            diverged: count(Status::Diverged),
            degenerate: count(Status::Degenerate),
            off_target: count(Status::OffTarget),
        };
        let published = self.put(chunk, records);
        let mut state = self.state();
        match published {
            Ok(()) => {
                state.counts.add(&counts);
                self.sweep.told_published(chunk, &cells, &counts);
                state.finished.extend(cells);
            }
            Err(error) => {
                state.failure.get_or_insert(error);
            }
        }
    }

    fn put(&self, chunk: usize, records: Vec<CellRecord>) -> Result<(), RunError> {
        let Sweep { plan, store, keep, algorithms, .. } = self.sweep;
        let result = tables::chunk_result(plan, chunk as u64, records, algorithms, keep)?;
        store.publish(&result)?;
        store.remove_checkpoints(&result.rows.iter().map(|row| row.cell).collect::<Vec<_>>());
        Ok(())
    }
}

impl Sink for Harvest<'_, '_> {
    fn take(&self, records: Vec<CellRecord>) {
        let mut whole = Vec::new();
        let mut state = self.state();
        for record in records {
            let chunk = self.sweep.chunk_of(record.index);
            state.waiting.entry(chunk).or_default().push(record);
            let left = state.expected.entry(chunk).or_insert(1);
            *left = left.saturating_sub(1);
            if *left == 0 {
                whole.extend(state.waiting.remove(&chunk).map(|records| (chunk, records)));
            }
        }
        drop(state);
        whole.into_iter().for_each(|(chunk, records)| self.publish(chunk, records));
    }

    fn wants_more(&self) -> bool {
        self.state().failure.is_none() && !self.sweep.watch.is_over()
    }
}
