//! K-SVD with non-negative codes (Aharon, Elad & Bruckstein 2006, "K-SVD"; non-negative codes as in their 2005 NN-K-SVD).
//!
//! ```text
//! start    directions of samples, spread by k-means++
//! repeat   codes z of every sample by orthogonal matching pursuit to k directions, values below 0 left out
//!          for each direction w_j, over the samples S that use it, with what the others leave, E_s = h_s - Σ_{i≠j} z_si w_i:
//!              z_sj ← max(0, E_s·w_j),  w_j ← Σ z_sj E_s at unit norm      three times: the rank-one part of E
//!          a direction that no sample uses, or that doubles a more used one (cosine above .99), takes that of the greatest
//!          error (where the 2006 paper takes the sample itself)
//! ```
//!
//! Directions are not renewed in the last round. Read by orthogonal matching pursuit to k directions.

use ndarray::Array2;

use super::encoded::{Encoded, Encoding, encoded};
use super::kmeans::{served_worst, spread};
use super::matrix::{add, dot};
use super::sample::{Centre, Sample};
use crate::hidden::SaeSource;
use crate::random::{Draws, Stream};
use crate::sae::Coder;

/// Alternations of codes and direction that stand for the rank-one singular value decomposition of one direction's errors.
const POWER_STEPS: usize = 3;

/// Directions closer than this are one.
const DOUBLE: f64 = 0.99;

/// Settings of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KSvd {
    /// Directions.
    pub n_latents: usize,
    /// Codes of a sample, at most.
    pub k: usize,
    /// Training samples.
    pub samples: usize,
    /// Rounds.
    pub iterations: usize,
    /// What is taken off h first.
    pub centre: Centre,
    /// Of the start.
    pub seed: u64,
}

impl KSvd {
    /// The dictionary of a source.
    pub fn learn(&self, source: &SaeSource) -> Encoded {
        let sample = Sample::draw(source, self.samples, self.centre);
        let start = spread(&sample.wide(), self.n_latents, &mut Draws::new(self.seed, Stream::Baseline, 2));
        let zeros = vec![0.0; sample.h.ncols()];
        let mut search = Search { directions: start, errors: sample.wide(), codes: vec![] };
        for round in 0..self.iterations {
            let single = search.directions.mapv(|w| w as f32);
            let latents = encoded(single.view(), &zeros, Encoding::Omp { k: self.k }).encode(sample.h.view());
            search.take(&sample, &latents);
            for j in 0..self.n_latents {
                search.improve(j);
            }
            if round + 1 < self.iterations {
                search.renew();
            }
        }
        let directions = search.directions.mapv(|w| w as f32);
        encoded(directions.view(), &sample.centre, Encoding::Omp { k: self.k })
    }
}

/// A round in progress.
struct Search {
    /// Unit rows `[n_latents, d]`.
    directions: Array2<f64>,
    /// h less what the codes give, `[samples, d]`.
    errors: Array2<f64>,
    /// `[direction]`: samples that use it, ascending, with their codes.
    codes: Vec<Vec<(usize, f64)>>,
}

impl Search {
    fn direction(&self, j: usize) -> Vec<f64> {
        self.directions.row(j).to_vec()
    }

    /// Starts a round from these codes `[samples, n_latents]`.
    fn take(&mut self, sample: &Sample, latents: &Array2<f32>) {
        self.codes = vec![vec![]; self.directions.nrows()];
        self.errors = sample.wide();
        for (s, row) in latents.rows().into_iter().enumerate() {
            let mut error = self.errors.row_mut(s);
            let error = error.as_slice_mut().expect("standard layout");
            for (j, &z) in row.iter().enumerate().filter(|(_, z)| **z != 0.0) {
                self.codes[j].push((s, z as f64));
                add(error, -(z as f64), self.directions.row(j).to_slice().expect("standard layout"));
            }
        }
    }

    /// The best direction and codes for the samples that use direction j, the others held.
    fn improve(&mut self, j: usize) {
        let mut users = std::mem::take(&mut self.codes[j]);
        let mut w = self.direction(j);
        for &(s, z) in &users {
            add(self.errors.row_mut(s).as_slice_mut().expect("standard layout"), z, &w);
        }
        let along = |errors: &Array2<f64>, s: usize, w: &[f64]| {
            dot(errors.row(s).to_slice().expect("standard layout"), w).max(0.0)
        };
        for _ in 0..POWER_STEPS {
            let mut sum = vec![0.0; w.len()];
            for &(s, _) in &users {
                let z = along(&self.errors, s, &w);
                add(&mut sum, z, self.errors.row(s).to_slice().expect("standard layout"));
            }
            let norm = dot(&sum, &sum).sqrt();
            if norm == 0.0 {
                break;
            }
            w = sum.into_iter().map(|x| x / norm).collect();
        }
        for (s, z) in &mut users {
            *z = along(&self.errors, *s, &w);
            add(self.errors.row_mut(*s).as_slice_mut().expect("standard layout"), -*z, &w);
        }
        users.retain(|(_, z)| *z > 0.0);
        self.directions.row_mut(j).assign(&ndarray::ArrayView1::from(&w));
        self.codes[j] = users;
    }

