//! What neurons do: h from its pre-activation, with the derivative.
//!
//! ```text
//! ReLU   h = max(z, 0)     h' = 1 where z > 0, else 0
//! GELU   h = z Φ(z)        h' = Φ(z) + z φ(z)           (Hendrycks & Gimpel 2016, the exact form)
//! ```
//!
//! Φ(-a) = exp(-a²/2) t P(t) with t = 1 / (1 + 0.26 a) and a polynomial P, for a = |z| up to 9, where |z| Φ(-a) is below
//! 1e-17 and a greater |z| is taken as 9. The exponential is reduced to 2^-n exp(r), |r| ≤ ln 2 / 2. Everything is fused
//! multiply-adds, one division and whole numbers, so every instruction set gives the same bits.

use crate::backend::simd::{Kernel, Lanes, Simd};
use crate::toy::Activation;

/// P, highest power first, from Chebyshev nodes: relative error of Φ(-a) below 2e-8.
const TAIL: [f32; 9] = [
    0.033_387_09,
    -0.167_251_13,
    0.282_336_62,
    -0.187_723_95,
    0.187_644_27,
    0.038_958_743,
    0.106_345_28,
    0.102_511_24,
    0.103_791_82,
];

/// exp(r) on |r| ≤ ln 2 / 2, highest power first, from Chebyshev nodes: relative error below 3e-8.
const EXP: [f32; 7] = [0.001_394_121_3, 0.008_375_21, 0.041_666_35, 0.166_664_14, 0.5, 1.0, 1.0];

/// ln 2 in two parts; the first has so few digits that n times it is exact for n up to 127.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// (h, dh/dz) of sixteen pre-activations.
#[inline(always)]
pub fn activate<S: Simd>(activation: Activation, z: S::F) -> (S::F, S::F) {
    match activation {
        Activation::Identity => (z, S::splat(1.0)),
        Activation::Relu => (S::where_positive(z, z), S::where_positive(z, S::splat(1.0))),
        Activation::Gelu => gelu::<S>(z),
    }
}

#[inline(always)]
fn gelu<S: Simd>(z: S::F) -> (S::F, S::F) {
    let a = S::min(S::abs(z), S::splat(9.0));
    let bell = exp_of_minus::<S>(S::mul(S::mul(S::splat(0.5), a), a));
    let t = S::div(S::splat(1.0), S::fma(S::splat(0.26), a, S::splat(1.0)));
    let tail = S::mul(S::mul(bell, t), polynomial::<S, 9>(&TAIL, t));
    // Φ(z), from the nearer tail; z φ(z) with |z| at most 9.
    let below = S::select_positive(z, S::sub(S::splat(1.0), tail), tail);
    let density = S::mul(S::splat(0.398_942_3), bell);
    let clamped = S::select_positive(z, a, S::sub(S::splat(0.0), a));
    // z (1 - tail) as z - z tail: one rounding of a number next to z instead of two.
    let above = S::sub(z, S::mul(a, tail));
    let h = S::select_positive(z, above, S::mul(clamped, tail));
    (h, S::fma(clamped, density, below))
}

/// exp(-y) for y in 0 ..= 80.
#[inline(always)]
fn exp_of_minus<S: Simd>(y: S::F) -> S::F {
    let n = S::to_f32(S::to_u32(S::fma(y, S::splat(std::f32::consts::LOG2_E), S::splat(0.5))));
    let minus = S::sub(S::splat(0.0), y);
    let r = S::fma(n, S::splat(LN_2[1]), S::fma(n, S::splat(LN_2[0]), minus));
    // 2^-n by its exponent: (127 - n) 2^23 is below 2^31 and exact in f32.
    let scale = S::from_bits(S::to_u32(S::mul(S::sub(S::splat(127.0), n), S::splat(8_388_608.0))));
    S::mul(polynomial::<S, 7>(&EXP, r), scale)
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(coefficients: &[f32; N], x: S::F) -> S::F {
    let mut sum = S::splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = S::fma(sum, x, S::splat(*c));
    }
    sum
}

/// (h, dh/dz) in f64, by `libm`: what the vector form is held to.
pub fn reference(activation: Activation, z: f64) -> (f64, f64) {
    match activation {
        Activation::Identity => (z, 1.0),
        Activation::Relu => (if z > 0.0 { z } else { 0.0 }, if z > 0.0 { 1.0 } else { 0.0 }),
        Activation::Gelu => {
            let below = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
            let density =
                libm::exp(-0.5 * z * z) * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
            (z * below, below + z * density)
        }
    }
}

