//! From tiles and loose entries to events in order.

use super::skips::Sink;
use crate::backend::simd::Lanes;
use crate::data::events::Events;

/// The entries of one row block's tiles, one column a feature of `features`, that are not zero.
#[inline(always)]
pub(super) fn take_tiles(features: &[u32], n: usize, base: u32, samples: usize, x: &[Lanes], events: &mut Events) {
    let columns = features.len();
    for sample in 0..samples {
        let tile = &x[sample / 16 * columns..][..columns];
        let (position, value) = events.room_for(columns);
        let (start, mut len) = (base + (sample * n) as u32, 0);
        for (lanes, &feature) in tile.iter().zip(features) {
            // Written in any case: a branch a coin would be mispredicted. `len` is at most the columns passed.
            position[len] = start + feature;
            value[len] = lanes.0[sample % 16];
            len += (value[len] != 0.0) as usize;
        }
        events.grow(len);
    }
}

/// What is not zero in a row block, in any order until sorted.
#[derive(Default)]
pub(super) struct Entries {
    pub list: Vec<Entry>,
    other: Vec<Entry>,
    ends: Vec<u32>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub sample: u32,
    pub feature: u32,
    pub value: f32,
}

impl Sink for Entries {
    #[inline(always)]
    fn put(&mut self, sample: usize, feature: usize, value: f32) {
        self.list.push(Entry { sample: sample as u32, feature: feature as u32, value });
    }
}

impl Entries {
    /// The entries of dense tiles, one column a feature of `features`, that are not zero.
    #[inline(always)]
    pub fn take_tiles(&mut self, features: &[u32], samples: usize, x: &[Lanes]) {
        let columns = features.len();
        self.list.resize(columns * samples, Entry::default());
        let mut len = 0;
        for sample in 0..samples {
            let tile = &x[sample / 16 * columns..][..columns];
            for (lanes, &feature) in tile.iter().zip(features) {
                let value = lanes.0[sample % 16];
                // Written in any case: a branch a coin would be mispredicted.
                self.list[len] = Entry { sample: sample as u32, feature, value };
                len += (value != 0.0) as usize;
            }
        }
        self.list.truncate(len);
    }

    /// By sample, then feature: two counting sorts, the last key first.
    pub fn sort(&mut self, n_features: usize, samples: usize) {
        let key = |e: &Entry| (e.sample, e.feature);
        if !self.list.is_sorted_by_key(key) {
            self.sort_by(n_features, |e| e.feature);
            self.sort_by(samples, |e| e.sample);
        }
    }

    fn sort_by(&mut self, keys: usize, key: impl Fn(&Entry) -> u32) {
        self.ends.clear();
        self.ends.resize(keys + 1, 0);
        for e in &self.list {
            self.ends[key(e) as usize + 1] += 1;
        }
        for k in 0..keys {
            self.ends[k + 1] += self.ends[k];
        }
        self.other.resize(self.list.len(), Entry::default());
        for e in &self.list {
            let at = &mut self.ends[key(e) as usize];
            self.other[*at as usize] = *e;
            *at += 1;
        }
        std::mem::swap(&mut self.list, &mut self.other);
    }
}
