//! Which scores the rows of an experiment have.

use super::{given, widths};
use crate::figure::FigureSpec;
use crate::score::{self, Definition, Index, Need};
use crate::spec::baseline::BaselineKind;
use crate::spec::diagnostic::{Diagnostic, SpecError};
use crate::spec::document::Document;
use crate::spec::figure::SeedsSection;
use crate::spec::node::Value;
use crate::spec::output::ReduceRule;
use crate::store::{Column, Kind};
use crate::table::Standards;

/// A column of the rows that a score fills.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreColumn {
    /// As asked for: `mcc`, `norm_last`.
    pub name: String,
    pub definition: &'static Definition,
    /// Which entry of a vector.
    pub index: Option<Index>,
}

impl ScoreColumn {
    pub fn column(&self) -> Column {
        let kind = match self.definition.kind {
            score::Kind::Word => Kind::Text,
            _ => Kind::Float,
        };
        Column::new(self.name.clone(), kind)
    }
}

/// Vector scores that the table `features` has for every cell.
pub const SIDE_VECTORS: [&str; 4] = ["norm", "superposition", "dimensionality", "phase"];

/// What is wrong with a name of `score`.
struct Wrong {
    message: String,
    help: Option<String>,
}

impl Wrong {
    fn new(message: String) -> Wrong {
        Wrong { message, help: None }
    }

    fn with(message: String, help: String) -> Wrong {
        Wrong { message, help: Some(help) }
    }

    /// A score that is no number.
    fn vector(name: &str, definition: &Definition) -> Wrong {
        let (over, table) = match definition.shape {
            score::Shape::PerLatent => ("latents", ""),
            score::Shape::PerSample => ("training samples", "; all are in the table `samples`"),
            _ => ("features", ""),
        };
        let ways = Index::WAYS.map(|way| format!("`{}_{way}`", definition.name));
        let ways = if definition.kind == score::Kind::Word { &ways[..2] } else { &ways[..] };
        let help = format!("take one number of it: {}{table}", ways.join(", "));
        Wrong::with(format!("`{name}` is a vector over {over}"), help)
    }
}

/// What a document's cells can be scored on.
struct Offer {
    n_features: usize,
    /// Hidden states come from files: nothing is known of what made them.
    given: bool,
    toy: bool,
    method: bool,
    /// An oracle and a random dictionary among them.
    standards: bool,
    /// All hidden states are two-dimensional.
    flat: bool,
    theory: bool,
    training_set: bool,
    /// The toy model, where all cells have one kind.
    model: Option<&'static str>,
    /// Sets of features.
    groups: bool,
    /// Features with parents.
    parents: bool,
}

impl Offer {
    fn of(document: &Document) -> Offer {
        let experiment = &document.experiment;
        let swept = |path: &str| document.axes.iter().any(|a| a.paths.iter().any(|p| p.path == path));
        let d_hidden = match (&experiment.toy, &experiment.data.dictionary) {
            (Some(toy), _) if !swept("toy.d_hidden") => toy.d_hidden,
            (None, Some(dictionary)) if !swept("data.dictionary.d_hidden") => dictionary.d_hidden,
            _ => 0,
        };
        Offer {
            n_features: experiment.data.n_features,
            given: experiment.activations.is_some(),
            toy: experiment.toy.is_some(),
            method: !experiment.sae.is_empty() || !experiment.baselines.is_empty(),
            standards: standards(document).are_complete(),
            flat: d_hidden == 2,
            theory: experiment.toy.is_some(),
            training_set: document.root.at(["data", "dataset"]).is_some(),
            model: experiment.toy.as_ref().filter(|_| !swept("toy.model")).map(|toy| toy.model.key()),
            groups: !experiment.data.groups.is_empty(),
            parents: experiment.data.hierarchy.is_some() || sweeps_trees(document) || brings_trees(document),
        }
    }

