//! Scores of a dictionary that need more than arrays of samples: the toy model, the sets of the world, the decoder's bias.

use ndarray::ArrayView2;

use super::activity::Activity;
use super::composed::{MMCS_COMPOSED, mmcs_composed};
use super::decoder::{DECODER_BIAS, DECODER_PROJECTION, decoder_bias, decoder_projection};
use super::hedging::hedging;
use super::intervention::{CAUSAL_FAITHFULNESS, STEERING_SPECIFICITY, interventions};
use super::mmcs::mmcs_larger;
use super::vector::Directions;
use super::{Definition, Scores, Truth, Value, Vector};
use crate::codes::Codes;
use crate::data::Group;
use crate::toy::ToyModel;

/// What [`of_cell`] is computed from. Shapes agree with each other; `x` and `z` have the same samples.
pub struct CellArrays<'a> {
    /// True directions.
    pub truth: &'a Truth,
    /// `[n_latents, d_hidden]`
    pub dictionary: ArrayView2<'a, f32>,
    /// True activations.
    pub x: &'a Activity<'a, f32>,
    /// Latents.
    pub z: &'a Codes<f32>,
    /// The matched latent of each feature, as [`evaluate`](super::evaluate) gives it.
    pub matching: &'a [Option<usize>],
    /// The toy model, where there is one.
    pub toy: Option<&'a ToyModel>,
    /// Sets of features.
    pub groups: &'a [Group],
    /// Some hidden states, and what is made of them when all latents are silent, `[samples, d_hidden]` each; needed for scores
    /// of the decoder's bias alone.
    pub silent: Option<(ArrayView2<'a, f32>, ArrayView2<'a, f32>)>,
}

/// Adds to `scores` those of `wanted` (base names) that are computed here; other names are left out, as are scores whose toy
/// model or sets are missing.
pub fn of_cell(arrays: &CellArrays<'_>, wanted: &[&str], scores: &mut Scores) {
    let wants = |definition: &Definition| wanted.contains(&definition.name);
    let of_toy = [&CAUSAL_FAITHFULNESS, &STEERING_SPECIFICITY];
    let others = [&MMCS_COMPOSED, &DECODER_PROJECTION, &DECODER_BIAS];
    if !of_toy.into_iter().chain(others).any(wants) {
        return;
    }
    let (truth, dictionary) = (&arrays.truth.directions, Directions::new(arrays.dictionary));
    if let (true, Some(model)) = (of_toy.into_iter().any(wants), arrays.toy) {
        let found = interventions(model, truth, &dictionary, arrays.x, arrays.z, arrays.matching);
        scores.scalars.push((&CAUSAL_FAITHFULNESS, found.causal_faithfulness));
        scores.scalars.push((&STEERING_SPECIFICITY, found.steering_specificity));
    }
    if wants(&MMCS_COMPOSED) && !arrays.groups.is_empty() {
        let found = mmcs_composed(truth, &dictionary, &arrays.truth.represented, arrays.groups);
        scores.scalars.push((&MMCS_COMPOSED, found));
    }
    let Some((h, silent)) = &arrays.silent else { return };
    if wants(&DECODER_PROJECTION) {
        let projections = decoder_projection(&dictionary, &Directions::new((h - silent).view()));
        scores.vectors.push((&DECODER_PROJECTION, Vector::Numbers(projections)));
    }
    if wants(&DECODER_BIAS) {
        scores.vectors.push((&DECODER_BIAS, Vector::Numbers(decoder_bias(truth, *silent))));
    }
}

/// The hedging rate of a narrow dictionary `[n_latents, d_hidden]` against a wider one grown from it, whose first latents are
/// the same: how far decoder rows move into the span of the new ones, beyond chance.
///
/// # Panics
/// If the widths of rows differ or the second dictionary is not wider.
pub fn hedging_rate(narrow: ArrayView2<'_, f32>, wide: ArrayView2<'_, f32>) -> Value {
    hedging(&Directions::new(narrow), &Directions::new(wide))
}

/// Mean over the rows of a dictionary `[n_latents, d_hidden]` of the best signed cosine with any row of a larger one: what
/// `mmcs_larger` is.
///
/// # Panics
/// If the widths of rows differ.
pub fn mmcs_with_larger(dictionary: ArrayView2<'_, f32>, larger: ArrayView2<'_, f32>) -> Value {
    mmcs_larger(&Directions::new(dictionary), &Directions::new(larger))
}
