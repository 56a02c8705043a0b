//! What is full when there is no room: the disk, the number of files it can hold, or what one user may have of it.

use std::path::Path;

use rustix::io::Errno;

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Bytes,
    Files,
    Quota,
}

impl Full {
    /// By the error and, where the file system tells, how many files it has room for.
    fn of(error: Errno, free_files: Option<u64>) -> Full {
        match (error, free_files) {
            (Errno::DQUOT, _) => Full::Quota,
            (_, Some(0)) => Full::Files,
            _ => Full::Bytes,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Full::Bytes => {
                "\n  the disk is full: free some space and run the same command again: everything published so far is kept"
            }
            Full::Files => {
                "\n  the disk holds as many files as it can (its inodes are used up): remove some files, or choose another disk with --out DIR; everything published so far is kept"
            }
            Full::Quota => {
                "\n  your quota there is used up, of bytes or of files (`quota` tells): free some space and run the same command again: everything published so far is kept"
            }
        }
    }
}

/// What the reader of a message that there is no room for `path` can do, as a line of its own.
pub fn advice(path: &Path, error: Errno) -> &'static str {
    let there = path.ancestors().find(|path| path.exists()).and_then(|path| rustix::fs::statvfs(path).ok());
    // Some file systems have as many files as bytes allow, and count none.
    let free_files = there.filter(|there| there.f_files > 0).map(|there| there.f_favail);
    Full::of(error, free_files).advice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_used_up_inodes_and_a_quota_are_told_apart() {
        assert_eq!(Full::of(Errno::NOSPC, Some(17)), Full::Bytes);
        assert_eq!(Full::of(Errno::NOSPC, None), Full::Bytes);
        assert_eq!(Full::of(Errno::NOSPC, Some(0)), Full::Files);
        assert_eq!(Full::of(Errno::DQUOT, Some(0)), Full::Quota);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let below = folder.path().join("not/there");
        assert!(advice(&below, Errno::NOSPC).contains("the disk is full: free some space"));
        assert!(advice(&below, Errno::DQUOT).contains("quota"));
        assert!([Full::Bytes, Full::Files, Full::Quota].iter().all(|full| full.advice().contains("is kept")));
    }
}
