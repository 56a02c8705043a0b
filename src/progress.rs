//! How far a run is: a bar on a terminal, a plain line every ten seconds elsewhere, nothing when asked to be quiet.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Seconds between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

enum Show {
    Bar(ProgressBar),
    /// When the last line was written.
    Lines(Mutex<Instant>),
    Nothing,
}

/// Counts model-steps and cells.
pub struct Progress {
    show: Show,
    start: Instant,
    cells: AtomicU64,
    cells_done: AtomicU64,
    steps: AtomicU64,
    steps_done: AtomicU64,
    /// Of the steps that are done, those that took none of this run's time.
    restored: AtomicU64,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        let show = if quiet {
            Show::Nothing
        } else if stderr().is_terminal() {
            Show::Bar(ProgressBar::new(0).with_style(style()))
        } else {
            Show::Lines(Mutex::new(Instant::now()))
        };
        let zero = || AtomicU64::new(0);
        let (cells, cells_done, steps, steps_done, restored) = (zero(), zero(), zero(), zero(), zero());
        Progress { show, start: Instant::now(), cells, cells_done, steps, steps_done, restored }
    }

    pub fn begin(&self, cells: u64, steps: u64) {
        self.cells.store(cells, Ordering::Relaxed);
        self.steps.store(steps, Ordering::Relaxed);
        if let Show::Bar(bar) = &self.show {
            bar.set_length(steps.max(1));
            bar.enable_steady_tick(Duration::from_millis(200));
        }
    }

    pub fn advance(&self, steps: u64) {
        let done = self.steps_done.fetch_add(steps, Ordering::Relaxed) + steps;
        match &self.show {
            Show::Bar(bar) => bar.set_position(done),
            Show::Lines(last) => self.line(last),
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
        if let Show::Bar(bar) = &self.show {
            bar.set_message(format!("{done}/{} cells", self.cells.load(Ordering::Relaxed)));
        }
    }

    /// A line if the last one is old enough.
    fn line(&self, last: &Mutex<Instant>) {
        let Ok(mut last) = last.try_lock() else { return };
        if last.elapsed() < LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let (done, steps) = (self.steps_done.load(Ordering::Relaxed), self.steps.load(Ordering::Relaxed).max(1));
        let share = (done as f64 / steps as f64).min(1.0);
        let elapsed = self.start.elapsed().as_secs_f64();
        let own = done.saturating_sub(self.restored.load(Ordering::Relaxed));
        let left = if own > 0 { elapsed * steps.saturating_sub(done) as f64 / own as f64 } else { f64::NAN };
        let left = if left.is_finite() { format!(", about {left:.0} s left") } else { String::new() };
        let (cells_done, cells) = (self.cells_done.load(Ordering::Relaxed), self.cells.load(Ordering::Relaxed));
        say(format_args!("{cells_done}/{cells} cells, {:.0} % of the steps, {elapsed:.0} s{left}", 100.0 * share));
    }

    pub fn end(&self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

/// A line on stderr. Nobody reading it any more (`2>&1 | head`) is no reason to stop a run.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(stderr().lock(), "{line}");
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
