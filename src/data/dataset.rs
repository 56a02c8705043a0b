//! Finite training sets.
//!
//! Sample s of the set of a seed is sample s of step 0 of [`Stream::Dataset`] under the world's law (normalised where the
//! world says so), whatever T is: a set of fewer samples is a prefix of one of more, and a seed names one set for every
//! cell that shares its world, as it does for fresh samples.
//!
//! Batches of B < T samples walk the set: batch t holds the entries t B .. (t + 1) B of an endless row of permutations of
//! 0 .. T, one an epoch, so that every sample is seen equally often and every batch is full (one that reaches over the end
//! of an epoch may hold a sample twice). Permutation e is Fisher and Yates's shuffle of 0 .. T with the words of
//! [`Stream::DatasetOrder`], part e: for i = T - 1, ..., 1 exchange entries i and [`Draws::below`]`(i + 1)`. Batches of
//! T or more are the whole set in its own order.

use std::ops::Range;
use std::sync::Arc;

use super::events::Events;
use super::law::ROW_BLOCK;
use super::sampler::{Batch, Sampler};
use super::world::World;
use crate::backend::simd::Lanes;
use crate::random::{Draws, Stream};

/// A finite training set, kept as what is not zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    n_features: usize,
    /// Where each sample begins among the entries, and where the last one ends, `[samples + 1]`.
    starts: Vec<usize>,
    features: Vec<u32>,
    values: Vec<f32>,
}

/// Samples drawn at once: whole row blocks of the data law.
const PIECE: usize = 16 * ROW_BLOCK;

impl Dataset {
    /// The set of `world` and `seed`; none where the world's samples are fresh for ever.
    pub fn draw(world: &Arc<World>, seed: u64) -> Option<Dataset> {
        let samples = world.dataset?.samples;
        let sampler = Sampler::new(world.clone(), seed, Stream::Dataset);
        let n_features = world.n_features;
        // Positions in a piece have 32 bits.
        let piece = PIECE.min((u32::MAX as usize / n_features / ROW_BLOCK).max(1) * ROW_BLOCK);
        let mut set = Dataset { n_features, starts: vec![0], features: vec![], values: vec![] };
        let mut events = Events::default();
        for first in (0..samples).step_by(piece) {
            let count = piece.min(samples - first);
            sampler.draw_events_range(0, first, count, &mut events);
            let mut sample = 0;
            for (&position, &value) in events.positions().iter().zip(events.values()) {
                let (at, feature) = (position as usize / n_features, position % n_features as u32);
                while sample < at {
                    set.starts.push(set.features.len());
                    sample += 1;
                }
                set.features.push(feature);
                set.values.push(value);
            }
            set.starts.resize(first + count + 1, set.features.len());
        }
        Some(set)
    }

    /// T.
    pub fn samples(&self) -> usize {
        self.starts.len() - 1
    }

    /// Features of the world.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// What is not zero of a sample: features ascending, with their values.
    pub fn sample(&self, sample: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let entries = self.starts[sample]..self.starts[sample + 1];
        self.features[entries.clone()].iter().map(|f| *f as usize).zip(self.values[entries].iter().copied())
    }

    /// These samples as dense tiles, in the order given.
    pub fn gather(&self, samples: impl ExactSizeIterator<Item = usize>, batch: &mut Batch) {
        batch.n_features = self.n_features;
        batch.samples = samples.len();
        batch.lanes.clear();
        batch.lanes.resize(batch.samples.div_ceil(16) * self.n_features, Lanes::default());
        for (row, sample) in samples.enumerate() {
            for (feature, value) in self.sample(sample) {
                batch.lanes[row / 16 * self.n_features + feature].0[row % 16] = value;
            }
        }
    }

    /// The whole set in dense pieces that fit a cache's neighbourhood, each of a multiple of sixteen samples but the last.
    pub fn pieces(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let samples = self.samples();
        let piece = ((1 << 20) / self.n_features).clamp(16, 1024) / 16 * 16;
        (0..samples).step_by(piece).map(move |first| first..(first + piece).min(samples))
    }
}

