//! The gradient of hundreds of features from what fires and which outputs are open.
//!
//! ```text
//! for each sample:            h = Σ x_i W_i    over the features i that fire
//! for each block of outputs:
//!     for each sample:        z_j = b_j + Σ_k h_k W_jk    for the outputs j of the block
//!         where z_j > 0:      dW_j += z_j h;  db_j += z_j;  dh += z_j c_j W_j
//! dW_j *= c_j;  db_j *= c_j
//! for each sample, over the features i that fire:
//!     where z_i > 0:          dW_i -= c_i x_i h;  db_i -= c_i x_i;  dh -= x_i c_i W_i
//!     then                    dW_i += x_i dh
//! and the silent samples
//! ```
//!
//! Only z costs n d_hidden multiply-adds a sample; the rest follows the features that fire and the outputs that are open,
//! a third to a half of all while a model learns. For z the lanes are outputs, for everything else hidden dimensions, with
//! one lane more: it holds 1 in h, so that db is part of dW.
//!
//! g = c (z - x) is taken apart into what z adds and what x adds, because few x are not zero.
//!
//! Outputs go in blocks because W, dW and c W of all of them do not fit in L1, and a block's z for sixteen samples at a
//! time. Sums are chains in order of samples, dh in two chains over every other open output of a block, which are
//! added at the block's end. The loss is folded for each sample and block and summed in f64.

use super::ToyStep;
use super::silent::add_silent;
use crate::backend::ops::layout::{flat, flat_mut};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::toy::ToyKind;

/// Most hidden dimensions: one lane of four vectors is needed besides.
pub const ACTIVE_HIDDEN: usize = 63;

/// Samples whose z is kept at a time.
const GROUP: usize = 16;

/// Most vectors of outputs in a block.
const WIDEST: usize = 5;

/// Memory of the kernel; grows to what a step needs.
#[derive(Default)]
pub struct Memory {
    /// W, c W and the sums of dW, `[n_features, ⌈(d_hidden + 1) / 16⌉]`, lane = hidden dimension.
    w: Vec<Lanes>,
    c_w: Vec<Lanes>,
    dw: Vec<Lanes>,
    /// Wᵀ and, as one row more, b: `[blocks, d_hidden + 1, width]`, lane = output.
    w_t: Vec<Lanes>,
    /// `[blocks, width]`, lane = output.
    slopes: Vec<Lanes>,
    /// `[samples in which something fires, ⌈(d_hidden + 1) / 16⌉]`, whole groups.
    h: Vec<Lanes>,
    dh: Vec<Lanes>,
    /// For each of these samples the next event whose feature has not been reached by a block.
    next: Vec<u32>,
    /// `[samples in which something fires, blocks, width]`: which outputs are open, a bit each.
    is_open: Vec<u32>,
    group: Group,
}

/// One group of samples in one block of outputs, rows of [`WIDEST`] vectors.
struct Group {
    z: [Lanes; GROUP * WIDEST],
    /// Open outputs, counted from the block's first, with room to write sixteen at a time.
    open: [[u32; 16 * WIDEST + 16]; GROUP],
    count: [usize; GROUP],
}

impl Default for Group {
    fn default() -> Group {
        Group { z: [Lanes::default(); GROUP * WIDEST], open: [[0; 16 * WIDEST + 16]; GROUP], count: [0; GROUP] }
    }
}

/// Writes the gradient and returns the loss (0 unless the step asks for it). The step reads events, and has at most
/// [`ACTIVE_HIDDEN`] hidden dimensions.
pub fn gradient(isa: Isa, step: &ToyStep, memory: &mut Memory, to: &mut [f32]) -> f64 {
    run(isa, Active { step, memory, to })
}

struct Active<'a, 'b> {
    step: &'a ToyStep<'b>,
    memory: &'a mut Memory,
    to: &'a mut [f32],
}

impl Kernel for Active<'_, '_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        match (self.step.shape.d_hidden + 1).div_ceil(16) {
            1 => self.with_width::<S, 1>(),
            2 => self.with_width::<S, 2>(),
            3 => self.with_width::<S, 3>(),
            4 => self.with_width::<S, 4>(),
            _ => unreachable!("the rule of forms reads no events with so many hidden dimensions"),
        }
    }
}

/// Blocks of outputs: how many vectors each has. The last may reach past the last feature.
fn block_width(n_features: usize) -> usize {
    let vectors = n_features.div_ceil(16);
    vectors.div_ceil(vectors.div_ceil(WIDEST))
}

