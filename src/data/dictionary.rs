//! A fixed dictionary: hidden states without a toy model.

use super::orthogonalise::{Orthogonalise, orthogonalise};
use crate::random::{Draws, Stream};

/// h = Σ_i x_i f_i + b, plus Gaussian noise of standard deviation `noise` on every coordinate.
#[derive(Clone, Debug, PartialEq)]
pub struct Dictionary {
    /// Features, rows of `vectors`.
    pub n_features: usize,
    /// Width of h.
    pub d_hidden: usize,
    /// `[n_features, d_hidden]`, unit rows.
    pub vectors: Vec<f32>,
    /// `[d_hidden]`
    pub bias: Vec<f32>,
    /// Standard deviation of the noise on each coordinate of h.
    pub noise: f64,
}

/// Why a dictionary cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DictionaryError {
    /// Orthogonal rows do not fit.
    #[error("{n_features} orthogonal directions need d_hidden of at least {n_features}, not {d_hidden}")]
    NoRoom { n_features: usize, d_hidden: usize },
    /// The numbers given are not that many.
    #[error("{given} numbers do not make {n_features} rows of {d_hidden}")]
    Shape { given: usize, n_features: usize, d_hidden: usize },
    /// A NaN or an infinity.
    #[error("row {row}, column {column} is not a finite number")]
    NotFinite { row: usize, column: usize },
    /// A row that has no direction.
    #[error("row {row} is zero and has no direction")]
    ZeroRow { row: usize },
    /// Directions that all have one cosine with each other do not fit.
    #[error("{n_features} directions at one cosine with each other need d_hidden of at least {least}, not {d_hidden}")]
    NoRoomAtCosine { n_features: usize, least: usize, d_hidden: usize },
    /// No directions have this cosine with each other.
    #[error(
        "{n_features} directions cannot all have a cosine of {thousandths}/1000 with each other: it lies in [-1/(n_features - 1), 1)"
    )]
    Cosine { n_features: usize, thousandths: i64 },
}

/// Sequences of stream `dictionary`: rows and bias are drawn apart.
const ROWS: u64 = 0;
const BIAS: u64 = 1;

impl Dictionary {
    /// Orthonormal rows, uniform among all such: random normals, each made orthogonal to the rows before it (twice, which
    /// leaves products at the size of f64 rounding: Giraud et al. 2005, "twice is enough"), then rounded to f32.
    ///
    /// # Errors
    /// [`DictionaryError::NoRoom`] if there are more rows than dimensions.
    pub fn orthogonal(n_features: usize, d_hidden: usize, seed: u64) -> Result<Dictionary, DictionaryError> {
        if n_features > d_hidden {
            return Err(DictionaryError::NoRoom { n_features, d_hidden });
        }
        let mut draws = Draws::new(seed, Stream::Dictionary, ROWS);
        let mut rows: Vec<f64> = Vec::with_capacity(n_features * d_hidden);
        for _ in 0..n_features {
            // A draw that lies in the span of the rows before has probability 0 and would be drawn anew.
            let row = loop {
                let mut row: Vec<f64> = (0..d_hidden).map(|_| draws.normal()).collect();
                let drawn = norm(&row);
                for _ in 0..2 {
                    for before in rows.chunks_exact(d_hidden) {
                        let along: f64 = before.iter().zip(&row).map(|(a, b)| a * b).sum();
                        row.iter_mut().zip(before).for_each(|(r, b)| *r -= along * b);
                    }
                }
                let left = norm(&row);
                if left > 1e-8 * drawn {
                    row.iter_mut().for_each(|r| *r /= left);
                    break row;
                }
            };
            rows.extend(row);
        }
        Ok(Dictionary::plain(n_features, d_hidden, rows.into_iter().map(|v| v as f32).collect()))
    }

    /// Rows uniform on the sphere: normalised normals.
    pub fn random(n_features: usize, d_hidden: usize, seed: u64) -> Dictionary {
        let mut draws = Draws::new(seed, Stream::Dictionary, ROWS);
        let rows = (0..n_features).flat_map(|_| direction(&mut draws, d_hidden));
        Dictionary::plain(n_features, d_hidden, rows.map(|v| v as f32).collect())
    }

