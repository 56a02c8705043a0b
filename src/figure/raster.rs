//! Draws a scene into pixels with exact area coverage.
//!
//! Each shape becomes closed outlines; every edge adds its signed area to the pixels it crosses, and a running sum along
//! each row turns these into the share of the pixel that is covered (the method of font-rs, Levien 2016). A stroke is
//! the union of a quadrilateral for each segment and a disc for each joint, all wound alike so that sums only need
//! clamping. Only +, -, ×, ÷, floor and square roots are used, so equal scenes give equal bytes on every machine.

use super::colour::Rgb;
use super::font::{DEJAVU_SANS, Step};
use super::scene::{Anchor, Item, Point, Rect, Scene, Shape, anchor_shift};
use super::text::Rich;
use super::theme;

/// Corners of the polygon that stands for a disc.
const DISC_CORNERS: usize = 48;
/// Cosine of the turn up to which pieces of a stroke share an edge, about 37 degrees.
const GENTLE: f64 = 0.8;
/// Straight pieces of one quadratic curve of a glyph; at 300 dpi its error is below 1/100 pixel.
const CURVE_PIECES: usize = 6;

/// An image of 8-bit RGB pixels, row by row from the top.
pub struct Bitmap {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 * width * height` bytes.
    pub pixels: Vec<u8>,
}

/// Pixels that a figure of this size has: (width, height).
pub fn pixel_size(scene: &Scene) -> (usize, usize) {
    let pixels = |points: f64| (points * theme::PIXELS_PER_POINT).round().max(1.0) as usize;
    (pixels(scene.width), pixels(scene.height))
}

/// Draws every shape of the scene on white.
pub fn draw(scene: &Scene) -> Bitmap {
    let (width, height) = pixel_size(scene);
    let mut canvas = Bitmap { width, height, pixels: vec![255; 3 * width * height] };
    for item in &scene.items {
        canvas.draw(item);
    }
    canvas
}

/// A rectangle of whole pixels, right and bottom excluded.
#[derive(Clone, Copy)]
struct Window {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

/// Closed outlines in pixels, all filled together.
#[derive(Default)]
struct Outline {
    contours: Vec<Vec<Point>>,
}

impl Bitmap {
    fn draw(&mut self, item: &Item) {
        let clip = match &item.clip {
            Some(rect) => self.snapped(rect),
            None => Window { left: 0, top: 0, right: self.width, bottom: self.height },
        };
        match &item.shape {
            Shape::Block { rect, fill } => self.fill_window(self.snapped(rect), clip, *fill),
            Shape::Gradient { rect, colours } => self.gradient(self.snapped(rect), colours),
            Shape::Area { points, fill, opacity } => {
                let outline = Outline { contours: vec![points.iter().map(in_pixels).collect()] };
                self.fill(&outline, clip, *fill, *opacity);
            }
            Shape::Lines { lines, width, colour, dash } => self.lines(lines, *width, *colour, *dash, clip),
            Shape::Disc { centre, radius, fill, rim, opacity } => {
                let centre = in_pixels(centre);
                let radius = radius * theme::PIXELS_PER_POINT;
                if let Some((width, colour)) = rim {
                    let outer =
                        Outline { contours: vec![disc(centre, radius + width * theme::PIXELS_PER_POINT / 2.0)] };
                    self.fill(&outer, clip, *colour, 1.0);
                }
                let inset = rim.map_or(0.0, |(width, _)| width * theme::PIXELS_PER_POINT / 2.0);
                self.fill(&Outline { contours: vec![disc(centre, radius - inset)] }, clip, *fill, *opacity);
            }
            Shape::Text { at, anchor, size, colour, text, upright } => {
                self.text(*at, *anchor, *size, *colour, text, *upright, clip);
            }
        }
    }

    /// The whole pixels nearest to a rectangle, inside the image.
    fn snapped(&self, rect: &Rect) -> Window {
        let snap =
            |points: f64, most: usize| (points * theme::PIXELS_PER_POINT).round().clamp(0.0, most as f64) as usize;
        Window {
            left: snap(rect.left, self.width),
            top: snap(rect.top, self.height),
            right: snap(rect.right, self.width),
            bottom: snap(rect.bottom, self.height),
        }
    }

    fn fill_window(&mut self, window: Window, clip: Window, fill: Rgb) {
        for y in window.top.max(clip.top)..window.bottom.min(clip.bottom) {
            for x in window.left.max(clip.left)..window.right.min(clip.right) {
                self.blend(x, y, fill, 1.0);
            }
        }
    }

    fn gradient(&mut self, window: Window, colours: &[Rgb]) {
        let rows = window.bottom.saturating_sub(window.top);
        for row in 0..rows {
            // The middle of the row decides, counted from the bottom.
            let place = (rows as f64 - row as f64 - 0.5) / rows as f64 * colours.len() as f64;
            let Some(&colour) = colours.get((place as usize).min(colours.len().saturating_sub(1))) else { return };
            let y = window.top + row;
            let strip = Window { top: y, bottom: y + 1, ..window };
            self.fill_window(strip, strip, colour);
        }
    }

    fn lines(&mut self, lines: &[Vec<Point>], width: f64, colour: Rgb, dash: Option<(f64, f64)>, clip: Window) {
        let mut outline = Outline::default();
        for line in lines {
            match (dash, &line[..]) {
                (None, [from, to]) if from[0] == to[0] || from[1] == to[1] => {
                    self.fill_window(self.snapped_line(*from, *to, width), clip, colour);
                }
                (None, points) => outline.stroke(points, width),
                (Some((on, off)), points) => {
                    for piece in dashes(points, on, off) {
                        outline.stroke(&piece, width);
                    }
                }
            }
        }
        self.fill(&outline, clip, colour, 1.0);
    }

    /// An upright line on whole pixels, so that ticks and frames are sharp; at least one pixel wide.
    fn snapped_line(&self, from: Point, to: Point, width: f64) -> Window {
        let across = (width * theme::PIXELS_PER_POINT).round().max(1.0);
        let start = |centre: f64| (centre * theme::PIXELS_PER_POINT - across / 2.0).round();
        let (lengthwise, crosswise) = if from[0] == to[0] { (1, 0) } else { (0, 1) };
        let low = (from[lengthwise].min(to[lengthwise]) * theme::PIXELS_PER_POINT).round();
        let high = (from[lengthwise].max(to[lengthwise]) * theme::PIXELS_PER_POINT).round();
        let near = start(from[crosswise]);
        let inside = |value: f64, most: usize| value.clamp(0.0, most as f64) as usize;
        let (x, y) =
            if crosswise == 0 { ((near, near + across), (low, high)) } else { ((low, high), (near, near + across)) };
        Window {
            left: inside(x.0, self.width),
            right: inside(x.1, self.width),
            top: inside(y.0, self.height),
            bottom: inside(y.1, self.height),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one shape, taken apart")]
    fn text(&mut self, at: Point, anchor: Anchor, size: f64, colour: Rgb, text: &Rich, upright: bool, clip: Window) {
        let (placed, width) = text.set();
        let start = anchor_shift(anchor, width * size);
        let font = &*DEJAVU_SANS;
        for glyph in placed {
            let scale = glyph.size * size / font.units_per_em();
            let place = |[x, y]: Point| {
                let along = start + glyph.x * size + (x + glyph.slant * y) * scale;
                let up = glyph.y * size + y * scale;
                in_pixels(&if upright { [at[0] + along, at[1] - up] } else { [at[0] - up, at[1] - along] })
            };
            let mut outline = Outline::default();
            for step in font.outline(glyph.glyph) {
                outline.step(step, place);
            }
            self.fill(&outline, clip, colour, 1.0);
        }
    }

    /// Fills outlines; overlapping contours wound alike count once.
    fn fill(&mut self, outline: &Outline, clip: Window, fill: Rgb, opacity: f64) {
        let Some(window) = outline.window(clip) else { return };
        // One column more than the window: an edge's last share falls into the pixel to its right.
        let stride = window.right - window.left + 2;
        let mut sums = vec![0.0; stride * (window.bottom - window.top)];
        for contour in &outline.contours {
            for (i, &to) in contour.iter().enumerate() {
                let from = contour[(i + contour.len() - 1) % contour.len()];
                add_edge(&mut sums, stride, window, from, to);
            }
        }
        for (row, sums) in sums.chunks_exact(stride).enumerate() {
            let mut covered = 0.0;
            for (column, share) in sums[..stride - 2].iter().enumerate() {
                covered += share;
                let share = f64::abs(covered).min(1.0) * opacity;
                // Sums of areas end within rounding of zero; less than half a grey level shows nothing.
                if share > 1.0 / 512.0 {
                    self.blend(window.left + column, window.top + row, fill, share);
                }
            }
        }
    }

    fn blend(&mut self, x: usize, y: usize, colour: Rgb, share: f64) {
        let at = 3 * (y * self.width + x);
        let Rgb(red, green, blue) = colour;
        for (channel, new) in self.pixels[at..at + 3].iter_mut().zip([red, green, blue]) {
            let old = f64::from(*channel);
            *channel = (old + (f64::from(new) - old) * share).round() as u8;
        }
    }
}

impl Outline {
    /// The pixels the outline can touch, inside `clip`; `None` where there are none.
    fn window(&self, clip: Window) -> Option<Window> {
        let points = || self.contours.iter().flatten();
        let low = |axis: usize| points().map(|p| p[axis]).fold(f64::INFINITY, f64::min).floor().max(0.0);
        let high = |axis: usize| points().map(|p| p[axis]).fold(f64::NEG_INFINITY, f64::max).ceil().max(0.0);
        let window = Window {
            left: clip.left.max(low(0) as usize),
            top: clip.top.max(low(1) as usize),
            right: clip.right.min(high(0) as usize),
            bottom: clip.bottom.min(high(1) as usize),
        };
        (window.left < window.right && window.top < window.bottom).then_some(window)
    }

    /// Adds the outline of a stroke with flat ends. Where the line turns gently its pieces share their edge, so that a
    /// finely sampled curve has smooth sides; sharper turns get a disc.
    fn stroke(&mut self, points: &[Point], width: f64) {
        let half = width * theme::PIXELS_PER_POINT / 2.0;
        let mut points: Vec<Point> = points.iter().map(in_pixels).collect();
        points.dedup();
        let normals: Vec<Point> = points.windows(2).map(|pair| normal(pair[0], pair[1])).collect();
        // The shared edge at the start of each segment, where its turn is gentle: both normals' half-way vector.
        let shared: Vec<Option<Point>> = normals
            .windows(2)
            .map(|pair| {
                let cosine = pair[0][0] * pair[1][0] + pair[0][1] * pair[1][1];
                (cosine > GENTLE).then(|| [0, 1].map(|axis| (pair[0][axis] + pair[1][axis]) / (1.0 + cosine)))
            })
            .collect();
        for (i, pair) in points.windows(2).enumerate() {
            let edge_at =
                |joint: Option<usize>| joint.and_then(|at| shared.get(at).copied().flatten()).unwrap_or(normals[i]);
            let (start, end) = (edge_at(i.checked_sub(1)), edge_at(Some(i)));
            let beside = |[x, y]: Point, [nx, ny]: Point, side: f64| [x + side * half * nx, y + side * half * ny];
            // Wound like `disc`, whatever the direction of the line.
            self.contours.push(vec![
                beside(pair[0], start, -1.0),
                beside(pair[1], end, -1.0),
                beside(pair[1], end, 1.0),
                beside(pair[0], start, 1.0),
            ]);
        }
        let sharp = shared.iter().enumerate().filter(|(_, edge)| edge.is_none());
        self.contours.extend(sharp.map(|(joint, _)| disc(points[joint + 1], half)));
    }

    fn step(&mut self, step: Step, place: impl Fn(Point) -> Point) {
        if let Step::Move(point) = step {
            self.contours.push(vec![place(point)]);
            return;
        }
        let Some(contour) = self.contours.last_mut() else { return };
        match step {
            Step::Move(_) => {}
            Step::Line(point) => contour.push(place(point)),
            Step::Curve(bend, end) => {
                let Some(&start) = contour.last() else { return };
                let (bend, end) = (place(bend), place(end));
                for piece in 1..=CURVE_PIECES {
                    let t = piece as f64 / CURVE_PIECES as f64;
                    let (a, b, c) = ((1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t);
                    contour.push([0, 1].map(|axis| a * start[axis] + b * bend[axis] + c * end[axis]));
                }
            }
        }
    }
}

/// Unit vector to the right of the way from one point to another, y downwards; the points differ.
fn normal([x0, y0]: Point, [x1, y1]: Point) -> Point {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let length = (dx * dx + dy * dy).sqrt();
    [-dy / length, dx / length]
}

fn in_pixels(point: &Point) -> Point {
    point.map(|points| points * theme::PIXELS_PER_POINT)
}

/// A polygon close to a disc, in pixels.
fn disc([x, y]: Point, radius: f64) -> Vec<Point> {
    (0..DISC_CORNERS)
        .map(|corner| {
            let angle = std::f64::consts::TAU * corner as f64 / DISC_CORNERS as f64;
            [x + radius * libm::cos(angle), y + radius * libm::sin(angle)]
        })
        .collect()
}

/// Cuts a line into pieces `on` long, `off` apart.
pub fn dashes(points: &[Point], on: f64, off: f64) -> Vec<Vec<Point>> {
    let mut pieces = Vec::new();
    let mut piece: Vec<Point> = points.first().map(|&first| vec![first]).unwrap_or_default();
    let (mut drawing, mut left) = (true, on);
    for pair in points.windows(2) {
        let ([x0, y0], [x1, y1]) = (pair[0], pair[1]);
        let length = ((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0)).sqrt();
        let mut done = 0.0;
        while length - done >= left {
            done += left;
            let share = done / length;
            let point = [x0 + (x1 - x0) * share, y0 + (y1 - y0) * share];
            if drawing {
                piece.push(point);
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![point];
            }
            drawing = !drawing;
            left = if drawing { on } else { off };
        }
        left -= length - done;
        if drawing {
            piece.push(pair[1]);
        }
    }
    if drawing && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Adds the signed area to the right of one edge. Edges left of the window count fully, edges right of it not at all.
fn add_edge(sums: &mut [f64], stride: usize, window: Window, from: Point, to: Point) {
    if from[1] == to[1] {
        return;
    }
    let (sign, [x0, y0], [x1, y1]) = if from[1] < to[1] { (1.0, from, to) } else { (-1.0, to, from) };
    let (top, bottom) = (window.top as f64, window.bottom as f64);
    let slope = (x1 - x0) / (y1 - y0);
    let at = |y: f64| x0 + (y - y0) * slope - window.left as f64;
    let first = y0.max(top).floor() as usize;
    let last = y1.min(bottom).ceil().max(0.0) as usize;
    for row in first..last.min(window.bottom) {
        let (high, low) = (y0.max(row as f64), y1.min(row as f64 + 1.0));
        let height = low - high;
        if height <= 0.0 {
            continue;
        }
        let line = &mut sums[(row - window.top) * stride..(row - window.top + 1) * stride];
        add_row(line, at(high), at(low), sign * height);
    }
}

/// Adds an edge inside one row that runs from `a` to `b` and spans `height` of the row.
fn add_row(line: &mut [f64], a: f64, b: f64, height: f64) {
    let most = (line.len() - 2) as f64;
    let (left, right) = (a.min(b).clamp(0.0, most), a.max(b).clamp(0.0, most));
    let first = left.floor();
    let n_pixels = (right.ceil() - first).max(1.0) as usize;
    let start = first as usize;
    if n_pixels == 1 {
        // The part of the pixel right of the edge, then all of every pixel after it.
        let share = 1.0 - ((left + right) / 2.0 - first);
        line[start] += height * share;
        line[start + 1] += height * (1.0 - share);
        return;
    }
    // Area right of the edge in each pixel it crosses: the integral of a line, so half squares of the lengths covered.
    let per_length = 1.0 / (right - left);
    let mut before = 0.0;
    for pixel in 0..=n_pixels {
        let x = first + pixel as f64;
        let (from, to) = (left.max(x), right.min(x + 1.0));
        let crossed = if to > from {
            let (done_from, done_to) = ((from - left) * per_length, (to - left) * per_length);
            (done_from + done_to) / 2.0 * (to - from) + (x + 1.0 - to) * done_to
        } else {
            1.0
        };
        line[(start + pixel).min(most as usize + 1)] += height * (crossed - before);
        before = crossed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Rgb = Rgb(0, 0, 0);

    /// Side of a pixel in points.
    const PIXEL: f64 = 1.0 / theme::PIXELS_PER_POINT;

    fn image(n: usize, shapes: Vec<Shape>) -> Bitmap {
        let mut scene = Scene::new(n as f64 * PIXEL, n as f64 * PIXEL);
        shapes.into_iter().for_each(|shape| scene.add(shape));
        draw(&scene)
    }

    fn area(points: &[Point]) -> Shape {
        let points = points.iter().map(|p| p.map(|v| v * PIXEL)).collect();
        Shape::Area { points, fill: BLACK, opacity: 1.0 }
    }

    /// Black share of each pixel.
    fn cover(image: &Bitmap) -> Vec<f64> {
        image.pixels.chunks(3).map(|pixel| 1.0 - f64::from(pixel[0]) / 255.0).collect()
    }

    #[test]
    fn a_polygon_covers_exactly_its_area() {
        // Each pixel is rounded to 1/255, so n touched pixels err by at most n/510.
        let shapes: [(&[Point], f64); 4] = [
            (&[[2.25, 3.5], [7.75, 3.5], [7.75, 8.25], [2.25, 8.25]], 5.5 * 4.75),
            (&[[1.0, 1.0], [11.0, 1.0], [1.0, 11.0]], 50.0),
            (&[[1.3, 2.0], [14.2, 2.9], [14.2, 3.3], [1.3, 2.4]], 12.9 * 0.4),
            (&[[8.0, 1.5], [14.5, 8.0], [8.0, 14.5], [1.5, 8.0]], 6.5 * 6.5 * 2.0),
        ];
        for (points, expected) in shapes {
            for reversed in [false, true] {
                let mut points = points.to_vec();
                if reversed {
                    points.reverse();
                }
                let measured: f64 = cover(&image(16, vec![area(&points)])).iter().sum();
                assert!((measured - expected).abs() < 256.0 / 510.0 * 0.5, "{measured} for {expected}");
            }
        }
    }

    #[test]
    fn one_pixel_half_covered_is_half_grey() {
        let grey = cover(&image(4, vec![area(&[[1.0, 1.0], [1.5, 1.0], [1.5, 2.0], [1.0, 2.0]])]));
        assert!((grey[5] - 0.5).abs() < 1.0 / 255.0);
        let diagonal = cover(&image(4, vec![area(&[[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]])]));
        assert!((diagonal[5] - 0.5).abs() < 1.0 / 255.0);
        assert!(diagonal.iter().enumerate().all(|(i, share)| i == 5 || *share == 0.0));
    }

    #[test]
    fn a_polygon_that_leaves_the_image_is_cut_at_its_edge() {
        let whole = cover(&image(8, vec![area(&[[-5.0, -5.0], [20.0, -5.0], [20.0, 20.0], [-5.0, 20.0]])]));
        assert!(whole.iter().all(|share| *share == 1.0));
        let left = cover(&image(8, vec![area(&[[-5.0, -5.0], [4.0, -5.0], [4.0, 20.0], [-5.0, 20.0]])]));
        assert_eq!(left.iter().sum::<f64>(), 32.0);
    }

    #[test]
    fn blocks_that_meet_leave_no_seam() {
        let split = 3.3 * PIXEL;
        let block = |left, right| Shape::Block { rect: Rect::new(left, 0.0, right, 8.0 * PIXEL), fill: BLACK };
        let image = image(8, vec![block(0.0, split), block(split, 8.0 * PIXEL)]);
        assert!(cover(&image).iter().all(|share| *share == 1.0));
    }

    #[test]
    fn a_frame_line_is_sharp() {
        let line = Shape::Lines {
            lines: vec![vec![[0.0, 3.37 * PIXEL], [8.0 * PIXEL, 3.37 * PIXEL]]],
            width: 2.0 * PIXEL,
            colour: BLACK,
            dash: None,
        };
        let shares = cover(&image(8, vec![line]));
        assert!(shares.iter().all(|share| *share == 0.0 || *share == 1.0));
        assert_eq!(shares.iter().sum::<f64>(), 16.0);
    }

    #[test]
    fn a_stroke_covers_its_length_times_its_width_and_pieces_share_their_edges() {
        let stroke = |points: &[Point]| {
            let points = points.iter().map(|p| p.map(|v| v * PIXEL)).collect();
            Shape::Lines { lines: vec![points], width: 3.0 * PIXEL, colour: BLACK, dash: None }
        };
        // A 3-4-5 slope: length 20 and 3 wide.
        let straight: f64 = cover(&image(24, vec![stroke(&[[4.0, 4.0], [16.0, 20.0]])])).iter().sum();
        assert!((straight - 60.0).abs() < 0.5, "{straight}");
        // The same line in three pieces: they share their edges.
        let pieces: f64 =
            cover(&image(24, vec![stroke(&[[4.0, 4.0], [7.0, 8.0], [10.0, 12.0], [16.0, 20.0]])])).iter().sum();
        assert!((pieces - 60.0).abs() < 0.5, "{pieces}");
    }

    #[test]
    fn the_counter_of_a_letter_stays_white() {
        let mut scene = Scene::new(40.0 * PIXEL, 40.0 * PIXEL);
        scene.text([4.0 * PIXEL, 36.0 * PIXEL], Anchor::Start, 40.0 * PIXEL, BLACK, Rich::plain("O"));
        let shares = cover(&draw(&scene));
        // "O" at 40 px spans about 4..32 across and 7..36 down; its middle is paper, its left side ink.
        assert_eq!(shares[22 * 40 + 19], 0.0);
        assert!(shares[22 * 40 + 4..22 * 40 + 12].contains(&1.0));
    }

    #[test]
    fn dashes_have_the_asked_lengths_round_corners_too() {
        let pieces = dashes(&[[0.0, 0.0], [10.0, 0.0], [10.0, 10.0]], 4.0, 2.0);
        let length = |piece: &Vec<Point>| -> f64 {
            piece.windows(2).map(|p| (p[1][0] - p[0][0]).abs() + (p[1][1] - p[0][1]).abs()).sum()
        };
        let lengths: Vec<f64> = pieces.iter().map(length).collect();
        assert_eq!(lengths, [4.0, 4.0, 4.0, 2.0]);
        assert_eq!(pieces[1], vec![[6.0, 0.0], [10.0, 0.0]]);
    }
}
