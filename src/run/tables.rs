//! Records of cells as rows and side tables.

use std::collections::BTreeMap;

use polars::prelude::{Column as Series, DataFrame};

use super::evaluation::FeatureColumn;
use super::record::CellRecord;
use super::snapshots::Summary;
use super::{RunError, axis_values};
use crate::plan::{CellId, Plan};
use crate::spec::output::WeightsSection;
use crate::store::{ChunkResult, Row, Side, SideTable, StoreError, WeightTensor, cell_column, encode_weights};

/// Everything a chunk publishes.
pub fn chunk_result(
    plan: &Plan,
    chunk: u64,
    records: Vec<CellRecord>,
    algorithms: &str,
    keep: &WeightsSection,
) -> Result<ChunkResult, RunError> {
    let mut side = Vec::new();
    if plan.document.experiment.save.features {
        side.extend(features(plan, &records)?.map(|frame| SideTable { side: Side::Features, frame }));
    }
    side.extend(trace(plan, &records)?.map(|frame| SideTable { side: Side::Trace, frame }));
    side.extend(snapshots(plan, &records)?.map(|frame| SideTable { side: Side::Snapshots, frame }));
    if plan.document.experiment.save.samples {
        side.extend(samples(plan, &records)?.map(|frame| SideTable { side: Side::Samples, frame }));
    }
    let weights = weights(plan, &records, keep)?;
    let rows = records.into_iter().map(|record| row(plan, record, algorithms)).collect();
    Ok(ChunkResult { chunk, rows, side, weights })
}

fn row(plan: &Plan, record: CellRecord, algorithms: &str) -> Row {
    let cell = plan.cells[record.index];
    Row {
        cell: plan.ids[record.index],
        plan_index: record.index as u64,
        seed: plan.document.experiment.seeds[cell.seed as usize],
        method: plan.method_name(cell).map(str::to_owned),
        status: record.status,
        detail: record.detail,
        steps_done: record.steps_done,
        axes: axis_values(plan, record.index),
        scores: record.values,
        algo_version: algorithms.to_owned(),
    }
}

fn wrong(error: impl std::fmt::Display) -> RunError {
    RunError::Store(StoreError::WrongShape { reason: error.to_string() })
}

/// One row per cell and feature; none where no cell has any.
pub fn features(plan: &Plan, records: &[CellRecord]) -> Result<Option<DataFrame>, RunError> {
    stacked(plan, records, |record| &record.features)
}

/// One row per cell and training sample; none where no cell has a finite set.
pub fn samples(plan: &Plan, records: &[CellRecord]) -> Result<Option<DataFrame>, RunError> {
    stacked(plan, records, |record| &record.samples)
}

/// Columns of all cells that have some, cell after cell. A column that a cell lacks is null there.
fn stacked(
    plan: &Plan,
    records: &[CellRecord],
    own: impl Fn(&CellRecord) -> &Vec<(String, FeatureColumn)>,
) -> Result<Option<DataFrame>, RunError> {
    let (mut cells, mut columns): (Vec<CellId>, Vec<(String, FeatureColumn)>) = (Vec::new(), Vec::new());
    for record in records.iter().filter(|r| !own(r).is_empty()) {
        let before = cells.len();
        let n = own(record).iter().map(|(_, c)| c.len()).max().unwrap_or(0);
        cells.extend(std::iter::repeat_n(plan.ids[record.index], n));
        for (name, values) in own(record) {
            let at = columns.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                columns.push((name.clone(), values.nulls(before)));
                columns.len() - 1
            });
            columns[at].1.extend(values).map_err(|()| wrong(format!("column {name} holds two types of values")))?;
        }
        columns.iter_mut().for_each(|(_, column)| column.fill_up(cells.len()));
    }
    if columns.is_empty() {
        return Ok(None);
    }
    let height = cells.len();
    let mut series = vec![cell_column(cells.into_iter())];
    series.extend(columns.into_iter().map(|(name, column)| match column {
        FeatureColumn::Numbers(v) => Series::new(name.into(), finite(&v)),
        FeatureColumn::Whole(v) => Series::new(name.into(), v),
        FeatureColumn::Words(v) => Series::new(name.into(), v),
    }));
    DataFrame::new(height, series).map(Some).map_err(wrong)
}

