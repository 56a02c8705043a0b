//! Who fires when: the samples of each column, and bits for those that fire often, 64 samples a word.

use super::activity::Activity;
use super::vector::Real;
use crate::codes::Columns;

/// A column that fires on more than one sample in this many has bits: they are then no longer than its list, and counting
/// who fires together is quicker on words.
const OFTEN: usize = 32;

/// Firings of the columns of a matrix `[samples, columns]`: features where x > 0, latents where z ≠ 0.
pub struct Firings {
    pub samples: usize,
    pub n: usize,
    words: usize,
    /// `[n + 1]`
    starts: Vec<usize>,
    /// The samples on which each column fires, ascending.
    list: Vec<u32>,
    /// Place of each column's bits, in columns; `RARE` where it has none.
    place: Vec<u32>,
    /// `[columns with bits, words]`; bits past `samples` are 0.
    bits: Vec<u64>,
    /// On how many samples each column fires, `[n]`.
    pub counts: Vec<usize>,
}

const RARE: u32 = u32::MAX;

impl Firings {
    /// `fires` says of an entry that is not 0 whether it is a firing.
    pub fn new<T: Real>(samples: usize, columns: &Columns<T>, fires: impl Fn(T) -> bool) -> Firings {
        let (n, words) = (columns.n_columns(), samples.div_ceil(64));
        let (mut starts, mut list) = (vec![0], vec![]);
        let (mut place, mut bits, mut counts) = (vec![RARE; n], vec![], vec![0; n]);
        for column in 0..n {
            let from = list.len();
            list.extend(columns.entries(column).filter(|&(_, value)| fires(value)).map(|(sample, _)| sample as u32));
            starts.push(list.len());
            counts[column] = list.len() - from;
            if counts[column] > samples / OFTEN {
                place[column] = (bits.len() / words) as u32;
                let first = bits.len();
                bits.resize(first + words, 0u64);
                for &sample in &list[from..] {
                    bits[first + sample as usize / 64] |= 1 << (sample % 64);
                }
            }
        }
        Firings { samples, n, words, starts, list, place, bits, counts }
    }

    /// The samples on which a column fires, ascending.
    pub fn samples_of(&self, column: usize) -> &[u32] {
        &self.list[self.starts[column]..self.starts[column + 1]]
    }

    /// The bits of a column that fires often.
    pub fn bits_of(&self, column: usize) -> Option<&[u64]> {
        let place = self.place[column];
        (place != RARE).then(|| &self.bits[place as usize * self.words..][..self.words])
    }

    /// Columns that fire at least once, ascending.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.n).filter(|&column| self.counts[column] > 0).collect()
    }
}

/// On how many samples both column i of `a` and column j of `b` fire.
pub fn both(a: &Firings, i: usize, b: &Firings, j: usize) -> usize {
    match (a.bits_of(i), b.bits_of(j)) {
        (Some(one), Some(other)) => one.iter().zip(other).map(|(a, b)| (a & b).count_ones() as usize).sum(),
        (Some(bits), None) => count_set(bits, b.samples_of(j)),
        (None, Some(bits)) => count_set(bits, a.samples_of(i)),
        (None, None) => common(a.samples_of(i), b.samples_of(j)),
    }
}

/// How many of these samples have their bit set.
pub fn count_set(bits: &[u64], samples: &[u32]) -> usize {
    samples.iter().map(|&sample| (bits[sample as usize / 64] >> (sample % 64) & 1) as usize).sum()
}

/// Numbers that are in both ascending lists.
fn common(a: &[u32], b: &[u32]) -> usize {
    let (mut i, mut j, mut count) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        count += (a[i] == b[j]) as usize;
        let (next_i, next_j) = (a[i] <= b[j], b[j] <= a[i]);
        i += next_i as usize;
        j += next_j as usize;
    }
    count
}

/// Counts, for one column after the other, on how many of its samples each column of another side fires. Memory used again.
pub struct Together {
    counts: Vec<u32>,
    met: Vec<u32>,
    found: Vec<(usize, usize)>,
}

