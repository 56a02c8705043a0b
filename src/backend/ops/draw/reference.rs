//! The [data law](crate::data::law) in plain loops, straight from its text: no vectors, no plan, no state. What the
//! vector code is held to, bit for bit.

use super::variate::{LN, NORMAL_MIDDLE, NORMAL_TAIL};
use crate::data::law::{ROW_BLOCK, SKIP_AT_MOST, Tag, sample_word};
use crate::data::world::{GroupRule, Magnitude, MagnitudeSharing, World};
use crate::random::{Key, philox};

/// x of samples `first .. first + samples` of batch `step`: `[samples, n_features]`. `first` is a multiple of
/// [`ROW_BLOCK`].
pub fn draw(world: &World, key: Key, step: u32, first: usize, samples: usize) -> Vec<f32> {
    if world.is_linked() {
        return super::linked_reference::draw(world, key, step, first, samples);
    }
    let n = world.n_features;
    let mut x = vec![0.0; samples * n];
    for (b, rows) in x.chunks_mut((ROW_BLOCK * n).max(1)).enumerate() {
        let block = RowBlock { world, key, step, block: (first / ROW_BLOCK + b) as u32, samples: rows.len() / n };
        block.features(rows);
        block.groups(rows);
    }
    x
}

struct RowBlock<'a> {
    world: &'a World,
    key: Key,
    step: u32,
    block: u32,
    samples: usize,
}

impl RowBlock<'_> {
    fn call(&self, call: u32, tag: Tag, id: usize) -> [u32; 4] {
        philox([call, tag.with(id), self.step, self.block], self.key)
    }

    fn word(&self, tag: Tag, id: usize, sample: usize) -> u32 {
        let (call, word) = sample_word(sample);
        self.call(call, tag, id)[word]
    }

    /// Features in no group.
    fn features(&self, rows: &mut [f32]) {
        let n = self.world.n_features;
        let free = |i: usize| !self.world.groups.iter().any(|g| g.members.contains(&i));
        let p = &self.world.firing_probability;
        for i in (0..n).filter(|&i| free(i)) {
            if p[i] > SKIP_AT_MOST {
                let threshold = (p[i] * 2f64.powi(32)).round() as u64;
                for s in 0..self.samples {
                    let u = self.word(Tag::Coin, i, s);
                    if (u as u64) < threshold {
                        rows[s * n + i] = self.magnitude(i, s, u, threshold);
                    }
                }
            } else if p[i] > 0.0 {
                let class: Vec<usize> = (0..n).filter(|&j| free(j) && p[j] == p[i]).collect();
                if class[0] == i {
                    for (position, k) in self.events(i, p[i], self.samples * class.len()) {
                        let (s, feature) = (position / class.len(), class[position % class.len()]);
                        rows[s * n + feature] = self.magnitude(feature, s, k, 1 << 32);
                    }
                }
            }
        }
    }

    fn groups(&self, rows: &mut [f32]) {
        let n = self.world.n_features;
        for (g, group) in self.world.groups.iter().enumerate().filter(|(_, g)| !g.members.is_empty()) {
            let (id, p) = (n + g, group.firing_probability);
            let threshold = (p * 2f64.powi(32)).round() as u64;
            let fires: Vec<usize> = match p {
                0.0 => vec![],
                p if p > SKIP_AT_MOST => {
                    (0..self.samples).filter(|&s| (self.word(Tag::Coin, id, s) as u64) < threshold).collect()
                }
                p => self.events(id, p, self.samples).into_iter().map(|(s, _)| s).collect(),
            };
            for s in fires {
                match group.rule {
                    GroupRule::Together => {
                        for &i in &group.members {
                            rows[s * n + i] = self.magnitude(i, s, self.word(Tag::Value, i, s), 1 << 32);
                        }
                    }
                    GroupRule::Exclusive => {
                        let pick = (self.word(Tag::Pick, id, s) as u64 * group.members.len() as u64) >> 32;
                        let i = group.members[pick as usize];
                        rows[s * n + i] = self.magnitude(i, s, self.word(Tag::Value, id, s), 1 << 32);
                    }
                }
            }
        }
    }

    /// Position and magnitude word of each event before `end`.
    fn events(&self, id: usize, p: f64, end: usize) -> Vec<(usize, u32)> {
        let inverse = (1.0 / libm::log1p(-p)) as f32;
        let (mut events, mut next) = (vec![], 0);
        for e in 0.. {
            let words = self.call(e / 2, Tag::Skip, id);
            let (gap, k) = (words[e as usize % 2], words[2 + e as usize % 2]);
            let w = (gap >> 8 | 1) as f32 / 16_777_216.0;
            next += (ln(w) * inverse).min((1 << 30) as f32) as usize;
            if next >= end {
                break;
            }
            events.push((next, k));
            next += 1;
        }
        events
    }

    fn magnitude(&self, i: usize, sample: usize, k: u32, threshold: u64) -> f32 {
        let (k, threshold) = match self.world.magnitude_sharing {
            MagnitudeSharing::Independent => (k, threshold),
            MagnitudeSharing::Sample => (self.word(Tag::Share, 0, sample), 1 << 32),
        };
        value_of(&self.world.magnitude, i, k, threshold)
    }
}

