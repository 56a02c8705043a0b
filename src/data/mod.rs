//! The world: ground-truth features, their law, and a dictionary where no toy model makes the hidden states.

pub mod curve;
pub mod dataset;
pub mod dictionary;
pub mod events;
pub mod law;
pub mod moments;
pub mod sampler;
pub mod world;

pub use curve::Curve;
pub use dataset::{Dataset, Order};
pub use dictionary::Dictionary;
pub use events::Events;
pub use moments::Moments;
pub use sampler::{Batch, Sampler};
pub use world::{Finite, Group, GroupRule, Magnitude, MagnitudeSharing, World};
