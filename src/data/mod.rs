//! The world: ground-truth features, their law, and a dictionary where no toy model makes the hidden states.

pub mod dictionary;
pub mod sampler;
pub mod world;

pub use sampler::{Batch, Sampler};
pub use world::{Group, GroupRule, Magnitude, MagnitudeSharing, World};
