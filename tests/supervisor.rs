//! A run that is interrupted, or whose worker dies: what is on disk stays, the rest goes on, the rows are the same.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::program::{Answer, answer, command, tegum, write};

/// 32 cells in one chunk: 8 stems of 4 methods, each trained for a moment.
const TINY: &str = "name: tiny\nseeds: 2\ndata: {n_features: 6, firing_probability: 0.1}\n\
    toy: {d_hidden: 3, train: {steps: 20, batch_size: 32}}\n\
    sae: [{relu: {n_latents: 6, l1: 0.05}}, {topk: {n_latents: 6, k: 2}}]\nbaselines: [random, pca]\n\
    sae_train: {steps: 20, batch_size: 32}\nscore: [mcc]\nevaluate: {samples: 200}\n\
    sweep: {data.firing_probability: [0.05, 0.2], toy.d_hidden: [2, 3]}\n";

fn run(folder: &Path, out: &str) -> Answer {
    tegum(folder, &["run", "tiny.yaml", "--out", out])
}

fn rows(folder: &Path, out: &str) -> String {
    let answer = tegum(folder, &["table", out, "--format", "csv"]);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout
}

/// Starts a run of far more work than anybody waits for.
fn long_run(folder: &Path, out: &str) -> Child {
    write(folder, "tiny.yaml", &TINY.replace("steps: 20,", "steps: 3000000,"));
    let mut command = command(folder, &["run", "tiny.yaml", "--out", out]);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(name: &str, pid: &str) {
    std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("a shell is there");
}

/// The process that a supervisor has started; empty before and after.
fn worker(supervisor: &str) -> String {
    let children = std::fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children"));
    children.unwrap_or_default().trim().to_owned()
}

/// A run into `killed` whose worker is killed when `what` is there, and what it says at its good end.
fn killed(folder: &Path, more: &[&str], what: &str, is_so: impl Fn() -> bool) -> Answer {
    let mut command = command(folder, &[&["run", "tiny.yaml", "--out", "killed"], more].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    wait_for(what, is_so);
    signal("KILL", &worker(&child.id().to_string()));
    let told = answer(child.wait_with_output().expect("it ends"));
    assert!(told.code == 0 && told.stderr.contains("ended by signal 9 (SIGKILL"), "{told:?}");
    told
}

fn begun(folder: &Path, out: &str) -> bool {
    folder.join(out).join("current-plan").exists()
}

#[test]
fn every_signal_that_asks_to_stop_exits_75_and_a_second_one_ends_the_run_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    for name in ["INT", "TERM", "USR1", "HUP"] {
        let child = long_run(folder, name);
        wait_for("the plan", || begun(folder, name));
        signal(name, &child.id().to_string());
        let told = answer(child.wait_with_output().expect("it ends"));
        assert!(told.code == 75 && told.stderr.contains("the same command continues"), "{name}: {told:?}");
    }
    if !Path::new("/proc/self/task").exists() {
        return;
    }
    let child = long_run(folder, "twice");
    wait_for("the plan", || begun(folder, "twice"));
    // A worker that is held cannot heed the first signal before the second one comes.
    signal("STOP", &worker(&child.id().to_string()));
    signal("TERM", &child.id().to_string());
    std::thread::sleep(Duration::from_millis(100));
    signal("TERM", &child.id().to_string());
    let told = answer(child.wait_with_output().expect("it ends"));
    assert_eq!(told.code, 143, "{told:?}");
}

#[test]
fn a_worker_ends_with_its_supervisor() {
    if !Path::new("/proc/self/task").exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = long_run(folder.path(), "run");
    wait_for("the plan", || begun(folder.path(), "run"));
    let worker = worker(&child.id().to_string());
    assert!(!worker.is_empty());
    child.kill().expect("it is ours to kill");
    child.wait().expect("it ends");
    // A process that nobody has waited for yet is a zombie.
    let status = || std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
    wait_for("the end of the worker", || status().is_empty() || status().contains("(zombie)"));
}

#[test]
fn a_worker_that_is_killed_is_started_again_and_the_run_ends_well() {
    if !Path::new("/proc/self/task").exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "tiny.yaml", &TINY.replace("steps: 20,", "steps: 4000,"));
    assert_eq!(run(folder, "whole").code, 0);
    killed(folder, &[], "the plan", || begun(folder, "killed"));
    assert_eq!(rows(folder, "whole"), rows(folder, "killed"));
    assert!(!folder.join("killed/failed").exists(), "no cell has failed alone three times");
}

