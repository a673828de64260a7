//! Scores and values on tensor cores, whose elements lie in known registers: CUDA alone.
//!
//! A plane takes sixteen keys at a time. Keys and values go from the cache to the registers of the product in
//! loads of sixteen bytes, without shared memory: in which order the elements of a head are multiplied does not
//! matter, so that a unit's eight neighbouring elements of a key serve two products of sixteen. The queries are
//! the rows of the first product, the columns of the second. What rounding takes from a query lies eight
//! rows below it, where there is room, so that scores are those of unrounded queries.

use burn_cubecl::tensor::CubeTensor;
use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

use super::merge::{Found, Split, finish, first_key, used_splits};
use super::{MASKED, folds, processors};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::dims;
use crate::cube::gemm::{FRAGMENT, NARROW, Pair, multiplies_registers};
use crate::cube::head::{HeadPlan, lanes_sum, prepare};
use crate::cube::mma::zeros;
use crate::ops::{AttentionSpec, RopeSpec};

/// Elements of a vector of a 16-bit type.
pub(super) const VECTOR: u32 = 8;
/// Planes of a cube: few cubes with many of them leave little to merge.
const PLANES: u32 = 8;
/// Units that hold a head: those of a row of a product.
const LANES: u32 = 4;
/// Most cubes that share a row's keys.
const MAX_SPLITS: usize = 128;
/// Steps that a cube takes by itself: to merge two cubes takes longer. Those of the longest heads, of which
/// registers hold one tile, are shared at once.
const ALONE: u32 = 4;
/// Units of a plane.
const PLANE: u32 = 32;
/// Elements of a head whose values a plane's units hold in one load each per key.
const SPAN: u32 = NARROW * VECTOR;

/// How a layer's decode attention is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    kv_heads: u32,
    head: HeadPlan,
    pub(super) split: Split,
}

impl Plan {
    /// For `rows` rows whose heads are turned by a table `rotary` wide, where tensor cores multiply what `cache`
    /// holds and a head fills whole loads.
    pub(super) fn new(
        attention: &AttentionSpec,
        rope: &RopeSpec,
        rotary: usize,
        gate: Option<u32>,
        cache: &CubeTensor,
        rows: usize,
    ) -> Option<Self> {
        let AttentionSpec { heads, kv_heads, head_dim, window, .. } = *attention;
        let [_, _, capacity, cache_width] = dims(cache);
        let d = head_dim as u32;
        if cache_width != head_dim
            || !d.is_multiple_of(SPAN)
            || d > 4 * SPAN
            || !multiplies_registers(cache.client.properties(), cache.dtype)
        {
            return None;
        }
        let queries = heads / kv_heads;
        let group = (1..=NARROW as usize).rev().find(|group| queries % group == 0).unwrap_or(1);
        let keys = PLANES * FRAGMENT;
        let reach = window.unwrap_or(capacity).min(capacity);
        // As many cubes as processors hold at once: registers hold two of short heads, one of long ones.
        let cubes = if d == SPAN { 2 } else { 1 } * processors(cache);
        let splits = (cubes / (heads / group * rows)).clamp(1, MAX_SPLITS).min(reach.div_ceil(keys as usize));
        let split = Split {
            heads: heads as u32,
            group: group as u32,
            d,
            window: window.unwrap_or(0) as u32,
            planes: PLANES,
            plane: PLANE,
            keys,
            splits: splits as u32,
            alone: if d > 2 * SPAN { 1 } else { ALONE },
            folds: folds(cache),
            gate,
        }
        .merged_well();
        let head = HeadPlan { width: VECTOR, lanes: LANES, ..HeadPlan::new(head_dim, rotary, rope, cache, PLANE) };
        Some(Self { kv_heads: kv_heads as u32, head, split })
    }

    /// Vectors of a key that a unit holds.
    fn loads(self) -> u32 {
        self.split.d / (LANES * VECTOR)
    }

    /// Parts of a head whose values a plane loads at once.
    fn spans(self) -> u32 {
        self.split.d / SPAN
    }

    /// Products of sixteen elements in a score.
    fn steps(self) -> u32 {
        self.split.d / FRAGMENT
    }

