//! Colour as a measure: which value has which colour, and the bar beside the panels that says so.

use super::axis::{Axis, Direction, Marks, Spacing, Ticks, label_width};
use super::colour::{Ramp, Rgb};
use super::marks;
use super::scene::{Anchor, Point, Rect, Scene, Shape};
use super::text::{CAP_HEIGHT, DEPTH, Rich};
use super::theme;

/// A continuous colour scale over a range of values, with its label.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourBar {
    /// The colours.
    pub ramp: Ramp,
    /// The range, its spacing, and what stands at its ticks.
    pub axis: Axis,
    /// What the colour is.
    pub label: Rich,
}

impl ColourBar {
    /// The colour of a value; values outside the range take the end colours.
    pub fn colour(&self, value: f64) -> Rgb {
        match self.axis.spacing {
            // What has no logarithm lies below every range of a log scale.
            Spacing::Log if value <= 0.0 => self.ramp.at(0.0),
            _ => self.ramp.at(self.axis.place(value)),
        }
    }

    /// Ticks of a bar `height` points tall.
    pub fn ticks(&self, height: f64) -> Ticks {
        self.axis.ticks(height, Direction::Up)
    }

    /// Width of bar, ticks and label, for a bar `height` points tall.
    pub fn width(&self, height: f64) -> f64 {
        self.label_left(height) + self.lines(height).len() as f64 * theme::TEXT * theme::LEADING
    }

    /// How far the label stands out over each end of a low bar.
    pub fn label_overhang(&self, height: f64) -> f64 {
        let longest = self.lines(height).iter().map(|line| line.width(theme::TEXT)).fold(0.0, f64::max);
        ((longest - height) / 2.0).max(0.0)
    }

    /// Draws the bar; `at` is its top left corner.
    pub fn draw(&self, scene: &mut Scene, [left, top]: Point, height: f64) {
        let rect = Rect::new(left, top, left + theme::BAR, top + height);
        let colours = (0..256).map(|i| self.ramp.at(f64::from(i) / 255.0)).collect();
        scene.add(Shape::Gradient { rect, colours });
        for tick in self.ticks(height).ticks {
            let y = rect.bottom - self.axis.place(tick.value) * height;
            let length = if tick.is_labelled() { theme::TICK } else { theme::MINOR_TICK };
            let width = if tick.is_labelled() { theme::FRAME } else { theme::HAIRLINE };
            scene.line([rect.right, y], [rect.right + length, y], width, theme::INK);
            for line in tick.label {
                let at = [rect.right + theme::TICK + theme::TICK_GAP, y + CAP_HEIGHT * theme::TICK_TEXT / 2.0];
                scene.text(at, Anchor::Start, theme::TICK_TEXT, theme::INK, line);
            }
        }
        marks::frame(scene, rect, theme::FRAME);
        let first = left + self.label_left(height) + theme::TEXT * CAP_HEIGHT;
        for (i, line) in self.lines(height).into_iter().enumerate() {
            let at = [first + i as f64 * theme::TEXT * theme::LEADING, rect.centre()[1]];
            scene.text_upwards(at, Anchor::Middle, theme::TEXT, theme::INK, line);
        }
    }

    /// Where the label starts, from the left of the bar.
    fn label_left(&self, height: f64) -> f64 {
        let widest = self.ticks(height).ticks.iter().map(label_width).fold(0.0, f64::max);
        theme::BAR + theme::TICK + theme::TICK_GAP + widest + theme::LABEL_GAP
    }

    fn lines(&self, height: f64) -> Vec<Rich> {
        // A word may stand out a little over a low bar; to be cut would be worse.
        self.label.wrap(theme::TEXT, height.max(LEAST_LABEL))
    }
}

/// A label beside a low bar may be this long before it is broken into lines.
const LEAST_LABEL: f64 = 70.0;

/// How far a label at the very end of the bar stands out over it.
pub const OVERHANG: f64 = theme::TICK_TEXT * (CAP_HEIGHT / 2.0 + DEPTH);

/// The range that colours span. `values` must not be empty; `asked` wins; `natural` is that of the quantity, [0, 1] for
/// a share; else the range of the data. A signed quantity gets a range symmetric about zero.
pub fn range(values: &[f64], asked: Option<[f64; 2]>, natural: Option<[f64; 2]>, signed: bool) -> [f64; 2] {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match (asked, natural) {
        (Some(range), _) => range,
        // A share that leaves its range, such as an explained variance below zero, is shown in full.
        (None, Some([from, to])) if low >= from && high <= to => [from, to],
        _ if signed => {
            let most = low.abs().max(high.abs());
            [-most, most]
        }
        _ => [low, high],
    }
}

/// The axis of a colour bar over a range.
pub fn axis(range: [f64; 2], spacing: Spacing, whole: bool) -> Axis {
    Axis::of_range(range[0], range[1], spacing, 0.0, Marks::Round { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(low: f64, high: f64, spacing: Spacing) -> ColourBar {
        ColourBar { ramp: Ramp::Viridis, axis: axis([low, high], spacing, false), label: Rich::plain("mean cosine") }
    }

    #[test]
    fn the_ends_of_the_range_have_the_ends_of_the_scale() {
        let bar = bar(0.2, 0.9, Spacing::Linear);
        assert_eq!(bar.colour(0.2), Ramp::Viridis.at(0.0));
        assert_eq!(bar.colour(0.9), Ramp::Viridis.at(1.0));
        assert_eq!(bar.colour(5.0), Ramp::Viridis.at(1.0));
    }

    #[test]
    fn a_log_scale_puts_the_geometric_middle_in_the_middle() {
        let bar = bar(1e-4, 1.0, Spacing::Log);
        assert_eq!(bar.colour(1e-2), Ramp::Viridis.at(0.5));
        assert_eq!(bar.colour(0.0), Ramp::Viridis.at(0.0));
    }

    #[test]
    fn ranges_follow_the_quantity_unless_the_data_leave_it_or_the_caller_knows_better() {
        let share = Some([0.0, 1.0]);
        assert_eq!(range(&[0.3, 0.7], None, share, false), [0.0, 1.0]);
        assert_eq!(range(&[-0.3, 0.7], None, share, false), [-0.3, 0.7]);
        assert_eq!(range(&[0.3, 0.7], Some([0.5, 0.6]), share, false), [0.5, 0.6]);
        assert_eq!(range(&[-0.3, 0.7], None, None, true), [-0.7, 0.7]);
        assert_eq!(range(&[3.0, 7.0], None, None, false), [3.0, 7.0]);
    }

    #[test]
    fn the_bar_fits_the_width_it_asks_for() {
        for spacing in [Spacing::Linear, Spacing::Log] {
            let bar = bar(1e-3, 1.0, spacing);
            let (height, above) = (90.0, OVERHANG);
            let mut scene = Scene::new(bar.width(height) + theme::FRAME, height + 2.0 * above);
            bar.draw(&mut scene, [theme::FRAME, above], height);
            assert_eq!(scene.faults(), Vec::<String>::new());
        }
    }
}
