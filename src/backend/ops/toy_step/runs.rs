//! Which events belong to which sample.
//!
//! Everything here goes sixteen at a time and without a branch that depends on x: how many features fire in a sample is
//! random, and a branch on it costs a misprediction a sample.

use crate::backend::simd::{Kernel, Simd};
use crate::data::Events;
use crate::data::events::Divide;

/// Samples in which this many features or more fire share one loop; each smaller number has its own.
pub const LONG: usize = 6;

/// The events of a batch by sample, and the samples by how many features fire in them.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// Feature of each event. This and all below have room for sixteen more.
    feature: Vec<u32>,
    /// Sample of each event, plus 1.
    sample: Vec<u32>,
    /// Sample r of those in which something fires has events `first[r] .. first[r + 1]`.
    first: Vec<u32>,
    count: usize,
    /// For each number of features below [`LONG`], the first events of its samples; the samples of the others.
    lists: [Vec<u32>; LONG + 1],
    filled: [usize; LONG + 1],
}

impl Runs {
    /// Feature of each event.
    pub fn features(&self) -> &[u32] {
        &self.feature
    }

    /// How many samples something fires in.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the events of each such sample begin, and, behind the last, where they end.
    pub fn first(&self) -> &[u32] {
        &self.first[..self.count + 1]
    }

    /// First events of the samples in which `fires` features fire, in order.
    pub fn of_length(&self, fires: usize) -> &[u32] {
        assert!(fires < LONG);
        &self.lists[fires][..self.filled[fires]]
    }

    /// Where in [`Runs::first`] the samples stand in which [`LONG`] features fire or more, in order.
    pub fn long(&self) -> &[u32] {
        &self.lists[LONG][..self.filled[LONG]]
    }
}

/// Fills `runs` for `events`.
pub struct FindRuns<'a> {
    /// What fires.
    pub events: &'a mut Events,
    /// Overwritten.
    pub runs: &'a mut Runs,
}

impl Kernel for FindRuns<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let FindRuns { events, runs } = self;
        split::<S>(events, runs);
        begin::<S>(events.len(), runs);
        sort::<S>(runs);
    }
}

/// Makes room for `len` and sixteen more.
fn room(of: &mut Vec<u32>, len: usize) {
    if of.len() < len + 16 {
        of.resize(len + 16, 0);
    }
}

/// Sixteen neighbours from `at`.
#[inline(always)]
fn sixteen(of: &[u32], at: usize) -> &[u32; 16] {
    of[at..].first_chunk().expect("room for sixteen more")
}

#[inline(always)]
fn sixteen_mut(of: &mut [u32], at: usize) -> &mut [u32; 16] {
    of[at..].first_chunk_mut().expect("room for sixteen more")
}

/// Position to sample and feature.
#[inline(always)]
fn split<S: Simd>(events: &mut Events, runs: &mut Runs) {
    let (len, n) = (events.len(), events.n_features);
    room(&mut runs.feature, len);
    room(&mut runs.sample, len);
    if events.samples * n > 1 << 21 {
        let divide = Divide::by(n as u32);
        for (e, &position) in events.positions().iter().enumerate() {
            let (sample, feature) = divide.apply(position);
            (runs.sample[e], runs.feature[e]) = (sample + 1, feature);
        }
        return;
    }
    // (position + 1/2) / n is at least 1/(2n) from a whole number; two roundings move it by at most 2^-23 of its size,
    // which is below `samples`. So up to samples n = 2^21 truncation finds the sample, and the rest is exact.
    let (inverse, n) = (S::splat(1.0 / n as f32), S::splat(n as f32));
    for (chunk, position) in events.padded_positions().iter().enumerate() {
        let position = S::to_f32(S::load_u(position));
        let sample = S::to_u32(S::mul(S::add(position, S::splat(0.5)), inverse));
        let feature = S::to_u32(S::sub(position, S::mul(S::to_f32(sample), n)));
        S::store_u(S::add_u(sample, S::splat_u(1)), sixteen_mut(&mut runs.sample, 16 * chunk));
        S::store_u(feature, sixteen_mut(&mut runs.feature, 16 * chunk));
    }
}

