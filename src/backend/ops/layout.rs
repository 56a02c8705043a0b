//! Hidden states and weights in the layouts of the operations on autoencoders.
//!
//! A batch of n samples is cut into **panels** of [`PANEL`] samples, four vectors of sixteen; the last panel is padded
//! with zero samples. Operations in which every sample does the same work (products with all latents) have samples in
//! the lanes: `[panel][row][TILES]`. Operations that follow the few latents of one sample have the hidden dimension in
//! the lanes: `[row][vectors]`, rows padded with zeros to [`vectors`] whole vectors.

use super::screen::{RoundSamples, ScreenBatch};
use crate::backend::simd::{self, Isa, Lanes};

/// Samples in a lane vector.
pub const LANES: usize = 16;

/// Lane vectors of samples in a panel.
pub const TILES: usize = 4;

/// Samples in a panel: the fixed block of every sum over samples.
pub const PANEL: usize = LANES * TILES;

/// Lane vectors in a padded row of `d` numbers: as few as hold it up to four, from then on a multiple of four, because
/// long rows are worked on four vectors at a time.
pub fn vectors(d: usize) -> usize {
    let least = d.div_ceil(LANES).max(1);
    if least <= 4 { least } else { least.next_multiple_of(4) }
}

/// The numbers of lane vectors, in order.
#[inline(always)]
pub fn flat(lanes: &[Lanes]) -> &[f32] {
    // SAFETY: `Lanes` is `repr(C)`, sixteen f32 without padding.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// The numbers of lane vectors, in order, to be written.
#[inline(always)]
pub fn flat_mut(lanes: &mut [Lanes]) -> &mut [f32] {
    // SAFETY: as in `flat`; any f32 is a valid lane.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
}

/// A batch of hidden states in both layouts, packed once for every SAE that reads it.
#[derive(Clone, Debug, Default)]
pub struct PackedBatch {
    /// Samples in it, padding not counted.
    pub samples: usize,
    /// Width of a sample.
    pub d: usize,
    /// `[panel][d][TILES]`, samples in the lanes, 0 past the last sample.
    pub tiles: Vec<Lanes>,
    /// `[samples][vectors(d)]`, the hidden dimension in the lanes.
    pub rows: Vec<Lanes>,
    /// The samples in bf16, where a screen reads them.
    screen: Option<ScreenBatch>,
}

impl PackedBatch {
    /// Packs `hidden` `[samples, d]` times `scale`, into the memory of the batch before.
    pub fn fill(&mut self, hidden: &[f32], d: usize, scale: f32) {
        let samples = hidden.len() / d;
        assert_eq!(hidden.len(), samples * d);
        (self.samples, self.d) = (samples, d);
        pack_rows(hidden, d, scale, &mut self.rows);
        self.tiles.resize(samples.div_ceil(PANEL) * d * TILES, Lanes::default());
        for (panel, hidden) in self.tiles.chunks_mut(d * TILES).zip(hidden.chunks(PANEL * d)) {
            pack_panel(hidden, d, scale, panel);
        }
        if let Some(screen) = &mut self.screen {
            simd::run(Isa::best(), RoundSamples { tiles: &self.tiles, d, out: screen });
        }
    }

    /// From the next [`PackedBatch::fill`] on, the samples are rounded for a screen too.
    pub fn with_screen(self) -> PackedBatch {
        PackedBatch { screen: Some(ScreenBatch::default()), ..self }
    }

    /// The samples in bf16, if they were asked for.
    pub fn screen(&self) -> Option<&ScreenBatch> {
        self.screen.as_ref()
    }

    /// Panels, the last perhaps padded.
    pub fn panels(&self) -> usize {
        self.samples.div_ceil(PANEL)
    }

    /// Samples of panel `p` that are not padding.
    pub fn live(&self, p: usize) -> usize {
        (self.samples - p * PANEL).min(PANEL)
    }
}

/// Up to [`PANEL`] rows of `hidden` `[samples, d]` times `scale` into `panel` `[d][TILES]`; lanes past the last are 0.
pub fn pack_panel(hidden: &[f32], d: usize, scale: f32, panel: &mut [Lanes]) {
    let samples = hidden.len() / d;
    let panel = flat_mut(panel);
    if samples < PANEL {
        panel.fill(0.0);
    }
    // Sixteen columns at a time, so that both sides stay in the first-level cache.
    for first in (0..d).step_by(LANES) {
        let last = (first + LANES).min(d);
        for (s, row) in hidden.chunks_exact(d).enumerate() {
            for (k, x) in row[first..last].iter().enumerate() {
                panel[(first + k) * PANEL + s] = x * scale;
            }
        }
    }
}

/// `[rows, d]` numbers times `scale` as rows of whole vectors.
pub fn pack_rows(numbers: &[f32], d: usize, scale: f32, rows: &mut Vec<Lanes>) {
    let width = vectors(d);
    rows.resize(numbers.len() / d * width, Lanes::default());
    for (to, from) in flat_mut(rows).chunks_exact_mut(width * LANES).zip(numbers.chunks_exact(d)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from * scale;
        }
        to[d..].fill(0.0);
    }
}

/// Padded rows back to `[rows, d]`.
pub fn unpack_rows(rows: &[Lanes], d: usize) -> Vec<f32> {
    flat(rows).chunks_exact(vectors(d) * LANES).flat_map(|row| row[..d].iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_up_to_four_vectors_are_not_padded_further() {
        let expected = [(1, 1), (16, 1), (17, 2), (64, 4), (65, 8), (128, 8), (129, 12), (768, 48)];
        for (d, v) in expected {
            assert_eq!(vectors(d), v, "d = {d}");
        }
    }

    #[test]
    fn a_packed_batch_holds_every_number_in_both_layouts_and_zero_elsewhere() {
        for (samples, d) in [(1, 1), (15, 17), (65, 16), (64, 70)] {
            let hidden: Vec<f32> = (0..samples * d).map(|i| i as f32 + 1.0).collect();
            let mut batch = PackedBatch::default();
            batch.fill(&vec![9.0; 200 * d], d, 1.0);
            batch.fill(&hidden, d, 2.0);
            let doubled: Vec<f32> = hidden.iter().map(|x| 2.0 * x).collect();
            assert_eq!(unpack_rows(&batch.rows, d), doubled);
            let tiles = flat(&batch.tiles);
            for s in 0..samples {
                for k in 0..d {
                    assert_eq!(tiles[s / PANEL * d * PANEL + k * PANEL + s % PANEL], doubled[s * d + k]);
                }
            }
            let total: f64 = tiles.iter().map(|&x| x as f64).sum();
            assert_eq!(total, flat(&batch.rows).iter().map(|&x| x as f64).sum::<f64>());
            assert_eq!(total, doubled.iter().map(|&x| x as f64).sum::<f64>());
        }
    }
}
