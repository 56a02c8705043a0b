//! `tegum world`: what the world of an experiment is like, and its files for SAELens.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Failure, Outcome, planned, print};
use crate::backend::cpu::PROFILE;
use crate::data::superposition::superposition;
use crate::data::synthetic_model::SyntheticModel;
use crate::plan::resolve;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment
    file: PathBuf,
    /// Number of the cell whose world it is, from 0, as `tegum plan --list` has them
    #[arg(long, default_value_t = 0)]
    cell: usize,
    /// Folder to write it to, as a synthetic model that SAELens loads
    #[arg(short)]
    output: Option<PathBuf>,
}

/// Percentiles of overlaps, as SAELens gives them.
const PERCENTILES: [f64; 2] = [95.0, 99.0];

pub fn carry_out(args: &Args) -> Outcome {
    let (plan, _) = planned(&args.file, PROFILE, None)?;
    if args.cell >= plan.cells.len() {
        let message = format!("cells run from 0 to {}, there is no {}", plan.cells.len() - 1, args.cell);
        return Err(Failure::new(2, message));
    }
    let cell = plan.cell(args.cell);
    let world = resolve::world(&cell.data, cell.seed);
    let dictionary = resolve::dictionary(&cell.data, cell.seed, &plan.document.folder());
    let dictionary = dictionary.transpose().map_err(|e| Failure::new(3, e))?;
    let mut text = format!("{} features, seed {}\n", world.n_features, cell.seed);
    let rates = world.marginal_probability();
    let _ = writeln!(text, "sum of firing probabilities: {:.4}", rates.iter().sum::<f64>());
    if let Some(found) = world.correlation.as_ref().and_then(|c| c.statistics()) {
        let _ = writeln!(text, "correlation: root mean square {:.4}, mean {:.4}", found.rms, found.mean);
    }
    if let Some(dictionary) = &dictionary
        && let Some(found) = superposition(&dictionary.vectors, dictionary.d_hidden, &PERCENTILES)
    {
        let [p95, p99] = [found.percentiles[0], found.percentiles[1]];
        let _ = writeln!(
            text,
            "directions in {} dimensions: mean greatest |cosine| {:.4}, mean 95th and 99th percentile {p95:.4} and {p99:.4}, mean {:.4}",
            dictionary.d_hidden, found.mean_max, found.mean
        );
    }
    if let Some(folder) = &args.output {
        let Some(dictionary) = &dictionary else {
            return Err(Failure::new(
                3,
                "a synthetic model has a dictionary, and this world has none: its toy model makes h",
            ));
        };
        let model = SyntheticModel::of_world(&world, dictionary, None).map_err(|e| Failure::new(3, e.to_string()))?;
        model.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        model.write(folder).map_err(|e| Failure::new(5, e.to_string()))?;
        let _ = writeln!(text, "wrote {}", folder.display());
    }
    print(&text)?;
    Ok(0)
}
