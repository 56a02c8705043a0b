use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backend::cuda::emulated::{Small, emulated};
use crate::backend::ops::toy_step::reference::{ReferenceStep, error_bound};
use crate::data::{Batch, Finite, Magnitude, MagnitudeSharing, Sampler, World};
use crate::random::Stream;
use crate::toy::{Activation, LossScale, Mlp, ToyInit, ToyKind, ToyTrain, TrainingEnd};
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

    fn endless() -> Counter {
        Counter::new(u64::MAX)
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
        dataset: None,
        correlation: None,
        hierarchy: None,
    })
}

fn job(n_features: usize, d_hidden: usize, p: f64, steps: usize, batch_size: usize) -> ToyJob {
    ToyJob {
        world: world(n_features, p),
        seed: 5,
        kind: ToyKind::ReluOutput,
        d_hidden,
        importance: (0..n_features).map(|i| 0.9f32.powi(i as i32)).collect(),
        init: ToyInit::Normal(0.5),
        restarts: 1,
        train: ToyTrain {
            steps,
            batch_size,
            optimizer: Optimizer::default(),
            lr: 1e-2,
            schedule: Schedule::Cosine,
            weight_decay: 0.0,
            loss_scale: LossScale::Mean,
        },
        trace_every: 0,
        snapshots: false,
    }
}

const RULES: [(Optimizer, f64); 4] = [
    (Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }, 0.0),
    (Optimizer::AdamW { beta1: 0.8, beta2: 0.99, epsilon: 1e-3 }, 0.1),
    (Optimizer::Sgd { momentum: 0.9 }, 0.01),
    (Optimizer::Sgd { momentum: 0.0 }, 0.0),
];

fn train_on(device: &Arc<dyn Device>, jobs: &[ToyJob], limits: Limits, watch: &Counter) -> Vec<Option<ToyOutcome>> {
    ToyTrainer { device, source: &HostBatches, limits }.train(jobs, watch).expect("there is room for one model")
}

/// On an emulated device, its fibers in the given order; none where there is no compiler for it.
fn trained(order: u32, jobs: &[ToyJob], limits: Limits) -> Option<Vec<ToyOutcome>> {
    let outcomes = train_on(&emulated(order)?, jobs, limits, &Counter::endless());
    Some(outcomes.into_iter().map(|outcome| outcome.expect("nobody said stop")).collect())
}

fn on_cpu(jobs: &[ToyJob]) -> Vec<ToyOutcome> {
    let outcomes = cpu::toy::train(jobs, &Counter::endless());
    outcomes.into_iter().map(|outcome| outcome.expect("nobody said stop")).collect()
}

fn same(a: &ToyOutcome, b: &ToyOutcome) -> bool {
    (&a.model, a.restart, &a.end, &a.trace) == (&b.model, b.restart, &b.end, &b.trace)
}

fn name(job: &ToyJob) -> String {
    let (n, p) = (job.world.n_features, job.world.firing_probability[0]);
    format!("n = {n}, m = {}, p = {p}, batch {}, {:?}", job.d_hidden, job.train.batch_size, job.train.optimizer)
}

/// Small models of every layout, kind and rule, some of which share data.
fn mixture() -> Vec<ToyJob> {
    let mut jobs = vec![];
    for (at, (n, m)) in [(2, 1), (1, 3), (5, 2), (4, 5), (17, 3), (20, 5), (21, 9), (30, 4)].into_iter().enumerate() {
        for p in [0.05, 1.0] {
            let mut job = job(n, m, p, 3 + at % 2, 40);
            if at % 2 == 1 {
                job.kind = ToyKind::Linear;
            }
            (job.train.optimizer, job.train.weight_decay) = RULES[at % 4];
            job.restarts = if n == 2 { 5 } else { 1 };
            job.trace_every = at % 3;
            jobs.push(job.clone());
            job.train.lr = 0.03;
            jobs.push(job);
        }
    }
    jobs
}

#[test]
fn models_in_lanes_have_the_bits_of_the_cpu() {
    let mut jobs = vec![];
    let shapes =
        [(1, 1), (1, 2), (1, 3), (1, 5), (1, 14), (2, 1), (2, 2), (2, 5), (3, 4), (4, 2), (5, 1), (5, 2), (6, 1)];
    for (n, m) in shapes {
        for p in [0.05, 1.0] {
            for batch in [1, 15, 16, 17, 1040] {
                let mut job = job(n, m, p, 3, batch);
                job.kind = if (n + m + batch) % 2 == 0 { ToyKind::ReluOutput } else { ToyKind::Linear };
                (job.train.optimizer, job.train.weight_decay) = RULES[(n + batch) % 4];
                (job.trace_every, job.snapshots) = (1, true);
                jobs.push(job);
            }
        }
    }
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for ((job, found), expected) in jobs.iter().zip(&found).zip(on_cpu(&jobs)) {
        assert!(same(found, &expected), "{}: {found:?}, {expected:?}", name(job));
        assert_eq!(found.trace.len(), 3);
    }
}

