//! The `correlation` and `hierarchy` of the `data` section: features that depend on each other.

use serde_json::{Value as Json, json};

use super::data::DataSection;
use super::kind::{Choice, Count, Flag, Kind, ListOf, Maybe, NonNegative, Number, Reader, Shape, Share, Text, Whole};
use super::kind::{choice, record};
use super::node::{Node, Value};
use crate::data::hierarchy::{self, Hierarchy, HierarchyError};

choice! {
    /// A Gaussian copula between the firings of features; their probabilities stay what they are.
    pub enum CorrelationSection as "correlation" {
        /// Features fire independently of each other.
        none => None,
        /// Given pairs [i, j, rho]; alone: all other pairs have correlation 0.
        pairs => Pairs(PairsSection as PairsOrSettings),
        /// Factors that all features share: g = F eps + sqrt(D) eta.
        low_rank => LowRank(LowRankSection as LowRankSection),
        /// Every pair at random, drawn once per seed; eigenvalues below 0 are lifted, which makes the correlations smaller.
        random => Random(RandomSection as RandomSection),
        /// A matrix from a `.npy` or `.safetensors` file, [n_features, n_features].
        matrix => Matrix(String as Text),
    }
}

record! {
    /// Pairs and what all others have.
    pub struct PairsSection as "pairs" {
        /// Pairs [i, j, rho].
        list: Vec<(usize, usize, f64)> as ListOf<Pair> = required "[[0, 1, 0.4]]",
        /// Correlation of every pair that is not listed.
        default: f64 as Number = "0",
    }
}

/// A list of pairs, or a mapping with the correlation of all others beside it.
#[derive(Debug)]
pub struct PairsOrSettings;

impl Kind for PairsOrSettings {
    type Out = PairsSection;
    fn read(node: &Node, reader: &mut Reader) -> Option<PairsSection> {
        match &node.value {
            Value::Map(_) => PairsSection::read(node, reader),
            _ => ListOf::<Pair>::read(node, reader).map(|list| PairsSection { list, default: 0.0 }),
        }
    }
    fn shape() -> Shape {
        let bare = vec![ListOf::<Pair>::shape(), PairsSection::shape()];
        Shape::Choice(Choice { doc: "a list of pairs, or {list, default}", bare, options: vec![] })
    }
    fn canonical(out: &PairsSection) -> Json {
        PairsSection::canonical(out)
    }
}

/// [i, j, rho].
#[derive(Debug)]
pub struct Pair;

impl Kind for Pair {
    type Out = (usize, usize, f64);
    fn read(node: &Node, reader: &mut Reader) -> Option<(usize, usize, f64)> {
        let items = match &node.value {
            Value::List(items) if items.len() == 3 => items,
            _ => return reader.expected(node, "a pair [i, j, rho]", Some("for example [0, 1, 0.4]".to_owned())),
        };
        let (i, j) = (Whole::read(&items[0], reader), Whole::read(&items[1], reader));
        Some((i?, j?, Number::read(&items[2], reader)?))
    }
    fn shape() -> Shape {
        Shape::List(Box::new(Number::shape()))
    }
    fn canonical(out: &(usize, usize, f64)) -> Json {
        json!(out)
    }
}

record! {
    /// A random factor: F_ik = scale · N(0, 1), drawn once per seed; a feature keeps a hundredth of its variance at least.
    pub struct LowRankSection as "low_rank" {
        /// Number of factors.
        rank: usize as Rank = "32",
        /// Standard deviation of the entries of F.
        scale: f64 as NonNegative = "0.1",
    }
}

/// 1 to 1024 factors.
#[derive(Debug)]
pub struct Rank;

impl Kind for Rank {
    type Out = usize;
    fn read(node: &Node, reader: &mut Reader) -> Option<usize> {
        let rank = Count::read(node, reader)?;
        if rank > 1024 {
            let message = format!("{rank} factors: at most 1024");
            reader.error(node.place, message, Some("`random` or `matrix` correlate every pair".to_owned()));
            return None;
        }
        Some(rank)
    }
    fn shape() -> Shape {
        Shape::Leaf {
            json: "integer",
            words: "a whole number from 1 to 1024",
            least: Some(1.0),
            greatest: Some(1024.0),
        }
    }
    fn canonical(out: &usize) -> Json {
        json!(out)
    }
}

