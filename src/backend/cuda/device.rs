//! A machine that runs kernels: memory of its own, launches in order.
//!
//! [`driver`](super::driver) is an NVIDIA GPU; in tests [`emulated`](super::emulated) runs the same kernels on the CPU. What is above
//! knows this trait alone.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::backend::BackendError;

/// Why a device could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Less memory is free than was asked for.
    #[error("{label}: no room for {bytes} bytes")]
    OutOfMemory { label: String, bytes: usize },
    /// A block of this device has less shared memory than the work takes.
    #[error(
        "{label} gives a block {most} bytes of shared memory, and {what} takes {bytes}: choose `--backend cpu`, or a GPU with more"
    )]
    SmallBlocks { label: String, what: String, bytes: usize, most: usize },
    /// What the driver says, with what was done.
    #[error("{label}: {doing}: {message}")]
    Driver { label: String, doing: String, message: String },
    /// The same, where it means that the device does not work any more.
    #[error("{label}: {doing}: {message}")]
    Lost { label: String, doing: String, message: String },
}

impl From<DeviceError> for BackendError {
    fn from(error: DeviceError) -> Self {
        let text = error.to_string();
        match error {
            DeviceError::OutOfMemory { .. } => BackendError::NoRoom(text),
            DeviceError::Lost { .. } => BackendError::Lost(text),
            DeviceError::SmallBlocks { .. } | DeviceError::Driver { .. } => BackendError::Unable(text),
        }
    }
}

/// Shared memory that work may ask of a block for kernels to take it, in bytes: what the largest have, but for what kernels keep
/// there by themselves. What asks for more goes to the CPU on every machine alike, so that rows do not depend on the card; a GPU with
/// less says so.
pub const MOST_SHARED: usize = 226 << 10;

/// A launch of one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks of the grid.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

/// Work goes in the order it was given; reads wait for it.
pub trait Device: Send + Sync + fmt::Debug {
    /// As a user knows it: "NVIDIA H100 80GB HBM3 (0)".
    fn label(&self) -> String;
    /// Bytes that may be taken.
    fn memory(&self) -> usize {
        usize::MAX
    }
    /// Memory of this size, its content undefined; 256-byte aligned.
    ///
    /// # Errors
    /// No room.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError>;
    /// Gives memory back.
    fn free(&self, address: u64, bytes: usize);
    /// Copies `bytes` to the device.
    ///
    /// # Errors
    /// The driver refuses.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Copies from the device, once everything before is done.
    ///
    /// # Errors
    /// The driver refuses, or work before has failed.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError>;
    /// Fills with zero bytes.
    ///
    /// # Errors
    /// The driver refuses.
    fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError>;
    /// Runs a kernel with its structure of arguments. Nothing where there are no blocks.
    ///
    /// # Errors
    /// The kernel is not there or cannot be launched so.
    fn launch(&self, launch: Launch, args: &[u8]) -> Result<(), DeviceError>;
    /// Bytes of shared memory that a block may have.
    fn most_shared(&self) -> u32;
    /// Keeps launches as one piece of work that costs a single call; none where the device has no such thing.
    ///
    /// # Errors
    /// A kernel is not there, or the driver refuses.
    fn record(&self, launches: &[(Launch, Vec<u8>)]) -> Result<Option<u64>, DeviceError> {
        let _ = launches;
        Ok(None)
    }
    /// Runs what `record` has kept.
    ///
    /// # Errors
    /// The driver refuses.
    fn replay(&self, recorded: u64) -> Result<(), DeviceError> {
        unreachable!("{recorded}: this device keeps no launches")
    }
    /// Gives back what `record` has kept.
    fn forget(&self, recorded: u64) {
        unreachable!("{recorded}: this device keeps no launches")
    }
}

/// Launches that run together again and again, with the same arguments.
#[derive(Debug)]
pub struct Sequence {
    device: Arc<dyn Device>,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Recorded(u64),
    Listed(Vec<(Launch, Vec<u8>)>),
}

