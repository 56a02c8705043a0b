//! The standard normal: distribution, density and quantile in f64.

use std::f64::consts::{PI, SQRT_2};

/// Φ(z), with full relative accuracy in the lower tail.
pub fn cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / SQRT_2)
}

/// φ(z).
pub fn density(z: f64) -> f64 {
    libm::exp(-0.5 * z * z) / (2.0 * PI).sqrt()
}

/// Φ^-1(p): -∞ at 0, ∞ at 1. Relative error about 1e-16 (Wichura 1988, "Algorithm AS 241: The percentage points of the
/// normal distribution", PPND16).
///
/// # Panics
/// If p is outside [0, 1].
pub fn quantile(p: f64) -> f64 {
    assert!((0.0..=1.0).contains(&p), "a probability, not {p}");
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180625 - q * q;
        return q * ratio(&MIDDLE, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail == 0.0 {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let r = (-libm::log(tail)).sqrt();
    let size = if r <= 5.0 { ratio(&NEAR, r - 1.6) } else { ratio(&FAR, r - 5.0) };
    if q < 0.0 { -size } else { size }
}

/// t with P(N(0, 1) > t) = p: where a feature of probability p begins to fire. ∞ at 0, -∞ at 1.
pub fn threshold(p: f64) -> f64 {
    // Not the quantile of 1 - p, which has lost the digits of a small p.
    -quantile(p)
}

/// Numerator and denominator of a rational approximation, lowest power first.
type Rational = [[f64; 8]; 2];

fn ratio([above, below]: &Rational, x: f64) -> f64 {
    let polynomial = |c: &[f64; 8]| c[..7].iter().rev().fold(c[7], |sum, c| sum * x + c);
    polynomial(above) / polynomial(below)
}

const MIDDLE: Rational = [
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_854,
    ],
];

const NEAR: Rational = [
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
];

const FAR: Rational = [
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_the_golden_ones() {
        let golden = crate::testing::json(crate::testing::golden("worlds.json"));
        let rows = golden["thresholds"].as_array().expect("a list");
        assert_eq!(rows.len(), 10);
        for row in rows {
            let (p, t) = (row["p"].as_f64().expect("p"), row["t"].as_f64().expect("t"));
            assert!((threshold(p) - t).abs() < 1e-9, "{p}: {} for {t}", threshold(p));
        }
        assert_eq!((threshold(0.0), threshold(1.0)), (f64::INFINITY, f64::NEG_INFINITY));
    }

    /// Φ is an independent formula (erfc): a relative error e of the quantile z shows as about z² e in Φ.
    #[test]
    fn the_quantile_undoes_the_distribution_in_all_three_pieces() {
        for exponent in 0..60 {
            for p in [0.6 * 2f64.powi(-exponent), 0.45 * 2f64.powi(-exponent), 1.0 - 0.4 * 2f64.powi(-exponent.min(20))]
            {
                let z = quantile(p);
                assert!((cdf(z) / p - 1.0).abs() < 1e-13 * (1.0 + z * z), "{p} {z} {}", cdf(z));
            }
        }
    }
}
