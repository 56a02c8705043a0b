//! Time of drawing x and h on one core: every law, every instruction set, beside the plain reference.
//!
//!     cargo bench --bench data              all
//!     cargo bench --bench data -- linked    worlds with correlations and hierarchies alone
//!
//! Prints ns per 1000 coins (features times samples), the least of many short runs: other work on the machine only adds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tegum::backend::ops::draw::reference;
use tegum::backend::simd::Isa;
use tegum::data::{
    Batch, Correlation, Curve, Dictionary, Events, Hierarchy, Magnitude, MagnitudeSharing, Rates, Sampler, Trees, World,
};
use tegum::hidden::{HiddenBatch, HiddenMaker, HiddenSource};
use tegum::random::{Key, Stream};

const BATCH: usize = 1024;

fn world(firing_probability: Vec<f64>, magnitude: Magnitude) -> Arc<World> {
    Arc::new(World {
        n_features: firing_probability.len(),
        firing_probability,
        magnitude,
        magnitude_sharing: MagnitudeSharing::Independent,
        groups: vec![],
        dataset: None,
        correlation: None,
        hierarchy: None,
    })
}

/// Least seconds of one call over `runs` runs, each of enough calls to last `1e-3` s or so.
fn least(runs: usize, mut call: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    call(0);
    let calls = (1e-3 / start.elapsed().as_secs_f64().max(1e-9)).clamp(1.0, 1e5) as u32;
    let run = |_| {
        let start = Instant::now();
        (0..calls).for_each(&mut call);
        start.elapsed().as_secs_f64() / calls as f64
    };
    (0..runs).map(run).fold(f64::INFINITY, f64::min)
}

fn row(name: &str, world: &Arc<World>, samples: usize) {
    let coins = (world.n_features * samples) as f64;
    print!("{name:<34}");
    for isa in Isa::available() {
        let sampler = Sampler::new(world.clone(), 1, Stream::Train).on(isa);
        let (mut batch, mut events) = (Batch::default(), Events::default());
        let runs = if isa == Isa::Portable { 3 } else { 40 };
        let dense = least(runs, |step| sampler.draw(step, samples, black_box(&mut batch)));
        let sparse = least(runs, |step| sampler.draw_events(step, samples, black_box(&mut events)));
        print!(" {:>8.1} {:>8.1}", dense * 1e12 / coins, sparse * 1e12 / coins);
    }
    let key = Key::new(1, Stream::Train);
    let plain = least(3, |step| drop(black_box(reference::draw(world, key, step, 0, samples))));
    println!(" {:>9.0}", plain * 1e12 / coins);
}

fn hidden(n: usize, d: usize, p: f64) {
    let unit = Magnitude::Uniform { low: 0.0, high: 1.0 };
    let dictionary = Arc::new(Dictionary::random(n, d, 1));
    let source = HiddenSource { world: world(vec![p; n], unit), seed: 1, maker: HiddenMaker::Dictionary(dictionary) };
    print!("{:<34}", format!("h: n {n}, d {d}, p {p}"));
    for isa in Isa::available() {
        let stream = source.open(Stream::Train).on(isa);
        let mut out = HiddenBatch::default();
        let runs = if isa == Isa::Portable { 3 } else { 40 };
        print!(" {:>17.1}", least(runs, |step| stream.draw_hidden(step, BATCH, black_box(&mut out))) * 1e6);
    }
    println!();
}

