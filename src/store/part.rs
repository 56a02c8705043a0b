//! One Parquet file of rows, or of a side table: its name, its bytes, and the way back.
//!
//! The bytes depend on the results alone (no times, no machine names), so two machines that compute the same chunk write the same
//! file under the same name.

use polars::prelude::{
    AnyValue, ChunkedArray, Column as Series, DataFrame, DataType, Float64Type, Int64Type, IntoColumn,
    PolarsNumericType,
};
use polars_arrow::bitmap::BitmapBuilder;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::parquet::parquet;
pub use super::part_name::{Extent, MERGED, PartName, folder_of};
pub use super::reading::{Unfit, decode, decode_rows};
use super::row::{Column, Kind, Row, Schema, Value};
use crate::plan::CellId;
use crate::plan::id::Digits;

/// Key under which a part carries the number of its chunk, so that a renamed part is noticed.
pub(super) const CHUNK_KEY: &str = "tegum.chunk";
/// Key under which a rows part lists the files that were published before it, one path a line.
pub(super) const COMPANIONS_KEY: &str = "tegum.companions";
/// Key under which a rows part says what was kept beside it, as [`PlanRecord::kept`](super::PlanRecord::kept), one a line.
pub(super) const KEPT_KEY: &str = "tegum.kept";
/// Key under which a merged part says, as JSON, which of its rows were published together, and with what beside them.
pub(super) const SEGMENTS_KEY: &str = "tegum.segments";
/// Key under which a merged part lists the names of the parts whose rows it holds, one a line.
pub(super) const SOURCES_KEY: &str = "tegum.sources";
/// Key of the format, absent in the first.
pub(super) const FORMAT_KEY: &str = "tegum.format";

/// The format of plans and parts that this program writes. A file without a number is of the first; one with a larger number is
/// refused.
pub const FORMAT: u64 = 1;

/// Rows that were published together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    pub rows: usize,
    /// Files that were published before them, as paths below the run directory.
    pub companions: Vec<String>,
    /// What was asked to be kept beside the rows.
    pub kept: Vec<String>,
}

/// What a part holds.
#[derive(Clone, Debug)]
pub struct Part {
    pub chunk: u64,
    /// In the order of the rows; one, except in a merged part.
    pub segments: Vec<Segment>,
    /// Names of the parts whose rows a merged part holds.
    pub sources: Vec<String>,
    /// Names and types of every column of the file, also those that were not read.
    pub columns: Vec<(String, DataType)>,
    pub frame: DataFrame,
}

impl Part {
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|(name, _)| name == column)
    }

    /// Each segment with something for each row of it.
    pub fn by_segment<'a, T>(&'a self, of_rows: &'a [T]) -> impl Iterator<Item = (&'a Segment, &'a [T])> {
        let mut rest = of_rows;
        self.segments.iter().map(move |segment| {
            let (own, others) = rest.split_at(segment.rows.min(rest.len()));
            rest = others;
            (segment, own)
        })
    }
}

/// Whether what was kept is all that is wanted; the weights of all cells are those of the best too.
pub fn keeps_all(kept: &[String], wanted: &[String]) -> bool {
    let has = |item: &str| kept.iter().any(|own| own == item);
    wanted.iter().all(|item| has(item) || (item == "weights=best" && has("weights=all")))
}

/// The bytes of a part of rows, with what stands beside it.
///
/// # Errors
/// The table library's own.
pub fn encode_rows(
    chunk: u64,
    companions: &[String],
    kept: &[String],
    frame: &DataFrame,
) -> Result<Vec<u8>, StoreError> {
    let beside = vec![(COMPANIONS_KEY, companions.join("\n")), (KEPT_KEY, kept.join("\n"))];
    encode_with(chunk, beside, frame)
}

/// The bytes of a merged part.
///
/// # Errors
/// The table library's own.
pub fn encode_merged(
    chunk: u64,
    segments: &[Segment],
    sources: &[String],
    frame: &DataFrame,
) -> Result<Vec<u8>, StoreError> {
    let segments = serde_json::to_string(segments).expect("texts and whole numbers are JSON");
    encode_with(chunk, vec![(SEGMENTS_KEY, segments), (SOURCES_KEY, sources.join("\n"))], frame)
}

/// The bytes of a side table.
///
/// # Errors
/// The table library's own.
pub fn encode(chunk: u64, frame: &DataFrame) -> Result<Vec<u8>, StoreError> {
    encode_with(chunk, vec![], frame)
}

