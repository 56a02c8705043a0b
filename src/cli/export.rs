//! `tegum export`: weights of a cell for other tools.
//!
//! Weights that the run did not keep are trained again: the same cell gives the same bits.

use std::path::{Path, PathBuf};

use ndarray::ArrayD;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use super::saelens::{self, Tensors};
use super::{Failure, Outcome, print};
use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::plan::{CellId, CellMethod, resolve};
use crate::progress::Progress;
use crate::run::RunError;
use crate::run::chunk::{Bench, BenchError};
use crate::run::columns::score_columns;
use crate::run::results::Results;
use crate::sae::{Coder, Sae};
use crate::score::input::read_matrix;
use crate::spec::output::{TraceSection, WeightsSection};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// The cell, by its id or the first digits of it
    #[arg(long)]
    cell: String,
    #[arg(long, value_enum, default_value_t = Target::Safetensors)]
    to: Target,
    /// Also write `latents` and `reconstruction` of these hidden states [samples, d] (.npy or .safetensors), by the weights
    /// that are written
    #[arg(long)]
    encode: Option<PathBuf>,
    /// File (safetensors) or folder (npy, saelens); defaults to the cell's id in the current folder
    #[arg(short)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// One file with every tensor
    Safetensors,
    /// A folder with one .npy file for each tensor
    Npy,
    /// A folder that SAELens loads: cfg.json and sae_weights.safetensors
    Saelens,
}

pub fn carry_out(args: &Args) -> Outcome {
    let results = Results::open(&args.dir)?;
    let (index, id) = find(&results, &args.cell)?;
    let mut tensors = match saved(&results, id)? {
        Some(tensors) => tensors,
        None => trained_again(&results, index)?,
    };
    if tensors.is_empty() {
        return Err(Failure::new(3, format!("cell {id} has no weights: its training diverged")));
    }
    let codes = args.encode.as_deref().map(|hidden| encoded(&results, index, &tensors, hidden)).transpose()?;
    let path = match (&args.output, args.to) {
        (Some(path), _) => path.clone(),
        (None, Target::Safetensors) => PathBuf::from(format!("{id}.safetensors")),
        (None, Target::Npy | Target::Saelens) => PathBuf::from(id.to_string()),
    };
    if args.to != Target::Saelens {
        tensors.extend(codes.clone().unwrap_or_default());
    }
    match args.to {
        Target::Safetensors => write_safetensors(&path, &tensors)?,
        Target::Npy => write_npy(&path, &tensors)?,
        Target::Saelens => {
            let architecture = write_saelens(&path, &results, index, id, &tensors)?;
            if let Some(codes) = &codes {
                write_safetensors(&path.join("codes.safetensors"), codes)?;
            }
            print(&format!("wrote {}: {architecture}\n", path.display()))?;
            return Ok(0);
        }
    }
    let shapes: Vec<String> = tensors.iter().map(|(name, t)| format!("{name} {:?}", t.shape())).collect();
    print(&format!("wrote {}: {}\n", path.display(), shapes.join(", ")))?;
    Ok(0)
}

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
    tracing::info!("the run kept no weights of this cell; it is trained again");
    let profile = results.store.current_plan()?.profile;
    if profile != CpuBackend.profile() {
        tracing::warn!("the rows are of {profile}, these weights of {}: alike, not equal", CpuBackend.profile());
    }
    let records = with_bench(results, |bench| bench.compute(&[index]))?;
    Ok(records.into_iter().flatten().flat_map(|r| r.tensors).collect())
}

/// `latents` and `reconstruction` of the hidden states in a file, by what `tensors` make.
fn encoded(results: &Results, index: usize, tensors: &Tensors, hidden: &Path) -> Result<Tensors, Failure> {
    let h = read_matrix(hidden).map_err(|e| Failure::new(3, e.to_string()))?.into_f32();
    let coder = coder(results, index, tensors)?;
    if coder.needs_truth() {
        return Err(Failure::new(3, "this oracle reads the true activations too: hidden states alone give no latents"));
    }
    if h.ncols() != coder.d_hidden() {
        let (found, wanted) = (h.ncols(), coder.d_hidden());
        return Err(Failure::new(3, format!("{}: rows of {found}, expected d_hidden = {wanted}", hidden.display())));
    }
    let latents = coder.encode(h.view());
    let reconstruction = coder.decode(latents.view(), h.view());
    Ok([("latents".to_owned(), latents.into_dyn()), ("reconstruction".to_owned(), reconstruction.into_dyn())].into())
}

