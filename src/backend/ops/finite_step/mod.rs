//! Loss and gradient of a toy model on samples of a finite set that is seen again and again.
//!
//! ```text
//! for each sample:   h = Σ_i x_i W_i  over what fires          z = Wᵀ h + b        r = out(z) - x
//!                    g = c r out'(z)                           dh = Σ_i g_i W_i
//!                    dW_i += g_i h,  db += g,  loss += c r² / 2;   dW_i += x_i dh  over what fires
//! ```
//!
//! The equations of [`toy_step`](super::toy_step), for x that stays: its entries are sorted by feature once (a
//! [`Layout`]), so that x is sparse in memory and in the two products it enters, and only the products with all outputs
//! are dense: 3 n m fused multiply-adds a sample. Features are the outer loop: W_i, b_i and their gradients stay in
//! registers while the tiles of a block pass, whose h and dh stay in the nearest cache.
//!
//! Sums have one shape for every number of threads: sixteen lanes over the tiles of a block of [`ROWS`] samples, folded;
//! blocks in order within a strand; strands in order. There are at most [`STRANDS`] strands, and which block belongs to
//! which follows from the number of blocks alone.

#![allow(
    clippy::needless_range_loop,
    reason = "an index names a dimension of h, dh and W at once; an iterator over one of them hides which"
)]

use rayon::prelude::*;

use super::toy_step::Shape;
use crate::backend::simd::{Isa, Kernel, Lanes, Simd, run};
use crate::data::Dataset;
use crate::toy::ToyKind;

/// Samples of a block.
pub const ROWS: usize = 256;
const TILES: usize = ROWS / 16;

/// Row blocks are summed in at most so many groups, each by one thread.
pub const STRANDS: usize = 16;

/// Samples of a finite set, what is not zero sorted by feature within each block of [`ROWS`].
#[derive(Clone, Debug, Default)]
pub struct Layout {
    n_features: usize,
    samples: usize,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Samples of the block.
    samples: usize,
    /// Where the entries of each feature begin, and where the last ones end, `[n_features + 1]`.
    starts: Vec<u32>,
    /// Sample within the block, of each entry.
    rows: Vec<u8>,
    values: Vec<f32>,
}

impl Layout {
    /// Lays out these samples of a set, in the order given; memory is used again.
    pub fn fill(&mut self, set: &Dataset, samples: &[u32]) {
        self.n_features = set.n_features();
        self.samples = samples.len();
        self.blocks.resize(samples.len().div_ceil(ROWS), Block::default());
        for (block, samples) in self.blocks.iter_mut().zip(samples.chunks(ROWS)) {
            block.fill(set, samples);
        }
    }

    fn strands(&self) -> usize {
        self.blocks.len().min(STRANDS)
    }

    fn strand(&self, strand: usize) -> &[Block] {
        let first = |s: usize| s * self.blocks.len() / self.strands();
        &self.blocks[first(strand)..first(strand + 1)]
    }
}

impl Block {
    fn fill(&mut self, set: &Dataset, samples: &[u32]) {
        let n = set.n_features();
        self.samples = samples.len();
        self.starts.clear();
        self.starts.resize(n + 1, 0);
        for &sample in samples {
            set.sample(sample as usize).for_each(|(feature, _)| self.starts[feature + 1] += 1);
        }
        for i in 0..n {
            self.starts[i + 1] += self.starts[i];
        }
        let entries = self.starts[n] as usize;
        self.rows.resize(entries, 0);
        self.values.resize(entries, 0.0);
        let mut next = self.starts.clone();
        for (row, &sample) in samples.iter().enumerate() {
            for (feature, value) in set.sample(sample as usize) {
                let at = &mut next[feature];
                self.rows[*at as usize] = row as u8;
                self.values[*at as usize] = value;
                *at += 1;
            }
        }
    }

    /// Rows and values of one feature.
    #[inline(always)]
    fn entries(&self, feature: usize) -> (&[u8], &[f32]) {
        let range = self.starts[feature] as usize..self.starts[feature + 1] as usize;
        (&self.rows[range.clone()], &self.values[range])
    }
}

