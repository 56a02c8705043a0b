//! The decoder by itself, and what of other features is in matched latents at most.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use super::definition::{Better, Definition, Kind, Need, Shape};
use super::matching::{Cosines, pairs};
use super::tiles::dots;
use super::vector::Directions;
use super::{Undefined, Value};

/// Rows whose cosines with all others are computed together.
const BLOCK: usize = 64;

pub const C_DEC: Definition = Definition {
    name: "c_dec",
    version: 1,
    meaning: "mean absolute cosine of two latents' decoder rows; least where L0 is that of the truth",
    formula: "mean over j < k of |w_j . w_k|, all latents",
    source: "Chanin & Garriga-Alonso 2025, Sparse but Wrong, arXiv 2508.16560",
    needs: &[Need::Dictionary],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "decoder cosine c_dec",
    better: Some(Better::Lower),
};

/// [`C_DEC`]
pub fn c_dec(dictionary: &Directions) -> Value {
    let n = dictionary.n;
    if n < 2 {
        return Err(Undefined("there are fewer than two latents"));
    }
    let block = |first: usize| {
        let rows = first..(first + BLOCK).min(n);
        let mut cosines = vec![0.0; rows.len() * (n - first)];
        let (a, b) = (dictionary.unit_rows(rows.clone()), dictionary.unit_rows(first..n));
        dots(a, b, dictionary.width, &mut cosines);
        let later = |(k, cosines): (usize, &[f64])| cosines[k + 1..].iter().map(|c| c.abs()).sum::<f64>();
        cosines.chunks_exact(n - first).enumerate().map(later).sum::<f64>()
    };
    let firsts: Vec<usize> = (0..n).step_by(BLOCK).collect();
    let blocks: Vec<f64> = firsts.into_par_iter().map(block).collect();
    Ok(blocks.iter().sum::<f64>() / (n * (n - 1) / 2) as f64)
}

pub const CROSS_MAX: Definition = Definition {
    name: "cross_max",
    version: 1,
    meaning: "greatest absolute cosine of a represented feature with the latent matched to another",
    formula: "max over matched k and represented i != k of |w_(latent of k) . g_i|",
    source: "the decoder's off-diagonal in Chanin et al. 2024, A is for Absorption, arXiv 2409.14507",
    needs: &[Need::Truth, Need::Dictionary, Need::Latents],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "greatest cosine off the diagonal",
    better: Some(Better::Lower),
};

/// [`CROSS_MAX`]
pub fn cross_max(cosines: &Cosines, represented: &[usize], matching: &[Option<usize>]) -> Value {
    let matched = pairs(matching);
    let block = |features: &[usize]| {
        let of_latents = cosines.of_features(features);
        let of_feature = |(at, &i): (usize, &usize)| {
            let own = &of_latents[at * cosines.n_latents..];
            matched.iter().filter(|(k, _)| *k != i).map(|&(_, j)| own[j].abs()).fold(f64::NEG_INFINITY, f64::max)
        };
        features.iter().enumerate().map(of_feature).fold(f64::NEG_INFINITY, f64::max)
    };
    let blocks: Vec<f64> = represented.par_chunks(BLOCK).map(block).collect();
    match blocks.into_iter().fold(f64::NEG_INFINITY, f64::max) {
        f64::NEG_INFINITY => Err(Undefined("no feature has a latent of another beside it")),
        greatest => Ok(greatest),
    }
}

pub const DECODER_PROJECTION: Definition = Definition {
    name: "decoder_projection",
    version: 1,
    meaning: "s_n: the projection on decoder rows that n latents a sample reach; falls to its least near the true L0",
    formula: "the (n B)-th greatest of w_j . (h - b_dec) over the first B = 1024 samples and all latents, entry n",
    source: "Chanin & Garriga-Alonso 2025, Sparse but Wrong, arXiv 2508.16560, nth decoder projection",
    needs: &[Need::Dictionary, Need::Hidden, Need::Bias],
    kind: Kind::Amount,
    shape: Shape::PerLatent,
    label: "nth decoder projection s_n",
    better: None,
};

/// [`DECODER_PROJECTION`] of hidden states `[samples, d_hidden]` from which the decoder's bias has been taken, one entry a
/// latent; none for entry 0 and without samples.
pub fn decoder_projection(dictionary: &Directions, centred: &Directions) -> Vec<Option<f64>> {
    let (m, samples) = (dictionary.n, centred.n);
    let mut projections = vec![0.0; samples * m];
    dots(centred.raw_rows(0..samples), dictionary.unit_rows(0..m), dictionary.width, &mut projections);
    projections.sort_unstable_by(|a, b| b.total_cmp(a));
    (0..m).map(|n| (n * samples).checked_sub(1).map(|place| projections[place])).collect()
}

