//! A whole file: read from disk, parsed, its axes laid over it, every error noted.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::activations;
use super::baseline::BaselineKind;
use super::diagnostic::{Diagnostic, Place, SpecError, nearest};
use super::entry::{entry_kind, entry_name};
use super::experiment::Experiment;
use super::explain;
use super::kind::{Kind, Reader, Shape};
use super::node::{self, Node, Value};
use super::sae::SaeKind;
use super::sweep::{self, Axis};
use super::synthetic;
use crate::score::input::{self, Problem};

/// Greatest size of an experiment file.
const MOST_BYTES: u64 = 4 << 20;

/// A checked file.
#[derive(Clone, Debug)]
pub struct Document {
    pub file: String,
    pub source: String,
    /// The tree with the first value of every axis in place.
    pub root: Node,
    /// What the tree says.
    pub experiment: Experiment,
    pub axes: Vec<Axis>,
    /// `[axis][path]`: the places in the tree that a path means.
    pub targets: Vec<Vec<Vec<Target>>>,
}

/// A place below one part of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub part: Part,
    pub path: Vec<String>,
}

/// The parts that cells are put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Data,
    Toy,
    Evaluate,
    /// Entry of `sae`.
    Sae(usize),
    SaeTrain,
    /// Entry of `baselines`.
    Baseline(usize),
}

impl Part {
    /// The part's subtree.
    pub fn node(self, root: &Node) -> Option<&Node> {
        let item = |key: &str, i: usize| match &root.get(key)?.value {
            Value::List(items) => items.get(i),
            _ => None,
        };
        match self {
            Part::Data => root.get("data"),
            Part::Toy => root.get("toy"),
            Part::Evaluate => root.get("evaluate"),
            Part::SaeTrain => root.get("sae_train"),
            Part::Sae(i) => item("sae", i),
            Part::Baseline(i) => item("baselines", i),
        }
    }
}

impl Document {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Document, SpecError> {
        let (file, source) = Document::text(path)?;
        Document::read(&file, &source)
    }

    /// A file's name in messages and its text, unread.
    pub fn text(path: &Path) -> Result<(String, String), SpecError> {
        let file = path.display().to_string();
        match read_text(path) {
            Ok(source) => Ok((file, source)),
            Err((place, message, help)) => {
                let diagnostics = vec![Diagnostic { place, message, help }];
                Err(SpecError { file, source: String::new(), diagnostics })
            }
        }
    }

    /// Checks a text; `file` is its name in messages.
    pub fn read(file: &str, source: &str) -> Result<Document, SpecError> {
        let mut root = node::parse(file, source)?;
        let mut reader = Reader::default();
        let fail = |mut diagnostics: Vec<Diagnostic>| {
            diagnostics.sort_by_key(|d| (d.place.line, d.place.column));
            SpecError { file: file.to_owned(), source: source.to_owned(), diagnostics }
        };
        if !matches!(root.value, Value::Map(_)) {
            let (place, message) = match root.value {
                Value::Null => (Place::START, "this file is empty".to_owned()),
                _ => (Place::START, format!("expected a mapping, got {}", root.describe())),
            };
            reader.error(place, message, Some("start from `tegum init NAME`, or from name, data and toy".to_owned()));
            return Err(fail(reader.diagnostics));
        }
        let worldless = activations::stand_in(&mut root, &mut reader);
        let axes = sweep::axes(root.get("sweep"), root.get("zip"), &mut reader);
        let mut targets = Vec::new();
        for axis in &axes {
            let per_path: Vec<Vec<Target>> = axis
                .paths
                .iter()
                .map(|p| {
                    find_targets(&root, &p.path).unwrap_or_else(|(message, help)| {
                        reader.error(p.place, message, Some(help));
                        vec![]
                    })
                })
                .collect();
            for (path, targets) in axis.paths.iter().zip(&per_path) {
                if let Some(first) = path.values.first() {
                    for target in targets {
                        target.put(&mut root, first.clone());
                    }
                }
            }
            targets.push(per_path);
        }
        synthetic::expand(&mut root, &folder_of(file), &axes, &mut reader);
        let experiment = Experiment::read(&root, &mut reader);
        if let Some(experiment) = &experiment {
            check_whole(experiment, &root, &mut reader);
        }
        if worldless {
            activations::check_axes(&axes, &targets, &mut reader);
        }
        match experiment {
            Some(experiment) if reader.diagnostics.is_empty() => {
                Ok(Document { file: file.to_owned(), source: source.to_owned(), root, experiment, axes, targets })
            }
            _ => Err(fail(reader.diagnostics)),
        }
    }

    /// The folder that file names in the experiment are relative to.
    pub fn folder(&self) -> PathBuf {
        folder_of(&self.file)
    }

