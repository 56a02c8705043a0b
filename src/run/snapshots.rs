//! A toy model's geometry along its training: at every logged step, and of the trained model.

use ndarray::ArrayView2;

use crate::data::Group;
use crate::score::{self, Arrays, Scores, Vector};
use crate::toy::{ToyModel, ToyOutcome, TrainingEnd};

/// The directions of a toy model after `step` finished steps.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub step: usize,
    /// `[n_features]` each.
    pub norm: Vec<Option<f64>>,
    pub dimensionality: Vec<Option<f64>>,
    pub superposition: Vec<Option<f64>>,
    /// Directions, `[n_features, d_hidden]`.
    pub w: Vec<f32>,
    pub d_hidden: usize,
    pub summary: Summary,
}

/// One number each about all directions; columns of the table `trace`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Σ D_i.
    pub capacity: Option<f64>,
    pub n_represented: Option<f64>,
    /// Mean norm over all features, represented or not.
    pub norm_all: Option<f64>,
    /// The score of that name: mean signed cosine over pairs of features of one group, of those that have a direction.
    pub cosine_within: Option<f64>,
    /// The same over pairs of features of two different groups.
    pub cosine_between: Option<f64>,
}

impl Summary {
    /// Names of the columns, and their values.
    pub fn columns(self) -> [(&'static str, Option<f64>); 5] {
        [
            ("capacity", self.capacity),
            ("n_represented", self.n_represented),
            ("norm_all", self.norm_all),
            ("cosine_within", self.cosine_within),
            ("cosine_between", self.cosine_between),
        ]
    }
}

/// Snapshots of a training of so many steps that logged its parameters, and where it finished one of the trained model;
/// none where it logged none.
pub fn snapshots(outcome: &ToyOutcome, steps: usize, groups: &[Group]) -> Vec<Snapshot> {
    let logged = outcome.trace.iter().filter_map(|logged| Some((logged.step, logged.parameters.as_ref()?)));
    let mut found: Vec<Snapshot> = logged
        .map(|(step, parameters)| Snapshot::of(step, &outcome.model.with_parameters(parameters), groups))
        .collect();
    if let (Some(_), TrainingEnd::Finished) = (found.last(), &outcome.end) {
        found.push(Snapshot::of(steps, &outcome.model, groups));
    }
    found
}

impl Snapshot {
    fn of(step: usize, model: &ToyModel, groups: &[Group]) -> Snapshot {
        let (shape, directions) = ((model.n_features, model.d_hidden), model.directions());
        let truth = ArrayView2::from_shape(shape, &directions).expect("directions are [n_features, d_hidden]");
        let wanted = ["norm", "dimensionality", "superposition", "capacity", "n_represented"];
        let scores = score::evaluate(&Arrays::of_truth(truth), Some(&wanted));
        let norm = numbers(&scores, "norm");
        let scalar = |name| scores.scalar(name).and_then(Result::ok).filter(|v: &f64| v.is_finite());
        let sum: f64 = norm.iter().flatten().sum();
        let of_groups = |name| score::of_groups(name, truth, groups).and_then(Result::ok).filter(|v| v.is_finite());
        Snapshot {
            step,
            dimensionality: numbers(&scores, "dimensionality"),
            superposition: numbers(&scores, "superposition"),
            summary: Summary {
                capacity: scalar("capacity"),
                n_represented: scalar("n_represented"),
                norm_all: Some(sum / norm.len() as f64).filter(|v| v.is_finite()),
                cosine_within: of_groups("cosine_within"),
                cosine_between: of_groups("cosine_between"),
            },
            norm,
            w: directions.into_owned(),
            d_hidden: model.d_hidden,
        }
    }
}

fn numbers(scores: &Scores, name: &str) -> Vec<Option<f64>> {
    match scores.vector(name) {
        Some(Vector::Numbers(numbers)) => numbers.clone(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::GroupRule;
    use crate::toy::{ToyKind, ToyTrace};

    fn group(members: &[usize]) -> Group {
        Group { rule: GroupRule::Together, members: members.to_vec(), firing_probability: 0.1 }
    }

    fn model(w: &[f32]) -> ToyModel {
        let n = w.len() / 2;
        ToyModel {
            kind: ToyKind::ReluOutput,
            n_features: n,
            d_hidden: 2,
            w: w.to_vec(),
            c: vec![],
            v: vec![],
            b: vec![0.0; n],
        }
    }

    /// Features 0 and 1 at a right angle; 2 opposite to 0, 3 opposite to 1; 4 stands alone.
    #[test]
    fn cosines_are_means_over_pairs_within_and_between_groups() {
        let model = model(&[2.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -3.0, 1.0, 1.0]);
        let summary = Snapshot::of(0, &model, &[group(&[0, 1]), group(&[2, 3])]).summary;
        assert_eq!((summary.cosine_within, summary.cosine_between), (Some(0.0), Some(-0.5)));
        assert_eq!(Snapshot::of(0, &model, &[group(&[0, 2])]).summary.cosine_within, Some(-1.0));
        assert_eq!(Snapshot::of(0, &model, &[]).summary.cosine_between, None);
        let norms = (2.0 + 1.0 + 1.0 + 3.0 + 2f64.sqrt()) / 5.0;
        assert!((summary.norm_all.unwrap() - norms).abs() < 1e-15);
        assert_eq!(summary.n_represented, Some(5.0));
    }

    #[test]
    fn the_last_snapshot_is_the_trained_model_and_without_parameters_there_are_none() {
        let trace = |step, parameters| ToyTrace { step, loss: 1.0, parameters };
        let outcome = |parameters: Option<Vec<f32>>, end| ToyOutcome {
            model: model(&[1.0, 0.0, 0.0, 1.0]),
            restart: 0,
            end,
            trace: vec![trace(0, parameters.clone()), trace(9, parameters)],
        };
        let kept = Some(vec![0.5, 0.0, 0.0, 0.5, 0.0, 0.0]);
        let steps = |outcome: &ToyOutcome| snapshots(outcome, 10, &[]).iter().map(|s| s.step).collect::<Vec<_>>();
        let finished = outcome(kept.clone(), TrainingEnd::Finished);
        assert_eq!(steps(&finished), [0, 9, 10]);
        let found = snapshots(&finished, 10, &[]);
        assert_eq!((found[1].norm[0], found[2].norm[0]), (Some(0.5), Some(1.0)));
        assert_eq!((&found[2].w, found[2].summary.capacity), (&finished.model.w, Some(2.0)));
        let diverged = TrainingEnd::Diverged { step: 9, last_loss: 1.0, tensor: "w" };
        assert_eq!(steps(&outcome(kept, diverged)), [0, 9]);
        assert!(steps(&outcome(None, TrainingEnd::Finished)).is_empty());
    }
}
