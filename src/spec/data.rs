//! The `data` section: the world.

use serde_json::{Value as Json, json};

use super::curve::Curve;
use super::kind::{Count, Features, Flag, Interval, Kind, ListOf, Maybe, NonNegative, Number, Positive, Reader};
use super::kind::{Samples, Shape, Text, Whole, Width};
use super::kind::{choice, record};
use super::linked::{CorrelationSection, HierarchySection};
use super::node::{Node, Value};
use crate::data::synthetic_model::FILES;

record! {
    /// The world: the law of the feature activations x, and of the hidden states where no toy model makes them.
    pub struct DataSection as "data" {
        /// Number of ground-truth features.
        n_features: usize as Features = required "40",
        /// Probability that a feature fires: a number, a list with one entry per feature, or a curve.
        firing_probability: Curve as Curve = required "0.05",
        /// Value of a feature where it fires.
        magnitude: MagnitudeSection as MagnitudeSection = "uniform",
        /// Whether each feature draws its own magnitude or all features of a sample share one draw.
        magnitude_sharing: SharingSection as SharingSection = "independent",
        /// Sets of features that fire together or never together.
        groups: GroupsSection as GroupsSection = "[]",
        /// Hidden states without a toy model: h = sum of x_i f_i + b.
        dictionary: Option<DictionarySection> as Maybe<DictionarySection> = "none",
        /// A Gaussian copula between the firings of features.
        correlation: CorrelationSection as CorrelationSection = "none",
        /// Features that fire only where another does.
        hierarchy: Option<HierarchySection> as Maybe<HierarchySection> = "none",
        /// Folder of a SAELens synthetic model, which brings the whole world and its dictionary: no other key stands beside it.
        synthetic_model: Option<String> as Maybe<Text> = "none",
        /// A finite training set for the toy model; none: fresh samples for ever.
        dataset: Option<DatasetSection> as Maybe<DatasetSection> = "none",
    }
}

choice! {
    /// Law of the value of a firing feature.
    pub enum MagnitudeSection as "magnitude" {
        /// Uniform on [low, high]; alone: [0, 1].
        uniform => Uniform([f64; 2] as UnitInterval),
        /// Always this value: a number or a curve.
        constant => Constant(Curve as Curve),
        /// Normal, clipped at 0.
        normal => Normal(NormalSection as NormalSection),
        /// Absolute value of a normal.
        folded_normal => FoldedNormal(NormalSection as NormalSection),
        /// Exponential with this mean: a number or a curve.
        exponential => Exponential(Curve as Curve),
        /// Uniform on [-a, a].
        symmetric => Symmetric(f64 as Positive),
    }
}

/// [low, high], or nothing for [0, 1].
#[derive(Debug)]
pub struct UnitInterval;

impl Kind for UnitInterval {
    type Out = [f64; 2];
    fn read(node: &Node, reader: &mut Reader) -> Option<[f64; 2]> {
        match &node.value {
            Value::Map(entries) if entries.is_empty() => Some([0.0, 1.0]),
            _ => Interval::read(node, reader),
        }
    }
    fn shape() -> Shape {
        Interval::shape()
    }
    fn canonical(out: &[f64; 2]) -> Json {
        json!(out)
    }
}

record! {
    /// A normal's parameters: numbers or curves.
    pub struct NormalSection as "normal" {
        /// Mean of each feature.
        mean: Curve as Curve = "1",
        /// Standard deviation of each feature.
        std: Curve as Curve = "0.1",
    }
}

choice! {
    /// Whose magnitude draw it is.
    pub enum SharingSection as "magnitude_sharing" {
        /// Every feature's own.
        independent => Independent,
        /// One for all features of a sample.
        sample => Sample,
    }
}

choice! {
    /// Sets of features that do not fire independently: a list of them, or all features cut into blocks.
    pub enum GroupsSection as "groups" {
        [list => List(Vec<GroupSection> as ListOf<GroupSection>)]
        /// All features in consecutive blocks, each a set; with exclusive blocks and firing_probability 1 exactly `count` features fire.
        blocks => Blocks(BlocksSection as BlocksSection),
    }
}

record! {
    /// Features 0 .. n_features - 1 cut into consecutive sets.
    pub struct BlocksSection as "blocks" {
        /// Number of blocks; where it does not divide n_features, the first ones have one feature more.
        count: usize as Count = required "2",
        /// What the features of a block have to do with each other.
        rule: BlockRule as BlockRule = required "exclusive",
    }
}

choice! {
    /// Rule of a block, as of a group.
    pub enum BlockRule as "rule" {
        /// One coin for the block; magnitudes independent.
        together => Together,
        /// The block fires with its own probability, then exactly one member, uniformly.
        exclusive => Exclusive,
    }
}

impl GroupsSection {
    /// No sets at all.
    pub fn is_empty(&self) -> bool {
        matches!(self, GroupsSection::List(list) if list.is_empty())
    }

    /// The sets, one by one.
    pub fn sets(&self, n_features: usize) -> Vec<GroupSection> {
        let BlocksSection { count, rule } = match self {
            GroupsSection::List(list) => return list.clone(),
            GroupsSection::Blocks(blocks) => blocks,
        };
        let (size, longer) = (n_features / count, n_features % count);
        let first = |block: usize| block * size + block.min(longer);
        let members = |block: usize| (first(block)..first(block + 1)).collect();
        let set = |block: usize| match rule {
            BlockRule::Together => GroupSection::Together(members(block)),
            BlockRule::Exclusive => GroupSection::Exclusive(members(block)),
        };
        // More blocks than features leave some empty, which a checked file does not have.
        (0..*count).map(set).filter(|set| !set.members().is_empty()).collect()
    }
}

