//! The whole program: a plan's missing cells are trained, scored and published, chunk by chunk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::json;

mod blame;
pub mod checkpoints;
pub mod chunk;
pub mod columns;
pub mod evaluation;
mod fault;
pub mod given;
mod harvest;
mod inputs;
mod keeping;
mod last_words;
mod opened;
pub mod preflight;
pub mod probe;
pub mod provenance;
pub mod questions;
pub mod record;
pub mod results;
mod samples;
pub mod snapshots;
pub mod stand_in;
mod stopping;
mod summary;
pub mod supervise;
pub mod suspects;
mod sweep;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod training_set;
mod waves;
pub mod widths;
pub mod worker;

use crate::backend::BackendError;
use crate::plan::{AxisKind, AxisValue, Plan};
use crate::spec::diagnostic::SpecError;
use crate::spec::node::Node;
use crate::store::{Column, Kind, PlanRecord, StoreError, Value};
use chunk::BenchError;
use columns::ScoreColumn;
use keeping::kept;
pub use keeping::kept_weights;
pub use provenance::cpu_model;
pub use summary::{Counts, FailedCell, Summary};
pub use sweep::run;
use worker::Worker;

/// How a run is carried out; nothing here changes a row.
pub struct Options {
    pub out: PathBuf,
    /// (i, S): chunks whose number is i modulo S.
    pub shard: (u64, u64),
    /// Set by a signal: finish nothing more.
    pub stop: Arc<AtomicBool>,
    /// The directory may hold the run of another experiment.
    pub extend: bool,
    /// How long a full disk is waited for.
    pub disk_wait: Duration,
    /// How much time the training of an SAE may lose when the process is killed; none: all of it.
    pub checkpoint_every: Option<Duration>,
    /// The supervisor that started this process, and what it wants; none: a process of its own.
    pub worker: Option<Worker>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Input(String),
    #[error("{0}")]
    Unreadable(String),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl From<BenchError> for RunError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Input(why) => RunError::Input(why),
            BenchError::Backend(error) => RunError::Backend(error),
        }
    }
}

impl RunError {
    pub fn exit_code(&self) -> i32 {
        match self {
            RunError::Spec(_) | RunError::Input(_) => 3,
            RunError::Store(error) => error.exit_code(),
            RunError::Unreadable(_) | RunError::Backend(BackendError::Lost(_)) => 5,
            RunError::Backend(_) => 7,
        }
    }
}

/// What the store is told of a plan.
pub fn plan_record(plan: &Plan, columns: &[ScoreColumn], profile: &str) -> PlanRecord {
    let axes = plan.columns.iter().map(|c| Column::new(c.name.clone(), store_kind(c.kind))).collect();
    let values = |values: &[Node]| values.iter().map(crate::plan::canonical_text).collect::<Vec<_>>();
    let swept: Vec<_> = (plan.document.axes.iter())
        .flat_map(|axis| axis.paths.iter().map(|p| json!({ "path": p.path, "values": values(&p.values) })))
        .collect();
    PlanRecord {
        experiment: plan.document.experiment.name.clone(),
        canonical: json!({ "plan": plan.hash(), "seeds": plan.document.experiment.seeds, "axes": swept,
            "experiment": plan.canonical() }),
        axes,
        scores: columns.iter().map(ScoreColumn::column).collect(),
        cells: plan.cells.len() as u64,
        chunks: plan.chunks().iter().map(|c| (c.first as u64, c.count as u64)).collect(),
        algo_versions: [("all".to_owned(), columns::algorithms(columns))].into(),
        profile: profile.to_owned(),
        kept: kept(plan),
    }
}

pub fn store_kind(kind: AxisKind) -> Kind {
    match kind {
        AxisKind::Int => Kind::Int,
        AxisKind::Float => Kind::Float,
        AxisKind::Text => Kind::Text,
    }
}

pub fn store_value(value: AxisValue) -> Value {
    match value {
        AxisValue::Null => Value::Null,
        AxisValue::Int(v) => Value::Int(v),
        AxisValue::Float(v) => Value::Float(v),
        AxisValue::Text(v) => Value::Text(v),
    }
}

/// Values of a cell's axes, in the order of the plan's columns.
pub fn axis_values(plan: &Plan, index: usize) -> Vec<Value> {
    plan.columns.iter().map(|c| store_value(plan.axis_value(c, plan.cells[index]))).collect()
}
