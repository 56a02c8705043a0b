//! Who fires when, as bits: 64 samples a word, so that counting who fires together is a few instructions.

use super::vector::{Real, Rows};

/// Firings of the columns of a matrix `[samples, columns]`: features where x > 0, latents where z ≠ 0.
pub struct Firings {
    pub samples: usize,
    pub n: usize,
    words: usize,
    /// `[n, words]`; bits past `samples` are 0.
    bits: Vec<u64>,
    /// On how many samples each column fires, `[n]`.
    pub counts: Vec<usize>,
}

impl Firings {
    pub fn new<T: Real>(rows: &Rows<T>, fires: impl Fn(T) -> bool) -> Firings {
        let (samples, n) = (rows.n_rows, rows.n_columns);
        let words = samples.div_ceil(64);
        let mut bits = vec![0u64; n * words];
        let mut block = vec![0u64; n];
        for word in 0..words {
            block.fill(0);
            for sample in 64 * word..samples.min(64 * word + 64) {
                for (bits, &value) in block.iter_mut().zip(rows.row(sample)) {
                    *bits |= (fires(value) as u64) << (sample % 64);
                }
            }
            for (column, &value) in block.iter().enumerate() {
                bits[column * words + word] = value;
            }
        }
        let count =
            |column: usize| bits[column * words..(column + 1) * words].iter().map(|w| w.count_ones() as usize).sum();
        let counts = (0..n).map(count).collect();
        Firings { samples, n, words, bits, counts }
    }

    /// The bits of one column.
    pub fn column(&self, column: usize) -> &[u64] {
        &self.bits[column * self.words..(column + 1) * self.words]
    }

    /// Columns that fire at least once, ascending.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.n).filter(|&column| self.counts[column] > 0).collect()
    }

    /// The samples on which a column fires, ascending.
    pub fn samples_of(&self, column: usize) -> impl Iterator<Item = usize> {
        self.column(column).iter().enumerate().flat_map(|(word, &bits)| {
            let mut left = bits;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                (left != 0).then(|| {
                    left &= left - 1;
                    64 * word + bit as usize
                })
            })
        })
    }
}

/// On how many samples both fire.
pub fn both(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).map(|(a, b)| (a & b).count_ones() as usize).sum()
}

/// F1 = 2·both / (fires_a + fires_b) as one division of whole numbers, so that equal ratios are equal; 0 if neither fires.
pub fn f1(both: usize, fires_a: usize, fires_b: usize) -> f64 {
    let total = fires_a + fires_b;
    if total == 0 { 0.0 } else { (2 * both) as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    #[test]
    fn bits_count_and_list_what_fires_at_every_length_around_a_word() {
        for samples in [0, 1, 63, 64, 65, 127, 128, 129, 200] {
            let z = Array2::from_shape_fn((samples, 3), |(s, j)| if (s * 7 + j) % (j + 2) == 0 { 0.5f32 } else { 0.0 });
            let firings = Firings::new(&Rows::new(z.view()), |z| z != 0.0);
            for j in 0..3 {
                let expected: Vec<usize> = (0..samples).filter(|&s| z[[s, j]] != 0.0).collect();
                assert_eq!(firings.samples_of(j).collect::<Vec<_>>(), expected);
                assert_eq!(firings.counts[j], expected.len());
                let with_first = expected.iter().filter(|&&s| z[[s, 0]] != 0.0).count();
                assert_eq!(both(firings.column(0), firings.column(j)), with_first);
            }
        }
    }

    #[test]
    fn a_negative_latent_fires_and_a_negative_feature_does_not() {
        let values = Array2::from_shape_vec((2, 1), vec![-1.0f32, 0.0]).expect("two values, two places");
        assert_eq!(Firings::new(&Rows::new(values.view()), |z| z != 0.0).counts, [1]);
        assert_eq!(Firings::new(&Rows::new(values.view()), |x| x > 0.0).counts, [0]);
    }
}
