//! Head norms, rotary embedding and the cache write: a few units a head, or where heads are not so
//! regular a cube a head.

use burn::backend::cubecl::dtype_to_elem_type;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::head::{HeadPlan, element, prepare};
use super::{contiguous, dims, empty, grid, kv_words, line, plane_size};
use crate::ops::kv_cache::is_q8;
use crate::ops::{KvSource, RopeOps, RopePairing, RopeSpec};

/// Units of a cube.
const UNITS: u32 = 64;
/// Units of a cube of many heads.
const SPREAD: u32 = 256;

impl RopeOps for CubeBackend {
    fn rope_append(
        qkv: CubeTensor,
        q_norm: CubeTensor,
        k_norm: CubeTensor,
        table: CubeTensor,
        positions: CubeTensor,
        slots: CubeTensor,
        k_cache: CubeTensor,
        v_cache: CubeTensor,
        spec: RopeSpec,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let qkv = contiguous(qkv);
        let [m, width] = dims(&qkv);
        let [_, rotary] = dims(&table);
        let [_, _, capacity, cache_width] = dims(&k_cache);
        let q = empty(&qkv, [m, spec.heads * spec.head_dim], DType::F32);
        let written = if spec.kv == KvSource::Shared { 0 } else { 2 * spec.kv_heads };
        let eps = spec.qk_norm_eps_bits.map_or(0.0, f32::from_bits);
        let q8 = is_q8(cache_width, spec.head_dim);
        let plan = HeadPlan::new(spec.head_dim, rotary, &spec, &k_cache, plane_size(&qkv));
        // Vectors divide what is loaded and written.
        let regular = spec.head_dim.is_multiple_of(plan.width as usize) && (rotary / 2) % 4 == 0 && width % 4 == 0;
        if spec.kv == KvSource::Projected && !q8 && regular {
            let heads = m * (spec.heads + written);
            prepare_heads::launch(
                &q.client,
                grid((heads * plan.lanes as usize).div_ceil(SPREAD as usize)),
                line(SPREAD),
                4,
                plan.width as usize,
                qkv.into_buffer_arg(),
                q_norm.into_buffer_arg(),
                k_norm.into_buffer_arg(),
                table.into_buffer_arg(),
                positions.into_buffer_arg(),
                slots.into_buffer_arg(),
                q.clone().into_buffer_arg(),
                k_cache.clone().into_buffer_arg(),
                v_cache.clone().into_buffer_arg(),
                m as u32,
                width as u32,
                capacity as u32,
                eps,
                spec.heads as u32,
                spec.kv_heads as u32,
                plan,
                dtype_to_elem_type(k_cache.dtype),
            );
            return (q, k_cache, v_cache);
        }
        rope_append::launch(
            &q.client,
            CubeCount::Static((spec.heads + written) as u32, m as u32, 1),
            line(UNITS),
            qkv.into_buffer_arg(),
            q_norm.into_buffer_arg(),
            k_norm.into_buffer_arg(),
            table.into_buffer_arg(),
            positions.into_buffer_arg(),
            slots.into_buffer_arg(),
            q.clone().into_buffer_arg(),
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            k_cache.clone().into_buffer_arg(),
            v_cache.clone().into_buffer_arg(),
            width as u32,
            capacity as u32,
            eps,
            spec.heads as u32,
            spec.kv_heads as u32,
            spec.head_dim as u32,
            rotary as u32,
            spec.pairing,
            spec.qk_norm_eps_bits.is_some(),
            spec.kv,
            q8,
            dtype_to_elem_type(k_cache.dtype),
        );
        (q, k_cache, v_cache)
    }
}

