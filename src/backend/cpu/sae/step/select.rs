//! Phase A: what the samples of a panel keep.

use super::{Scratch, Trainee};
use crate::backend::cpu::sae::lists::{Aim, DeadRows, List, Panel, Work};
use crate::backend::ops::layout::{PANEL, PackedBatch, TILES, flat, vectors};
use crate::backend::ops::product::Product;
use crate::backend::ops::pursuit::{Gram, Pursue};
use crate::backend::ops::screen::{ScreenBatch, ScreenProduct, ScreenWeights, SelectScreened, Wanted};
use crate::backend::ops::select::{SelectAbove, SelectOver, SelectPositive, SelectTop};
use crate::backend::simd;
use crate::backend::simd::Lanes;
use crate::sae::Rule;

impl Trainee {
    /// Phase A: what panel `p` keeps of all latents. BatchTopK collects what exceeds `bar`.
    #[allow(clippy::too_many_arguments)] // reason: the parts of the scratch memory that a panel reads and writes
    pub(super) fn select(
        &self,
        batch: &PackedBatch,
        p: usize,
        bar: f32,
        aim: &Aim,
        gram: &Gram,
        work: &mut Work,
        panel: &mut Panel,
    ) {
        let (isa, live, norm) = (self.isa, batch.live(p), &self.norm[..]);
        work.pre(self.state.n_latents);
        let Work { pre, top, row, .. } = work;
        self.encode(batch, p, pre);
        let kept = &mut panel.main.kept;
        match self.program.rule {
            Rule::Positive => simd::run(isa, SelectPositive { pre, live, kept }),
            Rule::Top(_) => {
                let k = aim.k as usize;
                simd::run(isa, SelectTop { pre, norm, among: None, k, relu: true, live, scratch: top, kept });
            }
            Rule::BatchTop { .. } => simd::run(isa, SelectAbove { pre, norm, bar, live, kept }),
            Rule::Jump { .. } => {
                simd::run(isa, SelectOver { pre, bar: &aim.window, live, kept });
                self.jump(live, panel);
                self.list_silent(pre, live, aim, panel);
            }
            Rule::Gated { .. } => {
                simd::run(isa, SelectPositive { pre, live, kept: &mut panel.gate.kept });
                self.open_gates(live, panel);
            }
            Rule::Pursuit(pursuit) => {
                let width = vectors(self.state.d);
                let h = &batch.rows[p * PANEL * width..][..live * width];
                let (w_dec, b_dec) = (&self.state.w_dec[..], &self.state.b_dec[..]);
                simd::run(isa, Pursue { pursuit, pre, gram, h, w_dec, b_dec, live, row, kept });
            }
        }
    }

    /// Of dead latents, those that a panel keeps for the auxiliary loss, where `work` holds pre.
    pub(super) fn select_dead(&self, live: usize, aim: &Aim, work: &mut Work, panel: &mut Panel) {
        let Work { pre, top, .. } = work;
        make_room(panel, aim);
        for (dead, list) in aim.dead.iter().zip(&mut panel.dead).filter(|(dead, _)| !dead.is_empty()) {
            let (among, k, norm, kept) = (Some(&dead[..]), self.program.aux_k, &self.norm[..], &mut list.kept);
            simd::run(self.isa, SelectTop { pre, norm, among, k, relu: false, live, scratch: top, kept });
        }
    }

