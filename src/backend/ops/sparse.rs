//! Decoder, loss and gradients along the latents that each sample keeps.
//!
//! ```text
//! Reconstruct, panel by panel:
//!   e      = b_dec - h + Σ z_j w_dec_j           error, over the kept latents j
//!   G      = scale e                             gradient at the reconstruction; scale = 2 / n
//!   back_j = G · w_dec_j                         what comes back to each entry
//! LatentGradients, latent by latent, entries in ascending order of samples:
//!   dW_dec_j = Σ z_j G     dW_enc_j = Σ dpre_j h     db_enc_j = Σ dpre_j
//! SampleSums:
//!   db_dec = Σ G
//! ```
//!
//! What stands between, dpre from back, is a few numbers an entry and the architecture's own business.
//!
//! **Levels** (Matryoshka). Latents belong to levels 0, 1, ...; level l reconstructs with the latents of levels up to l,
//! its error e_l has a gradient scale_l e_l, and an entry of level l hears Σ over levels l' >= l of them, or of its own
//! level alone where inner levels are held constant. Without levels there is one.
//!
//! The auxiliary losses are the same again with other latents and perhaps another error to start from. Two terms are left
//! for [`super::rows`], once a step instead of once a sample: the encoder sees h - b_dec, so -db_enc_j b_dec belongs to
//! dW_enc_j and -Σ db_enc_j w_enc_j to db_dec.
//!
//! Each sum over samples is one chain in ascending order of samples, so it depends neither on the cut into panels nor on
//! that into ranges of latents.

use std::ops::Range;

use super::entries::Entries;
use super::layout::{PANEL, block, in_columns};
use crate::backend::simd::{Kernel, Lanes, Simd};

/// Gradients of all parameters, from sums over samples.
#[derive(Clone, Debug, Default)]
pub struct GradientSums {
    /// `[n_latents][vectors]`
    pub w_enc: Vec<Lanes>,
    /// `[n_latents][vectors]`
    pub w_dec: Vec<Lanes>,
    /// `[n_latents]`
    pub b_enc: Vec<f32>,
    /// `[vectors]`
    pub b_dec: Vec<Lanes>,
    /// Σ over samples of what the penalty's derivative by the decoder's norm is made of, `[n_latents]`: Σ z_j for an L1
    /// penalty.
    pub values: Vec<f32>,
    /// Σ dpre_j over samples and lists, `[n_latents]`: what comes back through the encoder. It is db_enc where every list
    /// reaches the encoder's bias.
    pub through: Vec<f32>,
    /// Σ of two more numbers of each entry, `[n_latents]` each: gradients of what else a latent has.
    pub extra: [Vec<f32>; 2],
}

impl GradientSums {
    /// Zeros.
    pub fn new(n_latents: usize, vectors: usize) -> GradientSums {
        GradientSums {
            w_enc: vec![Lanes::default(); n_latents * vectors],
            w_dec: vec![Lanes::default(); n_latents * vectors],
            b_enc: vec![0.0; n_latents],
            b_dec: vec![Lanes::default(); vectors],
            values: vec![0.0; n_latents],
            through: vec![0.0; n_latents],
            extra: [vec![0.0; n_latents], vec![0.0; n_latents]],
        }
    }

    /// Zeros again.
    pub fn clear(&mut self) {
        let GradientSums { w_enc, w_dec, b_enc, b_dec, values, through, extra: [first, second] } = self;
        for rows in [w_enc, w_dec, b_dec] {
            rows.fill(Lanes::default());
        }
        for numbers in [b_enc, values, through, first, second] {
            numbers.fill(0.0);
        }
    }
}

/// Which latents belong to which level.
#[derive(Clone, Copy)]
pub struct Levels<'a> {
    /// Level of each latent, `[n_latents]`; none: there is one level.
    pub of: Option<&'a [u32]>,
    /// Factor of each level's error in its gradient, `[levels]`.
    pub scale: &'a [f32],
    /// Entries hear their own level alone.
    pub detached: bool,
}

