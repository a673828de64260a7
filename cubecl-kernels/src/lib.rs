//! The performance-critical tensor operations of the engine.
//!
//! [`ops`] holds the public functions over Burn tensors. Each has a CubeCL kernel (`cube`, for
//! CUDA, Vulkan, Metal and WebGPU), a CPU twin (`flex`, for Burn's `flex` backend) and a plain
//! reference ([`reference`]) that the tests hold both to. [`formats`] describes how weights are
//! stored.

#[cfg(feature = "cube")]
mod cube;
mod error;
mod flex;
pub mod formats;
pub mod kernel_cache;
pub mod ops;
pub mod reference;

pub use error::KernelError;
pub use flex::read::ReadBuffer;
