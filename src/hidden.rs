//! Hidden states, each with the x that produced it.
//!
//! h starts at the bias (the hidden bias of a toy model, 0 where it has none), then x_i times direction i is added with one fused multiply-add a feature,
//! features ascending, silent ones left out; noise comes last. Where a toy model's hidden layer has an activation, that is
//! applied to the sum: h is what its neurons put out. So the bits of h follow from x and the directions alone.
//!
//! Noise of coordinate j of sample s is `noise` times a normal made (as in the [data law](crate::data::law)) of k with
//! T = 2^32, where k is the sample word of c1 = ([`Tag::Noise`](crate::data::law::Tag), s), s within the row block, with j in the
//! sample's place: c0 = 8 ⌊j/32⌋ + ⌊(j mod 16)/2⌋, word 2 (⌊j/16⌋ mod 2) + (j mod 2).

pub mod source;

use std::borrow::Cow;
use std::sync::Arc;

use crate::backend::ops::activation::Activate;
use crate::backend::ops::hidden::Project;
use crate::backend::simd::{Isa, Lanes, run};
use crate::data::{Batch, Events, Sampler, World};
use crate::random::Stream;
use crate::toy::{Activation, ToyModel};

pub use source::{SaeSource, SaeStream};

/// What makes h from x.
#[derive(Clone, Debug)]
pub enum HiddenMaker {
    /// h of a trained toy model.
    Toy(Arc<ToyModel>),
    /// h = Σ x_i f_i + b (+ noise).
    Dictionary(Arc<crate::data::dictionary::Dictionary>),
}

impl HiddenMaker {
    /// Width of h.
    pub fn d_hidden(&self) -> usize {
        match self {
            HiddenMaker::Toy(model) => model.d_hidden,
            HiddenMaker::Dictionary(dictionary) => dictionary.d_hidden,
        }
    }

    /// Directions `[n_features, d_hidden]`, one row a feature: those of the toy model, or the dictionary.
    pub fn directions(&self) -> Cow<'_, [f32]> {
        match self {
            HiddenMaker::Toy(model) => model.directions(),
            HiddenMaker::Dictionary(dictionary) => Cow::Borrowed(&dictionary.vectors),
        }
    }

    /// What turns Σ x_i f_i + b into h.
    pub fn activation(&self) -> Activation {
        match self {
            HiddenMaker::Toy(model) => model.kind.activation(),
            HiddenMaker::Dictionary(_) => Activation::Identity,
        }
    }

    /// Bias `[d_hidden]`, none where it is zero by definition.
    fn bias(&self) -> Option<&[f32]> {
        match self {
            HiddenMaker::Toy(model) => Some(&model.c[..]).filter(|c| !c.is_empty()),
            HiddenMaker::Dictionary(dictionary) => Some(&dictionary.bias),
        }
    }

    /// Bias `[d_hidden]`.
    pub fn bias_or_zero(&self) -> Vec<f32> {
        self.bias().map_or_else(|| vec![0.0; self.d_hidden()], <[f32]>::to_vec)
    }

    /// Standard deviation of the noise on h.
    pub(crate) fn noise(&self) -> f64 {
        match self {
            HiddenMaker::Toy(_) => 0.0,
            HiddenMaker::Dictionary(dictionary) => dictionary.noise,
        }
    }
}

/// A stream of (x, h) for one seed: what SAEs train on and scores are taken on.
#[derive(Clone, Debug)]
pub struct HiddenSource {
    /// The law of x.
    pub world: Arc<World>,
    /// Seed of x and of the noise.
    pub seed: u64,
    /// From x to h.
    pub maker: HiddenMaker,
}

impl HiddenSource {
    /// Width of h.
    pub fn d_hidden(&self) -> usize {
        self.maker.d_hidden()
    }