/// One step of SGD at rate 1 moves a parameter by its gradient, rounded once at the size of the parameter. The kernels'
/// chains are no longer than those of the bound: h and dh have fewer roundings than one chain, and sums over samples at
/// most two a sample.
#[test]
fn gradients_and_losses_are_within_rounding_of_plain_loops() {
    let mut jobs = vec![];
    for n in [1, 2, 5, 20, 80] {
        for m in [1, 2, 5, 20] {
            for (p, batches) in [(0.05, &[17, 1040][..]), (1.0, &[1, 15, 16, 17][..])] {
                for &batch in batches.iter().filter(|&&batch| batch < 1000 || n * m < 200) {
                    let mut job = job(n, m, p, 1, batch);
                    (job.train.optimizer, job.train.lr) = (Optimizer::Sgd { momentum: 0.0 }, 1.0);
                    job.train.loss_scale = LossScale::Sum;
                    job.kind = if (n + batch) % 2 == 0 { ToyKind::ReluOutput } else { ToyKind::Linear };
                    job.trace_every = 1;
                    jobs.push(job);
                }
            }
        }
    }
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for (job, found) in jobs.iter().zip(&found) {
        let wide = |values: &[f32]| values.iter().map(|v| *v as f64).collect::<Vec<_>>();
        let (before, slopes) = (wide(&job.initial_model(0).parameters()), wide(&job.slopes()));
        let mut batch = Batch::default();
        Sampler::new(job.world.clone(), job.seed, Stream::Train).draw(0, job.train.batch_size, &mut batch);
        let step = ReferenceStep { shape: job.shape(), parameters: &before, slopes: &slopes, batch: &batch };
        let ((gradient, loss), (bound, loss_bound)) = (step.gradient(), error_bound(&step, Form::Events));
        for (e, after) in found.model.parameters().into_iter().enumerate() {
            let expected = before[e] - gradient[e];
            let most = bound[e] + 2f64.powi(-24) * (expected.abs() + bound[e]);
            assert!((after as f64 - expected).abs() <= most, "{} at {e}: {after} for {expected} ± {most}", name(job));
        }
        let found_loss = found.trace[0].loss * job.loss_factor();
        assert!((found_loss - loss).abs() <= loss_bound + 1e-12 * loss, "{}: {found_loss} for {loss}", name(job));
    }
}

/// With epsilon 0.01 a step of Adam is smooth in the gradient: off by at most rate / epsilon = 1 times what the
/// gradient is off by. That is some 1e-6 of 0.1 (the largest entries) at rounding of a few dozen operations; parameters
/// of size 2 are rounded twice a step on either side. Over 4 steps: 4 (1e-7 + 4 · 2 · 6e-8) = 2.4e-6 if all errors had
/// one sign; three times that for what an error does to later gradients.
#[test]
fn several_steps_agree_with_the_cpu() {
    let mut jobs = vec![];
    for n in [1, 2, 5, 20, 80] {
        for m in [1, 2, 5, 20] {
            for (p, batch) in [(0.05, 17), (1.0, 16)] {
                for optimizer in [
                    Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 },
                    Optimizer::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 },
                    Optimizer::Sgd { momentum: 0.9 },
                ] {
                    let mut job = job(n, m, p, 4, batch);
                    (job.train.optimizer, job.train.weight_decay) = (optimizer, 0.1);
                    job.trace_every = 3;
                    jobs.push(job);
                }
            }
        }
    }
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for ((job, found), expected) in jobs.iter().zip(&found).zip(on_cpu(&jobs)) {
        assert_eq!((&found.end, found.trace.len()), (&TrainingEnd::Finished, expected.trace.len()));
        for (f, e) in found.model.parameters().into_iter().zip(expected.model.parameters()) {
            assert!((f - e).abs() < 8e-6, "{}: {f} for {e}", name(job));
        }
        for (f, e) in found.trace.iter().zip(&expected.trace) {
            assert!(f.step == e.step && (f.loss - e.loss).abs() <= 1e-4 * e.loss, "{}: {f:?} {e:?}", name(job));
        }
    }
}

