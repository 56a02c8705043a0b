//! From data frames to plain columns: the one file here that knows polars.

use polars::prelude::{Column as FrameColumn, DataFrame, DataType, IntoLazy};
use polars::sql::SQLContext;

use super::data::{Column, Table};
use super::error::FigureError;
use super::spec::is_expression;
use crate::table::quote_dotted;

/// The rows for which an SQL expression holds; all of them without one.
pub fn filtered(rows: &DataFrame, filter: Option<&str>) -> Result<DataFrame, FigureError> {
    let Some(filter) = filter else { return Ok(rows.clone()) };
    let wrong = |why: String| FigureError::BadFilter { filter: filter.to_owned(), why };
    let condition = quoted(rows, filter).map_err(wrong)?;
    let mut sql = SQLContext::new();
    sql.register("rows", rows.clone().lazy());
    sql.execute(&format!("SELECT * FROM rows WHERE ({condition})"))
        .and_then(|lazy| lazy.collect())
        .map_err(|error| wrong(error.to_string()))
}

/// The expression with quotes around names with dots, as everywhere in an experiment.
fn quoted(rows: &DataFrame, expression: &str) -> Result<String, String> {
    let names: Vec<&str> = rows.columns().iter().map(|column| column.name().as_str()).collect();
    quote_dotted(expression, &names, false).map_err(|error| error.to_string())
}

/// The columns of these names that the frame has, as numbers or text, and those that are SQL expressions over it,
/// evaluated; the rest is known by name only.
pub fn table(frame: &DataFrame, wanted: &[String]) -> Result<Table, FigureError> {
    let names: Vec<String> = frame.columns().iter().map(|column| column.name().to_string()).collect();
    let mut columns: Vec<(String, Column)> = Vec::new();
    for column in frame.columns() {
        let name = column.name().as_str();
        if wanted.iter().any(|known| known == name) {
            columns.push((name.to_owned(), plain(column)?));
        }
    }
    for expression in wanted.iter().filter(|name| is_expression(name) && !names.contains(name)) {
        columns.push((expression.clone(), plain(&evaluated(frame, expression)?)?));
    }
    Ok(Table { height: frame.height(), names, columns })
}

/// The value of an SQL expression for each row.
///
/// # Errors
/// It cannot be read, or it is one value for all rows.
pub fn evaluated(frame: &DataFrame, expression: &str) -> Result<FrameColumn, FigureError> {
    let wrong = |why: String| FigureError::BadExpression { expression: expression.to_owned(), why };
    let quoted = quoted(frame, expression).map_err(wrong)?;
    let mut sql = SQLContext::new();
    // A column of the frame beside it gives a constant the frame's height.
    sql.register("rows", frame.clone().lazy());
    let found = sql
        .execute(&format!("SELECT *, ({quoted}) AS \"value of the expression\" FROM rows"))
        .and_then(|lazy| lazy.collect())
        .map_err(|error| wrong(error.to_string()))?;
    if found.height() != frame.height() {
        return Err(wrong("it is one value for all rows; a figure needs one for each".to_owned()));
    }
    found.column("value of the expression").cloned().map_err(|error| wrong(error.to_string()))
}