    /// Whether registers hold two tiles and the queries. Of long heads they hold one tile, whose keys and then
    /// values make room for the next one's as soon as they are multiplied; the queries lie in shared memory.
    fn short(self) -> bool {
        self.split.d <= 2 * SPAN
    }
}

/// Pair `i` of eight elements.
#[cube]
fn pair_of<F: Float, N: Size>(eight: Vector<F, N>, #[comptime] i: u32) -> Vector<F, Pair> {
    let mut pair = Vector::<F, Pair>::empty();
    pair.insert(0usize, eight.extract(comptime!((2 * i) as usize)));
    pair.insert(1usize, eight.extract(comptime!((2 * i + 1) as usize)));
    pair
}

/// Element `i` of two vectors.
#[cube]
fn across<F: Float, N: Size>(a: Vector<F, N>, b: Vector<F, N>, #[comptime] i: u32) -> Vector<F, Pair> {
    let mut pair = Vector::<F, Pair>::empty();
    pair.insert(0usize, a.extract(comptime!(i as usize)));
    pair.insert(1usize, b.extract(comptime!(i as usize)));
    pair
}

/// The place in a tile of the key whose value stands at `i` of four in a unit's registers.
#[cube]
fn key_of(lane: u32, #[comptime] i: u32) -> u32 {
    lane % 4 * 2 + comptime!(i % 2 + i / 2 * NARROW)
}

/// Sixteen keys and their values as a unit holds them.
#[derive(CubeType)]
struct Tile<F: Float, N: Size> {
    /// `loads` vectors of key `lane / 4`, then of the one eight further.
    keys: Array<Vector<F, N>>,
    /// Of each span, vector `lane / 4` of the values of the keys of `key_of`.
    values: Array<Vector<F, N>>,
}

/// Where a tile lies.
#[derive(CubeType, Clone, Copy)]
struct Place {
    /// First row of the slot's head in the cache.
    cache: u32,
    /// First key.
    first: u32,
    /// Keys that are seen, at least one; the others are the last of them again.
    seen: u32,
}

#[cube]
impl<F: Float, N: Size> Tile<F, N> {
    fn new(#[comptime] plan: Plan) -> Tile<F, N> {
        Tile::<F, N> {
            keys: Array::<Vector<F, N>>::new(comptime!((2 * plan.loads()) as usize)),
            values: Array::<Vector<F, N>>::new(comptime!((4 * plan.spans()) as usize)),
        }
    }

    fn load_keys(&mut self, k_cache: &mut [Vector<F, N>], place: &Place, #[comptime] plan: Plan) {
        #[unroll]
        for half in 0..2u32 {
            let key = place.first + min(half * NARROW + UNIT_POS_X / 4, place.seen - 1);
            let at = (place.cache + key) * comptime!(plan.split.d / VECTOR) + UNIT_POS_X % 4;
            #[unroll]
            for i in 0..comptime!(plan.loads()) {
                self.keys[comptime!((half * plan.loads() + i) as usize)] = k_cache[(at + i * LANES) as usize];
            }
        }
    }

    fn load_values(&mut self, v_cache: &mut [Vector<F, N>], place: &Place, #[comptime] plan: Plan) {
        #[unroll]
        for i in 0..4u32 {
            let key = place.first + min(key_of(UNIT_POS_X, i), place.seen - 1);
            let at = (place.cache + key) * comptime!(plan.split.d / VECTOR) + UNIT_POS_X / 4;
            #[unroll]
            for span in 0..comptime!(plan.spans()) {
                self.values[comptime!((span * 4 + i) as usize)] = v_cache[(at + span * NARROW) as usize];
            }
        }
    }

    /// Makes it the other.
    fn take(&mut self, other: &Tile<F, N>, #[comptime] plan: Plan) {
        #[unroll]
        for i in 0..comptime!(2 * plan.loads()) {
            self.keys[i as usize] = other.keys[i as usize];
        }
        #[unroll]
        for i in 0..comptime!(4 * plan.spans()) {
            self.values[i as usize] = other.values[i as usize];
        }
    }
}