    /// Gives directions that are of no use those of the samples that are served worst.
    fn renew(&mut self) {
        let m = self.directions.nrows();
        let mut useless: Vec<usize> = vec![];
        for j in 0..m {
            let (w, uses) = (self.direction(j), self.codes[j].len());
            let doubles = |i: usize| {
                let more = (self.codes[i].len(), std::cmp::Reverse(i)) > (uses, std::cmp::Reverse(j));
                i != j && more && dot(&w, self.directions.row(i).to_slice().expect("standard layout")) > DOUBLE
            };
            if uses == 0 || (0..m).any(doubles) {
                useless.push(j);
            }
        }
        if useless.is_empty() {
            return;
        }
        let left = self.errors.rows().into_iter().map(|e| e.dot(&e)).collect();
        for (&j, s) in useless.iter().zip(served_worst(&self.errors, left, useless.len())) {
            let error = self.errors.row(s).to_vec();
            let norm = dot(&error, &error).sqrt();
            self.directions.row_mut(j).iter_mut().zip(&error).for_each(|(w, e)| *w = e / norm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::testing::{mmcs, orthogonal, superposed};

    const SEARCH: KSvd = KSvd { n_latents: 64, k: 5, samples: 8192, iterations: 40, centre: Centre::None, seed: 3 };

    /// Sixty-four random directions in thirty-two dimensions, three of them firing on average: half the crowding that the
    /// Donoho-Tanner limit allows non-negative codes (.558 · 32). The gate is MMCS .95 where at most five fire.
    #[test]
    fn sparse_features_in_superposition_are_recovered() {
        let (source, truth) = superposed(64, 32, 3.0 / 64.0);
        let found = mmcs(&truth, SEARCH.learn(&source).decoder());
        assert!(found >= 0.95, "{found}");
        let start = mmcs(&truth, KSvd { iterations: 0, ..SEARCH }.learn(&source).decoder());
        assert!(start < 0.9, "{start}");
    }

    /// Twelve features of which more than three fire in one sample of seventy.
    #[test]
    fn orthogonal_features_are_found_and_reconstructed() {
        let (source, truth) = orthogonal(12, 16, 0.08);
        let found = KSvd { n_latents: 12, k: 3, samples: 4096, ..SEARCH }.learn(&source);
        let score = mmcs(&truth, found.decoder());
        assert!(score > 0.98, "{score}");
        let h = Sample::draw(&source, 500, Centre::None).h;
        let error = found.decode(found.encode(h.view()).view(), h.view()) - &h;
        let square = |a: &Array2<f32>| a.iter().map(|x| (x * x) as f64).sum::<f64>();
        let left = square(&error) / square(&h);
        assert!(left < 0.05, "{left}");
    }

    /// Each direction and its codes are the best for their samples, so the error never grows within a round.
    #[test]
    fn improving_a_direction_lowers_the_error() {
        let (source, _) = superposed(20, 10, 0.1);
        let sample = Sample::draw(&source, 1000, Centre::None);
        let directions = spread(&sample.wide(), 20, &mut Draws::new(1, Stream::Baseline, 2));
        let latents =
            encoded(directions.mapv(|w| w as f32).view(), &[0.0; 10], Encoding::Omp { k: 3 }).encode(sample.h.view());
        let mut search = Search { directions, errors: sample.wide(), codes: vec![] };
        search.take(&sample, &latents);
        let total = |search: &Search| search.errors.iter().map(|e| e * e).sum::<f64>();
        let mut before = total(&search);
        let first = before;
        for j in 0..20 {
            search.improve(j);
            let after = total(&search);
            assert!(after <= before * (1.0 + 1e-9), "{j}: {before} {after}");
            before = after;
        }
        assert!(before < 0.9 * first, "{first} {before}");
    }

    /// Direction 1 doubles direction 0 and is used less, direction 2 is not used. The greatest error is along the third axis,
    /// and the next one that it does not serve along the second.
    #[test]
    fn unused_and_doubled_directions_are_renewed_by_the_greatest_errors() {
        let directions = ndarray::arr2(&[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]);
        let zeros = [0.0; 3];
        let errors = ndarray::arr2(&[zeros, zeros, [0.1, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 1.5], [0.0, 1.0, 0.0]]);
        let codes = vec![vec![(0, 1.0), (1, 1.0)], vec![(2, 1.0)], vec![]];
        let mut search = Search { directions, errors, codes };
        search.renew();
        assert_eq!(search.directions, ndarray::arr2(&[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]));
        // Where nothing is left, nothing is renewed.
        search.errors.fill(0.0);
        let before = search.directions.clone();
        search.renew();
        assert_eq!(search.directions, before);
    }

    #[test]
    fn threads_change_no_bit() {
        let (source, _) = superposed(20, 10, 0.1);
        let search = KSvd { n_latents: 20, k: 3, samples: 1500, iterations: 3, ..SEARCH };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| search.learn(&source).decoder().to_owned()));
        assert!(found[0] == found[1]);
    }

    #[test]
    fn the_mean_may_be_taken_off() {
        let (source, _) = superposed(20, 10, 0.3);
        let found = KSvd { n_latents: 20, k: 3, samples: 1000, iterations: 2, centre: Centre::Mean, ..SEARCH };
        let found = found.learn(&source);
        let nothing = found.decode(Array2::zeros((1, 20)).view(), Array2::zeros((1, found.d_hidden())).view());
        let mean = super::super::sample::mean(&Sample::draw(&source, 1000, Centre::None).h);
        assert!(
            nothing.iter().zip(&mean).all(|(&a, &b)| (a as f64 - b).abs() < 1e-6) && mean.iter().any(|m| *m != 0.0)
        );
    }
}
