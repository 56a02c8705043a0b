//! Where the hidden states of an autoencoder's training come from: a known world, or activations from elsewhere.

use super::{HiddenBatch, HiddenSource, HiddenStream};
use crate::activations::{GivenSource, GivenStream};
use crate::random::Stream;

/// What autoencoders train on.
#[derive(Clone, Debug)]
pub enum SaeSource {
    /// A world and what makes h from its x.
    World(HiddenSource),
    /// Activations from files; there is no x.
    Given(GivenSource),
}

impl From<HiddenSource> for SaeSource {
    fn from(source: HiddenSource) -> SaeSource {
        SaeSource::World(source)
    }
}

impl SaeSource {
    /// Width of h.
    pub fn d_hidden(&self) -> usize {
        match self {
            SaeSource::World(source) => source.d_hidden(),
            SaeSource::Given(source) => source.activations.d(),
        }
    }

    /// Lays the source out for drawing many batches of one stream. Of given activations every stream is the same walk over the
    /// training rows: there is nothing else to draw.
    pub fn open(&self, stream: Stream) -> SaeStream {
        match self {
            SaeSource::World(source) => SaeStream::World(source.open(stream)),
            SaeSource::Given(source) => SaeStream::Given(source.open()),
        }
    }
}

/// A [`SaeSource`]'s stream, laid out: batch `step` is the same whoever draws it, whenever.
#[derive(Clone, Debug)]
pub enum SaeStream {
    /// Samples of a world.
    World(HiddenStream),
    /// Rows of files.
    Given(GivenStream),
}

impl SaeStream {
    /// Batch `step` of `samples` hidden states into `out.h`, whose memory is used again; `out.x` stays as it was.
    pub fn draw_hidden(&self, step: u32, samples: usize, out: &mut HiddenBatch) {
        match self {
            SaeStream::World(stream) => stream.draw_hidden(step, samples, out),
            SaeStream::Given(stream) => stream.draw_hidden(step, samples, out),
        }
    }
}
