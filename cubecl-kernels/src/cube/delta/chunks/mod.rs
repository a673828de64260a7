//! In chunks of 64 rows on tensor cores, for prompts: CUDA alone.
//!
//! With decays `γ` from a chunk's begin and the state `S` before it, the rows' writes `U` solve
//! `(I + A) U = β (V - γ K S)`, where `A[t, i] = β_t γ_t / γ_i (k_t · k_i)` below the diagonal. What does not
//! depend on the state, `(I + A)⁻¹ β` and the decayed products of queries with keys, [`prepare`] computes for all
//! chunks at once; [`pass`] then takes the state through them:
//!
//! ```text
//! U = (I + A)⁻¹ β (V - γ K S),  out = γ Q S + (γ_t / γ_i (q_t · k_i)) U,  S' = γ_C S + (γ_C / γ_i k_i)ᵀ U
//! ```
//!
//! Yang et al., "Gated Delta Networks", 2024, section 3.3.
#![allow(unsafe_code)]

mod pass;
mod prepare;

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Inputs;
use crate::cube::gemm::{FRAGMENT, NARROW, multiplies_registers};
use crate::cube::{dims, empty};
use crate::ops::DeltaSpec;

/// Rows of a chunk.
const CHUNK: u32 = 64;
/// Planes of a cube that prepares, sixteen rows each.
const PLANES: u32 = CHUNK / FRAGMENT;
/// Elements of a vector of a 16-bit type.
const VECTOR: u32 = 8;
/// Fewest rows that are worth it.
const MIN_ROWS: usize = 24;
/// Vectors from one row of a square tile to the next.
const SQUARE_STRIDE: u32 = CHUNK / VECTOR + 1;

/// How a layer's chunks are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    spec: DeltaSpec,
}

impl Plan {
    /// For `m` rows beside `like`, where tensor cores multiply `dtype`.
    pub(super) fn new(like: &CubeTensor, spec: DeltaSpec, m: usize, dtype: DType) -> Option<Self> {
        let properties = like.client.properties();
        let plan = Self { spec };
        let fits = spec.consecutive
            && m >= MIN_ROWS
            && matches!(spec.key_dim, 64 | 128)
            && spec.value_dim.is_multiple_of(FRAGMENT as usize)
            && multiplies_registers(properties, dtype)
            && properties.features.copy_async
            && plan.shared_bytes() <= properties.hardware.max_shared_memory_size;
        fits.then_some(plan)
    }

    /// Bytes of shared memory of a cube that passes, which takes more than one that prepares.
    fn shared_bytes(self) -> usize {
        let vectors = 2 * CHUNK * (2 * self.key_stride() + 2 * SQUARE_STRIDE);
        (vectors * 16 + 2 * CHUNK * 4) as usize
    }

    fn key_dim(self) -> u32 {
        self.spec.key_dim as u32
    }

    fn value_dim(self) -> u32 {
        self.spec.value_dim as u32
    }

    /// Columns of the queries, and of the keys.
    fn keys_width(self) -> u32 {
        (self.spec.key_heads * self.spec.key_dim) as u32
    }

    /// Vectors from one row of a tile of keys to the next: one more than a row holds, so that neighbouring rows
    /// lie in different banks.
    fn key_stride(self) -> u32 {
        self.key_dim() / VECTOR + 1
    }

    /// Products of sixteen columns along a key.
    fn key_steps(self) -> u32 {
        self.key_dim() / FRAGMENT
    }

    /// Planes of a cube that passes, sixteen columns of the state each: a power of two, so that they divide the
    /// tiles' vectors.
    fn pass_planes(self) -> u32 {
        let slices = self.value_dim() / FRAGMENT;
        [4, 2].into_iter().find(|planes| slices.is_multiple_of(*planes)).unwrap_or(1)
    }
}

/// The rule as [`delta_rule`](crate::ops::delta_rule()) of many neighbouring rows, in `dtype`.
pub(super) fn launch(inputs: Inputs, state: &CubeTensor, out: &CubeTensor, plan: Plan, dtype: DType) {
    let Inputs { qkv, gates, a, dt_bias, positions, slots } = inputs;
    let ([m, _], [_, gate_width]) = (dims(&qkv), dims(&gates));
    let DeltaSpec { key_heads, value_heads, key_dim, .. } = plan.spec;
    let (chunks, size) = (m.div_ceil(CHUNK as usize), CHUNK as usize);
    let normed = || empty(&qkv, [key_heads * chunks * size, key_dim], dtype);
    let square = || empty(&qkv, [value_heads * chunks * size, size], dtype);
    let (keys, queries, solved, mixed) = (normed(), normed(), square(), square());
    let decays = empty(&qkv, [value_heads * chunks, 2 * size], DType::F32);
    let element = dtype_to_elem_type(dtype);
    // SAFETY: rows past the last are read as the last and not written, and the buffers hold what the shapes say.
    unsafe {
        prepare::prepare::launch_unchecked(
            &out.client,
            CubeCount::Static(chunks as u32, value_heads as u32, 1),
            CubeDim::new_2d(32, PLANES),
            VECTOR as usize,
            4,
            qkv.clone().into_buffer_arg(),
            gates.into_buffer_arg(),
            a.into_buffer_arg(),
            dt_bias.into_buffer_arg(),
            keys.clone().into_buffer_arg(),
            queries.clone().into_buffer_arg(),
            solved.clone().into_buffer_arg(),
            mixed.clone().into_buffer_arg(),
            decays.clone().into_buffer_arg(),
            m as u32,
            gate_width as u32,
            plan,
            element,
        );
        pass::pass::launch_unchecked(
            &out.client,
            CubeCount::Static(plan.value_dim() / FRAGMENT / plan.pass_planes(), value_heads as u32, 1),
            CubeDim::new_2d(32, plan.pass_planes()),
            VECTOR as usize,
            qkv.into_buffer_arg(),
            keys.into_buffer_arg(),
            queries.into_buffer_arg(),
            solved.into_buffer_arg(),
            mixed.into_buffer_arg(),
            decays.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            state.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            m as u32,
            plan,
            element,
        );
    }
}
