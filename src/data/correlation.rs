//! A Gaussian copula between the firings of features (SAELens `synthetic/correlation.py`).
//!
//! Feature i fires where g_i > t_i, with t_i = Phi^-1(1 - p_i) and g a normal vector of unit variances: the probabilities
//! stay what they were, firings depend on each other as the correlations of g say.

/// The law of g.
#[derive(Clone, Debug, PartialEq)]
pub enum Correlation {
    /// g ~ N(0, C).
    Full {
        /// C, `[n_features, n_features]`: symmetric, unit diagonal, no eigenvalue below -1e-6; it may be singular.
        matrix: Vec<f64>,
    },
    /// g = F eps + sqrt(D) eta, eps ~ N(0, I_rank), eta ~ N(0, I).
    LowRank {
        /// r.
        rank: usize,
        /// F, `[n_features, rank]`.
        factor: Vec<f32>,
        /// D, `[n_features]`: 1 - sum over k of F_ik^2, positive.
        diagonal: Vec<f32>,
    },
}
