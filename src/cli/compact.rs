//! `tegum compact`: the rows of a run in fewer, larger files.

use std::path::PathBuf;

use super::{Outcome, print};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// Rows that a file may have; parts of half as many are left as they are
    #[arg(long, value_name = "ROWS", default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(2..=1 << 20))]
    rows: u32,
}

/// Any run, finished or not, also while others write to it: only where rows stand changes.
pub fn carry_out(args: &Args) -> Outcome {
    let done = Store::open(&args.dir)?.compact(args.rows as usize)?;
    let dir = args.dir.display();
    print(&match done.removed {
        0 => format!("{dir}: {} parts, nothing to merge\n", done.before),
        _ => format!("{dir}: {} parts became {}\n", done.before, done.after),
    })?;
    Ok(0)
}
