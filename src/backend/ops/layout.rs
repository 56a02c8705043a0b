//! Hidden states and weights in the layouts of the operations.

use super::{LANES, PANEL, TILES, flat, flat_mut, vectors};
use crate::backend::simd::Lanes;

/// A batch of hidden states in both layouts, packed once for every SAE that reads it.
#[derive(Clone, Debug, Default)]
pub struct PackedBatch {
    pub samples: usize,
    pub d: usize,
    /// `[panel][d][TILES]`, samples in the lanes, 0 past the last sample.
    pub tiles: Vec<Lanes>,
    /// `[samples][vectors(d)]`, the hidden dimension in the lanes.
    pub rows: Vec<Lanes>,
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
    }

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
