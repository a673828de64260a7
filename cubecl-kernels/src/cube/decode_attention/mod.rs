//! Attention of a decode step in one launch: head norms, rotary embedding, cache write, softmax, output gate.
//!
//! The keys of a row are split over the planes of a cube, and over cubes, each with a softmax of its own
//! keys; the cube that is done last merges them, or where that is much for one, a launch of its own. Scores and
//! values are computed on tensor cores where they take the cache's type, else by the units themselves.
#![allow(unsafe_code)]

mod merge;
mod tensor_cores;
mod units;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty};
use crate::ops::{AttentionSpec, DecodeAttentionOps, RopeSpec};

/// Score of a key that a row may not see.
const MASKED: f32 = -1.0e30;

/// How the keys and values of a row are multiplied.
enum Plan {
    TensorCores(tensor_cores::Plan),
    Units(units::Plan),
}

impl DecodeAttentionOps for CubeBackend {
    fn decode_attention(
        qkv: CubeTensor,
        q_norm: CubeTensor,
        k_norm: CubeTensor,
        table: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        arrivals: CubeTensor,
        rope: RopeSpec,
        attention: AttentionSpec,
        gate: Option<usize>,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let qkv = contiguous(qkv);
        let [rows, width] = dims(&qkv);
        let [_, rotary] = dims(&table);
        let [_, _, capacity, _] = dims(&k_cache);
        let AttentionSpec { heads, head_dim, scale, .. } = attention;
        let gate = gate.map(|gate| gate as u32);
        let plan = match tensor_cores::Plan::new(&attention, &rope, rotary, gate, &k_cache, rows) {
            Some(plan) => Plan::TensorCores(plan),
            None => Plan::Units(units::Plan::new(&attention, &rope, rotary, gate, &k_cache, rows)),
        };
        let split = match &plan {
            Plan::TensorCores(plan) => plan.split,
            Plan::Units(plan) => plan.split,
        };
        let splits = split.splits as usize;
        let out = empty(&qkv, [rows, heads * head_dim], DType::F32);
        let (partial, stats) = if splits > 1 {
            (
                empty(&qkv, [rows * heads * splits, head_dim], DType::F32),
                empty(&qkv, [rows * heads * splits, 2], DType::F32),
            )
        } else {
            (out.clone(), out.clone())
        };
        let count = CubeCount::Static(split.heads / split.group, rows as u32, split.splits);
        let dim = CubeDim::new_2d(split.plane, split.planes);
        let (width, capacity) = (width as u32, capacity as u32);
        let eps = rope.qk_norm_eps_bits.map_or(0.0, f32::from_bits);
        let dtype = dtype_to_elem_type(k_cache.dtype);
        // SAFETY: the buffers hold what the shapes say, positions lie below the capacity and slots
        // below the slot count, which the engine checks when it admits a request; keys are masked or
        // clamped to the used part of the cache.
        unsafe {
            match plan {
                Plan::TensorCores(plan) => tensor_cores::attend::launch_unchecked(
                    &out.client,
                    count,
                    dim,
                    tensor_cores::VECTOR as usize,
                    4,
                    qkv.clone().into_buffer_arg(),
                    q_norm.into_buffer_arg(),
                    k_norm.into_buffer_arg(),
                    table.into_buffer_arg(),
                    positions.clone().into_buffer_arg(),
                    slots.into_buffer_arg(),
                    k_cache.clone().into_buffer_arg(),
                    v_cache.clone().into_buffer_arg(),
                    partial.clone().into_buffer_arg(),
                    stats.clone().into_buffer_arg(),
                    arrivals.into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    width,
                    capacity,
                    scale,
                    eps,
                    plan,
                    dtype,
                ),
                Plan::Units(plan) => units::attend::launch_unchecked(
                    &out.client,
                    count,
                    dim,
                    4,
                    plan.width(),
                    qkv.clone().into_buffer_arg(),
                    q_norm.into_buffer_arg(),
                    k_norm.into_buffer_arg(),
                    table.into_buffer_arg(),
                    positions.clone().into_buffer_arg(),
                    slots.into_buffer_arg(),
                    k_cache.clone().into_buffer_arg(),
                    v_cache.clone().into_buffer_arg(),
                    k_cache.clone().into_buffer_arg(),
                    v_cache.clone().into_buffer_arg(),
                    partial.clone().into_buffer_arg(),
                    stats.clone().into_buffer_arg(),
                    arrivals.into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    width,
                    capacity,
                    scale,
                    eps,
                    plan,
                    dtype,
                ),
            }
            if splits > 1 && !split.folds {
                merge::merge::launch_unchecked(
                    &out.client,
                    CubeCount::Static(split.heads * split.d / 4 / split.merged(), rows as u32, 1),
                    dim,
                    4,
                    partial.into_buffer_arg(),
                    stats.into_buffer_arg(),
                    positions.into_buffer_arg(),
                    qkv.into_buffer_arg(),
                    out.clone().into_buffer_arg(),
                    width,
                    split,
                );
            }
        }
        (out, k_cache, v_cache)
    }
}

/// Whether cubes see what other cubes of the same launch wrote.
fn folds(tensor: &CubeTensor) -> bool {
    tensor.client.properties().features.device_memory_scope
}

/// Processors of the device of `tensor`; where it does not say, as many as a good graphics card has: with
/// fewer, cubes wait for each other.
fn processors(tensor: &CubeTensor) -> usize {
    tensor.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(64) as usize
}
