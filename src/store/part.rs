//! One Parquet file of rows, or of a side table: its name, its bytes, and the way back.
//!
//! The bytes depend on the results alone (fixed compression, one row group, no times, no machine names), so two machines
//! that compute the same chunk write the same file under the same name.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::{
    AnyValue, Column as Series, DataFrame, DataType, FileMetadata, KeyValueMetadata, ParallelStrategy,
    ParquetCompression, ParquetReader, ParquetWriter, PlSmallStr, SerReader, StatisticsOptions,
};
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::plan_file::short_hash;
use super::row::{Column, Kind, Row, Schema, Value};
use crate::plan::CellId;

/// Key under which a part carries the number of its chunk, so that a renamed part is noticed.
const CHUNK_KEY: &str = "tegum.chunk";
/// Key under which a rows part lists the files that were published before it, one path a line.
const COMPANIONS_KEY: &str = "tegum.companions";
/// Key under which a rows part says what was kept beside it, as [`PlanRecord::kept`](super::PlanRecord::kept), one a line.
const KEPT_KEY: &str = "tegum.kept";
/// Key under which a merged part says, as JSON, which of its rows were published together, and with what beside them.
const SEGMENTS_KEY: &str = "tegum.segments";
/// Key under which a merged part lists the names of the parts whose rows it holds, one a line.
const SOURCES_KEY: &str = "tegum.sources";
/// Key of the format, absent in the first.
const FORMAT_KEY: &str = "tegum.format";
/// Larger than any chunk, so that a part has one row group and one page order.
const ROW_GROUP: usize = 1 << 20;

/// The folder of merged parts. Files are listed folder by folder in the order of the names, and this comes after all others: who
/// listed a folder after a part was merged away finds here what holds its rows now.
pub const MERGED: &str = "merged";

/// The format of plans and parts that this program writes. A file without a number is of the first; one with a larger number is
/// refused.
pub const FORMAT: u64 = 1;

/// What of a chunk, or of several, a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    Chunk,
    /// The run was stopped, or a part of the chunk was there already: a subset of the chunk's cells.
    Partial,
    /// Rows of several parts; `chunk` is the first of theirs.
    Merged,
}

/// What a part's file name says: `c00000017-<hash>.parquet`, `c00000017.p-<hash>.parquet` for a part of a chunk, or
/// `m00000017-<hash>.parquet` for several parts in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    pub chunk: u64,
    pub extent: Extent,
    /// First 32 hexadecimal digits of BLAKE3 over the file.
    pub hash: String,
}

impl PartName {
    pub fn of(chunk: u64, partial: bool, bytes: &[u8]) -> Self {
        PartName { chunk, extent: if partial { Extent::Partial } else { Extent::Chunk }, hash: short_hash(bytes) }
    }

    /// The name of several parts in one.
    pub fn merged(chunk: u64, bytes: &[u8]) -> Self {
        PartName { chunk, extent: Extent::Merged, hash: short_hash(bytes) }
    }

    /// Whether these are the bytes that the name promises.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.hash == short_hash(bytes)
    }

    /// The folder that the file belongs into.
    pub fn folder(&self) -> String {
        if self.extent == Extent::Merged { MERGED.to_string() } else { folder_of(self.chunk) }
    }

    pub fn file_name(&self, extension: &str) -> String {
        let (letter, mark) = match self.extent {
            Extent::Chunk => ('c', ""),
            Extent::Partial => ('c', ".p"),
            Extent::Merged => ('m', ""),
        };
        format!("{letter}{:08}{mark}-{}.{extension}", self.chunk, self.hash)
    }

    /// Reads a file name; `None` where it is not one of the store's.
    pub fn parse(name: &str, extension: &str) -> Option<Self> {
        let stem = name.strip_prefix(['c', 'm'])?.strip_suffix(extension)?.strip_suffix('.')?;
        let (number, hash) = stem.split_once('-')?;
        let (digits, extent) = match number.strip_suffix(".p") {
            Some(digits) => (digits, Extent::Partial),
            None if name.starts_with('m') => (number, Extent::Merged),
            None => (number, Extent::Chunk),
        };
        let parsed = PartName { chunk: digits.parse().ok()?, extent, hash: hash.to_string() };
        // Written back it must be the same name: no signs, no missing zeros, no capitals.
        (hash.len() == 32 && parsed.file_name(extension) == name).then_some(parsed)
    }
}

