//! Squared errors of the kinds with neurons of their own and of the quadratic one, by plain loops over sixteen samples.

use std::borrow::Cow;

use crate::backend::ops::activation;
use crate::backend::simd::{Kernel, Simd};
use crate::data::Batch;
use crate::toy::{Activation, ToyKind, ToyModel};

/// What the loops keep from tile to tile.
pub struct Memory<'a> {
    x: Vec<[f64; 16]>,
    h: Vec<[f64; 16]>,
    /// `[n_features, d_hidden]`
    directions: Cow<'a, [f32]>,
}

impl<'a> Memory<'a> {
    pub fn new(model: &'a ToyModel) -> Memory<'a> {
        let zeros = |len| vec![[0.0; 16]; len];
        Memory { x: zeros(model.n_features), h: zeros(model.d_hidden), directions: model.directions() }
    }
}

/// Adds the squares of a batch to `sums`; to be run on an instruction set.
pub struct Add<'a, 'b> {
    pub model: &'a ToyModel,
    pub importance: &'a [f32],
    pub memory: &'a mut Memory<'b>,
    pub batch: &'a Batch,
    /// Σ r² and Σ I r², lane by lane.
    pub sums: &'a mut [[f64; 16]; 2],
}

impl Kernel for Add<'_, '_> {
    type Out = ();

    /// `S` only says which instruction set these loops are compiled for: it has no f64.
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Add { model, importance, memory, batch, sums } = self;
        let Memory { x, h, directions } = memory;
        let (n, m) = (model.n_features, model.d_hidden);
        let (neurons, relu, absolute) =
            (model.kind.activation(), model.kind.relu_output(), model.kind == ToyKind::AbsoluteValue);
        let outputs = if model.v.is_empty() { &model.w } else { &model.v };
        let mut left = batch.samples;
        for tile in batch.lanes.chunks_exact(n) {
            for (to, from) in x.iter_mut().zip(tile) {
                *to = from.0.map(f64::from);
            }
            for (k, h) in h.iter_mut().enumerate() {
                let c = model.c.get(k).map_or(0.0, |c| *c as f64);
                *h = dot([c; 16], directions[k..].iter().step_by(m), x);
                if neurons != Activation::Identity {
                    *h = h.map(|pre| activation::reference(neurons, pre).0);
                }
            }
            let real = left.min(16);
            left -= real;
            if model.kind == ToyKind::Quadratic {
                add_quadratic(model.b[0], importance, x, h, real, sums);
                continue;
            }
            for j in 0..n {
                let b = model.b.get(j).map_or(0.0, |b| *b as f64);
                let z = dot([b; 16], &outputs[j * m..(j + 1) * m], h);
                let squares: [f64; 16] = std::array::from_fn(|lane| {
                    let out = if relu && z[lane] <= 0.0 { 0.0 } else { z[lane] };
                    let target = if absolute { x[j][lane].abs() } else { x[j][lane] };
                    let r = out - target;
                    if lane < real { r * r } else { 0.0 }
                });
                let importance = importance[j] as f64;
                for lane in 0..16 {
                    sums[0][lane] += squares[lane];
                    sums[1][lane] += importance * squares[lane];
                }
            }
        }
    }
}

/// Adds the squared error of the one output of a `quadratic` model.
#[inline(always)]
fn add_quadratic(b: f32, importance: &[f32], x: &[[f64; 16]], h: &[[f64; 16]], real: usize, sums: &mut [[f64; 16]; 2]) {
    for lane in 0..real {
        let out = h.iter().fold(b as f64, |sum, h| sum + h[lane] * h[lane]);
        let target = x.iter().zip(importance).fold(0.0, |sum, (x, i)| sum + *i as f64 * x[lane] * x[lane]);
        let square = (out - target) * (out - target);
        sums.iter_mut().for_each(|sum| sum[lane] += square);
    }
}

/// start + Σ w v, lane by lane.
#[inline(always)]
fn dot<'w>(start: [f64; 16], w: impl IntoIterator<Item = &'w f32>, v: &[[f64; 16]]) -> [f64; 16] {
    let mut sum = start;
    for (w, v) in w.into_iter().zip(v) {
        let w = *w as f64;
        for lane in 0..16 {
            sum[lane] += w * v[lane];
        }
    }
    sum
}
