//! Linked worlds on a device: `linked.cuh` says how.

use std::sync::Arc;

use super::super::device::{Buffer, Device, DeviceError, Pointer};
use super::{Draw, Lists, Steps, THREADS, grow, launch};
use crate::data::law::{PIECE, ROW_BLOCK};
use crate::data::linked::Linked;

/// `LinkedBlock`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Block {
    index: u32,
    free: u32,
}

/// `LinkedFamily`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Family {
    first: u32,
    exclusive: u32,
    scale: u32,
    unused: u32,
}

/// `LinkedArgs`, which says what each is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Args {
    draw: Draw,
    blocks: Pointer<Block>,
    panels: Pointer<f32>,
    threshold: Pointer<f32>,
    factor: Pointer<f32>,
    starts: Pointer<u32>,
    members: Pointer<u32>,
    family_of: Pointer<u32>,
    families: Pointer<Family>,
    mean: Pointer<f32>,
    top: Pointer<u32>,
    top_family: Pointer<u32>,
    top_order: Pointer<u32>,
    eps: Pointer<f32>,
    rows: Pointer<f32>,
    bits: Pointer<u16>,
    open_features: Pointer<u32>,
    open_values: Pointer<f32>,
    counts: Pointer<u32>,
    features: Pointer<u32>,
    values: Pointer<f32>,
    n_blocks: u32,
    rank: u32,
    columns: u32,
    sure: u32,
    n_top: u32,
    has_children: u32,
    skip: u32,
    tiles: u32,
    steps: u32,
    unused: u32,
}

pod!(Block, Family, Args);

/// A linked world laid out on a device, and memory that its kernels hand to each other.
#[derive(Debug)]
pub(super) struct LinkedDraw {
    device: Arc<dyn Device>,
    n_features: usize,
    rank: usize,
    columns: usize,
    sure: bool,
    blocks: Buffer<Block>,
    panels: Buffer<f32>,
    threshold: Buffer<f32>,
    factor: Buffer<f32>,
    starts: Buffer<u32>,
    members: Buffer<u32>,
    family_of: Buffer<u32>,
    families: Buffer<Family>,
    mean: Buffer<f32>,
    top: Buffer<u32>,
    top_family: Buffer<u32>,
    top_order: Buffer<u32>,
    room: Room,
}

/// What one launch needs, made anew when it needs more.
#[derive(Debug)]
struct Room {
    eps: Buffer<f32>,
    rows: Buffer<f32>,
    bits: Buffer<u16>,
    features: Buffer<u32>,
    values: Buffer<f32>,
}

impl LinkedDraw {
    pub fn new(device: &Arc<dyn Device>, n_features: usize, linked: &Linked) -> Result<LinkedDraw, DeviceError> {
        let flat = |lanes: &[crate::backend::simd::Lanes]| -> Result<Buffer<f32>, DeviceError> {
            Buffer::of(device, &lanes.iter().flat_map(|lanes| lanes.0).collect::<Vec<f32>>())
        };
        let blocks: Vec<Block> =
            linked.blocks.iter().map(|b| Block { index: b.index, free: u32::from(b.free) }).collect();
        let mut family_of = vec![u32::MAX; n_features];
        let mut families = vec![];
        // Families lie in the order of their parents and their members behind each other: so do a parent's children.
        let mut ends = vec![0];
        for (index, family) in linked.families.iter().enumerate() {
            let members = &linked.members[family.first as usize..][..family.len as usize];
            members.iter().for_each(|&i| family_of[i as usize] = index as u32);
            let first = members.first().copied().unwrap_or(0);
            families.push(Family { first, exclusive: family.exclusive.into(), scale: family.scale.into(), unused: 0 });
            ends.push(family.first + family.len);
        }
        let starts: Vec<u32> = linked.starts.iter().map(|&families| ends[families as usize]).collect();
        let (top_family, top_order): (Vec<u32>, Vec<u32>) = linked.top_place.iter().copied().unzip();
        Ok(LinkedDraw {
            device: device.clone(),
            n_features,
            rank: linked.rank,
            columns: 16 * linked.stride,
            sure: linked.sure,
            blocks: Buffer::of(device, &blocks)?,
            panels: flat(&linked.panels)?,
            threshold: Buffer::of(device, &linked.threshold)?,
            factor: flat(&linked.factor)?,
            starts: Buffer::of(device, &starts)?,
            members: Buffer::of(device, &linked.members)?,
            family_of: Buffer::of(device, &family_of)?,
            families: Buffer::of(device, &families)?,
            mean: Buffer::of(device, &linked.mean)?,
            top: Buffer::of(device, &linked.top)?,
            top_family: Buffer::of(device, &top_family)?,
            top_order: Buffer::of(device, &top_order)?,
            room: Room::none(device)?,
        })
    }