/// Whether [`gradient`] computes models of this kind.
pub fn covers(kind: ToyKind) -> bool {
    matches!(kind, ToyKind::Linear | ToyKind::ReluOutput)
}

/// One gradient, to be computed by [`gradient`].
pub struct FiniteStep<'a> {
    /// The model's shape, of a kind that is [covered](covers).
    pub shape: Shape,
    /// W and b, `[n_parameters]`.
    pub parameters: &'a [f32],
    /// c_i, `[n_features]`.
    pub slopes: &'a [f32],
    /// x.
    pub layout: &'a Layout,
    /// Whether the loss is wanted; the gradient has the same bits without.
    pub with_loss: bool,
    /// Whether strands are given to several threads.
    pub parallel: bool,
}

/// Working memory of [`gradient`], used again from step to step.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    strands: Vec<Strand>,
}

#[derive(Clone, Debug, Default)]
struct Strand {
    /// h and dh of a block, `[d_hidden, TILES]` each.
    h: Vec<Lanes>,
    dh: Vec<Lanes>,
    gradient: Vec<f32>,
    loss: f64,
}

/// The gradient of the mean loss over all samples of the layout, into `gradient`, and the loss if it is wanted.
///
/// # Panics
/// If lengths do not fit the shape, the layout is empty, or the kind is not [covered](covers).
pub fn gradient(isa: Isa, step: &FiniteStep, scratch: &mut Scratch, gradient: &mut [f32]) -> Option<f64> {
    let Shape { kind, n_features, d_hidden } = step.shape;
    assert!(covers(kind) && step.layout.samples > 0 && step.layout.n_features == n_features);
    assert!(step.parameters.len() == step.shape.n_parameters() && step.slopes.len() == n_features);
    let strands = step.layout.strands();
    scratch.strands.resize(strands, Strand::default());
    for strand in &mut scratch.strands {
        strand.h.resize(d_hidden * TILES, Lanes::default());
        strand.dh.resize(d_hidden * TILES, Lanes::default());
        strand.gradient.clear();
        strand.gradient.resize(step.parameters.len(), 0.0);
        strand.loss = 0.0;
    }
    let work = |(number, strand): (usize, &mut Strand)| {
        for block in step.layout.strand(number) {
            run(isa, OfBlock { step, block, strand });
        }
    };
    if step.parallel && strands > 1 {
        scratch.strands.par_iter_mut().enumerate().for_each(work);
    } else {
        scratch.strands.iter_mut().enumerate().for_each(work);
    }
    gradient.copy_from_slice(&scratch.strands[0].gradient);
    for strand in &scratch.strands[1..] {
        gradient.iter_mut().zip(&strand.gradient).for_each(|(sum, g)| *sum += g);
    }
    step.with_loss.then(|| scratch.strands.iter().map(|strand| strand.loss).sum())
}

/// Adds what a block says to the gradient and loss of its strand.
struct OfBlock<'a, 'b> {
    step: &'a FiniteStep<'b>,
    block: &'a Block,
    strand: &'a mut Strand,
}

impl Kernel for OfBlock<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        match self.step.shape.d_hidden {
            1 => self.pass::<S, 1>(),
            2 => self.pass::<S, 2>(),
            3 => self.pass::<S, 3>(),
            4 => self.pass::<S, 4>(),
            _ => self.pass::<S, 0>(),
        }
    }
}

/// x of one feature in a block, `[ROWS]`. Four take turns, so that an entry is in its cache line well before the line is
/// read whole.
type Row = [Lanes; TILES];