    /// Lays world and directions out for drawing many batches of one stream.
    ///
    /// # Panics
    /// If the directions are not `[n_features, d_hidden]`.
    pub fn open(&self, stream: Stream) -> HiddenStream {
        let (n, d) = (self.world.n_features, self.d_hidden());
        let directions = self.maker.directions();
        assert_eq!(directions.len(), n * d, "a direction of {d} numbers for each of {n} features");
        let zeros = vec![0.0; d];
        HiddenStream {
            sampler: Sampler::new(self.world.clone(), self.seed, stream),
            directions: padded(&directions, d).into(),
            bias: padded(self.maker.bias().unwrap_or(&zeros), d).into(),
            noise: self.maker.noise() as f32,
            activation: self.maker.activation(),
            d_hidden: d,
            isa: Isa::best(),
        }
    }

    /// Batch `step` of a stream. A loop is better served by [`HiddenSource::open`], which does the laying out once.
    pub fn draw(&self, stream: Stream, step: u32, samples: usize, out: &mut HiddenBatch) {
        self.open(stream).draw(step, samples, out);
    }
}

/// Samples with their hidden states.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HiddenBatch {
    /// Samples in it.
    pub samples: usize,
    /// Width of h.
    pub d_hidden: usize,
    /// x, dense. Left as it was by [`HiddenStream::draw_hidden`].
    pub x: Batch,
    /// x, what is not zero.
    pub events: Events,
    /// `[samples, d_hidden]`, row by row.
    pub h: Vec<f32>,
}

/// A [`HiddenSource`]'s stream, laid out: batch `step` is the same whoever draws it, whenever. Clones share the layout.
#[derive(Clone, Debug)]
pub struct HiddenStream {
    sampler: Sampler,
    /// `[n_features]` rows of whole vectors, zeros past d_hidden.
    directions: Arc<[Lanes]>,
    bias: Arc<[Lanes]>,
    noise: f32,
    activation: Activation,
    d_hidden: usize,
    isa: Isa,
}

impl HiddenStream {
    /// The same stream computed with another instruction set: the same bits.
    pub fn on(mut self, isa: Isa) -> HiddenStream {
        self.sampler = self.sampler.on(isa);
        self.isa = isa;
        self
    }

    /// Batch `step` of `samples` samples, x and h, into `out`, whose memory is used again. Fewer samples give a prefix of
    /// more.
    pub fn draw(&self, step: u32, samples: usize, out: &mut HiddenBatch) {
        self.draw_range(step, 0, samples, out);
    }

    /// Samples `first .. first + samples` of batch `step`: a long batch in pieces.
    ///
    /// # Panics
    /// If `first` is not a multiple of [`HiddenStream::piece`].
    pub fn draw_range(&self, step: u32, first: usize, samples: usize, out: &mut HiddenBatch) {
        self.project(step, first, samples, out);
        out.events.to_dense(&mut out.x);
    }

    /// Batch `step` without dense x, for training: the same h and events.
    pub fn draw_hidden(&self, step: u32, samples: usize, out: &mut HiddenBatch) {
        self.project(step, 0, samples, out);
    }

    /// Samples `first .. first + samples` of batch `step` without dense x: pieces that threads draw side by side. Pieces of
    /// a few hundred samples cost no more than the batch whole.
    ///
    /// # Panics
    /// If `first` is not a multiple of [`HiddenStream::piece`].
    pub fn draw_hidden_range(&self, step: u32, first: usize, samples: usize, out: &mut HiddenBatch) {
        self.project(step, first, samples, out);
    }

    /// Where a piece of a batch may start: at any multiple of this ([`Sampler::piece`]).
    pub fn piece(&self) -> usize {
        self.sampler.piece()
    }

