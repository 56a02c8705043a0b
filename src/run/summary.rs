//! What a run did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::plan::CellId;

/// Cells that were computed and published, and how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub computed: u64,
    pub diverged: u64,
    pub degenerate: u64,
    /// Cells whose training did not reach the number of active latents it was led to.
    pub off_target: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.computed += other.computed;
        self.diverged += other.diverged;
        self.degenerate += other.degenerate;
        self.off_target += other.off_target;
    }
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Cells of the plan.
    pub cells: u64,
    /// Of them, on disk when the run began, or published by other writers meanwhile.
    pub already: u64,
    /// What this run computed.
    pub counts: Counts,
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
        self.already + self.counts.computed
    }

    /// Cells that have neither a row nor a failure.
    pub fn missing(&self) -> u64 {
        self.cells.saturating_sub(self.done() + self.failed.len() as u64)
    }

    /// Adds what workers before this one did, whose rows count as there so far.
    pub(super) fn add_before(&mut self, counts: &Counts, seconds: f64) {
        self.already = self.already.saturating_sub(counts.computed);
        self.counts.add(counts);
        self.seconds += seconds;
    }
}
