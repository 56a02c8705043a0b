//! The wish to stop, as trainings and scores hear of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::backend::Watch;
use crate::progress::Progress;

/// How long trainings may go on after the wish to stop: what is nearly done is finished.
const GRACE: Duration = Duration::from_secs(2);

/// How long after the wish to stop trained cells may still be scored. Cluster managers kill after half a minute.
const SCORING: Duration = Duration::from_secs(10);

/// Progress that also carries the wish to stop.
pub struct Stoppable<'a> {
    pub progress: &'a Progress,
    stop: &'a AtomicBool,
    /// When the wish was first seen.
    since: OnceLock<Instant>,
}

impl<'a> Stoppable<'a> {
    /// `stop`: set by a signal.
    pub fn new(progress: &'a Progress, stop: &'a AtomicBool) -> Stoppable<'a> {
        Stoppable { progress, stop, since: OnceLock::new() }
    }

    /// Whether the run is to stop.
    pub fn is_asked(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether the time for scoring what is trained is over too.
    pub fn is_over(&self) -> bool {
        self.asked_for(SCORING)
    }

    fn asked_for(&self, time: Duration) -> bool {
        self.is_asked() && self.since.get_or_init(Instant::now).elapsed() >= time
    }
}

impl Watch for Stoppable<'_> {
    fn advance(&self, model_steps: u64) {
        self.progress.advance(model_steps);
    }
    fn restored(&self, model_steps: u64) {
        self.progress.restored(model_steps);
    }
    fn stop(&self) -> bool {
        self.asked_for(GRACE)
    }
}
