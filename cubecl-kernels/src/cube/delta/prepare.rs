//! What a chunk's rows have to do with each other.

use cubecl::prelude::*;

use super::decay_and_strength;
use crate::cube::chunks::{CHUNK, PLANES, Shape, VECTOR, first_of_key_head, key_head_of, products_below, sum_decays};
use crate::cube::gemm::{FRAGMENT, NARROW, Pair};
use crate::cube::head::lanes_sum;
use crate::ops::{DeltaSpec, L2_EPS};

/// Floats from one row of a square tile to the next.
const STRIDE: u32 = CHUNK + 1;
/// Terms of a sum that a unit adds at once.
const AT_ONCE: u32 = 4;

/// One chunk of a value head: its queries and keys of length 1 (queries also times `key_dim^-0.5`), `solved`
/// `[t, i] = (I + A)⁻¹ β`, `mixed` `[t, i] = γ_t / γ_i (q_t · k_i)` up to the diagonal, and `decays`: `γ_t`, then
/// `γ_C / γ_t`. Rows past the last are zero and leave the state alone.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn prepare<F: Float, N: Size, W: Size>(
    qkv: &[Vector<f32, W>],
    gates: &[f32],
    a: &[f32],
    dt_bias: &[f32],
    keys: &mut [Vector<F, N>],
    queries: &mut [Vector<F, N>],
    solved: &mut [Vector<F, Pair>],
    mixed: &mut [Vector<F, Pair>],
    decays: &mut [f32],
    m: u32,
    gate_width: u32,
    #[comptime] spec: DeltaSpec,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let (lane, plane) = (UNIT_POS_X, UNIT_POS_Y);
    let unit = plane * 32 + lane;
    let (chunk, head) = (CUBE_POS_X, CUBE_POS_Y);
    let key_head = key_head_of(head, shape);
    let row0 = chunk * CHUNK;
    let mut k_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((CHUNK * shape.key_stride()) as usize));
    let mut q_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((CHUNK * shape.key_stride()) as usize));
    // A, and the inverse of I + A.
    let mut below = Shared::<[f32]>::new_slice(comptime!((CHUNK * STRIDE) as usize));
    let mut inverse = Shared::<[f32]>::new_slice(comptime!((CHUNK * STRIDE) as usize));
    // Logarithms of the decays, one row's and from the begin on, and the writing strengths.
    let mut own = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));
    let mut so_far = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));
    let mut strengths = Shared::<[f32]>::new_slice(comptime!(CHUNK as usize));

    // A few rows at once, a vector of each a unit.
    let parts = comptime!(shape.key_dim / VECTOR);
    let at_once = comptime!(32 * VECTOR / shape.key_dim);
    let part = lane % parts;
    // The first of the value heads of a key head writes for all.
    let writes = first_of_key_head(head, shape);
    #[unroll]
    for i in 0..comptime!(FRAGMENT / at_once) {
        let t = plane * FRAGMENT + i * at_once + lane / parts;
        let row = row0 + t;
        let from = (min(row, m - 1) * comptime!(shape.width) + key_head * shape.key_dim + part * VECTOR) / 4;
        #[unroll]
        for which in 0..2u32 {
            let from = from + comptime!(which * shape.key_heads * shape.key_dim / 4);
            let (low, high) = (qkv[from as usize], qkv[(from + 1) as usize]);
            let mut squares = 0.0f32;
            #[unroll]
            for j in 0..4usize {
                squares += low.extract(j) * low.extract(j) + high.extract(j) * high.extract(j);
            }
            let factor = comptime!(if which == 0 { (spec.key_dim as f32).powf(-0.5) } else { 1.0 });
            let scale = factor / f32::sqrt(lanes_sum(squares, parts) + L2_EPS);
            let scale = select(row < m, scale, 0.0f32);
            let mut vector = Vector::<F, N>::empty();
            #[unroll]
            for j in 0..4usize {
                vector.insert(j, F::cast_from(low.extract(j) * scale));
                vector.insert(comptime!(j + 4), F::cast_from(high.extract(j) * scale));
            }
            let to = (t * shape.key_stride() + part) as usize;
            let out = ((key_head * CUBE_COUNT_X * CHUNK + row) * parts + part) as usize;
            if comptime!(which == 0) {
                q_tile[to] = vector;
                if writes {
                    queries[out] = vector;
                }
            } else {
                k_tile[to] = vector;
                if writes {
                    keys[out] = vector;
                }
            }
        }
    }
    if unit < CHUNK {
        let row = row0 + unit;
        let at = min(row, m - 1) * gate_width + head;
        let x = gates[(at + comptime!(spec.a_offset as u32)) as usize] + dt_bias[head as usize];
        let b = gates[(at + comptime!(spec.b_offset as u32)) as usize];
        let (decay, strength) = decay_and_strength(x, a[head as usize], b);
        own[unit as usize] = select(row < m, decay, 0.0f32);
        strengths[unit as usize] = select(row < m, strength, 0.0f32);
    }
    let mut i = unit;
    while i < comptime!(CHUNK * STRIDE) {
        inverse[i as usize] = 0.0f32;
        i += comptime!(32 * PLANES);
    }
    sync_cube();
    if unit < CHUNK {
        let (sum, behind) = sum_decays(&own, unit);
        so_far[unit as usize] = sum;
        let at = (head * CUBE_COUNT_X + chunk) * comptime!(2 * CHUNK) + unit;
        decays[at as usize] = f32::exp(sum);
        decays[(at + CHUNK) as usize] = f32::exp(behind);
    }
    sync_cube();

    let of_keys = products_below::<F, N>(&k_tile, &k_tile, shape);
    let of_queries = products_below::<F, N>(&q_tile, &k_tile, shape);
    let square = (head * CUBE_COUNT_X + chunk) * comptime!(CHUNK * CHUNK / 2);
    #[unroll]
    for half in 0..2u32 {
        let t = plane * FRAGMENT + lane / 4 + half * 8;
        let (strength, decay) = (strengths[t as usize], so_far[t as usize]);
        #[unroll]
        for n in 0..comptime!(CHUNK / NARROW) {
            let (k, q) = (
                of_keys.index(comptime!(n as usize))[half as usize],
                of_queries.index(comptime!(n as usize))[half as usize],
            );
            let mut pair = Vector::<F, Pair>::empty();
            let first = n * NARROW + lane % 4 * 2;
            #[unroll]
            for j in 0..2u32 {
                let i = first + j;
                let between = f32::exp(min(decay - so_far[i as usize], 0.0f32));
                let element = comptime!(j as usize);
                pair.insert(element, F::cast_from(select(i <= t, between * q.extract(element), 0.0f32)));
                below[(t * STRIDE + i) as usize] = select(i < t, strength * between * k.extract(element), 0.0f32);
            }
            mixed[(square + (t * CHUNK + first) / 2) as usize] = pair;
        }
    }
    sync_cube();

    // Row by row: a column for two units, which share the sum. Columns from `plane * 16` on are zero above.
    let part = lane % 2;
    let column = plane * FRAGMENT + lane / 2;
    for t in plane * FRAGMENT..CHUNK {
        let begin = plane * FRAGMENT + part;
        let mut sums = Array::<f32>::new(comptime!(AT_ONCE as usize));
        #[unroll]
        for j in 0..AT_ONCE {
            sums[j as usize] = 0.0f32;
        }
        for round in 0..(t - plane * FRAGMENT).div_ceil(comptime!(2 * AT_ONCE)) {
            #[unroll]
            for j in 0..AT_ONCE {
                let i = begin + (round * AT_ONCE + j) * 2;
                sums[j as usize] += below[(t * STRIDE + i) as usize] * inverse[(i * STRIDE + column) as usize];
            }
        }
        let sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        let sum = sum + plane_shuffle_xor(sum, 1u32);
        if part == 0 {
            inverse[(t * STRIDE + column) as usize] = select(t == column, 1.0f32, 0.0f32) - sum;
        }
        sync_plane();
    }
    sync_cube();
    #[unroll]
    for round in 0..comptime!(CHUNK * CHUNK / 2 / (32 * PLANES)) {
        let index = round * comptime!(32 * PLANES) + unit;
        let (t, i) = (index * 2 / CHUNK, index * 2 % CHUNK);
        let mut pair = Vector::<F, Pair>::empty();
        #[unroll]
        for j in 0..2u32 {
            let value = inverse[(t * STRIDE + i + j) as usize] * strengths[(i + j) as usize];
            pair.insert(comptime!(j as usize), F::cast_from(value));
        }
        solved[(square + index) as usize] = pair;
    }
}
