//! In chunks on tensor cores, for prompts: CUDA alone.
//!
//! With decays `γ` from a chunk's begin and the state `h` before it:
//!
//! ```text
//! y_t = γ_t h C_t + Σ_{i ≤ t} γ_t / γ_i Δ_i (C_t · B_i) x_i + D x_t,  h' = γ_C h + Σ_i γ_C / γ_i Δ_i x_i B_iᵀ
//! ```
//!
//! Dao and Gu, "Transformers are SSMs", 2024, section 6.
#![allow(unsafe_code)]

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Inputs, softplus};
use crate::cube::chunks::{
    CHUNK, PLANES, Prepared, Rule, Shape, VECTOR, first_of_key_head, key_head_of, launch as pass, products_below,
    sum_decays,
};
use crate::cube::dims;
use crate::cube::gemm::{FRAGMENT, NARROW, Pair};
use crate::ops::MambaSpec;

/// The shape of `m` rows that go in chunks of `dtype`, if they do: keys are B, queries C, values x.
pub(super) fn shape(like: &CubeTensor, spec: MambaSpec, m: usize, dtype: DType) -> Option<Shape> {
    let shape = Shape {
        rule: Rule::Plain,
        key_heads: spec.groups as u32,
        value_heads: spec.heads as u32,
        tiled: false,
        key_dim: spec.state_size as u32,
        value_dim: spec.head_dim as u32,
        width: spec.conv_dim() as u32,
        value_offset: 0,
    };
    (spec.consecutive && spec.inner_size().is_multiple_of(4) && shape.fits(like, m, dtype)).then_some(shape)
}

/// The recurrence as [`mamba_scan`](crate::ops::mamba_scan()) of many neighbouring rows, in `dtype`.
pub(super) fn launch(inputs: Inputs, state: &CubeTensor, y: &CubeTensor, spec: MambaSpec, shape: Shape, dtype: DType) {
    let Inputs { xbc, dt, heads, positions, slots } = inputs;
    let ([m, _], [_, dt_width]) = (dims(&xbc), dims(&dt));
    let prepared = Prepared::empty(&xbc, shape, m, dtype);
    // SAFETY: rows past the last are read as the last, and the buffers hold what the shapes say.
    unsafe {
        prepare::launch_unchecked(
            &y.client,
            CubeCount::Static((m as u32).div_ceil(CHUNK), shape.value_heads, 1),
            CubeDim::new_2d(32, PLANES),
            VECTOR as usize,
            4,
            xbc.clone().into_buffer_arg(),
            dt.into_buffer_arg(),
            heads.clone().into_buffer_arg(),
            prepared.keys.clone().into_buffer_arg(),
            prepared.queries.clone().into_buffer_arg(),
            prepared.mixed.clone().into_buffer_arg(),
            prepared.decays.clone().into_buffer_arg(),
            m as u32,
            dt_width as u32,
            spec.dt_offset as u32,
            shape,
            dtype_to_elem_type(dtype),
        );
    }
    pass(prepared, xbc, heads, positions, slots, state, y, m, shape);
}

