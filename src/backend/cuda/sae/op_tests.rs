//! Each operation against plain loops.

use super::super::emulated::emulated;
use super::super::rows::{padded, pitch};
use super::resident::ListPlaces;
use super::view::{StepAim, list, mode};
use super::*;
use crate::backend::ops::optimizer::{Moments, Update};
use crate::backend::simd::{self, Isa};
use crate::random::Draws;
use crate::sae::{Architecture, BatchInference, Levels, Options, Prefixes, SaeTrain, Sort};
use crate::training::{Optimizer, Schedule};

/// One autoencoder on a device, whose kernels are launched one by one.
pub(super) struct Bench {
    pub(super) arena: Arena,
    pub(super) places: Places,
    launcher: Launcher,
    aim: StepAim,
    pub(super) h: Buffer<f32>,
    job: SaeJob,
}

fn job(architecture: Architecture, sizes: Sizes) -> SaeJob {
    let optimizer = Optimizer::default();
    let train = SaeTrain {
        steps: 10,
        batch_size: sizes.n,
        optimizer,
        lr: 1e-2,
        schedule: Schedule::Constant,
        warmup: 0.0,
        decay: 0.0,
        clip: Some(0.5),
        weight_decay: 0.1,
        normalise: Normalise::None,
        dead_after: 0,
    };
    let options = Options::default();
    SaeJob { seed: 1, n_latents: sizes.m, architecture, options, train, frozen_decoder: None, trace_every: 0 }
}

/// None where there is no emulated device.
pub(super) fn bench(order: u32, architecture: Architecture, sizes: Sizes) -> Option<Bench> {
    let device = emulated(order)?;
    let job = job(architecture, sizes);
    let program = job.program(|| 1.0);
    let mut layout = Layout::default();
    let places = Places::new(&mut layout, sizes, &program, job.train.optimizer);
    let mut arena = Arena::new(&device, &layout).expect("memory");
    arena.write(places.memory, &[view::Memory { multiplier: 1.0, ..view::Memory::default() }]).expect("memory");
    let h = Buffer::zeros(&device, sizes.n * pitch(sizes.d)).expect("memory");
    let reports = Buffer::<Report>::zeros(&device, 1).expect("memory");
    let view = places.view(&arena, &program, &job, h.pointer(), reports.pointer());
    let mut launcher = Launcher::new(&device, Kind::of(&program, sizes), 1, 1, 2).expect("memory");
    launcher.choose(&[view]).expect("memory");
    let aim = aim(&program, &job, 3, 0);
    // The reports live as long as the device is used.
    std::mem::forget(reports);
    Some(Bench { arena, places, launcher, aim, h, job })
}

impl Bench {
    fn list(&self, which: u32) -> ListPlaces {
        self.places.lists[which as usize].expect("the program has it")
    }

    /// What each sample has in a list: latent and z, in the order of its places.
    fn entries(&self, which: u32) -> Vec<Vec<(u32, f32)>> {
        let list = self.list(which);
        let (count, latent, z) = (self.read(list.count), self.read(list.latent), self.read(list.z));
        let of =
            |s: usize| (0..count[s] as usize).map(|at| (latent[s * list.cap + at], z[s * list.cap + at])).collect();
        (0..self.places.sizes.n).map(of).collect()
    }

    pub(super) fn read<T: bytemuck::Pod>(&self, place: resident::Place<T>) -> Vec<T> {
        self.arena.read(place).expect("it ran")
    }

    fn set_pre(&mut self, pre: &[f32]) {
        let m = self.places.sizes.m;
        let wide = padded(pre, m);
        self.arena.write(self.places.pre, &wide).expect("memory");
    }

    pub(super) fn launch(&mut self, kernel: &'static str, per: usize, threads: u32, which: u32) {
        self.launcher.launch_one(kernel, per, threads, which).expect("it is there");
    }

    /// Puts this aim on the device, by way of a refresh.
    fn put_aim(&mut self, aim: StepAim) {
        self.launcher.set_aims(&[aim]).expect("memory");
    }
}

