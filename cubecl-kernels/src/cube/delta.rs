//! The gated delta rule: the state stays in registers while the rows pass.
//!
//! Columns of the state do not depend on each other. Four units hold one column, every fourth row
//! each; a cube holds sixteen columns of one head and reads queries and keys of a few rows at a
//! time into shared memory.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, line};
use crate::ops::{DeltaOps, DeltaSpec, L2_EPS};

const UNITS: u32 = 64;
/// Units that hold one column of the state: no more than the smallest plane.
const SHARE: u32 = 4;
/// Columns of a cube.
const COLUMNS: u32 = UNITS / SHARE;
/// Floats of queries and keys in shared memory.
const SHARED_FLOATS: usize = 2_048;

impl DeltaOps for CubeBackend {
    fn delta_rule(
        qkv: CubeTensor,
        gates: CubeTensor,
        a: CubeTensor,
        dt_bias: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        state: CubeTensor,
        spec: DeltaSpec,
    ) -> (CubeTensor, CubeTensor) {
        let (qkv, gates) = (contiguous(qkv), contiguous(gates));
        let [m, gate_width] = dims(&gates);
        let out = empty(&qkv, [m, spec.value_heads * spec.value_dim], DType::F32);
        // A quarter of a cube's units takes the length of a query or key each.
        let most = COLUMNS as usize / 2;
        let rows = if spec.consecutive { (SHARED_FLOATS / (2 * spec.key_dim)).clamp(1, most).min(m) } else { 1 };
        let runs = if spec.consecutive { 1 } else { m as u32 };
        delta_rule::launch(
            &out.client,
            CubeCount::Static((spec.value_dim as u32).div_ceil(COLUMNS), spec.value_heads as u32, runs),
            line(UNITS),
            qkv.into_buffer_arg(),
            gates.into_buffer_arg(),
            a.into_buffer_arg(),
            dt_bias.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            state.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            m as u32,
            gate_width as u32,
            spec,
            rows as u32,
        );
        (out, state)
    }
}

