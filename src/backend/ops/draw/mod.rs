//! Drawing x: the vector code of the [data law](crate::data::law).
//!
//! ```text
//! for each row block:
//!     if magnitudes are shared:  share[sample] = variate(word of the sample)
//!     for each feature with a coin, for each tile:      x = finish(variate(word)) where word < T, else 0
//!     for each group with a coin: the same with the group's coin and the members' own words
//!     for each class of skips, sixteen events at a time: gaps, a running sum, magnitudes; x[position] = magnitude
//!     for each group with skips: the same, then the members' words one event at a time
//! ```
//!
//! [`mod@reference`] is the same in scalar code, one sample and feature after the other, and is what this is held to.
//! Departures: coins go four tiles at a time (two Philox chains side by side), over tiles before features, so stores stay
//! near; a class whose magnitudes do not depend on the feature finishes them sixteen at a time, others one at a time;
//! events go straight to where they are wanted (`Receive`), never through a list that is read again.

mod coins;
mod entries;
mod linked;
mod linked_reference;
mod philox;
pub mod reference;
mod skips;
pub mod variate;

pub use philox::{Address, words, words_of, words4};

use coins::{CoinColumns, coin_groups, coins};
use entries::{Entries, take_tiles};
use skips::{ClassEvents, Direct, GroupEvents, Sink, skips};

use crate::backend::simd::{Kernel, Lanes, Simd};
use crate::data::events::Events;
use crate::data::law::{Clip, GroupDraw, Plan, ROW_BLOCK, Scale, Tag};
use crate::random::Key;

/// Which samples of which stream.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Seed and stream.
    pub key: Key,
    /// Step.
    pub step: u32,
    /// Row block of the first sample.
    pub first_block: u32,
    /// Samples of that row block before the first: a multiple of [`PIECE`](crate::data::law::PIECE) in linked worlds, 0 in
    /// all others.
    pub skip: usize,
    /// How many samples.
    pub samples: usize,
}

impl Place {
    /// Each row block with its samples here.
    #[inline(always)]
    fn blocks(self) -> impl Iterator<Item = (usize, Block)> {
        (0..self.samples.div_ceil(ROW_BLOCK)).map(move |b| {
            let samples = (self.samples - b * ROW_BLOCK).min(ROW_BLOCK);
            (b, Block { key: self.key, step: self.step, block: self.first_block + b as u32, samples })
        })
    }
}

/// Samples 0 .. `samples` of one row block.
#[derive(Clone, Copy)]
struct Block {
    key: Key,
    step: u32,
    block: u32,
    samples: usize,
}

impl Block {
    #[inline(always)]
    fn address(self, high: u32) -> Address {
        Address { key: self.key, high, step: self.step, block: self.block }
    }
}

/// A batch as dense tiles `[⌈samples / 16⌉, n_features]`; every lane is written.
pub struct DrawDense<'a> {
    /// The world.
    pub plan: &'a Plan,
    /// Which samples.
    pub place: Place,
    /// Where they go.
    pub x: &'a mut [Lanes],
}

impl Kernel for DrawDense<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (plan, n) = (self.plan, self.plan.n_features);
        assert_eq!(self.x.len(), self.place.samples.div_ceil(16) * n);
        if let Some(linked) = &plan.linked {
            self.x.fill(Lanes::default());
            return linked::draw::<S, _>(plan, linked, self.place, &mut Tiles { n, x: self.x });
        }
        let mut share = shared_magnitudes(plan);
        for (b, block) in self.place.blocks() {
            let x = &mut self.x[ROW_BLOCK / 16 * b * n..][..block.samples.div_ceil(16) * n];
            if plan.coin_features.len() < n {
                x.fill(Lanes::default());
            }
            draw_share::<S>(plan, block, &mut share);
            let columns = CoinColumns { compact: false, stride: n };
            coins::<S>(plan, block, &share, columns, x);
            coin_groups::<S>(plan, block, &share, columns, x);
            clear_past_end(plan.coin_features.iter().map(|&i| i as usize), block.samples, n, x);
            rare::<S, Tiles>(plan, block, &share, &mut Tiles { n, x });
        }
    }
}

