//! Lines along training: columns of the table `trace`, and of `snapshots` with a line for each feature, stacked over one
//! axis of steps (Elhage et al. 2022, "Learning dynamics").

use std::collections::BTreeMap;

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::data::{Column, Keyed, Levels, Order, Table};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{ColumnLook, Labels};
use super::panels::{Facets, MOST_SERIES, at_most, level_names, measured_axis, series_styles, width_for};
use super::reference::References;
use super::scene::{Point, Scene, Shape};
use super::sources::Data;
use super::spec::{AxisScale, SideTable, Trace, TraceModel};
use super::text::Rich;
use super::theme::{self, Width};

/// Most features with a colour of their own by name.
const NAMED: usize = KINDS.len() - 1;
/// Numbered features run over this part of viridis: its yellow end cannot be seen on paper.
const READABLE: f64 = 0.88;
/// Width of the line of one of many features.
const THIN: f64 = 0.5;

/// Draws the lines.
pub fn draw(
    spec: &Trace,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let facets = Facets::of(&data.rows, "panels", spec.panels.as_deref(), labels)?;
    let group = spec.group.as_ref().map(|column| data.rows.keyed("group", column, Order::Rising)).transpose()?;
    if let (Some(keyed), Some(column)) = (&group, &spec.group) {
        at_most(&keyed.levels, MOST_SERIES, "group", column)?;
    }
    let of_features = spec.y.iter().any(|y| is_of_features(y));
    let shown = shown_rows(data, &facets, of_features);
    let mut strips = Vec::new();
    for (number, y) in spec.y.iter().enumerate() {
        strips.push(Strip::of(spec, data, &facets, &shown, (&format!("y ({})", number + 1), y))?);
    }
    let looks: Vec<ColumnLook> =
        spec.y.iter().map(|y| labels.describe(SideTable::of(y).map_or(y, |(_, column)| column))).collect();
    let references = References::of(&spec.lines, &[], &[], context)?;
    let none = References::of(&[], &[], &[], context)?;
    let n_panels = facets.titles.len();
    let width = width_for(spec.width, n_panels, 1);
    let x = x_axis(spec, &strips)?;
    let paint = Paint::of(&strips, group.as_ref());
    let mut blocks = Vec::new();
    for (number, strip) in strips.iter().enumerate() {
        let references = if strip.of_features { &references } else { &none };
        blocks.push(Block {
            most_columns: n_panels,
            titles: if number == 0 { facets.titles.clone() } else { vec![Rich::default(); n_panels] },
            aspect: match (strips.len(), n_panels, width) {
                (1, 1, _) => 0.66,
                (1, _, _) => 0.9,
                (_, 1, Width::TwoColumns) => 0.25,
                (_, 1, Width::OneColumn) => 0.4,
                (_, 2, Width::TwoColumns) => 0.5,
                (_, _, Width::TwoColumns) => 0.45,
                (_, _, Width::OneColumn) => 0.8,
            },
            x: x.clone(),
            x_named: number + 1 == strips.len(),
            x_label: if number + 1 == strips.len() { labels.describe("step").axis_label() } else { Rich::default() },
            y: vec![strip.y_axis(spec, &spec.y[number], &looks[number], references)?],
            y_label: looks[number].axis_label(),
            notes: references.notes(),
            ..Block::default()
        });
    }
    let mut layout = Parts { width, legend: paint.legend(spec, labels, group.as_ref()), blocks }.lay_out();
    for (at, panel) in layout.panels.iter().enumerate() {
        let strip = &strips[at / n_panels];
        let references = if strip.of_features { &references } else { &none };
        references.draw_under(&mut layout.scene, panel);
        strip.draw(&mut layout.scene, panel, at % n_panels, &paint, group.as_ref());
    }
    let mut caption = Caption::default();
    caption.say("Lines along training, over the step");
    for (column, look) in spec.y.iter().zip(&looks) {
        caption.column("Upwards", column, look);
    }
    if of_features {
        caption.say("Of snapshots each feature has a line");
    }
    for (role, column) in [("Colour", &spec.group), ("Panels", &spec.panels)] {
        if let Some(column) = column {
            caption.column(role, column, &labels.describe(column));
        }
    }
    caption.reduction(context, &[]);
    match (of_features, data.most_rows(&facets)) {
        (true, most) => caption.best_of(most),
        (false, most) if most > 1 => caption.say(format!("Up to {most} runs a panel, a line each")),
        _ => {}
    }
    references.caption(&mut caption);
    Ok((layout.finish(), caption))
}