pub(super) fn encode_with(chunk: u64, beside: Vec<(&str, String)>, frame: &DataFrame) -> Result<Vec<u8>, StoreError> {
    let entries: Vec<_> = [(CHUNK_KEY, chunk.to_string())].into_iter().chain(beside).collect();
    parquet(frame, &entries).map_err(|error| StoreError::Encoding {
        action: "encode",
        chunk,
        reason: error.to_string(),
    })
}

/// The type of the table library for a column of the store.
pub fn dtype(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Boolean,
        Kind::Int => DataType::Int64,
        Kind::Float => DataType::Float64,
        Kind::Text => DataType::String,
    }
}

/// Names and types of the columns of a table of rows, in order.
pub fn layout(schema: &Schema) -> Vec<(String, DataType)> {
    let fixed = |name: &str, dtype| (name.to_string(), dtype);
    let own = |column: &Column| (column.name.clone(), dtype(column.kind));
    let mut layout = vec![
        fixed("cell", DataType::String),
        fixed("plan_index", DataType::Int64),
        fixed("experiment", DataType::String),
    ];
    layout.extend(schema.axes.iter().map(own));
    layout.push(fixed("seed", DataType::Int64));
    layout.extend(["method", "status", "detail"].map(|name| fixed(name, DataType::String)));
    layout.extend(schema.scores.iter().map(own));
    layout.push(fixed("steps_done", DataType::Int64));
    layout.push(fixed("algo_version", DataType::String));
    layout
}

/// Rows as a table with the columns of [`layout`], in the order of the plan.
///
/// # Errors
/// A value that is not finite, of another kind than its column, or missing; two rows of one cell; names used twice.
pub fn frame(experiment: &str, schema: &Schema, rows: &[Row]) -> Result<DataFrame, StoreError> {
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by_key(|row| (row.plan_index, row.cell));
    check(schema, &order)?;
    let mut columns = vec![
        cell_column(order.iter().map(|row| row.cell)),
        integers(&order, "plan_index", |row| Some(row.plan_index))?,
        Series::new("experiment".into(), vec![experiment; order.len()]),
    ];
    for (at, axis) in schema.axes.iter().enumerate() {
        columns.push(series(axis, order.iter().map(|row| (row.cell, &row.axes[at])))?);
    }
    columns.push(integers(&order, "seed", |row| Some(row.seed))?);
    columns.push(texts("method", &order, |row| row.method.as_deref()));
    columns.push(texts("status", &order, |row| Some(row.status.as_str())));
    columns.push(texts("detail", &order, |row| row.detail.as_deref()));
    for (at, score) in schema.scores.iter().enumerate() {
        columns.push(series(score, order.iter().map(|row| (row.cell, &row.scores[at])))?);
    }
    columns.push(integers(&order, "steps_done", |row| row.steps_done)?);
    columns.push(texts("algo_version", &order, |row| Some(&row.algo_version)));
    DataFrame::new(order.len(), columns).map_err(|error| StoreError::WrongShape { reason: error.to_string() })
}

fn check(schema: &Schema, order: &[&Row]) -> Result<(), StoreError> {
    let wrong = |reason: String| Err(StoreError::WrongShape { reason });
    for row in order {
        if row.axes.len() != schema.axes.len() || row.scores.len() != schema.scores.len() {
            return wrong(format!(
                "cell {} has {} axis values and {} scores, the plan {} and {}",
                row.cell,
                row.axes.len(),
                row.scores.len(),
                schema.axes.len(),
                schema.scores.len()
            ));
        }
    }
    let mut cells: Vec<_> = order.iter().map(|row| row.cell).collect();
    cells.sort();
    match cells.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => wrong(format!("cell {} comes twice in one chunk", pair[0])),
        None => Ok(()),
    }
}

/// The column `cell` of a table.
pub fn cell_column(cells: impl Iterator<Item = CellId>) -> Series {
    let digits: Vec<Digits> = cells.map(|cell| cell.digits()).collect();
    Series::new("cell".into(), digits.iter().map(Digits::as_str).collect::<Vec<_>>())
}

fn texts<'a>(name: &str, rows: &[&'a Row], text: impl Fn(&'a Row) -> Option<&'a str>) -> Series {
    Series::new(name.into(), rows.iter().map(|row| text(row)).collect::<Vec<_>>())
}

