//! Semi-non-negative matrix factorisation (Ding, Li & Jordan 2010, "Convex and semi-nonnegative matrix factorizations",
//! section 3.1): H ≈ Z W with codes Z ≥ 0 and directions W of either sign, because hidden states have signs and codes have
//! none.
//!
//! ```text
//! start    Z = 1 at the sample's direction of spherical k-means, plus 0.2 everywhere
//! repeat   W = (ZᵀZ)⁻¹ Zᵀ H
//!          Z_sj ← Z_sj √( ([HWᵀ]⁺ + Z [WWᵀ]⁻)_sj / ([HWᵀ]⁻ + Z [WWᵀ]⁺)_sj )      x⁺ = max(x, 0), x⁻ = max(-x, 0)
//! ```
//!
//! The squared error never grows. Nothing in it asks for sparse codes, and every set of directions whose non-negative sums hold
//! the data explains it as well as the features do, so that they need not be found. Rows of W end at unit norm. Read by `k` steps of orthogonal matching pursuit, or, without k, by the
//! non-negative codes of least L1 norm (see [`fista`](super::fista)).

use ndarray::{Array2, Zip};

use super::encoded::{Encoded, encoded};
use super::kmeans::KMeans;
use super::matrix::{over_samples, product, solve};
use super::read_by;
use super::sample::{Centre, Sample, unit_rows};
use crate::hidden::SaeSource;
use crate::sae::Coder;

/// Settings of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SemiNmf {
    /// Directions.
    pub n_latents: usize,
    /// Codes of a sample, at most, when it is read; none: those of least L1 norm.
    pub k: Option<usize>,
    /// Training samples.
    pub samples: usize,
    /// Rounds.
    pub iterations: usize,
    /// What is taken off h first.
    pub centre: Centre,
    /// Of the start.
    pub seed: u64,
}

/// Rounds of k-means for the start.
const START: usize = 10;

/// What is added to the start's codes, so that none is stuck at 0 (Ding et al. section 3.1).
const FILL: f64 = 0.2;

/// Keeps quotients of the update finite; far below any product that matters.
const LEAST: f64 = 1e-30;

impl SemiNmf {
    /// The dictionary of a source.
    pub fn learn(&self, source: &SaeSource) -> Encoded {
        let sample = Sample::draw(source, self.samples, self.centre);
        let h = sample.wide();
        let &SemiNmf { n_latents, samples, centre, seed, .. } = self;
        let start = KMeans { n_latents, k: 1, samples, iterations: START, centre, seed }.learn(source);
        let mut codes = start.encode(sample.h.view()).mapv(|z| FILL + f64::from(u8::from(z > 0.0)));
        let mut directions = fit(&h, &codes);
        for _ in 0..self.iterations {
            update(&h, &directions, &mut codes);
            directions = fit(&h, &codes);
        }
        unit_rows(&mut directions);
        encoded(directions.mapv(|w| w as f32).view(), &sample.centre, read_by(self.k))
    }
}

/// W of the least squared error.
fn fit(h: &Array2<f64>, codes: &Array2<f64>) -> Array2<f64> {
    let gram = over_samples(codes.view(), codes.view());
    solve(gram.view(), over_samples(codes.view(), h.view()).view())
}

fn update(h: &Array2<f64>, directions: &Array2<f64>, codes: &mut Array2<f64>) {
    let along = product(h.view(), directions.t());
    let gram = product(directions.view(), directions.t());
    let more = product(codes.view(), gram.mapv(|g| (-g).max(0.0)).view());
    let less = product(codes.view(), gram.mapv(|g| g.max(0.0)).view());
    Zip::from(codes).and(&along).and(&more).and(&less).for_each(|z, &along, &more, &less| {
        *z *= ((along.max(0.0) + more) / ((-along).max(0.0) + less).max(LEAST)).sqrt();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::testing::{mmcs, orthogonal, superposed};

    const SEARCH: SemiNmf =
        SemiNmf { n_latents: 8, k: None, samples: 3000, iterations: 150, centre: Centre::None, seed: 3 };

    #[test]
    fn the_error_never_grows() {
        let (source, _) = superposed(12, 6, 0.15);
        let h = Sample::draw(&source, 800, Centre::None).wide();
        let start = KMeans { n_latents: 8, k: 1, samples: 800, iterations: 2, centre: Centre::None, seed: 1 };
        let single = h.mapv(|h| h as f32);
        let mut codes = start.learn(&source).encode(single.view()).mapv(|z| FILL + f64::from(u8::from(z > 0.0)));
        let (mut errors, mut directions) = (vec![], fit(&h, &codes));
        for _ in 0..40 {
            let error = &h - &product(codes.view(), directions.view());
            errors.push(error.iter().map(|e| e * e).sum::<f64>());
            update(&h, &directions, &mut codes);
            directions = fit(&h, &codes);
        }
        // The ridge of the fit moves the error by less than 1e-9 of it.
        assert!(errors.windows(2).all(|e| e[1] <= e[0] * (1.0 + 1e-8)), "{errors:?}");
        assert!(errors[39] < 0.9 * errors[0]);
    }

    /// As many parts as features, in as many dimensions: non-negative sums of parts explain nearly all.
    #[test]
    fn parts_explain_what_features_made() {
        let (source, truth) = orthogonal(8, 8, 0.15);
        let found = SEARCH.learn(&source);
        // Clusters, the start, are nearer to features than chance, and rounds keep that.
        let score = mmcs(&truth, found.decoder());
        assert!(score > 0.7, "{score}");
        let h = Sample::draw(&source, 300, Centre::None).h;
        let latents = found.encode(h.view());
        assert!(latents.iter().all(|&z| z >= 0.0));
        let error = found.decode(latents.view(), h.view()) - &h;
        let square = |a: &Array2<f32>| a.iter().map(|x| (x * x) as f64).sum::<f64>();
        let left = square(&error) / square(&h);
        assert!(left < 0.1, "{left}");
    }

    #[test]
    fn threads_change_no_bit() {
        let (source, _) = superposed(12, 6, 0.15);
        let search = SemiNmf { samples: 1500, iterations: 5, ..SEARCH };
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| search.learn(&source).decoder().to_owned()));
        assert!(found[0] == found[1]);
    }

    #[test]
    fn silent_worlds_give_finite_directions() {
        let (source, _) = superposed(5, 4, 0.0);
        assert!(SEARCH.learn(&source).decoder().iter().all(|w| w.is_finite()));
    }
}