fn plain(column: &FrameColumn) -> Result<Column, FigureError> {
    let unreadable = |why: String| FigureError::Unreadable { column: column.name().to_string(), why };
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

#[cfg(test)]
mod tests {
    use polars::prelude::{IntoColumn, NamedFrom, Series};

    use super::super::samples;
    use super::super::{Format, HouseLabels, Sources, draw};
    use super::*;

    /// The plain table as a data frame.
    fn frame(table: &Table) -> DataFrame {
        let column = |(name, column): &(String, Column)| match column {
            Column::Number(numbers) => Series::new(name.as_str().into(), numbers).into_column(),
            Column::Text(words) => Series::new(name.as_str().into(), words).into_column(),
        };
        let columns = table.columns.iter().map(column).collect();
        DataFrame::new(table.height, columns).expect("the columns are equally long")
    }

    fn of(columns: Vec<Series>) -> DataFrame {
        let height = columns[0].len();
        DataFrame::new(height, columns.into_iter().map(IntoColumn::into_column).collect()).expect("equal lengths")
    }

    #[test]
    fn every_type_of_number_and_text_is_read_and_what_is_not_finite_is_undefined() {
        let frame = of(vec![
            Series::new("float".into(), [1.5, f64::NAN, f64::INFINITY]),
            Series::new("count".into(), [Some(1u32), None, Some(3)]),
            Series::new("signed".into(), [-1i64, 0, 1]),
            Series::new("single".into(), [0.5f32, 0.25, 0.125]),
            Series::new("flag".into(), [true, false, true]),
            Series::new("text".into(), [Some("a"), None, Some("b")]),
            Series::new_null("nothing".into(), 3),
            Series::new("unread".into(), [1i32, 2, 3]),
        ]);
        let wanted = ["float", "count", "signed", "single", "flag", "text", "nothing", "absent"].map(str::to_owned);
        let table = table(&frame, &wanted).expect("all can be read");
        assert_eq!(table.find("float"), Some(&Column::Number(vec![Some(1.5), None, None])));
        assert_eq!(table.find("count"), Some(&Column::Number(vec![Some(1.0), None, Some(3.0)])));
        assert_eq!(table.find("signed"), Some(&Column::Number(vec![Some(-1.0), Some(0.0), Some(1.0)])));
        assert_eq!(table.find("single"), Some(&Column::Number(vec![Some(0.5), Some(0.25), Some(0.125)])));
        let words = |words: &[Option<&str>]| Column::Text(words.iter().map(|word| word.map(str::to_owned)).collect());
        assert_eq!(table.find("flag"), Some(&words(&[Some("true"), Some("false"), Some("true")])));
        assert_eq!(table.find("text"), Some(&words(&[Some("a"), None, Some("b")])));
        assert_eq!(table.find("nothing"), Some(&Column::Number(vec![None; 3])));
        assert!(table.find("unread").is_none() && table.names.contains(&"unread".to_owned()));
    }

    #[test]
    fn a_filter_is_sql_and_a_wrong_one_is_refused() {
        let rows = frame(&samples::quickstart());
        let some = filtered(&rows, Some("method = 'topk' and \"toy.d_hidden\" >= 20")).expect("a right filter");
        // Six densities, two widths, two seeds.
        assert_eq!(some.height(), 24);
        assert_eq!(filtered(&rows, None).expect("no filter").height(), rows.height());
        for wrong in ["method = ", "no_such_column > 1"] {
            assert!(matches!(filtered(&rows, Some(wrong)), Err(FigureError::BadFilter { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_figure_is_drawn_from_frames_into_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (rows, features) = samples::pentagon();
        let (rows, features) = (frame(&rows), frame(&features));
        let context = samples::context(&["data.firing_probability"]);
        let formats = [Format::Png, Format::Svg];
        let spec = samples::vectors("importance");
        let sources = Sources { features: Some(&features), ..Sources::of_rows(&rows) };
        let files = draw(&spec, &sources, &HouseLabels, &context, folder.path(), &formats);
        let names: Vec<String> = files
            .expect("it can be drawn")
            .iter()
            .filter_map(|file| file.file_name().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        let name = "vectors-data.firing_probability-importance";
        assert_eq!(names, [format!("{name}.png"), format!("{name}.svg"), format!("{name}.txt")]);
        let sources = Sources::of_rows(&rows);
        let wrong = draw(&samples::single("mc"), &sources, &HouseLabels, &context, folder.path(), &formats);
        assert!(matches!(wrong, Err(FigureError::UnknownColumn { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).expect("it exists").count(), 3, "a fault writes nothing");
    }

    #[test]
    fn an_expression_is_a_column_of_its_own_and_a_wrong_one_is_refused() {
        let rows = frame(&samples::quickstart());
        let inverse = "1.0 / \"data.firing_probability\"".to_owned();
        let table = table(&rows, &[inverse.clone(), "data.firing_probability".to_owned()]).expect("it can be read");
        let (Some(Column::Number(inverse)), Some(Column::Number(p))) =
            (table.find(&inverse), table.find("data.firing_probability"))
        else {
            panic!("two columns of numbers")
        };
        assert_eq!(inverse.len(), rows.height());
        assert!(inverse.iter().zip(p).all(|(inverse, p)| *inverse == p.map(|p| 1.0 / p)));
        for wrong in ["1.0 / no_such_column", "mcc +"] {
            assert!(matches!(evaluated(&rows, wrong), Err(FigureError::BadExpression { .. })), "{wrong}");
        }
    }
}
