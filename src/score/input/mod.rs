//! Arrays from files, for the `score` command: `.npy` and `.safetensors`, checked before they are believed.
//!
//! A header's claims are compared with the file's length before anything is allocated, no name in a file is ever used as
//! a path, nothing is unpickled, and every number must be finite.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use serde_json::{Map, Value as Json};

use super::{Arrays, Real, Scores, Vector, evaluate};

mod entries;
mod layout;
mod npy;
mod parents;
mod tensors;

pub use layout::{MatrixLayout, NumberType, layout_of, matrix_layout};
pub use parents::ParentsProblem;

/// Files of the `score` command. A `.safetensors` file with several matrices is given as `file.safetensors:name`.
#[derive(Clone, Debug, Default)]
pub struct ScoreFiles {
    /// `[n_features, d_hidden]`
    pub truth: PathBuf,
    /// `[n_latents, d_hidden]`
    pub dictionary: Option<PathBuf>,
    /// `[samples, n_features]`
    pub features: Option<PathBuf>,
    /// `[samples, n_latents]`
    pub latents: Option<PathBuf>,
    /// `[samples, d_hidden]`
    pub hidden: Option<PathBuf>,
    /// `[samples, d_hidden]`
    pub reconstruction: Option<PathBuf>,
    /// JSON, {child: parent}
    pub parents: Option<PathBuf>,
}

/// What can be wrong with the files of the `score` command.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: Problem },
    #[error("{}: {problem}", path.display())]
    Parents { path: PathBuf, problem: ParentsProblem },
    #[error(
        "{} [{}, {}] and {} [{}, {}] do not fit: {rule}",
        left.path.display(), left.shape.0, left.shape.1, right.path.display(), right.shape.0, right.shape.1
    )]
    Shapes { left: Shaped, right: Shaped, rule: &'static str },
    #[error("--{given} is of no use without --{missing}: no score needs it alone")]
    Alone { given: &'static str, missing: &'static str },
}

/// A matrix by its file and shape, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    pub path: PathBuf,
    pub shape: (usize, usize),
}

/// What can be wrong with one array file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("not a regular file")]
    NotAFile,
    #[error("neither .npy nor .safetensors")]
    UnknownFormat,
    #[error("not a {0} file")]
    WrongFormat(&'static str),
    #[error("the header has {found} bytes, more than the {limit} allowed")]
    LongHeader { found: u64, limit: u64 },
    #[error("the header is not understood: {0}")]
    BadHeader(String),
    #[error("the file has {found} bytes where its header promises {promised}: {}", cut_or_trailing(*found, *promised))]
    WrongLength { promised: u64, found: u64 },
    #[error("the header's shape {0} needs more bytes than can be counted")]
    Overflow(String),
    #[error("the header's shape {0} has a negative size")]
    NegativeSize(String),
    #[error("a matrix [rows, columns] is wanted, this has shape {0}")]
    NotAMatrix(String),
    #[error("type {0} is not read: only float32 and float64 are (convert it and save again)")]
    WrongType(String),
    #[error("type float64 would have to be rounded: save it as float32, or ask for that with `convert`")]
    Double,
    #[error("holds Python objects, which are never unpickled: save a plain float32 array")]
    Objects,
    #[error("the matrix is empty: shape [{0}, {1}]")]
    Empty(usize, usize),
    #[error("{found} tensors, more than the {limit} allowed")]
    ManyTensors { found: usize, limit: usize },
    #[error("has no tensor {wanted:?}; it has {}", listed(names))]
    NoSuchTensor { wanted: String, names: Vec<String> },
    #[error("has no matrix; its tensors are {}", listed(.0))]
    NoMatrix(Vec<String>),
    #[error("has several matrices: name one as FILE.safetensors:NAME, of {}", listed(.0))]
    SeveralMatrices(Vec<String>),
    #[error("{}the entry at [{row}, {column}] is {value}: every number must be finite", in_tensor(tensor))]
    NotFinite { tensor: Option<String>, row: usize, column: usize, value: f64 },
}

fn cut_or_trailing(found: u64, promised: u64) -> &'static str {
    if found < promised { "it is cut short" } else { "something trails the data" }
}

/// Text from a file for a message: at most `limit` characters, those that do not print escaped.
fn shown(text: &str, limit: usize) -> String {
    let escape = |c: char| if matches!(c, '\'' | '"') { c.to_string() } else { c.escape_debug().to_string() };
    text.chars().take(limit).map(escape).collect()
}

