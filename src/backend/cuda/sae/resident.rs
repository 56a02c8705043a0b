//! What an autoencoder in training has on a device, and where it lies.
//!
//! The autoencoders of a squad share one piece of memory, so that there is one allocation for all of them; each has places in
//! it. Of these the weights, moments, norms, offsets and what is noted of latents are its state; the rest is used within a
//! step.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;

use super::super::device::{Buffer, Device, DeviceError, Pointer};
use super::super::rows::{padded, pitch};
use super::view::{LISTS, List, Memory, Report, Tensor, View, flag, list, penalty, rule};
use crate::sae::{Penalty, Program, Rule, SaeJob, Sort, Weights};
use crate::training::Optimizer;

/// A piece of a squad's memory: `len` numbers from word `at` on.
#[derive(Debug)]
pub struct Place<T> {
    at: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T> Clone for Place<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<T> {}

impl<T> Place<T> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Hands out places, each at a multiple of 256 bytes.
#[derive(Debug, Default)]
pub struct Layout {
    words: usize,
}

impl Layout {
    /// How much memory was handed out.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        4 * self.words
    }

    fn take<T>(&mut self, len: usize) -> Place<T> {
        let at = self.words;
        self.words += (len * size_of::<T>()).div_ceil(4).next_multiple_of(64);
        Place { at, len, of: PhantomData }
    }

    fn if_any<T>(&mut self, wanted: bool, len: usize) -> Option<Place<T>> {
        wanted.then(|| self.take(len))
    }
}

/// A squad's memory.
#[derive(Debug)]
pub struct Arena {
    words: Buffer<u32>,
}

impl Arena {
    /// Zeros for everything that was laid out.
    ///
    /// # Errors
    /// No room.
    pub fn new(device: &Arc<dyn Device>, layout: &Layout) -> Result<Arena, DeviceError> {
        Ok(Arena { words: Buffer::zeros(device, layout.words)? })
    }

    /// Where a place lies.
    pub fn pointer<T: 'static>(&self, place: Place<T>) -> Pointer<T> {
        let base: u64 = bytemuck::cast(self.words.pointer());
        bytemuck::cast(base + 4 * place.at as u64)
    }

    fn pointer_or_null<T: 'static>(&self, place: Option<Place<T>>) -> Pointer<T> {
        place.map_or(Pointer::NULL, |place| self.pointer(place))
    }

    /// What stands there, once everything before is done.
    ///
    /// # Errors
    /// Work before has failed.
    pub fn read<T: Pod>(&self, place: Place<T>) -> Result<Vec<T>, DeviceError> {
        let bytes = place.len * size_of::<T>();
        let words = self.words.read_range(place.at, bytes.div_ceil(4))?;
        let mut values = vec![T::zeroed(); place.len];
        bytemuck::cast_slice_mut::<T, u8>(&mut values).copy_from_slice(&bytemuck::cast_slice(&words)[..bytes]);
        Ok(values)
    }

    /// Puts numbers there, all of them.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If there are more or fewer than its length says.
    pub fn write<T: Pod>(&mut self, place: Place<T>, values: &[T]) -> Result<(), DeviceError> {
        assert_eq!(values.len(), place.len, "as many as there are places");
        // Numbers of 4 and of 8 bytes are whole words.
        self.words.write(place.at, bytemuck::cast_slice(values))
    }
}

/// A parameter's places; moments where the optimiser has them.
#[derive(Clone, Copy, Debug)]
pub struct TensorPlaces {
    pub w: Place<f32>,
    pub gradient: Place<f32>,
    pub first: Option<Place<f32>>,
    pub second: Option<Place<f32>>,
}

/// A list's places, as [`List`] has them.
#[derive(Clone, Copy, Debug)]
pub struct ListPlaces {
    pub count: Place<u32>,
    pub latent: Place<u32>,
    pub z: Place<f32>,
    pub dz: Place<f32>,
    more: [Option<Place<f32>>; 2],
    pub mask: Place<u32>,
    pub slot: Place<u32>,
    pub heard: Option<Place<f32>>,
    pub squares: Place<f32>,
    cut: Place<u32>,
    ties: Place<u32>,
    pub cap: usize,
    levels: usize,
}

