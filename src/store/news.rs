//! What other writers have published since a run began: looked at before cells are computed, so that few are computed twice.
//!
//! Nothing depends on it. What is not seen, or cannot be read, is computed again and found to be the same.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::fs::{files_below, list_if_there};
use super::part::{Extent, MERGED, PartName, decode_rows, folder_of};
use super::rows::ids_of;
use super::{PARTS, Store};
use crate::plan::CellId;

impl Store {
    /// Cells whose rows stand in parts of these chunks that are not among `known`; the parts are then.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn appeared(
        &self,
        chunks: impl Iterator<Item = u64>,
        known: &mut BTreeSet<PathBuf>,
    ) -> Result<BTreeSet<CellId>, StoreError> {
        let chunks: BTreeSet<u64> = chunks.collect();
        let mut folders: BTreeSet<String> = chunks.iter().map(|chunk| folder_of(*chunk)).collect();
        // The last of them by its name: a part that is merged away meanwhile is found there.
        folders.insert(MERGED.into());
        let mut cells = BTreeSet::new();
        for folder in folders {
            let folder = self.dir.join(PARTS).join(folder);
            for entry in list_if_there(&*self.disk.files, &folder).map_err(StoreError::io("list", &folder))? {
                let Some(name) = PartName::parse(&entry.name, "parquet") else { continue };
                let path = folder.join(&entry.name);
                let may_be = name.extent == Extent::Merged || chunks.contains(&name.chunk);
                if may_be && known.insert(path.clone()) {
                    cells.extend(self.cells_of_new(&path, &name).unwrap_or_default());
                }
            }
        }
        Ok(cells)
    }

    /// The cells of a part if it is sound, has every score of the plan, and what stands beside it is there.
    fn cells_of_new(&self, path: &Path, name: &PartName) -> Option<Vec<CellId>> {
        let bytes = self.disk.files.read(path).ok()?;
        if !name.is_of(&bytes) {
            return None;
        }
        let part = decode_rows(name, bytes, Some(&["cell"])).ok()?;
        let scored = self.plan.iter().flat_map(|plan| &plan.scores).all(|score| part.has(&score.name));
        let there = |file: &String| self.disk.files.read_start(&self.dir.join(file), 1).is_ok();
        let cells = scored.then(|| ids_of(&part.frame).ok())??;
        let whole = part.by_segment(&cells).filter(|(segment, _)| segment.companions.iter().all(there));
        Some(whole.flat_map(|(_, cells)| cells.iter().copied()).collect())
    }

    /// The names of all parts, in the order of their paths; nothing is read.
    ///
    /// # Errors
    /// A folder that cannot be listed.
    pub fn part_names(&self) -> Result<Vec<String>, StoreError> {
        let root = self.dir.join(PARTS);
        let paths = files_below(&*self.disk.files, &root).map_err(StoreError::io("list", &root))?;
        let names = paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        Ok(names.filter(|name| PartName::parse(name, "parquet").is_some()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChunkResult;
    use crate::store::testing::{cell, plan, row, store_of};

    #[test]
    fn parts_of_other_writers_are_seen_once_and_damaged_ones_not_at_all() {
        let (folder, store) = store_of(&plan(7, 3));
        let other = Store::create_or_open(folder.path(), b"name: test\n", &plan(7, 3)).expect("opens");
        let publish = |chunk, indices: &[u64]| {
            let rows = indices.iter().map(|index| row(*index)).collect();
            other.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
        };
        let mut known: BTreeSet<PathBuf> = store.scan().expect("sound").parts.into_iter().collect();
        publish(0, &[1]);
        publish(1, &[3, 4, 5]);
        assert_eq!(store.appeared([0, 2].into_iter(), &mut known).expect("listed"), [cell(1)].into());
        assert!(store.appeared([0, 2].into_iter(), &mut known).expect("listed").is_empty(), "not again");
        publish(2, &[6]);
        let parts = other.scan().expect("sound").parts;
        let part = parts.iter().find(|part| part.to_string_lossy().contains("c00000002")).expect("it was published");
        let mut bytes = std::fs::read(part).expect("readable");
        bytes[100] ^= 1;
        std::fs::write(part, bytes).expect("writable");
        let found = store.appeared([0, 1, 2].into_iter(), &mut known).expect("listed");
        assert_eq!(found, [cell(3), cell(4), cell(5)].into());
        assert_eq!(store.part_names().expect("listed").len(), 3);
    }
}
