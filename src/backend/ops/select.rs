//! Which latents of a sample are kept.
//!
//! ```text
//! positive:  latents with pre > 0
//! top:       the k latents of greatest pre_j norm_j, ties to the lower latent; then, with `relu`, those with pre > 0
//! ```
//!
//! `top` for the smallest k keeps, in each lane, the greatest keys so far and whose they are; for small k the keys alone, the least
//! of which is the bar. Otherwise it first finds a bar per lane that at least k keys reach and few more: the k-th greatest
//! of the maxima of blocks of latents is one, and halving the range of the maxima comes close to it without sorting. One
//! pass then collects what reaches the bar, and a selection on (key, lower latent first) ends it. All are exact.

use super::entries::Entries;
use super::layout::{LANES, PANEL, TILES, flat};
use crate::backend::simd::{Kernel, Lanes, Simd};

/// The rule by which latents are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// All of them, of either sign.
    All,
    /// Those with pre > 0.
    Positive,
    /// The k of greatest pre_j |decoder_j| where pre > 0; ties to the lower latent.
    Top(usize),
    /// Those with pre > 0 and pre_j |decoder_j| above this.
    Above(f32),
    /// Of each `batch` samples in a row (what is left at the end is a smaller batch of n) the ⌊k n⌋ of greatest
    /// pre_j |decoder_j| > 0, ties in (sample, latent) order.
    BatchTop {
        /// Mean latents of a sample.
        k: f64,
        /// Samples of a batch.
        batch: usize,
    },
}

/// Insertion is chosen while k times the number of candidates is at most this (and k at most 8); its time grows with that
/// product, the bar's hardly with k. Measured to cross at 600 to 2000.
const INSERT_UP_TO: usize = 1024;

/// Candidates up to which f32 counts exactly.
const MOST_NAMES: usize = 1 << 24;

/// Keeps the positive pre-activations of a panel, ascending latent.
pub struct SelectPositive<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a [Lanes],
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// What each sample keeps, ascending latent.
    pub kept: &'a mut Entries,
}

impl Kernel for SelectPositive<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        self.kept.clear(self.pre.len() / TILES);
        for (latent, row) in self.pre.chunks_exact(TILES).enumerate() {
            for (v, lanes) in row.iter().enumerate() {
                let mut bits = S::positive_bits(S::load(lanes)) & live_bits(self.live, v);
                while bits != 0 {
                    let lane = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.kept.push(v * LANES + lane, latent as u32, lanes.0[lane]);
                }
            }
        }
    }
}

/// Keeps pre of a panel where pre_j norm_j exceeds a bar that is at least 0, ascending latent.
pub struct SelectAbove<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a [Lanes],
    /// `[n_latents]`
    pub norm: &'a [f32],
    /// 0 or more: keys are compared with it.
    pub bar: f32,
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// What each sample keeps, ascending latent.
    pub kept: &'a mut Entries,
}

impl Kernel for SelectAbove<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        self.kept.clear(self.norm.len());
        let bar = S::splat(self.bar);
        for (latent, (row, norm)) in self.pre.chunks_exact(TILES).zip(self.norm).enumerate() {
            for (v, lanes) in row.iter().enumerate() {
                let key = S::mul(S::load(lanes), S::splat(*norm));
                let mut bits = S::positive_bits(S::sub(key, bar)) & live_bits(self.live, v);
                while bits != 0 {
                    let lane = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.kept.push(v * LANES + lane, latent as u32, lanes.0[lane]);
                }
            }
        }
    }
}

/// Keeps pre of a panel where it exceeds the latent's own bar, ascending latent.
pub struct SelectOver<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a [Lanes],
    /// `[n_latents]`
    pub bar: &'a [f32],
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// What each sample keeps, ascending latent.
    pub kept: &'a mut Entries,
}

impl Kernel for SelectOver<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        self.kept.clear(self.bar.len());
        for (latent, (row, bar)) in self.pre.chunks_exact(TILES).zip(self.bar).enumerate() {
            for (v, lanes) in row.iter().enumerate() {
                // Exact in sign: the difference of two floats is never rounded to zero.
                let over = S::sub(S::load(lanes), S::splat(*bar));
                let mut bits = S::positive_bits(over) & live_bits(self.live, v);
                while bits != 0 {
                    let lane = bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.kept.push(v * LANES + lane, latent as u32, lanes.0[lane]);
                }
            }
        }
    }
}

/// Bit l is set where lane l of vector `v` is a sample below `live`.
#[inline(always)]
pub fn live_bits(live: usize, v: usize) -> u32 {
    let lanes = live.saturating_sub(v * LANES).min(LANES);
    (1u32 << lanes) - 1
}

