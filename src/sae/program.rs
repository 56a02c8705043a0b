//! What one training step of an architecture does, as data.
//!
//! Every architecture here encodes pre = W_enc (h - b_dec) + b_enc and reconstructs ĥ = W_decᵀ z + b_dec. They differ in
//! which entries of pre become z, in what is added to the mean squared error, and in what holds the decoder. A program
//! says just that; backends interpret it and own everything else: data, gradients, clipping, optimiser, dead latents.

use crate::backend::ops::select::Keep;

/// One architecture's step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Program {
    /// Which pre-activations become z, in training and at inference alike; the derivative of a kept z by its pre is 1.
    pub keep: Keep,
    /// What is added to the mean squared error for each latent.
    pub penalty: Penalty,
    /// Dead latents that reconstruct the residual of each sample (Gao et al. 2024, appendix A.2); 0: no such loss.
    ///
    /// The `aux_k` (or as many as are dead) dead latents of greatest pre_j |decoder_j|, without ReLU and without b_dec,
    /// reconstruct h - ĥ, held constant. Their mean squared error, times min(n_dead / aux_k, 1), joins the loss.
    pub aux_k: usize,
    /// Decoder rows stay unit: their gradients' parts along the rows are taken out, and each step ends by dividing rows
    /// by their norms.
    pub unit_decoder: bool,
    /// Norm of the initial decoder rows.
    pub init_norm: f64,
}

/// A penalty on latents, mean over the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Penalty {
    /// No penalty.
    None,
    /// coefficient · Σ_j z_j, or coefficient · Σ_j z_j |decoder_j|, whose gradient reaches the decoder.
    L1 {
        /// Weight in the loss.
        coefficient: f64,
        /// Whether latents count times their decoder rows' norms.
        by_norm: bool,
    },
}
