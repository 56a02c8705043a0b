//! Spherical k-means with gains (Coates & Ng 2012, "Learning feature representations with k-means", section 2), for
//! directions that are not negated.
//!
//! ```text
//! start    k-means++ (Arthur & Vassilvitskii 2007): each direction is that of a sample drawn with probability
//!          proportional to |h|² - max(0, best w·h)², what the directions so far leave of it
//! repeat   each sample goes to the direction of greatest w·h, if that is above 0, ties to the lower one
//!          w ← Σ (w·h) h over its samples, at unit norm                    one power iteration
//!          a direction without samples takes that of the sample of which most is left
//! ```
//!
//! It is K-SVD with one code a sample. Read by the k greatest products, then ReLU; k is 1 unless said otherwise.

use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::encoded::{Encoded, Encoding, encoded};
use super::matrix::{add, dot};
use super::sample::{Centre, Sample, unit_rows};
use crate::hidden::SaeSource;
use crate::random::{Draws, Stream};

/// Settings of the search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KMeans {
    /// Directions.
    pub n_latents: usize,
    /// Codes of a sample when it is read.
    pub k: usize,
    /// Training samples.
    pub samples: usize,
    /// Rounds at most; it ends where no sample changes its direction.
    pub iterations: usize,
    /// What is taken off h first.
    pub centre: Centre,
    /// Of the start.
    pub seed: u64,
}

impl KMeans {
    /// The directions of a source.
    pub fn learn(&self, source: &SaeSource) -> Encoded {
        let sample = Sample::draw(source, self.samples, self.centre);
        let h = sample.wide();
        let mut directions = spread(&h, self.n_latents, &mut Draws::new(self.seed, Stream::Baseline, 1));
        let mut before = vec![];
        for _ in 0..self.iterations {
            let assigned = assign(h.view(), directions.view());
            let same = before == assigned;
            update(&h, &assigned, &mut directions);
            if same {
                break;
            }
            before = assigned;
        }
        encoded(directions.mapv(|w| w as f32).view(), &sample.centre, Encoding::TopK { k: self.k })
    }
}

/// Directions of `count` samples by k-means++, unit rows `[count, d]`; axes where nothing is left of any sample.
pub fn spread(h: &Array2<f64>, count: usize, draws: &mut Draws) -> Array2<f64> {
    let d = h.ncols();
    let square: Vec<f64> = h.rows().into_iter().map(|row| row.iter().map(|x| x * x).sum()).collect();
    let mut left = square.clone();
    let mut rows = Array2::zeros((count, d));
    for (j, mut to) in rows.rows_mut().into_iter().enumerate() {
        let total: f64 = left.iter().sum();
        let mut at = draws.uniform() * total;
        let chosen = left.iter().position(|&l| {
            at -= l;
            at < 0.0
        });
        match chosen.filter(|_| total > 0.0) {
            Some(s) => to.assign(&(&h.row(s) / square[s].sqrt())),
            None => to[j % d] = 1.0,
        }
        let direction = to.to_vec();
        left.par_iter_mut().zip(&square).enumerate().for_each(|(s, (left, square))| {
            let along = product(h.row(s), &direction).max(0.0);
            *left = left.min((square - along * along).max(0.0));
        });
    }
    rows
}

fn squares(h: &Array2<f64>, s: usize) -> f64 {
    h.row(s).iter().map(|x| x * x).sum()
}

/// Up to `count` samples of which most is left, one after the other: `left` is what is left of each row's square at first, and
/// each sample that is taken serves those near it. Ends where nothing but rounding is left.
pub fn served_worst(rows: &Array2<f64>, mut left: Vec<f64>, count: usize) -> Vec<usize> {
    let square: Vec<f64> = (0..rows.nrows()).map(|s| squares(rows, s)).collect();
    let nothing = 1e-9 * square.iter().copied().fold(0.0, f64::max);
    let mut found = Vec::new();
    while found.len() < count {
        let worst = left.iter().enumerate().fold((0, nothing), |best, (s, &l)| if l > best.1 { (s, l) } else { best });
        if worst.1 <= nothing {
            break;
        }
        found.push(worst.0);
        let direction: Vec<f64> = rows.row(worst.0).iter().map(|x| x / square[worst.0].sqrt()).collect();
        left.par_iter_mut().zip(&square).enumerate().for_each(|(s, (left, square))| {
            let along = product(rows.row(s), &direction).max(0.0);
            *left = left.min((square - along * along).max(0.0));
        });
        // Its own square less itself is rounding.
        left[worst.0] = 0.0;
    }
    found
}

fn product(h: ArrayView1<'_, f64>, w: &[f64]) -> f64 {
    dot(h.to_slice().expect("rows of a standard layout"), w)
}