/// Memory that [`SelectTop`] uses again from panel to panel.
#[derive(Clone, Debug, Default)]
pub struct TopScratch {
    maxima: Vec<Lanes>,
    /// Candidates of one vector of samples: `[LANES][candidates]`, as (key, lower candidate first) in one number.
    found: Vec<u64>,
    order: Vec<u64>,
}

/// Keeps the k greatest of a panel.
pub struct SelectTop<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a [Lanes],
    /// `[n_latents]`
    pub norm: &'a [f32],
    /// Latents to choose from, ascending; none: all.
    pub among: Option<&'a [u32]>,
    /// How many at most.
    pub k: usize,
    /// Drop what is not positive.
    pub relu: bool,
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// Memory.
    pub scratch: &'a mut TopScratch,
    /// What each sample keeps, ascending latent.
    pub kept: &'a mut Entries,
}

impl Kernel for SelectTop<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let k = self.k.min(self.candidates());
        self.k = k;
        self.kept.clear(k);
        if k <= 4 && self.candidates() < MOST_NAMES {
            return match k {
                0 => {}
                1 => self.name::<S, 1>(),
                2 => self.name::<S, 2>(),
                3 => self.name::<S, 3>(),
                _ => self.name::<S, 4>(),
            };
        }
        for v in 0..self.live.div_ceil(LANES) {
            match if k * self.candidates() <= INSERT_UP_TO { k } else { usize::MAX } {
                5 => self.insert::<S, 5>(v),
                6 => self.insert::<S, 6>(v),
                7 => self.insert::<S, 7>(v),
                8 => self.insert::<S, 8>(v),
                _ => self.collect::<S>(v),
            }
        }
    }
}

