//! `tegum run` is two processes: one that computes, and this one, which starts it again if it dies.
//!
//! A worker that aborts, overflows its stack or is killed for its memory takes no other cell with it: the next worker computes
//! what it was at in smaller groups, until the cell is found. What it says on stderr is passed on, and its last lines are kept
//! for the record of what it died of. Signals come here; the worker is asked to stop through its
//! socket, so that it does not matter whether a terminal or a cluster manager sends them to both.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Write, stderr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::Counts;
use super::last_words::pass_on;
use super::suspects::{Attempt, Cells, Suspects};
use super::worker::{Orders, Report, STOP, WORKER};
use crate::progress::{READ_ON_A_TERMINAL, on_terminal, say};

/// The first of these asks a run to stop, the second ends it at once.
pub const STOPPING: [i32; 4] = [SIGINT, SIGTERM, SIGUSR1, SIGHUP];

/// How many workers in a row may die before they compute anything.
const VAIN: u32 = 3;

/// Exit code of a run that was asked to stop: the same command continues it.
pub const STOPPED: i32 = 75;

/// Whether a signal was ignored when this process began, as `nohup` does with SIGHUP. Such a signal stays ignored.
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// [`STOPPING`] without a hang-up that is to be ignored.
pub fn stopping() -> impl Iterator<Item = i32> {
    STOPPING.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP))
}

/// What a worker has told.
#[derive(Debug, Default, PartialEq)]
struct Journal {
    suspects: Suspects,
    running: BTreeSet<usize>,
    /// Of this worker and those before it.
    counts: Counts,
    ready: bool,
    /// Whether this worker has begun to compute.
    begun: bool,
}

impl Journal {
    fn hear(&mut self, report: Report) {
        match report {
            Report::Ready => self.ready = true,
            Report::Begin { suspects, running } => {
                self.begun = true;
                self.suspects = suspects;
                self.running = running.indices().collect();
            }
            Report::Done { cells, counts } => {
                self.counts.add(&counts);
                cells.indices().for_each(|cell| {
                    self.running.remove(&cell);
                });
            }
        }
    }
}

/// The worker that runs now, and whether it was asked to stop.
#[derive(Default)]
struct Now {
    socket: Option<UnixStream>,
    pid: Option<i32>,
    stopped: bool,
}

/// Runs this command line in a worker, and in another one where that dies; returns the exit code.
///
/// # Errors
/// No process or socket is to be had.
pub fn supervise() -> io::Result<i32> {
    let now = Arc::new(Mutex::new(Now::default()));
    watch_signals(now.clone())?;
    let (mut orders, mut vain, begin) = (Orders::default(), 0, Instant::now());
    loop {
        let (mut child, socket) = start(&orders)?;
        {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            now.pid = i32::try_from(child.id()).ok();
            now.socket = Some(socket.try_clone()?);
            if now.stopped {
                now.ask_to_stop();
            }
        }
        let words = child.stderr.take().map(|words| std::thread::spawn(|| pass_on(words, stderr())));
        let journal = hear(&orders, socket);
        let status = child.wait()?;
        let last_words = words.and_then(|words| words.join().ok()).unwrap_or_default();
        let stopped = {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            (now.pid, now.socket) = (None, None);
            now.stopped
        };
        let Some(signal) = status.signal() else { return Ok(status.code().unwrap_or(1)) };
        // A worker that heeds none of these yet is at its very start: nothing is half done.
        if stopped || STOPPING.contains(&signal) {
            say("stopped; what was published stays, and the same command continues");
            return Ok(STOPPED);
        }
        let reason = reason(status, signal);
        vain = if journal.begun && !journal.running.is_empty() { 0 } else { vain + 1 };
        if vain == VAIN {
            say(format_args!("{reason}, {VAIN} times before it computed a cell; what was published stays"));
            return Ok(128 + signal);
        }
        let cells: Vec<usize> = journal.running.into_iter().collect();
        let computing = if journal.begun { cells.len() } else { 0 };
        say(format_args!("warning: {reason}, computing {computing} cells; it is started again"));
        // Of what a worker died that had not begun yet, the cells of the one before it are not to blame.
        let death = if journal.begun { Some(Attempt { reason, stderr: last_words }) } else { orders.death };
        orders = Orders {
            restarts: orders.restarts + 1,
            ready: journal.ready,
            suspects: journal.suspects,
            running: Cells::of(&cells),
            death,
            counts: journal.counts,
            seconds: begin.elapsed().as_secs_f64(),
        };
    }
}

