//! Training on the CPU: vector kernels, one thread a model.

use super::{Backend, BackendError, SaeGroup, Trained, Watch};
use crate::sae::SaeOutcome;
use crate::toy::{ToyJob, ToyOutcome};

pub mod finite;
pub mod sae;
pub mod toy;

/// The arithmetic profile: rows of this profile are equal bit for bit on every machine.
pub const PROFILE: &str = "cpu-f32-v1";

/// Vector kernels over rayon's threads.
#[derive(Clone, Copy, Debug)]
pub struct CpuBackend;

impl Backend for CpuBackend {
    fn name(&self) -> &'static str {
        "cpu"
    }
    fn profile(&self) -> &'static str {
        PROFILE
    }
    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome> {
        Ok(toy::train(jobs, watch))
    }
    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError> {
        Ok(sae::train(groups, watch))
    }
}
