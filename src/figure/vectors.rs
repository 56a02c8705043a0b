//! Columns of two-dimensional toy models: each feature a line from the origin to a dot, one square panel for each value
//! of a column, as in Toy Models of Superposition (Elhage et al. 2022). With `samples`, the hidden vectors of a finite
//! training set stand in panels below (Henighan et al. 2023); with `overlay`, all solutions of a panel lie over each
//! other.
//!
//! A toy model is free to rotate and mirror its hidden space. So that panels can be compared, each is turned until its
//! first represented feature points to the right, and mirrored if need be so that the next lies counter-clockwise of it.

use super::axis::{Axis, Marks, Spacing, spacing_of_points};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::data::{Column, Table};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, Labels};
use super::panels::{Facets, checked_range, width_for};
use super::scene::{Point, Scene, Shape};
use super::sources::Data;
use super::spec::{AxisScale, SideTable, Vectors};
use super::text::{Rich, fixed};
use super::theme::{self, Width};
use super::ticks::in_words;
use crate::score::REPRESENTED;

/// Axes run from minus this to this; a longer column widens them.
const REACH: f64 = 1.5;
/// Two directions closer than this to one line, as the sine of their angle, say nothing about orientation.
const PARALLEL: f64 = 0.05;
/// Radius of the dot at the end of a column.
const DOT: f64 = 1.9;
/// Radius of the dot of a feature that is not represented, and of a sample.
const SMALL_DOT: f64 = 1.1;
/// Width of the dark rim of lines and dots.
const RIM: f64 = 0.25;
/// How much thinner lines and dots are where solutions lie over each other, or where there are more features than this.
const THIN: f64 = 0.6;
const MANY: usize = 30;
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

/// One solution: its features and the hidden vectors of its samples, in one orientation.
#[derive(Clone, Debug, Default, PartialEq)]
struct Solution {
    features: Vec<Feature>,
    samples: Vec<[f64; 2]>,
}

/// Draws the panels.
pub fn draw(
    spec: &Vectors,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let facets = Facets::of(&data.rows, "panels", spec.panels.as_deref(), labels)?;
    let panels = solutions(spec, data, &facets)?;
    let paint = Paint::of(spec, &panels, labels)?;
    let n_panels = panels.len();
    let width = width_for(spec.width, n_panels, 2);
    let block = |titles: Vec<Rich>, reach: f64, words: &str| {
        let marks = Marks::At(marks(reach));
        let axis = Axis { spacing: Spacing::Linear, low: -reach, high: reach, marks };
        Block {
            most_columns: match (width, spec.samples) {
                (_, true) => n_panels,
                (Width::OneColumn, false) => 3,
                (Width::TwoColumns, false) => 5,
            },
            titles,
            x: axis.clone(),
            x_label: Rich::label(&format!("{words} dimension 1")),
            y: vec![axis],
            y_label: Rich::label(&format!("{words} dimension 2")),
            ..Block::default()
        }
    };
    let tips = panels.iter().flatten().flat_map(|solution| solution.features.iter().map(|feature| feature.tip));
    let mut blocks = vec![Block { bar: paint.bar().cloned(), ..block(facets.titles.clone(), reach(tips), "hidden") }];
    if spec.samples {
        let tips = panels.iter().flatten().flat_map(|solution| solution.samples.iter().copied());
        blocks[0].y_label = Rich::label("features, hidden dimension 2");
        blocks.push(Block {
            y_label: Rich::label("samples, hidden dimension 2"),
            ..block(vec![Rich::default(); n_panels], reach(tips), "hidden")
        });
        blocks[0].x_label = Rich::default();
    }
    let mut layout = Parts { width, legend: paint.legend(), blocks }.lay_out();
    for (number, solutions) in panels.iter().enumerate() {
        let panel = &layout.panels[number];
        cross_hair(&mut layout.scene, panel);
        let many = solutions.len() > 1 || solutions.iter().any(|solution| solution.features.len() > MANY);
        let thin = if many { THIN } else { 1.0 };
        for solution in solutions {
            draw_features(&mut layout.scene, panel, &solution.features, &paint, thin);
        }
        if spec.samples {
            let panel = &layout.panels[n_panels + number];
            cross_hair(&mut layout.scene, panel);
            solutions.iter().for_each(|solution| draw_samples(&mut layout.scene, panel, &solution.samples));
        }
    }
    let caption = caption(spec, &paint, data, &facets, labels, context);
    Ok((layout.finish(), caption))
}

