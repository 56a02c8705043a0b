//! What stands in for an autoencoder: methods that know less (random directions, principal components, other ways to
//! learn a dictionary) or more (the truth) than one that is trained.
//!
//! Learners of dictionaries see the first samples of the training stream, all in memory; they and their encoders are
//! deterministic for any number of threads.

pub mod encoded;
pub mod fista;
pub mod ica;
pub mod kmeans;
pub mod ksvd;
mod matrix;
pub mod nmf;
pub mod online;
pub mod pca;
pub mod random;
pub mod sample;
#[cfg(test)]
mod testing;

pub use encoded::{Encoded, Encoding, encoded, relu_shift};
pub use fista::Fista;
pub use ica::{Ica, IndependentComponents};
pub use kmeans::KMeans;
pub use ksvd::KSvd;
pub use nmf::SemiNmf;
pub use online::OnlineDictionary;
pub use pca::{PrincipalComponents, pca};
pub use random::{RandomDirections, random};
pub use sample::{Centre, Sample};

/// Version of what baselines compute, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 1;

/// How a learned dictionary finds the codes of least L1 norm: non-negative, with a penalty of a hundredth of the sample's
/// greatest product. Learned directions give no sample exactly, so a lower penalty would spend codes on what is left.
pub const READ_BY_FISTA: Fista = Fista { l1: 0.01, max_steps: 500, signed: false };

/// The encoder of a learned dictionary: `k` steps of orthogonal matching pursuit, or [`READ_BY_FISTA`].
fn read_by(k: Option<usize>) -> Encoding {
    k.map_or(Encoding::Fista(READ_BY_FISTA), |k| Encoding::Omp { k })
}
