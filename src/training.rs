//! What toy models and sparse autoencoders train with: optimisers and learning-rate schedules.

/// How a gradient moves a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// Kingma & Ba 2015; `weight_decay` of the training settings is added to the gradient.
    Adam { beta1: f64, beta2: f64, epsilon: f64 },
    /// Loshchilov & Hutter 2019; `weight_decay` shrinks the parameter by lr * weight_decay, apart from the gradient.
    AdamW { beta1: f64, beta2: f64, epsilon: f64 },
    /// Plain or with momentum (velocity = momentum * velocity + gradient); `weight_decay` is added to the gradient.
    Sgd { momentum: f64 },
}

impl Default for Optimizer {
    fn default() -> Self {
        Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// The learning rate's course as a factor of its peak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    Constant,
    /// From 1 at the first step to 1/steps at the last, so it would be 0 one step after the end.
    Linear,
    /// Half a cosine from 1 to (almost) 0.
    Cosine,
    /// Rises linearly over the first `warmup` share of the steps, then half a cosine from 1 to (almost) 0.
    WarmupCosine {
        warmup: f64,
    },
    /// Rises linearly over the first `warmup` share of the steps, is 1, falls linearly to 0 over the last `decay` share.
    WarmupStableDecay {
        warmup: f64,
        decay: f64,
    },
}

impl Schedule {
    /// Factor at `step` of `steps`, `step` from 0.
    pub fn factor(self, step: usize, steps: usize) -> f64 {
        let t = step as f64 / steps as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - t,
            Schedule::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * t)),
            Schedule::WarmupCosine { warmup } => {
                let rise = warmup * steps as f64;
                let t = ((step as f64 - rise) / (steps as f64 - rise)).max(0.0);
                ramp_up(step, steps, warmup) * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * t))
            }
            Schedule::WarmupStableDecay { warmup, decay } => {
                ramp_up(step, steps, warmup) * ramp_down(step, steps, decay)
            }
        }
    }
}

/// 1/w, 2/w, ... 1 over the first w = share * steps steps, then 1.
pub fn ramp_up(step: usize, steps: usize, share: f64) -> f64 {
    let width = share * steps as f64;
    if width <= 0.0 { 1.0 } else { ((step + 1) as f64 / width).min(1.0) }
}

/// 1 until the last w = share * steps steps, then falling linearly; it would be 0 one step after the end.
pub fn ramp_down(step: usize, steps: usize, share: f64) -> f64 {
    let width = share * steps as f64;
    if width <= 0.0 { 1.0 } else { ((steps - step) as f64 / width).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(schedule: Schedule, steps: usize) -> Vec<f64> {
        (0..steps).map(|step| schedule.factor(step, steps)).collect()
    }

    #[test]
    fn schedules_fall_to_zero_one_step_after_the_end() {
        assert_eq!(course(Schedule::Constant, 3), [1.0; 3]);
        assert_eq!(course(Schedule::Linear, 4), [1.0, 0.75, 0.5, 0.25]);
        let cosine = course(Schedule::Cosine, 4);
        assert_eq!(cosine[0], 1.0);
        assert!((cosine[2] - 0.5).abs() < 1e-15 && cosine[3] > 0.0 && cosine.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn warmup_cosine_rises_and_falls_from_the_end_of_the_rise() {
        let found = course(Schedule::WarmupCosine { warmup: 0.2 }, 10);
        assert_eq!(found[..3], [0.5, 1.0, 1.0]);
        assert!((found[6] - 0.5).abs() < 1e-15 && found[9] > 0.0);
        assert!(found[2..].is_sorted_by(|a, b| a > b));
        assert_eq!(course(Schedule::WarmupCosine { warmup: 0.0 }, 7), course(Schedule::Cosine, 7));
        assert_eq!(course(Schedule::WarmupCosine { warmup: 1.0 }, 4), [0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn warmup_stable_decay_rises_stays_and_falls() {
        let stable = Schedule::WarmupStableDecay { warmup: 0.2, decay: 0.4 };
        assert_eq!(course(stable, 10), [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
        let neither = Schedule::WarmupStableDecay { warmup: 0.0, decay: 0.0 };
        assert_eq!(course(neither, 5), [1.0; 5]);
    }
}
