//! h of a batch: the directions of what fires, summed.
//!
//! ```text
//! for each sample:  h = bias;  for each event, features ascending: h = fma(x, direction, h);  h = fma(noise, normal, h)
//! ```
//! The lanes are coordinates of h, up to four vectors at a time in registers; a sample's events are read again for the next
//! four. A lane's sum is the same chain whatever the width.

use super::draw::variate::variate;
use super::draw::{Address, words};
use crate::backend::simd::{Kernel, Lanes, Simd};
use crate::data::Events;
use crate::data::law::{Base, ROW_BLOCK, Scale, Tag};
use crate::random::Key;

/// The computation.
pub struct Project<'a> {
    /// x.
    pub events: &'a Events,
    /// `[n_features, ⌈d_hidden / 16⌉]`
    pub directions: &'a [Lanes],
    /// `[⌈d_hidden / 16⌉]`
    pub bias: &'a [Lanes],
    /// Standard deviation of the noise; 0 for none.
    pub noise: f32,
    /// Key of the noise's words.
    pub noise_key: Key,
    /// Step of the noise's words.
    pub step: u32,
    /// Row block of the first sample.
    pub first_block: u32,
    /// Width of h.
    pub d_hidden: usize,
    /// `[samples, d_hidden]` and sixteen more numbers, which are overwritten with rubbish.
    pub h: &'a mut [f32],
}

impl Kernel for Project<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (events, n, d, chunks) = (self.events, self.events.n_features, self.d_hidden, self.bias.len());
        assert_eq!((chunks, self.directions.len()), (d.div_ceil(16), n * chunks));
        assert_eq!(self.h.len(), events.samples * d + 16);
        let (position, value) = (events.positions(), events.values());
        let mut from = 0;
        for sample in 0..events.samples {
            let base = (sample * n) as u32;
            let mut to = from;
            while to < position.len() && position[to] - base < n as u32 {
                to += 1;
            }
            let sum =
                Row { feature: &position[from..to], x: &value[from..to], base, directions: self.directions, chunks };
            // The overhang of this row is overwritten by the next.
            let h = &mut self.h[sample * d..][..16 * chunks];
            let mut chunk = 0;
            while chunk < chunks {
                match chunks - chunk {
                    1 => sum.write::<S, 1>(self.bias, chunk, h),
                    2 => sum.write::<S, 2>(self.bias, chunk, h),
                    3 => sum.write::<S, 3>(self.bias, chunk, h),
                    _ => sum.write::<S, 4>(self.bias, chunk, h),
                }
                chunk += 4;
            }
            if self.noise > 0.0 {
                let at = Address {
                    key: self.noise_key,
                    high: Tag::Noise.with(sample % ROW_BLOCK),
                    step: self.step,
                    block: self.first_block + (sample / ROW_BLOCK) as u32,
                };
                add_noise::<S>(at, self.noise, h);
            }
            from = to;
        }
    }
}

/// The events of one sample.
struct Row<'a> {
    feature: &'a [u32],
    x: &'a [f32],
    base: u32,
    directions: &'a [Lanes],
    chunks: usize,
}

impl Row<'_> {
    /// Vectors `chunk .. chunk + WIDTH` of h.
    #[inline(always)]
    fn write<S: Simd, const WIDTH: usize>(&self, bias: &[Lanes], chunk: usize, h: &mut [f32]) {
        let mut sum = [S::splat(0.0); WIDTH];
        for (sum, bias) in sum.iter_mut().zip(&bias[chunk..]) {
            *sum = S::load(bias);
        }
        for (position, x) in self.feature.iter().zip(self.x) {
            let at = (position - self.base) as usize * self.chunks + chunk;
            let (x, direction) = (S::splat(*x), &self.directions[at..][..WIDTH]);
            for w in 0..WIDTH {
                sum[w] = S::fma(x, S::load(&direction[w]), sum[w]);
            }
        }
        for (sum, to) in sum.into_iter().zip(h[16 * chunk..].as_chunks_mut::<16>().0) {
            S::store_to(sum, to);
        }
    }
}

/// Adds noise to one row; `at` is its address.
#[inline(always)]
fn add_noise<S: Simd>(at: Address, noise: f32, h: &mut [f32]) {
    for (pair, h) in h.chunks_mut(32).enumerate() {
        let k = words::<S>(at, 8 * pair as u32);
        for (k, to) in k.into_iter().zip(h.as_chunks_mut::<16>().0) {
            let z = variate::<S>(Base::Normal, k, &Scale::FULL);
            S::store_to(S::fma(z, S::splat(noise), S::load_from(to)), to);
        }
    }
}
