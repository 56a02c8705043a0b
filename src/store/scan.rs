//! What is on disk: every file compared with its name before a byte of it is believed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::DataType;
use rayon::prelude::*;
use rustix::io::Errno;

use super::aside::Aside;
use super::conflict::CONFLICTS;
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
    /// Cells that have a row which lacks a score of the present plan, a side table or weights, and no better one.
    pub incomplete: usize,
    /// Which those are, sorted.
    pub lacking: Vec<CellId>,
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
pub(super) struct RowsPart {
    pub path: PathBuf,
    /// Cells that were published together, and whether their rows are all that is wanted.
    segments: Vec<(bool, Vec<CellId>)>,
}

impl RowsPart {
    pub fn cells(&self) -> impl Iterator<Item = &CellId> {
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
mod tests;
