//! What a file of the store is called: the chunk and the hash of its bytes.

use super::plan_file::short_hash;

/// The folder of merged parts. Files are listed folder by folder in the order of the names, and this comes after all others: who
/// listed a folder after a part was merged away finds here what holds its rows now.
pub const MERGED: &str = "merged";

/// What of a chunk, or of several, a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    Chunk,
    /// The run was stopped, or a part of the chunk was there already: a subset of the chunk's cells.
    Partial,
    /// Rows of several parts; `chunk` is the first of theirs.
    Merged,
}

/// What a part's file name says: `c00000017-<hash>.parquet`, `c00000017.p-<hash>.parquet` for a part of a chunk, or
/// `m00000017-<hash>.parquet` for several parts in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartName {
    pub chunk: u64,
    pub extent: Extent,
    /// First 32 hexadecimal digits of BLAKE3 over the file.
    pub hash: String,
}

impl PartName {
    pub fn of(chunk: u64, partial: bool, bytes: &[u8]) -> Self {
        PartName { chunk, extent: if partial { Extent::Partial } else { Extent::Chunk }, hash: short_hash(bytes) }
    }

    /// The name of several parts in one.
    pub fn merged(chunk: u64, bytes: &[u8]) -> Self {
        PartName { chunk, extent: Extent::Merged, hash: short_hash(bytes) }
    }

    /// Whether these are the bytes that the name promises.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        self.hash == short_hash(bytes)
    }

    /// The folder that the file belongs into.
    pub fn folder(&self) -> String {
        if self.extent == Extent::Merged { MERGED.to_string() } else { folder_of(self.chunk) }
    }

    pub fn file_name(&self, extension: &str) -> String {
        let (letter, mark) = match self.extent {
            Extent::Chunk => ('c', ""),
            Extent::Partial => ('c', ".p"),
            Extent::Merged => ('m', ""),
        };
        format!("{letter}{:08}{mark}-{}.{extension}", self.chunk, self.hash)
    }

    /// Reads a file name; `None` where it is not one of the store's.
    pub fn parse(name: &str, extension: &str) -> Option<Self> {
        let stem = name.strip_prefix(['c', 'm'])?.strip_suffix(extension)?.strip_suffix('.')?;
        let (number, hash) = stem.split_once('-')?;
        let (digits, extent) = match number.strip_suffix(".p") {
            Some(digits) => (digits, Extent::Partial),
            None if name.starts_with('m') => (number, Extent::Merged),
            None => (number, Extent::Chunk),
        };
        let parsed = PartName { chunk: digits.parse().ok()?, extent, hash: hash.to_string() };
        // Written back it must be the same name: no signs, no missing zeros, no capitals.
        (hash.len() == 32 && parsed.file_name(extension) == name).then_some(parsed)
    }
}

/// The folder of a chunk's files: two hexadecimal digits of the hash of its number, so that no folder grows too large.
pub fn folder_of(chunk: u64) -> String {
    blake3::hash(&chunk.to_le_bytes()).to_hex()[..2].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_survive_their_text_form_and_nothing_else_is_one() {
        for partial in [false, true] {
            let name = PartName::of(17, partial, b"bytes");
            assert_eq!(PartName::parse(&name.file_name("parquet"), "parquet"), Some(name));
        }
        let merged = PartName::merged(17, b"bytes");
        assert_eq!(PartName::parse(&merged.file_name("parquet"), "parquet"), Some(merged));
        let hash = "0".repeat(32);
        for name in [
            format!("c17-{hash}.parquet"),
            format!("c00000017-{hash}.parque"),
            format!("c00000017-{}.parquet", &hash[1..]),
            format!("m00000017.p-{hash}.parquet"),
            format!("c+0000017-{hash}.parquet"),
            format!("c00000017.q-{hash}.parquet"),
            format!(".tmp-c00000017-{hash}.parquet"),
        ] {
            assert_eq!(PartName::parse(&name, "parquet"), None, "{name}");
        }
        assert!(PartName::parse(&format!("c123456789-{hash}.parquet"), "parquet").is_some());
    }
}
