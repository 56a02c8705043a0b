//! What every kind of figure asks the same way: panels of a facet, colours of series, names of levels.

use super::axis::{Axis, Marks, Spacing, spacing_of_measures};
use super::colour::{KINDS, Ramp, Rgb};
use super::data::{Keyed, Levels, Order, Table};
use super::error::FigureError;
use super::look::{Amount, ColumnLook, Labels};
use super::marks::Marker;
use super::reference::References;
use super::spec::{AxisScale, WidthSection};
use super::text::Rich;
use super::theme::Width;
use super::ticks::value_labels;

/// Colours of lines and bars; yellow cannot be seen on paper.
const N_COLOURS: usize = KINDS.len() - 1;
/// Dashes taken in turn when the colours are used up.
const DASHES: [Option<(f64, f64)>; 3] = [None, Some((4.0, 1.6)), Some((1.2, 1.2))];
/// Numbered series run over this part of viridis: its yellow end cannot be seen on paper.
const READABLE: f64 = 0.88;

/// Share of an axis left free beyond the data.
pub const RIM: f64 = 0.04;

/// The most series that can be told apart.
pub const MOST_SERIES: usize = N_COLOURS * DASHES.len();
/// The most kinds that areas can show: they have no dashes.
pub const MOST_KINDS: usize = KINDS.len();

/// Panels of a figure: one for each value of a column, or a single one.
pub struct Facets {
    /// Title of each panel.
    pub titles: Vec<Rich>,
    /// For each row the number of its panel.
    pub of_row: Vec<Option<usize>>,
}

impl Facets {
    /// One panel for each value of `column`, in the order of the rows; one without a title if there is no column.
    pub fn of(table: &Table, at: &str, column: Option<&str>, labels: &dyn Labels) -> Result<Facets, FigureError> {
        let Some(column) = column else {
            return Ok(Facets { titles: vec![Rich::default()], of_row: vec![Some(0); table.height] });
        };
        let Keyed { levels, of_row } = table.keyed(at, column, Order::Rows)?;
        if levels.is_empty() {
            let why = format!("column `{column}` has no value in any row");
            return Err(FigureError::NothingToDraw { at: at.to_owned(), why });
        }
        Ok(Facets { titles: level_titles(&levels, &labels.describe(column)), of_row })
    }
}

/// Titles of levels: words as they are, numbers with their symbol.
pub fn level_titles(levels: &Levels, look: &ColumnLook) -> Vec<Rich> {
    match levels {
        Levels::Names(names) => names.iter().map(|name| Rich::plain(name)).collect(),
        Levels::Numbers(numbers) => value_labels(numbers).iter().map(|value| look.value_title(value)).collect(),
    }
}

