//! The world: ground-truth features, their law, and a dictionary where no toy model makes the hidden states.

pub mod correlation;
pub mod curve;
pub mod dataset;
pub mod dictionary;
pub mod events;
pub mod hierarchy;
pub mod law;
pub mod linked;
pub mod moments;
pub mod normal;
pub mod orthogonalise;
pub mod rates;
pub mod sampler;
pub mod superposition;
pub mod torch;
pub mod world;

pub use correlation::{Correlation, CorrelationError, RandomCorrelation, RandomForm};
pub use curve::Curve;
pub use dataset::{Dataset, Order};
pub use dictionary::Dictionary;
pub use events::Events;
pub use hierarchy::{Family, Hierarchy, HierarchyError, Node, Trees};
pub use moments::Moments;
pub use orthogonalise::Orthogonalise;
pub use rates::Rates;
pub use sampler::{Batch, Sampler};
pub use superposition::Superposition;
pub use world::{Finite, Group, GroupRule, Magnitude, MagnitudeSharing, World};
