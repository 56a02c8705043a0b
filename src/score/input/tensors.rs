//! One matrix of a `.safetensors` file. The crate checks the header (offsets, holes, overlaps, sizes); here are our limits,
//! the file's length, and names that occur twice.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use ndarray::Array2;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::de::IgnoredAny;

use super::entries::Entries;
use super::layout::NumberType;
use super::npy::numbers;
use super::{Matrix, Problem, shown};

const HEADER_LIMIT: u64 = 1 << 20;
const TENSOR_LIMIT: usize = 4096;

/// Reads the tensor `wanted` of a file of `length` bytes, or its only matrix; and its name.
///
/// # Errors
/// Where the file is no safetensors file within our limits, there is no such tensor, no matrix or several, or it is not
/// of f32 or f64.
pub fn read(file: impl Read + Seek, length: u64, wanted: Option<&str>) -> Result<(Matrix, String), Problem> {
    let mut file = BufReader::new(file);
    let (metadata, start) = read_header(&mut file, length)?;
    let name = choose(&metadata, wanted)?;
    let missing = || Problem::NoSuchTensor { wanted: name.clone(), names: metadata.offset_keys() };
    let info = metadata.info(&name).ok_or_else(missing)?;
    let &[rows, columns] = info.shape.as_slice() else { return Err(Problem::NotAMatrix(format!("{:?}", info.shape))) };
    file.seek(SeekFrom::Start(start + info.data_offsets.0 as u64))?;
    // The header was checked: rows · columns does not overflow, and its bytes lie inside the file.
    let (shape, count) = ((rows, columns), rows * columns);
    let wrong_shape = |error: ndarray::ShapeError| Problem::BadHeader(error.to_string());
    let matrix = match info.dtype {
        Dtype::F32 => {
            let values = numbers(&mut file, count, f32::from_le_bytes)?;
            Matrix::F32(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
        Dtype::F64 => {
            let values = numbers(&mut file, count, f64::from_le_bytes)?;
            Matrix::F64(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
        other => return Err(Problem::WrongType(format!("{other:?}"))),
    };
    Ok((matrix, name))
}

/// Shape, first byte, type and name of the tensor that [`read`] would read; half precision included.
///
/// # Errors
/// As [`read`].
pub fn layout(file: File, length: u64, wanted: Option<&str>) -> Result<((u64, u64), u64, NumberType, String), Problem> {
    let (metadata, start) = read_header(&mut BufReader::new(file), length)?;
    let name = choose(&metadata, wanted)?;
    let missing = || Problem::NoSuchTensor { wanted: name.clone(), names: metadata.offset_keys() };
    let info = metadata.info(&name).ok_or_else(missing)?;
    let &[rows, columns] = info.shape.as_slice() else { return Err(Problem::NotAMatrix(format!("{:?}", info.shape))) };
    let number = match info.dtype {
        Dtype::F16 => NumberType::F16,
        Dtype::BF16 => NumberType::BF16,
        Dtype::F32 => NumberType::F32,
        Dtype::F64 => NumberType::F64,
        other => return Err(Problem::WrongType(format!("{other:?}"))),
    };
    Ok(((rows as u64, columns as u64), start + info.data_offsets.0 as u64, number, name))
}

/// The checked header and where the data starts.
///
/// # Errors
/// Where it is none, or not within our limits.
pub fn read_header(file: &mut impl Read, length: u64) -> Result<(Metadata, u64), Problem> {
    let mut size = [0u8; 8];
    if length < 8 {
        return Err(Problem::WrongFormat(".safetensors"));
    }
    file.read_exact(&mut size)?;
    let header_length = u64::from_le_bytes(size);
    if header_length > HEADER_LIMIT {
        return Err(Problem::LongHeader { found: header_length, limit: HEADER_LIMIT });
    }
    let start = 8 + header_length;
    if start > length {
        return Err(Problem::WrongLength { promised: start, found: length });
    }
    // At most HEADER_LIMIT bytes.
    let mut header = vec![0u8; header_length as usize];
    file.read_exact(&mut header)?;
    let bad = |error: serde_json::Error| Problem::BadHeader(shown(&error.to_string(), 200));
    let Entries(entries) = serde_json::from_slice::<Entries<IgnoredAny>>(&header).map_err(bad)?;
    let tensors = entries.iter().filter(|(name, _)| name != "__metadata__").count();
    if tensors > TENSOR_LIMIT {
        return Err(Problem::ManyTensors { found: tensors, limit: TENSOR_LIMIT });
    }
    let metadata: Metadata = serde_json::from_slice(&header).map_err(bad)?;
    let promised = (metadata.data_len() as u64).checked_add(start);
    let promised = promised.ok_or_else(|| Problem::Overflow("of all tensors".into()))?;
    if promised != length {
        return Err(Problem::WrongLength { promised, found: length });
    }
    Ok((metadata, start))
}

fn choose(metadata: &Metadata, wanted: Option<&str>) -> Result<String, Problem> {
    if let Some(name) = wanted {
        return Ok(name.to_owned());
    }
    let names = metadata.offset_keys();
    let is_matrix = |name: &&String| metadata.info(name).is_some_and(|info| info.shape.len() == 2);
    let matrices: Vec<String> = names.iter().filter(is_matrix).cloned().collect();
    match matrices.as_slice() {
        [] => Err(Problem::NoMatrix(names)),
        [only] => Ok(only.clone()),
        _ => Err(Problem::SeveralMatrices(matrices)),
    }
}
