//! Matching pursuit: latents are chosen one after the other, each the best for what is left over.
//!
//! ```text
//! pre_j = w_enc_j · r,  r = h - b_dec                   at first
//! j = the greatest pre, ties to the lower;  v = pre_j if above 0, else the sample is done
//! pre -= v G_j,  G_ji = w_dec_j · w_enc_i               what it becomes with r -= v w_dec_j
//! ```
//!
//! Subtracting a row of G in place of a product with all latents makes an iteration cost n_latents steps a sample instead of
//! n_latents d; G costs one product of n_latents² d a batch.
//!
//! The way back (see [`crate::sae::matching_pursuit`]): with the gradient γ at the reconstruction, from the last choice to the
//! first, dpre_t = γ · w_t and γ -= dpre_t w_t. Row j's gradient is then the sum over the choices t of j of
//! v_t γ + dpre_t (h - b_dec), as for any other entry, and over the sample's other choices s of
//! -v_t dpre_s w_s (s after t) or -dpre_t v_s w_s (s before t).

use ndarray::{Array2, ArrayView2};

use super::entries::Entries;
use super::layout::{PANEL, TILES, flat, pack_panel, pack_rows, vectors};
use super::product::{Product, Strided};
use super::rows::{add_multiple, dot};
use super::sparse::{ByLatent, PanelEntries};
use crate::backend::simd::{self, Isa, Kernel, Lanes, Simd};
use crate::sae::Pursuit;

/// w_dec_j · w_enc_i of all pairs.
#[derive(Clone, Debug, Default)]
pub struct Gram {
    n_latents: usize,
    /// `[panels of latents i][n_latents j][TILES]`
    rows: Vec<Lanes>,
    panel: Vec<Lanes>,
    zeros: Vec<f32>,
}

impl Gram {
    /// From `w_enc` `[n_latents, d]` without padding and the rows of `w_dec`.
    pub fn fill(&mut self, isa: Isa, w_enc: &[f32], w_dec: Strided, n_latents: usize, d: usize) {
        self.n_latents = n_latents;
        self.zeros.resize(n_latents, 0.0);
        self.panel.resize(d * TILES, Lanes::default());
        self.rows.resize(n_latents.div_ceil(PANEL) * n_latents * TILES, Lanes::default());
        for (rows, out) in w_enc.chunks(PANEL * d).zip(self.rows.chunks_exact_mut(n_latents * TILES)) {
            pack_panel(rows, d, 1.0, &mut self.panel);
            simd::run(isa, Product { weights: w_dec, start: &self.zeros, x: &self.panel, out });
        }
    }

    /// Row j, for the latents of one panel.
    #[inline(always)]
    fn of(&self, j: usize, panel: usize) -> &[Lanes] {
        &self.rows[(panel * self.n_latents + j) * TILES..][..TILES]
    }
}

/// Encodes one panel.
pub struct Pursue<'a> {
    /// When a sample is done.
    pub pursuit: Pursuit,
    /// `[n_latents][TILES]`: w_enc_j · (h - b_dec).
    pub pre: &'a [Lanes],
    /// Of the same weights.
    pub gram: &'a Gram,
    /// `[live][vectors]`; read where a residual threshold is set.
    pub h: &'a [Lanes],
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// Samples of the panel that are not padding.
    pub live: usize,
    /// Memory.
    pub row: &'a mut Vec<Lanes>,
    /// The choices of each sample in their order; a latent may be there more than once.
    pub kept: &'a mut Entries,
}

impl Kernel for Pursue<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Pursue { pursuit, pre, gram, h, w_dec, b_dec, live, row, kept } = self;
        let (m, width) = (gram.n_latents, b_dec.len());
        kept.clear(pursuit.k);
        row.resize(m.div_ceil(PANEL) * TILES, Lanes::default());
        let mut residual = vec![Lanes::default(); width];
        for sample in 0..live {
            row.fill(Lanes([f32::NEG_INFINITY; 16]));
            for (j, pre) in flat(pre).chunks_exact(PANEL).enumerate() {
                row[j / 16].0[j % 16] = pre[sample];
            }
            for ((r, h), b) in residual.iter_mut().zip(&h[sample * width..]).zip(b_dec) {
                S::store(S::sub(S::load(h), S::load(b)), r);
            }
            for _ in 0..pursuit.k {
                let Some((j, v)) = greatest::<S>(row) else { break };
                let again = kept.of(sample).0.contains(&(j as u32));
                kept.push(sample, j as u32, v);
                for (p, row) in row.chunks_exact_mut(TILES).enumerate() {
                    add_multiple::<S>(row, -v, gram.of(j, p));
                }
                if again && pursuit.stop_on_duplicate {
                    break;
                }
                if pursuit.residual_threshold > 0.0 {
                    add_multiple::<S>(&mut residual, -v, &w_dec[j * width..][..width]);
                    if (dot::<S>(&residual, &residual) as f64).sqrt() < pursuit.residual_threshold {
                        break;
                    }
                }
            }
        }
    }
}