fn is_of_features(y: &str) -> bool {
    SideTable::of(y).is_some_and(|(side, _)| side == SideTable::Snapshots)
}

/// Whether each row is shown: all of them or, where features have lines, the one of lowest loss in each panel.
fn shown_rows(data: &Data, facets: &Facets, of_features: bool) -> Vec<bool> {
    let best = data.best_rows(facets, &|_| true);
    (0..data.rows.height).map(|row| !of_features || best.contains(&Some(row))).collect()
}

/// (step, value) pairs; `None` breaks the line.
type Points = Vec<(f64, Option<f64>)>;

/// One line.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    panel: usize,
    row: usize,
    feature: usize,
    /// Rising in the step.
    points: Points,
}

/// The panels of one y.
#[derive(Clone, Debug, PartialEq)]
struct Strip {
    lines: Vec<Line>,
    of_features: bool,
}

impl Strip {
    fn of(
        spec: &Trace,
        data: &Data,
        facets: &Facets,
        shown: &[bool],
        (at, y): (&str, &str),
    ) -> Result<Strip, FigureError> {
        let (side, column) = SideTable::of(y).unwrap_or((SideTable::Trace, y));
        let table = data.side(at, side)?;
        let owners = data.owners(at, table)?;
        let (steps, values) = (table.numbers(at, "step")?, table.numbers(at, column)?);
        let of_features = side == SideTable::Snapshots;
        let features = if of_features { Some(table.numbers(at, "feature")?) } else { None };
        let model = model_of(spec, table, &owners);
        let mut lines: BTreeMap<(usize, usize), Points> = BTreeMap::new();
        for (place, owner) in owners.iter().enumerate() {
            let Some(row) = owner.filter(|row| shown[*row]) else { continue };
            let feature = features.map_or(Some(0.0), |features| features[place]);
            if let (Some(step), Some(feature), true) = (steps[place], feature, model[place]) {
                lines.entry((row, feature.max(0.0) as usize)).or_default().push((step, values[place]));
            }
        }
        let line = |((row, feature), mut points): ((usize, usize), Points)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Some(Line { panel: facets.of_row[row]?, row, feature, points })
        };
        let lines: Vec<Line> = lines.into_iter().filter_map(line).collect();
        if lines.iter().all(|line| line.points.iter().all(|(_, value)| value.is_none())) {
            let why = format!("the table `{}` has no value of `{column}` for these cells", side.name());
            return Err(FigureError::NothingToDraw { at: at.to_owned(), why });
        }
        Ok(Strip { lines, of_features })
    }

    fn y_axis(
        &self,
        spec: &Trace,
        column: &str,
        look: &ColumnLook,
        references: &References,
    ) -> Result<Axis, FigureError> {
        let values = self.lines.iter().flat_map(|line| line.points.iter().filter_map(|(_, value)| *value));
        let shown: Vec<(f64, f64, f64)> = values.map(|value| (value, value, value)).collect();
        let asked = if self.of_features { (AxisScale::Linear, spec.range) } else { (spec.y_scale, None) };
        measured_axis("y", column, look, asked, &shown, references)
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, number: usize, paint: &Paint, group: Option<&Keyed>) {
        let log = panel.x.spacing == Spacing::Log;
        for line in self.lines.iter().filter(|line| line.panel == number) {
            let parts = line.points.split(|(step, value)| value.is_none() || (log && *step <= 0.0));
            let lines: Vec<Vec<Point>> = parts
                .filter(|part| part.len() > 1)
                .map(|part| part.iter().filter_map(|(step, value)| Some(panel.point(*step, (*value)?))).collect())
                .collect();
            if lines.is_empty() {
                continue;
            }
            let (colour, dash) = match self.of_features {
                true => (paint.feature(line.feature), None),
                false => paint.row(line.row, group),
            };
            let many = self.of_features && paint.n_features > NAMED;
            let width = if many { THIN } else { theme::LINE };
            scene.add_inside(panel.rect, Shape::Lines { lines, width, colour, dash });
        }
    }
}

