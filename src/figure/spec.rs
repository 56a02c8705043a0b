//! What a figure shows, as plain data.

use super::axis::AxisScale;
use super::theme::Width;

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub enum FigureSpec {
    /// Colour over two swept axes.
    PhaseDiagram(PhaseDiagram),
    /// Lines of one or more columns over another.
    Curve(Curve),
    /// Columns of two-dimensional toy models as arrows from the origin.
    Vectors(Vectors),
    /// Bars of one or more columns.
    Bars(Bars),
}

/// One cell for each pair of values of two columns, coloured by a third.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseDiagram {
    /// File name; by default made of the kind and the columns.
    pub name: Option<String>,
    /// Column across.
    pub x: String,
    /// Column upwards.
    pub y: String,
    /// Column shown as colour: numbers (mean over rows of one cell) or kinds (the most frequent).
    pub colour: String,
    /// One panel for each value of this column.
    pub facet: Option<String>,
    /// Overlaid lines: the name of a theory line, a column of kinds (its boundaries), a column of numbers (at 0 where it
    /// is signed, at 0.5 where it is a share, else at round levels), or `column = level, level`.
    pub contours: Vec<String>,
    /// Spacing across.
    pub x_scale: AxisScale,
    /// Spacing upwards.
    pub y_scale: AxisScale,
    /// Spacing of the colours; by default log for positive amounts that span two decades.
    pub colour_scale: AxisScale,
    /// Range of the colours.
    pub range: Option<[f64; 2]>,
    /// Only rows for which this SQL expression holds.
    pub filter: Option<String>,
    /// Width on the page; by default one column for up to two panels.
    pub width: Option<Width>,
}

/// Lines over a column, one for each group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// File name; by default made of the kind and the columns.
    pub name: Option<String>,
    /// Column across: swept, or measured (then a point is the mean over the rows that differ in nothing swept).
    pub x: String,
    /// Columns upwards, one panel each.
    pub y: Vec<String>,
    /// One line for each value of this column.
    pub group: Option<String>,
    /// One panel for each value of this column; only with a single y.
    pub facet: Option<String>,
    /// What is shown around the mean.
    pub band: Band,
    /// Spacing across.
    pub x_scale: AxisScale,
    /// Spacing upwards.
    pub y_scale: AxisScale,
    /// Range of y.
    pub range: Option<[f64; 2]>,
    /// Only rows for which this SQL expression holds.
    pub filter: Option<String>,
    /// Width on the page.
    pub width: Option<Width>,
}

/// The columns W_i of toy models with d_hidden = 2, one square panel for each value of a column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectors {
    /// File name; by default made of the kind and the columns.
    pub name: Option<String>,
    /// One panel for each value of this column, in the order of the rows; a single panel if left out. Of several rows
    /// of a panel the one of lowest `loss` is shown.
    pub panels: Option<String>,
    /// Column of the feature table shown as colour; `feature` gives every feature its own. Default `importance`.
    pub colour: Option<String>,
    /// Range of the colours.
    pub range: Option<[f64; 2]>,
    /// Only rows for which this SQL expression holds.
    pub filter: Option<String>,
    /// Width on the page.
    pub width: Option<Width>,
}

/// Bars of columns side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// File name; by default made of the kind and the columns.
    pub name: Option<String>,
    /// Columns shown: side by side in one panel, or one panel each where `x` is given.
    pub y: Vec<String>,
    /// Column whose values stand below the bars; without it the names of the columns `y` do.
    pub x: Option<String>,
    /// One colour for each value of this column.
    pub group: Option<String>,
    /// What the whiskers show.
    pub band: Band,
    /// Range of y.
    pub range: Option<[f64; 2]>,
    /// Only rows for which this SQL expression holds.
    pub filter: Option<String>,
    /// Width on the page.
    pub width: Option<Width>,
}

/// Spread over seeds shown around a mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Band {
    /// None.
    #[default]
    None,
    /// From the smallest to the largest value.
    MinMax,
    /// One standard deviation (of the sample, n - 1) to each side.
    Sd,
}

impl Band {
    /// What bars show unless asked otherwise.
    pub fn whiskers() -> Band {
        Band::MinMax
    }

    /// The band in words, for captions; `mark` is "band" or "whiskers".
    pub fn in_words(self, mark: &str) -> Option<String> {
        match self {
            Band::None => None,
            Band::MinMax => Some(format!("{mark} from the smallest to the largest value")),
            Band::Sd => Some(format!("{mark} of one standard deviation to each side")),
        }
    }
}

impl FigureSpec {
    /// The file name without extension: the one given, or kind and columns, joined by `-`; made safe for every file
    /// system (letters, digits, `.`, `-` and `_` are kept, all else becomes `_`).
    pub fn file_name(&self) -> String {
        let given = match self {
            FigureSpec::PhaseDiagram(spec) => &spec.name,
            FigureSpec::Curve(spec) => &spec.name,
            FigureSpec::Vectors(spec) => &spec.name,
            FigureSpec::Bars(spec) => &spec.name,
        };
        match given {
            Some(name) => file_safe(name),
            None => file_safe(&self.default_name()),
        }
    }

