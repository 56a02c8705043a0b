//! A figure as a list of shapes in points, the one layout that PNG and SVG are both made from.
//!
//! The origin is the top left corner, y grows downwards. Nothing here knows about pixels or files; the extents of every
//! shape are known, so a test can ask whether anything is clipped or overlaps.

use super::colour::Rgb;
use super::text::{DEPTH, Rich};

/// A point: x to the right, y down, in points.
pub type Point = [f64; 2];

/// An upright rectangle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    /// Smallest x.
    pub left: f64,
    /// Smallest y.
    pub top: f64,
    /// Largest x.
    pub right: f64,
    /// Largest y.
    pub bottom: f64,
}

impl Rect {
    /// A rectangle from its sides.
    pub fn new(left: f64, top: f64, right: f64, bottom: f64) -> Rect {
        Rect { left, top, right, bottom }
    }

    /// Right minus left.
    pub fn width(&self) -> f64 {
        self.right - self.left
    }

    /// Bottom minus top.
    pub fn height(&self) -> f64 {
        self.bottom - self.top
    }

    /// The middle.
    pub fn centre(&self) -> Point {
        [(self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0]
    }

    /// The smallest rectangle around both.
    pub fn union(&self, other: &Rect) -> Rect {
        Rect {
            left: self.left.min(other.left),
            top: self.top.min(other.top),
            right: self.right.max(other.right),
            bottom: self.bottom.max(other.bottom),
        }
    }

    /// True where the two share area.
    pub fn overlaps(&self, other: &Rect) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// True where `other` lies inside, give or take `slack`.
    pub fn contains(&self, other: &Rect, slack: f64) -> bool {
        other.left >= self.left - slack
            && other.top >= self.top - slack
            && other.right <= self.right + slack
            && other.bottom <= self.bottom + slack
    }

    /// The rectangle with every side moved outwards.
    pub fn grown(&self, by: f64) -> Rect {
        Rect::new(self.left - by, self.top - by, self.right + by, self.bottom + by)
    }
}

/// Which point of a line of text its position names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The start of the baseline.
    Start,
    /// The middle of the baseline.
    Middle,
    /// The end of the baseline.
    End,
}

/// One shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A filled upright rectangle whose sides are moved to whole pixels, so that neighbours meet without a seam.
    Block { rect: Rect, fill: Rgb },
    /// A rectangle filled with colours from bottom to top.
    Gradient { rect: Rect, colours: Vec<Rgb> },
    /// A filled polygon; `opacity` 1 hides what is under it.
    Area { points: Vec<Point>, fill: Rgb, opacity: f64 },
    /// Lines of one width; `dash` is (on, off) lengths. Upright lines without a dash are moved to whole pixels.
    Lines { lines: Vec<Vec<Point>>, width: f64, colour: Rgb, dash: Option<(f64, f64)> },
    /// A filled disc, with a rim where `rim` is given: (width, colour).
    Disc { centre: Point, radius: f64, fill: Rgb, rim: Option<(f64, Rgb)> },
    /// A line of text; `upright` false turns it a quarter to the left, to be read from below.
    Text { at: Point, anchor: Anchor, size: f64, colour: Rgb, text: Rich, upright: bool },
}

impl Shape {
    /// The smallest rectangle around the shape, stroke widths included.
    pub fn bounds(&self) -> Rect {
        let around = |points: &mut dyn Iterator<Item = &Point>| {
            points
                .fold(Rect::new(f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY), |rect, &[x, y]| {
                    rect.union(&Rect::new(x, y, x, y))
                })
        };
        match self {
            Shape::Block { rect, .. } | Shape::Gradient { rect, .. } => *rect,
            Shape::Area { points, .. } => around(&mut points.iter()),
            Shape::Lines { lines, width, .. } => around(&mut lines.iter().flatten()).grown(width / 2.0),
            Shape::Disc { centre: [x, y], radius, rim, .. } => {
                Rect::new(*x, *y, *x, *y).grown(radius + rim.map_or(0.0, |(width, _)| width / 2.0))
            }
            Shape::Text { at, anchor, size, text, upright, .. } => text_bounds(*at, *anchor, *size, text, *upright),
        }
    }
}

/// Where a line of text starts relative to its anchor, along its own direction, in points.
pub fn anchor_shift(anchor: Anchor, width: f64) -> f64 {
    match anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
    }
}

