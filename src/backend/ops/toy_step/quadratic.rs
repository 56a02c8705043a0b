//! The gradient of the `quadratic` model, lane = sample.
//!
//! ```text
//! for each sample:   h = Σ_i x_i W_i      out = b + ‖h‖²      target = Σ_i I_i x_i²      r = out - target
//!                    g = c r              dW_i += x_i 2 g h   db += g                    loss += c r² / 2
//! ```
//!
//! The slopes of the step are I and then c. Padding has x = 0 and so h = 0; its g is masked, because b alone is an error.

use super::simd::{Weights, project};
use super::small::mask;
use super::{Shape, ToyStep, layers};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};

/// Tiles that go through the products together.
const TILES: usize = 16;

/// Memory of the kernel for one shape.
pub struct Scratch {
    shape: Shape,
    /// h, then 2 g h, of a block.
    h: Vec<Lanes>,
    dw: Vec<Lanes>,
}

impl Scratch {
    /// Memory for steps of this shape.
    pub fn new(shape: Shape) -> Scratch {
        let lanes = |len| vec![Lanes::default(); len];
        Scratch { shape, h: lanes(TILES * shape.d_hidden), dw: lanes(shape.n_features * shape.d_hidden) }
    }
}

/// Writes the gradient of `step` into `to` and returns the loss.
pub fn gradient(isa: Isa, step: &ToyStep, scratch: &mut Scratch, to: &mut [f32]) -> f64 {
    assert_eq!(scratch.shape, step.shape);
    run(isa, Quadratic { step, scratch, to })
}

struct Quadratic<'a, 'b> {
    step: &'a ToyStep<'b>,
    scratch: &'a mut Scratch,
    to: &'a mut [f32],
}

impl Kernel for Quadratic<'_, '_> {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Quadratic { step, scratch, to } = self;
        let Shape { n_features: n, d_hidden: m, .. } = step.shape;
        let (w, b) = step.parameters.split_at(n * m);
        let weights = Weights { n, m, w, w_t: &[], b: &[] };
        scratch.dw.fill(Lanes::default());
        let (mut db, mut loss, mut left) = (S::splat(0.0), 0.0, step.inputs.dense.samples);
        for x in step.inputs.dense.lanes.chunks(TILES * n) {
            let tiles = x.len() / n;
            let h = &mut scratch.h[..tiles * m];
            project::<S>(weights, x, h);
            for (x, h) in x.chunks_exact(n).zip(h.chunks_exact_mut(m)) {
                let real = left.min(16);
                left -= real;
                let (g, term) = output::<S>(step.slopes, b[0], x, h, real);
                db = S::add(db, g);
                loss += S::fold(term) as f64;
                let twice = S::add(g, g);
                h.iter_mut().for_each(|h| S::store(S::mul(twice, S::load(h)), h));
            }
            layers::accumulate::<S>(x, h, tiles, &mut scratch.dw);
        }
        for (to, sum) in to.iter_mut().zip(&scratch.dw) {
            *to = S::fold(S::load(sum));
        }
        to[n * m] = S::fold(db);
        0.5 * loss
    }
}

/// g and c r² of a tile with `real` samples.
#[inline(always)]
fn output<S: Simd>(slopes: &[f32], b: f32, x: &[Lanes], h: &[Lanes], real: usize) -> (S::F, S::F) {
    let (c, importance) = slopes.split_last().expect("slopes end with that of the output");
    let (mut out, mut target) = (S::splat(b), S::splat(0.0));
    for h in h {
        out = S::fma(S::load(h), S::load(h), out);
    }
    for (x, i) in x.iter().zip(importance) {
        let x = S::load(x);
        target = S::fma(S::mul(S::splat(*i), x), x, target);
    }
    let r = S::sub(out, target);
    let slope = if real == 16 { S::splat(*c) } else { S::mul(S::splat(*c), mask::<S>(real)) };
    let g = S::mul(slope, r);
    (g, S::mul(g, r))
}
