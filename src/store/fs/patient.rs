//! Tries again what a network file system or a signal interrupted and what may be done twice.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::{Entry, Identity, NewFile, StoreFs};

/// How often an operation is tried again.
const RETRIES: usize = 3;

/// Another file system whose reads, listings and directory syncs are tried again after ESTALE (the file was replaced by
/// another machine: opening it again finds the new one) and EINTR. What creates or moves names is left to the caller, who
/// knows what a second try means.
#[derive(Clone, Debug)]
pub struct Patient(pub Arc<dyn StoreFs>);

fn again<T>(call: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match call() {
            Err(error)
                if matches!(Errno::from_io_error(&error), Some(Errno::STALE | Errno::INTR)) && tries < RETRIES =>
            {
                tries += 1;
            }
            other => return other,
        }
    }
}

impl StoreFs for Patient {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.0.create_new(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    /// A second try that finds the directory says so, which every caller takes for success.
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        again(|| self.0.create_dir(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        again(|| self.0.sync_dir(path))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        again(|| self.0.read(path))
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        again(|| self.0.read_start(path, length))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        again(|| self.0.list(path))
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        again(|| self.0.is_link(path))
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        again(|| self.0.age_seconds(path))
    }

    fn identity(&self) -> Identity {
        self.0.identity()
    }

    fn is_alive(&self, pid: u32) -> bool {
        self.0.is_alive(pid)
    }

    fn now(&self) -> Duration {
        self.0.now()
    }

    fn sleep(&self, time: Duration) {
        self.0.sleep(time);
    }
}
