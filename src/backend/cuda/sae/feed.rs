//! Where hidden states come from.

use std::sync::Arc;

use super::super::device::{Buffer, Device, DeviceError, Pointer};
use crate::hidden::{HiddenBatch, SaeStream};
use crate::sae::{Inputs, Normalise};

/// Floats of a row of width `d` on the device: whole quads, the last padded with zeros.
pub fn pitch(d: usize) -> usize {
    d.next_multiple_of(4)
}

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

/// Rows of `d` numbers as rows of whole quads.
pub fn padded(rows: &[f32], d: usize) -> Vec<f32> {
    let pitch = pitch(d);
    if pitch == d {
        return rows.to_vec();
    }
    let mut to = vec![0.0; rows.len() / d.max(1) * pitch];
    for (to, row) in to.chunks_exact_mut(pitch).zip(rows.chunks_exact(d)) {
        to[..d].copy_from_slice(row);
    }
    to
}

/// What [`padded`] was made of.
pub fn unpadded(rows: &[f32], d: usize) -> Vec<f32> {
    rows.chunks_exact(pitch(d).max(1)).flat_map(|row| &row[..d]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_to_whole_quads_and_back() {
        for d in [1, 3, 4, 5, 8] {
            let rows: Vec<f32> = (0..3 * d).map(|x| x as f32 + 1.0).collect();
            let wide = padded(&rows, d);
            assert_eq!(wide.len(), 3 * pitch(d));
            assert!(wide.chunks(pitch(d)).all(|row| row[d..].iter().all(|&x| x == 0.0)));
            assert_eq!(unpadded(&wide, d), rows);
        }
        assert_eq!(padded(&[], 3), [0.0f32; 0]);
    }
}