/// Batches that take the threads of `toy_loss` or `toy_pack` more than once round. Six models of each shape, because each block
/// has an order of its own.
fn large_batches() -> Vec<ToyJob> {
    let mut jobs = vec![];
    for ((n, m), p, batch) in [((3, 1), 1.0, 330), ((4, 4), 0.05, 1100), ((24, 9), 1.0, 330)] {
        for rate in 1..7 {
            let mut job = job(n, m, p, 2, batch);
            (job.train.lr, job.trace_every) = (0.01 * rate as f64, 1);
            jobs.push(job);
        }
    }
    jobs
}

/// Kinds with a hidden layer of their own, of awkward sizes.
fn with_neurons(steps: usize) -> Vec<ToyJob> {
    let mlp = |activation| ToyKind::Mlp(Mlp { d_embedding: 6, activation, bias: -0.2, bias_decay: 0.5, seed: 5 });
    let mut jobs = vec![];
    for kind in [
        ToyKind::ReluHidden,
        ToyKind::AbsoluteValue,
        mlp(Activation::Relu),
        mlp(Activation::Gelu),
        mlp(Activation::Identity),
        ToyKind::Quadratic,
    ] {
        for (n, m, batch) in [(1, 1, 5), (6, 5, 50), (17, 9, 33)] {
            let mut job = job(n, m, 0.4, steps, batch);
            job.kind = kind;
            job.world = Arc::new(World { magnitude: Magnitude::Symmetric(1.0), ..(*job.world).clone() });
            job.train.optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 };
            job.trace_every = 2;
            jobs.push(job);
        }
    }
    jobs
}

/// As [`several_steps_agree_with_the_cpu`], and the loss of the first step has the CPU's bits.
#[test]
fn kinds_with_neurons_agree_with_the_cpu() {
    let jobs = with_neurons(6);
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for ((job, found), expected) in jobs.iter().zip(&found).zip(on_cpu(&jobs)) {
        assert_eq!(found.end, expected.end);
        for (f, e) in found.model.parameters().into_iter().zip(expected.model.parameters()) {
            assert!((f - e).abs() < 1.2e-5, "{:?}, {}: {f} for {e}", job.kind, name(job));
        }
        assert!(found.model != job.initial_model(0) || job.d_hidden == 1, "{:?}", job.kind);
        assert_eq!(found.trace[0].loss, expected.trace[0].loss, "{:?}, {}", job.kind, name(job));
        for (f, e) in found.trace.iter().zip(&expected.trace) {
            assert!(f.step == e.step && (f.loss - e.loss).abs() <= 1e-4 * e.loss, "{:?}: {f:?} {e:?}", job.kind);
        }
    }
}

#[test]
fn results_are_the_same_in_every_order_of_fibers() {
    // Apart, because the traces of the first cut every launch to one step: two show what a step leaves behind for the next.
    let silent = mixture().into_iter().map(|job| ToyJob { trace_every: 0, ..job }).collect();
    for jobs in [mixture(), silent, with_neurons(4), large_batches()] {
        let Some(expected) = trained(0, &jobs, Limits::default()) else { return };
        for order in [1, 7, 12345] {
            let found = trained(order, &jobs, Limits::default()).expect("it was there before");
            for ((job, a), b) in jobs.iter().zip(&found).zip(&expected) {
                assert!(same(a, b), "order {order}: {}", name(job));
            }
        }
    }
}

#[test]
fn results_are_the_same_alone_among_many_and_with_fewer_at_once() {
    let jobs = mixture();
    let Some(expected) = trained(0, &jobs, Limits::default()) else { return };
    let few = Limits { models: 3, ..Limits::default() };
    let short = Limits { batches: 1, ..Limits::default() };
    for limits in [few, short] {
        let found = trained(0, &jobs, limits).expect("it was there before");
        assert!(found.iter().zip(&expected).all(|(a, b)| same(a, b)), "{limits:?}");
    }
    for (job, expected) in jobs.iter().zip(&expected) {
        let alone = trained(0, std::slice::from_ref(job), Limits::default()).expect("it was there before");
        assert!(same(&alone[0], expected), "{}", name(job));
        // Traces cut the steps into other launches.
        let logged = ToyJob { trace_every: 1, snapshots: true, ..job.clone() };
        let cut = trained(0, &[logged], Limits::default()).expect("it was there before");
        assert_eq!((&cut[0].model, cut[0].restart), (&expected.model, expected.restart), "{}", name(job));
        assert_eq!(cut[0].trace.len(), job.train.steps);
    }
}

