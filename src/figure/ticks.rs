//! Where an axis has its ticks and what stands at them.
//!
//! Linear axes tick on steps of 1, 2 or 5 times a power of ten. Log axes tick on decades, written as ten with a raised
//! exponent, with minor ticks at 2 to 9; where less than a decade and a half is shown they label 1, 2 and 5 times a
//! power of ten, and steps of a linear axis where even these are too few.

use super::text::{Rich, exponent, fixed, number, power_of_ten, without_needless_zeros};

/// A log axis that spans less than this many decades labels more than its decades.
const FEW_DECADES: f64 = 1.5;
/// Ends of an axis are rounded numbers; a tick this close to an end, relative to the step, is on it.
const ON_THE_END: f64 = 1e-9;

/// One tick.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where it stands on the axis.
    pub value: f64,
    /// Its label, one entry a line; a minor tick has none.
    pub label: Vec<Rich>,
}

impl Tick {
    fn labelled(value: f64, label: Rich) -> Tick {
        Tick { value, label: vec![label] }
    }

    fn minor(value: f64) -> Tick {
        Tick { value, label: Vec::new() }
    }

    /// True where something is written at the tick.
    pub fn is_labelled(&self) -> bool {
        !self.label.is_empty()
    }
}

/// At most `most` ticks (at least two are asked for) on the finest 1-2-5 step that allows it; with `whole`, on whole
/// numbers only. Empty if the range is.
pub fn linear(low: f64, high: f64, most: usize, whole: bool) -> Vec<Tick> {
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Vec::new();
    }
    let finest = exponent(high - low) - 2;
    let steps = (if whole { finest.max(0) } else { finest }..finest.max(0) + 6)
        .flat_map(|power| [1i64, 2, 5].map(|mantissa| (mantissa, power)));
    for (mantissa, power) in steps {
        let (first, last) = steps_inside(low, high, mantissa, power);
        if last - first < most.max(2) as i64 {
            return (first..=last).map(|i| linear_tick(i * mantissa, power)).collect();
        }
    }
    Vec::new()
}

/// Numbers i such that i × mantissa × 10^power lies in the range: first and last.
fn steps_inside(low: f64, high: f64, mantissa: i64, power: i32) -> (i64, i64) {
    let step = scaled(mantissa, power);
    ((low / step - ON_THE_END).ceil() as i64, (high / step + ON_THE_END).floor() as i64)
}

/// count × 10^power, correctly rounded: parsed as written, since 3 × 0.1 is not 0.3.
fn scaled(count: i64, power: i32) -> f64 {
    format!("{count}e{power}").parse().unwrap_or(count as f64)
}

fn linear_tick(count: i64, power: i32) -> Tick {
    let value = scaled(count, power);
    let largest = exponent(value);
    let label = if power < -4 || largest > 5 {
        // Enough digits to tell neighbours apart.
        number(value, (largest - power + 1).max(1) as usize)
    } else {
        Rich::plain(&fixed(value, (-power).max(0) as usize))
    };
    Tick::labelled(value, label)
}

/// Ticks of a log axis over a positive range, at most `most` of them labelled.
pub fn logarithmic(low: f64, high: f64, most: usize) -> Vec<Tick> {
    if !(low > 0.0 && high.is_finite() && low < high) {
        return Vec::new();
    }
    let (from, to) = (libm::log10(low), libm::log10(high));
    let first = (from - ON_THE_END).ceil() as i32;
    let last = (to + ON_THE_END).floor() as i32;
    if last > first && to - from >= FEW_DECADES {
        return decades(low, high, (first, last), most);
    }
    let labels_at = [&[1, 2, 5][..], &[1, 3], &[1]].into_iter().find_map(|digits| {
        let ticks = digits_inside(low, high, digits);
        (2..=most.max(2)).contains(&ticks.len()).then_some(ticks)
    });
    let labelled = labels_at.unwrap_or_else(|| linear(low, high, most, false));
    with_minor(labelled, digits_inside(low, high, &[1, 2, 3, 4, 5, 6, 7, 8, 9]))
}