/// The folder of a chunk's files: two hexadecimal digits of the hash of its number, so that no folder grows too large.
pub fn folder_of(chunk: u64) -> String {
    blake3::hash(&chunk.to_le_bytes()).to_hex()[..2].to_string()
}

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

/// Why a file is not a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// In words.
    Damaged(String),
    /// Written by a later version, in a format that this one does not know.
    Newer(u64),
}

impl From<String> for Unfit {
    fn from(reason: String) -> Self {
        Unfit::Damaged(reason)
    }
}

impl From<&str> for Unfit {
    fn from(reason: &str) -> Self {
        Unfit::Damaged(reason.into())
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Unfit::Damaged(reason) => f.write_str(reason),
            Unfit::Newer(format) => write!(f, "it is of format {format}; this version knows formats up to {FORMAT}"),
        }
    }
}

impl Unfit {
    /// As an error that ends a command.
    pub fn at(self, path: &Path) -> StoreError {
        let path = path.to_path_buf();
        match self {
            Unfit::Damaged(reason) => StoreError::Damaged { path, reason },
            Unfit::Newer(format) => StoreError::Newer { path, format, writer: None },
        }
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
    frame: &mut DataFrame,
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
    frame: &mut DataFrame,
) -> Result<Vec<u8>, StoreError> {
    let segments = serde_json::to_string(segments).expect("texts and whole numbers are JSON");
    encode_with(chunk, vec![(SEGMENTS_KEY, segments), (SOURCES_KEY, sources.join("\n"))], frame)
}

/// The bytes of a side table.
///
/// # Errors
/// The table library's own.
pub fn encode(chunk: u64, frame: &mut DataFrame) -> Result<Vec<u8>, StoreError> {
    encode_with(chunk, vec![], frame)
}

fn encode_with(chunk: u64, beside: Vec<(&str, String)>, frame: &mut DataFrame) -> Result<Vec<u8>, StoreError> {
    let entries = [(CHUNK_KEY, chunk.to_string())].into_iter().chain(beside);
    let metadata = KeyValueMetadata::from_static(entries.map(|(key, value)| (key.to_string(), value)).collect());
    parquet(frame, Some(metadata)).map_err(|error| StoreError::Encoding {
        action: "encode",
        chunk,
        reason: error.to_string(),
    })
}

/// Parquet bytes of a table, the same for the same table.
///
/// # Errors
/// The table library's own.
pub fn parquet(
    frame: &mut DataFrame,
    metadata: Option<KeyValueMetadata>,
) -> Result<Vec<u8>, polars::error::PolarsError> {
    // The layout in memory (how many chunks a column has) would show in the pages.
    frame.rechunk_mut();
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        .with_compression(ParquetCompression::Zstd(None))
        .with_statistics(StatisticsOptions::default())
        .with_row_group_size(Some(ROW_GROUP))
        .set_parallel(false)
        .with_key_value_metadata(metadata)
        .finish(frame)?;
    Ok(bytes)
}

/// Reads a part or a side table whose bytes were compared with its name's hash. `columns`: those to read, all by default.
///
/// # Errors
/// Not Parquet, not a table of the store, another chunk's, or of a later format.
pub fn decode(name: &PartName, bytes: Vec<u8>, columns: Option<&[&str]>) -> Result<Part, Unfit> {
    // A decoder may panic on bytes it did not expect; a file written by somebody else must not end the run.
    let read = catch_unwind(AssertUnwindSafe(|| read_parquet(bytes, columns)));
    let part = read.map_err(|_| "the Parquet reader gave up on it")??;
    if part.chunk != name.chunk {
        return Err(format!("it holds chunk {}, not the {} of its name", part.chunk, name.chunk).into());
    }
    let rows = part.segments.iter().try_fold(0usize, |sum, segment| sum.checked_add(segment.rows));
    if rows != Some(part.frame.height()) {
        return Err("its list of segments is not that of its rows".into());
    }
    Ok(part)
}

/// As [`decode`], and it must be a table of rows.
///
/// # Errors
/// As [`decode`], and columns that are missing or of other types than rows have.
pub fn decode_rows(name: &PartName, bytes: Vec<u8>, columns: Option<&[&str]>) -> Result<Part, Unfit> {
    let part = decode(name, bytes, columns)?;
    for (name, dtype) in layout(&Schema::default()) {
        match part.columns.iter().find(|(known, _)| *known == name) {
            None => return Err(format!("it has no column `{name}`").into()),
            Some((_, found)) if *found != dtype => {
                return Err(format!("its column `{name}` is of type {found}, and not {dtype}").into());
            }
            Some(_) => {}
        }
    }
    let known = [Kind::Bool, Kind::Int, Kind::Float, Kind::Text].map(dtype);
    match part.columns.iter().find(|(_, dtype)| !known.contains(dtype)) {
        Some((name, dtype)) => Err(format!("its column `{name}` is of type {dtype}, which no row has").into()),
        None => Ok(part),
    }
}

fn read_parquet(bytes: Vec<u8>, columns: Option<&[&str]>) -> Result<Part, Unfit> {
    let in_words = |error: polars::error::PolarsError| error.to_string();
    let size = bytes.len();
    let mut reader = ParquetReader::new(Cursor::new(bytes)).read_parallel(ParallelStrategy::None);
    let metadata = reader.get_metadata().map_err(in_words)?.clone();
    refuse_unreasonable(&metadata, size)?;
    let entry = |key: &str| {
        let entries = metadata.key_value_metadata.as_deref().unwrap_or_default();
        entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.clone())
    };
    if let Some(format) = entry(FORMAT_KEY).and_then(|text| text.parse().ok()).filter(|format| *format > FORMAT) {
        return Err(Unfit::Newer(format));
    }
    let chunk = entry(CHUNK_KEY).and_then(|text| text.parse().ok()).ok_or("it carries no chunk number")?;
    let lines = |key| entry(key).unwrap_or_default().lines().map(str::to_string).collect::<Vec<_>>();
    let schema = reader.schema().map_err(in_words)?;
    let all = schema.iter().map(|(name, field)| (name.to_string(), DataType::from_arrow_field(field))).collect();
    let wanted = columns.map(|names| names.iter().map(|name| name.to_string()).collect());
    let frame = reader.with_columns(wanted).finish().map_err(in_words)?;
    let segments = match entry(SEGMENTS_KEY) {
        Some(text) => serde_json::from_str(&text).map_err(|error| format!("its list of segments: {error}"))?,
        None => {
            let (companions, kept) = (lines(COMPANIONS_KEY), lines(KEPT_KEY));
            vec![Segment { rows: frame.height(), companions, kept }]
        }
    };
    Ok(Part { chunk, segments, sources: lines(SOURCES_KEY), columns: all, frame })
}

