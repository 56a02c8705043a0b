//! A Gaussian copula between the firings of features (SAELens `synthetic/correlation.py`, `synthetic/stats.py`).
//!
//! Feature i fires where g_i > t_i, with t_i = Phi^-1(1 - p_i) and g a normal vector of unit variances: the probabilities
//! stay what they were, firings depend on each other as the correlations of g say.
//!
//! A matrix that someone wrote is taken as it is or refused: repaired, it would hold other correlations than those asked
//! for. A random one has no numbers to keep, so there the eigenvalues are repaired as SAELens does.

mod random;

pub use self::random::{Drawn, RandomCorrelation, RandomForm};
use crate::linalg::symmetric_eigen;

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

/// An eigenvalue this far below 0 still counts as 0.
pub const EIGENVALUE_AT_LEAST: f64 = -1e-6;

/// Features of the largest full matrix: its eigenvalues take minutes beyond, its numbers gigabytes.
pub const FULL_AT_MOST: usize = 4096;

/// Why a correlation cannot be.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum CorrelationError {
    /// Too many features for a matrix of every pair.
    #[error(
        "a full correlation matrix of {n_features} features is too large (at most {FULL_AT_MOST}); `low_rank` has no such bound"
    )]
    TooLarge { n_features: usize },
    /// The numbers given are not that many.
    #[error("{given} numbers do not make a matrix of {n_features} by {n_features}")]
    Shape { given: usize, n_features: usize },
    /// A pair that names a feature that is not there.
    #[error("feature {feature} in a correlated pair, but features run from 0 to {last}")]
    NoFeature { feature: usize, last: usize },
    /// A feature paired with itself.
    #[error("feature {feature} is paired with itself; its correlation with itself is 1")]
    Itself { feature: usize },
    /// One pair given twice.
    #[error("features {i} and {j} are paired twice")]
    Twice { i: usize, j: usize },
    /// Not a correlation.
    #[error("the correlation of features {i} and {j} is {value}, and a correlation lies in [-1, 1]")]
    OutOfRange { i: usize, j: usize, value: f64 },
    /// Entries (i, j) and (j, i) differ.
    #[error("not symmetric: entry ({i}, {j}) is {upper}, entry ({j}, {i}) is {lower}")]
    NotSymmetric { i: usize, j: usize, upper: f64, lower: f64 },
    /// The diagonal is not 1.
    #[error("entry ({i}, {i}) is {value}: the diagonal of a correlation matrix is 1")]
    Diagonal { i: usize, value: f64 },
    /// No normal vector has these correlations.
    #[error(
        "no features can be correlated like this: the least eigenvalue of the correlation matrix is {least:.6}, and below {EIGENVALUE_AT_LEAST:e} there is none"
    )]
    NotPositive { least: f64 },
    /// The settings of a random correlation.
    #[error("{what} is {value}, and lies in [{low}, {high}]")]
    Setting { what: &'static str, value: f64, low: f64, high: f64 },
}

/// How strongly features are correlated on the whole (SAELens `synthetic/stats.py`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CorrelationStatistics {
    /// Root mean square of the correlations of different features.
    pub rms: f64,
    /// Their mean, with sign.
    pub mean: f64,
}

impl Correlation {
    /// The matrix with 1 on its diagonal, `rho` for each given pair and `default` for every other.
    ///
    /// # Errors
    /// If a pair is not one of two features, is given twice, or the matrix has an eigenvalue below -1e-6.
    pub fn from_pairs(n: usize, default: f64, pairs: &[(usize, usize, f64)]) -> Result<Correlation, CorrelationError> {
        if n > FULL_AT_MOST {
            return Err(CorrelationError::TooLarge { n_features: n });
        }
        let mut given = vec![false; n * n];
        let mut matrix = equicorrelated(n, default);
        for &(i, j, value) in pairs {
            if let Some(feature) = [i, j].into_iter().find(|&feature| feature >= n) {
                return Err(CorrelationError::NoFeature { feature, last: n.saturating_sub(1) });
            }
            if i == j {
                return Err(CorrelationError::Itself { feature: i });
            }
            if given[i * n + j] {
                return Err(CorrelationError::Twice { i, j });
            }
            for (i, j) in [(i, j), (j, i)] {
                given[i * n + j] = true;
                matrix[i * n + j] = value;
            }
        }
        Correlation::from_matrix(n, &matrix)
    }

