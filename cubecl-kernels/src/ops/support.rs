//! Which number types a device has.

use burn::backend::{Backend, DTypeUsage, Dispatch};
use burn::tensor::{DType, Device};

/// Whether buffers of `dtype` can be read and written, as caches are.
pub fn stores(device: &Device, dtype: DType) -> bool {
    Dispatch::dtype_usage(device.as_dispatch(), dtype).contains(DTypeUsage::Storage)
}

/// Whether products take operands of `dtype`.
pub fn multiplies(device: &Device, dtype: DType) -> bool {
    let usage = Dispatch::dtype_usage(device.as_dispatch(), dtype);
    stores(device, dtype) && (usage.contains(DTypeUsage::Arithmetic) || usage.contains(DTypeUsage::Accelerated))
}
