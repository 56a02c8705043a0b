//! What a figure reads: rows, tables beside them, and kept weights.

use std::collections::BTreeMap;

use polars::prelude::DataFrame;

use super::data::{Column, Table};
use super::error::FigureError;
use super::frame;
use super::panels::Facets;
use super::spec::{FigureSpec, SideTable};
use super::weights::ToyWeights;
use crate::store::Tensor;

/// Kept weights by cell.
pub trait Weights {
    /// True where weights of the cell were kept.
    fn has(&self, cell: &str) -> bool;
    /// The tensors of a cell, such as `toy.w` `[n_features, d_hidden]`.
    ///
    /// # Errors
    /// In words, if they cannot be read.
    fn tensors(&self, cell: &str) -> Result<Vec<Tensor>, String>;
}

/// Everything figures may read. Side tables are those of all cells; rows decide which of them are shown.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// One row for each cell, reduced over seeds or not.
    pub rows: &'a DataFrame,
    /// One row for each cell and feature.
    pub features: Option<&'a DataFrame>,
    /// One row for each cell, model and logged step.
    pub trace: Option<&'a DataFrame>,
    /// One row for each cell, logged step and feature.
    pub snapshots: Option<&'a DataFrame>,
    /// One row for each cell and sample of a finite training set.
    pub samples: Option<&'a DataFrame>,
    /// Kept weights.
    pub weights: Option<&'a dyn Weights>,
}

impl<'a> Sources<'a> {
    /// Rows alone.
    pub fn of_rows(rows: &'a DataFrame) -> Sources<'a> {
        Sources { rows, features: None, trace: None, snapshots: None, samples: None, weights: None }
    }

    fn side(&self, side: SideTable) -> Option<&'a DataFrame> {
        match side {
            SideTable::Features => self.features,
            SideTable::Trace => self.trace,
            SideTable::Snapshots => self.snapshots,
            SideTable::Samples => self.samples,
        }
    }
}

/// The part of the sources that one figure reads, as plain columns.
#[derive(Default)]
pub struct Data<'a> {
    /// The rows that are shown.
    pub rows: Table,
    /// Tables beside them; rows of other cells may be among them.
    pub sides: Vec<(SideTable, Table)>,
    /// Kept weights.
    pub weights: Option<&'a dyn Weights>,
}

impl<'a> Data<'a> {
    /// What a figure reads of the sources. `swept` names the axes, which tell rows apart.
    pub fn of(spec: &FigureSpec, sources: &Sources<'a>, swept: &[String]) -> Result<Data<'a>, FigureError> {
        let rows = frame::filtered(sources.rows, spec.filter())?;
        let wanted: Vec<String> = spec.columns().into_iter().chain(swept.iter().cloned()).collect();
        let mut of_side: BTreeMap<SideTable, Vec<String>> = BTreeMap::new();
        for (side, columns) in spec.sides() {
            of_side.entry(side).or_default().extend(columns);
        }
        let mut sides = Vec::new();
        for (side, columns) in of_side {
            if let Some(table) = sources.side(side) {
                sides.push((side, frame::table(table, &columns)?));
            }
        }
        Ok(Data { rows: frame::table(&rows, &wanted)?, sides, weights: sources.weights })
    }

    /// The table, if the run has one.
    pub fn find(&self, side: SideTable) -> Option<&Table> {
        self.sides.iter().find(|(known, _)| *known == side).map(|(_, table)| table).filter(|table| table.height > 0)
    }

    /// The table that part `at` of a figure asks for.
    pub fn side(&self, at: &str, side: SideTable) -> Result<&Table, FigureError> {
        self.find(side).ok_or_else(|| FigureError::NoSide {
            at: at.to_owned(),
            table: side.name(),
            kept_by: side.kept_by(),
        })
    }

    /// For each row of a table beside the rows, the row of its cell; `None` where that is not shown.
    pub fn owners(&self, at: &str, side: &Table) -> Result<Vec<Option<usize>>, FigureError> {
        let (rows, own) = (self.rows.column(at, "cell")?, side.column(at, "cell")?);
        let (Column::Text(rows), Column::Text(own)) = (rows, own) else { return Ok(vec![None; side.height]) };
        let place: BTreeMap<&str, usize> =
            rows.iter().enumerate().filter_map(|(row, cell)| Some((cell.as_deref()?, row))).collect();
        Ok(own.iter().map(|cell| place.get(cell.as_deref()?).copied()).collect())
    }

    /// The cell of a row.
    pub fn cell(&self, row: usize) -> Option<&str> {
        match self.rows.find("cell") {
            Some(Column::Text(cells)) => cells[row].as_deref(),
            _ => None,
        }
    }

    /// Of each panel the row of lowest loss whose weights were kept, and these. Errors where a panel has none.
    pub fn best_weights(&self, kind: &str, facets: &Facets) -> Result<Vec<(usize, ToyWeights)>, FigureError> {
        let none = |why: String| FigureError::NoWeights { at: kind.to_owned(), why };
        let weights = self.weights.ok_or_else(|| none("the run has no kept weights".to_owned()))?;
        let kept = |row: usize| self.cell(row).is_some_and(|cell| weights.has(cell));
        let rows = self.best_rows(facets, &kept);
        let of_panel = |(panel, row): (usize, Option<usize>)| {
            let title = facets.titles[panel].read();
            let row = row.ok_or_else(|| none(format!("no weights were kept for the panel `{title}`")))?;
            let tensors = weights.tensors(self.cell(row).unwrap_or_default()).map_err(none)?;
            Ok((row, ToyWeights::of(kind, &tensors)?))
        };
        rows.into_iter().enumerate().map(of_panel).collect()
    }

    /// Of each panel the row of lowest loss (the trained one, with importances, where rows have it) among those that did
    /// not diverge and are `eligible`; of equals the first.
    pub fn best_rows(&self, facets: &Facets, eligible: &dyn Fn(usize) -> bool) -> Vec<Option<usize>> {
        let diverged = self.rows.diverged();
        let loss = ["loss_weighted", "loss"].iter().find_map(|name| match self.rows.find(name) {
            Some(Column::Number(loss)) => Some(loss),
            _ => None,
        });
        let key = |row: usize| loss.and_then(|loss| loss[row]).unwrap_or(f64::INFINITY);
        let of_panel = |panel: usize| {
            let here = |row: &usize| facets.of_row[*row] == Some(panel) && !diverged[*row] && eligible(*row);
            // `min_by` keeps the first of equals.
            (0..self.rows.height).filter(here).min_by(|a, b| key(*a).total_cmp(&key(*b)))
        };
        (0..facets.titles.len()).map(of_panel).collect()
    }

    /// Most rows that one panel has, for captions.
    pub fn most_rows(&self, facets: &Facets) -> usize {
        let count = |panel| facets.of_row.iter().filter(|of| **of == Some(panel)).count();
        (0..facets.titles.len()).map(count).max().unwrap_or(0)
    }
}
