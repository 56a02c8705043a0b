use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::emulated::{Small, emulated};
use super::*;
use crate::backend::checkpoint::Checkpoints;
use crate::backend::reference;
use crate::data::dictionary::Dictionary;
use crate::data::{Magnitude, MagnitudeSharing, World};
use crate::hidden::{HiddenMaker, HiddenSource};
use crate::sae::{
    Architecture, BatchInference, BiasInit, DecoderRule, FrozenDecoder, Init, JumpRelu, KAnneal, Levels, Options,
    Prefixes, Pursuit, Resample, SaeTrace, SaeTrain, Size, Sort, Sparsity, Target,
};
use crate::toy::TrainingEnd;
use crate::training::{Optimizer, Schedule};

/// States of each job, oldest first.
type States = BTreeMap<(usize, usize), Vec<Vec<u8>>>;

/// Counts steps, and keeps states if asked to.
#[derive(Default)]
pub(super) struct Count {
    steps: AtomicU64,
    restored: AtomicU64,
    kept: Option<Mutex<States>>,
}

impl Watch for Count {
    fn advance(&self, model_steps: u64) {
        self.steps.fetch_add(model_steps, Ordering::Relaxed);
    }
    fn restored(&self, model_steps: u64) {
        self.restored.fetch_add(model_steps, Ordering::Relaxed);
    }
    fn checkpoints(&self) -> Option<&dyn Checkpoints> {
        self.kept.as_ref().map(|_| self as &dyn Checkpoints)
    }
}

impl Checkpoints for Count {
    fn every(&self) -> Duration {
        Duration::ZERO
    }
    fn load(&self, group: usize, job: usize) -> Option<Vec<u8>> {
        self.kept.as_ref()?.lock().unwrap().get(&(group, job))?.last().cloned()
    }
    fn save(&self, group: usize, job: usize, state: &[u8]) {
        let mut kept = self.kept.as_ref().expect("asked for").lock().unwrap();
        kept.entry((group, job)).or_default().push(state.to_vec());
    }
}

pub(super) fn source(d: usize, seed: u64) -> SaeSource {
    let dictionary = Dictionary::random(20, d, seed);
    let world = World {
        n_features: 20,
        firing_probability: vec![0.1; 20],
        magnitude: Magnitude::Uniform { low: 0.5, high: 1.0 },
        magnitude_sharing: MagnitudeSharing::Independent,
        groups: vec![],
        dataset: None,
        correlation: None,
        hierarchy: None,
    };
    HiddenSource { world: Arc::new(world), seed, maker: HiddenMaker::Dictionary(Arc::new(dictionary)) }.into()
}

pub(super) fn job(architecture: Architecture, n_latents: usize) -> SaeJob {
    SaeJob {
        seed: 4,
        n_latents,
        architecture,
        options: Options::default(),
        frozen_decoder: None,
        train: SaeTrain {
            steps: 14,
            batch_size: 33,
            optimizer: Optimizer::default(),
            lr: 3e-3,
            schedule: Schedule::Constant,
            warmup: 0.1,
            decay: 0.2,
            clip: Some(1.0),
            weight_decay: 0.0,
            normalise: Normalise::None,
            dead_after: 4,
        },
        trace_every: 5,
    }
}

const RELU: Architecture = Architecture::Relu { l1: 0.03, decoder: DecoderRule::UnitNorm };
const RELU_FREE: Architecture = Architecture::Relu { l1: 0.03, decoder: DecoderRule::NormPenalty };

fn batch(k: f64, aux_k: usize) -> Architecture {
    Architecture::BatchTopK { k, aux_k, inference: BatchInference::Threshold }
}

fn jump(sparsity: Sparsity, input_gradient: bool, silent: f64) -> Architecture {
    let (bandwidth, threshold) = (Size::Relative(0.1), Size::Relative(0.1));
    Architecture::JumpRelu(JumpRelu {
        l0: 0.03,
        sparsity,
        bandwidth,
        threshold,
        init_norm: 0.5,
        input_gradient,
        silent,
    })
}

