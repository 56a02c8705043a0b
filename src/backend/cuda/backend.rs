//! The backend: jobs over GPUs.

use std::sync::{Arc, Mutex, PoisonError};

use super::arithmetic::Arithmetic;
use super::device::Device;
use super::driver::Gpu;
use super::toy::{DeviceBatches, Limits, ToyTrainer};
use super::{find, sae};
use crate::backend::part::Part;
use crate::backend::{Appetite, Backend, BackendError, SaeGroup, Trained, Watch};
use crate::data::world::same_data;
use crate::sae::SaeOutcome;
use crate::toy::{ToyJob, ToyOutcome};

/// Kernels on one or several GPUs. What no kernel can do, the CPU does, by a rule of the job alone.
#[derive(Debug)]
pub struct CudaBackend {
    devices: Vec<Arc<dyn Device>>,
    arithmetic: Arithmetic,
}

impl CudaBackend {
    /// On the GPUs with these numbers, in the driver's order.
    ///
    /// # Errors
    /// What is missing, a number that is none, or a GPU that does not have the arithmetic.
    pub fn open(numbers: &[usize], arithmetic: Arithmetic) -> Result<CudaBackend, String> {
        let open = |&number: &usize| {
            let gpu = Gpu::open(number)?;
            find::lacks(number, arithmetic).map_or(Ok(Arc::new(gpu) as Arc<dyn Device>), Err)
        };
        Ok(CudaBackend { devices: numbers.iter().map(open).collect::<Result<_, _>>()?, arithmetic })
    }

    /// On these machines, at least one, in f32.
    pub fn on(devices: Vec<Arc<dyn Device>>) -> CudaBackend {
        CudaBackend { devices, arithmetic: Arithmetic::F32 }
    }

    /// Each piece on whatever device is free, results in the order of the pieces.
    fn spread<T: Send, R: Send>(&self, pieces: Vec<T>, work: impl Fn(&Arc<dyn Device>, T) -> R + Sync) -> Vec<R> {
        let queue = Mutex::new(pieces.into_iter().enumerate());
        let done = Mutex::new(vec![]);
        std::thread::scope(|scope| {
            for device in &self.devices {
                let (queue, done, work) = (&queue, &done, &work);
                scope.spawn(move || {
                    loop {
                        let piece = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, piece)) = piece else { return };
                        let result = work(device, piece);
                        done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

impl Backend for CudaBackend {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn devices(&self) -> Vec<String> {
        self.devices.iter().map(|device| device.label()).collect()
    }

    fn memory(&self) -> Option<(f64, String)> {
        let least = self.devices.iter().min_by_key(|device| device.memory())?;
        Some((least.memory() as f64, least.label()))
    }

    fn profile(&self) -> &'static str {
        self.arithmetic.profile()
    }

    /// Tens of thousands of the smallest models fill one GPU, and some ten seconds of its time are worth a wave.
    fn appetite(&self) -> Appetite {
        let devices = self.devices.len();
        Appetite { models: 65_536 * devices, work: 1e14 * devices as f64, bytes: 1e9 }
    }

    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome> {
        if let [device] = &self.devices[..] {
            return toys_on(device, jobs, watch);
        }
        // Models of one world and seed share their batches, so they stay together where there are enough others.
        let groups = same_data(jobs.iter().map(|job| (job.seed, &job.world)));
        let most = jobs.len().div_ceil(self.devices.len()).max(1);
        let pieces: Vec<&[usize]> = groups.iter().flat_map(|group| group.chunks(most)).collect();
        let outcomes = self.spread(pieces.clone(), |device, piece| {
            let jobs: Vec<ToyJob> = piece.iter().map(|&job| jobs[job].clone()).collect();
            toys_on(device, &jobs, watch)
        });
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut ordered = vec![None; jobs.len()];
        for (&job, outcome) in pieces.into_iter().flatten().zip(outcomes.into_iter().flatten()) {
            ordered[job] = outcome;
        }
        Ok(ordered)
    }

    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError> {
        if let [device] = &self.devices[..] {
            return saes_on(device, self.arithmetic, groups, watch);
        }
        let pieces: Vec<usize> = (0..groups.len()).collect();
        let outcomes = self.spread(pieces, |device, group| {
            let places = [(0..groups[group].saes.len()).map(|job| (group, job)).collect()];
            saes_on(device, self.arithmetic, &groups[group..=group], &Part { watch, places: &places })
        });
        Ok(outcomes.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }
}

fn toys_on(device: &Arc<dyn Device>, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome> {
    let trainer = ToyTrainer { device, source: &DeviceBatches, limits: Limits::default() };
    Ok(trainer.train(jobs, watch)?)
}

fn saes_on(
    device: &Arc<dyn Device>,
    arithmetic: Arithmetic,
    groups: &[SaeGroup],
    watch: &dyn Watch,
) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError> {
    Ok(sae::train(device, arithmetic, groups, watch)?)
}
