//! Every row of a plan as one table, and the hash that says whether two runs came to the same.

use std::cell::LazyCell;
use std::path::PathBuf;

use polars::error::PolarsError;
use polars::prelude::{AnyValue, Column, DataFrame, DataType, IdxCa, IdxSize, NamedFrom, StaticArray, StringChunked};
use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8ViewArray};
use rayon::prelude::*;

use super::conflict::{Source, difference_of};
use super::error::StoreError;
use super::part::{Part, layout, series};
use super::plan_file::PlanRecord;
use super::resume::check_ids;
use super::row::Value;
use super::{PARTS, Store};
use crate::plan::CellId;

/// What the present plan says of a cell.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedCell {
    /// One value for each axis of the plan.
    pub axes: Vec<Value>,
    pub method: Option<String>,
}

/// Where a row is, and where it belongs.
struct Picked {
    cell: CellId,
    index: u64,
    /// How many of the plan's columns its file lacks.
    lacking: usize,
    file: usize,
    row: usize,
}

impl Store {
    /// The rows of the plan's cells that are on disk, in the plan's order, with the plan's columns: those of
    /// [`super::layout`]. `ids`: the plan's cells in its order. Rows of other plans in the same directory count if their
    /// cells are the same; they get this plan's index and experiment. A column that a row's file does not have is null.
    ///
    /// # Errors
    /// An unreadable file; two different results for one cell; `ids` that are not the plan's.
    pub fn rows(&self, plan: &PlanRecord, ids: &[CellId]) -> Result<DataFrame, StoreError> {
        check_ids(plan, ids)?;
        // Asked only where rows of another plan lie in the directory.
        let order = LazyCell::new(|| {
            let mut order: Vec<(CellId, u64)> = ids.iter().copied().zip(0..).collect();
            order.sort_unstable();
            order
        });
        let place = |cell, written| match ids.get(written as usize) {
            Some(id) if *id == cell => Some(written),
            _ => order.binary_search_by_key(&cell, |(id, _)| *id).ok().map(|at| order[at].1),
        };
        // A cell has one index, and parts have theirs in order.
        self.gather(plan, place, |row| row.index)
    }

    /// As [`Store::rows`], with axes and method as `planned` says for each plan index, not as the rows were written: an
    /// edited plan may sweep what was a fixed setting before, and then older rows lack that column.
    ///
    /// # Errors
    /// As [`Store::rows`], and values that do not fit the plan's columns.
    pub fn rows_as_planned(
        &self,
        plan: &PlanRecord,
        ids: &[CellId],
        planned: &dyn Fn(u64) -> PlannedCell,
    ) -> Result<DataFrame, StoreError> {
        let mut rows = self.rows(plan, ids)?;
        let indices = whole_numbers(&rows, "plan_index")?;
        let cells: Vec<PlannedCell> = indices.iter().map(|index| planned(*index)).collect();
        if let Some(cell) = cells.iter().find(|cell| cell.axes.len() != plan.axes.len()) {
            let reason = format!("{} values for {} axes", cell.axes.len(), plan.axes.len());
            return Err(StoreError::WrongShape { reason });
        }
        for (at, axis) in plan.axes.iter().enumerate() {
            let values = indices.iter().zip(&cells).map(|(index, cell)| (ids[*index as usize], &cell.axes[at]));
            put(&mut rows, series(axis, values)?)?;
        }
        let methods: Vec<Option<String>> = cells.into_iter().map(|cell| cell.method).collect();
        put(&mut rows, Column::new("method".into(), methods))?;
        Ok(rows)
    }

    /// Every row on disk under the plan's columns, in the order of the indices they were written with: for readers that
    /// cannot tell which cells the plan has, such as a later version with other ids.
    ///
    /// # Errors
    /// As [`Store::rows`].
    pub fn all_rows(&self, plan: &PlanRecord) -> Result<DataFrame, StoreError> {
        self.gather(plan, |_, written| Some(written), |_| 0)
    }

