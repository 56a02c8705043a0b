//! `tegum verify`: every byte of a run compared with what was written.

use std::path::PathBuf;

use super::{Outcome, print};
use crate::store::Store;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
}

/// Exit code 6 where something is damaged; nothing is moved or changed.
pub fn carry_out(args: &Args) -> Outcome {
    let store = Store::open(&args.dir)?;
    let scan = store.verify()?;
    let mut text = String::new();
    for damage in &scan.quarantined {
        text += &format!("DAMAGED {}: {}\n", damage.path.display(), damage.reason);
    }
    for conflict in &scan.conflicts {
        text += &format!("CONFLICT {conflict}\n");
    }
    let (parts, cells, odd) = (scan.parts.len(), scan.done().len() + scan.incomplete, scan.unknown.len());
    text += &format!("{parts} sound parts with {cells} cells; {} damaged files", scan.quarantined.len());
    if !scan.temporary.is_empty() {
        text += &format!("; {} unfinished files", scan.temporary.len());
    }
    if odd > 0 {
        text += &format!("; {odd} files that are not the store's");
    }
    text.push('\n');
    if !scan.quarantined.is_empty() {
        text += "run the experiment again: what is damaged is set aside, and computed or written anew\n";
    }
    if scan.contradictions > 0 {
        text += &format!("{} parts in conflicts/ contradict others\n", scan.contradictions);
    }
    print(&text)?;
    Ok(if scan.quarantined.is_empty() && scan.conflicts.is_empty() { 0 } else { 6 })
}
