//! Rows as plain columns, and the few questions figures ask of them.

use std::collections::BTreeMap;

use super::error::{FigureError, near_names};
use crate::table::bootstrap;

/// A column; what is undefined, NaN or infinite is `None`.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Numbers of any type.
    Number(Vec<Option<f64>>),
    /// Text, and truth values as `true` and `false`.
    Text(Vec<Option<String>>),
}

/// Rows of a table, as far as a figure reads them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Number of rows.
    pub height: usize,
    /// Every column name the table has, for advice.
    pub names: Vec<String>,
    /// The columns that were read.
    pub columns: Vec<(String, Column)>,
}

/// The different values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Levels {
    /// Numbers.
    Numbers(Vec<f64>),
    /// Words.
    Names(Vec<String>),
}

/// A column as numbered levels.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyed {
    /// The different values.
    pub levels: Levels,
    /// For each row the number of its level; `None` where the value is undefined.
    pub of_row: Vec<Option<usize>>,
}

/// In which order levels are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Numbers rise; words stand as the rows first have them.
    Rising,
    /// As the rows first have them.
    Rows,
}

impl Levels {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Levels::Numbers(numbers) => numbers.len(),
            Levels::Names(names) => names.len(),
        }
    }

    /// True where every row is undefined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// The column, if there is one of this name.
    pub fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// The column that part `at` of a figure asks for.
    pub fn column(&self, at: &str, name: &str) -> Result<&Column, FigureError> {
        self.find(name).ok_or_else(|| FigureError::UnknownColumn {
            at: at.to_owned(),
            column: name.to_owned(),
            near: near_names(name, &self.names),
        })
    }

    /// The column as numbers.
    pub fn numbers(&self, at: &str, name: &str) -> Result<&[Option<f64>], FigureError> {
        match self.column(at, name)? {
            Column::Number(numbers) => Ok(numbers),
            Column::Text(_) => Err(FigureError::NotNumeric { at: at.to_owned(), column: name.to_owned() }),
        }
    }

    /// The column as numbered levels.
    pub fn keyed(&self, at: &str, name: &str, order: Order) -> Result<Keyed, FigureError> {
        Ok(match (self.column(at, name)?, order) {
            (Column::Number(numbers), Order::Rising) => rising(numbers),
            (Column::Number(numbers), Order::Rows) => {
                let (firsts, of_row) = as_met(numbers.iter().map(|number| number.map(sortable)));
                Keyed { levels: Levels::Numbers(firsts.into_iter().map(from_sortable).collect()), of_row }
            }
            (Column::Text(words), _) => {
                let (firsts, of_row) = as_met(words.iter().map(|word| word.as_deref()));
                Keyed { levels: Levels::Names(firsts.into_iter().map(str::to_owned).collect()), of_row }
            }
        })
    }

    /// For each row, whether its run diverged; false for all where the table has no `status`.
    pub fn diverged(&self) -> Vec<bool> {
        match self.find("status") {
            Some(Column::Text(words)) => words.iter().map(|word| word.as_deref() == Some("diverged")).collect(),
            _ => vec![false; self.height],
        }
    }

    /// For each row its seed as a key; `None` for all where seeds were brought together before drawing, since rows then
    /// differ in other things alone.
    pub fn seeds(&self, reduction: &str) -> Vec<Option<u64>> {
        match self.find("seed") {
            Some(Column::Number(seeds)) if matches!(reduction, "" | "none") => {
                seeds.iter().map(|seed| seed.map(sortable)).collect()
            }
            _ => vec![None; self.height],
        }
    }

    /// Of `candidates`, the columns that differ between rows that agree in all of `keys`, a level number for each row.
    pub fn varying_within(&self, keys: &[&[Option<usize>]], candidates: &[String]) -> Vec<String> {
        let key = |row: usize| keys.iter().map(|key| key[row]).collect::<Option<Vec<usize>>>();
        let varies = |name: &&String| {
            let Ok(column) = self.keyed("", name, Order::Rising) else { return false };
            let mut seen: BTreeMap<Vec<usize>, Option<usize>> = BTreeMap::new();
            (0..self.height).any(|row| match key(row) {
                None => false,
                Some(key) => *seen.entry(key).or_insert(column.of_row[row]) != column.of_row[row],
            })
        };
        candidates.iter().filter(varies).cloned().collect()
    }
}

fn rising(numbers: &[Option<f64>]) -> Keyed {
    let mut levels: Vec<f64> = numbers.iter().flatten().copied().collect();
    levels.sort_by(f64::total_cmp);
    // Minus zero and zero are one level.
    levels.dedup();
    let level = |number: &f64| levels.partition_point(|level| level < number);
    let of_row = numbers.iter().map(|number| number.as_ref().map(level)).collect();
    Keyed { levels: Levels::Numbers(levels), of_row }
}

