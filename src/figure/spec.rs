//! What a figure asks for: its file name, the columns it reads, the side tables and weights it needs. The sections
//! themselves are those of the experiment file.

use super::theme::Width;

pub use crate::spec::figure::{
    BandSection as Band, BarsSection as Bars, CurveSection as Curve, FigureSection as FigureSpec,
    GraphSection as Graph, LineSection as Line, MatrixSection as Matrix, MatrixShowSection as MatrixShow,
    NeuronsSection as Neurons, NodeColourSection as NodeColour, PhaseDiagramSection as PhaseDiagram,
    ScaleSection as AxisScale, ScatterSection as Scatter, SeedsSection as Seeds, StackColourSection as StackColour,
    TraceFigureSection as Trace, TraceModelSection as TraceModel, VectorsFigureSection as Vectors, WidthSection,
};

/// A table beside the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SideTable {
    /// One row for each cell and feature.
    Features,
    /// One row for each cell, model and logged step.
    Trace,
    /// One row for each cell, logged step and feature.
    Snapshots,
    /// One row for each cell and sample of a finite training set.
    Samples,
}

impl SideTable {
    /// All of them.
    pub const ALL: [SideTable; 4] = [SideTable::Features, SideTable::Trace, SideTable::Snapshots, SideTable::Samples];

    /// Its name in SQL and before a column in a figure.
    pub fn name(self) -> &'static str {
        match self {
            SideTable::Features => "features",
            SideTable::Trace => "trace",
            SideTable::Snapshots => "snapshots",
            SideTable::Samples => "samples",
        }
    }

    /// What keeps it.
    pub fn kept_by(self) -> &'static str {
        match self {
            SideTable::Features => "save: {features: true}",
            SideTable::Trace => "save: {trace: {every: 100}}",
            SideTable::Snapshots => "save: {trace: {every: 100, features: true}}",
            SideTable::Samples => "save: {samples: true}` and `data: {dataset: {samples: 100}}",
        }
    }

    /// The table that a column written as `features.norm` is of, and the column.
    pub fn of(column: &str) -> Option<(SideTable, &str)> {
        let (table, rest) = column.split_once('.')?;
        Some((SideTable::ALL.into_iter().find(|side| side.name() == table)?, rest))
    }
}

impl Band {
    /// The band in words, for captions; `mark` is "band" or "whiskers".
    pub fn in_words(self, mark: &str) -> Option<String> {
        match self {
            Band::None => None,
            Band::Seeds => Some(format!("{mark} from the smallest to the largest value")),
            Band::Sd => Some(format!("{mark} of one standard deviation to each side")),
            Band::Bootstrap => Some(format!(
                "{mark} of the 95 % bootstrap interval (BCa) of the mean over seeds, none for fewer than three seeds"
            )),
        }
    }
}

impl WidthSection {
    /// The width asked for, if one was.
    pub fn asked(self) -> Option<Width> {
        match self {
            WidthSection::Auto => None,
            WidthSection::One => Some(Width::OneColumn),
            WidthSection::Two => Some(Width::TwoColumns),
        }
    }
}

/// The same question to the section of every kind.
macro_rules! of_any {
    ($figure:expr, $section:ident => $answer:expr) => {
        match $figure {
            FigureSpec::PhaseDiagram($section) => $answer,
            FigureSpec::Curve($section) => $answer,
            FigureSpec::Scatter($section) => $answer,
            FigureSpec::Bars($section) => $answer,
            FigureSpec::Vectors($section) => $answer,
            FigureSpec::Matrix($section) => $answer,
            FigureSpec::Graph($section) => $answer,
            FigureSpec::Neurons($section) => $answer,
            FigureSpec::Trace($section) => $answer,
        }
    };
}

/// Columns that say which cell a row is, and how well it did.
const OF_CELLS: [&str; 3] = ["cell", "loss", "loss_weighted"];

