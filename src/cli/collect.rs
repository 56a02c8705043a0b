//! `tegum collect`: all rows of a run in one file, from one directory or several.

use std::path::PathBuf;

use super::{Failure, Outcome, print};
use crate::run::results::Results;
use crate::store::{Past, Store};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory; what the others hold is copied into it first
    dir: PathBuf,
    /// Directories of other machines that computed parts of the same experiment
    others: Vec<PathBuf>,
    /// Also where cells are missing; the manifest names their chunks
    #[arg(long)]
    partial: bool,
}

pub fn carry_out(args: &Args) -> Outcome {
    let (mut text, mut damaged) = (String::new(), 0);
    let store = Store::open(&args.dir)?;
    let experiment = store.current_plan()?.experiment;
    for dir in &args.others {
        let past = Past::of(dir)?;
        past.refuse_damaged()?;
        if let Some(theirs) = past.other_experiment(&experiment) {
            let dir = dir.display();
            return Err(Failure::new(3, format!("{dir} holds a run of `{theirs}`, not of `{experiment}`")));
        }
        let absorbed = store.absorb(&Store::open(dir)?)?;
        damaged += absorbed.damaged;
        text += &format!("{}: {} files copied, {} were here", dir.display(), absorbed.copied, absorbed.there);
        text += &if absorbed.damaged > 0 { format!(", {} damaged\n", absorbed.damaged) } else { "\n".into() };
    }
    let collected = Results::open(&args.dir)?.collect(args.partial)?;
    text += &format!("{}: {} rows, hash {}\n", collected.path.display(), collected.rows, collected.logical_hash);
    if !collected.missing_chunks.is_empty() {
        text += &format!("{} chunks have cells without a row\n", collected.missing_chunks.len());
    }
    print(&text)?;
    Ok(if damaged > 0 { 6 } else { 0 })
}
