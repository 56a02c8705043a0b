//! Bars of columns side by side, seed spread as whiskers.

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::Rgb;
use super::data::{Levels, Order, Summary, Table};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, ColumnLook, Labels};
use super::pairs::{Pairs, words};
use super::panels::{MOST_KINDS, SeriesStyle, at_most, checked_range, level_names, series_styles, width_for};
use super::scene::{Rect, Scene, Shape};
use super::spec::{Band, Bars};
use super::text::Rich;
use super::theme::{self, Width};

/// Share of its slot that a cluster of bars takes.
const CLUSTER: f64 = 0.8;
/// Half the width of a whisker's ends, as a share of a bar.
const WHISKER: f64 = 0.22;
/// Room above the tallest bar, as a share of the axis.
const RIM: f64 = 0.05;
/// More bars than this take two columns of the page.
const BARS_IN_ONE_COLUMN: usize = 16;
/// Most groups: every colour of the palette full and pale.
const MOST_BARS: usize = 2 * (MOST_KINDS - 1);
/// How far a pale colour is on the way to the paper.
const PALER: f64 = 0.55;

/// Draws the bars.
pub fn draw(
    spec: &Bars,
    table: &Table,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    // One column without an x: the groups themselves stand below the bars, and no legend is needed.
    if let ([_], None, Some(group)) = (&spec.y[..], &spec.x, &spec.group) {
        let named = Bars { x: Some(group.clone()), group: None, ..spec.clone() };
        return draw(&named, table, labels, context);
    }
    let chart = Chart::of(spec, table, labels, context)?;
    let n_bars: usize = chart.panels.iter().flatten().map(Vec::len).sum();
    let width = spec.width.asked().unwrap_or_else(|| match n_bars {
        n if n > BARS_IN_ONE_COLUMN => Width::TwoColumns,
        _ => width_for(spec.width, chart.panels.len(), 1),
    });
    let one_y = spec.y.len() == 1;
    let x_label = spec.x.as_ref().map(|column| labels.describe(column).axis_label());
    let y_label = match (&spec.x, one_y) {
        (_, true) => labels.describe(&spec.y[0]).axis_label(),
        (None, false) => Rich::plain("score"),
        (Some(_), false) => Rich::default(),
    };
    let block = Block {
        most_columns: if width == Width::OneColumn { 2 } else { 4 },
        titles: chart.titles.clone(),
        aspect: match (chart.panels.len(), width) {
            (1, Width::OneColumn) => 0.62,
            (1, Width::TwoColumns) => 0.36,
            (2, Width::TwoColumns) => 0.62,
            _ => 0.9,
        },
        x: Axis::of_names(&chart.names),
        x_label: x_label.unwrap_or_default(),
        y: chart.y_axes(spec)?,
        y_label,
        ..Block::default()
    };
    let mut layout = Parts { width, legend: chart.legend(spec, labels), blocks: vec![block] }.lay_out();
    for (panel, clusters) in layout.panels.iter().zip(&chart.panels) {
        chart.draw_panel(&mut layout.scene, panel, clusters, spec.band);
    }
    let caption = chart.caption(spec, table, labels, context);
    Ok((layout.finish(), caption))
}

/// What the bars show.
struct Chart {
    titles: Vec<Rich>,
    /// Names below the clusters.
    names: Vec<Rich>,
    groups: Levels,
    /// `panels[panel][cluster][group]`; `None` where no row has a value.
    panels: Vec<Vec<Vec<Option<Summary>>>>,
    looks: Vec<ColumnLook>,
    /// Level of x and of the group, for each row.
    keys: [Vec<Option<usize>>; 2],
    /// Bars that cannot be told apart, where the whiskers are intervals.
    pairs: Pairs,
}

