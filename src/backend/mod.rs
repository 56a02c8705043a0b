//! Where training happens. A backend is given many jobs and trains them together; steps above it know no more.

use checkpoint::Checkpoints;

use crate::hidden::SaeSource;
use crate::sae::{SaeJob, SaeOutcome};
use crate::toy::{ToyJob, ToyOutcome};

pub mod checkpoint;
pub mod cpu;
pub mod cuda;
pub mod ops;
mod part;
pub mod reference;
pub mod simd;

/// SAEs that read the same hidden states; those of equal batch size share one pass of data.
pub struct SaeGroup {
    pub source: SaeSource,
    pub saes: Vec<SaeJob>,
}

/// Told of finished training steps, from any thread, a few times a second at most per job.
///
/// A watch may stand before another one and do a part of its work: what it does not do itself goes to [`Watch::behind`].
pub trait Watch: Sync {
    /// The watch that is told what this one leaves alone.
    fn behind(&self) -> Option<&dyn Watch> {
        None
    }
    /// So many more model-steps are done.
    fn advance(&self, model_steps: u64) {
        if let Some(behind) = self.behind() {
            behind.advance(model_steps);
        }
    }
    /// So many of the model-steps to come were done by a run before this one.
    fn restored(&self, model_steps: u64) {
        match self.behind() {
            Some(behind) => behind.restored(model_steps),
            None => self.advance(model_steps),
        }
    }
    /// True when training should stop early (a signal came): jobs not finished then return nothing.
    fn stop(&self) -> bool {
        self.behind().is_some_and(|behind| behind.stop())
    }
    /// Who keeps the states of SAEs in training; none: a training that is killed begins anew.
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        self.behind().and_then(|behind| behind.checkpoints())
    }
}

/// What a backend is given at once: as many models and as much work, or as many bytes of models. All of it is trained before
/// any of it is published, so it is also what a kill may lose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Appetite {
    /// Toy models, or hidden states that SAEs share; fewer of them are enough if work could be dealt out to as many threads.
    pub models: usize,
    /// Estimated floating-point operations.
    pub work: f64,
    /// Bytes that models hold until they are scored.
    pub bytes: f64,
}

/// Estimated floating-point operations of half a minute of one thread; as those of a chunk.
const HALF_A_MINUTE: f64 = 6e11;

impl Appetite {
    /// About half a minute of every thread, and never less than a model for each.
    fn of_threads() -> Appetite {
        let threads = rayon::current_num_threads();
        Appetite { models: threads, work: HALF_A_MINUTE * threads as f64, bytes: 256e6 }
    }
}

/// What a backend runs on has failed: a GPU, never a training.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It has no memory for one of the jobs, alone.
    #[error("{0}")]
    NoRoom(String),
    /// It was there when the run began, and is not any more.
    #[error(
        "{0}\n  the GPU or its driver has failed on the way (the system's log may say why: dmesg, Xid); what was published stays, and the same command continues once it works"
    )]
    Lost(String),
    /// It cannot do what it was asked for.
    #[error("{0}")]
    Unable(String),
}

/// An outcome for each job, none where training was stopped.
pub type Trained<T> = Result<Vec<Option<T>>, BackendError>;

/// Trains. Results are in the order of the jobs, and do not depend on threads, on what else is in the batch, or on
/// where it is cut: a job's bits depend on the job alone.
pub trait Backend: Send + Sync {
    /// `cpu`, `cuda`, `reference`.
    fn name(&self) -> &'static str;
    /// The GPUs that it trains on, as users know them; none where it has none.
    fn devices(&self) -> Vec<String> {
        vec![]
    }
    /// Bytes that the least of them has, and its name; none where the machine's memory is all there is.
    fn memory(&self) -> Option<(f64, String)> {
        None
    }
    /// The arithmetic profile, part of every cell's id: rows of two profiles agree within tolerance only.
    fn profile(&self) -> &'static str;
    /// None where `watch` said stop before the job was finished.
    ///
    /// # Errors
    /// What the backend runs on has failed.
    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome>;
    /// The same of SAEs, by group.
    ///
    /// # Errors
    /// What the backend runs on has failed.
    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError>;
    /// How much it wants to be given at once, so that nothing of it is idle. Rows do not depend on it.
    fn appetite(&self) -> Appetite {
        Appetite::of_threads()
    }
}
