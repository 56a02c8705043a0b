//! Where an autoencoder starts: its program and its initial weights.
//!
//! Both may depend on the hidden states it will be trained on: coefficients in units of a feature's size, a decoder bias at
//! the geometric median, directions of the truth. What is asked of the hidden states is taken from the first batches of the
//! training stream, as training sees them.

use super::program::Program;
use super::weights::Weights;
use super::{Architecture, Inputs, SaeJob};
use crate::hidden::{HiddenBatch, HiddenSource, SaeSource, SaeStream};
use crate::random::{Draws, Stream};

/// Initial directions.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Init {
    /// Independent uniform directions.
    #[default]
    Random,
    /// Latent j starts at the true unit direction of feature j; latents beyond the features at random ones.
    Truth {
        /// Standard deviation of a normal added to each coordinate.
        noise: f64,
    },
}

/// Initial decoder bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BiasInit {
    /// 0.
    #[default]
    Zero,
    /// The geometric median of hidden states (Gao et al. 2024; Bricken et al. 2023).
    GeometricMedian,
}

/// Hidden states that the geometric median and the size of a feature are taken from, about.
const LOOKED_AT: usize = 8192;

/// An L1 coefficient that follows from `target_l0`, over the size of one feature; the same for the L0 coefficient, over its
/// square. The controller moves them from there.
pub const RELATIVE_L1: f64 = 0.2;
/// See [`RELATIVE_L1`].
pub const RELATIVE_L0: f64 = 0.01;

/// The program of a job and its initial weights.
pub fn start(job: &SaeJob, source: &SaeSource, stream: &SaeStream, inputs: Inputs) -> (Program, Weights) {
    let seen = if job.looks_at_data() { look(stream, job.train.batch_size, inputs) } else { vec![] };
    let program = job.program(|| spread(&seen, source.d_hidden()));
    let mut weights = Weights::init(job.seed, job.n_latents, source.d_hidden(), &program);
    // Activations from files have no truth to start at: their check has refused it.
    if let (Init::Truth { noise }, SaeSource::World(source)) = (&job.options.init, source) {
        put_truth(&mut weights, source, *noise, job.seed, program.unit_decoder);
    }
    if job.options.bias_init == BiasInit::GeometricMedian {
        let median = geometric_median(&seen, source.d_hidden());
        weights.b_dec = median.iter().map(|&m| m as f32).collect();
    }
    if let Some(given) = &job.frozen_decoder {
        weights.w_dec = given.w_dec.iter().map(|&w| (w as f64 * inputs.scale) as f32).collect();
        weights.b_dec = given.b_dec.iter().map(|&b| (b as f64 * inputs.scale) as f32).collect();
        if job.options.init == Init::Random {
            weights.w_enc = unit_rows(&weights.w_dec, source.d_hidden());
        }
    }
    (program, weights)
}

fn unit_rows(rows: &[f32], d: usize) -> Vec<f32> {
    rows.chunks_exact(d).flat_map(|row| unit(&row.iter().map(|&x| x as f64).collect::<Vec<_>>())).collect()
}

fn unit(row: &[f64]) -> Vec<f32> {
    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
    row.iter().map(|x| if norm > 0.0 { (x / norm) as f32 } else { 0.0 }).collect()
}

/// `[samples, d]` of the first training batches, as training sees them.
fn look(stream: &SaeStream, batch_size: usize, inputs: Inputs) -> Vec<f64> {
    let (mut batch, mut seen) = (HiddenBatch::default(), vec![]);
    for step in 0..LOOKED_AT.div_ceil(batch_size) {
        stream.draw_hidden(step as u32, batch_size, &mut batch);
        seen.extend(inputs.see(&batch.h, batch.d_hidden).into_iter().map(f64::from));
    }
    seen.truncate(LOOKED_AT.max(batch_size) * batch.d_hidden);
    seen
}

/// sqrt of the mean squared distance from the mean.
fn spread(seen: &[f64], d: usize) -> f64 {
    let n = (seen.len() / d).max(1) as f64;
    let mean: Vec<f64> = (0..d).map(|k| seen.iter().skip(k).step_by(d).sum::<f64>() / n).collect();
    let square: f64 = seen.chunks_exact(d).flat_map(|h| h.iter().zip(&mean)).map(|(h, m)| (h - m) * (h - m)).sum();
    (square / n).sqrt()
}

