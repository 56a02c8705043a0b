//! Two results for one cell: the same, or a finding.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::{AnyValue, DataFrame, PlSmallStr};
use rayon::prelude::*;
use serde_json::json;

use super::Store;
use super::error::{Conflict, StoreError};
use super::fs::list_if_there;
use super::part::{PartName, same_entry};
use super::rows::ids_of;
use super::scan::{RowsPart, Scan};
use crate::plan::CellId;

/// The columns that are results of training, in a table of rows: the seed and the scores, and where both tables have the
/// same scores also the status and its detail, which speak of the scores. Not the axes, the method's name and the plan
/// index: an edited plan may sweep something else and call a variant something else, and the cell is the same.
pub fn result_columns<'a>(one: &'a DataFrame, other: &DataFrame) -> Vec<&'a PlSmallStr> {
    let (mine, theirs) = (score_columns(one), score_columns(other));
    let same = mine == theirs;
    let mut columns: Vec<&PlSmallStr> = mine.into_iter().filter(|name| theirs.contains(name)).collect();
    let fixed: &[&str] = if same { &["seed", "steps_done", "status", "detail"] } else { &["seed", "steps_done"] };
    columns.extend(one.get_column_names().into_iter().filter(|name| fixed.contains(&name.as_str())));
    columns
}

/// The scores stand between `detail` and `steps_done`.
pub fn score_columns(frame: &DataFrame) -> Vec<&PlSmallStr> {
    let names = frame.get_column_names();
    let from = names.iter().position(|name| *name == "detail").map_or(names.len(), |at| at + 1);
    let to = names.iter().position(|name| *name == "steps_done").unwrap_or(names.len());
    if from <= to { names[from..to].to_vec() } else { Vec::new() }
}

/// The first of `columns` in which row `a` of one table differs from row `b` of the other, with both entries.
pub fn difference<'a>(
    one: &'a DataFrame,
    a: usize,
    other: &'a DataFrame,
    b: usize,
    columns: &[&PlSmallStr],
) -> Option<(String, AnyValue<'a>, AnyValue<'a>)> {
    columns.iter().find_map(|name| {
        let first = one.column(name).ok()?.get(a).ok()?;
        let second = other.column(name).ok()?.get(b).ok()?;
        let same = same_entry(&first, &second) || same_number(&first, &second);
        (!same).then(|| (name.to_string(), first, second))
    })
}

/// Whether an integer of one table is the same number as a float of the other: kinds may differ between plans.
fn same_number(one: &AnyValue, other: &AnyValue) -> bool {
    let mixed =
        matches!((one, other), (AnyValue::Int64(_), AnyValue::Float64(_)) | (AnyValue::Float64(_), AnyValue::Int64(_)));
    mixed && one.extract::<f64>() == other.extract::<f64>()
}

/// An entry as the message of a conflict shows it: floats with all their digits.
pub fn text_of(value: &AnyValue) -> String {
    match value {
        AnyValue::Float64(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// A table of rows and the file it was read from.
pub struct Source<'a> {
    pub path: &'a Path,
    pub frame: &'a DataFrame,
}

/// Every cell that both hold with different results. A table compared with itself: cells that it holds twice.
pub fn differences(one: &Source, other: &Source) -> Result<Vec<Conflict>, StoreError> {
    let cells = |source: &Source| {
        ids_of(source.frame).map_err(|reason| StoreError::Damaged { path: source.path.to_path_buf(), reason })
    };
    let mut order: Vec<(CellId, usize)> = cells(one)?.into_iter().zip(0..).collect();
    order.sort_unstable();
    let is_one = one.path == other.path;
    let mut found = Vec::new();
    for (b, cell) in cells(other)?.into_iter().enumerate() {
        let first = order.partition_point(|(known, _)| *known < cell);
        for (_, a) in order[first..].iter().take_while(|(known, a)| *known == cell && !(is_one && *a >= b)) {
            found.extend(difference_of((one, *a), (other, b), cell));
        }
    }
    Ok(found)
}

/// How the results of two rows, both of `cell`, differ.
pub fn difference_of(one: (&Source, usize), other: (&Source, usize), cell: CellId) -> Option<Conflict> {
    let columns = result_columns(one.0.frame, other.0.frame);
    let (what, first, second) = difference(one.0.frame, one.1, other.0.frame, other.1, &columns)?;
    Some(Conflict {
        cell,
        what,
        first: one.0.path.to_path_buf(),
        first_value: text_of(&first),
        second: other.0.path.to_path_buf(),
        second_value: text_of(&second),
    })
}

/// Folder of results that differ.
pub const CONFLICTS: &str = "conflicts";

impl Store {
    /// Keeps files that contradict each other in `conflicts/`, with what is known of them.
    pub(super) fn keep_contradictions(
        &self,
        files: &[(String, Vec<u8>)],
        conflicts: &[Conflict],
    ) -> Result<(), StoreError> {
        let folder = self.folder(Path::new(CONFLICTS))?;
        for (name, bytes) in files {
            self.disk.publish(&folder.join(name), bytes)?;
        }
        let known = list_if_there(&*self.disk.files, &self.dir.join("prov")).unwrap_or_default();
        let told = |conflict: &Conflict| {
            json!({
                "cell": conflict.cell.to_string(),
                "column": conflict.what,
                "results": [
                    { "part": self.below(&conflict.first), "value": conflict.first_value },
                    { "part": self.below(&conflict.second), "value": conflict.second_value },
                ],
            })
        };
        let record = json!({
            "conflicts": conflicts.iter().map(told).collect::<Vec<_>>(),
            "found_by": self.writer(),
            "tegum": env!("CARGO_PKG_VERSION"),
            // Records of the runs of this directory say which parts they wrote.
            "prov": known.into_iter().map(|entry| entry.name).collect::<Vec<_>>(),
        });
        let path = folder.join(format!("{}.json", self.disk.unique()));
        self.disk.replace(&path, format!("{record:#}\n").as_bytes())
    }

    /// Reads the parts that share a cell and compares what they say of it: each with each, because columns in which two differ may
    /// not be in a third. Those that contradict each other count for nothing; `set_aside`: they are moved to `conflicts/`.
    pub(super) fn settle_conflicts(
        &self,
        parts: &mut Vec<RowsPart>,
        set_aside: bool,
        scan: &mut Scan,
    ) -> Result<(), StoreError> {
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

    /// How many files with results that differ were set aside and are still there.
    pub(super) fn kept_contradictions(&self) -> usize {
        let entries = list_if_there(&*self.disk.files, &self.dir.join(CONFLICTS)).unwrap_or_default();
        entries.iter().filter(|entry| PartName::parse(&entry.name, "parquet").is_some()).count()
    }
}
