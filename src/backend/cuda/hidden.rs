//! Hidden states on a device: the bits of [`HiddenStream`](crate::hidden::HiddenStream).

use std::sync::Arc;

use bytemuck::Pod;

use super::device::{Buffer, Device, DeviceError, Pointer};
use super::draw::{DeviceSampler, Lists, Steps, grow_lists, launch, parts};
use super::rows::{padded, pitch};
use crate::data::Sampler;
use crate::data::law::ROW_BLOCK;
use crate::hidden::HiddenSource;
use crate::random::Stream;
use crate::toy::Activation;

/// `HiddenArgs` of `hidden.cu`, which says what each is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Args {
    counts: Pointer<u32>,
    features: Pointer<u32>,
    values: Pointer<f32>,
    directions: Pointer<f32>,
    bias: Pointer<f32>,
    h: Pointer<f32>,
    threads: u64,
    n: u32,
    d: u32,
    quads: u32,
    samples: u32,
    first_step: u32,
    first_block: u32,
    skip: u32,
    key: [u32; 2],
    noise: f32,
    activation: u32,
    unused: u32,
}

// SAFETY: numbers and addresses, for which zero is a value.
unsafe impl bytemuck::Zeroable for Args {}
// SAFETY: any bits are values of the fields, and these leave no padding: a test adds their sizes up.
unsafe impl Pod for Args {}

/// A stream of hidden states, drawn on a device.
#[derive(Debug)]
pub struct DeviceHidden {
    device: Arc<dyn Device>,
    sampler: DeviceSampler,
    /// `[n_features, pitch]`
    directions: Buffer<f32>,
    /// `[pitch]`
    bias: Buffer<f32>,
    noise: f32,
    activation: Activation,
    d_hidden: usize,
    lists: Lists,
}

impl DeviceHidden {
    /// Lays out a source's stream.
    ///
    /// # Errors
    /// No room.
    pub fn new(device: &Arc<dyn Device>, source: &HiddenSource, stream: Stream) -> Result<DeviceHidden, DeviceError> {
        let d = source.d_hidden();
        let sampler = Sampler::new(source.world.clone(), source.seed, stream);
        let directions = source.maker.directions();
        assert_eq!(directions.len(), source.world.n_features * d, "a direction of {d} numbers for each feature");
        Ok(DeviceHidden {
            device: device.clone(),
            sampler: DeviceSampler::new(device, &sampler)?,
            directions: Buffer::of(device, &padded(&directions, d))?,
            bias: Buffer::of(device, &padded(&source.maker.bias_or_zero(), d))?,
            noise: source.maker.noise() as f32,
            activation: source.maker.activation(),
            d_hidden: d,
            lists: Lists::new(device, 0, 0)?,
        })
    }

    /// Numbers from one row of h to the next.
    pub fn pitch(&self) -> usize {
        pitch(self.d_hidden)
    }

