//! Operations that training and inference are made of: each has its equation, its layout, one vector form, and tests
//! against plain loops.
//!
//! # Layouts
//!
//! A batch of n samples is cut into **panels** of [`PANEL`] samples, four vectors of sixteen; the last panel is padded
//! with zero samples. Operations in which every sample does the same work (products with all latents) have samples in
//! the lanes: `[panel][row][TILES]`. Operations that follow the few latents of one sample have the hidden dimension in
//! the lanes: `[row][vectors]`, rows padded with zeros to [`vectors`] whole vectors.

use super::simd::Lanes;

pub mod dense;
pub mod draw;
pub mod entries;
pub mod hidden;
pub mod infer;
pub mod layout;
pub mod optimizer;
pub mod outer;
pub mod product;
pub mod rows;
pub mod select;
pub mod sparse;
pub mod toy_loss;
pub mod toy_step;

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
pub fn flat(lanes: &[Lanes]) -> &[f32] {
    // SAFETY: `Lanes` is `repr(C)`, sixteen f32 without padding.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

/// The numbers of lane vectors, in order, to be written.
pub fn flat_mut(lanes: &mut [Lanes]) -> &mut [f32] {
    // SAFETY: as in `flat`; any f32 is a valid lane.
    unsafe { std::slice::from_raw_parts_mut(lanes.as_mut_ptr().cast(), lanes.len() * LANES) }
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
}
