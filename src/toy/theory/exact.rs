//! The expected loss of a small ReLU-output model, exactly.
//!
//! Where a set A of features fires, an output is ReLU(Y) with Y = b + Σ_{j in A} c_j U_j, U_j uniform on [0, 1]: a polynomial
//! on each side of a plane. Integrating once along each U_j gives a sum over the corners of the cube,
//!
//! ```text
//! E ReLU(Y)²     = 1/Π c_j · Σ_v (-1)^(|A| - |v|) 2 (b + c·v)_+^(|A| + 2) / (|A| + 2)!
//! E U_0 ReLU(Y)  = the same with one integration by parts along U_0
//! ```
//!
//! (the truncated powers of a box spline; de Boor, Höllig & Riemenschneider 1993, chapter I). Summed over all 2^n sets with
//! their probabilities that is the loss, at a cost of n 3^n terms.

/// Coefficients below this are integrated by [`GAUSS`]: dividing by their product would amplify rounding. Three points are
/// exact for a polynomial of degree five along U; where a kink is met the error is below the cube of this, times its probability.
const SMALL: f64 = 1e-2;

/// Nodes and weights of the three-point Gauss-Legendre rule on [0, 1].
const GAUSS: [(f64, f64); 3] =
    [(0.112_701_665_379_258_3, 5.0 / 18.0), (0.5, 4.0 / 9.0), (0.887_298_334_620_741_7, 5.0 / 18.0)];

/// Most features: 3^n terms for each output.
pub const MOST_FEATURES: usize = 10;

/// E Σ_i I_i (x_i - ReLU(W_iᵀ W x + b_i))² of features that fire independently with probability p_i and are U[0, 1] where
/// they fire. `w` is `[n_features, d_hidden]`, row i the column W_i; the others are `[n_features]`.
///
/// # Panics
/// If lengths differ, or there are more than [`MOST_FEATURES`].
pub fn relu_output_loss(w: &[f64], b: &[f64], importance: &[f64], p: &[f64]) -> f64 {
    let n = b.len();
    assert!(n <= MOST_FEATURES && n > 0 && w.len().is_multiple_of(n) && importance.len() == n && p.len() == n);
    let d = w.len() / n;
    let product = |i: usize, j: usize| (0..d).map(|k| w[i * d + k] * w[j * d + k]).sum::<f64>();
    (0..n)
        .map(|i| {
            let coefficients: Vec<f64> = (0..n).map(|j| product(i, j)).collect();
            importance[i] * output_loss(i, &coefficients, b[i], p)
        })
        .sum()
}

/// E (x_i - ReLU(Σ_j c_j x_j + b))² of one output.
///
/// # Panics
/// As [`relu_output_loss`].
pub fn output_loss(i: usize, coefficients: &[f64], b: f64, p: &[f64]) -> f64 {
    let n = p.len();
    assert!(n <= MOST_FEATURES && i < n && coefficients.len() == n);
    let mut total = 0.0;
    for set in 0..1u32 << n {
        let fires = |j: usize| set >> j & 1 == 1;
        let probability: f64 = (0..n).map(|j| if fires(j) { p[j] } else { 1.0 - p[j] }).product();
        if probability == 0.0 {
            continue;
        }
        let others: Vec<f64> = (0..n).filter(|&j| j != i && fires(j)).map(|j| coefficients[j]).collect();
        total += probability * given_set(fires(i).then_some(coefficients[i]), &others, b);
    }
    total
}

/// The same given who fires: `own` is c_i if feature i does.
fn given_set(own: Option<f64>, others: &[f64], b: f64) -> f64 {
    let small: Vec<f64> = others.iter().copied().filter(|c| c.abs() < SMALL && *c != 0.0).collect();
    let mut large: Vec<f64> = others.iter().copied().filter(|c| c.abs() >= SMALL).collect();
    match own {
        None => over_small(&small, b, &|b| mean_square(&large, b)),
        Some(own) if own.abs() < SMALL => over_small(&small, b, &|b| {
            let at = |(u, weight): (f64, f64)| {
                let y = b + own * u;
                weight * (u * u - 2.0 * u * corner_sum(&large, y, 1) + mean_square(&large, y))
            };
            GAUSS.into_iter().map(at).sum()
        }),
        Some(own) => {
            let cross = over_small(&small, b, &|b| mean_product(own, &large, b));
            large.push(own);
            1.0 / 3.0 - 2.0 * cross + over_small(&small, b, &|b| mean_square(&large, b))
        }
    }
}

/// The mean of f(b + Σ c_j U_j) over small coefficients.
fn over_small(small: &[f64], b: f64, f: &dyn Fn(f64) -> f64) -> f64 {
    match small.split_last() {
        None => f(b),
        Some((last, rest)) => GAUSS.iter().map(|(u, weight)| weight * over_small(rest, b + last * u, f)).sum(),
    }
}