impl OfBlock<'_, '_> {
    /// `M` is d_hidden, or 0 where it is known at run time only.
    #[inline(always)]
    fn pass<S: Simd, const M: usize>(self) {
        let OfBlock { step, block, strand } = self;
        let (n, m) = (step.shape.n_features, step.shape.d_hidden);
        let (w, b) = step.parameters.split_at(n * m);
        let (dw, db) = strand.gradient.split_at_mut(n * m);
        let (h, dh) = (&mut strand.h[..m * TILES], &mut strand.dh[..m * TILES]);
        let tiles = block.samples.div_ceil(16);
        h.fill(Lanes::default());
        dh.fill(Lanes::default());
        for i in 0..n {
            let (rows, values) = block.entries(i);
            for (&row, &x) in rows.iter().zip(values) {
                for k in 0..m {
                    let to = &mut h[k * TILES + row as usize / 16].0[row as usize % 16];
                    *to = x.mul_add(w[i * m + k], *to);
                }
            }
        }
        // Positive in the lanes of samples that are there.
        let mut last = Lanes::default();
        last.0[..block.samples - 16 * (tiles - 1)].fill(1.0);
        let output = Output { relu: step.shape.kind == ToyKind::ReluOutput, with_loss: step.with_loss, tiles, last };
        let mut x: [Row; 4] = [[Lanes::default(); TILES]; 4];
        let mut g: Row = [Lanes::default(); TILES];
        for i in 0..n {
            let (rows, values) = block.entries(i);
            let x = &mut x[i % 4];
            for (&row, &value) in rows.iter().zip(values) {
                x[row as usize / 16].0[row as usize % 16] = value;
            }
            let (w, dw) = (&w[i * m..][..m], &mut dw[i * m..][..m]);
            let [bias, loss] = if M > 0 {
                output.small::<S, M>([b[i], step.slopes[i]], w, x, h, dh, dw)
            } else {
                output.any::<S>([b[i], step.slopes[i]], w, x, h, dh, dw, &mut g)
            };
            db[i] += bias;
            strand.loss += 0.5 * loss as f64;
            for &row in rows {
                x[row as usize / 16].0[row as usize % 16] = 0.0;
            }
        }
        for i in 0..n {
            let (rows, values) = block.entries(i);
            for (&row, &x) in rows.iter().zip(values) {
                for k in 0..m {
                    let to = &mut dw[i * m + k];
                    *to = x.mul_add(dh[k * TILES + row as usize / 16].0[row as usize % 16], *to);
                }
            }
        }
    }
}

/// What all features of a block share.
struct Output {
    relu: bool,
    with_loss: bool,
    /// Tiles in use.
    tiles: usize,
    /// Positive in the lanes of the last tile that hold samples.
    last: Lanes,
}

impl Output {
    /// g of one tile, given z and x; adds c r² to `loss`.
    #[inline(always)]
    fn slope<S: Simd>(&self, tile: usize, z: S::F, c: S::F, x: &Lanes, loss: &mut S::F) -> S::F {
        let x = S::load(x);
        let out = if self.relu { S::where_positive(z, z) } else { z };
        let mut r = S::sub(out, x);
        if tile + 1 == self.tiles {
            r = S::where_positive(S::load(&self.last), r);
        }
        let g = S::mul(c, r);
        if self.with_loss {
            *loss = S::fma(g, r, *loss);
        }
        if self.relu { S::where_positive(z, g) } else { g }
    }

    /// One feature with its M weights in registers: dW_i and dh are added to, [Σ g, Σ c r²] is returned.
    #[inline(always)]
    fn small<S: Simd, const M: usize>(
        &self,
        [b, c]: [f32; 2],
        w: &[f32],
        x: &Row,
        h: &[Lanes],
        dh: &mut [Lanes],
        dw: &mut [f32],
    ) -> [f32; 2] {
        let (b, c) = (S::splat(b), S::splat(c));
        let w: [S::F; M] = std::array::from_fn(
            #[inline(always)]
            |k| S::splat(w[k]),
        );
        let zero = S::splat(0.0);
        let (mut sums, mut bias, mut loss) = ([zero; M], zero, zero);
        for t in 0..self.tiles {
            let mut z = b;
            for k in 0..M {
                z = S::fma(w[k], S::load(&h[k * TILES + t]), z);
            }
            let g = self.slope::<S>(t, z, c, &x[t], &mut loss);
            bias = S::add(bias, g);
            for k in 0..M {
                sums[k] = S::fma(g, S::load(&h[k * TILES + t]), sums[k]);
                let to = &mut dh[k * TILES + t];
                S::store(S::fma(g, w[k], S::load(to)), to);
            }
        }
        for k in 0..M {
            dw[k] += S::fold(sums[k]);
        }
        [S::fold(bias), if self.with_loss { S::fold(loss) } else { 0.0 }]
    }

