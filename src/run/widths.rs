//! Scores that compare a cell's dictionary with that of another width of the same world and seed: [`hedging`] with the next
//! narrower one, [`mmcs_larger`] with the next wider one.
//!
//! They are computed from kept decoders whenever rows are read, as gaps to the baselines are from rows: the two cells may be
//! trained at different times and lie in different chunks, and a stored number that depends on another cell would outlive it.
//!
//! Two cells are compared where seed and every axis agree, an axis that touches one of them alone left out, and
//! - their methods are a pair that `score` names, or without pairs
//! - they have one method and differ in `n_latents`, and in what a `zip` entry moves together with it (its `label`, where
//!   there is one, agrees).
//!
//! Null where there is no such cell, or several of the next width.
//!
//! [`hedging`]: score::hedging_rate
//! [`mmcs_larger`]: score::mmcs_with_larger

use std::collections::{BTreeMap, BTreeSet};

use ndarray::ArrayView2;
use polars::prelude::{AnyValue, Column, DataFrame, PolarsError};
use rayon::prelude::*;

use super::RunError;
use crate::plan::CellId;
use crate::score::{self, Value};
use crate::spec::diagnostic::{Diagnostic, Place, nearest};
use crate::spec::document::Document;
use crate::spec::node::{self, Node};
use crate::spec::output::WeightsSection;
use crate::store::{StoreError, Tensor};
use crate::table::Layout;

/// Name of the tensor that is compared, `[n_latents, d_hidden]`.
pub const DECODER: &str = "sae.W_dec";

/// What [`Widths::add_to`] asks for decoders: those of these cells that are kept.
pub type Decoders<'a> = dyn Fn(&BTreeSet<CellId>) -> Result<BTreeMap<CellId, Tensor>, StoreError> + 'a;

/// What an experiment compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Widths {
    hedging: bool,
    larger: bool,
    /// Methods, [narrow, wide]; none: every method with itself.
    pairs: Vec<[String; 2]>,
    /// Axes in which cells of one method may differ.
    free: Vec<String>,
}

impl Widths {
    /// None where no score compares dictionaries.
    pub fn of(document: &Document) -> Option<Widths> {
        let section = document.experiment.score.as_ref()?;
        let asks = |name: &str| section.names.iter().any(|asked| asked == name);
        let (hedging, larger) = (asks("hedging"), asks("mmcs_larger"));
        (hedging || larger).then(|| Widths { hedging, larger, pairs: section.pairs.clone(), free: free_axes(document) })
    }

    /// Rows with the columns behind the scores; `decoders` is not asked where there are no rows.
    ///
    /// # Errors
    /// A table that is none of rows; what `decoders` says.
    pub fn add_to(&self, rows: DataFrame, decoders: &Decoders<'_>) -> Result<DataFrame, RunError> {
        let failed = |error: PolarsError| RunError::Input(format!("cannot compare widths: {error}"));
        let layout = Layout::of(&rows).map_err(|error| RunError::Input(error.to_string()))?;
        let facts = self.facts(&rows, &layout).map_err(failed)?;
        let cells: BTreeSet<CellId> = facts.iter().filter_map(|row| row.cell).collect();
        let kept = if cells.is_empty() { BTreeMap::new() } else { decoders(&cells)? };
        let matrices: Vec<Option<ArrayView2<'_, f32>>> =
            facts.iter().map(|row| kept.get(&row.cell?).and_then(matrix)).collect();
        let groups = self.groups(&facts);
        let mut rows = rows;
        let mut add = |name: &str, wanted: bool, of: &(dyn Fn(&Neighbours) -> Option<Value> + Sync)| {
            if !wanted {
                return Ok(());
            }
            let value = |row: usize| of(&self.neighbours(row, &facts, &groups, &matrices))?.ok();
            let values: Vec<Option<f64>> = (0..facts.len()).into_par_iter().map(value).collect();
            let place = rows.get_column_index("steps_done").unwrap_or(rows.width());
            rows.insert_column(place, Column::new(name.into(), values)).map(|_| ()).map_err(failed)
        };
        add("mmcs_larger", self.larger, &|at| Some(score::mmcs_with_larger(at.own?, at.wider?)))?;
        add("hedging", self.hedging, &|at| Some(score::hedging_rate(at.narrower?, at.own?)))?;
        Ok(rows)
    }

