//! Encoding and decoding of samples at inference, for SAEs and baselines alike.
//!
//! ```text
//! pre_j = offset_j + w_enc_j · h        kept by the rule of [`Keep`], ReLU but for `Keep::All`
//! ĥ     = b_dec + Σ z_j w_dec_j         over z_j ≠ 0, ascending j
//! ```
//!
//! Both are the fixed sums of the training step, so a row's bits depend on nothing but the row and the weights (and,
//! where a batch is selected from, on the batch it stands in).

use ndarray::{Array2, ArrayView2};

use super::batch_top::keep_greatest_dense;
use super::entries::Entries;
use super::layout::{LANES, PANEL, TILES, flat, flat_mut, pack_panel, pack_rows, vectors};
use super::product::{Product, Strided};
use super::rows;
use super::select::{Keep, SelectTop, TopScratch};
use crate::backend::simd::{self, Isa, Kernel, Lanes, Simd};

/// An encoder that selects among affine functions of h.
#[derive(Clone, Copy)]
pub struct Encoder<'a> {
    /// `[n_latents, d]`
    pub w_enc: ArrayView2<'a, f32>,
    /// `[n_latents]`
    pub offset: &'a [f32],
    /// `[n_latents]`: selection is by pre_j norm_j.
    pub norm: &'a [f32],
    /// What of pre becomes z.
    pub keep: Keep,
}

impl Encoder<'_> {
    /// Latents `[samples, n_latents]` of h `[samples, d]`.
    pub fn encode(&self, isa: Isa, h: ArrayView2<'_, f32>) -> Array2<f32> {
        let (m, d) = self.w_enc.dim();
        assert_eq!(h.ncols(), d, "hidden states of the wrong width");
        let (h, w_enc) = (h.as_standard_layout(), self.w_enc.as_standard_layout());
        let (h, w_enc) = (h.as_slice().expect("standard layout"), w_enc.as_slice().expect("standard layout"));
        let mut latents = vec![0.0; h.len() / d * m];
        let (mut panel, mut pre) = (vec![Lanes::default(); d * TILES], vec![Lanes::default(); m * TILES]);
        let (mut scratch, mut kept) = (TopScratch::default(), Entries::new(0));
        for (h, out) in h.chunks(PANEL * d).zip(latents.chunks_mut(PANEL * m)) {
            let live = h.len() / d;
            pack_panel(h, d, 1.0, &mut panel);
            let weights = Strided { numbers: w_enc, row_stride: d, depth_stride: 1 };
            simd::run(isa, Product { weights, start: self.offset, x: &panel, out: &mut pre });
            match self.keep {
                Keep::All => transpose(flat(&pre), m, out, |_, x| x),
                Keep::Positive | Keep::BatchTop { .. } => {
                    transpose(flat(&pre), m, out, |_, x| if x > 0.0 { x } else { 0.0 });
                }
                Keep::Above(bar) => {
                    let norm = self.norm;
                    transpose(flat(&pre), m, out, |j, x| if x > 0.0 && x * norm[j] > bar { x } else { 0.0 });
                }
                Keep::Top(k) => {
                    let (pre, norm) = (&pre[..], self.norm);
                    let (scratch, kept) = (&mut scratch, &mut kept);
                    simd::run(isa, SelectTop { pre, norm, among: None, k, relu: true, live, scratch, kept });
                    for (s, row) in out.chunks_exact_mut(m).enumerate() {
                        let (latents, values) = kept.of(s);
                        for (&j, &z) in latents.iter().zip(values) {
                            row[j as usize] = z;
                        }
                    }
                }
            }
        }
        if let Keep::BatchTop { k, batch } = self.keep {
            for latents in latents.chunks_mut(batch.max(1) * m) {
                let count = (k * (latents.len() / m) as f64).floor() as usize;
                keep_greatest_dense(latents, self.norm, count);
            }
        }
        Array2::from_shape_vec((latents.len() / m, m), latents).expect("as many numbers as the shape says")
    }
}

