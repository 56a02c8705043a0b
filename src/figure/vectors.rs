//! Columns of two-dimensional toy models: each feature a line from the origin to a dot, one square panel for each value
//! of a column, as in Toy Models of Superposition (Elhage et al. 2022).
//!
//! A toy model is free to rotate and mirror its hidden space. So that panels can be compared, each is turned until its
//! first represented feature points to the right, and mirrored if need be so that the next lies counter-clockwise of it.

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::data::{Column, Levels, Order, Table};
use super::error::FigureError;
use super::layout::{Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, Labels};
use super::panels::{Facets, checked_range, width_for};
use super::scene::{Scene, Shape};
use super::spec::Vectors;
use super::text::Rich;
use super::theme::{self, Width};
use super::ticks::in_words;

/// Axes run from minus this to this; a longer column widens them.
const REACH: f64 = 1.5;
/// A feature whose column is at least this long is represented (as `n_represented` counts it).
const REPRESENTED: f64 = 0.5;
/// Two directions closer than this to one line, as the sine of their angle, say nothing about orientation.
const PARALLEL: f64 = 0.05;
/// Radius of the dot at the end of a column.
const DOT: f64 = 1.9;
/// Radius of the dot of a feature that is not represented.
const SMALL_DOT: f64 = 1.2;
/// Width of the dark rim of lines and dots.
const RIM: f64 = 0.25;
/// Width of a column's line.
const LINE: f64 = 1.1;
/// Most features that get a colour of their own by name.
const NAMED: usize = KINDS.len() - 1;

/// One column of a toy model.
#[derive(Clone, Debug, PartialEq)]
struct Feature {
    number: usize,
    tip: [f64; 2],
    value: Option<f64>,
}

/// Draws the panels. `features` is the table with one row for each cell and feature.
pub fn draw(
    spec: &Vectors,
    table: &Table,
    features: Option<&Table>,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let features = features.ok_or(FigureError::NoFeatures)?;
    let facets = Facets::of(table, "panels", spec.panels.as_deref(), labels)?;
    let chosen = chosen_rows(table, &facets)?;
    let colour = spec.colour.as_deref().unwrap_or("importance");
    let mut panels = Vec::new();
    for row in &chosen {
        panels.push(aligned(read_features(features, table, *row, colour)?));
    }
    if panels.iter().all(Vec::is_empty) {
        let why = "the table of features has no rows for these cells".to_owned();
        return Err(FigureError::NothingToDraw { at: "vectors".to_owned(), why });
    }
    let paint = Paint::of(spec, colour, &panels, labels)?;
    let reach = reach(&panels);
    let n_panels = panels.len();
    let width = width_for(spec.width, n_panels, 2);
    let axis = Axis { spacing: Spacing::Linear, low: -reach, high: reach, marks: Marks::Round { whole: false } };
    let parts = Parts {
        width,
        most_columns: if width == Width::OneColumn { 3 } else { 5 },
        titles: facets.titles.clone(),
        aspect: 1.0,
        x: axis.clone(),
        x_label: Rich::label("hidden dimension 1"),
        y: vec![axis],
        y_label: Rich::label("hidden dimension 2"),
        bar: paint.bar().cloned(),
        legend: paint.legend(),
    };
    let mut layout = parts.lay_out();
    for (panel, features) in layout.panels.iter().zip(&panels) {
        draw_panel(&mut layout.scene, panel, features, &paint);
    }
    let caption = caption(spec, colour, &paint, table, &facets, labels, context);
    Ok((layout.finish(), caption))
}

/// For each panel the row that is shown: of lowest loss where there is a loss, else the first.
fn chosen_rows(table: &Table, facets: &Facets) -> Result<Vec<usize>, FigureError> {
    let diverged = table.diverged();
    let loss = match table.find("loss") {
        Some(Column::Number(loss)) => Some(loss),
        _ => None,
    };
    let key = |row: usize| loss.and_then(|loss| loss[row]).unwrap_or(f64::INFINITY);
    (0..facets.titles.len())
        .map(|panel| {
            let rows = (0..table.height).filter(|row| facets.of_row[*row] == Some(panel) && !diverged[*row]);
            // `min_by` keeps the first of equals.
            rows.min_by(|a, b| key(*a).total_cmp(&key(*b))).ok_or_else(|| FigureError::NothingToDraw {
                at: "panels".to_owned(),
                why: format!("every run of the panel `{}` diverged", facets.titles[panel].read()),
            })
        })
        .collect()
}

