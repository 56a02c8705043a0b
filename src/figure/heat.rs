//! Heat maps of signed numbers: cells of a matrix, first row on top, in blue, white and red around 0.

use super::axis::{Axis, Marks, Spacing};
use super::colour::{Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::layout::Panel;
use super::marks;
use super::scene::{Anchor, Point, Rect, Scene, Shape};
use super::text::{CAP_HEIGHT, Rich, fixed};
use super::theme;
use super::ticks;
use super::weights::Grid;

/// Most labels along a side.
const MOST_LABELS: usize = 6;
/// Room around a printed value.
const VALUE_RIM: f64 = 1.5;

/// The axis of `n` cells in a row, numbered from 0, with `beyond` cells of room after the last.
pub fn axis_across(n: usize, beyond: f64) -> Axis {
    Axis { spacing: Spacing::Linear, low: -0.5, high: n as f64 - 0.5 + beyond, marks: Marks::At(numbers(n)) }
}

/// The axis of `n` cells below each other, the first on top.
pub fn axis_down(n: usize) -> Axis {
    Axis { spacing: Spacing::Linear, low: n as f64 - 0.5, high: -0.5, marks: Marks::At(numbers(n)) }
}

fn numbers(n: usize) -> Vec<(f64, Rich)> {
    if n == 1 {
        return vec![(0.0, Rich::plain("0"))];
    }
    let ticks = ticks::linear(0.0, n.saturating_sub(1) as f64, MOST_LABELS, true);
    ticks.into_iter().map(|tick| (tick.value, tick.label.into_iter().next().unwrap_or_default())).collect()
}

/// The scale of signed numbers: the range asked for, or one around 0 that holds them and at least `least`.
pub fn signed_bar(values: impl Iterator<Item = f64>, asked: Option<[f64; 2]>, least: f64, label: &str) -> ColourBar {
    let most = values.map(f64::abs).filter(|value| value.is_finite()).fold(least, f64::max);
    let range = asked.unwrap_or([-most, most]);
    ColourBar {
        ramp: Ramp::Diverging,
        axis: colour_bar::axis(range, Spacing::Linear, false),
        label: Rich::label(label),
    }
}

/// Draws the cells of a matrix with its first column at `left` on the panel's axis, each `wide` long there, and a frame
/// around them. Neighbours of one colour are one rectangle.
pub fn draw(scene: &mut Scene, panel: &Panel, grid: &Grid, (left, wide): (f64, f64), bar: &ColourBar) {
    let corner = |row: usize, column: usize| panel.point(left + column as f64 * wide, row as f64 - 0.5);
    for row in 0..grid.rows {
        let colours: Vec<Rgb> = grid.row(row).iter().map(|value| bar.colour(*value)).collect();
        let mut start = 0;
        for run in colours.chunk_by(|a, b| a == b) {
            let (from, to) = (corner(row, start), corner(row + 1, start + run.len()));
            scene.add(Shape::Block { rect: Rect::new(from[0], from[1], to[0], to[1]), fill: run[0] });
            start += run.len();
        }
    }
    let (from, to) = (corner(0, 0), corner(grid.rows, grid.columns));
    print_values(scene, grid, (from, to), bar);
    marks::frame(scene, Rect::new(from[0], from[1], to[0], to[1]), theme::FRAME);
}

/// Writes the values into their cells where all of them fit.
fn print_values(scene: &mut Scene, grid: &Grid, (from, to): (Point, Point), bar: &ColourBar) {
    let cell = [(to[0] - from[0]) / grid.columns as f64, (to[1] - from[1]) / grid.rows as f64];
    if cell[1] < theme::TICK_TEXT + VALUE_RIM || grid.columns < 2 {
        return;
    }
    let words: Vec<Rich> = grid.values.iter().map(|value| Rich::plain(&fixed(*value, 2))).collect();
    let widest = words.iter().map(|words| words.width(theme::TICK_TEXT)).fold(0.0, f64::max);
    if widest + 2.0 * VALUE_RIM > cell[0] {
        return;
    }
    for (place, words) in words.into_iter().enumerate() {
        let (row, column) = ((place / grid.columns) as f64, (place % grid.columns) as f64);
        let middle = [from[0] + (column + 0.5) * cell[0], from[1] + (row + 0.5) * cell[1]];
        let baseline = middle[1] + theme::TICK_TEXT * CAP_HEIGHT / 2.0;
        let ink = if is_dark(bar.colour(grid.values[place])) { theme::PAPER } else { theme::INK };
        scene.text([middle[0], baseline], Anchor::Middle, theme::TICK_TEXT, ink, words);
    }
}

/// True for colours on which white is read better than black (relative luminance of sRGB without its curve).
fn is_dark(Rgb(red, green, blue): Rgb) -> bool {
    0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue) < 115.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_cells_number_them_from_zero_and_the_first_row_is_on_top() {
        let down = axis_down(20);
        assert_eq!(down.place(-0.5), 1.0);
        assert_eq!(down.place(19.5), 0.0);
        let Marks::At(marks) = &down.marks else { panic!("fixed ticks") };
        assert_eq!(marks.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [0.0, 5.0, 10.0, 15.0]);
        let one = axis_across(1, 0.0);
        assert_eq!(one.marks, Marks::At(vec![(0.0, Rich::plain("0"))]));
    }

    #[test]
    fn the_scale_is_symmetric_holds_the_data_and_has_white_at_zero() {
        let bar = signed_bar([0.3, -1.7].into_iter(), None, 1.0, "x");
        assert_eq!((bar.axis.low, bar.axis.high), (-1.7, 1.7));
        assert_eq!(bar.colour(0.0), theme::PAPER);
        assert_eq!(signed_bar([0.3].into_iter(), None, 1.0, "x").axis.high, 1.0);
        assert_eq!(signed_bar([9.0].into_iter(), Some([-1.2, 1.2]), 1.0, "x").axis.high, 1.2);
    }
}