impl FigureSpec {
    /// The file name without extension: the one given, or kind and columns, joined by `-`; made safe for every file
    /// system (letters, digits, `.`, `-` and `_` are kept, all else becomes `_`).
    pub fn file_name(&self) -> String {
        match of_any!(self, section => &section.name) {
            Some(name) => file_safe(name),
            None => file_safe(&self.default_name()),
        }
    }

    fn default_name(&self) -> String {
        let mut parts: Vec<&str> = vec![self.key()];
        match self {
            FigureSpec::PhaseDiagram(spec) => {
                parts.extend([&spec.x, &spec.y, &spec.colour].map(String::as_str));
                parts.extend(spec.beside.iter().chain(&spec.facet).map(String::as_str));
            }
            FigureSpec::Curve(spec) => {
                parts.push(&spec.x);
                parts.extend(spec.y.iter().chain(&spec.group).chain(&spec.facet).map(String::as_str));
            }
            FigureSpec::Scatter(spec) => {
                parts.push(&spec.x);
                parts.extend(spec.y.iter().chain(&spec.colour).chain(&spec.panels).map(String::as_str));
            }
            FigureSpec::Bars(spec) => {
                parts.extend(spec.x.iter().chain(&spec.y).chain(&spec.group).map(String::as_str));
            }
            FigureSpec::Vectors(spec) => parts.extend(spec.panels.iter().map(String::as_str).chain([&spec.colour[..]])),
            FigureSpec::Matrix(spec) => parts.extend([spec.show.key()].into_iter().chain(spec.facet.as_deref())),
            FigureSpec::Graph(spec) => parts.extend(spec.panels.as_deref()),
            FigureSpec::Neurons(spec) => parts.extend(spec.panels.as_deref()),
            FigureSpec::Trace(spec) => {
                parts.extend(spec.y.iter().chain(&spec.group).chain(&spec.panels).map(String::as_str))
            }
        }
        parts.join("-")
    }

    /// The rows that are shown, as an SQL expression.
    pub fn filter(&self) -> Option<&str> {
        of_any!(self, section => section.filter.as_deref())
    }

    /// What it does with seeds.
    pub fn seeds(&self) -> &Seeds {
        of_any!(self, section => &section.seeds)
    }

    /// Sets the width on the page.
    pub fn set_width(&mut self, width: WidthSection) {
        of_any!(self, section => section.width = width);
    }

    /// Columns of the rows that the figure asks for by name, expressions among them; `contours` may name theory lines.
    pub fn named_columns(&self) -> Vec<String> {
        let rows = |columns: &[String]| -> Vec<String> {
            columns.iter().filter(|column| SideTable::of(column).is_none()).cloned().collect()
        };
        match self {
            FigureSpec::PhaseDiagram(spec) => {
                let contours = spec.contours.iter().map(|contour| contour_column(contour).to_owned());
                let columns = [&spec.x, &spec.y, &spec.colour].into_iter().chain(&spec.beside).chain(&spec.facet);
                columns.cloned().chain(contours).collect()
            }
            FigureSpec::Curve(spec) => {
                std::iter::once(&spec.x).chain(&spec.y).chain(&spec.group).chain(&spec.facet).cloned().collect()
            }
            FigureSpec::Scatter(spec) => {
                let mut columns = vec![spec.x.clone()];
                columns.extend(rows(&spec.y));
                columns.extend(spec.panels.clone());
                // The colour of features may be a column of theirs; of rows it must be one of these.
                columns.extend(spec.colour.clone().filter(|_| columns.contains(&spec.y[0])));
                columns
            }
            FigureSpec::Vectors(spec) => {
                let colour = spec.overlay.then(|| spec.colour.clone()).filter(|colour| colour != "feature");
                spec.panels.iter().cloned().chain(colour.filter(|colour| colour != "importance")).collect()
            }
            FigureSpec::Bars(spec) => spec.y.iter().chain(&spec.x).chain(&spec.group).cloned().collect(),
            FigureSpec::Matrix(spec) => spec.facet.iter().cloned().collect(),
            FigureSpec::Graph(spec) => spec.panels.iter().cloned().collect(),
            FigureSpec::Neurons(spec) => spec.panels.iter().cloned().collect(),
            FigureSpec::Trace(spec) => spec.group.iter().chain(&spec.panels).cloned().collect(),
        }
    }

