//! `tegum explain`: what a score or a field means.

use std::fmt::Write;

use super::{Failure, Outcome, print};
use crate::score::{self, Better, Definition, Kind};
use crate::spec::{diagnostic::nearest, explain};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A score (mcc), a field (data.magnitude), `scores` or `fields`; nothing lists both
    name: Option<String>,
}

pub fn carry_out(args: &Args) -> Outcome {
    let text = match args.name.as_deref() {
        None => format!("Fields\n\n{}\nScores\n\n{}", explain::outline(), all_scores()),
        Some("scores") => all_scores(),
        Some("fields") => explain::outline(),
        Some(name) => one(name)?,
    };
    print(&text)?;
    Ok(0)
}

fn one(name: &str) -> Result<String, Failure> {
    if let Some((definition, _)) = score::parse_name(name) {
        return Ok(of_score(definition));
    }
    explain::field(name).map_err(|help| {
        let sections = ["name", "seeds", "data", "toy", "sae", "sae_train", "baselines", "score", "evaluate", "save"];
        let near = score::suggest(name).or_else(|| nearest(name, sections).map(str::to_owned));
        let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
        Failure::new(3, format!("`{name}` is neither a score nor a field: {help}{near}"))
    })
}

fn all_scores() -> String {
    let mut text = String::new();
    for definition in score::SCORES {
        let name = if definition.is_vector() { format!("{}_i", definition.name) } else { definition.name.to_owned() };
        let _ = writeln!(text, "{name:<22} {}", definition.meaning);
    }
    text
}

fn of_score(definition: &Definition) -> String {
    let mut text = format!("{} (version {})\n", definition.name, definition.version);
    let _ = writeln!(text, "  {}", definition.meaning);
    let _ = writeln!(text, "  formula: {}", definition.formula);
    let _ = writeln!(text, "  source: {}", definition.source);
    let _ = writeln!(text, "  axis label: {}", definition.label);
    let better = match definition.better {
        Some(Better::Higher) => "  higher is better\n",
        Some(Better::Lower) => "  lower is better\n",
        None => "",
    };
    text.push_str(better);
    if definition.is_vector() {
        let _ = writeln!(text, "  a vector: {0}_0, {0}_3, {0}_last name one entry", definition.name);
        if definition.kind != Kind::Word {
            let name = definition.name;
            let _ = writeln!(text, "  {name}_rank_2 is the second greatest; {name}_min, _max, _mean, _median");
        }
    }
    text
}
