//! The files of a folder of rows or tables, some of whose own folders may be closed to everybody.

use std::path::{Path, PathBuf};

use super::Store;
use super::error::StoreError;
use super::fs::list_if_there;
use super::publish::is_of_the_file;
use super::scan::{Damage, Scan};

impl Store {
    /// Every plain file one level of folders down. A folder that cannot be listed, twice, is damage as a file is that cannot be
    /// read.
    pub(super) fn list_below(&self, root: &Path, set_aside: bool, scan: &mut Scan) -> Result<Vec<PathBuf>, StoreError> {
        let files = &*self.disk.files;
        let mut found = Vec::new();
        for entry in list_if_there(files, root).map_err(StoreError::io("list", root))? {
            let path = root.join(&entry.name);
            if !entry.is_dir {
                found.push(path);
                continue;
            }
            let listed = match list_if_there(files, &path) {
                Err(error) if is_of_the_file(&error) => list_if_there(files, &path),
                other => other,
            };
            match listed {
                Ok(inner) => {
                    found.extend(inner.iter().filter(|inner| !inner.is_dir).map(|inner| path.join(&inner.name)));
                }
                Err(error) if is_of_the_file(&error) => {
                    let reason = format!("it cannot be listed: {error}");
                    let moved_to = if set_aside { self.set_folder_aside(&path) } else { None };
                    scan.quarantined.push(Damage { path, reason, moved_to });
                }
                Err(error) => return Err(StoreError::io("list", &path)(error)),
            }
        }
        Ok(found)
    }

    /// Moves a folder away that cannot be listed; what it held may come back to light there.
    fn set_folder_aside(&self, path: &Path) -> Option<PathBuf> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let target = self.disk.quarantine.join(format!("{name}.{}", self.disk.unique()));
        let moved = self.disk.ensure_dir(&self.disk.quarantine).and_then(|()| self.disk.files.rename(path, &target));
        match moved {
            Ok(()) => Some(target),
            Err(error) => {
                tracing::warn!("cannot move {} to quarantine: {error}", path.display());
                None
            }
        }
    }
}