fn integers(rows: &[&Row], name: &str, number: impl Fn(&Row) -> Option<u64>) -> Result<Series, StoreError> {
    let convert = |row: &&Row| match number(row) {
        None => Ok(None),
        Some(large) => i64::try_from(large).map(Some).map_err(|_| StoreError::WrongShape {
            reason: format!("cell {}: {name} {large} is past 2^63 - 1, the largest a table can hold", row.cell),
        }),
    };
    numbers::<Int64Type>(name, rows.iter().map(convert))
}

/// A column of numbers, some of which may be missing.
fn numbers<T: PolarsNumericType>(
    name: &str,
    entries: impl Iterator<Item = Result<Option<T::Native>, StoreError>>,
) -> Result<Series, StoreError>
where
    ChunkedArray<T>: IntoColumn,
{
    let (mut numbers, mut is_there) = (Vec::with_capacity(entries.size_hint().0), BitmapBuilder::new());
    for entry in entries {
        let entry = entry?;
        numbers.push(entry.unwrap_or_default());
        is_there.push(entry.is_some());
    }
    Ok(ChunkedArray::<T>::from_vec_validity(name.into(), numbers, is_there.into_opt_validity()).into_column())
}

/// One axis or score as a typed column, from each cell's value.
pub(super) fn series<'a>(
    column: &Column,
    values: impl Iterator<Item = (CellId, &'a Value)>,
) -> Result<Series, StoreError> {
    let mismatch = |cell: CellId, found: &Value| StoreError::WrongShape {
        reason: format!("cell {cell}: column `{}` is {:?} and cannot hold {found:?}", column.name, column.kind),
    };
    let name = || column.name.as_str().into();
    Ok(match column.kind {
        Kind::Bool => {
            let read = |(cell, found): (CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Bool(flag) => Ok(Some(*flag)),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name(), values.map(read).collect::<Result<Vec<_>, _>>()?)
        }
        Kind::Int => {
            let read = |(cell, found): (CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Int(number) => Ok(Some(*number)),
                other => Err(mismatch(cell, other)),
            };
            numbers::<Int64Type>(&column.name, values.map(read))?
        }
        Kind::Float => {
            let read = |(cell, found): (CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Float(number) if number.is_finite() => Ok(Some(*number)),
                Value::Float(number) => {
                    Err(StoreError::NotFinite { cell, column: column.name.clone(), value: *number })
                }
                // An axis such as [1, 0.5] is one of floats; below 2^53 the conversion is exact.
                Value::Int(number) if number.unsigned_abs() <= 1 << 53 => Ok(Some(*number as f64)),
                other => Err(mismatch(cell, other)),
            };
            numbers::<Float64Type>(&column.name, values.map(read))?
        }
        Kind::Text => {
            let read = |(cell, found): (CellId, &'a Value)| match found {
                Value::Null => Ok(None),
                Value::Text(text) => Ok(Some(text.as_str())),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name(), values.map(read).collect::<Result<Vec<_>, _>>()?)
        }
    })
}

