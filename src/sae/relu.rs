//! The ReLU autoencoder with an L1 penalty.
//!
//! ```text
//! z = ReLU(W_enc (h - b_dec) + b_enc)
//! UnitNorm:     mean |h - ĥ|² + l1 mean Σ_j z_j                     Bricken et al. 2023, "Towards Monosemanticity"
//! NormPenalty:  mean |h - ĥ|² + l1 mean Σ_j z_j |decoder_j|         Anthropic, April 2024 update
//! ```

use super::DecoderRule;
use super::program::{Penalty, Program, Rule};

/// Decoder rows start with norm 1 where they stay there, else with 0.1.
pub fn program(l1: f64, decoder: DecoderRule) -> Program {
    let unit_decoder = decoder == DecoderRule::UnitNorm;
    Program {
        penalty: Penalty::L1 { coefficient: l1, by_norm: !unit_decoder },
        unit_decoder,
        init_norm: if unit_decoder { 1.0 } else { 0.1 },
        ..Program::plain(Rule::Positive)
    }
}
