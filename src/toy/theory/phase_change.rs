//! T1 and T2: the loss of every candidate that two features in one dimension, or three in two, can settle on.
//!
//! Features fire independently with probability p and are U[0, 1] where they fire; outputs are ReLU; the last feature,
//! the extra one, has importance r and the others 1. A dropped feature costs its variance v = p/3 - p²/4, because the bias
//! supplies its mean; an antipodal pair errs only where both fire, each output by the lesser of the two, whose mean square is
//! 1/6. Elhage et al. 2022, "Demonstrating superposition", phase change; the formulas of its theory notebook
//! (wattenberg/superposition), with two rows added that are never least.

use super::uniform::variance;
use super::{Phase, Theory};

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

/// T1 for two features, T2 for three, at density p and importance r of the extra feature; none for other numbers.
pub fn compare(n_features: usize, p: f64, r: f64) -> Option<Theory> {
    let candidates: &[Candidate] = match n_features {
        2 => &TWO_IN_ONE,
        3 => &THREE_IN_TWO,
        _ => return None,
    };
    let losses: Vec<_> = candidates.iter().map(|c| (c.name, (c.loss)(p, r))).collect();
    let mut rivals: Vec<_> = candidates.iter().filter_map(|c| Some(((c.loss)(p, r), c.name, c.phases?))).collect();
    rivals.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(b.1)));
    let (least, best, phases) = rivals[0];
    let margin = (least > 0.0).then(|| rivals[1].0 / least);
    Some(Theory { losses, best, phases: phases.to_vec(), margin })
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

    fn at(n_features: usize, p: f64, r: f64) -> Theory {
        compare(n_features, p, r).expect("two features or three")
    }

    #[test]
    fn other_numbers_of_features_have_no_table() {
        assert_eq!(compare(4, 0.1, 1.0), None);
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
}
