//! The few file operations the store is built from, behind a trait so that tests can make each of them fail.
//!
//! Only what every file system keeps its word on is used: exclusive creation, write, fsync, link or rename within one
//! directory, list. No locks, no appending, no memory maps, no rewriting in place.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// How often a read is tried again when a network file system answers ESTALE.
const STALE_RETRIES: usize = 3;

/// A file that did not exist before and has no other writer.
pub trait NewFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Bytes and length on disk when this returns.
    fn sync(&self) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// How many names the file has.
    fn links(&self) -> io::Result<u64>;
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: String,
    pub is_dir: bool,
}

/// The file system as the store uses it.
pub trait Files: Debug + Send + Sync {
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
    /// Names in the directory on disk when this returns.
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
}

/// The operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFiles;

impl NewFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.metadata()?.nlink())
    }
}

impl Files for RealFiles {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn rename_new(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match File::open(path)?.sync_all() {
            // Some FUSE and SMB file systems cannot sync a directory; there is nothing more to ask of them.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => Ok(()),
            other => other,
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut tries = 0;
        loop {
            match fs::read(path) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::STALE) && tries < STALE_RETRIES => tries += 1,
                other => return other,
            }
        }
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), is_dir });
        }
        entries.sort();
        Ok(entries)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        Ok(fs::symlink_metadata(path)?.is_symlink())
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::symlink_metadata(path)?.modified()?.elapsed().map_or(0, |age| age.as_secs()))
    }
}

/// The entries of a directory that may be absent: none then.
pub(super) fn list_if_there(files: &dyn Files, path: &Path) -> io::Result<Vec<Entry>> {
    match files.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Makes a directory if it is absent and puts its name on disk; `true` if it was made.
pub(super) fn ensure_dir(files: &dyn Files, path: &Path) -> io::Result<bool> {
    match files.create_dir(path) {
        Ok(()) => {
            files.sync_dir(parent(path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// An error if a folder below a run directory is a symbolic link: readers do not look behind it, so rows there would be computed
/// again and again.
pub(super) fn refuse_link(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.is_link(path) {
        Ok(true) => Err(io::Error::other("a symbolic link, where a run directory has a folder of its own")),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// As [`ensure_dir`], with every missing directory above it.
pub(super) fn ensure_dirs(files: &dyn Files, path: &Path) -> io::Result<()> {
    match ensure_dir(files, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
            ensure_dirs(files, parent(path))?;
            ensure_dir(files, path).map(|_| ())
        }
        other => other.map(|_| ()),
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
pub(super) fn files_below(files: &dyn Files, root: &Path) -> io::Result<Vec<PathBuf>> {
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
