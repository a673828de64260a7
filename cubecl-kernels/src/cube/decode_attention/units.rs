//! Scores and values by fused multiply-adds, on any device and over any cache.
//!
//! A few lanes share a key, each holding a slice of the head; every such group walks its own keys
//! with a running softmax, and the groups are merged at the end.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::merge::{Found, Split, finish, first_key, used_splits};
use super::{MASKED, folds, processors};
use crate::cube::head::{HeadPlan, element, lanes_sum, prepare};
use crate::cube::{dims, kv_words, plane_size};
use crate::ops::kv_cache::is_q8;
use crate::ops::{AttentionSpec, RopeSpec};

/// Most cubes that share a row's keys.
const MAX_SPLITS: usize = 32;
/// Fewest keys of a cube that are worth a cube of their own.
const MIN_KEYS: usize = 32;
/// Shared memory that a cube may take on every device, in floats.
const SHARED_FLOATS: usize = 3_800;
/// Floats of a unit's slice of all its query heads: what registers hold.
const MAX_SLICE: usize = 64;
/// Most keys that a unit loads at once, and floats of their slices.
const MAX_BLOCK: u32 = 4;
const BLOCK_FLOATS: u32 = 32;

/// How a layer's decode attention is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    kv_heads: u32,
    head: HeadPlan,
    pub(super) split: Split,
    /// The cache holds eight bits an element.
    q8: bool,
}

impl Plan {
    /// For `rows` rows whose heads are turned by a table `rotary` wide.
    pub(super) fn new(
        attention: &AttentionSpec,
        rope: &RopeSpec,
        rotary: usize,
        gate: Option<u32>,
        cache: &CubeTensor,
        rows: usize,
    ) -> Self {
        let AttentionSpec { heads, kv_heads, head_dim, window, .. } = *attention;
        let [_, _, capacity, cache_width] = dims(cache);
        let plane = plane_size(cache);
        let head = HeadPlan::new(head_dim, rotary, rope, cache, plane);
        let queries = heads / kv_heads;
        let fits = |group: &usize| queries % group == 0 && group * head.slice() as usize <= MAX_SLICE;
        let group = (1..=queries).rev().find(fits).unwrap_or(1);
        let planes = (SHARED_FLOATS / (group * (head_dim + 2))).clamp(1, 256 / plane as usize).min(8) as u32;
        let reach = window.unwrap_or(capacity).min(capacity);
        let splits = (2 * processors(cache) / (kv_heads * rows)).clamp(1, MAX_SPLITS).min(reach.div_ceil(MIN_KEYS));
        let split = Split {
            heads: heads as u32,
            group: group as u32,
            d: head_dim as u32,
            window: window.unwrap_or(0) as u32,
            planes,
            plane,
            keys: planes * plane / head.lanes,
            splits: splits as u32,
            alone: 1,
            folds: folds(cache),
            gate,
        }
        .merged_well();
        Self { kv_heads: kv_heads as u32, head, split, q8: is_q8(cache_width, head_dim) }
    }

    /// Elements of a vector of the cache.
    pub(super) fn width(self) -> usize {
        self.head.width as usize
    }

    /// Elements of a head that a unit holds.
    fn slice(self) -> u32 {
        self.head.slice()
    }

    /// Keys that a unit loads at once.
    fn block(self) -> u32 {
        (BLOCK_FLOATS / self.slice()).clamp(1, MAX_BLOCK)
    }

    /// Cubes that share a key-value head.
    fn cubes_per_kv_head(self) -> u32 {
        self.split.heads / self.kv_heads / self.split.group
    }

    /// Doublings from `lanes` to a plane.
    fn merges(self) -> u32 {
        (self.split.plane / self.head.lanes).ilog2()
    }
}

/// Word of a head's codes that a unit's load `i` begins with.
#[cube]
fn first_word(lane: u32, #[comptime] i: u32, #[comptime] plan: Plan) -> u32 {
    (comptime!(i * plan.head.lanes) + lane) * comptime!(plan.head.width / 4)
}

/// A unit's slice of a key or value whose first load is vector `at` of the cache.
#[cube]
fn read<F: Float, W: Size>(
    cache: &mut [Vector<F, W>],
    at: u32,
    out: &mut Array<f32>,
    #[comptime] to: u32,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..comptime!(plan.slice() / plan.head.width) {
        let vector = cache[(at + i * plan.head.lanes) as usize];
        #[unroll]
        for j in 0..plan.head.width {
            out[comptime!((to + i * plan.head.width + j) as usize)] =
                f32::cast_from(vector.extract(comptime!(j as usize)));
        }
    }
}

