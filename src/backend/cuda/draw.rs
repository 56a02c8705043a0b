//! Batches of x drawn on a device: the bits of [`Sampler`].
//!
//! ```text
//! linked world:    linked_factor, linked_screen, linked_descend    lists of what is on
//!                  draw_columns, linked_scatter                    zeros, then the lists
//! any other:       draw_columns     every lane of x: coins, zeros where nothing or only skips decide
//!                  draw_skips       events of skips
//! unit norm:       draw_normalise
//! ```
//!
//! x of many steps is `[steps, ⌈samples / 16⌉, n_features, 16]`, each step as [`Batch`](crate::data::Batch) has it. A world is laid
//! out once; each launch then draws as many steps as are asked for.

use std::sync::Arc;

use bytemuck::Pod;

use super::device::{Buffer, Device, DeviceError, Launch, Pointer};
use crate::data::Sampler;
use crate::data::law::{Plan, ROW_BLOCK};

#[macro_use]
mod layout;
mod linked;

use layout::{
    Column, ColumnsArgs, Draw, ListsArgs, LiveArgs, NormaliseArgs, Skip, SkipsArgs, arguments, columns, skips,
};
use linked::LinkedDraw;

/// Samples that a thread of draw_columns goes through: its launches are counted in these.
const BATCH_OF: usize = 128;

/// Threads of a block of every kernel here.
const THREADS: u32 = 128;

/// Threads that one launch may have: their number stays below 2^32 and that of blocks below 2^31.
const MOST_THREADS: usize = 1 << 31;

/// Entries of lists that one launch of a linked world may have, or those of one step if these are more: its memory follows.
const MOST_ENTRIES: usize = 1 << 26;

/// [`Sampler`] on a device.
#[derive(Debug)]
pub struct DeviceSampler {
    device: Arc<dyn Device>,
    sampler: Sampler,
    /// `[n_features]`: slope and offset.
    law: Buffer<[f32; 2]>,
    /// `[n_features]`
    columns: Buffer<Column>,
    skips: Buffer<Skip>,
    features: Buffer<u32>,
    linked: Option<LinkedDraw>,
    /// Between the kernels of linked worlds, where x is wanted; of other worlds, where lists are.
    lists: Lists,
    x: Buffer<f32>,
}

/// Some samples of some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// The first step.
    pub first: u32,
    /// How many.
    pub count: usize,
    /// First sample of each step: a multiple of [`Sampler::piece`].
    pub first_sample: usize,
    /// Samples of each step from there on.
    pub samples: usize,
}

/// What is not 0, sample by sample.
#[derive(Debug)]
pub struct Lists {
    /// `[steps, samples]`: how many features.
    pub counts: Buffer<u32>,
    /// `[steps, samples, n_features]`: which, ascending; what stands behind the count is undefined.
    pub features: Buffer<u32>,
    /// `[steps, samples, n_features]`: their x.
    pub values: Buffer<f32>,
}

impl Lists {
    /// Room for so many samples in all.
    ///
    /// # Errors
    /// No room.
    pub fn new(device: &Arc<dyn Device>, n_features: usize, samples: usize) -> Result<Lists, DeviceError> {
        Ok(Lists {
            counts: Buffer::undefined(device, samples)?,
            features: Buffer::undefined(device, samples * n_features)?,
            values: Buffer::undefined(device, samples * n_features)?,
        })
    }
}

impl DeviceSampler {
    /// Lays out the world of a sampler.
    ///
    /// # Errors
    /// No room.
    pub fn new(device: &Arc<dyn Device>, sampler: &Sampler) -> Result<DeviceSampler, DeviceError> {
        let plan = sampler.plan();
        let law: Vec<[f32; 2]> = plan.slope.iter().zip(&plan.offset).map(|(slope, offset)| [*slope, *offset]).collect();
        let (skips, features) = skips(plan);
        let linked = plan.linked.as_ref().map(|linked| LinkedDraw::new(device, plan.n_features, linked));
        Ok(DeviceSampler {
            device: device.clone(),
            sampler: sampler.clone(),
            law: Buffer::of(device, &law)?,
            columns: Buffer::of(device, &columns(plan))?,
            skips: Buffer::of(device, &skips)?,
            features: Buffer::of(device, &features)?,
            linked: linked.transpose()?,
            lists: Lists::new(device, 0, 0)?,
            x: Buffer::undefined(device, 0)?,
        })
    }

    /// The same world and stream on the CPU.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Numbers of x of so many steps: `[steps, ⌈samples / 16⌉, n_features, 16]`.
    pub fn x_len(&self, steps: usize, samples: usize) -> usize {
        steps * samples.div_ceil(16) * self.sampler.plan().n_features * 16
    }

    /// Words of [`DeviceSampler::live`] of so many steps: `[steps, ⌈samples / 32⌉]`.
    pub fn live_len(steps: usize, samples: usize) -> usize {
        steps * samples.div_ceil(32)
    }

