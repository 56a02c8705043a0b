//! Random correlations: full ones, repaired where they are none, and low-rank ones.

use ndarray::Array2;

use super::{Correlation, CorrelationError, CorrelationStatistics, FULL_AT_MOST, equicorrelated, is_positive, view};
use crate::linalg::symmetric_eigen;
use crate::random::{Draws, Stream};

/// What a repair lifts eigenvalues to.
const REPAIRED_TO: f64 = 1e-6;

/// The least share of a feature's variance that a low-rank factor leaves to the feature itself.
const DIAGONAL_AT_LEAST: f64 = 0.01;

/// How the signs and strengths of a random full correlation are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomCorrelation {
    /// Whether counts are exact or expected.
    pub form: RandomForm,
    /// Share of the correlated pairs with a positive correlation, .5 in SAELens.
    pub positive_ratio: f64,
    /// Share of all pairs without correlation, .3 in SAELens.
    pub uncorrelated_ratio: f64,
    /// A correlation's size is uniform between these two, .1 and .8 in SAELens.
    pub strength: [f64; 2],
}

/// Two ways to decide which pairs are correlated, and which of them positively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RandomForm {
    /// Exactly floor(pairs · uncorrelated_ratio) pairs are uncorrelated and floor(correlated · positive_ratio) of the
    /// others positive, drawn without replacement (SAELens `generate_random_correlations`).
    Pairs,
    /// Every pair for itself (SAELens `generate_random_correlation_matrix`).
    Matrix,
}

impl Default for RandomCorrelation {
    fn default() -> RandomCorrelation {
        let strength = [0.1, 0.8];
        RandomCorrelation { form: RandomForm::Pairs, positive_ratio: 0.5, uncorrelated_ratio: 0.3, strength }
    }
}

/// A random correlation and what had to be changed to make it one.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The correlation.
    pub correlation: Correlation,
    /// Words for a warning; none if it is as drawn.
    pub changed: Option<String>,
}

/// Sequences of stream `correlation`.
const PAIRS: u64 = 0;
const MATRIX: u64 = 1;
const LOW_RANK: u64 = 2;

impl Correlation {
    /// Random signs and strengths, repaired to a correlation matrix where they are none, which makes strengths smaller:
    /// at many features much smaller.
    ///
    /// # Errors
    /// If there are too many features or a setting is out of range.
    pub fn random(n: usize, settings: &RandomCorrelation, seed: u64) -> Result<Drawn, CorrelationError> {
        if n > FULL_AT_MOST {
            return Err(CorrelationError::TooLarge { n_features: n });
        }
        settings.check()?;
        let values = match settings.form {
            RandomForm::Pairs => settings.by_count(n * n.saturating_sub(1) / 2, seed),
            RandomForm::Matrix => settings.one_by_one(n * n.saturating_sub(1) / 2, seed),
        };
        let mut matrix = equicorrelated(n, 0.0);
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        for ((i, j), value) in pairs.zip(values) {
            (matrix[i * n + j], matrix[j * n + i]) = (value, value);
        }
        if is_positive(n, &matrix) {
            return Ok(Drawn { correlation: Correlation::Full { matrix }, changed: None });
        }
        let asked = (Correlation::Full { matrix: matrix.clone() }).statistics();
        let (least, matrix) = repaired(n, &matrix);
        let correlation = Correlation::Full { matrix };
        let rms = |of: Option<CorrelationStatistics>| of.map_or(0.0, |s| s.rms);
        let changed = format!(
            "the random correlations of {n} features had a least eigenvalue of {least:.3}: repaired, which takes their root \
             mean square from {:.3} to {:.3}",
            rms(asked),
            rms(correlation.statistics()),
        );
        Ok(Drawn { correlation, changed: Some(changed) })
    }

