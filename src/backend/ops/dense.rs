//! The elementwise work between the dense products of a ReLU step, samples in the lanes, one panel at a time.

use super::layout::{LANES, TILES};
use super::select::live_bits;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// z = ReLU(pre) in place; padding becomes 0. Returns how many are positive.
pub struct Relu<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a mut [Lanes],
    /// Samples of the panel that are not padding.
    pub live: usize,
}

impl Kernel for Relu<'_> {
    type Out = u64;
    #[inline(always)]
    fn run<S: Simd>(self) -> u64 {
        let masks = masks(self.live);
        let mut fired = 0;
        for row in self.pre.as_chunks_mut::<TILES>().0 {
            let mut bits = 0;
            for v in 0..TILES {
                let pre = S::load(&row[v]);
                let z = S::where_positive(S::mul(pre, S::load(&masks[v])), pre);
                bits |= (S::positive_bits(z) as u64) << (v * LANES);
                S::store(z, &mut row[v]);
            }
            fired += bits.count_ones() as u64;
        }
        fired
    }
}

/// 1 in the lanes of samples, 0 in those of padding.
pub(super) fn masks(live: usize) -> [Lanes; TILES] {
    let mut masks = [Lanes::default(); TILES];
    for (v, mask) in masks.iter_mut().enumerate() {
        for (lane, x) in mask.0.iter_mut().enumerate() {
            *x = (live_bits(live, v) >> lane & 1) as f32;
        }
    }
    masks
}

/// G = scale (ĥ - h) in place of ĥ, 0 in padding. Returns Σ (ĥ - h)².
pub struct Error<'a> {
    /// `[d][TILES]`
    pub reconstruction: &'a mut [Lanes],
    /// `[d][TILES]`
    pub h: &'a [Lanes],
    /// 2 / n, n the samples of the batch.
    pub scale: f32,
    /// Samples of the panel that are not padding.
    pub live: usize,
}

impl Kernel for Error<'_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let masks = masks(self.live);
        let mut squares = [S::splat(0.0); TILES];
        let rows = self.reconstruction.as_chunks_mut::<TILES>().0.iter_mut().zip(self.h.as_chunks::<TILES>().0);
        for (row, h) in rows {
            for v in 0..TILES {
                let error = S::mul(S::sub(S::load(&row[v]), S::load(&h[v])), S::load(&masks[v]));
                squares[v] = S::fma(error, error, squares[v]);
                S::store(S::mul(error, S::splat(self.scale)), &mut row[v]);
            }
        }
        S::fold(S::add(S::add(squares[0], squares[1]), S::add(squares[2], squares[3]))) as f64
    }
}

/// dz where z > 0, else 0, in place.
pub struct Gate<'a> {
    /// `[n_latents][TILES]`
    pub dz: &'a mut [Lanes],
    /// `[n_latents][TILES]`
    pub z: &'a [Lanes],
}

impl Kernel for Gate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        for (dz, z) in self.dz.iter_mut().zip(self.z) {
            S::store(S::where_positive(S::load(z), S::load(dz)), dz);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::layout::{PANEL, flat, flat_mut};
    use crate::backend::simd::{self, Isa};

    fn numbers(rows: usize, factor: f32) -> Vec<Lanes> {
        let mut x = vec![Lanes::default(); rows * TILES];
        flat_mut(&mut x).iter_mut().enumerate().for_each(|(i, x)| *x = ((i * 37 % 101) as f32 - 50.0) * factor);
        x
    }

    #[test]
    fn padding_neither_fires_nor_errs() {
        for isa in Isa::available() {
            for live in [1, 16, 31, PANEL] {
                let before = numbers(3, 1.0);
                let mut z = before.clone();
                let fired = simd::run(isa, Relu { pre: &mut z, live });
                let expected = |i: usize| if i % PANEL < live { flat(&before)[i].max(0.0) } else { 0.0 };
                assert!(flat(&z).iter().enumerate().all(|(i, &z)| z == expected(i)));
                assert_eq!(fired, flat(&z).iter().filter(|&&z| z > 0.0).count() as u64);

                let (h, mut g) = (numbers(3, 0.5), before.clone());
                // Halves of integers below 2^7: sums of their squares are exact.
                let square = simd::run(isa, Error { reconstruction: &mut g, h: &h, scale: 2.0, live });
                let error = |i: usize| if i % PANEL < live { flat(&before)[i] - flat(&h)[i] } else { 0.0 };
                assert!(flat(&g).iter().enumerate().all(|(i, &g)| g == 2.0 * error(i)));
                assert_eq!(square, (0..3 * PANEL).map(|i| error(i).powi(2) as f64).sum::<f64>());

                let mut dz = h.clone();
                simd::run(isa, Gate { dz: &mut dz, z: &z });
                let open = |i: usize| if flat(&z)[i] > 0.0 { flat(&h)[i] } else { 0.0 };
                assert!(flat(&dz).iter().enumerate().all(|(i, &dz)| dz == open(i)));
            }
        }
    }
}