    /// The same for any width, `g` of all tiles held in between.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the operands of one equation")]
    fn any<S: Simd>(
        &self,
        [b, c]: [f32; 2],
        w: &[f32],
        x: &Row,
        h: &[Lanes],
        dh: &mut [Lanes],
        dw: &mut [f32],
        g: &mut Row,
    ) -> [f32; 2] {
        let (b, c, zero) = (S::splat(b), S::splat(c), S::splat(0.0));
        let (mut bias, mut loss) = (zero, zero);
        for t in 0..self.tiles {
            let mut z = b;
            for (k, w) in w.iter().enumerate() {
                z = S::fma(S::splat(*w), S::load(&h[k * TILES + t]), z);
            }
            let slope = self.slope::<S>(t, z, c, &x[t], &mut loss);
            bias = S::add(bias, slope);
            S::store(slope, &mut g[t]);
        }
        for (k, (w, dw)) in w.iter().zip(dw).enumerate() {
            let (w, mut sum) = (S::splat(*w), zero);
            for t in 0..self.tiles {
                let g = S::load(&g[t]);
                sum = S::fma(g, S::load(&h[k * TILES + t]), sum);
                let to = &mut dh[k * TILES + t];
                S::store(S::fma(g, w, S::load(to)), to);
            }
            *dw += S::fold(sum);
        }
        [S::fold(bias), if self.with_loss { S::fold(loss) } else { 0.0 }]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::ops::toy_step::Form;
    use crate::backend::ops::toy_step::reference::{ReferenceStep, error_bound};
    use crate::data::{Batch, Finite, Magnitude, MagnitudeSharing, World};
    use crate::random::{Draws, Stream};

    struct Case {
        shape: Shape,
        parameters: Vec<f32>,
        slopes: Vec<f32>,
        set: Dataset,
        rows: Vec<u32>,
    }

    fn case(kind: ToyKind, (n_features, d_hidden): (usize, usize), p: f64, samples: usize) -> Case {
        let world = World {
            n_features,
            firing_probability: vec![p; n_features],
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: Some(Finite { samples: 2000, normalise: samples.is_multiple_of(2) }),
            correlation: None,
            hierarchy: None,
        };
        let shape = Shape { kind, n_features, d_hidden };
        let mut draws = Draws::new(12, Stream::ToyInit, (n_features * 1000 + d_hidden) as u64);
        let spread = (2.0 / (n_features + d_hidden) as f64).sqrt();
        let parameters = (0..shape.n_parameters()).map(|_| (spread * draws.normal()) as f32).collect();
        let slopes = (0..n_features).map(|i| 0.9f32.powi(i as i32) * 2.0 / (samples * n_features) as f32).collect();
        let set = Dataset::draw(&Arc::new(world), 4).unwrap();
        // Any samples, some twice.
        let rows = (0..samples).map(|_| draws.below(2000)).collect();
        Case { shape, parameters, slopes, set, rows }
    }

    fn found(isa: Isa, case: &Case, with_loss: bool, parallel: bool) -> (Vec<f32>, Option<f64>) {
        let Case { shape, parameters, slopes, set, rows } = case;
        let mut layout = Layout::default();
        layout.fill(set, rows);
        let mut to = vec![f32::NAN; shape.n_parameters()];
        let step = FiniteStep { shape: *shape, parameters, slopes, layout: &layout, with_loss, parallel };
        let loss = gradient(isa, &step, &mut Scratch::default(), &mut to);
        (to, loss)
    }

    const SHAPES: [(usize, usize); 8] = [(1, 1), (2, 1), (5, 2), (7, 3), (9, 4), (17, 5), (33, 17), (200, 2)];
    const SAMPLES: [usize; 8] = [1, 15, 16, 17, 255, 256, 257, 1500];
    const KINDS: [ToyKind; 2] = [ToyKind::Linear, ToyKind::ReluOutput];

    /// The bound is that of the dense kernels, whose chains of roundings are 2 n + m + 2 tiles + 11 long. Here an entry of x
    /// adds one more rounding to its row of W, so the chain is longer by the number of samples at most, and blocks add
    /// theirs: the bound grows in proportion.
    #[test]
    fn gradients_stay_within_the_rounding_bound_of_plain_loops() {
        for kind in KINDS {
            for (shape, p) in SHAPES.into_iter().zip([1.0, 0.5, 0.3, 0.05, 0.2, 0.1, 0.3, 0.01]) {
                for samples in SAMPLES {
                    let case = case(kind, shape, p, samples);
                    let mut batch = Batch::default();
                    case.set.gather(case.rows.iter().map(|row| *row as usize), &mut batch);
                    let wide = |v: &[f32]| v.iter().map(|&v| v as f64).collect::<Vec<_>>();
                    let (parameters, slopes) = (wide(&case.parameters), wide(&case.slopes));
                    let step =
                        ReferenceStep { shape: case.shape, parameters: &parameters, slopes: &slopes, batch: &batch };
                    let (expected, expected_loss) = step.gradient();
                    let (bound, loss_bound) = error_bound(&step, Form::Dense);
                    let chain = (2 * shape.0 + shape.1 + 2 * samples.div_ceil(16) + 13) as f64;
                    let longer = 1.01 * (chain + samples as f64 + 2.0 * samples.div_ceil(ROWS) as f64) / chain;
                    let (gradient, loss) = found(Isa::best(), &case, true, false);
                    for (i, g) in gradient.iter().enumerate() {
                        let off = (*g as f64 - expected[i]).abs();
                        assert!(off <= longer * bound[i], "{kind:?} {shape:?} {samples} {i}: {off} > {}", bound[i]);
                    }
                    // Lanes of c r² run over the tiles of a block in f32.
                    let off = (loss.unwrap() - expected_loss).abs();
                    let loss_bound = loss_bound * (1.0 + 32.0 / (2 * shape.0 + 8) as f64);
                    assert!(off <= loss_bound, "{kind:?} {shape:?} {samples}: loss {off} > {loss_bound}");
                }
            }
        }
    }

    #[test]
    fn instruction_sets_threads_and_the_loss_change_no_bit() {
        for kind in KINDS {
            for (shape, samples) in [((5, 2), 17), ((33, 17), 300), ((40, 3), 5000), ((7, 4), 256 * 20 + 3)] {
                let case = case(kind, shape, 0.1, samples);
                let first = found(Isa::Portable, &case, true, false);
                for isa in Isa::available() {
                    assert_eq!(found(isa, &case, true, false), first, "{isa:?} {kind:?} {shape:?}");
                    assert_eq!(found(isa, &case, false, false), (first.0.clone(), None), "{isa:?} {kind:?} {shape:?}");
                }
                for threads in [1, 2, 5] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    assert_eq!(pool.install(|| found(Isa::best(), &case, true, true)), first, "{threads} threads");
                }
            }
        }
    }

    #[test]
    fn the_widths_in_registers_and_the_general_one_agree_within_rounding() {
        // A fifth dimension of zeros changes no sum, but takes the general way.
        let narrow = case(ToyKind::ReluOutput, (30, 4), 0.2, 700);
        let (w, b) = narrow.parameters.split_at(120);
        let mut parameters: Vec<f32> = w.chunks(4).flat_map(|row| [row, &[0.0]].concat()).collect();
        parameters.extend_from_slice(b);
        let wide = Case {
            shape: Shape { d_hidden: 5, ..narrow.shape },
            parameters,
            slopes: narrow.slopes.clone(),
            set: narrow.set.clone(),
            rows: narrow.rows.clone(),
        };
        let (a, b) = (found(Isa::best(), &narrow, true, false), found(Isa::best(), &wide, true, false));
        assert_eq!(a.1, b.1);
        for (row, wide) in a.0[..120].chunks(4).zip(b.0[..150].chunks(5)) {
            assert_eq!((row, wide[4]), (&wide[..4], 0.0));
        }
        assert_eq!(a.0[120..], b.0[150..]);
    }
}
