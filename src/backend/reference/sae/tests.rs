use super::*;
use crate::random::{Draws, Stream};
use crate::sae::golden::{Golden, assert_near};
use crate::sae::{
    Architecture, BatchInference, DecoderRule, JumpRelu, Levels, Prefixes, Size, Sort, Sparsity, matching_pursuit,
};

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| x as f64).collect()
}

/// f64 sums of at most 31 terms of size up to 40: 31 * 1.1e-16 relative, far below 1e-12.
#[test]
fn loss_terms_and_gradients_are_those_of_the_golden_objectives() {
    for golden in Golden::all() {
        let sae = ReferenceSae::new(&golden.weights, golden.architecture.program());
        let found = sae.objective(&wide(&golden.x), &golden.dead, None);
        let what = format!("{:?}", golden.architecture);
        let terms = [found.loss(), found.mse, found.penalty, found.auxiliary];
        let expected = [golden.loss, golden.mse, golden.penalty, golden.auxiliary];
        assert_near(
            &found.least_kept.into_iter().collect::<Vec<_>>(),
            &golden.least_kept.into_iter().collect::<Vec<_>>(),
            1e-11,
            &what,
        );
        assert_near(&terms, &expected, 1e-12 * golden.loss, &what);
        assert_near(&found.latents, &golden.latents, 1e-12 * 10.0, &what);
        assert_near(&found.reconstruction, &golden.x_hat, 1e-12 * 10.0, &what);
        let largest = golden.gradients.iter().flatten().fold(0.0, |a: f64, g| a.max(g.abs()));
        for (found, expected) in found.gradients.iter().zip(&golden.gradients) {
            assert_near(found, expected, 1e-12 * largest, &what);
        }
    }
}

#[test]
fn ten_steps_are_those_of_the_golden_objectives() {
    for golden in Golden::all() {
        for (clip, expected_threshold) in [None, Some(1.0)].into_iter().zip(golden.thresholds) {
            let mut sae = ReferenceSae::new(&golden.weights, golden.architecture.program());
            let mut moments = sae.moments();
            let mut threshold = 0.0;
            for step in 0..10 {
                let objective = sae.objective(&wide(&golden.x), &golden.dead, None);
                threshold = batch_topk::moved_threshold(threshold, objective.least_kept);
                sae.update(&Golden::train(clip), step, objective.gradients, &mut moments);
            }
            for (found, expected) in sae.parameters.iter().zip(golden.after_ten(clip)) {
                assert_near(found, &expected, 1e-11, &format!("{:?}, clip {clip:?}", golden.architecture));
            }
            assert_near(&[threshold], &[expected_threshold.unwrap_or(0.0)], 1e-11, "threshold");
        }
    }
}

fn levels(prefixes: Vec<usize>, average: bool) -> Levels {
    Levels { prefixes: Prefixes::Fixed(prefixes), inner: 0.5, average, detach_inner: false, sort: Sort::None }
}

/// Kinds without golden values, and such as share a rule with one that has them.
fn programs() -> Vec<Program> {
    let relu = |decoder| Architecture::Relu { l1: 0.3, decoder };
    let topk = |k, aux_k| Architecture::TopK { k, aux_k };
    let matryoshka = |nested, levels, aux_by_level| {
        Architecture::Matryoshka { nested: Box::new(nested), levels, aux_by_level }.program()
    };
    let pursuit = |k, residual_threshold, stop_on_duplicate, unit| {
        matching_pursuit::program(Pursuit { k, residual_threshold, stop_on_duplicate }, unit)
    };
    let batch = |k, aux_k| Architecture::BatchTopK { k, aux_k, inference: BatchInference::Batch };
    let tied = |program| Program { tied: true, ..program };
    vec![
        relu(DecoderRule::UnitNorm).program(),
        relu(DecoderRule::NormPenalty).program(),
        topk(1, 0).program(),
        topk(3, 2).program(),
        topk(2, 8).program(),
        topk(7, 3).program(),
        batch(1.7, 3).program(),
        matryoshka(topk(3, 2), levels(vec![1, 3, 7], true), false),
        matryoshka(batch(2.4, 2), levels(vec![2, 7], false), true),
        matryoshka(relu(DecoderRule::UnitNorm), levels(vec![4, 7], false), false),
        tied(topk(3, 2).program()),
        tied(relu(DecoderRule::NormPenalty).program()),
        pursuit(1, 0.0, false, false),
        pursuit(4, 0.0, false, false),
        pursuit(6, 0.9, false, false),
        pursuit(6, 0.0, true, true),
    ]
}