    /// A matrix `[n, n]`.
    ///
    /// # Errors
    /// If it is not symmetric, its diagonal not 1 (both to 1e-6, so that a file of f32 numbers passes), an entry not in
    /// [-1, 1], or an eigenvalue below -1e-6.
    pub fn from_matrix(n: usize, matrix: &[f64]) -> Result<Correlation, CorrelationError> {
        if n > FULL_AT_MOST {
            return Err(CorrelationError::TooLarge { n_features: n });
        }
        if matrix.len() != n * n {
            return Err(CorrelationError::Shape { given: matrix.len(), n_features: n });
        }
        // Written so that a NaN is refused too.
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-6;
        for i in 0..n {
            if !near(matrix[i * n + i], 1.0) {
                return Err(CorrelationError::Diagonal { i, value: matrix[i * n + i] });
            }
            for j in i + 1..n {
                let (upper, lower) = (matrix[i * n + j], matrix[j * n + i]);
                if let Some(value) = [upper, lower].into_iter().find(|v| !(-1.0..=1.0).contains(v)) {
                    return Err(CorrelationError::OutOfRange { i, j, value });
                }
                if !near(upper, lower) {
                    return Err(CorrelationError::NotSymmetric { i, j, upper, lower });
                }
            }
        }
        let entry = |i: usize, j: usize| if i == j { 1.0 } else { 0.5 * (matrix[i * n + j] + matrix[j * n + i]) };
        let matrix: Vec<f64> = (0..n * n).map(|at| entry(at / n, at % n)).collect();
        if !is_positive(n, &matrix) {
            let least = least_eigenvalue(n, &matrix);
            // The two tests differ by rounding alone: what is this close to the bound is let through.
            if least < EIGENVALUE_AT_LEAST {
                return Err(CorrelationError::NotPositive { least });
            }
        }
        Ok(Correlation::Full { matrix })
    }

    /// The low-rank law of this factor, `[n, rank]`, whose rows have squares that sum to less than 1.
    fn from_factor(n: usize, rank: usize, factor: Vec<f32>) -> Correlation {
        let square = |i: usize| factor[i * rank..][..rank].iter().map(|&f| f as f64 * f as f64).sum::<f64>();
        let diagonal = (0..n).map(|i| (1.0 - square(i)) as f32).collect();
        Correlation::LowRank { rank, factor, diagonal }
    }

    /// The number of features.
    pub fn n_features(&self) -> usize {
        match self {
            Correlation::Full { matrix } => matrix.len().isqrt(),
            Correlation::LowRank { diagonal, .. } => diagonal.len(),
        }
    }

    /// Correlation of g_i and g_j.
    pub fn between(&self, i: usize, j: usize) -> f64 {
        match self {
            _ if i == j => 1.0,
            Correlation::Full { matrix } => matrix[i * self.n_features() + j],
            Correlation::LowRank { rank, factor, .. } => {
                let row = |i: usize| factor[i * rank..][..*rank].iter().map(|&f| f as f64);
                row(i).zip(row(j)).map(|(a, b)| a * b).sum()
            }
        }
    }

    /// How strongly features are correlated; none for fewer than two. Low rank without a matrix of every pair: the sum of
    /// squares off the diagonal is ‖FᵀF‖² - Σ_i ‖F_i‖⁴, the sum ‖Σ_i F_i‖² - Σ_i ‖F_i‖².
    pub fn statistics(&self) -> Option<CorrelationStatistics> {
        let n = self.n_features();
        if n < 2 {
            return None;
        }
        let (sum, squares) = match self {
            Correlation::Full { matrix } => {
                let off = || (0..n * n).filter(|at| at / n != at % n).map(|at| matrix[at]);
                (off().sum::<f64>(), off().map(|c| c * c).sum::<f64>())
            }
            Correlation::LowRank { rank, factor, .. } => low_rank_sums(*rank, factor),
        };
        let pairs = (n * (n - 1)) as f64;
        Some(CorrelationStatistics { rms: (squares.max(0.0) / pairs).sqrt(), mean: sum / pairs })
    }
}