/// A panel `[m][PANEL]` as rows `[samples, m]`, sixteen latents at a time so that both sides stay in the cache.
fn transpose(pre: &[f32], m: usize, out: &mut [f32], f: impl Fn(usize, f32) -> f32) {
    for first in (0..m).step_by(LANES) {
        let last = (first + LANES).min(m);
        for (s, row) in out.chunks_exact_mut(m).enumerate() {
            for (j, out) in row[first..last].iter_mut().enumerate() {
                *out = f(first + j, pre[(first + j) * PANEL + s]);
            }
        }
    }
}

/// Reconstructions `[samples, d]` of `latents` `[samples, n_latents]` with `decoder` `[n_latents, d]` and bias `[d]`.
pub fn decode(isa: Isa, latents: ArrayView2<'_, f32>, decoder: ArrayView2<'_, f32>, bias: &[f32]) -> Array2<f32> {
    let (m, d) = decoder.dim();
    assert_eq!(latents.ncols(), m, "latents of the wrong width");
    let (latents, decoder) = (latents.as_standard_layout(), decoder.as_standard_layout());
    let latents = latents.as_slice().expect("standard layout");
    let (mut w_dec, mut start) = (vec![], vec![]);
    pack_rows(decoder.as_slice().expect("standard layout"), d, 1.0, &mut w_dec);
    pack_rows(bias, d, 1.0, &mut start);
    let mut out = vec![0.0; latents.len() / m * d];
    simd::run(isa, Decode { latents, w_dec: &w_dec, start: &start, out: &mut out, d });
    Array2::from_shape_vec((latents.len() / m, d), out).expect("as many numbers as the shape says")
}

struct Decode<'a> {
    latents: &'a [f32],
    /// `[n_latents][vectors(d)]`
    w_dec: &'a [Lanes],
    start: &'a [Lanes],
    out: &'a mut [f32],
    d: usize,
}