/// A running softmax of the query heads of a cube over the keys of a plane.
#[derive(CubeType)]
struct Running<F: Float, N: Size> {
    /// Registers of the products' first matrix: a step's elements of query `lane / 4`, and eight rows below what
    /// rounding took from them. Empty where they lie in `shared`.
    queries: Sequence<Array<Vector<F, Pair>>>,
    /// The same of long heads, `[steps, lanes]`: those of a cube's planes are alike.
    shared: Shared<[Vector<F, N>]>,
    /// Of query `lane / 4`; the sum is that of the unit's own keys.
    maximum: f32,
    sum: f32,
    /// Sums of weighted values, sixteen elements of a head by eight queries each.
    values: Sequence<Array<Vector<f32, Pair>>>,
}

#[cube]
impl<F: Float, N: Size> Running<F, N> {
    /// `q` holds the unit's slice of its query, already scaled.
    fn new(q: &Array<f32>, #[comptime] plan: Plan) -> Running<F, N> {
        let mut queries = Sequence::<Array<Vector<F, Pair>>>::new();
        let shared_steps = comptime!(if plan.short() { 0 } else { plan.steps() });
        let mut shared = Shared::<[Vector<F, N>]>::new_slice(comptime!((shared_steps * PLANE).max(1) as usize));
        #[unroll]
        for step in 0..comptime!(plan.steps()) {
            let mut registers = Array::<Vector<F, Pair>>::new(4usize);
            #[unroll]
            for half in 0..2u32 {
                let mut rounded = Vector::<F, Pair>::empty();
                let mut rest = Vector::<F, Pair>::empty();
                #[unroll]
                for j in 0..2u32 {
                    let value = q[comptime!((step * 4 + half * 2 + j) as usize)];
                    let narrow = F::cast_from(value);
                    rounded.insert(comptime!(j as usize), narrow);
                    rest.insert(comptime!(j as usize), F::cast_from(value - f32::cast_from(narrow)));
                }
                registers[comptime!((half * 2) as usize)] = rounded;
                registers[comptime!((half * 2 + 1) as usize)] = rest;
            }
            if comptime!(plan.short()) {
                queries.push(registers);
            } else if UNIT_POS_Y == 0 {
                let mut eight = Vector::<F, N>::empty();
                #[unroll]
                for i in 0..VECTOR {
                    let pair = registers[comptime!((i / 2) as usize)];
                    eight.insert(comptime!(i as usize), pair.extract(comptime!((i % 2) as usize)));
                }
                shared[(step * PLANE + UNIT_POS_X) as usize] = eight;
            }
        }
        if comptime!(!plan.short()) {
            sync_cube();
        }
        let values = zeros(comptime!(plan.steps()));
        Running::<F, N> { queries, shared, maximum: MASKED.runtime(), sum: 0.0f32.runtime(), values }
    }

    /// The registers of a step's queries.
    fn query(&self, #[comptime] step: u32, #[comptime] plan: Plan) -> Array<Vector<F, Pair>> {
        let mut registers = Array::<Vector<F, Pair>>::new(4usize);
        if comptime!(plan.short()) {
            let held = self.queries.index(comptime!(step as usize));
            #[unroll]
            for i in 0..4usize {
                registers[i] = held[i];
            }
        } else {
            let eight = self.shared[(step * PLANE + UNIT_POS_X) as usize];
            #[unroll]
            for i in 0..4u32 {
                registers[comptime!(i as usize)] = pair_of(eight, i);
            }
        }
        registers
    }

