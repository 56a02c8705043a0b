//! What can go wrong between memory and disk, each with the path it happened at and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::part::FORMAT;
use crate::plan::CellId;

/// A failure of the run store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused an operation.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(path, source))]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    /// The directory holds no run.
    #[error("{} is no run directory: it has no plan-*.json and no parts/\n  give the directory that `tegum run` wrote (by default results/NAME)", path.display())]
    NotAStore { path: PathBuf },

    /// Several plans, and nothing says which of them is meant.
    #[error("{} holds {count} plans and its `current-plan` names none of them\n  run the experiment's YAML again: it writes that file anew and trains nothing twice", path.display())]
    WhichPlan { path: PathBuf, count: usize },

    /// A file that is not what its name promises.
    #[error("{} is damaged: {reason}\n  run the experiment again; if it is still damaged then, move it away: only what it held is computed anew", path.display())]
    Damaged { path: PathBuf, reason: String },

    /// A file in a format that this version does not know.
    #[error("{} is of format {format}{}; this is tegum {}, which knows formats up to {FORMAT}\n  use the tegum that wrote it or a later one: nothing here was changed", path.display(), by(writer.as_deref()), env!("CARGO_PKG_VERSION"))]
    Newer { path: PathBuf, format: u64, writer: Option<String> },

    /// Two different results for one cell: a broken determinism promise, or failing hardware.
    #[error("{0}")]
    Conflict(Box<Conflict>),

    /// A row holds NaN or an infinity; undefined is null with a reason in `detail`.
    #[error("cell {cell}: column `{column}` is {value}; an undefined number must be stored as null")]
    NotFinite { cell: CellId, column: String, value: f64 },

    /// A row does not fit the plan's columns, or the chunk is not the plan's.
    #[error("rows do not fit the plan: {reason}")]
    WrongShape { reason: String },

    /// The table library failed on data in memory.
    #[error("cannot {action} a table of chunk {chunk}: {reason}")]
    Encoding { action: &'static str, chunk: u64, reason: String },

    /// A run that is to be collected whole is not.
    #[error("{} lacks {missing} of {cells} cells\n  run the experiment again to compute them, or take what is there with --partial", path.display())]
    Incomplete { path: PathBuf, missing: u64, cells: u64 },

    /// No weights were saved for the cell.
    #[error("no weights of cell {cell} in {}\n  weights are kept where the experiment says `save: {{weights: all}}` or `best`", path.display())]
    NoWeights { cell: CellId, path: PathBuf },
}

/// Where two results for one cell differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two different results for cell {cell}: {what} is {first_value} in {} and {second_value} in {}\n  same cell, same build and same machine type must give the same numbers: check the memory of the machines (see prov/); `tegum run` keeps both in conflicts/ and computes their cells again", first.display(), second.display())]
pub struct Conflict {
    pub cell: CellId,
    /// The column.
    pub what: String,
    pub first: PathBuf,
    pub first_value: String,
    pub second: PathBuf,
    pub second_value: String,
}

impl From<Conflict> for StoreError {
    fn from(conflict: Conflict) -> Self {
        StoreError::Conflict(Box::new(conflict))
    }
}

impl StoreError {
    /// The exit code of a command that ends with this error: 3 a file of a later version, 5 storage, 6 damage or conflict, 75 not
    /// finished yet, 101 a bug.
    pub fn exit_code(&self) -> i32 {
        match self {
            StoreError::Io { .. } | StoreError::NotAStore { .. } | StoreError::WhichPlan { .. } => 5,
            StoreError::NoWeights { .. } => 5,
            StoreError::Newer { .. } => 3,
            StoreError::Incomplete { .. } => 75,
            StoreError::Damaged { .. } | StoreError::Conflict(_) => 6,
            StoreError::NotFinite { .. } | StoreError::WrongShape { .. } | StoreError::Encoding { .. } => 101,
        }
    }

    /// Adds the operation and the path to an error of the file system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_path_buf();
        move |source| StoreError::Io { action, path, source }
    }
}

fn by(writer: Option<&str>) -> String {
    writer.map(|version| format!(", written by tegum {version}")).unwrap_or_default()
}

/// What the reader of the message can do, as a line of its own; empty where nothing useful is known.
fn advice(path: &Path, error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(full @ (Errno::NOSPC | Errno::DQUOT)) => super::full::advice(path, full),
        Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {
            "\n  choose a directory that you may write to, with --out DIR"
        }
        Some(Errno::MFILE | Errno::NFILE) => "\n  raise the limit of open files (ulimit -n) and run again",
        Some(Errno::IO) => {
            "\n  the disk or the network file system reports a fault: what was published is hashed and kept, run again once it is healthy"
        }
        Some(Errno::STALE) => "\n  the network file system lost track of the file: run the same command again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_storage_error_with_advice() {
        let full = StoreError::io("write", Path::new("/runs/a"))(Errno::NOSPC.into());
        assert_eq!(full.exit_code(), 5);
        let text = full.to_string();
        assert!(text.starts_with("cannot write /runs/a: ") && text.contains("free some space"), "{text}");
    }

    #[test]
    fn damage_and_conflict_exit_with_six() {
        let damaged = StoreError::Damaged { path: "p".into(), reason: "r".into() };
        let conflict = StoreError::from(Conflict {
            cell: CellId([0; 16]),
            what: "mcc".into(),
            first: "a".into(),
            first_value: "1".into(),
            second: "b".into(),
            second_value: "2".into(),
        });
        assert_eq!((damaged.exit_code(), conflict.exit_code()), (6, 6));
        assert!(conflict.to_string().contains("mcc is 1 in a and 2 in b"));
    }
}
