//! tegum: toy superposition models and sparse autoencoders, scored against the truth.

/// 3. The world: x, and h where a dictionary is given.
pub mod data;

/// 4. x to h to x': toy models, their geometry, their theory.
pub mod toy;

/// 5. Batches of h, each with the x that produced it.
pub mod hidden;

/// 6. h to latents to a reconstruction.
pub mod sae;

/// 8. Rows on disk.
pub mod store;

/// 9. Rows to answers.
pub mod table;

/// Under steps 4 to 7: who trains.
pub mod backend;

/// Random numbers from a counter.
pub mod random;

/// Optimisers and schedules.
pub mod training;
