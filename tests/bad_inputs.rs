//! Wrong experiments stop before anything runs: exit 3, position, suggestion. Here stands what the list of bad inputs (matrix.rs) does
//! not name: rules of tegum's own settings.

use std::path::Path;

use super::program::{Answer, tegum, write};

/// The smallest right experiment, with something put in.
fn with(extra: &str) -> String {
    format!("name: a\ndata: {{n_features: 4, firing_probability: 0.1}}\ntoy: {{d_hidden: 2}}\n{extra}")
}

/// The same with two widths of one kind.
fn saes() -> String {
    with("sae:\n  - {name: one, topk: {n_latents: 4, k: 1}}\n  - {name: two, topk: {n_latents: 8, k: 1}}\n")
}

/// A world without a toy model.
const BARE: &str = "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 3}}\n";

/// A world with `extra` in it.
fn linked(extra: &str) -> String {
    format!("name: a\ntoy: {{d_hidden: 2}}\ndata: {{n_features: 4, firing_probability: 0.1,\n  {extra}}}\n")
}

fn check(folder: &Path, text: &[u8]) -> Answer {
    std::fs::write(folder.join("x.yaml"), text).expect("a temporary folder takes a file");
    tegum(folder, &["check", "x.yaml"])
}

/// Each row: name, file, what its message must hold.
macro_rules! rows {
    ($($name:ident: $text:expr, [$($needle:expr),+];)+) => {$(
        #[test]
        fn $name() {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let text = $text;
            let answer = check(folder.path(), text.as_ref());
            assert_eq!(answer.code, 3, "{}{}", answer.stdout, answer.stderr);
            for needle in [$($needle),+] {
                assert!(answer.stderr.contains(needle), "{needle:?} is missing in\n{}", answer.stderr);
            }
            let left = std::fs::read_dir(folder.path()).expect("it is readable").count();
            assert_eq!(left, 1, "nothing but the file itself is there");
        }
    )+};
}

