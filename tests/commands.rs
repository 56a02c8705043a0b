//! The commands that look: check, plan, table, explain, schema, export, devices, init.

use super::program::{SMALL, tegum, write};

#[test]
fn check_counts_cells_names_lines_and_runs_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "small.yaml", SMALL);
    let answer = tegum(folder.path(), &["check", &file]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stdout.contains("small: 32 cells"), "{}", answer.stdout);
    assert!(
        answer.stdout.contains("toy.d_hidden (line 14): 2 values, 4 to 6, replaces the value on line 4"),
        "{}",
        answer.stdout
    );
    assert!(answer.stdout.contains("estimates"), "{}", answer.stdout);
    assert!(!folder.path().join("results").exists());
}

#[test]
fn plan_lists_every_cell_with_its_id_and_values() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "small.yaml", SMALL);
    let answer = tegum(folder.path(), &["plan", &file, "--list"]);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines.len(), 32);
    assert!(lines[0].contains("data.firing_probability=0.05 toy.d_hidden=4 seed=0 method=relu"), "{}", lines[0]);
}

#[test]
fn table_selects_groups_and_answers_sql() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "small.yaml", SMALL);
    assert_eq!(tegum(folder.path(), &["run", &file]).code, 0);
    let table = |arguments: &[&str]| {
        let answer = tegum(folder.path(), &[&["table", "results/small"], arguments].concat());
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        answer.stdout
    };
    let grouped = table(&["--select", "method, count(*) as n", "--group-by", "method", "--format", "csv"]);
    assert_eq!(grouped, "method,n\nrelu,8\ntopk,8\nrandom,8\npca,8\n");
    let filtered = table(&["--select", "seed", "--where", "method = 'topk' and toy.d_hidden = 4", "--format", "csv"]);
    assert_eq!(filtered.lines().count(), 5);
    let json: serde_json::Value = serde_json::from_str(&table(&["--format", "json"])).expect("JSON");
    assert_eq!(json.as_array().map(Vec::len), Some(32));
    table(&["--format", "parquet", "-o", "rows.parquet"]);
    let bytes = std::fs::read(folder.path().join("rows.parquet")).expect("the file was written");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    let written = |file: &str, more: &[&str]| {
        table(&[&["--select", "seed", "--where", "seed = 1", "-o", file], more].concat());
        std::fs::read_to_string(folder.path().join(file)).expect("the file was written")
    };
    // The ending of the file says how, unless something else is asked for.
    assert!(written("rows.csv", &[]).starts_with("seed\n1\n1\n"));
    assert!(written("rows.json", &[]).starts_with("[\n{\"seed\":1},"));
    assert!(written("rows.dat", &[]).starts_with("seed\n   1\n"));
    assert!(written("again.csv", &["--format", "text"]).starts_with("seed\n   1\n"));
    let unknown = tegum(folder.path(), &["table", "results/small", "--select", "mccc"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("mcc"), "{}", unknown.stderr);
}

#[test]
fn export_gives_the_same_weights_whether_they_were_kept_or_trained_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = SMALL.replace("save: {", "save: {weights: all, ").replace("name: small", "name: kept");
    let (small, kept) = (write(folder.path(), "small.yaml", SMALL), write(folder.path(), "kept.yaml", &kept));
    for file in [&small, &kept] {
        assert_eq!(tegum(folder.path(), &["run", file]).code, 0);
    }
    let cells = tegum(
        folder.path(),
        &["table", "results/small", "--select", "cell", "--where", "method = 'topk'", "--format", "csv"],
    );
    let cell = cells.stdout.lines().nth(1).expect("a cell").to_owned();
    let export = |run: &str, to: &str, out: &str| {
        let answer = tegum(folder.path(), &["export", run, "--cell", &cell, "--to", to, "-o", out]);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        answer.stdout
    };
    let told = export("results/small", "safetensors", "again.safetensors");
    assert!(told.contains("toy.w [12, 4]"), "{told}");
    export("results/kept", "safetensors", "kept.safetensors");
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("it was written");
    assert_eq!(read("again.safetensors"), read("kept.safetensors"));
    export("results/kept", "npy", "arrays");
    let w: ndarray::Array2<f32> = ndarray_npy::read_npy(folder.path().join("arrays/toy.w.npy")).expect("an array");
    assert_eq!(w.dim(), (12, 4));
}