    /// Threads that the largest kernel needs for one step.
    pub fn threads_of_step(&self, samples: usize) -> usize {
        let tiles = samples.div_ceil(PIECE);
        (32 * samples).max(32 * tiles * self.blocks.len()).max(8 * tiles * self.factor_width())
    }

    /// Numbers of eps that linked_factor makes of a sample.
    fn factor_width(&self) -> usize {
        if self.members.is_empty() { self.rank } else { self.columns }
    }

    /// Draws steps into `lists` from entry `start` (a step) on. `draw.x` is not touched.
    pub fn draw(&mut self, draw: Draw, steps: Steps, start: usize, lists: &mut Lists) -> Result<(), DeviceError> {
        let Steps { count, samples, .. } = steps;
        let tiles = samples.div_ceil(PIECE);
        let (wide, long) = (count * tiles * PIECE, count * samples * self.n_features);
        grow(&self.device, &mut self.room.eps, wide * self.rank)?;
        grow(&self.device, &mut self.room.rows, if self.members.is_empty() { 0 } else { wide * self.columns })?;
        grow(&self.device, &mut self.room.bits, wide * self.blocks.len())?;
        grow(&self.device, &mut self.room.features, long)?;
        grow(&self.device, &mut self.room.values, long)?;
        let args = self.args(draw, steps, start, lists);
        launch(&*self.device, "linked_factor", count * tiles * self.factor_width() * 8, 0, &args)?;
        launch(&*self.device, "linked_screen", count * tiles * self.blocks.len() * 32, 0, &args)?;
        let shared = THREADS / 32 * 2 * self.n_features.div_ceil(32) as u32 * 4;
        launch(&*self.device, "linked_descend", count * samples * 32, shared, &args)
    }

    /// Writes lists, drawn with the same arguments, into x.
    pub fn scatter(&self, draw: Draw, steps: Steps, start: usize, lists: &Lists) -> Result<(), DeviceError> {
        let args = self.args(draw, steps, start, lists);
        launch(&*self.device, "linked_scatter", steps.count * steps.samples * 32, 0, &args)
    }

    fn args(&self, draw: Draw, steps: Steps, start: usize, lists: &Lists) -> Args {
        let (at, room) = (start * steps.samples, &self.room);
        Args {
            draw,
            blocks: self.blocks.pointer(),
            panels: self.panels.pointer(),
            threshold: self.threshold.pointer(),
            factor: self.factor.pointer(),
            starts: self.starts.pointer(),
            members: self.members.pointer(),
            family_of: self.family_of.pointer(),
            families: self.families.pointer(),
            mean: self.mean.pointer(),
            top: self.top.pointer(),
            top_family: self.top_family.pointer(),
            top_order: self.top_order.pointer(),
            eps: room.eps.pointer(),
            rows: room.rows.pointer(),
            bits: room.bits.pointer(),
            open_features: room.features.pointer(),
            open_values: room.values.pointer(),
            counts: lists.counts.pointer_at(at),
            features: lists.features.pointer_at(at * self.n_features),
            values: lists.values.pointer_at(at * self.n_features),
            n_blocks: self.blocks.len() as u32,
            rank: self.rank as u32,
            columns: self.columns as u32,
            sure: self.sure.into(),
            n_top: self.top.len() as u32,
            has_children: u32::from(!self.members.is_empty()),
            skip: (steps.first_sample % ROW_BLOCK) as u32,
            tiles: steps.samples.div_ceil(PIECE) as u32,
            steps: steps.count as u32,
            unused: 0,
        }
    }
}

impl Room {
    fn none(device: &Arc<dyn Device>) -> Result<Room, DeviceError> {
        Ok(Room {
            eps: Buffer::undefined(device, 0)?,
            rows: Buffer::undefined(device, 0)?,
            bits: Buffer::undefined(device, 0)?,
            features: Buffer::undefined(device, 0)?,
            values: Buffer::undefined(device, 0)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_linked_worlds_have_the_layout_of_the_kernels() {
        assert_eq!((size_of::<Block>(), size_of::<Family>()), (2 * 4, 4 * 4));
        assert_eq!(size_of::<Args>(), size_of::<Draw>() + 20 * 8 + 10 * 4);
    }
}
