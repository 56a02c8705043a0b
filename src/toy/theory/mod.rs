//! What toy models should settle on: closed forms and exact expectations, held against what training finds.
//!
//! | table | file | what it says |
//! |---|---|---|
//! | T1, T2 | [`phase_change`] | two features in one dimension, three in two: dropped, superposed or dedicated |
//! | T3 | [`uniform`] | many like features: from which density on antipodal pairs beat dimensions of one's own |
//! | T4 | [`polygon`] | regular k-gons in the plane, one feature at a time |
//! | T5 | [`pentagon`] | five features in the plane: the pentagon against two antipodal pairs |
//! | D1 | [`quadratic`] | two features of a quadratic model in one dimension: their capacities |
//! | | [`linear`] | the linear model keeps the features of greatest weighted variance |
//! | | [`exact`] | the expected loss of any small ReLU-output model, exactly |
//! | G | [`interference`] | Welch bounds, random directions, what other features add to a readout |
//! | G | [`recovery`] | which sparse codes can be found again: coherence, Donoho-Tanner |
//!
//! [`theory`] picks what holds for a setting; [`curves`] are the lines that figures may draw.

pub mod curves;
pub mod exact;
pub mod interference;
pub mod linear;
mod minimise;
pub mod pentagon;
pub mod phase_change;
pub mod polygon;
pub mod quadratic;
pub mod recovery;
pub mod uniform;

pub use phase_change::boundary;

use crate::data::{Magnitude, MagnitudeSharing, World};
use crate::toy::ToyKind;

/// What became of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It has (almost) no direction.
    Dropped,
    /// It shares its direction with others.
    Superposed,
    /// It has a direction of its own.
    Dedicated,
}

impl Phase {
    /// The word in rows.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Dropped => "dropped",
            Phase::Superposed => "superposed",
            Phase::Dedicated => "dedicated",
        }
    }
}

/// What theory says of one setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Theory {
    /// Expected Σ_i I_i (x_i - x'_i)² of each candidate, in the order of the table.
    pub losses: Vec<(&'static str, f64)>,
    /// The candidate of least loss; of equal ones the first by name.
    pub best: &'static str,
    /// Each feature's phase under `best`, `[n_features]`; none where the candidate does not say which of two like features
    /// is meant.
    pub phases: Vec<Option<Phase>>,
    /// Second least loss over least, among the candidates that can be least; none where the least is 0.
    pub margin: Option<f64>,
}

impl Theory {
    /// Loss of the best candidate: expected Σ_i I_i (x_i - x'_i)².
    pub fn loss(&self) -> f64 {
        self.losses.iter().find(|(name, _)| *name == self.best).expect("the best candidate is one of them").1
    }
}

/// What is known of a setting, where anything is:
///
/// - linear models of independent features: [`linear`];
/// - ReLU outputs, (2, 1) or (3, 2) features and dimensions, importance 1 but for the last, one p in (0, 1] for all:
///   [`phase_change`];
/// - ReLU outputs, five features of importance 1 in the plane, one p for all but perhaps one: [`pentagon`].
///
/// The ReLU settings take features that fire independently with independent magnitudes U[0, 1].
pub fn theory(world: &World, kind: ToyKind, d_hidden: usize, importance: &[f64]) -> Option<Theory> {
    // Named one by one, so that a world that learns something new has to be thought about here.
    let World {
        n_features,
        firing_probability: p,
        magnitude,
        magnitude_sharing,
        groups,
        dataset,
        correlation,
        hierarchy,
    } = world;
    let dependent = !groups.is_empty() || correlation.is_some() || hierarchy.is_some();
    if dependent || dataset.is_some() || importance.len() != *n_features {
        return None;
    }
    let independent = *magnitude_sharing == MagnitudeSharing::Independent;
    if kind == ToyKind::Linear {
        let weighted: Vec<f64> = independent.then(|| linear::weighted_variances(world, importance))?;
        return linear::linear(&weighted, d_hidden);
    }
    let covered = kind == ToyKind::ReluOutput
        && independent
        && *magnitude == Magnitude::Uniform { low: 0.0, high: 1.0 }
        && p.iter().all(|p| *p > 0.0);
    let (&r, ordinary) = importance.split_last()?;
    if !covered || ordinary.iter().any(|i| *i != 1.0) {
        return None;
    }
    let one_p = p.iter().all(|q| *q == p[0]);
    match (n_features, d_hidden) {
        (2, 1) | (3, 2) if one_p => phase_change::compare(*n_features, p[0], r),
        (5, 2) if r == 1.0 => pentagon::compare(p),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(n_features: usize, p: f64) -> World {
        World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
        }
    }

    #[test]
    fn other_settings_have_no_closed_form() {
        let none = |world: &World, kind, d_hidden, importance: &[f64]| {
            assert_eq!(theory(world, kind, d_hidden, importance), None);
        };
        let (relu, two) = (ToyKind::ReluOutput, world(2, 0.3));
        none(&two, relu, 2, &[1.0, 0.5]);
        none(&two, relu, 1, &[0.9, 0.5]);
        none(&world(3, 0.3), relu, 2, &[1.0, 0.9, 0.5]);
        none(&world(4, 0.3), relu, 3, &[1.0, 1.0, 1.0, 0.5]);
        none(&world(2, 0.0), relu, 1, &[1.0, 0.5]);
        none(&World { firing_probability: vec![0.3, 0.4], ..two.clone() }, relu, 1, &[1.0, 0.5]);
        none(&World { magnitude: Magnitude::Symmetric(1.0), ..two.clone() }, relu, 1, &[1.0, 0.5]);
        let shared = World { magnitude_sharing: MagnitudeSharing::Sample, ..two };
        none(&shared, relu, 1, &[1.0, 0.5]);
        none(&shared, ToyKind::Linear, 1, &[1.0, 0.5]);
        none(&world(5, 0.3), relu, 2, &[1.0, 1.0, 1.0, 1.0, 0.5]);
        let two_differ = World { firing_probability: vec![0.1, 0.2, 0.3, 0.1, 0.1], ..world(5, 0.1) };
        none(&two_differ, relu, 2, &[1.0; 5]);
    }

    #[test]
    fn each_setting_finds_its_table() {
        let best = |world: &World, kind, d_hidden, importance: &[f64]| {
            theory(world, kind, d_hidden, importance).expect("this setting has a theory").best
        };
        let relu = ToyKind::ReluOutput;
        assert_eq!(best(&world(2, 0.05), relu, 1, &[1.0, 1.0]), "antipodal");
        assert_eq!(best(&world(3, 0.05), relu, 2, &[1.0, 1.0, 0.01]), "001");
        assert_eq!(best(&world(5, 0.05), relu, 2, &[1.0; 5]), "pentagon");
        assert_eq!(best(&world(5, 0.5), ToyKind::Linear, 2, &[1.0, 0.9, 0.8, 0.7, 0.6]), "largest");
    }

    #[test]
    fn the_loss_is_that_of_the_best_candidate() {
        let found = theory(&world(2, 0.1), ToyKind::ReluOutput, 1, &[1.0, 1.0]).expect("T1");
        assert_eq!(found.best, "antipodal");
        // (1 + r) p² / 6
        assert!((found.loss() - 0.02 / 6.0).abs() < 1e-17);
    }
}