/// f32 sums of 12 products of size up to some 3: 24 * 6e-8 * 3 < 1e-5.
#[test]
fn exported_latents_are_those_of_the_exported_weights() {
    use ndarray::{Array1, Array2};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = SMALL.replace("save: {", "save: {weights: all, ").replace("name: small", "name: kept");
    for (name, text) in [("small.yaml", SMALL), ("kept.yaml", &kept)] {
        let file = write(folder.path(), name, text);
        assert_eq!(tegum(folder.path(), &["run", &file]).code, 0);
    }
    let h = Array2::from_shape_fn((7, 4), |(s, k)| ((5 * s + 3 * k) % 11) as f32 / 4.0 - 1.0);
    ndarray_npy::write_npy(folder.path().join("h.npy"), &h).expect("a temporary folder takes a file");
    for method in ["relu", "topk", "pca", "random"] {
        let of_width = format!("method = '{method}' and toy.d_hidden = 4");
        let ask = ["table", "results/kept", "--select", "cell", "--where", &of_width, "--format", "csv"];
        let cell = tegum(folder.path(), &ask).stdout.lines().nth(1).expect("a cell").to_owned();
        for run in ["small", "kept"] {
            let (dir, out) = (format!("results/{run}"), format!("{run}-{method}"));
            let arguments = ["export", &dir, "--cell", &cell, "--to", "npy", "--encode", "h.npy", "-o", &out];
            let answer = tegum(folder.path(), &arguments);
            assert_eq!(answer.code, 0, "{method} {}", answer.stderr);
        }
        let path = |run: &str, name: &str| folder.path().join(format!("{run}-{method}")).join(format!("{name}.npy"));
        let matrix = |run: &str, name: &str| -> Array2<f32> { ndarray_npy::read_npy(path(run, name)).expect(name) };
        let vector = |name: &str| -> Array1<f32> { ndarray_npy::read_npy(path("kept", name)).expect(name) };
        for name in ["latents", "reconstruction"] {
            assert_eq!(matrix("kept", name), matrix("small", name), "{method}");
        }
        let (latents, decoder) = (matrix("kept", "latents"), matrix("kept", "sae.W_dec"));
        assert!(latents.iter().any(|z| *z != 0.0), "{method}");
        if !["relu", "topk"].contains(&method) {
            continue;
        }
        let off = matrix("kept", "reconstruction") - (latents.dot(&decoder) + vector("sae.b_dec"));
        assert!(off.iter().all(|x| x.abs() < 1e-5), "{method} {off}");
        let pre = (h.clone() - vector("sae.b_dec")).dot(&matrix("kept", "sae.W_enc").t()) + vector("sae.b_enc");
        let differs = |(z, pre): (&f32, &f32)| (z - pre.max(0.0)).abs() > 1e-5 && (method == "relu" || *z != 0.0);
        assert!(!latents.iter().zip(&pre).any(differs), "{method}");
    }
}

#[test]
fn explain_and_schema_speak_of_scores_and_fields() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let explain = |name: &str| tegum(folder.path(), &["explain", name]);
    assert!(explain("mcc").stdout.contains("version 1"));
    // Scores of two cells too.
    assert!(explain("hedging").stdout.contains("arXiv 2505.11756"));
    assert!(explain("mmcs_larger").stdout.contains("Sharkey et al. 2022"));
    assert!(explain("random_gap_f1").stdout.contains("(f1 - random) / (oracle - random)"));
    assert!(explain("data.magnitude").stdout.contains("default: uniform"));
    let wrong = explain("mccc");
    assert!(wrong.code == 3 && wrong.stderr.contains("`mcc`"), "{}", wrong.stderr);
    let schema = tegum(folder.path(), &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).expect("JSON");
    assert_eq!(schema["title"], "tegum experiment");
}

