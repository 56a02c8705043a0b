//! A run directory read back: rows and side tables, for tables, figures and expectations.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;

use super::columns::{algorithms, score_columns, standards};
use super::widths::{DECODER, Widths};
use super::{RunError, axis_values, questions};
use crate::figure::{
    self, ColumnLook, Context, FigureError, FigureSpec, Format, HouseLabels, Labels, SideTable, Sources,
};
use crate::plan::{MOST_CELLS, Plan, Versions};
use crate::progress::shell_word;
use crate::score;
use crate::spec::Document;
use crate::spec::diagnostic::one_line;
use crate::spec::figure::SeedsSection;
use crate::spec::output::{self, ReduceRule, WeightsSection};
use crate::store::{Collected, Coverage, PlanRecord, PlannedCell, Side, Store, StoreError, Tensor};
use crate::table::{self, Bound, Expectation, QueryError, Reduce, Tables};

/// The rows of a plan's cells in its order, or all rows where there is no plan.
fn stored_rows(store: &Store, record: &PlanRecord, plan: Option<&Plan>) -> Result<DataFrame, RunError> {
    Ok(match plan {
        Some(plan) => store.rows_as_planned(record, &plan.ids, &|index| PlannedCell {
            axes: axis_values(plan, index as usize),
            method: plan.method_name(plan.cells[index as usize]).map(str::to_owned),
        })?,
        None => store.all_rows(record)?,
    })
}

/// A run and what its experiment says of it.
pub struct Results {
    pub store: Store,
    pub document: Document,
    pub record: PlanRecord,
    /// The plan; absent where this version cannot lay it out as the run had it (then rows are taken as they are).
    pub plan: Option<Plan>,
    /// Names of the parts that were there when the rows were read.
    parts: Vec<String>,
    /// Rows of the plan's cells as they are stored, in its order.
    stored: DataFrame,
    /// The same with what is derived from them.
    pub rows: DataFrame,
    /// Where figures come from, if not from the run's own file.
    edited: Option<Edited>,
}

/// An experiment file whose figures are drawn from the rows of another.
struct Edited {
    file: PathBuf,
    document: Document,
}

/// What became of a figure.
pub struct Drawn {
    /// Its files' name, without extension.
    pub name: String,
    /// Images, then the caption.
    pub files: Result<Vec<PathBuf>, Undrawn>,
}

