//! Stores that break one rule, to show that the tests of the store would notice. With the feature `faults`, `TEGUM_BROKEN` asks
//! the whole program for one: `no-fsync`, `no-dir-fsync`, `write-in-place` or `no-hash`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Entry, Identity, NewFile, StoreFs};

/// The rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Bytes are on disk before they get their name.
    SyncFiles,
    /// Names are on disk before anybody counts on them.
    SyncDirs,
    /// A file is written under another name first.
    WriteAside,
}

#[cfg(feature = "faults")]
fn asked() -> Option<String> {
    std::env::var("TEGUM_BROKEN").ok()
}

#[cfg(not(feature = "faults"))]
fn asked() -> Option<String> {
    None
}

/// The rule of the file system that `TEGUM_BROKEN` wants broken.
#[cfg(feature = "faults")]
pub fn asked_for() -> Option<Rule> {
    match asked()?.as_str() {
        "no-fsync" => Some(Rule::SyncFiles),
        "no-dir-fsync" => Some(Rule::SyncDirs),
        "write-in-place" => Some(Rule::WriteAside),
        "no-hash" => None,
        other => panic!("TEGUM_BROKEN={other}: no-fsync, no-dir-fsync, write-in-place or no-hash"),
    }
}

/// Whether `TEGUM_BROKEN` wants files to be believed by their names.
pub fn no_hash_is_asked_for() -> bool {
    asked().as_deref() == Some("no-hash")
}

/// Another file system used without one rule.
#[derive(Clone, Debug)]
pub struct Broken {
    inner: Arc<dyn StoreFs>,
    rule: Rule,
    /// Bytes of files that were to be written aside.
    held: Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>,
}

impl Broken {
    pub fn new(inner: Arc<dyn StoreFs>, rule: Rule) -> Self {
        Broken { inner, rule, held: Arc::default() }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Vec<u8>>> {
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Writes the held bytes straight to where they belong.
    fn write_in_place(&self, from: &Path, to: &Path) -> io::Result<()> {
        let bytes = self.held().get(from).cloned().unwrap_or_default();
        let mut file = self.inner.create_new(to)?;
        for piece in bytes.chunks(bytes.len().div_ceil(8).max(1)) {
            file.write(piece)?;
        }
        file.sync()
    }
}

struct Careless(Box<dyn NewFile>);

impl NewFile for Careless {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn links(&self) -> io::Result<u64> {
        self.0.links()
    }
}

struct Held {
    path: PathBuf,
    broken: Broken,
}

impl NewFile for Held {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.broken.held().entry(self.path.clone()).or_default().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.broken.held().get(&self.path).map_or(0, Vec::len) as u64)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
}

impl StoreFs for Broken {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(match self.rule {
            Rule::SyncFiles => Box::new(Careless(self.inner.create_new(path)?)),
            Rule::SyncDirs => self.inner.create_new(path)?,
            Rule::WriteAside => Box::new(Held { path: path.to_path_buf(), broken: self.clone() }),
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.rule {
            Rule::WriteAside if self.held().contains_key(from) => self.write_in_place(from, to),
            _ => self.inner.link(from, to),
        }
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename_new(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.rule {
            Rule::WriteAside if self.held().contains_key(from) => {
                let _ = self.inner.remove(to);
                self.write_in_place(from, to)
            }
            _ => self.inner.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.held().remove(path) {
            Some(_) => Ok(()),
            None => self.inner.remove(path),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.rule == Rule::SyncDirs { Ok(()) } else { self.inner.sync_dir(path) }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inner.read(path)
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Vec<u8>> {
        self.inner.read_start(path, length)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.inner.list(path)
    }

    fn is_link(&self, path: &Path) -> io::Result<bool> {
        self.inner.is_link(path)
    }

    fn age_seconds(&self, path: &Path) -> io::Result<u64> {
        self.inner.age_seconds(path)
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
