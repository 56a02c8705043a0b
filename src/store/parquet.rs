//! A table as Parquet bytes, the same for the same table: one row group, no times, all settings fixed.
//!
//! The table library's own writer asks of every column how many distinct entries it has (a sketch of 16,384 registers over a hash of each
//! entry) and then makes a dictionary with a second hash of each. Most columns of a part are one word throughout or all different, which
//! the first rows tell: a column's dictionary is made in one pass that compares an entry with the one before, and gives up as soon as
//! too many are new. Levels, pages, statistics and the footer are the library's.

use std::hash::Hash;

use polars::error::PolarsResult;
use polars::polars_utils::compression::ZstdLevel;
use polars::prelude::{ArrowDataType, Column, CompatLevel, DataFrame, PlHashMap, SchemaExt, StatisticsOptions};
use polars_arrow::array::{ArrayRef, DictionaryArray, PrimitiveArray, Utf8ViewArray};
use polars_arrow::datatypes::IntegerType;
use polars_parquet::parquet::error::ParquetError;
use polars_parquet::write::{
    CompressedPage, CompressionOptions, Compressor, DynIter, DynStreamingIterator, Encoding, FallibleStreamingIterator,
    FileWriter, KeyValue, ParquetType, Version, WriteOptions, array_to_columns, get_dtype_encoding,
    schema_to_metadata_key,
};

/// The pages of one column.
type Pages = DynStreamingIterator<'static, CompressedPage, polars::error::PolarsError>;

/// Parquet bytes of a table. `beside`: entries of the footer, as key and text.
///
/// # Errors
/// The table library's own.
pub fn parquet(frame: &DataFrame, beside: &[(&str, String)]) -> PolarsResult<Vec<u8>> {
    let options = WriteOptions {
        // The longest texts that are told; else the environment says how long.
        statistics: StatisticsOptions { binary_statistics_truncate_length: Some(64), ..StatisticsOptions::default() },
        version: Version::V1,
        // Higher levels take half as long again for files that are no smaller: scores are numbers without a pattern.
        compression: CompressionOptions::Zstd(Some(ZstdLevel::try_new(1)?)),
        data_page_size: None,
    };
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, frame.schema().to_arrow(CompatLevel::newest()), options)?;
    if frame.height() > 0 {
        let fields = writer.parquet_schema().fields().to_vec();
        let mut columns = Vec::new();
        for (column, field) in frame.columns().iter().zip(fields) {
            columns.extend(pages(column, field, options)?.into_iter().map(Ok));
        }
        writer.write(frame.height() as u64, DynIter::new(columns.into_iter()))?;
    }
    let beside = beside.iter().map(|(key, text)| KeyValue { key: key.to_string(), value: Some(text.clone()) });
    let entries = [schema_to_metadata_key(writer.schema())].into_iter().chain(beside).collect();
    writer.end(Some(entries))?;
    Ok(bytes)
}

/// One for each leaf of the column.
fn pages(column: &Column, field: ParquetType, options: WriteOptions) -> PolarsResult<Vec<Pages>> {
    // How many pieces a column has in memory would show in the pages.
    let array = column.as_materialized_series().rechunk().to_arrow(0, CompatLevel::newest());
    // The library gives each page of keys the nulls of the whole column, and the footer their sum: there is one page.
    let keyed = WriteOptions { data_page_size: Some(usize::MAX), ..options };
    let (array, encodings, options) = match shortened(&array) {
        // One word throughout leaves nothing to pack.
        Some(short) if short.values().len() == 1 => {
            let compression = CompressionOptions::Uncompressed;
            (short.boxed(), vec![Encoding::RleDictionary], WriteOptions { compression, ..keyed })
        }
        Some(short) => (short.boxed(), vec![Encoding::RleDictionary], keyed),
        None if is_of_rows(array.dtype()) => (array, vec![Encoding::Plain], options),
        None => {
            let encodings = get_dtype_encoding(array.dtype());
            (array, encodings, keyed)
        }
    };
    let leaves = array_to_columns(array, field, options, &encodings)?;
    let packed = |leaf: DynIter<'static, PolarsResult<_>>| {
        let pages = leaf.map(|page| page.map_err(|error| ParquetError::OutOfSpec(error.to_string())));
        DynStreamingIterator::new(Compressor::new(pages, options.compression, vec![]).map_err(Into::into))
    };
    Ok(leaves.into_iter().map(packed).collect())
}

