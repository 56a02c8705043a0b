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

use super::entries::Entries;
use super::layout::{LANES, TILES, vectors};
use super::rows::dot;
use super::select::{live_bits, narrowed, ordered};
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

/// What becomes of the rescored latents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// The k greatest keys; of them those with pre > 0.
    Top(usize),
    /// pre > 0 and key > bar (a bar of at least 0).
    Above(f32),
}

/// Memory that [`SelectScreened`] uses again from panel to panel.
#[derive(Clone, Debug, Default)]
pub struct ScreenScratch {
    maxima: Vec<Lanes>,
    /// Latents that may be kept, by lane: `[LANES][n_latents]`.
    found: Vec<u32>,
    /// Their pre.
    pre: Vec<f32>,
    order: Vec<u64>,
}

/// Rescores what the screen lets through, and keeps of it what is wanted.
pub struct SelectScreened<'a> {
    /// pre', `[n_latents][TILES]`.
    pub pre: &'a [Lanes],
    /// Of the batch: `[TILES]` of this panel.
    pub length: &'a [Lanes],
    /// Of the batch: `[TILES]` of this panel.
    pub lost: &'a [Lanes],
    /// `[n_latents]`
    pub margin: &'a [[f32; 3]],
    /// `[live][vectors]`
    pub h: &'a [Lanes],
    /// Width of a sample.
    pub d: usize,
    /// `[n_latents][vectors]`
    pub w_enc: &'a [Lanes],
    /// `[n_latents]`
    pub offset: &'a [f32],
    /// `[n_latents]`
    pub norm: &'a [f32],
    /// What to keep.
    pub wanted: Wanted,
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// Memory.
    pub scratch: &'a mut ScreenScratch,
    /// What each sample keeps, ascending latent.
    pub kept: &'a mut Entries,
}

impl Kernel for SelectScreened<'_> {
    /// How many latents were rescored.
    type Out = usize;
    #[inline(always)]
    fn run<S: Simd>(mut self) -> usize {
        let m = self.norm.len();
        let (mut rescored, room) = (0, if let Wanted::Top(k) = self.wanted { k.min(m) } else { m });
        self.kept.clear(room);
        if room == 0 {
            return 0;
        }
        for v in 0..self.live.div_ceil(LANES) {
            let bar = match self.wanted {
                Wanted::Top(k) => self.bar::<S>(k.min(m), v),
                Wanted::Above(bar) => S::splat(bar),
            };
            let counts = self.find::<S>(bar, v);
            for (lane, &count) in counts.iter().enumerate() {
                self.rescore::<S>(v * LANES + lane, lane, count);
                rescored += count;
            }
        }
        rescored
    }
}

