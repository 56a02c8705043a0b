//! The gradient of tens of features from what fires, lane = output.
//!
//! ```text
//! G = W Wᵀ    for each sample:     z = b + Σ x_i G_i    over the features i that fire
//!                                  g = z - x where z > 0, else 0        (the identity: everywhere)
//!                                  A_i += x_i g         over the same;  Σg += g
//! M_ij = c_j A_ij    dW = (M + Mᵀ) W    db = c Σg    and the silent samples
//! ```
//!
//! The same gradient as in [`super`], because Σ g hᵀ and Σ x dhᵀ are M and Mᵀ times W. A sample costs 3 n multiply-adds for
//! each feature that fires instead of 5 n d_hidden, and a step about 2 n² d_hidden once.
//!
//! Departures: z - x is a chain of its own, over rows of G - I, so that nothing has to be put into a row of x; samples go by
//! their number of firing features, fewest first and each number in a loop of its own ([`Runs`](super::runs::Runs)), then in
//! order: that is the order of every sum. The loss is folded for each sample and summed in f64.
//!
//! For the identity the rows that gate g are those of no sample at all: z = 1.

use super::ToyStep;
use super::runs::LONG;
use super::silent::add_silent;
use crate::backend::ops::layout::flat_mut;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::toy::ToyKind;

/// Rows of [⌈n_features / 16⌉] vectors, lane = output; lanes past the last one are zero.
#[derive(Default)]
pub struct Memory {
    /// `[d_hidden]` rows: Wᵀ.
    w_t: Vec<Lanes>,
    /// `[n_features]` rows: G, or zeros for the identity.
    gate: Vec<Lanes>,
    /// `[n_features]` rows: G - I.
    off: Vec<Lanes>,
    /// `[n_features]` rows: A, in the end M + Mᵀ.
    sums: Vec<Lanes>,
}

/// Writes the gradient and returns the loss (0 unless the step asks for it). The step reads events of at most
/// [`GRAM_FEATURES`](super::inputs::GRAM_FEATURES) features.
pub fn gradient(isa: Isa, step: &ToyStep, memory: &mut Memory, to: &mut [f32]) -> f64 {
    run(isa, Gram { step, memory, to })
}

struct Gram<'a, 'b> {
    step: &'a ToyStep<'b>,
    memory: &'a mut Memory,
    to: &'a mut [f32],
}

impl Kernel for Gram<'_, '_> {
    type Out = f64;
    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        match self.step.shape.n_features.div_ceil(16) {
            1 => self.with_width::<S, 1>(),
            2 => self.with_width::<S, 2>(),
            3 => self.with_width::<S, 3>(),
            4 => self.with_width::<S, 4>(),
            5 => self.with_width::<S, 5>(),
            6 => self.with_width::<S, 6>(),
            7 => self.with_width::<S, 7>(),
            _ => unreachable!("the rule of forms has no Gram matrix for so many features"),
        }
    }
}

impl Gram<'_, '_> {
    #[inline(always)]
    fn with_width<S: Simd, const Q: usize>(self) -> f64 {
        let Gram { step, memory, to } = self;
        let (n, m) = (step.shape.n_features, step.shape.d_hidden);
        let (w, b) = step.parameters.split_at(n * m);
        let linear = step.shape.kind == ToyKind::Linear;
        memory.prepare::<S, Q>(n, m, w, linear);
        let mut total = Total { sum: [S::splat(0.0); Q], loss: 0.0 };
        let mut samples = Samples::<S, Q> {
            start: pad::<S, Q>(b),
            gate_start: if linear { [S::splat(1.0); Q] } else { pad::<S, Q>(b) },
            slopes: step.with_loss.then(|| pad::<S, Q>(step.slopes)),
            gate: &memory.gate,
            off: &memory.off,
            sums: &mut memory.sums,
            step,
        };
        samples.fixed::<1>(&mut total);
        samples.fixed::<2>(&mut total);
        samples.fixed::<3>(&mut total);
        samples.fixed::<4>(&mut total);
        samples.fixed::<5>(&mut total);
        samples.long(&mut total);
        let slopes = pad::<S, Q>(step.slopes);
        for (to, q) in to[n * m..].chunks_mut(16).zip(0..Q) {
            let mut lanes = Lanes::default();
            S::store(S::mul(slopes[q], total.sum[q]), &mut lanes);
            to.copy_from_slice(&lanes.0[..to.len()]);
        }
        memory.weight_gradient::<S, Q>(n, m, w, slopes, &mut to[..n * m]);
        let silent = step.inputs.samples - step.inputs.runs.count();
        0.5 * total.loss + add_silent(step, silent, to)
    }
}

