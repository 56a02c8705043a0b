//! Philox4x32-10, eight calls at a time.
//!
//! Each 64-bit lane carries one 32-bit word in its low half, so a round is two multiplications, two moves and two
//! three-way XORs, with no traffic between lanes; junk in the high halves is never read. The four output words of eight
//! calls are interleaved into two vectors of sixteen: the [data law](crate::data::law) gives call b's words 0 and 1 to lanes
//! 2b and 2b + 1 of the first and its words 2 and 3 to those of the second, which is what `interleave` does for free.

use crate::backend::simd::Simd;
use crate::random::{Key, PHILOX_M, PHILOX_W};

/// The part of the counter that stays while c0 counts.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// Seed and stream.
    pub key: Key,
    /// c1: what is drawn.
    pub high: u32,
    /// c2.
    pub step: u32,
    /// c3: the row block.
    pub block: u32,
}

/// Calls `first .. first + 8`: 32 words as two vectors.
#[inline(always)]
pub fn words<S: Simd>(at: Address, first: u32) -> [S::U; 2] {
    let mut c = [S::count_from(first), S::splat_wide(at.high), S::splat_wide(at.step), S::splat_wide(at.block)];
    let mut key = at.key.0;
    for _ in 0..10 {
        c = round::<S>(c, key);
        key = [key[0].wrapping_add(PHILOX_W[0]), key[1].wrapping_add(PHILOX_W[1])];
    }
    [S::interleave(c[0], c[1]), S::interleave(c[2], c[3])]
}

/// Calls `first .. first + 16`: 64 words as four vectors. Two chains of rounds go side by side, because one chain's
/// waiting instructions fill the scheduler; AVX2 has too few registers for that.
#[inline(always)]
pub fn words4<S: Simd>(at: Address, first: u32) -> [S::U; 4] {
    if S::ACCUMULATORS < 24 {
        let ([a, b], [c, d]) = (words::<S>(at, first), words::<S>(at, first + 8));
        return [a, b, c, d];
    }
    let rest = [S::splat_wide(at.high), S::splat_wide(at.step), S::splat_wide(at.block)];
    let mut a = [S::count_from(first), rest[0], rest[1], rest[2]];
    let mut b = [S::count_from(first + 8), rest[0], rest[1], rest[2]];
    let mut key = at.key.0;
    for _ in 0..10 {
        a = round::<S>(a, key);
        b = round::<S>(b, key);
        key = [key[0].wrapping_add(PHILOX_W[0]), key[1].wrapping_add(PHILOX_W[1])];
    }
    [S::interleave(a[0], a[1]), S::interleave(a[2], a[3]), S::interleave(b[0], b[1]), S::interleave(b[2], b[3])]
}

/// Sixteen calls with a c0 and c1 each: word w of call l is lane l of vector w.
///
/// The vectors' even lanes are the low halves of eight wide lanes as they stand, the odd ones those moved down, so two
/// chains of rounds take them in without a shuffle and interleaving puts them back in order.
#[inline(always)]
pub fn words_of<S: Simd>(key: Key, c0: S::U, c1: S::U, step: u32, block: u32) -> [S::U; 4] {
    let rest = [S::splat_wide(step), S::splat_wide(block)];
    let mut even = [c0, c1, rest[0], rest[1]];
    let mut odd = [S::high(c0), S::high(c1), rest[0], rest[1]];
    let mut key = key.0;
    for _ in 0..10 {
        even = round::<S>(even, key);
        odd = round::<S>(odd, key);
        key = [key[0].wrapping_add(PHILOX_W[0]), key[1].wrapping_add(PHILOX_W[1])];
    }
    [
        S::interleave(even[0], odd[0]),
        S::interleave(even[1], odd[1]),
        S::interleave(even[2], odd[2]),
        S::interleave(even[3], odd[3]),
    ]
}

#[inline(always)]
fn round<S: Simd>(c: [S::U; 4], key: [u32; 2]) -> [S::U; 4] {
    let p0 = S::mul_wide(S::splat_wide(PHILOX_M[0]), c[0]);
    let p1 = S::mul_wide(S::splat_wide(PHILOX_M[1]), c[2]);
    let (k0, k1) = (S::splat_wide(key[0]), S::splat_wide(key[1]));
    [S::xor3(S::high(p1), c[1], k0), p1, S::xor3(S::high(p0), c[3], k1), p0]
}
