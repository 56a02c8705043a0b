//! Whole runs in one process, with backends that panic or are told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use polars::prelude::DataFrame;
use serde_json::Value;

use super::columns::{ScoreColumn, algorithms, score_columns};
use super::provenance::Provenance;
use super::waves::{Todo, turn, wave};
use super::{Options, RunError, Summary, plan_record, run};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Appetite, Backend, BackendError, SaeGroup, Trained, Watch};
use crate::plan::{MOST_CELLS, Plan, Versions};
use crate::progress::Progress;
use crate::sae::SaeOutcome;
use crate::spec::Document;
use crate::store::Store;
use crate::toy::{ToyJob, ToyOutcome};

/// Eight cells, each a stem of its own, in one chunk.
const SPEC: &str = "name: a\nseeds: 8\ndata: {n_features: 4, firing_probability: 0.3}\n\
    toy: {d_hidden: 2, train: {steps: 3, batch_size: 16}}\nscore: [loss]\nevaluate: {samples: 64}\n";

fn plan_of(text: &str) -> (Plan, Vec<ScoreColumn>) {
    let document = Document::read("a.yaml", text).expect("it is right");
    let columns = score_columns(&document).expect("known scores");
    let versions = Versions { algorithms: &algorithms(&columns), profile: CpuBackend.profile() };
    (Plan::new(document, &versions, MOST_CELLS).expect("a plan"), columns)
}

/// The CPU, but for what goes wrong.
#[derive(Default)]
struct Moody {
    /// Training a model of this seed panics,
    bad: Option<u64>,
    /// so often.
    times: AtomicUsize,
    /// It fails instead of panicking.
    fails: Option<BackendError>,
    /// Set after some models are trained; the others are not then.
    stop: Option<Arc<AtomicBool>>,
}

impl Backend for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }
    fn profile(&self) -> &'static str {
        CpuBackend.profile()
    }
    fn train_toys(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Trained<ToyOutcome> {
        if jobs.iter().any(|job| Some(job.seed) == self.bad) && self.times.load(Ordering::Relaxed) > 0 {
            self.times.fetch_sub(1, Ordering::Relaxed);
            if let Some(error) = &self.fails {
                return Err(error.clone());
            }
            panic!("it does not like one of {} seeds", jobs.len());
        }
        let mut outcomes = CpuBackend.train_toys(jobs, watch)?;
        if let Some(stop) = &self.stop {
            stop.store(true, Ordering::Relaxed);
            outcomes.iter_mut().skip(3).for_each(|outcome| *outcome = None);
        }
        Ok(outcomes)
    }
    fn train_saes(&self, groups: &[SaeGroup], watch: &dyn Watch) -> Result<Vec<Vec<Option<SaeOutcome>>>, BackendError> {
        let mut outcomes = CpuBackend.train_saes(groups, watch)?;
        if self.stop.is_some() {
            outcomes.iter_mut().skip(1).flatten().for_each(|outcome| *outcome = None);
        }
        Ok(outcomes)
    }
}

fn run_in(out: &Path, backend: &dyn Backend, stop: Option<Arc<AtomicBool>>) -> Summary {
    run_of(SPEC, out, backend, stop)
}

fn run_of(text: &str, out: &Path, backend: &dyn Backend, stop: Option<Arc<AtomicBool>>) -> Summary {
    outcome(text, out, backend, stop).expect("a run")
}

fn outcome(spec: &str, out: &Path, backend: &dyn Backend, stop: Option<Arc<AtomicBool>>) -> Result<Summary, RunError> {
    let (plan, columns) = plan_of(spec);
    let options = Options {
        out: out.to_path_buf(),
        shard: (0, 1),
        stop: stop.unwrap_or_default(),
        extend: false,
        checkpoint_every: None,
        disk_wait: Duration::ZERO,
        worker: None,
    };
    let record = plan_record(&plan, &columns, backend.profile());
    run(&plan, &columns, &record, backend, &options, &Progress::new(true))
}

/// The records in a folder of a run directory, in no order.
fn records(folder: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let texts = entries.map(|entry| std::fs::read_to_string(entry.path()).expect("text"));
    texts.map(|text| serde_json::from_str(&text).expect("JSON")).collect()
}

fn rows(out: &Path) -> DataFrame {
    let (plan, columns) = plan_of(SPEC);
    let record = plan_record(&plan, &columns, CpuBackend.profile());
    Store::open(out).expect("a run").rows(&record, &plan.ids).expect("sound rows")
}

