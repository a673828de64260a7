//! Row by row, on any device: the state stays in registers while the rows pass.
//!
//! Columns of the state do not depend on each other. A few units hold one column, each every few
//! vectors of it. What the next rows need is loaded while a tile of rows is computed. What a row reads
//! of the new state, `q · S'`, is summed beside what it reads of the old one, `k · S`, as
//! `decay (q · S) + write (q · k)`: one wait a row instead of two.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{Inputs, decay_and_strength};
use crate::cube::dependent::{begin_next, wait_for_launches};
use crate::cube::{dims, line, plane_size};
use crate::ops::{DeltaSpec, L2_EPS};

const UNITS: u32 = 128;
/// Most units that hold one column of the state.
const MAX_SHARE: u32 = 8;
/// Floats of queries and keys in shared memory.
const SHARED_FLOATS: usize = 2_048;

/// How the rows pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    spec: DeltaSpec,
    /// Elements of a vector.
    vector: u32,
    /// Units that hold one column of the state.
    share: u32,
    /// Rows of a tile.
    rows: u32,
}

impl Plan {
    fn new(spec: DeltaSpec, m: usize, plane: u32) -> Self {
        let vector = if spec.width().is_multiple_of(4) { 4 } else { 1 };
        let share = MAX_SHARE.min(plane);
        // Every column's units take one row's query and key.
        let most = (UNITS / share) as usize;
        let rows = if spec.consecutive { (SHARED_FLOATS / (2 * spec.key_dim)).clamp(1, most).min(m) } else { 1 };
        Self { spec, vector, share, rows: rows as u32 }
    }

    /// Columns of a cube.
    fn columns(self) -> u32 {
        UNITS / self.share
    }

    /// Vectors of a key.
    fn vectors(self) -> u32 {
        self.spec.key_dim as u32 / self.vector
    }

    /// Vectors of a column that a unit holds.
    fn per_unit(self) -> u32 {
        self.vectors().div_ceil(self.share)
    }

    /// Vectors of a tile's keys that a unit brings.
    fn loads(self) -> u32 {
        (self.rows * self.vectors()).div_ceil(UNITS)
    }

    /// Values of a tile that a unit brings.
    fn value_loads(self) -> u32 {
        (self.rows * self.columns()).div_ceil(UNITS)
    }

    /// Whether all units hold the same number of vectors.
    fn even(self) -> bool {
        self.vectors().is_multiple_of(self.share)
    }
}

/// The rows of each slot one after the other.
pub(super) fn launch(inputs: Inputs, state: &CubeTensor, out: &CubeTensor, spec: DeltaSpec) {
    let Inputs { qkv, gates, a, dt_bias, positions, slots } = inputs;
    let [m, gate_width] = dims(&gates);
    let plan = Plan::new(spec, m, plane_size(&qkv));
    let runs = if spec.consecutive { 1 } else { m as u32 };
    delta_rule::launch(
        &out.client,
        CubeCount::Static((spec.value_dim as u32).div_ceil(plan.columns()), spec.value_heads as u32, runs),
        line(UNITS),
        plan.vector as usize,
        qkv.clone().into_buffer_arg(),
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
        plan,
    );
}

/// The sum of `value` over the units of a column.
#[cube]
fn share_sum(value: f32, #[comptime] share: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for i in 0..comptime!(share.ilog2()) {
        sum += plane_shuffle_xor(sum, comptime!(1u32 << i));
    }
    sum
}

/// `sums` of products, four of them so that additions need not wait for one another.
#[cube]
fn total(sums: &Array<f32>) -> f32 {
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}

#[cube]
fn zeros() -> Array<f32> {
    let mut sums = Array::<f32>::new(4usize);
    #[unroll]
    for j in 0..4usize {
        sums[j] = 0.0f32;
    }
    sums
}

