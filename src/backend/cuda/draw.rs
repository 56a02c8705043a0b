//! Batches of x drawn on a device: the bits of [`Sampler`].
//!
//! ```text
//! draw_columns     every lane of x: coins, zeros where nothing or only skips decide
//! draw_skips       events of skips
//! draw_normalise   only where samples have unit norm
//! ```
//!
//! x of many steps is `[steps, ⌈samples / 16⌉, n_features, 16]`, each step as [`Batch`](crate::data::Batch) has it. A world is laid
//! out once; each launch then draws as many steps as are asked for.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::device::{Buffer, Device, DeviceError, Launch, Pointer};
use crate::data::Sampler;
use crate::data::law::{Base, Clip, GroupDraw, Plan, ROW_BLOCK, SkipClass};
use crate::data::world::GroupRule;

/// Why a device does not draw a world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Its memory or its driver.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A world that kernels do not know.
    #[error("a device does not draw worlds with {0}")]
    Unsupported(&'static str),
}

/// Samples that a thread of draw_columns goes through: its launches are counted in these.
const BATCH_OF: usize = 128;

/// Threads of a block of every kernel here.
const THREADS: u32 = 128;

/// Threads that one launch may have: their number stays below 2^32 and that of blocks below 2^31.
const MOST_THREADS: usize = 1 << 31;

/// What every kernel is told: `Draw` of `draw.cuh`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Draw {
    x: Pointer<f32>,
    law: Pointer<[f32; 2]>,
    n: u32,
    samples: u32,
    tiles: u32,
    first_step: u32,
    first_block: u32,
    key: [u32; 2],
    base: u32,
    clip: u32,
    shared: u32,
}

/// How a feature's coin is thrown: `DrawColumn` of `draw_columns.cu`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Column {
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
struct ColumnsArgs {
    draw: Draw,
    columns: Pointer<Column>,
    chunks: u32,
    threads: u32,
}

