//! All rows of a finished run in one file, with a manifest that says what it was made of. It can always be made again.

use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;
use serde_json::{Value, json};

use super::Store;
use super::error::StoreError;
use super::parquet::parquet;
use super::plan_file::{PlanRecord, short_hash};
use super::resume::{ChunkState, Progress};
use super::rows::logical_hash;
use super::scan::{Damage, Scan};
use crate::plan::CellId;

const COLLECTED: &str = "collected";
const ROWS: &str = "rows.parquet";
const MANIFEST: &str = "rows.manifest.json";
/// The manifest's own hash, over all that stands before it.
const SEAL: &str = "manifest_hash";

/// What `collected/` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collected {
    pub path: PathBuf,
    pub rows: u64,
    /// See [`logical_hash`].
    pub logical_hash: String,
    /// Chunks with a cell that has no row.
    pub missing_chunks: Vec<u64>,
}

/// How much of a plan there is to collect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Cells that are done.
    pub done: u64,
    /// Chunks with a cell that is not.
    missing_chunks: Vec<u64>,
    /// File names of the parts, in the order of their paths.
    parts: Vec<String>,
}

impl Coverage {
    /// Of a plan, given with its cells in its order, as the files were found.
    ///
    /// # Errors
    /// `ids` that are not the plan's.
    pub fn of(plan: &PlanRecord, ids: &[CellId], scan: &Scan) -> Result<Coverage, StoreError> {
        let progress = Progress::of(plan, ids, scan)?;
        let unfinished = progress.chunks.iter().zip(0..).filter(|(state, _)| **state != ChunkState::Done);
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Coverage {
            done: progress.done,
            missing_chunks: unfinished.map(|(_, chunk)| chunk).collect(),
            parts: scan.parts.iter().map(name).collect(),
        })
    }

    /// Where every cell is known to be done, of parts as [`Store::part_names`] gave them before the rows were read.
    pub fn whole(plan: &PlanRecord, parts: Vec<String>) -> Coverage {
        Coverage { done: plan.cells, missing_chunks: Vec::new(), parts }
    }
}

impl Store {
    /// Writes `collected/rows.parquet` and `collected/rows.manifest.json`. `rows`: the plan's, from [`Store::rows`] or
    /// [`Store::rows_as_planned`]. `partial`: also if cells are missing; the manifest then names their chunks.
    ///
    /// # Errors
    /// Missing cells without `partial`; what the file system refuses.
    pub fn collect(
        &self,
        plan: &PlanRecord,
        rows: &DataFrame,
        coverage: &Coverage,
        partial: bool,
    ) -> Result<Collected, StoreError> {
        if coverage.done < plan.cells && !partial {
            let missing = plan.cells - coverage.done;
            return Err(StoreError::Incomplete { path: self.dir.clone(), missing, cells: plan.cells });
        }
        // Whoever collects has nothing else to compute.
        let (bytes, hash) = rayon::join(|| parquet(rows, &[]), || logical_hash(rows));
        let bytes = bytes.map_err(|error| StoreError::WrongShape { reason: error.to_string() })?;
        let mut manifest = json!({
            "experiment": plan.experiment,
            "plan": plan.hash(),
            "cells": plan.cells,
            "rows": rows.height(),
            "logical_hash": hash,
            "file_hash": short_hash(&bytes),
            "missing_chunks": coverage.missing_chunks,
            "parts": coverage.parts,
        });
        manifest[SEAL] = seal(&manifest).into();
        let folder = self.folder(Path::new(COLLECTED))?;
        let path = folder.join(ROWS);
        self.disk.replace(&path, &bytes)?;
        self.disk.replace(&folder.join(MANIFEST), text_of(&manifest).as_bytes())?;
        Ok(Collected {
            path,
            rows: rows.height() as u64,
            logical_hash: hash,
            missing_chunks: coverage.missing_chunks.clone(),
        })
    }
}

impl Store {
    /// Whether `collected/` is as it was written, of this plan, whole, and made of the parts that are there: what
    /// [`Store::collect`] would write again.
    ///
    /// # Errors
    /// A folder that cannot be listed; files that cannot be read are as good as none.
    pub fn is_collected(&self, plan: &PlanRecord) -> Result<bool, StoreError> {
        let folder = self.dir.join(COLLECTED);
        let read = |name: &str| self.disk.files.read(&folder.join(name)).ok();
        let Some(manifest) = read(MANIFEST).and_then(|bytes| sealed(&bytes)) else { return Ok(false) };
        Ok(manifest["plan"] == plan.hash().as_str()
            && manifest["rows"] == plan.cells
            && manifest["parts"] == json!(self.part_names()?)
            && read(ROWS).is_some_and(|bytes| manifest["file_hash"] == short_hash(&bytes).as_str()))
    }

    /// What of `collected/` is damaged: a manifest that is not as it was written, or rows that are not the manifest's.
    pub(super) fn check_collected(&self) -> Result<Vec<Damage>, StoreError> {
        let folder = self.dir.join(COLLECTED);
        let (path, rows) = (folder.join(MANIFEST), folder.join(ROWS));
        let bytes = match self.disk.files.read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(StoreError::io("read", &path))?,
        };
        let damage = |path: PathBuf, reason: &str| vec![Damage { path, reason: reason.into(), moved_to: None }];
        let Some(manifest) = sealed(&bytes) else { return Ok(damage(path, "it is not as it was written")) };
        let found = self.disk.files.read(&rows).map(|bytes| short_hash(&bytes));
        if found.is_ok_and(|hash| manifest["file_hash"] == hash.as_str()) {
            Ok(Vec::new())
        } else {
            Ok(damage(rows, "it is not the file that its manifest names; collect again"))
        }
    }
}

