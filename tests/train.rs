//! `tegum train`: autoencoders on activations from files.

use std::path::Path;

use super::program::{Answer, tegum, write};
use ndarray::Array2;
use tegum::random::{Draws, Stream};

const SPEC: &str = "\
name: given
seeds: 2
sae:
  - topk: {n_latents: 12, k: 2}
  - relu: {n_latents: 12, l1: 0.02}
sae_train: {steps: 600, batch_size: 128, lr: 3e-3}
baselines: [pca, {ksvd: {k: 2, samples: 1000, iterations: 8}}]
save: {weights: all, trace: {every: 200}}
expect:
  - {claim: TopK explains the held-out rows, value: min(explained_variance), where: method = 'topk', at_least: 0.8}
";

/// Sums of directions in six dimensions: eight of them, each with probability 1/8.
pub fn activations(rows: usize) -> Array2<f32> {
    let mut draws = Draws::new(1, Stream::Train, 0);
    let mut directions = Array2::from_shape_simple_fn((8, 6), || draws.normal() as f32);
    for mut row in directions.rows_mut() {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.mapv_inplace(|x| x / norm);
    }
    let x = Array2::from_shape_simple_fn((rows, 8), || {
        let fires = draws.uniform() < 0.125;
        if fires { 0.5 + draws.uniform() as f32 } else { 0.0 }
    });
    x.dot(&directions)
}

pub fn save(folder: &Path, name: &str, h: &Array2<f32>) {
    ndarray_npy::write_npy(folder.join(name), h).expect("a temporary folder takes a file");
}

fn set_up() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    save(folder.path(), "acts.npy", &activations(6000));
    write(folder.path(), "given.yaml", SPEC);
    folder
}

fn good(folder: &Path, arguments: &[&str]) -> Answer {
    let answer = tegum(folder, arguments);
    assert_eq!(answer.code, 0, "{arguments:?}\n{}\n{}", answer.stdout, answer.stderr);
    answer
}

fn rows(folder: &Path, dir: &str) -> String {
    let select = "cell, seed, method, explained_variance, fvu, l0, dead, shrinkage";
    good(folder, &["table", dir, "--select", select, "--format", "csv"]).stdout
}

#[test]
fn autoencoders_and_baselines_are_trained_scored_and_kept() {
    let folder = set_up();
    let told = good(folder.path(), &["train", "acts.npy", "--spec", "given.yaml"]).stdout;
    assert!(told.contains("8 cells: 8 computed") && told.contains("PASS"), "{told}");
    let table = rows(folder.path(), "results/given");
    assert_eq!(table.lines().count(), 9, "{table}");
    let trace = "SELECT count(*) AS n FROM trace";
    let counted = good(folder.path(), &["table", "results/given", "--sql", trace, "--format", "csv"]).stdout;
    // Steps 0, 200, 400 and the last one of two autoencoders and two seeds.
    assert_eq!(counted, "n\n16\n");
    // Again: nothing is left to do, and other numbers of threads give the same.
    let told = good(folder.path(), &["train", "acts.npy", "--spec", "given.yaml"]).stdout;
    assert!(told.contains("8 cells: 0 computed"), "{told}");
    let one = ["train", "acts.npy", "--spec", "given.yaml", "--out", "one", "--threads", "1"];
    good(folder.path(), &one);
    assert_eq!(rows(folder.path(), "one"), table);
}

#[test]
fn the_same_rows_in_another_layout_give_other_cells_and_the_same_scores() {
    let folder = set_up();
    let h = activations(6000);
    let mut turned = Array2::zeros((6, 6000)).reversed_axes();
    turned.assign(&h);
    save(folder.path(), "turned.npy", &turned);
    good(folder.path(), &["train", "acts.npy", "--spec", "given.yaml", "--out", "a"]);
    let answer = good(folder.path(), &["train", "turned.npy", "--spec", "given.yaml", "--out", "b"]);
    assert!(answer.stderr.contains("Fortran"), "{}", answer.stderr);
    let scores = |dir: &str| -> Vec<String> {
        rows(folder.path(), dir).lines().map(|line| line.split_once(',').expect("columns").1.to_owned()).collect()
    };
    assert_eq!(scores("a"), scores("b"));
    assert_ne!(rows(folder.path(), "a"), rows(folder.path(), "b"));
}

