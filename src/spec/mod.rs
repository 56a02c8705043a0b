//! 1. YAML to a checked experiment.
//!
//! [`node`] keeps every key's place, [`kind`] says what values may be, the sections are declared with it, and
//! [`document`] reads a whole file with its axes, noting every error before anything runs.

pub mod activations;
pub mod baseline;
pub mod check;
pub mod curve;
pub mod data;
pub mod diagnostic;
pub mod document;
pub mod entry;
pub mod experiment;
pub mod explain;
pub mod figure;
pub mod kind;
pub mod linked;
pub mod node;
pub mod output;
pub mod sae;
pub mod sae_check;
mod surface;
pub mod sweep;
pub mod synthetic;
pub mod toy;

pub use document::Document;
pub use experiment::Experiment;
