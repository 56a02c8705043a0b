//! Time of one training step of an autoencoder, on one core, beside plain f64 loops and the processor's peak.
//!
//!     cargo bench --bench sae [-- SECONDS_A_ROW]
//!
//! The step is everything but the data: gradients, projection, clip, Adam, norms. Each row is the least of many repeats,
//! on eight batches in turn. FLOP are those of the work asked for: the encoder's product and, for what is kept, decoder,
//! the way back and both gradients (2 FLOP a product each); the share is of the FMA rate measured in the same process.

use std::hint::black_box;
use std::time::Instant;

use tegum::backend::cpu::sae::step::{Scratch, Trainee};
use tegum::backend::ops::layout::PackedBatch;
use tegum::backend::reference::sae::ReferenceSae;
use tegum::backend::simd::{self, Isa, Kernel, Simd};
use tegum::random::{Draws, Stream};
use tegum::sae::{Architecture, DecoderRule, Normalise, SaeTrain, Weights};
use tegum::training::{Optimizer, Schedule};

const BATCHES: usize = 8;

struct Row {
    name: &'static str,
    d: usize,
    n_latents: usize,
    n_features: usize,
    batch_size: usize,
    architecture: Architecture,
}

fn rows() -> Vec<Row> {
    let topk = |k| Architecture::TopK { k, aux_k: 0 };
    let relu = Architecture::Relu { l1: 0.05, decoder: DecoderRule::UnitNorm };
    let row = |name, d, n_latents, n_features, batch_size, architecture| Row {
        name,
        d,
        n_latents,
        n_features,
        batch_size,
        architecture,
    };
    vec![
        row("topk 2", 20, 64, 40, 1024, topk(2)),
        row("topk 2", 20, 40, 40, 512, topk(2)),
        row("relu", 20, 40, 40, 1024, relu.clone()),
        row("relu", 5, 40, 40, 512, relu.clone()),
        row("relu", 10, 40, 40, 512, relu.clone()),
        row("relu", 20, 40, 40, 512, relu.clone()),
        row("relu", 30, 40, 40, 512, relu),
        row("topk 8", 20, 64, 40, 1024, topk(8)),
        row("topk 5", 256, 1024, 512, 1024, topk(5)),
    ]
}

/// Sums of sparse features over random directions: `[samples, d]`.
fn hidden(row: &Row, batch: usize) -> Vec<f32> {
    let mut draws = Draws::new(1, Stream::Dictionary, 0);
    let dictionary: Vec<f32> =
        (0..row.n_features * row.d).map(|_| draws.normal() as f32 / (row.d as f32).sqrt()).collect();
    let mut draws = Draws::new(1, Stream::Train, batch as u64);
    let mut h = vec![0.0; row.batch_size * row.d];
    for h in h.chunks_exact_mut(row.d) {
        for direction in dictionary.chunks_exact(row.d) {
            if draws.uniform() < 2.0 / row.n_features as f64 {
                let x = draws.uniform() as f32;
                h.iter_mut().zip(direction).for_each(|(h, w)| *h += x * w);
            }
        }
    }
    h
}

/// Least time of `step`, in seconds, over `seconds` of runs.
fn least(seconds: f64, mut step: impl FnMut(usize)) -> f64 {
    let (start, mut best, mut i) = (Instant::now(), f64::INFINITY, 0);
    while i < 3 || start.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        step(i);
        best = best.min(begun.elapsed().as_secs_f64());
        i += 1;
    }
    best
}

fn bench(row: &Row, seconds: f64, peak: f64) {
    let program = row.architecture.program();
    let train = SaeTrain {
        steps: usize::MAX,
        batch_size: row.batch_size,
        optimizer: Optimizer::default(),
        lr: 1e-3,
        schedule: Schedule::Constant,
        warmup: 0.0,
        decay: 0.0,
        clip: Some(1.0),
        weight_decay: 0.0,
        normalise: Normalise::None,
        dead_after: 1000,
    };
    let weights = Weights::init(1, row.n_latents, row.d, &program);
    let mut trainee = Trainee::new(Isa::best(), &weights, program.clone(), train.clone());
    let hidden: Vec<Vec<f32>> = (0..BATCHES).map(|batch| hidden(row, batch)).collect();
    let packed: Vec<PackedBatch> = hidden
        .iter()
        .map(|h| {
            let mut packed = PackedBatch::default();
            packed.fill(h, row.d, 1.0);
            packed
        })
        .collect();
    let mut pack = PackedBatch::default();
    let packing = least(seconds / 4.0, |i| pack.fill(&hidden[i % BATCHES], row.d, 1.0));
    let mut scratch = Scratch::default();
    let (mut l0, mut parts) = (0.0, [f64::INFINITY; 2]);
    let time = least(seconds, |i| {
        let begun = Instant::now();
        l0 = trainee.gradients(&packed[i % BATCHES], &mut scratch).l0;
        parts[0] = parts[0].min(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let norm = trainee.finish(&mut scratch);
        assert!(trainee.update(i, norm, &scratch));
        parts[1] = parts[1].min(begun.elapsed().as_secs_f64());
    });
    let reference = ReferenceSae::new(&weights, program);
    let wide: Vec<f64> = hidden[0].iter().map(|&h| h as f64).collect();
    let dead = vec![false; row.n_latents];
    let plain = least(0.0, |_| drop(black_box(reference.objective(&wide, &dead, None))));
    let flop = 2.0 * (row.batch_size * row.d) as f64 * (row.n_latents as f64 + 4.0 * l0);
    println!(
        "{:7} d {:3} latents {:4} batch {:4} l0 {:5.2} | step {:7.1} µs: gradients {:7.1}, rest {:5.1}; {:3.0} GFLOP/s, {:2.0} % of peak | pack {:5.1} | plain gradients {:8.0}",
        row.name,
        row.d,
        row.n_latents,
        row.batch_size,
        l0,
        time * 1e6,
        parts[0] * 1e6,
        parts[1] * 1e6,
        flop / time / 1e9,
        100.0 * flop / time / peak,
        packing * 1e6,
        plain * 1e6
    );
}

/// Independent chains of fused multiply-adds in registers.
struct Peak(usize);

impl Kernel for Peak {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self) -> f32 {
        let mut sum = [S::splat(0.0); 12];
        let (a, b) = (S::splat(black_box(0.5)), S::splat(black_box(0.25)));
        for _ in 0..self.0 {
            for sum in &mut sum {
                *sum = S::fma(*sum, a, b);
            }
        }
        let mut total = 0.0;
        for sum in sum {
            total += S::fold(sum);
        }
        total
    }
}

fn main() {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(0.5);
    let isa = Isa::best();
    let turns = 100_000;
    let peak_time = least(0.3, |_| {
        black_box(simd::run(isa, Peak(turns)));
    });
    let peak = 2.0 * 16.0 * 12.0 * turns as f64 / peak_time;
    println!("{isa:?}, {:.0} GFLOP/s of fused multiply-adds", peak / 1e9);
    for row in rows() {
        bench(&row, seconds, peak);
    }
}
