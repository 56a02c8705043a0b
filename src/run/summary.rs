//! What a run did.

use std::path::PathBuf;

use crate::plan::CellId;

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Cells of the plan.
    pub cells: u64,
    /// Of them, on disk when the run began, or published by other writers meanwhile.
    pub already: u64,
    /// Computed by this run.
    pub computed: u64,
    pub diverged: u64,
    pub degenerate: u64,
    /// Cells whose training did not reach the number of active latents it was led to.
    pub off_target: u64,
    /// Cells that were left out because computing them panicked or killed the process, each time.
    pub failed: Vec<FailedCell>,
    /// Parts that hold rows in the run directory at the end.
    pub parts: usize,
    /// Files set aside because they did not hash to their name.
    pub quarantined: Vec<PathBuf>,
    pub seconds: f64,
    /// True where a signal ended the run early.
    pub stopped: bool,
}

/// A cell that has no row because computing it fails.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedCell {
    pub cell: CellId,
    pub plan_index: u64,
    /// Its axes, seed and method in words.
    pub what: String,
    /// Why, at the last attempt.
    pub reason: String,
}

impl Summary {
    /// Cells that have a row.
    pub fn done(&self) -> u64 {
        self.already + self.computed
    }

    /// Cells that have neither a row nor a failure.
    pub fn missing(&self) -> u64 {
        self.cells.saturating_sub(self.done() + self.failed.len() as u64)
    }

    /// Adds what a group of cells came to.
    pub(super) fn add(&mut self, group: &Summary) {
        self.computed += group.computed;
        self.diverged += group.diverged;
        self.degenerate += group.degenerate;
        self.off_target += group.off_target;
        self.parts += group.parts;
    }
}