impl SelectScreened<'_> {
    /// key' and its margin, for the samples of vector `v`.
    #[inline(always)]
    fn key<S: Simd>(&self, latent: usize, v: usize, length: S::F, lost: S::F) -> (S::F, S::F) {
        let [p, q, r] = self.margin[latent];
        let margin = S::fma(S::splat(p), length, S::fma(S::splat(q), lost, S::splat(r)));
        (S::mul(S::load(&self.pre[latent * TILES + v]), S::splat(self.norm[latent])), margin)
    }

    /// In each lane a number that at least k exact keys reach: as [`super::select`] finds it, from key' - margin.
    #[inline(always)]
    fn bar<S: Simd>(&mut self, k: usize, v: usize) -> S::F {
        let m = self.norm.len();
        let block = (m / (4 * k).next_power_of_two()).max(1);
        let blocks = m.div_ceil(block);
        let mut maxima = std::mem::take(&mut self.scratch.maxima);
        maxima.resize(blocks, Lanes::default());
        let (length, lost) = (S::load(&self.length[v]), S::load(&self.lost[v]));
        let (mut low, mut high) = (S::splat(f32::INFINITY), S::splat(f32::NEG_INFINITY));
        for (b, maximum) in maxima.iter_mut().enumerate() {
            let mut top = S::splat(f32::NEG_INFINITY);
            for latent in b * block..((b + 1) * block).min(m) {
                let (key, margin) = self.key::<S>(latent, v, length, lost);
                top = S::max(top, S::sub(key, margin));
            }
            S::store(top, maximum);
            low = S::select_positive(S::sub(low, top), top, low);
            high = S::max(high, top);
        }
        low = narrowed::<S>(&maxima, k, low, high);
        self.scratch.maxima = maxima;
        low
    }

    /// Latents whose keys may reach the bar, ascending, by lane; returns how many there are.
    #[inline(always)]
    fn find<S: Simd>(&mut self, bar: S::F, v: usize) -> [usize; LANES] {
        let m = self.norm.len();
        let mut found = std::mem::take(&mut self.scratch.found);
        found.resize(LANES * m, 0);
        let (length, lost) = (S::load(&self.length[v]), S::load(&self.lost[v]));
        let live = live_bits(self.live, v);
        let mut counts = [0; LANES];
        for latent in 0..m {
            let (key, margin) = self.key::<S>(latent, v, length, lost);
            // What is not a number is let through.
            let mut bits = !S::positive_bits(S::sub(bar, S::add(key, margin))) & live;
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                found[lane * m + counts[lane]] = latent as u32;
                counts[lane] += 1;
            }
        }
        self.scratch.found = found;
        counts
    }

    /// Keeps what is wanted of the `count` latents found for a sample.
    #[inline(always)]
    fn rescore<S: Simd>(&mut self, sample: usize, lane: usize, count: usize) {
        let m = self.norm.len();
        let found = &self.scratch.found[lane * m..][..count];
        let width = self.w_enc.len() / m;
        self.scratch.pre.clear();
        for among in found.chunks(LANES) {
            let exact = chains::<S>(among, self.w_enc, self.offset, self.d, &self.h[sample * width..][..width]);
            self.scratch.pre.extend_from_slice(&exact.0[..among.len()]);
        }
        let key = |latent: u32, pre: f32| pre * self.norm[latent as usize];
        let entries = found.iter().zip(&self.scratch.pre);
        match self.wanted {
            Wanted::Above(bar) => {
                for (&latent, &pre) in entries.filter(|(latent, pre)| **pre > 0.0 && key(**latent, **pre) > bar) {
                    self.kept.push(sample, latent, pre);
                }
            }
            Wanted::Top(k) => {
                let order = &mut self.scratch.order;
                order.clear();
                order.extend(entries.map(|(&latent, &pre)| ordered(key(latent, pre), latent)));
                let mut least = 0;
                if count > k {
                    least = *order.select_nth_unstable(count - k).1;
                }
                for (&latent, &pre) in found.iter().zip(&self.scratch.pre) {
                    if pre > 0.0 && ordered(key(latent, pre), latent) >= least {
                        self.kept.push(sample, latent, pre);
                    }
                }
            }
        }
    }
}