    /// What decides which rows are compared.
    fn facts(&self, rows: &DataFrame, layout: &Layout) -> Result<Vec<Facts>, PolarsError> {
        let free = |axis: &&String| self.pairs.is_empty() && self.free.contains(axis);
        let axes: Vec<&Column> =
            layout.axes.iter().filter(|axis| !free(axis)).map(|axis| rows.column(axis)).collect::<Result<_, _>>()?;
        let (cells, methods, seeds) = (rows.column("cell")?, rows.column("method")?, rows.column("seed")?);
        let text = |column: &Column, row: usize| -> Result<Option<String>, PolarsError> {
            Ok(match column.get(row)? {
                AnyValue::Null => None,
                AnyValue::String(text) => Some(text.to_owned()),
                AnyValue::StringOwned(text) => Some(text.to_string()),
                other => Some(other.to_string()),
            })
        };
        let facts = |row: usize| {
            Ok(Facts {
                cell: text(cells, row)?.and_then(|id| id.parse().ok()),
                method: text(methods, row)?,
                seed: text(seeds, row)?,
                axes: axes.iter().map(|axis| text(axis, row)).collect::<Result<_, _>>()?,
            })
        };
        (0..rows.height()).map(facts).collect()
    }

    /// Rows by seed and method.
    fn groups<'a>(&self, facts: &'a [Facts]) -> BTreeMap<(Option<&'a str>, &'a str), Vec<usize>> {
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (row, fact) in facts.iter().enumerate() {
            if let Some(method) = &fact.method {
                groups.entry((fact.seed.as_deref(), method.as_str())).or_default().push(row);
            }
        }
        groups
    }

    fn neighbours<'a>(
        &self,
        row: usize,
        facts: &[Facts],
        groups: &BTreeMap<(Option<&str>, &str), Vec<usize>>,
        matrices: &[Option<ArrayView2<'a, f32>>],
    ) -> Neighbours<'a> {
        let own = &facts[row];
        let (Some(matrix), Some(method)) = (matrices[row], own.method.as_deref()) else { return Neighbours::default() };
        // Methods of the other side: of pairs the partner, else this one.
        let partners = |here: usize, there: usize| -> Vec<&str> {
            match &self.pairs[..] {
                [] => vec![method],
                pairs => pairs.iter().filter(|pair| pair[here] == method).map(|pair| pair[there].as_str()).collect(),
            }
        };
        let next = |methods: Vec<&str>, order: fn(usize, usize) -> Option<usize>| {
            let others = methods.iter().filter_map(|other| groups.get(&(own.seed.as_deref(), *other))).flatten();
            let others = others.filter(|&&other| other != row && own.agrees(&facts[other]));
            let others = others.filter_map(|&other| matrices[other].filter(|m| m.ncols() == matrix.ncols()));
            let mut apart: Vec<_> = others.filter_map(|m| Some((order(matrix.nrows(), m.nrows())?, m))).collect();
            apart.sort_by_key(|(apart, _)| *apart);
            match &apart[..] {
                // Two of one width: none of them is the next.
                [(first, _), (second, _), ..] if first == second => None,
                [(_, next), ..] => Some(*next),
                [] => None,
            }
        };
        let less = |own: usize, other: usize| (other < own).then(|| own - other);
        let more = |own: usize, other: usize| (other > own).then(|| other - own);
        Neighbours { own: Some(matrix), narrower: next(partners(1, 0), less), wider: next(partners(0, 1), more) }
    }
}

/// A row.
struct Facts {
    cell: Option<CellId>,
    method: Option<String>,
    seed: Option<String>,
    /// Of the axes that have to agree.
    axes: Vec<Option<String>>,
}

impl Facts {
    /// Whether no axis that touches both has two values.
    fn agrees(&self, other: &Facts) -> bool {
        self.axes.iter().zip(&other.axes).all(|(a, b)| a == b || a.is_none() || b.is_none())
    }
}

/// A dictionary and the next ones in width.
#[derive(Default)]
struct Neighbours<'a> {
    own: Option<ArrayView2<'a, f32>>,
    narrower: Option<ArrayView2<'a, f32>>,
    wider: Option<ArrayView2<'a, f32>>,
}

fn matrix(tensor: &Tensor) -> Option<ArrayView2<'_, f32>> {
    let &[rows, columns] = &tensor.shape[..] else { return None };
    ArrayView2::from_shape((rows, columns), &tensor.values).ok()
}

/// Widths, and what moves together with them but for the world.
fn free_axes(document: &Document) -> Vec<String> {
    let width = |path: &str| path.ends_with(".n_latents");
    let zipped = document.axes.iter().filter(|axis| axis.paths.iter().any(|p| width(&p.path)));
    let of_methods = |path: &&str| ["sae.", "sae_train.", "baselines."].iter().any(|start| path.starts_with(start));
    zipped.flat_map(|axis| &axis.paths).map(|p| p.path.as_str()).filter(of_methods).map(str::to_owned).collect()
}

