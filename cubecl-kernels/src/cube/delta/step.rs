//! One row of each slot, as decode steps have them.
//!
//! A cube has 32 columns of a head's state, a unit four of them in every sixteenth row. The state is asked for
//! before the row is there, and all sums are taken over queries and keys as they come: their lengths follow.
#![allow(unsafe_code)]

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Inputs, decay_and_strength};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::{dims, plane_size};
use crate::ops::{DeltaSpec, L2_EPS};

const UNITS: u32 = 128;
/// Elements of a vector.
const VECTOR: u32 = 4;
/// Units side by side in a row of the state.
const WIDE: u32 = 8;
/// Rows that the units of a cube have at once.
const DEEP: u32 = UNITS / WIDE;
/// What a unit sums: by key and by query for each of its columns.
const SUMS: u32 = 2 * VECTOR;

/// Whether the step of `spec` goes this way.
pub(super) fn takes(like: &CubeTensor, spec: DeltaSpec) -> bool {
    let plane = plane_size(like);
    !spec.consecutive
        && spec.value_dim.is_multiple_of((WIDE * VECTOR) as usize)
        && spec.key_dim.is_multiple_of(DEEP as usize)
        && plane.is_power_of_two()
        && (WIDE..=UNITS).contains(&plane)
}

/// The rule for each row's slot, where [`takes`] allows it.
pub(super) fn launch(inputs: Inputs, state: &CubeTensor, out: &CubeTensor, spec: DeltaSpec) {
    let Inputs { qkv, gates, a, dt_bias, positions, slots } = inputs;
    let [m, gate_width] = dims(&gates);
    let plane = plane_size(&qkv);
    let columns = spec.value_dim as u32 / (WIDE * VECTOR);
    // SAFETY: the grid covers heads and columns exactly, and the buffers hold what the shapes say: qkv
    // `[m, width]`, gates `[m, gate_width]`, `[value_heads]` twice, `[m]` twice, the states of all slots.
    unsafe {
        step::launch_unchecked(
            &out.client,
            CubeCount::Static(columns, spec.value_heads as u32, m as u32),
            CubeDim::new_2d(plane, UNITS / plane),
            VECTOR as usize,
            qkv.clone().into_buffer_arg(),
            qkv.into_buffer_arg(),
            gates.into_buffer_arg(),
            a.into_buffer_arg(),
            dt_bias.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            state.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            gate_width as u32,
            spec,
            plane,
        );
    }
}

/// The sum of `value` over the rows that a plane has.
#[cube]
fn rows_sum(value: f32, #[comptime] plane: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!((plane / WIDE).ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(WIDE << i));
    }
    sum
}