    /// An error about this file.
    pub fn error(&self, mut diagnostics: Vec<Diagnostic>) -> SpecError {
        diagnostics.sort_by_key(|d| (d.place.line, d.place.column));
        SpecError { file: self.file.clone(), source: self.source.clone(), diagnostics }
    }

    /// A part's subtree with the values of axes that touch it in place; `choice` has an index for every axis.
    pub fn part(&self, part: Part, choice: &[usize]) -> Option<Node> {
        let mut node = part.node(&self.root)?.clone();
        for (axis, (paths, targets)) in self.axes.iter().zip(&self.targets).enumerate() {
            for (path, targets) in paths.paths.iter().zip(targets) {
                for target in targets.iter().filter(|t| t.part == part) {
                    target.put_below(&mut node, path.values[choice[axis]].clone());
                }
            }
        }
        Some(node)
    }

    /// Where the value that an axis replaces was written, if it was.
    pub fn written(&self, target: &Target) -> Option<Place> {
        let root = node::parse(&self.file, &self.source).ok()?;
        let node = target.part.node(&root)?;
        node.at(target.path.iter().map(String::as_str)).map(|n| n.place)
    }

    /// Whether an axis touches a part.
    pub fn touches(&self, axis: usize, part: Part) -> bool {
        self.targets[axis].iter().flatten().any(|t| t.part == part)
    }
}

/// Folder of a run directory that keeps what its experiments name, in a folder for each set of files.
pub const INPUTS: &str = "inputs";

/// The folder that names of files are relative to: that of the experiment, or what a run directory keeps of it.
fn folder_of(file: &str) -> PathBuf {
    let folder = Path::new(file).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    // The spec of a run directory, or that of one of its plans.
    let plan = match &*name {
        "spec.yaml" => text("current-plan"),
        name => name.strip_prefix("spec-").and_then(|rest| rest.strip_suffix(".yaml")).map(str::to_owned),
    };
    if let Some(plan) = plan {
        let set = text(&format!("{INPUTS}/plan-{}", plan.trim()));
        let is_hash = |set: &String| !set.is_empty() && set.bytes().all(|byte| byte.is_ascii_hexdigit());
        // Directories of before had the files beside the experiment.
        return set.filter(is_hash).map_or_else(|| folder.clone(), |set| folder.join(INPUTS).join(set));
    }
    folder
}

impl Target {
    fn put(&self, root: &mut Node, value: Node) {
        let (key, index) = match self.part {
            Part::Data => ("data", None),
            Part::Toy => ("toy", None),
            Part::Evaluate => ("evaluate", None),
            Part::SaeTrain => ("sae_train", None),
            Part::Sae(i) => ("sae", Some(i)),
            Part::Baseline(i) => ("baselines", Some(i)),
        };
        match index {
            None => {
                let path: Vec<&str> = std::iter::once(key).chain(self.path.iter().map(String::as_str)).collect();
                root.put(&path, value);
            }
            Some(i) => {
                let Value::Map(entries) = &mut root.value else { return };
                let Some((_, Node { value: Value::List(items), .. })) = entries.iter_mut().find(|(k, _)| k.text == key)
                else {
                    return;
                };
                self.put_below(&mut items[i], value);
            }
        }
    }

    fn put_below(&self, node: &mut Node, value: Node) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        node.put(&path, value);
    }
}

/// What a dotted path means in this file; on failure a message and help.
fn find_targets(root: &Node, path: &str) -> Result<Vec<Target>, (String, String)> {
    let keys: Vec<&str> = path.split('.').collect();
    refuse_missing_entries(root, &keys)?;
    let owned = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    let part = match keys[0] {
        "data" => Part::Data,
        "toy" => Part::Toy,
        "evaluate" => Part::Evaluate,
        "sae_train" => Part::SaeTrain,
        section => return entry_targets(root, section, &keys),
    };
    Ok(vec![Target { part, path: owned(&keys[1..]) }])
}

/// A path through the entry of a list needs that list.
fn refuse_missing_entries(root: &Node, keys: &[&str]) -> Result<(), (String, String)> {
    for (depth, key) in keys.iter().enumerate().filter(|(_, key)| explain::is_entry(key)) {
        let list = keys[..depth].join(".");
        match root.at(keys[..depth].iter().copied()).map(|node| &node.value) {
            Some(Value::List(items)) if root.at(keys[..=depth].iter().copied()).is_none() => {
                let help = format!("its entries run from 0 to {}", items.len().saturating_sub(1));
                return Err((format!("`{list}` has {} entries and none of number {key}", items.len()), help));
            }
            Some(Value::List(_)) => {}
            _ => {
                let help = format!("write `{list}` as a list, one entry per feature");
                return Err((format!("`{list}` is no list, so it has no entry {key}"), help));
            }
        }
    }
    Ok(())
}

