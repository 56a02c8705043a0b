//! Trained weights: safetensors files, one per chunk or fewer, tensors named `<cell>.<name>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::Store;
use super::error::StoreError;
use super::fs::files_below;
use super::part::PartName;
use super::writing::Companion;
use crate::plan::CellId;

/// Folder of the weights.
pub const WEIGHTS: &str = "weights";

/// A header larger than this is no file of ours: 64 MiB name about half a million tensors.
const LARGEST_HEADER: u64 = 64 << 20;

/// A tensor to be saved.
#[derive(Clone, Debug)]
pub struct WeightTensor<'a> {
    pub cell: CellId,
    /// For example `toy.w` or `sae.decoder`.
    pub name: &'a str,
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: &'a [f32],
}

/// A tensor read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// The bytes of a safetensors file, the same for the same tensors in any order.
///
/// # Errors
/// A shape that is not that of its values, or a name used twice for one cell.
pub fn encode_weights(tensors: &[WeightTensor]) -> Result<Vec<u8>, StoreError> {
    let wrong = |name: &str, reason: String| StoreError::WrongShape { reason: format!("weights {name}: {reason}") };
    let mut views = BTreeMap::new();
    for tensor in tensors {
        let name = format!("{}.{}", tensor.cell, tensor.name);
        let bytes: &[u8] = bytemuck::cast_slice(tensor.values);
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes);
        let view = view.map_err(|error| wrong(&name, error.to_string()))?;
        if views.insert(name.clone(), view).is_some() {
            return Err(wrong(&name, "given twice".into()));
        }
    }
    safetensors::serialize(views, None).map_err(|error| wrong("of a chunk", error.to_string()))
}

impl Store {
    /// Publishes weights apart from rows, for example those of the best seed once all seeds are known.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn add_weights(&self, chunk: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.publish_companion(&Companion::of_weights(chunk, true, bytes))
    }

    /// The cells whose weights are saved, sorted.
    ///
    /// # Errors
    /// An unreadable directory or file.
    pub fn cells_with_weights(&self) -> Result<Vec<CellId>, StoreError> {
        let mut cells = Vec::new();
        for path in self.weight_files()? {
            let names = self.tensor_names(&path)?;
            cells.extend(names.iter().filter_map(|name| name.split_once('.')?.0.parse::<CellId>().ok()));
        }
        cells.sort();
        cells.dedup();
        Ok(cells)
    }

    /// The weights of a cell, sorted by name.
    ///
    /// # Errors
    /// None saved; an unreadable or damaged file.
    pub fn weights(&self, cell: CellId) -> Result<Vec<Tensor>, StoreError> {
        let prefix = format!("{cell}.");
        for path in self.weight_files()? {
            if self.tensor_names(&path)?.iter().any(|name| name.starts_with(&prefix)) {
                let mut tensors = self.read_weights(&path, |name| name.starts_with(&prefix))?;
                tensors.iter_mut().for_each(|tensor| tensor.name.drain(..prefix.len()).for_each(drop));
                return Ok(tensors);
            }
        }
        Err(StoreError::NoWeights { cell, path: self.dir.clone() })
    }

    /// One tensor of each of some cells, those of them that are saved; every file is read once at most.
    ///
    /// # Errors
    /// An unreadable or damaged file.
    pub fn tensors_of(&self, cells: &BTreeSet<CellId>, name: &str) -> Result<BTreeMap<CellId, Tensor>, StoreError> {
        let mut found = BTreeMap::new();
        let wanted = |full: &str| {
            let (cell, own) = full.split_once('.')?;
            (own == name).then(|| cell.parse::<CellId>().ok()).flatten().filter(|cell| cells.contains(cell))
        };
        for path in self.weight_files()? {
            if self.tensor_names(&path)?.iter().any(|full| wanted(full).is_some()) {
                let of_cells = self.read_weights(&path, |full| wanted(full).is_some())?;
                found.extend(of_cells.into_iter().filter_map(|tensor| Some((wanted(&tensor.name)?, tensor))));
            }
        }
        Ok(found)
    }

    fn weight_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let root = self.dir.join(WEIGHTS);
        let mut paths = files_below(&*self.disk.files, &root).map_err(StoreError::io("list", &root))?;
        paths.retain(|path| name_of(path).is_some());
        Ok(paths)
    }

    /// The names in a file's header, which is read alone: the tensors may be large. Nothing is believed of a file whose
    /// header cannot be read; `verify` reports it.
    fn tensor_names(&self, path: &Path) -> Result<Vec<String>, StoreError> {
        let files = &*self.disk.files;
        let length = files.read_start(path, 8).map_err(StoreError::io("read", path))?;
        let Ok(length) = <[u8; 8]>::try_from(length.as_slice()) else { return Ok(Vec::new()) };
        let length = u64::from_le_bytes(length);
        if length > LARGEST_HEADER {
            return Ok(Vec::new());
        }
        let start = files.read_start(path, 8 + length).map_err(StoreError::io("read", path))?;
        let header = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&start[8.min(start.len())..]);
        Ok(header.map_or_else(|_| Vec::new(), |header| header.into_keys().collect()))
    }

    /// Those of a file's tensors that are wanted, sorted by name.
    fn read_weights(&self, path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Tensor>, StoreError> {
        let damaged = |reason: String| StoreError::Damaged { path: path.to_path_buf(), reason };
        let bytes = self.disk.files.read(path).map_err(StoreError::io("read", path))?;
        let name = name_of(path).ok_or_else(|| damaged("its name is not one of the store's".into()))?;
        if !self.disk.fits(&name, &bytes) {
            return Err(damaged("its bytes do not hash to its name".into()));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut tensors = Vec::new();
        for (name, view) in file.iter().filter(|(name, _)| wanted(name)) {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("tensor {name} is of {:?}, not F32", view.dtype())));
            }
            let values =
                view.data().chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            tensors.push(Tensor { name: name.into(), shape: view.shape().to_vec(), values: values.collect() });
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tensors)
    }
}