    /// The rows for which `place` gives an index, each cell once. `group`: the same for rows of one cell; sorting by it first is
    /// faster where rows come in its order.
    fn gather(
        &self,
        plan: &PlanRecord,
        place: impl Fn(CellId, u64) -> Option<u64>,
        group: impl Fn(&Picked) -> u64 + Sync,
    ) -> Result<DataFrame, StoreError> {
        let files = self.load(PARTS, None)?;
        let wanted = layout(&plan.schema());
        let mut picked = Vec::new();
        for (file, (path, part)) in files.iter().enumerate() {
            let cells = ids_of(&part.frame).map_err(|reason| StoreError::Damaged { path: path.clone(), reason })?;
            let written = whole_numbers(&part.frame, "plan_index")?;
            let lacking = wanted.iter().filter(|(name, _)| !part.has(name)).count();
            for (row, (cell, written)) in cells.into_iter().zip(written).enumerate() {
                if let Some(index) = place(cell, written) {
                    picked.push(Picked { cell, index, lacking, file, row });
                }
            }
        }
        picked.par_sort_by_key(|row| (group(row), row.cell, row.lacking, row.file, row.row));
        for holders in picked.chunk_by(|a, b| a.cell == b.cell) {
            let source = |row: &Picked| Source { path: &files[row.file].0, frame: &files[row.file].1.frame };
            // Each with each: what two of them differ in, a third may lack.
            for (at, one) in holders.iter().enumerate() {
                for other in &holders[at + 1..] {
                    let (first, second) = (source(one), source(other));
                    if let Some(conflict) = difference_of((&first, one.row), (&second, other.row), one.cell) {
                        return Err(conflict.into());
                    }
                }
            }
        }
        picked.dedup_by_key(|row| row.cell);
        assemble(plan, &wanted, &files, picked)
    }
}

/// The picked rows under the wanted columns, in the order of their indices.
fn assemble(
    plan: &PlanRecord,
    wanted: &[(String, DataType)],
    files: &[(PathBuf, Part)],
    mut picked: Vec<Picked>,
) -> Result<DataFrame, StoreError> {
    picked.par_sort_unstable_by_key(|row| (row.file, row.row));
    let mut table = blank(wanted, 0).map_err(in_words)?;
    for of_one_file in picked.chunk_by(|a, b| a.file == b.file) {
        let rows: Vec<IdxSize> = of_one_file.iter().map(|row| row.row as IdxSize).collect();
        let (path, part) = &files[of_one_file[0].file];
        // Sorted and each once, so as many as there are means all of them: the usual case, and nothing to copy.
        let frame = match rows.len() == part.frame.height() {
            true => part.frame.clone(),
            false => part.frame.take(&IdxCa::new("".into(), rows)).map_err(in_words)?,
        };
        let is_axis = |name: &str| plan.axes.iter().any(|axis| axis.name == name);
        let columns = wanted.iter().map(|(name, dtype)| match frame.column(name) {
            // What an older plan swept as words the present one may sweep as numbers; the plan says what its axes are.
            Ok(column) if is_axis(name) => column.cast(dtype).map_err(in_words),
            Ok(column) => column.strict_cast(dtype).map_err(|_| {
                let found = column.dtype();
                let reason = format!("its column `{name}` is of type {found}, which is not that of the plan, {dtype}");
                StoreError::Damaged { path: path.clone(), reason }
            }),
            Err(_) => Ok(Column::full_null(name.as_str().into(), frame.height(), dtype)),
        });
        let columns = columns.collect::<Result<Vec<_>, StoreError>>()?;
        let aligned = DataFrame::new(frame.height(), columns).map_err(in_words)?;
        table.vstack_mut(&aligned).map_err(in_words)?;
    }
    table.rechunk_mut();
    let mut order: Vec<(u64, CellId, IdxSize)> =
        picked.iter().zip(0..).map(|(row, at)| (row.index, row.cell, at)).collect();
    order.par_sort_unstable();
    let places: Vec<IdxSize> = order.iter().map(|(_, _, at)| *at).collect();
    let mut table = table.take(&IdxCa::new("".into(), places)).map_err(in_words)?;
    let indices: Vec<i64> = order.iter().map(|(index, _, _)| *index as i64).collect();
    put(&mut table, Column::new("plan_index".into(), indices))?;
    put(&mut table, Column::new("experiment".into(), vec![plan.experiment.as_str(); order.len()]))?;
    Ok(table)
}