fn nested(
    nested: Architecture,
    prefixes: Prefixes,
    sort: Sort,
    aux_by_level: bool,
    detach_inner: bool,
) -> Architecture {
    let levels = Levels { prefixes, inner: 0.5, average: false, detach_inner, sort };
    Architecture::Matryoshka { nested: Box::new(nested), levels, aux_by_level }
}

fn led() -> Options {
    let target = Some(Target { l0: 3.0, rate: 0.02, approach: 0.2, ahead: 6.0, tolerance: 0.1 });
    Options { target, relative_penalty: true, penalty_warmup: 0.3, ..Options::default() }
}

/// In f32.
fn train(
    device: &Arc<dyn Device>,
    groups: &[SaeGroup],
    watch: &dyn Watch,
) -> Result<Vec<Vec<Option<SaeOutcome>>>, DeviceError> {
    super::train(device, Arithmetic::F32, groups, watch)
}

/// Every kind, rule and option that kernels take.
fn jobs(d: usize) -> Vec<SaeJob> {
    let topk = |k, aux_k| Architecture::TopK { k, aux_k };
    let fixed = || Prefixes::Fixed(vec![4, 11, 24]);
    let mut jobs = vec![
        job(topk(2, 6), 24),
        job(topk(7, 3), 40),
        job(topk(1, 0), 7),
        job(topk(9, 12), 9),
        job(batch(2.3, 4), 24),
        job(batch(0.01, 0), 24),
        job(RELU, 24),
        job(RELU_FREE, 17),
        job(jump(Sparsity::Step, false, 0.0), 24),
        job(jump(Sparsity::Tanh { scale: 4.0 }, true, 0.3), 24),
        job(jump(Sparsity::Quadratic { target: 3.0 }, false, 0.1), 24),
        job(Architecture::Gated { l1: 0.2, parity: false }, 24),
        job(Architecture::Gated { l1: 0.2, parity: true }, 24),
        job(nested(batch(2.0, 4), fixed(), Sort::Frequency, true, false), 24),
        job(nested(RELU_FREE, Prefixes::Sampled { count: 5, power: 0.5 }, Sort::Contribution, true, false), 24),
        job(nested(topk(3, 5), fixed(), Sort::None, false, true), 24),
        job(RELU, 24),
        job(topk(3, 0), 24),
        job(topk(2, 0), 20),
    ];
    jobs[1].train.optimizer = Optimizer::Sgd { momentum: 0.9 };
    jobs[2].train.optimizer = Optimizer::Sgd { momentum: 0.0 };
    jobs[2].train.steps = 0;
    jobs[3].train.optimizer = Optimizer::AdamW { beta1: 0.8, beta2: 0.99, epsilon: 1e-6 };
    jobs[3].train.weight_decay = 0.01;
    jobs[4].train.normalise = Normalise::MeanNorm;
    jobs[6].train.normalise = Normalise::ConstantNorm;
    jobs[7].train.batch_size = 31;
    jobs[8].options = led();
    jobs[11].options = led();
    jobs[13].seed = 0;
    jobs[16].options = Options {
        tied: true,
        init: Init::Truth { noise: 0.1 },
        bias_init: BiasInit::GeometricMedian,
        aux_k: Some(4),
        ..Options::default()
    };
    jobs[17].options = Options {
        resample: Some(Resample { at: vec![5, 10], window: 2, inputs: 100 }),
        k_anneal: Some(KAnneal { from: 6.0, share: 0.5 }),
        ..Options::default()
    };
    jobs[17].train.clip = None;
    let given = Dictionary::random(20, d, 1);
    jobs[18].frozen_decoder = Some(Arc::new(FrozenDecoder { w_dec: given.vectors, b_dec: vec![0.1; d] }));
    jobs[18].train.normalise = Normalise::MeanNorm;
    jobs
}

