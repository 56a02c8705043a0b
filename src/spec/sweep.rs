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

/// More paths than this in `sweep` and `zip` are taken for a slip.
const MOST_AXES: usize = 64;

/// More values than this on one axis are taken for a slip.
const MOST_VALUES: usize = 1_000_000;

/// Reads both sections; `exists` says whether a path can be swept.
pub fn axes(sweep: Option<&Node>, zip: Option<&Node>, reader: &mut Reader) -> Vec<Axis> {
    let mut axes = Vec::new();
    if !is_countable(sweep, zip, reader) {
        return axes;
    }
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
    let mut seen: BTreeMap<&str, Place> = BTreeMap::new();
    for axis in &axes {
        let label = axis.label.iter().map(|label| (&label.column, label.place));
        for (column, place) in axis.paths.iter().map(|path| (&path.path, path.place)).chain(label) {
            if let Some(first) = seen.get(column.as_str()) {
                let message = format!("axis `{column}` is given twice, first on line {}", first.line);
                let label = column == "label" || column.starts_with("label.");
                let help =
                    if label { "name one of them: `label: {NAME: [..]}` is a column `label.NAME`" } else { "keep one" };
                reader.error(place, message, Some(help.to_owned()));
            }
            seen.entry(column).or_insert(place);
        }
    }
    axes
}

/// Whether there are few enough axes, and few enough combinations to count: known before a value is made.
fn is_countable(sweep: Option<&Node>, zip: Option<&Node>, reader: &mut Reader) -> bool {
    let entries = |node: &Node| match &node.value {
        Value::Map(entries) => entries.clone(),
        _ => vec![],
    };
    let swept = sweep.map_or(vec![], entries);
    let zipped: Vec<_> = match zip.map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().map(entries).collect(),
        _ => vec![],
    };
    let paths = swept.len() + zipped.iter().map(Vec::len).sum::<usize>();
    let place = sweep.or(zip).map_or(Place::START, |node| node.place);
    if paths > MOST_AXES {
        reader.error(place, format!("{paths} axes; at most {MOST_AXES}"), None);
        return false;
    }
    let first =
        |entries: &Vec<(Key, Node)>| entries.iter().find(|(key, _)| key.text != "label").map(|(_, v)| length(v));
    let lengths: Vec<u64> =
        swept.iter().map(|(_, values)| length(values)).chain(zipped.iter().filter_map(first)).collect();
    if lengths.iter().try_fold(1u64, |product, length| product.checked_mul(*length)).is_none() {
        let factors = lengths.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
        let message = format!("more than 2^64 combinations of the axes: {factors}");
        reader.error(place, message, Some("take fewer values, or axes that move together (`zip`)".to_owned()));
        return false;
    }
    true
}

/// How many values an axis has, or would have; 1 where it is wrong, which is complained of where it is read.
fn length(values: &Node) -> u64 {
    let mut quiet = Reader::default();
    match &values.value {
        Value::List(items) => items.len().max(1) as u64,
        Value::Map(entries) => match &entries[..] {
            [(key, rule)] if key.text == "range" => range_of(rule, &mut quiet).map_or(1, |(.., count)| count as u64),
            [(_, rule)] => start_end_count(rule, &mut quiet).map_or(1, |(.., count)| count as u64),
            _ => 1,
        },
        _ => 1,
    }
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
    let Some((first, second)) = first_repeat(paths) else { return true };
    let (path, together) = (&paths[0], paths.len() > 1);
    let (value, before) = (&path.values[second], &path.values[first]);
    let with = if together { ", with the same companions," } else { "" };
    let (said, earlier) = (value.describe(), before.describe());
    let message = match said == earlier {
        true => format!("{said}{with} is on this axis twice, first on line {}", before.place.line),
        false => format!(
            "{said}{with} is on this axis twice: it equals {earlier} (line {}) in single precision",
            before.place.line
        ),
    };
    let help =
        format!("remove one: cells of values {} and {} of `{}` would be identical", first + 1, second + 1, path.path);
    reader.error(value.place, message, Some(help));
    false
}

/// The first two positions that would make equal cells.
fn first_repeat(paths: &[AxisPath]) -> Option<(usize, usize)> {
    // A million numbers are sorted as numbers.
    if let [path] = paths
        && let Some(mut numbers) = path.values.iter().map(as_single).collect::<Option<Vec<u32>>>()
    {
        let mut seen = std::collections::HashSet::with_capacity(numbers.len());
        let second = numbers.iter().position(|bits| !seen.insert(*bits))?;
        let bits = numbers.swap_remove(second);
        return path.values.iter().position(|v| as_single(v) == Some(bits)).map(|first| (first, second));
    }
    let mut seen: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    (0..paths[0].values.len()).find_map(|at| {
        let combination = paths.iter().map(|path| as_cell(&path.values[at])).collect();
        seen.insert(combination, at).map(|first| (first, at))
    })
}

/// The bits of an unquoted number in single precision.
fn as_single(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Scalar { text, quoted: false } => text.parse::<f32>().ok().map(|v| (v + 0.0).to_bits()),
        _ => None,
    }
}

/// A text that is equal for values that would make equal cells: numbers that are the same in single precision are.
fn as_cell(node: &Node) -> String {
    match &node.value {
        Value::Null => "none".into(),
        Value::Scalar { text, quoted } => match text.parse::<f32>() {
            // Minus nothing is nothing.
            Ok(v) if !quoted => format!("{:e}", v + 0.0),
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
        let rules = ["log", "linear", "range"];
        let rule = entries.iter().map(|(key, _)| key.text.as_str()).find(|key| rules.contains(key));
        let beside = entries.iter().map(|(key, _)| key).find(|key| !rules.contains(&key.text.as_str()));
        if let (Some(rule), Some(key)) = (rule, beside) {
            let parts = if rule == "range" { "[first, last, step]" } else { "[start, end, count]" };
            let message = format!("`{}` does not stand beside `{rule}`", key.text);
            reader.error(key.place, message, Some(format!("all of an axis stands in one list: {{{rule}: {parts}}}")));
            return None;
        }
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
    let (first, step, count) = range_of(node, reader)?;
    if count > MOST_VALUES as f64 {
        reader.error(node.place, format!("{count:.3e} values on one axis; at most {MOST_VALUES}"), None);
        return None;
    }
    Some((0..count as usize).map(|i| tidy(first + i as f64 * step)).collect())
}

/// Start, step and number of values.
fn range_of(node: &Node, reader: &mut Reader) -> Option<(f64, f64, f64)> {
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
    Some((first, step, ((last - first) / step + 1e-9).floor() + 1.0))
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