choice! {
    /// A set of features that does not fire independently.
    pub enum GroupSection as "group" {
        /// One coin for the set; magnitudes independent.
        together => Together(Vec<usize> as Members),
        /// The set fires with its own probability, then exactly one member, uniformly.
        exclusive => Exclusive(Vec<usize> as Members),
    }
}

impl GroupSection {
    pub fn members(&self) -> &[usize] {
        match self {
            GroupSection::Together(members) | GroupSection::Exclusive(members) => members,
        }
    }
}

/// Two or more different features.
#[derive(Debug)]
pub struct Members;

impl Kind for Members {
    type Out = Vec<usize>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Vec<usize>> {
        let members = ListOf::<Whole>::read(node, reader)?;
        let mut sorted = members.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < 2 || sorted.len() < members.len() {
            reader.error(node.place, "a group has two or more different features", None);
            return None;
        }
        Some(sorted)
    }
    fn shape() -> Shape {
        Shape::List(Box::new(Whole::shape()))
    }
    fn canonical(out: &Vec<usize>) -> Json {
        json!(out)
    }
}

record! {
    /// A finite training set, drawn once per seed: the same samples whatever their number. `loss` and other scores are
    /// taken on fresh samples of the same law.
    pub struct DatasetSection as "dataset" {
        /// Number of training samples T.
        samples: usize as Samples = required "1000",
        /// Divide every sample, those of the evaluation included, by its Euclidean norm; one in which nothing fires stays 0.
        normalise: bool as Flag = "false",
    }
}

record! {
    /// A fixed dictionary: h = sum of x_i f_i + b, plus noise.
    pub struct DictionarySection as "dictionary" {
        /// Width of h.
        d_hidden: usize as Width = required "20",
        /// Directions f_i.
        vectors: VectorsSection as VectorsSection = "random",
        /// Norm of the bias b, a random direction.
        bias_norm: f64 as NonNegative = "0",
        /// Standard deviation of Gaussian noise added to every coordinate of h.
        noise: f64 as NonNegative = "0",
    }
}

/// A file that the world is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputFile {
    /// Its name, relative to the folder of the experiment.
    pub name: String,
    /// Which of its tensors (`file.safetensors:name`).
    pub tensor: Option<String>,
    /// The keys below `data` that name it.
    pub keys: &'static [&'static str],
    /// Whether the world may be without it.
    pub optional: bool,
}

impl InputFile {
    /// The file of a name as the experiment has it.
    pub fn new(name: &str, keys: &'static [&'static str]) -> InputFile {
        let (name, tensor) = match name.rsplit_once(".safetensors:") {
            Some((stem, tensor)) => (format!("{stem}.safetensors"), Some(tensor.to_owned())),
            None => (name.to_owned(), None),
        };
        InputFile { name, tensor, keys, optional: false }
    }
}

impl DataSection {
    /// The files that the world is read from.
    pub fn files(&self) -> Vec<InputFile> {
        let mut files = vec![];
        if let Some(DictionarySection { vectors: VectorsSection::File(name), .. }) = &self.dictionary {
            files.push(InputFile::new(name, &["dictionary", "vectors", "file"]));
        }
        if let CorrelationSection::Matrix(name) = &self.correlation {
            files.push(InputFile::new(name, &["correlation", "matrix"]));
        }
        if let Some(folder) = &self.synthetic_model {
            let of = |name: &str, optional| {
                let name = format!("{}/{name}", folder.trim_end_matches('/'));
                InputFile { name, tensor: None, keys: &["synthetic_model"], optional }
            };
            files.extend(FILES.map(|(name, optional)| of(name, optional)));
        }
        files
    }
}

choice! {
    /// How the directions of a dictionary are chosen.
    pub enum VectorsSection as "vectors" {
        /// Orthonormal; needs d_hidden >= n_features.
        orthogonal => Orthogonal,
        /// Independent, uniform on the unit sphere.
        random => Random,
        /// Random ones pushed apart by gradient descent on their overlaps.
        orthogonalised => Orthogonalised(OrthogonalisedSection as OrthogonalisedSection),
        /// All pairs with this cosine, turned at random; needs d_hidden >= n_features (one less at -1/(n_features - 1)).
        cosine => Cosine(f64 as Number),
        /// Rows of a `.npy` or `.safetensors` file, [n_features, d_hidden], made unit.
        file => File(String as Text),
    }
}

record! {
    /// Adam on the sum of squared overlaps of all pairs, with norms held near 1; rows are made unit at the end.
    pub struct OrthogonalisedSection as "orthogonalised" {
        /// Steps; 0 leaves the directions random.
        steps: usize as Whole = "200",
        /// Learning rate.
        lr: f64 as Positive = "0.01",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize, n_features: usize) -> Vec<Vec<usize>> {
        let blocks = GroupsSection::Blocks(BlocksSection { count, rule: BlockRule::Exclusive });
        blocks.sets(n_features).iter().map(|set| set.members().to_vec()).collect()
    }

    #[test]
    fn blocks_take_every_feature_once_in_order_and_differ_by_at_most_one() {
        assert_eq!(members(2, 6), [vec![0, 1, 2], vec![3, 4, 5]]);
        assert_eq!(members(3, 8), [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7]]);
        assert_eq!(members(4, 4), [[0], [1], [2], [3]]);
        for count in 1..=50 {
            let blocks = members(count, 50);
            assert_eq!((blocks.len(), blocks.concat()), (count, (0..50).collect()));
            assert!(blocks.iter().all(|block| block.len() == 50 / count || block.len() == 50 / count + 1));
        }
    }
}
