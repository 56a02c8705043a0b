//! All rows of a finished run in one file, with a manifest that says what it was made of. It can always be made again.

use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;
use serde_json::json;

use super::Store;
use super::error::StoreError;
use super::part::parquet;
use super::plan_file::{PlanRecord, short_hash};
use super::resume::{ChunkState, Progress};
use crate::plan::CellId;
use super::rows::logical_hash;
use super::scan::Scan;

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

impl Store {
    /// Writes `collected/rows.parquet` and `collected/rows.manifest.json`. `rows`: the plan's, from [`Store::rows`] or
    /// [`Store::rows_as_planned`]. `partial`: also if cells are missing; the manifest then names their chunks.
    ///
    /// # Errors
    /// Missing cells without `partial`; what the file system refuses.
    pub fn collect(
        &self,
        plan: &PlanRecord,
        ids: &[CellId],
        scan: &Scan,
        rows: &DataFrame,
        partial: bool,
    ) -> Result<Collected, StoreError> {
        let progress = Progress::of(plan, ids, scan)?;
        if progress.done < plan.cells && !partial {
            let missing = plan.cells - progress.done;
            return Err(StoreError::Incomplete { path: self.dir.clone(), missing, cells: plan.cells });
        }
        let unfinished = progress.chunks.iter().zip(0..).filter(|(state, _)| **state != ChunkState::Done);
        let missing_chunks: Vec<u64> = unfinished.map(|(_, chunk)| chunk).collect();
        let bytes =
            parquet(&mut rows.clone(), None).map_err(|error| StoreError::WrongShape { reason: error.to_string() })?;
        let hash = logical_hash(rows);
        let part_name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let manifest = json!({
            "experiment": plan.experiment,
            "plan": plan.hash(),
            "cells": plan.cells,
            "rows": rows.height(),
            "logical_hash": hash,
            "file_hash": short_hash(&bytes),
            "missing_chunks": missing_chunks,
            "parts": scan.parts.iter().map(part_name).collect::<Vec<_>>(),
        });
        let folder = self.folder(Path::new("collected"))?;
        let path = folder.join("rows.parquet");
        self.disk.replace(&path, &bytes)?;
        self.disk.replace(&folder.join("rows.manifest.json"), format!("{manifest:#}\n").as_bytes())?;
        Ok(Collected { path, rows: rows.height() as u64, logical_hash: hash, missing_chunks })
    }
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
            store.collect(&plan, &ids(6), &store.scan().expect("sound"), &rows, partial)
        };
        publish(0);
        publish(2);
        assert!(matches!(collect(false), Err(StoreError::Incomplete { missing: 2, cells: 6, .. })));
        assert_eq!(collect(true).expect("four rows").missing_chunks, [1]);
        publish(1);
        let whole = collect(false).expect("six rows");
        assert_eq!((whole.rows, whole.missing_chunks.len()), (6, 0));
        let manifest = std::fs::read(store.dir().join("collected/rows.manifest.json")).expect("readable");
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!(manifest["logical_hash"], whole.logical_hash.as_str());
        assert_eq!(manifest["file_hash"], short_hash(&std::fs::read(&whole.path).expect("readable")).as_str());
        assert_eq!(manifest["parts"].as_array().map(Vec::len), Some(3));
    }
}
