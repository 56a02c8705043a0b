//! Squared errors of the two plain kinds, `linear` and `relu_output`: x' = out(Wᵀ W x + b).
//!
//! Half a tile (eight samples) at a time: h in blocks of outputs whose sums stay in registers, then z and the squares in the
//! same way. For the shapes of [`toy_lanes`](crate::backend::ops::toy_lanes) everything but x stays in registers. Each
//! sum is one chain in order of its index, products and sums rounded apart, so blocks change no bit.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name the entries of a rectangle of sums; an iterator over one of its sides hides which"
)]

use crate::backend::ops::toy_lanes::by_shape;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::data::Batch;
use crate::toy::{ToyKind, ToyModel};

/// Σ r² and Σ I r², lane by lane.
type Sums = [[f64; 16]; 2];

/// What the kernels read.
#[derive(Clone, Copy)]
struct Model<'a> {
    n: usize,
    m: usize,
    relu: bool,
    /// `[n, m]`
    w: &'a [f64],
    /// `[m, n]`
    w_t: &'a [f64],
    /// `[n]`
    b: &'a [f64],
    /// `[n]`
    importance: &'a [f64],
}

/// Adds the squares of a batch to `sums`.
pub fn add(isa: Isa, model: &ToyModel, importance: &[f32], batch: &Batch, sums: &mut Sums) {
    let (n, m) = (model.n_features, model.d_hidden);
    assert!(model.w.len() == n * m && model.b.len() == n && importance.len() == n && batch.n_features == n);
    fn tiny<const N: usize, const M: usize>(isa: Isa, model: &ToyModel, imp: &[f32], batch: &Batch, sums: &mut Sums) {
        match model.kind == ToyKind::ReluOutput {
            true => run(isa, Tiny::<N, M, true> { model, importance: imp, batch, sums }),
            false => run(isa, Tiny::<N, M, false> { model, importance: imp, batch, sums }),
        }
    }
    by_shape!(model, tiny(isa, model, importance, batch, sums), any(isa, model, importance, batch, sums))
}

fn any(isa: Isa, model: &ToyModel, importance: &[f32], batch: &Batch, sums: &mut Sums) {
    let (n, m) = (model.n_features, model.d_hidden);
    let wide = |v: &[f32]| v.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let w_t: Vec<f64> = (0..m).flat_map(|k| model.w.iter().skip(k).step_by(m)).copied().map(f64::from).collect();
    let (w, b, importance, relu) =
        (wide(&model.w), wide(&model.b), wide(importance), model.kind == ToyKind::ReluOutput);
    let model = Model { n, m, relu, w: &w, w_t: &w_t, b: &b, importance: &importance };
    run(isa, Blocked { model, batch, sums });
}

/// Half `half` of sixteen numbers.
#[inline(always)]
fn half<T>(of: &[T; 16], half: usize) -> &[T; 8] {
    &of.as_chunks::<8>().0[half]
}

/// Adds the squares of output j for eight samples, of which the first `real` count.
#[inline(always)]
fn add_squares<S: Simd, const RELU: bool>(z: S::D, x: S::D, importance: f64, real: usize, sums: &mut [S::D; 2]) {
    let r = S::sub_d(if RELU { S::relu_d(z) } else { z }, x);
    let mut square = S::mul_d(r, r);
    if real < 8 {
        let mut lanes = [0.0; 8];
        S::store_d(square, &mut lanes);
        lanes[real..].fill(0.0);
        square = S::load_d(&lanes);
    }
    sums[0] = S::add_d(sums[0], square);
    sums[1] = S::add_d(sums[1], S::mul_d(S::splat_d(importance), square));
}

struct Tiny<'a, const N: usize, const M: usize, const RELU: bool> {
    model: &'a ToyModel,
    importance: &'a [f32],
    batch: &'a Batch,
    sums: &'a mut Sums,
}

impl<const N: usize, const M: usize, const RELU: bool> Kernel for Tiny<'_, N, M, RELU> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Tiny { model, importance, batch, sums } = self;
        let (tiles, full) = (batch.lanes.as_chunks::<N>().0, batch.samples / 16);
        let (mut w, mut b, mut i) = ([[0.0; M]; N], [0.0; N], [0.0; N]);
        for j in 0..N {
            for k in 0..M {
                w[j][k] = model.w[j * M + k] as f64;
            }
            (b[j], i[j]) = (model.b[j] as f64, importance[j] as f64);
        }
        for at in 0..2 {
            let mut total = [S::load_d(half(&sums[0], at)), S::load_d(half(&sums[1], at))];
            for tile in &tiles[..full] {
                tiny_half::<S, N, M, RELU>(&w, &b, &i, tile, (at, 8), &mut total);
            }
            for tile in &tiles[full..] {
                let real = (batch.samples % 16).saturating_sub(8 * at).min(8);
                tiny_half::<S, N, M, RELU>(&w, &b, &i, tile, (at, real), &mut total);
            }
            for (sums, total) in sums.iter_mut().zip(total) {
                S::store_d(total, &mut sums.as_chunks_mut::<8>().0[at]);
            }
        }
    }
}

