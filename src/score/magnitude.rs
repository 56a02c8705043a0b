//! Are latents as large as they should be?

use super::definition::{Definition, Kind, Need, Shape};
use super::matching::pairs;
use super::vector::{Directions, Real, Rows};
use super::{Undefined, Value};

pub const MAGNITUDE_SLOPE: Definition = Definition {
    name: "magnitude_slope",
    version: 1,
    meaning: "size of a matched latent's contribution per size of its feature's; 1 is no shrinkage",
    formula: "sum u v / sum u^2 over matched pairs and samples, u = x_i ||W_i||, v = z_j ||decoder_j||",
    source: "Wright & Sharkey 2024, Addressing feature suppression in SAEs",
    needs: &[Need::Truth, Need::Dictionary, Need::Features, Need::Latents],
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "magnitude slope (1: no shrinkage)",
    better: None,
};

/// [`MAGNITUDE_SLOPE`]: one pooled regression through 0, not a mean of slopes. Samples with x_i = 0 drop out by themselves.
pub fn magnitude_slope<T: Real>(
    truth: &Directions,
    dictionary: &Directions,
    features: &Rows<T>,
    latents: &Rows<T>,
    matching: &[Option<usize>],
) -> Value {
    let pairs = pairs(matching);
    let mut sums = vec![(0.0f64, 0.0f64); pairs.len()];
    for (x, z) in features.rows().zip(latents.rows()) {
        for ((xz, xx), &(i, j)) in sums.iter_mut().zip(&pairs) {
            let (x, z): (f64, f64) = (x[i].into(), z[j].into());
            *xz += x * z;
            *xx += x * x;
        }
    }
    let (mut uv, mut uu) = (0.0, 0.0);
    for (&(xz, xx), &(i, j)) in sums.iter().zip(&pairs) {
        uv += xz * truth.norms[i] * dictionary.norms[j];
        uu += xx * truth.norms[i] * truth.norms[i];
    }
    if uu > 0.0 { Ok(uv / uu) } else { Err(Undefined("no matched feature is ever active")) }
}
