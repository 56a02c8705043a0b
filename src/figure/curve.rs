//! Lines over a column: one for each group, seed spread as a band around the mean.

use std::collections::BTreeMap;

use super::axis::{Axis, Marks, Spacing, spacing_of_points};
use super::caption::{Caption, Context};
use super::data::{Column, Keyed, Levels, Order, Summary, Table};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{ColumnLook, Labels};
use super::pairs::{Pairs, words};
use super::panels::{
    Facets, MOST_SERIES, RIM, SeriesStyle, at_most, level_names, look_of, measured_axis, series_styles, width_for,
};
use super::reference::References;
use super::scene::{Point, Scene, Shape};
use super::spec::{AxisScale, Band, Curve, is_expression, mentioned};
use super::text::Rich;
use super::theme;

/// A series with more points than this is a line without markers.
const MOST_MARKERS: usize = 25;
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
    let references = References::of(&spec.lines, &spec.x_lines, &spec.theory, context)?;
    let looks = y_looks(spec, labels);
    let y_axes = plot.y_axes(spec, &looks, &references)?;
    let n_panels = plot.titles.len();
    let width = width_for(spec.width, n_panels, 1);
    let one_y = spec.y.len() == 1;
    let mut legend = plot.legend(spec, labels);
    references.legend(&mut legend);
    let block = Block {
        most_columns: if width == theme::Width::OneColumn { 2 } else { 4 },
        titles: plot.titles.clone(),
        aspect: match (n_panels, width) {
            (1, _) | (2, theme::Width::TwoColumns) => 0.66,
            _ => 0.9,
        },
        x: plot.x_axis(spec)?,
        x_label: look_of(labels, &spec.x, spec.x_label.as_ref()).axis_label(),
        y: y_axes,
        y_label: if one_y { looks[0].axis_label() } else { Rich::default() },
        notes: references.notes(),
        ..Block::default()
    };
    let mut layout = Parts { width, legend, blocks: vec![block] }.lay_out();
    for (number, panel) in layout.panels.iter().enumerate() {
        references.draw_under(&mut layout.scene, panel);
        plot.draw_panel(&mut layout.scene, panel, number, spec.band);
        references.draw_over(&mut layout.scene, panel);
    }
    let mut caption = plot.caption(spec, table, labels, context);
    references.caption(&mut caption);
    Ok((layout.finish(), caption))
}

