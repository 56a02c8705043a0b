//! Closed forms: the loss of every candidate that two features in one dimension, or three in two, can settle on.
//!
//! Features fire independently with probability p and are U[0, 1] where they fire; outputs are ReLU; the last feature,
//! the extra one, has importance r and the others 1. A dropped feature costs its variance v = p/3 - p²/4, because the bias
//! supplies its mean; an antipodal pair errs only where both fire, each output by the lesser of the two, whose mean square is
//! 1/6. Elhage et al. 2022, "Demonstrating superposition", phase change; the formulas of its theory notebook
//! (wattenberg/superposition), with two rows added that are never least.

pub mod quadratic;

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

/// A candidate: its loss as a function of (p, r), and the phases it means. A candidate without phases is never least (it may be
/// second, so the margin leaves it out).
struct Candidate {
    name: &'static str,
    loss: fn(f64, f64) -> f64,
    phases: Option<&'static [Option<Phase>]>,
}

const DROPPED: Option<Phase> = Some(Phase::Dropped);
const SUPERPOSED: Option<Phase> = Some(Phase::Superposed);
const DEDICATED: Option<Phase> = Some(Phase::Dedicated);

/// Variance of a feature: 0 with probability 1 - p, else U[0, 1].
fn variance(p: f64) -> f64 {
    p / 3.0 - p * p / 4.0
}

/// Two features in one dimension, importance (1, r).
const TWO_IN_ONE: [Candidate; 4] = [
    // W = (1, 0), b = (0, p/2)
    Candidate { name: "ignore_extra", loss: |p, r| r * variance(p), phases: Some(&[DEDICATED, DROPPED]) },
    // W = (0, 1), b = (p/2, 0)
    Candidate { name: "ignore_first", loss: |p, _| variance(p), phases: Some(&[DROPPED, DEDICATED]) },
    // W = (1, -1), b = 0
    Candidate { name: "antipodal", loss: |p, r| (1.0 + r) * p * p / 6.0, phases: Some(&[SUPERPOSED, SUPERPOSED]) },
    // W = (1, 1)/√2, b = 0: each output is the mean of both. Never better than the better of the first two.
    Candidate { name: "confused", loss: |p, r| (1.0 + r) / 2.0 * variance(p), phases: None },
];

/// Three features in two dimensions, importance (1, 1, r). The name is the direction that W leaves out.
const THREE_IN_TWO: [Candidate; 5] = [
    // The extra feature is dropped.
    Candidate { name: "001", loss: |p, r| r * variance(p), phases: Some(&[DEDICATED, DEDICATED, DROPPED]) },
    // One of the ordinary features is.
    Candidate { name: "100", loss: |p, _| variance(p), phases: Some(&[None, None, DEDICATED]) },
    // The extra feature is antipodal to an ordinary one.
    Candidate { name: "011", loss: |p, r| (1.0 + r) * p * p / 6.0, phases: Some(&[None, None, SUPERPOSED]) },
    // The ordinary ones are antipodal to each other.
    Candidate { name: "110", loss: |p, _| p * p / 3.0, phases: Some(&[SUPERPOSED, SUPERPOSED, DEDICATED]) },
    // Unit triangle: two that fire err by min(x1, x2/2), mean square 1/16, three by min(x1, (x2+x3)/2), 1/6.
    Candidate { name: "111", loss: |p, r| (2.0 + r) * (p * p / 8.0 + p * p * p / 24.0), phases: None },
];

/// The closed forms for a setting, where there are any: ReLU outputs, (2, 1) or (3, 2) features and dimensions, importance
/// 1 but for the last, one p in (0, 1] for all, independent firing, independent magnitudes U[0, 1].
pub fn theory(world: &World, kind: ToyKind, d_hidden: usize, importance: &[f64]) -> Option<Theory> {
    // Named one by one, so that a world that learns something new has to be thought about here.
    let World { n_features, firing_probability, magnitude, magnitude_sharing, groups } = world;
    let candidates: &[Candidate] = match (n_features, d_hidden) {
        (2, 1) => &TWO_IN_ONE,
        (3, 2) => &THREE_IN_TWO,
        _ => return None,
    };
    let (&r, ordinary) = importance.split_last()?;
    let p = firing_probability[0];
    let covered = kind == ToyKind::ReluOutput
        && importance.len() == *n_features
        && ordinary.iter().all(|i| *i == 1.0)
        && p > 0.0
        && firing_probability.iter().all(|q| *q == p)
        && *magnitude == Magnitude::Uniform { low: 0.0, high: 1.0 }
        && *magnitude_sharing == MagnitudeSharing::Independent
        && groups.is_empty();
    covered.then(|| compare(candidates, p, r))
}

fn compare(candidates: &[Candidate], p: f64, r: f64) -> Theory {
    let losses: Vec<_> = candidates.iter().map(|c| (c.name, (c.loss)(p, r))).collect();
    let mut rivals: Vec<_> = candidates.iter().filter_map(|c| Some(((c.loss)(p, r), c.name, c.phases?))).collect();
    rivals.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let (least, best, phases) = rivals[0];
    Theory { losses, best, phases: phases.to_vec(), margin: (least > 0.0).then(|| rivals[1].0 / least) }
}