/// The order in which batches walk a set, see the [module](self).
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    samples: usize,
    /// The permutation in use: its epoch and entries.
    epoch: Option<u64>,
    entries: Vec<u32>,
}

impl Order {
    /// The order of the set of `samples` samples that belongs to `seed`.
    pub fn new(samples: usize, seed: u64) -> Order {
        Order { seed, samples, epoch: None, entries: vec![] }
    }

    /// The samples of batch `step` of `batch_size`, at most T, into `batch`.
    pub fn batch(&mut self, step: usize, batch_size: usize, batch: &mut Vec<u32>) {
        batch.clear();
        if batch_size >= self.samples {
            batch.extend(0..self.samples as u32);
            return;
        }
        let first = step as u128 * batch_size as u128;
        for at in first..first + batch_size as u128 {
            self.enter((at / self.samples as u128) as u64);
            batch.push(self.entries[(at % self.samples as u128) as usize]);
        }
    }

    fn enter(&mut self, epoch: u64) {
        if self.epoch == Some(epoch) {
            return;
        }
        let mut draws = Draws::new(self.seed, Stream::DatasetOrder, epoch);
        self.entries.clear();
        self.entries.extend(0..self.samples as u32);
        for i in (1..self.samples).rev() {
            self.entries.swap(i, draws.below(i as u32 + 1) as usize);
        }
        self.epoch = Some(epoch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Finite, Magnitude, MagnitudeSharing};

    fn world(n_features: usize, p: f64, samples: usize, normalise: bool) -> Arc<World> {
        Arc::new(World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: Some(Finite { samples, normalise }),
            correlation: None,
            hierarchy: None,
        })
    }

    fn rows(set: &Dataset) -> Vec<Vec<(usize, f32)>> {
        (0..set.samples()).map(|s| set.sample(s).collect()).collect()
    }

    #[test]
    fn a_sample_is_the_same_in_every_set_that_has_it_and_another_for_another_seed() {
        for (n, p) in [(5, 0.3), (40, 0.05), (1, 1.0), (3, 0.001)] {
            let long = rows(&Dataset::draw(&world(n, p, 5000, true), 7).unwrap());
            for samples in [1, 15, 16, 17, 1023, 1025] {
                assert_eq!(rows(&Dataset::draw(&world(n, p, samples, true), 7).unwrap()), long[..samples]);
            }
            let other = rows(&Dataset::draw(&world(n, p, 5000, false), 8).unwrap());
            assert_ne!(rows(&Dataset::draw(&world(n, p, 5000, false), 7).unwrap()), other);
        }
        let fresh = World { dataset: None, ..(*world(3, 0.1, 5, false)).clone() };
        assert_eq!(Dataset::draw(&Arc::new(fresh), 0), None);
    }