    /// F_ik = scale · N(0, 1) and D_i = 1 - Σ_k F_ik²; rows that would leave D_i < .01 are scaled to leave .01.
    ///
    /// # Errors
    /// If `scale` is negative or not finite.
    pub fn low_rank(n: usize, rank: usize, scale: f64, seed: u64) -> Result<Drawn, CorrelationError> {
        if !(0.0..f64::INFINITY).contains(&scale) {
            return Err(CorrelationError::Setting { what: "scale", value: scale, low: 0.0, high: f64::INFINITY });
        }
        let mut draws = Draws::new(seed, Stream::Correlation, LOW_RANK);
        let (mut factor, mut capped) = (Vec::with_capacity(n * rank), 0);
        for _ in 0..n {
            let row: Vec<f64> = (0..rank).map(|_| scale * draws.normal()).collect();
            let square: f64 = row.iter().map(|f| f * f).sum();
            let cap = 1.0 - square < DIAGONAL_AT_LEAST;
            let shrink = if cap { ((1.0 - DIAGONAL_AT_LEAST) / square).sqrt() } else { 1.0 };
            capped += cap as usize;
            factor.extend(row.iter().map(|f| (f * shrink) as f32));
        }
        let changed = (capped > 0).then(|| {
            format!("{capped} of {n} rows of the low-rank correlation were capped: take a smaller rank or scale")
        });
        Ok(Drawn { correlation: Correlation::from_factor(n, rank, factor), changed })
    }
}

impl RandomCorrelation {
    /// Size of each pair's correlation, with sign: exact counts.
    fn by_count(&self, pairs: usize, seed: u64) -> Vec<f64> {
        let mut draws = Draws::new(seed, Stream::Correlation, PAIRS);
        let correlated = pairs - (pairs as f64 * self.uncorrelated_ratio) as usize;
        let positive = (correlated as f64 * self.positive_ratio) as usize;
        // The first entries of a shuffled list are a sample without replacement, in random order: the first of them may be
        // the positive ones.
        let mut order: Vec<u32> = (0..pairs as u32).collect();
        for at in 0..correlated {
            order.swap(at, at + draws.below((pairs - at) as u32) as usize);
        }
        let mut values = vec![0.0; pairs];
        for (at, &pair) in order[..correlated].iter().enumerate() {
            values[pair as usize] = self.strength(&mut draws) * if at < positive { 1.0 } else { -1.0 };
        }
        values
    }

    /// The same, each pair decided by itself.
    fn one_by_one(&self, pairs: usize, seed: u64) -> Vec<f64> {
        let mut draws = Draws::new(seed, Stream::Correlation, MATRIX);
        let mut value = || {
            let correlated = draws.uniform() >= self.uncorrelated_ratio;
            let sign = if draws.uniform() < self.positive_ratio { 1.0 } else { -1.0 };
            let strength = self.strength(&mut draws);
            if correlated { sign * strength } else { 0.0 }
        };
        (0..pairs).map(|_| value()).collect()
    }

    fn strength(&self, draws: &mut Draws) -> f64 {
        let [low, high] = self.strength;
        low + (high - low) * draws.uniform()
    }

    fn check(&self) -> Result<(), CorrelationError> {
        let [low, high] = self.strength;
        let settings = [
            ("positive_ratio", self.positive_ratio, 0.0),
            ("uncorrelated_ratio", self.uncorrelated_ratio, 0.0),
            ("the least strength", low, 0.0),
            ("the greatest strength", high, low),
        ];
        match settings.into_iter().find(|&(_, value, least)| !(least..=1.0).contains(&value)) {
            Some((what, value, low)) => Err(CorrelationError::Setting { what, value, low, high: 1.0 }),
            None => Ok(()),
        }
    }
}

/// The least eigenvalue, and the matrix with its eigenvalues lifted to 1e-6, rescaled to unit diagonal
/// (SAELens `_fix_correlation_matrix`).
fn repaired(n: usize, matrix: &[f64]) -> (f64, Vec<f64>) {
    let eigen = symmetric_eigen(view(n, matrix));
    let least = eigen.values.last().copied().unwrap_or(1.0);
    let mut scaled = eigen.vectors;
    for (mut row, &value) in scaled.rows_mut().into_iter().zip(&eigen.values) {
        row *= value.max(REPAIRED_TO).sqrt();
    }
    let rebuilt: Array2<f64> = scaled.t().dot(&scaled);
    let norm: Vec<f64> = rebuilt.diag().iter().map(|d| d.max(1e-8).sqrt()).collect();
    // From the upper triangle, so that it is symmetric to the last bit.
    let entry = |i: usize, j: usize| match i == j {
        true => 1.0,
        false => rebuilt[[i.min(j), i.max(j)]] / (norm[i] * norm[j]),
    };
    (least, (0..n * n).map(|at| entry(at / n, at % n)).collect())
}