/// Row groups of a file; more than any table of the store has.
const MOST_GROUPS: usize = 4096;
/// Columns of a file.
const MOST_COLUMNS: usize = 16 << 10;
/// Rows for each byte of a file, which no table of the store comes near to.
const MOST_ROWS_PER_BYTE: usize = 4096;
/// Bytes of all columns, unpacked, for each byte of a file.
const MOST_UNPACKED: usize = 64 << 10;

/// Compares what a file claims of itself with its size, before anything is made room for.
fn refuse_unreasonable(metadata: &FileMetadata, size: usize) -> Result<(), Unfit> {
    let (groups, columns) = (metadata.row_groups.len(), metadata.schema_descr.columns().len());
    if groups > MOST_GROUPS || columns > MOST_COLUMNS {
        return Err(format!("it claims {groups} row groups of {columns} columns").into());
    }
    let in_groups = metadata.row_groups.iter().try_fold(0usize, |sum, group| sum.checked_add(group.num_rows()));
    if in_groups != Some(metadata.num_rows) || metadata.num_rows > size.saturating_mul(MOST_ROWS_PER_BYTE) {
        return Err(format!("it claims {} rows in {size} bytes", metadata.num_rows).into());
    }
    let chunks = || metadata.row_groups.iter().flat_map(|group| group.parquet_columns());
    let mut unpacked = chunks().map(|chunk| u64::try_from(chunk.uncompressed_size()).ok());
    let unpacked = unpacked.try_fold(0u64, |sum, size| sum.checked_add(size?));
    match unpacked {
        Some(bytes) if bytes <= size.saturating_mul(MOST_UNPACKED) as u64 => Ok(()),
        _ => Err(format!("it claims to hold more than {MOST_UNPACKED} times its {size} bytes").into()),
    }
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
    let texts = |text: &dyn Fn(&Row) -> Option<String>| order.iter().map(|row| text(row)).collect::<Vec<_>>();
    let mut columns = vec![
        Series::new("cell".into(), texts(&|row| Some(row.cell.to_string()))),
        Series::new("plan_index".into(), integers(&order, "plan_index", |row| Some(row.plan_index))?),
        Series::new("experiment".into(), texts(&|_| Some(experiment.to_string()))),
    ];
    for (at, axis) in schema.axes.iter().enumerate() {
        columns.push(series(axis, &order.iter().map(|row| (row.cell, &row.axes[at])).collect::<Vec<_>>())?);
    }
    columns.push(Series::new("seed".into(), integers(&order, "seed", |row| Some(row.seed))?));
    columns.push(Series::new("method".into(), texts(&|row| row.method.clone())));
    columns.push(Series::new("status".into(), texts(&|row| Some(row.status.as_str().to_string()))));
    columns.push(Series::new("detail".into(), texts(&|row| row.detail.clone())));
    for (at, score) in schema.scores.iter().enumerate() {
        columns.push(series(score, &order.iter().map(|row| (row.cell, &row.scores[at])).collect::<Vec<_>>())?);
    }
    columns.push(Series::new("steps_done".into(), integers(&order, "steps_done", |row| row.steps_done)?));
    columns.push(Series::new("algo_version".into(), texts(&|row| Some(row.algo_version.clone()))));
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

fn integers(rows: &[&Row], name: &str, number: impl Fn(&Row) -> Option<u64>) -> Result<Vec<Option<i64>>, StoreError> {
    let convert = |row: &&Row| match number(row) {
        None => Ok(None),
        Some(large) => i64::try_from(large).map(Some).map_err(|_| StoreError::WrongShape {
            reason: format!("cell {}: {name} {large} is past 2^63 - 1, the largest a table can hold", row.cell),
        }),
    };
    rows.iter().map(convert).collect()
}

/// One axis or score as a typed column, from each cell's value.
pub(super) fn series(column: &Column, values: &[(CellId, &Value)]) -> Result<Series, StoreError> {
    let mismatch = |cell: &CellId, found: &Value| StoreError::WrongShape {
        reason: format!("cell {cell}: column `{}` is {:?} and cannot hold {found:?}", column.name, column.kind),
    };
    let name: PlSmallStr = column.name.as_str().into();
    Ok(match column.kind {
        Kind::Bool => {
            let read = |(cell, found): &(CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Bool(flag) => Ok(Some(*flag)),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name, values.iter().map(read).collect::<Result<Vec<_>, _>>()?)
        }
        Kind::Int => {
            let read = |(cell, found): &(CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Int(number) => Ok(Some(*number)),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name, values.iter().map(read).collect::<Result<Vec<_>, _>>()?)
        }
        Kind::Float => {
            let read = |(cell, found): &(CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Float(number) if number.is_finite() => Ok(Some(*number)),
                Value::Float(number) => {
                    Err(StoreError::NotFinite { cell: *cell, column: column.name.clone(), value: *number })
                }
                // An axis such as [1, 0.5] is one of floats; below 2^53 the conversion is exact.
                Value::Int(number) if number.unsigned_abs() <= 1 << 53 => Ok(Some(*number as f64)),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name, values.iter().map(read).collect::<Result<Vec<_>, _>>()?)
        }
        Kind::Text => {
            let read = |(cell, found): &(CellId, &Value)| match found {
                Value::Null => Ok(None),
                Value::Text(text) => Ok(Some(text.clone())),
                other => Err(mismatch(cell, other)),
            };
            Series::new(name, values.iter().map(read).collect::<Result<Vec<Option<String>>, _>>()?)
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
    use super::*;
    use crate::store::row::Status;
    use crate::store::testing::{ids, plan, row, schema, store_of};

    #[test]
    fn part_names_survive_their_text_form_and_nothing_else_is_one() {
        for partial in [false, true] {
            let name = PartName::of(17, partial, b"bytes");
            assert_eq!(PartName::parse(&name.file_name("parquet"), "parquet"), Some(name));
        }
        let merged = PartName::merged(17, b"bytes");
        assert_eq!(PartName::parse(&merged.file_name("parquet"), "parquet"), Some(merged));
        let hash = "0".repeat(32);
        for name in [
            format!("c17-{hash}.parquet"),
            format!("c00000017-{hash}.parque"),
            format!("c00000017-{}.parquet", &hash[1..]),
            format!("m00000017.p-{hash}.parquet"),
            format!("c+0000017-{hash}.parquet"),
            format!("c00000017.q-{hash}.parquet"),
            format!(".tmp-c00000017-{hash}.parquet"),
        ] {
            assert_eq!(PartName::parse(&name, "parquet"), None, "{name}");
        }
        assert!(PartName::parse(&format!("c123456789-{hash}.parquet"), "parquet").is_some());
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_in_any_order_and_memory_layout() {
        let rows: Vec<Row> = (0..50).map(row).collect();
        let mut whole = frame("test", &schema(), &rows).expect("rows fit");
        let bytes = encode(3, &mut whole).expect("encodes");
        let backwards: Vec<Row> = rows.iter().rev().cloned().collect();
        let mut again = frame("test", &schema(), &backwards).expect("rows fit");
        assert_eq!(encode(3, &mut again).expect("encodes"), bytes);
        let mut stacked = frame("test", &schema(), &rows[..20]).expect("rows fit");
        stacked.vstack_mut(&frame("test", &schema(), &rows[20..]).expect("rows fit")).expect("same columns");
        assert_eq!(encode(3, &mut stacked).expect("encodes"), bytes);
        assert_ne!(encode(4, &mut whole).expect("encodes"), bytes, "the chunk's number is part of it");
    }

    #[test]
    fn a_part_comes_back_as_it_was_written() {
        let mut rows: Vec<Row> = (0..7).map(row).collect();
        rows[3].status = Status::Degenerate;
        rows[3].detail = Some("no feature fired".into());
        rows[3].scores = vec![Value::Null; 4];
        rows[3].axes[0] = Value::Null;
        let mut table = frame("test", &schema(), &rows).expect("rows fit");
        let companions = vec!["features/ab/c".to_string(), "trace/ab/c".to_string()];
        let bytes = encode_rows(1, &companions, &["features".into()], &mut table).expect("encodes");
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
        let mut table = frame("test", &schema(), &[row(0)]).expect("rows fit");
        let bytes = encode(1, &mut table).expect("encodes");
        let renamed = PartName { chunk: 2, ..PartName::of(1, false, &bytes) };
        assert!(decode(&renamed, bytes, None).expect_err("chunk 1").to_string().contains("holds chunk 1"));
        let foreign = parquet(&mut table, None).expect("encodes");
        assert!(decode(&renamed, foreign, None).expect_err("no mark").to_string().contains("no chunk number"));
        assert!(decode(&renamed, b"PAR1 nonsense PAR1".to_vec(), None).is_err());
        assert!(decode(&renamed, Vec::new(), None).is_err());
    }

    /// The footer of a sound file with other claims: they are refused before anything is made room for.
    #[test]
    fn a_file_that_claims_more_than_its_bytes_can_hold_is_refused() {
        let mut table = frame("test", &schema(), &[row(0), row(1)]).expect("rows fit");
        let bytes = encode(1, &mut table).expect("encodes");
        let mut reader = ParquetReader::new(Cursor::new(bytes.clone()));
        let sound = reader.get_metadata().expect("a footer").as_ref().clone();
        assert_eq!(refuse_unreasonable(&sound, bytes.len()), Ok(()));
        let claims = |change: &dyn Fn(&mut FileMetadata)| {
            let mut claims = sound.clone();
            change(&mut claims);
            refuse_unreasonable(&claims, bytes.len()).expect_err("too much").to_string()
        };
        assert!(claims(&|file| file.num_rows = 1 << 40).contains("1099511627776 rows"));
        assert!(claims(&|file| file.num_rows = 1).contains("1 rows"), "not what its groups say");
        let many = |file: &mut FileMetadata| file.row_groups = vec![file.row_groups[0].clone(); MOST_GROUPS + 1];
        assert!(claims(&many).contains("4097 row groups"));
        assert!(refuse_unreasonable(&sound, 0).is_err());
    }

    #[test]
    fn a_part_of_a_later_format_is_neither_read_nor_damage() {
        let mut table = frame("test", &schema(), &[row(0)]).expect("rows fit");
        let bytes = encode_with(1, vec![(FORMAT_KEY, "2".into())], &mut table).expect("encodes");
        let name = PartName::of(1, true, &bytes);
        assert_eq!(decode(&name, bytes.clone(), None).expect_err("unknown"), Unfit::Newer(2));
        let (_folder, store) = store_of(&plan(4, 2));
        let path = store.dir().join("parts").join(name.folder()).join(name.file_name("parquet"));
        std::fs::write(&path, &bytes).expect("writable");
        for error in [store.scan().expect_err("unknown"), store.rows(&plan(4, 2), &ids(4)).expect_err("unknown")] {
            let text = error.to_string();
            assert!(error.exit_code() == 3 && text.contains("format 2") && text.contains("up to 1"), "{text}");
        }
        assert!(path.exists(), "it stays where it is");
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
        let mut table = frame("test", &schema(), &[row(0), row(1)]).expect("rows fit");
        let bytes = encode(1, &mut table).expect("encodes");
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