/// Names from a file, shortened and with control characters escaped.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names.iter().take(SHOWN).map(|name| format!("{:?}", name.chars().take(60).collect::<String>()));
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    if names.is_empty() { "none".into() } else { shown.collect::<Vec<_>>().join(", ") + &more }
}

fn in_tensor(tensor: &Option<String>) -> String {
    tensor.as_ref().map_or(String::new(), |name| format!("tensor {}: ", listed(std::slice::from_ref(name))))
}

/// A matrix as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Matrix {
    F32(Array2<f32>),
    F64(Array2<f64>),
}

impl Matrix {
    /// (rows, columns)
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Matrix::F32(matrix) => matrix.dim(),
            Matrix::F64(matrix) => matrix.dim(),
        }
    }

    /// In single precision.
    pub fn into_f32(self) -> Array2<f32> {
        match self {
            Matrix::F32(matrix) => matrix,
            Matrix::F64(matrix) => matrix.mapv(|v| v as f32),
        }
    }

    /// As f64.
    pub fn into_f64(self) -> Array2<f64> {
        match self {
            Matrix::F32(matrix) => matrix.mapv(f64::from),
            Matrix::F64(matrix) => matrix,
        }
    }
}

/// Reads one matrix; every number is finite.
///
/// # Errors
/// Where the file is not a readable `.npy` or `.safetensors` with one matrix of f32 or f64 under that name.
pub fn read_matrix(path: &Path) -> Result<Matrix, InputError> {
    let wrong = |problem| InputError::File { path: path.to_owned(), problem };
    let (file_path, tensor) = split_tensor_name(path);
    let (file, length) = open(&file_path).map_err(wrong)?;
    parse(path, file_path.extension(), tensor.as_deref(), file, length)
}

/// The matrix of a file whose bytes have been read; `path` is where they came from.
///
/// # Errors
/// As [`read_matrix`].
pub fn matrix_of(path: &Path, tensor: Option<&str>, bytes: &[u8]) -> Result<Matrix, InputError> {
    parse(path, path.extension(), tensor, io::Cursor::new(bytes), bytes.len() as u64)
}

/// Whether these are the bytes of a `.safetensors` file within our limits.
///
/// # Errors
/// Why not.
pub fn check_tensors(bytes: &[u8]) -> Result<(), Problem> {
    tensors::read_header(&mut io::Cursor::new(bytes), bytes.len() as u64).map(|_| ())
}

fn parse(
    path: &Path,
    extension: Option<&OsStr>,
    tensor: Option<&str>,
    file: impl io::Read + io::Seek,
    length: u64,
) -> Result<Matrix, InputError> {
    let wrong = |problem| InputError::File { path: path.to_owned(), problem };
    let (matrix, name) = match (extension.and_then(|extension| extension.to_str()), tensor) {
        (Some("npy"), None) => (npy::read(file, length).map_err(wrong)?, None),
        (Some("safetensors"), name) => {
            let (matrix, name) = tensors::read(file, length, name).map_err(wrong)?;
            (matrix, Some(name))
        }
        _ => return Err(wrong(Problem::UnknownFormat)),
    };
    let not_finite = match &matrix {
        Matrix::F32(matrix) => first_not_finite(matrix),
        Matrix::F64(matrix) => first_not_finite(matrix),
    };
    match not_finite {
        Some((row, column, value)) => Err(wrong(Problem::NotFinite { tensor: name, row, column, value })),
        None => Ok(matrix),
    }
}

/// `a.safetensors:encoder.weight` is tensor `encoder.weight` of `a.safetensors`, unless a file of the whole name exists.
fn split_tensor_name(path: &Path) -> (PathBuf, Option<String>) {
    const MARK: &str = ".safetensors:";
    let named = path.to_str().filter(|_| !path.exists()).and_then(|text| {
        let cut = text.find(MARK)? + MARK.len();
        Some((PathBuf::from(&text[..cut - 1]), text[cut..].to_owned()))
    });
    named.map_or_else(|| (path.to_owned(), None), |(file, name)| (file, Some(name)))
}

/// Opens a regular file, and says how long it is; anything else (a FIFO would block, a device may have no end) is refused.
///
/// # Errors
/// What is no regular file, or cannot be opened.
pub fn open(path: &Path) -> Result<(File, u64), Problem> {
    use std::os::unix::fs::OpenOptionsExt;
    if !fs::metadata(path)?.is_file() {
        return Err(Problem::NotAFile);
    }
    // What was a file a moment ago may be a FIFO now: opening it must not block either.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(Problem::NotAFile) }
}

