use super::*;
use crate::backend::ops::layout::unpack_rows;
use crate::backend::reference::sae::ReferenceSae;
use crate::random::{Draws, Stream};
use crate::sae::golden::{Golden, assert_near};
use crate::sae::{
    Architecture, BatchInference, DecoderRule, JumpRelu, Levels as Nested, Prefixes, Pursuit, Resample, Size, Sort,
    Sparsity,
};

fn packed(h: &[f32], d: usize) -> PackedBatch {
    let mut batch = PackedBatch::default();
    batch.fill(h, d, 1.0);
    batch
}

/// The sums of `scratch` without padding, in the order of the parameters.
fn gradients_of(scratch: &Scratch, program: &Program, d: usize) -> Vec<Vec<f64>> {
    let sums = &scratch.sums;
    let rows =
        [unpack_rows(&sums.w_enc, d), sums.b_enc.clone(), unpack_rows(&sums.w_dec, d), unpack_rows(&sums.b_dec, d)];
    let extra = sums.extra.iter().take(program.per_latent()).cloned();
    rows.into_iter().chain(extra).map(|g| g.iter().map(|&g| g as f64).collect()).collect()
}

fn kill(trainee: &mut Trainee, dead: &[bool]) {
    let dead_after = trainee.train.dead_after;
    for (since, &dead) in trainee.state.since_fired.iter_mut().zip(dead) {
        *since = if dead { dead_after + 1 } else { 0 };
    }
}

fn largest(tensors: &[Vec<f64>]) -> f64 {
    tensors.iter().flatten().fold(0.0, |a, g| a.max(g.abs()))
}

/// Tolerances of the golden values' own page: an f32 gradient entry is a chain of at most 31 roundings of 6e-8 of the sum
/// of magnitudes, itself a few times the largest entry: 1e-5 of that; loss 2e-6.
#[test]
fn loss_terms_and_gradients_are_those_of_the_golden_objectives() {
    for golden in Golden::all() {
        let program = golden.architecture.program();
        let (d, batch) = (golden.weights.d_hidden, packed(&golden.x, golden.weights.d_hidden));
        // The reference, held to the same golden values in f64, projects where the program says.
        let mut expected = golden.gradients.clone();
        if program.unit_decoder {
            ReferenceSae::new(&golden.weights, program.clone()).project(&mut expected);
        }
        for isa in Isa::available() {
            for density in [1.0, 0.0] {
                let what = format!("{:?}, {isa:?}, density {density}", golden.architecture);
                let mut trainee = Trainee::new(isa, &golden.weights, program.clone(), Golden::train(None));
                trainee.state.density = density;
                kill(&mut trainee, &golden.dead);
                let mut scratch = Scratch::default();
                let losses = trainee.gradients(&batch, &mut scratch);
                let terms = [losses.total(), losses.mse, losses.penalty, losses.auxiliary];
                let golden_terms = [golden.loss, golden.mse, golden.penalty, golden.auxiliary];
                assert_near(&terms, &golden_terms, 2e-6 * golden.loss, &what);
                let fired = golden.latents.iter().filter(|&&z| z > 0.0).count();
                assert_eq!(losses.l0, fired as f64 / 16.0, "{what}");
                let norm = trainee.finish(&mut scratch);
                let found = gradients_of(&scratch, &program, d);
                for (found, expected) in found.iter().zip(&expected) {
                    assert_near(found, expected, 1e-5 * largest(&golden.gradients), &what);
                }
                let square: f64 = expected.iter().flatten().map(|g| g * g).sum();
                assert!((norm / square.sqrt() - 1.0).abs() < 1e-5, "{what}: norm {norm}");
            }
        }
    }
}

