//! Colour over two swept axes: one rectangle for each pair of values, lines of theory over them.

use super::axis::{Axis, Spacing, cell_edges, spacing_of_measures};
use super::caption::{Caption, Context};
use super::colour::{KINDS, PHASES, Ramp, Rgb, phase};
use super::colour_bar::{self, ColourBar};
use super::data::{Column, Keyed, Levels, Order, Table};
use super::error::FigureError;
use super::layout::{Block, Layout, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::{Amount, ColumnLook, Labels};
use super::marks;
use super::overlay::{self, Overlay};
use super::panels::{Facets, MOST_KINDS, at_most, checked_range, level_names, look_of, width_for};
use super::scene::{Point, Rect, Scene, Shape};
use super::spec::{AxisScale, PhaseDiagram};
use super::text::Rich;
use super::theme;
use super::ticks::in_words;

/// Draws the diagram.
pub fn draw(
    spec: &PhaseDiagram,
    table: &Table,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let beside = beside(spec, table)?;
    let (table, facets) = match &beside {
        Some(table) => (table, Facets::of(table, "beside", Some(SIDE), labels)?),
        None => (table, Facets::of(table, "facet", spec.facet.as_deref(), labels)?),
    };
    let grid = Grid::of(spec, table, &facets)?;
    let paint = Paint::of(spec, &grid, labels)?;
    let overlays = overlay::overlays(spec, table, &grid, labels, context)?;
    let legend = legend(&grid, &paint, &overlays, &look_of(labels, &spec.colour, spec.colour_label.as_ref()));
    let n_panels = facets.titles.len();
    let block = Block {
        most_columns: if width_for(spec.width, n_panels, 2) == theme::Width::OneColumn { 2 } else { 4 },
        titles: facets.titles.clone(),
        aspect: if n_panels == 1 { 0.78 } else { 1.0 },
        x: grid.x_axis.clone(),
        x_label: look_of(labels, &spec.x, spec.x_label.as_ref()).axis_label(),
        y: vec![grid.y_axis.clone()],
        y_label: look_of(labels, &spec.y, spec.y_label.as_ref()).axis_label(),
        bar: paint.bar().cloned(),
        ..Block::default()
    };
    let width = width_for(spec.width, n_panels, 2);
    let mut layout = Parts { width, legend, blocks: vec![block] }.lay_out();
    draw_panels(&mut layout, &grid, &paint, &overlays);
    let caption = caption(spec, table, &grid, &paint, &overlays, labels, context);
    Ok((layout.finish(), caption))
}

/// Column that says which of the two panels of `beside` a row is of.
const SIDE: &str = "beside";

/// The table twice, one after the other, the second time with another column in the place of the colour: what `beside`
/// asks for is then a facet.
fn beside(spec: &PhaseDiagram, table: &Table) -> Result<Option<Table>, FigureError> {
    let Some(beside) = &spec.beside else { return Ok(None) };
    if let Some(facet) = &spec.facet {
        let why = format!("`facet: {facet}` and `beside: {beside}` both ask for panels; give one of them");
        return Err(FigureError::NothingToDraw { at: "beside".to_owned(), why });
    }
    let second = table.column("beside", beside)?.clone();
    let alike = |a: &Column, b: &Column| std::mem::discriminant(a) == std::mem::discriminant(b);
    if !alike(table.column("colour", &spec.colour)?, &second) {
        let why = format!("`{}` and `{beside}` are not both numbers or both words, and share one scale", spec.colour);
        return Err(FigureError::NothingToDraw { at: "beside".to_owned(), why });
    }
    let mut twice = Table { height: 2 * table.height, ..table.clone() };
    for (name, column) in &mut twice.columns {
        let again = if *name == spec.colour { second.clone() } else { column.clone() };
        match (column, again) {
            (Column::Number(numbers), Column::Number(more)) => numbers.extend(more),
            (Column::Text(words), Column::Text(more)) => words.extend(more),
            _ => {}
        }
    }
    let theory = beside.starts_with("theory_") && !spec.colour.starts_with("theory_");
    let names = if theory { ["trained", "theory"] } else { [&spec.colour[..], &beside[..]] };
    let side = names.iter().flat_map(|name| std::iter::repeat_n(Some((*name).to_owned()), table.height)).collect();
    twice.columns.push((SIDE.to_owned(), Column::Text(side)));
    Ok(Some(twice))
}

/// What rows of one cell say together.
#[derive(Clone, Debug, Default, PartialEq)]
struct Cell {
    numbers: Vec<f64>,
    /// How many rows have each kind.
    kinds: Vec<usize>,
    n_rows: usize,
    n_diverged: usize,
}

impl Cell {
    fn mean(&self) -> Option<f64> {
        super::data::Summary::of(&self.numbers).map(|summary| summary.mean)
    }

    /// The most frequent kind; of equally frequent ones the first.
    fn kind(&self) -> Option<usize> {
        most_frequent(&self.kinds)
    }
}

/// The number that is counted most often; of equal counts the first, `None` where all are zero.
pub fn most_frequent(counts: &[usize]) -> Option<usize> {
    let most = *counts.iter().max()?;
    if most == 0 { None } else { counts.iter().position(|count| *count == most) }
}

/// Rows sorted into panels and cells.
pub struct Grid {
    /// Axis across.
    pub x_axis: Axis,
    /// Axis upwards.
    pub y_axis: Axis,
    /// Places of the cells' edges across, 0 to 1.
    pub x_edges: Vec<f64>,
    /// Places of the cells' edges upwards.
    pub y_edges: Vec<f64>,
    /// Places of the cells' values across.
    pub x_middles: Vec<f64>,
    /// Places of the cells' values upwards.
    pub y_middles: Vec<f64>,
    /// Cell of each row.
    pub keys: Keys,
    /// Names of the kinds, where the colour is a kind.
    kinds: Option<Vec<String>>,
    /// `cells[panel][row][column]`.
    cells: Vec<Vec<Vec<Cell>>>,
}

/// For each row of the table its column, row and panel.
pub struct Keys {
    /// Column of the grid.
    pub x: Keyed,
    /// Row of the grid.
    pub y: Keyed,
    /// Panel.
    pub panel: Vec<Option<usize>>,
    /// How many panels there are.
    pub n_panels: usize,
}

impl Keys {
    fn of(&self, row: usize) -> Option<(usize, usize, usize)> {
        Some((self.panel[row]?, self.y.of_row[row]?, self.x.of_row[row]?))
    }

    /// One value for each cell, made by `new` and filled by `add(value, row of the table)`.
    pub fn gather<T: Clone>(&self, new: T, mut add: impl FnMut(&mut T, usize)) -> Vec<Vec<Vec<T>>> {
        let mut cells = vec![vec![vec![new; self.x.levels.len()]; self.y.levels.len()]; self.n_panels];
        for row in 0..self.panel.len() {
            if let Some((panel, y, x)) = self.of(row) {
                add(&mut cells[panel][y][x], row);
            }
        }
        cells
    }
}

impl Grid {
    fn of(spec: &PhaseDiagram, table: &Table, facets: &Facets) -> Result<Grid, FigureError> {
        let keys = Keys {
            x: table.keyed("x", &spec.x, Order::Rising)?,
            y: table.keyed("y", &spec.y, Order::Rising)?,
            panel: facets.of_row.clone(),
            n_panels: facets.titles.len(),
        };
        let (x_axis, x_edges, x_middles) = swept_axis(&keys.x.levels, spec.x_scale, "x", &spec.x)?;
        let (y_axis, y_edges, y_middles) = swept_axis(&keys.y.levels, spec.y_scale, "y", &spec.y)?;
        let diverged = table.diverged();
        let colour = table.column("colour", &spec.colour)?;
        let keyed = match colour {
            Column::Text(_) => Some(table.keyed("colour", &spec.colour, Order::Rows)?),
            Column::Number(_) => None,
        };
        if let Some(keyed) = &keyed {
            at_most(&keyed.levels, MOST_KINDS, "colour", &spec.colour)?;
        }
        let n_kinds = keyed.as_ref().map_or(0, |keyed| keyed.levels.len());
        let cells = keys.gather(Cell { kinds: vec![0; n_kinds], ..Cell::default() }, |cell, row| {
            cell.n_rows += 1;
            if diverged[row] {
                cell.n_diverged += 1;
                return;
            }
            match (&keyed, colour) {
                (Some(keyed), _) => keyed.of_row[row].into_iter().for_each(|kind| cell.kinds[kind] += 1),
                (None, Column::Number(numbers)) => cell.numbers.extend(numbers[row]),
                (None, Column::Text(_)) => {}
            }
        });
        let kinds = keyed.map(|keyed| match keyed.levels {
            Levels::Names(names) => names,
            Levels::Numbers(_) => Vec::new(),
        });
        Ok(Grid { x_axis, y_axis, x_edges, y_edges, x_middles, y_middles, keys, kinds, cells })
    }

    fn all(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().flatten().flatten()
    }

    /// A cell without a value and without a diverged run.
    fn is_missing(&self, cell: &Cell) -> bool {
        !self.has_value(cell) && cell.n_diverged == 0
    }

    fn has_value(&self, cell: &Cell) -> bool {
        if self.kinds.is_some() { cell.kind().is_some() } else { !cell.numbers.is_empty() }
    }
}

/// The axis of swept values, and the places of its cells' edges and middles.
fn swept_axis(
    levels: &Levels,
    scale: AxisScale,
    at: &str,
    column: &str,
) -> Result<(Axis, Vec<f64>, Vec<f64>), FigureError> {
    if levels.is_empty() {
        let why = format!("no row has a value of `{column}`");
        return Err(FigureError::NothingToDraw { at: at.to_owned(), why });
    }
    Ok(match levels {
        Levels::Names(_) => {
            let n = levels.len() as f64;
            let edges = (0..=levels.len()).map(|i| i as f64 / n).collect();
            let middles = (0..levels.len()).map(|i| (i as f64 + 0.5) / n).collect();
            (Axis::of_names(&level_names(levels)), edges, middles)
        }
        Levels::Numbers(values) => {
            if scale == AxisScale::Log && values.iter().any(|value| *value <= 0.0) {
                return Err(FigureError::NoLogarithm { at: at.to_owned(), column: column.to_owned() });
            }
            let axis = Axis::of_values(values, scale);
            let edges = cell_edges(values, axis.spacing).iter().map(|edge| axis.place(*edge)).collect();
            let middles = values.iter().map(|value| axis.place(*value)).collect();
            (axis, edges, middles)
        }
    })
}

/// How values become colours.
enum Paint {
    Ramp(Box<ColourBar>),
    Kinds(Vec<(Rich, Rgb)>),
}

impl Paint {
    fn of(spec: &PhaseDiagram, grid: &Grid, labels: &dyn Labels) -> Result<Paint, FigureError> {
        let look = look_of(labels, &spec.colour, spec.colour_label.as_ref());
        if let Some(kinds) = &grid.kinds {
            return Ok(Paint::Kinds(kind_colours(kinds)));
        }
        let means: Vec<f64> = grid.all().filter_map(Cell::mean).collect();
        if means.is_empty() && grid.all().all(|cell| cell.n_diverged == 0) {
            let why = format!("no row has a value of `{}`", spec.colour);
            return Err(FigureError::NothingToDraw { at: "colour".to_owned(), why });
        }
        let signed = look.scale == Amount::Signed;
        // Where every run diverged there is no range; the bar then shows the natural one.
        let shown = if means.is_empty() { vec![0.0, 1.0] } else { means };
        let range = colour_bar::range(&shown, spec.range, look.natural_range(), signed);
        let spacing = match spec.colour_scale {
            AxisScale::Auto if look.scale != Amount::Amount => Spacing::Linear,
            asked => spacing_of_measures(range[0], range[1], asked),
        };
        checked_range(spec.range, spacing == Spacing::Log)?;
        if spacing == Spacing::Log && range[0] <= 0.0 {
            return Err(FigureError::NoLogarithm { at: "colour".to_owned(), column: spec.colour.clone() });
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
            Paint::Kinds(_) => None,
        }
    }

    fn colour(&self, cell: &Cell) -> Option<Rgb> {
        match self {
            Paint::Ramp(bar) => cell.mean().map(|mean| bar.colour(mean)),
            Paint::Kinds(kinds) => cell.kind().map(|kind| kinds[kind].1),
        }
    }
}

/// Phases have their fixed colours; other kinds take the palette in turn.
fn kind_colours(kinds: &[String]) -> Vec<(Rich, Rgb)> {
    let free = KINDS.iter().filter(|colour| PHASES.iter().all(|(_, fixed)| fixed != *colour));
    let any_phase = kinds.iter().any(|kind| phase(kind).is_some());
    let palette: Vec<Rgb> = if any_phase { free.copied().collect() } else { KINDS.to_vec() };
    let mut next = palette.iter().cycle();
    kinds
        .iter()
        .map(|kind| {
            let colour = phase(kind).or_else(|| next.next().copied()).unwrap_or(theme::INK);
            (Rich::plain(kind), colour)
        })
        .collect()
}

fn legend(grid: &Grid, paint: &Paint, overlays: &[Overlay], look: &ColumnLook) -> Legend {
    let mut legend = Legend::default();
    if let Paint::Kinds(kinds) = paint {
        legend.heading(&look.axis_label());
        let phases = look.scale == Amount::Phase || kinds.iter().any(|(name, _)| phase(&name.read()).is_some());
        if phases {
            // All three, always, so that neighbouring figures have one legend.
            PHASES.iter().for_each(|(name, colour)| legend.push(Sample::Colour(*colour), Rich::plain(name)));
        }
        for (name, colour) in kinds {
            if !phases || phase(&name.read()).is_none() {
                legend.push(Sample::Colour(*colour), name.clone());
            }
        }
    }
    for overlay in overlays {
        legend.push(Sample::Overlay { dash: overlay.dash }, overlay.label.clone());
    }
    if grid.all().any(|cell| grid.is_missing(cell)) {
        legend.push(Sample::Hatched, Rich::plain("no value"));
    }
    if grid.all().any(|cell| cell.n_diverged > 0) {
        legend.push(Sample::Cross, Rich::plain("diverged"));
    }
    legend
}

fn draw_panels(layout: &mut Layout, grid: &Grid, paint: &Paint, overlays: &[Overlay]) {
    let Layout { scene, panels, .. } = layout;
    for (number, panel) in panels.iter().enumerate() {
        draw_cells(scene, panel, grid, &grid.cells[number], paint);
        for overlay in overlays {
            let lines: Vec<Vec<Point>> = overlay.lines[number]
                .iter()
                .map(|line| line.iter().map(|[x, y]| at(panel, *x, *y)).collect())
                .collect();
            if !lines.is_empty() {
                marks::haloed(scene, panel.rect, &lines, overlay.dash);
            }
        }
    }
}

/// A place of the grid on the page.
fn at(panel: &Panel, x: f64, y: f64) -> Point {
    let rect = panel.rect;
    // Far outside is as good as anywhere outside, and keeps strokes short.
    let (x, y) = (x.clamp(-2.0, 3.0), y.clamp(-2.0, 3.0));
    [rect.left + x * rect.width(), rect.bottom - y * rect.height()]
}

fn draw_cells(scene: &mut Scene, panel: &Panel, grid: &Grid, rows: &[Vec<Cell>], paint: &Paint) {
    let mut crosses = Vec::new();
    for (row, cells) in rows.iter().enumerate() {
        for (column, cell) in cells.iter().enumerate() {
            let [left, bottom] = at(panel, grid.x_edges[column], grid.y_edges[row]);
            let [right, top] = at(panel, grid.x_edges[column + 1], grid.y_edges[row + 1]);
            let rect = Rect::new(left, top, right, bottom);
            match paint.colour(cell) {
                Some(fill) => scene.add(Shape::Block { rect, fill }),
                None if cell.n_diverged > 0 => scene.add(Shape::Block { rect, fill: theme::MISSING }),
                None => marks::hatched(scene, rect),
            }
            if cell.n_diverged > 0 {
                crosses.push((rect.centre(), (rect.width().min(rect.height()) * 0.28).min(2.4)));
            }
        }
    }
    for (centre, half) in crosses {
        marks::cross(scene, centre, half);
    }
}

fn caption(
    spec: &PhaseDiagram,
    table: &Table,
    grid: &Grid,
    paint: &Paint,
    overlays: &[Overlay],
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    caption.column("Phase diagram. Across", &spec.x, &look_of(labels, &spec.x, spec.x_label.as_ref()));
    caption.column("Upwards", &spec.y, &look_of(labels, &spec.y, spec.y_label.as_ref()));
    caption.column("Colour", &spec.colour, &look_of(labels, &spec.colour, spec.colour_label.as_ref()));
    match paint {
        Paint::Ramp(bar) => {
            let name = if bar.ramp == Ramp::Viridis { "viridis" } else { "blue-white-red" };
            let scale = if bar.axis.spacing == Spacing::Log { ", log scale" } else { "" };
            let (low, high) = (in_words(bar.axis.low), in_words(bar.axis.high));
            caption.say(format!("Colours: {name} from {low} to {high}{scale}; values outside take the end colours"));
        }
        Paint::Kinds(_) => caption.say("A cell has the colour of its most frequent kind"),
    }
    if let Some(facet) = &spec.facet {
        caption.column("Panels", facet, &labels.describe(facet));
    }
    if let Some(beside) = &spec.beside {
        caption.column("Colour of the second panel", beside, &labels.describe(beside));
    }
    let swept: Vec<String> = context.swept.iter().cloned().chain(["method", "seed"].map(str::to_owned)).collect();
    let keys = [&grid.keys.x.of_row[..], &grid.keys.y.of_row, &grid.keys.panel];
    caption.reduction(context, &table.varying_within(&keys, &swept));
    for overlay in overlays {
        caption.say(format!("White line: {}", overlay.label.read()));
    }
    let missing = grid.all().filter(|cell| grid.is_missing(cell)).count();
    if missing > 0 {
        caption.say(format!("Hatched: {missing} {} without a value", cells(missing)));
    }
    let diverged: Vec<&Cell> = grid.all().filter(|cell| cell.n_diverged > 0).collect();
    if !diverged.is_empty() {
        let runs: usize = diverged.iter().map(|cell| cell.n_diverged).sum();
        let all: usize = diverged.iter().map(|cell| cell.n_rows).sum();
        caption.say(format!(
            "Crossed: {} {} in which {runs} of {all} runs diverged; the colour is that of the others",
            diverged.len(),
            cells(diverged.len())
        ));
    }
    caption
}

fn cells(n: usize) -> &'static str {
    if n == 1 { "cell" } else { "cells" }
}