/// SynthSAEBench's law over `n` features: zipf rates, normal magnitudes, low-rank copula, exclusive trees.
fn linked(n: usize, roots: usize, depth: usize) -> Arc<World> {
    let p = Curve::Zipf { exponent: 0.5, max: 0.4, min: 5e-4 }.values(n, 0);
    let mean = Curve::Linear { max: 5.0, min: 4.0 }.values(n, 0);
    let std = Curve::FoldedNormal { mean: 0.5, std: 0.5 }.values(n, 1);
    let (exclusive, exclusive_levels, scale_children) = (1.0, [0, usize::MAX], true);
    let trees = Trees { roots, branching: [4, 4], depth, exclusive, exclusive_levels, scale_children };
    let world = (*world(p, Magnitude::Normal { mean, std })).clone();
    let correlation = Correlation::low_rank(n, 25, 0.1, 46).expect("settings in range").correlation;
    let hierarchy = Hierarchy::generated(n, &trees, 0);
    Arc::new(
        World { correlation: Some(correlation), hierarchy: Some(hierarchy), ..world }.with_rates(Rates::FirstOrder),
    )
}

/// Least microseconds of a batch: x alone, x and h; the share of the floor that each takes, and one plain sample.
fn draw_linked(name: &str, world: &Arc<World>, d: usize) {
    let n = world.n_features;
    let source = HiddenSource {
        world: world.clone(),
        seed: 1,
        maker: HiddenMaker::Dictionary(Arc::new(Dictionary::random(n, d, 1).with_bias(0.5, 1))),
    };
    println!("{name}");
    for isa in Isa::available() {
        let (sampler, stream) =
            (Sampler::new(world.clone(), 1, Stream::Train).on(isa), source.open(Stream::Train).on(isa));
        let (mut events, mut out) = (Events::default(), HiddenBatch::default());
        let runs = if isa == Isa::Portable { 3 } else { 60 };
        let x = least(runs, |step| sampler.draw_events(step, BATCH, black_box(&mut events)));
        let both = least(runs, |step| stream.draw_hidden(step, BATCH, black_box(&mut out)));
        let floor = floors(n, d, out.events.len(), world);
        print!("  {:<10} x {:>8.1} us ({:>3.0} % of", format!("{isa:?}"), x * 1e6, 100.0 * floor.product / x);
        print!(" it the product with the factor at this core's peak)");
        print!("   x and h {:>8.1} us (h {:>8.1},", both * 1e6, (both - x) * 1e6);
        println!(
            " {:>3.0} % of it reading directions as fast as this core streams)",
            100.0 * floor.reading / (both - x)
        );
    }
    let key = Key::new(1, Stream::Train);
    let plain = least(3, |step| drop(black_box(reference::draw(world, key, step, 0, 16))));
    println!("  by the definition, every feature drawn: {:.0} us a batch", plain * 1e6 * BATCH as f64 / 16.0);
}

/// Least seconds that the hardware leaves: products with the factor at the measured rate of multiply-adds, directions at the measured
/// rate of reading memory.
struct Floors {
    product: f64,
    reading: f64,
}

fn floors(n: usize, d: usize, events: usize, world: &World) -> Floors {
    let free = n - world.parents().len();
    let rank = match &world.correlation {
        Some(Correlation::LowRank { rank, .. }) => *rank,
        _ => 0,
    };
    Floors {
        product: (free * rank * BATCH) as f64 / multiply_adds(),
        reading: (events * d * 4) as f64 / streaming(n * d),
    }
}

/// Multiply-adds of f32 a second: independent chains in registers.
fn multiply_adds() -> f64 {
    struct Chains;
    impl tegum::backend::simd::Kernel for Chains {
        type Out = f32;
        #[inline(always)]
        fn run<S: tegum::backend::simd::Simd>(self) -> f32 {
            let mut sums = [S::splat(1.0); 12];
            let (a, b) = (S::splat(black_box(0.999_999)), S::splat(black_box(1e-6)));
            for _ in 0..10_000 {
                for sum in &mut sums {
                    *sum = S::fma(*sum, a, b);
                }
            }
            sums.into_iter().map(S::fold).sum()
        }
    }
    let seconds = least(20, |_| {
        black_box(tegum::backend::simd::run(Isa::best(), Chains));
    });
    12.0 * 10_000.0 * 16.0 / seconds
}

