//! Rows in, rows out: select, where and group by in polars SQL, or a whole query.

use std::collections::BTreeSet;

use polars::prelude::{
    BooleanChunked, Column as Series, DataFrame, DataType, Expr, IntoLazy, LazyFrame, NewChunkedArray, PolarsError,
    col, len,
};
use polars::sql::{SQLContext, sql_expr};

use super::columns::Layout;
use super::names::{check_expression, check_query, quote_dotted, unknown};

/// What can be wrong with a question.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A name that is no column.
    #[error("no column `{name}`{}", suggestion(near))]
    UnknownColumn { name: String, near: Vec<String> },

    /// An expression that cannot be read or computed.
    #[error("in {place} `{text}`: {reason}")]
    Expression { place: &'static str, text: String, reason: String },

    /// A table that lacks what every table of rows has.
    #[error("the table has no column `{missing}`, so it is no table of rows")]
    NotRows { missing: String },

    /// `lowest_loss` without a loss.
    #[error(
        "`lowest_loss` needs the score `loss` or `loss_weighted`, and the rows have neither: add `loss` to `score:`"
    )]
    NoLoss,

    /// A whole query and parts of one at once.
    #[error("--sql is a whole query: leave out --{0}")]
    SqlAndParts(&'static str),

    /// The table library failed where the question was not at fault.
    #[error("cannot {action}: {reason}")]
    Failed { action: &'static str, reason: String },
}

impl QueryError {
    /// The exit code of a command whose arguments hold the question.
    pub fn exit_code(&self) -> i32 {
        match self {
            QueryError::Failed { .. } | QueryError::NotRows { .. } => 101,
            QueryError::NoLoss => 3,
            _ => 2,
        }
    }
}

fn suggestion(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; did you mean {}?", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ")),
    }
}

/// What can be asked about.
#[derive(Clone, Debug)]
pub struct Tables {
    pub rows: DataFrame,
    /// One row per cell and feature.
    pub features: Option<DataFrame>,
    /// One row per cell and logged step.
    pub trace: Option<DataFrame>,
    /// One row per cell, logged step and feature.
    pub snapshots: Option<DataFrame>,
    /// One row per cell and training sample.
    pub samples: Option<DataFrame>,
}

impl Tables {
    pub fn of_rows(rows: DataFrame) -> Self {
        Tables { rows, features: None, trace: None, snapshots: None, samples: None }
    }

    /// The side tables by their names in SQL.
    pub fn sides(&self) -> [(&'static str, &Option<DataFrame>); 4] {
        let Tables { features, trace, snapshots, samples, .. } = self;
        [("features", features), ("trace", trace), ("snapshots", snapshots), ("samples", samples)]
    }

    /// These rows, and of every side table what belongs to their cells.
    ///
    /// # Errors
    /// A table without `cell`.
    pub fn restricted_to(&self, rows: DataFrame) -> Result<Tables, QueryError> {
        let cells: BTreeSet<&str> = cells_of(&rows)?.into_iter().flatten().collect();
        let keep = |table: &Option<DataFrame>| -> Result<Option<DataFrame>, QueryError> {
            let Some(table) = table else { return Ok(None) };
            let mask: Vec<bool> = cells_of(table)?.iter().map(|c| c.is_some_and(|c| cells.contains(c))).collect();
            let mask = BooleanChunked::from_slice("".into(), &mask);
            let failed = |error: PolarsError| QueryError::Failed { action: "pick cells", reason: error.to_string() };
            table.filter(&mask).map(Some).map_err(failed)
        };
        let Tables { features, trace, snapshots, samples, .. } = self;
        let [features, trace] = [keep(features)?, keep(trace)?];
        let [snapshots, samples] = [keep(snapshots)?, keep(samples)?];
        Ok(Tables { features, trace, snapshots, samples, rows })
    }
}

fn cells_of(table: &DataFrame) -> Result<Vec<Option<&str>>, QueryError> {
    let missing = |_| QueryError::NotRows { missing: "cell".to_string() };
    let cells = table.column("cell").and_then(Series::str).map_err(missing)?;
    Ok(cells.iter().collect())
}

/// A question in polars SQL. Dotted column names may stand with or without double quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Expressions; all columns if empty, or with `group_by` the number of rows and the mean of every score.
    pub select: Vec<String>,
    pub where_: Option<String>,
    pub group_by: Vec<String>,
    /// A whole query over the tables `rows`, `features`, `trace`, `snapshots` and `samples`, instead of the parts.
    pub sql: Option<String>,
}

