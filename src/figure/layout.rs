//! Where everything in a figure goes: legend, titles, panels that share their axes, labels, and the colour bar.
//!
//! Margins are measured, not guessed: ticks depend on the size of a panel, the size of a panel on the room its tick
//! labels take, so the two are settled in a few rounds in which margins only grow.

use super::axis::{Axis, Direction, Ticks, label_width};
use super::colour_bar::{self, ColourBar};
use super::legend::Legend;
use super::marks;
use super::scene::{Anchor, Point, Rect, Scene};
use super::text::{CAP_HEIGHT, DEPTH, Rich};
use super::theme::{self, Width};
use super::ticks::Tick;

/// Rounds after which margins are taken as they are; two or three are normal.
const MOST_ROUNDS: usize = 12;

/// A label beside low panels may be this long before it is broken into lines.
const LEAST_LABEL: f64 = 90.0;

/// What a figure is made of, before it has a place.
pub struct Parts {
    /// Width on the page.
    pub width: Width,
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
    /// The axis beside: one that all panels share, or one for each.
    pub y: Vec<Axis>,
    /// Its label.
    pub y_label: Rich,
    /// Colour bar to the right.
    pub bar: Option<ColourBar>,
    /// Legend above.
    pub legend: Legend,
}

/// A panel in its place.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The area of the data.
    pub rect: Rect,
    /// The axis below.
    pub x: Axis,
    /// The axis beside.
    pub y: Axis,
    x_ticks: Ticks,
    y_ticks: Ticks,
    title: Rich,
    labels_below: bool,
    labels_beside: bool,
}

impl Panel {
    /// Where a pair of values lies on the page.
    pub fn point(&self, x: f64, y: f64) -> Point {
        [self.rect.left + self.x.place(x) * self.rect.width(), self.rect.bottom - self.y.place(y) * self.rect.height()]
    }
}

