//! The arrays of an autoencoder, and the autoencoder they make.

use ndarray::{Array1, Array2, ArrayD, ArrayView2};

use super::matryoshka::Sort;
use super::normalise::Undo;
use super::program::{Program, Pursuit};
use super::{Coder, Normalise, SaeJob};
use crate::backend::ops::infer::{self, Encoder};
use crate::backend::ops::layout::pack_rows;
use crate::backend::ops::pursuit::{Matrices, pursue};
use crate::backend::ops::rows::Refresh;
use crate::backend::ops::select::Keep;
use crate::backend::simd::{self, Isa};
use crate::random::{Draws, Stream};

/// pre = W_enc (h - b_dec) + b_enc; ĥ = W_decᵀ z + b_dec.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Latents.
    pub n_latents: usize,
    /// Width of h.
    pub d_hidden: usize,
    /// `[n_latents, d_hidden]`
    pub w_enc: Vec<f32>,
    /// `[n_latents]`
    pub b_enc: Vec<f32>,
    /// `[n_latents, d_hidden]`
    pub w_dec: Vec<f32>,
    /// `[d_hidden]`
    pub b_dec: Vec<f32>,
    /// More numbers of each latent, `[n_latents]` each, where the architecture has some: the threshold of a JumpReLU
    /// autoencoder; r_mag and b_mag of a gated one, whose `b_enc` is b_gate.
    pub per_latent: Vec<Vec<f32>>,
}

impl Weights {
    /// Decoder rows are random directions of the program's initial norm, encoder rows equal them, biases are 0. SAEs of
    /// one seed and shape start from the same directions.
    pub fn init(seed: u64, n_latents: usize, d_hidden: usize, program: &Program) -> Weights {
        let mut draws = Draws::new(seed, Stream::SaeInit, 0);
        let w_dec = directions(&mut draws, n_latents, d_hidden, program.init_norm);
        // Thresholds start at the program's; r_mag and b_mag at 0.
        let first = program.init_threshold as f32;
        Weights {
            n_latents,
            d_hidden,
            w_enc: w_dec.clone(),
            b_enc: vec![0.0; n_latents],
            w_dec,
            b_dec: vec![0.0; d_hidden],
            per_latent: vec![vec![first; n_latents]; program.per_latent()],
        }
    }

    /// Weights that do on h what these do on `scale` h: latents stay, the reconstruction is in the scale of h.
    pub fn fold_scale(&mut self, scale: f64) {
        self.w_enc.iter_mut().for_each(|w| *w = (*w as f64 * scale) as f32);
        self.w_dec.iter_mut().chain(&mut self.b_dec).for_each(|w| *w = (*w as f64 / scale) as f32);
    }

    /// What is done to trained weights once: a given decoder is put back bit for bit, and latents that were sorted by
    /// `usage` while training are put into that order.
    pub fn finish(&mut self, job: &SaeJob, program: &Program, usage: &[f64]) {
        if let Some(given) = &job.frozen_decoder {
            self.w_dec.clone_from(&given.w_dec);
            self.b_dec.clone_from(&given.b_dec);
        }
        if let Some(levels) = program.levels.as_ref().filter(|levels| levels.sort != Sort::None) {
            self.reorder(&levels.order(self.n_latents, usage));
        }
    }

    /// The same autoencoder with its latents in another order: latent i becomes `order[i]` of before.
    pub fn reorder(&mut self, order: &[usize]) {
        let d = self.d_hidden;
        let rows = |w: &[f32]| order.iter().flat_map(|&j| w[j * d..][..d].iter().copied()).collect();
        (self.w_enc, self.w_dec) = (rows(&self.w_enc), rows(&self.w_dec));
        for numbers in std::iter::once(&mut self.b_enc).chain(&mut self.per_latent) {
            *numbers = order.iter().map(|&j| numbers[j]).collect();
        }
    }
}

/// `rows` independent uniform directions of norm `norm`, `[rows, d]`: normals over their norm.
pub fn directions(draws: &mut Draws, rows: usize, d: usize, norm: f64) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows * d);
    for _ in 0..rows {
        let row: Vec<f64> = (0..d).map(|_| draws.normal()).collect();
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        out.extend(row.iter().map(|x| (x * norm / length) as f32));
    }
    out
}

