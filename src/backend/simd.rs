//! Sixteen f32 lanes on every machine.
//!
//! A kernel is written once, generic over [`Simd`], and compiled three times: AVX-512 (one register per vector),
//! AVX2 + FMA (two registers) and plain arrays. Each method is one correctly rounded operation per lane, and sums
//! across lanes have one fixed shape ([`Simd::fold`]), so the three give the same bits.
//!
//! [`run`] is the only place that looks at the CPU. Everything a kernel calls must be `#[inline(always)]`: code that
//! is not inlined into the `#[target_feature]` functions below is compiled without vectors.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Sixteen neighbouring samples of one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; 16]);

/// A computation that [`run`] compiles for each instruction set.
pub trait Kernel {
    type Out;
    fn run<S: Simd>(self) -> Self::Out;
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Isa {
    Avx512,
    Avx2,
    Portable,
}

impl Isa {
    /// The instruction sets this CPU has, fastest first.
    pub fn available() -> Vec<Isa> {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let mut found = vec![];
        if avx512 {
            found.push(Isa::Avx512);
        }
        if avx2 {
            found.push(Isa::Avx2);
        }
        found.push(Isa::Portable);
        found
    }
}

/// Runs `kernel` with the given instruction set, which must come from [`Isa::available`].
pub fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    // SAFETY: the caller's `isa` was detected on this CPU.
    match isa {
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        Isa::Portable => kernel.run::<Portable>(),
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx512>()
}

#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx2>()
}

/// Operations on sixteen lanes. `F` holds 16 f32; `U` holds 16 u32, or 8 u64 where a method says "wide".
pub trait Simd: Copy {
    type F: Copy;
    type U: Copy;
    /// Accumulators that leave room for operands in the register file.
    const ACCUMULATORS: usize;

    fn splat(x: f32) -> Self::F;
    fn load(x: &Lanes) -> Self::F;
    fn store(x: Self::F, to: &mut Lanes);
    fn add(a: Self::F, b: Self::F) -> Self::F;
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    fn div(a: Self::F, b: Self::F) -> Self::F;
    fn sqrt(a: Self::F) -> Self::F;
    fn max(a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// x where gate > 0, else 0.
    fn where_positive(gate: Self::F, x: Self::F) -> Self::F;
    /// x where a > b, else y.
    fn where_greater(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// Bit l is set where lane l is > 0.
    fn positive_bits(x: Self::F) -> u32;
    /// The sum of all lanes: halves are added until one lane is left, (l, l+8), (l, l+4), (l, l+2), (l, l+1).
    fn fold(x: Self::F) -> f32;

    fn splat_u(x: u32) -> Self::U;
    fn store_u(x: Self::U, to: &mut [u32; 16]);
    fn and(a: Self::U, b: Self::U) -> Self::U;
    fn or(a: Self::U, b: Self::U) -> Self::U;
    fn add_u(a: Self::U, b: Self::U) -> Self::U;
    fn sub_u(a: Self::U, b: Self::U) -> Self::U;
    fn shift_right<const BITS: u32>(a: Self::U) -> Self::U;
    /// The integer, below 2^31, as f32.
    fn to_f32(a: Self::U) -> Self::F;
    /// Truncated; the input must lie in 0..2^31.
    fn to_u32(a: Self::F) -> Self::U;
    fn bits(a: Self::F) -> Self::U;
    fn from_bits(a: Self::U) -> Self::F;
    /// x where word <= last, else 0; both below 2^31.
    fn where_at_most(word: Self::U, last: Self::U, x: Self::F) -> Self::F;

    /// Wide: base, base + 1, ... base + 7.
    fn count_from(base: u32) -> Self::U;
    /// Wide: x in each lane.
    fn splat_wide(x: u32) -> Self::U;
    /// Wide: product of the low halves.
    fn mul_wide(a: Self::U, b: Self::U) -> Self::U;
    /// Wide: the high half, moved down.
    fn high(a: Self::U) -> Self::U;
    fn xor3(a: Self::U, b: Self::U, c: Self::U) -> Self::U;
    /// Wide to 16 u32: the low halves of `a` in the even lanes, those of `b` in the odd lanes.
    fn interleave(a: Self::U, b: Self::U) -> Self::U;
}

/// Methods that are one expression of intrinsics each.
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident: $of:ty),*) $(-> $out:ty)? = $e:expr;)+) => {
        $(#[inline(always)] fn $name($($arg: $of),*) $(-> $out)? { unsafe { $e } })+
    };
}

#[derive(Clone, Copy)]
pub struct Avx512;

