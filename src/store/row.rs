//! What one cell of a plan comes to: a row of typed values, and the names and types of its columns.

use serde::{Deserialize, Serialize};

use crate::plan::CellId;

/// One entry of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Undefined; the row's `detail` says why. Never NaN.
    Null,
    Bool(bool),
    Int(i64),
    /// Finite: the store refuses NaN and infinities.
    Float(f64),
    Text(String),
}

impl Value {
    /// A measured number: null where it is NaN or infinite, so that no aggregate silently becomes NaN.
    pub fn measured(number: f64) -> Value {
        if number.is_finite() { Value::Float(number) } else { Value::Null }
    }
}

/// Type of a column; every column but `cell` and `plan_index` may hold nulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bool,
    Int,
    Float,
    Text,
}

/// Name and type of one axis or score.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// An axis has its dotted path (`data.firing_probability`), a score its own name (`mcc`).
    pub name: String,
    pub kind: Kind,
}

impl Column {
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Column { name: name.into(), kind }
    }
}

/// The columns that differ from plan to plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// In the order of the sweep.
    pub axes: Vec<Column>,
    pub scores: Vec<Column>,
}

/// How a cell ended. All of them are results: final, never tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// The loss became non-finite or passed the guard.
    Diverged,
    /// A score is undefined, for example because no feature fired.
    Degenerate,
    /// Trained and scored, but not at the number of active latents that was asked for.
    OffTarget,
    /// Left out by a declared rule.
    Skipped,
}

impl Status {
    /// The word in the column `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Diverged => "diverged",
            Status::Degenerate => "degenerate",
            Status::OffTarget => "off_target",
            Status::Skipped => "skipped",
        }
    }
}

/// One cell's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub cell: CellId,
    /// Place of the cell in the plan's order.
    pub plan_index: u64,
    pub seed: u64,
    /// Name of the SAE variant or baseline; none where the cell has neither.
    pub method: Option<String>,
    pub status: Status,
    /// Why the status is not `ok`, or why a score is null.
    pub detail: Option<String>,
    /// Steps trained; none where nothing was trained.
    pub steps_done: Option<u64>,
    /// One value for each of the schema's axes.
    pub axes: Vec<Value>,
    /// One value for each of the schema's scores.
    pub scores: Vec<Value>,
    /// Versions of the algorithms that made the numbers.
    pub algo_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_is_not_finite_becomes_null() {
        assert_eq!(Value::measured(0.5), Value::Float(0.5));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Value::measured(number), Value::Null);
        }
    }
}