#[test]
fn init_writes_starters_that_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for starter in ["quickstart", "toy", "sae"] {
        let name = format!("my-{starter}");
        assert_eq!(tegum(folder.path(), &["init", &name, "--from", starter]).code, 0);
        let answer = tegum(folder.path(), &["check", &format!("{name}.yaml")]);
        assert!(answer.code == 0 && answer.stdout.starts_with(&format!("{name}: ")), "{}", answer.stderr);
    }
    assert_eq!(tegum(folder.path(), &["init", "my-toy"]).code, 5, "nothing is overwritten");
}

#[test]
fn devices_names_the_processor_and_what_cuda_lacks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let answer = tegum(folder.path(), &["devices"]);
    assert!(answer.code == 0 && answer.stdout.contains("cpu   available"), "{}", answer.stdout);
    assert!(answer.stdout.contains("cuda  ") && answer.stdout.contains("NVRTC"), "{}", answer.stdout);
}

/// A small world with everything that a synthetic model holds.
const LINKED: &str = "\
name: linked
data:
  n_features: 30
  firing_probability: {zipf: {exponent: 0.5, max: 0.4, min: 0.05}}
  magnitude: {normal: {mean: {from_to: {start: 5, end: 4}}, std: 0.25}}
  correlation: {low_rank: {rank: 4, scale: 0.1}}
  hierarchy: {roots: 3, branching: 3, depth: 2, exclusive: true, scale_children: true, rates: first_order}
  dictionary: {d_hidden: 12, vectors: {orthogonalised: {steps: 20, lr: 3e-3}}, bias_norm: 0.5}
baselines: [{oracle: {encoder: topk, k: 4}}]
score: [true_l0, mcc, fvu, leakage]
evaluate: {samples: 20000}
";

