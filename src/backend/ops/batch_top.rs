//! The greatest entries of a whole batch.
//!
//! ```text
//! keys       value_j norm_j > 0 of all entries, in (sample, latent) order
//! bar        the count-th greatest of them
//! kept       what is above the bar, and of what equals it the first ones
//! ```
//!
//! Positive floats order as their bits do, so the bar is found on integers.

use super::entries::Entries;
use super::layout::PANEL;

/// The count-th greatest of `keys` (as bits of positive floats) and how many that equal it are among the greatest `count`;
/// none where there are no more than `count`. The keys are left in another order.
pub fn bar(keys: &mut [u32], count: usize) -> Option<(u32, usize)> {
    if keys.len() <= count {
        return None;
    }
    if count == 0 {
        return Some((u32::MAX, 0));
    }
    let at = keys.len() - count;
    let (_, &mut least, above) = keys.select_nth_unstable(at);
    Some((least, 1 + above.iter().filter(|key| **key == least).count()))
}

/// Drops all but the `count` entries of greatest value times norm, ties in (sample, latent) order; entries of a sample are in
/// ascending order of latents and have positive keys. Returns the least key that is kept.
pub fn keep_greatest<'a>(
    panels: impl Iterator<Item = &'a mut Entries>,
    norm: &[f32],
    count: usize,
    keys: &mut Vec<u32>,
) -> Option<f32> {
    let mut panels: Vec<&mut Entries> = panels.collect();
    keys.clear();
    for panel in &panels {
        for sample in 0..PANEL {
            let (latents, values) = panel.of(sample);
            keys.extend(latents.iter().zip(values).map(|(&j, z)| (z * norm[j as usize]).to_bits()));
        }
    }
    let Some((least, mut ties)) = bar(keys, count) else {
        return keys.iter().min().map(|&bits| f32::from_bits(bits));
    };
    for panel in &mut panels {
        for sample in 0..PANEL {
            panel.retain(sample, |latent, value| {
                let key = (value * norm[latent as usize]).to_bits();
                let tie = key == least && ties > 0;
                ties -= tie as usize;
                key > least || tie
            });
        }
    }
    (count > 0).then(|| f32::from_bits(least))
}

/// The same for one batch of latents `[samples, n_latents]`, none negative: all others become 0.
pub fn keep_greatest_dense(latents: &mut [f32], norm: &[f32], count: usize) {
    let keyed = |(at, z): (usize, &f32)| (z * norm[at % norm.len()]).to_bits();
    let mut keys: Vec<u32> = latents.iter().enumerate().map(keyed).filter(|key| *key > 0).collect();
    let found = bar(&mut keys, count);
    let (least, mut ties) = found.unwrap_or((0, 0));
    for (at, z) in latents.iter_mut().enumerate() {
        let key = keyed((at, z));
        let tie = key == least && ties > 0;
        ties -= tie as usize;
        if key <= least && !tie {
            *z = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    /// The definition: a stable sort of (sample, latent) by falling key.
    fn plain(latents: &[f32], norm: &[f32], count: usize) -> Vec<usize> {
        let key = |at: usize| latents[at] * norm[at % norm.len()];
        let mut order: Vec<usize> = (0..latents.len()).filter(|&at| key(at) > 0.0).collect();
        order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
        order.truncate(count);
        order.sort_unstable();
        order
    }

    #[test]
    fn the_greatest_of_a_batch_are_kept_with_ties_in_order_of_samples_then_latents() {
        let mut draws = Draws::new(8, Stream::SaeInit, 0);
        for (samples, m, levels) in [(1, 1, 3), (3, 7, 4), (70, 17, 6), (130, 5, 1000)] {
            let latents: Vec<f32> = (0..samples * m).map(|_| draws.below(levels) as f32).collect();
            let norm: Vec<f32> = (0..m).map(|j| [1.0, 0.5, 0.0, 2.0][j % 4]).collect();
            for count in [0, 1, 5, samples * m / 3, samples * m] {
                let expected = plain(&latents, &norm, count);
                let mut dense = latents.clone();
                keep_greatest_dense(&mut dense, &norm, count);
                let of = |at: usize| if expected.contains(&at) { latents[at] } else { 0.0 };
                assert_eq!(dense, (0..latents.len()).map(of).collect::<Vec<f32>>(), "{samples} x {m}, {count}");

                let mut panels = vec![Entries::new(m); samples.div_ceil(PANEL)];
                for (at, &z) in latents.iter().enumerate().filter(|(at, z)| **z * norm[at % m] > 0.0) {
                    panels[at / m / PANEL].push(at / m % PANEL, (at % m) as u32, z);
                }
                let least = keep_greatest(panels.iter_mut(), &norm, count, &mut vec![]);
                let mut found = vec![];
                for (p, panel) in panels.iter().enumerate() {
                    for s in 0..PANEL {
                        found.extend(panel.of(s).0.iter().map(|&j| (p * PANEL + s) * m + j as usize));
                    }
                }
                assert_eq!(found, expected, "{samples} x {m}, {count}");
                let key = |&at: &usize| latents[at] * norm[at % m];
                assert_eq!(least, expected.iter().map(key).min_by(f32::total_cmp));
            }
        }
    }
}
