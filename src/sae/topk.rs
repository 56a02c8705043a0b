//! The TopK autoencoder (Gao et al. 2024, "Scaling and evaluating sparse autoencoders", section 2.3), as SAELens trains it.
//!
//! ```text
//! z = ReLU(pre) on the k latents of greatest pre_j |decoder_j|, else 0; ties to the lower latent
//! mean |h - ĥ|² + the auxiliary loss of `aux_k` dead latents
//! ```
//!
//! Selecting by pre_j |decoder_j| and decoding with unit rows is the same function as decoding z with the rows as they
//! are, so norms stay free and appear in the selection alone.

use super::program::{Program, Rule};

/// `aux_k` of 0 leaves the auxiliary loss out.
pub fn program(k: usize, aux_k: usize) -> Program {
    Program { aux_k, ..Program::plain(Rule::Top(k)) }
}