record! {
    /// Random pairs.
    pub struct RandomSection as "random" {
        /// How pairs are chosen.
        form: FormSection as FormSection = "pairs",
        /// Share of the correlated pairs with a positive correlation.
        positive: f64 as Share = "0.5",
        /// Share of all pairs without correlation.
        uncorrelated: f64 as Share = "0.3",
        /// Least and greatest size of a correlation, uniform between them.
        strength: [f64; 2] as Sizes = "[0.1, 0.8]",
    }
}

choice! {
    /// Which pairs are correlated, and which of them positively.
    pub enum FormSection as "form" {
        /// Exactly those shares of the pairs.
        pairs => Pairs,
        /// Every pair for itself, with those probabilities.
        matrix => Matrix,
    }
}

/// [least, greatest] in [0, 1].
#[derive(Debug)]
pub struct Sizes;

impl Kind for Sizes {
    type Out = [f64; 2];
    fn read(node: &Node, reader: &mut Reader) -> Option<[f64; 2]> {
        // The default, as `record!` writes it.
        if let Value::Scalar { text, .. } = &node.value
            && text == "[0.1, 0.8]"
        {
            return Some([0.1, 0.8]);
        }
        match ListOf::<Share>::read(node, reader)?[..] {
            [least, greatest] if least <= greatest => Some([least, greatest]),
            [least, greatest] => {
                reader.error(
                    node.place,
                    format!("[{least}, {greatest}]: the first must not be above the second"),
                    None,
                );
                None
            }
            _ => reader.expected(node, "two numbers [least, greatest]", None),
        }
    }
    fn shape() -> Shape {
        Shape::Pair(Box::new(Share::shape()))
    }
    fn canonical(out: &[f64; 2]) -> Json {
        json!(out)
    }
}

record! {
    /// Features that fire only where another does: trees written out (`tree`), or generated ones (`roots` and what follows).
    pub struct HierarchySection as "hierarchy" {
        /// How the firing probabilities of features with a parent are read.
        rates: RatesSection as RatesSection = "as_given",
        /// Trees, node by node.
        tree: Vec<TreeNode> as ListOf<TreeNode> = "[]",
        /// Generated trees: their number. Roots are features 0, 1, ..., then come their children, level by level; features left over have no parent.
        roots: Option<usize> as Maybe<Count> = "none",
        /// Generated trees: children of a node, a number or [least, greatest].
        branching: [usize; 2] as Branching = "4",
        /// Generated trees: levels below the roots.
        depth: usize as Count = "2",
        /// Generated trees: of the children of a node at most one fires.
        exclusive: bool as Flag = "false",
        /// Share of the nodes that are exclusive, if any are.
        exclusive_share: f64 as Share = "1",
        /// First level of exclusive nodes, roots being level 0.
        exclusive_from: usize as Whole = "0",
        /// Last level of exclusive nodes; none: the last but one of the tree.
        exclusive_to: Option<usize> as Maybe<Whole> = "none",
        /// Generated trees: a child's value is multiplied by its parent's value over the parent's mean.
        scale_children: bool as Flag = "false",
    }
}

choice! {
    /// What the firing probability of a feature with a parent means.
    pub enum RatesSection as "rates" {
        /// That of its own coin: it fires where the coin and its parent do, so less often.
        as_given => AsGiven,
        /// Its rate, approached as SAELens does: own probability p_i / p_parent (1 + sum of siblings' p / p_parent); deeper levels fall short.
        first_order => FirstOrder,
        /// Its rate, met exactly: parents, siblings, correlation and values clipped at 0 taken into account.
        exact => Exact,
        /// The probability that it fires given that its parent does.
        conditional => Conditional,
    }
}

record! {
    /// A node of a tree.
    pub struct TreeNode as "node" {
        /// Its feature; none: it only groups its children, whose parent is the nearest feature above.
        feature: Option<usize> as Maybe<Whole> = "none",
        /// Of its children at most one fires: where several would, one of them, uniformly.
        exclusive: bool as Flag = "false",
        /// A child's value is multiplied by this feature's value over its mean.
        scale_children: bool as Flag = "false",
        /// In place of the feature's entry of `firing_probability`, read as `rates` says.
        probability: Option<f64> as Maybe<Share> = "none",
        /// Nodes below it, written as this one is.
        children: Vec<TreeNode> as Children = "[]",
    }
}

