//! Matryoshka autoencoders: the first latents alone reconstruct too (Bussmann et al. 2025, "Learning multi-level features with
//! Matryoshka sparse autoencoders"; Nabeshima 2024, "Matryoshka sparse autoencoders").
//!
//! ```text
//! ĥ_m = b_dec + Σ_{j < m} z_j w_dec_j                       reconstruction of the prefix m
//! loss = mean |h - ĥ|² + inner Σ_{m < n_latents} mean |h - ĥ_m|² (+ the nested rule's penalty, once)
//! ```
//!
//! One activation (ReLU, TopK or BatchTopK) serves all prefixes. `detach_inner` holds each level's inner one constant, so
//! latents learn from the level they first belong to. With `average` the sum is divided by the number of levels.
//!
//! Prefixes may be drawn anew for each step, and which latents come first may follow what they have been doing: by how often
//! they fire, or by how much they contribute, in running means. Then "the first m latents" are the first m of that order, and
//! the trained autoencoder's latents are put into it.

use crate::random::{Draws, Stream};

/// What is left of a running mean after a step.
pub const USAGE_DECAY: f64 = 0.99;

/// Nested reconstructions.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    /// Which prefixes.
    pub prefixes: Prefixes,
    /// Weight of every level but the whole, whose weight is 1.
    pub inner: f64,
    /// Divide all weights by the number of levels.
    pub average: bool,
    /// Each level holds the one inside it constant.
    pub detach_inner: bool,
    /// Which latents come first.
    pub sort: Sort,
}

/// Lengths of the prefixes.
#[derive(Clone, Debug, PartialEq)]
pub enum Prefixes {
    /// Ascending, the last n_latents.
    Fixed(Vec<usize>),
    /// Drawn for each step without repetition, P(m) ∝ m^-power - (m + 1)^-power, the last always n_latents.
    Sampled {
        /// How many, the whole counted.
        count: usize,
        /// Greater favours shorter ones.
        power: f64,
    },
}

/// Order of the latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// As they are numbered.
    None,
    /// Falling share of samples on which they fire.
    Frequency,
    /// Falling mean of (z |decoder|)².
    Contribution,
}

/// The levels of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepLevels {
    /// Weight of each level's squared error in the loss, innermost first.
    pub weights: Vec<f64>,
    /// Level that each latent first belongs to; empty: there is one level.
    pub of: Vec<u32>,
}

impl StepLevels {
    /// The whole alone.
    pub fn whole() -> StepLevels {
        StepLevels { weights: vec![1.0], of: vec![] }
    }
}

impl Levels {
    /// Lengths of the prefixes of `step`, ascending, the last `n_latents`.
    pub fn lengths(&self, seed: u64, step: usize, n_latents: usize) -> Vec<usize> {
        match &self.prefixes {
            Prefixes::Fixed(prefixes) => prefixes.clone(),
            Prefixes::Sampled { count, power } => sampled(seed, step, n_latents, *count, *power),
        }
    }

    /// Weight of each of `count` levels, innermost first.
    ///
    /// # Panics
    /// If there are none: the whole is a level.
    pub fn weights(&self, count: usize) -> Vec<f64> {
        let share = if self.average { 1.0 / count as f64 } else { 1.0 };
        let mut weights = vec![self.inner * share; count];
        *weights.last_mut().expect("the whole is a level") = share;
        weights
    }

    /// Whether latents have the same levels in every step.
    pub fn stay(&self) -> bool {
        self.sort == Sort::None && matches!(self.prefixes, Prefixes::Fixed(_))
    }

    /// The levels of `step`. `usage` `[n_latents]` is the running mean that [`Sort`] orders by.
    pub fn at(&self, seed: u64, step: usize, n_latents: usize, usage: &[f64]) -> StepLevels {
        let prefixes = self.lengths(seed, step, n_latents);
        let mut of = vec![0; n_latents];
        let order = self.order(n_latents, usage);
        let mut start = 0;
        for (level, &end) in prefixes.iter().enumerate() {
            order[start..end].iter().for_each(|&latent| of[latent] = level as u32);
            start = end;
        }
        StepLevels { weights: self.weights(prefixes.len()), of }
    }

