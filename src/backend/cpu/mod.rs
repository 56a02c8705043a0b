//! Training on the CPU: vector kernels, one thread a model.

pub mod sae;
pub mod toy;