/// E ReLU(b + Σ c_j U_j)².
fn mean_square(terms: &[f64], b: f64) -> f64 {
    2.0 * corner_sum(terms, b, 2)
}

/// E of (Y_+)^power / power! over Y = b + Σ c_j U_j: the sum over corners.
fn corner_sum(terms: &[f64], b: f64, power: usize) -> f64 {
    corners(terms, b, &|y| truncated_power(y, power + terms.len())) / terms.iter().product::<f64>()
}

/// E U ReLU(b + own U + Σ c_j U_j), by parts along U: with F_k(y) = y_+^k / k! and d others,
/// F_{d+2}(y + own) / own - (F_{d+3}(y + own) - F_{d+3}(y)) / own² summed over the corners of the others.
fn mean_product(own: f64, others: &[f64], b: f64) -> f64 {
    let d = others.len();
    let by_parts = |y: f64| {
        let rise = truncated_power(y + own, d + 3) - truncated_power(y, d + 3);
        truncated_power(y + own, d + 2) / own - rise / (own * own)
    };
    corners(others, b, &by_parts) / others.iter().product::<f64>()
}

/// Σ over corners v of (-1)^(d - |v|) f(b + c·v), corners by halving, so that the order is fixed.
fn corners(terms: &[f64], b: f64, f: &impl Fn(f64) -> f64) -> f64 {
    match terms.split_last() {
        None => f(b),
        Some((last, rest)) => corners(rest, b + last, f) - corners(rest, b, f),
    }
}

/// y_+^k / k!.
fn truncated_power(y: f64, k: usize) -> f64 {
    if y <= 0.0 {
        return 0.0;
    }
    (1..=k).fold(1.0, |product, j| product * y / j as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use crate::toy::theory::uniform::variance;

    /// A few dozen roundings.
    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-14, "{a} {b}");
    }

    /// The candidates of T1 at p and importance (1, r).
    #[test]
    fn the_candidates_of_two_features_in_one_dimension_have_their_closed_forms() {
        for (p, r) in [(0.05, 1.0), (0.3, 0.2), (0.9, 3.0)] {
            let loss = |w: [f64; 2], b: [f64; 2]| relu_output_loss(&w, &b, &[1.0, r], &[p; 2]);
            let v = variance(p);
            near(loss([1.0, 0.0], [0.0, p / 2.0]), r * v);
            near(loss([0.0, 1.0], [p / 2.0, 0.0]), v);
            near(loss([1.0, -1.0], [0.0; 2]), (1.0 + r) * p * p / 6.0);
            let half = 0.5f64.sqrt();
            near(loss([half, half], [0.0; 2]), (1.0 + r) / 2.0 * v);
        }
    }

    /// The unit triangle of T2: (2 + r)(p²/8 + p³/24).
    #[test]
    fn the_unit_triangle_has_its_closed_form() {
        let (p, r, root) = (0.4, 0.5, 0.75f64.sqrt());
        let w = [1.0, 0.0, -0.5, root, -0.5, -root];
        near(relu_output_loss(&w, &[0.0; 3], &[1.0, 1.0, r], &[p; 3]), (2.0 + r) * (p * p / 8.0 + p * p * p / 24.0));
    }

    /// Against 4e5 draws: a bound of five standard errors, false alarm below 1e-6 a case. Densities differ, a bias is
    /// positive, in one case all coefficients of a feature are small.
    #[test]
    fn sampling_agrees() {
        let mut draws = Draws::new(5, Stream::Baseline, 0);
        for case in 0..4 {
            let (n, d) = (4, 2);
            let mut w: Vec<f64> = (0..n * d).map(|_| 0.8 * draws.normal()).collect();
            if case == 1 {
                (w[6], w[7]) = (1e-3, -2e-3);
            }
            let b: Vec<f64> = (0..n).map(|_| 0.2 * draws.normal()).collect();
            let (p, importance) = ([0.2, 0.9, 0.5, 0.05], [1.0, 0.5, 2.0, 0.25]);
            let samples = 400_000;
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..samples {
                let x = p.map(|p| if draws.uniform() < p { draws.uniform() } else { 0.0 });
                let h: Vec<f64> = (0..d).map(|k| (0..n).map(|i| w[i * d + k] * x[i]).sum()).collect();
                let output = |i: usize| ((0..d).map(|k| w[i * d + k] * h[k]).sum::<f64>() + b[i]).max(0.0);
                let loss: f64 = (0..n).map(|i| importance[i] * (x[i] - output(i)).powi(2)).sum();
                sum += loss;
                squares += loss * loss;
            }
            let mean = sum / samples as f64;
            let error = ((squares / samples as f64 - mean * mean) / samples as f64).sqrt();
            let exact = relu_output_loss(&w, &b, &importance, &p);
            assert!((mean - exact).abs() < 5.0 * error, "{case}: {mean} {exact} {error}");
        }
    }
}
