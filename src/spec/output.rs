//! What is measured, kept and expected: `evaluate`, `save`, `reduce`, `expect`.

use serde_json::{Value as Json, json};

use super::kind::{
    Alternative, Choice, Flag, Interval, Kind, ListOf, Maybe, NonNegative, Number, Reader, Samples, Shape, Text, Whole,
    choice, one_key, record,
};
use super::node::{Node, Value};

/// What `score` lists: names of scores and, for those that compare dictionaries of two widths, which entries they compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreSection {
    pub names: Vec<String>,
    /// Entries of `sae` or `baselines`, [narrow, wide].
    pub pairs: Vec<[String; 2]>,
}

/// One item of `score`.
enum ScoreItem {
    Name(String),
    Pairs(Vec<[String; 2]>),
}

impl Kind for ScoreSection {
    type Out = ScoreSection;
    fn read(node: &Node, reader: &mut Reader) -> Option<ScoreSection> {
        let mut section = ScoreSection::default();
        for item in ListOf::<ScoreItem>::read(node, reader)? {
            match item {
                ScoreItem::Name(name) => section.names.push(name),
                ScoreItem::Pairs(pairs) => section.pairs.extend(pairs),
            }
        }
        Some(section)
    }
    fn shape() -> Shape {
        ListOf::<ScoreItem>::shape()
    }
    fn canonical(out: &ScoreSection) -> Json {
        let mut items: Vec<Json> = out.names.iter().map(|name| json!(name)).collect();
        items.extend((!out.pairs.is_empty()).then(|| json!({ "pairs": out.pairs })));
        Json::Array(items)
    }
}

impl Kind for ScoreItem {
    type Out = ScoreItem;
    fn read(node: &Node, reader: &mut Reader) -> Option<ScoreItem> {
        if !matches!(node.value, Value::Map(_)) {
            return Text::read(node, reader).map(ScoreItem::Name);
        }
        let (_, pairs) = one_key(node, node, "score setting", &["pairs"], reader)?;
        ListOf::<WidthPair>::read(pairs, reader).map(ScoreItem::Pairs)
    }
    fn shape() -> Shape {
        Shape::Choice(Choice {
            doc: "the name of a score, or {pairs: [[narrow, wide]]}",
            bare: vec![Text::shape()],
            options: vec![Alternative {
                name: "pairs",
                doc: "Entries that `hedging` and `mmcs_larger` compare, [narrow, wide]; without pairs the widths of one entry.",
                shape: Some(ListOf::<WidthPair>::shape),
            }],
        })
    }
    fn canonical(out: &ScoreItem) -> Json {
        match out {
            ScoreItem::Name(name) => json!(name),
            ScoreItem::Pairs(pairs) => json!({ "pairs": pairs }),
        }
    }
}

/// [narrow, wide]: names of two entries.
struct WidthPair;

impl Kind for WidthPair {
    type Out = [String; 2];
    fn read(node: &Node, reader: &mut Reader) -> Option<[String; 2]> {
        match &node.value {
            Value::List(items) if items.len() == 2 => {
                let (narrow, wide) = (Text::read(&items[0], reader), Text::read(&items[1], reader));
                Some([narrow?, wide?])
            }
            _ => reader.expected(node, "the names of two entries, [narrow, wide]", None),
        }
    }
    fn shape() -> Shape {
        Shape::Pair(Box::new(Text::shape()))
    }
    fn canonical(out: &[String; 2]) -> Json {
        json!(out)
    }
}

record! {
    /// The samples on which scores are taken: the same for every method of a cell.
    pub struct EvaluateSection as "evaluate" {
        /// Fresh samples.
        samples: usize as Samples = "100000",
    }
}

record! {
    /// What is kept beside the scores.
    pub struct SaveSection as "save" {
        /// Which weights are kept.
        weights: WeightsSection as WeightsSection = "auto",
        /// One row per cell and feature: norms, matched latents, directions of small models.
        features: bool as Flag = "true",
        /// One row per cell and sample of a finite training set: data dimensionality, hidden states of small models.
        samples: bool as Flag = "true",
        /// Loss along training.
        trace: TraceSection as TraceSection = "{}",
    }
}

choice! {
    /// Which weights are kept.
    pub enum WeightsSection as "weights" {
        /// `all` where a score compares dictionaries of two widths, `best` where a figure draws weights, else `none`.
        auto => Auto,
        /// No weights.
        none => None,
        /// Of the seed with the lowest toy loss in each combination, among the seeds of a chunk (one of these is the best
        /// of all); where there is no toy model, of the first seed.
        best => Best,
        /// Of every cell.
        all => All,
    }
}