    /// The plain loop over step 0 of the stream, one value at a time, and the division by the norm in f64.
    #[test]
    fn the_set_is_step_0_of_its_stream_normalised() {
        for (n, p) in [(5, 0.3), (300, 0.01), (2, 1.0)] {
            let plain = World { dataset: None, ..(*world(n, p, 1, false)).clone() };
            let mut batch = Batch::default();
            Sampler::new(Arc::new(plain), 3, Stream::Dataset).draw(0, 2100, &mut batch);
            for normalise in [false, true] {
                let set = Dataset::draw(&world(n, p, 2100, normalise), 3).unwrap();
                for s in 0..2100 {
                    let x: Vec<f64> = (0..n).map(|i| batch.value(s, i) as f64).collect();
                    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                    let found: Vec<_> = set.sample(s).collect();
                    let expected: Vec<_> = (0..n).filter(|&i| x[i] != 0.0).collect();
                    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), expected);
                    for (i, value) in found {
                        let exact = if normalise { x[i] / norm } else { x[i] };
                        // One rounding to f32, and of f64 the sum of squares, root, quotient and product.
                        assert!((value as f64 - exact).abs() <= 6e-8 * exact, "{value} {exact}");
                    }
                }
            }
        }
    }

    /// Rounding each entry to f32 moves a norm by at most 2^-24 of itself, the f64 work by some 1e-15: below 1e-7.
    #[test]
    fn normalised_samples_have_norm_one_dense_and_as_events_and_silent_ones_stay_zero() {
        for (n, p) in [(4, 0.1), (50, 0.3)] {
            let world = world(n, p, 10, true);
            let (mut batch, mut events, mut dense) = (Batch::default(), Events::default(), Batch::default());
            let sampler = Sampler::new(world, 1, Stream::Evaluate);
            sampler.draw(0, 3000, &mut batch);
            sampler.draw_events(0, 3000, &mut events);
            events.to_dense(&mut dense);
            assert_eq!(batch, dense);
            let mut silent = 0;
            for s in 0..3000 {
                let norm = (0..n).map(|i| (batch.value(s, i) as f64).powi(2)).sum::<f64>().sqrt();
                silent += (norm == 0.0) as usize;
                assert!(norm == 0.0 || (norm - 1.0).abs() < 1e-7, "{norm}");
            }
            // (1 - p)^n of 3000: 1968 of n = 4, standard deviation 26; none of n = 50. Five sigma.
            assert!(if n == 4 { (silent as f64 - 1968.3).abs() < 130.0 } else { silent == 0 }, "{silent}");
        }
    }

    #[test]
    fn batches_walk_every_sample_once_an_epoch_in_another_order_each_time() {
        let (samples, size) = (10, 4);
        let (mut order, mut batch, mut walked) = (Order::new(samples, 5), vec![], vec![]);
        for step in 0..10 {
            order.batch(step, size, &mut batch);
            assert_eq!(batch.len(), size);
            walked.extend_from_slice(&batch);
        }
        let epochs: Vec<&[u32]> = walked.chunks(samples).collect();
        for epoch in &epochs {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..samples as u32).collect::<Vec<_>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        // Any step by itself, and another seed.
        Order::new(samples, 5).batch(6, size, &mut batch);
        assert_eq!(batch, walked[24..28]);
        Order::new(samples, 6).batch(6, size, &mut batch);
        assert_ne!(batch, walked[24..28]);
        for size in [10, 11] {
            order.batch(3, size, &mut batch);
            assert_eq!(batch, (0..10).collect::<Vec<u32>>());
        }
    }

    /// Each of ten samples is first in an epoch with probability 1/10: chi-square of 9 degrees over 2000 epochs, mean 9,
    /// standard deviation 4.2; 5 sigma.
    #[test]
    fn every_sample_is_first_equally_often() {
        let (mut order, mut batch, mut counts) = (Order::new(10, 1), vec![], [0.0; 10]);
        for epoch in 0..2000 {
            order.batch(epoch * 10, 1, &mut batch);
            counts[batch[0] as usize] += 1.0;
        }
        let chi: f64 = counts.iter().map(|c: &f64| (c - 200.0).powi(2) / 200.0).sum();
        assert!(chi < 30.0, "{chi}");
    }

    #[test]
    fn gathered_samples_are_dense_rows_and_pieces_cover_the_set() {
        let set = Dataset::draw(&world(7, 0.3, 100, false), 2).unwrap();
        let mut batch = Batch::default();
        set.gather([99, 3, 3, 50].into_iter(), &mut batch);
        assert_eq!((batch.samples, batch.n_features, batch.lanes.len()), (4, 7, 7));
        for (row, sample) in [99, 3, 3, 50].into_iter().enumerate() {
            let mut x = [0.0; 7];
            set.sample(sample).for_each(|(i, v)| x[i] = v);
            assert!((0..7).all(|i| batch.value(row, i) == x[i]));
        }
        let pieces: Vec<_> = Dataset::draw(&world(3000, 0.001, 1000, false), 2).unwrap().pieces().collect();
        assert!(pieces.len() > 1 && pieces[0].start == 0 && pieces.last().unwrap().end == 1000);
        assert!(pieces.windows(2).all(|w| w[0].end == w[1].start && w[0].len().is_multiple_of(16)));
    }
}
