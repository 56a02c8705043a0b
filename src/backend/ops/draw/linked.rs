//! Linked worlds: copulas and hierarchies, drawn from the top down.
//!
//! ```text
//! for each tile of 32 samples:
//!     eps
//!     for each feature without a parent:  z for 32 samples;  those whose coins leave them in play become candidates
//!     decide candidates
//!     while some are newly on:  z of the children of those that are on become candidates;  decide;  one of each exclusive family
//!     entries in order
//! ```
//!
//! What costs a word and a quantile for each feature and sample in the definition costs eight coins here, drawn for sixteen features
//! and 32 samples at once and combined by seven ANDs, and a product with the factor. Lanes are samples in the product and
//! candidates, whoever's they are, in all that follows, so that tiny worlds fill their vectors too.

use super::skips::Sink;
use super::variate::{tail_size, variate};
use super::{Address, finish, words, words_of, words4};
use crate::backend::simd::{Lanes, Simd};
use crate::data::law::{Base, PIECE, Plan, QUANTILES, ROW_BLOCK, Scale, Tag};
use crate::data::linked::{Block, Linked};
use crate::random::{Key, philox};

/// ρ of the law after 8, 5 and 2 coins, and of none.
const TAILS: [f32; 4] = {
    const fn power(negative: u32) -> f32 {
        1.0 / (1u64 << negative) as f32
    }
    [power(39), power(36), power(33), NO_COINS]
};

/// r of a word that alone decides.
const NO_COINS: f32 = 1.0 / (1u64 << 32) as f32;

/// Between [`NO_COINS`] and the others.
const SOME_COINS: f32 = 0.75 / (1u64 << 32) as f32;

/// Up to 32 samples of one row block.
#[derive(Clone, Copy)]
struct Tile {
    key: Key,
    step: u32,
    block: u32,
    /// First sample, within the row block: a multiple of 32.
    first: usize,
    samples: usize,
}

impl Tile {
    #[inline(always)]
    fn address(self, high: u32) -> Address {
        Address { key: self.key, high, step: self.step, block: self.block }
    }
}

/// Features that are on: the value is not 0.
#[derive(Clone, Copy)]
struct Live {
    /// Within the tile.
    sample: u32,
    feature: u32,
    value: f32,
}

/// Features to decide, each for one sample, and what came of it. Vectors are longer than `len`.
#[derive(Default)]
struct Candidates {
    len: usize,
    feature: Vec<u32>,
    /// Within the tile.
    sample: Vec<u32>,
    z: Vec<f32>,
    /// ρ of the law.
    tail: Vec<f32>,
    /// Parent's value over its mean where children are scaled, else 1.
    scale: Vec<f32>,
    value: Vec<f32>,
    pick: Vec<u32>,
}

