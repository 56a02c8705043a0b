//! An autoencoder as SAELens 6 loads it: `cfg.json` and `sae_weights.safetensors` in one folder.
//!
//! ```text
//! kind here                            architecture there      same latents
//! relu (and what keeps all positive)   standard                yes
//! topk                                 topk                    times the decoder row's norm: it rescales by norms and decodes with
//!                                                              unit rows, which reconstructs the same
//! a threshold for each latent          jumprelu                yes
//! gated                                gated                   yes
//! matching pursuit                     matching_pursuit        over the scale of the inputs while training, `latent_scale` in
//!                                                              the metadata
//! ```
//!
//! There `W_enc` is `[d_in, d_sae]`. The scale of `mean_norm` is in the weights already; samples that were normalised by themselves
//! are so there too (`normalize_activations`), and latents there are those of the normalised sample.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ndarray::{ArrayD, Ix2};
use serde_json::{Map, Value as Json, json};

use crate::sae::restored::tied_scale;
use crate::spec::sae::{InferenceSection, NormaliseSection, SaeKind};

/// How an autoencoder finds its latents, as far as its tensors do not say: thresholds and gates stand among them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Every positive pre-activation, or what a threshold or gate lets through.
    Positive,
    /// The k greatest of pre times the decoder row's norm.
    TopK {
        /// Latents kept.
        k: usize,
    },
    /// One latent after the other, encoder and decoder tied.
    Pursuit {
        /// Rounds at most.
        max_iterations: usize,
        /// Length of what is left at which it ends, in the scale of training.
        residual_threshold: f64,
        /// Whether it ends where no latent was new.
        stop_on_duplicate: bool,
    },
}

impl Rule {
    /// That of a kind.
    ///
    /// # Errors
    /// A kind whose latents depend on the batch that a sample stands in: SAELens has no such inference.
    pub fn of(kind: &SaeKind) -> Result<Rule, String> {
        let by_batch = "its latents are selected over batches (`inference: batch`), and SAELens knows thresholds alone";
        Ok(match kind {
            SaeKind::BatchTopK(section) if section.inference == InferenceSection::Batch => return Err(by_batch.into()),
            SaeKind::Matryoshka(section) => match (&section.topk, &section.batch_topk) {
                (Some(nested), _) => Rule::TopK { k: nested.k },
                (_, Some(nested)) if nested.inference == InferenceSection::Batch => return Err(by_batch.into()),
                _ => Rule::Positive,
            },
            SaeKind::TopK(section) => Rule::TopK { k: section.k },
            SaeKind::MatchingPursuit(section) => Rule::Pursuit {
                max_iterations: section.k,
                residual_threshold: section.residual_threshold,
                stop_on_duplicate: section.stop_on_duplicate,
            },
            SaeKind::Relu(_) | SaeKind::BatchTopK(_) | SaeKind::Gated(_) | SaeKind::JumpRelu(_) => Rule::Positive,
        })
    }
}

/// Arrays by name.
pub type Tensors = BTreeMap<String, ArrayD<f32>>;

/// An architecture of SAELens with its settings and weights.
#[derive(Debug)]
pub struct Form {
    /// As its registry names it.
    pub architecture: &'static str,
    /// `normalize_activations`.
    pub normalise: &'static str,
    /// Settings beyond those that all architectures have.
    pub settings: Map<String, Json>,
    /// `W_dec` `[d_sae, d_in]`, `b_dec` `[d_in]`, and what else the architecture has.
    pub weights: Tensors,
    /// Latents here over latents there, but for the norms of decoder rows under `topk`.
    pub latent_scale: f64,
}

/// `normalize_activations` of an autoencoder whose weights are exported.
pub fn normalisation(section: &NormaliseSection) -> &'static str {
    match section {
        NormaliseSection::None | NormaliseSection::MeanNorm => "none",
        NormaliseSection::ConstantNorm => "constant_norm_rescale",
        NormaliseSection::LayerNorm => "layer_norm",
    }
}

