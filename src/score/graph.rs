//! The graph of represented features, joined where their directions overlap.

use rayon::prelude::*;

use super::definition::{Definition, Kind, Need, Shape};
use super::vector::{Directions, dot};
use super::{NOTHING_REPRESENTED, Value};

/// Features are joined where |W_i · W_j| is greater.
pub const EDGE: f64 = 0.2;

const GEOMETRY: &str = "Elhage et al. 2022, Toy Models of Superposition, the geometry of superposition";

pub const N_COMPONENTS: Definition = Definition {
    name: "n_components",
    version: 1,
    meaning: "connected components of the represented features, joined where |W_i . W_j| > 0.2",
    formula: "number of components; a feature joined to none is one",
    source: GEOMETRY,
    needs: &[Need::Truth],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "components of the feature graph",
    better: None,
};

pub const LARGEST_COMPONENT: Definition = Definition {
    name: "largest_component",
    version: 1,
    meaning: "features in the largest of these components",
    formula: "max over components of their number of features",
    source: GEOMETRY,
    needs: &[Need::Truth],
    kind: Kind::Count,
    shape: Shape::Scalar,
    label: "largest component (features)",
    better: None,
};

pub const PAIR_SHARE: Definition = Definition {
    name: "pair_share",
    version: 1,
    meaning: "share of represented features that sit in components of two",
    formula: "2 #{components of size 2} / n_represented",
    source: GEOMETRY,
    needs: &[Need::Truth],
    kind: Kind::Share,
    shape: Shape::Scalar,
    label: "share of features in pairs",
    better: None,
};

/// Sizes of the components of the represented features, in the order of their least feature.
pub fn components(truth: &Directions, represented: &[usize]) -> Vec<usize> {
    // Edges to later features only; rows over threads, joined in order.
    let edges = |a: usize| -> Vec<usize> {
        let joined = |b: &usize| dot(truth.raw(represented[a]), truth.raw(represented[*b])).abs() > EDGE;
        (a + 1..represented.len()).filter(joined).collect()
    };
    let neighbours: Vec<Vec<usize>> = (0..represented.len()).into_par_iter().map(edges).collect();
    let mut parent: Vec<usize> = (0..represented.len()).collect();
    for (a, later) in neighbours.iter().enumerate() {
        for &b in later {
            let (a, b) = (root(&mut parent, a), root(&mut parent, b));
            // The lesser index is the root.
            parent[a.max(b)] = a.min(b);
        }
    }
    let mut sizes = vec![0; represented.len()];
    (0..represented.len()).for_each(|a| sizes[root(&mut parent, a)] += 1);
    sizes.retain(|size| *size > 0);
    sizes
}

fn root(parent: &mut [usize], mut a: usize) -> usize {
    while parent[a] != a {
        parent[a] = parent[parent[a]];
        a = parent[a];
    }
    a
}

/// [`LARGEST_COMPONENT`] of sizes.
pub fn largest_component(sizes: &[usize]) -> Value {
    sizes.iter().max().map(|size| *size as f64).ok_or(NOTHING_REPRESENTED)
}

/// [`PAIR_SHARE`] of sizes.
pub fn pair_share(sizes: &[usize]) -> Value {
    let pairs = sizes.iter().filter(|size| **size == 2).count();
    match sizes.iter().sum::<usize>() {
        0 => Err(NOTHING_REPRESENTED),
        features => Ok(2.0 * pairs as f64 / features as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    /// A pair, a chain of three whose ends do not meet, one alone, one too short to count.
    #[test]
    fn components_are_found_through_chains() {
        let rows = arr2(&[
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 1.0, 0.0, 0.0],
            [-1.0, 0.0, 0.0, 0.0],
            [0.0, 0.5, 0.6, 0.0],
            [0.0, 0.0, 1.0, 0.1],
            [0.0, 0.0, 0.0, 1.0],
            [0.0, 0.0, 0.0, 0.4],
        ]);
        let sizes = components(&Directions::new(rows.view()), &[0, 1, 2, 3, 4, 5]);
        assert_eq!(sizes, [2, 3, 1]);
        assert_eq!((largest_component(&sizes), pair_share(&sizes)), (Ok(3.0), Ok(2.0 / 6.0)));
    }

    #[test]
    fn the_threshold_itself_is_no_edge() {
        let rows = arr2(&[[1.0, 0.0], [0.2, 0.75], [0.0, -1.0]]);
        assert_eq!(components(&Directions::new(rows.view()), &[0, 1]), [1, 1]);
    }

    #[test]
    fn nothing_represented_has_no_components() {
        let sizes = components(&Directions::new(arr2(&[[0.1, 0.0]]).view()), &[]);
        assert!(sizes.is_empty() && largest_component(&sizes).is_err() && pair_share(&sizes).is_err());
    }
}
