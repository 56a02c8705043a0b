//! Trains many toy models, a thread each, those that see the same data side by side.
//!
//! Jobs of one (world, seed, batch size) see the same batches, so a thread takes several of their models (restarts
//! included) through the steps together and draws each batch once. How models are cut into such items depends on the
//! number of threads; their bits do not, because a model's step reads nothing but the batch and its own state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::backend::Watch;
use crate::backend::ops::optimizer::{Moments, Step, Update};
use crate::backend::ops::toy_step::{Form, Inputs, Scratch, Shape, ToyStep, gradient};
use crate::backend::simd::{Isa, run};
use crate::data::{Sampler, World};
use crate::random::Stream;
use crate::toy::train::{Guard, choose_restart};
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, ToyTrain, TrainingEnd};

/// Trains every job with all its restarts, on the current rayon pool. None where `watch` said stop before the job was
/// finished. A job has at least one restart.
pub fn train(jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    train_on(Isa::available()[0], jobs, watch)
}

/// [`train`] with a given instruction set, from [`Isa::available`].
pub fn train_on(isa: Isa, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<Option<ToyOutcome>> {
    let mut items = items(jobs, rayon::current_num_threads());
    // Longest first, so that no thread is left with a long one at the end.
    items.sort_by_key(|item| std::cmp::Reverse(item.cost(jobs)));
    let trained: Vec<_> =
        items.into_iter().par_bridge().flat_map_iter(|item| train_item(isa, jobs, &item.runs, watch)).collect();
    let mut outcomes: Vec<Vec<Option<ToyOutcome>>> = jobs.iter().map(|job| vec![None; job.restarts]).collect();
    for (run, outcome) in trained {
        outcomes[run.job][run.restart] = outcome;
    }
    let complete = outcomes.into_iter().map(|restarts| restarts.into_iter().collect::<Option<Vec<_>>>());
    let complete: Vec<_> = complete.zip(jobs).collect();
    complete.into_par_iter().map(|(restarts, job)| restarts.map(|r| choose_restart(isa, job, r))).collect()
}

/// One model to train: a restart of a job.
#[derive(Clone, Copy, Debug)]
struct Run {
    job: usize,
    restart: usize,
}

/// Models that see the same batches and are trained by one thread.
struct Item {
    runs: Vec<Run>,
}

impl Item {
    /// Multiply-adds and coins, roughly.
    fn cost(&self, jobs: &[ToyJob]) -> usize {
        let cost = |job: &ToyJob| {
            let Shape { n_features, d_hidden, .. } = job.shape();
            job.train.steps * job.train.batch_size * n_features * (5 * d_hidden + 10)
        };
        self.runs.iter().map(|run| cost(&jobs[run.job])).sum()
    }
}

/// All models in groups of common data, cut so that every thread has work and a batch still serves several.
fn items(jobs: &[ToyJob], threads: usize) -> Vec<Item> {
    /// The worlds of one (seed, batch size), each with the models that see it.
    type Worlds<'a> = Vec<(&'a Arc<World>, Vec<Run>)>;
    let mut groups: BTreeMap<(u64, usize), Worlds> = BTreeMap::new();
    for (index, job) in jobs.iter().enumerate() {
        assert!(job.restarts > 0 && job.train.batch_size > 0 && job.importance.len() == job.world.n_features);
        let worlds = groups.entry((job.seed, job.train.batch_size)).or_default();
        let same = |other: &Arc<World>| Arc::ptr_eq(other, &job.world) || **other == *job.world;
        let runs = (0..job.restarts).map(|restart| Run { job: index, restart });
        match worlds.iter_mut().find(|(world, _)| same(world)) {
            Some((_, group)) => group.extend(runs),
            None => worlds.push((&job.world, runs.collect())),
        }
    }
    let groups: Vec<Vec<Run>> = groups.into_values().flatten().map(|(_, runs)| runs).collect();
    let models: usize = groups.iter().map(Vec::len).sum();
    // Four items a thread where there are many models; where there are few, no fewer than eight models share their data
    // unless a thread would be idle.
    let most = models.div_ceil(4 * threads).max(models.div_ceil(threads).min(8)).max(1);
    let pieces = |runs: Vec<Run>| {
        let size = runs.len().div_ceil(runs.len().div_ceil(most));
        runs.chunks(size).map(|runs| Item { runs: runs.to_vec() }).collect::<Vec<_>>()
    };
    groups.into_iter().flat_map(pieces).collect()
}

