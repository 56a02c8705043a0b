//! Putting a file on disk so that its name never stands for anything but its whole content.
//!
//! ```text
//! create .tmp-<writer>-<number> exclusively     no other process can hold it
//! write, fsync, compare the length
//! link to the final name                        taken already: somebody published the same bytes, fine
//! fsync the directory
//! unlink the temporary name
//! ```
//!
//! A kill or a power cut at any point leaves the final name absent or complete. No lock, lease or heartbeat takes part,
//! so any number of writers on any number of machines may publish into one directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::error::StoreError;
use super::fs::{NewFile, Patient, StoreFs, parent};
use super::part::PartName;
use super::writer::Writer;

/// Every unfinished file's name begins so.
pub const TEMPORARY: &str = ".tmp-";

/// A temporary file that is older than a day has no living writer.
const STALE_SECONDS: u64 = 24 * 3600;

/// What publishing a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    New,
    /// Another writer had published the same bytes.
    Same,
}

/// A file system and the one who writes to it.
#[derive(Clone, Debug)]
pub struct Disk {
    pub files: Arc<dyn StoreFs>,
    pub writer: Writer,
    /// How long a full disk is waited for before giving up.
    pub patience: Duration,
    /// Where files go that are not what their names say.
    pub(super) quarantine: PathBuf,
    counter: Arc<AtomicU64>,
    /// Folders that this process has seen the name of reach the disk.
    durable: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// A broken store for tests: bytes are not compared with names.
    #[cfg(any(test, feature = "faults"))]
    pub(super) believes_names: bool,
    /// A broken store for tests: parts are removed before what they were merged into is there.
    #[cfg(test)]
    pub(super) removes_first: bool,
}

/// Pause between two tries on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(500);

/// How often in a row signals may interrupt a write before it is given up.
const INTERRUPTIONS: usize = 64;

/// How often other processes may be in the way of one file.
const DISTURBANCES: usize = 8;

/// Why a try to put a file on disk came to nothing.
enum Setback {
    Io(io::Error),
    /// The directory was not synced. The name may be gone after a power cut although a second sync succeeds, so it must
    /// be made again.
    NotSynced(io::Error),
    /// Another process removed the temporary file, or a rotten file was moved out of the way: no fault of this disk.
    Disturbed(io::Error),
}

impl From<io::Error> for Setback {
    fn from(error: io::Error) -> Self {
        Setback::Io(error)
    }
}

impl Disk {
    /// `root`: the run directory.
    pub fn new(files: Arc<dyn StoreFs>, root: &Path) -> Self {
        Disk {
            writer: Writer::new(&*files),
            files: Arc::new(Patient(files)),
            patience: Duration::ZERO,
            quarantine: root.join("quarantine"),
            counter: Arc::default(),
            durable: Arc::default(),
            #[cfg(any(test, feature = "faults"))]
            believes_names: super::fs::broken::no_hash_is_asked_for(),
            #[cfg(test)]
            removes_first: false,
        }
    }

    /// Publishes `bytes` as `path`, whose name must be derived from the bytes.
    ///
    /// # Errors
    /// The file system's own, after one more try with a fresh file: a failed fsync may have dropped the data, so the
    /// file it was called on is never used again. A full disk is waited for up to `patience`.
    pub fn publish(&self, path: &Path, bytes: &[u8]) -> Result<Published, StoreError> {
        self.persist(path, |temporary, again| self.link(temporary, path, bytes, again))
            .map_err(StoreError::io("publish", path))
    }