/// Why a figure was not drawn.
#[derive(Debug, thiserror::Error)]
pub enum Undrawn {
    #[error(transparent)]
    Figure(#[from] FigureError),
    #[error(transparent)]
    Rows(#[from] QueryError),
}

impl Undrawn {
    pub fn exit_code(&self) -> i32 {
        match self {
            Undrawn::Figure(error) => error.exit_code(),
            Undrawn::Rows(error) => error.exit_code(),
        }
    }

    /// Whether there is nothing wrong with the figure and the run lacks what it shows.
    pub fn lacks_data(&self) -> bool {
        matches!(self, Undrawn::Figure(error) if error.lacks_data())
    }
}

impl Results {
    /// Opens a run directory.
    ///
    /// # Errors
    /// No run there; damage; an experiment file that this version does not read.
    pub fn open(dir: &Path) -> Result<Results, RunError> {
        let store = Store::open(dir)?;
        let record = store.current_plan()?;
        let source = String::from_utf8_lossy(&store.spec()?).into_owned();
        let file = dir.join("spec.yaml").display().to_string();
        let document = Document::read(&file, &source)?;
        let columns = score_columns(&document)?;
        let versions = Versions { algorithms: &algorithms(&columns), profile: &record.profile };
        // Another version of tegum, or a file that is not beside the kept spec, gives another plan or none: the rows are
        // shown as they are then.
        let plan = Plan::new(document.clone(), &versions, MOST_CELLS.max(record.cells as u128)).ok();
        let same = |plan: &Plan| record.canonical["plan"] == plan.hash().as_str();
        let plan = plan.filter(same);
        if plan.is_none() {
            let why = "this version of tegum, or a missing input file, does not give the plan it was run with";
            tracing::warn!("{}: {why}; its rows are shown as they are", dir.display());
        }
        Results::with(store, document, record, plan)
    }

    /// The run of a plan that was just carried out.
    ///
    /// # Errors
    /// Damage.
    pub fn of_plan(dir: &Path, plan: Plan, record: PlanRecord) -> Result<Results, RunError> {
        let document = plan.document.clone();
        Results::with(Store::open(dir)?, document, record, Some(plan))
    }

    /// As [`Results::collect`] of all cells, unless that is what was written last. For a run that has just been finished: what is
    /// done is known, and no file is read for it.
    ///
    /// # Errors
    /// As [`Results::collect`].
    pub fn keep_collected(&self) -> Result<(), RunError> {
        if self.store.is_collected(&self.record)? {
            return Ok(());
        }
        match self.stored.height() as u64 == self.record.cells {
            true => {
                let coverage = Coverage::whole(&self.record, self.parts.clone());
                self.store.collect(&self.record, &self.stored, &coverage, false)?;
            }
            // A part went away since its cells were counted.
            false => drop(self.collect(false)?),
        }
        Ok(())
    }

    /// Refuses rows that are not those of a whole plan: a gate that holds for half of the cells says nothing of the rest, and rows whose
    /// plan nobody can lay out may be those of another.
    ///
    /// # Errors
    /// Missing cells; a plan that this version does not lay out.
    pub fn whole(&self) -> Result<(), RunError> {
        self.laid_out()?;
        match self.record.cells.saturating_sub(self.rows.height() as u64) {
            0 => Ok(()),
            missing => {
                Err(StoreError::Incomplete { path: self.store.dir().to_path_buf(), missing, cells: self.record.cells }
                    .into())
            }
        }
    }

    fn laid_out(&self) -> Result<&Plan, RunError> {
        self.plan.as_ref().ok_or_else(|| {
            let dir = self.store.dir().display();
            RunError::Unreadable(format!(
                "{dir}: its plan cannot be laid out again, so nobody knows which cells it has\n  run the experiment again with this version; `tegum table` shows its rows as they are"
            ))
        })
    }

    /// Writes the rows as they are stored, without what is derived from them, to `collected/`.
    ///
    /// # Errors
    /// Missing cells unless `partial`; a plan that this version does not lay out; what the file system refuses.
    pub fn collect(&self, partial: bool) -> Result<Collected, RunError> {
        let plan = self.laid_out()?;
        let coverage = Coverage::of(&self.record, &plan.ids, &self.store.look_over()?)?;
        // Another process may have published since they were read.
        let rows = match coverage.done == self.stored.height() as u64 {
            true => self.stored.clone(),
            false => stored_rows(&self.store, &self.record, Some(plan))?,
        };
        Ok(self.store.collect(&self.record, &rows, &coverage, partial)?)
    }

    fn with(store: Store, document: Document, record: PlanRecord, plan: Option<Plan>) -> Result<Results, RunError> {
        let parts = store.part_names()?;
        let stored = stored_rows(&store, &record, plan.as_ref())?;
        let rows = table::with_gaps(stored.clone(), &standards(&document))
            .map_err(|error| RunError::Input(error.to_string()))?;
        let rows = match Widths::of(&document) {
            Some(widths) => widths.add_to(rows, &|cells| store.tensors_of(cells, DECODER))?,
            None => rows,
        };
        if (rows.height() as u64) < record.cells {
            tracing::warn!("{} of {} cells are done; what follows speaks of these alone", rows.height(), record.cells);
        }
        Ok(Results { store, document, record, plan, parts, stored, rows, edited: None })
    }

    /// Rows and side tables, for queries.
    pub fn tables(&self) -> Result<Tables, RunError> {
        self.tables_with(|_| true)
    }

    /// Rows, and those side tables that are wanted.
    fn tables_with(&self, wanted: impl Fn(Side) -> bool) -> Result<Tables, RunError> {
        let side = |side| match wanted(side) {
            true => self.store.side(side, &self.rows).map(Some),
            false => Ok(None),
        };
        Ok(Tables {
            rows: self.rows.clone(),
            features: side(Side::Features)?,
            trace: side(Side::Trace)?,
            snapshots: side(Side::Snapshots)?,
            samples: side(Side::Samples)?,
        })
    }

    fn reduce(&self) -> Reduce {
        reduce_rule(&self.document.experiment.reduce.seeds)
    }

    /// Evaluates the gates: a table of them with PASS or FAIL, and whether all pass.
    pub fn expectations(&self) -> Result<(String, bool), RunError> {
        let gates: Vec<Expectation> =
            (self.document.experiment.expect.iter()).map(|e| expectation(e, self.reduce())).collect();
        if gates.is_empty() {
            return Ok((String::new(), true));
        }
        // Snapshots may be many: only what a query names is read.
        let named = |side: Side| {
            gates.iter().any(|gate| matches!(&gate.asked, table::Asked::Sql(sql) if sql.contains(side.name())))
        };
        let outcomes = table::evaluate(&self.tables_with(named)?, &gates);
        let passed = outcomes.iter().all(|o| o.pass);
        Ok((table::render_outcomes(&outcomes), passed))
    }

    /// From now on draws the figures of another experiment file, and does with seeds what that one says. Those that are `wanted`
    /// (all, or the one of a name) are checked against what the run has.
    ///
    /// # Errors
    /// A figure that asks for what the run does not have, with its place; damage.
    pub fn draw_from(&mut self, file: &Path, document: Document, wanted: Option<&str>) -> Result<(), RunError> {
        let figures = || document.experiment.figures.iter().filter(|f| wanted.is_none_or(|name| f.file_name() == name));
        let mut tables = Tables::of_rows(self.rows.clear());
        let save = &self.document.experiment.save;
        let mut kept = questions::kept_beside(save);
        // A table without rows does not know its columns.
        for (side, frame) in self.sides_of(figures())?.into_iter().filter(|(_, frame)| frame.height() > 0) {
            let place = match side {
                SideTable::Features => &mut tables.features,
                SideTable::Trace => &mut tables.trace,
                SideTable::Snapshots => &mut tables.snapshots,
                SideTable::Samples => &mut tables.samples,
            };
            *place = Some(frame.clear());
            kept.push(side);
        }
        let asked = matches!(save.weights, WeightsSection::Best | WeightsSection::All);
        let weights = asked || figures().any(FigureSpec::needs_weights) && !self.store.cells_with_weights()?.is_empty();
        let plan = self.plan.as_ref();
        let stock = questions::Stock { document: &self.document, plan, tables: &tables, kept: &kept, weights };
        questions::check_edited(&document, wanted, &stock)?;
        self.edited = Some(Edited { file: file.to_path_buf(), document });
        Ok(())
    }

    /// Draws the figures of the experiment (or of another document over the same rows) into `out`: PNG and SVG, or one
    /// format; all, or the one called `only`. Those that can be drawn are, whatever becomes of the others.
    ///
    /// # Errors
    /// No figure is called `only`; damage.
    pub fn draw(&self, only: Option<&str>, format: Option<Format>, out: &Path) -> Result<Vec<Drawn>, RunError> {
        let experiment = &self.edited.as_ref().map_or(&self.document, |edited| &edited.document).experiment;
        let figures: Vec<(&FigureSpec, String)> =
            experiment.figures.iter().map(|figure| (figure, figure.file_name())).collect();
        let names = || figures.iter().map(|(_, name)| &name[..]).collect::<Vec<&str>>().join(", ");
        if let Some(only) = only.filter(|only| figures.iter().all(|(_, name)| name != only)) {
            return Err(RunError::Input(format!("no figure is called `{only}`; there are: {}", names())));
        }
        let wanted = || figures.iter().filter(|(_, name)| only.is_none_or(|only| only == name));
        let sides = self.sides_of(wanted().map(|(figure, _)| *figure))?;
        let weights = KeptWeights::of(&self.store, wanted().any(|(figure, _)| figure.needs_weights()))?;
        let formats = format.map_or(vec![Format::Png, Format::Svg], |f| vec![f]);
        let draw = |figure: &FigureSpec, name: &str| -> Result<Vec<PathBuf>, Undrawn> {
            let rule = figure_seeds(figure, reduce_rule(&experiment.reduce.seeds));
            let rows = table::reduce(&self.rows, rule)?;
            let side = |table: SideTable| sides.iter().find(|(known, _)| *known == table).map(|(_, frame)| frame);
            let sources = Sources {
                rows: &rows,
                features: side(SideTable::Features),
                trace: side(SideTable::Trace),
                snapshots: side(SideTable::Snapshots),
                samples: side(SideTable::Samples),
                weights: Some(&weights),
            };
            Ok(figure::draw(figure, &sources, &RowLabels, &self.context(name, rule), out, &formats)?)
        };
        Ok(wanted().map(|(figure, name)| Drawn { name: name.clone(), files: draw(figure, name) }).collect())
    }

    /// The side tables that figures read, of all cells.
    fn sides_of<'a>(
        &self,
        figures: impl Iterator<Item = &'a FigureSpec>,
    ) -> Result<Vec<(SideTable, DataFrame)>, RunError> {
        let mut tables: Vec<SideTable> = figures.flat_map(|figure| figure.sides()).map(|(side, _)| side).collect();
        tables.sort();
        tables.dedup();
        let of_store = |table: SideTable| Side::ALL.into_iter().find(|side| side.name() == table.name());
        let kept = tables.into_iter().filter_map(|table| Some((table, of_store(table)?)));
        kept.map(|(table, side)| Ok((table, self.store.side(side, &self.rows)?))).collect()
    }

    fn context(&self, figure: &str, rule: Reduce) -> Context {
        let edited = self.edited.as_ref().map(|edited| format!(" --spec {}", shell_word(&edited.file)));
        let experiment = &self.document.experiment;
        Context {
            experiment: experiment.name.clone(),
            question: experiment.question.as_deref().map(one_line),
            source: experiment.source.as_deref().map(one_line),
            plan_hash: self.plan.as_ref().map_or_else(|| self.record.hash(), Plan::hash),
            seeds: experiment.seeds.clone(),
            reduction: match rule {
                Reduce::None => "none",
                Reduce::Mean => "mean",
                Reduce::LowestLoss => "lowest loss",
            }
            .to_owned(),
            command: format!(
                "tegum figure {} --only {figure}{}",
                shell_word(self.store.dir()),
                edited.unwrap_or_default()
            ),
            swept: self.record.axes.iter().map(|a| a.name.clone()).collect(),
            lines: theory_lines(),
        }
    }
}

/// Theory lines that figures may name: every curve of theory.
fn theory_lines() -> Vec<figure::TheoryLine> {
    let line = |curve: &crate::toy::theory::curves::Curve| figure::TheoryLine {
        name: curve.name.into(),
        label: curve.label.into(),
        pieces: curve.pieces.clone(),
    };
    crate::toy::theory::curves::curves().iter().map(line).collect()
}

/// Looks of columns: the house's words, with the definition and version of scores for captions.
struct RowLabels;

impl Labels for RowLabels {
    fn describe(&self, column: &str) -> ColumnLook {
        let look = HouseLabels.describe(column);
        match score::parse_name(column) {
            Some((definition, index)) => {
                // What the house has no words for is called as its definition says.
                let plain = look.label == column.replace('_', " ") && index.is_none();
                let look = if plain { ColumnLook::new(definition.label, amount(definition.kind)) } else { look };
                let words = format!("{} version {}: {}", definition.name, definition.version, definition.meaning);
                ColumnLook { definition: Some(words), ..look }
            }
            None => look,
        }
    }
}

/// What kind of amount a score is.
fn amount(kind: score::Kind) -> figure::Amount {
    match kind {
        score::Kind::Share => figure::Amount::Share,
        score::Kind::Cosine => figure::Amount::Signed,
        score::Kind::Degrees => figure::Amount::Degrees,
        score::Kind::Count => figure::Amount::Count,
        score::Kind::Amount => figure::Amount::Amount,
        score::Kind::Word => figure::Amount::Kind,
    }
}

/// The rule of `reduce`.
pub fn reduce_rule(rule: &ReduceRule) -> Reduce {
    match rule {
        ReduceRule::None => Reduce::None,
        ReduceRule::Mean => Reduce::Mean,
        ReduceRule::LowestLoss => Reduce::LowestLoss,
    }
}

/// What a figure does with seeds, where the experiment's rule is `otherwise`.
pub fn figure_seeds(figure: &FigureSpec, otherwise: Reduce) -> Reduce {
    match figure.seeds() {
        SeedsSection::Auto => otherwise,
        SeedsSection::All => Reduce::None,
        SeedsSection::Mean => Reduce::Mean,
        SeedsSection::LowestLoss => Reduce::LowestLoss,
    }
}

/// Weights as figures look them up.
struct KeptWeights<'a> {
    store: &'a Store,
    cells: BTreeSet<String>,
}