/// The types of rows and side tables that dictionaries are made of; truths, and what else a table from a query may hold, are left to the
/// library.
fn is_of_rows(dtype: &ArrowDataType) -> bool {
    matches!(dtype, ArrowDataType::Int64 | ArrowDataType::Float64 | ArrowDataType::Utf8View)
}

/// The column as keys into its distinct entries, if there are few.
fn shortened(array: &ArrayRef) -> Option<DictionaryArray<u32>> {
    let any = array.as_any();
    if let Some(floats) = any.downcast_ref::<PrimitiveArray<f64>>() {
        // By their bits: there are two zeros.
        let (keys, bits) = few(array.len(), floats.iter().map(|float| float.map(|float| float.to_bits())))?;
        dictionary(array, keys, PrimitiveArray::from_vec(bits.into_iter().map(f64::from_bits).collect()).boxed())
    } else if let Some(whole) = any.downcast_ref::<PrimitiveArray<i64>>().filter(|_| is_of_rows(array.dtype())) {
        let (keys, entries) = few(array.len(), whole.iter().map(|whole| whole.copied()))?;
        dictionary(array, keys, PrimitiveArray::from_vec(entries).boxed())
    } else if let Some(texts) = any.downcast_ref::<Utf8ViewArray>() {
        let (keys, entries) = few(array.len(), texts.iter())?;
        dictionary(array, keys, Utf8ViewArray::from_slice_values(entries).boxed())
    } else {
        None
    }
}

fn dictionary(array: &ArrayRef, keys: Vec<u32>, entries: ArrayRef) -> Option<DictionaryArray<u32>> {
    let dtype = ArrowDataType::Dictionary(IntegerType::UInt32, Box::new(array.dtype().clone()), false);
    let keys = PrimitiveArray::from_vec(keys).with_validity(array.validity().cloned());
    DictionaryArray::try_new(dtype, keys, entries).ok()
}

/// First rows of a column. If nearly all of them are new, the others are taken to be.
const PROBE: usize = 256;

