//! `tegum run`: train what is missing, draw, check.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::json;

use super::{
    ArithmeticChoice, BackendChoice, Failure, Outcome, backend, default_out, doubts, figure, notice, planned_document,
    print,
};
use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::plan::Plan;
use crate::plan::chunk::SECONDS;
use crate::progress::{Progress, event, say};
use crate::run::columns::ScoreColumn;
use crate::run::preflight::{self, Estimate, Fewer, Limit};
use crate::run::results::Results;
use crate::run::supervise::{STOPPED, stopping, supervise};
use crate::run::worker::Worker;
use crate::run::{Options, Summary, kept_weights, plan_record, questions, run};
use crate::spec::Document;
use crate::store::{PlanRecord, Store};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment
    file: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

/// How a run is carried out, whatever it trains on.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Run directory; defaults to results/<name>
    #[arg(long)]
    out: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = BackendChoice::Auto)]
    backend: BackendChoice,
    /// GPUs to train on, by their numbers in `tegum devices`; defaults to 0. The rows do not depend on it
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    devices: Vec<usize>,
    /// What to train in. The rows are those of this arithmetic: cells of another are other cells
    #[arg(long, value_enum, default_value_t = ArithmeticChoice::F32)]
    arithmetic: ArithmeticChoice,
    /// Threads; defaults to all cores. The rows do not depend on it
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Make the folders above the run directory that are not there
    #[arg(long, short = 'p')]
    parents: bool,
    /// Compute chunks i, i + S, i + 2S, ... only, as i/S
    #[arg(long, default_value = "0/1", value_parser = shard)]
    shard: (u64, u64),
    /// Move an existing run directory aside and start anew
    #[arg(long)]
    fresh: bool,
    /// Add to a directory that holds the run of another experiment
    #[arg(long)]
    extend: bool,
    /// Refuse what is only a warning otherwise
    #[arg(long)]
    strict: bool,
    /// Seconds that the training of an SAE may lose when the process is killed; 0 keeps nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    checkpoint_every: f64,
    /// Allow more than ten million cells
    #[arg(long)]
    yes_cells: Option<u64>,
    /// Seconds of one core, estimated, that the cells published together take. The rows do not depend on it
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS, value_parser = seconds)]
    chunk_seconds: f64,
    /// Memory that the run may have, such as 64G, instead of what this machine has
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    max_mem: Option<f64>,
    /// Seconds that a full disk is waited for before the run ends with 5
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    disk_wait: f64,
    /// Begin although the disk is probably too small
    #[arg(long)]
    yes: bool,
    /// Compute in this process, for debuggers: a crash ends the run
    #[arg(long)]
    no_supervisor: bool,
    /// Write what happens to stderr as JSON, an object a line
    #[arg(long)]
    json_progress: bool,
}

fn shard(text: &str) -> Result<(u64, u64), String> {
    let wrong = || "expected i/S with 0 <= i < S, for example 0/2".to_owned();
    let (i, s) = text.split_once('/').ok_or_else(wrong)?;
    match (i.parse(), s.parse()) {
        (Ok(i), Ok(s)) if i < s => Ok((i, s)),
        _ => Err(wrong()),
    }
}

/// Bytes as people write them: 512M, 64G, 1T.
pub fn memory(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(number) => (number, 1024f64.powi(1 + "KMGT".find(&text[number.len()..]).map_or(0, |at| at as i32))),
        None => (text, 1.0),
    };
    let bytes = number.parse::<f64>().ok().map(|number| number * unit).filter(|bytes| (0.0..=1e18).contains(bytes));
    bytes.ok_or_else(|| "expected bytes, for example 512M or 64G".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    seconds.ok_or_else(|| "expected seconds from 0 to 1e9, for example 60".to_owned())
}

pub fn carry_out(args: &Args, quiet: bool) -> Outcome {
    carry_out_document(|| Ok(Document::load(&args.file)?), &args.settings, quiet).map(|(code, _)| code)
}

/// Runs an experiment in a process of its own, which is started again if it dies. Returns the exit code and, in the process that
/// computed and where all of it is done, its results.
pub fn carry_out_document(
    load: impl FnOnce() -> Result<Document, Failure>,
    args: &Settings,
    quiet: bool,
) -> Result<(i32, Option<Results>), Failure> {
    if args.no_supervisor {
        return carry_out_in(load, args, quiet, stop_on_signals()?, None);
    }
    let stop = Arc::new(AtomicBool::new(false));
    match Worker::start(stop.clone()).map_err(|e| Failure::new(5, format!("a worker without a supervisor: {e}")))? {
        None => {
            let code = supervise();
            Ok((code.map_err(|e| Failure::new(5, format!("cannot start a process: {e}; try --no-supervisor")))?, None))
        }
        Some(worker) => {
            leave_signals_to_the_supervisor()?;
            carry_out_in(load, args, quiet, stop, Some(worker))
        }
    }
}

