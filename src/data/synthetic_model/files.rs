//! The files of a synthetic model.

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value as Json, json};

use super::{MagnitudeLaw, ProbabilityLaw, SyntheticModel};
use crate::data::correlation::Correlation;
use crate::data::dictionary::Dictionary;
use crate::data::hierarchy::Node;
use crate::score::input::{self, Problem};

/// What gives the bytes of a file by its name: none where it is not there, or why it cannot be read.
pub type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, String>;

const CONFIG: &str = "synthetic_model_config.json";
const TENSORS: &str = "synthetic_model.safetensors";
const TREES: &str = "hierarchy.json";

/// The files of a folder, and whether it may be without them.
pub const FILES: [(&str, bool); 3] = [(CONFIG, false), (TENSORS, false), (TREES, true)];

/// Why a folder is no synthetic model that can be read, or cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that cannot be read or written.
    #[error("{file}: {source}")]
    File { file: String, source: std::io::Error },
    /// A file that does not hold what it should.
    #[error("{file}: {reason}")]
    Content { file: String, reason: String },
    /// Magnitudes that nobody can make again.
    #[error("the magnitudes were drawn without a seed and are not saved: SAELens makes others at every load")]
    Unseeded,
}

/// A tensor read.
struct Tensor {
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl SyntheticModel {
    /// Reads a folder that SAELens, or [`SyntheticModel::write`], wrote.
    ///
    /// # Errors
    /// If a file is missing or damaged, shapes disagree, a law is none of SAELens's own, directions are not of unit norm,
    /// or the trees are none.
    pub fn load(folder: &Path) -> Result<SyntheticModel, ModelError> {
        SyntheticModel::load_with(folder, &|name| {
            let path = folder.join(name);
            match input::read(&path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(Problem::Unreadable(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(problem) => Err(problem.to_string()),
            }
        })
    }

    /// The same from what `read` gives for the name of a file: its bytes, none where it is not there, or why it cannot be
    /// read. `folder` is for messages.
    ///
    /// # Errors
    /// As [`SyntheticModel::load`].
    pub fn load_with(folder: &Path, read: ReadFile<'_>) -> Result<SyntheticModel, ModelError> {
        let optional = |name: &str| read(name).map_err(|reason| content(&folder.join(name), reason));
        let needed = |name: &str| {
            let missing = || content(&folder.join(name), "no such file".to_owned());
            optional(name)?.ok_or_else(missing)
        };
        let config = json_of(&folder.join(CONFIG), &needed(CONFIG)?)?;
        let wrong = |reason: String| content(&folder.join(CONFIG), reason);
        let count = |key: &str| {
            let count = config.get(key).and_then(Json::as_u64).filter(|count| (1..1 << 17).contains(count));
            count
                .map(|count| count as usize)
                .ok_or_else(|| wrong(format!("`{key}` is no number of features or dimensions")))
        };
        let (n, d) = (count("num_features")?, count("hidden_dim")?);
        let part = |key: &str| config.get(key).unwrap_or(&Json::Null);
        let magnitude = |key: &str, default: f64| match part(key) {
            Json::Null => Ok(MagnitudeLaw::Constant(default)),
            law => MagnitudeLaw::of_json(law).map_err(|reason| wrong(format!("{key}: {reason}"))),
        };
        let (mean, std) = (magnitude("mean_firing_magnitudes", 1.0)?, magnitude("std_firing_magnitudes", 0.0)?);
        let compensated = part("hierarchy").get("compensate_probabilities").and_then(Json::as_bool).unwrap_or(false);
        let trees = folder.join(TREES);
        let hierarchy = match optional(TREES)? {
            Some(bytes) => Some(nodes(&json_of(&trees, &bytes)?, n).map_err(|e| content(&trees, e))?),
            None => None,
        };
        let path = folder.join(TENSORS);
        let bytes = needed(TENSORS)?;
        input::check_tensors(&bytes).map_err(|problem| content(&path, problem.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| content(&path, e.to_string()))?;
        let tensor = |name: &str, shape: &[usize]| {
            let found = read_tensor(&tensors, name).map_err(|e| content(&path, e))?;
            match found.shape == shape {
                true => Ok(found.values),
                false => Err(content(&path, format!("{name} has shape {:?}, expected {shape:?}", found.shape))),
            }
        };
        let (vectors, bias) = (tensor("feature_vectors", &[n, d])?, tensor("bias", &[d])?);
        let probabilities = tensor("firing_probabilities", &[n])?;
        let check = || -> Result<(), String> {
            unit_rows(&vectors, d)?;
            if let Some(i) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
                return Err(format!("feature {i} has firing probability {}", probabilities[i]));
            }
            match bias.iter().all(|b| b.is_finite()) {
                true => Ok(()),
                false => Err("bias holds a number that is not finite".to_owned()),
            }
        };
        check().map_err(|e| content(&path, e))?;
        let correlation = match tensors.names().contains(&"correlation_factor") {
            true => Some(low_rank(&tensors, n).map_err(|e| content(&path, e))?),
            false => None,
        };
        Ok(SyntheticModel {
            dictionary: Dictionary { n_features: n, d_hidden: d, vectors, bias, noise: 0.0 },
            firing_probability: probabilities.into_iter().map(f64::from).collect(),
            law: ProbabilityLaw::of_json(part("firing_probability")).ok(),
            compensated,
            mean,
            std,
            seed: part("seed").as_u64(),
            correlation,
            hierarchy,
        })
    }

    /// Writes the files into a folder, which is made where it is missing. SAELens loads them.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn write(&self, folder: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
        write_json(&folder.join(CONFIG), &self.config())?;
        if let Some(nodes) = &self.hierarchy {
            write_json(&folder.join(TREES), &trees(nodes))?;
        }
        let (n, d) = (self.dictionary.n_features, self.dictionary.d_hidden);
        let probabilities: Vec<f32> = self.firing_probability.iter().map(|p| *p as f32).collect();
        let mut tensors: Vec<(&str, Vec<usize>, &[f32])> = vec![
            ("feature_vectors", vec![n, d], &self.dictionary.vectors),
            ("bias", vec![d], &self.dictionary.bias),
            ("firing_probabilities", vec![n], &probabilities),
        ];
        if let Some(Correlation::LowRank { rank, factor, diagonal }) = &self.correlation {
            tensors.push(("correlation_factor", vec![n, *rank], factor));
            tensors.push(("correlation_diag", vec![n], diagonal));
        }
        let path = folder.join(TENSORS);
        let mut views = Vec::new();
        for (name, shape, values) in tensors {
            let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(values));
            views.push((name, view.map_err(|e| content(&path, e.to_string()))?));
        }
        let bytes = safetensors::serialize(views, None).map_err(|e| content(&path, e.to_string()))?;
        fs::write(&path, bytes).map_err(|source| file(&path, source))
    }

    fn config(&self) -> Json {
        let norm = self.dictionary.bias.iter().map(|b| *b as f64 * *b as f64).sum::<f64>().sqrt();
        let rank = match &self.correlation {
            Some(Correlation::LowRank { rank, .. }) => Some(*rank),
            _ => None,
        };
        // Of the hierarchy's settings SAELens reads `compensate_probabilities` alone where there is a `hierarchy.json`.
        let hierarchy = self.hierarchy.as_ref().map(|nodes| {
            json!({
                "total_root_nodes": nodes.iter().filter(|node| node.parent.is_none()).count().max(1),
                "compensate_probabilities": self.compensated,
            })
        });
        let law = self.law.clone().unwrap_or(ProbabilityLaw::Constant(0.1));
        json!({
            "num_features": self.dictionary.n_features,
            "hidden_dim": self.dictionary.d_hidden,
            "firing_probability": law.json(),
            "hierarchy": hierarchy,
            "orthogonalization": null,
            "correlation": rank.map(|rank| json!({ "rank": rank, "correlation_scale": 0.1, "seed": null })),
            "std_firing_magnitudes": self.std.json(),
            "mean_firing_magnitudes": self.mean.json(),
            "bias": norm,
            "dtype": "float32",
            "seed": self.seed,
        })
    }
}

fn file(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::File { file: path.display().to_string(), source }
}

fn content(path: &Path, reason: String) -> ModelError {
    ModelError::Content { file: path.display().to_string(), reason }
}

fn json_of(path: &Path, bytes: &[u8]) -> Result<Json, ModelError> {
    serde_json::from_slice(bytes).map_err(|e| content(path, e.to_string()))
}

fn write_json(path: &Path, json: &Json) -> Result<(), ModelError> {
    fs::write(path, format!("{json:#}\n")).map_err(|source| file(path, source))
}

fn read_tensor(tensors: &SafeTensors, name: &str) -> Result<Tensor, String> {
    let view = tensors.tensor(name).map_err(|_| format!("no tensor `{name}`"))?;
    if view.dtype() != Dtype::F32 {
        return Err(format!("{name} holds {:?}, expected F32", view.dtype()));
    }
    let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    Ok(Tensor { shape: view.shape().to_vec(), values })
}

/// Directions are unit to the rounding of f32; far from that they would be something else than directions.
fn unit_rows(vectors: &[f32], d: usize) -> Result<(), String> {
    let norm = |row: &[f32]| row.iter().map(|v| *v as f64 * *v as f64).sum::<f64>().sqrt();
    match vectors.chunks_exact(d).map(norm).enumerate().find(|(_, norm)| norm.is_nan() || (norm - 1.0).abs() >= 1e-3) {
        Some((i, norm)) => Err(format!("direction {i} has norm {norm}, and tegum's directions have norm 1")),
        None => Ok(()),
    }
}

fn low_rank(tensors: &SafeTensors, n: usize) -> Result<Correlation, String> {
    let factor = read_tensor(tensors, "correlation_factor")?;
    let diagonal = read_tensor(tensors, "correlation_diag")?;
    let rank = match factor.shape[..] {
        [rows, rank] if rows == n && diagonal.shape == [n] => rank,
        _ => {
            return Err(format!(
                "correlation_factor has shape {:?}, correlation_diag {:?}",
                factor.shape, diagonal.shape
            ));
        }
    };
    for i in 0..n {
        let row = &factor.values[i * rank..][..rank];
        let total = diagonal.values[i] as f64 + row.iter().map(|f| *f as f64 * *f as f64).sum::<f64>();
        if !(diagonal.values[i] > 0.0 && (total - 1.0).abs() < 1e-3) {
            return Err(format!("feature {i} has a variance of {total} in the correlation, expected 1"));
        }
    }
    Ok(Correlation::LowRank { rank, factor: factor.values, diagonal: diagonal.values })
}

/// Trees as nodes, parents before their children.
fn nodes(json: &Json, n_features: usize) -> Result<Vec<Node>, String> {
    let roots = json.get("roots").and_then(Json::as_array).ok_or("no `roots`")?;
    let (mut nodes, mut seen) = (Vec::new(), vec![false; n_features]);
    let mut open: Vec<(&Json, Option<usize>)> = roots.iter().rev().map(|root| (root, None)).collect();
    while let Some((json, parent)) = open.pop() {
        let feature = match json.get("feature_index") {
            None | Some(Json::Null) => None,
            Some(index) => {
                let known = index.as_u64().map(|i| i as usize).filter(|i| *i < n_features);
                let feature = known.ok_or_else(|| format!("feature {index} in a tree of {n_features} features"))?;
                if std::mem::replace(&mut seen[feature], true) {
                    return Err(format!("feature {feature} stands twice in the trees"));
                }
                Some(feature)
            }
        };
        let flag = |key: &str| json.get(key).and_then(Json::as_bool).unwrap_or(false);
        nodes.push(Node {
            feature,
            parent,
            exclusive: flag("mutually_exclusive_children"),
            scale_children: flag("scale_children_by_parent"),
        });
        let own = nodes.len() - 1;
        let children = json.get("children").and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        open.extend(children.iter().rev().map(|child| (child, Some(own))));
    }
    Ok(nodes)
}

/// Nodes as trees.
fn trees(nodes: &[Node]) -> Json {
    let mut children: Vec<Vec<Json>> = vec![vec![]; nodes.len()];
    let mut roots = vec![];
    // Children stand behind their parents, so each is whole before it is given away; siblings come out last first.
    for (at, node) in nodes.iter().enumerate().rev() {
        let mut own = std::mem::take(&mut children[at]);
        own.reverse();
        let json = json!({
            "feature_index": node.feature,
            // SAELens refuses a lone child to be exclusive, which it is anyway.
            "mutually_exclusive_children": node.exclusive && own.len() >= 2,
            "scale_children_by_parent": node.scale_children,
            "feature_id": null,
            "children": own,
        });
        match node.parent {
            Some(parent) => children[parent].push(json),
            None => roots.push(json),
        }
    }
    roots.reverse();
    json!({ "roots": roots })
}
