//! Phases F and G: what is done once a latent.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Scratch, Trainee};
use crate::backend::cpu::sae::blocks::each;
use crate::backend::cpu::sae::lists::Clock;
use crate::backend::cpu::sae::state::State;
use crate::backend::ops::layout::{LANES, flat, flat_mut, vectors};
use crate::backend::ops::optimizer::{Step, Update, UpdateRows};
use crate::backend::ops::rows::{BLOCK, FinishBias, FinishRows, MoveRows};
use crate::backend::ops::sparse::GradientSums;
use crate::backend::simd;
use crate::backend::simd::Lanes;
use crate::sae::{Penalty, Rule};
use crate::training::{ramp_down, ramp_up};

impl Trainee {
    /// Phase F: completes the gradients of [`Trainee::gradients`] and projects them; returns their global norm.
    pub fn finish(&self, scratch: &mut Scratch) -> f64 {
        let Scratch { pull, aim, sums, rests, squares, times, .. } = scratch;
        let mut clock = Clock::start();
        let mut decoder_pull = None;
        if let Penalty::L1 { by_norm: true, .. } = self.program.penalty {
            // price_j = l1 / n |w_dec_j|, so price_j / |w_dec_j|² · Σ z_j is l1 / n · Σ z_j / |w_dec_j|.
            pull.clear();
            let terms = aim.price.iter().zip(&sums.values).zip(&self.norm);
            pull.extend(terms.map(|((price, z), norm)| if *norm > 0.0 { price / norm * z / norm } else { 0.0 }));
            decoder_pull = Some(&pull[..]);
        }
        if let Rule::Jump { .. } = self.program.rule {
            pull.clear();
            let terms = sums.extra[1].iter().zip(&self.norm);
            pull.extend(terms.map(|(sum, norm)| if *norm > 0.0 { sum / norm } else { 0.0 }));
            sums.extra[1].fill(0.0);
            decoder_pull = Some(&pull[..]);
        }
        let (m, width, frozen) = (self.state.n_latents, vectors(self.state.d), self.program.frozen_decoder);
        rests.resize(m.div_ceil(BLOCK) * width, Lanes::default());
        squares.resize(m.div_ceil(BLOCK), 0.0);
        let GradientSums { w_enc, w_dec, b_enc, b_dec, through, extra, .. } = sums;
        let (size, sum_g) = (BLOCK * width, &b_dec[..]);
        let rows = w_enc.chunks_mut(size).zip(w_dec.chunks_mut(size));
        let out = rests.chunks_mut(width).zip(squares.iter_mut());
        each(self.shared(aim.samples), rows.zip(out).enumerate(), |(at, ((d_enc, d_dec), (rest, square)))| {
            let latents = at * BLOCK..m.min((at + 1) * BLOCK);
            let rows = latents.start * width..latents.end * width;
            if at == 0 {
                rest.copy_from_slice(sum_g);
            } else {
                rest.fill(Lanes::default());
            }
            let finish = FinishRows {
                w_enc: &self.state.w_enc[rows.clone()],
                w_dec: &self.state.w_dec[rows],
                b_dec: &self.state.b_dec,
                pull: decoder_pull.map(|pull| &pull[latents.clone()]),
                project: self.program.unit_decoder,
                tied: self.program.tied,
                frozen,
                d_bias: &b_enc[latents.clone()],
                through: &through[latents],
                d_enc,
                d_dec,
                rest,
            };
            *square = simd::run(self.isa, finish);
        });
        let mut total: f64 = squares.iter().sum();
        if frozen {
            b_dec.fill(Lanes::default());
        } else {
            total += simd::run(self.isa, FinishBias { rests, d_b_dec: b_dec });
        }
        total += extra.iter().flatten().map(|&x| x as f64 * x as f64).sum::<f64>();
        times.finish = clock.lap();
        total.sqrt()
    }

    /// Phase G: moves the weights by the finished gradients of global norm `norm`, as step `step` from 0; false where a
    /// weight stopped being finite.
    pub fn update(&mut self, step: usize, norm: f64, scratch: &mut Scratch) -> bool {
        let mut clock = Clock::start();
        let train = &self.train;
        let factor = train.schedule.factor(step, train.steps)
            * ramp_up(step, train.steps, train.warmup)
            * ramp_down(step, train.steps, train.decay);
        let clip = train.clip.map_or(1.0, |most| (most / (norm + 1e-6)).min(1.0));
        let settings = Step::new(train.optimizer, train.lr * factor, train.weight_decay, step);
        let finite = self.move_weights(&settings, clip as f32, &scratch.sums);
        self.state.step = step + 1;
        let fine = self.refresh_rest() && finite;
        scratch.times.update = clock.lap();
        fine
    }

    /// The optimiser's step, with norms and offsets of the moved rows.
    pub(super) fn move_weights(&mut self, step: &Step, scale: f32, sums: &GradientSums) -> bool {
        let (isa, unit) = (self.isa, self.program.unit_decoder);
        let shared = self.shared(self.train.batch_size);
        let (enc_moves, dec_moves) = (!self.program.tied, !self.program.frozen_decoder);
        let State { w_enc, b_enc, w_dec, b_dec, per_latent, moments, .. } = &mut self.state;
        let [of_w_enc, of_b_enc, of_w_dec, of_b_dec, of_more @ ..] = &mut moments[..] else {
            unreachable!("made for four tensors and more")
        };
        let mut few = vec![];
        if self.program.has_encoder_bias() {
            few.push((&mut b_enc[..], &sums.b_enc[..], of_b_enc));
        }
        if dec_moves {
            few.push((flat_mut(b_dec), flat(&sums.b_dec), of_b_dec));
        }
        few.extend(per_latent.iter_mut().zip(&sums.extra).zip(of_more).map(|((p, g), m)| (&mut p[..], &g[..], m)));
        for (parameters, gradient, moments) in few {
            simd::run(isa, Update { step, scale, parameters, gradient, moments });
        }
        if let Rule::Jump { .. } = self.program.rule {
            // A threshold that is not a number stays one, to be found.
            per_latent[0].iter_mut().filter(|threshold| **threshold < 0.0).for_each(|threshold| *threshold = 0.0);
        }
        let size = BLOCK * b_dec.len();
        let enc = w_enc.chunks_mut(size).zip(sums.w_enc.chunks(size)).zip(of_w_enc.pieces(size * LANES));
        let dec = w_dec.chunks_mut(size).zip(sums.w_dec.chunks(size)).zip(of_w_dec.pieces(size * LANES));
        let facts = self.norm.chunks_mut(BLOCK).zip(self.offset.chunks_mut(BLOCK)).zip(b_enc.chunks(BLOCK));
        let (finite, b_dec) = (AtomicBool::new(true), &b_dec[..]);
        each(shared, enc.zip(dec).zip(facts), |((enc, dec), ((norm, offset), b_enc))| {
            let rows = |((rows, gradient), moments)| UpdateRows { step, scale, rows, gradient, moments };
            let (enc, dec) = ((rows(enc), enc_moves), (rows(dec), dec_moves));
            if !simd::run(isa, MoveRows { enc, dec, b_enc, b_dec, unit, norm, offset }) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        finite.into_inner()
    }
}