/// All bits of an outcome.
pub(super) fn bits(outcome: &Option<SaeOutcome>) -> (Vec<u32>, TrainingEnd, Vec<SaeTrace>) {
    let outcome = outcome.as_ref().expect("not stopped");
    let tensors = outcome.coder.tensors();
    let bits = tensors.iter().flat_map(|(_, tensor)| tensor.iter().map(|x| x.to_bits())).collect();
    (bits, outcome.end.clone(), outcome.trace.clone())
}

/// f32 against f64 over 14 steps: each step adds some 1e-7 of the weights' size, and Adam turns differences of small gradients
/// into differences of steps, at most 3e-3 each. Held to 1e-3 absolute on weights of size up to 1 and to 1e-3 relative on the
/// loss; a wrong rule (warm-up, decay, clip, scale, dead latents, order of a step) shows at 1e-2.
fn assert_agrees(what: &str, found: &SaeOutcome, expected: &SaeOutcome) {
    assert_eq!(found.end, expected.end, "{what}");
    let steps = |trace: &[SaeTrace]| trace.iter().map(|t| t.step).collect::<Vec<_>>();
    assert_eq!(steps(&found.trace), steps(&expected.trace), "{what}");
    for (found, expected) in found.trace.iter().zip(&expected.trace) {
        assert!((found.loss / expected.loss - 1.0).abs() < 1e-3, "{what}: {found:?} {expected:?}");
        assert!((found.l0 - expected.l0).abs() <= 0.03, "{what}: {found:?} {expected:?}");
        assert_eq!(found.control.is_some(), expected.control.is_some());
        if let Some((found, expected)) = found.control.zip(expected.control) {
            assert!((found.multiplier / expected.multiplier - 1.0).abs() < 1e-3, "{what}: {found:?} {expected:?}");
            assert!((found.l0_smoothed - expected.l0_smoothed).abs() < 0.03, "{what}: {found:?} {expected:?}");
        }
    }
    for ((name, found), (_, expected)) in found.coder.tensors().iter().zip(expected.coder.tensors()) {
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = expected.iter().map(|x| x.abs()).fold(1.0, f32::max);
        assert!(worst < 1e-3 * size, "{what}, {name}: {worst}");
    }
}

#[test]
fn trainings_of_every_kind_agree_with_plain_loops() {
    let Some(device) = emulated(0) else { return };
    for (d, every) in [(10, 1), (5, 6)] {
        let saes: Vec<SaeJob> = jobs(d).into_iter().step_by(every).collect();
        let groups = [SaeGroup { source: source(d, 1), saes }];
        let watch = Count::default();
        let found = train(&device, &groups, &watch).expect("there is room");
        let expected = reference::sae::train(&groups, &Count::default());
        for ((found, expected), job) in found[0].iter().zip(&expected[0]).zip(&groups[0].saes) {
            let what = format!("d {d}, {:?} {:?}", job.architecture, job.options);
            assert_agrees(&what, found.as_ref().expect("not stopped"), expected.as_ref().expect("not stopped"));
        }
        let steps: usize = groups[0].saes.iter().map(|job| job.train.steps).sum();
        assert_eq!(watch.steps.load(Ordering::Relaxed), steps as u64);
    }
}

/// One job of each rule and list, short.
fn few(d: usize) -> Vec<SaeJob> {
    let mut few: Vec<SaeJob> = [0, 4, 7, 9, 12, 13].map(|at| jobs(d)[at].clone()).into();
    few.iter_mut().for_each(|job| (job.train.steps, job.train.batch_size, job.train.dead_after) = (4, 17, 1));
    few
}

