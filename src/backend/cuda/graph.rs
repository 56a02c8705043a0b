//! Launches kept as a graph of the driver, each node after the one before: one call runs them all, and the GPU goes from one to
//! the next without asking the host.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

use super::device::Launch;

/// Functions of the driver that are called here; drivers before CUDA 12.0 lack one, and launch by launch is their way.
pub const SYMBOLS: [&str; 6] = [
    "cuGraphCreate",
    "cuGraphAddKernelNode_v2",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// Makes a graph of launches, each with its kernel and its structure of arguments, and readies it to run.
///
/// # Errors
/// The driver refuses.
///
/// # Safety
/// All of [`SYMBOLS`] are there, a context is current, and each kernel is a function of it that takes one structure of these bytes,
/// whose pointers are those of memory that lives when the graph runs.
pub unsafe fn record(launches: &[(sys::CUfunction, Launch, &[u8])]) -> Result<sys::CUgraphExec, DriverError> {
    let (mut graph, mut ready) = (null_mut(), null_mut());
    // SAFETY: the place for it is ours; the rest is the caller's promise.
    unsafe { sys::cuGraphCreate(&mut graph, 0) }.result()?;
    // SAFETY: the graph was just made, and the caller's promise holds for its nodes.
    let added = unsafe { add(graph, launches) };
    // SAFETY: the graph is whole; flags of 0 ask for nothing more.
    let made = added.and_then(|()| unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) }.result());
    // SAFETY: what was made of the graph does not need it.
    let destroyed = unsafe { sys::cuGraphDestroy(graph) }.result();
    made.and(destroyed).map(|()| ready)
}

/// Adds a node for each launch, after the one before.
///
/// # Safety
/// As [`record`], and the graph is one that was made.
unsafe fn add(graph: sys::CUgraph, launches: &[(sys::CUfunction, Launch, &[u8])]) -> Result<(), DriverError> {
    let mut last: sys::CUgraphNode = null_mut();
    for (function, launch, args) in launches {
        let mut parameters = [args.as_ptr() as *mut c_void];
        let node = sys::CUDA_KERNEL_NODE_PARAMS {
            func: *function,
            gridDimX: launch.blocks,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared,
            kernelParams: parameters.as_mut_ptr(),
            extra: null_mut(),
            kern: null_mut(),
            ctx: null_mut(),
        };
        let before = last;
        let (after, count) = if before.is_null() { (null(), 0) } else { (&raw const before, 1) };
        // SAFETY: the node before is of this graph, and the arguments are copied before the call returns.
        unsafe { sys::cuGraphAddKernelNode_v2(&mut last, graph, after, count, &node) }.result()?;
    }
    Ok(())
}
