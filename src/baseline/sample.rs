//! The hidden states that learners of dictionaries see: the first ones of the training stream, all in memory.

use ndarray::{Array1, Array2};

use crate::hidden::{HiddenBatch, SaeSource};
use crate::random::Stream;

/// They are drawn in batches of so many.
const BATCH: usize = 1024;

/// What is taken off h before a dictionary is learned, and added back to reconstructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Centre {
    /// Nothing: h is a sum of directions as it is.
    None,
    /// The mean of the training samples.
    Mean,
}

/// Training samples less their centre.
#[derive(Clone, Debug)]
pub struct Sample {
    /// `[samples, d_hidden]`
    pub h: Array2<f32>,
    /// `[d_hidden]`
    pub centre: Vec<f32>,
}

impl Sample {
    /// The first `samples` hidden states of the training stream.
    pub fn draw(source: &SaeSource, samples: usize, centre: Centre) -> Sample {
        let (stream, d) = (source.open(Stream::Train), source.d_hidden());
        let (mut drawn, mut h) = (HiddenBatch::default(), Vec::with_capacity(samples * d));
        for (step, first) in (0..samples).step_by(BATCH).enumerate() {
            stream.draw_hidden(step as u32, BATCH, &mut drawn);
            h.extend_from_slice(&drawn.h[..(samples - first).min(BATCH) * d]);
        }
        let mut h = Array2::from_shape_vec((samples, d), h).expect("samples rows of d");
        let centre = match centre {
            Centre::None => vec![0.0; d],
            Centre::Mean => mean(&h).iter().map(|&m| m as f32).collect(),
        };
        h.rows_mut().into_iter().for_each(|mut row| row.iter_mut().zip(&centre).for_each(|(h, c)| *h -= c));
        Sample { h, centre }
    }

    /// In f64.
    pub fn wide(&self) -> Array2<f64> {
        self.h.mapv(f64::from)
    }
}

/// Of the rows, summed in order.
pub fn mean(h: &Array2<f32>) -> Array1<f64> {
    let mut sum = Array1::<f64>::zeros(h.ncols());
    for row in h.rows() {
        sum.iter_mut().zip(&row).for_each(|(sum, &h)| *sum += h as f64);
    }
    sum / h.nrows().max(1) as f64
}

/// Rows over their norms; a row of zeros stays.
pub fn unit_rows(rows: &mut Array2<f64>) {
    for mut row in rows.rows_mut() {
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.mapv_inplace(|x| x / norm);
        }
    }
}
