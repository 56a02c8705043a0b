//! Figures and expectations checked before anything is trained: they may only ask for columns that rows will have. And figures of
//! an edited file before anything is drawn: they may only ask for what the run has.

use std::collections::HashSet;

use polars::prelude::DataFrame;

use super::results::{expectation, figure_seeds, reduce_rule};
use super::stand_in;
use super::widths::Widths;
use super::{RunError, plan_record, probe};
use crate::figure::{self, FigureSpec, SideTable, is_expression};
use crate::plan::{CellMethod, Plan, resolve};
use crate::run::columns::{ScoreColumn, standards};
use crate::spec::diagnostic::{Diagnostic, Place};
use crate::spec::figure::TraceModelSection;
use crate::spec::kind::Reader;
use crate::spec::node::Value;
use crate::spec::output::{Asked, SaveSection, WeightsSection};
use crate::spec::{self, Document};
use crate::store;
use crate::table::{self, Reduce, Tables};
use crate::toy::theory::curves::NAMES;

/// What figures can be drawn from: a run to come, or one that is there.
pub(super) struct Stock<'a> {
    /// What was or will be run.
    pub document: &'a Document,
    /// Absent where this version cannot lay it out.
    pub plan: Option<&'a Plan>,
    /// Columns of the rows, and of those tables beside them of which they are known.
    pub tables: &'a Tables,
    /// Tables beside the rows that are kept.
    pub kept: &'a [SideTable],
    /// Whether weights are kept.
    pub weights: bool,
}

/// The tables that are kept beside the rows.
pub(super) fn kept_beside(save: &SaveSection) -> Vec<SideTable> {
    let kept = |side: &SideTable| match side {
        SideTable::Features => save.features,
        SideTable::Trace => save.trace.every > 0,
        SideTable::Snapshots => save.trace.every > 0 && save.trace.features,
        SideTable::Samples => save.samples,
    };
    SideTable::ALL.into_iter().filter(kept).collect()
}

/// Places of the items of a list in the file.
fn places(document: &Document, key: &str) -> Vec<Place> {
    match document.root.get(key).map(|n| &n.value) {
        Some(Value::List(items)) => items.iter().map(|n| n.place).collect(),
        _ => vec![],
    }
}