    /// Latents, first ones first; ties keep their order.
    pub fn order(&self, n_latents: usize, usage: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n_latents).collect();
        if self.sort != Sort::None {
            order.sort_by(|&a, &b| usage[b].total_cmp(&usage[a]));
        }
        order
    }
}

/// `count` distinct lengths, ascending, the last n_latents.
fn sampled(seed: u64, step: usize, n_latents: usize, count: usize, power: f64) -> Vec<usize> {
    let mut draws = Draws::new(seed, Stream::SaePrefixes, step as u64);
    let powers: Vec<f64> = (1..=n_latents).map(|m| libm::pow(m as f64, -power)).collect();
    // `left[m - 1]`: what length m still weighs.
    let mut left: Vec<f64> = powers.windows(2).map(|pair| pair[0] - pair[1]).collect();
    let mut prefixes = vec![];
    for _ in 1..count.min(n_latents) {
        let mut rest = draws.uniform() * left.iter().sum::<f64>();
        let found = left.iter().position(|&weight| {
            rest -= weight;
            rest < 0.0 && weight > 0.0
        });
        let last = || left.iter().rposition(|&weight| weight > 0.0);
        let Some(at) = found.or_else(last) else { break };
        left[at] = 0.0;
        prefixes.push(at + 1);
    }
    prefixes.sort_unstable();
    prefixes.push(n_latents);
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(prefixes: Prefixes, sort: Sort) -> Levels {
        Levels { prefixes, inner: 0.25, average: false, detach_inner: false, sort }
    }

    #[test]
    fn fixed_prefixes_cut_the_latents_and_weigh_the_inner_levels() {
        let fixed = levels(Prefixes::Fixed(vec![1, 3, 5]), Sort::None);
        let found = fixed.at(0, 7, 5, &[]);
        assert_eq!(found, StepLevels { weights: vec![0.25, 0.25, 1.0], of: vec![0, 1, 1, 2, 2] });
        let averaged = Levels { average: true, inner: 1.0, ..fixed }.at(0, 7, 5, &[]);
        assert_eq!(averaged.weights, [1.0 / 3.0; 3]);
    }

    #[test]
    fn sorted_prefixes_take_the_most_used_latents_first_and_ties_in_order() {
        let sorted = levels(Prefixes::Fixed(vec![2, 5]), Sort::Frequency);
        assert_eq!(sorted.at(0, 0, 5, &[0.1, 0.3, 0.2, 0.3, 0.0]).of, [1, 0, 1, 0, 1]);
        assert_eq!(sorted.order(5, &[0.0; 5]), [0, 1, 2, 3, 4]);
    }

    /// Length 1 is drawn first with probability (1 - 2^-.5) / (1 - 20^-.5) = .377; that it is among nine of nineteen draws
    /// is likelier still. Of 400 steps it is there on fewer than 250 with probability below 1e-9 if it is at least .75.
    #[test]
    fn sampled_prefixes_are_distinct_end_with_the_whole_and_favour_short_ones() {
        let drawn = levels(Prefixes::Sampled { count: 10, power: 0.5 }, Sort::None);
        let (mut ones, mut nineteens) = (0, 0);
        for step in 0..400 {
            let found = drawn.at(3, step, 20, &[]);
            assert_eq!(found.weights.len(), 10);
            assert!(found.of.is_sorted() && found.of[0] == 0 && *found.of.last().unwrap() == 9);
            assert!((0..10).all(|level| found.of.contains(&level)), "no level is empty");
            ones += (found.of[1] > 0) as usize;
            nineteens += (found.of[18] < 9) as usize;
        }
        assert!(ones > 250 && ones > nineteens + 50, "{ones} {nineteens}");
        assert_ne!(drawn.at(3, 0, 20, &[]), drawn.at(3, 1, 20, &[]));
        assert_eq!(drawn.at(3, 1, 20, &[]), drawn.at(3, 1, 20, &[]));
        assert_eq!(drawn.at(3, 1, 1, &[]).of, [0]);
    }
}
