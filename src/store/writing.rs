//! Publishing what a chunk came to: side tables and weights first, rows last, so that a row implies the rest.

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use polars::prelude::{DataFrame, DataType};

use super::conflict::{Source, differences};
use super::error::StoreError;
use super::fs::list_if_there;
use super::part::{Extent, MERGED, Part, PartName, decode_rows, encode, encode_rows, folder_of, frame};
use super::publish::Published;
use super::row::Row;
use super::rows::{ids_of, runs_of_ids};
use super::side::Side;
use super::weights::WEIGHTS;
use super::{PARTS, PlanRecord, Store};
use crate::plan::CellId;
use crate::plan::id::position;

/// Rows of a side table, of any cells of one chunk.
#[derive(Clone, Debug)]
pub struct SideTable {
    pub side: Side,
    /// A column `cell` (text, 32 hexadecimal digits), then the table's own; floats finite or null.
    pub frame: DataFrame,
}

/// What training a chunk, or what was missing of it, came to.
#[derive(Clone, Debug, Default)]
pub struct ChunkResult {
    pub chunk: u64,
    /// In any order; at most one per cell of the chunk.
    pub rows: Vec<Row>,
    /// At most one table of each kind.
    pub side: Vec<SideTable>,
    /// Bytes of a safetensors file, see [`super::encode_weights`].
    pub weights: Option<Vec<u8>>,
}

impl Store {
    /// Publishes a chunk; when this returns it is on disk and any other process may count on it. Fewer rows than the
    /// chunk has cells make a partial part.
    ///
    /// # Errors
    /// What the file system refuses; rows that do not fit the plan; a different result for the same cell that is there
    /// already ([`StoreError::Conflict`]: both files are then kept in `conflicts/` and nothing is added to `parts/`).
    pub fn publish(&self, result: &ChunkResult) -> Result<Published, StoreError> {
        let wrong = |reason: String| StoreError::WrongShape { reason };
        let plan = self.plan.as_deref().ok_or_else(|| wrong("the store was opened for reading".into()))?;
        let cells = chunk_cells(plan, result).map_err(wrong)?;
        let partial = (result.rows.len() as u64) < cells;
        let table = frame(&plan.experiment, &plan.schema(), &result.rows)?;
        let mut own: Vec<CellId> = result.rows.iter().map(|row| row.cell).collect();
        own.sort_unstable();
        let mut companions = Vec::new();
        for side in &result.side {
            companions.push(Companion::of_side(result.chunk, partial, side, &own)?);
        }
        if let Some(bytes) = &result.weights {
            companions.push(Companion::of_weights(result.chunk, partial, bytes));
        }
        let mut names: Vec<String> = companions.iter().map(Companion::path).collect();
        names.sort();
        let bytes = encode_rows(result.chunk, &names, &plan.kept, &table)?;
        let name = PartName::of(result.chunk, partial, &bytes);
        // First, so that a refused result leaves nothing behind; then what stands beside the rows, so that rows never lack it.
        self.refuse_conflict(&name, &bytes, &table, &own)?;
        companions.iter().try_for_each(|companion| self.publish_companion(companion))?;
        let path = self.folder(&Path::new(PARTS).join(folder_of(result.chunk)))?.join(name.file_name("parquet"));
        let published = self.disk.publish(&path, &bytes)?;
        self.note_part(name.file_name("parquet"));
        Ok(published)
    }

    pub(super) fn publish_companion(&self, companion: &Companion) -> Result<(), StoreError> {
        let fan_out = folder_of(companion.name.chunk);
        let folder = self.folder(&Path::new(companion.folder).join(&fan_out))?;
        let path = folder.join(companion.name.file_name(companion.extension));
        self.disk.publish(&path, &companion.bytes).map(|_| ())
    }

    /// Compares with every other part of the same chunk and every merged one that holds one of its `cells`, sorted; on a difference
    /// keeps both in `conflicts/`.
    fn refuse_conflict(
        &self,
        name: &PartName,
        bytes: &[u8],
        table: &DataFrame,
        cells: &[CellId],
    ) -> Result<(), StoreError> {
        let files = &*self.disk.files;
        let own = self.dir.join(PARTS).join(name.folder()).join(name.file_name("parquet"));
        // Merged parts last: a part that is merged away meanwhile is found there.
        for folder in [name.folder(), MERGED.into()] {
            let folder = self.dir.join(PARTS).join(folder);
            for entry in list_if_there(files, &folder).map_err(StoreError::io("list", &folder))? {
                let Some(other) = PartName::parse(&entry.name, "parquet") else { continue };
                let path = folder.join(&entry.name);
                let may_differ = match other.extent {
                    Extent::Merged => self.merged_holds(&path, &other, cells)?,
                    _ => other.chunk == name.chunk && other.hash != name.hash,
                };
                let Some((theirs, part)) = (if may_differ { self.rival(&path, &other)? } else { None }) else {
                    continue;
                };
                let one = Source { path: &path, frame: &part.frame };
                let conflicts = differences(&one, &Source { path: &own, frame: table })?;
                if let Some(first) = conflicts.first().cloned() {
                    let both = [(entry.name, theirs), (name.file_name("parquet"), bytes.to_vec())];
                    self.keep_contradictions(&both, &conflicts)?;
                    return Err(first.into());
                }
            }
        }
        Ok(())
    }