    fn project(&self, step: u32, first: usize, samples: usize, out: &mut HiddenBatch) {
        self.sampler.draw_events_range(step, first, samples, &mut out.events);
        (out.samples, out.d_hidden) = (samples, self.d_hidden);
        // Rows are written in whole vectors, each row's overhang before the next row: the last one needs room.
        out.h.resize(samples * self.d_hidden + 16, 0.0);
        run(
            self.isa,
            Project {
                events: &out.events,
                directions: &self.directions,
                bias: &self.bias,
                noise: self.noise,
                noise_key: self.sampler.key(),
                step,
                first,
                d_hidden: self.d_hidden,
                h: &mut out.h,
            },
        );
        out.h.truncate(samples * self.d_hidden);
        if self.activation != Activation::Identity {
            run(self.isa, Activate { activation: self.activation, values: &mut out.h });
        }
    }
}

/// Rows of d numbers as rows of whole vectors.
fn padded(rows: &[f32], d: usize) -> Vec<Lanes> {
    let mut lanes = Vec::with_capacity(rows.len() / d.max(1) * d.div_ceil(16));
    for row in rows.chunks_exact(d.max(1)) {
        for chunk in row.chunks(16) {
            let mut padded = Lanes::default();
            padded.0[..chunk.len()].copy_from_slice(chunk);
            lanes.push(padded);
        }
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::activation;
    use crate::backend::ops::toy_step::Shape;
    use crate::data::{Dictionary, Magnitude, MagnitudeSharing};
    use crate::toy::{Mlp, ToyKind};

    fn source(n: usize, d: usize, p: f64, noise: f64) -> HiddenSource {
        let world = World {
            n_features: n,
            firing_probability: (0..n).map(|i| if i % 3 == 0 { p } else { p / 2.0 }).collect(),
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let dictionary = Dictionary::random(n, d, 3).with_bias(0.5, 3).with_noise(noise);
        HiddenSource { world: Arc::new(world), seed: 3, maker: HiddenMaker::Dictionary(Arc::new(dictionary)) }
    }

    /// The order of the module's text in plain loops, without noise.
    fn plain(source: &HiddenSource, x: &Batch) -> Vec<f32> {
        let d = source.d_hidden();
        let mut h = vec![];
        for s in 0..x.samples {
            for j in 0..d {
                let mut sum = source.maker.bias().map_or(0.0, |b| b[j]);
                for i in 0..x.n_features {
                    if x.value(s, i) != 0.0 {
                        sum = x.value(s, i).mul_add(source.maker.directions()[i * d + j], sum);
                    }
                }
                h.push(sum);
            }
        }
        h
    }

    fn bits(h: &[f32]) -> Vec<u32> {
        h.iter().map(|h| h.to_bits()).collect()
    }

    #[test]
    fn h_equals_the_plain_loops_bit_for_bit_at_awkward_widths() {
        for (n, d) in [(1, 1), (5, 2), (17, 15), (17, 16), (40, 17), (40, 33), (20, 64), (12, 100)] {
            for p in [0.02, 0.1, 0.7, 1.0] {
                let source = source(n, d, p, 0.0);
                for isa in Isa::available() {
                    let stream = source.open(Stream::Train).on(isa);
                    let mut out = HiddenBatch::default();
                    for samples in [33, 0, 1, 15, 16, 1025] {
                        stream.draw(4, samples, &mut out);
                        assert_eq!((out.samples, out.d_hidden, out.h.len()), (samples, d, samples * d));
                        assert_eq!(bits(&out.h), bits(&plain(&source, &out.x)), "{isa:?} {n}x{d} p {p}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_toy_model_gives_h_without_bias() {
        let mut source = source(7, 3, 0.5, 0.0);
        let w = Dictionary::random(7, 3, 9).vectors;
        let model = ToyModel {
            kind: ToyKind::ReluOutput,
            n_features: 7,
            d_hidden: 3,
            w,
            c: vec![],
            v: vec![],
            b: vec![1.0; 7],
        };
        source.maker = HiddenMaker::Toy(Arc::new(model));
        let mut out = HiddenBatch::default();
        source.draw(Stream::Evaluate, 0, 100, &mut out);
        assert!(out.h.iter().any(|&h| h != 0.0));
        assert_eq!(bits(&out.h), bits(&plain(&source, &out.x)));
    }

    /// The sum of the module's text, activated by the exact function: bits for the ReLU, for the GELU its bound.
    #[test]
    fn h_of_a_model_with_neurons_is_what_they_put_out() {
        let mlp = |activation| ToyKind::Mlp(Mlp { d_embedding: 2, activation, bias: 0.0, bias_decay: 0.0, seed: 3 });
        let kinds = [ToyKind::ReluHidden, ToyKind::AbsoluteValue, mlp(Activation::Relu), mlp(Activation::Gelu)];
        for kind in kinds {
            let mut source = source(7, 5, 0.5, 0.0);
            let shape = Shape { kind, n_features: 7, d_hidden: 5 };
            let mut draws = crate::random::Draws::new(1, Stream::ToyInit, 0);
            let parameters: Vec<f32> = (0..shape.n_parameters()).map(|_| draws.normal() as f32).collect();
            source.maker = HiddenMaker::Toy(Arc::new(ToyModel::from_parameters(shape, &parameters)));
            let mut out = HiddenBatch::default();
            source.draw(Stream::Evaluate, 0, 100, &mut out);
            for (h, pre) in out.h.iter().zip(plain(&source, &out.x)) {
                let expected = activation::reference(kind.activation(), pre as f64).0;
                let bound = if kind == mlp(Activation::Gelu) {
                    activation::GELU_ERROR * pre.abs().max(1e-3) as f64
                } else {
                    0.0
                };
                assert!((*h as f64 - expected).abs() <= bound, "{kind:?} {pre}: {h} for {expected}");
            }
            assert!(out.h.iter().any(|h| *h > 0.0));
        }
    }

    #[test]
    fn pieces_prefixes_and_instruction_sets_give_the_same_h_with_noise() {
        let source = source(20, 37, 0.1, 0.25);
        let mut long = HiddenBatch::default();
        source.open(Stream::Evaluate).draw(2, 3000, &mut long);
        for isa in Isa::available() {
            let stream = source.open(Stream::Evaluate).on(isa);
            let mut piece = HiddenBatch::default();
            for (first, samples) in [(0, 3000), (0, 17), (1024, 1024), (2048, 952)] {
                stream.draw_range(2, first, samples, &mut piece);
                assert_eq!(bits(&piece.h), bits(&long.h[first * 37..][..samples * 37]), "{isa:?} from {first}");
            }
            stream.draw_hidden(2, 100, &mut piece);
            assert_eq!(bits(&piece.h), bits(&long.h[..100 * 37]));
        }
    }

    /// Noise is what h has beyond the plain sum: 3000 · 37 numbers of standard deviation .25. Mean within 5 · .25 / 333 = .0038,
    /// mean square within 5 · sqrt(2) · .0625 / 333 = .0013, products of neighbours likewise within .00094 (5 sigma each, three
    /// looks: false alarm 2e-6). Streams and steps have noise of their own.
    #[test]
    fn noise_is_normal_and_independent_of_stream_and_step() {
        let source = source(20, 37, 0.1, 0.25);
        let noise = |stream, step| {
            let mut out = HiddenBatch::default();
            source.draw(stream, step, 3000, &mut out);
            let plain = plain(&source, &out.x);
            out.h.iter().zip(plain).map(|(h, plain)| (h - plain) as f64).collect::<Vec<f64>>()
        };
        let z = noise(Stream::Train, 1);
        let count = z.len() as f64;
        assert!((z.iter().sum::<f64>() / count).abs() < 0.0038);
        assert!((z.iter().map(|z| z * z).sum::<f64>() / count - 0.0625).abs() < 0.0013);
        assert!((z.windows(2).map(|z| z[0] * z[1]).sum::<f64>() / count).abs() < 0.00094);
        for other in [noise(Stream::Evaluate, 1), noise(Stream::Train, 2)] {
            let along = z.iter().zip(&other).map(|(a, b)| a * b).sum::<f64>() / count;
            assert!(along.abs() < 0.00094, "{along}");
        }
    }
}
