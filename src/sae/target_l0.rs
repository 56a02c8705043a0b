//! A wanted L0 instead of a coefficient: the penalty's coefficient is led to it during training.
//!
//! ```text
//! s    ← .99 s + .01 L0                        from the first step's L0
//! rate ← .95 rate + .05 Δs                     from 0
//! e    = s + ahead · rate - target,  gain = approach where e · rate < 0 (already on the way there), else 1
//! step = rate_setting · gain · tanh(10 |e| / target)
//! multiplier ← multiplier (1 + step) where e > 0, (1 - step) where e < 0;  kept in [.01, 100]
//! ```
//!
//! This is the coefficient autotuner of SynthSAEBench's protocol (there rate_setting is 3e-4 and
//! approach .01, for 200,000 steps: on the way there the multiplier almost rests, so L0 moves hardly faster than the noise of
//! a batch's L0 hides; short trainings need more of both). There `ahead` is 0. In a short training the thresholds of JumpReLU
//! latents still move at the optimiser's pace when the target is passed and do not come back in time; so there the error is
//! that of `ahead` steps later, if L0 went on as it does. L0 is that of the batch, before the step moves the weights; the coefficient of the next step is the start coefficient times the multiplier. While the
//! coefficient still warms up, s and rate follow and the multiplier rests.

use crate::backend::checkpoint::record;

/// A wanted L0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Mean active latents of a sample.
    pub l0: f64,
    /// Greatest relative change of the multiplier in a step.
    pub rate: f64,
    /// Share of it where L0 already moves towards the target.
    pub approach: f64,
    /// Steps that L0 is carried on at its present rate before it is compared with the target.
    pub ahead: f64,
    /// Share of the target within which the smoothed L0 of the last step counts as reached.
    pub tolerance: f64,
}

/// Bounds of the multiplier.
pub const BOUNDS: [f64; 2] = [0.01, 100.0];

/// Where a controller stands: part of what survives a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controller {
    /// Factor of the coefficient.
    pub multiplier: f64,
    /// s; none before the first step.
    pub smoothed: Option<f64>,
    /// Smoothed change of s in a step.
    pub rate: f64,
}

record!(Controller { multiplier, smoothed, rate });

impl Default for Controller {
    fn default() -> Self {
        Controller { multiplier: 1.0, smoothed: None, rate: 0.0 }
    }
}

impl Controller {
    /// Takes in the L0 of a step; moves the multiplier where `tuning`.
    pub fn take(&mut self, target: &Target, l0: f64, tuning: bool) {
        let before = self.smoothed.unwrap_or(l0);
        let now = 0.99 * before + 0.01 * l0;
        self.smoothed = Some(now);
        self.rate = 0.95 * self.rate + 0.05 * (now - before);
        if !tuning {
            return;
        }
        let error = now + target.ahead * self.rate - target.l0;
        let gain = if error * self.rate < 0.0 { target.approach } else { 1.0 };
        let step = target.rate * gain * libm::tanh(10.0 * error.abs() / target.l0);
        let factor = if error > 0.0 { 1.0 + step } else { 1.0 - step };
        self.multiplier = (self.multiplier * factor).clamp(BOUNDS[0], BOUNDS[1]);
    }

    /// Why the target counts as missed; none where it was reached.
    pub fn missed(&self, target: &Target) -> Option<String> {
        let Target { l0, tolerance, .. } = *target;
        let reached = self.smoothed?;
        if (reached - l0).abs() <= tolerance * l0 {
            return None;
        }
        let bound = match self.multiplier {
            m if m <= BOUNDS[0] => ", its least",
            m if m >= BOUNDS[1] => ", its greatest",
            _ => "",
        };
        Some(format!(
            "target_l0 {l0} not reached: L0 {reached:.4} at the end of training is off by more than {:.0} %; the coefficient's multiplier is {:.4}{bound}",
            100.0 * tolerance,
            self.multiplier
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    const TARGET: Target = Target { l0: 5.0, rate: 3e-4, approach: 0.01, ahead: 0.0, tolerance: 0.1 };

    /// Worked by hand: s = 10 at once, Δs = 0, e = 5, tanh(10) = 1 - 4.1e-9.
    #[test]
    fn the_first_step_moves_by_the_full_rate() {
        let mut controller = Controller::default();
        controller.take(&TARGET, 10.0, true);
        assert_eq!(controller.smoothed, Some(10.0));
        assert!((controller.multiplier - (1.0 + 3e-4)).abs() < 1e-11);
        // s = 9.9 + .05 = 9.95, rate = -.0025: on the way back, a hundredth of the rate.
        controller.take(&TARGET, 5.0, true);
        assert!(controller.smoothed.is_some_and(|s| (s - 9.95).abs() < 1e-12));
        assert!((controller.multiplier / (1.0 + 3e-4) - (1.0 + 3e-6)).abs() < 1e-11);
    }

    #[test]
    fn too_few_active_latents_lower_the_multiplier_and_it_stays_within_bounds() {
        let mut controller = Controller::default();
        for _ in 0..100_000 {
            controller.take(&TARGET, 1.0, true);
        }
        assert_eq!(controller.multiplier, 0.01);
        assert!(controller.missed(&TARGET).is_some_and(|why| why.contains("its least")));
        let mut resting = Controller::default();
        resting.take(&TARGET, 1.0, false);
        assert_eq!((resting.multiplier, resting.smoothed), (1.0, Some(1.0)));
    }

    /// L0 follows 30 / multiplier with a lag of 200 steps, its batches are off by .12. With the protocol's settings in 60,000
    /// steps, with those of short trainings, which look ahead, in 5000.
    #[test]
    fn a_plant_that_answers_is_led_to_the_target() {
        for (steps, rate, approach, ahead) in
            [(60_000, 3e-4, 0.01, 0.0), (5000, 3e-3, 0.2, 0.0), (5000, 3e-3, 0.2, 500.0)]
        {
            let target = Target { l0: 15.0, rate, approach, ahead, tolerance: 0.1 };
            let (mut controller, mut l0) = (Controller::default(), 60.0);
            let mut draws = Draws::new(1, Stream::SaeInit, 0);
            for _ in 0..steps {
                l0 += (30.0 / controller.multiplier - l0) / 200.0;
                controller.take(&target, l0 + 0.12 * draws.normal(), true);
            }
            assert!((l0 - 15.0).abs() < 1.0, "{l0}");
            assert_eq!(controller.missed(&target), None);
        }
    }
}
