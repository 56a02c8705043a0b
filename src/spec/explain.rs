//! The language described from the types that read it: `tegum explain FIELD`, `tegum schema`, homes of misplaced keys.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;

use serde_json::{Map, Value as Json, json};

use super::experiment::Experiment;
use super::kind::{Choice, Kind, Record, Shape};

/// The description of a field by its dotted path (`data.magnitude`, `sae.topk.k`), or what to try instead.
pub fn field(path: &str) -> Result<String, String> {
    let keys: Vec<&str> = path.split('.').collect();
    let found = find(&Experiment::shape(), &keys, None).map_err(|help| format!("no field `{path}`: {help}"))?;
    let mut out = format!("{path}\n");
    if !found.doc.is_empty() {
        let _ = writeln!(out, "  {}", found.doc.trim());
    }
    match found.default {
        Some("none") => out.push_str("  default: none\n"),
        Some("{}") => out.push_str("  default: the defaults of its keys\n"),
        Some("[]") => out.push_str("  default: an empty list\n"),
        Some(default) => {
            let _ = writeln!(out, "  default: {default}");
        }
        None if found.is_field => out.push_str("  must be given\n"),
        None => {}
    }
    describe(&found.shape, 1, &mut out);
    Ok(out)
}

/// Every field of the language, a line each.
pub fn outline() -> String {
    let mut out = String::new();
    walk(&Experiment::shape(), "", 0, &mut out);
    out
}

fn walk(shape: &Shape, path: &str, depth: usize, out: &mut String) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match shape {
        Shape::Record(record) => {
            for field in &record.fields {
                let inner = (field.shape)();
                let default = field.default.map_or("must be given".to_owned(), |d| format!("default {d}"));
                let _ = writeln!(out, "{:<42} {:<24} {}", join(field.name), default, field.doc.trim());
                if depth < 5 {
                    walk(&inner, &join(field.name), depth + 1, out);
                }
            }
        }
        Shape::Choice(choice) => {
            for option in &choice.options {
                let _ = writeln!(out, "{:<42} {:<24} {}", join(option.name), "choice", option.doc.trim());
                if let Some(inner) = option.shape.map(|s| s()).filter(|s| matches!(s, Shape::Record(_)) && depth < 4) {
                    walk(&inner, &join(option.name), depth + 1, out);
                }
            }
        }
        Shape::List(inner) | Shape::Maybe(inner) => walk(inner, path, depth, out),
        // What is below has been listed above.
        Shape::Again { .. } => {}
        Shape::Entry { kinds, .. } => walk(kinds, path, depth, out),
        Shape::Leaf { .. } | Shape::Pair(_) | Shape::Any { .. } => {}
    }
}

/// Whether a key of a path is the number of a list's entry, from 0.
pub fn is_entry(key: &str) -> bool {
    key.parse::<usize>().is_ok_and(|index| index.to_string() == key)
}

struct Found {
    doc: &'static str,
    default: Option<&'static str>,
    is_field: bool,
    shape: Shape,
}

impl Found {
    fn of(doc: &'static str, default: Option<&'static str>, shape: Shape) -> Found {
        Found { doc, default, is_field: true, shape }
    }
}

