//! What is on disk: every file compared with its name before a byte of it is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::DataType;
use rayon::prelude::*;
use rustix::io::Errno;

use super::aside::Aside;
use super::conflict::{CONFLICTS, Source, differences};
use super::error::{Conflict, StoreError};
use super::fs::{list_if_there, parent};
use super::part::{Part, PartName, Unfit, decode, decode_rows, dtype, keeps_all};
use super::publish::{TEMPORARY, is_of_the_file};
use super::row::{Column, Kind};
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
    /// Cells that have a row which lacks a score of the present plan, a side table or weights, and no better one. Sorted.
    lacking: Vec<CellId>,
    /// How many these are.
    pub incomplete: usize,
    /// Results that contradict each other: none of the parts that hold them counts.
    pub conflicts: Vec<Conflict>,
    /// Parts in `conflicts/`, of now or before.
    pub contradictions: usize,
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

    /// Fails if results of these cells contradict each other. Those of other plans are no reason to stop.
    ///
    /// # Errors
    /// [`StoreError::Conflict`].
    pub fn refuse_conflicts(&self, ids: &[CellId]) -> Result<(), StoreError> {
        match self.conflicts.iter().find(|conflict| ids.contains(&conflict.cell)) {
            Some(conflict) => Err(conflict.clone().into()),
            None => Ok(()),
        }
    }

    /// How many cells have a row and are none of these.
    pub fn strangers(&self, ids: &[CellId]) -> usize {
        let mut known = ids.to_vec();
        known.par_sort_unstable();
        let is_strange = |cell: &&CellId| known.binary_search(cell).is_err();
        self.done.iter().chain(&self.lacking).filter(is_strange).count()
    }
}

/// One file, judged by its name and its bytes.
enum Found<T> {
    Sound(T),
    Damaged(String),
    /// Of a later format.
    Newer(u64),
    Temporary,
    Unknown,
    /// Another process moved or replaced it since it was listed.
    Gone,
}

/// A sound rows part, as far as resuming needs it.
struct RowsPart {
    path: PathBuf,
    /// Cells that were published together, and whether their rows are all that is wanted.
    segments: Vec<(bool, Vec<CellId>)>,
}

impl RowsPart {
    fn cells(&self) -> impl Iterator<Item = &CellId> {
        self.segments.iter().flat_map(|(_, cells)| cells)
    }
}

/// How often a directory is listed anew because files went away while they were read.
const LISTINGS: usize = 16;

impl Store {
    /// Lists the directory, compares every file of rows, side tables and weights with its name, and moves damaged ones to
    /// `quarantine/` and parts that contradict each other to `conflicts/`, with a warning.
    ///
    /// # Errors
    /// An unreadable directory, or a file of a later format.
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

    /// Says how many rows are of no cell of the plan, whose ids these are: of an older form of the experiment, or copied in. They
    /// are left alone and reach no answer.
    ///
    /// # Errors
    /// An unreadable directory.
    pub fn tell_strangers(&self, scan: &Scan, ids: &[CellId]) -> Result<(), StoreError> {
        let (strangers, dir) = (scan.strangers(ids), self.dir.display());
        if strangers == 0 {
        } else if self.plans()?.len() > 1 {
            tracing::info!("{dir} holds rows of {strangers} cells of older plans, which are left alone");
        } else {
            tracing::warn!("{dir} holds rows of {strangers} cells that are of no plan here: ignored");
        }
        Ok(())
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
        let scores: Vec<&Column> = self.plan.iter().flat_map(|plan| &plan.scores).collect();
        let wanted = self.plan.as_ref().map_or(&[][..], |plan| &plan.kept);
        let parts = self.judge(PARTS, "parquet", true, set_aside, &mut scan, |path, name, bytes| {
            let part = decode_rows(name, bytes, Some(&["cell"]))?;
            let cells = ids_of(&part.frame)?;
            let scored = scores.iter().all(|score| has_score(&part, score));
            let segments = part.by_segment(&cells).map(|(segment, cells)| {
                let whole = keeps_all(&segment.kept, wanted);
                let complete = scored && whole && segment.companions.iter().all(|file| companions.contains(file));
                (complete, cells.to_vec())
            });
            Ok(RowsPart { path: path.to_path_buf(), segments: segments.collect() })
        })?;
        let mut parts: Vec<RowsPart> = parts.into_iter().map(|(_, part)| part).collect();
        if set_aside && self.plan.is_some() {
            let companions = companions.iter().map(|file| self.dir.join(file));
            self.sync_names(companions.chain(parts.iter().map(|part| part.path.clone())))?;
        }
        self.settle_conflicts(&mut parts, set_aside, &mut scan)?;
        count(&parts, &mut scan);
        self.find_leftovers(&mut scan);
        self.warn(&scan);
        Ok(scan)
    }

