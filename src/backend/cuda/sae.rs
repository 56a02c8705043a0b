//! Trains sparse autoencoders on a device.
//!
//! ```text
//! view      the structures that kernels read
//! resident  what an autoencoder has on the device
//! feed      hidden states
//! step      a step as a list of launches
//! run       an autoencoder on its way: reports in, trace, divergence, outcome and checkpoints out
//! resample  dead latents that start anew
//! ```
//!
//! The autoencoders of a group with one batch size read the same batches: a pass. Those of a pass that run the same kernels on
//! the same sizes are a squad, and each launch does one operation of all of them. Neither touches a number: an autoencoder
//! reads its batches and nothing else, and no sum crosses blocks but in a fixed order.
//!
//! Steps are queued without waiting, several batches at a time. Every so many the host reads the reports that they left; a step
//! that finds its loss wrong halts its autoencoder on the device, so nothing that was queued behind it counts. Controllers of a
//! wanted L0 and orders of latents that follow their use are the device's too: a step asks nothing of the host.

mod feed;
mod resample;
mod resident;
mod run;
mod step;
mod view;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::feed::slots;
pub use self::feed::{Batches, Uploaded};
use self::resident::{Arena, Layout, Places, Sizes};
use self::run::Run;
use self::step::{Kind, Launcher, aim, decode_shared};
use self::view::{LEVELS, Report, StepAim, View, list};
use super::arithmetic::Arithmetic;
use super::device::{Buffer, Device, DeviceError, MOST_SHARED, Pointer, fits_a_block};
use crate::backend::part::Part;
use crate::backend::{SaeGroup, Watch, cpu};
use crate::hidden::{SaeSource, SaeStream};
use crate::random::Stream;
use crate::sae::init::start;
use crate::sae::{Inputs, Normalise, Program, Rule, SaeJob, SaeOutcome};

/// How often `watch` is told and asked.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// Steps that are queued before their reports are read, at most; few in tests, so that there is something between.
const QUEUED: usize = if cfg!(test) { 8 } else { 64 };

/// Samples of a batch and latents, at most: blocks of a launch, of which there may be one for each and each level, are counted
/// in 31 bits.
const MOST_ROWS: usize = 1 << 26;

/// Trains the autoencoders of each group on its source; results are in the order of the jobs, none where `watch` said stop
/// before a job was finished. Programs that no kernel takes are trained on the CPU (see [`why_not`]).
///
/// # Errors
/// The device fails, or has no room for a single autoencoder: the CPU's row would be another one.
pub fn train(
    device: &Arc<dyn Device>,
    arithmetic: Arithmetic,
    groups: &[SaeGroup],
    watch: &dyn Watch,
) -> Result<Vec<Vec<Option<SaeOutcome>>>, DeviceError> {
    let mut results: Vec<Vec<Option<SaeOutcome>>> =
        groups.iter().map(|group| group.saes.iter().map(|_| None).collect()).collect();
    let mut left = vec![];
    for (index, group) in groups.iter().enumerate() {
        let mut passes = BTreeMap::<usize, Vec<usize>>::new();
        for (i, job) in group.saes.iter().enumerate() {
            match why_not(job, group.source.d_hidden()) {
                Some(why) => {
                    tracing::info!("trained on the CPU: {why}");
                    left.push((index, i));
                }
                None => passes.entry(job.train.batch_size).or_default().push(i),
            }
        }
        for jobs in passes.into_values() {
            let pass = Pass { device, arithmetic, source: &group.source, saes: &group.saes, group: index, watch };
            for (job, outcome) in pass.train(&jobs)? {
                results[index][job] = outcome;
            }
        }
    }
    for (place, outcome) in train_left(groups, &left, watch) {
        results[place.0][place.1] = outcome;
    }
    Ok(results)
}

