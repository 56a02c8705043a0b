//! Cells whose hidden states come from files: trained as any, scored on the rows held out by what needs no truth.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::checkpoints::Kept;
use super::chunk::{Bench, BenchError, Sink};
use super::columns::ScoreColumn;
use super::evaluation::CellScores;
use super::record::CellRecord;
use super::stand_in::{job, learned, steps};
use super::{RunError, fault};
use crate::activations::{Activations, GivenSource};
use crate::backend::{SaeGroup, Watch};
use crate::baseline;
use crate::hidden::SaeSource;
use crate::plan::{Cell, CellMethod};
use crate::sae::{Coder, SaeTrace};
use crate::score::{self, Arrays, Definition, Entry, PIECE, Rebuilt, Scores, Undefined, Vector};
use crate::spec::Document;
use crate::store::Value;
use crate::toy::TrainingEnd;

/// Scores that are taken where nothing is known of what made the hidden states.
pub const SCORES: [&str; 7] = ["l0", "dead", "dead_fraction", "explained_variance", "fvu", "shrinkage", "density"];

/// Width of a dictionary that no section sets: none, for it was checked that one does, or the first SAE.
const WIDTH: usize = 1;

/// Files of activations as a document names them; none where a world makes the hidden states.
///
/// # Errors
/// A file that cannot be opened any more.
pub fn open(document: &Document) -> Result<Option<Arc<Activations>>, RunError> {
    let section = document.experiment.activations.as_ref();
    let opened = section.map(|section| section.open(document).map(Arc::new)).transpose();
    opened.map_err(|e| RunError::Input(e.to_string()))
}

/// [`open`], every number looked at.
///
/// # Errors
/// A number that is not finite, with its place.
pub fn open_checked(document: &Document) -> Result<Option<Arc<Activations>>, RunError> {
    let Some(activations) = open(document)? else { return Ok(None) };
    for path in activations.by_column() {
        tracing::warn!("{} is in Fortran order: its rows are put together from columns, which is slow", path.display());
    }
    activations.check_finite().map_err(|e| RunError::Input(e.to_string()))?;
    Ok(Some(activations))
}

/// Hands on the records of the cells with these plan indices (ascending), as [`Bench::compute_each`] has it.
///
/// # Errors
/// A file could not be read again, or what trains has failed.
pub fn compute(
    bench: &Bench,
    activations: &Arc<Activations>,
    indices: &[usize],
    sink: &dyn Sink,
) -> Result<(), BenchError> {
    let together = |a: &usize, b: &usize| bench.plan.same_stem(*a, *b);
    let stems: Vec<Vec<(usize, Cell)>> = (indices.chunk_by(together))
        .map(|cells| cells.iter().map(|&index| (index, bench.plan.cell(index))).collect())
        .collect();
    let watch = Readable { watch: bench.watch, activations };
    let group = |cells: &Vec<(usize, Cell)>| {
        let source = source(activations, cells[0].1.seed);
        let job = |cell: &Cell| job(&cell.method, &source, WIDTH, cell.seed, bench.trace.every);
        let jobs = cells.iter().filter_map(|(index, cell)| Some((job(cell)?, bench.plan.ids[*index])));
        let (saes, ids): (Vec<_>, Vec<_>) = jobs.unzip();
        (SaeGroup { source, saes }, ids)
    };
    let (groups, cells): (Vec<SaeGroup>, Vec<_>) = stems.iter().map(group).unzip();
    let outcomes = match bench.keeper {
        None => bench.backend.train_saes(&groups, &watch),
        Some(keeper) => bench.backend.train_saes(&groups, &Kept { watch: &watch, keeper, cells }),
    }?;
    if let Some(failure) = activations.failure() {
        return Err(failure.into());
    }
    let mut trained = outcomes.into_iter().flatten();
    for stem in stems {
        if !sink.wants_more() {
            break;
        }
        let cells: Vec<usize> = stem.iter().map(|(index, _)| *index).collect();
        fault::strike(&cells, fault::Phase::Scoring);
        let (mut coded, mut records) = (Vec::new(), Vec::new());
        for (index, cell) in &stem {
            let (coder, trace, missed) = match &cell.method {
                CellMethod::None => {
                    return Err(BenchError::Input("there is nothing to train on the activations".into()));
                }
                method if steps(method).is_some() => {
                    // Told to stop before it was done.
                    let Some(outcome) = trained.next().expect("one outcome for each job") else { continue };
                    if let end @ TrainingEnd::Diverged { .. } = &outcome.end {
                        let columns = bench.columns.len();
                        records.push(CellRecord::diverged(*index, "sae", end, columns, None, outcome.trace));
                        continue;
                    }
                    (outcome.coder, outcome.trace, outcome.missed)
                }
                CellMethod::Baseline(kind) => {
                    let learned = learned(kind, &source(activations, cell.seed), WIDTH, cell.seed);
                    (
                        learned.ok_or_else(|| "an oracle has no place beside activations from files".to_owned())?,
                        vec![],
                        None,
                    )
                }
                CellMethod::Sae(..) => unreachable!("every autoencoder has steps"),
            };
            coded.push((*index, cell, coder, trace, missed));
        }
        let samples = stem[0].1.evaluate.samples;
        let coders: Vec<&dyn Coder> = coded.iter().map(|(_, _, coder, ..)| &**coder).collect();
        let tallies = evaluate(activations, samples, &coders);
        for ((index, cell, coder, trace, missed), tally) in coded.into_iter().zip(tallies) {
            records.push(record(index, cell, coder, trace, &tally, bench.columns).off_target(missed));
        }
        // Rows that could not be read make no score.
        if let Some(failure) = activations.failure() {
            return Err(failure.into());
        }
        sink.take(records);
    }
    Ok(())
}

