//! Scores that need more than arrays: the law of the world, or the toy model itself.

use ndarray::ArrayView2;

use super::geometry::represented;
use super::vector::Directions;
use super::{Value, readout, sets, sparsity, vulnerability};
use crate::codes::Codes;
use crate::data::{Group, World};
use crate::toy::ToyModel;

/// What [`of_world`] is computed from. Shapes agree with each other.
#[derive(Clone, Copy)]
pub struct WorldArrays<'a> {
    /// The law of x.
    pub world: &'a World,
    /// `[n_features, d_hidden]`, as for [`evaluate`](super::evaluate).
    pub truth: ArrayView2<'a, f32>,
    /// `[samples, n_features]`: evaluation samples, where a score needs them.
    pub features: Option<&'a Codes<f32>>,
    /// The toy model, where there is one.
    pub toy: Option<&'a ToyModel>,
}

/// Those of the scores `wanted` (base names) that are computed here, in that order; other names are left out, as are scores
/// whose samples or toy model are missing.
pub fn of_world(arrays: &WorldArrays<'_>, wanted: &[&'static str]) -> Vec<(&'static str, Value)> {
    let known = wanted.iter().filter(|name| is_of_world(name));
    let known: Vec<&'static str> = known.copied().collect();
    if known.is_empty() {
        return vec![];
    }
    let (truth, x) = (Directions::new(arrays.truth), arrays.features);
    let represented = represented(&truth);
    let value = |name: &'static str| {
        let value = match name {
            "interference_expected" => readout::interference_expected(arrays.world, &truth, &represented),
            "interference_measured" => readout::interference_measured(x?, &truth, &represented),
            "donoho_tanner_limit" => sparsity::donoho_tanner(truth.n, truth.d_hidden, arrays.world.is_signed()),
            "vulnerability" => vulnerability::vulnerability(arrays.toy?, &truth, &represented, x?),
            _ => sets::of_sets(name, &truth, &arrays.world.groups)?,
        };
        Some((name, value))
    };
    known.into_iter().filter_map(value).collect()
}

/// The score `name` of sets of features, for directions `[n_features, d_hidden]`; none if that is no score of sets.
pub fn of_groups(name: &str, truth: ArrayView2<'_, f32>, groups: &[Group]) -> Option<Value> {
    sets::of_sets(name, &Directions::new(truth), groups)
}

fn is_of_world(name: &str) -> bool {
    let alone = [
        &readout::INTERFERENCE_EXPECTED,
        &readout::INTERFERENCE_MEASURED,
        &sparsity::DONOHO_TANNER,
        &vulnerability::VULNERABILITY,
    ];
    alone.iter().chain(sets::SETS).any(|definition| definition.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Group, GroupRule, Magnitude, MagnitudeSharing};
    use crate::toy::ToyKind;
    use ndarray::arr2;

    #[test]
    fn what_is_asked_for_and_known_comes_in_order() {
        let world = World {
            n_features: 2,
            firing_probability: vec![0.5; 2],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![Group { rule: GroupRule::Exclusive, members: vec![0, 1], firing_probability: 0.5 }],
            dataset: None,
            correlation: None,
            hierarchy: None,
        };
        let (truth, features) = (arr2(&[[1.0f32], [-1.0]]), arr2(&[[0.5f32, 0.0], [0.0, 0.0]]));
        let features = Codes::of_dense(features.view());
        let model = ToyModel {
            kind: ToyKind::ReluOutput,
            n_features: 2,
            d_hidden: 1,
            w: vec![1.0, -1.0],
            c: vec![],
            v: vec![],
            b: vec![0.0; 2],
        };
        let arrays = WorldArrays { world: &world, truth: truth.view(), features: Some(&features), toy: Some(&model) };
        let wanted = [
            "vulnerability",
            "mcc",
            "cosine_within",
            "interference_measured",
            "interference_expected",
            "donoho_tanner_limit",
        ];
        let names = |found: &[(&'static str, Value)]| found.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let found = of_world(&arrays, &wanted);
        let expected = [wanted[0], wanted[2], wanted[3], wanted[4], wanted[5]];
        assert_eq!(names(&found), expected);
        assert_eq!(found[1].1, Ok(-1.0));
        // Feature 1 gets .5 · -1 in the first of two samples, two features: .25 / 4. By the law either adds E x² = p/2/3.
        assert_eq!(found[2].1, Ok(0.0625));
        assert!((found[3].1.unwrap() - 0.25 / 3.0).abs() < 1e-15);
        let without = of_world(&WorldArrays { toy: None, ..arrays }, &wanted);
        assert_eq!(names(&without), expected[1..]);
        let without = of_world(&WorldArrays { features: None, ..arrays }, &wanted);
        assert_eq!(names(&without), [wanted[2], wanted[4], wanted[5]]);
        assert!(of_world(&arrays, &["loss"]).is_empty());
    }
}
