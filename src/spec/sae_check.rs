//! What the settings of a sparse autoencoder must satisfy together.

use super::diagnostic::Place;
use super::entry::Entry;
use super::kind::Reader;
use super::node::{Node, Value};
use super::sae::{
    InitSection, KAnnealSection, MatryoshkaSection, PrefixesSection, ResampleSection, SaeKind, SparsitySection,
};

/// The settings of one entry as written, with their place.
struct Settings<'a> {
    node: &'a Node,
    n_latents: usize,
    reader: &'a mut Reader,
}

impl Settings<'_> {
    fn place(&self, path: &[&str]) -> Place {
        self.node.at(path.iter().copied()).unwrap_or(self.node).place
    }

    fn width_line(&self) -> u32 {
        self.place(&["n_latents"]).line
    }

    /// A number of active latents is at most the width.
    fn at_most_width(&mut self, path: &[&str], value: f64, help: &str) {
        if value > self.n_latents as f64 {
            let name = path[path.len() - 1];
            let message =
                format!("{name} = {value} is greater than n_latents = {} (line {})", self.n_latents, self.width_line());
            self.reader.error(self.place(path), message, Some(help.to_owned()));
        }
    }

    /// Active latents, and where they come down from.
    fn k(&mut self, path: &[&str], k: f64, anneal: &Option<KAnnealSection>) {
        let help = "at most n_latents latents can be active";
        self.at_most_width(&[path, &["k"]].concat(), k, help);
        if let Some(anneal) = anneal {
            self.at_most_width(&[path, &["k_anneal", "from"]].concat(), anneal.from, help);
        }
    }

    /// A coefficient or a wanted L0, one of them.
    fn led(&mut self, path: &[&str], key: &str, coefficient: Option<f64>, target: Option<f64>, needed: bool) {
        let at = |key| [path, &[key]].concat();
        match (coefficient, target) {
            (Some(_), Some(_)) => {
                let line = self.place(&at("target_l0")).line;
                let message = format!("`{key}` and `target_l0` (line {line}) are both given");
                let help = format!("with target_l0 the coefficient is found in training: leave `{key}` out");
                self.reader.error(self.place(&at(key)), message, Some(help));
            }
            (None, None) if needed => {
                let message = format!("`{key}` or `target_l0` is needed");
                let help = format!("for example `{key}: 0.05`, or `target_l0: 2` to have it found in training");
                self.reader.error(self.place(path), message, Some(help));
            }
            _ => {}
        }
        if let Some(target) = target {
            self.at_most_width(&at("target_l0"), target, "that many latents cannot be active");
        }
        for rule in ["target_rate", "target_approach", "target_tolerance"] {
            let message = format!("`{rule}` has no effect without `target_l0`");
            let help = format!("leave it out, or give `target_l0` in place of `{key}`");
            self.needs(&at(rule), target.is_some(), &message, &help);
        }
    }

    /// A setting that comes to nothing unless `used`, if it is written.
    fn needs(&mut self, path: &[&str], used: bool, message: &str, help: &str) {
        if let Some(written) = self.node.at(path.iter().copied()).filter(|node| node.is_given()) {
            self.reader.uses.note(written.place, used, message, help);
        }
    }

    fn resample(&mut self, section: &Option<ResampleSection>) {
        if section.as_ref().is_some_and(|resample| resample.at.is_empty()) {
            let help = "leave `at` out for the default steps, or `resample` for none".to_owned();
            self.reader.error(self.place(&["resample", "at"]), "no step at which to resample", Some(help));
        }
    }
}

/// Training settings that an entry has no use for.
pub fn sae_train_uses(kind: &SaeKind, train: &Node, reader: &mut Reader) {
    let Some(dead_after) = train.get("dead_after") else { return };
    // Resampling has a window of its own, and the score `dead` is taken on the evaluation.
    let used = match kind {
        SaeKind::Relu(s) => s.aux_k > 0,
        SaeKind::TopK(s) => s.aux_k != Some(0),
        SaeKind::BatchTopK(s) => s.aux_k != Some(0),
        SaeKind::Gated(s) => s.aux_k > 0,
        SaeKind::JumpRelu(s) => s.aux_k > 0 || s.dead_loss > 0.0,
        SaeKind::Matryoshka(s) => has_auxiliary_loss(s),
        SaeKind::MatchingPursuit(_) => false,
    };
    let message = "`dead_after` has no effect: no autoencoder that it speaks of has a loss for dead latents";
    let help = "leave it out, or give an `aux_k`; `resample` has its own `window`";
    reader.uses.note(dead_after.place, used, message, help);
}

fn has_auxiliary_loss(section: &MatryoshkaSection) -> bool {
    match section.aux_k {
        Some(aux_k) => aux_k > 0,
        None => section.relu.is_none(),
    }
}

