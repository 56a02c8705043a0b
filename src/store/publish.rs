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

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::error::StoreError;
use super::files::{Files, NewFile, ensure_dirs, parent};

/// Every unfinished file's name begins so.
pub const TEMPORARY: &str = ".tmp-";

/// A temporary file that is older than a day has no living writer.
const STALE_SECONDS: u64 = 24 * 3600;

/// Who writes: host, process, start time and a random number, so that two writers never share a temporary name.
#[derive(Clone, Debug)]
pub struct Writer {
    host: String,
    pid: u32,
    label: String,
}

impl Writer {
    /// The writer that this process is from now on.
    pub fn new() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let host: String =
            name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.').take(64).collect();
        let pid = std::process::id();
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        // The standard library seeds its hash maps from the operating system: 64 random bits without another crate.
        // They name temporary files only and reach no result.
        let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let label = format!("{host}-{pid}-{start}-{random:016x}");
        Writer { host, pid, label }
    }

    /// `host-pid-start-random`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether a temporary file of that name was left by a process of this host that is gone.
    pub(super) fn knows_to_be_dead(&self, name: &str) -> bool {
        let Some((host, pid)) = writer_of(name) else { return false };
        host == self.host && pid != self.pid && !is_alive(pid)
    }
}

impl Default for Writer {
    fn default() -> Self {
        Writer::new()
    }
}

/// Host and process id in a temporary name. The host may hold dashes, so the name is read from its end.
fn writer_of(name: &str) -> Option<(&str, u32)> {
    let mut fields = name.strip_prefix(TEMPORARY)?.rsplitn(5, '-');
    let (_number, _random, _start) = (fields.next()?, fields.next()?, fields.next()?);
    let pid = fields.next()?.parse().ok()?;
    Some((fields.next()?, pid))
}

/// Whether a process of that id runs on this machine; on any doubt, yes.
fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return true };
    rustix::process::test_kill_process(pid) != Err(Errno::SRCH) && !is_zombie(pid)
}

/// Whether a process has ended and only waits for its parent to hear of it; where the system does not tell, no.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

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
    pub files: Arc<dyn Files>,
    pub writer: Writer,
    /// How long a full disk is waited for before giving up.
    pub patience: Duration,
    counter: Arc<AtomicU64>,
}

/// Pause between two tries on a full disk.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(500);

impl Disk {
    pub fn new(files: Arc<dyn Files>) -> Self {
        Disk { files, writer: Writer::new(), patience: Duration::ZERO, counter: Arc::new(AtomicU64::new(0)) }
    }

    /// Publishes `bytes` as `path`, whose name must be derived from the bytes.
    ///
    /// # Errors
    /// The file system's own, after one more try with a fresh file: a failed fsync may have dropped the data, so the
    /// file it was called on is never used again. A full disk is waited for up to `patience`.
    pub fn publish(&self, path: &Path, bytes: &[u8]) -> Result<Published, StoreError> {
        self.persist(path, |temporary| self.link(temporary, path, bytes)).map_err(StoreError::io("publish", path))
    }

