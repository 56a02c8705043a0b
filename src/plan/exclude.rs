//! `exclude`: cells left out by a condition over swept and fixed paths.

use polars::prelude::{Column as Series, DataFrame, IntoLazy};
use polars::sql::SQLContext;
use serde_json::Value as Json;

use super::{AxisValue, Plan};
use crate::spec::diagnostic::{Diagnostic, SpecError, nearest};
use crate::spec::experiment::Experiment;
use crate::spec::kind::Kind;

/// Removes the cells for which the condition holds.
///
/// # Errors
/// A condition that does not parse, names no path, or leaves no cell.
pub fn apply(plan: &mut Plan) -> Result<(), SpecError> {
    let Some(condition) = plan.document.experiment.exclude.clone() else { return Ok(()) };
    let fail = |plan: &Plan, message: String, help: Option<String>| {
        let place = plan.document.root.get("exclude").map_or(plan.document.root.place, |n| n.place);
        plan.document.error(vec![Diagnostic { place, message, help }])
    };
    let (quoted, paths) = quote_paths(&condition);
    let mut columns = Vec::new();
    for path in &paths {
        columns.push(column(plan, path).map_err(|help| fail(plan, format!("exclude: no path `{path}`"), help))?);
    }
    if columns.is_empty() {
        let help = "name a path, for example \"toy.d_hidden > data.n_features\"".to_owned();
        return Err(fail(plan, "exclude: this condition names no path".into(), Some(help)));
    }
    let mask = evaluate(plan.cells.len(), columns, &quoted).map_err(|e| fail(plan, format!("exclude: {e}"), None))?;
    let mut kept = mask.iter().map(|out| !out);
    plan.cells.retain(|_| kept.next().unwrap_or(true));
    if plan.cells.is_empty() {
        return Err(fail(plan, "exclude: this condition leaves no cell".into(), None));
    }
    Ok(())
}

/// Puts double quotes around dotted paths that stand outside quotes; the paths named, each once.
fn quote_paths(condition: &str) -> (String, Vec<String>) {
    let roots = ["data.", "toy.", "sae.", "sae_train.", "baselines.", "evaluate.", "label."];
    let (mut out, mut paths): (String, Vec<String>) = (String::new(), vec![]);
    let mut rest = condition;
    while let Some(c) = rest.chars().next() {
        if c == '\'' || c == '"' {
            let end = rest[1..].find(c).map_or(rest.len(), |at| at + 2);
            let inside = rest[1..end].trim_end_matches(c).to_owned();
            if c == '"' && !paths.contains(&inside) {
                paths.push(inside);
            }
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.' || c == '*')).unwrap_or(rest.len());
        let word = &rest[..end];
        if word == "label" || roots.iter().any(|root| word.starts_with(root)) {
            out.push_str(&format!("\"{word}\""));
            if !paths.iter().any(|p| p == word) {
                paths.push(word.to_owned());
            }
            rest = &rest[end..];
        } else {
            let step = end.max(c.len_utf8());
            out.push_str(&rest[..step]);
            rest = &rest[step..];
        }
    }
    (out, paths)
}

/// The values of a path in every cell: an axis, or a fixed setting.
fn column(plan: &Plan, path: &str) -> Result<Series, Option<String>> {
    if let Some(axis) = plan.columns.iter().find(|c| c.name == path) {
        let values: Vec<AxisValue> = plan.cells.iter().map(|cell| plan.axis_value(axis, *cell)).collect();
        let numbers = values.iter().any(|v| matches!(v, AxisValue::Int(_) | AxisValue::Float(_)));
        return Ok(if numbers {
            let numbers: Vec<Option<f64>> = values.iter().map(number).collect();
            Series::new(path.into(), numbers)
        } else {
            let words: Vec<Option<&str>> = values.iter().map(word).collect();
            Series::new(path.into(), words)
        });
    }
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    if let Some(axis) = plan.columns.iter().find(|c| below(path, &c.name) || below(&c.name, path)) {
        return Err(Some(format!("the axis `{}` sets it as a whole or in part: name the axis", axis.name)));
    }
    let fixed = Experiment::canonical(&plan.document.experiment);
    let found = path.split('.').try_fold(&fixed, |node, key| node.get(key));
    match found {
        Some(Json::Number(v)) => Ok(Series::new(path.into(), vec![v.as_f64(); plan.cells.len()])),
        Some(Json::String(v)) => Ok(Series::new(path.into(), vec![v.as_str(); plan.cells.len()])),
        _ => {
            let axes: Vec<&str> = plan.columns.iter().map(|c| c.name.as_str()).collect();
            let near = nearest(path, axes.iter().copied());
            Err(Some(near.map_or(format!("axes: {}", axes.join(", ")), |n| format!("did you mean `{n}`?"))))
        }
    }
}

fn number(value: &AxisValue) -> Option<f64> {
    match value {
        AxisValue::Int(v) => Some(*v as f64),
        AxisValue::Float(v) => Some(*v),
        AxisValue::Null | AxisValue::Text(_) => None,
    }
}

fn word(value: &AxisValue) -> Option<&str> {
    match value {
        AxisValue::Text(v) => Some(v),
        _ => None,
    }
}

fn evaluate(cells: usize, columns: Vec<Series>, condition: &str) -> Result<Vec<bool>, String> {
    let frame = DataFrame::new(cells, columns).map_err(|e| e.to_string())?;
    let mut context = SQLContext::new();
    context.register("cells", frame.lazy());
    let query = format!("select coalesce(({condition}), false) as excluded from cells");
    let answer = context.execute(&query).and_then(|lazy| lazy.collect()).map_err(|e| e.to_string())?;
    let excluded = answer.column("excluded").and_then(|c| c.bool().cloned());
    let excluded = excluded.map_err(|_| "a condition is true or false for each cell".to_owned())?;
    if excluded.len() != cells {
        return Err("a condition has one value for each cell, this is an aggregate".to_owned());
    }
    Ok(excluded.iter().map(|v| v.unwrap_or(false)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_paths_are_quoted_outside_quotes_only() {
        let (quoted, paths) = quote_paths("toy.d_hidden > data.n_features and label = 'toy.d' or \"sae.topk.k\" < 1.5");
        assert_eq!(quoted, "\"toy.d_hidden\" > \"data.n_features\" and \"label\" = 'toy.d' or \"sae.topk.k\" < 1.5");
        assert_eq!(paths, ["toy.d_hidden", "data.n_features", "label", "sae.topk.k"]);
    }
}
