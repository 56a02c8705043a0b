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
const OVERLAY_DASHES: [Option<(f64, f64)>; 5] =
    [None, Some((4.5, 2.0)), Some((1.2, 1.6)), Some((2.4, 1.4)), Some((7.0, 1.6))];
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
    for contour in &spec.contours {
        let name = contour_column(contour);
        let theory = context.lines.iter().find(|line| line.name == name);
        let named = match theory {
            Some(line) => {
                vec![(Rich::label(&line.label), vec![theory_lines(line, grid, contour)?; grid.keys.n_panels])]
            }
            None => {
                let look = labels.describe(name);
                match table.column("contours", name)? {
                    Column::Text(_) => vec![(look.axis_label(), kind_boundaries(table, grid, name)?)],
                    Column::Number(numbers) => number_contours(numbers, grid, contour, &look)?,
                }
            }
        };
        for (label, lines) in named {
            let dash = OVERLAY_DASHES[overlays.len() % OVERLAY_DASHES.len()];
            overlays.push(Overlay { label, lines, dash });
        }
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

/// Lines of a column of numbers, for each of its levels, with the legend's text.
fn number_contours(
    numbers: &[Option<f64>],
    grid: &Grid,
    contour: &str,
    look: &ColumnLook,
) -> Result<Vec<(Rich, PanelLines)>, FigureError> {
    let cells = grid.keys.gather(Vec::new(), |values: &mut Vec<f64>, row| values.extend(numbers[row]));
    let mean = |values: &Vec<f64>| Summary::of(values).map(|summary| summary.mean);
    let means: Vec<Vec<Vec<Option<f64>>>> =
        cells.iter().map(|rows| rows.iter().map(|row| row.iter().map(mean).collect()).collect()).collect();
    let levels = levels(contour, look, &means)?;
    let lines = |level: f64| {
        let of_panel = |values: &Vec<Vec<Option<f64>>>| {
            let lines = contour::chained(contour::level_lines(&grid.x_middles, &grid.y_middles, values, level));
            lines.into_iter().map(|line| run_on(line, grid)).collect()
        };
        means.iter().map(of_panel).collect()
    };
    let of_level = |(level, value): (&f64, Rich)| (look.value_title(&value), lines(*level));
    Ok(levels.iter().zip(value_labels(&levels)).map(of_level).collect())
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

/// Contours lie between the cells' middles. An end at the outermost middles runs on straight to the frame, half a cell
/// away, so that lines do not stop short of it; no line appears where the values have none.
fn run_on(mut line: Vec<Point>, grid: &Grid) -> Vec<Point> {
    for _ in 0..2 {
        if let [.., before, end] = line[..]
            && let Some(beyond) = at_frame(before, end, [&grid.x_middles, &grid.y_middles])
        {
            line.push(beyond);
        }
        line.reverse();
    }
    line
}

/// Where the way from `before` to `end` meets the frame, if `end` lies on the outermost middles of an axis.
fn at_frame(before: Point, end: Point, middles: [&[f64]; 2]) -> Option<Point> {
    (0..2).find_map(|axis| {
        let (first, last) = (*middles[axis].first()?, *middles[axis].last()?);
        let frame = match end[axis] {
            place if (place - first).abs() < 1e-9 => 0.0,
            place if (place - last).abs() < 1e-9 => 1.0,
            _ => return None,
        };
        let across = 1 - axis;
        let (forward, aside) = (end[axis] - before[axis], end[across] - before[across]);
        // A line that arrives almost along the rim, or from outside, goes straight out.
        let outward = forward * (frame - end[axis]) > 0.0 && forward.abs() > 0.3 * aside.abs();
        let slope = if outward { aside / forward } else { 0.0 };
        let mut beyond = [frame; 2];
        beyond[across] = end[across] + slope * (frame - end[axis]);
        Some(beyond)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_at_the_outermost_middles_runs_on_to_the_frame() {
        let middles = [0.25, 0.75];
        let to_frame = |before, end| at_frame(before, end, [&middles, &middles]);
        assert_eq!(to_frame([0.5, 0.5], [0.25, 0.625]), Some([0.0, 0.75]));
        assert_eq!(to_frame([0.5, 0.5], [0.5, 0.75]), Some([0.5, 1.0]));
        assert_eq!(to_frame([0.25, 0.5], [0.75, 0.5]), Some([1.0, 0.5]));
        // Almost along the rim: straight out.
        assert_eq!(to_frame([0.26, 0.7], [0.25, 0.5]), Some([0.0, 0.5]));
        // An end inside, at a missing cell, stays.
        assert_eq!(to_frame([0.4, 0.4], [0.5, 0.5]), None);
    }
}
