//! A batch of x in the forms that kernels read, made once for all models that see it.

use super::Shape;
use crate::backend::simd::Lanes;
use crate::data::events::Divide;
use crate::data::world::GroupRule;
use crate::data::{Batch, Events, Sampler, World};
use crate::toy::ToyKind;

/// Most features for which silent samples are left out of dense tiles: with more, hardly a sample is silent at a density
/// where that would pay.
const PACKED_FEATURES: usize = 8;

/// Most features of a Gram matrix.
pub(super) const GRAM_FEATURES: usize = 112;

/// In what form a kernel reads x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All samples as dense tiles.
    Dense,
    /// The samples in which something fires as dense tiles, the others by their closed form.
    Packed,
    /// What fires, sample by sample; silent samples by their closed form.
    Events,
}

impl Form {
    /// The form for a model in a world. A fixed rule of the shape and of the law by which features fire, never of the
    /// machine, because forms differ in the order of sums: part of [`VERSION`](crate::toy::VERSION).
    pub fn of(shape: Shape, world: &World) -> Form {
        let Shape { kind, n_features, .. } = shape;
        match kind {
            ToyKind::Linear | ToyKind::ReluOutput => {}
            ToyKind::ReluHidden | ToyKind::AbsoluteValue | ToyKind::Mlp(_) | ToyKind::Quadratic => return Form::Dense,
        }
        let p = world.marginal_probability();
        let firing = p.iter().sum::<f64>();
        if n_features < PACKED_FEATURES {
            return if 1.0 - silence(world) <= 0.4 { Form::Packed } else { Form::Dense };
        }
        let most = if n_features <= GRAM_FEATURES { 0.14 } else { 0.15 };
        if firing <= most * n_features as f64 { Form::Events } else { Form::Dense }
    }
}

/// Probability that nothing fires in a sample.
fn silence(world: &World) -> f64 {
    let mut p = world.firing_probability.clone();
    let mut silent = 1.0;
    for group in &world.groups {
        group.members.iter().for_each(|&i| p[i] = 0.0);
        let never = group.rule == GroupRule::Exclusive && group.members.is_empty();
        silent *= if never { 1.0 } else { 1.0 - group.firing_probability };
    }
    p.iter().fold(silent, |silent, p| silent * (1.0 - p))
}

/// Which forms some models need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Some model reads [`Form::Dense`].
    pub dense: bool,
    /// Some model reads [`Form::Packed`].
    pub packed: bool,
    /// Some model reads [`Form::Events`].
    pub events: bool,
}

impl Forms {
    /// Every form.
    pub const ALL: Forms = Forms { dense: true, packed: true, events: true };
}

impl FromIterator<Form> for Forms {
    fn from_iter<I: IntoIterator<Item = Form>>(forms: I) -> Forms {
        let mut all = Forms::default();
        for form in forms {
            match form {
                Form::Dense => all.dense = true,
                Form::Packed => all.packed = true,
                Form::Events => all.events = true,
            }
        }
        all
    }
}

/// A batch of x. Only the forms that were asked for are there; `samples` always is.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Samples of the batch, silent ones among them.
    pub samples: usize,
    /// x of all samples, for [`Form::Dense`].
    pub dense: Batch,
    /// x of the samples in which something fires, in order, for [`Form::Packed`].
    pub packed: Batch,
    /// Samples that are not in `packed`: x is zero there.
    pub silent: usize,
    /// What fires, for [`Form::Events`].
    pub events: Events,
}

impl Inputs {
    /// Batch `step` of a stream, in the forms asked for. Memory is used again.
    pub fn draw(&mut self, sampler: &Sampler, step: u32, samples: usize, forms: Forms) {
        self.samples = samples;
        if !forms.packed && !forms.events {
            return sampler.draw(step, samples, &mut self.dense);
        }
        sampler.draw_events(step, samples, &mut self.events);
        if forms.dense {
            self.events.to_dense(&mut self.dense);
        }
        self.arrange();
    }

    /// A given batch in every form.
    pub fn of_batch(batch: Batch) -> Inputs {
        let mut inputs = Inputs { samples: batch.samples, ..Inputs::default() };
        let n = batch.n_features;
        inputs.events.clear(n, batch.samples);
        for at in 0..batch.samples * n {
            let value = batch.value(at / n, at % n);
            if value != 0.0 {
                inputs.events.push(at as u32, value);
            }
        }
        inputs.dense = batch;
        inputs.arrange();
        inputs
    }

