//! Sixteen models of one shape that see the same batch, a lane each: for shapes so small that folding a model's sums and
//! moving its handful of parameters costs as much as its samples.
//!
//! ```text
//! for l in 0 .. 16:                     what lane l of the kernel with lane = sample does, for sixteen models at once
//!     sums = 0
//!     for each tile t:                  sums += gradient of sample 16 t + l
//!     partial[l] = sums
//! gradient = partial folded over l in the order of Simd::fold; then silent samples by their closed form
//! one step of the optimiser, models in the lanes
//! ```
//!
//! So each sum over samples is made of the same sixteen chains in the same order as in [`toy_step`](super::toy_step), of
//! the same operations ([`add_samples`]): a model has the same bits in a lane, in any lane, or alone, and whether it is
//! trained here is a matter of speed. Arrays of models are `[…, 16]`, the model fastest; lanes without a model hold zeros,
//! which stay zeros.
//!
//! Departure: lanes of the last tile that are padding are left out, and so are whole chains of padding. They would add
//! zeros, unless a parameter is not finite; then they are computed too, so that a diverged model as well is the same
//! everywhere.

#![allow(
    clippy::needless_range_loop,
    reason = "indices name the entries of a rectangle of sums; an iterator over one of its sides hides which"
)]

use crate::backend::ops::optimizer::{Moments, Step, update};
use crate::backend::ops::toy_step::small::{Model, Sums, add_samples};
use crate::backend::ops::toy_step::{Form, Inputs, Shape};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::data::Batch;
use crate::toy::ToyKind;

/// Sixteen models and the batch that they see.
#[derive(Clone, Copy)]
pub struct LaneModels<'a> {
    /// Every model's shape; [`has_kernel`] must say yes.
    pub shape: Shape,
    /// c_i, `[n_features, 16]`.
    pub slopes: &'a [f32],
    /// x, drawn at least in the form that is read.
    pub inputs: &'a Inputs,
    /// [`Form::Dense`] or [`Form::Packed`].
    pub form: Form,
}

impl LaneModels<'_> {
    /// The tiles that are read, and how many silent samples are not among them.
    fn tiles(&self) -> (&Batch, usize) {
        match self.form {
            Form::Dense => (&self.inputs.dense, 0),
            Form::Packed => (&self.inputs.packed, self.inputs.silent),
            Form::Events => unreachable!("shapes with a kernel here are never read by events"),
        }
    }

    fn check(&self, parameters: &[f32]) {
        let batch = self.tiles().0;
        assert_eq!(batch.n_features, self.shape.n_features);
        assert_eq!(self.slopes.len(), 16 * self.shape.n_features);
        assert_eq!(parameters.len(), 16 * self.shape.n_parameters());
    }
}

/// One training step of sixteen models, for [`step`].
pub struct LaneStep<'a> {
    /// The models and what they see.
    pub models: LaneModels<'a>,
    /// Flat parameters, `[n_parameters, 16]`, moved in place.
    pub parameters: &'a mut [f32],
    /// Made for as many parameters.
    pub moments: &'a mut Moments,
    /// What the optimiser does this step.
    pub numbers: &'a Step,
}

/// Memory of the kernel, for any shape.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Sums of each chain, `[n_parameters]` of sixteen chains.
    partial: Vec<[Lanes; 16]>,
    /// `[n_parameters, 16]`
    gradient: Vec<f32>,
}

/// Calls a generic function with the shape as constants, or gives the other expression where there is no kernel.
macro_rules! by_shape {
    ($shape:expr, $f:ident $args:tt, $none:expr) => {
        match ($shape.n_features, $shape.d_hidden) {
            (1, 1) => $f::<1, 1> $args,
            (2, 1) => $f::<2, 1> $args,
            (3, 1) => $f::<3, 1> $args,
            (3, 2) => $f::<3, 2> $args,
            (4, 2) => $f::<4, 2> $args,
            (5, 2) => $f::<5, 2> $args,
            _ => $none,
        }
    };
}
pub(crate) use by_shape;

/// The shapes that have a kernel.
#[cfg(test)]
pub const SHAPES: [(usize, usize); 6] = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (5, 2)];

fn yes<const N: usize, const M: usize>() -> bool {
    true
}

/// Whether models of this shape can be trained here.
pub fn has_kernel(shape: Shape) -> bool {
    matches!(shape.kind, ToyKind::Linear | ToyKind::ReluOutput) && by_shape!(shape, yes(), false)
}

/// Moves sixteen models by one step.
///
/// # Panics
/// If [`has_kernel`] says no, or an array is not of the shape.
pub fn step(isa: Isa, step: LaneStep, scratch: &mut Scratch) {
    step.models.check(step.parameters);
    let Shape { kind, n_features: n, d_hidden: m } = step.models.shape;
    scratch.partial.resize((n * m + n).max(scratch.partial.len()), [Lanes::default(); 16]);
    scratch.gradient.resize(step.parameters.len(), 0.0);
    fn sized<const N: usize, const M: usize>(isa: Isa, step: LaneStep, scratch: &mut Scratch, relu: bool) {
        match relu {
            true => run(isa, Sixteen::<N, M, true> { step, scratch }),
            false => run(isa, Sixteen::<N, M, false> { step, scratch }),
        }
    }
    let relu = kind == ToyKind::ReluOutput;
    by_shape!(step.models.shape, sized(isa, step, scratch, relu), panic!("no kernel for {n} features in {m}"))
}