/// Weights are at most 3 in size and rounded ten times: 10 * 6e-8 * 3 = 2e-6, and the steps add their own: 5e-6.
#[test]
fn ten_steps_are_those_of_the_golden_objectives() {
    for golden in Golden::all() {
        let (program, batch) = (golden.architecture.program(), packed(&golden.x, golden.weights.d_hidden));
        for clip in [None, Some(1.0)] {
            let mut trainee = Trainee::new(Isa::best(), &golden.weights, program.clone(), Golden::train(clip));
            let mut scratch = Scratch::default();
            for step in 0..10 {
                kill(&mut trainee, &golden.dead);
                trainee.gradients(&batch, &mut scratch);
                let norm = trainee.finish(&mut scratch);
                assert!(trainee.update(step, norm, &mut scratch));
            }
            let weights = trainee.weights();
            let found = [weights.w_enc, weights.b_enc, weights.w_dec, weights.b_dec];
            let found: Vec<Vec<f32>> = found.into_iter().chain(weights.per_latent).collect();
            assert_eq!(found.len(), golden.gradients.len());
            let threshold = golden.thresholds[clip.is_some() as usize].unwrap_or(0.0);
            assert!((trainee.state.threshold - threshold).abs() < 1e-6, "{} {threshold}", trainee.state.threshold);
            for (found, expected) in found.iter().zip(golden.after_ten(clip)) {
                let found: Vec<f64> = found.iter().map(|&w| w as f64).collect();
                assert_near(&found, &expected, 5e-6, &format!("{:?}, clip {clip:?}", golden.architecture));
            }
        }
    }
}

fn random_case(m: usize, d: usize, n: usize, program: &Program) -> (Weights, Vec<f32>) {
    let mut draws = Draws::new(77, Stream::SaeInit, (m * 1000 + d * 100 + n) as u64);
    let mut normals = |len: usize, size: f64| (0..len).map(|_| (size * draws.normal()) as f32).collect::<Vec<f32>>();
    let mut weights = Weights {
        n_latents: m,
        d_hidden: d,
        w_enc: normals(m * d, 1.0),
        b_enc: normals(m, 0.3),
        w_dec: normals(m * d, 1.0),
        b_dec: normals(d, 0.3),
        per_latent: vec![],
    };
    let pursuit = matches!(program.rule, Rule::Pursuit(_));
    if program.unit_decoder || pursuit {
        for row in weights.w_dec.chunks_exact_mut(d) {
            let norm = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            row.iter_mut().for_each(|w| *w /= norm);
        }
    }
    let h = normals(n * d, 1.0);
    weights.per_latent = (0..program.per_latent()).map(|_| normals(m, 0.2)).collect();
    if let Rule::Jump { .. } = program.rule {
        weights.per_latent[0].iter_mut().for_each(|threshold| *threshold = threshold.abs());
    }
    if program.tied {
        weights.w_enc.clone_from(&weights.w_dec);
    }
    if pursuit {
        weights.b_enc.fill(0.0);
    }
    (weights, h)
}

