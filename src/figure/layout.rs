//! Where everything in a figure goes: legend, titles, panels that share their axes, labels, and the colour bar.
//!
//! A figure is a legend over one or more blocks; a block is a grid of panels with one axis below, one beside, and a
//! colour bar. Panels of all blocks are equally wide, so that they stand in columns.
//!
//! Margins are measured, not guessed: ticks depend on the size of a panel, the size of a panel on the room its tick
//! labels take, so the two are settled in a few rounds in which margins only grow.

use super::axis::{Axis, Direction, Ticks, label_width};
use super::colour_bar::{self, ColourBar};
use super::legend::Legend;
use super::notes::{self, Note};
pub use super::panel::Panel;
use super::panel::title_lines;
use super::scene::{Anchor, Point, Rect, Scene};
use super::text::{CAP_HEIGHT, DEPTH, Rich};
use super::theme::{self, Width};

/// Rounds after which margins are taken as they are; two or three are normal.
const MOST_ROUNDS: usize = 12;

/// A label beside low panels may be this long before it is broken into lines.
const LEAST_LABEL: f64 = 90.0;
/// The same where another block follows below.
const LEAST_STACKED_LABEL: f64 = 62.0;

/// What a figure is made of, before it has a place.
pub struct Parts {
    /// Width on the page.
    pub width: Width,
    /// Legend above.
    pub legend: Legend,
    /// From top to bottom; at least one.
    pub blocks: Vec<Block>,
}

/// Panels that share their axes.
pub struct Block {
    /// Titles of the panels, one entry a panel; empty lines are left out.
    pub titles: Vec<Rich>,
    /// Most panels side by side.
    pub most_columns: usize,
    /// Height of a panel over its width.
    pub aspect: f64,
    /// The axis below; all panels share it.
    pub x: Axis,
    /// Its label.
    pub x_label: Rich,
    /// Whether something stands at the ticks below; false where the block below has the same axis.
    pub x_named: bool,
    /// The axis beside: one that all panels share, or one for each.
    pub y: Vec<Axis>,
    /// Its label.
    pub y_label: Rich,
    /// Colour bar to the right.
    pub bar: Option<ColourBar>,
    /// Whether panels have frames; heat maps frame their own parts.
    pub framed: bool,
    /// Words to the right of the last panel of each row, at values of y.
    pub notes: Vec<Note>,
}

impl Default for Block {
    fn default() -> Block {
        Block {
            titles: vec![Rich::default()],
            most_columns: 1,
            aspect: 1.0,
            x: Axis::bare(0.0, 1.0),
            x_label: Rich::default(),
            x_named: true,
            y: vec![Axis::bare(0.0, 1.0)],
            y_label: Rich::default(),
            bar: None,
            framed: true,
            notes: Vec::new(),
        }
    }
}

/// A figure whose parts have their places; data are drawn into `panels`, then `finish` draws the rest over them.
pub struct Layout {
    /// Size and, so far, an empty page.
    pub scene: Scene,
    /// The panels, block by block, in reading order.
    pub panels: Vec<Panel>,
    /// Grid and area of each block.
    placed: Vec<(Grid, Rect, Margins)>,
    parts: Parts,
}

/// Room around and between panels, in points.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Margins {
    /// From the rim to the first panel: axis label and tick labels, or half a label that stands out.
    left: f64,
    /// From the last panel to the rim.
    right: f64,
    /// Between panels side by side.
    between: f64,
    /// Above each row: titles.
    above: f64,
    /// Below the last row: tick labels and axis label.
    below: f64,
    /// Below any other row: tick labels where a panel has none under it.
    below_inner: f64,
    /// Of `left`, what the tick labels take.
    beside_ticks: f64,
    /// Of `below`, what the tick labels take.
    below_ticks: f64,
    /// Of `right`, what the notes take.
    notes: f64,
}

impl Margins {
    const NONE: Margins = Margins {
        left: 0.0,
        right: 0.0,
        between: theme::PANEL_GAP,
        above: 0.0,
        below: 0.0,
        below_inner: 0.0,
        beside_ticks: 0.0,
        below_ticks: 0.0,
        notes: 0.0,
    };

    fn largest(self, other: Margins) -> Margins {
        Margins {
            above: self.above.max(other.above),
            below: self.below.max(other.below),
            below_inner: self.below_inner.max(other.below_inner),
            beside_ticks: self.beside_ticks.max(other.beside_ticks),
            below_ticks: self.below_ticks.max(other.below_ticks),
            notes: self.notes.max(other.notes),
            ..self.widest(other)
        }
    }