    /// Draws h into the front of `h`, `[steps, samples, pitch]`, zeros past d_hidden.
    ///
    /// # Errors
    /// The device refuses.
    ///
    /// # Panics
    /// If `h` is shorter, and as [`DeviceSampler::draw`].
    pub fn draw(&mut self, steps: Steps, h: &mut Buffer<f32>) -> Result<(), DeviceError> {
        let Steps { count, first_sample, samples, .. } = steps;
        let (n, pitch) = (self.sampler.sampler().plan().n_features, self.pitch());
        assert!(count * samples * pitch <= h.len(), "room for {} numbers", h.len());
        for (start, part) in parts(steps, samples * pitch / 4, samples * n) {
            grow_lists(&self.device, &mut self.lists, n, part.count * samples)?;
            self.sampler.draw_lists(part, &mut self.lists)?;
            let threads = part.count * samples * pitch / 4;
            let args = Args {
                counts: self.lists.counts.pointer(),
                features: self.lists.features.pointer(),
                values: self.lists.values.pointer(),
                directions: self.directions.pointer(),
                bias: self.bias.pointer(),
                h: h.pointer_at(start * samples * pitch),
                threads: threads as u64,
                n: n as u32,
                d: self.d_hidden as u32,
                quads: (pitch / 4) as u32,
                samples: samples as u32,
                first_step: part.first,
                first_block: (first_sample / ROW_BLOCK) as u32,
                skip: (first_sample % ROW_BLOCK) as u32,
                key: self.sampler.sampler().key().0,
                noise: self.noise,
                activation: match self.activation {
                    Activation::Identity => 0,
                    Activation::Relu => 1,
                    Activation::Gelu => 2,
                },
                unused: 0,
            };
            launch(&*self.device, "hidden_rows", threads, 0, &args)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::emulated::emulated;
    use super::*;
    use crate::backend::ops::toy_step::Shape;
    use crate::data::{Correlation, Dictionary, Magnitude, MagnitudeSharing, World};
    use crate::hidden::{HiddenBatch, HiddenMaker};
    use crate::random::Draws;
    use crate::toy::{Mlp, ToyKind, ToyModel};

    fn source(n: usize, p: f64, correlation: Option<Correlation>, maker: HiddenMaker) -> HiddenSource {
        let world = World {
            n_features: n,
            firing_probability: (0..n).map(|i| if i % 3 == 0 { p } else { p / 2.0 }).collect(),
            magnitude: Magnitude::Uniform { low: 0.0, high: 1.0 },
            magnitude_sharing: MagnitudeSharing::Independent,
            groups: vec![],
            dataset: None,
            correlation,
            hierarchy: None,
        };
        HiddenSource { world: Arc::new(world), seed: 1 << 33, maker }
    }

    fn dictionary(n: usize, d: usize, noise: f64) -> HiddenMaker {
        HiddenMaker::Dictionary(Arc::new(Dictionary::random(n, d, 3).with_bias(0.5, 3).with_noise(noise)))
    }

    fn hold_to_cpu(source: &HiddenSource, first_sample: usize, samples: &[usize]) {
        for order in [0, 1, 7, 12345] {
            let Some(device) = emulated(order) else { return };
            let mut drawer = DeviceHidden::new(&device, source, Stream::Train).expect("memory");
            let (d, pitch) = (source.d_hidden(), drawer.pitch());
            for &samples in samples {
                let steps = Steps { first: 5, count: 2, first_sample, samples };
                let mut h = Buffer::<f32>::undefined(&device, 2 * samples * pitch + 1).expect("memory");
                drawer.draw(steps, &mut h).expect("it runs");
                let h = h.read().expect("it ran");
                let mut expected: Vec<u32> = vec![];
                for step in 5..7 {
                    let mut batch = HiddenBatch::default();
                    source.open(Stream::Train).draw_hidden_range(step, first_sample, samples, &mut batch);
                    expected.extend(padded(&batch.h, d).iter().map(|h| h.to_bits()));
                }
                let got: Vec<u32> = h.iter().map(|h| h.to_bits()).collect();
                let (got, none) = got.split_at(expected.len());
                assert_eq!(got, expected, "order {order}, {samples} samples, width {d}");
                assert_eq!(none, [u32::MAX], "nothing is written behind the rows");
            }
        }
    }

    #[test]
    fn arguments_of_hidden_states_have_the_layout_of_the_kernel() {
        assert_eq!(size_of::<Args>(), 6 * 8 + 8 + 12 * 4);
    }

    #[test]
    fn hidden_states_on_a_device_are_those_of_the_cpu_with_noise_and_without() {
        for (n, d) in [(1, 1), (5, 2), (17, 15), (17, 16), (40, 33), (12, 100)] {
            for (p, noise) in [(0.1, 0.0), (0.7, 0.25)] {
                hold_to_cpu(&source(n, p, None, dictionary(n, d, noise)), 0, &[33, 0, 1]);
            }
        }
        hold_to_cpu(&source(7, 0.5, None, dictionary(7, 5, 0.25)), 1024, &[1030]);
        let correlation = Correlation::low_rank(40, 3, 0.3, 5).expect("a factor").correlation;
        hold_to_cpu(&source(40, 0.1, Some(correlation), dictionary(40, 17, 0.25)), 992, &[65]);
    }

    #[test]
    fn hidden_states_of_toy_models_on_a_device_pass_their_neurons() {
        let mlp = |activation| ToyKind::Mlp(Mlp { d_embedding: 2, activation, bias: 0.0, bias_decay: 0.0, seed: 3 });
        for kind in [ToyKind::ReluOutput, ToyKind::ReluHidden, mlp(Activation::Relu), mlp(Activation::Gelu)] {
            let shape = Shape { kind, n_features: 7, d_hidden: 5 };
            let mut draws = Draws::new(1, Stream::ToyInit, 0);
            let parameters: Vec<f32> = (0..shape.n_parameters()).map(|_| 3.0 * draws.normal() as f32).collect();
            let maker = HiddenMaker::Toy(Arc::new(ToyModel::from_parameters(shape, &parameters)));
            hold_to_cpu(&source(7, 0.5, None, maker), 0, &[100]);
        }
    }
}
