//! The gradient for any shape, lane = sample, as four small matrix products over a block of tiles.
//!
//! ```text
//! for each block of tiles:   project       x to h
//!                            reconstruct   h to z
//!                            residual      z to g in place; db += g; loss
//!                            project       g to dh
//!                            outer         dW += g h + x dh
//! fold the sixteen lanes of dW and db
//! ```
//!
//! Each product keeps a rectangle of outputs in registers, its size chosen by the register file. dW stays as sixteen-lane
//! sums in memory and is folded once a batch, so neither rectangles nor blocks change a bit: each sum is one
//! chain in order of tiles. The loss is summed over the features of a tile in f32, then over tiles in f64.
//!
//! Two things that look odd are for speed. Sums are stored by a bare loop before anything else is done with them: any
//! other loop over a rectangle that is not unrolled makes the compiler keep all of it in memory. And operands
//! are read through [`window`], because a bounds check for each costs a quarter of the speed.

use super::silent::add_silent;
use super::small::{mask, output_slope};
use super::{Shape, ToyStep, layers, quadratic};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::toy::ToyKind;

/// Memory of the kernel for one shape: h, dh and g of a block of tiles, sums, and W transposed.
pub struct Scratch {
    shape: Shape,
    h: Vec<Lanes>,
    dh: Vec<Lanes>,
    g: Vec<Lanes>,
    dw: Vec<Lanes>,
    db: Vec<Lanes>,
    w_t: Vec<f32>,
    own: Own,
}

/// Memory of the kernels for other kinds than `linear` and `relu_output`.
enum Own {
    Nothing,
    Layers(Box<layers::Scratch>),
    Quadratic(Box<quadratic::Scratch>),
}

impl Scratch {
    /// Memory for steps of this shape; about as much as the model times sixteen.
    pub fn new(shape: Shape) -> Scratch {
        let own = match shape.kind {
            ToyKind::Linear | ToyKind::ReluOutput => Own::Nothing,
            ToyKind::ReluHidden | ToyKind::AbsoluteValue | ToyKind::Mlp(_) => {
                Own::Layers(Box::new(layers::Scratch::new(shape)))
            }
            ToyKind::Quadratic => Own::Quadratic(Box::new(quadratic::Scratch::new(shape))),
        };
        // The memory of the tied kernel is for those that it serves.
        let served = usize::from(matches!(own, Own::Nothing));
        let lanes = |len: usize| vec![Lanes::default(); served * len];
        let Shape { n_features: n, d_hidden: m, .. } = shape;
        let tiles = block(shape);
        Scratch {
            shape,
            h: lanes(tiles * m),
            dh: lanes(tiles * m),
            g: lanes(tiles * n),
            dw: lanes(n * m),
            db: lanes(n),
            w_t: vec![0.0; served * n * m],
            own,
        }
    }
}

/// Tiles that go through the products together: h and dh (and x and g, where n_features is small) stay in L1.
fn block(shape: Shape) -> usize {
    (256 / (shape.n_features + shape.d_hidden) / 4 * 4).clamp(8, 32)
}

/// Writes the gradient and returns the loss, if the kind has a kernel of its own.
pub(super) fn own_gradient(isa: Isa, step: &ToyStep, scratch: &mut Scratch, to: &mut [f32]) -> Option<f64> {
    match &mut scratch.own {
        Own::Nothing => None,
        Own::Layers(scratch) => Some(layers::gradient(isa, step, scratch, to)),
        Own::Quadratic(scratch) => Some(quadratic::gradient(isa, step, scratch, to)),
    }
}

/// [`gradient`](super::gradient) by the blocked kernel, whatever the shape.
pub(super) fn blocked_gradient(isa: Isa, step: ToyStep, scratch: &mut Scratch, to: &mut [f32]) -> Option<f64> {
    step.check(to);
    assert_eq!(scratch.shape, step.shape);
    let with_loss = step.with_loss;
    let loss = run(isa, Blocked { step, scratch, to });
    with_loss.then_some(loss)
}

/// The weights as the products read them.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    pub n: usize,
    pub m: usize,
    /// `[n, m]`
    pub w: &'a [f32],
    /// `[m, n]`
    pub w_t: &'a [f32],
    /// `[n]`
    pub b: &'a [f32],
}

struct Blocked<'a, 'b> {
    step: ToyStep<'b>,
    scratch: &'a mut Scratch,
    to: &'a mut [f32],
}

