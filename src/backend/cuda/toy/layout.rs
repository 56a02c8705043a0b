//! Which kernel trains a model: a rule of the shape alone, because kernels differ in the order of their sums.
//!
//! | kernel | a model is | shapes |
//! |---|---|---|
//! | `toy_lane` | one lane | n m + n up to 15 |
//! | `toy_warp` | one warp | ⌈n / 2⌉ and m within a size of the ladder |
//! | `toy_block` | one block | what fits in shared memory |
//! | `toy_layers` | one block | kinds with neurons, and the quadratic one, that fit in shared memory |
//!
//! Sizes are padded with zeros, which changes no bit, so the ladders are a matter of speed. What fits is asked of the largest
//! blocks there are, not of the device at hand: one with less says so.

use crate::backend::cuda::device::{Launch, MOST_SHARED};
use crate::backend::ops::toy_step::Shape;
use crate::toy::{Mlp, ToyKind};

/// Most numbers of a model in one lane.
const LANE_PARAMETERS: usize = 15;

/// n and the m that `toy_lane` is compiled for, by growing cost of equal n: `kernels/toy_lane.cu`.
const LANE_LADDER: [(usize, usize, &str); 17] = [
    (1, 1, "toy_lane_1_1"),
    (1, 2, "toy_lane_1_2"),
    (1, 5, "toy_lane_1_5"),
    (1, 14, "toy_lane_1_14"),
    (2, 1, "toy_lane_2_1"),
    (2, 2, "toy_lane_2_2"),
    (2, 3, "toy_lane_2_3"),
    (2, 6, "toy_lane_2_6"),
    (3, 1, "toy_lane_3_1"),
    (3, 2, "toy_lane_3_2"),
    (3, 4, "toy_lane_3_4"),
    (4, 1, "toy_lane_4_1"),
    (4, 2, "toy_lane_4_2"),
    (5, 1, "toy_lane_5_1"),
    (5, 2, "toy_lane_5_2"),
    (6, 1, "toy_lane_6_1"),
    (7, 1, "toy_lane_7_1"),
];

/// ⌈n / 2⌉ and m that `toy_warp` is compiled for, by growing cost: `kernels/toy_warp.cu`.
const WARP_LADDER: [(usize, usize, &str); 12] = [
    (3, 5, "toy_warp_3_5"),
    (5, 3, "toy_warp_5_3"),
    (10, 2, "toy_warp_10_2"),
    (5, 5, "toy_warp_5_5"),
    (10, 3, "toy_warp_10_3"),
    (3, 10, "toy_warp_3_10"),
    (10, 5, "toy_warp_10_5"),
    (5, 10, "toy_warp_5_10"),
    (20, 2, "toy_warp_20_2"),
    (3, 20, "toy_warp_3_20"),
    (40, 1, "toy_warp_40_1"),
    (10, 8, "toy_warp_10_8"),
];

/// Samples of a tile.
pub const TILE: usize = 16;

/// Shared memory that every device of these years has; what needs more halves its pieces first.
const COMMON_SHARED: usize = 160 << 10;

/// Bytes of x that small kernels keep in shared memory.
const STAGE: usize = 40 << 10;

/// Threads of `toy_loss`.
const LOSS_THREADS: u32 = 128;

/// A kernel and how it is launched for one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name.
    pub kernel: &'static str,
    shape: Shape,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Hidden dimensions are padded to `m`.
    Lane { m: usize },
    /// `q` pairs of features.
    Warp { q: usize },
    /// Pieces of so many samples.
    Block { samples: usize },
    /// Likewise.
    Layers { samples: usize },
}

