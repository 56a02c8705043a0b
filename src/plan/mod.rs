//! 2. The plan: which cells, in which order, under which names.
//!
//! Axes that touch the world, the toy model or the evaluation come first, in file order; then seeds, then methods, then
//! the axes that touch a method alone. So cells that share a world, a toy model and a seed stand side by side and share
//! its training. A cell is kept as a few small numbers and an id; everything else is read from the document when needed.

use std::fmt;
use std::sync::OnceLock;

use serde_json::json;

use crate::spec::baseline::BaselineKind;
use crate::spec::diagnostic::{Diagnostic, SpecError};
use crate::spec::document::{Document, Part, axis_type};
use crate::spec::experiment::Experiment;
use crate::spec::kind::{Kind, Reader};
use crate::spec::node::{Node, Value};
use crate::spec::{check, data::DataSection, output::EvaluateSection, sae, toy::ToySection};

pub mod architecture;
pub mod chunk;
mod condition;
mod exclude;
pub mod files;
pub mod id;
mod linked;
pub mod made;
pub mod parts;
pub mod resolve;

pub use id::{CellId, NotACellId};
pub use parts::Method;
use parts::{Facts, Tables, spread};

/// One cell: indices into the plan's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellRef {
    /// Combination of the axes shared by all methods.
    pub stem: u32,
    /// Position in the list of seeds.
    pub seed: u32,
    pub method: u32,
    /// Combination of the axes that touch this method alone.
    pub variant: u32,
}

/// A column of the rows that an axis gives.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisColumn {
    /// Dotted path, `label` or `label.NAME`.
    pub name: String,
    pub kind: AxisKind,
    axis: usize,
    /// Which path of the axis; none for its label.
    path: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AxisKind {
    Int,
    Float,
    Text,
}

/// A value of an axis in one cell; null where the axis does not touch the cell.
#[derive(Clone, Debug, PartialEq)]
pub enum AxisValue {
    Null,
    Int(i64),
    Float(f64),
    Text(String),
}

impl fmt::Display for AxisValue {
    /// As it may be written in the file; null is `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AxisValue::Null => f.write_str("none"),
            AxisValue::Int(v) => write!(f, "{v}"),
            AxisValue::Float(v) => write!(f, "{v}"),
            AxisValue::Text(v) => f.write_str(v),
        }
    }
}

/// The ordered cells of an experiment.
#[derive(Clone, Debug)]
pub struct Plan {
    pub document: Document,
    pub methods: Vec<Method>,
    pub columns: Vec<AxisColumn>,
    pub cells: Vec<CellRef>,
    pub ids: Vec<CellId>,
    /// Estimated seconds of one core that a chunk takes.
    chunk_seconds: f64,
    /// Laid out when they are first asked for: of ten million cells that takes a second.
    chunks: OnceLock<Vec<chunk::Chunk>>,
    lengths: Vec<usize>,
    /// Axes that every method shares.
    stem_axes: Vec<usize>,
    /// `[method]`: axes that touch it alone.
    variant_axes: Vec<Vec<usize>>,
    tables: Tables,
    /// What the world is read from.
    pub files: files::Files,
}

/// What a cell's numbers depend on beside the file: see [`Plan::new`].
#[derive(Clone, Debug)]
pub struct Versions<'a> {
    /// Versions of scores and trainers, in canonical text.
    pub algorithms: &'a str,
    /// Arithmetic profile of the backend.
    pub profile: &'a str,
}

/// More cells than this need to be asked for.
pub const MOST_CELLS: u128 = 10_000_000;

/// More rows of snapshots than this for one cell are taken for a slip: about a gigabyte in memory.
pub const MOST_SNAPSHOT_ROWS: u64 = 10_000_000;

/// The sections of one cell, with every value fixed.
#[derive(Clone, Debug)]
pub struct Cell {
    pub data: DataSection,
    pub toy: Option<ToySection>,
    pub evaluate: EvaluateSection,
    pub method: CellMethod,
    pub seed: u64,
}

