//! Where hidden states come from.

use std::sync::Arc;

use super::super::device::{Buffer, Device, DeviceError, Launch, Pointer};
use super::super::draw::Steps;
use super::super::hidden::DeviceHidden;
use super::super::rows::{padded, pitch};
use crate::hidden::{HiddenBatch, HiddenSource, SaeSource, SaeStream};
use crate::random::Stream;
use crate::sae::{Inputs, Normalise};

/// Batches that lie on the device at once: one launch draws them, and one list of launches trains on them. Few in tests, so that
/// steps are queued in several rounds and a rest.
const SLOTS: usize = if cfg!(test) { 3 } else { 16 };

/// Bytes of batches at once, where one is not more by itself.
const BYTES: usize = 64 << 20;

/// How many batches of this size lie on the device at once.
pub fn slots(batch_size: usize, d: usize) -> usize {
    (BYTES / (4 * batch_size * pitch(d)).max(1)).clamp(1, SLOTS)
}

/// Batches of hidden states on a device, as trainings see them.
pub trait Batches {
    /// Draws the batches of `count` steps from `first` on, at most [`slots`], in place of those before.
    ///
    /// # Errors
    /// The device refuses.
    fn draw(&mut self, first: usize, count: usize) -> Result<(), DeviceError>;
    /// The batches `[slots, samples, pitch]` as they are seen under a normalisation that they were made for. The address stays.
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
        let len = slots(batch_size, d) * batch_size * pitch(d);
        let room = |inputs: &Inputs| Ok((*inputs, Buffer::zeros(device, len)?));
        let seen = inputs.iter().map(room).collect::<Result<_, DeviceError>>()?;
        Ok(Uploaded { stream, batch_size, drawn: HiddenBatch::default(), seen })
    }
}

impl Batches for Uploaded {
    fn draw(&mut self, first: usize, count: usize) -> Result<(), DeviceError> {
        for slot in 0..count {
            self.stream.draw_hidden((first + slot) as u32, self.batch_size, &mut self.drawn);
            let d = self.drawn.d_hidden;
            for (inputs, buffer) in &mut self.seen {
                let rows = padded(&inputs.see(&self.drawn.h, d), d);
                buffer.write(slot * rows.len(), &rows)?;
            }
        }
        Ok(())
    }

    fn seen(&self, normalise: Normalise) -> Pointer<f32> {
        let found = self.seen.iter().find(|(inputs, _)| inputs.normalise == normalise);
        found.expect("made for every job of the pass").1.pointer()
    }
}

/// Batches that the device draws.
pub struct OnDevice {
    device: Arc<dyn Device>,
    hidden: DeviceHidden,
    batch_size: usize,
    d: usize,
    /// `[slots, samples, pitch]`
    h: Buffer<f32>,
    /// The same, as they are seen otherwise.
    seen: Vec<(Inputs, Buffer<f32>)>,
}

impl OnDevice {
    /// Batches of `batch_size` from the training stream of a world, seen in each of these ways.
    ///
    /// # Errors
    /// No room on the device.
    pub fn new(
        device: &Arc<dyn Device>,
        source: &HiddenSource,
        batch_size: usize,
        inputs: &[Inputs],
    ) -> Result<OnDevice, DeviceError> {
        let (hidden, d) = (DeviceHidden::new(device, source, Stream::Train)?, source.d_hidden());
        let h = Buffer::zeros(device, slots(batch_size, d) * batch_size * hidden.pitch())?;
        let otherwise = inputs.iter().filter(|inputs| inputs.normalise != Normalise::None);
        let seen = otherwise.map(|inputs| Ok((*inputs, Buffer::zeros(device, h.len())?))).collect::<Result<_, _>>()?;
        Ok(OnDevice { device: device.clone(), hidden, batch_size, d, h, seen })
    }
}

impl Batches for OnDevice {
    fn draw(&mut self, first: usize, count: usize) -> Result<(), DeviceError> {
        let steps = Steps { first: first as u32, count, first_sample: 0, samples: self.batch_size };
        self.hidden.draw(steps, &mut self.h)?;
        let rows = count * self.batch_size;
        self.seen.iter().try_for_each(|(inputs, seen)| see(self.device.as_ref(), *inputs, &self.h, seen, rows, self.d))
    }

