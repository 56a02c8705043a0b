//! The oracle: the true dictionary with an encoder that only has to find out what fires.

use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::fista::Fista;
use crate::backend::ops::entries::Entries;
use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::layout::{PANEL, TILES, pack_panel};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::select::{Keep, SelectTop, TopScratch};
use crate::backend::simd::{self, Isa, Lanes};
use crate::sae::Coder;

/// How the oracle reads h. g_i are the true directions, b the true bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OracleEncoder {
    /// ReLU(g_i · (h - b)) on the k features where it is greatest; ties to the lower feature.
    TopK {
        /// Features kept at most.
        k: usize,
    },
    /// Orthogonal matching pursuit for non-negative codes (Bruckstein, Elad & Zibulevsky 2008, "On the uniqueness of
    /// nonnegative sparse solutions"): k times, or until nothing is left, the feature of greatest g_i · r joins, ties to
    /// the lower feature, and the values of all chosen are fitted again by least squares; r is what they leave of h - b.
    /// Values that end up negative count as 0.
    Omp {
        /// Features chosen at most.
        k: usize,
    },
    /// The codes of least L1 norm that give h - b, or nearly: see [`fista`](super::fista).
    Fista(Fista),
}

/// A matching pursuit ends where no direction meets more than this share of |h - b| in what is left: some fifty roundings
/// of the f32 product that looks for one.
const NOTHING_LEFT: f64 = 3e-6;

/// A direction whose squared part outside the chosen ones is at most this adds nothing to them.
const DEPENDENT: f64 = 1e-9;

/// The true dictionary under one of the encoders.
#[derive(Clone, Debug)]
pub struct Oracle {
    truth: Array2<f32>,
    bias: Vec<f32>,
    /// -g_i · b
    offset: Vec<f32>,
    norm: Vec<f32>,
    encoder: OracleEncoder,
}

/// `truth` `[n_features, d_hidden]` has unit rows (a row of zeros is a feature that is never found), `bias` `[d_hidden]`.
///
/// # Panics
/// If the widths differ.
pub fn oracle(truth: ArrayView2<'_, f32>, bias: &[f32], encoder: OracleEncoder) -> Oracle {
    assert_eq!(truth.ncols(), bias.len(), "a bias of the dictionary's width");
    let truth = truth.as_standard_layout().into_owned();
    let along = |g: ArrayView1<'_, f32>| -g.iter().zip(bias).map(|(&g, &b)| g as f64 * b as f64).sum::<f64>() as f32;
    Oracle {
        offset: truth.rows().into_iter().map(along).collect(),
        norm: vec![1.0; truth.nrows()],
        bias: bias.to_vec(),
        truth,
        encoder,
    }
}

impl Coder for Oracle {
    fn n_latents(&self) -> usize {
        self.truth.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.truth.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.truth.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        match self.encoder {
            OracleEncoder::TopK { k } => {
                let (w_enc, offset, norm) = (self.truth.view(), &self.offset[..], &self.norm[..]);
                Encoder { w_enc, offset, norm, keep: Keep::Top(k) }.encode(Isa::best(), h)
            }
            OracleEncoder::Omp { k } => self.pursue(k, h),
            OracleEncoder::Fista(fista) => fista.encode(self.truth.view(), &self.bias, h),
        }
    }

    fn decode(&self, latents: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.truth.view(), &self.bias)
    }

    /// `W_dec` `[n_features, d_hidden]`, `b_dec` `[d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        let bias = ArrayD::from_shape_vec(vec![self.bias.len()], self.bias.clone()).expect("one axis");
        vec![("W_dec", self.truth.clone().into_dyn()), ("b_dec", bias)]
    }
}

impl Oracle {
    /// Matching pursuit of every sample, panels over threads.
    fn pursue(&self, k: usize, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (n, d) = self.truth.dim();
        assert_eq!(h.ncols(), d, "hidden states of the wrong width");
        let h = h.as_standard_layout();
        let h = h.as_slice().expect("standard layout");
        let mut latents = vec![0.0; h.len() / d * n];
        let panels = latents.par_chunks_mut(PANEL * n).zip(h.par_chunks(PANEL * d));
        panels.for_each(|(out, h)| self.pursue_panel(k, h, out));
        Array2::from_shape_vec((latents.len() / n, n), latents).expect("as many numbers as the shape says")
    }

