//! From data frames to plain columns: the one file here that knows polars.

use polars::prelude::{Column as FrameColumn, DataFrame, DataType, IntoLazy};
use polars::sql::SQLContext;

use super::data::{Column, Table};
use super::error::FigureError;

/// The rows for which an SQL expression holds; all of them without one.
pub fn filtered(rows: &DataFrame, filter: Option<&str>) -> Result<DataFrame, FigureError> {
    let Some(filter) = filter else { return Ok(rows.clone()) };
    let mut sql = SQLContext::new();
    sql.register("rows", rows.clone().lazy());
    sql.execute(&format!("SELECT * FROM rows WHERE ({filter})"))
        .and_then(|lazy| lazy.collect())
        .map_err(|error| FigureError::BadFilter { filter: filter.to_owned(), why: error.to_string() })
}

/// The columns of these names that the frame has, as numbers or text; the rest is known by name only.
pub fn table(frame: &DataFrame, wanted: &[String]) -> Result<Table, FigureError> {
    let names: Vec<String> = frame.columns().iter().map(|column| column.name().to_string()).collect();
    let mut columns: Vec<(String, Column)> = Vec::new();
    for column in frame.columns() {
        let name = column.name().as_str();
        if wanted.iter().any(|known| known == name) {
            columns.push((name.to_owned(), plain(column)?));
        }
    }
    Ok(Table { height: frame.height(), names, columns })
}

fn plain(column: &FrameColumn) -> Result<Column, FigureError> {
    let unreadable =
        |why: String| FigureError::Unreadable { column: column.name().to_string(), why };
    let cast = |to: &DataType| column.cast(to).map_err(|error| unreadable(error.to_string()));
    match column.dtype() {
        kind if kind.is_primitive_numeric() => {
            let numbers = cast(&DataType::Float64)?;
            let numbers = numbers.f64().map_err(|error| unreadable(error.to_string()))?;
            Ok(Column::Number(numbers.iter().map(|number| number.filter(|number| number.is_finite())).collect()))
        }
        DataType::Null => Ok(Column::Number(vec![None; column.len()])),
        _ => {
            let words = cast(&DataType::String)?;
            let words = words.str().map_err(|error| unreadable(error.to_string()))?;
            Ok(Column::Text(words.iter().map(|word| word.map(str::to_owned)).collect()))
        }
    }
}