/// How single samples are encoded after training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inference {
    /// Selects among pre.
    Keep(Keep),
    /// pre where it exceeds the latent's threshold.
    Jump,
    /// ReLU(exp(r_mag) u + b_mag) where u + b_gate > 0.
    Gated,
    /// One latent after the other.
    Pursuit(Pursuit),
}

impl Inference {
    /// The rule for h as it is, where the rule in hand is for `scale` h: lengths in units of h shrink by the scale.
    pub fn fold_scale(self, scale: f64) -> Inference {
        match self {
            Inference::Keep(Keep::Above(bar)) => Inference::Keep(Keep::Above((bar as f64 / scale) as f32)),
            Inference::Pursuit(pursuit) => {
                let residual_threshold = pursuit.residual_threshold / scale;
                Inference::Pursuit(Pursuit { residual_threshold, ..pursuit })
            }
            same => same,
        }
    }
}

/// A trained autoencoder under its inference rule.
#[derive(Clone, Debug)]
pub struct Sae {
    w_enc: Array2<f32>,
    b_enc: Array1<f32>,
    w_dec: Array2<f32>,
    b_dec: Array1<f32>,
    per_latent: Vec<Array1<f32>>,
    inference: Inference,
    /// What h goes through first, if that is not in the weights.
    inputs: Normalise,
    /// |decoder_j|
    norm: Vec<f32>,
    /// b_enc - W_enc b_dec
    offset: Vec<f32>,
    /// Of a gated autoencoder: exp(r_mag), and b_mag - exp(r_mag) b_gate.
    gate: Option<Magnitudes>,
}

impl Sae {
    /// # Panics
    /// If an array of `weights` has not the length its shape says, or those of the rule are not there.
    pub fn new(weights: Weights, inference: Inference) -> Sae {
        let (m, d) = (weights.n_latents, weights.d_hidden);
        let (mut w_enc, mut w_dec, mut b_dec) = (vec![], vec![], vec![]);
        pack_rows(&weights.w_enc, d, 1.0, &mut w_enc);
        pack_rows(&weights.w_dec, d, 1.0, &mut w_dec);
        pack_rows(&weights.b_dec, d, 1.0, &mut b_dec);
        let (mut norm, mut offset) = (vec![0.0; m], vec![0.0; m]);
        let facts = Refresh {
            w_enc: &w_enc,
            b_enc: &weights.b_enc,
            w_dec: &mut w_dec,
            b_dec: &b_dec,
            unit: false,
            norm: &mut norm,
            offset: &mut offset,
        };
        simd::run(Isa::best(), facts);
        let gate = (inference == Inference::Gated)
            .then(|| Magnitudes::new(&weights.b_enc, &weights.per_latent[0], &weights.per_latent[1]));
        let matrix = |w| Array2::from_shape_vec((m, d), w).expect("the caller's shape");
        Sae {
            w_enc: matrix(weights.w_enc),
            b_enc: weights.b_enc.into(),
            w_dec: matrix(weights.w_dec),
            b_dec: weights.b_dec.into(),
            per_latent: weights.per_latent.into_iter().map(Array1::from).collect(),
            inference,
            inputs: Normalise::None,
            norm,
            offset,
            gate,
        }
    }

    /// The same where its weights are for samples that are normalised by themselves; a scale of all samples is in the
    /// weights already.
    pub fn with_inputs(self, normalise: Normalise) -> Sae {
        Sae { inputs: if normalise.by_sample() { normalise } else { Normalise::None }, ..self }
    }

    /// The rule it encodes by.
    pub fn inference(&self) -> Inference {
        self.inference
    }

    /// pre, or what a selection leaves of it.
    fn selected(&self, h: ArrayView2<'_, f32>, keep: Keep) -> Array2<f32> {
        Encoder { w_enc: self.w_enc.view(), offset: &self.offset, norm: &self.norm, keep }.encode(Isa::best(), h)
    }

    /// Samples normalised by themselves, and how to undo it.
    fn see(&self, h: ArrayView2<'_, f32>) -> (Array2<f32>, Vec<Undo>) {
        let mut seen = h.as_standard_layout().into_owned();
        let numbers = seen.as_slice_mut().expect("standard layout");
        let undo = self.inputs.samples(numbers, h.ncols());
        (seen, undo)
    }

