//! 8. Rows on disk.
//!
//! A run directory is a set of immutable files whose names hold the hash of their content, written by any number of
//! processes on any number of machines without locks. What is done is what is there: a run is continued by listing the
//! parts, comparing each with its name, and computing the rest of the plan. A file that does not hash to its name is set
//! aside and its cells are computed again.
//!
//! ```text
//! spec.yaml  plan-<hash>.json  current-plan
//! parts/xx/c00000017-<hash>.parquet            rows, one per cell
//! features/xx/, trace/xx/                      side tables of the same chunks, published before the rows
//! weights/xx/c00000017-<hash>.safetensors
//! prov/<writer>-<n>.json  failed/<writer>-<n>.jsonl
//! checkpoints/<cell>                           trainings under way
//! .writer-<writer>                             a run that is under way; advice only
//! conflicts/  quarantine/  collected/
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

mod checkpoint;
mod collect;
mod conflict;
mod error;
#[cfg(test)]
mod faulty;
mod files;
mod news;
mod part;
mod plan_file;
mod presence;
mod provenance;
mod publish;
mod resume;
mod row;
mod rows;
mod scan;
mod side;
#[cfg(test)]
pub(crate) mod testing;
mod weights;
mod writing;

pub use collect::Collected;
pub use error::{Conflict, StoreError};
pub use part::{PartName, dtype, frame, layout, parquet};
pub use plan_file::PlanRecord;
pub use presence::Presence;
pub use publish::Published;
pub use resume::{ChunkState, Progress};
pub use row::{Column, Kind, Row, Schema, Status, Value};

pub use crate::plan::CellId;
pub use rows::{PlannedCell, logical_hash};
pub use scan::{Damage, Scan};
pub use side::{Side, identity_of};
pub use weights::{Tensor, WeightTensor, encode_weights};
pub use writing::{ChunkResult, SideTable};

use files::{RealFiles, ensure_dir, ensure_dirs, refuse_link};
use publish::Disk;

/// Folder of the rows.
const PARTS: &str = "parts";

/// A run directory, open for reading, or for writing rows of one plan.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    disk: Disk,
    /// Absent in a store that was opened for reading.
    plan: Option<Arc<PlanRecord>>,
}

impl Store {
    /// Opens a run directory for rows of `plan`, and makes it if it is absent: the spec, the plan file and the folders
    /// of the parts are on disk when this returns.
    ///
    /// # Errors
    /// What the file system refuses, with advice.
    pub fn create_or_open(dir: &Path, spec: &[u8], plan: &PlanRecord) -> Result<Store, StoreError> {
        let store = Store { dir: dir.to_path_buf(), disk: Disk::new(Arc::new(RealFiles)), plan: None };
        store.set_up(spec, plan)
    }

    fn set_up(self, spec: &[u8], plan: &PlanRecord) -> Result<Store, StoreError> {
        let files = &*self.disk.files;
        ensure_dirs(files, &self.dir).map_err(StoreError::io("create", &self.dir))?;
        let parts = self.dir.join(PARTS);
        refuse_link(files, &parts).map_err(StoreError::io("use", &parts))?;
        ensure_dirs(files, &parts).map_err(StoreError::io("create", &parts))?;
        self.make_fan_out(&parts)?;
        self.replace_if_other("spec.yaml", spec)?;
        self.write_plan(plan)?;
        Ok(Store { plan: Some(Arc::new(plan.clone())), ..self })
    }

