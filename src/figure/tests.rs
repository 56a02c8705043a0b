//! Whole figures: composed from tables that resemble runs, checked as scenes and as files.

use super::data::{Column, Levels, Table};
use super::samples::*;
use super::scene::{Rect, Shape};
use super::spec::WidthSection;
use super::*;

/// The sample of many features in few dimensions with its weights.
pub fn crowded_data(untied: bool) -> Data<'static> {
    let (rows, features, kept) = crowded(untied);
    // Weights are borrowed by what a figure reads; a test may keep them for good.
    let kept: &'static Kept = Box::leak(Box::new(kept));
    Data { weights: Some(kept), ..with_features((rows, features)) }
}

/// Every sample figure with its name.
pub fn all() -> Vec<(&'static str, FigureSpec, Data<'static>, Context)> {
    let swept = ["data.firing_probability", "toy.d_hidden"];
    let p = ["data.firing_probability"];
    let single_panel = |colour: &str| (single(colour), of_rows(quickstart()), context(&swept));
    let named = |name, (spec, data, context)| (name, spec, data, context);
    let levels = "phase_diagram: {x: data.firing_probability, y: toy.d_hidden, colour: mcc, facet: method, contours: ['mcc = 0.5, 0.6, 0.8']}";
    let beside = "phase_diagram: {x: toy.importance.last, y: data.firing_probability, colour: phase_last, \
                  beside: theory_phase_last, contours: [theory_boundary]}";
    let lines = "curve: {x: data.firing_probability, y: loss, group: toy.d_hidden, theory: [theory_boundary], \
                 lines: [{at: 1e-4, label: target}, 2e-3], x_lines: [{at: 0.1, label: kink}], y_label: 'loss L^{2}'}";
    let polytopes = "scatter: {x: data.firing_probability, y: features.dimensionality, lines: [{at: 0.75, label: 3/4}, \
                     {at: 0.6667, label: 2/3}, {at: 0.5, label: 1/2}, {at: 0.4, label: 2/5}, {at: 0.375, label: 3/8}, {at: 0, label: '0'}]}";
    let both = "scatter: {x: data.samples, y: [features.dimensionality, samples.data_dimensionality]}";
    vec![
        ("recovery", facets(), of_rows(quickstart()), context(&swept)),
        ("contours", written(levels), of_rows(quickstart()), context(&swept)),
        named("mcc", single_panel("mcc")),
        named("loss", single_panel("loss")),
        named("represented", single_panel("n_represented")),
        named("leakage", single_panel("leakage")),
        ("trained", phase_spec("theory_boundary"), of_rows(phases()), phase_context()),
        ("theory", phase_spec("theory_phase_last"), of_rows(phases()), phase_context()),
        ("beside", written(beside), of_rows(phases()), phase_context()),
        ("pentagon", vectors("importance"), with_features(pentagon()), context(&swept)),
        ("pentagon_features", vectors("feature"), with_features(pentagon()), context(&swept)),
        (
            "overlay",
            written("vectors: {overlay: true, colour: data.firing_probability}"),
            with_features(pentagon()),
            context(&swept),
        ),
        (
            "memorised",
            written("vectors: {panels: data.samples, samples: true}"),
            memorised(),
            context(&["data.samples"]),
        ),
        ("fvu", curve("l0", "fvu", "method", "seeds"), of_rows(zoo()), context(&["sae.k"])),
        ("fvu_sd", curve("sae.k", "fvu, mcc", "method", "sd"), of_rows(zoo()), context(&["sae.k"])),
        (
            "loss_by_width",
            curve("data.firing_probability", "loss", "toy.d_hidden", "seeds"),
            of_rows(quickstart()),
            context(&swept),
        ),
        ("lines", written(lines), of_rows(quickstart()), Context { lines: phase_context().lines, ..context(&swept) }),
        ("scores", bars("f1, mcc, uniqueness, absorption_any", "none"), of_rows(zoo()), context(&["sae.k"])),
        ("by_k", bars("mcc, absorption_gap", "sae.k"), of_rows(zoo()), context(&["sae.k"])),
        ("one_score", bars("mcc", "none"), of_rows(zoo()), context(&["sae.k"])),
        ("dense", dense_spec(), of_rows(dense()), context(&["x", "y"])),
        ("by_width", by_width(), of_rows(quickstart()), context(&swept)),
        ("best", best_spec(), of_rows(best()), context(&["data.firing_probability", "sae.topk.k"])),
        ("polytopes", written(polytopes), crowded_data(false), context(&p)),
        ("both_dimensionalities", written(both), memorised(), context(&["data.samples"])),
        (
            "scatter_kinds",
            written("scatter: {x: l0, y: fvu, colour: method, y_scale: log}"),
            of_rows(zoo()),
            context(&["sae.k"]),
        ),
        (
            "scatter_ramp",
            written("scatter: {x: l0, y: fvu, colour: sae.k, panels: method}"),
            of_rows(zoo()),
            context(&["sae.k"]),
        ),
        (
            "overlaps",
            written("matrix: {facet: data.firing_probability, bars: true, width: two}"),
            crowded_data(false),
            context(&p),
        ),
        ("overlaps_few", written("matrix: {facet: data.firing_probability}"), crowded_data(false), context(&p)),
        ("overlaps_one", written("matrix: {bars: true}"), crowded_data(false), context(&p)),
        ("weights", written("matrix: {show: w, facet: toy.model}"), crowded_data(false), context(&p)),
        ("decoder", written("matrix: {show: decoder}"), crowded_data(false), context(&p)),
        ("encoder", written("matrix: {show: encoder}"), crowded_data(false), context(&p)),
        ("graph", written("graph: {panels: data.firing_probability}"), crowded_data(false), context(&p)),
        ("graph_one", written("graph: {colour: dimensionality}"), crowded_data(false), context(&p)),
        ("neurons", written("neurons: {panels: data.firing_probability}"), crowded_data(false), context(&p)),
        ("neurons_untied", written("neurons: {colour: feature}"), crowded_data(true), context(&p)),
        (
            "trace",
            written(
                "trace: {y: [snapshots.dimensionality, loss], panels: data.firing_probability, lines: [{at: 0.5, label: 1/2}]}",
            ),
            learning(30),
            context(&p),
        ),
        ("trace_one", written("trace: {y: [snapshots.dimensionality, loss]}"), learning(5), context(&p)),
        ("trace_group", written("trace: {y: loss, group: data.firing_probability}"), learning(1), context(&p)),
    ]
}