/// For each panel the solutions that are shown: that of lowest loss or, with `overlay`, all that did not diverge.
fn solutions(spec: &Vectors, data: &Data, facets: &Facets) -> Result<Vec<Vec<Solution>>, FigureError> {
    let features = data.side("vectors", SideTable::Features)?;
    let reader = Reader::of(spec, data, features)?;
    let samples = match spec.samples {
        true => Some(Samples::of(data)?),
        false => None,
    };
    let diverged = data.rows.diverged();
    let best = data.best_rows(facets, &|_| true);
    let of_panel = |panel: usize| {
        let title = facets.titles[panel].read();
        let Some(best) = best[panel] else {
            let why = format!("every run of the panel `{title}` diverged");
            return Err(FigureError::NothingToDraw { at: "panels".to_owned(), why });
        };
        let shown = |row: &usize| facets.of_row[*row] == Some(panel) && !diverged[*row];
        let rows: Vec<usize> = if spec.overlay { (0..data.rows.height).filter(shown).collect() } else { vec![best] };
        let solution = |row: usize| {
            let features = reader.features(row)?;
            let turn = Turn::of(&features);
            let turned = features.into_iter().map(|feature| Feature { tip: turn.of_point(feature.tip), ..feature });
            let samples = samples.as_ref().map_or_else(Vec::new, |samples| samples.of_row(row));
            let samples = samples.into_iter().map(|h| turn.of_point(h)).collect();
            Ok(Solution { features: turned.collect(), samples })
        };
        rows.into_iter().map(solution).collect::<Result<Vec<Solution>, FigureError>>()
    };
    let panels: Vec<Vec<Solution>> = (0..facets.titles.len()).map(of_panel).collect::<Result<_, _>>()?;
    if panels.iter().flatten().all(|solution| solution.features.is_empty()) {
        let side = SideTable::Features;
        return Err(FigureError::NoSide { at: "vectors".to_owned(), table: side.name(), kept_by: side.kept_by() });
    }
    if spec.samples && panels.iter().flatten().all(|solution| solution.samples.is_empty()) {
        let side = SideTable::Samples;
        return Err(FigureError::NoSide { at: "samples".to_owned(), table: side.name(), kept_by: side.kept_by() });
    }
    Ok(panels)
}

/// Two columns of numbers that are the two entries of vectors.
type Pair<'a> = (&'a [Option<f64>], &'a [Option<f64>]);

fn pair<'a>(table: &'a Table, name: &str, words: &str) -> Result<Pair<'a>, FigureError> {
    let find = |k: usize| table.find(&format!("{name}_{k}"));
    let (Some(Column::Number(first)), Some(Column::Number(second))) = (find(0), find(1)) else {
        let why = format!("the table of {words} has no {name}_0 and {name}_1");
        return Err(FigureError::NotTwoDimensional { why });
    };
    Ok((first, second))
}

/// Rows of a side table by the row of their cell.
fn by_owner(owners: &[Option<usize>], height: usize) -> Vec<Vec<usize>> {
    let mut places = vec![Vec::new(); height];
    for (at, owner) in owners.iter().enumerate() {
        owner.iter().for_each(|row| places[*row].push(at));
    }
    places
}

/// Reads the features of cells.
struct Reader<'a> {
    numbers: &'a [Option<f64>],
    tips: Pair<'a>,
    third: Option<&'a [Option<f64>]>,
    /// Of the table of features, or of the rows.
    values: Values<'a>,
    places: Vec<Vec<usize>>,
}

enum Values<'a> {
    OfFeatures(&'a [Option<f64>]),
    OfRows(&'a [Option<f64>]),
}

impl<'a> Reader<'a> {
    fn of(spec: &Vectors, data: &'a Data, features: &'a Table) -> Result<Reader<'a>, FigureError> {
        let numbers = features.numbers("vectors", "feature")?;
        let of_rows = spec.overlay && features.find(&spec.colour).is_none() && spec.colour != "feature";
        let values = match (&spec.colour[..], of_rows) {
            ("feature", _) => Values::OfFeatures(numbers),
            (colour, true) => Values::OfRows(data.rows.numbers("colour", colour)?),
            (colour, false) => Values::OfFeatures(features.numbers("colour", colour)?),
        };
        let third = match features.find("w_2") {
            Some(Column::Number(third)) => Some(&third[..]),
            _ => None,
        };
        let places = by_owner(&data.owners("vectors", features)?, data.rows.height);
        Ok(Reader { numbers, tips: pair(features, "w", "features")?, third, values, places })
    }

    /// The features of the cell of a row, in order.
    fn features(&self, row: usize) -> Result<Vec<Feature>, FigureError> {
        let of_place = |at: &usize| {
            let at = *at;
            if self.third.is_some_and(|third| third[at].is_some()) {
                let why = "the table of features has values in w_2".to_owned();
                return Err(FigureError::NotTwoDimensional { why });
            }
            let value = match &self.values {
                Values::OfFeatures(values) => values[at],
                Values::OfRows(values) => values[row],
            };
            match (self.numbers[at], self.tips.0[at], self.tips.1[at]) {
                (Some(number), Some(x), Some(y)) => {
                    Ok(Feature { number: number.max(0.0) as usize, tip: [x, y], value })
                }
                _ => Err(FigureError::NotTwoDimensional { why: "w_0 or w_1 is undefined".to_owned() }),
            }
        };
        let mut found: Vec<Feature> = self.places[row].iter().map(of_place).collect::<Result<_, _>>()?;
        found.sort_by_key(|feature| feature.number);
        Ok(found)
    }
}

