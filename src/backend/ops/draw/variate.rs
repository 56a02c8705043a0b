//! From integers uniform on 0 .. T to variates, by polynomials in fused multiply-adds: the same bits on every machine.

use crate::backend::simd::Simd;
use crate::data::law::{Base, Scale};

/// Cephes `logf`: (ln(1 + x) - x + x²/2) / x³ on [√½ - 1, √2 - 1], highest power first.
pub const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_9e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_5e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// The normal quantile over 1 - 2q as a polynomial in w - 2.5, where w = -ln(4q(1 - q)) < 5 (the variable of Giles 2011,
/// "Approximating the erfinv function"; coefficients from Chebyshev nodes). Relative error below 2e-7.
pub const NORMAL_MIDDLE: [f32; 9] = [
    3.196_968e-8,
    4.839_788_5e-7,
    -4.885_796e-6,
    -6.194_745_8e-6,
    3.087_411_1e-4,
    -1.773_082_8e-3,
    -5.907_66e-3,
    3.488_027_2e-1,
    2.123_313_4,
];

/// The same for w ≥ 5 in √w - 3.5, fitted up to √w = 4.75 (q = 2^-33 has 4.64). Relative error below 1e-6.
pub const NORMAL_TAIL: [f32; 9] = [
    2.146_388_4e-5,
    -2.459_022_8e-4,
    7.238_192_5e-4,
    -1.082_463_1e-3,
    1.492_789_6e-3,
    -2.857_982_9e-3,
    4.641_317e-3,
    1.424_627_2,
    4.717_089,
];

/// The base variate of sixteen integers in 0 .. T. Integers from T on give rubbish, which the caller leaves out.
#[inline(always)]
pub fn variate<S: Simd>(base: Base, k: S::U, scale: &Scale) -> S::F {
    match base {
        Base::Uniform => uniform::<S>(k, scale),
        Base::Normal => normal::<S>(k, scale),
        Base::Exponential => S::sub(S::splat(0.0), ln::<S>(uniform::<S>(k, scale))),
    }
}

/// Uniform on (0, 1].
#[inline(always)]
pub fn uniform<S: Simd>(k: S::U, scale: &Scale) -> S::F {
    let s = S::splat(scale.uniform);
    S::fma(S::to_f32(S::shift_right::<1>(k)), s, S::mul(s, S::splat(0.5)))
}

/// Standard normal: the quantile, from whichever tail is nearer, so that both tails are resolved alike.
#[inline(always)]
fn normal<S: Simd>(k: S::U, scale: &Scale) -> S::F {
    let m = S::min_u(k, S::sub_u(S::splat_u(scale.last), k));
    // For rubbish (k ≥ T) m may exceed 2^31; the tail is then negative and its logarithm finite all the same.
    let q = S::fma(S::to_f32(m), S::splat(scale.tail), S::splat(0.5 * scale.tail));
    let size = tail_size::<S>(q);
    S::sub(size, S::where_at_most_u(k, m, S::add(size, size)))
}

/// |Φ^-1(q)| for q below a half.
#[inline(always)]
pub fn tail_size<S: Simd>(q: S::F) -> S::F {
    let both = S::mul(S::mul(S::splat(4.0), q), S::sub(S::splat(1.0), q));
    let w = S::sub(S::splat(0.0), ln::<S>(both));
    let middle = polynomial::<S>(&NORMAL_MIDDLE, S::sub(w, S::splat(2.5)));
    let tail = polynomial::<S>(&NORMAL_TAIL, S::sub(S::sqrt(S::max(w, S::splat(0.0))), S::splat(3.5)));
    let ratio = S::select_positive(S::sub(S::splat(5.0), w), middle, tail);
    S::mul(ratio, S::fma(S::splat(-2.0), q, S::splat(1.0)))
}

#[inline(always)]
fn polynomial<S: Simd>(coefficients: &[f32; 9], x: S::F) -> S::F {
    let mut sum = S::splat(coefficients[0]);
    for c in &coefficients[1..] {
        sum = S::fma(sum, x, S::splat(*c));
    }
    sum
}

/// ln of sixteen words read as (⌊word / 256⌋ | 1) / 2^24, always inside (0, 1).
#[inline(always)]
pub fn ln_unit<S: Simd>(word: S::U) -> S::F {
    let odd = S::or(S::shift_right::<8>(word), S::splat_u(1));
    ln::<S>(S::mul(S::to_f32(odd), S::splat(1.0 / 16_777_216.0)))
}

/// ln of positive normal numbers in 2^-64 .. 2^64: Cephes' reduction to a mantissa in [√½, √2) and its polynomial.
#[inline(always)]
pub fn ln<S: Simd>(u: S::F) -> S::F {
    let offset = S::sub_u(S::bits(u), S::splat_u(0x3F35_04F3));
    let scaled = S::shift_right::<23>(S::add_u(offset, S::splat_u(64 << 23)));
    let exponent = S::sub(S::to_f32(scaled), S::splat(64.0));
    let mantissa = S::add_u(S::and(offset, S::splat_u(0x007F_FFFF)), S::splat_u(0x3F35_04F3));
    let x = S::sub(S::from_bits(mantissa), S::splat(1.0));
    let poly = polynomial::<S>(&LN, x);
    let x2 = S::mul(x, x);
    let ln1p = S::fma(S::mul(x2, x), poly, S::fma(x2, S::splat(-0.5), x));
    S::fma(exponent, S::splat(std::f32::consts::LN_2), ln1p)
}
