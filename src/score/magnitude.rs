//! Are latents as large as they should be?

use rayon::prelude::*;

use super::activity::Activity;
use super::definition::{Definition, Kind, Need, Shape};
use super::matching::pairs;
use super::vector::{Directions, Real};
use super::{Undefined, Value};
use crate::codes::Codes;

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
    features: &Activity<'_, T>,
    latents: &Codes<T>,
    matching: &[Option<usize>],
) -> Value {
    let pairs = pairs(matching);
    let sums = pairs.par_iter().map(|&(i, j)| {
        let (mut xz, mut xx) = (0.0f64, 0.0f64);
        for (sample, x) in features.columns().entries(i) {
            let (x, z): (f64, f64) = (x.into(), latents.at(sample, j).into());
            xz += x * z;
            xx += x * x;
        }
        (xz, xx)
    });
    let sums: Vec<(f64, f64)> = sums.collect();
    let (mut uv, mut uu) = (0.0, 0.0);
    for (&(xz, xx), &(i, j)) in sums.iter().zip(&pairs) {
        uv += xz * truth.norms[i] * dictionary.norms[j];
        uu += xx * truth.norms[i] * truth.norms[i];
    }
    if uu > 0.0 { Ok(uv / uu) } else { Err(Undefined("no matched feature is ever active")) }
}
