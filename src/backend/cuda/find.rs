//! What of CUDA is on this machine, and what is missing.

use cudarc::driver::{result, sys};

use super::arithmetic::Arithmetic;
use super::driver::{SYMBOLS, message};
use super::{graph, nvrtc};

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// "NVIDIA H100 80GB HBM3".
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes.
    pub memory: usize,
}

/// Why no GPU can train here: the driver's library, a function of it, or a device is missing. None where nothing is.
pub fn missing() -> Option<String> {
    // SAFETY: it opens a library of the search path, and runs its initialisers as any use would.
    if !unsafe { sys::is_culib_present() } {
        return Some("no NVIDIA driver (libcuda.so.1) was found".into());
    }
    let absent = absent(&SYMBOLS);
    if !absent.is_empty() {
        return Some(format!("the NVIDIA driver is too old: it has no {}", absent.join(", ")));
    }
    match result::init().and_then(|()| result::device::get_count()) {
        Ok(0) => Some("there is an NVIDIA driver, but no device".into()),
        Ok(_) => None,
        Err(error) => Some(format!("there is an NVIDIA driver, but no device answers ({})", message(error))),
    }
}

/// Functions that the driver's library has not; the library is there, as [`missing`] has seen first.
fn absent(symbols: &[&'static str]) -> Vec<&'static str> {
    // SAFETY: the library is there.
    let library = unsafe { sys::culib() };
    let is_absent = |symbol: &&&str| {
        // SAFETY: the symbol is only looked for.
        unsafe { library.get::<unsafe extern "C" fn()>(symbol.as_bytes()) }.is_err()
    };
    symbols.iter().filter(is_absent).copied().collect()
}

/// Whether launches can be kept as graphs; asked only where nothing is [`missing`].
pub fn has_graphs() -> bool {
    absent(&graph::SYMBOLS).is_empty()
}

impl Found {
    /// Whether its chip has an arithmetic.
    pub fn offers(&self, arithmetic: Arithmetic) -> bool {
        self.capability >= arithmetic.least_capability()
    }
}

/// Why GPU `number` does not have an arithmetic; none where it does.
pub fn lacks(number: usize, arithmetic: Arithmetic) -> Option<String> {
    let gpu = gpu(number as i32).filter(|gpu| !gpu.offers(arithmetic))?;
    let ((major, minor), (least, point)) = (gpu.capability, arithmetic.least_capability());
    let (name, asked) = (gpu.name, arithmetic.name());
    Some(format!("GPU {number}, {name}, has compute capability {major}.{minor}, and {asked} needs {least}.{point}"))
}

/// Every GPU in the driver's order; none where something is [`missing`].
pub fn gpus() -> Vec<Found> {
    if missing().is_some() {
        return vec![];
    }
    let count = result::device::get_count().unwrap_or(0);
    (0..count).filter_map(gpu).collect()
}

fn gpu(number: i32) -> Option<Found> {
    use sys::CUdevice_attribute_enum as Attribute;
    let device = result::device::get(number).ok()?;
    // SAFETY: the driver gave this device.
    let of = |which| unsafe { result::device::get_attribute(device, which) }.ok();
    let capability = (
        of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.ok()?;
    Some(Found { name: result::device::get_name(device).ok()?, capability, memory })
}

/// The driver's version as CUDA counts it, such as "12.8".
pub fn driver_version() -> Option<String> {
    if missing().is_some() {
        return None;
    }
    let mut version = 0;
    // SAFETY: the function is there, as `missing` has seen; the number is written.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// Lines for `tegum devices`: what was found, where, and what is missing.
pub fn report() -> String {
    let mut text = match missing() {
        Some(missing) => format!("not available: {missing}\n"),
        None => {
            let driver = driver_version().unwrap_or_else(|| "?".into());
            let graphs =
                if has_graphs() { "" } else { ", without graphs (CUDA 12.0 has them): small autoencoders are slower" };
            let mut text = format!("driver for CUDA {driver}{graphs}\n");
            for (number, gpu) in gpus().iter().enumerate() {
                let (major, minor) = gpu.capability;
                let gib = gpu.memory as f64 / (1u64 << 30) as f64;
                let offered: Vec<&str> =
                    Arithmetic::ALL.iter().filter(|one| gpu.offers(**one)).map(|one| one.name()).collect();
                text += &format!(
                    "  {number}: {}, compute capability {major}.{minor}, {gib:.0} GiB, arithmetic {}\n",
                    gpu.name,
                    offered.join(" or ")
                );
            }
            text
        }
    };
    text += &match nvrtc::found() {
        Some(nvrtc::Nvrtc { version, place: Some(place) }) => {
            format!("  NVRTC {version} in {}: kernels are compiled for the exact chip\n", place.display())
        }
        Some(nvrtc::Nvrtc { version, place: None }) => {
            format!("  NVRTC {version}: kernels are compiled for the exact chip\n")
        }
        None => "  NVRTC was not found: the driver compiles kernels (pip install nvidia-cuda-nvrtc for faster ones)\n"
            .into(),
    };
    text
}
