//! Side tables: what is more than one number a cell, one row per cell and feature, logged step or training sample.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use polars::prelude::{Column as Series, DataFrame, DataType, IdxCa, IdxSize, NamedFrom, PlSmallStr};

use super::conflict::{difference, text_of};
use super::error::{Conflict, StoreError};
use super::part::keeps_all;
use super::rows::ids_of;
use super::{PARTS, Store};
use crate::plan::CellId;

/// Which side table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// One row per cell and feature.
    Features,
    /// One row per cell and logged step.
    Trace,
    /// One row per cell, logged step and feature.
    Snapshots,
    /// One row per cell and training sample.
    Samples,
}

impl Side {
    /// All, in order.
    pub const ALL: [Side; 4] = [Side::Features, Side::Trace, Side::Snapshots, Side::Samples];

    /// Its folder, and its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Side::Features => "features",
            Side::Trace => "trace",
            Side::Snapshots => "snapshots",
            Side::Samples => "samples",
        }
    }
}

/// Rows of one cell in one file.
struct Block {
    file: usize,
    rows: Vec<IdxSize>,
}

impl Store {
    /// The files of a side table that hold for each cell: those beside its rows. Where rows of a cell stand in several parts, those
    /// that were published with all that the present plan keeps; what an older plan kept (a trace of other steps, say) is not theirs,
    /// nor is a file that no rows name.
    fn side_files(&self, side: Side) -> Result<BTreeMap<CellId, Vec<String>>, StoreError> {
        let wanted = match &self.plan {
            Some(plan) => plan.kept.clone(),
            None => self.current_plan().map(|plan| plan.kept).unwrap_or_default(),
        };
        let prefix = format!("{}/", side.name());
        let mut chosen: BTreeMap<CellId, (bool, Vec<String>, Vec<String>)> = BTreeMap::new();
        for (path, part) in self.load(PARTS, Some(&["cell"]))? {
            let cells = ids_of(&part.frame).map_err(|reason| StoreError::Damaged { path: path.clone(), reason })?;
            for (segment, cells) in part.by_segment(&cells) {
                let files: Vec<&String> = segment.companions.iter().filter(|file| file.starts_with(&prefix)).collect();
                let (whole, kept) = (keeps_all(&segment.kept, &wanted), &segment.kept);
                for cell in cells {
                    let own = chosen.entry(*cell).or_insert_with(|| (whole, kept.clone(), vec![]));
                    if (whole, kept) > (own.0, &own.1) {
                        *own = (whole, kept.clone(), vec![]);
                    }
                    if own.1 == *kept {
                        own.2.extend(files.iter().map(|file| file.to_string()));
                    }
                }
            }
        }
        Ok(chosen.into_iter().map(|(cell, (_, _, files))| (cell, files)).collect())
    }

    /// The side table of the cells in `rows`: the columns of `rows` that say which cell it is (from `cell` to `method`,
    /// where they are there), then the side table's own; in the order of `rows`, then as written. Empty, with the
    /// identifying columns alone, where no cell has any.
    ///
    /// # Errors
    /// An unreadable file, two different contents for one cell, or a `rows` without `cell`.
    pub fn side(&self, side: Side, rows: &DataFrame) -> Result<DataFrame, StoreError> {
        let allowed = self.side_files(side)?;
        let files = self.load(side.name(), None)?;
        let frames: Vec<&DataFrame> = files.iter().map(|(_, part)| &part.frame).collect();
        let paths: Vec<&PathBuf> = files.iter().map(|(path, _)| path).collect();
        let belongs = |cell: &CellId, path: &Path| {
            let path = self.below(path);
            allowed.get(cell).is_some_and(|files| files.contains(&path))
        };
        let blocks = blocks_by_cell(&frames, &paths, belongs)?;
        let wanted = ids_of(rows).map_err(|reason| StoreError::WrongShape { reason })?;
        let mut picked = Vec::new();
        let mut owners: Vec<IdxSize> = Vec::new();
        for (owner, cell) in wanted.iter().enumerate() {
            let Some(block) = blocks.get(cell) else { continue };
            picked.extend(block.rows.iter().map(|row| (block.file, *row)));
            owners.extend(std::iter::repeat_n(owner as IdxSize, block.rows.len()));
        }
        let in_words = |error: polars::error::PolarsError| StoreError::WrongShape { reason: error.to_string() };
        let identity = identity_of(rows).map_err(in_words)?;
        let mut columns = identity.take(&IdxCa::new("".into(), owners)).map_err(in_words)?.into_columns();
        columns.extend(own_columns(&frames, &picked, &identity).map_err(in_words)?);
        DataFrame::new(picked.len(), columns).map_err(in_words)
    }
}

