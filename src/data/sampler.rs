//! Draws batches of x from a [`World`] by the [data law](super::law).

use std::sync::Arc;

use super::events::{Events, inverse_norm};
use super::law::{PIECE, Plan, ROW_BLOCK};
use super::world::World;
use crate::backend::ops::draw::{DrawDense, DrawEvents, Place};
use crate::backend::simd::{Isa, Lanes, run};
use crate::random::{Key, Stream};

/// A batch of x: tiles of sixteen samples, `lanes[tile * n_features + feature]`, sample `16 tile + lane`.
/// Lanes past `samples` are zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Features of the world.
    pub n_features: usize,
    /// Samples of the batch.
    pub samples: usize,
    /// `[⌈samples / 16⌉, n_features]` of sixteen samples each.
    pub lanes: Vec<Lanes>,
}

impl Batch {
    /// x of one sample and feature.
    pub fn value(&self, sample: usize, feature: usize) -> f32 {
        self.lanes[sample / 16 * self.n_features + feature].0[sample % 16]
    }

    /// The bits of [`Events::normalise`]: a zero among the squares changes no sum.
    fn normalise(&mut self) {
        for tile in self.lanes.chunks_exact_mut(self.n_features) {
            let mut square = [0.0f64; 16];
            for x in tile.iter() {
                (0..16).for_each(|l| square[l] += x.0[l] as f64 * x.0[l] as f64);
            }
            let scale = square.map(inverse_norm);
            for x in tile {
                (0..16).for_each(|l| x.0[l] = (x.0[l] as f64 * scale[l]) as f32);
            }
        }
    }
}

/// A world's stream of batches for one seed: batch `step` is the same whoever draws it, whenever. In a world whose data are
/// [normalised](World::is_normalised) every x comes out at unit norm.
#[derive(Clone, Debug)]
pub struct Sampler {
    world: Arc<World>,
    plan: Arc<Plan>,
    key: Key,
    isa: Isa,
}

impl Sampler {
    /// The stream of `world` named by (seed, stream). Lays the world out once; clones share that.
    ///
    /// # Panics
    /// If the world is not one a checked experiment can give, see [`Plan::new`].
    pub fn new(world: Arc<World>, seed: u64, stream: Stream) -> Sampler {
        let plan = Arc::new(Plan::new(&world));
        Sampler { world, plan, key: Key::new(seed, stream), isa: Isa::best() }
    }

    /// The same stream drawn with another instruction set: the same bits.
    pub fn on(mut self, isa: Isa) -> Sampler {
        self.isa = isa;
        self
    }

    /// The instruction set it draws with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The world as the law lays it out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The key of the stream's words.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Where a piece of a batch may start: at any multiple of this. Small in linked worlds, so that several threads can draw
    /// one batch; a row block in all others, whose skips run through it.
    pub fn piece(&self) -> usize {
        if self.plan.linked.is_some() { PIECE } else { ROW_BLOCK }
    }

    /// Batch `step` of `samples` samples into `batch`, whose memory is used again. Fewer samples give a prefix of more.
    pub fn draw(&self, step: u32, samples: usize, batch: &mut Batch) {
        self.draw_range(step, 0, samples, batch);
    }

    /// Samples `first .. first + samples` of batch `step`: a long batch in pieces.
    ///
    /// # Panics
    /// If `first` is not a multiple of [`Sampler::piece`].
    pub fn draw_range(&self, step: u32, first: usize, samples: usize, batch: &mut Batch) {
        batch.n_features = self.plan.n_features;
        batch.samples = samples;
        // What is there may stay: the kernel writes every lane.
        batch.lanes.resize(samples.div_ceil(16) * self.plan.n_features, Lanes::default());
        let place = self.place(step, first, samples);
        run(self.isa, DrawDense { plan: &self.plan, place, x: &mut batch.lanes });
        if self.world.is_normalised() {
            batch.normalise();
        }
    }

    /// What is not zero in batch `step`: the same x as [`Sampler::draw`], for kernels whose work follows what fires.
    ///
    /// # Panics
    /// If samples times features exceed 2^32.
    pub fn draw_events(&self, step: u32, samples: usize, events: &mut Events) {
        self.draw_events_range(step, 0, samples, events);
    }

    /// [`Sampler::draw_events`] of samples `first .. first + samples`, counted from `first`.
    ///
    /// # Panics
    /// As [`Sampler::draw_events`] and [`Sampler::draw_range`].
    pub fn draw_events_range(&self, step: u32, first: usize, samples: usize, events: &mut Events) {
        assert!(samples.saturating_mul(self.plan.n_features) <= u32::MAX as usize, "too many samples in one piece");
        events.clear(self.plan.n_features, samples);
        let place = self.place(step, first, samples);
        run(self.isa, DrawEvents { plan: &self.plan, place, events });
        if self.world.is_normalised() {
            events.normalise();
        }
    }

