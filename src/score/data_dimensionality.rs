//! How a finite training set shares the dimensions of the hidden states.

use ndarray::ArrayView2;

use super::definition::{Definition, Kind, Need, Shape};
use super::vector::{Directions, dot};

/// Computed where the training set is; defined here so that every column has its definition in one list.
pub const DATA_DIMENSIONALITY: Definition = Definition {
    name: "data_dimensionality",
    version: 1,
    meaning: "share of a dimension that training sample s has for itself; null where its hidden state is 0",
    formula: "||h_s||^2 / sum over t of (h^_s . h_t)^2, t over the training set including s, h^_s at unit norm",
    source: "Henighan et al. 2023, Superposition, Memorization, and Double Descent",
    needs: &[Need::ToyModel, Need::TrainingSet],
    kind: Kind::Share,
    shape: Shape::PerSample,
    label: "data dimensionality D_{X}",
    better: None,
};

/// [`DATA_DIMENSIONALITY`] of each row of `hidden`, `[training samples, d_hidden]`.
///
/// With M = Σ_t h_t h_tᵀ the sum is ĥ_sᵀ M ĥ_s, so that the work is linear in the samples.
pub fn data_dimensionality(hidden: ArrayView2<'_, f32>) -> Vec<Option<f64>> {
    let rows = Directions::new(hidden);
    let d = rows.d_hidden;
    let mut gram = vec![0.0; d * d];
    for s in 0..rows.n {
        let h = rows.raw(s);
        for (row, a) in gram.chunks_exact_mut(d).zip(h) {
            row.iter_mut().zip(h).for_each(|(sum, b)| *sum += a * b);
        }
    }
    let of_sample = |s: usize| {
        let unit = rows.unit(s);
        let sum: f64 = unit.iter().zip(gram.chunks_exact(d)).map(|(u, row)| u * dot(row, unit)).sum();
        Some(rows.norms[s] * rows.norms[s] / sum).filter(|share| share.is_finite())
    };
    (0..rows.n).map(of_sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    /// T points on a regular polygon of radius r: M = (T r²/2) 1, so D = r² / (T r² / 2) = 2/T. Corners are f32, off by
    /// 6e-8 of the radius.
    #[test]
    fn corners_of_a_regular_polygon_have_two_over_their_number() {
        for (corners, radius) in [(3, 1.0), (5, 2.5), (8, 0.01), (50, 30.0)] {
            let angle = |s: usize| 2.0 * std::f64::consts::PI * s as f64 / corners as f64;
            let hidden = Array2::from_shape_fn((corners, 2), |(s, k)| {
                (radius * if k == 0 { angle(s).cos() } else { angle(s).sin() }) as f32
            });
            for share in data_dimensionality(hidden.view()) {
                assert!((share.unwrap() - 2.0 / corners as f64).abs() < 1e-6, "{corners}: {share:?}");
            }
        }
    }

    #[test]
    fn orthogonal_samples_have_a_dimension_each_equal_ones_share_and_zeros_have_none() {
        let hidden = ndarray::array![[2.0f32, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]];
        assert_eq!(data_dimensionality(hidden.view()), [Some(1.0), Some(0.5), Some(0.5), None]);
        assert_eq!(data_dimensionality(Array2::zeros((0, 2)).view()), []);
    }
}
