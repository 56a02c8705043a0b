//! A table as text, CSV, JSON or Parquet.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::str::FromStr;

use polars::prelude::{AnyValue, DataFrame, DataType};

use super::query::QueryError;
use crate::store::parquet;

/// Digits of a number in a text table; the other formats keep all.
const DIGITS: usize = 4;

/// How a table is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people, numbers to four significant digits.
    #[default]
    Text,
    /// RFC 4180, every digit; text that a spreadsheet would take for a formula gets a leading `'`.
    Csv,
    /// An array of objects, every digit, one object a line.
    Json,
    Parquet,
}

impl Format {
    /// What the ending of a file's name says, in either case.
    pub fn of_file(path: &Path) -> Option<Format> {
        match &path.extension()?.to_str()?.to_ascii_lowercase()[..] {
            "txt" => Some(Format::Text),
            name => name.parse().ok(),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Format::Text),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            "parquet" => Ok(Format::Parquet),
            other => Err(format!("`{other}` is none of text, csv, json and parquet")),
        }
    }
}

/// The bytes of a table in a format.
///
/// # Errors
/// Parquet of a type that it cannot hold.
pub fn render(frame: &DataFrame, format: Format) -> Result<Vec<u8>, QueryError> {
    match format {
        Format::Text => Ok(text(frame).into_bytes()),
        Format::Csv => Ok(csv(frame).into_bytes()),
        Format::Json => Ok(json(frame).into_bytes()),
        Format::Parquet => parquet(frame, &[])
            .map_err(|error| QueryError::Failed { action: "write Parquet", reason: error.to_string() }),
    }
}

/// Writes bytes to a file, or to stdout where none is given. A reader of stdout that has seen enough is no error.
///
/// # Errors
/// What the file system refuses.
pub fn deliver(bytes: &[u8], file: Option<&Path>) -> io::Result<()> {
    match file {
        Some(path) => std::fs::write(path, bytes),
        None => match io::stdout().lock().write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        },
    }
}

/// A number to four significant digits, without trailing zeros: `0.02154`, `12.5`, `1.2e-7`, `100000`.
pub fn short(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return if number == 0.0 { "0".into() } else { number.to_string() };
    }
    let rounded = format!("{number:.*e}", DIGITS - 1);
    let (mantissa, exponent) = rounded.split_once('e').expect("scientific notation has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    if (-4..6).contains(&exponent) {
        let decimals = (DIGITS as i32 - 1 - exponent).max(0) as usize;
        trim_zeros(&format!("{number:.decimals$}")).to_string()
    } else {
        format!("{}e{exponent}", trim_zeros(mantissa))
    }
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// Escapes control characters: text may come from a file, and a terminal obeys some of them.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