/// A regular file whole.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let (mut file, length) = open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

fn first_not_finite<T: Real>(matrix: &Array2<T>) -> Option<(usize, usize, f64)> {
    let entries = matrix.indexed_iter().map(|((row, column), &value)| (row, column, value.into()));
    entries.into_iter().find(|(_, _, value)| !value.is_finite())
}

/// The matrices of the `score` command, read and fitting each other.
struct Inputs {
    truth: Matrix,
    dictionary: Option<Matrix>,
    features: Option<Matrix>,
    latents: Option<Matrix>,
    hidden: Option<Matrix>,
    reconstruction: Option<Matrix>,
    parents: Option<BTreeMap<usize, usize>>,
}

/// Every score that the files allow, as JSON.
///
/// `scores` {name: number, or null where undefined}; `vectors` {name: list}, by feature, `density` by latent;
/// `matching` [latent or null] by feature; `belongs_to` [feature or null] by latent; `sets`, S_i by feature in the order
/// of growth; and, where there is a null among the scores, `reasons` {name: why}. A key is missing where its arrays are.
///
/// # Errors
/// Where a file cannot be read, holds a number that is not finite, or does not fit the others.
pub fn score_files(files: &ScoreFiles) -> Result<Json, InputError> {
    let inputs = read_all(files)?;
    let all = [&inputs.dictionary, &inputs.features, &inputs.latents, &inputs.hidden, &inputs.reconstruction];
    let single = all.into_iter().flatten().chain([&inputs.truth]).all(|matrix| matches!(matrix, Matrix::F32(_)));
    let scores = if single { evaluate_as(inputs, into_f32) } else { evaluate_as(inputs, Matrix::into_f64) };
    Ok(to_json(&scores))
}

fn into_f32(matrix: Matrix) -> Array2<f32> {
    match matrix {
        Matrix::F32(matrix) => matrix,
        // Only called where all are single; narrowing is what it would mean otherwise.
        Matrix::F64(matrix) => matrix.mapv(|value| value as f32),
    }
}

/// Files of f32 alone are scored as they are; one of f64 makes all of them f64, so that nothing is rounded.
fn evaluate_as<T: Real>(inputs: Inputs, convert: fn(Matrix) -> Array2<T>) -> Scores {
    let truth = convert(inputs.truth);
    let [dictionary, features, latents, hidden, reconstruction] =
        [inputs.dictionary, inputs.features, inputs.latents, inputs.hidden, inputs.reconstruction]
            .map(|matrix| matrix.map(convert));
    fn view<T>(matrix: &Option<Array2<T>>) -> Option<ArrayView2<'_, T>> {
        matrix.as_ref().map(|matrix| matrix.view())
    }
    let arrays = Arrays {
        dictionary: view(&dictionary),
        features: view(&features).map(Into::into),
        latents: view(&latents).map(Into::into),
        hidden: view(&hidden),
        reconstruction: view(&reconstruction),
        parents: inputs.parents.as_ref(),
        ..Arrays::of_truth(truth.view())
    };
    evaluate(&arrays, None)
}

fn read_all(files: &ScoreFiles) -> Result<Inputs, InputError> {
    check_companions(files)?;
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_matrix).transpose();
    let truth = read_matrix(&files.truth)?;
    let (rows, columns) = truth.dim();
    if rows == 0 || columns == 0 {
        return Err(InputError::File { path: files.truth.clone(), problem: Problem::Empty(rows, columns) });
    }
    let inputs = Inputs {
        dictionary: read(&files.dictionary)?,
        features: read(&files.features)?,
        latents: read(&files.latents)?,
        hidden: read(&files.hidden)?,
        reconstruction: read(&files.reconstruction)?,
        parents: files.parents.as_deref().map(|path| parents::read(path, rows)).transpose()?,
        truth,
    };
    check_shapes(files, &inputs)?;
    Ok(inputs)
}

