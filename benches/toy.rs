//! How long a step of a toy model takes, part by part, beside the plain loops and beside what it cannot be faster than.
//!
//!     cargo bench --bench toy [steps|forms|denormals]
//!
//! A step is data + gradient + optimiser, at batch 1024, on one thread. Each time is the least of many short runs.
//! Floors are measured in the same program: that of the data is its Philox words alone, that of the gradient its
//! multiply-adds at the peak of the processor (those that the form needs, see [`multiply_adds`]). `train` is a whole training
//! over its steps: what the parts cost when they are put together; `plain` the gradient by f64 loops.
//!
//! `forms` has every form beside the one that [`Form::of`] names, data included, around the densities where they cross.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tegum::backend::Watch;
use tegum::backend::cpu::toy::train_on;
use tegum::backend::ops::draw::{Address, words4};
use tegum::backend::ops::optimizer::{Moments, Step, Update};
use tegum::backend::ops::toy_step::reference::ReferenceStep;
use tegum::backend::ops::toy_step::{Form, Forms, Inputs, Scratch, ToyStep, gradient};
use tegum::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use tegum::data::law::SKIP_AT_MOST;
use tegum::data::{Magnitude, MagnitudeSharing, Sampler, World};
use tegum::random::{Key, Stream};
use tegum::toy::{LossScale, ToyInit, ToyJob, ToyKind, ToyTrain};
use tegum::training::{Optimizer, Schedule};

const BATCH: usize = 1024;
const SHAPES: [(usize, usize); 5] = [(2, 1), (5, 2), (20, 5), (80, 20), (400, 30)];

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|arg| arg == part);
    println!("microseconds a model-step, batch {BATCH}, one thread");
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Portable) {
        let floors = Floors { peak: fma_peak(isa), word: philox_word(isa) };
        println!("\n{isa:?}: peak {:.0} GFLOP/s, {:.3} ns a Philox word", floors.peak, 1e3 * floors.word);
        if wanted("steps") {
            println!("  n   m     p form       data  floor  gradient   floor    Adam      step     train     plain");
            for (n, m) in SHAPES {
                for p in [1.0, 0.05] {
                    row(isa, floors, &job(n, m, p, 0.9));
                }
            }
        }
        if wanted("forms") {
            forms(isa);
        }
        if wanted("denormals") {
            denormals(isa);
        }
    }
}

/// What cannot be undercut.
#[derive(Clone, Copy)]
struct Floors {
    /// GFLOP/s of multiply-adds.
    peak: f64,
    /// Microseconds a word.
    word: f64,
}

