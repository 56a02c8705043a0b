//! Many seeds to one row.

use std::collections::BTreeMap;
use std::str::FromStr;

use polars::prelude::{AnyValue, Column as Series, DataFrame, DataType, IdxCa, IdxSize, NamedFrom, PolarsError};

use super::columns::Layout;
use super::query::QueryError;

/// What figures and expectations do with the seeds of one combination of axes and method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reduce {
    /// Every seed is a row.
    #[default]
    None,
    /// Numbers are averaged over the seeds where they are defined.
    Mean,
    /// The best seed stands for all.
    LowestLoss,
}

impl FromStr for Reduce {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(Reduce::None),
            "mean" => Ok(Reduce::Mean),
            "lowest_loss" => Ok(Reduce::LowestLoss),
            other => Err(format!("`{other}` is none of none, mean and lowest_loss")),
        }
    }
}

/// One row for each combination of axes and method, in the order of its first row.
///
/// `LowestLoss` keeps the row of least `loss_weighted`, which is what was trained, or of least `loss` where the former is
/// not a column; null counts as worst and the lower seed wins a tie. `Mean` averages integers, floats and booleans (to
/// the share of true) where they are not null and keeps the most frequent text, on a tie the first in sort order; `cell`
/// and `seed` become null, `plan_index` is the lowest.
///
/// # Errors
/// The table is none of rows, or has no loss to go by.
pub fn reduce(rows: &DataFrame, how: Reduce) -> Result<DataFrame, QueryError> {
    if how == Reduce::None {
        return Ok(rows.clone());
    }
    let layout = Layout::of(rows)?;
    let groups = groups(rows, &layout)?;
    let failed = |error: PolarsError| QueryError::Failed { action: "reduce the seeds", reason: error.to_string() };
    match how {
        Reduce::None => Ok(rows.clone()),
        Reduce::LowestLoss => {
            let best = best(rows, &groups)?;
            rows.take(&IdxCa::new("".into(), best)).map_err(failed)
        }
        Reduce::Mean => {
            let mut keys: Vec<&str> = layout.axes.iter().map(String::as_str).collect();
            keys.push("method");
            mean(rows, &groups, &keys).map_err(failed)
        }
    }
}

/// Row numbers that share all axes and the method.
fn groups(rows: &DataFrame, layout: &Layout) -> Result<Vec<Vec<usize>>, QueryError> {
    let names = layout.axes.iter().map(String::as_str).chain(["method"]);
    let keys = names.map(|name| column(rows, name)).collect::<Result<Vec<_>, _>>()?;
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for row in 0..rows.height() {
        let mut key = Vec::new();
        for column in &keys {
            key_into(&mut key, &column.get(row).unwrap_or(AnyValue::Null));
        }
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    Ok(groups)
}

fn key_into(key: &mut Vec<u8>, value: &AnyValue) {
    match value {
        AnyValue::Null => key.push(0),
        // -0 and 0 are one place on an axis.
        AnyValue::Float64(number) => key.extend([&[1u8][..], &(number + 0.0).to_bits().to_le_bytes()].concat()),
        other => {
            let text = other.to_string();
            key.push(2);
            key.extend((text.len() as u64).to_le_bytes());
            key.extend(text.as_bytes());
        }
    }
}

fn column<'a>(rows: &'a DataFrame, name: &str) -> Result<&'a Series, QueryError> {
    rows.column(name).map_err(|_| QueryError::NotRows { missing: name.to_string() })
}

/// The best row of each group.
fn best(rows: &DataFrame, groups: &[Vec<usize>]) -> Result<Vec<IdxSize>, QueryError> {
    let loss = rows.column("loss_weighted").or_else(|_| rows.column("loss")).map_err(|_| QueryError::NoLoss)?;
    let seed = column(rows, "seed")?;
    let number = |column: &Series, row: usize| column.get(row).ok().and_then(|value| value.extract::<f64>());
    let rank = |row: usize| {
        let loss = number(loss, row).unwrap_or(f64::INFINITY);
        let seed = seed.get(row).ok().and_then(|value| value.extract::<i64>()).unwrap_or(i64::MAX);
        (loss, seed)
    };
    let least = |rows: &Vec<usize>| {
        let ranked = rows.iter().map(|row| (rank(*row), *row as IdxSize));
        let (_, row) =
            ranked.min_by(|(a, _), (b, _)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).expect("no group is empty");
        row
    };
    Ok(groups.iter().map(least).collect())
}