/// 1 on the diagonal, `rho` elsewhere.
fn equicorrelated(n: usize, rho: f64) -> Vec<f64> {
    (0..n * n).map(|at| if at / n == at % n { 1.0 } else { rho }).collect()
}

/// Whether a symmetric matrix has no eigenvalue below [`EIGENVALUE_AT_LEAST`]: whether the matrix lifted by that has a
/// Cholesky factor, which takes a small part of the time of its eigenvalues.
fn is_positive(n: usize, matrix: &[f64]) -> bool {
    let mut factor = matrix.to_vec();
    for i in 0..n {
        let (above, from) = factor.split_at_mut(i * n);
        let row = &mut from[..n];
        for j in 0..i {
            let other = &above[j * n..][..n];
            let product: f64 = row[..j].iter().zip(other).map(|(a, b)| a * b).sum();
            row[j] = (row[j] - product) / other[j];
        }
        let left = row[i] - EIGENVALUE_AT_LEAST - row[..i].iter().map(|a| a * a).sum::<f64>();
        if left.is_nan() || left <= 0.0 {
            return false;
        }
        row[i] = left.sqrt();
    }
    true
}

fn least_eigenvalue(n: usize, matrix: &[f64]) -> f64 {
    let eigen = symmetric_eigen(view(n, matrix));
    eigen.values.last().copied().unwrap_or(1.0)
}

fn view(n: usize, matrix: &[f64]) -> ndarray::ArrayView2<'_, f64> {
    ndarray::ArrayView2::from_shape((n, n), matrix).expect("n squared numbers")
}

