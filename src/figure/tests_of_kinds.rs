//! What each kind of figure holds, counted and measured in small samples.

use super::data::Table;
use super::samples::*;
use super::scene::{Rect, Shape};
use super::tests::{all, crowded_data, fault, scene_of, texts};
use super::*;

/// The sample of this name as a scene.
fn sample(name: &str) -> Scene {
    let (_, spec, data, context) = all().into_iter().find(|(known, ..)| *known == name).expect("a sample");
    scene_of(&spec, &data, &context)
}

fn discs(scene: &Scene) -> Vec<colour::Rgb> {
    let fill = |shape: &Shape| match shape {
        Shape::Disc { fill, .. } => Some(*fill),
        _ => None,
    };
    scene.items.iter().filter_map(|item| fill(&item.shape)).collect()
}

#[test]
fn overlaps_have_their_colours_in_their_places_and_bars_their_lengths() {
    let weights = {
        let (.., kept) = crowded(false);
        // The lowest loss is that of the sparsest panel, the seventh.
        weights::ToyWeights::of("matrix", &kept.0[6].1).expect("kept weights")
    };
    let gram = weights.gram();
    let most = gram.values.iter().chain(&weights.b).map(|value| value.abs()).fold(1.0, f64::max);
    let bitmap = raster::draw(&sample("overlaps_one"));
    let blocks = sample("overlaps_one");
    let frames: Vec<Rect> = blocks
        .items
        .iter()
        .filter_map(|item| match &item.shape {
            Shape::Gradient { rect, .. } => Some(*rect),
            _ => None,
        })
        .collect();
    // The colour bar stands beside the map and is as tall.
    let (top, bottom) = (frames[0].top, frames[0].bottom);
    let cell = (bottom - top) / 20.0;
    let pixel = |x: f64, y: f64| {
        let at = |points: f64| (points * theme::PIXELS_PER_POINT) as usize;
        let start = 3 * (at(y) * bitmap.width + at(x));
        colour::Rgb(bitmap.pixels[start], bitmap.pixels[start + 1], bitmap.pixels[start + 2])
    };
    let left = blocks
        .items
        .iter()
        .filter_map(|item| match &item.shape {
            Shape::Block { rect, .. } if rect.top >= top - 0.1 && rect.bottom <= bottom + 0.1 => Some(rect.left),
            _ => None,
        })
        .fold(f64::INFINITY, f64::min);
    for (i, j) in [(0, 0), (2, 2), (0, 5), (5, 0), (9, 9), (15, 3)] {
        let expected = colour::Ramp::Diverging.at((gram.at(i, j) / most + 1.0) / 2.0);
        let found = pixel(left + (j as f64 + 0.5) * cell, top + (i as f64 + 0.5) * cell);
        assert_eq!(found, expected, "W_{i} . W_{j}");
    }
    let bars: Vec<f64> = blocks
        .items
        .iter()
        .filter_map(|item| match &item.shape {
            Shape::Block { rect, .. } if rect.top > bottom => Some(rect.width()),
            _ => None,
        })
        .collect();
    assert_eq!(bars.len(), 20);
    let norm = |i: usize| gram.at(i, i).sqrt();
    for i in 0..20 {
        assert!((bars[i] / bars[0] - norm(i) / norm(0)).abs() < 1e-9, "bar {i}");
    }
}

#[test]
fn a_scatter_has_a_dot_for_each_feature_and_words_for_each_line() {
    let scene = sample("polytopes");
    assert_eq!(discs(&scene).len(), 7 * 20);
    let dotted = scene.items.iter().filter(|item| matches!(item.shape, Shape::Lines { dash: Some(_), .. })).count();
    assert_eq!(dotted, 6);
    let texts = texts(&scene);
    assert!(["3/4", "2/3", "1/2", "2/5", "3/8", "0"].iter().all(|words| texts.contains(&(*words).to_owned())));
    // One size of training set after another: 40 features each, and their samples; the legend has one of each.
    let both = discs(&sample("both_dimensionalities"));
    let count = |kind: usize| both.iter().filter(|fill| **fill == colour::KINDS[kind]).count();
    assert_eq!((count(0), count(1)), (3 * 40 + 1, 5 + 8 + 50 + 1));
}