/// What is trained or put in the place of an autoencoder. Few are alive at a time, so their size is no matter.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum CellMethod {
    None,
    Sae(sae::SaeKind, sae::SaeTrainSection),
    Baseline(BaselineKind),
}

impl Plan {
    /// The cells of a document, checked whole, `exclude` applied; `most` bounds their number.
    pub fn new(document: Document, versions: &Versions, most: u128) -> Result<Plan, SpecError> {
        let methods = methods_of(&document);
        let lengths: Vec<usize> = document.axes.iter().map(|a| a.len).collect();
        check_size(&document, &lengths, methods.len(), versions, most)?;
        let files = files::Files::of(&document);
        let tables = Tables::build(&document, &lengths, &methods, &files).map_err(|e| document.error(e))?;
        let shared = |axis: usize| {
            let parts = [Part::Data, Part::Toy, Part::Evaluate];
            parts.iter().any(|p| document.touches(axis, *p))
        };
        let stem_axes: Vec<usize> = (0..lengths.len()).filter(|a| shared(*a)).collect();
        let variant_axes: Vec<Vec<usize>> = (tables.methods.iter())
            .map(|table| table.axes.iter().copied().filter(|a| !stem_axes.contains(a)).collect())
            .collect();
        let columns = columns_of(&document);
        let (cells, ids) = (Vec::new(), Vec::new());
        let chunk_seconds = chunk::SECONDS;
        let mut plan = Plan {
            document,
            methods,
            columns,
            cells,
            ids,
            chunk_seconds,
            chunks: OnceLock::new(),
            lengths,
            stem_axes,
            variant_axes,
            tables,
            files,
        };
        plan.check_across().map_err(|e| plan.document.error(e))?;
        plan.lay_out();
        exclude::apply(&mut plan)?;
        plan.name_cells(versions);
        plan.refuse_equal_cells()?;
        Ok(plan)
    }

    fn product(&self, axes: &[usize]) -> usize {
        axes.iter().map(|a| self.lengths[*a]).product()
    }

    fn lay_out(&mut self) {
        let seeds = self.document.experiment.seeds.len();
        let of_stem: usize = self.variant_axes.iter().map(|axes| self.product(axes)).sum();
        let mut cells = Vec::with_capacity(self.product(&self.stem_axes) * seeds * of_stem);
        for stem in 0..self.product(&self.stem_axes) as u32 {
            for seed in 0..seeds as u32 {
                for method in 0..self.methods.len() as u32 {
                    let variants = self.product(&self.variant_axes[method as usize]) as u32;
                    cells.extend((0..variants).map(|variant| CellRef { stem, seed, method, variant }));
                }
            }
        }
        self.cells = cells;
    }

    /// An index into every axis of the file; 0 for axes that do not touch the cell.
    pub fn choice(&self, cell: CellRef) -> Vec<usize> {
        let mut choice = vec![0; self.lengths.len()];
        spread(cell.stem as usize, &self.stem_axes, &self.lengths, &mut choice);
        spread(cell.variant as usize, &self.variant_axes[cell.method as usize], &self.lengths, &mut choice);
        choice
    }

    fn name_cells(&mut self, versions: &Versions) {
        use rayon::prelude::*;
        let seeds = &self.document.experiment.seeds;
        let scores = id::part_hash(&json!(self.document.experiment.score.as_ref().map(|score| &score.names)));
        let ids = self.cells.par_iter().with_min_len(1024).map(|cell| {
            let choice = self.choice(*cell);
            let of = |table: &parts::PartTable| table.hashes[table.index(&choice, &self.lengths)];
            let toy = self.tables.toy.as_ref().map_or([0; 32], &of);
            let method = of(&self.tables.methods[cell.method as usize]);
            let parts = [of(&self.tables.data), toy, of(&self.tables.evaluate), method, scores];
            id::cell_id(&parts, seeds[cell.seed as usize], versions.algorithms, versions.profile)
        });
        self.ids = ids.collect();
    }

