//! What the samples of a panel keep.

use super::layout::PANEL;

/// Up to `capacity` latents a sample, each with its value.
#[derive(Clone, Debug)]
pub struct Entries {
    capacity: usize,
    count: [usize; PANEL],
    /// `[PANEL][capacity]`
    latents: Vec<u32>,
    values: Vec<f32>,
}

impl Default for Entries {
    /// No room for anything.
    fn default() -> Self {
        Entries::new(0)
    }
}

impl Entries {
    /// Room for `capacity` entries a sample.
    pub fn new(capacity: usize) -> Entries {
        Entries { capacity, count: [0; PANEL], latents: vec![0; PANEL * capacity], values: vec![0.0; PANEL * capacity] }
    }

    /// Forgets everything; from now on a sample has room for `capacity` entries.
    pub fn clear(&mut self, capacity: usize) {
        if capacity > self.capacity {
            *self = Entries::new(capacity);
        }
        self.count = [0; PANEL];
    }

    /// Adds an entry to a sample.
    ///
    /// # Panics
    /// If the sample has `capacity` entries already.
    #[inline(always)]
    pub fn push(&mut self, sample: usize, latent: u32, value: f32) {
        let at = self.count[sample];
        assert!(at < self.capacity);
        self.latents[sample * self.capacity + at] = latent;
        self.values[sample * self.capacity + at] = value;
        self.count[sample] = at + 1;
    }

    /// Adds an entry to a sample if it is to be kept, without a branch.
    ///
    /// # Panics
    /// If the sample has `capacity` entries already.
    #[inline(always)]
    pub fn push_if(&mut self, keep: bool, sample: usize, latent: u32, value: f32) {
        self.push(sample, latent, value);
        self.count[sample] -= !keep as usize;
    }

    /// Latents of a sample and their values.
    #[inline(always)]
    pub fn of(&self, sample: usize) -> (&[u32], &[f32]) {
        let range = self.range(sample);
        (&self.latents[range.clone()], &self.values[range])
    }

    /// Where a sample's entries stand in arrays as long as [`Entries::slots`] that go along with them.
    #[inline(always)]
    pub fn range(&self, sample: usize) -> std::ops::Range<usize> {
        sample * self.capacity..sample * self.capacity + self.count[sample]
    }

    /// Length of an array with a place for every entry there is room for.
    pub fn slots(&self) -> usize {
        PANEL * self.capacity
    }

    /// Latents of a sample and their values, to be changed.
    #[inline(always)]
    pub fn of_mut(&mut self, sample: usize) -> (&[u32], &mut [f32]) {
        let range = self.range(sample);
        (&self.latents[range.clone()], &mut self.values[range])
    }

    /// Drops the entries of a sample that `keep` (given latent and value, in order) turns down.
    pub fn retain(&mut self, sample: usize, mut keep: impl FnMut(u32, f32) -> bool) {
        let range = self.range(sample);
        let mut to = range.start;
        for at in range.clone() {
            let (latent, value) = (self.latents[at], self.values[at]);
            if keep(latent, value) {
                (self.latents[to], self.values[to]) = (latent, value);
                to += 1;
            }
        }
        self.count[sample] = to - range.start;
    }

    /// Calls latent j `names[j]` from now on.
    pub fn rename(&mut self, names: &[u32]) {
        for sample in 0..PANEL {
            let range = self.range(sample);
            self.latents[range].iter_mut().for_each(|latent| *latent = names[*latent as usize]);
        }
    }

    /// Entries of all samples together.
    pub fn len(&self) -> usize {
        self.count.iter().sum()
    }

    /// Whether no sample keeps anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
