//! What stands in for an autoencoder: methods that know less (random directions, principal components) or more (the
//! truth) than one that is trained.

pub mod fista;
pub mod oracle;
pub mod pca;
pub mod random;

pub use fista::Fista;
pub use oracle::{Oracle, OracleEncoder, oracle};
pub use pca::{PrincipalComponents, pca};
pub use random::{RandomDirections, random};

/// Version of what baselines compute, part of every cell's id: raised when bits may change.
pub const VERSION: u32 = 1;
