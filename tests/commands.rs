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

#[test]
fn explain_and_schema_speak_of_scores_and_fields() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let explain = |name: &str| tegum(folder.path(), &["explain", name]);
    assert!(explain("mcc").stdout.contains("version 1"));
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
    assert!(
        answer.code == 0 && answer.stdout.contains("cpu   available") && answer.stdout.contains("cuda  not available")
    );
}
