//! Every experiment of the project loads, and the language describes itself.

use std::path::{Path, PathBuf};

use super::program::tegum;
use tegum::plan::{MOST_CELLS, Plan, Versions, resolve};
use tegum::spec::{Document, explain};

pub fn experiments() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("experiments/quickstart.yaml")];
    for folder in ["experiments/paper", "experiments/paper/full", "experiments/check", "benches/experiments"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        found.extend(
            entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "yaml")),
        );
    }
    found.sort();
    found
}

fn plan(text: &str) -> Plan {
    let document = Document::read("test.yaml", text).unwrap_or_else(|e| panic!("{e}"));
    Plan::new(document, &Versions { algorithms: "a1", profile: "p" }, MOST_CELLS).unwrap_or_else(|e| panic!("{e}"))
}

const BASE: &str = "name: a\ndata: {n_features: 4, firing_probability: 0.1}\ntoy: {d_hidden: 2}\n";

#[test]
fn every_experiment_of_the_project_loads_and_plans() {
    let found = experiments();
    assert!(found.len() >= 35, "{found:?}");
    for path in found {
        let document = Document::load(&path).unwrap_or_else(|e| panic!("{e}"));
        let plan = Plan::new(document, &Versions { algorithms: "a1", profile: "p" }, MOST_CELLS);
        let plan = plan.unwrap_or_else(|e| panic!("{e}"));
        assert!(!plan.cells.is_empty());
        assert_eq!(plan.chunks().iter().map(|c| c.count).sum::<usize>(), plan.cells.len());
    }
}

/// Figures and expectations among it: their columns, conditions and queries.
#[test]
fn every_experiment_of_the_project_passes_check() {
    for path in experiments() {
        let path = path.display().to_string();
        let answer = tegum(Path::new(env!("CARGO_MANIFEST_DIR")), &["check", &path]);
        assert_eq!(answer.code, 0, "{path}: {}", answer.stderr);
    }
}

/// The worlds of the papers on absorption and on sparse but wrong autoencoders, and SynthSAEBench's, as experiments write them.
#[test]
fn linked_worlds_are_read_as_written() {
    let world = |data: &str| {
        let plan = plan(&format!("name: a\ndata: {data}\ntoy: {{d_hidden: 2}}\n"));
        resolve::world(&plan.cell(0).data, 0, &plan.files).expect("no file is needed")
    };
    let absorption = world(
        "{n_features: 4, firing_probability: [0.25, 0.05, 0.05, 0.05], magnitude: {constant: 1}, \
         hierarchy: {rates: exact, tree: [{feature: 0, children: [{feature: 1}]}]}}",
    );
    assert_eq!(absorption.parents(), [(1, 0)].into());
    let (own, rates) = (&absorption.firing_probability, absorption.marginal_probability());
    for (got, expected) in own.iter().zip([0.25, 0.2, 0.05, 0.05]).chain(rates.iter().zip([0.25, 0.05, 0.05, 0.05])) {
        assert!((got - expected).abs() < 1e-12, "{own:?} {rates:?}");
    }
    let star =
        "{n_features: 5, firing_probability: 0.4, correlation: {pairs: [[0,1,0.5],[0,2,0.5],[0,3,0.5],[0,4,0.5]]}}";
    let star = world(star).correlation.expect("a correlation");
    assert_eq!((star.between(0, 3), star.between(1, 2)), (0.5, 0.0));
    assert_eq!(world("{n_features: 5, firing_probability: 0.4, correlation: none}").correlation, None);
    let default = "{n_features: 3, firing_probability: 0.4, correlation: {pairs: {list: [[0, 1, 0.5]], default: 0.1}}}";
    assert_eq!(world(default).correlation.expect("a correlation").between(2, 1), 0.1);
    let bench = world(
        "{n_features: 1024, firing_probability: {zipf: {exponent: 0.5, max: 0.4, min: 5e-4}}, \
         magnitude: {normal: {mean: {linear: {max: 5, min: 4}}, std: {folded_normal: {mean: 0.5, std: 0.5}}}}, \
         correlation: {low_rank: {rank: 25, scale: 0.1}}, \
         hierarchy: {roots: 32, branching: 4, depth: 2, exclusive: true, scale_children: true, rates: first_order}}",
    );
    let families = bench.hierarchy.as_ref().expect("trees").families();
    assert_eq!(families.len(), 32 + 128);
    assert!(families.iter().all(|f| f.exclusive && f.scale && f.members.len() == 4));
    assert!((bench.asked_probability()[0] - 0.4).abs() < 1e-15);
}