    /// Puts `bytes` at `path` in one step, whatever was there before.
    ///
    /// # Errors
    /// As [`Disk::publish`].
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let write = |temporary: &Path, _again| {
            self.write(temporary, bytes)?;
            self.rename(temporary, path)?;
            self.sync_names(path)
        };
        self.persist(path, write).map_err(StoreError::io("write", path))
    }

    /// Whether bytes are those that a name promises.
    pub fn fits(&self, name: &PartName, bytes: &[u8]) -> bool {
        #[cfg(any(test, feature = "faults"))]
        if self.believes_names {
            return true;
        }
        name.is_of(bytes)
    }

    /// Makes a folder, and those above it, where they are absent; their names are on disk when this returns. Also if they
    /// were there: the process that made them may have died before it came to that.
    pub fn ensure_dir(&self, path: &Path) -> io::Result<()> {
        let made = match self.files.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
                self.ensure_dir(parent(path))?;
                self.files.create_dir(path)
            }
            other => other,
        };
        let is_new = match made {
            Ok(()) => true,
            Err(error) if is_taken(&error) => false,
            Err(error) => return Err(error),
        };
        let durable = || self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if is_new || !durable().contains(path) {
            match self.files.sync_dir(parent(path)) {
                // Who may not open the folder above made no folders in it.
                Err(error) if is_new || !is_closed(&error) => return Err(error),
                _ => {}
            }
            durable().insert(path.to_path_buf());
        }
        Ok(())
    }

    /// Whether a leftover temporary file may be removed: its writer is a dead process of this host, or it is a day old.
    pub fn is_stale(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.writer.knows_to_be_dead(&name, &*self.files)
            || self.files.age_seconds(path).is_ok_and(|age| age > STALE_SECONDS)
    }

    /// Runs `write` on a fresh temporary name, once more if it fails, for longer if the disk is full, and a few times if
    /// others are in the way. `write` is told whether a name it made may be lost and must be made again.
    fn persist<T>(&self, path: &Path, write: impl Fn(&Path, bool) -> Result<T, Setback>) -> io::Result<T> {
        let deadline = self.files.now() + self.patience;
        let (mut failures, mut disturbances, mut again) = (0, 0, false);
        loop {
            let temporary = self.temporary(path);
            let outcome = write(&temporary, again);
            // After a link the temporary name is the second one; after a failure it is rubbish; after a rename it is
            // gone. A leftover does no harm, so a failure to remove it is not one of the caller's.
            let _ = self.files.remove(&temporary);
            let setback = match outcome {
                Ok(done) => return Ok(done),
                Err(setback) => setback,
            };
            again |= matches!(setback, Setback::NotSynced(_));
            match setback {
                Setback::Disturbed(error) => {
                    disturbances += 1;
                    if disturbances > DISTURBANCES {
                        return Err(error);
                    }
                }
                Setback::Io(error) | Setback::NotSynced(error) => {
                    if is_full(&error) && self.files.now() < deadline {
                        tracing::warn!("no space for {}: {error}; waiting", path.display());
                        self.files.sleep(FULL_DISK_PAUSE.min(self.patience));
                    } else if failures > 0 {
                        return Err(error);
                    } else {
                        failures += 1;
                    }
                }
            }
        }
    }

    fn temporary(&self, path: &Path) -> PathBuf {
        parent(path).join(format!("{TEMPORARY}{}", self.unique()))
    }

    /// `<writer>-<n>`, never the same twice.
    pub fn unique(&self) -> String {
        format!("{}-{}", self.writer.label(), self.counter.fetch_add(1, Ordering::Relaxed))
    }

    fn write(&self, temporary: &Path, bytes: &[u8]) -> io::Result<Box<dyn NewFile>> {
        let mut file = self.files.create_new(temporary)?;
        let (mut left, mut interrupted) = (bytes, 0);
        while !left.is_empty() {
            match file.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => (left, interrupted) = (left.get(written..).unwrap_or_default(), 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && interrupted < INTERRUPTIONS => {
                    interrupted += 1;
                }
                Err(error) => return Err(error),
            }
        }
        file.sync()?;
        let length = file.size()?;
        if length != bytes.len() as u64 {
            return Err(io::Error::other(format!("wrote {} bytes, {length} arrived", bytes.len())));
        }
        Ok(file)
    }

    fn link(&self, temporary: &Path, path: &Path, bytes: &[u8], again: bool) -> Result<Published, Setback> {
        let file = self.write(temporary, bytes)?;
        let published = if again {
            // A link would find the name taken, and nobody knows whether that name is on disk. Replacing is harmless:
            // the name is made from the content.
            self.rename(temporary, path).map(|()| Published::New)?
        } else {
            match self.files.link(temporary, path) {
                Ok(()) => Published::New,
                // NFS may lose the reply of a link that worked and then find the name taken: the link count tells.
                Err(error) if is_taken(&error) && file.links().is_ok_and(|links| links > 1) => Published::New,
                Err(error) if is_taken(&error) => self.same(path, bytes)?,
                Err(error) if has_no_links(&error) => self.rename_new(temporary, path, bytes)?,
                Err(error) => return Err(vanished(error)),
            }
        };
        self.sync_names(path)?;
        Ok(published)
    }

    /// exFAT, SMB and some FUSE file systems have no hard links.
    fn rename_new(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> Result<Published, Setback> {
        match self.files.rename_new(temporary, path) {
            Ok(()) => Ok(Published::New),
            Err(error) if is_taken(&error) => self.same(path, bytes),
            Err(_) => self.rename(temporary, path).map(|()| Published::New),
        }
    }

    fn rename(&self, temporary: &Path, path: &Path) -> Result<(), Setback> {
        self.files.rename(temporary, path).map_err(vanished)
    }

    fn sync_names(&self, path: &Path) -> Result<(), Setback> {
        self.files.sync_dir(parent(path)).map_err(Setback::NotSynced)
    }

    /// The name is taken. What stands there must be the same bytes; what has rotted since, or cannot be read, is set aside.
    fn same(&self, path: &Path, bytes: &[u8]) -> Result<Published, Setback> {
        match self.files.read(path) {
            Ok(there) if there == bytes => return Ok(Published::Same),
            // Set aside by another process in this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Setback::Disturbed(error)),
            Err(error) if !is_of_the_file(&error) => return Err(Setback::Io(error)),
            _ => {}
        }
        tracing::warn!("{} does not hold what its name says: replaced", path.display());
        self.set_aside(path, |there| there == bytes)?;
        Err(Setback::Disturbed(io::Error::other("it does not hold what its name says, however often it is replaced")))
    }
}

