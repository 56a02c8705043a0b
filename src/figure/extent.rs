//! Extents of shapes, for tests: what a figure clips and which texts overlap.

use super::scene::{Anchor, Item, Point, Rect, Scene, Shape, anchor_shift};
use super::text::{DEPTH, Rich};
use super::theme;

impl Rect {
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

fn text_bounds([x, y]: Point, anchor: Anchor, size: f64, text: &Rich, upright: bool) -> Rect {
    let width = text.width(size);
    let start = anchor_shift(anchor, width);
    let (rise, drop) = (text.ascent(size), DEPTH * size);
    match upright {
        true => Rect::new(x + start, y - rise, x + start + width, y + drop),
        false => Rect::new(x - rise, y - start - width, x + drop, y - start),
    }
}

impl Scene {
    /// Everything that is clipped by the edge of the figure or, for text, by other text, as sentences; for tests.
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
