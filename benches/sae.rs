//! Time of one training step of an autoencoder and of its phases, beside plain f64 loops and the processor's peak.
//!
//!     cargo bench --bench sae [-- SECONDS_A_ROW] [--threads N]
//!
//! The step is everything but the data: gradients, projection, clip, optimiser, norms; small shapes run on one thread, large
//! ones are shared by all. Each number is the least of many repeats in microseconds, on eight batches in turn, phases each
//! by itself. FLOP are those of the work asked for: the encoder's product and, for what is kept, decoder, the way back and
//! both gradients (2 FLOP a product each); the first rate is the product's over the first phase, the share is of the rate
//! of fused multiply-adds in f32 that one thread times N reaches in the same process. (A product screened in bf16 may pass
//! it.)

use std::hint::black_box;
use std::time::Instant;

use tegum::backend::cpu::sae::step::{Scratch, Times, Trainee};
use tegum::backend::ops::layout::{PANEL, PackedBatch};
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
        row("topk 25", 768, 4096, 2048, 1024, topk(25)),
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
            let mut packed = PackedBatch::default().with_screen();
            packed.fill(h, row.d, 1.0);
            packed
        })
        .collect();
    let mut pack = PackedBatch::default();
    let packing = least(seconds / 4.0, |i| pack.fill(&hidden[i % BATCHES], row.d, 1.0));
    let mut scratch = Scratch::default();
    let (mut l0, mut phases) = (0.0, [f64::INFINITY; 6]);
    let time = least(seconds, |i| {
        l0 = trainee.gradients(&packed[i % BATCHES], &mut scratch).l0;
        let norm = trainee.finish(&mut scratch);
        assert!(trainee.update(i, norm, &mut scratch));
        let Times { encode, back, sort, gradients, finish, update } = scratch.times;
        for (least, time) in phases.iter_mut().zip([encode, back, sort, gradients, finish, update]) {
            *least = least.min(time);
        }
    });
    // Plain loops of one panel stand for those of the batch.
    let reference = ReferenceSae::new(&weights, program);
    let wide: Vec<f64> = hidden[0][..PANEL * row.d].iter().map(|&h| h as f64).collect();
    let dead = vec![false; row.n_latents];
    let plain = least(0.0, |_| drop(black_box(reference.objective(&wide, &dead, None))));
    let plain = plain * (row.batch_size / PANEL) as f64;
    let product = 2.0 * (row.batch_size * row.d * row.n_latents) as f64;
    let flop = product + 8.0 * (row.batch_size * row.d) as f64 * l0;
    let name = format!("{}, d {}, {} latents, batch {}", row.name, row.d, row.n_latents, row.batch_size);
    let [encode, back, sort, gradients, finish, update] = phases.map(|seconds| seconds * 1e6);
    println!(
        "{name:36} {:9.1} {encode:9.1} {back:8.1} {sort:7.1} {gradients:8.1} {finish:7.1} {update:7.1} {:7.1} | l0 {l0:5.2} | {:4.0} {:4.0} GFLOP/s, {:3.0} % | {:9.0}",
        time * 1e6,
        packing * 1e6,
        product / phases[0] / 1e9,
        flop / time / 1e9,
        100.0 * flop / time / peak,
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
    let arguments: Vec<String> = std::env::args().collect();
    let after =
        |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1)?.parse().ok());
    let seconds = arguments.get(1).and_then(|a| a.parse().ok()).unwrap_or(0.5);
    let threads: usize = after("--threads").unwrap_or(1);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool of this process");
    let isa = Isa::best();
    let turns = 100_000;
    let peak_time = least(0.3, |_| {
        black_box(simd::run(isa, Peak(turns)));
    });
    let peak = 2.0 * 16.0 * 12.0 * turns as f64 / peak_time;
    println!("{isa:?}, {:.0} GFLOP/s of fused multiply-adds a thread, {threads} threads; times in µs", peak / 1e9);
    println!(
        "{:36} {:>9} {:>9} {:>8} {:>7} {:>8} {:>7} {:>7} {:>7} | {:8} | product, step, of peak | plain loops",
        "", "step", "encode", "back", "sort", "gradient", "finish", "update", "pack", ""
    );
    for row in rows() {
        bench(&row, seconds, peak * threads as f64);
    }
}
