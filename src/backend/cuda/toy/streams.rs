//! The batches of models that train together: streams, and their samples in which something fires packed.

use std::ops::Range;
use std::sync::Arc;

use super::args::{BatchArgs, PackArgs, PackOne};
use super::batches::{BatchSource, BatchStream, Drawn};
use super::layout::TILE;
use crate::backend::cuda::device::{Buffer, Device, DeviceError, Launch, Pointer};
use crate::toy::ToyJob;

/// Streams on a device. Stream i with all its samples is batch 2 i of the kernels, packed it is 2 i + 1.
pub struct Streams {
    device: Arc<dyn Device>,
    streams: Vec<Stream>,
    /// `[2 streams]`
    args: Buffer<BatchArgs>,
    packs: Buffer<PackOne>,
}

struct Stream {
    batches: Box<dyn BatchStream>,
    n: usize,
    packed: Option<Packed>,
}

/// Memory for packed batches.
struct Packed {
    x: Buffer<f32>,
    counts: Buffer<u32>,
}

/// What is asked of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Any job that trains on it.
    pub job: &'a ToyJob,
    /// Whether some of its models leave silent samples out.
    pub packed: bool,
}

/// Floats of one batch.
fn batch_floats(samples: usize, n: usize) -> usize {
    samples.div_ceil(TILE) * TILE * n
}

impl Wanted<'_> {
    /// About how many bytes a step of it takes.
    pub fn bytes(&self) -> usize {
        let x = 4 * batch_floats(self.job.train.batch_size, self.job.world.n_features);
        x * (1 + usize::from(self.packed))
    }
}

impl Streams {
    /// Opens streams for ranges of up to `most_steps`.
    ///
    /// # Errors
    /// No room.
    pub fn open(
        device: &Arc<dyn Device>,
        source: &dyn BatchSource,
        wanted: &[Wanted],
        most_steps: usize,
    ) -> Result<Streams, DeviceError> {
        let open = |wanted: &Wanted| {
            let batches = source.open(device, wanted.job, most_steps, wanted.packed)?;
            let n = wanted.job.world.n_features;
            let packed = if wanted.packed {
                let x = Buffer::undefined(device, most_steps * batch_floats(batches.samples(), n))?;
                Some(Packed { x, counts: Buffer::undefined(device, most_steps)? })
            } else {
                None
            };
            Ok(Stream { batches, n, packed })
        };
        Ok(Streams {
            device: device.clone(),
            streams: wanted.iter().map(open).collect::<Result<_, DeviceError>>()?,
            args: Buffer::undefined(device, 2 * wanted.len())?,
            packs: Buffer::undefined(device, wanted.len())?,
        })
    }

    /// Most tiles of a batch of stream `stream`.
    pub fn tiles(&self, stream: usize) -> usize {
        self.streams[stream].batches.samples().div_ceil(TILE)
    }

    /// What kernels read: step 0 of it is the first of the last [`Streams::draw`].
    pub fn pointer(&self) -> Pointer<BatchArgs> {
        self.args.pointer()
    }

    /// Draws and packs these steps.
    ///
    /// # Errors
    /// The device fails.
    pub fn draw(&mut self, steps: Range<usize>) -> Result<(), DeviceError> {
        let (mut args, mut once, mut each) = (vec![], vec![], vec![]);
        for stream in &mut self.streams {
            let drawn = stream.batches.draw(steps.clone())?;
            let (all, packed) = stream.args(drawn);
            args.extend([all, packed]);
            if let Some(pack) = stream.pack(drawn) {
                if drawn.x_stride == 0 { once.push(pack) } else { each.push(pack) }
            }
        }
        self.args.write(0, &args)?;
        self.packs.write(0, &[&each[..], &once[..]].concat())?;
        self.pack(0..each.len(), steps.len())?;
        self.pack(each.len()..each.len() + once.len(), 1)
    }

    /// Packs `steps` steps of each of some of the streams.
    fn pack(&self, of: Range<usize>, steps: usize) -> Result<(), DeviceError> {
        let packs = self.packs.pointer().at(of.start);
        let args = PackArgs { packs, steps: steps as u32, unused: 0 };
        let blocks = (of.len() * steps) as u32;
        let launch = Launch { kernel: "toy_pack", blocks, threads: 128, shared: 0 };
        if blocks > 0 { self.device.launch(launch, bytemuck::bytes_of(&args)) } else { Ok(()) }
    }
}

impl Stream {
    /// All samples, and the packed ones (all again where nobody wants them).
    fn args(&self, drawn: Drawn) -> (BatchArgs, BatchArgs) {
        let samples = self.batches.samples() as u32;
        let Drawn { x, x_stride, .. } = drawn;
        let all = BatchArgs { x, counts: Pointer::NULL, x_stride, count_stride: 0, samples };
        let Some(packed) = &self.packed else { return (all, all) };
        let (x, counts) = (packed.x.pointer(), packed.counts.pointer());
        (all, BatchArgs { x, counts, count_stride: u32::from(x_stride != 0), ..all })
    }

    fn pack(&self, drawn: Drawn) -> Option<PackOne> {
        let packed = self.packed.as_ref()?;
        Some(PackOne {
            x: drawn.x,
            live: drawn.live,
            packed: packed.x.pointer(),
            counts: packed.counts.pointer(),
            x_stride: drawn.x_stride,
            live_stride: drawn.live_stride,
            samples: self.batches.samples() as u32,
            n: self.n as u32,
            unused: 0,
        })
    }
}