#[test]
fn an_experiment_may_name_its_activations_and_shards_stand_in_a_folder() {
    let folder = set_up();
    let h = activations(3000);
    std::fs::create_dir(folder.path().join("shards")).expect("a folder");
    save(folder.path(), "shards/0.npy", &h.slice(ndarray::s![..1000, ..]).to_owned());
    save(folder.path(), "shards/1.npy", &h.slice(ndarray::s![1000.., ..]).to_owned());
    let text = format!("{SPEC}activations: {{files: shards, hold_out: 0.2}}\nsweep: {{sae.topk.k: [1, 2]}}\n");
    write(
        folder.path(),
        "named.yaml",
        &text.replace("name: given", "name: named").replace("at_least: 0.8", "at_least: 0"),
    );
    assert!(good(folder.path(), &["check", "named.yaml"]).stdout.contains("10 cells"));
    good(folder.path(), &["run", "named.yaml"]);
    let table = good(
        folder.path(),
        &[
            "table",
            "results/named",
            "--select",
            "sae.topk.k, avg(l0) as l0",
            "--group-by",
            "sae.topk.k",
            "--where",
            "method = 'topk'",
            "--format",
            "csv",
        ],
    );
    assert_eq!(table.stdout.lines().count(), 3, "{}", table.stdout);
}

#[test]
fn exports_go_to_every_format_with_codes_of_given_states() {
    let folder = set_up();
    good(folder.path(), &["train", "acts.npy", "--spec", "given.yaml"]);
    save(folder.path(), "some.npy", &activations(50));
    let cells = good(
        folder.path(),
        &["table", "results/given", "--select", "cell", "--where", "method = 'topk'", "--format", "csv"],
    );
    let cell = cells.stdout.lines().nth(1).expect("a cell").to_owned();
    let export = |extra: &[&str]| good(folder.path(), &[&["export", "results/given", "--cell", &cell], extra].concat());
    let told = export(&["--to", "saelens", "-o", "lens", "--encode", "some.npy"]).stdout;
    assert!(told.contains("topk"), "{told}");
    let config = std::fs::read_to_string(folder.path().join("lens/cfg.json")).expect("it was written");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    assert_eq!((&config["d_in"], &config["d_sae"], &config["k"]), (&6.into(), &12.into(), &2.into()));
    assert!(
        folder.path().join("lens/sae_weights.safetensors").exists()
            && folder.path().join("lens/codes.safetensors").exists()
    );
    export(&["--to", "npy", "-o", "arrays", "--encode", "some.npy"]);
    let read = |name: &str| -> Array2<f32> {
        ndarray_npy::read_npy(folder.path().join("arrays").join(name)).expect("an array")
    };
    let (latents, decoder, h) = (read("latents.npy"), read("sae.W_dec.npy"), read("reconstruction.npy"));
    let bias: ndarray::Array1<f32> =
        ndarray_npy::read_npy(folder.path().join("arrays/sae.b_dec.npy")).expect("an array");
    assert!((latents.dot(&decoder) + &bias - &h).iter().all(|e| e.abs() < 1e-5));
    assert!(latents.rows().into_iter().all(|z| z.iter().filter(|&&z| z != 0.0).count() <= 2));
    let pca = good(
        folder.path(),
        &["table", "results/given", "--select", "cell", "--where", "method = 'pca'", "--format", "csv"],
    );
    let pca = pca.stdout.lines().nth(1).expect("a cell").to_owned();
    let refused = tegum(folder.path(), &["export", "results/given", "--cell", &pca, "--to", "saelens"]);
    assert!(refused.code == 3 && refused.stderr.contains("no sparse autoencoder"), "{}", refused.stderr);
}

