//! Activations from elsewhere: matrix files `[samples, d]` that are never held whole in memory.
//!
//! The rows of all files stand one after the other and are cut into **chunks** of consecutive rows of one file, the unit
//! that is read and that is held out: neighbouring rows often come from one text, so that held-out rows should not stand
//! between training rows. [`order`] says in which order training walks them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::random::{Draws, Stream};
use crate::score::input::InputError;

pub mod order;
mod shard;

pub use order::{GivenSource, GivenStream};
use shard::Shard;

/// Bytes of a chunk in memory, about: one read of a disk.
const CHUNK_BYTES: u64 = 256 << 10;

/// There are at least so many chunks where there are as many rows, so that a share of them can be held out and order is
/// not lost in small files.
const LEAST_CHUNKS: u64 = 256;

/// Part of the order stream that says which chunks are held out.
const HOLD_OUT: u64 = u64::MAX;

/// What can be wrong with activations.
#[derive(Debug, thiserror::Error)]
pub enum ActivationsError {
    #[error(transparent)]
    File(#[from] InputError),
    #[error("{}: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },
    #[error(
        "{} has rows of {}, {} of {}: all files must be equally wide (d)",
        first.0.display(), first.1, other.0.display(), other.1
    )]
    Widths { first: (PathBuf, u64), other: (PathBuf, u64) },
    #[error("{rows} rows in all: at least two are needed, one to train on and one to hold out")]
    Few { rows: u64 },
    #[error("hold_out {share} of {chunks} chunks of rows leaves nothing to train on: hold out less")]
    NothingLeft { share: f64, chunks: usize },
}

/// Consecutive rows of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    shard: u32,
    rows: u32,
    first: u64,
}

/// Files of activations, open, with the rows that are held out.
pub struct Activations {
    shards: Vec<Shard>,
    d: usize,
    chunks: Vec<Chunk>,
    /// Chunks to train on, ascending.
    train: Vec<u32>,
    /// Chunks to evaluate on, in the order in which they are taken: those held out, or all.
    held: Vec<u32>,
    /// The first file that could not be read after all.
    failure: Mutex<Option<String>>,
}

impl fmt::Debug for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activations").field("shards", &self.shards).field("chunks", &self.chunks.len()).finish()
    }
}

impl Activations {
    /// Opens files, and of folders the `.npy` and `.safetensors` files in them by name; holds out this share of the chunks,
    /// the same whatever is trained. `convert` allows float64.
    ///
    /// # Errors
    /// A file that is no matrix of numbers, files of different widths, too few rows.
    pub fn open(paths: &[PathBuf], hold_out: f64, convert: bool) -> Result<Activations, ActivationsError> {
        let mut shards = Vec::new();
        for path in paths {
            for file in files_of(path)? {
                shards.push(Shard::open(&file, convert)?);
            }
        }
        if let Some(other) = shards.iter().find(|shard| shard.d() != shards[0].d()) {
            let named = |shard: &Shard| (shard.path().to_owned(), shard.d());
            return Err(ActivationsError::Widths { first: named(&shards[0]), other: named(other) });
        }
        let rows: u64 = shards.iter().map(Shard::rows).sum();
        if rows < 2 {
            return Err(ActivationsError::Few { rows });
        }
        // The length of a file bounds both: each number has two bytes at least.
        let d = shards[0].d() as usize;
        let at_once = (CHUNK_BYTES / (4 * d as u64)).min(rows / LEAST_CHUNKS).max(1);
        let chunks_of = |(s, shard): (usize, &Shard)| {
            let total = shard.rows();
            let chunk = move |first: u64| Chunk { shard: s as u32, first, rows: at_once.min(total - first) as u32 };
            (0..total).step_by(at_once as usize).map(chunk).collect::<Vec<Chunk>>()
        };
        let chunks: Vec<Chunk> = shards.iter().enumerate().flat_map(chunks_of).collect();
        let (train, held) = split(chunks.len(), hold_out)?;
        Ok(Activations { shards, d, chunks, train, held, failure: Mutex::new(None) })
    }

    /// Width.
    pub fn d(&self) -> usize {
        self.d
    }

    /// Rows of the chunks to train on.
    pub fn training_rows(&self) -> u64 {
        self.train.iter().map(|&c| self.chunks[c as usize].rows as u64).sum()
    }