    /// These margins, with the sides of whichever is wider: blocks stand in the same columns.
    fn widest(self, other: Margins) -> Margins {
        Margins {
            left: self.left.max(other.left),
            right: self.right.max(other.right),
            between: self.between.max(other.between),
            ..self
        }
    }
}

/// Rows and columns of panels, and the size of one.
#[derive(Clone, Copy)]
struct Grid {
    rows: usize,
    columns: usize,
    panel: (f64, f64),
}

impl Parts {
    /// Finds the place of every part.
    pub fn lay_out(self) -> Layout {
        let mut margins = vec![Margins::NONE; self.blocks.len()];
        for _ in 0..MOST_ROUNDS {
            let grids = self.grids(&margins);
            let needed: Vec<Margins> = (self.blocks.iter().zip(&margins).zip(&grids))
                .map(|((block, margins), grid)| margins.largest(block.margins(*grid, self.width)))
                .collect();
            let sides = needed.iter().copied().reduce(Margins::widest).unwrap_or(Margins::NONE);
            let needed: Vec<Margins> = needed.into_iter().map(|margins| margins.widest(sides)).collect();
            let settled = needed == margins;
            margins = needed;
            if settled {
                break;
            }
        }
        self.place(margins)
    }

    fn grids(&self, margins: &[Margins]) -> Vec<Grid> {
        let shape = |block: &Block| {
            let n = block.titles.len().max(1);
            let rows = n.div_ceil(block.most_columns.max(1));
            (rows, n.div_ceil(rows))
        };
        let most = self.blocks.iter().map(|block| shape(block).1).max().unwrap_or(1);
        let of_block = |(block, margins): (&Block, &Margins)| {
            let room = self.width.points() - 2.0 * theme::RIM - margins.left - margins.right;
            let width = ((room - margins.between * (most - 1) as f64) / most as f64).max(10.0);
            let (rows, columns) = shape(block);
            Grid { rows, columns, panel: (width, width * block.aspect) }
        };
        self.blocks.iter().zip(margins).map(of_block).collect()
    }

    fn place(self, margins: Vec<Margins>) -> Layout {
        let grids = self.grids(&margins);
        let mut top = theme::RIM + self.legend.height(self.legend_width());
        let mut panels = Vec::new();
        let mut placed = Vec::new();
        for ((block, margins), grid) in self.blocks.iter().zip(margins).zip(grids) {
            top += margins.above;
            let of_block = block.place(margins, grid, [theme::RIM + margins.left, top]);
            let area = of_block.iter().map(|panel| panel.rect).reduce(|all, rect| all.union(&rect));
            // At least one panel is always made.
            let area = area.unwrap_or(Rect::new(theme::RIM, top, theme::RIM + grid.panel.0, top + grid.panel.1));
            top = area.bottom + margins.below.max(colour_bar::OVERHANG);
            panels.extend(of_block);
            placed.push((grid, area, margins));
        }
        Layout { scene: Scene::new(self.width.points(), (top + theme::RIM).ceil()), panels, placed, parts: self }
    }

    fn legend_width(&self) -> f64 {
        self.width.points() - 2.0 * theme::RIM
    }

    /// Left side and width of the legend: over the panels where that takes no more lines, else from the rim.
    fn legend_place(&self, left: f64) -> (f64, f64) {
        let room = self.width.points() - theme::RIM - left;
        match self.legend.height(room) <= self.legend.height(self.legend_width()) {
            true => (left, room),
            false => (theme::RIM, self.legend_width()),
        }
    }
}