/// The p at which antipodal pairs and a dropped feature cost the same, for an extra feature of importance r > 0:
/// 4 r / (2 + 5 r) up to r = 1, where it meets 4/7, and 4 / (2 r + 5) above, where the ordinary feature is the one dropped.
pub fn boundary(r: f64) -> f64 {
    if r <= 1.0 { 4.0 * r / (2.0 + 5.0 * r) } else { 4.0 / (2.0 * r + 5.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{golden, json};

    fn world(n_features: usize, p: f64) -> World {
        World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
        }
    }

    fn at(n_features: usize, p: f64, r: f64) -> Theory {
        let mut importance = vec![1.0; n_features];
        importance[n_features - 1] = r;
        theory(&world(n_features, p), ToyKind::ReluOutput, n_features - 1, &importance).unwrap()
    }

    /// Formulas of a few operations on both sides: 1e-12 relative.
    #[test]
    fn losses_margins_and_phases_are_those_of_the_independent_implementation() {
        let golden = json(golden("theory.json"));
        let near = |a: f64, b: &serde_json::Value| (a / b.as_f64().unwrap() - 1.0).abs() < 1e-12;
        let rows = ["t1", "t2"].into_iter().flat_map(|table| golden[table].as_array().unwrap());
        let mut count = 0;
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap();
            let found = at(number("n") as usize, number("p"), number("r"));
            assert_eq!(found.losses.len(), row["losses"].as_object().unwrap().len());
            assert!(found.losses.iter().all(|(name, loss)| near(*loss, &row["losses"][name])), "{row} {found:?}");
            assert_eq!(found.best, row["best"], "{row}");
            assert!(near(found.margin.unwrap(), &row["margin"]), "{row}");
            let phases: Vec<_> = found.phases.iter().map(|phase| phase.map(Phase::name)).collect();
            assert_eq!(serde_json::json!(phases), row["phases"]);
            count += 1;
        }
        assert_eq!(count, 98);
        for row in golden["boundary_ignore_extra_antipodal"].as_array().unwrap() {
            assert!(near(boundary(row["r"].as_f64().unwrap()), &row["p"]));
        }
    }

    #[test]
    fn candidates_cost_the_same_on_the_boundary() {
        for r in [0.1, 0.5, 0.9, 1.5, 8.0] {
            let found = at(2, boundary(r), r);
            assert!((found.margin.unwrap() - 1.0).abs() < 1e-12, "{r} {found:?}");
        }
        assert!((boundary(1.0) - 4.0 / 7.0).abs() < 1e-15);
        assert_eq!(at(2, 0.9 * boundary(0.5), 0.5).best, "antipodal");
        assert_eq!(at(2, 1.1 * boundary(0.5), 0.5).best, "ignore_extra");
        assert_eq!(at(2, 1.1 * boundary(2.0), 2.0).best, "ignore_first");
    }

    #[test]
    fn candidates_without_phases_are_never_least() {
        for n in [2, 3] {
            for p in (1..=100).map(|i| i as f64 / 100.0) {
                for r in (-20..=20).map(|i| 10f64.powf(i as f64 / 20.0)) {
                    let found = at(n, p, r);
                    let least = found.losses.iter().map(|l| l.1).fold(f64::MAX, f64::min);
                    let best = found.losses.iter().find(|l| l.0 == found.best).unwrap().1;
                    assert!(best <= least * (1.0 + 1e-12), "{n} {p} {r} {found:?}");
                }
            }
        }
    }

    #[test]
    fn a_worthless_extra_feature_leaves_no_margin() {
        assert_eq!(at(2, 0.5, 0.0).margin, None);
        assert_eq!(at(2, 0.5, 0.0).best, "ignore_extra");
    }

    #[test]
    fn other_settings_have_no_closed_form() {
        let none = |world: &World, kind, d_hidden, importance: &[f64]| {
            assert_eq!(theory(world, kind, d_hidden, importance), None);
        };
        let (relu, two) = (ToyKind::ReluOutput, world(2, 0.3));
        none(&two, ToyKind::Linear, 1, &[1.0, 0.5]);
        none(&two, relu, 2, &[1.0, 0.5]);
        none(&two, relu, 1, &[0.9, 0.5]);
        none(&world(3, 0.3), relu, 2, &[1.0, 0.9, 0.5]);
        none(&world(4, 0.3), relu, 3, &[1.0, 1.0, 1.0, 0.5]);
        none(&world(2, 0.0), relu, 1, &[1.0, 0.5]);
        none(&World { firing_probability: vec![0.3, 0.4], ..two.clone() }, relu, 1, &[1.0, 0.5]);
        none(&World { magnitude: Magnitude::Symmetric(1.0), ..two.clone() }, relu, 1, &[1.0, 0.5]);
        none(&World { magnitude_sharing: MagnitudeSharing::Sample, ..two }, relu, 1, &[1.0, 0.5]);
    }
}