/// The temporary file was created and is gone: somebody took it for a dead writer's.
fn vanished(error: io::Error) -> Setback {
    if error.kind() == io::ErrorKind::NotFound { Setback::Disturbed(error) } else { Setback::Io(error) }
}

/// Whether a folder cannot be opened, and so not synced, by this user.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

pub(super) fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

/// Whether an error of reading speaks of the one file (a bad sector, a checksum of the file system, its permissions) and
/// not of the process or the machine: too many open files, no memory, a server that does not answer.
pub(super) fn is_of_the_file(error: &io::Error) -> bool {
    let of_the_file =
        [Errno::IO, Errno::ACCESS, Errno::PERM, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA, Errno::NXIO, Errno::ISDIR];
    Errno::from_io_error(error).is_some_and(|errno| of_the_file.contains(&errno))
}

pub(super) fn has_no_links(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK))
        || error.kind() == io::ErrorKind::Unsupported
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fs::RealFs;
    use crate::store::fs::crashing::Machine;
    use crate::store::fs::faulty::{Fault, Faulty};

    fn real(folder: &Path) -> Disk {
        Disk::new(Arc::new(RealFs), folder)
    }

    fn faulty(folder: &Path, fault: Fault) -> Disk {
        Disk::new(Arc::new(Faulty::new(Arc::new(RealFs), fault)), folder)
    }

    fn names(folder: &Path) -> Vec<String> {
        RealFs.list(folder).expect("a folder of the test").into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_published_file_is_whole_and_leaves_no_temporary_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        assert_eq!(real(folder.path()).publish(&path, b"bytes").expect("publishes"), Published::New);
        assert_eq!(real(folder.path()).publish(&path, b"bytes").expect("publishes"), Published::Same);
        assert_eq!(std::fs::read(&path).expect("readable"), b"bytes");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_rotten_file_under_the_final_name_is_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        std::fs::write(&path, b"bytez").expect("writable");
        assert_eq!(real(folder.path()).publish(&path, b"bytes").expect("publishes"), Published::New);
        assert_eq!(std::fs::read(&path).expect("readable"), b"bytes");
    }

    #[test]
    fn one_failure_at_any_call_leaves_the_file_whole_or_absent() {
        // A publication makes 6 calls (create, write, sync, len, link, sync_dir) before it unlinks the temporary
        // name; the first failure is followed by one more try, so a single fault at any call must do no harm.
        for errno in [Errno::IO, Errno::NOSPC, Errno::MFILE, Errno::ROFS] {
            for call in 0..8 {
                let folder = tempfile::tempdir().expect("a temporary folder");
                let path = folder.path().join("a");
                let disk = faulty(folder.path(), Fault::Once(call, errno));
                disk.publish(&path, b"bytes").expect("a second try succeeds");
                assert_eq!(std::fs::read(&path).expect("readable"), b"bytes", "call {call}, {errno}");
            }
        }
    }

    #[test]
    fn a_lasting_failure_is_an_error_and_never_a_torn_file() {
        for call in 0..6 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("a");
            let disk = faulty(folder.path(), Fault::From(call, Errno::NOSPC));
            let error = disk.publish(&path, b"bytes").expect_err("every later call fails");
            assert_eq!(error.exit_code(), 5);
            let there = std::fs::read(&path);
            assert!(there.is_err() || there.is_ok_and(|bytes| bytes == b"bytes"), "call {call}");
        }
    }

    #[test]
    fn without_hard_links_the_file_is_renamed() {
        for errno in [Errno::PERM, Errno::NOTSUP] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("a");
            let disk = faulty(folder.path(), Fault::NoLinks(errno));
            assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::New);
            assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::Same);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn short_writes_and_interrupted_ones_are_gone_on_with() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        faulty(folder.path(), Fault::Short(2)).publish(&path, b"bytes").expect("publishes");
        assert_eq!(std::fs::read(&path).expect("readable"), b"bytes");
        let path = folder.path().join("b");
        faulty(folder.path(), Fault::Once(1, Errno::INTR)).publish(&path, b"bytes").expect("publishes");
        assert_eq!(std::fs::read(&path).expect("readable"), b"bytes");
    }

    /// A temporary file that somebody takes for a dead writer's, as often as one tries.
    #[test]
    fn a_writer_whose_temporary_files_are_removed_goes_on_for_a_while_and_then_says_so() {
        for (times, arrives) in [(5, true), (100, false)] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("a");
            let outcome = faulty(folder.path(), Fault::NoTemporary(times)).publish(&path, b"bytes");
            assert_eq!(outcome.is_ok(), arrives, "{outcome:?}");
            assert_eq!(names(folder.path()).len(), usize::from(arrives));
        }
    }

    /// The first sync of the directory fails, and the second has nothing left to put on disk.
    #[test]
    fn a_name_whose_sync_failed_is_made_again() {
        for seed in 0..50 {
            let machine = Machine::new(seed);
            let disk = |fault| Disk::new(Arc::new(Faulty::on(&machine.process(), fault)), Path::new("/"));
            // create, write, sync, len, link, sync_dir
            disk(Fault::Once(5, Errno::IO)).publish(Path::new("/a"), b"bytes").expect("a second try succeeds");
            machine.restart();
            assert_eq!(disk(Fault::Never).files.read(Path::new("/a")).expect("on disk"), b"bytes", "seed {seed}");
        }
    }

    #[test]
    fn a_folder_that_a_dead_process_made_is_put_on_disk() {
        for seed in 0..50 {
            let machine = Machine::new(seed);
            machine.process().create_dir(Path::new("/results")).expect("new");
            machine.process().create_dir(Path::new("/results/run")).expect("new");
            let disk = Disk::new(Arc::new(machine.process()), Path::new("/results/run"));
            disk.ensure_dir(Path::new("/results")).expect("synced");
            disk.ensure_dir(Path::new("/results/run")).expect("synced");
            disk.publish(Path::new("/results/run/a"), b"bytes").expect("published");
            machine.restart();
            let there = machine.files().into_iter().any(|(path, _)| path == Path::new("/results/run/a"));
            assert!(there, "seed {seed}");
        }
    }

    #[test]
    fn a_link_whose_reply_was_lost_counts_as_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        let disk = faulty(folder.path(), Fault::LostLinkReplies);
        assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::New);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_full_disk_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        // Two full writes: more than the one retry forgives, so only waiting helps.
        let mut disk = faulty(folder.path(), Fault::FullFor(2));
        disk.patience = Duration::from_secs(30);
        assert_eq!(disk.publish(&path, b"bytes").expect("space comes back"), Published::New);
    }
}
