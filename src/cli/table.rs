//! `tegum table`: rows of a run.

use std::path::PathBuf;

use super::{Failure, Outcome};
use crate::run::results::Results;
use crate::table::{self, Format, Query};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run directory
    dir: PathBuf,
    /// Columns or expressions, separated by commas: "mcc, l0 * 2 as twice"
    #[arg(long)]
    select: Option<String>,
    /// Rows to take, a polars SQL condition
    #[arg(long = "where")]
    filter: Option<String>,
    /// Columns or expressions to group by, separated by commas
    #[arg(long)]
    group_by: Option<String>,
    /// A whole query over the tables rows, features, trace, snapshots and samples
    #[arg(long, conflicts_with_all = ["select", "filter", "group_by"])]
    sql: Option<String>,
    /// Column whose values are compared over seeds, such as method: means with 95 % bootstrap intervals, and the
    /// difference of each pair over common seeds
    #[arg(long, requires = "score", conflicts_with_all = ["select", "group_by", "sql"])]
    compare: Option<String>,
    /// Scores to compare, separated by commas
    #[arg(long, requires = "compare")]
    score: Option<String>,
    /// Columns whose every combination is a comparison of its own, separated by commas
    #[arg(long, requires = "compare")]
    by: Option<String>,
    /// text, csv, json or parquet; defaults to what the ending of the file says, else text
    #[arg(long)]
    format: Option<Format>,
    /// File to write instead of stdout
    #[arg(short)]
    output: Option<PathBuf>,
}

pub fn carry_out(args: &Args) -> Outcome {
    let results = Results::open(&args.dir)?;
    let list = |text: &Option<String>| text.as_deref().map_or(vec![], table::split_list);
    let query = Query {
        select: list(&args.select),
        where_: args.filter.clone(),
        group_by: list(&args.group_by),
        sql: args.sql.clone(),
    };
    let fail = |e: table::QueryError| Failure::new(e.exit_code(), e.to_string());
    let mut answer = table::select(&results.tables()?, &query).map_err(fail)?;
    if let Some(column) = &args.compare {
        let what = table::Compare { column: column.clone(), scores: list(&args.score), by: list(&args.by) };
        answer = table::compare(&answer, &what).map_err(fail)?;
    }
    let format = args.format.or_else(|| Format::of_file(args.output.as_deref()?)).unwrap_or_default();
    let bytes = table::render(&answer, format).map_err(fail)?;
    table::deliver(&bytes, args.output.as_deref()).map_err(|e| {
        Failure::new(5, format!("{}: {e}", args.output.as_ref().map_or("stdout".into(), |p| p.display().to_string())))
    })?;
    Ok(0)
}
