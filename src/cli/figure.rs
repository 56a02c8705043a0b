//! `tegum figure`: draw again from rows.

use std::path::PathBuf;

use super::{Outcome, print};
use crate::figure::Format;
use crate::run::results::Results;
use crate::spec::Document;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// The figure of this name alone
    #[arg(long)]
    only: Option<String>,
    /// png or svg; both if nothing is said
    #[arg(long, value_enum)]
    format: Option<Picture>,
    /// Folder to draw into; defaults to the run directory
    #[arg(short)]
    output: Option<PathBuf>,
    /// Take figures, and what they do with seeds, from this experiment file
    #[arg(long)]
    spec: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Picture {
    Png,
    Svg,
}

pub fn carry_out(args: &Args) -> Outcome {
    let mut results = Results::open(&args.dir)?;
    if let Some(spec) = &args.spec {
        results.document = Document::load(spec)?;
    }
    let format = args.format.map(|f| match f {
        Picture::Png => Format::Png,
        Picture::Svg => Format::Svg,
    });
    let out = args.output.as_ref().unwrap_or(&args.dir);
    for path in results.draw(args.only.as_deref(), format, out)? {
        print(&format!("drew {}\n", path.display()))?;
    }
    Ok(0)
}
