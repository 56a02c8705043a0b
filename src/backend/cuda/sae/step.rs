//! A training step as a list of launches, each for all autoencoders of a squad.
//!
//! ```text
//! levels         which level each latent belongs to                     where that moves
//! begin          dead latents counted, the batch's cut forgotten        where the program asks for either
//! encode         pre = W_enc h + offset
//! top            each sample's cut                                      top
//! batch_*        the batch's cut: three histograms, then ties by row    batch top
//! emit           entries by sample, and which samples each latent has
//! decode         reconstruction, error, loss, dz at the entries
//! rows           gradients of each latent's numbers, and note of it
//! parts, close   gradient of b_dec, loss, divergence, clip
//! update_*       optimiser, unit rows, norms and offsets for the next step
//! ```
//!
//! Lists of the gate, of dead and of silent latents are emitted and decoded like the main one. Nothing comes back to the host
//! within a step: each leaves a report, and one that finds a loss wrong lets nothing move any more. What the host knows of the
//! steps beforehand, their aims, lies on the device for several at once, as their batches do: so the launches of these are the
//! same time after time, and a GPU keeps them as one graph.

use std::sync::Arc;

use super::super::arithmetic::Arithmetic;
use super::super::device::{Buffer, Device, DeviceError, Launch, Sequence};
use super::super::rows::pitch;
use super::resident::{Sizes, dead_lists, lists, rule_number};
use super::view::{Args, StepAim, View, list, mode, rule};
use crate::backend::ops::optimizer::Step;
use crate::sae::{Program, Rule, SaeJob, batch_topk};
use crate::training::{ramp_down, ramp_up};

/// What decides which kernels a step launches and how large: autoencoders with equal ones go together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub sizes: Sizes,
    rule: u32,
    lists: [bool; 4],
    dead_lists: usize,
    /// Whether latents change levels from step to step.
    levels_move: bool,
    arithmetic: Arithmetic,
}

impl Kind {
    /// Of a program with these sizes, in f32.
    pub fn of(program: &Program, sizes: Sizes) -> Kind {
        let levels_move = program.levels.as_ref().is_some_and(|levels| !levels.stay());
        let (rule, lists, dead_lists) = (rule_number(program), lists(program), dead_lists(program, sizes.m));
        Kind { sizes, rule, lists, dead_lists, levels_move, arithmetic: Arithmetic::F32 }
    }

    /// The same with another encoder's product.
    pub fn in_arithmetic(self, arithmetic: Arithmetic) -> Kind {
        Kind { arithmetic, ..self }
    }

    /// How many of them a launch takes: its blocks are counted in 31 bits.
    pub fn most_together(&self) -> usize {
        let Sizes { n, m, d } = self.sizes;
        let tiles = n.div_ceil(128) * m.div_ceil(128);
        let parts = pitch(d).div_ceil(128) * (n.div_ceil(64) + m.div_ceil(64));
        (i32::MAX as usize / m.max(n * self.dead_lists).max(tiles).max(parts)).max(1)
    }
}

/// Autoencoders of one kind whose steps are launched together.
pub struct Launcher {
    device: Arc<dyn Device>,
    kind: Kind,
    views: Buffer<View>,
    /// `[slots, count]`
    aims: Buffer<StepAim>,
    slots: usize,
    count: usize,
    /// Bytes of shared memory that decoding takes.
    decode: u32,
    /// Of all slots, for the autoencoders that are chosen.
    sequence: Option<Sequence>,
}

/// One launch of a step, and what its kernel is told.
struct Order {
    kernel: &'static str,
    /// Blocks of an autoencoder.
    per: usize,
    threads: u32,
    shared: u32,
    which: u32,
}

/// A launch without shared memory of its own.
fn order(kernel: &'static str, per: usize, threads: u32, which: u32) -> Order {
    Order { kernel, per, threads, shared: 0, which }
}

/// Bytes of shared memory that decoding `levels` levels of width `d` takes.
pub fn decode_shared(levels: usize, d: usize) -> usize {
    4 * levels * pitch(d)
}

/// Threads of a block that goes over rows of width `d`: one for each four columns, whole warps, at most 256.
fn row_threads(d: usize) -> u32 {
    (pitch(d) / 4).next_multiple_of(32).clamp(32, 256) as u32
}

/// Threads of the block that adds up what samples, latents and columns leave: of the sizes alone, for they are part of its
/// sums.
fn close_threads(Sizes { n, m, d }: Sizes) -> u32 {
    n.max(m).max(d).next_multiple_of(32).min(256) as u32
}

