//! Angles within and between the sets of features that fire together, or never together: `groups` of the world.
//!
//! Cosines and angles are between members of norm at least 0.1; shorter ones have no direction worth the name. A set is
//! *within* itself, two different sets are *between* each other; features in no set do not count.

use std::f64::consts::PI;

use super::definition::{Definition, Kind, Need, Shape};
use super::geometry::REPRESENTED;
use super::vector::{Directions, dot, mean};
use super::{Undefined, Value};
use crate::data::Group;

/// Members below this norm have no direction.
const FLOOR: f64 = 0.1;

/// A set has collapsed to one direction where all its members are within this angle of each other, in degrees.
pub const COLLAPSED_DEGREES: f64 = 8.0;

const CORRELATED: &str = "Elhage et al. 2022, Toy Models of Superposition, correlated and anticorrelated features";

const NO_PAIR_WITHIN: Undefined = Undefined("no set has two members with a direction");
const NO_PAIR_BETWEEN: Undefined = Undefined("no two sets have members with a direction");

macro_rules! of_sets {
    ($($constant:ident, $name:literal, $kind:ident, $meaning:literal, $formula:literal, $label:literal;)+) => {
        $(pub const $constant: Definition = Definition {
            name: $name,
            version: 1,
            meaning: $meaning,
            formula: $formula,
            source: CORRELATED,
            needs: &[Need::Truth, Need::Groups],
            kind: Kind::$kind,
            shape: Shape::Scalar,
            label: $label,
            better: None,
        };)+

        /// Every score of this file.
        pub const SETS: &[&Definition] = &[$(&$constant),+];
    };
}

of_sets! {
    COSINE_WITHIN, "cosine_within", Cosine, "mean signed cosine of two members of one set",
        "mean over i < j in one set of cos(W_i, W_j)", "cosine within sets";
    COSINE_BETWEEN, "cosine_between", Cosine, "mean signed cosine of members of two sets",
        "mean over i, j in different sets of cos(W_i, W_j)", "cosine between sets";
    COHERENCE_WITHIN, "coherence_within", Share, "greatest absolute cosine of two members of one set",
        "max over i, j in one set of |cos(W_i, W_j)|", "coherence within sets";
    OVERLAP_BETWEEN, "overlap_between", Amount, "greatest overlap of a member with a member of another set, mean over members",
        "mean over i of max over j in other sets of |W_i . W_j|", "overlap between sets";
    COSINE_OPPOSITE, "cosine_opposite", Cosine, "cosine of a member with the most opposite member of another set, mean over members",
        "mean over i of min over j in other sets of cos(W_i, W_j)", "cosine with the most opposite member";
    WITHIN_MIN_DEGREES, "within_min_degrees", Degrees, "least angle of two members of one set",
        "min over i, j in one set of the angle of W_i and W_j", "least angle within sets (degrees)";
    WITHIN_MAX_DEGREES, "within_max_degrees", Degrees, "greatest angle of two members of one set",
        "max over i, j in one set of the angle of W_i and W_j", "greatest angle within sets (degrees)";
    BETWEEN_MIN_DEGREES, "between_min_degrees", Degrees, "least angle of members of two sets",
        "min over i, j in different sets of the angle of W_i and W_j", "least angle between sets (degrees)";
    BETWEEN_MAX_DEGREES, "between_max_degrees", Degrees, "greatest angle of members of two sets",
        "max over i, j in different sets of the angle of W_i and W_j", "greatest angle between sets (degrees)";
    OPPOSITE_MIN_DEGREES, "opposite_min_degrees", Degrees,
        "how nearly every member has an antipode in another set: its widest angle with one, least over members",
        "min over i of max over j in other sets of the angle of W_i and W_j", "least angle with the most opposite member (degrees)";
    COLLAPSED_GROUPS, "collapsed_groups", Count, "sets whose members are all represented and within 8 degrees of each other",
        "#{sets : all ||W_i|| >= 0.5, all angles <= 8 degrees}", "collapsed sets";
    COLLAPSED_NORM, "collapsed_norm", Amount, "mean norm of the members of collapsed sets",
        "mean of ||W_i|| over members of collapsed sets", "norm in collapsed sets";
}

