//! Two results for one cell: the same, or a finding.

use std::path::Path;

use polars::prelude::{AnyValue, DataFrame, PlSmallStr};

use super::error::{Conflict, StoreError};
use super::part::same_entry;
use super::rows::cells_of;

/// The columns that are results of training, in a table of rows: the seed and the scores, and where both tables have the
/// same scores also the status and its detail, which speak of the scores. Not the axes, the method's name and the plan
/// index: an edited plan may sweep something else and call a variant something else, and the cell is the same.
pub fn result_columns<'a>(one: &'a DataFrame, other: &DataFrame) -> Vec<&'a PlSmallStr> {
    let (mine, theirs) = (score_columns(one), score_columns(other));
    let same = mine == theirs;
    let mut columns: Vec<&PlSmallStr> = mine.into_iter().filter(|name| theirs.contains(name)).collect();
    let fixed: &[&str] = if same { &["seed", "steps_done", "status", "detail"] } else { &["seed", "steps_done"] };
    columns.extend(one.get_column_names().into_iter().filter(|name| fixed.contains(&name.as_str())));
    columns
}

/// The scores stand between `detail` and `steps_done`.
pub fn score_columns(frame: &DataFrame) -> Vec<&PlSmallStr> {
    let names = frame.get_column_names();
    let from = names.iter().position(|name| *name == "detail").map_or(names.len(), |at| at + 1);
    let to = names.iter().position(|name| *name == "steps_done").unwrap_or(names.len());
    if from <= to { names[from..to].to_vec() } else { Vec::new() }
}

/// The first of `columns` in which row `a` of one table differs from row `b` of the other, with both entries.
pub fn difference<'a>(
    one: &'a DataFrame,
    a: usize,
    other: &'a DataFrame,
    b: usize,
    columns: &[&PlSmallStr],
) -> Option<(String, AnyValue<'a>, AnyValue<'a>)> {
    columns.iter().find_map(|name| {
        let first = one.column(name).ok()?.get(a).ok()?;
        let second = other.column(name).ok()?.get(b).ok()?;
        let same = same_entry(&first, &second) || same_number(&first, &second);
        (!same).then(|| (name.to_string(), first, second))
    })
}

/// Whether an integer of one table is the same number as a float of the other: kinds may differ between plans.
fn same_number(one: &AnyValue, other: &AnyValue) -> bool {
    let mixed =
        matches!((one, other), (AnyValue::Int64(_), AnyValue::Float64(_)) | (AnyValue::Float64(_), AnyValue::Int64(_)));
    mixed && one.extract::<f64>() == other.extract::<f64>()
}

/// An entry as the message of a conflict shows it: floats with all their digits.
pub fn text_of(value: &AnyValue) -> String {
    match value {
        AnyValue::Float64(number) => format!("{number:?}"),
        other => other.to_string(),
    }
}

/// A table of rows and the file it was read from.
pub struct Source<'a> {
    pub path: &'a Path,
    pub frame: &'a DataFrame,
}

/// Fails at the first cell that both hold with different results.
pub fn compare(one: &Source, other: &Source) -> Result<(), StoreError> {
    let damaged = |path: &Path| {
        let path = path.to_path_buf();
        move |reason| StoreError::Damaged { path, reason }
    };
    let rows_of_one = cells_of(one.frame).map_err(damaged(one.path))?;
    let mut order: Vec<(&str, usize)> =
        rows_of_one.iter().enumerate().map(|(row, cell)| (cell.as_str(), row)).collect();
    order.sort();
    for (b, cell) in cells_of(other.frame).map_err(damaged(other.path))?.iter().enumerate() {
        if let Ok(at) = order.binary_search_by(|(known, _)| (*known).cmp(cell.as_str())) {
            same_result((one, order[at].1), (other, b), cell)?;
        }
    }
    Ok(())
}

/// Fails if the two rows, both of `cell`, have different results.
pub fn same_result(one: (&Source, usize), other: (&Source, usize), cell: &str) -> Result<(), StoreError> {
    let columns = result_columns(one.0.frame, other.0.frame);
    match difference(one.0.frame, one.1, other.0.frame, other.1, &columns) {
        None => Ok(()),
        Some((what, first, second)) => Err(Conflict {
            cell: cell.parse().expect("cells_of returns checked ids"),
            what,
            first: one.0.path.to_path_buf(),
            first_value: text_of(&first),
            second: other.0.path.to_path_buf(),
            second_value: text_of(&second),
        }
        .into()),
    }
}
