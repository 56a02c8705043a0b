//! Where hidden states come from.

use std::sync::Arc;

use super::super::device::{Buffer, Device, DeviceError, Pointer};
use super::super::draw::Steps;
use super::super::hidden::DeviceHidden;
use super::super::rows::{padded, pitch};
use crate::hidden::{HiddenBatch, HiddenSource, SaeSource, SaeStream};
use crate::random::Stream;
use crate::sae::{Inputs, Normalise};

/// Batches of hidden states on a device, as trainings see them.
pub trait Batches {
    /// Draws batch `step` in place of the one before.
    ///
    /// # Errors
    /// The device refuses.
    fn draw(&mut self, step: usize) -> Result<(), DeviceError>;
    /// The batch `[samples, pitch]` as it is seen under a normalisation that these batches were made for. The address stays.
    fn seen(&self, normalise: Normalise) -> Pointer<f32>;
}

/// Batches that the CPU draws.
pub struct Uploaded {
    stream: SaeStream,
    batch_size: usize,
    drawn: HiddenBatch,
    seen: Vec<(Inputs, Buffer<f32>)>,
}

impl Uploaded {
    /// Batches of `batch_size` from a stream, seen in each of these ways.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(
        device: &Arc<dyn Device>,
        stream: SaeStream,
        d: usize,
        batch_size: usize,
        inputs: &[Inputs],
    ) -> Result<Uploaded, DeviceError> {
        let room = |inputs: &Inputs| Ok((*inputs, Buffer::zeros(device, batch_size * pitch(d))?));
        let seen = inputs.iter().map(room).collect::<Result<_, DeviceError>>()?;
        Ok(Uploaded { stream, batch_size, drawn: HiddenBatch::default(), seen })
    }
}

impl Batches for Uploaded {
    fn draw(&mut self, step: usize) -> Result<(), DeviceError> {
        self.stream.draw_hidden(step as u32, self.batch_size, &mut self.drawn);
        let d = self.drawn.d_hidden;
        for (inputs, buffer) in &mut self.seen {
            buffer.write(0, &padded(&inputs.see(&self.drawn.h, d), d))?;
        }
        Ok(())
    }

    fn seen(&self, normalise: Normalise) -> Pointer<f32> {
        let found = self.seen.iter().find(|(inputs, _)| inputs.normalise == normalise);
        found.expect("made for every job of the pass").1.pointer()
    }
}

/// Batches that the device draws, seen as they are.
pub struct OnDevice {
    hidden: DeviceHidden,
    batch_size: usize,
    /// `[samples, pitch]`
    h: Buffer<f32>,
}

impl OnDevice {
    /// Batches of `batch_size` from the training stream of a world.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(device: &Arc<dyn Device>, source: &HiddenSource, batch_size: usize) -> Result<OnDevice, DeviceError> {
        let hidden = DeviceHidden::new(device, source, Stream::Train)?;
        let h = Buffer::zeros(device, batch_size * hidden.pitch())?;
        Ok(OnDevice { hidden, batch_size, h })
    }
}

impl Batches for OnDevice {
    fn draw(&mut self, step: usize) -> Result<(), DeviceError> {
        let steps = Steps { first: step as u32, count: 1, first_sample: 0, samples: self.batch_size };
        self.hidden.draw(steps, &mut self.h)
    }

    fn seen(&self, normalise: Normalise) -> Pointer<f32> {
        assert_eq!(normalise, Normalise::None, "the CPU draws what is seen otherwise");
        self.h.pointer()
    }
}

/// Batches of `source` for trainings that see them in these ways: drawn on the device where they are seen as they are and a world makes
/// them, else by the CPU. The bits are the same.
///
/// # Errors
/// No room on the device.
pub fn batches(
    device: &Arc<dyn Device>,
    source: &SaeSource,
    stream: &SaeStream,
    batch_size: usize,
    inputs: &[Inputs],
) -> Result<Box<dyn Batches>, DeviceError> {
    match source {
        SaeSource::World(world) if inputs.iter().all(|inputs| inputs.normalise == Normalise::None) => {
            Ok(Box::new(OnDevice::new(device, world, batch_size)?))
        }
        _ => Ok(Box::new(Uploaded::new(device, stream.clone(), source.d_hidden(), batch_size, inputs)?)),
    }
}