/// Sum and sum of squares of FFᵀ off its diagonal.
fn low_rank_sums(rank: usize, factor: &[f32]) -> (f64, f64) {
    let (mut total, mut gram) = (vec![0.0; rank], vec![0.0; rank * rank]);
    let (mut squares, mut fourths) = (0.0, 0.0);
    for row in factor.chunks_exact(rank.max(1)) {
        let square: f64 = row.iter().map(|&f| f as f64 * f as f64).sum();
        squares += square;
        fourths += square * square;
        for (k, &a) in row.iter().enumerate() {
            total[k] += a as f64;
            gram[k * rank..][..rank].iter_mut().zip(row).for_each(|(g, &b)| *g += a as f64 * b as f64);
        }
    }
    let sum = total.iter().map(|t| t * t).sum::<f64>() - squares;
    (sum, gram.iter().map(|g| g * g).sum::<f64>() - fourths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(correlation: &Correlation) -> &[f64] {
        match correlation {
            Correlation::Full { matrix } => matrix,
            Correlation::LowRank { .. } => panic!("a full matrix"),
        }
    }

    /// One feature correlated .5 with four others: eigenvalues 1 ± .5·2, so the least is 0 exactly.
    #[test]
    fn pairs_make_the_matrix_they_say_and_a_singular_one_is_fine() {
        let star: Vec<_> = (1..5).map(|j| (0, j, 0.5)).collect();
        let found = Correlation::from_pairs(5, 0.0, &star).unwrap();
        for i in 0..5 {
            for j in 0..5 {
                let expected = match (i, j) {
                    _ if i == j => 1.0,
                    (0, _) | (_, 0) => 0.5,
                    _ => 0.0,
                };
                assert_eq!((found.between(i, j), matrix(&found)[5 * i + j]), (expected, expected));
            }
        }
        let found = Correlation::from_pairs(3, -0.5, &[(2, 0, 0.25)]);
        assert_eq!(matrix(&found.unwrap()), [1.0, -0.5, 0.25, -0.5, 1.0, -0.5, 0.25, -0.5, 1.0]);
        assert_eq!(Correlation::from_pairs(0, 0.0, &[]).unwrap().n_features(), 0);
        assert_eq!(matrix(&Correlation::from_pairs(2, 0.0, &[(0, 1, 1.0)]).unwrap()), [1.0; 4]);
    }

    /// Three features with -ρ among them: least eigenvalue 1 - 2ρ.
    #[test]
    fn an_impossible_matrix_is_refused_with_its_least_eigenvalue() {
        let error = Correlation::from_pairs(3, -0.8, &[]).unwrap_err();
        let CorrelationError::NotPositive { least } = error else { panic!("{error}") };
        assert!((least + 0.6).abs() < 1e-14);
        assert!(error.to_string().contains("least eigenvalue of the correlation matrix is -0.600000"), "{error}");
        // On both sides of the bound: 1 - 2ρ = -0.9e-6 and -1.1e-6.
        assert!(Correlation::from_pairs(3, -0.5 - 0.45e-6, &[]).is_ok());
        assert!(Correlation::from_pairs(3, -0.5 - 0.55e-6, &[]).is_err());
    }

    #[test]
    fn bad_pairs_and_matrices_are_refused_with_their_place() {
        use CorrelationError::*;
        let pairs = |pairs: &[_]| Correlation::from_pairs(3, 0.0, pairs).unwrap_err();
        assert_eq!(pairs(&[(0, 3, 0.1)]), NoFeature { feature: 3, last: 2 });
        assert_eq!(pairs(&[(1, 1, 0.1)]), Itself { feature: 1 });
        assert_eq!(pairs(&[(0, 1, 0.1), (1, 0, 0.1)]), Twice { i: 1, j: 0 });
        assert_eq!(pairs(&[(0, 2, -1.5)]), OutOfRange { i: 0, j: 2, value: -1.5 });
        assert!(matches!(pairs(&[(0, 2, f64::NAN)]), OutOfRange { i: 0, j: 2, .. }));
        let given = |matrix: &[f64]| Correlation::from_matrix(2, matrix).unwrap_err();
        assert_eq!(given(&[1.0; 3]), Shape { given: 3, n_features: 2 });
        assert_eq!(given(&[1.0, 0.2, 0.3, 1.0]), NotSymmetric { i: 0, j: 1, upper: 0.2, lower: 0.3 });
        assert_eq!(given(&[1.0, 0.2, 0.2, 0.9]), Diagonal { i: 1, value: 0.9 });
        assert!(matches!(given(&[f64::NAN, 0.2, 0.2, 1.0]), Diagonal { i: 0, .. }));
        let n_features = FULL_AT_MOST + 1;
        assert_eq!(Correlation::from_pairs(n_features, 0.0, &[]).unwrap_err(), TooLarge { n_features });
    }

    /// The same law as factor and as matrix: sums of 870 products of f32 numbers in f64.
    #[test]
    fn statistics_without_the_matrix_equal_those_of_the_matrix() {
        let low = Correlation::low_rank(30, 4, 0.3, 2).unwrap().correlation;
        let values: Vec<f64> = (0..900).map(|at| low.between(at / 30, at % 30)).collect();
        let (from_factor, full) =
            (low.statistics().unwrap(), Correlation::Full { matrix: values }.statistics().unwrap());
        assert!((from_factor.rms - full.rms).abs() < 1e-13 && (from_factor.mean - full.mean).abs() < 1e-13);
        let worked = Correlation::from_pairs(3, 0.0, &[(0, 1, 0.6), (1, 2, -0.3)]).unwrap().statistics().unwrap();
        assert!((worked.mean - 0.1).abs() < 1e-15 && (worked.rms - 0.15f64.sqrt()).abs() < 1e-15);
        assert_eq!(Correlation::low_rank(1, 3, 0.1, 0).unwrap().correlation.statistics(), None);
        let none = Correlation::low_rank(5, 0, 0.1, 0).unwrap().correlation.statistics();
        assert_eq!(none, Some(CorrelationStatistics { rms: 0.0, mean: 0.0 }));
    }
}
