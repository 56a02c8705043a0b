//! Time of drawing x and h on one core: every law, every instruction set, beside the plain reference.
//!
//!     cargo bench --bench data
//!
//! Prints ns per 1000 coins (features times samples), the least of many short runs: other work on the machine only adds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use tegum::backend::ops::draw::reference;
use tegum::backend::simd::Isa;
use tegum::data::{Batch, Dictionary, Events, Magnitude, MagnitudeSharing, Sampler, World};
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

fn main() {
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