/// One panel: errors, gradients at the reconstructions, and what comes back to each entry.
pub struct Reconstruct<'a> {
    /// `[live][vectors]`: errors start at b_dec - h; none: at what `error` holds.
    pub h: Option<&'a [Lanes]>,
    /// `[n_latents][vectors]`
    pub w_dec: &'a [Lanes],
    /// `[vectors]`
    pub b_dec: &'a [Lanes],
    /// z, what each sample keeps.
    pub kept: &'a Entries,
    /// Levels of the latents.
    pub levels: Levels<'a>,
    /// `[live][vectors]`: the last level's errors in the end.
    pub error: &'a mut [Lanes],
    /// `[levels][PANEL][vectors]`: the errors of every level, where asked for.
    pub errors: Option<&'a mut [Lanes]>,
    /// `[levels][PANEL][vectors]`: what entries of each level hear.
    pub gradient: &'a mut [Lanes],
    /// For each entry G · w_dec, in the places of `kept`.
    pub back: &'a mut [f32],
    /// Σ e² of each level, `[levels]`.
    pub squares: &'a mut [f64],
}

impl Kernel for Reconstruct<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        match self.b_dec.len() {
            1 => self.by_blocks::<S, 1>(),
            2 => self.by_blocks::<S, 2>(),
            3 => self.by_blocks::<S, 3>(),
            _ => self.by_blocks::<S, 4>(),
        }
    }
}

impl Reconstruct<'_> {
    /// Rows are blocks of W vectors, which live in registers.
    #[inline(always)]
    fn by_blocks<S: Simd, const W: usize>(self) {
        let Reconstruct { h, w_dec, b_dec, kept, levels, error, mut errors, gradient, back, squares } = self;
        let width = b_dec.len();
        let count = levels.scale.len();
        assert!(width.is_multiple_of(W) && error.len().is_multiple_of(width));
        assert!(gradient.len() == count * PANEL * width && squares.len() == count && back.len() >= kept.slots());
        let mut sums = vec![Lanes::default(); count];
        for (sample, error) in error.chunks_exact_mut(width).enumerate() {
            if let Some(h) = h {
                for ((error, b), h) in error.iter_mut().zip(b_dec).zip(&h[sample * width..]) {
                    S::store(S::sub(S::load(b), S::load(h)), error);
                }
            }
            let entries = kept.of(sample);
            let row = |level: usize| (level * PANEL + sample) * width;
            for (level, square) in sums.iter_mut().enumerate() {
                let only = levels.of.map(|of| (of, level as u32));
                let gradient = &mut gradient[row(level)..][..width];
                decode::<S, W>(entries, only, w_dec, levels.scale[level], error, gradient, square);
                if let Some(errors) = &mut errors {
                    errors[row(level)..][..width].copy_from_slice(error);
                }
            }
            if !levels.detached {
                for level in (1..count).rev() {
                    let (inner, outer) = gradient.split_at_mut(row(level));
                    for (inner, outer) in inner[row(level - 1)..][..width].iter_mut().zip(&outer[..width]) {
                        S::store(S::add(S::load(inner), S::load(outer)), inner);
                    }
                }
            }
            let places = kept.range(sample);
            for (&latent, back) in entries.0.iter().zip(&mut back[places]) {
                let latent = latent as usize;
                let level = levels.of.map_or(0, |of| of[latent] as usize);
                *back = product::<S, W>(&gradient[row(level)..][..width], &w_dec[latent * width..][..width]);
            }
        }
        for (square, sum) in squares.iter_mut().zip(&sums) {
            *square = S::fold(S::load(sum)) as f64;
        }
    }
}

/// The W vectors that start at `at`.
#[inline(always)]
fn block_at<const W: usize>(lanes: &[Lanes], at: usize) -> &[Lanes; W] {
    lanes[at..][..W].try_into().expect("a slice of W vectors")
}