/// The coder of one cell, as [`Bench::coder`] has it.
///
/// # Errors
/// A file could not be read again, or what trains has failed.
pub fn coder(
    bench: &Bench,
    activations: &Arc<Activations>,
    index: usize,
) -> Result<Option<Box<dyn Coder>>, BenchError> {
    let cell = bench.plan.cell(index);
    let source = source(activations, cell.seed);
    let coder = match (&cell.method, job(&cell.method, &source, WIDTH, cell.seed, 0)) {
        (_, Some(job)) => {
            let groups = [SaeGroup { source, saes: vec![job] }];
            let watch = Readable { watch: bench.watch, activations };
            let outcomes = bench.backend.train_saes(&groups, &watch)?;
            let outcome = outcomes.into_iter().next().and_then(|mut group| group.pop()).flatten();
            outcome.filter(|outcome| outcome.end == TrainingEnd::Finished).map(|outcome| outcome.coder)
        }
        (CellMethod::Baseline(kind), None) => learned(kind, &source, WIDTH, cell.seed),
        (_, None) => None,
    };
    activations.failure().map_or(Ok(coder), |why| Err(why.into()))
}

fn source(activations: &Arc<Activations>, seed: u64) -> SaeSource {
    SaeSource::Given(GivenSource { activations: activations.clone(), seed })
}

/// Ends a training whose rows cannot be read any more.
struct Readable<'a> {
    watch: &'a dyn Watch,
    activations: &'a Activations,
}

impl Watch for Readable<'_> {
    fn behind(&self) -> Option<&dyn Watch> {
        Some(self.watch)
    }
    fn stop(&self) -> bool {
        self.watch.stop() || self.activations.failure().is_some()
    }
}

fn record(
    index: usize,
    cell: &Cell,
    coder: Box<dyn Coder>,
    trace: Vec<SaeTrace>,
    tally: &Tally,
    columns: &[ScoreColumn],
) -> CellRecord {
    let scores = tally.scores();
    let (mut values, mut undefined) = (Vec::with_capacity(columns.len()), Vec::new());
    for column in columns {
        let (value, reason) = match scores.get(&column.name) {
            Some(Entry::Number(Ok(v))) => (Value::measured(v), "not finite"),
            Some(Entry::Number(Err(Undefined(reason)))) => (Value::Null, reason),
            Some(Entry::Word(_)) | None => (Value::Null, "there is no such entry"),
        };
        if value == Value::Null {
            undefined.push((column.name.clone(), reason));
        }
        values.push(value);
    }
    let scored = CellScores { values, undefined, scores };
    CellRecord::ok(index, scored, vec![], steps(&cell.method), None, Some(coder), trace)
}

/// The record of a cell as if it had been trained, for its columns.
pub fn made_up(index: usize, cell: &Cell, columns: &[ScoreColumn], traced: bool) -> CellRecord {
    let trace = if traced { vec![SaeTrace { step: 0, loss: 0.0, l0: 0.0, control: None }] } else { vec![] };
    record(index, cell, Box::new(baseline::random(2, 1, None, 0)), trace, &Tally::new(2, 1), columns)
}

/// What each coder makes of the first `samples` rows to evaluate on. Rows are read once for all coders, in pieces.
fn evaluate(activations: &Activations, samples: usize, coders: &[&dyn Coder]) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = coders.iter().map(|coder| Tally::new(coder.n_latents(), activations.d())).collect();
    if coders.is_empty() {
        return tallies;
    }
    activations.evaluation(samples, PIECE, |rows| {
        let h = ArrayView2::from_shape((rows.len() / activations.d(), activations.d()), rows).expect("whole rows");
        tallies.par_iter_mut().zip(coders).for_each(|(tally, coder)| tally.add(h, *coder));
    });
    tallies
}

