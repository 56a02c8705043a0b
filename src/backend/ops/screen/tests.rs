//! The screen against the whole product.

use super::*;
use crate::backend::ops::entries::Entries;
use crate::backend::ops::layout::{PANEL, PackedBatch, flat, flat_mut, pack_rows};
use crate::backend::ops::product::{Product, Strided};
use crate::backend::ops::rows::Refresh;
use crate::backend::ops::select::{SelectTop, TopScratch};
use crate::backend::simd;
use crate::random::{Draws, Stream};

/// Weights and samples of one shape, with what both ways read.
struct Case {
    d: usize,
    batch: PackedBatch,
    w_enc: Vec<Lanes>,
    offset: Vec<f32>,
    norm: Vec<f32>,
    samples: ScreenBatch,
    weights: ScreenWeights,
}

impl Case {
    /// `spread` scales rows apart, so that margins differ; samples that are multiples of 3 are empty.
    fn new(isa: Isa, samples: usize, d: usize, m: usize, spread: f64) -> Case {
        let mut draws = Draws::new(6, Stream::SaeInit, (d * 1000 + m) as u64);
        let mut normals = |n: usize| (0..n).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let (mut h, mut w, mut w_dec) = (normals(samples * d), normals(m * d), normals(m * d));
        let (b_enc, b_dec) = (normals(m), normals(d));
        h.chunks_exact_mut(d).step_by(3).for_each(|h| h.fill(0.0));
        for (j, (w, w_dec)) in w.chunks_exact_mut(d).zip(w_dec.chunks_exact_mut(d)).enumerate() {
            let by = libm::pow(spread, (j % 7) as f64) as f32;
            w.iter_mut().for_each(|w| *w *= by);
            w_dec.iter_mut().for_each(|w| *w /= by);
        }
        // Twins tie exactly.
        if m > 5 {
            w.copy_within(0..d, 5 * d);
            w_dec.copy_within(0..d, 5 * d);
        }
        let mut batch = PackedBatch::default();
        batch.fill(&h, d, 1.0);
        let packed = |x: &[f32]| {
            let mut rows = vec![];
            pack_rows(x, d, 1.0, &mut rows);
            rows
        };
        let (w_enc, mut w_dec, b_dec) = (packed(&w), packed(&w_dec), packed(&b_dec));
        let (mut norm, mut offset) = (vec![0.0; m], vec![0.0; m]);
        let (norm_out, offset_out) = (&mut norm[..], &mut offset[..]);
        simd::run(
            isa,
            Refresh {
                w_enc: &w_enc,
                b_enc: &b_enc,
                w_dec: &mut w_dec,
                b_dec: &b_dec,
                unit: false,
                norm: norm_out,
                offset: offset_out,
            },
        );
        let mut case =
            Case { d, batch, w_enc, offset, norm, samples: ScreenBatch::default(), weights: ScreenWeights::new(m, d) };
        simd::run(isa, RoundSamples { tiles: &case.batch.tiles, d, out: &mut case.samples });
        let Case { w_enc, offset, norm, weights: ScreenWeights { pairs, margin }, .. } = &mut case;
        simd::run(isa, RoundRows { w_enc, d, offset, norm, pairs, margin });
        case
    }

    fn pre(&self, isa: Isa, panel: usize) -> Vec<Lanes> {
        let m = self.norm.len();
        let mut out = vec![Lanes::default(); m * TILES];
        let stride = vectors(self.d) * LANES;
        let weights = Strided { numbers: flat(&self.w_enc), row_stride: stride, depth_stride: 1 };
        let x = &self.batch.tiles[panel * self.d * TILES..][..self.d * TILES];
        simd::run(isa, Product { weights, start: &self.offset, x, out: &mut out });
        out
    }

    /// pre' from the words, by plain sums in f64: off by rounding to bf16 alone.
    fn plain(&self, panel: usize) -> Vec<Lanes> {
        let (m, half) = (self.norm.len(), self.d.div_ceil(2));
        let stride = 8 * vectors(self.d);
        let part = |word: u32, high: bool| f32::from_bits(if high { word & 0xFFFF_0000 } else { word << 16 }) as f64;
        let mut pre = vec![Lanes::default(); m * TILES];
        for (at, pre) in flat_mut(&mut pre).iter_mut().enumerate() {
            let (j, s) = (at / PANEL, at % PANEL);
            let mut sum = self.offset[j] as f64;
            for k in 0..half {
                let x = self.samples.pairs[(panel * half + k) * TILES + s / LANES].0[s % LANES];
                let w = self.weights.pairs[j * stride + k];
                sum += part(x, false) * part(w, false) + part(x, true) * part(w, true);
            }
            *pre = sum as f32;
        }
        pre
    }

    fn select(&self, isa: Isa, pre: &[Lanes], panel: usize, wanted: Wanted) -> (Entries, usize) {
        let (mut scratch, mut kept) = (ScreenScratch::default(), Entries::new(0));
        let width = vectors(self.d);
        let live = self.batch.live(panel);
        let select = SelectScreened {
            pre,
            length: &self.samples.length[panel * TILES..][..TILES],
            lost: &self.samples.lost[panel * TILES..][..TILES],
            margin: &self.weights.margin,
            h: &self.batch.rows[panel * PANEL * width..][..live * width],
            d: self.d,
            w_enc: &self.w_enc,
            offset: &self.offset,
            norm: &self.norm,
            wanted,
            live,
            scratch: &mut scratch,
            kept: &mut kept,
        };
        let rescored = simd::run(isa, select);
        (kept, rescored)
    }
}