/// Calls a kernel generic over a block size with the size that is only known at run time.
macro_rules! sized {
    ($size:expr, $f:ident, [$($before:tt)*], [$($after:tt)*], $args:tt) => {
        match $size {
            1 => $f::<$($before)* 1 $($after)*> $args,
            2 => $f::<$($before)* 2 $($after)*> $args,
            3 => $f::<$($before)* 3 $($after)*> $args,
            4 => $f::<$($before)* 4 $($after)*> $args,
            5 => $f::<$($before)* 5 $($after)*> $args,
            _ => $f::<$($before)* 6 $($after)*> $args,
        }
    };
}

/// Runs the body for pieces of 0 .. len: the fewest of at most `max`, nearly equal. A macro, and no iterator, because a
/// division for each piece shows in the time of a small block.
macro_rules! pieces {
    ($len:expr, $max:expr, |$from:ident, $size:ident| $body:expr) => {
        let len = $len;
        let piece = len.div_ceil(len.div_ceil($max));
        let mut $from = 0;
        while $from < len {
            let $size = piece.min(len - $from);
            $body;
            $from += $size;
        }
    };
}

pub(super) use pieces;

impl Kernel for Blocked<'_, '_> {
    /// The loss, 0 unless the step asks for it.
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Blocked { step, scratch, to } = self;
        let Shape { kind, n_features: n, d_hidden: m } = step.shape;
        let Scratch { h, dh, g, dw, db, w_t, .. } = scratch;
        db.fill(Lanes::default());
        dw.fill(Lanes::default());
        let (w, b) = step.parameters.split_at(n * m);
        for (i, row) in w.chunks_exact(m).enumerate() {
            for k in 0..m {
                w_t[k * n + i] = row[k];
            }
        }
        let weights = Weights { n, m, w, w_t, b };
        let mut loss = 0.0;
        let (batch, silent) = step.tiles();
        let mut left = batch.samples;
        for x in batch.lanes.chunks(block(step.shape) * n) {
            let tiles = x.len() / n;
            let samples = left.min(16 * tiles);
            left -= samples;
            let (h, dh, g) = (&mut h[..tiles * m], &mut dh[..tiles * m], &mut g[..tiles * n]);
            project::<S>(weights, x, h);
            reconstruct::<S>(weights, h, g);
            let at = Outputs { slopes: step.slopes, samples, x };
            match (kind.relu_output(), step.with_loss) {
                (true, false) => residual::<S, true, false>(at, g, db, &mut loss),
                (true, true) => residual::<S, true, true>(at, g, db, &mut loss),
                (false, false) => residual::<S, false, false>(at, g, db, &mut loss),
                (false, true) => residual::<S, false, true>(at, g, db, &mut loss),
            }
            project::<S>(weights, g, dh);
            outer::<S>(weights, x, g, h, dh, dw);
        }
        for (to, sum) in to.iter_mut().zip(dw.iter().chain(&*db)) {
            *to = S::fold(S::load(sum));
        }
        0.5 * loss + add_silent(&step, silent, to)
    }
}

/// N neighbours from `at`, unchecked.
///
/// # Safety
/// `at + N <= from.len()`; the blocks below assert it once, for their last tile or row.
#[inline(always)]
pub unsafe fn window<T, const N: usize>(from: &[T], at: usize) -> &[T; N] {
    debug_assert!(at + N <= from.len());
    unsafe { &*from.as_ptr().add(at).cast() }
}

/// h = Σ_i x_i W_i for every tile; with g for x it is dh.
#[inline(always)]
pub fn project<S: Simd>(weights: Weights, x: &[Lanes], h: &mut [Lanes]) {
    let Weights { n, m, .. } = weights;
    for (x, h) in x.chunks(4 * n).zip(h.chunks_mut(4 * m)) {
        if S::ACCUMULATORS == 24 && x.len() == 4 * n {
            pieces!(m, 6, |k, size| sized!(size, project_block, [S,], [, 4], (weights, k, x, h)));
        } else {
            for (x, h) in x.chunks(n).zip(h.chunks_mut(m)) {
                pieces!(m, 6, |k, size| sized!(size, project_block, [S,], [, 1], (weights, k, x, h)));
            }
        }
    }
}

