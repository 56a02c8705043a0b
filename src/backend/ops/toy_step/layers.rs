//! The gradient of models with a hidden layer of their own: `relu_hidden`, `absolute_value`, `mlp`.
//!
//! ```text
//! for each sample:   u = x, or E x                  target = x, or |x|
//!                    pre = Σ_i u_i W_i + c          (h, s) = (act, act')(pre)
//!                    z_j = V_j·h + b_j              r = out(z) - target        g = slopes r out'(z)
//!                    dpre = s ∘ Σ_j g_j V_j         dc += dpre                 db += g
//!                    dW_i += u_i dpre_i             dV_j += g_j h              loss += slopes r² / 2
//! ```
//!
//! with V = W where the model is tied; both products then go into dW. Blocks of tiles, lane = sample, and the products are
//! those of the blocked tied kernel; a sum of dW and dV is one chain in order of tiles, so bits depend neither on blocks nor
//! on the instruction set.

use super::simd::{Outputs, Weights, outer, pieces, project, reconstruct, residual, window};
use super::{Shape, ToyStep};
use crate::backend::ops::activation::activate;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::toy::embedding::embedding;
use crate::toy::{Mlp, ToyKind};

/// Memory of the kernel for one shape, and the embedding.
pub struct Scratch {
    shape: Shape,
    /// Tiles that go through the products together.
    tiles: usize,
    /// Width of u.
    n_inputs: usize,
    /// E, `[n_features, d_embedding]`; empty where u = x.
    embedding: Vec<f32>,
    u: Vec<Lanes>,
    target: Vec<Lanes>,
    h: Vec<Lanes>,
    s: Vec<Lanes>,
    dpre: Vec<Lanes>,
    g: Vec<Lanes>,
    dw: Vec<Lanes>,
    dc: Vec<Lanes>,
    dv: Vec<Lanes>,
    db: Vec<Lanes>,
    /// V transposed, `[d_hidden, n_features]`.
    v_t: Vec<f32>,
    /// Zeros `[n_features]`: the output bias of a model that has none.
    zeros: Vec<f32>,
}

impl Scratch {
    /// Memory for steps of this shape.
    pub fn new(shape: Shape) -> Scratch {
        let Shape { kind, n_features: n, d_hidden: m } = shape;
        let lanes = |len| vec![Lanes::default(); len];
        let (n_inputs, embedding) = match kind {
            ToyKind::Mlp(Mlp { d_embedding, seed, .. }) => (d_embedding, embedding(n, d_embedding, seed)),
            _ => (n, vec![]),
        };
        // h, s and dpre of a block stay in L1, or at least in L2 for wide layers.
        let tiles = (256 / (n + m) / 4 * 4).clamp(4, 32);
        let [w, _, v, _] = shape.parts().map(|(_, length)| length);
        Scratch {
            shape,
            tiles,
            n_inputs,
            u: lanes(if embedding.is_empty() { 0 } else { tiles * n_inputs }),
            target: lanes(if kind == ToyKind::AbsoluteValue { tiles * n } else { 0 }),
            embedding,
            h: lanes(tiles * m),
            s: lanes(tiles * m),
            dpre: lanes(tiles * m),
            g: lanes(tiles * n),
            dw: lanes(w),
            dc: lanes(m),
            dv: lanes(v),
            db: lanes(n),
            v_t: vec![0.0; n * m],
            zeros: vec![0.0; n],
        }
    }
}

/// Writes the gradient of `step` into `to` and returns the loss, 0 unless the step asks for it.
pub fn gradient(isa: Isa, step: &ToyStep, scratch: &mut Scratch, to: &mut [f32]) -> f64 {
    assert_eq!(scratch.shape, step.shape);
    run(isa, Layers { step, scratch, to })
}

struct Layers<'a, 'b> {
    step: &'a ToyStep<'b>,
    scratch: &'a mut Scratch,
    to: &'a mut [f32],
}

impl Kernel for Layers<'_, '_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Layers { step, scratch, to } = self;
        let Shape { kind, n_features: n, d_hidden: m } = step.shape;
        let Scratch { tiles, n_inputs, embedding, u, target, h, s, dpre, g, dw, dc, dv, db, v_t, zeros, .. } = scratch;
        let [w_len, c_len, v_len, _] = step.shape.parts().map(|(_, length)| length);
        let (w, rest) = step.parameters.split_at(w_len);
        let (c, rest) = rest.split_at(c_len);
        let (v, b) = rest.split_at(v_len);
        let tied = v.is_empty();
        let (v, b) = (if tied { w } else { v }, if b.is_empty() { &zeros[..] } else { b });
        for j in 0..n {
            for k in 0..m {
                v_t[k * n + j] = v[j * m + k];
            }
        }
        for sums in [&mut *dw, dc, dv, db] {
            sums.fill(Lanes::default());
        }
        let first = Weights { n: *n_inputs, m, w, w_t: &[], b: &[] };
        let second = Weights { n, m, w: v, w_t: v_t, b };
        let embed = Weights { n, m: *n_inputs, w: embedding, w_t: &[], b: &[] };
        let (mut loss, mut left) = (0.0, step.inputs.dense.samples);
        for x in step.inputs.dense.lanes.chunks(*tiles * n) {
            let tiles = x.len() / n;
            let samples = left.min(16 * tiles);
            left -= samples;
            let (h, s, dpre) = (&mut h[..tiles * m], &mut s[..tiles * m], &mut dpre[..tiles * m]);
            let g = &mut g[..tiles * n];
            let u = if embedding.is_empty() {
                x
            } else {
                project::<S>(embed, x, &mut u[..tiles * *n_inputs]);
                &u[..tiles * *n_inputs]
            };
            project::<S>(first, u, h);
            neurons::<S>(kind, c, h, s);
            reconstruct::<S>(second, h, g);
            let x = if kind == ToyKind::AbsoluteValue { magnitudes::<S>(x, target) } else { x };
            let at = Outputs { slopes: step.slopes, samples, x };
            match (kind.relu_output(), step.with_loss) {
                (true, false) => residual::<S, true, false>(at, g, db, &mut loss),
                (true, true) => residual::<S, true, true>(at, g, db, &mut loss),
                (false, false) => residual::<S, false, false>(at, g, db, &mut loss),
                (false, true) => residual::<S, false, true>(at, g, db, &mut loss),
            }
            project::<S>(second, g, dpre);
            backward::<S>(s, dpre, dc);
            if tied {
                outer::<S>(first, u, g, h, dpre, dw);
            } else {
                accumulate::<S>(u, dpre, tiles, dw);
                accumulate::<S>(g, h, tiles, dv);
            }
        }
        let sums = dw.iter().chain(&dc[..c_len]).chain(&*dv).chain(&*db);
        for (to, sum) in to.iter_mut().zip(sums) {
            *to = S::fold(S::load(sum));
        }
        0.5 * loss
    }
}

