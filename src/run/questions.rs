//! Figures and expectations checked before anything is trained: they may only ask for columns that rows will have.

use polars::prelude::DataFrame;

use super::results::{expectation, figure_spec};
use super::{RunError, plan_record};
use crate::figure::FigureSpec;
use crate::plan::Plan;
use crate::run::columns::{ScoreColumn, algorithms};
use crate::spec::diagnostic::{Diagnostic, Place};
use crate::spec::node::Value;
use crate::store;
use crate::table;
use crate::toy::theory::curves::NAMES;

/// Places of the items of a list in the file.
fn places(plan: &Plan, key: &str) -> Vec<Place> {
    match plan.document.root.get(key).map(|n| &n.value) {
        Some(Value::List(items)) => items.iter().map(|n| n.place).collect(),
        _ => vec![],
    }
}

/// Every figure and expectation against the columns of the rows to come.
///
/// # Errors
/// A column that rows will not have, or SQL that cannot be read, with its place.
pub fn check(plan: &Plan, columns: &[ScoreColumn]) -> Result<(), RunError> {
    let record = plan_record(plan, columns, &algorithms(columns), "");
    let empty = store::frame(&record.experiment, &record.schema(), &[])?;
    let names: Vec<String> = empty.get_column_names().iter().map(|n| n.to_string()).collect();
    let mut errors = Vec::new();
    for (i, section) in plan.document.experiment.figures.iter().enumerate() {
        let place = places(plan, "figures").get(i).copied().unwrap_or_default();
        errors.extend(figure(&figure_spec(section), &names, &empty).map(|(m, help)| Diagnostic {
            place,
            message: m,
            help,
        }));
    }
    for (i, section) in plan.document.experiment.expect.iter().enumerate() {
        if let Err(error) = table::readable(&empty, &expectation(section, table::Reduce::None)) {
            let place = places(plan, "expect").get(i).copied().unwrap_or_default();
            let message = format!("expectation \"{}\": {error}", section.claim);
            errors.push(Diagnostic { place, message, help: None });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(plan.document.error(errors).into()) }
}

/// What is wrong with a figure, and help.
fn figure(spec: &FigureSpec, names: &[String], empty: &DataFrame) -> Option<(String, Option<String>)> {
    let name = spec.file_name();
    for column in spec.columns() {
        if !names.contains(&column) && !NAMES.contains(&column.as_str()) {
            let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
            let near = table::near(&column, &candidates);
            let help = match &near[..] {
                [] => format!("columns: {}", names.join(", ")),
                near => {
                    format!("did you mean {}?", near.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or "))
                }
            };
            return Some((format!("figure {name}: rows have no column `{column}`"), Some(help)));
        }
    }
    let query = table::Query { where_: spec.filter().map(str::to_owned), ..Default::default() };
    let answer = table::select(&table::Tables::of_rows(empty.clone()), &query);
    answer.err().map(|error| (format!("figure {name}: {error}"), None))
}
