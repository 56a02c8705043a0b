//! Linear algebra in f64: the only place that calls faer.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::{ColMut, Mat, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2};

/// Up to this size eigenvectors come from Jacobi rotations, whose bits are the same on every machine. faer, much faster on
/// large matrices, chooses its kernels by the processor, and where eigenvalues meet (a null space, say) last bits decide
/// which basis comes out.
const JACOBI_UP_TO: usize = 256;

/// Eigenvalues, descending, and eigenvectors as rows in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// `[n]`
    pub values: Array1<f64>,
    /// `[n, n]`, orthonormal rows; each row's entry of largest size (the first such) is positive.
    pub vectors: Array2<f64>,
}

/// Eigenvalues and eigenvectors of a symmetric matrix `[n, n]`, of which the lower triangle is read.
///
/// # Panics
/// If the matrix is not square or holds a number that is not finite.
pub fn symmetric_eigen(matrix: ArrayView2<'_, f64>) -> Eigen {
    let n = matrix.nrows();
    assert!(matrix.is_square() && matrix.iter().all(|x| x.is_finite()), "a square matrix of finite numbers");
    let symmetric = Array2::from_shape_fn((n, n), |(i, j)| matrix[[i.max(j), i.min(j)]]);
    let (values, vectors) = if n <= JACOBI_UP_TO { jacobi(symmetric) } else { by_faer(&symmetric) };
    sorted(&values, &vectors)
}

/// Descending values, equal ones in the order they came; signs fixed.
fn sorted(values: &[f64], rows: &Array2<f64>) -> Eigen {
    let n = values.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut vectors = Array2::zeros((n, n));
    for (mut to, &from) in vectors.rows_mut().into_iter().zip(&order) {
        let row = rows.row(from);
        let largest = row.iter().fold(0.0f64, |a, &x| if x.abs() > a.abs() { x } else { a });
        to.assign(&(&row * if largest < 0.0 { -1.0 } else { 1.0 }));
    }
    Eigen { values: order.iter().map(|&i| values[i]).collect(), vectors }
}