/// Adds the kept latents' rows (of one level) to `error`, and fills `gradient`; the sum of squares is carried on.
#[inline(always)]
fn decode<S: Simd, const W: usize>(
    (latents, values): (&[u32], &[f32]),
    only: Option<(&[u32], u32)>,
    w_dec: &[Lanes],
    scale: f32,
    error: &mut [Lanes],
    gradient: &mut [Lanes],
    square: &mut Lanes,
) {
    let width = error.len();
    if width > W {
        let rows = latents
            .iter()
            .zip(values)
            .filter(|(latent, _)| only.is_none_or(|(of, level)| of[**latent as usize] == level));
        add_rows::<S>(rows.map(|(latent, z)| (&w_dec[*latent as usize * width..][..width], *z)), error);
        let mut total = S::load(square);
        for (error, gradient) in error.iter().zip(gradient) {
            let error = S::load(error);
            total = S::fma(error, error, total);
            S::store(S::mul(error, S::splat(scale)), gradient);
        }
        S::store(total, square);
        return;
    }
    let mut total = S::load(square);
    for at in (0..width).step_by(W) {
        let mut sum = [S::splat(0.0); W];
        for v in 0..W {
            sum[v] = S::load(&error[at + v]);
        }
        for (&latent, &z) in latents.iter().zip(values) {
            if only.is_some_and(|(of, level)| of[latent as usize] != level) {
                continue;
            }
            let (row, z) = (block_at::<W>(&w_dec[latent as usize * width..][..width], at), S::splat(z));
            for v in 0..W {
                sum[v] = S::fma(z, S::load(&row[v]), sum[v]);
            }
        }
        for v in 0..W {
            total = S::fma(sum[v], sum[v], total);
            S::store(sum[v], &mut error[at + v]);
            S::store(S::mul(sum[v], S::splat(scale)), &mut gradient[at + v]);
        }
    }
    S::store(total, square);
}

/// Adds multiples of long rows to `sum`, in their order, four in a pass: each is read from end to end, and `sum` a quarter as often.
#[inline(always)]
fn add_rows<'a, S: Simd>(mut rows: impl Iterator<Item = (&'a [Lanes], f32)>, sum: &mut [Lanes]) {
    loop {
        match (rows.next(), rows.next(), rows.next(), rows.next()) {
            (Some(a), Some(b), Some(c), Some(d)) => add_multiples::<S, 4>([a, b, c, d], sum),
            (a, b, c, _) => {
                [a, b, c].into_iter().flatten().for_each(|row| add_multiples::<S, 1>([row], sum));
                return;
            }
        }
    }
}

/// Adds multiples of R rows to `sum`, one after the other.
#[inline(always)]
fn add_multiples<S: Simd, const R: usize>(rows: [(&[Lanes], f32); R], sum: &mut [Lanes]) {
    let rows = rows.map(|(row, z)| (&row[..sum.len()], S::splat(z)));
    for (v, sum) in sum.iter_mut().enumerate() {
        let mut total = S::load(sum);
        for (row, z) in &rows {
            total = S::fma(*z, S::load(&row[v]), total);
        }
        S::store(total, sum);
    }
}

/// Σ a b, one chain a lane, then the fold.
#[inline(always)]
fn product<S: Simd, const W: usize>(a: &[Lanes], b: &[Lanes]) -> f32 {
    let mut sum = S::splat(0.0);
    for at in (0..a.len()).step_by(W) {
        let (a, b) = (block_at::<W>(a, at), block_at::<W>(b, at));
        for v in 0..W {
            sum = S::fma(S::load(&a[v]), S::load(&b[v]), sum);
        }
    }
    S::fold(sum)
}

/// Entries of a whole batch, sorted by latent and, within a latent, by sample.
#[derive(Clone, Debug, Default)]
pub struct ByLatent {
    /// `[n_latents + 1]`: entries of latent j stand at `start[j]..start[j + 1]`.
    pub start: Vec<u32>,
    /// Sample within the batch.
    pub sample: Vec<u32>,
    /// Factor of G in the decoder row's gradient.
    pub z: Vec<f32>,
    /// Factor of h in the encoder row's gradient.
    pub dpre: Vec<f32>,
    /// Two more numbers, where the list has them.
    pub extra: [Vec<f32>; 2],
    /// Which entry of its sample it is.
    pub order: Vec<u32>,
}

