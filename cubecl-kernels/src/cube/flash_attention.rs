//! Attention of a prompt's rows on tensor cores: FlashAttention-2 (Dao, 2023) with grouped heads.
//!
//! A cube holds the query heads of one key-value head for some neighbouring rows, sixteen of these
//! *queries* a plane, and passes over the keys once. Scores and sums stay in registers: the scores of
//! two narrow products lie where one wide product wants its weights.
#![allow(unsafe_code)]

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::gemm::{FRAGMENT, NARROW, Pair, multiplies_registers};
use super::mma::{narrowed, two_of, zeros};
use super::{contiguous, dims, empty};
use crate::ops::AttentionSpec;

/// Planes of a cube.
const PLANES: u32 = 4;
/// Queries of a cube.
const QUERIES: u32 = PLANES * FRAGMENT;
/// Elements of a vector of a 16-bit type.
const VECTOR: u32 = 8;
/// Score of a key that a row may not see.
const MASKED: f32 = -1.0e30;

/// Shape of the attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlashPlan {
    heads: u32,
    /// Query heads of a key-value head.
    group: u32,
    /// Elements of a head.
    d: u32,
    /// Positions that a row sees; 0: all before it.
    window: u32,
    /// Keys of a step.
    keys: u32,
}

impl FlashPlan {
    /// Rows of a cube.
    fn rows(self) -> u32 {
        QUERIES / self.group
    }

    /// Vectors from one row of a tile to the next; one more than a row holds, so that neighbouring rows
    /// lie in different banks.
    fn stride(self) -> u32 {
        self.d / VECTOR + 1
    }
}

/// Whether [`launch`] takes this attention over caches like `k_cache`.
pub(super) fn fits(k_cache: &CubeTensor, rows: usize, spec: &AttentionSpec) -> bool {
    let AttentionSpec { heads, kv_heads, head_dim, .. } = *spec;
    let [_, _, _, cache_width] = dims(k_cache);
    spec.consecutive
        && rows >= FRAGMENT as usize
        && heads / kv_heads <= QUERIES as usize
        && cache_width == head_dim
        && (head_dim <= 128 && head_dim.is_multiple_of(16) || head_dim <= 256 && head_dim.is_multiple_of(32))
        && multiplies_registers(k_cache.client.properties(), k_cache.dtype)
}

