//! A run directory read back: rows and side tables, for tables, figures and expectations.

use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;

use super::columns::{ScoreColumn, algorithms, score_columns};
use super::{RunError, axis_values, plan_record};
use crate::figure::{self, ColumnLook, Context, FigureSpec, Format, HouseLabels, Labels};
use crate::plan::{MOST_CELLS, Plan, Versions};
use crate::score;
use crate::spec::Document;
use crate::spec::output::{self, FigureSection, ReduceRule};
use crate::store::{PlanRecord, PlannedCell, Side, Store};
use crate::table::{self, Bound, Expectation, Reduce, Tables};

/// A run and what its experiment says of it.
pub struct Results {
    pub store: Store,
    pub document: Document,
    pub record: PlanRecord,
    /// The plan; absent where this version cannot lay it out as the run had it (then rows are taken as they are).
    pub plan: Option<Plan>,
    /// Rows of the plan's cells, in its order.
    pub rows: DataFrame,
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
        // Compared by its hash, a text: floats of a plan file read back may differ in their last digit.
        let same = |plan: &Plan| record.canonical["plan"] == plan.hash().as_str();
        let plan = plan.filter(same);
        if plan.is_none() {
            let why = "this version of tegum, or a missing input file, does not give the plan it was run with";
            tracing::warn!("{}: {why}; its rows are shown as they are", dir.display());
        }
        Results::with(store, document, record, plan)
    }

    /// The run of a plan that was just carried out.
    pub fn of_plan(dir: &Path, plan: Plan, columns: Vec<ScoreColumn>, profile: &str) -> Result<Results, RunError> {
        let record = plan_record(&plan, &columns, &algorithms(&columns), profile);
        let document = plan.document.clone();
        Results::with(Store::open(dir)?, document, record, Some(plan))
    }

    fn with(store: Store, document: Document, record: PlanRecord, plan: Option<Plan>) -> Result<Results, RunError> {
        let rows = match &plan {
            Some(plan) => store.rows_as_planned(&record, &plan.ids, &|index| PlannedCell {
                axes: axis_values(plan, index as usize),
                method: plan.method_name(plan.cells[index as usize]).map(str::to_owned),
            })?,
            None => store.all_rows(&record)?,
        };
        if (rows.height() as u64) < record.cells {
            tracing::warn!("{} of {} cells are done; what follows speaks of these alone", rows.height(), record.cells);
        }
        Ok(Results { store, document, record, plan, rows })
    }

    /// Rows and side tables, for queries.
    pub fn tables(&self) -> Result<Tables, RunError> {
        let side = |side| self.store.side(side, &self.rows).map(Some);
        Ok(Tables { rows: self.rows.clone(), features: side(Side::Features)?, trace: side(Side::Trace)? })
    }

    fn reduce(&self) -> Reduce {
        match self.document.experiment.reduce.seeds {
            ReduceRule::None => Reduce::None,
            ReduceRule::Mean => Reduce::Mean,
            ReduceRule::LowestLoss => Reduce::LowestLoss,
        }
    }

    /// Evaluates the gates: a table of them with PASS or FAIL, and whether all pass.
    pub fn expectations(&self) -> Result<(String, bool), RunError> {
        let gates: Vec<Expectation> =
            (self.document.experiment.expect.iter()).map(|e| expectation(e, self.reduce())).collect();
        if gates.is_empty() {
            return Ok((String::new(), true));
        }
        let outcomes = table::evaluate(&self.rows, &gates);
        let passed = outcomes.iter().all(|o| o.pass);
        Ok((table::render_outcomes(&outcomes), passed))
    }

    /// Draws the figures of the experiment (or of another document over the same rows) into `out`: PNG and SVG, or one
    /// format; all, or the one called `only`.
    pub fn draw(&self, only: Option<&str>, format: Option<Format>, out: &Path) -> Result<Vec<PathBuf>, RunError> {
        let figures = &self.document.experiment.figures;
        if figures.is_empty() {
            return Ok(vec![]);
        }
        let reduced = table::reduce(&self.rows, self.reduce()).map_err(|e| RunError::Input(e.to_string()))?;
        // Rows averaged over seeds are no cells, so nothing stands beside them.
        let features = match self.reduce() {
            Reduce::Mean => None,
            Reduce::None | Reduce::LowestLoss => Some(self.store.side(Side::Features, &reduced)?),
        };
        let formats = format.map_or(vec![Format::Png, Format::Svg], |f| vec![f]);
        let specs: Vec<FigureSpec> = figures.iter().map(figure_spec).collect();
        let mut drawn = Vec::new();
        let mut found = false;
        for spec in &specs {
            let name = spec.file_name();
            if only.is_some_and(|only| only != name) {
                continue;
            }
            found = true;
            let context = self.context(&name);
            let paths = figure::draw(spec, &reduced, features.as_ref(), &RowLabels, &context, out, &formats);
            drawn.extend(paths.map_err(|e| RunError::Input(e.to_string()))?);
        }
        match only {
            Some(only) if !found => {
                let names: Vec<String> = specs.iter().map(FigureSpec::file_name).collect();
                Err(RunError::Input(format!("no figure is called `{only}`; there are: {}", names.join(", "))))
            }
            _ => Ok(drawn),
        }
    }

    fn context(&self, figure: &str) -> Context {
        let dir = self.store.dir().display();
        Context {
            experiment: self.document.experiment.name.clone(),
            plan_hash: self.plan.as_ref().map_or_else(|| self.record.hash(), Plan::hash),
            seeds: self.document.experiment.seeds.clone(),
            reduction: match self.reduce() {
                Reduce::None => "none",
                Reduce::Mean => "mean",
                Reduce::LowestLoss => "lowest loss",
            }
            .to_owned(),
            command: format!("tegum figure {dir} --only {figure}"),
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
            Some((definition, _)) => {
                let words = format!("{} version {}: {}", definition.name, definition.version, definition.meaning);
                ColumnLook { definition: Some(words), ..look }
            }
            None => look,
        }
    }
}

