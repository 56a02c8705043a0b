//! What every backend shares in training a toy model: where it starts, what its loss weighs, when it has diverged, and
//! which restart stays.

use std::ops::Range;

use rayon::prelude::*;

use super::model::{LossScale, ToyInit, ToyJob, ToyKind, ToyModel, ToyOutcome, TrainingEnd};
use crate::backend::ops::toy_loss::ToyLoss;
use crate::backend::ops::toy_step::{Forms, Inputs, Shape};
use crate::backend::simd::Isa;
use crate::data::world::same_data;
use crate::data::{Batch, Dataset, Order, Sampler};
use crate::random::{Draws, Stream};

impl ToyJob {
    /// What kernels have to know of the model.
    pub fn shape(&self) -> Shape {
        Shape { kind: self.kind, n_features: self.world.n_features, d_hidden: self.d_hidden }
    }

    /// The model before the first step. Weights are the words of [`Stream::ToyInit`] whose part is the restart's
    /// number, in the order of `w`, then `v`; so restart r starts the same in every job of one seed and shape, whatever
    /// else they differ in.
    pub fn initial_model(&self, restart: usize) -> ToyModel {
        let Shape { kind, n_features, d_hidden } = self.shape();
        let [w, c, v, b] = self.shape().parts().map(|(_, length)| length);
        let mut draws = Draws::new(self.seed, Stream::ToyInit, restart as u64);
        let mut weights = |length: usize| {
            let std = match self.init {
                ToyInit::Xavier => (2.0 / (length / d_hidden + d_hidden) as f64).sqrt(),
                ToyInit::Normal(std) => std,
            };
            (0..length).map(|_| (std * draws.normal()) as f32).collect::<Vec<_>>()
        };
        let (w, v) = (weights(w), weights(v));
        let bias = if let ToyKind::Mlp(mlp) = kind { mlp.bias } else { 0.0 };
        ToyModel { kind, n_features, d_hidden, w, c: vec![bias; c], v, b: vec![0.0; b] }
    }

    /// The part of the flat parameters that shrinks after `step`, and by which factor: the hidden bias of an `mlp` with bias
    /// decay, in the first half of the steps.
    pub fn bias_decay(&self, step: usize) -> Option<(Range<usize>, f64)> {
        let ToyKind::Mlp(mlp) = self.kind else { return None };
        let [w, c, ..] = self.shape().parts().map(|(_, length)| length);
        let lr = self.train.lr * self.train.schedule.factor(step, self.train.steps);
        let decays = mlp.bias_decay != 0.0 && step < self.train.steps / 2;
        decays.then(|| (w..w + c, 1.0 - mlp.bias_decay as f64 * lr))
    }

    /// What the loss is multiplied by before it is differentiated: 1, or 1 over the mean firing probability (1 again where
    /// nothing ever fires), or n_features.
    pub fn loss_factor(&self) -> f64 {
        match self.train.loss_scale {
            LossScale::Mean => 1.0,
            // A quadratic model has one output, and the mean over outputs is their sum.
            LossScale::Sum if self.kind == ToyKind::Quadratic => 1.0,
            LossScale::Sum => self.world.n_features as f64,
            LossScale::PerDensity => {
                let p = self.world.marginal_probability();
                let mean = p.iter().sum::<f64>() / p.len() as f64;
                if mean > 0.0 { 1.0 / mean } else { 1.0 }
            }
        }
    }

    /// c_i = 2 I_i `loss_factor` / (batch_size n_features), so that dL/dx'_i = c_i (x'_i - x_i), `[n_features]`. Of a
    /// `quadratic` model the weights I_i of its target and then c = 2 `loss_factor` / batch_size for its one output,
    /// `[n_features + 1]`.
    ///
    /// Slopes below 1e-20 are 0: a curve of importance that falls so far would fill the gradient with denormal numbers,
    /// which make the same step ten times slower and move no weight.
    pub fn slopes(&self) -> Vec<f32> {
        let slopes = self.wide_slopes().into_iter().map(|c| c as f32);
        slopes.map(|c| if c.abs() < 1e-20 { 0.0 } else { c }).collect()
    }

    /// [`ToyJob::slopes`] in f64, none of them rounded.
    pub fn wide_slopes(&self) -> Vec<f64> {
        let factor = 2.0 * self.loss_factor() / self.train.batch_size as f64;
        let importance = self.importance.iter().map(|i| *i as f64);
        match self.kind {
            ToyKind::Quadratic => importance.chain([factor]).collect(),
            _ => importance.map(|i| i * (factor / self.world.n_features as f64)).collect(),
        }
    }

