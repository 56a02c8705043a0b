//! Toy models: x through d_hidden dimensions and back.

pub mod model;

pub use model::{LossScale, ToyInit, ToyJob, ToyKind, ToyModel, ToyOutcome, ToyTrace, ToyTrain, TrainingEnd};