    /// Rows of the chunks to evaluate on: those held out, or all where nothing is.
    pub fn evaluation_rows(&self) -> u64 {
        self.held.iter().map(|&c| self.chunks[c as usize].rows as u64).sum()
    }

    /// Files.
    pub fn n_files(&self) -> usize {
        self.shards.len()
    }

    /// Files whose rows have to be put together from columns.
    pub fn by_column(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().filter(|shard| shard.is_by_column()).map(Shard::path)
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// A number that is not finite, with its file, row and column.
    pub fn check_finite(&self) -> Result<(), ActivationsError> {
        self.shards.iter().try_for_each(|shard| Ok(shard.check_finite()?))
    }

    /// Shapes, types and 64 pieces of 4 KiB of each file: another file gives another fingerprint, a file of which less was
    /// changed may not.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn fingerprint(&self) -> Result<String, String> {
        let mut hasher = blake3::Hasher::new_derive_key("tegum 2026 activations v1");
        for shard in &self.shards {
            shard.hash(&mut hasher).map_err(|e| format!("{}: {e}", shard.path().display()))?;
        }
        Ok(hasher.finalize().to_hex()[..32].to_owned())
    }

    /// What went wrong when a file was read again, if anything did: then rows were put as zeros, and what was trained on
    /// them is void.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().expect("no thread panics while it holds this").clone()
    }

    /// The rows of a chunk, appended.
    fn append(&self, chunk: u32, out: &mut Vec<f32>) {
        let Chunk { shard, rows, first } = self.chunks[chunk as usize];
        let (shard, from) = (&self.shards[shard as usize], out.len());
        out.resize(from + rows as usize * self.d, 0.0);
        if let Err(error) = shard.read_rows(first, &mut out[from..]) {
            let mut failure = self.failure.lock().expect("no thread panics while it holds this");
            failure.get_or_insert_with(|| format!("{}: cannot be read any more: {error}", shard.path().display()));
            out[from..].fill(0.0);
        }
    }

    /// The first `most` rows to evaluate on, in pieces of about `piece` rows `[rows, d]`.
    pub fn evaluation(&self, most: usize, piece: usize, mut each: impl FnMut(&[f32])) {
        let (mut left, mut rows) = (most, Vec::new());
        for (i, &chunk) in self.held.iter().enumerate() {
            self.append(chunk, &mut rows);
            let last = i + 1 == self.held.len();
            while rows.len() >= piece * self.d || last && !rows.is_empty() || rows.len() >= left * self.d {
                let take = piece.min(left).min(rows.len() / self.d);
                if take == 0 {
                    return;
                }
                each(&rows[..take * self.d]);
                rows.drain(..take * self.d);
                left -= take;
            }
        }
    }
}

/// Training chunks, ascending, and those to evaluate on, in the order of a permutation that the share does not move: a larger
/// share holds out what a smaller one does and more.
fn split(chunks: usize, share: f64) -> Result<(Vec<u32>, Vec<u32>), ActivationsError> {
    let order = shuffled(0, HOLD_OUT, chunks as u32);
    if share == 0.0 {
        return Ok(((0..chunks as u32).collect(), order));
    }
    let count = ((share * chunks as f64).round() as usize).max(1);
    if count >= chunks {
        return Err(ActivationsError::NothingLeft { share, chunks });
    }
    let mut train = order[count..].to_vec();
    train.sort_unstable();
    Ok((train, order[..count].to_vec()))
}

/// 0 .. n in the order of a part of a seed's order stream (Fisher-Yates).
fn shuffled(seed: u64, part: u64, n: u32) -> Vec<u32> {
    let mut draws = Draws::new(seed, Stream::DatasetOrder, part);
    let mut order: Vec<u32> = (0..n).collect();
    for i in (1..order.len()).rev() {
        let j = draws.below(i as u32 + 1) as usize;
        order.swap(i, j);
    }
    order
}

/// A file, or the array files of a folder by name.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, ActivationsError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let wrong = |reason: String| ActivationsError::Folder { path: path.to_owned(), reason };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| wrong(e.to_string()))? {
        let file = entry.map_err(|e| wrong(e.to_string()))?.path();
        let array = file.extension().is_some_and(|e| e == "npy" || e == "safetensors");
        // A hidden file is one that another program is still writing, or none of ours.
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if array && !hidden && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(wrong("no .npy or .safetensors file in this folder".into())),
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests;
