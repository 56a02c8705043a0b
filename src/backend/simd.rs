//! Sixteen f32 lanes on every machine.
//!
//! A kernel is written once, generic over [`Simd`], and compiled up to three times: AVX-512 (one register per vector),
//! AVX2 + FMA (two registers) and plain arrays; other machines than x86-64 have the last alone. Each method is one
//! correctly rounded operation per lane, and sums across lanes have one fixed shape ([`Simd::fold`]), so all give the
//! same bits. Only the sign and payload of a NaN are not promised.
//!
//! [`run`] is the only place that looks at the CPU. Everything a kernel calls must be `#[inline(always)]`: code that
//! is not inlined into the `#[target_feature]` functions below is compiled without vectors. That includes closures
//! that call `mul_add`: without the FMA instruction it is a library call, right but slow.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Sixteen neighbouring samples of one feature.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; 16]);

/// A computation that [`run`] compiles for each instruction set.
pub trait Kernel {
    /// What it returns.
    type Out;
    /// The computation, `#[inline(always)]` in every implementation.
    fn run<S: Simd>(self) -> Self::Out;
}

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, DQ, BW, VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// Plain arrays, on every machine.
    Portable,
}

impl Isa {
    /// The instruction sets this CPU has, fastest first; the last is [`Isa::Portable`].
    pub fn available() -> Vec<Isa> {
        [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// The fastest instruction set this CPU has.
    pub fn best() -> Isa {
        if Isa::Avx512.is_available() {
            Isa::Avx512
        } else if Isa::Avx2.is_available() {
            Isa::Avx2
        } else {
            Isa::Portable
        }
    }

    /// Whether this CPU has it (the answer is kept by the standard library: asking again is one load).
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && Isa::Avx2.is_available()
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("bmi1")
                    && is_x86_feature_detected!("bmi2")
                    && is_x86_feature_detected!("popcnt")
                    && is_x86_feature_detected!("lzcnt")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx512 | Isa::Avx2 => false,
            Isa::Portable => true,
        }
    }
}

/// Runs `kernel` with the given instruction set.
///
/// # Panics
/// If this CPU does not have it.
pub fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    assert!(isa.is_available(), "this CPU has no {isa:?}");
    match isa {
        // SAFETY: the features were found on this CPU.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        // SAFETY: the features were found on this CPU.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        _ => kernel.run::<Portable>(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx512>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<Avx2>()
}