#[cfg(test)]
mod tests {
    use super::super::least_eigenvalue;
    use super::*;

    fn matrix(correlation: &Correlation) -> &[f64] {
        match correlation {
            Correlation::Full { matrix } => matrix,
            Correlation::LowRank { .. } => panic!("a full matrix"),
        }
    }

    /// Three features with -.8 among them: 1.8 (I - J/3) - .6 J/3. Lifted, 1.2 + δ on the diagonal and -.6 + δ off it with
    /// δ = 1e-6 / 3. A few roundings of numbers near 1.
    #[test]
    fn a_repair_lifts_eigenvalues_and_restores_the_diagonal() {
        let (least, found) = repaired(3, &equicorrelated(3, -0.8));
        assert!((least + 0.6).abs() < 1e-14);
        let delta = 1e-6 / 3.0;
        let expected = (-0.6 + delta) / (1.2 + delta);
        for (at, value) in found.iter().enumerate() {
            let expected = if at / 3 == at % 3 { 1.0 } else { expected };
            assert!((value - expected).abs() < 1e-14, "{value} for {expected}");
        }
        assert!(Correlation::from_matrix(3, &found).is_ok());
    }

    /// 20 features, 190 pairs: 57 uncorrelated, 66 of 133 positive. Strengths this small leave the matrix positive
    /// (Gershgorin: row sums below 19 · .05 < 1), so nothing is repaired.
    #[test]
    fn random_pairs_have_exact_counts_and_strengths_in_range() {
        let settings = RandomCorrelation { strength: [0.01, 0.05], ..RandomCorrelation::default() };
        let drawn = Correlation::random(20, &settings, 4).unwrap();
        assert_eq!(drawn.changed, None);
        let of = |keep: &dyn Fn(f64) -> bool| {
            let upper = (0..20).flat_map(|i| (i + 1..20).map(move |j| (i, j)));
            upper.filter(|&(i, j)| keep(drawn.correlation.between(i, j))).count()
        };
        assert_eq!([of(&|c| c == 0.0), of(&|c| c > 0.0), of(&|c| c < 0.0)], [57, 66, 67]);
        assert_eq!(of(&|c| c != 0.0 && !(0.01..=0.05).contains(&c.abs())), 0);
        assert_eq!(Correlation::random(20, &settings, 4).unwrap(), drawn);
        assert_ne!(Correlation::random(20, &settings, 5).unwrap(), drawn);
    }

    /// 4950 pairs: the share .3 of uncorrelated ones has standard deviation .0065, that of positive ones among 3465 .0085,
    /// the mean strength of U[.002, .009] .00003: five each, false alarm below 2e-6.
    #[test]
    fn a_random_matrix_has_its_ratios_in_expectation() {
        let settings = RandomCorrelation { form: RandomForm::Matrix, strength: [0.002, 0.009], ..Default::default() };
        let drawn = Correlation::random(100, &settings, 4).unwrap();
        assert_eq!(drawn.changed, None);
        let values: Vec<f64> = (0..100)
            .flat_map(|i| (i + 1..100).map(move |j| (i, j)))
            .map(|(i, j)| drawn.correlation.between(i, j))
            .collect();
        let correlated: Vec<f64> = values.iter().copied().filter(|c| *c != 0.0).collect();
        let uncorrelated = 1.0 - correlated.len() as f64 / values.len() as f64;
        assert!((uncorrelated - 0.3).abs() < 0.033, "{uncorrelated}");
        let positive = correlated.iter().filter(|c| **c > 0.0).count() as f64 / correlated.len() as f64;
        assert!((positive - 0.5).abs() < 0.043, "{positive}");
        let strength = correlated.iter().map(|c| c.abs()).sum::<f64>() / correlated.len() as f64;
        assert!((strength - 0.0055).abs() < 0.00018, "{strength}");
    }

