//! Fixed ranges of the plan's order: what is trained, published and resumed as one.

use std::sync::OnceLock;

use super::Plan;
use super::parts::step_samples;

/// Latents taken to be active in a sample.
const ACTIVE_LATENTS: f64 = 64.0;

/// Numbers of evaluation samples' hidden states that a stem keeps; of more, every dictionary draws its own again.
pub const KEPT_HIDDEN: usize = 1 << 24;

/// Floating-point operations a second of one core that estimates assume: small models on a core with AVX2.
pub const SPEED: f64 = 2.5e10;

/// Estimated seconds of one core that a chunk takes, where nothing else is asked for.
pub const SECONDS: f64 = 24.0;
/// Cells of one chunk, at most.
const MOST: usize = 5_000;

/// Rows of snapshots in one chunk, at most, unless one cell alone has more: they are in memory until it is published.
const SNAPSHOT_ROWS: u64 = 2_000_000;

/// Cells `first .. first + count` of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub first: usize,
    pub count: usize,
}

impl Plan {
    /// Estimated floating-point operations of a cell: (of its stem, shared with its neighbours; of the cell alone).
    pub fn work(&self, index: usize) -> (f64, f64) {
        let [data, toy, evaluate, method] = self.facts(self.cells[index]);
        let d = if toy.d_hidden > 0 { toy.d_hidden } else { data.d_hidden } as f64;
        let n = data.n_features as f64;
        // A toy model: 10 n d operations a sample (h, x', dh: 2 n d each, dW: 4 n d). An SAE: 12 d m for dense products.
        let training = if toy.steps > 0 { toy.steps as f64 * step_samples(&data, &toy) as f64 } else { 0.0 };
        let stem = training * 10.0 * n * d + evaluate.work * 2.0 * n * d;
        let own = method.work * 12.0 * d * method.n_latents as f64 + evaluate.work * 100.0 * (n + d);
        (stem, own)
    }

    /// Estimated bytes that training and scoring a cell holds at once.
    pub fn memory(&self, index: usize) -> f64 {
        let [data, toy, evaluate, method] = self.facts(self.cells[index]);
        let d = if toy.d_hidden > 0 { toy.d_hidden } else { data.d_hidden } as f64;
        let (n, m) = (data.n_features as f64, method.n_latents as f64);
        // Of a finite set what fires, and of snapshots the rows.
        let kept = 100.0 * self.snapshot_rows(&data, &toy) as f64 + 16.0 * data.dataset as f64 * d;
        let weights = 16.0 * (n * d + 2.0 * m * d) + kept;
        // Scores: entries of x and z with their transposes, h where it is small enough to keep, directions in f64, and the
        // cosines of a block of latents.
        let entries = 20.0 * evaluate.work * (data.active + m.min(ACTIVE_LATENTS));
        let hidden = 4.0 * (evaluate.work * d).min(KEPT_HIDDEN as f64);
        weights + entries + hidden + 16.0 * d * (n + m) + 512.0 * n
    }

    /// Where the bytes of [`Plan::memory`] come from, for a message.
    pub fn memory_in_words(&self, index: usize) -> String {
        let [data, toy, evaluate, method] = self.facts(self.cells[index]);
        let d = if toy.d_hidden > 0 { toy.d_hidden } else { data.d_hidden };
        let (n, m) = (data.n_features, method.n_latents);
        let latents = if m > 0 { format!(" and for {m} latents twice") } else { String::new() };
        format!(
            "16 bytes for each weight, of {n} features by d = {d}{latents}, and 20 for each entry of {:.0} evaluation samples",
            evaluate.work
        )
    }

    /// Estimated bytes that a trained cell holds until its chunk is published: weights, moments and what its rows come from.
    pub fn held(&self, index: usize) -> f64 {
        let [data, toy, _, method] = self.facts(self.cells[index]);
        let d = if toy.d_hidden > 0 { toy.d_hidden } else { data.d_hidden } as f64;
        let (n, m) = (data.n_features as f64, method.n_latents as f64);
        16.0 * (n * d + 2.0 * m * d) + 100.0 * n + 4096.0
    }

    /// Rows of the table `snapshots` of a cell.
    pub fn snapshot_rows_of(&self, index: usize) -> u64 {
        let [data, toy, ..] = self.facts(self.cells[index]);
        self.snapshot_rows(&data, &toy)
    }

    /// The same plan in chunks of so many estimated seconds of one core. Rows do not depend on it: cells are found by their ids.
    pub fn in_chunks_of(self, seconds: f64) -> Plan {
        Plan { chunk_seconds: seconds, chunks: OnceLock::new(), ..self }
    }

    /// The chunks. Cells of one stem stay together unless they alone are too many.
    pub fn chunks(&self) -> &[Chunk] {
        self.chunks.get_or_init(|| self.cut())
    }

    fn cut(&self) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let (mut first, mut work, mut snapshots) = (0, 0.0, 0);
        let mut stem_start = 0;
        for index in 0..self.cells.len() {
            let new_stem = index == 0 || !self.same_stem(index - 1, index);
            let (stem, own) = self.work(index);
            if new_stem {
                stem_start = index;
            }
            let rows = match self.document.experiment.save.trace.features {
                true => self.snapshot_rows_of(index),
                false => 0,
            };
            let full = index > first
                && (work >= self.chunk_seconds * SPEED || index - first >= MOST || snapshots + rows > SNAPSHOT_ROWS);
            if full && (new_stem || index - first >= MOST) {
                chunks.push(Chunk { first, count: index - first });
                (first, work) = (index, if stem_start < index { stem } else { 0.0 });
                snapshots = 0;
            }
            snapshots += rows;
            work += own + if new_stem { stem } else { 0.0 };
        }
        if first < self.cells.len() {
            chunks.push(Chunk { first, count: self.cells.len() - first });
        }
        chunks
    }
}

/// A time in words.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under a second".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s if s < 1e4 * 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s => format!("{:.0} years", s / (365.25 * 86_400.0)),
    }
}

/// An amount of memory in words.
pub fn bytes(count: f64) -> String {
    match count {
        b if b < 1e6 => format!("{:.0} kB", (b / 1e3).max(1.0)),
        b if b < 1e9 => format!("{:.0} MB", b / 1e6),
        b if b < 1e13 => format!("{:.1} GB", b / 1e9),
        b => format!("{:.1} TB", b / 1e12),
    }
}
