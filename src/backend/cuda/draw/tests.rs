use super::super::emulated::emulated;
use super::*;
use crate::data::{Batch, Group, Magnitude, MagnitudeSharing, World};
use crate::random::Stream;

const UNIT: Magnitude = Magnitude::Uniform { low: 0.0, high: 1.0 };

/// Orders in which the emulated device runs its threads.
const ORDERS: [u32; 4] = [0, 1, 7, 12345];

fn world(firing_probability: Vec<f64>, magnitude: Magnitude) -> World {
    World {
        n_features: firing_probability.len(),
        firing_probability,
        magnitude,
        magnitude_sharing: MagnitudeSharing::Independent,
        groups: vec![],
        dataset: None,
        correlation: None,
        hierarchy: None,
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// x and live samples of some steps, as the CPU has them.
fn expected(sampler: &Sampler, steps: Steps) -> (Vec<f32>, Vec<u32>) {
    let (mut x, mut live) = (vec![], vec![]);
    for step in 0..steps.count as u32 {
        let mut batch = Batch::default();
        sampler.draw_range(steps.first + step, steps.first_sample, steps.samples, &mut batch);
        x.extend(batch.lanes.iter().flat_map(|lanes| lanes.0));
        live.extend((0..steps.samples.div_ceil(32)).map(|word| {
            let samples = 32 * word..(32 * word + 32).min(steps.samples);
            let fires = |s: &usize| (0..batch.n_features).any(|i| batch.value(*s, i) != 0.0);
            samples.filter(fires).fold(0, |bits, s| bits | 1u32 << (s % 32))
        }));
    }
    (x, live)
}

/// Three steps of each number of samples, on every order of threads, against the CPU; two seeds, two places.
fn hold_to_cpu(world: &World, samples: &[usize]) {
    let world = Arc::new(world.clone());
    for (seed, first, first_sample) in [(3, 0, 0), (1 << 40, 77, 2048)] {
        let sampler = Sampler::new(world.clone(), seed, Stream::Train);
        for &samples in samples {
            let steps = Steps { first, count: 3, first_sample, samples };
            let (x, live) = expected(&sampler, steps);
            for order in ORDERS {
                let Some(device) = emulated(order) else { return };
                let drawer = DeviceSampler::new(&device, &sampler).expect("a world that kernels draw");
                // Memory is NaN at first, and one number more must stay it.
                let mut got = Buffer::<f32>::undefined(&device, x.len() + 1).expect("memory");
                let mut got_live = Buffer::<u32>::undefined(&device, live.len() + 1).expect("memory");
                drawer.draw(steps, &mut got).expect("it runs");
                drawer.live(3, samples, &got, &mut got_live).expect("it runs");
                let (got, got_live) = (got.read().expect("it ran"), got_live.read().expect("it ran"));
                let place = format!("order {order}, {samples} samples of {world:?}");
                assert_eq!(bits(&got[..x.len()]), bits(&x), "{place}");
                assert_eq!(got_live[..live.len()], live, "{place}");
                assert_eq!((got[x.len()].to_bits(), got_live[live.len()]), (u32::MAX, u32::MAX), "{place}");
            }
        }
    }
}

#[test]
fn arguments_have_the_layout_of_the_kernels() {
    assert_eq!(size_of::<Draw>(), 2 * 8 + 10 * 4);
    assert_eq!(size_of::<Column>(), 8 * 4);
    assert_eq!(size_of::<ColumnsArgs>(), size_of::<Draw>() + 8 + 2 * 4);
    assert_eq!(size_of::<Skip>(), 8 * 4);
    assert_eq!(size_of::<SkipsArgs>(), size_of::<Draw>() + 2 * 8 + 4 * 4);
    assert_eq!(size_of::<LiveArgs>(), 2 * 8 + 4 * 4);
    assert_eq!(size_of::<NormaliseArgs>(), 8 + 8 + 2 * 4);
}

#[test]
fn coins_and_skips_on_a_device_are_those_of_the_cpu() {
    let samples = [0, 1, 15, 16, 17, 48, 129, 1023, 1025];
    for n in [1, 2, 5, 17] {
        for p in [0.0, 1e-4, 0.05, 0.12, 0.120_000_1, 0.5, 1.0] {
            hold_to_cpu(&world(vec![p; n], UNIT), if n == 5 { &samples } else { &[33, 1025] });
        }
        let mixed = |i: usize| [0.05, 0.5, 0.05, 1e-9, 0.0, 0.11, 1.0, 0.05, 0.3, 0.11][i * 7 % 10];
        hold_to_cpu(&world((0..n).map(mixed).collect(), UNIT), &samples);
        hold_to_cpu(&world((0..n).map(|i| 0.3 / (i + 1) as f64).collect(), UNIT), &[17, 1024]);
    }
    hold_to_cpu(&world((0..40).map(|i| 0.3 / (i + 1) as f64).collect(), UNIT), &[2100]);
}

#[test]
fn rare_features_of_wide_worlds_are_those_of_the_cpu() {
    // 30 gaps of a whole row block would pass 2^32 if nothing cut them.
    for p in [1e-300, 1e-6, 3e-4] {
        hold_to_cpu(&world(vec![p; 3000], UNIT), &[1025]);
    }
}

#[test]
fn worlds_without_features_are_drawn() {
    hold_to_cpu(&world(vec![], UNIT), &[0, 17]);
}

fn magnitudes(n: usize) -> Vec<Magnitude> {
    let each = |from: f64, by: f64| (0..n).map(|i| from + by * i as f64).collect::<Vec<f64>>();
    vec![
        UNIT,
        Magnitude::Uniform { low: 0.3, high: 2.1 },
        Magnitude::Constant(each(0.0, 0.25)),
        Magnitude::Normal { mean: each(-0.5, 0.2), std: each(0.5, 0.1) },
        Magnitude::FoldedNormal { mean: vec![0.0; n], std: vec![1.0; n] },
        Magnitude::Exponential { mean: each(0.5, 0.5) },
        Magnitude::Symmetric(1.5),
    ]
}

#[test]
fn every_magnitude_law_on_a_device_is_that_of_the_cpu_with_and_without_sharing() {
    for magnitude in magnitudes(17) {
        for p in [vec![0.05; 17], vec![0.4; 17], (0..17).map(|i| 0.02 * i as f64).collect()] {
            for magnitude_sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                let world = World { magnitude_sharing, ..world(p.clone(), magnitude.clone()) };
                hold_to_cpu(&world, &[33, 1025]);
            }
        }
    }
}

#[test]
fn groups_on_a_device_are_those_of_the_cpu_under_every_law() {
    use GroupRule::{Exclusive, Together};
    for magnitude in magnitudes(11) {
        for (a, b, c) in [(0.5, 0.7, 1.0), (0.03, 0.1, 0.4), (0.0, 0.05, 0.12), (0.3, 0.01, 0.0)] {
            for magnitude_sharing in [MagnitudeSharing::Independent, MagnitudeSharing::Sample] {
                let group = |rule, members: &[usize], firing_probability| Group {
                    rule,
                    members: members.to_vec(),
                    firing_probability,
                };
                let groups = vec![
                    group(Together, &[0, 3], a),
                    group(Exclusive, &[1, 4, 9], b),
                    group(Together, &[5], c),
                    group(Exclusive, &[], 0.5),
                ];
                let p = vec![0.2, 0.2, 0.06, 0.2, 0.2, 0.2, 0.5, 0.06, 0.0, 0.9, 1.0];
                let world = World { magnitude_sharing, groups, ..world(p, magnitude.clone()) };
                hold_to_cpu(&world, &[33, 1025]);
            }
        }
    }
}

#[test]
fn steps_are_split_where_a_launch_has_no_room_for_their_threads() {
    let split = |steps, threads| launches(steps, threads).collect::<Vec<_>>();
    assert_eq!(split(3, 1 << 20), [(0, 3)]);
    assert_eq!(split(3, 1 << 30), [(0, 2), (2, 1)]);
    assert_eq!(split(2, 1 << 31), [(0, 1), (1, 1)]);
    assert_eq!(split(0, 1 << 31), []);
    assert_eq!(split(5, 0), [(0, 5)]);
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct PlaceArgs {
    /// `[n]`: step, tiles of a step, tile, features, feature.
    cases: Pointer<[u32; 5]>,
    places: Pointer<u64>,
    n: u32,
    unused: u32,
}
pod!(PlaceArgs);

#[test]
fn places_in_x_are_right_beyond_four_billion_numbers() {
    let Some(device) = emulated(0) else { return };
    let cases = [
        [0, 64, 63, 20, 19],
        [0xffff, 64, 63, 0x1ffff, 0x1fffe],
        [1 << 20, 1 << 16, 0xffff, 4096, 4095],
        [u32::MAX, 2, 1, 3, 2],
    ];
    let places = Buffer::<u64>::undefined(&device, cases.len()).expect("memory");
    let uploaded = Buffer::of(&device, &cases).expect("memory");
    let args = PlaceArgs { cases: uploaded.pointer(), places: places.pointer(), n: cases.len() as u32, unused: 0 };
    let launch = Launch { kernel: "draw_place", blocks: 1, threads: 32, shared: 0 };
    device.launch(launch, bytemuck::bytes_of(&args)).expect("it is there");
    let expected = cases.map(|case| {
        let [step, tiles, tile, n, feature] = case.map(u128::from);
        let place = ((step * tiles + tile) * n + feature) * 16;
        u64::try_from(place).expect("an address of 64 bits")
    });
    assert_eq!(places.read().expect("it ran"), expected);
    assert!(expected[1] > 1 << 32);
}