    /// Unfinished files of what stands in no folder of its chunk.
    fn find_leftovers(&self, scan: &mut Scan) {
        for folder in ["", "prov", "failed", "collected", CONFLICTS, "quarantine", "checkpoints"] {
            let folder = if folder.is_empty() { self.dir.clone() } else { self.dir.join(folder) };
            // Nothing depends on it.
            let entries = list_if_there(&*self.disk.files, &folder).unwrap_or_default();
            let unfinished = entries.iter().filter(|entry| !entry.is_dir && entry.name.starts_with(TEMPORARY));
            scan.temporary.extend(unfinished.map(|entry| folder.join(&entry.name)));
        }
    }

    /// Puts the names of these files on disk: the process that made them may have died before it came to that, and a cell
    /// that counts as done must be there after a power cut.
    pub(super) fn sync_names(&self, files: impl Iterator<Item = PathBuf>) -> Result<(), StoreError> {
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
        read: impl Fn(&Path, &PartName, Vec<u8>) -> Result<T, Unfit> + Sync,
    ) -> Result<Vec<(PathBuf, T)>, StoreError> {
        let judge = |path: &PathBuf| {
            Ok(match self.look(path, extension, hash)? {
                Found::Sound((name, bytes)) => match read(path, &name, bytes) {
                    Ok(content) => Found::Sound(content),
                    Err(Unfit::Damaged(reason)) => Found::Damaged(reason),
                    Err(Unfit::Newer(format)) => Found::Newer(format),
                },
                Found::Damaged(reason) => Found::Damaged(reason),
                Found::Newer(format) => Found::Newer(format),
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
        let judged = self.judge_all(&self.dir.join(folder), set_aside, scan, &judge)?;
        let mut sound = Vec::new();
        for (path, found) in judged {
            match found {
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
                        _ => {}
                    },
                },
                Found::Newer(format) => return Err(StoreError::Newer { path, format, writer: None }),
                Found::Temporary => scan.temporary.push(path),
                Found::Unknown => scan.unknown.push(path),
                Found::Gone => {}
            }
        }
        Ok(sound)
    }

    /// Judges every file below a folder, in parallel, in the order of their names. Parts may be merged meanwhile: as long as files
    /// go away it is listed again, so that what holds their rows now is met.
    fn judge_all<T: Send>(
        &self,
        root: &Path,
        set_aside: bool,
        scan: &mut Scan,
        judge: &(impl Fn(&PathBuf) -> Result<Found<T>, StoreError> + Sync),
    ) -> Result<BTreeMap<PathBuf, Found<T>>, StoreError> {
        let mut all = BTreeMap::new();
        for _ in 0..LISTINGS {
            let mut paths = self.list_below(root, set_aside, scan)?;
            paths.retain(|path| !all.contains_key(path));
            let judged: Vec<Result<Found<T>, StoreError>> = paths.par_iter().map(judge).collect();
            let mut is_stable = true;
            for (path, found) in paths.into_iter().zip(judged) {
                match found? {
                    Found::Gone => is_stable = false,
                    found => drop(all.insert(path, found)),
                }
            }
            if is_stable {
                break;
            }
        }
        Ok(all)
    }

    /// Every plain file one level of folders down. A folder that cannot be listed, twice, is damage as a file is that cannot be
    /// read.
    fn list_below(&self, root: &Path, set_aside: bool, scan: &mut Scan) -> Result<Vec<PathBuf>, StoreError> {
        let files = &*self.disk.files;
        let mut found = Vec::new();
        for entry in list_if_there(files, root).map_err(StoreError::io("list", root))? {
            let path = root.join(&entry.name);
            if !entry.is_dir {
                found.push(path);
                continue;
            }
            let listed = match list_if_there(files, &path) {
                Err(error) if is_of_the_file(&error) => list_if_there(files, &path),
                other => other,
            };
            match listed {
                Ok(inner) => {
                    found.extend(inner.iter().filter(|inner| !inner.is_dir).map(|inner| path.join(&inner.name)));
                }
                Err(error) if is_of_the_file(&error) => {
                    let reason = format!("it cannot be listed: {error}");
                    let moved_to = if set_aside { self.set_folder_aside(&path) } else { None };
                    scan.quarantined.push(Damage { path, reason, moved_to });
                }
                Err(error) => return Err(StoreError::io("list", &path)(error)),
            }
        }
        Ok(found)
    }

    /// Moves a folder away that cannot be listed; what it held may come back to light there.
    fn set_folder_aside(&self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.disk.quarantine.join(format!("{name}.{}", self.disk.unique()));
        let moved = self.disk.ensure_dir(&self.disk.quarantine).and_then(|()| self.disk.files.rename(path, &target));
        match moved {
            Ok(()) => Some(target),
            Err(error) => {
                tracing::warn!("cannot move {} to quarantine: {error}", path.display());
                None
            }
        }
    }

    /// Compares a file with its name. `hash`: also its bytes; without, the bytes are not read.
    fn look(&self, path: &Path, extension: &str, hash: bool) -> Result<Found<(PartName, Vec<u8>)>, StoreError> {
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        if file_name.starts_with(TEMPORARY) {
            return Ok(Found::Temporary);
        }
        let Some(name) = PartName::parse(&file_name, extension) else { return Ok(Found::Unknown) };
        if !is_in_its_folder(path, &name) {
            return Ok(Found::Damaged(format!("chunk {} belongs into folder {}", name.chunk, name.folder())));
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
        let read = if folder == PARTS { decode_rows } else { decode };
        let parts =
            self.judge(folder, "parquet", true, false, &mut scan, |_, name, bytes| read(name, bytes, columns))?;
        self.warn(&scan);
        Ok(parts)
    }

    /// Reads the parts that share a cell and compares what they say of it: each with each, because columns in which two differ may
    /// not be in a third. Those that contradict each other count for nothing; `set_aside`: they are moved to `conflicts/`.
    fn settle_conflicts(&self, parts: &mut Vec<RowsPart>, set_aside: bool, scan: &mut Scan) -> Result<(), StoreError> {
        let mut held: Vec<(CellId, usize)> =
            parts.iter().enumerate().flat_map(|(at, part)| part.cells().map(move |cell| (*cell, at))).collect();
        held.par_sort_unstable();
        let mut pairs = BTreeSet::new();
        for holders in held.chunk_by(|a, b| a.0 == b.0).filter(|holders| holders.len() > 1) {
            for (at, one) in holders.iter().enumerate() {
                pairs.extend(holders[at + 1..].iter().map(|other| (other.1, one.1)));
            }
        }
        drop(held);
        let (mut wrong, mut last) = (BTreeSet::new(), None);
        for (other, one) in pairs {
            // Merged parts come last and share cells with many: they are read once.
            if last.as_ref().is_none_or(|(at, _)| *at != other) {
                last = Some((other, self.read_part(&parts[other].path)?));
            }
            let Some((_, Some(second))) = &last else { continue };
            let Some(first) = self.read_part(&parts[one].path)? else { continue };
            let first = Source { path: &parts[one].path, frame: &first.frame };
            let found = differences(&first, &Source { path: &parts[other].path, frame: &second.frame })?;
            if !found.is_empty() {
                wrong.extend([one, other]);
                scan.conflicts.extend(found);
            }
        }
        if set_aside && !wrong.is_empty() {
            let paths: Vec<PathBuf> = wrong.iter().map(|at| parts[*at].path.clone()).collect();
            self.set_conflicts_aside(&paths, &scan.conflicts)?;
        }
        let mut at = 0..;
        parts.retain(|_| at.next().is_some_and(|at| !wrong.contains(&at)));
        scan.contradictions = self.kept_contradictions();
        Ok(())
    }

    /// Copies of all are on disk before the first of them is removed. (Killed between two of these removals, the other result stays
    /// and is believed; what is in `conflicts/` tells of it.)
    fn set_conflicts_aside(&self, paths: &[PathBuf], conflicts: &[Conflict]) -> Result<(), StoreError> {
        let mut files = Vec::new();
        for path in paths {
            match self.disk.files.read(path) {
                Ok(bytes) => files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("read", path)(error)),
            }
        }
        self.keep_contradictions(&files, conflicts)?;
        paths.iter().try_for_each(|path| self.remove(path))?;
        self.sync_names(paths.iter().cloned())
    }

    /// Removes a file that may be gone already.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match self.disk.files.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    pub(super) fn read_part(&self, path: &Path) -> Result<Option<Part>, StoreError> {
        match self.look(path, "parquet", true)? {
            Found::Sound((name, bytes)) => decode_rows(&name, bytes, None).map(Some).map_err(|unfit| unfit.at(path)),
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
        for conflict in &scan.conflicts {
            tracing::warn!("{conflict}");
        }
        if scan.contradictions > 0 && self.plan.is_some() {
            let (count, folder) = (scan.contradictions, self.dir.join(CONFLICTS));
            tracing::warn!(
                "{} holds {count} parts whose results contradict others: look at the memory of the machines that wrote them, and remove the folder when that is done",
                folder.display()
            );
        }
        for path in &scan.unknown {
            tracing::info!("{} is not a file of the run store: left alone", path.display());
        }
    }
}

/// Whether a file lies in the folder of its chunk.
fn is_in_its_folder(path: &Path, name: &PartName) -> bool {
    path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy() == name.folder()
}

/// Whether a part has a score, and not something else of that name.
fn has_score(part: &Part, score: &Column) -> bool {
    let fits = |found: &DataType| {
        let is_number = |kind: &DataType| *kind == dtype(Kind::Int) || *kind == dtype(Kind::Float);
        *found == dtype(score.kind) || is_number(found) && is_number(&dtype(score.kind))
    };
    part.columns.iter().any(|(name, found)| *name == score.name && fits(found))
}

/// Which cells count as done.
fn count(parts: &[RowsPart], scan: &mut Scan) {
    let cells = |complete: bool| {
        let segments = parts.iter().flat_map(|part| &part.segments).filter(move |(whole, _)| *whole == complete);
        let mut cells: Vec<CellId> = segments.flat_map(|(_, cells)| cells.iter().copied()).collect();
        cells.par_sort_unstable();
        cells.dedup();
        cells
    };
    scan.done = cells(true);
    let lacking = cells(false);
    scan.lacking = lacking.into_iter().filter(|cell| !scan.is_done(cell)).collect();
    scan.incomplete = scan.lacking.len();
    scan.parts = parts.iter().map(|part| part.path.clone()).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fs::faulty::{Fault, Faulty};
    use crate::store::fs::{RealFs, files_below};
    use crate::store::part::folder_of;
    use crate::store::row::Value;
    use crate::store::testing::{cell, ids, plan, row, store_of};
    use crate::store::{ChunkResult, Entry, Identity, NewFile, SideTable, StoreFs, WeightTensor, encode_weights};
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
            if path.extension().is_some_and(|end| end == "yaml") {
                // The user's own text, twice; what follows from it is in the plan.
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

    /// Copies a part of another store into this one.
    fn copy_in(store: &Store, part: &Path, other: &Store) {
        let target = store.dir().join(part.strip_prefix(other.dir()).expect("below"));
        fs::copy(part, target).expect("copies");
    }

    /// A store in which two parts of chunk 0 contradict each other, and the path of a third, of chunk 1.
    fn contradicting() -> (tempfile::TempDir, Store) {
        let (folder, store) = store_of(&plan(4, 2));
        let (_other_folder, other) = store_of(&plan(4, 2));
        (0..2).for_each(|chunk| publish(&store, chunk, chunk * 2..chunk * 2 + 2));
        let mut rows = vec![row(0), row(1)];
        rows[0].scores[0] = Value::Float(-0.0);
        other.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("publishes");
        copy_in(&store, &other.scan().expect("sound").parts[0], &other);
        (folder, store)
    }

    #[test]
    fn two_different_results_on_disk_are_both_set_aside_once_and_their_cells_are_computed_again() {
        let (folder, store) = contradicting();
        assert!(store.rows(&plan(4, 2), &ids(4)).is_err());
        let looked = store.verify().expect("readable");
        assert_eq!((looked.done(), looked.conflicts.len(), looked.contradictions), (&[cell(2), cell(3)][..], 1, 0));
        let scan = store.scan().expect("readable");
        assert!(scan.conflicts[0].cell == cell(0) && scan.conflicts[0].what == "loss");
        assert_eq!(scan.refuse_conflicts(&ids(4)).expect_err("of this plan").exit_code(), 6);
        assert!(scan.refuse_conflicts(&[cell(2), cell(3)]).is_ok(), "other plans are not held up");
        assert_eq!((scan.done(), scan.contradictions), (&[cell(2), cell(3)][..], 2));
        let kept: Vec<PathBuf> =
            fs::read_dir(folder.path().join(CONFLICTS)).expect("made").flatten().map(|entry| entry.path()).collect();
        assert_eq!(kept.len(), 3, "both, and what is known of them: {kept:?}");
        let record = kept.iter().find(|path| path.extension().is_some_and(|end| end == "json")).expect("a record");
        let record = fs::read_to_string(record).expect("readable");
        assert!(record.contains(&cell(0).to_string()) && record.contains("\"loss\"") && record.contains("-0.0"));
        publish(&store, 0, 0..2);
        let again = store.scan().expect("sound");
        assert_eq!((again.done(), again.conflicts.len(), again.contradictions), (&ids(4)[..], 0, 2));
    }

    #[test]
    fn three_parts_of_which_the_middle_one_lacks_what_the_others_differ_in_are_a_conflict() {
        let mut edited = plan(2, 2);
        edited.scores.push(Column::new("l0", Kind::Float));
        let (folder, old) = store_of(&plan(2, 2));
        let part_with = |l0: f64| {
            let (elsewhere, store) = store_of(&edited);
            let mut rows = vec![row(0), row(1)];
            rows.iter_mut().for_each(|row| row.scores.push(Value::Float(l0)));
            store.publish(&ChunkResult { chunk: 0, rows, ..Default::default() }).expect("publishes");
            copy_in(&old, &store.scan().expect("sound").parts[0], &store);
            drop(elsewhere);
        };
        part_with(1.0);
        publish(&old, 0, 0..2);
        // Of several such parts one has a hash that puts the one without the score between two that differ.
        (2..6).for_each(|l0| part_with(f64::from(l0)));
        let again = Store::create_or_open(folder.path(), b"name: test\n", &edited).expect("opens");
        assert!(again.rows(&edited, &ids(2)).is_err());
        let scan = again.scan().expect("readable");
        assert_eq!((scan.conflicts.len(), scan.contradictions, scan.incomplete), (2 * 10, 5, 2));
    }

    #[test]
    fn parts_of_another_schema_are_damage() {
        let (_folder, store, _parts) = filled();
        let mut frames = vec![
            df!["cell" => [cell(0).to_string()], "loss" => [1.0]].expect("two columns"),
            df!["cell" => [7i64], "plan_index" => [0i64]].expect("two columns"),
        ];
        let mut whole = super::super::part::frame("test", &plan(1, 1).schema(), &[row(0)]).expect("rows fit");
        whole.with_column(polars::prelude::Column::new("seed".into(), ["one"])).expect("replaced");
        frames.push(whole);
        for mut frame in frames {
            let bytes = super::super::part::encode(1, &mut frame).expect("encodes");
            let name = PartName::of(1, true, &bytes);
            let path = store.dir().join(PARTS).join(name.folder()).join(name.file_name("parquet"));
            fs::write(&path, &bytes).expect("writable");
            let found = store.verify().expect("readable").quarantined;
            assert!(found.len() == 1 && found[0].reason.contains("column"), "{found:?}");
            let scan = store.scan().expect("readable");
            assert_eq!((scan.quarantined.len(), scan.done().len()), (1, 6));
        }
    }

    #[test]
    fn rows_of_no_cell_of_the_plan_are_counted() {
        let (_folder, store, _parts) = filled();
        let scan = store.scan().expect("sound");
        assert_eq!((scan.strangers(&ids(6)), scan.strangers(&ids(4)), scan.strangers(&[])), (0, 2, 6));
    }

    #[test]
    fn unfinished_files_beside_the_rows_are_counted_too() {
        let (folder, store, _parts) = filled();
        for name in ["", "prov", "collected", "conflicts", "checkpoints"] {
            fs::create_dir_all(folder.path().join(name)).expect("made");
            fs::write(folder.path().join(name).join(format!("{TEMPORARY}elsewhere-1-2-3-4")), b"half")
                .expect("writable");
        }
        assert_eq!(store.scan().expect("sound").temporary.len(), 5);
        assert_eq!(store.verify().expect("sound").temporary.len(), 5);
    }

    /// A folder that is none to this process, whoever runs the tests.
    #[test]
    fn a_folder_that_cannot_be_listed_is_set_aside_with_what_it_holds() {
        for (fault, is_moved) in [(Errno::IO, true), (Errno::MFILE, false)] {
            let (folder, store, parts) = filled();
            let closed = parts[1].parent().expect("a folder").to_path_buf();
            let held = fs::read_dir(&closed).expect("listed").count();
            let files = Unlistable { inner: Arc::new(RealFs), folder: closed.clone(), errno: fault };
            let closed_store = Store::create_or_open_on(Arc::new(files), folder.path(), b"name: test\n", &plan(6, 2));
            let scan = closed_store.expect("opens").scan();
            if !is_moved {
                assert_eq!(scan.expect_err("the machine's fault").exit_code(), 5);
                continue;
            }
            let scan = scan.expect("the rest is sound");
            assert_eq!((scan.done().len(), scan.quarantined.len()), (6 - 2 * held, 1));
            let moved = scan.quarantined[0].moved_to.clone().expect("moved");
            assert_eq!(fs::read_dir(moved).expect("listed").count(), held);
            (0..3).for_each(|chunk| publish(&store, chunk, chunk * 2..chunk * 2 + 2));
            assert_eq!(store.scan().expect("sound").done(), ids(6));
        }
    }

    /// The operating system, but for one folder that cannot be listed as long as it has its name.
    #[derive(Debug)]
    struct Unlistable {
        inner: Arc<dyn StoreFs>,
        folder: PathBuf,
        errno: Errno,
    }

    impl StoreFs for Unlistable {
        fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
            if path == self.folder { Err(self.errno.into()) } else { self.inner.list(path) }
        }
        fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
            self.inner.create_new(path)
        }
        fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.inner.link(from, to)
        }
        fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.inner.rename_new(from, to)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.inner.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.inner.remove(path)
        }
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.inner.create_dir(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.inner.sync_dir(path)
        }
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            self.inner.read(path)
        }
        fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
            self.inner.read_start(path, length)
        }
        fn is_link(&self, path: &Path) -> io::Result<bool> {
            self.inner.is_link(path)
        }
        fn age_seconds(&self, path: &Path) -> io::Result<u64> {
            self.inner.age_seconds(path)
        }
        fn identity(&self) -> Identity {
            self.inner.identity()
        }
        fn is_alive(&self, pid: u32) -> bool {
            self.inner.is_alive(pid)
        }
        fn now(&self) -> std::time::Duration {
            self.inner.now()
        }
        fn sleep(&self, time: std::time::Duration) {
            self.inner.sleep(time);
        }
    }
}