impl Candidates {
    /// Makes room for `more` and the rest of a vector.
    #[inline(always)]
    fn room(&mut self, more: usize) {
        if self.feature.len() < self.len + more + 16 {
            self.grow(more);
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let len = 2 * (self.len + more + 64);
        [&mut self.feature, &mut self.sample, &mut self.pick].into_iter().for_each(|v| v.resize(len, 0));
        [&mut self.z, &mut self.tail, &mut self.scale, &mut self.value].into_iter().for_each(|v| v.resize(len, 0.0));
    }

    /// Adds one, for which there is room.
    #[inline(always)]
    fn push(&mut self, feature: u32, sample: u32, z: f32, tail: f32, scale: f32) {
        let at = self.len;
        (self.feature[at], self.sample[at]) = (feature, sample);
        (self.z[at], self.tail[at], self.scale[at]) = (z, tail, scale);
        self.len += 1;
    }
}

/// Memory that tiles share.
#[derive(Default)]
struct Room {
    /// `[rank]`: eps_k of the 32 samples.
    eps: Vec<[Lanes; 2]>,
    /// `[32, stride]`: the same sample by sample, zeros past the rank.
    rows: Vec<Lanes>,
    /// `[32]`: the base variate that all features of a sample share.
    share: [f32; PIECE],
    open: Candidates,
    /// First candidate, number of members, whether exclusive.
    families: Vec<(usize, usize, bool)>,
    live: Vec<Live>,
    /// Feature and bits of the value, by sample.
    ordered: Vec<u64>,
}

/// Draws `samples` samples from sample `skip` of row block `first_block` on.
#[inline(always)]
pub(super) fn draw<S: Simd, K: Sink>(plan: &Plan, linked: &Linked, place: super::Place, sink: &mut K) {
    let mut room = Room::default();
    for offset in (0..place.samples).step_by(PIECE) {
        let at = place.skip + offset;
        let tile = Tile {
            key: place.key,
            step: place.step,
            block: place.first_block + (at / ROW_BLOCK) as u32,
            first: at % ROW_BLOCK,
            samples: (place.samples - offset).min(PIECE),
        };
        room.live.clear();
        share::<S>(plan, tile, &mut room);
        factor::<S>(linked, tile, &mut room);
        screen::<S>(linked, tile, &room.eps, &mut room.open);
        decide::<S>(plan, linked, tile, &room.share, &mut room.open);
        for at in 0..room.open.len {
            append(&room.open, at, &mut room.live);
        }
        choose_at_the_top(linked, tile, &mut room.live);
        descend::<S>(plan, linked, tile, &mut room);
        hand_on(&mut room, tile.samples, offset, sink);
    }
}

/// One base variate a sample, where all its features share it.
#[inline(always)]
fn share<S: Simd>(plan: &Plan, tile: Tile, room: &mut Room) {
    if plan.shared {
        let words = words::<S>(tile.address(Tag::Share.with(0)), tile.first as u32 / 4);
        for (words, to) in words.into_iter().zip(room.share.as_chunks_mut::<16>().0) {
            S::store_to(variate::<S>(plan.base, words, &Scale::FULL), to);
        }
    }
}

/// eps, by k and by sample.
#[inline(always)]
fn factor<S: Simd>(linked: &Linked, tile: Tile, room: &mut Room) {
    room.eps.resize(linked.rank, [Lanes::default(); 2]);
    for (k, eps) in room.eps.iter_mut().enumerate() {
        let words = words::<S>(tile.address(Tag::Factor.with(k)), tile.first as u32 / 4);
        for (words, to) in words.into_iter().zip(eps) {
            S::store(variate::<S>(Base::Normal, words, &Scale::FULL), to);
        }
    }
    if !linked.families.is_empty() {
        room.rows.resize(PIECE * linked.stride, Lanes::default());
        for (k, eps) in room.eps.iter().enumerate() {
            for s in 0..PIECE {
                room.rows[s * linked.stride + k / 16].0[k % 16] = eps[s / 16].0[s % 16];
            }
        }
    }
}

/// The features without a parent that z and coins leave in play.
#[inline(always)]
fn screen<S: Simd>(linked: &Linked, tile: Tile, eps: &[[Lanes; 2]], open: &mut Candidates) {
    open.len = 0;
    let mut z = [[Lanes::default(); 2]; 16];
    for (at, block) in linked.blocks.iter().enumerate() {
        let start = sixteen(&linked.threshold, 16 * block.index as usize);
        let panel = &linked.panels[at * linked.rank..][..linked.rank];
        // Sums stay in registers: sixteen vectors, or four of two registers each.
        if S::ACCUMULATORS < 24 {
            for lane in (0..16).step_by(2) {
                columns::<S, 2>(start, lane, panel, eps, &mut z);
            }
        } else {
            for lane in (0..16).step_by(8) {
                columns::<S, 8>(start, lane, panel, eps, &mut z);
            }
        }
        if linked.sure {
            take_sure::<S>(tile, *block, &z, open);
        } else {
            take::<S>(tile, *block, &coins::<S>(tile, block.index), &z, open);
        }
    }
}

/// z of features `lane .. lane + N` of a block.
#[inline(always)]
fn columns<S: Simd, const N: usize>(
    threshold: &[f32; 16],
    lane: usize,
    panel: &[Lanes],
    eps: &[[Lanes; 2]],
    z: &mut [[Lanes; 2]; 16],
) {
    let mut sum = [[S::splat(0.0); 2]; N];
    for (sum, &t) in sum.iter_mut().zip(&threshold[lane..lane + N]) {
        *sum = [S::splat(-t); 2];
    }
    for (f, eps) in panel.iter().zip(eps) {
        let (e0, e1) = (S::load(&eps[0]), S::load(&eps[1]));
        for (sum, &f) in sum.iter_mut().zip(&f.0[lane..lane + N]) {
            let f = S::splat(f);
            *sum = [S::fma(f, e0, sum[0]), S::fma(f, e1, sum[1])];
        }
    }
    // Nothing but stores here: a longer body would keep the sums in memory through the loop above.
    for (sum, z) in sum.iter().zip(&mut z[lane..lane + N]) {
        S::store(sum[0], &mut z[0]);
        S::store(sum[1], &mut z[1]);
    }
}

/// Bit s is set where z of sample s is above `least`.
#[inline(always)]
fn above<S: Simd>(z: &[Lanes; 2], least: f32) -> u32 {
    let least = S::splat(least);
    let low = S::positive_bits(S::sub(S::load(&z[0]), least));
    let high = S::positive_bits(S::sub(S::load(&z[1]), least));
    low | high << 16
}

/// Candidates of a block whose features have something of their own.
#[inline(always)]
fn take<S: Simd>(tile: Tile, block: Block, heads: &[[u32; 16]; 3], z: &[[Lanes; 2]; 16], open: &mut Candidates) {
    let wanted = ((1u64 << tile.samples) - 1) as u32;
    for l in 0..16 {
        if block.free >> l & 1 == 0 {
            continue;
        }
        let levels =
            [above::<S>(&z[l], QUANTILES[0]), above::<S>(&z[l], QUANTILES[1]), above::<S>(&z[l], QUANTILES[2])];
        let left = levels[0] | levels[1] & heads[0][l] | levels[2] & heads[1][l] | heads[2][l];
        if left & wanted != 0 {
            add(16 * block.index + l as u32, left & wanted, levels, &z[l], open);
        }
    }
}

/// Candidates of a block where z decides.
#[inline(always)]
fn take_sure<S: Simd>(tile: Tile, block: Block, z: &[[Lanes; 2]; 16], open: &mut Candidates) {
    let wanted = ((1u64 << tile.samples) - 1) as u32;
    for (l, z) in z.iter().enumerate() {
        let left = above::<S>(z, 0.0) & wanted;
        if block.free >> l & 1 == 1 && left != 0 {
            add(16 * block.index + l as u32, left, [0; 3], z, open);
        }
    }
}

/// One feature's candidates: the samples whose bits are set.
#[inline(always)]
fn add(feature: u32, mut left: u32, levels: [u32; 3], z: &[Lanes; 2], open: &mut Candidates) {
    open.room(PIECE);
    while left != 0 {
        let s = left.trailing_zeros() as usize;
        left &= left - 1;
        let level = (levels[0] >> s & 1) + (levels[1] >> s & 1) + (levels[2] >> s & 1);
        open.push(feature, s as u32, z[s / 16].0[s % 16], TAILS[level as usize], 1.0);
    }
}

/// Where two, five and eight coins all show heads: a word of 32 samples for each of sixteen features.
#[inline(always)]
fn coins<S: Simd>(tile: Tile, block: u32) -> [[u32; 16]; 3] {
    let at = tile.address(Tag::Heads.with(block as usize));
    let [a, b, c, d] = words4::<S>(at, tile.first as u32);
    let [e, f, g, h] = words4::<S>(at, tile.first as u32 + 16);
    let two = S::and(a, b);
    let five = S::and(S::and(two, c), S::and(d, e));
    let eight = S::and(S::and(five, f), S::and(g, h));
    let mut out = [[0; 16]; 3];
    for (words, to) in [two, five, eight].into_iter().zip(&mut out) {
        S::store_u(words, to);
    }
    out
}

/// Value of each candidate, 0 where it does not fire, and the word that its family may be decided by.
#[inline(always)]
fn decide<S: Simd>(plan: &Plan, linked: &Linked, tile: Tile, share: &[f32; PIECE], c: &mut Candidates) {
    c.room(0);
    for at in c.len..c.len.next_multiple_of(16) {
        (c.feature[at], c.sample[at], c.z[at], c.tail[at], c.scale[at]) = (0, 0, f32::NEG_INFINITY, NO_COINS, 1.0);
    }
    for at in (0..c.len).step_by(16) {
        let (features, samples) = (sixteen(&c.feature, at), sixteen(&c.sample, at));
        let c0 = S::add_u(S::load_u(samples), S::splat_u(tile.first as u32));
        let c1 = S::add_u(S::load_u(features), S::splat_u(Tag::Fire.with(0)));
        let [fire, k, pick, _] = words_of::<S>(tile.key, c0, c1, tile.step, tile.block);
        let mut above = S::load_from(sixteen(&c.z, at));
        if !linked.sure {
            above = S::sub(above, bar::<S>(fire, S::load_from(sixteen(&c.tail, at))));
        }
        let base = if plan.shared {
            let mut bases = [0.0; 16];
            (0..16).for_each(|l| bases[l] = share[samples[l] as usize]);
            S::load_from(&bases)
        } else {
            variate::<S>(plan.base, k, &Scale::FULL)
        };
        let (slope, offset) = match plan.common {
            Some((slope, offset)) => (S::splat(slope), S::splat(offset)),
            None => {
                let (mut slopes, mut offsets) = ([0.0; 16], [0.0; 16]);
                for l in 0..16 {
                    let i = features[l] as usize;
                    (slopes[l], offsets[l]) = (plan.slope[i], plan.offset[i]);
                }
                (S::load_from(&slopes), S::load_from(&offsets))
            }
        };
        let value = finish::<S>(plan.clip, base, slope, offset);
        let value = S::mul(value, S::load_from(sixteen(&c.scale, at)));
        S::store_to(S::where_positive(above, value), sixteen_mut(&mut c.value, at));
        S::store_u(pick, sixteen_mut(&mut c.pick, at));
    }
}

/// What z must exceed.
#[inline(always)]
fn bar<S: Simd>(word: S::U, tail: S::F) -> S::F {
    let coins = S::sub(S::splat(SOME_COINS), tail);
    let nearer = S::min_u(word, S::sub_u(S::splat_u(u32::MAX), word));
    let m = S::select_positive(coins, S::to_f32(S::shift_right::<1>(word)), S::to_f32(nearer));
    let size = tail_size::<S>(S::fma(m, tail, S::mul(tail, S::splat(0.5))));
    let below = S::sub(S::splat(0.0), size);
    let either = S::sub(size, S::where_at_most_u(word, nearer, S::add(size, size)));
    S::select_positive(coins, below, either)
}

#[inline(always)]
fn sixteen<T>(x: &[T], at: usize) -> &[T; 16] {
    x[at..at + 16].try_into().expect("sixteen of them")
}

#[inline(always)]
fn sixteen_mut<T>(x: &mut [T], at: usize) -> &mut [T; 16] {
    (&mut x[at..at + 16]).try_into().expect("sixteen of them")
}

#[inline(always)]
fn append(from: &Candidates, at: usize, live: &mut Vec<Live>) {
    if from.value[at] != 0.0 {
        live.push(Live { sample: from.sample[at], feature: from.feature[at], value: from.value[at] });
    }
}

/// Leaves one of each exclusive family that has no parent. Such families are rare: roots without a feature.
fn choose_at_the_top(linked: &Linked, tile: Tile, live: &mut Vec<Live>) {
    if linked.top.is_empty() {
        return;
    }
    // Family, sample, order in the family, place in `live`.
    let mut of_families: Vec<(u32, u32, u32, usize)> = vec![];
    for (at, entry) in live.iter().enumerate() {
        let (family, order) = linked.top_place[entry.feature as usize];
        if family != u32::MAX {
            of_families.push((family, entry.sample, order, at));
        }
    }
    of_families.sort_unstable();
    let mut lost = vec![];
    for on in of_families.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (family, sample, ..) = on[0];
        let counter =
            [tile.first as u32 + sample, Tag::Fire.with(linked.top[family as usize] as usize), tile.step, tile.block];
        let keep = picked(philox(counter, tile.key)[2], on.len());
        lost.extend(on.iter().enumerate().filter(|(k, _)| *k != keep).map(|(_, on)| on.3));
    }
    lost.into_iter().for_each(|at| live[at].value = 0.0);
    live.retain(|entry| entry.value != 0.0);
}