rows! {
    a_figure_of_no_column: with("figures: [{curve: {x: seed, y: los}}]\n"), ["x.yaml:4:11: figure", "no column `los`", "did you mean `loss`"];
    a_figure_of_weights_that_are_not_kept: with("save: {weights: none}\nfigures: [{matrix: {bars: true}}]\n"),
        ["x.yaml:5:11: figure matrix-wtw: `matrix` draws weights, and the run keeps none", "save: {weights: best}"];
    a_figure_of_a_trace_that_is_not_kept: with("figures: [{trace: {y: loss}}]\n"), ["x.yaml:4:11: figure trace-loss", "`trace`", "save: {trace: {every: 100}}"];
    a_figure_of_snapshots_that_are_not_kept: with("figures: [{trace: {y: snapshots.dimensionality}}]\n"), ["x.yaml:4:11:", "`snapshots`", "features: true"];
    a_figure_of_cells_over_means: with("reduce: {seeds: mean}\nfigures: [{vectors: {}}]\n"), ["x.yaml:5:11:", "seeds are averaged", "seeds: lowest_loss"];
    a_trace_of_what_toy_models_do_not_log: format!("{}save: {{trace: {{every: 10}}}}\nfigures:\n  - trace: {{y: l0}}\n", saes()),
        ["x.yaml:9:5: figure trace-l0: `l0` is logged of autoencoders, and it draws the training of a toy model", "write `model: sae`"];
    a_trace_of_a_toy_model_beside_no_autoencoder: with("save: {trace: {every: 10}}\nfigures: [{trace: {y: [loss, trace.l0], model: toy}}]\n"),
        ["x.yaml:5:11: figure trace-loss-trace.l0: `l0` is logged of autoencoders", "`loss` is logged of toy models"];
    a_trace_of_an_autoencoder_that_is_not_trained: with("baselines: [pca]\nsave: {trace: {every: 10}}\nfigures: [{trace: {y: loss, model: sae}}]\n"),
        ["x.yaml:6:11: figure trace-loss: it draws `loss` along the training of an autoencoder, and none is trained", "leave `model` out"];
    a_trace_of_a_toy_model_that_is_not_there: format!("{BARE}sae: [{{topk: {{n_latents: 4, k: 1}}}}]\nsave: {{trace: {{every: 10}}}}\nfigures: [{{trace: {{y: loss, model: toy}}}}]\n"),
        ["x.yaml:5:11: figure trace-loss: it draws `loss` along the training of a toy model, and there is none", "leave `model` out"];
    a_trace_of_a_controller_that_is_not_there: format!("{}save: {{trace: {{every: 10}}}}\nfigures: [{{trace: {{y: multiplier, model: sae}}}}]\n", saes()),
        ["x.yaml:8:11: figure trace-multiplier: `multiplier` is logged of autoencoders that are led to an L0, and none is", "target_l0"];
    a_trace_of_an_autoencoder_s_capacity: format!("{}save: {{trace: {{every: 10, features: true}}}}\nfigures: [{{trace: {{y: capacity, model: sae}}}}]\n", saes()),
        ["x.yaml:8:11: figure trace-capacity: `capacity` is logged of toy models", "leave `model` out"];
    a_figure_of_the_best_seed_of_no_toy_model: format!("{BARE}seeds: 2\nbaselines: [pca]\nfigures: [{{curve: {{x: seed, y: mcc, seeds: lowest_loss}}}}]\n"),
        ["x.yaml:5:11: figure curve-seed-mcc: `seeds: lowest_loss` speaks of the toy model's loss, and there is none", "`seeds: mean`"];
    a_figure_of_cells_over_means_without_a_toy_model: format!("{BARE}sae: [{{topk: {{n_latents: 4, k: 1}}}}]\nsave: {{weights: all}}\nreduce: {{seeds: mean}}\nfigures: [{{matrix: {{show: decoder}}}}]\n"),
        ["x.yaml:6:11:", "seeds are averaged", "draw every seed with `seeds: all` in the figure"];
    a_figure_of_a_wrong_expression: with("figures: [{curve: {x: 1.0 / los, y: loss}}]\n"), ["x.yaml:4:11:", "cannot be evaluated", "los"];
    a_figure_of_no_theory: with("figures: [{curve: {x: seed, y: loss, theory: [theory_bondary]}}]\n"), ["x.yaml:4:11:", "did you mean `theory_boundary`?"];
    two_labels_of_one_name: with("zip: [{toy.d_hidden: [1, 2], label: [a, b]}, {toy.restarts: [1, 2], label: [c, d]}]\n"),
        ["x.yaml:4:69: axis `label` is given twice, first on line 4", "label: {NAME: [..]}"];
    a_label_with_a_name_that_is_none: with("zip: [{toy.d_hidden: [1, 2], label: {a b: [c, d]}}]\n"), ["x.yaml:4:38: `a b` cannot name a column", "letters"];
    labels_of_two_names: with("zip: [{toy.d_hidden: [1, 2], label: {a: [c, d], b: [c, d]}}]\n"), ["x.yaml:4:37: expected one name with its values"];
    a_figure_with_a_line_nowhere: with("figures: [{curve: {x: seed, y: loss, lines: [{label: a}]}}]\n"), ["x.yaml:4:46:", "lines needs `at`"];
    an_expectation_of_no_column: with("expect: [{claim: c, value: avg(los), at_least: 0}]\n"), ["x.yaml:4:10: expectation", "los"];
    an_expectation_that_does_not_parse: with("expect: [{claim: c, value: \"avg(loss\", at_least: 0}]\n"), ["x.yaml:4:10: expectation"];
    batch_topk_k_above_the_width: with("sae:\n  - batch_topk: {n_latents: 4, k: 4.5}\n"), ["x.yaml:5:35: k = 4.5 is greater than n_latents = 4 (line 5)"];
    k_anneal_from_above_the_width: with("sae:\n  - topk: {n_latents: 4, k: 1, k_anneal: {from: 9}}\n"), ["from = 9 is greater than n_latents = 4"];
    target_l0_and_a_coefficient: with("sae:\n  - relu:\n      n_latents: 4\n      l1: 0.1\n      target_l0: 2\n"),
        ["x.yaml:7:11: `l1` and `target_l0` (line 8) are both given", "leave `l1` out"];
    neither_target_l0_nor_a_coefficient: with("sae:\n  - jumprelu: {n_latents: 4}\n"), ["x.yaml:5:15: `l0` or `target_l0` is needed"];
    target_l0_of_zero: with("sae:\n  - gated: {n_latents: 4, target_l0: 0}\n"), ["x.yaml:5:38: 0 is out of range: expected a number above 0"];
    target_l0_above_the_width: with("sae:\n  - gated: {n_latents: 4, target_l0: 5}\n"), ["x.yaml:5:38: target_l0 = 5 is greater than n_latents = 4 (line 5)"];
    prefixes_out_of_order: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [3, 2, 4], topk: {k: 1}}\n"),
        ["x.yaml:5:46: prefix 2 after 3: prefixes are ascending"];
    prefixes_that_end_early: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [1, 3], topk: {k: 1}}\n"),
        ["x.yaml:5:46: the last prefix is 3, n_latents = 4 (line 5)", "end the list with 4"];
    no_prefixes: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [], topk: {k: 1}}\n"), ["no prefix: at least the whole is one"];
    too_many_sampled_prefixes: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: {sampled: {count: 5}}, topk: {k: 1}}\n"), ["count = 5 is greater than n_latents = 4"];
    a_matryoshka_without_a_rule: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [1, 4]}\n"), ["one of `relu`, `topk` and `batch_topk`"];
    a_matryoshka_with_two_rules: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [1, 4], topk: {k: 1}, relu: {l1: 1}}\n"), ["one of `relu`, `topk` and `batch_topk`"];
    a_nested_k_above_the_width: with("sae:\n  - matryoshka: {n_latents: 4, prefixes: [1, 4], batch_topk: {k: 6}}\n"), ["k = 6 is greater than n_latents = 4"];
    a_quadratic_target_above_the_width: with("sae:\n  - jumprelu: {n_latents: 4, l0: 1, sparsity: {quadratic: {target: 9}}}\n"), ["target = 9 is greater than n_latents = 4"];
    resampling_at_no_step: with("sae:\n  - relu: {n_latents: 4, l1: 1, resample: {at: []}}\n"), ["no step at which to resample"];
    equal_methods: with("sae: [{topk: {n_latents: 4, k: 1}}, {name: b, topk: {n_latents: 4, k: 1}}]\n"), ["two cells are the same"];
    baselines_are_not_trained: with("baselines: [{random: {n_latents: 3}, train: {lr: 1}}]\n"), ["a baseline is not trained"];
    swept_oracle_above_the_features: with("baselines: [{oracle: {k: 1}}]\nsweep: {baselines.oracle.k: [1, 9]}\n"), ["k = 9 is greater than n_features = 4"];
    curves_do_not_go_with_groups: with("").replace("0.1}", "{geometric: 0.5}, groups: [{together: [0, 1]}]}"), ["the members of a group"];
    a_pair_given_twice: linked("correlation: {pairs: [[0, 1, 0.1], [1, 0, 0.2]]}"), ["x.yaml:4:38: features 1 and 0 are paired twice"];
    a_pair_that_is_none: linked("correlation: {pairs: [[0, 1]]}"), ["x.yaml:4:25: expected a pair [i, j, rho]"];
    a_correlation_beside_groups: linked("correlation: {low_rank: {rank: 2}}, groups: [{together: [0, 1]}]"),
        ["x.yaml:4:16:", "`groups` and `correlation` both say which features fire together"];
    a_hierarchy_with_a_cycle: linked("hierarchy: {tree: [{feature: 0, children: [{feature: 1, children: [{feature: 0}]}]}]}"),
        ["x.yaml:4:80: feature 0 stands below itself: a cycle"];
    a_feature_with_two_parents: linked("hierarchy: {tree: [{feature: 0, children: [{feature: 2}]}, {feature: 1, children: [{feature: 2}]}]}"),
        ["x.yaml:4:96: feature 2 stands at two places", "two parents"];
    a_node_of_no_feature: linked("hierarchy: {tree: [{feature: 9}]}"), ["x.yaml:4:32: feature 9 in a tree, but features run from 0 to 3"];
    a_node_of_nothing: linked("hierarchy: {tree: [{exclusive: true}]}"), ["x.yaml:4:22: a node without feature and without children"];
    a_hierarchy_of_nothing: linked("hierarchy: {rates: exact}"), ["a hierarchy without trees"];
    trees_written_and_generated: linked("hierarchy: {roots: 1, tree: [{feature: 0}]}"), ["trees are written out or generated, not both"];
    a_child_more_frequent_than_its_parent: linked("hierarchy: {rates: exact, tree: [{feature: 0, children: [{feature: 1, probability: 0.2}]}]}"),
        ["x.yaml:4:22: feature 1 cannot fire at rate 0.2: its parent 0 fires at 0.1", "rates: conditional"];
    rivals_more_frequent_than_their_parent: linked("hierarchy: {rates: exact, tree: [{feature: 0, exclusive: true, children: [{feature: 1}, {feature: 2}]}]}"),
        ["exclude each other and cannot fire at rates of sum 0.2: parent 0 fires at 0.1"];
    parents_of_negative_values: linked("magnitude: {symmetric: 1}, hierarchy: {roots: 1}"), ["x.yaml:4:41: a parent is on where its value is above 0"];
    negative_importance: with("").replace("d_hidden: 2", "d_hidden: 2, importance: -1"), ["-1 is out of range: importance"];
    probabilities_have_an_upper_bound: with("").replace("0.1", "{folded_normal: {mean: 5}}"), ["has no upper bound"];
    a_curve_upside_down: with("").replace("0.1}", "{linear: {max: 0.1, min: 0.5}}}"), ["linear has min 0.5 above max 0.1"];
    a_training_set_of_no_samples: with("").replace("0.1}", "0.1, dataset: {samples: 0}}"), ["x.yaml:2:67: 0 is out of range", "from 1 to"];
    normalise_without_samples: with("").replace("0.1}", "0.1, dataset: {normalise: true}}"), ["x.yaml:2:57: dataset needs `samples`", "samples: 1000"];
    a_full_batch_of_fresh_samples: with("").replace("d_hidden: 2", "d_hidden: 2, train: {batch_size: full}"),
        ["x.yaml:3:40: a full batch needs a finite training set", "data.dataset"];
    a_batch_size_that_is_no_number: with("").replace("d_hidden: 2", "d_hidden: 2, train: {batch_size: ful}"), ["x.yaml:3:40: unknown batch_size `ful`", "did you mean `full`?"];
    a_training_set_without_a_toy_model: "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 4}, dataset: {samples: 9}}\nbaselines: [pca]\n",
        ["x.yaml:2:", "`dataset` is what toy models are trained on", "leave `dataset` out"];
    an_autoencoder_on_a_training_set: with("sae: [{topk: {n_latents: 4, k: 1}}]\n").replace("0.1}", "0.1, dataset: {samples: 9}}"),
        ["x.yaml:4:6: `sae` would train on fresh samples", "leave `sae` out, or `data.dataset` (line 2)"];
    a_training_set_s_score_without_one: with("score: [train_loss]\n"), ["x.yaml:4:9: `train_loss` needs a finite training set", "`data.dataset`"];
    a_rank_past_the_features: with("score: [dimensionality_rank_5]\n"), ["x.yaml:4:9: `dimensionality_rank_5`: there are 4 features, ranks 1 to 4"];
    a_whole_vector_as_a_score: with("score: [data_dimensionality]\n").replace("0.1}", "0.1, dataset: {samples: 9}}"),
        ["x.yaml:4:9: `data_dimensionality` is a vector over training samples", "`data_dimensionality_median`", "table `samples`"];
    snapshots_that_are_never_taken: with("save: {trace: {features: true}}\n"), ["x.yaml:4:26: `features` without `every`", "every: 100"];
    snapshots_of_no_toy_model: "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 4}}\nbaselines: [pca]\nsave: {trace: {every: 9, features: true}}\n",
        ["x.yaml:4:36: `features` follows a toy model's directions"];
    snapshots_beyond_reason: with("save: {trace: {every: 1, features: true}}\n").replace("n_features: 4", "n_features: 4000"),
        ["x.yaml:4:15: 40008000 rows of snapshots for one cell", "log every 5 steps or more"];
    an_expectation_of_value_and_query: with("expect: [{claim: c, value: avg(loss), sql: SELECT 1, at_least: 0}]\n"), ["x.yaml:4:10: an expectation has exactly one of value, sql"];
    an_expectation_of_neither: with("expect: [{claim: c, at_least: 0}]\n"), ["x.yaml:4:10: an expectation has exactly one of value, sql"];
    a_condition_beside_a_query: with("expect: [{claim: c, sql: SELECT 1, where: loss > 0, at_least: 0}]\n"), ["x.yaml:4:43: `where` belongs to `value`"];
    a_query_of_no_column: with("expect: [{claim: c, sql: SELECT avg(dimensionalty) FROM features, at_least: 0}]\n"),
        ["x.yaml:4:10: expectation", "no column `dimensionalty`", "did you mean `dimensionality`?"];
    a_query_of_no_table: with("expect: [{claim: c, sql: SELECT avg(norm) FROM feature, at_least: 0}]\n"), ["x.yaml:4:10: expectation", "feature"];
    a_query_of_two_columns: with("expect: [{claim: c, sql: \"SELECT min(norm) AS low, max(norm) AS high FROM features\", at_least: 0}]\n"), ["x.yaml:4:10: expectation", "gives 2 columns, not one"];
    a_query_of_a_table_that_is_not_kept: with("expect: [{claim: c, sql: SELECT avg(h_0) FROM samples, at_least: 0}]\n"), ["x.yaml:4:10: expectation", "h_0"];
    an_entry_of_no_list: with("sweep: {data.firing_probability.0: [0.1, 0.2]}\n"), ["x.yaml:4:9: `data.firing_probability` is no list, so it has no entry 0", "write `data.firing_probability` as a list"];
    an_entry_past_the_end: with("sweep: {data.firing_probability.4: [0.1, 0.2]}\n").replace("0.1}", "[0.1, 0.1, 0.1, 0.1]}"),
        ["x.yaml:4:9: `data.firing_probability` has 4 entries and none of number 4", "its entries run from 0 to 3"];
    an_entry_that_is_no_probability: with("sweep: {data.firing_probability.3: [0.1, 1.2]}\n").replace("0.1}", "[0.1, 0.1, 0.1, 0.1]}"), ["1.2 is out of range"];
    one_apart_above_its_bound: with("").replace("0.1}", "{first: {value: 0.1, others: 1.5}}}"), ["1.5 is out of range: firing_probability"];
    equal_combinations_of_a_zip: with("zip: [{toy.d_hidden: [1, 2, 1], toy.restarts: [3, 3, 3]}]\n"), ["x.yaml:4:29:", "with the same companions", "twice"];
    absolute_values_of_what_is_never_negative: with("").replace("d_hidden: 2", "model: absolute_value, d_hidden: 2"),
        ["x.yaml:3:14: absolute_value computes |x|, and in this world x is never negative", "add `magnitude: {symmetric: 1}` to `data`"];
    neurons_of_a_model_without_any: with("score: [n_monosemantic]\n"),
        ["x.yaml:4:9: `n_monosemantic` needs a toy model with neurons", "`relu_hidden`, `absolute_value` or `mlp`"];
    directions_at_an_impossible_cosine: "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 4, vectors: {cosine: -0.5}}}\nbaselines: [pca]\n",
        ["x.yaml:2:92: 4 directions cannot all have the cosine -0.5 with each other", "give a cosine in [-0.333"];
    directions_at_a_cosine_without_room: "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 3, vectors: {cosine: 0.5}}}\nbaselines: [pca]\n",
        ["x.yaml:2:71: 4 directions at one cosine with each other take d_hidden of at least 4, not 3", "widen d_hidden"];
    a_probability_that_leaves_its_range_on_the_way: with("").replace("0.1", "{from_to: {start: 0.5, end: -0.1}}"),
        ["x.yaml:2:43: -0.1 is out of range: firing_probability lies in [0, 1]"];
    an_exponential_curve_through_zero: with("").replace("0.1", "{exponential: {start: 0.5, end: 0}}"),
        ["0 is out of range", "above 0"];
    a_synthetic_model_beside_another_key: "name: a\ndata: {synthetic_model: m, n_features: 4}\nbaselines: [pca]\n",
        ["x.yaml:2:28: `synthetic_model` brings the whole world, `n_features` included", "leave it out"];
    a_synthetic_model_that_is_not_there: "name: a\ndata: {synthetic_model: m}\nbaselines: [pca]\n",
        ["x.yaml:2:25:", "synthetic_model_config.json", "give the folder that SAELens saved"];
    a_sweep_of_a_synthetic_model: "name: a\ndata: {synthetic_model: m}\nbaselines: [pca]\nsweep: {data.synthetic_model: [m, n]}\n",
        ["x.yaml:4:9:", "nothing of it can be swept"];
    neurons_of_a_dictionary: "name: a\ndata: {n_features: 4, firing_probability: 0.1, dictionary: {d_hidden: 4}}\nbaselines: [pca]\nscore: [n_neurons_0]\n",
        ["x.yaml:4:9: `n_neurons_0` needs a trained toy model"];
    theory_of_capacity_of_another_model: with("score: [theory_capacity_last]\n"), ["x.yaml:4:9: `theory_capacity_last` needs a toy model of kind `quadratic`"];
    theory_of_phases_of_another_model: with("score: [theory_phase_last]\n").replace("d_hidden: 2", "model: quadratic, d_hidden: 2"),
        ["x.yaml:4:9: `theory_phase_last` needs a toy model with a closed form: `relu_output` or `linear`"];
    unknown_activation: with("").replace("d_hidden: 2", "model: {mlp: {activation: rleu}}, d_hidden: 2"), ["unknown activation `rleu`", "did you mean `relu`?"];
    unknown_setting_of_a_model: with("").replace("d_hidden: 2", "model: {mlp: {d_embeding: 8}}, d_hidden: 2"), ["unknown key `d_embeding` in mlp", "did you mean `d_embedding`?"];
    a_model_without_settings_given_some: with("").replace("d_hidden: 2", "model: {relu_hidden: {bias: 1}}, d_hidden: 2"), ["expected nothing more: this choice has no settings"];
    a_bias_that_decays_past_zero: with("").replace("d_hidden: 2", "model: {mlp: {bias: -1, bias_decay: 2000}}, d_hidden: 2"),
        ["x.yaml:3:43: bias_decay 2000 times lr 0.001 is not below 1", "a rate such as 0.03"];
    more_blocks_than_features: with("").replace("0.1}", "0.1, groups: {blocks: {count: 9, rule: exclusive}}}"), ["x.yaml:2:", "9 blocks of 4 features", "at least one feature"];
    swept_blocks_above_the_features: with("sweep: {data.groups.blocks.count: [2, 5]}\n").replace("0.1}", "0.1, groups: {blocks: {count: 2, rule: exclusive}}}"), ["5 blocks of 4 features"];
    blocks_of_no_rule: with("").replace("0.1}", "0.1, groups: {blocks: {count: 2, rule: exclusiv}}}"), ["unknown rule `exclusiv`", "did you mean `exclusive`?"];
    blocks_without_a_count: with("").replace("0.1}", "0.1, groups: {blocks: {rule: together}}}"), ["blocks needs `count`"];
    curves_do_not_go_with_blocks: with("").replace("0.1}", "{geometric: 0.5}, groups: {blocks: {count: 2, rule: together}}}"), ["the members of a group"];
    an_oracle_that_pursues_needs_k: with("baselines: [{oracle: {encoder: omp}}]\n"), ["x.yaml:4:", "the encoder `omp` of an oracle needs `k`"];
    an_oracle_by_fista_takes_no_k: with("baselines: [{oracle: {encoder: fista, k: 2}}]\n"), ["x.yaml:4:", "takes no `k`", "leave `k` out"];
    a_penalty_above_the_start: with("baselines: [{oracle: {encoder: {fista: {l1: 0.5}}}}]\n"), ["l1 = 0.5 is out of range"];
    scores_of_sets_need_sets: with("score: [cosine_within]\n"), ["x.yaml:4:9: `cosine_within` needs sets of features: `data.groups`"];
    one_width_is_compared_with_none: format!("{}score: [hedging]\n", saes()),
        ["x.yaml:7:9: `hedging` compares two widths of a dictionary, and here each has one", "sweep an `n_latents`", "`pairs: [[narrow, wide]]`"];
    pairs_of_an_unknown_entry: format!("{}score: [hedging, {{pairs: [[one, tow]]}}]\n", saes()),
        ["x.yaml:7:33: no entry of `sae` or `baselines` is called `tow`", "did you mean `two`?"];
    pairs_the_wrong_way_round: format!("{}score: [hedging, {{pairs: [[two, one]]}}]\n", saes()),
        ["x.yaml:7:27: `one` is not wider than `two`: 4 latents and 8", "a pair is [narrow, wide]"];
    pairs_of_three: format!("{}score: [hedging, {{pairs: [[one, two, one]]}}]\n", saes()),
        ["x.yaml:7:27: expected the names of two entries, [narrow, wide]"];
    pairs_that_nothing_compares: format!("{}score: [mcc, {{pairs: [[one, two]]}}]\n", saes()),
        ["x.yaml:7:23: `pairs` without a score that compares two widths", "add `hedging` or `mmcs_larger`"];
    an_item_of_score_with_another_key: format!("{}score: [mcc, {{pair: [[one, two]]}}]\n", saes()),
        ["x.yaml:7:15: unknown score setting `pair`", "did you mean `pairs`?"];
    widths_whose_weights_are_not_kept: format!("{}score: [mmcs_larger, {{pairs: [[one, two]]}}]\nsave: {{weights: best}}\n", saes()),
        ["x.yaml:8:17: `mmcs_larger` compares the decoders of two cells, and the run keeps the weights of the best seed alone", "write `save: {weights: all}`"];
    hedging_without_a_dictionary: with("score: [hedging]\n"), ["x.yaml:4:9: `hedging` needs a dictionary"];
    a_gap_without_its_baselines: format!("{}score: [mcc, random_gap_mcc]\n", saes()),
        ["x.yaml:7:14: `random_gap_mcc` needs an `oracle` and a `random` among the `baselines`"];
    a_gap_of_a_score_that_is_not_taken: with("baselines: [random, {oracle: {k: 2}}]\nscore: [mcc, oracle_gap_f1]\n"),
        ["x.yaml:5:14: `oracle_gap_f1` is made of `f1`", "add `f1` to `score`"];
    a_rank_correlation_of_no_column: with("expect: [{claim: c, value: \"spearman(loss, los)\", at_least: 0}]\n"), ["x.yaml:4:10: expectation", "los"];
}