    /// Latents of what the weights are for.
    fn encode_seen(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        match (self.inference, &self.gate) {
            (Inference::Keep(keep), _) => self.selected(h, keep),
            (Inference::Jump, _) => {
                let mut pre = self.selected(h, Keep::All);
                for mut row in pre.rows_mut() {
                    let pairs = row.iter_mut().zip(&self.per_latent[0]);
                    pairs.for_each(|(z, threshold)| *z = if *z > *threshold { *z } else { 0.0 });
                }
                pre
            }
            (Inference::Gated, Some(gate)) => {
                let mut pi = self.selected(h, Keep::All);
                for mut row in pi.rows_mut() {
                    row.iter_mut().enumerate().for_each(|(j, z)| *z = gate.z(j, *z));
                }
                pi
            }
            (Inference::Gated, None) => unreachable!("made with its magnitudes"),
            (Inference::Pursuit(pursuit), _) => {
                let of = |w: &Array2<f32>| w.iter().copied().collect::<Vec<f32>>();
                let (w_enc, w_dec) = (of(&self.w_enc), of(&self.w_dec));
                let b_dec = self.b_dec.to_vec();
                let matrices = Matrices { w_enc: &w_enc, w_dec: &w_dec, b_dec: &b_dec, offset: &self.offset };
                pursue(Isa::best(), pursuit, &matrices, h)
            }
        }
    }
}

/// What turns π into z in a gated autoencoder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Magnitudes {
    /// exp(r_mag)
    pub factor: Vec<f32>,
    /// b_mag - exp(r_mag) b_gate
    pub shift: Vec<f32>,
}

impl Magnitudes {
    /// From parameters, `[n_latents]` each.
    pub fn new(b_gate: &[f32], r_mag: &[f32], b_mag: &[f32]) -> Magnitudes {
        let factor: Vec<f32> = r_mag.iter().map(|&r| libm::exp(r as f64) as f32).collect();
        let shift = factor.iter().zip(b_gate).zip(b_mag).map(|((f, gate), mag)| (-f).mul_add(*gate, *mag)).collect();
        Magnitudes { factor, shift }
    }

    /// z of a latent with gate pre-activation π.
    #[inline(always)]
    pub fn z(&self, latent: usize, pi: f32) -> f32 {
        let magnitude = self.factor[latent] * pi + self.shift[latent];
        if pi > 0.0 && magnitude > 0.0 { magnitude } else { 0.0 }
    }
}

impl Coder for Sae {
    fn n_latents(&self) -> usize {
        self.w_dec.nrows()
    }

    fn d_hidden(&self) -> usize {
        self.w_dec.ncols()
    }

