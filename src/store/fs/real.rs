//! The operating system.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::{Entry, Identity, NewFile, StoreFs};

/// The operating system's files, clock and processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

/// The file system of every command. With the feature `faults` it breaks the rule that `TEGUM_BROKEN` names.
pub fn operating_system() -> Arc<dyn StoreFs> {
    #[cfg(feature = "faults")]
    if let Some(rule) = super::broken::asked_for() {
        return Arc::new(super::broken::Broken::new(Arc::new(RealFs), rule));
    }
    Arc::new(RealFs)
}

impl NewFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.metadata()?.nlink())
    }
}

/// Whether a process has ended and only waits for its parent to hear of it; where the system does not tell, no.
fn is_zombie(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

impl StoreFs for RealFs {
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
        fs::read(path)
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

    fn identity(&self) -> Identity {
        Identity {
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            space: space(),
            pid: std::process::id(),
            start: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis()),
            // The standard library seeds its hash maps from the operating system: 64 random bits without another crate.
            // They name temporary files only and reach no result.
            random: std::collections::hash_map::RandomState::new().build_hasher().finish(),
        }
    }

    fn is_alive(&self, pid: u32) -> bool {
        let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return true };
        rustix::process::test_kill_process(pid) != Err(Errno::SRCH) && !is_zombie(pid)
    }

    fn now(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Boot and process id namespace in eight hexadecimal digits: containers often share a host name, never both of these.
fn space() -> Option<String> {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&boot).update(namespace.as_os_str().as_encoded_bytes());
    Some(hasher.finalize().to_hex()[..8].to_string())
}