fn all(kept: &Entries) -> Vec<(usize, u32, u32)> {
    let of = |s: usize| kept.of(s).0.iter().zip(kept.of(s).1).map(move |(&j, z)| (s, j, z.to_bits()));
    (0..PANEL).flat_map(of).collect()
}

const SHAPES: [(usize, usize, f64); 6] =
    [(1, 1, 1.0), (15, 17, 1.0), (16, 40, 1.5), (33, 64, 3.0), (100, 130, 1.1), (64, 300, 1.0)];

#[test]
fn screened_keys_lie_within_their_margins() {
    for (d, m, spread) in SHAPES {
        let case = Case::new(Isa::best(), 70, d, m, spread);
        for panel in 0..2 {
            let (exact, mut screens) = (case.pre(Isa::best(), panel), vec![case.plain(panel)]);
            if available(Isa::best()) {
                let mut fast = vec![Lanes::default(); m * TILES];
                let half = d.div_ceil(2);
                let x = &case.samples.pairs[panel * half * TILES..][..half * TILES];
                let (offset, stride) = (&case.offset[..], 8 * vectors(d));
                ScreenProduct { pairs: &case.weights.pairs, stride, offset, x, pre: &mut fast }.run();
                screens.push(fast);
            }
            let (mut worst, mut count) = (0.0f64, 0);
            for screen in &screens {
                for at in 0..m * PANEL {
                    let (j, s) = (at / PANEL, at % PANEL);
                    let tile = panel * TILES + s / LANES;
                    let of = |lanes: &[Lanes]| lanes[tile].0[s % LANES] as f64;
                    let [p, q, r] = case.weights.margin[j].map(f64::from);
                    let margin = p * of(&case.samples.length) + q * of(&case.samples.lost) + r;
                    let exact = flat(&exact)[at] as f64 * case.norm[j] as f64;
                    let key = (flat(screen)[at] * case.norm[j]) as f64;
                    worst = worst.max((key - exact).abs() / margin);
                    count += 1;
                }
            }
            // A margin that is never nearly reached would hide a wrong one: Cauchy-Schwarz is met at d = 1.
            assert!(worst <= 1.0 && count > 0 && (d > 1 || worst > 0.3 || panel > 0), "d {d}, m {m}: {worst}");
        }
    }
}

#[test]
fn the_k_greatest_are_those_of_the_whole_product_bit_for_bit() {
    for isa in Isa::available() {
        for (d, m, spread) in SHAPES {
            let case = Case::new(isa, 70, d, m, spread);
            for panel in 0..2 {
                let (pre, screen, live) = (case.pre(isa, panel), case.plain(panel), case.batch.live(panel));
                for k in [1, 2, 5, 9, m / 2, m].into_iter().filter(|&k| k > 0) {
                    let (mut scratch, mut expected) = (TopScratch::default(), Entries::new(0));
                    let (norm, among, relu) = (&case.norm[..], None, true);
                    let (scratch, kept) = (&mut scratch, &mut expected);
                    simd::run(isa, SelectTop { pre: &pre, norm, among, k, relu, live, scratch, kept });
                    let (found, rescored) = case.select(isa, &screen, panel, Wanted::Top(k));
                    assert_eq!(all(&found), all(&expected), "{isa:?}, d {d}, m {m}, k {k}, panel {panel}");
                    assert!(rescored >= found.len());
                    if (d, m, k, panel) == (64, 300, 5, 0) {
                        // A third of the samples is empty, so their keys differ by offsets alone.
                        assert!(rescored < 12 * PANEL, "the screen lets {rescored} through");
                    }
                }
            }
        }
    }
}

#[test]
fn what_lies_above_a_bar_is_that_of_the_whole_product_bit_for_bit() {
    for isa in Isa::available() {
        for (d, m, spread) in SHAPES {
            let case = Case::new(isa, 70, d, m, spread);
            let (pre, screen) = (case.pre(isa, 0), case.plain(0));
            for bar in [0.0, 0.5, 20.0] {
                let mut expected = vec![];
                for s in 0..PANEL {
                    for j in 0..m {
                        let x = flat(&pre)[j * PANEL + s];
                        if x > 0.0 && x * case.norm[j] > bar {
                            expected.push((s, j as u32, x.to_bits()));
                        }
                    }
                }
                let (found, _) = case.select(isa, &screen, 0, Wanted::Above(bar));
                assert_eq!(all(&found), expected, "{isa:?}, d {d}, m {m}, bar {bar}");
            }
        }
    }
}

#[test]
fn numbers_that_are_none_do_not_panic() {
    let mut case = Case::new(Isa::best(), 70, 16, 40, 1.0);
    flat_mut(&mut case.batch.rows)[5] = f32::NAN;
    case.batch.rows[16].0[3] = f32::INFINITY;
    case.samples.length[0].0[0] = f32::NAN;
    let screen = case.plain(0);
    let (kept, _) = case.select(Isa::best(), &screen, 0, Wanted::Top(5));
    assert!(kept.len() <= 5 * PANEL);
}
