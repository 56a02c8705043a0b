//! Trains toy models on finite sets, a thread each; where there are fewer models than threads, their samples are shared
//! out as well.
//!
//! A set is drawn once for all restarts of a job and kept as what is not zero. A full batch is laid out once, others
//! anew at every step, which costs what fires. A job's bits depend on the job alone: see
//! [`finite_step`](crate::backend::ops::finite_step) for the order of sums.

use rayon::prelude::*;

use super::toy::{Progress, step_numbers};
use crate::backend::Watch;
use crate::backend::ops::finite_step::{self, FiniteStep, Layout, Scratch};
use crate::backend::ops::optimizer::{Moments, Update};
use crate::backend::simd::{Isa, run};
use crate::data::{Dataset, Order};
use crate::toy::train::Guard;
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, TrainingEnd};

/// Whether a job is trained here: on a finite set, with kernels for its kind.
pub fn trains(job: &ToyJob) -> bool {
    job.world.dataset.is_some() && finite_step::covers(job.kind)
}

/// Every restart of those jobs that are [trained here](trains), as (job, restart, outcome): none where `watch` said stop
/// before it was finished.
pub fn train(isa: Isa, jobs: &[ToyJob], watch: &dyn Watch) -> Vec<(usize, usize, Option<ToyOutcome>)> {
    let indices: Vec<usize> = (0..jobs.len()).filter(|&j| trains(&jobs[j])).collect();
    let sets: Vec<Dataset> =
        indices.par_iter().map(|&j| Dataset::draw(&jobs[j].world, jobs[j].seed).expect("a finite set")).collect();
    let mut runs: Vec<(usize, usize, usize)> =
        (indices.iter().enumerate()).flat_map(|(at, &j)| (0..jobs[j].restarts).map(move |r| (at, j, r))).collect();
    let cost =
        |job: &ToyJob| job.train.steps * (job.train.batch_size + 16) * job.world.n_features * (3 * job.d_hidden + 6);
    // Longest first, so that no thread is left with a long one at the end.
    runs.sort_by_key(|&(_, job, _)| std::cmp::Reverse(cost(&jobs[job])));
    let parallel = runs.len() < rayon::current_num_threads();
    let one = |(at, job, restart): (usize, usize, usize)| {
        (job, restart, train_one(isa, &jobs[job], restart, &sets[at], parallel, watch))
    };
    runs.into_iter().par_bridge().map(one).collect()
}

