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

use std::sync::OnceLock;

mod portable;
mod wide;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use portable::Portable;
pub use wide::Wide;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

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

/// Asks for a line of memory that will be read soon; on machines without such an instruction nothing.
#[inline(always)]
pub fn prefetch(line: &Lanes) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.0.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
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

    /// The instruction set that programs use: the fastest this CPU has, or the one that the environment variable
    /// `TEGUM_ISA` names (see [`Isa::from_environment`]); a name that cannot be is passed over.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::from_environment().ok().flatten().unwrap_or_else(|| Isa::available()[0]))
    }

    /// The instruction set that `TEGUM_ISA` asks for: `avx512`, `avx2` or `portable`. Results do not depend on it; it is there
    /// to check that, and to compare speeds.
    ///
    /// # Errors
    /// A name that is none of these, or an instruction set that this CPU lacks.
    pub fn from_environment() -> Result<Option<Isa>, String> {
        let Some(asked) = std::env::var_os("TEGUM_ISA").filter(|asked| !asked.is_empty()) else { return Ok(None) };
        let named = [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().find(|isa| asked == isa.name());
        match named {
            Some(isa) if isa.is_available() => Ok(Some(isa)),
            Some(isa) => Err(format!("TEGUM_ISA={}: this CPU does not have it", isa.name())),
            None => {
                let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
                Err(format!("TEGUM_ISA={}: this CPU offers {}", asked.to_string_lossy(), available.join(", ")))
            }
        }
    }

    /// Its name in `TEGUM_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
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
pub trait Simd: Wide {
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
    /// Sixteen words anywhere in memory.
    fn load_u(x: &[u32; 16]) -> Self::U;
    /// To memory.
    fn store_u(x: Self::U, to: &mut [u32; 16]);
    /// The lanes whose bit is set, moved to the front in their order; what is written behind them is not promised.
    fn compress(bits: u32, x: Self::U, to: &mut [u32; 16]);
    /// Bitwise and.
    fn and(a: Self::U, b: Self::U) -> Self::U;
    /// Bitwise or.
    fn or(a: Self::U, b: Self::U) -> Self::U;
    /// a + b modulo 2^32.
    fn add_u(a: Self::U, b: Self::U) -> Self::U;
    /// a - b modulo 2^32.
    fn sub_u(a: Self::U, b: Self::U) -> Self::U;
    /// Lane l gets the sum of lanes 0 ..= l, modulo 2^32.
    fn prefix_sum(a: Self::U) -> Self::U;
    /// Lane 15 in every lane.
    fn splat_last(a: Self::U) -> Self::U;
    /// Bit l is set where word <= last in lane l, as unsigned integers.
    fn at_most_bits(word: Self::U, last: Self::U) -> u32;
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

    /// Row r of the result holds lane r of each operand, in their order.
    #[inline(always)]
    fn transpose(rows: [Self::F; 16]) -> [Self::F; 16] {
        let (mut from, mut to) = ([Lanes::default(); 16], [Lanes::default(); 16]);
        for (row, from) in rows.into_iter().zip(&mut from) {
            Self::store(row, from);
        }
        for (r, to) in to.iter_mut().enumerate() {
            for (from, to) in from.iter().zip(&mut to.0) {
                *to = from.0[r];
            }
        }
        let mut out = rows;
        for (out, to) in out.iter_mut().zip(&to) {
            *out = Self::load(to);
        }
        out
    }

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
                ("load_u", int(S::load_u(&self.u))),
                ("compress", {
                    let (mut to, bits) = ([0; 16], self.v[0] & 0xFFFF);
                    S::compress(bits, u, &mut to);
                    to[bits.count_ones() as usize..].fill(0);
                    to
                }),
                ("splat_u", int(S::splat_u(self.u[5]))),
                ("and", int(S::and(u, v))),
                ("or", int(S::or(u, v))),
                ("add_u", int(S::add_u(u, v))),
                ("sub_u", int(S::sub_u(u, v))),
                ("prefix_sum", int(S::prefix_sum(u))),
                ("splat_last", int(S::splat_last(u))),
                ("at_most_bits", [S::at_most_bits(u, v); 16]),
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
                ("transpose", {
                    let mut rows = [a; 16];
                    for (r, row) in rows.iter_mut().enumerate() {
                        *row = if r % 3 == 0 { b } else { S::add(c, S::splat(r as f32)) };
                    }
                    // Lanes 0 to 15 of the columns, one from each row.
                    let mut diagonal = [0; 16];
                    for (r, column) in S::transpose(rows).into_iter().enumerate() {
                        diagonal[r] = float(column)[(5 * r + 3) % 16];
                    }
                    diagonal
                }),
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
            ("load_u", *u),
            ("compress", {
                let kept: Vec<u32> = (0..16).filter(|l| v[0] >> l & 1 == 1).map(|l| u[l]).collect();
                i(&|l| kept.get(l).copied().unwrap_or(0))
            }),
            ("splat_u", [u[5]; 16]),
            ("and", i(&|l| u[l] & v[l])),
            ("or", i(&|l| u[l] | v[l])),
            ("add_u", i(&|l| u[l].wrapping_add(v[l]))),
            ("sub_u", i(&|l| u[l].wrapping_sub(v[l]))),
            ("prefix_sum", i(&|l| u[..=l].iter().fold(0, |sum: u32, u| sum.wrapping_add(*u)))),
            ("splat_last", [u[15]; 16]),
            ("at_most_bits", [(0..16).fold(0, |bits, l| bits | ((u[l] <= v[l]) as u32) << l); 16]),
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
            ("transpose", {
                let entry =
                    |row: usize, lane: usize| if row.is_multiple_of(3) { b[lane] } else { c[lane] + row as f32 };
                f(&|l| entry((5 * l + 3) % 16, l))
            }),
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
    fn the_portable_set_is_always_there_and_last() {
        let available = Isa::available();
        assert_eq!((available.contains(&Isa::best()), available.last()), (true, Some(&Isa::Portable)));
    }
}