    fn place(&self, step: u32, first: usize, samples: usize) -> Place {
        let piece = self.piece();
        assert!(first.is_multiple_of(piece), "pieces start at multiples of {piece}, not {first}");
        assert!((first + samples) / ROW_BLOCK <= u32::MAX as usize, "row blocks are counted in 32 bits");
        Place { key: self.key, step, first_block: (first / ROW_BLOCK) as u32, skip: first % ROW_BLOCK, samples }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Group, GroupRule, Magnitude, MagnitudeSharing};

    const UNIT: Magnitude = Magnitude::Uniform { low: 0.0, high: 1.0 };

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

    fn batch(world: &World, seed: u64, stream: Stream, step: u32, samples: usize) -> Batch {
        let mut batch = Batch::default();
        Sampler::new(Arc::new(world.clone()), seed, stream).draw(step, samples, &mut batch);
        batch
    }

    /// `[samples, n_features]`
    fn rows(batch: &Batch) -> Vec<Vec<f32>> {
        (0..batch.samples).map(|s| (0..batch.n_features).map(|i| batch.value(s, i)).collect()).collect()
    }

    /// Two hundred batches of 1024.
    fn many(world: &World) -> Vec<Vec<f32>> {
        (0..200).flat_map(|step| rows(&batch(world, 11, Stream::Train, step, 1024))).collect()
    }

    const MANY: f64 = 200.0 * 1024.0;

    /// How many standard deviations `hits` of `MANY` coins of probability `p` are off.
    fn z_of_rate(hits: usize, p: f64) -> f64 {
        (hits as f64 - MANY * p) / (MANY * p * (1.0 - p)).sqrt()
    }

    fn hits(rows: &[Vec<f32>], test: impl Fn(&[f32]) -> bool) -> usize {
        rows.iter().filter(|row| test(row)).count()
    }

    /// Version 1 of the law is these bits: whoever changes one changes the version. 64-bit FNV-1a over the bits of x.
    #[test]
    fn version_1_of_the_law_gives_these_bits() {
        let hash = |world: &World| {
            let x = rows(&batch(world, 42, Stream::Train, 3, 1500));
            let bytes = x.iter().flatten().flat_map(|x| x.to_bits().to_le_bytes());
            bytes.fold(0xCBF2_9CE4_8422_2325u64, |hash, b| (hash ^ b as u64).wrapping_mul(0x0100_0000_01B3))
        };
        let normal = Magnitude::Normal { mean: vec![0.5; 4], std: vec![0.5, 1.0, 0.0, 2.0] };
        let group = |rule, members: &[usize]| Group { rule, members: members.to_vec(), firing_probability: 0.1 };
        let groups = vec![group(GroupRule::Together, &[0, 1]), group(GroupRule::Exclusive, &[2, 3])];
        let shared = World { magnitude_sharing: MagnitudeSharing::Sample, ..world(vec![0.7; 3], UNIT) };
        let got = [
            hash(&world(vec![0.3; 5], UNIT)),
            hash(&world(vec![0.05; 5], UNIT)),
            hash(&world(vec![0.5, 0.05, 0.05, 1.0], normal)),
            hash(&world(vec![0.5, 0.05], Magnitude::Exponential { mean: vec![1.0, 2.0] })),
            hash(&World { groups, ..world(vec![0.0; 4], UNIT) }),
            hash(&shared),
        ];
        assert_eq!(crate::data::law::DATA_LAW, 1);
        assert_eq!(
            got,
            [
                0xC5CE05EF11CA504B,
                0x2A0AFCB326414D0B,
                0xD34A8E43B1A851D2,
                0xE5E805DD92CB397D,
                0x63C6CE1EFF0428B9,
                0x0D68D82C7C03CC0A
            ]
        );
    }

    #[test]
    fn fewer_samples_and_pieces_give_the_same_samples() {
        let world = world(vec![0.05, 0.5, 0.05, 0.1, 1.0], UNIT);
        let sampler = Sampler::new(Arc::new(world.clone()), 5, Stream::Evaluate);
        let long = rows(&batch(&world, 5, Stream::Evaluate, 9, 5000));
        for samples in [0, 1, 15, 16, 17, 100, 1023, 1025, 4096] {
            assert_eq!(rows(&batch(&world, 5, Stream::Evaluate, 9, samples)), long[..samples]);
        }
        let mut piece = Batch::default();
        for (first, samples) in [(0, 2048), (2048, 1024), (3072, 1928)] {
            sampler.draw_range(9, first, samples, &mut piece);
            assert_eq!(rows(&piece), long[first..first + samples]);
        }
    }

