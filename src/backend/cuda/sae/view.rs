//! What kernels are told of an autoencoder: the structures of `kernels/sae_view.cuh`, field for field.

use bytemuck::{Pod, Zeroable};

use super::super::device::Pointer;

/// Levels that an autoencoder may have.
pub const LEVELS: usize = 16;

/// Lists of active latents: what reconstructs; what passes a gate; dead latents with the auxiliary loss; dead latents below
/// their thresholds.
pub const LISTS: usize = 4;

/// Rules, as kernels number them.
pub mod rule {
    pub const POSITIVE: u32 = 0;
    pub const TOP: u32 = 1;
    pub const BATCH_TOP: u32 = 2;
    pub const JUMP: u32 = 3;
    pub const GATED: u32 = 4;
}

/// Penalties, as kernels number them.
pub mod penalty {
    pub const NONE: u32 = 0;
    pub const L1: u32 = 1;
    pub const L1_NORM: u32 = 2;
    pub const STEP: u32 = 3;
    pub const TANH: u32 = 4;
    pub const QUADRATIC: u32 = 5;
}

/// Lists, as kernels number them.
pub mod list {
    pub const MAIN: u32 = 0;
    pub const GATE: u32 = 1;
    pub const DEAD: u32 = 2;
    pub const SILENT: u32 = 3;
}

/// Bits of [`View::flags`].
pub mod flag {
    pub const UNIT: u32 = 1;
    pub const TIED: u32 = 2;
    pub const FROZEN: u32 = 4;
    pub const HOLD_DECODER: u32 = 8;
    pub const DETACHED: u32 = 16;
    pub const INPUT_GRADIENT: u32 = 32;
    pub const BY_LEVEL: u32 = 64;
    pub const LED: u32 = 128;
}

/// What the update kernel does.
pub mod mode {
    pub const MOVE: u32 = 0;
    pub const REFRESH: u32 = 1;
}

/// A parameter with its gradient and moments; moments point nowhere where the optimiser has none.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Tensor {
    pub w: Pointer<f32>,
    pub gradient: Pointer<f32>,
    pub first: Pointer<f32>,
    pub second: Pointer<f32>,
}

/// Active latents of a batch; sample s has the places from s `cap` on.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct List {
    /// `[n]`
    pub count: Pointer<u32>,
    /// `[n, cap]`
    pub latent: Pointer<u32>,
    /// `[n, cap]`
    pub z: Pointer<f32>,
    /// `[n, cap]`
    pub dz: Pointer<f32>,
    /// `[n, cap]`, or nowhere.
    pub more: [Pointer<f32>; 2],
    /// `[m, words]`
    pub mask: Pointer<u32>,
    /// `[m, n]`
    pub slot: Pointer<u32>,
    /// `[levels, n, pitch]`
    pub heard: Pointer<f32>,
    /// `[levels, n]`
    pub squares: Pointer<f32>,
    /// `[levels, n]`
    pub cut: Pointer<u32>,
    /// `[levels, n]`
    pub ties: Pointer<u32>,
    pub cap: u32,
    pub levels: u32,
}

/// What is remembered from step to step beside the weights.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Memory {
    /// Mean squared error of the first step.
    pub first: f64,
    /// Running threshold of BatchTopK.
    pub threshold: f64,
    /// The controller of L0: factor of the penalty, running mean of L0, its smoothed change.
    pub multiplier: f64,
    pub smoothed: f64,
    pub rate: f64,
    pub dead_weight: [f64; LEVELS],
    pub dead: [u32; LEVELS],
    pub has_first: u32,
    pub has_smoothed: u32,
    /// Nothing moves any more.
    pub halted: u32,
    /// A weight is not finite.
    pub broken: u32,
    pub scale: f32,
    pub cut: u32,
    pub ties: u32,
    pub wanted: u32,
    pub low: u32,
    pub unused: u32,
}

/// What a step leaves for the host.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Report {
    pub mse: f64,
    pub reconstruction: f64,
    pub penalty: f64,
    pub auxiliary: f64,
    /// The controller after the step.
    pub multiplier: f64,
    pub smoothed: f64,
    pub rate: f64,
    /// How often any latent fired.
    pub fired: u64,
    pub halted: u32,
    /// The step before left weights that are not finite.
    pub broken: u32,
}