fn mean(rows: &DataFrame, groups: &[Vec<usize>], keys: &[&str]) -> Result<DataFrame, PolarsError> {
    let first: Vec<IdxSize> = groups.iter().map(|rows| rows[0] as IdxSize).collect();
    let first = rows.take(&IdxCa::new("".into(), first))?;
    let columns = rows.columns().iter().map(|column| {
        let name = column.name().clone();
        Ok(match (name.as_str(), column.dtype()) {
            ("cell" | "seed", dtype) => Series::full_null(name, groups.len(), dtype),
            ("plan_index", _) => {
                let least =
                    |rows: &Vec<usize>| rows.iter().filter_map(|row| column.get(*row).ok()?.extract::<i64>()).min();
                Series::new(name, groups.iter().map(least).collect::<Vec<_>>())
            }
            (key, _) if keys.contains(&key) => first.column(key)?.clone(),
            (_, DataType::String) => {
                let texts = column.str()?;
                let common = |rows: &Vec<usize>| most_frequent(rows.iter().map(|row| texts.get(*row)));
                Series::new(name, groups.iter().map(common).collect::<Vec<Option<&str>>>())
            }
            (_, dtype) if dtype.is_primitive_numeric() || *dtype == DataType::Boolean => {
                let numbers = column.cast(&DataType::Float64)?;
                let numbers = numbers.f64()?;
                let average = |rows: &Vec<usize>| average(rows.iter().filter_map(|row| numbers.get(*row)));
                Series::new(name, groups.iter().map(average).collect::<Vec<_>>())
            }
            _ => first.column(&name)?.clone(),
        })
    });
    let columns = columns.collect::<Result<Vec<_>, PolarsError>>()?;
    DataFrame::new(groups.len(), columns)
}