#[test]
fn a_model_without_a_bottleneck_is_a_warning_and_an_error_with_strict() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text =
        "name: a\ndata: {n_features: 4, firing_probability: 0.1}\ntoy: {d_hidden: 2}\nsweep: {toy.d_hidden: [2, 8]}\n";
    write(folder.path(), "x.yaml", text);
    let said = "x.yaml:4:27: d_hidden 8 is wider than n_features 4: no bottleneck";
    let warned = tegum(folder.path(), &["check", "x.yaml"]);
    assert_eq!(warned.code, 0);
    assert!(warned.stderr.contains(&format!("warning: {said}")), "{}", warned.stderr);
    for command in ["check", "run"] {
        let refused = tegum(folder.path(), &[command, "x.yaml", "--strict"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        assert!(refused.stderr.starts_with(said) && refused.stderr.contains("give 4 at most"), "{}", refused.stderr);
    }
}

/// Strong correlations of random signs between twelve features are no correlation matrix; rows of nine normal numbers have
/// squares of about 9.
#[test]
fn a_repaired_correlation_is_a_warning_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let random = "{random: {strength: [0.7, 0.9], uncorrelated: 0}}";
    for (correlation, words) in [
        (random, "had a least eigenvalue of -"),
        ("{low_rank: {rank: 9, scale: 1}}", "rows of the low-rank correlation"),
    ] {
        write(
            folder.path(),
            "x.yaml",
            &linked(&format!("correlation: {correlation}")).replace("n_features: 4", "n_features: 12"),
        );
        for arguments in [&["check", "x.yaml"][..], &["world", "x.yaml"]] {
            let answer = tegum(folder.path(), arguments);
            assert_eq!(answer.code, 0, "{}", answer.stderr);
            assert!(answer.stderr.contains("warning: x.yaml:4:16: seed 0: "), "{arguments:?} {}", answer.stderr);
            assert!(answer.stderr.contains(words), "{arguments:?} {}", answer.stderr);
        }
        let refused = tegum(folder.path(), &["run", "x.yaml", "--strict"]);
        assert!(refused.code == 3 && refused.stderr.contains(words), "{}", refused.stderr);
    }
    write(folder.path(), "x.yaml", &linked("correlation: {low_rank: {rank: 2, scale: 0.1}}"));
    let fine = tegum(folder.path(), &["check", "x.yaml"]);
    assert!(fine.code == 0 && !fine.stderr.contains("warning"), "{}", fine.stderr);
}

