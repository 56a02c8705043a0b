//! The side tables to come, without their rows: what queries are checked against before anything is trained.
//!
//! The first cell of each method is made up from an untrained model and a handful of samples and sent through the code that
//! writes the tables, so that the columns are those of the run by construction.

use std::sync::Arc;

use polars::prelude::DataFrame;

use super::columns::ScoreColumn;
use super::evaluation::Evaluation;
use super::given;
use super::record::CellRecord;
use super::snapshots::snapshots;
use super::training_set::TrainingSet;
use super::{RunError, tables};
use crate::baseline;
use crate::data::{Finite, World};
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
    if plan.document.experiment.activations.is_some() {
        return Ok(given::made_up(index, &cell, columns, trace.every > 0));
    }
    let mut world = resolve::world(&cell.data, cell.seed, &plan.files).map_err(RunError::Input)?;
    world.dataset = world.dataset.map(|d| Finite { samples: d.samples.min(SAMPLES), ..d });
    let world: Arc<World> = Arc::new(world);
    let toy = cell.toy.as_ref().map(|section| {
        let job = resolve::toy_job(section, &world, cell.seed, trace.every);
        untrained(&ToyJob { snapshots: trace.features, ..job })
    });
    let maker = match &toy {
        Some(outcome) => HiddenMaker::Toy(Arc::new(outcome.model.clone())),
        None => match resolve::dictionary(&cell.data, cell.seed, &plan.files) {
            Some(dictionary) => HiddenMaker::Dictionary(Arc::new(dictionary.map_err(RunError::Input)?)),
            None => return Err(RunError::Input("nothing makes hidden states".into())),
        },
    };
    let source = HiddenSource { world: world.clone(), seed: cell.seed, maker };
    let importance = cell.toy.as_ref().map(|toy| resolve::importance(toy, world.n_features, cell.seed));
    let model = toy.as_ref().map(|toy| &toy.model).zip(importance.as_deref());
    let set = model.and_then(|(model, importance)| TrainingSet::of(&source, model, importance));
    let evaluation = Evaluation::new(&source, Some(SAMPLES), model, model.map(|_| (0.0, 0.0)), columns);
    let evaluation = evaluation.with_training_set(set);
    let method = plan.method_name(plan.cells[index]).is_some();
    let coder: Option<Box<dyn Coder>> =
        method.then(|| Box::new(baseline::random(2, source.d_hidden(), None, cell.seed)) as Box<dyn Coder>);
    let scored = evaluation.score(coder.as_deref(), columns);
    let features = evaluation.feature_columns(&scored, importance.as_deref());
    let logged = if trace.every > 0 { vec![SaeTrace { step: 0, loss: 0.0, l0: 0.0, control: None }] } else { vec![] };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Watch;
    use crate::backend::cpu::CpuBackend;
    use crate::plan::{MOST_CELLS, Versions};
    use crate::run::chunk::Bench;
    use crate::run::columns::{algorithms, score_columns};
    use crate::run::plan_record;
    use crate::spec::Document;
    use crate::spec::output::WeightsSection;
    use crate::store;

    struct Quiet;
    impl Watch for Quiet {
        fn advance(&self, _: u64) {}
    }

    fn names(table: &Option<DataFrame>) -> Vec<String> {
        table.iter().flat_map(|t| t.get_column_names_owned()).map(|name| name.to_string()).collect()
    }

    #[test]
    fn the_tables_foretold_have_the_columns_and_types_of_the_tables_written() {
        let toy = "toy: {d_hidden: 3, train: {steps: 20, batch_size: 8}}\n";
        for text in [
            format!("name: a\ndata: {{n_features: 5, firing_probability: 0.3}}\n{toy}"),
            format!(
                "name: a\ndata: {{n_features: 5, firing_probability: 0.3, groups: [{{together: [0, 1]}}], \
                 dataset: {{samples: 30}}}}\n{toy}save: {{trace: {{every: 5, features: true}}}}\nscore: [loss, norm_rank_2]\n"
            ),
            format!(
                "name: a\ndata: {{n_features: 5, firing_probability: 0.3}}\n{toy}sae: [{{topk: {{n_latents: 4, k: 1}}}}]\n\
                 sae_train: {{steps: 20, batch_size: 8}}\nbaselines: [pca]\nsave: {{trace: {{every: 5}}}}\n"
            ),
            "name: a\ndata: {n_features: 5, firing_probability: 0.3, dictionary: {d_hidden: 4}}\nbaselines: [random]\n"
                .to_owned(),
        ] {
            let document =
                Document::read("a.yaml", &format!("{text}evaluate: {{samples: 64}}\n")).expect("it is right");
            let columns = score_columns(&document).expect("known scores");
            let versions = Versions { algorithms: &algorithms(&columns), profile: "" };
            let plan = Plan::new(document, &versions, MOST_CELLS).expect("a plan");
            let record = plan_record(&plan, &columns, "");
            let rows = store::frame(&record.experiment, &record.schema(), &[]).expect("no rows");
            let foretold = empty_tables(&plan, &columns, rows).expect("tables");
            let trace = &plan.document.experiment.save.trace;
            let bench = Bench {
                plan: &plan,
                columns: &columns,
                backend: &CpuBackend,
                watch: &Quiet,
                trace,
                keep: &WeightsSection::All,
                given: None,
                keeper: None,
            };
            let all: Vec<usize> = (0..plan.cells.len()).collect();
            let records = bench.compute(&all).expect("no files").expect("nobody said stop");
            let written = [
                tables::features(&plan, &records),
                tables::trace(&plan, &records),
                tables::snapshots(&plan, &records),
                tables::samples(&plan, &records),
            ]
            .map(|table| table.expect("it is a table"));
            for ((name, foretold), written) in foretold.sides().into_iter().zip(&written) {
                let known = names(foretold);
                assert_eq!(known.len(), 5 + names(written).len().saturating_sub(1), "{name}: {known:?}");
                for column in written.iter().flat_map(|table| table.columns()) {
                    let dtype = foretold.as_ref().and_then(|t| t.column(column.name()).ok()).map(|c| c.dtype());
                    assert_eq!(dtype, Some(column.dtype()), "{name}.{}", column.name());
                }
            }
        }
    }
}