#[inline(always)]
fn project_block<S: Simd, const K: usize, const T: usize>(weights: Weights, k0: usize, x: &[Lanes], h: &mut [Lanes]) {
    let Weights { n, m, w, .. } = weights;
    assert!(x.len() == T * n && w.len() == n * m && k0 + K <= m);
    let mut sum = [[S::splat(0.0); T]; K];
    for i in 0..n {
        // SAFETY: i < n, t < T, k0 + K <= m.
        let w: &[f32; K] = unsafe { window(w, i * m + k0) };
        for k in 0..K {
            for t in 0..T {
                // SAFETY: as above.
                let x: &[Lanes; 1] = unsafe { window(x, t * n + i) };
                sum[k][t] = S::fma(S::splat(w[k]), S::load(&x[0]), sum[k][t]);
            }
        }
    }
    for t in 0..T {
        for k in 0..K {
            S::store(sum[k][t], &mut h[t * m + k0 + k]);
        }
    }
}

/// z = Wᵀ h + b for every tile.
#[inline(always)]
pub fn reconstruct<S: Simd>(weights: Weights, h: &[Lanes], z: &mut [Lanes]) {
    let Weights { n, m, .. } = weights;
    for (h, z) in h.chunks(4 * m).zip(z.chunks_mut(4 * n)) {
        if S::ACCUMULATORS == 24 && h.len() == 4 * m {
            pieces!(n, 6, |j, size| sized!(size, reconstruct_block, [S,], [, 4], (weights, j, h, z)));
        } else {
            for (h, z) in h.chunks(m).zip(z.chunks_mut(n)) {
                pieces!(n, 6, |j, size| sized!(size, reconstruct_block, [S,], [, 1], (weights, j, h, z)));
            }
        }
    }
}

#[inline(always)]
fn reconstruct_block<S: Simd, const J: usize, const T: usize>(
    weights: Weights,
    j0: usize,
    h: &[Lanes],
    z: &mut [Lanes],
) {
    let Weights { n, m, w_t, b, .. } = weights;
    assert!(h.len() == T * m && z.len() == T * n && w_t.len() == n * m && b.len() == n && j0 + J <= n);
    // SAFETY: j0 + J <= n.
    let b: &[f32; J] = unsafe { window(b, j0) };
    let mut sum = [[S::splat(0.0); T]; J];
    for j in 0..J {
        sum[j] = [S::splat(b[j]); T];
    }
    for k in 0..m {
        // SAFETY: k < m, t < T, j0 + J <= n.
        let w: &[f32; J] = unsafe { window(w_t, k * n + j0) };
        for j in 0..J {
            for t in 0..T {
                // SAFETY: as above.
                let h: &[Lanes; 1] = unsafe { window(h, t * m + k) };
                sum[j][t] = S::fma(S::splat(w[j]), S::load(&h[0]), sum[j][t]);
            }
        }
    }
    for t in 0..T {
        for j in 0..J {
            S::store(sum[j][t], &mut z[t * n + j0 + j]);
        }
    }
}

/// What [`residual`] reads of a block: c, how many of its samples are real, x.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    pub slopes: &'a [f32],
    pub samples: usize,
    pub x: &'a [Lanes],
}

/// Turns z into g in place and adds to db and the loss.
#[inline(always)]
pub fn residual<S: Simd, const RELU: bool, const LOSS: bool>(
    at: Outputs,
    z: &mut [Lanes],
    db: &mut [Lanes],
    loss: &mut f64,
) {
    let Outputs { slopes, samples, x } = at;
    let n = slopes.len();
    let one = S::splat(1.0);
    let ((x, x_padded), (z, z_padded)) = (x.split_at(samples / 16 * n), z.split_at_mut(samples / 16 * n));
    for (x, z) in x.chunks(4 * n).zip(z.chunks_mut(4 * n)) {
        if x.len() == 4 * n {
            residual_tiles::<S, RELU, LOSS, 4>(slopes, one, x, z, db, loss);
        } else {
            for (x, z) in x.chunks(n).zip(z.chunks_mut(n)) {
                residual_tiles::<S, RELU, LOSS, 1>(slopes, one, x, z, db, loss);
            }
        }
    }
    if !x_padded.is_empty() {
        residual_tiles::<S, RELU, LOSS, 1>(slopes, mask::<S>(samples % 16), x_padded, z_padded, db, loss);
    }
}

