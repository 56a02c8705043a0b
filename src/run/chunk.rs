//! One chunk of a plan: train what its cells share once, then what is theirs, then score.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::checkpoints::{Keeper, Kept};
use super::columns::ScoreColumn;
use super::evaluation::{Evaluation, Judged, Losses, asks_for_losses, losses, reads_samples};
use super::record::CellRecord;
use super::snapshots::snapshots;
use super::stand_in::{self, job, stand_in};
use super::training_set::TrainingSet;
use super::{fault, given};
use crate::activations::Activations;
use crate::backend::{Backend, BackendError, SaeGroup, Watch};
use crate::data::World;
use crate::hidden::{HiddenMaker, HiddenSource, SaeSource};
use crate::plan::{Cell, CellMethod, Plan, resolve};
use crate::sae::{Coder, SaeOutcome};
use crate::spec::output::{TraceSection, WeightsSection};
use crate::toy::{ToyJob, ToyOutcome, TrainingEnd};

/// Cells that share a world, a toy model and a seed.
struct Stem {
    /// Plan indices.
    cells: Vec<usize>,
    sections: Vec<Cell>,
    world: Arc<World>,
    importance: Option<Vec<f64>>,
}

impl Stem {
    /// Takes a cell out, by its position.
    fn leave_out(&mut self, cell: usize) {
        self.cells.remove(cell);
        self.sections.remove(cell);
    }
}

/// A stem after training.
struct Trained {
    source: Option<HiddenSource>,
    toy: Option<ToyOutcome>,
    /// `[cell]`, for cells with an SAE.
    saes: Vec<Option<SaeOutcome>>,
}

/// Cells estimated to take more memory than this are scored one at a time.
const LARGE: f64 = 128e6;

/// Why a chunk has no records.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// What the experiment names cannot be used.
    #[error("{0}")]
    Input(String),
    /// What trains has failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl From<String> for BenchError {
    fn from(why: String) -> Self {
        BenchError::Input(why)
    }
}

/// What a chunk is computed with.
pub struct Bench<'a> {
    pub plan: &'a Plan,
    pub columns: &'a [ScoreColumn],
    pub backend: &'a dyn Backend,
    pub watch: &'a dyn Watch,
    /// What is logged along training.
    pub trace: &'a TraceSection,
    /// Whose weights are kept.
    pub keep: &'a WeightsSection,
    /// Activations from files, where no world makes hidden states.
    pub given: Option<Arc<Activations>>,
    /// Where trainings under way are kept.
    pub keeper: Option<Keeper<'a>>,
}

/// Who takes the records of cells as they are finished, from any thread.
pub trait Sink: Sync {
    /// Records of cells of one stem.
    fn take(&self, records: Vec<CellRecord>);
    /// False where nothing more is wanted: what is not scored yet is left out.
    fn wants_more(&self) -> bool {
        true
    }
}

/// Keeps all records.
#[derive(Default)]
struct All(Mutex<Vec<CellRecord>>);

impl Sink for All {
    fn take(&self, records: Vec<CellRecord>) {
        self.0.lock().expect("no thread panics while it holds this").extend(records);
    }
}