impl Sequence {
    /// Of these launches and their structures of arguments.
    ///
    /// # Errors
    /// As [`Device::record`].
    pub fn new(device: &Arc<dyn Device>, launches: Vec<(Launch, Vec<u8>)>) -> Result<Sequence, DeviceError> {
        let kept = match device.record(&launches)? {
            Some(recorded) => Kept::Recorded(recorded),
            None => Kept::Listed(launches),
        };
        Ok(Sequence { device: device.clone(), kept })
    }

    /// Runs them in their order.
    ///
    /// # Errors
    /// The driver refuses.
    pub fn run(&self) -> Result<(), DeviceError> {
        match &self.kept {
            Kept::Recorded(recorded) => self.device.replay(*recorded),
            Kept::Listed(launches) => launches.iter().try_for_each(|(launch, args)| self.device.launch(*launch, args)),
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if let Kept::Recorded(recorded) = self.kept {
            self.device.forget(recorded);
        }
    }
}

/// Whether a block of this device has room for `bytes`.
///
/// # Errors
/// It has not.
pub fn fits_a_block(device: &dyn Device, what: impl FnOnce() -> String, bytes: usize) -> Result<(), DeviceError> {
    let most = device.most_shared() as usize;
    if bytes <= most {
        return Ok(());
    }
    Err(DeviceError::SmallBlocks { label: device.label(), what: what(), bytes, most })
}

/// An array on a device, freed with this.
#[derive(Debug)]
pub struct Buffer<T> {
    device: Arc<dyn Device>,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// `len` numbers, undefined.
    ///
    /// # Errors
    /// No room.
    pub fn undefined(device: &Arc<dyn Device>, len: usize) -> Result<Buffer<T>, DeviceError> {
        let address = device.allocate(len * size_of::<T>())?;
        Ok(Buffer { device: device.clone(), address, len, of: PhantomData })
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// No room.
    pub fn zeros(device: &Arc<dyn Device>, len: usize) -> Result<Buffer<T>, DeviceError> {
        let new = Buffer::undefined(device, len)?;
        device.zero(new.address, len * size_of::<T>())?;
        Ok(new)
    }

    /// A copy of `values`.
    ///
    /// # Errors
    /// No room.
    pub fn of(device: &Arc<dyn Device>, values: &[T]) -> Result<Buffer<T>, DeviceError> {
        let new = Buffer::undefined(device, values.len())?;
        device.write(new.address, bytemuck::cast_slice(values))?;
        Ok(new)
    }

    /// Replaces what stands from `at` on.
    ///
    /// # Errors
    /// The driver refuses.
    ///
    /// # Panics
    /// If there are not that many places.
    pub fn write(&mut self, at: usize, values: &[T]) -> Result<(), DeviceError> {
        assert!(at + values.len() <= self.len, "{} values at {at} of {}", values.len(), self.len);
        self.device.write(self.address + (at * size_of::<T>()) as u64, bytemuck::cast_slice(values))
    }

    /// All of it.
    ///
    /// # Errors
    /// Work before has failed.
    pub fn read(&self) -> Result<Vec<T>, DeviceError> {
        self.read_range(0, self.len)
    }

    /// `count` numbers from `at` on.
    ///
    /// # Errors
    /// Work before has failed.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn read_range(&self, at: usize, count: usize) -> Result<Vec<T>, DeviceError> {
        assert!(at + count <= self.len, "{count} values at {at} of {}", self.len);
        let mut values = vec![T::zeroed(); count];
        self.device.read(self.address + (at * size_of::<T>()) as u64, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// Where it lies, for arguments of kernels.
    pub fn pointer(&self) -> Pointer<T> {
        Pointer { address: self.address, of: PhantomData }
    }

    /// Where number `at` lies.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn pointer_at(&self, at: usize) -> Pointer<T> {
        assert!(at <= self.len, "number {at} of {}", self.len);
        Pointer { address: self.address + (at * size_of::<T>()) as u64, of: PhantomData }
    }

    /// How many numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.device.free(self.address, self.len * size_of::<T>());
    }
}

/// An address on the device, as kernels take it: `T*`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Pointer<T> {
    address: u64,
    of: PhantomData<T>,
}

