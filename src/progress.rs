//! How far a run is: a bar on a terminal, a plain line every ten seconds elsewhere, JSON lines for scripts, nothing when asked
//! to be quiet.

use std::fmt;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// Time between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Time between lines of JSON.
const JSON_EVERY: Duration = Duration::from_secs(2);

/// Set in the environment of a process whose stderr is passed on to a terminal by the one that started it.
pub const READ_ON_A_TERMINAL: &str = "TEGUM_ON_A_TERMINAL";

/// Whether what goes to stderr is read on a terminal.
pub fn on_terminal() -> bool {
    stderr().is_terminal() || std::env::var_os(READ_ON_A_TERMINAL).is_some()
}

/// Where a bar may be drawn: a terminal of this process's own.
fn bar_target() -> Option<ProgressDrawTarget> {
    match on_terminal() {
        true if stderr().is_terminal() => Some(ProgressDrawTarget::stderr()),
        true if stdout().is_terminal() => Some(ProgressDrawTarget::stdout()),
        _ => None,
    }
}

/// Whether all that goes to stderr is JSON, an object a line.
static JSON: AtomicBool = AtomicBool::new(false);

/// From now on every line on stderr is a JSON object.
pub fn speak_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Whether [`speak_json`] was called.
pub fn speaks_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// What a run found when it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Cells of the plan.
    pub cells: u64,
    /// Of them, on disk.
    pub done: u64,
    /// Cells on disk that are not of the plan.
    pub obsolete: u64,
    /// The directory was run with other plans before, and never with this one.
    pub edited: bool,
    /// Files set aside because they are not what their names say.
    pub damaged: usize,
    /// Unfinished files, of writers that live or died.
    pub temporary: usize,
    /// Files that are not the store's.
    pub unknown: usize,
    /// Missing cells that failed in a run before.
    pub failed_before: usize,
    /// Other writers that may be alive.
    pub others: usize,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing { cells, done, obsolete, damaged, temporary, unknown, others, .. } = self;
        let missing = cells.saturating_sub(*done);
        if self.edited || *obsolete > 0 {
            let where_they_are = "they stay on disk, and no answer holds them";
            writeln!(f, "cells of this plan: {done} kept, {missing} new; {obsolete} are obsolete: {where_they_are}")?;
        }
        match self.failed_before {
            0 => {}
            1 => f.write_str("1 cell failed before and is tried again\n")?,
            n => writeln!(f, "{n} cells failed before and are tried again")?,
        }
        write!(f, "{done} of {cells} cells are done, {missing} are missing")?;
        let counted = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        write!(f, "; {}, {}", counted(*damaged, "damaged file"), counted(*temporary, "temporary file"))?;
        if *unknown > 0 {
            write!(f, ", {}", counted(*unknown, "unknown file"))?;
        }
        match others {
            0 => f.write_str(", no other writer"),
            n => write!(f, ", {} at work", counted(*n, "other writer")),
        }
    }
}

enum Show {
    Bar(ProgressBar),
    /// When the last line was written.
    Lines(Mutex<Instant>),
    /// The same, for lines of JSON.
    Json(Mutex<Instant>),
    Nothing,
}

/// Counts model-steps and cells.
pub struct Progress {
    show: Show,
    start: Instant,
    /// When the first cell was begun.
    begun: OnceLock<Instant>,
    cells: AtomicU64,
    cells_done: AtomicU64,
    steps: AtomicU64,
    steps_done: AtomicU64,
    /// Of the steps that are done, those that took none of this run's time.
    restored: AtomicU64,
    /// The same of cells.
    others: AtomicU64,
}

