//! Angles between neighbouring features in the plane.

use std::f64::consts::PI;

use super::definition::{Definition, Kind, Need, Shape};
use super::vector::Directions;
use super::{Undefined, Value};

pub const GAP_MIN_DEGREES: Definition = Definition {
    name: "gap_min_degrees",
    version: 1,
    meaning: "least angle between neighbouring represented features around the circle; d_hidden = 2",
    formula: "min of the differences of sorted angles, the one across 180 degrees included",
    source: "Elhage et al. 2022, Toy Models of Superposition, geometry of superposition",
    needs: &[Need::Truth],
    kind: Kind::Degrees,
    shape: Shape::Scalar,
    label: "least gap between neighbours (degrees)",
    better: None,
};

pub const GAP_MAX_DEGREES: Definition = Definition {
    name: "gap_max_degrees",
    version: 1,
    meaning: "greatest angle between neighbouring represented features around the circle; d_hidden = 2",
    formula: "max of the differences of sorted angles, the one across 180 degrees included",
    source: "Elhage et al. 2022, Toy Models of Superposition, geometry of superposition",
    needs: &[Need::Truth],
    kind: Kind::Degrees,
    shape: Shape::Scalar,
    label: "greatest gap between neighbours (degrees)",
    better: None,
};

/// ([`GAP_MIN_DEGREES`], [`GAP_MAX_DEGREES`]); all gaps add up to 360.
pub fn gaps(truth: &Directions, represented: &[usize]) -> Result<(f64, f64), Undefined> {
    if truth.d_hidden != 2 {
        return Err(Undefined("d_hidden is not 2"));
    }
    if represented.len() < 2 {
        return Err(Undefined("fewer than two features are represented"));
    }
    let degrees = |i: usize| {
        let w = truth.raw(i);
        libm::atan2(w[1], w[0]) * (180.0 / PI)
    };
    let mut angles: Vec<f64> = represented.iter().map(|&i| degrees(i)).collect();
    angles.sort_by(f64::total_cmp);
    angles.push(angles[0] + 360.0);
    let gaps = angles.windows(2).map(|pair| pair[1] - pair[0]);
    Ok((gaps.clone().fold(f64::INFINITY, f64::min), gaps.fold(0.0, f64::max)))
}

/// The first of [`gaps`].
pub fn gap_min(truth: &Directions, represented: &[usize]) -> Value {
    gaps(truth, represented).map(|(least, _)| least)
}

/// The second of [`gaps`].
pub fn gap_max(truth: &Directions, represented: &[usize]) -> Value {
    gaps(truth, represented).map(|(_, greatest)| greatest)
}
