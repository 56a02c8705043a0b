//! The same rows, bit for bit: whatever the threads, the shards, the order, the interruptions.

use std::path::Path;
use std::time::{Duration, Instant};

use super::program::{SMALL, answer, command, tegum, write};

/// Every row, every score, in exact text.
fn rows(folder: &Path, out: &str) -> String {
    let answer = tegum(folder, &["table", out, "--format", "csv"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout
}

fn run(folder: &Path, arguments: &[&str]) {
    let answer = tegum(folder, &[&["run", "small.yaml"], arguments].concat());
    assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
}

#[test]
fn threads_and_shards_do_not_change_a_bit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", SMALL);
    let folder = folder.path();
    run(folder, &["--threads", "1", "--out", "one"]);
    run(folder, &["--threads", "3", "--out", "three"]);
    run(folder, &["--shard", "1/2", "--out", "shards"]);
    run(folder, &["--shard", "0/2", "--out", "shards"]);
    let one = rows(folder, "one");
    assert_eq!(one.lines().count(), 33);
    assert_eq!(one, rows(folder, "three"));
    assert_eq!(one, rows(folder, "shards"));
}

/// Twelve cells of two stems each, every one an instant.
const TINY: &str = "\
name: tiny
seeds: 3
data: {n_features: 4, firing_probability: 0.3}
toy: {d_hidden: 2, train: {steps: 20, batch_size: 16}}
sae: [{topk: {n_latents: 6, k: 1}}, {relu: {n_latents: 6, l1: 0.1}}]
sae_train: {steps: 20, batch_size: 16}
evaluate: {samples: 64}
sweep: {data.firing_probability: [0.2, 0.4]}
";

/// The hash of all rows, which `collect` tells.
fn logical_hash(folder: &Path, out: &str) -> String {
    let answer = tegum(folder, &["collect", out]);
    assert_eq!(answer.code, 0, "{out}: {}{}", answer.stdout, answer.stderr);
    answer.stdout.rsplit("12 rows, hash ").next().expect("it is told").trim().to_owned()
}

/// Threads x shards x chunk sizes, each whole and with half of its parts lost on the way: 54 ways to the same rows.
#[test]
fn threads_shards_chunks_and_lost_parts_give_one_hash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", TINY);
    let folder = folder.path();
    run(folder, &["--out", "first"]);
    let first = logical_hash(folder, "first");
    for threads in ["1", "2", "8"] {
        for shards in [1, 3, 16] {
            for seconds in ["0", "0.00001", "24"] {
                let out = format!("out-{threads}-{shards}-{seconds}");
                for shard in 0..shards {
                    let shard = format!("{shard}/{shards}");
                    run(folder, &["--threads", threads, "--shard", &shard, "--chunk-seconds", seconds, "--out", &out]);
                }
                assert_eq!(logical_hash(folder, &out), first, "{out}");
                let parts = std::fs::read_dir(folder.join(&out).join("parts")).expect("made").flatten();
                let parts = parts.flat_map(|entry| std::fs::read_dir(entry.path()).expect("a folder").flatten());
                let mut parts: Vec<_> = parts.map(|entry| entry.path()).collect();
                parts.sort();
                parts.iter().step_by(2).for_each(|part| std::fs::remove_file(part).expect("it is there"));
                run(folder, &["--threads", threads, "--out", &out]);
                assert_eq!(logical_hash(folder, &out), first, "{out} after a loss");
            }
        }
    }
}

#[test]
fn instruction_sets_do_not_change_a_bit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", SMALL);
    let folder = folder.path();
    run(folder, &["--out", "best"]);
    let with = |isa: &str, out: &str| {
        let mut command = command(folder, &["run", "small.yaml", "--out", out]);
        answer(command.env("TEGUM_ISA", isa).output().expect("the binary starts"))
    };
    for isa in tegum::backend::simd::Isa::available() {
        assert_eq!(with(isa.name(), isa.name()).code, 0);
        assert_eq!(rows(folder, "best"), rows(folder, isa.name()), "{}", isa.name());
    }
    let unknown = with("sse9", "none");
    assert_eq!(unknown.code, 2);
    assert!(unknown.stderr.contains("TEGUM_ISA=sse9: this CPU offers") && unknown.stderr.contains("portable"));
}

#[test]
fn an_experiment_of_several_chunks_is_the_same_in_shards_and_after_kills() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // 20,000 tiny cells: chunks hold at most 5,000.
    let text = "name: many\nseeds: 2000\ndata: {n_features: 2, firing_probability: 0.5}\n\
                toy: {d_hidden: 1, train: {steps: 2, batch_size: 16}}\nscore: [loss, norm_0]\nevaluate: {samples: 16}\n\
                save: {features: false}\nsweep: {data.firing_probability: {log: [0.1, 1, 10]}}\n";
    write(folder.path(), "small.yaml", text);
    let folder = folder.path();
    assert!(tegum(folder, &["check", "small.yaml"]).stdout.contains("20000 cells in 4 chunks"));
    let start = Instant::now();
    run(folder, &["--out", "whole"]);
    let duration = start.elapsed();
    let whole = rows(folder, "whole");
    assert_eq!(whole.lines().count(), 20_001);
    for shard in ["0/3", "1/3", "2/3"] {
        run(folder, &["--shard", shard, "--out", "parts"]);
    }
    assert_eq!(whole, rows(folder, "parts"));
    // One shard first, so that the killed runs begin with some chunks done and others missing.
    run(folder, &["--shard", "1/4", "--out", "killed"]);
    for tenth in [2, 5, 8] {
        let mut child = command(folder, &["run", "small.yaml", "--out", "killed"]);
        let mut child = child.stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(duration.mul_f64(tenth as f64 / 10.0));
        child.kill().expect("it is ours to kill");
        child.wait().expect("it ends");
    }
    run(folder, &["--out", "killed"]);
    assert_eq!(whole, rows(folder, "killed"));
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", SMALL);
    let folder = folder.path();
    let start = Instant::now();
    run(folder, &["--out", "whole"]);
    let whole = start.elapsed();
    // Killed at a tenth, two tenths, ... of a whole run: every phase is hit, whatever the machine's speed.
    for tenth in 1..10 {
        let mut child = command(folder, &["run", "small.yaml", "--out", "killed"]);
        let mut child = child.stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(whole.mul_f64(tenth as f64 / 10.0).max(Duration::from_millis(1)));
        child.kill().expect("it is ours to kill");
        child.wait().expect("it ends");
    }
    run(folder, &["--out", "killed"]);
    assert_eq!(rows(folder, "whole"), rows(folder, "killed"));
}