/// Labels on every decade, or every second, third .. where there are too many; minor ticks between.
fn decades(low: f64, high: f64, (first, last): (i32, i32), most: usize) -> Vec<Tick> {
    let stride = (1..).find(|stride| (last - first) / stride < most.max(2) as i32).unwrap_or(1);
    let labelled = (first..=last)
        .filter(|power| power.rem_euclid(stride) == 0)
        .map(|power| Tick::labelled(scaled(1, power), power_of_ten(power)))
        .collect();
    let minor = match stride {
        1 => digits_inside(low, high, &[2, 3, 4, 5, 6, 7, 8, 9]),
        _ => digits_inside(low, high, &[1]),
    };
    with_minor(labelled, minor)
}

/// Digit × 10^k for every k that lies in the range, in rising order.
fn digits_inside(low: f64, high: f64, digits: &[i64]) -> Vec<Tick> {
    let (below, above) = (low * (1.0 - ON_THE_END), high * (1.0 + ON_THE_END));
    (exponent(low)..=exponent(high))
        .flat_map(|power| digits.iter().map(move |digit| scaled(*digit, power)))
        .filter(|value| (below..=above).contains(value))
        .map(|value| Tick::labelled(value, number(value, 1)))
        .collect()
}

/// The labelled ticks and, without labels, those of `others` that are not among them; in rising order.
fn with_minor(mut labelled: Vec<Tick>, others: Vec<Tick>) -> Vec<Tick> {
    let new: Vec<Tick> = others
        .into_iter()
        .filter(|other| labelled.iter().all(|tick| (tick.value - other.value).abs() > ON_THE_END * other.value.abs()))
        .map(|other| Tick::minor(other.value))
        .collect();
    labelled.extend(new);
    labelled.sort_by(|a, b| a.value.total_cmp(&b.value));
    labelled
}

/// How a value of a short axis or a panel title is written: in full if three significant digits or a whole number say
/// it, else rounded to two, or to as many digits as tell it from every other value.
pub fn value_labels(values: &[f64]) -> Vec<Rich> {
    let mut labels: Vec<Rich> = Vec::new();
    for digits in 2..=9 {
        labels = values.iter().map(|value| value_label(*value, digits)).collect();
        if labels.iter().enumerate().all(|(i, label)| !labels[..i].contains(label)) {
            break;
        }
    }
    labels
}

fn value_label(value: f64, digits: usize) -> Rich {
    // A swept value that is off 0.5 by rounding is 0.5.
    let value: f64 = format!("{value:.11e}").parse().unwrap_or(value);
    if value.fract() == 0.0 && value.abs() < 1e5 {
        return Rich::plain(&fixed(value, 0));
    }
    let shortest = format!("{value:e}");
    let n_digits = shortest.split('e').next().map_or(0, |mantissa| mantissa.bytes().filter(u8::is_ascii_digit).count());
    if n_digits <= 3 {
        return number(value, 3.max(digits));
    }
    // A rounded value keeps its zeros: 0.10 beside 0.023 says that both are rounded.
    let rounded: f64 = format!("{value:.*e}", digits - 1).parse().unwrap_or(value);
    match exponent(rounded) {
        power @ -3..5 => Rich::plain(&fixed(rounded, (digits as i32 - 1 - power).max(0) as usize)),
        _ => number(value, digits),
    }
}

