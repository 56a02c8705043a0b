//! What the phases of a step hand each other: entries of panels, and what this step is about.

use std::time::Instant;

use super::blocks::pieces;
use crate::backend::ops::batch_top;
use crate::backend::ops::entries::Entries;
use crate::backend::ops::layout::TILES;
use crate::backend::ops::screen::ScreenScratch;
use crate::backend::ops::select::TopScratch;
use crate::backend::ops::sparse::{ByLatent, Heard, PanelEntries};
use crate::backend::simd::Lanes;
use crate::sae::matryoshka::StepLevels;
use crate::sae::{Penalty, batch_topk};

/// Settings of one step, the same for all its panels.
#[derive(Default)]
pub struct Aim {
    /// Samples of the batch.
    pub samples: usize,
    /// k of a selection.
    pub k: f64,
    /// The penalty, its coefficient as it is at this step.
    pub penalty: Option<Penalty>,
    /// Levels and their weights.
    pub levels: StepLevels,
    /// Each level's 2 weight / samples.
    pub scales: Vec<f32>,
    /// Derivative of an L1 penalty by z_j of one sample, `[n_latents]`; empty: no such penalty.
    pub price: Vec<f32>,
    /// θ - ε/2 of each latent, where latents have thresholds.
    pub window: Vec<f32>,
    /// Dead latents with the auxiliary loss: one list, or one for each level.
    pub dead: Vec<Vec<u32>>,
    /// Of each list of dead latents: min(n_dead / aux_k, 1).
    pub dead_weights: Vec<f64>,
    /// Dead latents that are pulled up to their thresholds.
    pub silent: Vec<u32>,
}

impl Aim {
    /// Level of each latent; none where there is one level.
    pub fn level_of(&self) -> Option<&[u32]> {
        (!self.levels.of.is_empty()).then_some(&self.levels.of)
    }
}

/// Memory of phase A, one for each thread that works on panels.
#[derive(Default)]
pub struct Work {
    /// `[n_latents][TILES]`
    pub pre: Vec<Lanes>,
    pub top: TopScratch,
    /// Of the screen.
    pub screen: ScreenScratch,
    /// A row of pre for matching pursuit.
    pub row: Vec<Lanes>,
    /// `[levels][PANEL][vectors]`: what entries hear, before it goes into column blocks.
    pub heard: Vec<Lanes>,
}

impl Work {
    /// pre for this many latents.
    pub fn pre(&mut self, n_latents: usize) -> &mut [Lanes] {
        self.pre.resize(n_latents * TILES, Lanes::default());
        &mut self.pre
    }
}

/// Encoder rows of some latents side by side, with their offsets and norms.
#[derive(Default)]
pub struct DeadRows {
    /// `[latents][vectors]`
    pub w_enc: Vec<Lanes>,
    pub offset: Vec<f32>,
    pub norm: Vec<f32>,
}

impl DeadRows {
    /// No rows.
    pub fn clear(&mut self) {
        self.w_enc.clear();
        self.offset.clear();
        self.norm.clear();
    }
}

/// Seconds of the phases of a step; the dense way counts as [`Times::encode`] whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// A and B: product and selection.
    pub encode: f64,
    /// C: reconstruction and the way back.
    pub back: f64,
    /// D: entries by latent.
    pub sort: f64,
    /// E: gradients.
    pub gradients: f64,
    /// F: penalties, projection, norm.
    pub finish: f64,
    /// G: optimiser, norms and offsets.
    pub update: f64,
}

/// Seconds since the last lap.
pub struct Clock(Instant);

impl Clock {
    /// From now on.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Seconds since the last call, or the start.
    pub fn lap(&mut self) -> f64 {
        let last = std::mem::replace(&mut self.0, Instant::now());
        (self.0 - last).as_secs_f64()
    }
}