    /// Phase A where what is kept is screened: see [`crate::backend::ops::screen`].
    #[allow(clippy::too_many_arguments)] // reason: the parts of the scratch memory that a panel reads and writes
    pub(super) fn select_screened(
        &self,
        batch: &PackedBatch,
        p: usize,
        bar: f32,
        aim: &Aim,
        (weights, samples): (&ScreenWeights, &ScreenBatch),
        dead_rows: &[DeadRows],
        work: &mut Work,
        panel: &mut Panel,
    ) {
        let (isa, d, m, live) = (self.isa, self.state.d, self.state.n_latents, batch.live(p));
        let (width, half) = (vectors(d), d.div_ceil(2));
        work.pre(m);
        let Work { pre, top, screen, .. } = work;
        let (offset, norm) = (&self.offset[..], &self.norm[..]);
        let x = &samples.pairs[p * half * TILES..][..half * TILES];
        ScreenProduct { pairs: &weights.pairs, stride: 8 * width, offset, x, pre }.run();
        let wanted = match self.program.rule {
            Rule::BatchTop { .. } => Wanted::Above(bar),
            _ => Wanted::Top(aim.k as usize),
        };
        let tiles = p * TILES..(p + 1) * TILES;
        let select = SelectScreened {
            pre,
            length: &samples.length[tiles.clone()],
            lost: &samples.lost[tiles],
            margin: &weights.margin,
            h: &batch.rows[p * PANEL * width..][..live * width],
            d,
            w_enc: &self.state.w_enc,
            offset,
            norm,
            wanted,
            live,
            scratch: screen,
            kept: &mut panel.main.kept,
        };
        simd::run(isa, select);
        make_room(panel, aim);
        let lists = aim.dead.iter().zip(&mut panel.dead).zip(dead_rows).filter(|((dead, _), _)| !dead.is_empty());
        for ((dead, list), rows) in lists {
            let pre = &mut pre[..dead.len() * TILES];
            let weights = self.by_latent(&rows.w_enc);
            let x = &batch.tiles[p * d * TILES..][..d * TILES];
            simd::run(isa, Product { weights, start: &rows.offset, x, out: pre });
            let (norm, k, kept) = (&rows.norm[..], self.program.aux_k, &mut list.kept);
            simd::run(isa, SelectTop { pre, norm, among: None, k, relu: false, live, scratch: top, kept });
            kept.rename(dead);
        }
    }

    /// Rows of the dead latents side by side, where their pre is not among those of all latents.
    pub(super) fn gather_dead(&self, screened: bool, scratch: &mut Scratch) {
        let Scratch { aim, dead_rows, .. } = scratch;
        dead_rows.resize_with(aim.dead.len(), DeadRows::default);
        let width = vectors(self.state.d);
        for (dead, rows) in aim.dead.iter().zip(dead_rows) {
            rows.clear();
            for &latent in dead.iter().filter(|_| screened) {
                let latent = latent as usize;
                rows.w_enc.extend_from_slice(&self.state.w_enc[latent * width..][..width]);
                rows.offset.push(self.offset[latent]);
                rows.norm.push(self.norm[latent]);
            }
        }
    }

    /// Entries are what lies above the window's lower end: z is 0 up to the threshold.
    pub(super) fn jump(&self, live: usize, panel: &mut Panel) {
        for sample in 0..live {
            let (latents, values) = panel.main.kept.of_mut(sample);
            for (&latent, z) in latents.iter().zip(values) {
                if *z <= self.state.per_latent[0][latent as usize] {
                    *z = 0.0;
                }
            }
        }
    }

    /// Dead latents below their thresholds, with pre.
    pub(super) fn list_silent(&self, pre: &[Lanes], live: usize, aim: &Aim, panel: &mut Panel) {
        let kept = &mut panel.silent.kept;
        kept.clear(aim.silent.len());
        for &latent in &aim.silent {
            let threshold = self.state.per_latent[0][latent as usize];
            for (sample, &pre) in flat(&pre[latent as usize * TILES..][..TILES])[..live].iter().enumerate() {
                if pre < threshold {
                    kept.push(sample, latent, pre);
                }
            }
        }
    }

    /// From the entries π > 0 to those with z > 0.
    pub(super) fn open_gates(&self, live: usize, panel: &mut Panel) {
        let Panel { main, gate, .. } = panel;
        main.kept.clear(self.state.n_latents);
        for sample in 0..live {
            let (latents, values) = gate.kept.of(sample);
            for (&latent, &pi) in latents.iter().zip(values) {
                let z = self.magnitudes.z(latent as usize, pi);
                if z > 0.0 {
                    main.kept.push(sample, latent, z);
                }
            }
        }
    }
}

/// Room for a panel's lists of dead latents.
fn make_room(panel: &mut Panel, aim: &Aim) {
    panel.dead.resize_with(panel.dead.len().max(aim.dead.len()), List::default);
}
