//! A figure as a list of shapes in points, the one layout that PNG and SVG are both made from.
//!
//! The origin is the top left corner, y grows downwards. Nothing here knows about pixels or files; the extents of every
//! shape are known, so a test can ask whether anything is clipped or overlaps.

use super::colour::Rgb;
use super::text::Rich;

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
    /// A filled disc, with a rim where `rim` is given: (width, colour); `opacity` 1 hides what is under it.
    Disc { centre: Point, radius: f64, fill: Rgb, rim: Option<(f64, Rgb)>, opacity: f64 },
    /// A line of text; `upright` false turns it a quarter to the left, to be read from below.
    Text { at: Point, anchor: Anchor, size: f64, colour: Rgb, text: Rich, upright: bool },
}

/// Where a line of text starts relative to its anchor, along its own direction, in points.
pub fn anchor_shift(anchor: Anchor, width: f64) -> f64 {
    match anchor {
        Anchor::Start => 0.0,
        Anchor::Middle => -width / 2.0,
        Anchor::End => -width,
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
}