/// Numbers as a row of vectors, filled up with zeros.
#[inline(always)]
fn pad<S: Simd, const Q: usize>(v: &[f32]) -> [S::F; Q] {
    let mut lanes = [Lanes::default(); Q];
    for (to, from) in lanes.iter_mut().zip(v.chunks(16)) {
        to.0[..from.len()].copy_from_slice(from);
    }
    let mut row = [S::splat(0.0); Q];
    for q in 0..Q {
        row[q] = S::load(&lanes[q]);
    }
    row
}

impl Memory {
    #[inline(always)]
    fn prepare<S: Simd, const Q: usize>(&mut self, n: usize, m: usize, w: &[f32], linear: bool) {
        for (rows, to) in [(m, &mut self.w_t), (n, &mut self.gate), (n, &mut self.off), (n, &mut self.sums)] {
            if to.len() != rows * Q {
                *to = vec![Lanes::default(); rows * Q];
            }
        }
        let w_t = flat_mut(&mut self.w_t);
        for (i, w) in w.chunks_exact(m).enumerate() {
            for (k, &w) in w.iter().enumerate() {
                w_t[k * 16 * Q + i] = w;
            }
        }
        // As many rows at once as the registers hold.
        let rows = if S::ACCUMULATORS == 24 && Q <= 5 { 4 } else { 1 };
        let mut i = 0;
        while i < n {
            if rows == 4 && i + 4 <= n {
                self.gram_rows::<S, Q, 4>(i, m, w);
                i += 4;
            } else {
                self.gram_rows::<S, Q, 1>(i, m, w);
                i += 1;
            }
        }
        self.gate.copy_from_slice(&self.off);
        if linear {
            self.gate.fill(Lanes::default());
        }
        let off = flat_mut(&mut self.off);
        for i in 0..n {
            off[i * 16 * Q + i] -= 1.0;
        }
        self.sums.fill(Lanes::default());
    }

    /// Rows `i0 .. i0 + R` of G, into `off`.
    #[inline(always)]
    fn gram_rows<S: Simd, const Q: usize, const R: usize>(&mut self, i0: usize, m: usize, w: &[f32]) {
        let w = &w[i0 * m..][..R * m];
        let mut sum = [[S::splat(0.0); Q]; R];
        for (k, row) in self.w_t.as_chunks::<Q>().0.iter().enumerate().take(m) {
            for r in 0..R {
                for q in 0..Q {
                    sum[r][q] = S::fma(S::splat(w[r * m + k]), S::load(&row[q]), sum[r][q]);
                }
            }
        }
        for (to, sum) in self.off[i0 * Q..].as_chunks_mut::<Q>().0.iter_mut().zip(sum) {
            for q in 0..Q {
                S::store(sum[q], &mut to[q]);
            }
        }
    }

    /// dW = (M + Mᵀ) W.
    #[inline(always)]
    fn weight_gradient<S: Simd, const Q: usize>(
        &mut self,
        n: usize,
        m: usize,
        w: &[f32],
        slopes: [S::F; Q],
        to: &mut [f32],
    ) {
        for row in self.sums.as_chunks_mut::<Q>().0 {
            for q in 0..Q {
                S::store(S::mul(slopes[q], S::load(&row[q])), &mut row[q]);
            }
        }
        let sums = flat_mut(&mut self.sums);
        for i in 0..n {
            for j in 0..=i {
                let sum = sums[i * 16 * Q + j] + sums[j * 16 * Q + i];
                sums[i * 16 * Q + j] = sum;
                sums[j * 16 * Q + i] = sum;
            }
        }
        let columns = if S::ACCUMULATORS == 24 && Q <= 5 { 4 } else { 1 };
        let mut k = 0;
        while k < m {
            if columns == 4 && k + 4 <= m {
                self.gradient_columns::<S, Q, 4>(k, m, w, to);
                k += 4;
            } else {
                self.gradient_columns::<S, Q, 1>(k, m, w, to);
                k += 1;
            }
        }
    }