/// The value of feature i from k in 0 .. T.
pub(super) fn value_of(magnitude: &Magnitude, i: usize, k: u32, threshold: u64) -> f32 {
    let f = |x: f64| x as f32;
    match magnitude {
        Magnitude::Uniform { low, high } => uniform(k, threshold).mul_add(f(high - low), f(*low)),
        Magnitude::Constant(value) => f(value[i]),
        Magnitude::Normal { mean, std } => {
            let y = normal(k, threshold).mul_add(f(std[i]), f(mean[i]));
            if y > 0.0 { y } else { 0.0 }
        }
        Magnitude::FoldedNormal { mean, std } => normal(k, threshold).mul_add(f(std[i]), f(mean[i])).abs(),
        Magnitude::Exponential { mean } => -ln(uniform(k, threshold)) * f(mean[i]),
        Magnitude::Symmetric(bound) => uniform(k, threshold).mul_add(f(2.0 * bound), f(-bound)),
    }
}

/// Uniform on (0, 1] from k in 0 .. T.
pub fn uniform(k: u32, threshold: u64) -> f32 {
    let v = |k: u64, s: f32| ((k >> 1) as f32).mul_add(s, 0.5 * s);
    let mut s = (2.0 / threshold as f64) as f32;
    while v(threshold - 1, s) > 1.0 {
        s = s.next_down();
    }
    v(k as u64, s)
}

/// Standard normal from k in 0 .. T.
pub fn normal(k: u32, threshold: u64) -> f32 {
    let r = (1.0 / threshold as f64) as f32;
    let other = (threshold - 1 - k as u64) as u32;
    let q = (k.min(other) as f32).mul_add(r, 0.5 * r);
    let w = -ln(4.0 * q * (1.0 - q));
    let ratio = if w < 5.0 { polynomial(&NORMAL_MIDDLE, w - 2.5) } else { polynomial(&NORMAL_TAIL, w.sqrt() - 3.5) };
    let size = ratio * (-2f32).mul_add(q, 1.0);
    if k <= other { -size } else { size }
}

/// ln of a positive normal number.
pub fn ln(u: f32) -> f32 {
    const ROOT_HALF: u32 = 0x3F35_04F3;
    let offset = u.to_bits().wrapping_sub(ROOT_HALF) as i32;
    let exponent = offset >> 23;
    let x = f32::from_bits((offset as u32 & 0x007F_FFFF) + ROOT_HALF) - 1.0;
    let ln1p = (x * x * x).mul_add(polynomial(&LN, x), (x * x).mul_add(-0.5, x));
    (exponent as f32).mul_add(std::f32::consts::LN_2, ln1p)
}

fn polynomial(coefficients: &[f32; 9], x: f32) -> f32 {
    coefficients[1..].iter().fold(coefficients[0], |sum, &c| sum.mul_add(x, c))
}