impl Launcher {
    /// For as many as `count` autoencoders of `levels` levels at most, `slots` steps at once.
    ///
    /// # Errors
    /// No room.
    pub fn new(
        device: &Arc<dyn Device>,
        kind: Kind,
        count: usize,
        levels: usize,
        slots: usize,
    ) -> Result<Launcher, DeviceError> {
        Ok(Launcher {
            device: device.clone(),
            decode: decode_shared(levels, kind.sizes.d) as u32,
            kind,
            views: Buffer::undefined(device, count)?,
            aims: Buffer::undefined(device, slots * count)?,
            slots,
            count: 0,
            sequence: None,
        })
    }

    /// Which autoencoders steps are for, from now on.
    ///
    /// # Errors
    /// The device refuses.
    pub fn choose(&mut self, views: &[View]) -> Result<(), DeviceError> {
        if self.count != views.len() {
            self.sequence = None;
        }
        self.count = views.len();
        self.views.write(0, views)
    }

    /// What the steps to come are told, one aim for each chosen autoencoder, step after step.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_aims(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.aims.write(0, aims)
    }

    /// Norms and offsets of the weights as they are.
    ///
    /// # Errors
    /// The device refuses.
    pub fn refresh(&mut self) -> Result<(), DeviceError> {
        self.set_aims(&vec![StepAim::default(); self.count])?;
        self.launch(0, &order("sae_update", self.kind.sizes.m, row_threads(self.kind.sizes.d), mode::REFRESH))
    }

    /// A step of every chosen autoencoder for each aim that it is given, on the batches that its view points to.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If there are aims for more steps than slots.
    pub fn steps(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.set_aims(aims)?;
        let steps = aims.len() / self.count.max(1);
        if steps < self.slots {
            return (0..steps).try_for_each(|slot| self.step().iter().try_for_each(|order| self.launch(slot, order)));
        }
        if self.sequence.is_none() {
            let step = self.step();
            let launches = (0..self.slots).flat_map(|slot| step.iter().map(move |order| (slot, order)));
            let launches = launches.map(|(slot, order)| self.told(slot, order)).collect();
            self.sequence = Some(Sequence::new(&self.device, launches)?);
        }
        self.sequence.as_ref().expect("made where it was not there").run()
    }

    /// What a step does up to the entries and what comes back to them, on the first batch.
    ///
    /// # Errors
    /// The device refuses.
    pub fn forward(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.set_aims(aims)?;
        self.orders_forward().iter().try_for_each(|order| self.launch(0, order))
    }

    /// One kernel with 4096 bytes of shared memory for each chosen autoencoder, on the first batch.
    ///
    /// # Errors
    /// The device refuses.
    #[cfg(test)]
    pub fn launch_one(&self, kernel: &'static str, per: usize, threads: u32, which: u32) -> Result<(), DeviceError> {
        self.launch(0, &Order { kernel, per, threads, shared: 4096, which })
    }

    /// The launches that find the batch's cut.
    ///
    /// # Errors
    /// The device refuses.
    #[cfg(test)]
    pub fn batch_cut(&self) -> Result<(), DeviceError> {
        self.orders_of_batch_cut().iter().try_for_each(|order| self.launch(0, order))
    }

    fn launch(&self, slot: usize, order: &Order) -> Result<(), DeviceError> {
        let (launch, args) = self.told(slot, order);
        self.device.launch(launch, &args)
    }

    /// An order for the step in `slot`, as the device takes it.
    fn told(&self, slot: usize, order: &Order) -> (Launch, Vec<u8>) {
        let Order { kernel, per, threads, shared, which } = *order;
        let (views, aims) = (self.views.pointer(), self.aims.pointer());
        let args = Args { views, aims, per: per as u32, which, slot: slot as u32, count: self.count as u32 };
        let blocks = u32::try_from(per * self.count).expect("most_together keeps a squad's grid within 31 bits");
        (Launch { kernel, blocks, threads, shared }, bytemuck::bytes_of(&args).to_vec())
    }

    fn step(&self) -> Vec<Order> {
        let Sizes { n, m, d } = self.kind.sizes;
        let across = pitch(d).div_ceil(128);
        let mut orders = self.orders_forward();
        orders.extend([
            order("sae_rows", m, row_threads(d), 0),
            order("sae_parts", across * (n.div_ceil(64) + m.div_ceil(64)), 128, 0),
            order("sae_close", 1, close_threads(self.kind.sizes), 0),
            order("sae_update_bias", 1, row_threads(d), 0),
            order("sae_update", m, row_threads(d), mode::MOVE),
        ]);
        orders
    }

    fn orders_forward(&self) -> Vec<Order> {
        let Kind { sizes: Sizes { n, m, d }, rule, lists: [_, gate, dead, silent], .. } = self.kind;
        let Kind { dead_lists, levels_move, arithmetic, .. } = self.kind;
        let (top_threads, emit_threads) =
            (m.next_multiple_of(32).min(256) as u32, (m.div_ceil(128) * 32).min(256) as u32);
        let mut orders = vec![];
        if levels_move {
            orders.push(order("sae_levels", m.div_ceil(256), 256, 0));
        }
        if rule == rule::BATCH_TOP || dead {
            orders.push(order("sae_begin", 1, 256, 0));
        }
        orders.push(order(arithmetic.encoder(), n.div_ceil(128) * m.div_ceil(128), 256, 0));
        if rule == rule::TOP {
            orders.push(order("sae_top", n, top_threads, list::MAIN));
        }
        if rule == rule::BATCH_TOP {
            orders.extend(self.orders_of_batch_cut());
        }
        let mut decoded = vec![list::MAIN];
        orders.push(order("sae_emit", n, emit_threads, list::MAIN));
        if gate {
            orders.push(order("sae_emit", n, emit_threads, list::GATE));
            decoded.push(list::GATE);
        }
        if dead {
            orders.push(order("sae_top", n * dead_lists, top_threads, list::DEAD));
            orders.push(order("sae_emit", n, emit_threads, list::DEAD));
            decoded.push(list::DEAD);
        }
        if silent {
            orders.push(order("sae_emit_silent", n, 32, list::SILENT));
        }
        let decode = |which| Order { shared: self.decode, ..order("sae_decode", n, row_threads(d), which) };
        orders.extend(decoded.into_iter().map(decode));
        orders
    }

    /// The least key that the batch keeps, where it keeps the greatest.
    fn orders_of_batch_cut(&self) -> Vec<Order> {
        let n = self.kind.sizes.n;
        let pass =
            |pass| [order("sae_batch_count", n.div_ceil(4).min(256), 256, pass), order("sae_batch_pick", 1, 256, pass)];
        let mut orders: Vec<Order> = (0..3).flat_map(pass).collect();
        orders.push(order("sae_batch_ties", n, 128, 0));
        orders
    }
}

