//! The distinct values of each part of a plan's cells: read, checked and hashed once however many cells share them.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use serde_json::{Value as Json, json};

use super::files::Files;
use super::id::{PartHash, part_hash};
use super::resolve;
use crate::spec::baseline::BaselineKind;
use crate::spec::data::DataSection;
use crate::spec::diagnostic::Diagnostic;
use crate::spec::document::{Document, Part};
use crate::spec::entry::{Entry, EntryOf, train_node};
use crate::spec::kind::{Kind, Reader, Uses};
use crate::spec::node::{Node, Value};
use crate::spec::sae::{SaeKind, SaeTrainSection};
use crate::spec::toy::{BatchSizeSection, ModelSection, ToySection};
use crate::spec::{check, output::EvaluateSection};

/// What stands behind a row's `method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A toy model alone.
    None,
    /// Entry of `sae`.
    Sae(usize),
    /// Entry of `baselines`.
    Baseline(usize),
}

impl Method {
    /// The parts of the file that make it.
    pub fn parts(self) -> Vec<Part> {
        match self {
            Method::None => vec![],
            Method::Sae(i) => vec![Part::Sae(i), Part::SaeTrain],
            Method::Baseline(i) => vec![Part::Baseline(i)],
        }
    }
}

/// Numbers that parts check each other by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    pub n_features: usize,
    /// Width of hidden states; 0 where the part does not set it.
    pub d_hidden: usize,
    pub n_latents: usize,
    /// Length of an importance list; 0 where there is none.
    pub importance: usize,
    /// Of data: some x can be negative. Of a toy model: it makes sense only then.
    pub signed: bool,
    /// Of a toy model: h is meant to be narrower than x.
    pub bottleneck: bool,
    /// Samples that the training of an autoencoder or the evaluation sees: work, apart from factors other parts know.
    pub work: f64,
    /// Model-steps of training, restarts included.
    pub steps: u64,
    /// Steps of one training of a toy model.
    pub logged_steps: u64,
    /// Samples of a step of a toy model; none: the whole training set.
    pub batch_size: Option<usize>,
    /// Samples of a finite training set; 0 where they are fresh.
    pub dataset: usize,
    /// Of data: how many features are active in a sample, by their firing probabilities.
    pub active: f64,
}

/// Samples of one step of a toy model with these facts, in a world with those.
pub fn step_samples(data: &Facts, toy: &Facts) -> usize {
    let all = if data.dataset > 0 { data.dataset } else { usize::MAX };
    toy.batch_size.map_or(all, |size| size.min(all))
}

/// All distinct values of one part: every combination of the axes that touch it.
#[derive(Clone, Debug)]
pub struct PartTable {
    /// Axes that touch it, in file order.
    pub axes: Vec<usize>,
    /// `[combination]`, last axis fastest.
    pub hashes: Vec<PartHash>,
    pub facts: Vec<Facts>,
}

impl PartTable {
    /// The combination that a choice of values (one index per axis of the file) means.
    pub fn index(&self, choice: &[usize], lengths: &[usize]) -> usize {
        self.axes.iter().fold(0, |at, &axis| at * lengths[axis] + choice[axis])
    }
}

/// The indices of a combination of `axes`, written into a full choice.
pub fn spread(mut index: usize, axes: &[usize], lengths: &[usize], choice: &mut [usize]) {
    for &axis in axes.iter().rev() {
        choice[axis] = index % lengths[axis];
        index /= lengths[axis];
    }
}

/// Reads one part for one choice.
pub fn read_data(document: &Document, choice: &[usize], reader: &mut Reader) -> Option<DataSection> {
    let node = document.part(Part::Data, choice)?;
    let section = DataSection::read(&node, reader)?;
    check::data(&section, &node, reader);
    Some(section)
}

pub fn read_toy(document: &Document, choice: &[usize], reader: &mut Reader) -> Option<ToySection> {
    let node = document.part(Part::Toy, choice)?;
    let section = ToySection::read(&node, reader)?;
    check::toy(&section, &node, reader);
    Some(section)
}

pub fn read_evaluate(document: &Document, choice: &[usize], reader: &mut Reader) -> Option<EvaluateSection> {
    match document.part(Part::Evaluate, choice) {
        Some(node) => EvaluateSection::read(&node, reader),
        None => Some(document.experiment.evaluate.clone()),
    }
}

