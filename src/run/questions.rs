//! Figures and expectations checked before anything is trained: they may only ask for columns that rows will have.

use polars::prelude::DataFrame;

use super::results::{expectation, figure_seeds, reduce_rule};
use super::widths::Widths;
use super::{RunError, plan_record, probe};
use crate::figure::{self, FigureSpec, SideTable, is_expression};
use crate::plan::Plan;
use crate::run::columns::{ScoreColumn, algorithms, standards};
use crate::spec::diagnostic::{Diagnostic, Place};
use crate::spec::node::Value;
use crate::spec::output::{Asked, WeightsSection};
use crate::store;
use crate::table::{self, Reduce};
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
    let failed = |error: table::QueryError| RunError::Input(error.to_string());
    let empty = table::with_gaps(empty, &standards(&plan.document)).map_err(failed)?;
    let empty = match Widths::of(&plan.document) {
        Some(widths) => widths.add_to(empty, &|_| Ok(Default::default()))?,
        None => empty,
    };
    let names: Vec<String> = empty.get_column_names().iter().map(|n| n.to_string()).collect();
    let mut errors = Vec::new();
    let experiment = &plan.document.experiment;
    let expect = &experiment.expect;
    // Side tables are asked about by whole queries and some figures alone.
    let beside = expect.iter().any(|section| matches!(section.asked, Asked::Sql(_)))
        || experiment.figures.iter().any(|spec| !spec.named_side_columns().is_empty());
    let tables = match beside {
        true => probe::empty_tables(plan, columns, empty.clone())?,
        false => table::Tables::of_rows(empty.clone()),
    };
    for (i, spec) in experiment.figures.iter().enumerate() {
        let place = places(plan, "figures").get(i).copied().unwrap_or_default();
        let wrong = figure(spec, &names, &empty).or_else(|| unkept(plan, spec)).or_else(|| side_columns(spec, &tables));
        errors.extend(wrong.map(|(what, help)| {
            let message = format!("figure {}: {what}", spec.file_name());
            Diagnostic { place, message, help }
        }));
    }
    for (i, section) in expect.iter().enumerate() {
        if let Err(error) = table::readable(&tables, &expectation(section, table::Reduce::None)) {
            let place = places(plan, "expect").get(i).copied().unwrap_or_default();
            let message = format!("expectation \"{}\": {error}", section.claim);
            errors.push(Diagnostic { place, message, help: None });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(plan.document.error(errors).into()) }
}

/// What is wrong with a figure's columns and names, and help.
fn figure(spec: &FigureSpec, names: &[String], empty: &DataFrame) -> Option<(String, Option<String>)> {
    let theory: Vec<String> = NAMES.iter().map(|name| name.to_string()).collect();
    if let Some(unknown) = spec.theory().iter().find(|name| !theory.contains(name)) {
        return Some((format!("no curve in closed form is called `{unknown}`"), near(unknown, &theory, "curves")));
    }
    for column in spec.named_columns().iter().filter(|column| !names.contains(column) && !theory.contains(column)) {
        if is_expression(column) {
            if let Err(error) = figure::evaluated(empty, column) {
                return Some((error.to_string(), None));
            }
            continue;
        }
        return Some((format!("rows have no column `{column}`"), near(column, names, "columns")));
    }
    let query = table::Query { where_: spec.filter().map(str::to_owned), ..Default::default() };
    let answer = table::select(&table::Tables::of_rows(empty.clone()), &query);
    answer.err().map(|error| (error.to_string(), None))
}

/// Names like a wrong one, or all.
fn near(wrong: &str, names: &[String], what: &str) -> Option<String> {
    let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
    Some(match &table::near(wrong, &candidates)[..] {
        [] => format!("{what}: {}", names.join(", ")),
        near => format!("did you mean {}?", near.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ")),
    })
}

/// What a figure needs that the run will not keep, and help.
fn unkept(plan: &Plan, spec: &FigureSpec) -> Option<(String, Option<String>)> {
    let experiment = &plan.document.experiment;
    let save = &experiment.save;
    if spec.needs_weights() && save.weights == WeightsSection::None {
        let help = "keep those of the best seed with `save: {weights: best}`";
        return Some((format!("`{}` draws weights, and the run keeps none", spec.key()), Some(help.to_owned())));
    }
    if spec.needs_weights() && !spec.needs_toy() && experiment.sae.is_empty() && experiment.baselines.is_empty() {
        let help = "give an entry of `sae`, or leave the figure out";
        return Some((format!("`{}` draws autoencoders, and there are none", spec.key()), Some(help.to_owned())));
    }
    if spec.needs_toy() && experiment.toy.is_none() {
        let help = "leave the figure out, or give a `toy` section";
        return Some((
            format!("`{}` draws weights of toy models, and there are none", spec.key()),
            Some(help.to_owned()),
        ));
    }
    if spec.needs_cells() && figure_seeds(spec, reduce_rule(&experiment.reduce.seeds)) == Reduce::Mean {
        let help = "draw the best seed with `seeds: lowest_loss` in the figure, or every seed with `seeds: all`";
        return Some((format!("`{}` draws single cells, and seeds are averaged", spec.key()), Some(help.to_owned())));
    }
    let missing = spec.sides().into_iter().map(|(side, _)| side).find(|side| match side {
        // Neurons only sort by the importances that stand there.
        SideTable::Features => !save.features && !matches!(spec, FigureSpec::Neurons(_)),
        SideTable::Trace => save.trace.every == 0,
        SideTable::Snapshots => save.trace.every == 0 || !save.trace.features,
        SideTable::Samples => !save.samples,
    })?;
    let help = format!("write `{}`", missing.kept_by());
    Some((format!("it reads the table `{}`, which the run does not keep", missing.name()), Some(help)))
}

/// A column that a figure asks of a table beside the rows and that it will not have, and help.
fn side_columns(spec: &FigureSpec, tables: &table::Tables) -> Option<(String, Option<String>)> {
    let names = |side: SideTable| -> Vec<String> {
        let frame = match side {
            SideTable::Features => &tables.features,
            SideTable::Trace => &tables.trace,
            SideTable::Snapshots => &tables.snapshots,
            SideTable::Samples => &tables.samples,
        };
        let frame = frame.as_ref().map_or(vec![], |frame| frame.get_column_names());
        frame.iter().map(|name| name.to_string()).collect()
    };
    let asked = spec.named_side_columns();
    let (side, column) = asked.into_iter().find(|(side, column)| !names(*side).contains(column))?;
    let message = format!("the table `{}` has no column `{column}`", side.name());
    Some((message, near(&column, &names(side), "columns")))
}
