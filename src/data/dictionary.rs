//! A fixed dictionary: hidden states without a toy model.

/// h = Σ_i x_i f_i + b, plus Gaussian noise of standard deviation `noise` on every coordinate.
#[derive(Clone, Debug, PartialEq)]
pub struct Dictionary {
    pub n_features: usize,
    pub d_hidden: usize,
    /// `[n_features, d_hidden]`, unit rows.
    pub vectors: Vec<f32>,
    /// `[d_hidden]`
    pub bias: Vec<f32>,
    pub noise: f64,
}