fn train_one(
    isa: Isa,
    job: &ToyJob,
    restart: usize,
    set: &Dataset,
    parallel: bool,
    watch: &dyn Watch,
) -> Option<ToyOutcome> {
    let (shape, slopes, train) = (job.shape(), job.slopes(), &job.train);
    let start = job.initial_model(restart);
    let mut parameters = start.parameters();
    let mut gradient = vec![0.0; parameters.len()];
    let mut moments = Moments::new(train.optimizer, parameters.len());
    let (mut guard, mut trace, mut end, mut progress) = (Guard::default(), vec![], None, Progress::new(watch));
    let (mut layout, mut order, mut rows) = (Layout::default(), Order::new(set.samples(), job.seed), vec![]);
    let (mut scratch, unscale) = (Scratch::default(), 1.0 / job.loss_factor());
    for step in 0..train.steps {
        if watch.stop() {
            progress.report();
            return None;
        }
        // A full batch stays as it is.
        if step == 0 || train.batch_size < set.samples() {
            order.batch(step, train.batch_size, &mut rows);
            layout.fill(set, &rows);
        }
        let (looked_at, logged) = (Guard::looks(step, train.steps), job.logs(step));
        let work = FiniteStep {
            shape,
            parameters: &parameters,
            slopes: &slopes,
            layout: &layout,
            with_loss: looked_at || logged,
            parallel,
        };
        let loss = finite_step::gradient(isa, &work, &mut scratch, &mut gradient).map(|loss| loss * unscale);
        if looked_at {
            end = guard.look(step, loss, shape, &parameters);
        }
        if let (true, Some(loss)) = (logged, loss.filter(|loss| loss.is_finite())) {
            trace.push(ToyTrace { step, loss, parameters: job.snapshots.then(|| parameters.clone()) });
        }
        let numbers = step_numbers(train, step);
        let update = Update {
            step: &numbers,
            scale: 1.0,
            parameters: &mut parameters,
            gradient: &gradient,
            moments: &mut moments,
        };
        run(isa, update);
        progress.add(if end.is_some() { train.steps - step } else { 1 });
        if end.is_some() {
            break;
        }
    }
    progress.report();
    let end = end.or_else(|| guard.look(train.steps, None, shape, &parameters)).unwrap_or(TrainingEnd::Finished);
    Some(ToyOutcome { model: start.with_parameters(&parameters), restart, end, trace })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::backend::cpu;
    use crate::backend::ops::toy_loss::toy_losses;
    use crate::backend::reference;
    use crate::data::{Batch, Finite, Magnitude, MagnitudeSharing, World};
    use crate::toy::{LossScale, ToyInit, ToyKind, ToyTrain};
    use crate::training::{Optimizer, Schedule};

    /// Says stop once asked `patience` times, and counts steps.
    struct Patience {
        left: AtomicU64,
        steps: AtomicU64,
    }

    impl Patience {
        fn of(patience: u64) -> Patience {
            Patience { left: AtomicU64::new(patience), steps: AtomicU64::new(0) }
        }
    }

    impl Watch for Patience {
        fn advance(&self, model_steps: u64) {
            self.steps.fetch_add(model_steps, Ordering::Relaxed);
        }
        fn stop(&self) -> bool {
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
        }
    }

    fn job(n_features: usize, d_hidden: usize, samples: usize, batch_size: usize) -> ToyJob {
        let world = World {
            n_features,
            firing_probability: vec![0.2; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: Some(Finite { samples, normalise: true }),
            correlation: None,
            hierarchy: None,
        };
        ToyJob {
            world: Arc::new(world),
            seed: 9,
            kind: ToyKind::ReluOutput,
            d_hidden,
            importance: (0..n_features).map(|i| 0.95f32.powi(i as i32)).collect(),
            init: ToyInit::Normal(0.5),
            restarts: 1,
            train: ToyTrain {
                steps: 60,
                batch_size,
                optimizer: Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
                lr: 1e-3,
                schedule: Schedule::WarmupCosine { warmup: 0.1 },
                weight_decay: 0.01,
                loss_scale: LossScale::Sum,
            },
            trace_every: 20,
            snapshots: true,
        }
    }

    fn train_all(jobs: &[ToyJob]) -> Vec<ToyOutcome> {
        let outcomes = cpu::toy::train(jobs, &Patience::of(u64::MAX));
        outcomes.into_iter().map(|outcome| outcome.expect("nobody said stop")).collect()
    }

    fn same(a: &ToyOutcome, b: &ToyOutcome) -> bool {
        (&a.model, a.restart, &a.end, &a.trace) == (&b.model, b.restart, &b.end, &b.trace)
    }

    /// Full and small batches, several seeds and restarts, sets of several blocks, beside a job of fresh samples.
    fn mixture() -> Vec<ToyJob> {
        let mut jobs = vec![];
        for (samples, batch_size) in [(1, 1), (20, 20), (20, 7), (300, 300), (300, 290), (1000, 1000)] {
            let mut job = job(10, 3, samples, batch_size);
            job.seed = samples as u64 % 3;
            job.restarts = 1 + samples % 2;
            job.kind = if batch_size == 290 { ToyKind::Linear } else { ToyKind::ReluOutput };
            jobs.push(job);
        }
        let fresh = World { dataset: None, ..(*jobs[1].world).clone() };
        jobs.push(ToyJob { world: Arc::new(fresh), ..jobs[1].clone() });
        jobs
    }

    #[test]
    fn outcomes_depend_neither_on_threads_nor_on_the_other_jobs_nor_on_the_instruction_set() {
        let jobs = mixture();
        let expected = train_all(&jobs);
        assert!(!same(&expected[1], &expected[6]), "fresh samples are others");
        for threads in [1, 2, 3, 20] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| train_all(&jobs));
            assert!(found.iter().zip(&expected).all(|(a, b)| same(a, b)), "{threads} threads");
            // One model alone has its samples shared out.
            let alone = pool.install(|| train_all(&jobs[5..6]));
            assert!(same(&alone[0], &expected[5]), "{threads} threads, alone");
        }
        for isa in Isa::available() {
            let found = cpu::toy::train_on(isa, &jobs, &Patience::of(u64::MAX));
            assert!(found.iter().zip(&expected).all(|(a, b)| same(a.as_ref().unwrap(), b)), "{isa:?}");
        }
    }

    /// As for fresh samples: 60 Adam steps of 1e-3 at 1e-4 of a step each make 6e-6.
    #[test]
    fn sixty_steps_agree_with_plain_loops_on_the_same_batches() {
        let jobs = mixture();
        let expected = reference::toy::train(&jobs, &Patience::of(u64::MAX));
        for ((job, found), expected) in jobs.iter().zip(train_all(&jobs)).zip(expected) {
            let expected = expected.unwrap();
            let worst = found
                .model
                .parameters()
                .iter()
                .zip(expected.model.parameters())
                .fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 6e-6, "{:?}, batches of {}: {worst}", job.world.dataset, job.train.batch_size);
            assert_eq!((found.restart, found.trace.len()), (expected.restart, 4));
            for (f, e) in found.trace.iter().zip(&expected.trace) {
                assert!((f.loss / e.loss - 1.0).abs() < 1e-4 && f.step == e.step, "{f:?} {e:?}");
                assert!(f.parameters.is_some());
            }
        }
    }

    /// Training losses from the definition, over the set as it is drawn.
    #[test]
    fn the_restart_of_lowest_training_loss_stays() {
        let mut job = job(10, 2, 12, 12);
        job.restarts = 6;
        job.train.steps = 200;
        let set = Dataset::draw(&job.world, job.seed).unwrap();
        let mut batch = Batch::default();
        set.gather(0..12, &mut batch);
        let all = train(Isa::best(), std::slice::from_ref(&job), &Patience::of(u64::MAX));
        let loss = |outcome: &ToyOutcome| toy_losses(Isa::best(), &outcome.model, &job.importance, [&batch]).1;
        let mut losses: Vec<(f64, usize)> =
            all.iter().map(|(_, restart, outcome)| (loss(outcome.as_ref().unwrap()), *restart)).collect();
        losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert_eq!(losses.len(), 6);
        assert!(losses[0].0 < 0.99 * losses[5].0, "they differ: {losses:?}");
        assert_eq!(train_all(&[job])[0].restart, losses[0].1);
    }

    #[test]
    fn stop_ends_between_steps_and_every_step_is_counted() {
        let jobs = mixture();
        let counting = Patience::of(u64::MAX);
        train(Isa::best(), &jobs, &counting);
        let steps: usize = jobs.iter().filter(|job| trains(job)).map(|job| job.restarts * 60).sum();
        assert_eq!(counting.steps.load(Ordering::Relaxed), steps as u64);
        let stopped = train(Isa::best(), &jobs[..1], &Patience::of(10));
        assert!(stopped.iter().all(|(_, _, outcome)| outcome.is_none()));
    }

    /// Four samples in the plane are exactly representable, as a square of hidden states (Henighan et al. 2023); one left out
    /// would cost a quarter, rounding leaves some 1e-9.
    #[test]
    fn few_samples_are_memorised() {
        let mut job = job(300, 2, 4, 4);
        job.importance.fill(1.0);
        job.world = Arc::new(World { firing_probability: vec![0.03; 300], ..(*job.world).clone() });
        job.train.steps = 4000;
        job.train.lr = 3e-3;
        job.restarts = 2;
        job.init = ToyInit::Xavier;
        let outcome = train_all(&[job.clone()]).remove(0);
        let set = Dataset::draw(&job.world, job.seed).unwrap();
        let mut batch = Batch::default();
        set.gather(0..4, &mut batch);
        let loss = toy_losses(Isa::best(), &outcome.model, &job.importance, [&batch]).1;
        assert!(loss < 1e-6, "{loss}");
    }
}