impl SelectTop<'_> {
    #[inline(always)]
    fn candidates(&self) -> usize {
        self.among.map_or(self.norm.len(), <[u32]>::len)
    }

    #[inline(always)]
    fn latent(&self, candidate: usize) -> usize {
        self.among.map_or(candidate, |among| among[candidate] as usize)
    }

    /// pre norm of a candidate, for the samples of vector `v`.
    #[inline(always)]
    fn key<S: Simd>(&self, candidate: usize, v: usize) -> S::F {
        let latent = self.latent(candidate);
        S::mul(S::load(&self.pre[latent * TILES + v]), S::splat(self.norm[latent]))
    }

    #[inline(always)]
    fn push(&mut self, sample: usize, candidate: usize) {
        let latent = self.latent(candidate);
        let value = flat(self.pre)[latent * PANEL + sample];
        if value > 0.0 || !self.relu {
            self.kept.push(sample, latent as u32, value);
        }
    }

    /// As many vectors at a time as registers hold, so that one does not wait for the other.
    #[inline(always)]
    fn name<S: Simd, const K: usize>(&mut self) {
        for v in (0..self.live.div_ceil(LANES)).step_by(if S::ACCUMULATORS >= 24 { 2 } else { 1 }) {
            if S::ACCUMULATORS >= 24 {
                self.name_tiles::<S, K, 2>(v);
            } else {
                self.name_tiles::<S, K, 1>(v);
            }
        }
    }

    /// K is known and small: each lane holds its K greatest keys so far in registers and, as numbers, which candidates they
    /// belong to. Only a greater key takes a place and what it displaces moves down, so ties stay with the lower candidate.
    #[inline(always)]
    fn name_tiles<S: Simd, const K: usize, const T: usize>(&mut self, v: usize) {
        let mut best = [[S::splat(f32::NEG_INFINITY); T]; K];
        let mut whose = [[S::splat(0.0); T]; K];
        let mut number = S::splat(0.0);
        for candidate in 0..self.candidates() {
            for t in 0..T {
                let key = self.key::<S>(candidate, v + t);
                // A place takes the key where that is greater, or else what the place before it gave up.
                for place in (1..K).rev() {
                    let (here, above) = (S::sub(key, best[place][t]), S::sub(key, best[place - 1][t]));
                    let taken = S::select_positive(here, key, best[place][t]);
                    let whose_is = S::select_positive(here, number, whose[place][t]);
                    best[place][t] = S::select_positive(above, best[place - 1][t], taken);
                    whose[place][t] = S::select_positive(above, whose[place - 1][t], whose_is);
                }
                let gate = S::sub(key, best[0][t]);
                best[0][t] = S::select_positive(gate, key, best[0][t]);
                whose[0][t] = S::select_positive(gate, number, whose[0][t]);
            }
            number = S::add(number, S::splat(1.0));
        }
        let (mut keys, mut names) = ([[Lanes::default(); T]; K], [[Lanes::default(); T]; K]);
        for place in 0..K {
            for t in 0..T {
                S::store(best[place][t], &mut keys[place][t]);
                S::store(whose[place][t], &mut names[place][t]);
            }
        }
        let first = v * LANES;
        for sample in first..self.live.min(first + T * LANES) {
            let (t, lane) = ((sample - first) / LANES, sample % LANES);
            // Where nothing is greater than -inf the place is empty.
            let mut found: [u32; K] = std::array::from_fn(|place| {
                if keys[place][t].0[lane] > f32::NEG_INFINITY { names[place][t].0[lane] as u32 } else { u32::MAX }
            });
            found.sort_unstable();
            for candidate in found.into_iter().filter(|candidate| *candidate != u32::MAX) {
                let latent = self.latent(candidate as usize);
                let value = flat(self.pre)[latent * PANEL + sample];
                self.kept.push_if(value > 0.0 || !self.relu, sample, latent as u32, value);
            }
        }
    }

    /// K is known: each lane holds its K greatest keys so far in registers, the last of which is in the end a bar that K
    /// keys reach. A second pass notes as bits which candidates those are, so that no branch hangs on a lane.
    #[inline(always)]
    fn insert<S: Simd, const K: usize>(&mut self, v: usize) {
        let mut best = [S::splat(f32::NEG_INFINITY); K];
        for candidate in 0..self.candidates() {
            let mut key = self.key::<S>(candidate, v);
            for best in &mut best {
                let loser = S::min(key, *best);
                *best = S::max(key, *best);
                key = loser;
            }
        }
        let bar = best[K - 1];
        let mut reach = [[0; LANES]; INSERT_UP_TO / 32];
        let words = self.candidates().div_ceil(32);
        for (word, reach) in reach[..words].iter_mut().enumerate() {
            let mut bits = S::splat_u(0);
            for candidate in 32 * word..self.candidates().min(32 * word + 32) {
                let below = S::sub(bar, self.key::<S>(candidate, v));
                let bit = S::from_bits(S::splat_u(1 << (candidate % 32)));
                bits = S::or(bits, S::bits(S::select_positive(below, S::splat(0.0), bit)));
            }
            S::store_u(bits, reach);
        }
        let mut lowest = Lanes::default();
        S::store(bar, &mut lowest);
        for lane in 0..(self.live - v * LANES).min(LANES) {
            let count: u32 = reach[..words].iter().map(|reach| reach[lane].count_ones()).sum();
            if count as usize > K {
                self.drop_ties(v * LANES + lane, lowest.0[lane], K, &mut reach);
            }
            for (word, reach) in reach[..words].iter().enumerate() {
                let mut bits = reach[lane];
                while bits != 0 {
                    self.push(v * LANES + lane, 32 * word + bits.trailing_zeros() as usize);
                    bits &= bits - 1;
                }
            }
        }
    }

    /// Of the candidates whose keys equal the bar, the last are dropped until no more than k reach it.
    #[cold]
    fn drop_ties(&self, sample: usize, bar: f32, k: usize, reach: &mut [[u32; LANES]]) {
        let key = |candidate: usize| {
            let latent = self.latent(candidate);
            flat(self.pre)[latent * PANEL + sample] * self.norm[latent]
        };
        let lane = sample % LANES;
        let above = (0..self.candidates()).filter(|&candidate| key(candidate) > bar).count();
        reach.iter_mut().for_each(|reach| reach[lane] = 0);
        let mut spare = k.saturating_sub(above);
        for candidate in 0..self.candidates() {
            let equal = key(candidate) == bar;
            if key(candidate) > bar || equal && spare > 0 {
                reach[candidate / 32][lane] |= 1 << (candidate % 32);
                spare -= equal as usize;
            }
        }
    }

    /// Any k: a bar, what reaches it, and the k greatest of that.
    #[inline(always)]
    fn collect<S: Simd>(&mut self, v: usize) {
        let (k, candidates) = (self.k, self.candidates());
        let bar = self.bar::<S>(v);
        let mut counts = [0; LANES];
        let mut found = std::mem::take(&mut self.scratch.found);
        found.resize(LANES * candidates, 0);
        let live = live_bits(self.live, v);
        for candidate in 0..candidates {
            let key = self.key::<S>(candidate, v);
            let mut lanes = Lanes::default();
            S::store(key, &mut lanes);
            let mut bits = !S::positive_bits(S::sub(bar, key)) & live;
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                found[lane * candidates + counts[lane]] = ordered(lanes.0[lane], candidate as u32);
                counts[lane] += 1;
            }
        }
        let mut order = std::mem::take(&mut self.scratch.order);
        for (lane, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let found = &found[lane * candidates..][..count];
            let mut least = 0;
            if count > k {
                order.clear();
                order.extend_from_slice(found);
                least = *order.select_nth_unstable(count - k).1;
            }
            for &entry in found.iter().filter(|entry| **entry >= least) {
                self.push(v * LANES + lane, (u32::MAX - entry as u32) as usize);
            }
        }
        (self.scratch.found, self.scratch.order) = (found, order);
    }

    /// In each lane a number that at least k keys reach.
    #[inline(always)]
    fn bar<S: Simd>(&mut self, v: usize) -> S::F {
        let (k, candidates) = (self.k, self.candidates());
        let block = (candidates / (4 * k).next_power_of_two()).max(1);
        let blocks = candidates.div_ceil(block);
        let mut maxima = std::mem::take(&mut self.scratch.maxima);
        maxima.resize(blocks, Lanes::default());
        let (mut low, mut high) = (S::splat(f32::INFINITY), S::splat(f32::NEG_INFINITY));
        for (b, maximum) in maxima.iter_mut().enumerate() {
            let mut top = self.key::<S>(b * block, v);
            for candidate in b * block + 1..((b + 1) * block).min(candidates) {
                top = S::max(top, self.key::<S>(candidate, v));
            }
            S::store(top, maximum);
            low = S::select_positive(S::sub(low, top), top, low);
            high = S::max(high, top);
        }
        // At least k maxima reach `low` at every step, at first because all do.
        low = narrowed::<S>(&maxima, k, low, high);
        self.scratch.maxima = maxima;
        low
    }
}

