//! `tegum score`: arrays in, JSON out.

use std::path::PathBuf;

use super::{Failure, Outcome, print};
use crate::score::input::{ScoreFiles, score_files};

/// Arrays are .npy files, or .safetensors files (FILE:NAME picks one of several tensors).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// True directions [n_features, d]; of a toy model the columns of W as rows
    #[arg(long)]
    truth: PathBuf,
    /// Decoder rows [n_latents, d]
    #[arg(long)]
    dictionary: Option<PathBuf>,
    /// True activations [samples, n_features]
    #[arg(long)]
    features: Option<PathBuf>,
    /// Latent activations [samples, n_latents]
    #[arg(long)]
    latents: Option<PathBuf>,
    /// Hidden states [samples, d]
    #[arg(long)]
    hidden: Option<PathBuf>,
    /// Reconstructions [samples, d]
    #[arg(long)]
    reconstruction: Option<PathBuf>,
    /// JSON {child: parent}, for the hierarchy scores
    #[arg(long)]
    parents: Option<PathBuf>,
}

pub fn carry_out(args: &Args) -> Outcome {
    let files = ScoreFiles {
        truth: args.truth.clone(),
        dictionary: args.dictionary.clone(),
        features: args.features.clone(),
        latents: args.latents.clone(),
        hidden: args.hidden.clone(),
        reconstruction: args.reconstruction.clone(),
        parents: args.parents.clone(),
    };
    let scores = score_files(&files).map_err(|error| Failure::new(3, error.to_string()))?;
    print(&format!("{scores:#}\n"))?;
    Ok(0)
}