    /// Random rows pushed apart by gradient descent, see [`super::orthogonalise`].
    pub fn orthogonalised(n_features: usize, d_hidden: usize, settings: &Orthogonalise, seed: u64) -> Dictionary {
        let drawn = Dictionary::random(n_features, d_hidden, seed);
        let vectors = orthogonalise(&drawn.vectors, d_hidden, settings);
        Dictionary { vectors, ..drawn }
    }

    /// Rows that all have the cosine `c` with each other, turned at random: f_i = Σ_{k<i} l_k q_k + m_i q_i with orthonormal
    /// q and the Cholesky factor of the matrix of cosines, of which each column is constant below its diagonal:
    /// m_k² = 1 - Σ_{j<k} l_j², l_k = (c - Σ_{j<k} l_j²) / m_k. At c = -1/(n_features - 1), to 1e-6, they are the corners of a
    /// simplex, which needs one dimension less.
    ///
    /// # Errors
    /// If no rows have that cosine, or d_hidden has no room for them.
    pub fn at_cosine(
        n_features: usize,
        d_hidden: usize,
        cosine: f64,
        seed: u64,
    ) -> Result<Dictionary, DictionaryError> {
        let needed = dimensions_at_cosine(n_features, cosine)?;
        if needed > d_hidden {
            return Err(DictionaryError::NoRoomAtCosine { n_features, least: needed, d_hidden });
        }
        let frame = Dictionary::orthogonal(needed, d_hidden, seed)?.vectors;
        // A cosine given with few digits still makes the simplex exactly.
        let cosine = if needed < n_features { -1.0 / (n_features - 1) as f64 } else { cosine };
        let (mut before, mut square) = (vec![0.0f64; d_hidden], 0.0);
        let mut rows = Vec::with_capacity(n_features * d_hidden);
        for i in 0..n_features {
            let along = f64::max(1.0 - square, 0.0).sqrt();
            let Some(axis) = frame.get(i * d_hidden..(i + 1) * d_hidden) else {
                // The last corner of a simplex lies in the span of the others.
                rows.extend(before.iter().map(|v| *v as f32));
                continue;
            };
            rows.extend(before.iter().zip(axis).map(|(b, &q)| (b + along * q as f64) as f32));
            let below = (cosine - square) / along;
            before.iter_mut().zip(axis).for_each(|(b, &q)| *b += below * q as f64);
            square += below * below;
        }
        Dictionary::from_rows(n_features, d_hidden, &rows)
    }

    /// Given rows `[n_features, d_hidden]`, normalised.
    ///
    /// # Errors
    /// If `vectors` has another length, a number is not finite, or a row is zero.
    pub fn from_rows(n_features: usize, d_hidden: usize, vectors: &[f32]) -> Result<Dictionary, DictionaryError> {
        if n_features.checked_mul(d_hidden) != Some(vectors.len()) {
            return Err(DictionaryError::Shape { given: vectors.len(), n_features, d_hidden });
        }
        let mut unit = Vec::with_capacity(vectors.len());
        for row in 0..n_features {
            let given: Vec<f64> = vectors[row * d_hidden..][..d_hidden].iter().map(|&v| v as f64).collect();
            if let Some(column) = given.iter().position(|v| !v.is_finite()) {
                return Err(DictionaryError::NotFinite { row, column });
            }
            let length = norm(&given);
            if length == 0.0 {
                return Err(DictionaryError::ZeroRow { row });
            }
            unit.extend(given.iter().map(|v| (v / length) as f32));
        }
        Ok(Dictionary::plain(n_features, d_hidden, unit))
    }

    /// The same with a bias of this norm in a random direction.
    pub fn with_bias(mut self, norm: f64, seed: u64) -> Dictionary {
        let mut draws = Draws::new(seed, Stream::Dictionary, BIAS);
        self.bias = direction(&mut draws, self.d_hidden).map(|v| (norm * v) as f32).collect();
        self
    }

    /// The same with noise of this standard deviation on every coordinate of h.
    pub fn with_noise(mut self, noise: f64) -> Dictionary {
        self.noise = noise;
        self
    }

