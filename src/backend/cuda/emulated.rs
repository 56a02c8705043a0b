//! A device of tests: the same kernels compiled by the C++ compiler of this machine through `kernels/emulation.h`.

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use libloading::{Library, Symbol};

use super::device::{Device, DeviceError, Launch};

/// More than any test asks for, so that one may ask for too much.
const MEMORY: usize = 1 << 34;

/// Kernels on this machine's cores, fibers in the given order: 0 forwards, 1 backwards, another number a shuffle. None, with a word
/// on stderr, where there is no C++ compiler or the processor has no fibers.
pub fn emulated(order: u32) -> Option<Arc<dyn Device>> {
    static LIBRARY: OnceLock<Option<&'static Library>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| library().inspect_err(|why| eprintln!("no emulated device: {why}")).ok());
    library.map(|library| Arc::new(Emulated { library, order }) as Arc<dyn Device>)
}

/// Compiles every kernel and opens the result, which stays open.
///
/// `TEGUM_EMULATED_KERNELS` names another folder of kernels and `TEGUM_EMULATED_FLAGS` further flags of the compiler, so that one
/// built test program checks kernels that were changed on purpose (`scripts/mutate_barriers.py`).
fn library() -> Result<&'static Library, String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("fibers are switched on x86-64 alone".into());
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("src/backend/cuda/kernels");
    let kernels = std::env::var_os("TEGUM_EMULATED_KERNELS").map_or_else(ours, PathBuf::from);
    let flags = std::env::var("TEGUM_EMULATED_FLAGS").unwrap_or_default();
    let folder = tempfile::Builder::new().prefix("tegum-kernels").tempdir().map_err(|e| e.to_string())?;
    let out = folder.path().join("kernels.so");
    let done = Command::new(&compiler)
        .args(["-std=c++17", "-O2", "-march=x86-64-v3", "-ffp-contract=off", "-fno-strict-aliasing"])
        .args(["-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread", "-DTEGUM_EMULATED", "-x", "c++", "-o"])
        .arg(&out)
        .args(flags.split_whitespace())
        .arg(kernels.join("all.cu"))
        .output()
        .map_err(|e| format!("{compiler}: {e}"))?;
    // A compiler that is there and refuses is a defect of the kernels, not of the machine.
    assert!(done.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: the library was just made from our own source and runs nothing when it is opened.
    // What is mapped stays when its file goes with the folder.
    let library = unsafe { Library::new(&out) }.map_err(|e| e.to_string())?;
    Ok(Box::leak(Box::new(library)))
}

struct Emulated {
    library: &'static Library,
    order: u32,
}

impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulated({})", self.order)
    }
}

type Entry = unsafe extern "C" fn(u32, u32, usize, u32, u32, *const u8);

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), 256).expect("a power of two and a size below the address space")
}

impl Device for Emulated {
    fn label(&self) -> String {
        "emulated device".into()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        if bytes > MEMORY {
            return Err(DeviceError::OutOfMemory { label: self.label(), bytes });
        }
        // SAFETY: the layout has a size above 0.
        let memory = unsafe { alloc(layout(bytes)) };
        assert!(!memory.is_null(), "this machine has no room for {bytes} bytes");
        // SAFETY: the memory has that many bytes. NaN, so that what nobody wrote shows.
        unsafe { memory.write_bytes(0xff, bytes) };
        Ok(memory as u64)
    }

    fn free(&self, address: u64, bytes: usize) {
        // SAFETY: it came from `allocate` with this size, and `Buffer` frees it once.
        unsafe { dealloc(address as *mut u8, layout(bytes)) }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: `Buffer` writes within what it allocated.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        // SAFETY: `Buffer` reads within what it allocated.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: `Buffer` zeroes what it allocated.
        unsafe { (address as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    fn launch(&self, launch: Launch, args: &[u8]) -> Result<(), DeviceError> {
        let name = format!("emulate_{}", launch.kernel);
        // SAFETY: every `emulate_` function has this type (`KERNEL` in common.cuh).
        let entry: Result<Symbol<'_, Entry>, _> = unsafe { self.library.get(name.as_bytes()) };
        let entry = entry.map_err(|e| DeviceError::Driver {
            label: self.label(),
            doing: format!("kernel {}", launch.kernel),
            message: e.to_string(),
        })?;
        let Launch { blocks, threads, shared, .. } = launch;
        // SAFETY: `args` is the kernel's structure, and its pointers are those of buffers that live.
        unsafe { entry(blocks, threads, shared as usize, self.order, 1, args.as_ptr()) };
        Ok(())
    }

    fn most_shared(&self) -> u32 {
        227 * 1024
    }
}

/// A device that has less memory than another, or smaller blocks.
#[derive(Debug)]
pub struct Small {
    device: Arc<dyn Device>,
    /// Bytes that may still be taken.
    pub left: AtomicUsize,
    /// How often there was no room.
    pub refused: AtomicUsize,
    most_shared: usize,
}

impl Small {
    /// With so much memory, and so much shared memory at most, in bytes.
    pub fn new(device: &Arc<dyn Device>, memory: usize, most_shared: usize) -> Small {
        Small { device: device.clone(), left: memory.into(), refused: 0.into(), most_shared }
    }
}

impl Device for Small {
    fn label(&self) -> String {
        "small device".into()
    }
    fn memory(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(DeviceError::OutOfMemory { label: self.label(), bytes });
        }
        self.device.allocate(bytes)
    }
    fn free(&self, address: u64, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
        self.device.free(address, bytes);
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.device.write(address, bytes)
    }
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read(address, bytes)
    }
    fn zero(&self, address: u64, bytes: usize) -> Result<(), DeviceError> {
        self.device.zero(address, bytes)
    }
    fn launch(&self, launch: Launch, args: &[u8]) -> Result<(), DeviceError> {
        self.device.launch(launch, args)
    }
    fn most_shared(&self) -> u32 {
        (self.device.most_shared() as usize).min(self.most_shared) as u32
    }
}