impl Active<'_, '_> {
    /// `Q` vectors hold the hidden dimensions.
    #[inline(always)]
    fn with_width<S: Simd, const Q: usize>(self) -> f64 {
        let Active { step, memory, to } = self;
        let (n, m) = (step.shape.n_features, step.shape.d_hidden);
        let width = block_width(n);
        memory.prepare::<Q>(step, width);
        memory.hidden::<S, Q>(step);
        let mut loss = 0.0;
        for first in (0..n).step_by(16 * width) {
            let block = Block { first, outputs: (n - first).min(16 * width), width };
            for group in (0..step.inputs.runs.count()).step_by(GROUP) {
                let samples = (step.inputs.runs.count() - group).min(GROUP);
                memory.reconstruct::<S, Q>(m, block, group);
                memory.open::<S>(step, block, group, samples);
                if step.with_loss {
                    loss += memory.loss::<S>(step, block, group, samples);
                }
                memory.back::<S, Q>(block, group, samples);
            }
        }
        memory.inputs_back::<S, Q>(step, n.div_ceil(16 * width) * width);
        for (j, row) in memory.dw.as_chunks::<Q>().0.iter().enumerate().take(n) {
            let row = flat(row);
            to[j * m..][..m].copy_from_slice(&row[..m]);
            to[n * m + j] = row[m];
        }
        0.5 * loss + add_silent(step, step.inputs.samples - step.inputs.runs.count(), to)
    }
}

/// A block of outputs.
#[derive(Clone, Copy)]
struct Block {
    first: usize,
    outputs: usize,
    /// Vectors.
    width: usize,
}

/// Q vectors from row `row`.
///
/// # Safety
/// `of` must have more than `row` rows of Q.
#[inline(always)]
unsafe fn row<const Q: usize>(of: &[Lanes], row: usize) -> &[Lanes; Q] {
    debug_assert!((row + 1) * Q <= of.len());
    unsafe { &*of.as_ptr().add(row * Q).cast() }
}

/// The same, to be written.
///
/// # Safety
/// As above.
#[inline(always)]
unsafe fn row_mut<const Q: usize>(of: &mut [Lanes], row: usize) -> &mut [Lanes; Q] {
    debug_assert!((row + 1) * Q <= of.len());
    unsafe { &mut *of.as_mut_ptr().add(row * Q).cast() }
}

#[inline(always)]
fn loaded<S: Simd, const Q: usize>(from: &[Lanes; Q]) -> [S::F; Q] {
    let mut to = [S::splat(0.0); Q];
    for q in 0..Q {
        to[q] = S::load(&from[q]);
    }
    to
}

/// One open output of one sample: dW_j += g h, `dh` += g c W_j.
#[inline(always)]
fn back_one<S: Simd, const Q: usize>(
    j: u32,
    z: &[f32],
    h: &[S::F; Q],
    c_w: &[Lanes],
    dw: &mut [Lanes],
    dh: &mut [S::F; Q],
) {
    let j = j as usize;
    debug_assert!(j < z.len());
    // SAFETY: open outputs lie inside the block: padding has z = 0, and the identity counts the real ones.
    let (g, c_w, dw) = unsafe { (*z.get_unchecked(j), row::<Q>(c_w, j), row_mut::<Q>(dw, j)) };
    let g = S::splat(g);
    for q in 0..Q {
        dh[q] = S::fma(g, S::load(&c_w[q]), dh[q]);
        S::store(S::fma(g, h[q], S::load(&dw[q])), &mut dw[q]);
    }
}

impl Memory {
    /// Lays W out and clears the sums.
    #[inline(always)]
    fn prepare<const Q: usize>(&mut self, step: &ToyStep, width: usize) {
        let (n, m) = (step.shape.n_features, step.shape.d_hidden);
        let blocks = n.div_ceil(16 * width);
        let count = step.inputs.runs.count();
        let fit = |of: &mut Vec<Lanes>, len: usize| {
            if of.len() != len {
                *of = vec![Lanes::default(); len];
            }
        };
        fit(&mut self.w, n * Q);
        fit(&mut self.c_w, n * Q);
        fit(&mut self.dw, n * Q);
        fit(&mut self.w_t, blocks * (m + 1) * width);
        fit(&mut self.slopes, blocks * width);
        let rows = count.next_multiple_of(GROUP) * Q;
        if self.h.len() < rows {
            self.h.resize(rows, Lanes::default());
            self.dh.resize(rows, Lanes::default());
        }
        self.is_open.resize(count * blocks * width, 0);
        let (w, b) = step.parameters.split_at(n * m);
        let at = |j: usize, k: usize| ((j / (16 * width)) * (m + 1) + k) * 16 * width + j % (16 * width);
        let w_t = flat_mut(&mut self.w_t);
        for j in 0..n {
            let from = &w[j * m..][..m];
            let c = step.slopes[j];
            let [row, c_row] = [&mut self.w, &mut self.c_w].map(|rows| &mut flat_mut(rows)[j * 16 * Q..][..m]);
            for k in 0..m {
                row[k] = from[k];
                c_row[k] = c * from[k];
                w_t[at(j, k)] = from[k];
            }
            w_t[at(j, m)] = b[j];
        }
        flat_mut(&mut self.slopes)[..n].copy_from_slice(step.slopes);
        self.dw.fill(Lanes::default());
        self.next.clear();
        self.next.extend_from_slice(&step.inputs.runs.first()[..count]);
    }