#[test]
fn a_world_written_for_saelens_reads_back_as_the_same_world() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let linked = write(folder.path(), "linked.yaml", LINKED);
    let told = tegum(folder.path(), &["world", &linked, "-o", "model"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    for part in [
        "30 features, seed 0",
        "features that fire in a sample: ",
        "correlation: root mean square 0.0",
        "mean greatest |cosine| 0.",
        "wrote model",
    ] {
        assert!(told.stdout.contains(part), "{part} in {}", told.stdout);
    }
    let text = LINKED.split("baselines").nth(1).expect("a second half");
    let text = format!("name: loaded\ndata: {{synthetic_model: model}}\nbaselines{text}");
    let loaded = write(folder.path(), "loaded.yaml", &text);
    for file in [&linked, &loaded] {
        let answer = tegum(folder.path(), &["run", file]);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
    }
    let scores = |run: &str| {
        let answer = tegum(folder.path(), &["table", run, "--select", "true_l0, mcc, fvu, leakage", "--format", "csv"]);
        let row = answer.stdout.lines().nth(1).expect("a row").to_owned();
        row.split(',').map(|x| x.parse::<f64>().expect("a number")).collect::<Vec<f64>>()
    };
    // The same stream of the same world: probabilities went through f32, which moves few coins of 600 000.
    for (loaded, linked) in scores("results/loaded").iter().zip(scores("results/linked")) {
        assert!((loaded - linked).abs() < 1e-3 * linked.abs().max(1.0), "{loaded} {linked}");
    }
    // The run keeps what is in the folder, so that it stands without the one it was given.
    let sets = std::fs::read_dir(folder.path().join("results/loaded/inputs")).expect("it was made").flatten();
    let set = sets.map(|set| set.path().join("model")).find(|model| model.is_dir()).expect("a set of inputs");
    for name in ["synthetic_model_config.json", "synthetic_model.safetensors", "hierarchy.json"] {
        assert!(set.join(name).exists(), "{name}");
    }
    let again = tegum(folder.path(), &["world", "results/loaded/spec.yaml", "-o", "again"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("it was written");
    assert_eq!(read("model/synthetic_model.safetensors"), read("again/synthetic_model.safetensors"));
}

#[test]
fn a_world_that_saelens_cannot_say_is_refused_and_a_cell_that_is_not_there_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let grouped = LINKED.replace("  magnitude: {normal", "  magnitude: {folded_normal");
    let file = write(folder.path(), "grouped.yaml", &grouped);
    let answer = tegum(folder.path(), &["world", &file, "-o", "model"]);
    assert!(answer.code == 3 && answer.stderr.contains("SAELens draws magnitudes from a normal"), "{}", answer.stderr);
    assert!(!folder.path().join("model").exists());
    // Our own draws are not Torch's; Torch's are another key.
    let drawn =
        |std: &str| write(folder.path(), "drawn.yaml", &LINKED.replace("std: 0.25", &format!("std: {{{std}}}")));
    let file = drawn("folded_normal: {mean: 0.5, std: 0.5}");
    let answer = tegum(folder.path(), &["world", &file, "-o", "model"]);
    assert!(answer.code == 3 && answer.stderr.contains("`torch_folded_normal`"), "{}", answer.stderr);
    let file = drawn("torch_folded_normal: {mean: 0.5, std: 0.5, seed: 43}");
    let answer = tegum(folder.path(), &["world", &file, "-o", "model"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let config = std::fs::read_to_string(folder.path().join("model/synthetic_model_config.json")).expect("written");
    assert!(config.contains("folded_normal") && config.contains("\"seed\": 42"), "{config}");
    let answer = tegum(folder.path(), &["world", &file, "--cell", "7"]);
    assert!(answer.code == 2 && answer.stderr.contains("cells run from 0 to 0"), "{}", answer.stderr);
}

#[test]
fn methods_are_compared_over_seeds_in_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text =
        SMALL.replace("seeds: 2", "seeds: 4").replace("equals: 32", "equals: 64").replace("name: small", "name: four");
    let file = write(folder.path(), "four.yaml", &text);
    assert_eq!(tegum(folder.path(), &["run", &file]).code, 0);
    let ask = |more: &[&str]| {
        let arguments = [&["table", "results/four", "--compare", "method", "--score", "mcc"], more].concat();
        tegum(folder.path(), &arguments)
    };
    let answer = ask(&["--by", "toy.d_hidden", "--format", "csv"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    let lines: Vec<&str> = answer.stdout.lines().collect();
    assert_eq!(lines[0], "toy.d_hidden,method,against,score,seeds,mean,low,high,verdict");
    // Two widths, each four methods and their six pairs.
    assert_eq!(lines.len(), 1 + 2 * 10);
    let verdict =
        |line: &&str| line.rsplit(',').next().is_some_and(|v| ["higher", "lower", "not distinguishable"].contains(&v));
    assert_eq!(lines.iter().filter(|line| verdict(line)).count(), 12, "{}", answer.stdout);
    let two = ask(&["--where", "seed < 2"]);
    assert!(two.stdout.contains("too few seeds"), "{}", two.stdout);
    assert_eq!(ask(&["--group-by", "method"]).code, 2);
    assert!(ask(&["--by", "methd"]).stderr.contains("did you mean `method`"));
}

#[test]
fn what_no_machine_has_room_for_is_refused_with_the_sum_before_anything_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "name: vast\ndata: {n_features: 131071, firing_probability: 0.1}\n\
                toy: {d_hidden: 1048576, train: {steps: 1}}\nscore: [loss]\n";
    let file = write(folder.path(), "vast.yaml", text);
    for command in ["check", "run"] {
        let answer = tegum(folder.path(), &[command, &file]);
        let said =
            answer.stderr.contains("vast.yaml:2:7: a cell needs about") && answer.stderr.contains("GB of memory");
        assert!(answer.code == 3 && said && answer.stderr.contains("131071 features by d = "), "{}", answer.stderr);
    }
    assert!(!folder.path().join("results").exists(), "nothing was begun");
    let small = write(folder.path(), "small.yaml", SMALL);
    let little = tegum(folder.path(), &["run", &small, "--max-mem", "1M"]);
    assert!(little.code == 3 && little.stderr.contains("--max-mem has 1 MB"), "{}", little.stderr);
}