/// An autoencoder of its tensors; a baseline as it is found again, where that gives the same tensors. On a run of another backend it
/// may not: the hidden states that it learns from are a toy model's, whose training is alike there, not equal.
fn coder(results: &Results, index: usize, tensors: &Tensors) -> Result<Box<dyn Coder>, Failure> {
    let plan = results.plan.as_ref().ok_or_else(|| Failure::new(3, "the plan of this run cannot be laid out again"))?;
    let tensor = |name: &str| tensors.get(&format!("sae.{name}")).cloned();
    let cell = plan.cell(index);
    if let CellMethod::Sae(kind, train) = &cell.method {
        let job = resolve::sae_job(kind, train, cell.d_hidden(), cell.seed, 0);
        let sae = Sae::of_tensors(&job.architecture.program(), job.train.batch_size, &tensor);
        let sae = sae.ok_or_else(|| Failure::new(6, "the weights of this cell are not those of its autoencoder"))?;
        return Ok(Box::new(sae.with_inputs(job.train.normalise)));
    }
    let Some(coder) = with_bench(results, |bench| bench.coder(index))? else {
        return Err(Failure::new(3, "this cell has no autoencoder and no baseline, or its training did not end"));
    };
    let found = coder.tensors();
    if !found.is_empty() && found.into_iter().all(|(name, found)| tensor(name).as_ref() == Some(&found)) {
        return Ok(coder);
    }
    let message = "the run kept other weights of this baseline than are found here again, so that latents would not be theirs; \
                   leave --encode out, and encode with the tensors that are written";
    Err(Failure::new(3, message))
}

fn with_bench<T>(results: &Results, work: impl FnOnce(&Bench) -> Result<T, BenchError>) -> Result<T, Failure> {
    let plan = results.plan.as_ref().ok_or_else(|| Failure::new(3, "the plan of this run cannot be laid out again"))?;
    let columns = score_columns(&results.document)?;
    let watch = Progress::new(true);
    let trace = TraceSection { every: 0, features: false };
    let given = crate::run::given::open(&results.document)?;
    let keep = WeightsSection::All;
    let backend = &CpuBackend;
    let (trace, keep) = (&trace, &keep);
    let bench = Bench { plan, columns: &columns, backend, watch: &watch, trace, keep, given, keeper: None };
    work(&bench).map_err(|e| Failure::from(RunError::from(e)))
}

/// Writes the folder; returns the architecture it has there.
fn write_saelens(
    folder: &Path,
    results: &Results,
    index: usize,
    id: CellId,
    tensors: &Tensors,
) -> Result<&'static str, Failure> {
    let plan = results.plan.as_ref().ok_or_else(|| Failure::new(3, "the plan of this run cannot be laid out again"))?;
    let CellMethod::Sae(kind, train) = &plan.cell(index).method else {
        let message = format!("cell {id} is no sparse autoencoder: --to safetensors and --to npy take anything");
        return Err(Failure::new(3, message));
    };
    let form = saelens::Rule::of(kind)
        .and_then(|rule| saelens::form(rule, saelens::normalisation(&train.normalise), tensors))
        .map_err(|e| Failure::new(3, format!("cell {id}: {e}")))?;
    let origin = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "experiment": results.document.experiment.name,
        "cell": id.to_string(),
        "method": plan.method_name(plan.cells[index]),
        "seed": plan.cell(index).seed,
    });
    let write = |path: &Path, tensors: &Tensors| write_safetensors(path, tensors).map_err(|e| e.message);
    form.write(folder, &origin, write).map_err(|e| Failure::new(5, e))?;
    Ok(form.architecture)
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
