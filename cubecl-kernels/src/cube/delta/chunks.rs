//! In chunks on tensor cores, for prompts: CUDA alone.
//!
//! With decays `γ` from a chunk's begin and the state `S` before it, the rows' writes `U` solve
//! `(I + A) U = β (V - γ K S)`, where `A[t, i] = β_t γ_t / γ_i (k_t · k_i)` below the diagonal:
//!
//! ```text
//! U = (I + A)⁻¹ β (V - γ K S),  out = γ Q S + (γ_t / γ_i (q_t · k_i)) U,  S' = γ_C S + (γ_C / γ_i k_i)ᵀ U
//! ```
//!
//! Yang et al., "Gated Delta Networks", 2024, section 3.3.
#![allow(unsafe_code)]

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Inputs, prepare};
use crate::cube::chunks::{CHUNK, PLANES, Prepared, Rule, Shape, VECTOR, launch as pass};
use crate::cube::dims;
use crate::ops::DeltaSpec;

/// The shape of `m` rows that go in chunks of `dtype`, if they do.
pub(super) fn shape(like: &CubeTensor, spec: DeltaSpec, m: usize, dtype: DType) -> Option<Shape> {
    let shape = Shape {
        rule: Rule::Delta,
        key_heads: spec.key_heads as u32,
        value_heads: spec.value_heads as u32,
        tiled: spec.tiled,
        key_dim: spec.key_dim as u32,
        value_dim: spec.value_dim as u32,
        width: spec.width() as u32,
        value_offset: (2 * spec.key_heads * spec.key_dim) as u32,
    };
    (spec.consecutive && shape.fits(like, m, dtype)).then_some(shape)
}

/// The rule as [`delta_rule`](crate::ops::delta_rule()) of many neighbouring rows, in `dtype`.
pub(super) fn launch(
    inputs: Inputs,
    state: &CubeTensor,
    out: &CubeTensor,
    spec: DeltaSpec,
    shape: Shape,
    dtype: DType,
) {
    let Inputs { qkv, gates, a, dt_bias, positions, slots } = inputs;
    let ([m, _], [_, gate_width]) = (dims(&qkv), dims(&gates));
    let prepared = Prepared::empty(&qkv, shape, m, dtype);
    // SAFETY: rows past the last are read as the last, and the buffers hold what the shapes say.
    unsafe {
        prepare::prepare::launch_unchecked(
            &out.client,
            CubeCount::Static((m as u32).div_ceil(CHUNK), shape.value_heads, 1),
            CubeDim::new_2d(32, PLANES),
            VECTOR as usize,
            4,
            qkv.clone().into_buffer_arg(),
            gates.into_buffer_arg(),
            a.clone().into_buffer_arg(),
            dt_bias.into_buffer_arg(),
            prepared.keys.clone().into_buffer_arg(),
            prepared.queries.clone().into_buffer_arg(),
            prepared.solved.clone().into_buffer_arg(),
            prepared.mixed.clone().into_buffer_arg(),
            prepared.decays.clone().into_buffer_arg(),
            m as u32,
            gate_width as u32,
            spec,
            shape,
            dtype_to_elem_type(dtype),
        );
    }
    // Nothing goes past the state; `a` stands in.
    pass(prepared, qkv, a, positions, slots, state, out, m, shape);
}