/// Sizes of an autoencoder and its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sizes {
    /// Samples of a batch.
    pub n: usize,
    /// Latents.
    pub m: usize,
    /// Width of h.
    pub d: usize,
}

/// Everything that an autoencoder has on the device.
#[derive(Clone, Debug)]
pub struct Places {
    pub sizes: Sizes,
    /// W_enc, b_enc, W_dec, b_dec, then those with one number a latent.
    pub tensors: Vec<TensorPlaces>,
    pub norm: Place<f32>,
    pub offset: Place<f32>,
    pub factor: Place<f32>,
    pub since: Place<u32>,
    pub usage: Place<f64>,
    pub memory: Place<Memory>,
    pub level_of: Option<Place<u32>>,
    /// As [`super::view::list`] numbers them.
    pub lists: [Option<ListPlaces>; LISTS],
    /// `[n, m_pitch]`
    pub pre: Place<f32>,
    per_latent: [Place<f32>; 2],
    price: Place<f64>,
    /// Whether a latent's gradient rows are there.
    pub active: Place<u32>,
    errors: Option<Place<f32>>,
    row_penalty: Place<f64>,
    rows: [Place<u32>; 2],
    histogram: Place<u32>,
    parts: Place<f32>,
}

/// Levels of the reconstruction, at most.
pub fn levels(program: &Program, m: usize) -> usize {
    use crate::sae::Prefixes;
    program.levels.as_ref().map_or(1, |levels| match &levels.prefixes {
        Prefixes::Fixed(prefixes) => prefixes.len(),
        Prefixes::Sampled { count, .. } => (*count).min(m).max(1),
    })
}

/// Lists of dead latents with an auxiliary loss.
pub fn dead_lists(program: &Program, m: usize) -> usize {
    if program.aux_by_level { levels(program, m) } else { 1 }
}

/// Whether a program has each list.
pub fn lists(program: &Program) -> [bool; LISTS] {
    let silent = matches!(program.rule, Rule::Jump { silent, .. } if silent > 0.0);
    [true, matches!(program.rule, Rule::Gated { .. }), program.aux_k > 0, silent]
}

impl Places {
    /// Places for an autoencoder that is to be trained so.
    pub fn new(layout: &mut Layout, sizes: Sizes, program: &Program, optimizer: Optimizer) -> Places {
        let Sizes { n, m, d } = sizes;
        let pitch = pitch(d);
        let [has_first, has_second] = match optimizer {
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => [true, true],
            Optimizer::Sgd { momentum } => [momentum != 0.0, false],
        };
        let tensor = |layout: &mut Layout, len| TensorPlaces {
            w: layout.take(len),
            gradient: layout.take(len),
            first: layout.if_any(has_first, len),
            second: layout.if_any(has_second, len),
        };
        let lens = [m * pitch, m, m * pitch, pitch].into_iter().chain(std::iter::repeat_n(m, program.per_latent()));
        let tensors = lens.map(|len| tensor(layout, len)).collect();
        let has = lists(program);
        let lists = [0, 1, 2, 3].map(|which| has[which].then(|| list_places(layout, sizes, program, which as u32)));
        let has_levels = program.levels.is_some();
        let of_errors = dead_lists(program, m) * n * pitch;
        Places {
            sizes,
            tensors,
            norm: layout.take(m),
            offset: layout.take(m),
            factor: layout.take(m),
            since: layout.take(m),
            usage: layout.take(m),
            memory: layout.take(1),
            level_of: layout.if_any(has_levels, m),
            lists,
            pre: layout.take(n * m.next_multiple_of(4)),
            per_latent: [layout.take(m), layout.take(m)],
            price: layout.take(m),
            active: layout.take(m),
            errors: layout.if_any(has[list::DEAD as usize], of_errors),
            row_penalty: layout.take(n),
            rows: [layout.take(n), layout.take(n)],
            histogram: layout.take(2048),
            parts: layout.take((n.div_ceil(64) + m.div_ceil(64)) * pitch),
        }
    }

