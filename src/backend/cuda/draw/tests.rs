use super::super::emulated::emulated;
use super::*;
use crate::data::hierarchy::{Hierarchy, Node};
use crate::data::{Batch, Correlation, Finite, Group, GroupRule, Magnitude, MagnitudeSharing, World};
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

/// x, live samples and lists of some steps, as the CPU has them.
struct Expected {
    x: Vec<f32>,
    live: Vec<u32>,
    /// Feature and bits of the value of what is not 0, sample by sample.
    lists: Vec<Vec<(u32, u32)>>,
}

fn expected(sampler: &Sampler, steps: Steps) -> Expected {
    let mut all = Expected { x: vec![], live: vec![], lists: vec![] };
    for step in 0..steps.count as u32 {
        let mut batch = Batch::default();
        sampler.draw_range(steps.first + step, steps.first_sample, steps.samples, &mut batch);
        all.x.extend(batch.lanes.iter().flat_map(|lanes| lanes.0));
        let list = |s: usize| {
            let on = (0..batch.n_features).filter(|&i| batch.value(s, i) != 0.0);
            on.map(|i| (i as u32, batch.value(s, i).to_bits())).collect::<Vec<_>>()
        };
        let lists: Vec<_> = (0..steps.samples).map(list).collect();
        let word = |lists: &[Vec<_>]| lists.iter().rev().fold(0, |word, list| word << 1 | u32::from(!list.is_empty()));
        all.live.extend(lists.chunks(32).map(word));
        all.lists.extend(lists);
    }
    all
}

/// Three steps of each number of samples, on every order of threads, against the CPU; two seeds, two places.
fn hold_to_cpu(world: &World, samples: &[usize]) {
    hold_from(world, samples, 2048);
}

fn hold_from(world: &World, samples: &[usize], first_sample: usize) {
    let world = Arc::new(world.clone());
    for (seed, first, first_sample) in [(3, 0, 0), (1 << 40, 77, first_sample)] {
        let sampler = Sampler::new(world.clone(), seed, Stream::Train);
        for order in ORDERS {
            let Some(device) = emulated(order) else { return };
            let mut drawer = DeviceSampler::new(&device, &sampler).expect("memory");
            for &samples in samples {
                let steps = Steps { first, count: 3, first_sample, samples };
                let place = format!("order {order}, {samples} samples from {first_sample} of {world:?}");
                hold_steps(&device, &mut drawer, steps, &place);
            }
        }
    }
}

