//! Which polytopes the represented features sit in, by their dimensionality.
//!
//! In a union of regular polytopes in orthogonal subspaces (a tegum product) every vertex has the dimensionality of its own
//! polytope: 1 alone, 3/4 in a tetrahedron, 2/3 in a triangle, 1/2 in an antipodal pair, 2/5 in a pentagon, 3/8 in a square
//! antiprism.

use super::definition::{Definition, Kind, Need, Shape};

/// A feature belongs to the nearest constant if it is at most this far from it. Windows of 2/5 and 3/8 would overlap; halfway
/// between them the greater wins.
pub const TOLERANCE: f64 = 0.015;

/// The constants, descending, each with the score that counts it.
pub const POLYTOPES: [(f64, &Definition); 6] = [
    (1.0, &CENSUS_DEDICATED),
    (3.0 / 4.0, &CENSUS_TETRAHEDRON),
    (2.0 / 3.0, &CENSUS_TRIANGLE),
    (1.0 / 2.0, &CENSUS_DIGON),
    (2.0 / 5.0, &CENSUS_PENTAGON),
    (3.0 / 8.0, &CENSUS_ANTIPRISM),
];

/// Number of represented features at each constant of [`POLYTOPES`], and of those at none.
pub fn census(dimensionality: &[f64], represented: &[usize]) -> ([usize; POLYTOPES.len()], usize) {
    let (mut counts, mut other) = ([0; POLYTOPES.len()], 0);
    for &i in represented {
        let distance = |k: &usize| (dimensionality[i] - POLYTOPES[*k].0).abs();
        let nearest = (0..POLYTOPES.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        match nearest.filter(|k| distance(k) <= TOLERANCE) {
            Some(k) => counts[k] += 1,
            None => other += 1,
        }
    }
    (counts, other)
}

macro_rules! counted {
    ($($constant:ident, $name:literal, $meaning:literal, $formula:literal, $label:literal;)+) => {$(
        pub const $constant: Definition = Definition {
            name: $name,
            version: 1,
            meaning: $meaning,
            formula: $formula,
            source: "Elhage et al. 2022, Toy Models of Superposition, the geometry of superposition",
            needs: &[Need::Truth],
            kind: Kind::Count,
            shape: Shape::Scalar,
            label: $label,
            better: None,
        };
    )+};
}

counted! {
    CENSUS_DEDICATED, "census_dedicated", "represented features with a dimension of their own",
        "#{i represented : |D_i - 1| <= 0.015}", "dedicated features";
    CENSUS_TETRAHEDRON, "census_tetrahedron", "represented features that sit in tetrahedra",
        "#{i represented : |D_i - 3/4| <= 0.015}", "features in tetrahedra";
    CENSUS_TRIANGLE, "census_triangle", "represented features that sit in triangles",
        "#{i represented : |D_i - 2/3| <= 0.015}", "features in triangles";
    CENSUS_DIGON, "census_digon", "represented features that sit in antipodal pairs",
        "#{i represented : |D_i - 1/2| <= 0.015}", "features in antipodal pairs";
    CENSUS_PENTAGON, "census_pentagon", "represented features that sit in pentagons",
        "#{i represented : |D_i - 2/5| <= 0.015, nearer than 3/8}", "features in pentagons";
    CENSUS_ANTIPRISM, "census_antiprism", "represented features that sit in square antiprisms",
        "#{i represented : |D_i - 3/8| <= 0.015, nearer than 2/5}", "features in square antiprisms";
    CENSUS_OTHER, "census_other", "represented features whose dimensionality is that of no named polytope",
        "n_represented - the other counts", "features in no named polytope";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_is_counted_once_at_the_nearest_constant() {
        let dimensionality = [1.0, 0.986, 0.75, 0.66, 0.5, 0.514, 0.4, 0.389, 0.386, 0.375, 0.1, 0.7, 0.5];
        // The last is not represented.
        let represented: Vec<usize> = (0..12).collect();
        // .986 is within .015 of 1; .389 is nearer to .4, .386 to .375; .1 and .7 are at none.
        assert_eq!(census(&dimensionality, &represented), ([2, 1, 1, 2, 2, 2], 2));
    }

    #[test]
    fn halfway_between_pentagon_and_antiprism_the_pentagon_wins() {
        assert_eq!(census(&[0.3875], &[0]).0, [0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn windows_end_at_the_tolerance() {
        assert_eq!(census(&[0.5151, 0.4849, 0.9849], &[0, 1, 2]), ([0; 6], 3));
    }
}
