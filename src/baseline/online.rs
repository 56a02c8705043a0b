//! Online dictionary learning (Mairal, Bach, Ponce & Sapiro 2009, "Online dictionary learning for sparse coding", algorithms
//! 1 and 2 in mini-batches; the past is forgotten as in their 2010 "Online learning for matrix factorization and sparse
//! coding", section 3.4), non-negative codes.
//!
//! ```text
//! for each batch of samples, t = 1, 2, ...
//!     z = argmin over z ≥ 0 of ½ |h - Wᵀz|² + λ_s Σ z        λ_s = l1 times the greatest w_j·h of the sample
//!     A ← β A + Σ z zᵀ,  B ← β B + Σ z hᵀ                    β = (1 - 1/t)³
//!     for each direction:  u = w_j + (B_j - A_j W) / A_jj,  w_j ← u / max(|u|, 1)
//! ```
//!
//! λ is a share of each sample's own greatest product, not one number as in the paper, so that the code of a multiple of h
//! is the multiple of its code and no unit has to be chosen. Directions start spread over the first samples by k-means++.
//! One with A_jj near 0 takes that of a sample of the batch, and rows end at unit norm. Read by `k` steps of orthogonal
//! matching pursuit, or, without k, by the codes of least L1 norm (see [`fista`](super::fista)).

use ndarray::{Array2, s};

use super::encoded::{Encoded, encoded};
use super::fista::Fista;
use super::kmeans::spread;
use super::matrix::{dot, over_samples};
use super::sample::{Centre, Sample, unit_rows};
use super::{READ_BY_FISTA, read_by};
use crate::hidden::SaeSource;
use crate::random::{Draws, Stream};

/// Settings of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlineDictionary {
    /// Directions.
    pub n_latents: usize,
    /// Codes of a sample, at most, when it is read; none: those of least L1 norm.
    pub k: Option<usize>,
    /// Training samples; they are walked again and again.
    pub samples: usize,
    /// Batches.
    pub iterations: usize,
    /// Samples of a batch.
    pub batch_size: usize,
    /// λ over each sample's greatest product.
    pub l1: f64,
    /// What is taken off h first.
    pub centre: Centre,
    /// Of the start.
    pub seed: u64,
}

/// A direction whose A_jj is at most this share of the mean has not been used.
const UNUSED: f64 = 1e-6;

impl OnlineDictionary {
    /// The dictionary of a source.
    pub fn learn(&self, source: &SaeSource) -> Encoded {
        let sample = Sample::draw(source, self.samples, self.centre);
        let wide = sample.wide();
        let (m, d) = (self.n_latents, wide.ncols());
        let mut w = spread(&wide, m, &mut Draws::new(self.seed, Stream::Baseline, 3));
        let (mut a, mut b) = (Array2::<f64>::zeros((m, m)), Array2::<f64>::zeros((m, d)));
        let search = Fista { l1: self.l1, ..READ_BY_FISTA };
        let zeros = vec![0.0; d];
        let size = self.batch_size.min(self.samples).max(1);
        for t in 1..=self.iterations {
            let first = (t - 1) * size % (self.samples / size * size).max(1);
            let rows = s![first..(first + size).min(self.samples), ..];
            let codes = search.encode(w.mapv(|w| w as f32).view(), &zeros, sample.h.slice(rows)).mapv(f64::from);
            let kept = 1.0 - 1.0 / t as f64;
            let beta = kept * kept * kept;
            a = a * beta + over_samples(codes.view(), codes.view());
            b = b * beta + over_samples(codes.view(), wide.slice(rows));
            let mean = a.diag().sum() / m as f64;
            for j in 0..m {
                if a[[j, j]] <= UNUSED * mean {
                    let h = wide.row(first + j % size);
                    let norm = h.iter().map(|x| x * x).sum::<f64>().sqrt();
                    if norm > 0.0 {
                        w.row_mut(j).assign(&(&h / norm));
                    }
                    continue;
                }
                let others = a.row(j).to_vec();
                let mut u = b.row(j).to_vec();
                for (&weight, row) in others.iter().zip(w.rows()).filter(|(weight, _)| **weight != 0.0) {
                    u.iter_mut().zip(&row).for_each(|(u, w)| *u -= weight * w);
                }
                u.iter_mut().zip(&w.row(j)).for_each(|(u, w)| *u = *u / others[j] + w);
                let norm = dot(&u, &u).sqrt().max(1.0);
                w.row_mut(j).iter_mut().zip(&u).for_each(|(w, u)| *w = u / norm);
            }
        }
        unit_rows(&mut w);
        encoded(w.mapv(|w| w as f32).view(), &sample.centre, read_by(self.k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::testing::{mmcs, orthogonal, superposed};
    use crate::sae::Coder;

    const SEARCH: OnlineDictionary = OnlineDictionary {
        n_latents: 64,
        k: None,
        samples: 8192,
        iterations: 200,
        batch_size: 256,
        l1: 0.1,
        centre: Centre::None,
        seed: 3,
    };

    /// The world of K-SVD's gate, at most some five of sixty-four features in thirty-two dimensions.
    #[test]
    fn sparse_features_in_superposition_are_recovered() {
        let (source, truth) = superposed(64, 32, 3.0 / 64.0);
        let found = mmcs(&truth, SEARCH.learn(&source).decoder());
        assert!(found >= 0.95, "{found}");
    }

    #[test]
    fn orthogonal_features_are_found_and_read_without_a_k() {
        let (source, truth) = orthogonal(12, 16, 0.1);
        let found = OnlineDictionary { n_latents: 12, samples: 4096, ..SEARCH }.learn(&source);
        assert!(mmcs(&truth, found.decoder()) > 0.99);
        let h = Sample::draw(&source, 300, Centre::None).h;
        let latents = found.encode(h.view());
        let error = found.decode(latents.view(), h.view()) - &h;
        let square = |a: &Array2<f32>| a.iter().map(|x| (x * x) as f64).sum::<f64>();
        assert!(latents.iter().all(|&z| z >= 0.0) && square(&error) < 0.02 * square(&h));
        let two = OnlineDictionary { n_latents: 12, samples: 4096, k: Some(2), ..SEARCH }.learn(&source);
        let latents = two.encode(h.view());
        assert!(latents.rows().into_iter().all(|z| z.iter().filter(|&&z| z > 0.0).count() <= 2));
    }

    #[test]
    fn threads_change_no_bit() {
        let (source, _) = superposed(20, 10, 0.1);
        let search = OnlineDictionary { n_latents: 20, samples: 1500, iterations: 8, ..SEARCH };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| search.learn(&source).decoder().to_owned()));
        assert!(found[0] == found[1]);
    }

    #[test]
    fn batches_larger_than_the_sample_and_silent_samples_are_no_trouble() {
        let (source, _) = superposed(5, 4, 0.0);
        let search = OnlineDictionary { n_latents: 6, samples: 10, iterations: 3, ..SEARCH };
        assert!(search.learn(&source).decoder().iter().all(|w| w.is_finite()));
    }
}
