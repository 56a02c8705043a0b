//! In which order training walks the rows: every epoch another one, the same whoever walks it, without all rows in memory.
//!
//! ```text
//! epoch e:    the training chunks, shuffled; cut into windows of up to 64 MiB of consecutive chunks
//! window w:   its rows, shuffled
//! batch t of n samples: samples t n .. (t + 1) n of the epochs one after the other
//! ```
//!
//! Both shuffles are drawn from (seed, epoch, window), so that any batch can be had without those before it. Where all rows
//! fit into one window, they are read once and shuffled whole every epoch. A stream holds one window: 64 MiB and four bytes
//! a row of it, and a number a chunk.

use std::sync::{Arc, Mutex};

use super::{Activations, shuffled};
use crate::hidden::HiddenBatch;

/// Bytes of rows that a stream holds.
const WINDOW_BYTES: usize = 64 << 20;

/// Windows of an epoch that its numbering has room for.
const WINDOW_BITS: u32 = 24;

/// Activations and the seed of the order in which they are walked.
#[derive(Clone, Debug)]
pub struct GivenSource {
    /// The files.
    pub activations: Arc<Activations>,
    /// Of the order.
    pub seed: u64,
}

impl GivenSource {
    /// The training rows, to be walked.
    pub fn open(&self) -> GivenStream {
        GivenStream::new(self.clone(), WINDOW_BYTES)
    }
}

/// Batches of training rows. Clones walk by themselves.
#[derive(Debug)]
pub struct GivenStream {
    source: GivenSource,
    /// Rows of a window, at most, unless one chunk alone has more.
    capacity: usize,
    rows: u64,
    walk: Mutex<Walk>,
}

impl Clone for GivenStream {
    fn clone(&self) -> GivenStream {
        let (source, capacity, rows) = (self.source.clone(), self.capacity, self.rows);
        GivenStream { source, capacity, rows, walk: Mutex::default() }
    }
}

/// Where a stream stands.
#[derive(Debug, Default)]
struct Walk {
    epoch: Option<Epoch>,
    /// Epoch and number of the window whose order of rows this is.
    at: Option<(u64, usize)>,
    /// `[rows, d]`
    rows: Vec<f32>,
    order: Vec<u32>,
}

#[derive(Debug)]
struct Epoch {
    number: u64,
    /// Chunks in the order of the epoch.
    chunks: Vec<u32>,
    /// First chunk (of this order) and first row of each window, and a last one past the end.
    windows: Vec<(usize, u64)>,
}

impl GivenStream {
    fn new(source: GivenSource, window_bytes: usize) -> GivenStream {
        let capacity = (window_bytes / (4 * source.activations.d())).max(1);
        let rows = source.activations.training_rows();
        GivenStream { source, capacity, rows, walk: Mutex::default() }
    }

    /// Rows of the whole set.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Batch `step` of `samples` rows into `out.h`; the rest of `out` is empty.
    pub fn draw_hidden(&self, step: u32, samples: usize, out: &mut HiddenBatch) {
        let d = self.source.activations.d();
        (out.samples, out.d_hidden) = (samples, d);
        out.h.clear();
        out.h.reserve(samples * d);
        let mut walk = self.walk.lock().expect("no thread panics while it holds this");
        let mut next = step as u64 * samples as u64;
        let mut left = samples;
        while left > 0 {
            let (epoch, row) = (next / self.rows, next % self.rows);
            let first = self.turn_to(&mut walk, epoch, row);
            let Walk { rows, order, .. } = &*walk;
            let from = (row - first) as usize;
            let take = left.min(order.len() - from);
            for &r in &order[from..from + take] {
                out.h.extend_from_slice(&rows[r as usize * d..][..d]);
            }
            left -= take;
            next += take as u64;
        }
    }

    /// Holds the window of an epoch's row; returns its first row.
    fn turn_to(&self, walk: &mut Walk, epoch: u64, row: u64) -> u64 {
        if walk.epoch.as_ref().is_none_or(|held| held.number != epoch) {
            walk.epoch = Some(self.epoch(epoch));
        }
        let Epoch { chunks, windows, .. } = walk.epoch.as_ref().expect("it was just laid out");
        let window = windows.partition_point(|&(_, first)| first <= row) - 1;
        let ((from, first), (to, end)) = (windows[window], windows[window + 1]);
        if walk.at != Some((epoch, window)) {
            let alone = windows.len() == 2;
            if !alone || walk.rows.is_empty() {
                walk.rows.clear();
                chunks[from..to].iter().for_each(|&chunk| self.source.activations.append(chunk, &mut walk.rows));
            }
            let part = epoch << WINDOW_BITS | (window as u64 + 1);
            walk.order = shuffled(self.source.seed, part, (end - first) as u32);
            walk.at = Some((epoch, window));
        }
        first
    }

