//! `tegum export`: weights of a cell for other tools.
//!
//! Weights that the run did not keep are trained again: the same cell gives the same bits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, TensorView};

use super::{Failure, Outcome, print};
use crate::backend::cpu::CpuBackend;
use crate::plan::CellId;
use crate::progress::Progress;
use crate::run::chunk::Bench;
use crate::run::columns::score_columns;
use crate::run::results::Results;
use crate::spec::output::TraceSection;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// The cell, by its id or the first digits of it
    #[arg(long)]
    cell: String,
    #[arg(long, value_enum, default_value_t = Target::Safetensors)]
    to: Target,
    /// File (safetensors) or folder (npy); defaults to the cell's id in the current folder
    #[arg(short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// One file with every tensor
    Safetensors,
    /// A folder with one .npy file for each tensor
    Npy,
}

pub fn carry_out(args: &Args) -> Outcome {
    let results = Results::open(&args.dir)?;
    let (index, id) = find(&results, &args.cell)?;
    let tensors = match saved(&results, id)? {
        Some(tensors) => tensors,
        None => trained_again(&results, index)?,
    };
    if tensors.is_empty() {
        return Err(Failure::new(3, format!("cell {id} has no weights: its training diverged")));
    }
    let path = match (&args.output, args.to) {
        (Some(path), _) => path.clone(),
        (None, Target::Safetensors) => PathBuf::from(format!("{id}.safetensors")),
        (None, Target::Npy) => PathBuf::from(id.to_string()),
    };
    match args.to {
        Target::Safetensors => write_safetensors(&path, &tensors)?,
        Target::Npy => write_npy(&path, &tensors)?,
    }
    let shapes: Vec<String> = tensors.iter().map(|(name, t)| format!("{name} {:?}", t.shape())).collect();
    print(&format!("wrote {}: {}\n", path.display(), shapes.join(", ")))?;
    Ok(0)
}

type Tensors = BTreeMap<String, ArrayD<f32>>;

fn find(results: &Results, text: &str) -> Result<(usize, CellId), Failure> {
    let Some(plan) = &results.plan else {
        return Err(Failure::new(
            3,
            "the plan of this run cannot be laid out again: another version of tegum computed it, or its input file is gone",
        ));
    };
    let wanted = text.to_lowercase();
    let mut matching = plan.ids.iter().enumerate().filter(|(_, id)| id.to_string().starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some((index, id)), None) => Ok((index, *id)),
        (Some(_), Some(_)) => Err(Failure::new(3, format!("several cells begin with {text}; give more digits"))),
        (None, _) => Err(Failure::new(3, format!("no cell {text}; `tegum table DIR --select cell` lists them"))),
    }
}

fn saved(results: &Results, id: CellId) -> Result<Option<Tensors>, Failure> {
    if results.store.cells_with_weights()?.binary_search(&id).is_err() {
        return Ok(None);
    }
    let mut tensors = Tensors::new();
    for tensor in results.store.weights(id)? {
        let array = ArrayD::from_shape_vec(tensor.shape, tensor.values);
        let array = array.map_err(|e| Failure::new(6, format!("weights of {id}, {}: {e}", tensor.name)))?;
        tensors.insert(tensor.name, array);
    }
    Ok(Some(tensors))
}

fn trained_again(results: &Results, index: usize) -> Result<Tensors, Failure> {
    let Some(plan) = &results.plan else { return Ok(Tensors::new()) };
    tracing::info!("the run kept no weights of this cell; it is trained again");
    let columns = score_columns(&results.document)?;
    let watch = Progress::new(true);
    let trace = TraceSection { every: 0, features: false };
    let bench = Bench { plan, columns: &columns, backend: &CpuBackend, watch: &watch, trace: &trace, keeper: None };
    let records = bench.compute(&[index]).map_err(|e| Failure::new(3, e))?;
    Ok(records.into_iter().flatten().flat_map(|r| r.tensors).collect())
}

fn write_safetensors(path: &Path, tensors: &Tensors) -> Result<(), Failure> {
    let fail = |e: String| Failure::new(5, format!("{}: {e}", path.display()));
    let flat: Vec<(String, Vec<usize>, Vec<f32>)> =
        tensors.iter().map(|(name, t)| (name.clone(), t.shape().to_vec(), t.iter().copied().collect())).collect();
    let mut views = Vec::new();
    for (name, shape, values) in &flat {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values));
        views.push((name.as_str(), view.map_err(|e| fail(e.to_string()))?));
    }
    let bytes = safetensors::serialize(views, None).map_err(|e| fail(e.to_string()))?;
    std::fs::write(path, bytes).map_err(|e| fail(e.to_string()))
}

fn write_npy(folder: &Path, tensors: &Tensors) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::new(5, format!("{}: {e}", folder.display())))?;
    for (name, tensor) in tensors {
        let path = folder.join(format!("{name}.npy"));
        ndarray_npy::write_npy(&path, tensor).map_err(|e| Failure::new(5, format!("{}: {e}", path.display())))?;
    }
    Ok(())
}
