//! States of trainings that are under way: one file a cell, there from the first save until its row is published.
//!
//! ```text
//! checkpoints/<cell>     "tegum checkpoint 1\n", the cell's id, "\n", the state, blake3 of all before
//! ```
//!
//! A cell's id names everything that its training computes (algorithms, backend profile, settings), so a state that bears
//! the id is a state of that training, whichever process wrote it. How it is laid out the number says ([`LAYOUT`]); a state
//! of another layout is left to the program that wrote it, and the training begins anew. Files are replaced in one step; one
//! that does not hash is no state.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::fs::list_if_there;
use super::publish::TEMPORARY;
use super::{CellId, Damage, Store, StoreError};
use crate::backend::checkpoint::LAYOUT;

/// Folder of the states.
const CHECKPOINTS: &str = "checkpoints";

/// First line of a file, without the number of its layout.
const MAGIC: &str = "tegum checkpoint ";

/// Bytes of the hash at the end.
const HASH: usize = blake3::OUT_LEN;

/// Why a file is no state to go on from.
#[derive(Debug, PartialEq, Eq)]
enum NoState {
    Damaged(&'static str),
    Layout(u32),
}

impl fmt::Display for NoState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let own = env!("CARGO_PKG_VERSION");
        match self {
            NoState::Damaged(reason) => f.write_str(reason),
            NoState::Layout(layout) => write!(f, "is of layout {layout}, and tegum {own} has layout {LAYOUT}"),
        }
    }
}

/// The file of a cell with this state.
fn encode(cell: &CellId, state: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{MAGIC}{LAYOUT}\n{cell}\n").into_bytes();
    bytes.extend_from_slice(state);
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The state in a file of `cell`, or what is wrong with the file.
fn decode<'a>(cell: &CellId, bytes: &'a [u8]) -> Result<&'a [u8], NoState> {
    let foreign = NoState::Damaged("is a checkpoint of another kind or cell");
    let (body, hash) = bytes.split_last_chunk::<HASH>().ok_or(NoState::Damaged("too short for a checkpoint"))?;
    if blake3::hash(body).as_bytes() != hash {
        return Err(NoState::Damaged("does not hash to its last bytes"));
    }
    let Some(rest) = body.strip_prefix(MAGIC.as_bytes()) else { return Err(foreign) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match std::str::from_utf8(&rest[..digits]).ok().and_then(|number| number.parse().ok()) {
        Some(LAYOUT) => rest[digits..].strip_prefix(format!("\n{cell}\n").as_bytes()).ok_or(foreign),
        Some(layout) => Err(NoState::Layout(layout)),
        None => Err(foreign),
    }
}

impl Store {
    fn checkpoint_path(&self, cell: &CellId) -> PathBuf {
        self.dir.join(CHECKPOINTS).join(cell.to_string())
    }

