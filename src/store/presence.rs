//! Who else is writing: a file per writer in the run directory, removed when it ends.
//!
//! Advice only. It decides where a run begins and what the user is told; whoever is not seen costs work done twice, never a
//! row. The file of a process of this host that is gone counts for nothing, nor does one that was not renewed for a day.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::Store;
use super::fs::list_if_there;
use super::publish::TEMPORARY;

/// The name of a writer's file begins so.
const PRESENCE: &str = ".writer-";

/// How often a file is written anew, so that its age says that its writer lives.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

/// A file that is older has no living writer.
const STALE_SECONDS: u64 = 24 * 3600;

/// Says that this process writes, until it is dropped.
#[derive(Debug)]
pub struct Presence<'a> {
    store: &'a Store,
    path: PathBuf,
    written: Mutex<Instant>,
}

impl Store {
    /// Announces this process. What cannot be written is left out: nothing depends on it.
    pub fn announce(&self) -> Presence<'_> {
        let path = self.dir.join(format!("{PRESENCE}{}", self.disk.unique()));
        let presence = Presence { store: self, path, written: Mutex::new(Instant::now()) };
        presence.write();
        presence
    }

    /// How many other writers have announced themselves and may be alive. Files of the dead are removed.
    pub fn other_writers(&self) -> usize {
        let entries = list_if_there(&*self.disk.files, &self.dir).unwrap_or_default();
        let names = entries.iter().filter_map(|entry| Some((&entry.name, entry.name.strip_prefix(PRESENCE)?)));
        let others = names.filter(|(_, writer)| !writer.starts_with(self.writer()));
        others.filter(|(name, writer)| !self.is_gone(&self.dir.join(name), writer)).count()
    }

    fn is_gone(&self, path: &Path, writer: &str) -> bool {
        let dead = self.disk.writer.knows_to_be_dead(&format!("{TEMPORARY}{writer}"), &*self.disk.files);
        if dead {
            let _ = self.disk.files.remove(path);
        }
        dead || self.disk.files.age_seconds(path).is_ok_and(|age| age > STALE_SECONDS)
    }
}

impl Presence<'_> {
    fn write(&self) {
        let text = format!("{}\n", self.store.writer());
        if let Err(error) = self.store.disk.replace(&self.path, text.as_bytes()) {
            tracing::info!("other writers are not told of this one: {error}");
        }
    }

    /// Writes the file anew if it is long ago.
    pub fn renew(&self) {
        let Ok(mut written) = self.written.lock() else { return };
        if written.elapsed() >= RENEW_EVERY {
            self.write();
            *written = Instant::now();
        }
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        let _ = self.store.disk.files.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{plan, store_of};

    #[test]
    fn writers_see_each_other_until_they_end_and_the_dead_are_forgotten() {
        let (folder, store) = store_of(&plan(1, 1));
        let other = Store::create_or_open(folder.path(), b"name: test\n", &plan(1, 1)).expect("opens");
        let own = store.announce();
        assert_eq!(store.other_writers(), 0, "not itself");
        let theirs = other.announce();
        assert_eq!((store.other_writers(), other.other_writers()), (1, 1));
        drop(theirs);
        assert_eq!(store.other_writers(), 0);
        // A process of this host that is long gone: no system gives out an id as high.
        let gone = own.path.to_string_lossy().replace(&format!("-{}-", std::process::id()), "-2147483646-");
        std::fs::write(&gone, b"").expect("writable");
        assert_eq!(store.other_writers(), 0);
        assert!(!Path::new(&gone).exists());
        drop(own);
        let left = std::fs::read_dir(folder.path()).expect("a folder");
        assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with(PRESENCE)));
    }
}