fn job(n_features: usize, d_hidden: usize, p: f64, importance: f32) -> ToyJob {
    let world = World {
        n_features,
        firing_probability: vec![p; n_features],
        magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
        magnitude_sharing: MagnitudeSharing::Independent,
        groups: vec![],
        dataset: None,
        correlation: None,
        hierarchy: None,
    };
    ToyJob {
        world: Arc::new(world),
        seed: 3,
        kind: ToyKind::ReluOutput,
        d_hidden,
        importance: (0..n_features).map(|i| importance.powi(i as i32)).collect(),
        init: ToyInit::Xavier,
        restarts: 1,
        train: ToyTrain {
            steps: 4_000_000 / (n_features * d_hidden * 20 + 1000),
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

/// Microseconds of a step's parts.
struct Parts {
    data: f64,
    gradient: f64,
    adam: f64,
}

/// Weights as they are after some training (what is open is then as in most steps), and times with them.
fn parts(isa: Isa, job: &ToyJob, form: Form, trained: &[f32], inputs: &mut Inputs) -> Parts {
    let shape = job.shape();
    let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Train).on(isa);
    let forms = [form].into_iter().collect::<Forms>();
    let mut step = 0;
    let data = time(40, || {
        inputs.draw(&sampler, step, BATCH, forms);
        step += 1;
    });
    let mut parameters = trained.to_vec();
    let (slopes, mut scratch, mut to) = (job.slopes(), Scratch::new(shape), vec![0.0; shape.n_parameters()]);
    let gradient = time(40, || {
        let parameters = &parameters;
        let work = ToyStep { shape, parameters, slopes: &slopes, inputs, form, with_loss: false };
        black_box(gradient(isa, work, &mut scratch, &mut to));
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
    Parts { data, gradient, adam }
}

fn row(isa: Isa, floors: Floors, job: &ToyJob) {
    let shape = job.shape();
    let (n, m, p) = (shape.n_features, shape.d_hidden, job.world.firing_probability[0]);
    let form = Form::of(shape, &job.world);
    let trained = train_one(isa, job);
    let mut inputs = Inputs::default();
    let Parts { data, gradient, adam } = parts(isa, job, form, &trained, &mut inputs);
    let words = if p > SKIP_AT_MOST { (n * BATCH) as f64 } else { 2.0 * p * (n * BATCH) as f64 };
    let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Train).on(isa);
    inputs.draw(&sampler, 0, BATCH, Forms::ALL);
    let least = 2e-3 * multiply_adds(form, shape.n_features, shape.d_hidden, &inputs, &trained) / floors.peak;
    let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
    let (parameters, slopes) = (wide(&trained), wide(&job.slopes()));
    let plain = time(3, || {
        let step = ReferenceStep { shape, parameters: &parameters, slopes: &slopes, batch: &inputs.dense };
        black_box(step.gradient());
    });
    let whole = time(3, || {
        train_one(isa, job);
    }) / job.train.steps as f64;
    let (name, step) = (format!("{form:?}"), data + gradient + adam);
    println!(
        "{n:>3} {m:>3} {p:>5} {name:<7} {data:>7.3} {:>6.3} {gradient:>9.3} {least:>7.3} {adam:>7.3} {step:>9.3} {whole:>9.3} {plain:>9.0}",
        words * floors.word
    );
}

/// Multiply-adds that a form needs for the gradient: 5 n m a sample of tiles; 3 n an event, and 2 n² m, with a Gram matrix; n m
/// a sample, 2 m an event and 2 m an open output with lists of what is open.
fn multiply_adds(form: Form, n: usize, m: usize, inputs: &Inputs, parameters: &[f32]) -> f64 {
    let (fires, events) = (inputs.packed.samples, inputs.events.len());
    let count = match form {
        Form::Dense => 5 * n * m * inputs.samples,
        Form::Packed => 5 * n * m * fires,
        Form::Events if n <= 112 => 3 * n * events + 2 * n * n * m,
        Form::Events => n * m * fires + 2 * m * events + 2 * m * open(n, m, inputs, parameters),
    };
    count as f64
}

/// Outputs with z > 0 in samples in which something fires.
fn open(n: usize, m: usize, inputs: &Inputs, parameters: &[f32]) -> usize {
    let (w, b) = parameters.split_at(n * m);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let sample = |s: usize| {
        let mut h = vec![0.0; m];
        for i in 0..n {
            h.iter_mut().zip(&w[i * m..]).for_each(|(h, w)| *h += w * inputs.packed.value(s, i));
        }
        (0..n).filter(|&j| dot(&w[j * m..][..m], &h) + b[j] > 0.0).count()
    };
    (0..inputs.packed.samples).map(sample).sum()
}

fn forms(isa: Isa) {
    println!("\ndata + gradient by form; * is what the rule names");
    println!("  n   m     p         Dense              Packed             Events");
    let shapes = [(2, 1), (3, 1), (5, 2), (7, 3), (8, 2), (10, 5), (20, 5), (20, 10), (40, 5), (80, 20), (112, 10)];
    for (n, m) in shapes.into_iter().chain([(113, 5), (400, 30), (400, 60)]) {
        for p in [0.02, 0.05, 0.1, 0.12, 0.15, 0.2, 0.3] {
            let job = job(n, m, p, 1.0);
            let (rule, trained) = (Form::of(job.shape(), &job.world), train_one(isa, &job));
            print!("{n:>3} {m:>3} {p:>5}");
            for form in [Form::Dense, Form::Packed, Form::Events] {
                if form == Form::Packed && n > 10 {
                    print!("{:>19}", "");
                    continue;
                }
                let Parts { data, gradient, .. } = parts(isa, &job, form, &trained, &mut Inputs::default());
                let mark = if form == rule { '*' } else { ' ' };
                print!(" {data:>8.2}+{gradient:>8.2}{mark}");
            }
            println!();
        }
    }
}

/// Importance that falls through all of f32 must not cost more than importance 1.
fn denormals(isa: Isa) {
    println!("\nn 80, m 20, importance 1 and 0.1^i: gradient, Adam, a training's step");
    for p in [1.0, 0.05] {
        for importance in [1.0, 0.1] {
            let job = job(80, 20, p, importance);
            let (form, trained) = (Form::of(job.shape(), &job.world), train_one(isa, &job));
            let Parts { gradient, adam, .. } = parts(isa, &job, form, &trained, &mut Inputs::default());
            // Long enough for the moments of what gets no gradient to fade out.
            let long = ToyJob { train: ToyTrain { steps: 3000, batch_size: 64, ..job.train.clone() }, ..job.clone() };
            let train = time(1, || {
                train_one(isa, &long);
            }) / 3000.0;
            println!("p {p:>4}, {importance:>3}^i {gradient:>9.3} {adam:>7.3} {train:>9.3} (batch 64)");
        }
    }
}

struct Silent;

impl Watch for Silent {
    fn advance(&self, _: u64) {}
}

/// Parameters after the training of one job.
fn train_one(isa: Isa, job: &ToyJob) -> Vec<f32> {
    let outcomes = train_on(isa, std::slice::from_ref(job), &Silent);
    outcomes.into_iter().flatten().next().expect("nobody says stop").model.parameters()
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

/// Microseconds a word of Philox, which is what data cannot be faster than.
fn philox_word(isa: Isa) -> f64 {
    let mut to = vec![Lanes::default(); 256];
    time(40, || {
        run(isa, Words { to: black_box(&mut to) });
    }) / 4096.0
}

/// As many words as there are lanes.
struct Words<'a> {
    to: &'a mut [Lanes],
}

impl Kernel for Words<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let at = Address { key: Key::new(1, Stream::Train), high: 2, step: 3, block: 4 };
        for (call, to) in self.to.chunks_exact_mut(4).enumerate() {
            let words = words4::<S>(at, 16 * call as u32);
            for v in 0..4 {
                S::store(S::from_bits(words[v]), &mut to[v]);
            }
        }
    }
}
