//! `tegum expect`: evaluate the gates again.

use std::path::PathBuf;

use super::{Outcome, print};
use crate::run::results::Results;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// Judge the rows that are there, also where cells are missing
    #[arg(long)]
    partial: bool,
}

pub fn carry_out(args: &Args) -> Outcome {
    let results = Results::open(&args.dir)?;
    if !args.partial {
        results.whole()?;
    }
    let (text, passed) = results.expectations()?;
    print(if text.is_empty() { "this experiment expects nothing\n" } else { &text })?;
    Ok(if passed { 0 } else { 8 })
}