    /// Puts initial weights there, levels, and a controller that has not begun.
    ///
    /// # Errors
    /// The device refuses.
    pub fn start(&self, arena: &mut Arena, weights: &Weights, program: &Program) -> Result<(), DeviceError> {
        let Sizes { m, d, .. } = self.sizes;
        if let (Some(levels), Some(place)) = (&program.levels, self.level_of) {
            // A kernel writes those that move.
            let of = if levels.stay() { levels.at(0, 0, m, &[]).of } else { vec![0; m] };
            arena.write(place, &of)?;
        }
        arena.write(self.tensors[0].w, &padded(&weights.w_enc, d))?;
        arena.write(self.tensors[1].w, &weights.b_enc)?;
        arena.write(self.tensors[2].w, &padded(&weights.w_dec, d))?;
        arena.write(self.tensors[3].w, &padded(&weights.b_dec, d))?;
        arena.write(self.memory, &[Memory { multiplier: 1.0, ..Memory::default() }])?;
        self.tensors[4..].iter().zip(&weights.per_latent).try_for_each(|(places, w)| arena.write(places.w, w))
    }

    /// As kernels are told.
    pub fn view(
        &self,
        arena: &Arena,
        program: &Program,
        job: &SaeJob,
        h: Pointer<f32>,
        reports: Pointer<Report>,
    ) -> View {
        let Sizes { n, m, d } = self.sizes;
        let nowhere = Tensor { w: Pointer::NULL, gradient: Pointer::NULL, first: Pointer::NULL, second: Pointer::NULL };
        let mut tensors = [nowhere; 6];
        for (tensor, places) in tensors.iter_mut().zip(&self.tensors) {
            *tensor = Tensor {
                w: arena.pointer(places.w),
                gradient: arena.pointer(places.gradient),
                first: arena.pointer_or_null(places.first),
                second: arena.pointer_or_null(places.second),
            };
        }
        let (penalty, penalty_target, penalty_scale) = penalty_of(program.penalty);
        let (rule, bandwidth, silent) = rule_of(program.rule);
        let has = lists(program);
        View {
            h,
            pre: arena.pointer(self.pre),
            tensors,
            norm: arena.pointer(self.norm),
            offset: arena.pointer(self.offset),
            factor: arena.pointer(self.factor),
            through: arena.pointer(self.per_latent[0]),
            squares: arena.pointer(self.per_latent[1]),
            price: arena.pointer(self.price),
            active: arena.pointer(self.active),
            since: arena.pointer(self.since),
            usage: arena.pointer(self.usage),
            level_of: arena.pointer_or_null(self.level_of),
            errors: arena.pointer_or_null(self.errors),
            row_penalty: arena.pointer(self.row_penalty),
            row_fired: arena.pointer(self.rows[0]),
            row_ties: arena.pointer(self.rows[1]),
            histogram: arena.pointer(self.histogram),
            parts: arena.pointer(self.parts),
            memory: arena.pointer(self.memory),
            reports,
            lists: self.lists.map(|places| list_view(arena, places)),
            silent,
            penalty_target,
            penalty_scale,
            target: program.target.map_or([0.0; 4], |it| [it.l0, it.rate, it.approach, it.ahead]),
            bandwidth: bandwidth as f32,
            n: n as u32,
            m: m as u32,
            d: d as u32,
            pitch: pitch(d) as u32,
            m_pitch: m.next_multiple_of(4) as u32,
            words: n.div_ceil(32) as u32,
            rule,
            penalty,
            flags: flags(program),
            dead_after: job.train.dead_after.min(u32::MAX as usize) as u32,
            aux_k: program.aux_k.min(u32::MAX as usize) as u32,
            sort: match program.levels.as_ref().map_or(Sort::None, |levels| levels.sort) {
                Sort::None => 0,
                Sort::Frequency => 1,
                Sort::Contribution => 2,
            },
            used: (0..LISTS).map(|which| (has[which] as u32) << which).sum(),
        }
    }
}