impl Block {
    /// The room that labels need around panels of this size.
    fn margins(&self, grid: Grid, page: Width) -> Margins {
        let (width, height) = grid.panel;
        let x_ticks = self.x.ticks(width, Direction::Across);
        let (out_left, out_right) = if self.x_named { overhang(&self.x, &x_ticks, width) } else { (0.0, 0.0) };
        let y_ticks: Vec<Ticks> = self.y.iter().map(|axis| axis.ticks(height, Direction::Up)).collect();
        let beside_ticks = y_ticks.iter().map(|ticks| room_for(ticks, widest(ticks))).fold(0.0, f64::max);
        let y_lines = self.y_lines(grid).len() as f64;
        let y_label = if y_lines > 0.0 { theme::LABEL_GAP + y_lines * theme::TEXT * theme::LEADING } else { 0.0 };
        let below_ticks = match self.x_named {
            true => room_for(&x_ticks, tallest(&x_ticks)),
            false => theme::TICK,
        };
        let x_lines = self.x_lines(grid, page).len() as f64;
        let x_label = if x_lines > 0.0 { theme::LABEL_GAP + x_lines * theme::TEXT * theme::LEADING } else { 0.0 };
        let title_lines = self.titles.iter().map(|title| title_lines(title, width).len()).max().unwrap_or(0);
        let notes = notes::width(&self.notes);
        let bar = self.bar.as_ref().map_or(0.0, |bar| theme::BAR_GAP + bar.width(self.height(grid, 0.0)));
        let longest = self.y_lines(grid).iter().map(|line| line.width(theme::TEXT)).fold(0.0, f64::max);
        let out = ((longest - self.height(grid, 0.0)) / 2.0).max(0.0);
        let bar_label = self.bar.as_ref().map_or(0.0, |bar| bar.label_overhang(self.height(grid, 0.0)));
        // What stands out over low panels must not meet the next block.
        let out = out.max(bar_label);
        let beside = notes + bar;
        let incomplete = self.titles.len() < grid.rows * grid.columns;
        let own_y = if self.y.len() > 1 { beside_ticks } else { 0.0 };
        Margins {
            left: (beside_ticks + y_label).max(out_left),
            right: if beside > 0.0 { beside.max(out_right) } else { out_right.max(theme::FRAME) },
            between: theme::PANEL_GAP.max(out_left + out_right + theme::TICK_APART).max(own_y + theme::PANEL_GAP),
            above: match title_lines {
                0 => colour_bar::OVERHANG.max(out),
                n => (theme::TEXT * (1.0 + theme::LEADING * (n - 1) as f64) + theme::TITLE_GAP).max(out),
            },
            below: (below_ticks + x_label).max(out),
            below_inner: theme::PANEL_GAP + if incomplete { below_ticks } else { 0.0 },
            beside_ticks,
            below_ticks,
            notes,
        }
    }

    fn height(&self, grid: Grid, inner: f64) -> f64 {
        grid.rows as f64 * grid.panel.1 + (grid.rows - 1) as f64 * inner
    }

    fn x_lines(&self, grid: Grid, page: Width) -> Vec<Rich> {
        let block = grid.columns as f64 * (grid.panel.0 + theme::PANEL_GAP) - theme::PANEL_GAP;
        // A label may stand out over a lone narrow panel, as far as the page goes.
        self.x_label.wrap(theme::TEXT, block.max(page.points() * 0.6))
    }

    fn y_lines(&self, grid: Grid) -> Vec<Rich> {
        let height = self.height(grid, theme::PANEL_GAP);
        self.y_label.wrap(theme::TEXT, height.max(if self.x_named { LEAST_LABEL } else { LEAST_STACKED_LABEL }))
    }

    fn place(&self, margins: Margins, grid: Grid, [left, top]: Point) -> Vec<Panel> {
        let (width, height) = grid.panel;
        let row_step = height + margins.below_inner + margins.above;
        let n = self.titles.len().max(1);
        let panel = |i: usize| {
            let (row, column) = (i / grid.columns, i % grid.columns);
            let corner = [left + column as f64 * (width + margins.between), top + row as f64 * row_step];
            let y = self.y[i.min(self.y.len() - 1)].clone();
            Panel {
                rect: Rect::new(corner[0], corner[1], corner[0] + width, corner[1] + height),
                x_ticks: self.x.ticks(width, Direction::Across),
                y_ticks: y.ticks(height, Direction::Up),
                x: self.x.clone(),
                y,
                title: self.titles.get(i).cloned().unwrap_or_default(),
                labels_below: self.x_named && i + grid.columns >= n,
                labels_beside: column == 0 || self.y.len() > 1,
                framed: self.framed,
            }
        };
        (0..n).map(panel).collect()
    }
}

