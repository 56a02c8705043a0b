//! 8. Rows on disk.
//!
//! A run directory is a set of immutable files whose names hold the hash of their content, written by any number of
//! processes on any number of machines without locks. What is done is what is there: a run is continued by listing the
//! parts, comparing each with its name, and computing the rest of the plan. A file that does not hash to its name is set
//! aside and its cells are computed again.
//!
//! ```text
//! spec.yaml  plan-<hash>.json  spec-<hash of the plan>.yaml  current-plan
//! parts/xx/c00000017-<hash>.parquet            rows, one per cell
//! parts/merged/m00000017-<hash>.parquet        rows of many parts in one, made by compacting
//! features/xx/, trace/xx/                      side tables of the same chunks, published before the rows
//! weights/xx/c00000017-<hash>.safetensors
//! prov/<writer>-<n>.json  failed/<writer>-<n>.jsonl
//! inputs/<hash of them all>/                   files that the experiment names
//! checkpoints/<cell>                           trainings under way
//! .writer-<writer>                             a run that is under way; advice only
//! conflicts/  quarantine/  collected/
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

mod aside;
mod checkpoint;
mod collect;
mod compact;
mod conflict;
mod error;
mod fs;
mod full;
#[cfg(test)]
mod histories;
mod listing;
mod merge;
mod news;
mod parquet;
mod part;
mod part_name;
mod plan_file;
mod presence;
mod provenance;
mod publish;
mod reading;
mod resume;
mod row;
mod rows;
mod scan;
mod side;
#[cfg(test)]
pub(crate) mod testing;
mod weights;
mod writer;
mod writing;

pub use collect::{Collected, Coverage};
pub use compact::Compacted;
pub use error::{Conflict, StoreError};
pub use merge::Absorbed;
pub use parquet::parquet;
use part::MERGED;
pub use part::{Extent, PartName, cell_column, dtype, frame, layout};
use plan_file::plan_hash;
pub use plan_file::{Past, PlanRecord};
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

pub use fs::{Entry, Identity, NewFile, StoreFs};
use fs::{operating_system, parent, refuse_link};
use publish::{Disk, is_closed};

/// Folder of the rows.
const PARTS: &str = "parts";

/// A run directory, open for reading, or for writing rows of one plan.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    disk: Disk,
    /// Absent in a store that was opened for reading.
    plan: Option<Arc<PlanRecord>>,
    /// Names of the parts that this process has published.
    written: Arc<Mutex<BTreeSet<String>>>,
    /// Cells of merged parts that were looked into, sorted.
    merged_cells: Arc<Mutex<BTreeMap<PartName, Arc<Vec<CellId>>>>>,
}

impl Store {
    /// Opens a run directory for rows of `plan`, and makes it if it is absent: the spec and the plan file are on disk
    /// when this returns.
    ///
    /// # Errors
    /// What the file system refuses, with advice.
    pub fn create_or_open(dir: &Path, spec: &[u8], plan: &PlanRecord) -> Result<Store, StoreError> {
        Store::create_or_open_on(operating_system(), dir, spec, plan)
    }

    /// As [`Store::create_or_open`], on another file system than the operating system's.
    ///
    /// # Errors
    /// As [`Store::create_or_open`].
    pub fn create_or_open_on(
        files: Arc<dyn StoreFs>,
        dir: &Path,
        spec: &[u8],
        plan: &PlanRecord,
    ) -> Result<Store, StoreError> {
        Store::on(files, dir).set_up(spec, plan)
    }

    fn on(files: Arc<dyn StoreFs>, dir: &Path) -> Store {
        Store {
            dir: dir.to_path_buf(),
            disk: Disk::new(files, dir),
            plan: None,
            written: Arc::default(),
            merged_cells: Arc::default(),
        }
    }

    fn set_up(self, spec: &[u8], plan: &PlanRecord) -> Result<Store, StoreError> {
        self.disk.ensure_dir(&self.dir).map_err(StoreError::io("create", &self.dir))?;
        self.sync_above()?;
        let parts = self.folder(Path::new(PARTS))?;
        self.refuse_links(&parts)?;
        self.write_plan(plan, spec)?;
        Ok(Store { plan: Some(Arc::new(plan.clone())), ..self })
    }