fn text_of(manifest: &Value) -> String {
    format!("{manifest:#}\n")
}

/// Hash over the manifest as it is written, without the seal.
fn seal(manifest: &Value) -> String {
    short_hash(text_of(manifest).as_bytes())
}

/// The manifest, if every byte of it is as it was written.
fn sealed(bytes: &[u8]) -> Option<Value> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    let mut unsealed = manifest.clone();
    let found = unsealed.as_object_mut()?.shift_remove(SEAL)?;
    (found == seal(&unsealed).as_str() && text_of(&manifest).as_bytes() == bytes).then_some(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChunkResult;
    use crate::store::testing::{ids, plan, row, store_of};

    #[test]
    fn an_unfinished_run_is_collected_only_when_asked_and_says_what_is_missing() {
        let plan = plan(6, 2);
        let (_folder, store) = store_of(&plan);
        let publish = |chunk: u64| {
            let rows = (chunk * 2..chunk * 2 + 2).map(row).collect();
            store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
        };
        let collect = |partial| {
            let rows = store.rows(&plan, &ids(6)).expect("rows");
            let coverage = Coverage::of(&plan, &ids(6), &store.scan().expect("sound")).expect("six ids");
            store.collect(&plan, &rows, &coverage, partial)
        };
        publish(0);
        publish(2);
        assert!(matches!(collect(false), Err(StoreError::Incomplete { missing: 2, cells: 6, .. })));
        assert_eq!(collect(true).expect("four rows").missing_chunks, [1]);
        publish(1);
        let whole = collect(false).expect("six rows");
        let found = Coverage::of(&plan, &ids(6), &store.scan().expect("sound")).expect("six ids");
        assert_eq!(Coverage::whole(&plan, store.part_names().expect("listed")), found, "as the files say");
        assert_eq!((whole.rows, whole.missing_chunks.len()), (6, 0));
        let manifest = std::fs::read(store.dir().join("collected/rows.manifest.json")).expect("readable");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!(manifest["logical_hash"], whole.logical_hash.as_str());
        assert_eq!(manifest["file_hash"], short_hash(&std::fs::read(&whole.path).expect("readable")).as_str());
        assert_eq!(manifest["parts"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn what_was_collected_is_current_until_a_part_or_the_plan_or_a_byte_changes() {
        let two = plan(2, 1);
        let (_folder, store) = store_of(&two);
        let publish = |chunk: u64| {
            store.publish(&ChunkResult { chunk, rows: vec![row(chunk)], ..Default::default() }).expect("publishes");
        };
        let collect = || {
            let rows = store.rows(&two, &ids(2)).expect("rows");
            let coverage = Coverage::of(&two, &ids(2), &store.scan().expect("sound")).expect("two ids");
            store.collect(&two, &rows, &coverage, true).expect("collects");
            store.is_collected(&two).expect("listed")
        };
        assert!(!store.is_collected(&two).expect("listed"), "nothing is there");
        publish(0);
        assert!(!collect(), "half of the rows");
        publish(1);
        assert!(!store.is_collected(&two).expect("listed"), "a part is new");
        assert!(collect());
        assert!(!store.is_collected(&PlanRecord { profile: "cuda".into(), ..two.clone() }).expect("listed"));
        std::fs::write(store.dir().join(COLLECTED).join(ROWS), b"x").expect("writable");
        assert!(!store.is_collected(&two).expect("listed"));
    }

    #[test]
    fn one_changed_byte_of_what_was_collected_is_noticed() {
        let plan = plan(2, 2);
        let (_folder, store) = store_of(&plan);
        store.publish(&ChunkResult { chunk: 0, rows: vec![row(0), row(1)], ..Default::default() }).expect("publishes");
        let rows = store.rows(&plan, &ids(2)).expect("rows");
        let whole = Coverage::whole(&plan, store.part_names().expect("listed"));
        store.collect(&plan, &rows, &whole, false).expect("collects");
        assert_eq!(store.check_collected().expect("readable"), []);
        let read = |name: &str| std::fs::read(store.dir().join(COLLECTED).join(name)).expect("readable");
        let flipped = |bytes: &[u8], at: usize| {
            let mut rotten = bytes.to_vec();
            rotten[at] ^= 1;
            rotten
        };
        let (manifest, bytes) = (read(MANIFEST), read(ROWS));
        assert!(sealed(&manifest).is_some());
        assert!((0..manifest.len()).all(|at| sealed(&flipped(&manifest, at)).is_none()));
        for (name, bytes) in [(MANIFEST, &manifest), (ROWS, &bytes)] {
            let path = store.dir().join(COLLECTED).join(name);
            for at in [0, bytes.len() / 2, bytes.len() - 1] {
                std::fs::write(&path, flipped(bytes, at)).expect("writable");
                assert_eq!(store.check_collected().expect("readable").len(), 1, "{name}, byte {at}");
            }
            std::fs::write(&path, bytes).expect("writable");
        }
        std::fs::write(store.dir().join(COLLECTED).join(ROWS), b"").expect("writable");
        assert_eq!(store.verify().expect("reports").quarantined.len(), 1);
    }
}
