//! Lines over a phase diagram: levels of a grid of numbers, boundaries of a grid of kinds.

use super::scene::Point;

/// Segments along which a grid of values crosses `level`, by linear interpolation on each side of a square of four
/// neighbours ("marching squares", Lorensen and Cline 1987 in two dimensions). `xs` and `ys` are the places of the
/// values, rising; `values[row][column]`. Squares with an undefined corner have no line.
pub fn level_lines(xs: &[f64], ys: &[f64], values: &[Vec<Option<f64>>], level: f64) -> Vec<[Point; 2]> {
    let mut segments = Vec::new();
    for row in 0..ys.len().saturating_sub(1) {
        for column in 0..xs.len().saturating_sub(1) {
            let corners = [
                (xs[column], ys[row], values[row][column]),
                (xs[column + 1], ys[row], values[row][column + 1]),
                (xs[column + 1], ys[row + 1], values[row + 1][column + 1]),
                (xs[column], ys[row + 1], values[row + 1][column]),
            ];
            let corners = corners.map(|(x, y, value)| value.map(|value| ([x, y], value - level)));
            if let [Some(a), Some(b), Some(c), Some(d)] = corners {
                square([a, b, c, d], &mut segments);
            }
        }
    }
    segments
}

/// The one or two segments inside a square with the given corners in turn, values relative to the level.
fn square(corners: [(Point, f64); 4], segments: &mut Vec<[Point; 2]>) {
    let mut crossings = Vec::with_capacity(4);
    for i in 0..4 {
        let ((from, low), (to, high)) = (corners[i], corners[(i + 1) % 4]);
        // A corner on the level counts as above it, so that a line through a corner is found once.
        if (low < 0.0) != (high < 0.0) {
            let share = low / (low - high);
            crossings.push([0, 1].map(|axis| from[axis] + (to[axis] - from[axis]) * share));
        }
    }
    match crossings[..] {
        [a, b] => segments.push([a, b]),
        // A saddle: the mean of the corners says which pair of corners is joined.
        [a, b, c, d] => {
            let mean: f64 = corners.iter().map(|(_, value)| value).sum::<f64>() / 4.0;
            let joined = (corners[0].1 < 0.0) == (mean < 0.0);
            segments.extend(if joined { [[a, b], [c, d]] } else { [[d, a], [b, c]] });
        }
        _ => {}
    }
}

/// Sides between neighbouring cells of different kind; `xs` and `ys` are the cells' edges. A missing cell has no
/// boundary.
pub fn boundaries(xs: &[f64], ys: &[f64], kinds: &[Vec<Option<usize>>]) -> Vec<[Point; 2]> {
    let differ = |a: Option<usize>, b: Option<usize>| matches!((a, b), (Some(a), Some(b)) if a != b);
    let mut segments = Vec::new();
    for (row, cells) in kinds.iter().enumerate() {
        for (column, &cell) in cells.iter().enumerate() {
            if column > 0 && differ(cells[column - 1], cell) {
                segments.push([[xs[column], ys[row]], [xs[column], ys[row + 1]]]);
            }
            if row > 0 && differ(kinds[row - 1][column], cell) {
                segments.push([[xs[column], ys[row]], [xs[column + 1], ys[row]]]);
            }
        }
    }
    segments
}

/// Joins segments that share an end into longer lines, so that strokes turn corners without a notch.
pub fn chained(mut segments: Vec<[Point; 2]>) -> Vec<Vec<Point>> {
    let near = |a: Point, b: Point| (a[0] - b[0]).abs() < 1e-9 && (a[1] - b[1]).abs() < 1e-9;
    // A level that passes through a corner leaves segments without length; they would end a chain early.
    segments.retain(|[a, b]| !near(*a, *b));
    let mut lines: Vec<Vec<Point>> = Vec::new();
    while let Some([from, to]) = segments.pop() {
        let mut line = vec![from, to];
        for _ in 0..2 {
            while let Some(&end) = line.last() {
                let Some(next) = segments.iter().position(|[a, b]| near(*a, end) || near(*b, end)) else { break };
                let [a, b] = segments.swap_remove(next);
                line.push(if near(a, end) { b } else { a });
            }
            line.reverse();
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(f: impl Fn(f64, f64) -> f64, n: usize) -> (Vec<f64>, Vec<Vec<Option<f64>>>) {
        let places: Vec<f64> = (0..n).map(|i| i as f64 / (n - 1) as f64).collect();
        let values = places.iter().map(|y| places.iter().map(|x| Some(f(*x, *y))).collect()).collect();
        (places, values)
    }

    #[test]
    fn a_plane_has_a_straight_line_at_its_level() {
        let (places, values) = grid(|x, y| x + 2.0 * y, 7);
        let segments = level_lines(&places, &places, &values, 1.3);
        assert!(!segments.is_empty());
        for [x, y] in segments.into_iter().flatten() {
            // Interpolation is exact for a plane up to rounding.
            assert!((x + 2.0 * y - 1.3).abs() < 1e-12);
        }
    }

    #[test]
    fn a_hill_has_one_closed_line_around_it() {
        let (places, values) = grid(|x, y| -(x - 0.5) * (x - 0.5) - (y - 0.5) * (y - 0.5), 21);
        let lines = chained(level_lines(&places, &places, &values, -0.09));
        assert_eq!(lines.len(), 1);
        let ends = (lines[0][0], lines[0][lines[0].len() - 1]);
        assert!((ends.0[0] - ends.1[0]).abs() < 1e-9 && (ends.0[1] - ends.1[1]).abs() < 1e-9);
        for [x, y] in &lines[0] {
            let radius = ((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5)).sqrt();
            // Linear interpolation of a parabola over a step h = 1/20 errs by at most h²/8 in value, so by h²/(16 r).
            assert!((radius - 0.3).abs() < 0.05 * 0.05 / (16.0 * 0.3) * 2.0, "{radius}");
        }
    }

    #[test]
    fn squares_with_an_undefined_corner_have_no_line() {
        let (places, mut values) = grid(|x, _| x, 3);
        values[1][1] = None;
        assert!(level_lines(&places, &places, &values, 0.4).is_empty());
    }

    #[test]
    fn boundaries_run_between_kinds_and_join_into_a_staircase() {
        let kinds = vec![vec![Some(0), Some(1)], vec![Some(0), Some(0)]];
        let segments = boundaries(&[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0], &kinds);
        assert_eq!(segments.len(), 2);
        let lines = chained(segments);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].len(), 3);
        let missing = vec![vec![None, Some(1)], vec![None, Some(1)]];
        assert!(boundaries(&[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0], &missing).is_empty());
    }
}
