//! Training by plain f64 loops, for tests: slow, short, and what the other backends are held to.

use super::{Backend, BackendError, SaeGroup, Trained, Watch};
use crate::sae::SaeOutcome;
use crate::toy::{ToyJob, ToyOutcome};

#[cfg(test)]
mod long_run;
pub mod sae;
pub mod toy;

/// Plain loops, one model after the other.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceBackend;

impl Backend for ReferenceBackend {
    fn name(&self) -> &'static str {
        "reference"
    }
    fn profile(&self) -> &'static str {
        "reference-f64-v1"
    }
    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome> {
        Ok(toy::train(jobs, watch))
    }
    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError> {
        Ok(sae::train(groups, watch))
    }
}