fn name_of(path: &Path) -> Option<PartName> {
    PartName::parse(&path.file_name()?.to_string_lossy(), "safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ChunkResult;
    use crate::store::testing::{cell, plan, row, store_of};

    fn tensor(index: u64, name: &str, values: &'static [f32]) -> WeightTensor<'static> {
        let name = Box::leak(name.to_string().into_boxed_str());
        WeightTensor { cell: cell(index), name, shape: vec![1, values.len()], values }
    }

    #[test]
    fn weights_come_back_by_cell_in_the_order_of_their_names() {
        let (_folder, store) = store_of(&plan(4, 2));
        let tensors = [tensor(0, "w", &[1.0, -2.5]), tensor(0, "b", &[0.5]), tensor(1, "w", &[3.0])];
        let bytes = encode_weights(&tensors).expect("encodes");
        let backwards: Vec<WeightTensor> = tensors.iter().rev().cloned().collect();
        assert_eq!(encode_weights(&backwards).expect("encodes"), bytes);
        let rows = vec![row(0), row(1)];
        store.publish(&ChunkResult { chunk: 0, rows, side: vec![], weights: Some(bytes) }).expect("publishes");
        store.add_weights(1, &encode_weights(&[tensor(2, "w", &[7.0])]).expect("encodes")).expect("publishes");
        assert_eq!(store.cells_with_weights().expect("three"), [cell(0), cell(1), cell(2)]);
        let read = store.weights(cell(0)).expect("saved");
        let expected = [
            Tensor { name: "b".into(), shape: vec![1, 1], values: vec![0.5] },
            Tensor { name: "w".into(), shape: vec![1, 2], values: vec![1.0, -2.5] },
        ];
        assert_eq!(read, expected);
        assert!(matches!(store.weights(cell(3)), Err(StoreError::NoWeights { .. })));
    }

    #[test]
    fn one_tensor_of_many_cells_is_read_from_all_files() {
        let (_folder, store) = store_of(&plan(4, 2));
        let tensors = [tensor(0, "w", &[1.0]), tensor(0, "b", &[0.5]), tensor(1, "w", &[3.0])];
        store.add_weights(0, &encode_weights(&tensors).expect("encodes")).expect("publishes");
        store.add_weights(1, &encode_weights(&[tensor(2, "w", &[7.0])]).expect("encodes")).expect("publishes");
        let found = store.tensors_of(&[cell(0), cell(2), cell(3)].into(), "w").expect("reads");
        let values: Vec<_> = found.iter().map(|(cell, tensor)| (*cell, tensor.values[0])).collect();
        assert_eq!(values, [(cell(0), 1.0), (cell(2), 7.0)]);
    }

    #[test]
    fn damaged_weights_are_never_returned() {
        let (_folder, store) = store_of(&plan(4, 2));
        store.add_weights(0, &encode_weights(&[tensor(0, "w", &[1.0, 2.0])]).expect("encodes")).expect("publishes");
        let path = store.weight_files().expect("one").remove(0);
        let bytes = std::fs::read(&path).expect("readable");
        for at in (0..bytes.len()).step_by(5) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1;
            std::fs::write(&path, &rotten).expect("writable");
            // A flip in the header's names may hide the cell; anywhere else it is noticed.
            let error = store.weights(cell(0)).expect_err("damaged");
            assert!(matches!(error, StoreError::Damaged { .. } | StoreError::NoWeights { .. }), "byte {at}: {error}");
            assert_eq!(store.verify().expect("reports").quarantined.len(), 1, "byte {at}");
        }
        for length in (0..bytes.len()).step_by(11) {
            std::fs::write(&path, &bytes[..length]).expect("writable");
            assert!(store.weights(cell(0)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_wrong_shape_or_a_name_used_twice_is_refused() {
        let wrong = WeightTensor { shape: vec![3], ..tensor(0, "w", &[1.0]) };
        assert!(encode_weights(&[wrong]).is_err());
        assert!(encode_weights(&[tensor(0, "w", &[1.0]), tensor(0, "w", &[2.0])]).is_err());
    }
}