/// A unit's slice of a position's key or value.
#[cube]
#[allow(clippy::too_many_arguments)]
fn read_q8(
    words: &mut [u32],
    region: u32,
    capacity: u32,
    position: u32,
    lane: u32,
    out: &mut Array<f32>,
    #[comptime] to: u32,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for i in 0..comptime!(plan.slice() / plan.head.width) {
        let first = first_word(lane, i, plan);
        let scale =
            f32::reinterpret(words[kv_words::scale_at(region, capacity, position, first, plan.head.d) as usize]);
        #[unroll]
        for w in 0..comptime!(plan.head.width / 4) {
            let word = words[kv_words::code_at(region, position, first + w, plan.head.d) as usize];
            #[unroll]
            for j in 0..4u32 {
                out[comptime!((to + i * plan.head.width + w * 4 + j) as usize)] = kv_words::value(word, scale, j);
            }
        }
    }
}

/// Writes the units' slices of a key or value, if `writes`; all units take part in finding the scales.
#[cube]
fn write_q8(
    words: &mut [u32],
    slice: &Array<f32>,
    region: u32,
    capacity: u32,
    position: u32,
    writes: bool,
    #[comptime] plan: Plan,
) {
    let lane = UNIT_POS_X % plan.head.lanes;
    #[unroll]
    for i in 0..comptime!(plan.slice() / plan.head.width) {
        let mut largest = 0.0f32;
        #[unroll]
        for j in 0..comptime!(plan.head.width) {
            largest = max(largest, f32::abs(slice[comptime!((i * plan.head.width + j) as usize)]));
        }
        // Neighbouring units hold the rest of the block.
        #[unroll]
        for step in 0..comptime!((4 * kv_words::BLOCK_WORDS / plan.head.width).ilog2()) {
            largest = max(largest, plane_shuffle_xor(largest, comptime!(1u32 << step)));
        }
        let scale = kv_words::scale_of(largest);
        let first = first_word(lane, i, plan);
        if writes {
            #[unroll]
            for w in 0..comptime!(plan.head.width / 4) {
                let mut codes = 0u32;
                #[unroll]
                for j in 0..4u32 {
                    codes |= kv_words::code(slice[comptime!((i * plan.head.width + w * 4 + j) as usize)], scale, j);
                }
                words[kv_words::code_at(region, position, first + w, plan.head.d) as usize] = codes;
            }
            if first % kv_words::BLOCK_WORDS == 0 {
                words[kv_words::scale_at(region, capacity, position, first, plan.head.d) as usize] =
                    u32::reinterpret(scale);
            }
        }
    }
}

/// A running softmax of the query heads of a cube, and a unit's slice of the weighted values.
#[derive(CubeType)]
struct Running {
    maxima: Array<f32>,
    sums: Array<f32>,
    values: Array<f32>,
}

#[cube]
impl Running {
    fn new(#[comptime] plan: Plan) -> Running {
        let mut maxima = Array::<f32>::new(comptime!(plan.split.group as usize));
        let mut sums = Array::<f32>::new(comptime!(plan.split.group as usize));
        let mut values = Array::<f32>::new(comptime!((plan.split.group * plan.slice()) as usize));
        #[unroll]
        for h in 0..plan.split.group {
            maxima[h as usize] = MASKED;
            sums[h as usize] = 0.0f32;
        }
        #[unroll]
        for i in 0..comptime!(plan.split.group * plan.slice()) {
            values[i as usize] = 0.0f32;
        }
        Running { maxima, sums, values }
    }

