//! Fewer, larger files: the rows of many parts in one.
//!
//! ```text
//! parts/merged/m<first chunk>-<hash>.parquet     rows of several parts, one after the other; it names the parts
//! ```
//!
//! 1. The rows of small parts are written into merged ones, which are published as every file of the store: named by content, synced,
//!    linked, the name synced.
//! 2. Parts that a sound merged part names, and that part alone, are removed.
//!
//! A merged part says which of its rows were published together, with which tables and weights beside them, so whatever
//! was true of a row is true of it still; tables and weights stay where they are. Any part may be merged at any time, be it
//! of an unfinished plan, of an older one, or merged already: nothing but where a row stands changes.
//!
//! No row can be lost. A part is removed only when a file on disk holds its rows and has its name among its own bytes. A file
//! cannot name another one that names it, since both names are hashes; so however many processes do this at once, there is always
//! a file that none of them may remove. Killed anywhere, rows stand in two files, which says the same twice, and
//! the next call removes what is named. Who listed the directory before and reads after finds a file gone, and lists again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use polars::prelude::{DataFrame, DataType, IdxCa, IdxSize, NamedFrom};

use super::error::StoreError;
use super::part::{Extent, MERGED, Part, PartName, Segment, encode_merged};
use super::rows::ids_of;
use super::{CellId, PARTS, Store};

/// What compacting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Sound parts before and after.
    pub before: usize,
    pub after: usize,
    /// Merged parts that were written.
    pub written: usize,
    /// Parts that were removed, their rows being in a merged one.
    pub removed: usize,
}

/// A sound part, as far as it matters here.
struct Small {
    path: PathBuf,
    name: PartName,
    rows: usize,
    /// Names and types of its columns: only parts that agree in them are merged.
    columns: Vec<(String, DataType)>,
    sources: Vec<String>,
}

impl Small {
    fn file_name(&self) -> String {
        self.name.file_name("parquet")
    }
}

/// A merged part in the making.
struct Merger {
    segments: Vec<Segment>,
    frame: Option<DataFrame>,
    sources: BTreeSet<String>,
    /// Cells that are in it with what was kept beside them, each once.
    held: BTreeSet<(CellId, Vec<String>)>,
    chunk: u64,
}

impl Store {
    /// Merges parts of fewer than half of `most_rows` rows into ones of at most so many, and removes those whose rows are in a merged
    /// part. Damaged parts are left where they are.
    ///
    /// # Errors
    /// Two results for one cell; a damaged plan; a file of a later format; what the file system refuses. Every row is on disk all the same.
    pub fn compact(&self, most_rows: usize) -> Result<Compacted, StoreError> {
        // What a later version has written is not for this one to change.
        self.plans()?;
        // Contradictions are for a run to settle: which of the parts that hold them would be merged?
        if let Some(conflict) = self.look_over()?.conflicts.into_iter().next() {
            return Err(conflict.into());
        }
        let parts = self.small_parts()?;
        let named: BTreeSet<&String> = parts.iter().flat_map(|part| &part.sources).collect();
        let (leftover, rest): (Vec<&Small>, Vec<&Small>) =
            parts.iter().partition(|part| named.contains(&part.file_name()));
        let mut done = Compacted { before: parts.len(), after: parts.len(), ..Compacted::default() };
        self.remove_leftovers(&parts, &leftover, &mut done)?;
        for group in groups(&rest, most_rows) {
            self.merge(&group, &mut done)?;
        }
        Ok(done)
    }

    fn small_parts(&self) -> Result<Vec<Small>, StoreError> {
        let parts = self.load(PARTS, Some(&["cell"]))?;
        let small = parts.into_iter().filter_map(|(path, part)| {
            let name = PartName::parse(&path.file_name()?.to_string_lossy(), "parquet")?;
            Some(Small { path, name, rows: part.frame.height(), columns: part.columns, sources: part.sources })
        });
        Ok(small.collect())
    }

    /// Removes what a process that was killed left, or what was published once more since.
    fn remove_leftovers(&self, parts: &[Small], leftover: &[&Small], done: &mut Compacted) -> Result<(), StoreError> {
        let names: BTreeSet<String> = leftover.iter().map(|part| part.file_name()).collect();
        for part in parts.iter().filter(|part| part.sources.iter().any(|source| names.contains(source))) {
            // Nobody knows whether its writer came to see the name on disk, and a sync by another process proves nothing after one
            // that failed. Replacing it is harmless: the name is made from the content.
            match self.disk.files.read(&part.path) {
                Ok(bytes) if part.name.is_of(&bytes) => self.disk.replace(&part.path, &bytes)?,
                // Merged with others, or rotten, in this moment: another time.
                _ => continue,
            }
            let held: Vec<&Small> =
                leftover.iter().filter(|old| part.sources.contains(&old.file_name())).copied().collect();
            self.remove_all(&held, done)?;
        }
        Ok(())
    }

