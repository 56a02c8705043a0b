//! The `activations` section: hidden states from files, where no world makes them.

use std::fs;
use std::path::PathBuf;

use super::document::{Document, Part, Target};
use super::kind::{Beta, Flag, OneOrMore, Reader, Text, record};
use super::node::{Key, Node, Value};
use super::sweep::Axis;
use crate::activations::{Activations, ActivationsError};

record! {
    /// Activations from elsewhere.
    pub struct ActivationsSection as "activations" {
        /// Files `[samples, d]`, .npy or .safetensors (FILE.safetensors:NAME for one of several matrices), or folders of
        /// them; relative to the folder of the experiment.
        files: Vec<String> as OneOrMore<Text> = required "acts.npy",
        /// Share of the rows that scores are taken on and no training sees, in chunks of neighbouring rows; 0: scores are
        /// taken on training rows.
        hold_out: f64 as Beta = "0.1",
        /// Whether float64 is rounded to single precision; otherwise it is refused.
        convert: bool as Flag = "false",
    }
}

/// File of a run directory that names the folder which paths of activations are relative to.
pub const FOLDER: &str = "activations-folder.txt";

impl ActivationsSection {
    /// Opens the files of a document; headers alone are read.
    ///
    /// # Errors
    /// What [`Activations::open`] refuses.
    pub fn open(&self, document: &Document) -> Result<Activations, ActivationsError> {
        let folder = document.folder();
        // A kept experiment stands in its run directory, which says where it came from.
        let folder = fs::read_to_string(folder.join(FOLDER)).map_or(folder, PathBuf::from);
        let paths: Vec<PathBuf> = self.files.iter().map(|file| folder.join(file)).collect();
        Activations::open(&paths, self.hold_out, self.convert)
    }
}

/// Where hidden states come from files, gives the experiment a world of one feature that nothing looks at, so that a plan has
/// the same parts as any other; notes a world or toy model that was written beside them. Returns whether this is such an
/// experiment.
pub fn stand_in(root: &mut Node, reader: &mut Reader) -> bool {
    let unset = |node: &Node| match &node.value {
        Value::Null => true,
        Value::Scalar { text, quoted } => text == "none" && !quoted,
        _ => false,
    };
    let Some(here) = root.get("activations").filter(|node| !unset(node)).map(|node| node.place) else {
        return false;
    };
    for key in ["data", "toy"] {
        if let Some(other) = root.get(key) {
            let message = format!("both `{key}` and `activations` (line {}) make hidden states", here.line);
            let help = "keep one of them; `sae`, `sae_train` and the rest may stay as they are".to_owned();
            reader.error(other.place, message, Some(help));
        }
    }
    if root.get("data").is_none() {
        let node = |value| Node { place: here, value };
        let entry = |key: &str| (Key { text: key.to_owned(), place: here }, Node::plain(here, "1"));
        let world = node(Value::Map(vec![entry("n_features"), entry("firing_probability")]));
        root.put(&["data"], world);
    }
    true
}

/// There is no world to vary.
pub fn check_axes(axes: &[Axis], targets: &[Vec<Vec<Target>>], reader: &mut Reader) {
    for (axis, targets) in axes.iter().zip(targets) {
        for (path, targets) in axis.paths.iter().zip(targets) {
            if targets.iter().any(|target| matches!(target.part, Part::Data | Part::Toy)) {
                let message = format!("`{}` is no axis here: hidden states come from files", path.path);
                let help = "vary `sae`, `sae_train`, `baselines` or `evaluate`".to_owned();
                reader.error(path.place, message, Some(help));
            }
        }
    }
}