/// Every rule with every way that options change its step, for m latents.
fn programs(m: usize) -> Vec<Program> {
    let relu = |decoder| Architecture::Relu { l1: 0.2, decoder };
    let topk = |k: usize, aux_k| Architecture::TopK { k, aux_k };
    let batch = |k: f64, aux_k| Architecture::BatchTopK { k, aux_k, inference: BatchInference::Batch };
    let jump = |sparsity, input_gradient, silent| {
        let (bandwidth, threshold) = (Size::Absolute(0.4), Size::Absolute(0.1));
        Architecture::JumpRelu(JumpRelu {
            l0: 0.1,
            sparsity,
            bandwidth,
            threshold,
            init_norm: 0.1,
            input_gradient,
            silent,
        })
    };
    let pursuit = |k, residual_threshold, stop_on_duplicate, unit_decoder| {
        let pursuit = Pursuit { k, residual_threshold, stop_on_duplicate };
        Architecture::MatchingPursuit { pursuit, unit_decoder }
    };
    let nested = |nested, prefixes: Prefixes, detach_inner: bool, aux_by_level| {
        let levels = Nested { prefixes, inner: 0.5, average: !detach_inner, detach_inner, sort: Sort::Frequency };
        Architecture::Matryoshka { nested: Box::new(nested), levels, aux_by_level }
    };
    let fixed = || {
        let mut prefixes = vec![(m / 3).max(1), m - m / 4, m];
        prefixes.dedup();
        Prefixes::Fixed(prefixes)
    };
    let plain = [
        relu(DecoderRule::UnitNorm),
        relu(DecoderRule::NormPenalty),
        topk(1, 0),
        topk(m, 2),
        batch((m as f64 / 3.0).max(0.7), 3),
        Architecture::Gated { l1: 0.2, parity: false },
        Architecture::Gated { l1: 0.2, parity: true },
        jump(Sparsity::Step, false, 0.0),
        jump(Sparsity::Tanh { scale: 1.5 }, false, 0.3),
        jump(Sparsity::Quadratic { target: 1.5 }, true, 0.0),
        pursuit(1, 0.0, false, true),
        pursuit(4, 0.5, false, false),
        nested(topk(m.min(4), 0), fixed(), false, false),
        nested(batch((m as f64 / 4.0).max(0.7), 2), fixed(), false, true),
        nested(relu(DecoderRule::NormPenalty), fixed(), true, false),
        nested(batch(0.9, 0), Prefixes::Sampled { count: 4.min(m), power: 0.5 }, false, false),
    ];
    let mut found: Vec<Program> = plain.iter().map(Architecture::program).collect();
    found.extend((m > 3).then(|| topk(3, 7).program()));
    found.extend((m > 9).then(|| topk(9, 5).program()));
    let aux = |program: Program| Program { aux_k: 3, ..program };
    found.push(aux(relu(DecoderRule::UnitNorm).program()));
    found.push(aux(Architecture::Gated { l1: 0.2, parity: false }.program()));
    found.push(aux(jump(Sparsity::Step, false, 0.0).program()));
    found.push(Program { tied: true, ..relu(DecoderRule::NormPenalty).program() });
    found.push(Program { tied: true, ..topk(m.min(2), 2).program() });
    found.push(Program { frozen_decoder: true, ..topk(m.min(2), 2).program() });
    found
}

/// An entry is a chain of some n + m + d fused sums, each rounding 6e-8 of the sum of magnitudes so far, and z, G and dz
/// that go into it are such chains themselves: with 200 roundings in the worst direction 1.2e-5 of the sum of
/// magnitudes, itself some times the largest entry. Roundings partly cancel: held to 1e-5 of the largest entry (found:
/// 1.1e-6). A selection that f32 decides otherwise would be off by far more; the fixed seeds have none.
#[test]
fn the_step_agrees_with_plain_loops_at_awkward_sizes() {
    for m in [1, 15, 16, 17, 40] {
        for d in [1, 15, 16, 17, 40, 70] {
            for n in [1, 15, 16, 17, 64, 65] {
                for program in programs(m) {
                    let (weights, h) = random_case(m, d, n, &program);
                    let dead: Vec<bool> = (0..m).map(|j| j % 3 == 1).collect();
                    let wide: Vec<f64> = h.iter().map(|&h| h as f64).collect();
                    let reference = ReferenceSae::new(&weights, program.clone());
                    let mut expected = reference.objective(&wide, &dead, None);
                    if program.unit_decoder {
                        reference.project(&mut expected.gradients);
                    }
                    for density in [1.0, 0.0] {
                        let what = format!("{program:?}, m {m}, d {d}, n {n}, density {density}");
                        let mut trainee = Trainee::new(Isa::best(), &weights, program.clone(), Golden::train(None));
                        trainee.state.density = density;
                        kill(&mut trainee, &dead);
                        let mut scratch = Scratch::default();
                        let losses = trainee.gradients(&packed(&h, d), &mut scratch);
                        let found = [losses.total(), losses.mse, losses.penalty, losses.auxiliary];
                        let loss = expected.loss();
                        let terms = [loss, expected.mse, expected.penalty, expected.auxiliary];
                        assert_near(&found, &terms, 1e-5 * loss, &what);
                        assert_eq!(losses.l0, expected.l0(n), "{what}");
                        trainee.finish(&mut scratch);
                        let tolerance = 1e-5 * largest(&expected.gradients).max(1e-3);
                        for (found, expected) in gradients_of(&scratch, &program, d).iter().zip(&expected.gradients) {
                            assert_near(found, expected, tolerance, &what);
                        }
                    }
                }
            }
        }
    }
}