/// The children of a node: nodes again.
#[derive(Debug)]
pub struct Children;

impl Kind for Children {
    type Out = Vec<TreeNode>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Vec<TreeNode>> {
        ListOf::<TreeNode>::read(node, reader)
    }
    fn shape() -> Shape {
        Shape::Again { words: "a list of nodes as above", shape: ListOf::<TreeNode>::shape }
    }
    fn canonical(out: &Vec<TreeNode>) -> Json {
        ListOf::<TreeNode>::canonical(out)
    }
}

/// A number of children, or the least and the greatest.
#[derive(Debug)]
pub struct Branching;

impl Kind for Branching {
    type Out = [usize; 2];
    fn read(node: &Node, reader: &mut Reader) -> Option<[usize; 2]> {
        let Value::List(_) = &node.value else { return Count::read(node, reader).map(|count| [count; 2]) };
        match ListOf::<Count>::read(node, reader)?[..] {
            [least, most] if least <= most && most <= 1 << 20 => Some([least, most]),
            [least, most] => {
                reader.error(node.place, format!("[{least}, {most}]: a node has from the first to the second"), None);
                None
            }
            _ => reader.expected(node, "a number of children, or [least, greatest]", None),
        }
    }
    fn shape() -> Shape {
        let bare = vec![Count::shape(), Shape::Pair(Box::new(Count::shape()))];
        Shape::Choice(Choice { doc: "a number of children, or [least, greatest]", bare, options: vec![] })
    }
    fn canonical(out: &[usize; 2]) -> Json {
        json!(out)
    }
}

impl HierarchySection {
    /// The nodes of written trees, parents first, and the path of each in the file.
    pub fn written(&self) -> (Vec<hierarchy::Node>, Vec<String>) {
        let (mut nodes, mut paths) = (vec![], vec![]);
        for (i, root) in self.tree.iter().enumerate() {
            add(root, None, format!("tree.{i}"), &mut nodes, &mut paths);
        }
        (nodes, paths)
    }

    /// Probabilities written at nodes.
    pub fn probabilities(&self) -> Vec<(usize, f64)> {
        fn of(node: &TreeNode, found: &mut Vec<(usize, f64)>) {
            found.extend(node.feature.zip(node.probability));
            node.children.iter().for_each(|child| of(child, found));
        }
        let mut found = vec![];
        self.tree.iter().for_each(|root| of(root, &mut found));
        found
    }

    /// The trees of a world.
    ///
    /// # Errors
    /// As [`Hierarchy::new`]; a checked file has none of these.
    pub fn trees(&self, n_features: usize, seed: u64) -> Result<Hierarchy, HierarchyError> {
        let Some(roots) = self.roots else { return Hierarchy::new(n_features, self.written().0) };
        let settings = hierarchy::Trees {
            roots,
            branching: self.branching,
            depth: self.depth,
            exclusive: if self.exclusive { self.exclusive_share } else { 0.0 },
            exclusive_levels: [self.exclusive_from, self.exclusive_to.unwrap_or(usize::MAX)],
            scale_children: self.scale_children,
        };
        Ok(Hierarchy::generated(n_features, &settings, seed))
    }
}

/// Adds a node and all below it.
fn add(
    node: &TreeNode,
    parent: Option<usize>,
    path: String,
    nodes: &mut Vec<hierarchy::Node>,
    paths: &mut Vec<String>,
) {
    let TreeNode { feature, exclusive, scale_children, .. } = *node;
    let index = nodes.len();
    nodes.push(hierarchy::Node { feature, parent, exclusive, scale_children });
    paths.push(path.clone());
    for (i, child) in node.children.iter().enumerate() {
        add(child, Some(index), format!("{path}.children.{i}"), nodes, paths);
    }
}