    /// The column of the `i`-th of the `names` asked for; none where it stands beside the rows anyway or is added when they are read.
    fn column(&self, names: &[String], i: usize) -> Result<Option<ScoreColumn>, Wrong> {
        let name = &names[i];
        let Some((definition, index)) = score::parse_name(name) else {
            let all = "`tegum explain scores` lists them all";
            let near = score::suggest(name).map(|near| format!("did you mean `{near}`? {all}"));
            return Err(Wrong::with(format!("unknown score `{name}`"), near.unwrap_or_else(|| all.to_owned())));
        };
        if let Some(needed) = self.missing(definition) {
            return Err(Wrong::new(format!("`{name}` needs {needed}")));
        }
        let is_listed = || names[..i].contains(name);
        let of = definition.name.rsplit('_').next().unwrap_or_default();
        let n = self.n_features;
        let per_feature = definition.shape == score::Shape::PerFeature;
        match index {
            // These are in the table `features` anyway.
            None if SIDE_VECTORS.contains(&definition.name) => Ok(None),
            // Not of one cell: added when rows are read.
            None if definition.is_across_cells() && is_listed() => Err(Wrong::new(format!("`{name}` is listed twice"))),
            None if definition.is_across_cells()
                && definition.needs.contains(&Need::Baselines)
                && !names.iter().any(|other| other == of) =>
            {
                Err(Wrong::with(format!("`{name}` is made of `{of}`"), format!("add `{of}` to `score`")))
            }
            None if definition.is_across_cells() => Ok(None),
            None if definition.is_vector() => Err(Wrong::vector(name, definition)),
            Some(Index::At(at)) if per_feature && at >= n => {
                Err(Wrong::new(format!("`{name}`: there are {n} features, 0 to {}", n - 1)))
            }
            Some(Index::Rank(rank)) if per_feature && rank > n => {
                Err(Wrong::new(format!("`{name}`: there are {n} features, ranks 1 to {n}")))
            }
            _ if is_listed() => Err(Wrong::new(format!("`{name}` is listed twice"))),
            index => Ok(Some(ScoreColumn { name: name.clone(), definition, index })),
        }
    }

    /// What a score needs and this experiment does not have.
    fn missing(&self, definition: &Definition) -> Option<&'static str> {
        let of_widths = definition.needs.contains(&Need::OtherWidth);
        if self.given && !given::SCORES.contains(&definition.name) && !of_widths {
            return Some("a known truth, which activations from files come without");
        }
        definition.needs.iter().find_map(|need| match need {
            Need::Truth | Need::Features | Need::Hidden | Need::World => None,
            Need::Dictionary | Need::Latents | Need::Reconstruction | Need::Bias | Need::OtherWidth if self.method => {
                None
            }
            Need::Dictionary | Need::Latents | Need::Reconstruction | Need::Bias | Need::OtherWidth => {
                Some("a dictionary: an entry of `sae` or `baselines`")
            }
            Need::Baselines if self.standards => None,
            Need::Baselines => Some("an `oracle` and a `random` among the `baselines`"),
            Need::ToyModel if self.toy => None,
            Need::ToyModel => Some("a trained toy model"),
            Need::TrainingSet if self.training_set => None,
            Need::TrainingSet => Some("a finite training set: `data.dataset`"),
            Need::Theory if !self.theory => Some("a toy model with a closed form"),
            Need::Theory => match (definition.name, self.model) {
                ("theory_capacity", Some(model)) if model != "quadratic" => Some("a toy model of kind `quadratic`"),
                ("theory_capacity", _) | (_, None | Some("linear" | "relu_output")) => None,
                _ => Some("a toy model with a closed form: `relu_output` or `linear`"),
            },
            Need::Neurons => match self.model {
                None | Some("relu_hidden" | "absolute_value" | "mlp") => None,
                Some(_) => Some("a toy model with neurons: `relu_hidden`, `absolute_value` or `mlp`"),
            },
            Need::Groups if self.groups => None,
            Need::Groups => Some("sets of features: `data.groups`"),
            Need::Parents if self.parents => None,
            Need::Parents => Some("features with parents: `data.hierarchy`"),
        })
    }
}

/// Whether some value of an axis is a hierarchy: its cells have the scores of parents, the others have none.
fn sweeps_trees(document: &Document) -> bool {
    let paths = document.axes.iter().flat_map(|axis| &axis.paths);
    paths
        .filter(|p| p.path == "data.hierarchy")
        .flat_map(|p| &p.values)
        .any(|value| matches!(value.value, Value::Map(_)))
}