    /// Fifty features with strengths from .3 to .9 are far from a correlation matrix; repaired they are one.
    #[test]
    fn strong_random_correlations_are_repaired_and_say_so() {
        for form in [RandomForm::Pairs, RandomForm::Matrix] {
            let settings = RandomCorrelation { form, strength: [0.3, 0.9], ..RandomCorrelation::default() };
            let drawn = Correlation::random(50, &settings, 1).unwrap();
            assert!(drawn.changed.as_ref().is_some_and(|words| words.contains("least eigenvalue of -")));
            let found = matrix(&drawn.correlation);
            assert!(Correlation::from_matrix(50, found).is_ok());
            assert!((0..50).all(|i| found[51 * i] == 1.0 && (0..50).all(|j| found[50 * i + j] == found[50 * j + i])));
            // What is lifted to 1e-6 stays above 0 when rows are divided by norms above 1: the trace only grew.
            assert!(least_eigenvalue(50, found) > 0.0);
        }
    }

    #[test]
    fn random_settings_out_of_range_are_refused() {
        let with = |change: &dyn Fn(&mut RandomCorrelation)| {
            let mut settings = RandomCorrelation::default();
            change(&mut settings);
            Correlation::random(4, &settings, 0).unwrap_err().to_string()
        };
        assert_eq!(with(&|s| s.positive_ratio = 1.5), "positive_ratio is 1.5, and lies in [0, 1]");
        assert_eq!(with(&|s| s.uncorrelated_ratio = -0.1), "uncorrelated_ratio is -0.1, and lies in [0, 1]");
        assert_eq!(with(&|s| s.strength = [0.5, 0.2]), "the greatest strength is 0.2, and lies in [0.5, 1]");
        assert!(Correlation::low_rank(4, 2, f64::NAN, 0).is_err());
    }

    /// Entries are scale · N(0, 1): over 50 000 of them the mean square has a standard deviation of .63 % of itself, five of
    /// which are 3.2 %; false alarm below 1e-6. D is 1 less a sum of squares near .25, in f32.
    #[test]
    fn a_low_rank_factor_has_its_scale_and_a_diagonal_that_completes_it() {
        let drawn = Correlation::low_rank(2000, 25, 0.1, 3).unwrap();
        assert_eq!(drawn.changed, None);
        let Correlation::LowRank { rank, factor, diagonal } = &drawn.correlation else { panic!("low rank") };
        assert_eq!((*rank, factor.len(), diagonal.len(), drawn.correlation.n_features()), (25, 50_000, 2000, 2000));
        let square = factor.iter().map(|&f| f as f64 * f as f64).sum::<f64>() / 50_000.0;
        assert!((square / 0.01 - 1.0).abs() < 0.032, "{square}");
        for (row, &d) in factor.chunks_exact(25).zip(diagonal) {
            let total = d as f64 + row.iter().map(|&f| f as f64 * f as f64).sum::<f64>();
            assert!(d > 0.0 && (total - 1.0).abs() < 6e-8, "{total}");
        }
        assert_eq!(drawn, Correlation::low_rank(2000, 25, 0.1, 3).unwrap());
        assert_ne!(drawn, Correlation::low_rank(2000, 25, 0.1, 4).unwrap());
    }

    /// At scale 1 and rank 9 a row's squares sum to less than .99 with probability 6e-4: of 200 rows none, here at most 3.
    #[test]
    fn rows_without_room_are_capped_and_counted() {
        let drawn = Correlation::low_rank(200, 9, 1.0, 3).unwrap();
        let Correlation::LowRank { diagonal, .. } = &drawn.correlation else { panic!("low rank") };
        let capped = diagonal.iter().filter(|d| (**d - 0.01).abs() < 1e-6).count();
        assert!(capped >= 197 && diagonal.iter().all(|d| *d > 0.0099), "{capped}");
        assert!(drawn.changed.is_some_and(|words| words.starts_with(&format!("{capped} of 200 rows"))));
    }

    /// E c² = rank · scale⁴ off the diagonal: rms .05 at rank 25 and scale .1, the copula of SynthSAEBench-16k. Of 4000
    /// features it is known to about 1 % (the factor has 325 second moments).
    #[test]
    fn the_benchmark_factor_has_a_root_mean_square_of_a_twentieth() {
        let drawn = Correlation::low_rank(4000, 25, 0.1, 42).unwrap();
        let statistics = drawn.correlation.statistics().unwrap();
        assert!((statistics.rms - 0.05).abs() < 0.002, "{statistics:?}");
        assert_eq!(drawn.changed, None);
    }
}
