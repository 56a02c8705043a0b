//! One file of activations, read a few rows at a time wherever they lie.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rayon::prelude::*;

use crate::score::input::{InputError, MatrixLayout, NumberType, Problem, matrix_layout};

/// Bytes that the search for numbers that are not finite reads at once.
const PIECE: u64 = 1 << 20;

/// A matrix file `[rows, d]`, open.
#[derive(Debug)]
pub struct Shard {
    layout: MatrixLayout,
}

impl Shard {
    /// Opens a file; `convert` allows float64, rounded to single precision.
    ///
    /// # Errors
    /// What [`matrix_layout`] refuses, and float64 where it is not asked for.
    pub fn open(path: &Path, convert: bool) -> Result<Shard, InputError> {
        let layout = matrix_layout(path)?;
        if layout.number == NumberType::F64 && !convert {
            return Err(InputError::File { path: path.to_owned(), problem: Problem::Double });
        }
        Ok(Shard { layout })
    }

    /// Samples.
    pub fn rows(&self) -> u64 {
        self.layout.shape.0
    }

    /// Width.
    pub fn d(&self) -> u64 {
        self.layout.shape.1
    }

    /// The file, without the name of a tensor.
    pub fn path(&self) -> &Path {
        &self.layout.path
    }

    /// Whether a row's numbers lie apart, so that reading is slow.
    pub fn is_by_column(&self) -> bool {
        self.layout.fortran_order && self.layout.shape.1 > 1
    }

    /// Rows `first ..` into `out`, `[rows, d]`; as many as fill it.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter than it was.
    pub fn read_rows(&self, first: u64, out: &mut [f32]) -> io::Result<()> {
        let (rows, d) = self.layout.shape;
        let size = self.layout.number.size();
        if !self.is_by_column() {
            return self.read_numbers(first * d, out);
        }
        let count = out.len() as u64 / d;
        let mut column = vec![0.0; count as usize];
        for c in 0..d {
            debug_assert!((c * rows + first + count) * size <= rows * d * size);
            self.read_numbers(c * rows + first, &mut column)?;
            out.iter_mut().skip(c as usize).step_by(d as usize).zip(&column).for_each(|(out, &x)| *out = x);
        }
        Ok(())
    }

    /// Numbers `first ..` in the order of the file.
    fn read_numbers(&self, first: u64, out: &mut [f32]) -> io::Result<()> {
        let MatrixLayout { file, start, number, big_endian, .. } = &self.layout;
        let size = number.size();
        let mut bytes = vec![0u8; out.len() * size as usize];
        file.read_exact_at(&mut bytes, start + first * size)?;
        decode(&mut bytes, *number, *big_endian, out);
        Ok(())
    }

    /// The first number of the file, in its own order, that is not finite.
    ///
    /// # Errors
    /// There is one, or the file cannot be read.
    pub fn check_finite(&self) -> Result<(), InputError> {
        let (rows, d) = self.layout.shape;
        let (count, at_once) = (rows * d, PIECE / self.layout.number.size());
        let wrong = |problem| InputError::File { path: self.path().to_owned(), problem };
        let look = |piece: u64| -> Option<InputError> {
            let first = piece * at_once;
            let mut numbers = vec![0.0; at_once.min(count - first) as usize];
            if let Err(error) = self.read_numbers(first, &mut numbers) {
                return Some(wrong(Problem::Unreadable(error)));
            }
            let at = numbers.iter().position(|x| !x.is_finite())?;
            let index = first + at as u64;
            let (row, column) =
                if self.layout.fortran_order { (index % rows, index / rows) } else { (index / d, index % d) };
            let (row, column, value) = (row as usize, column as usize, numbers[at] as f64);
            Some(wrong(Problem::NotFinite { tensor: self.layout.tensor.clone(), row, column, value }))
        };
        match (0..count.div_ceil(at_once)).into_par_iter().find_map_first(look) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Adds shape, type and a few pieces of the content to a fingerprint.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn hash(&self, hasher: &mut blake3::Hasher) -> io::Result<()> {
        const PIECES: u64 = 64;
        const BYTES: u64 = 4096;
        let MatrixLayout { file, shape: (rows, d), start, number, big_endian, fortran_order, .. } = &self.layout;
        let facts = format!("{rows} {d} {number:?} {big_endian} {fortran_order} ");
        hasher.update(facts.as_bytes());
        let length = rows * d * number.size();
        let mut bytes = [0u8; BYTES as usize];
        for piece in 0..PIECES {
            let size = BYTES.min(length);
            // Evenly spaced, the first at the start and the last at the end.
            let at = ((length - size) as u128 * piece as u128 / (PIECES - 1) as u128) as u64;
            let bytes = &mut bytes[..size as usize];
            file.read_exact_at(bytes, start + at)?;
            hasher.update(bytes);
        }
        Ok(())
    }
}

/// Stored numbers as singles; `bytes` is turned around where the high byte comes first.
fn decode(bytes: &mut [u8], number: NumberType, big_endian: bool, out: &mut [f32]) {
    if big_endian {
        bytes.chunks_exact_mut(number.size() as usize).for_each(<[u8]>::reverse);
    }
    match number {
        NumberType::F32 => each(bytes, out, f32::from_le_bytes),
        NumberType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        NumberType::BF16 => each(bytes, out, |b| f32::from_bits((u16::from_le_bytes(b) as u32) << 16)),
        NumberType::F16 => each(bytes, out, |b| half(u16::from_le_bytes(b))),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    out.iter_mut().zip(bytes.as_chunks::<N>().0).for_each(|(out, &bytes)| *out = number(bytes));
}

/// IEEE 754 binary16: one bit of sign, five of exponent, ten of fraction. Every value is a single exactly.
fn half(bits: u16) -> f32 {
    let sign = (bits as u32 & 0x8000) << 16;
    let (exponent, fraction) = (bits as u32 >> 10 & 0x1F, bits as u32 & 0x3FF);
    match exponent {
        // Multiples of 2^-24: no single is too small for them.
        0 => f32::from_bits(sign | (fraction as f32 * 2f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0x7F80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_the_standard_says() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x8000, -0.0),
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7BFF, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83FF, -6.097_555e-5),
            (0x7C00, f32::INFINITY),
            (0xFC00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits).to_bits(), f32::to_bits(value), "{bits:#06x}");
        }
        assert!(half(0x7E01).is_nan());
    }

    /// Ascending bits of one sign are ascending numbers, each the mean of its neighbours within an exponent.
    #[test]
    fn halves_ascend() {
        for bits in 0..0x7BFFu16 {
            assert!(half(bits) < half(bits + 1) && half(bits) == -half(bits | 0x8000));
        }
    }
}