/// Whether bits and slots of a list say the same as its entries; the bits go back to 0.
fn assert_bits_match(bench: &mut Bench, which: u32) {
    let (list, Sizes { n, m, .. }) = (bench.list(which), bench.places.sizes);
    let (mask, slot, entries) = (bench.read(list.mask), bench.read(list.slot), bench.entries(which));
    let words = n.div_ceil(32);
    for j in 0..m {
        for (s, entries) in entries.iter().enumerate() {
            let found = entries.iter().position(|&(latent, _)| latent as usize == j);
            assert_eq!(mask[j * words + s / 32] >> (s % 32) & 1 == 1, found.is_some(), "latent {j}, sample {s}");
            if let Some(at) = found {
                assert_eq!(slot[j * n + s] as usize, at);
            }
        }
    }
    bench.arena.write(list.mask, &vec![0; m * words]).expect("memory");
}

/// Numbers with many ties, and some that are none, infinite or 0 of either sign.
fn awkward(draws: &mut Draws, len: usize, levels: u32) -> Vec<f32> {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-45];
    let mut one = || match draws.below(20) {
        0 => special[draws.below(6) as usize],
        _ => draws.below(levels) as f32 - levels as f32 / 3.0,
    };
    (0..len).map(|_| one()).collect()
}

/// By falling key, lower places first; what is not a number is out.
fn greatest(keys: &[(usize, f32)], k: usize) -> Vec<usize> {
    let mut order: Vec<_> = keys.iter().filter(|(_, key)| !key.is_nan()).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut kept: Vec<usize> = order.into_iter().take(k).map(|(at, _)| *at).collect();
    kept.sort_unstable();
    kept
}

#[test]
fn top_keeps_the_greatest_with_ties_to_the_lower_latent_at_awkward_sizes() {
    let mut draws = Draws::new(5, Stream::SaeInit, 0);
    for m in [1usize, 2, 31, 33, 127, 129, 300, 1500] {
        for levels in [1, 3, 1000] {
            let sizes = Sizes { n: 3, m, d: 1 };
            let Some(mut bench) = bench(7, Architecture::TopK { k: m, aux_k: 2 }, sizes) else { return };
            let pre = awkward(&mut draws, 3 * m, levels);
            let norm: Vec<f32> = (0..m).map(|j| [1.0, 0.5, 0.0, 2.0][j % 4]).collect();
            let since: Vec<u32> = (0..m).map(|j| (j % 3 == 0) as u32).collect();
            bench.set_pre(&pre);
            bench.arena.write(bench.places.norm, &norm).expect("memory");
            bench.arena.write(bench.places.since, &since).expect("memory");
            let threads = m.next_multiple_of(32).min(256) as u32;
            for k in [0, 1, m / 2, m - 1, m, m + 5] {
                bench.put_aim(StepAim { k: k as u32, ..bench.aim });
                bench.launch("sae_top", 3, threads, list::MAIN);
                bench.launch("sae_emit", 3, threads, list::MAIN);
                let found = bench.entries(list::MAIN);
                for (row, found) in pre.chunks(m).zip(found) {
                    let keys: Vec<_> = row.iter().zip(&norm).map(|(pre, norm)| pre * norm).enumerate().collect();
                    let kept = greatest(&keys, k).into_iter().filter(|&j| row[j] > 0.0);
                    let expected: Vec<(u32, f32)> = kept.map(|j| (j as u32, row[j])).collect();
                    assert_eq!(found, expected, "{m} latents, {levels} levels, k {k}");
                }
                assert_bits_match(&mut bench, list::MAIN);
            }
            bench.launch("sae_top", 3, threads, list::DEAD);
            bench.launch("sae_emit", 3, threads, list::DEAD);
            for (row, found) in pre.chunks(m).zip(bench.entries(list::DEAD)) {
                let keys = row.iter().zip(&norm).map(|(pre, norm)| pre * norm).enumerate();
                let keys: Vec<_> = keys.filter(|(j, _)| j % 3 == 0).collect();
                let bits = |(j, z): (u32, f32)| (j, z.to_bits());
                let expected: Vec<_> = greatest(&keys, 2).into_iter().map(|j| bits((j as u32, row[j]))).collect();
                assert_eq!(found.into_iter().map(bits).collect::<Vec<_>>(), expected, "{m} latents, dead ones");
            }
            assert_bits_match(&mut bench, list::DEAD);
        }
    }
}