impl Bench<'_> {
    /// Records of the cells with these plan indices (ascending); none where training was told to stop.
    ///
    /// # Errors
    /// A file that the experiment names cannot be read, or what trains has failed.
    pub fn compute(&self, indices: &[usize]) -> Result<Option<Vec<CellRecord>>, BenchError> {
        let all = All::default();
        self.compute_each(indices, &all)?;
        let mut records = all.0.into_inner().expect("no thread panics while it holds this");
        records.sort_by_key(|record| record.index);
        Ok((records.len() == indices.len()).then_some(records))
    }

    /// Trains the cells with these plan indices (ascending) and hands on the records of each stem when it is scored, in any
    /// order. Cells whose training was told to stop are left out. Where scoring one stem panics, the others are finished
    /// before the panic goes on.
    ///
    /// # Errors
    /// A file that the experiment names cannot be read, or what trains has failed.
    pub fn compute_each(&self, indices: &[usize], sink: &dyn Sink) -> Result<(), BenchError> {
        fault::strike(indices, fault::Phase::Training);
        if let Some(activations) = &self.given {
            return given::compute(self, activations, indices, sink);
        }
        let stems = self.stems(indices)?;
        let (mut begun, mut trained) = (Vec::with_capacity(stems.len()), Vec::with_capacity(stems.len()));
        let toys = self.train_toys(&stems)?;
        for (stem, toy) in stems.into_iter().zip(toys) {
            // Told to stop before its toy model was done.
            let Some(toy) = toy else { continue };
            let source = self.source(&stem, toy.as_ref())?;
            trained.push(Trained { source, toy, saes: Vec::new() });
            begun.push(stem);
        }
        self.train_saes(&mut begun, &mut trained)?;
        let left = begun.into_iter().zip(trained).filter(|(stem, _)| !stem.cells.is_empty());
        let (begun, trained): (Vec<Stem>, Vec<Trained>) = left.unzip();
        let losses = self.losses(&begun, &trained);
        // Large stems one after the other: each has work for all threads, and their memory need not add up.
        let in_turn = self.in_turn(indices);
        let panicked = Mutex::new(None);
        let score = |((stem, trained), losses): ((Stem, Trained), Option<Losses>)| {
            if !sink.wants_more() {
                return;
            }
            // Nothing of a stem whose scoring panicked is used again.
            let scored = catch_unwind(AssertUnwindSafe(|| {
                fault::strike(&stem.cells, fault::Phase::Scoring);
                self.score_stem(&stem, trained, losses)
            }));
            match scored {
                Ok(records) => sink.take(records),
                Err(payload) => *panicked.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload),
            }
        };
        begun.into_par_iter().zip(trained).zip(losses).with_min_len(in_turn).for_each(score);
        match panicked.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(payload) => resume_unwind(payload),
            None => Ok(()),
        }
    }

    /// The autoencoder or baseline of one cell, trained again: the same bits. None where the cell has none, where training
    /// diverged, or where it was told to stop.
    ///
    /// # Errors
    /// As [`Bench::compute`].
    pub fn coder(&self, index: usize) -> Result<Option<Box<dyn Coder>>, BenchError> {
        if let Some(activations) = &self.given {
            return given::coder(self, activations, index);
        }
        let mut stems = self.stems(&[index])?;
        let Some(toy) = self.train_toys(&stems)?.pop().flatten() else { return Ok(None) };
        let Some(source) = self.source(&stems[0], toy.as_ref())? else { return Ok(None) };
        let cell = &stems[0].sections[0];
        if stand_in::steps(&cell.method).is_none() {
            return Ok(stand_in(&cell.method, &source, cell.seed));
        }
        let mut trained = [Trained { source: Some(source), toy, saes: Vec::new() }];
        self.train_saes(&mut stems, &mut trained)?;
        let outcome = trained[0].saes.pop().flatten();
        Ok(outcome.filter(|outcome| outcome.end == TrainingEnd::Finished).map(|outcome| outcome.coder))
    }

    /// How many of these cells, or of their stems, one thread scores in turn.
    fn in_turn(&self, indices: &[usize]) -> usize {
        let large = indices.iter().any(|index| self.plan.memory(*index) > LARGE);
        if large { indices.len().max(1) } else { 1 }
    }

    fn stems(&self, indices: &[usize]) -> Result<Vec<Stem>, BenchError> {
        let together = |a: &usize, b: &usize| self.plan.same_stem(*a, *b);
        let groups: Vec<&[usize]> = indices.chunk_by(together).collect();
        let stem = |cells: &[usize]| {
            let sections: Vec<Cell> = cells.iter().map(|i| self.plan.cell(*i)).collect();
            let first = &sections[0];
            let world = Arc::new(resolve::world(&first.data, first.seed, &self.plan.files)?);
            let importance = first.toy.as_ref().map(|toy| resolve::importance(toy, first.data.n_features, first.seed));
            Ok(Stem { cells: cells.to_vec(), sections, world, importance })
        };
        groups.into_iter().map(stem).collect()
    }

    /// `[stem]`; the inner option is empty where there is no toy model, the outer one where its training was stopped.
    fn train_toys(&self, stems: &[Stem]) -> Result<Vec<Option<Option<ToyOutcome>>>, BenchError> {
        let job = |stem: &Stem| -> Option<ToyJob> {
            let cell = &stem.sections[0];
            let job = resolve::toy_job(cell.toy.as_ref()?, &stem.world, cell.seed, self.trace.every);
            Some(ToyJob { snapshots: self.trace.features, ..job })
        };
        let jobs: Vec<ToyJob> = stems.iter().filter_map(job).collect();
        if jobs.is_empty() {
            return Ok(stems.iter().map(|_| Some(None)).collect());
        }
        let outcomes = self.backend.train_toys(&jobs, self.watch)?;
        Ok(outcomes.into_iter().map(|outcome| outcome.map(Some)).collect())
    }

    /// Where a stem's hidden states come from; none where its toy model diverged.
    fn source(&self, stem: &Stem, toy: Option<&ToyOutcome>) -> Result<Option<HiddenSource>, BenchError> {
        let cell = &stem.sections[0];
        let maker = match toy {
            Some(ToyOutcome { end: TrainingEnd::Diverged { .. }, .. }) => return Ok(None),
            Some(outcome) => HiddenMaker::Toy(Arc::new(outcome.model.clone())),
            None => match resolve::dictionary(&cell.data, cell.seed, &self.plan.files) {
                Some(dictionary) => HiddenMaker::Dictionary(Arc::new(dictionary?)),
                None => return Err(BenchError::Input("nothing makes hidden states".into())),
            },
        };
        Ok(Some(HiddenSource { world: stem.world.clone(), seed: cell.seed, maker }))
    }

    /// Fills `saes`; cells whose training was stopped are taken out of their stems.
    fn train_saes(&self, stems: &mut [Stem], trained: &mut [Trained]) -> Result<(), BenchError> {
        let (mut groups, mut owners) = (Vec::new(), Vec::new());
        for (at, (stem, trained)) in stems.iter().zip(trained.iter_mut()).enumerate() {
            trained.saes.resize_with(stem.cells.len(), || None);
            let Some(source) = &trained.source else { continue };
            let (mut saes, mut cells) = (Vec::new(), Vec::new());
            let (source, width) = (SaeSource::from(source.clone()), stem.world.n_features);
            for (cell, section) in stem.sections.iter().enumerate() {
                if let Some(job) = job(&section.method, &source, width, section.seed, self.trace.every) {
                    saes.push(job);
                    cells.push((at, cell));
                }
            }
            if !saes.is_empty() {
                groups.push(SaeGroup { source, saes });
                owners.push(cells);
            }
        }
        let outcomes = match self.keeper {
            _ if groups.is_empty() => Ok(vec![]),
            None => self.backend.train_saes(&groups, self.watch),
            Some(keeper) => {
                let id = |&(stem, cell): &(usize, usize)| self.plan.ids[stems[stem].cells[cell]];
                let cells = owners.iter().map(|cells| cells.iter().map(id).collect()).collect();
                self.backend.train_saes(&groups, &Kept { watch: self.watch, keeper, cells })
            }
        }?;
        // From the last to the first, so that cells before one that is taken out keep their places.
        let outcomes: Vec<Option<SaeOutcome>> = outcomes.into_iter().flatten().collect();
        let owners: Vec<(usize, usize)> = owners.into_iter().flatten().collect();
        for ((stem, cell), outcome) in owners.into_iter().zip(outcomes).rev() {
            if outcome.is_some() {
                trained[stem].saes[cell] = outcome;
            } else {
                stems[stem].leave_out(cell);
                trained[stem].saes.remove(cell);
            }
        }
        Ok(())
    }

    /// `[stem]`: losses of toy models that did not diverge, where a column or the choice of weights to keep asks for them.
    fn losses(&self, stems: &[Stem], trained: &[Trained]) -> Vec<Option<Losses>> {
        let keeps_best = *self.keep == WeightsSection::Best;
        if !keeps_best && !asks_for_losses(self.columns) {
            return vec![None; stems.len()];
        }
        let (mut owners, mut models) = (Vec::new(), Vec::new());
        for (at, (stem, trained)) in stems.iter().zip(trained).enumerate() {
            if let (Some(_), Some(toy), Some(importance)) = (&trained.source, &trained.toy, &stem.importance) {
                let (section, world) = (&stem.sections[0], &stem.world);
                let samples = section.evaluate.samples;
                models.push(Judged { model: &toy.model, importance, world, seed: section.seed, samples });
                owners.push(at);
            }
        }
        let mut of_stems = vec![None; stems.len()];
        owners.into_iter().zip(losses(&models)).for_each(|(stem, losses)| of_stems[stem] = Some(losses));
        of_stems
    }

    fn score_stem(&self, stem: &Stem, trained: Trained, losses: Option<Losses>) -> Vec<CellRecord> {
        let toy_end = trained.toy.as_ref().map(|t| &t.end);
        let steps = stem.sections[0].toy.as_ref().map(|t| t.train.steps);
        let taken = |toy: &ToyOutcome| snapshots(toy, steps.unwrap_or(0), &stem.world.groups);
        let snapshots = Arc::new(trained.toy.as_ref().map_or(vec![], taken));
        let Some(source) = trained.source else {
            let record = |cell: &usize| {
                let end = toy_end.expect("only a diverged toy model leaves a stem without a source");
                let record = CellRecord::diverged(*cell, "toy", end, self.columns.len(), trained.toy.as_ref(), vec![]);
                CellRecord { snapshots: snapshots.clone(), ..record }
            };
            return stem.cells.iter().map(record).collect();
        };
        let model = trained.toy.as_ref().map(|t| &t.model);
        let importance = stem.importance.as_deref();
        let coded = stem.sections.iter().any(|section| !matches!(section.method, CellMethod::None));
        let samples = (coded || reads_samples(self.columns)).then_some(stem.sections[0].evaluate.samples);
        let set = model.zip(importance).and_then(|(model, importance)| TrainingSet::of(&source, model, importance));
        let evaluation = Evaluation::new(&source, samples, model.zip(importance), losses, self.columns);
        let evaluation = evaluation.with_training_set(set);
        let cells: Vec<_> = stem.cells.iter().zip(&stem.sections).zip(trained.saes).collect();
        cells
            .into_par_iter()
            .with_min_len(self.in_turn(&stem.cells))
            .map(|((index, section), sae)| {
                if let Some(SaeOutcome { end: end @ TrainingEnd::Diverged { .. }, trace, .. }) = &sae {
                    let trace = trace.clone();
                    let toy = trained.toy.as_ref();
                    let record = CellRecord::diverged(*index, "sae", end, self.columns.len(), toy, trace);
                    return CellRecord { snapshots: snapshots.clone(), ..record };
                }
                let (coder, trace, missed) = match sae {
                    Some(outcome) => (Some(outcome.coder), outcome.trace, outcome.missed),
                    None => (stand_in(&section.method, &source, section.seed), vec![], None),
                };
                let scored = evaluation.score(coder.as_deref(), self.columns);
                let features = evaluation.feature_columns(&scored, importance);
                let own_steps = match &section.method {
                    CellMethod::None => steps,
                    method => stand_in::steps(method),
                };
                let toy = trained.toy.as_ref();
                let truth = (*self.keep != WeightsSection::None && toy.is_none() && coder.is_some())
                    .then(|| evaluation.truth().to_owned().into_dyn());
                let record = CellRecord::ok(*index, scored, features, own_steps, toy, coder, trace);
                let mut record = record.off_target(missed);
                record.tensors.extend(truth.map(|truth| ("dictionary".to_owned(), truth)));
                let samples = evaluation.training_set().map_or(vec![], TrainingSet::columns);
                CellRecord { toy_loss: evaluation.toy_loss(), samples, snapshots: snapshots.clone(), ..record }
            })
            .collect()
    }
}