    /// Up to [`PANEL`] samples take their steps together: the products that look for the next direction are one.
    fn pursue_panel(&self, k: usize, h: &[f32], out: &mut [f32]) {
        let (n, d) = self.truth.dim();
        let (isa, live) = (Isa::best(), h.len() / d);
        let numbers = self.truth.as_slice().expect("standard layout");
        let (mut panel, mut products) = (vec![Lanes::default(); d * TILES], vec![Lanes::default(); n * TILES]);
        let (mut scratch, mut kept, zeros) = (TopScratch::default(), Entries::new(1), vec![0.0; n]);
        let mut pursuits: Vec<Pursuit> = h.chunks_exact(d).map(|h| Pursuit::new(h, &self.bias)).collect();
        let mut residuals = vec![0.0; live * d];
        for _ in 0..k.min(n) {
            for (to, pursuit) in residuals.chunks_exact_mut(d).zip(&pursuits) {
                to.iter_mut().zip(&pursuit.residual).for_each(|(to, &r)| *to = r as f32);
            }
            pack_panel(&residuals, d, 1.0, &mut panel);
            let weights = Strided { numbers, row_stride: d, depth_stride: 1 };
            simd::run(isa, Product { weights, start: &zeros, x: &panel, out: &mut products });
            let greatest = SelectTop {
                pre: &products,
                norm: &self.norm,
                among: None,
                k: 1,
                relu: true,
                live,
                scratch: &mut scratch,
                kept: &mut kept,
            };
            simd::run(isa, greatest);
            for (s, pursuit) in pursuits.iter_mut().enumerate() {
                match kept.of(s) {
                    (&[best], &[product]) => pursuit.step(best as usize, product as f64, numbers),
                    _ => pursuit.ended = true,
                }
            }
        }
        for (out, pursuit) in out.chunks_exact_mut(n).zip(&pursuits) {
            for (&i, &value) in pursuit.chosen.iter().zip(&pursuit.values) {
                out[i] = value.max(0.0) as f32;
            }
        }
    }
}