impl Together {
    /// For another side of `n` columns.
    pub fn new(n: usize) -> Together {
        Together { counts: vec![0; n], met: vec![], found: vec![] }
    }

    /// (column of `others`, samples on which it fires together with column j of `own`) for each that does so at all,
    /// columns ascending.
    pub fn with<T: Real>(&mut self, (own, j): (&Firings, usize), others: &Activity<'_, T>) -> &[(usize, usize)] {
        self.found.clear();
        let (codes, firings, side) = (others.codes(), others.firings(), others.side());
        if own.bits_of(j).is_some() {
            let pairs = (0..firings.n).filter(|&k| firings.counts[k] > 0).map(|k| (k, both(own, j, firings, k)));
            self.found.extend(pairs.filter(|(_, both)| *both > 0));
            return &self.found;
        }
        for &sample in own.samples_of(j) {
            let (columns, values) = codes.row(sample as usize);
            for (&k, &value) in columns.iter().zip(values) {
                if side.fires(value) {
                    if self.counts[k as usize] == 0 {
                        self.met.push(k);
                    }
                    self.counts[k as usize] += 1;
                }
            }
        }
        self.met.sort_unstable();
        for &k in &self.met {
            self.found.push((k as usize, self.counts[k as usize] as usize));
            self.counts[k as usize] = 0;
        }
        self.met.clear();
        &self.found
    }
}

/// F1 = 2·both / (fires_a + fires_b) as one division of whole numbers, so that equal ratios are equal; 0 if neither fires.
pub fn f1(both: usize, fires_a: usize, fires_b: usize) -> f64 {
    let total = fires_a + fires_b;
    if total == 0 { 0.0 } else { (2 * both) as f64 / total as f64 }
}

#[cfg(test)]
mod tests {
    use super::super::activity::Side;
    use super::*;
    use crate::codes::Codes;
    use ndarray::Array2;

    fn activity(dense: &Array2<f32>, side: Side) -> Activity<'static, f32> {
        Activity::new(Codes::of_dense(dense.view()), side)
    }

    /// Columns fire on one sample in 2, 3, 4, 50 and 90: some have bits, some none.
    #[test]
    fn lists_and_bits_count_what_fires_at_every_length_around_a_word() {
        for samples in [0, 1, 63, 64, 65, 127, 128, 129, 400] {
            let every = [2, 3, 4, 50, 90];
            let z = Array2::from_shape_fn((samples, 5), |(s, j)| if (s * 7 + j) % every[j] == 0 { 0.5 } else { 0.0 });
            let activity = activity(&z, Side::Latents);
            let firings = activity.firings();
            let mut together = Together::new(5);
            for j in 0..5 {
                let expected: Vec<u32> = (0..samples as u32).filter(|&s| z[[s as usize, j]] != 0.0).collect();
                assert_eq!(firings.samples_of(j), expected);
                assert_eq!(firings.counts[j], expected.len());
                assert_eq!(firings.bits_of(j).is_some(), expected.len() > samples / OFTEN);
                let found = together.with((firings, j), &activity).to_vec();
                for k in 0..5 {
                    let with = expected.iter().filter(|&&s| z[[s as usize, k]] != 0.0).count();
                    assert_eq!(both(firings, k, firings, j), with);
                    assert_eq!(found.iter().find(|(other, _)| *other == k).map_or(0, |pair| pair.1), with);
                }
                assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0) && found.iter().all(|pair| pair.1 > 0));
            }
        }
    }

    #[test]
    fn a_negative_latent_fires_and_a_negative_feature_does_not() {
        let values = Array2::from_shape_vec((2, 1), vec![-1.0f32, 0.0]).expect("two values, two places");
        assert_eq!(activity(&values, Side::Latents).firings().counts, [1]);
        let features = activity(&values, Side::Features);
        assert_eq!(features.firings().counts, [0]);
        let latents = activity(&values, Side::Latents);
        assert!(Together::new(1).with((latents.firings(), 0), &features).is_empty());
    }
}