/// The columns of a table of rows that say which cell a row is.
pub fn identity_of(rows: &DataFrame) -> Result<DataFrame, polars::error::PolarsError> {
    let names: Vec<PlSmallStr> = rows.get_column_names_owned();
    let last = names.iter().position(|name| name == "method").map_or(1, |at| at + 1);
    let mut keep: Vec<PlSmallStr> = names[..last.min(names.len())].to_vec();
    if !keep.iter().any(|name| name == "cell") {
        keep = vec!["cell".into()];
    }
    rows.select(keep)
}

/// Where each cell's rows are, of the files that belong to it; if these are several they must have the same rows.
fn blocks_by_cell(
    frames: &[&DataFrame],
    paths: &[&PathBuf],
    belongs: impl Fn(&CellId, &Path) -> bool,
) -> Result<BTreeMap<CellId, Block>, StoreError> {
    let mut blocks: BTreeMap<CellId, Block> = BTreeMap::new();
    for (file, frame) in frames.iter().enumerate() {
        let damaged = |reason| StoreError::Damaged { path: paths[file].clone(), reason };
        let cells: Vec<(CellId, IdxSize)> = ids_of(frame).map_err(damaged)?.into_iter().zip(0..).collect();
        let mut here: BTreeMap<CellId, Vec<IdxSize>> = BTreeMap::new();
        // A cell's rows stand together, so there is one look-up for each cell and not for each row.
        for run in cells.chunk_by(|a, b| a.0 == b.0) {
            here.entry(run[0].0).or_default().extend(run.iter().map(|(_, row)| *row));
        }
        for (cell, rows) in here.into_iter().filter(|(cell, _)| belongs(cell, paths[file])) {
            match blocks.get(&cell) {
                None => {
                    blocks.insert(cell, Block { file, rows });
                }
                Some(first) => {
                    let one = (frames[first.file], paths[first.file], first.rows.as_slice());
                    agree(cell, one, (frame, paths[file], &rows))?;
                }
            }
        }
    }
    Ok(blocks)
}

type Held<'a> = (&'a DataFrame, &'a PathBuf, &'a [IdxSize]);

fn agree(cell: CellId, one: Held, other: Held) -> Result<(), StoreError> {
    let conflict = |what: &str, first_value: String, second_value: String| {
        Err(Conflict {
            cell,
            what: what.into(),
            first: one.1.clone(),
            first_value,
            second: other.1.clone(),
            second_value,
        }
        .into())
    };
    if one.2.len() != other.2.len() {
        return conflict("number of rows", one.2.len().to_string(), other.2.len().to_string());
    }
    let shared: Vec<&PlSmallStr> =
        one.0.get_column_names().into_iter().filter(|name| other.0.column(name).is_ok()).collect();
    for (a, b) in one.2.iter().zip(other.2) {
        if let Some((name, first, second)) = difference(one.0, *a as usize, other.0, *b as usize, &shared) {
            return conflict(&name, text_of(&first), text_of(&second));
        }
    }
    Ok(())
}

/// The side table's own columns for the picked rows: the union of the files' columns, in the order they are met.
fn own_columns(
    frames: &[&DataFrame],
    picked: &[(usize, IdxSize)],
    identity: &DataFrame,
) -> Result<Vec<Series>, polars::error::PolarsError> {
    let names = union(frames, identity);
    let aligned = |frame: &DataFrame| {
        let columns = names.iter().map(|(name, dtype)| match frame.column(name) {
            Ok(column) => column.strict_cast(dtype),
            Err(_) => Ok(Series::full_null(name.clone(), frame.height(), dtype)),
        });
        DataFrame::new(frame.height(), columns.collect::<Result<Vec<_>, _>>()?)
    };
    let Some((first, others)) = frames.split_first() else { return Ok(Vec::new()) };
    let mut stacked = aligned(first)?;
    let mut starts: Vec<IdxSize> = vec![0];
    for frame in others {
        starts.push(stacked.height() as IdxSize);
        stacked.vstack_mut(&aligned(frame)?)?;
    }
    stacked.rechunk_mut();
    let places: Vec<IdxSize> = picked.iter().map(|(file, row)| starts[*file] + row).collect();
    Ok(stacked.take(&IdxCa::new("".into(), places))?.into_columns())
}

