//! CubeCL kernels: written once for CUDA, Vulkan, Metal and WebGPU.
// Kernels are expanded into GPU code: the methods that these lints ask for do not exist there,
// built-in values such as `PLANE_DIM` are zeros only to the Rust compiler, and a condition known when a kernel
// is built leaves code out only as an `if` of its own.
#![allow(clippy::manual_is_multiple_of, clippy::int_plus_one, clippy::reversed_empty_ranges, clippy::collapsible_if)]

mod activation;
mod assign;
mod attention;
mod chunks;
mod conv;
mod decode_attention;
mod delta;
mod dependent;
mod flash_attention;
mod gated_norm;
pub(crate) mod gemm;
mod head;
mod kv_words;
mod linear;
mod mamba;
mod matvec;
mod matvec_int8;
pub(crate) mod matvec_mma;
mod mma;
mod moe;
mod norm;
mod rope;
mod runs;
mod sample;
mod sigmoid_gate;
mod unpack;
mod value_embed;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

/// Most cubes along one axis of a grid that every runtime takes.
const GRID_AXIS: usize = 32_768;

/// A grid of at least `cubes` cubes; kernels check their linear index against what they need.
fn grid(cubes: usize) -> CubeCount {
    stacked_grid(cubes, 1)
}

/// `layers` such grids, one above the other.
fn stacked_grid(cubes: usize, layers: usize) -> CubeCount {
    let x = cubes.clamp(1, GRID_AXIS);
    CubeCount::Static(x as u32, cubes.div_ceil(x).max(1) as u32, layers as u32)
}

/// A cube of `units` units in one row.
fn line(units: u32) -> CubeDim {
    CubeDim::new_2d(units, 1)
}

/// A new tensor beside `like`, its contents undefined.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    let size = shape.iter().product::<usize>() * dtype.size();
    let buffer = like.client.empty(size);
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), Shape::from(shape.to_vec()), buffer, dtype)
}

/// The shape, which must have `D` axes.
fn dims<const D: usize>(tensor: &CubeTensor) -> [usize; D] {
    let shape = tensor.meta.shape();
    std::array::from_fn(|i| shape[i])
}

/// Units of a plane on the device of `tensor`.
fn plane_size(tensor: &CubeTensor) -> u32 {
    tensor.client.properties().hardware.plane_size_max
}

/// The same tensor with its elements in order.
fn contiguous(tensor: CubeTensor) -> CubeTensor {
    into_contiguous(tensor)
}