#[test]
fn what_a_killed_worker_has_published_counts_as_computed_by_the_run() {
    if !Path::new("/proc/self/task").exists() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "tiny.yaml", &TINY.replace("steps: 20,", "steps: 60000,"));
    let files_in = |folder: std::fs::DirEntry| std::fs::read_dir(folder.path()).into_iter().flatten().flatten();
    let is_part = |file: &std::fs::DirEntry| file.file_name().to_string_lossy().ends_with(".parquet");
    let parts = || {
        let folders = std::fs::read_dir(folder.join("killed/parts")).into_iter().flatten().flatten();
        folders.flat_map(files_in).filter(is_part).count()
    };
    let told = killed(folder, &["--chunk-seconds", "0"], "a part", || parts() > 0);
    assert!(told.stdout.contains("32 cells: 32 computed in") && told.stdout.contains("0 were there"), "{told:?}");
}

#[test]
fn gpus_that_are_asked_for_are_never_replaced_in_silence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder, "tiny.yaml", TINY);
    for (arguments, code, said) in [
        (&["--devices", "0,63"][..], 7, "--devices: "),
        (&["--devices", "1,1"], 2, "GPU 1 is named twice"),
        (&["--devices", "0", "--backend", "cpu"], 2, "with --backend cpu no GPU trains"),
    ] {
        let told = tegum(folder, &[&["run", "tiny.yaml", "--out", "run"], arguments].concat());
        assert!(told.code == code && told.stderr.contains(said), "{arguments:?}: {told:?}");
        assert!(!folder.join("run").exists());
    }
}

#[test]
fn progress_for_scripts_is_one_json_object_a_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "tiny.yaml", TINY);
    let told = tegum(folder.path(), &["run", "tiny.yaml", "--out", "run", "--json-progress"]);
    assert_eq!(told.code, 0, "{told:?}");
    let objects = |told: &Answer| -> Vec<serde_json::Value> {
        told.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let lines = objects(&told);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    assert_eq!((&of("start")[0]["missing"], &of("start")[0]["other_writers"]), (&32.into(), &0.into()));
    assert_eq!(of("published")[0]["cells"], 32);
    assert_eq!((&of("end")[0]["done"], &of("end")[0]["parts"]), (&32.into(), &1.into()));
    assert!(told.stdout.contains("on disk: 32 of 32 cells in 1 part in run, 0 failed, 0 missing"), "{}", told.stdout);
    // Once, and last; also where nothing was begun.
    assert_eq!((of("exit").len(), lines.last()), (1, Some(&serde_json::json!({"event": "exit", "code": 0}))));
    for (arguments, code) in [(&["run", "tiny.yaml", "--thread", "2"][..], 2), (&["run", "absent.yaml"], 3)] {
        let lines = objects(&tegum(folder.path(), &[arguments, &["--json-progress"]].concat()));
        assert!(lines[0]["event"] == "message" && lines[0]["text"].is_string(), "{lines:?}");
        assert_eq!(lines.last(), Some(&serde_json::json!({"event": "exit", "code": code})), "{arguments:?}");
    }
}

/// The records of who computed what.
fn provenance(out: &Path) -> Vec<serde_json::Value> {
    let entries = std::fs::read_dir(out.join("prov")).into_iter().flatten().flatten().map(|entry| entry.path());
    let whole = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    whole.map(|path| serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON")).collect()
}

#[test]
fn a_run_that_is_killed_leaves_who_computed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = long_run(folder.path(), "run");
    let out = folder.path().join("run");
    wait_for("its provenance", || !provenance(&out).is_empty());
    child.kill().expect("it is ours to kill");
    child.wait().expect("it ends");
    let [record] = &provenance(&out)[..] else { panic!("one process computed") };
    assert!(record["ended"].is_null() && record["outcome"].is_null(), "{record}");
    assert!(record["started"].as_str().is_some_and(|time| time.ends_with('Z')) && record["pid"].is_u64(), "{record}");
}

#[test]
fn an_edited_experiment_tells_what_is_kept_new_and_obsolete() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let start = |text: &str| {
        write(folder, "tiny.yaml", text);
        let told = tegum(folder, &["run", "tiny.yaml", "--out", "run", "--json-progress"]);
        assert_eq!(told.code, 0, "{told:?}");
        let line = told.stderr.lines().find(|line| line.contains("\"event\":\"start\"")).expect("it begins");
        let start: serde_json::Value = serde_json::from_str(line).expect("JSON");
        ["kept", "new", "obsolete"].map(|key| start[key].as_u64().expect("a count"))
    };
    assert_eq!(start(TINY), [0, 32, 0]);
    assert_eq!(start(TINY), [32, 0, 0]);
    assert_eq!(start(&TINY.replace("d_hidden: [2, 3]", "d_hidden: [3, 4]")), [16, 16, 16]);
    // More columns: no cell is the same.
    assert_eq!(start(&TINY.replace("score: [mcc]", "score: [mcc, l0]")), [0, 32, 48]);
    write(folder, "tiny.yaml", &TINY.replace("seeds: 2", "seeds: 1"));
    let told = run(folder, "run");
    let line = "cells of this plan: 16 kept, 0 new; 64 are obsolete: they stay on disk, and no answer holds them";
    assert!(told.code == 0 && told.stderr.contains(line), "{}", told.stderr);
    assert_eq!(rows(folder, "run").lines().count(), 17);
}

