//! Hidden states and weights in the layouts of the operations on autoencoders.
//!
//! A batch of n samples is cut into **panels** of [`PANEL`] samples, four vectors of sixteen; the last panel is padded
//! with zero samples. Operations in which every sample does the same work (products with all latents) have samples in
//! the lanes: `[panel][row][TILES]`. Operations that follow the few latents of one sample have the hidden dimension in
//! the lanes: `[row][vectors]`, rows padded with zeros to [`vectors`] whole vectors. Where such rows are long and few
//! columns of many samples are read at a time, a panel is cut into **column blocks** of [`block`] vectors,
//! `[vectors / block][PANEL][block]`: what is read together lies together.

use super::screen::{RoundSamples, ScreenBatch};
use crate::backend::simd::{self, Isa, Kernel, Lanes, Simd};

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

/// Lane vectors of a column block of rows of `width` vectors: so many that a latent's sums stay in registers. A row of so many has
/// one block, and the two layouts are one.
pub fn block(width: usize) -> usize {
    width.min(4)
}

/// Where the column block `at` of a panel's sample begins, in rows of `width` vectors.
#[inline(always)]
pub fn in_columns(sample: usize, at: usize, width: usize) -> usize {
    at * PANEL * block(width) + sample * block(width)
}

/// Rows of a panel, `[live][width]`, into its column blocks; those past the last stay as they are.
pub fn to_columns(rows: &[Lanes], width: usize, columns: &mut [Lanes]) {
    let size = block(width);
    for (sample, row) in rows.chunks_exact(width).enumerate() {
        for (at, block) in row.chunks_exact(size).enumerate() {
            columns[in_columns(sample, at, width)..][..size].copy_from_slice(block);
        }
    }
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
    /// `[panels]` of column blocks, where that is not the layout of `rows`.
    columns: Vec<Lanes>,
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
        let panels = self.tiles.chunks_mut(d * TILES).zip(self.rows.chunks(PANEL * vectors(d)));
        for (tiles, rows) in panels {
            simd::run(Isa::best(), TurnRows { rows, d, tiles });
        }
        let width = vectors(d);
        if block(width) < width {
            self.columns.resize(samples.div_ceil(PANEL) * PANEL * width, Lanes::default());
            let panels = self.columns.chunks_mut(PANEL * width).zip(self.rows.chunks(PANEL * width));
            panels.for_each(|(columns, rows)| to_columns(rows, width, columns));
        }
        if let Some(screen) = &mut self.screen {
            simd::run(Isa::best(), RoundSamples { tiles: &self.tiles, d, out: screen });
        }
    }

    /// From the next [`PackedBatch::fill`] on, the samples are rounded for a screen too.
    pub fn with_screen(self) -> PackedBatch {
        PackedBatch { screen: Some(ScreenBatch::default()), ..self }
    }

    /// `[panels]` of column blocks.
    pub fn columns(&self) -> &[Lanes] {
        if self.columns.is_empty() { &self.rows } else { &self.columns }
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

/// Rows of a panel's samples, the hidden dimension in the lanes, turned so that samples are in the lanes; lanes past the last are
/// 0.
pub struct TurnRows<'a> {
    /// `[live][vectors(d)]`, at most [`PANEL`] of them.
    pub rows: &'a [Lanes],
    /// Width of a sample.
    pub d: usize,
    /// `[d][TILES]`
    pub tiles: &'a mut [Lanes],
}

impl Kernel for TurnRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let (width, zero) = (vectors(self.d), S::splat(0.0));
        assert_eq!(self.tiles.len(), self.d * TILES);
        for (block, tiles) in self.tiles.chunks_mut(LANES * TILES).enumerate() {
            for tile in 0..TILES {
                let mut square = [zero; LANES];
                let rows = self.rows.get(tile * LANES * width..).unwrap_or_default();
                if rows.len() >= LANES * width {
                    // A loop of known length keeps the square in registers.
                    for (i, to) in square.iter_mut().enumerate() {
                        *to = S::load(&rows[i * width + block]);
                    }
                } else {
                    for (to, row) in square.iter_mut().zip(rows.chunks_exact(width)) {
                        *to = S::load(&row[block]);
                    }
                }
                for (column, to) in S::transpose(square).into_iter().zip(tiles.chunks_exact_mut(TILES)) {
                    S::store(column, &mut to[tile]);
                }
            }
        }
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
    fn column_blocks_hold_the_numbers_of_the_rows() {
        for (samples, d) in [(1, 20), (65, 64), (64, 65), (130, 200)] {
            let width = vectors(d);
            let hidden: Vec<f32> = (0..samples * d).map(|i| i as f32).collect();
            let mut batch = PackedBatch::default();
            // The memory of a batch before must not show through.
            batch.fill(&vec![7.0; 200 * d], d, 1.0);
            batch.fill(&hidden, d, 1.0);
            for s in 0..samples {
                for v in 0..width {
                    let at = s / PANEL * PANEL * width + in_columns(s % PANEL, v / block(width), width);
                    assert_eq!(batch.columns()[at + v % block(width)].0, batch.rows[s * width + v].0);
                }
                for (k, x) in hidden[s * d..][..d].iter().enumerate() {
                    assert_eq!(flat(&batch.tiles)[(s / PANEL * d + k) * PANEL + s % PANEL], *x);
                    assert_eq!(flat(&batch.rows)[s * width * LANES + k], *x);
                }
            }
        }
    }

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