/// `vectors` holds the same buffer as `qkv`.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn step<N: Size>(
    qkv: &[f32],
    vectors: &[Vector<f32, N>],
    gates: &[f32],
    a: &[f32],
    dt_bias: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [Vector<f32, N>],
    out: &mut [Vector<f32, N>],
    gate_width: u32,
    #[comptime] spec: DeltaSpec,
    #[comptime] plane: u32,
) {
    begin_next();
    let planes = comptime!(UNITS / plane);
    let per_unit = comptime!(spec.key_dim as u32 / DEEP);
    let row_vectors = comptime!(spec.value_dim as u32 / VECTOR);
    let keys_width = comptime!((spec.key_heads * spec.key_dim) as u32);
    let width = comptime!(spec.width() as u32);
    let wide = UNIT_POS_X % WIDE;
    let deep = UNIT_POS_Y * comptime!(plane / WIDE) + UNIT_POS_X / WIDE;
    let column = CUBE_POS_X * WIDE + wide;
    let head = CUBE_POS_Y;
    let row = CUBE_POS_Z;
    let key_head = if comptime!(spec.tiled) {
        head % comptime!(spec.key_heads as u32)
    } else {
        head / comptime!((spec.value_heads / spec.key_heads) as u32)
    };

    let (position, slot) = (positions[row as usize], slots[row as usize]);
    let head_of_slot = u32::cast_from(slot) * comptime!(spec.value_heads as u32) + head;
    let base = head_of_slot * comptime!(spec.key_dim as u32 * row_vectors) + column;
    let mut s = Array::<Vector<f32, N>>::new(comptime!(per_unit as usize));
    #[unroll]
    for i in 0..per_unit {
        s[i as usize] = Vector::new(0.0f32);
        if position != 0 {
            s[i as usize] = state[(base + (deep + i * DEEP) * row_vectors) as usize];
        }
    }
    let (a, dt_bias) = (a[head as usize], dt_bias[head as usize]);
    wait_for_launches();

    let key_at = row * width + keys_width + key_head * comptime!(spec.key_dim as u32) + deep;
    let mut keys = Array::<f32>::new(comptime!(per_unit as usize));
    let mut queries = Array::<f32>::new(comptime!(per_unit as usize));
    #[unroll]
    for i in 0..per_unit {
        keys[i as usize] = qkv[(key_at + i * DEEP) as usize];
        queries[i as usize] = qkv[(key_at - keys_width + i * DEEP) as usize];
    }
    let value = vectors[((row * width + comptime!(2 * keys_width)) / VECTOR + head * row_vectors + column) as usize];
    let gate_at = row * gate_width + head;
    let decay_input = gates[(gate_at + comptime!(spec.a_offset as u32)) as usize];
    let strength_input = gates[(gate_at + comptime!(spec.b_offset as u32)) as usize];

    let mut by_key = Vector::<f32, N>::new(0.0f32);
    let mut by_query = Vector::<f32, N>::new(0.0f32);
    let mut squares_k = 0.0f32;
    let mut squares_q = 0.0f32;
    let mut product = 0.0f32;
    #[unroll]
    for i in 0..per_unit {
        let (k, q) = (keys[i as usize], queries[i as usize]);
        by_key += s[i as usize] * Vector::new(k);
        by_query += s[i as usize] * Vector::new(q);
        squares_k += k * k;
        squares_q += q * q;
        product += q * k;
    }

    // What planes have summed, for all of them.
    let mut sums = Shared::<[f32]>::new_slice(comptime!((planes * WIDE * SUMS) as usize));
    let mut lengths = Shared::<[f32]>::new_slice(comptime!((planes * 3) as usize));
    squares_k = rows_sum(squares_k, plane);
    squares_q = rows_sum(squares_q, plane);
    product = rows_sum(product, plane);
    #[unroll]
    for c in 0..VECTOR {
        let by_key = rows_sum(by_key.extract(comptime!(c as usize)), plane);
        let by_query = rows_sum(by_query.extract(comptime!(c as usize)), plane);
        if UNIT_POS_X < WIDE {
            let at = (UNIT_POS_Y * WIDE + wide) * SUMS;
            sums[(at + c) as usize] = by_key;
            sums[(at + VECTOR + c) as usize] = by_query;
        }
    }
    if UNIT_POS_X == 0 {
        lengths[(UNIT_POS_Y * 3) as usize] = squares_k;
        lengths[(UNIT_POS_Y * 3 + 1) as usize] = squares_q;
        lengths[(UNIT_POS_Y * 3 + 2) as usize] = product;
    }
    sync_cube();
    squares_k = 0.0f32;
    squares_q = 0.0f32;
    product = 0.0f32;
    #[unroll]
    for p in 0..planes {
        squares_k += lengths[comptime!((p * 3) as usize)];
        squares_q += lengths[comptime!((p * 3 + 1) as usize)];
        product += lengths[comptime!((p * 3 + 2) as usize)];
    }
    let k_scale = 1.0f32 / f32::sqrt(squares_k + L2_EPS);
    let q_scale = comptime!((spec.key_dim as f32).powf(-0.5)) / f32::sqrt(squares_q + L2_EPS);
    let (decay, strength) = decay_and_strength(decay_input + dt_bias, a, strength_input);
    let decay = f32::exp(decay);

    let mut write = Vector::<f32, N>::empty();
    let mut read = Vector::<f32, N>::empty();
    #[unroll]
    for c in 0..VECTOR {
        let mut by_key = 0.0f32;
        let mut by_query = 0.0f32;
        #[unroll]
        for p in 0..planes {
            let at = (p * WIDE + wide) * SUMS + c;
            by_key += sums[at as usize];
            by_query += sums[(at + VECTOR) as usize];
        }
        let c = comptime!(c as usize);
        let written = strength * (value.extract(c) - decay * by_key * k_scale);
        write.insert(c, written);
        read.insert(c, decay * by_query * q_scale + written * product * k_scale * q_scale);
    }
    #[unroll]
    for i in 0..per_unit {
        let next = s[i as usize] * Vector::new(decay) + write * Vector::new(keys[i as usize] * k_scale);
        state[(base + (deep + i * DEEP) * row_vectors) as usize] = next;
    }
    if deep == 0 {
        out[(row * comptime!(spec.value_heads as u32 * row_vectors) + head * row_vectors + column) as usize] = read;
    }
}