/// A number for running text, such as a caption: as a label would have it, in plain characters.
pub fn in_words(value: f64) -> String {
    let written =
        if value == 0.0 || (1e-3..1e6).contains(&value.abs()) { format!("{value:.6}") } else { format!("{value:e}") };
    if written.contains('e') { written } else { without_needless_zeros(written) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: &[Tick]) -> Vec<String> {
        ticks.iter().filter(|tick| tick.is_labelled()).map(|tick| tick.label[0].read()).collect()
    }

    #[test]
    fn linear_ticks_are_round_at_awkward_ranges() {
        let cases: [(f64, f64, usize, &[&str]); 8] = [
            (0.0, 1.0, 6, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
            (0.0, 1.0, 3, &["0.0", "0.5", "1.0"]),
            (-1.5, 1.5, 4, &["\u{2212}1", "0", "1"]),
            (0.137, 0.883, 5, &["0.2", "0.4", "0.6", "0.8"]),
            (3.0, 40.0, 5, &["10", "20", "30", "40"]),
            (0.9999, 1.0001, 3, &["0.9999", "1.0000", "1.0001"]),
            (-0.3, 0.1, 5, &["\u{2212}0.3", "\u{2212}0.2", "\u{2212}0.1", "0.0", "0.1"]),
            (0.0, 2.4e-6, 4, &["0", "10^\u{2212}6", "2×10^\u{2212}6"]),
        ];
        for (low, high, most, expected) in cases {
            assert_eq!(labels(&linear(low, high, most, false)), expected, "{low}..{high}");
        }
    }

    #[test]
    fn linear_ticks_stay_inside_and_are_never_more_than_asked_for() {
        for i in 0..400 {
            // Ranges from 1e-8 to 1e8 wide, off zero by irrational amounts.
            let width = scaled(1, i % 17 - 8) * (1.0 + f64::from(i) * 0.618_034);
            let low = -width * (f64::from(i % 7) * 0.731);
            for most in 2..=8 {
                let ticks = linear(low, low + width, most, false);
                assert!(ticks.len() <= most && !ticks.is_empty(), "{low} {width} {most}");
                for tick in ticks {
                    let slack = width * 1e-9;
                    assert!(tick.value >= low - slack && tick.value <= low + width + slack);
                }
            }
        }
    }

    #[test]
    fn counts_have_whole_ticks_only() {
        assert_eq!(labels(&linear(0.0, 3.0, 8, true)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&linear(4.0, 21.0, 5, true)), ["5", "10", "15", "20"]);
    }

    #[test]
    fn empty_and_broken_ranges_have_no_ticks() {
        assert!(linear(1.0, 1.0, 5, false).is_empty());
        assert!(linear(f64::NAN, 1.0, 5, false).is_empty());
        assert!(logarithmic(0.0, 1.0, 5).is_empty());
        assert!(logarithmic(-1.0, 1.0, 5).is_empty());
    }

    #[test]
    fn log_ticks_label_decades_and_mark_two_to_nine() {
        let ticks = logarithmic(0.01, 1.0, 6);
        assert_eq!(labels(&ticks), ["10^\u{2212}2", "10^\u{2212}1", "10^0"]);
        assert_eq!(ticks.len(), 3 + 16);
        assert_eq!(ticks[1].value, 0.02);
    }

    #[test]
    fn a_log_axis_of_many_decades_skips_some_and_marks_the_rest() {
        let ticks = logarithmic(1e-12, 1.0, 5);
        assert_eq!(labels(&ticks), ["10^\u{2212}12", "10^\u{2212}9", "10^\u{2212}6", "10^\u{2212}3", "10^0"]);
        assert_eq!(ticks.len(), 13);
    }

    #[test]
    fn a_short_log_axis_labels_one_two_five() {
        assert_eq!(labels(&logarithmic(0.018, 0.55, 6)), ["0.02", "0.05", "0.1", "0.2", "0.5"]);
        assert_eq!(labels(&logarithmic(2.0, 60.0, 6)), ["2", "5", "10", "20", "50"]);
        assert_eq!(labels(&logarithmic(2e-6, 6e-6, 6)), ["2×10^\u{2212}6", "5×10^\u{2212}6"]);
    }

    #[test]
    fn a_very_short_log_axis_falls_back_to_linear_steps() {
        assert_eq!(labels(&logarithmic(3.05, 4.4, 4)), ["3.5", "4.0"]);
    }

    #[test]
    fn short_axes_show_their_values_in_full_or_rounded_but_never_two_alike() {
        let read = |values: &[f64]| value_labels(values).iter().map(Rich::read).collect::<Vec<_>>();
        assert_eq!(read(&[5.0, 10.0, 1024.0]), ["5", "10", "1024"]);
        assert_eq!(read(&[0.01, 0.021867, 0.047818, 0.125]), ["0.01", "0.022", "0.048", "0.125"]);
        assert_eq!(read(&[0.104564, 0.228653, 12.3456]), ["0.10", "0.23", "12"]);
        assert_eq!(read(&[0.1 + 0.2, 0.5000000000000001]), ["0.3", "0.5"]);
        assert_eq!(read(&[0.50001, 0.50002]), ["0.50001", "0.50002"]);
        assert_eq!(read(&[1e-5, 3e-5]), ["10^\u{2212}5", "3×10^\u{2212}5"]);
    }
}