    fn epoch(&self, number: u64) -> Epoch {
        let activations = &self.source.activations;
        let train = &activations.train;
        let alone = self.rows <= self.capacity as u64;
        // One window holds all: which chunk comes first is no matter, and what was read stays good.
        let chunks: Vec<u32> = match alone {
            true => train.clone(),
            false => {
                let order = shuffled(self.source.seed, number << WINDOW_BITS, train.len() as u32);
                order.into_iter().map(|i| train[i as usize]).collect()
            }
        };
        let (mut windows, mut rows, mut first) = (vec![(0, 0)], 0u64, 0u64);
        for (i, &chunk) in chunks.iter().enumerate() {
            let more = activations.chunks[chunk as usize].rows as u64;
            if rows > first && rows + more - first > self.capacity as u64 {
                windows.push((i, rows));
                first = rows;
            }
            rows += more;
        }
        windows.push((chunks.len(), rows));
        assert!(windows.len() < 1 << WINDOW_BITS, "an epoch of fewer than 2^24 windows");
        Epoch { number, chunks, windows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::tests::{numbered, open};

    fn stream(rows: usize, seed: u64, window_rows: usize) -> (tempfile::TempDir, GivenStream) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = numbered(&folder, &[rows / 3, rows - rows / 3], 3);
        let activations = Arc::new(open(&paths, 0.25).expect("good files"));
        let source = GivenSource { activations, seed };
        (folder, GivenStream::new(source, window_rows * 12))
    }

    /// First numbers of the rows of a batch.
    fn drawn(stream: &GivenStream, step: u32, samples: usize) -> Vec<u32> {
        let mut batch = HiddenBatch::default();
        stream.draw_hidden(step, samples, &mut batch);
        assert_eq!((batch.samples, batch.d_hidden, batch.h.len()), (samples, 3, samples * 3));
        batch.h.chunks_exact(3).for_each(|row| assert_eq!((row[1], row[2]), (row[0] + 0.25, row[0] + 0.5)));
        batch.h.chunks_exact(3).map(|row| row[0] as u32).collect()
    }

    #[test]
    fn every_epoch_shows_each_training_row_once_in_an_order_of_its_own() {
        // In one window, in several, in one for each chunk.
        for window_rows in [1 << 20, 100, 1] {
            let (_folder, stream) = stream(700, 3, window_rows);
            let n = stream.rows() as usize;
            let epochs: Vec<Vec<u32>> = (0..3).map(|epoch| drawn(&stream, epoch, n)).collect();
            let sorted = |epoch: &Vec<u32>| {
                let mut rows = epoch.clone();
                rows.sort_unstable();
                rows
            };
            assert!(sorted(&epochs[0]).windows(2).all(|w| w[0] < w[1]), "each once");
            assert!(epochs.iter().all(|epoch| sorted(epoch) == sorted(&epochs[0])));
            assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != sorted(&epochs[0]));
        }
    }

    #[test]
    fn batches_are_pieces_of_one_sequence_and_may_be_drawn_in_any_order() {
        for window_rows in [1 << 20, 100] {
            let (_folder, stream) = stream(700, 3, window_rows);
            let whole = drawn(&stream, 0, 2000);
            let fresh = stream.clone();
            for step in [7, 0, 3, 19, 1] {
                assert_eq!(drawn(&fresh, step, 100), whole[step as usize * 100..][..100]);
            }
            assert!(drawn(&stream, 0, 0).is_empty());
        }
    }

    #[test]
    fn seeds_walk_in_different_orders() {
        let (_a, one) = stream(700, 3, 100);
        let (_b, other) = stream(700, 4, 100);
        assert_ne!(drawn(&one, 0, 200), drawn(&other, 0, 200));
    }

    /// Of a uniform shuffle of 525 rows the mean distance of neighbours is a third of the range; within a window of a hundred
    /// rows of shuffled chunks it is nearly the same, where chunks of two rows in file order would give .004.
    #[test]
    fn neighbours_in_the_files_are_torn_apart() {
        let (_folder, stream) = stream(700, 3, 100);
        let rows = drawn(&stream, 0, stream.rows() as usize);
        let mean = rows.windows(2).map(|w| w[0].abs_diff(w[1]) as f64).sum::<f64>() / (rows.len() - 1) as f64 / 700.0;
        assert!((0.25..0.42).contains(&mean), "{mean}");
    }

    #[test]
    fn a_file_that_shrinks_is_told_and_gives_zeros() {
        let (folder, stream) = stream(700, 3, 100);
        let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("1.npy")).expect("it is there");
        file.set_len(500).expect("it may be cut");
        let mut batch = HiddenBatch::default();
        stream.draw_hidden(0, stream.rows() as usize, &mut batch);
        assert!(batch.h.iter().all(|h| h.is_finite()));
        let failure = stream.source.activations.failure().expect("it was read");
        assert!(failure.contains("1.npy"), "{failure}");
    }
}
