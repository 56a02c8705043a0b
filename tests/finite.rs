//! Finite training sets, snapshots along training and queries as gates, through the binary.

use std::path::Path;

use super::program::{tegum, write};

const FINITE: &str = "\
name: finite
seeds: 2
data:
  n_features: 12
  firing_probability: 0.2
  groups: [{together: [0, 1]}, {together: [2, 3]}]
  dataset: {samples: 8, normalise: true}
toy:
  d_hidden: 2
  restarts: 2
  train: {steps: 300, batch_size: full, optimizer: adamw, lr: 3e-3, schedule: {warmup_cosine: 0.1}, loss_scale: sum}
save: {trace: {every: 100, features: true}}
score: [loss, loss_weighted, train_loss, train_loss_weighted, data_dimensionality_median, data_dimensionality_rank_2,
  dimensionality_rank_5, w_norm, b_norm]
evaluate: {samples: 3000}
reduce: {seeds: lowest_loss}
sweep:
  data.dataset.samples: [3, 8]
  toy.train.batch_size: [full, 2]
expect:
  - {claim: rows are those of the best seeds, value: count(*), equals: 4}
  - {claim: and so are side tables, sql: SELECT count(DISTINCT cell) FROM snapshots, equals: 4}
  - {claim: joined with rows, sql: SELECT count(*) FROM rows AS r JOIN samples AS s ON r.cell = s.cell, equals: 22}
  - {claim: every sample has a share, sql: SELECT min(data_dimensionality) FROM samples WHERE l0 > 0, at_least: 0}
";

fn ask(folder: &Path, out: &str, sql: &str) -> String {
    let answer = tegum(folder, &["table", out, "--sql", sql, "--format", "csv"]);
    assert_eq!(answer.code, 0, "{sql}: {}", answer.stderr);
    answer.stdout
}

fn run(folder: &Path, arguments: &[&str]) -> String {
    let answer = tegum(folder, &[&["run", "finite.yaml"], arguments].concat());
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    answer.stdout
}

/// All rows of all tables in exact text.
fn everything(folder: &Path, out: &str) -> Vec<String> {
    let tables = ["rows", "features", "trace", "snapshots", "samples"];
    tables.map(|table| ask(folder, out, &format!("SELECT * FROM {table}"))).to_vec()
}

#[test]
fn samples_and_snapshots_come_back_and_the_last_snapshot_is_the_trained_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "finite.yaml", FINITE);
    let told = run(folder, &["--out", "out"]);
    assert!(told.contains("8 cells: 8 computed") && told.contains("4 of 4 expectations hold"), "{told}");
    let count = |sql: &str| ask(folder, "out", sql);
    assert_eq!(count("SELECT count(*) AS n FROM samples"), "n\n44\n");
    // Logged at steps 0, 100, 200, 299 and once more when trained.
    assert_eq!(count("SELECT count(*) AS n FROM snapshots"), "n\n480\n");
    assert_eq!(count("SELECT count(*) AS n FROM trace WHERE capacity > 0 AND cosine_within <= 1"), "n\n32\n");
    let same = "SELECT count(*) AS n FROM snapshots AS s JOIN features AS f ON s.cell = f.cell AND s.feature = f.feature \
                WHERE s.step = 300 AND s.norm = f.norm AND s.dimensionality = f.dimensionality AND s.w_0 = f.w_0 AND s.w_1 = f.w_1";
    assert_eq!(count(same), "n\n96\n");
    // The median of the samples of a cell is its column, and a sample's share follows from the hidden states.
    let medians = "SELECT count(*) AS n FROM rows AS r JOIN (SELECT cell, median(data_dimensionality) AS m FROM samples \
                   GROUP BY cell) AS s ON r.cell = s.cell WHERE abs(r.data_dimensionality_median - s.m) < 0.000000000001";
    assert_eq!(count(medians), "n\n8\n");
    let norms = "SELECT count(*) AS n FROM samples WHERE abs(h_norm - sqrt(h_0 * h_0 + h_1 * h_1)) < 0.000001";
    assert_eq!(count(norms), "n\n44\n");
    let finite = "SELECT count(*) AS n FROM rows WHERE train_loss > 0 AND abs(train_loss * 12 / train_loss_weighted - 1) < 1e-6 \
                  AND w_norm > 0 AND b_norm > 0 AND status = 'ok'";
    assert_eq!(count(finite), "n\n8\n");
}

