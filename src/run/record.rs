//! What a cell came to, before it is rows.

use std::sync::Arc;

use ndarray::ArrayD;

use super::evaluation::{CellScores, FeatureColumn};
use super::snapshots::Snapshot;
use crate::sae::{Coder, SaeTrace};
use crate::store::{Status, Value};
use crate::toy::{ToyOutcome, ToyTrace, TrainingEnd};

/// The result of one cell.
pub struct CellRecord {
    /// Plan index.
    pub index: usize,
    pub status: Status,
    pub detail: Option<String>,
    pub steps_done: Option<u64>,
    /// One for each score column.
    pub values: Vec<Value>,
    pub features: Vec<(String, FeatureColumn)>,
    /// Of a finite training set: one value a sample.
    pub samples: Vec<(String, FeatureColumn)>,
    /// Logged steps, parameters left out: those are in the snapshots.
    pub toy_trace: Vec<ToyTrace>,
    /// Shared by all cells of a toy model.
    pub snapshots: Arc<Vec<Snapshot>>,
    pub sae_trace: Vec<SaeTrace>,
    /// Toy weights and bias, then what makes the coder; names as exported.
    pub tensors: Vec<(String, ArrayD<f32>)>,
    /// What decides between seeds where only the best weights are kept.
    pub toy_loss: Option<f64>,
}

impl CellRecord {
    /// A cell whose training ended early.
    pub fn diverged(
        index: usize,
        what: &str,
        end: &TrainingEnd,
        columns: usize,
        toy: Option<&ToyOutcome>,
        sae_trace: Vec<SaeTrace>,
    ) -> CellRecord {
        let (detail, steps_done) = match end {
            TrainingEnd::Diverged { step, last_loss, tensor } => (
                format!("{what}: {tensor} diverged at step {step}, last finite loss {last_loss:e}"),
                Some(*step as u64),
            ),
            TrainingEnd::Finished => (String::new(), None),
        };
        CellRecord {
            index,
            status: Status::Diverged,
            detail: Some(detail),
            steps_done,
            values: vec![Value::Null; columns],
            features: vec![],
            samples: vec![],
            toy_trace: toy.map_or(vec![], logged),
            snapshots: Arc::default(),
            sae_trace,
            tensors: vec![],
            toy_loss: None,
        }
    }

    /// A cell that was trained and scored.
    pub fn ok(
        index: usize,
        scored: CellScores,
        features: Vec<(String, FeatureColumn)>,
        steps_done: Option<usize>,
        toy: Option<&ToyOutcome>,
        coder: Option<Box<dyn Coder>>,
        sae_trace: Vec<SaeTrace>,
    ) -> CellRecord {
        let mut tensors = Vec::new();
        if let Some(toy) = toy {
            for (name, shape, values) in toy.model.tensors() {
                let tensor = ArrayD::from_shape_vec(shape, values).expect("a tensor fills its shape");
                tensors.push((format!("toy.{name}"), tensor));
            }
        }
        if let Some(coder) = &coder {
            tensors.extend(coder.tensors().into_iter().map(|(name, t)| (format!("sae.{name}"), t)));
        }
        let (status, detail) = status_of(&scored);
        CellRecord {
            index,
            status,
            detail,
            steps_done: steps_done.map(|s| s as u64),
            values: scored.values,
            features,
            samples: vec![],
            toy_trace: toy.map_or(vec![], logged),
            snapshots: Arc::default(),
            sae_trace,
            tensors,
            toy_loss: None,
        }
    }
}

impl CellRecord {
    /// The same cell where training did not reach the L0 that was asked for, with the reason put first.
    pub fn off_target(self, missed: Option<String>) -> CellRecord {
        let Some(missed) = missed else { return self };
        let detail = match self.detail {
            Some(detail) => format!("{missed}; {detail}"),
            None => missed,
        };
        let status = if self.status == Status::Ok { Status::OffTarget } else { self.status };
        CellRecord { status, detail: Some(detail), ..self }
    }
}

fn logged(toy: &ToyOutcome) -> Vec<ToyTrace> {
    toy.trace.iter().map(|t| ToyTrace { step: t.step, loss: t.loss, parameters: None }).collect()
}

/// `degenerate` where nothing could be scored, else `ok`; the detail names what is null and why.
fn status_of(scored: &CellScores) -> (Status, Option<String>) {
    if scored.undefined.is_empty() {
        return (Status::Ok, None);
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, reason) in &scored.undefined {
        match reasons.iter_mut().find(|(r, _)| r == reason) {
            Some((_, names)) => names.push(name),
            None => reasons.push((reason, vec![name])),
        }
    }
    let lines: Vec<String> = reasons.iter().map(|(reason, names)| format!("{}: {reason}", names.join(", "))).collect();
    let all = scored.values.iter().all(|v| *v == Value::Null);
    (if all { Status::Degenerate } else { Status::Ok }, Some(lines.join("; ")))
}
