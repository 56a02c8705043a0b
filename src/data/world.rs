//! The law of x: which features fire, how large they are, which fire together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::correlation::Correlation;
use super::hierarchy::Hierarchy;

/// A world with every number fixed. `x` is a sample of `n_features` activations, 0 where a feature does not fire.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    pub n_features: usize,
    /// `[n_features]`, in [0, 1]: probability that the feature's own coin shows fire. For members of a group the group's
    /// probability rules and this entry is ignored by the sampler. A feature with a parent in the hierarchy needs its parent
    /// as well, so that it fires less often: see [`World::marginal_probability`].
    pub firing_probability: Vec<f64>,
    pub magnitude: Magnitude,
    pub magnitude_sharing: MagnitudeSharing,
    /// Disjoint sets of features that do not fire independently.
    pub groups: Vec<Group>,
    /// A finite training set instead of fresh samples for ever.
    pub dataset: Option<Finite>,
    /// A Gaussian copula between the features' firings.
    pub correlation: Option<Correlation>,
    /// Which features fire only where another does.
    pub hierarchy: Option<Hierarchy>,
}

/// How training samples are limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finite {
    /// T, the number of training samples; at least 1.
    pub samples: usize,
    /// Whether every x, those of evaluation included, is divided by its Euclidean norm. A sample in which nothing fires
    /// has no direction and stays 0.
    pub normalise: bool,
}

/// The value of a feature where it fires; vectors are `[n_features]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Magnitude {
    /// U[low, high].
    Uniform {
        low: f64,
        high: f64,
    },
    Constant(Vec<f64>),
    /// Normal, clipped at 0 (so a firing feature may have the value 0).
    Normal {
        mean: Vec<f64>,
        std: Vec<f64>,
    },
    /// Absolute value of a normal.
    FoldedNormal {
        mean: Vec<f64>,
        std: Vec<f64>,
    },
    Exponential {
        mean: Vec<f64>,
    },
    /// U[-bound, bound].
    Symmetric(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MagnitudeSharing {
    /// Each feature draws its own.
    Independent,
    /// One uniform (or normal) draw serves all features of a sample.
    Sample,
}

/// A set of features that fires as one (Elhage et al. 2022, "Correlated and anticorrelated features").
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub rule: GroupRule,
    /// Ascending.
    pub members: Vec<usize>,
    /// Probability that the set fires.
    pub firing_probability: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupRule {
    /// One coin for the set; all members fire, magnitudes independent.
    Together,
    /// The set's coin, then exactly one member, uniformly.
    Exclusive,
}

impl World {
    /// Whether every sample has unit norm.
    pub fn is_normalised(&self) -> bool {
        self.dataset.is_some_and(|dataset| dataset.normalise)
    }

    /// P(x_i ≠ 0) as far as firing decides it, `[n_features]`: groups taken into account. In a world with a hierarchy
    /// P(x_i > 0), parents, siblings and values clipped at 0 taken into account: exact without a correlation, with one
    /// from a sample, see [`rates`](super::rates).
    pub fn marginal_probability(&self) -> Vec<f64> {
        if let Some(hierarchy) = &self.hierarchy {
            return self.hierarchy_rates(hierarchy);
        }
        let mut p = self.firing_probability.clone();
        for group in &self.groups {
            let share = match group.rule {
                GroupRule::Together => 1.0,
                GroupRule::Exclusive => 1.0 / group.members.len() as f64,
            };
            for &i in &group.members {
                p[i] = group.firing_probability * share;
            }
        }
        p
    }

    /// The rates that were asked for, `[n_features]`: those of the file where a hierarchy's probabilities were computed from
    /// them, else [`World::marginal_probability`].
    pub fn asked_probability(&self) -> Vec<f64> {
        match self.hierarchy.as_ref().and_then(|hierarchy| hierarchy.asked.as_ref()) {
            Some(asked) => asked.clone(),
            None => self.marginal_probability(),
        }
    }

    /// Parent of each feature that has one.
    pub fn parents(&self) -> BTreeMap<usize, usize> {
        self.hierarchy.as_ref().map_or(BTreeMap::new(), Hierarchy::parents)
    }
}

/// Indices of what is given in groups that see the same samples: of one key (seed, and what else makes a batch) and of equal
/// worlds. Groups in order of key, then of appearance; indices ascending.
pub fn same_data<'a, K: Ord>(of: impl IntoIterator<Item = (K, &'a Arc<World>)>) -> Vec<Vec<usize>> {
    /// The worlds of one key, each with what sees it.
    type Worlds<'a> = Vec<(&'a Arc<World>, Vec<usize>)>;
    let mut keys: BTreeMap<K, Worlds> = BTreeMap::new();
    for (index, (key, world)) in of.into_iter().enumerate() {
        let worlds = keys.entry(key).or_default();
        match worlds.iter_mut().find(|(other, _)| Arc::ptr_eq(other, world) || **other == *world) {
            Some((_, group)) => group.push(index),
            None => worlds.push((world, vec![index])),
        }
    }
    keys.into_values().flatten().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sees_the_same_data_is_grouped_by_value_not_by_address() {
        let world = |p: f64| World {
            n_features: 1,
            firing_probability: vec![p],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let worlds: Vec<Arc<World>> = [0.5, 0.1, 0.5, 0.5, 0.1].into_iter().map(world).map(Arc::new).collect();
        let seeds = [2, 1, 2, 1, 1];
        assert_eq!(same_data(seeds.into_iter().zip(&worlds)), [vec![1, 4], vec![3], vec![0, 2]]);
        assert!(same_data(std::iter::empty::<(u64, &Arc<World>)>()).is_empty());
    }
}