pub fn scene_of(spec: &FigureSpec, data: &Data, context: &Context) -> Scene {
    compose(spec, data, &HouseLabels, context).expect("the sample can be drawn").0
}

pub fn texts(scene: &Scene) -> Vec<String> {
    let text = |shape: &Shape| match shape {
        Shape::Text { text, .. } => Some(text.read()),
        _ => None,
    };
    scene.items.iter().filter_map(|item| text(&item.shape)).collect()
}

pub fn fault(spec: &FigureSpec, data: &Data) -> String {
    match compose(spec, data, &HouseLabels, &context(&[])) {
        Ok(_) => "no fault".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn no_figure_clips_a_shape_or_lets_texts_overlap() {
    for (name, spec, data, context) in all() {
        for width in [WidthSection::One, WidthSection::Two] {
            let mut spec = spec.clone();
            spec.set_width(width);
            let scene = scene_of(&spec, &data, &context);
            assert_eq!(scene.faults(), Vec::<String>::new(), "{name}, {width:?}");
        }
    }
}

#[test]
fn every_figure_is_as_wide_as_a_column_and_its_svg_is_well_formed() {
    for (name, spec, data, context) in all() {
        let scene = scene_of(&spec, &data, &context);
        let (width, _) = raster::pixel_size(&scene);
        assert!(width == 1004 || width == 2102, "{name}: {width}");
        let document = svg::write(&scene);
        let elements = svg::tests::elements(&document);
        assert_eq!(&elements[..3], ["svg", "title", "desc"], "{name}");
        assert!(document.contains(&format!("sample: {}", spec.file_name())), "{name}");
    }
}

#[test]
fn equal_rows_give_equal_bytes_in_both_formats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |sub: &str| -> Vec<Vec<u8>> {
        let folder = folder.path().join(sub);
        let (scene, caption) =
            compose(&facets(), &of_rows(quickstart()), &HouseLabels, &context(&[])).expect("the sample can be drawn");
        let files = output::write(&scene, &caption, &context(&[]), "recovery", &folder, &[Format::Png, Format::Svg]);
        let files = files.expect("the folder can be written");
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
        assert_eq!(names, ["recovery.png", "recovery.svg", "recovery.txt"]);
        assert_eq!(std::fs::read_dir(&folder).expect("it exists").count(), 3, "temporary files are gone");
        files.iter().map(|file| std::fs::read(file).expect("it was written")).collect()
    };
    assert_eq!(write("first"), write("second"));
}

#[test]
fn a_phase_diagram_has_one_block_for_each_cell_and_together_they_fill_the_panel() {
    let scene = scene_of(&phase_spec(""), &of_rows(phases()), &phase_context());
    // The legend's samples are squares of 7 points; cells are wider.
    let cells: Vec<Rect> = scene
        .items
        .iter()
        .filter_map(|item| match item.shape {
            Shape::Block { rect, .. } if rect.width() > 7.1 => Some(rect),
            _ => None,
        })
        .collect();
    assert_eq!(cells.len(), 81);
    let area: f64 = cells.iter().map(|cell| cell.width() * cell.height()).sum();
    let whole = cells.iter().copied().reduce(|all, cell| all.union(&cell)).expect("81 cells");
    assert!((area / (whole.width() * whole.height()) - 1.0).abs() < 1e-9);
}

#[test]
fn cells_take_the_mean_over_seeds_and_diverged_runs_do_not_count() {
    let mut rows = Rows::default();
    for (x, value, status) in
        [(1.0, 0.2, "ok"), (1.0, 0.4, "ok"), (2.0, 0.9, "ok"), (2.0, 0.1, "diverged"), (3.0, f64::NAN, "diverged")]
    {
        rows.push(&[("x", x), ("y", 1.0), ("mcc", value)], &[("status", status)]);
    }
    let spec = written("phase_diagram: {x: x, y: y, colour: mcc}");
    let table = rows.table();
    let (scene, caption) =
        compose(&spec, &of_rows(table.clone()), &HouseLabels, &context(&[])).expect("it can be drawn");
    let fills: Vec<colour::Rgb> = scene
        .items
        .iter()
        .filter_map(|item| match item.shape {
            Shape::Block { rect, fill } if rect.width() > 7.1 => Some(fill),
            _ => None,
        })
        .collect();
    let viridis = |share| colour::Ramp::Viridis.at(share);
    assert_eq!(fills, [viridis(0.3), viridis(0.9), theme::MISSING]);
    assert!(texts(&scene).contains(&"diverged".to_owned()));
    assert!(!texts(&scene).contains(&"no value".to_owned()));
    assert!(caption.description().contains("2 cells in which 2 of 3 runs diverged"), "{}", caption.description());
}

#[test]
fn missing_and_diverged_cells_are_in_the_legend_only_where_there_are_any() {
    let with = texts(&scene_of(&facets(), &of_rows(quickstart()), &context(&[])));
    assert!(with.contains(&"no value".to_owned()) && with.contains(&"diverged".to_owned()));
    let without = texts(&scene_of(&phase_spec(""), &of_rows(phases()), &context(&[])));
    assert!(!without.contains(&"no value".to_owned()) && !without.contains(&"diverged".to_owned()));
}

#[test]
fn phases_keep_their_colours_and_their_legend_whatever_the_rows_hold() {
    let mut table = phases();
    for (name, column) in &mut table.columns {
        if let (true, Column::Text(words)) = (name == "phase_last", column) {
            words.iter_mut().for_each(|word| *word = Some("dedicated".to_owned()));
        }
    }
    let scene = scene_of(&phase_spec(""), &of_rows(table.clone()), &phase_context());
    for name in ["dropped", "superposed", "dedicated"] {
        assert!(texts(&scene).contains(&name.to_owned()));
    }
    let blue = colour::phase("dedicated").expect("a phase");
    let cells = scene.items.iter().filter(|item| matches!(item.shape, Shape::Block { fill, .. } if fill == blue));
    assert_eq!(cells.count(), 81 + 1);
}

#[test]
fn panel_titles_are_values() {
    let scene = scene_of(&facets(), &of_rows(quickstart()), &context(&[]));
    for method in ["relu", "topk", "random", "pca"] {
        assert!(texts(&scene).contains(&method.to_owned()));
    }
    let (rows, features) = pentagon();
    let scene = scene_of(&vectors("importance"), &with_features((rows, features)), &context(&[]));
    let titles: Vec<String> = texts(&scene).into_iter().filter(|text| text.starts_with("p = ")).collect();
    assert_eq!(titles, ["p = 1", "p = 0.2", "p = 0.1", "p = 0.05", "p = 0.01"]);
}

#[test]
fn an_axis_label_says_name_and_symbol() {
    let texts = texts(&scene_of(&single("mcc"), &of_rows(quickstart()), &context(&[])));
    assert!(texts.contains(&"firing probability p".to_owned()) && texts.contains(&"hidden width d".to_owned()));
}

#[test]
fn measured_x_values_of_one_setting_become_one_point() {
    let spec = curve("l0", "fvu", "method", "none");
    let scene = scene_of(&spec, &of_rows(zoo()), &context(&["sae.k"]));
    let lines: Vec<usize> = scene
        .items
        .iter()
        .filter_map(|item| match &item.shape {
            Shape::Lines { lines, width, .. } if *width == theme::LINE => Some(lines[0].len()),
            _ => None,
        })
        .filter(|points| *points > 2)
        .collect();
    // Six methods of six settings each, three seeds a point.
    assert_eq!(lines, [6; 6]);
}

#[test]
fn small_and_extreme_tables_are_drawn_whole() {
    let tables: [&[(f64, f64, f64)]; 8] = [
        &[(1.0, 1.0, 0.5)],
        &[(0.0, 0.0, 0.0)],
        &[(-3.0, 5.0, 1.0), (2.0, 5.0, 1.0)],
        &[(1.0, 1e-300, 1e300), (2.0, 1e300, -1e300)],
        &[(1e-12, 1.0, 1e-12), (1e-6, 1.0, 1e-3), (1.0, 1.0, 1e9)],
        &[(0.1, 1.0, 0.3), (0.1 + 1e-15, 1.0, 0.3 + 1e-16)],
        &[(1e15, 1.0, 123_456_789.0), (1e15 + 2.0, 2.0, 123_456_790.0)],
        &[(1.0, 1.0, f64::NAN), (2.0, 1.0, 0.7)],
    ];
    for (number, table) in tables.into_iter().enumerate() {
        for status in ["ok", "diverged"] {
            let mut rows = Rows::default();
            for (i, (x, y, value)) in table.iter().enumerate() {
                let status = if i == 0 { status } else { "ok" };
                let words = [("status", status), ("name", ["a rather long name of a method", "b"][i % 2])];
                rows.push(&[("x", *x), ("y", *y), ("value", *value)], &words);
            }
            let table = rows.table();
            let specs = [
                written("phase_diagram: {x: x, y: y, colour: value, facet: name, contours: [value]}"),
                curve("x", "value", "name", "sd"),
                bars_of("value"),
            ];
            for spec in specs {
                // What has no value at all is refused; everything else is drawn, and drawn whole.
                match compose(&spec, &of_rows(table.clone()), &HouseLabels, &context(&[])) {
                    Ok((scene, _)) => {
                        assert_eq!(scene.faults(), Vec::<String>::new(), "table {number}, {status}, {spec:?}");
                        let bitmap = raster::draw(&scene);
                        assert_eq!(bitmap.pixels.len(), 3 * bitmap.width * bitmap.height);
                    }
                    Err(error) => assert!(matches!(error, FigureError::NothingToDraw { .. }), "{error}"),
                }
            }
        }
    }
}

fn bars_of(column: &str) -> FigureSpec {
    written(&format!("bars: {{y: {column}, group: name}}"))
}

#[test]
fn without_groups_methods_are_points_of_their_own_and_a_trace_keeps_its_steps() {
    let longest = |spec: &FigureSpec, table: &Table| {
        let scene = scene_of(spec, &of_rows(table.clone()), &context(&["sae.k"]));
        let lengths = scene.items.iter().filter_map(|item| match &item.shape {
            Shape::Lines { lines, width, .. } if *width == theme::LINE => lines.iter().map(Vec::len).max(),
            _ => None,
        });
        lengths.max()
    };
    let bare = |x: &str, y: &str| written(&format!("curve: {{x: {x}, y: {y}}}"));
    // Six methods of six settings, seeds together.
    assert_eq!(longest(&bare("l0", "fvu"), &zoo()), Some(36));
    let mut rows = Rows::default();
    for step in 0..10 {
        for seed in 0..3 {
            rows.push(&[("step", f64::from(step)), ("seed", f64::from(seed)), ("sae.k", 2.0), ("loss", 1.0)], &[]);
        }
    }
    assert_eq!(longest(&bare("step", "loss"), &rows.table()), Some(10));
}

#[test]
fn wrong_columns_and_empty_tables_are_refused_with_advice() {
    let table = of_rows(quickstart());
    assert!(fault(&single("mc"), &table).contains("did you mean `mcc`"));
    let words = curve("data.firing_probability", "method", "toy.d_hidden", "none");
    assert!(fault(&words, &table).contains("column `method` holds words"));
    assert!(fault(&single("mcc"), &of_rows(Rows::default().table())).contains("there are no rows"));
    assert!(fault(&vectors("importance"), &of_rows(pentagon().0)).contains("save: {features: true}"));
    let mut contoured = single("mcc");
    if let FigureSpec::PhaseDiagram(spec) = &mut contoured {
        spec.contours = vec!["mcc = high".into()];
    }
    assert!(fault(&contoured, &table).contains("`high` is not a level"));
    let mut reversed = single("mcc");
    if let FigureSpec::PhaseDiagram(spec) = &mut reversed {
        spec.range = Some([1.0, 0.0]);
    }
    assert!(fault(&reversed, &table).contains("[1, 0] is not a range"));
}

#[test]
fn more_kinds_than_colours_are_refused() {
    let names: Vec<String> = (0..40).map(|i| format!("kind {i}")).collect();
    let mut rows = Rows::default();
    for (i, name) in names.iter().enumerate() {
        rows.push(&[("x", i as f64), ("y", 0.0)], &[("kind", name)]);
    }
    let table = of_rows(rows.table());
    let spec = written("phase_diagram: {x: x, y: y, colour: kind}");
    assert!(fault(&spec, &table).contains("40 different values"));
    assert!(fault(&curve("x", "y", "kind", "none"), &table).contains("40 different values"));
}

#[test]
fn vectors_refuse_models_of_another_width() {
    let (rows, mut features) = pentagon();
    features.columns.push(("w_2".into(), Column::Number(vec![Some(0.1); features.height])));
    let error = compose(&vectors("importance"), &with_features((rows, features)), &HouseLabels, &context(&[]));
    assert!(matches!(error, Err(FigureError::NotTwoDimensional { .. })));
    let (rows, mut features) = pentagon();
    features.columns.retain(|(name, _)| name != "w_1");
    let error = compose(&vectors("importance"), &with_features((rows, features)), &HouseLabels, &context(&[]));
    assert!(matches!(error, Err(FigureError::NotTwoDimensional { .. })));
}

#[test]
fn of_several_runs_of_a_panel_the_one_of_lowest_loss_is_drawn() {
    let (rows, features) = pentagon();
    let (_, caption) = compose(&vectors("importance"), &with_features((rows, features)), &HouseLabels, &context(&[]))
        .expect("it can be drawn");
    assert!(caption.description().contains("Of up to 2 rows a panel, the one of lowest loss is shown"));
}

#[test]
fn a_mean_over_methods_is_owned_up_to_in_the_caption() {
    let caption = |spec: &FigureSpec| {
        let swept = ["data.firing_probability", "toy.d_hidden"];
        let drawn = compose(spec, &of_rows(quickstart()), &HouseLabels, &context(&swept));
        drawn.expect("the sample can be drawn").1.description()
    };
    assert!(caption(&single("mcc")).contains("the mean over seeds and method"));
    assert!(caption(&facets()).contains("shown is the mean over seeds."));
}

#[test]
fn a_kind_on_an_axis_gets_equal_cells_in_the_order_of_the_rows() {
    let spec = written("phase_diagram: {x: method, y: toy.d_hidden, colour: mcc}");
    let table = quickstart();
    let keyed = table.keyed("x", "method", data::Order::Rising).expect("a column");
    assert_eq!(keyed.levels, Levels::Names(["relu", "topk", "random", "pca"].map(str::to_owned).to_vec()));
    let scene = scene_of(&spec, &of_rows(table.clone()), &context(&[]));
    let widths: Vec<f64> = scene
        .items
        .iter()
        .filter_map(|item| match item.shape {
            Shape::Block { rect, .. } if rect.width() > 7.1 => Some(rect.width()),
            _ => None,
        })
        .collect();
    assert!(widths.iter().all(|width| (width - widths[0]).abs() < 1e-9));
}

#[test]
#[ignore = "writes every sample figure into the folder for temporary files, to be looked at"]
fn samples_are_written_for_a_look() {
    let folder = std::env::temp_dir().join("tegum-figures");
    for (name, spec, data, context) in all() {
        let (scene, caption) = compose(&spec, &data, &HouseLabels, &context).expect("the sample can be drawn");
        let files = output::write(&scene, &caption, &context, name, &folder, &[Format::Png, Format::Svg]);
        files.expect("the folder can be written");
    }
}
