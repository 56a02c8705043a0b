//! Aggregates over pairs of columns that SQL has no word for: does one rise with the other?
//!
//! - `spearman(x, y)`: Spearman's rank correlation, Pearson's on ranks, equal values sharing the mean of theirs.
//! - `largest_rise(x, y)`: with rows in the order of x, the greatest rise of y from one row to the next; negative where y only falls.
//! - `largest_fall(x, y)`: the same downwards.
//!
//! Rows in which either is null are left out. x and y are any expressions over the rows; rows of equal x keep their order.

use polars::prelude::{Column, DataType};

/// One of the aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    Spearman,
    LargestRise,
    LargestFall,
}

/// `spearman(x, y)` and its like taken apart: the aggregate, x and y. None for anything else.
pub fn parse(text: &str) -> Option<(Aggregate, &str, &str)> {
    let text = text.trim();
    let (name, rest) = text.split_once('(')?;
    let aggregate = match name.trim().to_ascii_lowercase().as_str() {
        "spearman" => Aggregate::Spearman,
        "largest_rise" => Aggregate::LargestRise,
        "largest_fall" => Aggregate::LargestFall,
        _ => return None,
    };
    let inside = rest.strip_suffix(')')?;
    let (mut depth, mut quoted, mut comma) = (0i32, None, None);
    for (at, c) in inside.char_indices() {
        match (quoted, c) {
            (Some(mark), _) if c == mark => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quoted = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ',') if depth == 0 && comma.is_some() => return None,
            (None, ',') if depth == 0 => comma = Some(at),
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    let comma = comma.filter(|_| depth == 0 && quoted.is_none())?;
    Some((aggregate, inside[..comma].trim(), inside[comma + 1..].trim()))
}

/// The aggregate of two columns of one height.
///
/// # Errors
/// Columns that are no numbers, fewer than two rows with both, or a column of one value for `spearman`.
pub fn value(aggregate: Aggregate, x: &Column, y: &Column) -> Result<f64, String> {
    let (x, y) = (numbers(x)?, numbers(y)?);
    let pairs: Vec<(f64, f64)> = x.into_iter().zip(y).filter_map(|(x, y)| Some((x?, y?))).collect();
    if pairs.len() < 2 {
        return Err("fewer than two rows have both values".into());
    }
    let mut sorted = pairs.clone();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let steps = sorted.windows(2).map(|pair| pair[1].1 - pair[0].1);
    match aggregate {
        Aggregate::LargestRise => Ok(steps.fold(f64::NEG_INFINITY, f64::max)),
        Aggregate::LargestFall => Ok(steps.map(|step| -step).fold(f64::NEG_INFINITY, f64::max)),
        Aggregate::Spearman => {
            let (a, b) = (ranks(pairs.iter().map(|p| p.0).collect()), ranks(pairs.iter().map(|p| p.1).collect()));
            pearson(&a, &b).ok_or_else(|| "one of the two is the same in every row".into())
        }
    }
}

fn numbers(column: &Column) -> Result<Vec<Option<f64>>, String> {
    let no_number = |_| format!("`{}` is not a column of numbers", column.name());
    if !column.dtype().is_primitive_numeric() && *column.dtype() != DataType::Boolean {
        return Err(no_number(()));
    }
    let numbers = column.cast(&DataType::Float64).map_err(|_| no_number(()))?;
    Ok(numbers.f64().map_err(|_| no_number(()))?.iter().collect())
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + 0.5 * (same.len() + 1) as f64;
        same.iter().for_each(|&i| ranks[i] = rank);
        first += same.len();
    }
    ranks
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let n = a.len() as f64;
    let (mean_a, mean_b) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let product = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>();
    let (aa, bb) = (product(&|i| (a[i] - mean_a).powi(2)), product(&|i| (b[i] - mean_b).powi(2)));
    let ab = product(&|i| (a[i] - mean_a) * (b[i] - mean_b));
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(aggregate: Aggregate, x: &[Option<f64>], y: &[Option<f64>]) -> Result<f64, String> {
        value(aggregate, &Column::new("x".into(), x), &Column::new("y".into(), y))
    }

    #[test]
    fn an_aggregate_of_two_expressions_is_taken_apart() {
        let parsed = parse(r#" spearman( "data.firing, probability" , max(a, b) )"#);
        assert_eq!(parsed, Some((Aggregate::Spearman, r#""data.firing, probability""#, "max(a, b)")));
        assert_eq!(parse("Largest_Rise(a, -b)"), Some((Aggregate::LargestRise, "a", "-b")));
        for other in [
            "avg(a)",
            "spearman(a)",
            "spearman(a, b, c)",
            "spearman(a, b) + 1",
            "spearman(a), max(b)",
            "spearman(a, 'b)",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn rank_correlation_sees_order_alone() {
        let x = [Some(1.0), Some(2.0), Some(10.0), None, Some(11.0)];
        assert_eq!(of(Aggregate::Spearman, &x, &[Some(0.1), Some(0.2), Some(0.3), Some(9.0), Some(5.0)]), Ok(1.0));
        assert_eq!(of(Aggregate::Spearman, &x, &[Some(4.0), Some(3.0), Some(2.0), None, Some(1.0)]), Ok(-1.0));
        // Ranks 1 2 3 4 against 1 2.5 2.5 4: covariance 4.5, variances 5 and 4.5.
        let tied = of(Aggregate::Spearman, &x, &[Some(0.0), Some(1.0), Some(1.0), None, Some(2.0)]).unwrap();
        assert!((tied - 4.5 / (5.0f64 * 4.5).sqrt()).abs() < 1e-15);
        assert!(of(Aggregate::Spearman, &x, &[Some(1.0); 5]).is_err());
    }

    #[test]
    fn steps_are_taken_in_the_order_of_x() {
        let (x, y) = ([Some(3.0), Some(1.0), Some(2.0)], [Some(5.0), Some(1.0), Some(7.0)]);
        assert_eq!(of(Aggregate::LargestRise, &x, &y), Ok(6.0));
        assert_eq!(of(Aggregate::LargestFall, &x, &y), Ok(2.0));
        assert_eq!(of(Aggregate::LargestRise, &x, &[Some(1.0), Some(3.0), Some(2.0)]), Ok(-1.0));
        assert!(of(Aggregate::LargestRise, &x, &[Some(1.0), None, None]).is_err());
    }

    #[test]
    fn words_are_no_numbers() {
        let words = Column::new("w".into(), ["a", "b"]);
        assert!(value(Aggregate::Spearman, &words, &words).is_err());
    }
}
