//! The whole file.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::activations::ActivationsSection;
use super::baseline::BaselineKind;
use super::data::DataSection;
use super::entry::{Entry, EntryOf};
use super::figure::FigureSection;
use super::kind::{Count, Kind, ListOf, Maybe, Name, Reader, Shape, Text, number, record};
use super::node::{Node, Value};
use super::output::{EvaluateSection, ExpectSection, ReduceSection, SaveSection, ScoreSection};
use super::sae::{SaeKind, SaeTrainSection};
use super::toy::ToySection;

record! {
    /// An experiment: one question, one world or many, what is trained on it, what is measured, drawn and expected.
    pub struct Experiment as "an experiment" {
        /// Letters, digits, - and _; also the folder under results/.
        name: String as Name = required "my-experiment",
        /// What is asked.
        question: Option<String> as Maybe<Text> = "none",
        /// What to look at in the results.
        notice: Option<String> as Maybe<Text> = "none",
        /// Where the experiment comes from.
        source: Option<String> as Maybe<Text> = "none",
        /// A count (0, 1, ...) or a list.
        seeds: Vec<u64> as Seeds = "1",
        /// The world.
        data: DataSection as DataSection = required "{n_features: 40, firing_probability: 0.05}",
        /// Hidden states from files, in place of `data` and `toy`.
        activations: Option<ActivationsSection> as Maybe<ActivationsSection> = "none",
        /// The toy model that makes the hidden states; exactly one of `toy` and `data.dictionary`.
        toy: Option<ToySection> as Maybe<ToySection> = "none",
        /// Sparse autoencoders: each entry is one variant.
        sae: Vec<Entry<SaeKind>> as ListOf<EntryOf<SaeKind>> = "[]",
        /// How they are trained.
        sae_train: SaeTrainSection as SaeTrainSection = "{}",
        /// What stands beside them.
        baselines: Vec<Entry<BaselineKind>> as ListOf<EntryOf<BaselineKind>> = "[]",
        /// Scores to take; none: all that apply, but for those that answer special questions.
        score: Option<ScoreSection> as Maybe<ScoreSection> = "none",
        /// Samples for the scores.
        evaluate: EvaluateSection as EvaluateSection = "{}",
        /// What is kept beside the rows.
        save: SaveSection as SaveSection = "{}",
        /// Axes, multiplied in this order: a list, {log: [a, b, count]}, {linear: [a, b, count]} or {range: [a, b]}.
        sweep: Node as Raw = "none",
        /// Axes that move together.
        zip: Node as Raw = "none",
        /// Cells left out: a condition over swept and fixed paths.
        exclude: Option<String> as Maybe<Text> = "none",
        /// What figures and expectations do with seeds.
        reduce: ReduceSection as ReduceSection = "{}",
        /// Figures to draw.
        figures: Vec<FigureSection> as ListOf<FigureSection> = "[]",
        /// What should come out.
        expect: Vec<ExpectSection> as ListOf<ExpectSection> = "[]",
    }
}

/// More seeds than this are taken for a slip.
const MOST_SEEDS: usize = 10_000_000;

/// A count n for the seeds 0 .. n - 1, or a list of seeds.
#[derive(Debug)]
pub struct Seeds;

impl Kind for Seeds {
    type Out = Vec<u64>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Vec<u64>> {
        let Value::List(items) = &node.value else {
            let count = Count::read(node, reader)?;
            if count > MOST_SEEDS {
                reader.error(node.place, format!("{count} seeds; at most {MOST_SEEDS}"), None);
                return None;
            }
            return Some((0..count as u64).collect());
        };
        let read: Vec<Option<u64>> = items.iter().map(|item| seed(item, reader)).collect();
        let seeds: Vec<u64> = read.into_iter().collect::<Option<_>>()?;
        if seeds.is_empty() {
            reader.error(node.place, "at least one seed", None);
            return None;
        }
        let mut seen = HashMap::with_capacity(seeds.len());
        for (seed, item) in seeds.iter().zip(items) {
            if let Some(first) = seen.insert(seed, item.place) {
                let message = format!("seed {seed} is listed twice, first at {}:{}", first.line, first.column);
                reader.error(item.place, message, Some("remove one; equal seeds would give equal cells".to_owned()));
                return None;
            }
        }
        Some(seeds)
    }
    fn shape() -> Shape {
        let choice = super::kind::Choice {
            doc: "a count, or a list of seeds",
            bare: vec![Count::shape(), Shape::List(Box::new(super::kind::Whole::shape()))],
            options: vec![],
        };
        Shape::Choice(choice)
    }
    fn canonical(out: &Vec<u64>) -> Json {
        json!(out)
    }
}

/// A whole number as everywhere, but exact over the whole range: digits are not read as a float.
fn seed(node: &Node, reader: &mut Reader) -> Option<u64> {
    // Rows hold seeds as 64-bit signed numbers, so the upper half of u64 is out of reach.
    let what = "a seed: a whole number from 0 to 9223372036854775807";
    if let Value::Scalar { text, quoted: false } = &node.value
        && text.bytes().all(|c| c.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
    {
        return match text.parse::<u64>() {
            Ok(seed) if i64::try_from(seed).is_ok() => Some(seed),
            _ => reader.expected(node, what, None),
        };
    }
    match number(node, what, reader)? {
        v if v.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&v) => Some(v as u64),
        _ => reader.expected(node, what, None),
    }
}

/// A part of the file that another reader takes apart.
#[derive(Debug)]
pub struct Raw;

impl Kind for Raw {
    type Out = Node;
    fn read(node: &Node, _: &mut Reader) -> Option<Node> {
        Some(node.clone())
    }
    fn shape() -> Shape {
        Shape::Any { words: "axes: paths with their values" }
    }
    fn canonical(_: &Node) -> Json {
        Json::Null
    }
}