    /// Whether the loss of `step` belongs in the trace: the first step, every `trace_every`-th and the last.
    pub fn logs(&self, step: usize) -> bool {
        self.trace_every > 0 && (step.is_multiple_of(self.trace_every) || step + 1 == self.train.steps)
    }
}

/// Where the batches of a training come from.
pub enum TrainData {
    /// Batch t is step t of [`Stream::Train`].
    Fresh(Sampler),
    /// A finite set, walked in its order.
    Finite {
        set: Dataset,
        order: Order,
        /// Samples of the batch at hand.
        rows: Vec<u32>,
    },
}

impl TrainData {
    /// The data of a job: fresh, or the finite set of its world and seed.
    pub fn new(job: &ToyJob) -> TrainData {
        match Dataset::draw(&job.world, job.seed) {
            None => TrainData::Fresh(Sampler::new(job.world.clone(), job.seed, Stream::Train)),
            Some(set) => TrainData::Finite { order: Order::new(set.samples(), job.seed), set, rows: vec![] },
        }
    }

    /// Batch `step` in the forms asked for, into `inputs`.
    pub fn fill(&mut self, step: usize, batch_size: usize, forms: Forms, inputs: &mut Inputs) {
        match self {
            TrainData::Fresh(sampler) => inputs.draw(sampler, step as u32, batch_size, forms),
            TrainData::Finite { .. } => {
                let mut batch = std::mem::take(&mut inputs.dense);
                self.draw(step, batch_size, &mut batch);
                inputs.fill_from(batch, forms);
            }
        }
    }

    /// Batch `step`, dense, into `batch`.
    pub fn draw(&mut self, step: usize, batch_size: usize, batch: &mut Batch) {
        match self {
            TrainData::Fresh(sampler) => sampler.draw(step as u32, batch_size, batch),
            TrainData::Finite { set, order, rows } => {
                order.batch(step, batch_size, rows);
                set.gather(rows.iter().map(|row| *row as usize), batch);
            }
        }
    }
}

/// Watches a training for divergence: a loss that is not finite or exceeds 1e6 times the loss of the first step plus 1e3,
/// or a weight that is not finite.
///
/// It looks at every 64th step, at the last, and once more at the weights that come out. When it looks depends on
/// nothing else, so the step it reports is the same everywhere.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    first: Option<f64>,
    last: f64,
}

impl Guard {
    /// Whether the loss of `step` is looked at.
    pub fn looks(step: usize, steps: usize) -> bool {
        step.is_multiple_of(64) || step + 1 == steps
    }

    /// The end of the training if something is wrong after `step` steps. `loss` is that of the next batch, without
    /// `loss_factor`; none after the last step. `parameters` are flat.
    pub fn look(&mut self, step: usize, loss: Option<f64>, shape: Shape, parameters: &[f32]) -> Option<TrainingEnd> {
        let mut rest = parameters;
        let wrong = shape.parts().into_iter().find_map(|(tensor, length)| {
            let values = rest.split_off(..length).expect("flat parameters are as long as their parts");
            (!values.iter().all(|v| v.is_finite())).then_some(tensor)
        });
        self.judge(step, loss, wrong)
    }

    /// The same where somebody else has looked through the parameters: `wrong` is the first tensor that is not finite.
    pub fn judge(&mut self, step: usize, loss: Option<f64>, wrong: Option<&'static str>) -> Option<TrainingEnd> {
        if let Some(tensor) = wrong {
            return Some(TrainingEnd::Diverged { step, last_loss: self.last, tensor });
        }
        let loss = loss.unwrap_or(self.last);
        let first = *self.first.get_or_insert(loss);
        if loss.is_finite() && loss <= 1e6 * first + 1e3 {
            self.last = loss;
            return None;
        }
        Some(TrainingEnd::Diverged { step, last_loss: self.last, tensor: "loss" })
    }
}

/// Samples on which restarts are compared.
const SELECT_SAMPLES: usize = 65_536;
const SELECT_BATCH: usize = 1024;

/// The restart of least importance-weighted loss, of equal ones the first: on common fresh samples ([`Stream::Select`]), or
/// on the training set where that is finite (as Henighan et al. 2023 keep the run of lowest training loss). Restarts that
/// diverged count only where all did: then the first stays.
pub fn choose_restart(isa: Isa, job: &ToyJob, restarts: Vec<ToyOutcome>) -> ToyOutcome {
    let chosen = choose_restarts(isa, std::slice::from_ref(job), vec![Some(restarts)]);
    chosen.into_iter().flatten().next().expect("there are restarts to choose from")
}

