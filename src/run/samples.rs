//! The evaluation samples of a stem: x by what is not 0, h piece by piece.

use ndarray::{Array2, CowArray, Ix2, s};
use rayon::prelude::*;

use crate::codes::Codes;
use crate::hidden::{HiddenBatch, HiddenSource, HiddenStream};
use crate::plan::chunk::KEPT_HIDDEN;
use crate::random::Stream;
use crate::sae::Coder;
use crate::score::{Activity, PIECE, Rebuilt, Side};

/// Samples that every dictionary of a stem is scored on.
///
/// Memory: 20 bytes an entry of x that is not 0 (with its transpose and firings, once a score asks for them), and h where it
/// has at most [`KEPT_HIDDEN`] numbers; of more, every dictionary draws its own again. Pieces in hand, one a thread, are [`PIECE`] samples: 4 bytes a number of h and of what a
/// coder makes of it, zeros and all.
pub struct Samples {
    /// `[samples, n_features]`
    x: Activity<'static, f32>,
    /// `[samples, d_hidden]`
    h: Option<Array2<f32>>,
    stream: HiddenStream,
    d_hidden: usize,
}

/// What a dictionary makes of all samples.
pub struct Coded {
    /// `[samples, n_latents]`
    pub latents: Codes<f32>,
    /// How far reconstructions are off.
    pub rebuilt: Rebuilt,
}

impl Samples {
    /// The first `samples` of the evaluation stream.
    pub fn draw(source: &HiddenSource, samples: usize) -> Samples {
        let (stream, d_hidden) = (source.open(Stream::Evaluate), source.d_hidden());
        let keep = samples * d_hidden <= KEPT_HIDDEN;
        let piece = |first: usize| {
            let mut batch = HiddenBatch::default();
            stream.draw_hidden_range(0, first, PIECE.min(samples - first), &mut batch);
            let x = batch.events.to_codes();
            (x, if keep { batch.h } else { vec![] })
        };
        let firsts: Vec<usize> = (0..samples).step_by(PIECE).collect();
        let pieces: Vec<(Codes<f32>, Vec<f32>)> = firsts.into_par_iter().map(piece).collect();
        let (mut x, mut h) = (Codes::new(source.world.n_features), vec![]);
        for (more_x, more_h) in pieces {
            x.append(&more_x);
            h.extend(more_h);
        }
        let h = keep.then(|| Array2::from_shape_vec((samples, d_hidden), h).expect("d_hidden numbers a sample"));
        Samples { x: Activity::new(x, Side::Features), h, stream, d_hidden }
    }

    /// True activations.
    pub fn x(&self) -> &Activity<'static, f32> {
        &self.x
    }

    /// x of `count` samples from `first` on, `[count, n_features]`.
    fn dense_x(&self, first: usize, count: usize) -> Array2<f32> {
        let codes = self.x.codes();
        let mut dense = Array2::zeros((count, codes.n_columns()));
        for (mut row, sample) in dense.rows_mut().into_iter().zip(first..) {
            codes.entries(sample).for_each(|(feature, x)| row[feature] = x);
        }
        dense
    }

    /// The first [`PIECE`] hidden states, and what a coder makes of them when all latents are silent, `[samples, d_hidden]` each.
    pub fn silent(&self, coder: &dyn Coder) -> (CowArray<'_, f32, Ix2>, Array2<f32>) {
        let h = self.piece(0);
        let silent = Array2::zeros((h.nrows(), coder.n_latents()));
        let rebuilt = coder.decode(silent.view(), h.view());
        (h, rebuilt)
    }

    /// Hidden states of the samples from `first`, a multiple of [`PIECE`], on.
    fn piece(&self, first: usize) -> CowArray<'_, f32, Ix2> {
        let count = PIECE.min(self.x.samples() - first);
        match &self.h {
            Some(h) => h.slice(s![first..first + count, ..]).into(),
            None => {
                let mut batch = HiddenBatch::default();
                self.stream.draw_hidden_range(0, first, count, &mut batch);
                Array2::from_shape_vec((count, self.d_hidden), batch.h).expect("d_hidden numbers a sample").into()
            }
        }
    }

    /// Latents and reconstructions of all samples, pieces over threads and put together in order.
    pub fn code(&self, coder: &dyn Coder) -> Coded {
        let samples = self.x.samples();
        let piece = |first: usize| {
            let h = self.piece(first);
            let latents = match coder.needs_truth() {
                true => Codes::of_dense(coder.encode_knowing(h.view(), self.dense_x(first, h.nrows()).view()).view()),
                false => coder.encode_sparse(h.view()),
            };
            let rebuilt = Rebuilt::of_piece(h.view(), coder.decode_sparse(&latents, h.view()).view());
            (latents, rebuilt)
        };
        let firsts: Vec<usize> = (0..samples).step_by(PIECE).collect();
        let pieces: Vec<(Codes<f32>, Rebuilt)> = firsts.into_par_iter().map(piece).collect();
        let mut coded = Coded { latents: Codes::new(coder.n_latents()), rebuilt: Rebuilt::new(self.d_hidden) };
        for (latents, rebuilt) in pieces {
            coded.latents.append(&latents);
            coded.rebuilt.add(&rebuilt);
        }
        coded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline;
    use crate::data::{Dictionary, Magnitude, MagnitudeSharing, World};
    use crate::hidden::HiddenMaker;
    use std::sync::Arc;

    fn source() -> HiddenSource {
        let world = World {
            n_features: 30,
            firing_probability: vec![0.1; 30],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let vectors = (0..30 * 6).map(|k| ((k * 37) % 11) as f32 - 5.0).collect();
        let dictionary = Dictionary { n_features: 30, d_hidden: 6, vectors, bias: vec![0.5; 6], noise: 0.1 };
        HiddenSource { world: Arc::new(world), seed: 3, maker: HiddenMaker::Dictionary(Arc::new(dictionary)) }
    }

    #[test]
    fn samples_kept_or_drawn_again_are_those_of_one_batch_and_are_coded_alike() {
        let (source, samples) = (source(), 2 * PIECE + 100);
        let mut whole = HiddenBatch::default();
        source.draw(Stream::Evaluate, 0, samples, &mut whole);
        let kept = Samples::draw(&source, samples);
        let x = Array2::from_shape_fn((samples, 30), |(s, i)| whole.x.value(s, i));
        assert_eq!(kept.x().codes(), &Codes::of_dense(x.view()));
        let h = Array2::from_shape_vec((samples, 6), whole.h.clone()).expect("six numbers a sample");
        assert_eq!(kept.h.as_ref(), Some(&h));
        let coder = baseline::random(12, 6, Some(3), 1);
        let dense = coder.encode(h.view());
        let expected = Rebuilt::of(h.view(), coder.decode(dense.view(), h.view()).view());
        for samples in [Samples { h: None, ..Samples::draw(&source, samples) }, kept] {
            let coded = samples.code(&coder);
            assert_eq!(coded.latents, Codes::of_dense(dense.view()));
            assert_eq!(coded.rebuilt, expected);
        }
    }
}