/// The rows that all of this must come to.
fn undisturbed() -> DataFrame {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let summary = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((summary.counts.computed, summary.missing(), summary.parts), (8, 0, 1));
    rows(folder.path())
}

#[test]
fn disk_room_is_asked_for_what_is_left_of_a_shard() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plan, columns) = plan_of(SPEC);
    let out = folder.path().join("run");
    let hash = plan_record(&plan, &columns, CpuBackend.profile()).hash();
    let left = |shard| super::preflight::left(&plan, &hash, Some(&out), shard);
    assert_eq!((left((0, 1)), left((0, 2)), left((1, 2))), (1.0, 1.0, 0.0), "one chunk, of the first shard");
    run_in(&out, &CpuBackend, None);
    assert_eq!((left((0, 1)), super::preflight::left(&plan, &hash, None, (0, 1))), (0.0, 1.0));
    assert_eq!(
        super::preflight::left(&plan, "another", Some(&out), (0, 1)),
        1.0,
        "those may be parts of the other plan"
    );
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count())
}

#[test]
fn a_cell_that_panics_costs_itself_and_is_tried_again_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = Moody { bad: Some(5), times: AtomicUsize::new(usize::MAX), ..Moody::default() };
    let summary = run_in(folder.path(), &bad, None);
    assert_eq!((summary.counts.computed, summary.missing(), summary.stopped), (7, 0, false));
    let [failed] = &summary.failed[..] else { panic!("one cell fails: {:?}", summary.failed) };
    assert_eq!(failed.plan_index, 5);
    assert!(failed.reason.contains("does not like one of 1 seeds") && failed.what.contains("seed 5"), "{failed:?}");
    assert_eq!((files_in(&folder.path().join("failed")), rows(folder.path()).height()), (1, 7));
    let again = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.counts.computed, again.failed.len()), (7, 1, 0));
    assert!(rows(folder.path()).equals_missing(&undisturbed()));
}

#[test]
fn a_panic_that_does_not_come_again_costs_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = Moody { bad: Some(2), times: AtomicUsize::new(5), ..Moody::default() };
    let summary = run_in(folder.path(), &bad, None);
    assert_eq!((summary.counts.computed, summary.failed.len(), bad.times.into_inner()), (8, 0, 0));
    assert_eq!(files_in(&folder.path().join("failed")), 0);
    assert!(rows(folder.path()).equals_missing(&undisturbed()));
}

#[test]
fn a_cell_that_fails_again_is_recorded_with_what_was_known_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = Moody { bad: Some(5), times: AtomicUsize::new(usize::MAX), ..Moody::default() };
    let failed = folder.path().join("failed");
    run_in(folder.path(), &bad, None);
    let first = records(&failed).remove(0);
    assert_eq!((first["attempts"].as_array().map(Vec::len), &first["earlier"]), (Some(3), &Value::Array(vec![])));
    assert!(first["attempts"][0]["reason"].as_str().is_some_and(|reason| reason.starts_with("panic: ")), "{first}");
    run_in(folder.path(), &bad, None);
    let second = records(&failed).into_iter().find(|record| *record != first).expect("a second one");
    assert_eq!(second["earlier"].as_array().map(Vec::len), Some(1));
    assert_eq!(second["earlier"][0]["attempts"], first["attempts"]);
    assert_eq!(second["earlier"][0]["writer"], first["writer"]);
}

#[test]
fn a_cell_that_a_gpu_has_no_room_for_is_found_and_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fails = Some(BackendError::NoRoom("no room for 8 bytes".into()));
    let bad = Moody { bad: Some(3), times: AtomicUsize::new(usize::MAX), fails, ..Moody::default() };
    let summary = run_in(folder.path(), &bad, None);
    assert_eq!((summary.counts.computed, summary.missing(), summary.failed.len()), (7, 0, 1));
    assert_eq!((summary.failed[0].plan_index, summary.failed[0].reason.as_str()), (3, "no room for 8 bytes"));
}