/// A node's probability is one more number that a sweep may change.
#[test]
fn probabilities_of_nodes_can_be_swept() {
    let plan = plan(
        "name: a\ndata: {n_features: 3, firing_probability: 0.5, hierarchy: {tree: [{feature: 0, children: [{feature: 1}]}]}}\n\
         toy: {d_hidden: 2}\nsweep: {data.hierarchy.tree.0.children.0.probability: [0.1, 0.3]}\n",
    );
    let p = |cell: usize| {
        let world = resolve::world(&plan.cell(cell).data, 0, &plan.files).expect("no file is needed");
        world.firing_probability
    };
    assert_eq!((p(0), p(1)), (vec![0.5, 0.1, 0.5], vec![0.5, 0.3, 0.5]));
}

#[test]
fn the_experiment_of_the_readme_plans() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("it is there");
    let yaml = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an experiment");
    assert_eq!(plan(yaml).cells.len(), 8 * 3 * (3 + 1 + 1 + 1));
}

#[test]
fn ids_depend_on_settings_and_not_on_their_spelling_order_or_comments() {
    let one = plan(BASE);
    let other =
        plan("# a comment\ntoy: {d_hidden: 2.0}\ndata:\n  firing_probability: 1e-1\n  n_features: 4\nname: a\r\n");
    assert_eq!(one.ids, other.ids);
    assert_eq!(one.hash(), other.hash());
    for changed in [
        BASE.replace("d_hidden: 2", "d_hidden: 3"),
        BASE.replace("0.1", "0.2"),
        format!("{BASE}seeds: [1]\n"),
        format!("{BASE}evaluate: {{samples: 99}}\n"),
        BASE.replace("d_hidden: 2", "d_hidden: 2, restarts: 2"),
    ] {
        assert_ne!(one.ids, plan(&changed).ids, "{changed}");
    }
    // A default that is written out is the same cell; what is drawn or expected is not part of it.
    let same = [
        BASE.replace("d_hidden: 2", "d_hidden: 2, model: relu_output, train: {steps: 10000, optimizer: adam}"),
        format!("{BASE}question: why?\nexpect: [{{claim: c, value: count(*), at_least: 1}}]\n"),
    ];
    for text in same {
        assert_eq!(one.ids, plan(&text).ids, "{text}");
    }
}

#[test]
fn a_cell_keeps_its_id_when_axes_are_added_around_it() {
    let narrow = plan(&format!("{BASE}sweep: {{toy.d_hidden: [2, 3]}}\n"));
    let wide =
        plan(&format!("{BASE}seeds: 3\nsweep: {{toy.d_hidden: [1, 2, 3], data.firing_probability: [0.1, 0.5]}}\n"));
    assert!(narrow.ids.iter().all(|id| wide.ids.contains(id)));
    assert_eq!(wide.cells.len(), 18);
}

#[test]
fn axes_multiply_in_order_and_methods_take_only_their_own() {
    let text = format!(
        "{BASE}sae: [{{relu: {{n_latents: 8, l1: 0.1}}}}, {{topk: {{n_latents: 8, k: 1}}}}]\nbaselines: [random, pca]\n\
         sweep: {{toy.d_hidden: [2, 3], sae.topk.k: [1, 2, 4], sae.*.n_latents: [8, 16]}}\nseeds: 2\n"
    );
    let plan = plan(&text);
    // relu: 2 widths; topk: 3 k x 2 widths; random follows the width: 2; pca: 1.
    assert_eq!(plan.cells.len(), 2 * 2 * (2 + 6 + 2 + 1));
    let names: Vec<&str> = plan.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["toy.d_hidden", "sae.topk.k", "sae.*.n_latents"]);
    let mut ids = plan.ids.clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), plan.cells.len(), "no two cells are the same");
}