/// Attention as [`attention`](crate::ops::attention) of consecutive rows.
pub(super) fn launch(
    q: CubeTensor,
    k_cache: CubeTensor,
    v_cache: CubeTensor,
    positions: CubeTensor,
    slots: CubeTensor,
    spec: AttentionSpec,
) -> CubeTensor {
    let q = contiguous(q);
    let [rows, width] = dims(&q);
    let [_, _, capacity, _] = dims(&k_cache);
    let AttentionSpec { heads, kv_heads, head_dim, scale, window, .. } = spec;
    let plan = FlashPlan {
        heads: heads as u32,
        group: (heads / kv_heads) as u32,
        d: head_dim as u32,
        window: window.unwrap_or(0) as u32,
        keys: if head_dim <= 128 { 64 } else { 32 },
    };
    let out = empty(&q, [rows, width], DType::F32);
    let dtype = dtype_to_elem_type(k_cache.dtype);
    // SAFETY: rows past the last are read as the last and not written, keys past the last are not read, and
    // the buffers hold what the shapes say; positions lie below the capacity.
    unsafe {
        flash::launch_unchecked(
            &out.client,
            CubeCount::Static(kv_heads as u32, (rows as u32).div_ceil(plan.rows()), 1),
            CubeDim::new_2d(32, PLANES),
            VECTOR as usize,
            4,
            q.into_buffer_arg(),
            k_cache.into_buffer_arg(),
            v_cache.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows as u32,
            capacity as u32,
            scale,
            plan,
            dtype,
        );
    }
    out
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
fn flash<F: Float, N: Size, W: Size>(
    q: &[Vector<f32, W>],
    k_cache: &[Vector<F, N>],
    v_cache: &[Vector<F, N>],
    positions: &[i32],
    slots: &[i32],
    out: &mut [f32],
    rows: u32,
    capacity: u32,
    scale: f32,
    #[comptime] plan: FlashPlan,
    #[define(F)] _dtype: ElemType,
) {
    let (d, group, keys, stride) = comptime!((plan.d, plan.group, plan.keys, plan.stride()));
    let parts = comptime!(plan.d / VECTOR);
    let units = comptime!(PLANES * 32);
    let mut q_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((QUERIES * plan.stride()) as usize));
    let mut k_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((plan.keys * plan.stride()) as usize));
    let mut v_tile = Shared::<[Vector<F, N>]>::new_slice(comptime!((plan.keys * plan.stride()) as usize));
    let (lane, unit) = (UNIT_POS_X, UNIT_POS_Y * 32 + UNIT_POS_X);

    // The longest rows first, so that the shortest fill what is left.
    let row0 = (rows.div_ceil(comptime!(plan.rows())) - 1 - CUBE_POS_Y) * comptime!(plan.rows());
    let head0 = CUBE_POS_X * group;
    let first = u32::cast_from(positions[0]);
    let slot = u32::cast_from(slots[0]);
    let base = (slot * CUBE_COUNT_X + CUBE_POS_X) * capacity;
    let past = row0 + comptime!(plan.rows());
    let high = first + select(past < rows, past, rows);
    let begin = first + row0 + 1;
    let low = if comptime!(plan.window > 0) {
        select(begin > plan.window, begin - plan.window, 0u32)
    } else {
        0u32.runtime()
    };

    #[unroll]
    for p in 0..comptime!(QUERIES * (plan.d / VECTOR) / (PLANES * 32)) {
        let index = p * units + unit;
        let (query, part) = (index / parts, index % parts);
        let row = row0 + query / group;
        let row = select(row < rows, row, rows - 1);
        let from = ((row * plan.heads + head0 + query % group) * d + part * VECTOR) / 4;
        let mut vector = Vector::<F, N>::empty();
        #[unroll]
        for half in 0..2u32 {
            let four = q[(from + half) as usize];
            #[unroll]
            for j in 0..4u32 {
                vector.insert(
                    comptime!((half * 4 + j) as usize),
                    F::cast_from(four.extract(comptime!(j as usize)) * scale),
                );
            }
        }
        q_tile[(query * stride + part) as usize] = vector;
    }

    // This unit's two rows of the plane's sixteen.
    let query = UNIT_POS_Y * FRAGMENT + lane / 4;
    let mut limits = Array::<u32>::new(2usize);
    let mut maxima = Array::<f32>::new(2usize);
    let mut sums = Array::<f32>::new(2usize);
    #[unroll]
    for half in 0..2u32 {
        let row = row0 + (query + half * 8) / group;
        limits[half as usize] = first + select(row < rows, row, rows - 1);
        maxima[half as usize] = MASKED;
        sums[half as usize] = 0.0f32;
    }
    let mut values = zeros(comptime!(plan.d / NARROW));
    let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);

    let mut tile = low;
    while tile < high {
        // All planes are through with the tile before.
        sync_cube();
        #[unroll]
        for p in 0..comptime!(plan.keys * (plan.d / VECTOR) / (PLANES * 32)) {
            let index = p * units + unit;
            let (key, part) = (index / parts, index % parts);
            let mut k = Vector::<F, N>::new(F::from_int(0));
            let mut v = Vector::<F, N>::new(F::from_int(0));
            if tile + key < high {
                let from = ((base + tile + key) * parts + part) as usize;
                k = k_cache[from];
                v = v_cache[from];
            }
            k_tile[(key * stride + part) as usize] = k;
            v_tile[(key * stride + part) as usize] = v;
        }
        sync_cube();

        // Scores: 16 queries by the tile's keys, eight keys a product.
        let mut scores = zeros(comptime!(plan.keys / NARROW));
        #[unroll]
        for step in 0..comptime!(plan.d / FRAGMENT) {
            let from = (UNIT_POS_Y * FRAGMENT + lane % 16) * stride + comptime!(step * 2) + lane / 16;
            let wide = definition.load_matrix::<Vector<F, N>, Pair>(
                &q_tile[from as usize..(from + 1) as usize],
                MatrixIdent::A,
                4usize,
                false,
            );
            #[unroll]
            for n in 0..comptime!(plan.keys / FRAGMENT) {
                let from = (n * FRAGMENT + lane / 16 * 8 + lane % 8) * stride + comptime!(step * 2) + lane / 8 % 2;
                let four = definition.load_matrix::<Vector<F, N>, Pair>(
                    &k_tile[from as usize..(from + 1) as usize],
                    MatrixIdent::B,
                    4usize,
                    false,
                );
                #[unroll]
                for half in 0..2u32 {
                    let narrow = two_of(&four, half);
                    let sum = scores.index_mut(comptime!((n * 2 + half) as usize));
                    definition.execute_inplace(&wide, &narrow, sum);
                }
            }
        }

        // The softmax so far; four neighbouring lanes hold a row.
        let mut shrink = Array::<f32>::new(2usize);
        #[unroll]
        for half in 0..2u32 {
            let limit = limits[half as usize];
            let before = maxima[half as usize];
            let mut largest = before;
            #[unroll]
            for n in 0..comptime!(plan.keys / NARROW) {
                let pair = scores.index(comptime!(n as usize))[half as usize];
                let mut masked = Vector::<f32, Pair>::empty();
                #[unroll]
                for j in 0..2u32 {
                    let key = tile + comptime!(n * NARROW + j) + lane % 4 * 2;
                    let mut seen = key <= limit;
                    if comptime!(plan.window > 0) {
                        seen = seen && key + plan.window > limit;
                    }
                    let score = select(seen, pair.extract(comptime!(j as usize)), MASKED);
                    largest = max(largest, score);
                    masked.insert(comptime!(j as usize), score);
                }
                scores.index_mut(comptime!(n as usize))[half as usize] = masked;
            }
            largest = max(largest, plane_shuffle_xor(largest, 1u32));
            largest = max(largest, plane_shuffle_xor(largest, 2u32));
            let factor = f32::exp(before - largest);
            let mut sum = sums[half as usize] * factor;
            #[unroll]
            for n in 0..comptime!(plan.keys / NARROW) {
                let pair = scores.index(comptime!(n as usize))[half as usize];
                let mut weights = Vector::<f32, Pair>::empty();
                #[unroll]
                for j in 0..2usize {
                    let score = pair.extract(j);
                    let weight = select(score > MASKED, f32::exp(score - largest), 0.0f32);
                    sum += weight;
                    weights.insert(j, weight);
                }
                scores.index_mut(comptime!(n as usize))[half as usize] = weights;
            }
            sums[half as usize] = sum;
            maxima[half as usize] = largest;
            shrink[half as usize] = factor;
        }
        #[unroll]
        for n in 0..comptime!(plan.d / NARROW) {
            let value = values.index_mut(comptime!(n as usize));
            #[unroll]
            for half in 0..2usize {
                value[half] *= Vector::new(shrink[half]);
            }
        }

        // Values: the scores' pairs are the weights' registers.
        #[unroll]
        for step in 0..comptime!(plan.keys / FRAGMENT) {
            let wide = narrowed::<F>(&scores, step);
            #[unroll]
            for n in 0..comptime!(plan.d / FRAGMENT) {
                let from = (step * FRAGMENT + lane % 16) * stride + comptime!(n * 2) + lane / 16;
                let four = definition.load_matrix::<Vector<F, N>, Pair>(
                    &v_tile[from as usize..(from + 1) as usize],
                    MatrixIdent::B,
                    4usize,
                    true,
                );
                #[unroll]
                for half in 0..2u32 {
                    let narrow = two_of(&four, half);
                    let sum = values.index_mut(comptime!((n * 2 + half) as usize));
                    definition.execute_inplace(&wide, &narrow, sum);
                }
            }
        }
        tile += keys;
    }

    #[unroll]
    for half in 0..2u32 {
        let mut sum = sums[half as usize];
        sum += plane_shuffle_xor(sum, 1u32);
        sum += plane_shuffle_xor(sum, 2u32);
        let query = query + half * 8;
        let row = row0 + query / group;
        if query < comptime!(plan.rows() * plan.group) && row < rows {
            let to = (row * plan.heads + head0 + query % group) * d + lane % 4 * 2;
            #[unroll]
            for n in 0..comptime!(plan.d / NARROW) {
                let pair = values.index(comptime!(n as usize))[half as usize];
                #[unroll]
                for j in 0..2u32 {
                    out[(to + comptime!(n * NARROW + j)) as usize] = pair.extract(comptime!(j as usize)) / sum;
                }
            }
        }
    }
}