/// One sample's matching pursuit.
struct Pursuit {
    /// h - b
    target: Vec<f64>,
    size: f64,
    residual: Vec<f64>,
    chosen: Vec<usize>,
    values: Vec<f64>,
    /// Rows of the Cholesky factor L of the Gram matrix of the chosen directions, L Lᵀ.
    factor: Vec<Vec<f64>>,
    /// y of L y = products of the chosen directions with h - b, so that Lᵀ values = y.
    half_solved: Vec<f64>,
    ended: bool,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Pursuit {
    fn new(h: &[f32], bias: &[f32]) -> Pursuit {
        let target: Vec<f64> = h.iter().zip(bias).map(|(&h, &b)| h as f64 - b as f64).collect();
        Pursuit {
            size: dot(&target, &target).sqrt(),
            residual: target.clone(),
            target,
            chosen: vec![],
            values: vec![],
            factor: vec![],
            half_solved: vec![],
            ended: false,
        }
    }

    /// Direction `best` has the greatest product with the residual, `product`: it joins, unless that is nothing.
    fn step(&mut self, best: usize, product: f64, truth: &[f32]) {
        let d = self.target.len();
        let direction = |i: usize| truth[i * d..][..d].iter().map(|&g| g as f64).collect::<Vec<f64>>();
        if self.ended || product <= NOTHING_LEFT * self.size || self.chosen.contains(&best) {
            self.ended = true;
            return;
        }
        let new = direction(best);
        let mut row: Vec<f64> = vec![];
        for (&i, known) in self.chosen.iter().zip(&self.factor) {
            let rest = dot(&new, &direction(i)) - dot(&row, known);
            row.push(rest / known[row.len()]);
        }
        let outside = dot(&new, &new) - dot(&row, &row);
        if outside <= DEPENDENT {
            self.ended = true;
            return;
        }
        let pivot = outside.sqrt();
        self.half_solved.push((dot(&new, &self.target) - dot(&row, &self.half_solved)) / pivot);
        row.push(pivot);
        self.factor.push(row);
        self.chosen.push(best);
        self.solve();
        self.residual.copy_from_slice(&self.target);
        for (&i, value) in self.chosen.iter().zip(&self.values) {
            self.residual.iter_mut().zip(direction(i)).for_each(|(r, g)| *r -= value * g);
        }
    }

    /// Lᵀ values = y, from the last up.
    fn solve(&mut self) {
        self.values = self.half_solved.clone();
        for i in (0..self.chosen.len()).rev() {
            self.values[i] /= self.factor[i][i];
            for j in 0..i {
                self.values[j] -= self.factor[i][j] * self.values[i];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dictionary::Dictionary;
    use crate::random::{Draws, Stream};
    use ndarray::arr2;

    fn rows(dictionary: &Dictionary) -> Array2<f32> {
        let shape = (dictionary.n_features, dictionary.d_hidden);
        Array2::from_shape_vec(shape, dictionary.vectors.clone()).expect("as many numbers as the shape says")
    }

    /// Codes of at most k features, of values in [0.5, 1.5].
    fn codes(samples: usize, n: usize, k: usize) -> Array2<f32> {
        let mut draws = Draws::new(8, Stream::Baseline, 0);
        let mut x = Array2::zeros((samples, n));
        for mut row in x.rows_mut() {
            for _ in 0..k {
                row[draws.below(n as u32) as usize] = 0.5 + draws.uniform() as f32;
            }
        }
        x
    }

    fn assert_codes(found: &Array2<f32>, expected: &Array2<f32>) {
        for (&found, &expected) in found.iter().zip(expected) {
            // h in f32 is off by 6e-8 of its size, below 10, for each of up to k + 1 roundings: codes by some 1e-6.
            assert!((found - expected).abs() < 1e-5 && (found > 0.0) == (expected > 0.0), "{found} {expected}");
        }
    }

    #[test]
    fn an_orthogonal_dictionary_gives_its_codes_back_with_either_encoder() {
        let truth = rows(&Dictionary::orthogonal(20, 24, 1).expect("20 fit into 24"));
        let bias: Vec<f32> = (0..24).map(|k| k as f32 / 10.0).collect();
        for k in [1, 3, 5] {
            let x = codes(130, 20, k);
            let omp = oracle(truth.view(), &bias, OracleEncoder::Omp { k });
            let h = omp.decode(x.view());
            assert_codes(&omp.encode(h.view()), &x);
            // TopK has no rule for "nothing left": what rounding leaves positive may fill up its k.
            let found = oracle(truth.view(), &bias, OracleEncoder::TopK { k }).encode(h.view());
            assert!((&found - &x).iter().all(|e| e.abs() < 1e-5));
        }
    }

    /// With mutual coherence mu < 1/3 (asserted) every code of k < (1 + 1/mu) / 2, so of k = 2, is found (Tropp 2004,
    /// "Greed is good", theorem 3.5).
    #[test]
    fn an_incoherent_dictionary_gives_its_codes_back_with_omp() {
        let truth = rows(&Dictionary::random(96, 400, 3));
        let mut coherence = 0.0f32;
        for i in 0..96 {
            for j in 0..i {
                let product: f32 = truth.row(i).iter().zip(truth.row(j)).map(|(a, b)| a * b).sum();
                coherence = coherence.max(product.abs());
            }
        }
        assert!(coherence < 1.0 / 3.0, "{coherence}");
        let x = codes(100, 96, 2);
        let omp = oracle(truth.view(), &[0.0; 400], OracleEncoder::Omp { k: 2 });
        assert_codes(&omp.encode(omp.decode(x.view()).view()), &x);
        // More steps than features that fire change nothing: nothing is left to look for.
        let longer = oracle(truth.view(), &[0.0; 400], OracleEncoder::Omp { k: 9 });
        assert_codes(&longer.encode(omp.decode(x.view()).view()), &x);
    }

    /// g = (1, 0) and (.6, .8); h = .5 g_0 + g_1 = (1.1, .8): products 1.1 and 1.3, so OMP takes g_1 first, then g_0, and
    /// least squares finds both values; TopK keeps the products.
    #[test]
    fn overlapping_directions_are_told_apart_by_omp_alone() {
        let truth = arr2(&[[1.0, 0.0], [0.6, 0.8]]);
        let encode = |encoder| oracle(truth.view(), &[0.0; 2], encoder).encode(arr2(&[[1.1, 0.8]]).view());
        assert_codes(&encode(OracleEncoder::Omp { k: 2 }), &arr2(&[[0.5, 1.0]]));
        assert_codes(&encode(OracleEncoder::TopK { k: 2 }), &arr2(&[[1.1, 1.3]]));
        assert_codes(&encode(OracleEncoder::Omp { k: 1 }), &arr2(&[[0.0, 1.3]]));
        assert_codes(&encode(OracleEncoder::TopK { k: 1 }), &arr2(&[[0.0, 1.3]]));
    }

    #[test]
    fn ties_go_to_the_lower_feature_and_doubles_and_zero_rows_are_left_out() {
        let truth = arr2(&[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        let h = arr2(&[[2.0, 0.0], [2.0, 2.0], [0.0, 0.0], [-1.0, -1.0]]);
        let found = oracle(truth.view(), &[0.0; 2], OracleEncoder::Omp { k: 4 }).encode(h.view());
        assert_eq!(found, arr2(&[[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0], [0.0; 4], [0.0; 4]]));
        let found = oracle(truth.view(), &[0.0; 2], OracleEncoder::TopK { k: 1 }).encode(h.view());
        assert_eq!(found, arr2(&[[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0; 4], [0.0; 4]]));
    }

    #[test]
    fn threads_change_no_bit_of_a_pursuit() {
        let truth = rows(&Dictionary::random(40, 10, 3));
        let omp = oracle(truth.view(), &[0.1; 10], OracleEncoder::Omp { k: 4 });
        let h = omp.decode(codes(333, 40, 5).view());
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 2, 3].map(|threads| on(threads).install(|| omp.encode(h.view())));
        assert!(found[0] == found[1] && found[0] == found[2]);
        assert!(found[0].iter().all(|&z| z >= 0.0));
    }
}
