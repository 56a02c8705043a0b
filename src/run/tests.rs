//! Whole runs in one process, with backends that panic or are told to stop.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use polars::prelude::DataFrame;

use super::columns::{ScoreColumn, algorithms, score_columns};
use super::waves::{Todo, turn, wave};
use super::{Options, Summary, plan_record, run};
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
    let (plan, columns) = plan_of(text);
    let stop = stop.unwrap_or_default();
    let out = out.to_path_buf();
    let options = Options {
        out,
        shard: (0, 1),
        stop,
        extend: false,
        checkpoint_every: None,
        disk_wait: Duration::ZERO,
        worker: None,
    };
    run(&plan, &columns, backend, &options, &Progress::new(true)).expect("a run")
}

fn rows(out: &Path) -> DataFrame {
    let (plan, columns) = plan_of(SPEC);
    let record = plan_record(&plan, &columns, &algorithms(&columns), CpuBackend.profile());
    Store::open(out).expect("a run").rows(&record, &plan.ids).expect("sound rows")
}

/// The rows that all of this must come to.
fn undisturbed() -> DataFrame {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let summary = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((summary.computed, summary.missing(), summary.parts), (8, 0, 1));
    rows(folder.path())
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count())
}

#[test]
fn a_cell_that_panics_costs_itself_and_is_tried_again_at_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = Moody { bad: Some(5), times: AtomicUsize::new(usize::MAX), ..Moody::default() };
    let summary = run_in(folder.path(), &bad, None);
    assert_eq!((summary.computed, summary.missing(), summary.stopped), (7, 0, false));
    let [failed] = &summary.failed[..] else { panic!("one cell fails: {:?}", summary.failed) };
    assert_eq!(failed.plan_index, 5);
    assert!(failed.reason.contains("does not like one of 1 seeds") && failed.what.contains("seed 5"), "{failed:?}");
    assert_eq!((files_in(&folder.path().join("failed")), rows(folder.path()).height()), (1, 7));
    let again = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.computed, again.failed.len()), (7, 1, 0));
    assert!(rows(folder.path()).equals_missing(&undisturbed()));
}

#[test]
fn a_panic_that_does_not_come_again_costs_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bad = Moody { bad: Some(2), times: AtomicUsize::new(5), ..Moody::default() };
    let summary = run_in(folder.path(), &bad, None);
    assert_eq!((summary.computed, summary.failed.len(), bad.times.into_inner()), (8, 0, 0));
    assert_eq!(files_in(&folder.path().join("failed")), 0);
    assert!(rows(folder.path()).equals_missing(&undisturbed()));
}

#[test]
fn what_is_finished_when_a_run_is_stopped_is_published_and_the_next_run_computes_the_rest() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Moody { stop: Some(stop.clone()), ..Moody::default() };
    let summary = run_in(folder.path(), &stopped, Some(stop));
    assert_eq!((summary.stopped, summary.computed, summary.missing(), summary.parts), (true, 3, 5, 1));
    assert_eq!(rows(folder.path()).height(), 3);
    let again = run_in(folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.computed, again.parts), (3, 5, 2));
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
    assert_eq!((summary.stopped, summary.computed, summary.missing()), (true, 1, 7));
    let again = run_of(&text, folder.path(), &CpuBackend, None);
    assert_eq!((again.already, again.computed, again.failed.len()), (1, 7, 0));
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