    fn decoder(&self) -> ArrayView2<'_, f32> {
        self.w_dec.view()
    }

    fn encode(&self, h: ArrayView2<'_, f32>) -> Array2<f32> {
        if self.inputs == Normalise::None {
            return self.encode_seen(h);
        }
        let (seen, undo) = self.see(h);
        let mut latents = self.encode_seen(seen.view());
        for (mut z, undo) in latents.rows_mut().into_iter().zip(undo) {
            z *= undo.scale;
        }
        latents
    }

    fn decode(&self, latents: ArrayView2<'_, f32>, h: ArrayView2<'_, f32>) -> Array2<f32> {
        if self.inputs == Normalise::None {
            return infer::decode(Isa::best(), latents, self.w_dec.view(), &self.b_dec.to_vec());
        }
        let mut rebuilt = infer::decode(Isa::best(), latents, self.w_dec.view(), &vec![0.0; self.d_hidden()]);
        for (mut row, undo) in rebuilt.rows_mut().into_iter().zip(self.see(h).1) {
            row.zip_mut_with(&self.b_dec, |x, b| *x += undo.scale * b + undo.shift);
        }
        rebuilt
    }

    /// `W_enc` and `W_dec` `[n_latents, d_hidden]`, `b_enc` `[n_latents]`, `b_dec` `[d_hidden]`; of a gated autoencoder
    /// `b_gate`, `r_mag` and `b_mag` in the place of `b_enc`. `threshold` `[n_latents]` is a bar on pre: a JumpReLU's own, or
    /// what the running threshold of BatchTopK comes to for each latent, t / |decoder_j|. Matching pursuit has no encoder
    /// bias, and its `W_enc` is `W_dec` but for the scale of the inputs.
    fn tensors(&self) -> Vec<(&'static str, ArrayD<f32>)> {
        let matrix = |name, w: &Array2<f32>| (name, w.clone().into_dyn());
        let vector = |name, w: &Array1<f32>| (name, w.clone().into_dyn());
        let (decoder, bias) = (matrix("W_dec", &self.w_dec), vector("b_dec", &self.b_dec));
        let encoder = matrix("W_enc", &self.w_enc);
        match self.inference {
            Inference::Pursuit(_) => vec![encoder, decoder, bias],
            Inference::Gated => {
                let own = [("b_gate", &self.b_enc), ("r_mag", &self.per_latent[0]), ("b_mag", &self.per_latent[1])];
                let own = own.map(|(name, w)| vector(name, w));
                [encoder].into_iter().chain(own).chain([decoder, bias]).collect()
            }
            Inference::Jump => {
                let threshold = vector("threshold", &self.per_latent[0]);
                vec![encoder, vector("b_enc", &self.b_enc), decoder, bias, threshold]
            }
            Inference::Keep(Keep::Above(bar)) => {
                // A row of zeros never passes the bar; the greatest number stands for infinity.
                let of = |norm: &f32| if *norm > 0.0 { (bar / norm).min(f32::MAX) } else { f32::MAX };
                let threshold: Array1<f32> = self.norm.iter().map(of).collect();
                vec![encoder, vector("b_enc", &self.b_enc), decoder, bias, vector("threshold", &threshold)]
            }
            Inference::Keep(_) => vec![encoder, vector("b_enc", &self.b_enc), decoder, bias],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sae::golden::Golden;

    /// f32 chains of 6 and 9 products of size up to some 3: 15 * 6e-8 * 10 < 1e-5.
    #[test]
    fn inference_gives_the_golden_latents_and_reconstructions() {
        for golden in Golden::all() {
            let sae = Sae::new(golden.weights.clone(), golden.inference());
            let x = Array2::from_shape_vec((16, 6), golden.x.clone()).expect("16 x 6");
            let latents = sae.encode(x.view());
            let decoded = sae.decode(latents.view(), x.view());
            for (found, expected) in latents.iter().zip(&golden.latents).chain(decoded.iter().zip(&golden.x_hat)) {
                assert!((*found as f64 - expected).abs() < 1e-5, "{:?}: {found} {expected}", golden.architecture);
            }
        }
    }

    /// The running threshold decides for single samples: a bar on pre |decoder|, exported as a bar on pre.
    #[test]
    fn a_batch_topk_autoencoder_keeps_what_exceeds_its_threshold() {
        let golden = Golden::all().into_iter().find(|golden| golden.least_kept.is_some()).unwrap();
        let sae = Sae::new(golden.weights.clone(), Inference::Keep(Keep::Above(0.8)));
        let x = Array2::from_shape_vec((16, 6), golden.x.clone()).unwrap();
        let all = Sae::new(golden.weights, Inference::Keep(Keep::Positive)).encode(x.view());
        let (kept, tensors) = (sae.encode(x.view()), sae.tensors());
        let (name, bars) = &tensors[4];
        assert_eq!(*name, "threshold");
        for ((s, j), &z) in all.indexed_iter() {
            assert_eq!(kept[[s, j]], if z > bars[j] { z } else { 0.0 });
        }
        assert!(kept.iter().any(|&z| z > 0.0) && kept != all);
    }

    /// A power of two passes through every operation exactly.
    #[test]
    fn folding_the_scale_of_the_inputs_changes_no_latent() {
        for golden in Golden::all() {
            let program = golden.architecture.program();
            let inference = program.inference(0.8, 16);
            let x = Array2::from_shape_vec((16, 6), golden.x.clone()).unwrap();
            let sae = Sae::new(golden.weights.clone(), inference);
            let mut folded = golden.weights.clone();
            folded.fold_scale(4.0);
            let folded = Sae::new(folded, inference.fold_scale(4.0));
            let small = &x / 4.0;
            assert_eq!(sae.encode(x.view()), folded.encode(small.view()), "{:?}", golden.architecture);
        }
    }

    /// Latents are those of the normalised sample in units of h, and the reconstruction is brought back where h is; the
    /// rounding of ten products of size up to some 10 is below 1e-5.
    #[test]
    fn samples_normalised_by_themselves_are_encoded_and_brought_back() {
        for (golden, normalise) in
            Golden::all().into_iter().zip([Normalise::LayerNorm, Normalise::ConstantNorm].into_iter().cycle())
        {
            let plain = Sae::new(golden.weights.clone(), golden.inference());
            let sae = plain.clone().with_inputs(normalise);
            let h = Array2::from_shape_vec((16, 6), golden.x.clone()).unwrap() * 3.0 + 0.5;
            let mut seen = h.clone();
            let undo = normalise.samples(seen.as_slice_mut().unwrap(), 6);
            let (latents, own) = (sae.encode(h.view()), plain.encode(seen.view()));
            let (rebuilt, of_seen) = (sae.decode(latents.view(), h.view()), plain.decode(own.view(), seen.view()));
            assert!(latents.iter().any(|&z| z > 0.0));
            for (s, undo) in undo.iter().enumerate() {
                assert_eq!(latents.row(s), &own.row(s) * undo.scale);
                for (found, of_seen) in rebuilt.row(s).iter().zip(of_seen.row(s)) {
                    assert!((found - (undo.scale * of_seen + undo.shift)).abs() < 1e-5, "{normalise:?}");
                }
            }
        }
    }

    #[test]
    fn latents_in_another_order_are_the_same_autoencoder() {
        for golden in Golden::all() {
            let order = [3, 1, 4, 0, 5, 8, 2, 6, 7];
            let mut turned = golden.weights.clone();
            turned.reorder(&order);
            let x = Array2::from_shape_vec((16, 6), golden.x.clone()).unwrap();
            let inference = golden.architecture.program().inference(0.5, 16);
            let before = Sae::new(golden.weights.clone(), inference).encode(x.view());
            let after = Sae::new(turned, inference).encode(x.view());
            for (i, &j) in order.iter().enumerate() {
                assert_eq!(after.column(i), before.column(j));
            }
        }
    }

    #[test]
    fn initial_encoders_equal_their_decoders_whose_rows_have_the_norm_asked_for() {
        for golden in Golden::all() {
            let program = golden.architecture.program();
            let weights = Weights::init(3, 50, 7, &program);
            assert_eq!(weights.w_enc, weights.w_dec);
            assert!(weights.b_enc.iter().chain(&weights.b_dec).all(|&b| b == 0.0));
            for row in weights.w_dec.chunks_exact(7) {
                let norm = row.iter().map(|&w| w as f64 * w as f64).sum::<f64>().sqrt();
                assert!((norm / program.init_norm - 1.0).abs() < 1e-6);
            }
        }
    }

    /// The mean of 5000 independent uniform directions has expected squared length 1/5000; 16 times that is passed with
    /// probability below 1e-9 (chi-square with 7 degrees of freedom).
    #[test]
    fn initial_directions_point_everywhere() {
        let rows = directions(&mut Draws::new(1, Stream::SaeInit, 0), 5000, 7, 1.0);
        let square: f64 = (0..7).map(|k| (rows.iter().skip(k).step_by(7).sum::<f32>() as f64 / 5000.0).powi(2)).sum();
        assert!(square < 16.0 / 5000.0, "{square}");
    }

    #[test]
    fn tensors_are_named_and_shaped_for_export() {
        let golden = &Golden::all()[2];
        let sae = Sae::new(golden.weights.clone(), golden.inference());
        let tensors = sae.tensors();
        let shapes: Vec<_> = tensors.iter().map(|(name, array)| (*name, array.shape().to_vec())).collect();
        assert_eq!(shapes, [("W_enc", vec![9, 6]), ("b_enc", vec![9]), ("W_dec", vec![9, 6]), ("b_dec", vec![6])]);
        assert_eq!(tensors[2].1.iter().copied().collect::<Vec<_>>(), golden.weights.w_dec);
        let names = |at: usize| {
            let golden = &Golden::all()[at];
            let sae = Sae::new(golden.weights.clone(), golden.inference());
            sae.tensors().iter().map(|(name, _)| *name).collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["W_enc", "b_gate", "r_mag", "b_mag", "W_dec", "b_dec"]);
        assert_eq!(names(6), ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"]);
    }
}