/// Every figure and expectation against the columns of the rows to come.
///
/// # Errors
/// A column that rows will not have, or SQL that cannot be read, with its place.
pub fn check(plan: &Plan, columns: &[ScoreColumn]) -> Result<(), RunError> {
    let record = plan_record(plan, columns, "");
    let empty = store::frame(&record.experiment, &record.schema(), &[])?;
    let failed = |error: table::QueryError| RunError::Input(error.to_string());
    let empty = table::with_gaps(empty, &standards(&plan.document)).map_err(failed)?;
    let empty = match Widths::of(&plan.document) {
        Some(widths) => widths.add_to(empty, &|_| Ok(Default::default()))?,
        None => empty,
    };
    let experiment = &plan.document.experiment;
    let expect = &experiment.expect;
    // Side tables are asked about by whole queries and some figures alone.
    let beside = expect.iter().any(|section| matches!(section.asked, Asked::Sql(_)))
        || experiment.figures.iter().any(|spec| !spec.named_side_columns().is_empty());
    let tables = match beside {
        true => probe::empty_tables(plan, columns, empty)?,
        false => Tables::of_rows(empty),
    };
    let stock = Stock {
        document: &plan.document,
        plan: Some(plan),
        tables: &tables,
        kept: &kept_beside(&experiment.save),
        weights: experiment.save.weights != WeightsSection::None,
    };
    // Of a run that is there these are not asked: what has no effect does not make its rows wrong.
    let mut errors = plan.idle().to_vec();
    errors.extend(idle_of_figures(&plan.document));
    errors.extend(wrong_figures(&plan.document, None, &stock));
    for (i, section) in expect.iter().enumerate() {
        if let Err(error) = table::readable(&tables, &expectation(section, table::Reduce::None)) {
            let place = places(&plan.document, "expect").get(i).copied().unwrap_or_default();
            let message = format!("expectation \"{}\": {error}", section.claim);
            errors.push(Diagnostic { place, message, help: None });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(plan.document.error(errors).into()) }
}

/// Settings of figures that nothing is drawn by.
fn idle_of_figures(document: &Document) -> Vec<Diagnostic> {
    let mut reader = Reader::default();
    if let Some(node) = document.root.get("figures") {
        spec::figure::check(&document.experiment.figures, node, &mut reader);
    }
    reader.diagnostics
}

/// The figures of another file, or the one called `only`, against what a run has.
///
/// # Errors
/// What the run does not have, with its place in that file.
pub(super) fn check_edited(edited: &Document, only: Option<&str>, stock: &Stock) -> Result<(), RunError> {
    let mut errors = idle_of_figures(edited);
    errors.extend(wrong_figures(edited, only, stock));
    if errors.is_empty() { Ok(()) } else { Err(edited.error(errors).into()) }
}

fn wrong_figures(document: &Document, only: Option<&str>, stock: &Stock) -> Vec<Diagnostic> {
    let rows = &stock.tables.rows;
    let names: Vec<String> = rows.get_column_names().iter().map(|n| n.to_string()).collect();
    let places = places(document, "figures");
    let wrong = |(i, spec): (usize, &FigureSpec)| {
        let name = spec.file_name();
        if only.is_some_and(|only| only != name) {
            return None;
        }
        let rule = figure_seeds(spec, reduce_rule(&document.experiment.reduce.seeds));
        let (what, help) = figure(spec, &names, rows)
            .or_else(|| without_loss(stock, rule, &names))
            .or_else(|| unkept(stock, spec, rule))
            .or_else(|| side_columns(spec, stock.tables))
            .or_else(|| unlogged(stock.plan?, spec))?;
        let place = places.get(i).copied().unwrap_or_default();
        Some(Diagnostic { place, message: format!("figure {name}: {what}"), help })
    };
    document.experiment.figures.iter().enumerate().filter_map(wrong).collect()
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
    let answer = table::select(&Tables::of_rows(empty.clone()), &query);
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

/// A figure of the best seed where nothing says which that is, and help.
fn without_loss(stock: &Stock, rule: Reduce, names: &[String]) -> Option<(String, Option<String>)> {
    if rule != Reduce::LowestLoss || names.iter().any(|name| name == "loss" || name == "loss_weighted") {
        return None;
    }
    let (what, help) = match stock.document.experiment.toy {
        None => (
            "`seeds: lowest_loss` speaks of the toy model's loss, and there is none",
            "draw their mean with `seeds: mean`, or every seed with `seeds: all`",
        ),
        Some(_) => (
            "`seeds: lowest_loss` goes by the toy model's loss, and the rows have neither `loss_weighted` nor `loss`",
            "add `loss_weighted` to `score` and run it, or write `seeds: mean` or `seeds: all`",
        ),
    };
    Some((what.to_owned(), Some(help.to_owned())))
}

/// What a figure needs that the run will not keep, and help.
fn unkept(stock: &Stock, spec: &FigureSpec, rule: Reduce) -> Option<(String, Option<String>)> {
    let experiment = &stock.document.experiment;
    let said = |what: &str, help: &str| Some((format!("`{}` draws {what}", spec.key()), Some(help.to_owned())));
    if spec.needs_weights() && !stock.weights {
        let help = "keep those of the best seed with `save: {weights: best}`";
        return said("weights, and the run keeps none", help);
    }
    if spec.needs_weights() && !spec.needs_toy() && experiment.sae.is_empty() && experiment.baselines.is_empty() {
        return said("autoencoders, and there are none", "give an entry of `sae`, or leave the figure out");
    }
    if spec.needs_toy() && experiment.toy.is_none() {
        let help = "leave the figure out, or give a `toy` section";
        return said("weights of toy models, and there are none", help);
    }
    if spec.needs_cells() && rule == Reduce::Mean {
        let help = match experiment.toy {
            Some(_) => "draw the best seed with `seeds: lowest_loss` in the figure, or every seed with `seeds: all`",
            None => "draw every seed with `seeds: all` in the figure",
        };
        return said("single cells, and seeds are averaged", help);
    }
    // Neurons only sort by the importances that stand there.
    let can_do_without = |side: &SideTable| *side == SideTable::Features && matches!(spec, FigureSpec::Neurons(_));
    let sides = spec.sides().into_iter().map(|(side, _)| side);
    let missing = sides.filter(|side| !can_do_without(side)).find(|side| !stock.kept.contains(side))?;
    let help = format!("write `{}`", missing.kept_by());
    Some((format!("it reads the table `{}`, which the run does not keep", missing.name()), Some(help)))
}

/// Columns of the table `trace` that only autoencoders have a value of.
const OF_SAES: [&str; 3] = ["l0", "multiplier", "l0_smoothed"];
/// Those of [`OF_SAES`] that stand only where an autoencoder is led to an L0.
const OF_TARGETS: [&str; 2] = ["multiplier", "l0_smoothed"];

/// A figure of a training that is not, or of what is not logged of it, and help.
fn unlogged(plan: &Plan, spec: &FigureSpec) -> Option<(String, Option<String>)> {
    let FigureSpec::Trace(section) = spec else { return None };
    let asked = section.y.iter().map(|y| SideTable::of(y).unwrap_or((SideTable::Trace, y)));
    let asked: Vec<&str> = asked.filter(|(side, _)| *side == SideTable::Trace).map(|(_, column)| column).collect();
    let first = asked.first()?;
    let has_toy = plan.document.experiment.toy.is_some();
    let has_sae = || some_method(plan, |_, method| stand_in::steps(method).is_some());
    let said = |what: String, help: &str| Some((what, Some(help.to_owned())));
    let of_toy = match section.model {
        TraceModelSection::Toy => true,
        TraceModelSection::Sae => false,
        TraceModelSection::Auto => has_toy,
    };
    if of_toy && !has_toy {
        let help = "leave `model` out, or give a `toy` section";
        return said(format!("it draws `{first}` along the training of a toy model, and there is none"), help);
    }
    if of_toy {
        let column = asked.iter().find(|column| OF_SAES.contains(column))?;
        let help = if has_sae() { "write `model: sae`" } else { "leave it out: `loss` is logged of toy models" };
        return said(format!("`{column}` is logged of autoencoders, and it draws the training of a toy model"), help);
    }
    if !has_sae() {
        let help = if has_toy { "leave `model` out" } else { "leave the figure out, or give an entry of `sae`" };
        return said(format!("it draws `{first}` along the training of an autoencoder, and none is trained"), help);
    }
    if let Some(column) = asked.iter().find(|column| **column != "loss" && !OF_SAES.contains(column)) {
        let help =
            if has_toy { "leave `model` out" } else { "leave it out: `loss` and `l0` are logged of autoencoders" };
        return said(format!("`{column}` is logged of toy models, and it draws the training of autoencoders"), help);
    }
    let column = asked.iter().find(|column| OF_TARGETS.contains(column))?;
    let led = |d_hidden: usize, method: &CellMethod| match method {
        CellMethod::Sae(kind, train) => resolve::sae_job(kind, train, d_hidden, 0, 0).options.target.is_some(),
        _ => false,
    };
    if some_method(plan, led) {
        return None;
    }
    let help = "give an autoencoder `target_l0`, or leave it out";
    said(format!("`{column}` is logged of autoencoders that are led to an L0, and none is"), help)
}

/// Whether a method of the plan is so, under some values of the axes that touch it alone; it is asked with the width of the
/// hidden states.
fn some_method(plan: &Plan, so: impl Fn(usize, &CellMethod) -> bool) -> bool {
    let mut seen = HashSet::new();
    let different = plan.cells.iter().enumerate().filter(|(_, cell)| seen.insert((cell.method, cell.variant)));
    different.map(|(index, _)| plan.cell(index)).any(|cell| so(cell.d_hidden(), &cell.method))
}

/// A column that a figure asks of a table beside the rows and that it will not have, and help.
fn side_columns(spec: &FigureSpec, tables: &Tables) -> Option<(String, Option<String>)> {
    let names = |side: SideTable| -> Option<Vec<String>> {
        let frame = match side {
            SideTable::Features => &tables.features,
            SideTable::Trace => &tables.trace,
            SideTable::Snapshots => &tables.snapshots,
            SideTable::Samples => &tables.samples,
        };
        Some(frame.as_ref()?.get_column_names().iter().map(|name| name.to_string()).collect())
    };
    let missing = |(side, column): (SideTable, String)| {
        let names = names(side).filter(|names| !names.contains(&column))?;
        let message = format!("the table `{}` has no column `{column}`", side.name());
        Some((message, near(&column, &names, "columns")))
    };
    spec.named_side_columns().into_iter().find_map(missing)
}
