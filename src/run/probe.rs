//! The side tables to come, without their rows: what queries are checked against before anything is trained.
//!
//! The first cell of each method is made up from an untrained model and a handful of samples and sent through the code that
//! writes the tables, so that the columns are those of the run by construction.

use std::sync::Arc;

use polars::prelude::DataFrame;

use super::columns::ScoreColumn;
use super::evaluation::Evaluation;
use super::record::CellRecord;
use super::snapshots::snapshots;
use super::training_set::TrainingSet;
use super::{RunError, tables};
use crate::baseline;
use crate::data::{Dataset, Finite, World};
use crate::hidden::{HiddenMaker, HiddenSource};
use crate::plan::{Plan, resolve};
use crate::sae::{Coder, SaeTrace};
use crate::store::{StoreError, identity_of};
use crate::table::Tables;
use crate::toy::{ToyJob, ToyOutcome, ToyTrace, TrainingEnd};

/// Samples of the made-up cells.
const SAMPLES: usize = 16;

/// Empty tables with the columns that the run will have; `rows` is the empty table of rows.
///
/// # Errors
/// A file that the experiment names cannot be read.
pub fn empty_tables(plan: &Plan, columns: &[ScoreColumn], rows: DataFrame) -> Result<Tables, RunError> {
    let mut records = Vec::new();
    for method in 0..plan.methods.len() as u32 {
        if let Some(index) = plan.cells.iter().position(|cell| cell.method == method) {
            records.push(made_up(plan, columns, index)?);
        }
    }
    let wrong = |e: polars::error::PolarsError| RunError::Store(StoreError::WrongShape { reason: e.to_string() });
    let identity = identity_of(&rows).map_err(wrong)?;
    let empty = |own: Option<DataFrame>| -> Result<Option<DataFrame>, RunError> {
        let mut columns = identity.clone().into_columns();
        let own = own.map_or(vec![], |frame| frame.clear().into_columns());
        columns.extend(own.into_iter().filter(|column| identity.column(column.name()).is_err()));
        DataFrame::new(0, columns).map(Some).map_err(wrong)
    };
    let save = &plan.document.experiment.save;
    let when = |wanted: bool, frame: Option<DataFrame>| if wanted { frame } else { None };
    Ok(Tables {
        features: empty(when(save.features, tables::features(plan, &records)?))?,
        trace: empty(tables::trace(plan, &records)?)?,
        snapshots: empty(tables::snapshots(plan, &records)?)?,
        samples: empty(when(save.samples, tables::samples(plan, &records)?))?,
        rows,
    })
}

/// The record of a cell as if it had been trained.
fn made_up(plan: &Plan, columns: &[ScoreColumn], index: usize) -> Result<CellRecord, RunError> {
    let (cell, trace) = (plan.cell(index), &plan.document.experiment.save.trace);
    let mut world = resolve::world(&cell.data, cell.seed);
    world.dataset = world.dataset.map(|d| Finite { samples: d.samples.min(SAMPLES), ..d });
    let world: Arc<World> = Arc::new(world);
    let toy = cell.toy.as_ref().map(|section| {
        let job = resolve::toy_job(section, &world, cell.seed, trace.every);
        untrained(&ToyJob { snapshots: trace.features, ..job })
    });
    let maker = match &toy {
        Some(outcome) => HiddenMaker::Toy(Arc::new(outcome.model.clone())),
        None => match resolve::dictionary(&cell.data, cell.seed, &plan.document.folder()) {
            Some(dictionary) => HiddenMaker::Dictionary(Arc::new(dictionary.map_err(RunError::Input)?)),
            None => return Err(RunError::Input("nothing makes hidden states".into())),
        },
    };
    let source = HiddenSource { world: world.clone(), seed: cell.seed, maker };
    let importance = cell.toy.as_ref().map(|toy| resolve::importance(toy, world.n_features, cell.seed));
    let model = toy.as_ref().map(|toy| &toy.model).zip(importance.as_deref());
    let set = model.and_then(|(model, importance)| {
        let weights: Vec<f32> = importance.iter().map(|v| *v as f32).collect();
        Some(TrainingSet::new(&Dataset::draw(&world, cell.seed)?, model, &weights))
    });
    let evaluation = Evaluation::new(&source, SAMPLES, model).with_training_set(set);
    let method = plan.method_name(plan.cells[index]).is_some();
    let coder: Option<Box<dyn Coder>> =
        method.then(|| Box::new(baseline::random(2, source.d_hidden(), None, cell.seed)) as Box<dyn Coder>);
    let scored = evaluation.score(coder.as_deref(), columns);
    let features = evaluation.feature_columns(&scored, importance.as_deref());
    let logged = if trace.every > 0 { vec![SaeTrace { step: 0, loss: 0.0, l0: 0.0 }] } else { vec![] };
    let record = CellRecord::ok(index, scored, features, None, toy.as_ref(), coder, logged);
    let snapshots = Arc::new(toy.as_ref().map_or(vec![], |toy| snapshots(toy, 1, &world.groups)));
    let samples = evaluation.training_set().map_or(vec![], TrainingSet::columns);
    Ok(CellRecord { samples, snapshots, ..record })
}

fn untrained(job: &ToyJob) -> ToyOutcome {
    let model = job.initial_model(0);
    let step = |parameters| ToyTrace { step: 0, loss: 0.0, parameters };
    let parameters = job.snapshots.then(|| model.parameters());
    let trace = if job.trace_every > 0 { vec![step(parameters)] } else { vec![] };
    ToyOutcome { model, restart: 0, end: TrainingEnd::Finished, trace }
}
