//! AVX-512, and AVX2 with FMA.

use std::arch::x86_64::*;

use super::{Lanes, Simd};

/// Methods that are one expression of intrinsics each.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident: $of:ty),*) $(-> $out:ty)? = $e:expr;)+) => {
        $(#[inline(always)]
        fn $name($($arg: $of),*) $(-> $out)? {
            // SAFETY: kernels of an instruction set's type exist only inside its `run_` function; references give
            // valid memory, and `Lanes` its alignment.
            unsafe { $e }
        })+
    };
}

/// One 512-bit register a vector.
#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    type F = __m512;
    type U = __m512i;
    const ACCUMULATORS: usize = 24;

    intrinsics! {
        fn splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        fn load(x: &Lanes) -> __m512 = _mm512_load_ps(x.0.as_ptr());
        fn store(x: __m512, to: &mut Lanes) = _mm512_store_ps(to.0.as_mut_ptr(), x);
        fn add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        fn sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        fn mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        fn div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        fn sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        fn load_from(x: &[f32; 16]) -> __m512 = _mm512_loadu_ps(x.as_ptr());
        fn store_to(x: __m512, to: &mut [f32; 16]) = _mm512_storeu_ps(to.as_mut_ptr(), x);
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        fn abs(x: __m512) -> __m512 = _mm512_abs_ps(x);
        fn select_positive(gate: __m512, a: __m512, b: __m512) -> __m512 =
            _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), a);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn where_positive(gate: __m512, x: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), x);
        fn positive_bits(x: __m512) -> u32 = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()) as u32;
        fn fold(x: __m512) -> f32 =
            fold8(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)));

        fn splat_u(x: u32) -> __m512i = _mm512_set1_epi32(x as i32);
        fn load_u(x: &[u32; 16]) -> __m512i = _mm512_loadu_si512(x.as_ptr().cast());
        // Compressed in a register: to memory it takes a hundred times longer on some machines.
        fn compress(bits: u32, x: __m512i, to: &mut [u32; 16]) =
            _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(bits as u16, x));
        fn store_u(x: __m512i, to: &mut [u32; 16]) = _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn add_u(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn sub_u(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        fn splat_last(a: __m512i) -> __m512i = _mm512_permutexvar_epi32(_mm512_set1_epi32(15), a);
        fn at_most_bits(word: __m512i, last: __m512i) -> u32 = _mm512_cmple_epu32_mask(word, last) as u32;
        fn min_u(a: __m512i, b: __m512i) -> __m512i = _mm512_min_epu32(a, b);
        fn to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn to_u32(a: __m512) -> __m512i = _mm512_cvttps_epi32(a);
        fn bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        fn from_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        fn where_at_most(word: __m512i, last: __m512i, x: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmple_epi32_mask(word, last), x);
        fn where_at_most_u(word: __m512i, last: __m512i, x: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmple_epu32_mask(word, last), x);

        fn count_from(base: u32) -> __m512i =
            _mm512_add_epi32(_mm512_set1_epi64(base as i64), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
        fn splat_wide(x: u32) -> __m512i = _mm512_set1_epi64(x as i64);
        fn mul_wide(a: __m512i, b: __m512i) -> __m512i = _mm512_mul_epu32(a, b);
        // A shuffle: shifts would wait for the port that multiplies.
        fn high(a: __m512i) -> __m512i = _mm512_shuffle_epi32::<0xF5>(a);
        fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i = _mm512_ternarylogic_epi32::<0x96>(a, b, c);
        fn interleave(a: __m512i, b: __m512i) -> __m512i = _mm512_mask_shuffle_epi32::<0xA0>(a, 0xAAAA, b);
    }

    /// Pairs of lanes, pairs of pairs, then quarters change places, four times sixteen shuffles in all.
    #[inline(always)]
    fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
        // SAFETY: as above.
        unsafe {
            let (mut x, mut y) = (rows, rows);
            for i in 0..8 {
                x[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                x[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
            let high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
            // y[4 i + c], c below 4: in each quarter q, column 4 q + c of rows 4 i to 4 i + 3.
            for i in 0..4 {
                let x = &x[4 * i..4 * i + 4];
                y[4 * i] = low(x[0], x[2]);
                y[4 * i + 1] = high(x[0], x[2]);
                y[4 * i + 2] = low(x[1], x[3]);
                y[4 * i + 3] = high(x[1], x[3]);
            }
            for c in 0..4 {
                let (a, b) = (y[c], y[c + 4]);
                let (d, e) = (y[c + 8], y[c + 12]);
                let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(d, e)];
                let odd = [_mm512_shuffle_f32x4::<0xDD>(a, b), _mm512_shuffle_f32x4::<0xDD>(d, e)];
                x[c] = _mm512_shuffle_f32x4::<0x88>(even[0], even[1]);
                x[c + 8] = _mm512_shuffle_f32x4::<0xDD>(even[0], even[1]);
                x[c + 4] = _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]);
                x[c + 12] = _mm512_shuffle_f32x4::<0xDD>(odd[0], odd[1]);
            }
            x
        }
    }
    #[inline(always)]
    fn prefix_sum(a: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let zero = _mm512_setzero_si512();
            let a = _mm512_add_epi32(a, _mm512_alignr_epi32::<15>(a, zero));
            let a = _mm512_add_epi32(a, _mm512_alignr_epi32::<14>(a, zero));
            let a = _mm512_add_epi32(a, _mm512_alignr_epi32::<12>(a, zero));
            _mm512_add_epi32(a, _mm512_alignr_epi32::<8>(a, zero))
        }
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(a: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_srli_epi32::<BITS>(a) }
    }
}