/// Rows of more than a warp, lists of more than a warp, levels with dead latents of their own, the last with fewer than are wanted:
/// what small ones have no barrier for.
fn wide() -> SaeJob {
    let prefixes = Prefixes::Fixed(vec![30, 135, 140]);
    let mut wide = job(nested(batch(2.0, 9), prefixes, Sort::None, true, false), 140);
    (wide.train.steps, wide.train.batch_size, wide.train.dead_after) = (3, 12, 0);
    wide
}

#[test]
fn every_order_of_threads_and_blocks_gives_the_same_bits() {
    let narrow = SaeGroup { source: source(6, 3), saes: few(6) };
    // A penalty of each entry, whose sum several warps have a part in.
    let penalised = SaeJob { train: wide().train, ..job(jump(Sparsity::Tanh { scale: 4.0 }, true, 0.3), 30) };
    let groups = [narrow, SaeGroup { source: source(200, 3), saes: vec![wide(), penalised] }];
    let mut first = None;
    for order in [0, 1, 7, 12345] {
        let Some(device) = emulated(order) else { return };
        let found = train(&device, &groups, &Count::default()).expect("there is room");
        let found: Vec<_> = found.iter().flatten().map(bits).collect();
        assert_eq!(&found, first.get_or_insert_with(|| found.clone()), "order {order}");
    }
}

#[test]
fn a_training_that_goes_on_from_any_of_its_states_ends_with_the_same_bits() {
    let Some(device) = emulated(0) else { return };
    let mut saes: Vec<SaeJob> = [4, 8, 13].map(|at| jobs(5)[at].clone()).into();
    saes.iter_mut().for_each(|job| job.train.batch_size = 20);
    let groups = [SaeGroup { source: source(5, 2), saes }];
    let watch = Count { kept: Some(Mutex::default()), ..Count::default() };
    let whole: Vec<_> = train(&device, &groups, &watch).expect("there is room")[0].iter().map(bits).collect();
    let kept = watch.kept.expect("asked for").into_inner().expect("nobody panicked");
    assert!(kept.values().all(|states| states.len() > 1), "there are states between");
    for pick in [0, 1, usize::MAX] {
        // The first state of one job may be older than that of another, which then waits.
        let of =
            |(key, states): (&(usize, usize), &Vec<Vec<u8>>)| (*key, vec![states[pick.min(states.len() - 1)].clone()]);
        let watch = Count { kept: Some(Mutex::new(kept.iter().map(of).collect())), ..Count::default() };
        let again: Vec<_> = train(&device, &groups, &watch).expect("there is room")[0].iter().map(bits).collect();
        assert_eq!(again, whole, "state {pick}");
        let steps = watch.steps.load(Ordering::Relaxed) + watch.restored.load(Ordering::Relaxed);
        assert_eq!(steps, 3 * 14);
    }
    let damaged = kept.iter().map(|(key, states)| (*key, vec![states[0][1..].to_vec()])).collect();
    let watch = Count { kept: Some(Mutex::new(damaged)), ..Count::default() };
    assert_eq!(
        train(&device, &groups, &watch).expect("there is room")[0].iter().map(bits).collect::<Vec<_>>(),
        whole,
        "begun anew"
    );
}

#[test]
fn company_and_room_change_no_bit_and_no_room_for_one_is_an_error() {
    let Some(device) = emulated(0) else { return };
    let short = |seed| {
        let mut job = job(Architecture::TopK { k: 2, aux_k: 3 }, 24);
        (job.seed, job.train.steps, job.train.batch_size) = (seed, 5 + seed as usize, 20);
        job
    };
    let saes: Vec<SaeJob> = (0..4).map(short).collect();
    let groups = [SaeGroup { source: source(5, 2), saes }];
    let together: Vec<_> =
        train(&device, &groups, &Count::default()).expect("there is room")[0].iter().map(bits).collect();
    for (job, together) in groups[0].saes.iter().zip(&together) {
        let alone = [SaeGroup { source: source(5, 2), saes: vec![job.clone()] }];
        assert_eq!(&bits(&train(&device, &alone, &Count::default()).expect("there is room")[0][0]), together);
    }
    let mut one = Layout::default();
    let first = &groups[0].saes[0];
    Places::new(&mut one, Sizes { n: 20, m: 24, d: 5 }, &first.program(|| 1.0), first.train.optimizer);
    let small: Arc<dyn Device> = Arc::new(Small::new(&device, one.bytes() * 5 / 2, usize::MAX));
    let halved: Vec<_> =
        train(&small, &groups, &Count::default()).expect("there is room")[0].iter().map(bits).collect();
    assert_eq!(halved, together);
    let tiny: Arc<dyn Device> = Arc::new(Small::new(&device, one.bytes() / 2, usize::MAX));
    let error = train(&tiny, &groups, &Count::default()).err();
    assert!(matches!(error, Some(DeviceError::OutOfMemory { .. })), "{error:?}");
}