/// A figure whose parts have their places; data are drawn into `panels`, then `finish` draws the rest over them.
pub struct Layout {
    /// Size and, so far, an empty page.
    pub scene: Scene,
    /// The panels in reading order.
    pub panels: Vec<Panel>,
    grid: Grid,
    block: Rect,
    below_block: f64,
    beside_block: f64,
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
    };

    fn largest(self, other: Margins) -> Margins {
        Margins {
            left: self.left.max(other.left),
            right: self.right.max(other.right),
            between: self.between.max(other.between),
            above: self.above.max(other.above),
            below: self.below.max(other.below),
            below_inner: self.below_inner.max(other.below_inner),
            beside_ticks: self.beside_ticks.max(other.beside_ticks),
            below_ticks: self.below_ticks.max(other.below_ticks),
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
        let (mut margins, mut grid) = (Margins::NONE, self.grid(Margins::NONE));
        for _ in 0..MOST_ROUNDS {
            let needed = margins.largest(self.margins(grid));
            let settled = needed == margins;
            (margins, grid) = (needed, self.grid(needed));
            if settled {
                break;
            }
        }
        self.place(margins, grid)
    }

    fn grid(&self, margins: Margins) -> Grid {
        let n = self.titles.len().max(1);
        let rows = n.div_ceil(self.most_columns.max(1));
        let columns = n.div_ceil(rows);
        let room = self.width.points() - 2.0 * theme::RIM - margins.left - margins.right;
        let width = ((room - margins.between * (columns - 1) as f64) / columns as f64).max(10.0);
        Grid { rows, columns, panel: (width, width * self.aspect) }
    }

    /// The room that labels need around panels of this size.
    fn margins(&self, grid: Grid) -> Margins {
        let (width, height) = grid.panel;
        let x_ticks = self.x.ticks(width, Direction::Across);
        let (out_left, out_right) = overhang(&self.x, &x_ticks, width);
        let beside = self.y.iter().map(|axis| widest(&axis.ticks(height, Direction::Up))).fold(0.0, f64::max);
        let beside_ticks = theme::TICK + theme::TICK_GAP + beside;
        let y_lines = self.y_lines(grid).len() as f64;
        let y_label = if y_lines > 0.0 { theme::LABEL_GAP + y_lines * theme::TEXT * theme::LEADING } else { 0.0 };
        let below_ticks = theme::TICK + theme::TICK_GAP + tallest(&x_ticks);
        let x_lines = self.x_lines(grid).len() as f64;
        let x_label = if x_lines > 0.0 { theme::LABEL_GAP + x_lines * theme::TEXT * theme::LEADING } else { 0.0 };
        let title_lines = self.titles.iter().map(|title| title_lines(title, width).len()).max().unwrap_or(0);
        let bar = self.bar.as_ref().map_or(0.0, |bar| theme::BAR_GAP + bar.width(self.block_height(grid, 0.0)));
        let incomplete = self.titles.len() < grid.rows * grid.columns;
        let own_y = if self.y.len() > 1 { beside_ticks } else { 0.0 };
        Margins {
            left: (beside_ticks + y_label).max(out_left),
            right: if bar > 0.0 { bar.max(out_right) } else { out_right.max(theme::FRAME) },
            between: theme::PANEL_GAP.max(out_left + out_right + theme::TICK_APART).max(own_y + theme::PANEL_GAP),
            above: match title_lines {
                0 => colour_bar::OVERHANG,
                n => theme::TEXT * (1.0 + theme::LEADING * (n - 1) as f64) + theme::TITLE_GAP,
            },
            below: below_ticks + x_label,
            below_inner: theme::PANEL_GAP + if incomplete { below_ticks } else { 0.0 },
            beside_ticks,
            below_ticks,
        }
    }

    fn block_height(&self, grid: Grid, inner: f64) -> f64 {
        grid.rows as f64 * grid.panel.1 + (grid.rows - 1) as f64 * inner
    }

    fn x_lines(&self, grid: Grid) -> Vec<Rich> {
        let block = grid.columns as f64 * (grid.panel.0 + theme::PANEL_GAP) - theme::PANEL_GAP;
        // A label may stand out over a lone narrow panel, as far as the page goes.
        self.x_label.wrap(theme::TEXT, block.max(self.width.points() * 0.6))
    }

    fn y_lines(&self, grid: Grid) -> Vec<Rich> {
        self.y_label.wrap(theme::TEXT, self.block_height(grid, theme::PANEL_GAP).max(LEAST_LABEL))
    }

    fn place(self, margins: Margins, grid: Grid) -> Layout {
        let (width, height) = grid.panel;
        let left = theme::RIM + margins.left;
        let legend_height = self.legend.height(self.legend_width());
        let row_step = height + margins.below_inner + margins.above;
        let top = theme::RIM + legend_height + margins.above;
        let n = self.titles.len().max(1);
        let panels: Vec<Panel> = (0..n)
            .map(|i| {
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
                    labels_below: i + grid.columns >= n,
                    labels_beside: column == 0 || self.y.len() > 1,
                }
            })
            .collect();
        let block = panels.iter().map(|panel| panel.rect).reduce(|all, rect| all.union(&rect));
        // At least one panel is always made.
        let block = block.unwrap_or(Rect::new(left, top, left + width, top + height));
        let end = block.bottom + margins.below.max(colour_bar::OVERHANG) + theme::RIM;
        Layout {
            scene: Scene::new(self.width.points(), end.ceil()),
            panels,
            grid,
            block,
            below_block: margins.below_ticks,
            beside_block: margins.beside_ticks,
            parts: self,
        }
    }

    fn legend_width(&self) -> f64 {
        self.width.points() - 2.0 * theme::RIM
    }
}

impl Layout {
    /// Draws frames, ticks, labels, titles, legend and colour bar over the data.
    pub fn finish(self) -> Scene {
        let Layout { mut scene, panels, grid, block, below_block, beside_block, parts } = self;
        for panel in &panels {
            panel.draw(&mut scene);
        }
        let step = theme::TEXT * theme::LEADING;
        for (i, line) in parts.x_lines(grid).into_iter().enumerate() {
            let half = line.width(theme::TEXT) / 2.0;
            // Centred on the panels, moved in where that would leave the page.
            let x = block.centre()[0].min(scene.width - theme::RIM - half).max(theme::RIM + half);
            let y = block.bottom + below_block + theme::LABEL_GAP + theme::TEXT * CAP_HEIGHT + i as f64 * step;
            scene.text([x, y], Anchor::Middle, theme::TEXT, theme::INK, line);
        }
        let y_lines = parts.y_lines(grid);
        let n_lines = y_lines.len();
        for (i, line) in y_lines.into_iter().enumerate() {
            let half = line.width(theme::TEXT) / 2.0;
            let back = (n_lines - 1 - i) as f64 * step + theme::TEXT * DEPTH;
            let x = block.left - beside_block - theme::LABEL_GAP - back;
            let y = block.centre()[1].min(scene.height - theme::RIM - half).max(theme::RIM + half);
            scene.text_upwards([x, y], Anchor::Middle, theme::TEXT, theme::INK, line);
        }
        if let Some(bar) = &parts.bar {
            bar.draw(&mut scene, [block.right + theme::BAR_GAP, block.top], block.height());
        }
        let (legend_left, legend_width) = parts.legend_place(block);
        parts.legend.draw(&mut scene, [legend_left, theme::RIM], legend_width);
        scene
    }
}