/// T tiles; `mask` is 1 in the lanes that are samples (times 1 changes no bit).
#[inline(always)]
fn residual_tiles<S: Simd, const RELU: bool, const LOSS: bool, const T: usize>(
    slopes: &[f32],
    mask: S::F,
    x: &[Lanes],
    z: &mut [Lanes],
    db: &mut [Lanes],
    loss: &mut f64,
) {
    let n = slopes.len();
    assert!(x.len() == T * n && z.len() == T * n && db.len() == n);
    let mut tile_loss = [S::splat(0.0); T];
    for j in 0..n {
        let slope = S::mul(S::splat(slopes[j]), mask);
        let mut sum = S::load(&db[j]);
        for t in 0..T {
            let pre = S::load(&z[t * n + j]);
            let (g, term) = output_slope::<S, RELU>(pre, S::load(&x[t * n + j]), slope, LOSS, tile_loss[t]);
            tile_loss[t] = term;
            sum = S::add(sum, g);
            S::store(g, &mut z[t * n + j]);
        }
        S::store(sum, &mut db[j]);
    }
    if LOSS {
        for t in 0..T {
            *loss += S::fold(tile_loss[t]) as f64;
        }
    }
}

macro_rules! sized_columns {
    ($size:expr, $f:ident, $s:ident, $rows:literal, $args:tt) => {
        match $size {
            1 => $f::<$s, $rows, 1> $args,
            2 => $f::<$s, $rows, 2> $args,
            3 => $f::<$s, $rows, 3> $args,
            4 => $f::<$s, $rows, 4> $args,
            _ => $f::<$s, $rows, 5> $args,
        }
    };
}

/// dW_i += Σ over samples of g_i h + x_i dh.
#[inline(always)]
pub fn outer<S: Simd>(weights: Weights, x: &[Lanes], g: &[Lanes], h: &[Lanes], dh: &[Lanes], dw: &mut [Lanes]) {
    let (j_max, k_max) = if S::ACCUMULATORS == 24 { (4, 5) } else { (2, 2) };
    let tiles = x.len() / weights.n;
    let operands = Operands { tiles, x, g, h, dh };
    pieces!(weights.n, j_max, |j, rows| {
        pieces!(weights.m, k_max, |k, columns| {
            match rows {
                1 => sized_columns!(columns, outer_block, S, 1, (weights, (j, k), operands, dw)),
                2 => sized_columns!(columns, outer_block, S, 2, (weights, (j, k), operands, dw)),
                3 => sized_columns!(columns, outer_block, S, 3, (weights, (j, k), operands, dw)),
                _ => sized_columns!(columns, outer_block, S, 4, (weights, (j, k), operands, dw)),
            }
        });
    });
}

/// What [`outer`] reads of a block.
#[derive(Clone, Copy)]
struct Operands<'a> {
    tiles: usize,
    x: &'a [Lanes],
    g: &'a [Lanes],
    h: &'a [Lanes],
    dh: &'a [Lanes],
}

#[inline(always)]
fn outer_block<S: Simd, const J: usize, const K: usize>(
    weights: Weights,
    (j0, k0): (usize, usize),
    operands: Operands,
    dw: &mut [Lanes],
) {
    let Weights { n, m, .. } = weights;
    let Operands { tiles, x, g, h, dh } = operands;
    assert!(x.len() == tiles * n && g.len() == tiles * n && h.len() == tiles * m && dh.len() == tiles * m);
    assert!(dw.len() == n * m && j0 + J <= n && k0 + K <= m);
    let mut sum = [[S::splat(0.0); K]; J];
    for j in 0..J {
        // SAFETY: j0 + J <= n, k0 + K <= m.
        let dw: &[Lanes; K] = unsafe { window(dw, (j0 + j) * m + k0) };
        for k in 0..K {
            sum[j][k] = S::load(&dw[k]);
        }
    }
    for tile in 0..tiles {
        // SAFETY: tile < tiles, j0 + J <= n, k0 + K <= m.
        let (x, g): (&[Lanes; J], &[Lanes; J]) = unsafe { (window(x, tile * n + j0), window(g, tile * n + j0)) };
        // SAFETY: as above.
        let (h, dh): (&[Lanes; K], &[Lanes; K]) = unsafe { (window(h, tile * m + k0), window(dh, tile * m + k0)) };
        for j in 0..J {
            for k in 0..K {
                sum[j][k] = S::fma(S::load(&g[j]), S::load(&h[k]), sum[j][k]);
            }
        }
        for j in 0..J {
            for k in 0..K {
                sum[j][k] = S::fma(S::load(&x[j]), S::load(&dh[k]), sum[j][k]);
            }
        }
    }
    for j in 0..J {
        for k in 0..K {
            S::store(sum[j][k], &mut dw[(j0 + j) * m + k0 + k]);
        }
    }
}