    #[test]
    fn seed_stream_and_step_each_give_other_samples() {
        for p in [0.05, 0.5] {
            let world = world(vec![p; 20], UNIT);
            let base = batch(&world, 1, Stream::Train, 0, 256);
            assert_eq!(base, batch(&world, 1, Stream::Train, 0, 256));
            assert_ne!(base, batch(&world, 2, Stream::Train, 0, 256));
            assert_ne!(base, batch(&world, 1 + (1 << 32), Stream::Train, 0, 256));
            assert_ne!(base, batch(&world, 1, Stream::Evaluate, 0, 256));
            assert_ne!(base, batch(&world, 1, Stream::Train, 1, 256));
        }
    }

    #[test]
    fn certain_features_always_fire_and_impossible_ones_never() {
        for row in many(&world(vec![1.0, 0.0], UNIT)) {
            assert!(row[0] > 0.0 && row[0] <= 1.0 && row[1] == 0.0);
        }
    }

    /// The seed is fixed, so this passes always or never; the bound of 4.5 on 84 looks is a false alarm of 6e-4 in its
    /// choice. Independence of neighbours is that of rates: both fire with p_i p_j.
    #[test]
    fn features_fire_at_their_rates_and_independently() {
        let mixed = vec![0.01, 0.12, 0.05, 0.05, 0.2, 0.05, 0.9, 0.01, 0.5, 0.05, 0.11, 0.121];
        for p in [mixed, vec![0.05; 12], vec![0.3; 12], vec![0.01; 6]] {
            let rows = many(&world(p.clone(), UNIT));
            for (i, &p_i) in p.iter().enumerate() {
                let z = z_of_rate(hits(&rows, |row| row[i] != 0.0), p_i);
                assert!(z.abs() < 4.5, "feature {i} of {p:?}: {z}");
                let j = (i + 1) % p.len();
                let z = z_of_rate(hits(&rows, |row| row[i] != 0.0 && row[j] != 0.0), p_i * p[j]);
                assert!(z.abs() < 4.5, "features {i} and {j} of {p:?}: {z}");
            }
        }
    }

    /// Neighbouring samples, across tiles and row blocks too: both fire with p². 24 looks at 4.5: 2e-4.
    #[test]
    fn neighbouring_samples_are_independent() {
        for p in [0.05, 0.12, 0.3, 0.6] {
            let world = world(vec![p; 2], UNIT);
            let x = rows(&batch(&world, 4, Stream::Train, 0, 200 * 1024 + 512));
            for apart in [1, 16, 512] {
                for i in 0..2 {
                    let pairs = x.iter().zip(&x[apart..]).take(200 * 1024);
                    let both = pairs.filter(|(now, later)| now[i] != 0.0 && later[i] != 0.0).count();
                    // Pairs overlap: sample s is in two of them, which adds 2p/(1 + p) to the variance.
                    let z = z_of_rate(both, p * p) / (1.0 + 2.0 * p / (1.0 + p)).sqrt();
                    assert!(z.abs() < 4.5, "p {p}, {apart} apart, feature {i}: {z}");
                }
            }
        }
    }