/// The features of one cell, in order.
fn read_features(features: &Table, table: &Table, row: usize, colour: &str) -> Result<Vec<Feature>, FigureError> {
    let cell = match table.column("vectors", "cell")? {
        Column::Text(cells) => cells[row].clone().unwrap_or_default(),
        Column::Number(_) => String::new(),
    };
    let keyed = features.keyed("vectors", "cell", Order::Rows)?;
    let wanted = match &keyed.levels {
        Levels::Names(names) => names.iter().position(|name| *name == cell),
        Levels::Numbers(_) => None,
    };
    let numbers = features.numbers("vectors", "feature")?;
    let tips = match (features.find("w_0"), features.find("w_1")) {
        (Some(Column::Number(w0)), Some(Column::Number(w1))) => (w0, w1),
        _ => return Err(FigureError::NotTwoDimensional { why: "the table of features has no w_0 and w_1".to_owned() }),
    };
    let third = match features.find("w_2") {
        Some(Column::Number(third)) => Some(third),
        _ => None,
    };
    let values = if colour == "feature" { numbers } else { features.numbers("colour", colour)? };
    let mut found = Vec::new();
    for at in 0..features.height {
        if wanted.is_none() || keyed.of_row[at] != wanted {
            continue;
        }
        if third.is_some_and(|third| third[at].is_some()) {
            return Err(FigureError::NotTwoDimensional { why: "the table of features has values in w_2".to_owned() });
        }
        match (numbers[at], tips.0[at], tips.1[at]) {
            (Some(number), Some(x), Some(y)) => {
                found.push(Feature { number: number.max(0.0) as usize, tip: [x, y], value: values[at] });
            }
            _ => return Err(FigureError::NotTwoDimensional { why: "w_0 or w_1 is undefined".to_owned() }),
        }
    }
    found.sort_by_key(|feature| feature.number);
    Ok(found)
}

fn length([x, y]: [f64; 2]) -> f64 {
    (x * x + y * y).sqrt()
}

/// The features turned so that the first represented one is at angle 0, and mirrored so that the next represented one
/// that is not on the same line is counter-clockwise of it.
fn aligned(mut features: Vec<Feature>) -> Vec<Feature> {
    let represented: Vec<[f64; 2]> =
        features.iter().map(|feature| feature.tip).filter(|tip| length(*tip) >= REPRESENTED).collect();
    let Some(&first) = represented.first() else { return features };
    let (cos, sin) = (first[0] / length(first), first[1] / length(first));
    let turned = |[x, y]: [f64; 2]| [cos * x + sin * y, cos * y - sin * x];
    let side = represented[1..].iter().map(|tip| turned(*tip)).find(|tip| tip[1].abs() > PARALLEL * length(*tip));
    let mirror = if side.is_some_and(|tip| tip[1] < 0.0) { -1.0 } else { 1.0 };
    for feature in &mut features {
        let [x, y] = turned(feature.tip);
        feature.tip = [x, mirror * y];
    }
    features
}

/// Half the width of the axes: 1.5, or what the longest column needs.
fn reach(panels: &[Vec<Feature>]) -> f64 {
    let longest = panels.iter().flatten().flat_map(|feature| feature.tip).map(f64::abs).fold(0.0, f64::max);
    if longest <= REACH - 0.1 { REACH } else { longest * 1.1 }
}

/// How features are coloured.
enum Paint {
    /// By a number, with a bar.
    Ramp(Box<ColourBar>),
    /// Each feature its own colour, with a legend.
    Features(Vec<(usize, Rgb)>),
    /// All alike: their values do not differ.
    Alike,
}