/// Counts and sums over samples, in their order.
#[derive(Clone, Debug)]
struct Tally {
    samples: usize,
    /// On how many samples each latent fires.
    fired: Vec<usize>,
    rebuilt: Rebuilt,
    d: usize,
}

impl Tally {
    fn new(n_latents: usize, d: usize) -> Tally {
        Tally { samples: 0, fired: vec![0; n_latents], rebuilt: Rebuilt::new(d), d }
    }

    fn add(&mut self, h: ArrayView2<'_, f32>, coder: &dyn Coder) {
        let latents = coder.encode(h);
        for z in latents.rows() {
            self.fired.iter_mut().zip(z).for_each(|(fired, &z)| *fired += usize::from(z != 0.0));
        }
        self.rebuilt.add(&Rebuilt::of_piece(h, coder.decode(latents.view(), h).view()));
        self.samples += h.nrows();
    }

    /// [`SCORES`].
    fn scores(&self) -> Scores {
        // Scores of reconstructions ask nothing of the truth.
        let nothing = Array2::<f32>::zeros((1, self.d));
        let arrays = Arrays { rebuilt: Some(&self.rebuilt), ..Arrays::of_truth(nothing.view()) };
        let mut scores = score::evaluate(&arrays, Some(&["explained_variance", "fvu", "shrinkage"]));
        let n = self.samples as f64;
        let of_samples = |value: f64| if self.samples > 0 { Ok(value) } else { Err(Undefined("there are no samples")) };
        let dead = self.fired.iter().filter(|&&fired| fired == 0).count() as f64;
        let counts = [
            ("l0", self.fired.iter().sum::<usize>() as f64 / n),
            ("dead", dead),
            ("dead_fraction", dead / self.fired.len() as f64),
        ];
        scores.scalars.extend(counts.map(|(name, value)| (definition(name), of_samples(value))));
        let density = self.fired.iter().map(|&fired| of_samples(fired as f64 / n).ok()).collect();
        scores.vectors.push((definition("density"), Vector::Numbers(density)));
        scores
    }
}

fn definition(name: &str) -> &'static Definition {
    score::definition(name).expect("a name of SCORES")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::Codes;
    use ndarray::Array2;

    /// The scores of the `score` command on the same arrays: the same sums over the same pieces.
    #[test]
    fn pieces_give_the_scores_of_whole_arrays() {
        let samples = 2 * PIECE + 100;
        let h = Array2::from_shape_fn((samples, 3), |(s, k)| ((s * 3 + k) * 37 % 101) as f32 / 50.0 + 5.0 * k as f32);
        let coder = baseline::random(7, 3, Some(2), 1);
        let latents = Codes::of_dense(coder.encode(h.view()).view());
        let rebuilt = Rebuilt::of(h.view(), coder.decode(latents.to_dense().view(), h.view()).view());
        let truth = Array2::<f32>::eye(3);
        let arrays = Arrays {
            dictionary: Some(coder.decoder()),
            latents: Some(score::Activations::Sparse(&latents)),
            rebuilt: Some(&rebuilt),
            ..Arrays::of_truth(truth.view())
        };
        let expected = score::evaluate(&arrays, Some(&SCORES));
        let mut tally = Tally::new(7, 3);
        for first in (0..samples).step_by(PIECE) {
            tally.add(h.slice(ndarray::s![first..(first + PIECE).min(samples), ..]), &coder);
        }
        let found = tally.scores();
        for name in &SCORES[..6] {
            let value = |scores: &Scores| scores.scalar(name).expect("it is there");
            assert_eq!(value(&found), value(&expected), "{name}");
        }
        assert_eq!(found.vector("density"), expected.vector("density"));
        assert!(matches!(found.get("density_3"), Some(Entry::Number(Ok(_)))));
    }

    #[test]
    fn no_samples_and_samples_of_zeros_are_said() {
        let none = Tally::new(4, 2).scores();
        assert!(none.scalars.len() == 6 && none.scalars.iter().all(|(_, value)| value.is_err()));
        let mut zeros = Tally::new(4, 2);
        zeros.add(Array2::zeros((5, 2)).view(), &baseline::random(4, 2, None, 1));
        let zeros = zeros.scores();
        assert!(matches!(zeros.scalar("shrinkage"), Some(Err(_))));
        assert_eq!(zeros.scalar("explained_variance"), Some(Ok(1.0)));
    }
}