/// One chunk of a head: its B and C in the type that is multiplied, `mixed`
/// `[t, i] = γ_t / γ_i Δ_i (C_t · B_i)` up to the diagonal, and `decays`: `γ_t`, then `γ_C / γ_i Δ_i`. Rows past the
/// last are zero and leave the state alone.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn prepare<F: Float, N: Size, W: Size>(
    xbc: &[Vector<f32, W>],
    dt: &[f32],
    parameters: &[f32],
    keys: &mut [Vector<F, N>],
    queries: &mut [Vector<F, N>],
    mixed: &mut [Vector<F, Pair>],
    decays: &mut [f32],
    m: u32,
    dt_width: u32,
    dt_offset: u32,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let (lane, plane) = (UNIT_POS_X, UNIT_POS_Y);
    let unit = plane * 32 + lane;
    let (chunk, head) = (CUBE_POS_X, CUBE_POS_Y);
    let group = key_head_of(head, shape);
    let row0 = chunk * CHUNK;
    let stride = comptime!(shape.key_stride());
    let mut b_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((CHUNK * shape.key_stride()) as usize));
    let mut c_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((CHUNK * shape.key_stride()) as usize));
    // Logarithms of the decays, one row's and from the begin on, and the time steps.
    let mut own = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));
    let mut so_far = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));
    let mut time_steps = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));

    // The first head of a group writes for all.
    let writes = first_of_key_head(head, shape);
    let parts = comptime!(shape.key_dim / VECTOR);
    #[unroll]
    for i in 0..comptime!(CHUNK * (shape.key_dim / VECTOR) / (32 * PLANES)) {
        let index = i * comptime!(32 * PLANES) + unit;
        let (t, part) = (index / parts, index % parts);
        let row = row0 + t;
        let inside = row < m;
        let from = min(row, m - 1) * comptime!(shape.width)
            + comptime!(shape.value_heads * shape.value_dim)
            + group * shape.key_dim
            + part * VECTOR;
        #[unroll]
        for which in 0..2u32 {
            let at = (from + comptime!(which * shape.key_heads * shape.key_dim)) / 4;
            let (low, high) = (xbc[at as usize], xbc[(at + 1) as usize]);
            let mut vector = Vector::<F, N>::empty();
            #[unroll]
            for j in 0..4usize {
                vector.insert(j, F::cast_from(select(inside, low.extract(j), 0.0f32)));
                vector.insert(comptime!(j + 4), F::cast_from(select(inside, high.extract(j), 0.0f32)));
            }
            let to = (t * stride + part) as usize;
            let out = ((group * CUBE_COUNT_X * CHUNK + row) * parts + part) as usize;
            if comptime!(which == 0) {
                b_tile[to] = vector;
                if writes {
                    keys[out] = vector;
                }
            } else {
                c_tile[to] = vector;
                if writes {
                    queries[out] = vector;
                }
            }
        }
    }
    if unit < CHUNK {
        let row = row0 + unit;
        let x = dt[(min(row, m - 1) * dt_width + dt_offset + head) as usize];
        let step = softplus(x + parameters[(comptime!(2 * shape.value_heads) + head) as usize]);
        let step = select(row < m, step, 0.0f32);
        time_steps[unit as usize] = step;
        own[unit as usize] = parameters[head as usize] * step;
    }
    sync_cube();
    if unit < CHUNK {
        let (sum, behind) = sum_decays(&own, unit);
        so_far[unit as usize] = sum;
        let at = (head * CUBE_COUNT_X + chunk) * comptime!(2 * CHUNK) + unit;
        decays[at as usize] = f32::exp(sum);
        decays[(at + CHUNK) as usize] = f32::exp(behind) * time_steps[unit as usize];
    }
    sync_cube();

    let products = products_below::<F, N>(&c_tile, &b_tile, shape);
    let square = (head * CUBE_COUNT_X + chunk) * comptime!(CHUNK * CHUNK / 2);
    #[unroll]
    for half in 0..2u32 {
        let t = plane * FRAGMENT + lane / 4 + half * 8;
        let decay = so_far[t as usize];
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            let product = products.index(comptime!(n as usize))[half as usize];
            let mut pair = Vector::<F, Pair>::empty();
            let first = n * NARROW + lane % 4 * 2;
            #[unroll]
            for j in 0..2u32 {
                let i = first + j;
                let between = f32::exp(min(decay - so_far[i as usize], 0.0f32)) * time_steps[i as usize];
                let element = comptime!(j as usize);
                pair.insert(element, F::cast_from(select(i <= t, between * product.extract(element), 0.0f32)));
            }
            mixed[(square + (t * CHUNK + first) / 2) as usize] = pair;
        }
    }
}
