//! An NVIDIA GPU through its driver's library, opened at run time.
//!
//! Every entry of this file comes after [`missing`](super::find::missing) has seen the library and each function in it: cudarc panics
//! where one is not there.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::device::{Device, DeviceError, Launch};
use super::modules::{Image, module_of};
use super::{find, graph};

/// Functions of the driver that are called here.
pub const SYMBOLS: [&str; 20] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemsetD8Async",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
];

/// The environment's bound on the memory that each GPU may give, for a card that is shared.
const MEMORY_VARIABLE: &str = "TEGUM_GPU_MEMORY";

/// Shared memory that a block has without asking.
const SHARED_WITHOUT_ASKING: u32 = 48 * 1024;

/// One GPU: a context, a stream that all work goes through in order, and the kernels loaded so far.
pub struct Gpu {
    label: String,
    /// Compute capability, such as (9, 0).
    capability: (i32, i32),
    most_shared: u32,
    /// Bytes that may be taken, and those that are.
    limit: usize,
    taken: AtomicUsize,
    graphs: bool,
    context: sys::CUcontext,
    stream: sys::CUstream,
    loaded: Mutex<Loaded>,
}

/// What the driver says of a GPU that fell off its bus, or was broken by its memory, its link or another program: no device, device
/// unavailable, uncorrectable errors of memory and link, a launch that timed out, broke the stack or failed, an error without a name.
const LOST: [u32; 8] = [46, 100, 214, 220, 702, 714, 719, 999];

/// Modules are never unloaded: they live as long as the process.
#[derive(Default)]
struct Loaded {
    /// By the name of their source.
    modules: BTreeMap<&'static str, sys::CUmodule>,
    functions: BTreeMap<&'static str, sys::CUfunction>,
}

// SAFETY: contexts, streams, modules and functions of the driver may be used from any thread; each call makes the context current on
// its own thread first, and the tables are behind a lock.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.label)
    }
}

impl Gpu {
    /// Opens GPU `number`.
    ///
    /// # Errors
    /// What is missing, or what the driver says.
    pub fn open(number: usize) -> Result<Gpu, String> {
        if let Some(missing) = find::missing() {
            return Err(missing);
        }
        let limit = match std::env::var(MEMORY_VARIABLE) {
            Ok(text) => bytes(&text)
                .ok_or_else(|| format!("{MEMORY_VARIABLE} is `{text}`: expected bytes, such as 512M or 8G"))?,
            Err(_) => usize::MAX,
        };
        let said = |doing: &str| {
            let doing = doing.to_owned();
            move |e: DriverError| format!("GPU {number}: {doing}: {}", message(e))
        };
        result::init().map_err(said("cuInit"))?;
        let count = result::device::get_count().map_err(said("counting devices"))?;
        if number as i64 >= count as i64 {
            return Err(format!("there is no GPU {number}: the driver has {count}"));
        }
        let device = result::device::get(number as i32).map_err(said("cuDeviceGet"))?;
        let name = result::device::get_name(device).map_err(said("cuDeviceGetName"))?;
        // SAFETY: the driver gave this device.
        let memory = unsafe { result::device::total_mem(device) }.map_err(said("cuDeviceTotalMem"))?;
        let limit = limit.min(memory);
        use sys::CUdevice_attribute_enum as Attribute;
        // SAFETY: the driver gave this device.
        let attribute = |which| unsafe { result::device::get_attribute(device, which) };
        let of = |which| attribute(which).map_err(said("cuDeviceGetAttribute"));
        let capability = (
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let most_shared = of(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as u32;
        // SAFETY: the driver gave this device; its context is kept for the life of the process.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(said("making a context"))?;
        // SAFETY: the context was just made.
        unsafe { result::ctx::set_current(context) }.map_err(said("cuCtxSetCurrent"))?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(said("cuStreamCreate"))?;
        let (label, taken, loaded) = (format!("{name} ({number})"), AtomicUsize::new(0), Mutex::default());
        let graphs = find::has_graphs();
        Ok(Gpu { label, capability, most_shared, limit, taken, graphs, context, stream, loaded })
    }

    fn said(&self, doing: &str, error: DriverError) -> DeviceError {
        let (label, doing, message) = (self.label.clone(), doing.to_owned(), message(error));
        match LOST.contains(&(error.0 as u32)) {
            true => DeviceError::Lost { label, doing, message },
            false => DeviceError::Driver { label, doing, message },
        }
    }

    /// Makes the context current on this thread.
    fn enter(&self) -> Result<(), DeviceError> {
        // SAFETY: the context lives as long as this.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| self.said("cuCtxSetCurrent", e))
    }

    /// A kernel by its name, its module loaded first if it was not.
    fn function(&self, kernel: &'static str) -> Result<sys::CUfunction, DeviceError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.functions.get(kernel) {
            return Ok(*function);
        }
        let doing = format!("kernel {kernel}");
        let absent = || DeviceError::Driver {
            label: self.label.clone(),
            doing: doing.clone(),
            message: "there is no such kernel".into(),
        };
        let of = module_of(kernel).ok_or_else(absent)?;
        let module = match loaded.modules.get(of.name) {
            Some(module) => *module,
            None => {
                let module = self.load(&of.image(self.capability))?;
                loaded.modules.insert(of.name, module);
                module
            }
        };
        let name = CString::new(kernel).expect("a name without zeros");
        // SAFETY: the module is loaded and stays so.
        let function = unsafe { result::module::get_function(module, name) }.map_err(|e| self.said(&doing, e))?;
        if self.most_shared > SHARED_WITHOUT_ASKING {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SIZE;
            // SAFETY: the function was just found. Kernels with static shared memory may have less; the launch says so then.
            let _ = unsafe { result::function::set_function_attribute(function, SIZE, self.most_shared as i32) };
        }
        loaded.functions.insert(kernel, function);
        Ok(function)
    }

    fn load(&self, image: &Image) -> Result<sys::CUmodule, DeviceError> {
        // SAFETY: a cubin, or PTX that ends with a zero.
        unsafe { result::module::load_data(image.bytes().as_ptr().cast()) }.map_err(|e| self.said("loading kernels", e))
    }
}

impl Device for Gpu {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn memory(&self) -> usize {
        self.limit
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        self.enter()?;
        let no_room = || DeviceError::OutOfMemory { label: self.label.clone(), bytes };
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let allocated = if before.saturating_add(bytes) > self.limit {
            Err(no_room())
        } else {
            // SAFETY: what is undefined is written before it is read, or zeroed.
            unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|e| match e.0 {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => no_room(),
                _ => self.said("cuMemAlloc", e),
            })
        };
        allocated.inspect_err(|_| {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        })
    }