impl Chart {
    fn of(spec: &Bars, table: &Table, labels: &dyn Labels, context: &Context) -> Result<Chart, FigureError> {
        let everywhere = vec![Some(0); table.height];
        let (groups, group_of) = match &spec.group {
            Some(column) => {
                let keyed = table.keyed("group", column, Order::Rising)?;
                at_most(&keyed.levels, MOST_BARS, "group", column)?;
                (keyed.levels, keyed.of_row)
            }
            None => (Levels::Names(vec![String::new()]), everywhere.clone()),
        };
        let looks: Vec<ColumnLook> = spec.y.iter().map(|column| labels.describe(column)).collect();
        let x = spec.x.as_ref().map(|column| table.keyed("x", column, Order::Rising)).transpose()?;
        let x_words = x.as_ref().map(|keyed| words(&keyed.levels));
        let (x_names, x_of) = match x {
            Some(keyed) => (Some(level_names(&keyed.levels)), keyed.of_row),
            None => (None, everywhere),
        };
        let seeds = table.seeds(&context.reduction);
        let numbers = |ys: &[Option<f64>], cluster: usize, group: usize| {
            let rows = (0..table.height).filter(|row| x_of[*row] == Some(cluster) && group_of[*row] == Some(group));
            rows.filter_map(|row| Some((seeds[row], ys[row]?))).collect::<Vec<_>>()
        };
        let summary = |ys: &[Option<f64>], cluster: usize, group: usize| {
            Summary::for_band(&numbers(ys, cluster, group), spec.band)
        };
        let seeded = |ys: &[Option<f64>], cluster: usize, group: usize| -> Vec<(u64, f64)> {
            numbers(ys, cluster, group).into_iter().filter_map(|(seed, y)| Some((seed?, y))).collect()
        };
        let (mut by_column, mut pairs) = (Vec::new(), Pairs::default());
        for (number, column) in spec.y.iter().enumerate() {
            let ys = table.numbers(&format!("y ({})", number + 1), column)?;
            let clusters: Vec<Vec<Option<Summary>>> = (0..x_names.as_ref().map_or(1, Vec::len))
                .map(|cluster| (0..groups.len()).map(|group| summary(ys, cluster, group)).collect())
                .collect();
            by_column.push(clusters);
            if spec.band == Band::Bootstrap {
                let group_words = spec.group.as_ref().map(|_| words(&groups));
                let of_column = if spec.y.len() > 1 { &column[..] } else { "" };
                compare(&mut pairs, [&spec.x, &spec.group], of_column, [&x_words, &group_words], |at, group| {
                    seeded(ys, at, group)
                });
            }
        }
        if by_column.iter().flatten().flatten().all(Option::is_none) {
            let why = format!("no row has a value of `{}`", spec.y.join("`, `"));
            return Err(FigureError::NothingToDraw { at: "bars".to_owned(), why });
        }
        let names_of_y: Vec<Rich> = looks.iter().map(ColumnLook::axis_label).collect();
        let keys = [x_of, group_of];
        Ok(match x_names {
            Some(names) => {
                let titles = if looks.len() > 1 { names_of_y } else { vec![Rich::default()] };
                Chart { titles, names, groups, panels: by_column, looks, keys, pairs }
            }
            None => {
                // One panel; the columns are its clusters.
                let clusters = by_column.into_iter().flatten().collect();
                Chart {
                    titles: vec![Rich::default()],
                    names: names_of_y,
                    groups,
                    panels: vec![clusters],
                    looks,
                    keys,
                    pairs,
                }
            }
        })
    }

    /// An axis for each panel; they have no common scale.
    fn y_axes(&self, spec: &Bars) -> Result<Vec<Axis>, FigureError> {
        checked_range(spec.range, false)?;
        let axis = |(number, panel): (usize, &Vec<Vec<Option<Summary>>>)| {
            let shown: Vec<(f64, f64)> =
                panel.iter().flatten().flatten().map(|summary| summary.band(spec.band)).collect();
            let low = shown.iter().map(|(low, _)| *low).fold(0.0, f64::min);
            let high = shown.iter().map(|(_, high)| *high).fold(0.0, f64::max);
            let looks = if self.panels.len() > 1 { &self.looks[number..=number] } else { &self.looks[..] };
            let shares = looks.iter().all(|look| look.scale == Amount::Share);
            let whole = looks.iter().all(|look| look.scale == Amount::Count);
            let (low, high) = match spec.range {
                Some([low, high]) => (low, high),
                // A bar or whisker at exactly 1 keeps clear of the frame.
                None if shares && low >= 0.0 && high <= 1.0 => (0.0, 1.0 + RIM),
                // Bars stand on zero; only the side they reach to gets room.
                None => {
                    let rim = (high - low) * RIM;
                    (if low < 0.0 { low - rim } else { 0.0 }, if high > 0.0 { high + rim } else { 0.0 })
                }
            };
            Axis::of_range(low, high, Spacing::Linear, 0.0, Marks::Round { whole })
        };
        Ok(self.panels.iter().enumerate().map(axis).collect())
    }

    fn legend(&self, spec: &Bars, labels: &dyn Labels) -> Legend {
        let mut legend = Legend::default();
        if let Some(column) = &spec.group {
            if let Levels::Numbers(_) = self.groups {
                legend.heading(&labels.describe(column).axis_label());
            }
            for (name, colour) in level_names(&self.groups).into_iter().zip(self.colours()) {
                legend.push(Sample::Colour(colour), name);
            }
        }
        legend
    }

    /// A colour for each group; once the palette is used up, its colours again, paler.
    fn colours(&self) -> Vec<Rgb> {
        let of = |(group, style): (usize, SeriesStyle)| match group / (MOST_KINDS - 1) {
            0 => style.colour,
            _ => style.colour.towards(theme::PAPER, PALER),
        };
        series_styles(&self.groups).into_iter().enumerate().map(of).collect()
    }