    fn remove_all(&self, parts: &[&Small], done: &mut Compacted) -> Result<(), StoreError> {
        for part in parts {
            self.remove(&part.path)?;
            done.removed += 1;
            done.after = done.after.saturating_sub(1);
        }
        Ok(())
    }

    /// Publishes the rows of these parts as one, and then removes them.
    fn merge(&self, group: &[&Small], done: &mut Compacted) -> Result<(), StoreError> {
        let mut merger =
            Merger { segments: vec![], frame: None, sources: BTreeSet::new(), held: BTreeSet::new(), chunk: u64::MAX };
        let mut merged = Vec::new();
        for small in group {
            // Gone: another process has merged it.
            if let Some(part) = self.read_part(&small.path)? {
                merger.add(small, &part).map_err(|reason| StoreError::Damaged { path: small.path.clone(), reason })?;
                merged.push(*small);
            }
        }
        let Some(frame) = merger.frame.take().filter(|_| merged.len() > 1) else { return Ok(()) };
        let sources: Vec<String> = merger.sources.into_iter().collect();
        let bytes = encode_merged(merger.chunk, &merger.segments, &sources, &frame)?;
        let name = PartName::merged(merger.chunk, &bytes);
        #[cfg(test)]
        if self.disk.removes_first {
            self.remove_all(&merged, done)?;
        }
        let path = self.folder(&Path::new(PARTS).join(MERGED))?.join(name.file_name("parquet"));
        self.disk.publish(&path, &bytes)?;
        done.written += 1;
        done.after += 1;
        self.remove_all(&merged, done)
    }
}

impl Merger {
    /// Appends the rows of a part, but for cells that are there already with the same beside them.
    fn add(&mut self, small: &Small, part: &Part) -> Result<(), String> {
        let cells = ids_of(&part.frame)?;
        let (mut rows, mut at): (Vec<IdxSize>, IdxSize) = (Vec::new(), 0);
        for (segment, cells) in part.by_segment(&cells) {
            let before = rows.len();
            for cell in cells {
                if self.held.insert((*cell, segment.kept.clone())) {
                    rows.push(at);
                }
                at += 1;
            }
            self.append(Segment { rows: rows.len() - before, ..segment.clone() });
        }
        let own = part.frame.take(&IdxCa::new("".into(), rows)).map_err(|error| error.to_string())?;
        match &mut self.frame {
            None => self.frame = Some(own),
            Some(frame) => drop(frame.vstack_mut(&own).map_err(|error| error.to_string())?),
        }
        self.sources.insert(small.file_name());
        self.sources.extend(small.sources.iter().cloned());
        self.chunk = self.chunk.min(small.name.chunk);
        Ok(())
    }

    /// Rows with nothing beside them, or the same, need not be told apart.
    fn append(&mut self, segment: Segment) {
        match self.segments.last_mut() {
            _ if segment.rows == 0 => {}
            Some(last) if last.kept == segment.kept && last.companions == segment.companions => {
                last.rows += segment.rows
            }
            _ => self.segments.push(segment),
        }
    }
}