/// What is known of the speed.
struct Speed {
    cells_per_second: f64,
    /// Seconds; none where nothing is known yet.
    left: Option<f64>,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let show = if speaks_json() {
            Show::Json(Mutex::new(Instant::now()))
        } else if quiet {
            Show::Nothing
        } else if let Some(target) = bar_target() {
            Show::Bar(ProgressBar::with_draw_target(Some(0), target).with_style(style()))
        } else {
            Show::Lines(Mutex::new(Instant::now()))
        };
        let zero = || AtomicU64::new(0);
        let (cells, cells_done, steps, steps_done) = (zero(), zero(), zero(), zero());
        let (restored, others, begun) = (zero(), zero(), OnceLock::new());
        Progress { show, start: Instant::now(), begun, cells, cells_done, steps, steps_done, restored, others }
    }

    /// What the run directory holds at the start.
    pub fn standing(&self, standing: &Standing) {
        match &self.show {
            Show::Nothing => {}
            Show::Json(_) => event(
                "start",
                json!({
                    "cells": standing.cells,
                    "done": standing.done,
                    "missing": standing.cells.saturating_sub(standing.done),
                    "kept": standing.done,
                    "new": standing.cells.saturating_sub(standing.done),
                    "obsolete": standing.obsolete,
                    "edited": standing.edited,
                    "failed_before": standing.failed_before,
                    "damaged": standing.damaged,
                    "temporary": standing.temporary,
                    "unknown": standing.unknown,
                    "other_writers": standing.others,
                }),
            ),
            _ => say(standing),
        }
    }

    /// Rows of a chunk, or of some of its cells, are on disk.
    pub fn published(&self, chunk: usize, cells: usize) {
        if let Show::Json(_) = &self.show {
            event("published", json!({ "chunk": chunk, "cells": cells }));
        }
    }

    /// Cells that others have computed since the run began.
    pub fn done_by_others(&self, cells: u64, steps: u64) {
        self.others.fetch_add(cells, Ordering::Relaxed);
        self.restored(steps);
        self.cells_done(cells);
    }

    pub fn begin(&self, cells: u64, steps: u64) {
        self.cells.store(cells, Ordering::Relaxed);
        self.steps.store(steps, Ordering::Relaxed);
        self.begun.get_or_init(Instant::now);
        if let Show::Bar(bar) = &self.show {
            bar.set_length(steps.max(1));
            bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    pub fn advance(&self, steps: u64) {
        let done = self.steps_done.fetch_add(steps, Ordering::Relaxed) + steps;
        match &self.show {
            Show::Bar(bar) => bar.set_position(done),
            Show::Lines(last) => self.line(last, LINE_EVERY),
            Show::Json(last) => self.line(last, JSON_EVERY),
            Show::Nothing => {}
        }
    }

    /// Steps that a run before this one has done.
    pub fn restored(&self, steps: u64) {
        self.restored.fetch_add(steps, Ordering::Relaxed);
        let done = self.steps_done.fetch_add(steps, Ordering::Relaxed) + steps;
        if let Show::Bar(bar) = &self.show {
            // What is left is guessed from the steps since.
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    pub fn cells_done(&self, cells: u64) {
        let done = self.cells_done.fetch_add(cells, Ordering::Relaxed) + cells;
        match &self.show {
            Show::Bar(bar) => {
                let rate = self.speed().cells_per_second;
                bar.set_message(format!("{done}/{} cells, {}", self.cells.load(Ordering::Relaxed), Rate(rate)));
            }
            Show::Lines(last) => self.line(last, LINE_EVERY),
            Show::Json(last) => self.line(last, JSON_EVERY),
            Show::Nothing => {}
        }
    }

    /// Cells in a second and seconds left, from what this run has measured.
    fn speed(&self) -> Speed {
        let seconds = self.begun.get().unwrap_or(&self.start).elapsed().as_secs_f64();
        let own = |done: &AtomicU64, not: &AtomicU64| {
            done.load(Ordering::Relaxed).saturating_sub(not.load(Ordering::Relaxed)) as f64
        };
        let (steps, done) = (self.steps.load(Ordering::Relaxed), self.steps_done.load(Ordering::Relaxed));
        let left = seconds * steps.saturating_sub(done) as f64 / own(&self.steps_done, &self.restored);
        let cells_per_second = own(&self.cells_done, &self.others) / seconds.max(1e-9);
        Speed { cells_per_second, left: Some(left).filter(|left| left.is_finite()) }
    }

    /// A line if the last one is old enough.
    fn line(&self, last: &Mutex<Instant>, every: Duration) {
        let Ok(mut last) = last.try_lock() else { return };
        if last.elapsed() < every {
            return;
        }
        *last = Instant::now();
        let (done, steps) = (self.steps_done.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed));
        let (cells_done, cells) = (self.cells_done.load(Ordering::Relaxed), self.cells.load(Ordering::Relaxed));
        let (elapsed, speed) = (self.start.elapsed().as_secs_f64(), self.speed());
        if let Show::Json(_) = &self.show {
            let progress = json!({
                "cells_done": cells_done,
                "cells": cells,
                "steps_done": done,
                "steps": steps,
                "seconds": elapsed,
                "cells_per_second": speed.cells_per_second,
                "seconds_left": speed.left,
            });
            return event("progress", progress);
        }
        let share = (done as f64 / steps.max(1) as f64).min(1.0);
        let left = speed.left.map_or(String::new(), |left| format!(", about {left:.0} s left"));
        let rate = Rate(speed.cells_per_second);
        say(format_args!(
            "{cells_done}/{cells} cells, {rate}, {:.0} % of the steps, {elapsed:.0} s{left}",
            100.0 * share
        ));
    }

    pub fn end(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

/// Cells in a second, or in a minute or an hour where a second sees few.
struct Rate(f64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate >= 1.0 => write!(f, "{rate:.1} cells/s"),
            rate if 60.0 * rate >= 1.0 => write!(f, "{:.1} cells/min", 60.0 * rate),
            rate => write!(f, "{:.1} cells/h", 3600.0 * rate),
        }
    }
}

/// A line on stderr. Nobody reading it any more (`2>&1 | head`) is no reason to stop a run.
pub fn say(line: impl fmt::Display) {
    if speaks_json() {
        return event("message", json!({ "text": line.to_string() }));
    }
    write_line(&line.to_string());
}

/// A path as a word of a command that can be copied into a shell: in single quotes where a shell would take it apart.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// In one call: the supervisor and the worker share stderr, and a worker that is killed is not to leave half a line.
fn write_line(line: &str) {
    let _ = stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// A line of JSON on stderr: `event`, then what belongs to it.
pub fn event(name: &str, mut fields: Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.shift_insert(0, "event".to_owned(), json!(name));
    }
    write_line(&fields.to_string());
}

/// Stderr for the log: each record is a line, as it is or as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, record: &[u8]) -> std::io::Result<usize> {
        if !speaks_json() {
            return stderr().lock().write(record);
        }
        let text = String::from_utf8_lossy(record);
        let text = text.trim();
        let is_warning = ["WARN", "ERROR"].iter().any(|level| text.starts_with(level));
        event(if is_warning { "warning" } else { "message" }, json!({ "text": text }));
        Ok(record.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        stderr().flush()
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:40} {percent:>3} %  {msg}  {elapsed_precise}, {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl crate::backend::Watch for Progress {
    fn advance(&self, model_steps: u64) {
        Progress::advance(self, model_steps);
    }

    fn restored(&self, model_steps: u64) {
        Progress::restored(self, model_steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_finds_is_told_in_a_line() {
        let nothing = Standing { cells: 32, ..Standing::default() };
        let text = "0 of 32 cells are done, 32 are missing; 0 damaged files, 0 temporary files, no other writer";
        assert_eq!(nothing.to_string(), text);
        let busy = Standing { cells: 32, done: 30, damaged: 1, temporary: 2, unknown: 1, others: 1, ..nothing.clone() };
        let text = "30 of 32 cells are done, 2 are missing; 1 damaged file, 2 temporary files, 1 unknown file, 1 other writer at work";
        assert_eq!(busy.to_string(), text);
    }

    #[test]
    fn a_path_that_a_shell_would_take_apart_is_quoted() {
        for (path, word) in [
            ("results/quick-start_1.0", "results/quick-start_1.0"),
            ("r s/über", "'r s/über'"),
            ("it's", r"'it'\''s'"),
            ("a$b", "'a$b'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn rates_are_told_in_the_unit_that_has_digits() {
        let told = [12.34, 0.1, 0.001].map(|rate| Rate(rate).to_string());
        assert_eq!(told, ["12.3 cells/s", "6.0 cells/min", "3.6 cells/h"]);
    }

    #[test]
    fn what_others_did_counts_as_done_and_not_as_speed() {
        let progress = Progress::new(true);
        progress.begin(4, 400);
        assert!(progress.speed().left.is_none());
        progress.done_by_others(2, 200);
        assert!(progress.speed().left.is_none() && progress.speed().cells_per_second == 0.0);
        progress.advance(100);
        progress.cells_done(1);
        let speed = progress.speed();
        assert!(speed.left.is_some_and(|left| left > 0.0) && speed.cells_per_second > 0.0);
    }
}
