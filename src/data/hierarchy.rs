//! Features that fire only where another does (SAELens `synthetic/hierarchy/`).
//!
//! Trees stand over features. A node without a feature only groups its children: their *parent* is the nearest node above
//! that has one. A feature is 0 wherever its parent is; where a node is exclusive, at most one of its own children with a
//! feature stays on, chosen uniformly among those that would; where a node scales its children, their values are multiplied by
//! their parent's value, as already modified, over its mean. All this goes level by level, so that a feature that loses takes
//! its subtree with it.

use std::collections::BTreeMap;

use crate::random::{Draws, Stream};

/// Trees over features, parents before their children.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hierarchy {
    /// A node's parent stands before it.
    pub nodes: Vec<Node>,
    /// `[n_features]`: the rates that the world was asked for, where its firing probabilities were computed from them
    /// ([`Rates`](super::Rates)); none where they were not.
    pub asked: Option<Vec<f64>>,
}

/// A place in a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its feature; none for a node that only groups its children.
    pub feature: Option<usize>,
    /// Index of its parent; none for a root.
    pub parent: Option<usize>,
    /// Of its children at most one stays on: where several would fire, one of them, uniformly.
    pub exclusive: bool,
    /// Values of its children are multiplied by its own value over its mean.
    pub scale_children: bool,
}

/// Why nodes are no hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HierarchyError {
    /// A feature that is not there.
    #[error("feature {feature} in a tree, but features run from 0 to {last}")]
    NoFeature { feature: usize, last: usize },
    /// A feature below itself.
    #[error("feature {feature} stands below itself: a cycle")]
    Cycle { feature: usize },
    /// A feature at two places.
    #[error("feature {feature} stands at two places of the trees: it would have two parents")]
    Twice { feature: usize },
    /// A node names a parent that does not stand before it.
    #[error("node {node} stands before its parent")]
    Order { node: usize },
}

/// Features of one node that share its rules: its children that have a feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The feature that must be on; none below nodes without feature from the root on.
    pub parent: Option<usize>,
    /// In the order of the tree.
    pub members: Vec<usize>,
    /// At most one stays on; only where there are two or more.
    pub exclusive: bool,
    /// Values are multiplied by the parent's over its mean; only where there is a parent.
    pub scale: bool,
}

/// Settings of generated trees (SAELens `HierarchyConfig`).
#[derive(Clone, Debug, PartialEq)]
pub struct Trees {
    /// Roots; fewer where there are not so many features.
    pub roots: usize,
    /// Least and greatest number of children of a node.
    pub branching: [usize; 2],
    /// Levels below the roots.
    pub depth: usize,
    /// Share of the nodes of at least two children, within `exclusive_levels`, whose children are exclusive.
    pub exclusive: f64,
    /// First and last level of exclusive nodes, roots being level 0.
    pub exclusive_levels: [usize; 2],
    /// Whether all nodes scale their children.
    pub scale_children: bool,
}

impl Hierarchy {
    /// Checks nodes.
    ///
    /// # Errors
    /// If a feature is not there, stands at two places or below itself, or a node before its parent.
    pub fn new(n_features: usize, nodes: Vec<Node>) -> Result<Hierarchy, HierarchyError> {
        match problem(n_features, &nodes) {
            Some((_, error)) => Err(error),
            None => Ok(Hierarchy { nodes, asked: None }),
        }
    }

    /// Trees built breadth first: all roots take indices 0 .. roots, then each level takes indices in the order of its
    /// parents; with the last feature they end, features left over are free. Exclusive nodes are ⌊share · eligible⌋ of the
    /// eligible ones. Random numbers of children and the choice of exclusive nodes come from `seed`; with one number of
    /// children and a share of 0 or 1 nothing is random, and the layout is SAELens's `generate_hierarchy`'s. (SAELens draws the
    /// rest with Python's generator: the same law, other draws.)
    pub fn generated(n_features: usize, trees: &Trees, seed: u64) -> Hierarchy {
        let mut draws = Draws::new(seed, Stream::Hierarchy, 0);
        let node = |feature, parent| Node {
            feature: Some(feature),
            parent,
            scale_children: trees.scale_children,
            ..Node::default()
        };
        let mut nodes: Vec<Node> = (0..trees.roots.min(n_features)).map(|i| node(i, None)).collect();
        let mut eligible = vec![];
        let mut level = 0..nodes.len();
        for depth in 0..trees.depth {
            for parent in level.clone() {
                let [least, most] = trees.branching;
                let wanted =
                    if least == most { least } else { least + draws.below((most - least + 1) as u32) as usize };
                let count = wanted.min(n_features - nodes.len());
                nodes.extend((0..count).map(|_| node(0, Some(parent))));
                if count >= 2 && (trees.exclusive_levels[0]..=trees.exclusive_levels[1]).contains(&depth) {
                    eligible.push(parent);
                }
            }
            level = level.end..nodes.len();
        }
        // Nodes stand in the order of their features.
        nodes.iter_mut().enumerate().for_each(|(i, node)| node.feature = Some(i));
        let chosen = (eligible.len() as f64 * trees.exclusive) as usize;
        if chosen < eligible.len() {
            // Fisher and Yates, as far as needed.
            for i in 0..chosen {
                let other = i + draws.below((eligible.len() - i) as u32) as usize;
                eligible.swap(i, other);
            }
        }
        eligible[..chosen].iter().for_each(|&parent| nodes[parent].exclusive = true);
        Hierarchy { nodes, asked: None }
    }

