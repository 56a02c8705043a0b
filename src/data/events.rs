//! What is not zero in a batch.

use super::sampler::Batch;
use crate::backend::simd::Lanes;
use crate::codes::Codes;

/// The entries of x that are not 0, in order of sample, then feature.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Features of the world.
    pub n_features: usize,
    /// Samples of the batch, silent ones among them.
    pub samples: usize,
    /// Room for more than `len`: kernels write sixteen events at a time.
    position: Vec<u32>,
    value: Vec<f32>,
    len: usize,
}

impl Events {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether x is zero throughout.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they are: sample * n_features + feature, ascending.
    pub fn positions(&self) -> &[u32] {
        &self.position[..self.len]
    }

    /// Positions and entries, with as much behind them as fills the last sixteen.
    pub(crate) fn padded(&mut self) -> (&[u32], &[f32]) {
        let len = self.len.next_multiple_of(16);
        let _ = self.room_for(len - self.len);
        (&self.position[..len], &self.value[..len])
    }

    /// The entries there.
    pub fn values(&self) -> &[f32] {
        &self.value[..self.len]
    }

    /// The same batch as dense tiles.
    pub fn to_dense(&self, batch: &mut Batch) {
        batch.n_features = self.n_features;
        batch.samples = self.samples;
        batch.lanes.clear();
        batch.lanes.resize(self.samples.div_ceil(16) * self.n_features, Lanes::default());
        if self.is_empty() {
            return;
        }
        let divide = Divide::by(self.n_features as u32);
        for (&position, &value) in self.positions().iter().zip(self.values()) {
            let (sample, feature) = divide.apply(position);
            batch.lanes[sample as usize / 16 * self.n_features + feature as usize].0[sample as usize % 16] = value;
        }
    }

    /// The same batch as sparse rows.
    pub fn to_codes(&self) -> Codes<f32> {
        let mut codes = Codes::new(self.n_features);
        let mut next = 0;
        for sample in 0..self.samples {
            let end = (sample + 1) * self.n_features;
            let count = self.positions()[next..].iter().take_while(|&&position| (position as usize) < end).count();
            let entry = |e: usize| (self.position[e] as usize - sample * self.n_features, self.value[e]);
            codes.push_row((next..next + count).map(entry));
            next += count;
        }
        codes
    }

    pub(crate) fn clear(&mut self, n_features: usize, samples: usize) {
        (self.n_features, self.samples, self.len) = (n_features, samples, 0);
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, position: u32, value: f32) {
        let _ = self.room::<1>();
        self.position[self.len] = position;
        self.value[self.len] = value;
        self.len += 1;
    }

    /// Room for `more`, to be written before [`Events::grow`] counts them.
    #[inline(always)]
    pub(crate) fn room_for(&mut self, more: usize) -> (&mut [u32], &mut [f32]) {
        if self.position.len() < self.len + more {
            self.make_room(more);
        }
        (&mut self.position[self.len..][..more], &mut self.value[self.len..][..more])
    }

    /// The same for a fixed number.
    #[inline(always)]
    pub(crate) fn room<const N: usize>(&mut self) -> (&mut [u32; N], &mut [f32; N]) {
        let (position, value) = self.room_for(N);
        // Both slices have just been cut to N.
        (position.try_into().expect("N long"), value.try_into().expect("N long"))
    }

    #[cold]
    fn make_room(&mut self, more: usize) {
        let len = (2 * (self.len + more)).max(1024);
        self.position.resize(len, 0);
        self.value.resize(len, 0.0);
    }

    #[inline(always)]
    pub(crate) fn grow(&mut self, by: usize) {
        self.len += by;
    }

    /// Divides every sample by its Euclidean norm; silent ones stay as they are.
    ///
    /// The squares of a sample are summed in f64 in the order of its features, and each value is multiplied by the f64
    /// 1 / norm and rounded to f32 once: the norm is 1 within one rounding of f32 (6e-8).
    pub(crate) fn normalise(&mut self) {
        let mut first = 0;
        while first < self.len {
            let sample = self.position[first] / self.n_features as u32;
            let same = |p: &&u32| **p / self.n_features as u32 == sample;
            let count = self.position[first..self.len].iter().take_while(same).count();
            let values = &mut self.value[first..first + count];
            let square = values.iter().fold(0.0, |sum, v| sum + *v as f64 * *v as f64);
            let scale = inverse_norm(square);
            values.iter_mut().for_each(|v| *v = (*v as f64 * scale) as f32);
            first += count;
        }
    }

    /// Takes out events whose value is 0.
    pub(crate) fn drop_zeros(&mut self) {
        let mut kept = 0;
        for e in 0..self.len {
            self.position[kept] = self.position[e];
            self.value[kept] = self.value[e];
            kept += (self.value[e] != 0.0) as usize;
        }
        self.len = kept;
    }
}

impl PartialEq for Events {
    fn eq(&self, other: &Events) -> bool {
        (self.n_features, self.samples) == (other.n_features, other.samples)
            && self.positions() == other.positions()
            && self.values() == other.values()
    }
}

/// What turns a vector of this squared norm into one of norm 1; 0 where there is nothing to turn.
#[inline(always)]
pub(crate) fn inverse_norm(square: f64) -> f64 {
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
}

/// Division of u32 by a number that stays: a multiplication (Lemire, Kaser, Kurz 2019, "Faster remainder by direct
/// computation"): ⌊a/d⌋ is the upper half of a · (⌊2^64/d⌋ + 1) for all a < 2^32, d > 1.
#[derive(Clone, Copy)]
pub(crate) struct Divide {
    by: u32,
    magic: u64,
}

impl Divide {
    pub(crate) fn by(by: u32) -> Divide {
        // For 1 the magic number does not fit 64 bits and wraps to 0, which `apply` knows.
        Divide { by, magic: (u64::MAX / by as u64).wrapping_add(1) }
    }

    /// Quotient and remainder.
    #[inline(always)]
    pub(crate) fn apply(self, a: u32) -> (u32, u32) {
        if self.magic == 0 {
            return (a, 0);
        }
        let quotient = ((self.magic as u128 * a as u128) >> 64) as u32;
        (quotient, a - quotient * self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divide_is_division_at_awkward_numbers() {
        for d in [1, 2, 3, 5, 7, 10, 20, 512, 1023, 16384, 65537, u32::MAX] {
            for a in [0, 1, d - 1, d, d.saturating_add(1), 12345, u32::MAX / d * d - 1, u32::MAX / d * d, u32::MAX] {
                assert_eq!(Divide::by(d).apply(a), (a / d, a % d), "{a} / {d}");
            }
        }
    }
}
