//! Small marks that a panel and its legend share: point shapes, hatching, crosses, lines with a halo.

use super::colour::Rgb;
use super::scene::{Point, Rect, Scene, Shape};
use super::theme;

/// Shapes of data points, one for each series in turn, so that series differ without colour too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Disc,
    /// A square.
    Square,
    /// A triangle on its base.
    Triangle,
    /// A square on its corner.
    Diamond,
    /// A triangle on its tip.
    Tip,
}

impl Marker {
    /// The marker of series `i`.
    pub fn of_series(i: usize) -> Marker {
        [Marker::Disc, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Tip][i % 5]
    }

    /// The marker as a shape; all have about the area of a disc of radius `theme::DOT`.
    pub fn shape(self, centre: Point, colour: Rgb) -> Shape {
        let [x, y] = centre;
        let r = theme::DOT;
        let (square, diamond, side) = (0.89 * r, 1.25 * r, 1.35 * r);
        let points = match self {
            Marker::Disc => return Shape::Disc { centre, radius: r, fill: colour, rim: None, opacity: 1.0 },
            Marker::Square => {
                vec![
                    [x - square, y - square],
                    [x + square, y - square],
                    [x + square, y + square],
                    [x - square, y + square],
                ]
            }
            Marker::Triangle => vec![[x, y - side], [x + side, y + 0.866 * side], [x - side, y + 0.866 * side]],
            Marker::Diamond => vec![[x, y - diamond], [x + diamond, y], [x, y + diamond], [x - diamond, y]],
            Marker::Tip => vec![[x, y + side], [x - side, y - 0.866 * side], [x + side, y - 0.866 * side]],
        };
        Shape::Area { points, fill: colour, opacity: 1.0 }
    }
}

/// The frame of a rectangle. Lines reach half their width beyond the corners, which so are closed.
pub fn frame(scene: &mut Scene, rect: Rect, width: f64) {
    let Rect { left, top, right, bottom } = rect;
    let half = width / 2.0;
    for y in [top, bottom] {
        scene.line([left - half, y], [right + half, y], width, theme::INK);
    }
    for x in [left, right] {
        scene.line([x, top - half], [x, bottom + half], width, theme::INK);
    }
}

/// Light grey with slanted lines: nothing was measured here. Lines run on from one rectangle into its neighbour.
pub fn hatched(scene: &mut Scene, rect: Rect) {
    scene.add(Shape::Block { rect, fill: theme::MISSING });
    let step = theme::HATCH_STEP;
    // Lines x + y = k · step, cut to the rectangle.
    let first = ((rect.left + rect.top) / step).ceil() as i64;
    let last = ((rect.right + rect.bottom) / step).floor() as i64;
    let lines = (first..=last)
        .map(|k| {
            let sum = k as f64 * step;
            let (from, to) = (rect.left.max(sum - rect.bottom), rect.right.min(sum - rect.top));
            vec![[from, sum - from], [to, sum - to]]
        })
        .collect();
    scene.add_inside(rect, Shape::Lines { lines, width: theme::HAIRLINE, colour: theme::HATCH, dash: None });
}

/// A small cross, dark on a light halo so that it shows on every colour: a run diverged here.
pub fn cross(scene: &mut Scene, [x, y]: Point, half: f64) {
    let lines =
        vec![vec![[x - half, y - half], [x + half, y + half]], vec![[x - half, y + half], [x + half, y - half]]];
    scene.add(Shape::Lines { lines: lines.clone(), width: 1.8, colour: theme::PAPER, dash: None });
    scene.add(Shape::Lines { lines, width: theme::LINE, colour: theme::INK, dash: None });
}

/// Overlaid lines: white over a dark halo, both shown only inside `clip`. Halos come first, so that lines that touch
/// join without a break.
pub fn haloed(scene: &mut Scene, clip: Rect, lines: &[Vec<Point>], dash: Option<(f64, f64)>) {
    let stroke = |width, colour, dash| Shape::Lines { lines: lines.to_vec(), width, colour, dash };
    scene.add_inside(clip, stroke(theme::HALO, theme::INK, None));
    scene.add_inside(clip, stroke(theme::OVERLAY, theme::PAPER, dash));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hatching_stays_inside_its_rectangle_and_fills_it() {
        let rect = Rect::new(10.2, 7.7, 31.9, 19.3);
        let mut scene = Scene::new(50.0, 50.0);
        hatched(&mut scene, rect);
        let Shape::Lines { lines, .. } = &scene.items[1].shape else { panic!("lines after the ground") };
        // x + y spans width + height = 33.3 points: 11 or 12 lines, 3 apart.
        assert!((11..=12).contains(&lines.len()));
        for [x, y] in lines.iter().flatten() {
            assert!(rect.contains(&Rect::new(*x, *y, *x, *y), 1e-9));
        }
    }

    #[test]
    fn markers_have_about_the_same_area() {
        let disc = std::f64::consts::PI * theme::DOT * theme::DOT;
        for i in 1..5 {
            let Shape::Area { points, .. } = Marker::of_series(i).shape([0.0, 0.0], theme::INK) else {
                panic!("a polygon")
            };
            let twice: f64 =
                points.iter().zip(points.iter().cycle().skip(1)).map(|([x0, y0], [x1, y1])| x0 * y1 - x1 * y0).sum();
            assert!((twice.abs() / 2.0 / disc - 1.0).abs() < 0.1, "marker {i}: {} {disc}", twice.abs() / 2.0);
        }
    }
}
