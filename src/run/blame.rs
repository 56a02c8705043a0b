//! What becomes of cells that were being computed when something went wrong.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::RunError;
use super::provenance::utc;
use super::summary::FailedCell;
use super::suspects::{Attempt, Blamed};
use super::sweep::{Course, Sweep};
use crate::plan::AxisValue;

/// Records of earlier runs that the record of a cell repeats, at most: the newest.
const EARLIER: usize = 5;

impl Sweep<'_> {
    /// Makes suspects of cells that were being computed when something went wrong, or records the one that it was.
    pub(super) fn blame(&self, course: &mut Course, cells: &[usize], how: &Attempt) -> Result<(), RunError> {
        let blamed = course.suspects.blame(cells, how, |a, b| self.plan.same_stem(a, b));
        let reason = &how.reason;
        match blamed {
            Blamed::Nobody => {}
            Blamed::Split => {
                tracing::warn!(
                    "{reason}, among {} cells: they are computed in smaller groups to find which",
                    cells.len()
                );
            }
            Blamed::Again(cell, count) => {
                tracing::warn!("{reason}, computing cell {} alone (attempt {count})", self.plan.ids[cell]);
            }
            Blamed::Failed(cell) => {
                let attempts = &course.suspects.failed()[&cell];
                let failed = self.failed(cell, attempts);
                tracing::warn!("cell {} ({}) is left out: {reason}", failed.cell, failed.what);
                self.store.record_failure(&self.record(&failed, attempts))?;
            }
        }
        Ok(())
    }

    /// What is kept of a cell that failed.
    fn record(&self, failed: &FailedCell, attempts: &[Attempt]) -> Value {
        let earlier = self.failures.get(&failed.cell).map_or(&[][..], Vec::as_slice);
        let earlier: Vec<Value> = (earlier.iter().rev().take(EARLIER).rev())
            .map(|record| json!({ "time": record["time"], "writer": record["writer"], "attempts": record["attempts"] }))
            .collect();
        json!({
            "cell": failed.cell.to_string(),
            "plan_index": failed.plan_index,
            "what": failed.what,
            "attempts": attempts,
            "earlier": earlier,
            "time": utc(SystemTime::now()),
            "tegum": env!("CARGO_PKG_VERSION"),
            "writer": self.store.writer(),
        })
    }

    /// A cell that is left out, in words.
    pub(super) fn failed(&self, cell: usize, attempts: &[Attempt]) -> FailedCell {
        let plan = self.plan;
        let at = plan.cells[cell];
        let values = plan.columns.iter().map(|column| (column, plan.axis_value(column, at)));
        let told = values.filter(|(_, value)| *value != AxisValue::Null);
        let mut what: Vec<String> = told.map(|(column, value)| format!("{} = {value}", column.name)).collect();
        what.push(format!("seed {}", plan.document.experiment.seeds[at.seed as usize]));
        what.extend(plan.method_name(at).map(str::to_owned));
        let reason = attempts.last().map(|attempt| attempt.reason.clone()).unwrap_or_default();
        FailedCell { cell: plan.ids[cell], plan_index: cell as u64, what: what.join(", "), reason }
    }
}
