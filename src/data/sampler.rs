//! Draws batches of x from a [`World`].

use std::sync::Arc;

use super::world::World;
use crate::backend::simd::Lanes;
use crate::random::Stream;

/// A batch of x: tiles of sixteen samples, `lanes[tile * n_features + feature]`, sample `16 tile + lane`.
/// Lanes past `samples` are zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub n_features: usize,
    pub samples: usize,
    pub lanes: Vec<Lanes>,
}

impl Batch {
    pub fn value(&self, sample: usize, feature: usize) -> f32 {
        self.lanes[sample / 16 * self.n_features + feature].0[sample % 16]
    }
}

/// A world's stream of batches for one seed: batch `step` is the same whoever draws it, whenever.
#[derive(Clone, Debug)]
pub struct Sampler {
    world: Arc<World>,
    seed: u64,
    stream: Stream,
}

impl Sampler {
    pub fn new(world: Arc<World>, seed: u64, stream: Stream) -> Sampler {
        Sampler { world, seed, stream }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// Batch `step` of `samples` samples into `batch`, whose memory is used again. Samples `from..from+samples` of a long
    /// stream are had by `draw_range`.
    pub fn draw(&self, step: u32, samples: usize, batch: &mut Batch) {
        let _ = (self.seed, self.stream, step);
        batch.n_features = self.world.n_features;
        batch.samples = samples;
        batch.lanes.clear();
        batch.lanes.resize(samples.div_ceil(16) * self.world.n_features, Lanes::default());
        todo!("the sampler module replaces this")
    }
}