    /// Puts the names of the folders above the run directory on disk: a process that died may have made them. Those that
    /// this user may not open were not made by a run of hers.
    fn sync_above(&self) -> Result<(), StoreError> {
        for folder in parent(&self.dir).ancestors().skip(1) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            match self.disk.files.sync_dir(folder) {
                Err(error) if !is_closed(&error) => return Err(StoreError::io("sync", folder)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Rows that were published through a link would not be found again: said before hours of training, not after.
    fn refuse_links(&self, parts: &Path) -> Result<(), StoreError> {
        let files = &*self.disk.files;
        let entries = fs::list_if_there(files, parts).map_err(StoreError::io("list", parts))?;
        let is_of_parts = |name: &str| name == MERGED || name.len() == 2 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let folders = entries.into_iter().filter(|entry| !entry.is_dir && is_of_parts(&entry.name));
        let folders = folders.map(|entry| parts.join(entry.name));
        folders.into_iter().try_for_each(|path| refuse_link(files, &path).map_err(StoreError::io("use", &path)))
    }

    /// Opens a run directory for reading.
    ///
    /// # Errors
    /// The directory is no run directory.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open_on(operating_system(), dir)
    }

    /// As [`Store::open`], on another file system than the operating system's.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(files: Arc<dyn StoreFs>, dir: &Path) -> Result<Store, StoreError> {
        let store = Store::on(files, dir);
        let entries = fs::list_if_there(&*store.disk.files, dir).map_err(StoreError::io("open", dir))?;
        let is_plan = |entry: &Entry| plan_hash(&entry.name).is_some();
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

    /// Who this process is in temporary names and provenance.
    pub fn writer(&self) -> &str {
        self.disk.writer.label()
    }

    /// How long publishing waits for space on a full disk before it gives up; not at all by default.
    pub fn with_disk_wait(mut self, patience: std::time::Duration) -> Store {
        self.disk.patience = patience;
        self
    }

    /// A folder below the run directory, made if it was absent, durable with those above it.
    fn folder(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let mut folder = self.dir.clone();
        for name in path {
            folder.push(name);
            refuse_link(&*self.disk.files, &folder).map_err(StoreError::io("use", &folder))?;
            self.disk.ensure_dir(&folder).map_err(StoreError::io("create", &folder))?;
        }
        Ok(folder)
    }

    /// Keeps a file that the experiment names, under that name below the run directory: whole or not at all.
    ///
    /// # Errors
    /// What the file system refuses; a name that is not one below the run directory.
    pub fn keep_file(&self, name: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !name.components().all(inside) {
            let reason = format!("{} is not a name below the run directory", name.display());
            return Err(StoreError::WrongShape { reason });
        }
        let name: PathBuf = name.components().filter(|part| *part != Component::CurDir).collect();
        self.folder(name.parent().unwrap_or(Path::new("")))?;
        self.replace_if_other(&name, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::fs::RealFs;
    use super::testing::{plan, store_of};
    use super::*;

    #[test]
    fn a_new_run_directory_has_the_documented_layout() {
        let (folder, store) = store_of(&plan(4, 2));
        let names: Vec<String> =
            names_in(folder.path()).into_iter().filter(|name| !name.starts_with("plan-")).collect();
        let own = format!("spec-{}.yaml", plan(4, 2).hash());
        assert_eq!(names, ["current-plan", "parts", own.as_str(), "spec.yaml"]);
        assert!(names_in(&folder.path().join(PARTS)).is_empty(), "folders of parts come with the parts");
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
        std::os::unix::fs::symlink(&other, &inner).expect("links are there");
        let error = Store::create_or_open(&link, b"", &plan(4, 2)).expect_err("a link below");
        assert!(error.exit_code() == 5 && error.to_string().contains("parts/00: a symbolic link"), "{error}");
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
        RealFs.list(path).expect("a folder of the test").into_iter().map(|entry| entry.name).collect()
    }
}
