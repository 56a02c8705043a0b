//! Where training kernels get x from: batches lie in device memory for a range of steps, drawn apart from training.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::layout::TILE;
use crate::backend::cuda::device::{Buffer, Device, DeviceError, Pointer};
use crate::backend::ops::layout::flat;
use crate::backend::ops::toy_step::{Forms, Inputs};
use crate::toy::ToyJob;
use crate::toy::train::TrainData;

/// Opens streams of batches.
pub trait BatchSource: Sync {
    /// The stream that `job` and all of its world, seed and batch size train on, with all the memory that ranges of up
    /// to `most_steps` need. `live`: whether the mask is wanted.
    ///
    /// # Errors
    /// No room.
    fn open(
        &self,
        device: &Arc<dyn Device>,
        job: &ToyJob,
        most_steps: usize,
        live: bool,
    ) -> Result<Box<dyn BatchStream>, DeviceError>;
}

/// Batches of one (world, seed, batch size).
pub trait BatchStream {
    /// Samples of a batch: the batch size, or less where a finite set has no more.
    fn samples(&self) -> usize;
    /// Draws these steps; what was drawn before may be lost, but not before kernels launched earlier have read it.
    ///
    /// # Errors
    /// The device fails.
    fn draw(&mut self, steps: Range<usize>) -> Result<Drawn, DeviceError>;
}

/// Batches in device memory, until the next [`BatchStream::draw`].
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// `[steps, ⌈samples / 16⌉, n_features, 16]`, 16-byte aligned; lanes past the last sample are 0.
    pub x: Pointer<f32>,
    /// Floats from one step to the next; 0 where every step has the same batch.
    pub x_stride: u64,
    /// `[steps, ⌈samples / 32⌉]`: bit s of word s / 32: something fires in sample s. Null where it was not wanted.
    pub live: Pointer<u32>,
    /// Words from one step to the next; 0 where every step has the same batch.
    pub live_stride: u32,
}

/// Streams that the CPU draws and copies to the device: any world, finite sets too.
#[derive(Clone, Copy, Debug)]
pub struct HostBatches;

impl BatchSource for HostBatches {
    fn open(
        &self,
        device: &Arc<dyn Device>,
        job: &ToyJob,
        most_steps: usize,
        live: bool,
    ) -> Result<Box<dyn BatchStream>, DeviceError> {
        let data = TrainData::new(job);
        let (batch_size, n) = (job.train.batch_size, job.world.n_features);
        let (samples, same) = match &data {
            TrainData::Fresh(_) => (batch_size, false),
            TrainData::Finite { set, .. } => (batch_size.min(set.samples()), batch_size >= set.samples()),
        };
        let (floats, words) = (samples.div_ceil(TILE) * TILE * n, samples.div_ceil(32));
        let kept = if same { 1 } else { most_steps };
        Ok(Box::new(HostStream {
            data,
            batch_size,
            samples,
            n,
            same,
            drawn: false,
            x: Buffer::undefined(device, kept * floats)?,
            live: if live { Some(Buffer::undefined(device, kept * words)?) } else { None },
        }))
    }
}

struct HostStream {
    data: TrainData,
    batch_size: usize,
    samples: usize,
    n: usize,
    /// Whether every step has the same batch.
    same: bool,
    drawn: bool,
    x: Buffer<f32>,
    live: Option<Buffer<u32>>,
}

impl HostStream {
    /// x and the mask of some steps, one step after another.
    fn host(&mut self, steps: Range<usize>) -> (Vec<f32>, Vec<u32>) {
        let (n, words) = (self.n, self.samples.div_ceil(32));
        let floats = self.samples.div_ceil(TILE) * TILE * n;
        let forms = Forms { dense: true, packed: false, events: self.live.is_some() };
        let mut x = vec![0.0; steps.len() * floats];
        let mut live = vec![0u32; steps.len() * words];
        let put = |inputs: &Inputs, x: &mut [f32], live: &mut [u32]| {
            x.copy_from_slice(flat(&inputs.dense.lanes));
            if forms.events {
                for &position in inputs.events.positions() {
                    let sample = position as usize / n;
                    live[sample / 32] |= 1 << (sample % 32);
                }
            }
        };
        match &mut self.data {
            TrainData::Fresh(sampler) => {
                let (x, live) = (x.par_chunks_mut(floats), live.par_chunks_mut(words));
                x.zip(live).zip(steps).for_each_init(Inputs::default, |inputs, ((x, live), step)| {
                    inputs.draw(sampler, step as u32, self.batch_size, forms);
                    put(inputs, x, live);
                });
            }
            data @ TrainData::Finite { .. } => {
                let mut inputs = Inputs::default();
                for ((x, live), step) in x.chunks_mut(floats).zip(live.chunks_mut(words)).zip(steps) {
                    data.fill(step, self.batch_size, forms, &mut inputs);
                    put(&inputs, x, live);
                }
            }
        }
        (x, live)
    }
}

impl BatchStream for HostStream {
    fn samples(&self) -> usize {
        self.samples
    }

    fn draw(&mut self, steps: Range<usize>) -> Result<Drawn, DeviceError> {
        if !(self.same && self.drawn) {
            let range = if self.same { steps.start..steps.start + 1 } else { steps };
            let (x, live) = self.host(range);
            self.x.write(0, &x)?;
            if let Some(to) = &mut self.live {
                to.write(0, &live)?;
            }
            self.drawn = true;
        }
        let stride = |length: usize| if self.same { 0 } else { length };
        Ok(Drawn {
            x: self.x.pointer(),
            x_stride: stride(self.samples.div_ceil(TILE) * TILE * self.n) as u64,
            live: self.live.as_ref().map_or(Pointer::NULL, Buffer::pointer),
            live_stride: stride(self.samples.div_ceil(32)) as u32,
        })
    }
}
