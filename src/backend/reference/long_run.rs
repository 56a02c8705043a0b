//! Four hundred steps of TopK beside SAELens, both in f64.
//!
//! In f32 two correct programs part where rounding decides between two nearly equal pre-activations (of SAELens's own
//! runs from starts moved by 1e-7 no two classes of end agree). In f64 they stay together, so the rule is compared there.

use super::sae::ReferenceSae;
use crate::sae::golden::Golden;
use crate::sae::{Architecture, Weights};
use crate::testing::{golden, npz};

/// Errors of 1e-16 grow with every step of Adam at a rate of 3e-3, whose first steps turn a gradient near 0 into a whole
/// step: measured 1e-12 after 400 steps of the losses. The bound leaves room for sums in another order; a single other
/// selection moves the loss of later steps by 1e-6 and more.
#[test]
fn four_hundred_steps_of_topk_are_those_of_saelens() {
    let arrays = npz(golden("topk_400_steps.npz"));
    let wide = |name: &str| arrays[name].iter().copied().collect::<Vec<f64>>();
    let decoder: Vec<f32> = wide("decoder").iter().map(|&w| w as f32).collect();
    let (n_latents, d_hidden) = (64, 20);
    let weights = Weights {
        n_latents,
        d_hidden,
        w_enc: decoder.clone(),
        b_enc: vec![0.0; n_latents],
        w_dec: decoder,
        b_dec: vec![0.0; d_hidden],
        per_latent: vec![],
    };
    let mut sae = ReferenceSae::new(&weights, Architecture::TopK { k: 2, aux_k: d_hidden / 2 }.program());
    let train = crate::sae::SaeTrain { lr: 3e-3, ..Golden::train(Some(1.0)) };
    let (hidden, losses, n_dead) = (wide("hidden"), wide("losses"), wide("dead"));
    let batches: Vec<&[f64]> = hidden.chunks_exact(256 * d_hidden).collect();
    let (mut moments, mut since) = (sae.moments(), vec![0; n_latents]);
    for (step, (&expected, &expected_dead)) in losses.iter().zip(&n_dead).enumerate() {
        let dead: Vec<bool> = since.iter().map(|&since| since > 50).collect();
        assert_eq!(dead.iter().filter(|&&dead| dead).count() as f64, expected_dead, "step {step}");
        let objective = sae.objective(batches[step % batches.len()], &dead, None);
        let loss = objective.loss();
        assert!((loss / expected - 1.0).abs() < 1e-8, "step {step}: {loss} for {expected}");
        for (j, since) in since.iter_mut().enumerate() {
            let fired = objective.latents.iter().skip(j).step_by(n_latents).any(|&z| z > 0.0);
            *since = if fired { 0 } else { *since + 1 };
        }
        sae.update(&train, step, objective.gradients, &mut moments);
    }
    for (parameters, name) in sae.parameters.iter().zip(["W_enc", "b_enc", "W_dec", "b_dec"]) {
        let worst =
            parameters.iter().zip(wide(&format!("last.{name}"))).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-7, "{name} is off by {worst:e}");
    }
}
