//! Scale of the inputs: what an autoencoder sees of h, and what becomes of its reconstruction.
//!
//! ```text
//! none            n = h
//! mean_norm       n = h sqrt(d) / mean |h|                   one factor, folded into the weights after training
//! constant_norm   n = (h - μ) / σ,  μ = 0, σ = |h| / sqrt(d)
//! layer_norm      n = (h - μ) / (σ + 1e-5),  μ and σ the mean and standard deviation (d - 1) of the coordinates of h
//! ```
//!
//! Under the last two, which SAELens calls `constant_norm_rescale` and `layer_norm`, every sample has a μ and σ of its own.
//! The loss is taken on n (Gao et al. 2024, arXiv 2406.04093, section 2.1; SAELens takes it on h, where long samples weigh
//! more). Latents are in units of h: σ times those of n, so that z_j decoder_j is what latent j contributes to
//! ĥ = Σ z_j decoder_j + σ b_dec + μ.

use crate::hidden::{HiddenBatch, SaeStream};

/// Training batches whose mean norm sets the scale of the inputs under [`Normalise::MeanNorm`]: the first ones of the
/// training stream, in the size of the job's own batches.
const NORM_BATCHES: u32 = 64;

/// What layer_norm adds to a standard deviation before it divides by it, as SAELens does.
const EPSILON: f64 = 1e-5;

/// Scale of the inputs an SAE sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Normalise {
    /// As they are.
    #[default]
    None,
    /// Times sqrt(d) / mean norm of the first batches.
    MeanNorm,
    /// Every sample at norm sqrt(d).
    ConstantNorm,
    /// Every sample at mean 0 and standard deviation 1.
    LayerNorm,
}

/// How a sample that was normalised by itself is brought back: h = σ n + μ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Undo {
    /// σ
    pub scale: f32,
    /// μ
    pub shift: f32,
}

impl Normalise {
    /// Every one of them.
    pub const ALL: [Normalise; 4] =
        [Normalise::None, Normalise::MeanNorm, Normalise::ConstantNorm, Normalise::LayerNorm];

    /// Whether every sample is normalised by itself.
    pub fn by_sample(self) -> bool {
        matches!(self, Normalise::ConstantNorm | Normalise::LayerNorm)
    }

    /// What training does to the hidden states of a stream drawn in batches of `batch_size`.
    pub fn inputs(self, stream: &SaeStream, batch_size: usize) -> Inputs {
        let scale = if self == Normalise::MeanNorm { mean_scale(stream, batch_size) } else { 1.0 };
        Inputs { normalise: self, scale }
    }

    /// Normalises samples `[samples, d]` that are normalised by themselves, and says how to undo it. Sums are taken in order in
    /// f64; a sample without length or deviation becomes 0.
    pub fn samples(self, h: &mut [f32], d: usize) -> Vec<Undo> {
        h.chunks_exact_mut(d).map(|row| self.sample(row)).collect()
    }

    fn sample(self, row: &mut [f32]) -> Undo {
        let d = row.len() as f64;
        let (shift, scale, divisor) = match self {
            Normalise::None | Normalise::MeanNorm => return Undo { scale: 1.0, shift: 0.0 },
            Normalise::ConstantNorm => {
                let scale = norm(row) / d.sqrt();
                (0.0, scale, scale)
            }
            Normalise::LayerNorm => {
                let mean = row.iter().map(|&x| x as f64).sum::<f64>() / d;
                let square: f64 = row.iter().map(|&x| (x as f64 - mean).powi(2)).sum();
                let scale = if d > 1.0 { (square / (d - 1.0)).sqrt() } else { 0.0 };
                (mean, scale, scale + EPSILON)
            }
        };
        for x in row {
            *x = if divisor > 0.0 { ((*x as f64 - shift) / divisor) as f32 } else { 0.0 };
        }
        Undo { scale: scale as f32, shift: shift as f32 }
    }
}

