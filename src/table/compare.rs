//! Methods beside each other: the mean of a score over seeds with its interval, and the difference of each pair.

use polars::prelude::{AnyValue, Column as Series, DataFrame, DataType, IdxCa, IdxSize, NamedFrom, PolarsError};

use super::bootstrap::{self, Interval, Verdict};
use super::names::unknown;
use super::query::QueryError;

/// What is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The column whose values are compared, such as `method`.
    pub column: String,
    /// Scores.
    pub scores: Vec<String>,
    /// Columns whose every combination is a comparison of its own.
    pub by: Vec<String>,
}

/// One row for each value of the column and score: `mean` over seeds, ends `low` and `high` of its 95 % interval, `against`
/// null. Then one for each pair, whose `mean` is that of the differences over common seeds, the row's value less `against`;
/// `verdict` says whether they can be told apart. All rows of one seed are averaged first; rows without a value are left out.
///
/// # Errors
/// A name that is no column, or a score that is no number.
pub fn compare(rows: &DataFrame, what: &Compare) -> Result<DataFrame, QueryError> {
    let seeds = seeds(rows)?;
    let by = what.by.iter().map(|name| levels(rows, name)).collect::<Result<Vec<_>, _>>()?;
    let (values, value_of) = levels(rows, &what.column)?;
    let key = |row: usize| by.iter().map(|(_, of)| of[row]).collect::<Vec<usize>>();
    let mut places: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    for row in 0..rows.height() {
        match places.iter_mut().find(|(place, _)| *place == key(row)) {
            Some((_, own)) => own.push(row),
            None => places.push((key(row), vec![row])),
        }
    }
    let mut answer = Answer::default();
    for score in &what.scores {
        let numbers = numbers(rows, score)?;
        for (_, own) in &places {
            // In the order in which the rows first have them.
            let of_value = |value: usize| {
                let rows: Vec<usize> = own.iter().copied().filter(|row| value_of[*row] == value).collect();
                let known = rows.iter().filter_map(|&row| Some((seeds[row]?, numbers[row]?)));
                rows.first().map(|&first| (first, bootstrap::by_seed(known)))
            };
            let all: Vec<(usize, Vec<(u64, f64)>)> = (0..values.len()).filter_map(of_value).collect();
            for (first, means) in &all {
                answer.mean(*first, score, means);
            }
            for (i, (first, a)) in all.iter().enumerate() {
                for (second, b) in &all[i + 1..] {
                    answer.pair(*first, *second, score, &bootstrap::paired(a, b));
                }
            }
        }
    }
    let failed = |error: PolarsError| QueryError::Failed { action: "compare", reason: error.to_string() };
    answer.frame(rows, what).map_err(failed)
}

/// Columns of the answer, a row at a time.
#[derive(Default)]
struct Answer {
    /// Rows that the keys are those of.
    first: Vec<IdxSize>,
    /// Row that `against` is that of.
    against: Vec<Option<IdxSize>>,
    score: Vec<String>,
    seeds: Vec<i64>,
    mean: Vec<Option<f64>>,
    low: Vec<Option<f64>>,
    high: Vec<Option<f64>>,
    verdict: Vec<Option<&'static str>>,
}

impl Answer {
    fn mean(&mut self, row: usize, score: &str, means: &[(u64, f64)]) {
        let numbers: Vec<f64> = means.iter().map(|(_, x)| *x).collect();
        let mean = (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64);
        let interval = bootstrap::interval(&numbers);
        let verdict = interval.is_none().then_some(Verdict::TooFewSeeds);
        self.push((row, None), score, (numbers.len(), mean, interval), verdict);
    }

    fn pair(&mut self, row: usize, against: usize, score: &str, found: &bootstrap::Paired) {
        let numbers = (found.n, found.mean, found.interval);
        self.push((row, Some(against as IdxSize)), score, numbers, Some(found.verdict()));
    }

    fn push(
        &mut self,
        (row, against): (usize, Option<IdxSize>),
        score: &str,
        (seeds, mean, interval): (usize, Option<f64>, Option<Interval>),
        verdict: Option<Verdict>,
    ) {
        self.first.push(row as IdxSize);
        self.against.push(against);
        self.score.push(score.to_owned());
        self.seeds.push(seeds as i64);
        self.mean.push(mean);
        self.low.push(interval.map(|i| i.low));
        self.high.push(interval.map(|i| i.high));
        self.verdict.push(verdict.map(Verdict::words));
    }

    fn frame(self, rows: &DataFrame, what: &Compare) -> Result<DataFrame, PolarsError> {
        let height = self.first.len();
        let taken = rows.take(&IdxCa::new("".into(), self.first))?;
        let mut columns: Vec<Series> = Vec::new();
        for name in what.by.iter().chain([&what.column]) {
            columns.push(taken.column(name)?.clone());
        }
        let against = rows.column(&what.column)?.take(&self.against.into_iter().collect::<IdxCa>())?;
        columns.push(against.with_name("against".into()));
        columns.push(Series::new("score".into(), self.score));
        columns.push(Series::new("seeds".into(), self.seeds));
        columns.push(Series::new("mean".into(), self.mean));
        columns.push(Series::new("low".into(), self.low));
        columns.push(Series::new("high".into(), self.high));
        columns.push(Series::new("verdict".into(), self.verdict));
        DataFrame::new(height, columns)
    }
}

fn column<'a>(rows: &'a DataFrame, name: &str) -> Result<&'a Series, QueryError> {
    let names: Vec<&str> = rows.columns().iter().map(|column| column.name().as_str()).collect();
    rows.column(name).map_err(|_| unknown(name, &names))
}