#[test]
fn an_interrupted_run_says_so_and_the_same_command_continues() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Hours of work: what is trained two seconds after the signal would be scored and published.
    write(folder.path(), "small.yaml", &SMALL.replace("steps: 300", "steps: 30000000"));
    let folder = folder.path();
    let mut child = command(folder, &["run", "small.yaml"]);
    let child = child.stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
    let pid = child.id().to_string();
    // The plan file is there once the run has begun and its signals are watched.
    let begun = || folder.join("results/small/current-plan").exists();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !begun() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::process::Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().expect("a shell is there");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(75));
    let check =
        tegum(folder, &["table", "results/small", "--sql", "select count(*) as n from rows", "--format", "csv"]);
    assert_eq!(check.stdout, "n\n0\n");
}

/// One autoencoder that trains for a second or two, so that kills find it under way.
const LONG: &str = "name: small\nseeds: 1\ndata: {n_features: 60, firing_probability: 0.05, \
    dictionary: {d_hidden: 40, vectors: random}}\n\
    sae: [{topk: {n_latents: 128, k: 3, aux_k: 8}}, {relu: {n_latents: 96, l1: 0.05}}]\n\
    sae_train: {steps: 30000, batch_size: 512, lr: 1e-3}\n\
    score: [mcc, l0]\nevaluate: {samples: 2000}\nsave: {trace: {every: 500}}\n";

fn checkpoints(folder: &Path, out: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join(out).join("checkpoints")) else { return vec![] };
    let names = entries.map(|entry| entry.expect("readable").path());
    names.filter(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))).collect()
}

/// Starts a run and kills it once it has kept its trainings, and a little later.
fn killed_after_a_checkpoint(folder: &Path, out: &str, later: Duration) {
    let mut child = command(folder, &["run", "small.yaml", "--out", out, "--checkpoint-every", "0.05"]);
    let mut child = child.stdout(std::process::Stdio::null()).spawn().expect("the binary starts");
    let deadline = Instant::now() + Duration::from_secs(120);
    while checkpoints(folder, out).len() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(later);
    child.kill().expect("it is ours to kill");
    child.wait().expect("it ends");
}

#[test]
fn a_training_that_is_killed_goes_on_from_its_checkpoint_with_the_same_bits() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", LONG);
    let folder = folder.path();
    run(folder, &["--out", "whole", "--checkpoint-every", "0"]);
    assert!(checkpoints(folder, "whole").is_empty());
    for later in [0, 50, 200] {
        killed_after_a_checkpoint(folder, "killed", Duration::from_millis(later));
    }
    // Were all work done already, the kills would have shown nothing.
    assert!(!checkpoints(folder, "killed").is_empty(), "the machine is too fast for this test: train for longer");
    run(folder, &["--out", "killed"]);
    assert_eq!(rows(folder, "whole"), rows(folder, "killed"));
    assert!(checkpoints(folder, "killed").is_empty(), "published rows leave no checkpoint");
}

#[test]
fn a_training_on_activations_from_a_file_that_is_killed_goes_on_from_its_checkpoint() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    super::train::save(folder.path(), "acts.npy", &super::train::activations(20_000));
    let spec = "name: small\nactivations: {files: [acts.npy]}\n\
        sae: [{topk: {n_latents: 128, k: 3}}, {relu: {n_latents: 128, l1: 0.05}}]\nbaselines: [pca]\n\
        sae_train: {steps: 30000, batch_size: 512, lr: 1e-3}\n";
    write(folder.path(), "small.yaml", spec);
    let folder = folder.path();
    run(folder, &["--out", "whole", "--checkpoint-every", "0"]);
    for later in [0, 100] {
        killed_after_a_checkpoint(folder, "killed", Duration::from_millis(later));
    }
    assert!(!checkpoints(folder, "killed").is_empty(), "the machine is too fast for this test: train for longer");
    run(folder, &["--out", "killed"]);
    assert_eq!(rows(folder, "whole"), rows(folder, "killed"));
    assert!(checkpoints(folder, "killed").is_empty(), "published rows leave no checkpoint");
}

#[test]
fn a_damaged_checkpoint_is_found_and_its_training_begins_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "small.yaml", LONG);
    let folder = folder.path();
    run(folder, &["--out", "whole"]);
    killed_after_a_checkpoint(folder, "killed", Duration::ZERO);
    let damaged = checkpoints(folder, "killed").pop().expect("killed on the way");
    let mut bytes = std::fs::read(&damaged).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&damaged, bytes).expect("writable");
    let answer = tegum(folder, &["run", "small.yaml", "--out", "killed"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(answer.stderr.contains("does not hash"), "{}", answer.stderr);
    assert_eq!(rows(folder, "whole"), rows(folder, "killed"));
}