    /// Adds `count` keys, of which the unit holds slices; all are seen or none.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &mut self,
        q: &Array<f32>,
        k: &Array<f32>,
        v: &Array<f32>,
        seen: bool,
        scale: f32,
        #[comptime] count: u32,
        #[comptime] plan: Plan,
    ) {
        let slice = comptime!(plan.slice());
        #[unroll]
        for h in 0..plan.split.group {
            let at = comptime!(h as usize);
            let mut scores = Array::<f32>::new(comptime!(count as usize));
            let mut largest = self.maxima[at];
            #[unroll]
            for b in 0..count {
                let mut dot = 0.0f32;
                #[unroll]
                for i in 0..slice {
                    dot += q[comptime!((h * slice + i) as usize)] * k[comptime!((b * slice + i) as usize)];
                }
                let score = select(seen, lanes_sum(dot, plan.head.lanes) * scale, MASKED);
                scores[b as usize] = score;
                largest = max(largest, score);
            }
            let shrink = f32::exp(self.maxima[at] - largest);
            self.maxima[at] = largest;
            let mut sum = self.sums[at] * shrink;
            #[unroll]
            for b in 0..count {
                let weight = select(seen, f32::exp(scores[b as usize] - largest), 0.0f32);
                scores[b as usize] = weight;
                sum += weight;
            }
            self.sums[at] = sum;
            #[unroll]
            for i in 0..slice {
                let to = comptime!((h * slice + i) as usize);
                let mut value = self.values[to] * shrink;
                #[unroll]
                for b in 0..count {
                    value += scores[b as usize] * v[comptime!((b * slice + i) as usize)];
                }
                self.values[to] = value;
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend<F: Float, N: Size, W: Size>(
    qkv: &[Vector<f32, N>],
    q_norm: &[Vector<f32, N>],
    k_norm: &[Vector<f32, N>],
    table: &[Vector<f32, N>],
    positions: &[i32],
    slots: &[i32],
    k_cache: &mut [Vector<F, W>],
    v_cache: &mut [Vector<F, W>],
    k_words: &mut [u32],
    v_words: &mut [u32],
    partial: &mut [Vector<f32, N>],
    stats: &mut [f32],
    arrivals: &mut [Atomic<i32>],
    out: &mut [Vector<f32, N>],
    width: u32,
    capacity: u32,
    scale: f32,
    eps: f32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let d = comptime!(plan.head.d);
    let slice = comptime!(plan.slice());
    let group = comptime!(plan.split.group);
    let kv_head = CUBE_POS_X / comptime!(plan.cubes_per_kv_head());
    let head0 = CUBE_POS_X * group;
    let row = CUBE_POS_Y;
    let position = u32::cast_from(positions[row as usize]);
    let slot = u32::cast_from(slots[row as usize]);
    // Steps of the cubes alternate, so that where the first key lies does not wait for the position.
    let begin = first_key(position, plan.split.window) + CUBE_POS_Z * comptime!(plan.split.keys);
    let stride = comptime!(plan.split.keys * plan.split.splits);
    if begin <= position {
        let lane = UNIT_POS_X % plan.head.lanes;
        let sub = UNIT_POS_Y * comptime!(plan.split.plane / plan.head.lanes) + UNIT_POS_X / plan.head.lanes;
        let qkv_row = row * width;

        let mut q = Array::<f32>::new(comptime!((plan.split.group * plan.slice()) as usize));
        #[unroll]
        for h in 0..group {
            let base = qkv_row + (head0 + h) * d;
            prepare(qkv, q_norm, table, base, position, eps, &mut q, comptime!(h * plan.slice()), comptime!(plan.head));
        }
        let mut new_k = Array::<f32>::new(comptime!(plan.slice() as usize));
        let mut new_v = Array::<f32>::new(comptime!(plan.slice() as usize));
        let k_base = qkv_row + comptime!(plan.split.heads * plan.head.d) + kv_head * d;
        prepare(qkv, k_norm, table, k_base, position, eps, &mut new_k, 0u32, comptime!(plan.head));
        let v_base = k_base + comptime!(plan.kv_heads * plan.head.d);
        #[unroll]
        for i in 0..comptime!(plan.slice() / 4) {
            let v = qkv[((v_base + element(lane, i, comptime!(plan.head))) / 4) as usize];
            #[unroll]
            for j in 0..4usize {
                new_v[comptime!(i as usize * 4 + j)] = v.extract(j);
            }
        }
        // A vector of the cache: `lanes` of them side by side, `slice / width` times.
        let cache = (slot * plan.kv_heads + kv_head) * capacity;
        let region = kv_words::region(slot * plan.kv_heads + kv_head, capacity, d);
        let vectors = comptime!(plan.slice() / plan.head.width);
        let owner = (position - begin) % stride < comptime!(plan.split.keys);
        let writes = owner && sub == 0 && head0 == kv_head * comptime!(plan.split.heads / plan.kv_heads);
        if comptime!(plan.q8) {
            write_q8(k_words, &new_k, region, capacity, position, writes, plan);
            write_q8(v_words, &new_v, region, capacity, position, writes, plan);
        } else if writes {
            #[unroll]
            for i in 0..vectors {
                let at = (cache + position) * comptime!(plan.head.d / plan.head.width) + i * plan.head.lanes + lane;
                let mut k = Vector::<F, W>::new(F::new(0.0));
                let mut v = Vector::<F, W>::new(F::new(0.0));
                #[unroll]
                for j in 0..comptime!(plan.head.width) {
                    k.insert(comptime!(j as usize), F::cast_from(new_k[comptime!((i * plan.head.width + j) as usize)]));
                    v.insert(comptime!(j as usize), F::cast_from(new_v[comptime!((i * plan.head.width + j) as usize)]));
                }
                k_cache[at as usize] = k;
                v_cache[at as usize] = v;
            }
        }

        let mut running = Running::new(plan);
        let mut k = Array::<f32>::new(comptime!((plan.block() * plan.slice()) as usize));
        let mut v = Array::<f32>::new(comptime!((plan.block() * plan.slice()) as usize));
        // Keys before the position, a block of them at a time, so that many loads are in flight.
        let blocks = (position - begin) / comptime!(stride * plan.block());
        for block in 0..blocks {
            #[unroll]
            for b in 0..plan.block() {
                let key = begin + (block * plan.block() + b) * stride + sub;
                let at = (cache + key) * comptime!(plan.head.d / plan.head.width) + lane;
                let to = comptime!(b * plan.slice());
                if comptime!(plan.q8) {
                    read_q8(k_words, region, capacity, key, lane, &mut k, to, plan);
                    read_q8(v_words, region, capacity, key, lane, &mut v, to, plan);
                } else {
                    read(k_cache, at, &mut k, to, plan);
                    read(v_cache, at, &mut v, to, plan);
                }
            }
            running.add(&q, &k, &v, true.runtime(), scale, plan.block(), plan);
        }
        // Every unit goes the same number of steps, so that all take part in the shuffles.
        for step in blocks * plan.block()..(position + 1 - begin).div_ceil(stride) {
            let key = begin + step * stride + sub;
            let seen = key <= position;
            let fresh = key == position;
            let held = select(seen, key, begin);
            if comptime!(plan.q8) {
                read_q8(k_words, region, capacity, held, lane, &mut k, 0u32, plan);
                read_q8(v_words, region, capacity, held, lane, &mut v, 0u32, plan);
            } else {
                let at = (cache + held) * comptime!(plan.head.d / plan.head.width) + lane;
                read(k_cache, at, &mut k, 0u32, plan);
                read(v_cache, at, &mut v, 0u32, plan);
            }
            #[unroll]
            for i in 0..slice {
                k[i as usize] = select(fresh, new_k[i as usize], k[i as usize]);
                // What lies behind a key that is not seen may be anything, NaN included.
                v[i as usize] = select(fresh, new_v[i as usize], select(seen, v[i as usize], 0.0f32));
            }
            running.add(&q, &k, &v, seen, scale, 1u32, plan);
        }
        let Running { mut maxima, mut sums, mut values } = running;

        // The groups of a plane, then the planes.
        #[unroll]
        for i in 0..comptime!(plan.merges()) {
            let mask = comptime!(plan.head.lanes << i);
            #[unroll]
            for h in 0..group {
                let other = plane_shuffle_xor(maxima[h as usize], mask);
                let largest = max(maxima[h as usize], other);
                let mine = f32::exp(maxima[h as usize] - largest);
                let theirs = f32::exp(other - largest);
                maxima[h as usize] = largest;
                sums[h as usize] = sums[h as usize] * mine + plane_shuffle_xor(sums[h as usize], mask) * theirs;
                #[unroll]
                for i in 0..slice {
                    let o = comptime!((h * plan.slice() + i) as usize);
                    values[o] = values[o] * mine + plane_shuffle_xor(values[o], mask) * theirs;
                }
            }
        }
        let mut found = Found::<N>::new(plan.split);
        if UNIT_POS_X < plan.head.lanes {
            #[unroll]
            for h in 0..group {
                let at = UNIT_POS_Y * group + h;
                #[unroll]
                for i in 0..comptime!(plan.slice() / 4) {
                    let mut four = Vector::<f32, N>::empty();
                    #[unroll]
                    for j in 0..4u32 {
                        four.insert(comptime!(j as usize), values[comptime!((h * plan.slice() + i * 4 + j) as usize)]);
                    }
                    found.values[((at * d + element(lane, i, comptime!(plan.head))) / 4) as usize] = four;
                }
                if lane == 0 {
                    found.stats[(at * 2) as usize] = maxima[h as usize];
                    found.stats[(at * 2 + 1) as usize] = sums[h as usize];
                }
            }
        }
        finish(
            &mut found,
            head0,
            used_splits(position, plan.split),
            partial,
            stats,
            arrivals,
            qkv,
            out,
            width,
            plan.split,
        );
    }
}
