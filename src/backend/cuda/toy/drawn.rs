//! Streams that the device draws by itself; finite sets are walked by the CPU.

use std::ops::Range;
use std::sync::Arc;

use super::batches::{BatchSource, BatchStream, Drawn, HostBatches};
use crate::backend::cuda::device::{Buffer, Device, DeviceError, Pointer};
use crate::backend::cuda::draw::{DeviceSampler, Steps};
use crate::data::Sampler;
use crate::random::Stream;
use crate::toy::ToyJob;

/// Drawn on the device, finite sets by [`HostBatches`]. The bits are the same.
#[derive(Clone, Copy, Debug)]
pub struct DeviceBatches;

impl BatchSource for DeviceBatches {
    fn open(
        &self,
        device: &Arc<dyn Device>,
        job: &ToyJob,
        most_steps: usize,
        live: bool,
    ) -> Result<Box<dyn BatchStream>, DeviceError> {
        if job.world.dataset.is_some() {
            return HostBatches.open(device, job, most_steps, live);
        }
        let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Train);
        let sampler = DeviceSampler::new(device, &sampler)?;
        let samples = job.train.batch_size;
        let x = Buffer::undefined(device, sampler.x_len(most_steps, samples))?;
        let live = match live {
            true => Some(Buffer::undefined(device, DeviceSampler::live_len(most_steps, samples))?),
            false => None,
        };
        Ok(Box::new(DeviceStream { sampler, samples, x, live }))
    }
}

struct DeviceStream {
    sampler: DeviceSampler,
    samples: usize,
    x: Buffer<f32>,
    live: Option<Buffer<u32>>,
}

impl BatchStream for DeviceStream {
    fn samples(&self) -> usize {
        self.samples
    }

    fn draw(&mut self, steps: Range<usize>) -> Result<Drawn, DeviceError> {
        let (first, count, samples) = (steps.start as u32, steps.len(), self.samples);
        self.sampler.draw(Steps { first, count, first_sample: 0, samples }, &mut self.x)?;
        if let Some(live) = &mut self.live {
            self.sampler.live(count, samples, &self.x, live)?;
        }
        Ok(Drawn {
            x: self.x.pointer(),
            x_stride: self.sampler.x_len(1, samples) as u64,
            live: self.live.as_ref().map_or(Pointer::NULL, Buffer::pointer),
            live_stride: DeviceSampler::live_len(1, samples) as u32,
        })
    }
}