/// Answers a question. Rows keep the order of the plan, groups that of their first row.
///
/// # Errors
/// Unknown columns, with near names; expressions that cannot be read or computed.
pub fn select(tables: &Tables, query: &Query) -> Result<DataFrame, QueryError> {
    if let Some(sql) = &query.sql {
        return whole(tables, query, sql);
    }
    let rows = &tables.rows;
    let mut frame = rows.clone().lazy();
    if let Some(text) = &query.where_ {
        frame = frame.filter(expression(rows, "where", text)?);
    }
    let select = expressions(rows, "select", &query.select)?;
    if query.group_by.is_empty() {
        let frame = if select.is_empty() { frame } else { frame.select(select) };
        return run(frame, query, rows);
    }
    let keys = expressions(rows, "group by", &query.group_by)?;
    // What is grouped by comes out anyway; naming it in the selection too is no mistake.
    let listed = query.select.iter().zip(select);
    let is_key = |text: &str| query.group_by.iter().any(|key| key.trim() == text.trim());
    let select: Vec<Expr> = listed.filter(|(text, _)| !is_key(text)).map(|(_, expr)| expr).collect();
    let wanted = if query.select.is_empty() { defaults(rows, &query.group_by)? } else { select };
    let answer = run(frame.group_by_stable(keys).agg(wanted), query, rows)?;
    all_aggregated(answer, query)
}

/// The rows for which an expression holds.
///
/// # Errors
/// As [`select`].
pub(super) fn matching(rows: &DataFrame, where_: Option<&str>) -> Result<DataFrame, QueryError> {
    let query = Query { where_: where_.map(str::to_string), ..Default::default() };
    select(&Tables::of_rows(rows.clone()), &query)
}

/// An expression over the rows, its columns checked, named by its own text where it is no plain column.
pub(super) fn expression(rows: &DataFrame, place: &'static str, text: &str) -> Result<Expr, QueryError> {
    let wrong = |reason: String| QueryError::Expression { place, text: text.to_string(), reason };
    check_expression(text).map_err(wrong)?;
    if text.trim() == "*" {
        return Ok(polars::prelude::all().as_expr());
    }
    let columns = names(rows);
    let quoted = quote_dotted(text, &columns, true)?;
    let expr = sql_expr(&quoted).map_err(|error| wrong(in_words(error)))?;
    for name in leaves(&expr) {
        if !columns.contains(&name.as_str()) {
            return Err(unknown(&name, &columns));
        }
    }
    let named = match &expr {
        Expr::Column(_) => true,
        Expr::Alias(_, name) => text.trim_end().trim_end_matches('"').ends_with(name.as_str()),
        _ => false,
    };
    Ok(if named { expr } else { expr.alias(text.trim()) })
}

/// The columns that an expression reads.
pub(super) fn leaves(expr: &Expr) -> Vec<String> {
    let name = |part: &Expr| match part {
        Expr::Column(name) => Some(name.to_string()),
        _ => None,
    };
    expr.into_iter().filter_map(name).collect()
}

fn expressions(rows: &DataFrame, place: &'static str, texts: &[String]) -> Result<Vec<Expr>, QueryError> {
    texts.iter().map(|text| expression(rows, place, text)).collect()
}

/// Number of rows and mean of every numeric score that is no key itself.
fn defaults(rows: &DataFrame, keys: &[String]) -> Result<Vec<Expr>, QueryError> {
    let mut wanted = vec![len().alias("count")];
    for score in Layout::of(rows)?.scores {
        let dtype = rows.column(&score).map(|column| column.dtype().clone());
        let numeric = dtype.is_ok_and(|dtype| dtype.is_primitive_numeric() || dtype == DataType::Boolean);
        if numeric && !keys.iter().any(|key| key.trim().trim_matches('"') == score) {
            wanted.push(col(score.as_str()).mean());
        }
    }
    Ok(wanted)
}