    fn plain(n_features: usize, d_hidden: usize, vectors: Vec<f32>) -> Dictionary {
        Dictionary { n_features, d_hidden, vectors, bias: vec![0.0; d_hidden], noise: 0.0 }
    }
}

/// Dimensions that `n_features` directions at this cosine with each other take: the rank of their matrix of cosines, whose
/// eigenvalues are 1 - c and 1 + (n - 1) c.
///
/// # Errors
/// If there are no such directions.
pub fn dimensions_at_cosine(n_features: usize, cosine: f64) -> Result<usize, DictionaryError> {
    let others = n_features.saturating_sub(1) as f64;
    // Two cosines this near are one: -0.333333 is meant for -1/3.
    let room = cosine + 1.0 / others;
    if n_features < 2 || (-1e-6..1e-6).contains(&room) {
        return Ok(n_features.saturating_sub(1).max(1).min(n_features));
    }
    if !(cosine < 1.0 && room > 0.0) {
        return Err(DictionaryError::Cosine { n_features, thousandths: (cosine * 1e3).round() as i64 });
    }
    Ok(n_features)
}

/// A direction uniform on the sphere.
fn direction(draws: &mut Draws, d: usize) -> impl Iterator<Item = f64> + use<> {
    let row: Vec<f64> = (0..d).map(|_| draws.normal()).collect();
    let length = norm(&row);
    row.into_iter().map(move |v| v / length)
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(d: &Dictionary, a: usize, b: usize) -> f64 {
        let row = |i: usize| d.vectors[i * d.d_hidden..][..d.d_hidden].iter().map(|&v| v as f64);
        row(a).zip(row(b)).map(|(a, b)| a * b).sum()
    }

    /// Each entry is rounded to f32 with relative error 2^-24 at most; a product of unit rows then moves by at most
    /// 2 · 2^-24 (Cauchy-Schwarz), on top of f64 rounding: 1.2e-7.
    #[test]
    fn orthogonal_rows_are_orthonormal_up_to_a_full_square() {
        for (n, d) in [(1, 1), (5, 5), (17, 40), (64, 64)] {
            let dictionary = Dictionary::orthogonal(n, d, 3).unwrap();
            for a in 0..n {
                for b in 0..n {
                    let expected = (a == b) as u8 as f64;
                    assert!((product(&dictionary, a, b) - expected).abs() < 1.3e-7, "{n}x{d}: rows {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn orthogonal_rows_that_do_not_fit_are_refused() {
        let refused = Dictionary::orthogonal(6, 5, 0).unwrap_err();
        assert_eq!(refused, DictionaryError::NoRoom { n_features: 6, d_hidden: 5 });
    }

    /// Squared products of random unit rows have mean 1/d and standard deviation below sqrt(2)/d: over the 780 pairs of 40
    /// rows 5 sigma is 25 %. False alarm below 1e-6.
    #[test]
    fn random_rows_are_unit_and_as_near_each_other_as_chance_has_it() {
        let dictionary = Dictionary::random(40, 20, 1);
        let mut squares = 0.0;
        for a in 0..40 {
            assert!((product(&dictionary, a, a) - 1.0).abs() < 1.3e-7);
            squares += (0..a).map(|b| product(&dictionary, a, b).powi(2)).sum::<f64>();
        }
        assert!((squares / 780.0 * 20.0 - 1.0).abs() < 0.25, "{squares}");
    }

    #[test]
    fn seeds_give_other_rows_and_the_bias_has_draws_of_its_own() {
        assert_ne!(Dictionary::random(4, 8, 1).vectors, Dictionary::random(4, 8, 2).vectors);
        let dictionary = Dictionary::random(4, 8, 1).with_bias(2.5, 1).with_noise(0.1);
        let norm = dictionary.bias.iter().map(|&b| b as f64 * b as f64).sum::<f64>().sqrt();
        assert!((norm - 2.5).abs() < 1e-6, "{norm}");
        assert_ne!(dictionary.bias[0] / 2.5, dictionary.vectors[0]);
        assert_eq!(dictionary.noise, 0.1);
    }

    /// Products of rows whose entries are rounded to f32 twice: 4 · 2^-24 and the rounding of f64.
    #[test]
    fn rows_at_a_cosine_have_it_with_each_other_and_a_simplex_takes_one_dimension_less() {
        let cases = [
            (1, 1, 0.4),
            (2, 1, -1.0),
            (3, 2, -0.5),
            (4, 3, -0.333333),
            (5, 8, 0.3),
            (8, 8, -0.1),
            (6, 20, 0.0),
            (9, 9, 0.95),
        ];
        for (n, d, cosine) in cases {
            let dictionary = Dictionary::at_cosine(n, d, cosine, 3).unwrap();
            assert_eq!(dictionary.vectors.len(), n * d);
            for a in 0..n {
                for b in 0..n {
                    let expected = if a == b { 1.0 } else { cosine };
                    // The cosine of a simplex is exact, the one asked for has six digits.
                    let bound = if cosine == -0.333333 { 6e-7 } else { 3e-7 };
                    let found = product(&dictionary, a, b);
                    assert!((found - expected).abs() < bound, "{n} x {d} at {cosine}: rows {a} and {b}: {found}");
                }
            }
        }
        assert_ne!(Dictionary::at_cosine(3, 3, 0.2, 1), Dictionary::at_cosine(3, 3, 0.2, 2));
    }

    #[test]
    fn cosines_that_cannot_be_are_refused() {
        let refused = |n, d, c| Dictionary::at_cosine(n, d, c, 0).unwrap_err();
        assert_eq!(refused(3, 9, -0.6), DictionaryError::Cosine { n_features: 3, thousandths: -600 });
        assert_eq!(refused(3, 9, 1.0), DictionaryError::Cosine { n_features: 3, thousandths: 1000 });
        assert_eq!(refused(5, 4, 0.2), DictionaryError::NoRoomAtCosine { n_features: 5, least: 5, d_hidden: 4 });
        assert_eq!(refused(5, 3, -0.25), DictionaryError::NoRoomAtCosine { n_features: 5, least: 4, d_hidden: 3 });
    }

    #[test]
    fn orthogonalised_rows_start_from_the_random_ones_and_the_bias_is_theirs() {
        let settings = Orthogonalise { steps: 0, lr: 0.1 };
        let (drawn, kept) = (Dictionary::random(6, 4, 1), Dictionary::orthogonalised(6, 4, &settings, 1));
        for (a, b) in drawn.vectors.iter().zip(&kept.vectors) {
            assert!((a - b).abs() < 1e-7);
        }
        let moved = Dictionary::orthogonalised(6, 4, &Orthogonalise { steps: 10, ..settings }, 1);
        assert_ne!(moved.vectors, kept.vectors);
        assert_eq!(moved.with_bias(0.5, 1).bias, drawn.with_bias(0.5, 1).bias);
    }

    #[test]
    fn given_rows_are_normalised_and_bad_ones_refused_with_their_place() {
        let dictionary = Dictionary::from_rows(2, 2, &[3.0, 4.0, 0.0, -2.0]).unwrap();
        assert_eq!(dictionary.vectors, [0.6, 0.8, 0.0, -1.0]);
        let refused = |vectors: &[f32]| Dictionary::from_rows(2, 2, vectors).unwrap_err();
        assert_eq!(refused(&[1.0; 3]), DictionaryError::Shape { given: 3, n_features: 2, d_hidden: 2 });
        assert_eq!(refused(&[1.0, 0.0, 0.0, f32::NAN]), DictionaryError::NotFinite { row: 1, column: 1 });
        assert_eq!(refused(&[1.0, 0.0, 0.0, 0.0]), DictionaryError::ZeroRow { row: 1 });
    }

    #[test]
    fn rows_of_tiny_or_huge_numbers_keep_their_direction() {
        let dictionary = Dictionary::from_rows(2, 2, &[1e-45, 0.0, 3e38, 3e38]).unwrap();
        assert_eq!(dictionary.vectors, [1.0, 0.0, 0.5f32.sqrt(), 0.5f32.sqrt()]);
    }
}