/// A normalisation whose numbers are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// Which.
    pub normalise: Normalise,
    /// The one factor of all samples: 1 but for [`Normalise::MeanNorm`].
    pub scale: f64,
}

impl Inputs {
    /// Samples `[samples, d]` as training sees them. The product with the scale is rounded to f32.
    pub fn see(&self, h: &[f32], d: usize) -> Vec<f32> {
        let mut seen: Vec<f32> = h.iter().map(|&h| h * self.scale as f32).collect();
        if self.normalise.by_sample() {
            self.normalise.samples(&mut seen, d);
        }
        seen
    }
}

/// sqrt(d) over the mean norm in the first batches; 1 where all are 0.
fn mean_scale(stream: &SaeStream, batch_size: usize) -> f64 {
    let (mut batch, mut total) = (HiddenBatch::default(), 0.0);
    for step in 0..NORM_BATCHES {
        stream.draw_hidden(step, batch_size, &mut batch);
        total += batch.h.chunks_exact(batch.d_hidden).map(norm).sum::<f64>();
    }
    let mean = total / (NORM_BATCHES as usize * batch_size) as f64;
    if mean > 0.0 { (batch.d_hidden as f64).sqrt() / mean } else { 1.0 }
}

fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (3, 4, 0, 0): norm 5, so σ = 5/2; mean 7/4, squared deviations 25 - 4 (7/4)² = 12.75, so σ = sqrt(4.25).
    #[test]
    fn a_sample_by_hand() {
        let h = [3.0f32, 4.0, 0.0, 0.0];
        let mut constant = h;
        assert_eq!(Normalise::ConstantNorm.samples(&mut constant, 4), [Undo { scale: 2.5, shift: 0.0 }]);
        assert_eq!(constant, [1.2, 1.6, 0.0, 0.0]);
        let mut layer = h;
        let undo = Normalise::LayerNorm.samples(&mut layer, 4)[0];
        assert_eq!(undo, Undo { scale: 4.25f64.sqrt() as f32, shift: 1.75 });
        for (n, h) in layer.iter().zip(h) {
            assert_eq!(*n, ((h as f64 - 1.75) / (4.25f64.sqrt() + 1e-5)) as f32);
        }
    }

    #[test]
    fn what_was_done_to_samples_of_any_width_is_undone() {
        for d in [1, 2, 7, 8, 9] {
            let h: Vec<f32> = (0..5 * d).map(|k| ((k * 37) % 11) as f32 - 4.5).collect();
            for normalise in [Normalise::ConstantNorm, Normalise::LayerNorm] {
                let mut seen = h.clone();
                let undo = normalise.samples(&mut seen, d);
                for ((n, h), undo) in seen.chunks_exact(d).zip(h.chunks_exact(d)).zip(undo) {
                    for (n, h) in n.iter().zip(h) {
                        // Numbers below 10, two roundings to f32 each, and 1e-5 of the deviation under layer_norm.
                        assert!((undo.scale * n + undo.shift - h).abs() < 1e-4, "{normalise:?} d={d}");
                    }
                }
            }
        }
    }

    #[test]
    fn samples_without_length_or_deviation_become_zero_and_come_back() {
        let mut zeros = [0.0f32; 3];
        assert_eq!(Normalise::ConstantNorm.samples(&mut zeros, 3), [Undo { scale: 0.0, shift: 0.0 }]);
        assert_eq!(zeros, [0.0; 3]);
        let mut flat = [2.0f32; 3];
        assert_eq!(Normalise::LayerNorm.samples(&mut flat, 3), [Undo { scale: 0.0, shift: 2.0 }]);
        assert_eq!(flat, [0.0; 3]);
        let mut single = [2.0f32];
        assert_eq!(Normalise::LayerNorm.samples(&mut single, 1), [Undo { scale: 0.0, shift: 2.0 }]);
        assert_eq!(Normalise::None.samples(&mut [], 3), []);
    }
}
