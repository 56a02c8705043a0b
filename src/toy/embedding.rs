//! The fixed embedding that an [`Mlp`](super::ToyKind::Mlp) reads its features through.

use crate::data::Dictionary;

/// E, `[n_features, d_embedding]`: row i is the unit direction E_i of feature i.
///
/// Where d_embedding < n_features, random orthonormal rows `[d_embedding, n_features]` (up to a rotation of the embedding,
/// the right singular vectors of a Gaussian matrix), columns made unit length (Jermyn, Schiefer & Hubinger 2022,
/// "Engineering monosemanticity in toy models"); else orthonormal directions. The same for one seed and shape.
pub fn embedding(n_features: usize, d_embedding: usize, seed: u64) -> Vec<f32> {
    let (few, many) = (n_features.min(d_embedding), n_features.max(d_embedding));
    let frame = Dictionary::orthogonal(few, many, seed).expect("the fewer rows fit into the greater width").vectors;
    if n_features <= d_embedding {
        return frame;
    }
    let mut rows = Vec::with_capacity(frame.len());
    for i in 0..n_features {
        let column: Vec<f64> = frame.iter().skip(i).step_by(n_features).map(|v| *v as f64).collect();
        // A column of zeros has probability 0.
        let norm = column.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        rows.extend(column.into_iter().map(|v| (v / norm) as f32));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_have_unit_length_and_nearly_a_tight_frame() {
        for (n, d) in [(1, 1), (20, 3), (128, 16), (4, 9)] {
            let e = embedding(n, d, 3);
            assert_eq!(e.len(), n * d);
            let norm = |i: usize| e[i * d..(i + 1) * d].iter().map(|v| (*v as f64).powi(2)).sum::<f64>();
            // Rounded to f32: each of d squares is off by 1.2e-7 of itself.
            assert!((0..n).all(|i| (norm(i) - 1.0).abs() < 1e-6));
            assert_eq!(e, embedding(n, d, 3));
            assert!(n == 1 && d == 1 || e != embedding(n, d, 4));
        }
        // Before the columns were made unit length their rows were orthonormal: what is left of that is that no direction
        // of the embedding carries much more than its share n / d of the total (half as much again would need a column
        // norm far from its mean).
        let (n, d) = (128, 16);
        let e = embedding(n, d, 3);
        for k in 0..d {
            let along: f64 = (0..n).map(|i| (e[i * d + k] as f64).powi(2)).sum();
            assert!((0.5..1.5).contains(&(along * d as f64 / n as f64)), "{k}: {along}");
        }
    }
}
