//! How well hidden states are rebuilt.

use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;

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
    version: 2,
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
    version: 2,
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
    version: 2,
    meaning: "mean length of the reconstruction over that of the hidden state; below 1 it is too short",
    formula: "mean of ||h^|| / ||h|| over samples with ||h|| > 1e-6",
    source: "SAELens synthetic/evals.py",
    needs: NEEDS,
    kind: Kind::Amount,
    shape: Shape::Scalar,
    label: "relative length of the reconstruction",
    better: None,
};

/// Samples of one piece of the sums.
pub const PIECE: usize = 1024;

/// Sums over hidden states and their reconstructions, piece by piece, so that neither need ever be held whole.
///
/// Pieces of [`PIECE`] samples, the last shorter, put together in order: the same bits whoever computes them. Squared
/// deviations are from the mean itself, of each piece and then of the pieces (Chan, Golub & LeVeque 1983, "Algorithms for
/// computing the sample variance"): E||h||² - ||E h||² would lose digits where the mean is large.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuilt {
    samples: usize,
    /// Mean of h, `[d_hidden]`.
    mean: Vec<f64>,
    /// Σ ||h - mean||²
    spread: f64,
    /// Σ ||h - ĥ||²
    error: f64,
    /// Σ ||ĥ|| / ||h|| over the samples that have such a ratio, and their number.
    ratios: (f64, usize),
}

impl Rebuilt {
    /// Of no samples.
    pub fn new(d_hidden: usize) -> Rebuilt {
        Rebuilt { samples: 0, mean: vec![0.0; d_hidden], spread: 0.0, error: 0.0, ratios: (0.0, 0) }
    }

    /// Of one piece, `[samples, d_hidden]` each.
    pub fn of_piece<T: Real>(hidden: ArrayView2<'_, T>, reconstruction: ArrayView2<'_, T>) -> Rebuilt {
        let (h, r) = (Rows::new(hidden), Rows::new(reconstruction));
        Rebuilt::of_rows(&h, &r, 0..h.n_rows)
    }

    /// Of all samples, `[samples, d_hidden]` each.
    pub fn of<T: Real>(hidden: ArrayView2<'_, T>, reconstruction: ArrayView2<'_, T>) -> Rebuilt {
        let (h, r) = (Rows::new(hidden), Rows::new(reconstruction));
        let piece = |piece: usize| Rebuilt::of_rows(&h, &r, piece * PIECE..((piece + 1) * PIECE).min(h.n_rows));
        let pieces: Vec<Rebuilt> = (0..h.n_rows.div_ceil(PIECE)).into_par_iter().map(piece).collect();
        let mut all = Rebuilt::new(h.n_columns);
        pieces.iter().for_each(|piece| all.add(piece));
        all
    }

    fn of_rows<T: Real>(hidden: &Rows<T>, reconstruction: &Rows<T>, rows: Range<usize>) -> Rebuilt {
        let mut sums = Rebuilt::new(hidden.n_columns);
        sums.samples = rows.len();
        for h in rows.clone().map(|row| hidden.row(row)) {
            sums.mean.iter_mut().zip(h).for_each(|(sum, &value)| *sum += value.into());
        }
        let n = rows.len().max(1) as f64;
        sums.mean.iter_mut().for_each(|sum| *sum /= n);
        let mut deviations = vec![0.0f64; hidden.n_columns];
        for row in rows {
            let (h, r) = (hidden.row(row), reconstruction.row(row));
            deviations.iter_mut().zip(h).zip(&sums.mean).for_each(|((to, &value), mean)| *to = value.into() - mean);
            sums.spread += square(&deviations);
            sums.error += squared_distance(h, r);
            let length = square(h).sqrt();
            if length > SHORT {
                sums.ratios.0 += square(r).sqrt() / length;
                sums.ratios.1 += 1;
            }
        }
        sums
    }

    /// Puts the samples that come next behind these.
    pub fn add(&mut self, next: &Rebuilt) {
        let (before, more) = (self.samples as f64, next.samples as f64);
        let all = (before + more).max(1.0);
        let mut apart = 0.0;
        for (mean, other) in self.mean.iter_mut().zip(&next.mean) {
            let step = other - *mean;
            *mean += step * (more / all);
            apart += step * step;
        }
        self.samples += next.samples;
        self.spread += next.spread + apart * (before * more / all);
        self.error += next.error;
        self.ratios = (self.ratios.0 + next.ratios.0, self.ratios.1 + next.ratios.1);
    }
}

/// [`EXPLAINED_VARIANCE`]
pub fn explained_variance(rebuilt: &Rebuilt) -> Value {
    if rebuilt.samples == 0 {
        return Err(NO_SAMPLES);
    }
    let n = rebuilt.samples as f64;
    let (error, variance) = (rebuilt.error / n, rebuilt.spread / n);
    Ok(match variance {
        variance if variance >= CONSTANT => 1.0 - error / variance,
        _ if error < CONSTANT => 1.0,
        _ => 0.0,
    })
}

/// [`SHRINKAGE`]
pub fn shrinkage(rebuilt: &Rebuilt) -> Value {
    match rebuilt.ratios {
        (_, 0) => Err(Undefined("no hidden state is longer than 1e-6")),
        (sum, count) => Ok(sum / count as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use ndarray::{Array2, s};

    /// Pieces of 1024 samples and the rest, against two plain passes; sums of 20,000 numbers of size 100, off by at most
    /// 2e4 · 1.1e-16 of themselves.
    #[test]
    fn sums_over_pieces_are_those_over_all() {
        let mut draws = Draws::new(4, Stream::Baseline, 0);
        for samples in [1, 2, 1023, 1024, 1025, 5000] {
            let h = Array2::from_shape_simple_fn((samples, 4), || 100.0 + draws.normal());
            let r = h.mapv(|value| value + 0.3 * draws.normal());
            let all = Rebuilt::of(h.view(), r.view());
            let mut pieces = Rebuilt::new(4);
            for first in (0..samples).step_by(PIECE) {
                let rows = s![first..(first + PIECE).min(samples), ..];
                pieces.add(&Rebuilt::of_piece(h.slice(rows), r.slice(rows)));
            }
            assert_eq!(all, pieces);
            let mean = h.mean_axis(ndarray::Axis(0)).expect("some samples");
            let spread: f64 = (&h - &mean).iter().map(|v| v * v).sum();
            let error: f64 = (&h - &r).iter().map(|v| v * v).sum();
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-11 * (1.0 + b.abs());
            assert!(near(all.spread, spread) && near(all.error, error), "{samples}: {} {spread}", all.spread);
            let ratio = |s: usize| square(&r.row(s).to_vec()).sqrt() / square(&h.row(s).to_vec()).sqrt();
            assert!(near(all.ratios.0, (0..samples).map(ratio).sum::<f64>()));
        }
    }
}