/// Checks what a single value cannot know: indices, trees, and what does not go together.
pub fn check(section: &DataSection, node: &Node, reader: &mut Reader) {
    let place = |key: &str| node.get(key).unwrap_or(node).place;
    let linked = [("correlation", section.is_correlated()), ("hierarchy", section.hierarchy.is_some())];
    for (key, _) in linked.iter().filter(|(_, given)| *given) {
        if !section.groups.is_empty() {
            let message = format!("`groups` and `{key}` both say which features fire together");
            reader.error(place(key), message, Some("keep one of them".to_owned()));
        }
    }
    if let Some(hierarchy) = &section.hierarchy {
        if section.is_signed() {
            let message = "a parent is on where its value is above 0, and in this world values may be below";
            reader.error(place("hierarchy"), message, Some("give a `magnitude` that is never negative".to_owned()));
        }
        trees(hierarchy, section.n_features, node.get("hierarchy").unwrap_or(node), reader);
    }
}

fn trees(section: &HierarchySection, n_features: usize, node: &Node, reader: &mut Reader) {
    let place = |key: &str| node.get(key).unwrap_or(node).place;
    match (section.roots, section.tree.is_empty()) {
        (None, true) => {
            let help = "write a `tree`, or give `roots`, `branching` and `depth`".to_owned();
            reader.error(node.place, "a hierarchy without trees", Some(help));
        }
        (Some(_), false) => {
            let help = "keep `tree`, or `roots` with `branching` and `depth`".to_owned();
            reader.error(place("roots"), "trees are written out or generated, not both", Some(help));
        }
        (Some(roots), true) if roots > n_features => {
            reader.error(place("roots"), format!("{roots} roots of {n_features} features"), None);
        }
        (Some(_), true) => exclusive_levels(section, node, reader),
        (None, false) => {
            let keys = [
                "branching",
                "depth",
                "exclusive",
                "exclusive_share",
                "exclusive_from",
                "exclusive_to",
                "scale_children",
            ];
            for key in keys.into_iter().filter(|key| node.get(key).is_some()) {
                let message = format!("`{key}` is a setting of generated trees");
                reader.error(place(key), message, Some("write it at the nodes of `tree`".to_owned()));
            }
            let (nodes, paths) = section.written();
            let at = |index: usize| node.at(paths[index].split('.')).unwrap_or(node);
            if let Some((index, error)) = hierarchy::problem(n_features, &nodes) {
                let there = at(index);
                let help = match error {
                    HierarchyError::NoFeature { .. } => None,
                    _ => Some("each feature stands at one place of the trees".to_owned()),
                };
                reader.error(there.get("feature").unwrap_or(there).place, error.to_string(), help);
            }
            for (i, root) in section.tree.iter().enumerate() {
                without_feature(root, node.at(["tree", &i.to_string()]).unwrap_or(node), reader);
            }
        }
    }
}

/// Which nodes of generated trees are exclusive, where any are.
fn exclusive_levels(section: &HierarchySection, node: &Node, reader: &mut Reader) {
    for key in ["exclusive_share", "exclusive_from", "exclusive_to"] {
        if let Some(written) = node.get(key).filter(|written| written.is_given()) {
            let message = format!("`{key}` has no effect without `exclusive: true`");
            reader.uses.note(written.place, section.exclusive, message, "leave it out, or write `exclusive: true`");
        }
    }
    if let Some(to) = section.exclusive_to.filter(|to| section.exclusive && section.exclusive_from > *to) {
        let from = section.exclusive_from;
        let message = format!("exclusive_from = {from} is above exclusive_to = {to}: no level would be exclusive");
        let place = node.get("exclusive_from").unwrap_or(node).place;
        reader.error(place, message, Some("exchange them".to_owned()));
    }
}

/// Nodes that say nothing.
fn without_feature(tree: &TreeNode, node: &Node, reader: &mut Reader) {
    if tree.feature.is_none() && tree.children.is_empty() {
        let help = "give it a `feature`, or `children`".to_owned();
        reader.error(node.place, "a node without feature and without children", Some(help));
    }
    if tree.feature.is_none() && tree.probability.is_some() {
        let at = node.get("probability").unwrap_or(node).place;
        reader.error(at, "a probability without a feature that has it", Some("give the node a `feature`".to_owned()));
    }
    for (i, child) in tree.children.iter().enumerate() {
        without_feature(child, node.at(["children", &i.to_string()]).unwrap_or(node), reader);
    }
}

impl DataSection {
    /// Whether firings are correlated.
    pub fn is_correlated(&self) -> bool {
        self.correlation != CorrelationSection::None
    }
}
