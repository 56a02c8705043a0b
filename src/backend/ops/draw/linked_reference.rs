//! Linked worlds in plain loops, from the text of the [data law](crate::data::law) by its definition: every feature of every sample
//! is drawn, then the trees are applied from the top down.

use super::reference::{normal, value_of};
use super::variate::{NORMAL_MIDDLE, NORMAL_TAIL};
use crate::data::law::{QUANTILES, ROW_BLOCK, Tag, sample_word};
use crate::data::linked::Copula;
use crate::data::normal;
use crate::data::world::{MagnitudeSharing, World};
use crate::random::{Key, philox};

/// x of samples `first .. first + samples` of batch `step`: `[samples, n_features]`.
pub fn draw(world: &World, key: Key, step: u32, first: usize, samples: usize) -> Vec<f32> {
    let reference = Reference::new(world, key, step);
    (first..first + samples).flat_map(|s| reference.sample((s / ROW_BLOCK) as u32, s % ROW_BLOCK)).collect()
}

struct Reference<'a> {
    world: &'a World,
    key: Key,
    step: u32,
    rank: usize,
    sure: bool,
    /// F' by feature.
    factor: Vec<Vec<f32>>,
    /// t' by feature.
    threshold: Vec<f32>,
    has_parent: Vec<bool>,
}

impl<'a> Reference<'a> {
    fn new(world: &'a World, key: Key, step: u32) -> Reference<'a> {
        let n = world.n_features;
        let copula = Copula::of(world.correlation.as_ref(), n);
        let sure = copula.is_sure();
        let scale = |i: usize| if sure { 1.0 } else { 1.0 / copula.own[i] };
        let row = |i: usize| copula.row(i).iter().map(|f| (f * scale(i)) as f32).collect();
        let threshold = |i: usize| (normal::threshold(world.firing_probability[i]) * scale(i)) as f32;
        let parents = world.parents();
        Reference {
            world,
            key,
            step,
            rank: copula.rank,
            sure,
            factor: (0..n).map(row).collect(),
            threshold: (0..n).map(threshold).collect(),
            has_parent: (0..n).map(|i| parents.contains_key(&i)).collect(),
        }
    }

    fn call(&self, c0: u32, tag: Tag, id: usize, block: u32) -> [u32; 4] {
        philox([c0, tag.with(id), self.step, block], self.key)
    }

    fn sample(&self, block: u32, s: usize) -> Vec<f32> {
        let n = self.world.n_features;
        let shared = |tag: Tag, id: usize| {
            let (call, word) = sample_word(s);
            self.call(call, tag, id, block)[word]
        };
        let eps: Vec<f32> = (0..self.rank).map(|k| normal(shared(Tag::Factor, k), 1 << 32)).collect();
        let calls: Vec<[u32; 4]> = (0..n).map(|i| self.call(s as u32, Tag::Fire, i, block)).collect();
        let mut x: Vec<f32> = (0..n)
            .map(|i| {
                let k = match self.world.magnitude_sharing {
                    MagnitudeSharing::Independent => calls[i][1],
                    MagnitudeSharing::Sample => shared(Tag::Share, 0),
                };
                if self.fires(i, &eps, calls[i][0], block, s) {
                    value_of(&self.world.magnitude, i, k, 1 << 32)
                } else {
                    0.0
                }
            })
            .collect();
        self.apply(&mut x, &calls);
        x
    }

    fn fires(&self, i: usize, eps: &[f32], word: u32, block: u32, s: usize) -> bool {
        let products = self.factor[i].iter().zip(eps);
        if self.has_parent[i] {
            let mut sums = [0f32; 16];
            products.enumerate().for_each(|(k, (f, e))| sums[k % 16] = f.mul_add(*e, sums[k % 16]));
            for half in [8, 4, 2, 1] {
                (0..half).for_each(|l| sums[l] += sums[l + half]);
            }
            let z = sums[0] - self.threshold[i];
            return if self.sure { z > 0.0 } else { z > normal(word, 1 << 32) };
        }
        let z = products.fold(-self.threshold[i], |z, (f, e)| f.mul_add(*e, z));
        if self.sure {
            return z > 0.0;
        }
        let coins =
            [8, 5, 2].into_iter().zip([QUANTILES[2], QUANTILES[1], QUANTILES[0]]).find(|(_, least)| z <= *least);
        let Some((coins, _)) = coins else { return z > normal(word, 1 << 32) };
        let heads = |m: usize| {
            let call = 32 * (s / 32) + 8 * (m / 2) + i % 16 / 2;
            self.call(call as u32, Tag::Heads, i / 16, block)[2 * (m % 2) + i % 2] >> (s % 32) & 1 == 1
        };
        (0..coins).all(heads) && z > -tail((word >> 1) as f32, 1.0 / (1u64 << (31 + coins)) as f32)
    }

    /// Trees, from the top down.
    fn apply(&self, x: &mut [f32], calls: &[[u32; 4]]) {
        let Some(hierarchy) = &self.world.hierarchy else { return };
        let means = self.world.configured_means();
        for family in hierarchy.families() {
            for &i in &family.members {
                if let Some(q) = family.parent {
                    x[i] = match x[q] {
                        0.0 => 0.0,
                        on if family.scale => x[i] * (on / means[q] as f32),
                        _ => x[i],
                    };
                }
            }
            let on: Vec<usize> = family.members.iter().copied().filter(|&i| x[i] != 0.0).collect();
            if family.exclusive && on.len() > 1 {
                let keep = ((calls[family.members[0]][2] as u64 * on.len() as u64) >> 32) as usize;
                on.iter().enumerate().filter(|(k, _)| *k != keep).for_each(|(_, &i)| x[i] = 0.0);
            }
        }
    }
}

/// |Φ^-1| of the tail fma(m, ρ, ρ/2).
fn tail(m: f32, rho: f32) -> f32 {
    let q = m.mul_add(rho, 0.5 * rho);
    let w = -super::reference::ln(4.0 * q * (1.0 - q));
    let polynomial = |c: &[f32; 9], x: f32| c[1..].iter().fold(c[0], |sum, &c| sum.mul_add(x, c));
    let ratio = if w < 5.0 { polynomial(&NORMAL_MIDDLE, w - 2.5) } else { polynomial(&NORMAL_TAIL, w.sqrt() - 3.5) };
    ratio * (-2f32).mul_add(q, 1.0)
}