/// The form of a trained autoencoder with these `tensors`, named as they are exported.
///
/// # Errors
/// A tensor that every autoencoder has is missing.
pub fn form(rule: Rule, normalise: &'static str, tensors: &Tensors) -> Result<Form, String> {
    let tensor = |name: &str| -> Result<ArrayD<f32>, String> {
        let found = tensors.get(&format!("sae.{name}"));
        found.cloned().ok_or_else(|| format!("the autoencoder has no tensor {name}"))
    };
    let encoder = || -> Result<ArrayD<f32>, String> {
        let rows = tensor("W_enc")?.into_dimensionality::<Ix2>().map_err(|e| e.to_string())?;
        Ok(rows.t().as_standard_layout().into_owned().into_dyn())
    };
    let has = |name: &str| tensors.contains_key(&format!("sae.{name}"));
    let mut weights = Tensors::new();
    let mut put = |name: &str, tensor| weights.insert(name.to_owned(), tensor);
    put("W_dec", tensor("W_dec")?);
    put("b_dec", tensor("b_dec")?);
    let mut settings = Map::new();
    if let Rule::Pursuit { max_iterations, residual_threshold, stop_on_duplicate } = rule {
        // There both are one matrix, so that for h as it is both are w, and latents are 1/s of those here.
        let scale = tied_scale(&tensor("W_enc")?, &tensor("W_dec")?);
        put("W_dec", tensor("W_dec")?.mapv(|w| (w as f64 * scale) as f32));
        settings.insert("max_iterations".into(), json!(max_iterations));
        settings.insert("residual_threshold".into(), json!(residual_threshold / scale));
        settings.insert("stop_on_duplicate_support".into(), json!(stop_on_duplicate));
        return Ok(Form { architecture: "matching_pursuit", normalise, settings, weights, latent_scale: scale });
    }
    put("W_enc", encoder()?);
    let architecture = match rule {
        _ if has("b_gate") => {
            for name in ["b_gate", "r_mag", "b_mag"] {
                put(name, tensor(name)?);
            }
            "gated"
        }
        _ if has("threshold") => {
            put("b_enc", tensor("b_enc")?);
            put("threshold", tensor("threshold")?);
            "jumprelu"
        }
        Rule::TopK { k } => {
            put("b_enc", tensor("b_enc")?);
            settings.insert("k".into(), json!(k));
            settings.insert("rescale_acts_by_decoder_norm".into(), json!(true));
            "topk"
        }
        Rule::Positive | Rule::Pursuit { .. } => {
            put("b_enc", tensor("b_enc")?);
            "standard"
        }
    };
    Ok(Form { architecture, normalise, settings, weights, latent_scale: 1.0 })
}

impl Form {
    /// `cfg.json`; `origin` says where the autoencoder comes from, in its metadata.
    pub fn config(&self, origin: &Json) -> Json {
        let shape = self.weights["W_dec"].shape();
        let mut config = json!({
            "architecture": self.architecture,
            "d_in": shape[1],
            "d_sae": shape[0],
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": true,
            "normalize_activations": self.normalise,
            "reshape_activations": "none",
            // Without a version it would be read as a file of before 6.0.
            "metadata": {
                "sae_lens_version": "6.54.0",
                "sae_lens_training_version": null,
                "tegum": origin,
                "latent_scale": self.latent_scale,
            },
        });
        if let Json::Object(config) = &mut config {
            config.extend(self.settings.clone());
        }
        config
    }

