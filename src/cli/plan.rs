//! `tegum plan`: the cells, one line each.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Outcome, planned, print};
use crate::backend::cpu::PROFILE;
use crate::plan::AxisValue;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment
    file: PathBuf,
    /// Every cell, not only the first and last ten
    #[arg(long)]
    list: bool,
    /// Allow more than ten million cells
    #[arg(long)]
    yes_cells: Option<u64>,
}

pub fn carry_out(args: &Args) -> Outcome {
    let (plan, _) = planned(&args.file, PROFILE, args.yes_cells)?;
    let count = plan.cells.len();
    let mut text = String::new();
    for index in 0..count {
        if !args.list && count > 20 && (10..count - 10).contains(&index) {
            if index == 10 {
                let _ = writeln!(text, "... {} more, see --list", count - 20);
            }
            continue;
        }
        let cell = plan.cells[index];
        let _ = write!(text, "{index:>8} {}", plan.ids[index]);
        for column in &plan.columns {
            let value = plan.axis_value(column, cell);
            if value == AxisValue::Null {
                continue;
            }
            let _ = write!(text, " {}={value}", column.name);
        }
        let seed = plan.document.experiment.seeds[cell.seed as usize];
        let _ = write!(text, " seed={seed}");
        match plan.method_name(cell) {
            Some(method) => {
                let _ = writeln!(text, " method={method}");
            }
            None => text.push('\n'),
        }
        if text.len() > 1 << 16 {
            print(&text)?;
            text.clear();
        }
    }
    print(&text)?;
    Ok(0)
}
