//! One step of Adam, AdamW or SGD over flat parameters.
//!
//! ```text
//! g  = scale * gradient + weight_decay * p                    Adam and SGD: decay is part of the gradient
//! m += (1 - beta1) (g - m)        v += (1 - beta2) (g² - v)
//! p -= lr weight_decay p                                      AdamW: decay apart from the gradient
//! p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon)
//! SGD:  u = momentum u + g,  p -= lr u
//! ```
//!
//! Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2. Everything that is one number for all
//! parameters is computed in f64 by [`Step::new`]; parameters go sixteen at a time, the few left over through a padded
//! block of the same operations, so a parameter's bits do not depend on where it stands.
//!
//! Moments below [`TINY`] are stored as zero, and gradients whose square is below it count as zero in v. Moments of
//! parameters that no longer get a gradient decay into denormal numbers, on which a processor is a hundred times slower; a
//! compare and mask gives the same bits everywhere, unlike the processor's own flush-to-zero.

use super::layout::{flat, flat_mut};
use crate::backend::checkpoint::record;
use crate::backend::simd::{Kernel, Lanes, Simd};
use crate::training::Optimizer;

/// Moments at most this large are stored as zero.
pub const TINY: f32 = 1e-30;

/// The square root of [`TINY`].
const TINY_ROOT: f32 = 1e-15;

/// State of an optimiser for one flat parameter tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Mean gradient, or the velocity of SGD; empty for SGD without momentum.
    first: Vec<f32>,
    /// Mean squared gradient; empty for SGD.
    second: Vec<f32>,
}

impl Moments {
    /// Zeros for `len` parameters.
    pub fn new(optimizer: Optimizer, len: usize) -> Moments {
        let (first, second) = match optimizer {
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => (len, len),
            Optimizer::Sgd { momentum } => (if momentum == 0.0 { 0 } else { len }, 0),
        };
        Moments { first: vec![0.0; first], second: vec![0.0; second] }
    }

    /// Forgets what a range of parameters went through.
    pub fn reset(&mut self, parameters: std::ops::Range<usize>) {
        for moments in [&mut self.first, &mut self.second] {
            if let Some(moments) = moments.get_mut(parameters.clone()) {
                moments.fill(0.0);
            }
        }
    }

    /// How many first and second moments there are.
    pub fn lengths(&self) -> [usize; 2] {
        [self.first.len(), self.second.len()]
    }

    /// All of them.
    #[inline(always)]
    pub fn all(&mut self) -> MomentsMut<'_> {
        MomentsMut { first: &mut self.first, second: &mut self.second }
    }

    /// The moments of `size` parameters after another, without end: past the last parameter they are empty.
    pub fn pieces(&mut self, size: usize) -> impl Iterator<Item = MomentsMut<'_>> {
        let (mut first, mut second) = (self.first.chunks_mut(size), self.second.chunks_mut(size));
        std::iter::repeat_with(move || MomentsMut {
            first: first.next().unwrap_or_default(),
            second: second.next().unwrap_or_default(),
        })
    }
}

/// Moments of some of a tensor's parameters.
#[derive(Debug)]
pub struct MomentsMut<'a> {
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl MomentsMut<'_> {
    /// Of the `len` parameters from `at` on.
    #[inline(always)]
    fn part(&mut self, at: usize, len: usize) -> MomentsMut<'_> {
        let cut = |x: &mut [f32]| at.min(x.len())..(at + len).min(x.len());
        let (first, second) = (cut(self.first), cut(self.second));
        MomentsMut { first: &mut self.first[first], second: &mut self.second[second] }
    }
}

record!(Moments { first, second });

/// The numbers of one step that all parameters share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Adam and AdamW.
    Adaptive {
        /// 1 - beta1 and 1 - beta2.
        take: [f32; 2],
        /// -lr / (1 - beta1^t).
        rate: f32,
        /// 1 / (1 - beta2^t).
        scale: f32,
        epsilon: f32,
        /// Added to the gradient, times the parameter.
        decay: f32,
        /// Added to the parameter, times the parameter: -lr * weight_decay for AdamW, else 0.
        shrink: f32,
    },
    /// `rate` is -lr.
    Sgd { momentum: f32, rate: f32, decay: f32 },
}

