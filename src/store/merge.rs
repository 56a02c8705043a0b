//! One run from several directories: what other machines computed of the same plan is copied in, file by file.
//!
//! Every file is named by its content, so copying is publishing: what is there already stays, and a damaged file is left behind with a
//! warning. Side tables and weights come before the rows that name them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::error::StoreError;
use super::fs::{files_below, list_if_there};
use super::part::PartName;
use super::side::Side;
use super::weights::WEIGHTS;
use super::{PARTS, Store};

/// What was copied from another directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absorbed {
    /// Files that were new here.
    pub copied: u64,
    /// Files that were here already.
    pub there: u64,
    /// Files that are not what their names say, left where they are.
    pub damaged: u64,
}

impl Store {
    /// Copies the plans, rows, side tables and weights of another run directory into this one. Rows that belong to no cell of a plan
    /// here are harmless: they are found by the ids of their cells.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn absorb(&self, other: &Store) -> Result<Absorbed, StoreError> {
        let mut absorbed = Absorbed::default();
        for hash in other.plan_hashes()? {
            self.disk.publish(&self.plan_path(&hash), &other.plan_bytes(&hash)?)?;
        }
        let sides = Side::ALL.map(|side| (side.name(), "parquet"));
        for (folder, extension) in sides.into_iter().chain([(WEIGHTS, "safetensors"), (PARTS, "parquet")]) {
            self.absorb_folder(other, folder, extension, &mut absorbed)?;
        }
        Ok(absorbed)
    }

    fn absorb_folder(
        &self,
        other: &Store,
        folder: &str,
        extension: &str,
        absorbed: &mut Absorbed,
    ) -> Result<(), StoreError> {
        let root = other.dir.join(folder);
        let paths = || files_below(&*other.disk.files, &root).map_err(StoreError::io("list", &root));
        let (mut todo, mut seen) = (paths()?, BTreeSet::new());
        while let Some(path) = todo.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(name) = PartName::parse(&file, extension) else { continue };
            let bytes = match other.disk.files.read(&path) {
                // Merged with others meanwhile: what holds its rows now is new.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    todo.extend(paths()?);
                    continue;
                }
                read => read.map_err(StoreError::io("read", &path))?,
            };
            if !name.is_of(&bytes) {
                tracing::warn!("{}: its bytes do not hash to its name; it is left behind", path.display());
                absorbed.damaged += 1;
                continue;
            }
            let here = self.folder(&Path::new(folder).join(name.folder()))?;
            if list_if_there(&*self.disk.files, &here)
                .map_err(StoreError::io("list", &here))?
                .iter()
                .any(|entry| entry.name == file)
            {
                absorbed.there += 1;
                continue;
            }
            self.disk.publish(&here.join(&file), &bytes)?;
            absorbed.copied += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChunkResult;
    use crate::store::testing::{ids, plan, row, store_of};

    fn publish(store: &Store, chunk: u64, indices: std::ops::Range<u64>) {
        let rows = indices.map(row).collect();
        store.publish(&ChunkResult { chunk, rows, ..Default::default() }).expect("publishes");
    }

    #[test]
    fn directories_of_two_machines_become_one_run() {
        let plan = plan(6, 2);
        let ((_first, here), (_second, there)) = (store_of(&plan), store_of(&plan));
        publish(&here, 0, 0..2);
        publish(&there, 0, 0..2);
        publish(&there, 1, 2..4);
        publish(&there, 2, 4..5);
        let absorbed = here.absorb(&there).expect("copies");
        assert_eq!(absorbed, Absorbed { copied: 2, there: 1, damaged: 0 });
        assert_eq!(here.rows(&plan, &ids(6)).expect("rows").height(), 5);
        assert_eq!(here.absorb(&there).expect("again"), Absorbed { copied: 0, there: 3, damaged: 0 });
    }

    #[test]
    fn a_damaged_file_of_another_directory_is_left_behind() {
        let plan = plan(4, 2);
        let ((_first, here), (_second, there)) = (store_of(&plan), store_of(&plan));
        publish(&there, 0, 0..2);
        let part = there.scan().expect("sound").parts.remove(0);
        let mut bytes = std::fs::read(&part).expect("readable");
        bytes[40] ^= 1;
        std::fs::write(&part, bytes).expect("writable");
        assert_eq!(here.absorb(&there).expect("copies"), Absorbed { copied: 0, there: 0, damaged: 1 });
        assert!(here.scan().expect("sound").done().is_empty());
    }
}
