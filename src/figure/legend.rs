//! The legend: one flowing line, or a few, above the panels, so that it never covers data.

use super::colour::Rgb;
use super::marks::{self, Marker};
use super::scene::{Anchor, Point, Rect, Scene, Shape};
use super::text::{CAP_HEIGHT, Rich};
use super::theme;

/// Side of a colour sample.
const SAMPLE: f64 = 7.0;
/// Length of a line sample.
const LINE_SAMPLE: f64 = 14.0;
/// Between a sample and its text.
const SAMPLE_GAP: f64 = 3.0;
/// Between entries.
const ENTRY_GAP: f64 = 9.0;
/// From line to line.
const LINE_HEIGHT: f64 = 10.5;
/// Under the legend.
const BELOW: f64 = 4.0;

/// What stands before the text of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// A filled square.
    Colour(Rgb),
    /// A line with a data point, as a curve draws it.
    Series { colour: Rgb, dash: Option<(f64, f64)>, marker: Marker },
    /// A line alone.
    Line { colour: Rgb, dash: Option<(f64, f64)> },
    /// A data point alone.
    Dot(Rgb),
    /// A data point with a dark rim.
    Ringed(Rgb),
    /// A hatched square.
    Hatched,
    /// A square with a cross.
    Cross,
    /// A line with a halo, as overlays are drawn.
    Overlay { dash: Option<(f64, f64)> },
    /// Nothing: the text is the heading of what follows.
    Heading,
}

impl Sample {
    fn width(&self) -> f64 {
        match self {
            Sample::Series { .. } | Sample::Line { .. } | Sample::Overlay { .. } => LINE_SAMPLE,
            Sample::Colour(_) | Sample::Hatched | Sample::Cross => SAMPLE,
            Sample::Dot(_) | Sample::Ringed(_) => 2.0 * theme::DOT + 1.0,
            Sample::Heading => 0.0,
        }
    }

    fn gap(&self) -> f64 {
        if *self == Sample::Heading { 0.0 } else { SAMPLE_GAP }
    }

    /// Draws the sample with its left side at x and its middle at y.
    fn draw(&self, scene: &mut Scene, [x, y]: Point) {
        let square = Rect::new(x, y - SAMPLE / 2.0, x + SAMPLE, y + SAMPLE / 2.0);
        let line = [[x, y], [x + LINE_SAMPLE, y]];
        match self {
            Sample::Colour(fill) => {
                scene.add(Shape::Block { rect: square, fill: *fill });
                marks::frame(scene, square, theme::HAIRLINE);
            }
            Sample::Series { colour, dash, marker } => {
                scene.add(Shape::Lines {
                    lines: vec![line.to_vec()],
                    width: theme::LINE,
                    colour: *colour,
                    dash: *dash,
                });
                scene.add(marker.shape([x + LINE_SAMPLE / 2.0, y], *colour));
            }
            Sample::Line { colour, dash } => {
                let lines = vec![line.to_vec()];
                scene.add(Shape::Lines { lines, width: theme::LINE, colour: *colour, dash: *dash });
            }
            Sample::Dot(fill) | Sample::Ringed(fill) => {
                let centre = [x + self.width() / 2.0, y];
                let rim = matches!(self, Sample::Ringed(_)).then_some((0.25, theme::INK));
                scene.add(Shape::Disc { centre, radius: self.width() / 2.0, fill: *fill, rim, opacity: 1.0 });
            }
            Sample::Hatched => {
                marks::hatched(scene, square);
                marks::frame(scene, square, theme::HAIRLINE);
            }
            Sample::Cross => {
                scene.add(Shape::Block { rect: square, fill: theme::MISSING });
                marks::frame(scene, square, theme::HAIRLINE);
                marks::cross(scene, square.centre(), 2.0);
            }
            Sample::Overlay { dash } => {
                let around = Rect::new(x, y - theme::HALO, x + LINE_SAMPLE, y + theme::HALO);
                marks::haloed(scene, around, &[line.to_vec()], *dash);
            }
            Sample::Heading => {}
        }
    }
}

/// Entries in reading order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Legend {
    entries: Vec<(Sample, Rich)>,
}

impl Legend {
    /// Adds an entry.
    pub fn push(&mut self, sample: Sample, text: Rich) {
        self.entries.push((sample, text));
    }