/// Queries, keys and values of all rows, a few units a head.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn prepare_heads<F: Float, N: Size, W: Size>(
    qkv: &[Vector<f32, N>],
    q_norm: &[Vector<f32, N>],
    k_norm: &[Vector<f32, N>],
    table: &[Vector<f32, N>],
    positions: &[i32],
    slots: &[i32],
    q_out: &mut [Vector<f32, N>],
    k_cache: &mut [Vector<F, W>],
    v_cache: &mut [Vector<F, W>],
    m: u32,
    width: u32,
    capacity: u32,
    eps: f32,
    #[comptime] heads: u32,
    #[comptime] kv_heads: u32,
    #[comptime] plan: HeadPlan,
    #[define(F)] _dtype: ElemType,
) {
    let unit = (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) * SPREAD + UNIT_POS_X;
    let all = comptime!(heads + 2 * kv_heads);
    let lane = unit % plan.lanes;
    // Units past the last head compute it again, so that all take part in the sums.
    let index = min(unit / plan.lanes, m * all - 1);
    let (row, h) = (index / all, index % all);
    let position = u32::cast_from(positions[row as usize]);
    let base = row * width + h * plan.d;
    let is_query = h < heads;
    let is_value = h >= comptime!(heads + kv_heads);
    // Every unit goes all ways, so that those of a plane meet in the sums.
    let mut made = Array::<f32>::new(comptime!(plan.slice() as usize));
    prepare(qkv, q_norm, table, base, position, eps, &mut made, 0u32, plan);
    if comptime!(plan.norm) {
        let mut keys = Array::<f32>::new(comptime!(plan.slice() as usize));
        prepare(qkv, k_norm, table, base, position, eps, &mut keys, 0u32, plan);
        #[unroll]
        for i in 0..comptime!(plan.slice() as usize) {
            made[i] = select(is_query, made[i], keys[i]);
        }
    }
    if is_query {
        #[unroll]
        for i in 0..comptime!(plan.slice() / 4) {
            let mut four = Vector::<f32, N>::new(0.0f32);
            #[unroll]
            for j in 0..4usize {
                four.insert(j, made[comptime!(i as usize * 4 + j)]);
            }
            q_out[(((row * heads + h) * plan.d + element(lane, i, plan)) / 4) as usize] = four;
        }
    } else {
        if is_value {
            #[unroll]
            for i in 0..comptime!(plan.slice() / 4) {
                let four = qkv[((base + element(lane, i, plan)) / 4) as usize];
                #[unroll]
                for j in 0..4usize {
                    made[comptime!(i as usize * 4 + j)] = four.extract(j);
                }
            }
        }
        let slot = u32::cast_from(slots[row as usize]);
        let kv_head = select(is_value, h - comptime!(heads + kv_heads), h - heads);
        let first = ((slot * kv_heads + kv_head) * capacity + position) * comptime!(plan.d / plan.width) + lane;
        #[unroll]
        for i in 0..comptime!(plan.slice() / plan.width) {
            let mut vector = Vector::<F, W>::new(F::new(0.0));
            #[unroll]
            for j in 0..plan.width {
                let value = made[comptime!((i * plan.width + j) as usize)];
                vector.insert(comptime!(j as usize), F::cast_from(value));
            }
            let at = (first + i * plan.lanes) as usize;
            if is_value {
                v_cache[at] = vector;
            } else {
                k_cache[at] = vector;
            }
        }
    }
}

