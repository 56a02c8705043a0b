//! The selection among screened keys, and the rescoring of what may be kept.

use crate::backend::ops::entries::Entries;
use crate::backend::ops::layout::{LANES, TILES};
use crate::backend::ops::select::{live_bits, narrowed, ordered};
use crate::backend::simd::{Kernel, Lanes, Simd};

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

/// pre of up to sixteen latents for one sample: the chains of [`product`](crate::backend::ops::product), latents in the lanes. Rows are turned
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
