//! The matching pursuit autoencoder (Costa et al. 2025, "From flat to hierarchical: extracting sparse representations with
//! matching pursuit"), as SAELens trains it.
//!
//! ```text
//! r = h - b_dec;  up to k times:
//!     j = the latent of greatest w_j · r, ties to the lower;  v = ReLU(w_j · r)
//!     z_j += v,  r -= v w_j
//!     done where no latent was new (`stop_on_duplicate`) or |r| < `residual_threshold`
//! loss: mean |r|²;  gradients flow through every v and r, the choice of j is constant
//! ```
//!
//! Encoder and decoder are one matrix without encoder bias, rows start with norm 1 and are free unless `unit_decoder`. With
//! γ_k = 2 (ĥ - h) / n and γ_{t-1} = γ_t - (γ_t · w_{j_t}) w_{j_t}, the gradient of row j is the sum over the iterations t
//! that chose it of v_t γ_t + (γ_t · w_j) r_t, where r_t is what was left before iteration t.

use super::program::{Program, Pursuit, Rule};

/// Rows of norm 1 at the start.
pub fn program(pursuit: Pursuit, unit_decoder: bool) -> Program {
    Program { tied: true, unit_decoder, init_norm: 1.0, ..Program::plain(Rule::Pursuit(pursuit)) }
}
