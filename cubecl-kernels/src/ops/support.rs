//! What a device can do.

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(any(feature = "vulkan", feature = "webgpu", feature = "metal"))]
use burn::backend::DispatchDevice;
use burn::backend::{Backend, DTypeUsage, Dispatch};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Whether buffers of `dtype` can be read and written, as caches are.
pub fn stores(device: &Device, dtype: DType) -> bool {
    Dispatch::dtype_usage(device.as_dispatch(), dtype).contains(DTypeUsage::Storage)
}

/// Whether products take operands of `dtype`.
pub fn multiplies(device: &Device, dtype: DType) -> bool {
    let usage = Dispatch::dtype_usage(device.as_dispatch(), dtype);
    stores(device, dtype) && (usage.contains(DTypeUsage::Arithmetic) || usage.contains(DTypeUsage::Accelerated))
}

/// Launches that a device of `wgpu` is given at once: most steps are one submission, and a long prompt starts
/// before all of it is recorded.
#[cfg(any(feature = "vulkan", feature = "webgpu", feature = "metal"))]
const LAUNCHES_AT_ONCE: usize = 128;

/// Has a device of `wgpu` be given more launches at once than CubeCL's 32: every submission costs it a pause.
/// Of no effect once the device is in use, as in an application that has set it up, and where
/// `CUBECL_WGPU_MAX_TASKS` says how many.
pub fn prepare(device: &Device) {
    #[cfg(any(feature = "vulkan", feature = "webgpu", feature = "metal"))]
    {
        use std::sync::{Mutex, PoisonError};

        use cubecl::wgpu::{AutoGraphicsApi, RuntimeOptions, WgpuDevice, try_init_setup};

        static PREPARED: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());
        let DispatchDevice::Cube(cubecl::Device::Wgpu(device)) = device.as_dispatch() else { return };
        let mut prepared = PREPARED.lock().unwrap_or_else(PoisonError::into_inner);
        if std::env::var_os("CUBECL_WGPU_MAX_TASKS").is_some() || prepared.contains(device) {
            return;
        }
        prepared.push(device.clone());
        if let Ok(options) = RuntimeOptions::with_tasks_max(Some(LAUNCHES_AT_ONCE)) {
            // Refused where the device is in use, or does not work, which its first computation tells of.
            let refused = || try_init_setup::<AutoGraphicsApi>(device, options).is_err();
            let _ = catch_unwind(AssertUnwindSafe(refused));
        }
    }
    #[cfg(not(any(feature = "vulkan", feature = "webgpu", feature = "metal")))]
    let _ = device;
}

/// Runs one small kernel and checks what it computes. A runtime that can't compile kernels still
/// allocates, copies and answers, with whatever lies in its memory.
pub fn computes(device: &Device) -> bool {
    let values = [-1.0f32, 2.0, 0.5, 3.0];
    let check = || {
        let x = Tensor::<2>::from_data(TensorData::new(values.to_vec(), [1, 4]), (device, DType::F32));
        super::relu2(x).try_into_data().ok()?.try_to_vec::<f32>().ok()
    };
    catch_unwind(AssertUnwindSafe(check)).is_ok_and(|found| found == Some(vec![0.0, 4.0, 0.25, 9.0]))
}

/// Why CUDA kernels could not be compiled: NVRTC reads the toolkit's headers.
///
/// # Errors
/// What is missing, in words.
#[cfg(feature = "cuda")]
pub fn cuda_toolkit() -> Result<(), String> {
    let found = cubecl_cuda::install::cuda_path().map(|path| path.join("include"));
    match found {
        None => Err("has no CUDA toolkit, whose NVRTC and headers compile the kernels; CUDA_PATH may name it".into()),
        Some(include) if !include.join("cuda_fp16.h").is_file() => {
            Err(format!("has no CUDA headers in {}; CUDA_PATH may name the toolkit", include.display()))
        }
        Some(_) => Ok(()),
    }
}
