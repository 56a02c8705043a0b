//! Who wrote what, and what went wrong: beside the rows, never in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use serde_json::Value;

use super::Store;
use super::error::StoreError;
use super::fs::list_if_there;
use crate::plan::CellId;

/// Folder of cells that failed.
const FAILED: &str = "failed";

impl Store {
    /// Writes `prov/<writer>-<n>.json` and returns its path.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn write_provenance(&self, record: &Value) -> Result<PathBuf, StoreError> {
        self.note("prov", "json", &format!("{record:#}\n"))
    }

    /// Replaces a record of [`Store::write_provenance`] by one that knows more, in one step.
    ///
    /// # Errors
    /// What the file system refuses; the record is what it was then.
    pub fn rewrite_provenance(&self, path: &Path, record: &Value) -> Result<(), StoreError> {
        self.disk.replace(path, format!("{record:#}\n").as_bytes())
    }

    /// Names of the parts that this process has published, or found there as it would have published them.
    pub fn written(&self) -> Vec<String> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn note_part(&self, name: String) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Writes what is known of a cell whose computing ended in a panic, a signal or out of memory, each time, to
    /// `failed/<writer>-<n>.jsonl`. That is no result: the cell stays missing.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn record_failure(&self, record: &Value) -> Result<PathBuf, StoreError> {
        self.note(FAILED, "jsonl", &format!("{record}\n"))
    }

    /// What [`Store::record_failure`] has kept, by cell, in the order of the files' names. What cannot be read is left out:
    /// nothing but words depends on it.
    pub fn failures(&self) -> BTreeMap<CellId, Vec<Value>> {
        let folder = self.dir.join(FAILED);
        let mut failures: BTreeMap<CellId, Vec<Value>> = BTreeMap::new();
        for entry in list_if_there(&*self.disk.files, &folder).unwrap_or_default() {
            let is_record = entry.name.ends_with(".jsonl") && !entry.name.starts_with('.');
            let bytes = self.disk.files.read(&folder.join(&entry.name)).ok().filter(|_| is_record);
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            for record in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
                if let Some(cell) = record["cell"].as_str().and_then(|cell| cell.parse().ok()) {
                    failures.entry(cell).or_default().push(record);
                }
            }
        }
        failures
    }

    fn note(&self, folder: &str, extension: &str, text: &str) -> Result<PathBuf, StoreError> {
        let path = self.folder(Path::new(folder))?.join(format!("{}.{extension}", self.disk.unique()));
        self.disk.replace(&path, text.as_bytes())?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::ChunkResult;
    use crate::store::testing::{cell, plan, row, store_of};
    use serde_json::{Value, json};

    #[test]
    fn every_record_gets_a_file_of_its_own() {
        let (folder, store) = store_of(&plan(1, 1));
        let one = store.write_provenance(&json!({"cpu": "a"})).expect("writes");
        let two = store.write_provenance(&json!({"cpu": "a"})).expect("writes");
        let failed = store.record_failure(&json!({"cell": "x", "why": "panic\nat line 1"})).expect("writes");
        assert_ne!(one, two);
        assert!(one.starts_with(folder.path().join("prov")) && failed.starts_with(folder.path().join("failed")));
        let record = |path| std::fs::read_to_string(path).expect("readable");
        assert_eq!(serde_json::from_str::<Value>(&record(&one)).expect("JSON"), json!({"cpu": "a"}));
        store.rewrite_provenance(&one, &json!({"cpu": "b"})).expect("writes");
        assert_eq!(serde_json::from_str::<Value>(&record(&one)).expect("JSON"), json!({"cpu": "b"}));
        assert_eq!(record(&failed).lines().count(), 1, "one line a record");
        assert!(store.scan().expect("sound").done().is_empty());
    }

    #[test]
    fn parts_that_were_published_are_known_by_their_names() {
        let (_folder, store) = store_of(&plan(2, 1));
        for index in [1, 0, 1] {
            store
                .publish(&ChunkResult { chunk: index, rows: vec![row(index)], ..Default::default() })
                .expect("publishes");
        }
        let written = store.written();
        let parts = store.scan().expect("sound").parts;
        let mut names: Vec<String> =
            parts.iter().filter_map(|part| Some(part.file_name()?.to_string_lossy().into_owned())).collect();
        names.sort();
        assert_eq!(written, names);
    }

    #[test]
    fn failures_are_found_by_cell_and_rubbish_among_them_is_left_out() {
        let (folder, store) = store_of(&plan(2, 1));
        assert!(store.failures().is_empty());
        for why in ["first", "second"] {
            store.record_failure(&json!({"cell": cell(1).to_string(), "why": why})).expect("writes");
        }
        store.record_failure(&json!({"cell": "no id"})).expect("writes");
        std::fs::write(folder.path().join("failed/torn.jsonl"), b"{\"cell\": \xff").expect("writable");
        let failures = store.failures();
        assert_eq!(failures.len(), 1);
        let why: Vec<&str> = failures[&cell(1)].iter().filter_map(|record| record["why"].as_str()).collect();
        assert_eq!(why, ["first", "second"]);
    }
}