#[test]
fn batch_top_keeps_the_greatest_of_the_batch_with_ties_in_order_of_samples() {
    let mut draws = Draws::new(6, Stream::SaeInit, 0);
    for (n, m) in [(1usize, 1usize), (5, 31), (33, 33), (40, 129), (300, 7)] {
        for levels in [1, 3, 1000] {
            let inference = BatchInference::Batch;
            let Some(mut bench) =
                bench(7, Architecture::BatchTopK { k: 1.0, aux_k: 0, inference }, Sizes { n, m, d: 1 })
            else {
                return;
            };
            let pre = awkward(&mut draws, n * m, levels);
            let norm: Vec<f32> = (0..m).map(|j| [1.0, 0.5, 0.0, 2.0][j % 4]).collect();
            bench.set_pre(&pre);
            bench.arena.write(bench.places.norm, &norm).expect("memory");
            let keys = pre.iter().enumerate().map(|(at, pre)| (at, pre * norm[at % m])).filter(|(_, key)| *key > 0.0);
            let keys: Vec<_> = keys.collect();
            for count in [0, 1, n * m / 7, n * m / 2, keys.len(), keys.len() + 1, n * m] {
                bench.put_aim(StepAim { k: count as u32, ..bench.aim });
                bench.launch("sae_begin", 1, 256, 0);
                bench.launcher.batch_cut().expect("it is there");
                bench.launch("sae_emit", n, (m.div_ceil(128) * 32) as u32, list::MAIN);
                let kept = greatest(&keys, count);
                let found = bench.entries(list::MAIN);
                let found: Vec<usize> = found
                    .iter()
                    .enumerate()
                    .flat_map(|(s, row)| row.iter().map(move |e| s * m + e.0 as usize))
                    .collect();
                assert_eq!(found, kept, "{n} x {m}, {levels} levels, {count}");
                assert_bits_match(&mut bench, list::MAIN);
            }
        }
    }
}

#[test]
fn the_product_is_one_chain_over_the_columns_that_starts_at_the_offset() {
    let mut draws = Draws::new(7, Stream::SaeInit, 0);
    for (n, m, d) in [(1usize, 1usize, 1usize), (3, 7, 5), (127, 129, 8), (129, 127, 9), (65, 64, 33)] {
        let sizes = Sizes { n, m, d };
        let Some(mut bench) = bench(1, Architecture::TopK { k: 1, aux_k: 0 }, sizes) else { return };
        let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let (h, w, offset) = (normals(n * d), normals(m * d), normals(m));
        bench.h.write(0, &padded(&h, d)).expect("memory");
        bench.arena.write(bench.places.tensors[0].w, &padded(&w, d)).expect("memory");
        bench.arena.write(bench.places.offset, &offset).expect("memory");
        bench.launch("sae_encode", n.div_ceil(128) * m.div_ceil(128), 256, 0);
        let pre = bench.read(bench.places.pre);
        for (s, h) in h.chunks(d).enumerate() {
            for (j, w) in w.chunks(d).enumerate() {
                let expected = h.iter().zip(w).fold(offset[j], |sum, (h, w)| h.mul_add(*w, sum));
                assert_eq!(pre[s * m.next_multiple_of(4) + j].to_bits(), expected.to_bits(), "{n} x {m} x {d}");
            }
        }
    }
}