/// Adds half `at` of a tile, of which the first `real` samples count.
#[inline(always)]
fn tiny_half<S: Simd, const N: usize, const M: usize, const RELU: bool>(
    w: &[[f64; M]; N],
    b: &[f64; N],
    importance: &[f64; N],
    tile: &[Lanes; N],
    (at, real): (usize, usize),
    total: &mut [S::D; 2],
) {
    let zero = S::splat_d(0.0);
    let (mut x, mut h) = ([zero; N], [zero; M]);
    for i in 0..N {
        x[i] = S::widen(half(&tile[i].0, at));
        for k in 0..M {
            h[k] = S::add_d(h[k], S::mul_d(S::splat_d(w[i][k]), x[i]));
        }
    }
    for j in 0..N {
        let mut z = S::splat_d(b[j]);
        for k in 0..M {
            z = S::add_d(z, S::mul_d(S::splat_d(w[j][k]), h[k]));
        }
        add_squares::<S, RELU>(z, x[j], importance[j], real, total);
    }
}

struct Blocked<'a> {
    model: Model<'a>,
    batch: &'a Batch,
    sums: &'a mut Sums,
}

impl Kernel for Blocked<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Blocked { model, batch, sums } = self;
        let (mut x, mut h) = (vec![[0.0; 8]; model.n], vec![[0.0; 8]; model.m]);
        let mut left = batch.samples;
        for tile in batch.lanes.chunks_exact(model.n) {
            for at in 0..2 {
                for (to, from) in x.iter_mut().zip(tile) {
                    S::store_d(S::widen(half(&from.0, at)), to);
                }
                let mut total = [S::load_d(half(&sums[0], at)), S::load_d(half(&sums[1], at))];
                let real = left.saturating_sub(8 * at).min(8);
                match model.relu {
                    true => half_tile::<S, true>(model, &x, &mut h, real, &mut total),
                    false => half_tile::<S, false>(model, &x, &mut h, real, &mut total),
                }
                for (sums, total) in sums.iter_mut().zip(total) {
                    S::store_d(total, &mut sums.as_chunks_mut::<8>().0[at]);
                }
            }
            left = left.saturating_sub(16);
        }
    }
}

/// Outputs whose sums are kept in registers together.
const BLOCK: usize = 4;

#[inline(always)]
fn half_tile<S: Simd, const RELU: bool>(
    model: Model,
    x: &[[f64; 8]],
    h: &mut [[f64; 8]],
    real: usize,
    total: &mut [S::D; 2],
) {
    let Model { n, m, w, w_t, b, importance, .. } = model;
    let mut k = 0;
    while k + BLOCK <= m {
        let sums = dots::<S, BLOCK>([S::splat_d(0.0); BLOCK], &w[k..], m, x);
        for q in 0..BLOCK {
            S::store_d(sums[q], &mut h[k + q]);
        }
        k += BLOCK;
    }
    for k in k..m {
        S::store_d(dots::<S, 1>([S::splat_d(0.0)], &w[k..], m, x)[0], &mut h[k]);
    }
    let mut j = 0;
    while j + BLOCK <= n {
        let mut z = [S::splat_d(0.0); BLOCK];
        for q in 0..BLOCK {
            z[q] = S::splat_d(b[j + q]);
        }
        z = dots::<S, BLOCK>(z, &w_t[j..], n, h);
        for q in 0..BLOCK {
            add_squares::<S, RELU>(z[q], S::load_d(&x[j + q]), importance[j + q], real, total);
        }
        j += BLOCK;
    }
    for j in j..n {
        let z = dots::<S, 1>([S::splat_d(b[j])], &w_t[j..], n, h)[0];
        add_squares::<S, RELU>(z, S::load_d(&x[j]), importance[j], real, total);
    }
}

/// start_q + Σ_i w[i * stride + q] v_i.
#[inline(always)]
fn dots<S: Simd, const Q: usize>(start: [S::D; Q], w: &[f64], stride: usize, v: &[[f64; 8]]) -> [S::D; Q] {
    let mut sums = start;
    for (w, v) in w.chunks(stride).zip(v) {
        let (w, v): (&[f64; Q], _) = (w.first_chunk().expect("a row holds the block"), S::load_d(v));
        for q in 0..Q {
            sums[q] = S::add_d(sums[q], S::mul_d(S::splat_d(w[q]), v));
        }
    }
    sums
}