pub const DECODER_BIAS: Definition = Definition {
    name: "decoder_bias",
    version: 1,
    meaning: "how much of feature i the reconstruction has when no latent fires",
    formula: "b_dec . g_i; where samples are normalised by themselves the mean of (sigma b_dec + mu) . g_i over the first 1024",
    source: "Chanin et al. 2025, Feature hedging, arXiv 2505.11756: the bias takes the mean of what no latent reads",
    needs: &[Need::Truth, Need::Dictionary, Need::Hidden, Need::Bias],
    kind: Kind::Amount,
    shape: Shape::PerFeature,
    label: "decoder bias along the feature",
    better: None,
};

/// [`DECODER_BIAS`] of each feature, from what is reconstructed of samples when all latents are silent, `[samples, d_hidden]`;
/// none without samples.
pub fn decoder_bias(truth: &Directions, silent: ArrayView2<'_, f32>) -> Vec<Option<f64>> {
    let Some(mean) = silent.mapv(f64::from).mean_axis(Axis(0)) else { return vec![None; truth.n] };
    (0..truth.n).map(|i| Some(truth.unit(i).iter().zip(&mean).map(|(g, b)| g * b).sum())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use ndarray::{Array2, arr2};

    /// A mean of (1, 3) along (2, 0) and (3, 4)/5.
    #[test]
    fn the_decoder_bias_is_read_along_unit_directions() {
        let truth = Directions::new(arr2(&[[2.0, 0.0], [0.6, 0.8]]).view());
        let found = decoder_bias(&truth, arr2(&[[0.0f32, 2.0], [2.0, 4.0]]).view());
        assert!((found[0].unwrap() - 1.0).abs() < 1e-12 && (found[1].unwrap() - 3.0).abs() < 1e-7, "{found:?}");
        assert_eq!(decoder_bias(&truth, Array2::zeros((0, 2)).view()), [None, None]);
    }

    /// Rows (2, 0), (3, 4)/5 and (0, -1): cosines .6, 0, -.8.
    #[test]
    fn c_dec_is_the_mean_over_pairs() {
        let found = c_dec(&Directions::new(arr2(&[[2.0, 0.0], [0.6, 0.8], [0.0, -1.0]]).view()));
        assert!((found.unwrap() - 1.4 / 3.0).abs() < 1e-15);
        assert!(c_dec(&Directions::new(arr2(&[[2.0, 0.0]]).view())).is_err());
    }

    /// More rows than a block, against plain pairs: 20,000 numbers below 1, off by 1e-12 at most.
    #[test]
    fn c_dec_of_several_blocks_counts_every_pair_once() {
        let mut draws = Draws::new(6, Stream::Baseline, 0);
        let rows = Directions::new(Array2::from_shape_simple_fn((200, 9), || draws.normal()).view());
        let cosine = |j: usize, k: usize| super::super::vector::dot(rows.unit(j), rows.unit(k)).abs();
        let pairs = (0..200).flat_map(|j| (j + 1..200).map(move |k| (j, k)));
        let expected = pairs.map(|(j, k)| cosine(j, k)).sum::<f64>() / (200.0 * 199.0 / 2.0);
        assert!((c_dec(&rows).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn the_greatest_foreign_cosine_is_found() {
        let truth = Directions::new(arr2(&[[1.0, 0.0], [0.0, 1.0]]).view());
        let dictionary = Directions::new(arr2(&[[0.6, -0.8], [0.0, 1.0], [1.0, 1.0]]).view());
        let cosines = Cosines::new(&truth, &dictionary);
        // w_0 · g_1 = -.8; the last latent is nobody's.
        assert_eq!(cross_max(&cosines, &[0, 1], &[Some(0), Some(1)]), Ok(0.8));
        assert!(cross_max(&cosines, &[0], &[Some(0), None]).is_err());
    }

    /// Two samples, three latents: projections 3, 0, 3/√2 and 1, 2, 3/√2, sorted 3, 2.12, 2.12, 2, 1, 0. Entry n is the 2n-th.
    #[test]
    fn entry_n_is_the_projection_that_n_latents_a_sample_reach() {
        let dictionary = Directions::new(arr2(&[[1.0, 0.0], [0.0, 5.0], [1.0, 1.0]]).view());
        let centred = Directions::new(arr2(&[[3.0, 0.0], [1.0, 2.0]]).view());
        let found = decoder_projection(&dictionary, &centred);
        assert_eq!((found[0], found[2]), (None, Some(2.0)));
        assert!((found[1].unwrap() - 3.0 / 2f64.sqrt()).abs() < 1e-15);
    }
}
