//! Products of many rows with many rows, in f64, each with the bits of [`dot`](super::vector::dot).

use crate::backend::simd::{self, Isa, Kernel, Simd};

/// Rows are padded with zeros to a multiple of this, the lanes of [`dot`](super::vector::dot): the padding adds +0 to lanes,
/// which changes none.
pub const PAD: usize = 8;

/// Rows on either side that one pass over the numbers multiplies: sixteen sums in registers.
const SIDE: usize = 4;

/// Rows of `b` that stay in the cache while all rows of `a` meet them, in numbers: 256 KiB.
const NEAR: usize = 32 * 1024;

/// The length of a row of `d` numbers with its padding.
pub fn padded(d: usize) -> usize {
    d.next_multiple_of(PAD)
}

/// `out[r, c]` = row r of `a` · row c of `b`; rows of `width` numbers, padded, `out` as `[rows of a, rows of b]`.
///
/// # Panics
/// If `width` is 0 or no multiple of [`PAD`], or a length does not fit.
pub fn dots(a: &[f64], b: &[f64], width: usize, out: &mut [f64]) {
    assert!(width > 0 && width.is_multiple_of(PAD), "rows of whole lanes");
    let (rows_a, rows_b) = (a.len() / width, b.len() / width);
    assert!(a.len() == rows_a * width && b.len() == rows_b * width && out.len() == rows_a * rows_b);
    simd::run(Isa::best(), Dots { a, b, width, rows_b, out });
}

struct Dots<'a> {
    a: &'a [f64],
    b: &'a [f64],
    width: usize,
    rows_b: usize,
    out: &'a mut [f64],
}

impl Kernel for Dots<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Dots { a, b, width, rows_b, out } = self;
        let near = (NEAR / width).max(1).next_multiple_of(SIDE);
        for first_b in (0..rows_b).step_by(near) {
            let last_b = (first_b + near).min(rows_b);
            for (r, a) in a.chunks(SIDE * width).enumerate() {
                let out = &mut out[r * SIDE * rows_b..];
                for c in (first_b..last_b).step_by(SIDE) {
                    let b = &b[c * width..(c + SIDE).min(last_b) * width];
                    match (a.len() / width, b.len() / width) {
                        (SIDE, SIDE) => tile::<S, SIDE, SIDE>(a, b, width, rows_b, &mut out[c..]),
                        (rows, columns) => {
                            for r in 0..rows {
                                for k in 0..columns {
                                    let (a, b) = (&a[r * width..][..width], &b[k * width..][..width]);
                                    tile::<S, 1, 1>(a, b, width, rows_b, &mut out[r * rows_b + c + k..]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// R rows with C rows. Multiply and add are separate: a fused one would give other bits.
// Indices name registers here.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(a: &[f64], b: &[f64], width: usize, stride: usize, out: &mut [f64]) {
    let mut sums = [[S::splat_d(0.0); C]; R];
    let mut b_lanes = [S::splat_d(0.0); C];
    for at in (0..width).step_by(PAD) {
        for c in 0..C {
            b_lanes[c] = lanes::<S>(b, c * width + at);
        }
        for r in 0..R {
            let a = lanes::<S>(a, r * width + at);
            for c in 0..C {
                sums[r][c] = S::add_d(sums[r][c], S::mul_d(a, b_lanes[c]));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (c, sum) in sums.iter().enumerate() {
            let mut l = [0.0f64; PAD];
            S::store_d(*sum, &mut l);
            out[r * stride + c] = ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
        }
    }
}

#[inline(always)]
fn lanes<S: Simd>(numbers: &[f64], at: usize) -> S::D {
    // PAD numbers have just been cut.
    S::load_d(numbers[at..at + PAD].try_into().expect("PAD long"))
}

#[cfg(test)]
mod tests {
    use super::super::vector::dot;
    use super::*;
    use crate::random::{Draws, Stream};

    #[test]
    fn every_product_has_the_bits_of_dot_on_every_instruction_set() {
        let mut draws = Draws::new(3, Stream::Baseline, 0);
        for (rows_a, rows_b, d) in [(1, 1, 1), (4, 4, 8), (5, 9, 7), (9, 70, 17), (3, 2, 768), (6, 50, 1000)] {
            let width = padded(d);
            let mut rows = |count: usize| {
                let mut all = vec![0.0; count * width];
                all.chunks_exact_mut(width).for_each(|row| row[..d].fill_with(|| draws.normal()));
                all
            };
            let (a, b) = (rows(rows_a), rows(rows_b));
            for isa in Isa::available() {
                let mut out = vec![f64::NAN; rows_a * rows_b];
                simd::run(isa, Dots { a: &a, b: &b, width, rows_b, out: &mut out });
                for r in 0..rows_a {
                    for c in 0..rows_b {
                        let expected = dot(&a[r * width..][..d], &b[c * width..][..d]);
                        assert_eq!(out[r * rows_b + c].to_bits(), expected.to_bits(), "{isa:?} {r} {c} of d = {d}");
                    }
                }
            }
        }
    }
}