/// Arrays that only come into a score together.
fn check_companions(files: &ScoreFiles) -> Result<(), InputError> {
    let pairs = [
        ("hidden", &files.hidden, "reconstruction", &files.reconstruction),
        ("reconstruction", &files.reconstruction, "hidden", &files.hidden),
        ("parents", &files.parents, "dictionary", &files.dictionary),
        ("parents", &files.parents, "latents", &files.latents),
    ];
    match pairs.into_iter().find(|(_, one, _, other)| one.is_some() && other.is_none()) {
        Some((given, _, missing, _)) => Err(InputError::Alone { given, missing }),
        None => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Side {
    Rows,
    Columns,
}

fn check_shapes(files: &ScoreFiles, inputs: &Inputs) -> Result<(), InputError> {
    use Side::{Columns, Rows};
    let shaped = |path: &Option<PathBuf>, matrix: &Option<Matrix>| {
        path.as_ref().zip(matrix.as_ref()).map(|(path, matrix)| Shaped { path: path.clone(), shape: matrix.dim() })
    };
    let truth = Some(Shaped { path: files.truth.clone(), shape: inputs.truth.dim() });
    let dictionary = shaped(&files.dictionary, &inputs.dictionary);
    let features = shaped(&files.features, &inputs.features);
    let latents = shaped(&files.latents, &inputs.latents);
    let hidden = shaped(&files.hidden, &inputs.hidden);
    let reconstruction = shaped(&files.reconstruction, &inputs.reconstruction);
    let rules = [
        (
            &dictionary,
            Columns,
            &truth,
            Columns,
            "rows of the dictionary and of the truth must be equally long (d_hidden)",
        ),
        (&features, Columns, &truth, Rows, "features need a column for each row of the truth (n_features)"),
        (&latents, Columns, &dictionary, Rows, "latents need a column for each row of the dictionary (n_latents)"),
        (&latents, Rows, &features, Rows, "latents and features need the same samples as rows"),
        (&hidden, Columns, &truth, Columns, "hidden states and rows of the truth must be equally long (d_hidden)"),
        (
            &reconstruction,
            Columns,
            &hidden,
            Columns,
            "hidden states and reconstructions must be equally long (d_hidden)",
        ),
        (&reconstruction, Rows, &hidden, Rows, "hidden states and reconstructions need the same samples as rows"),
        (&hidden, Rows, &features, Rows, "hidden states and features need the same samples as rows"),
        (&hidden, Rows, &latents, Rows, "hidden states and latents need the same samples as rows"),
    ];
    let size = |shape: (usize, usize), side: Side| match side {
        Rows => shape.0,
        Columns => shape.1,
    };
    for (left, left_side, right, right_side, rule) in rules {
        if let (Some(left), Some(right)) = (left, right)
            && size(left.shape, left_side) != size(right.shape, right_side)
        {
            return Err(InputError::Shapes { left: left.clone(), right: right.clone(), rule });
        }
    }
    Ok(())
}

/// The layout that [`score_files`] describes.
pub fn to_json(scores: &Scores) -> Json {
    let mut json = Map::new();
    let number = |name: &str, value: f64| match name {
        "n_represented" | "dead" | "n_components" | "largest_component" => Json::from(value as u64),
        name if name.starts_with("census_") => Json::from(value as u64),
        _ => Json::from(value),
    };
    let scalars = scores.scalars.iter().map(|(definition, value)| {
        (definition.name.to_string(), value.map_or(Json::Null, |value| number(definition.name, value)))
    });
    json.insert("scores".into(), scalars.collect::<Map<_, _>>().into());
    let vectors = scores.vectors.iter().map(|(definition, vector)| {
        let list: Json = match vector {
            Vector::Numbers(numbers) => numbers.iter().copied().map(Json::from).collect(),
            Vector::Words(words) => words.iter().copied().map(Json::from).collect(),
        };
        (definition.name.to_string(), list)
    });
    json.insert("vectors".into(), vectors.collect::<Map<_, _>>().into());
    let tables = [("matching", &scores.matching), ("belongs_to", &scores.belongs_to)];
    for (name, table) in tables.into_iter().filter_map(|(name, table)| table.as_ref().map(|table| (name, table))) {
        json.insert(name.into(), table.iter().copied().map(Json::from).collect());
    }
    if let Some(sets) = &scores.sets {
        json.insert("sets".into(), sets.iter().map(|set| Json::from(set.clone())).collect());
    }
    let reasons = scores.scalars.iter().filter_map(|(definition, value)| {
        value.err().map(|undefined| (definition.name.to_string(), Json::from(undefined.0)))
    });
    let reasons: Map<_, _> = reasons.collect();
    if !reasons.is_empty() {
        json.insert("reasons".into(), reasons.into());
    }
    json.into()
}

#[cfg(test)]
mod tests;
