//! An autoencoder made of its exported tensors again.

use ndarray::ArrayD;

use super::program::Program;
use super::weights::{Inference, Sae, Weights};
use crate::backend::ops::select::Keep;

impl Sae {
    /// The autoencoder that `program` trains, in batches of `batch_size`, of its tensors by the names of [`Coder::tensors`]. A
    /// BatchTopK one keeps what passes the bars on pre among them, and the residual that ends a pursuit is taken in the scale of its
    /// weights: within a rounding of what training ended with. None where a tensor is missing or has another shape.
    pub fn of_tensors(
        program: &Program,
        batch_size: usize,
        tensor: &dyn Fn(&str) -> Option<ArrayD<f32>>,
    ) -> Option<Sae> {
        let [n_latents, d_hidden]: [usize; 2] = tensor("W_dec")?.shape().try_into().ok()?;
        let flat = |name: &str, len: usize| {
            let numbers: Vec<f32> = tensor(name)?.iter().copied().collect();
            Some(numbers).filter(|numbers| numbers.len() == len)
        };
        let (w_enc, w_dec) = (flat("W_enc", n_latents * d_hidden)?, flat("W_dec", n_latents * d_hidden)?);
        let names = program.parameter_names();
        let b_enc = match program.has_encoder_bias() {
            true => flat(names[1], n_latents)?,
            false => vec![0.0; n_latents],
        };
        let mut per_latent = names[4..].iter().map(|name| flat(name, n_latents)).collect::<Option<Vec<Vec<f32>>>>()?;
        let inference = match program.inference(0.0, batch_size) {
            Inference::Keep(Keep::Above(_)) => {
                per_latent.push(flat("threshold", n_latents)?);
                Inference::Jump
            }
            Inference::Pursuit(_) => program.inference(0.0, batch_size).fold_scale(tied_scale(&w_enc, &w_dec)),
            same => same,
        };
        let b_dec = flat("b_dec", d_hidden)?;
        Some(Sae::new(Weights { n_latents, d_hidden, w_enc, b_enc, w_dec, b_dec, per_latent }, inference))
    }
}

/// The scale s of the inputs while a tied autoencoder was trained: with rows w then, encoder rows are s w now and decoder rows w/s.
pub fn tied_scale<'a>(encoder: impl IntoIterator<Item = &'a f32>, decoder: impl IntoIterator<Item = &'a f32>) -> f64 {
    let above: f64 = encoder.into_iter().map(|&w| w as f64 * w as f64).sum();
    let below: f64 = decoder.into_iter().map(|&w| w as f64 * w as f64).sum();
    if above > 0.0 && below > 0.0 { (above / below).sqrt().sqrt() } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::sae::Coder;
    use crate::sae::golden::Golden;
    use crate::sae::program::Pursuit;

    /// The bars of BatchTopK are t / |decoder|, rounded: pre within a rounding of its bar, which none is here, may fall otherwise.
    #[test]
    fn an_autoencoder_is_made_of_its_tensors_again() {
        let pursuit = Pursuit { k: 3, residual_threshold: 0.5, stop_on_duplicate: true };
        let pursuit = (super::super::matching_pursuit::program(pursuit, true), {
            let golden = &Golden::all()[2].weights;
            let b_enc = vec![0.0; golden.n_latents];
            Weights { w_enc: golden.w_dec.clone(), b_enc, ..golden.clone() }
        });
        let all = Golden::all().into_iter().map(|golden| (golden.architecture.program(), golden.weights.clone()));
        let x = Array2::from_shape_vec((16, 6), Golden::all()[0].x.clone()).unwrap();
        for (program, mut weights) in all.chain([pursuit]) {
            let inference = program.inference(0.8, 16).fold_scale(4.0);
            weights.fold_scale(4.0);
            let sae = Sae::new(weights, inference);
            let tensors = sae.tensors();
            let of = |wanted: &str| tensors.iter().find(|(name, _)| *name == wanted).map(|(_, tensor)| tensor.clone());
            let again = Sae::of_tensors(&program, 16, &of).expect("every tensor is there");
            let latents = sae.encode(x.view());
            assert!(latents.iter().any(|z| *z > 0.0), "{:?}", program.rule);
            assert_eq!(again.encode(x.view()), latents, "{:?}", program.rule);
            assert_eq!(again.decode(latents.view(), x.view()), sae.decode(latents.view(), x.view()));
            let without = |lost: &str| {
                let of = |wanted: &str| of(wanted).filter(|_| wanted != lost);
                Sae::of_tensors(&program, 16, &of).is_some()
            };
            assert!(tensors.iter().all(|(name, _)| !without(name)), "{:?}", program.rule);
        }
    }
}
