//! The process that computes, as its supervisor knows it: what it is told at its start, and what it tells.
//!
//! The two share a socket, which is the worker's standard input. Each line is a JSON object.
//!
//! ```text
//! supervisor -> worker    its orders, once; `stop` when the run is to end early
//! worker -> supervisor    the cells it is about to compute; those whose rows are on disk
//! ```
//!
//! A worker ends when its supervisor does.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Counts;
use super::suspects::{Attempt, Cells, Suspects};

/// Set in the environment of a worker.
pub const WORKER: &str = "TEGUM_WORKER";

/// What a worker is told at its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// How many workers of this run have died.
    pub restarts: u32,
    /// Whether one of them had checked what is to be known before anything is computed, and had said so.
    pub ready: bool,
    /// What the one before knew.
    pub suspects: Suspects,
    /// What it was computing and had not published.
    pub running: Cells,
    /// How it ended; none for the first worker.
    pub death: Option<Attempt>,
    /// What all workers before have published.
    pub counts: Counts,
    /// How long they have run.
    pub seconds: f64,
}

/// What a worker tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Report {
    /// All is checked, and a run that was to be set aside is.
    Ready,
    /// It is about to compute cells.
    Begin { suspects: Suspects, running: Cells },
    /// Rows of these are on disk.
    Done { cells: Cells, counts: Counts },
}

/// The line that asks a worker to stop.
pub const STOP: &str = "stop";

/// This process, as a worker.
#[derive(Debug)]
pub struct Worker {
    pub orders: Orders,
    socket: Mutex<UnixStream>,
}

impl Worker {
    /// Takes the place of a worker, if this process was started as one. `stop` is set when the supervisor says so.
    ///
    /// # Errors
    /// Standard input is not what a supervisor gives.
    pub fn start(stop: Arc<AtomicBool>) -> io::Result<Option<Worker>> {
        if std::env::var_os(WORKER).is_none() {
            return Ok(None);
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut lines = BufReader::new(socket.try_clone()?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let orders = serde_json::from_str(&first).map_err(io::Error::other)?;
        std::thread::Builder::new().name("orders".into()).spawn(move || listen(lines, &stop))?;
        Ok(Some(Worker { orders, socket: Mutex::new(socket) }))
    }

    /// All is checked, and a run that was to be set aside is.
    pub fn ready(&self) {
        self.tell(&Report::Ready);
    }

    /// These cells are about to be computed; if the process dies now, it was one of them.
    pub fn begin(&self, suspects: &Suspects, cells: &[usize]) {
        self.tell(&Report::Begin { suspects: suspects.clone(), running: Cells::of(cells) });
    }

    /// Rows of these cells (ascending) are on disk.
    pub fn done(&self, cells: &[usize], counts: &Counts) {
        self.tell(&Report::Done { cells: Cells::of(cells), counts: *counts });
    }

    fn tell(&self, report: &Report) {
        let Ok(mut line) = serde_json::to_string(report) else { return };
        line.push('\n');
        // A supervisor that is gone ends this process by itself.
        let _ = self.socket.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

/// Waits for what the supervisor says, and for its end.
fn listen(lines: impl BufRead, stop: &AtomicBool) {
    for line in lines.lines().map_while(Result::ok) {
        if line == STOP {
            stop.store(true, Ordering::Relaxed);
        }
    }
    // As a kill: whatever is half done is no row, and nobody waits for an exit code.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
