//! Lines over a column: one for each group, seed spread as a band around the mean.

use std::collections::BTreeMap;

use super::axis::{Axis, AxisScale, Marks, Spacing, spacing_of_measures, spacing_of_points};
use super::caption::{Caption, Context};
use super::data::{Column, Keyed, Levels, Order, Summary, Table};
use super::error::FigureError;
use super::layout::{Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, ColumnLook, Labels};
use super::panels::{Facets, MOST_SERIES, SeriesStyle, at_most, checked_range, level_names, series_styles, width_for};
use super::scene::{Point, Scene, Shape};
use super::spec::{Band, Curve};
use super::text::Rich;
use super::theme;

/// A series with more points than this is a line without markers.
const MOST_MARKERS: usize = 25;
/// Share of an axis left free beyond the data.
const RIM: f64 = 0.04;
/// How much of its colour a band has.
const BAND_OPACITY: f64 = 0.22;

/// Draws the lines.
pub fn draw(
    spec: &Curve,
    table: &Table,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let plot = Plot::of(spec, table, labels, context)?;
    let looks: Vec<ColumnLook> = spec.y.iter().map(|column| labels.describe(column)).collect();
    let y_axes = plot.y_axes(spec, &looks)?;
    let n_panels = plot.titles.len();
    let width = width_for(spec.width, n_panels, 1);
    let one_y = spec.y.len() == 1;
    let parts = Parts {
        width,
        most_columns: if width == theme::Width::OneColumn { 2 } else { 4 },
        titles: plot.titles.clone(),
        aspect: match (n_panels, width) {
            (1, _) | (2, theme::Width::TwoColumns) => 0.66,
            _ => 0.9,
        },
        x: plot.x_axis(spec)?,
        x_label: labels.describe(&spec.x).axis_label(),
        y: y_axes,
        y_label: if one_y { looks[0].axis_label() } else { Rich::default() },
        bar: None,
        legend: plot.legend(spec, labels),
    };
    let mut layout = parts.lay_out();
    for (number, panel) in layout.panels.iter().enumerate() {
        plot.draw_panel(&mut layout.scene, panel, number, spec.band);
    }
    let caption = plot.caption(spec, table, labels, context);
    Ok((layout.finish(), caption))
}

/// The rows of one point brought together.
#[derive(Clone, Debug, PartialEq)]
struct Dot {
    x: f64,
    /// `None` where no row has a value: the line breaks here.
    y: Option<Summary>,
}

/// Everything a curve shows.
struct Plot {
    titles: Vec<Rich>,
    groups: Option<Levels>,
    styles: Vec<SeriesStyle>,
    /// Names below the axis, where x holds words.
    names: Option<Vec<Rich>>,
    x_levels: Vec<f64>,
    /// `dots[panel][series]`, rising in x.
    dots: Vec<Vec<Vec<Dot>>>,
    varying: Vec<String>,
    /// True where a point brings together rows of different x.
    x_measured: bool,
}