/// Of each sample: the direction of greatest product, if above 0, and that product.
fn assign(h: ArrayView2<'_, f64>, directions: ArrayView2<'_, f64>) -> Vec<Option<(usize, f64)>> {
    let columns = directions.t().as_standard_layout().into_owned();
    (0..h.nrows())
        .into_par_iter()
        .map(|s| {
            let mut products = vec![0.0; directions.nrows()];
            for (&h, column) in h.row(s).iter().zip(columns.rows()) {
                add(&mut products, h, column.to_slice().expect("standard layout"));
            }
            let mut best = None;
            for (j, &product) in products.iter().enumerate() {
                if product > best.map_or(0.0, |(_, most)| most) {
                    best = Some((j, product));
                }
            }
            best
        })
        .collect()
}

fn update(h: &Array2<f64>, assigned: &[Option<(usize, f64)>], directions: &mut Array2<f64>) {
    let mut sums = Array2::<f64>::zeros(directions.dim());
    let mut counts = vec![0; directions.nrows()];
    for (row, &(j, product)) in h.rows().into_iter().zip(assigned).filter_map(|(row, a)| Some((row, a.as_ref()?))) {
        let row = row.to_slice().expect("standard layout");
        add(sums.row_mut(j).as_slice_mut().expect("standard layout"), product, row);
        counts[j] += 1;
    }
    let empty: Vec<usize> = (0..counts.len()).filter(|&j| counts[j] == 0).collect();
    if !empty.is_empty() {
        let along = |s: usize| assigned[s].map_or(0.0, |(_, product)| product);
        let left = (0..h.nrows()).map(|s| squares(h, s) - along(s) * along(s)).collect();
        let found = served_worst(h, left, empty.len());
        for (i, j) in empty.into_iter().enumerate() {
            let row = found.get(i).map_or(directions.row(j), |&s| h.row(s));
            sums.row_mut(j).assign(&row);
        }
    }
    unit_rows(&mut sums);
    directions.assign(&sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::testing::{mmcs, orthogonal_alone, superposed};
    use crate::sae::Coder;

    const SEARCH: KMeans = KMeans { n_latents: 12, k: 1, samples: 4000, iterations: 50, centre: Centre::None, seed: 3 };

    /// One feature a sample: each cluster holds the multiples of one direction, and its direction is that one but for
    /// rounding. k-means++ never takes a direction twice, because nothing is left of its samples.
    #[test]
    fn features_that_fire_alone_are_found_exactly_and_read_exactly() {
        let (source, truth) = orthogonal_alone(12, 16);
        let found = SEARCH.learn(&source);
        let score = mmcs(&truth, found.decoder());
        assert!(score > 1.0 - 1e-6, "{score}");
        let h = truth.mapv(|g| 2.5 * g);
        let latents = found.encode(h.view());
        assert!((found.decode(latents.view(), h.view()) - &h).iter().all(|e| e.abs() < 1e-5));
        assert!(latents.rows().into_iter().all(|z| z.iter().filter(|&&z| z > 0.0).count() == 1));
    }

    #[test]
    fn directions_without_samples_are_put_to_use() {
        let (source, truth) = orthogonal_alone(12, 16);
        let sample = Sample::draw(&source, 2000, Centre::None);
        let h = sample.wide();
        // All start at one direction; the rest is empty.
        let mut directions = Array2::zeros((12, 16));
        directions.rows_mut().into_iter().for_each(|mut row| row[0] = 1.0);
        for _ in 0..20 {
            let assigned = assign(h.view(), directions.view());
            update(&h, &assigned, &mut directions);
        }
        assert!(mmcs(&truth, directions.mapv(|w| w as f32).view()) > 0.95);
    }

    /// Clusters of sums of two or three features mix them: better than the start, worse than the truth.
    #[test]
    fn features_that_fire_together_are_mixed() {
        let (source, truth) = superposed(20, 10, 0.12);
        let score = |iterations| {
            let search = KMeans { n_latents: 20, iterations, ..SEARCH };
            mmcs(&truth, search.learn(&source).decoder())
        };
        let (start, end) = (score(0), score(50));
        assert!(start < end && end < 0.99, "{start} {end}");
    }

    #[test]
    fn threads_change_no_bit_and_seeds_change_the_start() {
        let (source, _) = superposed(20, 10, 0.12);
        let on = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let found = [1, 3].map(|threads| on(threads).install(|| SEARCH.learn(&source).decoder().to_owned()));
        assert!(found[0] == found[1]);
        assert!(KMeans { seed: 4, ..SEARCH }.learn(&source).decoder() != found[0]);
    }

    #[test]
    fn hidden_states_of_zeros_leave_axes() {
        let rows = spread(&Array2::zeros((5, 3)), 4, &mut Draws::new(1, Stream::Baseline, 0));
        assert!(rows.rows().into_iter().all(|row| row.sum() == 1.0));
    }
}
