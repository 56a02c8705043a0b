//! What an autoencoder in training is between two steps.

use crate::backend::checkpoint::record;
use crate::backend::ops::layout::{LANES, pack_rows, unpack_rows, vectors};
use crate::backend::ops::optimizer::Moments;
use crate::backend::simd::Lanes;
use crate::sae::{Controller, Weights};
use crate::training::Optimizer;

/// Everything that decides the bits of the steps to come, beside the job and its data: what a run that is to go on after
/// it was killed has to keep.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// Latents.
    pub n_latents: usize,
    /// Width of h.
    pub d: usize,
    /// `[n_latents][vectors]`, padding 0.
    pub w_enc: Vec<Lanes>,
    /// `[n_latents]`
    pub b_enc: Vec<f32>,
    /// `[n_latents][vectors]`, padding 0.
    pub w_dec: Vec<Lanes>,
    /// `[vectors]`, padding 0.
    pub b_dec: Vec<Lanes>,
    /// More numbers of each latent, as [`Weights`] has them.
    pub per_latent: Vec<Vec<f32>>,
    /// Of w_enc, b_enc, w_dec, b_dec, then of `per_latent`.
    pub moments: Vec<Moments>,
    /// Steps since each latent last fired.
    pub since_fired: Vec<usize>,
    /// Share of latents that fired in the last step: decides between the sparse and the dense way.
    pub density: f64,
    /// Running threshold of BatchTopK.
    pub threshold: f64,
    /// Where the penalty's coefficient stands, if it is led by a wanted L0.
    pub controller: Controller,
    /// Running means that the order of latents follows, `[n_latents]`, where it follows any.
    pub usage: Vec<f64>,
}

record!(State {
    step,
    n_latents,
    d,
    w_enc,
    b_enc,
    w_dec,
    b_dec,
    per_latent,
    moments,
    since_fired,
    density,
    threshold,
    controller,
    usage,
});

impl State {
    /// `weights` with zero moments, nothing dead.
    pub fn new(weights: &Weights, optimizer: Optimizer) -> State {
        let (m, d) = (weights.n_latents, weights.d_hidden);
        let packed = |numbers: &[f32]| {
            let mut rows = vec![];
            pack_rows(numbers, d, 1.0, &mut rows);
            rows
        };
        let row = vectors(d) * LANES;
        let moments = [m * row, m, m * row, row].into_iter().chain(weights.per_latent.iter().map(Vec::len));
        State {
            step: 0,
            n_latents: m,
            d,
            w_enc: packed(&weights.w_enc),
            b_enc: weights.b_enc.clone(),
            w_dec: packed(&weights.w_dec),
            b_dec: packed(&weights.b_dec),
            per_latent: weights.per_latent.clone(),
            moments: moments.map(|len| Moments::new(optimizer, len)).collect(),
            since_fired: vec![0; m],
            density: 1.0,
            threshold: 0.0,
            controller: Controller::default(),
            usage: vec![0.0; m],
        }
    }

    /// Whether another state is one of the same shape, so that it may take this one's place.
    pub fn fits(&self, other: &State) -> bool {
        let shape = |state: &State| {
            let lengths = [
                state.w_enc.len(),
                state.b_enc.len(),
                state.w_dec.len(),
                state.b_dec.len(),
                state.since_fired.len(),
                state.usage.len(),
            ];
            let more: Vec<usize> = state.per_latent.iter().map(Vec::len).collect();
            let moments: Vec<_> = state.moments.iter().map(Moments::lengths).collect();
            (state.n_latents, state.d, lengths, more, moments)
        };
        shape(self) == shape(other)
    }

    /// The weights.
    pub fn weights(&self) -> Weights {
        Weights {
            n_latents: self.n_latents,
            d_hidden: self.d,
            w_enc: unpack_rows(&self.w_enc, self.d),
            b_enc: self.b_enc.clone(),
            w_dec: unpack_rows(&self.w_dec, self.d),
            b_dec: unpack_rows(&self.b_dec, self.d),
            per_latent: self.per_latent.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::checkpoint::{LAYOUT, Record};
    use crate::sae::SaeTrace;
    use crate::sae::train::Guard;

    /// Whoever changes this raises `LAYOUT`: states on disk are read by it.
    #[test]
    fn states_are_laid_out_as_their_number_says() {
        let moments = "Moments(first [f32], second [f32])";
        let controller = "Controller(multiplier f64, smoothed f64?, rate f64)";
        let state = format!(
            "State(step usize, n_latents usize, d usize, w_enc [lanes], b_enc [f32], w_dec [lanes], b_dec [lanes], \
             per_latent [[f32]], moments [{moments}], since_fired [usize], density f64, threshold f64, \
             controller {controller}, usage [f64])"
        );
        let trace = "SaeTrace(step usize, loss f64, l0 f64, control Control(multiplier f64, l0_smoothed f64)?)";
        assert_eq!((LAYOUT, State::layout()), (1, state));
        assert_eq!((Guard::layout(), SaeTrace::layout()), ("Guard(first f64?, last f64)".into(), trace.into()));
    }
}