/// Summed in the order of the rows.
fn average(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0u32);
    for number in numbers {
        sum += number;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// Null counts only where there is nothing else.
fn most_frequent<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    texts.flatten().for_each(|text| *counts.entry(text).or_default() += 1);
    let most = counts.values().copied().max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{row, schema};
    use crate::store::{Column, Kind, Row, Value, frame};

    fn table(rows: &[Row]) -> DataFrame {
        frame("test", &schema(), rows).expect("rows fit")
    }

    /// Twelve rows as the store's tests make them: three firing probabilities, two methods, two seeds each.
    fn twelve() -> Vec<Row> {
        (0..12).map(row).collect()
    }

    fn floats(frame: &DataFrame, name: &str) -> Vec<Option<f64>> {
        frame
            .column(name)
            .expect("a column")
            .cast(&DataType::Float64)
            .expect("numbers")
            .f64()
            .expect("f64")
            .iter()
            .collect()
    }

    fn texts(frame: &DataFrame, name: &str) -> Vec<Option<String>> {
        frame.column(name).expect("a column").str().expect("text").iter().map(|text| text.map(String::from)).collect()
    }

    #[test]
    fn none_changes_nothing() {
        let rows = table(&twelve());
        assert!(reduce(&rows, Reduce::None).expect("reduces").equals_missing(&rows));
    }

    #[test]
    fn lowest_loss_keeps_the_best_seed_of_each_combination() {
        // The loss falls with the index, so the higher seed is the better one.
        let best = reduce(&table(&twelve()), Reduce::LowestLoss).expect("reduces");
        assert_eq!(floats(&best, "plan_index"), [1, 3, 5, 7, 9, 11].map(|index| Some(f64::from(index))));
    }

    #[test]
    fn null_is_the_worst_loss_and_the_lower_seed_wins_a_tie() {
        let mut rows = twelve();
        rows[1].scores[0] = Value::Null;
        rows[3].scores[0] = rows[2].scores[0].clone();
        rows[4].scores[0] = Value::Null;
        rows[5].scores[0] = Value::Null;
        // The order of the table must not decide.
        let best = reduce(&table(&rows).reverse(), Reduce::LowestLoss).expect("reduces");
        assert_eq!(floats(&best, "plan_index"), [11, 9, 7, 4, 2, 0].map(|index| Some(f64::from(index))));
    }

    #[test]
    fn the_weighted_loss_is_gone_by_where_it_is_there() {
        let mut schema = schema();
        schema.scores.push(Column::new("loss_weighted", Kind::Float));
        let mut rows = twelve();
        for (index, row) in rows.iter_mut().enumerate() {
            row.scores.push(Value::Float(index as f64));
        }
        let rows = frame("test", &schema, &rows).expect("rows fit");
        let best = reduce(&rows, Reduce::LowestLoss).expect("reduces");
        assert_eq!(floats(&best, "plan_index"), [0, 2, 4, 6, 8, 10].map(|index| Some(f64::from(index))));
        let without = rows.drop_many(["loss", "loss_weighted"]);
        assert!(matches!(reduce(&without, Reduce::LowestLoss), Err(QueryError::NoLoss)));
    }

    #[test]
    fn mean_averages_numbers_and_keeps_the_most_frequent_text() {
        let mut rows = twelve();
        rows[0].scores[1] = Value::Null;
        rows[0].scores[3] = Value::Text("dropped".into());
        rows[2].scores[1] = Value::Null;
        rows[3].scores[1] = Value::Null;
        rows[2].scores[3] = Value::Null;
        let mean = reduce(&table(&rows), Reduce::Mean).expect("reduces");
        // mcc is 0.25 times the index modulo 4, the first and its pair without some.
        let expected = [Some(0.25), None, Some(0.125), Some(0.625), Some(0.125), Some(0.625)];
        assert_eq!(floats(&mean, "mcc"), expected);
        assert_eq!(floats(&mean, "n_represented")[..2], [Some(0.5), Some(2.5)]);
        assert_eq!(texts(&mean, "phase")[..2], [Some("dropped".to_string()), Some("superposed".to_string())]);
        assert_eq!(texts(&mean, "method")[..2], [Some("topk".to_string()), Some("relu".to_string())]);
        assert_eq!(floats(&mean, "seed"), [None; 6]);
        assert_eq!(floats(&mean, "toy.d_hidden"), [Some(5.0); 6]);
        assert_eq!(mean.column("toy.d_hidden").expect("an axis").dtype(), &DataType::Int64, "an axis keeps its type");
        assert_eq!(Layout::of(&mean).expect("still rows"), Layout::of(&table(&rows)).expect("rows"));
    }

    #[test]
    fn null_axes_and_methods_make_groups_of_their_own() {
        let mut rows = twelve();
        rows[..4].iter_mut().for_each(|row| row.method = None);
        rows[..2].iter_mut().for_each(|row| row.axes[1] = Value::Null);
        let best = reduce(&table(&rows), Reduce::LowestLoss).expect("reduces");
        assert_eq!(floats(&best, "plan_index"), [1, 3, 5, 7, 9, 11].map(|index| Some(f64::from(index))));
    }

    #[test]
    fn an_empty_table_reduces_to_an_empty_table() {
        for how in [Reduce::Mean, Reduce::LowestLoss] {
            assert_eq!(reduce(&table(&[]), how).expect("reduces").height(), 0);
        }
    }

    #[test]
    fn names_are_those_of_the_language() {
        assert_eq!("lowest_loss".parse(), Ok(Reduce::LowestLoss));
        assert_eq!("mean".parse(), Ok(Reduce::Mean));
        assert_eq!("none".parse(), Ok(Reduce::None));
        assert!("median".parse::<Reduce>().is_err());
    }
}