    /// What follows from the events.
    fn arrange(&mut self) {
        self.pack();
    }

    fn pack(&mut self) {
        let n = self.events.n_features;
        let lanes = &mut self.packed.lanes;
        lanes.clear();
        // There is an event for every sample that is packed.
        lanes.resize(self.events.len().min(self.samples).div_ceil(16) * n, Lanes::default());
        let mut packed = 0;
        if !self.events.is_empty() {
            let divide = Divide::by(n as u32);
            let mut previous = u32::MAX;
            for (&position, &value) in self.events.positions().iter().zip(self.events.values()) {
                let (sample, feature) = divide.apply(position);
                // Whether a new sample begins is as good as random: no branch.
                packed += (sample != previous) as usize;
                previous = sample;
                lanes[(packed - 1) / 16 * n + feature as usize].0[(packed - 1) % 16] = value;
            }
        }
        lanes.truncate(packed.div_ceil(16) * n);
        (self.packed.n_features, self.packed.samples) = (n, packed);
        self.silent = self.samples - packed;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Group, Magnitude, MagnitudeSharing};
    use crate::random::Stream;

    fn world(n_features: usize, p: f64) -> World {
        World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
        }
    }

    #[test]
    fn forms_hold_the_same_samples_in_order() {
        for n in [1, 2, 5, 20] {
            for p in [0.0, 0.01, 0.1, 0.3, 1.0] {
                for samples in [1, 15, 16, 17, 1000, 2100] {
                    let sampler = Sampler::new(Arc::new(world(n, p)), 7, Stream::Train);
                    let mut inputs = Inputs::default();
                    // What the batch before left behind must not show.
                    inputs.draw(&sampler, 0, 1500, Forms::ALL);
                    inputs.draw(&sampler, 1, samples, Forms::ALL);
                    let mut dense = Batch::default();
                    sampler.draw(1, samples, &mut dense);
                    assert_eq!(inputs.dense, dense);
                    let row = |batch: &Batch, s: usize| (0..n).map(|i| batch.value(s, i)).collect::<Vec<_>>();
                    let fires: Vec<_> =
                        (0..samples).map(|s| row(&dense, s)).filter(|row| row.iter().any(|&x| x != 0.0)).collect();
                    assert_eq!((inputs.packed.samples, inputs.silent), (fires.len(), samples - fires.len()));
                    assert_eq!(inputs.packed.lanes.len(), fires.len().div_ceil(16) * n);
                    assert!(fires.iter().enumerate().all(|(s, x)| row(&inputs.packed, s) == *x));
                    for s in fires.len()..fires.len().next_multiple_of(16) {
                        assert!(row(&inputs.packed, s).iter().all(|&x| x == 0.0));
                    }
                    let again = Inputs::of_batch(dense);
                    assert!(again.events == inputs.events && again.packed == inputs.packed);
                    assert_eq!(again.silent, inputs.silent);
                }
            }
        }
    }

    #[test]
    fn groups_count_once_in_the_silence() {
        let mut world = world(4, 0.5);
        world.groups = vec![Group { rule: GroupRule::Together, members: vec![0, 1], firing_probability: 0.2 }];
        assert!((silence(&world) - 0.8 * 0.25).abs() < 1e-15);
    }

    #[test]
    fn sparse_worlds_are_read_by_what_fires_and_dense_ones_are_not() {
        let form = |n_features, p| {
            let shape = Shape { kind: ToyKind::ReluOutput, n_features, d_hidden: 2 };
            Form::of(shape, &world(n_features, p))
        };
        for n in [2, 5, 20, 80, 400] {
            assert_eq!(form(n, 1.0), Form::Dense);
            assert_eq!(form(n, 0.5), Form::Dense);
            assert_eq!(form(n, 0.01), if n < 8 { Form::Packed } else { Form::Events });
        }
    }

    #[test]
    fn what_models_need_is_collected() {
        assert_eq!(
            [Form::Dense, Form::Events, Form::Dense].into_iter().collect::<Forms>(),
            Forms { dense: true, packed: false, events: true }
        );
    }
}
