//! Training on an NVIDIA GPU.
//!
//! ```text
//! kernels/   CUDA C++, one concept a file; common.cuh is what they share, emulation.h runs them on a CPU
//! device     what a machine that runs kernels is asked for: memory and launches
//! emulated   such a machine for tests, made by the C++ compiler
//! toy/       trains toy models: batches, groups, launches
//! ```

pub mod device;
#[cfg(test)]
pub mod emulated;
pub mod toy;