/// A class of skips: `DrawSkip` of `draw_skips.cu`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Skip {
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
struct SkipsArgs {
    draw: Draw,
    skips: Pointer<Skip>,
    features: Pointer<u32>,
    n_skips: u32,
    row_blocks: u32,
    warps: u32,
    unused: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct LiveArgs {
    x: Pointer<f32>,
    live: Pointer<u32>,
    n: u32,
    tiles: u32,
    words: u32,
    warps: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct NormaliseArgs {
    x: Pointer<f32>,
    threads: u64,
    n: u32,
    unused: u32,
}

macro_rules! pod {
    ($($name:ty),*) => { $(
        // SAFETY: numbers and addresses, for which zero is a value.
        unsafe impl Zeroable for $name {}
        // SAFETY: any bits are values of the fields, and these leave no padding: `arguments_have_the_layout_of_the_kernels` adds
        // their sizes up.
        unsafe impl Pod for $name {}
    )* };
}
pod!(Draw, Column, ColumnsArgs, Skip, SkipsArgs, LiveArgs, NormaliseArgs);

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

impl DeviceSampler {
    /// Lays out the world of a sampler.
    ///
    /// # Errors
    /// A world that kernels do not draw, or no room.
    pub fn new(device: &Arc<dyn Device>, sampler: &Sampler) -> Result<DeviceSampler, DrawError> {
        let plan = sampler.plan();
        if plan.linked.is_some() {
            return Err(DrawError::Unsupported("a correlation or a hierarchy"));
        }
        let law: Vec<[f32; 2]> = plan.slope.iter().zip(&plan.offset).map(|(slope, offset)| [*slope, *offset]).collect();
        let (skips, features) = skips(plan);
        Ok(DeviceSampler {
            device: device.clone(),
            sampler: sampler.clone(),
            law: Buffer::of(device, &law)?,
            columns: Buffer::of(device, &columns(plan))?,
            skips: Buffer::of(device, &skips)?,
            features: Buffer::of(device, &features)?,
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

    /// Draws x of `steps` into the front of `x`: `[steps, ⌈samples / 16⌉, n_features, 16]`, lanes past the last sample 0.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If `x` is shorter, a step or row block is beyond 2^32, or the first sample is not at a [piece](Sampler::piece).
    pub fn draw(&self, steps: Steps, x: &mut Buffer<f32>) -> Result<(), DeviceError> {
        let Steps { first, count, first_sample, samples } = steps;
        let (plan, piece) = (self.sampler.plan(), self.sampler.piece());
        assert!(
            self.x_len(count, samples) <= x.len(),
            "room for {} numbers of {}",
            x.len(),
            self.x_len(count, samples)
        );
        assert!(first as u64 + count as u64 <= 1 << 32, "steps are counted in 32 bits");
        assert!(first_sample.is_multiple_of(piece), "pieces start at multiples of {piece}, not {first_sample}");
        assert!((first_sample + samples) / ROW_BLOCK <= u32::MAX as usize, "row blocks are counted in 32 bits");
        assert!(samples <= u32::MAX as usize, "samples of a step are counted in 32 bits");
        let per_step = samples.div_ceil(16) * plan.n_features * 16;
        for (start, count) in launches(count, threads_of_step(plan, samples)) {
            let draw = Draw {
                x: x.pointer_at(start * per_step),
                law: self.law.pointer(),
                n: plan.n_features as u32,
                samples: samples as u32,
                tiles: samples.div_ceil(16) as u32,
                first_step: first + start as u32,
                first_block: (first_sample / ROW_BLOCK) as u32,
                key: self.sampler.key().0,
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
            };
            self.draw_columns(draw, count)?;
            self.draw_skips(draw, count)?;
            if self.sampler.world().is_normalised() {
                self.normalise(draw, count)?;
            }
        }
        Ok(())
    }

    fn draw_columns(&self, draw: Draw, steps: usize) -> Result<(), DeviceError> {
        let chunks = (draw.samples as usize).div_ceil(BATCH_OF);
        let threads = steps * chunks * draw.n as usize * 8;
        let args =
            ColumnsArgs { draw, columns: self.columns.pointer(), chunks: chunks as u32, threads: threads as u32 };
        self.launch("draw_columns", threads, &args)
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
        self.launch("draw_skips", 32 * warps, &args)
    }

    fn normalise(&self, draw: Draw, steps: usize) -> Result<(), DeviceError> {
        let threads = steps * draw.tiles as usize * 16;
        let args = NormaliseArgs { x: draw.x, threads: threads as u64, n: draw.n, unused: 0 };
        self.launch("draw_normalise", threads, &args)
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
        for (start, count) in launches(steps, 32 * words) {
            let warps = count * words;
            let args = LiveArgs {
                x: x.pointer_at(start * per_step),
                live: live.pointer_at(start * words),
                n: self.sampler.plan().n_features as u32,
                tiles: samples.div_ceil(16) as u32,
                words: words as u32,
                warps: warps as u32,
            };
            self.launch("draw_live", 32 * warps, &args)?;
        }
        Ok(())
    }

    fn launch<A: Pod>(&self, kernel: &'static str, threads: usize, args: &A) -> Result<(), DeviceError> {
        if threads == 0 {
            return Ok(());
        }
        let blocks = threads.div_ceil(THREADS as usize) as u32;
        self.device.launch(Launch { kernel, blocks, threads: THREADS, shared: 0 }, bytemuck::bytes_of(args))
    }
}

/// Threads that the largest kernel needs for one step.
fn threads_of_step(plan: &Plan, samples: usize) -> usize {
    let skips = plan.classes.len() + plan.groups.len();
    let columns = samples.div_ceil(BATCH_OF) * plan.n_features * 8;
    columns.max(32 * samples.div_ceil(ROW_BLOCK) * skips).max(samples.next_multiple_of(16))
}

/// Steps in pieces of which each has at most [`MOST_THREADS`] threads: first and number.
///
/// # Panics
/// If one step has more.
fn launches(steps: usize, threads_of_step: usize) -> impl Iterator<Item = (usize, usize)> {
    assert!(threads_of_step <= MOST_THREADS, "one step of {threads_of_step} threads");
    let most = MOST_THREADS / threads_of_step.max(1);
    (0..steps).step_by(most).map(move |start| (start, most.min(steps - start)))
}

/// One for each feature.
fn columns(plan: &Plan) -> Vec<Column> {
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
fn skips(plan: &Plan) -> (Vec<Skip>, Vec<u32>) {
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

#[cfg(test)]
mod tests;