impl Layout {
    /// The kernel for a shape; none where the CPU trains it.
    pub fn of(shape: Shape) -> Option<Layout> {
        let Shape { kind, n_features: n, d_hidden: m } = shape;
        let (kernel, way) = if !matches!(kind, ToyKind::Linear | ToyKind::ReluOutput) {
            ("toy_layers", Way::Layers { samples: piece(|samples| layers_shared(shape, samples))? })
        } else if n * m + n <= LANE_PARAMETERS {
            let found = LANE_LADDER.iter().find(|size| size.0 == n && size.1 >= m);
            let &(_, m, kernel) = found.expect("the ladder ends at the most parameters");
            (kernel, Way::Lane { m })
        } else if let Some(&(q, _, kernel)) = WARP_LADDER.iter().find(|size| size.0 >= n.div_ceil(2) && size.1 >= m) {
            (kernel, Way::Warp { q })
        } else {
            ("toy_block", Way::Block { samples: piece(|samples| block_shared(n, m, samples))? })
        };
        (loss_shared(shape) <= MOST_SHARED).then_some(Layout { kernel, shape, way })
    }

    /// Bytes of shared memory that launches of whole pieces ask for, at least.
    pub fn shared(&self) -> usize {
        let of_step = self.launch(1, self.models(), self.stage(1)).shared;
        of_step.max(self.loss_launch(1).shared) as usize
    }

    /// Most models of a block.
    pub fn models(&self) -> usize {
        match self.way {
            Way::Lane { .. } => 128,
            Way::Warp { .. } => 4,
            Way::Block { .. } | Way::Layers { .. } => 1,
        }
    }

    /// How much of x is in shared memory at a time, for batches of `tiles`: no matter of bits but in blocks, whose
    /// pieces follow from the shape.
    pub fn stage(&self, tiles: usize) -> usize {
        match self.way {
            Way::Lane { .. } | Way::Warp { .. } => (STAGE / (4 * TILE * self.shape.n_features)).min(tiles).max(1),
            Way::Block { samples } | Way::Layers { samples } => samples,
        }
    }

    /// A launch of `blocks` blocks of at most `models` models.
    pub fn launch(&self, blocks: usize, models: usize, stage: usize) -> Launch {
        let Shape { n_features: n, d_hidden: m, .. } = self.shape;
        let x = stage * n * TILE;
        let (threads, floats) = match self.way {
            Way::Lane { m: padded } => {
                let threads = models.next_multiple_of(32);
                (threads, x + 7 * (n * padded + n) * threads)
            }
            Way::Warp { q } => (32 * models, x + 32 * q + models * (4 * (n * m + n) + 2 * q)),
            Way::Block { .. } => (256, block_shared(n, m, stage) / 4),
            Way::Layers { .. } => (256, layers_shared(self.shape, stage) / 4),
        };
        Launch { kernel: self.kernel, blocks: blocks as u32, threads: threads as u32, shared: 4 * floats as u32 }
    }

    /// The launch of the loss for `models` models.
    pub fn loss_launch(&self, models: usize) -> Launch {
        let shared = loss_shared(self.shape) as u32;
        let kernel = if matches!(self.way, Way::Layers { .. }) { "toy_layers_loss" } else { "toy_loss" };
        Launch { kernel, blocks: models as u32, threads: LOSS_THREADS, shared }
    }
}

/// Rows of W: features, or the dimensions they are embedded in.
pub fn n_inputs(shape: Shape) -> usize {
    if let ToyKind::Mlp(Mlp { d_embedding, .. }) = shape.kind { d_embedding } else { shape.n_features }
}

/// Floats of a row of a matrix in `kernels/toy_block.cuh`.
pub fn matrix_stride(columns: usize) -> usize {
    4 * (columns.div_ceil(4) | 1)
}

/// Samples of a piece: 32 where they fit everywhere, else 16, if these fit anywhere.
fn piece(shared: impl Fn(usize) -> usize) -> Option<usize> {
    let samples = if shared(32) <= COMMON_SHARED { 32 } else { 16 };
    (shared(samples) <= MOST_SHARED).then_some(samples)
}

/// h of every thread, and u in front of neurons.
fn loss_shared(shape: Shape) -> usize {
    let u = if matches!(shape.kind, ToyKind::Linear | ToyKind::ReluOutput) { 0 } else { n_inputs(shape) };
    4 * (shape.d_hidden + u) * LOSS_THREADS as usize
}

