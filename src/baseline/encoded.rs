//! A dictionary of unit rows with an encoder that only has to find out what fires: the oracle has the true one, and learned
//! ones are read the same ways.

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

/// How h is read. g_i are the directions, b the bias.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    /// ReLU(g_i · (h - b) + shift): one step, one number for all directions.
    Relu {
        /// See [`relu_shift`].
        shift: f32,
    },
    /// Least squares on the features that truly fire: what no encoder that has to find them can undercut. Values keep their
    /// sign; a feature whose direction depends on those before it counts as 0.
    LeastSquares,
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

/// A dictionary under one of the encoders.
#[derive(Clone, Debug)]
pub struct Encoded {
    dictionary: Array2<f32>,
    bias: Vec<f32>,
    /// -g_i · b, plus the shift of [`Encoding::Relu`].
    offset: Vec<f32>,
    norm: Vec<f32>,
    encoding: Encoding,
}

/// `dictionary` `[n_latents, d_hidden]` has unit rows (a row of zeros is a direction that is never found), `bias` `[d_hidden]`.
///
/// # Panics
/// If the widths differ.
pub fn encoded(dictionary: ArrayView2<'_, f32>, bias: &[f32], encoding: Encoding) -> Encoded {
    assert_eq!(dictionary.ncols(), bias.len(), "a bias of the dictionary's width");
    let dictionary = dictionary.as_standard_layout().into_owned();
    let along = |g: ArrayView1<'_, f32>| -g.iter().zip(bias).map(|(&g, &b)| g as f64 * b as f64).sum::<f64>();
    let shift = if let Encoding::Relu { shift } = encoding { shift as f64 } else { 0.0 };
    Encoded {
        offset: dictionary.rows().into_iter().map(|g| (along(g) + shift) as f32).collect(),
        norm: vec![1.0; dictionary.nrows()],
        bias: bias.to_vec(),
        dictionary,
        encoding,
    }
}

/// The shift of [`Encoding::Relu`] that reconstructs `h` `[samples, d_hidden]` with the least squared error.
///
/// The error is a piecewise quadratic function of the shift with more than one dip, so it is looked for on a grid from the
/// negative of the greatest product (nothing fires) to a quarter of it, and twice on a grid sixteen times finer around the
/// best; of equal errors the lower shift counts.
pub fn relu_shift(dictionary: ArrayView2<'_, f32>, bias: &[f32], h: ArrayView2<'_, f32>) -> f32 {
    let error = |shift: f64| {
        let coder = encoded(dictionary, bias, Encoding::Relu { shift: shift as f32 });
        let found = coder.rebuild(coder.encode(h).view());
        found.iter().zip(h).map(|(&a, &b)| (a as f64 - b as f64) * (a as f64 - b as f64)).sum::<f64>()
    };
    let products = encoded(dictionary, bias, Encoding::Relu { shift: 0.0 }).encode(h);
    let greatest = products.iter().fold(0.0f32, |a, &b| a.max(b)) as f64;
    if greatest == 0.0 {
        return 0.0;
    }
    let (mut step, mut best) = (greatest / 32.0, (f64::MAX, 0.0));
    let mut look = |shifts: Vec<f64>| {
        let errors: Vec<(f64, f64)> = shifts.into_par_iter().map(|shift| (error(shift), shift)).collect();
        best = errors.into_iter().fold(best, |best, new| if new.0 < best.0 { new } else { best });
        best.1
    };
    let mut around = look((-32..=8).map(|i| i as f64 * step).collect());
    for _ in 0..2 {
        let fine = step / 16.0;
        around = look((-16..=16).map(|i| around + i as f64 * fine).collect());
        step = fine;
    }
    around as f32
}

impl Coder for Encoded {
    fn n_latents(&self) -> usize {
        self.dictionary.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.dictionary.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.dictionary.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        match self.encoding {
            Encoding::Relu { .. } => self.select(Keep::Positive, h),
            Encoding::TopK { k } => self.select(Keep::Top(k), h),
            Encoding::LeastSquares => panic!("least squares on the true support is asked for with the support"),
            Encoding::Omp { k } => self.pursue(k, h),
            Encoding::Fista(fista) => fista.encode(self.dictionary.view(), &self.bias, h),
        }
    }

    fn needs_truth(&self) -> bool {
        self.encoding == Encoding::LeastSquares
    }

    fn encode_knowing(&self, h: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>) -> Array2<f32> {
        match self.encoding {
            Encoding::LeastSquares => self.least_squares(h, x),
            _ => self.encode(h),
        }
    }

    fn decode(&self, latents: ArrayView2<'_, f32>, _h: ArrayView2<'_, f32>) -> Array2<f32> {
        self.rebuild(latents)
    }