#[test]
fn row_01_a_missing_file_names_its_neighbours() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "quickstart.yaml", "name: a\n");
    let answer = tegum(folder.path(), &["check", "quikstart.yaml"]);
    assert_eq!(answer.code, 3);
    assert!(answer.stderr.contains("no such file") && answer.stderr.contains("did you mean ./quickstart.yaml?"));
}

#[test]
fn row_02_a_folder_is_not_an_experiment() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let answer = tegum(folder.path(), &["check", "."]);
    assert!(answer.code == 3 && answer.stderr.contains("not a regular file"));
}

#[test]
fn rows_13_and_14_a_byte_order_mark_and_carriage_returns_change_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let hash = |text: &str| {
        let answer = check(folder.path(), text.as_bytes());
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        answer.stdout.lines().next().map(str::to_owned)
    };
    let plain = with("");
    assert_eq!(hash(&plain), hash(&format!("\u{feff}{}", plain.replace('\n', "\r\n"))));
}

#[test]
fn all_errors_of_a_file_are_shown_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text =
        "name: a/b\nseeds: 0\ndata: {n_features: -1, firing_probability: 0.1}\ntoy: {d_hidden: 2, init: xaver}\n";
    let answer = check(folder.path(), text.as_bytes());
    for place in ["x.yaml:1:7:", "x.yaml:2:8:", "x.yaml:3:20:", "x.yaml:4:26:"] {
        assert!(answer.stderr.contains(place), "{place} is missing in\n{}", answer.stderr);
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for arguments in
        [&["run"][..], &["run", "x.yaml", "--shard", "9/8"], &["run", "x.yaml", "--shard", "0/0"], &["frobnicate"]]
    {
        assert_eq!(tegum(folder.path(), arguments).code, 2, "{arguments:?}");
    }
}