impl Parts {
    /// Left side and width of the legend: over the panels where that takes no more lines, else from the rim.
    fn legend_place(&self, block: Rect) -> (f64, f64) {
        let room = self.width.points() - theme::RIM - block.left;
        match self.legend.height(room) <= self.legend.height(self.legend_width()) {
            true => (block.left, room),
            false => (theme::RIM, self.legend_width()),
        }
    }
}

impl Panel {
    fn draw(&self, scene: &mut Scene) {
        let rect = self.rect;
        for tick in &self.x_ticks.ticks {
            let x = rect.left + self.x.place(tick.value) * rect.width();
            let (length, width) = tick_size(tick);
            scene.line([x, rect.bottom], [x, rect.bottom + length], width, theme::INK);
            if self.labels_below {
                self.label_below(scene, x, tick);
            }
        }
        for tick in &self.y_ticks.ticks {
            let y = rect.bottom - self.y.place(tick.value) * rect.height();
            let (length, width) = tick_size(tick);
            scene.line([rect.left - length, y], [rect.left, y], width, theme::INK);
            if self.labels_beside {
                let x = rect.left - theme::TICK - theme::TICK_GAP;
                let first = y + CAP_HEIGHT * theme::TICK_TEXT / 2.0;
                for line in &tick.label {
                    scene.text([x, first], Anchor::End, theme::TICK_TEXT, theme::INK, line.clone());
                }
            }
        }
        marks::frame(scene, rect, theme::FRAME);
        for (i, line) in title_lines(&self.title, rect.width()).into_iter().rev().enumerate() {
            let at = [rect.centre()[0], rect.top - theme::TITLE_GAP - i as f64 * theme::TEXT * theme::LEADING];
            scene.text(at, Anchor::Middle, theme::TEXT, theme::INK, line);
        }
    }

    fn label_below(&self, scene: &mut Scene, x: f64, tick: &Tick) {
        let top = self.rect.bottom + theme::TICK + theme::TICK_GAP;
        if self.x_ticks.turned {
            for line in &tick.label {
                let at = [x + CAP_HEIGHT * theme::TICK_TEXT / 2.0, top];
                scene.text_upwards(at, Anchor::End, theme::TICK_TEXT, theme::INK, line.clone());
            }
            return;
        }
        // All labels of the axis stand on one line, whether or not they have a raised exponent.
        let rise =
            self.x_ticks.ticks.iter().flat_map(|tick| tick.label.first()).map(|line| line.ascent(theme::TICK_TEXT));
        let first = top + rise.fold(0.0, f64::max);
        for (i, line) in tick.label.iter().enumerate() {
            let y = first + i as f64 * theme::TICK_TEXT * theme::LEADING;
            scene.text([x, y], Anchor::Middle, theme::TICK_TEXT, theme::INK, line.clone());
        }
    }
}

/// A title may stand out into half the gap to the next panel.
fn title_lines(title: &Rich, width: f64) -> Vec<Rich> {
    title.wrap(theme::TEXT, width + theme::PANEL_GAP / 2.0)
}

fn tick_size(tick: &Tick) -> (f64, f64) {
    if tick.is_labelled() { (theme::TICK, theme::FRAME) } else { (theme::MINOR_TICK, theme::HAIRLINE) }
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
    use crate::figure::axis::{AxisScale, Marks, Spacing};
    use crate::figure::colour::{KINDS, Ramp};
    use crate::figure::legend::Sample;

    fn parts(n_panels: usize, width: Width) -> Parts {
        let titles =
            (0..n_panels).map(|i| Rich::plain(["topk", "relu", "batch_topk", "pca", "random"][i % 5])).collect();
        let mut legend = Legend::default();
        for (name, colour) in ["dropped", "superposed", "dedicated", "no value", "diverged"].iter().zip(KINDS) {
            legend.push(Sample::Colour(colour), Rich::plain(name));
        }
        Parts {
            width,
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
            legend,
        }
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
        parts.bar = None;
        parts.x = Axis::of_range(0.0, 10_000.0, Spacing::Linear, 0.0, Marks::Round { whole: false });
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
}
