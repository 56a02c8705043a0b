//! The gates of an experiment: what should come out, beside what did.

use std::collections::BTreeMap;

use polars::prelude::{AnyValue, DataFrame};

use super::format::{aligned, short};
use super::pairs;
use super::query::{Query, QueryError, Tables, expression, leaves, matching, select};
use super::reduce::{Reduce, reduce};

/// What a measured value is held against; the ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
    /// |measured - value| <= tolerance.
    Equals {
        value: f64,
        tolerance: f64,
    },
}

impl Bound {
    /// Whether a number keeps the bound; NaN keeps none.
    pub fn holds(&self, measured: f64) -> bool {
        match *self {
            Bound::AtLeast(least) => measured >= least,
            Bound::AtMost(most) => measured <= most,
            Bound::Between(least, most) => (least..=most).contains(&measured),
            Bound::Equals { value, tolerance } => (measured - value).abs() <= tolerance,
        }
    }

    /// As the report shows it: `>= 0.9`, `in [0.1, 0.2]`, `= 2 ± 0.5`.
    pub fn text(&self) -> String {
        match *self {
            Bound::AtLeast(least) => format!(">= {least}"),
            Bound::AtMost(most) => format!("<= {most}"),
            Bound::Between(least, most) => format!("in [{least}, {most}]"),
            Bound::Equals { value, tolerance: 0.0 } => format!("= {value}"),
            Bound::Equals { value, tolerance } => format!("= {value} ± {tolerance}"),
        }
    }
}

/// One gate.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// A sentence.
    pub claim: String,
    /// An expression over the selected rows that comes to one number, such as `avg(mcc)`, or an aggregate of [`pairs`].
    pub value: String,
    /// Which rows; all by default.
    pub where_: Option<String>,
    pub bound: Bound,
    /// Where the bound is from.
    pub source: Option<String>,
    /// What is done with the seeds before the rows are selected.
    pub reduce: Reduce,
}

/// What a gate came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub claim: String,
    pub measured: Option<f64>,
    /// Rows that the expression was computed over.
    pub rows_used: usize,
    /// See [`Bound::text`].
    pub bound: String,
    pub pass: bool,
    /// Why there is no measured value.
    pub error: Option<String>,
    pub source: Option<String>,
}

/// Holds every expectation against the rows. An expectation that cannot be computed fails and says why: no rows match, the
/// value is null, a column is unknown.
pub fn evaluate(rows: &DataFrame, expectations: &[Expectation]) -> Vec<Outcome> {
    let mut reduced: BTreeMap<Reduce, Result<DataFrame, String>> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for expectation in expectations {
        let rows = reduced
            .entry(expectation.reduce)
            .or_insert_with(|| reduce(rows, expectation.reduce).map_err(|error| error.to_string()));
        let (rows_used, measured) = match rows {
            Ok(rows) => measure(rows, expectation),
            Err(error) => (0, Err(error.clone())),
        };
        outcomes.push(Outcome {
            claim: expectation.claim.clone(),
            measured: measured.as_ref().ok().copied(),
            rows_used,
            bound: expectation.bound.text(),
            pass: measured.as_ref().is_ok_and(|measured| expectation.bound.holds(*measured)),
            error: measured.err(),
            source: expectation.source.clone(),
        });
    }
    outcomes
}

/// Whether an expectation can be computed over rows with these columns, however many rows there are.
///
/// # Errors
/// Unknown columns and SQL that cannot be read, in `where` or in the value.
pub fn readable(rows: &DataFrame, expectation: &Expectation) -> Result<(), QueryError> {
    let selected = matching(rows, expectation.where_.as_deref())?;
    if let Some((_, x, y)) = pairs::parse(&expectation.value) {
        let query = Query { select: vec![x.to_string(), y.to_string()], ..Default::default() };
        return select(&Tables::of_rows(selected), &query).map(|_| ());
    }
    // Read by itself first, so that a message speaks of the value and not of a selection.
    let _ = expression(&selected, "value", &expectation.value)?;
    let query = Query { select: vec![expectation.value.clone()], ..Default::default() };
    select(&Tables::of_rows(selected), &query).map(|_| ())
}

/// Number of selected rows, and the value over them or the reason why there is none.
fn measure(rows: &DataFrame, expectation: &Expectation) -> (usize, Result<f64, String>) {
    let selected = match matching(rows, expectation.where_.as_deref()) {
        Ok(selected) => selected,
        Err(error) => return (0, Err(error.to_string())),
    };
    let used = selected.height();
    (used, value(selected, &expectation.value))
}

