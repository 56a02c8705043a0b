//! Small dense least squares in f64, the same bits on every machine.
//!
//! Householder QR with column pivoting where the columns are clearly independent; else the minimum-norm solution from a
//! one-sided Jacobi SVD (Hestenes 1958), which is slower and right at any rank. (Golub & Van Loan, Matrix Computations,
//! 5.5 and 8.6.)

use super::vector::{dot, square};

/// Singular values below this share of the greatest count as 0.
const CUT_OFF: f64 = 1e-10;

/// QR is trusted where no pivot falls below this share of the first: well above the cut-off, so that both ways agree.
const INDEPENDENT: f64 = 1e-5;

/// Rotations stop when all columns are orthogonal to this cosine; a sweep more changes nothing in f64.
const ORTHOGONAL: f64 = 1e-15;

/// Jacobi converges quadratically; ten sweeps are usual.
const SWEEPS: usize = 60;

/// x of least norm among those of least ||Σ_k x_k columns_k - target||. Every column has the length of `target`.
pub fn least_squares(columns: &[&[f64]], target: &[f64]) -> Vec<f64> {
    by_qr(columns, target).unwrap_or_else(|| by_svd(columns, target))
}

/// None where the columns are not clearly independent.
fn by_qr(columns: &[&[f64]], target: &[f64]) -> Option<Vec<f64>> {
    let (rows, n) = (target.len(), columns.len());
    if n > rows {
        return None;
    }
    let mut a: Vec<Vec<f64>> = columns.iter().map(|column| column.to_vec()).collect();
    let mut b = target.to_vec();
    let mut order: Vec<usize> = (0..n).collect();
    for step in 0..n {
        let left = |a: &[Vec<f64>], k: usize| square(&a[k][step..]);
        let pivot = (step..n).fold(step, |best, k| if left(&a, k) > left(&a, best) { k } else { best });
        a.swap(step, pivot);
        order.swap(step, pivot);
        let norm = left(&a, step).sqrt();
        if norm <= INDEPENDENT * a[0][0].abs().max(f64::MIN_POSITIVE) {
            return None;
        }
        // Reflects the rest of column `step` onto its first entry, sign chosen against cancellation.
        let mut v = a[step][step..].to_vec();
        let diagonal = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= diagonal;
        let scale = 2.0 / square(&v);
        let reflect = |column: &mut [f64]| {
            let along = scale * dot(&v, column);
            column.iter_mut().zip(&v).for_each(|(x, v)| *x -= along * v);
        };
        a[step + 1..].iter_mut().for_each(|column| reflect(&mut column[step..]));
        reflect(&mut b[step..]);
        a[step][step] = diagonal;
    }
    let mut x = vec![0.0; n];
    for k in (0..n).rev() {
        let known: f64 = (k + 1..n).map(|l| a[l][k] * x[order[l]]).sum();
        x[order[k]] = (b[k] - known) / a[k][k];
    }
    Some(x)
}

/// The pseudo-inverse applied to `target`.
fn by_svd(columns: &[&[f64]], target: &[f64]) -> Vec<f64> {
    let (rows, n) = (target.len(), columns.len());
    // Jacobi wants no more columns than rows: of A or of its transpose.
    let tall = n <= rows;
    let mut a: Vec<Vec<f64>> = if tall {
        columns.iter().map(|column| column.to_vec()).collect()
    } else {
        (0..rows).map(|row| columns.iter().map(|column| column[row]).collect()).collect()
    };
    let v = orthogonalise(&mut a);
    // Now a_t = s_t u_t, with u_t (of A's columns, or of its rows) and v_t the singular vectors.
    let sizes: Vec<f64> = a.iter().map(|column| square(column).sqrt()).collect();
    let cut_off = CUT_OFF * sizes.iter().copied().fold(0.0, f64::max);
    let mut x = vec![0.0; n];
    for ((a, v), &size) in a.iter().zip(&v).zip(&sizes).filter(|(_, size)| **size > cut_off) {
        // x = Σ right_t (left_t·target) / s_t; the one that is s_t u_t brings another 1 / s_t.
        let (left, right) = if tall { (a, v) } else { (v, a) };
        let along = dot(left, target) / (size * size);
        x.iter_mut().zip(right).for_each(|(x, right)| *x += along * right);
    }
    x
}

/// Rotates pairs of columns of `a` until all are orthogonal; the columns of V, A V being the result.
fn orthogonalise(a: &mut [Vec<f64>]) -> Vec<Vec<f64>> {
    let n = a.len();
    let mut v: Vec<Vec<f64>> = (0..n).map(|k| (0..n).map(|l| (k == l) as u8 as f64).collect()).collect();
    // Columns this short have no direction left that matters.
    let negligible = f64::EPSILON * a.iter().map(|column| square(column)).fold(0.0, f64::max).sqrt();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for q in 1..n {
            for p in 0..q {
                let (pp, qq, pq) = (square(&a[p]), square(&a[q]), dot(&a[p], &a[q]));
                let small = pp.sqrt().min(qq.sqrt()) <= negligible;
                if small || pq.abs() <= ORTHOGONAL * pp.sqrt() * qq.sqrt() {
                    continue;
                }
                rotated = true;
                let zeta = (qq - pp) / (2.0 * pq);
                let tangent = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
                rotate(a, p, q, cosine, cosine * tangent);
                rotate(&mut v, p, q, cosine, cosine * tangent);
            }
        }
        if !rotated {
            break;
        }
    }
    v
}