    /// All 256 folders at once, so that publishing never has to make a durable folder. One fsync for all of them, also
    /// if they were there: the process that made them may not have come to it yet.
    fn make_fan_out(&self, parts: &Path) -> Result<(), StoreError> {
        let files = &*self.disk.files;
        for number in 0..256 {
            let folder = parts.join(format!("{number:02x}"));
            match files.create_dir(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::io("create", &folder)(error));
                }
                Err(_) => refuse_link(files, &folder).map_err(StoreError::io("use", &folder))?,
                Ok(()) => {}
            }
        }
        files.sync_dir(parts).map_err(StoreError::io("sync", parts))
    }

    /// The experiment whose run a directory holds, if it is not `experiment`.
    ///
    /// # Errors
    /// An unreadable directory, or a damaged plan.
    pub fn holds_other(dir: &Path, experiment: &str) -> Result<Option<String>, StoreError> {
        let store = Store { dir: dir.to_path_buf(), disk: Disk::new(Arc::new(RealFiles)), plan: None };
        let plans = store.plans()?;
        if plans.iter().any(|(_, plan)| plan.experiment == experiment) {
            return Ok(None);
        }
        Ok(plans.into_iter().next().map(|(_, plan)| plan.experiment))
    }

    /// Opens a run directory for reading.
    ///
    /// # Errors
    /// The directory is no run directory.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let store = Store { dir: dir.to_path_buf(), disk: Disk::new(Arc::new(RealFiles)), plan: None };
        let entries = files::list_if_there(&*store.disk.files, dir).map_err(StoreError::io("open", dir))?;
        let is_plan = |entry: &files::Entry| entry.name.starts_with("plan-") && entry.name.ends_with(".json");
        if entries.iter().any(|entry| is_plan(entry) || (entry.is_dir && entry.name == PARTS)) {
            Ok(store)
        } else {
            Err(StoreError::NotAStore { path: dir.to_path_buf() })
        }
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The bytes of the user's YAML file.
    ///
    /// # Errors
    /// Absent or unreadable.
    pub fn spec(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join("spec.yaml");
        self.disk.files.read(&path).map_err(StoreError::io("read", &path))
    }

    /// Who this process is in temporary names and provenance.
    pub fn writer(&self) -> &str {
        self.disk.writer.label()
    }

    /// How long publishing waits for space on a full disk before it gives up; not at all by default.
    pub fn with_disk_wait(mut self, patience: std::time::Duration) -> Store {
        self.disk.patience = patience;
        self
    }

    /// A folder below the run directory, made durable if it was absent.
    fn folder(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let folder = self.dir.join(path);
        for folder in folder.ancestors().take_while(|folder| *folder != self.dir) {
            refuse_link(&*self.disk.files, folder).map_err(StoreError::io("use", folder))?;
        }
        match ensure_dir(&*self.disk.files, &folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                ensure_dirs(&*self.disk.files, &folder).map_err(StoreError::io("create", &folder))?;
            }
            other => {
                other.map_err(StoreError::io("create", &folder))?;
            }
        }
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{plan, store_of};
    use super::*;

    #[test]
    fn a_new_run_directory_has_the_documented_layout() {
        let (folder, store) = store_of(&plan(4, 2));
        let names: Vec<String> =
            names_in(folder.path()).into_iter().filter(|name| !name.starts_with("plan-")).collect();
        assert_eq!(names, ["current-plan", "parts", "spec.yaml"]);
        assert_eq!(names_in(&folder.path().join(PARTS)).len(), 256);
        assert_eq!(store.spec().expect("readable"), b"name: test\n");
        assert!(folder.path().join(format!("plan-{}.json", plan(4, 2).hash())).exists());
    }

    #[test]
    fn an_edited_spec_replaces_the_old_one_and_keeps_its_plan() {
        let (folder, _store) = store_of(&plan(4, 2));
        let again = Store::create_or_open(folder.path(), b"name: test # edited\n", &plan(4, 2)).expect("opens");
        assert_eq!(again.spec().expect("readable"), b"name: test # edited\n");
        assert_eq!(again.plans().expect("one").len(), 1);
    }

    #[test]
    fn a_directory_without_a_run_is_refused_for_reading() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for dir in [folder.path().to_path_buf(), folder.path().join("absent")] {
            let error = Store::open(&dir).expect_err("no run there");
            assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
        }
    }

    #[test]
    fn a_folder_of_rows_that_is_a_link_is_refused_and_the_run_directory_itself_may_be_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (real, link, other) = (folder.path().join("real"), folder.path().join("link"), folder.path().join("other"));
        std::fs::create_dir(&real).expect("new");
        std::fs::create_dir(&other).expect("new");
        std::os::unix::fs::symlink(&real, &link).expect("links are there");
        Store::create_or_open(&link, b"", &plan(4, 2)).expect("a link to a folder");
        let inner = real.join(PARTS).join("00");
        std::fs::remove_dir(&inner).expect("empty");
        std::os::unix::fs::symlink(&other, &inner).expect("links are there");
        let error = Store::create_or_open(&link, b"", &plan(4, 2)).expect_err("a link below");
        assert!(error.exit_code() == 5 && error.to_string().contains("parts/00: a symbolic link"), "{error}");
    }

    #[test]
    fn the_run_of_another_experiment_is_known_by_its_name() {
        let (folder, _store) = store_of(&plan(4, 2));
        let name = plan(4, 2).experiment;
        assert_eq!(Store::holds_other(folder.path(), &name).expect("readable"), None);
        assert_eq!(Store::holds_other(folder.path(), "another").expect("readable"), Some(name));
        assert_eq!(Store::holds_other(&folder.path().join("absent"), "another").expect("nothing there"), None);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_a_storage_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        std::fs::write(&file, b"in the way").expect("writable");
        let error = Store::create_or_open(&file.join("run"), b"", &plan(1, 1)).expect_err("a file is in the way");
        assert_eq!(error.exit_code(), 5);
        assert!(error.to_string().contains("run"), "{error}");
    }

    fn names_in(path: &Path) -> Vec<String> {
        use super::files::Files;
        RealFiles.list(path).expect("a folder of the test").into_iter().map(|entry| entry.name).collect()
    }
}