impl Kernel for Decode<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let width = vectors(self.d);
        let m = self.w_dec.len() / width;
        let mut row = vec![Lanes::default(); width];
        for (latents, out) in self.latents.chunks_exact(m).zip(self.out.chunks_exact_mut(self.d)) {
            row.copy_from_slice(self.start);
            for (j, &z) in latents.iter().enumerate().filter(|(_, z)| **z != 0.0) {
                rows::add_multiple::<S>(&mut row, z, &self.w_dec[j * width..][..width]);
            }
            out.copy_from_slice(&flat_mut(&mut row)[..self.d]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn random(rows: usize, columns: usize, part: u64) -> Array2<f32> {
        let mut draws = Draws::new(9, Stream::SaeInit, part);
        Array2::from_shape_simple_fn((rows, columns), || draws.normal() as f32)
    }

    /// Chains of fused sums are the definition, so equality is exact, whatever stands around a sample.
    #[test]
    fn every_sample_is_encoded_by_the_definition_on_every_instruction_set() {
        for (samples, m, d) in [(1, 1, 1), (65, 17, 5), (130, 40, 20), (3, 5, 70)] {
            let (h, w_enc) = (random(samples, d, 1), random(m, d, 2));
            let offset = random(1, m, 3).into_raw_vec_and_offset().0;
            let norm: Vec<f32> = (0..m).map(|j| 1.0 + (j % 3) as f32).collect();
            let pre = |s: usize, j: usize| (0..d).fold(offset[j], |sum, k| w_enc[[j, k]].mul_add(h[[s, k]], sum));
            for keep in [Keep::All, Keep::Positive, Keep::Above(0.7), Keep::Top(1), Keep::Top(m)] {
                let encoder = Encoder { w_enc: w_enc.view(), offset: &offset, norm: &norm, keep };
                for isa in Isa::available() {
                    let latents = encoder.encode(isa, h.view());
                    assert_eq!(latents.dim(), (samples, m));
                    for ((s, j), &z) in latents.indexed_iter() {
                        let greater = |&i: &usize| pre(s, i) * norm[i] > pre(s, j) * norm[j];
                        let expected = match keep {
                            Keep::All => pre(s, j),
                            Keep::Top(k) if (0..m).filter(greater).count() >= k => 0.0,
                            Keep::Above(bar) if pre(s, j) * norm[j] <= bar => 0.0,
                            _ => pre(s, j).max(0.0),
                        };
                        assert_eq!(z, expected, "{isa:?} {keep:?} ({s}, {j}) of {samples} x {m}, d = {d}");
                    }
                    let middle = h.slice(ndarray::s![samples / 2.., ..]);
                    assert_eq!(encoder.encode(isa, middle), latents.slice(ndarray::s![samples / 2.., ..]));
                }
            }
        }
    }

    #[test]
    fn decoding_adds_what_is_not_zero_in_order_of_latents() {
        for (samples, m, d) in [(1, 1, 1), (7, 17, 5), (5, 40, 20), (3, 5, 70)] {
            let (mut latents, decoder, bias) = (random(samples, m, 4), random(m, d, 5), random(1, d, 6));
            latents.mapv_inplace(|z| if z > 0.5 { 0.0 } else { z });
            for isa in Isa::available() {
                let decoded = decode(isa, latents.view(), decoder.view(), bias.as_slice().expect("one row"));
                for ((s, k), &x) in decoded.indexed_iter() {
                    let kept = (0..m).filter(|&j| latents[[s, j]] != 0.0);
                    let chain = kept.fold(bias[[0, k]], |sum, j| latents[[s, j]].mul_add(decoder[[j, k]], sum));
                    assert_eq!(x, chain, "{isa:?} ({s}, {k}) of {samples} x {m}, d = {d}");
                }
            }
        }
    }

    /// What a batch keeps is the subject of [`super::super::batch_top`]; here only the cut into batches is.
    #[test]
    fn batches_select_each_for_itself() {
        let (h, w_enc) = (random(70, 5, 1), random(9, 5, 2));
        let norm = [1.0, 2.0, 0.5, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0];
        let keep = Keep::BatchTop { k: 1.6, batch: 32 };
        let encoder = Encoder { w_enc: w_enc.view(), offset: &[0.1; 9], norm: &norm, keep };
        let latents = encoder.encode(Isa::best(), h.view());
        for (first, count) in [(0, 51), (32, 51), (64, 9)] {
            let batch = latents.slice(ndarray::s![first..(first + 32).min(70), ..]);
            assert_eq!(batch.iter().filter(|z| **z > 0.0).count(), count);
            let alone = encoder.encode(Isa::best(), h.slice(ndarray::s![first..(first + 32).min(70), ..]));
            assert_eq!(alone, batch);
        }
    }

    #[test]
    fn no_samples_give_no_latents() {
        let w_enc = random(3, 2, 1);
        let encoder = Encoder { w_enc: w_enc.view(), offset: &[0.0; 3], norm: &[1.0; 3], keep: Keep::Top(2) };
        let none = encoder.encode(Isa::best(), Array2::zeros((0, 2)).view());
        assert_eq!(none.dim(), (0, 3));
        assert_eq!(decode(Isa::best(), none.view(), w_enc.view(), &[0.0; 2]).dim(), (0, 2));
    }

    /// Columns first in memory: the layout is no matter.
    #[test]
    fn arrays_in_any_layout_give_the_same() {
        let (h, w_enc) = (random(20, 6, 1), random(9, 6, 2));
        let turned = h.t().as_standard_layout().into_owned();
        let encoder = Encoder { w_enc: w_enc.view(), offset: &[0.1; 9], norm: &[1.0; 9], keep: Keep::Positive };
        let latents = encoder.encode(Isa::best(), h.view());
        assert_eq!(latents, encoder.encode(Isa::best(), turned.t()));
    }
}
