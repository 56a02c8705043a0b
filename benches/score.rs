//! Time of every score at the size of a benchmark: one dictionary against a world of 16,384 features in 768 dimensions.
//!
//!     cargo bench --bench score [-- SAMPLES [N_LATENTS [matching]]]
//!
//! Truth and dictionary are random directions; three latents in four are noisy copies of frequent features and fire with them,
//! the others are random and fire at random. Each row is one score asked for alone, with all that it shares with others, after the truth and
//! the features have been prepared; the last is all together. `matching` times assignments alone, beside the general solver.

use std::time::Instant;

use ndarray::Array2;
use pathfinding::matrix::Matrix;
use pathfinding::prelude::kuhn_munkres;
use tegum::codes::Codes;
use tegum::random::{Draws, Stream};
use tegum::score::{Activations, Activity, Arrays, SCORES, Side, Truth, evaluate};

const N_FEATURES: usize = 16_384;
const D_HIDDEN: usize = 768;

/// Mean number of firing features and latents.
const TRUE_L0: f64 = 34.0;
const L0: f64 = 25.0;

fn directions(rows: usize, d: usize, part: u64) -> Array2<f32> {
    let mut draws = Draws::new(1, Stream::Baseline, part);
    let scale = 1.0 / (d as f64).sqrt();
    Array2::from_shape_simple_fn((rows, d), || (scale * draws.normal()) as f32)
}

/// Latent j is feature j with noise of the same length, three in four.
fn dictionary(truth: &Array2<f32>, n_latents: usize) -> Array2<f32> {
    let mut rows = directions(n_latents, truth.ncols(), 2);
    for j in (0..n_latents).filter(|j| j % 4 != 3) {
        let own = truth.row(j).to_owned();
        rows.row_mut(j).scaled_add(1.0, &own);
    }
    rows
}

/// Feature i fires with probability ∝ (i + 1)^-1/2.
fn features(samples: usize) -> Codes<f32> {
    let sum: f64 = (1..=N_FEATURES).map(|i| (i as f64).powf(-0.5)).sum();
    let probability: Vec<f64> = (1..=N_FEATURES).map(|i| TRUE_L0 * (i as f64).powf(-0.5) / sum).collect();
    let mut draws = Draws::new(2, Stream::Baseline, 0);
    let mut codes = Codes::new(N_FEATURES);
    for _ in 0..samples {
        // By thinning: the next candidate is a geometric step at the greatest rate left.
        let (mut row, mut i) = (vec![], 0);
        loop {
            let rate = probability.get(i).copied().unwrap_or(1.0);
            let step = (libm::log(1.0 - draws.uniform()) / libm::log(1.0 - rate)).floor() as usize;
            i += step;
            if i >= N_FEATURES {
                break;
            }
            if draws.uniform() * rate < probability[i] {
                row.push((i, 1.0 + draws.uniform() as f32));
            }
            i += 1;
        }
        codes.push_row(row);
    }
    codes
}

fn latents(x: &Codes<f32>, n_latents: usize) -> Codes<f32> {
    let mut draws = Draws::new(3, Stream::Baseline, 0);
    let mut codes = Codes::new(n_latents);
    for s in 0..x.n_rows() {
        let mut row: Vec<(usize, f32)> = x.entries(s).filter(|(i, _)| *i < n_latents && i % 4 != 3).collect();
        while (row.len() as f64) < L0 {
            row.push((draws.below(n_latents as u32) as usize, 1.0 + draws.uniform() as f32));
        }
        row.sort_unstable_by_key(|(j, _)| *j);
        row.dedup_by_key(|(j, _)| *j);
        codes.push_row(row);
    }
    codes
}

fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e6
}

fn timed<R>(name: &str, f: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = f();
    println!("{name:24} {:8.3} s   peak {:.2} GB", start.elapsed().as_secs_f64(), peak());
    result
}

fn matchings() {
    for (m, n) in [(100, 400), (400, 400), (1000, 1000), (1024, 4096), (4096, 16_384), (4096, 4096)] {
        let (truth, rows) = (directions(n, 64, 4), directions(m, 64, 5));
        let arrays = Arrays { dictionary: Some(rows.view()), ..Arrays::of_truth(truth.view()) };
        let ours = timed(&format!("{m} x {n}"), || evaluate(&arrays, Some(&["mcc"])).scalar("mcc"));
        if m * n <= 1_000_000 {
            let unit = |a: &Array2<f32>| {
                let rows = a.rows().into_iter().map(|r| r.iter().map(|v| *v as f64).collect::<Vec<f64>>());
                rows.map(|r| r.iter().map(|v| v / r.iter().map(|v| v * v).sum::<f64>().sqrt()).collect::<Vec<_>>())
                    .collect::<Vec<Vec<f64>>>()
            };
            let (g, w) = (unit(&truth), unit(&rows));
            let cosine = |j: usize, i: usize| w[j].iter().zip(&g[i]).map(|(a, b)| a * b).sum::<f64>().abs();
            let weights = Matrix::from_fn(m, n, |(j, i)| (cosine(j, i) * (1u128 << 80) as f64) as i128);
            let (_, column_of) = timed("  general solver", || kuhn_munkres(&weights));
            let mean = column_of.iter().enumerate().map(|(j, &i)| cosine(j, i)).sum::<f64>() / m as f64;
            println!("  mcc {:?} and {mean}", ours.and_then(Result::ok));
        }
    }
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |at: usize, default: usize| given.get(at).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (samples, n_latents) = (number(0, 100_000), number(1, 4096));
    if given.iter().any(|word| word == "matching") {
        return matchings();
    }
    let rows = directions(N_FEATURES, D_HIDDEN, 1);
    let dictionary = dictionary(&rows, n_latents);
    let (x, truth) = (features(samples), timed("truth as directions", || Truth::new(rows.view())));
    let z = latents(&x, n_latents);
    println!(
        "{} features, {n_latents} latents, {D_HIDDEN} dimensions, {samples} samples; true L0 {:.1}, L0 {:.1}",
        N_FEATURES,
        x.n_entries() as f64 / samples as f64,
        z.n_entries() as f64 / samples as f64
    );
    let parents = (128..10_880).map(|child| (child, (child - 128) / 4)).collect();
    let x = timed("features", || {
        let x = Activity::new(x, Side::Features);
        x.firings();
        x.moments();
        x
    });
    let arrays = Arrays {
        dictionary: Some(dictionary.view()),
        features: Some(Activations::Prepared(&x)),
        latents: Some(Activations::Sparse(&z)),
        parents: Some(&parents),
        ..Arrays::of_truth(&truth)
    };
    timed("overlaps (once a world)", || evaluate(&arrays, Some(&["capacity"])));
    for definition in SCORES.iter().filter(|d| d.is_of_arrays() && !d.is_on_request()) {
        let start = Instant::now();
        let scores = evaluate(&arrays, Some(&[definition.name]));
        let value = match scores.scalar(definition.name) {
            Some(value) => format!("{value:?}"),
            None if scores.vector(definition.name).is_some() => "vector".into(),
            None => continue,
        };
        println!("{:24} {:8.3} s   {value}", definition.name, start.elapsed().as_secs_f64());
    }
    let names: Vec<&str> =
        SCORES.iter().filter(|d| d.is_of_arrays() && !d.is_on_request() && !d.is_vector()).map(|d| d.name).collect();
    timed("all together", || evaluate(&arrays, Some(&names)));
}
