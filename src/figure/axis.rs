//! One axis: how values become places between its ends, and which ticks fit its length.

use super::spec::AxisScale;
use super::text::Rich;
use super::theme;
use super::ticks::{self, Tick};

/// A short axis has at most this many values; each is labelled if there is room.
const SHORT: usize = 8;
/// Least ratio of the ends of an axis of measured values before logarithms are considered.
const LOG_RATIO: f64 = 5.0;
/// Measured positive values that span this ratio are drawn on a log axis.
const WIDE_RATIO: f64 = 100.0;
/// Most lines of a name at a tick before it is turned.
const NAME_LINES: usize = 3;

/// How an axis is spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Equal ratios, equal lengths.
    Log,
    /// Equal differences, equal lengths.
    Linear,
}

impl Spacing {
    /// The value as a length: its logarithm or itself.
    pub fn length(self, value: f64) -> f64 {
        match self {
            Spacing::Log => libm::log10(value),
            Spacing::Linear => value,
        }
    }

    /// The value whose length this is.
    pub fn value(self, length: f64) -> f64 {
        match self {
            Spacing::Log => libm::exp10(length),
            Spacing::Linear => length,
        }
    }
}

/// Spacing of swept values (rising, distinct): log where all are positive and the values lie closer to a geometric than
/// to an arithmetic progression, by the summed squared distance of their places from equal steps. Two values or one say
/// nothing and are spaced linearly.
pub fn spacing_of_values(values: &[f64], asked: AxisScale) -> Spacing {
    match asked {
        AxisScale::Log => Spacing::Log,
        AxisScale::Linear => Spacing::Linear,
        AxisScale::Auto if values.len() < 3 || values.iter().any(|value| *value <= 0.0) => Spacing::Linear,
        AxisScale::Auto => {
            let (log, linear) = (unevenness(values, Spacing::Log), unevenness(values, Spacing::Linear));
            // Rounding alone must not decide between two even spacings.
            if log < linear * (1.0 - 1e-6) - 1e-12 { Spacing::Log } else { Spacing::Linear }
        }
    }
}

/// Spacing of the x axis of a curve: as for swept values, if its ends are far enough apart for it to matter.
pub fn spacing_of_points(values: &[f64], asked: AxisScale) -> Spacing {
    let far = matches!((values.first(), values.last()), (Some(first), Some(last)) if *last >= first * LOG_RATIO);
    match asked {
        AxisScale::Auto if !far => Spacing::Linear,
        _ => spacing_of_values(values, asked),
    }
}

/// Spacing of measured values: log where all are positive and they span two decades.
pub fn spacing_of_measures(low: f64, high: f64, asked: AxisScale) -> Spacing {
    match asked {
        AxisScale::Log => Spacing::Log,
        AxisScale::Auto if low > 0.0 && high >= low * WIDE_RATIO => Spacing::Log,
        _ => Spacing::Linear,
    }
}

fn unevenness(values: &[f64], spacing: Spacing) -> f64 {
    let lengths: Vec<f64> = values.iter().map(|value| spacing.length(*value)).collect();
    let (first, span) = (lengths[0], lengths[lengths.len() - 1] - lengths[0]);
    let steps = (lengths.len() - 1) as f64;
    lengths.iter().enumerate().map(|(i, length)| (length - first) / span - i as f64 / steps).map(|off| off * off).sum()
}

/// Edges of the cells around rising values: the middles between neighbours (geometric on a log axis), the outer cells
/// symmetric about their values. One edge more than values; a single value has a cell of its own size, at least 1, or
/// of a factor 10 on a log axis.
pub fn cell_edges(values: &[f64], spacing: Spacing) -> Vec<f64> {
    let lengths: Vec<f64> = values.iter().map(|value| spacing.length(*value)).collect();
    let n = lengths.len();
    if n == 0 {
        return Vec::new();
    }
    let single = match spacing {
        Spacing::Log => 0.5,
        Spacing::Linear => (lengths[0].abs() / 2.0).max(0.5),
    };
    let middle = |i: usize| (lengths[i] + lengths[i + 1]) / 2.0;
    let (below, above) = match n {
        1 => (lengths[0] - single, lengths[0] + single),
        _ => (2.0 * lengths[0] - middle(0), 2.0 * lengths[n - 1] - middle(n - 2)),
    };
    let inner = (0..n - 1).map(middle);
    std::iter::once(below).chain(inner).chain([above]).map(|length| spacing.value(length)).collect()
}

