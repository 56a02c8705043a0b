//! Rows and plans for the tests of the store and of the table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{CellId, Column, Kind, PartName, PlanRecord, Row, Schema, Status, Store, Value};

/// Two axes and four scores, one of each kind but `Bool` among the scores' types.
pub fn schema() -> Schema {
    Schema {
        axes: vec![Column::new("data.firing_probability", Kind::Float), Column::new("toy.d_hidden", Kind::Int)],
        scores: vec![
            Column::new("loss", Kind::Float),
            Column::new("mcc", Kind::Float),
            Column::new("n_represented", Kind::Int),
            Column::new("phase", Kind::Text),
        ],
    }
}

/// The id of the cell at an index: the index itself, so that tests can read it.
pub fn cell(index: u64) -> CellId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    CellId(bytes)
}

/// The row of the cell at an index: two seeds for each combination of the axes.
pub fn row(index: u64) -> Row {
    Row {
        cell: cell(index),
        plan_index: index,
        seed: index % 2,
        method: Some(if index % 4 < 2 { "topk" } else { "relu" }.into()),
        status: Status::Ok,
        detail: None,
        steps_done: Some(100),
        axes: vec![Value::Float(0.1 * (1 + index / 4) as f64), Value::Int(5)],
        scores: vec![
            Value::Float(1.0 / (1 + index) as f64),
            Value::Float(0.25 * (index % 4) as f64),
            Value::Int(index as i64),
            Value::Text("superposed".into()),
        ],
        algo_version: "toy 1".into(),
    }
}

/// A plan of `cells` cells in chunks of `size`.
pub fn plan(cells: u64, size: u64) -> PlanRecord {
    let schema = schema();
    PlanRecord {
        experiment: "test".into(),
        canonical: serde_json::json!({"name": "test", "cells": cells}),
        axes: schema.axes,
        scores: schema.scores,
        cells,
        chunks: (0..cells.div_ceil(size)).map(|chunk| (chunk * size, size.min(cells - chunk * size))).collect(),
        algo_versions: BTreeMap::from([("toy".to_string(), "1".to_string())]),
        profile: "cpu-f32-v1".into(),
        kept: vec![],
    }
}

/// The ids of a plan of `cells` cells, in its order.
pub fn ids(cells: u64) -> Vec<CellId> {
    (0..cells).map(cell).collect()
}

/// An empty store of a plan in a folder that lives as long as the test.
pub fn store_of(plan: &PlanRecord) -> (TempDir, Store) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::create_or_open(folder.path(), b"name: test\n", plan).expect("a new store");
    (folder, store)
}

/// Where a part belongs, in a folder that is there.
pub fn place_of(store: &Store, name: &PartName) -> PathBuf {
    let folder = store.dir().join("parts").join(name.folder());
    std::fs::create_dir_all(&folder).expect("a folder");
    folder.join(name.file_name("parquet"))
}
