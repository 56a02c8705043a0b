//! A minimiser for smooth functions of a few variables.

/// Steps after which a search ends in any case; what is minimised here takes some tens.
const MOST_STEPS: usize = 500;

/// The local minimum that quasi-Newton steps (BFGS; Nocedal & Wright 2006, algorithm 6.1, with halved steps until Armijo's
/// condition holds) reach from `start`: (point, value).
///
/// Gradients are central differences, exact to some 1e-10 of the function's scale for functions with three derivatives, and the
/// search ends where no step lowers the value: the value is then right to about 1e-12 of its scale, the point to its root.
pub fn minimise(f: impl Fn(&[f64]) -> f64, start: &[f64]) -> (Vec<f64>, f64) {
    let n = start.len();
    let (mut x, mut value) = (start.to_vec(), f(start));
    let mut gradient = differences(&f, &x);
    let mut inverse = identity(n);
    let mut fresh = true;
    for _ in 0..MOST_STEPS {
        let direction: Vec<f64> = inverse.iter().map(|row| -dot(row, &gradient)).collect();
        let slope = dot(&direction, &gradient);
        let found = (slope < 0.0).then(|| descend(&f, &x, value, &direction, slope)).flatten();
        let Some((next, lower)) = found else {
            // A stale curvature may point uphill: once more along the gradient, then it is a minimum.
            if fresh {
                break;
            }
            (inverse, fresh) = (identity(n), true);
            continue;
        };
        let next_gradient = differences(&f, &next);
        let step: Vec<f64> = next.iter().zip(&x).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        (x, value, gradient) = (next, lower, next_gradient);
        fresh = !update(&mut inverse, &step, &change);
    }
    (x, value)
}

/// The first of the step, its half, its quarter, ... that lowers the value enough.
fn descend(
    f: &impl Fn(&[f64]) -> f64,
    x: &[f64],
    value: f64,
    direction: &[f64],
    slope: f64,
) -> Option<(Vec<f64>, f64)> {
    let mut scale = 1.0;
    for _ in 0..40 {
        let next: Vec<f64> = x.iter().zip(direction).map(|(x, d)| x + scale * d).collect();
        let lower = f(&next);
        if lower < value && lower <= value + 1e-4 * scale * slope {
            return Some((next, lower));
        }
        scale *= 0.5;
    }
    None
}

/// BFGS update of the inverse Hessian; false where the step has no curvature to tell of.
fn update(inverse: &mut [Vec<f64>], step: &[f64], change: &[f64]) -> bool {
    let along = dot(step, change);
    if along <= 1e-300 {
        return false;
    }
    let image: Vec<f64> = inverse.iter().map(|row| dot(row, change)).collect();
    let scale = (1.0 + dot(change, &image) / along) / along;
    for (i, row) in inverse.iter_mut().enumerate() {
        for (j, entry) in row.iter_mut().enumerate() {
            *entry += scale * step[i] * step[j] - (image[i] * step[j] + step[i] * image[j]) / along;
        }
    }
    true
}

fn differences(f: &impl Fn(&[f64]) -> f64, x: &[f64]) -> Vec<f64> {
    const WIDTH: f64 = 1e-5;
    let mut at = x.to_vec();
    let mut slope = |i: usize| {
        at[i] = x[i] + WIDTH;
        let above = f(&at);
        at[i] = x[i] - WIDTH;
        let below = f(&at);
        at[i] = x[i];
        (above - below) / (2.0 * WIDTH)
    };
    (0..x.len()).map(&mut slope).collect()
}

fn identity(n: usize) -> Vec<Vec<f64>> {
    (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rosenbrock's valley, minimum 0 at (1, 1), from its usual start.
    #[test]
    fn a_curved_valley_is_followed_to_its_end() {
        let (x, value) = minimise(|x| (1.0 - x[0]).powi(2) + 100.0 * (x[1] - x[0] * x[0]).powi(2), &[-1.2, 1.0]);
        assert!(value < 1e-12 && (x[0] - 1.0).abs() < 1e-6 && (x[1] - 1.0).abs() < 1e-6, "{x:?} {value}");
    }

    #[test]
    fn a_start_at_the_minimum_stays_there() {
        assert_eq!(minimise(|x| x[0] * x[0], &[0.0]), (vec![0.0], 0.0));
    }
}