/// Names and types of the columns that any file has and that do not say which cell a row is.
fn union(frames: &[&DataFrame], identity: &DataFrame) -> Vec<(PlSmallStr, DataType)> {
    let mut names: Vec<(PlSmallStr, DataType)> = Vec::new();
    for column in frames.iter().flat_map(|frame| frame.columns()) {
        match names.iter_mut().find(|(name, _)| name == column.name()) {
            // A column that was all integers in one chunk and had fractions in another is one of floats.
            Some((_, dtype)) if dtype != column.dtype() => *dtype = DataType::Float64,
            Some(_) => {}
            None => names.push((column.name().clone(), column.dtype().clone())),
        }
    }
    names.retain(|(name, _)| identity.column(name).is_err());
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{ids, plan, row, store_of};
    use crate::store::{ChunkResult, PlanRecord, SideTable};
    use polars::prelude::df;

    fn features(indices: &[u64]) -> SideTable {
        let cells: Vec<String> =
            indices.iter().flat_map(|index| [row(*index).cell.to_string(), row(*index).cell.to_string()]).collect();
        let feature: Vec<i64> = indices.iter().flat_map(|_| [0, 1]).collect();
        let norm: Vec<f64> = indices.iter().flat_map(|index| [*index as f64, 0.5]).collect();
        let frame = df!["cell" => cells, "feature" => feature, "norm" => norm].expect("three columns");
        SideTable { side: Side::Features, frame }
    }

    fn publish(store: &Store, chunk: u64, indices: &[u64], side: SideTable) -> Result<(), StoreError> {
        let rows = indices.iter().map(|index| row(*index)).collect();
        store.publish(&ChunkResult { chunk, rows, side: vec![side], weights: None }).map(|_| ())
    }

    #[test]
    fn a_side_table_comes_back_joined_with_the_cells_it_belongs_to() {
        let (_folder, store) = store_of(&plan(4, 2));
        publish(&store, 1, &[2, 3], features(&[2, 3])).expect("publishes");
        publish(&store, 0, &[0, 1], features(&[1])).expect("publishes");
        let rows = store.rows(&plan(4, 2), &ids(4)).expect("rows");
        let side = store.side(Side::Features, &rows).expect("side table");
        let index: Vec<i64> =
            side.column("plan_index").expect("joined").i64().expect("i64").into_no_null_iter().collect();
        assert_eq!(index, [1, 1, 2, 2, 3, 3]);
        let norm: Vec<f64> = side.column("norm").expect("own").f64().expect("f64").into_no_null_iter().collect();
        assert_eq!(norm, [1.0, 0.5, 2.0, 0.5, 3.0, 0.5]);
        assert!(side.column("data.firing_probability").is_ok() && side.column("mcc").is_err());
        let some = rows.slice(2, 1);
        assert_eq!(store.side(Side::Features, &some).expect("one cell").height(), 2);
        assert_eq!(store.side(Side::Trace, &rows).expect("no trace").height(), 0);
    }

    #[test]
    fn a_cell_in_two_files_must_have_the_same_rows_in_both() {
        let (_folder, store) = store_of(&plan(4, 2));
        publish(&store, 0, &[0, 1], features(&[0, 1])).expect("publishes");
        publish(&store, 0, &[0], features(&[0])).expect("the same rows again, as a partial part");
        let rows = store.rows(&plan(4, 2), &ids(4)).expect("rows");
        assert_eq!(store.side(Side::Features, &rows).expect("no conflict").height(), 4);
        let other = df!["cell" => [row(0).cell.to_string(), row(0).cell.to_string()], "feature" => [0i64, 1], "norm" => [9.0, 0.5]];
        let other = SideTable { side: Side::Features, frame: other.expect("three columns") };
        publish(&store, 0, &[0], other).expect("the rows part is the same");
        let error = store.side(Side::Features, &rows).expect_err("two norms");
        assert!(matches!(&error, StoreError::Conflict(at) if at.what == "norm"), "{error}");
    }

    #[test]
    fn rows_that_lack_what_is_kept_now_are_computed_again_and_their_old_tables_are_not_read() {
        let (folder, store) = store_of(&plan(2, 2));
        publish(&store, 0, &[0, 1], features(&[0, 1])).expect("publishes");
        let edited = PlanRecord { kept: vec!["features".into()], ..plan(2, 2) };
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        let scan = again.scan().expect("sound");
        assert_eq!((scan.done().len(), scan.incomplete), (0, 2));
        let other = df!["cell" => [row(0).cell.to_string()], "feature" => [7i64], "norm" => [9.0]].expect("columns");
        publish(&again, 0, &[0, 1], SideTable { side: Side::Features, frame: other }).expect("the same rows");
        assert_eq!(again.scan().expect("sound").done().len(), 2);
        for reader in [again, Store::open(folder.path()).expect("opens")] {
            let side = reader.side(Side::Features, &reader.rows(&edited, &ids(2)).expect("rows")).expect("no conflict");
            assert_eq!(side.height(), 1, "that of the part which keeps all that is wanted");
        }
    }

    #[test]
    fn a_table_that_no_rows_name_is_not_read() {
        let (folder, store) = store_of(&plan(2, 2));
        publish(&store, 0, &[0, 1], features(&[0, 1])).expect("publishes");
        let part = store.scan().expect("sound").parts.remove(0);
        std::fs::remove_file(part).expect("there");
        store.publish(&ChunkResult { chunk: 0, rows: vec![row(0), row(1)], ..Default::default() }).expect("publishes");
        let rows = store.rows(&plan(2, 2), &ids(2)).expect("rows");
        assert_eq!(store.side(Side::Features, &rows).expect("none").height(), 0);
        assert!(folder.path().join("features").exists());
    }
}
