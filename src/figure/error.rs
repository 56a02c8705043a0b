//! What can be wrong with a figure: where it was asked for, what is wrong, and what to do.

use std::path::PathBuf;

/// Why a figure was not drawn. Every message names the place in the figure, the fault, and a way out.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A column that the rows do not have.
    #[error("{at}: there is no column `{column}`{}", advice(near))]
    UnknownColumn {
        /// Which part of the figure asked for it.
        at: String,
        /// The name as written.
        column: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// A column of words where numbers are needed.
    #[error("{at}: column `{column}` holds words; give a column of numbers")]
    NotNumeric {
        /// Which part of the figure asked for it.
        at: String,
        /// The column.
        column: String,
    },
    /// No row has everything the figure shows.
    #[error("{at}: nothing to draw, because {why}")]
    NothingToDraw {
        /// The figure.
        at: String,
        /// What is missing, and what to do.
        why: String,
    },
    /// `vectors` draws columns of two entries.
    #[error(
        "vectors: the toy model has more or fewer than two hidden dimensions ({why}); draw only rows with toy.d_hidden = 2"
    )]
    NotTwoDimensional {
        /// What was found.
        why: String,
    },
    /// A table beside the rows that the run does not have.
    #[error(
        "{at}: the run has no rows in the table `{table}` for these cells; run it with `{kept_by}`, and draw seeds as they are or the best of them"
    )]
    NoSide {
        /// Which part of the figure asked for it.
        at: String,
        /// The table.
        table: &'static str,
        /// What keeps it.
        kept_by: &'static str,
    },
    /// Weights that the run did not keep.
    #[error("{at}: {why}; run it with `save: {{weights: best}}`")]
    NoWeights {
        /// Which part of the figure asked for them.
        at: String,
        /// What is missing.
        why: String,
    },
    /// A name that is no curve in closed form.
    #[error("theory: there is no curve `{name}`; there are: {}", known.join(", "))]
    UnknownTheory {
        /// The name as written.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// The expression cannot be evaluated over the rows.
    #[error(
        "`{expression}` is no column and cannot be evaluated: {why}; column names with dots stand in double quotes"
    )]
    BadExpression {
        /// The expression as written.
        expression: String,
        /// What the query engine said.
        why: String,
    },
    /// The filter is not an expression over the rows.
    #[error(
        "where: `{filter}` cannot be evaluated: {why}; column names with dots stand in double quotes, text in single quotes"
    )]
    BadFilter {
        /// The filter as written.
        filter: String,
        /// What the query engine said.
        why: String,
    },
    /// More kinds than there are colours that can be told apart.
    #[error(
        "{at}: column `{column}` has {found} different values, and {most} is the most that can be told apart; filter the rows with `where`"
    )]
    TooManyKinds {
        /// Which part of the figure asked for it.
        at: String,
        /// The column.
        column: String,
        /// How many values it has.
        found: usize,
        /// How many can be shown.
        most: usize,
    },
    /// A range whose ends are not finite and rising, or not positive on a log scale.
    #[error(
        "range: [{low}, {high}] is not a range here; give two finite numbers, the smaller first, both positive on a log scale"
    )]
    BadRange {
        /// First end.
        low: f64,
        /// Second end.
        high: f64,
    },
    /// A contour whose levels cannot be read.
    #[error(
        "contours: `{contour}`: {why}; write a column, a column with levels as `mcc = 0.5, 0.9`, or the name of a theory line"
    )]
    BadContour {
        /// The contour as written.
        contour: String,
        /// What is wrong.
        why: String,
    },
    /// A log axis over values that have no logarithm.
    #[error(
        "{at}: column `{column}` has values that are not positive; use a linear scale or filter them out with `where`"
    )]
    NoLogarithm {
        /// The axis.
        at: String,
        /// The column.
        column: String,
    },
    /// The table could not be read.
    #[error("rows: column `{column}` cannot be read: {why}")]
    Unreadable {
        /// The column.
        column: String,
        /// What the table said.
        why: String,
    },
    /// The image could not be encoded.
    #[error("{}: the image could not be encoded: {why}; check that the folder can be written", path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        why: String,
    },
    /// The file could not be written.
    #[error("{}: {source}; check that the folder exists, can be written and has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl FigureError {
    /// What a command that could not draw it ends with.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Write { .. } => 5,
            _ => 3,
        }
    }

    /// Whether there is nothing wrong with the figure and the rows lack what it shows, as where every cell diverged.
    pub fn lacks_data(&self) -> bool {
        matches!(self, Self::NothingToDraw { .. } | Self::NoSide { .. } | Self::NoWeights { .. })
    }
}

fn advice(near: &[String]) -> String {
    match near {
        [] => "; `tegum table` lists the columns".to_owned(),
        names => format!("; did you mean {}?", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ")),
    }
}

/// Up to three of `names` that `wanted` may be a slip for, best first.
pub fn near_names(wanted: &str, names: &[String]) -> Vec<String> {
    /// Below this likeness a suggestion confuses.
    const ALIKE: f64 = 0.6;
    let last_part = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let likeness = |name: &String| {
        let whole = strsim::normalized_damerau_levenshtein(wanted, name);
        // `d_hidden` for `toy.d_hidden` is a common slip.
        whole.max(strsim::normalized_damerau_levenshtein(&last_part(wanted), &last_part(name)) * 0.95)
    };
    let mut scored: Vec<(f64, &String)> =
        names.iter().map(|name| (likeness(name), name)).filter(|(likeness, _)| *likeness >= ALIKE).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_finds_slips_and_forgotten_prefixes() {
        let names: Vec<String> =
            ["mcc", "mmcs", "toy.d_hidden", "data.firing_probability", "seed"].map(str::to_owned).to_vec();
        assert_eq!(near_names("mc", &names), ["mcc"]);
        assert_eq!(near_names("d_hidden", &names), ["toy.d_hidden"]);
        assert_eq!(near_names("data.firing_probabilty", &names), ["data.firing_probability"]);
        assert!(near_names("quux", &names).is_empty());
    }

    #[test]
    fn nothing_to_draw_is_no_fault_of_the_figure() {
        let (at, why) = ("bars".to_owned(), "no row has a value of `mcc`".to_owned());
        assert!(FigureError::NothingToDraw { at: at.clone(), why }.lacks_data());
        assert!(!FigureError::NotNumeric { at, column: "method".into() }.lacks_data());
    }

    #[test]
    fn messages_say_where_what_and_what_to_do() {
        let error = FigureError::UnknownColumn { at: "colour".into(), column: "mc".into(), near: vec!["mcc".into()] };
        assert_eq!(error.to_string(), "colour: there is no column `mc`; did you mean `mcc`?");
        let error = FigureError::BadRange { low: 2.0, high: 1.0 };
        assert!(error.to_string().contains("[2, 1]"));
    }
}
