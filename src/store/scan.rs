//! What is on disk: every file compared with its name before a byte of it is believed.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::io::Errno;

use super::aside::Aside;
use super::conflict::{Source, compare};
use super::error::StoreError;
use super::fs::{files_below, parent};
use super::part::{Part, PartName, decode, folder_of, keeps_all};
use super::publish::{TEMPORARY, is_of_the_file};
use super::rows::ids_of;
use super::side::Side;
use super::weights::WEIGHTS;
use super::{PARTS, Store};
use crate::plan::CellId;
use crate::plan::id::position;

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub reason: String,
    /// Where in `quarantine/` it is now; `None` if it was left where it is.
    pub moved_to: Option<PathBuf>,
}

/// What a run directory holds.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// Cells whose row, with every score of the plan and everything published with it, is on disk. Sorted.
    done: Vec<CellId>,
    /// Sound parts, sorted.
    pub parts: Vec<PathBuf>,
    /// Damaged files.
    pub quarantined: Vec<Damage>,
    /// Cells that have a row which lacks a score of the present plan, a side table or weights, and no better one.
    pub incomplete: usize,
    /// Which those are, sorted.
    pub lacking: Vec<CellId>,
    /// Unfinished files, of living writers or of dead ones.
    pub temporary: Vec<PathBuf>,
    /// Files that are not the store's; left alone.
    pub unknown: Vec<PathBuf>,
}

impl Scan {
    pub fn is_done(&self, cell: &CellId) -> bool {
        position(&self.done, cell).is_some()
    }

    /// Sorted.
    pub fn done(&self) -> &[CellId] {
        &self.done
    }
}

/// One file, judged by its name and its bytes.
enum Found<T> {
    Sound(T),
    Damaged(String),
    Temporary,
    Unknown,
    /// Another process moved or replaced it since it was listed.
    Gone,
}

/// A sound rows part, as far as resuming needs it.
struct RowsPart {
    path: PathBuf,
    cells: Vec<CellId>,
    complete: bool,
}

impl Store {
    /// Lists the directory, compares every file of rows, side tables and weights with its name, and moves damaged ones to
    /// `quarantine/` with a warning.
    ///
    /// # Errors
    /// An unreadable directory, or two different results for one cell.
    pub fn scan(&self) -> Result<Scan, StoreError> {
        self.examine(true)
    }

