//! Reference lines at values of an axis, and curves known in closed form: the same over curves, scatters and traces.

use super::axis::{Axis, Spacing};
use super::caption::{Caption, Context, TheoryLine};
use super::error::FigureError;
use super::layout::Panel;
use super::legend::{Legend, Sample};
use super::notes::Note;
use super::scene::{Anchor, Point, Scene, Shape};
use super::spec::Line;
use super::text::{CAP_HEIGHT, DEPTH, Rich};
use super::theme;
use super::ticks::in_words;

/// Dots of a reference line.
const DOTS: (f64, f64) = (0.9, 1.5);
/// Dashes of curves in closed form in turn.
const DASHES: [Option<(f64, f64)>; 3] = [Some((3.6, 1.6)), Some((1.4, 1.2)), None];

/// Lines over a panel that are no data.
pub struct References<'a> {
    across: &'a [Line],
    upright: &'a [Line],
    theory: Vec<&'a TheoryLine>,
}

impl<'a> References<'a> {
    /// The lines that a figure asks for.
    ///
    /// # Errors
    /// A name that is no curve in closed form.
    pub fn of(
        across: &'a [Line],
        upright: &'a [Line],
        theory: &[String],
        context: &'a Context,
    ) -> Result<References<'a>, FigureError> {
        let find = |name: &String| {
            context.lines.iter().find(|line| line.name == *name).ok_or_else(|| FigureError::UnknownTheory {
                name: name.clone(),
                known: context.lines.iter().map(|line| line.name.clone()).collect(),
            })
        };
        Ok(References { across, upright, theory: theory.iter().map(find).collect::<Result<_, _>>()? })
    }

    /// Values of y that an axis must reach: those of the lines across that it can show.
    pub fn heights(&self, spacing: Spacing) -> impl Iterator<Item = f64> {
        self.across.iter().map(|line| line.at).filter(move |at| spacing == Spacing::Linear || *at > 0.0)
    }

    /// What stands beside the lines across.
    pub fn notes(&self) -> Vec<Note> {
        let note = |line: &Line| Some(Note { at: line.at, words: Rich::label(line.label.as_ref()?) });
        self.across.iter().filter_map(note).collect()
    }

    /// Adds the curves in closed form to a legend.
    pub fn legend(&self, legend: &mut Legend) {
        for (line, dash) in self.theory.iter().zip(DASHES.into_iter().cycle()) {
            legend.push(Sample::Line { colour: theme::INK, dash }, Rich::label(&line.label));
        }
    }

    /// Draws the reference lines, which lie under the data.
    pub fn draw_under(&self, scene: &mut Scene, panel: &Panel) {
        let inside = |axis: &Axis, at: f64| {
            (axis.spacing == Spacing::Linear || at > 0.0) && (0.0..=1.0).contains(&axis.place(at))
        };
        let mut dotted = |from: Point, to: Point| {
            let lines = vec![vec![from, to]];
            scene.add(Shape::Lines { lines, width: theme::FRAME, colour: theme::REFERENCE, dash: Some(DOTS) });
        };
        for line in self.across.iter().filter(|line| inside(&panel.y, line.at)) {
            dotted(panel.point(panel.x.low, line.at), panel.point(panel.x.high, line.at));
        }
        for line in self.upright.iter().filter(|line| inside(&panel.x, line.at)) {
            dotted(panel.point(line.at, panel.y.low), panel.point(line.at, panel.y.high));
        }
    }

    /// Draws the curves in closed form and the words of upright lines, which lie over the data.
    pub fn draw_over(&self, scene: &mut Scene, panel: &Panel) {
        for (line, dash) in self.theory.iter().zip(DASHES.into_iter().cycle()) {
            let lines: Vec<Vec<Point>> = line.pieces.iter().flat_map(|piece| placed(panel, piece)).collect();
            if !lines.is_empty() {
                scene.add_inside(panel.rect, Shape::Lines { lines, width: theme::LINE, colour: theme::INK, dash });
            }
        }
        for line in self.upright {
            let Some(words) = line.label.as_ref().map(|label| Rich::label(label)) else { continue };
            let [x, top] = panel.point(line.at, panel.y.high);
            let right = x + theme::TICK_TEXT * (CAP_HEIGHT + DEPTH) + 2.0 <= panel.rect.right;
            // To the right of its line, or to the left where the panel ends.
            let baseline =
                if right { x + 1.0 + theme::TICK_TEXT * CAP_HEIGHT } else { x - 1.0 - theme::TICK_TEXT * DEPTH };
            if (panel.rect.left..=panel.rect.right).contains(&x) {
                scene.text_upwards([baseline, top + 2.0], Anchor::End, theme::TICK_TEXT, theme::INK, words);
            }
        }
    }

    /// Says what the lines are.
    pub fn caption(&self, caption: &mut Caption) {
        let words = |lines: &[Line]| {
            let word = |line: &Line| line.label.clone().unwrap_or_else(|| in_words(line.at));
            lines.iter().map(word).collect::<Vec<String>>().join(", ")
        };
        if !self.across.is_empty() {
            caption.say(format!("Dotted lines across at {}", words(self.across)));
        }
        if !self.upright.is_empty() {
            caption.say(format!("Upright dotted lines at {}", words(self.upright)));
        }
        for line in &self.theory {
            caption.say(format!("Dashed line: {} ({})", line.label, line.name));
        }
    }
}

/// A piece of a curve on the page; points without a logarithm on a log axis end a part of it.
fn placed(panel: &Panel, piece: &[[f64; 2]]) -> Vec<Vec<Point>> {
    let shown = |[x, y]: &[f64; 2]| {
        let place = [panel.x.place(*x), panel.y.place(*y)];
        // Far outside is as good as anywhere outside, and keeps strokes short.
        place.iter().all(|place| place.is_finite()).then(|| place.map(|place| place.clamp(-2.0, 3.0)))
    };
    let at = |[x, y]: [f64; 2]| [panel.rect.left + x * panel.rect.width(), panel.rect.bottom - y * panel.rect.height()];
    let points: Vec<Option<[f64; 2]>> = piece.iter().map(shown).collect();
    let parts = points.split(|point| point.is_none()).filter(|part| part.len() > 1);
    parts.map(|part| part.iter().flatten().map(|place| at(*place)).collect()).collect()
}