fn carry_out_in(
    load: impl FnOnce() -> Result<Document, Failure>,
    args: &Settings,
    quiet: bool,
    stop: Arc<AtomicBool>,
    worker: Option<Worker>,
) -> Result<(i32, Option<Results>), Failure> {
    // What a worker before has said is not said again, and what it has set aside is where it belongs.
    let first = worker.as_ref().is_none_or(|worker| !worker.orders.ready);
    let ready = Ready::of(load, args, quiet, first)?;
    let Ready { plan, columns, record, backend, out, fewer } = &ready;
    if args.fresh && first {
        set_aside(out)?;
    }
    if !quiet && first {
        let (name, cells) = (&plan.document.experiment.name, plan.cells.len());
        say(format_args!("{name}: {cells} cells, plan {}, {}", plan.hash(), out.display()));
        notice(plan);
    }
    if let Some(worker) = &worker {
        worker.ready();
    }
    let checkpoint_every = (args.checkpoint_every > 0.0).then(|| Duration::from_secs_f64(args.checkpoint_every));
    let options = Options {
        out: out.clone(),
        shard: args.shard,
        stop,
        extend: args.extend,
        checkpoint_every,
        worker,
        disk_wait: Duration::from_secs_f64(args.disk_wait),
    };
    let progress = Progress::new(quiet);
    let compute = || run(plan, columns, record, &**backend, &options, &progress);
    let summary = match fewer {
        Some(fewer) => pool(fewer.threads)?.install(compute)?,
        None => compute()?,
    };
    if !quiet {
        print(&told(&summary))?;
    }
    if let Some(code) = unfinished(&summary, out, args.json_progress, quiet)? {
        return Ok((code, None));
    }
    ready.conclude(quiet).map(|(code, results)| (code, Some(results)))
}

/// What a run needs, when all of it is checked and nothing on disk is touched.
struct Ready {
    plan: Plan,
    columns: Vec<ScoreColumn>,
    record: PlanRecord,
    backend: Box<dyn Backend>,
    out: PathBuf,
    /// Where memory is short.
    fewer: Option<Fewer>,
}

impl Ready {
    /// `first`: not a worker that takes the place of one that died, whose checks were done.
    fn of(
        load: impl FnOnce() -> Result<Document, Failure>,
        args: &Settings,
        quiet: bool,
        first: bool,
    ) -> Result<Ready, Failure> {
        let mut backend = backend(args.backend, &args.devices, args.arithmetic)?;
        // Before anything else: planning already uses the threads.
        if let Some(threads) = args.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
            // One thread is this one, so that whoever traces its calls sees all of them in their order. Not with several GPUs: it
            // waits for threads of theirs, which wait for what the pool computes.
            let pool = if threads == 1 && args.devices.len() < 2 { pool.use_current_thread() } else { pool };
            pool.build_global().map_err(|e| Failure::new(5, format!("cannot start {threads} threads: {e}")))?;
        }
        let document = load()?;
        let (mut plan, mut columns, mut estimate) = estimated(document.clone(), &*backend, args)?;
        if let Err(why) = preflight::gpu(&plan, &estimate, backend.memory()) {
            // What is asked for is never replaced; what was only there is.
            let is_asked = (args.backend, args.arithmetic) != (BackendChoice::Auto, ArithmeticChoice::F32);
            if is_asked || !args.devices.is_empty() {
                return Err(why.into());
            }
            if first {
                say(format_args!("warning: {}\n  the CPU trains instead", why.to_string().trim_end()));
            }
            backend = Box::new(CpuBackend);
            (plan, columns, estimate) = estimated(document, &*backend, args)?;
        }
        doubts(&plan, args.strict, quiet || !first)?;
        questions::check(&plan, &columns)?;
        let out = args.out.clone().unwrap_or_else(|| default_out(&plan.document.experiment.name));
        let record = plan_record(&plan, &columns, backend.profile());
        let limit = Limit::of(args.max_mem);
        let fewer = Fewer::of(&estimate, limit, rayon::current_num_threads());
        if first {
            preflight::memory(&plan, &estimate, limit)?;
            preflight::parents(&out, args.parents)?;
            let left = preflight::left(&plan, &record.hash(), (!args.fresh).then_some(&*out), args.shard);
            preflight::disk(&out, &estimate.times(left), args.yes)?;
            if let Some(fewer) = &fewer {
                tracing::warn!("{fewer}");
            }
        }
        Ok(Ready { plan, columns, record, backend, out, fewer })
    }

    /// When all cells have rows: collects, draws, judges. A figure that has nothing to show, as where every cell diverged, is a
    /// warning; with one that is wrong the run ends in 3, but all others are drawn and the expectations judged before.
    fn conclude(self, quiet: bool) -> Result<(i32, Results), Failure> {
        let results = Results::of_plan(&self.out, self.plan, self.record)?;
        results.keep_collected()?;
        let undrawn = figure::told(results.draw(None, None, &self.out)?, quiet)?;
        let (lacking, wrong): (Vec<_>, Vec<_>) = undrawn.into_iter().partition(|(_, why)| why.lacks_data());
        for (name, why) in lacking {
            tracing::warn!("figure {name} is not drawn: {why}");
        }
        let (text, passed) = results.expectations()?;
        print(&text)?;
        match &wrong[..] {
            [] => Ok((if passed { 0 } else { 8 }, results)),
            wrong => Err(figure::fault(wrong)),
        }
    }
}

