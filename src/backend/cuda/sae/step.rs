//! A training step as a list of launches, each for all autoencoders of a squad.
//!
//! ```text
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
//! within a step: each leaves a report, and one that finds a loss wrong lets nothing move any more.

use std::sync::Arc;

use super::super::arithmetic::Arithmetic;
use super::super::device::{Buffer, Device, DeviceError, Launch, Pointer};
use super::feed::pitch;
use super::resident::{Sizes, dead_lists, lists, rule_number};
use super::view::{Args, LEVELS, StepAim, View, list, mode, rule};
use crate::backend::ops::optimizer::Step;
use crate::sae::matryoshka::StepLevels;
use crate::sae::{Program, Rule, SaeTrain, batch_topk};
use crate::training::{ramp_down, ramp_up};

/// What decides which kernels a step launches and how large: autoencoders with equal ones go together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub sizes: Sizes,
    rule: u32,
    lists: [bool; 4],
    dead_lists: usize,
    arithmetic: Arithmetic,
}

impl Kind {
    /// Of a program with these sizes, in f32.
    pub fn of(program: &Program, sizes: Sizes) -> Kind {
        let (rule, lists, dead_lists) = (rule_number(program), lists(program), dead_lists(program, sizes.m));
        Kind { sizes, rule, lists, dead_lists, arithmetic: Arithmetic::F32 }
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
    aims: Buffer<StepAim>,
    count: usize,
    /// Bytes of shared memory that decoding takes.
    decode: u32,
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
    /// For as many as `count` autoencoders of `levels` levels at most.
    ///
    /// # Errors
    /// No room.
    pub fn new(device: &Arc<dyn Device>, kind: Kind, count: usize, levels: usize) -> Result<Launcher, DeviceError> {
        Ok(Launcher {
            device: device.clone(),
            decode: decode_shared(levels, kind.sizes.d) as u32,
            kind,
            views: Buffer::undefined(device, count)?,
            aims: Buffer::undefined(device, count)?,
            count: 0,
        })
    }

    /// Which autoencoders steps are for, from now on.
    ///
    /// # Errors
    /// The device refuses.
    pub fn choose(&mut self, views: &[View]) -> Result<(), DeviceError> {
        self.count = views.len();
        self.views.write(0, views)
    }

    /// What the launches to come are told of their step, one aim for each chosen autoencoder.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_aims(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.aims.write(0, aims)
    }

    /// One kernel, `per` blocks for each autoencoder.
    ///
    /// # Errors
    /// The device refuses.
    pub fn launch(
        &self,
        kernel: &'static str,
        per: usize,
        threads: u32,
        shared: u32,
        which: u32,
    ) -> Result<(), DeviceError> {
        let aims: Pointer<StepAim> = self.aims.pointer();
        let args = Args { views: self.views.pointer(), aims, per: per as u32, which, unused: [0; 2] };
        let blocks = u32::try_from(per * self.count).expect("most_together keeps a squad's grid within 31 bits");
        self.device.launch(Launch { kernel, blocks, threads, shared }, bytemuck::bytes_of(&args))
    }

    /// Norms and offsets of the weights as they are.
    ///
    /// # Errors
    /// The device refuses.
    pub fn refresh(&mut self) -> Result<(), DeviceError> {
        self.set_aims(&vec![StepAim::default(); self.count])?;
        self.launch("sae_update", self.kind.sizes.m, row_threads(self.kind.sizes.d), 0, mode::REFRESH)
    }

    /// One step of every chosen autoencoder, each with its aim, on the batch that its view points to.
    ///
    /// # Errors
    /// The device refuses.
    pub fn step(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.forward(aims)?;
        let Sizes { n, m, d } = self.kind.sizes;
        let across = pitch(d).div_ceil(128);
        self.launch("sae_rows", m, row_threads(d), 0, 0)?;
        self.launch("sae_parts", across * (n.div_ceil(64) + m.div_ceil(64)), 128, 0, 0)?;
        self.launch("sae_close", 1, close_threads(self.kind.sizes), 0, 0)?;
        self.launch("sae_update_bias", 1, row_threads(d), 0, 0)?;
        self.launch("sae_update", m, row_threads(d), 0, mode::MOVE)
    }

    /// What a step does up to the entries and what comes back to them.
    ///
    /// # Errors
    /// The device refuses.
    pub fn forward(&mut self, aims: &[StepAim]) -> Result<(), DeviceError> {
        self.set_aims(aims)?;
        let Kind { sizes: Sizes { n, m, d }, rule, lists: [_, gate, dead, silent], dead_lists, arithmetic } =
            self.kind.clone();
        let (top_threads, emit_threads) =
            (m.next_multiple_of(32).min(256) as u32, (m.div_ceil(128) * 32).min(256) as u32);
        if rule == rule::BATCH_TOP || dead {
            self.launch("sae_begin", 1, 256, 0, 0)?;
        }
        self.launch(arithmetic.encoder(), n.div_ceil(128) * m.div_ceil(128), 256, 0, 0)?;
        if rule == rule::TOP {
            self.launch("sae_top", n, top_threads, 0, list::MAIN)?;
        }
        if rule == rule::BATCH_TOP {
            self.batch_cut()?;
        }
        let mut decoded = vec![list::MAIN];
        self.launch("sae_emit", n, emit_threads, 0, list::MAIN)?;
        if gate {
            self.launch("sae_emit", n, emit_threads, 0, list::GATE)?;
            decoded.push(list::GATE);
        }
        if dead {
            self.launch("sae_top", n * dead_lists, top_threads, 0, list::DEAD)?;
            self.launch("sae_emit", n, emit_threads, 0, list::DEAD)?;
            decoded.push(list::DEAD);
        }
        if silent {
            self.launch("sae_emit_silent", n, 32, 0, list::SILENT)?;
        }
        decoded.into_iter().try_for_each(|list| self.launch("sae_decode", n, row_threads(d), self.decode, list))
    }

    /// The least key that the batch keeps, where it keeps the greatest.
    ///
    /// # Errors
    /// The device refuses.
    pub fn batch_cut(&self) -> Result<(), DeviceError> {
        let n = self.kind.sizes.n;
        for pass in 0..3 {
            self.launch("sae_batch_count", n.div_ceil(4).min(256), 256, 0, pass)?;
            self.launch("sae_batch_pick", 1, 256, 0, pass)?;
        }
        self.launch("sae_batch_ties", n, 128, 0, 0)
    }
}

/// What kernels are told of step `step`, whose levels are `levels` and whose penalty is led by `multiplier`; its report goes to
/// `slot`.
pub fn aim(
    program: &Program,
    train: &SaeTrain,
    step: usize,
    levels: &StepLevels,
    multiplier: f64,
    slot: usize,
) -> StepAim {
    let n = train.batch_size;
    let k = program.k_at(step, train.steps).unwrap_or(0.0);
    let k = if let Rule::BatchTop { .. } = program.rule { batch_topk::count(k, n) } else { k as usize };
    let mut aim = StepAim {
        each: program.penalty_at(step, train.steps, multiplier).coefficient() / n as f64,
        clip: train.clip.unwrap_or(f64::INFINITY),
        k: k.min(u32::MAX as usize) as u32,
        slot: slot as u32,
        ..StepAim::default()
    };
    for (level, &weight) in levels.weights.iter().take(LEVELS).enumerate() {
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
