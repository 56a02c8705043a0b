//! The files that an experiment names, kept in its run directory: each set of them in a folder named by what is in it, so that
//! those of older plans stay.
//!
//! ```text
//! inputs/<hash of names and contents>/<name as the experiment has it>
//! inputs/plan-<hash>                            the set that a plan was made with
//! ```

use std::path::{Component, Path};

use super::RunError;
use crate::plan::Plan;
use crate::spec::activations::FOLDER;
use crate::spec::document::INPUTS;
use crate::store::{PlanRecord, Store};

/// Keeps the files that the world of a plan names.
///
/// Activations are too large for that: where they are named relative to the experiment, its folder is written down instead.
///
/// # Errors
/// A file that has changed since the plan was made; what the store refuses.
pub fn keep(plan: &Plan, record: &PlanRecord, store: &Store) -> Result<(), RunError> {
    if let Some(section) = &plan.document.experiment.activations
        && section.files.iter().any(|file| Path::new(file).is_relative())
    {
        let fail = |error: std::io::Error| RunError::Unreadable(format!("the experiment's folder: {error}"));
        let folder = std::path::absolute(plan.document.folder().join(".")).map_err(fail)?;
        return Ok(store.keep_file(Path::new(FOLDER), folder.display().to_string().as_bytes())?);
    }
    let mut files = Vec::new();
    for file in plan.document.experiment.data.files() {
        // An absolute name is found as it is; one that leads out of the folder is left where it is.
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(&file.name).components().all(inside) {
            continue;
        }
        // As the plan knows it: what has changed since is no input of this run.
        if let Some(content) = plan.files.read(&file.name).map_err(RunError::Input)? {
            files.push((file.name, content));
        }
    }
    if files.is_empty() {
        return Ok(());
    }
    let set = hash(&files);
    for (name, content) in &files {
        store.keep_file(&Path::new(INPUTS).join(&set).join(name), content)?;
    }
    // Last: a plan that has a set has all of it.
    Ok(store.keep_file(&Path::new(INPUTS).join(format!("plan-{}", record.hash())), set.as_bytes())?)
}

/// First 32 hexadecimal digits of BLAKE3 over names and contents, each with its length.
fn hash(files: &[(String, Vec<u8>)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for bytes in files.iter().flat_map(|(name, content)| [name.as_bytes(), content]) {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