fn list_places(layout: &mut Layout, sizes: Sizes, program: &Program, which: u32) -> ListPlaces {
    let Sizes { n, m, d } = sizes;
    let dead = which == list::DEAD;
    let cap = match program.rule {
        _ if dead => m.min(program.aux_k.saturating_mul(dead_lists(program, m))),
        Rule::Top(k) if which == list::MAIN => {
            m.min(program.k_anneal.map_or(0, |anneal| anneal.from.ceil() as usize).max(k))
        }
        _ => m,
    };
    let levels = match which {
        list::MAIN => levels(program, m),
        list::DEAD => dead_lists(program, m),
        _ => 1,
    };
    let more = which == list::SILENT || (which == list::MAIN && program.per_latent() > 0);
    ListPlaces {
        count: layout.take(n),
        latent: layout.take(n * cap),
        z: layout.take(n * cap),
        dz: layout.take(n * cap),
        more: [layout.if_any(more, n * cap), layout.if_any(more, n * cap)],
        mask: layout.take(m * n.div_ceil(32)),
        slot: layout.take(m * n),
        heard: layout.if_any(which != list::SILENT, levels * n * pitch(d)),
        squares: layout.take(levels * n),
        cut: layout.take(levels * n),
        ties: layout.take(levels * n),
        cap,
        levels,
    }
}

fn list_view(arena: &Arena, places: Option<ListPlaces>) -> List {
    let Some(places) = places else { return bytemuck::Zeroable::zeroed() };
    List {
        count: arena.pointer(places.count),
        latent: arena.pointer(places.latent),
        z: arena.pointer(places.z),
        dz: arena.pointer(places.dz),
        more: places.more.map(|more| arena.pointer_or_null(more)),
        mask: arena.pointer(places.mask),
        slot: arena.pointer(places.slot),
        heard: arena.pointer_or_null(places.heard),
        squares: arena.pointer(places.squares),
        cut: arena.pointer(places.cut),
        ties: arena.pointer(places.ties),
        cap: places.cap as u32,
        levels: places.levels as u32,
    }
}

fn flags(program: &Program) -> u32 {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    let detached = program.levels.as_ref().is_some_and(|levels| levels.detach_inner);
    let hold = matches!(program.rule, Rule::Gated { hold_decoder: true });
    let input = matches!(program.rule, Rule::Jump { input_gradient: true, .. });
    bit(program.unit_decoder, flag::UNIT)
        | bit(program.tied, flag::TIED)
        | bit(program.frozen_decoder, flag::FROZEN)
        | bit(hold, flag::HOLD_DECODER)
        | bit(detached, flag::DETACHED)
        | bit(input, flag::INPUT_GRADIENT)
        | bit(program.aux_by_level && program.levels.is_some(), flag::BY_LEVEL)
        | bit(program.target.is_some(), flag::LED)
}

/// Number, target and scale.
fn penalty_of(penalty: Penalty) -> (u32, f64, f64) {
    match penalty {
        Penalty::None => (penalty::NONE, 0.0, 0.0),
        Penalty::L1 { by_norm, .. } => (if by_norm { penalty::L1_NORM } else { penalty::L1 }, 0.0, 0.0),
        Penalty::Step { .. } => (penalty::STEP, 0.0, 0.0),
        Penalty::Tanh { scale, .. } => (penalty::TANH, 0.0, scale),
        Penalty::Quadratic { target, .. } => (penalty::QUADRATIC, target, 0.0),
    }
}

/// Number, bandwidth and weight of silent latents.
fn rule_of(rule: Rule) -> (u32, f64, f64) {
    match rule {
        Rule::Positive => (rule::POSITIVE, 0.0, 0.0),
        Rule::Top(_) => (rule::TOP, 0.0, 0.0),
        Rule::BatchTop { .. } => (rule::BATCH_TOP, 0.0, 0.0),
        Rule::Jump { bandwidth, silent, .. } => (rule::JUMP, bandwidth, silent),
        Rule::Gated { .. } => (rule::GATED, 0.0, 0.0),
        Rule::Pursuit(_) => unreachable!("a squad takes no pursuit: see why_not"),
    }
}

/// The number of a program's rule, for putting like with like.
pub fn rule_number(program: &Program) -> u32 {
    rule_of(program.rule).0
}
