//! The binary under test.

use std::path::Path;
use std::process::{Command, Output};

/// What a run of the program printed and returned.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `tegum` with these arguments in a folder.
pub fn tegum(folder: &Path, arguments: &[&str]) -> Answer {
    let output = command(folder, arguments).output().expect("the binary starts");
    answer(output)
}

/// The command, for tests that need more than its answer.
pub fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tegum"));
    // A GPU of this machine stays out of it: rows would be those of another arithmetic.
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").env("CUDA_VISIBLE_DEVICES", "");
    command
}

pub fn answer(output: Output) -> Answer {
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A small experiment with toy models, two SAEs and two baselines: a second of work.
pub const SMALL: &str = "\
name: small
seeds: 2
data: {n_features: 12, firing_probability: 0.1}
toy: {d_hidden: 6, train: {steps: 300, batch_size: 100, lr: 3e-3}}
sae:
  - relu: {n_latents: 12, l1: 0.05}
  - topk: {n_latents: 12, k: 2}
sae_train: {steps: 300, batch_size: 100, lr: 3e-3}
baselines: [random, pca]
evaluate: {samples: 3000}
save: {trace: {every: 100}}
sweep:
  data.firing_probability: [0.05, 0.2]
  toy.d_hidden: [4, 6]
figures:
  - phase_diagram: {name: recovery, x: data.firing_probability, y: toy.d_hidden, colour: mcc, facet: method}
expect:
  - {claim: there is a row for every cell, value: count(*), equals: 32}
";

/// Writes an experiment into a folder and returns its file name.
pub fn write(folder: &Path, name: &str, text: &str) -> String {
    std::fs::write(folder.join(name), text).expect("a temporary folder takes a file");
    name.to_owned()
}
