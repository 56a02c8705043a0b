//! How sure a mean over seeds is: bootstrap intervals, and paired differences over common seeds.
//!
//! The interval is BCa (Efron 1987, "Better bootstrap confidence intervals"; Efron & Tibshirani 1993, section 14.3): bias
//! from the share of resampled means below the mean, acceleration from the jackknife. Resamples come from a fixed stream, so
//! the same numbers give the same interval everywhere. Runs of two methods on one seed see the same data, so their
//! difference is taken seed by seed, and the interval is that of the mean difference. Nothing is corrected for how many
//! pairs are looked at.

use std::collections::BTreeMap;

use crate::random::{Draws, Stream};

/// Resamples of an interval: its ends move by about 1 % of its width from one set of resamples to another.
pub const RESAMPLES: usize = 10_000;

/// What an interval covers, in per cent.
pub const LEVEL: f64 = 95.0;

/// Fewer seeds than this say nothing of their spread.
pub const LEAST_SEEDS: usize = 3;

/// Ends of a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The mean difference of two methods over the seeds that both have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Common seeds.
    pub n: usize,
    /// Mean of first - second; none without a common seed.
    pub mean: Option<f64>,
    /// Its interval; none for fewer than three common seeds.
    pub interval: Option<Interval>,
}

/// What a difference over seeds says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The interval lies above 0.
    Higher,
    /// It lies below 0.
    Lower,
    /// It contains 0.
    NotDistinguishable,
    /// There is none.
    TooFewSeeds,
}

impl Verdict {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Higher => "higher",
            Verdict::Lower => "lower",
            Verdict::NotDistinguishable => "not distinguishable",
            Verdict::TooFewSeeds => "too few seeds",
        }
    }
}

impl Paired {
    /// What it says.
    pub fn verdict(&self) -> Verdict {
        match self.interval {
            None => Verdict::TooFewSeeds,
            Some(Interval { low, .. }) if low > 0.0 => Verdict::Higher,
            Some(Interval { high, .. }) if high < 0.0 => Verdict::Lower,
            Some(_) => Verdict::NotDistinguishable,
        }
    }
}