/// A step of an autoencoder that keeps all positive latents and pays nothing, at random weights; and h and b_dec before it.
fn gradients(order: u32, sizes: Sizes) -> Option<(Bench, Vec<f32>, Vec<f32>)> {
    let mut bench = bench(order, Architecture::TopK { k: sizes.m, aux_k: 0 }, sizes)?;
    let Sizes { n, m, d } = sizes;
    let mut draws = Draws::new(8, Stream::SaeInit, 0);
    let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
    let h = normals(n * d);
    bench.h.write(0, &padded(&h, d)).expect("memory");
    let weights = [m * d, m, m * d, d].map(&mut normals);
    for (at, (tensor, numbers)) in bench.places.tensors.clone().into_iter().zip(&weights).enumerate() {
        let numbers = if at == 1 { numbers.clone() } else { padded(numbers, d) };
        bench.arena.write(tensor.w, &numbers).expect("memory");
    }
    bench.launcher.refresh().expect("it is there");
    let aim = StepAim { k: m as u32, ..bench.aim };
    bench.launcher.steps(&[aim]).expect("it is there");
    let [.., center] = weights;
    Some((bench, h, center))
}

/// The entries and what they hear are read back, so chains have the same terms and hence the same bits; of dz, a sum of d products
/// trainings that agree with the reference are the check.
#[test]
fn gradients_of_a_latent_are_chains_over_its_samples_across_blocks_of_samples_and_columns() {
    for (order, n, m, d) in [(7, 1usize, 1usize, 1usize), (7, 33, 5, 7), (1, 1030, 2, 3), (1, 9, 3, 1030)] {
        let Some((bench, h, center)) = gradients(order, Sizes { n, m, d }) else { return };
        let list = bench.list(list::MAIN);
        let (heard, dz) = (bench.read(list.heard.expect("it is heard of")), bench.read(list.dz));
        let (entries, wide) = (bench.entries(list::MAIN), pitch(d));
        let [enc, _, dec, ..] = &bench.places.tensors[..] else { panic!("four tensors") };
        let (g_enc, g_dec) = (bench.read(enc.gradient), bench.read(dec.gradient));
        let active = bench.read(bench.places.active);
        for j in 0..m {
            let (mut enc, mut dec) = (vec![0.0f32; d], vec![0.0f32; d]);
            for (s, row) in entries.iter().enumerate() {
                let Some(at) = row.iter().position(|e| e.0 as usize == j) else { continue };
                for c in 0..d {
                    dec[c] = row[at].1.mul_add(heard[s * wide + c], dec[c]);
                    enc[c] = dz[s * list.cap + at].mul_add(h[s * d + c] - center[c], enc[c]);
                }
            }
            let fired = entries.iter().any(|row| row.iter().any(|e| e.0 as usize == j));
            assert_eq!(active[j] > 0, fired);
            if fired {
                assert_eq!(g_enc[j * wide..][..d], enc, "{n} x {m} x {d}, latent {j}");
                assert_eq!(g_dec[j * wide..][..d], dec, "{n} x {m} x {d}, latent {j}");
            }
        }
        // Bits are cleared for the next step.
        assert!(bench.read(list.mask).iter().all(|&word| word == 0));
    }
}

