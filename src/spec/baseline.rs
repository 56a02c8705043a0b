//! The `baselines` section: what is put beside the sparse autoencoders.

use super::kind::{Count, Maybe, Share, Steps, Width};
use super::kind::{choice, record};
use super::sae::EntryKind;

choice! {
    /// What stands in for a sparse autoencoder.
    pub enum BaselineKind as "baseline" {
        /// Random unit directions.
        random => Random(RandomSection as RandomSection),
        /// Principal directions of the hidden states.
        pca => Pca(PcaSection as PcaSection),
        /// The true dictionary with an encoder of choice.
        oracle => Oracle(OracleSection as OracleSection),
    }
    later ["ica", "nmf", "kmeans", "ksvd", "online_dictionary_learning"]
}

record! {
    /// Random directions.
    pub struct RandomSection as "random" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most; none: all with a positive product.
        k: Option<usize> as Maybe<Count> = "none",
    }
}

record! {
    /// Principal directions.
    pub struct PcaSection as "pca" {
        /// Directions kept; none: d_hidden.
        n_latents: Option<usize> as Maybe<Width> = "none",
    }
}

record! {
    /// The truth as a dictionary.
    pub struct OracleSection as "oracle" {
        /// How latents are found.
        encoder: EncoderSection as EncoderSection = "omp",
        /// Active latents per sample, at most; for `topk` and `omp`, which need it.
        k: Option<usize> as Maybe<Count> = "none",
    }
}

choice! {
    /// Encoder of an oracle.
    pub enum EncoderSection as "encoder" {
        /// The k greatest products, then ReLU.
        topk => TopK,
        /// Orthogonal matching pursuit to k directions.
        omp => Omp,
        /// Least L1 norm, by proximal gradient steps (Beck & Teboulle 2009); codes are non-negative where magnitudes are.
        fista => Fista(FistaSection as FistaSection),
    }
    later ["relu", "least_squares"]
}

record! {
    /// The search for the least L1 norm.
    pub struct FistaSection as "fista" {
        /// Weight of the L1 norm at the end, as a share of the sample's greatest product; it starts at a tenth of that.
        l1: f64 as Share = "1e-6",
        /// Steps per sample, at most.
        max_steps: usize as Steps = "20000",
    }
}

impl EntryKind for BaselineKind {
    const TRAINED: bool = false;
}