/// Ten steps of everything: the weights' bits on each instruction set.
#[test]
fn instruction_sets_give_the_same_bits() {
    for (m, d, n) in [(40, 20, 100), (17, 5, 65), (70, 70, 64)] {
        for program in programs(m) {
            let (weights, h) = random_case(m, d, n, &program);
            let trained = |isa: Isa| {
                let mut train = Golden::train(Some(1.0));
                (train.dead_after, train.lr) = (2, 1e-2);
                let mut trainee = Trainee::new(isa, &weights, program.clone(), train);
                let (batch, mut scratch) = (packed(&h, d), Scratch::default());
                let mut losses = vec![];
                for step in 0..10 {
                    losses.push(trainee.gradients(&batch, &mut scratch));
                    let norm = trainee.finish(&mut scratch);
                    assert!(trainee.update(step, norm, &mut scratch));
                }
                (trainee.weights(), losses)
            };
            let found: Vec<_> = Isa::available().into_iter().map(trained).collect();
            assert!(found.iter().all(|other| *other == found[0]), "{program:?}, m {m}, d {d}, n {n}");
            assert_ne!(found[0].0, weights);
        }
    }
}

/// The two ways of a ReLU step round differently and must not differ more than that: as at awkward sizes.
#[test]
fn the_dense_and_the_sparse_way_agree() {
    let program = Architecture::Relu { l1: 0.1, decoder: DecoderRule::NormPenalty }.program();
    let (weights, h) = random_case(40, 20, 130, &program);
    let [dense, sparse] = [1.0, 0.0].map(|density| {
        let mut trainee = Trainee::new(Isa::best(), &weights, program.clone(), Golden::train(None));
        trainee.state.density = density;
        let mut scratch = Scratch::default();
        let losses = trainee.gradients(&packed(&h, 20), &mut scratch);
        trainee.finish(&mut scratch);
        (losses.total(), gradients_of(&scratch, &program, 20))
    });
    assert!((dense.0 - sparse.0).abs() < 1e-5 * dense.0);
    for (dense, other) in dense.1.iter().zip(&sparse.1) {
        assert_near(dense, other, 1e-5 * largest(&sparse.1), "gradients");
    }
}

/// Only the dense way fills `scratch.dense.dz`.
#[test]
fn the_way_of_a_step_follows_from_what_fired_in_the_step_before() {
    let program = Architecture::Relu { l1: 0.1, decoder: DecoderRule::NormPenalty }.program();
    let (mut weights, h) = random_case(40, 20, 64, &program);
    for (bias, dense) in [(0.0, true), (-9.0, false)] {
        weights.b_enc.fill(bias);
        let mut trainee = Trainee::new(Isa::best(), &weights, program.clone(), Golden::train(None));
        let losses = trainee.gradients(&packed(&h, 20), &mut Scratch::default());
        assert_eq!(trainee.state.density, losses.l0 / 40.0);
        assert_eq!(trainee.state.density > dense_above(20), dense, "the case is what it should be");
        let mut scratch = Scratch::default();
        trainee.gradients(&packed(&h, 20), &mut scratch);
        assert_eq!(!scratch.dense.dz.is_empty(), dense);
    }
}

#[test]
fn a_weight_that_is_not_finite_is_found_and_named() {
    let gated = Architecture::Gated { l1: 0.1, parity: false }.program();
    let (weights, _) = random_case(5, 3, 1, &gated);
    for (i, name) in gated.parameter_names().iter().enumerate() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut broken = weights.clone();
            let [r_mag, b_mag] = &mut broken.per_latent[..] else { panic!("two numbers a latent") };
            let tensors = [&mut broken.w_enc, &mut broken.b_enc, &mut broken.w_dec, &mut broken.b_dec, r_mag, b_mag];
            tensors.into_iter().nth(i).expect("as many as names")[1] = bad;
            let mut trainee = Trainee::new(Isa::best(), &broken, gated.clone(), Golden::train(None));
            assert!(!trainee.refresh(false), "{name} {bad}");
            assert_eq!(trainee.broken_tensor(), *name);
        }
    }
}

