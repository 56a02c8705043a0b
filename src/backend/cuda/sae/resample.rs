//! Resampling of dead latents (see [`crate::sae::dead_latents`]): rare, so the host does it on numbers that it reads and
//! writes.

use super::super::device::DeviceError;
use super::super::rows::pitch;
use super::feed::Batches;
use super::resident::{Arena, Places};
use super::run::Run;
use super::step::{Launcher, aim};
use super::view::View;
use super::{Device, list};
use crate::sae::dead_latents::{ENCODER_SHARE, draw_inputs};

/// Inputs with their losses, from which directions are drawn.
#[derive(Default)]
struct Candidates {
    /// `[inputs, d]`
    rows: Vec<f32>,
    /// |h - ĥ|² under the training rule.
    losses: Vec<f64>,
}

/// Resamples the latents of a run that ask for it before `step`; whether there were any. Batches past the end of training are
/// drawn, and the launcher is left with this run as the only chosen one.
pub fn resample(
    device: &dyn Device,
    launcher: &mut Launcher,
    arena: &mut Arena,
    places: &Places,
    (run, view): (&mut Run, &View),
    batches: &mut dyn Batches,
) -> Result<bool, DeviceError> {
    let (step, train) = (run.step, &run.job.train);
    let Some(resample) = run.program.resample.clone().filter(|resample| resample.at.contains(&step)) else {
        return Ok(false);
    };
    let mut since: Vec<usize> = arena.read(places.since)?.into_iter().map(|since| since as usize).collect();
    let latents = resample.silent(step, &since);
    if latents.is_empty() {
        return Ok(false);
    }
    launcher.choose(std::slice::from_ref(view))?;
    let aim = aim(&run.program, run.job, step, 0);
    let count = resample.batches(train.batch_size);
    let past = resample.at.partition_point(|&at| at < step);
    let mut candidates = Candidates::default();
    for batch in 0..count {
        batches.draw(train.steps + past * count + batch, 1)?;
        launcher.forward(&[aim])?;
        weigh(device, arena, places, view, &mut candidates)?;
    }
    let drawn = draw_inputs(&candidates.losses, latents.len(), run.job.seed, step);
    put(arena, places, run.program.unit_decoder, &latents, &drawn, &candidates, &mut since)?;
    launcher.refresh()?;
    Ok(true)
}

/// Adds a batch that went forward to the candidates, and clears what the gradients would have cleared.
fn weigh(
    device: &dyn Device,
    arena: &mut Arena,
    places: &Places,
    view: &View,
    candidates: &mut Candidates,
) -> Result<(), DeviceError> {
    let (n, d) = (places.sizes.n, places.sizes.d);
    let main = places.lists[list::MAIN as usize].expect("every program has it");
    let squares = arena.read(main.squares)?;
    candidates.losses.extend(squares[squares.len() - n..].iter().map(|&x| x as f64));
    let mut h = vec![0.0f32; n * pitch(d)];
    device.read(bytemuck::cast(view.h), bytemuck::cast_slice_mut(&mut h))?;
    candidates.rows.extend(h.chunks_exact(pitch(d)).flat_map(|row| &row[..d]));
    places.lists.iter().flatten().try_for_each(|list| arena.write(list.mask, &vec![0; list.mask.len()]))
}

/// Gives these latents the directions of the inputs drawn for them.
fn put(
    arena: &mut Arena,
    places: &Places,
    unit: bool,
    latents: &[usize],
    drawn: &[usize],
    candidates: &Candidates,
    since: &mut [usize],
) -> Result<(), DeviceError> {
    let (m, d, wide) = (places.sizes.m, places.sizes.d, pitch(places.sizes.d));
    let norm = |row: &[f32]| row.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt();
    let living: Vec<usize> = (0..m).filter(|j| !latents.contains(j)).collect();
    let mean = |rows: &[f32]| match living.len() {
        0 => 1.0,
        n => living.iter().map(|&j| norm(&rows[j * wide..][..d])).sum::<f64>() / n as f64,
    };
    let taken: Vec<(usize, &[f32])> = (latents.iter().zip(drawn))
        .map(|(&latent, &input)| (latent, &candidates.rows[input * d..][..d]))
        .filter(|(_, h)| norm(h) > 0.0)
        .collect();
    for (at, tensor) in places.tensors[..3].iter().enumerate() {
        let (rows, width) = (at != 1, if at == 1 { 1 } else { wide });
        let mut w = arena.read(tensor.w)?;
        let length = match at {
            0 => ENCODER_SHARE * mean(&w),
            2 if !unit => mean(&w),
            _ => 1.0,
        };
        for &(latent, h) in &taken {
            let scale = if rows { norm(h) } else { 1.0 };
            let own = &mut w[latent * width..][..width];
            own.fill(0.0);
            if rows {
                own.iter_mut().zip(h).for_each(|(w, h)| *w = (*h as f64 / scale * length) as f32);
            }
        }
        arena.write(tensor.w, &w)?;
        for moments in [tensor.first, tensor.second].into_iter().flatten() {
            let mut values = arena.read(moments)?;
            taken.iter().for_each(|(latent, _)| values[latent * width..][..width].fill(0.0));
            arena.write(moments, &values)?;
        }
    }
    taken.iter().for_each(|&(latent, _)| since[latent] = 0);
    arena.write(places.since, &since.iter().map(|&since| since as u32).collect::<Vec<_>>())
}
