//! Where the numbers of a matrix file lie, without reading them: for files too large for memory.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{InputError, Problem, npy, open, split_tensor_name, tensors};

/// How one number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// Single.
    F32,
    /// Double.
    F64,
}

impl NumberType {
    /// Bytes of a number.
    pub fn size(self) -> u64 {
        match self {
            NumberType::F16 | NumberType::BF16 => 2,
            NumberType::F32 => 4,
            NumberType::F64 => 8,
        }
    }
}

/// A matrix in a file whose header was checked: every number it promises is there.
#[derive(Debug)]
pub struct MatrixLayout {
    /// Open for reading.
    pub file: File,
    /// Without the name of a tensor.
    pub path: PathBuf,
    /// Its name, in a `.safetensors` file.
    pub tensor: Option<String>,
    /// Rows and columns, both at least 1.
    pub shape: (u64, u64),
    /// Byte of the file where the numbers start.
    pub start: u64,
    /// Type of each number.
    pub number: NumberType,
    /// High byte first.
    pub big_endian: bool,
    /// Column after column, where otherwise row follows row.
    pub fortran_order: bool,
}

/// The layout of the matrix in a `.npy` file, or in `FILE.safetensors` or `FILE.safetensors:NAME`.
///
/// # Errors
/// Where the header is not that of a matrix of float16, bfloat16, float32 or float64, or its claims do not fit the file.
pub fn matrix_layout(path: &Path) -> Result<MatrixLayout, InputError> {
    let wrong = |problem| InputError::File { path: path.to_owned(), problem };
    let (file_path, tensor) = split_tensor_name(path);
    layout_of(&file_path, tensor.as_deref()).map_err(wrong)
}

/// The same for a tensor of a file.
///
/// # Errors
/// As [`matrix_layout`].
pub fn layout_of(file_path: &Path, tensor: Option<&str>) -> Result<MatrixLayout, Problem> {
    let (file, length) = open(file_path)?;
    let copy = file.try_clone()?;
    let path = file_path.to_owned();
    let layout = match (file_path.extension().and_then(|extension| extension.to_str()), tensor) {
        (Some("npy"), None) => {
            let npy::Layout { shape, start, number, big_endian, fortran_order } = npy::layout(copy, length)?;
            MatrixLayout { file, path, tensor: None, shape, start, number, big_endian, fortran_order }
        }
        (Some("safetensors"), name) => {
            let (shape, start, number, name) = tensors::layout(copy, length, name)?;
            let (big_endian, fortran_order, tensor) = (false, false, Some(name));
            MatrixLayout { file, path, tensor, shape, start, number, big_endian, fortran_order }
        }
        _ => return Err(Problem::UnknownFormat),
    };
    match layout.shape {
        (rows, columns) if rows == 0 || columns == 0 => Err(Problem::Empty(rows as usize, columns as usize)),
        _ => Ok(layout),
    }
}