    fn default_name(&self) -> String {
        let parts: Vec<&str> = match self {
            FigureSpec::PhaseDiagram(spec) => {
                let columns = [Some(&spec.x), Some(&spec.y), Some(&spec.colour), spec.facet.as_ref()];
                std::iter::once("phase_diagram").chain(columns.into_iter().flatten().map(String::as_str)).collect()
            }
            FigureSpec::Curve(spec) => {
                let more = [spec.group.as_ref(), spec.facet.as_ref()].into_iter().flatten();
                ["curve", &spec.x].into_iter().chain(spec.y.iter().chain(more).map(String::as_str)).collect()
            }
            FigureSpec::Vectors(spec) => {
                let columns = [spec.panels.as_ref(), spec.colour.as_ref()].into_iter().flatten();
                std::iter::once("vectors").chain(columns.map(String::as_str)).collect()
            }
            FigureSpec::Bars(spec) => {
                let columns = spec.x.iter().chain(&spec.y).chain(&spec.group);
                std::iter::once("bars").chain(columns.map(String::as_str)).collect()
            }
        };
        parts.join("-")
    }

    /// The rows that are shown, as an SQL expression.
    pub fn filter(&self) -> Option<&str> {
        match self {
            FigureSpec::PhaseDiagram(spec) => spec.filter.as_deref(),
            FigureSpec::Curve(spec) => spec.filter.as_deref(),
            FigureSpec::Vectors(spec) => spec.filter.as_deref(),
            FigureSpec::Bars(spec) => spec.filter.as_deref(),
        }
    }

    /// Columns of the rows that the figure reads, as far as the spec names them; contours may name theory lines.
    pub fn columns(&self) -> Vec<String> {
        let mut columns: Vec<String> = match self {
            FigureSpec::PhaseDiagram(spec) => {
                let contours = spec.contours.iter().map(|contour| contour_column(contour).to_owned());
                [&spec.x, &spec.y, &spec.colour].into_iter().chain(&spec.facet).cloned().chain(contours).collect()
            }
            FigureSpec::Curve(spec) => {
                std::iter::once(&spec.x).chain(&spec.y).chain(&spec.group).chain(&spec.facet).cloned().collect()
            }
            FigureSpec::Vectors(spec) => {
                spec.panels.iter().cloned().chain(["cell", "loss"].map(str::to_owned)).collect()
            }
            FigureSpec::Bars(spec) => spec.y.iter().chain(&spec.x).chain(&spec.group).cloned().collect(),
        };
        columns.push("status".to_owned());
        columns
    }
}

impl Vectors {
    /// Columns of the feature table that the figure reads.
    pub fn feature_columns(&self) -> Vec<String> {
        let colour = self.colour.as_deref().unwrap_or("importance");
        ["cell", "feature", "w_0", "w_1", "w_2", colour].map(str::to_owned).to_vec()
    }
}

/// The column or line that a contour names, before its levels.
pub fn contour_column(contour: &str) -> &str {
    contour.split('=').next().unwrap_or(contour).trim()
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

    #[test]
    fn a_figure_without_a_name_is_called_by_its_kind_and_columns() {
        let spec = FigureSpec::PhaseDiagram(PhaseDiagram {
            x: "data.firing_probability".into(),
            y: "toy.d_hidden".into(),
            colour: "mcc".into(),
            facet: Some("method".into()),
            ..PhaseDiagram::default()
        });
        assert_eq!(spec.file_name(), "phase_diagram-data.firing_probability-toy.d_hidden-mcc-method");
    }

    #[test]
    fn file_names_are_safe_everywhere() {
        let named =
            |name: &str| FigureSpec::Vectors(Vectors { name: Some(name.to_owned()), ..Vectors::default() }).file_name();
        assert_eq!(named("a/b\\c: d*"), "a_b_c__d_");
        assert_eq!(named("../../etc"), "_.._etc");
        assert_eq!(named("..."), "figure");
        assert_eq!(named(&"x".repeat(500)).len(), LONGEST_NAME);
        let sae = FigureSpec::Bars(Bars { y: vec!["sae.*.n_latents".into()], ..Bars::default() });
        assert_eq!(sae.file_name(), "bars-sae._.n_latents");
    }

    #[test]
    fn columns_lists_what_contours_name_without_their_levels() {
        let spec = FigureSpec::PhaseDiagram(PhaseDiagram {
            x: "a".into(),
            y: "b".into(),
            colour: "c".into(),
            contours: vec!["mcc = 0.5, 0.9".into(), "theory_boundary".into()],
            ..PhaseDiagram::default()
        });
        assert_eq!(spec.columns(), ["a", "b", "c", "mcc", "theory_boundary", "status"]);
    }
}