/// A world from a file, `[2, 2]` of single precision.
fn world_of(folder: &Path, first: f32) -> std::path::PathBuf {
    let array = ndarray::arr2(&[[first, 1.0], [0.0, 1.0]]);
    ndarray_npy::write_npy(folder.join("m.npy"), &array).expect("a temporary folder takes a file");
    let text = "name: a\nbaselines: [random]\ndata: {n_features: 2, firing_probability: 0.1,\n  \
                dictionary: {d_hidden: 2, vectors: {file: m.npy}}}\nevaluate: {samples: 100}\n";
    folder.join(write(folder, "x.yaml", text))
}

#[test]
fn row_108_a_file_of_the_world_that_changes_is_an_error_and_not_another_world() {
    use tegum::plan::{MOST_CELLS, Plan, Versions, resolve};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = world_of(folder.path(), 1.0);
    let document = tegum::spec::Document::load(&file).expect("it is sound");
    let plan = Plan::new(document, &Versions { algorithms: "a", profile: "p" }, MOST_CELLS).expect("it is sound");
    let data = plan.cell(0).data;
    assert!(resolve::dictionary(&data, 0, &plan.files).is_some_and(|made| made.is_ok()));
    world_of(folder.path(), 2.0);
    let told = resolve::dictionary(&data, 0, &plan.files).expect("there is one").expect_err("it has changed");
    assert!(told.contains("x.yaml:4:45: m.npy has changed since the plan was made"), "{told}");
    // Back as it was it is the same world.
    world_of(folder.path(), 1.0);
    assert!(resolve::dictionary(&data, 0, &plan.files).is_some_and(|made| made.is_ok()));
}