/// What stands at the ticks of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Marks {
    /// Round numbers; with `whole`, whole ones.
    Round { whole: bool },
    /// These values if they are few and fit, else round numbers.
    Values(Vec<f64>),
    /// These names at 0, 1, 2 ...
    Names(Vec<Rich>),
    /// These, or every so many of them where they do not fit; nothing at all where there are none.
    At(Vec<(f64, Rich)>),
}

/// An axis between two values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// How it is spaced.
    pub spacing: Spacing,
    /// Value at the left or lower end.
    pub low: f64,
    /// Value at the right or upper end.
    pub high: f64,
    /// What stands at its ticks.
    pub marks: Marks,
}

/// Along which direction an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Left to right, labels below.
    Across,
    /// Bottom to top, labels beside.
    Up,
}

/// The ticks of an axis of a certain length.
#[derive(Clone, Debug, PartialEq)]
pub struct Ticks {
    /// In rising order.
    pub ticks: Vec<Tick>,
    /// True where labels are turned to be read from below because they do not fit side by side.
    pub turned: bool,
}

impl Axis {
    /// An axis of swept numbers, as wide as their cells.
    pub fn of_values(values: &[f64], asked: AxisScale) -> Axis {
        let spacing = spacing_of_values(values, asked);
        let edges = cell_edges(values, spacing);
        let (low, high) = (edges.first().copied().unwrap_or(0.0), edges.last().copied().unwrap_or(1.0));
        Axis { spacing, low, high, marks: Marks::Values(values.to_vec()) }
    }

    /// An axis of kinds, one unit each.
    pub fn of_names(names: &[Rich]) -> Axis {
        Axis {
            spacing: Spacing::Linear,
            low: -0.5,
            high: names.len() as f64 - 0.5,
            marks: Marks::Names(names.to_vec()),
        }
    }

    /// An axis without ticks.
    pub fn bare(low: f64, high: f64) -> Axis {
        Axis { spacing: Spacing::Linear, low, high, marks: Marks::At(Vec::new()) }
    }