fn text_bounds([x, y]: Point, anchor: Anchor, size: f64, text: &Rich, upright: bool) -> Rect {
    let width = text.width(size);
    let start = anchor_shift(anchor, width);
    let (rise, drop) = (text.ascent(size), DEPTH * size);
    match upright {
        true => Rect::new(x + start, y - rise, x + start + width, y + drop),
        false => Rect::new(x - rise, y - start - width, x + drop, y - start),
    }
}

/// A shape and the rectangle outside which it is not shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What is drawn.
    pub shape: Shape,
    /// Where it may show; everywhere if `None`.
    pub clip: Option<Rect>,
}

/// Everything in a figure, in drawing order.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Width in points.
    pub width: f64,
    /// Height in points.
    pub height: f64,
    /// Name of the figure, for readers who cannot see it.
    pub title: String,
    /// What it shows, in sentences.
    pub description: String,
    /// The shapes.
    pub items: Vec<Item>,
}

impl Scene {
    /// An empty figure.
    pub fn new(width: f64, height: f64) -> Scene {
        Scene { width, height, title: String::new(), description: String::new(), items: Vec::new() }
    }

    /// Adds a shape on top.
    pub fn add(&mut self, shape: Shape) {
        self.items.push(Item { shape, clip: None });
    }

    /// Adds a shape on top that shows only inside `clip`.
    pub fn add_inside(&mut self, clip: Rect, shape: Shape) {
        self.items.push(Item { shape, clip: Some(clip) });
    }

    /// Adds one straight line.
    pub fn line(&mut self, from: Point, to: Point, width: f64, colour: Rgb) {
        self.add(Shape::Lines { lines: vec![vec![from, to]], width, colour, dash: None });
    }

    /// Adds a line of text to be read from the left.
    pub fn text(&mut self, at: Point, anchor: Anchor, size: f64, colour: Rgb, text: Rich) {
        self.add(Shape::Text { at, anchor, size, colour, text, upright: true });
    }

    /// Adds a line of text to be read from below.
    pub fn text_upwards(&mut self, at: Point, anchor: Anchor, size: f64, colour: Rgb, text: Rich) {
        self.add(Shape::Text { at, anchor, size, colour, text, upright: false });
    }

    /// Everything that is clipped by the edge of the figure or, for text, by other text, as sentences; for tests.
    #[cfg(test)]
    pub fn faults(&self) -> Vec<String> {
        let canvas = Rect::new(0.0, 0.0, self.width, self.height);
        let name = |item: &Item| match &item.shape {
            Shape::Text { text, .. } => format!("text `{}`", text.read()),
            other => format!("{other:?}").chars().take(60).collect(),
        };
        let mut faults = Vec::new();
        for item in &self.items {
            let bounds = item.shape.bounds();
            let seen = item.clip.unwrap_or(bounds);
            if !canvas.contains(&seen, 1e-9) {
                faults.push(format!("{} at {seen:?} leaves the canvas {canvas:?}", name(item)));
            }
        }
        let texts: Vec<(String, Rect)> = self
            .items
            .iter()
            .filter(|item| matches!(item.shape, Shape::Text { .. }))
            .map(|item| (name(item), item.shape.bounds()))
            .collect();
        for (i, (first, box_first)) in texts.iter().enumerate() {
            for (second, box_second) in &texts[i + 1..] {
                if box_first.overlaps(box_second) {
                    faults.push(format!("{first} overlaps {second}"));
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::theme;

    #[test]
    fn turned_text_is_as_tall_as_it_is_wide_when_upright() {
        let text = Rich::plain("hidden width");
        let upright = text_bounds([50.0, 50.0], Anchor::Middle, 8.0, &text, true);
        let turned = text_bounds([50.0, 50.0], Anchor::Middle, 8.0, &text, false);
        assert!((upright.width() - turned.height()).abs() < 1e-12);
        assert!((upright.height() - turned.width()).abs() < 1e-12);
        assert!((turned.centre()[1] - 50.0).abs() < 1e-12);
    }

    #[test]
    fn faults_names_what_is_clipped_and_what_overlaps() {
        let mut scene = Scene::new(100.0, 50.0);
        scene.text([50.0, 20.0], Anchor::Middle, 8.0, theme::INK, Rich::plain("inside"));
        assert!(scene.faults().is_empty());
        scene.text([98.0, 40.0], Anchor::Start, 8.0, theme::INK, Rich::plain("out"));
        scene.text([55.0, 22.0], Anchor::Middle, 8.0, theme::INK, Rich::plain("over"));
        let faults = scene.faults().join("; ");
        assert!(faults.contains("text `out`") && faults.contains("leaves the canvas"), "{faults}");
        assert!(faults.contains("text `inside` overlaps text `over`"), "{faults}");
    }
}