/// Operations on sixteen lanes. `F` holds 16 f32; `U` holds 16 u32, or 8 u64 where a method says "wide".
pub trait Simd: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 u32, or 8 u64 ("wide").
    type U: Copy;
    /// Accumulators that leave room for operands in the register file.
    const ACCUMULATORS: usize;

    /// x in every lane.
    fn splat(x: f32) -> Self::F;
    /// The sixteen lanes in memory.
    fn load(x: &Lanes) -> Self::F;
    /// To memory.
    fn store(x: Self::F, to: &mut Lanes);
    /// Sixteen numbers anywhere in memory: no alignment is asked for.
    fn load_from(x: &[f32; 16]) -> Self::F;
    /// To anywhere in memory.
    fn store_to(x: Self::F, to: &mut [f32; 16]);
    /// a + b.
    fn add(a: Self::F, b: Self::F) -> Self::F;
    /// a - b.
    fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// a * b.
    fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// a / b.
    fn div(a: Self::F, b: Self::F) -> Self::F;
    /// The square root, correctly rounded.
    fn sqrt(a: Self::F) -> Self::F;
    /// a where a > b, else b: so b where either is NaN, and b of zeros of two signs. (x86's rule; `f32::max` has another.)
    fn max(a: Self::F, b: Self::F) -> Self::F;
    /// a where a < b, else b, with the same rule for NaN and zeros as [`Simd::max`].
    fn min(a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once (`f32::mul_add`).
    fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// x where gate > 0, else 0 (also where the gate is NaN).
    fn where_positive(gate: Self::F, x: Self::F) -> Self::F;
    /// a where gate > 0, else b (also where the gate is NaN).
    fn select_positive(gate: Self::F, a: Self::F, b: Self::F) -> Self::F;
    /// The sign bit cleared.
    fn abs(x: Self::F) -> Self::F;
    /// Bit l is set where lane l is > 0.
    fn positive_bits(x: Self::F) -> u32;
    /// The sum of all lanes: halves are added until one lane is left, (l, l+8), (l, l+4), (l, l+2), (l, l+1).
    fn fold(x: Self::F) -> f32;

    /// x in every lane.
    fn splat_u(x: u32) -> Self::U;
    /// To memory.
    fn store_u(x: Self::U, to: &mut [u32; 16]);
    /// Bitwise and.
    fn and(a: Self::U, b: Self::U) -> Self::U;
    /// Bitwise or.
    fn or(a: Self::U, b: Self::U) -> Self::U;
    /// a + b modulo 2^32.
    fn add_u(a: Self::U, b: Self::U) -> Self::U;
    /// a - b modulo 2^32.
    fn sub_u(a: Self::U, b: Self::U) -> Self::U;
    /// The lesser of two unsigned integers.
    fn min_u(a: Self::U, b: Self::U) -> Self::U;
    /// a >> BITS, zeros moving in.
    fn shift_right<const BITS: u32>(a: Self::U) -> Self::U;
    /// The integer, below 2^31, as f32, rounded to nearest even.
    fn to_f32(a: Self::U) -> Self::F;
    /// Truncated; the input must lie in 0..2^31.
    fn to_u32(a: Self::F) -> Self::U;
    /// The bits of the lanes.
    fn bits(a: Self::F) -> Self::U;
    /// Lanes of these bits.
    fn from_bits(a: Self::U) -> Self::F;
    /// x where word <= last, else 0; both below 2^31.
    fn where_at_most(word: Self::U, last: Self::U, x: Self::F) -> Self::F;
    /// x where word <= last as unsigned integers of 32 bits, else 0.
    fn where_at_most_u(word: Self::U, last: Self::U, x: Self::F) -> Self::F;

    /// Wide: base, base + 1, ... base + 7; the greatest must be below 2^32.
    fn count_from(base: u32) -> Self::U;
    /// Wide: x in each lane.
    fn splat_wide(x: u32) -> Self::U;
    /// Wide: product of the low halves.
    fn mul_wide(a: Self::U, b: Self::U) -> Self::U;
    /// Wide: the high half, moved down. What stays in the high half is not promised.
    fn high(a: Self::U) -> Self::U;
    /// a ^ b ^ c.
    fn xor3(a: Self::U, b: Self::U, c: Self::U) -> Self::U;
    /// Wide to 16 u32: the low halves of `a` in the even lanes, those of `b` in the odd lanes.
    fn interleave(a: Self::U, b: Self::U) -> Self::U;
}

/// Methods that are one expression of intrinsics each.
#[cfg(target_arch = "x86_64")]
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

