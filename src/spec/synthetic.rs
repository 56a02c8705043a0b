//! `data.synthetic_model`: the keys that a folder of SAELens stands for.

use std::path::Path;

use super::kind::Reader;
use super::node::{Key, Node, Value};
use super::sweep::Axis;
use crate::data::SyntheticModel;

/// Puts what the folder brings beside `data.synthetic_model`, so that the rest of the program finds a world with a number of
/// features and a dictionary: `n_features`, the mean of the saved firing probabilities, and `dictionary.d_hidden`. The folder
/// itself is read again where the world is made.
pub fn expand(root: &mut Node, folder: &Path, axes: &[Axis], reader: &mut Reader) {
    let Some(data) = root.get("data") else { return };
    let Some(Node { place, value: Value::Scalar { text, quoted } }) = data.get("synthetic_model").cloned() else {
        return;
    };
    if !quoted && text == "none" {
        return;
    }
    if let Value::Map(entries) = &data.value
        && let Some((key, _)) = entries.iter().find(|(key, _)| key.text != "synthetic_model")
    {
        let message = format!("`synthetic_model` brings the whole world, `{}` included", key.text);
        return reader.error(
            key.place,
            message,
            Some("leave it out, or write the world without the folder".to_owned()),
        );
    }
    if let Some(path) = axes.iter().flat_map(|axis| &axis.paths).find(|path| path.path.starts_with("data.")) {
        let message =
            format!("`data.synthetic_model` (line {}) brings the whole world: nothing of it can be swept", place.line);
        return reader.error(path.place, message, Some("leave the axis out".to_owned()));
    }
    let model = match SyntheticModel::load(&folder.join(&text)).and_then(|model| model.world().map(|_| model)) {
        Ok(model) => model,
        Err(error) => {
            let help = "give the folder that SAELens saved a SyntheticModel to, relative to this file".to_owned();
            return reader.error(place, error.to_string(), Some(help));
        }
    };
    let n = model.firing_probability.len();
    let mean = model.firing_probability.iter().sum::<f64>() / n as f64;
    let key = |text: &str| Key { place, text: text.to_owned() };
    let width = (key("d_hidden"), Node::plain(place, model.dictionary.d_hidden.to_string()));
    root.put(&["data", "n_features"], Node::plain(place, n.to_string()));
    root.put(&["data", "firing_probability"], Node::plain(place, format!("{mean:?}")));
    root.put(&["data", "dictionary"], Node { place, value: Value::Map(vec![width]) });
}
