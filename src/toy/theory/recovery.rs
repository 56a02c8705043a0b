//! Which sparse codes can be found again from few dimensions, whatever the encoder: bounds for oracles and autoencoders.
//!
//! x has n entries of which k are not zero, h = Σ x_i g_i has d dimensions; δ = d/n, ρ = k/d.

use std::f64::consts::{PI, SQRT_2};

/// Every code of k < ½ (1 + 1/μ) non-zero entries is found by orthogonal matching pursuit and by the least L1 norm, where
/// μ is the greatest |g_i·g_j| of the dictionary (Tropp 2004, "Greed is good", theorem 3.5; Donoho & Elad 2003): the greatest
/// such k, and none where μ = 0, which has no limit.
///
/// # Panics
/// If `coherence` is not in [0, 1].
pub fn coherence_limit(coherence: f64) -> Option<usize> {
    assert!((0.0..=1.0).contains(&coherence), "a coherence of {coherence}");
    if coherence == 0.0 {
        return None;
    }
    let below = 0.5 * (1.0 + 1.0 / coherence);
    // k is below, not at, a whole number.
    Some(below.ceil() as usize - 1)
}

/// Sign of the codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Entries of either sign, found by the least L1 norm.
    Signed,
    /// Entries of at least 0, found by the least sum among such.
    NonNegative,
}

/// ρ*(δ): in Gaussian dictionaries with d/n = δ in (0, 1], codes of k < ρ* d entries are found with a probability that goes
/// to 1 as n grows, of k > ρ* d with one that goes to 0 (Donoho & Tanner 2005, 2009).
///
/// In the form of Donoho, Maleki & Montanari 2009 ("Message-passing algorithms for compressed sensing", eq. 5):
/// ρ* = max over z ≥ 0 of [1 - (κ/δ)((1 + z²)Φ(-z) - z φ(z))] / [1 + z² - κ((1 + z²)Φ(-z) - z φ(z))], κ = 2 for signed codes
/// and 1 for non-negative ones. The maximum is found by a scan and golden sections, to 1e-9.
///
/// # Panics
/// If δ is not in (0, 1].
pub fn donoho_tanner(delta: f64, codes: Codes) -> f64 {
    assert!(delta > 0.0 && delta <= 1.0, "δ = {delta}");
    let kappa = match codes {
        Codes::Signed => 2.0,
        Codes::NonNegative => 1.0,
    };
    let rho = |z: f64| {
        let density = libm::exp(-0.5 * z * z) / (2.0 * PI).sqrt();
        let tail = 0.5 * libm::erfc(z / SQRT_2);
        let missed = kappa * ((1.0 + z * z) * tail - z * density);
        (1.0 - missed / delta) / (1.0 + z * z - missed)
    };
    if codes == Codes::Signed && delta == 1.0 {
        // z = 0 gives 0/0; a square dictionary loses nothing.
        return 1.0;
    }
    // One maximum, at a z below 10 for every δ above 1e-20.
    let step = 0.01;
    let best = (0..1000).map(|i| i as f64 * step).fold((0.0, f64::MIN), |best: (f64, f64), z| {
        let value = rho(z);
        if value > best.1 { (z, value) } else { best }
    });
    golden(rho, (best.0 - step).max(0.0), best.0 + step)
}

/// The greatest value of a function with one maximum in an interval.
fn golden(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    let ratio = 0.5 * (5.0f64.sqrt() - 1.0);
    while high - low > 1e-9 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if f(a) < f(b) {
            low = a;
        } else {
            high = b;
        }
    }
    f(0.5 * (low + high)).max(f(low)).max(f(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tabulated to three digits.
    #[test]
    fn the_curves_are_the_tabulated_ones() {
        let deltas = [0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
        let signed = [0.189, 0.243, 0.267, 0.291, 0.337, 0.386, 0.438, 0.499, 0.573, 0.678];
        let positive = [0.241, 0.326, 0.365, 0.404, 0.480, 0.558, 0.639, 0.723, 0.810, 0.903];
        for ((delta, signed), positive) in deltas.into_iter().zip(signed).zip(positive) {
            let found = [Codes::Signed, Codes::NonNegative].map(|codes| donoho_tanner(delta, codes));
            assert!((found[0] - signed).abs() < 1e-3 && (found[1] - positive).abs() < 1e-3, "{delta} {found:?}");
        }
    }

    #[test]
    fn curves_rise_with_delta_to_one_and_non_negative_codes_are_easier() {
        for codes in [Codes::Signed, Codes::NonNegative] {
            let values: Vec<f64> = (1..=100).map(|i| donoho_tanner(i as f64 / 100.0, codes)).collect();
            assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
            assert!((values[99] - 1.0).abs() < 1e-6);
        }
        for delta in [1e-6, 0.01, 0.5, 0.99] {
            let [signed, positive] = [Codes::Signed, Codes::NonNegative].map(|codes| donoho_tanner(delta, codes));
            assert!(0.0 < signed && signed < positive, "{delta} {signed} {positive}");
        }
    }

    #[test]
    fn the_limit_by_coherence_is_below_half_of_one_and_its_inverse() {
        assert_eq!(coherence_limit(1.0), Some(0));
        // ½ (1 + 3) = 2: k = 1
        assert_eq!(coherence_limit(1.0 / 3.0), Some(1));
        assert_eq!(coherence_limit(0.3), Some(2));
        assert_eq!(coherence_limit(0.1), Some(5));
        assert_eq!(coherence_limit(0.0), None);
    }
}
