//! Golden objectives of autoencoders: loss, gradients and ten Adam steps from an independent implementation.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use super::{Architecture, DecoderRule, Normalise, SaeTrain, Weights};
use crate::testing::{golden, json, npz};
use crate::training::{Optimizer, Schedule};

/// Names of the parameters in the order that the code has them.
pub const NAMES: [&str; 4] = ["W_enc", "b_enc", "W_dec", "b_dec"];

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
    /// Before projection and clip, in the order of [`NAMES`].
    pub gradients: [Vec<f64>; 4],
    pub latents: Vec<f64>,
    pub x_hat: Vec<f64>,
    arrays: BTreeMap<String, ArrayD<f64>>,
}

impl Golden {
    /// All objectives of architectures that there are.
    pub fn all() -> Vec<Golden> {
        ["relu_unit_norm", "relu_norm_penalty", "topk"].map(Golden::read).into()
    }

    fn read(name: &str) -> Golden {
        let arrays = npz(golden(&format!("objective_{name}.npz")));
        let values = json(golden(&format!("objective_{name}.json")));
        let settings = &values["settings"];
        let l1 = settings["l1"].as_f64();
        let count = |key: &str| settings[key].as_u64().expect("a whole number") as usize;
        let architecture = match name {
            "relu_unit_norm" => Architecture::Relu { l1: l1.expect("l1"), decoder: DecoderRule::UnitNorm },
            "relu_norm_penalty" => Architecture::Relu { l1: l1.expect("l1"), decoder: DecoderRule::NormPenalty },
            "topk" => Architecture::TopK { k: count("k"), aux_k: count("aux_k") },
            _ => panic!("no architecture for {name}"),
        };
        let wide = |name: &str| arrays[name].iter().copied().collect::<Vec<f64>>();
        let single = |name: &str| arrays[name].iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let term = |name: &str| values["terms"][name].as_f64().unwrap_or(0.0);
        let shape = arrays["param.W_dec"].shape();
        Golden {
            architecture,
            weights: Weights {
                n_latents: shape[0],
                d_hidden: shape[1],
                w_enc: single("param.W_enc"),
                b_enc: single("param.b_enc"),
                w_dec: single("param.W_dec"),
                b_dec: single("param.b_dec"),
            },
            x: single("x"),
            dead: arrays.get("dead").map_or(vec![false; shape[0]], |dead| dead.iter().map(|&d| d > 0.0).collect()),
            loss: values["loss"].as_f64().expect("a loss"),
            mse: term("mse"),
            penalty: term("sparsity"),
            auxiliary: term("aux"),
            gradients: NAMES.map(|name| wide(&format!("grad.{name}"))),
            latents: wide("latents"),
            x_hat: wide("x_hat"),
            arrays,
        }
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
    pub fn after_ten(&self, clip: Option<f64>) -> [Vec<f64>; 4] {
        let label = if clip.is_some() { "step10_clip1" } else { "step10" };
        NAMES.map(|name| self.arrays[&format!("{label}.{name}")].iter().copied().collect())
    }
}
