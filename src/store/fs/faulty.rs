//! A file system for tests that fails where it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use super::crashing::Process;
use super::{Entry, Identity, NewFile, StoreFs};

/// Which calls fail. Calls of every kind are counted together, from 0.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Never,
    Once(u64, Errno),
    From(u64, Errno),
    /// The call takes effect and then reports an error, as a network file system does that lost the reply.
    LostReply(u64, Errno),
    NoLinks(Errno),
    LostLinkReplies,
    /// The first n links find that the file has been removed.
    NoTemporary(u64),
    /// The first n writes find the disk full.
    FullFor(u64),
    /// A write takes no more than so many bytes at once.
    Short(usize),
    /// Reading any file whose path ends so fails.
    Unreadable(&'static str, Errno),
    /// Listing any directory whose path ends so fails.
    Unlistable(&'static str, Errno),
}

/// Another file system with faults.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn StoreFs>,
    fault: Fault,
    calls: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
    links: Arc<AtomicU64>,
    /// A failed sync of a directory drops the names from its memory.
    process: Option<Process>,
    log: Arc<Mutex<Option<Vec<String>>>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn StoreFs>, fault: Fault) -> Self {
        let (calls, writes, links) = (Arc::default(), Arc::default(), Arc::default());
        Faulty { inner, fault, calls, writes, links, process: None, log: Arc::default() }
    }

    /// Faults of a process whose machine may crash: names whose sync failed may be gone then, whatever later syncs say.
    pub fn on(process: &Process, fault: Fault) -> Self {
        Faulty { process: Some(process.clone()), ..Faulty::new(Arc::new(process.clone()), fault) }
    }

    /// As a file system without faults that writes down what is called.
    pub fn recording(inner: Arc<dyn StoreFs>) -> Self {
        let faulty = Faulty::new(inner, Fault::Never);
        faulty.log.lock().expect("no thread panicked").get_or_insert_default();
        faulty
    }

    /// Kind and path of every call so far, if they were written down.
    pub fn calls(&self) -> Vec<String> {
        self.log.lock().expect("no thread panicked").clone().unwrap_or_default()
    }

    /// Runs a call, or the fault that comes in its place.
    fn call<T>(&self, kind: &str, path: &Path, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(log) = &mut *self.log.lock().expect("no thread panicked") {
            log.push(format!("{kind} {}", path.display()));
        }
        match self.fault {
            Fault::Once(at, errno) if number == at => Err(errno.into()),
            Fault::From(at, errno) if number >= at => Err(errno.into()),
            Fault::LostReply(at, errno) if number == at => call().and(Err(errno.into())),
            _ => call(),
        }
    }
}

/// Whether a sync has failed before it wrote anything: interrupted, a handle that is stale, no room for an open file. Only an error
/// of writing leaves in doubt what a second sync says is there.
fn is_before_writing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::STALE | Errno::MFILE))
}

/// A file whose calls may fail.
struct FaultyFile {
    file: Box<dyn NewFile>,
    path: PathBuf,
    faults: Faulty,
}

impl NewFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let FaultyFile { file, path, faults } = self;
        let (most, full) = match faults.fault {
            Fault::Short(most) => (most.max(1), 0),
            Fault::FullFor(writes) => (usize::MAX, writes),
            _ => (usize::MAX, 0),
        };
        let outcome = if faults.writes.fetch_add(1, Ordering::Relaxed) < full {
            Err(Errno::NOSPC.into())
        } else {
            faults.call("write", path, || file.write(&bytes[..bytes.len().min(most)]))
        };
        if outcome.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            // A write that fails has often written something.
            file.write(&bytes[..bytes.len() / 2])?;
        }
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.call("sync", &self.path, || self.file.sync())
    }

    fn size(&self) -> io::Result<u64> {
        self.faults.call("len", &self.path, || self.file.size())
    }

    fn links(&self) -> io::Result<u64> {
        self.faults.call("links", &self.path, || self.file.links())
    }
}

impl StoreFs for Faulty {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let file = self.call("create", path, || self.inner.create_new(path))?;
        Ok(Box::new(FaultyFile { file, path: path.to_path_buf(), faults: self.clone() }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("link", to, || match self.fault {
            Fault::NoLinks(errno) => Err(errno.into()),
            Fault::NoTemporary(times) if self.links.fetch_add(1, Ordering::Relaxed) < times => {
                self.inner.remove(from)?;
                Err(Errno::NOENT.into())
            }
            Fault::LostLinkReplies => self.inner.link(from, to).and(Err(Errno::EXIST.into())),
            _ => self.inner.link(from, to),
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename_new", to, || self.inner.rename_new(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", to, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove", path, || self.inner.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call("create_dir", path, || self.inner.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let outcome = self.call("sync_dir", path, || self.inner.sync_dir(path));
        if let (Err(error), Some(process)) = (&outcome, &self.process)
            && !is_before_writing(error)
        {
            process.lose_names(path);
        }
        outcome
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if let Fault::Unreadable(end, errno) = self.fault
            && path.to_string_lossy().ends_with(end)
        {
            return Err(errno.into());
        }
        self.call("read", path, || self.inner.read(path))
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        self.call("read_start", path, || self.inner.read_start(path, length))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        if let Fault::Unlistable(end, errno) = self.fault
            && path.to_string_lossy().ends_with(end)
        {
            return Err(errno.into());
        }
        self.call("list", path, || self.inner.list(path))
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.call("is_link", path, || self.inner.is_link(path))
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        self.call("age", path, || self.inner.age_seconds(path))
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn is_alive(&self, pid: u32) -> bool {
        self.inner.is_alive(pid)
    }

    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn sleep(&self, time: Duration) {
        self.inner.sleep(time);
    }
}
