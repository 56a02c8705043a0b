//! Which columns of a table of rows are axes and which are scores: their place says it.
//!
//! The order is `cell, plan_index, experiment`, axes, `seed, method, status, detail`, scores, `steps_done, algo_version`.

use polars::prelude::DataFrame;

use super::query::QueryError;

/// The columns that differ from experiment to experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Dotted paths, in the order of the sweep.
    pub axes: Vec<String>,
    pub scores: Vec<String>,
}

impl Layout {
    /// Reads the layout off a table of rows.
    ///
    /// # Errors
    /// The table lacks a column that every table of rows has.
    pub fn of(rows: &DataFrame) -> Result<Layout, QueryError> {
        let names: Vec<String> = rows.get_column_names().iter().map(|name| name.to_string()).collect();
        let between = |first: &str, last: &str| {
            let missing = |name: &str| QueryError::NotRows { missing: name.to_string() };
            let from = names.iter().position(|name| name == first).ok_or_else(|| missing(first))? + 1;
            let to = names.iter().position(|name| name == last).ok_or_else(|| missing(last))?;
            Ok(names.get(from..to).unwrap_or_default().to_vec())
        };
        Ok(Layout { axes: between("experiment", "seed")?, scores: between("detail", "steps_done")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::frame;
    use crate::store::testing::{row, schema};

    #[test]
    fn axes_and_scores_are_told_by_their_place() {
        let rows = frame("test", &schema(), &[row(0)]).expect("rows fit");
        let layout = Layout::of(&rows).expect("a table of rows");
        assert_eq!(layout.axes, ["data.firing_probability", "toy.d_hidden"]);
        assert_eq!(layout.scores, ["loss", "mcc", "n_represented", "phase"]);
        let cut = rows.drop("seed").expect("there");
        assert!(matches!(Layout::of(&cut), Err(QueryError::NotRows { missing }) if missing == "seed"));
    }
}