    /// Draws x into the front of `x`: `[steps, ⌈samples / 16⌉, n_features, 16]`, lanes past the last sample 0.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If `x` is shorter, a step or row block is beyond 2^32, or the first sample is not at a [piece](Sampler::piece).
    pub fn draw(&mut self, steps: Steps, x: &mut Buffer<f32>) -> Result<(), DeviceError> {
        let needed = self.x_len(steps.count, steps.samples);
        assert!(needed <= x.len(), "room for {} numbers of {needed}", x.len());
        let per_step = self.x_len(1, steps.samples);
        for (start, part) in self.parts(steps, false) {
            let draw = self.arguments(part, x.pointer_at(start * per_step));
            if let Some(linked) = &mut self.linked {
                grow_lists(&self.device, &mut self.lists, draw.n as usize, part.count * part.samples)?;
                linked.draw(draw, part, 0, &mut self.lists)?;
            }
            self.draw_columns(draw, part.count)?;
            match &self.linked {
                Some(linked) => linked.scatter(draw, part, 0, &self.lists)?,
                None => self.draw_skips(draw, part.count)?,
            }
            if self.sampler.world().is_normalised() {
                self.normalise(draw, part.count)?;
            }
        }
        Ok(())
    }

    /// Draws what is not 0 into the front of `lists`, `[steps, samples]` rows.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If `lists` are shorter, and as [`DeviceSampler::draw`].
    pub fn draw_lists(&mut self, steps: Steps, lists: &mut Lists) -> Result<(), DeviceError> {
        let (rows, n) = (steps.count * steps.samples, self.sampler.plan().n_features);
        assert!(
            rows <= lists.counts.len() && rows * n <= lists.features.len().min(lists.values.len()),
            "room for {rows} lists"
        );
        let by_lists = self.linked.is_some() && !self.sampler.world().is_normalised();
        for (start, part) in self.parts(steps, true) {
            if let Some(linked) = self.linked.as_mut().filter(|_| by_lists) {
                let draw = arguments(&self.sampler, &self.law, part, Pointer::NULL);
                linked.draw(draw, part, start, lists)?;
                continue;
            }
            let mut x = std::mem::replace(&mut self.x, Buffer::undefined(&self.device, 0)?);
            grow(&self.device, &mut x, self.x_len(part.count, part.samples))?;
            self.draw(part, &mut x)?;
            self.lists_of(part, &x, start, lists)?;
            self.x = x;
        }
        Ok(())
    }

    fn lists_of(&self, steps: Steps, x: &Buffer<f32>, start: usize, lists: &mut Lists) -> Result<(), DeviceError> {
        let (n, row) = (self.sampler.plan().n_features, start * steps.samples);
        let tiles = steps.samples.div_ceil(16);
        let args = ListsArgs {
            x: x.pointer(),
            counts: lists.counts.pointer_at(row),
            features: lists.features.pointer_at(row * n),
            values: lists.values.pointer_at(row * n),
            n: n as u32,
            samples: steps.samples as u32,
            tiles: tiles as u32,
            warps: (steps.count * tiles) as u32,
        };
        launch(&*self.device, "draw_lists", 32 * steps.count * tiles, 0, &args)
    }

    /// [`parts`] of what every kernel of one draw takes; `by_lists`: lists or x of a part are kept in between.
    fn parts(&self, steps: Steps, by_lists: bool) -> impl Iterator<Item = (usize, Steps)> + use<> {
        let Steps { first_sample, samples, .. } = steps;
        let (plan, piece) = (self.sampler.plan(), self.sampler.piece());
        assert!(first_sample.is_multiple_of(piece), "pieces start at multiples of {piece}, not {first_sample}");
        let threads = self.linked.as_ref().map_or(0, |linked| linked.threads_of_step(samples));
        let entries = if by_lists || self.linked.is_some() { samples * plan.n_features } else { 0 };
        parts(steps, threads.max(threads_of_step(plan, samples)), entries)
    }

    fn arguments(&self, steps: Steps, x: Pointer<f32>) -> Draw {
        arguments(&self.sampler, &self.law, steps, x)
    }

    fn draw_columns(&self, draw: Draw, steps: usize) -> Result<(), DeviceError> {
        let chunks = (draw.samples as usize).div_ceil(BATCH_OF);
        let threads = steps * chunks * draw.n as usize * 8;
        let args =
            ColumnsArgs { draw, columns: self.columns.pointer(), chunks: chunks as u32, threads: threads as u32 };
        launch(&*self.device, "draw_columns", threads, 0, &args)
    }

    fn draw_skips(&self, draw: Draw, steps: usize) -> Result<(), DeviceError> {
        let row_blocks = (draw.samples as usize).div_ceil(ROW_BLOCK);
        let warps = steps * row_blocks * self.skips.len();
        let args = SkipsArgs {
            draw,
            skips: self.skips.pointer(),
            features: self.features.pointer(),
            n_skips: self.skips.len() as u32,
            row_blocks: row_blocks as u32,
            warps: warps as u32,
            unused: 0,
        };
        launch(&*self.device, "draw_skips", 32 * warps, 0, &args)
    }