#[test]
fn threads_shards_and_lost_files_change_no_bit_of_any_table() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "finite.yaml", FINITE);
    run(folder, &["--threads", "1", "--out", "one"]);
    run(folder, &["--threads", "2", "--out", "two"]);
    run(folder, &["--shard", "1/2", "--out", "shards"]);
    run(folder, &["--shard", "0/2", "--out", "shards"]);
    let one = everything(folder, "one");
    assert_eq!(one[3].lines().count(), 481);
    assert_eq!(one, everything(folder, "two"));
    assert_eq!(one, everything(folder, "shards"));
    for side in ["samples", "snapshots"] {
        // A cell whose side table is gone is not done.
        std::fs::remove_dir_all(folder.join("two").join(side)).expect("the table was written");
        assert!(run(folder, &["--out", "two"]).contains("8 computed"));
        assert_eq!(one, everything(folder, "two"));
    }
    assert!(run(folder, &["--out", "two"]).contains("0 computed"));
}

#[test]
fn more_samples_keep_the_first_ones_and_a_query_that_fails_shows_what_it_measured() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "finite.yaml", &FINITE.replace("WHERE l0 > 0, at_least: 0", "WHERE l0 > 0, at_least: 2"));
    let answer = tegum(folder, &["run", "finite.yaml", "--out", "out"]);
    assert_eq!(answer.code, 8, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stdout.contains("FAIL") && answer.stdout.contains(">= 2"), "{}", answer.stdout);
    let firing = |samples: &str| {
        let sql = format!(
            "SELECT seed, sample, l0 FROM samples WHERE \"data.dataset.samples\" = {samples} AND sample < 3 AND \
             \"toy.train.batch_size\" = 'full' ORDER BY seed, sample"
        );
        ask(folder, "out", &sql)
    };
    assert_eq!(firing("3"), firing("8"));
    assert_eq!(firing("3").lines().count(), 7);
}

#[test]
fn an_axis_may_be_one_entry_of_a_list() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "name: finite\ndata: {n_features: 3, firing_probability: [0.05, 0.05, 0.05]}\n\
                toy: {d_hidden: 2, train: {steps: 2, batch_size: 16}}\nscore: [loss]\nevaluate: {samples: 16}\n\
                sweep: {data.firing_probability.1: [0.01, 0.1]}\n\
                expect: [{claim: c, value: max(data.firing_probability.1), equals: 0.1}]\n";
    write(folder.path(), "finite.yaml", text);
    run(folder.path(), &["--out", "out"]);
    let sql = "SELECT \"data.firing_probability.1\" AS p, firing_probability FROM features ORDER BY p, feature";
    assert_eq!(
        ask(folder.path(), "out", sql),
        "p,firing_probability\n0.01,0.05\n0.01,0.01\n0.01,0.05\n0.1,0.05\n0.1,0.1\n0.1,0.05\n"
    );
}

/// Kinds without a kernel of their own for finite sets read the same samples through dense batches.
#[test]
fn every_kind_of_model_trains_on_a_finite_set_alike_on_one_thread_and_two() {
    for model in ["relu_hidden", "absolute_value", "{mlp: {d_embedding: 5, activation: gelu}}", "quadratic"] {
        for batch_size in ["full", "3"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let text = format!(
                "name: finite\ndata: {{n_features: 6, firing_probability: 0.4, magnitude: {{symmetric: 1}}, dataset: {{samples: 10}}}}\n\
                 toy: {{model: {model}, d_hidden: 4, restarts: 2, train: {{steps: 300, batch_size: {batch_size}, lr: 1e-2}}}}\n\
                 save: {{trace: {{every: 100, features: true}}}}\nscore: [loss, train_loss, data_dimensionality_mean]\nevaluate: {{samples: 1000}}\n"
            );
            write(folder.path(), "finite.yaml", &text);
            let folder = folder.path();
            run(folder, &["--threads", "1", "--out", "one"]);
            run(folder, &["--threads", "2", "--out", "two"]);
            assert_eq!(everything(folder, "one"), everything(folder, "two"), "{model} {batch_size}");
            let learned = "SELECT min(loss) < 0.9 * max(loss) AS v FROM trace";
            assert_eq!(ask(folder, "one", learned), "v\ntrue\n", "{model} {batch_size}");
        }
    }
}