/// An autoencoder: where everything lies, and what does not change from step to step.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct View {
    /// `[slots, n, pitch]`
    pub h: Pointer<f32>,
    /// `[n, m_pitch]`
    pub pre: Pointer<f32>,
    /// W_enc, b_enc, W_dec, b_dec, then one number a latent each.
    pub tensors: [Tensor; 6],
    pub norm: Pointer<f32>,
    pub offset: Pointer<f32>,
    pub factor: Pointer<f32>,
    pub through: Pointer<f32>,
    pub squares: Pointer<f32>,
    pub price: Pointer<f64>,
    pub active: Pointer<u32>,
    pub since: Pointer<u32>,
    pub usage: Pointer<f64>,
    pub level_of: Pointer<u32>,
    pub errors: Pointer<f32>,
    pub row_penalty: Pointer<f64>,
    pub row_fired: Pointer<u32>,
    pub row_ties: Pointer<u32>,
    pub histogram: Pointer<u32>,
    pub parts: Pointer<f32>,
    pub memory: Pointer<Memory>,
    pub reports: Pointer<Report>,
    pub lists: [List; LISTS],
    pub silent: f64,
    pub penalty_target: f64,
    pub penalty_scale: f64,
    /// Of the controller: L0 that is wanted, and `rate`, `approach` and `ahead` of its [`Target`](crate::sae::Target).
    pub target: [f64; 4],
    pub bandwidth: f32,
    pub n: u32,
    pub m: u32,
    pub d: u32,
    pub pitch: u32,
    pub m_pitch: u32,
    pub words: u32,
    pub rule: u32,
    pub penalty: u32,
    pub flags: u32,
    pub dead_after: u32,
    pub aux_k: u32,
    pub sort: u32,
    /// A bit for each list there is.
    pub used: u32,
}

/// What the host says about one step.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct StepAim {
    /// The penalty's coefficient over n, but for the controller's multiplier.
    pub each: f64,
    /// Greatest norm of the gradient; infinite: not clipped.
    pub clip: f64,
    pub level_weight: [f64; LEVELS],
    pub level_scale: [f32; LEVELS],
    /// How many latents a level and those inside it have.
    pub level_end: [u32; LEVELS],
    /// Latents kept of a sample, or of the batch.
    pub k: u32,
    /// Where the report goes.
    pub report: u32,
    pub adaptive: u32,
    pub take: [f32; 2],
    pub rate: f32,
    pub scale: f32,
    pub epsilon: f32,
    pub decay: f32,
    pub shrink: f32,
    pub momentum: f32,
    pub levels: u32,
    /// Whether the controller moves.
    pub tunes: u32,
    pub unused: u32,
}

/// Arguments of every kernel of a step.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Args {
    pub views: Pointer<View>,
    pub aims: Pointer<StepAim>,
    /// Blocks of one autoencoder.
    pub per: u32,
    /// A list, pass or mode.
    pub which: u32,
    /// Place of the step among those queued at once: of its batch, and of its aims.
    pub slot: u32,
    /// Autoencoders.
    pub count: u32,
}

macro_rules! plain {
    ($($kind:ty),+) => { $(
        // SAFETY: numbers and addresses, for all of which zero is a value.
        unsafe impl Zeroable for $kind {}
        // SAFETY: numbers and addresses without padding (their sizes are those of their fields: see the test), of any bits.
        unsafe impl Pod for $kind {}
    )+ };
}

plain!(Tensor, List, Memory, Report, View, StepAim, Args);

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums of the fields' sizes, and the numbers that the kernels' static_asserts hold theirs to.
    #[test]
    fn structures_have_the_sizes_that_kernels_expect() {
        assert_eq!((size_of::<Tensor>(), size_of::<List>()), (4 * 8, 12 * 8 + 2 * 4));
        assert_eq!(size_of::<View>(), 20 * 8 + 6 * 32 + 4 * 104 + 7 * 8 + 14 * 4);
        assert_eq!(size_of::<View>(), 880);
        assert_eq!(size_of::<Memory>(), 5 * 8 + LEVELS * 12 + 10 * 4);
        assert_eq!((size_of::<Memory>(), size_of::<Report>()), (272, 72));
        assert_eq!(size_of::<StepAim>(), 2 * 8 + LEVELS * 16 + 14 * 4);
        assert_eq!((size_of::<StepAim>(), size_of::<Args>()), (328, 32));
    }
}
