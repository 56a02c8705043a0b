//! Kept weights of a toy model or a dictionary and, where there is one, of an autoencoder, with what figures draw of them.

use super::error::FigureError;
use crate::score::REPRESENTED;
use crate::store::Tensor;

/// Superposition of a shorter feature means nothing (as the score of this name has it).
const SUPERPOSITION_FLOOR: f64 = 0.1;

/// A matrix, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// `[rows, columns]`
    pub values: Vec<f64>,
}

impl Grid {
    /// A matrix from its entries.
    pub fn from_fn(rows: usize, columns: usize, f: impl Fn(usize, usize) -> f64) -> Grid {
        let values = (0..rows * columns).map(|at| f(at / columns, at % columns)).collect();
        Grid { rows, columns, values }
    }

    /// One entry.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.columns + column]
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// Directions of features and what was trained on them; W_i is row i of `w`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToyWeights {
    /// Of the toy model, or of the dictionary in its place: `[n_features, d_hidden]`
    pub w: Grid,
    /// `[n_features]`; empty where none was kept.
    pub b: Vec<f64>,
    /// Output weights of an untied model, `[n_features, d_hidden]`.
    pub v: Option<Grid>,
    /// Encoder of the autoencoder, `[n_latents, d_hidden]`.
    pub encoder: Option<Grid>,
    /// Decoder of the autoencoder, `[n_latents, d_hidden]`.
    pub decoder: Option<Grid>,
}

impl ToyWeights {
    /// From the tensors of a cell.
    ///
    /// # Errors
    /// Neither `toy.w` nor `dictionary`, or a tensor of another shape than it says.
    pub fn of(kind: &str, tensors: &[Tensor]) -> Result<ToyWeights, FigureError> {
        let wrong = |why: String| FigureError::NoWeights { at: kind.to_owned(), why };
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let grid = |name: &str| {
            let Some(tensor) = find(name) else { return Ok(None) };
            match tensor.shape[..] {
                [rows, columns] if rows * columns == tensor.values.len() => {
                    let values = tensor.values.iter().map(|value| f64::from(*value)).collect();
                    Ok(Some(Grid { rows, columns, values }))
                }
                _ => Err(wrong(format!("the kept `{name}` is no matrix"))),
            }
        };
        let w = match grid("toy.w")? {
            Some(w) => w,
            None => grid("dictionary")?.ok_or_else(|| wrong("the cell has no directions of features".to_owned()))?,
        };
        let v = grid("toy.v")?;
        if v.as_ref().is_some_and(|v| (v.rows, v.columns) != (w.rows, w.columns)) {
            return Err(wrong("the kept `toy.v` has another shape than `toy.w`".to_owned()));
        }
        let b = find("toy.b").map_or_else(Vec::new, |b| b.values.iter().map(|value| f64::from(*value)).collect());
        let fits = |grid: &Grid| grid.columns == w.columns;
        let encoder = grid("sae.W_enc")?.filter(fits);
        let decoder = grid("sae.W_dec")?.filter(fits);
        Ok(ToyWeights { b, v, encoder, decoder, w })
    }

    /// How many features there are.
    pub fn n_features(&self) -> usize {
        self.w.rows
    }

    /// W_i . W_j for all pairs, `[n_features, n_features]`.
    pub fn gram(&self) -> Grid {
        let product = |i: usize, j: usize| self.w.row(i).iter().zip(self.w.row(j)).map(|(a, b)| a * b).sum();
        Grid::from_fn(self.w.rows, self.w.rows, product)
    }
}

/// What the overlaps of features say of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    /// |W_i|
    pub norm: Vec<f64>,
    /// Σ_{j≠i} (Ŵ_i . W_j)²; `None` for features that are not there.
    pub superposition: Vec<Option<f64>>,
    /// D_i = |W_i|² / Σ_j (Ŵ_i . W_j)²
    pub dimensionality: Vec<f64>,
}

impl Shares {
    /// From W_i . W_j for all pairs (Elhage et al. 2022, "Superposition in a privileged basis" and "The geometry of
    /// superposition").
    pub fn of(gram: &Grid) -> Shares {
        let n = gram.rows;
        let own = |i: usize| gram.at(i, i);
        let all = |i: usize| gram.row(i).iter().map(|g| g * g).sum::<f64>();
        let norm: Vec<f64> = (0..n).map(|i| own(i).max(0.0).sqrt()).collect();
        let superposition = |i: usize| {
            let others = (all(i) - own(i) * own(i)).max(0.0);
            (norm[i] >= SUPERPOSITION_FLOOR).then(|| others / own(i))
        };
        let dimensionality = |i: usize| if all(i) > 0.0 { own(i) * own(i) / all(i) } else { 0.0 };
        Shares {
            superposition: (0..n).map(superposition).collect(),
            dimensionality: (0..n).map(dimensionality).collect(),
            norm,
        }
    }

    /// Features that are represented, rising.
    pub fn represented(&self) -> Vec<usize> {
        (0..self.norm.len()).filter(|i| self.norm[*i] >= REPRESENTED).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        Tensor { name: name.to_owned(), shape: shape.to_vec(), values: values.to_vec() }
    }

    #[test]
    fn an_antipodal_pair_shares_its_dimension_and_a_lone_feature_has_its_own() {
        let tensors = [tensor("toy.w", &[4, 2], &[1.0, 0.0, -1.0, 0.0, 0.0, 2.0, 0.0, 0.01])];
        let weights = ToyWeights::of("graph", &tensors).expect("a matrix");
        let shares = Shares::of(&weights.gram());
        assert_eq!(shares.norm[..3], [1.0, 1.0, 2.0]);
        assert_eq!(shares.superposition[..2], [Some(1.0), Some(1.0)]);
        assert_eq!(shares.superposition[3], None);
        assert_eq!(shares.dimensionality[..2], [0.5, 0.5]);
        // Beside a feature of norm 0.01 on its axis: 16 / (16 + 0.02²), with 0.01 an f32 off by at most 1e-9.
        assert!((shares.dimensionality[2] - 16.0 / 16.0004).abs() < 1e-9);
        assert_eq!(shares.represented(), [0, 1, 2]);
    }

    #[test]
    fn weights_that_are_not_there_or_do_not_fit_are_refused() {
        let fault = |tensors: &[Tensor]| ToyWeights::of("matrix", tensors).expect_err("a fault").to_string();
        assert!(fault(&[]).contains("save: {weights: best}"));
        assert!(fault(&[tensor("toy.w", &[4], &[0.0; 4])]).contains("no matrix"));
        let v = [tensor("toy.w", &[2, 2], &[0.0; 4]), tensor("toy.v", &[4, 1], &[0.0; 4])];
        assert!(fault(&v).contains("another shape"));
    }
}