/// Loss of each of the models on the batch: what [`toy_step::gradient`](super::toy_step::gradient) returns for it.
/// `parameters` are `[n_parameters, 16]`.
///
/// # Panics
/// As [`step`].
pub fn losses(isa: Isa, models: LaneModels, parameters: &[f32]) -> [f64; 16] {
    models.check(parameters);
    let Shape { kind, n_features: n, d_hidden: m } = models.shape;
    fn sized<const N: usize, const M: usize>(isa: Isa, models: LaneModels, p: &[f32], relu: bool) -> [f64; 16] {
        match relu {
            true => run(isa, Losses::<N, M, true> { models, parameters: p }),
            false => run(isa, Losses::<N, M, false> { models, parameters: p }),
        }
    }
    let relu = kind == ToyKind::ReluOutput;
    by_shape!(models.shape, sized(isa, models, parameters, relu), panic!("no kernel for {n} features in {m}"))
}

/// Rows of sixteen numbers.
fn rows(flat: &[f32]) -> &[[f32; 16]] {
    let (rows, rest) = flat.as_chunks::<16>();
    debug_assert!(rest.is_empty());
    rows
}

/// The models as `N` by `M` vectors, and their slopes.
#[inline(always)]
fn load<S: Simd, const N: usize, const M: usize>(p: &[f32], slopes: &[f32]) -> (Model<S::F, N, M>, [S::F; N]) {
    let (p, c, zero) = (&rows(p)[..N * M + N], &rows(slopes)[..N], S::splat(0.0));
    let (mut model, mut slopes) = (Model { w: [[zero; M]; N], b: [zero; N] }, [zero; N]);
    for i in 0..N {
        for k in 0..M {
            model.w[i][k] = S::load_from(&p[i * M + k]);
        }
        (model.b[i], slopes[i]) = (S::load_from(&p[N * M + i]), S::load_from(&c[i]));
    }
    (model, slopes)
}

/// One sample in every lane.
#[inline(always)]
fn broadcast<S: Simd, const N: usize>(tile: &[Lanes; N], lane: usize) -> [S::F; N] {
    let mut x = [S::splat(0.0); N];
    for i in 0..N {
        x[i] = S::splat(tile[i].0[lane]);
    }
    x
}

#[inline(always)]
fn no_sums<S: Simd, const N: usize, const M: usize>() -> Sums<S::F, N, M> {
    let zero = S::splat(0.0);
    Sums { dw: [[zero; M]; N], db: [zero; N] }
}

/// c in the lanes of samples, 0 · c in padding, as the kernel with lane = sample has it.
#[inline(always)]
fn masked<S: Simd, const N: usize>(slopes: &[S::F; N], real: bool) -> [S::F; N] {
    let (mut masked, mask) = (*slopes, S::splat(if real { 1.0 } else { 0.0 }));
    for slope in &mut masked {
        *slope = S::mul(*slope, mask);
    }
    masked
}

/// Sixteen vectors in the order of [`Simd::fold`], of which those from `used` on are zero.
#[inline(always)]
fn fold<S: Simd>(of: &[Lanes; 16], used: usize) -> S::F {
    let mut sums = [S::splat(0.0); 8];
    for l in 0..8 {
        sums[l] = S::load(&of[l]);
    }
    if used > 8 {
        for l in 0..8 {
            sums[l] = S::add(sums[l], S::load(&of[l + 8]));
        }
    }
    for l in 0..4 {
        sums[l] = S::add(sums[l], sums[l + 4]);
    }
    for l in 0..2 {
        sums[l] = S::add(sums[l], sums[l + 2]);
    }
    S::add(sums[0], sums[1])
}

struct Sixteen<'a, 'b, const N: usize, const M: usize, const RELU: bool> {
    step: LaneStep<'b>,
    scratch: &'a mut Scratch,
}

impl<const N: usize, const M: usize, const RELU: bool> Kernel for Sixteen<'_, '_, N, M, RELU> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Sixteen { step: LaneStep { models, parameters, moments, numbers }, scratch } = self;
        let (model, slopes) = load::<S, N, M>(parameters, models.slopes);
        let (batch, silent) = models.tiles();
        let used = chains::<S, N, M, RELU>(&model, &slopes, batch, &mut scratch.partial);
        let (gradient, _) = scratch.gradient.as_chunks_mut::<16>();
        let (dw, db) = gradient.split_at_mut(N * M);
        for (to, partial) in dw.iter_mut().zip(&scratch.partial) {
            S::store_to(fold::<S>(partial, used), to);
        }
        for j in 0..N {
            let mut sum = fold::<S>(&scratch.partial[N * M + j], used);
            if silent > 0 {
                let y = if RELU { S::where_positive(model.b[j], model.b[j]) } else { model.b[j] };
                sum = S::fma(S::mul(S::splat(silent as f32), slopes[j]), y, sum);
            }
            S::store_to(sum, &mut db[j]);
        }
        update::<S>(numbers, 1.0, parameters, &scratch.gradient, moments);
    }
}

