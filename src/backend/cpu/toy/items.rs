//! How models are cut into pieces of work for threads.
//!
//! Models of one (world, seed, batch size) share every batch, so they are kept together as far as threads allow; among
//! them, models of one tiny shape and one training fill vectors of sixteen. Costs are rough and in units of a multiply-add
//! of one model on one sample; nothing here changes a bit.

use super::Run;
use crate::backend::ops::toy_lanes::has_kernel;
use crate::backend::ops::toy_step::{Form, Shape};
use crate::data::world::same_data;
use crate::toy::ToyJob;

/// What a step costs beside its samples: the optimiser, folds, calls.
const STEP: usize = 8_000;

/// Cost of drawing one coin.
const COIN: usize = 50;

/// One model, or up to sixteen that step together.
#[derive(Clone, Debug, PartialEq)]
pub enum Unit {
    Alone(Run),
    Together(Vec<Run>),
}

impl Unit {
    /// Its models, at least one.
    pub fn runs(&self) -> &[Run] {
        match self {
            Unit::Alone(run) => std::slice::from_ref(run),
            Unit::Together(runs) => runs,
        }
    }

    fn cost(&self, jobs: &[ToyJob]) -> usize {
        let cost = Cost::of(&jobs[self.runs()[0].job]);
        match self {
            Unit::Alone(_) => cost.alone(),
            Unit::Together(_) => cost.together(),
        }
    }
}

/// Models that see the same batches and are trained by one thread.
pub struct Item {
    pub units: Vec<Unit>,
    pub cost: usize,
}

/// What the models of a job cost.
#[derive(Clone, Copy)]
struct Cost {
    steps: usize,
    /// Of the samples that a model reads in a step.
    samples: usize,
}

impl Cost {
    fn of(job: &ToyJob) -> Cost {
        let Shape { n_features: n, d_hidden: m, .. } = job.shape();
        let p = job.world.marginal_probability();
        let share = match Form::of(job.shape(), &job.world) {
            Form::Dense => 1.0,
            Form::Packed => 1.0 - p.iter().map(|p| 1.0 - p).product::<f64>(),
            Form::Events => (2.0 * p.iter().sum::<f64>() / n as f64).min(1.0),
        };
        let samples = (share * job.train.batch_size as f64) as usize;
        Cost { steps: job.train.steps, samples: samples * n * (5 * m + 10) }
    }

    fn alone(self) -> usize {
        self.steps * (self.samples + STEP)
    }

    fn together(self) -> usize {
        self.steps * (16 * self.samples + STEP)
    }
}

/// Cost of the batches of a job.
fn draws(job: &ToyJob) -> usize {
    COIN * job.train.steps * job.train.batch_size * job.world.n_features
}

/// All models in groups of common data, cut so that every thread has work and a batch still serves several.
pub fn items(jobs: &[ToyJob], threads: usize) -> Vec<Item> {
    let groups = groups(jobs);
    let (alone, together) = (units(jobs, &groups, false), units(jobs, &groups, true));
    // Sixteen in a vector are less work, but one piece of it: where that leaves threads idle, one by one may end sooner.
    let wall = |groups: &[Vec<Unit>]| {
        let costs: Vec<usize> = groups.iter().flatten().map(|unit| unit.cost(jobs)).collect();
        (costs.iter().sum::<usize>() / threads).max(costs.iter().copied().max().unwrap_or(0))
    };
    let groups = if wall(&together) <= wall(&alone) { together } else { alone };
    let total: usize = groups.iter().flatten().map(|unit| unit.cost(jobs)).sum();
    groups.into_iter().flat_map(|units| cut(jobs, units, total, threads)).collect()
}

/// The models of each (world, seed, batch size), in order of jobs.
fn groups(jobs: &[ToyJob]) -> Vec<Vec<Run>> {
    for job in jobs {
        assert!(job.restarts > 0 && job.train.batch_size > 0 && job.importance.len() == job.world.n_features);
    }
    let groups = same_data(jobs.iter().map(|job| ((job.seed, job.train.batch_size), &job.world)));
    let runs = |job: usize| (0..jobs[job].restarts).map(move |restart| Run { job, restart });
    groups.into_iter().map(|group| group.into_iter().flat_map(runs).collect()).collect()
}

/// The units of each group. With `together`, models that can step together do, in whole vectors and in a last one where
/// that is cheaper than one by one.
fn units(jobs: &[ToyJob], groups: &[Vec<Run>], together: bool) -> Vec<Vec<Unit>> {
    let alike = |a: &ToyJob, b: &ToyJob| (a.shape(), a.trace_every) == (b.shape(), b.trace_every) && a.train == b.train;
    let of_group = |runs: &Vec<Run>| {
        let (tiny, large): (Vec<Run>, Vec<Run>) =
            runs.iter().partition(|run| together && has_kernel(jobs[run.job].shape()));
        let mut classes: Vec<Vec<Run>> = vec![];
        for run in tiny {
            match classes.iter_mut().find(|class| alike(&jobs[class[0].job], &jobs[run.job])) {
                Some(class) => class.push(run),
                None => classes.push(vec![run]),
            }
        }
        let mut units = vec![];
        for runs in classes.iter().flat_map(|class| class.chunks(16)) {
            let cost = Cost::of(&jobs[runs[0].job]);
            if runs.len() > 1 && runs.len() * cost.alone() > cost.together() {
                units.push(Unit::Together(runs.to_vec()));
            } else {
                units.extend(runs.iter().copied().map(Unit::Alone));
            }
        }
        units.extend(large.into_iter().map(Unit::Alone));
        units
    };
    groups.iter().map(of_group).collect()
}

/// A group's units in items of at most about a quarter of a thread's share of all work; of more, where drawing the batches
/// once more would cost an eighth of the item, unless a thread would be idle.
fn cut(jobs: &[ToyJob], units: Vec<Unit>, total: usize, threads: usize) -> Vec<Item> {
    let draws = units.iter().map(|unit| draws(&jobs[unit.runs()[0].job])).max().unwrap_or(0);
    let most = (total / (4 * threads)).max((total / threads).min(8 * draws)).max(1);
    let costs: Vec<usize> = units.iter().map(|unit| unit.cost(jobs)).collect();
    let whole: usize = costs.iter().sum();
    let pieces = whole.div_ceil(most).clamp(1, units.len());
    let mut items: Vec<Item> = vec![];
    let (mut before, mut current) = (0, usize::MAX);
    for (unit, cost) in units.into_iter().zip(costs) {
        // The piece that the middle of the unit falls into.
        let piece = (before + cost / 2) as u128 * pieces as u128 / whole.max(1) as u128;
        if items.is_empty() || piece as usize != current {
            items.push(Item { units: vec![], cost: draws });
            current = piece as usize;
        }
        let item = items.last_mut().expect("one was just pushed if there was none");
        item.units.push(unit);
        item.cost += cost;
        before += cost;
    }
    items
}
