//! How well hidden states are rebuilt.

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::vector::{Real, Rows, square, squared_distance};
use super::{NO_SAMPLES, Undefined, Value};

const NEEDS: &[Need] = &[Need::Hidden, Need::Reconstruction];

/// Below this the hidden states are taken for constant.
const CONSTANT: f64 = 1e-10;

/// Hidden states this short have no ratio of norms.
const SHORT: f64 = 1e-6;

pub const EXPLAINED_VARIANCE: Definition = Definition {
    name: "explained_variance",
    version: 1,
    meaning: "share of the hidden states' variance that the reconstruction explains, pooled over samples and dimensions",
    formula: "1 - E||h - h^||^2 / E||h - E h||^2; where the denominator is below 1e-10, 1 if E||h - h^||^2 is too, else 0",
    source: "SAELens synthetic/evals.py",
    needs: NEEDS,
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "explained variance",
    better: Some(Better::Higher),
};

pub const FVU: Definition = Definition {
    name: "fvu",
    version: 1,
    meaning: "fraction of variance unexplained",
    formula: "1 - explained_variance",
    source: "Cunningham et al. 2023, Sparse autoencoders find highly interpretable features, arXiv 2309.08600",
    needs: NEEDS,
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "fraction of variance unexplained (FVU)",
    better: Some(Better::Lower),
};

pub const SHRINKAGE: Definition = Definition {
    name: "shrinkage",
    version: 1,
    meaning: "mean length of the reconstruction over that of the hidden state; below 1 it is too short",
    formula: "mean of ||h^|| / ||h|| over samples with ||h|| > 1e-6",
    source: "SAELens synthetic/evals.py",
    needs: NEEDS,
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "relative length of the reconstruction",
    better: None,
};

/// [`EXPLAINED_VARIANCE`] of `[samples, d_hidden]` pairs.
pub fn explained_variance<T: Real>(hidden: &Rows<T>, reconstruction: &Rows<T>) -> Value {
    if hidden.n_rows == 0 {
        return Err(NO_SAMPLES);
    }
    let n = hidden.n_rows as f64;
    let mut mean = vec![0.0f64; hidden.n_columns];
    for h in hidden.rows() {
        mean.iter_mut().zip(h).for_each(|(sum, &value)| *sum += value.into());
    }
    mean.iter_mut().for_each(|sum| *sum /= n);
    // Deviations from the mean itself: E||h||² - ||E h||² would lose digits where the mean is large.
    let mut spread = vec![0.0f64; hidden.n_columns];
    let mut error = 0.0;
    for (h, r) in hidden.rows().zip(reconstruction.rows()) {
        for ((sum, &value), mean) in spread.iter_mut().zip(h).zip(&mean) {
            let deviation = value.into() - mean;
            *sum += deviation * deviation;
        }
        error += squared_distance(h, r);
    }
    let (error, variance) = (error / n, spread.iter().sum::<f64>() / n);
    Ok(match variance {
        variance if variance >= CONSTANT => 1.0 - error / variance,
        _ if error < CONSTANT => 1.0,
        _ => 0.0,
    })
}

/// [`SHRINKAGE`] of `[samples, d_hidden]` pairs.
pub fn shrinkage<T: Real>(hidden: &Rows<T>, reconstruction: &Rows<T>) -> Value {
    let ratio = |(h, r): (&[T], &[T])| {
        let length = square(h).sqrt();
        (length > SHORT).then(|| square(r).sqrt() / length)
    };
    super::vector::mean(hidden.rows().zip(reconstruction.rows()).filter_map(ratio))
        .ok_or(Undefined("no hidden state is longer than 1e-6"))
}