    /// An axis over a range of numbers, with `rim` of its length added at each end; an empty range is widened.
    pub fn of_range(low: f64, high: f64, spacing: Spacing, rim: f64, marks: Marks) -> Axis {
        let (mut from, mut to) = (spacing.length(low), spacing.length(high));
        if to <= from {
            let half = match spacing {
                Spacing::Log => 0.5,
                Spacing::Linear => (from.abs() / 10.0).max(1e-12),
            };
            (from, to) = (from - half, to + half);
        }
        let rim = (to - from) * rim;
        Axis { spacing, low: spacing.value(from - rim), high: spacing.value(to + rim), marks }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end.
    pub fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.spacing.length(self.low), self.spacing.length(self.high));
        (self.spacing.length(value) - low) / (high - low)
    }

    /// The ticks for an axis `length` points long: as many labels as stand apart.
    pub fn ticks(&self, length: f64, direction: Direction) -> Ticks {
        let upright = |ticks| Ticks { ticks, turned: false };
        match &self.marks {
            Marks::Names(names) => self.named_ticks(names, length, direction),
            Marks::Values(values) => {
                let labels = ticks::value_labels(values);
                let ticks: Vec<Tick> = values
                    .iter()
                    .zip(labels)
                    .map(|(value, label)| Tick { value: *value, label: vec![label] })
                    .collect();
                if values.len() <= SHORT && self.stand_apart(&ticks, length, direction) {
                    return upright(ticks);
                }
                let whole = values.iter().all(|value| value.fract() == 0.0);
                upright(self.round_ticks(whole, length, direction))
            }
            Marks::At(marks) => {
                let tick = |(value, label): &(f64, Rich)| Tick { value: *value, label: vec![label.clone()] };
                let ticks: Vec<Tick> = marks.iter().map(tick).collect();
                // Every second, third .. of them where they are too many.
                let every = |stride: usize| ticks.iter().step_by(stride).cloned().collect::<Vec<Tick>>();
                let fitting = (1..=ticks.len()).map(every).find(|ticks| self.stand_apart(ticks, length, direction));
                upright(fitting.unwrap_or_default())
            }
            Marks::Round { whole } => upright(self.round_ticks(*whole, length, direction)),
        }
    }

    fn round_ticks(&self, whole: bool, length: f64, direction: Direction) -> Vec<Tick> {
        let make = |most: usize| match self.spacing {
            Spacing::Log => ticks::logarithmic(self.low, self.high, most),
            Spacing::Linear => ticks::linear(self.low, self.high, most, whole),
        };
        // More labels than one every 14 points are not read.
        let most = ((length / 14.0) as usize).clamp(2, 7);
        let fitting = (2..=most).rev().map(make).find(|ticks| self.stand_apart(ticks, length, direction));
        fitting.unwrap_or_else(|| make(2))
    }

    fn named_ticks(&self, names: &[Rich], length: f64, direction: Direction) -> Ticks {
        let slot = length / names.len().max(1) as f64 - theme::TICK_APART;
        let lines: Vec<Vec<Rich>> = names
            .iter()
            .map(|name| match direction {
                Direction::Across => name.wrap(theme::TICK_TEXT, slot),
                Direction::Up => vec![name.clone()],
            })
            .collect();
        let fits = direction == Direction::Up
            || lines.iter().all(|lines| {
                lines.len() <= NAME_LINES && lines.iter().all(|line| line.width(theme::TICK_TEXT) <= slot)
            });
        let label = |i: usize| if fits { lines[i].clone() } else { vec![names[i].clone()] };
        let ticks = (0..names.len()).map(|i| Tick { value: i as f64, label: label(i) }).collect();
        Ticks { ticks, turned: !fits }
    }

    /// True where no label comes closer to the next than text needs.
    fn stand_apart(&self, ticks: &[Tick], length: f64, direction: Direction) -> bool {
        let mut spans: Vec<(f64, f64)> = ticks
            .iter()
            .filter(|tick| tick.is_labelled())
            .map(|tick| {
                let centre = self.place(tick.value) * length;
                let half = match direction {
                    Direction::Across => label_width(tick) / 2.0,
                    Direction::Up => theme::TICK_TEXT / 2.0,
                };
                (centre - half, centre + half)
            })
            .collect();
        // An axis may run downwards.
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        let apart = match direction {
            Direction::Across => theme::TICK_APART,
            Direction::Up => 0.5,
        };
        spans.windows(2).all(|pair| pair[0].1 + apart <= pair[1].0)
    }
}