/// What one panel contributes to [`ByLatent`].
#[derive(Clone, Copy)]
pub struct PanelEntries<'a> {
    /// Latents with their z.
    pub kept: &'a Entries,
    /// In the places of `kept`.
    pub dpre: &'a [f32],
    /// In the places of `kept`, or empty.
    pub extra: [&'a [f32]; 2],
}

impl ByLatent {
    /// Sorts the entries of all panels of a batch, by counting.
    pub fn sort<'a>(&mut self, n_latents: usize, panels: impl Iterator<Item = PanelEntries<'a>> + Clone) {
        self.start.clear();
        self.start.resize(n_latents + 2, 0);
        for panel in panels.clone() {
            for sample in 0..PANEL {
                for &latent in panel.kept.of(sample).0 {
                    self.start[latent as usize + 2] += 1;
                }
            }
        }
        for j in 2..self.start.len() {
            self.start[j] += self.start[j - 1];
        }
        let len = self.start[n_latents + 1] as usize;
        self.sample.resize(len, 0);
        self.z.resize(len, 0.0);
        self.dpre.resize(len, 0.0);
        self.order.resize(len, 0);
        let with_extra = |i: usize| panels.clone().any(|panel| !panel.extra[i].is_empty());
        for (i, extra) in self.extra.iter_mut().enumerate() {
            extra.resize(if with_extra(i) { len } else { 0 }, 0.0);
        }
        for (p, PanelEntries { kept, dpre, extra }) in panels.enumerate() {
            for sample in 0..PANEL {
                let (latents, values) = kept.of(sample);
                let places = kept.range(sample);
                for (order, ((&latent, &z), &dpre)) in latents.iter().zip(values).zip(&dpre[places.clone()]).enumerate()
                {
                    // While entries are placed, `start[j + 1]` is where the next one of latent j goes.
                    let next = &mut self.start[latent as usize + 1];
                    let at = *next as usize;
                    *next += 1;
                    (self.sample[at], self.z[at], self.dpre[at]) = ((p * PANEL + sample) as u32, z, dpre);
                    self.order[at] = order as u32;
                    for (to, extra) in self.extra.iter_mut().zip(extra).filter(|(to, _)| !to.is_empty()) {
                        to[at] = extra[places.start + order];
                    }
                }
            }
        }
        self.start.pop();
    }

    /// Places of the entries of a latent.
    #[inline(always)]
    pub fn of(&self, latent: usize) -> Range<usize> {
        self.start[latent] as usize..self.start[latent + 1] as usize
    }
}

/// Sorted entries and what they hear.
#[derive(Clone, Copy)]
pub struct Heard<'a> {
    /// The entries.
    pub sorted: &'a ByLatent,
    /// `[panels][levels]` of column blocks: what [`Reconstruct`] wrote panel by panel.
    pub gradient: &'a [Lanes],
    /// How many levels `gradient` has.
    pub levels: usize,
    /// Level of each latent; none: 0.
    pub level_of: Option<&'a [u32]>,
    /// Whether Σ z is taken.
    pub paid: bool,
    /// Whether dpre reaches the encoder's bias.
    pub bias: bool,
    /// Whether z G reaches the decoder's row.
    pub decoder: bool,
}

/// Gradients of a range of latents.
pub struct LatentGradients<'a> {
    /// Lists of entries, added up in this order.
    pub lists: &'a [Heard<'a>],
    /// `[panels]` of column blocks.
    pub h: &'a [Lanes],
    /// Which latents.
    pub latents: Range<usize>,
    /// `[latents of the range][vectors]`
    pub w_enc: &'a mut [Lanes],
    /// `[latents of the range][vectors]`
    pub w_dec: &'a mut [Lanes],
    /// `[latents of the range]`
    pub b_enc: &'a mut [f32],
    /// `[latents of the range]`
    pub values: &'a mut [f32],
    /// `[latents of the range]`
    pub through: &'a mut [f32],
    /// `[latents of the range]` each
    pub extra: [&'a mut [f32]; 2],
}

impl Kernel for LatentGradients<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        match block(self.w_enc.len() / self.latents.len().max(1)) {
            0 => {}
            1 => self.by_columns::<S, 1>(),
            2 => self.by_columns::<S, 2>(),
            3 => self.by_columns::<S, 3>(),
            _ => self.by_columns::<S, 4>(),
        }
    }
}

