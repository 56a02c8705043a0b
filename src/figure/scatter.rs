//! A dot for each row, or for each feature or sample of its cell, over a column of the rows.

use super::axis::{Axis, Marks, Spacing, spacing_of_measures, spacing_of_points};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::data::{Column, Keyed, Levels, Order, Table};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, ColumnLook, Labels};
use super::panels::{Facets, MOST_KINDS, RIM, at_most, checked_range, level_names, look_of, measured_axis, width_for};
use super::reference::References;
use super::scene::{Scene, Shape};
use super::sources::Data;
use super::spec::{AxisScale, Scatter, SideTable, is_expression};
use super::text::Rich;
use super::theme::{self, Width};
use super::ticks::in_words;

/// Most values of x that are all named at the axis.
const NAMED: usize = 8;
/// Up to so many dots, their radius and opacity; more are as the last.
const DOTS: [(usize, f64, f64); 4] = [(300, 1.5, 1.0), (2000, 1.1, 0.6), (10_000, 0.8, 0.45), (usize::MAX, 0.6, 0.3)];

/// Draws the dots.
pub fn draw(
    spec: &Scatter,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    if let ([_, _, ..], Some(colour)) = (&spec.y[..], &spec.colour) {
        let why = format!("`colour: {colour}` and more than one y both ask for colours; give one of them");
        return Err(FigureError::NothingToDraw { at: "colour".to_owned(), why });
    }
    let facets = Facets::of(&data.rows, "panels", spec.panels.as_deref(), labels)?;
    let references = References::of(&spec.lines, &spec.x_lines, &spec.theory, context)?;
    let mut series = Vec::new();
    for (number, y) in spec.y.iter().enumerate() {
        series.push(Series::of(spec, data, &facets, &format!("y ({})", number + 1), y)?);
    }
    if series.iter().all(|series| series.dots.is_empty()) {
        let why = format!("no row has values of `{}` and `{}`", spec.x, spec.y.join("`, `"));
        return Err(FigureError::NothingToDraw { at: "scatter".to_owned(), why });
    }
    let looks: Vec<ColumnLook> = spec.y.iter().map(|y| y_look(spec, labels, y)).collect();
    let paint = Paint::of(spec, &series[0], labels)?;
    let n_panels = facets.titles.len();
    let width = width_for(spec.width, n_panels, 1);
    let y_label = match (&looks[..], &spec.y_label) {
        ([look], _) => look.axis_label(),
        (_, Some(words)) => Rich::label(words),
        (looks, None) => looks
            .iter()
            .map(ColumnLook::axis_label)
            .reduce(|all, next| all.then(&Rich::plain(", ")).then(&next))
            .unwrap_or_default(),
    };
    let mut legend = paint.legend(spec, labels);
    if let [_, _, ..] = looks[..] {
        looks.iter().zip(KINDS).for_each(|(look, colour)| legend.push(Sample::Dot(colour), look.axis_label()));
    }
    references.legend(&mut legend);
    let block = Block {
        most_columns: if width == Width::OneColumn { 2 } else { 4 },
        aspect: match (n_panels, width) {
            (1, _) | (2, Width::TwoColumns) => 0.66,
            _ => 0.9,
        },
        titles: facets.titles.clone(),
        x: x_axis(spec, &series)?,
        x_label: look_of(labels, &spec.x, spec.x_label.as_ref()).axis_label(),
        y: vec![y_axis(spec, &looks, &series, &references)?],
        y_label,
        bar: paint.bar().cloned(),
        notes: references.notes(),
        ..Block::default()
    };
    let mut layout = Parts { width, legend, blocks: vec![block] }.lay_out();
    let shown = series.iter().map(|series| series.dots.len()).sum();
    for (number, panel) in layout.panels.iter().enumerate() {
        references.draw_under(&mut layout.scene, panel);
        for (series, own) in series.iter().zip(KINDS) {
            series.draw(&mut layout.scene, panel, number, &paint, own, shown);
        }
        references.draw_over(&mut layout.scene, panel);
    }
    let mut caption = caption(spec, &looks, &paint, &series, labels, context);
    references.caption(&mut caption);
    Ok((layout.finish(), caption))
}

/// The look of what stands upwards; the name of its table is no part of it.
fn y_look(spec: &Scatter, labels: &dyn Labels, y: &str) -> ColumnLook {
    let own = spec.y_label.as_ref().filter(|_| spec.y.len() == 1);
    look_of(labels, SideTable::of(y).map_or(y, |(_, column)| column), own)
}

/// One dot.
#[derive(Clone, Debug, PartialEq)]
struct Dot {
    panel: usize,
    x: f64,
    y: f64,
    /// Number that colours it.
    value: Option<f64>,
    /// Kind that colours it.
    kind: Option<usize>,
}