impl Step {
    /// Step `step`, from 0, at learning rate `lr` (the schedule's factor included).
    pub fn new(optimizer: Optimizer, lr: f64, weight_decay: f64, step: usize) -> Step {
        let adaptive = |beta1: f64, beta2: f64, epsilon: f64, decay: f64, shrink: f64| {
            let [power1, power2] = powers([beta1, beta2], step + 1);
            Step::Adaptive {
                take: [(1.0 - beta1) as f32, (1.0 - beta2) as f32],
                rate: (-lr / (1.0 - power1)) as f32,
                scale: (1.0 / (1.0 - power2)) as f32,
                epsilon: epsilon as f32,
                decay: decay as f32,
                shrink: shrink as f32,
            }
        };
        match optimizer {
            Optimizer::Adam { beta1, beta2, epsilon } => adaptive(beta1, beta2, epsilon, weight_decay, 0.0),
            Optimizer::AdamW { beta1, beta2, epsilon } => adaptive(beta1, beta2, epsilon, 0.0, -lr * weight_decay),
            Optimizer::Sgd { momentum } => {
                Step::Sgd { momentum: momentum as f32, rate: -lr as f32, decay: weight_decay as f32 }
            }
        }
    }
}

/// base^exponent by squaring: the same bits everywhere, which `powi` does not promise. Both at once, because the chain of
/// products is what takes the time.
fn powers(bases: [f64; 2], exponent: usize) -> [f64; 2] {
    let (mut results, mut squares, mut left) = ([1.0; 2], bases, exponent);
    while left > 0 {
        for i in 0..2 {
            results[i] *= if left & 1 == 1 { squares[i] } else { 1.0 };
            squares[i] *= squares[i];
        }
        left >>= 1;
    }
    results
}

/// One step of one tensor, to be given to [`crate::backend::simd::run`]; inside another kernel call [`update`].
pub struct Update<'a> {
    /// What this step does.
    pub step: &'a Step,
    /// Factor of the gradient: 1, or less where gradients are clipped.
    pub scale: f32,
    /// Moved in place.
    pub parameters: &'a mut [f32],
    /// As long as the parameters.
    pub gradient: &'a [f32],
    /// Made for as many parameters and the same optimiser.
    pub moments: &'a mut Moments,
}

impl Kernel for Update<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Update { step, scale, parameters, gradient, moments } = self;
        update::<S>(step, scale, parameters, gradient, moments);
    }
}

/// Moves `parameters` by one step; all slices and moments have one length.
#[inline(always)]
pub fn update<S: Simd>(step: &Step, scale: f32, parameters: &mut [f32], gradient: &[f32], moments: &mut Moments) {
    assert_eq!(parameters.len(), gradient.len());
    update_part::<S>(step, scale, parameters, gradient, moments.all());
}

/// [`update`] of some of a tensor's parameters.
#[inline(always)]
fn update_part<S: Simd>(step: &Step, scale: f32, parameters: &mut [f32], gradient: &[f32], moments: MomentsMut) {
    assert_eq!(parameters.len(), gradient.len());
    match *step {
        Step::Adaptive { .. } => adaptive::<S>(step, scale, parameters, gradient, moments),
        Step::Sgd { .. } => sgd::<S>(step, scale, parameters, gradient, moments),
    }
}

/// One step of whole rows of lane vectors, a row after the other so that what follows finds it in the cache.
pub struct UpdateRows<'a> {
    /// What this step does.
    pub step: &'a Step,
    /// Factor of the gradient.
    pub scale: f32,
    /// `[rows][width]`, moved in place.
    pub rows: &'a mut [Lanes],
    /// `[rows][width]`
    pub gradient: &'a [Lanes],
    /// Of these rows.
    pub moments: MomentsMut<'a>,
}

impl UpdateRows<'_> {
    /// Moves row `row` of `width` vectors.
    #[inline(always)]
    pub fn row<S: Simd>(&mut self, row: usize, width: usize) {
        let (rows, gradient) = (&mut self.rows[row * width..][..width], &self.gradient[row * width..][..width]);
        let moments = self.moments.part(row * width * 16, width * 16);
        update_part::<S>(self.step, self.scale, flat_mut(rows), flat(gradient), moments);
    }
}