fn value(selected: DataFrame, text: &str) -> Result<f64, String> {
    let words = |error: QueryError| error.to_string();
    if let Some((aggregate, x, y)) = pairs::parse(text) {
        let query = Query { select: vec![x.to_string(), y.to_string()], ..Default::default() };
        let answer = select(&Tables::of_rows(selected), &query).map_err(words)?;
        let [x, y] = answer.columns() else { return Err("needs two different expressions".into()) };
        return pairs::value(aggregate, x, y);
    }
    let expr = expression(&selected, "value", text).map_err(words)?;
    // A sum over no rows is 0 and proves nothing. `count(*)` reads no column, and there 0 is an answer.
    if selected.height() == 0 && !leaves(&expr).is_empty() {
        return Err("no rows match".into());
    }
    let query = Query { select: vec![text.to_string()], ..Default::default() };
    let answer = select(&Tables::of_rows(selected), &query).map_err(words)?;
    let [column] = answer.columns() else { return Err(format!("gives {} columns, not one", answer.width())) };
    if answer.height() != 1 {
        return Err(format!("gives {} values, not one: wrap it in avg(), min(), max() or count()", answer.height()));
    }
    match column.get(0).unwrap_or(AnyValue::Null) {
        AnyValue::Null => Err("the value is null: every row it is computed from lacks a score".into()),
        AnyValue::Boolean(flag) => Ok(f64::from(u8::from(flag))),
        found => match found.extract::<f64>().filter(|_| found.is_primitive_numeric()) {
            Some(number) if number.is_finite() => Ok(number),
            Some(number) => Err(format!("the value is {number}")),
            None => Err(format!("the value is {found}, not a number")),
        },
    }
}