fn entry_targets(root: &Node, section: &str, keys: &[&str]) -> Result<Vec<Target>, (String, String)> {
    let Some(Node { value: Value::List(items), .. }) = root.get(section) else {
        return Err((format!("there is no list `{section}` for this axis"), format!("add a `{section}:` section")));
    };
    let names: Vec<&str> = items.iter().filter_map(entry_name).collect();
    let mut targets = Vec::new();
    for (i, item) in items.iter().enumerate() {
        if keys[1] != "*" && entry_name(item) != Some(keys[1]) {
            continue;
        }
        let part = if section == "sae" { Part::Sae(i) } else { Part::Baseline(i) };
        let rest: Vec<String> = keys[2..].iter().map(|k| (*k).to_owned()).collect();
        let Some(kind) = entry_kind(item) else { continue };
        if keys[2] == "train" && section == "sae" {
            targets.push(Target { part, path: rest });
        } else if keys[1] != "*" || has_field(section, kind, &keys[2..]) {
            targets.push(Target { part, path: std::iter::once(kind.to_owned()).chain(rest).collect() });
        }
    }
    if targets.is_empty() && keys[1] == "*" {
        let what = keys[2..].join(".");
        return Err((format!("no entry of `{section}` has `{what}`"), format!("entries: {}", names.join(", "))));
    }
    if targets.is_empty() {
        let help = match nearest(keys[1], names.iter().copied()) {
            Some(near) => format!("did you mean `{section}.{near}`? entries: {}", names.join(", ")),
            None => format!("entries: {}", names.join(", ")),
        };
        return Err((format!("no entry of `{section}` is called `{}`", keys[1]), help));
    }
    Ok(targets)
}

fn has_field(section: &str, kind: &str, rest: &[&str]) -> bool {
    let shape = if section == "sae" { SaeKind::shape() } else { BaselineKind::shape() };
    let Shape::Choice(choice) = shape else { return false };
    let settings = choice.options.iter().find(|o| o.name == kind).and_then(|o| o.shape).map(|s| s());
    matches!(settings, Some(Shape::Record(record)) if record.fields.iter().any(|f| f.name == rest[0]))
}

/// A finite training set, which only toy models are trained on.
fn check_dataset(experiment: &Experiment, root: &Node, reader: &mut Reader) {
    if experiment.data.dataset.is_none() {
        return;
    }
    let place = |path: &[&str]| root.at(path.iter().copied()).map_or(root.place, |n| n.place);
    let dataset = place(&["data", "dataset"]);
    if experiment.data.dictionary.is_some() {
        let help = "train a `toy` model on it, or leave `dataset` out".to_owned();
        reader.error(dataset, "`dataset` is what toy models are trained on, and there is none", Some(help));
    }
    for key in ["sae", "baselines"] {
        if root.get(key).is_some_and(|node| !matches!(&node.value, Value::List(items) if items.is_empty())) {
            let message = format!("`{key}` would train on fresh samples, and `data.dataset` makes a finite set");
            let help = format!("leave `{key}` out, or `data.dataset` (line {})", dataset.line);
            reader.error(place(&[key]), message, Some(help));
        }
    }
}

/// What no single section can see.
fn check_whole(experiment: &Experiment, root: &Node, reader: &mut Reader) {
    let place = |path: &[&str]| root.at(path.iter().copied()).map_or(root.place, |n| n.place);
    match (&experiment.toy, &experiment.data.dictionary) {
        (Some(_), Some(_)) => {
            let message = format!(
                "both `toy` (line {}) and `data.dictionary` make hidden states",
                root.get("toy").map_or(0, |n| n.place.line)
            );
            reader.error(place(&["data", "dictionary"]), message, Some("keep one of them".to_owned()));
        }
        (None, None) if experiment.activations.is_some() => {}
        (None, None) => {
            let help = "add `toy: {d_hidden: 5}`, or `data.dictionary: {d_hidden: 20}` for fixed directions";
            reader.error(place(&[]), "nothing makes hidden states", Some(help.to_owned()));
        }
        _ => {}
    }
    check_dataset(experiment, root, reader);
    let trace = &experiment.save.trace;
    if trace.features && trace.every == 0 {
        let help = "add `every: 100` beside it".to_owned();
        reader.error(place(&["save", "trace", "features"]), "`features` without `every` logs nothing", Some(help));
    }
    if trace.features && experiment.toy.is_none() {
        let message = "`features` follows a toy model's directions, and there is none";
        reader.error(place(&["save", "trace", "features"]), message, Some("leave it out".to_owned()));
    }
    let entries = experiment.sae.iter().map(|e| &e.name).chain(experiment.baselines.iter().map(|e| &e.name));
    let mut seen: HashSet<&String> = HashSet::new();
    for (i, name) in entries.enumerate() {
        if !seen.insert(name) {
            let n_saes = experiment.sae.len();
            let part = if i < n_saes { Part::Sae(i) } else { Part::Baseline(i - n_saes) };
            let place = part.node(root).map_or(root.place, |n| n.place);
            let help = "give each entry its own `name:`".to_owned();
            reader.error(place, format!("two methods are called `{name}`"), Some(help));
        }
    }
    if experiment.sae.is_empty() && root.get("sae_train").is_some() {
        reader.error(place(&["sae_train"]), "`sae_train` without `sae`", Some("add an entry to `sae`".to_owned()));
    }
    if let (super::output::ReduceRule::LowestLoss, None) = (&experiment.reduce.seeds, &experiment.toy) {
        let help = "use mean, or none".to_owned();
        reader.error(place(&["reduce"]), "lowest_loss speaks of the toy model's loss, and there is none", Some(help));
    }
}