#[test]
fn what_no_kernel_takes_is_trained_on_the_cpu_and_the_reason_is_said() {
    let Some(device) = emulated(0) else { return };
    let pursuit = Pursuit { k: 3, residual_threshold: 0.05, stop_on_duplicate: true };
    let mut saes = vec![
        job(Architecture::TopK { k: 2, aux_k: 0 }, 12),
        job(Architecture::MatchingPursuit { pursuit, unit_decoder: false }, 24),
    ];
    saes.iter_mut().for_each(|job| job.train.steps = 4);
    let why = |job: &SaeJob| why_not(job, 5);
    assert_eq!(why(&saes[0]), None);
    assert!(why(&saes[1]).is_some_and(|why| why.contains("matching pursuit")));
    let mut wide = saes[0].clone();
    wide.n_latents = 1 << 30;
    assert!(why(&wide).is_some_and(|why| why.contains("1073741824 latents")), "{:?}", why(&wide));
    let many = Prefixes::Fixed((1..=24).collect());
    let many = job(nested(batch(2.0, 0), many, Sort::None, false, false), 24);
    assert!(why(&many).is_some_and(|why| why.contains("24 levels")));
    let groups = [SaeGroup { source: source(5, 2), saes }];
    let found = train(&device, &groups, &Count::default()).expect("there is room");
    let expected = cpu::sae::train(&groups, &Count::default());
    assert_eq!(bits(&found[0][1]), bits(&expected[0][1]));
    assert!(found[0][0].is_some());
}

#[test]
fn a_training_that_diverges_ends_there_and_leaves_the_others_alone() {
    let Some(device) = emulated(0) else { return };
    let mut wild = [job(RELU_FREE, 24), job(Architecture::TopK { k: 2, aux_k: 6 }, 24)];
    for job in &mut wild {
        job.train.optimizer = Optimizer::Sgd { momentum: 0.0 };
        (job.train.lr, job.train.clip, job.train.warmup, job.train.steps) = (1e4, None, 0.0, 30);
    }
    let calm = job(RELU, 24);
    let alone = [SaeGroup { source: source(10, 1), saes: vec![calm.clone()] }];
    let mut saes = vec![calm];
    saes.extend(wild);
    let groups = [SaeGroup { source: source(10, 1), saes }];
    let watch = Count::default();
    let found = train(&device, &groups, &watch).expect("there is room");
    assert_eq!(bits(&found[0][0]), bits(&train(&device, &alone, &Count::default()).expect("there is room")[0][0]));
    for outcome in &found[0][1..] {
        let outcome = outcome.as_ref().expect("not stopped");
        let TrainingEnd::Diverged { step, last_loss, tensor } = outcome.end else { panic!("{:?}", outcome.end) };
        assert!(step < 30 && last_loss.is_finite() && ["loss", "W_enc", "W_dec", "b_enc", "b_dec"].contains(&tensor));
        assert!(outcome.trace.iter().all(|t| t.loss.is_finite()));
    }
    assert_eq!(watch.steps.load(Ordering::Relaxed), 14 + 60);
}
