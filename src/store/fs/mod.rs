//! The few file operations the store is built from, behind a trait so that tests can make each of them fail, and can cut
//! the power at any of them.
//!
//! Only what every file system keeps its word on is used: exclusive creation, write, fsync, link or rename within one
//! run directory, list. No locks, no appending, no memory maps, no rewriting in place.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(any(test, feature = "faults"))]
pub mod broken;
#[cfg(test)]
pub mod crashing;
#[cfg(test)]
pub mod faulty;
mod patient;
mod real;

pub(super) use patient::Patient;
#[cfg(test)]
pub use real::RealFs;
pub use real::operating_system;

/// A file that did not exist before and has no other writer.
pub trait NewFile {
    /// Writes the first of the bytes and returns how many: at least one, unless there are none.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Bytes and length on disk when this returns. After an error the file must not be used: what was written may be gone
    /// although a second call succeeds.
    fn sync(&self) -> io::Result<()>;
    /// Bytes of the file.
    fn size(&self) -> io::Result<u64>;
    /// How many names the file has.
    fn links(&self) -> io::Result<u64>;
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

/// What tells one process from every other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub host: String,
    /// The boot of the host and the space of process ids: a process id says something only within one. `None` where the
    /// system does not tell.
    pub space: Option<String>,
    pub pid: u32,
    /// Milliseconds since 1970.
    pub start: u128,
    pub random: u64,
}

/// The file system as the store uses it, with the clock and the processes that go with it.
pub trait StoreFs: Debug + Send + Sync {
    /// Fails if the name is taken.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// A second name for a file; fails if the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Fails if the new name is taken; `Unsupported` or EINVAL where the file system cannot promise that.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Replaces the new name in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Names in the directory on disk when this returns. After an error of writing they may be gone although a second call succeeds;
    /// EINTR and ESTALE come before anything is written.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The first `length` bytes, or all if there are fewer.
    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>>;
    /// Sorted by name; names that are not UTF-8 come with replacement characters and so match no pattern of the store.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Whether the name itself is a symbolic link.
    fn is_link(&self, path: &Path) -> io::Result<bool>;
    /// Age in seconds by this machine's clock, 0 if the clock says it is from the future.
    fn age_seconds(&self, path: &Path) -> io::Result<u64>;

    /// Who this process is.
    fn identity(&self) -> Identity;
    /// Whether a process of that id runs in this process's own space of ids; on any doubt, yes.
    fn is_alive(&self, pid: u32) -> bool;
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;
    fn sleep(&self, time: Duration);
}

/// The entries of a directory that may be absent: none then.
pub(super) fn list_if_there(files: &dyn StoreFs, path: &Path) -> io::Result<Vec<Entry>> {
    match files.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// An error if a folder below a run directory is a symbolic link: readers do not look behind it, so rows there would be computed
/// again and again.
pub(super) fn refuse_link(files: &dyn StoreFs, path: &Path) -> io::Result<()> {
    match files.is_link(path) {
        Ok(true) => Err(io::Error::other("a symbolic link, where a run directory has a folder of its own")),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The directory a path lies in; `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// `directory/name` for every plain file that ends in `.parquet`, `.safetensors` and so on, one level of folders down.
pub(super) fn files_below(files: &dyn StoreFs, root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in list_if_there(files, root)? {
        let path = root.join(&entry.name);
        if entry.is_dir {
            for inner in list_if_there(files, &path)? {
                if !inner.is_dir {
                    found.push(path.join(&inner.name));
                }
            }
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
