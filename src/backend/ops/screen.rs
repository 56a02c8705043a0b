//! Which latents of a sample have the greatest keys, without the exact product of every latent with every sample.
//!
//! ```text
//! screen    pre'_j ≈ pre_j, key'_j = pre'_j norm_j    from h and w_enc rounded to bf16, at twice the speed of f32
//! margin    |key'_j - pre_j norm_j| <= P_j |h_s| + Q_j |h_s - bf16(h_s)| + R_j
//! rescore   pre_j exactly, for the few latents whose key' + margin reaches the k-th greatest key' - margin
//! ```
//!
//! What is kept, and every bit of it, is that of [`Product`](super::product::Product) followed by
//! [`SelectTop`](super::select::SelectTop): the screen may only leave out latents that cannot be among the k greatest, and
//! a rescored pre is the product's own chain. So it may be used or not as the processor has it.
//!
//! The margin, with w = bf16(w) + e, h = bf16(h) + f and Cauchy-Schwarz:
//!
//! ```text
//! w·h - bf16(w)·bf16(h) = e·h + bf16(w)·f             |e| |h| + |bf16(w)| |f|, and |bf16(w)| <= 1.004 |w|
//! rounding of either sum of d + 1 terms                γ (|offset| + |w| |h|), γ = (2 d + 8) 2^-24 for both and the norm
//! ```
//!
//! |e| and |f| are measured, not bounded; all norms are computed in f32, whose error of less than d 2^-24 the factors below
//! cover up to d = 65536.

mod select;

pub use self::select::{ScreenScratch, SelectScreened, Wanted};
use super::layout::{LANES, TILES, vectors};
use super::rows::dot;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd};

/// Covers the rounding of norms and margins themselves.
const SLACK: f32 = 1.01;

/// Two bf16 in a word, the earlier one in the low half, for sixteen lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Pairs(pub [u32; LANES]);

/// x as bf16, rounded to nearest even, in the high half of a word, as f32 again: the same bits everywhere.
#[inline(always)]
fn rounded<S: Simd>(x: S::F) -> S::F {
    let bits = S::bits(x);
    let odd = S::and(S::shift_right::<16>(bits), S::splat_u(1));
    let up = S::add_u(bits, S::add_u(odd, S::splat_u(0x7FFF)));
    S::from_bits(S::and(up, S::splat_u(0xFFFF_0000)))
}

/// Whether this processor multiplies pairs of bf16, and kernels run on the instruction set that has them.
pub fn available(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        isa == Isa::Avx512 && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        false
    }
}

/// Samples of a batch as the screen reads them.
#[derive(Clone, Debug, Default)]
pub struct ScreenBatch {
    /// `[panel][⌈d / 2⌉][TILES]`, samples in the lanes.
    pub pairs: Vec<Pairs>,
    /// At least |h|, `[panel][TILES]`.
    pub length: Vec<Lanes>,
    /// At least |h - bf16(h)|, `[panel][TILES]`.
    pub lost: Vec<Lanes>,
}

/// Fills a [`ScreenBatch`] from tiles `[panel][d][TILES]`.
pub struct RoundSamples<'a> {
    /// Samples in the lanes.
    pub tiles: &'a [Lanes],
    /// Width of a sample.
    pub d: usize,
    /// Filled.
    pub out: &'a mut ScreenBatch,
}

impl Kernel for RoundSamples<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let RoundSamples { tiles, d, out } = self;
        let (panels, half) = (tiles.len() / (d * TILES), d.div_ceil(2));
        out.pairs.resize(panels * half * TILES, Pairs::default());
        out.length.resize(panels * TILES, Lanes::default());
        out.lost.resize(panels * TILES, Lanes::default());
        for (p, tiles) in tiles.chunks_exact(d * TILES).enumerate() {
            let pairs = &mut out.pairs[p * half * TILES..][..half * TILES];
            for v in 0..TILES {
                let (mut square, mut lost) = (S::splat(0.0), S::splat(0.0));
                for k in 0..half {
                    let low = S::load(&tiles[2 * k * TILES + v]);
                    let high = if 2 * k + 1 < d { S::load(&tiles[(2 * k + 1) * TILES + v]) } else { S::splat(0.0) };
                    let near = [rounded::<S>(low), rounded::<S>(high)];
                    for (x, near) in [low, high].into_iter().zip(near) {
                        let off = S::sub(x, near);
                        square = S::fma(x, x, square);
                        lost = S::fma(off, off, lost);
                    }
                    let word = S::or(S::shift_right::<16>(S::bits(near[0])), S::bits(near[1]));
                    S::store_u(word, &mut pairs[k * TILES + v].0);
                }
                let slack = S::splat(SLACK);
                S::store(S::mul(S::sqrt(square), slack), &mut out.length[p * TILES + v]);
                S::store(S::mul(S::sqrt(lost), slack), &mut out.lost[p * TILES + v]);
            }
        }
    }
}

/// Encoder rows as the screen reads them.
#[derive(Clone, Debug, Default)]
pub struct ScreenWeights {
    /// `[n_latents][8 vectors]` words of two bf16 each.
    pub pairs: Vec<u32>,
    /// P, Q, R of each latent.
    pub margin: Vec<[f32; 3]>,
}

impl ScreenWeights {
    /// Room for the rows of an encoder.
    pub fn new(n_latents: usize, d: usize) -> ScreenWeights {
        ScreenWeights { pairs: vec![0; n_latents * 8 * vectors(d)], margin: vec![[0.0; 3]; n_latents] }
    }
}