fn in_words(error: PolarsError) -> StoreError {
    StoreError::WrongShape { reason: error.to_string() }
}

fn blank(wanted: &[(String, DataType)], height: usize) -> Result<DataFrame, polars::error::PolarsError> {
    let null = |(name, dtype): &(String, DataType)| Column::full_null(name.as_str().into(), height, dtype);
    DataFrame::new(height, wanted.iter().map(null).collect())
}

/// Replaces the column of that name.
fn put(rows: &mut DataFrame, column: Column) -> Result<(), StoreError> {
    let outcome = rows.with_column(column).map(|_| ());
    outcome.map_err(|error| StoreError::WrongShape { reason: error.to_string() })
}

/// A column of counts, none of them null.
fn whole_numbers(frame: &DataFrame, name: &str) -> Result<Vec<u64>, StoreError> {
    let wrong = || StoreError::WrongShape { reason: format!("column `{name}` is not one of whole numbers") };
    let column = frame.column(name).ok().and_then(|column| column.i64().ok()).ok_or_else(wrong)?;
    column.iter().map(|number| number.and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong)).collect()
}

/// The column `cell`.
pub(super) fn ids_of(frame: &DataFrame) -> Result<Vec<CellId>, String> {
    texts_of_cells(frame)?.iter().map(parsed).collect()
}

/// The column `cell`, rows of one cell that stand together as one.
pub(super) fn runs_of_ids(frame: &DataFrame) -> Result<Vec<CellId>, String> {
    let mut texts: Vec<Option<&str>> = texts_of_cells(frame)?.iter().collect();
    texts.dedup();
    texts.into_iter().map(parsed).collect()
}

fn texts_of_cells(frame: &DataFrame) -> Result<&StringChunked, String> {
    let column = frame.column("cell").map_err(|_| "it has no column `cell`".to_string())?;
    column.str().map_err(|_| "its column `cell` is not text".to_string())
}

fn parsed(text: Option<&str>) -> Result<CellId, String> {
    text.unwrap_or("null").parse().map_err(|error| format!("{error}"))
}

/// BLAKE3 over the rows in the order of their plan index and cell: every column with its name and type except
/// `plan_index` and `experiment`, floats by their bits. Equal for any number of threads, chunks, shards and restarts;
/// different as soon as one bit of one score is.
pub fn logical_hash(rows: &DataFrame) -> String {
    let left_out = ["plan_index", "experiment"];
    let columns = rows.columns().iter().filter(|column| !left_out.contains(&column.name().as_str()));
    let columns: Vec<Column> = columns.map(Column::rechunk).collect();
    let mut hasher = blake3::Hasher::new_derive_key("tegum logical rows v1");
    let mut bytes = Vec::with_capacity(2 * HASHED_AT_ONCE);
    for column in &columns {
        text_into(&mut bytes, column.name());
        text_into(&mut bytes, &column.dtype().to_string());
    }
    text_into(&mut bytes, &rows.height().to_string());
    let columns: Vec<Entries> = columns.iter().map(Entries::of).collect();
    for row in reading_order(rows) {
        columns.iter().for_each(|column| column.put(row, &mut bytes));
        if bytes.len() > HASHED_AT_ONCE {
            hasher.update(&bytes);
            bytes.clear();
        }
    }
    hasher.update(&bytes);
    hasher.finalize().to_hex().to_string()
}

/// Bytes that BLAKE3 gets at a time: a row alone is too short for its vectors.
const HASHED_AT_ONCE: usize = 1 << 16;

/// Row numbers by plan index, then cell; as they stand where a table has neither.
fn reading_order(rows: &DataFrame) -> Vec<usize> {
    let index = rows.column("plan_index").ok().and_then(|column| column.i64().ok());
    let cell = rows.column("cell").ok().and_then(|column| column.str().ok());
    let mut order: Vec<usize> = (0..rows.height()).collect();
    order.sort_by_key(|row| (index.and_then(|column| column.get(*row)), cell.and_then(|column| column.get(*row))));
    order
}