/// A decoder that is given stays bit for bit through every optimiser, and tied encoders stay the decoder.
#[test]
fn frozen_decoders_stay_and_tied_encoders_follow() {
    for program in programs(17).into_iter().filter(|program| program.frozen_decoder || program.tied) {
        let (weights, h) = random_case(17, 5, 65, &program);
        let mut train = Golden::train(Some(1.0));
        train.weight_decay = 0.1;
        let mut trainee = Trainee::new(Isa::best(), &weights, program.clone(), train);
        let (batch, mut scratch) = (packed(&h, 5), Scratch::default());
        for step in 0..5 {
            trainee.gradients(&batch, &mut scratch);
            let norm = trainee.finish(&mut scratch);
            assert!(trainee.update(step, norm, &mut scratch));
        }
        let after = trainee.weights();
        assert_ne!(after.w_enc, weights.w_enc);
        match program.frozen_decoder {
            true => assert!(after.w_dec == weights.w_dec && after.b_dec == weights.b_dec),
            false => assert!(after.w_enc == after.w_dec && after.b_dec != weights.b_dec),
        }
    }
}

/// Latents 3 and 7 are silent; afterwards their rows are an input's direction at the norms of the rule, their bias and
/// moments 0, and no other latent has moved.
#[test]
fn resampled_latents_point_at_inputs_and_the_others_stay() {
    let base = Architecture::Relu { l1: 0.01, decoder: DecoderRule::UnitNorm }.program();
    let resample = Some(Resample { at: vec![2], window: 2, inputs: 50 });
    let program = Program { resample, ..base };
    let (mut weights, h) = random_case(9, 5, 65, &program);
    weights.b_enc[3] = -50.0;
    weights.b_enc[7] = -50.0;
    let mut trainee = Trainee::new(Isa::best(), &weights, program, Golden::train(None)).with_seed(5);
    let (batch, mut scratch) = (packed(&h, 5), Scratch::default());
    for step in 0..2 {
        assert!(trainee.to_resample().is_empty());
        trainee.gradients(&batch, &mut scratch);
        let norm = trainee.finish(&mut scratch);
        assert!(trainee.update(step, norm, &mut scratch));
    }
    assert_eq!(trainee.to_resample(), [3, 7]);
    let before = trainee.weights();
    let mut candidates = super::super::resample::Candidates::default();
    trainee.weigh(&batch, &mut scratch, &mut candidates);
    trainee.resample(&[3, 7], &candidates);
    let after = trainee.weights();
    let norm = |row: &[f32]| row.iter().map(|&x| (x as f64).powi(2)).sum::<f64>().sqrt();
    let living = (0..9).filter(|j| ![3, 7].contains(j)).map(|j| norm(&before.w_enc[j * 5..][..5])).sum::<f64>() / 7.0;
    for j in 0..9 {
        let (dec, enc) = (&after.w_dec[j * 5..][..5], &after.w_enc[j * 5..][..5]);
        if ![3, 7].contains(&j) {
            assert_eq!((dec, enc), (&before.w_dec[j * 5..][..5], &before.w_enc[j * 5..][..5]));
            continue;
        }
        assert!((norm(dec) - 1.0).abs() < 1e-6 && (norm(enc) / (0.2 * living) - 1.0).abs() < 1e-6);
        let along = |h: &[f32]| h.iter().zip(dec).map(|(h, w)| (h * w) as f64).sum::<f64>() / norm(h);
        assert!(h.chunks_exact(5).any(|h| along(h) > 1.0 - 1e-6), "latent {j} points at no input");
        assert_eq!((after.b_enc[j], trainee.state.since_fired[j]), (0.0, 0));
    }
}
