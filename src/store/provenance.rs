//! Who wrote what, and what went wrong: beside the rows, never in them.

use std::path::{Path, PathBuf};

use super::Store;
use super::error::StoreError;

impl Store {
    /// Writes `prov/<writer>-<n>.json` and returns its path.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn write_provenance(&self, record: &serde_json::Value) -> Result<PathBuf, StoreError> {
        self.note("prov", "json", &format!("{record:#}\n"))
    }

    /// Writes an attempt that ended in a panic, a signal or out of memory to `failed/<writer>-<n>.jsonl`. Such an attempt
    /// is no result: its cells stay missing.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn record_failure(&self, record: &serde_json::Value) -> Result<PathBuf, StoreError> {
        self.note("failed", "jsonl", &format!("{record}\n"))
    }

    fn note(&self, folder: &str, extension: &str, text: &str) -> Result<PathBuf, StoreError> {
        let path = self.folder(Path::new(folder))?.join(format!("{}.{extension}", self.disk.unique()));
        self.disk.replace(&path, text.as_bytes())?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::testing::{plan, store_of};
    use serde_json::{Value, json};

    #[test]
    fn every_record_gets_a_file_of_its_own() {
        let (folder, store) = store_of(&plan(1, 1));
        let one = store.write_provenance(&json!({"cpu": "a"})).expect("writes");
        let two = store.write_provenance(&json!({"cpu": "a"})).expect("writes");
        let failed = store.record_failure(&json!({"cell": "x", "why": "panic\nat line 1"})).expect("writes");
        assert_ne!(one, two);
        assert!(one.starts_with(folder.path().join("prov")) && failed.starts_with(folder.path().join("failed")));
        let text = std::fs::read_to_string(&one).expect("readable");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), json!({"cpu": "a"}));
        assert_eq!(std::fs::read_to_string(&failed).expect("readable").lines().count(), 1, "one line a record");
        assert!(store.scan().expect("sound").done().is_empty());
    }
}
