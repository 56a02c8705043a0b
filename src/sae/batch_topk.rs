//! The BatchTopK autoencoder (Bussmann et al. 2024, "BatchTopK sparse autoencoders"), as SAELens trains it.
//!
//! ```text
//! training:   z_j = ReLU(pre_j) where ReLU(pre_j) |decoder_j| is among the ⌊k n⌋ greatest of the batch of n samples
//! threshold:  t ← .99 t + .01 (least kept), from 0, once a step, before the weights move
//! inference:  z_j = pre_j where pre_j |decoder_j| > t
//! ```
//!
//! A sample alone has no batch, so after training the running threshold decides; its L0 on new samples is near k, not k. With
//! [`BatchInference::Batch`] the training rule is applied to batches of evaluation samples instead: that is what SAELens'
//! synthetic runner reports, where L0 is k by construction.

use super::program::{BatchInference, Program, Rule};

/// What is left of the running threshold after a step.
pub const THRESHOLD_DECAY: f64 = 0.99;

/// `aux_k` of 0 leaves the auxiliary loss out.
pub fn program(k: f64, aux_k: usize, inference: BatchInference) -> Program {
    Program { aux_k, ..Program::plain(Rule::BatchTop { k, inference }) }
}

/// How many entries of a batch are kept.
pub fn count(k: f64, samples: usize) -> usize {
    (k * samples as f64).floor() as usize
}

/// The running threshold after a step whose least kept ReLU(pre) |decoder| is `least`; nothing kept leaves it as it is.
pub fn moved_threshold(threshold: f64, least: Option<f64>) -> f64 {
    least.map_or(threshold, |least| THRESHOLD_DECAY * threshold + (1.0 - THRESHOLD_DECAY) * least)
}