    /// `W_dec` `[n_features, d_hidden]`, `b_dec` `[d_hidden]`.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        let bias = ArrayD::from_shape_vec(vec![self.bias.len()], self.bias.clone()).expect("one axis");
        vec![("W_dec", self.dictionary.clone().into_dyn()), ("b_dec", bias)]
    }
}

impl Encoded {
    fn rebuild(&self, latents: ArrayView2<'_, f32>) -> Array2<f32> {
        infer::decode(Isa::best(), latents, self.dictionary.view(), &self.bias)
    }

    fn select(&self, keep: Keep, h: ArrayView2<'_, f32>) -> Array2<f32> {
        Encoder { w_enc: self.dictionary.view(), offset: &self.offset, norm: &self.norm, keep }.encode(Isa::best(), h)
    }

    /// Least squares of h on the rows where x is not 0, sample by sample.
    fn least_squares(&self, h: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>) -> Array2<f32> {
        assert_eq!((h.nrows(), self.dictionary.nrows()), x.dim(), "true activations of these samples and features");
        let numbers = self.dictionary.as_slice().expect("standard layout");
        let samples: Vec<Vec<f32>> = (0..h.nrows())
            .into_par_iter()
            .map(|s| {
                let mut pursuit = Pursuit::new(&h.row(s).to_vec(), &self.bias);
                for (i, _) in x.row(s).iter().enumerate().filter(|(_, x)| **x != 0.0) {
                    pursuit.join(i, numbers);
                }
                pursuit.solve();
                let mut codes = vec![0.0; x.ncols()];
                pursuit.chosen.iter().zip(&pursuit.values).for_each(|(&i, &value)| codes[i] = value as f32);
                codes
            })
            .collect();
        Array2::from_shape_vec(x.dim(), samples.concat()).expect("a code a feature and sample")
    }

