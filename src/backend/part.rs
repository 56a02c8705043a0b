//! Some of the groups and jobs that a backend was given, handed on under names of their own.

use std::time::Duration;

use super::Watch;
use super::checkpoint::Checkpoints;

/// A watch to which groups and jobs have the names of the whole.
pub struct Part<'a> {
    /// That of the whole.
    pub watch: &'a dyn Watch,
    /// Group and job in the whole, of each job of each group here.
    pub places: &'a [Vec<(usize, usize)>],
}

impl Watch for Part<'_> {
    fn behind(&self) -> Option<&dyn Watch> {
        Some(self.watch)
    }
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        self.watch.checkpoints().map(|_| self as &dyn Checkpoints)
    }
}

impl Checkpoints for Part<'_> {
    fn every(&self) -> Duration {
        self.watch.checkpoints().map_or(Duration::MAX, Checkpoints::every)
    }
    fn load(&self, group: usize, job: usize) -> Option<Vec<u8>> {
        let (group, job) = self.places[group][job];
        self.watch.checkpoints()?.load(group, job)
    }
    fn save(&self, group: usize, job: usize, state: &[u8]) {
        let (group, job) = self.places[group][job];
        if let Some(checkpoints) = self.watch.checkpoints() {
            checkpoints.save(group, job, state);
        }
    }
}