/// The sums of each chain of samples; returns from which chain on they are all zero.
#[inline(always)]
fn chains<S: Simd, const N: usize, const M: usize, const RELU: bool>(
    model: &Model<S::F, N, M>,
    slopes: &[S::F; N],
    batch: &Batch,
    partial: &mut [[Lanes; 16]],
) -> usize {
    let partial = &mut partial[..N * M + N];
    let (tiles, full, rest) = (batch.lanes.as_chunks::<N>().0, batch.samples / 16, batch.samples % 16);
    let (whole, last) = tiles.split_at(full);
    let finite = finite::<S, N, M>(model);
    let used = if finite && full == 0 { rest } else { 16 };
    for lane in 0..used {
        let mut sums = no_sums::<S, N, M>();
        for tile in whole {
            add_samples::<S, N, M, RELU>(model, &broadcast::<S, N>(tile, lane), slopes, false, &mut sums);
        }
        if let Some(tile) = last.first().filter(|_| lane < rest || !finite) {
            let (x, slopes) = (broadcast::<S, N>(tile, lane), masked::<S, N>(slopes, lane < rest));
            add_samples::<S, N, M, RELU>(model, &x, &slopes, false, &mut sums);
        }
        for i in 0..N {
            for k in 0..M {
                S::store(sums.dw[i][k], &mut partial[i * M + k][lane]);
            }
            S::store(sums.db[i], &mut partial[N * M + i][lane]);
        }
    }
    // The fold reads eight chains or sixteen.
    for unused in used..used.next_multiple_of(8).max(8) {
        partial.iter_mut().for_each(|partial| S::store(S::splat(0.0), &mut partial[unused]));
    }
    used
}

/// Whether all parameters of all models are finite.
#[inline(always)]
fn finite<S: Simd, const N: usize, const M: usize>(model: &Model<S::F, N, M>) -> bool {
    let (mut sum, zero) = (S::splat(1.0), S::splat(0.0));
    for i in 0..N {
        for k in 0..M {
            sum = S::fma(model.w[i][k], zero, sum);
        }
        sum = S::fma(model.b[i], zero, sum);
    }
    S::positive_bits(sum) == 0xFFFF
}

struct Losses<'a, const N: usize, const M: usize, const RELU: bool> {
    models: LaneModels<'a>,
    parameters: &'a [f32],
}

impl<const N: usize, const M: usize, const RELU: bool> Kernel for Losses<'_, N, M, RELU> {
    type Out = [f64; 16];

    #[inline(always)]
    fn run<S: Simd>(self) -> [f64; 16] {
        let Losses { models, parameters } = self;
        let (model, slopes) = load::<S, N, M>(parameters, models.slopes);
        let (batch, silent) = models.tiles();
        let mut losses = [0.0; 16];
        let mut left = batch.samples;
        for tile in batch.lanes.as_chunks::<N>().0 {
            let mut terms = [Lanes::default(); 16];
            for (lane, term) in terms.iter_mut().enumerate() {
                let (x, slopes) = (broadcast::<S, N>(tile, lane), masked::<S, N>(&slopes, lane < left));
                let sums = &mut no_sums::<S, N, M>();
                S::store(add_samples::<S, N, M, RELU>(&model, &x, &slopes, true, sums), term);
            }
            left = left.saturating_sub(16);
            let mut of_tile = [0.0; 16];
            S::store_to(fold::<S>(&terms, 16), &mut of_tile);
            losses.iter_mut().zip(of_tile).for_each(|(loss, term)| *loss += term as f64);
        }
        let silent_losses = silent_losses::<N, RELU>(&models, parameters, silent);
        std::array::from_fn(|model| 0.5 * losses[model] + silent_losses[model])
    }
}

/// What `count` silent samples add to the loss of each model.
#[inline(always)]
fn silent_losses<const N: usize, const RELU: bool>(models: &LaneModels, p: &[f32], count: usize) -> [f64; 16] {
    let (p, slopes) = (rows(p), rows(models.slopes));
    let b = &p[p.len() - N..];
    if count == 0 {
        return [0.0; 16];
    }
    std::array::from_fn(|model| {
        let mut sum = 0.0;
        for j in 0..N {
            let y = if !RELU || b[j][model] > 0.0 { b[j][model] } else { 0.0 };
            sum += slopes[j][model] as f64 * y as f64 * y as f64;
        }
        0.5 * count as f64 * sum
    })
}

#[cfg(test)]
mod tests;