/// (p, q) becomes (c p - s q, s p + c q).
fn rotate(columns: &mut [Vec<f64>], p: usize, q: usize, c: f64, s: f64) {
    let (before, after) = columns.split_at_mut(q);
    for (p, q) in before[p].iter_mut().zip(&mut after[0]) {
        (*p, *q) = (c * *p - s * *q, s * *p + c * *q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};

    fn random_columns(n: usize, rows: usize, draws: &mut Draws) -> Vec<Vec<f64>> {
        (0..n).map(|_| (0..rows).map(|_| draws.normal()).collect()).collect()
    }

    fn views(columns: &[Vec<f64>]) -> Vec<&[f64]> {
        columns.iter().map(Vec::as_slice).collect()
    }

    fn residual(columns: &[&[f64]], x: &[f64], target: &[f64]) -> Vec<f64> {
        let mut left = target.to_vec();
        for (column, x) in columns.iter().zip(x) {
            left.iter_mut().zip(*column).for_each(|(left, value)| *left -= x * value);
        }
        left
    }

    /// The normal equations hold at the minimum: the residual is orthogonal to every column. Entries are of size 1 and
    /// at most 40 long, conditions below 1e4: 1e-11 leaves 1e2 above rounding.
    #[test]
    fn both_ways_solve_the_normal_equations_and_agree() {
        let mut draws = Draws::new(5, Stream::Baseline, 0);
        for (n, rows) in [(1, 1), (1, 5), (2, 3), (5, 8), (7, 7), (12, 40), (30, 32)] {
            let owned = random_columns(n, rows, &mut draws);
            let (columns, target) = (views(&owned), random_columns(1, rows, &mut draws).remove(0));
            let qr = by_qr(&columns, &target).expect("random columns are independent");
            let svd = by_svd(&columns, &target);
            for (a, b) in qr.iter().zip(&svd) {
                assert!((a - b).abs() < 1e-11 * (1.0 + square(&qr).sqrt()), "{n} x {rows}: {a} {b}");
            }
            let left = residual(&columns, &qr, &target);
            assert!(columns.iter().all(|column| dot(column, &left).abs() < 1e-11 * (1.0 + square(&qr).sqrt())));
        }
    }

    /// Twice the same column: each takes half. Three columns in the plane: x = Aᵀ (A Aᵀ)⁻¹ b.
    #[test]
    fn dependent_columns_give_the_solution_of_least_norm() {
        let x = least_squares(&[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[1.0, 0.0, 0.0]], &[3.0, 5.0, 7.0]);
        for (found, expected) in x.iter().zip([1.5, 5.0, 1.5]) {
            assert!((found - expected).abs() < 1e-14, "{x:?}");
        }
        // A = (1 1 0; 0 1 1): A Aᵀ = (2 1; 1 2), its inverse (2 -1; -1 2)/3, applied to (3, 0): (2, -1), so x = (2, 1, -1).
        let wide = least_squares(&[&[1.0, 0.0], &[1.0, 1.0], &[0.0, 1.0]], &[3.0, 0.0]);
        for (found, expected) in wide.iter().zip([2.0, 1.0, -1.0]) {
            assert!((found - expected).abs() < 1e-14, "{wide:?}");
        }
    }

    /// More columns than rows: the target is met exactly and x lies in the span of the rows, so that nothing of it can be
    /// taken away: x is orthogonal to every null vector, here tested by projecting x on the rows and finding x again.
    #[test]
    fn more_columns_than_rows_meet_the_target_with_least_norm() {
        let mut draws = Draws::new(6, Stream::Baseline, 0);
        for (n, rows) in [(3, 2), (9, 4), (40, 20)] {
            let owned = random_columns(n, rows, &mut draws);
            let (columns, target) = (views(&owned), random_columns(1, rows, &mut draws).remove(0));
            let x = least_squares(&columns, &target);
            assert!(square(&residual(&columns, &x, &target)).sqrt() < 1e-10, "{n} x {rows}");
            let rows_of: Vec<Vec<f64>> = (0..rows).map(|r| columns.iter().map(|c| c[r]).collect()).collect();
            let along = least_squares(&views(&rows_of), &x);
            assert!(square(&residual(&views(&rows_of), &along, &x)).sqrt() < 1e-10, "{n} x {rows}");
        }
    }

    #[test]
    fn columns_of_zeros_get_nothing() {
        assert_eq!(least_squares(&[&[0.0, 0.0], &[0.0, 0.0]], &[1.0, 2.0]), [0.0, 0.0]);
        let x = least_squares(&[&[0.0, 2.0], &[0.0, 0.0]], &[1.0, 3.0]);
        assert!((x[0] - 1.5).abs() < 1e-15 && x[1] == 0.0);
    }
}