    /// Parent of each feature that has one.
    pub fn parents(&self) -> BTreeMap<usize, usize> {
        let above = self.nearest_features();
        let pair = |(node, above): (&Node, &Option<usize>)| Some((node.feature?, (*above)?));
        self.nodes.iter().zip(&above).filter_map(pair).collect()
    }

    /// Families, each after the one its parent belongs to. Roots with a feature are in none: nothing gates them.
    pub fn families(&self) -> Vec<Family> {
        let above = self.nearest_features();
        let mut members = vec![vec![]; self.nodes.len()];
        for node in &self.nodes {
            if let (Some(parent), Some(feature)) = (node.parent, node.feature) {
                members[parent].push(feature);
            }
        }
        let of = |((node, above), members): ((&Node, &Option<usize>), Vec<usize>)| {
            let parent = node.feature.or(*above);
            let exclusive = node.exclusive && members.len() > 1;
            (!members.is_empty()).then(|| Family {
                parent,
                exclusive,
                scale: node.scale_children && parent.is_some(),
                members,
            })
        };
        self.nodes.iter().zip(&above).zip(members).filter_map(of).collect()
    }

    /// How many features stand above each, `[n_features]`; none for features in no tree.
    pub fn depths(&self, n_features: usize) -> Vec<Option<usize>> {
        let (mut depths, parents) = (vec![None; n_features], self.parents());
        for feature in self.nodes.iter().filter_map(|node| node.feature) {
            // A parent's node stands before those of its children.
            depths[feature] =
                Some(parents.get(&feature).map_or(0, |&parent| depths[parent].map_or(0, |d: usize| d + 1)));
        }
        depths
    }

    /// `[nodes]`: the nearest feature above each.
    fn nearest_features(&self) -> Vec<Option<usize>> {
        let mut above: Vec<Option<usize>> = vec![];
        for node in &self.nodes {
            above.push(node.parent.and_then(|parent| self.nodes[parent].feature.or(above[parent])));
        }
        above
    }
}

