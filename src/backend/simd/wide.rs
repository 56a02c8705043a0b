//! Eight f64 lanes: for sums that are reported, where f32 would lose digits.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Portable;
#[cfg(target_arch = "x86_64")]
use super::{Avx2, Avx512};

/// Operations on eight f64 lanes, each one correctly rounded operation a lane.
pub trait Wide: Copy {
    /// 8 f64.
    type D: Copy;
    /// x in every lane.
    fn splat_d(x: f64) -> Self::D;
    /// The eight lanes in memory.
    fn load_d(x: &[f64; 8]) -> Self::D;
    /// To memory.
    fn store_d(x: Self::D, to: &mut [f64; 8]);
    /// Eight f32 as f64: exact.
    fn widen(x: &[f32; 8]) -> Self::D;
    /// a + b.
    fn add_d(a: Self::D, b: Self::D) -> Self::D;
    /// a - b.
    fn sub_d(a: Self::D, b: Self::D) -> Self::D;
    /// a * b.
    fn mul_d(a: Self::D, b: Self::D) -> Self::D;
    /// 0 where x < 0, else x: so x where it is NaN.
    fn relu_d(x: Self::D) -> Self::D;
}

impl Wide for Portable {
    type D = [f64; 8];
    #[inline(always)]
    fn splat_d(x: f64) -> [f64; 8] {
        [x; 8]
    }
    #[inline(always)]
    fn load_d(x: &[f64; 8]) -> [f64; 8] {
        *x
    }
    #[inline(always)]
    fn store_d(x: [f64; 8], to: &mut [f64; 8]) {
        *to = x;
    }
    #[inline(always)]
    fn widen(x: &[f32; 8]) -> [f64; 8] {
        x.map(f64::from)
    }
    #[inline(always)]
    fn add_d(a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|l| a[l] + b[l])
    }
    #[inline(always)]
    fn sub_d(a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|l| a[l] - b[l])
    }
    #[inline(always)]
    fn mul_d(a: [f64; 8], b: [f64; 8]) -> [f64; 8] {
        std::array::from_fn(|l| a[l] * b[l])
    }
    #[inline(always)]
    fn relu_d(x: [f64; 8]) -> [f64; 8] {
        x.map(|x| if x < 0.0 { 0.0 } else { x })
    }
}

/// Methods that are one expression of intrinsics each.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    ($(fn $name:ident($($arg:ident: $of:ty),*) $(-> $out:ty)? = $e:expr;)+) => {
        $(#[inline(always)]
        fn $name($($arg: $of),*) $(-> $out)? {
            // SAFETY: kernels of an instruction set's type exist only inside its `run_` function; references give
            // valid memory.
            unsafe { $e }
        })+
    };
}

#[cfg(target_arch = "x86_64")]
impl Wide for Avx512 {
    type D = __m512d;
    intrinsics! {
        fn splat_d(x: f64) -> __m512d = _mm512_set1_pd(x);
        fn load_d(x: &[f64; 8]) -> __m512d = _mm512_loadu_pd(x.as_ptr());
        fn store_d(x: __m512d, to: &mut [f64; 8]) = _mm512_storeu_pd(to.as_mut_ptr(), x);
        fn widen(x: &[f32; 8]) -> __m512d = _mm512_cvtps_pd(_mm256_loadu_ps(x.as_ptr()));
        fn add_d(a: __m512d, b: __m512d) -> __m512d = _mm512_add_pd(a, b);
        fn sub_d(a: __m512d, b: __m512d) -> __m512d = _mm512_sub_pd(a, b);
        fn mul_d(a: __m512d, b: __m512d) -> __m512d = _mm512_mul_pd(a, b);
        // The second operand where either is NaN.
        fn relu_d(x: __m512d) -> __m512d = _mm512_max_pd(_mm512_setzero_pd(), x);
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for Avx2 {
    type D = [__m256d; 2];
    intrinsics! {
        fn splat_d(x: f64) -> [__m256d; 2] = [_mm256_set1_pd(x); 2];
        fn load_d(x: &[f64; 8]) -> [__m256d; 2] = [_mm256_loadu_pd(x.as_ptr()), _mm256_loadu_pd(x[4..].as_ptr())];
        fn widen(x: &[f32; 8]) -> [__m256d; 2] =
            [_mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr())), _mm256_cvtps_pd(_mm_loadu_ps(x[4..].as_ptr()))];
        fn add_d(a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] =
            [_mm256_add_pd(a[0], b[0]), _mm256_add_pd(a[1], b[1])];
        fn sub_d(a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] =
            [_mm256_sub_pd(a[0], b[0]), _mm256_sub_pd(a[1], b[1])];
        fn mul_d(a: [__m256d; 2], b: [__m256d; 2]) -> [__m256d; 2] =
            [_mm256_mul_pd(a[0], b[0]), _mm256_mul_pd(a[1], b[1])];
        // The second operand where either is NaN.
        fn relu_d(x: [__m256d; 2]) -> [__m256d; 2] =
            [_mm256_max_pd(_mm256_setzero_pd(), x[0]), _mm256_max_pd(_mm256_setzero_pd(), x[1])];
    }

    #[inline(always)]
    fn store_d(x: [__m256d; 2], to: &mut [f64; 8]) {
        let (low, high) = to.split_at_mut(4);
        // SAFETY: as above; both halves are four long.
        unsafe {
            _mm256_storeu_pd(low.as_mut_ptr(), x[0]);
            _mm256_storeu_pd(high.as_mut_ptr(), x[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, Kernel, Simd, run};

    struct Everything([f64; 8], [f64; 8], [f32; 8]);

    impl Kernel for Everything {
        type Out = [[f64; 8]; 6];
        #[inline(always)]
        fn run<S: Simd>(self) -> [[f64; 8]; 6] {
            let (a, b) = (S::load_d(&self.0), S::load_d(&self.1));
            let all = [
                S::splat_d(self.0[2]),
                S::widen(&self.2),
                S::add_d(a, b),
                S::sub_d(a, b),
                S::mul_d(a, b),
                S::relu_d(a),
            ];
            let mut to = [[0.0; 8]; 6];
            for (x, to) in all.into_iter().zip(&mut to) {
                S::store_d(x, to);
            }
            to
        }
    }

    #[test]
    fn every_instruction_set_does_what_the_scalars_do() {
        let a = [0.0, 1.5, -2.25, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e-320];
        let b = [3.0, 0.1, -7.0, 1e300, 1.0, f64::INFINITY, 2.0, 0.3];
        let c = [0.1f32, -0.0, 1e-40, f32::MAX, 3.0, -5.5, f32::INFINITY, 1.0];
        let relu = |x: f64| if x < 0.0 { 0.0 } else { x };
        let pairs = |f: fn(f64, f64) -> f64| std::array::from_fn(|l| f(a[l], b[l]));
        let expected =
            [[a[2]; 8], c.map(f64::from), pairs(|a, b| a + b), pairs(|a, b| a - b), pairs(|a, b| a * b), a.map(relu)];
        let bits = |all: [[f64; 8]; 6]| all.map(|v| v.map(|x| if x.is_nan() { 1 } else { x.to_bits() }));
        for isa in Isa::available() {
            assert_eq!(bits(run(isa, Everything(a, b, c))), bits(expected), "{isa:?}");
        }
    }
}
