//! Lines over a phase diagram: theory in closed form, levels of a column, boundaries of kinds.

use super::caption::{Context, TheoryLine};
use super::contour;
use super::data::{Column, Levels, Order, Summary, Table};
use super::error::FigureError;
use super::look::{Amount, ColumnLook, Labels};
use super::phase_diagram::{Grid, most_frequent};
use super::scene::Point;
use super::spec::{PhaseDiagram, contour_column};
use super::text::Rich;
use super::ticks::{self, value_labels};

/// Dashes of overlays in turn.
const OVERLAY_DASHES: [Option<(f64, f64)>; 3] = [None, Some((3.0, 2.0)), Some((1.2, 1.6))];
/// Levels of a contour that names none and has no natural one.
const ROUND_LEVELS: usize = 4;

/// For each panel its lines, in places (0 to 1, y upwards).
pub type PanelLines = Vec<Vec<Vec<Point>>>;

/// Lines drawn over every panel or over one.
pub struct Overlay {
    /// What the legend calls them.
    pub label: Rich,
    /// The lines.
    pub lines: PanelLines,
    /// Dash of the white line.
    pub dash: Option<(f64, f64)>,
}

/// The overlays of a diagram, in the order of `contours`.
pub fn overlays(
    spec: &PhaseDiagram,
    table: &Table,
    grid: &Grid,
    labels: &dyn Labels,
    context: &Context,
) -> Result<Vec<Overlay>, FigureError> {
    let mut overlays = Vec::new();
    for (i, contour) in spec.contours.iter().enumerate() {
        let name = contour_column(contour);
        let theory = context.lines.iter().find(|line| line.name == name);
        let dash = OVERLAY_DASHES[i % OVERLAY_DASHES.len()];
        let (label, lines) = match theory {
            Some(line) => (Rich::label(&line.label), vec![theory_lines(line, grid, contour)?; grid.keys.n_panels]),
            None => {
                let look = labels.describe(name);
                match table.column("contours", name)? {
                    Column::Text(_) => (look.axis_label(), kind_boundaries(table, grid, name)?),
                    Column::Number(numbers) => number_contours(numbers, grid, contour, &look)?,
                }
            }
        };
        overlays.push(Overlay { label, lines, dash });
    }
    Ok(overlays)
}

/// A closed-form line in places; points without a logarithm on a log axis end a piece.
fn theory_lines(line: &TheoryLine, grid: &Grid, contour: &str) -> Result<Vec<Vec<Point>>, FigureError> {
    if [&grid.keys.x.levels, &grid.keys.y.levels].iter().any(|levels| matches!(levels, Levels::Names(_))) {
        let why = "a theory line needs numbers on both axes".to_owned();
        return Err(FigureError::BadContour { contour: contour.to_owned(), why });
    }
    let place = |[x, y]: &[f64; 2]| [grid.x_axis.place(*x), grid.y_axis.place(*y)];
    let pieces = line.pieces.iter().flat_map(|piece| {
        let placed: Vec<Point> = piece.iter().map(place).collect();
        placed
            .split(|point| point.iter().any(|value| !value.is_finite()))
            .filter(|part| part.len() > 1)
            .map(<[Point]>::to_vec)
            .collect::<Vec<_>>()
    });
    Ok(pieces.collect())
}

/// Sides of cells where the most frequent kind of a column changes.
fn kind_boundaries(table: &Table, grid: &Grid, name: &str) -> Result<PanelLines, FigureError> {
    let keyed = table.keyed("contours", name, Order::Rows)?;
    let cells = grid.keys.gather(vec![0usize; keyed.levels.len()], |counts, row| {
        keyed.of_row[row].into_iter().for_each(|kind| counts[kind] += 1);
    });
    let kind = |counts: &Vec<usize>| most_frequent(counts);
    let panel = |rows: &Vec<Vec<Vec<usize>>>| {
        let kinds: Vec<Vec<Option<usize>>> = rows.iter().map(|row| row.iter().map(kind).collect()).collect();
        contour::chained(contour::boundaries(&grid.x_edges, &grid.y_edges, &kinds))
    };
    Ok(cells.iter().map(panel).collect())
}