#[inline(always)]
fn adaptive<S: Simd>(step: &Step, scale: f32, parameters: &mut [f32], gradient: &[f32], moments: MomentsMut) {
    assert!(moments.first.len() == parameters.len() && moments.second.len() == parameters.len());
    let (p, p_tail) = parameters.as_chunks_mut::<16>();
    let (g, g_tail) = gradient.as_chunks::<16>();
    let (m, m_tail) = moments.first.as_chunks_mut::<16>();
    let (v, v_tail) = moments.second.as_chunks_mut::<16>();
    for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        [*p, *m, *v] = adaptive_lanes::<S>(step, scale, *p, *g, *m, *v);
    }
    if !p_tail.is_empty() {
        let moved = adaptive_lanes::<S>(step, scale, padded(p_tail), padded(g_tail), padded(m_tail), padded(v_tail));
        for (to, from) in [p_tail, m_tail, v_tail].into_iter().zip(moved) {
            let kept = to.len();
            to.copy_from_slice(&from[..kept]);
        }
    }
}

/// Sixteen parameters, their first and their second moments after the step.
#[inline(always)]
fn adaptive_lanes<S: Simd>(
    step: &Step,
    gradient_scale: f32,
    p: [f32; 16],
    g: [f32; 16],
    m: [f32; 16],
    v: [f32; 16],
) -> [[f32; 16]; 3] {
    let &Step::Adaptive { take, rate, scale, epsilon, decay, shrink } = step else { unreachable!("update chose it") };
    let (p, m, v) = (S::load(&Lanes(p)), S::load(&Lanes(m)), S::load(&Lanes(v)));
    let g = S::fma(S::splat(decay), p, S::mul(S::splat(gradient_scale), S::load(&Lanes(g))));
    let counted = above::<S>(TINY_ROOT, g);
    let m = S::fma(S::splat(take[0]), S::sub(g, m), m);
    let v = S::fma(S::splat(take[1]), S::sub(S::mul(counted, counted), v), v);
    let direction = S::div(m, S::add(S::sqrt(S::mul(v, S::splat(scale))), S::splat(epsilon)));
    // A gradient that is not a number has reached `direction`, so masking the moments does not hide it.
    let p = S::fma(S::splat(rate), direction, S::fma(S::splat(shrink), p, p));
    [lanes::<S>(p), lanes::<S>(above::<S>(TINY, m)), lanes::<S>(above::<S>(TINY, v))]
}

#[inline(always)]
fn sgd<S: Simd>(step: &Step, scale: f32, parameters: &mut [f32], gradient: &[f32], moments: MomentsMut) {
    let &Step::Sgd { momentum, rate, decay } = step else { unreachable!("update chose it") };
    assert!(moments.first.len() == parameters.len() || momentum == 0.0);
    let len = parameters.len();
    for at in (0..len).step_by(16) {
        let piece = at..len.min(at + 16);
        let p = S::load(&Lanes(padded(&parameters[piece.clone()])));
        let g = S::load(&Lanes(padded(&gradient[piece.clone()])));
        let mut u = S::fma(S::splat(decay), p, S::mul(S::splat(scale), g));
        if momentum != 0.0 {
            let velocity = &mut moments.first[piece.clone()];
            u = S::fma(S::splat(momentum), S::load(&Lanes(padded(velocity))), u);
            velocity.copy_from_slice(&lanes::<S>(above::<S>(TINY, u))[..piece.len()]);
        }
        let p = lanes::<S>(S::fma(S::splat(rate), u, p));
        parameters[piece.clone()].copy_from_slice(&p[..piece.len()]);
    }
}

/// x where |x| > least, else 0 (also where x is not a number).
#[inline(always)]
fn above<S: Simd>(least: f32, x: S::F) -> S::F {
    let size = S::from_bits(S::and(S::bits(x), S::splat_u(0x7FFF_FFFF)));
    // Exact in sign, because the difference of two floats is never rounded to zero.
    S::where_positive(S::sub(size, S::splat(least)), x)
}

#[inline(always)]
fn padded(from: &[f32]) -> [f32; 16] {
    let mut to = [0.0; 16];
    to[..from.len()].copy_from_slice(from);
    to
}

#[inline(always)]
fn lanes<S: Simd>(x: S::F) -> [f32; 16] {
    let mut to = Lanes::default();
    S::store(x, &mut to);
    to.0
}

/// State of [`reference_step`]: first and second moment of each parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceMoments(Vec<[f64; 2]>);