    /// As [`Store::scan`], and moves nothing.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn look_over(&self) -> Result<Scan, StoreError> {
        self.examine(false)
    }

    /// As [`Store::scan`] but reads the plans, the checkpoints and what was collected too, and moves nothing.
    ///
    /// # Errors
    /// As [`Store::scan`].
    pub fn verify(&self) -> Result<Scan, StoreError> {
        let mut scan = self.examine(false)?;
        scan.quarantined.extend(self.damaged_plans()?);
        scan.quarantined.extend(self.check_collected()?);
        scan.quarantined.extend(self.damaged_checkpoints()?);
        Ok(scan)
    }

    /// Removes the unfinished files of writers that are gone; how many those were.
    pub fn remove_stale(&self, scan: &Scan) -> usize {
        let stale = scan.temporary.iter().filter(|path| self.disk.is_stale(path));
        stale.filter(|path| self.disk.files.remove(path).is_ok()).count()
    }

    fn examine(&self, set_aside: bool) -> Result<Scan, StoreError> {
        let mut scan = Scan::default();
        let mut companions = BTreeSet::new();
        for side in Side::ALL {
            let sound = self.judge(side.name(), "parquet", true, set_aside, &mut scan, |_, _, _| Ok(()))?;
            companions.extend(sound.into_iter().map(|(path, ())| self.below(&path)));
        }
        let sound = self.judge(WEIGHTS, "safetensors", true, set_aside, &mut scan, |_, _, _| Ok(()))?;
        companions.extend(sound.into_iter().map(|(path, ())| self.below(&path)));
        let scores: Vec<String> =
            self.plan.iter().flat_map(|plan| plan.scores.iter().map(|score| score.name.clone())).collect();
        let wanted = self.plan.as_ref().map_or(&[][..], |plan| &plan.kept);
        let parts = self.judge(PARTS, "parquet", true, set_aside, &mut scan, |path, name, bytes| {
            let part = decode(name, bytes, Some(&["cell"]))?;
            let complete = scores.iter().all(|score| part.columns.contains(score))
                && keeps_all(&part.kept, wanted)
                && part.companions.iter().all(|file| companions.contains(file));
            Ok(RowsPart { path: path.to_path_buf(), cells: ids_of(&part.frame)?, complete })
        })?;
        let parts: Vec<RowsPart> = parts.into_iter().map(|(_, part)| part).collect();
        if set_aside && self.plan.is_some() {
            let companions = companions.iter().map(|file| self.dir.join(file));
            self.sync_names(companions.chain(parts.iter().map(|part| part.path.clone())))?;
        }
        self.refuse_conflicts(&parts)?;
        count(&parts, &mut scan);
        self.warn(&scan);
        Ok(scan)
    }

    /// Puts the names of these files on disk: the process that made them may have died before it came to that, and a cell
    /// that counts as done must be there after a power cut.
    fn sync_names(&self, files: impl Iterator<Item = PathBuf>) -> Result<(), StoreError> {
        let mut folders: BTreeSet<PathBuf> = files.map(|file| parent(&file).to_path_buf()).collect();
        let above: Vec<PathBuf> = folders.iter().map(|folder| parent(folder).to_path_buf()).collect();
        folders.extend(above);
        folders.insert(self.dir.clone());
        let sync = |folder: &PathBuf| self.disk.files.sync_dir(folder).map_err(StoreError::io("sync", folder));
        folders.iter().try_for_each(sync)
    }

    /// Judges every file of a folder and reads the sound ones with `read`, whose failure is damage too. Files are
    /// judged in parallel and reported in the order of their names.
    fn judge<T: Send>(
        &self,
        folder: &str,
        extension: &str,
        hash: bool,
        set_aside: bool,
        scan: &mut Scan,
        read: impl Fn(&Path, &PartName, Vec<u8>) -> Result<T, String> + Sync,
    ) -> Result<Vec<(PathBuf, T)>, StoreError> {
        let root = self.dir.join(folder);
        let paths = files_below(&*self.disk.files, &root).map_err(StoreError::io("list", &root))?;
        let judge = |path: &PathBuf| {
            Ok(match self.look(path, extension, hash)? {
                Found::Sound((name, bytes)) => read(path, &name, bytes).map_or_else(Found::Damaged, Found::Sound),
                Found::Damaged(reason) => Found::Damaged(reason),
                Found::Temporary => Found::Temporary,
                Found::Unknown => Found::Unknown,
                Found::Gone => Found::Gone,
            })
        };
        // What `judge` says of bytes alone.
        let is_sound = |path: &Path, bytes: &[u8]| {
            let name = PartName::parse(&path.file_name().unwrap_or_default().to_string_lossy(), extension);
            name.is_some_and(|name| {
                is_in_its_folder(path, &name)
                    && self.disk.fits(&name, bytes)
                    && read(path, &name, bytes.to_vec()).is_ok()
            })
        };
        let judged: Vec<Result<Found<T>, StoreError>> = paths.par_iter().map(judge).collect();
        let mut sound = Vec::new();
        for (path, found) in paths.into_iter().zip(judged) {
            match found? {
                Found::Sound(content) => sound.push((path, content)),
                Found::Damaged(reason) => match if set_aside { self.set_aside(&path, &is_sound) } else { None } {
                    None => scan.quarantined.push(Damage { path, reason, moved_to: None }),
                    Some(Aside::Moved(target)) => {
                        scan.quarantined.push(Damage { path, reason, moved_to: Some(target) });
                    }
                    // Another writer had replaced it, or it was not read as it is.
                    Some(Aside::Restored | Aside::Gone) => match judge(&path)? {
                        Found::Sound(content) => sound.push((path, content)),
                        Found::Damaged(reason) => scan.quarantined.push(Damage { path, reason, moved_to: None }),
                        Found::Temporary | Found::Unknown | Found::Gone => {}
                    },
                },
                Found::Temporary => scan.temporary.push(path),
                Found::Unknown => scan.unknown.push(path),
                Found::Gone => {}
            }
        }
        Ok(sound)
    }

    /// Compares a file with its name. `hash`: also its bytes; without, the bytes are not read.
    fn look(&self, path: &Path, extension: &str, hash: bool) -> Result<Found<(PartName, Vec<u8>)>, StoreError> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if file_name.starts_with(TEMPORARY) {
            return Ok(Found::Temporary);
        }
        let Some(name) = PartName::parse(&file_name, extension) else { return Ok(Found::Unknown) };
        if !is_in_its_folder(path, &name) {
            return Ok(Found::Damaged(format!("chunk {} belongs into folder {}", name.chunk, folder_of(name.chunk))));
        }
        if !hash {
            return Ok(Found::Sound((name, Vec::new())));
        }
        match self.disk.files.read(path) {
            Ok(bytes) if self.disk.fits(&name, &bytes) => Ok(Found::Sound((name, bytes))),
            Ok(_) => Ok(Found::Damaged("its bytes do not hash to its name".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Gone),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::STALE) => Ok(Found::Gone),
            Err(error) if is_of_the_file(&error) => Ok(Found::Damaged(format!("it cannot be read: {error}"))),
            Err(error) => Err(StoreError::io("read", path)(error)),
        }
    }

    /// Moves a damaged file away; a reader that may not do so leaves it, and nobody believes it either way.
    fn set_aside(&self, path: &Path, is_sound: &dyn Fn(&Path, &[u8]) -> bool) -> Option<Aside> {
        match self.disk.set_aside(path, |bytes| is_sound(path, bytes)) {
            Ok(aside) => Some(aside),
            Err(error) => {
                tracing::warn!("cannot move {} to quarantine: {error}", path.display());
                None
            }
        }
    }

    /// Every sound table of a folder, whole, with its path; damaged ones are left out with a warning.
    pub(super) fn load(&self, folder: &str, columns: Option<&[&str]>) -> Result<Vec<(PathBuf, Part)>, StoreError> {
        let mut scan = Scan::default();
        let parts =
            self.judge(folder, "parquet", true, false, &mut scan, |_, name, bytes| decode(name, bytes, columns))?;
        self.warn(&scan);
        Ok(parts)
    }

    /// Reads the parts that share a cell and compares what they say of it.
    fn refuse_conflicts(&self, parts: &[RowsPart]) -> Result<(), StoreError> {
        let mut held: Vec<(CellId, usize)> =
            parts.iter().enumerate().flat_map(|(at, part)| part.cells.iter().map(move |cell| (*cell, at))).collect();
        held.par_sort_unstable();
        let pairs: BTreeSet<(usize, usize)> =
            held.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[0].1, pair[1].1)).collect();
        for (one, other) in pairs {
            let (one, other) = (&parts[one].path, &parts[other].path);
            let (Some(first), Some(second)) = (self.read_part(one)?, self.read_part(other)?) else { continue };
            compare(&Source { path: one, frame: &first.frame }, &Source { path: other, frame: &second.frame })?;
        }
        Ok(())
    }

    fn read_part(&self, path: &Path) -> Result<Option<Part>, StoreError> {
        let damaged = |reason| StoreError::Damaged { path: path.to_path_buf(), reason };
        match self.look(path, "parquet", true)? {
            Found::Sound((name, bytes)) => decode(&name, bytes, None).map(Some).map_err(damaged),
            // It was sound a moment ago: the next start sets it aside.
            Found::Damaged(reason) => Err(StoreError::io("read", path)(io::Error::other(reason))),
            _ => Ok(None),
        }
    }

    pub(super) fn below(&self, path: &Path) -> String {
        path.strip_prefix(&self.dir).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn warn(&self, scan: &Scan) {
        for damage in &scan.quarantined {
            let fate = if damage.moved_to.is_some() { "moved to quarantine" } else { "ignored" };
            tracing::warn!("{}: {}; {fate}, what it held counts as missing", damage.path.display(), damage.reason);
        }
        for path in &scan.unknown {
            tracing::info!("{} is not a file of the run store: left alone", path.display());
        }
    }
}