/// Why a job is not for the kernels, by a rule of the job alone; none if it is.
pub fn why_not(job: &SaeJob, d: usize) -> Option<String> {
    // The spread of the data changes sizes of penalties alone.
    let program = job.program(|| 1.0);
    let (n, m) = (job.train.batch_size, job.n_latents);
    let levels = resident::levels(&program, m);
    let shared = decode_shared(levels, d);
    let places = (n as u64) * (m as u64).max(d as u64);
    if let Rule::Pursuit(_) = program.rule {
        Some("no kernel for matching pursuit yet".into())
    } else if levels > LEVELS {
        Some(format!("{levels} levels, where kernels take {LEVELS}"))
    } else if shared > MOST_SHARED {
        Some(format!("{levels} levels of width {d} take {shared} bytes of shared memory"))
    } else if n == 0 || m == 0 || d == 0 || places > u32::MAX as u64 || n.max(m) > MOST_ROWS {
        Some(format!("a batch of {n} samples for {m} latents of width {d}"))
    } else {
        None
    }
}

/// Trains what is left to the CPU.
fn train_left(
    groups: &[SaeGroup],
    left: &[(usize, usize)],
    watch: &dyn Watch,
) -> Vec<((usize, usize), Option<SaeOutcome>)> {
    let mut places = BTreeMap::<usize, Vec<usize>>::new();
    left.iter().for_each(|&(group, job)| places.entry(group).or_default().push(job));
    let places: Vec<Vec<(usize, usize)>> =
        places.into_iter().map(|(group, jobs)| jobs.into_iter().map(|job| (group, job)).collect()).collect();
    let of = |places: &Vec<(usize, usize)>| SaeGroup {
        source: groups[places[0].0].source.clone(),
        saes: places.iter().map(|&(group, job)| groups[group].saes[job].clone()).collect(),
    };
    let own: Vec<SaeGroup> = places.iter().map(of).collect();
    let trained = cpu::sae::train(&own, &Part { watch, places: &places });
    places.concat().into_iter().zip(trained.into_iter().flatten()).collect()
}

/// Jobs of one group and batch size.
struct Pass<'a> {
    device: &'a Arc<dyn Device>,
    arithmetic: Arithmetic,
    source: &'a SaeSource,
    saes: &'a [SaeJob],
    group: usize,
    watch: &'a dyn Watch,
}

type Trained = Vec<(usize, Option<SaeOutcome>)>;