fn text_into(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// A column by its type, so that an entry is read without asking for it.
enum Entries<'a> {
    Truths(&'a BooleanArray),
    Whole(&'a PrimitiveArray<i64>),
    Floats(&'a PrimitiveArray<f64>),
    Texts(&'a Utf8ViewArray),
    /// Types the store does not write, from tables made elsewhere.
    Others(&'a Column),
}

impl<'a> Entries<'a> {
    /// Of a column that is in one piece.
    fn of(column: &'a Column) -> Entries<'a> {
        let others = Entries::Others(column);
        match column.dtype() {
            DataType::Boolean => column.bool().map_or(others, |column| Entries::Truths(column.downcast_as_array())),
            DataType::Int64 => column.i64().map_or(others, |column| Entries::Whole(column.downcast_as_array())),
            DataType::Float64 => column.f64().map_or(others, |column| Entries::Floats(column.downcast_as_array())),
            DataType::String => column.str().map_or(others, |column| Entries::Texts(column.downcast_as_array())),
            _ => others,
        }
    }

    /// Adds an entry: the number of its type, then its bytes.
    fn put(&self, row: usize, bytes: &mut Vec<u8>) {
        let number = |kind: u8, bits: u64| {
            let mut entry = [kind; 9];
            entry[1..].copy_from_slice(&bits.to_le_bytes());
            entry
        };
        match self {
            Entries::Truths(column) => match column.get(row) {
                Some(flag) => bytes.extend([1, u8::from(flag)]),
                None => bytes.push(0),
            },
            Entries::Whole(column) => match column.get(row) {
                Some(whole) => bytes.extend_from_slice(&number(2, whole as u64)),
                None => bytes.push(0),
            },
            Entries::Floats(column) => match column.get(row) {
                Some(float) => bytes.extend_from_slice(&number(3, float.to_bits())),
                None => bytes.push(0),
            },
            Entries::Texts(column) => match column.get(row) {
                Some(text) => {
                    bytes.push(4);
                    text_into(bytes, text);
                }
                None => bytes.push(0),
            },
            Entries::Others(column) => match column.get(row).unwrap_or(AnyValue::Null) {
                AnyValue::Null => bytes.push(0),
                other => {
                    bytes.push(5);
                    text_into(bytes, &other.to_string());
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::row::{self, Kind};
    use crate::store::testing::{cell, ids, plan, row, store_of};
    use crate::store::{ChunkResult, Row};

    fn publish(store: &Store, chunk: u64, rows: Vec<Row>) {
        store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
    }

    fn numbers(rows: &DataFrame, name: &str) -> Vec<Option<i64>> {
        rows.column(name).expect("a column").i64().expect("whole numbers").iter().collect()
    }

    #[test]
    fn rows_come_in_the_order_of_the_plan() {
        let (_folder, store) = store_of(&plan(6, 2));
        for chunk in [2, 0, 1] {
            publish(&store, chunk, vec![row(chunk * 2 + 1), row(chunk * 2)]);
        }
        let rows = store.rows(&plan(6, 2), &ids(6)).expect("rows");
        assert_eq!(numbers(&rows, "plan_index"), (0..6).map(Some).collect::<Vec<_>>());
        assert_eq!(ids_of(&rows).expect("ids"), ids(6));
        assert_eq!(numbers(&rows, "n_represented"), (0..6).map(Some).collect::<Vec<_>>());
        assert!(rows.equals_missing(&store.all_rows(&plan(6, 2)).expect("rows")));
    }

    #[test]
    fn an_empty_store_has_the_plans_columns_and_no_rows() {
        let (_folder, store) = store_of(&plan(6, 2));
        let rows = store.rows(&plan(6, 2), &ids(6)).expect("no rows");
        assert_eq!(rows.shape(), (0, 15));
        assert_eq!(rows.column("mcc").expect("a score").dtype(), &DataType::Float64);
    }

    #[test]
    fn the_logical_hash_does_not_see_chunks_partial_parts_or_restarts() {
        let mut hashes = Vec::new();
        for size in [1, 3, 5, 12] {
            let plan = plan(12, size);
            let (folder, store) = store_of(&plan);
            let again = Store::create_or_open(folder.path(), b"name: test\n", &plan).expect("opens");
            for (chunk, (first, count)) in plan.chunks.iter().enumerate() {
                let split = first + count / 2;
                // The first half by one process, the second by another.
                if split > *first {
                    publish(&store, chunk as u64, (*first..split).map(row).collect());
                }
                publish(&again, chunk as u64, (split..first + count).map(row).collect());
            }
            let rows = store.rows(&plan, &ids(12)).expect("rows");
            assert_eq!(rows.height(), 12);
            hashes.push(logical_hash(&rows));
            assert_eq!(logical_hash(&rows.reverse()), hashes[0], "the order in memory does not count");
        }
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    }

    #[test]
    fn the_logical_hash_sees_one_bit_of_one_score_and_every_null() {
        let hash = |change: &dyn Fn(&mut Row)| {
            let (_folder, store) = store_of(&plan(2, 2));
            let mut rows = vec![row(0), row(1)];
            change(&mut rows[1]);
            publish(&store, 0, rows);
            logical_hash(&store.rows(&plan(2, 2), &ids(2)).expect("rows"))
        };
        let base = hash(&|_| {});
        assert_eq!(hash(&|_| {}), base);
        let last_bit = f64::from_bits(0.5f64.to_bits() + 1);
        assert_ne!(hash(&|row| row.scores[0] = Value::Float(last_bit)), base);
        assert_ne!(hash(&|row| row.scores[1] = Value::Null), base);
        assert_ne!(hash(&|row| row.axes[1] = Value::Int(6)), base);
        assert_ne!(hash(&|row| row.detail = Some(String::new())), base);
    }

    #[test]
    fn an_edited_plan_takes_the_cells_it_shares_under_its_own_index() {
        let (folder, store) = store_of(&plan(4, 2));
        publish(&store, 0, vec![row(0), row(1)]);
        publish(&store, 1, vec![row(2), row(3)]);
        let mut edited = plan(3, 3);
        edited.experiment = "edited".into();
        edited.axes.push(row::Column::new("sae.topk.k", Kind::Int));
        let order = [cell(3), cell(8), cell(1)];
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        let rows = again.rows(&edited, &order).expect("rows");
        assert_eq!(ids_of(&rows).expect("ids"), [cell(3), cell(1)]);
        assert_eq!(numbers(&rows, "plan_index"), [Some(0), Some(2)]);
        assert_eq!(numbers(&rows, "sae.topk.k"), [None, None]);
        let planned = |index: u64| PlannedCell {
            axes: vec![Value::Float(0.5), Value::Int(5), Value::Int(index as i64 + 1)],
            method: Some("renamed".into()),
        };
        let rows = again.rows_as_planned(&edited, &order, &planned).expect("rows");
        assert_eq!(numbers(&rows, "sae.topk.k"), [Some(1), Some(3)]);
        assert_eq!(rows.column("method").expect("method").str().expect("text").get(0), Some("renamed"));
        assert_eq!(rows.column("experiment").expect("experiment").str().expect("text").get(1), Some("edited"));
    }

    #[test]
    fn of_two_rows_for_a_cell_the_one_with_more_of_the_scores_is_taken() {
        let (folder, store) = store_of(&plan(2, 2));
        publish(&store, 0, vec![row(0), row(1)]);
        let mut edited = plan(2, 2);
        edited.scores.push(row::Column::new("l0", Kind::Float));
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        let mut with_l0 = row(0);
        with_l0.scores.push(Value::Float(2.0));
        publish(&again, 0, vec![with_l0]);
        let rows = again.rows(&edited, &ids(2)).expect("rows");
        let l0: Vec<Option<f64>> = rows.column("l0").expect("l0").f64().expect("f64").iter().collect();
        assert_eq!(l0, [Some(2.0), None]);
    }
}