/// [`choose_restart`] for many jobs on the current rayon pool; nothing where a job has nothing. Jobs of one world and seed
/// are compared on the same samples, drawn once.
pub fn choose_restarts(isa: Isa, jobs: &[ToyJob], restarts: Vec<Option<Vec<ToyOutcome>>>) -> Vec<Option<ToyOutcome>> {
    let sound = |restarts: &Option<Vec<ToyOutcome>>| -> Vec<usize> {
        let restarts = restarts.iter().flatten().enumerate();
        restarts.filter(|(_, outcome)| outcome.end == TrainingEnd::Finished).map(|(restart, _)| restart).collect()
    };
    let sound: Vec<Vec<usize>> = restarts.iter().map(sound).collect();
    let mut kept: Vec<usize> = sound.iter().map(|sound| sound.first().copied().unwrap_or(0)).collect();
    let contests: Vec<usize> = (0..jobs.len()).filter(|job| sound[*job].len() > 1).collect();
    let groups = same_data(contests.iter().map(|job| (jobs[*job].seed, &jobs[*job].world)));
    // Enough pieces for every thread; a piece draws its samples again.
    let most = contests.len().div_ceil(2 * rayon::current_num_threads()).max(1);
    let pieces: Vec<Vec<usize>> = groups.iter().flat_map(|group| group.chunks(most).map(<[usize]>::to_vec)).collect();
    let best = pieces.into_par_iter().flat_map_iter(|piece| {
        let piece: Vec<usize> = piece.into_iter().map(|contest| contests[contest]).collect();
        let models = piece.iter().flat_map(|&job| {
            let restarts = restarts[job].as_ref().expect("a contest has restarts");
            sound[job].iter().map(move |&restart| (&restarts[restart].model, &jobs[job].importance[..]))
        });
        let losses = selection_losses(isa, &jobs[piece[0]], models);
        let mut losses = losses.into_iter();
        let best = |job: usize| {
            let of_job = losses.by_ref().take(sound[job].len()).zip(&sound[job]);
            let best = of_job.min_by(|a, b| a.0.total_cmp(&b.0)).expect("two or more are sound");
            (job, *best.1)
        };
        piece.into_iter().map(best).collect::<Vec<_>>()
    });
    for (job, best) in best.collect::<Vec<_>>() {
        kept[job] = best;
    }
    let keep = |(restarts, kept): (Option<Vec<ToyOutcome>>, usize)| Some(restarts?.swap_remove(kept));
    restarts.into_iter().zip(kept).map(keep).collect()
}