#[test]
fn row_108_a_changed_file_gives_other_cells() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cells = |first: f32| {
        world_of(folder.path(), first);
        let answer = tegum(folder.path(), &["plan", "x.yaml"]);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        answer.stdout
    };
    let one = cells(1.0);
    assert_ne!(one, cells(2.0));
    assert_eq!(one, cells(1.0));
}

#[test]
fn row_109_the_locale_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "x.yaml", &with(""));
    let said = |locale: &str| {
        let mut command = super::program::command(folder.path(), &["check", "x.yaml"]);
        command.env("LC_ALL", locale).env("LANG", locale);
        super::program::answer(command.output().expect("the binary starts")).stdout
    };
    assert!(said("C").contains("1 cells"));
    assert_eq!(said("C"), said("de_DE.UTF-8"));
}

#[test]
fn row_110_a_reader_that_goes_away_is_no_panic() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "x.yaml", &with(""));
    for arguments in [&["check", "x.yaml"][..], &["check", "y.yaml"], &["explain"], &["schema"]] {
        let mut command = super::program::command(folder.path(), arguments);
        let (out, err) = (Stdio::piped(), Stdio::piped());
        let mut child = command.stdout(out).stderr(err).env("COLUMNS", "20").spawn().expect("the binary starts");
        drop((child.stdout.take(), child.stderr.take()));
        let code = child.wait().expect("it ends").code();
        assert!(matches!(code, Some(0..=7)), "{arguments:?}: {code:?}");
    }
}