/// Width of the widest line of a tick's label.
pub fn label_width(tick: &Tick) -> f64 {
    tick.label.iter().map(|line| line.width(theme::TICK_TEXT)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        // Logarithm and exponential each round once or twice: 1e-14 relative leaves room for ten roundings.
        (a - b).abs() <= 1e-14 * a.abs().max(b.abs()) * 10.0
    }

    #[test]
    fn a_geometric_progression_is_spaced_logarithmically_and_an_arithmetic_one_linearly() {
        let cases: [(&[f64], Spacing); 8] = [
            (&[0.01, 0.0219, 0.0478, 0.1046, 0.2287, 0.5], Spacing::Log),
            (&[5.0, 10.0, 20.0, 30.0], Spacing::Log),
            (&[1.0, 2.0, 3.0, 4.0, 5.0], Spacing::Linear),
            (&[5.0, 10.0, 15.0], Spacing::Linear),
            (&[0.0, 1.0, 10.0, 100.0], Spacing::Linear),
            (&[-1.0, 1.0, 10.0, 100.0], Spacing::Linear),
            (&[1.0, 1000.0], Spacing::Linear),
            (&[3.0], Spacing::Linear),
        ];
        for (values, expected) in cases {
            assert_eq!(spacing_of_values(values, AxisScale::Auto), expected, "{values:?}");
        }
        assert_eq!(spacing_of_values(&[1.0, 2.0, 3.0], AxisScale::Log), Spacing::Log);
        assert_eq!(spacing_of_values(&[1.0, 10.0, 100.0], AxisScale::Linear), Spacing::Linear);
    }

    #[test]
    fn measures_are_spaced_logarithmically_from_two_decades_on() {
        assert_eq!(spacing_of_measures(1e-4, 1e-1, AxisScale::Auto), Spacing::Log);
        assert_eq!(spacing_of_measures(0.1, 1.0, AxisScale::Auto), Spacing::Linear);
        assert_eq!(spacing_of_measures(0.0, 1e3, AxisScale::Auto), Spacing::Linear);
    }

    #[test]
    fn cell_edges_are_the_middles_and_outer_cells_are_symmetric() {
        assert_eq!(cell_edges(&[1.0, 2.0, 4.0], Spacing::Linear), [0.5, 1.5, 3.0, 5.0]);
        let edges = cell_edges(&[0.01, 0.1, 1.0], Spacing::Log);
        let root = 10f64.sqrt();
        for (edge, expected) in edges.iter().zip([0.01 / root, 0.01 * root, 0.1 * root, root]) {
            assert!(close(*edge, expected), "{edge} {expected}");
        }
    }

    #[test]
    fn one_value_has_a_cell_around_it_and_none_has_no_edges() {
        assert_eq!(cell_edges(&[8.0], Spacing::Linear), [4.0, 12.0]);
        assert_eq!(cell_edges(&[0.0], Spacing::Linear), [-0.5, 0.5]);
        let log = cell_edges(&[1.0], Spacing::Log);
        assert!(close(log[0] * log[1], 1.0) && log[0] < 1.0);
        assert!(cell_edges(&[], Spacing::Linear).is_empty());
    }

    #[test]
    fn few_values_are_all_labelled_where_they_fit_and_rounded_where_they_do_not() {
        let values = [0.01, 0.021867, 0.047818, 0.104564, 0.228653, 0.5];
        let axis = Axis::of_values(&values, AxisScale::Auto);
        let wide = axis.ticks(160.0, Direction::Across).ticks;
        assert_eq!(wide.iter().map(|tick| tick.value).collect::<Vec<_>>(), values);
        let narrow = axis.ticks(70.0, Direction::Across).ticks;
        assert!(narrow.iter().filter(|tick| tick.is_labelled()).all(|tick| !values[1..5].contains(&tick.value)));
        assert!(narrow.iter().filter(|tick| tick.is_labelled()).count() >= 2);
    }

    #[test]
    fn labels_never_touch_whatever_the_length() {
        for length in 20..300 {
            for axis in [
                Axis::of_range(0.0, 1.0, Spacing::Linear, 0.0, Marks::Round { whole: false }),
                Axis::of_range(1e-4, 3.0, Spacing::Log, 0.05, Marks::Round { whole: false }),
                Axis::of_range(-1234.5, 99.0, Spacing::Linear, 0.05, Marks::Round { whole: false }),
            ] {
                let ticks = axis.ticks(f64::from(length), Direction::Across).ticks;
                let labelled = ticks.iter().filter(|tick| tick.is_labelled()).count();
                // Two labels are the least that say something; below that length they may touch.
                assert!(labelled <= 2 || axis.stand_apart(&ticks, f64::from(length), Direction::Across), "{length}");
            }
        }
    }

    #[test]
    fn names_break_into_lines_and_turn_when_they_still_do_not_fit() {
        let names: Vec<Rich> =
            ["batch top k", "matching pursuit", "pca"].iter().map(|name| Rich::plain(name)).collect();
        let axis = Axis::of_names(&names);
        let wide = axis.ticks(300.0, Direction::Across);
        assert!(!wide.turned && wide.ticks.iter().all(|tick| tick.label.len() == 1));
        let middling = axis.ticks(120.0, Direction::Across);
        assert!(!middling.turned && middling.ticks[1].label.len() == 2);
        assert!(axis.ticks(60.0, Direction::Across).turned);
        assert!(!axis.ticks(60.0, Direction::Up).turned);
    }

    #[test]
    fn an_empty_range_is_widened_around_its_value() {
        let axis = Axis::of_range(0.3, 0.3, Spacing::Linear, 0.0, Marks::Round { whole: false });
        assert!(axis.low < 0.3 && axis.high > 0.3);
        assert!((axis.place(0.3) - 0.5).abs() < 1e-9);
    }
}