/// A column of lists is what the table library makes of an expression that is no aggregate.
fn all_aggregated(answer: DataFrame, query: &Query) -> Result<DataFrame, QueryError> {
    match answer.columns().iter().find(|column| matches!(column.dtype(), DataType::List(_))) {
        None => Ok(answer),
        Some(column) => Err(QueryError::Expression {
            place: "select",
            text: column.name().to_string(),
            reason: format!(
                "has many values in a group of {}: wrap it in avg(), min(), max(), first() or count()",
                query.group_by.join(", ")
            ),
        }),
    }
}

fn whole(tables: &Tables, query: &Query, sql: &str) -> Result<DataFrame, QueryError> {
    let parts = [
        ("select", query.select.is_empty()),
        ("where", query.where_.is_none()),
        ("group-by", query.group_by.is_empty()),
    ];
    if let Some((part, _)) = parts.iter().find(|(_, absent)| !absent) {
        return Err(QueryError::SqlAndParts(part));
    }
    let wrong = |reason| QueryError::Expression { place: "sql", text: sql.to_string(), reason };
    check_query(sql).map_err(wrong)?;
    let sides = tables.sides();
    let mut columns = names(&tables.rows);
    let mut context = SQLContext::new();
    context.register("rows", tables.rows.clone().lazy());
    for (name, table) in sides {
        if let Some(table) = table {
            context.register(name, table.clone().lazy());
            columns.extend(names(table));
        }
    }
    let quoted = quote_dotted(sql, &columns, false)?;
    let answer = context.execute(&quoted).and_then(LazyFrame::collect);
    answer.map_err(|error| explain(error, "sql", sql, &columns))
}

fn run(frame: LazyFrame, query: &Query, rows: &DataFrame) -> Result<DataFrame, QueryError> {
    frame.collect().map_err(|error| {
        let parts = [&query.select[..], query.where_.as_slice(), &query.group_by[..]].concat();
        explain(error, "the query", &parts.join(", "), &names(rows))
    })
}

/// An error of the table library, with near names if it is about a column.
fn explain(error: PolarsError, place: &'static str, text: &str, columns: &[&str]) -> QueryError {
    let reason = in_words(error);
    let about_a_column = reason.contains("unable to find column") || reason.ends_with("not found");
    match reason.split('"').nth(1).filter(|_| about_a_column) {
        Some(name) => unknown(name, columns),
        None => QueryError::Expression { place, text: text.to_string(), reason },
    }
}

/// The first paragraph: the table library appends its plan.
fn in_words(error: PolarsError) -> String {
    let text = error.to_string();
    text.split("\n\n").next().unwrap_or_default().to_string()
}

