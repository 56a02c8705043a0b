//! Random numbers from a counter, never from a generator that is passed around.
//!
//! Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps (key, counter) to four words.
//! The key is (seed, stream name), the counter says where in the stream a word stands, so any thread may draw any
//! word, in any order, and two cells of one seed see the same data.

/// What a stream is drawn for. The name is part of the key, so streams never share words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Which features fire in training batches, and the magnitude where one word decides both.
    Train,
    /// The same for the samples on which scores are taken.
    Evaluate,
    /// The same for the samples on which restarts are compared.
    Select,
    /// The same for a finite training set.
    Dataset,
    /// In which order the samples of a finite training set are walked.
    DatasetOrder,
    /// Initial weights of a toy model.
    ToyInit,
    /// Initial weights of a sparse autoencoder.
    SaeInit,
    /// Lengths of sampled prefixes of a sparse autoencoder.
    SaePrefixes,
    /// Inputs that resampled latents of a sparse autoencoder start from.
    SaeResample,
    /// A fixed dictionary.
    Dictionary,
    /// Baselines that draw, such as random directions.
    Baseline,
    /// Random curves over features.
    Curve,
}

impl Stream {
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Train => "train",
            Stream::Dataset => "dataset",
            Stream::DatasetOrder => "dataset-order",
            Stream::Evaluate => "evaluate",
            Stream::Select => "select",
            Stream::ToyInit => "toy-init",
            Stream::SaeInit => "sae-init",
            Stream::SaePrefixes => "sae-prefixes",
            Stream::SaeResample => "sae-resample",
            Stream::Dictionary => "dictionary",
            Stream::Baseline => "baseline",
            Stream::Curve => "curve",
        }
    }
}

/// The key of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub [u32; 2]);

impl Key {
    /// Word 0 is the seed's low half; word 1 is a 32-bit FNV-1a hash of the stream's name and the seed's high half.
    pub fn new(seed: u64, stream: Stream) -> Key {
        let mut hash = 0x811C_9DC5u32;
        for byte in stream.name().bytes().chain(((seed >> 32) as u32).to_le_bytes()) {
            hash = (hash ^ byte as u32).wrapping_mul(0x0100_0193);
        }
        Key([seed as u32, hash])
    }
}

pub const PHILOX_M: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
pub const PHILOX_W: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32 with ten rounds: the plain form that the vector code is held to.
#[inline]
pub fn philox(counter: [u32; 4], key: Key) -> [u32; 4] {
    let (mut c, mut k) = (counter, key.0);
    for _ in 0..10 {
        let p = [PHILOX_M[0] as u64 * c[0] as u64, PHILOX_M[1] as u64 * c[2] as u64];
        c = [(p[1] >> 32) as u32 ^ c[1] ^ k[0], p[1] as u32, (p[0] >> 32) as u32 ^ c[3] ^ k[1], p[0] as u32];
        k = [k[0].wrapping_add(PHILOX_W[0]), k[1].wrapping_add(PHILOX_W[1])];
    }
    c
}

/// Words of one stream in order, for everything outside hot loops: initial weights, dictionaries, baselines.
///
/// `part` sets independent sequences of one stream apart (restart number, variant, ...).
pub struct Draws {
    key: Key,
    part: [u32; 2],
    next: u64,
    words: [u32; 4],
}

impl Draws {
    pub fn new(seed: u64, stream: Stream, part: u64) -> Draws {
        Draws { key: Key::new(seed, stream), part: [part as u32, (part >> 32) as u32], next: 0, words: [0; 4] }
    }

    pub fn word(&mut self) -> u32 {
        let lane = (self.next % 4) as usize;
        if lane == 0 {
            let block = self.next / 4;
            self.words = philox([block as u32, (block >> 32) as u32, self.part[0], self.part[1]], self.key);
        }
        self.next += 1;
        self.words[lane]
    }

    /// Uniform on (0, 1), 53 bits, never 0 or 1.
    pub fn uniform(&mut self) -> f64 {
        let bits = ((self.word() as u64) << 32 | self.word() as u64) >> 12;
        (bits as f64 + 0.5) * 2f64.powi(-52)
    }

    /// Standard normal by Box-Muller, one value for two uniforms, with `libm` so that the bits are the same everywhere.
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (self.uniform(), self.uniform());
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(2.0 * std::f64::consts::PI * v)
    }

    /// Uniform on 0..n, without bias worth naming (64 bits against n < 2^32).
    pub fn below(&mut self, n: u32) -> u32 {
        let bits = (self.word() as u64) << 32 | self.word() as u64;
        ((bits as u128 * n as u128) >> 64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123, `tests/kat_vectors`, philox4x32 10.
    #[test]
    fn philox_gives_the_published_vectors() {
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, Key(key)), expected);
        }
    }

    #[test]
    fn streams_of_one_seed_and_high_seeds_have_their_own_keys() {
        assert_ne!(Key::new(3, Stream::Train), Key::new(3, Stream::Evaluate));
        assert_ne!(Key::new(3, Stream::Train), Key::new(3 + (1 << 32), Stream::Train));
    }

    /// Mean of 1e5 normals has standard deviation .0032, their mean square .0045: 5 sigma bounds, false alarm below 2e-6.
    #[test]
    fn normals_have_mean_zero_and_variance_one() {
        let mut draws = Draws::new(1, Stream::ToyInit, 0);
        let z: Vec<f64> = (0..100_000).map(|_| draws.normal()).collect();
        let mean = z.iter().sum::<f64>() / 1e5;
        let square = z.iter().map(|z| z * z).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.016 && (square - 1.0).abs() < 0.023, "{mean} {square}");
    }
}
