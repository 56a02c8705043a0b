//! What tests share: golden arrays from `tests/golden`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, IxDyn};

/// A file of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The arrays of an uncompressed `.npz` (a zip of stored `.npy` files), by name without `.npy`.
pub fn npz(path: impl AsRef<Path>) -> BTreeMap<String, ArrayD<f64>> {
    let bytes = read(path.as_ref());
    let directory = central_directory(&bytes);
    directory.into_iter().map(|(name, data)| (name.trim_end_matches(".npy").to_string(), array(data))).collect()
}

/// The array of a `.npy` file.
pub fn npy(path: impl AsRef<Path>) -> ArrayD<f64> {
    array(&read(path.as_ref()))
}

/// A golden `.json`.
pub fn json(path: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&read(path.as_ref())).expect("golden files are valid JSON")
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes([bytes[at], bytes[at + 1]]) as usize
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

/// Name and bytes of each member. The end record stands last (numpy writes no comment); central entries have 46 bytes
/// before the name, local headers 30 (PKWARE APPNOTE 4.3).
fn central_directory(bytes: &[u8]) -> Vec<(&str, &[u8])> {
    let end = bytes.len() - 22;
    assert_eq!(&bytes[end..end + 4], b"PK\x05\x06", "a zip with a comment, or not a zip");
    let mut at = u32_at(bytes, end + 16);
    let mut members = vec![];
    for _ in 0..u16_at(bytes, end + 10) {
        assert_eq!(&bytes[at..at + 4], b"PK\x01\x02");
        assert_eq!(u16_at(bytes, at + 10), 0, "compressed members are not read here");
        let (size, name) = (u32_at(bytes, at + 24), &bytes[at + 46..at + 46 + u16_at(bytes, at + 28)]);
        let local = u32_at(bytes, at + 42);
        let start = local + 30 + u16_at(bytes, local + 26) + u16_at(bytes, local + 28);
        members.push((std::str::from_utf8(name).expect("ASCII names"), &bytes[start..start + size]));
        at += 46 + u16_at(bytes, at + 28) + u16_at(bytes, at + 30) + u16_at(bytes, at + 32);
    }
    members
}

/// Little-endian f4, f8, i4 or i8 in C order (NEP 1).
fn array(bytes: &[u8]) -> ArrayD<f64> {
    assert_eq!(&bytes[..6], b"\x93NUMPY");
    let (start, length) = if bytes[6] == 1 { (10, u16_at(bytes, 8)) } else { (12, u32_at(bytes, 8)) };
    let header = std::str::from_utf8(&bytes[start..start + length]).expect("ASCII header");
    assert!(header.contains("'fortran_order': False"), "{header}");
    let between = |open: &str, close: &str| {
        let from = header.find(open).expect("a key of the header") + open.len();
        &header[from..from + header[from..].find(close).expect("a closed value")]
    };
    let shape: Vec<usize> = between("'shape': (", ")").split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let data = &bytes[start + length..];
    let values = match between("'descr': '", "'") {
        "<f4" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b) as f64).collect(),
        "<f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        "<i4" => data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b) as f64).collect(),
        "<i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        other => panic!("element type {other}"),
    };
    ArrayD::from_shape_vec(IxDyn(&shape), values).expect("as many values as the shape says")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npz_members_come_with_their_shapes_and_values() {
        let arrays = npz(golden("objective_toy_linear.npz"));
        assert_eq!(arrays["x"].shape(), [16, 7]);
        assert_eq!(arrays["param.W"].shape(), [3, 7]);
        assert_eq!(arrays["importance"].shape(), [7]);
        assert_eq!(arrays["importance"][[1]], 0.9f32 as f64);
        assert!(arrays["grad.W"].iter().all(|g| g.is_finite() && *g != 0.0));
    }

    #[test]
    fn an_npy_of_whole_numbers_reads_as_f64() {
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 1), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([3i64, -4].iter().flat_map(|v| v.to_le_bytes()));
        let path = std::env::temp_dir().join(format!("tegum-npy-{}.npy", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(npy(&path), ndarray::arr2(&[[3.0], [-4.0]]).into_dyn());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn golden_json_is_found() {
        assert_eq!(json(golden("objective_toy_linear.json"))["adam"]["steps"], 10);
    }
}