/// Numbers the different values as they are first met.
fn as_met<T: Ord + Copy>(values: impl Iterator<Item = Option<T>>) -> (Vec<T>, Vec<Option<usize>>) {
    let mut numbers: BTreeMap<T, usize> = BTreeMap::new();
    let mut firsts = Vec::new();
    let of_row = values
        .map(|value| {
            value.map(|value| {
                *numbers.entry(value).or_insert_with(|| {
                    firsts.push(value);
                    firsts.len() - 1
                })
            })
        })
        .collect();
    (firsts, of_row)
}

/// The bits of a finite number as an integer that can be a key; zero has one form.
fn sortable(number: f64) -> u64 {
    (number + 0.0).to_bits()
}

fn from_sortable(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// Mean, spread and count of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Standard deviation of the sample (n - 1); zero for one number.
    pub sd: f64,
    /// Ends of the 95 % bootstrap interval of the mean, where it was asked for and there are seeds enough.
    pub interval: Option<(f64, f64)>,
}

impl Summary {
    /// Of at least one number; `None` of none.
    pub fn of(numbers: &[f64]) -> Option<Summary> {
        let n = numbers.len();
        if n == 0 {
            return None;
        }
        let mean = numbers.iter().sum::<f64>() / n as f64;
        let squares: f64 = numbers.iter().map(|number| (number - mean) * (number - mean)).sum();
        let (min, max) = (
            numbers.iter().copied().fold(f64::INFINITY, f64::min),
            numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        );
        let sd = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
        // A mean of equal numbers may round past them.
        Some(Summary { n, mean: mean.clamp(min, max), min, max, sd, interval: None })
    }

    /// Of numbers with their seeds: the spread is that over seeds, each with the mean of its numbers, so that what else
    /// differs between them adds nothing to it.
    pub fn over_seeds(numbers: &[(Option<u64>, f64)]) -> Option<Summary> {
        let mut by_seed: BTreeMap<Option<u64>, Vec<f64>> = BTreeMap::new();
        for (seed, number) in numbers {
            by_seed.entry(*seed).or_default().push(*number);
        }
        let means: Vec<f64> = by_seed.values().filter_map(|own| Summary::of(own)).map(|own| own.mean).collect();
        let mean = Summary::of(&numbers.iter().map(|(_, number)| *number).collect::<Vec<f64>>())?.mean;
        // Seeds may have different numbers of rows; the mean is that of all rows.
        let summary = Summary::of(&means)?;
        Some(Summary { mean, min: summary.min.min(mean), max: summary.max.max(mean), ..summary })
    }

    /// The same with what the band needs: an interval is work.
    pub fn for_band(numbers: &[(Option<u64>, f64)], band: super::spec::Band) -> Option<Summary> {
        let summary = Summary::over_seeds(numbers)?;
        if band != super::spec::Band::Bootstrap {
            return Some(summary);
        }
        let seeded = numbers.iter().filter_map(|(seed, number)| Some(((*seed)?, *number)));
        let means: Vec<f64> = bootstrap::by_seed(seeded).into_iter().map(|(_, mean)| mean).collect();
        let interval = bootstrap::interval(&means);
        let around = |i: bootstrap::Interval| (i.low.min(summary.mean), i.high.max(summary.mean));
        Some(Summary { interval: interval.map(around), ..summary })
    }

