//! Dead latents that start anew (Bricken et al. 2023, "Towards Monosemanticity", appendix on training).
//!
//! At given steps, each latent that was silent over the window before gets a new direction: an input is drawn with
//! probability proportional to the square of its loss; the decoder row becomes that input at unit norm (where rows are free: at
//! the mean norm of the living rows); the encoder row the same direction at a fifth of the mean norm of the living encoder
//! rows; its encoder bias becomes 0, and so do the optimiser's moments of all three.

use crate::random::{Draws, Stream};

/// When and how latents are resampled.
#[derive(Clone, Debug, PartialEq)]
pub struct Resample {
    /// Before these steps, ascending.
    pub at: Vec<usize>,
    /// A latent is resampled if it has not fired for at least this many steps.
    pub window: usize,
    /// Inputs to draw from, rounded up to whole batches.
    pub inputs: usize,
}

/// Norm of a resampled encoder row over the mean of the living ones.
pub const ENCODER_SHARE: f64 = 0.2;

impl Resample {
    /// Latents to resample before `step`; empty if it is none of the steps for that.
    pub fn silent(&self, step: usize, since_fired: &[usize]) -> Vec<usize> {
        if !self.at.contains(&step) {
            return vec![];
        }
        let since = since_fired.iter().enumerate();
        since.filter(|(_, since)| **since >= self.window.max(1)).map(|(j, _)| j).collect()
    }

    /// Number of batches of `batch_size` that hold the inputs.
    pub fn batches(&self, batch_size: usize) -> usize {
        self.inputs.div_ceil(batch_size).max(1)
    }
}

/// For each of `count` latents an input, independently, with probability proportional to its squared loss; uniform where
/// all losses are 0.
pub fn draw_inputs(losses: &[f64], count: usize, seed: u64, step: usize) -> Vec<usize> {
    let mut draws = Draws::new(seed, Stream::SaeResample, step as u64);
    let mut total = 0.0;
    let mut sums: Vec<f64> = Vec::with_capacity(losses.len());
    for loss in losses {
        total += loss * loss;
        sums.push(total);
    }
    (0..count)
        .map(|_| {
            let u = draws.uniform();
            let found = if total > 0.0 && total.is_finite() {
                sums.partition_point(|&sum| sum <= u * total)
            } else {
                (u * losses.len() as f64) as usize
            };
            found.min(losses.len() - 1)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_are_resampled_at_the_given_steps_if_they_were_silent_long_enough() {
        let resample = Resample { at: vec![10, 20], window: 5, inputs: 100 };
        assert_eq!(resample.silent(10, &[4, 5, 0, 9]), [1, 3]);
        assert_eq!(resample.silent(11, &[4, 5, 0, 9]), [0usize; 0]);
        assert_eq!((resample.batches(64), resample.batches(100)), (2, 1));
    }

    /// Shares 1/5 and 4/5 of 20,000 draws: standard deviation 57; 6 of them, false alarm 2e-9.
    #[test]
    fn inputs_are_drawn_in_proportion_to_the_square_of_their_loss() {
        let drawn = draw_inputs(&[1.0, 0.0, 2.0], 20_000, 7, 3);
        let of = |i: usize| drawn.iter().filter(|&&d| d == i).count() as f64;
        assert_eq!(of(1), 0.0);
        assert!((of(0) - 4000.0).abs() < 340.0, "{}", of(0));
        assert!(draw_inputs(&[0.0; 4], 100, 7, 3).iter().all(|&i| i < 4));
    }
}