impl Pass<'_> {
    /// Trains these jobs together, in halves where the device has no room for all.
    fn train(&self, jobs: &[usize]) -> Result<Trained, DeviceError> {
        match self.train_together(jobs) {
            Err(DeviceError::OutOfMemory { .. }) if jobs.len() > 1 => {
                let (first, second) = jobs.split_at(jobs.len() / 2);
                let mut trained = self.train(first)?;
                trained.extend(self.train(second)?);
                Ok(trained)
            }
            ended => ended,
        }
    }

    fn train_together(&self, jobs: &[usize]) -> Result<Trained, DeviceError> {
        if self.watch.stop() {
            return Ok(jobs.iter().map(|&job| (job, None)).collect());
        }
        let stream = self.source.open(Stream::Train);
        let batch_size = self.saes[jobs[0]].train.batch_size;
        let asked =
            Normalise::ALL.into_iter().filter(|&one| jobs.iter().any(|&job| self.saes[job].train.normalise == one));
        let inputs: Vec<Inputs> = asked.map(|normalise| normalise.inputs(&stream, batch_size)).collect();
        let mut batches = feed::batches(self.device, self.source, &stream, batch_size, &inputs)?;
        let mut squads = self.squads(jobs, &stream, &inputs, &*batches)?;
        self.load(&mut squads)?;
        self.watch.restored(squads.iter().flat_map(|squad| &squad.runs).map(|run| run.step as u64).sum());
        self.steps(&mut squads, &mut *batches, batch_size)?;
        let mut trained = vec![];
        for squad in squads {
            for (run, places) in squad.runs.into_iter().zip(&squad.places) {
                let inputs = inputs.iter().find(|inputs| inputs.normalise == run.job.train.normalise);
                let job = run.index;
                let inputs = *inputs.expect("made for every job of the pass");
                trained.push((job, run.outcome(&squad.arena, places, inputs)?));
            }
        }
        Ok(trained)
    }

    /// The jobs by kind, at their beginnings.
    fn squads(
        &self,
        jobs: &[usize],
        stream: &SaeStream,
        inputs: &[Inputs],
        batches: &dyn Batches,
    ) -> Result<Vec<Squad<'_>>, DeviceError> {
        let d = self.source.d_hidden();
        let mut kinds = BTreeMap::<Kind, Vec<(usize, Program, crate::sae::Weights)>>::new();
        for &index in jobs {
            let job = &self.saes[index];
            let inputs = inputs.iter().find(|inputs| inputs.normalise == job.train.normalise);
            let (program, weights) = start(job, self.source, stream, *inputs.expect("made for every job of the pass"));
            let sizes = Sizes { n: job.train.batch_size, m: job.n_latents, d };
            let kind = Kind::of(&program, sizes).in_arithmetic(self.arithmetic);
            kinds.entry(kind).or_default().push((index, program, weights));
        }
        let mut squads = vec![];
        for (kind, mut members) in kinds {
            while !members.is_empty() {
                let rest = members.split_off(members.len().min(kind.most_together()));
                squads.push(Squad::new(self.device, kind.clone(), self.saes, members, batches)?);
                members = rest;
            }
        }
        Ok(squads)
    }

    fn load(&self, squads: &mut [Squad]) -> Result<(), DeviceError> {
        let Some(checkpoints) = self.watch.checkpoints() else { return Ok(()) };
        for squad in squads {
            for (run, places) in squad.runs.iter_mut().zip(&squad.places) {
                if let Some(state) = checkpoints.load(self.group, run.index) {
                    run.restore(&mut squad.arena, places, &state)?;
                }
            }
        }
        Ok(())
    }

    fn save(&self, squads: &mut [Squad]) -> Result<(), DeviceError> {
        let Some(checkpoints) = self.watch.checkpoints() else { return Ok(()) };
        for squad in squads {
            for (run, places) in squad.runs.iter_mut().zip(&squad.places).filter(|(run, _)| run.is_worth_saving()) {
                if let Some(state) = run.state(&squad.arena, places)? {
                    checkpoints.save(self.group, run.index, &state);
                }
                run.saved = run.step;
            }
        }
        Ok(())
    }

    /// Trains to the end, or until `watch` says stop. Runs that a checkpoint has brought further than others wait for them.
    fn steps(&self, squads: &mut [Squad], batches: &mut dyn Batches, batch_size: usize) -> Result<(), DeviceError> {
        let (begun, mut reported, mut saved, mut done) = (Instant::now(), Instant::now(), Instant::now(), 0);
        let slots = slots(batch_size, self.source.d_hidden());
        while let Some(from) = squads.iter().flat_map(|squad| &squad.runs).filter_map(Run::next).min() {
            let count = squads.iter().flat_map(|squad| &squad.runs).filter_map(|run| run.can_queue(from)).min();
            let to = from + count.unwrap_or(1).min(QUEUED);
            squads.iter_mut().try_for_each(|squad| squad.resample(self.device.as_ref(), from, batches))?;
            squads.iter_mut().try_for_each(|squad| squad.choose(from))?;
            for first in (from..to).step_by(slots) {
                let count = slots.min(to - first);
                batches.draw(first, count)?;
                squads.iter_mut().try_for_each(|squad| squad.steps(first..first + count, first - from))?;
            }
            for squad in squads.iter_mut() {
                done += squad.hear(from, to)?;
            }
            if reported.elapsed() >= REPORT_EVERY {
                self.watch.advance(std::mem::take(&mut done));
                reported = Instant::now();
                if self.watch.stop() {
                    if begun.elapsed() >= cpu::sae::WORTH_KEEPING {
                        self.save(squads)?;
                    }
                    break;
                }
            }
            if self.watch.checkpoints().is_some_and(|checkpoints| saved.elapsed() >= checkpoints.every()) {
                self.save(squads)?;
                saved = Instant::now();
            }
        }
        self.watch.advance(done);
        Ok(())
    }
}

/// Autoencoders that run the same kernels on the same sizes.
struct Squad<'a> {
    launcher: Launcher,
    arena: Arena,
    places: Vec<Places>,
    views: Vec<View>,
    reports: Buffer<Report>,
    runs: Vec<Run<'a>>,
    /// Which of the runs take the steps that are being queued.
    going: Vec<usize>,
}