/// Which of `count` a word names.
#[inline(always)]
fn picked(word: u32, count: usize) -> usize {
    ((word as u64 * count as u64) >> 32) as usize
}

/// Children of what is on, level by level.
#[inline(always)]
fn descend<S: Simd>(plan: &Plan, linked: &Linked, tile: Tile, room: &mut Room) {
    if linked.families.is_empty() {
        return;
    }
    let mut from = 0;
    while from < room.live.len() {
        let level = from..room.live.len();
        from = level.end;
        room.open.len = 0;
        room.families.clear();
        for at in level {
            let Live { sample, feature, value } = room.live[at];
            let (start, end) = (linked.starts[feature as usize], linked.starts[feature as usize + 1]);
            let eps = &room.rows[sample as usize * linked.stride..][..linked.stride];
            for family in &linked.families[start as usize..end as usize] {
                let scale = if family.scale { value / linked.mean[feature as usize] } else { 1.0 };
                let len = family.len as usize;
                room.families.push((room.open.len, len, family.exclusive));
                room.open.room(len);
                for &child in &linked.members[family.first as usize..][..len] {
                    let z = folded::<S>(linked, child, eps) - linked.threshold[child as usize];
                    room.open.push(child, sample, z, NO_COINS, scale);
                }
            }
        }
        decide::<S>(plan, linked, tile, &room.share, &mut room.open);
        for &(first, len, exclusive) in &room.families {
            let members = first..first + len;
            if !exclusive {
                members.for_each(|at| append(&room.open, at, &mut room.live));
                continue;
            }
            let on = room.open.value[members.clone()].iter().filter(|value| **value != 0.0).count();
            if on > 0 {
                let keep = picked(room.open.pick[first], on);
                let kept = members.filter(|&at| room.open.value[at] != 0.0).nth(keep);
                append(&room.open, kept.expect("a pick below the count"), &mut room.live);
            }
        }
    }
}