/// `vectors` holds the same buffer as `qkv`.
#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn delta_rule<N: Size>(
    qkv: &[f32],
    vectors: &[Vector<f32, N>],
    gates: &[f32],
    a: &[f32],
    dt_bias: &[f32],
    positions: &[i32],
    slots: &[i32],
    state: &mut [f32],
    out: &mut [f32],
    m: u32,
    gate_width: u32,
    #[comptime] plan: Plan,
) {
    let spec = comptime!(plan.spec);
    let (rows, share, n) = comptime!((plan.rows, plan.share, plan.vector));
    let (columns, per_unit) = comptime!((plan.columns(), plan.per_unit()));
    let length = comptime!(plan.vectors());
    let dv = comptime!(spec.value_dim as u32);
    let value_heads = comptime!(spec.value_heads as u32);
    let keys_width = comptime!((spec.key_heads * spec.key_dim) as u32);
    let width = comptime!(spec.width() as u32);
    let mut keys = Shared::<[Vector<f32, N>]>::new_slice(comptime!((rows * length) as usize));
    let mut queries = Shared::<[Vector<f32, N>]>::new_slice(comptime!((rows * length) as usize));
    let mut values = Shared::<[f32]>::new_slice(comptime!((rows * columns) as usize));
    // Decay, writing strength and q · k of each row.
    let mut scalars = Shared::<[f32]>::new_slice(comptime!((rows * 3) as usize));

    begin_next();
    let unit = UNIT_POS_X;
    let part = unit % share;
    let own = unit / share;
    let wanted = CUBE_POS_X * columns + own;
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
    let base =
        (u32::cast_from(slots[first as usize]) * value_heads + head) * comptime!(spec.key_dim as u32 * dv) + column;
    let anew = positions[first as usize] == 0;
    let mut s = Array::<f32>::new(comptime!((per_unit * n) as usize));
    #[unroll]
    for j in 0..per_unit {
        let vector = part + j * share;
        #[unroll]
        for i in 0..n {
            let mut held = 0.0f32;
            if !anew && (comptime!(plan.even()) || vector < length) {
                held = state[(base + (vector * n + i) * dv) as usize];
            }
            s[comptime!((j * n + i) as usize)] = held;
        }
    }

    wait_for_launches();
    // What the next tile needs, on its way while this one is computed.
    let mut next_keys = Array::<Vector<f32, N>>::new(comptime!(plan.loads() as usize));
    let mut next_queries = Array::<Vector<f32, N>>::new(comptime!(plan.loads() as usize));
    let mut next_values = Array::<f32>::new(comptime!(plan.value_loads() as usize));
    let mut next_a = 0.0f32;
    let mut next_b = 0.0f32;
    let a = a[head as usize];
    let dt_bias = dt_bias[head as usize];
    let tiles = (end - first).div_ceil(rows);
    // One turn more than there are tiles: the first only loads.
    for turn in 0..tiles + 1 {
        let tile = first + turn * rows;
        if turn > 0 {
            #[unroll]
            for j in 0..comptime!(plan.loads()) {
                let i = unit + j * UNITS;
                if i < comptime!(rows * length) {
                    keys[i as usize] = next_keys[j as usize];
                    queries[i as usize] = next_queries[j as usize];
                }
            }
            #[unroll]
            for j in 0..comptime!(plan.value_loads()) {
                let i = unit + j * UNITS;
                if i < comptime!(rows * columns) {
                    values[i as usize] = next_values[j as usize];
                }
            }
            if unit < rows {
                let (decay, strength) = decay_and_strength(next_a + dt_bias, a, next_b);
                scalars[(unit * 3) as usize] = f32::exp(decay);
                scalars[(unit * 3 + 1) as usize] = strength;
            }
            sync_cube();
        }
        if turn < tiles {
            // Rows past the end are the last again; nothing is done with them.
            #[unroll]
            for j in 0..comptime!(plan.loads()) {
                let i = min(unit + j * UNITS, comptime!(rows * length - 1));
                let row = min(tile + i / length, end - 1);
                let at = row * comptime!(width / n) + key_head * length + i % length;
                next_queries[j as usize] = vectors[at as usize];
                next_keys[j as usize] = vectors[(at + comptime!(keys_width / n)) as usize];
            }
            #[unroll]
            for j in 0..comptime!(plan.value_loads()) {
                let i = unit + j * UNITS;
                let row = min(tile + i / columns, end - 1);
                let place = min(CUBE_POS_X * columns + i % columns, comptime!(dv - 1));
                next_values[j as usize] = qkv[(row * width + comptime!(2 * keys_width) + head * dv + place) as usize];
            }
            let at = min(tile + unit, end - 1) * gate_width + head;
            next_a = gates[(at + comptime!(spec.a_offset as u32)) as usize];
            next_b = gates[(at + comptime!(spec.b_offset as u32)) as usize];
        }
        if turn > 0 {
            // Queries and keys are brought to length 1.
            let row = min(own, comptime!(rows - 1));
            let mut squares_k = 0.0f32;
            let mut squares_q = 0.0f32;
            let mut product = 0.0f32;
            #[unroll]
            for j in 0..per_unit {
                let vector = part + j * share;
                if comptime!(plan.even()) || vector < length {
                    let k = keys[(row * length + vector) as usize];
                    let q = queries[(row * length + vector) as usize];
                    #[unroll]
                    for i in 0..n {
                        let (k, q) = (k.extract(comptime!(i as usize)), q.extract(comptime!(i as usize)));
                        squares_k += k * k;
                        squares_q += q * q;
                        product += q * k;
                    }
                }
            }
            let k_scale = 1.0f32 / f32::sqrt(share_sum(squares_k, share) + L2_EPS);
            let factor = comptime!((spec.key_dim as f32).powf(-0.5));
            let q_scale = factor / f32::sqrt(share_sum(squares_q, share) + L2_EPS);
            let product = share_sum(product, share) * k_scale * q_scale;
            if own < rows {
                #[unroll]
                for j in 0..per_unit {
                    let vector = part + j * share;
                    if comptime!(plan.even()) || vector < length {
                        let at = (row * length + vector) as usize;
                        keys[at] *= Vector::new(k_scale);
                        queries[at] *= Vector::new(q_scale);
                    }
                }
                if part == 0 {
                    scalars[(row * 3 + 2) as usize] = product;
                }
            }
            sync_cube();
            let done = tile - rows;
            let count = min(end - done, rows.runtime());
            for row in 0..count {
                let decay = scalars[(row * 3) as usize];
                let strength = scalars[(row * 3 + 1) as usize];
                let product = scalars[(row * 3 + 2) as usize];
                let value = values[(row * columns + own) as usize];
                let mut k = Array::<Vector<f32, N>>::new(comptime!(per_unit as usize));
                let mut by_key = zeros();
                let mut by_query = zeros();
                #[unroll]
                for j in 0..per_unit {
                    let vector = part + j * share;
                    // What a unit does not hold is zero.
                    let at = select(comptime!(plan.even()) || vector < length, row * length + vector, row * length);
                    k[j as usize] = keys[at as usize];
                    let q = queries[at as usize];
                    #[unroll]
                    for i in 0..n {
                        let held = s[comptime!((j * n + i) as usize)];
                        let sum = comptime!(((j * n + i) % 4) as usize);
                        by_key[sum] += held * k[j as usize].extract(comptime!(i as usize));
                        by_query[sum] += held * q.extract(comptime!(i as usize));
                    }
                }
                let read = share_sum(total(&by_key), share);
                let queried = share_sum(total(&by_query), share);
                let write = strength * (value - decay * read);
                #[unroll]
                for j in 0..per_unit {
                    #[unroll]
                    for i in 0..n {
                        let at = comptime!((j * n + i) as usize);
                        let next = s[at] * decay + k[j as usize].extract(comptime!(i as usize)) * write;
                        s[at] =
                            if comptime!(plan.even()) { next } else { select(part + j * share < length, next, 0.0f32) };
                    }
                }
                if part == 0 && wanted < dv {
                    let at = (done + row) * comptime!(value_heads * dv) + head * dv + column;
                    out[at as usize] = decay * queried + write * product;
                }
            }
            sync_cube();
        }
    }
    if wanted < dv {
        #[unroll]
        for j in 0..per_unit {
            let vector = part + j * share;
            if comptime!(plan.even()) || vector < length {
                #[unroll]
                for i in 0..n {
                    state[(base + (vector * n + i) * dv) as usize] = s[comptime!((j * n + i) as usize)];
                }
            }
        }
    }
}
