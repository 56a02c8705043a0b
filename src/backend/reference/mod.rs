//! Training by plain f64 loops, for tests: slow, short, and what the other backends are held to.

pub mod sae;
pub mod toy;
