//! Faults on purpose, for tests: a chosen cell panics, aborts, overflows the stack or is killed. Without the feature `faults`
//! nothing of it is in the program.

/// Where in the computing of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the wave that holds the cell is trained.
    Training,
    /// Before the stem that holds the cell is scored.
    Scoring,
}

/// Does to cells with these plan indices what `TEGUM_FAULT` says.
///
/// `TEGUM_FAULT` is a list of `kind:index`, with commas; kinds are `panic`, `panic-score`, `abort`, `overflow` and `kill`.
#[cfg(feature = "faults")]
pub fn strike(cells: &[usize], phase: Phase) {
    let Ok(faults) = std::env::var("TEGUM_FAULT") else { return };
    for fault in faults.split(',') {
        let Some((kind, index)) = fault.split_once(':') else { continue };
        if !index.parse().is_ok_and(|index: usize| cells.contains(&index)) {
            continue;
        }
        match (kind, phase) {
            ("panic", Phase::Training) | ("panic-score", Phase::Scoring) => panic!("a fault of cell {index}"),
            ("abort", Phase::Training) => std::process::abort(),
            ("overflow", Phase::Training) => {
                std::hint::black_box(deep(1));
            }
            ("kill", Phase::Training) => {
                let own = rustix::process::getpid();
                let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
                std::thread::sleep(std::time::Duration::from_secs(60));
            }
            _ => {}
        }
    }
}

/// Never returns: each call keeps a page of the stack.
#[cfg(feature = "faults")]
#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    let page = std::hint::black_box([n; 512]);
    deep(n + 1) + page[(n % 512) as usize]
}

/// Nothing.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn strike(_: &[usize], _: Phase) {}