    /// Columns of the rows that the figure reads where they are there.
    pub fn columns(&self) -> Vec<String> {
        let mut columns = self.named_columns();
        if let FigureSpec::Scatter(Scatter { colour, .. }) = self {
            columns.extend(colour.clone());
        }
        columns.extend(OF_CELLS.iter().chain(&["status", "seed", "method"]).map(|name| (*name).to_owned()));
        columns.sort();
        columns.dedup();
        columns
    }

    /// Side tables that the figure reads, with the columns it asks for.
    pub fn sides(&self) -> Vec<(SideTable, Vec<String>)> {
        let owned = |columns: &[&str]| columns.iter().map(|name| (*name).to_owned()).collect::<Vec<String>>();
        let mut sides: Vec<(SideTable, Vec<String>)> = match self {
            FigureSpec::Scatter(spec) => {
                let colour =
                    spec.colour.as_ref().map(|colour| SideTable::of(colour).map_or(&colour[..], |(_, own)| own));
                let of = |(side, column)| (side, [column].into_iter().chain(colour).map(str::to_owned).collect());
                spec.y.iter().filter_map(|y| SideTable::of(y)).map(of).collect()
            }
            FigureSpec::Vectors(spec) => {
                let features = (SideTable::Features, owned(&["feature", "w_0", "w_1", "w_2", &spec.colour]));
                let samples = (SideTable::Samples, owned(&["sample", "h_0", "h_1", "h_2"]));
                if spec.samples { vec![features, samples] } else { vec![features] }
            }
            FigureSpec::Neurons(_) => vec![(SideTable::Features, owned(&["feature", "importance"]))],
            FigureSpec::Trace(spec) => {
                let of = |y: &String| match SideTable::of(y) {
                    Some((side, column)) => (side, owned(&["step", "model", "feature", column])),
                    None => (SideTable::Trace, owned(&["step", "model", y])),
                };
                spec.y.iter().map(of).collect()
            }
            _ => Vec::new(),
        };
        for (_, columns) in &mut sides {
            columns.push("cell".to_owned());
        }
        sides
    }

