//! The gradient for shapes known at compile time: weights and sums live in registers, nothing but x is read.
//!
//! Every sum is the chain that the blocked kernel has, so the two give the same bits and which one runs is a matter of
//! speed alone.

use super::silent::add_silent;
use super::{Shape, ToyStep};
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::toy::ToyKind;

/// (n_features, d_hidden) that have a kernel here: beyond about eight features the sums live in memory anyway.
#[cfg(test)]
pub const SHAPES: [(usize, usize); 6] = [(2, 1), (3, 1), (3, 2), (4, 2), (5, 2), (5, 3)];

/// Writes the gradient and returns the loss, if the shape has a kernel here.
pub fn gradient(isa: Isa, step: &ToyStep, to: &mut [f32]) -> Option<f64> {
    macro_rules! table {
        ($($n:literal $m:literal),*) => {
            match (step.shape.n_features, step.shape.d_hidden) {
                $(($n, $m) => Some(by_kind::<$n, $m>(isa, step, to)),)*
                _ => None,
            }
        };
    }
    table!(2 1, 3 1, 3 2, 4 2, 5 2, 5 3)
}

fn by_kind<const N: usize, const M: usize>(isa: Isa, step: &ToyStep, to: &mut [f32]) -> f64 {
    let Shape { kind, .. } = step.shape;
    match (kind, step.with_loss) {
        (ToyKind::ReluOutput, false) => run(isa, Small::<N, M, true, false> { step, to }),
        (ToyKind::ReluOutput, true) => run(isa, Small::<N, M, true, true> { step, to }),
        (ToyKind::Linear, false) => run(isa, Small::<N, M, false, false> { step, to }),
        (ToyKind::Linear, true) => run(isa, Small::<N, M, false, true> { step, to }),
    }
}

struct Small<'a, 'b, const N: usize, const M: usize, const RELU: bool, const LOSS: bool> {
    step: &'a ToyStep<'b>,
    to: &'a mut [f32],
}

/// A model in each lane: the same one in all where a lane is a sample.
pub(crate) struct Model<F, const N: usize, const M: usize> {
    pub w: [[F; M]; N],
    pub b: [F; N],
}

/// Gradient sums, sixteen lanes each.
pub(crate) struct Sums<F, const N: usize, const M: usize> {
    pub dw: [[F; M]; N],
    pub db: [F; N],
}

#[inline(always)]
fn load<S: Simd, const N: usize>(x: &[Lanes; N]) -> [S::F; N] {
    let mut to = [S::splat(0.0); N];
    for i in 0..N {
        to[i] = S::load(&x[i]);
    }
    to
}

impl<const N: usize, const M: usize, const RELU: bool, const LOSS: bool> Kernel for Small<'_, '_, N, M, RELU, LOSS> {
    /// The loss, 0 unless LOSS.
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Small { step, to } = self;
        let zero = S::splat(0.0);
        let (w, b, c) = (&step.parameters[..N * M], &step.parameters[N * M..][..N], &step.slopes[..N]);
        let (mut model, mut slopes) = (Model { w: [[zero; M]; N], b: [zero; N] }, [zero; N]);
        for i in 0..N {
            for k in 0..M {
                model.w[i][k] = S::splat(w[i * M + k]);
            }
            (model.b[i], slopes[i]) = (S::splat(b[i]), S::splat(c[i]));
        }
        let (batch, silent) = step.tiles();
        let (tiles, full) = (batch.lanes.as_chunks::<N>().0, batch.samples / 16);
        let (mut sums, mut loss) = (Sums { dw: [[zero; M]; N], db: [zero; N] }, 0.0);
        for x in &tiles[..full] {
            let tile = add_samples::<S, N, M, RELU>(&model, &load::<S, N>(x), &slopes, LOSS, &mut sums);
            if LOSS {
                loss += S::fold(tile) as f64;
            }
        }
        for x in &tiles[full..] {
            let mask = mask::<S>(batch.samples % 16);
            for slope in &mut slopes {
                *slope = S::mul(*slope, mask);
            }
            let tile = add_samples::<S, N, M, RELU>(&model, &load::<S, N>(x), &slopes, LOSS, &mut sums);
            if LOSS {
                loss += S::fold(tile) as f64;
            }
        }
        for i in 0..N {
            for k in 0..M {
                to[i * M + k] = S::fold(sums.dw[i][k]);
            }
            to[N * M + i] = S::fold(sums.db[i]);
        }
        0.5 * loss + add_silent(step, silent, to)
    }
}

/// Adds the gradient of one sample in each lane; returns Σ c r², lane by lane, if `with_loss`. The one place that says
/// how a sum over samples goes on, whether a lane is a sample or a model (`toy_lanes`).
#[inline(always)]
pub(crate) fn add_samples<S: Simd, const N: usize, const M: usize, const RELU: bool>(
    Model { w, b }: &Model<S::F, N, M>,
    x: &[S::F; N],
    slopes: &[S::F; N],
    with_loss: bool,
    sums: &mut Sums<S::F, N, M>,
) -> S::F {
    let (mut h, mut dh, mut loss) = ([S::splat(0.0); M], [S::splat(0.0); M], S::splat(0.0));
    for i in 0..N {
        for k in 0..M {
            h[k] = S::fma(w[i][k], x[i], h[k]);
        }
    }
    for j in 0..N {
        let mut z = b[j];
        for k in 0..M {
            z = S::fma(w[j][k], h[k], z);
        }
        let (g, term) = output_slope::<S, RELU>(z, x[j], slopes[j], with_loss, loss);
        loss = term;
        sums.db[j] = S::add(sums.db[j], g);
        for k in 0..M {
            dh[k] = S::fma(w[j][k], g, dh[k]);
            sums.dw[j][k] = S::fma(g, h[k], sums.dw[j][k]);
        }
    }
    for i in 0..N {
        for k in 0..M {
            sums.dw[i][k] = S::fma(x[i], dh[k], sums.dw[i][k]);
        }
    }
    loss
}

/// g = c r out'(z), and `loss` with c r² added if `with_loss` (a constant where this is inlined). Where z > 0 the ReLU is
/// z itself, so g has the same bits either way.
#[inline(always)]
pub fn output_slope<S: Simd, const RELU: bool>(
    z: S::F,
    x: S::F,
    slope: S::F,
    with_loss: bool,
    loss: S::F,
) -> (S::F, S::F) {
    let r = S::sub(if RELU && with_loss { S::max(z, S::splat(0.0)) } else { z }, x);
    let cr = S::mul(slope, r);
    let g = if RELU { S::where_positive(z, cr) } else { cr };
    (g, if with_loss { S::fma(cr, r, loss) } else { loss })
}

/// 1 in the first `samples` lanes, 0 in the padding: times c it makes the padding's g and loss zero. The rest of a padded
/// sample's gradient is zero by itself, because its x and h are.
#[inline(always)]
pub fn mask<S: Simd>(samples: usize) -> S::F {
    let mut mask = Lanes::default();
    mask.0[..samples].fill(1.0);
    S::load(&mask)
}
