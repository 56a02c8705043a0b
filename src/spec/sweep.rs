//! The `sweep` and `zip` sections: axes, each a dotted path and its values.

use std::collections::BTreeMap;

use super::diagnostic::Place;
use super::explain;
use super::kind::{Kind, ListOf, Number, Reader, Text, Whole};
use super::node::{Key, Node, Value};

/// Values that move together: one path for a plain axis, several for a `zip`.
#[derive(Clone, Debug)]
pub struct Axis {
    pub paths: Vec<AxisPath>,
    /// What the combinations of a `zip` are called, if anything.
    pub label: Option<AxisLabel>,
    pub len: usize,
}

/// A column that an axis brings and that sets nothing: `label`, or `label.NAME`.
#[derive(Clone, Debug)]
pub struct AxisLabel {
    /// `label`, whose values are texts, or `label.NAME`, whose values are what they are written as.
    pub column: String,
    pub place: Place,
    /// One node for each value of the axis.
    pub values: Vec<Node>,
}

#[derive(Clone, Debug)]
pub struct AxisPath {
    pub path: String,
    pub place: Place,
    /// One node for each value of the axis; a generated value carries the place of its generator.
    pub values: Vec<Node>,
}

/// More values than this on one axis are taken for a slip.
const MOST_VALUES: usize = 1_000_000;

/// Reads both sections; `exists` says whether a path can be swept.
pub fn axes(sweep: Option<&Node>, zip: Option<&Node>, reader: &mut Reader) -> Vec<Axis> {
    let mut axes = Vec::new();
    if let Some(node) = sweep.filter(|n| n.value != Value::Null) {
        match &node.value {
            Value::Map(entries) => {
                for (key, values) in entries {
                    if let Some(path) = axis_path(key, values, reader)
                        && all_different(std::slice::from_ref(&path), reader)
                    {
                        axes.push(Axis { len: path.values.len(), paths: vec![path], label: None });
                    }
                }
            }
            _ => {
                reader.expected::<()>(node, "a mapping of axes, such as `toy.d_hidden: [5, 10]`", None);
            }
        }
    }
    if let Some(node) = zip.filter(|n| n.value != Value::Null) {
        match &node.value {
            Value::List(items) => axes.extend(items.iter().filter_map(|item| zipped(item, reader))),
            _ => {
                reader.expected::<()>(node, "a list of mappings of axes that move together", None);
            }
        }
    }
    let mut seen: Vec<(&str, Place)> = Vec::new();
    for axis in &axes {
        let label = axis.label.iter().map(|label| (&label.column, label.place));
        for (column, place) in axis.paths.iter().map(|path| (&path.path, path.place)).chain(label) {
            if let Some((_, first)) = seen.iter().find(|(c, _)| c == column) {
                let message = format!("axis `{column}` is given twice, first on line {}", first.line);
                let label = column == "label" || column.starts_with("label.");
                let help =
                    if label { "name one of them: `label: {NAME: [..]}` is a column `label.NAME`" } else { "keep one" };
                reader.error(place, message, Some(help.to_owned()));
            }
            seen.push((column, place));
        }
    }
    axes
}

fn axis_path(key: &Key, values: &Node, reader: &mut Reader) -> Option<AxisPath> {
    if let Err(help) = explain::sweepable(&key.text) {
        reader.error(key.place, format!("`{}` is not something to sweep", key.text), Some(help));
        return None;
    }
    let values = axis_values(values, reader)?;
    Some(AxisPath { path: key.text.clone(), place: key.place, values })
}

/// Whether no combination of an axis comes twice; of paths that move together one alone may repeat itself.
fn all_different(paths: &[AxisPath], reader: &mut Reader) -> bool {
    let mut seen: BTreeMap<Vec<String>, &Node> = BTreeMap::new();
    for at in 0..paths[0].values.len() {
        let value = &paths[0].values[at];
        let combination = paths.iter().map(|path| as_cell(&path.values[at])).collect();
        if let Some(first) = seen.insert(combination, value) {
            let with = if paths.len() > 1 { ", with the same companions," } else { "" };
            let line = first.place.line;
            let message = format!("{}{with} is on this axis twice, first on line {line}", value.describe());
            reader.error(value.place, message, Some("remove one; equal values would give equal cells".to_owned()));
            return false;
        }
    }
    true
}