/// A variant with the training settings that rule it.
pub fn read_sae(
    document: &Document,
    i: usize,
    choice: &[usize],
    reader: &mut Reader,
) -> Option<(Entry<SaeKind>, SaeTrainSection)> {
    let node = document.part(Part::Sae(i), choice)?;
    let entry = EntryOf::<SaeKind>::read(&node, reader)?;
    check::sae(&entry, &node, reader);
    if document.experiment.activations.is_some() {
        check::sae_without_truth(&entry, &node, reader);
    }
    let shared = document.part(Part::SaeTrain, choice);
    let train = train_node(shared.as_ref(), entry.train.as_ref(), reader);
    let section = SaeTrainSection::read(&train, reader)?;
    check::sae_train(&section, &train, reader);
    check::sae_train_uses(&entry.kind, &train, reader);
    Some((entry, section))
}

pub fn read_baseline(
    document: &Document,
    i: usize,
    choice: &[usize],
    reader: &mut Reader,
) -> Option<Entry<BaselineKind>> {
    let entry = EntryOf::<BaselineKind>::read(&document.part(Part::Baseline(i), choice)?, reader)?;
    Some(with_width(entry, document, choice, reader))
}

/// Dictionaries that are not SAEs are as wide as the first SAE, unless they say otherwise.
fn with_width(
    mut entry: Entry<BaselineKind>,
    document: &Document,
    choice: &[usize],
    reader: &mut Reader,
) -> Entry<BaselineKind> {
    if let Some(width @ None) = entry.kind.shared_width()
        && !document.experiment.sae.is_empty()
    {
        let first = document.part(Part::Sae(0), choice).and_then(|node| EntryOf::<SaeKind>::read(&node, reader));
        *width = first.map(|first| first.kind.n_latents());
    }
    entry
}

/// Axes that touch any of the parts. Baselines that follow the width of the first SAE follow its axes.
fn touching(document: &Document, method: Method, parts: &[Part]) -> Vec<usize> {
    let widths = |axis: usize| {
        let follows = matches!(method, Method::Baseline(i) if document.experiment.baselines[i].kind.follows_width());
        follows
            && document.targets[axis]
                .iter()
                .flatten()
                .any(|t| t.part == Part::Sae(0) && t.path.last().is_some_and(|k| k == "n_latents"))
    };
    // A key that an entry sets for itself is out of reach of an axis on `sae_train`.
    let shielded = |key: Option<&String>| match method {
        Method::Sae(i) => {
            let own = document.experiment.sae[i].train.as_ref();
            own.zip(key).is_some_and(|(train, key)| train.get(key).is_some())
        }
        _ => false,
    };
    let touches = |axis: usize, part: Part| {
        let mut targets = document.targets[axis].iter().flatten().filter(|t| t.part == part);
        targets.any(|t| part != Part::SaeTrain || !shielded(t.path.first()))
    };
    (0..document.axes.len()).filter(|&a| parts.iter().any(|p| touches(a, *p)) || widths(a)).collect()
}

/// Builds the table of one part, in parallel; errors of all combinations are gathered, and in `uses` what their settings
/// come to.
fn table(
    document: &Document,
    lengths: &[usize],
    axes: Vec<usize>,
    uses: &Mutex<Uses>,
    read: impl Fn(&[usize], &mut Reader) -> Option<(PartHash, Facts)> + Sync,
) -> Result<PartTable, Vec<Diagnostic>> {
    let size: usize = axes.iter().map(|a| lengths[*a]).product();
    let results: Vec<Result<(PartHash, Facts), Vec<Diagnostic>>> = (0..size)
        .into_par_iter()
        .with_min_len(64)
        .map(|index| {
            let mut choice = vec![0; document.axes.len()];
            spread(index, &axes, lengths, &mut choice);
            let mut reader = Reader::default();
            let found = read(&choice, &mut reader);
            if !reader.uses.is_empty() {
                uses.lock().unwrap_or_else(PoisonError::into_inner).join(std::mem::take(&mut reader.uses));
            }
            match found {
                Some(found) if reader.diagnostics.is_empty() => Ok(found),
                _ => Err(reader.diagnostics),
            }
        })
        .collect();
    let bad = results.iter().filter(|r| r.is_err()).count();
    if bad > 0 {
        return Err(gather(results.into_iter().filter_map(Result::err).flatten(), bad, size));
    }
    let (hashes, facts) = results.into_iter().flatten().unzip();
    Ok(PartTable { axes, hashes, facts })
}