    /// Ends of the band around the mean.
    pub fn band(&self, band: super::spec::Band) -> (f64, f64) {
        match band {
            super::spec::Band::None => (self.mean, self.mean),
            super::spec::Band::Seeds => (self.min, self.max),
            super::spec::Band::Sd => (self.mean - self.sd, self.mean + self.sd),
            super::spec::Band::Bootstrap => self.interval.unwrap_or((self.mean, self.mean)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(words: &[&str]) -> Column {
        Column::Text(words.iter().map(|word| (!word.is_empty()).then(|| (*word).to_owned())).collect())
    }

    fn number(numbers: &[f64]) -> Column {
        Column::Number(numbers.iter().map(|number| number.is_finite().then_some(*number)).collect())
    }

    #[test]
    fn levels_rise_or_follow_the_rows_and_undefined_rows_have_none() {
        let table = Table::new(vec![
            ("p", number(&[1.0, 0.2, f64::NAN, 0.2, -0.0, 0.0])),
            ("method", text(&["topk", "relu", "", "topk", "relu", "relu"])),
        ]);
        let rising = table.keyed("x", "p", Order::Rising).unwrap();
        assert_eq!(rising.levels, Levels::Numbers(vec![0.0, 0.2, 1.0]));
        assert_eq!(rising.of_row, [Some(2), Some(1), None, Some(1), Some(0), Some(0)]);
        let rows = table.keyed("x", "p", Order::Rows).unwrap();
        assert_eq!(rows.levels, Levels::Numbers(vec![1.0, 0.2, 0.0]));
        let words = table.keyed("x", "method", Order::Rising).unwrap();
        assert_eq!(words.levels, Levels::Names(vec!["topk".into(), "relu".into()]));
        assert_eq!(words.of_row[2], None);
    }

    #[test]
    fn a_missing_column_is_named_with_its_neighbours() {
        let table = Table::new(vec![("mcc", number(&[1.0])), ("method", text(&["topk"]))]);
        let error = table.numbers("colour", "mc").unwrap_err();
        assert!(matches!(&error, FigureError::UnknownColumn { near, .. } if near == &["mcc".to_owned()]));
        assert!(matches!(table.numbers("y", "method"), Err(FigureError::NotNumeric { .. })));
    }

    #[test]
    fn what_varies_inside_a_cell_is_found() {
        let table = Table::new(vec![
            ("p", number(&[0.1, 0.1, 0.2, 0.2])),
            ("seed", number(&[0.0, 1.0, 0.0, 1.0])),
            ("d", number(&[5.0, 5.0, 10.0, 10.0])),
        ]);
        let p = table.keyed("x", "p", Order::Rising).unwrap();
        let names = ["seed", "d", "absent"].map(str::to_owned);
        assert_eq!(table.varying_within(&[&p.of_row], &names), ["seed"]);
    }

    #[test]
    fn summaries_are_those_worked_out_by_hand() {
        let summary = Summary::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((summary.n, summary.mean, summary.min, summary.max), (3, 3.0, 1.0, 6.0));
        assert_eq!(summary.sd, 7f64.sqrt());
        assert_eq!(Summary::of(&[4.0]).unwrap().sd, 0.0);
        assert!(Summary::of(&[]).is_none());
    }

    #[test]
    fn a_spread_over_seeds_is_that_of_their_means() {
        let seed = |seed: u64| Some(seed);
        // Two widths, 1 and 3 apart by 2, for each of two seeds 0.2 apart.
        let numbers = [(seed(0), 1.0), (seed(0), 3.0), (seed(1), 1.2), (seed(1), 3.2)];
        let summary = Summary::over_seeds(&numbers).unwrap();
        assert_eq!((summary.n, summary.min, summary.max), (2, 2.0, 2.2));
        assert!((summary.mean - 2.1).abs() < 1e-12);
        let reduced = numbers.map(|(_, number)| (None, number));
        assert_eq!(Summary::over_seeds(&reduced).unwrap().n, 1);
        assert!(Summary::over_seeds(&[]).is_none());
    }

    #[test]
    fn an_interval_is_taken_over_the_means_of_seeds_and_only_where_it_is_asked_for() {
        use crate::figure::spec::Band;
        // Two numbers a seed, whose means are 1, 2, 4 and 7.
        let numbers: Vec<(Option<u64>, f64)> = [1.0, 2.0, 4.0, 7.0]
            .into_iter()
            .enumerate()
            .flat_map(|(seed, x)| [(Some(seed as u64), x - 0.5), (Some(seed as u64), x + 0.5)])
            .collect();
        let expected = bootstrap::interval(&[1.0, 2.0, 4.0, 7.0]).unwrap();
        let summary = Summary::for_band(&numbers, Band::Bootstrap).unwrap();
        assert_eq!(summary.band(Band::Bootstrap), (expected.low, expected.high));
        assert_eq!(Summary::for_band(&numbers, Band::Sd).unwrap().interval, None);
        let two = Summary::for_band(&numbers[..4], Band::Bootstrap).unwrap();
        assert_eq!((two.interval, two.band(Band::Bootstrap)), (None, (1.5, 1.5)));
        let reduced: Vec<(Option<u64>, f64)> = numbers.iter().map(|(_, x)| (None, *x)).collect();
        assert_eq!(Summary::for_band(&reduced, Band::Bootstrap).unwrap().interval, None);
    }

    #[test]
    fn only_rows_that_say_so_diverged() {
        let table = Table::new(vec![("status", text(&["ok", "diverged", "degenerate", ""]))]);
        assert_eq!(table.diverged(), [false, true, false, false]);
        assert_eq!(Table::new(vec![("p", number(&[1.0]))]).diverged(), [false]);
    }
}
