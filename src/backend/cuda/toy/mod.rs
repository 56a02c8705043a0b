//! Trains many toy models on a device.
//!
//! ```text
//! runs of one (world, seed, batch size) form groups; groups form cohorts that fit on the device
//! for each cohort, until every model is done:
//!     draw the batches of a range of steps          batches, streams
//!     loss and soundness of the models at its start, where guards or traces want them    squad
//!     all steps in one launch                                                            squad
//! ```
//!
//! A range ends where some model has to be looked at: after at most 64 steps. Kernels are chosen by shape alone
//! ([`layout`]) and their sums know neither the models of a launch nor its steps, so bits depend on the job alone: not
//! on the cohort, on the memory of the device or on where ranges end. [`Form`] says, as for the CPU, whether silent
//! samples are left out. What no kernel takes is trained by the CPU.
//!
//! Models with neurons, and the quadratic one, have a kernel that walks every sample, as on the CPU.
//!
//! `toy_lane` has the sums of the CPU and so its bits, where the CPU reads dense or packed samples; the others differ
//! in the order of h and dh over features, and `toy_block` of samples too.

pub mod args;
pub mod batches;
pub mod drawn;
pub mod layout;
mod squad;
mod streams;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Watch;
use crate::backend::cpu;
use crate::backend::cpu::toy::Progress;
use crate::backend::cuda::device::{Device, DeviceError, fits_a_block};
use crate::backend::ops::toy_step::{Form, Shape};
use crate::backend::simd::Isa;
use crate::data::world::same_data;
use crate::toy::train::choose_restarts;
use crate::toy::{ToyJob, ToyOutcome};
pub use batches::{BatchSource, BatchStream, Drawn, HostBatches};
pub use drawn::DeviceBatches;
use layout::Layout;
use squad::{Members, Rhythm, Squad, model_bytes};
use streams::{Streams, Wanted};

/// One model to train: a restart of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub job: usize,
    pub restart: usize,
}

/// How much is on the device at a time. No matter of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most models.
    pub models: usize,
    /// Most bytes of models and of one step's batches.
    pub bytes: usize,
    /// Most bytes of the batches of a range of steps.
    pub batches: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { models: usize::MAX, bytes: 8 << 30, batches: 2 << 30 }
    }
}

/// A device with what it trains on.
pub struct ToyTrainer<'a> {
    pub device: &'a Arc<dyn Device>,
    pub source: &'a dyn BatchSource,
    pub limits: Limits,
}

/// Models that see the same batches.
struct Group {
    /// Each with whether it leaves silent samples out.
    runs: Vec<(Run, bool)>,
}

impl ToyTrainer<'_> {
    /// Whether a job has a kernel: a rule of its shape.
    pub fn covers(&self, job: &ToyJob) -> bool {
        Layout::of(job.shape()).is_some()
    }

    /// Trains every job with all its restarts; those without a kernel on the CPU, on the current rayon pool. None where
    /// `watch` said stop before the job was finished. Where the device has no room, half as many models are trained at
    /// once.
    ///
    /// # Errors
    /// The device fails, or has no room for a single model.
    pub fn train(&self, jobs: &[ToyJob], watch: &dyn Watch) -> Result<Vec<Option<ToyOutcome>>, DeviceError> {
        let (mine, others): (Vec<usize>, Vec<usize>) = (0..jobs.len()).partition(|&job| self.covers(&jobs[job]));
        let mut outcomes: Vec<Vec<Option<ToyOutcome>>> = jobs.iter().map(|job| vec![None; job.restarts]).collect();
        let mut waiting = groups(jobs, &mine);
        let mut limits = self.limits;
        while let Some(cohort) = next_cohort(jobs, &mut waiting, limits) {
            let models: usize = cohort.iter().map(|group| group.runs.len()).sum();
            match self.train_cohort(jobs, &cohort, limits, watch) {
                Ok(trained) => trained.into_iter().for_each(|(run, end)| outcomes[run.job][run.restart] = end),
                Err(error @ DeviceError::OutOfMemory { .. }) => {
                    limits = smaller(limits, models).ok_or(error)?;
                    cohort.into_iter().rev().for_each(|group| waiting.push_front(group));
                }
                Err(error) => return Err(error),
            }
        }
        let complete = outcomes.into_iter().map(|restarts| restarts.into_iter().collect::<Option<Vec<_>>>());
        let mut chosen = choose_restarts(Isa::best(), jobs, complete.collect());
        let rest: Vec<ToyJob> = others.iter().map(|&job| jobs[job].clone()).collect();
        for (job, outcome) in others.into_iter().zip(cpu::toy::train(&rest, watch)) {
            chosen[job] = outcome;
        }
        Ok(chosen)
    }

    fn train_cohort(
        &self,
        jobs: &[ToyJob],
        groups: &[Group],
        limits: Limits,
        watch: &dyn Watch,
    ) -> Result<Vec<(Run, Option<ToyOutcome>)>, DeviceError> {
        let wanted: Vec<Wanted> = groups.iter().map(|group| wanted(jobs, group)).collect();
        let step_bytes: usize = wanted.iter().map(Wanted::bytes).sum();
        let most_steps = (limits.batches / step_bytes.max(1)).clamp(1, 64);
        let mut streams = Streams::open(self.device, self.source, &wanted, most_steps)?;
        let members = members(jobs, groups);
        for Members { rhythm: Rhythm { shape, .. }, layout, .. } in &members {
            let what = || format!("a toy model of {} features and {} dimensions", shape.n_features, shape.d_hidden);
            fits_a_block(self.device.as_ref(), what, layout.shared())?;
        }
        let squads = members.into_iter().map(|members| Squad::new(self.device, members, &streams, most_steps));
        let mut squads: Vec<Squad> = squads.collect::<Result<_, _>>()?;
        let (mut step, mut progress) = (0, Progress::new(watch));
        while squads.iter().any(|squad| squad.trains(step)) && !watch.stop() {
            let looks = squads.iter().filter(|squad| squad.trains(step)).map(|squad| squad.next_look(step));
            let end = looks.fold(step + most_steps, usize::min);
            streams.draw(step..end)?;
            for squad in squads.iter_mut().filter(|squad| squad.trains(step)) {
                progress.add(squad.advance(&streams, step..end)? as usize);
            }
            step = end;
        }
        progress.report();
        let ends = squads.into_iter().map(|squad| squad.finish(step)).collect::<Result<Vec<_>, _>>()?;
        Ok(ends.into_iter().flatten().collect())
    }
}