/// Rounds encoder rows and works out their margins.
pub struct RoundRows<'a> {
    /// `[rows][vectors]`
    pub w_enc: &'a [Lanes],
    /// Width of a sample.
    pub d: usize,
    /// `[rows]`
    pub offset: &'a [f32],
    /// `[rows]`
    pub norm: &'a [f32],
    /// `[rows][8 vectors]`
    pub pairs: &'a mut [u32],
    /// `[rows]`
    pub margin: &'a mut [[f32; 3]],
}

impl Kernel for RoundRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let RoundRows { w_enc, d, offset, norm, pairs, margin } = self;
        let width = w_enc.len() / offset.len().max(1);
        let gamma = (2 * d + 8) as f32 * (0.5 * f32::EPSILON);
        let rows = w_enc.chunks_exact(width.max(1)).zip(pairs.chunks_exact_mut(8 * width.max(1)));
        for (j, (row, pairs)) in rows.enumerate() {
            let mut lost = S::splat(0.0);
            for (x, pairs) in row.iter().zip(pairs.as_chunks_mut::<8>().0) {
                let x = S::load(x);
                let near = rounded::<S>(x);
                let off = S::sub(x, near);
                lost = S::fma(off, off, lost);
                let mut words = [0; LANES];
                S::store_u(S::bits(near), &mut words);
                for (pair, two) in pairs.iter_mut().zip(words.as_chunks::<2>().0) {
                    *pair = two[0] >> 16 | two[1];
                }
            }
            let (length, lost) = (dot::<S>(row, row).sqrt(), S::fold(lost).sqrt());
            let scale = norm[j].abs() * SLACK;
            margin[j] = [
                scale * (SLACK * lost + gamma * SLACK * length),
                scale * (1.02 * length),
                scale * gamma * offset[j].abs() + f32::MIN_POSITIVE,
            ];
        }
    }
}

/// pre' of a panel.
pub struct ScreenProduct<'a> {
    /// `[n_latents][stride]`
    pub pairs: &'a [u32],
    /// Words of a row.
    pub stride: usize,
    /// `[n_latents]`
    pub offset: &'a [f32],
    /// `[⌈d / 2⌉][TILES]`
    pub x: &'a [Pairs],
    /// `[n_latents][TILES]`, filled.
    pub pre: &'a mut [Lanes],
}

impl ScreenProduct<'_> {
    /// # Panics
    /// If [`available`] says no, or shapes do not fit.
    pub fn run(self) {
        let rows = self.offset.len();
        assert!(available(Isa::Avx512), "no products of bf16 here");
        assert!(self.pairs.len() >= rows * self.stride && self.x.len() <= self.stride * TILES);
        assert!(self.pre.len() >= rows * TILES);
        // SAFETY: the features were found on this processor.
        #[cfg(target_arch = "x86_64")]
        unsafe {
            bf16::product(self);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod bf16 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
    pub fn product(p: ScreenProduct) {
        let ScreenProduct { pairs, stride, offset, x, pre } = p;
        let mut r = 0;
        while r + 6 <= offset.len() {
            // SAFETY: rows r to r + 6 exist, and `run` asserted the shapes.
            unsafe {
                rectangle::<6>(pairs[r * stride..].as_ptr(), stride, &offset[r..], x, pre[r * TILES..].as_mut_ptr())
            };
            r += 6;
        }
        while r < offset.len() {
            // SAFETY: as above.
            unsafe {
                rectangle::<1>(pairs[r * stride..].as_ptr(), stride, &offset[r..], x, pre[r * TILES..].as_mut_ptr())
            };
            r += 1;
        }
    }

    /// R latents by the panel's 64 samples.
    ///
    /// # Safety
    /// `pairs` are R rows of `stride`, `x` is no deeper than that, and `pre` has room for R rows.
    // Indices name registers here.
    #[allow(clippy::needless_range_loop)]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16,avx512bw,avx512vl")]
    unsafe fn rectangle<const R: usize>(
        pairs: *const u32,
        stride: usize,
        offset: &[f32],
        x: &[Pairs],
        pre: *mut Lanes,
    ) {
        let mut sum = [[_mm512_setzero_ps(); TILES]; R];
        for r in 0..R {
            sum[r] = [_mm512_set1_ps(offset[r]); TILES];
        }
        for k in 0..x.len() / TILES {
            let mut lanes = [_mm512_setzero_si512(); TILES];
            for v in 0..TILES {
                // SAFETY: k and v are inside, words are aligned.
                lanes[v] = unsafe { _mm512_load_si512(x.as_ptr().add(k * TILES + v).cast()) };
            }
            for r in 0..R {
                // SAFETY: the caller's promise.
                let w = bf16(_mm512_set1_epi32(unsafe { *pairs.add(r * stride + k) } as i32));
                for v in 0..TILES {
                    sum[r][v] = _mm512_dpbf16_ps(sum[r][v], w, bf16(lanes[v]));
                }
            }
        }
        // Nothing but stores here: a longer body would keep the sums in memory through the loop above.
        for r in 0..R {
            for v in 0..TILES {
                // SAFETY: the caller's promise.
                unsafe { _mm512_store_ps(pre.add(r * TILES + v).cast(), sum[r][v]) };
            }
        }
    }

    /// Words as pairs of bf16.
    #[inline(always)]
    fn bf16(x: __m512i) -> __m512bh {
        // SAFETY: both types are 512 bits that may be anything.
        unsafe { std::mem::transmute(x) }
    }
}

#[cfg(test)]
mod tests;