/// Cyclic Jacobi rotations (Golub & Van Loan, section 8.5.3) until what is off the diagonal is rounding; eigenvectors as
/// rows.
fn jacobi(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let mut vectors = Array2::eye(n);
    let scale = a.iter().map(|x| x * x).sum::<f64>();
    // Convergence is quadratic: sweeps beyond some ten do nothing.
    for _ in 0..60 {
        let off: f64 = a.indexed_iter().map(|((i, j), x)| if i < j { x * x } else { 0.0 }).sum();
        if off <= 1e-32 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    (a.diag().to_vec(), vectors)
}

/// The rotation of rows and columns p and q that makes a[p, q] zero.
fn rotate(a: &mut Array2<f64>, vectors: &mut Array2<f64>, p: usize, q: usize) {
    let apq = a[[p, q]];
    if apq == 0.0 {
        return;
    }
    let theta = (a[[q, q]] - a[[p, p]]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (t * t + 1.0).sqrt();
    let sine = t * cosine;
    let turn = |m: &mut Array2<f64>| {
        let (mut low, mut high) = m.multi_slice_mut((ndarray::s![p, ..], ndarray::s![q, ..]));
        for (x, y) in low.iter_mut().zip(&mut high) {
            (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
        }
    };
    let (app, aqq) = (a[[p, p]] - t * apq, a[[q, q]] + t * apq);
    turn(a);
    turn(vectors);
    (a[[p, p]], a[[q, q]], a[[p, q]], a[[q, p]]) = (app, aqq, 0.0, 0.0);
    for i in (0..a.nrows()).filter(|&i| i != p && i != q) {
        (a[[i, p]], a[[i, q]]) = (a[[p, i]], a[[q, i]]);
    }
}

/// As [`jacobi`], on one thread.
fn by_faer(a: &Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let (mut values, mut vectors) = (vec![0.0; n], Mat::<f64>::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let numbers = a.as_slice().expect("standard layout");
    self_adjoint_evd(
        MatRef::from_row_major_slice(numbers, n, n),
        ColMut::from_slice_mut(&mut values).as_diagonal_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .expect("the iteration converges for every finite symmetric matrix");
    (values, Array2::from_shape_fn((n, n), |(i, j)| vectors[(j, i)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use ndarray::arr2;

    /// A product of `n` by `rank` normals with its transpose: eigenvalues of size up to a few n.
    fn random(n: usize, rank: usize) -> Array2<f64> {
        let mut draws = Draws::new(2, Stream::Baseline, n as u64);
        let factor = Array2::from_shape_simple_fn((n, rank), || draws.normal());
        Array2::from_shape_fn((n, n), |(i, j)| (0..rank).map(|k| factor[[i, k]] * factor[[j, k]]).sum())
    }

    fn assert_eigen(matrix: &Array2<f64>, Eigen { values, vectors }: &Eigen, tolerance: f64) {
        let n = matrix.nrows();
        assert!(values.iter().zip(values.iter().skip(1)).all(|(a, b)| a >= b));
        for i in 0..n {
            for j in 0..n {
                let product: f64 = (0..n).map(|k| vectors[[i, k]] * vectors[[j, k]]).sum();
                assert!((product - (i == j) as u8 as f64).abs() < tolerance, "row {i} on row {j}: {product}");
                let image: f64 = (0..n).map(|k| matrix[[j, k]] * vectors[[i, k]]).sum();
                assert!((image - values[i] * vectors[[i, j]]).abs() < tolerance * (1.0 + values[0]), "({i}, {j})");
            }
            let largest = vectors.row(i).iter().fold(0.0f64, |a, &x| if x.abs() > a.abs() { x } else { a });
            assert!(largest > 0.0);
        }
    }

    /// Backward stable methods: a few n roundings of 1.1e-16 of the largest eigenvalue; 1e-12 leaves room.
    #[test]
    fn eigenvectors_are_orthonormal_and_belong_to_their_values() {
        for (n, rank) in [(1, 1), (2, 2), (5, 5), (20, 20), (20, 7), (40, 60), (130, 30)] {
            let matrix = random(n, rank);
            assert_eigen(&matrix, &symmetric_eigen(matrix.view()), 1e-12);
            let (values, vectors) = by_faer(&matrix);
            assert_eigen(&matrix, &sorted(&values, &vectors), 1e-12);
        }
    }

    /// Values by [`jacobi`] and by faer: both within 1e-13 of the largest.
    #[test]
    fn both_methods_give_the_same_values_and_vectors() {
        let matrix = random(60, 90);
        let found = symmetric_eigen(matrix.view());
        let (values, vectors) = by_faer(&matrix);
        let other = sorted(&values, &vectors);
        let worst = found.values.iter().zip(&other.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-13 * found.values[0]);
        // Vectors are as far off as values over the gaps between them, here at least 1e-3 of the largest.
        for (a, b) in found.vectors.iter().zip(&other.vectors) {
            assert!((a - b).abs() < 1e-9);
        }
    }

    #[test]
    fn a_large_matrix_goes_to_faer_and_comes_back_ordered_and_signed() {
        let n = JACOBI_UP_TO + 4;
        let diagonal = Array2::from_shape_fn((n, n), |(i, j)| if i == j { (i * 7 % n) as f64 } else { 0.0 });
        let found = symmetric_eigen(diagonal.view());
        for (i, &value) in found.values.iter().enumerate() {
            assert!((value - (n - 1 - i) as f64).abs() < 1e-10);
            let row = found.vectors.row(i);
            assert!(row.iter().filter(|x| x.abs() > 1e-10).count() == 1 && row.sum() > 0.99);
        }
    }

    #[test]
    fn a_worked_example_and_the_lower_triangle_alone() {
        let found = symmetric_eigen(arr2(&[[2.0, 99.0], [1.0, 2.0]]).view());
        let root = 0.5f64.sqrt();
        for (found, expected) in found.values.iter().chain(&found.vectors).zip([3.0, 1.0, root, root, root, -root]) {
            assert!((found - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn zero_and_diagonal_matrices_need_no_rotation() {
        let found = symmetric_eigen(Array2::zeros((3, 3)).view());
        assert_eq!((found.values, found.vectors), (Array1::zeros(3), Array2::eye(3)));
        let found = symmetric_eigen(arr2(&[[1.0, 0.0], [0.0, 4.0]]).view());
        assert_eq!(found.vectors, arr2(&[[0.0, 1.0], [1.0, 0.0]]));
    }
}