impl Paint {
    fn of(spec: &Vectors, column: &str, panels: &[Vec<Feature>], labels: &dyn Labels) -> Result<Paint, FigureError> {
        checked_range(spec.range, false)?;
        let mut numbers: Vec<usize> = panels.iter().flatten().map(|feature| feature.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if column == "feature" && numbers.len() <= NAMED {
            return Ok(Paint::Features(numbers.into_iter().zip(KINDS).collect()));
        }
        let values: Vec<f64> = panels.iter().flatten().filter_map(|feature| feature.value).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        if spec.range.is_none() && !differ {
            return Ok(Paint::Alike);
        }
        let look = labels.describe(column);
        let signed = look.scale == Amount::Signed;
        let range = colour_bar::range(&values, spec.range, look.natural_range(), signed);
        Ok(Paint::Ramp(Box::new(ColourBar {
            ramp: if signed { Ramp::Diverging } else { Ramp::Viridis },
            axis: colour_bar::axis(range, Spacing::Linear, look.scale == Amount::Count),
            label: look.axis_label(),
        })))
    }

    fn bar(&self) -> Option<&ColourBar> {
        match self {
            Paint::Ramp(bar) => Some(bar),
            Paint::Features(_) | Paint::Alike => None,
        }
    }

    fn legend(&self) -> Legend {
        let mut legend = Legend::default();
        if let Paint::Features(colours) = self {
            legend.heading(&Rich::plain("feature"));
            for (number, colour) in colours {
                legend.push(Sample::Dot(*colour), Rich::plain(&number.to_string()));
            }
        }
        legend
    }

    fn colour(&self, feature: &Feature) -> Rgb {
        match self {
            Paint::Ramp(bar) => feature.value.map_or(theme::HATCH, |value| bar.colour(value)),
            Paint::Features(colours) => {
                let known = colours.iter().find(|(number, _)| *number == feature.number);
                known.map_or(theme::INK, |(_, colour)| *colour)
            }
            Paint::Alike => KINDS[0],
        }
    }
}

fn draw_panel(scene: &mut Scene, panel: &Panel, features: &[Feature], paint: &Paint) {
    let reach = panel.x.high;
    for (from, to) in [([-reach, 0.0], [reach, 0.0]), ([0.0, -reach], [0.0, reach])] {
        let (from, to) = (panel.point(from[0], from[1]), panel.point(to[0], to[1]));
        scene.line(from, to, theme::HAIRLINE, theme::FAINT);
    }
    let origin = panel.point(0.0, 0.0);
    // What is not represented lies near the origin and must not cover what is: it comes first, with smaller dots.
    let (represented, dropped): (Vec<&Feature>, Vec<&Feature>) =
        features.iter().partition(|feature| length(feature.tip) >= REPRESENTED);
    // Light colours are outlined, or the yellow end of viridis could not be seen on paper.
    let dot = |feature: &Feature, radius| Shape::Disc {
        centre: panel.point(feature.tip[0], feature.tip[1]),
        radius,
        fill: paint.colour(feature),
        rim: Some((RIM, theme::INK)),
    };
    dropped.iter().for_each(|feature| scene.add(dot(feature, SMALL_DOT)));
    for feature in &represented {
        let tip = panel.point(feature.tip[0], feature.tip[1]);
        let lines = vec![vec![origin, tip]];
        scene.add(Shape::Lines { lines: lines.clone(), width: LINE + 2.0 * RIM, colour: theme::INK, dash: None });
        scene.add(Shape::Lines { lines, width: LINE, colour: paint.colour(feature), dash: None });
    }
    represented.iter().for_each(|feature| scene.add(dot(feature, DOT)));
}

fn caption(
    spec: &Vectors,
    colour: &str,
    paint: &Paint,
    table: &Table,
    facets: &Facets,
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    caption.say(
        "Columns of the toy model's weights, one line from the origin for each feature, turned so that the first \
         represented feature points to the right and the next lies counter-clockwise of it",
    );
    if let Some(panels) = &spec.panels {
        caption.column("Panels", panels, &labels.describe(panels));
    }
    match paint {
        Paint::Ramp(bar) => {
            caption.column("Colour", colour, &labels.describe(colour));
            caption.say(format!("Colours: viridis from {} to {}", in_words(bar.axis.low), in_words(bar.axis.high)));
        }
        Paint::Features(_) => caption.say("Colour: the feature"),
        Paint::Alike => caption.say(format!("All features have the same {}", labels.describe(colour).in_words())),
    }
    caption.reduction(context, &[]);
    let most =
        (0..facets.titles.len()).map(|panel| facets.of_row.iter().filter(|of| **of == Some(panel)).count()).max();
    if let Some(most) = most.filter(|most| *most > 1) {
        let which = if table.find("loss").is_some() { "the one of lowest loss" } else { "the first" };
        caption.say(format!("Of up to {most} rows a panel, {which} is shown"));
    }
    if let Some(filter) = &spec.filter {
        caption.say(format!("Only rows where {filter}"));
    }
    caption
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(tips: &[[f64; 2]]) -> Vec<Feature> {
        tips.iter().enumerate().map(|(number, tip)| Feature { number, tip: *tip, value: None }).collect()
    }

    fn angle(tip: [f64; 2]) -> f64 {
        libm::atan2(tip[1], tip[0]).to_degrees()
    }

    #[test]
    fn the_first_represented_feature_points_right_and_the_next_is_counter_clockwise() {
        // A pentagon, turned by 130 degrees and mirrored; feature 0 is not represented.
        let place = |i: usize| {
            let angle = (130.0 - 72.0 * i as f64).to_radians();
            [1.1 * libm::cos(angle), 1.1 * libm::sin(angle)]
        };
        let mut tips = vec![[0.01, 0.02]];
        tips.extend((0..5).map(place));
        let aligned = aligned(features(&tips));
        for (i, feature) in aligned[1..].iter().enumerate() {
            let expected = 72.0 * i as f64;
            let off = (angle(feature.tip) - expected).rem_euclid(360.0);
            // A handful of roundings of numbers near 1: far below a millionth of a degree.
            assert!(off.min(360.0 - off) < 1e-9, "feature {i} at {}", angle(feature.tip));
        }
    }

    #[test]
    fn an_opposite_second_feature_leaves_the_orientation_to_the_third() {
        let aligned = aligned(features(&[[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]]));
        let angles: Vec<f64> = aligned.iter().map(|feature| angle(feature.tip).rem_euclid(360.0).round()).collect();
        assert_eq!(angles, [0.0, 180.0, 90.0, 270.0]);
    }

    #[test]
    fn lengths_survive_and_nothing_represented_means_nothing_turned() {
        let tips = [[0.3, 1.2], [-0.7, 0.4]];
        for (before, after) in tips.iter().zip(aligned(features(&tips))) {
            assert!((length(*before) - length(after.tip)).abs() < 1e-12);
        }
        let small = features(&[[0.1, 0.2], [0.0, 0.3]]);
        assert_eq!(aligned(small.clone()), small);
    }

    #[test]
    fn axes_reach_one_and_a_half_or_as_far_as_the_longest_column() {
        assert_eq!(reach(&[features(&[[1.17, 0.0]])]), REACH);
        assert!(reach(&[features(&[[0.0, -2.0]])]) > 2.0);
    }
}