/// The sum of `value` over the four units of a column.
#[cube]
fn share_sum(value: f32) -> f32 {
    let pair = value + plane_shuffle_xor(value, 1u32);
    pair + plane_shuffle_xor(pair, 2u32)
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn delta_rule(
    qkv: &[f32],
    gates: &[f32],
    a: &[f32],
    dt_bias: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [f32],
    out: &mut [f32],
    m: u32,
    gate_width: u32,
    #[comptime] spec: DeltaSpec,
    #[comptime] rows: u32,
) {
    let dk = comptime!(spec.key_dim as u32);
    let dv = comptime!(spec.value_dim as u32);
    let value_heads = comptime!(spec.value_heads as u32);
    let keys_width = comptime!((spec.key_heads * spec.key_dim) as u32);
    let width = comptime!(spec.width() as u32);
    let per_unit = comptime!(dk / SHARE);
    // Neighbouring vectors begin in different banks.
    let pitch = comptime!(dk + SHARE);
    // Keys of the rows, then their queries.
    let mut vectors = Shared::<[f32]>::new_slice(comptime!((2 * rows * pitch) as usize));
    // What brings each of them to length 1.
    let mut scales = Shared::<[f32]>::new_slice(comptime!((2 * rows) as usize));
    let mut values = Shared::<[f32]>::new_slice(comptime!((rows * COLUMNS) as usize));
    let mut decays = Shared::<[f32]>::new_slice(comptime!(rows as usize));
    let mut betas = Shared::<[f32]>::new_slice(comptime!(rows as usize));

    let unit = UNIT_POS_X;
    let part = unit % SHARE;
    let wanted = CUBE_POS_X * COLUMNS + unit / SHARE;
    // Units past the last column compute it again, so that every unit reaches the barriers.
    let column = select(wanted < dv, wanted, dv - 1);
    let head = CUBE_POS_Y;
    let key_head = if comptime!(spec.tiled) {
        head % comptime!(spec.key_heads as u32)
    } else {
        head / comptime!((spec.value_heads / spec.key_heads) as u32)
    };
    let first = CUBE_POS_Z;
    let end = if comptime!(spec.consecutive) { m } else { first + 1 };
    let base = (u32::cast_from(slots[first as usize]) * value_heads + head) * comptime!(dk * dv) + column;
    let anew = positions[first as usize] == 0;
    let mut s = Array::<f32>::new(comptime!(per_unit as usize));
    #[unroll]
    for j in 0..per_unit {
        let mut held = 0.0f32;
        if !anew {
            held = state[(base + (part + j * SHARE) * dv) as usize];
        }
        s[j as usize] = held;
    }

    let mut tile = first;
    while tile < end {
        let left = end - tile;
        let count = select(left < rows, left, rows);
        let mut i = unit;
        while i < count * dk {
            let at = (tile + i / dk) * width + key_head * dk + i % dk;
            let to = i / dk * pitch + i % dk;
            vectors[to as usize] = qkv[(at + keys_width) as usize];
            vectors[(to + comptime!(rows * pitch)) as usize] = qkv[at as usize];
            i += UNITS;
        }
        let mut i = unit;
        while i < count * COLUMNS {
            let place = CUBE_POS_X * COLUMNS + i % COLUMNS;
            let place = select(place < dv, place, dv - 1);
            let at = (tile + i / COLUMNS) * width + comptime!(2 * keys_width) + head * dv + place;
            values[i as usize] = qkv[at as usize];
            i += UNITS;
        }
        if unit < count {
            let at = (tile + unit) * gate_width + head;
            let x = gates[(at + comptime!(spec.a_offset as u32)) as usize] + dt_bias[head as usize];
            let softplus = max(x, 0.0f32) + f32::ln(1.0f32 + f32::exp(-f32::abs(x)));
            decays[unit as usize] = f32::exp(a[head as usize] * softplus);
            let x = gates[(at + comptime!(spec.b_offset as u32)) as usize];
            betas[unit as usize] = 1.0f32 / (1.0f32 + f32::exp(-x));
        }
        sync_cube();
        // Rows past the last leave numbers that nobody reads.
        let vector = (unit / SHARE) % comptime!(2 * rows);
        let mut squares = 0.0f32;
        #[unroll]
        for j in 0..per_unit {
            let x = vectors[(vector * pitch + part + j * SHARE) as usize];
            squares += x * x;
        }
        let length = f32::sqrt(share_sum(squares) + L2_EPS);
        if part == 0 && unit / SHARE < comptime!(2 * rows) {
            let factor = comptime!((spec.key_dim as f32).powf(-0.5));
            scales[vector as usize] = select(vector < rows, 1.0f32, factor) / length;
        }
        sync_cube();
        for row in 0..count {
            let key = row * pitch + part;
            let query = key + comptime!(rows * pitch);
            let key_scale = scales[row as usize];
            let decay = decays[row as usize];
            // Four sums, so that additions need not wait for one another.
            let mut read = Array::<f32>::new(4usize);
            #[unroll]
            for j in 0..4u32 {
                read[j as usize] = 0.0f32;
            }
            #[unroll]
            for j in 0..per_unit {
                read[comptime!(j % 4) as usize] += s[j as usize] * vectors[(key + j * SHARE) as usize];
            }
            let read = (read[0] + read[1]) + (read[2] + read[3]);
            let value = values[(row * COLUMNS + unit / SHARE) as usize];
            let write = betas[row as usize] * (value - decay * key_scale * share_sum(read)) * key_scale;
            let mut sums = Array::<f32>::new(4usize);
            #[unroll]
            for j in 0..4u32 {
                sums[j as usize] = 0.0f32;
            }
            #[unroll]
            for j in 0..per_unit {
                let next = s[j as usize] * decay + vectors[(key + j * SHARE) as usize] * write;
                s[j as usize] = next;
                sums[comptime!(j % 4) as usize] += next * vectors[(query + j * SHARE) as usize];
            }
            let sum = share_sum((sums[0] + sums[1]) + (sums[2] + sums[3])) * scales[(rows + row) as usize];
            if part == 0 && wanted < dv {
                out[((tile + row) * comptime!(value_heads * dv) + head * dv + column) as usize] = sum;
            }
        }
        sync_cube();
        tile += rows;
    }
    if wanted < dv {
        #[unroll]
        for j in 0..per_unit {
            state[(base + (part + j * SHARE) * dv) as usize] = s[j as usize];
        }
    }
}
