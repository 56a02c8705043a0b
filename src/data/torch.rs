//! Torch's CPU generator, so that models made with a Torch seed can be read without Torch.
//!
//! The engine is MT19937 seeded with one 32-bit number (Matsumoto & Nishimura 1998). Read from pytorch
//! `ATen/core/DistributionsHelper.h`, `TransformationHelper.h` and `ATen/native/cpu/DistributionTemplates.h`:
//!
//! - `rand`, f32: u = (word mod 2^24) 2^-24.
//! - `randn`, f32, sixteen or more: uniforms fill the array in order; then in each block of sixteen
//!   r_j = sqrt(-2 ln(1 - u_j)), θ_j = 2π u_{j+8} for j = 0..8, and out_j = r cos θ, out_{j+8} = r sin θ. A rest that makes no
//!   block: the last sixteen places take fresh uniforms and are transformed, over what stood there.
//! - fewer than sixteen: Box-Muller one by one in f64, uniforms of 53 bits from two words (high word first), θ from the
//!   first, r = sqrt(-2 ln(1 - u)) from the second; the cosine first, the sine kept for the next.
//!
//! Torch's vector code and its scalar code differ from each other in the last digits (1.1e-6); this is computed in f64 and
//! rounded, and lies within 2e-6 of both.

use std::f64::consts::PI;

const N: usize = 624;
const M: usize = 397;

/// A Torch generator on the CPU.
pub struct TorchCpu {
    state: [u32; N],
    at: usize,
    /// The sine of the last pair of normals drawn one by one.
    kept: Option<f64>,
}

impl TorchCpu {
    /// `torch.Generator().manual_seed(seed)`, of which the engine takes the low 32 bits.
    pub fn new(seed: u64) -> TorchCpu {
        let mut state = [seed as u32; N];
        for i in 1..N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ before >> 30).wrapping_add(i as u32);
        }
        TorchCpu { state, at: N, kept: None }
    }

    /// The next word of the engine.
    pub fn word(&mut self) -> u32 {
        if self.at == N {
            self.twist();
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9D2C_5680;
        y ^= y << 15 & 0xEFC6_0000;
        y ^ y >> 18
    }

    fn twist(&mut self) {
        for i in 0..N {
            let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % N] & 0x7FFF_FFFF;
            let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ y >> 1 ^ odd;
        }
        self.at = 0;
    }

    /// `torch.rand(size)`: uniform on [0, 1), multiples of 2^-24.
    pub fn uniforms(&mut self, size: usize) -> Vec<f32> {
        (0..size).map(|_| self.uniform()).collect()
    }

    fn uniform(&mut self) -> f32 {
        (self.word() & 0xFF_FFFF) as f32 * 2f32.powi(-24)
    }

    /// `torch.randn(size)`.
    pub fn normals(&mut self, size: usize) -> Vec<f32> {
        if size < 16 {
            return (0..size).map(|_| self.normal() as f32).collect();
        }
        let mut out = self.uniforms(size);
        for block in out.as_chunks_mut::<16>().0 {
            *block = sixteen_normals(*block);
        }
        if !size.is_multiple_of(16) {
            let fresh = std::array::from_fn(|_| self.uniform());
            out[size - 16..].copy_from_slice(&sixteen_normals(fresh));
        }
        out
    }

    fn normal(&mut self) -> f64 {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        let mut uniform = || {
            let (high, low) = (self.word() as u64, self.word() as u64);
            ((high << 32 | low) & ((1 << 53) - 1)) as f64 * 2f64.powi(-53)
        };
        let (turn, u) = (uniform(), uniform());
        let r = (-2.0 * libm::log1p(-u)).sqrt();
        let theta = 2.0 * PI * turn;
        self.kept = Some(r * libm::sin(theta));
        r * libm::cos(theta)
    }
}

/// A block of uniforms as normals.
fn sixteen_normals(u: [f32; 16]) -> [f32; 16] {
    let mut out = [0.0; 16];
    for j in 0..8 {
        let r = (-2.0 * libm::log(1.0 - u[j] as f64)).sqrt();
        let theta = 2.0 * PI * u[j + 8] as f64;
        (out[j], out[j + 8]) = ((r * libm::cos(theta)) as f32, (r * libm::sin(theta)) as f32);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{golden, json};
    use serde_json::Value;

    fn numbers(list: &Value) -> Vec<f64> {
        list.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
    }

    #[test]
    fn words_and_uniforms_are_those_of_the_engine() {
        let golden = json(golden("worlds.json"));
        let expected = numbers(&golden["torch_cpu"]["mt19937_words_seed_42"]);
        let mut engine = TorchCpu::new(42);
        assert_eq!(expected.len(), 20);
        expected.iter().for_each(|word| assert_eq!(engine.word() as f64, *word));
        // As f32, which they are: the last digit of the text read as f64 is not to be relied on.
        let expected: Vec<f32> =
            numbers(&golden["torch_cpu"]["uniform_seed_42"]).into_iter().map(|u| u as f32).collect();
        assert_eq!(TorchCpu::new(42).uniforms(20), expected);
        // The reference implementation's ten thousandth word after seed 5489, as the C++ standard has it.
        let mut engine = TorchCpu::new(5489);
        assert_eq!((0..10_000).map(|_| engine.word()).last(), Some(4_123_659_995));
    }

    /// 2e-6, the bound of the fixture: Torch's own vector and scalar code differ by 1.1e-6.
    #[test]
    fn normals_of_every_size_are_those_of_torch() {
        let golden = json(golden("worlds.json"));
        let cases = golden["torch_cpu"]["normals"].as_array().expect("a list");
        assert_eq!(cases.len(), 18);
        for case in cases {
            let (seed, size) = (case["seed"].as_u64().expect("a seed"), case["size"].as_u64().expect("a size"));
            let found = TorchCpu::new(seed).normals(size as usize);
            let expected = numbers(&case["normal"]);
            assert_eq!(found.len(), expected.len());
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert!(
                    (*found as f64 - expected).abs() < 2e-6,
                    "seed {seed}, {size} of them, {at}: {found} {expected}"
                );
            }
        }
        let well_known = [1.9269, 1.4873, 0.9007, -2.1055];
        for (found, expected) in TorchCpu::new(42).normals(64).iter().zip(well_known) {
            assert!((found - expected).abs() < 5e-5, "{found}");
        }
    }

    /// The standard deviations of SynthSAEBench-16k: |.5 + .5 z|, seed 43.
    #[test]
    fn the_benchmarks_magnitudes_come_out() {
        let golden = json(golden("worlds.json"));
        let expected = &golden["torch_cpu"]["std_magnitudes_16k_seed_43"];
        let found: Vec<f64> =
            TorchCpu::new(43).normals(16384).into_iter().map(|z| (0.5 + 0.5 * z).abs() as f64).collect();
        for (found, expected) in found.iter().zip(numbers(&expected["first"])) {
            assert!((found - expected).abs() < 2e-6, "{found} {expected}");
        }
        let mean = found.iter().sum::<f64>() / 16384.0;
        assert!((mean - expected["mean"].as_f64().expect("a number")).abs() < 2e-6);
        let most = found.iter().fold(0.0f64, |a, v| a.max(*v));
        assert!((most - expected["max"].as_f64().expect("a number")).abs() < 2e-6);
    }

    #[test]
    fn a_sequence_of_draws_goes_on_where_the_last_one_ended() {
        let mut one = TorchCpu::new(7);
        let both = [one.normals(3), one.normals(4)].concat();
        assert_eq!(both, TorchCpu::new(7).normals(7));
    }
}
