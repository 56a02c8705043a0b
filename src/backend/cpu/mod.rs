//! The CPU backend.

pub mod sae;