/// Half as many models at once, or for a single one fewer steps of batches; none where nothing is left to halve.
fn smaller(limits: Limits, models: usize) -> Option<Limits> {
    if models > 1 {
        return Some(Limits { models: models.div_ceil(2), ..limits });
    }
    (limits.batches > 1).then(|| Limits { batches: limits.batches.min(1 << 30) / 8, ..limits })
}

/// The models of each (world, seed, batch size), in order of jobs.
fn groups(jobs: &[ToyJob], mine: &[usize]) -> VecDeque<Group> {
    let groups = same_data(mine.iter().map(|&job| ((jobs[job].seed, jobs[job].train.batch_size), &jobs[job].world)));
    let group = |of: Vec<usize>| {
        // A form is found out once for each shape: laying out a world may be dear.
        let mut forms: Vec<(Shape, bool)> = vec![];
        let runs = of.into_iter().map(|at| mine[at]).flat_map(|job| {
            let shape = jobs[job].shape();
            let known = forms.iter().find(|form| form.0 == shape).map(|form| form.1);
            let packed = known.unwrap_or_else(|| Form::of(shape, &jobs[job].world) != Form::Dense);
            if known.is_none() {
                forms.push((shape, packed));
            }
            (0..jobs[job].restarts).map(move |restart| (Run { job, restart }, packed))
        });
        Group { runs: runs.collect() }
    };
    groups.into_iter().map(group).collect()
}

/// Groups off the front of `waiting`, the last one cut, that fit the limits: at least one model.
fn next_cohort(jobs: &[ToyJob], waiting: &mut VecDeque<Group>, limits: Limits) -> Option<Vec<Group>> {
    let (mut cohort, mut models, mut bytes) = (vec![], 0, 0);
    while let Some(mut group) = waiting.pop_front() {
        bytes += wanted(jobs, &group).bytes();
        let fit = group.runs.iter().take_while(|(run, _)| {
            bytes += model_bytes(jobs[run.job].shape());
            models += 1;
            models == 1 || (models <= limits.models && bytes <= limits.bytes)
        });
        let rest = group.runs.split_off(fit.count());
        let full = !rest.is_empty();
        if full {
            waiting.push_front(Group { runs: rest });
        }
        if !group.runs.is_empty() {
            cohort.push(group);
        }
        if full {
            break;
        }
    }
    (!cohort.is_empty()).then_some(cohort)
}

fn wanted<'a>(jobs: &'a [ToyJob], group: &Group) -> Wanted<'a> {
    let packed = group.runs.iter().any(|run| run.1);
    Wanted { job: &jobs[group.runs[0].0.job], packed }
}

/// The squads of a cohort.
fn members<'a>(jobs: &'a [ToyJob], groups: &[Group]) -> Vec<Members<'a>> {
    let mut all: Vec<Members> = vec![];
    for (stream, group) in groups.iter().enumerate() {
        for &(run, packed) in &group.runs {
            let job = &jobs[run.job];
            let member = (run, job, 2 * stream + usize::from(packed));
            let rhythm = Rhythm::of(job);
            match all.iter_mut().find(|members| members.rhythm == rhythm) {
                Some(members) => members.runs.push(member),
                None => {
                    let layout = Layout::of(rhythm.shape).expect("only what has a kernel is trained here");
                    all.push(Members { rhythm, layout, runs: vec![member] });
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;
