//! The gradient for shapes known at compile time: weights and sums live in registers, nothing but x is read.
//!
//! Every sum is the chain that the blocked kernel has, so the two give the same bits and which one runs is a matter of
//! speed alone.

use super::ToyStep;
use super::silent::add_silent;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};

/// (n_features, d_hidden) that have a kernel here: beyond about eight features the sums live in memory anyway.
#[cfg(test)]
pub const SHAPES: [(usize, usize); 6] = [(2, 1), (3, 1), (3, 2), (4, 2), (5, 2), (5, 3)];

/// Writes the gradient of a `linear` or `relu_output` model and returns the loss, if the shape has a kernel here.
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
    match (step.shape.kind.relu_output(), step.with_loss) {
        (true, false) => run(isa, Small::<N, M, true, false> { step, to }),
        (true, true) => run(isa, Small::<N, M, true, true> { step, to }),
        (false, false) => run(isa, Small::<N, M, false, false> { step, to }),
        (false, true) => run(isa, Small::<N, M, false, true> { step, to }),
    }
}

struct Small<'a, 'b, const N: usize, const M: usize, const RELU: bool, const LOSS: bool> {
    step: &'a ToyStep<'b>,
    to: &'a mut [f32],
}

/// Gradient sums, sixteen lanes each.
struct Sums<F, const N: usize, const M: usize> {
    dw: [[F; M]; N],
    db: [F; N],
}

impl<const N: usize, const M: usize, const RELU: bool, const LOSS: bool> Kernel for Small<'_, '_, N, M, RELU, LOSS> {
    /// The loss, 0 unless LOSS.
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let Small { step, to } = self;
        let zero = S::splat(0.0);
        let (w, b) = step.parameters.split_at(N * M);
        let (w, b, c): (&[f32], &[f32], &[f32]) = (&w[..N * M], &b[..N], &step.slopes[..N]);
        let (batch, silent) = step.tiles();
        let (tiles, full) = (batch.lanes.as_chunks::<N>().0, batch.samples / 16);
        let (mut sums, mut loss) = (Sums { dw: [[zero; M]; N], db: [zero; N] }, 0.0);
        for x in &tiles[..full] {
            let tile = add_tile::<S, N, M, RELU>(w, b, x, |j| S::splat(c[j]), LOSS, &mut sums);
            if LOSS {
                loss += S::fold(tile) as f64;
            }
        }
        for x in &tiles[full..] {
            let mask = mask::<S>(batch.samples % 16);
            let tile = add_tile::<S, N, M, RELU>(w, b, x, |j| S::mul(S::splat(c[j]), mask), LOSS, &mut sums);
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

/// Adds a tile's gradient; returns its Σ c r², lane by lane, if `with_loss`.
#[inline(always)]
fn add_tile<S: Simd, const N: usize, const M: usize, const RELU: bool>(
    w: &[f32],
    b: &[f32],
    x: &[Lanes; N],
    slope: impl Fn(usize) -> S::F,
    with_loss: bool,
    sums: &mut Sums<S::F, N, M>,
) -> S::F {
    let (mut h, mut dh, mut loss) = ([S::splat(0.0); M], [S::splat(0.0); M], S::splat(0.0));
    for i in 0..N {
        for k in 0..M {
            h[k] = S::fma(S::splat(w[i * M + k]), S::load(&x[i]), h[k]);
        }
    }
    for j in 0..N {
        let mut z = S::splat(b[j]);
        for k in 0..M {
            z = S::fma(S::splat(w[j * M + k]), h[k], z);
        }
        let (g, term) = output_slope::<S, RELU>(z, S::load(&x[j]), slope(j), with_loss, loss);
        loss = term;
        sums.db[j] = S::add(sums.db[j], g);
        for k in 0..M {
            dh[k] = S::fma(S::splat(w[j * M + k]), g, dh[k]);
            sums.dw[j][k] = S::fma(g, h[k], sums.dw[j][k]);
        }
    }
    for i in 0..N {
        for k in 0..M {
            sums.dw[i][k] = S::fma(S::load(&x[i]), dh[k], sums.dw[i][k]);
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