    /// h of every sample, and dh = 0.
    #[inline(always)]
    fn hidden<S: Simd, const Q: usize>(&mut self, step: &ToyStep) {
        let m = step.shape.d_hidden;
        let mut one = [Lanes::default(); Q];
        flat_mut(&mut one)[m] = 1.0;
        let one = loaded::<S, Q>(&one);
        let (features, values) = (step.inputs.runs.features(), step.inputs.events.values());
        for (r, ends) in step.inputs.runs.first().windows(2).enumerate() {
            let mut h = one;
            let events = ends[0] as usize..ends[1] as usize;
            for (&i, &x) in features[events.clone()].iter().zip(&values[events]) {
                // SAFETY: features are below n, which `w` has rows for.
                let w: &[Lanes; Q] = unsafe { row(&self.w, i as usize) };
                for q in 0..Q {
                    h[q] = S::fma(S::splat(x), S::load(&w[q]), h[q]);
                }
            }
            for q in 0..Q {
                S::store(h[q], &mut self.h[r * Q + q]);
                self.dh[r * Q + q] = Lanes::default();
            }
        }
    }

    /// z of a group in a block.
    #[inline(always)]
    fn reconstruct<S: Simd, const Q: usize>(&mut self, m: usize, block: Block, group: usize) {
        let mut s = 0;
        while s < GROUP {
            s += match (block.width, S::ACCUMULATORS) {
                (5, 24) => self.reconstruct_some::<S, Q, 5, 4>(m, block, group, s),
                (4, 24) => self.reconstruct_some::<S, Q, 4, 4>(m, block, group, s),
                (5, _) => self.reconstruct_some::<S, Q, 5, 1>(m, block, group, s),
                (4, _) => self.reconstruct_some::<S, Q, 4, 1>(m, block, group, s),
                _ => unreachable!("hundreds of features make blocks of four or five vectors"),
            };
        }
    }

    /// `T` samples from `s` on in a block of `V` vectors. Returns `T`.
    #[inline(always)]
    fn reconstruct_some<S: Simd, const Q: usize, const V: usize, const T: usize>(
        &mut self,
        m: usize,
        block: Block,
        group: usize,
        s: usize,
    ) -> usize {
        let w_t = &self.w_t[block.first / (16 * V) * (m + 1) * V..][..(m + 1) * V];
        let h = flat(&self.h[(group + s) * Q..][..T * Q]);
        assert!(m < 16 * Q);
        // SAFETY: row m of the m + 1 is b.
        let b = loaded::<S, V>(unsafe { row(w_t, m) });
        let mut sum = [b; T];
        for k in 0..m {
            // SAFETY: k < m; h has T rows of 16 Q numbers.
            let w = unsafe { row::<V>(w_t, k) };
            for t in 0..T {
                // SAFETY: as above.
                let h = S::splat(unsafe { *h.get_unchecked(16 * Q * t + k) });
                for v in 0..V {
                    sum[t][v] = S::fma(h, S::load(&w[v]), sum[t][v]);
                }
            }
        }
        for t in 0..T {
            for v in 0..V {
                S::store(sum[t][v], &mut self.group.z[(s + t) * V + v]);
            }
        }
        T
    }

    /// Lists the open outputs.
    #[inline(always)]
    fn open<S: Simd>(&mut self, step: &ToyStep, block: Block, group: usize, samples: usize) {
        let Group { z, open, count } = &mut self.group;
        let vectors = self.slopes.len();
        let linear = step.shape.kind == ToyKind::Linear;
        let steps = S::prefix_sum(S::splat_u(1));
        for s in 0..samples {
            let mut found = 0;
            for v in 0..block.width {
                let z = S::load(&z[s * block.width + v]);
                let real = block.outputs.saturating_sub(16 * v).min(16);
                let bits = if linear { (1 << real) - 1 } else { S::positive_bits(z) };
                let output = S::add_u(steps, S::splat_u((16 * v as u32).wrapping_sub(1)));
                let to = open[s][found..].first_chunk_mut().expect("room for sixteen more");
                S::compress(bits, output, to);
                found += bits.count_ones() as usize;
                self.is_open[(group + s) * vectors + block.first / 16 + v] = bits;
            }
            count[s] = found;
        }
    }