/// A batch as [`Events`], cleared before.
pub struct DrawEvents<'a> {
    /// The world.
    pub plan: &'a Plan,
    /// Which samples.
    pub place: Place,
    /// Where they go.
    pub events: &'a mut Events,
}

impl Kernel for DrawEvents<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (plan, n, events) = (self.plan, self.plan.n_features, self.events);
        if let Some(linked) = &plan.linked {
            return linked::draw::<S, _>(plan, linked, self.place, &mut InOrder { n, events });
        }
        let mut share = shared_magnitudes(plan);
        if plan.one_class() {
            let class = &plan.classes[0];
            for (b, block) in self.place.blocks() {
                draw_share::<S>(plan, block, &mut share);
                let base = (b * ROW_BLOCK * n) as u32;
                skips::<S, _>(plan, block, class, n, &mut Direct::new(plan, &share, base, events));
            }
        } else {
            let mut entries = Entries::default();
            let mut x = vec![Lanes::default(); ROW_BLOCK / 16 * plan.coin_features.len()];
            for (b, block) in self.place.blocks() {
                draw_share::<S>(plan, block, &mut share);
                let columns = CoinColumns { compact: true, stride: plan.coin_features.len() };
                coins::<S>(plan, block, &share, columns, &mut x);
                coin_groups::<S>(plan, block, &share, columns, &mut x);
                let base = (b * ROW_BLOCK * n) as u32;
                if plan.only_coins() {
                    take_tiles(&plan.coin_features, n, base, block.samples, &x, events);
                    continue;
                }
                entries.list.clear();
                entries.take_tiles(&plan.coin_features, block.samples, &x);
                rare::<S, Entries>(plan, block, &share, &mut entries);
                entries.sort(n, block.samples);
                for entry in &entries.list {
                    events.push(base + entry.sample * n as u32 + entry.feature, entry.value);
                }
            }
        }
        if plan.zeros {
            events.drop_zeros();
        }
    }
}

/// Room for [`draw_share`]: none where no magnitude is shared, for clearing it would be felt in a small batch.
fn shared_magnitudes(plan: &Plan) -> Vec<Lanes> {
    vec![Lanes::default(); if plan.shared { ROW_BLOCK / 16 } else { 0 }]
}

/// One base variate a sample, where all its features share it.
#[inline(always)]
fn draw_share<S: Simd>(plan: &Plan, block: Block, share: &mut [Lanes]) {
    if plan.shared {
        for (pair, to) in share[..block.samples.div_ceil(16).next_multiple_of(2)].chunks_exact_mut(2).enumerate() {
            let words = words::<S>(block.address(Tag::Share.with(0)), 8 * pair as u32);
            for t in 0..2 {
                S::store(variate::variate::<S>(plan.base, words[t], &Scale::FULL), &mut to[t]);
            }
        }
    }
}

/// All that skips decide.
#[inline(always)]
fn rare<S: Simd, K: Sink>(plan: &Plan, block: Block, share: &[Lanes], sink: &mut K) {
    for class in &plan.classes {
        skips::<S, _>(plan, block, class, class.features.len(), &mut ClassEvents::new(plan, class, share, sink));
    }
    for group in &plan.groups {
        if let GroupDraw::Skip(class) = &group.draw {
            skips::<S, _>(plan, block, class, 1, &mut GroupEvents { plan, block, group, share, sink });
        }
    }
}

/// slope * base + offset and the clip: the last step of every magnitude.
#[inline(always)]
fn finish<S: Simd>(clip: Clip, base: S::F, slope: S::F, offset: S::F) -> S::F {
    let y = S::fma(base, slope, offset);
    match clip {
        Clip::None => y,
        Clip::Positive => S::where_positive(y, y),
        Clip::Absolute => S::abs(y),
    }
}

/// The same for one number and feature.
#[inline(always)]
fn finish_one(plan: &Plan, base: f32, feature: usize) -> f32 {
    plan.clip.apply(base.mul_add(plan.slope[feature], plan.offset[feature]))
}

/// Zeroes the lanes past the last sample in the last tile.
#[inline(always)]
fn clear_past_end(columns: impl Iterator<Item = usize>, samples: usize, stride: usize, x: &mut [Lanes]) {
    if !samples.is_multiple_of(16) {
        for column in columns {
            x[samples / 16 * stride + column].0[samples % 16..].fill(0.0);
        }
    }
}

