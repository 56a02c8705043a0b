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
    use super::super::{Format, HouseLabels, draw};
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
        let files = draw(&spec, &rows, Some(&features), &HouseLabels, &context, folder.path(), &formats);
        let names: Vec<String> = files
            .expect("it can be drawn")
            .iter()
            .filter_map(|file| file.file_name().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        let name = "vectors-data.firing_probability-importance";
        assert_eq!(names, [format!("{name}.png"), format!("{name}.svg"), format!("{name}.txt")]);
        let wrong = draw(&samples::single("mc"), &rows, None, &HouseLabels, &context, folder.path(), &formats);
        assert!(matches!(wrong, Err(FigureError::UnknownColumn { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).expect("it exists").count(), 3, "a fault writes nothing");
    }
}