/// What is wrong with scores that compare widths and with their pairs; `places` are those of the names.
pub fn wrong(document: &Document, places: &[Place]) -> Vec<Diagnostic> {
    let experiment = &document.experiment;
    let Some(section) = &experiment.score else { return vec![] };
    let mut errors = vec![];
    let mut error = |place: Place, message: String, help: &str| {
        errors.push(Diagnostic { place, message, help: Some(help.to_owned()) });
    };
    let pairs = pair_nodes(document);
    let across = |name: &&String| score::definition(name).is_some_and(|d| d.needs.contains(&score::Need::OtherWidth));
    let Some(name) = section.names.iter().find(across) else {
        if let Some(first) = pairs.first() {
            error(
                first.place,
                "`pairs` without a score that compares two widths".into(),
                "add `hedging` or `mmcs_larger`",
            );
        }
        return errors;
    };
    let place = section.names.iter().position(|n| n == name).and_then(|at| places.get(at)).copied().unwrap_or_default();
    let kept = match experiment.save.weights {
        WeightsSection::Auto | WeightsSection::All => None,
        WeightsSection::None => Some("keeps no weights"),
        WeightsSection::Best => Some("keeps the weights of the best seed alone"),
    };
    if let Some(kept) = kept {
        let place = document.root.at(["save", "weights"]).map_or(place, |node| node.place);
        let message = format!("`{name}` compares the decoders of two cells, and the run {kept}");
        error(place, message, "write `save: {weights: all}`");
    }
    if section.pairs.is_empty() && free_axes(document).is_empty() {
        let message = format!("`{name}` compares two widths of a dictionary, and here each has one");
        error(place, message, "sweep an `n_latents`, or name two entries: `pairs: [[narrow, wide]]`");
    }
    let saes = experiment.sae.iter().map(|entry| (entry.name.as_str(), Some(entry.kind.n_latents())));
    let baselines = experiment.baselines.iter().map(|entry| (entry.name.as_str(), None));
    let entries: Vec<(&str, Option<usize>)> = saes.chain(baselines).collect();
    for (pair, node) in section.pairs.iter().zip(pairs) {
        let found = [0, 1].map(|at| entries.iter().find(|(name, _)| *name == pair[at]));
        for (at, _) in found.iter().enumerate().filter(|(_, found)| found.is_none()) {
            let names = || entries.iter().map(|(name, _)| *name);
            let list = format!("entries: {}", names().collect::<Vec<_>>().join(", "));
            let help =
                nearest(&pair[at], names()).map_or(list.clone(), |near| format!("did you mean `{near}`? {list}"));
            let place = node.get(&at.to_string()).map_or(node.place, |item| item.place);
            error(place, format!("no entry of `sae` or `baselines` is called `{}`", pair[at]), &help);
        }
        let swept = !free_axes(document).is_empty();
        if let [Some((_, Some(narrow))), Some((_, Some(wide)))] = found
            && !swept
            && narrow >= wide
        {
            let message = format!("`{}` is not wider than `{}`: {wide} latents and {narrow}", pair[1], pair[0]);
            error(node.place, message, "a pair is [narrow, wide]");
        }
    }
    errors
}

