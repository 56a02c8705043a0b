//! Hidden states, each with the x that produced it.

use std::sync::Arc;

use crate::data::World;
use crate::toy::ToyModel;

/// What makes h from x.
#[derive(Clone, Debug)]
pub enum HiddenMaker {
    /// h of a trained toy model.
    Toy(Arc<ToyModel>),
    /// h = Σ x_i f_i + b (+ noise).
    Dictionary(Arc<crate::data::dictionary::Dictionary>),
}

/// A stream of (x, h) for one seed: what SAEs train on and scores are taken on.
#[derive(Clone, Debug)]
pub struct HiddenSource {
    pub world: Arc<World>,
    pub seed: u64,
    pub maker: HiddenMaker,
}