#[test]
fn zip_moves_axes_together_and_labels_them() {
    let text = format!("{BASE}zip: [{{toy.d_hidden: [1, 2], toy.restarts: [3, 4], label: [small, large]}}]\n");
    let plan = plan(&text);
    assert_eq!(plan.cells.len(), 2);
    let last = |name: &str| {
        let column = plan.columns.iter().find(|c| c.name == name).expect("the column is there");
        format!("{:?}", plan.axis_value(column, plan.cells[1]))
    };
    assert_eq!([last("toy.d_hidden"), last("toy.restarts"), last("label")], ["Int(2)", "Int(4)", "Text(\"large\")"]);
}

#[test]
fn each_zip_entry_may_have_a_label_of_its_own_name() {
    let entries = "{toy.d_hidden: [1, 2], label: [small, 4]}, {toy.restarts: [3, 4], label: {alpha: [0.5, 1]}}, \
                   {toy.train.steps: [10, 20], label: {pace: [1, fast]}}";
    let plan = plan(&format!("{BASE}zip: [{entries}]\nexclude: label.pace = 'fast' and label.alpha > 0.7\n"));
    assert_eq!(plan.cells.len(), 6);
    let first = |name: &str| {
        let column = plan.columns.iter().find(|c| c.name == name).expect("the column is there");
        format!("{:?}", plan.axis_value(column, plan.cells[0]))
    };
    assert_eq!(["label", "label.alpha", "label.pace"].map(first), ["Text(\"small\")", "Float(0.5)", "Text(\"1\")"]);
}

#[test]
fn exclude_leaves_cells_out_by_swept_and_fixed_paths() {
    let swept = format!("{BASE}sweep: {{toy.d_hidden: {{range: [1, 8]}}}}\nexclude: toy.d_hidden > data.n_features\n");
    assert_eq!(plan(&swept).cells.len(), 4);
}

#[test]
fn axis_rules_give_their_values() {
    let values = |rule: &str| {
        let plan = plan(&format!("{BASE}sweep: {{toy.train.lr: {rule}}}\n"));
        let column = plan.columns[0].clone();
        plan.cells.iter().map(|c| format!("{:?}", plan.axis_value(&column, *c))).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(values("{log: [0.01, 1, 3]}"), "Float(0.01) Float(0.1) Float(1.0)");
    assert_eq!(values("{linear: [0.5, 1, 3]}"), "Float(0.5) Float(0.75) Float(1.0)");
    assert_eq!(values("{range: [1, 3]}"), "Float(1.0) Float(2.0) Float(3.0)");
    assert_eq!(values("[1, 0.5]"), "Float(1.0) Float(0.5)");
}

/// Pairs say which rows are compared, not what is in them.
#[test]
fn pairs_of_widths_are_not_part_of_a_cell() {
    let two = "sae: [{name: one, topk: {n_latents: 4, k: 1}}, {name: two, topk: {n_latents: 8, k: 1}}]";
    let with = |score: &str| plan(&format!("{BASE}{two}\nscore: {score}\n"));
    let (one, other) = (with("[mcc, hedging]"), with("[mcc, {pairs: [[one, two]]}, hedging]"));
    assert_eq!((&one.ids, one.hash()), (&other.ids, other.hash()));
    assert_ne!(one.ids, with("[mcc]").ids);
    let section = other.document.experiment.score.as_ref().expect("it is written");
    assert_eq!((&section.names[..], section.pairs.len()), (&["mcc".to_owned(), "hedging".to_owned()][..], 1));
}

#[test]
fn schema_refuses_unknown_keys_and_knows_every_section() {
    let schema = explain::schema();
    assert_eq!(schema["additionalProperties"], false);
    for section in ["data", "toy", "sae", "sae_train", "sweep", "figures", "expect"] {
        assert!(schema["properties"].get(section).is_some(), "{section}");
    }
    assert_eq!(schema["properties"]["data"]["properties"]["n_features"]["type"], "integer");
    assert!(schema["required"].as_array().is_some_and(|r| r.iter().any(|k| k == "name")));
}

#[test]
fn explain_tells_meaning_and_default_of_a_field() {
    let text = explain::field("toy.train.lr").expect("the field is there");
    assert!(text.contains("Learning rate") && text.contains("default: 1e-3"), "{text}");
    assert!(explain::field("sae.topk.k").is_ok_and(|t| t.contains("must be given")));
    assert!(explain::field("toy.train.lrr").is_err_and(|e| e.contains("did you mean `lr`")));
    assert!(explain::field("data.hierarchy").is_ok_and(|t| t.contains("fire only where another does")));
}
