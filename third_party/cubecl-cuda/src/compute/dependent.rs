//! Kernels that begin while the launch before them still runs, and wait for it themselves
//! (programmatic dependent launch, compute capability 9.0).
//!
//! CubeCL has no operation for it: two comments in a kernel stand for the two instructions. Only launches that are
//! captured behind another kernel overlap; anywhere else the instructions do nothing.

use std::borrow::Cow;
use std::ffi::{CStr, c_uint, c_void};

use cudarc::driver::DriverError;
use cudarc::driver::sys::{
    self, CUfunction, CUlaunchAttribute, CUlaunchAttributeID, CUlaunchConfig, CUstream,
    CUstreamCaptureStatus,
};

/// What the comments and the instructions are called.
const WAIT: &str = "griddepcontrol.wait";
const BEGIN_NEXT: &str = "griddepcontrol.launch_dependents";

/// `source` with the instructions in place of the comments, on devices that have them.
///
/// Such a kernel's inputs are written while it runs: they must not be read as if they were constant, which
/// `__restrict__` lets the compiler do (`ld.global.nc`), ahead of the wait too.
pub(crate) fn lower(source: &str, arch: u32) -> Cow<'_, str> {
    let wait = format!("// {WAIT}\n");
    if arch < 90 || !source.contains(&wait) {
        return Cow::Borrowed(source);
    }
    let source = source
        .replace("__restrict__", "")
        .replace(&wait, &format!("asm volatile(\"{WAIT};\" ::: \"memory\");\n"))
        .replace(&format!("// {BEGIN_NEXT}\n"), &format!("asm volatile(\"{BEGIN_NEXT};\");\n"));
    Cow::Owned(source)
}

/// Whether compiled code waits for the launch before it.
pub(crate) fn waits(ptx: &CStr) -> bool {
    ptx.to_bytes().windows(WAIT.len()).any(|bytes| bytes == WAIT.as_bytes())
}

/// Whether launches on `stream` are captured: only then do they overlap. A graph holds a launch back until a copy
/// or a memset before it is over, for which a kernel itself cannot wait; a stream does not.
pub(crate) fn is_captured(stream: CUstream) -> bool {
    let mut status = CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    // SAFETY: `stream` is a valid stream, and the status goes to a local.
    let asked = unsafe { sys::cuStreamIsCapturing(stream, &mut status) };
    asked.result().is_ok() && status == CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE
}

/// [`cudarc::driver::result::launch_kernel`] of a kernel that waits for the one before it.
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn launch_kernel(
    function: CUfunction,
    grid: (c_uint, c_uint, c_uint),
    block: (c_uint, c_uint, c_uint),
    shared_mem_bytes: c_uint,
    stream: CUstream,
    params: &mut [*mut c_void],
) -> Result<(), DriverError> {
    // SAFETY: zeros are a valid attribute, of which the id and its value are then set.
    let mut attribute: CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    let config = CUlaunchConfig {
        gridDimX: grid.0,
        gridDimY: grid.1,
        gridDimZ: grid.2,
        blockDimX: block.0,
        blockDimY: block.1,
        blockDimZ: block.2,
        sharedMemBytes: shared_mem_bytes,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: 1,
    };
    // SAFETY: as the caller promises; the configuration lives until the call returns.
    unsafe { sys::cuLaunchKernelEx(&config, function, params.as_mut_ptr(), std::ptr::null_mut()) }
        .result()
}
