//! A panel in its place: where values lie on the page, and its frame, ticks and title.

use super::axis::{Axis, Ticks};
use super::marks;
use super::scene::{Anchor, Point, Rect, Scene};
use super::text::{CAP_HEIGHT, Rich};
use super::theme;
use super::ticks::Tick;

/// A panel in its place.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The area of the data.
    pub rect: Rect,
    /// The axis below.
    pub x: Axis,
    /// The axis beside.
    pub y: Axis,
    pub(super) x_ticks: Ticks,
    pub(super) y_ticks: Ticks,
    pub(super) title: Rich,
    pub(super) labels_below: bool,
    pub(super) labels_beside: bool,
    pub(super) framed: bool,
}

impl Panel {
    /// Where a pair of values lies on the page.
    pub fn point(&self, x: f64, y: f64) -> Point {
        [self.rect.left + self.x.place(x) * self.rect.width(), self.rect.bottom - self.y.place(y) * self.rect.height()]
    }

    /// Draws frame, ticks, tick labels and title over the data.
    pub fn draw(&self, scene: &mut Scene) {
        let rect = self.rect;
        for tick in &self.x_ticks.ticks {
            let x = rect.left + self.x.place(tick.value) * rect.width();
            let (length, width) = tick_size(tick);
            scene.line([x, rect.bottom], [x, rect.bottom + length], width, theme::INK);
            if self.labels_below {
                self.label_below(scene, x, tick);
            }
        }
        for tick in &self.y_ticks.ticks {
            let y = rect.bottom - self.y.place(tick.value) * rect.height();
            let (length, width) = tick_size(tick);
            scene.line([rect.left - length, y], [rect.left, y], width, theme::INK);
            if self.labels_beside {
                let x = rect.left - theme::TICK - theme::TICK_GAP;
                let first = y + CAP_HEIGHT * theme::TICK_TEXT / 2.0;
                for line in &tick.label {
                    scene.text([x, first], Anchor::End, theme::TICK_TEXT, theme::INK, line.clone());
                }
            }
        }
        if self.framed {
            marks::frame(scene, rect, theme::FRAME);
        }
        for (i, line) in title_lines(&self.title, rect.width()).into_iter().rev().enumerate() {
            let at = [rect.centre()[0], rect.top - theme::TITLE_GAP - i as f64 * theme::TEXT * theme::LEADING];
            scene.text(at, Anchor::Middle, theme::TEXT, theme::INK, line);
        }
    }

    fn label_below(&self, scene: &mut Scene, x: f64, tick: &Tick) {
        let top = self.rect.bottom + theme::TICK + theme::TICK_GAP;
        if self.x_ticks.turned {
            for line in &tick.label {
                let at = [x + CAP_HEIGHT * theme::TICK_TEXT / 2.0, top];
                scene.text_upwards(at, Anchor::End, theme::TICK_TEXT, theme::INK, line.clone());
            }
            return;
        }
        // All labels of the axis stand on one line, whether or not they have a raised exponent.
        let rise =
            self.x_ticks.ticks.iter().flat_map(|tick| tick.label.first()).map(|line| line.ascent(theme::TICK_TEXT));
        let first = top + rise.fold(0.0, f64::max);
        for (i, line) in tick.label.iter().enumerate() {
            let y = first + i as f64 * theme::TICK_TEXT * theme::LEADING;
            scene.text([x, y], Anchor::Middle, theme::TICK_TEXT, theme::INK, line.clone());
        }
    }
}

/// A title may stand out into half the gap to the next panel.
pub fn title_lines(title: &Rich, width: f64) -> Vec<Rich> {
    title.wrap(theme::TEXT, width + theme::PANEL_GAP / 2.0)
}

fn tick_size(tick: &Tick) -> (f64, f64) {
    if tick.is_labelled() { (theme::TICK, theme::FRAME) } else { (theme::MINOR_TICK, theme::HAIRLINE) }
}