impl KeptWeights<'_> {
    /// Files are only looked through where a figure needs weights.
    fn of(store: &Store, needed: bool) -> Result<KeptWeights<'_>, RunError> {
        let cells = if needed { store.cells_with_weights()? } else { Vec::new() };
        Ok(KeptWeights { store, cells: cells.iter().map(ToString::to_string).collect() })
    }
}

impl figure::Weights for KeptWeights<'_> {
    fn has(&self, cell: &str) -> bool {
        self.cells.contains(cell)
    }

    fn tensors(&self, cell: &str) -> Result<Vec<Tensor>, String> {
        let id = cell.parse().map_err(|_| format!("`{cell}` is no cell"))?;
        self.store.weights(id).map_err(|e| e.to_string())
    }
}

/// A gate as the table has it.
pub fn expectation(section: &output::ExpectSection, reduce: Reduce) -> Expectation {
    Expectation {
        claim: section.claim.clone(),
        asked: match &section.asked {
            output::Asked::Value { value, filter } => {
                table::Asked::Value { value: value.clone(), where_: filter.clone() }
            }
            output::Asked::Sql(sql) => table::Asked::Sql(sql.clone()),
        },
        bound: match section.bound {
            output::Bound::AtLeast(v) => Bound::AtLeast(v),
            output::Bound::AtMost(v) => Bound::AtMost(v),
            output::Bound::Between(low, high) => Bound::Between(low, high),
            output::Bound::Equals { value, tolerance } => Bound::Equals { value, tolerance },
        },
        source: section.source.clone(),
        reduce,
    }
}