/// Bytes a second when `numbers` f32 are read in order.
fn streaming(numbers: usize) -> f64 {
    let all = vec![1u64; numbers / 2];
    let seconds = least(10, |_| {
        black_box(all.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
    });
    (all.len() * 8) as f64 / seconds
}

/// One line for scripts: least microseconds of a batch of the hierarchy of 1024 features, x and h, on all threads: each draws
/// batches of its own.
fn tree_batch() {
    let (world, d) = (linked(1024, 32, 2), 96);
    let dictionary = Dictionary::random(world.n_features, d, 1);
    let source = HiddenSource { world, seed: 1, maker: HiddenMaker::Dictionary(Arc::new(dictionary)) };
    let stream = source.open(Stream::Train);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let start = std::sync::Barrier::new(threads);
    const BATCHES: u32 = 300;
    let round = || {
        let seconds = std::thread::scope(|scope| {
            let work = |thread: u32| {
                let (stream, start) = (&stream, &start);
                move || {
                    let mut batch = HiddenBatch::default();
                    stream.draw_hidden(thread, BATCH, &mut batch);
                    start.wait();
                    let begin = Instant::now();
                    (0..BATCHES).for_each(|step| stream.draw_hidden(step, BATCH, black_box(&mut batch)));
                    begin.elapsed().as_secs_f64()
                }
            };
            let handles: Vec<_> = (0..threads as u32).map(|thread| scope.spawn(work(thread))).collect();
            handles.into_iter().map(|handle| handle.join().expect("no thread panics")).fold(0.0, f64::max)
        });
        seconds / f64::from(BATCHES) / threads as f64
    };
    let least = (0..5).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{{\"us\": {:.1}}}", least * 1e6);
}

fn main() {
    if std::env::args().any(|argument| argument == "--tree-batch") {
        return tree_batch();
    }
    println!("us per batch of {BATCH}: linked worlds");
    draw_linked("1024 features, 32 trees of depth 2, rank 25, d 96", &linked(1024, 32, 2), 96);
    draw_linked("16384 features, 128 trees of depth 3, rank 25, d 768", &linked(16384, 128, 3), 768);
    draw_linked("5 features, a parent and a child, rank 2, d 50", &linked(5, 1, 1), 50);
    if std::env::args().any(|argument| argument == "linked") {
        return;
    }
    println!("ns per 1000 coins, batch {BATCH} unless said: dense, events; last the plain reference");
    print!("{:<34}", "");
    Isa::available().iter().for_each(|isa| print!(" {:>17}", format!("{isa:?}")));
    println!(" {:>9}", "plain");
    let unit = || Magnitude::Uniform { low: 0.0, high: 1.0 };
    for n in [2, 20, 400] {
        for p in [1.0, 0.3, 0.12, 0.05, 0.01] {
            row(&format!("uniform, n {n}, p {p}"), &world(vec![p; n], unit()), BATCH);
        }
    }
    for p in [1.0, 0.05] {
        row(&format!("uniform, n 2, p {p}, batch 128"), &world(vec![p; 2], unit()), 128);
    }
    let laws = [
        ("constant", Magnitude::Constant(vec![1.0; 20])),
        ("normal", Magnitude::Normal { mean: vec![1.0; 20], std: (0..20).map(|i| 0.01 * i as f64).collect() }),
        ("exponential", Magnitude::Exponential { mean: vec![1.0; 20] }),
    ];
    for (name, magnitude) in laws {
        for p in [1.0, 0.05] {
            row(&format!("{name}, n 20, p {p}"), &world(vec![p; 20], magnitude.clone()), BATCH);
        }
    }
    let zipf = tegum::data::Curve::Zipf { exponent: 1.0, max: 0.3, min: 0.001 };
    row("uniform, n 400, p zipf .3 to .001", &world(zipf.values(400, 0), unit()), BATCH);
    println!("\nus per batch of {BATCH}: events and h");
    hidden(40, 20, 0.05);
    hidden(512, 256, 0.01);
    hidden(20, 5, 1.0);
}