impl Plot {
    fn of(spec: &Curve, table: &Table, labels: &dyn Labels, context: &Context) -> Result<Plot, FigureError> {
        if let ([_, _, ..], Some(facet)) = (&spec.y[..], &spec.facet) {
            let why = format!("`facet: {facet}` and more than one y both ask for panels; give one of them");
            return Err(FigureError::NothingToDraw { at: "facet".to_owned(), why });
        }
        let facets = Facets::of(table, "facet", spec.facet.as_deref(), labels)?;
        let group = spec.group.as_ref().map(|column| table.keyed("group", column, Order::Rising)).transpose()?;
        let x = Across::of(spec, table)?;
        let groups = group.as_ref().map(|keyed| keyed.levels.clone());
        if let (Some(levels), Some(column)) = (&groups, &spec.group) {
            at_most(levels, MOST_SERIES, "group", column)?;
        }
        let series: Vec<Option<usize>> = group.map_or_else(|| vec![Some(0); table.height], |keyed| keyed.of_row);
        let x_measured = is_measured(spec, context) && x.names.is_none();
        let points = if x_measured { measured_points(table, context) } else { swept_points(&x.keyed) };
        let n_series = groups.as_ref().map_or(1, Levels::len);
        let mut dots = Vec::new();
        for (number, column) in spec.y.iter().enumerate() {
            let ys = table.numbers(&format!("y ({})", number + 1), column)?;
            for panel in 0..facets.titles.len() {
                let belongs = |row: &usize, of: usize| facets.of_row[*row] == Some(panel) && series[*row] == Some(of);
                let rows = |of: usize| (0..table.height).filter(|row| belongs(row, of)).collect::<Vec<usize>>();
                dots.push((0..n_series).map(|of| dots_of(&rows(of), &x.numbers, ys, &points)).collect());
            }
        }
        let titles = match &spec.y[..] {
            [_] => facets.titles,
            columns => columns.iter().map(|column| labels.describe(column).axis_label()).collect(),
        };
        let keys = [&x.keyed.of_row[..], &series, &facets.of_row];
        let candidates: Vec<String> =
            context.swept.iter().cloned().chain(["method", "seed"].map(str::to_owned)).collect();
        let plot = Plot {
            titles,
            styles: groups.as_ref().map_or_else(|| series_styles(&Levels::Names(vec![String::new()])), series_styles),
            groups,
            varying: if x_measured { vec!["seed".to_owned()] } else { table.varying_within(&keys, &candidates) },
            names: x.names,
            x_levels: x.levels,
            dots,
            x_measured,
        };
        if plot.summaries().next().is_none() {
            let why = format!("no row has values of `{}` and `{}`", spec.x, spec.y.join("`, `"));
            return Err(FigureError::NothingToDraw { at: "curve".to_owned(), why });
        }
        Ok(plot)
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.dots.iter().flatten().flatten().filter_map(|dot| dot.y.as_ref())
    }

    fn x_axis(&self, spec: &Curve) -> Result<Axis, FigureError> {
        if let Some(names) = &self.names {
            return Ok(Axis::of_names(names));
        }
        // Means of a measured x lie between its levels; what is shown decides the range.
        let mut shown: Vec<f64> =
            self.dots.iter().flatten().flatten().filter(|dot| dot.y.is_some()).map(|dot| dot.x).collect();
        shown.sort_by(f64::total_cmp);
        shown.dedup();
        if spec.x_scale == AxisScale::Log && shown.iter().any(|x| *x <= 0.0) {
            return Err(FigureError::NoLogarithm { at: "x".to_owned(), column: spec.x.clone() });
        }
        let spacing = spacing_of_points(&shown, spec.x_scale);
        let (low, high) = (shown.first().copied().unwrap_or(0.0), shown.last().copied().unwrap_or(1.0));
        let levels: Vec<f64> = self.x_levels.iter().copied().filter(|x| (low..=high).contains(x)).collect();
        let whole = levels.iter().all(|x| x.fract() == 0.0);
        let marks = if self.x_measured { Marks::Round { whole } } else { Marks::Values(levels) };
        Ok(Axis::of_range(low, high, spacing, RIM, marks))
    }

    /// One axis for each y; panels of a facet share the one.
    fn y_axes(&self, spec: &Curve, looks: &[ColumnLook]) -> Result<Vec<Axis>, FigureError> {
        let per_y = self.dots.len() / spec.y.len();
        let mut axes = Vec::new();
        for (number, look) in looks.iter().enumerate() {
            let shown: Vec<(f64, f64, f64)> = self.dots[number * per_y..(number + 1) * per_y]
                .iter()
                .flatten()
                .flatten()
                .filter_map(|dot| dot.y.as_ref())
                .map(|summary| (summary.band(spec.band).0, summary.band(spec.band).1, summary.mean))
                .collect();
            axes.push(y_axis(spec, number, look, &shown)?);
        }
        Ok(axes)
    }

    fn legend(&self, spec: &Curve, labels: &dyn Labels) -> Legend {
        let mut legend = Legend::default();
        if let (Some(levels), Some(column)) = (&self.groups, &spec.group) {
            if let Levels::Numbers(_) = levels {
                legend.heading(&labels.describe(column).axis_label());
            }
            for (name, style) in level_names(levels).into_iter().zip(&self.styles) {
                let SeriesStyle { colour, dash, marker } = *style;
                legend.push(Sample::Series { colour, dash, marker }, name);
            }
        }
        legend
    }

