//! A batch of x in the forms that kernels read, made once for all models that see it.

use super::Shape;
use super::active::ACTIVE_HIDDEN;
use super::pack::Pack;
use super::runs::{FindRuns, Runs};
use crate::backend::simd::{Isa, run};
use crate::data::law::Plan;
use crate::data::{Batch, Events, Sampler, World};
use crate::toy::ToyKind;

/// Most features for which silent samples are left out of dense tiles; with more, events are faster wherever that pays.
const PACKED_FEATURES: usize = 6;

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
    ///
    /// Events that one class of skips draws come in order and cost less than the dense batch; packed tiles are then faster
    /// up to six features at every such density. Otherwise the [`Cost`] of the kernels is compared.
    ///
    /// Measured on Zen 4 with AVX-512 at batch 1024, data and gradient, microseconds dense / packed / events (the AVX2
    /// kernels cross at higher densities):
    ///
    /// | n, m | p = .02 | .05 | .12 | .15 (coins) |
    /// |---|---|---|---|---|
    /// | 2, 1 | .51 / **.22** / .37 | .79 / **.44** / .71 | 1.36 / **.90** / 1.34 | **1.2** / 4.8 / 5.5 |
    /// | 5, 2 | 1.8 / **.57** / .57 | 2.4 / **1.2** / 1.4 | 3.9 / **2.6** / 2.7 | **3.3** / 9.7 / 9.6 |
    /// | 7, 3 | 3.6 / 1.1 / **.80** | 5.1 / 2.1 / **1.7** | 6.9 / 4.8 / **4.6** | **5.7** / 13 / 12 |
    /// | 20, 2 | 8.9 / / **2.6** | 12 / / **5.3** | 18 / / **13** | **15** / / 34 |
    /// | 20, 5 | 14 / / **2.7** | 17 / / **5.9** | 23 / / **12** | **20** / / 35 |
    /// | 80, 20 | 168 / / **26** | 177 / / **52** | 203 / / **112** | **191** / / 206 |
    /// | 112, 5 | 80 / / **47** | **92** / / 99 | **127** / / 222 | **111** / / 370 |
    /// | 128, 5 | **100** / / 122 | **117** / / 134 | **152** / / 174 | **133** / / 389 |
    /// | 400, 10 | 477 / / **369** | 536 / / **476** | 653 / / **601** | |
    /// | 400, 30 | 1243 / / **716** | 1298 / / **790** | 1414 / / **991** | **1350** / / 1427 |
    pub fn of(shape: Shape, world: &World) -> Form {
        let Shape { kind, n_features, d_hidden } = shape;
        match kind {
            ToyKind::Linear | ToyKind::ReluOutput => {}
            ToyKind::ReluHidden | ToyKind::AbsoluteValue | ToyKind::Mlp(_) | ToyKind::Quadratic => return Form::Dense,
        }
        let plan = Plan::new(world);
        let firing = world.marginal_probability().iter().sum::<f64>();
        let in_order = plan.one_class() || plan.linked.is_some() || firing == 0.0;
        if n_features <= PACKED_FEATURES {
            return if in_order { Form::Packed } else { Form::Dense };
        }
        if n_features > GRAM_FEATURES && d_hidden > ACTIVE_HIDDEN {
            return Form::Dense;
        }
        let cost = Cost { n: n_features as f64, m: d_hidden as f64, firing };
        // Events of several classes are sorted, and those of coins searched for among the silent.
        let sorted = if in_order { 0.0 } else { 37.0 * firing + 5.0 * plan.coin_features.len() as f64 };
        let events = if n_features <= GRAM_FEATURES { cost.gram() } else { cost.active(kind) };
        if events + sorted <= cost.dense() { Form::Events } else { Form::Dense }
    }
}

/// What a sample costs, in vector operations or so: fitted to the table at [`Form::of`].
struct Cost {
    n: f64,
    m: f64,
    /// Features that fire.
    firing: f64,
}

impl Cost {
    /// Products, what is done for each output, and the scattering of what fires.
    fn dense(&self) -> f64 {
        self.n * (5.0 * self.m + 9.0) / 16.0 + 10.0 * self.firing
    }

    /// Rows of outputs for each feature that fires.
    fn gram(&self) -> f64 {
        self.firing * (7.0 * (self.n / 16.0).ceil() + 4.0)
    }