/// Whether the world comes from a folder with a hierarchy.
fn brings_trees(document: &Document) -> bool {
    document.experiment.data.files().iter().any(|file| file.optional && document.folder().join(&file.name).exists())
}

/// The score columns of a document: those asked for, or all scalars that apply.
pub fn score_columns(document: &Document) -> Result<Vec<ScoreColumn>, SpecError> {
    let offer = Offer::of(document);
    let Some(asked) = &document.experiment.score else { return Ok(all_of(&offer)) };
    let places: Vec<_> = match document.root.get("score").map(|n| &n.value) {
        // Names alone: pairs are an item with a key.
        Some(Value::List(items)) => {
            items.iter().filter(|n| !matches!(n.value, Value::Map(_))).map(|n| n.place).collect()
        }
        _ => vec![],
    };
    let (mut columns, mut errors): (Vec<ScoreColumn>, Vec<Diagnostic>) = (vec![], widths::wrong(document, &places));
    for i in 0..asked.names.len() {
        match offer.column(&asked.names, i) {
            Ok(column) => columns.extend(column),
            Err(Wrong { message, help }) => {
                errors.push(Diagnostic { place: places.get(i).copied().unwrap_or_default(), message, help })
            }
        }
    }
    columns.extend(loss_of_seeds(document, &offer, &columns));
    if errors.is_empty() { Ok(columns) } else { Err(document.error(errors)) }
}

/// Every score that the experiment has something for.
fn all_of(offer: &Offer) -> Vec<ScoreColumn> {
    let applies = |d: &&'static Definition| {
        // Gaps are for the plane: elsewhere the columns would be empty.
        let special = d.is_on_request() || d.name.starts_with("gap_") && !offer.flat;
        !d.is_vector() && !special && offer.missing(d).is_none()
    };
    let all = score::SCORES.iter().filter(applies);
    all.map(|d| ScoreColumn { name: d.name.to_owned(), definition: d, index: None }).collect()
}

/// The loss that tells seeds apart, where the best of them is wanted and it was not asked for.
fn loss_of_seeds(document: &Document, offer: &Offer, columns: &[ScoreColumn]) -> Option<ScoreColumn> {
    // Seeds are told apart by what was trained, the weighted loss, whether or not it was asked for.
    let has = |name: &str| columns.iter().any(|c| c.name == name);
    let by_loss = document.experiment.reduce.seeds == ReduceRule::LowestLoss;
    // A figure's own rule makes do with a plain loss that was asked for: cells that are there keep their ids.
    let in_figures = || {
        let mut rules = document.experiment.figures.iter().map(FigureSpec::seeds);
        offer.toy && !has("loss") && rules.any(|seeds| *seeds == SeedsSection::LowestLoss)
    };
    let definition = &score::LOSS_WEIGHTED;
    let is_wanted = !has(definition.name) && (by_loss || in_figures());
    is_wanted.then(|| ScoreColumn { name: definition.name.to_owned(), definition, index: None })
}

/// The baselines that rows are compared with.
pub fn standards(document: &Document) -> Standards {
    let entries = &document.experiment.baselines;
    let names = |is: fn(&BaselineKind) -> bool| {
        let of_kind = entries.iter().filter(|entry| is(&entry.kind));
        of_kind.map(|entry| entry.name.clone()).collect::<Vec<String>>()
    };
    Standards {
        oracles: names(|kind| matches!(kind, BaselineKind::Oracle(_))),
        randoms: names(|kind| matches!(kind, BaselineKind::Random(_))),
    }
}

/// Versions of everything that makes a row's numbers, in one text: part of every cell's id.
pub fn algorithms(columns: &[ScoreColumn]) -> String {
    let mut parts = vec![
        format!("data:{}", crate::data::law::VERSION),
        format!("toy:{}", crate::toy::VERSION),
        format!("sae:{}", crate::sae::VERSION),
        format!("baseline:{}", crate::baseline::VERSION),
    ];
    let mut scores: Vec<String> = columns.iter().map(|c| format!("{}:{}", c.name, c.definition.version)).collect();
    scores.sort();
    parts.extend(scores);
    parts.join(" ")
}
