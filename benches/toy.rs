//! How long a step of a toy model takes, part by part, beside the plain loops.
//!
//!     cargo bench --bench toy
//!
//! A step is data + gradient + optimiser, at batch 1024, on one thread. Each time is the least of many short runs. The
//! share is that of the fused multiply-add peak, measured in the same program, which the gradient's 10 n m operations a
//! sample reach. `train` is a whole training over its steps: what the parts cost when they are put together;
//! `score` is the loss in f64 on such a batch.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tegum::backend::Watch;
use tegum::backend::cpu::toy::train_on;
use tegum::backend::ops::optimizer::{Moments, Step, Update};
use tegum::backend::ops::toy_loss::toy_losses;
use tegum::backend::ops::toy_step::reference::ReferenceStep;
use tegum::backend::ops::toy_step::{Form, Forms, Inputs, Scratch, ToyStep, gradient};
use tegum::backend::simd::{Isa, Kernel, Simd, run};
use tegum::data::{Batch, Magnitude, MagnitudeSharing, Sampler, World};
use tegum::random::Stream;
use tegum::toy::{LossScale, ToyInit, ToyJob, ToyKind, ToyTrain};
use tegum::training::{Optimizer, Schedule};

const BATCH: usize = 1024;
const SHAPES: [(usize, usize); 5] = [(2, 1), (5, 2), (20, 5), (80, 20), (400, 30)];

fn main() {
    println!("microseconds a model-step, batch {BATCH}, one thread");
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
        let peak = fma_peak(isa);
        println!("\n{isa:?}, peak {peak:.0} GFLOP/s");
        println!("  n   m     p     data  gradient GFLOP/s share   Adam   step   train    score  plain f64");
        for (n, m) in SHAPES {
            for p in [1.0, 0.05] {
                row(isa, peak, &job(n, m, p));
            }
        }
    }
}

fn job(n_features: usize, d_hidden: usize, p: f64) -> ToyJob {
    let world = World {
        n_features,
        firing_probability: vec![p; n_features],
        magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
        magnitude_sharing: MagnitudeSharing::Independent,
        groups: vec![],
    };
    ToyJob {
        world: Arc::new(world),
        seed: 3,
        kind: ToyKind::ReluOutput,
        d_hidden,
        importance: (0..n_features).map(|i| 0.9f32.powi(i as i32)).collect(),
        init: ToyInit::Xavier,
        restarts: 1,
        train: ToyTrain {
            steps: 4_000_000 / (n_features * d_hidden * 100 + 1000),
            batch_size: BATCH,
            optimizer: Optimizer::default(),
            lr: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            loss_scale: LossScale::Mean,
        },
        trace_every: 0,
        snapshots: false,
    }
}

fn row(isa: Isa, peak: f64, job: &ToyJob) {
    let shape = job.shape();
    let (n, m) = (shape.n_features, shape.d_hidden);
    let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Train);
    let form = Form::of(shape, &job.world);
    let (forms, mut inputs) = ([form].into_iter().collect::<Forms>(), Inputs::default());
    let mut step = 0;
    let data = time(40, || {
        inputs.draw(&sampler, step, BATCH, forms);
        step += 1;
    });
    // Weights as they are after some training: what fires and what is open is then as in most steps.
    let trained = train_one(isa, job);
    let mut batch = Batch::default();
    sampler.draw(0, BATCH, &mut batch);
    let score = time(40, || {
        black_box(toy_losses(isa, &trained, &job.importance, [&batch]));
    });
    let mut parameters = [trained.w, trained.b].concat();
    let (slopes, mut scratch, mut to) = (job.slopes(), Scratch::new(shape), vec![0.0; shape.n_parameters()]);
    let slopes = &slopes;
    let work = |parameters| ToyStep { shape, parameters, slopes, inputs: &inputs, form, with_loss: false };
    let grad = time(40, || {
        black_box(gradient(isa, work(&parameters), &mut scratch, &mut to));
    });
    let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
    let (wide_parameters, wide_slopes) = (wide(&parameters), wide(slopes));
    let plain = time(3, || {
        let step = ReferenceStep { shape, parameters: &wide_parameters, slopes: &wide_slopes, batch: &batch };
        black_box(step.gradient());
    });
    // Whole vectors, as in training.
    parameters.resize(parameters.len().next_multiple_of(16), 0.0);
    to.resize(parameters.len(), 0.0);
    let mut moments = Moments::new(job.train.optimizer, parameters.len());
    let mut steps = 0;
    let adam = time(40, || {
        let step = &Step::new(job.train.optimizer, 1e-9, 0.0, steps);
        let (parameters, moments) = (&mut parameters, &mut moments);
        run(isa, Update { step, scale: 1.0, parameters, gradient: &to, moments });
        steps += 1;
    });
    let whole = time(3, || {
        train_one(isa, job);
    }) / job.train.steps as f64;
    let flops = (10 * n * m * BATCH) as f64 / grad / 1e3;
    let (share, sum) = (100.0 * flops / peak, data + grad + adam);
    println!(
        "{n:>3} {m:>3} {:>5} {data:>8.3} {grad:>9.3} {flops:>8.0} {share:>4.0}% {adam:>6.3} {sum:>8.3} {whole:>8.3} {score:>8.2} {plain:>8.0}",
        job.world.firing_probability[0]
    );
}

struct Silent;

impl Watch for Silent {
    fn advance(&self, _: u64) {}
}

fn train_one(isa: Isa, job: &ToyJob) -> tegum::toy::ToyModel {
    let outcomes = train_on(isa, std::slice::from_ref(job), &Silent);
    outcomes.into_iter().flatten().next().expect("nobody says stop").model
}

/// Least of `runs` runs of at least a millisecond, in microseconds a call.
fn time(runs: usize, mut f: impl FnMut()) -> f64 {
    let mut calls = 1;
    let mut run = |calls: u64| {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_secs_f64() / calls as f64 * 1e6
    };
    while run(calls) * (calls as f64) < 1e3 {
        calls *= 2;
    }
    (0..runs).map(|_| run(calls)).fold(f64::MAX, f64::min)
}

/// GFLOP/s of independent fused multiply-adds in registers.
fn fma_peak(isa: Isa) -> f64 {
    let us = time(40, || {
        black_box(run(isa, Peak));
    });
    2.0 * 16.0 * 12.0 * 10_000.0 / us / 1e3
}

/// 120 000 fused multiply-adds of sixteen lanes, in as many chains as the register file holds and latency needs.
struct Peak;

impl Kernel for Peak {
    type Out = f32;

    #[inline(always)]
    fn run<S: Simd>(self) -> f32 {
        let (a, b) = (S::splat(black_box(0.999)), S::splat(black_box(1e-3)));
        let (mut sum, mut half) = ([b; 12], [b; 6]);
        for _ in 0..10_000 {
            if S::ACCUMULATORS == 24 {
                for s in &mut sum {
                    *s = S::fma(*s, a, b);
                }
            } else {
                for s in &mut half {
                    *s = S::fma(*s, a, b);
                }
                for s in &mut half {
                    *s = S::fma(*s, a, b);
                }
            }
        }
        S::fold(sum.into_iter().chain(half).fold(b, |x, y| S::add(x, y)))
    }
}