    fn draw_panel(&self, scene: &mut Scene, panel: &Panel, clusters: &[Vec<Option<Summary>>], band: Band) {
        let colours = self.colours();
        let bar = CLUSTER / self.groups.len() as f64;
        // Bars stand on zero, or on the end of the axis nearest to it.
        let ground = 0f64.clamp(panel.y.low, panel.y.high);
        for (cluster, groups) in clusters.iter().enumerate() {
            for ((group, summary), fill) in groups.iter().enumerate().zip(&colours) {
                let left = cluster as f64 - CLUSTER / 2.0 + group as f64 * bar;
                let Some(summary) = summary else {
                    let at = panel.point(left + bar / 2.0, ground);
                    let lines = vec![vec![[at[0] - 2.0, at[1] - 3.0], [at[0] + 2.0, at[1] - 3.0]]];
                    scene.add(Shape::Lines { lines, width: theme::LINE, colour: theme::HATCH, dash: None });
                    continue;
                };
                let top = summary.mean.clamp(panel.y.low, panel.y.high);
                // A hair of paper between neighbours.
                let gap = bar * 0.04;
                let (a, b) = (panel.point(left + gap, ground), panel.point(left + bar - gap, top));
                let rect = Rect::new(a[0], a[1].min(b[1]), b[0], a[1].max(b[1]));
                scene.add_inside(panel.rect, Shape::Block { rect, fill: *fill });
                let (low, high) = summary.band(band);
                if high > low {
                    whisker(scene, panel, left + bar / 2.0, (low, high), bar * WHISKER);
                }
            }
        }
        if panel.y.low < 0.0 && panel.y.high > 0.0 {
            let (from, to) = (panel.point(panel.x.low, 0.0), panel.point(panel.x.high, 0.0));
            scene.line(from, to, theme::HAIRLINE, theme::INK);
        }
    }

    fn caption(&self, spec: &Bars, table: &Table, labels: &dyn Labels, context: &Context) -> Caption {
        let mut caption = Caption::default();
        for column in &spec.y {
            caption.column("Bars", column, &labels.describe(column));
        }
        if let Some(x) = &spec.x {
            caption.column("Across", x, &labels.describe(x));
        }
        if let Some(group) = &spec.group {
            caption.column("Colour", group, &labels.describe(group));
        }
        let candidates: Vec<String> =
            context.swept.iter().cloned().chain(["method", "seed"].map(str::to_owned)).collect();
        let keys = [&self.keys[0][..], &self.keys[1]];
        caption.reduction(context, &table.varying_within(&keys, &candidates));
        let has_spread = self.panels.iter().flatten().flatten().flatten().any(|summary| summary.n > 1);
        if let Some(spread) = spec.band.in_words("whiskers").filter(|_| has_spread) {
            caption.say(format!("Spread: {spread}"));
        }
        self.pairs.caption(&mut caption);
        if self.panels.iter().flatten().flatten().any(Option::is_none) {
            caption.say("A short grey line stands where no row has a value");
        }
        caption
    }
}

/// Compares the bars of a cluster, or, where each cluster has one, the clusters.
fn compare(
    pairs: &mut Pairs,
    [x, group]: [&Option<String>; 2],
    of_column: &str,
    [x_words, group_words]: [&Option<Vec<String>>; 2],
    numbers: impl Fn(usize, usize) -> Vec<(u64, f64)>,
) {
    let place = |x_value: Option<String>| {
        let parts: Vec<String> =
            (!of_column.is_empty()).then(|| of_column.to_owned()).into_iter().chain(x_value).collect();
        parts.join(", ")
    };
    match (x_words, group_words, group) {
        (_, Some(groups), Some(_)) => {
            for cluster in 0..x_words.as_ref().map_or(1, Vec::len) {
                let things: Vec<(String, Vec<(u64, f64)>)> =
                    groups.iter().enumerate().map(|(group, name)| (name.clone(), numbers(cluster, group))).collect();
                let at = x_words.as_ref().zip(x.as_ref()).map(|(words, x)| format!("{x} = {}", words[cluster]));
                pairs.compare(&place(at), &things);
            }
        }
        (Some(clusters), ..) => {
            let things: Vec<(String, Vec<(u64, f64)>)> =
                clusters.iter().enumerate().map(|(cluster, name)| (name.clone(), numbers(cluster, 0))).collect();
            pairs.compare(&place(None), &things);
        }
        _ => {}
    }
}

/// A line from the smallest to the largest value with a cap at each end that lies inside the axis.
fn whisker(scene: &mut Scene, panel: &Panel, x: f64, (low, high): (f64, f64), half: f64) {
    let inside = |y: f64| y.clamp(panel.y.low, panel.y.high);
    scene.line(panel.point(x, inside(low)), panel.point(x, inside(high)), theme::FRAME, theme::INK);
    for end in [low, high].into_iter().filter(|end| inside(*end) == *end) {
        scene.line(panel.point(x - half, end), panel.point(x + half, end), theme::FRAME, theme::INK);
    }
}