/// A score of this file by its definition's name; None for other names.
pub fn of_sets(name: &str, truth: &Directions, groups: &[Group]) -> Option<Value> {
    let scene = Scene::new(truth, groups);
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // The angle falls as the cosine rises.
    let degrees = |cosine: f64| libm::acos(cosine.clamp(-1.0, 1.0)) * (180.0 / PI);
    let within = || scene.within();
    let between = || scene.between();
    Some(match name {
        "cosine_within" => within().map(|all| mean(all).unwrap_or_default()),
        "cosine_between" => between().map(|all| mean(all).unwrap_or_default()),
        "coherence_within" => within().map(|all| all.iter().fold(0.0, |most, c| c.abs().max(most))),
        "overlap_between" => scene.per_member(|i, j| dot(truth.raw(i), truth.raw(j)).abs(), f64::max),
        "cosine_opposite" => scene.per_member(|i, j| cosine(truth, i, j), f64::min),
        "within_min_degrees" => within().map(|all| degrees(greatest(&all))),
        "within_max_degrees" => within().map(|all| degrees(least(&all))),
        "between_min_degrees" => between().map(|all| degrees(greatest(&all))),
        "between_max_degrees" => between().map(|all| degrees(least(&all))),
        "opposite_min_degrees" => scene.opposite().map(|all| degrees(greatest(&all))),
        "collapsed_groups" => Ok(scene.collapsed().count() as f64),
        "collapsed_norm" => {
            let norms = scene.collapsed().flat_map(|g| &g.members).map(|&i| truth.norms[i]);
            mean(norms).ok_or(Undefined("no set has collapsed"))
        }
        _ => return None,
    })
}

fn cosine(truth: &Directions, i: usize, j: usize) -> f64 {
    dot(truth.unit(i), truth.unit(j))
}

/// Members with a direction, and the set of each.
struct Scene<'a> {
    truth: &'a Directions,
    groups: &'a [Group],
    /// (feature, set), sets in order, members ascending.
    members: Vec<(usize, usize)>,
}

