//! Golden objectives of autoencoders: loss, gradients and ten Adam steps from an independent implementation.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::{
    Architecture, BatchInference, DecoderRule, Inference, JumpRelu, Levels, Normalise, Prefixes, SaeTrain, Size, Sort,
    Sparsity, Weights,
};
use crate::testing::{golden, json, npz};
use crate::training::{Optimizer, Schedule};

pub struct Golden {
    pub architecture: Architecture,
    pub weights: Weights,
    /// `[16, 6]`
    pub x: Vec<f32>,
    pub dead: Vec<bool>,
    pub loss: f64,
    pub mse: f64,
    pub penalty: f64,
    pub auxiliary: f64,
    /// Before projection and clip, in the order of the program's parameters.
    pub gradients: Vec<Vec<f64>>,
    pub latents: Vec<f64>,
    pub x_hat: Vec<f64>,
    /// Least pre |decoder| kept, where a batch is selected from.
    pub least_kept: Option<f64>,
    /// Running threshold after the ten steps without clip, and with clip 1.
    pub thresholds: [Option<f64>; 2],
    arrays: BTreeMap<String, ArrayD<f64>>,
}

impl Golden {
    /// All objectives of architectures that there are.
    pub fn all() -> Vec<Golden> {
        let names = [
            "relu_unit_norm",
            "relu_norm_penalty",
            "topk",
            "batch_topk",
            "gated",
            "gated_saelens",
            "jumprelu",
            "matryoshka_batch_topk",
            "matryoshka_relu",
            "matryoshka_relu_detached",
        ];
        names.map(Golden::read).into()
    }

    fn read(name: &str) -> Golden {
        let arrays = npz(golden(&format!("objective_{name}.npz")));
        let values = json(golden(&format!("objective_{name}.json")));
        let architecture = architecture(name, &values["settings"]);
        let names = architecture.program().parameter_names();
        let wide = |name: &str| arrays[name].iter().copied().collect::<Vec<f64>>();
        let parameter = |at: usize| arrays[&format!("param.{}", names[at])].iter().map(|&x| x as f32).collect();
        let term = |name: &str| values["terms"][name].as_f64().unwrap_or(0.0);
        let shape = arrays["param.W_dec"].shape();
        Golden {
            weights: Weights {
                n_latents: shape[0],
                d_hidden: shape[1],
                w_enc: parameter(0),
                b_enc: parameter(1),
                w_dec: parameter(2),
                b_dec: parameter(3),
                per_latent: (4..names.len()).map(parameter).collect(),
            },
            x: arrays["x"].iter().map(|&x| x as f32).collect(),
            dead: arrays.get("dead").map_or(vec![false; shape[0]], |dead| dead.iter().map(|&d| d > 0.0).collect()),
            loss: values["loss"].as_f64().expect("a loss"),
            mse: term("mse"),
            penalty: term("sparsity"),
            auxiliary: term("aux"),
            gradients: names.iter().map(|name| wide(&format!("grad.{name}"))).collect(),
            latents: wide("latents"),
            x_hat: wide("x_hat"),
            least_kept: values["least_kept"].as_f64(),
            thresholds: ["step10", "step10_clip1"].map(|run| values[run]["inference_threshold"].as_f64()),
            architecture,
            arrays,
        }
    }

    /// Their inference rule where it is the training rule on this batch.
    pub fn inference(&self) -> Inference {
        self.architecture.program().inference(0.0, 16)
    }

    /// The settings of the ten steps.
    pub fn train(clip: Option<f64>) -> SaeTrain {
        SaeTrain {
            steps: 10,
            batch_size: 16,
            optimizer: Optimizer::default(),
            lr: 1e-3,
            schedule: Schedule::Constant,
            warmup: 0.0,
            decay: 0.0,
            clip,
            weight_decay: 0.0,
            normalise: Normalise::None,
            dead_after: 100,
        }
    }

    /// Parameters after ten steps without clip, or with clip 1.
    pub fn after_ten(&self, clip: Option<f64>) -> Vec<Vec<f64>> {
        let label = if clip.is_some() { "step10_clip1" } else { "step10" };
        let names = self.architecture.program().parameter_names();
        names.iter().map(|name| self.arrays[&format!("{label}.{name}")].iter().copied().collect()).collect()
    }
}

fn architecture(name: &str, settings: &serde_json::Value) -> Architecture {
    let number = |key: &str| settings[key].as_f64().unwrap_or_else(|| panic!("{name} has {key}"));
    let count = |key: &str| settings[key].as_u64().expect("a whole number") as usize;
    let batch = |aux_k| Architecture::BatchTopK { k: number("k"), aux_k, inference: BatchInference::Batch };
    let nested = |architecture| Architecture::Matryoshka {
        nested: Box::new(architecture),
        levels: Levels {
            prefixes: Prefixes::Fixed(
                settings["prefixes"].as_array().expect("a list").iter().map(|m| m.as_u64().unwrap() as usize).collect(),
            ),
            inner: number("inner"),
            average: false,
            detach_inner: settings["detach_inner"].as_bool().expect("a truth value"),
            sort: Sort::None,
        },
        aux_by_level: false,
    };
    let relu = |decoder| Architecture::Relu { l1: number("l1"), decoder };
    match name {
        "relu_unit_norm" => relu(DecoderRule::UnitNorm),
        "relu_norm_penalty" => relu(DecoderRule::NormPenalty),
        "topk" => Architecture::TopK { k: count("k"), aux_k: count("aux_k") },
        "batch_topk" => batch(count("aux_k")),
        "gated" => Architecture::Gated { l1: number("l1"), parity: false },
        "gated_saelens" => Architecture::Gated { l1: number("l1"), parity: true },
        "jumprelu" => Architecture::JumpRelu(JumpRelu {
            l0: number("l0"),
            sparsity: Sparsity::Step,
            bandwidth: Size::Absolute(number("bandwidth")),
            threshold: Size::Absolute(0.1),
            init_norm: 0.1,
            input_gradient: false,
            silent: 0.0,
        }),
        "matryoshka_batch_topk" => nested(batch(0)),
        "matryoshka_relu" | "matryoshka_relu_detached" => nested(relu(DecoderRule::NormPenalty)),
        _ => panic!("no architecture for {name}"),
    }
}

/// Holds every number to its expected one.
pub fn assert_near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{what}: off by {worst:e}, allowed {tolerance:e}");
}