    /// Takes the keys of a tile into the softmax and returns what their values weigh, of query `lane / 4` those
    /// of `key_of`.
    fn score(&mut self, tile: &Tile<F, N>, seen: u32, #[comptime] plan: Plan) -> Array<Vector<F, Pair>> {
        let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
        let lane = UNIT_POS_X;
        if comptime!(!plan.short()) {
            // Else the compiler brings all queries to registers, which are not there, before the first tile.
            sync_plane();
        }
        let mut sums = zeros(2u32);
        #[unroll]
        for step in 0..comptime!(plan.steps()) {
            let query = self.query(step, plan);
            #[unroll]
            for half in 0..2u32 {
                let eight = tile.keys[comptime!((half * plan.loads() + step / 2) as usize)];
                let mut key = Array::<Vector<F, Pair>>::new(2usize);
                key[0] = pair_of(eight, comptime!(step % 2 * 2));
                key[1] = pair_of(eight, comptime!(step % 2 * 2 + 1));
                definition.execute_inplace(&query, &key, sums.index_mut(comptime!(half as usize)));
            }
        }
        let mut scores = Array::<f32>::new(4usize);
        let mut largest = self.maximum;
        #[unroll]
        for i in 0..4u32 {
            let sum = sums.index(comptime!((i / 2) as usize));
            let score = sum[0].extract(comptime!((i % 2) as usize)) + sum[1].extract(comptime!((i % 2) as usize));
            let score = select(key_of(lane, i) < seen, score, MASKED);
            scores[comptime!(i as usize)] = score;
            largest = max(largest, score);
        }
        largest = max(largest, plane_shuffle_xor(largest, 1u32));
        largest = max(largest, plane_shuffle_xor(largest, 2u32));
        self.raise(largest, plan);
        let mut weights = Array::<Vector<F, Pair>>::new(2usize);
        #[unroll]
        for half in 0..2u32 {
            let mut pair = Vector::<F, Pair>::empty();
            #[unroll]
            for j in 0..2u32 {
                let i = comptime!(half * 2 + j);
                let score = scores[comptime!(i as usize)];
                let weight = select(key_of(lane, i) < seen, f32::exp(score - largest), 0.0f32);
                self.sum += weight;
                pair.insert(comptime!(j as usize), F::cast_from(weight));
            }
            weights[half as usize] = pair;
        }
        weights
    }

    /// Adds the values of a tile, weighted.
    fn weigh(&mut self, tile: &Tile<F, N>, weights: &Array<Vector<F, Pair>>, #[comptime] plan: Plan) {
        let definition = MmaDefinition::<F, F, f32>::new(16usize, 8usize, 16usize);
        #[unroll]
        for span in 0..comptime!(plan.spans()) {
            #[unroll]
            for i in 0..4u32 {
                let mut elements = Array::<Vector<F, Pair>>::new(4usize);
                #[unroll]
                for half in 0..2u32 {
                    let first = comptime!((span * 4 + half * 2) as usize);
                    let (a, b) = (tile.values[first], tile.values[comptime!(first + 1)]);
                    elements[comptime!((half * 2) as usize)] = across(a, b, comptime!(2 * i));
                    elements[comptime!((half * 2 + 1) as usize)] = across(a, b, comptime!(2 * i + 1));
                }
                let sum = self.values.index_mut(comptime!((span * 4 + i) as usize));
                definition.execute_inplace(&elements, weights, sum);
            }
        }
    }

    /// Makes `largest`, of query `lane / 4`, what weights are relative to.
    fn raise(&mut self, largest: f32, #[comptime] plan: Plan) {
        let shrink = f32::exp(self.maximum - largest);
        self.sum *= shrink;
        if plane_any(largest > self.maximum) {
            let both = of_columns(shrink);
            #[unroll]
            for i in 0..comptime!(plan.steps()) {
                let value = self.values.index_mut(comptime!(i as usize));
                value[0] *= both;
                value[1] *= both;
            }
        }
        self.maximum = largest;
    }

    /// Adds one more key, as it comes from the projection: the unit's slice of it, and its part of the value.
    fn add_one<W: Size>(&mut self, key: &Array<f32>, value: &Array<Vector<f32, W>>, #[comptime] plan: Plan) {
        let mut dot = 0.0f32;
        #[unroll]
        for step in 0..comptime!(plan.steps()) {
            let registers = self.query(step, plan);
            #[unroll]
            for i in 0..4u32 {
                let half = comptime!((i / 2 * 2) as usize);
                let (narrow, rest) = (registers[half], registers[comptime!(half + 1)]);
                let (narrow, rest) =
                    (narrow.extract(comptime!((i % 2) as usize)), rest.extract(comptime!((i % 2) as usize)));
                let query = f32::cast_from(narrow) + f32::cast_from(rest);
                dot += query * key[comptime!((step * 4 + i) as usize)];
            }
        }
        let score = lanes_sum(dot, LANES);
        let largest = max(self.maximum, score);
        self.raise(largest, plan);
        let weight = f32::exp(score - largest);
        if UNIT_POS_X % 4 == 0 {
            self.sum += weight;
        }
        let weights = of_columns(weight);
        #[unroll]
        for i in 0..comptime!(plan.steps() / 2) {
            let four = value[i as usize];
            #[unroll]
            for j in 0..4u32 {
                let sum = self.values.index_mut(comptime!((2 * i + j / 2) as usize));
                sum[comptime!((j % 2) as usize)] += weights * Vector::new(four.extract(comptime!(j as usize)));
            }
        }
    }
}