/// Events go to dense tiles.
struct Tiles<'a> {
    n: usize,
    x: &'a mut [Lanes],
}

impl Sink for Tiles<'_> {
    #[inline(always)]
    fn put(&mut self, sample: usize, feature: usize, value: f32) {
        self.x[sample / 16 * self.n + feature].0[sample % 16] = value;
    }
}

/// Entries that come in order are events.
struct InOrder<'a> {
    n: usize,
    events: &'a mut Events,
}

impl Sink for InOrder<'_> {
    #[inline(always)]
    fn put(&mut self, sample: usize, feature: usize, value: f32) {
        self.events.push((sample * self.n + feature) as u32, value);
    }
}

#[cfg(test)]
mod linked_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::{Isa, run};
    use crate::data::law::Base;
    use crate::data::{Batch, Group, GroupRule, Magnitude, MagnitudeSharing, Sampler, World};
    use crate::random::{Stream, philox};
    use std::sync::Arc;

    const UNIT: Magnitude = Magnitude::Uniform { low: 0.0, high: 1.0 };
    const SAMPLES: [usize; 9] = [0, 1, 15, 16, 17, 48, 1023, 1024, 1025];

    fn world(firing_probability: Vec<f64>, magnitude: Magnitude) -> World {
        World {
            n_features: firing_probability.len(),
            firing_probability,
            magnitude,
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        }
    }

    fn bits(x: impl IntoIterator<Item = f32>) -> Vec<u32> {
        x.into_iter().map(f32::to_bits).collect()
    }

    /// Dense tiles and events of every instruction set against the plain loops, first piece and a later one.
    fn hold_to_reference(world: &World, samples: &[usize]) {
        let n = world.n_features;
        for (seed, step, first) in [(3, 0, 0), (1 << 40, 77, 2048)] {
            let most = *samples.iter().max().unwrap();
            let expected = reference::draw(world, Key::new(seed, Stream::Train), step, first, most);
            for isa in Isa::available() {
                let sampler = Sampler::new(Arc::new(world.clone()), seed, Stream::Train).on(isa);
                // Rubbish from the batch before must not shine through.
                let mut batch = Batch { n_features: n, samples: 32, lanes: vec![Lanes([7.0; 16]); 2 * n] };
                let mut events = Events::default();
                for &samples in samples {
                    sampler.draw_range(step, first, samples, &mut batch);
                    sampler.draw_events_range(step, first, samples, &mut events);
                    let got = (0..samples).flat_map(|s| (0..n).map(move |i| (s, i))).map(|(s, i)| batch.value(s, i));
                    let place = format!("{isa:?}, {samples} samples of {world:?}");
                    assert_eq!(bits(got), bits(expected[..samples * n].iter().copied()), "{place}");
                    assert!((samples * n..batch.lanes.len() * 16).len() < 16 * n + 1);
                    for (s, i) in (samples..samples.next_multiple_of(16)).flat_map(|s| (0..n).map(move |i| (s, i))) {
                        assert_eq!(batch.value(s, i), 0.0, "past the end, {place}");
                    }
                    let fires = (0..samples * n).filter(|&at| expected[at] != 0.0);
                    assert!(fires.clone().map(|at| at as u32).eq(events.positions().iter().copied()), "{place}");
                    assert_eq!(bits(fires.map(|at| expected[at])), bits(events.values().iter().copied()), "{place}");
                    let mut dense = Batch::default();
                    events.to_dense(&mut dense);
                    assert_eq!(dense, batch, "{place}");
                }
            }
        }
    }

    #[test]
    fn vector_code_equals_the_plain_loops_bit_for_bit() {
        for n in [1, 2, 5, 17, 40] {
            for p in [0.0, 1e-4, 0.05, 0.12, 0.120_000_1, 0.5, 1.0] {
                hold_to_reference(&world(vec![p; n], UNIT), &SAMPLES);
            }
            let mixed = |i: usize| [0.05, 0.5, 0.05, 1e-9, 0.0, 0.11, 1.0, 0.05, 0.3, 0.11][i * 7 % 10];
            hold_to_reference(&world((0..n).map(mixed).collect(), UNIT), &SAMPLES);
            hold_to_reference(&world((0..n).map(|i| 0.3 / (i + 1) as f64).collect(), UNIT), &SAMPLES);
        }
    }

    fn magnitudes(n: usize) -> Vec<Magnitude> {
        let each = |from: f64, by: f64| (0..n).map(|i| from + by * i as f64).collect::<Vec<f64>>();
        vec![
            UNIT,
            Magnitude::Uniform { low: 0.3, high: 2.1 },
            Magnitude::Constant(each(0.0, 0.25)),
            Magnitude::Normal { mean: each(-0.5, 0.2), std: each(0.5, 0.1) },
            Magnitude::FoldedNormal { mean: vec![0.0; n], std: vec![1.0; n] },
            Magnitude::Exponential { mean: each(0.5, 0.5) },
            Magnitude::Symmetric(1.5),
        ]
    }

    #[test]
    fn every_magnitude_law_equals_the_plain_loops_with_and_without_sharing() {
        for magnitude in magnitudes(17) {
            for p in [vec![0.05; 17], vec![0.4; 17], (0..17).map(|i| 0.02 * i as f64).collect()] {
                for magnitude_sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                    let world = World { magnitude_sharing, ..world(p.clone(), magnitude.clone()) };
                    hold_to_reference(&world, &[0, 1, 33, 1025]);
                }
            }
        }
    }

    #[test]
    fn groups_equal_the_plain_loops_under_every_law() {
        use GroupRule::{Exclusive, Together};
        for magnitude in magnitudes(11) {
            for (a, b, c) in [(0.5, 0.7, 1.0), (0.03, 0.1, 0.4), (0.0, 0.05, 0.12), (0.3, 0.01, 0.0)] {
                for magnitude_sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                    let group = |rule, members: &[usize], firing_probability| Group {
                        rule,
                        members: members.to_vec(),
                        firing_probability,
                    };
                    let groups = vec![
                        group(Together, &[0, 3], a),
                        group(Exclusive, &[1, 4, 9], b),
                        group(Together, &[5], c),
                        group(Exclusive, &[], 0.5),
                    ];
                    let p = vec![0.2, 0.2, 0.06, 0.2, 0.2, 0.2, 0.5, 0.06, 0.0, 0.9, 1.0];
                    let world = World { magnitude_sharing, groups, ..world(p, magnitude.clone()) };
                    hold_to_reference(&world, &[0, 1, 33, 1025]);
                }
            }
        }
    }

    struct Words(Address, u32);

    impl Kernel for Words {
        type Out = [[u32; 16]; 6];
        #[inline(always)]
        fn run<S: Simd>(self) -> Self::Out {
            let (two, four) = (words::<S>(self.0, self.1), words4::<S>(self.0, self.1));
            let mut out = [[0; 16]; 6];
            for (words, to) in two.into_iter().chain(four).zip(&mut out) {
                S::store_u(words, to);
            }
            out
        }
    }

    /// Random123, `tests/kat_vectors`, philox4x32 10; then every lane against the plain form.
    #[test]
    fn vector_philox_gives_the_published_vectors_in_the_lanes_of_the_law() {
        let published = [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1];
        let key = Key([0xa4093822, 0x299f31d0]);
        let at = Address { key, high: 0x85a308d3, step: 0x13198a2e, block: 0x03707344 };
        let zero = Address { key: Key([0; 2]), high: 0, step: 0, block: 0 };
        for isa in Isa::available() {
            let out = run(isa, Words(at, 0x243f6a88));
            assert_eq!([out[0][0], out[0][1], out[1][0], out[1][1]], published);
            let out = run(isa, Words(zero, 0));
            assert_eq!([out[0][0], out[0][1], out[1][0], out[1][1]], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
            for (at, first) in [(at, 0), (at, 24), (zero, u32::MAX - 15), (Address { high: u32::MAX, ..zero }, 8)] {
                let out = run(isa, Words(at, first));
                for lane in 0..16 {
                    let call = |b: u32| philox([b + lane as u32 / 2, at.high, at.step, at.block], at.key);
                    let (a, b, l) = (call(first), call(first + 8), lane % 2);
                    let expected = [a[l], a[2 + l], a[l], a[2 + l], b[l], b[2 + l]];
                    assert_eq!(out.map(|v| v[lane]), expected, "{isa:?}, lane {lane}");
                }
            }
        }
    }

    struct Variate(Base, [u32; 16], Scale);

    impl Kernel for Variate {
        type Out = [f32; 16];
        #[inline(always)]
        fn run<S: Simd>(self) -> [f32; 16] {
            let k = S::bits(S::load_from(&self.1.map(f32::from_bits)));
            let mut out = [0.0; 16];
            S::store_to(variate::variate::<S>(self.0, k, &self.2), &mut out);
            out
        }
    }

    /// All laws at the ends, the middle and across 0 .. T, for T = 2^32 and that of three coins.
    fn variates(base: Base) -> impl Iterator<Item = (f64, f64, f32)> {
        let scales = [1.0, 0.999, 0.5, 0.120_000_1].map(Scale::coin);
        scales.into_iter().flat_map(move |scale| {
            let last = scale.last;
            let mut k: Vec<u32> = vec![0, 1, 2, 3, last, last - 1, last - 2, last / 2, last / 2 + 1];
            k.extend((0..4000).map(|i| (last as u64 * i / 4000) as u32));
            k.extend((0..31).flat_map(|i| [last >> i, last - (last >> i >> 1)]));
            k.resize(k.len().next_multiple_of(16), 5);
            k.as_chunks::<16>().0.to_vec().into_iter().flat_map(move |k| {
                let out = run(Isa::best(), Variate(base, k, scale));
                (0..16).map(move |l| ((k[l] as f64 + 0.5) / (last as f64 + 1.0), last as f64 + 1.0, out[l]))
            })
        })
    }

    /// v is k halved, so off by 1/T at most from (k + ½)/T, then rounded three times (2^-24 each), and s is low by two
    /// more steps of 2^-23 at worst: 1/T + 2^-21.
    #[test]
    fn uniforms_lie_above_zero_and_up_to_one_and_are_k_over_t() {
        for (v, threshold, got) in variates(Base::Uniform) {
            assert!(got > 0.0 && got <= 1.0, "{got} at {v}");
            assert!((got as f64 - v).abs() < 1.0 / threshold + v / (1 << 21) as f64, "{got} at {v}");
        }
        assert_eq!(Scale::coin(1.0), Scale::FULL);
    }

    /// The polynomials are good to 1e-6 of z, the f32 arithmetic in front of them to some 1e-6 more, near the middle
    /// 2q ≈ 1 to 2^-23 absolute: 4e-6 |z| + 4e-7. Φ is compared, by its slope: |ΔΦ| ≤ φ(z) |Δz|, with the slope's own
    /// change bounded by a factor of two.
    #[test]
    fn normals_are_the_quantiles_of_their_integers_in_both_tails() {
        for (v, threshold, z) in variates(Base::Normal) {
            let (z, tail) = (z as f64, v.min(1.0 - v));
            assert!((v - 0.5) * z >= 0.0 || z.abs() < 4e-7, "{z} at {v}, T {threshold}");
            let got = 0.5 * libm::erfc(z.abs() / std::f64::consts::SQRT_2);
            let slope = libm::exp(-0.5 * z * z) / (2.0 * std::f64::consts::PI).sqrt();
            assert!((got - tail).abs() < 2.0 * slope * (4e-6 * z.abs() + 4e-7), "{z} at {v}: {got} for {tail}");
        }
    }

    /// Where v is near 1 the logarithm sees v's own 2^-21, see the uniforms; elsewhere it adds 3e-7 of itself.
    #[test]
    fn exponentials_are_the_logarithms_of_their_uniforms() {
        for ((v, threshold, e), (_, _, u)) in variates(Base::Exponential).zip(variates(Base::Uniform)) {
            let expected = -libm::log(u as f64);
            assert!((e as f64 - expected).abs() <= 3e-7 * expected + 1e-30, "{e} for {expected} at {v}, T {threshold}");
            assert!((0.0..24.5).contains(&e));
        }
    }
}