/// A text that is equal for values that would make equal cells: numbers that are the same in single precision are.
fn as_cell(node: &Node) -> String {
    match &node.value {
        Value::Null => "none".into(),
        Value::Scalar { text, quoted } => match text.parse::<f32>() {
            Ok(v) if !quoted => format!("{v:e}"),
            _ => format!("{text:?}"),
        },
        Value::List(items) => format!("[{}]", items.iter().map(as_cell).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let mut entries: Vec<String> =
                entries.iter().map(|(k, v)| format!("{:?}:{}", k.text, as_cell(v))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
    }
}

/// A list as it stands, or `{log: [start, end, count]}`, `{linear: [..]}`, `{range: [first, last(, step)]}`.
fn axis_values(node: &Node, reader: &mut Reader) -> Option<Vec<Node>> {
    let entries = match &node.value {
        Value::List(items) if items.is_empty() => {
            reader.error(node.place, "an axis needs at least one value", None);
            return None;
        }
        Value::List(items) => return one_type(items, reader),
        Value::Map(entries) => entries,
        _ => return reader.expected(node, "a list of values, {log: ..}, {linear: ..} or {range: ..}", None),
    };
    let [(key, value)] = &entries[..] else {
        return reader.expected(node, "one of {log: ..}, {linear: ..}, {range: ..}", None);
    };
    let number = |v: f64| Node::plain(node.place, canonical_number(v));
    match key.text.as_str() {
        word @ ("log" | "linear") => {
            let (start, end, count) = start_end_count(value, reader)?;
            if word == "log" && (start <= 0.0 || end <= 0.0) {
                reader.error(value.place, "a log axis runs between numbers above 0", None);
                return None;
            }
            let at = |i: usize| {
                let t = i as f64 / (count - 1).max(1) as f64;
                match (word, i) {
                    (_, 0) => start,
                    (_, i) if i == count - 1 => end,
                    ("log", _) => tidy(libm::exp(libm::log(start) + t * (libm::log(end) - libm::log(start)))),
                    _ => tidy(start + t * (end - start)),
                }
            };
            Some((0..count).map(|i| number(at(i))).collect())
        }
        "range" => range(value, reader).map(|values| values.into_iter().map(number).collect()),
        other => {
            let near = super::diagnostic::nearest(other, ["log", "linear", "range"]);
            let help = near.map_or("one of: log, linear, range".to_owned(), |n| format!("did you mean `{n}`?"));
            reader.error(key.place, format!("unknown axis rule `{other}`"), Some(help));
            None
        }
    }
}

/// Twelve significant digits: enough to tell any two values apart, few enough that 0.1 reads as 0.1.
fn tidy(v: f64) -> f64 {
    format!("{v:.11e}").parse().unwrap_or(v)
}

/// A number as Rust prints it: shortest text that reads back the same, whole numbers without a point.
pub fn canonical_number(v: f64) -> String {
    format!("{v}")
}

fn one_type(items: &[Node], reader: &mut Reader) -> Option<Vec<Node>> {
    let sort = |node: &Node| match &node.value {
        Value::Scalar { text, quoted: false } if text.parse::<f64>().is_ok() => "number",
        Value::Scalar { quoted: false, text } if text == "true" || text == "false" => "truth value",
        // A word, a mapping, a list and null may stand for the choices of one key.
        _ => "choice",
    };
    let first = sort(&items[0]);
    for item in items {
        let this = sort(item);
        if this != first && (this == "truth value" || first == "truth value" || is_text(item) && first == "number") {
            let message = format!("axis of mixed types: {} beside {}", item.describe(), items[0].describe());
            reader.error(item.place, message, None);
            return None;
        }
    }
    Some(items.to_vec())
}

fn is_text(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar { quoted: true, .. })
}

fn start_end_count(node: &Node, reader: &mut Reader) -> Option<(f64, f64, usize)> {
    let Value::List(items) = &node.value else { return reader.expected(node, "[start, end, count]", None) };
    let [start, end, count] = &items[..] else { return reader.expected(node, "[start, end, count]", None) };
    let (start_value, end_value) = (Number::read(start, reader)?, Number::read(end, reader)?);
    let count_value = Whole::read(count, reader)?;
    if count_value == 0 {
        reader.error(count.place, "an axis needs at least one value", None);
        return None;
    }
    if count_value > MOST_VALUES {
        reader.error(count.place, format!("{count_value} values on one axis; at most {MOST_VALUES}"), None);
        return None;
    }
    if count_value > 1 && start_value == end_value {
        reader.error(end.place, "start and end are the same", None);
        return None;
    }
    Some((start_value, end_value, count_value))
}

/// Whole or other numbers from first to last, both included, by step (1).
fn range(node: &Node, reader: &mut Reader) -> Option<Vec<f64>> {
    let numbers = ListOf::<Number>::read(node, reader)?;
    let (first, last, step) = match numbers[..] {
        [first, last] => (first, last, 1.0),
        [first, last, step] => (first, last, step),
        _ => return reader.expected(node, "[first, last] or [first, last, step]", None),
    };
    if step <= 0.0 || last < first {
        let message = format!("a range runs upwards by a step above 0, this is [{first}, {last}, {step}]");
        reader.error(node.place, message, None);
        return None;
    }
    let count = ((last - first) / step + 1e-9).floor() + 1.0;
    if count > MOST_VALUES as f64 {
        reader.error(node.place, format!("{count:.3e} values on one axis; at most {MOST_VALUES}"), None);
        return None;
    }
    Some((0..count as usize).map(|i| tidy(first + i as f64 * step)).collect())
}

fn zipped(node: &Node, reader: &mut Reader) -> Option<Axis> {
    let Value::Map(entries) = &node.value else { return reader.expected(node, "a mapping of axes", None) };
    let (mut paths, mut label) = (Vec::new(), None);
    for (key, values) in entries {
        if key.text == "label" {
            label = Some(axis_label(key, values, reader)?);
        } else {
            paths.push(axis_path(key, values, reader)?);
        }
    }
    let Some(first) = paths.first() else {
        reader.error(node.place, "a `zip` entry needs at least one axis", None);
        return None;
    };
    let len = first.values.len();
    for path in &paths {
        if path.values.len() != len {
            let message = format!("`{}` has {} values, `{}` has {len}", path.path, path.values.len(), first.path);
            reader.error(path.place, message, Some("axes of one `zip` entry have the same length".to_owned()));
            return None;
        }
    }
    if !all_different(&paths, reader) {
        return None;
    }
    match label {
        Some(label) if label.values.len() != len => {
            reader.error(label.place, format!("{} labels for {len} combinations", label.values.len()), None);
            None
        }
        label => Some(Axis { paths, label, len }),
    }
}

/// `label: [..]` or `label: {NAME: [..]}`.
fn axis_label(key: &Key, written: &Node, reader: &mut Reader) -> Option<AxisLabel> {
    let (column, values) = match &written.value {
        Value::Map(entries) => match &entries[..] {
            [(name, values)] => {
                let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
                if name.text.is_empty() || !name.text.chars().all(letter) {
                    let help = "letters, digits and underscores".to_owned();
                    reader.error(name.place, format!("`{}` cannot name a column", name.text), Some(help));
                    return None;
                }
                (format!("label.{}", name.text), values)
            }
            _ => return reader.expected(written, "one name with its values, such as {alpha: [0.1, 0.3]}", None),
        },
        _ => ("label".to_owned(), written),
    };
    ListOf::<Text>::read(values, reader)?;
    let Value::List(nodes) = &values.value else { return reader.expected(values, "a list of labels", None) };
    Some(AxisLabel { column, place: key.place, values: nodes.clone() })
}
