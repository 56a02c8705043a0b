//! `tegum check`: what an experiment would do.

use std::fmt::Write;
use std::path::PathBuf;

use super::run::memory;
use super::{Outcome, doubts, notice, planned, print};
use crate::backend::cpu::PROFILE;
use crate::plan::chunk::{SPEED, bytes, duration};
use crate::run::preflight::{self, Estimate, Limit};
use crate::run::{kept_weights, questions};
use crate::score::{Definition, definition};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment
    file: PathBuf,
    /// Refuse what is only a warning otherwise
    #[arg(long)]
    strict: bool,
    /// Allow more than ten million cells
    #[arg(long)]
    yes_cells: Option<u64>,
    /// Memory that a run may have, such as 64G, instead of what this machine has
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    max_mem: Option<f64>,
}

pub fn carry_out(args: &Args, quiet: bool) -> Outcome {
    let (plan, columns) = planned(&args.file, PROFILE, args.yes_cells)?;
    doubts(&plan, args.strict, false)?;
    questions::check(&plan, &columns)?;
    let estimate = Estimate::of(&plan, columns.len(), &kept_weights(&plan));
    preflight::memory(&plan, &estimate, Limit::of(args.max_mem))?;
    // Of what is refused there is nothing to look at.
    if !quiet {
        notice(&plan);
    }
    let experiment = &plan.document.experiment;
    let mut text = format!(
        "{}: {} cells in {} chunks, plan {}\n",
        experiment.name,
        plan.cells.len(),
        plan.chunks().len(),
        plan.hash()
    );
    for (axis, targets) in plan.document.axes.iter().zip(&plan.document.targets) {
        for (path, targets) in axis.paths.iter().zip(targets) {
            let first = path.values.first().map(crate::plan::canonical_text).unwrap_or_default();
            let last = path.values.last().map(crate::plan::canonical_text).unwrap_or_default();
            let replaces = targets
                .iter()
                .filter_map(|t| plan.document.written(t))
                .map(|place| format!(", replaces the value on line {}", place.line))
                .next()
                .unwrap_or_default();
            let line = path.place.line;
            let _ = writeln!(
                text,
                "  {} (line {line}): {} values, {first} to {last}{replaces}",
                path.path,
                path.values.len()
            );
        }
    }
    let _ = writeln!(text, "  seeds: {}", experiment.seeds.len());
    let methods: Vec<&str> = (experiment.sae.iter().map(|e| e.name.as_str()))
        .chain(experiment.baselines.iter().map(|e| e.name.as_str()))
        .collect();
    if !methods.is_empty() {
        let _ = writeln!(text, "  methods: {}", methods.join(", "));
    }
    // Those of two cells are no columns of the rows on disk.
    let across = |name: &&str| definition(name).is_some_and(Definition::is_across_cells);
    let asked = experiment.score.iter().flat_map(|score| &score.names).map(String::as_str).filter(across);
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).chain(asked).collect();
    let _ = writeln!(text, "  scores: {}", names.join(", "));
    if let (Some(first), Some(last)) = (plan.ids.first(), plan.ids.last()) {
        let _ = writeln!(text, "  first cell {first}, last {last}");
    }
    text.push_str(&estimates(&estimate));
    print(&text)?;
    Ok(0)
}

fn estimates(estimate: &Estimate) -> String {
    let cores = rayon::current_num_threads() as f64;
    format!(
        "estimates, rough: {} on {cores} cores, {} of memory, {} of disk\n",
        duration(estimate.work / SPEED / cores),
        bytes(1e8 + estimate.memory * cores),
        bytes(estimate.disk)
    )
}