/// Applies an activation to numbers in a row, in place.
pub struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (whole, rest) = self.values.as_chunks_mut::<16>();
        for values in whole {
            S::store_to(activate::<S>(self.activation, S::load_from(values)).0, values);
        }
        let mut lanes = Lanes::default();
        lanes.0[..rest.len()].copy_from_slice(rest);
        S::store(activate::<S>(self.activation, S::load(&lanes)).0, &mut lanes);
        rest.copy_from_slice(&lanes.0[..rest.len()]);
    }
}

/// How far f32 may be from [`reference`] at the same z, for h over max(|z|, 1e-3) and for the derivative.
///
/// tail = bell · t · P: the error of y = a²/2 (2 u y) and of r (u y) makes 3 y u of bell, times bell at most 1.2 u in
/// all (y exp(-y) ≤ 0.37); exp's polynomial, the scaling, t, P and the products are eleven more roundings or fit errors at
/// most, of a tail of at most 1/2. Then two more for h. The derivative adds |z| φ(z) ≤ 0.25 with as much.
#[cfg(test)]
pub const GELU_ERROR: f64 = 12.0 * 5.960_464_5e-8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::{Isa, run};

    struct Both<'a> {
        activation: Activation,
        z: &'a [Lanes],
    }

    impl Kernel for Both<'_> {
        type Out = Vec<(f32, f32)>;
        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<(f32, f32)> {
            let mut out = vec![];
            for z in self.z {
                let (h, slope) = activate::<S>(self.activation, S::load(z));
                let (mut a, mut b) = (Lanes::default(), Lanes::default());
                S::store(h, &mut a);
                S::store(slope, &mut b);
                out.extend(a.0.into_iter().zip(b.0));
            }
            out
        }
    }

    /// -12 to 12 in steps of 1/1024 with awkward values among them.
    fn arguments() -> Vec<Lanes> {
        let mut z: Vec<f32> = (0..24 * 1024).map(|i| i as f32 / 1024.0 - 12.0).collect();
        z.extend([
            0.0, -0.0, 1e-30, -1e-30, 1e-40, 1e4, -1e4, 3e38, -3e38, 9.0, -9.0, 8.999_999, -8.999_999, 0.5, -0.5, 1.0,
        ]);
        z.as_chunks::<16>().0.iter().map(|z| Lanes(*z)).collect()
    }

    #[test]
    fn activations_are_within_a_few_roundings_of_the_exact_functions() {
        let z = arguments();
        for isa in Isa::available() {
            for activation in [Activation::Identity, Activation::Relu, Activation::Gelu] {
                let found = run(isa, Both { activation, z: &z });
                for (&z, (h, slope)) in z.iter().flat_map(|z| &z.0).zip(found) {
                    let (expected, expected_slope) = reference(activation, z as f64);
                    let off = (h as f64 - expected).abs() / (z as f64).abs().max(1e-3);
                    assert!(off <= GELU_ERROR, "{isa:?} {activation:?} {z}: {h} for {expected}");
                    let off = (slope as f64 - expected_slope).abs();
                    assert!(off <= 2.0 * GELU_ERROR, "{isa:?} {activation:?} {z}: slope {slope} for {expected_slope}");
                }
            }
        }
    }

    #[test]
    fn instruction_sets_give_the_same_bits() {
        let z = arguments();
        for activation in [Activation::Relu, Activation::Gelu] {
            let bits = |isa| {
                let pairs = run(isa, Both { activation, z: &z });
                pairs.into_iter().map(|(h, slope)| [h.to_bits(), slope.to_bits()]).collect::<Vec<_>>()
            };
            let expected = bits(Isa::Portable);
            assert!(Isa::available().into_iter().all(|isa| bits(isa) == expected));
        }
    }

    #[test]
    fn derivatives_are_difference_quotients() {
        // Third derivatives are below 1: h²/6 = 2e-9 with h = 1e-4, and 1e-16 · 4 / h = 4e-12 of rounding.
        for z in [-6.0, -2.3, -0.7, -1e-3, 0.2, 1.0, 3.1, 7.0] {
            let at = |z| reference(Activation::Gelu, z).0;
            let quotient = (at(z + 1e-4) - at(z - 1e-4)) / 2e-4;
            assert!((quotient - reference(Activation::Gelu, z).1).abs() < 2e-9, "{z}");
        }
    }

    #[test]
    fn a_row_is_activated_like_its_lanes_at_every_length() {
        let all: Vec<f32> = arguments().iter().flat_map(|z| z.0).step_by(311).collect();
        for isa in Isa::available() {
            for length in [0, 1, 15, 16, 17, 33] {
                let mut values = all[..length].to_vec();
                run(isa, Activate { activation: Activation::Gelu, values: &mut values });
                for (z, h) in all.iter().zip(values) {
                    assert_eq!(h, run(isa, Both { activation: Activation::Gelu, z: &[Lanes([*z; 16])] })[0].0);
                }
            }
        }
    }
}