/// The dots of one y.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    dots: Vec<Dot>,
    kinds: Option<Levels>,
}

impl Series {
    fn of(spec: &Scatter, data: &Data, facets: &Facets, at: &str, y: &str) -> Result<Series, FigureError> {
        let xs = data.rows.numbers("x", &spec.x)?;
        let (table, column, owners) = match SideTable::of(y) {
            Some((side, column)) => {
                let table = data.side(at, side)?;
                (table, column, data.owners(at, table)?)
            }
            None => (&data.rows, y, (0..data.rows.height).map(Some).collect()),
        };
        let ys = table.numbers(at, column)?;
        let shades = spec.colour.as_ref().map(|colour| Shades::of(data, table, colour)).transpose()?;
        let diverged = data.rows.diverged();
        let mut dots = Vec::new();
        for (place, owner) in owners.iter().enumerate() {
            let Some(row) = owner.filter(|row| !diverged[*row]) else { continue };
            let (Some(panel), Some(x), Some(y)) = (facets.of_row[row], xs[row], ys[place]) else { continue };
            let (value, kind) = shades.as_ref().map_or((None, None), |shades| shades.at(row, place));
            dots.push(Dot { panel, x, y, value, kind });
        }
        let kinds = shades.and_then(|shades| match shades {
            Shades::Kinds { keyed, .. } => Some(keyed.levels),
            Shades::Numbers { .. } => None,
        });
        Ok(Series { dots, kinds })
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, number: usize, paint: &Paint, own: Rgb, shown: usize) {
        let size = DOTS.iter().find(|(most, ..)| shown <= *most).unwrap_or(&DOTS[DOTS.len() - 1]);
        let (_, radius, opacity) = *size;
        // Light colours of few dots are outlined, or the yellow end of viridis could not be seen on paper.
        let rim = (paint.bar().is_some() && opacity == 1.0).then_some((0.25, theme::INK));
        let clip = panel.rect.grown(radius);
        for dot in self.dots.iter().filter(|dot| dot.panel == number) {
            let fill = paint.colour(dot).unwrap_or(own);
            let centre = panel.point(dot.x, dot.y);
            if panel.rect.grown(1e-6).left <= centre[0] && centre[0].is_finite() && centre[1].is_finite() {
                scene.add_inside(clip, Shape::Disc { centre, radius, fill, rim, opacity });
            }
        }
    }
}

/// The column that colours dots: of the table of y where that has it, else of the rows.
enum Shades<'a> {
    Numbers { numbers: &'a [Option<f64>], of_rows: bool },
    Kinds { keyed: Keyed, of_rows: bool },
}

impl<'a> Shades<'a> {
    fn of(data: &'a Data, table: &'a Table, colour: &str) -> Result<Shades<'a>, FigureError> {
        let own = SideTable::of(colour).map_or(colour, |(_, column)| column);
        let of_rows = table.find(own).is_none();
        let (source, name) = if of_rows { (&data.rows, colour) } else { (table, own) };
        Ok(match source.column("colour", name)? {
            Column::Number(numbers) => Shades::Numbers { numbers, of_rows },
            Column::Text(_) => {
                let keyed = source.keyed("colour", name, Order::Rows)?;
                at_most(&keyed.levels, MOST_KINDS - 1, "colour", name)?;
                Shades::Kinds { keyed, of_rows }
            }
        })
    }

    fn at(&self, row: usize, place: usize) -> (Option<f64>, Option<usize>) {
        match self {
            Shades::Numbers { numbers, of_rows } => (numbers[if *of_rows { row } else { place }], None),
            Shades::Kinds { keyed, of_rows } => (None, keyed.of_row[if *of_rows { row } else { place }]),
        }
    }
}

/// How dots are coloured.
enum Paint {
    Series,
    Ramp(Box<ColourBar>),
    Kinds(Levels),
}

impl Paint {
    fn of(spec: &Scatter, series: &Series, labels: &dyn Labels) -> Result<Paint, FigureError> {
        let Some(colour) = &spec.colour else { return Ok(Paint::Series) };
        if let Some(levels) = &series.kinds {
            return Ok(Paint::Kinds(levels.clone()));
        }
        let values: Vec<f64> = series.dots.iter().filter_map(|dot| dot.value).collect();
        if values.is_empty() {
            let why = format!("no dot has a value of `{colour}`");
            return Err(FigureError::NothingToDraw { at: "colour".to_owned(), why });
        }
        let look = y_look(&Scatter { y_label: None, ..spec.clone() }, labels, colour);
        let signed = look.scale == Amount::Signed;
        let range = colour_bar::range(&values, spec.colour_range, look.natural_range(), signed);
        let spacing = match spec.colour_scale {
            AxisScale::Auto if look.scale != Amount::Amount => Spacing::Linear,
            AxisScale::Auto if range[0] > 0.0 => spacing_of_points(&distinct(values.iter().copied()), AxisScale::Auto),
            asked => spacing_of_measures(range[0], range[1], asked),
        };
        checked_range(spec.colour_range, spacing == Spacing::Log)?;
        if spacing == Spacing::Log && range[0] <= 0.0 {
            return Err(FigureError::NoLogarithm { at: "colour".to_owned(), column: colour.clone() });
        }
        Ok(Paint::Ramp(Box::new(ColourBar {
            ramp: if signed { Ramp::Diverging } else { Ramp::Viridis },
            axis: colour_bar::axis(range, spacing, look.scale == Amount::Count),
            label: look.axis_label(),
        })))
    }