/// The nodes of `pairs`, in their order.
fn pair_nodes(document: &Document) -> Vec<&Node> {
    let items = |node: &'_ Node| matches!(node.value, node::Value::List(_));
    let Some(node::Value::List(written)) = document.root.get("score").map(|node| &node.value) else { return vec![] };
    let lists = written.iter().filter_map(|item| item.get("pairs")).filter(|node| items(node));
    lists
        .flat_map(|list| match &list.value {
            node::Value::List(pairs) => pairs.iter().collect(),
            _ => vec![],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{cell, row};
    use crate::store::{Column as StoreColumn, Kind, Row, Schema, Value as Stored, frame};
    use ndarray::{Array2, arr2};

    /// Rows of (method, seed, l1, n_latents); null where an axis does not touch the method.
    fn rows(table: &[(&str, u64, Option<f64>, Option<i64>)]) -> DataFrame {
        let axes = vec![StoreColumn::new("sae.*.l1", Kind::Float), StoreColumn::new("sae.*.n_latents", Kind::Int)];
        let schema = Schema { axes, scores: vec![StoreColumn::new("mcc", Kind::Float)] };
        let rows: Vec<Row> = (0..)
            .zip(table)
            .map(|(index, &(method, seed, l1, n))| Row {
                method: Some(method.into()),
                seed,
                axes: vec![l1.map_or(Stored::Null, Stored::Float), n.map_or(Stored::Null, Stored::Int)],
                scores: vec![Stored::Float(0.5)],
                ..row(index)
            })
            .collect();
        frame("test", &schema, &rows).expect("rows fit")
    }

    fn tensor(rows: &[[f32; 3]]) -> Tensor {
        let matrix: Array2<f32> = Array2::from(rows.to_vec());
        Tensor { name: DECODER.into(), shape: vec![rows.len(), 3], values: matrix.iter().copied().collect() }
    }

    const NARROW: [[f32; 3]; 1] = [[0.8, 0.6, 0.0]];
    const WIDE: [[f32; 3]; 2] = [[1.0, 0.0, 0.0], [0.0, 3.0, 0.0]];
    const WIDEST: [[f32; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    /// (mmcs_larger, hedging) of each row.
    fn found(widths: &Widths, rows: DataFrame, decoders: &[&[[f32; 3]]]) -> Vec<(Option<f64>, Option<f64>)> {
        let kept = (0..).zip(decoders).filter(|(_, rows)| !rows.is_empty());
        let kept: BTreeMap<CellId, Tensor> = kept.map(|(index, rows)| (cell(index), tensor(rows))).collect();
        let with = widths.add_to(rows, &|_| Ok(kept.clone())).expect("rows");
        let scores = Layout::of(&with).expect("still rows").scores;
        assert_eq!(scores, ["mcc", "mmcs_larger", "hedging"]);
        let number =
            |name: &str, row: usize| with.column(name).expect("there").get(row).expect("a row").extract::<f64>();
        (0..with.height()).map(|row| (number("mmcs_larger", row), number("hedging", row))).collect()
    }

    fn widths(pairs: &[[&str; 2]]) -> Widths {
        let pairs = pairs.iter().map(|pair| pair.map(str::to_owned)).collect();
        Widths { hedging: true, larger: true, pairs, free: vec!["sae.*.n_latents".into()] }
    }

    /// The rate of one row that moves from (.8, .6, 0) to (1, 0, 0) when (0, 1, 0) gets a row of its own: P = .6, and
    /// P0 = √.4 / 2, a random direction of three dimensions having a mean share of 1/2.
    fn moved() -> f64 {
        let p0 = 0.4f64.sqrt() / 2.0;
        (0.6 - p0) / (1.0 - p0)
    }

    /// f32 coordinates: .8 and .6 are off by 3e-8 at most.
    fn close(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-6)
    }

    #[test]
    fn a_width_is_compared_with_the_next_ones_of_its_seed_and_settings() {
        let table = [
            ("topk", 0, Some(0.1), Some(2)),
            ("topk", 0, Some(0.1), Some(3)),
            ("topk", 0, Some(0.1), Some(1)),
            ("topk", 1, Some(0.1), Some(1)),
            ("topk", 0, Some(0.2), Some(1)),
            ("relu", 0, Some(0.1), Some(1)),
        ];
        let decoders: [&[[f32; 3]]; 6] = [&WIDE, &WIDEST, &NARROW, &NARROW, &NARROW, &NARROW];
        let found = found(&widths(&[]), rows(&table), &decoders);
        // The best cosine of (.8, .6, 0) with a row of the next dictionary is .8.
        assert!(close(found[2].0, 0.8) && found[2].1.is_none(), "{found:?}");
        assert!(close(found[0].0, 1.0) && close(found[0].1, moved()), "{found:?}");
        // From two to three rows none moves.
        assert!(found[1].0.is_none() && close(found[1].1, 0.0), "{found:?}");
        // Another seed, penalty or method has no partner.
        assert!(found[3..].iter().all(|row| *row == (None, None)), "{found:?}");
    }

    #[test]
    fn pairs_name_what_is_compared_and_axes_of_one_side_are_left_out() {
        let table = [
            ("narrow", 0, None, None),
            ("wide", 0, Some(0.1), None),
            ("wide", 0, Some(0.2), None),
            ("other", 0, None, None),
        ];
        let decoders: [&[[f32; 3]]; 4] = [&NARROW, &WIDE, &WIDE, &WIDEST];
        let found = found(&widths(&[["narrow", "wide"]]), rows(&table), &decoders);
        assert!(close(found[1].1, moved()) && close(found[2].1, moved()), "{found:?}");
        // Two dictionaries are the next larger one.
        assert_eq!((found[0].0, found[3]), (None, (None, None)));
    }

    #[test]
    fn where_no_decoder_is_kept_nothing_is_compared() {
        let table = [("topk", 0, None, Some(1)), ("topk", 0, None, Some(2))];
        assert_eq!(found(&widths(&[]), rows(&table), &[&[], &WIDE]), [(None, None); 2]);
        let empty = widths(&[]).add_to(rows(&[]), &|_| panic!("there is no cell to ask for")).expect("columns");
        assert_eq!(empty.width(), rows(&[]).width() + 2);
    }

    #[test]
    fn a_matrix_is_what_has_two_axes() {
        assert_eq!(matrix(&tensor(&WIDE)).map(|m| m.to_owned()), Some(arr2(&WIDE)));
        assert!(matrix(&Tensor { shape: vec![6], ..tensor(&WIDE) }).is_none());
    }
}