/// Lines of a column of numbers at its levels, with the legend's text.
fn number_contours(
    numbers: &[Option<f64>],
    grid: &Grid,
    contour: &str,
    look: &ColumnLook,
) -> Result<(Rich, PanelLines), FigureError> {
    let cells = grid.keys.gather(Vec::new(), |values: &mut Vec<f64>, row| values.extend(numbers[row]));
    let mean = |values: &Vec<f64>| Summary::of(values).map(|summary| summary.mean);
    let means: Vec<Vec<Vec<Option<f64>>>> =
        cells.iter().map(|rows| rows.iter().map(|row| row.iter().map(mean).collect()).collect()).collect();
    let levels = levels(contour, look, &means)?;
    let lines = means
        .iter()
        .map(|values| {
            let (xs, ys, padded) = padded(grid, values);
            let segments = levels.iter().flat_map(|level| contour::level_lines(&xs, &ys, &padded, *level)).collect();
            contour::chained(segments)
        })
        .collect();
    let values = value_labels(&levels).into_iter().reduce(|all, value| all.then(&Rich::plain(", ")).then(&value));
    Ok((look.value_title(&values.unwrap_or_default()), lines))
}

/// The levels written after `=`, or those that suit the quantity.
fn levels(contour: &str, look: &ColumnLook, means: &[Vec<Vec<Option<f64>>>]) -> Result<Vec<f64>, FigureError> {
    if let Some((_, written)) = contour.split_once('=') {
        let level = |word: &str| {
            word.trim().parse::<f64>().ok().filter(|level| level.is_finite()).ok_or_else(|| FigureError::BadContour {
                contour: contour.to_owned(),
                why: format!("`{}` is not a level", word.trim()),
            })
        };
        return written.split(',').map(level).collect();
    }
    let known: Vec<f64> = means.iter().flatten().flatten().flatten().copied().collect();
    Ok(match look.scale {
        Amount::Signed => vec![0.0],
        Amount::Share => vec![0.5],
        _ => {
            let low = known.iter().copied().fold(f64::INFINITY, f64::min);
            let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            ticks::linear(low, high, ROUND_LEVELS, false).iter().map(|tick| tick.value).collect()
        }
    })
}

/// Cell middles with the rim of the panel added, where values run on as between the two outermost cells, so that
/// contours reach the frame without a bend.
fn padded(grid: &Grid, values: &[Vec<Option<f64>>]) -> (Vec<f64>, Vec<f64>, Vec<Vec<Option<f64>>>) {
    let with_rim = |middles: &[f64]| -> Vec<f64> { [0.0].iter().chain(middles).chain(&[1.0]).copied().collect() };
    let (xs, ys) = (with_rim(&grid.x_middles), with_rim(&grid.y_middles));
    let wide: Vec<Vec<Option<f64>>> = values.iter().map(|row| run_on(&xs, row)).collect();
    let columns: Vec<Vec<Option<f64>>> =
        (0..xs.len()).map(|column| run_on(&ys, &wide.iter().map(|row| row[column]).collect::<Vec<_>>())).collect();
    let rows = (0..ys.len()).map(|row| columns.iter().map(|column| column[row]).collect()).collect();
    (xs, ys, rows)
}

/// The values with one more at each end, on the straight line through the two nearest; a lone value is repeated.
/// `places` are those of the result.
fn run_on(places: &[f64], values: &[Option<f64>]) -> Vec<Option<f64>> {
    let n = values.len();
    let beyond = |near: usize, next: usize, at: usize| -> Option<f64> {
        let value = values[near]?;
        let step = places[near + 1] - places[next + 1];
        match values.get(next).copied().flatten().filter(|_| step != 0.0) {
            Some(other) => Some(value + (value - other) / step * (places[at] - places[near + 1])),
            None => Some(value),
        }
    };
    let (first, last) = (beyond(0, 1.min(n - 1), 0), beyond(n - 1, n.saturating_sub(2), n + 1));
    std::iter::once(first).chain(values.iter().copied()).chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_run_on_straight_and_a_lone_value_is_repeated() {
        let run = run_on(&[0.0, 0.25, 0.75, 1.0], &[Some(1.0), Some(3.0)]);
        assert_eq!(run, [Some(0.0), Some(1.0), Some(3.0), Some(4.0)]);
        assert_eq!(run_on(&[0.0, 0.5, 1.0], &[Some(2.0)]), [Some(2.0); 3]);
        assert_eq!(run_on(&[0.0, 0.25, 0.75, 1.0], &[None, Some(3.0)]), [None, None, Some(3.0), Some(3.0)]);
    }
}