/// The point of least summed distance to the rows of `seen` `[samples, d]`: Weiszfeld's iteration from their mean, until
/// it moves by less than 1e-7 of the spread.
pub fn geometric_median(seen: &[f64], d: usize) -> Vec<f64> {
    let n = (seen.len() / d).max(1) as f64;
    let mut at: Vec<f64> = (0..d).map(|k| seen.iter().skip(k).step_by(d).sum::<f64>() / n).collect();
    let enough = 1e-7 * spread(seen, d);
    for _ in 0..200 {
        let (mut next, mut total) = (vec![0.0; d], 0.0);
        for h in seen.chunks_exact(d) {
            let distance = h.iter().zip(&at).map(|(h, m)| (h - m) * (h - m)).sum::<f64>().sqrt();
            // A sample at the point itself pulls nowhere; the floor keeps its weight finite.
            let weight = 1.0 / distance.max(1e-12);
            total += weight;
            next.iter_mut().zip(h).for_each(|(next, h)| *next += weight * h);
        }
        next.iter_mut().for_each(|x| *x /= total);
        let moved = next.iter().zip(&at).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        at = next;
        if moved <= enough {
            break;
        }
    }
    at
}

/// Decoder rows at the truth, encoder rows their transpose.
fn put_truth(weights: &mut Weights, source: &HiddenSource, noise: f64, seed: u64, unit_decoder: bool) {
    let (d, truth) = (weights.d_hidden, source.maker.directions());
    let mut draws = Draws::new(seed, Stream::SaeInit, 1);
    for (row, truth) in weights.w_dec.chunks_exact_mut(d).zip(truth.chunks_exact(d)) {
        let clean = unit(&truth.iter().map(|&x| x as f64).collect::<Vec<_>>());
        let mut noisy: Vec<f64> = clean.iter().map(|&x| x as f64).collect();
        if noise > 0.0 {
            noisy.iter_mut().for_each(|x| *x += noise * draws.normal());
        }
        let start = if unit_decoder { unit(&noisy) } else { noisy.iter().map(|&x| x as f32).collect() };
        row.copy_from_slice(&start);
    }
    weights.w_enc = weights.w_dec.clone();
}

impl SaeJob {
    /// Whether its start depends on hidden states.
    fn looks_at_data(&self) -> bool {
        let sizes = match &self.architecture {
            Architecture::JumpRelu(s) => {
                [s.bandwidth, s.threshold].iter().any(|size| matches!(size, super::jumprelu::Size::Relative(_)))
            }
            _ => false,
        };
        sizes || self.options.relative_penalty || self.options.bias_init == BiasInit::GeometricMedian
    }

    /// What a step of it does, where hidden states have the given spread: sqrt(E |h - E h|²), asked for where it matters.
    pub fn program(&self, spread: impl Fn() -> f64) -> Program {
        let options = &self.options;
        let wanted = options.target.map_or(1.0, |target| target.l0);
        let unit = if self.looks_at_data() { spread() / wanted.sqrt() } else { 1.0 };
        let mut program = self.architecture.program_at(unit);
        if options.relative_penalty {
            let size = match self.architecture {
                Architecture::JumpRelu(_) => unit * unit,
                _ => unit,
            };
            program.penalty = program.penalty.with_coefficient(program.penalty.coefficient() * size);
        }
        program.tied |= options.tied;
        program.frozen_decoder = self.frozen_decoder.is_some();
        program.unit_decoder &= !program.frozen_decoder;
        if let Some(aux_k) = options.aux_k {
            program.aux_k = aux_k;
        }
        if let Some(norm) = options.init_norm {
            program.init_norm = norm;
        }
        program.target = options.target;
        program.penalty_warmup = options.penalty_warmup;
        program.k_anneal = options.k_anneal;
        program.resample = options.resample.clone();
        program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometric_median_of_a_line_is_its_median_and_outliers_do_not_move_it_far() {
        let line = geometric_median(&[0.0, 1.0, 2.0, 3.0, 1000.0], 1);
        assert!((line[0] - 2.0).abs() < 1e-3, "{line:?}");
        let square = geometric_median(&[1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0], 2);
        assert!(square.iter().all(|x| x.abs() < 1e-12));
    }

    #[test]
    fn spread_is_the_root_of_the_summed_variance() {
        assert_eq!(spread(&[1.0, 5.0, 3.0, 5.0], 2), 1.0);
    }
}