    fn seen(&self, normalise: Normalise) -> Pointer<f32> {
        if normalise == Normalise::None {
            return self.h.pointer();
        }
        let found = self.seen.iter().find(|(inputs, _)| inputs.normalise == normalise);
        found.expect("made for every job of the pass").1.pointer()
    }
}

/// `SeeArgs` of `hidden_see.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct SeeArgs {
    h: Pointer<f32>,
    seen: Pointer<f32>,
    rows: u64,
    d: u32,
    pitch: u32,
    normalise: u32,
    scale: f32,
}

// SAFETY: numbers and addresses, for which zero is a value.
unsafe impl bytemuck::Zeroable for SeeArgs {}
// SAFETY: any bits are values of the fields: three of 8 bytes, then four of 4, without padding.
unsafe impl bytemuck::Pod for SeeArgs {}

/// What [`Inputs::see`] makes of the first `rows` rows of h, bit for bit.
fn see(
    device: &dyn Device,
    inputs: Inputs,
    h: &Buffer<f32>,
    seen: &Buffer<f32>,
    rows: usize,
    d: usize,
) -> Result<(), DeviceError> {
    let normalise = match inputs.normalise {
        Normalise::None | Normalise::MeanNorm => 0,
        Normalise::ConstantNorm => 1,
        Normalise::LayerNorm => 2,
    };
    let (h, seen, scale) = (h.pointer(), seen.pointer(), inputs.scale as f32);
    let args = SeeArgs { h, seen, rows: rows as u64, d: d as u32, pitch: pitch(d) as u32, normalise, scale };
    let blocks = u32::try_from(rows.div_ceil(128)).expect("a batch is bounded, and so are batches at once");
    device.launch(Launch { kernel: "hidden_see", blocks, threads: 128, shared: 0 }, bytemuck::bytes_of(&args))
}

/// Batches of `source` for trainings that see them in these ways: drawn on the device where a world makes them, else by the CPU. The bits
/// are the same.
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
        SaeSource::World(world) => Ok(Box::new(OnDevice::new(device, world, batch_size, inputs)?)),
        _ => Ok(Box::new(Uploaded::new(device, stream.clone(), source.d_hidden(), batch_size, inputs)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::emulated::emulated;
    use super::super::super::rows::{padded, unpadded};
    use super::*;
    use crate::random::Draws;

    #[test]
    fn samples_are_seen_as_the_cpu_sees_them_bit_for_bit() {
        let Some(device) = emulated(7) else { return };
        let mut draws = Draws::new(3, Stream::SaeInit, 0);
        for d in [1usize, 2, 3, 4, 5, 31, 130] {
            for rows in [0usize, 1, 127, 129] {
                let mut h: Vec<f32> = (0..rows * d).map(|_| draws.normal() as f32).collect();
                // A sample without length, one of negative zeros, one without deviation.
                for (row, value) in [0.0, -0.0, 2.0].into_iter().enumerate().take(rows.min(3)) {
                    h[row * d..][..d].fill(value);
                }
                let on_device = Buffer::of(&device, &padded(&h, d)).expect("memory");
                for normalise in [Normalise::MeanNorm, Normalise::ConstantNorm, Normalise::LayerNorm] {
                    let scale = if normalise == Normalise::MeanNorm { 0.37 } else { 1.0 };
                    let inputs = Inputs { normalise, scale };
                    let seen = Buffer::<f32>::undefined(&device, rows * pitch(d)).expect("memory");
                    see(device.as_ref(), inputs, &on_device, &seen, rows, d).expect("it is there");
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    let found = seen.read().expect("it ran");
                    assert_eq!(bits(&unpadded(&found, d)), bits(&inputs.see(&h, d)), "{normalise:?} {rows} x {d}");
                    assert!(found.chunks_exact(pitch(d)).all(|row| row[d..].iter().all(|x| x.to_bits() == 0)));
                }
            }
        }
    }
}
