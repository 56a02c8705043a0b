//! The JSON Schema of the language against experiments: what runs is accepted, what cannot is not.

use serde_json::{Value as Json, json};

use super::specs::experiments;
use tegum::spec::node::{self, Node, Value};
use tegum::spec::{Document, explain};

/// A file as an editor hands it to its validator.
fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Scalar { text, quoted: false } if text == "true" || text == "false" => json!(text == "true"),
        Value::Scalar { text, quoted } => match text.parse::<f64>() {
            Ok(number) if !quoted && number.is_finite() => json!(number),
            _ => json!(text),
        },
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.text.clone(), json_of(value))).collect())
        }
    }
}

fn read(text: &str) -> Json {
    json_of(&node::parse("test.yaml", text).expect("it is YAML"))
}

/// Whether a value fits a schema of the words that ours is written in.
fn fits(schema: &Json, value: &Json) -> bool {
    let rules = match schema {
        Json::Bool(all) => return *all,
        Json::Object(rules) => rules,
        other => panic!("no schema: {other}"),
    };
    let list = |rule: &Json| rule.as_array().expect("a list").clone();
    let number = |rule: &Json| rule.as_f64().expect("a number");
    let holds = |(word, rule): (&String, &Json)| match word.as_str() {
        "$schema" | "title" | "description" => true,
        "type" => match rule {
            Json::String(name) => is_of(name, value),
            several => list(several).iter().any(|name| is_of(name.as_str().expect("a name"), value)),
        },
        "enum" => list(rule).contains(value),
        "minimum" => value.as_f64().is_none_or(|v| v >= number(rule)),
        "maximum" => value.as_f64().is_none_or(|v| v <= number(rule)),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| fits(rule, item))),
        "minItems" => value.as_array().is_none_or(|items| items.len() as f64 >= number(rule)),
        "maxItems" => value.as_array().is_none_or(|items| items.len() as f64 <= number(rule)),
        "maxProperties" => value.as_object().is_none_or(|map| map.len() as f64 <= number(rule)),
        "required" => value
            .as_object()
            .is_none_or(|map| list(rule).iter().all(|key| map.contains_key(key.as_str().expect("a key")))),
        "properties" => value
            .as_object()
            .is_none_or(|map| map.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| fits(schema, value)))),
        "additionalProperties" => {
            assert_eq!(rule, &json!(false));
            value.as_object().is_none_or(|map| map.keys().all(|key| rules["properties"].get(key).is_some()))
        }
        "anyOf" => list(rule).iter().any(|schema| fits(schema, value)),
        "not" => !fits(rule, value),
        other => panic!("the schema has a word that this test does not know: {other}"),
    };
    rules.iter().all(holds)
}

fn is_of(name: &str, value: &Json) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|v| v.fract() == 0.0),
        other => panic!("no type of JSON Schema: {other}"),
    }
}

#[test]
fn every_experiment_of_the_project_fits_the_schema() {
    let schema = explain::schema();
    for path in experiments() {
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert!(fits(&schema, &read(&text)), "{}", path.display());
    }
}

const SAE: &str = "name: a\nsae: [{topk: {n_latents: 8, k: 2}}]\n";

/// What stands in place of a world, or of what a world is made of.
#[test]
fn what_takes_the_place_of_a_world_fits_the_schema() {
    let schema = explain::schema();
    let right = [
        format!("{SAE}activations: {{files: acts.npy, hold_out: 0.2}}\n"),
        format!("{SAE}activations: {{files: [a.npy, b.npy]}}\nsave: {{weights: all}}\n"),
        format!("{SAE}data: {{n_features: 4, firing_probability: 0.1}}\ntoy: {{d_hidden: 2}}\nactivations: none\n"),
        format!("{SAE}data: {{synthetic_model: folder}}\n"),
        // A file for `tegum train`, which is given its activations on the command line.
        SAE.to_owned(),
        format!("{SAE}score: [l0, mmcs_larger, {{pairs: [[topk, wide]]}}]\n"),
    ];
    for text in &right {
        assert!(fits(&schema, &read(text)), "{text}");
    }
    // The third is an experiment that the program reads too; the others ask for files.
    Document::read("test.yaml", &right[2]).unwrap_or_else(|e| panic!("{e}"));
    for text in [
        "name: a\ntoy: {d_hidden: 2}\n".to_owned(),
        "name: a\n".to_owned(),
        format!("{SAE}toy: {{d_hidden: 2}}\nactivations: {{files: acts.npy}}\n"),
        format!("{SAE}data: {{n_features: 4, firing_probability: 0.1}}\nactivations: {{files: acts.npy}}\n"),
        format!("{SAE}activations: {{hold_out: 0.2}}\n"),
        format!("{SAE}data: {{n_features: 4}}\n"),
        format!("{SAE}data: {{synthetic_model: folder, n_features: 4}}\n"),
        format!("{SAE}data: {{synthetic_model: none}}\n"),
        format!("{SAE}score: [{{pairs: [[topk]]}}]\n"),
    ] {
        assert!(!fits(&schema, &read(&text)), "{text}");
    }
}
