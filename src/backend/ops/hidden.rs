//! h of a batch: the directions of what fires, summed.
//!
//! ```text
//! for each sample:  h = bias;  for each event, features ascending: h = fma(x, direction, h);  h = fma(noise, normal, h)
//! ```
//! The lanes are coordinates of h. Up to four vectors stay in registers; of more, four at a time; a sample's events are read again for
//! the next four. Wide h, whose directions do not stay in a near cache: four directions a pass over h, which does, while the
//! next four are fetched ahead. A lane's sum is the same chain either way.

use super::draw::variate::variate;
use super::draw::{Address, words};
use crate::backend::simd::{Kernel, Lanes, Simd, prefetch};
use crate::data::Events;
use crate::data::law::{Base, ROW_BLOCK, Scale, Tag};
use crate::random::Key;

/// Vectors of h from which on directions are read whole.
const WIDE: usize = 12;

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
    /// Place of the first sample in its step.
    pub first: usize,
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
        if self.noise <= 0.0 {
            match chunks {
                1 => return self.narrow::<S, 1>(),
                2 => return self.narrow::<S, 2>(),
                3 => return self.narrow::<S, 3>(),
                4 => return self.narrow::<S, 4>(),
                _ => {}
            }
        }
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
            if chunks >= WIDE {
                // The first directions of the next sample are fetched with the last of this one.
                let ahead = position[to..].iter().take(4).map(|p| (p % n as u32) as usize);
                sum.write_wide::<S>(self.bias, ahead, h);
            } else {
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
            }
            if self.noise > 0.0 {
                let at = Address {
                    key: self.noise_key,
                    high: Tag::Noise.with((self.first + sample) % ROW_BLOCK),
                    step: self.step,
                    block: ((self.first + sample) / ROW_BLOCK) as u32,
                };
                add_noise::<S>(at, self.noise, h);
            }
            from = to;
        }
    }
}

impl Project<'_> {
    /// All of h in W vectors and nothing else to add: one loop over the events, whose end a processor guesses wrong once a sample.
    #[inline(always)]
    fn narrow<S: Simd, const W: usize>(self) {
        let (d, n, directions) = (self.d_hidden, self.events.n_features as u32, self.directions.as_chunks::<W>().0);
        let mut start = [S::splat(0.0); W];
        for (start, bias) in start.iter_mut().zip(self.bias) {
            *start = S::load(bias);
        }
        let mut events = self.events.positions().iter().zip(self.events.values()).peekable();
        for sample in 0..self.events.samples {
            let (base, mut sum) = (sample as u32 * n, start);
            while let Some((position, x)) = events.next_if(|(position, _)| **position - base < n) {
                let (x, direction) = (S::splat(*x), &directions[(position - base) as usize]);
                for w in 0..W {
                    sum[w] = S::fma(x, S::load(&direction[w]), sum[w]);
                }
            }
            // The overhang of this row is overwritten by the next.
            let h = self.h[sample * d..][..16 * W].as_chunks_mut::<16>().0;
            for (sum, to) in sum.into_iter().zip(h) {
                S::store_to(sum, to);
            }
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

impl Row<'_> {
    #[inline(always)]
    fn direction(&self, event: usize) -> &[Lanes] {
        &self.directions[(self.feature[event] - self.base) as usize * self.chunks..][..self.chunks]
    }

    /// All of h, four events a pass; `ahead` are features whose directions are wanted next.
    #[inline(always)]
    fn write_wide<S: Simd>(&self, bias: &[Lanes], ahead: impl Iterator<Item = usize>, h: &mut [f32]) {
        let h = h.as_chunks_mut::<16>().0;
        for (h, bias) in h.iter_mut().zip(bias) {
            *h = bias.0;
        }
        let events = self.feature.len();
        let mut ahead = Some(ahead);
        for first in (0..events).step_by(4) {
            let next = first + 4..(first + 8).min(events);
            if next.is_empty() {
                let rows = ahead.take().into_iter().flatten();
                rows.for_each(|i| fetch(&self.directions[i * self.chunks..][..self.chunks]));
            }
            next.for_each(|event| fetch(self.direction(event)));
            match events - first {
                1 => self.add::<S, 1>(first, h),
                2 => self.add::<S, 2>(first, h),
                3 => self.add::<S, 3>(first, h),
                _ => self.add::<S, 4>(first, h),
            }
        }
    }

    /// Adds `N` events to h.
    #[inline(always)]
    fn add<S: Simd, const N: usize>(&self, first: usize, h: &mut [[f32; 16]]) {
        let mut x = [S::splat(0.0); N];
        let mut rows = [&self.directions[..self.chunks]; N];
        for e in 0..N {
            (x[e], rows[e]) = (S::splat(self.x[first + e]), self.direction(first + e));
        }
        for (c, h) in h.iter_mut().enumerate().take(self.chunks) {
            let mut sum = S::load_from(h);
            for e in 0..N {
                sum = S::fma(x[e], S::load(&rows[e][c]), sum);
            }
            S::store_to(sum, h);
        }
    }
}

#[inline(always)]
fn fetch(row: &[Lanes]) {
    row.iter().for_each(prefetch);
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