#[test]
fn a_graph_has_a_node_for_each_represented_feature_and_an_edge_for_each_pair() {
    let scene = sample("graph");
    // 5, 6, .. 10, 10 features, the legend has two samples.
    assert_eq!(discs(&scene).len(), 5 + 6 + 7 + 8 + 9 + 10 + 10 + 2);
    let edges = scene.items.iter().filter(|item| match &item.shape {
        // Frames and ticks are drawn in ink.
        Shape::Lines { colour, .. } => *colour != theme::INK,
        _ => false,
    });
    assert_eq!(edges.count(), 1 + 2 + 3 + 4 + 5 + 5);
}

#[test]
fn neurons_carry_a_mark_each_and_an_untied_one_reaches_its_scale() {
    // Five neurons in seven panels, one entry in the legend.
    assert_eq!(discs(&sample("neurons")).len(), 7 * 5 + 1);
    let untied = sample("neurons_untied");
    assert!(texts(&untied).iter().any(|text| text.contains("largest")));
    // The second, antipodal feature has half the output weight or all of it, so every neuron holds two.
    let marks = discs(&untied);
    assert_eq!(marks.iter().filter(|fill| **fill == colour::KINDS[1]).count(), 5 + 1);
}

#[test]
fn a_trace_has_a_line_for_each_feature_of_the_best_run_over_its_loss() {
    let scene = sample("trace");
    let lines = |width: f64| {
        let of = |shape: &Shape| matches!(shape, Shape::Lines { lines, width: own, .. } if *own == width && lines[0].len() > 50);
        scene.items.iter().filter(|item| of(&item.shape)).count()
    };
    assert_eq!(lines(0.5), 2 * 30, "two panels of thirty features");
    assert_eq!(lines(theme::LINE), 2, "the loss of the toy model alone, of one run a panel");
    let grouped = sample("trace_group");
    let runs = grouped.items.iter().filter(|item| match &item.shape {
        Shape::Lines { lines, .. } => lines[0].len() > 50,
        _ => false,
    });
    assert_eq!(runs.count(), 4, "two densities of two seeds");
}

#[test]
fn theory_stands_beside_what_was_trained_with_one_legend() {
    let scene = sample("beside");
    let cells = scene.items.iter().filter(|item| matches!(item.shape, Shape::Block { rect, .. } if rect.width() > 7.1));
    assert_eq!(cells.count(), 2 * 81);
    let texts = texts(&scene);
    assert!(texts.contains(&"trained".to_owned()) && texts.contains(&"theory".to_owned()));
    assert_eq!(texts.iter().filter(|text| *text == "superposed").count(), 1);
}

#[test]
fn every_level_of_a_contour_has_dashes_and_words_of_its_own() {
    let texts = texts(&sample("contours"));
    for level in ["0.5", "0.6", "0.8"] {
        assert!(texts.iter().any(|text| text.ends_with(&format!("= {level}"))), "{level} in {texts:?}");
    }
}

#[test]
fn an_overlay_draws_every_row_and_samples_stand_below_their_features() {
    // Five densities by two seeds by five features.
    assert_eq!(discs(&sample("overlay")).len(), 5 * 2 * 5);
    let scene = sample("memorised");
    assert_eq!(discs(&scene).len(), 3 * 40 + 5 + 8 + 50);
    // Features and samples are turned by the same angle: five samples 72 degrees apart stay so, whatever the turn.
    assert!(texts(&scene).iter().any(|text| text.starts_with("samples")));
}