impl<'a> Scene<'a> {
    fn new(truth: &'a Directions, groups: &'a [Group]) -> Scene<'a> {
        let all = groups.iter().enumerate().flat_map(|(g, group)| group.members.iter().map(move |&i| (i, g)));
        Scene { truth, groups, members: all.filter(|(i, _)| truth.norms[*i] >= FLOOR).collect() }
    }

    /// Cosines of pairs for which `same` says of their sets what is asked.
    fn cosines(&self, same: bool) -> Vec<f64> {
        let mut cosines = vec![];
        for (a, &(i, g)) in self.members.iter().enumerate() {
            let later = self.members[a + 1..].iter().filter(|(_, other)| (*other == g) == same);
            cosines.extend(later.map(|&(j, _)| cosine(self.truth, i, j)));
        }
        cosines
    }

    fn within(&self) -> Result<Vec<f64>, Undefined> {
        Some(self.cosines(true)).filter(|all| !all.is_empty()).ok_or(NO_PAIR_WITHIN)
    }

    fn between(&self) -> Result<Vec<f64>, Undefined> {
        Some(self.cosines(false)).filter(|all| !all.is_empty()).ok_or(NO_PAIR_BETWEEN)
    }

    /// For each member the extreme of f over members of other sets.
    fn extremes(&self, f: impl Fn(usize, usize) -> f64, pick: fn(f64, f64) -> f64) -> Result<Vec<f64>, Undefined> {
        let of_member = |&(i, g): &(usize, usize)| {
            self.members.iter().filter(|(_, other)| *other != g).map(|&(j, _)| f(i, j)).reduce(pick)
        };
        let all: Vec<f64> = self.members.iter().filter_map(of_member).collect();
        Some(all).filter(|all| !all.is_empty()).ok_or(NO_PAIR_BETWEEN)
    }

    fn per_member(&self, f: impl Fn(usize, usize) -> f64, pick: fn(f64, f64) -> f64) -> Value {
        self.extremes(f, pick).map(|all| mean(all).unwrap_or_default())
    }

    /// For each member the least cosine with a member of another set.
    fn opposite(&self) -> Result<Vec<f64>, Undefined> {
        self.extremes(|i, j| cosine(self.truth, i, j), f64::min)
    }

    fn collapsed(&self) -> impl Iterator<Item = &'a Group> + '_ {
        let least = libm::cos(COLLAPSED_DEGREES * (PI / 180.0));
        let near = move |members: &[usize]| {
            let pairs = members.iter().enumerate().flat_map(|(a, &i)| members[a + 1..].iter().map(move |&j| (i, j)));
            pairs.into_iter().all(|(i, j)| cosine(self.truth, i, j) >= least)
        };
        let represented = |i: &usize| self.truth.norms[*i] >= REPRESENTED;
        self.groups.iter().filter(move |g| g.members.len() > 1 && g.members.iter().all(represented) && near(&g.members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::GroupRule;
    use ndarray::Array2;

    fn set(members: &[usize]) -> Group {
        Group { rule: GroupRule::Together, members: members.to_vec(), firing_probability: 0.1 }
    }

    /// Rows at these angles, of these norms.
    fn plane(rows: &[(f64, f64)]) -> Directions {
        let place = |k: usize, d: usize| {
            let (degrees, norm) = rows[k];
            norm * if d == 0 { libm::cos(degrees * PI / 180.0) } else { libm::sin(degrees * PI / 180.0) }
        };
        Directions::new(Array2::from_shape_fn((rows.len(), 2), |(k, d)| place(k, d)).view())
    }

    fn near(name: &str, truth: &Directions, groups: &[Group], expected: f64) {
        let found =
            of_sets(name, truth, groups).expect("a score of sets").unwrap_or_else(|why| panic!("{name} {why:?}"));
        // acos loses half the digits next to ±1.
        assert!((found - expected).abs() < 1e-5, "{name} {found} {expected}");
    }

    /// Two correlated pairs: members orthogonal, each opposite to one of the other pair.
    #[test]
    fn correlated_pairs_are_orthogonal_within_and_antipodal_between() {
        let truth = plane(&[(0.0, 1.0), (90.0, 1.0), (180.0, 1.0), (270.0, 1.0)]);
        let groups = [set(&[0, 1]), set(&[2, 3])];
        for (name, expected) in [
            ("cosine_within", 0.0),
            ("cosine_between", -0.5),
            ("coherence_within", 0.0),
            ("overlap_between", 1.0),
            ("cosine_opposite", -1.0),
            ("within_min_degrees", 90.0),
            ("within_max_degrees", 90.0),
            ("between_min_degrees", 90.0),
            ("between_max_degrees", 180.0),
            ("opposite_min_degrees", 180.0),
            ("collapsed_groups", 0.0),
        ] {
            near(name, &truth, &groups, expected);
        }
        assert!(of_sets("collapsed_norm", &truth, &groups).expect("a score of sets").is_err());
        assert_eq!(of_sets("loss", &truth, &groups), None);
    }

    /// Pairs at 0 and 6 degrees (norms .7 and .8), at 120 and 130, and at 240 and 240 with one too short to be represented.
    #[test]
    fn a_set_has_collapsed_where_all_members_are_there_and_near() {
        let truth = plane(&[(0.0, 0.7), (6.0, 0.8), (120.0, 0.7), (130.0, 0.7), (240.0, 0.7), (240.0, 0.4)]);
        let groups = [set(&[0, 1]), set(&[2, 3]), set(&[4, 5])];
        near("collapsed_groups", &truth, &groups, 1.0);
        near("collapsed_norm", &truth, &groups, 0.75);
        near("within_min_degrees", &truth, &groups, 0.0);
        near("within_max_degrees", &truth, &groups, 10.0);
        near("between_min_degrees", &truth, &groups, 110.0);
    }

    #[test]
    fn members_without_a_direction_and_features_in_no_set_do_not_count() {
        let truth = plane(&[(0.0, 1.0), (60.0, 1.0), (30.0, 1.0), (200.0, 0.05)]);
        let groups = [set(&[0, 1, 3])];
        near("within_max_degrees", &truth, &groups, 60.0);
        for name in
            ["cosine_between", "between_max_degrees", "overlap_between", "cosine_opposite", "opposite_min_degrees"]
        {
            assert!(of_sets(name, &truth, &groups).expect("a score of sets").is_err(), "{name}");
        }
        assert!(of_sets("cosine_within", &truth, &[set(&[0, 3])]).expect("a score of sets").is_err());
    }

    #[test]
    fn every_definition_of_sets_is_computed() {
        let truth = plane(&[(0.0, 1.0), (3.0, 1.0), (180.0, 1.0), (183.0, 1.0)]);
        for definition in SETS {
            let value = of_sets(definition.name, &truth, &[set(&[0, 1]), set(&[2, 3])]);
            assert!(value.is_some_and(|value| value.is_ok()), "{}", definition.name);
        }
    }
}