/// Weighted loss of each model on the samples by which restarts of `job`, or of any of its world and seed, are compared.
fn selection_losses<'a>(isa: Isa, job: &ToyJob, models: impl Iterator<Item = (&'a ToyModel, &'a [f32])>) -> Vec<f64> {
    let mut losses: Vec<ToyLoss> = models.map(|(model, importance)| ToyLoss::new(model, importance)).collect();
    let mut batch = Batch::default();
    if let Some(set) = Dataset::draw(&job.world, job.seed) {
        for piece in set.pieces() {
            set.gather(piece, &mut batch);
            losses.iter_mut().for_each(|loss| loss.add(isa, &batch));
        }
    } else {
        let sampler = Sampler::new(job.world.clone(), job.seed, Stream::Select);
        for step in 0..SELECT_SAMPLES / SELECT_BATCH {
            sampler.draw(step as u32, SELECT_BATCH, &mut batch);
            losses.iter_mut().for_each(|loss| loss.add(isa, &batch));
        }
    }
    losses.into_iter().map(|loss| loss.finish().1).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Magnitude, MagnitudeSharing, World};
    use crate::toy::{Activation, Mlp, ToyKind, ToyTrain};
    use crate::training::{Optimizer, Schedule};

    fn job(n_features: usize, d_hidden: usize) -> ToyJob {
        ToyJob {
            world: Arc::new(World {
                n_features,
                firing_probability: vec![0.25; n_features],
                magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
                magnitude_sharing: MagnitudeSharing::Independent,
                groups: vec![],
                dataset: None,
                correlation: None,
                hierarchy: None,
            }),
            seed: 1,
            kind: ToyKind::ReluOutput,
            d_hidden,
            importance: vec![1.0; n_features],
            init: ToyInit::Xavier,
            restarts: 1,
            train: ToyTrain {
                steps: 100,
                batch_size: 10,
                optimizer: Optimizer::default(),
                lr: 1e-3,
                schedule: Schedule::Constant,
                weight_decay: 0.0,
                loss_scale: LossScale::Mean,
            },
            trace_every: 0,
            snapshots: false,
        }
    }

    /// The mean of 20000 squares of normals over their variance is 1 ± 0.01 (one sigma): five sigma, false alarm 6e-7 for
    /// other seeds.
    #[test]
    fn weights_start_normal_with_the_stated_spread_and_differ_by_restart() {
        let mut job = job(200, 100);
        for (init, std) in [(ToyInit::Xavier, (2.0f64 / 300.0).sqrt()), (ToyInit::Normal(0.7), 0.7)] {
            job.init = init;
            let model = job.initial_model(0);
            let square = model.w.iter().map(|w| (*w as f64 / std).powi(2)).sum::<f64>() / 20_000.0;
            assert!((square - 1.0).abs() < 0.05, "{square}");
            assert!(model.b.iter().all(|b| *b == 0.0));
            assert_ne!(job.initial_model(1).w, model.w);
            assert_eq!(job.initial_model(0).w, model.w);
        }
    }

    /// Sums of squares of 6000 and 20000 normals over their variance are 1 ± 0.018 and 0.01 (one sigma): five sigma.
    #[test]
    fn every_weight_tensor_starts_by_its_own_widths_and_biases_as_the_kind_says() {
        let mut job = job(200, 100);
        let mlp = Mlp { d_embedding: 60, activation: Activation::Relu, bias: -1.0, bias_decay: 0.03, seed: 1 };
        job.kind = ToyKind::Mlp(mlp);
        let model = job.initial_model(0);
        let square =
            |w: &[f32], widths: f64| w.iter().map(|w| (*w as f64).powi(2)).sum::<f64>() / w.len() as f64 * widths / 2.0;
        assert_eq!([model.w.len(), model.v.len(), model.c.len(), model.b.len()], [6_000, 20_000, 100, 0]);
        assert!((square(&model.w, 160.0) - 1.0).abs() < 0.09 && (square(&model.v, 300.0) - 1.0).abs() < 0.05);
        assert!(model.c.iter().all(|c| *c == -1.0));
        assert_eq!(ToyModel::from_parameters(job.shape(), &model.parameters()), model);
        job.train.lr = 0.5;
        let decay = job.bias_decay(49).unwrap();
        assert_eq!(decay.0, 6_000..6_100);
        assert!((decay.1 - (1.0 - 0.03 * 0.5)).abs() < 1e-8, "{decay:?}");
        assert_eq!(job.bias_decay(50), None, "the second half");
        job.kind = ToyKind::AbsoluteValue;
        assert_eq!(job.bias_decay(0), None);
        let model = job.initial_model(0);
        assert_eq!(model.w, ToyJob { kind: ToyKind::ReluOutput, ..job.clone() }.initial_model(0).w);
        assert!(model.v.len() == 20_000 && model.v != model.w && model.b == [0.0; 200]);
        job.kind = ToyKind::Quadratic;
        assert_eq!(job.initial_model(0).b, [0.0]);
        // One output: a slope for it after the weights of its target.
        job.train.batch_size = 8;
        assert_eq!(job.slopes()[200], 0.25);
        assert_eq!(job.slopes()[..200], job.importance[..]);
    }

    /// An embedding of as many dimensions as features is a rotation R, so directions are R W; their lengths are those of
    /// the columns of W where that is a rotation too.
    #[test]
    fn directions_of_an_mlp_go_through_its_embedding() {
        let mlp = Mlp { d_embedding: 4, activation: Activation::Gelu, bias: 0.0, bias_decay: 0.0, seed: 9 };
        let shape = Shape { kind: ToyKind::Mlp(mlp), n_features: 4, d_hidden: 4 };
        let mut parameters = vec![0.0; shape.n_parameters()];
        (0..4).for_each(|k| parameters[k * 4 + k] = 2.0);
        let model = ToyModel::from_parameters(shape, &parameters);
        let embedding = crate::toy::embedding::embedding(4, 4, 9);
        assert_eq!(&*model.directions(), embedding.iter().map(|e| 2.0 * e).collect::<Vec<f32>>());
        let names: Vec<_> = model.tensors().into_iter().map(|(name, shape, _)| (name, shape)).collect();
        let expected = [("w", vec![4, 4]), ("c", vec![4]), ("v", vec![4, 4]), ("embedding", vec![4, 4])];
        assert_eq!(names, expected);
    }

    #[test]
    fn slopes_follow_importance_and_density_and_are_never_denormal() {
        let mut job = job(4, 2);
        job.importance = vec![1.0, 0.5, 1e-19, 0.0];
        assert_eq!(job.slopes(), [0.05, 0.025, 0.0, 0.0]);
        job.train.loss_scale = LossScale::PerDensity;
        assert_eq!(job.slopes(), [0.2, 0.1, 2e-20, 0.0]);
        let silent = World { firing_probability: vec![0.0; 4], ..(*job.world).clone() };
        job.world = Arc::new(silent);
        assert_eq!(job.loss_factor(), 1.0);
    }

    #[test]
    fn traces_have_the_first_step_the_last_and_every_so_many() {
        let mut job = job(2, 1);
        job.train.steps = 10;
        let logged = |job: &ToyJob| (0..10).filter(|&s| job.logs(s)).collect::<Vec<_>>();
        assert_eq!(logged(&job), Vec::<usize>::new());
        job.trace_every = 4;
        assert_eq!(logged(&job), [0, 4, 8, 9]);
        job.trace_every = 100;
        assert_eq!(logged(&job), [0, 9]);
    }

    #[test]
    fn the_guard_names_what_went_wrong_and_the_last_sound_loss() {
        let diverged = |step, last_loss, tensor| Some(TrainingEnd::Diverged { step, last_loss, tensor });
        let mut guard = Guard::default();
        let shape = Shape { kind: ToyKind::Linear, n_features: 1, d_hidden: 1 };
        let fine = [1.0, 1.0];
        assert_eq!(guard.look(0, Some(2.0), shape, &fine), None);
        assert_eq!(guard.look(64, Some(1.5e6), shape, &fine), None);
        assert_eq!(guard.look(128, Some(2.1e6), shape, &fine), diverged(128, 1.5e6, "loss"));
        assert_eq!(guard.look(128, Some(f64::NAN), shape, &fine), diverged(128, 1.5e6, "loss"));
        assert_eq!(guard.look(128, Some(1.0), shape, &[f32::INFINITY, 1.0]), diverged(128, 1.5e6, "w"));
        assert_eq!(guard.look(200, None, shape, &[1.0, f32::NAN]), diverged(200, 1.5e6, "b"));
        assert_eq!(guard.look(200, None, shape, &fine), None);
        assert_eq!(Guard::default().look(0, Some(f64::INFINITY), shape, &fine), diverged(0, 0.0, "loss"));
        assert!(Guard::looks(0, 100) && Guard::looks(64, 100) && Guard::looks(99, 100) && !Guard::looks(65, 100));
    }

    fn outcome(restart: usize, scale: f32, end: TrainingEnd) -> ToyOutcome {
        let w = vec![scale, 0.0, 0.0, scale];
        let model = ToyModel {
            kind: ToyKind::ReluOutput,
            n_features: 2,
            d_hidden: 2,
            w,
            c: vec![],
            v: vec![],
            b: vec![0.0; 2],
        };
        ToyOutcome { model, restart, end, trace: vec![] }
    }

    #[test]
    fn the_restart_of_least_loss_stays_and_diverged_ones_do_not_count() {
        let job = job(2, 2);
        let wrong = || TrainingEnd::Diverged { step: 1, last_loss: 0.0, tensor: "w" };
        let chosen = |restarts: Vec<(f32, TrainingEnd)>| {
            let restarts = restarts.into_iter().enumerate().map(|(r, (scale, end))| outcome(r, scale, end)).collect();
            choose_restart(Isa::available()[0], &job, restarts).restart
        };
        use TrainingEnd::Finished;
        assert_eq!(chosen(vec![(0.5, Finished), (0.9, Finished), (0.7, Finished)]), 1);
        assert_eq!(chosen(vec![(0.5, Finished), (0.9, wrong()), (0.7, Finished)]), 2);
        assert_eq!(chosen(vec![(f32::NAN, wrong()), (0.1, Finished)]), 1);
        assert_eq!(chosen(vec![(f32::NAN, wrong()), (0.1, wrong())]), 0);
        assert_eq!(chosen(vec![(0.5, Finished), (0.5, Finished)]), 0);
    }
}
