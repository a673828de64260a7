//! Attention over the cache: a unit a key for the scores, a unit an output element for the values.
//!
//! A cube holds the query heads of one key-value head (as many as fit its memory) for one row
//! (decode) or several neighbouring rows (prefill), so keys and values are read once for all of them. For decode the keys are split
//! over cubes, each writing a partial softmax that a second kernel merges.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{contiguous, dims, empty, flash_attention, kv_words, line};
use crate::ops::kv_cache::is_q8;
use crate::ops::{AttentionOps, AttentionSpec};

/// Units of a cube, and keys of a step.
const TILE: u32 = 128;
/// Shared memory that a cube may take on every device, in floats.
const SHARED_FLOATS: usize = 3_800;
/// Score of a key that a row may not see.
const MASKED: f32 = -1.0e30;
/// Most cubes that share a row's keys.
const MAX_SPLITS: usize = 32;

impl AttentionOps for CubeBackend {
    fn attention(
        q: CubeTensor,
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        spec: AttentionSpec,
    ) -> CubeTensor {
        if flash_attention::fits(&k_cache, dims::<2>(&q)[0], &spec) {
            return flash_attention::launch(q, k_cache, v_cache, positions, slots, spec);
        }
        let q = contiguous(q);
        let [rows, width] = dims(&q);
        let [_, _, capacity, cache_width] = dims(&k_cache);
        let AttentionSpec { heads, kv_heads, head_dim, scale, window, consecutive, .. } = spec;
        let group = heads / kv_heads;
        let fits = |n: &usize| group.is_multiple_of(*n) && n * (head_dim + TILE as usize) <= SHARED_FLOATS;
        let heads_per_cube = (1..=group).rev().find(fits).unwrap_or(1);
        let per_row = heads_per_cube * (head_dim + TILE as usize);
        let rows_per_cube = if consecutive { (SHARED_FLOATS / per_row).clamp(1, 8).min(rows) } else { 1 };
        let tiles = rows.div_ceil(rows_per_cube);
        let processors = q.client.properties().hardware.num_streaming_multiprocessors.unwrap_or(16) as usize;
        let splits = if consecutive {
            1
        } else {
            (2 * processors / (heads / heads_per_cube * rows))
                .clamp(1, MAX_SPLITS)
                .min(capacity.div_ceil(TILE as usize))
        };
        let out = empty(&q, [rows, width], DType::F32);
        let dtype = dtype_to_elem_type(k_cache.dtype);
        let (partial, stats) = if splits > 1 {
            (
                empty(&q, [rows * heads * splits, head_dim], DType::F32),
                empty(&q, [rows * heads * splits, 2], DType::F32),
            )
        } else {
            (out.clone(), empty(&q, [1, 1], DType::F32))
        };
        attend::launch(
            &out.client,
            CubeCount::Static((heads / heads_per_cube) as u32, tiles as u32, splits as u32),
            line(TILE),
            4,
            q.into_buffer_arg(),
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            k_cache.into_buffer_arg(),
            v_cache.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            stats.clone().into_buffer_arg(),
            rows as u32,
            capacity as u32,
            scale,
            heads as u32,
            kv_heads as u32,
            heads_per_cube as u32,
            head_dim as u32,
            window.unwrap_or(0) as u32,
            rows_per_cube as u32,
            splits as u32,
            is_q8(cache_width, head_dim),
            dtype,
        );
        if splits > 1 {
            merge::launch(
                &out.client,
                CubeCount::Static((rows * heads) as u32, 1, 1),
                line(64),
                partial.into_buffer_arg(),
                stats.into_buffer_arg(),
                out.clone().into_buffer_arg(),
                head_dim as u32,
                splits as u32,
            );
        }
        out
    }
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn attend<F: Float, N: Size>(
    q: &[f32],
    k_cache: &[Vector<F, N>],
    v_cache: &[F],
    k_words: &[u32],
    v_words: &[u32],
    positions: &[i32],
    slots: &[i32],
    out: &mut [f32],
    stats: &mut [f32],
    rows: u32,
    capacity: u32,
    scale: f32,
    #[comptime] heads: u32,
    #[comptime] kv_heads: u32,
    #[comptime] heads_per_cube: u32,
    #[comptime] d: u32,
    #[comptime] window: u32,
    #[comptime] rows_per_cube: u32,
    #[comptime] splits: u32,
    #[comptime] q8: bool,
    #[define(F)] _dtype: ElemType,
) {
    let vectors = comptime!(heads_per_cube * rows_per_cube);
    let mut queries = Shared::<[f32]>::new_slice(comptime!((vectors * d) as usize));
    let mut scores = Shared::<[f32]>::new_slice(comptime!((vectors * TILE) as usize));
    let mut maxima = Shared::<[f32]>::new_slice(comptime!(vectors as usize));
    let mut sums = Shared::<[f32]>::new_slice(comptime!(vectors as usize));
    let mut shrink = Shared::<[f32]>::new_slice(comptime!(vectors as usize));

    let unit = UNIT_POS_X;
    let head0 = CUBE_POS_X * heads_per_cube;
    let kv_head = head0 / comptime!(heads / kv_heads);
    let row0 = CUBE_POS_Y * rows_per_cube;
    let end_row = row0 + rows_per_cube;
    let last_row = select(end_row < rows, end_row, rows) - 1;
    let slot = u32::cast_from(slots[row0 as usize]);
    let first = u32::cast_from(positions[row0 as usize]);
    let high = u32::cast_from(positions[last_row as usize]) + 1;
    let low = if comptime!(window > 0) { select(first + 1 > window, first + 1 - window, 0u32) } else { 0u32.runtime() };
    let share = (high - low).div_ceil(splits).div_ceil(TILE) * TILE;
    let begin = low + CUBE_POS_Z * share;
    let end = select(begin + share < high, begin + share, high);

    let mut i = unit;
    while i < comptime!(vectors * d) {
        let vector = i / d;
        let wanted = row0 + vector / heads_per_cube;
        let row = select(wanted < last_row, wanted, last_row);
        queries[i as usize] = q[((row * heads + head0 + vector % heads_per_cube) * d + i % d) as usize] * scale;
        i += TILE;
    }
    if unit < vectors {
        maxima[unit as usize] = MASKED;
        sums[unit as usize] = 0.0f32;
    }
    let per_unit = comptime!((vectors * d).div_ceil(TILE));
    let mut values = Array::<f32>::new(comptime!(per_unit as usize));
    #[unroll]
    for o in 0..per_unit {
        values[o as usize] = 0.0f32;
    }
    sync_cube();

    let base = (slot * kv_heads + kv_head) * capacity;
    let region = kv_words::region(slot * kv_heads + kv_head, capacity, d);
    let mut tile = begin;
    while tile < end {
        let key = tile + unit;
        let mut dots = Array::<f32>::new(comptime!(vectors as usize));
        #[unroll]
        for vector in 0..vectors {
            dots[vector as usize] = 0.0f32;
        }
        if key < end {
            for i in 0..comptime!(d / 4) {
                let mut k = Array::<f32>::new(4usize);
                if comptime!(q8) {
                    let word = k_words[kv_words::code_at(region, key, i, d) as usize];
                    let scale = f32::reinterpret(k_words[kv_words::scale_at(region, capacity, key, i, d) as usize]);
                    #[unroll]
                    for j in 0..4u32 {
                        k[j as usize] = kv_words::value(word, scale, j);
                    }
                } else {
                    let held = k_cache[((base + key) * comptime!(d / 4) + i) as usize];
                    #[unroll]
                    for j in 0..4u32 {
                        k[j as usize] = f32::cast_from(held.extract(comptime!(j as usize)));
                    }
                }
                #[unroll]
                for j in 0..4u32 {
                    let k = k[j as usize];
                    #[unroll]
                    for vector in 0..vectors {
                        dots[vector as usize] += k * queries[(vector * d + i * 4 + j) as usize];
                    }
                }
            }
        }
        #[unroll]
        for vector in 0..vectors {
            let row = row0 + comptime!(vector / heads_per_cube);
            let position = u32::cast_from(positions[select(row < last_row, row, last_row) as usize]);
            let mut seen = key < end && key <= position;
            if comptime!(window > 0) {
                seen = seen && key + window > position;
            }
            scores[(vector * TILE + unit) as usize] = select(seen, dots[vector as usize], MASKED);
        }
        sync_cube();

        let mut vector = unit / PLANE_DIM;
        while vector < vectors {
            let mut largest = maxima[vector as usize];
            let before = largest;
            let mut j = UNIT_POS_PLANE;
            while j < TILE {
                largest = max(largest, scores[(vector * TILE + j) as usize]);
                j += PLANE_DIM;
            }
            let largest = plane_max(largest);
            let mut sum = 0.0f32;
            let mut j = UNIT_POS_PLANE;
            while j < TILE {
                let score = scores[(vector * TILE + j) as usize];
                let weight = select(score > MASKED, f32::exp(score - largest), 0.0f32);
                scores[(vector * TILE + j) as usize] = weight;
                sum += weight;
                j += PLANE_DIM;
            }
            let sum = plane_sum(sum);
            if UNIT_POS_PLANE == 0 {
                let factor = f32::exp(before - largest);
                shrink[vector as usize] = factor;
                sums[vector as usize] = sums[vector as usize] * factor + sum;
                maxima[vector as usize] = largest;
            }
            vector += TILE / PLANE_DIM;
        }
        sync_cube();

        #[unroll]
        for o in 0..per_unit {
            let i = unit + o * TILE;
            if i < comptime!(vectors * d) {
                values[o as usize] *= shrink[(i / d) as usize];
            }
        }
        let keys = select(tile + TILE < end, TILE, end - tile);
        for j in 0..keys {
            #[unroll]
            for o in 0..per_unit {
                let i = unit + o * TILE;
                if i < comptime!(vectors * d) {
                    let v = if comptime!(q8) {
                        let word = i % d / 4;
                        let held = v_words[kv_words::code_at(region, tile + j, word, d) as usize];
                        let at = kv_words::scale_at(region, capacity, tile + j, word, d);
                        kv_words::value(held >> (8 * (i % 4)), f32::reinterpret(v_words[at as usize]), 0u32)
                    } else {
                        f32::cast_from(v_cache[((base + tile + j) * d + i % d) as usize])
                    };
                    values[o as usize] += scores[((i / d) * TILE + j) as usize] * v;
                }
            }
        }
        sync_cube();
        tile += TILE;
    }

    #[unroll]
    for o in 0..per_unit {
        let i = unit + o * TILE;
        let vector = i / d;
        let row = row0 + vector / heads_per_cube;
        if i < comptime!(vectors * d) && row <= last_row {
            let head = row * heads + head0 + vector % heads_per_cube;
            if comptime!(splits == 1) {
                out[(head * d + i % d) as usize] = values[o as usize] / sums[vector as usize];
            } else {
                let at = head * splits + CUBE_POS_Z;
                out[(at * d + i % d) as usize] = values[o as usize];
                if i % d == 0 {
                    stats[(at * 2) as usize] = maxima[vector as usize];
                    stats[(at * 2 + 1) as usize] = sums[vector as usize];
                }
            }
        }
    }
}

/// Merges the partial softmaxes of one row and head.
#[cube(launch)]
fn merge(partial: &[f32], stats: &[f32], out: &mut [f32], d: u32, #[comptime] splits: u32) {
    let head = CUBE_POS_X;
    let mut largest = MASKED.runtime();
    for s in 0..splits {
        largest = max(largest, stats[((head * splits + s) * 2) as usize]);
    }
    let mut total = 0.0f32;
    for s in 0..splits {
        let at = (head * splits + s) * 2;
        total += stats[(at + 1) as usize] * f32::exp(stats[at as usize] - largest);
    }
    let mut i = UNIT_POS_X;
    while i < d {
        let mut sum = 0.0f32;
        for s in 0..splits {
            let at = head * splits + s;
            sum += partial[(at * d + i) as usize] * f32::exp(stats[(at * 2) as usize] - largest);
        }
        out[(head * d + i) as usize] = sum / total;
        i += CUBE_DIM_X;
    }
}