impl Layout {
    /// Draws frames, ticks, labels, titles, legend and colour bar over the data.
    pub fn finish(self) -> Scene {
        let Layout { mut scene, panels, placed, parts } = self;
        for panel in &panels {
            panel.draw(&mut scene);
        }
        let mut of_block = &panels[..];
        for (block, (grid, area, margins)) in parts.blocks.iter().zip(&placed) {
            let (here, after) = of_block.split_at(block.titles.len().max(1));
            of_block = after;
            block.draw(&mut scene, here, *grid, *area, *margins, parts.width);
        }
        let first = panels.first().map_or(theme::RIM, |panel| panel.rect.left);
        let (legend_left, legend_width) = parts.legend_place(first);
        parts.legend.draw(&mut scene, [legend_left, theme::RIM], legend_width);
        scene
    }
}

impl Block {
    /// Draws axis labels, notes and the colour bar.
    fn draw(&self, scene: &mut Scene, panels: &[Panel], grid: Grid, area: Rect, margins: Margins, page: Width) {
        let step = theme::TEXT * theme::LEADING;
        for (i, line) in self.x_lines(grid, page).into_iter().enumerate() {
            let half = line.width(theme::TEXT) / 2.0;
            // Centred on the panels, moved in where that would leave the page.
            let x = area.centre()[0].min(scene.width - theme::RIM - half).max(theme::RIM + half);
            let y = area.bottom + margins.below_ticks + theme::LABEL_GAP + theme::TEXT * CAP_HEIGHT + i as f64 * step;
            scene.text([x, y], Anchor::Middle, theme::TEXT, theme::INK, line);
        }
        let y_lines = self.y_lines(grid);
        let n_lines = y_lines.len();
        for (i, line) in y_lines.into_iter().enumerate() {
            let half = line.width(theme::TEXT) / 2.0;
            let back = (n_lines - 1 - i) as f64 * step + theme::TEXT * DEPTH;
            let x = area.left - margins.beside_ticks - theme::LABEL_GAP - back;
            let y = area.centre()[1].min(scene.height - theme::RIM - half).max(theme::RIM + half);
            scene.text_upwards([x, y], Anchor::Middle, theme::TEXT, theme::INK, line);
        }
        for (i, panel) in panels.iter().enumerate() {
            if i % grid.columns == grid.columns - 1 || i == panels.len() - 1 {
                notes::draw(scene, panel, &self.notes);
            }
        }
        if let Some(bar) = &self.bar {
            bar.draw(scene, [area.right + margins.notes + theme::BAR_GAP, area.top], area.height());
        }
    }
}

/// What tick labels of this extent take with the ticks and the gap between; a bare axis takes nothing.
fn room_for(ticks: &Ticks, labels: f64) -> f64 {
    if ticks.ticks.is_empty() { 0.0 } else { theme::TICK + theme::TICK_GAP + labels }
}

fn widest(ticks: &Ticks) -> f64 {
    ticks.ticks.iter().map(label_width).fold(0.0, f64::max)
}

/// Height of the tick labels below a panel.
fn tallest(ticks: &Ticks) -> f64 {
    if ticks.turned {
        return widest(ticks);
    }
    let lines = ticks.ticks.iter().map(|tick| tick.label.len()).max().unwrap_or(0);
    let rise = ticks.ticks.iter().flat_map(|tick| tick.label.first()).map(|line| line.ascent(theme::TICK_TEXT));
    let more = lines.saturating_sub(1) as f64 * theme::TICK_TEXT * theme::LEADING;
    rise.fold(0.0, f64::max) + more + DEPTH * theme::TICK_TEXT
}