/// Each complaint once; where an axis brings it, how many combinations it spoils.
fn gather(found: impl Iterator<Item = Diagnostic>, bad: usize, size: usize) -> Vec<Diagnostic> {
    let mut all: Vec<Diagnostic> = Vec::new();
    for diagnostic in found {
        if all.len() < 1000 && !all.contains(&diagnostic) {
            all.push(diagnostic);
        }
    }
    if size > 1
        && let Some(first) = all.first_mut()
    {
        let count = format!("{bad} of {size} combinations of the axes are wrong; this is the first");
        first.help = Some(first.help.take().map_or(count.clone(), |help| format!("{help}; {count}")));
    }
    all
}

/// The tables of every part.
#[derive(Clone, Debug)]
pub struct Tables {
    pub data: PartTable,
    pub toy: Option<PartTable>,
    pub evaluate: PartTable,
    /// `[method]`
    pub methods: Vec<PartTable>,
    /// Complaints about settings that come to nothing in every cell.
    pub idle: Vec<Diagnostic>,
}

impl Tables {
    pub fn build(
        document: &Document,
        lengths: &[usize],
        methods: &[Method],
        files: &Files,
    ) -> Result<Tables, Vec<Diagnostic>> {
        let touching = |parts: &[Part]| touching(document, Method::None, parts);
        let uses = Mutex::new(Uses::default());
        let data = table(document, lengths, touching(&[Part::Data]), &uses, |choice, reader| {
            data_facts(document, choice, files, reader)
        });
        let toy = document.experiment.toy.as_ref().map(|_| {
            table(document, lengths, touching(&[Part::Toy]), &uses, |choice, reader| {
                let section = read_toy(document, choice, reader)?;
                Some((part_hash(&ToySection::canonical(&section)), toy_facts(&section)))
            })
        });
        let evaluate = table(document, lengths, touching(&[Part::Evaluate]), &uses, |choice, reader| {
            let section = read_evaluate(document, choice, reader)?;
            let facts = Facts { work: section.samples as f64, ..Facts::default() };
            Some((part_hash(&EvaluateSection::canonical(&section)), facts))
        });
        let fewest = data.iter().flat_map(|data| &data.facts).map(|facts| facts.n_features).min().unwrap_or(0);
        let methods: Vec<Result<PartTable, Vec<Diagnostic>>> =
            methods.iter().map(|method| method_table(document, lengths, *method, fewest, &uses)).collect();
        let mut errors = Vec::new();
        let mut keep = |result: Result<PartTable, Vec<Diagnostic>>| result.map_err(|e| errors.extend(e)).ok();
        let data = keep(data);
        let toy = toy.map(&mut keep);
        let evaluate = keep(evaluate);
        let methods: Vec<Option<PartTable>> = methods.into_iter().map(&mut keep).collect();
        let (Some(data), Some(evaluate), Some(methods)) = (data, evaluate, methods.into_iter().collect()) else {
            return Err(errors);
        };
        if let Some(None) = toy {
            return Err(errors);
        }
        // Only now is every combination read: what one with an error uses is not known.
        let idle = uses.into_inner().unwrap_or_else(PoisonError::into_inner).complaints();
        Ok(Tables { data, toy: toy.flatten(), evaluate, methods, idle })
    }
}

/// The hash of a world, and what other parts must know of it.
fn data_facts(document: &Document, choice: &[usize], files: &Files, reader: &mut Reader) -> Option<(PartHash, Facts)> {
    let section = read_data(document, choice, reader)?;
    if document.experiment.activations.is_some() {
        return given(document, reader);
    }
    if let (true, Some(node)) = (reader.diagnostics.is_empty(), document.part(Part::Data, choice)) {
        super::linked::check(&section, &node, reader);
    }
    let facts = Facts {
        n_features: section.n_features,
        d_hidden: section.dictionary.as_ref().map_or(0, |d| d.d_hidden),
        dataset: section.dataset.as_ref().map_or(0, |d| d.samples),
        signed: section.is_signed(),
        active: resolve::active(&section),
        ..Facts::default()
    };
    Some((part_hash(&with_contents(document, &section, choice, files, reader)?), facts))
}

fn toy_facts(section: &ToySection) -> Facts {
    Facts {
        d_hidden: section.d_hidden,
        importance: match &section.importance {
            crate::spec::curve::Curve::List(list) => list.len(),
            _ => 0,
        },
        batch_size: match section.train.batch_size {
            BatchSizeSection::Fixed(size) => Some(size),
            BatchSizeSection::Full => None,
        },
        steps: (section.restarts * section.train.steps) as u64,
        logged_steps: section.train.steps as u64,
        signed: matches!(section.model, ModelSection::AbsoluteValue),
        bottleneck: !matches!(section.model, ModelSection::AbsoluteValue | ModelSection::Mlp(_)),
        ..Facts::default()
    }
}

