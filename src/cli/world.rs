//! `tegum world`: what the world of an experiment is like, and its files for SAELens.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Failure, Outcome, planned, print, warn};
use crate::backend::cpu::PROFILE;
use crate::data::superposition::superposition;
use crate::data::synthetic_model::SyntheticModel;
use crate::data::{Magnitude, World};
use crate::plan::resolve;
use crate::spec::data::MagnitudeSection;

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
    /// CSV file to write its features to: own probability, rate, mean and standard deviation of the magnitude, parent
    #[arg(long)]
    features: Option<PathBuf>,
    /// Allow more than ten million cells
    #[arg(long)]
    yes_cells: Option<u64>,
}

/// Percentiles of overlaps, as SAELens gives them.
const PERCENTILES: [f64; 2] = [95.0, 99.0];

pub fn carry_out(args: &Args) -> Outcome {
    let (plan, _) = planned(&args.file, PROFILE, args.yes_cells)?;
    if args.cell >= plan.cells.len() {
        let message = format!("cells run from 0 to {}, there is no {}", plan.cells.len() - 1, args.cell);
        return Err(Failure::new(2, message));
    }
    let cell = plan.cell(args.cell);
    plan.doubt_of_correlation(args.cell).into_iter().for_each(|doubt| warn(&plan, doubt));
    let world = resolve::world(&cell.data, cell.seed, &plan.files).map_err(|e| Failure::new(3, e))?;
    let dictionary = resolve::dictionary(&cell.data, cell.seed, &plan.files);
    let dictionary = dictionary.transpose().map_err(|e| Failure::new(3, e))?;
    let mut text = format!("{} features, seed {}\n", world.n_features, cell.seed);
    let rates = world.marginal_probability();
    let _ = writeln!(text, "features that fire in a sample: {:.4}", rates.iter().sum::<f64>());
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
    if let Some(path) = &args.features {
        std::fs::write(path, features(&world, &rates))
            .map_err(|e| Failure::new(5, format!("{}: {e}", path.display())))?;
        let _ = writeln!(text, "wrote {}", path.display());
    }
    if let Some(folder) = &args.output {
        let model = match (&cell.data.synthetic_model, &dictionary) {
            // As it is: its laws are known, and those of drawn magnitudes cannot be found again in their numbers.
            (Some(name), _) => plan.files.model(name).map_err(|e| Failure::new(3, e))?,
            (None, Some(dictionary)) => {
                let curves = match &cell.data.magnitude {
                    MagnitudeSection::Normal(s) => [&s.mean, &s.std].map(|curve| Some(resolve::curve(curve))),
                    _ => [None, None],
                };
                let curves = curves.each_ref().map(Option::as_ref);
                let model = SyntheticModel::of_drawn_world(&world, dictionary, curves);
                model.map_err(|e| Failure::new(3, e.to_string()))?
            }
            (None, None) => {
                let message = "a synthetic model has a dictionary, and this world has none: its toy model makes h";
                return Err(Failure::new(3, message));
            }
        };
        model.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        model.write(folder).map_err(|e| Failure::new(5, e.to_string()))?;
        let _ = writeln!(text, "wrote {}", folder.display());
    }
    print(&text)?;
    Ok(0)
}

/// A line for each feature; what a law does not have is left empty.
fn features(world: &World, rates: &[f64]) -> String {
    let mut text = "feature,own_probability,rate,mean,std,parent\n".to_owned();
    let parents = world.hierarchy.as_ref().map(|hierarchy| hierarchy.parents()).unwrap_or_default();
    for (i, (own, rate)) in world.firing_probability.iter().zip(rates).enumerate() {
        let (mean, std) = match &world.magnitude {
            Magnitude::Constant(values) => (Some(values[i]), Some(0.0)),
            Magnitude::Normal { mean, std } | Magnitude::FoldedNormal { mean, std } => (Some(mean[i]), Some(std[i])),
            Magnitude::Exponential { mean } => (Some(mean[i]), None),
            Magnitude::Uniform { .. } | Magnitude::Symmetric(_) => (None, None),
        };
        let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
        let parent = parents.get(&i).map_or(String::new(), usize::to_string);
        let _ = writeln!(text, "{i},{own},{rate},{},{},{parent}", number(mean), number(std));
    }
    text
}