/// File to text, or (place, message, help). What is wrong with a file as a whole stands at its start.
fn read_text(path: &Path) -> Result<String, (Place, String, Option<String>)> {
    let fail = |message: String, help: Option<String>| (Place::START, message, help);
    let bytes = match input::open(path) {
        Ok((_, length)) if length > MOST_BYTES => {
            let help = "an experiment is a page of YAML; large arrays belong into files that it names".to_owned();
            return Err(fail(format!("{length} bytes; an experiment has at most {MOST_BYTES}"), Some(help)));
        }
        Ok((file, _)) => {
            let mut bytes = Vec::new();
            match file.take(MOST_BYTES + 1).read_to_end(&mut bytes) {
                Ok(_) => bytes,
                Err(error) => return Err(unreadable(path, &error)),
            }
        }
        Err(Problem::NotAFile) => {
            return Err(fail("not a regular file".into(), Some("give the path of a .yaml file".into())));
        }
        Err(Problem::Unreadable(error)) => return Err(unreadable(path, &error)),
        Err(problem) => return Err(fail(problem.to_string(), None)),
    };
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(fail("this file is UTF-16".into(), Some("save it as UTF-8".into())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line_start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count() as u32;
        // All before the byte is UTF-8.
        let column = 1 + String::from_utf8_lossy(&bytes[line_start..at]).chars().count() as u32;
        let message = format!("not UTF-8: byte 0x{:02X} at offset {at}, line {line}", bytes[at]);
        (Place { line, column, length: 1 }, message, Some("save it as UTF-8".into()))
    })
}

/// Why a file cannot be read, and what to do.
fn unreadable(path: &Path, error: &std::io::Error) -> (Place, String, Option<String>) {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    use std::os::unix::fs::MetadataExt;
    let (message, help) = match error.kind() {
        NotFound => ("no such file".to_owned(), similar_files(path)),
        PermissionDenied => {
            let me = rustix::process::geteuid().as_raw();
            let message = match fs::metadata(path) {
                Ok(file) => format!(
                    "user {me} may not read it: it belongs to user {} and has mode {:04o}",
                    file.uid(),
                    file.mode() & 0o7777
                ),
                Err(_) => format!("user {me} may not look into the folder that it is in"),
            };
            (message, Some("give read permission: chmod +r FILE, and chmod +x on its folders".to_owned()))
        }
        _ => (format!("cannot be read: {error}"), None),
    };
    (Place::START, message, help)
}

/// Experiment files beside the missing one whose names are near.
fn similar_files(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml") || name.ends_with(".yml"))
        .collect();
    names.sort();
    let wanted = path.file_name()?.to_str()?;
    match nearest(wanted, names.iter().map(String::as_str)) {
        Some(near) => Some(format!("did you mean {}?", folder.join(near).display())),
        None if names.is_empty() => None,
        None => Some(format!("there: {}", names.join(", "))),
    }
}

/// The schema's own words for an axis path, for column types: "integer", "number" or "string".
pub fn axis_type(path: &str, root: &Node) -> &'static str {
    let keys: Vec<&str> = path.split('.').collect();
    let Ok(targets) = find_targets(root, path) else { return "string" };
    let section = match keys[0] {
        "sae" | "baselines" => {
            let Some(target) = targets.first() else { return "string" };
            let mut path = vec![keys[0]];
            path.extend(target.path.iter().map(String::as_str));
            if target.path.first().is_some_and(|k| k == "train") {
                path = std::iter::once("sae_train").chain(target.path[1..].iter().map(String::as_str)).collect();
            }
            return explain::leaf_type(&path);
        }
        _ => keys,
    };
    explain::leaf_type(&section)
}