    /// Mean and mean square of what fires, against their laws; the standard error comes from the law's fourth moment,
    /// bounded by the sample's own. 5 sigma on 56 looks: false alarm 3e-5.
    #[test]
    fn magnitudes_have_the_moments_of_their_law_by_coins_and_by_skips() {
        let phi = 0.398_942_280_401; // density of the normal at 0
        let cases = [
            (UNIT, 0.5, 1.0 / 3.0),
            (Magnitude::Uniform { low: 1.0, high: 3.0 }, 2.0, 13.0 / 3.0),
            (Magnitude::Constant(vec![0.5; 2]), 0.5, 0.25),
            // Clipped at 0, and 0 half of the time: what is not 0 is a half normal of twice the share.
            (Magnitude::Normal { mean: vec![0.0; 2], std: vec![2.0; 2] }, 2.0 * phi, 2.0),
            (Magnitude::FoldedNormal { mean: vec![0.0; 2], std: vec![2.0; 2] }, 4.0 * phi, 4.0),
            (Magnitude::Exponential { mean: vec![1.5; 2] }, 1.5, 4.5),
            (Magnitude::Symmetric(2.0), 0.0, 4.0 / 3.0),
        ];
        for p in [0.1, 0.6] {
            for sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                for (magnitude, mean, square) in &cases {
                    let world = World { magnitude_sharing: sharing, ..world(vec![p; 2], magnitude.clone()) };
                    let rows = many(&world);
                    // Silent samples count as 0, so the moments are p times those of the law.
                    let x: Vec<f64> = rows.iter().map(|row| row[0] as f64).collect();
                    for (power, expected) in [(1, p * mean), (2, p * square)] {
                        let moment = |k: i32| x.iter().map(|x| x.powi(k)).sum::<f64>() / MANY;
                        let error = ((moment(2 * power) - moment(power).powi(2)) / MANY).sqrt();
                        let off = (moment(power) - expected) / error;
                        assert!(off.abs() < 5.0, "{magnitude:?} {sharing:?} p {p}, moment {power}: {off}");
                    }
                }
            }
        }
    }

    /// Hundred cells of equal probability: chi-square of 99 degrees, standard deviation 14.07; 5 sigma on 2 looks.
    #[test]
    fn uniform_magnitudes_fill_their_interval_evenly() {
        for p in [0.1, 0.6] {
            let x: Vec<f32> = many(&world(vec![p; 2], UNIT)).into_iter().flatten().filter(|&x| x != 0.0).collect();
            let mut cells = [0.0; 100];
            x.iter().for_each(|x| cells[(x * 99.999_99) as usize] += 1.0);
            let mean = x.len() as f64 / 100.0;
            let chi: f64 = cells.iter().map(|c| (c - mean).powi(2) / mean).sum();
            assert!((chi - 99.0).abs() < 5.0 * 14.07, "p {p}: {chi}");
        }
    }

    #[test]
    fn shared_magnitudes_are_one_number_a_sample() {
        let world = World { magnitude_sharing: MagnitudeSharing::Sample, ..world(vec![0.1, 0.6, 1.0, 0.1], UNIT) };
        let rows = rows(&batch(&world, 1, Stream::Train, 0, 1024));
        let mut values: Vec<f32> = rows.iter().map(|row| row[2]).collect();
        for row in &rows {
            assert!(row.iter().all(|&x| x == 0.0 || x == row[2]));
        }
        values.sort_by(f32::total_cmp);
        values.dedup();
        assert!(values.len() > 1000, "samples share nothing with each other: {}", values.len());
    }

    /// Rates at 4.5 sigma, 10 looks: 7e-5.
    #[test]
    fn groups_fire_together_or_one_at_a_time_by_coins_and_by_skips() {
        for p in [0.1, 0.6] {
            let group = |rule, members: &[usize]| Group { rule, members: members.to_vec(), firing_probability: p };
            let groups = vec![group(GroupRule::Together, &[0, 1]), group(GroupRule::Exclusive, &[2, 3, 4])];
            let rows = many(&World { groups, ..world(vec![0.5; 5], UNIT) });
            let mut equal = 0;
            for row in &rows {
                assert_eq!(row[0] != 0.0, row[1] != 0.0);
                equal += (row[0] != 0.0 && row[0] == row[1]) as usize;
                assert!(row[2..].iter().filter(|&&x| x != 0.0).count() <= 1);
            }
            assert!(equal < 5, "members of a set have magnitudes of their own: {equal}");
            let z = z_of_rate(hits(&rows, |row| row[0] != 0.0), p);
            assert!(z.abs() < 4.5, "together at {p}: {z}");
            for i in 2..5 {
                let z = z_of_rate(hits(&rows, |row| row[i] != 0.0), p / 3.0);
                assert!(z.abs() < 4.5, "member {i} at {p}: {z}");
            }
            let z = z_of_rate(hits(&rows, |row| row[0] != 0.0 && row[2..].iter().any(|&x| x != 0.0)), p * p);
            assert!(z.abs() < 4.5, "two groups at {p}: {z}");
        }
    }

    /// p far below a batch: 2^20 samples of 8 features at 1e-5 expect 84 events, standard deviation 9.2; 4.5 sigma.
    #[test]
    fn rare_features_keep_their_rate() {
        let mut events = Events::default();
        Sampler::new(Arc::new(world(vec![1e-5; 8], UNIT)), 2, Stream::Train).draw_events(0, 1 << 20, &mut events);
        assert!((events.len() as f64 - 83.9).abs() < 41.0, "{}", events.len());
    }

    #[test]
    #[should_panic(expected = "multiples of 1024")]
    fn pieces_that_start_inside_a_row_block_are_refused() {
        let mut piece = Batch::default();
        Sampler::new(Arc::new(world(vec![0.5], UNIT)), 0, Stream::Train).draw_range(0, 16, 16, &mut piece);
    }
}