#[test]
fn what_is_wrong_is_said_with_its_place_before_anything_is_written() {
    let folder = set_up();
    let mut bad = activations(100);
    bad[[70, 3]] = f32::NAN;
    save(folder.path(), "nan.npy", &bad);
    save(folder.path(), "wide.npy", &Array2::<f32>::zeros((5, 7)));
    ndarray_npy::write_npy(folder.path().join("double.npy"), &Array2::<f64>::zeros((50, 6)))
        .expect("it can be written");
    let add = |name: &str, more: &str| write(folder.path(), name, &format!("{SPEC}{more}"));
    add("world.yaml", "data: {n_features: 3, firing_probability: 0.1}\n");
    add("twice.yaml", "activations: {files: acts.npy}\n");
    add("truth.yaml", "score: [mcc]\n");
    add("swept.yaml", "sweep: {data.n_features: [3, 4]}\n");
    write(folder.path(), "oracle.yaml", "name: a\nbaselines: [{oracle: {k: 2}}]\n");
    write(folder.path(), "narrow.yaml", "name: a\nbaselines:\n  - kmeans\n");
    write(folder.path(), "start.yaml", "name: a\nsae:\n  - topk: {n_latents: 12, k: 2, init: truth}\n");
    write(folder.path(), "nothing.yaml", "name: a\n");
    write(folder.path(), "braces.yaml", "{name: a, baselines: [pca]}\n");
    write(folder.path(), "both.yaml", &format!("{SPEC}activations: {{files: acts.npy}}\ntoy: {{d_hidden: 3}}\n"));
    for (arguments, code, parts) in [
        (&["train", "nan.npy", "--spec", "given.yaml"][..], 3, &["nan.npy", "[70, 3]", "NaN"][..]),
        (&["train", "acts.npy", "wide.npy", "--spec", "given.yaml"], 3, &["rows of 6", "of 7"]),
        (&["train", "double.npy", "--spec", "given.yaml"], 3, &["double.npy", "float64", "convert"]),
        (&["train", "none.npy", "--spec", "given.yaml"], 3, &["none.npy", "No such file"]),
        (&["train", "given.yaml", "--spec", "given.yaml"], 3, &["neither .npy nor .safetensors"]),
        (&["train", "acts.npy", "--spec", "world.yaml"], 3, &["world.yaml:11:", "`data` makes hidden states"]),
        (&["train", "acts.npy", "--spec", "twice.yaml"], 3, &["twice.yaml:11:", "on the command line"]),
        (&["train", "acts.npy", "--spec", "truth.yaml"], 3, &["truth.yaml:11:", "`mcc` needs a known truth"]),
        (&["train", "acts.npy", "--spec", "swept.yaml"], 3, &["swept.yaml:11:", "is no axis here"]),
        (&["train", "acts.npy", "--spec", "oracle.yaml"], 3, &["oracle.yaml:2:", "come without one"]),
        (&["train", "acts.npy", "--spec", "narrow.yaml"], 3, &["narrow.yaml:3:", "needs `n_latents`"]),
        (&["train", "acts.npy", "--spec", "start.yaml"], 3, &["start.yaml:3:", "come without them"]),
        (&["train", "acts.npy", "--spec", "nothing.yaml"], 3, &["nothing to train"]),
        (&["train", "acts.npy", "--spec", "braces.yaml"], 3, &["braces"]),
        (&["run", "both.yaml"], 3, &["both.yaml:12:", "both `toy` and `activations`"]),
        (&["train", "acts.npy", "--spec", "given.yaml", "--hold-out", "1"], 2, &["--hold-out 1"]),
        (&["train", "--spec", "given.yaml"], 2, &["required"]),
    ] {
        let answer = tegum(folder.path(), arguments);
        assert_eq!(answer.code, code, "{arguments:?}\n{}\n{}", answer.stdout, answer.stderr);
        parts.iter().for_each(|part| assert!(answer.stderr.contains(part), "{arguments:?}: {part}\n{}", answer.stderr));
    }
    assert!(!folder.path().join("results").exists());
}