/// pre of up to sixteen latents for one sample: the chains of [`super::product`], latents in the lanes. Rows are turned
/// sixteen columns at a time.
#[inline(always)]
fn chains<S: Simd>(among: &[u32], w_enc: &[Lanes], offset: &[f32], d: usize, h: &[Lanes]) -> Lanes {
    let width = h.len();
    let latent = |lane: usize| among[lane.min(among.len() - 1)] as usize;
    let mut start = Lanes::default();
    for (lane, start) in start.0.iter_mut().enumerate() {
        *start = offset[latent(lane)];
    }
    let mut rows = [&w_enc[..0]; LANES];
    for (lane, row) in rows.iter_mut().enumerate() {
        *row = &w_enc[latent(lane) * width..][..width];
    }
    let mut sum = S::load(&start);
    for block in 0..width {
        let mut columns = [S::splat(0.0); LANES];
        for (column, row) in columns.iter_mut().zip(&rows) {
            *column = S::load(&row[block]);
        }
        let columns = S::transpose(columns);
        let used = d.saturating_sub(block * LANES).min(LANES);
        if used == LANES {
            for (column, &h) in columns.iter().zip(&h[block].0) {
                sum = S::fma(*column, S::splat(h), sum);
            }
        } else {
            for (column, &h) in columns.iter().zip(&h[block].0).take(used) {
                sum = S::fma(*column, S::splat(h), sum);
            }
        }
    }
    let mut out = Lanes::default();
    S::store(sum, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::layout::{PANEL, PackedBatch, flat, flat_mut, pack_rows};
    use crate::backend::ops::product::{Product, Strided};
    use crate::backend::ops::rows::Refresh;
    use crate::backend::ops::select::{SelectTop, TopScratch};
    use crate::backend::simd;
    use crate::random::{Draws, Stream};

    /// Weights and samples of one shape, with what both ways read.
    struct Case {
        d: usize,
        batch: PackedBatch,
        w_enc: Vec<Lanes>,
        offset: Vec<f32>,
        norm: Vec<f32>,
        samples: ScreenBatch,
        weights: ScreenWeights,
    }

    impl Case {
        /// `spread` scales rows apart, so that margins differ; samples that are multiples of 3 are empty.
        fn new(isa: Isa, samples: usize, d: usize, m: usize, spread: f64) -> Case {
            let mut draws = Draws::new(6, Stream::SaeInit, (d * 1000 + m) as u64);
            let mut normals = |n: usize| (0..n).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
            let (mut h, mut w, mut w_dec) = (normals(samples * d), normals(m * d), normals(m * d));
            let (b_enc, b_dec) = (normals(m), normals(d));
            h.chunks_exact_mut(d).step_by(3).for_each(|h| h.fill(0.0));
            for (j, (w, w_dec)) in w.chunks_exact_mut(d).zip(w_dec.chunks_exact_mut(d)).enumerate() {
                let by = libm::pow(spread, (j % 7) as f64) as f32;
                w.iter_mut().for_each(|w| *w *= by);
                w_dec.iter_mut().for_each(|w| *w /= by);
            }
            // Twins tie exactly.
            if m > 5 {
                w.copy_within(0..d, 5 * d);
                w_dec.copy_within(0..d, 5 * d);
            }
            let mut batch = PackedBatch::default();
            batch.fill(&h, d, 1.0);
            let packed = |x: &[f32]| {
                let mut rows = vec![];
                pack_rows(x, d, 1.0, &mut rows);
                rows
            };
            let (w_enc, mut w_dec, b_dec) = (packed(&w), packed(&w_dec), packed(&b_dec));
            let (mut norm, mut offset) = (vec![0.0; m], vec![0.0; m]);
            let (norm_out, offset_out) = (&mut norm[..], &mut offset[..]);
            simd::run(
                isa,
                Refresh {
                    w_enc: &w_enc,
                    b_enc: &b_enc,
                    w_dec: &mut w_dec,
                    b_dec: &b_dec,
                    unit: false,
                    norm: norm_out,
                    offset: offset_out,
                },
            );
            let mut case = Case {
                d,
                batch,
                w_enc,
                offset,
                norm,
                samples: ScreenBatch::default(),
                weights: ScreenWeights::new(m, d),
            };
            simd::run(isa, RoundSamples { tiles: &case.batch.tiles, d, out: &mut case.samples });
            let Case { w_enc, offset, norm, weights: ScreenWeights { pairs, margin }, .. } = &mut case;
            simd::run(isa, RoundRows { w_enc, d, offset, norm, pairs, margin });
            case
        }

        fn pre(&self, isa: Isa, panel: usize) -> Vec<Lanes> {
            let m = self.norm.len();
            let mut out = vec![Lanes::default(); m * TILES];
            let stride = vectors(self.d) * LANES;
            let weights = Strided { numbers: flat(&self.w_enc), row_stride: stride, depth_stride: 1 };
            let x = &self.batch.tiles[panel * self.d * TILES..][..self.d * TILES];
            simd::run(isa, Product { weights, start: &self.offset, x, out: &mut out });
            out
        }

        /// pre' from the words, by plain sums in f64: off by rounding to bf16 alone.
        fn plain(&self, panel: usize) -> Vec<Lanes> {
            let (m, half) = (self.norm.len(), self.d.div_ceil(2));
            let stride = 8 * vectors(self.d);
            let part =
                |word: u32, high: bool| f32::from_bits(if high { word & 0xFFFF_0000 } else { word << 16 }) as f64;
            let mut pre = vec![Lanes::default(); m * TILES];
            for (at, pre) in flat_mut(&mut pre).iter_mut().enumerate() {
                let (j, s) = (at / PANEL, at % PANEL);
                let mut sum = self.offset[j] as f64;
                for k in 0..half {
                    let x = self.samples.pairs[(panel * half + k) * TILES + s / LANES].0[s % LANES];
                    let w = self.weights.pairs[j * stride + k];
                    sum += part(x, false) * part(w, false) + part(x, true) * part(w, true);
                }
                *pre = sum as f32;
            }
            pre
        }

        fn select(&self, isa: Isa, pre: &[Lanes], panel: usize, wanted: Wanted) -> (Entries, usize) {
            let (mut scratch, mut kept) = (ScreenScratch::default(), Entries::new(0));
            let width = vectors(self.d);
            let live = self.batch.live(panel);
            let select = SelectScreened {
                pre,
                length: &self.samples.length[panel * TILES..][..TILES],
                lost: &self.samples.lost[panel * TILES..][..TILES],
                margin: &self.weights.margin,
                h: &self.batch.rows[panel * PANEL * width..][..live * width],
                d: self.d,
                w_enc: &self.w_enc,
                offset: &self.offset,
                norm: &self.norm,
                wanted,
                live,
                scratch: &mut scratch,
                kept: &mut kept,
            };
            let rescored = simd::run(isa, select);
            (kept, rescored)
        }
    }

    fn all(kept: &Entries) -> Vec<(usize, u32, u32)> {
        let of = |s: usize| kept.of(s).0.iter().zip(kept.of(s).1).map(move |(&j, z)| (s, j, z.to_bits()));
        (0..PANEL).flat_map(of).collect()
    }

    const SHAPES: [(usize, usize, f64); 6] =
        [(1, 1, 1.0), (15, 17, 1.0), (16, 40, 1.5), (33, 64, 3.0), (100, 130, 1.1), (64, 300, 1.0)];

    #[test]
    fn screened_keys_lie_within_their_margins() {
        for (d, m, spread) in SHAPES {
            let case = Case::new(Isa::best(), 70, d, m, spread);
            for panel in 0..2 {
                let (exact, mut screens) = (case.pre(Isa::best(), panel), vec![case.plain(panel)]);
                if available(Isa::best()) {
                    let mut fast = vec![Lanes::default(); m * TILES];
                    let half = d.div_ceil(2);
                    let x = &case.samples.pairs[panel * half * TILES..][..half * TILES];
                    let (offset, stride) = (&case.offset[..], 8 * vectors(d));
                    ScreenProduct { pairs: &case.weights.pairs, stride, offset, x, pre: &mut fast }.run();
                    screens.push(fast);
                }
                let (mut worst, mut count) = (0.0f64, 0);
                for screen in &screens {
                    for at in 0..m * PANEL {
                        let (j, s) = (at / PANEL, at % PANEL);
                        let tile = panel * TILES + s / LANES;
                        let of = |lanes: &[Lanes]| lanes[tile].0[s % LANES] as f64;
                        let [p, q, r] = case.weights.margin[j].map(f64::from);
                        let margin = p * of(&case.samples.length) + q * of(&case.samples.lost) + r;
                        let exact = flat(&exact)[at] as f64 * case.norm[j] as f64;
                        let key = (flat(screen)[at] * case.norm[j]) as f64;
                        worst = worst.max((key - exact).abs() / margin);
                        count += 1;
                    }
                }
                // A margin that is never nearly reached would hide a wrong one: Cauchy-Schwarz is met at d = 1.
                assert!(worst <= 1.0 && count > 0 && (d > 1 || worst > 0.3 || panel > 0), "d {d}, m {m}: {worst}");
            }
        }
    }

    #[test]
    fn the_k_greatest_are_those_of_the_whole_product_bit_for_bit() {
        for isa in Isa::available() {
            for (d, m, spread) in SHAPES {
                let case = Case::new(isa, 70, d, m, spread);
                for panel in 0..2 {
                    let (pre, screen, live) = (case.pre(isa, panel), case.plain(panel), case.batch.live(panel));
                    for k in [1, 2, 5, 9, m / 2, m].into_iter().filter(|&k| k > 0) {
                        let (mut scratch, mut expected) = (TopScratch::default(), Entries::new(0));
                        let (norm, among, relu) = (&case.norm[..], None, true);
                        let (scratch, kept) = (&mut scratch, &mut expected);
                        simd::run(isa, SelectTop { pre: &pre, norm, among, k, relu, live, scratch, kept });
                        let (found, rescored) = case.select(isa, &screen, panel, Wanted::Top(k));
                        assert_eq!(all(&found), all(&expected), "{isa:?}, d {d}, m {m}, k {k}, panel {panel}");
                        assert!(rescored >= found.len());
                        if (d, m, k, panel) == (64, 300, 5, 0) {
                            // A third of the samples is empty, so their keys differ by offsets alone.
                            assert!(rescored < 12 * PANEL, "the screen lets {rescored} through");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_lies_above_a_bar_is_that_of_the_whole_product_bit_for_bit() {
        for isa in Isa::available() {
            for (d, m, spread) in SHAPES {
                let case = Case::new(isa, 70, d, m, spread);
                let (pre, screen) = (case.pre(isa, 0), case.plain(0));
                for bar in [0.0, 0.5, 20.0] {
                    let mut expected = vec![];
                    for s in 0..PANEL {
                        for j in 0..m {
                            let x = flat(&pre)[j * PANEL + s];
                            if x > 0.0 && x * case.norm[j] > bar {
                                expected.push((s, j as u32, x.to_bits()));
                            }
                        }
                    }
                    let (found, _) = case.select(isa, &screen, 0, Wanted::Above(bar));
                    assert_eq!(all(&found), expected, "{isa:?}, d {d}, m {m}, bar {bar}");
                }
            }
        }
    }

    #[test]
    fn numbers_that_are_none_do_not_panic() {
        let mut case = Case::new(Isa::best(), 70, 16, 40, 1.0);
        flat_mut(&mut case.batch.rows)[5] = f32::NAN;
        case.batch.rows[16].0[3] = f32::INFINITY;
        case.samples.length[0].0[0] = f32::NAN;
        let screen = case.plain(0);
        let (kept, _) = case.select(Isa::best(), &screen, 0, Wanted::Top(5));
        assert!(kept.len() <= 5 * PANEL);
    }
}
