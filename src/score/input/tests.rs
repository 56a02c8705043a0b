//! Bad files by the row of the list of bad inputs that they belong to, and good ones in every layout.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::{Array2, array};
use tempfile::TempDir;

use super::*;

/// What NumPy 2.4 writes for a header: padded with spaces to 128 bytes, magic and version included.
fn npy(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{dictionary:<117}\n");
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

fn plain(shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"), data)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn write(folder: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, bytes).expect("a temporary folder can be written");
    path
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn read_bytes(name: &str, bytes: &[u8]) -> Result<Matrix, InputError> {
    let folder = folder();
    read_matrix(&write(&folder, name, bytes))
}

/// The message of a file that must be refused; it names the file.
fn refused(name: &str, bytes: &[u8]) -> String {
    let message = read_bytes(name, bytes).expect_err("a bad file").to_string();
    assert!(message.contains(name), "{message}");
    assert!(message.chars().all(|c| !c.is_control()), "{message:?}");
    message
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    text.as_bytes().as_chunks::<2>().0.iter().map(|&[high, low]| 16 * digit(high) + digit(low)).collect()
}

#[test]
fn row_099_damaged_safetensors_are_refused() {
    let good = r#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
    let data = floats(&[1.0, 2.0]);
    assert_eq!(
        read_bytes("a.safetensors", &safetensors(good, &data)).expect("good"),
        Matrix::F32(array![[1.0], [2.0]])
    );

    assert!(refused("a.safetensors", b"").contains("not a .safetensors file"));
    assert!(refused("a.safetensors", &[1, 2, 3]).contains("not a .safetensors file"));
    for length in [u64::MAX, 1 << 40] {
        assert!(refused("a.safetensors", &[length.to_le_bytes().as_slice(), b"{}"].concat()).contains("allowed"));
    }
    let cut = &safetensors(good, &data)[..40];
    assert!(refused("a.safetensors", cut).contains("cut short"));
    assert!(refused("a.safetensors", &safetensors(good, &data[..7])).contains("cut short"));
    assert!(refused("a.safetensors", &safetensors(good, &[data.clone(), vec![0]].concat())).contains("trails"));
    let deep = format!("{}{}", r#"{"w":"#.repeat(2000), "}".repeat(2000));
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"w":{}}}"#, tensor(dtype, shape, offsets));
    let two = |a: &str, first: &str, b: &str, second: &str| {
        format!(r#"{{"{a}":{},"{b}":{}}}"#, tensor("F32", "[1,1]", first), tensor("F32", "[1,1]", second))
    };
    let headers = [
        ("not JSON", "hello".to_string()),
        ("a list", "[]".to_string()),
        ("deep", deep),
        ("overlap", two("a", "[0,4]", "b", "[2,6]")),
        ("hole", two("a", "[0,4]", "b", "[6,10]")),
        ("end before start", one("F32", "[2,1]", "[8,0]")),
        ("overflow", one("F32", "[4294967296,4294967296]", "[0,8]")),
        ("wrong size", one("F32", "[3,1]", "[0,8]")),
        ("negative size", one("F32", "[-2,-1]", "[0,8]")),
        ("unknown type", one("F33", "[2,1]", "[0,8]")),
        ("a type that would colour the terminal", one("\\u001b[31m", "[2,1]", "[0,8]")),
        ("twice, apart", two("a", "[0,4]", "a", "[4,8]")),
        ("twice, the same", two("a", "[0,4]", "a", "[0,4]")),
    ];
    for (what, header) in headers {
        assert!(refused("a.safetensors", &safetensors(&header, &data)).contains("header is not understood"), "{what}");
    }
    let not_utf8 = [&4u64.to_le_bytes(), b"{\"\xff\"".as_slice()].concat();
    assert!(refused("a.safetensors", &not_utf8).contains("header is not understood"));
}

#[test]
fn row_100_too_many_tensors_or_too_long_a_header_are_refused() {
    let tensors = |count: usize| {
        let entries = (0..count).map(|k| format!(r#""t{k}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    };
    assert!(refused("a.safetensors", &safetensors(&tensors(4097), b"")).contains("4097 tensors, more than the 4096"));
    assert!(refused("a.safetensors", &safetensors(&tensors(4096), b"")).contains("has no matrix"), "within the limit");
    let long = refused("a.safetensors", &safetensors(&tensors(20_000), b""));
    assert!(long.contains("more than the 1048576 allowed"), "{long}");
}

#[test]
fn row_101_tensor_names_are_never_paths() {
    let folder = folder();
    let header = r#"{"../../x":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}"#;
    let path = write(&folder, "a.safetensors", &safetensors(header, &floats(&[3.0])));
    let named = PathBuf::from(format!("{}:../../x", path.display()));
    assert_eq!(read_matrix(&named).expect("a name like any other"), Matrix::F32(array![[3.0]]));
    assert_eq!(read_matrix(&path).expect("the only matrix"), Matrix::F32(array![[3.0]]));
    let files = fs::read_dir(folder.path()).expect("a readable folder").count();
    assert_eq!(files, 1, "nothing was written");
    // Control characters of a name do not reach the terminal.
    let escape = safetensors(r#"{"\u001b[31m":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &floats(&[3.0]));
    assert!(refused("a.safetensors", &escape).contains("has no matrix"));
}

#[test]
fn row_102_numbers_that_are_not_finite_are_refused_with_their_place() {
    let header = r#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    let nan = refused("a.safetensors", &safetensors(header, &floats(&[1.0, 2.0, f32::NAN, f32::INFINITY])));
    assert!(nan.contains("tensor \"w\": the entry at [1, 0] is NaN"), "{nan}");
    let infinite = refused("a.npy", &plain("(2, 3)", &floats(&[0.0, 0.0, 0.0, 0.0, f32::NEG_INFINITY, f32::NAN])));
    assert!(infinite.contains("the entry at [1, 1] is -inf"), "{infinite}");
    let turned = npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }", &floats(&[0.0, 1.0, f32::NAN, 2.0]));
    assert!(refused("a.npy", &turned).contains("[0, 1] is NaN"), "the place in the matrix, not in the file");
    let vector = r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let folder = folder();
    let path = write(&folder, "v.safetensors", &safetensors(vector, &floats(&[1.0; 4])));
    let named = PathBuf::from(format!("{}:w", path.display()));
    assert!(read_matrix(&named).expect_err("a vector").to_string().contains("this has shape [4]"));
}

#[test]
fn row_103_only_f32_and_f64_tensors_are_read() {
    let header = |dtype: &str, bytes: usize| {
        format!(r#"{{"w":{{"dtype":"{dtype}","shape":[1,2],"data_offsets":[0,{bytes}]}}}}"#)
    };
    for (dtype, bytes) in [("BF16", 4), ("F16", 4), ("I32", 8), ("U8", 2), ("BOOL", 2)] {
        let message = refused("a.safetensors", &safetensors(&header(dtype, bytes), &vec![0; bytes]));
        assert!(message.contains(&format!("type {dtype} is not read")), "{message}");
    }
    let data: Vec<u8> = [1.5f64, 1e-60].iter().flat_map(|value| value.to_le_bytes()).collect();
    let read = read_bytes("a.safetensors", &safetensors(&header("F64", 16), &data)).expect("f64 keeps its precision");
    assert_eq!(read, Matrix::F64(array![[1.5, 1e-60]]));
}

#[test]
fn row_104_npy_files_that_are_no_matrix_of_floats_are_refused() {
    let data = floats(&[1.0, 2.0, 3.0, 4.0]);
    let good = plain("(2, 2)", &data);
    assert_eq!(read_bytes("a.npy", &good).expect("good"), Matrix::F32(array![[1.0, 2.0], [3.0, 4.0]]));
    for length in 0..good.len() {
        refused("a.npy", &good[..length]);
    }
    assert!(refused("a.npy", &good[..good.len() - 1]).contains("cut short"));
    assert!(refused("a.npy", &[good.clone(), vec![0]].concat()).contains("trails"));
    assert!(refused("a.npy", b"PK\x03\x04 an .npz by another name").contains("not a .npy file"));
    let typed = |descr: &str| npy(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (2, 2), }}"), &data);
    for descr in ["'<i4'", "'<f2'", "'|b1'", "'<c8'", "'=f4'", "'f4'", "'<U4'", "''", "'\x1b[31m'"] {
        assert!(refused("a.npy", &typed(descr)).contains("is not read"), "{descr}");
    }
    assert!(refused("a.npy", &typed("'|O'")).contains("never unpickled"));
    assert!(refused("a.npy", &typed("[('a', '<f4'), ('b', '<f4')]")).contains("structured"));
    for shape in ["(4,)", "()", "(2, 1, 2)"] {
        assert!(refused("a.npy", &plain(shape, &data)).contains("a matrix [rows, columns] is wanted"), "{shape}");
    }
    assert!(refused("a.npy", &plain("(-2, -2)", &data)).contains("negative"));
    let code = "{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').getpid(), 2), }";
    assert!(refused("a.npy", &npy(code, &data)).contains("a whole number expected"));
    let mut version = good.clone();
    version[6] = 9;
    assert!(refused("a.npy", &version).contains("version 9"));
    let long = [b"\x93NUMPY\x02\x00".as_slice(), &u32::MAX.to_le_bytes(), b"{}"].concat();
    assert!(refused("a.npy", &long).contains("allowed"));
}

#[test]
fn row_105_a_size_that_the_file_does_not_have_is_refused_before_it_is_allocated() {
    let huge = plain("(1099511627776, 4)", &floats(&[1.0; 4]));
    assert_eq!(huge.len(), 144);
    let message = refused("a.npy", &huge);
    assert!(message.contains("144 bytes where its header promises 17592186044544"), "{message}");
}

#[test]
fn row_106_a_shape_whose_product_overflows_is_refused() {
    for shape in ["(4294967296, 4294967296)", "(4611686018427387904, 1)", "(99999999999999999999, 1)"] {
        let message = refused("a.npy", &plain(shape, &floats(&[1.0])));
        assert!(message.contains("more bytes than can be counted"), "{shape}: {message}");
    }
}

/// The data bytes are those that NumPy 2.4.6 writes for [[1.5, -2, 3.25], [4, 0, -0.5]].
#[test]
fn row_107_both_byte_orders_and_both_memory_orders_are_read_as_numpy_means_them() {
    let expected = array![[1.5, -2.0, 3.25], [4.0, 0.0, -0.5]];
    for (descr, fortran, data) in [
        ("<f4", "False", "0000c03f000000c0000050400000804000000000000000bf"),
        (">f4", "False", "3fc00000c0000000405000004080000000000000bf000000"),
        ("<f4", "True", "0000c03f00008040000000c00000000000005040000000bf"),
        (">f4", "True", "3fc0000040800000c00000000000000040500000bf000000"),
        (
            "<f8",
            "False",
            "000000000000f83f00000000000000c00000000000000a4000000000000010400000000000000000000000000000e0bf",
        ),
        (
            ">f8",
            "False",
            "3ff8000000000000c000000000000000400a00000000000040100000000000000000000000000000bfe0000000000000",
        ),
        (
            "<f8",
            "True",
            "000000000000f83f000000000000104000000000000000c000000000000000000000000000000a40000000000000e0bf",
        ),
        (
            ">f8",
            "True",
            "3ff80000000000004010000000000000c0000000000000000000000000000000400a000000000000bfe0000000000000",
        ),
    ] {
        let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (2, 3), }}");
        match read_bytes("a.npy", &npy(&header, &hex(data))).expect(descr) {
            Matrix::F32(matrix) => {
                assert!(descr.ends_with('4') && matrix.mapv(f64::from) == expected, "{descr} {fortran}")
            }
            Matrix::F64(matrix) => assert!(descr.ends_with('8') && matrix == expected, "{descr} {fortran}"),
        }
    }
}

#[test]
fn a_header_of_version_two_or_three_is_read() {
    for version in [2, 3] {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }\n";
        let preamble = [b"\x93NUMPY".as_slice(), &[version, 0], &(header.len() as u32).to_le_bytes()].concat();
        let file = [preamble, header.as_bytes().to_vec(), floats(&[2.5])].concat();
        assert_eq!(read_bytes("a.npy", &file).expect("a newer header"), Matrix::F32(array![[2.5]]));
    }
}

/// More numbers than one chunk of reading.
#[test]
fn a_large_matrix_is_read_whole_and_in_order() {
    let (rows, columns) = (301, 83);
    let values: Vec<f32> = (0..rows * columns).map(|k| k as f32).collect();
    let read = read_bytes("a.npy", &plain("(301, 83)", &floats(&values))).expect("a matrix");
    assert_eq!(read, Matrix::F32(Array2::from_shape_vec((rows, columns), values).expect("as many as places")));
}

#[test]
fn a_matrix_among_several_is_named() {
    let folder = folder();
    let header = r#"{"__metadata__":{"a":"b"},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
        "w:1":{"dtype":"F32","shape":[1,1],"data_offsets":[8,12]},"v":{"dtype":"F32","shape":[1,1],"data_offsets":[12,16]}}"#;
    let path = write(&folder, "a.safetensors", &safetensors(header, &floats(&[0.0, 0.0, 7.0, 8.0])));
    let named = |name: &str| read_matrix(&PathBuf::from(format!("{}:{name}", path.display())));
    assert_eq!(named("w:1").expect("a colon in a name"), Matrix::F32(array![[7.0]]));
    assert_eq!(named("v").expect("the last"), Matrix::F32(array![[8.0]]));
    let message = read_matrix(&path).expect_err("two matrices").to_string();
    assert!(message.contains("several matrices") && message.contains(r#""w:1", "v""#), "{message}");
    let message = named("x").expect_err("no such tensor").to_string();
    assert!(message.contains("no tensor \"x\"") && message.contains(r#""b", "w:1", "v""#), "{message}");
}

#[test]
fn what_is_no_file_is_refused_and_never_waited_for() {
    let folder = folder();
    let missing = read_matrix(&folder.path().join("none.npy")).expect_err("no file").to_string();
    assert!(missing.contains("none.npy: cannot be read"), "{missing}");
    let directory = folder.path().join("d.npy");
    fs::create_dir(&directory).expect("a folder in a folder");
    assert!(read_matrix(&directory).expect_err("a directory").to_string().contains("not a regular file"));
    assert!(refused("a.csv", b"1,2").contains("neither .npy nor .safetensors"));
    #[cfg(target_os = "linux")]
    assert!(read_matrix(Path::new("/dev/zero")).expect_err("a device").to_string().contains("not a regular file"));
}

/// Truth of two features in three dimensions, three latents, four samples.
fn whole(folder: &TempDir) -> ScoreFiles {
    let file = |name: &str, rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns).map(|k| ((k * 7 + rows) % 5) as f32).collect();
        Some(write(folder, name, &plain(&format!("({rows}, {columns})"), &floats(&values))))
    };
    ScoreFiles {
        truth: file("G.npy", 2, 3).expect("written"),
        dictionary: file("D.npy", 3, 3),
        features: file("X.npy", 4, 2),
        latents: file("Z.npy", 4, 3),
        hidden: file("H.npy", 4, 3),
        reconstruction: file("R.npy", 4, 3),
        parents: Some(write(folder, "P.json", br#"{"1": 0}"#)),
    }
}

#[test]
fn shapes_that_do_not_fit_name_both_files_and_both_shapes() {
    let folder = folder();
    let good = whole(&folder);
    let scores = score_files(&good).expect("all fit");
    assert!(scores["scores"]["mcc"].is_number() && scores["matching"].is_array());
    let other = |rows: usize, columns: usize| {
        let values = vec![1.0; rows * columns];
        Some(write(&folder, "other.npy", &plain(&format!("({rows}, {columns})"), &floats(&values))))
    };
    let check = |files: ScoreFiles, shapes: [&str; 2], rule: &str| {
        let message = score_files(&files).expect_err("shapes differ").to_string();
        assert!(message.contains("other.npy") && message.contains(rule), "{message}");
        assert!(shapes.iter().all(|shape| message.contains(shape)), "{message}");
    };
    check(ScoreFiles { dictionary: other(3, 4), ..good.clone() }, ["[3, 4]", "G.npy [2, 3]"], "d_hidden");
    check(ScoreFiles { features: other(4, 3), ..good.clone() }, ["[4, 3]", "G.npy [2, 3]"], "n_features");
    check(ScoreFiles { latents: other(4, 2), ..good.clone() }, ["[4, 2]", "D.npy [3, 3]"], "n_latents");
    check(ScoreFiles { latents: other(5, 3), ..good.clone() }, ["[5, 3]", "X.npy [4, 2]"], "samples");
    check(ScoreFiles { hidden: other(4, 2), ..good.clone() }, ["[4, 2]", "G.npy [2, 3]"], "d_hidden");
    check(ScoreFiles { reconstruction: other(4, 2), ..good.clone() }, ["[4, 2]", "H.npy [4, 3]"], "d_hidden");
    check(ScoreFiles { reconstruction: other(5, 3), ..good.clone() }, ["[5, 3]", "H.npy [4, 3]"], "samples");
    let both = ScoreFiles { hidden: other(5, 3), reconstruction: other(5, 3), ..good.clone() };
    check(both, ["[5, 3]", "X.npy [4, 2]"], "samples");
    // A dictionary of four latents against latents of three.
    check(ScoreFiles { dictionary: other(4, 3), ..good }, ["[4, 3]", "Z.npy [4, 3]"], "n_latents");
}

#[test]
fn an_array_that_no_score_can_use_is_refused() {
    let folder = folder();
    let good = whole(&folder);
    let message = |files: ScoreFiles| score_files(&files).expect_err("an array alone").to_string();
    assert!(message(ScoreFiles { reconstruction: None, ..good.clone() }).contains("--hidden is of no use without"));
    assert!(message(ScoreFiles { hidden: None, ..good.clone() }).contains("without --hidden"));
    assert!(message(ScoreFiles { dictionary: None, ..good.clone() }).contains("--parents is of no use without --dict"));
    assert!(message(ScoreFiles { latents: None, ..good.clone() }).contains("without --latents"));
    let empty = write(&folder, "empty.npy", &plain("(0, 3)", b""));
    assert!(message(ScoreFiles { truth: empty, ..good.clone() }).contains("empty"));
    let cyclic = write(&folder, "cycle.json", br#"{"0": 1, "1": 0}"#);
    let cycle = message(ScoreFiles { parents: Some(cyclic), ..good });
    assert!(cycle.contains("cycle.json: feature 0 is its own ancestor"), "{cycle}");
}

#[test]
fn one_file_of_f64_makes_the_whole_score_f64() {
    let folder = folder();
    let good = whole(&folder);
    // A firing below the least f32 is a firing.
    let values: Vec<u8> = (0..8).flat_map(|k| if k == 0 { 1e-60f64 } else { 0.0 }.to_le_bytes()).collect();
    let x = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 2), }", &values);
    let files = ScoreFiles { features: Some(write(&folder, "X64.npy", &x)), ..good };
    assert_eq!(score_files(&files).expect("mixed types fit")["scores"]["true_l0"], 0.25);
}

#[test]
fn only_what_the_arrays_allow_is_there_and_nulls_have_reasons() {
    let folder = folder();
    let truth = ScoreFiles { truth: whole(&folder).truth, ..ScoreFiles::default() };
    let json = score_files(&truth).expect("the truth alone");
    let keys: Vec<_> = json.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["scores", "vectors"]);
    assert!(json["scores"].get("mcc").is_none() && json["scores"]["n_represented"] == 2);
    let silent = write(&folder, "silent.npy", &plain("(4, 3)", &floats(&[0.0; 12])));
    let json = score_files(&ScoreFiles { latents: Some(silent), ..whole(&folder) }).expect("silent latents");
    assert!(json["scores"]["merging"].is_null());
    assert_eq!(json["reasons"]["merging"], "no latent is alive");
    assert_eq!(json["scores"]["dead"], 3);
}