    fn draw_panel(&self, scene: &mut Scene, panel: &Panel, number: usize, band: Band) {
        for (dots, style) in self.dots[number].iter().zip(&self.styles) {
            for part in unbroken(dots) {
                draw_band(scene, panel, &part, band, style);
            }
        }
        for (dots, style) in self.dots[number].iter().zip(&self.styles) {
            let markers = dots.len() <= MOST_MARKERS;
            for part in unbroken(dots) {
                let points: Vec<Point> = part.iter().map(|(x, summary)| panel.point(*x, summary.mean)).collect();
                let SeriesStyle { colour, dash, marker } = *style;
                let clip = panel.rect.grown(theme::DOT);
                let alone = points.len() == 1;
                if !alone {
                    let lines = vec![points.clone()];
                    scene.add_inside(panel.rect, Shape::Lines { lines, width: theme::LINE, colour, dash });
                }
                if markers || alone {
                    points.iter().for_each(|point| scene.add_inside(clip, marker.shape(*point, colour)));
                }
            }
        }
    }

    fn caption(&self, spec: &Curve, table: &Table, labels: &dyn Labels, context: &Context) -> Caption {
        let mut caption = Caption::default();
        caption.column("Curve. Across", &spec.x, &labels.describe(&spec.x));
        for column in &spec.y {
            caption.column("Upwards", column, &labels.describe(column));
        }
        if let Some(group) = &spec.group {
            caption.column("Lines", group, &labels.describe(group));
        }
        if let Some(facet) = &spec.facet {
            caption.column("Panels", facet, &labels.describe(facet));
        }
        if self.x_measured {
            caption.say("A point is the mean over the rows that share every swept value, across as well as upwards");
        }
        caption.reduction(context, &self.varying);
        if let Some(words) = spec.band.in_words("band").filter(|_| self.summaries().any(|summary| summary.n > 1)) {
            caption.say(format!("Spread: {words}"));
        }
        let diverged = table.diverged().iter().filter(|diverged| **diverged).count();
        if diverged > 0 {
            caption.say(format!("{diverged} of {} runs diverged and have no value", table.height));
        }
        if let Some(filter) = &spec.filter {
            caption.say(format!("Only rows where {filter}"));
        }
        caption
    }
}

/// The x column: numbers, or words at 0, 1, 2 ...
struct Across {
    keyed: Keyed,
    numbers: Vec<Option<f64>>,
    levels: Vec<f64>,
    names: Option<Vec<Rich>>,
}

impl Across {
    fn of(spec: &Curve, table: &Table) -> Result<Across, FigureError> {
        let keyed = table.keyed("x", &spec.x, Order::Rising)?;
        let (numbers, levels, names) = match (table.column("x", &spec.x)?, &keyed.levels) {
            (Column::Number(numbers), Levels::Numbers(levels)) => (numbers.clone(), levels.clone(), None),
            _ => {
                let numbers = keyed.of_row.iter().map(|level| level.map(|level| level as f64)).collect();
                (numbers, (0..keyed.levels.len()).map(|i| i as f64).collect(), Some(level_names(&keyed.levels)))
            }
        };
        Ok(Across { keyed, numbers, levels, names })
    }
}

/// Columns that count or name something: rows that agree in them belong together although nothing swept them.
const COORDINATES: [&str; 4] = ["seed", "step", "feature", "method"];

/// True where x is a score: it differs from seed to seed, so equal x does not say which rows belong to one point.
fn is_measured(spec: &Curve, context: &Context) -> bool {
    !context.swept.is_empty() && !context.swept.contains(&spec.x) && !COORDINATES.contains(&spec.x.as_str())
}

/// For each row the values that name its point where x is measured: everything swept, and the method.
fn measured_points(table: &Table, context: &Context) -> Vec<Option<Vec<usize>>> {
    let names = context.swept.iter().map(String::as_str).chain(["method"]);
    let keys: Vec<Keyed> = names.filter_map(|name| table.keyed("", name, Order::Rising).ok()).collect();
    // Undefined is a value of its own here: a setting that other methods do not have.
    let level = |keyed: &Keyed, row: usize| keyed.of_row[row].map_or(0, |level| level + 1);
    (0..table.height).map(|row| Some(keys.iter().map(|keyed| level(keyed, row)).collect())).collect()
}

/// For each row its x: rows of equal x are one point.
fn swept_points(x: &Keyed) -> Vec<Option<Vec<usize>>> {
    x.of_row.iter().map(|level| level.map(|level| vec![level])).collect()
}