/// How far the labels below stand out over the left and right side of a panel.
fn overhang(axis: &Axis, ticks: &Ticks, width: f64) -> (f64, f64) {
    let mut out = (0.0, 0.0);
    for tick in ticks.ticks.iter().filter(|tick| tick.is_labelled()) {
        let half = if ticks.turned { theme::TICK_TEXT / 2.0 } else { label_width(tick) / 2.0 };
        let x = axis.place(tick.value) * width;
        out = (f64::max(out.0, half - x), f64::max(out.1, x + half - width));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::axis::{Marks, Spacing};
    use crate::figure::colour::{KINDS, Ramp};
    use crate::figure::legend::Sample;
    use crate::figure::spec::AxisScale;

    fn parts(n_panels: usize, width: Width) -> Parts {
        let titles =
            (0..n_panels).map(|i| Rich::plain(["topk", "relu", "batch_topk", "pca", "random"][i % 5])).collect();
        let mut legend = Legend::default();
        for (name, colour) in ["dropped", "superposed", "dedicated", "no value", "diverged"].iter().zip(KINDS) {
            legend.push(Sample::Colour(colour), Rich::plain(name));
        }
        let block = Block {
            titles,
            most_columns: if width == Width::OneColumn { 2 } else { 4 },
            aspect: 0.9,
            x: Axis::of_values(&[0.01, 0.0219, 0.0478, 0.1046, 0.2287, 0.5], AxisScale::Auto),
            x_label: Rich::label("relative importance of the last feature r"),
            y: vec![Axis::of_values(&[5.0, 10.0, 20.0, 30.0], AxisScale::Auto)],
            y_label: Rich::label("hidden width d"),
            bar: Some(ColourBar {
                ramp: Ramp::Viridis,
                axis: colour_bar::axis([1e-6, 3e-3], Spacing::Log, false),
                label: Rich::label("loss per feature"),
            }),
            ..Block::default()
        };
        Parts { width, legend, blocks: vec![block] }
    }

    #[test]
    fn nothing_is_clipped_and_no_text_overlaps_for_any_number_of_panels() {
        for width in [Width::OneColumn, Width::TwoColumns] {
            for n in 1..=12 {
                let scene = parts(n, width).lay_out().finish();
                assert_eq!(scene.faults(), Vec::<String>::new(), "{n} panels, {width:?}");
            }
        }
    }

    #[test]
    fn the_last_label_of_an_axis_that_ends_on_a_tick_is_not_clipped() {
        let mut parts = parts(1, Width::OneColumn);
        parts.blocks[0].bar = None;
        parts.blocks[0].x = Axis::of_range(0.0, 10_000.0, Spacing::Linear, 0.0, Marks::Round { whole: false });
        let scene = parts.lay_out().finish();
        assert_eq!(scene.faults(), Vec::<String>::new());
        let texts: Vec<String> = scene
            .items
            .iter()
            .filter_map(|item| match &item.shape {
                super::super::scene::Shape::Text { text, .. } => Some(text.read()),
                _ => None,
            })
            .collect();
        assert!(texts.contains(&"10000".to_owned()), "{texts:?}");
    }

    #[test]
    fn panels_are_equal_and_the_bar_is_as_tall_as_they_are() {
        let layout = parts(3, Width::TwoColumns).lay_out();
        let first = layout.panels[0].rect;
        assert!(layout.panels.iter().all(|panel| (panel.rect.width() - first.width()).abs() < 1e-9));
        assert!(layout.panels.iter().all(|panel| panel.rect.top == first.top));
        let scene = layout.finish();
        let bar = scene.items.iter().find_map(|item| match item.shape {
            super::super::scene::Shape::Gradient { rect, .. } => Some(rect),
            _ => None,
        });
        let bar = bar.expect("the colour bar is drawn");
        assert_eq!((bar.top, bar.bottom), (first.top, first.bottom));
    }

    #[test]
    fn values_land_where_the_axes_say() {
        let layout = parts(1, Width::OneColumn).lay_out();
        let panel = &layout.panels[0];
        let [x, y] = panel.point(panel.x.low, panel.y.low);
        assert!((x - panel.rect.left).abs() < 1e-9 && (y - panel.rect.bottom).abs() < 1e-9);
        let [x, y] = panel.point(panel.x.high, panel.y.high);
        assert!((x - panel.rect.right).abs() < 1e-9 && (y - panel.rect.top).abs() < 1e-9);
    }

    #[test]
    fn blocks_stand_in_the_same_columns_and_nothing_of_them_overlaps() {
        for width in [Width::OneColumn, Width::TwoColumns] {
            let mut upper = parts(2, width);
            let lower = parts(2, width).blocks.remove(0);
            upper.blocks.push(Block {
                titles: vec![Rich::default(); 2],
                y_label: Rich::label("y"),
                bar: None,
                ..lower
            });
            upper.blocks[0].x_named = false;
            upper.blocks[0].x_label = Rich::default();
            upper.blocks[1].notes =
                [0.5, 0.51, 0.52].map(|at| Note { at: at * 20.0, words: Rich::plain("2/5") }).to_vec();
            let layout = upper.lay_out();
            let lefts: Vec<f64> = layout.panels.iter().map(|panel| panel.rect.left).collect();
            assert_eq!(lefts[..2], lefts[2..]);
            assert_eq!(layout.finish().faults(), Vec::<String>::new(), "{width:?}");
        }
    }
}