// SAFETY (all methods): kernels of this type exist only inside `run_avx512`.
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
        fn max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        fn where_positive(gate: __m512, x: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(gate, _mm512_setzero_ps()), x);
        fn where_greater(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 =
            _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), x);
        fn positive_bits(x: __m512) -> u32 = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()) as u32;
        fn fold(x: __m512) -> f32 =
            fold8(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)));

        fn splat_u(x: u32) -> __m512i = _mm512_set1_epi32(x as i32);
        fn store_u(x: __m512i, to: &mut [u32; 16]) = _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn add_u(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn sub_u(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
        fn to_f32(a: __m512i) -> __m512 = _mm512_cvtepi32_ps(a);
        fn to_u32(a: __m512) -> __m512i = _mm512_cvttps_epi32(a);
        fn bits(a: __m512) -> __m512i = _mm512_castps_si512(a);
        fn from_bits(a: __m512i) -> __m512 = _mm512_castsi512_ps(a);
        fn where_at_most(word: __m512i, last: __m512i, x: __m512) -> __m512 =
            _mm512_maskz_mov_ps(_mm512_cmple_epi32_mask(word, last), x);

        fn count_from(base: u32) -> __m512i =
            _mm512_add_epi32(_mm512_set1_epi64(base as i64), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
        fn splat_wide(x: u32) -> __m512i = _mm512_set1_epi64(x as i64);
        fn mul_wide(a: __m512i, b: __m512i) -> __m512i = _mm512_mul_epu32(a, b);
        // A shuffle: shifts would wait for the port that multiplies.
        fn high(a: __m512i) -> __m512i = _mm512_shuffle_epi32::<0xF5>(a);
        fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i = _mm512_ternarylogic_epi32::<0x96>(a, b, c);
        fn interleave(a: __m512i, b: __m512i) -> __m512i = _mm512_mask_shuffle_epi32::<0xA0>(a, 0xAAAA, b);
    }

    #[inline(always)]
    fn shift_right<const BITS: u32>(a: __m512i) -> __m512i {
        unsafe { _mm512_srli_epi32::<BITS>(a) }
    }
}

/// The last eight lanes of [`Simd::fold`].
#[inline(always)]
unsafe fn fold8(x: __m256) -> f32 {
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

#[derive(Clone, Copy)]
pub struct Avx2;

/// Two registers for sixteen lanes.
type Pair = [__m256; 2];
type PairU = [__m256i; 2];

/// Applies an AVX2 intrinsic to both.
macro_rules! both {
    ($f:expr, $($x:expr),+) => { [$f($($x[0]),+), $f($($x[1]),+)] };
}

// SAFETY (all methods): kernels of this type exist only inside `run_avx2`.
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
        fn max(a: Pair, b: Pair) -> Pair = both!(_mm256_max_ps, a, b);
        fn fma(a: Pair, b: Pair, c: Pair) -> Pair = both!(_mm256_fmadd_ps, a, b, c);
        fn where_positive(gate: Pair, x: Pair) -> Pair =
            both!(|g, x| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(g, _mm256_setzero_ps()), x), gate, x);
        fn where_greater(a: Pair, b: Pair, x: Pair, y: Pair) -> Pair =
            both!(|a, b, x, y| _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)), a, b, x, y);
        fn fold(x: Pair) -> f32 = fold8(_mm256_add_ps(x[0], x[1]));

        fn splat_u(x: u32) -> PairU = [_mm256_set1_epi32(x as i32); 2];
        fn and(a: PairU, b: PairU) -> PairU = both!(_mm256_and_si256, a, b);
        fn or(a: PairU, b: PairU) -> PairU = both!(_mm256_or_si256, a, b);
        fn add_u(a: PairU, b: PairU) -> PairU = both!(_mm256_add_epi32, a, b);
        fn sub_u(a: PairU, b: PairU) -> PairU = both!(_mm256_sub_epi32, a, b);
        fn to_f32(a: PairU) -> Pair = both!(_mm256_cvtepi32_ps, a);
        fn to_u32(a: Pair) -> PairU = both!(_mm256_cvttps_epi32, a);
        fn bits(a: Pair) -> PairU = both!(_mm256_castps_si256, a);
        fn from_bits(a: PairU) -> Pair = both!(_mm256_castsi256_ps, a);
        fn where_at_most(word: PairU, last: PairU, x: Pair) -> Pair =
            both!(|w, l, x| _mm256_andnot_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(w, l)), x), word, last, x);

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
        unsafe {
            _mm256_store_ps(to.0.as_mut_ptr(), x[0]);
            _mm256_store_ps(to.0[8..].as_mut_ptr(), x[1]);
        }
    }
    #[inline(always)]
    fn store_u(x: PairU, to: &mut [u32; 16]) {
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), x[0]);
            _mm256_storeu_si256(to[8..].as_mut_ptr().cast(), x[1]);
        }
    }
    #[inline(always)]
    fn positive_bits(x: Pair) -> u32 {
        let bits = |x| unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) as u32 };
        bits(x[0]) | bits(x[1]) << 8
    }
    #[inline(always)]
    fn shift_right<const BITS: u32>(a: PairU) -> PairU {
        let count = unsafe { _mm_cvtsi32_si128(BITS as i32) };
        unsafe { both!(_mm256_srl_epi32, a, [count; 2]) }
    }
}

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
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        lanes!(|i| a[i].mul_add(b[i], c[i]))
    }
    fn where_positive(gate: Self::F, x: Self::F) -> Self::F {
        lanes!(|i| if gate[i] > 0.0 { x[i] } else { 0.0 })
    }
    fn where_greater(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F {
        lanes!(|i| if a[i] > b[i] { x[i] } else { y[i] })
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
    fn store_u(x: Self::U, to: &mut [u32; 16]) {
        *to = x;
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