    fn normalise(&self, draw: Draw, steps: usize) -> Result<(), DeviceError> {
        let threads = steps * draw.tiles as usize * 16;
        let args = NormaliseArgs { x: draw.x, threads: threads as u64, n: draw.n, unused: 0 };
        launch(&*self.device, "draw_normalise", threads, 0, &args)
    }

    /// Which samples of x have a feature that is not 0, into the front of `live`: `[steps, ⌈samples / 32⌉]`, sample s is bit
    /// s mod 32 of word s / 32, bits past the last sample 0.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If `x` or `live` is shorter.
    pub fn live(
        &self,
        steps: usize,
        samples: usize,
        x: &Buffer<f32>,
        live: &mut Buffer<u32>,
    ) -> Result<(), DeviceError> {
        assert!(self.x_len(steps, samples) <= x.len(), "x of {} numbers is shorter", x.len());
        assert!(Self::live_len(steps, samples) <= live.len(), "room for {} words", live.len());
        let words = samples.div_ceil(32);
        let per_step = self.x_len(1, samples);
        for (start, count) in launches(steps, 32 * words, usize::MAX) {
            let warps = count * words;
            let args = LiveArgs {
                x: x.pointer_at(start * per_step),
                live: live.pointer_at(start * words),
                n: self.sampler.plan().n_features as u32,
                tiles: samples.div_ceil(16) as u32,
                words: words as u32,
                warps: warps as u32,
            };
            launch(&*self.device, "draw_live", 32 * warps, 0, &args)?;
        }
        Ok(())
    }
}

/// Launches so many threads, in blocks of [`THREADS`] with `shared` bytes each.
pub(super) fn launch<A: Pod>(
    device: &dyn Device,
    kernel: &'static str,
    threads: usize,
    shared: u32,
    args: &A,
) -> Result<(), DeviceError> {
    if threads == 0 {
        return Ok(());
    }
    let blocks = threads.div_ceil(THREADS as usize) as u32;
    device.launch(Launch { kernel, blocks, threads: THREADS, shared }, bytemuck::bytes_of(args))
}

/// Makes room for `len` numbers; what was there is lost.
fn grow<T: Pod>(device: &Arc<dyn Device>, buffer: &mut Buffer<T>, len: usize) -> Result<(), DeviceError> {
    if buffer.len() < len {
        // The old memory goes first: there may be no room for both.
        *buffer = Buffer::undefined(device, 0)?;
        *buffer = Buffer::undefined(device, len)?;
    }
    Ok(())
}

/// [`grow`] for lists of so many samples.
pub(super) fn grow_lists(
    device: &Arc<dyn Device>,
    lists: &mut Lists,
    n: usize,
    samples: usize,
) -> Result<(), DeviceError> {
    grow(device, &mut lists.counts, samples)?;
    grow(device, &mut lists.features, samples * n)?;
    grow(device, &mut lists.values, samples * n)
}

/// Threads that the largest kernel needs for one step.
fn threads_of_step(plan: &Plan, samples: usize) -> usize {
    let skips = plan.classes.len() + plan.groups.len();
    let columns = samples.div_ceil(BATCH_OF) * plan.n_features * 8;
    // Lists take two threads a sample.
    columns.max(32 * samples.div_ceil(ROW_BLOCK) * skips).max(2 * samples.next_multiple_of(16))
}

/// Steps in parts that one launch takes: of each its first step, counted from the first of all, and what it draws. `entries` of a
/// step are kept in memory between kernels.
///
/// # Panics
/// If a step, its samples or its row blocks are counted beyond 2^32, or one step has more threads than a launch.
pub(super) fn parts(steps: Steps, threads: usize, entries: usize) -> impl Iterator<Item = (usize, Steps)> {
    let Steps { first, count, first_sample, samples } = steps;
    assert!(u64::from(first) + count as u64 <= 1 << 32, "steps are counted in 32 bits");
    assert!((first_sample + samples) / ROW_BLOCK <= u32::MAX as usize, "row blocks are counted in 32 bits");
    assert!(samples <= u32::MAX as usize / 2, "samples of a step are counted in 32 bits");
    let most = (MOST_ENTRIES / entries.max(1)).max(1);
    launches(count, threads, most)
        .map(move |(start, count)| (start, Steps { first: first + start as u32, count, first_sample, samples }))
}

/// Steps in parts of at most `most`, of which each has at most [`MOST_THREADS`] threads: first and number.
///
/// # Panics
/// If one step has more.
fn launches(steps: usize, threads_of_step: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    assert!(threads_of_step <= MOST_THREADS, "one step of {threads_of_step} threads");
    let most = most.min(MOST_THREADS / threads_of_step.max(1));
    (0..steps).step_by(most).map(move |start| (start, most.min(steps - start)))
}

#[cfg(test)]
mod tests;