    /// Puts `bytes` at `path` in one step, whatever was there before.
    ///
    /// # Errors
    /// As [`Disk::publish`].
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let write = |temporary: &Path| {
            self.write(temporary, bytes)?;
            self.files.rename(temporary, path)?;
            self.files.sync_dir(parent(path))
        };
        self.persist(path, write).map_err(StoreError::io("write", path))
    }

    /// Moves a file out of the way into `folder`, keeping its name; a name that is taken there gets a number.
    pub fn set_aside(&self, path: &Path, folder: &Path) -> io::Result<PathBuf> {
        ensure_dirs(&*self.files, folder)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        for number in 0u32.. {
            let target = if number == 0 { folder.join(&name) } else { folder.join(format!("{name}.{number}")) };
            match self.files.link(path, &target) {
                Ok(()) => {
                    self.files.remove(path)?;
                    self.files.sync_dir(folder)?;
                    return Ok(target);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) if has_no_links(&error) => {
                    self.files.rename(path, &target)?;
                    return Ok(target);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Whether a leftover temporary file may be removed: its writer is a dead process of this host, or it is a day old.
    pub fn is_stale(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.writer.knows_to_be_dead(&name) || self.files.age_seconds(path).is_ok_and(|age| age > STALE_SECONDS)
    }

    /// Runs `write` on a fresh temporary name, once more if it fails, and for longer if the disk is full.
    fn persist<T>(&self, path: &Path, write: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        let deadline = Instant::now() + self.patience;
        let mut tried = false;
        loop {
            let temporary = self.temporary(path);
            let outcome = write(&temporary);
            // After a link the temporary name is the second one; after a failure it is rubbish; after a rename it is
            // gone. A leftover does no harm, so a failure to remove it is not one of the caller's.
            let _ = self.files.remove(&temporary);
            match outcome {
                Err(error) if is_full(&error) && Instant::now() < deadline => {
                    tracing::warn!("no space for {}: {error}; waiting", path.display());
                    std::thread::sleep(FULL_DISK_PAUSE.min(self.patience));
                }
                Err(_) if !tried => tried = true,
                other => return other,
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
        file.write_all(bytes)?;
        file.sync()?;
        let length = file.len()?;
        if length != bytes.len() as u64 {
            return Err(io::Error::other(format!("wrote {} bytes, {length} arrived", bytes.len())));
        }
        Ok(file)
    }

    fn link(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<Published> {
        let file = self.write(temporary, bytes)?;
        let published = match self.files.link(temporary, path) {
            Ok(()) => Published::New,
            // NFS may lose the reply of a link that worked and then find the name taken: the link count tells.
            Err(error) if is_taken(&error) && file.links().is_ok_and(|links| links > 1) => Published::New,
            Err(error) if is_taken(&error) => self.same(path, bytes)?,
            Err(error) if has_no_links(&error) => self.rename_new(temporary, path, bytes)?,
            Err(error) => return Err(error),
        };
        self.files.sync_dir(parent(path))?;
        Ok(published)
    }

    /// exFAT, SMB and some FUSE file systems have no hard links.
    fn rename_new(&self, temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<Published> {
        match self.files.rename_new(temporary, path) {
            Ok(()) => Ok(Published::New),
            Err(error) if is_taken(&error) => self.same(path, bytes),
            // Replacing is harmless: the name is made from the content.
            Err(_) => self.files.rename(temporary, path).map(|()| Published::New),
        }
    }

    /// The name is taken. What stands there must be the same bytes; if it has rotted since, it is replaced.
    fn same(&self, path: &Path, bytes: &[u8]) -> io::Result<Published> {
        if self.files.read(path)? == bytes {
            return Ok(Published::Same);
        }
        tracing::warn!("{} does not hold what its name says: replaced", path.display());
        self.files.remove(path)?;
        Err(io::ErrorKind::Interrupted.into())
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

fn has_no_links(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK))
        || error.kind() == io::ErrorKind::Unsupported
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::Faulty;
    use crate::store::files::RealFiles;

    fn real() -> Disk {
        Disk::new(Arc::new(RealFiles))
    }

    fn names(folder: &Path) -> Vec<String> {
        RealFiles.list(folder).expect("a folder of the test").into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_published_file_is_whole_and_leaves_no_temporary_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        assert_eq!(real().publish(&path, b"bytes").expect("publishes"), Published::New);
        assert_eq!(real().publish(&path, b"bytes").expect("publishes"), Published::Same);
        assert_eq!(std::fs::read(&path).expect("readable"), b"bytes");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_rotten_file_under_the_final_name_is_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        std::fs::write(&path, b"bytez").expect("writable");
        assert_eq!(real().publish(&path, b"bytes").expect("publishes"), Published::New);
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
                let disk = Disk::new(Arc::new(Faulty::once(call, errno)));
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
            let disk = Disk::new(Arc::new(Faulty::from(call, Errno::NOSPC)));
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
            let disk = Disk::new(Arc::new(Faulty::without_links(errno)));
            assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::New);
            assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::Same);
            assert_eq!(names(folder.path()), ["a"]);
        }
    }

    #[test]
    fn a_link_whose_reply_was_lost_counts_as_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        let disk = Disk::new(Arc::new(Faulty::losing_link_replies()));
        assert_eq!(disk.publish(&path, b"bytes").expect("publishes"), Published::New);
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_full_disk_is_waited_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        // Two full writes: more than the one retry forgives, so only waiting helps.
        let mut disk = Disk::new(Arc::new(Faulty::full_for(2)));
        disk.patience = Duration::from_secs(30);
        assert_eq!(disk.publish(&path, b"bytes").expect("space comes back"), Published::New);
    }

    #[test]
    fn a_dead_writer_of_this_host_is_told_from_a_living_one() {
        let writer = Writer::new();
        let own = format!("{TEMPORARY}{}-0", writer.label());
        assert_eq!(writer_of(&own), Some((writer.host.as_str(), std::process::id())));
        assert!(!writer.knows_to_be_dead(&own));
        let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
        let pid = child.id();
        child.wait().expect("`true` ends");
        assert!(writer.knows_to_be_dead(&format!("{TEMPORARY}{}-{pid}-1-ab-0", writer.host)));
        assert!(!writer.knows_to_be_dead(&format!("{TEMPORARY}elsewhere-{pid}-1-ab-0")));
        assert!(!writer.knows_to_be_dead(&format!("{TEMPORARY}nonsense")));
    }
}
