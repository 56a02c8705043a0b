//! What is measured, kept and expected: `evaluate`, `save`, `reduce`, `expect`.

use serde_json::{Value as Json, json};

use super::kind::{
    Flag, Interval, Kind, Maybe, NonNegative, Number, Reader, Samples, Shape, Text, Whole, choice, record,
};
use super::node::Node;

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
        /// `best` where a figure draws weights, else `none`.
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
