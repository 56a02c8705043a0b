//! The way back from a file to a table: nothing is believed that its size or its columns speak against.

use std::fmt;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use polars::prelude::{DataType, FileMetadata, ParallelStrategy, ParquetReader, SerReader};
use polars_parquet::parquet::page::CompressedPage;
use polars_parquet::parquet::read::PageReader;

use super::error::StoreError;
use super::part::{
    CHUNK_KEY, COMPANIONS_KEY, FORMAT, FORMAT_KEY, KEPT_KEY, Part, PartName, SEGMENTS_KEY, SOURCES_KEY, Segment, dtype,
    layout,
};
use super::row::{Kind, Schema};

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
    let mut reader = ParquetReader::new(Cursor::new(&bytes));
    let metadata = reader.get_metadata().map_err(in_words)?.clone();
    refuse_unreasonable(&metadata, bytes.len())?;
    refuse_unreasonable_pages(&metadata, &bytes)?;
    let mut reader = ParquetReader::new(Cursor::new(bytes)).read_parallel(ParallelStrategy::None);
    reader.set_metadata(metadata.clone());
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

/// Compares what each page claims to hold with the rows of its group. The decoder makes room for as many values as a page's header says, and
/// a number below zero is a very large one to it.
fn refuse_unreasonable_pages(metadata: &FileMetadata, bytes: &[u8]) -> Result<(), Unfit> {
    for group in &metadata.row_groups {
        for column in group.parquet_columns() {
            let range = column.byte_range();
            let own = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let own = own.and_then(|(start, end)| bytes.get(start..end)).ok_or("a column lies outside of the file")?;
            for page in PageReader::new(Cursor::new(own.to_vec().into()), column, vec![], own.len()) {
                let values = match page.map_err(|error| error.to_string())? {
                    CompressedPage::Data(page) => page.num_values(),
                    CompressedPage::Dict(_) => 0,
                };
                if values > group.num_rows() {
                    return Err(format!("a page claims {values} values of {} rows", group.num_rows()).into());
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::part::{encode, encode_with, frame};
    use crate::store::testing::{ids, place_of, plan, row, schema, store_of};

    /// The footer of a sound file with other claims: they are refused before anything is made room for.
    #[test]
    fn a_file_that_claims_more_than_its_bytes_can_hold_is_refused() {
        let table = frame("test", &schema(), &[row(0), row(1)]).expect("rows fit");
        let bytes = encode(1, &table).expect("encodes");
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

    /// Under the hash of the changed bytes, so that it is not the hash that refuses them. What asks for more memory than there is ends the
    /// program: there is nothing to catch then.
    #[test]
    fn no_flipped_bit_makes_the_reader_ask_for_more_memory_than_there_is() {
        let bytes =
            encode(1, &frame("test", &schema(), &[row(0), row(1), row(2)]).expect("rows fit")).expect("encodes");
        let (mut sound, mut refused) = (0, 0);
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            match decode(&PartName::of(1, false, &flipped), flipped, None) {
                Ok(_) => sound += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(sound > 0 && refused > bytes.len(), "{sound} and {refused} of {} bytes", bytes.len());
    }

    #[test]
    fn a_part_of_a_later_format_is_neither_read_nor_damage() {
        let table = frame("test", &schema(), &[row(0)]).expect("rows fit");
        let bytes = encode_with(1, vec![(FORMAT_KEY, "2".into())], &table).expect("encodes");
        let name = PartName::of(1, true, &bytes);
        assert_eq!(decode(&name, bytes.clone(), None).expect_err("unknown"), Unfit::Newer(2));
        let (_folder, store) = store_of(&plan(4, 2));
        let path = place_of(&store, &name);
        std::fs::write(&path, &bytes).expect("writable");
        for error in [store.scan().expect_err("unknown"), store.rows(&plan(4, 2), &ids(4)).expect_err("unknown")] {
            let text = error.to_string();
            assert!(error.exit_code() == 3 && text.contains("format 2") && text.contains("up to 1"), "{text}");
        }
        assert!(path.exists(), "it stays where it is");
    }
}