    /// Writes the folder.
    ///
    /// # Errors
    /// A file cannot be written; the message names it.
    pub fn write(
        &self,
        folder: &Path,
        origin: &Json,
        safetensors: impl FnOnce(&Path, &Tensors) -> Result<(), String>,
    ) -> Result<(), String> {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let path = folder.join("cfg.json");
        let text = format!("{:#}\n", self.config(origin));
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        safetensors(&folder.join("sae_weights.safetensors"), &self.weights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Array2};

    fn tensors(extra: &[&str]) -> Tensors {
        let matrix = |first: f32| Array2::from_shape_fn((3, 2), |(j, k)| first + (2 * j + k) as f32).into_dyn();
        let vector = |n: usize| Array1::from_iter((0..n).map(|j| j as f32)).into_dyn();
        let mut tensors = Tensors::new();
        tensors.insert("sae.W_enc".into(), matrix(0.0));
        tensors.insert("sae.W_dec".into(), matrix(10.0));
        tensors.insert("sae.b_dec".into(), vector(2));
        extra.iter().for_each(|name| drop(tensors.insert(format!("sae.{name}"), vector(3))));
        tensors
    }

    #[test]
    fn kinds_go_to_the_architecture_that_computes_the_same() {
        for (rule, extra, architecture) in [
            (Rule::Positive, &["b_enc"][..], "standard"),
            (Rule::TopK { k: 2 }, &["b_enc"], "topk"),
            (Rule::Positive, &["b_enc", "threshold"], "jumprelu"),
            (Rule::Positive, &["b_gate", "r_mag", "b_mag"], "gated"),
        ] {
            let form = form(rule, "layer_norm", &tensors(extra)).expect("all tensors are there");
            assert_eq!(form.architecture, architecture);
            let names: Vec<&str> = form.weights.keys().map(String::as_str).collect();
            let mut expected = vec!["W_dec", "W_enc", "b_dec"];
            expected.extend(extra);
            expected.sort_unstable();
            assert_eq!(names, expected);
            let config = form.config(&json!("here"));
            assert_eq!((&config["d_in"], &config["d_sae"]), (&json!(2), &json!(3)));
            assert_eq!(config["architecture"], architecture);
            assert_eq!(config["normalize_activations"], "layer_norm");
            assert_eq!(config.get("k"), (architecture == "topk").then_some(&json!(2)));
        }
    }

    #[test]
    fn the_encoder_is_turned_and_laid_out_anew() {
        let form = form(Rule::Positive, "none", &tensors(&["b_enc"])).expect("all are there");
        let encoder = &form.weights["W_enc"];
        assert_eq!(
            (encoder.shape(), encoder.as_slice().expect("laid out")),
            (&[2, 3][..], &[0., 2., 4., 1., 3., 5.][..])
        );
        assert_eq!(form.weights["W_dec"].as_slice().expect("laid out")[..2], [10., 11.]);
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let message = form(Rule::TopK { k: 2 }, "none", &tensors(&[])).expect_err("no b_enc");
        assert!(message.contains("b_enc"), "{message}");
    }

    /// Rows w trained on 4 h: encoder 4 w, decoder w / 4. There rows are w, what is left is measured in units of h.
    #[test]
    fn a_tied_pursuit_loses_the_scale_of_its_inputs() {
        let rows = Array2::from_shape_fn((3, 2), |(j, k)| 1.0 + (2 * j + k) as f32).into_dyn();
        let mut tensors = tensors(&[]);
        tensors.insert("sae.W_enc".into(), &rows * 4.0);
        tensors.insert("sae.W_dec".into(), &rows / 4.0);
        let rule = Rule::Pursuit { max_iterations: 5, residual_threshold: 0.02, stop_on_duplicate: true };
        let form = form(rule, "none", &tensors).expect("all are there");
        assert!((form.latent_scale - 4.0).abs() < 1e-6);
        assert!((&form.weights["W_dec"] - &rows).iter().all(|e| e.abs() < 1e-5));
        assert!(!form.weights.contains_key("W_enc") && form.settings["max_iterations"] == json!(5));
        assert!((form.settings["residual_threshold"].as_f64().expect("a number") - 0.005).abs() < 1e-9);
    }
}
