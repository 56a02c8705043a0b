//! The k greatest of a few latents, for sixteen samples at once, as masks instead of lists.
//!
//! Where most of the latents to choose from are chosen, as dead latents are for the auxiliary loss (Gao et al. 2024,
//! section A.2), lists of them save little work and cost a branch an entry; with masks all that follows is dense. What is chosen is what
//! [`SelectTop`](super::select::SelectTop) chooses without `relu`.

use super::dense::masks;
use super::layout::TILES;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// The greatest k that is chosen from more latents: so many keys stay in registers.
pub const MOST: usize = 16;

/// Marks the k greatest pre_j norm_j of each sample of a panel, ties to the lower latent.
pub struct OpenTop<'a> {
    /// `[n_latents][TILES]`
    pub pre: &'a [Lanes],
    /// `[n_latents]`
    pub norm: &'a [f32],
    /// Latents to choose from, ascending.
    pub among: &'a [u32],
    /// How many: at most [`MOST`], or at least as many as there are.
    pub k: usize,
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// `[among][TILES]`: 1 where chosen, else 0.
    pub open: &'a mut [Lanes],
    /// `[among][TILES]`: pre where chosen, else 0.
    pub z: &'a mut [Lanes],
}

impl Kernel for OpenTop<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        assert!(self.open.len() == self.among.len() * TILES && self.z.len() == self.open.len());
        for v in 0..TILES {
            match self.k {
                k if k >= self.among.len() => self.mark::<S>(v, S::splat(f32::NEG_INFINITY)),
                0 => self.mark::<S>(v, S::splat(f32::INFINITY)),
                1..=4 => self.greatest::<S, 4>(v),
                5..=8 => self.greatest::<S, 8>(v),
                9..=12 => self.greatest::<S, 12>(v),
                13..=MOST => self.greatest::<S, MOST>(v),
                k => panic!("{k} of {} latents are too many to be kept in registers", self.among.len()),
            }
        }
        let live = masks(self.live);
        for ((open, z), latent) in
            self.open.as_chunks_mut::<TILES>().0.iter_mut().zip(self.z.as_chunks_mut::<TILES>().0).zip(self.among)
        {
            let pre = &self.pre[*latent as usize * TILES..][..TILES];
            for v in 0..TILES {
                let mark = S::mul(S::load(&open[v]), S::load(&live[v]));
                S::store(mark, &mut open[v]);
                S::store(S::where_positive(mark, S::load(&pre[v])), &mut z[v]);
            }
        }
    }
}