/// Walks down a path; lists and "may be none" are looked through.
fn find(shape: &Shape, keys: &[&str], here: Option<Found>) -> Result<Found, String> {
    let Some((key, rest)) = keys.split_first() else {
        return here.ok_or_else(|| "name a field".to_owned());
    };
    match shape {
        Shape::List(inner) if is_entry(key) => {
            find(inner, rest, Some(Found::of("One entry of the list.", None, (**inner).clone())))
        }
        Shape::List(inner) | Shape::Maybe(inner) => find(inner, keys, here),
        Shape::Entry { kinds, trained } => match *key {
            "name" => find(&text(), rest, Some(Found::of("What rows call this entry.", Some("its kind"), text()))),
            "train" if *trained => {
                let train = super::sae::SaeTrainSection::shape();
                let doc = "Settings of `sae_train` that this entry overrides.";
                find(&train.clone(), rest, Some(Found::of(doc, Some("{}"), train)))
            }
            _ => find(kinds, keys, here),
        },
        Shape::Record(record) => match record.fields.iter().find(|f| f.name == *key) {
            Some(field) => {
                let found = Found { doc: field.doc, default: field.default, is_field: true, shape: (field.shape)() };
                let shape = found.shape.clone();
                find(&shape, rest, Some(found))
            }
            None => Err(not_here(key, record.fields.iter().map(|f| f.name).collect())),
        },
        Shape::Choice(choice) => match choice.options.iter().find(|o| o.name == *key) {
            Some(option) => {
                let shape = option.shape.map_or(Shape::Maybe(Box::new(Shape::List(Box::new(text())))), |s| s());
                let found = Found { doc: option.doc, default: None, is_field: false, shape: shape.clone() };
                match option.shape {
                    Some(_) => find(&shape, rest, Some(found)),
                    None if rest.is_empty() => {
                        Ok(Found { shape: Shape::Record(Record { doc: "", fields: vec![] }), ..found })
                    }
                    None => Err(format!("`{key}` has no settings")),
                }
            }
            // Below a bare list its entries, below a bare mapping its keys.
            None => match choice.bare.iter().find(|bare| match bare {
                Shape::List(_) => is_entry(key),
                Shape::Record(_) => !is_entry(key),
                _ => false,
            }) {
                Some(bare) => find(bare, keys, here),
                None => Err(not_here(key, choice.options.iter().map(|o| o.name).collect())),
            },
        },
        Shape::Again { shape, .. } => find(&shape(), keys, here),
        Shape::Leaf { .. } | Shape::Pair(_) | Shape::Any { .. } => Err(format!("nothing below it is called `{key}`")),
    }
}

fn text() -> Shape {
    Shape::Leaf { json: "string", words: "text", least: None, greatest: None }
}

fn not_here(key: &str, names: Vec<&'static str>) -> String {
    match super::diagnostic::nearest(key, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? there are: {}", names.join(", ")),
        None => format!("there are: {}", names.join(", ")),
    }
}

fn describe(shape: &Shape, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    match shape {
        Shape::Leaf { words, .. } => {
            let _ = writeln!(out, "{pad}{words}");
        }
        Shape::Pair(inner) => {
            let _ = writeln!(out, "{pad}two of:");
            describe(inner, depth + 1, out);
        }
        Shape::Maybe(inner) => describe(inner, depth, out),
        Shape::Any { words } | Shape::Again { words, .. } => {
            let _ = writeln!(out, "{pad}{words}");
        }
        Shape::Entry { kinds, trained } => {
            let train = if *trained { "`train`, " } else { "" };
            let _ = writeln!(out, "{pad}one kind with its settings, beside it {train}`name`:");
            describe(kinds, depth, out);
        }
        Shape::List(inner) => {
            let _ = writeln!(out, "{pad}a list of:");
            describe(inner, depth + 1, out);
        }
        Shape::Record(Record { fields, .. }) => {
            for field in fields {
                let default = field.default.map_or("must be given".to_owned(), |d| format!("default {d}"));
                let _ = writeln!(out, "{pad}{}: {} ({default})", field.name, field.doc.trim());
            }
        }
        Shape::Choice(Choice { bare, options, .. }) => {
            for shape in bare {
                describe(shape, depth, out);
            }
            for option in options {
                let _ = writeln!(out, "{pad}{}: {}", option.name, option.doc.trim());
            }
        }
    }
}

/// Whether a dotted path can be an axis; if not, what to do.
pub fn sweepable(path: &str) -> Result<(), String> {
    let keys: Vec<&str> = path.split('.').collect();
    let roots = ["data", "toy", "sae", "sae_train", "baselines", "evaluate"];
    if !roots.contains(&keys[0]) || keys.len() < 2 {
        let near = super::diagnostic::nearest(keys[0], roots);
        let example = near.map_or("an axis is a path such as `data.firing_probability` or `sae.topk.k`".into(), |n| {
            format!("did you mean `{n}.…`?")
        });
        return Err(example);
    }
    if keys[0] == "sae" || keys[0] == "baselines" {
        // Variant names are checked against the file when the axis is applied.
        return if keys.len() >= 3 {
            Ok(())
        } else {
            Err(format!("name the entry and its key: `{}.topk.k`, or `{}.*.n_latents` for all", keys[0], keys[0]))
        };
    }
    find(&Experiment::shape(), &keys, None).map(|_| ())
}

