//! The samples in which something fires, as tiles of their own.

use crate::backend::ops::layout::flat_mut;
use crate::backend::simd::{Kernel, Lanes, Simd};
use crate::data::events::Divide;
use crate::data::{Batch, Events};

/// Longest batch, samples times features, whose positions are divided in f32.
pub const SHORT: usize = 1 << 21;

/// Fills `packed` with the samples of `events` in order.
pub struct Pack<'a> {
    /// What fires.
    pub events: &'a mut Events,
    /// Overwritten.
    pub packed: &'a mut Batch,
}

impl Kernel for Pack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Pack { events, packed } = self;
        let (n, samples) = (events.n_features, events.samples);
        packed.lanes.clear();
        // There is an event for every sample that is packed.
        packed.lanes.resize(events.len().min(samples).div_ceil(16) * n, Lanes::default());
        let x = flat_mut(&mut packed.lanes);
        let count = if samples * n > SHORT { one_by_one(events, x) } else { by_sixteen::<S>(events, x) };
        packed.lanes.truncate(count.div_ceil(16) * n);
        (packed.n_features, packed.samples) = (n, count);
    }
}

/// Sample and feature, as f32, of sixteen positions in a batch that is [`SHORT`]; n and 1 / n in all lanes.
///
/// (position + 1/2) / n is at least 1/(2n) from a whole number; two roundings move it by at most 2^-23 of its size, which
/// is below the number of samples. So up to samples n = 2^21 truncation finds the sample, and all else is exact.
#[inline(always)]
pub fn divide<S: Simd>(position: S::U, n: S::F, inverse: S::F) -> (S::U, S::F) {
    let position = S::to_f32(position);
    let sample = S::to_u32(S::mul(S::add(position, S::splat(0.5)), inverse));
    (sample, S::sub(position, S::mul(S::to_f32(sample), n)))
}

/// Returns how many samples were packed. Whether a new sample begins is as good as random, so nothing branches on it.
#[inline(always)]
fn by_sixteen<S: Simd>(events: &mut Events, x: &mut [f32]) -> usize {
    let (len, n) = (events.len(), events.n_features as f32);
    let (width, inverse, tile) = (S::splat(n), S::splat(1.0 / n), S::splat(16.0 * n));
    let (positions, values) = events.padded();
    // Slot of the sample before, in every lane.
    let mut before = S::splat_u(u32::MAX);
    let (mut slots, mut places) = ([0; 16], [0; 16]);
    for (chunk, position) in positions.as_chunks::<16>().0.iter().enumerate() {
        let first = 16 * chunk;
        // Before the first event stands a position of no sample.
        let mut previous = [2 * SHORT as u32; 16];
        if first == 0 {
            previous[1..].copy_from_slice(&position[..15]);
        } else {
            previous.copy_from_slice(&positions[first - 1..][..16]);
        }
        let (sample, feature) = divide::<S>(S::load_u(position), width, inverse);
        let last = divide::<S>(S::load_u(&previous), width, inverse).0;
        let slot = S::add_u(before, S::prefix_sum(S::min_u(S::sub_u(sample, last), S::splat_u(1))));
        before = S::splat_last(slot);
        let of_tile = S::mul(S::to_f32(S::shift_right::<4>(slot)), tile);
        let place = S::to_u32(S::fma(feature, S::splat(16.0), of_tile));
        S::store_u(S::add_u(place, S::and(slot, S::splat_u(15))), &mut places);
        S::store_u(slot, &mut slots);
        for (&place, &value) in places.iter().zip(&values[first..]).take(len - first) {
            x[place as usize] = value;
        }
    }
    if len == 0 { 0 } else { slots[(len - 1) % 16] as usize + 1 }
}

/// The same for batches of any length.
fn one_by_one(events: &Events, x: &mut [f32]) -> usize {
    let divide = Divide::by(events.n_features as u32);
    let (mut count, mut previous) = (0, u32::MAX);
    for (&position, &value) in events.positions().iter().zip(events.values()) {
        let (sample, feature) = divide.apply(position);
        count += (sample != previous) as usize;
        previous = sample;
        x[((count - 1) / 16 * events.n_features + feature as usize) * 16 + (count - 1) % 16] = value;
    }
    count
}
