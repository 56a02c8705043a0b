//! Gradients of dense weights: products of two batches, summed over samples.
//!
//! ```text
//! out[i][k] = Σ_s a[i][s] b[k][s]       each lane one fused chain over the tiles, then the fixed fold over lanes
//! ```

use super::layout::TILES;
use crate::backend::simd::{Kernel, Lanes, Simd};

/// The products over all panels of a batch.
pub struct Outer<'a> {
    /// `[panels][rows_a][TILES]`
    pub a: &'a [Lanes],
    /// Rows of a.
    pub rows_a: usize,
    /// `[panels][rows_b][TILES]`
    pub b: &'a [Lanes],
    /// Rows of b.
    pub rows_b: usize,
    /// `[rows_a][stride]`, of which `rows_b` are written.
    pub out: &'a mut [f32],
    /// Numbers from one row of `out` to the next.
    pub stride: usize,
}

impl Kernel for Outer<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let panels = self.a.len() / (self.rows_a * TILES);
        assert_eq!(self.a.len(), panels * self.rows_a * TILES);
        assert_eq!(self.b.len(), panels * self.rows_b * TILES);
        assert!(self.rows_b <= self.stride && self.out.len() >= self.rows_a * self.stride);
        let mut i = 0;
        if S::ACCUMULATORS >= 24 {
            while i + 4 <= self.rows_a {
                self.across::<S, 4, 5>(i);
                i += 4;
            }
        } else {
            while i + 2 <= self.rows_a {
                self.across::<S, 2, 2>(i);
                i += 2;
            }
        }
        while i < self.rows_a {
            self.across::<S, 1, 5>(i);
            i += 1;
        }
    }
}

impl Outer<'_> {
    /// Rows `i..i + A` of a by all rows of b, B at a time.
    #[inline(always)]
    fn across<S: Simd, const A: usize, const B: usize>(&mut self, i: usize) {
        let mut k = 0;
        while k + B <= self.rows_b {
            self.rectangle::<S, A, B>(i, k);
            k += B;
        }
        while k < self.rows_b {
            self.rectangle::<S, A, 1>(i, k);
            k += 1;
        }
    }

    #[inline(always)]
    fn rectangle<S: Simd, const A: usize, const B: usize>(&mut self, i: usize, k: usize) {
        let mut sums = [[Lanes::default(); B]; A];
        self.sum::<S, A, B>(i, k, &mut sums);
        // Apart from the sums above: a fold in one function with them would keep them in memory.
        for (row, sums) in sums.iter().enumerate() {
            let out = &mut self.out[(i + row) * self.stride + k..][..B];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = S::fold(S::load(sum));
            }
        }
    }

    #[inline(always)]
    fn sum<S: Simd, const A: usize, const B: usize>(&self, i: usize, k: usize, out: &mut [[Lanes; B]; A]) {
        let mut sum = [[S::splat(0.0); B]; A];
        let (a_panel, b_panel) = (self.rows_a * TILES, self.rows_b * TILES);
        for p in 0..self.a.len() / a_panel {
            for v in 0..TILES {
                let mut x = [S::splat(0.0); A];
                for (row, x) in x.iter_mut().enumerate() {
                    // SAFETY: panel p exists and i + A <= rows_a.
                    *x = S::load(unsafe { self.a.get_unchecked(p * a_panel + (i + row) * TILES + v) });
                }
                for column in 0..B {
                    // SAFETY: as above, k + B <= rows_b; `run` asserted that both have as many panels.
                    let y = S::load(unsafe { self.b.get_unchecked(p * b_panel + (k + column) * TILES + v) });
                    for (sum, &x) in sum.iter_mut().zip(&x) {
                        sum[column] = S::fma(x, y, sum[column]);
                    }
                }
            }
        }
        for (sum, out) in sum.iter().zip(out) {
            for (&sum, out) in sum.iter().zip(out) {
                S::store(sum, out);
            }
        }
    }
}

/// `[panels][rows][TILES]` summed over samples into `[rows]`: lanes over tiles, then the fold.
pub struct SumSamples<'a> {
    /// `[panels][rows][TILES]`
    pub x: &'a [Lanes],
    /// `[rows]`
    pub out: &'a mut [f32],
}

impl Kernel for SumSamples<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let panel = self.out.len() * TILES;
        for (row, out) in self.out.iter_mut().enumerate() {
            let mut sum = S::splat(0.0);
            for tiles in self.x.chunks_exact(panel) {
                for lanes in &tiles[row * TILES..][..TILES] {
                    sum = S::add(sum, S::load(lanes));
                }
            }
            *out = S::fold(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::ops::layout::{LANES, PANEL, flat, flat_mut};
    use crate::backend::simd::{self, Isa};
    use crate::random::{Draws, Stream};

    fn random(n: usize, part: u64) -> Vec<Lanes> {
        let mut draws = Draws::new(12, Stream::SaeInit, part);
        let mut x = vec![Lanes::default(); n];
        flat_mut(&mut x).iter_mut().for_each(|x| *x = draws.normal() as f32);
        x
    }

    /// Chains of `panels * TILES` fused sums in sixteen lanes and four halvings: the definition, so equality is exact.
    #[test]
    fn sums_over_samples_have_one_shape_on_every_instruction_set() {
        for (panels, m, d) in [(1, 1, 1), (2, 5, 7), (3, 9, 5), (2, 17, 20)] {
            let (a, b) = (random(panels * m * TILES, 1), random(panels * d * TILES, 2));
            let entry = |x: &[Lanes], rows: usize, row: usize, tile: usize, lane: usize| {
                flat(x)[(tile / TILES * rows + row) * PANEL + tile % TILES * LANES + lane]
            };
            for isa in Isa::available() {
                let (mut out, mut sums) = (vec![0.0; m * (d + 3)], vec![0.0; m]);
                let outer = Outer { a: &a, rows_a: m, b: &b, rows_b: d, out: &mut out, stride: d + 3 };
                simd::run(isa, outer);
                simd::run(isa, SumSamples { x: &a, out: &mut sums });
                for i in 0..m {
                    let shape = |term: &dyn Fn(usize, usize, f32) -> f32| {
                        let mut lanes: [f32; LANES] =
                            std::array::from_fn(|l| (0..panels * TILES).fold(0.0, |sum, t| term(t, l, sum)));
                        for half in [8, 4, 2, 1] {
                            (0..half).for_each(|l| lanes[l] += lanes[l + half]);
                        }
                        lanes[0]
                    };
                    assert_eq!(sums[i], shape(&|t, l, sum| sum + entry(&a, m, i, t, l)), "{isa:?}");
                    for k in 0..d {
                        let chain = |t, l, sum| entry(&a, m, i, t, l).mul_add(entry(&b, d, k, t, l), sum);
                        assert_eq!(out[i * (d + 3) + k], shape(&chain), "{isa:?} {m} x {d}, ({i}, {k})");
                    }
                }
            }
        }
    }
}