/// For each row of a side table whether it is of the model that is shown.
fn model_of(spec: &Trace, table: &Table, owners: &[Option<usize>]) -> Vec<bool> {
    let Some(Column::Text(models)) = table.find("model") else { return vec![true; table.height] };
    let is = |place: usize, name: &str| models[place].as_deref() == Some(name);
    let wanted = match spec.model {
        TraceModel::Toy => "toy",
        TraceModel::Sae => "sae",
        TraceModel::Auto => {
            let any_toy = (0..table.height).any(|place| owners[place].is_some() && is(place, "toy"));
            if any_toy { "toy" } else { "sae" }
        }
    };
    (0..table.height).map(|place| is(place, wanted)).collect()
}

fn x_axis(spec: &Trace, strips: &[Strip]) -> Result<Axis, FigureError> {
    let steps =
        || strips.iter().flat_map(|strip| &strip.lines).flat_map(|line| line.points.iter().map(|(step, _)| *step));
    // Logarithms only where they are asked for: steps are logged in equal distances, and what comes first starts at 0.
    let spacing = if spec.x_scale == AxisScale::Log { Spacing::Log } else { Spacing::Linear };
    let inside = |step: &f64| spacing == Spacing::Linear || *step > 0.0;
    let low = steps().filter(inside).fold(f64::INFINITY, f64::min);
    let high = steps().filter(inside).fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return Err(FigureError::NoLogarithm { at: "x".to_owned(), column: "step".to_owned() });
    }
    Ok(Axis::of_range(low, high, spacing, 0.01, Marks::Round { whole: true }))
}

/// Colours of runs and of features.
struct Paint {
    styles: Vec<(Rgb, Option<(f64, f64)>)>,
    n_features: usize,
}

impl Paint {
    fn of(strips: &[Strip], group: Option<&Keyed>) -> Paint {
        let of_features = strips.iter().filter(|strip| strip.of_features).flat_map(|strip| &strip.lines);
        let alone = Levels::Names(vec![String::new()]);
        let levels = group.map_or(&alone, |keyed| &keyed.levels);
        Paint {
            styles: series_styles(levels).into_iter().map(|style| (style.colour, style.dash)).collect(),
            n_features: of_features.map(|line| line.feature + 1).max().unwrap_or(0),
        }
    }

    fn row(&self, row: usize, group: Option<&Keyed>) -> (Rgb, Option<(f64, f64)>) {
        match group {
            None => self.styles[0],
            Some(keyed) => keyed.of_row[row].map_or((theme::HATCH, None), |level| self.styles[level]),
        }
    }

    fn feature(&self, feature: usize) -> Rgb {
        match self.n_features <= NAMED {
            true => KINDS[feature % NAMED],
            false => Ramp::Viridis.at(READABLE * feature as f64 / (self.n_features - 1) as f64),
        }
    }

    fn legend(&self, spec: &Trace, labels: &dyn Labels, group: Option<&Keyed>) -> Legend {
        let mut legend = Legend::default();
        if let (Some(keyed), Some(column)) = (group, &spec.group) {
            if let Levels::Numbers(_) = keyed.levels {
                legend.heading(&labels.describe(column).axis_label());
            }
            for (name, (colour, dash)) in level_names(&keyed.levels).into_iter().zip(&self.styles) {
                legend.push(Sample::Line { colour: *colour, dash: *dash }, name);
            }
        }
        if (1..=NAMED).contains(&self.n_features) {
            legend.heading(&Rich::plain("feature"));
            for feature in 0..self.n_features {
                let colour = self.feature(feature);
                legend.push(Sample::Line { colour, dash: None }, Rich::plain(&feature.to_string()));
            }
        }
        legend
    }
}