/// Hidden vectors of the training sets of cells.
struct Samples<'a> {
    entries: Pair<'a>,
    places: Vec<Vec<usize>>,
}

impl<'a> Samples<'a> {
    fn of(data: &'a Data) -> Result<Samples<'a>, FigureError> {
        let table = data.side("samples", SideTable::Samples)?;
        let places = by_owner(&data.owners("samples", table)?, data.rows.height);
        Ok(Samples { entries: pair(table, "h", "samples")?, places })
    }

    fn of_row(&self, row: usize) -> Vec<[f64; 2]> {
        self.places[row].iter().filter_map(|at| Some([self.entries.0[*at]?, self.entries.1[*at]?])).collect()
    }
}

fn length([x, y]: [f64; 2]) -> f64 {
    (x * x + y * y).sqrt()
}

/// A rotation, then perhaps a mirroring at the first axis.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Turn {
    cos: f64,
    sin: f64,
    mirror: f64,
}

impl Turn {
    /// What puts the first represented feature at angle 0, and the next represented one that is not on the same line
    /// counter-clockwise of it.
    fn of(features: &[Feature]) -> Turn {
        let represented: Vec<[f64; 2]> =
            features.iter().map(|feature| feature.tip).filter(|tip| length(*tip) >= REPRESENTED).collect();
        let Some(&first) = represented.first() else { return Turn { cos: 1.0, sin: 0.0, mirror: 1.0 } };
        let turn = Turn { cos: first[0] / length(first), sin: first[1] / length(first), mirror: 1.0 };
        let mut turned = represented[1..].iter().map(|tip| turn.of_point(*tip));
        let side = turned.find(|tip| tip[1].abs() > PARALLEL * length(*tip));
        Turn { mirror: if side.is_some_and(|tip| tip[1] < 0.0) { -1.0 } else { 1.0 }, ..turn }
    }

    fn of_point(self, [x, y]: [f64; 2]) -> [f64; 2] {
        [self.cos * x + self.sin * y, self.mirror * (self.cos * y - self.sin * x)]
    }
}

/// Half the width of the axes: 1.5 for vectors of about unit length, else what the longest needs.
fn reach(tips: impl Iterator<Item = [f64; 2]>) -> f64 {
    let longest = tips.flatten().map(f64::abs).fold(0.0, f64::max);
    match longest {
        0.0 => REACH,
        longest if (REACH / 2.0..=REACH - 0.1).contains(&longest) => REACH,
        longest => longest * 1.1,
    }
}

