//! However a step is carried out (fused or in phases, screened or not, on however many threads), its bits are the same.

use super::*;
use crate::backend::ops::layout::unpack_rows;
use crate::random::{Draws, Stream};
use crate::sae::{Architecture, BatchInference, DecoderRule, Normalise, SaeTrain, Weights};
use crate::training::{Optimizer, Schedule};

fn train(batch_size: usize) -> SaeTrain {
    SaeTrain {
        steps: 100,
        batch_size,
        optimizer: Optimizer::default(),
        lr: 1e-3,
        schedule: Schedule::Constant,
        warmup: 0.0,
        decay: 0.0,
        clip: Some(1.0),
        weight_decay: 0.0,
        normalise: Normalise::None,
        dead_after: 2,
    }
}

fn program(architecture: Architecture) -> Program {
    architecture.program()
}

/// Sums of a few of `2 d` random directions; every seventh sample is empty.
fn batch(samples: usize, d: usize) -> PackedBatch {
    let mut draws = Draws::new(9, Stream::Train, 0);
    let directions: Vec<f32> = (0..2 * d * d).map(|_| draws.normal() as f32 / (d as f32).sqrt()).collect();
    let mut h = vec![0.0; samples * d];
    for (s, h) in h.chunks_exact_mut(d).enumerate().filter(|(s, _)| s % 7 > 0) {
        for _ in 0..1 + s % 4 {
            let at = draws.below(2 * d as u32) as usize * d;
            let x = draws.uniform() as f32;
            h.iter_mut().zip(&directions[at..at + d]).for_each(|(h, w)| *h += x * w);
        }
    }
    let mut batch = PackedBatch::default().with_screen();
    batch.fill(&h, d, 1.0);
    batch
}

fn trainee(program: &Program, m: usize, d: usize, samples: usize) -> Trainee {
    let weights = Weights::init(5, m, d, program);
    Trainee::new(Isa::best(), &weights, program.clone(), train(samples))
}

/// Everything that six steps leave.
fn after(mut trainee: Trainee, batch: &PackedBatch) -> (State, Vec<Losses>) {
    let mut scratch = Scratch::default();
    let losses = (0..6)
        .map(|step| {
            let losses = trainee.gradients(batch, &mut scratch);
            let norm = trainee.finish(&mut scratch);
            assert!(trainee.update(step, norm, &mut scratch));
            losses
        })
        .collect();
    (trainee.state, losses)
}

fn kinds() -> Vec<Program> {
    let topk = |k, aux_k| Architecture::TopK { k, aux_k };
    let batch = |k, aux_k| Architecture::BatchTopK { k, aux_k, inference: BatchInference::Threshold };
    [topk(3, 0), topk(20, 0), topk(9, 40), batch(2.5, 0), batch(12.0, 30)].map(program).into()
}

#[test]
fn a_fused_step_has_the_bits_of_its_phases() {
    let relu = Architecture::Relu { l1: 0.05, decoder: DecoderRule::NormPenalty };
    for architecture in [Architecture::TopK { k: 2, aux_k: 0 }, Architecture::TopK { k: 11, aux_k: 4 }, relu] {
        let program = program(architecture);
        for (samples, m, d) in [(1, 11, 1), (65, 17, 16), (200, 64, 20), (64, 40, 49)] {
            let batch = batch(samples, d);
            let mut gradients = vec![];
            for fused in [true, false] {
                let (mut trainee, mut scratch) = (trainee(&program, m, d, samples), Scratch::default());
                trainee.prepare(samples, &mut scratch);
                assert!(trainee.fuses(samples, &scratch.aim));
                let step = if fused { Trainee::fused_step } else { Trainee::phased_step };
                let (losses, fired) = step(&mut trainee, &batch, &mut scratch);
                let GradientSums { w_enc, w_dec, b_enc, b_dec, values, through, .. } = scratch.sums;
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
                let rows = [w_enc, w_dec, b_dec].map(|rows| bits(&unpack_rows(&rows, d)));
                let more = [b_enc, values, through].map(|numbers| bits(&numbers));
                let since = trainee.state.since_fired;
                gradients.push((rows, more, since, losses.mse.to_bits(), losses.penalty.to_bits(), fired));
            }
            assert_eq!(gradients[0], gradients[1], "{samples} samples, {m} latents, d {d}");
        }
    }
}

/// Sums over 200 samples of f32 products, which the two ways round differently: held to 1e-5 of the largest, as the plain
/// loops hold them.
#[test]
fn masks_of_dead_latents_give_the_sums_of_their_lists() {
    for (k, aux_k, alive) in [(2, 10, 40), (2, 3, 52), (5, 16, 20), (2, 30, 40)] {
        let (samples, m, d) = (200, 64, 20);
        let program = program(Architecture::TopK { k, aux_k });
        let batch = batch(samples, d);
        let mut found = vec![];
        for fused in [true, false] {
            let (mut trainee, mut scratch) = (trainee(&program, m, d, samples), Scratch::default());
            trainee.state.since_fired.iter_mut().skip(alive).for_each(|since| *since = 3);
            trainee.prepare(samples, &mut scratch);
            assert_eq!(scratch.aim.dead[0].len(), m - alive);
            assert!(trainee.fuses(samples, &scratch.aim));
            let step = if fused { Trainee::fused_step } else { Trainee::phased_step };
            let (losses, fired) = step(&mut trainee, &batch, &mut scratch);
            let GradientSums { w_enc, w_dec, b_enc, b_dec, through, .. } = scratch.sums;
            let rows = [w_enc, w_dec, b_dec].map(|rows| unpack_rows(&rows, d));
            found.push(([&rows[..], &[b_enc, through]].concat(), losses, fired, trainee.state.since_fired));
        }
        let [(a, losses_a, fired_a, since_a), (b, losses_b, fired_b, since_b)] = &found[..] else { unreachable!() };
        assert_eq!((fired_a, since_a), (fired_b, since_b));
        assert!(losses_a.auxiliary > 0.0 && (losses_a.total() / losses_b.total() - 1.0).abs() < 1e-5);
        for (a, b) in a.iter().zip(b) {
            let largest = b.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * largest), "{k}, {aux_k}, {alive}");
        }
    }
}

#[test]
fn a_screened_step_has_the_bits_of_the_whole_product() {
    for program in kinds() {
        let (samples, m, d) = (130, 300, 130);
        let batch = batch(samples, d);
        let with = trainee(&program, m, d, samples);
        assert_eq!(with.screen.is_some(), screen::available(Isa::best()));
        let mut without = trainee(&program, m, d, samples);
        without.screen = None;
        assert_eq!(after(with, &batch), after(without, &batch));
    }
}

#[test]
fn threads_change_no_bit_of_a_large_step() {
    for program in kinds() {
        let (samples, m, d) = (256, 520, 260);
        assert!(shared(samples, m, d));
        let batch = batch(samples, d);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| after(trainee(&program, m, d, samples), &batch))
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert_eq!(one, run(threads), "{threads} threads");
        }
    }
}