    fn bar(&self) -> Option<&ColourBar> {
        match self {
            Paint::Ramp(bar) => Some(bar),
            Paint::Series | Paint::Kinds(_) => None,
        }
    }

    fn colour(&self, dot: &Dot) -> Option<Rgb> {
        match self {
            Paint::Series => None,
            Paint::Ramp(bar) => Some(dot.value.map_or(theme::HATCH, |value| bar.colour(value))),
            Paint::Kinds(_) => Some(dot.kind.map_or(theme::HATCH, |kind| KINDS[kind % KINDS.len()])),
        }
    }

    fn legend(&self, spec: &Scatter, labels: &dyn Labels) -> Legend {
        let mut legend = Legend::default();
        if let (Paint::Kinds(levels), Some(column)) = (self, &spec.colour) {
            legend.heading(&y_look(spec, labels, column).axis_label());
            level_names(levels)
                .into_iter()
                .zip(KINDS)
                .for_each(|(name, colour)| legend.push(Sample::Dot(colour), name));
        }
        legend
    }
}

fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

fn x_axis(spec: &Scatter, series: &[Series]) -> Result<Axis, FigureError> {
    let levels = distinct(series.iter().flat_map(|series| series.dots.iter().map(|dot| dot.x)));
    if spec.x_scale == AxisScale::Log && levels.iter().any(|x| *x <= 0.0) {
        return Err(FigureError::NoLogarithm { at: "x".to_owned(), column: spec.x.clone() });
    }
    let spacing = spacing_of_points(&levels, spec.x_scale);
    let (low, high) = (levels.first().copied().unwrap_or(0.0), levels.last().copied().unwrap_or(1.0));
    let whole = levels.iter().all(|x| x.fract() == 0.0);
    // Values of an expression are seldom round.
    let named = levels.len() <= NAMED && !is_expression(&spec.x);
    let marks = if named { Marks::Values(levels) } else { Marks::Round { whole } };
    Ok(Axis::of_range(low, high, spacing, RIM, marks))
}

fn y_axis(
    spec: &Scatter,
    looks: &[ColumnLook],
    series: &[Series],
    references: &References,
) -> Result<Axis, FigureError> {
    let shown: Vec<f64> = series.iter().flat_map(|series| series.dots.iter().map(|dot| dot.y)).collect();
    let shown: Vec<(f64, f64, f64)> = shown.into_iter().map(|y| (y, y, y)).collect();
    // Series of different kinds have no natural range in common.
    let scale = if looks.iter().all(|look| look.scale == looks[0].scale) { looks[0].scale } else { Amount::Amount };
    let look = ColumnLook { scale, ..looks[0].clone() };
    measured_axis("y", &spec.y[0], &look, (spec.y_scale, spec.range), &shown, references)
}

fn caption(
    spec: &Scatter,
    looks: &[ColumnLook],
    paint: &Paint,
    series: &[Series],
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    caption.column("Scatter. Across", &spec.x, &look_of(labels, &spec.x, spec.x_label.as_ref()));
    for ((column, look), series) in spec.y.iter().zip(looks).zip(series) {
        caption.column("Upwards", column, look);
        let of = SideTable::of(column).map_or("rows".to_owned(), |(side, _)| format!("rows of `{}`", side.name()));
        caption.say(format!("{} dots, one for each of the {of} that have a value", series.dots.len()));
    }
    if let Some(colour) = &spec.colour {
        caption.column("Colour", colour, &y_look(&Scatter { y_label: None, ..spec.clone() }, labels, colour));
    }
    if let Paint::Ramp(bar) = paint {
        let scale = if bar.axis.spacing == Spacing::Log { ", log scale" } else { "" };
        caption.say(format!("Colours from {} to {}{scale}", in_words(bar.axis.low), in_words(bar.axis.high)));
    }
    if let Some(panels) = &spec.panels {
        caption.column("Panels", panels, &labels.describe(panels));
    }
    caption.reduction(context, &[]);
    caption
}