/// Whether two entries are the same, floats by their bits.
pub(super) fn same_entry(one: &AnyValue, other: &AnyValue) -> bool {
    match (one, other) {
        (AnyValue::Float64(one), AnyValue::Float64(other)) => one.to_bits() == other.to_bits(),
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use polars::prelude::PlSmallStr;

    use super::*;
    use crate::store::row::Status;
    use crate::store::testing::{row, schema};

    #[test]
    fn the_same_rows_give_the_same_bytes_in_any_order_and_memory_layout() {
        let rows: Vec<Row> = (0..50).map(row).collect();
        let mut whole = frame("test", &schema(), &rows).expect("rows fit");
        let bytes = encode(3, &whole).expect("encodes");
        let backwards: Vec<Row> = rows.iter().rev().cloned().collect();
        let again = frame("test", &schema(), &backwards).expect("rows fit");
        assert_eq!(encode(3, &again).expect("encodes"), bytes);
        let mut stacked = frame("test", &schema(), &rows[..20]).expect("rows fit");
        stacked.vstack_mut(&frame("test", &schema(), &rows[20..]).expect("rows fit")).expect("same columns");
        assert_eq!(encode(3, &stacked).expect("encodes"), bytes);
        let mut more = stacked.vstack(&stacked).expect("same columns");
        assert_eq!(encode(3, &more.slice(50, 50)).expect("encodes"), bytes, "a part of a larger table");
        more.rechunk_mut();
        assert_eq!(encode(3, &more.slice(0, 50)).expect("encodes"), bytes);
        let constant = Series::new_scalar("experiment".into(), PlSmallStr::from("test").into(), 50);
        whole.with_column(constant).expect("as long");
        assert_eq!(encode(3, &whole).expect("encodes"), bytes);
        assert_ne!(encode(4, &whole).expect("encodes"), bytes, "the chunk's number is part of it");
    }

    #[test]
    fn a_part_comes_back_as_it_was_written() {
        let mut rows: Vec<Row> = (0..7).map(row).collect();
        rows[3].status = Status::Degenerate;
        rows[3].detail = Some("no feature fired".into());
        rows[3].scores = vec![Value::Null; 4];
        rows[3].axes[0] = Value::Null;
        let table = frame("test", &schema(), &rows).expect("rows fit");
        let companions = vec!["features/ab/c".to_string(), "trace/ab/c".to_string()];
        let bytes = encode_rows(1, &companions, &["features".into()], &table).expect("encodes");
        let name = PartName::of(1, false, &bytes);
        let part = decode(&name, bytes, None).expect("decodes");
        assert_eq!(part.segments, [Segment { rows: 7, companions, kept: vec!["features".into()] }]);
        assert!(part.frame.equals_missing(&table));
        let names: Vec<String> = part.frame.get_column_names().iter().map(|name| name.to_string()).collect();
        let expected = [
            "cell",
            "plan_index",
            "experiment",
            "data.firing_probability",
            "toy.d_hidden",
            "seed",
            "method",
            "status",
            "detail",
            "loss",
            "mcc",
            "n_represented",
            "phase",
            "steps_done",
            "algo_version",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_part_of_another_chunk_or_of_another_program_is_refused() {
        let table = frame("test", &schema(), &[row(0)]).expect("rows fit");
        let bytes = encode(1, &table).expect("encodes");
        let renamed = PartName { chunk: 2, ..PartName::of(1, false, &bytes) };
        assert!(decode(&renamed, bytes, None).expect_err("chunk 1").to_string().contains("holds chunk 1"));
        let foreign = parquet(&table, &[]).expect("encodes");
        assert!(decode(&renamed, foreign, None).expect_err("no mark").to_string().contains("no chunk number"));
        assert!(decode(&renamed, b"PAR1 nonsense PAR1".to_vec(), None).is_err());
        assert!(decode(&renamed, Vec::new(), None).is_err());
    }

    #[test]
    fn nan_infinity_and_wrong_kinds_are_refused() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut bad = row(0);
            bad.scores[1] = Value::Float(number);
            let error = frame("test", &schema(), &[bad]).expect_err("not finite");
            assert!(matches!(error, StoreError::NotFinite { ref column, .. } if column == "mcc"), "{error}");
            let mut bad = row(0);
            bad.axes[0] = Value::Float(number);
            assert!(matches!(frame("test", &schema(), &[bad]), Err(StoreError::NotFinite { .. })));
        }
        let mut bad = row(0);
        bad.scores[3] = Value::Int(1);
        assert!(matches!(frame("test", &schema(), &[bad]), Err(StoreError::WrongShape { .. })));
        let mut short = row(0);
        short.scores.pop();
        assert!(matches!(frame("test", &schema(), &[short]), Err(StoreError::WrongShape { .. })));
        let mut large = row(0);
        large.seed = u64::MAX;
        assert!(matches!(frame("test", &schema(), &[large]), Err(StoreError::WrongShape { .. })));
        let twice = [row(0), Row { plan_index: 1, ..row(0) }];
        assert!(matches!(frame("test", &schema(), &twice), Err(StoreError::WrongShape { .. })));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_changes_the_hash() {
        let table = frame("test", &schema(), &[row(0), row(1)]).expect("rows fit");
        let bytes = encode(1, &table).expect("encodes");
        let name = PartName::of(1, false, &bytes);
        for at in 0..bytes.len() {
            assert_ne!(PartName::of(1, false, &bytes[..at]), name);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert_ne!(PartName::of(1, false, &flipped), name);
        }
    }

    #[test]
    fn an_integer_in_a_column_of_floats_is_stored_as_the_same_number() {
        let mut whole = row(0);
        whole.axes[0] = Value::Int(1);
        let table = frame("test", &schema(), &[whole]).expect("rows fit");
        let column = table.column("data.firing_probability").expect("an axis");
        assert!(same_entry(&column.get(0).expect("one row"), &AnyValue::Float64(1.0)));
        assert_eq!(row(0).cell, CellId([0; 16]));
    }
}