record! {
    /// Logging along training.
    pub struct TraceSection as "trace" {
        /// Every so many steps; 0: never.
        every: usize as Whole = "0",
        /// Also each feature of the toy model at these steps and at the end: norms, dimensionalities, directions of small
        /// models (table `snapshots`), and their sums (columns of `trace`).
        features: bool as Flag = "false",
    }
}

record! {
    /// What figures and expectations do with seeds.
    pub struct ReduceSection as "reduce" {
        /// Rule.
        seeds: ReduceRule as ReduceRule = "none",
    }
}

choice! {
    /// Rule for seeds.
    pub enum ReduceRule as "reduce" {
        /// Every seed is a row.
        none => None,
        /// Numbers are averaged; words keep the most frequent.
        mean => Mean,
        /// The seed of lowest toy loss speaks.
        lowest_loss => LowestLoss,
    }
}

/// A gate: what should come out, with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectSection {
    pub claim: String,
    pub asked: Asked,
    pub bound: Bound,
    pub source: Option<String>,
}

/// What an expectation measures.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// An expression over the rows that a condition selects, polars SQL.
    Value { value: String, filter: Option<String> },
    /// A whole query over rows and side tables that gives one number.
    Sql(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
    Equals { value: f64, tolerance: f64 },
}

record! {
    /// A gate: what should come out, with its source.
    pub struct WrittenExpect as "expect" {
        /// What is claimed, in words.
        claim: String as Text = required "TopK finds every feature",
        /// An expression over rows, polars SQL; also spearman(x, y), largest_rise(x, y) and largest_fall(x, y). An
        /// expectation has this or `sql`.
        value: Option<String> as Maybe<Text> = "none",
        /// A whole query that gives one number, polars SQL: SELECT ... from the tables `rows`, `features`, `trace`,
        /// `snapshots`, `samples`, the latter four of the cells that `reduce` leaves (of all under `mean`).
        sql: Option<String> as Maybe<Text> = "none",
        /// Rows that `value` is taken over, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// The value is this or more.
        at_least: Option<f64> as Maybe<Number> = "none",
        /// The value is this or less.
        at_most: Option<f64> as Maybe<Number> = "none",
        /// The value lies in [low, high].
        between: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// The value is this, within `tolerance`.
        equals: Option<f64> as Maybe<Number> = "none",
        /// Half-width of `equals`.
        tolerance: Option<f64> as Maybe<NonNegative> = "none",
        /// Where the number comes from.
        source: Option<String> as Maybe<Text> = "none",
    }
}

impl Kind for ExpectSection {
    type Out = ExpectSection;
    fn read(node: &Node, reader: &mut Reader) -> Option<ExpectSection> {
        let w = WrittenExpect::read(node, reader)?;
        let bounds = [
            w.at_least.map(Bound::AtLeast),
            w.at_most.map(Bound::AtMost),
            w.between.map(|[low, high]| Bound::Between(low, high)),
            w.equals.map(|value| Bound::Equals { value, tolerance: w.tolerance.unwrap_or(0.0) }),
        ];
        let mut given = bounds.into_iter().flatten();
        let (Some(bound), None) = (given.next(), given.next()) else {
            let message = "an expectation has exactly one of at_least, at_most, between, equals";
            reader.error(node.place, message, Some("for example `at_least: 0.9`".to_owned()));
            return None;
        };
        if let (Some(tolerance), None) = (node.get("tolerance"), node.get("equals")) {
            reader.error(tolerance.place, "`tolerance` belongs to `equals`", None);
            return None;
        }
        let asked = match (w.value, w.sql) {
            (Some(value), None) => Asked::Value { value, filter: w.filter },
            (None, Some(sql)) => {
                if let Some(condition) = node.get("where") {
                    let help = "put the condition into the query".to_owned();
                    reader.error(condition.place, "`where` belongs to `value`, `sql` is a whole query", Some(help));
                    return None;
                }
                Asked::Sql(sql)
            }
            _ => {
                let message = "an expectation has exactly one of value, sql";
                reader.error(node.place, message, Some("for example `value: avg(mcc)`".to_owned()));
                return None;
            }
        };
        Some(ExpectSection { claim: w.claim, asked, bound, source: w.source })
    }
    fn shape() -> Shape {
        WrittenExpect::shape()
    }
    fn canonical(out: &ExpectSection) -> Json {
        match &out.asked {
            Asked::Value { value, .. } => json!({ "claim": out.claim, "value": value }),
            Asked::Sql(sql) => json!({ "claim": out.claim, "sql": sql }),
        }
    }
}