/// Whether a file lies in the folder of its chunk.
fn is_in_its_folder(path: &Path, name: &PartName) -> bool {
    path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy() == folder_of(name.chunk)
}

/// Which cells count as done.
fn count(parts: &[RowsPart], scan: &mut Scan) {
    let cells = |complete: bool| {
        let held = parts.iter().filter(move |part| part.complete == complete);
        let mut cells: Vec<CellId> = held.flat_map(|part| part.cells.iter().copied()).collect();
        cells.par_sort_unstable();
        cells.dedup();
        cells
    };
    scan.done = cells(true);
    scan.lacking = cells(false).into_iter().filter(|cell| !scan.is_done(cell)).collect();
    scan.incomplete = scan.lacking.len();
    scan.parts = parts.iter().map(|part| part.path.clone()).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fs::RealFs;
    use crate::store::fs::faulty::{Fault, Faulty};
    use crate::store::row::{Column, Kind, Value};
    use crate::store::testing::{cell, ids, plan, row, store_of};
    use crate::store::{ChunkResult, SideTable, WeightTensor, encode_weights};
    use polars::prelude::df;
    use std::fs;
    use std::sync::Arc;

    fn publish(store: &Store, chunk: u64, indices: std::ops::Range<u64>) {
        let rows = indices.map(row).collect();
        store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
    }

    /// A store of three chunks of two cells, with the paths of its parts by chunk.
    fn filled() -> (tempfile::TempDir, Store, Vec<PathBuf>) {
        let (folder, store) = store_of(&plan(6, 2));
        for chunk in 0..3 {
            publish(&store, chunk, chunk * 2..chunk * 2 + 2);
        }
        let mut parts = store.scan().expect("sound").parts;
        parts.sort_by_key(|path| path.file_name().map(|name| name.to_os_string()));
        (folder, store, parts)
    }

    #[test]
    fn what_was_published_is_done() {
        let (_folder, store, parts) = filled();
        let scan = store.scan().expect("sound");
        assert_eq!(scan.done(), ids(6));
        assert!(scan.is_done(&cell(5)) && !scan.is_done(&cell(6)));
        assert_eq!((parts.len(), scan.quarantined.len(), scan.unknown.len(), scan.incomplete), (3, 0, 0, 0));
    }

    /// One bit of one byte at a time, of every file that the store has written: rows, a side table, weights, plan, hint at the plan,
    /// what was collected, its manifest, a state of a training.
    #[test]
    fn every_single_changed_byte_of_a_run_is_found() {
        let plan = plan(2, 2);
        let (folder, store) = store_of(&plan);
        let frame = df!["cell" => [row(0).cell.to_string()], "norm" => [1.0]].expect("two columns");
        let side = vec![SideTable { side: Side::Features, frame }];
        let tensor = WeightTensor { cell: cell(0), name: "sae.decoder", shape: vec![2], values: &[1.0, 2.0] };
        let weights = Some(encode_weights(&[tensor]).expect("encodes"));
        store.publish(&ChunkResult { chunk: 0, rows: vec![row(0), row(1)], side, weights }).expect("publishes");
        store.write_checkpoint(&cell(1), b"state").expect("written");
        let rows = store.rows(&plan, &ids(2)).expect("rows");
        store.collect(&plan, &ids(2), &store.scan().expect("sound"), &rows, false).expect("collects");
        // Empty folders of the fan-out are looked into each time, thousands of times.
        let folders = fs::read_dir(folder.path().join(PARTS)).expect("made").flatten();
        folders.for_each(|entry| drop(fs::remove_dir(entry.path())));
        assert!(store.verify().expect("readable").quarantined.is_empty());
        let (mut files, mut flips) = (vec![folder.path().to_path_buf()], 0);
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
                continue;
            }
            if path.ends_with("spec.yaml") {
                // The user's own text; what follows from it is in the plan.
                continue;
            }
            let bytes = fs::read(&path).expect("readable");
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                fs::write(&path, &changed).expect("writable");
                let found = store.verify().expect("readable").quarantined;
                assert!(found.iter().any(|damage| damage.path == path), "byte {at} of {}", path.display());
                flips += 1;
            }
            fs::write(&path, &bytes).expect("writable");
        }
        assert!(flips > 5000, "{flips}");
        assert!(store.verify().expect("readable").quarantined.is_empty());
    }

    #[test]
    fn a_flipped_byte_sends_the_part_to_quarantine_and_its_cells_back() {
        let (folder, store, parts) = filled();
        let mut bytes = fs::read(&parts[1]).expect("readable");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&parts[1], bytes).expect("writable");
        assert_eq!(store.verify().expect("reports").quarantined[0].moved_to, None);
        let scan = store.scan().expect("the rest is sound");
        assert_eq!(scan.done(), [cell(0), cell(1), cell(4), cell(5)]);
        assert_eq!(scan.quarantined.len(), 1);
        assert!(!parts[1].exists());
        assert!(
            scan.quarantined[0].moved_to.as_ref().is_some_and(|path| path.starts_with(folder.path()) && path.exists())
        );
        publish(&store, 1, 2..4);
        assert_eq!(store.scan().expect("sound").done(), ids(6), "computed again, it is there again");
    }

    #[test]
    fn truncated_empty_and_renamed_parts_go_to_quarantine() {
        let (_folder, store, parts) = filled();
        let bytes = fs::read(&parts[0]).expect("readable");
        fs::write(&parts[0], &bytes[..bytes.len() - 1]).expect("writable");
        fs::write(&parts[1], b"").expect("writable");
        // The third takes the name that it would have as chunk 9.
        let name = parts[2].file_name().expect("a name").to_string_lossy().replace("c00000002", "c00000009");
        let folder = store.dir().join(PARTS).join(folder_of(9));
        fs::rename(&parts[2], folder.join(name)).expect("renames");
        let scan = store.scan().expect("nothing sound, no error");
        assert_eq!((scan.done().len(), scan.quarantined.len()), (0, 3));
        assert!(scan.quarantined.iter().any(|damage| damage.reason.contains("holds chunk 2, not the 9")));
    }

    #[test]
    fn a_part_in_the_wrong_folder_or_under_the_wrong_hash_goes_to_quarantine() {
        let (_folder, store, parts) = filled();
        let wrong = if folder_of(0) == "00" { "01" } else { "00" };
        fs::rename(&parts[0], store.dir().join(PARTS).join(wrong).join(parts[0].file_name().expect("a name")))
            .expect("renames");
        let other = parts[1].to_string_lossy().replace("00001-", "00001-0").replace(".parquet", "");
        fs::rename(&parts[1], format!("{}.parquet", &other[..other.len() - 1])).expect("renames");
        let scan = store.scan().expect("the rest is sound");
        assert_eq!((scan.done().len(), scan.quarantined.len()), (2, 2));
    }

    #[test]
    fn leftovers_are_ignored_and_removed_when_their_writer_is_gone() {
        let (_folder, store, parts) = filled();
        let folder = parts[0].parent().expect("a folder");
        let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
        child.wait().expect("`true` ends");
        // This process's own name, with the number of one that is gone.
        let own = store.writer().replace(&format!("-{}-", std::process::id()), &format!("-{}-", child.id()));
        let dead = folder.join(format!("{TEMPORARY}{own}-0"));
        let elsewhere = folder.join(format!("{TEMPORARY}elsewhere.{own}-0"));
        let foreign = folder.join("notes.txt");
        for path in [&dead, &elsewhere, &foreign] {
            fs::write(path, b"half a part").expect("writable");
        }
        let scan = store.scan().expect("sound");
        assert_eq!((scan.done().len(), scan.temporary.len()), (6, 2));
        assert_eq!(scan.unknown, std::slice::from_ref(&foreign));
        assert_eq!(store.remove_stale(&scan), 1);
        assert!(!dead.exists() && elsewhere.exists() && foreign.exists());
    }

    #[test]
    fn a_part_that_cannot_be_read_is_set_aside_and_its_cells_are_computed_again() {
        for errno in [Errno::IO, Errno::ACCESS] {
            let (folder, store, parts) = filled();
            let scan = unreadable(folder.path(), &parts[1], errno).scan().expect("the rest is sound");
            assert_eq!((scan.done().len(), scan.quarantined.len()), (4, 1), "{errno}");
            assert!(scan.quarantined[0].reason.contains("cannot be read") && !parts[1].exists());
            publish(&store, 1, 2..4);
            assert_eq!(store.scan().expect("sound").done(), ids(6));
        }
    }

    #[test]
    fn too_many_open_files_say_nothing_of_a_part() {
        let (folder, store, parts) = filled();
        let error = unreadable(folder.path(), &parts[1], Errno::MFILE).scan().expect_err("not read");
        assert!(error.exit_code() == 5 && parts[1].exists(), "{error}");
        assert_eq!(store.scan().expect("sound").done(), ids(6));
    }

    /// The same store where one file cannot be read.
    fn unreadable(folder: &Path, file: &Path, errno: Errno) -> Store {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let files = Faulty::new(Arc::new(RealFs), Fault::Unreadable(Box::leak(name.into_boxed_str()), errno));
        Store::create_or_open_on(Arc::new(files), folder, b"name: test\n", &plan(6, 2)).expect("opens")
    }

    #[test]
    fn a_part_that_cannot_be_read_is_no_reason_to_let_another_result_in() {
        let (folder, _store, parts) = filled();
        let disk = unreadable(folder.path(), &parts[1], Errno::IO);
        let mut rows = vec![row(2), row(3)];
        rows[0].scores[0] = Value::Float(-1.0);
        let error = disk.publish(&ChunkResult { chunk: 1, rows, ..Default::default() }).expect_err("not compared");
        assert_eq!(error.exit_code(), 5);
        assert_eq!(files_below(&RealFs, &folder.path().join(PARTS)).expect("listed").len(), 3);
    }

    #[test]
    fn rows_without_their_side_table_are_not_done() {
        let (_folder, store) = store_of(&plan(2, 2));
        let frame = df!["cell" => [cell(0).to_string()], "feature" => [0i64]].expect("two columns");
        let side = vec![SideTable { side: Side::Features, frame }];
        let result = ChunkResult { chunk: 0, rows: vec![row(0), row(1)], side, weights: Some(vec![1, 2, 3]) };
        store.publish(&result).expect("publishes");
        assert_eq!(store.scan().expect("sound").done().len(), 2);
        for folder in ["features", WEIGHTS] {
            let files = files_below(&RealFs, &store.dir().join(folder)).expect("listed");
            fs::remove_file(&files[0]).expect("removable");
            let scan = store.scan().expect("sound");
            assert_eq!((scan.done().len(), scan.incomplete), (0, 2), "{folder}");
            store.publish(&result).expect("publishes again");
            assert_eq!(store.scan().expect("sound").done().len(), 2, "{folder}");
        }
    }

    #[test]
    fn rows_that_lack_a_score_of_the_edited_plan_are_not_done() {
        let (folder, store, _parts) = filled();
        let mut edited = plan(6, 2);
        edited.scores.push(Column::new("l0", Kind::Float));
        let again = Store::create_or_open(folder.path(), b"name: test\n", &edited).expect("opens");
        let scan = again.scan().expect("sound");
        assert_eq!((scan.done().len(), scan.incomplete), (0, 6));
        let mut rows: Vec<_> = (0..2).map(row).collect();
        rows.iter_mut().for_each(|row| row.scores.push(Value::Float(2.0)));
        again.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("the shared scores agree");
        assert_eq!(again.scan().expect("sound").done(), [cell(0), cell(1)]);
        assert_eq!(store.scan().expect("sound").done().len(), 6, "the old plan still has all of its own");
    }

    #[test]
    fn two_different_results_on_disk_are_a_conflict() {
        let (_folder, store) = store_of(&plan(4, 2));
        let (_other_folder, other) = store_of(&plan(4, 2));
        publish(&store, 0, 0..2);
        let mut rows = vec![row(0), row(1)];
        rows[0].scores[0] = Value::Float(-0.0);
        other.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("publishes");
        let theirs = &other.scan().expect("sound").parts[0];
        let target = store.dir().join(theirs.strip_prefix(other.dir()).expect("below"));
        fs::copy(theirs, target).expect("copies");
        let error = store.scan().expect_err("two losses");
        assert!(matches!(error, StoreError::Conflict(at) if at.cell == cell(0) && at.what == "loss"));
        assert!(store.rows(&plan(4, 2), &ids(4)).is_err());
    }
}
