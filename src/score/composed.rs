//! Latents for sums of two features.

use rayon::prelude::*;

use super::definition::{Definition, Kind, Need, Shape};
use super::tiles::dots;
use super::vector::{Directions, NORM_FLOOR, mean, square};
use super::{Undefined, Value};
use crate::data::Group;

/// Sums whose cosines with all latents are computed together.
const BLOCK: usize = 64;

pub const MMCS_COMPOSED: Definition = Definition {
    name: "mmcs_composed",
    version: 1,
    meaning: "mean over pairs of represented features of two sets of the best signed cosine of any latent with their sum",
    formula: "mean over i, j in different sets of max over k of w_k . unit(g_i + g_j)",
    source: "after Anders, Riggs, Shehper & Till 2024, Sparse autoencoders find composed features in small toy models",
    needs: &[Need::Truth, Need::Dictionary, Need::Groups],
    kind: Kind::Cosine,
    shape: Shape::Scalar,
    label: "mean max cosine with composed features",
    better: None,
};

/// [`MMCS_COMPOSED`] over sets of features; those in no set do not count.
pub fn mmcs_composed(truth: &Directions, dictionary: &Directions, represented: &[usize], groups: &[Group]) -> Value {
    if dictionary.n == 0 {
        return Err(Undefined("the dictionary has no latents"));
    }
    let there = |i: &&usize| represented.binary_search(i).is_ok();
    let members: Vec<(usize, usize)> = groups
        .iter()
        .enumerate()
        .flat_map(|(g, group)| group.members.iter().filter(there).map(move |&i| (i, g)))
        .collect();
    let later = |(at, &(i, g)): (usize, &(usize, usize))| {
        members[at + 1..].iter().filter(move |(_, other)| *other != g).map(move |&(j, _)| (i, j)).collect::<Vec<_>>()
    };
    let pairs: Vec<(usize, usize)> = members.iter().enumerate().flat_map(later).collect();
    let block = |pairs: &[(usize, usize)]| {
        let mut sums = vec![0.0; pairs.len() * truth.width];
        for (sum, &(i, j)) in sums.chunks_exact_mut(truth.width).zip(pairs) {
            let both = truth.unit(i).iter().zip(truth.unit(j));
            sum.iter_mut().zip(both).for_each(|(sum, (a, b))| *sum = a + b);
            let length = square(sum).sqrt().max(NORM_FLOOR);
            sum.iter_mut().for_each(|sum| *sum /= length);
        }
        let mut cosines = vec![0.0; pairs.len() * dictionary.n];
        dots(&sums, dictionary.unit_rows(0..dictionary.n), truth.width, &mut cosines);
        let best = cosines.chunks_exact(dictionary.n).map(|of| of.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        best.collect::<Vec<f64>>()
    };
    let best: Vec<f64> = pairs.par_chunks(BLOCK).map(block).collect::<Vec<_>>().concat();
    mean(best).ok_or(Undefined("no two sets have represented features"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::GroupRule;
    use ndarray::arr2;

    fn sets(members: &[&[usize]]) -> Vec<Group> {
        let group = |members: &&[usize]| Group {
            rule: GroupRule::Exclusive,
            members: members.to_vec(),
            firing_probability: 0.5,
        };
        members.iter().map(group).collect()
    }

    /// Four axes of which the last is short, in two sets: pairs (0, 2) and (1, 2). The latent (1, 0, 1, 0) is the first sum, and
    /// has cosine 1/2 with the second, (0, 1, 1, 0); the other latent is that sum's opposite.
    #[test]
    fn sums_of_features_of_two_sets_are_looked_for() {
        let mut axes = ndarray::Array2::<f64>::eye(4);
        axes[[3, 3]] = 0.3;
        let truth = Directions::new(axes.view());
        let dictionary = Directions::new(arr2(&[[3.0, 0.0, 3.0, 0.0], [0.0, -1.0, -1.0, 0.0]]).view());
        let found = mmcs_composed(&truth, &dictionary, &[0, 1, 2], &sets(&[&[0, 1], &[2, 3]]));
        assert!((found.unwrap() - 0.75).abs() < 1e-15);
        assert!(mmcs_composed(&truth, &dictionary, &[0, 1, 2], &sets(&[&[0, 1]])).is_err());
        assert!(mmcs_composed(&truth, &dictionary, &[], &sets(&[&[0, 1], &[2, 3]])).is_err());
    }
}
