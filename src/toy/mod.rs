//! Toy models: x through d_hidden dimensions and back.

pub mod embedding;
pub mod model;
pub mod theory;
pub mod train;

pub use model::{
    Activation, LossScale, Mlp, ToyInit, ToyJob, ToyKind, ToyModel, ToyOutcome, ToyTrace, ToyTrain, TrainingEnd,
};
pub use theory::Phase;

/// Version of what toy training computes, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 2;