/// The greatest number above 0 and where it first stands.
#[inline(always)]
fn greatest<S: Simd>(row: &[Lanes]) -> Option<(usize, f32)> {
    let mut top = S::splat(0.0);
    for lanes in row {
        top = S::max(S::load(lanes), top);
    }
    let mut lanes = Lanes::default();
    S::store(top, &mut lanes);
    let top = lanes.0.iter().fold(0.0, |a: f32, &b| a.max(b));
    let at = flat(row).iter().position(|&x| x == top).filter(|_| top > 0.0)?;
    Some((at, top))
}

/// dpre of every choice of a panel.
pub struct PursuitBack<'a> {
    /// The choices.
    pub kept: &'a Entries,
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[PANEL][vectors]`: gradients at the reconstructions.
    pub gradient: &'a [Lanes],
    /// In the places of `kept`.
    pub dpre: &'a mut [f32],
    /// `[vectors]`
    pub width: usize,
}

impl Kernel for PursuitBack<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let PursuitBack { kept, w_dec, gradient, dpre, width } = self;
        for (sample, gradient) in gradient.chunks_exact(width).enumerate() {
            let mut left = gradient.to_vec();
            for (&latent, dpre) in kept.of(sample).0.iter().zip(&mut dpre[kept.range(sample)]).rev() {
                let row = &w_dec[latent as usize * width..][..width];
                *dpre = dot::<S>(&left, row);
                add_multiple::<S>(&mut left, -*dpre, row);
            }
        }
    }
}

/// Adds what the choices of a sample say about each other to the decoder gradients of a range of latents.
pub struct PursuitPairs<'a> {
    /// Entries of the batch by latent.
    pub sorted: &'a ByLatent,
    /// Entries of the batch by panel.
    pub panels: &'a [PanelEntries<'a>],
    /// `[n_latents][vectors]`
    pub rows: &'a [Lanes],
    /// Which latents.
    pub latents: std::ops::Range<usize>,
    /// `[latents of the range][vectors]`
    pub w_dec: &'a mut [Lanes],
}

impl Kernel for PursuitPairs<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let PursuitPairs { sorted, panels, rows, latents, w_dec } = self;
        let width = w_dec.len() / latents.len().max(1);
        for (latent, to) in latents.zip(w_dec.chunks_exact_mut(width)) {
            for at in sorted.of(latent) {
                let (sample, t) = (sorted.sample[at] as usize, sorted.order[at] as usize);
                let PanelEntries { kept, dpre, .. } = panels[sample / PANEL];
                let (others, values) = kept.of(sample % PANEL);
                let dpre = &dpre[kept.range(sample % PANEL)];
                for (s, &other) in others.iter().enumerate().filter(|(s, _)| *s != t) {
                    let factor = if s > t { values[t] * dpre[s] } else { dpre[t] * values[s] };
                    add_multiple::<S>(to, -factor, &rows[other as usize * width..][..width]);
                }
            }
        }
    }
}

/// The arrays of a pursuit for samples after training: `[n_latents, d]`, `[n_latents, d]`, `[d]` and `[n_latents]`, the offset
/// being -w_enc · b_dec.
pub struct Matrices<'a> {
    /// Encoder rows.
    pub w_enc: &'a [f32],
    /// Decoder rows.
    pub w_dec: &'a [f32],
    /// Decoder bias.
    pub b_dec: &'a [f32],
    /// Of the encoder.
    pub offset: &'a [f32],
}

/// Latents `[samples, n_latents]` of h `[samples, d]`.
pub fn pursue(isa: Isa, pursuit: Pursuit, matrices: &Matrices, h: ArrayView2<'_, f32>) -> Array2<f32> {
    let Matrices { w_enc, w_dec, b_dec, offset } = matrices;
    let (m, d) = (offset.len(), b_dec.len());
    assert_eq!(h.ncols(), d, "hidden states of the wrong width");
    let by_row = |numbers| Strided { numbers, row_stride: d, depth_stride: 1 };
    let mut gram = Gram::default();
    gram.fill(isa, w_enc, by_row(*w_dec), m, d);
    let (mut decoder, mut bias, mut rows) = (vec![], vec![], vec![]);
    pack_rows(w_dec, d, 1.0, &mut decoder);
    pack_rows(b_dec, d, 1.0, &mut bias);
    let mut latents = Array2::zeros((h.nrows(), m));
    let (mut panel, mut pre) = (vec![Lanes::default(); d * TILES], vec![Lanes::default(); m * TILES]);
    let (mut row, mut kept) = (vec![], Entries::new(0));
    let h = h.as_standard_layout();
    let numbers = h.as_slice().expect("standard layout");
    for (p, h) in numbers.chunks(PANEL * d).enumerate() {
        let live = h.len() / d;
        pack_panel(h, d, 1.0, &mut panel);
        pack_rows(h, d, 1.0, &mut rows);
        simd::run(isa, Product { weights: by_row(*w_enc), start: offset, x: &panel, out: &mut pre });
        let (gram, w_dec, b_dec, h) = (&gram, &decoder[..], &bias[..], &rows[..live * vectors(d)]);
        let (row, kept_now) = (&mut row, &mut kept);
        simd::run(isa, Pursue { pursuit, pre: &pre, gram, h, w_dec, b_dec, live, row, kept: kept_now });
        for s in 0..live {
            let (chosen, values) = kept.of(s);
            for (&j, &v) in chosen.iter().zip(values) {
                latents[[p * PANEL + s, j as usize]] += v;
            }
        }
    }
    latents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn normals(len: usize, part: u64) -> Vec<f32> {
        let mut draws = Draws::new(21, Stream::SaeInit, part);
        (0..len).map(|_| draws.normal() as f32).collect()
    }

    /// f32 against f64: k subtractions of products of size up to some tens, each off by 6e-8 of that. Choices that f32 would
    /// decide otherwise would be off by far more; the fixed seeds have none.
    #[test]
    fn choices_are_those_of_the_definition() {
        for (samples, m, d) in [(1, 1, 1), (5, 17, 4), (70, 70, 20), (66, 130, 17)] {
            let mut w = normals(m * d, 1);
            w.chunks_exact_mut(d).for_each(|row| {
                let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                row.iter_mut().for_each(|x| *x /= norm);
            });
            let (b, h) = (normals(d, 2), normals(samples * d, 3));
            let offset: Vec<f32> =
                w.chunks_exact(d).map(|row| -row.iter().zip(&b).map(|(w, b)| w * b).sum::<f32>()).collect();
            for (k, residual_threshold, stop_on_duplicate) in
                [(1, 0.0, false), (5, 0.0, false), (9, 1.0, false), (9, 0.0, true)]
            {
                let pursuit = Pursuit { k, residual_threshold, stop_on_duplicate };
                let matrices = Matrices { w_enc: &w, w_dec: &w, b_dec: &b, offset: &offset };
                let view = ArrayView2::from_shape((samples, d), &h).expect("samples x d");
                let first = pursue(Isa::Portable, pursuit, &matrices, view);
                for isa in Isa::available() {
                    assert_eq!(pursue(isa, pursuit, &matrices, view), first, "{isa:?}");
                }
                for (s, h) in h.chunks_exact(d).enumerate() {
                    let centred: Vec<f64> = h.iter().zip(&b).map(|(h, b)| *h as f64 - *b as f64).collect();
                    let wide: Vec<f64> = w.iter().map(|&w| w as f64).collect();
                    let choices = crate::backend::reference::sae::pursue(pursuit, &wide, &wide, &centred);
                    let mut expected = vec![0.0; m];
                    choices.iter().for_each(|&(j, v)| expected[j] += v);
                    for (found, expected) in first.row(s).iter().zip(&expected) {
                        assert!((*found as f64 - expected).abs() < 2e-4, "{pursuit:?} {samples} x {m}, d {d}");
                    }
                }
            }
        }
    }
}