    /// A part that may hold another result; none if it is gone or no result.
    fn rival(&self, path: &Path, name: &PartName) -> Result<Option<(Vec<u8>, Part)>, StoreError> {
        let theirs = match self.disk.files.read(path) {
            // Another process set it aside, or merged it, since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            // Unread it may hold another result; the next start sets it aside.
            other => other.map_err(StoreError::io("read", path))?,
        };
        // A damaged part is not a result; the next start sets it aside.
        if !self.disk.fits(name, &theirs) {
            return Ok(None);
        }
        Ok(decode_rows(name, theirs.clone(), None).ok().map(|part| (theirs, part)))
    }

    /// Whether a merged part holds one of these cells, sorted. What it holds is read once.
    fn merged_holds(&self, path: &Path, name: &PartName, cells: &[CellId]) -> Result<bool, StoreError> {
        let known = || self.merged_cells.lock().unwrap_or_else(PoisonError::into_inner);
        let read = known().get(name).cloned();
        let held = match read {
            Some(held) => held,
            None => {
                let Some((_, part)) = self.rival(path, name)? else { return Ok(false) };
                let mut held = ids_of(&part.frame).map_err(|reason| StoreError::WrongShape { reason })?;
                held.sort_unstable();
                known().entry(name.clone()).or_insert(Arc::new(held)).clone()
            }
        };
        Ok(cells.iter().any(|cell| held.binary_search(cell).is_ok()))
    }
}

/// A file that stands beside rows.
pub(super) struct Companion<'a> {
    folder: &'static str,
    extension: &'static str,
    name: PartName,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Companion<'a> {
    /// `cells`: those of the rows, sorted.
    fn of_side(chunk: u64, partial: bool, side: &SideTable, cells: &[CellId]) -> Result<Companion<'a>, StoreError> {
        let folder = side.side.name();
        check_side(&side.frame, cells)
            .map_err(|reason| StoreError::WrongShape { reason: format!("{folder}: {reason}") })?;
        let bytes = encode(chunk, &side.frame)?;
        let name = PartName::of(chunk, partial, &bytes);
        Ok(Companion { folder, extension: "parquet", name, bytes: Cow::Owned(bytes) })
    }

    pub(super) fn of_weights(chunk: u64, partial: bool, bytes: &'a [u8]) -> Companion<'a> {
        let name = PartName::of(chunk, partial, bytes);
        Companion { folder: WEIGHTS, extension: "safetensors", name, bytes: Cow::Borrowed(bytes) }
    }

    /// Below the run directory.
    fn path(&self) -> String {
        format!("{}/{}/{}", self.folder, folder_of(self.name.chunk), self.name.file_name(self.extension))
    }
}

/// How many cells the chunk has, if the rows are some of them.
fn chunk_cells(plan: &PlanRecord, result: &ChunkResult) -> Result<u64, String> {
    let at = usize::try_from(result.chunk).ok();
    let Some((first, count)) = at.and_then(|at| plan.chunks.get(at)).copied() else {
        return Err(format!("chunk {} of a plan of {} chunks", result.chunk, plan.chunks.len()));
    };
    match result.rows.iter().find(|row| row.plan_index < first || row.plan_index - first >= count) {
        Some(row) => Err(format!("cell {} (index {}) is not of chunk {}", row.cell, row.plan_index, result.chunk)),
        None => Ok(count),
    }
}