    /// Adds the words that say what the following entries are.
    pub fn heading(&mut self, text: &Rich) {
        if !text.is_empty() {
            self.push(Sample::Heading, text.clone().then(&Rich::plain(":")));
        }
    }

    /// Height that the legend takes where it may be `width` points wide; zero without entries.
    pub fn height(&self, width: f64) -> f64 {
        match self.flow(width).last() {
            Some(entry) => (entry.line + entry.text.len()) as f64 * LINE_HEIGHT + BELOW,
            None => 0.0,
        }
    }

    /// Draws the legend with its top left corner at the given point.
    pub fn draw(&self, scene: &mut Scene, [left, top]: Point, width: f64) {
        for ((sample, _), entry) in self.entries.iter().zip(self.flow(width)) {
            let middle = |line: usize| top + (line as f64 + 0.5) * LINE_HEIGHT;
            sample.draw(scene, [left + entry.x, middle(entry.line)]);
            let start = left + entry.x + sample.width() + sample.gap();
            for (i, line) in entry.text.into_iter().enumerate() {
                let baseline = middle(entry.line + i) + CAP_HEIGHT * theme::TEXT / 2.0;
                scene.text([start, baseline], Anchor::Start, theme::TEXT, theme::INK, line);
            }
        }
    }

    /// The place of each entry. A heading has a line of its own where all does not fit on one.
    fn flow(&self, width: f64) -> Vec<Entry> {
        let on_one_line = self.flow_with(width, false);
        match on_one_line.last() {
            Some(last) if last.line > 0 => self.flow_with(width, true),
            _ => on_one_line,
        }
    }

    fn flow_with(&self, width: f64, heading_alone: bool) -> Vec<Entry> {
        let (mut line, mut x) = (0, 0.0);
        let mut places = Vec::with_capacity(self.entries.len());
        for (sample, text) in &self.entries {
            let before = sample.width() + sample.gap();
            // A hair of slack: text that just fits must not break because a sum was rounded.
            let text = text.wrap(theme::TEXT, width - before + 1e-9);
            let widest = text.iter().map(|line| line.width(theme::TEXT)).fold(0.0, f64::max);
            let (entry, n_lines) = (before + widest, text.len());
            if x > 0.0 && (x + entry > width || n_lines > 1) {
                (line, x) = (line + 1, 0.0);
            }
            places.push(Entry { line, x, text });
            match sample {
                _ if n_lines > 1 => (line, x) = (line + n_lines, 0.0),
                Sample::Heading if heading_alone => (line, x) = (line + 1, 0.0),
                Sample::Heading => x += entry + ENTRY_GAP / 2.0,
                _ => x += entry + ENTRY_GAP,
            }
        }
        places
    }
}

/// Where an entry stands: its first line, its left side, and its text broken into lines.
struct Entry {
    line: usize,
    x: f64,
    text: Vec<Rich>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Legend {
        let mut legend = Legend::default();
        legend.heading(&Rich::plain("method"));
        for (i, name) in ["relu", "topk", "batch_topk", "matryoshka", "random", "pca"].iter().enumerate() {
            let marker = Marker::of_series(i);
            legend
                .push(Sample::Series { colour: super::super::colour::KINDS[i], dash: None, marker }, Rich::plain(name));
        }
        legend.push(Sample::Hatched, Rich::plain("no value"));
        legend.push(Sample::Cross, Rich::plain("diverged"));
        legend
    }

    #[test]
    fn an_empty_legend_takes_no_room() {
        assert_eq!(Legend::default().height(100.0), 0.0);
    }

    #[test]
    fn entries_flow_into_lines_and_stay_inside_the_width() {
        let legend = sample();
        let mut heights = Vec::new();
        for width in [120.0, 236.0, 500.0] {
            let mut scene = Scene::new(width + 2.0, legend.height(width));
            legend.draw(&mut scene, [1.0, 0.0], width);
            assert_eq!(scene.faults(), Vec::<String>::new());
            heights.push(legend.height(width));
        }
        assert!(heights[0] > heights[1] && heights[1] > heights[2]);
        assert_eq!(heights[2], LINE_HEIGHT + BELOW);
    }
}
