//! Plain arrays: every machine, and the other instruction sets' reference.

use super::{Lanes, Simd};

/// Sixteen numbers in an array.
#[derive(Clone, Copy)]
pub struct Portable;

macro_rules! lanes {
    (|$i:ident| $e:expr) => {
        std::array::from_fn(|$i| $e)
    };
}

impl Simd for Portable {
    type F = [f32; 16];
    type U = [u32; 16];
    const ACCUMULATORS: usize = 6;

    fn splat(x: f32) -> Self::F {
        [x; 16]
    }
    fn load(x: &Lanes) -> Self::F {
        x.0
    }
    fn store(x: Self::F, to: &mut Lanes) {
        to.0 = x;
    }
    fn load_from(x: &[f32; 16]) -> Self::F {
        *x
    }
    fn store_to(x: Self::F, to: &mut [f32; 16]) {
        *to = x;
    }
    fn add(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| a[i] + b[i])
    }
    fn sub(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| a[i] - b[i])
    }
    fn mul(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| a[i] * b[i])
    }
    fn div(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| a[i] / b[i])
    }
    fn sqrt(a: Self::F) -> Self::F {
        lanes!(|i| a[i].sqrt())
    }
    fn max(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    fn min(a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanes!(|i| a[i].mul_add(b[i], c[i]))
    }
    fn where_positive(gate: Self::F, x: Self::F) -> Self::F {
        lanes!(|i| if gate[i] > 0.0 { x[i] } else { 0.0 })
    }
    fn select_positive(gate: Self::F, a: Self::F, b: Self::F) -> Self::F {
        lanes!(|i| if gate[i] > 0.0 { a[i] } else { b[i] })
    }
    fn abs(x: Self::F) -> Self::F {
        lanes!(|i| x[i].abs())
    }
    fn positive_bits(x: Self::F) -> u32 {
        (0..16).map(|i| ((x[i] > 0.0) as u32) << i).sum()
    }
    fn fold(mut x: Self::F) -> f32 {
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] += x[i + half];
            }
        }
        x[0]
    }
    fn splat_u(x: u32) -> Self::U {
        [x; 16]
    }
    fn load_u(x: &[u32; 16]) -> Self::U {
        *x
    }
    fn store_u(x: Self::U, to: &mut [u32; 16]) {
        *to = x;
    }
    fn compress(bits: u32, x: Self::U, to: &mut [u32; 16]) {
        let mut kept = 0;
        for (i, x) in x.into_iter().enumerate() {
            to[kept] = x;
            // The last lane has nothing behind it.
            kept = (kept + (bits >> i & 1) as usize).min(15);
        }
    }
    fn and(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i] & b[i])
    }
    fn or(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i] | b[i])
    }
    fn add_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_add(b[i]))
    }
    fn sub_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].wrapping_sub(b[i]))
    }
    fn prefix_sum(mut a: Self::U) -> Self::U {
        for i in 1..16 {
            a[i] = a[i].wrapping_add(a[i - 1]);
        }
        a
    }
    fn splat_last(a: Self::U) -> Self::U {
        [a[15]; 16]
    }
    fn at_most_bits(word: Self::U, last: Self::U) -> u32 {
        (0..16).map(|i| ((word[i] <= last[i]) as u32) << i).sum()
    }
    fn min_u(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| a[i].min(b[i]))
    }
    fn shift_right<const BITS: u32>(a: Self::U) -> Self::U {
        lanes!(|i| a[i] >> BITS)
    }
    fn to_f32(a: Self::U) -> Self::F {
        lanes!(|i| a[i] as i32 as f32)
    }
    fn to_u32(a: Self::F) -> Self::U {
        lanes!(|i| a[i] as i32 as u32)
    }
    fn bits(a: Self::F) -> Self::U {
        lanes!(|i| a[i].to_bits())
    }
    fn from_bits(a: Self::U) -> Self::F {
        lanes!(|i| f32::from_bits(a[i]))
    }
    fn where_at_most(word: Self::U, last: Self::U, x: Self::F) -> Self::F {
        lanes!(|i| if word[i] as i32 <= last[i] as i32 { x[i] } else { 0.0 })
    }
    fn where_at_most_u(word: Self::U, last: Self::U, x: Self::F) -> Self::F {
        lanes!(|i| if word[i] <= last[i] { x[i] } else { 0.0 })
    }
    fn count_from(base: u32) -> Self::U {
        lanes!(|i| if i % 2 == 0 { base.wrapping_add(i as u32 / 2) } else { 0 })
    }
    fn splat_wide(x: u32) -> Self::U {
        lanes!(|i| if i % 2 == 0 { x } else { 0 })
    }
    fn mul_wide(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| ((a[i & !1] as u64 * b[i & !1] as u64) >> (32 * (i & 1))) as u32)
    }
    fn high(a: Self::U) -> Self::U {
        lanes!(|i| if i % 2 == 0 { a[i + 1] } else { 0 })
    }
    fn xor3(a: Self::U, b: Self::U, c: Self::U) -> Self::U {
        lanes!(|i| a[i] ^ b[i] ^ c[i])
    }
    fn interleave(a: Self::U, b: Self::U) -> Self::U {
        lanes!(|i| if i % 2 == 0 { a[i] } else { b[i - 1] })
    }
}