impl ReferenceMoments {
    /// Zeros for `len` parameters.
    pub fn new(len: usize) -> ReferenceMoments {
        ReferenceMoments(vec![[0.0; 2]; len])
    }

    /// Forgets what a range of parameters went through.
    pub fn reset(&mut self, parameters: std::ops::Range<usize>) {
        self.0[parameters].fill([0.0; 2]);
    }
}

/// The equations at the head of this file as a plain loop in f64, without the rule for tiny moments: what the vector
/// code is held to. `step` counts from 0.
pub fn reference_step(
    optimizer: Optimizer,
    lr: f64,
    weight_decay: f64,
    step: usize,
    parameters: &mut [f64],
    gradient: &[f64],
    moments: &mut ReferenceMoments,
) {
    for ((p, &gradient), [m, v]) in parameters.iter_mut().zip(gradient).zip(&mut moments.0) {
        match optimizer {
            Optimizer::Sgd { momentum } => {
                *m = momentum * *m + gradient + weight_decay * *p;
                *p -= lr * *m;
            }
            Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                let coupled = matches!(optimizer, Optimizer::Adam { .. });
                let g = gradient + if coupled { weight_decay * *p } else { 0.0 };
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let t = step as i32 + 1;
                let (m_hat, v_hat) = (*m / (1.0 - beta1.powi(t)), *v / (1.0 - beta2.powi(t)));
                *p -= if coupled { 0.0 } else { lr * weight_decay * *p };
                *p -= lr * m_hat / (v_hat.sqrt() + epsilon);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::simd::{Isa, run};
    use crate::random::{Draws, Stream};

    const ADAM: Optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    const ADAMW: Optimizer = Optimizer::AdamW { beta1: 0.8, beta2: 0.99, epsilon: 1e-6 };
    const SGD: Optimizer = Optimizer::Sgd { momentum: 0.0 };
    const MOMENTUM: Optimizer = Optimizer::Sgd { momentum: 0.9 };

    /// `steps` steps along halved normal gradients at a falling rate, f32 kernels and f64 loops side by side.
    fn both(isa: Isa, optimizer: Optimizer, decay: f64, len: usize, steps: usize) -> (Vec<f32>, Vec<f64>) {
        let mut draws = Draws::new(7, Stream::ToyInit, len as u64);
        let mut normals = || (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let mut p = normals();
        let mut wide: Vec<f64> = p.iter().map(|&p| p as f64).collect();
        let (mut moments, mut wide_moments) = (Moments::new(optimizer, len), ReferenceMoments::new(len));
        for step in 0..steps {
            let gradient = normals();
            let lr = 1e-3 * (1.0 - step as f64 / steps as f64);
            let numbers = Step::new(optimizer, lr, decay, step);
            run(
                isa,
                Update { step: &numbers, scale: 0.5, parameters: &mut p, gradient: &gradient, moments: &mut moments },
            );
            let halves: Vec<f64> = gradient.iter().map(|&g| 0.5 * g as f64).collect();
            reference_step(optimizer, lr, decay, step, &mut wide, &halves, &mut wide_moments);
        }
        (p, wide)
    }

    /// A parameter of size at most 4 is rounded at most twice a step: 2 · 50 · 4 · 6e-8 = 2.4e-5 if all errors had one
    /// sign. The step itself, at most some 3 lr, is off by a few 1e-7 of its size: nothing beside that.
    #[test]
    fn fifty_steps_agree_with_plain_loops_on_every_instruction_set_and_length() {
        for isa in Isa::available() {
            for optimizer in [ADAM, ADAMW, SGD, MOMENTUM] {
                for len in [0, 1, 15, 16, 17, 100] {
                    let (found, expected) = both(isa, optimizer, 0.1, len, 50);
                    for (f, e) in found.iter().zip(&expected) {
                        assert!((*f as f64 - e).abs() < 2.4e-5, "{isa:?} {optimizer:?} {len}: {f} {e}");
                    }
                }
            }
        }
    }

    #[test]
    fn instruction_sets_give_the_same_bits() {
        for optimizer in [ADAM, ADAMW, SGD, MOMENTUM] {
            let results: Vec<_> =
                Isa::available().into_iter().map(|isa| both(isa, optimizer, 0.01, 37, 30).0).collect();
            assert!(results.iter().all(|r| *r == results[0]));
        }
    }

    #[test]
    fn a_parameter_gets_the_same_bits_wherever_it_stands() {
        let isa = Isa::available()[0];
        let step = Step::new(ADAM, 1e-2, 0.0, 4);
        let (mut p, gradient, mut moments) = (vec![0.7; 35], vec![0.3; 35], Moments::new(ADAM, 35));
        run(isa, Update { step: &step, scale: 1.0, parameters: &mut p, gradient: &gradient, moments: &mut moments });
        assert!(p.iter().all(|v| *v == p[0]) && p[0] != 0.7);
    }

    /// One step from 2 without a gradient, decay 0.5, lr 0.01, by hand.
    #[test]
    fn weight_decay_is_coupled_in_adam_and_apart_in_adamw() {
        let isa = Isa::available()[0];
        let after = |optimizer| {
            let step = Step::new(optimizer, 0.01, 0.5, 0);
            let (mut p, mut moments) = (vec![2.0], Moments::new(optimizer, 1));
            run(isa, Update { step: &step, scale: 1.0, parameters: &mut p, gradient: &[0.0], moments: &mut moments });
            p[0]
        };
        // Adam's first step is lr * sign(gradient): the decay's size does not matter. The others shrink by lr * 0.5.
        assert!((after(ADAM) - 1.99).abs() < 1e-6, "{}", after(ADAM));
        assert!((after(ADAMW) - 1.99).abs() < 1e-6, "{}", after(ADAMW));
        assert!((after(SGD) - 1.99).abs() < 1e-6, "{}", after(SGD));
        let small = Optimizer::Adam { beta1: 0.8, beta2: 0.99, epsilon: 1.0 };
        // With epsilon 1 the first step is lr * g / (|g| + 1), g = 0.5 * 2 = 1.
        assert!((after(small) - 1.995).abs() < 1e-6, "{}", after(small));
    }

    #[test]
    fn moments_of_dead_parameters_become_zero_and_never_denormal() {
        let isa = Isa::available()[0];
        for optimizer in [ADAM, MOMENTUM] {
            let (mut p, mut moments) = (vec![1.0; 20], Moments::new(optimizer, 20));
            let mut gradient = vec![1e-3; 20];
            gradient[3] = 1e-20;
            for step in 0..70_000 {
                let numbers = Step::new(optimizer, 1e-3, 0.0, step);
                run(
                    isa,
                    Update {
                        step: &numbers,
                        scale: 1.0,
                        parameters: &mut p,
                        gradient: &gradient,
                        moments: &mut moments,
                    },
                );
                gradient.fill(0.0);
                let stored = moments.first.iter().chain(&moments.second);
                assert!(stored.copied().all(|m| m == 0.0 || m.abs() > TINY));
            }
            assert!(moments.first.iter().chain(&moments.second).all(|m| *m == 0.0), "{moments:?}");
        }
    }

    #[test]
    fn a_gradient_that_is_not_a_number_reaches_the_parameter() {
        for isa in Isa::available() {
            for optimizer in [ADAM, ADAMW, SGD, MOMENTUM] {
                for bad in [f32::NAN, f32::INFINITY] {
                    let step = Step::new(optimizer, 1e-3, 0.0, 0);
                    let (mut p, mut moments) = (vec![1.0; 2], Moments::new(optimizer, 2));
                    let gradient = [bad, 1.0];
                    let parameters = &mut p;
                    run(
                        isa,
                        Update { step: &step, scale: 1.0, parameters, gradient: &gradient, moments: &mut moments },
                    );
                    assert!(!p[0].is_finite() && p[1].is_finite(), "{isa:?} {optimizer:?} {bad} {p:?}");
                }
            }
        }
    }

    /// 0.999^t in f64 by squaring is off by at most about 2 log2(t) roundings: 30 · 1.1e-16 for t below 2^15.
    #[test]
    fn powers_are_right_to_a_few_roundings() {
        for t in [1usize, 2, 3, 10, 1000, 30_000] {
            let expected = libm::pow(0.999, t as f64);
            assert!((powers([0.9, 0.999], t)[1] / expected - 1.0).abs() < 1e-12, "{t}");
        }
        assert_eq!(powers([0.9, 0.5], 0), [1.0; 2]);
        assert_eq!(powers([0.5, 0.0], 3), [0.125, 0.0]);
    }
}