/// `cells`: those of the rows, sorted.
fn check_side(frame: &DataFrame, cells: &[CellId]) -> Result<(), String> {
    for cell in runs_of_ids(frame)? {
        if position(cells, &cell).is_none() {
            return Err(format!("cell {cell} has no row in this chunk"));
        }
    }
    for column in frame.columns() {
        let finite = match column.dtype() {
            DataType::Float64 => column.f64().is_ok_and(|numbers| numbers.iter().flatten().all(f64::is_finite)),
            DataType::Float32 => column.f32().is_ok_and(|numbers| numbers.iter().flatten().all(f32::is_finite)),
            _ => true,
        };
        if !finite {
            return Err(format!("column `{}` holds a number that is not finite", column.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::{Row, Value};
    use crate::store::testing::{ids, plan, row, store_of};
    use polars::prelude::df;

    fn chunk(chunk: u64, indices: std::ops::Range<u64>) -> ChunkResult {
        ChunkResult { chunk, rows: indices.map(row).collect(), ..Default::default() }
    }

    fn parts(store: &Store) -> Vec<String> {
        let paths = crate::store::fs::files_below(&crate::store::fs::RealFs, &store.dir().join(PARTS));
        let name = |path: std::path::PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        paths.expect("parts").into_iter().filter_map(name).collect()
    }

    #[test]
    fn two_writers_of_one_chunk_leave_one_part() {
        let (folder, store) = store_of(&plan(4, 2));
        let other = Store::create_or_open(folder.path(), b"name: test\n", &plan(4, 2)).expect("opens");
        assert_eq!(store.publish(&chunk(1, 2..4)).expect("publishes"), Published::New);
        assert_eq!(other.publish(&chunk(1, 2..4)).expect("publishes"), Published::Same);
        assert_eq!(parts(&store).len(), 1);
    }

    #[test]
    fn many_threads_on_one_directory_publish_each_chunk_once() {
        let plan = plan(64, 4);
        let (folder, store) = store_of(&plan);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let own = Store::create_or_open(folder.path(), b"name: test\n", &plan).expect("opens");
                    for number in 0..16 {
                        own.publish(&chunk(number, number * 4..number * 4 + 4)).expect("publishes");
                    }
                });
            }
        });
        assert_eq!(parts(&store).len(), 16);
        assert_eq!(store.rows(&plan, &ids(64)).expect("rows").height(), 64);
    }

    #[test]
    fn a_subset_of_a_chunk_is_marked_as_partial() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.publish(&chunk(0, 0..1)).expect("publishes");
        store.publish(&chunk(1, 2..4)).expect("publishes");
        let mut marks: Vec<bool> = parts(&store).iter().map(|name| name.contains(".p-")).collect();
        marks.sort();
        assert_eq!(marks, [false, true]);
    }

    #[test]
    fn a_different_result_is_refused_and_both_are_kept() {
        let (folder, store) = store_of(&plan(4, 2));
        store.publish(&chunk(0, 0..2)).expect("publishes");
        let mut other = chunk(0, 0..2);
        other.rows[1].scores[1] = Value::Float(0.1 + 0.2);
        let error = store.publish(&other).expect_err("another mcc");
        assert_eq!(error.exit_code(), 6);
        assert!(error.to_string().contains("mcc is 0.25 in") && error.to_string().contains("0.30000000000000004"));
        assert_eq!(parts(&store).len(), 1, "the first result stays, the second is not added");
        let kept = std::fs::read_dir(folder.path().join("conflicts")).expect("made").count();
        assert_eq!(kept, 3, "two parts and what is known of them");
    }

    #[test]
    fn a_refused_result_leaves_nothing_beside_the_rows() {
        let (folder, store) = store_of(&plan(4, 2));
        store.publish(&chunk(0, 0..2)).expect("publishes");
        let mut other = chunk(0, 0..2);
        other.rows[1].scores[1] = Value::Float(0.1 + 0.2);
        let frame = df!["cell" => [row(0).cell.to_string()], "norm" => [1.0]].expect("two columns");
        other.side = vec![SideTable { side: Side::Features, frame }];
        other.weights = Some(vec![1, 2, 3]);
        store.publish(&other).expect_err("another mcc");
        assert!(!folder.path().join("features").exists() && !folder.path().join("weights").exists());
    }

    #[test]
    fn other_axes_and_names_for_the_same_cell_are_no_conflict() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.publish(&chunk(0, 0..2)).expect("publishes");
        let mut renamed = chunk(0, 0..2);
        renamed.rows[0].method = Some("renamed".into());
        renamed.rows[0].axes[1] = Value::Int(7);
        assert_eq!(store.publish(&renamed).expect("the same results"), Published::New);
    }

    #[test]
    fn rows_outside_the_chunk_or_the_plan_are_refused() {
        let (_folder, store) = store_of(&plan(4, 2));
        for result in [chunk(0, 1..3), chunk(2, 0..1), chunk(u64::MAX, 0..0)] {
            assert!(matches!(store.publish(&result), Err(StoreError::WrongShape { .. })), "{result:?}");
        }
        let reader = Store::open(store.dir()).expect("opens");
        assert!(matches!(reader.publish(&chunk(0, 0..2)), Err(StoreError::WrongShape { .. })));
        assert!(parts(&store).is_empty());
    }

    #[test]
    fn a_side_table_of_unknown_cells_or_with_nan_is_refused() {
        let (_folder, store) = store_of(&plan(4, 2));
        let cell = |row: Row| row.cell.to_string();
        let frames = [
            df!["cell" => [cell(row(3))], "norm" => [1.0]],
            df!["cell" => [cell(row(0))], "norm" => [f64::NAN]],
            df!["cell" => [cell(row(0))], "norm" => [f32::INFINITY]],
            df!["cell" => ["nonsense"], "norm" => [1.0]],
            df!["feature" => [1i64], "norm" => [1.0]],
        ];
        for frame in frames {
            let side = vec![SideTable { side: Side::Features, frame: frame.expect("two columns") }];
            let error = store.publish(&ChunkResult { side, ..chunk(0, 0..2) }).expect_err("no such side table");
            assert!(matches!(error, StoreError::WrongShape { .. }), "{error}");
        }
        assert!(parts(&store).is_empty(), "rows are published after their side tables");
    }
}