/// The first thing wrong with nodes, and at which.
pub fn problem(n_features: usize, nodes: &[Node]) -> Option<(usize, HierarchyError)> {
    let mut place = vec![None; n_features];
    for (index, node) in nodes.iter().enumerate() {
        if node.parent.is_some_and(|parent| parent >= index) {
            return Some((index, HierarchyError::Order { node: index }));
        }
        let Some(feature) = node.feature else { continue };
        let Some(seen) = place.get_mut(feature) else {
            return Some((index, HierarchyError::NoFeature { feature, last: n_features.saturating_sub(1) }));
        };
        if let Some(first) = seen.replace(index) {
            let mut above = std::iter::successors(node.parent, |&parent| nodes[parent].parent);
            let cyclic = above.any(|parent| parent == first);
            let error = if cyclic { HierarchyError::Cycle { feature } } else { HierarchyError::Twice { feature } };
            return Some((index, error));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(feature: impl Into<Option<usize>>, parent: impl Into<Option<usize>>) -> Node {
        Node { feature: feature.into(), parent: parent.into(), ..Node::default() }
    }

    fn trees(roots: usize, branching: [usize; 2], depth: usize) -> Trees {
        Trees { roots, branching, depth, exclusive: 0.0, exclusive_levels: [0, usize::MAX], scale_children: false }
    }

    #[test]
    fn the_benchmark_of_16384_features_has_the_published_layout() {
        let settings = Trees { exclusive: 1.0, ..trees(128, [4, 4], 3) };
        let built = Hierarchy::generated(16384, &settings, 7);
        let depths = built.depths(16384);
        let count = |depth| depths.iter().filter(|d| **d == depth).count();
        assert_eq!([0, 1, 2, 3].map(|d| count(Some(d))), [128, 512, 2048, 8192]);
        assert_eq!(count(None), 5504);
        let (parents, families) = (built.parents(), built.families());
        let golden = crate::testing::json(crate::testing::golden("worlds.json"));
        for row in golden["world_16k"]["rows"].as_array().expect("rows") {
            let index = row["index"].as_u64().expect("an index") as usize;
            assert_eq!(parents.get(&index).map(|p| *p as u64), row["parent"].as_u64(), "{index}");
            assert_eq!(depths[index].map(|d| d as u64), row["depth"].as_u64(), "{index}");
        }
        assert_eq!(families.len(), 2688);
        assert!(families.iter().all(|f| f.exclusive && f.members.len() == 4 && !f.scale));
        assert_eq!(Hierarchy::generated(16384, &settings, 8), built, "nothing is left to chance");
    }

    #[test]
    fn trees_end_with_the_last_feature_and_random_branching_stays_in_its_bounds() {
        let few = Hierarchy::generated(7, &trees(2, [2, 2], 5), 0);
        let parents: Vec<(usize, usize)> = few.parents().into_iter().collect();
        assert_eq!(parents, [(2, 0), (3, 0), (4, 1), (5, 1), (6, 2)]);
        assert_eq!(Hierarchy::generated(3, &trees(9, [2, 2], 5), 0).nodes.len(), 3);
        let many = Hierarchy::generated(2000, &trees(20, [2, 5], 2), 3);
        let sizes: Vec<usize> = many.families().iter().map(|f| f.members.len()).collect();
        assert!(sizes.iter().all(|s| (2..=5).contains(s)), "{sizes:?}");
        assert!((2..=5).all(|s| sizes.contains(&s)), "all sizes come up among {}", sizes.len());
        assert_ne!(Hierarchy::generated(2000, &trees(20, [2, 5], 2), 4), many);
    }

    #[test]
    fn a_share_of_the_nodes_in_the_given_levels_is_exclusive() {
        let settings = Trees { exclusive: 0.5, exclusive_levels: [1, 1], ..trees(10, [3, 3], 3) };
        let built = Hierarchy::generated(1000, &settings, 5);
        let depths = built.depths(1000);
        let exclusive: Vec<Family> = built.families().into_iter().filter(|f| f.exclusive).collect();
        assert_eq!(exclusive.len(), 15, "half of thirty nodes of level 1");
        assert!(exclusive.iter().all(|f| f.parent.is_some_and(|p| depths[p] == Some(1))));
    }

    #[test]
    fn nodes_without_feature_pass_on_the_one_above_them() {
        // 0 {organisational, exclusive {1, 2, organisational {3}}}; organisational {4 {5}}
        let nodes = vec![
            node(0, None),
            Node { exclusive: true, scale_children: true, ..node(None, 0) },
            node(1, 1),
            node(2, 1),
            node(None, 1),
            node(3, 4),
            Node { scale_children: true, ..node(None, None) },
            node(4, 6),
            node(5, 7),
        ];
        let built = Hierarchy::new(6, nodes).expect("trees");
        assert_eq!(built.parents(), BTreeMap::from([(1, 0), (2, 0), (3, 0), (5, 4)]));
        assert_eq!(built.depths(6), [0, 1, 1, 1, 0, 1].map(Some));
        let family = |parent, members: &[usize], exclusive, scale| Family {
            parent,
            members: members.to_vec(),
            exclusive,
            scale,
        };
        let expected = [
            family(Some(0), &[1, 2], true, true),
            family(Some(0), &[3], false, false),
            family(None, &[4], false, false),
            family(Some(4), &[5], false, false),
        ];
        assert_eq!(built.families(), expected);
    }

    #[test]
    fn what_is_no_hierarchy_is_refused() {
        let wrong = |nodes: Vec<Node>| problem(3, &nodes);
        assert_eq!(wrong(vec![node(3, None)]), Some((0, HierarchyError::NoFeature { feature: 3, last: 2 })));
        assert_eq!(wrong(vec![node(0, None), node(1, 0), node(0, 1)]), Some((2, HierarchyError::Cycle { feature: 0 })));
        assert_eq!(
            wrong(vec![node(0, None), node(2, 0), node(1, None), node(2, 2)]),
            Some((3, HierarchyError::Twice { feature: 2 }))
        );
        assert_eq!(wrong(vec![node(0, 1), node(1, None)]), Some((0, HierarchyError::Order { node: 0 })));
        assert_eq!(wrong(vec![node(0, None), node(None, 0), node(1, 1)]), None);
    }
}