impl<'a> Squad<'a> {
    fn new(
        device: &Arc<dyn Device>,
        kind: Kind,
        saes: &'a [SaeJob],
        members: Vec<(usize, Program, crate::sae::Weights)>,
        batches: &dyn Batches,
    ) -> Result<Squad<'a>, DeviceError> {
        let (sizes, mut layout) = (kind.sizes, Layout::default());
        let places: Vec<Places> = (members.iter())
            .map(|(index, program, _)| Places::new(&mut layout, sizes, program, saes[*index].train.optimizer))
            .collect();
        let mut arena = Arena::new(device, &layout)?;
        let reports = Buffer::<Report>::zeros(device, members.len() * QUEUED)?;
        let base: u64 = bytemuck::cast(reports.pointer());
        let (mut views, mut runs, mut levels) = (vec![], vec![], 1);
        for (at, ((index, program, weights), places)) in members.into_iter().zip(&places).enumerate() {
            let job = &saes[index];
            places.start(&mut arena, &weights, &program)?;
            let own: Pointer<Report> = bytemuck::cast(base + (at * QUEUED * size_of::<Report>()) as u64);
            views.push(places.view(&arena, &program, job, batches.seen(job.train.normalise), own));
            levels = levels.max(resident::levels(&program, sizes.m));
            runs.push(Run::new(index, job, program));
        }
        let what = || format!("an autoencoder of {levels} levels of width {}", sizes.d);
        fits_a_block(device.as_ref(), what, decode_shared(levels, sizes.d))?;
        let mut launcher = Launcher::new(device, kind, views.len(), levels, slots(sizes.n, sizes.d))?;
        launcher.choose(&views)?;
        launcher.refresh()?;
        Ok(Squad { launcher, arena, places, views, reports, runs, going: vec![] })
    }

    /// Those whose next step is `step` take the steps to come.
    fn choose(&mut self, step: usize) -> Result<(), DeviceError> {
        let goes = |&at: &usize| self.runs[at].next() == Some(step);
        let going: Vec<usize> = (0..self.runs.len()).filter(goes).collect();
        if going != self.going {
            let views: Vec<View> = going.iter().map(|&at| self.views[at]).collect();
            self.launcher.choose(&views)?;
            self.going = going;
        }
        Ok(())
    }

    /// Resamples latents of those whose next step asks for it.
    fn resample(&mut self, device: &dyn Device, step: usize, batches: &mut dyn Batches) -> Result<(), DeviceError> {
        for ((run, places), view) in self.runs.iter_mut().zip(&self.places).zip(&self.views) {
            if run.next() != Some(step) {
                continue;
            }
            let (launcher, arena) = (&mut self.launcher, &mut self.arena);
            if resample::resample(device, launcher, arena, places, (run, view), batches)? {
                // The launcher has another choice now.
                self.going.clear();
            }
        }
        Ok(())
    }

    /// Queues steps of those that were chosen, whose batches were drawn; their reports go to the places from `report` on.
    fn steps(&mut self, steps: Range<usize>, report: usize) -> Result<(), DeviceError> {
        if self.going.is_empty() {
            return Ok(());
        }
        let mut aims: Vec<StepAim> = vec![];
        for (step, report) in steps.zip(report..) {
            aims.extend(self.going.iter().map(|&at| aim(&self.runs[at].program, self.runs[at].job, step, report)));
        }
        self.launcher.steps(&aims)
    }

    /// Takes the reports of steps `from` to `to`; returns how many steps of jobs are done with that.
    fn hear(&mut self, from: usize, to: usize) -> Result<u64, DeviceError> {
        let mut done = 0;
        if self.going.is_empty() {
            return Ok(done);
        }
        let reports = self.reports.read()?;
        for &at in &self.going {
            let (run, places) = (&mut self.runs[at], &self.places[at]);
            done += run.hear(from, &reports[at * QUEUED..][..to - from], &self.arena, places)?;
        }
        Ok(done)
    }
}

#[cfg(test)]
mod op_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tf32_tests;