/// A norm of initial rows beside `init: truth`, in worlds of which the smallest has `fewest` features: rows start at its
/// directions, which are unit, and only latents beyond them keep the norm.
pub fn truth_with_norm(entry: &Entry<SaeKind>, node: &Node, fewest: usize, reader: &mut Reader) {
    let (init, n_latents) = match &entry.kind {
        SaeKind::Relu(s) => (&s.init, s.n_latents),
        SaeKind::TopK(s) => (&s.init, s.n_latents),
        SaeKind::BatchTopK(s) => (&s.init, s.n_latents),
        SaeKind::Gated(s) => (&s.init, s.n_latents),
        SaeKind::JumpRelu(s) => (&s.init, s.n_latents),
        SaeKind::Matryoshka(s) => (&s.init, s.n_latents),
        // Its rows have no norm to set.
        SaeKind::MatchingPursuit(_) => return,
    };
    let Some(norm) = node.at([entry.kind.key(), "init_norm"]).filter(|node| node.is_given()) else { return };
    let used = *init == InitSection::Random || n_latents > fewest;
    let message = "`init_norm` has no effect beside `init: truth`: every row starts at a true direction";
    reader.uses.note(norm.place, used, message, "keep one of them");
}

/// A sparse autoencoder on activations from files: nothing is known but these.
pub fn sae_without_truth(entry: &Entry<SaeKind>, node: &Node, reader: &mut Reader) {
    let Some(init) = node.at([entry.kind.key(), "init"]) else { return };
    let truth = match &init.value {
        Value::Scalar { text, .. } => text == "truth",
        _ => init.get("truth").is_some(),
    };
    if truth {
        let message = "`init: truth` starts at the true directions, and activations from files come without them";
        reader.error(init.place, message, Some("leave it out".to_owned()));
    }
}

/// A sparse autoencoder.
pub fn sae(entry: &Entry<SaeKind>, node: &Node, reader: &mut Reader) {
    let node = node.get(entry.kind.key()).unwrap_or(node);
    let mut settings = Settings { node, n_latents: entry.kind.n_latents(), reader };
    match &entry.kind {
        SaeKind::Relu(s) => {
            settings.led(&[], "l1", s.l1, s.target_l0, true);
            settings.resample(&s.resample);
        }
        SaeKind::TopK(s) => {
            settings.k(&[], s.k as f64, &s.k_anneal);
            settings.resample(&s.resample);
        }
        SaeKind::BatchTopK(s) => {
            settings.k(&[], s.k, &s.k_anneal);
            settings.resample(&s.resample);
        }
        SaeKind::Gated(s) => {
            settings.led(&[], "l1", s.l1, s.target_l0, true);
            settings.resample(&s.resample);
        }
        SaeKind::JumpRelu(s) => {
            settings.led(&[], "l0", s.l0, s.target_l0, true);
            if let SparsitySection::Quadratic(quadratic) = &s.sparsity {
                let path = ["sparsity", "quadratic", "target"];
                settings.at_most_width(&path, quadratic.target, "that many latents cannot be active");
            }
            settings.resample(&s.resample);
        }
        SaeKind::Matryoshka(s) => {
            matryoshka(s, &mut settings);
            settings.resample(&s.resample);
        }
        SaeKind::MatchingPursuit(s) => {
            settings.k(&[], s.k as f64, &None);
            settings.resample(&s.resample);
        }
    }
}

fn matryoshka(section: &MatryoshkaSection, settings: &mut Settings) {
    let given = [section.relu.is_some(), section.topk.is_some(), section.batch_topk.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        let message = "a matryoshka takes one of `relu`, `topk` and `batch_topk`";
        let help = "for example `batch_topk: {k: 2}`".to_owned();
        settings.reader.error(settings.place(&[]), message, Some(help));
    }
    if section.aux_by_level {
        let message = "`aux_by_level` has no effect without an auxiliary loss for dead latents";
        let help = "leave it out, or give an `aux_k` above 0";
        settings.needs(&["aux_by_level"], has_auxiliary_loss(section), message, help);
    }
    if let Some(relu) = &section.relu {
        settings.led(&["relu"], "l1", relu.l1, relu.target_l0, true);
    }
    if let Some(topk) = &section.topk {
        settings.k(&["topk"], topk.k as f64, &topk.k_anneal);
    }
    if let Some(batch) = &section.batch_topk {
        settings.k(&["batch_topk"], batch.k, &batch.k_anneal);
    }
    match &section.prefixes {
        PrefixesSection::Fixed(prefixes) => fixed(prefixes, settings),
        PrefixesSection::Sampled(sampled) => {
            let path = ["prefixes", "sampled", "count"];
            settings.at_most_width(&path, sampled.count as f64, "prefixes have different lengths from 1 to n_latents");
        }
    }
}

/// Ascending, the last the whole.
fn fixed(prefixes: &[usize], settings: &mut Settings) {
    let whole = settings.place(&["prefixes"]);
    let items = match settings.node.get("prefixes").map(|node| &node.value) {
        Some(Value::List(items)) => items.iter().map(|item| item.place).collect(),
        _ => vec![whole; prefixes.len()],
    };
    let Some(&last) = prefixes.last() else {
        let help = format!("for example `prefixes: [{}]`", settings.n_latents);
        settings.reader.error(whole, "no prefix: at least the whole is one", Some(help));
        return;
    };
    if let Some(i) = (1..prefixes.len()).find(|&i| prefixes[i] <= prefixes[i - 1]) {
        let message = format!("prefix {} after {}: prefixes are ascending", prefixes[i], prefixes[i - 1]);
        settings.reader.error(items[i], message, Some("sort them, each once".to_owned()));
        return;
    }
    if last != settings.n_latents {
        let line = settings.width_line();
        let message = format!("the last prefix is {last}, n_latents = {} (line {line})", settings.n_latents);
        let help = format!("end the list with {}", settings.n_latents);
        settings.reader.error(items[prefixes.len() - 1], message, Some(help));
    }
}