/// h from its products, in place, and the derivative s. `c` may be empty.
#[inline(always)]
fn neurons<S: Simd>(kind: ToyKind, c: &[f32], h: &mut [Lanes], s: &mut [Lanes]) {
    let activation = kind.activation();
    if !c.is_empty() {
        for h in h.chunks_exact_mut(c.len()) {
            for (h, &c) in h.iter_mut().zip(c) {
                S::store(S::add(S::load(h), S::splat(c)), h);
            }
        }
    }
    for (h, s) in h.iter_mut().zip(s) {
        let (value, slope) = activate::<S>(activation, S::load(h));
        S::store(value, h);
        S::store(slope, s);
    }
}

/// |x| of a block.
#[inline(always)]
fn magnitudes<'a, S: Simd>(x: &[Lanes], to: &'a mut [Lanes]) -> &'a [Lanes] {
    let to = &mut to[..x.len()];
    for (x, to) in x.iter().zip(&mut *to) {
        S::store(S::abs(S::load(x)), to);
    }
    to
}

/// dpre = s ∘ dh in place, and its sum over tiles.
#[inline(always)]
fn backward<S: Simd>(s: &[Lanes], dpre: &mut [Lanes], dc: &mut [Lanes]) {
    let m = dc.len();
    for (s, dpre) in s.chunks_exact(m).zip(dpre.chunks_exact_mut(m)) {
        for ((s, dpre), dc) in s.iter().zip(dpre).zip(&mut *dc) {
            let moved = S::mul(S::load(s), S::load(dpre));
            S::store(moved, dpre);
            S::store(S::add(S::load(dc), moved), dc);
        }
    }
}

macro_rules! sized_columns {
    ($size:expr, $rows:literal, $args:tt) => {
        match $size {
            1 => rectangle::<S, $rows, 1> $args,
            2 => rectangle::<S, $rows, 2> $args,
            3 => rectangle::<S, $rows, 3> $args,
            4 => rectangle::<S, $rows, 4> $args,
            _ => rectangle::<S, $rows, 5> $args,
        }
    };
}

/// sums[j][k] += Σ over tiles of a_j b_k; `a` is `[tiles][rows]`, `b` `[tiles][columns]`.
#[inline(always)]
pub fn accumulate<S: Simd>(a: &[Lanes], b: &[Lanes], tiles: usize, sums: &mut [Lanes]) {
    let (rows, columns) = (a.len() / tiles, b.len() / tiles);
    let (j_max, k_max) = if S::ACCUMULATORS == 24 { (4, 5) } else { (2, 2) };
    pieces!(rows, j_max, |j, height| {
        pieces!(columns, k_max, |k, width| {
            match height {
                1 => sized_columns!(width, 1, (a, b, tiles, (j, k), sums)),
                2 => sized_columns!(width, 2, (a, b, tiles, (j, k), sums)),
                3 => sized_columns!(width, 3, (a, b, tiles, (j, k), sums)),
                _ => sized_columns!(width, 4, (a, b, tiles, (j, k), sums)),
            }
        });
    });
}

#[inline(always)]
fn rectangle<S: Simd, const J: usize, const K: usize>(
    a: &[Lanes],
    b: &[Lanes],
    tiles: usize,
    (j0, k0): (usize, usize),
    sums: &mut [Lanes],
) {
    let (rows, columns) = (a.len() / tiles, b.len() / tiles);
    assert!(a.len() == tiles * rows && b.len() == tiles * columns && sums.len() == rows * columns);
    assert!(j0 + J <= rows && k0 + K <= columns);
    let mut sum = [[S::splat(0.0); K]; J];
    for j in 0..J {
        // SAFETY: j0 + J <= rows, k0 + K <= columns.
        let sums: &[Lanes; K] = unsafe { window(sums, (j0 + j) * columns + k0) };
        for k in 0..K {
            sum[j][k] = S::load(&sums[k]);
        }
    }
    for tile in 0..tiles {
        // SAFETY: tile < tiles, and as above.
        let (a, b): (&[Lanes; J], &[Lanes; K]) =
            unsafe { (window(a, tile * rows + j0), window(b, tile * columns + k0)) };
        for j in 0..J {
            for k in 0..K {
                sum[j][k] = S::fma(S::load(&a[j]), S::load(&b[k]), sum[j][k]);
            }
        }
    }
    for j in 0..J {
        for k in 0..K {
            S::store(sum[j][k], &mut sums[(j0 + j) * columns + k0 + k]);
        }
    }
}