impl<T> Pointer<T> {
    /// Points nowhere.
    pub const NULL: Pointer<T> = Pointer { address: 0, of: PhantomData };

    /// That of the `index`-th number from here.
    pub fn at(self, index: usize) -> Pointer<T> {
        Pointer { address: self.address + (index * size_of::<T>()) as u64, of: PhantomData }
    }
}

impl<T> Clone for Pointer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Pointer<T> {}

// SAFETY: eight bytes that are the address and nothing else; zero is a value of it.
unsafe impl<T: 'static> Zeroable for Pointer<T> {}
// SAFETY: any bits are an address, there is no padding, and the type is Copy.
unsafe impl<T: 'static> Pod for Pointer<T> {}

#[cfg(test)]
mod tests {
    use super::super::emulated::emulated;
    use super::*;
    use crate::random::{Key, philox};

    #[derive(Clone, Copy, Debug)]
    #[repr(C)]
    struct ProbeArgs {
        out: Pointer<u32>,
        n: u32,
        key: [u32; 2],
        unused: u32,
    }

    // SAFETY: plain numbers without padding.
    unsafe impl Zeroable for ProbeArgs {}
    // SAFETY: as above.
    unsafe impl Pod for ProbeArgs {}

    #[test]
    fn a_kernel_gives_the_same_in_every_order() {
        for order in [0, 1, 7, 12345] {
            let Some(device) = emulated(order) else { return };
            for n in [0usize, 1, 31, 33, 127, 128, 300] {
                let out = Buffer::<u32>::zeros(&device, 2 * n).expect("memory");
                let blocks = n.div_ceil(128) as u32;
                let args = ProbeArgs { out: out.pointer(), n: n as u32, key: [3, 4], unused: 0 };
                let launch = Launch { kernel: "probe", blocks, threads: 128, shared: 512 };
                device.launch(launch, bytemuck::bytes_of(&args)).expect("it is there");
                let word = |i: usize| if i < n { philox([i as u32, 0, 0, 0], Key([3, 4]))[0] } else { 0 };
                // The word of the next thread of the block.
                let next = |i: usize| word(i / 128 * 128 + (i + 1) % 128);
                let before = |i: usize| (i / 32 * 32..i).fold(0u32, |sum, at| sum.wrapping_add(next(at)));
                let expected: Vec<u32> = (0..n).map(next).chain((0..n).map(before)).collect();
                assert_eq!(out.read().expect("it ran"), expected, "order {order}, {n} words");
            }
        }
    }

    #[test]
    fn a_kernel_that_is_not_there_and_memory_that_is_not_are_errors() {
        let Some(device) = emulated(0) else { return };
        let launch = Launch { kernel: "no_such_kernel", blocks: 1, threads: 32, shared: 0 };
        let error = device.launch(launch, &[]).expect_err("no such kernel");
        assert!(error.to_string().contains("no_such_kernel"), "{error}");
        let error = device.allocate(1 << 60).expect_err("no machine has that");
        assert!(matches!(error, DeviceError::OutOfMemory { .. }), "{error}");
    }

    #[test]
    fn parts_of_a_buffer_are_written_and_read() {
        let Some(device) = emulated(0) else { return };
        let mut buffer = Buffer::of(&device, &[1.0f32, 2.0, 3.0, 4.0]).expect("memory");
        buffer.write(1, &[7.0, 8.0]).expect("memory");
        assert_eq!(buffer.read_range(1, 3).expect("memory"), [7.0, 8.0, 4.0]);
        assert_eq!(Buffer::<u32>::zeros(&device, 0).expect("nothing").read().expect("nothing"), [0u32; 0]);
    }
}
