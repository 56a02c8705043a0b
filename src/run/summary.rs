//! What a run did.

use std::path::PathBuf;

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
