//! 9. Rows to answers: which rows, which numbers of them, and whether they are what was expected.
//!
//! Expressions are those of polars SQL; dotted column names may be written with or without quotes. Nothing here trains,
//! scores or knows where the rows came from: a table of rows is enough.

pub mod bootstrap;
mod columns;
mod compare;
mod expect;
mod format;
mod names;
mod pairs;
mod query;
mod reduce;

pub use columns::Layout;
pub use compare::{Compare, compare};
pub use expect::{Asked, Bound, Expectation, Outcome, evaluate, readable, render_outcomes};
pub use format::{Format, deliver, render, short};
pub use names::{near, quote_dotted, split_list};
pub use query::{Query, QueryError, Tables, select};
pub use reduce::{Reduce, reduce};