fn finite(values: &[Option<f64>]) -> Vec<Option<f64>> {
    values.iter().map(|v| v.filter(|v| v.is_finite())).collect()
}

impl FeatureColumn {
    fn len(&self) -> usize {
        match self {
            FeatureColumn::Numbers(v) => v.len(),
            FeatureColumn::Whole(v) => v.len(),
            FeatureColumn::Words(v) => v.len(),
        }
    }

    /// So many nulls of this type.
    fn nulls(&self, len: usize) -> FeatureColumn {
        match self {
            FeatureColumn::Numbers(_) => FeatureColumn::Numbers(vec![None; len]),
            FeatureColumn::Whole(_) => FeatureColumn::Whole(vec![None; len]),
            FeatureColumn::Words(_) => FeatureColumn::Words(vec![None; len]),
        }
    }

    /// Adds values of the same type.
    fn extend(&mut self, more: &FeatureColumn) -> Result<(), ()> {
        match (self, more) {
            (FeatureColumn::Numbers(v), FeatureColumn::Numbers(more)) => v.extend(more),
            (FeatureColumn::Whole(v), FeatureColumn::Whole(more)) => v.extend(more),
            (FeatureColumn::Words(v), FeatureColumn::Words(more)) => v.extend(more),
            _ => return Err(()),
        }
        Ok(())
    }

    /// Nulls up to this length.
    fn fill_up(&mut self, len: usize) {
        match self {
            FeatureColumn::Numbers(v) => v.resize(len, None),
            FeatureColumn::Whole(v) => v.resize(len, None),
            FeatureColumn::Words(v) => v.resize(len, None),
        }
    }
}