/// One line for each outcome, PASS or FAIL with the measured value beside its bound, and a line that counts them.
pub fn render_outcomes(outcomes: &[Outcome]) -> String {
    let column = |cell: &dyn Fn(&Outcome) -> String| outcomes.iter().map(cell).collect::<Vec<String>>();
    let reason = |outcome: &Outcome| match (&outcome.error, &outcome.source) {
        (Some(error), _) => format!("{} ({error})", outcome.claim),
        (None, Some(source)) => format!("{} [{source}]", outcome.claim),
        (None, None) => outcome.claim.clone(),
    };
    let columns = [
        column(&|outcome| if outcome.pass { "PASS".into() } else { "FAIL".into() }),
        column(&|outcome| outcome.measured.map_or("-".into(), short)),
        column(&|outcome| outcome.bound.clone()),
        column(&|outcome| format!("{} rows", outcome.rows_used)),
        column(&reason),
    ];
    let held = outcomes.iter().filter(|outcome| outcome.pass).count();
    let table = aligned(&columns, &[false, true, false, true, false]);
    format!("{table}{held} of {} expectations hold\n", outcomes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{cell, row, schema};
    use crate::store::{Column, Kind, Row, Schema, Status, Value, frame};

    fn expectation(value: &str, where_: &str, bound: Bound) -> Expectation {
        Expectation {
            claim: "it holds".into(),
            value: value.into(),
            where_: (!where_.is_empty()).then(|| where_.to_string()),
            bound,
            source: None,
            reduce: Reduce::None,
        }
    }

    fn eight() -> DataFrame {
        frame("test", &schema(), &(0..8).map(row).collect::<Vec<_>>()).expect("rows fit")
    }

    fn one(rows: &DataFrame, expectation: Expectation) -> Outcome {
        evaluate(rows, &[expectation]).remove(0)
    }

    /// Rows of a table with the axis `data.firing_probability` and others, one for each list of values: axes, then scores.
    fn rows_of(axes: &[(&str, Kind)], scores: &[(&str, Kind)], values: Vec<(&str, u64, Vec<Value>)>) -> DataFrame {
        let columns = |list: &[(&str, Kind)]| list.iter().map(|(name, kind)| Column::new(*name, *kind)).collect();
        let schema = Schema { axes: columns(axes), scores: columns(scores) };
        let rows: Vec<Row> = values
            .into_iter()
            .zip(0..)
            .map(|((method, seed, mut values), index)| {
                let scores = values.split_off(axes.len());
                let method = (!method.is_empty()).then(|| method.to_string());
                let base = row(index);
                Row { cell: cell(index), seed, method, status: Status::Ok, axes: values, scores, ..base }
            })
            .collect();
        frame("test", &schema, &rows).expect("rows fit")
    }

    fn float(number: f64) -> Value {
        Value::Float(number)
    }

    #[test]
    fn the_gate_of_the_quickstart_is_evaluated() {
        let rows = rows_of(
            &[("data.firing_probability", Kind::Float), ("toy.d_hidden", Kind::Int)],
            &[("mcc", Kind::Float)],
            vec![
                ("topk", 0, vec![float(0.01), Value::Int(5), float(0.9)]),
                ("topk", 1, vec![float(0.05), Value::Int(5), float(0.7)]),
                ("random", 0, vec![float(0.01), Value::Int(5), float(0.4)]),
                ("random", 1, vec![float(0.05), Value::Int(5), float(0.5)]),
                ("relu", 0, vec![float(0.05), Value::Int(5), float(0.0)]),
                ("topk", 0, vec![float(0.5), Value::Int(5), float(0.0)]),
            ],
        );
        let gate = expectation(
            "avg(case when method = 'topk' then mcc end) - avg(case when method = 'random' then mcc end)",
            "\"data.firing_probability\" < 0.1",
            Bound::AtLeast(0.2),
        );
        let outcome = one(&rows, gate);
        // 0.8 - 0.45, each an average of two.
        assert!((outcome.measured.expect("a number") - 0.35).abs() < 1e-15, "{outcome:?}");
        assert_eq!((outcome.rows_used, outcome.pass), (5, true));
    }

    #[test]
    fn the_gates_of_the_pentagon_are_evaluated_on_the_best_seeds() {
        let rows = rows_of(
            &[("data.firing_probability", Kind::Float)],
            &[("loss", Kind::Float), ("n_represented", Kind::Int), ("gap_min_degrees", Kind::Float)],
            vec![
                ("", 0, vec![float(1.0), float(0.3), Value::Int(2), Value::Null]),
                ("", 1, vec![float(1.0), float(0.4), Value::Int(3), Value::Null]),
                ("", 0, vec![float(0.2), float(0.2), Value::Int(4), float(90.0)]),
                ("", 0, vec![float(0.05), float(0.1), Value::Int(5), float(71.9)]),
                ("", 1, vec![float(0.05), float(0.2), Value::Int(4), float(50.0)]),
                ("", 0, vec![float(0.01), float(0.1), Value::Int(5), float(70.0)]),
            ],
        );
        let best = |value: &str, where_: &str, bound| {
            one(&rows, Expectation { reduce: Reduce::LowestLoss, ..expectation(value, where_, bound) })
        };
        let equals = |value| Bound::Equals { value, tolerance: 0.0 };
        for (value, where_, bound, measured) in [
            ("max(n_represented)", "\"data.firing_probability\" = 1.0", equals(2.0), 2.0),
            ("max(n_represented)", "\"data.firing_probability\" = 0.2", equals(4.0), 4.0),
            ("max(n_represented)", "\"data.firing_probability\" <= 0.1", equals(5.0), 5.0),
            ("min(gap_min_degrees)", "\"data.firing_probability\" <= 0.05", Bound::AtLeast(69.5), 70.0),
        ] {
            let outcome = best(value, where_, bound);
            assert_eq!((outcome.measured, outcome.pass), (Some(measured), true), "{where_}: {outcome:?}");
        }
        let all_seeds =
            expectation("min(gap_min_degrees)", "\"data.firing_probability\" <= 0.05", Bound::AtLeast(69.5));
        assert_eq!(one(&rows, all_seeds).measured, Some(50.0));
    }

    #[test]
    fn the_gate_of_the_phase_change_is_evaluated() {
        let text = |text: &str| Value::Text(text.into());
        let line = |margin: f64, phase: &str, theory: &str| {
            ("", 0, vec![float(margin), text(phase), text(theory), float(margin)])
        };
        let rows = rows_of(
            &[("toy.importance.last", Kind::Float)],
            &[("phase_last", Kind::Text), ("theory_phase_last", Kind::Text), ("theory_margin", Kind::Float)],
            vec![
                line(2.0, "dropped", "dropped"),
                line(3.0, "superposed", "superposed"),
                line(4.0, "dedicated", "superposed"),
                line(5.0, "dedicated", "dedicated"),
                line(1.0, "dropped", "dedicated"),
            ],
        );
        let gate = expectation("avg(phase_last = theory_phase_last)", "theory_margin > 1.15", Bound::AtLeast(0.97));
        let outcome = one(&rows, gate);
        assert_eq!((outcome.measured, outcome.rows_used, outcome.pass), (Some(0.75), 4, false));
    }

    #[test]
    fn bounds_include_their_ends_and_nan_keeps_none() {
        let equals = Bound::Equals { value: 1.0, tolerance: 0.5 };
        for (bound, inside, outside, text) in [
            (Bound::AtLeast(0.9), [0.9, 1.0], [0.89, f64::NAN], ">= 0.9"),
            (Bound::AtMost(0.9), [0.9, -1.0], [0.91, f64::NAN], "<= 0.9"),
            (Bound::Between(0.1, 0.2), [0.1, 0.2], [0.09, f64::NAN], "in [0.1, 0.2]"),
            (equals, [0.5, 1.5], [1.6, f64::NAN], "= 1 ± 0.5"),
        ] {
            assert!(inside.iter().all(|number| bound.holds(*number)), "{text}");
            assert!(!outside.iter().any(|number| bound.holds(*number)), "{text}");
            assert_eq!(bound.text(), text);
        }
        assert_eq!(Bound::Equals { value: 2.0, tolerance: 0.0 }.text(), "= 2");
    }

    #[test]
    fn what_cannot_be_measured_fails_with_its_reason() {
        let anything = Bound::AtLeast(f64::NEG_INFINITY);
        let mut rows: Vec<Row> = (0..8).map(row).collect();
        rows.iter_mut().for_each(|row| row.scores[1] = Value::Null);
        let without_mcc = frame("test", &schema(), &rows).expect("rows fit");
        for (rows, value, where_, reason) in [
            (&eight(), "avg(mcc)", "seed = 7", "no rows match"),
            (&eight(), "sum(mcc)", "seed = 7", "no rows match"),
            (&without_mcc, "avg(mcc)", "", "null"),
            (&eight(), "mcc", "", "8 values"),
            (&eight(), "max(phase)", "", "not a number"),
            (&eight(), "avg(mmc)", "", "did you mean `mcc`"),
            (&eight(), "avg(mcc)", "toy.d_hiden = 5", "did you mean `toy.d_hidden`"),
            (&eight(), "avg(mcc", "", "never closed"),
            (&eight(), "sum(mcc) / (count(*) - 8)", "", "the value is inf"),
            (&eight(), "*", "", "15 columns"),
        ] {
            let outcome = one(rows, expectation(value, where_, anything));
            let error = outcome.error.unwrap_or_default();
            assert!(!outcome.pass && outcome.measured.is_none() && error.contains(reason), "{value}: {error}");
        }
        let no_loss = eight().drop("loss").expect("there");
        let outcome =
            one(&no_loss, Expectation { reduce: Reduce::LowestLoss, ..expectation("avg(mcc)", "", anything) });
        assert!(!outcome.pass && outcome.error.is_some_and(|error| error.contains("lowest_loss")));
    }

    #[test]
    fn counting_no_rows_is_an_answer() {
        let none = Bound::Equals { value: 0.0, tolerance: 0.0 };
        let outcome = one(&eight(), expectation("count(*)", "status = 'diverged'", none));
        assert_eq!((outcome.measured, outcome.pass), (Some(0.0), true), "{outcome:?}");
    }

    #[test]
    fn a_single_value_needs_no_aggregate_and_truth_counts_as_one() {
        let outcome = one(&eight(), expectation("mcc", "plan_index = 1", Bound::AtLeast(0.25)));
        assert_eq!((outcome.measured, outcome.pass), (Some(0.25), true));
        let outcome =
            one(&eight(), expectation("min(mcc) < max(mcc)", "", Bound::Equals { value: 1.0, tolerance: 0.0 }));
        assert!(outcome.pass, "{outcome:?}");
    }

    #[test]
    fn the_report_shows_measured_values_beside_their_bounds() {
        let mut gates = vec![
            expectation("avg(mcc)", "", Bound::AtLeast(0.3)),
            expectation("avg(mcc)", "seed = 7", Bound::AtMost(0.3)),
            expectation("max(mcc)", "", Bound::AtMost(0.5)),
        ];
        gates[0].source = Some("measured".into());
        let expected = "\
PASS  0.375  >= 0.3  8 rows  it holds [measured]
FAIL      -  <= 0.3  0 rows  it holds (no rows match)
FAIL   0.75  <= 0.5  8 rows  it holds
1 of 3 expectations hold
";
        assert_eq!(render_outcomes(&evaluate(&eight(), &gates)), expected);
    }
}
