//! Keeps trainings under way in the run directory.

use std::time::Duration;

use crate::backend::Watch;
use crate::backend::checkpoint::Checkpoints;
use crate::plan::CellId;
use crate::store::Store;

/// Where and how often.
#[derive(Clone, Copy, Debug)]
pub struct Keeper<'a> {
    /// The run directory.
    pub store: &'a Store,
    /// How much time a training may lose.
    pub every: Duration,
}

/// A watch under which the states of SAEs are kept by the ids of their cells.
pub struct Kept<'a> {
    /// Told of progress.
    pub watch: &'a dyn Watch,
    /// Where and how often.
    pub keeper: Keeper<'a>,
    /// The cell of each job of each group.
    pub cells: Vec<Vec<CellId>>,
}

impl Watch for Kept<'_> {
    fn behind(&self) -> Option<&dyn Watch> {
        Some(self.watch)
    }
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        Some(self)
    }
}

impl Checkpoints for Kept<'_> {
    fn every(&self) -> Duration {
        self.keeper.every
    }

    fn load(&self, group: usize, job: usize) -> Option<Vec<u8>> {
        self.keeper.store.read_checkpoint(&self.cells[group][job])
    }

    fn save(&self, group: usize, job: usize, state: &[u8]) {
        if let Err(error) = self.keeper.store.write_checkpoint(&self.cells[group][job], state) {
            tracing::warn!("a training goes on without a checkpoint: {error}");
        }
    }
}