impl LatentGradients<'_> {
    /// Columns are blocks of W vectors: the range's latents hear one block of all samples, which stays in the cache, and then the next.
    #[inline(always)]
    fn by_columns<S: Simd, const W: usize>(mut self) {
        let width = self.w_enc.len() / self.latents.len();
        for at in 0..width / W {
            for latent in self.latents.clone() {
                let row = (latent - self.latents.start) * width + at * W;
                let (mut enc, mut dec) = ([S::splat(0.0); W], [S::splat(0.0); W]);
                for list in self.lists {
                    hear::<S, W>(list, latent, self.h, (at, width), &mut enc, &mut dec);
                }
                for v in 0..W {
                    S::store(enc[v], &mut self.w_enc[row + v]);
                    S::store(dec[v], &mut self.w_dec[row + v]);
                }
            }
        }
        self.numbers();
    }

    /// What is one number a latent.
    #[inline(always)]
    fn numbers(&mut self) {
        for (at, latent) in self.latents.clone().enumerate() {
            let (mut bias, mut value, mut back, mut more) = (0.0, 0.0, 0.0, [0.0; 2]);
            for list in self.lists {
                for entry in list.sorted.of(latent) {
                    let dpre = list.sorted.dpre[entry];
                    back += dpre;
                    if list.bias {
                        bias += dpre;
                    }
                    for (sum, extra) in more.iter_mut().zip(&list.sorted.extra) {
                        *sum += extra.get(entry).copied().unwrap_or(0.0);
                    }
                    if list.paid {
                        value += list.sorted.z[entry];
                    }
                }
            }
            (self.b_enc[at], self.values[at], self.through[at]) = (bias, value, back);
            (self.extra[0][at], self.extra[1][at]) = (more[0], more[1]);
        }
    }
}

/// Adds to the column block `at` of a latent's rows what one list has for it.
#[inline(always)]
fn hear<S: Simd, const W: usize>(
    list: &Heard,
    latent: usize,
    h: &[Lanes],
    (at, width): (usize, usize),
    enc: &mut [S::F; W],
    dec: &mut [S::F; W],
) {
    let level = list.level_of.map_or(0, |of| of[latent] as usize);
    let (mut d_enc, mut d_dec) = (*enc, *dec);
    for entry in list.sorted.of(latent) {
        let sample = list.sorted.sample[entry] as usize;
        let (panel, place) = (sample / PANEL, in_columns(sample % PANEL, at, width));
        let g = block_at::<W>(list.gradient, (panel * list.levels + level) * PANEL * width + place);
        let h = block_at::<W>(h, panel * PANEL * width + place);
        let dpre = S::splat(list.sorted.dpre[entry]);
        let z = S::splat(if list.decoder { list.sorted.z[entry] } else { 0.0 });
        for v in 0..W {
            d_dec[v] = S::fma(z, S::load(&g[v]), d_dec[v]);
            d_enc[v] = S::fma(dpre, S::load(&h[v]), d_enc[v]);
        }
    }
    (*enc, *dec) = (d_enc, d_dec);
}

/// Adds G of the first level over samples to `sum`, `[vectors]`, in ascending order of samples.
pub struct SampleSums<'a> {
    /// `[panels][levels]` of column blocks.
    pub gradient: &'a [Lanes],
    /// How many levels there are.
    pub levels: usize,
    /// Samples of the batch.
    pub samples: usize,
    /// `[vectors]`
    pub sum: &'a mut [Lanes],
}

impl Kernel for SampleSums<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let SampleSums { gradient, levels, samples, sum } = self;
        let width = sum.len();
        for sample in 0..samples {
            let panel = &gradient[sample / PANEL * levels * PANEL * width..];
            for (at, sum) in sum.chunks_exact_mut(block(width)).enumerate() {
                for (sum, g) in sum.iter_mut().zip(&panel[in_columns(sample % PANEL, at, width)..]) {
                    S::store(S::add(S::load(sum), S::load(g)), sum);
                }
            }
        }
    }
}
