//! `tegum train`: the autoencoders of an experiment on activations from elsewhere.
//!
//! The files join the experiment as its `activations` section, so that what is kept is an experiment like any other: `table`,
//! `figure`, `expect`, `verify` and `export` read it, and the same command carries on where it was stopped.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::run::{Settings, carry_out_document};
use super::{Failure, Outcome, print};
use crate::progress::shell_word;
use crate::spec::Document;
use crate::spec::diagnostic::{Diagnostic, SpecError};
use crate::spec::node;
use crate::table::{self, Format, Query};

/// Activations are [samples, d], .npy or .safetensors (FILE.safetensors:NAME for one of several matrices).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of activations, or folders of them
    #[arg(required = true)]
    activations: Vec<PathBuf>,
    /// The experiment: `name`, `sae`, `sae_train`, `baselines`, `sweep`, ... without `data` and `toy`
    #[arg(long)]
    spec: PathBuf,
    /// Share of the rows that scores are taken on and no training sees
    #[arg(long, default_value_t = 0.1)]
    hold_out: f64,
    /// Accept float64 and round it to single precision
    #[arg(long)]
    convert: bool,
    #[command(flatten)]
    settings: Settings,
}

pub fn carry_out(args: &Args, quiet: bool) -> Outcome {
    if !(0.0..1.0).contains(&args.hold_out) {
        return Err(Failure::new(2, format!("--hold-out {}: expected a share, 0 to below 1", args.hold_out)));
    }
    let (code, results) = carry_out_document(|| document(args), &args.settings, quiet)?;
    if let Some(results) = results.filter(|_| !quiet) {
        let fail = |e: table::QueryError| Failure::new(e.exit_code(), e.to_string());
        let rows = table::select(&results.tables()?, &Query::default()).map_err(fail)?;
        let text = table::render(&rows, Format::Text).map_err(fail)?;
        print(&String::from_utf8_lossy(&text))?;
        let dir = shell_word(results.store.dir());
        print(&format!("weights: tegum export {dir} --cell ID [--to safetensors|npy|saelens]\n"))?;
    }
    Ok(code)
}

/// The experiment with the files as its activations. What is added stands behind the text, so that every place in messages is
/// that of the file.
fn document(args: &Args) -> Result<Document, Failure> {
    let (file, source) = Document::text(&args.spec)?;
    let root = node::parse(&file, &source)?;
    let refuse = |key: &str, message: String, help: &str| {
        let place = root.get(key).map_or(root.place, |node| node.place);
        let diagnostics = vec![Diagnostic { place, message, help: Some(help.to_owned()) }];
        Failure::from(SpecError { file: file.clone(), source: source.clone(), diagnostics })
    };
    if source.trim_start().starts_with('{') {
        let help = "write one key a line: what the command line gives is added to it";
        return Err(refuse("", "an experiment in braces takes no more keys".to_owned(), help));
    }
    for key in ["data", "toy"] {
        if root.get(key).is_some() {
            let help = "leave it out: `name`, `sae`, `sae_train` and what else speaks of autoencoders stay as they are";
            return Err(refuse(
                key,
                format!("`{key}` makes hidden states, and activations from files are given"),
                help,
            ));
        }
    }
    if root.get("activations").is_some() {
        let help = "run it with `tegum run`, or leave the section out";
        return Err(refuse("activations", "`activations` stands here and on the command line".to_owned(), help));
    }
    if root.get("sae").is_none() && root.get("baselines").is_none() {
        let help = "add for example `sae: [{topk: {n_latents: 512, k: 16}}]`";
        return Err(refuse("", "there is nothing to train: no `sae` and no `baselines`".to_owned(), help));
    }
    let files = args.activations.iter().map(|path| absolute(path)).collect::<Result<Vec<Json>, Failure>>()?;
    let added = json!({ "files": files, "hold_out": args.hold_out, "convert": args.convert });
    // JSON is YAML.
    let mut text = format!("{}\nactivations: {added}\n", source.trim_end());
    if root.get("save").is_none() {
        text.push_str("save: {weights: all}\n");
    }
    Ok(Document::read(&file, &text)?)
}

/// The kept experiment stands in the run directory, so names must hold anywhere. The name of a tensor stays behind that of
/// its file.
fn absolute(path: &Path) -> Result<Json, Failure> {
    let full = std::path::absolute(path).map_err(|e| Failure::new(3, format!("{}: {e}", path.display())))?;
    match full.to_str() {
        Some(text) => Ok(json!(text)),
        None => Err(Failure::new(3, format!("{}: the name is not UTF-8", path.display()))),
    }
}