/// The interval of the mean of independent numbers, one a seed; none for fewer than three.
pub fn interval(numbers: &[f64]) -> Option<Interval> {
    let n = numbers.len();
    if n < LEAST_SEEDS {
        return None;
    }
    let mean = numbers.iter().sum::<f64>() / n as f64;
    if numbers.iter().all(|x| *x == numbers[0]) {
        return Some(Interval { low: numbers[0], high: numbers[0] });
    }
    let mut draws = Draws::new(0, Stream::Bootstrap, n as u64);
    let mut resample = || (0..n).map(|_| numbers[draws.below(n as u32) as usize]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
    means.sort_by(f64::total_cmp);
    // Means that differ from the mean by rounding alone are equal to it; half of those count as below.
    let same = 1e-12 * numbers.iter().fold(0.0f64, |a, x| a.max((x - mean).abs()));
    let below = means.partition_point(|m| *m < mean - same);
    let not_above = means.partition_point(|m| *m <= mean + same);
    let bias = quantile_of_normal((below + not_above) as f64 / 2.0 / RESAMPLES as f64);
    // The jackknife's deviations are those of the numbers, up to a factor that cancels.
    let moment = |power: i32| numbers.iter().map(|x| (x - mean).powi(power)).sum::<f64>();
    let acceleration = moment(3) / (6.0 * moment(2) * moment(2).sqrt());
    let end = |share: f64| {
        let z = bias + quantile_of_normal(share);
        let share = normal(bias + z / (1.0 - acceleration * z));
        let at = share * (RESAMPLES - 1) as f64;
        let low = (at.floor() as usize).min(RESAMPLES - 2);
        means[low] + (at - low as f64) * (means[low + 1] - means[low])
    };
    let outside = (1.0 - LEVEL / 100.0) / 2.0;
    let (low, high) = (end(outside), end(1.0 - outside));
    Some(Interval { low: low.min(high), high: high.max(low) })
}

/// The difference first - second over the seeds that both have; a seed stands once in each.
pub fn paired(first: &[(u64, f64)], second: &[(u64, f64)]) -> Paired {
    let second: BTreeMap<u64, f64> = second.iter().copied().collect();
    let first: BTreeMap<u64, f64> = first.iter().copied().collect();
    let differences: Vec<f64> = first.iter().filter_map(|(seed, a)| Some(a - second.get(seed)?)).collect();
    let n = differences.len();
    let mean = (n > 0).then(|| differences.iter().sum::<f64>() / n as f64);
    Paired { n, mean, interval: interval(&differences) }
}

/// The mean of each seed's numbers, seeds rising.
pub fn by_seed(numbers: impl IntoIterator<Item = (u64, f64)>) -> Vec<(u64, f64)> {
    let mut sums: BTreeMap<u64, (f64, usize)> = BTreeMap::new();
    for (seed, number) in numbers {
        let (sum, n) = sums.entry(seed).or_default();
        *sum += number;
        *n += 1;
    }
    sums.into_iter().map(|(seed, (sum, n))| (seed, sum / n as f64)).collect()
}

/// Phi.
fn normal(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

/// Phi^-1 by halving, kept within ±8: shares of ten thousand resamples are not nearer to 0 or 1 than that.
fn quantile_of_normal(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal(middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All n^n resamples of n numbers, their means sorted.
    fn every_resample(numbers: &[f64]) -> Vec<f64> {
        let n = numbers.len();
        let of = |mut code: usize| {
            let mut sum = 0.0;
            for _ in 0..n {
                sum += numbers[code % n];
                code /= n;
            }
            sum / n as f64
        };
        let mut means: Vec<f64> = (0..n.pow(n as u32)).map(of).collect();
        means.sort_by(f64::total_cmp);
        means
    }

    /// The whole bootstrap distribution of six numbers (46656 resamples). The BCa formulas on it, written again in
    /// plain form; a quantile of 10 000 resamples has a standard error of some .15 % in share, which among means this dense
    /// moves an end by below 4 % of the interval's width (8 sigma; the resamples are fixed, so it holds or it does not).
    #[test]
    fn intervals_are_those_of_the_whole_bootstrap_distribution() {
        for numbers in
            [[1.0, 2.0, 4.0, 7.0, 7.5, 9.0], [0.1, 0.12, 0.13, 0.2, 0.5, 0.9], [-3.0, -1.0, 0.0, 0.5, 1.0, 4.0]]
        {
            let means = every_resample(&numbers);
            let mean = numbers.iter().sum::<f64>() / 6.0;
            let count = |keep: &dyn Fn(f64) -> bool| means.iter().filter(|m| keep(**m)).count() as f64;
            let below = count(&|m| m < mean - 1e-9) + 0.5 * count(&|m| (m - mean).abs() <= 1e-9);
            let z0 = quantile_of_normal(below / means.len() as f64);
            let jack: Vec<f64> = numbers.iter().map(|x| (6.0 * mean - x) / 5.0).collect();
            let centre = jack.iter().sum::<f64>() / 6.0;
            let sum = |p: i32| jack.iter().map(|j| (centre - j).powi(p)).sum::<f64>();
            let a = sum(3) / (6.0 * sum(2).powf(1.5));
            let end = |z: f64| {
                let share = normal(z0 + (z0 + z) / (1.0 - a * (z0 + z)));
                means[((share * means.len() as f64) as usize).min(means.len() - 1)]
            };
            let (low, high) = (end(-1.959964), end(1.959964));
            let found = interval(&numbers).expect("six numbers");
            let room = 0.04 * (high - low);
            assert!((found.low - low).abs() < room && (found.high - high).abs() < room, "{found:?} {low} {high}");
        }
    }

    #[test]
    fn equal_numbers_have_an_interval_of_no_width_and_few_numbers_none() {
        assert_eq!(interval(&[0.1; 5]), Some(Interval { low: 0.1, high: 0.1 }));
        assert_eq!(interval(&[1.0, 2.0]), None);
        assert_eq!(interval(&[]), None);
    }

    #[test]
    fn an_interval_is_the_same_again_moves_with_the_numbers_and_lies_inside_them() {
        let numbers = [0.3, 0.5, 0.4, 0.9, 0.2];
        let found = interval(&numbers).expect("five numbers");
        assert_eq!(interval(&numbers), Some(found));
        assert!(found.low >= 0.2 && found.high <= 0.9 && found.low < 0.46 && found.high > 0.46);
        let moved = interval(&numbers.map(|x| 2.0 * x + 8.0)).expect("five numbers");
        // The resamples are the same ones, so only rounding differs.
        assert!((moved.low - (2.0 * found.low + 8.0)).abs() < 1e-12, "{moved:?} {found:?}");
        assert!((moved.high - (2.0 * found.high + 8.0)).abs() < 1e-12);
    }

    /// Coverage of the mean of normals over 400 sets of eight: small samples make bootstrap intervals too narrow (some 90 %
    /// here). Binomial with 400 draws: standard deviation 1.5 %, so 85 % to 97 % is over three of them to each side.
    #[test]
    fn intervals_cover_the_truth_about_as_often_as_small_samples_let_them() {
        let mut draws = Draws::new(9, Stream::Baseline, 0);
        let covered = (0..400).filter(|_| {
            let numbers: Vec<f64> = (0..8).map(|_| draws.normal()).collect();
            interval(&numbers).is_some_and(|i| i.low <= 0.0 && i.high >= 0.0)
        });
        let share = covered.count() as f64 / 400.0;
        assert!((0.85..0.97).contains(&share), "{share}");
    }

    #[test]
    fn differences_are_taken_over_common_seeds_and_say_what_they_say() {
        let a: Vec<(u64, f64)> = (0..6).map(|s| (s, 0.5 + 0.1 * s as f64)).collect();
        let above: Vec<(u64, f64)> = (1..9).map(|s| (s, 0.48 + 0.1 * s as f64)).collect();
        let found = paired(&a, &above);
        assert_eq!((found.n, found.verdict()), (5, Verdict::Higher));
        assert!((found.mean.expect("common seeds") - 0.02).abs() < 1e-12);
        assert_eq!(paired(&above, &a).verdict(), Verdict::Lower);
        // The seeds differ far more than the methods, and these do not differ one way.
        let around: Vec<(u64, f64)> = a.iter().map(|(s, x)| (*s, x + 0.01 * (*s as f64 - 2.5))).collect();
        assert_eq!(paired(&a, &around).verdict(), Verdict::NotDistinguishable);
        let two = paired(&a[..2], &a);
        assert_eq!((two.n, two.mean, two.interval, two.verdict()), (2, Some(0.0), None, Verdict::TooFewSeeds));
        assert_eq!(paired(&a[..2], &a[3..]), Paired { n: 0, mean: None, interval: None });
    }

    #[test]
    fn numbers_of_one_seed_are_averaged_first() {
        assert_eq!(by_seed([(2, 1.0), (0, 4.0), (2, 3.0)]), [(0, 4.0), (2, 2.0)]);
    }
}