/// A model on its way.
struct Trainer<'a> {
    run: Run,
    job: &'a ToyJob,
    shape: Shape,
    form: Form,
    slopes: Vec<f32>,
    /// 1 / (what the loss is multiplied by).
    unscale: f64,
    /// Index of its shape and of its training settings among those of the item.
    scratch: usize,
    settings: usize,
    /// Filled up with zeros to whole vectors, and so are the gradient and the moments: the optimiser then has no rest,
    /// which is most of what it does for the smallest models. Nothing moves the zeros.
    parameters: Vec<f32>,
    gradient: Vec<f32>,
    moments: Moments,
    guard: Guard,
    trace: Vec<ToyTrace>,
    end: Option<TrainingEnd>,
}

impl<'a> Trainer<'a> {
    fn new(run: Run, job: &'a ToyJob, scratch: usize, settings: usize) -> Trainer<'a> {
        let mut parameters = job.initial_model(run.restart).parameters();
        parameters.resize(parameters.len().next_multiple_of(16), 0.0);
        Trainer {
            run,
            job,
            shape: job.shape(),
            form: Form::of(job.shape(), &job.world),
            slopes: job.slopes(),
            unscale: 1.0 / job.loss_factor(),
            scratch,
            settings,
            gradient: vec![0.0; parameters.len()],
            moments: Moments::new(job.train.optimizer, parameters.len()),
            parameters,
            guard: Guard::default(),
            trace: vec![],
            end: None,
        }
    }

    fn trains(&self, step: usize) -> bool {
        step < self.job.train.steps && self.end.is_none()
    }

    fn step(&mut self, isa: Isa, step: usize, inputs: &Inputs, numbers: &Step, scratch: &mut Scratch) {
        let (looked_at, logged) = (Guard::looks(step, self.job.train.steps), self.job.logs(step));
        let used = self.shape.n_parameters();
        let work = ToyStep {
            shape: self.shape,
            parameters: &self.parameters[..used],
            slopes: &self.slopes,
            inputs,
            form: self.form,
            with_loss: looked_at || logged,
        };
        let loss = gradient(isa, work, scratch, &mut self.gradient[..used]).map(|loss| loss * self.unscale);
        if looked_at {
            self.end = self.guard.look(step, loss, self.shape, &self.parameters[..used]);
        }
        if let (true, Some(loss)) = (logged, loss.filter(|loss| loss.is_finite())) {
            let parameters = self.job.snapshots.then(|| self.parameters[..used].to_vec());
            self.trace.push(ToyTrace { step, loss, parameters });
        }
        let (parameters, gradient) = (&mut self.parameters, &self.gradient);
        run(isa, Update { step: numbers, scale: 1.0, parameters, gradient, moments: &mut self.moments });
        if let Some((biases, factor)) = self.job.bias_decay(step) {
            self.parameters[biases].iter_mut().for_each(|c| *c *= factor as f32);
        }
    }

    fn finish(mut self) -> ToyOutcome {
        self.parameters.truncate(self.shape.n_parameters());
        let look = |guard: &mut Guard| guard.look(self.job.train.steps, None, self.shape, &self.parameters);
        let end = self.end.or_else(|| look(&mut self.guard));
        ToyOutcome {
            model: self.job.initial_model(self.run.restart).with_parameters(&self.parameters),
            restart: self.run.restart,
            end: end.unwrap_or(TrainingEnd::Finished),
            trace: self.trace,
        }
    }
}

/// Where `value` stands in `known`, after adding it if it was not there.
fn index_of<T: PartialEq>(known: &mut Vec<T>, value: T) -> usize {
    let found = known.iter().position(|k| *k == value);
    found.unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

fn train_item(isa: Isa, jobs: &[ToyJob], runs: &[Run], watch: &dyn Watch) -> Vec<(Run, Option<ToyOutcome>)> {
    let (mut shapes, mut settings): (Vec<Shape>, Vec<&ToyTrain>) = (vec![], vec![]);
    let mut trainers = vec![];
    for &run in runs {
        let job = &jobs[run.job];
        let (shape, setting) = (index_of(&mut shapes, job.shape()), index_of(&mut settings, &job.train));
        trainers.push(Trainer::new(run, job, shape, setting));
    }
    let mut scratch: Vec<Scratch> = shapes.into_iter().map(Scratch::new).collect();
    let first = &jobs[runs[0].job];
    let sampler = Sampler::new(first.world.clone(), first.seed, Stream::Train);
    let forms = trainers.iter().map(|trainer| trainer.form).collect();
    let (mut inputs, mut progress, mut numbers) = (Inputs::default(), Progress::new(watch), vec![]);
    let mut step = 0;
    while trainers.iter().any(|t| t.trains(step)) && !watch.stop() {
        inputs.draw(&sampler, step as u32, first.train.batch_size, forms);
        numbers.clear();
        numbers.extend(settings.iter().map(|train| step_numbers(train, step)));
        for trainer in trainers.iter_mut().filter(|t| t.trains(step)) {
            trainer.step(isa, step, &inputs, &numbers[trainer.settings], &mut scratch[trainer.scratch]);
            let left = trainer.job.train.steps - step;
            progress.add(if trainer.end.is_some() { left } else { 1 });
        }
        step += 1;
    }
    progress.report();
    trainers.into_iter().map(|t| (t.run, (!t.trains(step)).then(|| t.finish()))).collect()
}

/// The optimiser's numbers at `step`; past the end of these settings' steps, where no model reads them, those of the last.
fn step_numbers(train: &ToyTrain, step: usize) -> Step {
    let step = step.min(train.steps.saturating_sub(1));
    let factor = if train.steps == 0 { 1.0 } else { train.schedule.factor(step, train.steps) };
    Step::new(train.optimizer, train.lr * factor, train.weight_decay, step)
}

/// Tells a [`Watch`] of finished model-steps, at most four times a second.
struct Progress<'a> {
    watch: &'a dyn Watch,
    told: Instant,
    steps: u64,
    calls: u32,
}

impl<'a> Progress<'a> {
    fn new(watch: &'a dyn Watch) -> Progress<'a> {
        Progress { watch, told: Instant::now(), steps: 0, calls: 0 }
    }

    fn add(&mut self, steps: usize) {
        self.steps += steps as u64;
        self.calls += 1;
        // The clock costs a few percent of a small model's step.
        if self.calls.is_multiple_of(16) && self.told.elapsed() >= Duration::from_millis(250) {
            self.report();
        }
    }

    fn report(&mut self) {
        if self.steps > 0 {
            self.watch.advance(self.steps);
        }
        (self.steps, self.told) = (0, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::backend::ops::toy_loss::toy_losses;
    use crate::backend::reference;
    use crate::data::{Batch, Magnitude, MagnitudeSharing};
    use crate::toy::{LossScale, ToyInit, ToyKind, ToyModel};
    use crate::training::{Optimizer, Schedule};

    /// Counts model-steps; says stop once asked `patience` times.
    struct Counter {
        steps: AtomicU64,
        patience: AtomicU64,
    }

    impl Counter {
        fn new(patience: u64) -> Counter {
            Counter { steps: AtomicU64::new(0), patience: AtomicU64::new(patience) }
        }
    }

    impl Watch for Counter {
        fn advance(&self, model_steps: u64) {
            self.steps.fetch_add(model_steps, Ordering::Relaxed);
        }
        fn stop(&self) -> bool {
            self.patience.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        }
    }

    fn world(n_features: usize, p: f64) -> Arc<World> {
        Arc::new(World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
        })
    }

    fn job(n_features: usize, d_hidden: usize, p: f64, steps: usize) -> ToyJob {
        ToyJob {
            world: world(n_features, p),
            seed: 5,
            kind: ToyKind::ReluOutput,
            d_hidden,
            importance: (0..n_features).map(|i| 0.9f32.powi(i as i32)).collect(),
            init: ToyInit::Xavier,
            restarts: 1,
            train: ToyTrain {
                steps,
                batch_size: 100,
                optimizer: Optimizer::default(),
                lr: 1e-3,
                schedule: Schedule::Constant,
                weight_decay: 0.0,
                loss_scale: LossScale::Mean,
            },
            trace_every: 0,
            snapshots: false,
        }
    }

    fn train_all(jobs: &[ToyJob]) -> Vec<ToyOutcome> {
        train(jobs, &Counter::new(u64::MAX)).into_iter().map(|outcome| outcome.expect("nobody said stop")).collect()
    }

    fn same(a: &ToyOutcome, b: &ToyOutcome) -> bool {
        (&a.model, a.restart, &a.end, &a.trace) == (&b.model, b.restart, &b.end, &b.trace)
    }

    /// Jobs of several worlds, seeds, batch sizes, lengths, kinds and settings, some of which share data.
    fn mixture() -> Vec<ToyJob> {
        let mut jobs = vec![];
        for (n, m, p) in [(2, 1, 1.0), (5, 2, 0.3), (6, 3, 0.05)] {
            for variant in 0..5 {
                let mut job = job(n, m, p, 70 + 30 * (variant % 2));
                job.seed = variant as u64 / 3;
                job.restarts = 1 + variant % 3;
                job.kind = if variant == 1 { ToyKind::Linear } else { ToyKind::ReluOutput };
                job.trace_every = 40 * (variant % 2);
                job.importance[0] = 1.0 + variant as f32;
                if variant == 4 {
                    job.train.batch_size = 33;
                    job.train.schedule = Schedule::Linear;
                }
                jobs.push(job);
            }
        }
        jobs
    }

    #[test]
    fn outcomes_depend_neither_on_threads_nor_on_the_other_jobs_nor_on_the_instruction_set() {
        let jobs = mixture();
        let expected = train_all(&jobs);
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| train_all(&jobs));
            assert!(found.iter().zip(&expected).all(|(a, b)| same(a, b)), "{threads} threads");
        }
        for (job, expected) in jobs.iter().zip(&expected) {
            assert!(same(&train_all(std::slice::from_ref(job))[0], expected), "{job:?}");
        }
        for isa in Isa::available() {
            let found = train_on(isa, &jobs, &Counter::new(u64::MAX));
            assert!(found.iter().zip(&expected).all(|(a, b)| same(a.as_ref().unwrap(), b)), "{isa:?}");
        }
    }