/// One row per cell and logged step: which model, its loss, its l0, where a controller of l0 stands, and where the toy
/// model's parameters were logged too what they come to.
pub fn trace(plan: &Plan, records: &[CellRecord]) -> Result<Option<DataFrame>, RunError> {
    let mut summaries: Vec<(&'static str, Vec<Option<f64>>)> = Vec::new();
    let (mut cells, mut models, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    let (mut losses, mut l0s): (Vec<Option<f64>>, Vec<Option<f64>>) = (Vec::new(), Vec::new());
    let (mut multipliers, mut smoothed): (Vec<Option<f64>>, Vec<Option<f64>>) = (Vec::new(), Vec::new());
    let finite = |v: f64| Some(v).filter(|v| v.is_finite());
    for record in records {
        let id = plan.ids[record.index];
        let toy = record.toy_trace.iter().map(|t| ("toy", t.step, finite(t.loss), None, None));
        let sae = record.sae_trace.iter().map(|t| ("sae", t.step, finite(t.loss), finite(t.l0), t.control));
        for (model, step, loss, l0, control) in toy.chain(sae) {
            let snapshot = (model == "toy").then(|| record.snapshots.binary_search_by_key(&step, |s| s.step));
            let summary = snapshot.and_then(Result::ok).map(|at| record.snapshots[at].summary);
            for (name, value) in summary.into_iter().flat_map(Summary::columns) {
                if !summaries.iter().any(|(known, _)| *known == name) {
                    summaries.push((name, vec![]));
                }
                let (_, column) = summaries.iter_mut().find(|(known, _)| *known == name).expect("it was just added");
                // Steps and models before this one had none.
                column.resize(cells.len(), None);
                column.push(value);
            }
            cells.push(id);
            models.push(model);
            steps.push(step as i64);
            losses.push(loss);
            l0s.push(l0);
            multipliers.push(control.and_then(|control| finite(control.multiplier)));
            smoothed.push(control.and_then(|control| finite(control.l0_smoothed)));
        }
    }
    if cells.is_empty() {
        return Ok(None);
    }
    let mut columns = vec![
        cell_column(cells.iter().copied()),
        Series::new("model".into(), models),
        Series::new("step".into(), steps),
        Series::new("loss".into(), losses),
        Series::new("l0".into(), l0s),
        Series::new("multiplier".into(), multipliers),
        Series::new("l0_smoothed".into(), smoothed),
    ];
    for (name, mut column) in summaries {
        column.resize(cells.len(), None);
        columns.push(Series::new(name.into(), column));
    }
    DataFrame::new(cells.len(), columns).map(Some).map_err(wrong)
}

/// One row per cell, snapshot and feature; none where no cell has any. Directions of up to three dimensions are spelled
/// out.
pub fn snapshots(plan: &Plan, records: &[CellRecord]) -> Result<Option<DataFrame>, RunError> {
    let (mut cells, mut steps, mut features) = (Vec::new(), Vec::new(), Vec::new());
    let mut numbers: [Vec<Option<f64>>; 3] = Default::default();
    let widest = records.iter().flat_map(|r| r.snapshots.iter()).map(|s| s.d_hidden).filter(|d| *d <= 3).max();
    let mut directions: Vec<Vec<Option<f64>>> = vec![vec![]; widest.unwrap_or(0)];
    for record in records {
        let id = plan.ids[record.index];
        for snapshot in record.snapshots.iter() {
            let n = snapshot.norm.len();
            cells.extend(std::iter::repeat_n(id, n));
            steps.extend(std::iter::repeat_n(snapshot.step as i64, n));
            features.extend(0..n as i64);
            let own = [&snapshot.norm, &snapshot.dimensionality, &snapshot.superposition];
            numbers.iter_mut().zip(own).for_each(|(all, own)| all.extend(own));
            for (k, all) in directions.iter_mut().enumerate() {
                let d = snapshot.d_hidden;
                let w = |i: usize| (d <= 3 && k < d).then(|| snapshot.w[i * d + k] as f64).filter(|w| w.is_finite());
                all.extend((0..n).map(w));
            }
        }
    }
    if cells.is_empty() {
        return Ok(None);
    }
    let rows = cells.len();
    let [norm, dimensionality, superposition] = numbers;
    let mut columns = vec![
        cell_column(cells.into_iter()),
        Series::new("step".into(), steps),
        Series::new("feature".into(), features),
        Series::new("norm".into(), norm),
        Series::new("dimensionality".into(), dimensionality),
        Series::new("superposition".into(), superposition),
    ];
    columns.extend(directions.into_iter().enumerate().map(|(k, w)| Series::new(format!("w_{k}").into(), w)));
    DataFrame::new(rows, columns).map(Some).map_err(wrong)
}

/// The weights to keep: of every cell, or of the seed of lowest toy loss among those of this chunk.
fn weights(plan: &Plan, records: &[CellRecord], keep: &WeightsSection) -> Result<Option<Vec<u8>>, RunError> {
    let kept: Vec<&CellRecord> = match keep {
        WeightsSection::None | WeightsSection::Auto => return Ok(None),
        WeightsSection::All => records.iter().collect(),
        WeightsSection::Best => best_of_seeds(plan, records),
    };
    let tensors: Vec<WeightTensor> = kept
        .iter()
        .flat_map(|record| {
            record.tensors.iter().map(|(name, tensor)| WeightTensor {
                cell: plan.ids[record.index],
                name,
                shape: tensor.shape().to_vec(),
                values: tensor.as_slice().expect("tensors are made in standard layout"),
            })
        })
        .collect();
    if tensors.is_empty() {
        return Ok(None);
    }
    Ok(Some(encode_weights(&tensors)?))
}

fn best_of_seeds<'a>(plan: &Plan, records: &'a [CellRecord]) -> Vec<&'a CellRecord> {
    let mut best: BTreeMap<(u32, u32, u32), &CellRecord> = BTreeMap::new();
    for record in records.iter().filter(|r| !r.tensors.is_empty()) {
        let cell = plan.cells[record.index];
        let slot = best.entry((cell.stem, cell.method, cell.variant)).or_insert(record);
        let loss = |r: &CellRecord| r.toy_loss.unwrap_or(f64::MAX);
        if loss(record) < loss(slot) {
            *slot = record;
        }
    }
    best.into_values().collect()
}