/// F'_i · eps in sixteen sums.
#[inline(always)]
fn folded<S: Simd>(linked: &Linked, feature: u32, eps: &[Lanes]) -> f32 {
    let row = &linked.factor[feature as usize * linked.stride..][..linked.stride];
    let mut sum = S::splat(0.0);
    for (f, e) in row.iter().zip(eps) {
        sum = S::fma(S::load(f), S::load(e), sum);
    }
    S::fold(sum)
}

/// What is on, sample by sample, features ascending.
#[inline(always)]
fn hand_on<K: Sink>(room: &mut Room, samples: usize, offset: usize, sink: &mut K) {
    let mut ends = [0usize; PIECE];
    for entry in &room.live {
        ends[entry.sample as usize] += 1;
    }
    let mut sum = 0;
    for end in &mut ends {
        (*end, sum) = (sum, sum + *end);
    }
    room.ordered.resize(room.live.len(), 0);
    for entry in &room.live {
        let at = &mut ends[entry.sample as usize];
        room.ordered[*at] = (entry.feature as u64) << 32 | entry.value.to_bits() as u64;
        *at += 1;
    }
    let mut start = 0;
    for (s, &end) in ends.iter().enumerate().take(samples) {
        let row = &mut room.ordered[start..end];
        row.sort_unstable();
        for entry in row {
            sink.put(offset + s, (*entry >> 32) as usize, f32::from_bits(*entry as u32));
        }
        start = end;
    }
}
