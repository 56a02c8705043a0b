//! Columns that compare a row with the oracle and the random dictionary of its world, toy model and seed.
//!
//! ```text
//! random_gap_S = (S - random) / (oracle - random)      0 is as good as random directions, 1 as good as the truth
//! oracle_gap_S = 1 - random_gap_S                      what is missing to the oracle
//! ```
//!
//! for S = `mcc` and `f1`, where the experiment has both baselines and the rows that score. They are computed from rows whenever
//! a table is read, not stored: rows of one world may be trained at different times and lie in different chunks, and a
//! stored number that depends on another row would outlive it. Of several oracles or random dictionaries (a sweep over
//! their settings) the mean counts. Null where either is missing, or both are equally good.

use std::collections::BTreeMap;

use polars::prelude::{Column, DataFrame, PolarsError};

use super::columns::Layout;
use super::query::QueryError;

/// Scores that have gaps.
const SCORES: [&str; 2] = ["mcc", "f1"];

/// Axes of what is trained and compared; all others say which world, toy model and samples a row is of.
const OF_METHODS: [&str; 2] = ["sae", "baselines"];

/// The methods of an experiment that rows are compared with, by their names in the column `method`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standards {
    pub oracles: Vec<String>,
    pub randoms: Vec<String>,
}

impl Standards {
    /// Whether there are both, so that rows have gaps.
    pub fn are_complete(&self) -> bool {
        !self.oracles.is_empty() && !self.randoms.is_empty()
    }
}

/// Rows with the columns `random_gap_mcc`, `oracle_gap_mcc`, `random_gap_f1`, `oracle_gap_f1` behind the scores; as they were where
/// the experiment lacks one of the baselines.
///
/// # Errors
/// A table that is none of rows.
pub fn with_gaps(rows: DataFrame, standards: &Standards) -> Result<DataFrame, QueryError> {
    if !standards.are_complete() {
        return Ok(rows);
    }
    let layout = Layout::of(&rows)?;
    let failed =
        |error: PolarsError| QueryError::Failed { action: "compare rows with baselines", reason: error.to_string() };
    let stems = stems(&rows, &layout).map_err(failed)?;
    let mut rows = rows;
    for score in SCORES.into_iter().filter(|score| layout.scores.iter().any(|name| name == score)) {
        let values: Vec<Option<f64>> = (0..rows.height())
            .map(|row| Ok(rows.column(score)?.get(row)?.extract::<f64>()))
            .collect::<Result<_, PolarsError>>()
            .map_err(failed)?;
        let methods = rows.column("method").and_then(Column::str).map_err(failed)?;
        let methods: Vec<Option<&str>> = methods.iter().collect();
        let standard = |names: &[String]| {
            let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
            for ((stem, method), value) in stems.iter().zip(&methods).zip(&values) {
                if let (true, Some(value)) = (method.is_some_and(|method| names.iter().any(|n| n == method)), value) {
                    let sum = sums.entry(stem).or_default();
                    *sum = (sum.0 + value, sum.1 + 1);
                }
            }
            sums.into_iter().map(|(stem, (sum, count))| (stem, sum / count as f64)).collect::<BTreeMap<&str, f64>>()
        };
        let (oracle, random) = (standard(&standards.oracles), standard(&standards.randoms));
        let gap = |(stem, value): (&String, &Option<f64>)| {
            let (oracle, random) = (oracle.get(stem.as_str())?, random.get(stem.as_str())?);
            (oracle != random).then_some(((*value)? - random) / (oracle - random))
        };
        let gaps: Vec<Option<f64>> = stems.iter().zip(&values).map(gap).collect();
        let missing: Vec<Option<f64>> = gaps.iter().map(|gap| gap.map(|gap| 1.0 - gap)).collect();
        for (name, gaps) in [("random_gap", gaps), ("oracle_gap", missing)] {
            // Layout found this column.
            let place = rows.get_column_index("steps_done").unwrap_or(rows.width());
            rows.insert_column(place, Column::new(format!("{name}_{score}").into(), gaps)).map_err(failed)?;
        }
    }
    Ok(rows)
}

/// What world, toy model and seed each row is of, as a text.
fn stems(rows: &DataFrame, layout: &Layout) -> Result<Vec<String>, PolarsError> {
    let of_method = |axis: &&String| !OF_METHODS.iter().any(|prefix| axis.starts_with(prefix));
    let axes = layout.axes.iter().filter(of_method).map(String::as_str).chain(["seed"]);
    let columns: Vec<&Column> = axes.map(|axis| rows.column(axis)).collect::<Result<_, _>>()?;
    let stem = |row: usize| {
        let values = columns.iter().map(|column| Ok(format!("{:?}", column.get(row)?)));
        Ok(values.collect::<Result<Vec<String>, PolarsError>>()?.join("\n"))
    };
    (0..rows.height()).map(stem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{row, schema};
    use crate::store::{Value, frame};

    fn standards() -> Standards {
        Standards { oracles: vec!["oracle".into()], randoms: vec!["random".into()] }
    }

    /// Two seeds: oracle .9 and 1, random .1 and .2, topk .5 and .6; of a third seed the oracle is missing.
    fn rows() -> DataFrame {
        let table = [
            ("oracle", 0, Some(0.9)),
            ("topk", 0, Some(0.5)),
            ("random", 0, Some(0.1)),
            ("oracle", 1, Some(1.0)),
            ("topk", 1, Some(0.6)),
            ("random", 1, Some(0.2)),
            ("topk", 2, Some(0.6)),
            ("random", 2, Some(0.2)),
            ("topk", 1, None),
        ];
        let rows = (0..).zip(table).map(|(index, (method, seed, mcc))| {
            let mut row = row(index);
            (row.method, row.seed) = (Some(method.into()), seed);
            row.axes[0] = Value::Float(0.1);
            row.scores[1] = mcc.map_or(Value::Null, Value::Float);
            row
        });
        frame("test", &schema(), &rows.collect::<Vec<_>>()).expect("rows fit")
    }

    #[test]
    fn a_row_stands_between_the_baselines_of_its_world_and_seed() {
        let with = with_gaps(rows(), &standards()).expect("rows");
        let number =
            |name: &str, row: usize| with.column(name).expect("there").get(row).expect("a row").extract::<f64>();
        for (row, expected) in [(0, 1.0), (1, 0.5), (2, 0.0), (3, 1.0), (4, 0.5), (5, 0.0)] {
            let found = number("random_gap_mcc", row).expect("both baselines ran");
            assert!((found - expected).abs() < 1e-15, "{row}: {found}");
            assert_eq!(number("oracle_gap_mcc", row), Some(1.0 - found));
        }
        for row in [6, 7, 8] {
            assert_eq!((number("random_gap_mcc", row), number("oracle_gap_mcc", row)), (None, None), "{row}");
        }
        assert!(with.column("random_gap_f1").is_err(), "there is no f1");
        let scores = Layout::of(&with).expect("still rows").scores;
        assert_eq!(scores, ["loss", "mcc", "n_represented", "phase", "random_gap_mcc", "oracle_gap_mcc"]);
    }

    #[test]
    fn without_both_baselines_rows_stay_as_they_are() {
        let alone = Standards { randoms: vec![], ..standards() };
        assert_eq!(with_gaps(rows(), &alone).expect("rows").width(), rows().width());
        let empty = frame("test", &schema(), &[]).expect("no rows");
        assert_eq!(with_gaps(empty, &standards()).expect("columns").width(), rows().width() + 2);
    }
}