/// A number that at least k of the maxima reach in each lane, close to the k-th greatest: `low`, which all of them reach, raised
/// by halving its distance to `high`, the greatest.
#[inline(always)]
pub(super) fn narrowed<S: Simd>(maxima: &[Lanes], k: usize, mut low: S::F, mut high: S::F) -> S::F {
    let (one, spare) = (S::splat(1.0), S::splat((maxima.len() - k) as f32 + 0.5));
    for _ in 0..12 {
        let middle = S::mul(S::add(low, high), S::splat(0.5));
        let mut below = S::splat(0.0);
        for maximum in maxima {
            below = S::add(below, S::where_positive(S::sub(middle, S::load(maximum)), one));
        }
        low = S::select_positive(S::sub(spare, below), middle, low);
        high = S::select_positive(S::sub(spare, below), high, middle);
    }
    low
}

/// A number that orders by key, then by lower candidate.
#[inline(always)]
pub(super) fn ordered(key: f32, candidate: u32) -> u64 {
    // -0 is made 0, which it equals.
    let bits = (key + 0.0).to_bits();
    let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    (rising as u64) << 32 | (u32::MAX - candidate) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::layout::flat_mut;
    use crate::backend::simd::{self, Isa};
    use crate::random::{Draws, Stream};

    /// The definition: a stable sort of the keys.
    fn plain(pre: &[f32], norm: &[f32], among: &[u32], k: usize, relu: bool, s: usize) -> Vec<(u32, f32)> {
        let key = |j: u32| pre[j as usize * PANEL + s] * norm[j as usize];
        let mut order = among.to_vec();
        order.sort_by(|&a, &b| key(b).partial_cmp(&key(a)).expect("no NaN here"));
        order.truncate(k);
        order.retain(|&j| pre[j as usize * PANEL + s] > 0.0 || !relu);
        order.sort_unstable();
        order.into_iter().map(|j| (j, pre[j as usize * PANEL + s])).collect()
    }

    fn kept_by(kept: &Entries, s: usize) -> Vec<(u32, f32)> {
        let (latents, values) = kept.of(s);
        let mut found: Vec<_> = latents.iter().copied().zip(values.iter().copied()).collect();
        found.sort_unstable_by_key(|entry| entry.0);
        found
    }

    /// Pre-activations on a coarse grid, so that many keys tie.
    fn coarse(m: usize, levels: u32, part: u64) -> Vec<Lanes> {
        let mut draws = Draws::new(5, Stream::SaeInit, part);
        let mut pre = vec![Lanes::default(); m * TILES];
        for x in flat_mut(&mut pre) {
            *x = draws.below(levels) as f32 - (levels / 3) as f32;
        }
        pre
    }

    fn check(pre: &[Lanes], norm: &[f32], among: Option<&[u32]>, k: usize, relu: bool, live: usize) {
        let all: Vec<u32> = (0..norm.len() as u32).collect();
        for isa in Isa::available() {
            let (mut scratch, mut kept) = (TopScratch::default(), Entries::new(0));
            simd::run(isa, SelectTop { pre, norm, among, k, relu, live, scratch: &mut scratch, kept: &mut kept });
            for s in 0..PANEL {
                let expected =
                    if s < live { plain(flat(pre), norm, among.unwrap_or(&all), k, relu, s) } else { vec![] };
                assert_eq!(kept_by(&kept, s), expected, "{isa:?}, {} latents, k = {k}, sample {s}", norm.len());
            }
        }
    }

    #[test]
    fn topk_keeps_ties_in_index_order() {
        for m in [1, 2, 15, 16, 17, 40, 300] {
            let norm: Vec<f32> = (0..m).map(|j| [1.0, 0.5, 2.0][j % 3]).collect();
            for k in [1, 2, 3, 4, 5, 6, 11, m / 2, m].into_iter().filter(|&k| k >= 1 && k <= m) {
                check(&coarse(m, 7, 1), &norm, None, k, true, PANEL);
                check(&coarse(m, 1000, 2), &norm, None, k, false, 17);
            }
        }
    }

    #[test]
    fn all_equal_keys_keep_the_lowest_latents() {
        let pre = vec![Lanes([2.0; LANES]); 50 * TILES];
        for k in [1, 3, 7, 49] {
            check(&pre, &[1.0; 50], None, k, true, PANEL);
        }
    }

    #[test]
    fn a_choice_among_some_latents_ignores_the_others_and_keeps_negative_values_if_asked() {
        let among: Vec<u32> = (0..60).filter(|j| j % 4 == 1).collect();
        for k in [1, 4, 6, 15, 40] {
            check(&coarse(60, 9, 3), &[1.0; 60], Some(&among), k, false, 33);
        }
    }

    #[test]
    fn nothing_positive_keeps_nothing_and_values_that_are_not_numbers_do_not_panic() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut pre = vec![Lanes([-1.0; LANES]); 40 * TILES];
            check(&pre, &[1.0; 40], None, 6, true, PANEL);
            pre[8] = Lanes([bad; LANES]);
            for k in [2, 6] {
                let (mut scratch, mut kept) = (TopScratch::default(), Entries::new(0));
                let select = SelectTop {
                    pre: &pre,
                    norm: &[1.0; 40],
                    among: None,
                    k,
                    relu: false,
                    live: PANEL,
                    scratch: &mut scratch,
                    kept: &mut kept,
                };
                simd::run(Isa::best(), select);
                assert!(kept.len() <= k * PANEL);
            }
        }
    }

    #[test]
    fn bars_keep_what_exceeds_them_in_ascending_order_of_latents() {
        let pre = coarse(33, 9, 5);
        let norm: Vec<f32> = (0..33).map(|j| [1.0, 0.5, 0.0][j % 3]).collect();
        let bars: Vec<f32> = (0..33).map(|j| j as f32 / 10.0 - 1.0).collect();
        for isa in Isa::available() {
            for bar in [0.0, 1.0, 2.5] {
                let (mut above, mut over) = (Entries::new(0), Entries::new(0));
                simd::run(isa, SelectAbove { pre: &pre, norm: &norm, bar, live: 18, kept: &mut above });
                simd::run(isa, SelectOver { pre: &pre, bar: &bars, live: 18, kept: &mut over });
                for s in 0..PANEL {
                    let x = |j: u32| flat(&pre)[j as usize * PANEL + s];
                    let of =
                        |keep: &dyn Fn(u32) -> bool| -> Vec<u32> { (0..33).filter(|&j| s < 18 && keep(j)).collect() };
                    assert_eq!(above.of(s).0, of(&|j| x(j) * norm[j as usize] > bar));
                    assert_eq!(over.of(s).0, of(&|j| x(j) > bars[j as usize]));
                }
            }
        }
    }

    #[test]
    fn positive_values_are_kept_in_ascending_order_of_latents() {
        let pre = coarse(33, 5, 4);
        for isa in Isa::available() {
            let mut kept = Entries::new(0);
            simd::run(isa, SelectPositive { pre: &pre, live: 18, kept: &mut kept });
            for s in 0..PANEL {
                let expected: Vec<u32> =
                    (0..33).filter(|&j| s < 18 && flat(&pre)[j as usize * PANEL + s] > 0.0).collect();
                assert_eq!(kept.of(s).0, expected);
            }
        }
    }
}