/// The last eight lanes of [`Simd::fold`].
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
unsafe fn fold8(x: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

/// The lanes whose bit is set, in front: their numbers, three bits in each nibble, are gathered and spread over the lanes.
///
/// # Safety
/// The CPU must have AVX2 and BMI2.
#[inline(always)]
unsafe fn compress8(bits: u32, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let lanes = _pext_u32(0x7654_3210, 0xF * _pdep_u32(bits, 0x1111_1111));
        let nibbles = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        _mm256_permutevar8x32_epi32(x, _mm256_srlv_epi32(_mm256_set1_epi32(lanes as i32), nibbles))
    }
}

/// Two 256-bit registers a vector.
#[derive(Clone, Copy)]
pub struct Avx2;

type Pair = [__m256; 2];
type PairU = [__m256i; 2];

/// Applies an AVX2 intrinsic to both.
macro_rules! both {
    ($f:expr, $($x:expr),+) => { [$f($($x[0]),+), $f($($x[1]),+)] };
}

impl Simd for Avx2 {
    type F = Pair;
    type U = PairU;
    const ACCUMULATORS: usize = 6;

    intrinsics! {
        fn splat(x: f32) -> Pair = [_mm256_set1_ps(x); 2];
        fn load(x: &Lanes) -> Pair = [_mm256_load_ps(x.0.as_ptr()), _mm256_load_ps(x.0[8..].as_ptr())];
        fn add(a: Pair, b: Pair) -> Pair = both!(_mm256_add_ps, a, b);
        fn sub(a: Pair, b: Pair) -> Pair = both!(_mm256_sub_ps, a, b);
        fn mul(a: Pair, b: Pair) -> Pair = both!(_mm256_mul_ps, a, b);
        fn div(a: Pair, b: Pair) -> Pair = both!(_mm256_div_ps, a, b);
        fn sqrt(a: Pair) -> Pair = both!(_mm256_sqrt_ps, a);
        fn load_from(x: &[f32; 16]) -> Pair = [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())];
        fn max(a: Pair, b: Pair) -> Pair = both!(_mm256_max_ps, a, b);
        fn min(a: Pair, b: Pair) -> Pair = both!(_mm256_min_ps, a, b);
        fn abs(x: Pair) -> Pair = both!(_mm256_andnot_ps, [_mm256_set1_ps(-0.0); 2], x);
        fn select_positive(gate: Pair, a: Pair, b: Pair) -> Pair =
            both!(|g, a, b| _mm256_blendv_ps(b, a, _mm256_cmp_ps::<_CMP_GT_OQ>(g, _mm256_setzero_ps())), gate, a, b);
        fn fma(a: Pair, b: Pair, c: Pair) -> Pair = both!(_mm256_fmadd_ps, a, b, c);
        fn where_positive(gate: Pair, x: Pair) -> Pair =
            both!(|g, x| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(g, _mm256_setzero_ps()), x), gate, x);
        fn fold(x: Pair) -> f32 = fold8(_mm256_add_ps(x[0], x[1]));

        fn splat_u(x: u32) -> PairU = [_mm256_set1_epi32(x as i32); 2];
        fn and(a: PairU, b: PairU) -> PairU = both!(_mm256_and_si256, a, b);
        fn or(a: PairU, b: PairU) -> PairU = both!(_mm256_or_si256, a, b);
        fn add_u(a: PairU, b: PairU) -> PairU = both!(_mm256_add_epi32, a, b);
        fn sub_u(a: PairU, b: PairU) -> PairU = both!(_mm256_sub_epi32, a, b);
        fn splat_last(a: PairU) -> PairU = [_mm256_permutevar8x32_epi32(a[1], _mm256_set1_epi32(7)); 2];
        fn min_u(a: PairU, b: PairU) -> PairU = both!(_mm256_min_epu32, a, b);
        fn to_f32(a: PairU) -> Pair = both!(_mm256_cvtepi32_ps, a);
        fn to_u32(a: Pair) -> PairU = both!(_mm256_cvttps_epi32, a);
        fn bits(a: Pair) -> PairU = both!(_mm256_castps_si256, a);
        fn from_bits(a: PairU) -> Pair = both!(_mm256_castsi256_ps, a);
        fn where_at_most(word: PairU, last: PairU, x: Pair) -> Pair =
            both!(|w, l, x| _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(w, l)), x), word, last, x);
        fn where_at_most_u(word: PairU, last: PairU, x: Pair) -> Pair =
            both!(|w, l, x| _mm256_and_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_min_epu32(w, l), w)), x),
                word, last, x);

        fn count_from(base: u32) -> PairU =
            both!(|offset| _mm256_add_epi32(_mm256_set1_epi64x(base as i64), offset),
                [_mm256_setr_epi64x(0, 1, 2, 3), _mm256_setr_epi64x(4, 5, 6, 7)]);
        fn splat_wide(x: u32) -> PairU = [_mm256_set1_epi64x(x as i64); 2];
        fn mul_wide(a: PairU, b: PairU) -> PairU = both!(_mm256_mul_epu32, a, b);
        fn high(a: PairU) -> PairU = both!(_mm256_srli_epi64::<32>, a);
        fn xor3(a: PairU, b: PairU, c: PairU) -> PairU =
            both!(|a, b, c| _mm256_xor_si256(_mm256_xor_si256(a, b), c), a, b, c);
        fn interleave(a: PairU, b: PairU) -> PairU =
            both!(|a, b| _mm256_blend_epi32::<0xAA>(a, _mm256_slli_epi64::<32>(b)), a, b);
    }

    #[inline(always)]
    fn store(x: Pair, to: &mut Lanes) {
        // SAFETY: as above; both halves lie inside `to`.
        unsafe {
            _mm256_store_ps(to.0.as_mut_ptr(), x[0]);
            _mm256_store_ps(to.0[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn store_to(x: Pair, to: &mut [f32; 16]) {
        // SAFETY: as above; both halves lie inside `to`.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn load_u(x: &[u32; 16]) -> PairU {
        // SAFETY: as above; both halves lie inside `x`.
        unsafe { [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[8..].as_ptr().cast())] }
    }
    #[inline(always)]
    fn compress(bits: u32, x: PairU, to: &mut [u32; 16]) {
        let (low, high) = (bits & 0xFF, bits >> 8);
        // SAFETY: as above; the second half starts at lane 8 at the latest.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), compress8(low, x[0]));
            _mm256_storeu_si256(to[low.count_ones() as usize..][..8].as_mut_ptr().cast(), compress8(high, x[1]));
        }
    }
    #[inline(always)]
    fn store_u(x: PairU, to: &mut [u32; 16]) {
        // SAFETY: as above; both halves lie inside `to`.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(to[8..].as_mut_ptr().cast(), x[1]);
        }
    }
    #[inline(always)]
    fn positive_bits(x: Pair) -> u32 {
        // SAFETY: as above.
        let bits = |x| unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) as u32 };
        bits(x[0]) | bits(x[1]) << 8
    }
    #[inline(always)]
    fn prefix_sum(a: PairU) -> PairU {
        // SAFETY: as above. A shift moves within each half of a register; the lower half's sum is then carried over.
        let half = |a| unsafe {
            let a = _mm256_add_epi32(a, _mm256_slli_si256::<4>(a));
            let a = _mm256_add_epi32(a, _mm256_slli_si256::<8>(a));
            let carry = _mm256_shuffle_epi32::<0xFF>(_mm256_permute2x128_si256::<0x08>(a, a));
            _mm256_add_epi32(a, carry)
        };
        let (low, high) = (half(a[0]), half(a[1]));
        // SAFETY: as above.
        [low, unsafe { _mm256_add_epi32(high, _mm256_permutevar8x32_epi32(low, _mm256_set1_epi32(7))) }]
    }
    #[inline(always)]
    fn at_most_bits(word: PairU, last: PairU) -> u32 {
        // SAFETY: as above.
        let bits = |w, l| unsafe {
            _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_min_epu32(w, l), w))) as u32
        };
        bits(word[0], last[0]) | bits(word[1], last[1]) << 8
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(a: PairU) -> PairU {
        // SAFETY: as above.
        unsafe { both!(_mm256_srl_epi32, a, [_mm_cvtsi32_si128(BITS as i32); 2]) }
    }
}
