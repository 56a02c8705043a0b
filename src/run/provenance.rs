//! Who computes what, beside the rows and never in them: a record for each process that computes, written before its first
//! cell, so that one that is killed leaves it, and completed at its end.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::{Options, Summary};
use crate::backend::Backend;
use crate::store::{Store, StoreError};

/// How often the record of a process that goes on is completed.
const RENEW_EVERY: Duration = Duration::from_secs(60);

/// What a cluster says of a job. Nothing else of the environment is kept.
const JOB: [&str; 9] = [
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_NODEID",
    "SLURM_RESTART_COUNT",
];

/// The record of this process.
pub struct Provenance<'a> {
    store: &'a Store,
    facts: Map<String, Value>,
    start: Instant,
    /// Where it is and when it was written last; none before the first cell.
    written: Option<(PathBuf, Instant)>,
}

impl<'a> Provenance<'a> {
    /// Of a process that writes to a store rows of the plan with this hash. Nothing is written yet.
    pub fn new(store: &'a Store, plan: &str, backend: &dyn Backend, options: &Options) -> Provenance<'a> {
        let mut facts = Map::new();
        let mut add = |values: Value| {
            if let Value::Object(values) = values {
                facts.extend(values);
            }
        };
        add(json!({ "writer": store.writer(), "plan": plan, "started": utc(SystemTime::now()) }));
        add(machine());
        add(json!({
            "backend": backend.name(),
            "profile": backend.profile(),
            "gpus": backend.devices(),
            "gpu_driver": if backend.devices().is_empty() { None } else { gpu_driver() },
            "threads": rayon::current_num_threads(),
            "shard": [options.shard.0, options.shard.1],
            "restarts": options.worker.as_ref().map_or(0, |worker| worker.orders.restarts),
        }));
        add(build());
        add(json!({ "job": job(|name| std::env::var(name).ok()) }));
        Provenance { store, facts, start: Instant::now(), written: None }
    }

    /// Before cells are computed: writes the record, or completes it if it is old.
    ///
    /// # Errors
    /// The first record cannot be written: nothing is computed yet. Later that is a warning.
    pub fn renew(&mut self, summary: &Summary) -> Result<(), StoreError> {
        match &self.written {
            None => {
                let path = self.store.write_provenance(&self.record(summary, None))?;
                self.written = Some((path, Instant::now()));
            }
            Some((_, last)) if last.elapsed() >= RENEW_EVERY => self.complete(summary, None),
            Some(_) => {}
        }
        Ok(())
    }

    /// At the end: how it came, `finished`, `stopped` or what went wrong. Without a cell computed there is no record.
    pub fn end(mut self, summary: &Summary, outcome: &str) {
        self.complete(summary, Some(outcome));
    }

    fn complete(&mut self, summary: &Summary, outcome: Option<&str>) {
        let record = self.record(summary, outcome);
        let Some((path, last)) = &mut self.written else { return };
        // The rows are on disk: a full disk is not waited for, and is no reason to fail.
        let store = self.store.clone().with_disk_wait(Duration::ZERO);
        if let Err(error) = store.rewrite_provenance(path, &record) {
            tracing::warn!("who computed these rows is not known to its end: {error}");
        }
        *last = Instant::now();
    }

    fn record(&self, summary: &Summary, outcome: Option<&str>) -> Value {
        let mut record = self.facts.clone();
        let parts = self.store.written();
        let values = json!({
            "ended": outcome.map(|_| utc(SystemTime::now())),
            "outcome": outcome,
            "seconds": self.start.elapsed().as_secs_f64(),
            "cells_computed": summary.counts.computed,
            "cells_failed": summary.failed.len(),
            "parts": parts,
        });
        if let Value::Object(values) = values {
            record.extend(values);
        }
        Value::Object(record)
    }
}

fn machine() -> Value {
    json!({
        "host": rustix::system::uname().nodename().to_string_lossy(),
        "pid": std::process::id(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "cpu": cpu_model(),
    })
}

/// What the program was built from, as far as the build script found out.
pub fn build() -> Value {
    let features = env!("TEGUM_FEATURES").split(',').filter(|feature| !feature.is_empty());
    json!({
        "tegum": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("TEGUM_COMMIT"),
        "dirty": option_env!("TEGUM_DIRTY").map(|dirty| dirty == "true"),
        "rustc": option_env!("TEGUM_RUSTC"),
        "target": env!("TEGUM_TARGET"),
        "features": features.collect::<Vec<_>>(),
    })
}

fn job(variable: impl Fn(&str) -> Option<String>) -> Value {
    let known = JOB.iter().filter_map(|name| Some(((*name).to_owned(), Value::String(variable(name)?))));
    let known: Map<String, Value> = known.collect();
    if known.is_empty() { Value::Null } else { Value::Object(known) }
}

/// The version of the NVIDIA driver, where the system tells.
fn gpu_driver() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    text.lines().next().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The CPU's name, where the system tells.
pub fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A time as `2024-02-29T12:00:00Z`; one before 1970 as the first moment of 1970.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let leaps = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |year| 365 + u64::from(leaps(year));
    let mut year = 1970;
    while day >= days_of(year) {
        day -= days_of(year);
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, days_of(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hours, minutes) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{:02}-{:02}T{hours:02}:{minutes:02}:{:02}Z", month + 1, day + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds: u64| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(at(4_102_444_799), "2099-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc(UNIX_EPOCH - Duration::from_secs(5)), at(0));
    }

    #[test]
    fn of_the_environment_a_job_is_kept_and_nothing_else() {
        let environment = |name: &str| match name {
            "SLURM_JOB_ID" => Some("17".to_owned()),
            "HOME" | "SLURM_JOB_USER" => panic!("nobody asked for {name}"),
            _ => None,
        };
        assert_eq!(job(environment), json!({ "SLURM_JOB_ID": "17" }));
        assert_eq!(job(|_| None), Value::Null);
    }

    #[test]
    fn the_build_is_known_by_its_compiler_and_target() {
        let build = build();
        assert!(build["rustc"].as_str().is_some_and(|rustc| rustc.starts_with("rustc ")), "{build}");
        assert!(build["target"].as_str().is_some_and(|target| target.contains('-')), "{build}");
        assert_eq!(build["commit"].is_string(), build["dirty"].is_boolean(), "{build}");
    }
}
