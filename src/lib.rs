//! tegum: toy superposition models and sparse autoencoders, scored against the truth.
//!
//! The steps in order; each knows those before it and nothing after. Deliberately absent: a step that trains or scores
//! while it draws, and a lock or a database under the rows.

/// 1. YAML to a checked experiment.
pub mod spec;

/// 2. Experiment to ordered cells with stable ids.
pub mod plan;

/// 3. The world: x, and h where a dictionary is given.
pub mod data;

/// 4. x to h to x': toy models and their theory.
pub mod toy;

/// 5. Batches of h, each with the x that produced it.
pub mod hidden;

/// Hidden states from elsewhere: files of activations.
pub mod activations;

/// 6. h to latents to a reconstruction.
pub mod sae;

/// What stands beside an autoencoder: random directions, principal directions, the truth.
pub mod baseline;

/// 7. Dictionary and latents against the truth.
pub mod score;

/// 8. Rows on disk.
pub mod store;

/// 9. Rows to answers.
pub mod table;

/// 10. Rows to pictures.
pub mod figure;

/// All steps together: what is missing of a plan is trained, scored and published.
pub mod run;

/// The command line.
pub mod cli;

/// Under steps 4 to 7: who trains.
pub mod backend;

/// Random numbers from a counter.
pub mod random;

/// Optimisers and schedules.
pub mod training;

/// Eigenvectors and least squares.
pub mod linalg;

/// Rows that are mostly zero.
pub mod codes;

/// How far a run is.
pub mod progress;

/// Golden arrays, for tests.
#[cfg(test)]
mod testing;