/// Numbers at 0 and at the greatest 1, 2 or 5 times a power of ten well inside an axis to both sides: at its ends they
/// would meet in the corner.
fn marks(reach: f64) -> Vec<(f64, Rich)> {
    let mut round =
        (-9..=9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit * libm::exp10(f64::from(power)), power)));
    let Some((most, power)) = round.rfind(|(most, _)| *most <= 0.9 * reach) else { return Vec::new() };
    let label = |at: f64| (at, Rich::plain(&fixed(at, (-power).max(0) as usize)));
    vec![label(-most), (0.0, Rich::plain("0")), label(most)]
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
    fn of(spec: &Vectors, panels: &[Vec<Solution>], labels: &dyn Labels) -> Result<Paint, FigureError> {
        checked_range(spec.range, false)?;
        let column = &spec.colour[..];
        let features = || panels.iter().flatten().flat_map(|solution| &solution.features);
        let mut numbers: Vec<usize> = features().map(|feature| feature.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if column == "feature" && numbers.len() <= NAMED {
            return Ok(Paint::Features(numbers.into_iter().zip(KINDS).collect()));
        }
        let values: Vec<f64> = features().filter_map(|feature| feature.value).collect();
        let differ = values.iter().any(|value| *value != values[0]);
        if spec.range.is_none() && !differ {
            return Ok(Paint::Alike);
        }
        let look = labels.describe(column);
        let signed = look.scale == Amount::Signed;
        let range = colour_bar::range(&values, spec.range, look.natural_range(), signed);
        // Values of rows are swept ones, which may be spaced in equal ratios.
        let mut levels = values.clone();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        let spacing = match look.scale {
            Amount::Amount if spec.overlay && range[0] > 0.0 => spacing_of_points(&levels, AxisScale::Auto),
            _ => Spacing::Linear,
        };
        Ok(Paint::Ramp(Box::new(ColourBar {
            ramp: if signed { Ramp::Diverging } else { Ramp::Viridis },
            axis: colour_bar::axis(range, spacing, look.scale == Amount::Count),
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

/// The two axes of the hidden space.
fn cross_hair(scene: &mut Scene, panel: &Panel) {
    let reach = panel.x.high;
    for (from, to) in [([-reach, 0.0], [reach, 0.0]), ([0.0, -reach], [0.0, reach])] {
        let (from, to) = (panel.point(from[0], from[1]), panel.point(to[0], to[1]));
        scene.line(from, to, theme::HAIRLINE, theme::FAINT);
    }
}

/// Draws the features of one solution; `thin` scales lines and dots.
fn draw_features(scene: &mut Scene, panel: &Panel, features: &[Feature], paint: &Paint, thin: f64) {
    let origin = panel.point(0.0, 0.0);
    let tip = |feature: &Feature| panel.point(feature.tip[0], feature.tip[1]);
    // What is not represented lies near the origin and must not cover what is: it comes first, thinner and smaller.
    let (represented, dropped): (Vec<&Feature>, Vec<&Feature>) =
        features.iter().partition(|feature| length(feature.tip) >= REPRESENTED);
    // Light colours are outlined, or the yellow end of viridis could not be seen on paper.
    let dot = |feature: &Feature, radius| Shape::Disc {
        centre: tip(feature),
        radius,
        fill: paint.colour(feature),
        rim: Some((RIM, theme::INK)),
        opacity: 1.0,
    };
    let line = |scene: &mut Scene, feature: &Feature, width: f64| {
        let lines = vec![vec![origin, tip(feature)]];
        scene.add(Shape::Lines { lines: lines.clone(), width: width + 2.0 * RIM, colour: theme::INK, dash: None });
        scene.add(Shape::Lines { lines, width, colour: paint.colour(feature), dash: None });
    };
    for feature in &dropped {
        line(scene, feature, thin * LINE / 2.0);
        scene.add(dot(feature, thin * SMALL_DOT));
    }
    represented.iter().for_each(|feature| line(scene, feature, thin * LINE));
    represented.iter().for_each(|feature| scene.add(dot(feature, thin * DOT)));
}

fn draw_samples(scene: &mut Scene, panel: &Panel, samples: &[[f64; 2]]) {
    let origin = panel.point(0.0, 0.0);
    let tips: Vec<Point> = samples.iter().map(|h| panel.point(h[0], h[1])).collect();
    let lines = tips.iter().map(|tip| vec![origin, *tip]).collect();
    let (colour, opacity) = (KINDS[1], if samples.len() > 100 { 0.5 } else { 1.0 });
    scene.add(Shape::Lines { lines, width: theme::HAIRLINE, colour: colour.towards(theme::PAPER, 0.4), dash: None });
    for centre in tips {
        scene.add(Shape::Disc { centre, radius: SMALL_DOT, fill: colour, rim: None, opacity });
    }
}

fn caption(
    spec: &Vectors,
    paint: &Paint,
    data: &Data,
    facets: &Facets,
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    let colour = &spec.colour[..];
    caption.say(
        "Columns of the toy model's weights, one line from the origin for each feature, turned so that the first \
         represented feature points to the right and the next lies counter-clockwise of it",
    );
    caption.say(format!("Thin lines with small dots are features of norm below {REPRESENTED}"));
    if spec.samples {
        caption.say("Below: the hidden vector of each sample of the training set, turned likewise");
    }
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
    match data.most_rows(facets) {
        0 | 1 => {}
        most if spec.overlay => caption.say(format!("Up to {most} solutions lie over each other in a panel")),
        most => caption.best_of(most),
    }
    caption
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(features: Vec<Feature>) -> Vec<Feature> {
        let turn = Turn::of(&features);
        features.into_iter().map(|feature| Feature { tip: turn.of_point(feature.tip), ..feature }).collect()
    }

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
        assert_eq!(reach([[1.17, 0.0]].into_iter()), REACH);
        assert_eq!(reach([[0.4, 0.0]].into_iter()), 0.4 * 1.1);
        let read = |reach: f64| marks(reach).iter().map(|(_, words)| words.read()).collect::<Vec<String>>();
        assert_eq!(read(1.5), ["\u{2212}1", "0", "1"]);
        assert_eq!(read(4.9), ["\u{2212}2", "0", "2"]);
        assert_eq!(read(0.44), ["\u{2212}0.2", "0", "0.2"]);
        assert!(reach([[0.0, -2.0]].into_iter()) > 2.0);
    }
}