/// What kernels are told of step `step` of a job; its report goes to place `report`.
pub fn aim(program: &Program, job: &SaeJob, step: usize, report: usize) -> StepAim {
    let train = &job.train;
    let n = train.batch_size;
    let k = program.k_at(step, train.steps).unwrap_or(0.0);
    let k = if let Rule::BatchTop { .. } = program.rule { batch_topk::count(k, n) } else { k as usize };
    let mut aim = StepAim {
        // The controller's multiplier is on the device.
        each: program.penalty_at(step, train.steps, 1.0).coefficient() / n as f64,
        clip: train.clip.unwrap_or(f64::INFINITY),
        k: k.min(u32::MAX as usize) as u32,
        report: report as u32,
        tunes: program.tunes_at(step, train.steps) as u32,
        ..StepAim::default()
    };
    let (ends, weights) = match &program.levels {
        None => (vec![job.n_latents], vec![1.0]),
        Some(levels) => {
            let ends = levels.lengths(job.seed, step, job.n_latents);
            let weights = levels.weights(ends.len());
            (ends, weights)
        }
    };
    aim.levels = ends.len() as u32;
    for (level, (end, weight)) in ends.into_iter().zip(weights).enumerate() {
        aim.level_end[level] = end as u32;
        aim.level_weight[level] = weight;
        aim.level_scale[level] = (2.0 * weight / n as f64) as f32;
    }
    let factor = train.schedule.factor(step, train.steps)
        * ramp_up(step, train.steps, train.warmup)
        * ramp_down(step, train.steps, train.decay);
    match Step::new(train.optimizer, train.lr * factor, train.weight_decay, step) {
        Step::Adaptive { take, rate, scale, epsilon, decay, shrink } => {
            StepAim { adaptive: 1, take, rate, scale, epsilon, decay, shrink, ..aim }
        }
        Step::Sgd { momentum, rate, decay } => StepAim { adaptive: 0, momentum, rate, decay, ..aim },
    }
}
