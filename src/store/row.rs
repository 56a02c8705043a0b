//! What one cell of a plan comes to: a row of typed values, and the names and types of its columns.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// First 128 bits of the hash over everything that can change a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(pub [u8; 16]);

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text that is not 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cell id: 32 hexadecimal digits in lower case are expected")]
pub struct NotACellId(pub String);

impl FromStr for CellId {
    type Err = NotACellId;

    fn from_str(text: &str) -> Result<Self, NotACellId> {
        let wrong = || NotACellId(text.to_string());
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(wrong());
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(wrong)?;
            let low = hex_digit(pair[1]).ok_or_else(wrong)?;
            *byte = high << 4 | low;
        }
        Ok(CellId(bytes))
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// How a cell ended. All four are results: final, never tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// The loss became non-finite or passed the guard.
    Diverged,
    /// A score is undefined, for example because no feature fired.
    Degenerate,
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
    fn a_cell_id_survives_its_text_form() {
        let id = CellId([0, 1, 2, 3, 250, 251, 252, 253, 254, 255, 16, 17, 18, 19, 20, 21]);
        assert_eq!(id.to_string(), "00010203fafbfcfdfeff101112131415");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_not_a_cell_id_is_refused() {
        for text in ["", "00", "zz010203fafbfcfdfeff101112131415", "00010203FAFBFCFDFEFF101112131415"] {
            assert!(text.parse::<CellId>().is_err(), "{text}");
        }
        assert!("é010203fafbfcfdfeff10111213141".parse::<CellId>().is_err());
    }

    #[test]
    fn a_measurement_that_is_not_finite_becomes_null() {
        assert_eq!(Value::measured(0.5), Value::Float(0.5));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Value::measured(number), Value::Null);
        }
    }
}