#[cfg(target_arch = "x86_64")]
/// One 512-bit register a vector.
#[derive(Clone, Copy)]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
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
        fn store_u(x: __m512i, to: &mut [u32; 16]) = _mm512_storeu_si512(to.as_mut_ptr().cast(), x);
        fn and(a: __m512i, b: __m512i) -> __m512i = _mm512_and_si512(a, b);
        fn or(a: __m512i, b: __m512i) -> __m512i = _mm512_or_si512(a, b);
        fn add_u(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32(a, b);
        fn sub_u(a: __m512i, b: __m512i) -> __m512i = _mm512_sub_epi32(a, b);
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
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn fold8(x: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

#[cfg(target_arch = "x86_64")]
/// Two 256-bit registers a vector.
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
type Pair = [__m256; 2];
#[cfg(target_arch = "x86_64")]
type PairU = [__m256i; 2];

/// Applies an AVX2 intrinsic to both.
#[cfg(target_arch = "x86_64")]
macro_rules! both {
    ($f:expr, $($x:expr),+) => { [$f($($x[0]),+), $f($($x[1]),+)] };
}

#[cfg(target_arch = "x86_64")]
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
    fn shift_right<const BITS: u32>(a: PairU) -> PairU {
        // SAFETY: as above.
        unsafe { both!(_mm256_srl_epi32, a, [_mm_cvtsi32_si128(BITS as i32); 2]) }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation on the same operands, by name; floats as their bits.
    struct Everything {
        a: [f32; 16],
        b: [f32; 16],
        c: [f32; 16],
        u: [u32; 16],
        v: [u32; 16],
    }

    type Results = Vec<(&'static str, [u32; 16])>;

    fn bits(x: [f32; 16]) -> [u32; 16] {
        // A NaN's sign and payload are not promised.
        x.map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() })
    }

    impl Kernel for Everything {
        type Out = Results;
        #[inline(always)]
        fn run<S: Simd>(self) -> Results {
            let lanes = Lanes(self.a);
            let (a, b, c) = (S::load(&lanes), S::load_from(&self.b), S::load_from(&self.c));
            let load_u = |u: [u32; 16]| S::bits(S::load_from(&u.map(f32::from_bits)));
            let (u, v) = (load_u(self.u), load_u(self.v));
            let small = |u| S::shift_right::<1>(u);
            let float = |x: S::F| {
                let (mut aligned, mut anywhere) = (Lanes::default(), [0.0; 16]);
                S::store(x, &mut aligned);
                S::store_to(x, &mut anywhere);
                assert_eq!(bits(aligned.0), bits(anywhere));
                bits(anywhere)
            };
            let int = |x: S::U| {
                let mut to = [0; 16];
                S::store_u(x, &mut to);
                to
            };
            let wide = |x: S::U| {
                let mut to = int(x);
                to.iter_mut().skip(1).step_by(2).for_each(|junk| *junk = 0);
                to
            };
            vec![
                ("splat", float(S::splat(self.a[3]))),
                ("add", float(S::add(a, b))),
                ("sub", float(S::sub(a, b))),
                ("mul", float(S::mul(a, b))),
                ("div", float(S::div(a, b))),
                ("sqrt", float(S::sqrt(a))),
                ("max", float(S::max(a, b))),
                ("min", float(S::min(a, b))),
                ("fma", float(S::fma(a, b, c))),
                ("abs", float(S::abs(a))),
                ("where_positive", float(S::where_positive(a, b))),
                ("select_positive", float(S::select_positive(a, b, c))),
                ("positive_bits", [S::positive_bits(a); 16]),
                ("fold", bits([S::fold(a); 16])),
                ("splat_u", int(S::splat_u(self.u[5]))),
                ("and", int(S::and(u, v))),
                ("or", int(S::or(u, v))),
                ("add_u", int(S::add_u(u, v))),
                ("sub_u", int(S::sub_u(u, v))),
                ("min_u", int(S::min_u(u, v))),
                ("xor3", int(S::xor3(u, v, S::splat_u(0x5A5A_1234)))),
                ("shift_right", int(S::shift_right::<9>(u))),
                ("to_f32", float(S::to_f32(small(u)))),
                ("to_u32", int(S::to_u32(S::max(S::min(a, S::splat(2e9)), S::splat(0.0))))),
                ("bits", int(S::and(S::bits(S::splat(self.b[0])), u))),
                ("from_bits", float(S::from_bits(v))),
                ("where_at_most", float(S::where_at_most(small(u), small(v), b))),
                ("where_at_most_u", float(S::where_at_most_u(u, v, b))),
                ("count_from", int(S::count_from(self.u[0] >> 1))),
                ("splat_wide", int(S::splat_wide(self.u[1]))),
                ("mul_wide", int(S::mul_wide(u, v))),
                ("high", wide(S::high(u))),
                ("interleave", int(S::interleave(u, v))),
            ]
        }
    }

    /// The same one lane at a time, written from the trait's text.
    fn expected(t: &Everything) -> Results {
        let f = |op: &dyn Fn(usize) -> f32| bits(std::array::from_fn(op));
        let i = |op: &dyn Fn(usize) -> u32| std::array::from_fn(op);
        let (a, b, c, u, v) = (&t.a, &t.b, &t.c, &t.u, &t.v);
        let positive = (0..16).fold(0, |bits, l| bits | ((a[l] > 0.0) as u32) << l);
        let quarter = |l: usize| (a[l] + a[l + 8]) + (a[l + 4] + a[l + 12]);
        let fold = (quarter(0) + quarter(2)) + (quarter(1) + quarter(3));
        let clamp = |x: f32| {
            let x = if x < 2e9 { x } else { 2e9 };
            if x > 0.0 { x } else { 0.0 }
        };
        let product = |l: usize| u[l & !1] as u64 * v[l & !1] as u64;
        vec![
            ("splat", f(&|_| a[3])),
            ("add", f(&|l| a[l] + b[l])),
            ("sub", f(&|l| a[l] - b[l])),
            ("mul", f(&|l| a[l] * b[l])),
            ("div", f(&|l| a[l] / b[l])),
            ("sqrt", f(&|l| a[l].sqrt())),
            ("max", f(&|l| if a[l] > b[l] { a[l] } else { b[l] })),
            ("min", f(&|l| if a[l] < b[l] { a[l] } else { b[l] })),
            ("fma", f(&|l| libm::fmaf(a[l], b[l], c[l]))),
            ("abs", f(&|l| f32::from_bits(a[l].to_bits() & 0x7FFF_FFFF))),
            ("where_positive", f(&|l| if a[l] > 0.0 { b[l] } else { 0.0 })),
            ("select_positive", f(&|l| if a[l] > 0.0 { b[l] } else { c[l] })),
            ("positive_bits", [positive; 16]),
            ("fold", bits([fold; 16])),
            ("splat_u", [u[5]; 16]),
            ("and", i(&|l| u[l] & v[l])),
            ("or", i(&|l| u[l] | v[l])),
            ("add_u", i(&|l| u[l].wrapping_add(v[l]))),
            ("sub_u", i(&|l| u[l].wrapping_sub(v[l]))),
            ("min_u", i(&|l| u[l].min(v[l]))),
            ("xor3", i(&|l| u[l] ^ v[l] ^ 0x5A5A_1234)),
            ("shift_right", i(&|l| u[l] / 512)),
            ("to_f32", f(&|l| (u[l] / 2) as f32)),
            ("to_u32", i(&|l| clamp(a[l]) as u32)),
            ("bits", i(&|l| b[0].to_bits() & u[l])),
            ("from_bits", f(&|l| f32::from_bits(v[l]))),
            ("where_at_most", f(&|l| if u[l] / 2 <= v[l] / 2 { b[l] } else { 0.0 })),
            ("where_at_most_u", f(&|l| if u[l] <= v[l] { b[l] } else { 0.0 })),
            ("count_from", i(&|l| if l % 2 == 0 { u[0] / 2 + l as u32 / 2 } else { 0 })),
            ("splat_wide", i(&|l| if l % 2 == 0 { u[1] } else { 0 })),
            ("mul_wide", i(&|l| if l % 2 == 0 { product(l) as u32 } else { (product(l) >> 32) as u32 })),
            ("high", i(&|l| if l % 2 == 0 { u[l + 1] } else { 0 })),
            ("interleave", i(&|l| if l % 2 == 0 { u[l] } else { v[l - 1] })),
        ]
    }

    const AWKWARD: [f32; 19] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        -2.5,
        3.999_999_8,
        1e-45,
        -1e-40,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16_777_217.0,
        2_147_483_500.0,
        1e-20,
        -0.999_999_94,
    ];
    const WORDS: [u32; 11] =
        [0, 1, 2, 0x7FFF_FFFF, 0x8000_0000, 0x8000_0001, u32::MAX, 0xFFFF_FFFE, 16_777_219, 0xD251_1F53, 0x3F80_0000];

    #[test]
    fn every_operation_gives_the_same_bits_on_every_instruction_set() {
        for isa in Isa::available() {
            // 19 and 11 are primes, so strides 1, 2, ... let every value meet every other.
            for round in 0..19 * 19 {
                let f = |stride: usize| std::array::from_fn(|l| AWKWARD[(l * stride + round / stride) % 19]);
                let w = |stride: usize| std::array::from_fn(|l| WORDS[(l * stride + round / stride) % 11]);
                let stride = round % 19 + 1;
                let case =
                    || Everything { a: f(1), b: f(stride), c: f(stride % 7 + 1), u: w(1), v: w(stride % 11 + 1) };
                for (got, expected) in run(isa, case()).into_iter().zip(expected(&case())) {
                    assert_eq!(got, expected, "{isa:?}, round {round}");
                }
            }
        }
    }

    #[test]
    fn the_portable_set_is_always_there_and_the_best_one_is_first() {
        let available = Isa::available();
        assert_eq!((available.first(), available.last()), (Some(&Isa::best()), Some(&Isa::Portable)));
    }
}