/// The different values of a column as the rows first have them, and which each row has.
fn levels(rows: &DataFrame, name: &str) -> Result<(Vec<String>, Vec<usize>), QueryError> {
    let column = column(rows, name)?;
    let mut levels: Vec<String> = Vec::new();
    let of = |row: usize| {
        let text = column.get(row).unwrap_or(AnyValue::Null).to_string();
        levels.iter().position(|level| *level == text).unwrap_or_else(|| {
            levels.push(text);
            levels.len() - 1
        })
    };
    let of_row = (0..rows.height()).map(of).collect();
    Ok((levels, of_row))
}

fn numbers(rows: &DataFrame, name: &str) -> Result<Vec<Option<f64>>, QueryError> {
    let column = column(rows, name)?;
    let wrong = |reason: &str| QueryError::Expression { place: "score", text: name.to_owned(), reason: reason.into() };
    if !(column.dtype().is_primitive_numeric() || *column.dtype() == DataType::Boolean) {
        return Err(wrong("holds no numbers, so it has no mean"));
    }
    let cast = column.cast(&DataType::Float64).map_err(|error| wrong(&error.to_string()))?;
    let numbers = cast.f64().map_err(|error| wrong(&error.to_string()))?;
    Ok(numbers.iter().map(|x| x.filter(|x| x.is_finite())).collect())
}

fn seeds(rows: &DataFrame) -> Result<Vec<Option<u64>>, QueryError> {
    let missing = |_| QueryError::NotRows { missing: "seed".to_string() };
    let column = rows.column("seed").map_err(missing)?;
    Ok((0..rows.height()).map(|row| column.get(row).ok()?.extract::<u64>()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use polars::prelude::df;

    /// Two widths, three methods, four seeds; `b` is `a` less .1, `c` is `a` give or take, with a seed missing at width 2.
    fn rows() -> DataFrame {
        let (mut width, mut method, mut seed, mut mcc) = (vec![], vec![], vec![], vec![]);
        for w in [1i64, 2] {
            for s in 0..4i64 {
                let a = 0.5 + 0.1 * s as f64 * w as f64;
                let c = a + if s % 2 == 0 { 0.02 } else { -0.02 };
                for (name, x) in [("a", Some(a)), ("b", Some(a - 0.1)), ("c", (w == 1 || s < 2).then_some(c))] {
                    width.push(w);
                    method.push(name);
                    seed.push(s);
                    mcc.push(x);
                }
            }
        }
        df!["width" => width, "method" => method, "seed" => seed, "mcc" => mcc].expect("columns")
    }

    fn ask(by: &[&str]) -> DataFrame {
        let what = Compare {
            column: "method".into(),
            scores: vec!["mcc".into()],
            by: by.iter().map(|name| (*name).to_owned()).collect(),
        };
        compare(&rows(), &what).expect("an answer")
    }

    fn texts(frame: &DataFrame, name: &str) -> Vec<Option<String>> {
        let column = frame.column(name).expect("a column");
        column.str().expect("text").iter().map(|text| text.map(String::from)).collect()
    }

    fn floats(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
        frame.column(name).expect("a column").f64().expect("numbers").iter().collect()
    }

    #[test]
    fn each_method_has_its_mean_and_each_pair_its_difference() {
        let answer = ask(&["width"]);
        let names = ["width", "method", "against", "score", "seeds", "mean", "low", "high", "verdict"];
        assert_eq!(answer.get_column_names(), names);
        assert_eq!(answer.height(), 12);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts(&answer, "method")[..6], ["a", "b", "c", "a", "a", "b"].map(some));
        assert_eq!(texts(&answer, "against")[..6], [None, None, None, some("b"), some("c"), some("c")]);
        assert_eq!(
            texts(&answer, "verdict"),
            [
                [None, None, None, some("higher"), some("not distinguishable"), some("lower")],
                [None, None, some("too few seeds"), some("higher"), some("too few seeds"), some("too few seeds")],
            ]
            .concat()
        );
        // By hand: means .65, .55, .65 and differences .1, 0, -.1 at width 1.
        for (found, expected) in floats(&answer, "mean").iter().zip([0.65, 0.55, 0.65, 0.1, 0.0, -0.1]) {
            assert!((found.expect("a mean") - expected).abs() < 1e-12);
        }
        let (low, high) = (floats(&answer, "low"), floats(&answer, "high"));
        assert!((low[3].expect("an end") - 0.1).abs() < 1e-12 && (high[3].expect("an end") - 0.1).abs() < 1e-12);
        assert!(low[4] < Some(0.0) && high[4] > Some(0.0));
        assert_eq!((low[8], high[8]), (None, None));
    }

    /// Without `by` both widths of a seed are averaged first, so four seeds are four numbers.
    #[test]
    fn rows_of_one_seed_are_one_number() {
        let answer = ask(&[]);
        let seeds: Vec<Option<i64>> = answer.column("seeds").expect("seeds").i64().expect("whole").iter().collect();
        assert_eq!(seeds, [Some(4); 6]);
        assert!((floats(&answer, "mean")[0].expect("a mean") - 0.725).abs() < 1e-12);
    }

    #[test]
    fn bad_names_and_scores_that_are_no_numbers_are_refused() {
        let ask = |column: &str, score: &str, by: &str| {
            let what = Compare { column: column.into(), scores: vec![score.into()], by: vec![by.into()] };
            compare(&rows(), &what).expect_err("a slip").to_string()
        };
        assert!(ask("methd", "mcc", "width").contains("did you mean `method`"));
        assert!(ask("method", "mc", "width").contains("no column `mc`"));
        assert!(ask("method", "mcc", "widht").contains("did you mean `width`"));
        assert!(ask("width", "method", "width").contains("holds no numbers"));
        let none = compare(&rows().drop("seed").expect("there"), &Compare::default());
        assert!(matches!(none, Err(QueryError::NotRows { .. })));
    }
}