/// `block_memory` in `kernels/toy_block.cu`.
fn block_shared(n: usize, m: usize, samples: usize) -> usize {
    let (n, row_of_w, row) = (n.next_multiple_of(4), matrix_stride(m), samples + 4);
    4 * (2 * n * row_of_w + 3 * n + 2 * (n + m.next_multiple_of(4)) * row)
}

/// `layer_memory` in `kernels/toy_layers.cu`.
fn layers_shared(shape: Shape, samples: usize) -> usize {
    let Shape { kind, n_features, d_hidden } = shape;
    let four = |size: usize| size.next_multiple_of(4);
    let (n, m, inputs, row) = (four(n_features), four(d_hidden), four(n_inputs(shape)), samples + 4);
    let (untied, embedded) = match kind {
        ToyKind::AbsoluteValue => (n, 0),
        ToyKind::Mlp(_) => (n, inputs),
        _ => (0, 0),
    };
    4 * (2 * (inputs + untied) * matrix_stride(d_hidden) + 2 * m + 3 * n + 4 + (2 * n + embedded + 3 * m) * row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy::Activation;

    fn kernel(n_features: usize, d_hidden: usize) -> Option<&'static str> {
        let shape = Shape { kind: ToyKind::ReluOutput, n_features, d_hidden };
        Layout::of(shape).map(|layout| layout.kernel)
    }

    #[test]
    fn every_shape_has_the_kernel_of_its_size() {
        for n in 1..=16 {
            for m in (1..).take_while(|m| n * m + n <= LANE_PARAMETERS) {
                assert!(kernel(n, m).is_some_and(|kernel| kernel.starts_with("toy_lane")), "{n} {m}");
            }
        }
        assert_eq!(kernel(2, 1), Some("toy_lane_2_1"));
        assert_eq!(kernel(1, 3), Some("toy_lane_1_5"));
        assert_eq!(kernel(1, 20), Some("toy_warp_3_20"));
        assert_eq!(kernel(8, 1), Some("toy_warp_5_3"));
        assert_eq!(kernel(20, 5), Some("toy_warp_10_5"));
        assert_eq!(kernel(80, 1), Some("toy_warp_40_1"));
        assert_eq!(kernel(80, 20), Some("toy_block"));
        assert_eq!(kernel(400, 30), Some("toy_block"));
        assert_eq!(kernel(2000, 100), None);
        assert_eq!(kernel(1, 500), None, "the loss keeps h in shared memory");
        let mlp = Mlp { d_embedding: 10, activation: Activation::Relu, bias: 0.0, bias_decay: 0.0, seed: 1 };
        for kind in [ToyKind::ReluHidden, ToyKind::AbsoluteValue, ToyKind::Mlp(mlp), ToyKind::Quadratic] {
            let shape = Shape { kind, n_features: 20, d_hidden: 40 };
            assert_eq!(Layout::of(shape).map(|layout| layout.kernel), Some("toy_layers"));
        }
    }

    /// Ladders are walked from the least cost: a size that another holds comes first.
    #[test]
    fn no_size_of_the_ladder_is_hidden_by_a_larger_one() {
        for (at, size) in WARP_LADDER.iter().enumerate() {
            assert!(WARP_LADDER[..at].iter().all(|other| other.0 < size.0 || other.1 < size.1), "{size:?}");
        }
    }

    #[test]
    fn launches_fit_on_a_device_of_these_years() {
        for (n, m) in [(1, 1), (1, 14), (2, 6), (7, 1), (5, 2), (6, 20), (20, 8), (80, 1), (80, 20), (100, 40)] {
            let shape = Shape { kind: ToyKind::ReluOutput, n_features: n, d_hidden: m };
            let layout = Layout::of(shape).expect("a kernel");
            let launch = layout.launch(1, layout.models(), layout.stage(1000));
            assert!(launch.shared as usize <= COMMON_SHARED && launch.threads <= 256, "{n} {m}: {launch:?}");
        }
        let large = Shape { kind: ToyKind::Linear, n_features: 400, d_hidden: 30 };
        let shared = Layout::of(large).expect("a kernel").shared();
        assert!(shared > 163 << 10 && shared <= MOST_SHARED, "{shared}: too much for an A100, not for an H100");
    }
}