/// For each row the place of its entry among the distinct ones (any for a null), and these in the order in which they come first. None
/// where more than half of all rows, or three quarters of the first [`PROBE`], are new: then keys and dictionary are hardly shorter than
/// the entries. None too where all are null, which takes no room either way.
fn few<T: Copy + Eq + Hash>(rows: usize, entries: impl Iterator<Item = Option<T>>) -> Option<(Vec<u32>, Vec<T>)> {
    let mut keys = Vec::with_capacity(rows);
    let mut distinct = Vec::new();
    let mut places = PlHashMap::default();
    let (mut before, mut key) = (None, 0);
    for entry in entries {
        if entry != before
            && let Some(other) = entry
        {
            key = *places.entry(other).or_insert_with(|| {
                distinct.push(other);
                distinct.len() as u32 - 1
            });
            if 2 * distinct.len() > rows || (keys.len() < PROBE && 4 * distinct.len() > 3 * PROBE) {
                return None;
            }
            before = entry;
        }
        keys.push(key);
    }
    (!distinct.is_empty()).then_some((keys, distinct))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use polars::prelude::{IntoColumn, NamedFrom, ParquetReader, SerReader, Series, df};

    use super::*;

    fn back(bytes: Vec<u8>) -> DataFrame {
        ParquetReader::new(Cursor::new(bytes)).finish().expect("reads")
    }

    /// Every pattern that the choice of a dictionary tells apart, at every size at which it decides.
    #[test]
    fn columns_of_every_pattern_come_back_as_they_were() {
        for rows in [0, 1, 2, 3, 4, 31, 32, 33, 255, 256, 257, 1000, 5000] {
            let patterns: [&dyn Fn(usize) -> Option<usize>; 8] = [
                &|_| Some(7),
                &|_| None,
                &Some,
                &|row| (row % 3 > 0).then_some(row),
                &|row| Some(row / 2),
                &|row| Some(row % 5),
                &|row| (row % 2 > 0).then_some(row % 300),
                // Nearly all new at first, then few.
                &|row| Some(row.min(254)),
            ];
            let mut columns = Vec::new();
            for (at, pattern) in patterns.iter().enumerate() {
                let entries: Vec<Option<usize>> = (0..rows).map(pattern).collect();
                let whole: Vec<Option<i64>> = entries.iter().map(|e| e.map(|e| e as i64 - 3)).collect();
                let floats: Vec<Option<f64>> = entries.iter().map(|e| e.map(|e| (e as f64).sin())).collect();
                let texts: Vec<Option<String>> =
                    entries.iter().map(|e| e.map(|e| format!("{e}{}", "x".repeat(e % 20)))).collect();
                let flags: Vec<Option<bool>> = entries.iter().map(|e| e.map(|e| e % 2 == 0)).collect();
                columns.push(Column::new(format!("i{at}").into(), whole));
                columns.push(Column::new(format!("f{at}").into(), floats));
                columns.push(Column::new(format!("t{at}").into(), texts));
                columns.push(Column::new(format!("b{at}").into(), flags));
            }
            let table = DataFrame::new(rows, columns).expect("columns of one length");
            let read = back(parquet(&table, &[]).expect("packs"));
            assert_eq!(read.schema(), table.schema());
            assert!(read.equals_missing(&table), "{rows} rows");
        }
    }

    #[test]
    fn both_zeros_and_every_nan_keep_their_bits() {
        let bits = [0.0f64.to_bits(), (-0.0f64).to_bits(), f64::NAN.to_bits(), f64::NAN.to_bits() | 1, 1];
        let floats: Vec<f64> = (0..50).map(|row| f64::from_bits(bits[row % 5])).collect();
        let table = df!["x" => floats].expect("a column");
        let read = back(parquet(&table, &[]).expect("packs"));
        let found = read.column("x").expect("there").f64().expect("floats");
        assert!(found.iter().enumerate().all(|(row, x)| x.map(f64::to_bits) == Some(bits[row % 5])));
    }

    /// A reader that looks for values passes over a column whose nulls are said to be all of its rows.
    #[test]
    fn the_footer_counts_the_nulls_of_columns_of_many_pages() {
        let rows = 500_000;
        let half = |row: usize| row.is_multiple_of(2).then_some(row % 7);
        let entries: Vec<Option<usize>> = (0..rows).map(half).collect();
        let columns = vec![
            Column::new("whole".into(), entries.iter().map(|e| e.map(|e| e as i64)).collect::<Vec<_>>()),
            Column::new("narrow".into(), entries.iter().map(|e| e.map(|e| e as u32)).collect::<Vec<_>>()),
            Column::new("text".into(), entries.iter().map(|e| e.map(|e| e.to_string())).collect::<Vec<_>>()),
            Column::new("plain".into(), (0..rows).map(|row| half(row).map(|_| row as f64)).collect::<Vec<_>>()),
        ];
        let table = DataFrame::new(rows, columns).expect("columns of one length");
        let bytes = parquet(&table, &[]).expect("packs");
        let metadata = ParquetReader::new(Cursor::new(&bytes)).get_metadata().expect("a footer").clone();
        for column in metadata.row_groups[0].parquet_columns() {
            let nulls =
                column.statistics(&metadata.footer_buf).expect("there are some").expect("readable").null_count();
            assert_eq!(nulls, Some(rows as i64 / 2), "{}", column.descriptor().path_in_schema[0]);
        }
        assert!(back(bytes).equals_missing(&table));
    }

    #[test]
    fn what_rows_never_hold_is_written_too() {
        let list = Series::new("list".into(), [Series::new("".into(), [1i32, 2]), Series::new("".into(), [3i32])]);
        let narrow = Series::new("narrow".into(), [1u32, 2]);
        let table = DataFrame::new(2, vec![list.into_column(), narrow.into_column()]).expect("two columns");
        assert!(back(parquet(&table, &[]).expect("packs")).equals(&table));
    }

    #[test]
    fn a_dictionary_is_made_where_entries_come_again_and_given_up_early_elsewhere() {
        let made = |entries: Vec<usize>| few(entries.len(), entries.into_iter().map(Some)).map(|(_, all)| all.len());
        assert_eq!(made(vec![7; 1000]), Some(1));
        assert_eq!(made((0..1000).map(|row| row / 2).collect()), Some(500));
        assert_eq!(made((0..1000).map(|row| row / 2 + row % 2 * 5000).collect()), None, "all are new");
        assert_eq!(made((0..PROBE * 8).map(|row| row % PROBE).collect()), None, "the first rows are all new");
        assert_eq!(made((0..PROBE * 8).map(|row| row % (PROBE / 2)).collect()), Some(PROBE / 2));
        let mut asked = 0;
        let counted = (0..100_000usize).map(|row| {
            asked += 1;
            Some(row)
        });
        assert!(few(100_000, counted).is_none());
        assert!(asked < PROBE);
        assert_eq!(few(4, [None, Some(5), None, Some(5)].into_iter()), Some((vec![0; 4], vec![5])));
        assert_eq!(few(4, [None::<u8>; 4].into_iter()), None);
    }
}