/// The hash and width of activations from files: what takes the place of a world.
fn given(document: &Document, reader: &mut Reader) -> Option<(PartHash, Facts)> {
    let section = document.experiment.activations.as_ref()?;
    let opened = section.open(document).map_err(|e| e.to_string());
    match opened.and_then(|activations| Ok((activations.d(), activations.fingerprint()?))) {
        Ok((d_hidden, content)) => {
            let hash = part_hash(&json!({ "activations": content, "hold_out": section.hold_out }));
            Some((hash, Facts { n_features: 1, d_hidden, ..Facts::default() }))
        }
        Err(message) => {
            let node = document.root.at(["activations", "files"]).or(document.root.get("activations"));
            let help = "files are [samples, d] in .npy or .safetensors, relative to the folder of the experiment file";
            reader.error(node.map_or(document.root.place, |node| node.place), message, Some(help.to_owned()));
            None
        }
    }
}

/// The canonical world, with the contents of the files it names in place of their names.
fn with_contents(
    document: &Document,
    section: &DataSection,
    choice: &[usize],
    files: &Files,
    reader: &mut Reader,
) -> Option<Json> {
    let mut canonical = DataSection::canonical(section);
    let mut model = vec![];
    let named = section.files();
    if named.is_empty() || !reader.diagnostics.is_empty() {
        return Some(canonical);
    }
    let hashes = match files.check(section, |file| place_in(document, Part::Data, file.keys, choice)) {
        Ok(hashes) => hashes,
        Err((place, message)) => {
            let help = "paths are relative to the folder of the experiment file".to_owned();
            let missing = message.contains("cannot be read");
            reader.error(place, message, missing.then_some(help));
            return None;
        }
    };
    for (file, content) in named.iter().zip(hashes) {
        let content = content.map(|content| content.to_hex());
        let content = json!(content.as_ref().map(|content| content.as_str()));
        match file.keys {
            ["dictionary", ..] => {
                canonical["dictionary"]["vectors"] = json!({ "file": content, "tensor": file.tensor })
            }
            ["correlation", ..] => canonical["correlation"] = json!({ "matrix": content, "tensor": file.tensor }),
            _ => model.push(content),
        }
    }
    if !model.is_empty() {
        canonical["synthetic_model"] = Json::Array(model);
    }
    Some(canonical)
}

/// `fewest`: features of the world that has the fewest.
fn method_table(
    document: &Document,
    lengths: &[usize],
    method: Method,
    fewest: usize,
    uses: &Mutex<Uses>,
) -> Result<PartTable, Vec<Diagnostic>> {
    let axes = touching(document, method, &method.parts());
    table(document, lengths, axes, uses, |choice, reader| match method {
        Method::None => Some((part_hash(&json!(null)), Facts::default())),
        Method::Sae(i) => {
            let (entry, train) = read_sae(document, i, choice, reader)?;
            if let Some(node) = document.part(Part::Sae(i), choice) {
                check::truth_with_norm(&entry, &node, fewest, reader);
            }
            let canonical = json!({
                "sae": EntryOf::<SaeKind>::canonical(&entry),
                "train": SaeTrainSection::canonical(&train),
            });
            let work = train.steps as f64 * train.batch_size as f64;
            let steps = train.steps as u64;
            let facts = Facts { n_latents: entry.kind.n_latents(), work, steps, ..Facts::default() };
            Some((part_hash(&canonical), facts))
        }
        Method::Baseline(i) => {
            let entry = read_baseline(document, i, choice, reader)?;
            if let Some(node) = document.part(Part::Baseline(i), choice) {
                check::baseline_uses(&entry.kind, &node, reader);
            }
            let canonical = json!({ "baseline": EntryOf::<BaselineKind>::canonical(&entry) });
            let trained = |train: &SaeTrainSection| Facts {
                work: train.steps as f64 * train.batch_size as f64,
                steps: train.steps as u64,
                ..Facts::default()
            };
            let facts = entry.kind.training().map(trained).unwrap_or_default();
            Some((part_hash(&canonical), facts))
        }
    })
}

/// A part's node as written, for the place of an error across parts.
pub fn place_in(document: &Document, part: Part, path: &[&str], choice: &[usize]) -> crate::spec::diagnostic::Place {
    let node = document.part(part, choice).unwrap_or(Node { place: document.root.place, value: Value::Null });
    node.at(path.iter().copied()).map_or(node.place, |n| n.place)
}
