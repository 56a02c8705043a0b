//! The `baselines` section: what is put beside the sparse autoencoders.

use super::entry::EntryKind;
use super::kind::{Count, Maybe, NonNegative, Samples, Share, Steps, Width};
use super::kind::{choice, record};
use super::sae::SaeTrainSection;

choice! {
    /// What stands in for a sparse autoencoder.
    pub enum BaselineKind as "baseline" {
        /// Random unit directions.
        random => Random(RandomSection as RandomSection),
        /// Principal directions of the hidden states.
        pca => Pca(PcaSection as PcaSection),
        /// Independent components (FastICA): latents of either sign, all of them fire.
        ica => Ica(IcaSection as IcaSection),
        /// Semi-non-negative matrix factorisation (Ding et al. 2010): non-negative codes, directions of either sign.
        nmf => Nmf(NmfSection as NmfSection),
        /// Spherical k-means with gains (Coates & Ng 2012), k-means++ start: one direction for each cluster of directions.
        kmeans => KMeans(KMeansSection as KMeansSection),
        /// K-SVD with non-negative codes (Aharon et al. 2006): matching pursuit, then one direction after the other.
        ksvd => KSvd(KSvdSection as KSvdSection),
        /// Online dictionary learning (Mairal et al. 2009), non-negative codes.
        online_dictionary_learning => Online(OnlineSection as OnlineSection),
        /// The true dictionary with an encoder of choice.
        oracle => Oracle(OracleSection as OracleSection),
    }
}

record! {
    /// Random directions.
    pub struct RandomSection as "random" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most; none: all with a positive product.
        k: Option<usize> as Maybe<Count> = "none",
        /// How latents are found.
        encoder: RandomEncoderSection as RandomEncoderSection = "products",
        /// Weight of the L1 penalty of a trained encoder, where no `k` is given.
        l1: f64 as NonNegative = "0.05",
    }
}

choice! {
    /// Encoder of random directions.
    pub enum RandomEncoderSection as "random encoder" {
        /// Products with the directions themselves.
        products => Products,
        /// That of an autoencoder whose decoder is held at the directions, its bias at the geometric median of hidden states:
        /// TopK where `k` is given, else ReLU with `l1`.
        trained => Trained(SaeTrainSection as SaeTrainSection),
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
    /// Independent components: the first of the principal directions, unmixed by FastICA (Hyvärinen 1999; symmetric, tanh).
    pub struct IcaSection as "ica" {
        /// Components, at most d_hidden; none: d_hidden.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Training samples of the fixed point.
        samples: usize as Samples = "16384",
        /// Rounds at most.
        iterations: usize as Steps = "200",
    }
}

record! {
    /// Semi-non-negative matrix factorisation.
    pub struct NmfSection as "nmf" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most, by matching pursuit; none: the non-negative codes of least L1 norm.
        k: Option<usize> as Maybe<Count> = "none",
        /// Training samples.
        samples: usize as Samples = "8192",
        /// Rounds.
        iterations: usize as Steps = "100",
        /// What is taken off the hidden states first.
        centre: CentreSection as CentreSection = "none",
    }
}

record! {
    /// Spherical k-means with gains.
    pub struct KMeansSection as "kmeans" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most: the greatest products. Clusters are found with one.
        k: usize as Count = "1",
        /// Training samples.
        samples: usize as Samples = "16384",
        /// Rounds at most.
        iterations: usize as Steps = "100",
        /// What is taken off the hidden states first.
        centre: CentreSection as CentreSection = "none",
    }
}

record! {
    /// K-SVD.
    pub struct KSvdSection as "ksvd" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most, in training and after it, by matching pursuit.
        k: usize as Count = required "4",
        /// Training samples.
        samples: usize as Samples = "16384",
        /// Rounds.
        iterations: usize as Steps = "50",
        /// What is taken off the hidden states first.
        centre: CentreSection as CentreSection = "none",
    }
}

record! {
    /// Online dictionary learning.
    pub struct OnlineSection as "online_dictionary_learning" {
        /// Width of the dictionary; none: as the first entry of `sae`, or n_features.
        n_latents: Option<usize> as Maybe<Width> = "none",
        /// Active latents per sample, at most, by matching pursuit; none: the non-negative codes of least L1 norm.
        k: Option<usize> as Maybe<Count> = "none",
        /// Weight of the L1 norm while training, as a share of the sample's greatest product.
        l1: f64 as Share = "0.1",
        /// Training samples, walked again and again.
        samples: usize as Samples = "16384",
        /// Batches.
        iterations: usize as Steps = "300",
        /// Samples of a batch.
        batch_size: usize as Samples = "256",
        /// What is taken off the hidden states first.
        centre: CentreSection as CentreSection = "none",
    }
}

choice! {
    /// What is taken off the hidden states before a dictionary is learned, and added back to reconstructions.
    pub enum CentreSection as "centre" {
        /// Nothing.
        none => None,
        /// The mean of the training samples.
        mean => Mean,
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
        /// One step, ReLU(g_i . h + b), with the one b that reconstructs the training samples best.
        relu => Relu,
        /// Least squares on the features that truly fire: a bound that no encoder can undercut.
        least_squares => LeastSquares,
        /// The k greatest products, then ReLU.
        topk => TopK,
        /// Orthogonal matching pursuit to k directions.
        omp => Omp,
        /// Least L1 norm, by proximal gradient steps (Beck & Teboulle 2009); codes are non-negative where magnitudes are.
        fista => Fista(FistaSection as FistaSection),
    }
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

impl BaselineKind {
    /// The width, where a kind's default is that of the first SAE.
    pub fn shared_width(&mut self) -> Option<&mut Option<usize>> {
        match self {
            BaselineKind::Random(s) => Some(&mut s.n_latents),
            BaselineKind::Nmf(s) => Some(&mut s.n_latents),
            BaselineKind::KMeans(s) => Some(&mut s.n_latents),
            BaselineKind::KSvd(s) => Some(&mut s.n_latents),
            BaselineKind::Online(s) => Some(&mut s.n_latents),
            BaselineKind::Pca(_) | BaselineKind::Ica(_) | BaselineKind::Oracle(_) => None,
        }
    }

    /// Whether its width is left to that of the first SAE.
    pub fn follows_width(&self) -> bool {
        matches!(self.clone().shared_width(), Some(None))
    }

    /// How its encoder is trained, if it is.
    pub fn training(&self) -> Option<&SaeTrainSection> {
        match self {
            BaselineKind::Random(RandomSection { encoder: RandomEncoderSection::Trained(train), .. }) => Some(train),
            _ => None,
        }
    }

    /// Active latents per sample, at most, where a number is given.
    pub fn k(&self) -> Option<usize> {
        match self {
            BaselineKind::Random(s) => s.k,
            BaselineKind::Nmf(s) => s.k,
            BaselineKind::KMeans(s) => Some(s.k),
            BaselineKind::KSvd(s) => Some(s.k),
            BaselineKind::Online(s) => s.k,
            BaselineKind::Oracle(s) => s.k,
            BaselineKind::Pca(_) | BaselineKind::Ica(_) => None,
        }
    }
}

impl EntryKind for BaselineKind {
    const TRAINED: bool = false;
}