/// Step 1e-6: the third derivative leaves 1e-12 of its size, rounding of a loss of some 10 to 1000 leaves 1e-9 to 1e-7.
/// Where a ReLU or a selection switches within the step the difference is of the size of a term; seeds are fixed,
/// and none does.
#[test]
fn gradients_are_central_differences_with_what_is_held_constant_held() {
    for (i, program) in programs().into_iter().enumerate() {
        let (m, d, n) = (7, 4, 5);
        let mut draws = Draws::new(31, Stream::SaeInit, i as u64);
        let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let (w_enc, b_enc, mut w_dec) = (normals(m * d), normals(m), normals(m * d));
        if let Rule::Pursuit(_) = program.rule {
            w_dec.iter_mut().for_each(|w| *w *= 0.45);
        }
        let b_enc = if program.has_encoder_bias() { b_enc } else { vec![0.0; m] };
        let w_enc = if program.tied { w_dec.clone() } else { w_enc };
        let weights = Weights { n_latents: m, d_hidden: d, w_enc, b_enc, w_dec, b_dec: normals(d), per_latent: vec![] };
        let h = wide(&normals(n * d));
        let what = format!("{program:?}");
        let sae = ReferenceSae::new(&weights, program);
        let dead: Vec<bool> = (0..m).map(|j| j % 2 == 1).collect();
        let base = sae.objective(&h, &dead, None);
        for tensor in 0..4 {
            if (tensor == 0 && sae.program.tied) || (tensor == 1 && !sae.program.has_encoder_bias()) {
                assert!(base.gradients[tensor].iter().all(|&g| g == 0.0), "{what}");
                continue;
            }
            for at in 0..sae.parameters[tensor].len() {
                let moved = |by: f64| {
                    let mut moved = sae.clone();
                    moved.parameters[tensor][at] += by;
                    if moved.program.tied {
                        moved.parameters[0] = moved.parameters[2].clone();
                    }
                    moved.objective(&h, &dead, Some(&base.residuals)).loss()
                };
                let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
                let found = base.gradients[tensor][at];
                let tolerance = 1e-7 * (1.0 + found.abs());
                assert!((slope - found).abs() < tolerance, "{what}, {tensor}, {at}: {slope} {found}");
            }
        }
    }
}

/// The parts of JumpReLU that golden values lack. With θ = 0 jumps are kinks and its tanh and dead-latent losses are
/// functions with derivatives by all but θ; by θ, and by the count, the estimators are written out here again.
#[test]
fn jumprelu_modes_follow_their_definitions() {
    let (m, d, n) = (5, 3, 4);
    let mut draws = Draws::new(32, Stream::SaeInit, 0);
    let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
    let (w_enc, b_enc, w_dec, b_dec) = (normals(m * d), normals(m), normals(m * d), normals(d));
    let h = wide(&normals(n * d));
    let dead: Vec<bool> = (0..m).map(|j| j % 2 == 1).collect();
    let of = |sparsity, threshold: f32, bandwidth, input_gradient, silent| {
        let settings = JumpRelu {
            l0: 0.3,
            sparsity,
            bandwidth: Size::Absolute(bandwidth),
            threshold: Size::Absolute(0.0),
            init_norm: 0.1,
            input_gradient,
            silent,
        };
        let per_latent = vec![vec![threshold; m]];
        let (w_enc, b_enc, w_dec, b_dec) = (w_enc.clone(), b_enc.clone(), w_dec.clone(), b_dec.clone());
        let weights = Weights { n_latents: m, d_hidden: d, w_enc, b_enc, w_dec, b_dec, per_latent };
        ReferenceSae::new(&weights, Architecture::JumpRelu(settings).program())
    };
    let smooth = of(Sparsity::Tanh { scale: 2.0 }, 0.0, 1e-9, false, 0.4);
    let base = smooth.objective(&h, &dead, None);
    for tensor in 0..4 {
        for at in 0..smooth.parameters[tensor].len() {
            let moved = |by: f64| {
                let mut moved = smooth.clone();
                moved.parameters[tensor][at] += by;
                moved.objective(&h, &dead, None).loss()
            };
            let slope = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((slope - base.gradients[tensor][at]).abs() < 1e-7, "{tensor} {at}");
        }
    }
    // The count in units of itself: step mode with coefficient c, quadratic with c 4/T (L0 - T) sample by sample.
    let target = 1.5;
    let wide_window = of(Sparsity::Quadratic { target }, 0.2, 50.0, false, 0.0);
    let found = wide_window.objective(&h, &dead, None);
    let plain = of(Sparsity::Step, 0.2, 50.0, false, 0.0).objective(&h, &dead, None);
    let l0s: Vec<f64> = found.latents.chunks_exact(m).map(|z| z.iter().filter(|z| **z > 0.0).count() as f64).collect();
    let penalty: f64 = l0s.iter().map(|l0| 0.3 * 2.0 / target * (l0 - target) * (l0 - target) / n as f64).sum();
    assert!((found.penalty - penalty).abs() < 1e-12);
    for j in 0..m {
        // Every pre lies in the window, so the two differ by the counts' slopes over the bandwidth.
        let slopes: f64 = l0s.iter().map(|l0| 0.3 * (4.0 / target * (l0 - target) - 1.0) / n as f64).sum();
        let difference = found.gradients[4][j] - plain.gradients[4][j];
        assert!((difference + slopes / 50.0).abs() < 1e-12, "{j}");
    }
    // With the estimate reaching pre, the encoder bias gets what the threshold loses.
    let both = of(Sparsity::Step, 0.2, 50.0, true, 0.0).objective(&h, &dead, None);
    for j in 0..m {
        assert!((both.gradients[1][j] - plain.gradients[1][j] + plain.gradients[4][j]).abs() < 1e-12, "{j}");
    }
}
