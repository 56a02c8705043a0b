//! A file system for tests that fails where it is told to.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::files::{Entry, Files, NewFile, RealFiles};

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
enum Plan {
    Once(u64, Errno),
    From(u64, Errno),
    NoLinks(Errno),
    LostLinkReplies,
    /// The first n writes find the disk full.
    FullFor(u64),
}

/// The real file system with faults; calls are counted from 0.
#[derive(Clone, Debug)]
pub struct Faulty {
    plan: Plan,
    calls: Arc<AtomicU64>,
}

impl Faulty {
    fn new(plan: Plan) -> Self {
        Faulty { plan, calls: Arc::default() }
    }

    pub fn once(call: u64, errno: Errno) -> Self {
        Faulty::new(Plan::Once(call, errno))
    }

    pub fn from(call: u64, errno: Errno) -> Self {
        Faulty::new(Plan::From(call, errno))
    }

    pub fn without_links(errno: Errno) -> Self {
        Faulty::new(Plan::NoLinks(errno))
    }

    pub fn losing_link_replies() -> Self {
        Faulty::new(Plan::LostLinkReplies)
    }

    pub fn full_for(writes: u64) -> Self {
        Faulty::new(Plan::FullFor(writes))
    }

    fn step(&self) -> io::Result<()> {
        match self.plan {
            Plan::Once(at, errno) if self.calls.fetch_add(1, Ordering::Relaxed) == at => Err(errno.into()),
            Plan::From(at, errno) if self.calls.fetch_add(1, Ordering::Relaxed) >= at => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

struct FaultyFile {
    file: Box<dyn NewFile>,
    faults: Faulty,
}

impl NewFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let full =
            matches!(self.faults.plan, Plan::FullFor(n) if self.faults.calls.fetch_add(1, Ordering::Relaxed) < n);
        let fault = if full { Err(Errno::NOSPC.into()) } else { self.faults.step() };
        if fault.is_err() {
            // A write that fails has often written something.
            self.file.write_all(&bytes[..bytes.len() / 2])?;
        }
        fault?;
        self.file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.step()?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.faults.step()?;
        self.file.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }
}

impl Files for Faulty {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.step()?;
        Ok(Box::new(FaultyFile { file: RealFiles.create_new(path)?, faults: self.clone() }))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        match self.plan {
            Plan::NoLinks(errno) => Err(errno.into()),
            Plan::LostLinkReplies => {
                RealFiles.link(from, to)?;
                Err(Errno::EXIST.into())
            }
            _ => RealFiles.link(from, to),
        }
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealFiles.rename_new(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        RealFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFiles.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFiles.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        RealFiles.sync_dir(path)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.step()?;
        RealFiles.read(path)
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        self.step()?;
        RealFiles.read_start(path, length)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.step()?;
        RealFiles.list(path)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        RealFiles.is_link(path)
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        RealFiles.age_seconds(path)
    }
}