/// The plan of a document for a backend, and what it takes.
fn estimated(
    document: Document,
    backend: &dyn Backend,
    args: &Settings,
) -> Result<(Plan, Vec<ScoreColumn>, Estimate), Failure> {
    let (plan, columns) = planned_document(document, backend.profile(), args.yes_cells)?;
    let plan = plan.in_chunks_of(args.chunk_seconds);
    let estimate = Estimate::of(&plan, columns.len(), &kept_weights(&plan));
    Ok((plan, columns, estimate))
}

/// Threads with the stack that the first thread of a process has.
fn pool(threads: usize) -> Result<rayon::ThreadPool, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20).build();
    pool.map_err(|e| Failure::new(5, format!("cannot start {threads} threads: {e}")))
}

/// Says what is on disk; the exit code if that is not the whole plan.
fn unfinished(summary: &Summary, out: &std::path::Path, json: bool, quiet: bool) -> Result<Option<i32>, Failure> {
    let code = match summary {
        Summary { stopped: true, .. } => Some(STOPPED),
        _ if !summary.failed.is_empty() => Some(FAILED),
        _ if summary.missing() > 0 => Some(0),
        _ => None,
    };
    if json {
        event(
            "end",
            json!({
                "cells": summary.cells,
                "done": summary.done(),
                "computed": summary.counts.computed,
                "failed": summary.failed.iter().map(|failed| failed.cell.to_string()).collect::<Vec<_>>(),
                "missing": summary.missing(),
                "parts": summary.parts,
                "stopped": summary.stopped,
                "seconds": summary.seconds,
                "out": out.display().to_string(),
            }),
        );
    } else if !quiet || !summary.failed.is_empty() {
        for failed in &summary.failed {
            say(format_args!("failed: cell {} ({}): {}", failed.cell, failed.what, failed.reason));
        }
        if !summary.failed.is_empty() {
            say(format_args!(
                "the next start tries failed cells again; what is known of them is in {}/failed",
                out.display()
            ));
        }
    }
    if summary.stopped {
        say("stopped; what was published stays, and the same command continues");
    } else if code.is_some() {
        let done = summary.done();
        print(&format!("{done} of {} cells are done; figures and expectations wait for the rest\n", summary.cells))?;
    }
    if !quiet {
        print(&format!("on disk: {}\n", on_disk(summary, out)))?;
    }
    Ok(code)
}

/// Exit code of a run that has computed all but the cells that fail.
const FAILED: i32 = 4;

fn on_disk(summary: &Summary, out: &std::path::Path) -> String {
    let (done, parts, failed) = (summary.done(), summary.parts, summary.failed.len());
    let parts = format!("{parts} {}", if parts == 1 { "part" } else { "parts" });
    let dir = out.display();
    format!("{done} of {} cells in {parts} in {dir}, {failed} failed, {} missing", summary.cells, summary.missing())
}

/// A flag that the first SIGINT, SIGTERM, SIGUSR1 or SIGHUP sets, so that what is published stays and exit 75 says "run again
/// to continue"; the second one ends the process at once.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in stopping() {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()))
            .map_err(|e| Failure::new(5, format!("signals cannot be watched: {e}")))?;
    }
    Ok(stop)
}

/// A terminal or a cluster manager sends a signal to both processes: the supervisor passes it on.
fn leave_signals_to_the_supervisor() -> Result<(), Failure> {
    let nobody = Arc::new(AtomicBool::new(false));
    for signal in stopping() {
        signal_hook::flag::register(signal, nobody.clone())
            .map_err(|e| Failure::new(5, format!("signals cannot be watched: {e}")))?;
    }
    Ok(())
}

fn told(summary: &Summary) -> String {
    let mut text = format!(
        "{} cells: {} computed in {:.1} s, {} were there",
        summary.cells, summary.counts.computed, summary.seconds, summary.already
    );
    for (count, what) in [
        (summary.counts.diverged, "diverged"),
        (summary.counts.degenerate, "degenerate"),
        (summary.counts.off_target, "missed their target_l0"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    match summary.quarantined.len() {
        0 => {}
        1 => text.push_str("; 1 damaged file was set aside"),
        more => text.push_str(&format!("; {more} damaged files were set aside")),
    }
    text.push('\n');
    text
}

/// Renames an existing run directory to the first free `<name>.old-<n>`; what is no run is not moved.
fn set_aside(out: &std::path::Path) -> Result<(), Failure> {
    if !out.exists() {
        return Ok(());
    }
    let is_empty = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if let (false, Err(error)) = (is_empty, Store::open(out)) {
        return Err(Failure::new(5, format!("--fresh: {error}\n  it stays where it is: choose another --out DIR")));
    }
    let name = out.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned());
    let free = (1..)
        .map(|n| out.with_file_name(format!("{name}.old-{n}")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| out.with_file_name("run.old"));
    std::fs::rename(out, &free)
        .map_err(|e| Failure::new(5, format!("{}: cannot be moved aside: {e}", out.display())))?;
    say(format_args!("{} is now {}", out.display(), free.display()));
    Ok(())
}
