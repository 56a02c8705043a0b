//! `exclude`: cells left out by a condition over swept and fixed paths.

use serde_json::Value as Json;

use super::condition::{Condition, Value, Wrong};
use super::{AxisColumn, AxisValue, CellRef, Plan};
use crate::spec::diagnostic::{Diagnostic, Place, SpecError, nearest};
use crate::spec::experiment::Experiment;
use crate::spec::kind::Kind;

/// Removes the cells for which the condition holds.
///
/// # Errors
/// A condition that does not parse, names no path, or leaves no cell.
pub fn apply(plan: &mut Plan) -> Result<(), SpecError> {
    let Some(text) = plan.document.experiment.exclude.clone() else { return Ok(()) };
    let fail = |plan: &Plan, Wrong { at, message }: Wrong, help: Option<String>| {
        let node = plan.document.root.get("exclude").map_or(plan.document.root.place, |n| n.place);
        let place = within(&plan.document.source, node, &text, at);
        plan.document.error(vec![Diagnostic { place, message: format!("exclude: {message}"), help }])
    };
    let whole = |message: &str| Wrong { at: 0, message: message.to_owned() };
    let condition = Condition::read(&text).map_err(|wrong| fail(plan, wrong, None))?;
    let mut settings = vec![];
    for (path, at) in &condition.paths {
        let wrong = Wrong { at: *at, message: format!("no path `{path}`") };
        settings.push(setting(plan, path).map_err(|help| fail(plan, wrong, help))?);
    }
    if settings.is_empty() {
        let help = "name a path, for example \"toy.d_hidden > data.n_features\"".to_owned();
        return Err(fail(plan, whole("this condition names no path"), Some(help)));
    }
    let mut kept = Vec::with_capacity(plan.cells.len());
    for cell in &plan.cells {
        let values: Vec<AxisValue> = settings.iter().map(|setting| setting.in_cell(plan, *cell)).collect();
        let excluded = condition.holds(|path| value(&values[path])).map_err(|wrong| fail(plan, wrong, None))?;
        if !excluded {
            kept.push(*cell);
        }
    }
    plan.cells = kept;
    if plan.cells.is_empty() {
        return Err(fail(plan, whole("this condition leaves no cell"), None));
    }
    Ok(())
}

/// Where byte `at` of a condition stands in the file, if the condition stands there as it is; else where it begins.
fn within(source: &str, node: Place, text: &str, at: usize) -> Place {
    let line = source.lines().nth((node.line as usize).saturating_sub(1)).unwrap_or_default();
    let begun: String = line.chars().skip((node.column as usize).saturating_sub(1)).collect();
    let quote = begun.starts_with(['"', '\'']) as usize;
    if text.is_empty() || !begun[quote..].starts_with(text) {
        return node;
    }
    let before = text[..at].chars().count() as u32;
    Place { column: node.column + quote as u32 + before, length: 1, ..node }
}

/// What a path stands for in every cell.
enum Setting<'a> {
    Axis(&'a AxisColumn),
    Fixed(AxisValue),
}

impl Setting<'_> {
    fn in_cell(&self, plan: &Plan, cell: CellRef) -> AxisValue {
        match self {
            Setting::Axis(axis) => plan.axis_value(axis, cell),
            Setting::Fixed(value) => value.clone(),
        }
    }
}

fn value(value: &AxisValue) -> Value<'_> {
    match value {
        AxisValue::Null => Value::Null,
        AxisValue::Int(v) => Value::Number(*v as f64),
        AxisValue::Float(v) => Value::Number(*v),
        AxisValue::Text(v) => Value::Text(v),
    }
}

/// What a path stands for, or a hint at what was meant.
fn setting<'a>(plan: &'a Plan, path: &str) -> Result<Setting<'a>, Option<String>> {
    if let Some(axis) = plan.columns.iter().find(|c| c.name == path) {
        return Ok(Setting::Axis(axis));
    }
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    if let Some(axis) = plan.columns.iter().find(|c| below(path, &c.name) || below(&c.name, path)) {
        return Err(Some(format!("the axis `{}` sets it as a whole or in part: name the axis", axis.name)));
    }
    let fixed = Experiment::canonical(&plan.document.experiment);
    let found = path.split('.').try_fold(&fixed, |node, key| node.get(key));
    match found {
        Some(Json::Number(v)) => Ok(Setting::Fixed(v.as_f64().map_or(AxisValue::Null, AxisValue::Float))),
        Some(Json::String(v)) => Ok(Setting::Fixed(AxisValue::Text(v.clone()))),
        _ => {
            let axes: Vec<&str> = plan.columns.iter().map(|c| c.name.as_str()).collect();
            let near = nearest(path, axes.iter().copied());
            Err(Some(near.map_or(format!("axes: {}", axes.join(", ")), |n| format!("did you mean `{n}`?"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_within_the_condition_where_the_file_has_it_as_it_is() {
        let source = "name: x\nexclude: a.b > > 1\nexclude: \"a.b > > 1\"\nexclude: >\n  a.b >\n  > 1\n";
        let column = |line, column| within(source, Place { line, column, length: 9 }, "a.b > > 1", 6).column;
        assert_eq!([column(2, 10), column(3, 10), column(4, 10)], [16, 17, 10]);
    }
}