/// A value of query `lane / 4`, as the units hold it that have the queries of `lane % 4`: those are the columns
/// of their sums.
#[cube]
fn of_columns(value: f32) -> Vector<f32, Pair> {
    let mut both = Vector::<f32, Pair>::empty();
    #[unroll]
    for j in 0..2u32 {
        both.insert(comptime!(j as usize), plane_shuffle(value, (UNIT_POS_X % 4 * 2 + j) * LANES));
    }
    both
}

/// Tile `at` of the `held` keys from `low` on.
#[cube]
fn place_of(cache: u32, low: u32, held: u32, at: u32) -> Place {
    Place { cache, first: low + at * FRAGMENT, seen: min(held - at * FRAGMENT, FRAGMENT) }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn attend<F: Float, N: Size, W: Size>(
    qkv: &[Vector<f32, W>],
    q_norm: &[Vector<f32, W>],
    k_norm: &[Vector<f32, W>],
    table: &[Vector<f32, W>],
    positions: &[i32],
    slots: &[i32],
    k_cache: &mut [Vector<F, N>],
    v_cache: &mut [Vector<F, N>],
    partial: &mut [Vector<f32, W>],
    stats: &mut [f32],
    arrivals: &mut [Atomic<i32>],
    out: &mut [Vector<f32, W>],
    width: u32,
    capacity: u32,
    scale: f32,
    eps: f32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    begin_next();
    let (group, d) = comptime!((plan.split.group, plan.split.d));
    let slice = comptime!(plan.head.slice());
    let lane = UNIT_POS_X;
    let head0 = CUBE_POS_X * group;
    let kv_head = head0 / comptime!(plan.split.heads / plan.kv_heads);
    let row = CUBE_POS_Y;
    let (position, slot) = (positions[row as usize], slots[row as usize]);
    // Asked for together: one would else wait for the other.
    let seated = slot >= 0;
    let (position, slot) = (u32::cast_from(position), u32::cast_from(slot));
    let low = first_key(position, plan.split.window);
    let used = used_splits(position, plan.split);
    if CUBE_POS_Z < used && seated {
        let qkv_row = row * width;
        let cache = (slot * plan.kv_heads + kv_head) * capacity;
        // Tiles before the position, which planes take in turn.
        let held = position - low;
        let tiles = held.div_ceil(FRAGMENT);
        let stride = used * PLANES;
        let turn = CUBE_POS_Z * PLANES + UNIT_POS_Y;
        let mut at = turn;
        let mut tile = Tile::<F, N>::new(plan);
        if at < tiles {
            let place = place_of(cache, low, held, at);
            tile.load_keys(k_cache, &place, plan);
            if comptime!(plan.short()) {
                tile.load_values(v_cache, &place, plan);
            }
        }

        // What the cache holds of earlier steps is there; the new query is not.
        wait_for_launches();
        let mut q = Array::<f32>::new(comptime!(slice as usize));
        let head = head0 + min(lane / LANES, comptime!(group - 1));
        prepare(qkv, q_norm, table, qkv_row + head * d, position, eps, &mut q, 0u32, plan.head);
        #[unroll]
        for i in 0..slice {
            q[i as usize] *= scale;
        }
        let mut running = Running::<F, N>::new(&q, plan);
        // The new key is the next in turn.
        if tiles % stride == turn {
            let k_base = qkv_row + comptime!(plan.split.heads * plan.split.d) + kv_head * d;
            let v_base = k_base + comptime!(plan.kv_heads * plan.split.d);
            let mut v = Array::<Vector<f32, W>>::new(comptime!((plan.steps() / 2) as usize));
            #[unroll]
            for i in 0..comptime!(plan.steps() / 2) {
                let part = (lane / 4 + comptime!(i / 2 * NARROW)) * 2 + comptime!(i % 2);
                v[i as usize] = qkv[(v_base / 4 + part) as usize];
            }
            let mut k = Array::<f32>::new(comptime!(slice as usize));
            prepare(qkv, k_norm, table, k_base, position, eps, &mut k, 0u32, plan.head);
            running.add_one(&k, &v, plan);
            // Each unit of the first four has a part of the key.
            if lane < LANES && head0 == kv_head * comptime!(plan.split.heads / plan.kv_heads) {
                #[unroll]
                for i in 0..comptime!(plan.loads()) {
                    let part = i * LANES + lane;
                    let mut key = Vector::<F, N>::empty();
                    let mut value = Vector::<F, N>::empty();
                    #[unroll]
                    for j in 0..VECTOR {
                        key.insert(comptime!(j as usize), F::cast_from(k[comptime!((i * VECTOR + j) as usize)]));
                    }
                    #[unroll]
                    for half in 0..2u32 {
                        let four = qkv[(v_base / 4 + part * 2 + half) as usize];
                        #[unroll]
                        for j in 0..4u32 {
                            let element = F::cast_from(four.extract(comptime!(j as usize)));
                            value.insert(comptime!((half * 4 + j) as usize), element);
                        }
                    }
                    let to = (cache + position) * comptime!(plan.split.d / VECTOR) + part;
                    k_cache[to as usize] = key;
                    v_cache[to as usize] = value;
                }
            }
        }
        if comptime!(!plan.short()) {
            // Only here: what came before needs the registers.
            if at < tiles {
                tile.load_values(v_cache, &place_of(cache, low, held, at), plan);
            }
        }
        while at < tiles {
            let next = at + stride;
            let seen = place_of(cache, low, held, at).seen;
            if comptime!(plan.short()) {
                let mut following = Tile::<F, N>::new(plan);
                if next < tiles {
                    let place = place_of(cache, low, held, next);
                    following.load_keys(k_cache, &place, plan);
                    following.load_values(v_cache, &place, plan);
                }
                let weights = running.score(&tile, seen, plan);
                running.weigh(&tile, &weights, plan);
                tile.take(&following, plan);
            } else {
                let weights = running.score(&tile, seen, plan);
                if next < tiles {
                    tile.load_keys(k_cache, &place_of(cache, low, held, next), plan);
                }
                running.weigh(&tile, &weights, plan);
                if next < tiles {
                    tile.load_values(v_cache, &place_of(cache, low, held, next), plan);
                }
            }
            at = next;
        }

        let mut found = Found::<W>::new(plan.split);
        let mut sum = running.sum;
        sum += plane_shuffle_xor(sum, 1u32);
        sum += plane_shuffle_xor(sum, 2u32);
        if lane % 4 == 0 && lane / 4 < group {
            let to = (UNIT_POS_Y * group + lane / 4) * 2;
            found.stats[to as usize] = running.maximum;
            found.stats[(to + 1) as usize] = sum;
        }
        #[unroll]
        for j in 0..2u32 {
            let query = lane % 4 * 2 + j;
            if query < group {
                // Four neighbouring elements of the head stand in two sums.
                #[unroll]
                for i in 0..comptime!(plan.steps() / 2) {
                    let element = (lane / 4 + comptime!(i / 2 * NARROW)) * VECTOR + comptime!(i % 2 * 4);
                    let mut four = Vector::<f32, W>::empty();
                    #[unroll]
                    for half in 0..4u32 {
                        let sums = running.values.index(comptime!((2 * i + half / 2) as usize));
                        let value = sums[comptime!((half % 2) as usize)].extract(comptime!(j as usize));
                        four.insert(comptime!(half as usize), value);
                    }
                    found.values[(((UNIT_POS_Y * group + query) * d + element) / 4) as usize] = four;
                }
            }
        }
        finish(&mut found, head0, used, partial, stats, arrivals, qkv, out, width, plan.split);
    } else {
        wait_for_launches();
    }
}
