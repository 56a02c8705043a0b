//! The product on tensor cores, and trainings with it.

use super::super::emulated::emulated;
use super::super::rows::padded;
use super::op_tests::bench;
use super::tests::{Count, bits, job, source};
use super::*;
use crate::random::Draws;
use crate::sae::{Architecture, BatchInference, DecoderRule};

/// What a kernel gives for h `[n, d]`, W_enc `[m, d]` and offsets `[m]`: `[n, m]`. None where there is no emulated device.
fn product(order: u32, arithmetic: Arithmetic, sizes: Sizes, [h, w, offset]: [&[f32]; 3]) -> Option<Vec<f32>> {
    let Sizes { n, m, d } = sizes;
    let mut bench = bench(order, Architecture::TopK { k: 1, aux_k: 0 }, sizes)?;
    bench.h.write(0, &padded(h, d)).expect("memory");
    bench.arena.write(bench.places.tensors[0].w, &padded(w, d)).expect("memory");
    bench.arena.write(bench.places.offset, offset).expect("memory");
    bench.launch(arithmetic.encoder(), n.div_ceil(128) * m.div_ceil(128), 256, 0);
    Some(bench.read(bench.places.pre).chunks(m.next_multiple_of(4)).flat_map(|row| &row[..m]).copied().collect())
}

/// With u = 2^-11, the unit of rounding to TF32, and v = 2^-24 that of f32: factors are off by u, their product by 2u + u², and a
/// chain of d fused multiply-adds by d v of what it adds up, the offset among it.
#[test]
fn products_on_tensor_cores_are_exact_but_for_the_rounding_of_factors_and_of_a_chain() {
    let mut draws = Draws::new(8, Stream::SaeInit, 0);
    for [n, m, d] in
        [[1, 1, 1], [3, 8, 3], [8, 3, 17], [17, 130, 8], [127, 129, 3], [129, 1, 127], [130, 127, 33], [1, 17, 130]]
    {
        let sizes = Sizes { n, m, d };
        let mut normals = |len: usize| (0..len).map(|_| draws.normal() as f32).collect::<Vec<f32>>();
        let (h, w, offset) = (normals(n * d), normals(m * d), normals(m));
        let of = |order, arithmetic| product(order, arithmetic, sizes, [&h, &w, &offset]);
        let Some(found) = of(0, Arithmetic::Tf32) else { return };
        for order in [1, 7, 77] {
            assert_eq!(of(order, Arithmetic::Tf32).as_ref(), Some(&found), "{sizes:?}, order {order}");
        }
        let f32 = of(0, Arithmetic::F32).expect("there is a device");
        let (u, v) = ((-11f64).exp2(), (-24f64).exp2());
        let chain = d as f64 * v / (1.0 - d as f64 * v);
        for (at, (found, f32)) in found.iter().zip(f32).enumerate() {
            let (h, w, offset) = (&h[at / m * d..][..d], &w[at % m * d..][..d], offset[at % m] as f64);
            let terms = || h.iter().zip(w).map(|(h, w)| *h as f64 * *w as f64);
            let (exact, size) = (terms().sum::<f64>() + offset, terms().map(f64::abs).sum::<f64>());
            let factors = (2.0 * u + u * u) * size;
            let bound = factors + chain * (offset.abs() + size + factors);
            assert!((*found as f64 - exact).abs() <= bound, "{sizes:?}: {found} {exact} {bound}");
            let both = bound + chain * (offset.abs() + size);
            assert!((*found as f64 - f32 as f64).abs() <= both, "{sizes:?}: {found} {f32} {both}");
        }
    }
}

/// Whole numbers up to 40 have 6 bits, and sums of 37 products and an offset stay below 2^16: nothing is rounded anywhere.
#[test]
fn products_of_small_whole_numbers_are_exact_on_tensor_cores() {
    let mut draws = Draws::new(9, Stream::SaeInit, 0);
    let mut whole = |len: usize| (0..len).map(|_| draws.below(81) as f32 - 40.0).collect::<Vec<f32>>();
    for [n, m, d] in [[130, 131, 37], [16, 8, 8], [5, 140, 20]] {
        let (h, w, offset) = (whole(n * d), whole(m * d), whole(m));
        let of = |arithmetic| product(7, arithmetic, Sizes { n, m, d }, [&h, &w, &offset]);
        assert_eq!(of(Arithmetic::Tf32), of(Arithmetic::F32), "{n} x {m} x {d}");
    }
}

#[test]
fn factors_are_rounded_to_the_nearest_of_eleven_bits_and_ties_away_from_zero() {
    let (tie, unit) = ((-11f32).exp2(), (-10f32).exp2());
    let cases = [
        (1.0 + tie, 1.0 + unit),
        (-1.0 - tie, -1.0 - unit),
        (1.0 + unit + tie, 1.0 + 2.0 * unit),
        ((1.0 + tie).next_down(), 1.0),
        (2.0 - tie, 2.0),
        (0.0, 0.0),
        (f32::from_bits(0x0fff), 0.0),
        (f32::from_bits(0x1000), f32::from_bits(0x2000)),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
    ];
    let given: Vec<f32> = cases.iter().map(|case| case.0).chain([f32::NAN]).collect();
    let expected: Vec<f32> = cases.iter().map(|case| case.1).collect();
    let one = [1.0];
    let (zero, zeros) = ([0.0], vec![0.0; given.len()]);
    let tall = Sizes { n: given.len(), m: 1, d: 1 };
    let Some(h) = product(0, Arithmetic::Tf32, tall, [&given, &one, &zero]) else { return };
    let wide = Sizes { n: 1, m: given.len(), d: 1 };
    let w = product(0, Arithmetic::Tf32, wide, [&one, &given, &zeros]).expect("there is a device");
    for found in [h, w] {
        let (nan, numbers) = found.split_last().expect("as many as were given");
        assert!(nan.is_nan() && numbers == expected, "{found:?}");
    }
}

/// Every pre-activation is off by 2^-10 of what it adds up at most. That moves a loss by some 1e-3 of itself, and by a few of them
/// where a sample takes another latent; all is the same in any order of threads.
#[test]
fn trainings_on_tensor_cores_come_close_to_those_in_f32() {
    let Some(device) = emulated(0) else { return };
    let batch = Architecture::BatchTopK { k: 2.3, aux_k: 4, inference: BatchInference::Threshold };
    let relu = Architecture::Relu { l1: 0.03, decoder: DecoderRule::UnitNorm };
    let saes = vec![job(Architecture::TopK { k: 2, aux_k: 6 }, 24), job(batch, 24), job(relu, 17)];
    let groups = [SaeGroup { source: source(10, 1), saes }];
    let of = |device, arithmetic| train(device, arithmetic, &groups, &Count::default()).expect("there is room");
    let (tf32, f32) = (of(&device, Arithmetic::Tf32), of(&device, Arithmetic::F32));
    for (own, f32) in tf32[0].iter().zip(&f32[0]) {
        assert_ne!(bits(own).0, bits(f32).0, "the same weights");
        let trace = |outcome: &Option<SaeOutcome>| outcome.as_ref().expect("not stopped").trace.clone();
        for (own, f32) in trace(own).iter().zip(&trace(f32)) {
            assert!((own.loss / f32.loss - 1.0).abs() < 1e-2, "{own:?} {f32:?}");
        }
    }
    let shuffled = of(&emulated(77).expect("there is one"), Arithmetic::Tf32);
    assert_eq!(shuffled[0].iter().map(bits).collect::<Vec<_>>(), tf32[0].iter().map(bits).collect::<Vec<_>>());
}