/// The same, whatever the heads are, a cube a head.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn rope_append<F: Float>(
    qkv: &[f32],
    q_norm: &[f32],
    k_norm: &[f32],
    table: &[f32],
    positions: &[i32],
    slots: &[i32],
    q_out: &mut [f32],
    k_cache: &mut [F],
    v_cache: &mut [F],
    k_words: &mut [u32],
    v_words: &mut [u32],
    width: u32,
    capacity: u32,
    eps: f32,
    #[comptime] heads: u32,
    #[comptime] kv_heads: u32,
    #[comptime] d: u32,
    #[comptime] rotary: u32,
    #[comptime] pairing: RopePairing,
    #[comptime] norm: bool,
    #[comptime] kv: KvSource,
    #[comptime] q8: bool,
    #[define(F)] _dtype: ElemType,
) {
    let mut head = Shared::<[f32]>::new_slice(comptime!(d as usize));
    // A key or value on its way to eight bits.
    let mut made = Shared::<[f32]>::new_slice(comptime!(if q8 { d as usize } else { 1 }));
    let (h, row) = (CUBE_POS_X, CUBE_POS_Y);
    let is_value = h >= comptime!(heads + kv_heads);
    let shift = if comptime!(matches!(kv, KvSource::KeysAsValues)) { kv_heads } else { 0u32 };
    let base = row * width + select(is_value, h - shift, h) * d;
    let position = u32::cast_from(positions[row as usize]);
    let slot = u32::cast_from(slots[row as usize]);
    let mut i = UNIT_POS_X;
    while i < d {
        head[i as usize] = qkv[(base + i) as usize];
        i += UNITS;
    }
    sync_cube();
    let mut scale = 1.0f32;
    if comptime!(norm || kv.norms_values()) {
        // Every unit sums the whole head: shorter than a reduction and its barriers.
        let mut squares = 0.0f32;
        for j in 0..d {
            let v = head[j as usize];
            squares += v * v;
        }
        scale = 1.0f32 / f32::sqrt(squares / f32::cast_from(d) + eps);
    }
    if is_value {
        let at = ((slot * kv_heads + h - comptime!(heads + kv_heads)) * capacity + position) * d;
        let mut factor = 1.0f32;
        if comptime!(kv.norms_values()) {
            factor = scale;
        }
        let mut i = UNIT_POS_X;
        while i < d {
            if comptime!(q8) {
                made[i as usize] = head[i as usize] * factor;
            } else {
                v_cache[(at + i) as usize] = F::cast_from(head[i as usize] * factor);
            }
            i += UNITS;
        }
    } else {
        let is_q = h < heads;
        let mut i = UNIT_POS_X;
        while i < d {
            // i and its partner: turned together, `first` the one that comes first.
            let (pair, partner, first) = if comptime!(matches!(pairing, RopePairing::Half)) {
                let first = i < comptime!(rotary / 2);
                (
                    select(first, i, i - comptime!(rotary / 2)),
                    select(first, i + comptime!(rotary / 2), i - comptime!(rotary / 2)),
                    first,
                )
            } else {
                let first = i % 2 == 0;
                (i / 2, select(first, i + 1, i - 1), first)
            };
            let mut a = head[i as usize] * scale;
            if comptime!(norm) {
                a *= select(is_q, q_norm[i as usize], k_norm[i as usize]);
            }
            let mut value = a;
            if comptime!(!matches!(pairing, RopePairing::None)) && i < rotary {
                let mut b = head[partner as usize] * scale;
                if comptime!(norm) {
                    b *= select(is_q, q_norm[partner as usize], k_norm[partner as usize]);
                }
                let cos = table[(position * rotary + pair) as usize];
                let sin = table[(position * rotary + comptime!(rotary / 2) + pair) as usize];
                value = select(first, a * cos - b * sin, a * cos + b * sin);
            }
            if is_q {
                q_out[((row * heads + h) * d + i) as usize] = value;
            } else if comptime!(q8) {
                made[i as usize] = value;
            } else {
                let at = ((slot * kv_heads + h - heads) * capacity + position) * d;
                k_cache[(at + i) as usize] = F::cast_from(value);
            }
            i += UNITS;
        }
    }
    if comptime!(q8) {
        sync_cube();
        if is_value {
            write_q8(&made, v_words, slot * kv_heads + h - comptime!(heads + kv_heads), capacity, position, d);
        } else if h >= heads {
            write_q8(&made, k_words, slot * kv_heads + h - heads, capacity, position, d);
        }
    }
}

/// Writes a head to a cache of eight bits, a unit a word.
#[cube]
fn write_q8(head: &Shared<[f32]>, words: &mut [u32], index: u32, capacity: u32, position: u32, #[comptime] d: u32) {
    let region = kv_words::region(index, capacity, d);
    let mut word = UNIT_POS_X;
    while word < comptime!(d / 4) {
        let block = word / kv_words::BLOCK_WORDS * comptime!(4 * kv_words::BLOCK_WORDS);
        let mut largest = 0.0f32;
        for i in 0..comptime!(4 * kv_words::BLOCK_WORDS) {
            largest = max(largest, f32::abs(head[(block + i) as usize]));
        }
        let scale = kv_words::scale_of(largest);
        let mut codes = 0u32;
        #[unroll]
        for i in 0..4u32 {
            codes |= kv_words::code(head[(word * 4 + i) as usize], scale, i);
        }
        words[kv_words::code_at(region, position, word, d) as usize] = codes;
        if word % kv_words::BLOCK_WORDS == 0 {
            words[kv_words::scale_at(region, capacity, position, word, d) as usize] = u32::reinterpret(scale);
        }
        word += UNITS;
    }
}