#[test]
fn a_device_that_is_lost_ends_the_run_with_5_and_what_was_published_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Moody { stop: Some(stop.clone()), ..Moody::default() };
    assert_eq!(run_in(folder.path(), &stopped, Some(stop)).counts.computed, 3);
    let fails = Some(BackendError::Lost("GPU 0: it is gone".into()));
    let lost = Moody { bad: Some(7), times: AtomicUsize::new(1), fails, ..Moody::default() };
    let error = outcome(SPEC, folder.path(), &lost, None).expect_err("it is gone");
    assert!(error.exit_code() == 5 && error.to_string().contains("what was published stays"), "{error}");
    assert_eq!(rows(folder.path()).height(), 3);
    let told = records(&folder.path().join("prov"));
    let of = |outcome: &str| told.iter().any(|one| one["outcome"].as_str().is_some_and(|it| it.starts_with(outcome)));
    assert!(of("stopped") && of("failed: GPU 0: it is gone"), "{told:?}");
    assert_eq!(run_in(folder.path(), &CpuBackend, None).already, 3);
    assert!(rows(folder.path()).equals_missing(&undisturbed()));
}

#[test]
fn provenance_says_who_computed_which_parts_with_what() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    run_in(folder.path(), &CpuBackend, None);
    run_in(folder.path(), &CpuBackend, None);
    let told = records(&folder.path().join("prov"));
    let [record] = &told[..] else { panic!("a run without a cell to compute has none: {told:?}") };
    let part = files_below(&folder.path().join("parts"));
    assert_eq!(record["parts"], serde_json::json!(part));
    for key in ["writer", "host", "plan", "started", "ended", "os", "arch", "kernel", "tegum", "rustc", "target"] {
        assert!(record[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {record}");
    }
    assert_eq!((&record["outcome"], &record["cells_computed"]), (&"finished".into(), &8.into()));
    assert_eq!((&record["pid"], &record["backend"]), (&std::process::id().into(), &"cpu".into()));
    assert_eq!((&record["restarts"], &record["shard"]), (&0.into(), &serde_json::json!([0, 1])));
    assert!(record["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{record}");
}

/// Names of the files in the folders of a folder.
fn files_below(folder: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).expect("a folder").flatten());
    files.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn provenance_that_cannot_be_completed_is_no_reason_to_fail() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (plan, _) = plan_of(SPEC);
    let store = Store::create_or_open(folder.path(), b"", &plan_record(&plan, &[], "b")).expect("a store");
    let options = Options {
        out: folder.path().to_path_buf(),
        shard: (0, 1),
        stop: Arc::default(),
        extend: false,
        checkpoint_every: None,
        disk_wait: Duration::from_secs(3600),
        worker: None,
    };
    let store = store.with_disk_wait(options.disk_wait);
    let mut provenance = Provenance::new(&store, "p", &CpuBackend, &options);
    provenance.renew(&Summary::default()).expect("there is room yet");
    let begun = records(&folder.path().join("prov")).remove(0);
    assert!(begun["outcome"].is_null() && begun["ended"].is_null() && begun["plan"] == "p", "{begun}");
    std::fs::remove_dir_all(folder.path().join("prov")).expect("it is there");
    // Nothing can be written there now; that is a warning.
    provenance.end(&Summary::default(), "finished");
    assert!(!folder.path().join("prov").exists());
}

#[test]
fn files_of_the_world_are_kept_by_their_content_and_found_again_whatever_is_edited() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (home, out) = (folder.path().join("home"), folder.path().join("out"));
    std::fs::create_dir(&home).expect("new");
    let spec = "name: a\ndata: {n_features: 2, firing_probability: 0.3, dictionary: {d_hidden: 2, vectors: {file: m.npy}}}\n\
        sae: [{topk: {n_latents: 2, k: 1}}]\nsae_train: {steps: 2, batch_size: 8}\nscore: [mcc]\nevaluate: {samples: 64}\n";
    let planned = |file: &Path| {
        let document = Document::load(file).expect("it is right");
        let columns = score_columns(&document).expect("known scores");
        let versions = Versions { algorithms: &algorithms(&columns), profile: CpuBackend.profile() };
        (Plan::new(document, &versions, MOST_CELLS).expect("a plan"), columns)
    };
    std::fs::write(home.join("x.yaml"), spec).expect("writable");
    let mut plans = vec![];
    for angle in [0.0f32, 1.0, 0.0] {
        let (sin, cos) = angle.sin_cos();
        ndarray_npy::write_npy(home.join("m.npy"), &ndarray::arr2(&[[cos, sin], [-sin, cos]])).expect("writable");
        let (plan, columns) = planned(&home.join("x.yaml"));
        let options = Options {
            out: out.clone(),
            shard: (0, 1),
            stop: Arc::default(),
            extend: false,
            checkpoint_every: None,
            disk_wait: Duration::ZERO,
            worker: None,
        };
        let record = plan_record(&plan, &columns, CpuBackend.profile());
        run(&plan, &columns, &record, &CpuBackend, &options, &Progress::new(true)).expect("a run");
        // The kept experiment has the very plan, without the file that it was made with.
        std::fs::remove_file(home.join("m.npy")).expect("it is there");
        assert_eq!(planned(&out.join("spec.yaml")).0.hash(), plan.hash(), "{angle}");
        plans.push(plan.hash());
    }
    assert!(plans[0] == plans[2] && plans[0] != plans[1]);
    let sets = std::fs::read_dir(out.join("inputs")).expect("made").flatten();
    let sets = sets.filter(|set| set.path().join("m.npy").exists()).count();
    assert_eq!(sets, 2, "those of both plans");
    // As directories were before.
    std::fs::rename(out.join("inputs"), out.join("other")).expect("ours");
    ndarray_npy::write_npy(out.join("m.npy"), &ndarray::arr2(&[[1.0f32, 0.0], [-0.0, 1.0]])).expect("writable");
    assert_eq!(planned(&out.join("spec.yaml")).0.hash(), plans[0]);
}