#[test]
fn a_run_whose_cells_fit_but_not_one_for_each_thread_takes_fewer_and_has_the_same_rows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let text = "name: tiny\ndata: {n_features: 6, firing_probability: 0.1}\n\
        toy: {d_hidden: 3, train: {steps: 5, batch_size: 32}}\nscore: [loss]\nevaluate: {samples: 1000000}\n";
    write(folder, "tiny.yaml", text);
    let with = |out: &str, memory: &str| {
        let told = tegum(folder, &["run", "tiny.yaml", "--out", out, "--threads", "8", "--max-mem", memory]);
        assert_eq!(told.code, 0, "{told:?}");
        (told.stderr, provenance(&folder.join(out))[0]["threads"].as_u64().expect("a count"))
    };
    let (said, threads) = with("all", "64G");
    assert!(!said.contains("threads may need") && threads == 8, "{said}");
    let (said, threads) = with("fewer", "150M");
    assert!(said.contains("8 threads may need") && said.contains("with the same rows"), "{said}");
    assert!((1..8).contains(&threads), "{threads}: {said}");
    assert_eq!(rows(folder, "all"), rows(folder, "fewer"));
}

#[test]
fn without_a_supervisor_the_rows_are_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "tiny.yaml", TINY);
    assert_eq!(run(folder.path(), "two").code, 0);
    let one = tegum(folder.path(), &["run", "tiny.yaml", "--out", "one", "--no-supervisor"]);
    assert_eq!(one.code, 0, "{one:?}");
    assert_eq!(rows(folder.path(), "one"), rows(folder.path(), "two"));
    assert!(one.stderr.contains("0 of 32 cells are done, 32 are missing"), "{}", one.stderr);
}

/// Needs a program of its own: see `tests/faults.rs`.
#[cfg(feature = "faults")]
#[test]
fn a_cell_that_panics_aborts_overflows_or_is_killed_costs_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "tiny.yaml", TINY);
    let folder = folder.path();
    assert_eq!(run(folder, "whole").code, 0);
    for kind in ["panic", "panic-score", "abort", "overflow", "kill"] {
        let mut command = command(folder, &["run", "tiny.yaml", "--out", kind]);
        // Two bad cells of two stems, and both are found.
        let told = answer(command.env("TEGUM_FAULT", format!("{kind}:5,panic:30")).output().expect("it starts"));
        assert_eq!(told.code, 4, "{kind}: {told:?}");
        assert_eq!(told.stderr.matches("failed: cell").count(), 2, "{kind}: {told:?}");
        assert!(told.stdout.contains("30 of 32 cells in") && told.stdout.contains("2 failed, 0 missing"), "{told:?}");
        assert_eq!(rows(folder, kind).lines().count(), 31, "{kind}");
        assert_eq!(std::fs::read_dir(folder.join(kind).join("failed")).expect("a folder").count(), 2, "{kind}");
        let records = std::fs::read_dir(folder.join(kind).join("failed")).expect("a folder").flatten();
        let records = records.map(|entry| std::fs::read_to_string(entry.path()).expect("text"));
        let record: serde_json::Value = records
            .map(|text| serde_json::from_str(&text).expect("JSON"))
            .find(|record: &serde_json::Value| record["plan_index"] == 5)
            .expect("cell 5 has failed");
        let last = record["attempts"][2]["stderr"].as_array().expect("lines");
        // A panic is caught in the process; one that overflows its stack says so before it ends.
        assert_eq!(last.is_empty(), kind.starts_with("panic"), "{record}");
        assert!(kind != "overflow" || last.iter().any(|line| line.to_string().contains("overflow")), "{record}");
        let again = run(folder, kind);
        assert!(again.code == 0 && again.stdout.contains("2 computed"), "{kind}: {again:?}");
        assert!(again.stderr.contains("2 cells failed before and are tried again"), "{kind}: {again:?}");
        assert_eq!(rows(folder, kind), rows(folder, "whole"), "{kind}");
    }
}