impl Now {
    fn ask_to_stop(&mut self) {
        self.stopped = true;
        if let Some(socket) = &mut self.socket {
            // A worker that is gone needs no word.
            let _ = writeln!(socket, "{STOP}");
        }
    }
}

/// The first signal is passed on, the second ends both processes.
fn watch_signals(now: Arc<Mutex<Now>>) -> io::Result<()> {
    let mut signals = Signals::new(stopping())?;
    let watch = move || {
        for signal in signals.forever() {
            let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
            if !now.stopped {
                now.ask_to_stop();
                continue;
            }
            if let Some(pid) = now.pid.and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            std::process::exit(128 + signal);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).map(|_| ())
}

/// Starts a worker and gives it its orders.
fn start(orders: &Orders) -> io::Result<(Child, UnixStream)> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(WORKER, "1").stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stderr(Stdio::piped()).env_remove(READ_ON_A_TERMINAL);
    if on_terminal() {
        command.env(READ_ON_A_TERMINAL, "1");
    }
    let child = command.spawn()?;
    // The command holds the worker's end: only the worker may, so that its end is heard.
    drop(command);
    // A worker that died already is found dead below.
    let _ = serde_json::to_string(orders).map(|line| writeln!(ours, "{line}"));
    Ok((child, ours))
}

/// Hears what a worker tells until it ends.
fn hear(orders: &Orders, socket: UnixStream) -> Journal {
    let (suspects, running) = (orders.suspects.clone(), orders.running.indices().collect());
    let mut journal = Journal { suspects, running, counts: orders.counts, ready: orders.ready, begun: false };
    for line in BufReader::new(socket).lines().map_while(Result::ok) {
        if let Ok(report) = serde_json::from_str(&line) {
            journal.hear(report);
        }
    }
    journal
}

/// In words, why a worker ended.
fn reason(status: ExitStatus, signal: i32) -> String {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
    let guess = match name {
        "SIGKILL" => ", by somebody or for want of memory",
        "SIGABRT" => ", as after a stack overflow or a failed allocation",
        _ if status.core_dumped() => ", core dumped",
        _ => "",
    };
    format!("the worker was ended by signal {signal} ({name}{guess})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_worker_had_not_published_is_known() {
        let mut journal = Journal::default();
        let tell = |report: &Report| serde_json::to_string(report).expect("plain");
        let mut suspects = Suspects::default();
        suspects.blame(&[1, 2], &Attempt::default(), |_, _| false);
        let reports = [
            Report::Begin { suspects: Suspects::default(), running: Cells::of(&[0, 1, 2, 3, 7]) },
            Report::Done {
                cells: Cells::of(&[0, 3, 7]),
                counts: Counts { computed: 3, diverged: 1, ..Default::default() },
            },
            Report::Done { cells: Cells::of(&[]), counts: Counts { degenerate: 2, ..Default::default() } },
        ];
        for report in &reports {
            journal.hear(serde_json::from_str(&tell(report)).expect("its own text"));
        }
        assert_eq!(journal.running, [1, 2].into());
        journal.hear(Report::Begin { suspects: suspects.clone(), running: Cells::of(&[1]) });
        let counts = Counts { computed: 3, diverged: 1, degenerate: 2, off_target: 0 };
        assert_eq!(journal, Journal { suspects, running: [1].into(), counts, ready: false, begun: true });
    }

    #[test]
    fn a_signal_is_named_with_a_guess() {
        assert!(reason(ExitStatus::from_raw(9), 9).contains("signal 9 (SIGKILL, by somebody or for want of memory)"));
        assert!(reason(ExitStatus::from_raw(11), 11).ends_with("signal 11 (SIGSEGV)"));
    }
}