    /// Two cells with the same settings would be one row.
    fn refuse_equal_cells(&self) -> Result<(), SpecError> {
        let Some(pair) = id::equal_ids(&self.ids) else { return Ok(()) };
        let told = |index: usize| {
            let cell = self.cells[index];
            let mut words: Vec<String> = (self.columns.iter())
                .map(|column| (column, self.axis_value(column, cell)))
                .filter(|(_, value)| *value != AxisValue::Null)
                .map(|(column, value)| format!("{} = {value}", column.name))
                .collect();
            words.extend(self.method_name(cell).map(str::to_owned));
            words.join(", ")
        };
        let key = ["sweep", "zip", "sae", "baselines"].into_iter().find_map(|key| self.document.root.get(key));
        let place = key.map_or(self.document.root.place, |n| n.place);
        let message = format!("two cells are the same: ({}) and ({})", told(pair[0]), told(pair[1]));
        let help = "an axis is overridden by another setting, or two methods have equal settings: leave one out";
        Err(self.document.error(vec![Diagnostic { place, message, help: Some(help.to_owned()) }]))
    }

    /// Facts of the parts of a cell: world, toy model, evaluation, method.
    pub fn facts(&self, cell: CellRef) -> [Facts; 4] {
        let choice = self.choice(cell);
        let of = |table: &parts::PartTable| table.facts[table.index(&choice, &self.lengths)];
        let toy = self.tables.toy.as_ref().map_or(Facts::default(), &of);
        [of(&self.tables.data), toy, of(&self.tables.evaluate), of(&self.tables.methods[cell.method as usize])]
    }

    /// The sections of a cell. They were read and checked when the plan was made.
    pub fn cell(&self, index: usize) -> Cell {
        let cell = self.cells[index];
        let choice = self.choice(cell);
        let mut reader = Reader::default();
        let method = match self.methods[cell.method as usize] {
            Method::None => Some(CellMethod::None),
            Method::Sae(i) => parts::read_sae(&self.document, i, &choice, &mut reader)
                .map(|(entry, train)| CellMethod::Sae(entry.kind, train)),
            Method::Baseline(i) => parts::read_baseline(&self.document, i, &choice, &mut reader)
                .map(|entry| CellMethod::Baseline(entry.kind)),
        };
        let read = "the plan's tables hold a checked value for every combination";
        Cell {
            data: parts::read_data(&self.document, &choice, &mut reader).expect(read),
            toy: parts::read_toy(&self.document, &choice, &mut reader),
            evaluate: parts::read_evaluate(&self.document, &choice, &mut reader).expect(read),
            method: method.expect(read),
            seed: self.document.experiment.seeds[cell.seed as usize],
        }
    }

    /// Name of the method, as rows have it.
    pub fn method_name(&self, cell: CellRef) -> Option<&str> {
        match self.methods[cell.method as usize] {
            Method::None => None,
            Method::Sae(i) => Some(&self.document.experiment.sae[i].name),
            Method::Baseline(i) => Some(&self.document.experiment.baselines[i].name),
        }
    }

    /// The value of a column in a cell.
    pub fn axis_value(&self, column: &AxisColumn, cell: CellRef) -> AxisValue {
        let touches =
            self.stem_axes.contains(&column.axis) || self.variant_axes[cell.method as usize].contains(&column.axis);
        if !touches {
            return AxisValue::Null;
        }
        let index = self.choice(cell)[column.axis];
        let axis = &self.document.axes[column.axis];
        match (column.path, &axis.label) {
            (Some(path), _) => typed(&axis.paths[path].values[index], column.kind),
            (None, Some(label)) => typed(&label.values[index], column.kind),
            (None, None) => AxisValue::Null,
        }
    }

