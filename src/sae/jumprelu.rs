//! The JumpReLU autoencoder (Rajamanoharan et al. 2024, "Jumping ahead"), with the thresholds themselves as parameters, as
//! SAELens has it.
//!
//! ```text
//! z = pre where pre > θ, else 0
//! step:       mean |h - ĥ|² + l0 mean Σ_j 1[pre_j > θ_j]
//! tanh:       mean |h - ĥ|² + l0 mean Σ_j tanh(scale z_j |decoder_j|)
//! quadratic:  mean |h - ĥ|² + l0 mean 2/target (L0 - target)²
//! straight-through, rect(v) = 1 where |v| < 1/2:
//!   ∂z/∂θ = -(θ/ε) rect((pre - θ)/ε),   ∂1[pre > θ]/∂θ = -(1/ε) rect((pre - θ)/ε)
//! ```
//!
//! θ is made at least 0 after each step. `input_gradient` lets the negatives of both estimates reach pre as well
//! (Anthropic); otherwise pre gets ∂z/∂pre = 1[pre > θ] and nothing from the count.

use super::program::{Penalty, Program, Rule};

/// A length that may depend on the data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// As it is.
    Absolute(f64),
    /// Times the size of one feature in the hidden states: their spread over the square root of the wanted L0.
    Relative(f64),
}

impl Size {
    /// The length where one feature has size `unit`.
    pub fn at(self, unit: f64) -> f64 {
        match self {
            Size::Absolute(length) => length,
            Size::Relative(factor) => factor * unit,
        }
    }
}

/// What is counted as sparsity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sparsity {
    /// The number of active latents.
    Step,
    /// Σ tanh(scale z |decoder|).
    Tanh {
        /// Steepness.
        scale: f64,
    },
    /// 2/target (L0 - target)².
    Quadratic {
        /// L0 of least loss.
        target: f64,
    },
}

/// Settings of a JumpReLU autoencoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JumpRelu {
    /// Weight of the sparsity loss.
    pub l0: f64,
    /// Which sparsity loss.
    pub sparsity: Sparsity,
    /// ε.
    pub bandwidth: Size,
    /// Initial θ.
    pub threshold: Size,
    /// Norm of the initial decoder rows.
    pub init_norm: f64,
    /// Straight-through gradients reach pre.
    pub input_gradient: bool,
    /// Weight of Σ ReLU(θ - pre) |decoder| over dead latents; 0: none.
    pub silent: f64,
}

/// The program where one feature has size `unit`.
pub fn program(settings: &JumpRelu, unit: f64) -> Program {
    let coefficient = settings.l0;
    let rule = Rule::Jump {
        bandwidth: settings.bandwidth.at(unit),
        input_gradient: settings.input_gradient,
        silent: settings.silent,
    };
    let penalty = match settings.sparsity {
        Sparsity::Step => Penalty::Step { coefficient },
        Sparsity::Tanh { scale } => Penalty::Tanh { coefficient, scale },
        Sparsity::Quadratic { target } => Penalty::Quadratic { coefficient, target },
    };
    let (init_norm, init_threshold) = (settings.init_norm, settings.threshold.at(unit));
    Program { penalty, init_norm, init_threshold, ..Program::plain(rule) }
}