#[test]
fn what_is_finished_when_a_run_is_stopped_is_published_and_the_next_run_computes_the_rest() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Moody { stop: Some(stop.clone()), ..Moody::default() };
    let summary = run_in(folder.path(), &stopped, Some(stop));
    assert_eq!((summary.stopped, summary.counts.computed, summary.missing(), summary.parts), (true, 3, 5, 1));
    assert_eq!(rows(folder.path()).height(), 3);
    let again = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.counts.computed, again.parts), (3, 5, 2));
    let rows = rows(folder.path());
    assert!(rows.height() == 8 && rows.equals_missing(&undisturbed()));
    let left = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    assert!(left.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".writer")));
}

#[test]
fn stems_all_of_whose_autoencoders_were_cut_off_are_left_for_the_next_run() {
    let text = format!("{SPEC}sae: [{{topk: {{n_latents: 4, k: 1}}}}]\nsae_train: {{steps: 3, batch_size: 16}}\n");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Moody { stop: Some(stop.clone()), ..Moody::default() };
    // Of three toy models that are trained one autoencoder is.
    let summary = run_of(&text, folder.path(), &stopped, Some(stop));
    assert_eq!((summary.stopped, summary.counts.computed, summary.missing()), (true, 1, 7));
    let again = run_of(&text, folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.counts.computed, again.failed.len()), (1, 7, 0));
}

/// All cells of a plan, and how many chunks go together.
fn waves_of(text: &str, appetite: Appetite) -> (usize, usize) {
    let (plan, _) = plan_of(text);
    let chunks = plan.chunks();
    let todo: Vec<Todo> = chunks.iter().map(|c| (c.first, (c.first..c.first + c.count).collect())).collect();
    (chunks.len(), wave(&plan, &todo, appetite))
}

#[test]
fn a_wave_of_large_models_has_one_for_each_thread_and_no_more() {
    let appetite = Appetite { models: 4, work: 4.0 * 6e11, bytes: 1e9 };
    // Hours for each model.
    let large = SPEC.replace("seeds: 8", "seeds: 32").replace("steps: 3", "steps: 1000000000");
    assert_eq!(waves_of(&large, appetite), (32, 4));
    // One stem whose autoencoders keep all threads busy is enough.
    let saes = "name: a\nseeds: 8\ndata: {n_features: 4, firing_probability: 0.3, dictionary: {d_hidden: 3}}\n\
        sae: [{topk: {n_latents: 4, k: 1}}]\nsweep: {sae_train.lr: {log: [1e-4, 1e-2, 8]}}\n\
        sae_train: {steps: 1000000000, batch_size: 64}\nscore: [mcc]\nevaluate: {samples: 64}\n";
    assert_eq!(waves_of(saes, appetite), (8, 1));
    // A GPU takes thousands at once, as long as they fit.
    let gpu = Appetite { models: 65_536, work: 1e14, bytes: 1e9 };
    assert_eq!(waves_of(&large, gpu), (32, 32));
}

#[test]
fn writers_begin_at_places_of_their_own() {
    let places: std::collections::BTreeSet<usize> = (0..20).map(|n| turn(&format!("host-{n}"), 1000)).collect();
    assert!(places.len() > 15 && places.iter().all(|place| *place < 1000));
    assert_eq!(turn("host", 0), 0);
}
