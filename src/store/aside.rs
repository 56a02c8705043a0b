//! Moving a damaged file out of the way without ever losing a sound one.
//!
//! Between the moment a file was found damaged and the moment it is moved, another writer may have put the sound one under
//! its name; and a read over a network may have been short or stale. So the file is judged again where no other
//! process touches it, and put back if it is what its name says. (Killed between the two, its cells are computed again: that
//! takes damage, another writer at the same file and a kill in one moment.) Nothing is ever removed by a name after it was read.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::parent;
use super::publish::{Disk, is_taken};

/// What became of a file that was to be set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// It is here now.
    Moved(PathBuf),
    /// It was sound after all and has its name again.
    Restored,
    /// Another process was quicker.
    Gone,
}

impl Disk {
    /// Moves a file into `quarantine/`, unless `is_sound` says there that it is what its name promises.
    ///
    /// # Errors
    /// What the file system refuses; the file is then where it was, or in `quarantine/`.
    pub fn set_aside(&self, path: &Path, is_sound: impl Fn(&[u8]) -> bool) -> io::Result<Aside> {
        self.ensure_dir(&self.quarantine)?;
        let target = match self.move_away(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Aside::Gone),
            other => other?,
        };
        if self.files.read(&target).is_ok_and(|bytes| is_sound(&bytes)) {
            self.put_back(&target, path)?;
            return Ok(Aside::Restored);
        }
        Ok(Aside::Moved(target))
    }

    /// Under its own name, or with this writer's label where that name is taken or nobody can tell whether it is. Not
    /// synced: after a power cut the damaged file may be back, and is found again.
    fn move_away(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let plain = self.quarantine.join(&*name);
        match self.files.rename_new(path, &plain) {
            Ok(()) => Ok(plain),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => {
                let own = self.quarantine.join(format!("{name}.{}", self.unique()));
                self.files.rename(path, &own).map(|()| own)
            }
        }
    }

    /// Replacing is harmless where a link is refused: the file is sound and its name is made from its content.
    fn put_back(&self, target: &Path, path: &Path) -> io::Result<()> {
        match self.files.link(target, path) {
            Ok(()) => {}
            Err(error) if is_taken(&error) => {}
            Err(_) => self.files.rename(target, path)?,
        }
        self.files.sync_dir(parent(path))?;
        let _ = self.files.remove(target);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::fs::crashing::{Machine, Oddities};
    use crate::store::fs::{NewFile, StoreFs};

    /// A machine with a file `/a`, and a process's disk on it.
    fn machine(oddities: Oddities, content: &[u8]) -> (Machine, Disk) {
        let machine = Machine::new(1).copy(1, oddities);
        let process = machine.process();
        let mut file: Box<dyn NewFile> = process.create_new(Path::new("/a")).expect("a new name");
        file.write(content).expect("there is space");
        (machine, Disk::new(Arc::new(process), Path::new("/")))
    }

    fn names(machine: &Machine) -> Vec<String> {
        machine.files().iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn a_damaged_file_is_moved_and_never_over_another_one() {
        for no_links in [false, true] {
            let (machine, disk) = machine(Oddities { no_links, ..Default::default() }, b"bad");
            assert!(matches!(disk.set_aside(Path::new("/a"), |_| false), Ok(Aside::Moved(_))));
            let mut file = disk.files.create_new(Path::new("/a")).expect("a new name");
            file.write(b"bad too").expect("there is space");
            assert!(matches!(disk.set_aside(Path::new("/a"), |_| false), Ok(Aside::Moved(_))));
            let names = names(&machine);
            assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("/quarantine/a")), "{names:?}");
            assert_eq!(disk.set_aside(Path::new("/a"), |_| false).expect("nothing there"), Aside::Gone);
        }
    }

    /// Another writer replaced it between the moment it was judged and the moment it was moved.
    #[test]
    fn a_file_that_is_sound_after_all_gets_its_name_back() {
        for no_links in [false, true] {
            let (machine, disk) = machine(Oddities { no_links, ..Default::default() }, b"good");
            let outcome = disk.set_aside(Path::new("/a"), |bytes| bytes == b"good").expect("moved and put back");
            assert_eq!((outcome, names(&machine)), (Aside::Restored, vec!["/a".to_string()]));
            assert_eq!(disk.files.read(Path::new("/a")).expect("readable"), b"good");
        }
    }
}