/// Which parts become one: of the same columns, in the order of their chunks, whole chunks before parts of them, until there
/// are `most_rows`. What is larger than half of that stays as it is, so that rows are not written again and again.
fn groups<'a>(parts: &[&'a Small], most_rows: usize) -> Vec<Vec<&'a Small>> {
    let mut alike: BTreeMap<Vec<(String, String)>, Vec<&Small>> = BTreeMap::new();
    for part in parts.iter().filter(|part| part.rows.saturating_mul(2) < most_rows) {
        let columns = part.columns.iter().map(|(name, dtype)| (name.clone(), dtype.to_string())).collect();
        alike.entry(columns).or_default().push(part);
    }
    let mut groups: Vec<Vec<&Small>> = Vec::new();
    for mut parts in alike.into_values() {
        parts.sort_by_key(|part| (part.name.extent == Extent::Merged, part.name.chunk, part.name.extent, &part.path));
        let (mut group, mut rows) = (Vec::new(), 0);
        for part in parts {
            if rows + part.rows > most_rows {
                groups.push(std::mem::take(&mut group));
                rows = 0;
            }
            rows += part.rows;
            group.push(part);
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

#[cfg(test)]
mod tests {
    use std::fs;

    use polars::prelude::df;

    use super::*;
    use crate::store::row::{Column, Kind, Value};
    use crate::store::testing::{cell, ids, plan, row, store_of};
    use crate::store::{ChunkResult, PlanRecord, Side, SideTable, WeightTensor, encode_weights, logical_hash};

    /// Rows, a side table and weights of these cells.
    fn publish(store: &Store, chunk: u64, indices: &[u64]) {
        let rows = indices.iter().map(|index| row(*index)).collect();
        let cells: Vec<String> = indices.iter().map(|index| cell(*index).to_string()).collect();
        let norms: Vec<f64> = indices.iter().map(|index| *index as f64).collect();
        let frame = df!["cell" => cells, "norm" => norms].expect("columns of one length");
        let tensor = |index: &u64| WeightTensor { cell: cell(*index), name: "w", shape: vec![1], values: &[0.5] };
        let tensors: Vec<WeightTensor> = indices.iter().map(tensor).collect();
        let weights = Some(encode_weights(&tensors).expect("shapes of one"));
        let side = vec![SideTable { side: Side::Features, frame }];
        store.publish(&ChunkResult { chunk, rows, side, weights }).expect("publishes");
    }

    fn answers(store: &Store, plan: &PlanRecord) -> (String, DataFrame, Vec<CellId>) {
        let rows = store.rows(plan, &ids(plan.cells)).expect("rows");
        let side = store.side(Side::Features, &rows).expect("a side table");
        (logical_hash(&rows), side, store.cells_with_weights().expect("weights"))
    }

    #[test]
    fn a_finished_run_of_many_parts_becomes_one_part_that_says_the_same() {
        let plan = plan(12, 2);
        let (folder, store) = store_of(&plan);
        for chunk in [0, 1, 3, 4, 5] {
            publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]);
        }
        // The chunk that was stopped and gone on with, one cell of it by two writers.
        publish(&store, 2, &[4]);
        publish(&store, 2, &[5]);
        publish(&store, 2, &[4, 5]);
        let before = answers(&store, &plan);
        let reader = Store::open(folder.path()).expect("a run");
        let done = reader.compact(100).expect("merged");
        assert_eq!(done, Compacted { before: 8, after: 1, written: 1, removed: 8 });
        for store in [&store, &reader] {
            let scan = store.scan().expect("sound");
            assert_eq!((scan.done(), scan.parts.len(), scan.unknown.len()), (&ids(12)[..], 1, 0));
            let after = answers(store, &plan);
            assert!(after.0 == before.0 && after.1.equals_missing(&before.1) && after.2 == before.2);
        }
        let part = reader.load(PARTS, None).expect("one").remove(0).1;
        assert_eq!((part.frame.height(), part.sources.len()), (12, 8), "each cell once");
        let again = Compacted { before: 1, after: 1, ..Compacted::default() };
        assert_eq!(reader.compact(100).expect("nothing to do"), again);
        assert!(reader.verify().expect("readable").quarantined.is_empty());
    }

    #[test]
    fn a_lost_table_costs_the_cells_it_stands_beside_and_no_others() {
        let plan = plan(6, 2);
        let (_folder, store) = store_of(&plan);
        (0..3).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        store.compact(100).expect("merged");
        let table = super::super::fs::files_below(&*store.disk.files, &store.dir().join("features")).expect("three");
        let of_chunk_1 = table.iter().find(|path| path.to_string_lossy().contains("c00000001")).expect("a table");
        fs::remove_file(of_chunk_1).expect("removable");
        let scan = store.scan().expect("sound");
        assert_eq!((scan.done(), scan.incomplete), (&[cell(0), cell(1), cell(4), cell(5)][..], 2));
        publish(&store, 1, &[2, 3]);
        assert_eq!(store.scan().expect("sound").done(), ids(6));
    }

    #[test]
    fn parts_of_other_columns_are_merged_apart_and_large_ones_are_left() {
        let old = plan(6, 2);
        let (folder, store) = store_of(&old);
        (0..3).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        let mut edited = plan(6, 2);
        edited.scores.push(Column::new("l0", Kind::Float));
        let again = Store::create_or_open(folder.path(), b"edited", &edited).expect("opens");
        for chunk in 0..2 {
            let mut rows = vec![row(chunk * 2), row(chunk * 2 + 1)];
            rows.iter_mut().for_each(|row| row.scores.push(Value::Float(2.0)));
            again.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
        }
        let done = again.compact(100).expect("merged");
        assert_eq!(done, Compacted { before: 5, after: 2, written: 2, removed: 5 });
        assert_eq!(again.scan().expect("sound").done().len(), 4, "the rest lacks the new score");
        assert_eq!(store.scan().expect("sound").done().len(), 6, "the old plan has all of its own");
        assert_eq!(again.compact(8).expect("nothing").written, 0);
        // Of at most four rows each: two parts of two.
        let (_folder, other) = store_of(&plan(10, 2));
        (0..5).for_each(|chunk| publish(&other, chunk, &[chunk * 2, chunk * 2 + 1]));
        let done = other.compact(5).expect("merged");
        assert_eq!(done, Compacted { before: 5, after: 3, written: 2, removed: 4 });
        assert_eq!(other.scan().expect("sound").done(), ids(10));
    }

    #[test]
    fn what_a_killed_compaction_leaves_is_removed_by_the_next_one() {
        let plan = plan(6, 2);
        let (_folder, store) = store_of(&plan);
        (0..3).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        let parts = store.scan().expect("sound").parts;
        let bytes: Vec<Vec<u8>> = parts.iter().map(|path| fs::read(path).expect("readable")).collect();
        store.compact(100).expect("merged");
        for (path, bytes) in parts.iter().zip(&bytes).take(2) {
            fs::write(path, bytes).expect("writable");
        }
        assert_eq!(store.scan().expect("no conflict").parts.len(), 3);
        assert_eq!(store.rows(&plan, &ids(6)).expect("rows").height(), 6);
        let done = store.compact(100).expect("removed");
        assert_eq!(done, Compacted { before: 3, after: 1, written: 0, removed: 2 });
        assert_eq!(store.scan().expect("sound").done(), ids(6));
    }

    #[test]
    fn a_result_that_differs_from_a_merged_one_is_refused_and_merged_parts_are_collected() {
        let plan = plan(6, 2);
        let (_folder, store) = store_of(&plan);
        (0..3).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        store.compact(100).expect("merged");
        let mut other = row(2);
        other.scores[0] = Value::Float(-1.0);
        let error = store.publish(&ChunkResult { chunk: 1, rows: vec![other], ..Default::default() });
        assert_eq!(error.expect_err("another loss").exit_code(), 6);
        let (_elsewhere, empty) = store_of(&plan);
        empty.absorb(&store).expect("copied");
        assert_eq!(empty.scan().expect("sound").done(), ids(6));
        assert_eq!(answers(&empty, &plan).0, answers(&store, &plan).0);
    }

    #[test]
    fn a_reader_sees_every_row_once_while_parts_are_merged() {
        let plan = plan(80, 2);
        for round in 0..4 {
            let (folder, store) = store_of(&plan);
            (0..40).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
            let is_over = std::sync::atomic::AtomicBool::new(false);
            let order = std::sync::atomic::Ordering::SeqCst;
            // Merged, and merged again, by two at once.
            let merge = |sizes: [usize; 4]| {
                let own = Store::open(folder.path()).expect("a run");
                for rows in sizes {
                    own.compact(rows + round).expect("merged");
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // Bounded, so that a writer that panics does not leave it running.
                    for _ in (0..10_000).take_while(|_| !is_over.load(order)) {
                        let reader = Store::open(folder.path()).expect("a run");
                        assert_eq!(reader.rows(&plan, &ids(80)).expect("rows").height(), 80);
                        assert_eq!(reader.look_over().expect("sound").done().len(), 80);
                    }
                });
                let other = scope.spawn(|| merge([6, 14, 70, 500]));
                merge([5, 20, 60, 500]);
                other.join().expect("it does not panic");
                is_over.store(true, order);
            });
            store.compact(500).expect("merged");
            assert_eq!(store.scan().expect("sound").parts.len(), 1, "round {round}");
        }
    }

    #[test]
    fn one_changed_byte_of_a_merged_part_is_found_and_its_cells_are_computed_again() {
        let plan = plan(4, 2);
        let (_folder, store) = store_of(&plan);
        (0..2).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        store.compact(100).expect("merged");
        let path = store.scan().expect("sound").parts.remove(0);
        let bytes = fs::read(&path).expect("readable");
        for at in (0..bytes.len()).step_by(97) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            fs::write(&path, &rotten).expect("writable");
            assert_eq!(store.verify().expect("readable").quarantined.len(), 1, "byte {at}");
        }
        let scan = store.scan().expect("nothing is left");
        assert_eq!((scan.done().len(), scan.quarantined.len()), (0, 1));
        (0..2).for_each(|chunk| publish(&store, chunk, &[chunk * 2, chunk * 2 + 1]));
        assert_eq!(store.scan().expect("sound").done(), ids(4));
    }
}