/// Sections in which misplaced keys are looked for: those of figures and expectations have names that fit anywhere.
const SECTIONS: [&str; 8] = ["data", "activations", "toy", "sae", "sae_train", "baselines", "evaluate", "save"];

/// Where a key that was found in `what` belongs, in words: "under `data`". None where it is known nowhere, or at too many
/// places to be of use.
pub fn home_of(key: &str, what: &str) -> Option<String> {
    static HOMES: OnceLock<BTreeMap<&'static str, Vec<String>>> = OnceLock::new();
    let homes = HOMES.get_or_init(|| {
        let mut homes = BTreeMap::new();
        if let Shape::Record(whole) = Experiment::shape() {
            for field in whole.fields {
                homes.entry(field.name).or_insert_with(Vec::new).push(String::new());
                if SECTIONS.contains(&field.name) {
                    keys_below(&(field.shape)(), field.name, 0, &mut homes);
                }
            }
        }
        homes
    });
    let elsewhere =
        |home: &&String| home.rsplit('.').next() != Some(what) && !(home.is_empty() && what == "an experiment");
    let homes: Vec<&String> = homes.get(key)?.iter().filter(elsewhere).collect();
    if homes.iter().any(|home| home.is_empty()) {
        return Some("at the top of the file".to_owned());
    }
    if let [one] = homes[..] {
        return Some(format!("under `{one}`"));
    }
    let mut tops: Vec<&str> = homes.iter().filter_map(|home| home.split('.').next()).collect();
    tops.dedup();
    match (&tops[..], &homes[..]) {
        (["sae" | "baselines"] | ["sae", "baselines"], [first, ..]) => {
            Some(format!("to an entry of `{}`, as in `{first}`", tops.join("` or `")))
        }
        (_, [first, second]) => Some(format!("under `{first}` or `{second}`")),
        _ => None,
    }
}

/// Every key of the records below a shape, with the path of its record.
fn keys_below(shape: &Shape, path: &str, depth: usize, homes: &mut BTreeMap<&'static str, Vec<String>>) {
    if depth > 4 {
        return;
    }
    match shape {
        Shape::Record(record) => {
            for field in &record.fields {
                let known = homes.entry(field.name).or_default();
                if !known.iter().any(|home| home == path) {
                    known.push(path.to_owned());
                }
                keys_below(&(field.shape)(), &format!("{path}.{}", field.name), depth + 1, homes);
            }
        }
        Shape::Choice(choice) => {
            choice.bare.iter().for_each(|shape| keys_below(shape, path, depth + 1, homes));
            for option in &choice.options {
                if let Some(shape) = option.shape {
                    keys_below(&shape(), &format!("{path}.{}", option.name), depth + 1, homes);
                }
            }
        }
        Shape::List(inner) | Shape::Maybe(inner) => keys_below(inner, path, depth, homes),
        Shape::Entry { kinds, .. } => keys_below(kinds, path, depth, homes),
        Shape::Again { .. } | Shape::Leaf { .. } | Shape::Pair(_) | Shape::Any { .. } => {}
    }
}

/// JSON Schema (draft 2020-12) of an experiment file, for editors.
pub fn schema() -> Json {
    let mut root = schema_of(&Experiment::shape(), "");
    if let Json::Object(map) = &mut root {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("tegum experiment"));
    }
    say_what_replaces_what(&mut root);
    root
}

/// What a record by itself cannot say: `activations` in place of `data` and `toy`, `data.synthetic_model` in place of the rest
/// of `data`.
fn say_what_replaces_what(root: &mut Json) {
    let unset = json!({ "enum": [null, "none"] });
    let given = json!({ "not": unset });
    let data = &mut root["properties"]["data"];
    let required = data["required"].take();
    data["anyOf"] = json!([
        { "required": required, "properties": { "synthetic_model": unset } },
        { "required": ["synthetic_model"], "properties": { "synthetic_model": given }, "maxProperties": 1 },
    ]);
    root["anyOf"] = json!([
        { "required": ["data"], "properties": { "activations": unset } },
        { "required": ["activations"], "properties": { "activations": given, "data": false, "toy": false } },
        // What `tegum train` is given names neither: its files stand on the command line.
        {
            "properties": { "activations": unset, "data": false, "toy": false },
            "anyOf": [{ "required": ["sae"] }, { "required": ["baselines"] }],
        },
    ]);
    if let Json::Array(required) = &mut root["required"] {
        required.retain(|key| key != "data");
    }
    if let Json::Object(data) = &mut root["properties"]["data"] {
        data.remove("required");
    }
}

