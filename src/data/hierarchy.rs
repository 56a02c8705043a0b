//! Features that fire only where another does (SAELens `synthetic/hierarchy/`).

/// Trees over features, parents before their children.
#[derive(Clone, Debug, PartialEq)]
pub struct Hierarchy {
    /// A node's parent stands before it.
    pub nodes: Vec<Node>,
}

/// A place in a tree.
#[derive(Clone, Debug, PartialEq)]
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