    #[test]
    fn items_keep_every_model_once_and_only_common_data_together() {
        let jobs = mixture();
        for threads in [1, 2, 7, 100] {
            let mut seen = vec![];
            for item in items(&jobs, threads) {
                let first = &jobs[item.runs[0].job];
                for run in item.runs {
                    let job = &jobs[run.job];
                    let data = |job: &ToyJob| (job.seed, job.train.batch_size, job.world.clone());
                    assert!(data(job) == data(first));
                    seen.push((run.job, run.restart));
                }
            }
            seen.sort_unstable();
            let every = |(j, job): (usize, &ToyJob)| (0..job.restarts).map(move |r| (j, r)).collect::<Vec<_>>();
            assert_eq!(seen, jobs.iter().enumerate().flat_map(every).collect::<Vec<_>>());
        }
    }

    #[test]
    fn few_models_of_common_data_still_use_every_thread() {
        let jobs = vec![job(2, 1, 1.0, 1); 10];
        let sizes = |threads| items(&jobs, threads).iter().map(|item| item.runs.len()).collect::<Vec<_>>();
        assert_eq!(sizes(1), [5, 5]);
        assert_eq!(sizes(2), [5, 5]);
        assert_eq!(sizes(10), [1; 10]);
    }

    /// Gradients agree to about 1e-6 of their largest entry, so where an entry is at least a hundredth of that, an Adam
    /// step differs by 1e-4 of lr; 60 steps of 1e-3 make 6e-6, ten times what is seen. SGD steps are proportional to
    /// gradients: 60 steps of 0.3, ten times that with momentum, gradients of 0.01 at most, again 1e-6 of it all.
    #[test]
    fn sixty_steps_agree_with_plain_loops_in_every_setting() {
        let mut jobs = vec![];
        for optimizer in [
            Optimizer::default(),
            Optimizer::AdamW { beta1: 0.9, beta2: 0.99, epsilon: 1e-8 },
            Optimizer::Sgd { momentum: 0.0 },
            Optimizer::Sgd { momentum: 0.9 },
        ] {
            for kind in [ToyKind::Linear, ToyKind::ReluOutput] {
                for loss_scale in [LossScale::Mean, LossScale::PerDensity] {
                    let mut job = job(6, 3, 0.3, 60);
                    job.kind = kind;
                    job.init = ToyInit::Normal(0.5);
                    job.trace_every = 20;
                    let lr = if matches!(optimizer, Optimizer::Sgd { .. }) { 0.3 } else { 1e-3 };
                    let schedule = Schedule::WarmupStableDecay { warmup: 0.2, decay: 0.5 };
                    let (weight_decay, batch_size) = (0.01, 50);
                    job.train = ToyTrain { steps: 60, batch_size, optimizer, lr, schedule, weight_decay, loss_scale };
                    jobs.push(job);
                }
            }
        }
        let expected = reference::toy::train(&jobs, &Counter::new(u64::MAX));
        for ((job, found), expected) in jobs.iter().zip(train_all(&jobs)).zip(expected) {
            let expected = expected.unwrap();
            let start = job.initial_model(0);
            let pairs = |a: &ToyModel, b: &ToyModel| {
                let all = |m: &ToyModel| [m.w.clone(), m.b.clone()].concat();
                all(a).iter().zip(&all(b)).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()))
            };
            assert!(pairs(&expected.model, &start) > 0.01, "nothing was learned: {job:?}");
            assert!(pairs(&found.model, &expected.model) < 6e-6, "{job:?} {}", pairs(&found.model, &expected.model));
            assert_eq!(found.end, TrainingEnd::Finished);
            let steps = |o: &ToyOutcome| o.trace.iter().map(|t| t.step).collect::<Vec<_>>();
            assert_eq!(steps(&found), [0, 20, 40, 59]);
            assert_eq!(steps(&expected), [0, 20, 40, 59]);
            for (f, e) in found.trace.iter().zip(&expected.trace) {
                assert!((f.loss / e.loss - 1.0).abs() < 1e-4, "{f:?} {e:?}");
            }
        }
    }

    #[test]
    fn a_loss_over_the_density_logs_the_same_loss() {
        let mut per_density = job(5, 2, 0.05, 1);
        per_density.trace_every = 1;
        let mean = per_density.clone();
        per_density.train.loss_scale = LossScale::PerDensity;
        let outcomes = train_all(&[mean, per_density]);
        let [a, b] = [outcomes[0].trace[0].loss, outcomes[1].trace[0].loss];
        assert!((a / b - 1.0).abs() < 1e-6 && a > 0.0, "{a} {b}");
    }

    #[test]
    fn a_training_that_diverges_says_so_and_leaves_the_others_alone() {
        let mut wild = job(5, 2, 1.0, 500);
        wild.train.optimizer = Optimizer::Sgd { momentum: 0.0 };
        wild.train.lr = 1e3;
        wild.trace_every = 1;
        let tame = job(5, 2, 1.0, 500);
        let watch = Counter::new(u64::MAX);
        let outcomes = train(&[wild.clone(), tame.clone()], &watch);
        assert_eq!(watch.steps.into_inner(), 1000);
        let [wild_end, tame_end] = [0, 1].map(|i| outcomes[i].as_ref().unwrap());
        let TrainingEnd::Diverged { step: 64, last_loss, tensor } = wild_end.end else { panic!("{:?}", wild_end.end) };
        assert!(last_loss == wild_end.trace[0].loss && ["w", "b", "loss"].contains(&tensor), "{last_loss} {tensor}");
        assert!(wild_end.trace.iter().all(|t| t.loss.is_finite()));
        assert!(same(tame_end, &train_all(&[tame])[0]));
        wild.restarts = 3;
        assert!(matches!(train_all(&[wild])[0], ToyOutcome { restart: 0, end: TrainingEnd::Diverged { .. }, .. }));
    }

    #[test]
    fn stop_ends_between_steps_and_keeps_what_is_finished() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (short, long) = (job(3, 1, 1.0, 20), job(3, 1, 1.0, 200));
        let watch = Counter::new(50);
        let outcomes = pool.install(|| train(&[short, long], &watch));
        assert!(outcomes[0].is_some() && outcomes[1].is_none());
        assert_eq!(watch.steps.into_inner(), 20 + 50);
        assert!(train(&[job(3, 1, 1.0, 20)], &Counter::new(0))[0].is_none());
    }

    #[test]
    fn no_steps_leave_the_initial_model() {
        let mut job = job(4, 2, 1.0, 0);
        job.trace_every = 1;
        let outcome = &train_all(std::slice::from_ref(&job))[0];
        assert_eq!(outcome.model, job.initial_model(0));
        assert_eq!((&outcome.end, outcome.trace.len()), (&TrainingEnd::Finished, 0));
    }

    /// Five features in two dimensions (Elhage et al. 2022, introduction). At p = 1 the best model keeps the two most
    /// important features and has loss v (0.81 + 0.729 + 0.6561) / 5, v = 1/12 the variance of the others; at p = 0.05
    /// the pentagon has 1.78e-3 at equal importance (so at most that here, times the greatest importance 1), two pairs and
    /// one dropped 3.54e-3. 2000 steps are not quite enough to arrive, hence the room above; 65536 samples of a loss whose
    /// spread is at most ten times its mean hold it to 4 %, so below 0.9 of the optimum would be an error of the loss.
    #[test]
    fn five_features_in_two_dimensions_reach_the_loss_of_the_paper() {
        for (p, least, most) in [(1.0, 0.98 * 0.03659, 1.06 * 0.03659), (0.05, 0.9 * 0.656 * 1.781e-3, 1.3 * 1.781e-3)]
        {
            let mut job = job(5, 2, p, 2000);
            job.restarts = 6;
            job.train.batch_size = 1024;
            job.trace_every = 500;
            let outcome = &train_all(std::slice::from_ref(&job))[0];
            let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Evaluate);
            let mut batch = Batch::default();
            sampler.draw(0, 65_536, &mut batch);
            let (_, weighted) = toy_losses(Isa::available()[0], &outcome.model, &job.importance, [&batch]);
            let loss = weighted / 5.0;
            assert!((least..most).contains(&loss), "p = {p}: {loss}");
            assert!(outcome.trace.last().unwrap().loss < outcome.trace[0].loss);
        }
    }
}