    /// Matching pursuit of every sample, panels over threads.
    fn pursue(&self, k: usize, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (n, d) = self.dictionary.dim();
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
        let (n, d) = self.dictionary.dim();
        let (isa, live) = (Isa::best(), h.len() / d);
        let numbers = self.dictionary.as_slice().expect("standard layout");
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
    fn step(&mut self, best: usize, product: f64, dictionary: &[f32]) {
        let d = self.target.len();
        let nothing = product <= NOTHING_LEFT * self.size || self.chosen.contains(&best);
        if self.ended || nothing || !self.join(best, dictionary) {
            self.ended = true;
            return;
        }
        self.solve();
        self.residual.copy_from_slice(&self.target);
        for (&i, value) in self.chosen.iter().zip(&self.values) {
            let direction = &dictionary[i * d..][..d];
            self.residual.iter_mut().zip(direction).for_each(|(r, &g)| *r -= value * g as f64);
        }
    }

    /// Takes a direction into the factors; false where it depends on those that are there.
    fn join(&mut self, new: usize, dictionary: &[f32]) -> bool {
        let d = self.target.len();
        let direction = |i: usize| dictionary[i * d..][..d].iter().map(|&g| g as f64).collect::<Vec<f64>>();
        let (index, new) = (new, direction(new));
        let mut row: Vec<f64> = vec![];
        for (&i, known) in self.chosen.iter().zip(&self.factor) {
            let rest = dot(&new, &direction(i)) - dot(&row, known);
            row.push(rest / known[row.len()]);
        }
        let outside = dot(&new, &new) - dot(&row, &row);
        if outside <= DEPENDENT {
            return false;
        }
        let pivot = outside.sqrt();
        self.half_solved.push((dot(&new, &self.target) - dot(&row, &self.half_solved)) / pivot);
        row.push(pivot);
        self.factor.push(row);
        self.chosen.push(index);
        true
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
            let omp = encoded(truth.view(), &bias, Encoding::Omp { k });
            let h = omp.rebuild(x.view());
            assert_codes(&omp.encode(h.view()), &x);
            // TopK has no rule for "nothing left": what rounding leaves positive may fill up its k.
            let found = encoded(truth.view(), &bias, Encoding::TopK { k }).encode(h.view());
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
        let omp = encoded(truth.view(), &[0.0; 400], Encoding::Omp { k: 2 });
        assert_codes(&omp.encode(omp.rebuild(x.view()).view()), &x);
        // More steps than features that fire change nothing: nothing is left to look for.
        let longer = encoded(truth.view(), &[0.0; 400], Encoding::Omp { k: 9 });
        assert_codes(&longer.encode(omp.rebuild(x.view()).view()), &x);
    }

    /// g = (1, 0) and (.6, .8); h = .5 g_0 + g_1 = (1.1, .8): products 1.1 and 1.3, so OMP takes g_1 first, then g_0, and
    /// least squares finds both values; TopK keeps the products.
    #[test]
    fn overlapping_directions_are_told_apart_by_omp_alone() {
        let truth = arr2(&[[1.0, 0.0], [0.6, 0.8]]);
        let encode = |encoder| encoded(truth.view(), &[0.0; 2], encoder).encode(arr2(&[[1.1, 0.8]]).view());
        assert_codes(&encode(Encoding::Omp { k: 2 }), &arr2(&[[0.5, 1.0]]));
        assert_codes(&encode(Encoding::TopK { k: 2 }), &arr2(&[[1.1, 1.3]]));
        assert_codes(&encode(Encoding::Omp { k: 1 }), &arr2(&[[0.0, 1.3]]));
        assert_codes(&encode(Encoding::TopK { k: 1 }), &arr2(&[[0.0, 1.3]]));
    }

    #[test]
    fn ties_go_to_the_lower_feature_and_doubles_and_zero_rows_are_left_out() {
        let truth = arr2(&[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        let h = arr2(&[[2.0, 0.0], [2.0, 2.0], [0.0, 0.0], [-1.0, -1.0]]);
        let found = encoded(truth.view(), &[0.0; 2], Encoding::Omp { k: 4 }).encode(h.view());
        assert_eq!(found, arr2(&[[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 2.0], [0.0; 4], [0.0; 4]]));
        let found = encoded(truth.view(), &[0.0; 2], Encoding::TopK { k: 1 }).encode(h.view());
        assert_eq!(found, arr2(&[[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0; 4], [0.0; 4]]));
    }

    /// Ten of twenty random directions in twelve dimensions are independent: least squares gives their codes back, of either
    /// sign, and pays no heed to the rest. Conditions of such ten are below 1e3, h is off by 1e-6.
    #[test]
    fn least_squares_on_the_true_support_gives_the_codes_back() {
        let truth = rows(&Dictionary::random(20, 12, 3));
        let mut x = codes(50, 20, 10);
        x.column_mut(3).mapv_inplace(|x| -x);
        let bias = [0.3; 12];
        let squares = encoded(truth.view(), &bias, Encoding::LeastSquares);
        let found = squares.encode_knowing(squares.rebuild(x.view()).view(), x.view());
        assert!((&found - &x).iter().all(|e| e.abs() < 2e-3));
        assert!(found.iter().zip(&x).all(|(found, x)| (*found != 0.0) == (*x != 0.0)));
        // A direction that is there twice: the first takes it all.
        let twice = arr2(&[[1.0, 0.0], [1.0, 0.0]]);
        let found = encoded(twice.view(), &[0.0; 2], Encoding::LeastSquares)
            .encode_knowing(arr2(&[[3.0, 1.0]]).view(), arr2(&[[1.0, 2.0]]).view());
        assert_eq!(found, arr2(&[[3.0, 0.0]]));
    }

    /// One feature of value 1 along g_0, or along g_1 at cosine c. With -c < t < 0 the codes are 1 + t and c + t and the squared
    /// error is t² + (c + t)² + 2 t c (c + t), least at t = -c/2 where it is .072 for c = .6; from t = -c down the other code is
    /// silent and the error t² is .36 and more.
    #[test]
    fn the_shift_of_the_relu_is_the_one_of_least_error() {
        let truth = arr2(&[[1.0, 0.0], [0.6, 0.8]]);
        let h = truth.clone();
        let found = relu_shift(truth.view(), &[0.0; 2], h.view());
        // The last grid has steps of 1/32/256 = 1.2e-4.
        assert!((found + 0.3).abs() < 2e-4, "{found}");
        assert_eq!(relu_shift(truth.view(), &[0.0; 2], Array2::zeros((3, 2)).view()), 0.0);
        let latents = encoded(truth.view(), &[0.0; 2], Encoding::Relu { shift: -0.25 }).encode(h.view());
        assert!((latents - arr2(&[[0.75f32, 0.35], [0.35, 0.75]])).iter().all(|e| e.abs() < 1e-6));
    }

    #[test]
    fn threads_change_no_bit_of_a_pursuit() {
        let truth = rows(&Dictionary::random(40, 10, 3));
        let omp = encoded(truth.view(), &[0.1; 10], Encoding::Omp { k: 4 });
        let h = omp.rebuild(codes(333, 40, 5).view());
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 2, 3].map(|threads| on(threads).install(|| omp.encode(h.view())));
        assert!(found[0] == found[1] && found[0] == found[2]);
        assert!(found[0].iter().all(|&z| z >= 0.0));
    }
}