    /// Σ c r², where r is z - x, or -x where the output is closed.
    #[inline(always)]
    fn loss<S: Simd>(&mut self, step: &ToyStep, block: Block, group: usize, samples: usize) -> f64 {
        let (features, values) = (step.inputs.runs.features(), step.inputs.events.values());
        let slopes = &self.slopes[block.first / 16..][..block.width];
        let limit = (block.first + 16 * block.width) as u32;
        let linear = step.shape.kind == ToyKind::Linear;
        let mut loss = 0.0;
        for s in 0..samples {
            let mut r = [Lanes::default(); WIDEST];
            for v in 0..block.width {
                let z = S::load(&self.group.z[s * block.width + v]);
                S::store(if linear { z } else { S::where_positive(z, z) }, &mut r[v]);
            }
            let end = step.inputs.runs.first()[group + s + 1] as usize;
            let mut e = self.next[group + s] as usize;
            while e < end && features[e] < limit {
                flat_mut(&mut r)[features[e] as usize - block.first] -= values[e];
                e += 1;
            }
            self.next[group + s] = e as u32;
            let mut sum = S::splat(0.0);
            for v in 0..block.width {
                let r = S::load(&r[v]);
                sum = S::fma(S::mul(S::load(&slopes[v]), r), r, sum);
            }
            loss += S::fold(sum) as f64;
        }
        loss
    }

    /// dW and dh from the open outputs; at the block's last group dW is complete but for c.
    #[inline(always)]
    fn back<S: Simd, const Q: usize>(&mut self, block: Block, group: usize, samples: usize) {
        let c_w = &self.c_w[block.first * Q..][..block.outputs * Q];
        let dw = &mut self.dw[block.first * Q..][..block.outputs * Q];
        for s in 0..samples {
            let z = flat(&self.group.z[s * block.width..][..block.width]);
            // SAFETY: h and dh have whole groups of rows.
            let (h, dh) = unsafe { (loaded::<S, Q>(row(&self.h, group + s)), row_mut::<Q>(&mut self.dh, group + s)) };
            let (mut even, mut odd) = (loaded::<S, Q>(dh), [S::splat(0.0); Q]);
            let (pairs, rest) = self.group.open[s][..self.group.count[s]].as_chunks::<2>();
            for pair in pairs {
                back_one::<S, Q>(pair[0], z, &h, c_w, dw, &mut even);
                back_one::<S, Q>(pair[1], z, &h, c_w, dw, &mut odd);
            }
            for &j in rest {
                back_one::<S, Q>(j, z, &h, c_w, dw, &mut even);
            }
            for q in 0..Q {
                S::store(S::add(even[q], odd[q]), &mut dh[q]);
            }
        }
    }

    /// dW_j *= c_j. Then what x adds: to g where the output is open, and to dW through dh.
    #[inline(always)]
    fn inputs_back<S: Simd, const Q: usize>(&mut self, step: &ToyStep, vectors: usize) {
        for (dw, &c) in self.dw.as_chunks_mut::<Q>().0.iter_mut().zip(step.slopes) {
            for q in 0..Q {
                S::store(S::mul(S::splat(c), S::load(&dw[q])), &mut dw[q]);
            }
        }
        let (features, values) = (step.inputs.runs.features(), step.inputs.events.values());
        for (r, ends) in step.inputs.runs.first().windows(2).enumerate() {
            let events = ends[0] as usize..ends[1] as usize;
            let (features, values) = (&features[events.clone()], &values[events]);
            let is_open = &self.is_open[r * vectors..][..vectors];
            // -x where the output is open.
            let missing = |i: u32, x: f32| {
                let open = is_open[i as usize / 16] >> (i % 16) & 1;
                f32::from_bits((-x).to_bits() & open.wrapping_neg())
            };
            // SAFETY: h and dh have a row for every sample in which something fires, W and dW one for every feature.
            let (h, mut dh) = unsafe { (loaded::<S, Q>(row(&self.h, r)), loaded::<S, Q>(row(&self.dh, r))) };
            for (&i, &x) in features.iter().zip(values) {
                let g = S::splat(missing(i, x));
                // SAFETY: as above.
                let c_w: &[Lanes; Q] = unsafe { row(&self.c_w, i as usize) };
                for q in 0..Q {
                    dh[q] = S::fma(g, S::load(&c_w[q]), dh[q]);
                }
            }
            for (&i, &x) in features.iter().zip(values) {
                let g = S::splat(step.slopes[i as usize] * missing(i, x));
                // SAFETY: as above.
                let dw: &mut [Lanes; Q] = unsafe { row_mut(&mut self.dw, i as usize) };
                for q in 0..Q {
                    let through_h = S::fma(g, h[q], S::load(&dw[q]));
                    S::store(S::fma(S::splat(x), dh[q], through_h), &mut dw[q]);
                }
            }
        }
    }
}