impl OpenTop<'_> {
    /// pre norm of a candidate, for the samples of vector `v`.
    #[inline(always)]
    fn key<S: Simd>(&self, candidate: usize, v: usize) -> S::F {
        let latent = self.among[candidate] as usize;
        S::mul(S::load(&self.pre[latent * TILES + v]), S::splat(self.norm[latent]))
    }

    /// The K >= k greatest keys so far stay in registers; the k-th of them is in the end the bar.
    #[inline(always)]
    fn greatest<S: Simd, const K: usize>(&mut self, v: usize) {
        let mut best = [S::splat(f32::NEG_INFINITY); K];
        for candidate in 0..self.among.len() {
            let mut key = self.key::<S>(candidate, v);
            for best in &mut best {
                let loser = S::min(key, *best);
                *best = S::max(key, *best);
                key = loser;
            }
        }
        // A loop, because an index would keep the registers in memory.
        let mut bar = best[0];
        for (at, best) in best.into_iter().enumerate() {
            if at + 1 == self.k {
                bar = best;
            }
        }
        self.mark::<S>(v, bar);
    }

    /// Marks what reaches the bar, and takes back ties at it beyond k.
    #[inline(always)]
    fn mark<S: Simd>(&mut self, v: usize, bar: S::F) {
        let mut count = S::splat(0.0);
        for candidate in 0..self.among.len() {
            let below = S::sub(bar, self.key::<S>(candidate, v));
            let mark = S::select_positive(below, S::splat(0.0), S::splat(1.0));
            count = S::add(count, mark);
            S::store(mark, &mut self.open[candidate * TILES + v]);
        }
        let spare = self.k.min(self.among.len()) as f32;
        if S::positive_bits(S::sub(count, S::splat(spare))) != 0 {
            let (mut lowest, mut counts) = (Lanes::default(), Lanes::default());
            S::store(bar, &mut lowest);
            S::store(count, &mut counts);
            for (lane, (bar, count)) in lowest.0.into_iter().zip(counts.0).enumerate() {
                self.take_back(v, lane, bar, count as usize - (count.min(spare)) as usize);
            }
        }
    }

    /// Of the candidates whose keys equal the bar, the last `many` are not chosen.
    #[cold]
    fn take_back(&mut self, v: usize, lane: usize, bar: f32, mut many: usize) {
        for candidate in (0..self.among.len()).rev() {
            if many == 0 {
                break;
            }
            let latent = self.among[candidate] as usize;
            let key = self.pre[latent * TILES + v].0[lane] * self.norm[latent];
            if key == bar {
                self.open[candidate * TILES + v].0[lane] = 0.0;
                many -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::entries::Entries;
    use crate::backend::ops::layout::{PANEL, flat, flat_mut};
    use crate::backend::ops::select::{SelectTop, TopScratch};
    use crate::backend::simd::{self, Isa};
    use crate::random::{Draws, Stream};

    /// Numbers on a grid, so that many keys tie.
    fn coarse(m: usize, levels: u32) -> Vec<Lanes> {
        let mut draws = Draws::new(6, Stream::SaeInit, levels as u64);
        let mut pre = vec![Lanes::default(); m * TILES];
        flat_mut(&mut pre).iter_mut().for_each(|x| *x = draws.below(levels) as f32 - (levels / 3) as f32);
        pre
    }

    #[test]
    fn masks_and_lists_choose_the_same_latents() {
        let m = 60;
        let norm: Vec<f32> = (0..m).map(|j| [1.0, 0.5, 2.0][j % 3]).collect();
        for (levels, live) in [(7, PANEL), (1000, 33), (2, 1)] {
            let pre = coarse(m, levels);
            for n in [1, 2, 15, 16, 17, 40] {
                let among: Vec<u32> = (0..n).map(|i| (i * m / n) as u32).collect();
                for k in [0, 1, 3, 4, 5, 8, 9, 12, 13, 16, n, n + 3] {
                    if k > MOST && k < n {
                        continue;
                    }
                    for isa in Isa::available() {
                        let (mut kept, mut scratch) = (Entries::new(0), TopScratch::default());
                        let (norm, among) = (&norm[..], &among[..]);
                        let (some, pre) = (Some(among), &pre[..]);
                        simd::run(
                            isa,
                            SelectTop {
                                pre,
                                norm,
                                among: some,
                                k,
                                relu: false,
                                live,
                                scratch: &mut scratch,
                                kept: &mut kept,
                            },
                        );
                        let mut open = vec![Lanes([7.0; 16]); n * TILES];
                        let mut z = open.clone();
                        simd::run(isa, OpenTop { pre, norm, among, k, live, open: &mut open, z: &mut z });
                        for s in 0..PANEL {
                            let chosen: Vec<u32> =
                                (0..n).filter(|i| flat(&open)[i * PANEL + s] == 1.0).map(|i| among[i]).collect();
                            let mut expected = kept.of(s).0.to_vec();
                            expected.sort_unstable();
                            assert_eq!(chosen, expected, "{isa:?}, {k} of {n}, {levels} levels, sample {s}");
                            for (i, latent) in among.iter().enumerate() {
                                let value =
                                    if chosen.contains(latent) { flat(pre)[*latent as usize * PANEL + s] } else { 0.0 };
                                assert_eq!(flat(&z)[i * PANEL + s], value);
                            }
                        }
                    }
                }
            }
        }
    }
}