/// Looks of the columns upwards.
fn y_looks(spec: &Curve, labels: &dyn Labels) -> Vec<ColumnLook> {
    let own = spec.y_label.as_ref().filter(|_| spec.y.len() == 1);
    spec.y.iter().map(|column| look_of(labels, column, own)).collect()
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
    /// Lines that cannot be told apart, where the band is an interval.
    pairs: Pairs,
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
        let x_measured = is_measured(spec, table, context) && x.names.is_none();
        let points = if x_measured { measured_points(table, context) } else { swept_points(&x.keyed) };
        let n_series = groups.as_ref().map_or(1, Levels::len);
        let seeds = table.seeds(&context.reduction);
        let mut dots = Vec::new();
        for (number, column) in spec.y.iter().enumerate() {
            let ys = table.numbers(&format!("y ({})", number + 1), column)?;
            for panel in 0..facets.titles.len() {
                let belongs = |row: &usize, of: usize| facets.of_row[*row] == Some(panel) && series[*row] == Some(of);
                let rows = |of: usize| (0..table.height).filter(|row| belongs(row, of)).collect::<Vec<usize>>();
                dots.push(
                    (0..n_series).map(|of| dots_of(&rows(of), &x.numbers, ys, (&seeds, spec.band), &points)).collect(),
                );
            }
        }
        let of_row = [&facets.of_row[..], &series, &x.keyed.of_row];
        let pairs = match &groups {
            Some(lines) if spec.band == Band::Bootstrap && !x_measured => {
                pairs(spec, table, [&words(lines), &words(&x.keyed.levels)], of_row, &seeds)?
            }
            _ => Pairs::default(),
        };
        let titles = match &spec.y[..] {
            [_] => facets.titles,
            _ => y_looks(spec, labels).iter().map(ColumnLook::axis_label).collect(),
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
            pairs,
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
    fn y_axes(&self, spec: &Curve, looks: &[ColumnLook], references: &References) -> Result<Vec<Axis>, FigureError> {
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
            let (at, asked) = (format!("y ({})", number + 1), (spec.y_scale, spec.range));
            axes.push(measured_axis(&at, &spec.y[number], look, asked, &shown, references)?);
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
        caption.column("Curve. Across", &spec.x, &look_of(labels, &spec.x, spec.x_label.as_ref()));
        for (column, look) in spec.y.iter().zip(y_looks(spec, labels)) {
            caption.column("Upwards", column, &look);
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
        if let Some(spread) = spec.band.in_words("band").filter(|_| self.summaries().any(|summary| summary.n > 1)) {
            caption.say(format!("Spread: {spread}"));
        }
        self.pairs.caption(&mut caption);
        let diverged = table.diverged().iter().filter(|diverged| **diverged).count();
        if diverged > 0 {
            caption.say(format!("{diverged} of {} runs diverged and have no value", table.height));
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
fn is_measured(spec: &Curve, table: &Table, context: &Context) -> bool {
    let is_set = |name: &str| context.swept.iter().any(|swept| swept == name) || COORDINATES.contains(&name);
    // An expression over swept values alone is as good as swept.
    let set = match is_expression(&spec.x) {
        true => mentioned(&spec.x, &table.names).into_iter().all(is_set),
        false => is_set(&spec.x),
    };
    !context.swept.is_empty() && !set
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

/// Compares the lines at every x of every panel. `of_row` holds the panel, the line and the x of each row.
fn pairs(
    spec: &Curve,
    table: &Table,
    [lines, xs]: [&[String]; 2],
    of_row: [&[Option<usize>]; 3],
    seeds: &[Option<u64>],
) -> Result<Pairs, FigureError> {
    let facets = spec.facet.as_ref().map(|facet| table.keyed("facet", facet, Order::Rows)).transpose()?;
    let panels = facets.map_or(vec![None], |keyed| words(&keyed.levels).into_iter().map(Some).collect());
    let mut pairs = Pairs::default();
    for (number, column) in spec.y.iter().enumerate() {
        let ys = table.numbers(&format!("y ({})", number + 1), column)?;
        /// The numbers of a line by seed.
        type Line = (String, Vec<(u64, f64)>);
        // `[panel, x]`
        let mut gathered: BTreeMap<(usize, usize), Vec<Line>> = BTreeMap::new();
        for row in 0..table.height {
            let [panel, line, x] = of_row.map(|of| of[row]);
            if let (Some(panel), Some(line), Some(x), Some(seed), Some(y)) = (panel, line, x, seeds[row], ys[row]) {
                let none = || lines.iter().map(|line| (line.clone(), vec![])).collect();
                gathered.entry((panel, x)).or_insert_with(none)[line].1.push((seed, y));
            }
        }
        let of_column = (spec.y.len() > 1).then(|| column.clone());
        for ((panel, x), things) in &gathered {
            let at =
                [of_column.clone(), panels.get(*panel).cloned().flatten(), Some(format!("{} = {}", spec.x, xs[*x]))];
            pairs.compare(&at.into_iter().flatten().collect::<Vec<String>>().join(", "), things);
        }
    }
    Ok(pairs)
}

/// The points of one series, rising in x.
fn dots_of(
    rows: &[usize],
    xs: &[Option<f64>],
    ys: &[Option<f64>],
    (seeds, band): (&[Option<u64>], Band),
    points: &[Option<Vec<usize>>],
) -> Vec<Dot> {
    type Values = (Vec<f64>, Vec<(Option<u64>, f64)>);
    let mut gathered: BTreeMap<&[usize], Values> = BTreeMap::new();
    for &row in rows {
        if let (Some(point), Some(x)) = (&points[row], xs[row]) {
            let (x_values, y_values) = gathered.entry(point).or_default();
            x_values.push(x);
            y_values.extend(ys[row].map(|y| (seeds[row], y)));
        }
    }
    let mut dots: Vec<Dot> = gathered
        .into_values()
        .filter_map(|(xs, ys)| Summary::of(&xs).map(|x| Dot { x: x.mean, y: Summary::for_band(&ys, band) }))
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