/// Where each sample's events begin.
#[inline(always)]
fn begin<S: Simd>(len: usize, runs: &mut Runs) {
    room(&mut runs.first, len + 1);
    let steps = S::prefix_sum(S::splat_u(1));
    let (mut count, mut before) = (0, [0; 16]);
    for at in (0..len).step_by(16) {
        if at > 0 {
            before = *sixteen(&runs.sample, at - 1);
        } else {
            before[1..].copy_from_slice(&runs.sample[..15]);
        }
        let same = S::at_most_bits(S::load_u(sixteen(&runs.sample, at)), S::load_u(&before));
        let inside = if len - at < 16 { (1 << (len - at)) - 1 } else { 0xFFFF };
        let begins = !same & inside;
        let event = S::add_u(steps, S::splat_u((at as u32).wrapping_sub(1)));
        S::compress(begins, event, sixteen_mut(&mut runs.first, count));
        count += begins.count_ones() as usize;
    }
    (runs.first[count], runs.count) = (len as u32, count);
}

/// Samples by their number of events.
#[inline(always)]
fn sort<S: Simd>(runs: &mut Runs) {
    let Runs { first, count, lists, filled, .. } = runs;
    let count = *count;
    room(first, count + 1);
    for list in lists.iter_mut() {
        room(list, count);
    }
    *filled = [0; LONG + 1];
    let steps = S::prefix_sum(S::splat_u(1));
    for at in (0..count).step_by(16) {
        let from = S::load_u(sixteen(first, at));
        let length = S::sub_u(S::load_u(sixteen(first, at + 1)), from);
        let inside = if count - at < 16 { (1 << (count - at)) - 1 } else { 0xFFFF };
        // No sample here has no event.
        let mut shorter = 0;
        for fires in 1..LONG {
            let bits = S::at_most_bits(length, S::splat_u(fires as u32)) & inside;
            S::compress(bits & !shorter, from, sixteen_mut(&mut lists[fires], filled[fires]));
            filled[fires] += (bits & !shorter).count_ones() as usize;
            shorter = bits;
        }
        let number = S::add_u(steps, S::splat_u((at as u32).wrapping_sub(1)));
        S::compress(inside & !shorter, number, sixteen_mut(&mut lists[LONG], filled[LONG]));
        filled[LONG] += (inside & !shorter).count_ones() as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::{Isa, run};
    use crate::random::{Draws, Stream};

    /// Samples of 0 to 9 events (more where all fire), found by plain loops and by every instruction set.
    #[test]
    fn runs_are_those_of_plain_loops() {
        // The last batch is too long for the division in f32.
        for (n, samples, p) in
            [(1, 40, 0.5), (20, 1000, 0.1), (17, 16, 1.0), (3, 33, 0.0), (400, 70, 0.01), (101, 21_000, 0.002)]
        {
            let mut draws = Draws::new(1, Stream::ToyInit, n as u64);
            let mut events = Events::default();
            events.clear(n, samples);
            let mut expected: Vec<Vec<(usize, u32)>> = vec![];
            for s in 0..samples {
                let fires: Vec<u32> = (0..n as u32).filter(|_| draws.uniform() < p).collect();
                if !fires.is_empty() {
                    expected.push(fires.iter().enumerate().map(|(k, &i)| (events.len() + k, i)).collect());
                }
                fires.iter().for_each(|i| events.push((s * n) as u32 + i, 1.0));
            }
            for isa in Isa::available() {
                let mut runs = Runs::default();
                // Rubbish of a longer batch must not show.
                let mut longer = Events::default();
                longer.clear(2, 5000);
                (0..10_000).for_each(|at| longer.push(at, 1.0));
                run(isa, FindRuns { events: &mut longer, runs: &mut runs });
                run(isa, FindRuns { events: &mut events, runs: &mut runs });
                assert_eq!(runs.count(), expected.len());
                let begins = expected.iter().map(|run| run[0].0 as u32).chain([events.len() as u32]);
                assert!(begins.eq(runs.first().iter().copied()), "{isa:?} {n} {samples}");
                assert!(expected.iter().flatten().all(|&(e, i)| runs.features()[e] == i), "{isa:?} {n} {samples}");
                for fires in 1..LONG {
                    let of_length = expected.iter().filter(|run| run.len() == fires).map(|run| run[0].0 as u32);
                    assert!(of_length.eq(runs.of_length(fires).iter().copied()), "{isa:?} {n} {fires}");
                }
                let long = (0..expected.len()).filter(|&r| expected[r].len() >= LONG).map(|r| r as u32);
                assert!(long.eq(runs.long().iter().copied()), "{isa:?} {n}");
            }
        }
    }
}