fn cell_text(value: &AnyValue) -> String {
    match value {
        AnyValue::Null => "-".into(),
        AnyValue::Float64(number) => short(*number),
        AnyValue::Float32(number) => short(f64::from(*number)),
        AnyValue::String(text) => printable(text),
        AnyValue::StringOwned(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

fn is_right_aligned(dtype: &DataType) -> bool {
    dtype.is_primitive_numeric()
}

/// Aligned columns under their names; numbers to the right, text to the left, null as `-`.
fn text(frame: &DataFrame) -> String {
    let columns: Vec<Vec<String>> = frame
        .columns()
        .iter()
        .map(|column| {
            let mut cells = vec![printable(column.name())];
            cells.extend((0..frame.height()).map(|row| cell_text(&column.get(row).unwrap_or(AnyValue::Null))));
            cells
        })
        .collect();
    let right: Vec<bool> = frame.columns().iter().map(|column| is_right_aligned(column.dtype())).collect();
    aligned(&columns, &right)
}

/// Columns of equal length side by side, two spaces apart, without spaces at the ends of lines.
pub(super) fn aligned(columns: &[Vec<String>], right: &[bool]) -> String {
    let width = |cells: &Vec<String>| cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let mut out = String::new();
    for row in 0..columns.first().map_or(0, Vec::len) {
        let mut line = String::new();
        for ((cells, width), right) in columns.iter().zip(&widths).zip(right) {
            let cell = &cells[row];
            let gap = " ".repeat(width - cell.chars().count());
            let (before, after) = if *right { (gap.as_str(), "") } else { ("", gap.as_str()) };
            // Writing to a String cannot fail.
            let _ = write!(line, "{before}{cell}{after}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn csv(frame: &DataFrame) -> String {
    let names: Vec<String> = frame.columns().iter().map(|column| csv_text(column.name())).collect();
    let mut out = names.join(",");
    out.push('\n');
    for row in 0..frame.height() {
        let cells: Vec<String> = frame
            .columns()
            .iter()
            .map(|column| match column.get(row).unwrap_or(AnyValue::Null) {
                AnyValue::Null => String::new(),
                AnyValue::Float64(number) => format!("{number:?}"),
                AnyValue::Float32(number) => format!("{number:?}"),
                AnyValue::String(text) => csv_text(text),
                AnyValue::StringOwned(text) => csv_text(&text),
                other => csv_plain(&other.to_string()),
            })
            .collect();
        out.push_str(&cells.join(","));
        out.push('\n');
    }
    out
}

/// Text as a field; what a spreadsheet would run as a formula is defused.
fn csv_text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { csv_plain(&format!("'{text}")) } else { csv_plain(text) }
}

fn csv_plain(text: &str) -> String {
    // An empty text is quoted so that it is not read back as null.
    if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

fn json(frame: &DataFrame) -> String {
    let rows: Vec<String> = (0..frame.height())
        .map(|row| {
            let entry = |column: &polars::prelude::Column| {
                let value = column.get(row).unwrap_or(AnyValue::Null);
                format!("{}:{}", quoted(column.name()), json_value(&value))
            };
            format!("{{{}}}", frame.columns().iter().map(entry).collect::<Vec<_>>().join(","))
        })
        .collect();
    if rows.is_empty() { "[]\n".into() } else { format!("[\n{}\n]\n", rows.join(",\n")) }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Floats in their shortest form that reads back to the same bits; JSON has no word for NaN, so that is null.
fn json_value(value: &AnyValue) -> String {
    let number = |number: f64| serde_json::Value::from(number).to_string();
    match value {
        AnyValue::Null => "null".into(),
        AnyValue::Boolean(flag) => flag.to_string(),
        AnyValue::Float64(value) => number(*value),
        AnyValue::Float32(value) => number(f64::from(*value)),
        AnyValue::String(text) => quoted(text),
        other if other.is_integer() => other.to_string(),
        AnyValue::StringOwned(text) => quoted(text),
        other => quoted(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::{ParquetReader, SerReader, df};

    fn table() -> DataFrame {
        df![
            "toy.d_hidden" => [5i64, 20],
            "mcc" => [Some(0.1 + 0.2), None],
            "method" => [Some("topk"), Some("=cmd|'x', \"y\"")],
            "ok" => [true, false],
        ]
        .expect("four columns")
    }

    fn rendered(format: Format) -> String {
        String::from_utf8(render(&table(), format).expect("renders")).expect("text")
    }

    #[test]
    fn numbers_for_people_have_four_digits_and_no_trailing_zeros() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (0.5, "0.5"),
            (0.021544346900318832, "0.02154"),
            (0.99996, "1"),
            (9.9999, "10"),
            (-12.3456, "-12.35"),
            (123456.7, "123457"),
            (1234567.0, "1.235e6"),
            (0.00012345, "0.0001234"),
            (0.000012345, "1.234e-5"),
            (1e-7, "1e-7"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(short(number), text, "{number:?}");
        }
    }

    #[test]
    fn text_tables_are_aligned_and_whole() {
        let expected = "toy.d_hidden  mcc  method         ok\n           5  0.3  topk           true\n          20    -  =cmd|'x', \"y\"  false\n";
        assert_eq!(rendered(Format::Text), expected);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let table = df!["detail" => ["a\u{1b}[31m\nb"]].expect("one column");
        let text = String::from_utf8(render(&table, Format::Text).expect("renders")).expect("text");
        assert_eq!(text, "detail\na\\u{1b}[31m\\nb\n");
    }

    #[test]
    fn csv_keeps_every_digit_and_defuses_formulas() {
        let expected =
            "toy.d_hidden,mcc,method,ok\n5,0.30000000000000004,topk,true\n20,,\"'=cmd|'x', \"\"y\"\"\",false\n";
        assert_eq!(rendered(Format::Csv), expected);
    }

    #[test]
    fn json_reads_back_to_the_same_bits() {
        let text = rendered(Format::Json);
        assert!(text.contains("\"mcc\":0.30000000000000004,"), "{text}");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(rows[0]["toy.d_hidden"], 5);
        assert_eq!(rows[1]["mcc"], serde_json::Value::Null);
        assert_eq!(rows[1]["method"], "=cmd|'x', \"y\"");
        assert_eq!(rows[1]["ok"], false);
        let empty = render(&table().slice(0, 0), Format::Json).expect("renders");
        assert_eq!(empty, b"[]\n");
    }

    #[test]
    fn json_floats_round_trip_for_awkward_numbers() {
        for number in [5e-324, f64::MAX, 1.0 / 3.0, -0.0, 1e22, 123456789012345680.0] {
            let text = json_value(&AnyValue::Float64(number));
            assert_eq!(text.parse::<f64>().expect("a number").to_bits(), number.to_bits(), "{text}");
        }
        assert_eq!(json_value(&AnyValue::Float64(f64::NAN)), "null");
    }

    #[test]
    fn parquet_reads_back_equal() {
        let bytes = render(&table(), Format::Parquet).expect("renders");
        let back = ParquetReader::new(io::Cursor::new(bytes)).finish().expect("reads");
        assert!(back.equals_missing(&table()));
    }

    #[test]
    fn format_names_are_those_of_the_command_line() {
        for (name, format) in
            [("text", Format::Text), ("csv", Format::Csv), ("json", Format::Json), ("parquet", Format::Parquet)]
        {
            assert_eq!(name.parse(), Ok(format));
        }
        assert!("yaml".parse::<Format>().expect_err("unknown").contains("`yaml`"));
    }

    #[test]
    fn the_ending_of_a_file_says_its_format() {
        for (file, format) in [
            ("rows.csv", Some(Format::Csv)),
            ("a.b/rows.JSON", Some(Format::Json)),
            ("rows.v2.parquet", Some(Format::Parquet)),
            ("rows.txt", Some(Format::Text)),
            ("rows.tsv", None),
            ("csv", None),
        ] {
            assert_eq!(Format::of_file(Path::new(file)), format, "{file}");
        }
    }

    #[test]
    fn a_table_is_delivered_to_a_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("rows.csv");
        deliver(b"a\n1\n", Some(&path)).expect("writes");
        assert_eq!(std::fs::read(&path).expect("readable"), b"a\n1\n");
        assert!(deliver(b"", Some(&folder.path().join("absent/rows.csv"))).is_err());
    }
}