    /// Whether two cells share world, toy model and seed.
    pub fn same_stem(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.cells[a], self.cells[b]);
        a.stem == b.stem && a.seed == b.seed
    }

    /// What no part can see alone: lengths of lists, signs of x, widths of baselines.
    fn check_across(&self) -> Result<(), Vec<Diagnostic>> {
        let mut reader = Reader::default();
        let lists = self.tables.toy.as_ref().is_some_and(|t| t.facts.iter().any(|f| f.importance > 0));
        let signs = self.tables.toy.as_ref().is_some_and(|t| t.facts.iter().any(|f| f.signed))
            && self.tables.data.facts.iter().any(|f| !f.signed);
        let baselines = self.methods.iter().any(|m| matches!(m, Method::Baseline(_)));
        let full = self.tables.toy.as_ref().is_some_and(|t| t.facts.iter().any(|f| f.batch_size.is_none()));
        let snapshots = self.document.experiment.save.trace.features;
        // Most plans have nothing to check across parts, and a million cells should not pay for it.
        let any = lists || signs || baselines || full || snapshots;
        let stems = if any { self.product(&self.stem_axes) } else { 0 };
        for stem in 0..stems {
            let mut choice = vec![0; self.lengths.len()];
            spread(stem, &self.stem_axes, &self.lengths, &mut choice);
            let data = self.tables.data.facts[self.tables.data.index(&choice, &self.lengths)];
            let toy = self.tables.toy.as_ref().map(|t| t.facts[t.index(&choice, &self.lengths)]);
            if let Some(toy) = toy
                && toy.importance > 0
                && toy.importance != data.n_features
            {
                let place = parts::place_in(&self.document, Part::Toy, &["importance"], &choice);
                let message = format!("importance has {} entries for {} features", toy.importance, data.n_features);
                reader.error(place, message, Some("give one entry per feature, a number, or a curve".to_owned()));
            }
            if toy.is_some_and(|t| t.batch_size.is_none()) && data.dataset == 0 {
                let place = parts::place_in(&self.document, Part::Toy, &["train", "batch_size"], &choice);
                let help = "add `data.dataset: {samples: ..}`, or give a number of samples".to_owned();
                reader.error(place, "a full batch needs a finite training set", Some(help));
            }
            self.refuse_many_snapshots(self.snapshot_rows(&data, &toy.unwrap_or_default()), &mut reader);
            if toy.is_some_and(|toy| toy.signed) && !data.signed {
                let place = parts::place_in(&self.document, Part::Toy, &["model"], &choice);
                let message = "absolute_value computes |x|, and in this world x is never negative";
                reader.error(place, message, Some("add `magnitude: {symmetric: 1}` to `data`".to_owned()));
            }
            let d_hidden = toy.map_or(data.d_hidden, |t| t.d_hidden);
            for (axes, method) in self.variant_axes.iter().zip(&self.methods) {
                let Method::Baseline(i) = method else { continue };
                for variant in 0..self.product(axes) {
                    spread(variant, axes, &self.lengths, &mut choice);
                    let entry = parts::read_baseline(&self.document, *i, &choice, &mut reader);
                    if let Some((entry, node)) = entry.zip(self.document.part(Part::Baseline(*i), &choice)) {
                        if self.document.experiment.activations.is_some() {
                            check::baseline_without_truth(&entry, &node, d_hidden, &mut reader);
                            continue;
                        }
                        check::baseline(&entry, &node, data.n_features, d_hidden, &mut reader);
                    }
                }
            }
            if !reader.diagnostics.is_empty() {
                break;
            }
        }
        if reader.diagnostics.is_empty() { Ok(()) } else { Err(reader.diagnostics) }
    }

    /// What is allowed but looks like a slip, or is not quite what was asked for: the first combination of each sort.
    pub fn doubts(&self) -> Vec<Diagnostic> {
        self.wide_toy().into_iter().chain(self.changed_correlation()).collect()
    }

    /// Random correlations that had to be changed to be some, for the first seed.
    fn changed_correlation(&self) -> Option<Diagnostic> {
        let here = |path: &str| path.starts_with("data.correlation");
        let swept = self.document.axes.iter().any(|axis| axis.paths.iter().any(|p| here(&p.path)));
        // A million combinations are not gone through where there is no correlation.
        if !swept && self.document.root.at(["data", "correlation"]).is_none() {
            return None;
        }
        let (axes, seed) = (&self.tables.data.axes, *self.document.experiment.seeds.first()?);
        (0..self.product(axes)).find_map(|at| {
            let mut choice = vec![0; self.lengths.len()];
            spread(at, axes, &self.lengths, &mut choice);
            self.correlation_of(&choice, seed)
        })
    }

    /// What a cell's random correlation lost when it was made one; none where nothing had to be changed.
    pub fn doubt_of_correlation(&self, index: usize) -> Option<Diagnostic> {
        let cell = self.cells[index];
        self.correlation_of(&self.choice(cell), self.document.experiment.seeds[cell.seed as usize])
    }

    fn correlation_of(&self, choice: &[usize], seed: u64) -> Option<Diagnostic> {
        let section = DataSection::read(&self.document.part(Part::Data, choice)?, &mut Reader::default())?;
        let message = format!("seed {seed}: {}", linked::changed(&section, seed)?);
        let place = parts::place_in(&self.document, Part::Data, &["correlation"], choice);
        Some(Diagnostic { place, message, help: None })
    }

    /// A toy model without a bottleneck.
    fn wide_toy(&self) -> Option<Diagnostic> {
        let toy = self.tables.toy.as_ref()?;
        let widest = toy.facts.iter().filter(|t| t.bottleneck).map(|t| t.d_hidden).max()?;
        // A million combinations are not gone through where none can be meant.
        let fewest = self.tables.data.facts.iter().map(|d| d.n_features).min()?;
        let stems = if widest > fewest { self.product(&self.stem_axes) } else { 0 };
        let mut choice = vec![0; self.lengths.len()];
        (0..stems).find_map(|stem| {
            spread(stem, &self.stem_axes, &self.lengths, &mut choice);
            let n = self.tables.data.facts[self.tables.data.index(&choice, &self.lengths)].n_features;
            let facts = toy.facts[toy.index(&choice, &self.lengths)];
            (facts.bottleneck && facts.d_hidden > n).then(|| Diagnostic {
                place: parts::place_in(&self.document, Part::Toy, &["d_hidden"], &choice),
                message: format!("d_hidden {} is wider than n_features {n}: no bottleneck", facts.d_hidden),
                help: Some(format!("nothing has to be left out; give {n} at most")),
            })
        })
    }

    /// Rows of the table `snapshots` of one cell.
    pub fn snapshot_rows(&self, data: &Facts, toy: &Facts) -> u64 {
        let trace = &self.document.experiment.save.trace;
        match trace.every {
            0 => 0,
            _ if !trace.features => 0,
            every => (toy.logged_steps.div_ceil(every as u64) + 2) * data.n_features as u64,
        }
    }

    fn refuse_many_snapshots(&self, rows: u64, reader: &mut Reader) {
        if rows <= MOST_SNAPSHOT_ROWS {
            return;
        }
        let every = self.document.experiment.save.trace.every as u64;
        let place = self.document.root.at(["save", "trace"]).map_or(self.document.root.place, |n| n.place);
        let message = format!("{rows} rows of snapshots for one cell; at most {MOST_SNAPSHOT_ROWS}");
        let help = format!("log every {} steps or more", every * rows.div_ceil(MOST_SNAPSHOT_ROWS));
        reader.error(place, message, Some(help));
    }

    /// The experiment with every default filled in.
    pub fn canonical(&self) -> serde_json::Value {
        <Experiment as Kind>::canonical(&self.document.experiment)
    }

    /// Complaints about settings that come to nothing in every cell. They do no harm to rows, and are no reason not to read them.
    pub fn idle(&self) -> &[Diagnostic] {
        &self.tables.idle
    }

    /// Hash over everything that decides the rows: the name, the columns and the ids in their order.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("tegum 2026 plan v1");
        hasher.update(self.document.experiment.name.as_bytes());
        for column in &self.columns {
            hasher.update(&(column.name.len() as u64).to_le_bytes());
            hasher.update(column.name.as_bytes());
        }
        for id in &self.ids {
            hasher.update(&id.0);
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

fn methods_of(document: &Document) -> Vec<Method> {
    let (saes, baselines) = (document.experiment.sae.len(), document.experiment.baselines.len());
    let mut methods: Vec<Method> = (0..saes).map(Method::Sae).chain((0..baselines).map(Method::Baseline)).collect();
    if methods.is_empty() {
        methods.push(Method::None);
    }
    methods
}

/// Bytes of a row on disk beside its scores, roughly.
const ROW_BYTES: f64 = 200.0;

/// Time, rows and disk of this many cells in words, going by the first; none where there is no first.
fn size_of(document: &Document, cells: f64, versions: &Versions) -> Option<String> {
    let mut first = document.clone();
    for axis in &mut first.axes {
        axis.len = 1;
        axis.paths.iter_mut().for_each(|path| path.values.truncate(1));
        axis.label.iter_mut().for_each(|label| label.values.truncate(1));
    }
    first.experiment.seeds.truncate(1);
    let plan = Plan::new(first, versions, MOST_CELLS).ok()?;
    let work: f64 = (0..plan.cells.len()).map(|index| plan.work(index)).map(|(stem, own)| stem + own).sum();
    let each = work / plan.cells.len() as f64;
    let time = chunk::duration(each * cells / chunk::SPEED);
    Some(format!("roughly {time} of one core, {cells:.1e} rows and {} of disk", chunk::bytes(ROW_BYTES * cells)))
}

fn check_size(
    document: &Document,
    lengths: &[usize],
    methods: usize,
    versions: &Versions,
    most: u128,
) -> Result<(), SpecError> {
    let factors: Vec<usize> = lengths.iter().copied().chain([document.experiment.seeds.len(), methods]).collect();
    let product = factors.iter().try_fold(1u128, |product, f| product.checked_mul(*f as u128));
    if product.is_some_and(|product| product <= most) {
        return Ok(());
    }
    let place = document.root.get("sweep").or(document.root.get("seeds")).map_or(document.root.place, |n| n.place);
    let shown: Vec<String> = factors.iter().map(usize::to_string).collect();
    let total = product.map_or("more than 2^128".to_owned(), |p| p.to_string());
    let message = format!("{total} cells ({}: axes, seeds, methods); at most {most}", shown.join(" x "));
    let size = product.and_then(|product| size_of(document, product as f64, versions));
    let help = "take fewer values, or ask for it with --yes-cells N";
    let help = size.map_or(help.to_owned(), |size| format!("{help}; that is {size}"));
    Err(document.error(vec![Diagnostic { place, message, help: Some(help) }]))
}

fn columns_of(document: &Document) -> Vec<AxisColumn> {
    let mut columns = Vec::new();
    for (axis, found) in document.axes.iter().enumerate() {
        for (path, written) in found.paths.iter().enumerate() {
            let kind = axis_kind(&written.values, axis_type(&written.path, &document.root));
            columns.push(AxisColumn { name: written.path.clone(), kind, axis, path: Some(path) });
        }
        if let Some(label) = &found.label {
            let kind = if label.column == "label" { AxisKind::Text } else { axis_kind(&label.values, "number") };
            columns.push(AxisColumn { name: label.column.clone(), kind, axis, path: None });
        }
    }
    columns
}

fn axis_kind(values: &[Node], declared: &str) -> AxisKind {
    let number = |node: &Node| match &node.value {
        Value::Scalar { text, quoted: false } => text.parse::<f64>().ok(),
        _ => None,
    };
    if !values.iter().all(|v| number(v).is_some()) {
        return AxisKind::Text;
    }
    if declared == "integer" { AxisKind::Int } else { AxisKind::Float }
}

fn typed(node: &Node, kind: AxisKind) -> AxisValue {
    let text = canonical_text(node);
    match kind {
        AxisKind::Int => text.parse::<f64>().map_or(AxisValue::Null, |v| AxisValue::Int(v as i64)),
        AxisKind::Float => text.parse().map_or(AxisValue::Null, AxisValue::Float),
        AxisKind::Text => AxisValue::Text(text),
    }
}

/// A value as one line of text: scalars as written, the rest as compact flow YAML.
pub fn canonical_text(node: &Node) -> String {
    match &node.value {
        Value::Null => "none".into(),
        Value::Scalar { text, .. } => text.clone(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(canonical_text).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{}: {}", key.text, canonical_text(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}