    /// Columns of side tables that the figure cannot do without. Directions are not among them: they depend on the width
    /// of each model, which may be swept.
    pub fn named_side_columns(&self) -> Vec<(SideTable, String)> {
        match self {
            FigureSpec::Scatter(spec) => {
                let own = spec.y.iter().filter_map(|y| SideTable::of(y));
                own.map(|(side, column)| (side, column.to_owned())).collect()
            }
            // With `overlay` the colour may be a column of the rows.
            FigureSpec::Vectors(spec) if spec.overlay => Vec::new(),
            FigureSpec::Vectors(spec) => vec![(SideTable::Features, spec.colour.clone())],
            FigureSpec::Trace(spec) => {
                let own = spec.y.iter().map(|y| SideTable::of(y).unwrap_or((SideTable::Trace, y)));
                own.map(|(side, column)| (side, column.to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// True where the figure cannot be drawn without kept weights.
    pub fn needs_weights(&self) -> bool {
        matches!(self, FigureSpec::Matrix(_) | FigureSpec::Graph(_) | FigureSpec::Neurons(_))
    }

    /// True where those weights are of toy models, so that it has nothing to draw where there are none.
    pub fn needs_toy(&self) -> bool {
        match self {
            FigureSpec::Matrix(spec) => matches!(spec.show, MatrixShow::WtW | MatrixShow::W),
            _ => self.needs_weights(),
        }
    }

    /// True where the figure speaks of cells, so that rows averaged over seeds are of no use to it.
    pub fn needs_cells(&self) -> bool {
        self.needs_weights() || !self.sides().is_empty()
    }

    /// Names of curves in closed form that the figure asks for.
    pub fn theory(&self) -> &[String] {
        match self {
            FigureSpec::Curve(spec) => &spec.theory,
            FigureSpec::Scatter(spec) => &spec.theory,
            _ => &[],
        }
    }
}

/// The column or line that a contour names, before its levels.
pub fn contour_column(contour: &str) -> &str {
    contour.split('=').next().unwrap_or(contour).trim()
}

/// True for what can be no column's name: SQL over columns.
pub fn is_expression(column: &str) -> bool {
    column.contains(|c: char| " ()\"/+-<>=".contains(c))
}

/// The columns of `names` that an expression mentions, quoted or as a word of their own.
pub fn mentioned<'a>(expression: &str, names: &'a [String]) -> Vec<&'a str> {
    let bare: String = expression.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { ' ' }).collect();
    let words: Vec<&str> = bare.split_whitespace().collect();
    let is = |name: &&String| expression.contains(&format!("\"{name}\"")) || words.contains(&name.as_str());
    names.iter().filter(is).map(String::as_str).collect()
}

/// Longest file name made of columns; all file systems in use allow 255 bytes, extension and temporary mark included.
const LONGEST_NAME: usize = 120;

fn file_safe(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let name: String = name.chars().map(safe).take(LONGEST_NAME).collect();
    // A leading dot would hide the file, and `..` is a folder.
    match name.trim_start_matches('.') {
        "" => "figure".to_owned(),
        visible => visible.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::samples::written;

    #[test]
    fn a_figure_without_a_name_is_called_by_its_kind_and_columns() {
        let spec = written("phase_diagram: {x: data.firing_probability, y: toy.d_hidden, colour: mcc, facet: method}");
        assert_eq!(spec.file_name(), "phase_diagram-data.firing_probability-toy.d_hidden-mcc-method");
    }

    #[test]
    fn file_names_are_safe_everywhere() {
        let long = format!("bars: {{y: {}}}", "x".repeat(500));
        assert_eq!(written(&long).file_name().len(), LONGEST_NAME);
        assert_eq!(written("bars: {y: sae.*.n_latents}").file_name(), "bars-sae._.n_latents");
        assert_eq!(file_safe("../../etc"), "_.._etc");
        assert_eq!(file_safe("..."), "figure");
    }

    #[test]
    fn columns_list_what_contours_name_without_their_levels() {
        let spec = written("phase_diagram: {x: a, y: b, colour: c, contours: ['mcc = 0.5, 0.9', theory_boundary]}");
        assert_eq!(spec.named_columns(), ["a", "b", "c", "mcc", "theory_boundary"]);
    }

    #[test]
    fn a_column_of_another_table_is_asked_of_that_table() {
        let spec = written("scatter: {x: data.firing_probability, y: [features.norm, samples.data_dimensionality]}");
        assert_eq!(spec.named_columns(), ["data.firing_probability"]);
        let sides: Vec<(SideTable, String)> =
            spec.sides().into_iter().map(|(side, own)| (side, own[0].clone())).collect();
        let expected = [(SideTable::Features, "norm"), (SideTable::Samples, "data_dimensionality")];
        assert_eq!(sides, expected.map(|(side, own)| (side, own.to_owned())));
        assert!(SideTable::of("toy.d_hidden").is_none() && SideTable::of("loss").is_none());
    }

    #[test]
    fn expressions_are_told_from_names_and_name_their_columns() {
        assert!(is_expression("1.0 / \"data.firing_probability\"") && is_expression("abs(norm)"));
        assert!(!is_expression("data.firing_probability") && !is_expression("sae.*.n_latents"));
        let names = ["data.firing_probability", "norm", "norm_last"].map(str::to_owned);
        assert_eq!(
            mentioned("norm_last / \"data.firing_probability\"", &names),
            ["data.firing_probability", "norm_last"]
        );
    }
}