fn names(frame: &DataFrame) -> Vec<&str> {
    frame.columns().iter().map(|column: &Series| column.name().as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::frame;
    use crate::store::testing::{row, schema};
    use crate::table::split_list;
    use polars::prelude::{AnyValue, df};

    /// Eight rows: firing probabilities 0.1 and 0.2, methods topk and relu, seeds 0 and 1.
    fn tables() -> Tables {
        let rows: Vec<_> = (0..8).map(row).collect();
        Tables::of_rows(frame("test", &schema(), &rows).expect("rows fit"))
    }

    fn ask(select_: &str, where_: &str, group_by: &str) -> Result<DataFrame, QueryError> {
        let query = Query {
            select: split_list(select_),
            where_: (!where_.is_empty()).then(|| where_.to_string()),
            group_by: split_list(group_by),
            sql: None,
        };
        select(&tables(), &query)
    }

    fn sql(text: &str) -> Result<DataFrame, QueryError> {
        let cells: Vec<String> = (0..2).map(|index| row(index).cell.to_string()).collect();
        let features = df!["cell" => cells, "toy.d_hidden" => [5i64, 5], "norm" => [0.5, 1.5]].expect("columns");
        let tables = Tables { features: Some(features), ..tables() };
        select(&tables, &Query { sql: Some(text.into()), ..Default::default() })
    }

    fn number(frame: &DataFrame, column: usize, row: usize) -> f64 {
        frame.columns()[column].get(row).expect("there").extract::<f64>().expect("a number")
    }

    #[test]
    fn no_question_gives_all_rows() {
        assert_eq!(ask("", "", "").expect("all").shape(), (8, 15));
        assert_eq!(ask("*", "", "").expect("all").shape(), (8, 15));
    }

    #[test]
    fn rows_are_selected_by_quoted_and_unquoted_dotted_names() {
        for where_ in [
            "\"data.firing_probability\" < 0.15",
            "data.firing_probability < 0.15",
            "rows.data.firing_probability < 0.15 and toy.d_hidden = 5",
            "data.firing_probability = 0.1",
        ] {
            let answer = ask("plan_index, data.firing_probability", where_, "").expect("an answer");
            assert_eq!(answer.shape(), (4, 2), "{where_}");
            assert_eq!(answer.get_column_names(), ["plan_index", "data.firing_probability"]);
        }
        assert_eq!(ask("", "method = 'topk' and seed = 1", "").expect("an answer").height(), 2);
        assert_eq!(ask("", "method in ('topk', 'pca') or detail is not null", "").expect("an answer").height(), 4);
        assert_eq!(ask("", "method like 'to%'", "").expect("an answer").height(), 4);
    }

    #[test]
    fn aggregates_cases_and_comparisons_of_columns_work_without_groups() {
        // mcc is 0, 0.25, 0.5, 0.75 and again; topk has the first two of each four.
        let answer = ask("avg(mcc), max(mcc), count(*), sum(n_represented)", "", "").expect("an answer");
        assert_eq!(answer.height(), 1);
        assert_eq!([0, 1, 2, 3].map(|column| number(&answer, column, 0)), [0.375, 0.75, 8.0, 28.0]);
        assert_eq!(answer.get_column_names(), ["avg(mcc)", "max(mcc)", "count(*)", "sum(n_represented)"]);
        let difference = "avg(case when method = 'relu' then mcc end) - avg(case when method = 'topk' then mcc end)";
        assert_eq!(number(&ask(difference, "", "").expect("an answer"), 0, 0), 0.5);
        assert_eq!(number(&ask("avg(seed = n_represented)", "", "").expect("an answer"), 0, 0), 0.25);
        assert_eq!(number(&ask("avg(method = phase)", "", "").expect("an answer"), 0, 0), 0.0);
        assert_eq!(
            number(&ask("round(avg(ln(n_represented + 1)), 3)", "seed = 0", "").expect("an answer"), 0, 0),
            1.163
        );
    }

    #[test]
    fn a_name_given_with_as_is_kept() {
        let answer = ask("avg(mcc) as m, mcc AS \"a.b\"", "", "").expect("an answer");
        assert_eq!(answer.get_column_names(), ["m", "a.b"]);
    }

    #[test]
    fn groups_come_in_the_order_of_their_first_row() {
        let answer = ask("avg(mcc), count(*)", "", "data.firing_probability, method").expect("an answer");
        assert_eq!(answer.shape(), (4, 4));
        let method = |row: usize| answer.column("method").expect("a key").get(row).expect("there").into_static();
        assert_eq!(
            [method(0), method(1)],
            [AnyValue::from("topk").into_static(), AnyValue::from("relu").into_static()]
        );
        assert_eq!([0, 1, 2, 3].map(|row| number(&answer, 2, row)), [0.125, 0.625, 0.125, 0.625]);
        assert!([0, 1, 2, 3].iter().all(|row| number(&answer, 3, *row) == 2.0));
    }

    #[test]
    fn groups_without_a_selection_have_their_size_and_the_mean_of_every_numeric_score() {
        let answer = ask("", "", "method").expect("an answer");
        assert_eq!(answer.get_column_names(), ["method", "count", "loss", "mcc", "n_represented"]);
        assert_eq!((number(&answer, 1, 0), number(&answer, 3, 0)), (4.0, 0.125));
        let keyed = ask("", "", "n_represented").expect("a score as a key");
        assert_eq!(keyed.get_column_names(), ["n_represented", "count", "loss", "mcc"]);
        let computed = ask("count(*)", "", "round(data.firing_probability, 1), seed + 1").expect("computed keys");
        assert_eq!(computed.get_column_names(), ["round(data.firing_probability, 1)", "seed + 1", "count(*)"]);
        assert_eq!(computed.height(), 4);
    }

    #[test]
    fn a_plain_column_in_a_group_is_refused() {
        let error = ask("mcc", "", "method").expect_err("many values");
        assert!(error.to_string().contains("wrap it in avg()"), "{error}");
    }

    #[test]
    fn unknown_columns_are_named_with_what_is_near() {
        for (select_, where_, group_by) in [
            ("avg(mmc)", "", ""),
            ("avg(case when method = 'topk' and mmc > 0.1 then mcc else 0 end)", "", ""),
            ("", "mmc > 0.5", ""),
            ("", "\"mmc\" > 0.5", ""),
            ("", "", "mmc"),
            ("count(*)", "mmc > 0.5", "method"),
        ] {
            let error = ask(select_, where_, group_by).expect_err("no such column");
            assert_eq!(error.to_string(), "no column `mmc`; did you mean `mcc`?");
            assert_eq!(error.exit_code(), 2);
        }
        let error = ask("avg(d_hidden)", "", "").expect_err("no such column");
        assert_eq!(error.to_string(), "no column `d_hidden`; did you mean `toy.d_hidden`?");
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        for (select_, where_) in [
            ("", "mcc >"),
            ("", "mcc > 0.5 group by seed"),
            ("", "mcc > 0.5; drop table rows"),
            ("nonsense(mcc)", ""),
            ("", "(select 1) = 1"),
            ("", "mcc"),
            ("", "avg("),
            ("", "read_csv('/etc/passwd') = 1"),
        ] {
            let error = ask(select_, where_, "").expect_err("no expression");
            assert!(matches!(error, QueryError::Expression { .. }), "{select_} {where_}: {error}");
        }
    }

    #[test]
    fn a_whole_query_sees_every_table() {
        let answer =
            sql("select method, avg(mcc) as m from rows where toy.d_hidden = 5 group by method order by m desc");
        let answer = answer.expect("an answer");
        assert_eq!((answer.shape(), number(&answer, 1, 0)), ((2, 2), 0.625));
        let joined = sql("select r.seed, f.norm from rows r join features f on r.cell = f.cell order by f.norm");
        assert_eq!(joined.expect("joined").shape(), (2, 2));
        let best = sql("select plan_index from rows where mcc in (select max(mcc) from rows)").expect("a subquery");
        assert_eq!(best.height(), 2);
        assert!(sql("select avg(mmc) from rows").expect_err("no column").to_string().contains("did you mean `mcc`"));
        assert!(matches!(sql("select * from wombats"), Err(QueryError::Expression { .. })));
        assert!(matches!(sql("selekt"), Err(QueryError::Expression { .. })));
        let file = sql("select * from read_csv('/etc/passwd')").expect_err("no file").to_string();
        assert!(file.contains("`read_csv` opens files"), "{file}");
        let chain = sql(&format!("select seed{} from rows", " + 1".repeat(3000))).expect_err("long").to_string();
        assert!(chain.contains("bytes long") || chain.contains("operators"), "{chain}");
        let chain = sql(&format!("select seed{} as s from rows", " + 1".repeat(240))).expect("within bounds");
        assert_eq!(number(&chain, 0, 0), 240.0);
    }

    #[test]
    fn a_whole_query_and_parts_of_one_exclude_each_other() {
        let query = Query { sql: Some("select 1".into()), where_: Some("seed = 0".into()), ..Default::default() };
        assert!(matches!(select(&tables(), &query), Err(QueryError::SqlAndParts("where"))));
    }
}