/// The same gradient through the CPU's kernel: a number's step is the same operations, so the same bits.
#[test]
fn the_optimiser_moves_numbers_as_the_cpu_does_bit_for_bit() {
    let adamw = Optimizer::AdamW { beta1: 0.8, beta2: 0.99, epsilon: 1e-6 };
    for optimizer in [Optimizer::default(), adamw, Optimizer::Sgd { momentum: 0.9 }, Optimizer::Sgd { momentum: 0.0 }] {
        let sizes = Sizes { n: 4, m: 5, d: 7 };
        let Some(mut bench) = bench(0, Architecture::TopK { k: 2, aux_k: 0 }, sizes) else { return };
        bench.job.train.optimizer = optimizer;
        let program = bench.job.program(|| 1.0);
        let mut layout = Layout::default();
        let places = Places::new(&mut layout, sizes, &program, optimizer);
        let device = emulated(0).expect("there is one");
        let mut arena = Arena::new(&device, &layout).expect("memory");
        let view = places.view(&arena, &program, &bench.job, bench.h.pointer(), Pointer::NULL);
        bench.launcher.choose(&[view]).expect("memory");
        let mut draws = Draws::new(9, Stream::SaeInit, 0);
        let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let len = sizes.m * pitch(sizes.d);
        let (mut w, mut moments) = (normals(len), Moments::new(optimizer, len));
        arena.write(places.tensors[0].w, &w).expect("memory");
        arena.write(places.active, &[1; 5]).expect("memory");
        let memory = view::Memory { scale: 0.25, ..view::Memory::default() };
        arena.write(places.memory, &[memory]).expect("memory");
        for step in 0..6 {
            let mut gradient = normals(len);
            gradient[3] = 1e-20;
            arena.write(places.tensors[0].gradient, &gradient).expect("memory");
            bench.put_aim(aim(&program, &bench.job, step, 0));
            bench.launch("sae_update", sizes.m, 32, mode::MOVE);
            let numbers = crate::backend::ops::optimizer::Step::new(optimizer, 1e-2, 0.1, step);
            let (parameters, gradient) = (&mut w[..], &gradient[..]);
            simd::run(Isa::best(), Update { step: &numbers, scale: 0.25, parameters, gradient, moments: &mut moments });
            let bits = |w: &[f32]| w.iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&arena.read(places.tensors[0].w).expect("it ran")), bits(&w), "{optimizer:?} {step}");
        }
    }
}

#[test]
fn levels_follow_the_order_of_use_at_awkward_sizes() {
    let mut draws = Draws::new(8, Stream::SaeInit, 0);
    for m in [1usize, 2, 31, 255, 256, 257, 600] {
        for sort in [Sort::None, Sort::Frequency, Sort::Contribution] {
            for order in [0, 1, 7] {
                let prefixes = Prefixes::Sampled { count: 5, power: 0.5 };
                let levels = Levels { prefixes, inner: 0.5, average: false, detach_inner: false, sort };
                let nested = Box::new(Architecture::TopK { k: 1, aux_k: 0 });
                let architecture = Architecture::Matryoshka { nested, levels: levels.clone(), aux_by_level: false };
                let Some(mut bench) = bench(order, architecture, Sizes { n: 1, m, d: 1 }) else { return };
                // Many ties, and a number of every size.
                let one = |draws: &mut Draws| [0.0, 1e-300, draws.uniform(), 0.25, 7.0][draws.below(5) as usize];
                let usage: Vec<f64> = (0..m).map(|_| one(&mut draws)).collect();
                bench.arena.write(bench.places.usage, &usage).expect("memory");
                for step in [0, 1, 9] {
                    let program = bench.job.program(|| 1.0);
                    bench.put_aim(aim(&program, &bench.job, step, 0));
                    bench.launch("sae_levels", m.div_ceil(256), 256, 0);
                    let expected = levels.at(bench.job.seed, step, m, &usage).of;
                    assert_eq!(bench.read(bench.places.level_of.expect("it has levels")), expected, "{m} {sort:?}");
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct ProbeArgs {
    out: Pointer<u64>,
    numbers: [u32; 6],
}

// SAFETY: plain numbers without padding.
unsafe impl bytemuck::Zeroable for ProbeArgs {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for ProbeArgs {}

#[test]
fn addresses_go_beyond_32_bits() {
    let Some(device) = emulated(0) else { return };
    for [plane, rows, row, width, column] in
        [[0, 1, 0, 1, 0], [15, 65536, 65535, 65536, 65535], [3, 4, u32::MAX, u32::MAX, 7]]
    {
        let out = Buffer::<u64>::zeros(&device, 2).expect("memory");
        let args = ProbeArgs { out: out.pointer(), numbers: [plane, rows, row, width, column, 0] };
        let launch = super::super::device::Launch { kernel: "sae_probe", blocks: 1, threads: 32, shared: 0 };
        device.launch(launch, bytemuck::bytes_of(&args)).expect("it is there");
        let [plane, rows, row, width, column] = [plane, rows, row, width, column].map(u64::from);
        let expected = [row * width + column, ((plane * rows + row).wrapping_mul(width)).wrapping_add(column)];
        assert_eq!(out.read().expect("it ran"), expected);
    }
}