/// What phases A to C make of a panel.
#[derive(Default)]
pub struct Panel {
    /// What reconstructs h.
    pub main: List,
    /// π of a gated autoencoder, which reconstructs h a second time.
    pub gate: List,
    /// Dead latents, one list or one for each level.
    pub dead: Vec<List>,
    /// Dead latents that are pulled up to their thresholds.
    pub silent: List,
    /// `[PANEL][vectors]`: errors of the reconstruction.
    pub error: Vec<Lanes>,
    /// `[levels][PANEL][vectors]`, where dead latents of each level need them.
    pub errors: Vec<Lanes>,
    /// Σ over samples of what the penalty counts, where it is counted panel by panel.
    pub penalty: f64,
}

/// Entries of a panel and what comes back to them.
#[derive(Default)]
pub struct List {
    pub kept: Entries,
    /// In the places of `kept`: first G · w_dec, then what the loss changes by with pre.
    pub dpre: Vec<f32>,
    /// In the places of `kept`, or empty: see [`ByLatent`].
    pub extra: [Vec<f32>; 2],
    /// Squared errors of each level.
    pub squares: Vec<f64>,
}

impl List {
    /// As phase D takes them.
    pub fn entries(&self) -> PanelEntries<'_> {
        PanelEntries { kept: &self.kept, dpre: &self.dpre, extra: self.extra.each_ref().map(Vec::as_slice) }
    }

    /// Room for `extra` in the places of `kept`.
    pub fn with_extra(&mut self) {
        let slots = self.kept.slots();
        self.extra.iter_mut().for_each(|extra| extra.resize(slots, 0.0));
    }

    /// Walks over the entries of the first `live` samples: sample, place, latent, value.
    pub fn each(kept: &Entries, live: usize, mut visit: impl FnMut(usize, usize, usize, f32)) {
        for sample in 0..live {
            let (latents, values) = kept.of(sample);
            for ((place, &latent), &value) in kept.range(sample).zip(latents).zip(values) {
                visit(sample, place, latent as usize, value);
            }
        }
    }
}

/// What entries of a batch hear, and the entries by latent.
#[derive(Default)]
pub struct Sorted {
    pub by_latent: ByLatent,
    /// `[panels][levels]` of column blocks.
    pub heard: Vec<Lanes>,
    /// How many levels it has.
    pub levels: usize,
}

impl Sorted {
    /// Memory for this many panels of `row` vectors a level.
    pub fn make_room(&mut self, panels: usize, levels: usize, row: usize) {
        self.levels = levels;
        self.heard.resize(panels * levels * row, Lanes::default());
    }

    /// Memory of one panel after another, then empty pieces without end.
    pub fn by_panel(&mut self, row: usize) -> impl Iterator<Item = &mut [Lanes]> {
        pieces(&mut self.heard, self.levels * row)
    }

    /// As phase E takes it.
    pub fn as_heard<'a>(&'a self, level_of: Option<&'a [u32]>) -> Heard<'a> {
        let Sorted { by_latent, heard, levels } = self;
        Heard { sorted: by_latent, gradient: heard, levels: *levels, level_of, paid: false, bias: true, decoder: true }
    }
}

/// Phase B: of what the panels of a batch collected above `bar`, the ⌊k n⌋ greatest stay. False, and nothing is changed,
/// where the bar was too high to tell. The least key that is kept goes to `least`.
pub fn choose(
    panels: &mut [Panel],
    norm: &[f32],
    aim: &Aim,
    bar: f32,
    keys: &mut Vec<u32>,
    least: &mut Option<f32>,
) -> bool {
    let count = batch_topk::count(aim.k, aim.samples);
    let collected: usize = panels.iter().map(|panel| panel.main.kept.len()).sum();
    if bar > 0.0 && collected < count {
        return false;
    }
    let kept = panels.iter_mut().map(|panel| &mut panel.main.kept);
    *least = batch_top::keep_greatest(kept, norm, count, keys);
    true
}