    /// Columns `k0 .. k0 + C` of dW; the outputs are in the lanes.
    #[inline(always)]
    fn gradient_columns<S: Simd, const Q: usize, const C: usize>(
        &self,
        k0: usize,
        m: usize,
        w: &[f32],
        to: &mut [f32],
    ) {
        let mut sum = [[S::splat(0.0); Q]; C];
        for (w, row) in w.chunks_exact(m).zip(self.sums.as_chunks::<Q>().0) {
            let w: &[f32; C] = w[k0..].first_chunk().expect("k0 + C is at most m");
            for c in 0..C {
                for q in 0..Q {
                    sum[c][q] = S::fma(S::splat(w[c]), S::load(&row[q]), sum[c][q]);
                }
            }
        }
        let mut lanes = [[Lanes::default(); Q]; C];
        for c in 0..C {
            for q in 0..Q {
                S::store(sum[c][q], &mut lanes[c][q]);
            }
        }
        for (j, to) in to.chunks_exact_mut(m).enumerate() {
            for c in 0..C {
                to[k0 + c] = lanes[c][j / 16].0[j % 16];
            }
        }
    }
}

/// What the samples are computed from, and A.
struct Samples<'a, S: Simd, const Q: usize> {
    start: [S::F; Q],
    gate_start: [S::F; Q],
    /// c, where the loss is wanted.
    slopes: Option<[S::F; Q]>,
    gate: &'a [Lanes],
    off: &'a [Lanes],
    sums: &'a mut [Lanes],
    step: &'a ToyStep<'a>,
}

/// Sums over samples.
struct Total<S: Simd, const Q: usize> {
    /// Σ g
    sum: [S::F; Q],
    /// Σ c r²
    loss: f64,
}

impl<S: Simd, const Q: usize> Samples<'_, S, Q> {
    /// Samples in which `FIRES` features fire.
    #[inline(always)]
    fn fixed<const FIRES: usize>(&mut self, total: &mut Total<S, Q>) {
        const { assert!(FIRES < LONG) };
        let inputs = self.step.inputs;
        let (features, values) = (inputs.runs.features(), inputs.events.values());
        for &e in inputs.runs.of_length(FIRES) {
            let e = e as usize;
            let features: &[u32; FIRES] = features[e..].first_chunk().expect("a run of FIRES events");
            let values: &[f32; FIRES] = values[e..].first_chunk().expect("a run of FIRES events");
            self.one(features, values, total);
        }
    }

    /// Samples in which more fire.
    #[inline(always)]
    fn long(&mut self, total: &mut Total<S, Q>) {
        let inputs = self.step.inputs;
        let first = inputs.runs.first();
        for &r in inputs.runs.long() {
            let events = first[r as usize] as usize..first[r as usize + 1] as usize;
            self.one(&inputs.runs.features()[events.clone()], &inputs.events.values()[events], total);
        }
    }

    /// One sample.
    #[inline(always)]
    fn one(&mut self, features: &[u32], values: &[f32], total: &mut Total<S, Q>) {
        let (mut z, mut off) = (self.gate_start, self.start);
        for (&i, &x) in features.iter().zip(values) {
            let (x, at) = (S::splat(x), i as usize * Q);
            debug_assert!(at + Q <= self.gate.len());
            for q in 0..Q {
                // SAFETY: features are below n, and the tables have n rows of Q: `prepare` made them for a shape whose
                // n the events have too, which the step's check asserts.
                let (gate, other) = unsafe { (self.gate.get_unchecked(at + q), self.off.get_unchecked(at + q)) };
                z[q] = S::fma(x, S::load(gate), z[q]);
                off[q] = S::fma(x, S::load(other), off[q]);
            }
        }
        let mut g = [S::splat(0.0); Q];
        for q in 0..Q {
            g[q] = S::where_positive(z[q], off[q]);
            total.sum[q] = S::add(total.sum[q], g[q]);
        }
        for (&i, &x) in features.iter().zip(values) {
            for q in 0..Q {
                // SAFETY: as above.
                let sum = unsafe { self.sums.get_unchecked_mut(i as usize * Q + q) };
                S::store(S::fma(S::splat(x), g[q], S::load(sum)), sum);
            }
        }
        if let Some(slopes) = self.slopes {
            // Where z ≤ 0 the output is 0 and off the input below z.
            let mut loss = S::splat(0.0);
            for q in 0..Q {
                let r = S::sub(off[q], S::min(z[q], S::splat(0.0)));
                loss = S::fma(S::mul(slopes[q], r), r, loss);
            }
            total.loss += S::fold(loss) as f64;
        }
    }
}