/// A figure as the figure module has it.
pub fn figure_spec(section: &FigureSection) -> FigureSpec {
    let scale = |s: &output::ScaleSection| match s {
        output::ScaleSection::Auto => figure::AxisScale::Auto,
        output::ScaleSection::Log => figure::AxisScale::Log,
        output::ScaleSection::Linear => figure::AxisScale::Linear,
    };
    let width = |w: &output::WidthSection| match w {
        output::WidthSection::Auto => None,
        output::WidthSection::One => Some(figure::Width::OneColumn),
        output::WidthSection::Two => Some(figure::Width::TwoColumns),
    };
    let band = |b: &output::BandSection| match b {
        output::BandSection::None => figure::Band::None,
        output::BandSection::Seeds => figure::Band::MinMax,
        output::BandSection::Sd => figure::Band::Sd,
    };
    match section {
        FigureSection::PhaseDiagram(s) => FigureSpec::PhaseDiagram(figure::PhaseDiagram {
            name: s.name.clone(),
            x: s.x.clone(),
            y: s.y.clone(),
            colour: s.colour.clone(),
            facet: s.facet.clone(),
            contours: s.contours.clone(),
            x_scale: scale(&s.x_scale),
            y_scale: scale(&s.y_scale),
            colour_scale: scale(&s.colour_scale),
            range: s.range,
            filter: s.filter.clone(),
            width: width(&s.width),
        }),
        FigureSection::Curve(s) => FigureSpec::Curve(figure::Curve {
            name: s.name.clone(),
            x: s.x.clone(),
            y: s.y.clone(),
            group: s.group.clone(),
            facet: s.facet.clone(),
            band: band(&s.band),
            x_scale: scale(&s.x_scale),
            y_scale: scale(&s.y_scale),
            range: s.range,
            filter: s.filter.clone(),
            width: width(&s.width),
        }),
        FigureSection::Vectors(s) => FigureSpec::Vectors(figure::Vectors {
            name: s.name.clone(),
            panels: s.panels.clone(),
            colour: Some(s.colour.clone()),
            range: s.range,
            filter: s.filter.clone(),
            width: width(&s.width),
        }),
        FigureSection::Bars(s) => FigureSpec::Bars(figure::Bars {
            name: s.name.clone(),
            y: s.y.clone(),
            x: s.x.clone(),
            group: s.group.clone(),
            band: band(&s.band),
            range: s.range,
            filter: s.filter.clone(),
            width: width(&s.width),
        }),
    }
}

/// A gate as the table has it.
pub fn expectation(section: &output::ExpectSection, reduce: Reduce) -> Expectation {
    Expectation {
        claim: section.claim.clone(),
        value: section.value.clone(),
        where_: section.filter.clone(),
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
