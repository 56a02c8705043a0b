//! `tegum figure`: draw again from rows.

use std::path::PathBuf;

use super::{Failure, Outcome, print};
use crate::figure::Format;
use crate::run::results::{Drawn, Results, Undrawn};
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
        results.draw_from(spec, Document::load(spec)?, args.only.as_deref())?;
    }
    let format = args.format.map(|f| match f {
        Picture::Png => Format::Png,
        Picture::Svg => Format::Svg,
    });
    let out = args.output.as_ref().unwrap_or(&args.dir);
    match &told(results.draw(args.only.as_deref(), format, out)?, false)?[..] {
        [] => Ok(0),
        undrawn => Err(fault(undrawn)),
    }
}

/// Says which files were drawn; the names of the figures that were not, and why.
pub fn told(drawn: Vec<Drawn>, quiet: bool) -> Result<Vec<(String, Undrawn)>, Failure> {
    let mut undrawn = Vec::new();
    for Drawn { name, files } in drawn {
        match files {
            Ok(paths) => {
                for path in paths.iter().filter(|_| !quiet) {
                    print(&format!("drew {}\n", path.display()))?;
                }
            }
            Err(why) => undrawn.push((name, why)),
        }
    }
    Ok(undrawn)
}

/// Figures that were not drawn, as what a command ends with.
pub fn fault(undrawn: &[(String, Undrawn)]) -> Failure {
    let lines: Vec<String> = undrawn.iter().map(|(name, why)| format!("figure {name}: {why}")).collect();
    let code = undrawn.iter().map(|(_, why)| why.exit_code()).max().unwrap_or(3);
    Failure::new(code, lines.join("\n"))
}