    /// z, rows of hidden dimensions for each open output, and the same for each feature that fires. Half of the
    /// outputs of a ReLU are open at first, fewer later; all those of the identity are.
    fn active(&self, kind: ToyKind) -> f64 {
        let rows = ((self.m + 1.0) / 16.0).ceil();
        let open = if kind == ToyKind::Linear { 2.0 } else { 1.0 };
        self.n * (self.m / 15.0 + 0.5 + open * (1.0 + 1.2 * rows)) + 7.5 * rows * self.firing
    }
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
    /// The same by sample.
    pub(super) runs: Runs,
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
        self.arrange(sampler.isa(), forms);
    }

    /// A given batch in every form.
    pub fn of_batch(batch: Batch) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.fill_from(batch, Forms::ALL);
        inputs
    }

    /// A given batch in the forms asked for, the dense one always. Memory is used again.
    pub fn fill_from(&mut self, batch: Batch, forms: Forms) {
        (self.samples, self.dense) = (batch.samples, batch);
        if !forms.packed && !forms.events {
            return;
        }
        let (batch, n) = (&self.dense, self.dense.n_features);
        self.events.clear(n, batch.samples);
        for at in 0..batch.samples * n {
            let value = batch.value(at / n, at % n);
            if value != 0.0 {
                self.events.push(at as u32, value);
            }
        }
        self.arrange(Isa::best(), forms);
    }

    /// What follows from the events.
    fn arrange(&mut self, isa: Isa, forms: Forms) {
        if forms.packed {
            run(isa, Pack { events: &mut self.events, packed: &mut self.packed });
            self.silent = self.samples - self.packed.samples;
        }
        if forms.events {
            run(isa, FindRuns { events: &mut self.events, runs: &mut self.runs });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Group, GroupRule, Magnitude, MagnitudeSharing};
    use crate::random::Stream;

    fn world(n_features: usize, p: f64) -> World {
        World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation: None,
            hierarchy: None,
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
    fn sparse_worlds_are_read_by_what_fires_and_dense_ones_are_not() {
        let form = |n_features, d_hidden, world: &World| {
            Form::of(Shape { kind: ToyKind::ReluOutput, n_features, d_hidden }, world)
        };
        for (n, m) in [(2, 1), (5, 2), (7, 3), (20, 5), (80, 20), (400, 30)] {
            let sparse = if n < 7 { Form::Packed } else { Form::Events };
            for (p, expected) in
                [(1.0, Form::Dense), (0.5, Form::Dense), (0.13, Form::Dense), (0.12, sparse), (0.0, sparse)]
            {
                assert_eq!(form(n, m, &world(n, p)), expected, "{n} {m} {p}");
            }
        }
        // Few hidden dimensions make the dense products cheap, too many fill the registers.
        assert_eq!(form(112, 5, &world(112, 0.05)), Form::Dense);
        assert_eq!(form(112, 5, &world(112, 0.02)), Form::Events);
        assert_eq!(form(128, 5, &world(128, 0.05)), Form::Dense);
        assert_eq!(form(400, 64, &world(400, 0.01)), Form::Dense);
        // Events of several classes have to be sorted.
        let falling = |n, most: f64| World {
            firing_probability: (0..n).map(|i| most * (1.0 - 0.5 * i as f64 / n as f64)).collect(),
            ..world(n, most)
        };
        assert_eq!(form(5, 2, &falling(5, 0.05)), Form::Dense);
        assert_eq!(form(20, 5, &falling(20, 0.05)), Form::Events);
        assert_eq!(form(20, 5, &falling(20, 0.1)), Form::Dense);
        let group = Group { rule: GroupRule::Together, members: vec![0, 1], firing_probability: 0.1 };
        assert_eq!(form(5, 2, &World { groups: vec![group], ..world(5, 0.1) }), Form::Dense);
        // The identity has no closed outputs.
        let linear = Shape { kind: ToyKind::Linear, n_features: 400, d_hidden: 10 };
        assert_eq!(Form::of(linear, &world(400, 0.05)), Form::Dense);
        assert_eq!(form(400, 10, &world(400, 0.05)), Form::Events);
    }

    #[test]
    fn what_models_need_is_collected() {
        assert_eq!(
            [Form::Dense, Form::Events, Form::Dense].into_iter().collect::<Forms>(),
            Forms { dense: true, packed: false, events: true }
        );
    }
}