fn hold_steps(device: &Arc<dyn Device>, drawer: &mut DeviceSampler, steps: Steps, place: &str) {
    let expected = expected(&drawer.sampler, steps);
    let (n, rows) = (drawer.sampler.plan().n_features, expected.lists.len());
    // Memory is NaN at first, and one number more must stay it.
    let mut x = Buffer::<f32>::undefined(device, expected.x.len() + 1).expect("memory");
    let mut live = Buffer::<u32>::undefined(device, expected.live.len() + 1).expect("memory");
    let mut lists = Lists::new(device, n, rows).expect("memory");
    drawer.draw(steps, &mut x).expect("it runs");
    drawer.live(steps.count, steps.samples, &x, &mut live).expect("it runs");
    drawer.draw_lists(steps, &mut lists).expect("it runs");
    let (x, live) = (x.read().expect("it ran"), live.read().expect("it ran"));
    let (got, none) = x.split_at(expected.x.len());
    assert_eq!(bits(got), bits(&expected.x), "{place}");
    assert_eq!(live[..expected.live.len()], expected.live, "{place}");
    assert_eq!((none[0].to_bits(), live[expected.live.len()]), (u32::MAX, u32::MAX), "{place}");
    let counts = lists.counts.read().expect("it ran");
    let (features, values) = (lists.features.read().expect("it ran"), lists.values.read().expect("it ran"));
    for (row, expected) in expected.lists.iter().enumerate() {
        let entry = |k: usize| (features[row * n + k], values[row * n + k].to_bits());
        let got: Vec<_> = (0..counts[row] as usize).map(entry).collect();
        assert_eq!(&got, expected, "row {row}, {place}");
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
    assert_eq!(size_of::<ListsArgs>(), 4 * 8 + 4 * 4);
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
    // Gaps of up to 2^30, whose sum over a warp would pass 2^32 if nothing cut it.
    for p in [1e-300, 1e-6, 3e-4] {
        hold_to_cpu(&world(vec![p; 300], UNIT), &[1025]);
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
    let split = |steps, threads| launches(steps, threads, usize::MAX).collect::<Vec<_>>();
    assert_eq!(split(3, 1 << 20), [(0, 3)]);
    assert_eq!(split(3, 1 << 30), [(0, 2), (2, 1)]);
    assert_eq!(split(2, 1 << 31), [(0, 1), (1, 1)]);
    assert_eq!(split(0, 1 << 31), []);
    assert_eq!(split(5, 0), [(0, 5)]);
    assert_eq!(launches(5, 1, 2).collect::<Vec<_>>(), [(0, 2), (2, 2), (4, 1)]);
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

#[test]
fn samples_of_unit_norm_are_those_of_the_cpu() {
    let dataset = Some(Finite { samples: 100, normalise: true });
    for magnitude in [UNIT, Magnitude::Symmetric(1.5)] {
        for p in [vec![0.05; 17], vec![0.4; 17]] {
            hold_to_cpu(&World { dataset, ..world(p, magnitude.clone()) }, &[33, 1025]);
        }
    }
}

fn correlations(n: usize) -> Vec<Option<Correlation>> {
    let star: Vec<(usize, usize, f64)> = (1..n.min(5)).map(|i| (0, i, 0.5)).collect();
    vec![
        None,
        Some(Correlation::low_rank(n, 3, 0.3, 5).expect("a factor").correlation),
        Some(Correlation::low_rank(n, 25, 0.1, 6).expect("a factor").correlation),
        Some(Correlation::from_pairs(n, 0.0, &star).expect("a singular matrix is one")),
        Some(Correlation::random(n, &Default::default(), 7).expect("a matrix").correlation),
    ]
}

#[test]
fn correlated_features_on_a_device_are_those_of_the_cpu() {
    for n in [1, 2, 17, 40] {
        let p = |i: usize| [0.3f64, 0.05, 0.0, 1.0, 0.9, 0.004, 0.12][i % 7];
        for correlation in correlations(n).into_iter().flatten() {
            let p = (0..n).map(|i| if n == 1 { 0.4 } else { p(i) }).collect();
            let world = World { correlation: Some(correlation), ..world(p, Magnitude::Symmetric(1.0)) };
            hold_from(&world, &[97, 1, 0, 33], 1024 + 992);
        }
    }
}

fn node(feature: impl Into<Option<usize>>, parent: impl Into<Option<usize>>) -> Node {
    Node { feature: feature.into(), parent: parent.into(), ..Node::default() }
}

/// Families of every kind, three levels, indices up and down the trees; features in none.
fn trees() -> Hierarchy {
    let rules = |exclusive, scale_children, node: Node| Node { exclusive, scale_children, ..node };
    let nodes = vec![
        rules(true, false, node(9, None)),
        rules(false, true, node(1, 0)),
        node(2, 1),
        node(20, 1),
        node(17, 0),
        node(3, None),
        node(4, 5),
        node(None, 5),
        node(5, 7),
        node(6, 7),
        rules(true, false, node(None, None)),
        node(8, 10),
        node(7, 10),
        node(0, 12),
        node(30, 10),
        rules(true, true, node(10, None)),
        node(12, 15),
        node(11, 15),
        node(13, 15),
    ];
    Hierarchy::new(37, nodes).expect("trees")
}

#[test]
fn trees_on_a_device_are_those_of_the_cpu_under_every_law_and_correlation() {
    for (m, magnitude) in magnitudes(37).into_iter().enumerate() {
        let below_zero = matches!(magnitude, Magnitude::Symmetric(_));
        for (c, correlation) in correlations(37).into_iter().enumerate() {
            // A parent is on where its value is above 0; every law meets two of the correlations, and sharing every other time.
            if below_zero || (m + c) % 2 == 1 {
                continue;
            }
            let magnitude_sharing =
                if (m + c) % 4 == 0 { MagnitudeSharing::Independent } else { MagnitudeSharing::Sample };
            let p = (0..37).map(|i| [0.6, 0.9, 0.3, 0.7, 1.0][i % 5]).collect();
            let world =
                World { correlation, hierarchy: Some(trees()), magnitude_sharing, ..world(p, magnitude.clone()) };
            hold_from(&world, &[65], 1024 + 992);
        }
    }
}

#[test]
fn wide_families_on_a_device_are_those_of_the_cpu() {
    // A parent of 70 exclusive children and one of 70 others, each of which has a child: more than a warp has lanes.
    let mut nodes = vec![Node { exclusive: true, ..node(0, None) }, node(1, None)];
    nodes.extend((0..140).map(|k| node(2 + k, k % 2)));
    nodes.extend((0..140).map(|k| node(142 + k, 2 + k)));
    let hierarchy = Some(Hierarchy::new(300, nodes).expect("trees"));
    let world = World { hierarchy, ..world((0..300).map(|i| 0.3 + 0.002 * i as f64).collect(), UNIT) };
    hold_from(&world, &[40], 992);
}
