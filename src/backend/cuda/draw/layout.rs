//! A world as the kernels have it: their arguments and tables, each the same as a structure of the `.cu` files.

use super::super::device::{Buffer, Pointer};
use super::Steps;
use crate::data::Sampler;
use crate::data::law::{Base, Clip, GroupDraw, Plan, ROW_BLOCK, SkipClass};
use crate::data::world::GroupRule;

/// What every kernel is told: `Draw` of `draw.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Draw {
    pub x: Pointer<f32>,
    law: Pointer<[f32; 2]>,
    pub n: u32,
    pub samples: u32,
    pub tiles: u32,
    pub first_step: u32,
    pub first_block: u32,
    key: [u32; 2],
    pub base: u32,
    pub clip: u32,
    pub shared: u32,
}

/// How a feature's coin is thrown: `DrawColumn` of `draw_columns.cu`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Column {
    kind: u32,
    unit: u32,
    last: u32,
    place: u32,
    members: u32,
    uniform: f32,
    tail: f32,
    unused: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct ColumnsArgs {
    pub draw: Draw,
    pub columns: Pointer<Column>,
    pub chunks: u32,
    pub threads: u32,
}

/// A class of skips: `DrawSkip` of `draw_skips.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Skip {
    kind: u32,
    c1: u32,
    inverse: f32,
    places: u32,
    first: u32,
    members: u32,
    unit: u32,
    unused: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct SkipsArgs {
    pub draw: Draw,
    pub skips: Pointer<Skip>,
    pub features: Pointer<u32>,
    pub n_skips: u32,
    pub row_blocks: u32,
    pub warps: u32,
    pub unused: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct LiveArgs {
    pub x: Pointer<f32>,
    pub live: Pointer<u32>,
    pub n: u32,
    pub tiles: u32,
    pub words: u32,
    pub warps: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct ListsArgs {
    pub x: Pointer<f32>,
    pub counts: Pointer<u32>,
    pub features: Pointer<u32>,
    pub values: Pointer<f32>,
    pub n: u32,
    pub samples: u32,
    pub tiles: u32,
    pub warps: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct NormaliseArgs {
    pub x: Pointer<f32>,
    pub threads: u64,
    pub n: u32,
    pub unused: u32,
}

macro_rules! pod {
    ($($name:ty),*) => { $(
        // SAFETY: numbers and addresses, for which zero is a value.
        unsafe impl bytemuck::Zeroable for $name {}
        // SAFETY: any bits are values of the fields, and these leave no padding: `arguments_have_the_layout_of_the_kernels` adds
        // their sizes up.
        unsafe impl bytemuck::Pod for $name {}
    )* };
}
pod!(Draw, Column, ColumnsArgs, Skip, SkipsArgs, LiveArgs, ListsArgs, NormaliseArgs);

/// What every kernel is told of one draw.
pub(super) fn arguments(sampler: &Sampler, law: &Buffer<[f32; 2]>, steps: Steps, x: Pointer<f32>) -> Draw {
    let plan = sampler.plan();
    Draw {
        x,
        law: law.pointer(),
        n: plan.n_features as u32,
        samples: steps.samples as u32,
        tiles: steps.samples.div_ceil(16) as u32,
        first_step: steps.first,
        first_block: (steps.first_sample / ROW_BLOCK) as u32,
        key: sampler.key().0,
        base: match plan.base {
            Base::Uniform => 0,
            Base::Normal => 1,
            Base::Exponential => 2,
        },
        clip: match plan.clip {
            Clip::None => 0,
            Clip::Positive => 1,
            Clip::Absolute => 2,
        },
        shared: plan.shared as u32,
    }
}

/// One for each feature.
pub(super) fn columns(plan: &Plan) -> Vec<Column> {
    let mut columns = vec![Column::default(); plan.n_features];
    for coin in &plan.coins {
        let (unit, scale) = (coin.feature as u32, coin.scale);
        let (last, uniform, tail) = (scale.last, scale.uniform, scale.tail);
        columns[coin.feature] = Column { kind: 1, unit, last, uniform, tail, ..Column::default() };
    }
    for group in &plan.groups {
        let GroupDraw::Coin { last } = group.draw else { continue };
        let kind = match group.rule {
            GroupRule::Together => 2,
            GroupRule::Exclusive => 3,
        };
        let members = group.members.len() as u32;
        for (place, &(feature, _)) in group.members.iter().enumerate() {
            columns[feature] =
                Column { kind, unit: group.id as u32, last, place: place as u32, members, ..Column::default() };
        }
    }
    columns
}

/// Classes of features, then groups, and the features of each.
pub(super) fn skips(plan: &Plan) -> (Vec<Skip>, Vec<u32>) {
    let mut features: Vec<u32> = vec![];
    let mut add = |class: &SkipClass, kind, places: usize, of: &[u32], unit: usize| {
        let first = features.len() as u32;
        features.extend(of);
        let (places, members) = (places as u32, of.len() as u32);
        Skip { kind, c1: class.high, inverse: class.inverse, places, first, members, unit: unit as u32, unused: 0 }
    };
    let mut skips: Vec<Skip> =
        plan.classes.iter().map(|class| add(class, 0, class.features.len(), &class.features, 0)).collect();
    for group in &plan.groups {
        let GroupDraw::Skip(class) = &group.draw else { continue };
        let kind = match group.rule {
            GroupRule::Together => 1,
            GroupRule::Exclusive => 2,
        };
        let members: Vec<u32> = group.members.iter().map(|&(feature, _)| feature as u32).collect();
        skips.push(add(class, kind, 1, &members, group.id));
    }
    (skips, features)
}
