//! Files of every layout, and what is refused.

use std::fs;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

use super::*;

/// Header and data as NumPy writes them.
fn npy(descr: &str, fortran: bool, shape: [usize; 2], data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': ({}, {}), }}", shape[0], shape[1]);
    let header = format!("{text:<117}\n");
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

/// `0.npy`, `1.npy`, ...: row r of all has the numbers r, r + 1/d, ...; chunks of two rows or so.
pub fn numbered(folder: &TempDir, rows: &[usize], d: usize) -> Vec<PathBuf> {
    let mut first = 0;
    let write = |(i, &rows): (usize, &usize)| {
        let numbers = (0..rows * d).map(|at| (first + at / d) as f32 + (at % d) as f32 / (d + 1) as f32);
        let data: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        first += rows;
        let path = folder.path().join(format!("{i}.npy"));
        fs::write(&path, npy("<f4", false, [rows, d], &data)).expect("a temporary folder can be written");
        path
    };
    rows.iter().enumerate().map(write).collect()
}

pub fn open(paths: &[PathBuf], hold_out: f64) -> Result<Activations, ActivationsError> {
    Activations::open(paths, hold_out, false)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn all_rows(activations: &Activations) -> Vec<f32> {
    let mut rows = Vec::new();
    (0..activations.chunks.len() as u32).for_each(|chunk| activations.append(chunk, &mut rows));
    rows
}

/// Three rows of four numbers that half precision holds exactly.
const NUMBERS: [f32; 12] = [1.0, -2.0, 0.5, 0.25, 3.0, -4.0, 8.0, 0.125, 100.0, -0.75, 0.0, 7.5];

fn by_column() -> Vec<f32> {
    (0..12).map(|i| NUMBERS[i % 3 * 4 + i / 3]).collect()
}

fn bf16(x: f32) -> [u8; 2] {
    ((x.to_bits() >> 16) as u16).to_le_bytes()
}

/// Halves of numbers whose fraction has few bits and whose exponent is small.
fn f16(x: f32) -> [u8; 2] {
    let bits = x.to_bits();
    let half =
        if x == 0.0 { 0 } else { (bits >> 16 & 0x8000) | ((bits >> 23 & 0xFF) - 112) << 10 | bits >> 13 & 0x3FF };
    (half as u16).to_le_bytes()
}

fn bytes<const N: usize>(numbers: &[f32], number: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|&x| number(x)).collect()
}

#[test]
fn every_layout_and_type_gives_the_same_numbers() {
    let folder = folder();
    let turned = |mut b: [u8; 2]| {
        b.reverse();
        b
    };
    let npys = [
        npy("<f4", false, [3, 4], &bytes(&NUMBERS, f32::to_le_bytes)),
        npy(">f4", false, [3, 4], &bytes(&NUMBERS, f32::to_be_bytes)),
        npy("<f4", true, [3, 4], &bytes(&by_column(), f32::to_le_bytes)),
        npy(">f4", true, [3, 4], &bytes(&by_column(), f32::to_be_bytes)),
        npy("<f2", false, [3, 4], &bytes(&NUMBERS, f16)),
        npy(">f2", true, [3, 4], &bytes(&by_column(), |x| turned(f16(x)))),
        npy("<f8", false, [3, 4], &bytes(&NUMBERS, |x| f64::from(x).to_le_bytes())),
        npy(">f8", true, [3, 4], &bytes(&by_column(), |x| f64::from(x).to_be_bytes())),
    ];
    let mut paths = vec![];
    for (i, file) in npys.iter().enumerate() {
        paths.push(folder.path().join(format!("{i}.npy")));
        fs::write(&paths[i], file).expect("it can be written");
    }
    for (dtype, data) in [
        (Dtype::F32, bytes(&NUMBERS, f32::to_le_bytes)),
        (Dtype::F16, bytes(&NUMBERS, f16)),
        (Dtype::BF16, bytes(&NUMBERS, bf16)),
        (Dtype::F64, bytes(&NUMBERS, |x| f64::from(x).to_le_bytes())),
    ] {
        let view = |shape: Vec<usize>, data| TensorView::new(dtype, shape, data).expect("a tensor");
        let size = data.len() / 12;
        let tensors = [("a", view(vec![3, 4], &data)), ("ids", view(vec![1], &data[..size]))];
        let path = folder.path().join(format!("{dtype:?}.safetensors"));
        fs::write(&path, safetensors::serialize(tensors, None).expect("tensors")).expect("it can be written");
        paths.push(path);
    }
    for path in paths {
        let activations = Activations::open(std::slice::from_ref(&path), 0.3, true).expect("a good file");
        assert_eq!(activations.d(), 4);
        assert_eq!(all_rows(&activations), NUMBERS, "{}", path.display());
        activations.check_finite().expect("all are finite");
    }
}

#[test]
fn doubles_are_rounded_only_where_asked_for() {
    let folder = folder();
    let path = folder.path().join("a.npy");
    let data = bytes(&NUMBERS, |x| f64::from(x).to_le_bytes());
    fs::write(&path, npy("<f8", false, [3, 4], &data)).expect("it can be written");
    let message = open(&[path], 0.1).expect_err("float64").to_string();
    assert!(message.contains("a.npy") && message.contains("float64"), "{message}");
}

#[test]
fn numbers_that_are_not_finite_are_named_by_file_row_and_column() {
    let folder = folder();
    let good = numbered(&folder, &[5], 3);
    for (fortran, descr) in [(false, "<f4"), (true, "<f4")] {
        for (at, value) in [(700, f32::NAN), (1_000_001, f32::INFINITY)] {
            let mut numbers = vec![1.0f32; 400_000 * 3];
            numbers[at] = value;
            numbers[1_100_000] = f32::NAN;
            let path = folder.path().join("bad.npy");
            let file = npy(descr, fortran, [400_000, 3], &bytes(&numbers, f32::to_le_bytes));
            fs::write(&path, file).expect("it can be written");
            let activations = open(&[good[0].clone(), path], 0.1).expect("headers are good");
            let message = activations.check_finite().expect_err("not finite").to_string();
            let (row, column) = if fortran { (at % 400_000, at / 400_000) } else { (at / 3, at % 3) };
            assert!(message.contains("bad.npy") && message.contains(&format!("[{row}, {column}]")), "{message}");
        }
    }
}

#[test]
fn folders_are_read_by_name_and_other_files_left_alone() {
    let folder = folder();
    let paths = numbered(&folder, &[4, 3, 6], 2);
    fs::write(folder.path().join("notes.txt"), "x").expect("it can be written");
    fs::write(folder.path().join(".2.npy"), "x").expect("it can be written");
    let whole = open(&[folder.path().to_owned()], 0.2).expect("good files");
    assert_eq!((whole.n_files(), all_rows(&whole)), (3, all_rows(&open(&paths, 0.2).expect("good files"))));
    let empty = tempfile::tempdir().expect("a temporary folder");
    let message = open(&[empty.path().to_owned()], 0.2).expect_err("nothing there").to_string();
    assert!(message.contains("no .npy or .safetensors"), "{message}");
}

#[test]
fn files_of_different_widths_and_too_few_rows_are_refused() {
    let (a, b) = (folder(), folder());
    let (wide, narrow) = (numbered(&a, &[4], 3), numbered(&b, &[4], 2));
    let message = open(&[wide[0].clone(), narrow[0].clone()], 0.1).expect_err("widths").to_string();
    assert!(message.contains("rows of 3") && message.contains("of 2"), "{message}");
    let message = open(&numbered(&a, &[1], 3), 0.1).expect_err("one row").to_string();
    assert!(message.contains("at least two"), "{message}");
    let message = open(&numbered(&a, &[10], 3), 0.99).expect_err("nothing left").to_string();
    assert!(message.contains("nothing to train on"), "{message}");
    assert!(open(&[a.path().join("none.npy")], 0.1).is_err());
}

#[test]
fn held_out_rows_are_apart_from_training_rows_and_grow_with_the_share() {
    let folder = folder();
    let paths = numbered(&folder, &[300, 400], 2);
    let held = |share| {
        let activations = open(&paths, share).expect("good files");
        let mut rows = Vec::new();
        activations.evaluation(usize::MAX >> 8, 64, |piece| rows.extend(piece.iter().step_by(2).map(|&x| x as u32)));
        assert_eq!(rows.len() as u64, activations.evaluation_rows());
        (rows, activations)
    };
    let (few, one) = held(0.1);
    let (more, _) = held(0.3);
    assert_eq!(more[..few.len()], few);
    assert!((60..=80).contains(&few.len()) && one.training_rows() as usize + few.len() == 700);
    let stream = GivenSource { activations: std::sync::Arc::new(one), seed: 1 }.open();
    let mut batch = crate::hidden::HiddenBatch::default();
    stream.draw_hidden(0, 700, &mut batch);
    assert!(batch.h.chunks_exact(2).all(|row| !few.contains(&(row[0] as u32))));
    let (all, _) = held(0.0);
    assert_eq!(all.len(), 700);
}

#[test]
fn evaluation_takes_so_many_rows_in_pieces() {
    let folder = folder();
    let activations = open(&numbered(&folder, &[1000], 3), 0.5).expect("good files");
    let sizes = |most, piece| {
        let mut sizes = Vec::new();
        activations.evaluation(most, piece, |rows| sizes.push(rows.len() / 3));
        sizes
    };
    assert_eq!(sizes(100, 40), [40, 40, 20]);
    assert_eq!(sizes(7, 40), [7]);
    assert_eq!(sizes(10_000, 400).iter().sum::<usize>() as u64, activations.evaluation_rows());
}

#[test]
fn fingerprints_tell_files_apart() {
    let (a, b) = (folder(), folder());
    let one = open(&numbered(&a, &[1000], 3), 0.1).expect("good files").fingerprint().expect("it is read");
    let same = open(&numbered(&b, &[1000], 3), 0.5).expect("good files").fingerprint().expect("it is read");
    assert_eq!(one, same);
    let other = open(&numbered(&b, &[1001], 3), 0.1).expect("good files").fingerprint().expect("it is read");
    assert_ne!(one, other);
    let path = &numbered(&b, &[1000], 3)[0];
    let mut bytes = fs::read(path).expect("it is there");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(path, bytes).expect("it can be written");
    assert_ne!(one, open(std::slice::from_ref(path), 0.1).expect("good files").fingerprint().expect("it is read"));
}
