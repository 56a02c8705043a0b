//! The plan minus what is on disk.

use rayon::prelude::*;

use super::error::StoreError;
use super::plan_file::PlanRecord;
use super::scan::Scan;
use crate::plan::CellId;

/// How far a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkState {
    Done,
    /// Some cells are there; the plan indices of the others, ascending.
    Partial(Vec<u64>),
    Missing,
}

/// How far a plan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// One for each chunk of the plan, in its order.
    pub chunks: Vec<ChunkState>,
    /// Cells of the plan that are done.
    pub done: u64,
}

impl Progress {
    /// Compares the plan's cells, given in its order, with what is on disk. Rows of other plans in the same directory
    /// count if their cells are the same.
    ///
    /// # Errors
    /// `ids` or the chunk table do not have the plan's number of cells.
    pub fn of(plan: &PlanRecord, ids: &[CellId], scan: &Scan) -> Result<Progress, StoreError> {
        check_ids(plan, ids)?;
        let missing = |(first, count): &(u64, u64)| -> Vec<u64> {
            (*first..first + count).filter(|index| !scan.is_done(&ids[*index as usize])).collect()
        };
        let missing: Vec<Vec<u64>> = plan.chunks.par_iter().map(missing).collect();
        let left: u64 = missing.iter().map(|cells| cells.len() as u64).sum();
        let state = |(missing, (_, count)): (Vec<u64>, &(u64, u64))| match missing.len() as u64 {
            0 => ChunkState::Done,
            all if all == *count => ChunkState::Missing,
            _ => ChunkState::Partial(missing),
        };
        Ok(Progress { chunks: missing.into_iter().zip(&plan.chunks).map(state).collect(), done: plan.cells - left })
    }

    /// Plan indices of a chunk's cells that have to be computed, ascending.
    pub fn missing(&self, plan: &PlanRecord, chunk: u64) -> Vec<u64> {
        let (first, count) = plan.chunks[chunk as usize];
        match &self.chunks[chunk as usize] {
            ChunkState::Done => Vec::new(),
            ChunkState::Partial(missing) => missing.clone(),
            ChunkState::Missing => (first..first + count).collect(),
        }
    }
}

/// Whether the ids are one for each cell of the plan and its chunks cover them in order.
pub(super) fn check_ids(plan: &PlanRecord, ids: &[CellId]) -> Result<(), StoreError> {
    let wrong = |reason: String| Err(StoreError::WrongShape { reason });
    if ids.len() as u64 != plan.cells {
        return wrong(format!("{} ids for a plan of {} cells", ids.len(), plan.cells));
    }
    let mut next = 0;
    for (first, count) in &plan.chunks {
        if *first != next {
            return wrong(format!("a chunk begins at cell {first}, the one before ends at {next}"));
        }
        next += count;
    }
    if next != plan.cells { wrong(format!("the chunks hold {next} of {} cells", plan.cells)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChunkResult;
    use crate::store::testing::{ids, plan, row, store_of};

    #[test]
    fn done_partial_and_missing_chunks_are_told_apart() {
        let plan = plan(7, 3);
        let (_folder, store) = store_of(&plan);
        let publish = |chunk, indices: &[u64]| {
            let rows = indices.iter().map(|index| row(*index)).collect();
            store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
        };
        publish(0, &[1]);
        publish(2, &[6]);
        let progress = Progress::of(&plan, &ids(7), &store.scan().expect("sound")).expect("seven ids");
        assert_eq!(progress.chunks, [ChunkState::Partial(vec![0, 2]), ChunkState::Missing, ChunkState::Done]);
        assert_eq!(progress.done, 2);
        assert_eq!(progress.missing(&plan, 0), [0, 2]);
        assert_eq!(progress.missing(&plan, 1), [3, 4, 5]);
        assert!(progress.missing(&plan, 2).is_empty());
        // The rest of the chunk makes a second partial part, and then the chunk is done.
        publish(0, &progress.missing(&plan, 0));
        let progress = Progress::of(&plan, &ids(7), &store.scan().expect("sound")).expect("seven ids");
        assert_eq!((&progress.chunks[0], progress.done), (&ChunkState::Done, 4));
        assert_eq!(store.rows(&plan, &ids(7)).expect("rows").height(), 4);
    }

    #[test]
    fn an_edited_plan_finds_the_cells_it_shares() {
        let (folder, store) = store_of(&plan(4, 2));
        store.publish(&ChunkResult { chunk: 1, rows: vec![row(2), row(3)], ..Default::default() }).expect("publishes");
        let mut edited = plan(3, 3);
        edited.canonical = serde_json::json!({"edited": true});
        let order = [row(9).cell, row(3).cell, row(2).cell];
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        let progress = Progress::of(&edited, &order, &again.scan().expect("sound")).expect("three ids");
        assert_eq!(progress.chunks, [ChunkState::Partial(vec![0])]);
    }

    #[test]
    fn ids_and_chunks_must_be_the_plans() {
        let scan = Scan::default();
        assert!(Progress::of(&plan(4, 2), &ids(3), &scan).is_err());
        for chunks in [vec![(0, 3)], vec![(0, 2), (3, 1)], vec![(0, 5)]] {
            assert!(Progress::of(&PlanRecord { chunks, ..plan(4, 2) }, &ids(4), &scan).is_err());
        }
    }

    use crate::store::Store;
}
