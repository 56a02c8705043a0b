//! `tegum init`: a commented experiment to start from.

use std::path::PathBuf;

use super::{Failure, Outcome, print};
use crate::spec::kind::{NAME_RULE, is_name};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the experiment; NAME.yaml is written
    name: String,
    /// What to start from
    #[arg(long, value_enum, default_value_t = Starter::Quickstart)]
    from: Starter,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Starter {
    /// Toy models, SAEs on their hidden states, two phase diagrams
    Quickstart,
    /// Toy models alone
    Toy,
    /// SAEs on a fixed dictionary
    Sae,
}

pub fn carry_out(args: &Args) -> Outcome {
    if !is_name(&args.name) {
        return Err(Failure::new(3, format!("\"{}\" cannot be a name: {NAME_RULE}", args.name)));
    }
    let text = match args.from {
        Starter::Quickstart => include_str!("../../experiments/quickstart.yaml"),
        Starter::Toy => include_str!("../../experiments/paper/pentagon.yaml"),
        Starter::Sae => include_str!("../../experiments/check/topk_recovers_orthogonal.yaml"),
    };
    let named: Vec<String> = (text.lines())
        .map(|line| if line.starts_with("name:") { format!("name: {}", args.name) } else { line.to_owned() })
        .collect();
    let path = PathBuf::from(format!("{}.yaml", args.name));
    let mut file = std::fs::File::create_new(&path).map_err(|e| Failure::new(5, format!("{}: {e}", path.display())))?;
    std::io::Write::write_all(&mut file, (named.join("\n") + "\n").as_bytes())
        .map_err(|e| Failure::new(5, format!("{}: {e}", path.display())))?;
    print(&format!("wrote {0}; run it with `tegum run {0}`\n", path.display()))?;
    Ok(0)
}