/// The points of one series, rising in x.
fn dots_of(rows: &[usize], xs: &[Option<f64>], ys: &[Option<f64>], points: &[Option<Vec<usize>>]) -> Vec<Dot> {
    let mut gathered: BTreeMap<&[usize], (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for &row in rows {
        if let (Some(point), Some(x)) = (&points[row], xs[row]) {
            let (x_values, y_values) = gathered.entry(point).or_default();
            x_values.push(x);
            y_values.extend(ys[row]);
        }
    }
    let mut dots: Vec<Dot> = gathered
        .into_values()
        .filter_map(|(xs, ys)| Summary::of(&xs).map(|x| Dot { x: x.mean, y: Summary::of(&ys) }))
        .collect();
    dots.sort_by(|a, b| a.x.total_cmp(&b.x));
    dots
}

/// Runs of points that all have a value.
fn unbroken(dots: &[Dot]) -> Vec<Vec<(f64, Summary)>> {
    dots.split(|dot| dot.y.is_none())
        .filter(|part| !part.is_empty())
        .map(|part| part.iter().filter_map(|dot| dot.y.map(|summary| (dot.x, summary))).collect())
        .collect()
}

fn draw_band(scene: &mut Scene, panel: &Panel, part: &[(f64, Summary)], band: Band, style: &SeriesStyle) {
    if part.iter().all(|(_, summary)| summary.band(band).0 == summary.band(band).1) {
        return;
    }
    // A band that reaches below a log axis ends at it.
    let inside = |y: f64| if panel.y.spacing == Spacing::Log { y.max(panel.y.low) } else { y };
    if let [(x, summary)] = part {
        let (low, high) = summary.band(band);
        let line = vec![vec![panel.point(*x, inside(low)), panel.point(*x, inside(high))]];
        scene
            .add_inside(panel.rect, Shape::Lines { lines: line, width: theme::LINE, colour: style.colour, dash: None });
        return;
    }
    let lower = part.iter().map(|(x, summary)| panel.point(*x, inside(summary.band(band).0)));
    let upper = part.iter().rev().map(|(x, summary)| panel.point(*x, inside(summary.band(band).1)));
    let points = lower.chain(upper).collect();
    scene.add_inside(panel.rect, Shape::Area { points, fill: style.colour, opacity: BAND_OPACITY });
}

/// The axis of one y. `shown` holds (low, high, mean) of every point.
fn y_axis(spec: &Curve, number: usize, look: &ColumnLook, shown: &[(f64, f64, f64)]) -> Result<Axis, FigureError> {
    let at = || format!("y ({})", number + 1);
    let means = || shown.iter().map(|(_, _, mean)| *mean);
    let (least, most) = (means().fold(f64::INFINITY, f64::min), means().fold(f64::NEG_INFINITY, f64::max));
    if shown.is_empty() {
        // Another panel has values; this one keeps an empty frame.
        return Ok(Axis::of_range(0.0, 1.0, Spacing::Linear, 0.0, Marks::Round { whole: false }));
    }
    let (low, high) = (
        shown.iter().map(|(low, ..)| *low).fold(f64::INFINITY, f64::min),
        shown.iter().map(|(_, high, _)| *high).fold(f64::NEG_INFINITY, f64::max),
    );
    let spacing = match (spec.y_scale, look.scale) {
        (AxisScale::Auto, Amount::Amount | Amount::Degrees) => spacing_of_measures(least, most, AxisScale::Auto),
        (AxisScale::Auto, _) => Spacing::Linear,
        (asked, _) => spacing_of_measures(least, most, asked),
    };
    checked_range(spec.range, spacing == Spacing::Log)?;
    if spacing == Spacing::Log && least <= 0.0 {
        return Err(FigureError::NoLogarithm { at: at(), column: spec.y[number].clone() });
    }
    let marks = Marks::Round { whole: look.scale == Amount::Count };
    if let Some([low, high]) = spec.range {
        return Ok(Axis::of_range(low, high, spacing, 0.0, marks));
    }
    match look.natural_range() {
        Some([from, to]) if spacing == Spacing::Linear && low >= from && high <= to => {
            Ok(Axis::of_range(from, to, spacing, RIM / 2.0, marks))
        }
        _ => {
            // A standard deviation may reach below what a log axis can show.
            let low = if spacing == Spacing::Log && low <= 0.0 { least / 2.0 } else { low };
            Ok(Axis::of_range(low, high, spacing, RIM, marks))
        }
    }
}
