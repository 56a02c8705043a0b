//! `tegum check`: what an experiment would do.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Outcome, doubts, planned, print};
use crate::backend::cpu::PROFILE;
use crate::plan::Plan;
use crate::plan::chunk::{SPEED, bytes, duration};
use crate::run::questions;
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
}

pub fn carry_out(args: &Args) -> Outcome {
    let (plan, columns) = planned(&args.file, PROFILE, args.yes_cells)?;
    doubts(&plan, args.strict, false)?;
    questions::check(&plan, &columns)?;
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
    text.push_str(&estimates(&plan, columns.len()));
    print(&text)?;
    Ok(0)
}

fn estimates(plan: &Plan, columns: usize) -> String {
    let mut work = 0.0;
    let mut memory = 0.0f64;
    let mut side_rows = 0.0;
    let step = (plan.cells.len() / 100_000).max(1);
    for index in (0..plan.cells.len()).step_by(step) {
        let (stem, own) = plan.work(index);
        let new_stem = index == 0 || !plan.same_stem(index - 1, index);
        work += (own + if new_stem { stem } else { 0.0 }) * step as f64;
        memory = memory.max(plan.memory(index));
        let snapshots = plan.snapshot_rows_of(index) as f64;
        let samples = plan.facts(plan.cells[index])[0].dataset as f64;
        side_rows += (snapshots + if plan.document.experiment.save.samples { samples } else { 0.0 }) * step as f64;
    }
    let cores = rayon::current_num_threads() as f64;
    let rows = plan.cells.len() as f64 * (200.0 + 9.0 * columns as f64);
    let features: f64 = if plan.document.experiment.save.features {
        plan.cells.len() as f64 * 40.0 * plan.document.experiment.data.n_features as f64
    } else {
        0.0
    };
    format!(
        "estimates, rough: {} on {cores} cores, {} of memory, {} of disk\n",
        duration(work / SPEED / cores),
        bytes(1e8 + memory * cores),
        bytes(rows + features + 30.0 * side_rows)
    )
}