#[test]
fn a_small_device_trains_fewer_at_once_with_the_same_results() {
    let jobs = mixture();
    let Some(device) = emulated(0) else { return };
    let expected = trained(0, &jobs, Limits::default()).expect("it is there");
    for room in [1 << 20, 160 << 10] {
        let tight = Arc::new(Small::new(&device, room, usize::MAX));
        let small: Arc<dyn Device> = tight.clone();
        let watch = Counter::endless();
        let found = train_on(&small, &jobs, Limits::default(), &watch);
        assert!(tight.refused.load(Ordering::Relaxed) > 0, "{room}");
        assert_eq!(tight.left.load(Ordering::Relaxed), room, "all is given back");
        assert!(found.iter().flatten().zip(&expected).all(|(a, b)| same(a, b)), "{room}");
        assert_eq!(
            watch.steps.into_inner(),
            jobs.iter().map(|job| (job.restarts * job.train.steps) as u64).sum::<u64>()
        );
    }
    let none: Arc<dyn Device> = Arc::new(Small::new(&device, 100, usize::MAX));
    let trainer = ToyTrainer { device: &none, source: &HostBatches, limits: Limits::default() };
    let error = trainer.train(&jobs[..1], &Counter::endless()).expect_err("no room for one");
    assert!(matches!(error, DeviceError::OutOfMemory { .. }));
    // What a shape is trained by does not depend on the card: one that cannot do it says so.
    let mut large = job(60, 40, 0.1, 2, 8);
    large.train.steps = 2;
    let blocks: Arc<dyn Device> = Arc::new(Small::new(&device, usize::MAX, 48 << 10));
    let trainer = ToyTrainer { device: &blocks, source: &HostBatches, limits: Limits::default() };
    let error = trainer.train(&[large], &Counter::endless()).expect_err("no block is large enough").to_string();
    assert!(error.contains("a toy model of 60 features and 40 dimensions takes"), "{error}");
}

/// A third model blows up between two looks; guards, last losses, the step and the tensor are those of the CPU.
#[test]
fn divergence_is_reported_as_on_the_cpu_and_leaves_the_others_alone() {
    let mut jobs = vec![];
    for (n, m) in [(3, 1), (4, 4), (24, 9)] {
        for variant in 0..3 {
            let mut job = job(n, m, 1.0, 70, 8);
            (job.train.optimizer, job.train.lr) = (Optimizer::Sgd { momentum: 0.9 }, 0.05);
            job.importance[0] = if variant == 1 { 1e6 } else { 1.0 + variant as f32 / 10.0 };
            job.trace_every = 20;
            jobs.push(job);
        }
    }
    let Some(device) = emulated(0) else { return };
    let watch = Counter::endless();
    let found = train_on(&device, &jobs, Limits::default(), &watch);
    assert_eq!(watch.steps.into_inner(), 9 * 70);
    for (index, (found, expected)) in found.into_iter().zip(on_cpu(&jobs)).enumerate() {
        let found = found.expect("nobody said stop");
        assert_eq!(found.end == TrainingEnd::Finished, index % 3 != 1, "{index}: {:?}", found.end);
        match (&found.end, &expected.end) {
            (TrainingEnd::Finished, end) => assert_eq!(*end, TrainingEnd::Finished),
            (
                TrainingEnd::Diverged { step, last_loss, tensor },
                TrainingEnd::Diverged { step: s, last_loss: l, tensor: t },
            ) => {
                assert_eq!((step, tensor), (s, t));
                assert!((last_loss - l).abs() <= 1e-5 * l, "{last_loss} {l}");
            }
            (_, end) => panic!("{:?} for {end:?}", found.end),
        }
        assert_eq!(found.trace.len(), expected.trace.len());
        assert!(index >= 3 || index % 3 == 1 || same(&found, &expected));
    }
}

