//! Training on an NVIDIA GPU.
//!
//! ```text
//! kernels/   CUDA C++, one concept a file; common.cuh is what they share, emulation.h runs them on a CPU
//! modules    the same as the driver loads them: PTX that the binary carries, or made by NVRTC for the exact chip
//! nvrtc      NVIDIA's run-time compiler, where there is one
//! find       what of CUDA is on this machine, and what is missing
//! device     what a machine that runs kernels is asked for: memory and launches
//! driver     a GPU behind its driver's library, opened at run time
//! graph      launches that the driver keeps as one
//! emulated   a machine for tests, made by the C++ compiler
//! draw       batches of x
//! hidden     hidden states of batches
//! rows       rows of matrices as they lie there
//! toy        training of toy models
//! sae        training of sparse autoencoders
//! arithmetic f32, or TF32 by request
//! backend    jobs over GPUs
//! ```

pub mod arithmetic;
pub mod backend;
pub mod device;
pub mod draw;
pub mod driver;
#[cfg(test)]
pub mod emulated;
pub mod find;
mod graph;
pub mod hidden;
pub mod modules;
pub mod nvrtc;
mod rows;
pub mod sae;
pub mod toy;

pub use arithmetic::Arithmetic;
pub use backend::CudaBackend;