fn schema_of(shape: &Shape, doc: &str) -> Json {
    let mut schema = match shape {
        Shape::Leaf { json, least, greatest, .. } => {
            let mut map = Map::new();
            // Text takes unquoted numbers and words as they are written.
            let sort = if *json == "string" { json!(["string", "number", "boolean"]) } else { json!(json) };
            map.insert("type".into(), sort);
            if let Some(least) = least {
                map.insert("minimum".into(), json!(least));
            }
            if let Some(greatest) = greatest {
                map.insert("maximum".into(), json!(greatest));
            }
            Json::Object(map)
        }
        Shape::List(inner) => json!({ "type": "array", "items": schema_of(inner, "") }),
        Shape::Pair(inner) => {
            json!({ "type": "array", "items": schema_of(inner, ""), "minItems": 2, "maxItems": 2 })
        }
        Shape::Maybe(inner) => json!({ "anyOf": [schema_of(inner, ""), { "enum": [null, "none"] }] }),
        Shape::Any { .. } | Shape::Again { .. } => json!({}),
        Shape::Entry { kinds, trained } => schema_of_entry(kinds, *trained),
        Shape::Record(record) => schema_of_record(record),
        Shape::Choice(choice) => schema_of_choice(choice),
    };
    if let (Json::Object(map), false) = (&mut schema, doc.is_empty()) {
        map.insert("description".into(), json!(doc.trim()));
    }
    schema
}

fn schema_of_record(record: &Record) -> Json {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &record.fields {
        properties.insert(field.name.into(), schema_of(&(field.shape)(), field.doc));
        if field.default.is_none() {
            required.push(field.name);
        }
    }
    let mut map = Map::new();
    map.insert("type".into(), json!("object"));
    map.insert("properties".into(), Json::Object(properties));
    map.insert("additionalProperties".into(), json!(false));
    if !required.is_empty() {
        map.insert("required".into(), json!(required));
    }
    Json::Object(map)
}

/// A bare name, or a mapping of one kind with `name` and, where it is trained, `train` beside it.
fn schema_of_entry(kinds: &Shape, trained: bool) -> Json {
    let Shape::Choice(choice) = kinds else { return json!({}) };
    let words: Vec<&str> = choice.options.iter().map(|o| o.name).collect();
    let mut any = vec![json!({ "enum": words })];
    for option in &choice.options {
        let settings = option.shape.map_or(json!({}), |shape| schema_of(&shape(), option.doc));
        let mut properties = Map::new();
        properties.insert("name".into(), json!({ "type": ["string", "number"] }));
        if trained {
            properties.insert("train".into(), schema_of(&super::sae::SaeTrainSection::shape(), ""));
        }
        properties.insert(option.name.into(), settings);
        any.push(json!({
            "type": "object", "properties": properties, "required": [option.name], "additionalProperties": false
        }));
    }
    json!({ "anyOf": any })
}

fn schema_of_choice(choice: &Choice) -> Json {
    let mut any: Vec<Json> = choice.bare.iter().map(|shape| schema_of(shape, "")).collect();
    let words: Vec<&str> = choice.options.iter().map(|o| o.name).collect();
    if !words.is_empty() {
        any.push(json!({ "enum": words }));
    }
    for option in &choice.options {
        if let Some(shape) = option.shape {
            let properties = json!({ option.name: schema_of(&shape(), option.doc) });
            any.push(json!({
                "type": "object", "properties": properties, "required": [option.name], "additionalProperties": false
            }));
        }
    }
    json!({ "anyOf": any })
}

/// JSON type of the field at a path: "integer", "number", or "string" for everything else.
pub fn leaf_type(keys: &[&str]) -> &'static str {
    fn of(shape: &Shape) -> &'static str {
        match shape {
            Shape::Leaf { json: json @ ("integer" | "number"), .. } => json,
            Shape::Maybe(inner) => of(inner),
            Shape::Choice(choice) => choice.bare.first().map_or("string", of),
            _ => "string",
        }
    }
    find(&Experiment::shape(), keys, None).map_or("string", |found| of(&found.shape))
}
