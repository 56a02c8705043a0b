//! The dense product, samples in the lanes.
//!
//! ```text
//! out[r][s] = start[r] + Σ_k weight[r, k] x[k][s]        k ascending, one fused chain
//! ```
//!
//! It is the encoder (x = h, start = b_enc - b_dec · w_enc), the dense decoder (x = z, start = b_dec, weights
//! transposed) and the gradient that comes back through the decoder (x = G). Lanes are samples, so weights are read in
//! their own row layout and only the batch is packed. The chain is the same for every rectangle of registers, so the
//! bits depend on neither the instruction set nor the block.

use super::layout::TILES;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Weights in memory: entry (row, depth) lies at `row * row_stride + depth * depth_stride`.
#[derive(Clone, Copy)]
pub struct Strided<'a> {
    /// The matrix and what may lie between.
    pub numbers: &'a [f32],
    /// From a row to the next.
    pub row_stride: usize,
    /// From a column to the next.
    pub depth_stride: usize,
}

/// The product for one panel.
pub struct Product<'a> {
    /// `[rows, depth]`
    pub weights: Strided<'a>,
    /// `[rows]`
    pub start: &'a [f32],
    /// `[depth][TILES]`
    pub x: &'a [Lanes],
    /// `[rows][TILES]`
    pub out: &'a mut [Lanes],
}

impl Kernel for Product<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (rows, depth) = (self.start.len(), self.x.len() / TILES);
        let Strided { numbers, row_stride, depth_stride } = self.weights;
        assert_eq!(self.out.len(), rows * TILES);
        assert!(depth == 0 || rows == 0 || (rows - 1) * row_stride + (depth - 1) * depth_stride < numbers.len());
        let mut r = 0;
        // Six rows by as many vectors as the registers hold; what is left over goes by two and by one.
        while r + 6 <= rows {
            if S::ACCUMULATORS >= 24 {
                rectangle::<S, 6, 4>(&self.weights, r, 0, self.start, self.x, self.out);
            } else {
                for v in 0..TILES {
                    rectangle::<S, 6, 1>(&self.weights, r, v, self.start, self.x, self.out);
                }
            }
            r += 6;
        }
        while r + 2 <= rows {
            if S::ACCUMULATORS >= 24 {
                rectangle::<S, 2, 4>(&self.weights, r, 0, self.start, self.x, self.out);
            } else {
                for v in [0, 2] {
                    rectangle::<S, 2, 2>(&self.weights, r, v, self.start, self.x, self.out);
                }
            }
            r += 2;
        }
        if r < rows {
            rectangle::<S, 1, 4>(&self.weights, r, 0, self.start, self.x, self.out);
        }
    }
}

/// Rows `first..first + R` by vectors `v..v + V`.
#[inline(always)]
fn rectangle<S: Simd, const R: usize, const V: usize>(
    weights: &Strided,
    first: usize,
    tile: usize,
    start: &[f32],
    x: &[Lanes],
    out: &mut [Lanes],
) {
    let mut sum = [[S::splat(0.0); V]; R];
    for (sum, &start) in sum.iter_mut().zip(&start[first..first + R]) {
        *sum = [S::splat(start); V];
    }
    let numbers = weights.numbers.as_ptr();
    let (row, deep) = (weights.row_stride, weights.depth_stride);
    for k in 0..x.len() / TILES {
        let mut lanes = [S::splat(0.0); V];
        for (v, lanes) in lanes.iter_mut().enumerate() {
            // SAFETY: k < x.len() / TILES and tile + v < TILES.
            *lanes = S::load(unsafe { x.get_unchecked(k * TILES + tile + v) });
        }
        for (r, sum) in sum.iter_mut().enumerate() {
            // SAFETY: first + r is a row and k a depth; `Product::run` asserted that the last of both lies inside.
            let w = S::splat(unsafe { *numbers.add((first + r) * row + k * deep) });
            for (sum, &x) in sum.iter_mut().zip(&lanes) {
                *sum = S::fma(w, x, *sum);
            }
        }
    }
    // Nothing but stores here: a longer body would keep the sums in memory through the loop above.
    for (r, sum) in sum.iter().enumerate() {
        for (v, &sum) in sum.iter().enumerate() {
            S::store(sum, &mut out[(first + r) * TILES + tile + v]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::layout::{PANEL, flat, flat_mut};
    use crate::backend::simd::{self, Isa};
    use crate::random::{Draws, Stream};

    fn random(n: usize, part: u64) -> Vec<f32> {
        let mut draws = Draws::new(11, Stream::SaeInit, part);
        (0..n).map(|_| draws.normal() as f32).collect()
    }

    /// One fused chain per element is the definition, so equality is exact.
    #[test]
    fn every_element_is_one_fused_chain_on_every_instruction_set() {
        for (rows, depth) in [(1, 1), (2, 5), (5, 16), (6, 17), (13, 3), (40, 20)] {
            for transposed in [false, true] {
                let stride = if transposed { rows + 3 } else { depth + 2 };
                let (row_stride, depth_stride) = if transposed { (1, stride) } else { (stride, 1) };
                let numbers = random(stride * if transposed { depth } else { rows }, 1);
                let start = random(rows, 2);
                let mut x = vec![Lanes::default(); depth * TILES];
                flat_mut(&mut x).copy_from_slice(&random(depth * PANEL, 3));
                for isa in Isa::available() {
                    let mut out = vec![Lanes::default(); rows * TILES];
                    let weights = Strided { numbers: &numbers, row_stride, depth_stride };
                    simd::run(isa, Product { weights, start: &start, x: &x, out: &mut out });
                    for r in 0..rows {
                        for s in 0..PANEL {
                            let chain = (0..depth).fold(start[r], |sum, k| {
                                numbers[r * row_stride + k * depth_stride].mul_add(flat(&x)[k * PANEL + s], sum)
                            });
                            assert_eq!(flat(&out)[r * PANEL + s], chain, "{isa:?} {rows} x {depth}, ({r}, {s})");
                        }
                    }
                }
            }
        }
    }
}