/// Names of levels on an axis or in a legend.
pub fn level_names(levels: &Levels) -> Vec<Rich> {
    match levels {
        Levels::Names(names) => names.iter().map(|name| Rich::plain(name)).collect(),
        Levels::Numbers(numbers) => value_labels(numbers),
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeriesStyle {
    /// Of line, points and band.
    pub colour: Rgb,
    /// Of the line.
    pub dash: Option<(f64, f64)>,
    /// Of the points.
    pub marker: Marker,
}

/// Styles of the series of some levels: numbers run along viridis, words take the palette in turn.
pub fn series_styles(levels: &Levels) -> Vec<SeriesStyle> {
    let n = levels.len();
    (0..n)
        .map(|i| {
            let (colour, dash) = match levels {
                Levels::Numbers(_) if n > 1 => (Ramp::Viridis.at(READABLE * i as f64 / (n - 1) as f64), None),
                _ => (KINDS[i % N_COLOURS], DASHES[(i / N_COLOURS) % DASHES.len()]),
            };
            SeriesStyle { colour, dash, marker: Marker::of_series(i) }
        })
        .collect()
}

/// Errors where there are more kinds than can be told apart.
pub fn at_most(levels: &Levels, most: usize, at: &str, column: &str) -> Result<(), FigureError> {
    match levels.len() {
        found if found > most => {
            Err(FigureError::TooManyKinds { at: at.to_owned(), column: column.to_owned(), found, most })
        }
        _ => Ok(()),
    }
}

/// The look of a column on an axis; `own` is what the caller calls it.
pub fn look_of(labels: &dyn Labels, column: &str, own: Option<&String>) -> ColumnLook {
    match own {
        Some(own) => ColumnLook { label: own.clone(), symbol: None, unit: None, ..labels.describe(column) },
        None => labels.describe(column),
    }
}

/// The width asked for, or one that gives `panels` side by side the room they need.
pub fn width_for(asked: WidthSection, panels: usize, most_in_one_column: usize) -> Width {
    asked.asked().unwrap_or(if panels <= most_in_one_column { Width::OneColumn } else { Width::TwoColumns })
}

/// Checks a range given by the caller.
pub fn checked_range(range: Option<[f64; 2]>, positive: bool) -> Result<(), FigureError> {
    match range {
        Some([low, high]) if !(low.is_finite() && high.is_finite() && low < high && (low > 0.0 || !positive)) => {
            Err(FigureError::BadRange { low, high })
        }
        _ => Ok(()),
    }
}

/// The axis of measured values. `at` and `column` are for messages, `asked` is the scale and the range that the figure
/// asks for, `shown` holds (low, high, mean) of every point; reference lines are inside.
pub fn measured_axis(
    at: &str,
    column: &str,
    look: &ColumnLook,
    asked: (AxisScale, Option<[f64; 2]>),
    shown: &[(f64, f64, f64)],
    references: &References,
) -> Result<Axis, FigureError> {
    let (scale, range) = asked;
    let means = || shown.iter().map(|(_, _, mean)| *mean);
    let (least, most) = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
    if shown.is_empty() {
        // Another panel has values; this one keeps an empty frame.
        return Ok(Axis::of_range(0.0, 1.0, Spacing::Linear, 0.0, Marks::Round { whole: false }));
    }
    let (low, high) = (
        shown.iter().map(|(low, ..)| *low).fold(f64::INFINITY, f64::min),
        shown.iter().map(|(_, high, _)| *high).fold(f64::NEG_INFINITY, f64::max),
    );
    let spacing = match (scale, look.scale) {
        (AxisScale::Auto, Amount::Amount | Amount::Degrees) => spacing_of_measures(least, most, AxisScale::Auto),
        (AxisScale::Auto, _) => Spacing::Linear,
        (asked, _) => spacing_of_measures(least, most, asked),
    };
    checked_range(range, spacing == Spacing::Log)?;
    if spacing == Spacing::Log && least <= 0.0 {
        return Err(FigureError::NoLogarithm { at: at.to_owned(), column: column.to_owned() });
    }
    let marks = Marks::Round { whole: look.scale == Amount::Count };
    if let Some([low, high]) = range {
        return Ok(Axis::of_range(low, high, spacing, 0.0, marks));
    }
    let low = references.heights(spacing).fold(low, f64::min);
    let high = references.heights(spacing).fold(high, f64::max);
    match look.natural_range() {
        Some([from, to]) if spacing == Spacing::Linear && low >= from && high <= to => {
            Ok(Axis::of_range(from, to, spacing, RIM / 2.0, marks))
        }
        _ => {
            // A standard deviation may reach below what a log axis can show.
            let low = if spacing == Spacing::Log && low <= 0.0 { least / 2.0 } else { low };
            Ok(Axis::of_range(low, high, spacing, RIM, marks))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_up_to_the_most_is_unlike_every_other() {
        let names = (0..MOST_SERIES).map(|i| format!("series {i}")).collect();
        let styles = series_styles(&Levels::Names(names));
        for (i, style) in styles.iter().enumerate() {
            assert!(styles[..i].iter().all(|other| (other.colour, other.dash) != (style.colour, style.dash)));
        }
    }

    #[test]
    fn numbered_series_run_along_viridis_and_stop_before_its_yellow() {
        let styles = series_styles(&Levels::Numbers(vec![1.0, 2.0, 4.0]));
        assert_eq!(styles[0].colour, Ramp::Viridis.at(0.0));
        assert_eq!(styles[2].colour, Ramp::Viridis.at(READABLE));
    }

    #[test]
    fn ranges_must_rise_and_be_positive_where_logarithms_are_taken() {
        assert!(checked_range(Some([0.0, 1.0]), false).is_ok());
        assert!(checked_range(Some([1.0, 1.0]), false).is_err());
        assert!(checked_range(Some([0.0, f64::NAN]), false).is_err());
        assert!(checked_range(Some([0.0, 1.0]), true).is_err());
        assert!(checked_range(None, true).is_ok());
    }
}
