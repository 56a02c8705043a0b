//! The gated autoencoder (Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders").
//!
//! ```text
//! u = W_enc (h - b_dec),  π = u + b_gate,  z = ReLU(exp(r_mag) u + b_mag) where π > 0, else 0
//! mean |h - ĥ|² + l1 mean Σ_j ReLU(π_j) + mean |h - ĥ_gate|²,   ĥ_gate = W_decᵀ ReLU(π) + b_dec
//! ```
//!
//! As in the paper decoder rows are unit, and decoder and decoder bias are held constant in ĥ_gate. SAELens leaves the decoder
//! free, weighs ReLU(π_j) by |decoder_j| and holds nothing constant: `parity`.

use super::program::{Penalty, Program, Rule};

/// With `parity` SAELens' objective, else the paper's.
pub fn program(l1: f64, parity: bool) -> Program {
    Program {
        penalty: Penalty::L1 { coefficient: l1, by_norm: parity },
        unit_decoder: !parity,
        init_norm: if parity { 0.1 } else { 1.0 },
        ..Program::plain(Rule::Gated { hold_decoder: !parity })
    }
}