#[test]
fn what_a_figure_needs_and_the_run_lacks_is_named_with_what_keeps_it() {
    let weightless = || with_features((crowded(false).0, crowded(false).1));
    for kind in ["matrix", "graph", "neurons"] {
        let message = fault(&written(&format!("{kind}: {{}}")), &weightless());
        assert!(message.contains("save: {weights: best}"), "{kind}: {message}");
    }
    let message = fault(&written("scatter: {x: seed, y: samples.data_dimensionality}"), &weightless());
    assert!(message.contains("`samples`"), "{message}");
    assert!(fault(&written("trace: {y: loss}"), &weightless()).contains("save: {trace: {every: 100}}"));
    let message = fault(&written("scatter: {x: seed, y: features.dimensionalty}"), &weightless());
    assert!(message.contains("no column `dimensionalty`"), "{message}");
    let message = fault(&written("curve: {x: seed, y: loss, theory: [welch]}"), &of_rows(quickstart()));
    assert!(message.contains("no curve `welch`"), "{message}");
    let message = fault(&written("scatter: {x: seed, y: [loss, d_star], colour: seed}"), &weightless());
    assert!(message.contains("more than one y"), "{message}");
    let message = fault(&written("matrix: {show: decoder}"), &crowded_data(false));
    assert_eq!(message, "no fault");
    let message = fault(&written("phase_diagram: {x: seed, y: seed, colour: loss, beside: status}"), &weightless());
    assert!(message.contains("one scale"), "{message}");
}

#[test]
fn a_band_over_seeds_does_not_span_what_else_differs() {
    let mut rows = Rows::default();
    for (d, base) in [(5.0, 0.2), (20.0, 0.8)] {
        for seed in 0..2 {
            for p in [0.1, 0.2, 0.4] {
                let numbers = [("p", p), ("d", d), ("seed", f64::from(seed)), ("mcc", base + 0.02 * f64::from(seed))];
                rows.push(&numbers, &[]);
            }
        }
    }
    let scene = scene_of(&written("curve: {x: p, y: mcc, band: seeds}"), &of_rows(rows.table()), &context(&["p", "d"]));
    let band = scene.items.iter().find_map(|item| match &item.shape {
        Shape::Area { points, opacity, .. } if *opacity < 1.0 => {
            Some(item.shape.bounds().height() / points.len() as f64)
        }
        _ => None,
    });
    // Means of 0.50 and 0.52 on an axis from 0 to 1 that is some 150 points tall: 3 points over 6 corners.
    assert!(band.expect("a band") < 1.0);
}

/// Two methods whose seeds differ together, one apart from the others, over four seeds.
fn three_methods() -> Table {
    let mut rows = Rows::default();
    for p in [0.1, 0.2] {
        for seed in 0..4 {
            let base = 0.5 + 0.1 * f64::from(seed);
            let jitter = if seed % 2 == 0 { 0.01 } else { -0.01 };
            for (method, mcc) in [("topk", base), ("relu", base + jitter), ("random", base - 0.3)] {
                rows.push(&[("p", p), ("seed", f64::from(seed)), ("mcc", mcc)], &[("method", method)]);
            }
        }
    }
    rows.table()
}

#[test]
fn captions_of_bootstrap_intervals_name_the_pairs_that_cannot_be_told_apart() {
    let caption = |yaml: &str, context: &Context| {
        let (_, caption) = compose(&written(yaml), &of_rows(three_methods()), &HouseLabels, context).expect("a figure");
        caption.description()
    };
    let bars = caption("bars: {y: mcc, group: method, band: bootstrap}", &context(&["p"]));
    assert!(bars.contains("contains 0): topk and relu."), "{bars}");
    assert!(bars.contains("whiskers of the 95 % bootstrap interval (BCa)"), "{bars}");
    let bars = caption("bars: {x: p, y: mcc, group: method, band: bootstrap}", &context(&["p"]));
    assert!(bars.contains("topk and relu at p = 0.1, p = 0.2."), "{bars}");
    let curve = caption("curve: {x: p, y: mcc, group: method, band: bootstrap}", &context(&["p"]));
    assert!(curve.contains("topk and relu at p = 0.1, p = 0.2."), "{curve}");
    let facets = caption("curve: {x: p, y: mcc, group: method, facet: p, band: bootstrap}", &context(&["p"]));
    assert!(facets.contains("topk and relu at 0.1, p = 0.1, 0.2, p = 0.2."), "{facets}");
    // Seeds brought together before drawing leave nothing to compare.
    let reduced = Context { reduction: "mean".into(), ..context(&["p"]) };
    let bars = caption("bars: {y: mcc, group: method, band: bootstrap}", &reduced);
    assert!(!bars.contains("distinguishable"), "{bars}");
    assert!(!caption("bars: {y: mcc, group: method}", &context(&["p"])).contains("distinguishable"));
}