    fn free(&self, address: u64, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        if self.enter().is_ok() {
            // SAFETY: it came from `allocate`, and `Buffer` frees it once. The driver waits for work that reads it. An error here
            // is that of a launch before, which the next read reports.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.enter()?;
        if bytes.is_empty() {
            return Ok(());
        }
        // SAFETY: `Buffer` writes within what it allocated. From memory that is not pinned the driver has copied the bytes when it
        // returns.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }
            .map_err(|e| self.said("copying to the GPU", e))
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.enter()?;
        if !bytes.is_empty() {
            // SAFETY: `Buffer` reads within what it allocated, and the stream is waited for before `bytes` is looked at.
            unsafe { result::memcpy_dtoh_async(bytes, address, self.stream) }
                .map_err(|e| self.said("copying from the GPU", e))?;
        }
        // SAFETY: the stream lives as long as this.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| self.said("waiting for the GPU", e))
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        self.enter()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: `Buffer` zeroes what it allocated.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream) }.map_err(|e| self.said("cuMemsetD8", e))
    }

    fn launch(&self, launch: Launch, args: &[u8]) -> Result<(), DeviceError> {
        let Launch { kernel, blocks, threads, shared } = launch;
        self.enter()?;
        let function = self.function(kernel)?;
        if blocks == 0 {
            return Ok(());
        }
        let mut parameters = [args.as_ptr() as *mut c_void];
        let (grid, block) = ((blocks, 1, 1), (threads, 1, 1));
        // SAFETY: the kernel takes this one structure, which the driver copies before it returns; its pointers are those of buffers that
        // live until a read has waited for the stream.
        let launched = unsafe { result::launch_kernel(function, grid, block, shared, self.stream, &mut parameters) };
        launched.map_err(|e| self.said(&format!("kernel {kernel}"), e))
    }

    fn most_shared(&self) -> u32 {
        self.most_shared
    }

    fn record(&self, launches: &[(Launch, Vec<u8>)]) -> Result<Option<u64>, DeviceError> {
        if !self.graphs {
            return Ok(None);
        }
        self.enter()?;
        let launches = launches.iter().filter(|(launch, _)| launch.blocks > 0);
        let of = |(launch, args): &'_ (Launch, Vec<u8>)| Ok((self.function(launch.kernel)?, *launch, args.clone()));
        let nodes = launches.map(of).collect::<Result<Vec<_>, DeviceError>>()?;
        let nodes: Vec<_> = nodes.iter().map(|(function, launch, args)| (*function, *launch, &args[..])).collect();
        // SAFETY: the functions were seen when this was opened; kernels and pointers are as in `launch`, and what owns the pointers
        // owns the sequence too.
        let graph = unsafe { graph::record(&nodes) }.map_err(|e| self.said("making a graph of launches", e))?;
        Ok(Some(graph as u64))
    }

    fn replay(&self, recorded: u64) -> Result<(), DeviceError> {
        self.enter()?;
        // SAFETY: `record` has made it, and `Sequence` runs it before it forgets it.
        let launched = unsafe { sys::cuGraphLaunch(recorded as sys::CUgraphExec, self.stream) };
        launched.result().map_err(|e| self.said("running a graph of launches", e))
    }

    fn forget(&self, recorded: u64) {
        if self.enter().is_ok() {
            // SAFETY: `record` has made it, and `Sequence` forgets it once; one that still runs is freed when it is done.
            let _ = unsafe { sys::cuGraphExecDestroy(recorded as sys::CUgraphExec) }.result();
        }
    }
}

/// Bytes as people write them: a number, perhaps with K, M or G behind it.
fn bytes(text: &str) -> Option<usize> {
    let (number, unit) = match text.strip_suffix(['K', 'M', 'G']) {
        Some(number) => (number, 1usize << (10 * (1 + "KMG".find(text.chars().next_back()?)?))),
        None => (text, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit)
}

/// The driver's number for an error, and its words where it has some.
pub fn message(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{}: {}", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("error {}", error.0 as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        assert_eq!(["12", "3K", "64M", "2G"].map(bytes), [Some(12), Some(3 << 10), Some(64 << 20), Some(2 << 30)]);
        assert_eq!(["", "M", "1.5G", "2T", "-1", "99999999999999999999G"].map(bytes), [None; 6]);
    }
}