    /// Cells whose trainings left a state, sound or not.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn checkpoints(&self) -> Result<BTreeSet<CellId>, StoreError> {
        let folder = self.dir.join(CHECKPOINTS);
        let entries = list_if_there(&*self.disk.files, &folder).map_err(StoreError::io("list", &folder))?;
        Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// Keeps the state of a cell's training in place of an older one; it is on disk when this returns.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn write_checkpoint(&self, cell: &CellId, state: &[u8]) -> Result<(), StoreError> {
        self.folder(Path::new(CHECKPOINTS))?;
        self.disk.replace(&self.checkpoint_path(cell), &encode(cell, state))
    }

    /// The state that a cell's training left, if there is a sound one; a damaged or foreign file is as good as none and a
    /// warning.
    pub fn read_checkpoint(&self, cell: &CellId) -> Option<Vec<u8>> {
        let path = self.checkpoint_path(cell);
        let bytes = match self.disk.files.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("{}: {error}; its training begins anew", path.display());
                return None;
            }
        };
        match decode(cell, &bytes) {
            Ok(state) => Some(state.to_vec()),
            Err(reason) => {
                tracing::warn!("{} {reason}; its training begins anew", path.display());
                None
            }
        }
    }

    /// Forgets the states of cells, where there are any. A file that stays does no harm.
    pub fn remove_checkpoints(&self, cells: &[CellId]) {
        // One look at the folder: most cells never had one, and thousands of them end at once.
        let there = self.checkpoints().unwrap_or_default();
        if !there.is_empty() {
            let own = cells.iter().filter(|cell| there.contains(cell));
            own.for_each(|cell| drop(self.disk.files.remove(&self.checkpoint_path(cell))));
        }
    }

    /// Forgets the states of cells that are done, and unfinished files of writers that are gone.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn tidy_checkpoints(&self, is_done: impl Fn(&CellId) -> bool) -> Result<(), StoreError> {
        let folder = self.dir.join(CHECKPOINTS);
        for entry in list_if_there(&*self.disk.files, &folder).map_err(StoreError::io("list", &folder))? {
            let path = folder.join(&entry.name);
            let done = entry.name.parse().is_ok_and(|cell| is_done(&cell));
            if done || entry.name.starts_with(TEMPORARY) && self.disk.is_stale(&path) {
                let _ = self.disk.files.remove(&path);
            }
        }
        Ok(())
    }

    /// Checkpoints that cannot be gone on from.
    pub(super) fn damaged_checkpoints(&self) -> Result<Vec<Damage>, StoreError> {
        let mut damaged = vec![];
        for cell in self.checkpoints()? {
            let path = self.checkpoint_path(&cell);
            let Ok(bytes) = self.disk.files.read(&path) else { continue };
            if let Err(NoState::Damaged(reason)) = decode(&cell, &bytes) {
                damaged.push(Damage { path, reason: reason.into(), moved_to: None });
            }
        }
        Ok(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{cell, plan, store_of};

    #[test]
    fn a_state_is_kept_replaced_and_forgotten() {
        let (_folder, store) = store_of(&plan(4, 2));
        assert_eq!((store.read_checkpoint(&cell(1)), store.checkpoints().expect("none").len()), (None, 0));
        for state in [&b"first"[..], b"", b"the third, which is longer"] {
            store.write_checkpoint(&cell(1), state).expect("written");
            assert_eq!(store.read_checkpoint(&cell(1)).as_deref(), Some(state));
        }
        store.write_checkpoint(&cell(2), b"other").expect("written");
        assert_eq!(store.checkpoints().expect("two"), [cell(1), cell(2)].into());
        assert!(store.verify().expect("sound").quarantined.is_empty());
        store.remove_checkpoints(&[cell(0), cell(1)]);
        assert_eq!(store.checkpoints().expect("one"), [cell(2)].into());
        store.remove_checkpoints(&[cell(1)]);
        store.tidy_checkpoints(|done| *done == cell(2)).expect("listed");
        assert!(store.checkpoints().expect("none").is_empty());
    }

    #[test]
    fn any_flipped_or_missing_byte_is_found() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.write_checkpoint(&cell(1), b"a state").expect("written");
        let path = store.checkpoint_path(&cell(1));
        let sound = std::fs::read(&path).expect("there");
        for at in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).expect("writable");
            assert_eq!(store.read_checkpoint(&cell(1)), None, "byte {at}");
            std::fs::write(&path, &sound[..at]).expect("writable");
            assert_eq!(store.read_checkpoint(&cell(1)), None, "{at} bytes");
        }
        assert_eq!(store.verify().expect("readable").quarantined.len(), 1);
        std::fs::write(&path, &sound).expect("writable");
        assert_eq!(store.read_checkpoint(&cell(1)).as_deref(), Some(&b"a state"[..]));
    }

    #[test]
    fn a_state_of_another_layout_is_neither_taken_nor_called_damaged() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.write_checkpoint(&cell(1), b"a state").expect("written");
        let mut bytes = format!("{MAGIC}{}\n{}\n later state", LAYOUT + 1, cell(1)).into_bytes();
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        assert_eq!(decode(&cell(1), &bytes), Err(NoState::Layout(LAYOUT + 1)));
        std::fs::write(store.checkpoint_path(&cell(1)), &bytes).expect("writable");
        assert_eq!(store.read_checkpoint(&cell(1)), None);
        assert!(store.verify().expect("readable").quarantined.is_empty());
        let text = NoState::Layout(LAYOUT + 1).to_string();
        assert!(text.contains("layout 2") && text.contains("layout 1") && text.contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn a_state_of_another_cell_is_not_taken() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.write_checkpoint(&cell(1), b"a state").expect("written");
        std::fs::copy(store.checkpoint_path(&cell(1)), store.checkpoint_path(&cell(2))).expect("copied");
        assert_eq!(store.read_checkpoint(&cell(2)), None);
        assert!(store.read_checkpoint(&cell(1)).is_some());
    }

    #[test]
    fn unfinished_files_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let (folder, store) = store_of(&plan(4, 2));
        store.write_checkpoint(&cell(1), b"a state").expect("written");
        let living = folder.path().join(CHECKPOINTS).join(format!("{TEMPORARY}elsewhere-1-2-3-4"));
        std::fs::write(&living, b"half").expect("writable");
        store.tidy_checkpoints(|_| false).expect("listed");
        assert!(living.exists() && store.read_checkpoint(&cell(1)).is_some());
    }
}