/// The last feature's importance is so great that its gradient overflows as a sum over the batch, while that of each sample is
/// finite: weights of the first feature, which never fires and does not count, stay as they are. So another thread than
/// the one that reports it looks at the first wrong parameter. With weights of 0.1 x' is small, r nearly x: the loss of a tile
/// is 16 c r² = 16 · 1e35 · 33 = 5e37, the gradient of the bias 2048 c r = 1e39.
#[test]
fn a_wrong_parameter_is_found_by_whichever_thread_looks_at_it() {
    let mut jobs = vec![];
    for (n, m) in [(3, 1), (4, 4), (24, 9)] {
        let mut job = job(n, m, 1.0, 2, 2048);
        let mut world = World { magnitude: Magnitude::Uniform { low: 0.0, high: 10.0 }, ..(*job.world).clone() };
        world.firing_probability[0] = 0.0;
        (job.world, job.kind, job.init) = (Arc::new(world), ToyKind::Linear, ToyInit::Normal(0.1));
        (job.importance[0], job.importance[n - 1]) = (0.0, 1e38);
        (job.train.optimizer, job.train.loss_scale) = (Optimizer::Sgd { momentum: 0.0 }, LossScale::Sum);
        jobs.push(job);
    }
    let first_step = |job: &ToyJob| ToyJob { train: ToyTrain { steps: 1, ..job.train.clone() }, ..job.clone() };
    for after in on_cpu(&jobs.iter().map(first_step).collect::<Vec<_>>()) {
        let parameters = after.model.parameters();
        assert!(parameters[0].is_finite() && parameters.iter().any(|p| !p.is_finite()), "{parameters:?}");
    }
    let expected = on_cpu(&jobs);
    for order in [0, 1, 7, 12345] {
        let Some(found) = trained(order, &jobs, Limits::default()) else { return };
        for ((job, found), expected) in jobs.iter().zip(&found).zip(&expected) {
            let (TrainingEnd::Diverged { step: 1, tensor, .. }, TrainingEnd::Diverged { step: 1, tensor: t, .. }) =
                (&found.end, &expected.end)
            else {
                panic!("order {order}, {}: {:?} for {:?}", name(job), found.end, expected.end)
            };
            assert_eq!(tensor, t, "order {order}: {}", name(job));
            assert_ne!(*tensor, "loss");
        }
    }
}

#[test]
fn more_steps_than_a_range_and_restarts_with_the_bits_of_the_cpu() {
    let jobs: Vec<ToyJob> =
        [63, 64, 65, 130].map(|steps| ToyJob { trace_every: 50, restarts: 3, ..job(2, 1, 0.05, steps, 10) }).into();
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for (found, expected) in found.iter().zip(on_cpu(&jobs)) {
        assert!(same(found, &expected), "{found:?} {expected:?}");
    }
}

#[test]
fn stop_leaves_unfinished_models_and_keeps_those_whose_steps_are_done() {
    let Some(device) = emulated(0) else { return };
    let (short, long) = (job(3, 1, 1.0, 10, 8), job(3, 1, 1.0, 200, 8));
    // Ranges are 0 .. 9, 9 .. 10, 10 .. 64.
    let watch = Counter::new(3);
    let outcomes = train_on(&device, &[short.clone(), long.clone()], Limits::default(), &watch);
    assert!(outcomes[0].is_some() && outcomes[1].is_none());
    assert_eq!(watch.steps.into_inner(), 10 + 64);
    assert!(train_on(&device, &[short], Limits::default(), &Counter::new(0))[0].is_none());
}

#[test]
fn no_steps_leave_the_initial_model_and_what_has_no_kernel_goes_to_the_cpu() {
    let none = ToyJob { trace_every: 1, ..job(4, 2, 1.0, 0, 8) };
    let large = job(1000, 40, 1.0, 1, 2);
    let Some(found) = trained(0, &[none.clone(), large.clone()], Limits::default()) else { return };
    assert_eq!(found[0].model, none.initial_model(0));
    assert_eq!((&found[0].end, found[0].trace.len()), (&TrainingEnd::Finished, 0));
    assert!(same(&found[1], &on_cpu(&[large])[0]));
}

/// The CPU has kernels of its own for finite sets; tolerance as in `several_steps_agree_with_the_cpu`.
#[test]
fn finite_sets_are_walked_in_their_order() {
    let mut jobs = vec![];
    for (n, m, batch) in [(5, 2, 100), (5, 2, 7), (20, 3, 30), (20, 3, 9)] {
        let mut job = job(n, m, 0.2, 5, batch);
        job.world = Arc::new(World { dataset: Some(Finite { samples: 30, normalise: true }), ..(*job.world).clone() });
        job.train.optimizer = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-2 };
        jobs.push(job);
    }
    let Some(found) = trained(0, &jobs, Limits::default()) else { return };
    for ((job, found), expected) in jobs.iter().zip(&found).zip(on_cpu(&jobs)) {
        for (f, e) in found.model.parameters().into_iter().zip(expected.model.parameters()) {
            assert!((f - e).abs() < 1e-5, "{}: {f} for {e}", name(job));
        }
    }
}
